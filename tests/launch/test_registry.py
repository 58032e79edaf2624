"""The target of this process, and what notes say of it."""

from __future__ import annotations

import pytest

from fq_tvm.launch import registry
from fq_tvm.store.cache import Store
from fq_tvm.target import identify


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this process, which knows no target yet."""
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(registry, "_targets", {})
    return Store(tmp_path)


@pytest.mark.parametrize("answer", [None, {}, [], 7, {"cpu": "znver4"}, {"cpu": "znver4", "features": 3}])
def test_a_note_of_something_else_is_made_anew(cache, answer):
    question = identify("x86-64-v3")
    right = registry.find_target("x86-64-v3")
    registry._targets.clear()
    cache.remember(question, answer)
    assert registry.find_target("x86-64-v3") == right
    assert cache.recall(question) == right.to_json()

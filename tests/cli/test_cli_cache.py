"""`fq-tvm cache`: what it lists and removes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fq_tvm.store.cache import Store


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of two entries, one of them of an old version, and one leftover."""
    from fq_tvm.launch.registry import request_of, versions
    from fq_tvm.schedule import Schedule
    from fq_tvm.spec import FakeQuantSpec
    from fq_tvm.store.cache import Entry
    from fq_tvm.target import Target

    folder = tmp_path / "cache"
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(folder))
    store = Store(folder)
    request = request_of(FakeQuantSpec("rows"), Schedule(), Target("x86-64", ()))
    store.put(Entry(request, "0" * 64, {"kernel.o": bytes(600_000)}))
    old = {**request, "versions": {**versions(), "fq_tvm": "0.0.9"}, "spec": {"iteration": "spiral", "size": "7"}}
    store.put(Entry(old, "1" * 64, {"kernel.o": bytes(500_000)}))
    return folder


def names(answer: Any) -> list[str]:
    return [k["name"] for k in answer["kernels"]]


def test_cache_path(ask, own_cache):
    assert ask("cache", "path") == f"{own_cache}\n"
    assert ask("cache", "path", "--json") == {"path": str(own_cache)}


def test_cache_list(ask, own_cache):
    answer = ask("cache", "list", "--json")
    assert names(answer) == ["fq_rows_f32_f32_i32_f32_narrow", "spiral_7"]
    assert [k["bytes"] for k in answer["kernels"]] == [600_000, 500_000]
    text = ask("cache", "list")
    assert "spiral_7" in text
    assert f"2 kernels in {own_cache}: 1.10 MB" in text


def test_cache_prune(ask, own_cache):
    assert "removed 0, left 2" in ask("cache", "prune")
    assert "removed 0, left 2" in ask("cache", "prune", "--older-than", "1", "--max-size", "1.2")
    answer = ask("cache", "prune", "--other-versions", "--json")
    assert (len(answer["removed"]), answer["left"]) == (1, 1)
    assert names(ask("cache", "list", "--json")) == ["fq_rows_f32_f32_i32_f32_narrow"]


def test_cache_prune_by_age_and_size(ask, own_cache):
    kernels = ask("cache", "list", "--json")["kernels"]
    os.utime(kernels[0]["path"], (1e9, 1e9))
    assert "removed 1, left 1" in ask("cache", "prune", "--max-size", "1")
    assert names(ask("cache", "list", "--json")) == ["spiral_7"]
    os.utime(kernels[1]["path"], (1e9, 1e9))
    assert "removed 1, left 0" in ask("cache", "prune", "--older-than", "0.5")


def test_cache_clear(ask, own_cache):
    assert ask("cache", "clear", "--json")["removed"] == 2
    assert ask("cache", "list", "--json")["kernels"] == []
    assert f"0 kernels in {own_cache}" in ask("cache", "list")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clear", "--older-than", "3"], "belong to prune, not to clear"),
        (["list", "--max-size", "0"], "belong to prune"),
        (["prune", "--older-than", "-1"], "from 0 up"),
        (["prune", "--max-size", "inf"], "from 0 up"),
        (["prune", "--max-size", "much"], "'much'"),
    ],
)
def test_cache_refuses(arguments, said, refused, own_cache):
    assert said in refused("cache", *arguments)


def test_what_stays_is_said(ask, own_cache):
    [kernel, _] = ask("cache", "list", "--json")["kernels"]
    mine = Path(kernel["path"]) / "mine.txt"
    mine.write_text("precious")
    assert ask("cache", "prune", "--max-size", "0", "--json")["stays"] == {
        kernel["path"]: "it holds 'mine.txt', which the cache did not write"
    }
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("fq_tvm.cli.cache.say", said.append)
        assert "removed 0 kernels" in ask("cache", "clear")
    assert said == [f"note: {kernel['path']} stays: it holds 'mine.txt', which the cache did not write"]
    assert mine.read_text() == "precious"

"""The store: what it finds, what it refuses, and that nothing half-written is ever seen."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import warnings
from pathlib import Path

import pytest

from fq_tvm.errors import CacheMissError
from fq_tvm.store import cache
from fq_tvm.store.cache import Entry, Store, digest, get_or_build

REQUEST = {"format": 1, "spec": {"iteration": "rows", "dtype": "float32"}, "versions": {"fq_tvm": "1"}}


def entry(request=REQUEST, text=b"code") -> Entry:
    return Entry(dict(request), digest(text.decode()), {"kernel.o": text, "kernel.tir": b"tir"})


def test_put_then_find(tmp_path):
    store = Store(tmp_path / "a" / "b")
    assert store.find(REQUEST) is None
    put = store.put(entry())
    found = store.find(REQUEST)
    assert found == put
    assert found.files == {"kernel.o": b"code", "kernel.tir": b"tir"}
    meta = json.loads((found.path / "meta.json").read_text())
    assert meta["key"] == {**REQUEST, "tir": found.tir}
    assert not list((tmp_path / "a" / "b" / "v1" / "unpublished").iterdir())


def test_the_order_of_fields_does_not_matter(tmp_path):
    store = Store(tmp_path)
    store.put(entry())
    assert store.find(dict(reversed(list(REQUEST.items())))) is not None


def damage_truncate(path: Path) -> None:
    file = path / "kernel.o"
    file.write_bytes(file.read_bytes()[:-1])


def damage_flip(path: Path) -> None:
    (path / "kernel.o").write_bytes(b"coda")


def damage_text(path: Path) -> None:
    (path / "kernel.tir").write_bytes(b"")


def damage_missing(path: Path) -> None:
    (path / "kernel.tir").unlink()


def damage_meta(path: Path) -> None:
    (path / "meta.json").write_text("{")


def damage_meta_type(path: Path) -> None:
    (path / "meta.json").write_text("[]")


def damage_foreign(path: Path) -> None:
    meta = json.loads((path / "meta.json").read_text())
    meta["key"]["spec"]["dtype"] = "float16"
    (path / "meta.json").write_text(json.dumps(meta))


def damage_tir(path: Path) -> None:
    meta = json.loads((path / "meta.json").read_text())
    meta["key"]["tir"] = "0" * 64
    (path / "meta.json").write_text(json.dumps(meta))


DAMAGE = [v for k, v in sorted(globals().items()) if k.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_a_miss_and_is_replaced(tmp_path, damage):
    store = Store(tmp_path)
    damage(store.put(entry()).path)
    assert store.find(REQUEST) is None
    assert list(store.entries()) == []
    assert store.put(entry()).path is not None
    assert store.find(REQUEST).files["kernel.o"] == b"code"


def test_an_entry_moved_to_another_key_is_a_miss(tmp_path):
    store = Store(tmp_path)
    path = store.put(entry()).path
    other = {**REQUEST, "format": 2}
    target = path.parent.parent / digest(other) / path.name
    shutil.copytree(path, target)
    assert store.find(other) is None
    assert store.find(REQUEST) is not None


def test_a_second_publication_keeps_the_first(tmp_path):
    store = Store(tmp_path)
    first = store.put(entry()).path
    inode = first.stat().st_ino
    assert store.put(entry()).path == first
    assert first.stat().st_ino == inode


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"):
        store.put(entry())
    assert not list(store.root.rglob("kernel.o"))


def test_get_or_build_builds_once(tmp_path):
    calls = []

    def build() -> Entry:
        calls.append(1)
        return entry()

    for _ in range(3):
        assert get_or_build(REQUEST, build, Store(tmp_path)).files["kernel.o"] == b"code"
    assert len(calls) == 1


def test_threads_build_once(tmp_path):
    calls = []

    def build() -> Entry:
        calls.append(1)
        time.sleep(0.1)
        return entry()

    threads = [threading.Thread(target=get_or_build, args=(REQUEST, build, Store(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_artifacts_come_first_and_are_not_written(tmp_path):
    artifacts, store = Store(tmp_path / "artifacts"), Store(tmp_path / "cache")
    artifacts.put(entry(text=b"ahead"))
    store.put(entry(text=b"late"))
    found = get_or_build(REQUEST, entry, store, artifacts)
    assert found.files["kernel.o"] == b"ahead"
    other = {**REQUEST, "format": 2}
    get_or_build(other, lambda: entry(other), store, artifacts)
    assert artifacts.find(other) is None
    assert store.find(other) is not None


def test_no_cache_at_all_just_builds():
    assert get_or_build(REQUEST, entry, None).path is None


def test_an_unwritable_cache_warns_once_and_builds_once_a_call(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    store, calls = Store(file / "below"), []

    def build() -> Entry:
        calls.append(1)
        return entry()

    with pytest.warns(RuntimeWarning, match="FQ_TVM_CACHE_DIR"):
        get_or_build(REQUEST, build, store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_or_build(REQUEST, build, store)
    assert len(calls) == 2


def test_a_cache_that_fills_up_while_publishing_keeps_the_build(tmp_path, monkeypatch):
    calls = []

    def build() -> Entry:
        calls.append(1)
        return entry()

    monkeypatch.setattr(Store, "put", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.warns(RuntimeWarning, match="No space"):
        assert get_or_build(REQUEST, build, Store(tmp_path / "full")).files["kernel.o"] == b"code"
    assert len(calls) == 1


def test_a_held_lock_delays_but_does_not_stop(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.1)
    store = Store(tmp_path)
    with store.lock(REQUEST), caplog.at_level("WARNING", logger="fq_tvm"):
        assert get_or_build(REQUEST, entry, store).path is not None
    assert "building without it" in caplog.text


def test_a_required_miss_names_the_nearest_entry_and_field(tmp_path):
    store = Store(tmp_path)
    near = {**REQUEST, "versions": {"fq_tvm": "0"}}
    far = {**near, "spec": {"iteration": "lanes", "dtype": "float16"}}
    path = store.put(entry(near)).path
    store.put(entry(far))
    with pytest.raises(CacheMissError) as caught:
        get_or_build(REQUEST, entry, store, require=True)
    assert str(path) in str(caught.value)
    assert "versions.fq_tvm: '0', wanted '1'" in str(caught.value)
    assert "iteration" not in str(caught.value)
    with pytest.raises(CacheMissError, match="fq-tvm build"):
        get_or_build(REQUEST, entry, Store(tmp_path / "empty"), require=True)


def test_notes(tmp_path):
    store = Store(tmp_path)
    assert store.recall({"q": 1}) is None
    store.remember({"q": 1}, {"a": [2]})
    assert store.recall({"q": 1}) == {"a": [2]}
    assert store.recall({"q": 2}) is None
    next((tmp_path / "v1" / "notes").iterdir()).write_text("[")
    assert store.recall({"q": 1}) is None


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_prune(tmp_path):
    store = Store(tmp_path)
    requests = [{**REQUEST, "format": i} for i in range(5)]
    paths = [store.put(entry(r, text=b"x" * 1000)).path for r in requests]
    for i, path in enumerate(paths):
        age(path, 1000 - 100 * i)
    damage_flip(paths[4])
    leftover = tmp_path / "v1" / "unpublished" / "killed"
    leftover.mkdir()
    (leftover / "kernel.o").write_text("half")
    fresh = tmp_path / "v1" / "unpublished" / "running"
    fresh.mkdir()
    age(leftover, 7200)
    assert sorted(store.prune()) == sorted([paths[4], leftover])
    assert fresh.exists()
    assert not leftover.exists()
    assert store.prune(older_than=950) == [paths[0]]
    assert store.prune(max_bytes=2100) == [paths[1]]
    assert store.prune(versions={"fq_tvm": "1"}) == []
    assert sorted(store.prune(versions={"fq_tvm": "2"})) == sorted(paths[2:4])
    assert store.paths() == []


def test_use_keeps_an_entry_from_pruning(tmp_path):
    store = Store(tmp_path)
    age(store.put(entry()).path, 1000)
    store.find(REQUEST)
    assert store.prune(older_than=500) == []


def test_clear_removes_its_own_and_nothing_else(tmp_path):
    store = Store(tmp_path)
    store.put(entry())
    (tmp_path / "mine").write_text("kept")
    assert store.clear() == 1
    assert store.find(REQUEST) is None
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert store.clear() == 0

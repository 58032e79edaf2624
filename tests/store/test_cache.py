"""The store: what it finds, what it refuses, and that nothing half-written is ever seen."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from damage import flips

from fq_tvm import environment
from fq_tvm.errors import CacheMissError, UntrustedError
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


def test_a_build_within_the_same_build_does_not_wait_for_it(tmp_path):
    """As a signal handler's may be, which the thread is in the middle of."""
    began = time.monotonic()

    def build() -> Entry:
        assert get_or_build(REQUEST, entry, Store(tmp_path)).files == entry().files
        return entry()

    assert get_or_build(REQUEST, build, Store(tmp_path)).path is not None
    assert time.monotonic() - began < cache.LOCK_SECONDS / 4


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


NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
BELOW = ["", "v1", "v1/kernels", "v1/kernels/KEY", "v1/kernels/KEY/TIR", "v1/kernels/KEY/TIR/kernel.o"]
"""Where somebody could write: from the folder down to the code."""


def place(store: Store, below: str) -> Path:
    return store.root / below.replace("KEY", digest(REQUEST)).replace("TIR", entry().tir)


def spoil_mode(path: Path) -> None:
    path.chmod(0o777)


def spoil_group(path: Path) -> None:
    path.chmod(0o775)


def spoil_owner(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def spoil_link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


SPOIL = [spoil_mode, spoil_group, pytest.param(spoil_owner, marks=needs_root), spoil_link]


@pytest.mark.parametrize("spoil", SPOIL)
@pytest.mark.parametrize("below", BELOW)
def test_what_others_could_have_written_is_not_loaded(tmp_path, below, spoil):
    store = Store(tmp_path / "a" / "store")
    store.put(entry())
    assert store.find(REQUEST) is not None
    spoil(place(store, below))
    if (below, spoil) == ("", spoil_link):  # the folder that was named may be one
        assert store.find(REQUEST) is not None
        return
    with pytest.raises(UntrustedError, match=str(place(store, below))):
        store.find(REQUEST)
    with pytest.raises(UntrustedError):
        get_or_build(REQUEST, entry, None, artifacts=store)


@pytest.mark.parametrize("spoil", SPOIL)
@pytest.mark.parametrize("below", BELOW[-2:])
def test_an_entry_of_a_cache_that_others_could_have_written_is_built_anew(tmp_path, below, spoil):
    store = Store(tmp_path / "store")
    store.put(entry())
    spoil(place(store, below))
    calls = []

    def build() -> Entry:
        calls.append(1)
        return entry()

    for _ in range(2):
        assert get_or_build(REQUEST, build, store).files["kernel.o"] == b"code"
    assert len(calls) == 1
    assert store.find(REQUEST) is not None


@pytest.mark.parametrize("below", ["", "v1", "v1/notes"])
@pytest.mark.parametrize("spoil", SPOIL[:3])
def test_nothing_is_written_where_others_can_write(tmp_path, below, spoil):
    store = Store(tmp_path / "store")
    place(store, "v1/notes").mkdir(parents=True)
    spoil(place(store, below))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UntrustedError):
        store.remember({"q": 1}, 2)
    assert store.recall({"q": 1}) is None
    if below != "v1/notes":
        with pytest.raises(UntrustedError):
            store.put(entry())
        with pytest.raises(UntrustedError), store.lock(REQUEST):
            pass
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("below", ["", "v1", "v1/kernels", "v1/notes", "v1/locks", "v1/unpublished"])
def test_the_folders_that_the_environment_names(tmp_path, monkeypatch, below):
    store = Store(tmp_path / "store")
    store.put(entry())
    store.remember({"q": 1}, 2)
    with store.lock(REQUEST):
        pass
    place(store, below).chmod(0o777)
    monkeypatch.delenv("FQ_TVM_ARTIFACTS_DIR", raising=False)
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(store.root))
    with pytest.raises(UntrustedError, match="chmod go-w"):
        cache.tiers()
    monkeypatch.setattr(environment, "cache_is_named", lambda: False)  # the default one
    with pytest.warns(RuntimeWarning, match=r"can be written by others.*kept in memory only"):
        assert cache.tiers() == (None, None)
    monkeypatch.setenv("FQ_TVM_ARTIFACTS_DIR", str(store.root))
    with pytest.raises(UntrustedError):
        cache.tiers()


@needs_root
def test_code_that_another_user_planted_does_not_run(tmp_path):
    """A public cache in a folder of somebody else, with code of theirs under a checksum of theirs."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    folder = shared / "fq"
    for mode, owner in ((0o777, NOBODY), (0o755, NOBODY), (0o777, 0)):
        shutil.rmtree(folder, ignore_errors=True)
        Store(folder).put(entry(text=b"planted"))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner, owner)
        folder.chmod(mode)
        for variable in ("FQ_TVM_CACHE_DIR", "FQ_TVM_ARTIFACTS_DIR"):
            code = (
                "import numpy as n, fq_tvm as f\n"
                "arrays = n.ones((4, 8), 'f4'), n.ones(4, 'f4'), n.zeros(4, 'i4')\n"
                "try: f.fake_quantize_per_channel_affine(*arrays, 0, 0, 7)\n"
                "except f.UntrustedError as error: print(error)"
            )
            run = subprocess.run(
                [sys.executable, "-c", code], env={**os.environ, variable: str(folder)}, capture_output=True, text=True
            )
            assert run.stdout.startswith(f"{folder} "), run
            assert run.returncode == 0 and not run.stderr


@pytest.mark.parametrize(("mask", "folder", "file"), [(0o077, 0o700, 0o600), (0o027, 0o750, 0o640), (0, 0o755, 0o644)])
def test_entries_have_the_rights_of_the_umask_and_none_to_write_for_others(tmp_path, mask, folder, file):
    old = os.umask(mask)
    try:
        store = Store(tmp_path / "store")
        store.put(entry())
        store.remember({"q": 1}, 2)
        with store.lock(REQUEST):
            pass
    finally:
        os.umask(old)
    for path in (store.root, *store.root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (folder if path.is_dir() else file), path
    assert store.find(REQUEST) is not None


def test_locks_follow_no_link(tmp_path):
    store, victim = Store(tmp_path / "store"), tmp_path / "victim"
    place(store, "v1/locks").mkdir(parents=True)
    place(store, f"v1/locks/{digest(REQUEST)}").symlink_to(victim)
    with pytest.raises(OSError), store.lock(REQUEST):  # noqa: PT011  # ELOOP has no class of its own
        pass
    assert not victim.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO, errno.EBADF])
def test_without_locks_nobody_waits(tmp_path, monkeypatch, caplog, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    start = time.monotonic()
    with caplog.at_level("WARNING", logger="fq_tvm"), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [get_or_build(REQUEST, entry, Store(tmp_path)) for _ in range(2)]
    assert time.monotonic() - start < 5
    assert not caplog.records
    assert found[0] == found[1] == Store(tmp_path).find(REQUEST)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EWOULDBLOCK])
def test_a_lock_that_is_held_is_waited_for(tmp_path, monkeypatch, number):
    tries, flock = [], fcntl.flock

    def busy(file, operation):
        tries.append(operation)
        if len(tries) < 4:
            raise OSError(number, os.strerror(number))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", busy)
    with Store(tmp_path).lock(REQUEST):
        assert len(tries) == 4


def files_below(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


FOREIGN = [
    "v1/api/server.py",
    "v1/readme",
    "v1/kernels/conv2d/conv.cu",
    "v1/kernels/conv2d/meta.json",
    f"v1/kernels/{'a' * 64}/conv.cu",
    f"v1/kernels/{'a' * 64}/src/kernel.o",
    f"v1/kernels/{'a' * 64}/{'b' * 64}/blob",
    f"v1/kernels/{'a' * 64}/{'b' * 64}/kernel.o/nested",
    "v1/notes/todo.json",
    "v1/locks/door",
    "v1/unpublished/draft.md",
    "v1/unpublished/book/chapter.md",
    "other",
]


@pytest.mark.parametrize("sweep", [Store.clear, Store.prune, lambda store: store.prune(max_bytes=0)])
def test_what_the_store_did_not_write_stays(tmp_path, sweep):
    for name in FOREIGN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        age(tmp_path / name, 7200)
        age((tmp_path / name).parent, 7200)
    sweep(Store(tmp_path))
    assert files_below(tmp_path) == {name: name for name in FOREIGN}
    own = Store(tmp_path).put(entry()).path
    Store(tmp_path).clear()
    assert not own.exists()
    assert files_below(tmp_path) == {name: name for name in FOREIGN}


@pytest.mark.parametrize("sweep", [Store.clear, Store.prune, lambda store: store.prune(older_than=0, max_bytes=0)])
@pytest.mark.parametrize(
    "link", ["", "v1", "v1/kernels", f"v1/kernels/{'a' * 64}", f"v1/kernels/{'a' * 64}/{'b' * 64}", "v1/unpublished/x"]
)
def test_links_are_not_followed_by_who_removes(tmp_path, link, sweep):
    victim, store = tmp_path / "victim", Store(tmp_path / "store")
    for depth in ("", f"{'b' * 64}", f"{'a' * 64}/{'b' * 64}"):
        (victim / depth).mkdir(parents=True, exist_ok=True)
        for name in ("kernel.o", "meta.json", "thesis.tex"):
            (victim / depth / name).write_text("precious")
    before = files_below(victim)
    (store.root / link).parent.mkdir(parents=True, exist_ok=True)
    (store.root / link).symlink_to(victim)
    sweep(store)
    assert files_below(victim) == before


def test_a_sweep_goes_on_past_what_stays(tmp_path, monkeypatch):
    store = Store(tmp_path)
    requests = [{**REQUEST, "format": i} for i in range(4)]
    paths = [store.put(entry(r)).path for r in requests]
    unlink = os.unlink

    def refuse(name, *, dir_fd=None):
        if dir_fd is not None and os.readlink(f"/proc/self/fd/{dir_fd}") == str(paths[1]):
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(name, dir_fd=dir_fd)

    rename = os.rename

    def no_rename(source, target, **where):
        if where:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", no_rename)
    monkeypatch.setattr(os, "unlink", refuse)
    stays = {}
    assert sorted(store.prune(max_bytes=0, stays=stays.__setitem__)) == sorted(p for p in paths if p != paths[1])
    assert stays == {paths[1]: "Permission denied"}
    assert store.paths() == [paths[1]]
    monkeypatch.setattr(os, "unlink", unlink)
    assert store.clear() == 1
    assert not (tmp_path / "v1").exists()


def test_a_corrupt_entry_that_cannot_be_renamed_is_replaced(tmp_path, monkeypatch):
    store, rename = Store(tmp_path), os.rename
    path = store.put(entry()).path
    damage_flip(path)

    def as_on_overlayfs(source, target, **where):
        if where or source == path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", as_on_overlayfs)
    store.put(entry())
    assert store.find(REQUEST) is not None


@needs_root
def test_another_users_entries_stay_and_are_named(tmp_path):
    """In a folder that two users share, which neither loads code from."""
    store = Store(tmp_path / "store")
    theirs, own = (store.put(entry({**REQUEST, "format": i})).path for i in range(2))
    for path in (store.root, *store.root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)
    for path in (own, *own.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    theirs.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from fq_tvm.store.cache import Store\n"
        f"os.chdir(sys.argv[1]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "stays = {}; print(Store(Path()).clear(stays.__setitem__), *stays)"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["1", str(theirs.relative_to(store.root))]
    assert theirs.is_dir() and not own.exists()


def test_a_note_with_a_flipped_bit_is_right_or_ignored(tmp_path):
    store, question = Store(tmp_path), {"name": "host", "cpu": {"flags": "avx2 fma"}}
    answer = {"cpu": "znver4", "features": ["avx2", "fma"], "disabled": [], "missing": []}
    store.remember(question, answer)
    [note] = (tmp_path / "v1" / "notes").iterdir()
    for _ in flips(note):
        assert store.recall(question) in (answer, None)
    for text in ("[" * 100_000, "{}", "null", '{"question": {}, "answer": 1}', note.read_text()[:-5]):
        note.write_text(text)
        assert store.recall(question) is None
        store.remember(question, answer)
        assert store.recall(question) == answer


def test_an_entry_with_a_flipped_bit_is_right_or_ignored(tmp_path):
    store = Store(tmp_path)
    put = store.put(entry())
    for file in ("meta.json", "kernel.o", "kernel.tir"):
        for _ in flips(put.path / file):
            assert store.find(REQUEST) in (put, None)
    assert store.find(REQUEST) == put


@pytest.mark.parametrize("folder", ["unpublished", "kernels", "notes", "locks"])
@pytest.mark.parametrize("write", ["put", "remember", "lock"])
def test_a_clear_between_making_a_folder_and_writing_to_it(tmp_path, monkeypatch, write, folder):
    store, make, left = Store(tmp_path), Store._make, [3]

    def make_and_lose(self, *names):
        path = make(self, *names)
        if names[:1] == (folder,) and left[0]:
            left[0] -= 1
            Store(tmp_path).clear()
        return path

    monkeypatch.setattr(Store, "_make", make_and_lose)
    if write == "put":
        assert store.put(entry()).path.is_dir()
        assert store.find(entry().request) is not None
    elif write == "remember":
        store.remember({"a": 1}, 2)
        assert store.recall({"a": 1}) == 2
    else:
        with store.lock(entry().request):
            assert [path.name for path in (tmp_path / "v1" / "locks").iterdir()]

"""Who else could write a path, and how files are replaced."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from fq_tvm.errors import FqError, UntrustedError
from fq_tvm.store import files, records
from fq_tvm.store.files import check, make_folder, replacing
from fq_tvm.weights.files import open_tensors, write_npz

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
NOBODY = 65534


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """Set the umask; the old one comes back."""
    old = os.umask(0o022)
    yield os.umask
    os.umask(old)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o555, 0o2755, 0o1755])
def test_what_only_we_can_write_is_trusted(tmp_path, mode):
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    check(tmp_path / "store")
    check(tmp_path / "store" / "not" / "there")


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o770, 0o757, 0o722, 0o1777, 0o2775])
def test_what_others_can_write_is_refused(tmp_path, mode):
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(mode)
    remedy = "a folder of your own in it" if mode & stat.S_ISVTX else f"chmod go-w {store}"
    with pytest.raises(UntrustedError, match=rf"{store} can be written by others .*{mode:o}.*{remedy}") as caught:
        check(store)
    assert isinstance(caught.value, FqError)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_folder_on_the_way_counts(tmp_path, mode):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a").chmod(mode)
    for path in (tmp_path / "a" / "b" / "c", tmp_path / "a" / "missing"):
        with pytest.raises(UntrustedError, match=f"{tmp_path / 'a'} can be written"):
            check(path)
    (tmp_path / "a").chmod(0o1777)
    check(tmp_path / "a" / "b" / "c")


def test_a_group_without_others_will_do_on_the_way(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a").chmod(0o775)
    monkeypatch.setattr(files, "_without_others", lambda group: True)
    check(tmp_path / "a" / "b")
    monkeypatch.setattr(files, "_without_others", lambda group: False)
    with pytest.raises(UntrustedError):
        check(tmp_path / "a" / "b")


@needs_root
@pytest.mark.parametrize("whose", ["store", "store/v1", "link"])
def test_what_belongs_to_somebody_else_is_refused(tmp_path, whose):
    (tmp_path / "store" / "v1").mkdir(parents=True)
    (tmp_path / "link").symlink_to("store")
    os.chown(tmp_path / whose, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(UntrustedError, match=f"{tmp_path / whose} belongs to user {NOBODY}"):
        check(tmp_path / "link" / "v1")


def test_links_are_followed_to_what_they_lead_through(tmp_path):
    open_to_all, real = tmp_path / "all", tmp_path / "real"
    for folder in (open_to_all, real):
        folder.mkdir()
    (open_to_all / "hop").symlink_to(real)
    (tmp_path / "link").symlink_to("all/hop")
    check(tmp_path / "link")
    open_to_all.chmod(0o777)
    with pytest.raises(UntrustedError, match=f"{open_to_all} can be written"):
        check(tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    check(tmp_path / "loop")  # whoever opens it is told


@pytest.mark.parametrize(("mask", "expected"), [(0o077, 0o700), (0o027, 0o750), (0o022, 0o755), (0, 0o755)])
def test_folders_have_the_rights_of_the_umask_and_none_to_write_for_others(tmp_path, umask, mask, expected):
    umask(mask)
    make_folder(tmp_path / "a" / "b")
    assert {rights(tmp_path / "a"), rights(tmp_path / "a" / "b")} == {expected}


def write_text(path: Path) -> None:
    with replacing(path) as file:
        file.write("new")


def write_arrays(path: Path) -> None:
    import numpy as np

    with write_npz(path) as write:
        write("a", np.arange(300))


def write_records(path: Path) -> None:
    records.write(path, records.RecordFile("znver4", ()))


WRITERS = [write_text, write_arrays, write_records]


def is_whole(path: Path, writer) -> bool:
    if writer is write_arrays:
        with open_tensors(path) as file:
            return file.read("a").tolist() == list(range(300))
    return path.read_text() == "new" if writer is write_text else records.read(path).cpu == "znver4"


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o666])
def test_an_old_files_rights_stay(tmp_path, writer, mode):
    path = tmp_path / "x.npz"
    path.write_text("old")
    path.chmod(mode)
    writer(path)
    assert rights(path) == mode
    assert is_whole(path, writer)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_a_new_file_has_the_rights_of_the_umask(tmp_path, umask, writer, mask):
    umask(mask)
    writer(tmp_path / "x.npz")
    assert rights(tmp_path / "x.npz") == 0o666 & ~mask


@needs_root
@pytest.mark.parametrize("writer", WRITERS)
def test_an_old_files_owner_stays(tmp_path, writer):
    path = tmp_path / "x"
    path.write_text("old")
    os.chown(path, NOBODY, NOBODY)
    writer(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("there", [True, False])
def test_links_are_followed_and_stay(tmp_path, writer, there):
    (tmp_path / "folder").mkdir()
    target, hop, link = tmp_path / "folder" / "target.npz", tmp_path / "hop", tmp_path / "link"
    if there:
        target.write_text("old")
    hop.symlink_to("folder/target.npz")
    link.symlink_to("hop")
    writer(link)
    assert link.is_symlink() and hop.is_symlink() and not target.is_symlink()
    assert is_whole(target, writer)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_pipe_is_written_to_and_stays(tmp_path, writer):
    pipe, copy = tmp_path / "pipe", tmp_path / "copy.npz"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: copy.write_bytes(pipe.read_bytes()), daemon=True)
    reader.start()
    writer(pipe)
    reader.join(10)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert is_whole(copy, writer)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_device_is_written_to_and_stays(tmp_path, writer):
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    before = os.stat(os.devnull)
    writer(link)
    assert link.is_symlink()
    assert (os.stat(os.devnull).st_ino, os.stat(os.devnull).st_mode) == (before.st_ino, before.st_mode)
    if os.geteuid() == 0:
        os.mknod(tmp_path / "own", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        writer(tmp_path / "own")
        assert stat.S_ISCHR((tmp_path / "own").lstat().st_mode)


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write("half" * (1 // 0))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing/x'"):
        write_text(tmp_path / "missing" / "x")

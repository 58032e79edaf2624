"""Files and folders as the store takes them: who else could write them, and how one is replaced; knows no format."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

from ..errors import UntrustedError

MOST_LINKS = 40
"""Links of one path that Linux follows."""


def check(path: Path, strict: bool = True) -> None:
    """Make sure that nobody but this user and root can change what lies at a path, or put something else there.

    As sshd does for keys, each folder on the way counts, and so do links and what they lead to.  A folder with the
    sticky bit, such as ``/tmp``, will do on the way, as its owner and the next one's are checked; so will one of a
    group that has no other member.

    Parameters
    ----------
    path : Path
        Need not exist: then what is there of the way to it is checked.
    strict : bool
        Whether what lies at the path itself may not be writable for any group, and the sticky bit does not count.

    Raises
    ------
    UntrustedError
        If somebody else could.
    """
    here, left = Path("/"), ["", *path.absolute().parts[1:]]
    links = 0
    while left:
        name = left.pop(0)
        if name == "..":
            here = here.parent
            continue
        there = here / name
        try:
            found = os.lstat(there)
            target = Path(os.readlink(there)) if stat.S_ISLNK(found.st_mode) else None
        except OSError:
            return  # whoever opens it is told
        require(there, found, strict=strict and not left)
        if target is None:
            here = there
        elif (links := links + 1) <= MOST_LINKS:
            here = Path("/") if target.is_absolute() else here
            left = [part for part in target.parts if part != "/"] + left


def require(path: Path, found: os.stat_result, strict: bool = True) -> None:
    """Make sure that nobody but this user and root can write what was found at a path; see :func:`check`."""
    if found.st_uid not in (0, os.geteuid()):
        raise _untrusted(path, f"belongs to user {found.st_uid}", "use a folder of your own")
    if stat.S_ISLNK(found.st_mode):
        return  # its rights mean nothing
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if not strict and (sticky or (others == stat.S_IWGRP and _without_others(found.st_gid) and not _has_acl(path))):
        return
    if others:
        own = "use a folder of your own in it"  # all need /tmp as it is
        remedy = own if sticky else f"`chmod go-w {path}` if you know what it holds, or use another folder"
        raise _untrusted(path, f"can be written by others (its mode is {stat.S_IMODE(found.st_mode):o})", remedy)


def _untrusted(path: Path, why: str, remedy: str) -> UntrustedError:
    return UntrustedError(f"{path} {why}; expected what nobody but you and root can write: {remedy}")


@cache
def _without_others(group: int) -> bool:
    """Whether a group has no member but this user and root, as the one that Linux distributions give each user."""
    import grp
    import pwd

    users = pwd.getpwall()
    ours = {user.pw_name for user in users if user.pw_uid in (0, os.geteuid())}
    try:
        return ours.issuperset((*grp.getgrgid(group).gr_mem, *(u.pw_name for u in users if u.pw_gid == group)))
    except KeyError:
        return False


def _has_acl(path: Path) -> bool:
    """Whether the rights of the group in a mode stand for those of others as well."""
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return False


@contextlib.contextmanager
def opened(root: Path, *names: str, trust: bool = True) -> Iterator[int]:
    """Open a folder below a root, without following a link below it.

    Parameters
    ----------
    root : Path
        May be a link.
    *names : str
        Of the folders on the way.
    trust : bool
        Whether :func:`check` has to hold for the root, and the strict half of it for each folder below.

    Yields
    ------
    int
        Its descriptor.

    Raises
    ------
    UntrustedError
        If there is a link, or somebody else could write there and ``trust`` is asked for.
    OSError
        If it cannot be opened.
    """
    if trust:
        check(root)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names:
            root = root / name
            below = open_below(folder, root, os.O_DIRECTORY, trust)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def open_below(folder: int, path: Path, flags: int = 0, trust: bool = True) -> int:
    """Open what lies in an open folder under the last name of a path; raises as :func:`opened` does."""
    try:
        # not blocking: where a file is expected may lie a pipe
        file = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
            raise _untrusted(path, "is a link", "put there what it leads to, or use another folder") from None
        raise
    try:
        if trust:
            require(path, os.fstat(file))
        return file
    except BaseException:
        os.close(file)
        raise


def read(folder: int, path: Path, trust: bool = True) -> bytes:
    """Read a file of an open folder, as :func:`open_below` opens it."""
    with os.fdopen(open_below(folder, path, trust=trust), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        return file.read()


def make_folder(path: Path) -> None:
    """Make a folder, and those on the way, with the rights that the umask leaves but none for others to write."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o755)


class _Stream(io.FileIO):
    """A device or a pipe.  Some devices say that they can be sought in, and do not do it."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Write a file aside; it takes its place when all is written, so that a reader sees the old one or the new one.

    Parameters
    ----------
    path : Path
        Of the file, in a folder that exists.  A link is followed, and an old file's rights stay.  A device or a pipe is
        written to instead.
    mode : {"w", "wb"}
        Text, which is UTF-8, or bytes.

    Yields
    ------
    file
        To be written to.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left then.
    """
    encoding = None if "b" in mode else "utf-8"
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with io.BufferedWriter(_Stream(path, "w")) as stream:
            yield stream if encoding is None else io.TextIOWrapper(stream, encoding, write_through=True)
        return
    final = Path(os.path.realpath(path))
    aside = final.with_name(f".{final.name}.{os.urandom(4).hex()}.part")
    try:
        handle = os.open(
            aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if old is None else stat.S_IMODE(old.st_mode)
        )
    except OSError as error:  # it would name a file that the caller never heard of
        raise type(error)(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, mode, encoding=encoding) as file:
            if old is not None:
                with contextlib.suppress(PermissionError):  # only root gives files away
                    os.fchown(handle, old.st_uid, old.st_gid)
                os.fchmod(handle, stat.S_IMODE(old.st_mode))
            yield file
        os.replace(aside, final)
    except BaseException:
        os.unlink(aside)
        raise

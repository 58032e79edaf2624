"""A content-addressed store of built kernels: knows bytes and JSON, not TVM.

An entry is a directory of files and a ``meta.json`` with every field of its key and a checksum of every file::

    <root>/v1/kernels/<hash of the request>/<hash of the TIR>/{meta.json, kernel.o, ...}

The *request* is what a caller can know without compiling; the code it leads to is a function of it, and its hash
completes the key.  An entry is written aside and appears by one rename.  A lock saves work, it never guards
correctness: who cannot have it builds all the same, and who comes second uses its own build.

Code is loaded only from what nobody but this user and root can write, and through no link.  Only what an entry consists
of is removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .. import environment
from ..environment import logger
from ..errors import CacheMissError, UntrustedError
from .files import check, make_folder, open_below, opened, read

P = ParamSpec("P")
T = TypeVar("T")

FORMAT = 1
"""Version of the layout of entries; part of every key."""

LOCK_SECONDS = 60.0
"""How long to wait for another process that builds the same kernel, far above what one build takes."""

LEFTOVER_SECONDS = 3600.0
"""Age from which an unpublished directory is taken for one that a killed process left."""

CLEARS = 10
"""How many times in a row somebody's clear() may take away the folder that is about to be written to."""

_FOLDERS = ("kernels", "notes", "locks", "unpublished")
_HASH = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"meta\.json|(kernel|threads|attach|sequence)\.[a-z]+")
"""Files of an entry.  What has other names was not written by this store, and is neither read nor removed."""
_NOTE = re.compile(r"[0-9a-f]{64}\.json|\.[0-9a-f]{64}\.json\..*\.part")

_ASIDE = re.compile(r"[0-9a-f]{16}")

_warned: set[str] = set()
_underway: set[tuple[int, Path, str]] = set()  # what is being built, by thread


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """The files of one kernel.

    Parameters
    ----------
    request : dict
        The key, less the hash of the TIR.
    tir : str
        SHA-256 of the TIR.
    files : dict of bytes
        Contents by file name.
    path : Path or None
        Where it lies; None for one that no cache took.
    """

    request: dict[str, Any]
    tir: str
    files: Mapping[str, bytes]
    path: Path | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


def _despite_clear(step: Callable[P, T]) -> Callable[P, T]:
    """Return a function that begins anew where somebody's :meth:`Store.clear` took a folder from under it."""

    @functools.wraps(step)
    def function(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(CLEARS):
            with contextlib.suppress(FileNotFoundError):
                return step(*args, **kwargs)
        return step(*args, **kwargs)

    return function


@dataclass(frozen=True)
class Store:
    """One folder of entries.

    Parameters
    ----------
    root : Path
        The folder; it need not exist.
    """

    root: Path

    def _folder(self, *names: str) -> Path:
        return self.root.joinpath(f"v{FORMAT}", *names)

    def _opened(self, *names: str, trust: bool = True) -> contextlib.AbstractContextManager[int]:
        return opened(self.root, f"v{FORMAT}", *names, trust=trust)

    def _make(self, *names: str) -> Path:
        """Make a folder that can be trusted, in one that can be."""
        self._make(*names[:-1]) if names else check(self.root)
        path = self._folder(*names)
        make_folder(path)
        with self._opened(*names):
            return path

    def _aside(self) -> Path:
        """Return a path where no reader looks, and nothing is."""
        return self._make("unpublished") / os.urandom(8).hex()

    def check(self) -> None:
        """Make sure that nobody but this user and root can write into the folder, as far as it is there.

        Raises
        ------
        UntrustedError
            If somebody else could.
        """
        check(self.root)
        for name in _FOLDERS:
            with contextlib.suppress(OSError), self._opened(name):
                pass

    def find(self, request: Mapping[str, Any]) -> Entry | None:
        """Return the entry of a request; None if there is none, or only a corrupt, truncated or foreign one.

        Raises
        ------
        UntrustedError
            If somebody else could have written it.
        """
        key = digest(request)
        for name in self._names("kernels", key, trust=True):
            entry = self._read(key, name)
            if entry is not None and entry.request == request:
                with contextlib.suppress(OSError):
                    os.utime(self._folder("kernels", key, name))  # `prune` keeps what was used last
                return entry
        return None

    @_despite_clear
    def put(self, entry: Entry) -> Entry:
        """Publish an entry.

        Returns
        -------
        Entry
            With its path.

        Raises
        ------
        OSError
            If the folder cannot be written; nothing is left half-written.
        UntrustedError
            If somebody else could write there.
        """
        key = digest(entry.request)
        aside = self._aside()
        aside.mkdir(0o755)
        try:
            files = {}
            for name, data in entry.files.items():
                if not _FILE.fullmatch(name):
                    raise ValueError(f"{name!r} is no name for a file of an entry")
                files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
                _write(aside / name, data)
            meta = {"key": {**entry.request, "tir": entry.tir}, "files": files}
            _write(aside / "meta.json", (json.dumps(meta, indent=2, sort_keys=True) + "\n").encode())
            final = self._make("kernels", key) / entry.tir
            try:
                os.rename(aside, final)
            except OSError:
                if not os.path.lexists(final):
                    raise
                if self._sound(key, entry.tir) is None:  # in the way, and of no use: take it away, then publish
                    self._take_away(final)
                    os.rename(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Entry(entry.request, entry.tir, entry.files, final)

    def recall(self, question: Mapping[str, Any]) -> Any:
        """Return the answer kept by :meth:`remember` for a question; None if there is no sound and trusted one."""
        path = self._folder("notes") / f"{digest(question)}.json"
        try:
            with self._opened("notes") as folder:
                note = json.loads(read(folder, path))
            sound = note["question"] == question and note["sha256"] == digest([question, note["answer"]])
        except (UntrustedError, OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return note["answer"] if sound else None

    @_despite_clear
    def remember(self, question: Mapping[str, Any], answer: Any) -> None:
        """Keep a small JSON answer.

        Raises
        ------
        OSError
            If the folder cannot be written.
        UntrustedError
            If somebody else could write there.
        """
        note = {"question": question, "answer": answer, "sha256": digest([question, answer])}
        aside, path = self._aside(), self._make("notes") / f"{digest(question)}.json"
        try:
            _write(aside, json.dumps(note, indent=2, sort_keys=True).encode())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, request: Mapping[str, Any]) -> Iterator[None]:
        """Hold the lock of a request; go on without it after a minute, or where files cannot be locked.

        Raises
        ------
        OSError
            If the folder cannot be written.
        UntrustedError
            If somebody else could write there.
        """
        path, file = self._open_lock(request)
        try:
            _acquire(file, path)
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # closing does not, where a child has the file as well
            os.close(file)

    @_despite_clear
    def _open_lock(self, request: Mapping[str, Any]) -> tuple[Path, int]:
        path = self._make("locks") / digest(request)
        return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)

    def paths(self) -> list[Path]:
        """List the folders of all entries, sound or not."""
        keys = filter(_HASH.fullmatch, self._names("kernels"))
        paths = [self._folder("kernels", key, name) for key in keys for name in self._names("kernels", key)]
        return [path for path in paths if _HASH.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]

    def entries(self) -> Iterator[Entry]:
        """Read all sound entries, whoever can write them: to be shown, not to be loaded."""
        for path in self.paths():
            if (entry := self._sound(path.parent.name, path.name, trust=False)) is not None:
                yield entry

    def prune(
        self,
        versions: Mapping[str, str] | None = None,
        older_than: float | None = None,
        max_bytes: int | None = None,
        stays: Callable[[Path, str], object] | None = None,
    ) -> list[Path]:
        """Remove what is of no more use, oldest use first.

        Parameters
        ----------
        versions : mapping of str, optional
            Remove entries whose key has other ``versions``.
        older_than : float, optional
            Remove entries not used for so many seconds.
        max_bytes : int, optional
            Remove entries until what is left is no larger.
        stays : callable, optional
            Called with what could not be removed, and why.

        Returns
        -------
        list of Path
            What was removed; corrupt entries and leftovers of killed processes always are.
        """
        now = time.time()
        chosen = [p for p in self._leftovers() if now - _modified(p) > LEFTOVER_SECONDS]
        kept: list[tuple[float, Path, int]] = []
        for path in self.paths():
            entry, used = self._sound(path.parent.name, path.name, trust=False), _modified(path)
            stale = entry is None or (versions is not None and entry.request.get("versions") != dict(versions))
            if entry is None or stale or (older_than is not None and now - used > older_than):
                chosen.append(path)
            else:
                kept.append((used, path, entry.size))
        total = sum(size for _, _, size in kept)
        for _, path, size in sorted(kept):
            if max_bytes is None or total <= max_bytes:
                break
            chosen.append(path)
            total -= size
        return self._remove_all(chosen, stays)

    def clear(self, stays: Callable[[Path, str], object] | None = None) -> int:
        """Remove everything that this store wrote; return the number of entries.

        Parameters
        ----------
        stays : callable, optional
            Called with what could not be removed, and why.
        """
        notes = [self._folder("notes", name) for name in self._names("notes") if _NOTE.fullmatch(name)]
        locks = [self._folder("locks", name) for name in self._names("locks") if _HASH.fullmatch(name)]
        entries = self._remove_all(self.paths(), stays)
        self._remove_all([*self._leftovers(), *notes, *locks], stays)
        keys = [("kernels", key) for key in self._names("kernels") if _HASH.fullmatch(key)]
        for *names, last in (*keys, *((name,) for name in _FOLDERS)):
            with contextlib.suppress(OSError, UntrustedError), self._opened(*names, trust=False) as parent:
                os.rmdir(last, dir_fd=parent)  # where nothing is left in it
        with contextlib.suppress(OSError):
            os.rmdir(self._folder())
        return len(entries)

    def _leftovers(self) -> list[Path]:
        """List what killed processes left, and what may be that: :meth:`_remove` looks into folders."""
        parts = [self._folder("notes", n) for n in self._names("notes") if _NOTE.fullmatch(n) and n.endswith(".part")]
        found = [self._folder("unpublished", name) for name in self._names("unpublished")]
        return [
            path for path in found if _ASIDE.fullmatch(path.name) or (path.is_dir() and not path.is_symlink())
        ] + parts

    def _remove_all(self, paths: list[Path], stays: Callable[[Path, str], object] | None) -> list[Path]:
        """Remove what can be removed; return that."""
        removed = []
        for path in paths:
            try:
                self._remove(path)
                removed.append(path)
            except FileNotFoundError:
                pass  # another process was faster
            except (OSError, UntrustedError) as error:
                if stays is not None:
                    stays(path, getattr(error, "strerror", None) or str(error))
        return removed

    def _remove(self, path: Path) -> None:
        """Remove a file, or a folder of an entry's files.

        An entry disappears whole, by a rename, where that is possible: not where the folder lies in a lower layer of an
        overlay.  Nothing that somebody puts in its place meanwhile can lead out of the store.

        Raises
        ------
        OSError
            If it cannot be removed, or holds something else than an entry does.
        """
        with contextlib.ExitStack() as stack:
            parent = stack.enter_context(self._opened(*path.relative_to(self._folder()).parts[:-1], trust=False))
            if not stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(path.name, dir_fd=parent)
                return
            folder = open_below(parent, path, os.O_DIRECTORY, trust=False)
            stack.callback(os.close, folder)
            with os.scandir(folder) as found:
                ours = {e.name: bool(_FILE.fullmatch(e.name)) and not e.is_dir(follow_symlinks=False) for e in found}
            if foreign := sorted(name for name in ours if not ours[name]):
                raise OSError(errno.ENOTEMPTY, f"it holds {foreign[0]!r}, which the cache did not write")
            name = path.name
            with contextlib.suppress(OSError, UntrustedError):
                unpublished = stack.enter_context(self._opened("unpublished", trust=False))
                aside = os.urandom(8).hex()
                os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=unpublished)
                parent, name = unpublished, aside
            for file in ours:
                os.unlink(file, dir_fd=folder)
            os.rmdir(name, dir_fd=parent)

    def _take_away(self, path: Path) -> None:
        """Take away what lies in an entry's place, whatever it is."""
        try:
            self._remove(path)
        except OSError:  # not an entry's files alone: it may be somebody's, so it is kept where no reader looks
            os.rename(path, self._aside())

    def _names(self, *names: str, trust: bool = False) -> list[str]:
        try:
            with self._opened(*names, trust=trust) as folder:
                return sorted(os.listdir(folder))
        except OSError:
            return []
        except UntrustedError:
            if trust:
                raise
            return []

    def _read(self, key: str, name: str, trust: bool = True) -> Entry | None:
        """Read an entry and check it against its own checksums and its place; None if it is not sound."""
        path = self._folder("kernels", key, name)
        try:
            with self._opened("kernels", key, name, trust=trust) as folder:
                meta = json.loads(read(folder, path / "meta.json", trust))
                request = dict(meta["key"])
                sound = request.pop("tir") == name and digest(request) == key
                sound = sound and all(map(_FILE.fullmatch, meta["files"]))
                files = {file: read(folder, path / file, trust) for file in meta["files"]} if sound else {}
                for file, data in files.items():
                    sound = sound and hashlib.sha256(data).hexdigest() == meta["files"][file]["sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return Entry(request, name, files, path) if sound else None

    def _sound(self, key: str, name: str, trust: bool = True) -> Entry | None:
        """Read an entry; None if it is not sound, or not to be trusted."""
        try:
            return self._read(key, name, trust)
        except UntrustedError:
            return None


def _write(path: Path, data: bytes) -> None:
    """Write a new file with the rights that the umask leaves, but none for others to write."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
        file.write(data)


def _acquire(file: int, path: Path) -> None:
    """Wait for the lock of an open file, for a while."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                logger().warning("another process has held %s for %g s; building without it", path, LOCK_SECONDS)
                return
        except OSError as error:  # a file system without locks: nobody holds it
            logger().debug("building without the lock %s: %s", path, error)
            return
        time.sleep(0.02)


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def tiers() -> tuple[Store | None, Store | None]:
    """Return the cache and the artifacts that the environment names, in folders that can be trusted.

    Raises
    ------
    UntrustedError
        If somebody else can write where a variable points.  A default cache is then not used, with one warning.
    """
    folders = (environment.cache_dir(), environment.artifacts_dir())
    cache, artifacts = (None if folder is None else Store(folder) for folder in folders)
    if artifacts is not None:
        artifacts.check()
    if cache is not None:
        try:
            cache.check()
        except UntrustedError as error:
            if environment.cache_is_named():
                raise
            warn_once(cache, error)
            cache = None
    return cache, artifacts


def get_or_build(
    request: Mapping[str, Any],
    build: Callable[[], Entry],
    cache: Store | None,
    artifacts: Store | None = None,
    require: bool = False,
) -> Entry:
    """Find an entry, or build and keep it.

    Parameters
    ----------
    request : mapping
        The key, less the hash of the TIR.
    build : callable
        Makes the entry; called at most once, with the lock of the request held where there is a cache.
    cache : Store or None
        The writable tier; a fault in it costs one warning, not the call.
    artifacts : Store or None
        The read-only tier, looked at first.
    require : bool
        Whether a miss is an error.

    Returns
    -------
    Entry

    Raises
    ------
    CacheMissError
        On a miss, if ``require``; it names the nearest entry and the fields that differ.
    UntrustedError
        If somebody else could have written the entry of the artifacts.
    """
    if artifacts is not None and (entry := artifacts.find(request)) is not None:
        return entry
    if cache is not None and (entry := _find(cache, request)) is not None:
        return entry
    if require:
        raise CacheMissError(_explain_miss(request, [store for store in (artifacts, cache) if store is not None]))
    build_of_thread = (threading.get_ident(), cache.root if cache else Path(), digest(request))
    if cache is None or build_of_thread in _underway:  # a signal handler came into it, and would wait for its end
        return build()
    entry = None
    _underway.add(build_of_thread)
    try:
        with cache.lock(request):
            entry = _find(cache, request)
            if entry is None:
                entry = build()
                entry = cache.put(entry)
        return entry
    except (OSError, UntrustedError) as error:
        warn_once(cache, error)
        return entry or build()
    finally:
        _underway.discard(build_of_thread)


def _find(cache: Store, request: Mapping[str, Any]) -> Entry | None:
    """Look into a cache, where an entry that somebody else could have written is one to be replaced."""
    try:
        return cache.find(request)
    except UntrustedError as error:
        logger().warning("%s; it is built anew", error)
        return None


def warn_once(cache: Store, error: Exception) -> None:
    """Say that a cache does not work, the first time."""
    if str(cache.root) not in _warned:
        _warned.add(str(cache.root))
        warnings.warn(
            f"the kernel cache {cache.root} cannot be used ({error}); kernels are kept in memory only. "
            "Set FQ_TVM_CACHE_DIR to a folder that can be written.",
            RuntimeWarning,
            stacklevel=2,
        )


def _explain_miss(request: Mapping[str, Any], stores: list[Store]) -> str:
    where = ", ".join(str(store.root) for store in stores) or "no folder"
    message = f"FQ_TVM_REQUIRE_CACHE is set and the kernel is in no cache (looked in {where})"
    wanted = dict(_flat(request))

    def differences(entry: Entry) -> list[str]:
        have = dict(_flat(entry.request))
        differing = sorted(k for k in wanted.keys() | have.keys() if wanted.get(k) != have.get(k))
        return [f"{k}: {have.get(k)!r}, wanted {wanted.get(k)!r}" for k in differing]

    # Of the same kind: the threads that kernels run on lie here, too.
    entries = (e for store in stores for e in store.entries() if e.request.keys() == request.keys())
    nearest = min(entries, key=lambda entry: len(differences(entry)), default=None)
    if nearest is None:
        return f"{message}; there are no entries. Build them with `fq-tvm build --all -o DIR`"
    return f"{message}; the nearest entry {nearest.path} differs in {'; '.join(differences(nearest))}"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item

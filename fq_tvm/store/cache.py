"""A content-addressed store of built kernels: knows bytes and JSON, not TVM.

An entry is a directory of files and a ``meta.json`` with every field of its key and a checksum of every file::

    <root>/v1/kernels/<hash of the request>/<hash of the TIR>/{meta.json, kernel.o, ...}

The *request* is what a caller can know without compiling; the code it leads to is a function of it, and its hash
completes the key.  An entry is written aside and appears by one rename.  A lock saves work, it never guards
correctness: who cannot have it builds all the same, and who comes second uses its own build.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..environment import import_tvm, logger
from ..errors import CacheMissError

FORMAT = 1
"""Version of the layout of entries; part of every key."""

LOCK_SECONDS = 60.0
"""How long to wait for another process that builds the same kernel, far above what one build takes."""

LEFTOVER_SECONDS = 3600.0
"""Age from which an unpublished directory is taken for one that a killed process left."""

_warned: set[str] = set()


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w", permissions: int = 0o644) -> Iterator[IO[Any]]:
    """Write a file aside; it takes its place when all is written, so that a reader sees the old one or the new one.

    Parameters
    ----------
    path : Path
        Of the file, in a folder that exists.
    mode : {"w", "wb"}
        Text, which is UTF-8, or bytes.
    permissions : int
        Of the file; mkstemp's 0600 would hide it from other users.

    Yields
    ------
    file
        To be written to.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left then.
    """
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:  # it would name a file that the caller never heard of
        raise type(error)(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.chmod(aside, permissions)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


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


@dataclass(frozen=True)
class Store:
    """One folder of entries.

    Parameters
    ----------
    root : Path
        The folder; it need not exist.
    """

    root: Path

    def _folder(self, name: str) -> Path:
        return self.root / f"v{FORMAT}" / name

    def _aside(self) -> Path:
        """Make an empty folder where no reader looks."""
        unpublished = self._folder("unpublished")
        unpublished.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=unpublished))

    def find(self, request: Mapping[str, Any]) -> Entry | None:
        """Return the entry of a request; None if there is none, or only a corrupt, truncated or foreign one."""
        folder = self._folder("kernels") / digest(request)
        for name in _names(folder):
            entry = _read(folder / name)
            if entry is not None and entry.request == request:
                with contextlib.suppress(OSError):
                    os.utime(folder / name)  # `prune` keeps what was used last
                return entry
        return None

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
        """
        final = self._folder("kernels") / digest(entry.request) / entry.tir
        aside = self._aside()
        try:
            files = {}
            for name, data in entry.files.items():
                files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
                (aside / name).write_bytes(data)
            meta = {"key": {**entry.request, "tir": entry.tir}, "files": files}
            (aside / "meta.json").write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")
            aside.chmod(0o755)  # mkdtemp's 0700 would hide artifacts from other users
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(aside, final)
            except OSError:
                if not final.is_dir():
                    raise
                if _read(final) is None:  # in the way, and of no use: swap it out, then publish
                    os.rename(final, self._aside() / "corrupt")
                    os.rename(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Entry(entry.request, entry.tir, entry.files, final)

    def recall(self, question: Mapping[str, Any]) -> Any:
        """Return the answer kept by :meth:`remember` for a question, or None."""
        try:
            note = json.loads((self._folder("notes") / f"{digest(question)}.json").read_text())
        except (OSError, ValueError):
            return None
        return note.get("answer") if isinstance(note, dict) and note.get("question") == question else None

    def remember(self, question: Mapping[str, Any], answer: Any) -> None:
        """Keep a small JSON answer.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        folder = self._folder("notes")
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{digest(question)}.json") as file:
            json.dump({"question": question, "answer": answer}, file, indent=2, sort_keys=True)

    @contextlib.contextmanager
    def lock(self, request: Mapping[str, Any]) -> Iterator[None]:
        """Hold the lock of a request, or go on without it after a minute.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        folder = self._folder("locks")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / digest(request)
        path.touch()  # FileLock takes a folder that cannot be written for a lock that is held
        lock = import_tvm("tvm_ffi.utils").FileLock(str(path))
        try:
            lock.blocking_acquire(timeout=LOCK_SECONDS, poll_interval=0.02)
        except TimeoutError:
            logger().warning("another process has held %s for %g s; building without it", path, LOCK_SECONDS)
        try:
            yield
        finally:
            lock.release()

    def paths(self) -> list[Path]:
        """List the folders of all entries, sound or not."""
        kernels = self._folder("kernels")
        return [kernels / request / name for request in _names(kernels) for name in _names(kernels / request)]

    def entries(self) -> Iterator[Entry]:
        """Read all sound entries."""
        for path in self.paths():
            if (entry := _read(path)) is not None:
                yield entry

    def prune(
        self,
        versions: Mapping[str, str] | None = None,
        older_than: float | None = None,
        max_bytes: int | None = None,
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

        Returns
        -------
        list of Path
            What was removed; corrupt entries and leftovers of killed processes always are.
        """
        now = time.time()
        removed = [p for p in self._leftovers() if now - _modified(p) > LEFTOVER_SECONDS]
        kept: list[tuple[float, Path, int]] = []
        for path in self.paths():
            entry, used = _read(path), _modified(path)
            stale = entry is None or (versions is not None and entry.request.get("versions") != dict(versions))
            if entry is None or stale or (older_than is not None and now - used > older_than):
                removed.append(path)
            else:
                kept.append((used, path, entry.size))
        total = sum(size for _, _, size in kept)
        for _, path, size in sorted(kept):
            if max_bytes is None or total <= max_bytes:
                break
            removed.append(path)
            total -= size
        for path in removed:
            self._remove(path)
        return removed

    def clear(self) -> int:
        """Remove everything that this store wrote; return the number of entries."""
        paths = self.paths()
        for path in paths:
            self._remove(path)  # each disappears whole, so that a reader sees all of an entry or nothing
        shutil.rmtree(self.root / f"v{FORMAT}", ignore_errors=True)
        return len(paths)

    def _leftovers(self) -> list[Path]:
        notes, unpublished = self._folder("notes"), self._folder("unpublished")
        parts = [notes / n for n in _names(notes) if n.endswith(".part")]
        return [unpublished / n for n in _names(unpublished)] + parts

    def _remove(self, path: Path) -> None:
        """Take a directory away by a rename, then delete it."""
        if path.is_file():
            path.unlink(missing_ok=True)
            return
        if path.parent != self._folder("unpublished"):
            aside = self._aside() / path.name
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, aside)
            path = aside.parent
        shutil.rmtree(path, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> Entry | None:
    """Read an entry and check it against its own checksums and its place."""
    try:
        meta = json.loads((path / "meta.json").read_text())
        request = dict(meta["key"])
        tir = request.pop("tir")
        files = {name: (path / name).read_bytes() for name in meta["files"]}
        sound = path.name == tir and path.parent.name == digest(request)
        for name, data in files.items():
            sound = sound and hashlib.sha256(data).hexdigest() == meta["files"][name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Entry(request, tir, files, path) if sound else None


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
    """
    stores = [store for store in (artifacts, cache) if store is not None]
    for store in stores:
        if (entry := store.find(request)) is not None:
            return entry
    if require:
        raise CacheMissError(_explain_miss(request, stores))
    if cache is None:
        return build()
    entry = None
    try:
        with cache.lock(request):
            entry = cache.find(request)
            if entry is None:
                entry = build()
                entry = cache.put(entry)
        return entry
    except OSError as error:
        warn_once(cache, error)
        return entry or build()


def warn_once(cache: Store, error: OSError) -> None:
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

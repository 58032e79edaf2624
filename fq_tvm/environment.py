"""The environment variables of the library, read here and nowhere else.

They are read when a value is needed, never at import: ``FQ_TVM_CACHE_DIR``, ``FQ_TVM_ARTIFACTS_DIR``,
``FQ_TVM_TARGET``, ``FQ_TVM_NUM_THREADS``, ``FQ_TVM_THREADING_LAYER``, ``FQ_TVM_REQUIRE_CACHE``, ``FQ_TVM_LOG``,
``FQ_TVM_AKG_HOME``.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from functools import cache
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import FqError
from .interruption import uninterrupted

MOST_THREADS = 1024
"""The largest number that ``FQ_TVM_NUM_THREADS`` may ask for."""


@cache
def _folder(name: str, given: str) -> Path:
    """Return the folder that a variable names; a relative one stays where it is when it is first asked for."""
    try:
        path = Path(given).expanduser().absolute()
    except (OSError, RuntimeError) as error:
        raise FqError(f"{name} is {given!r}, which leads nowhere ({error}); expected the path of a folder") from None
    if "\0" in given:
        raise FqError(f"{name} is {given!r}; expected the path of a folder, without null characters")
    return path


def cache_dir() -> Path | None:
    """Folder of the writable cache: ``FQ_TVM_CACHE_DIR`` or the platform's cache folder; None if there is no home."""
    if given := os.environ.get("FQ_TVM_CACHE_DIR"):
        return _folder("FQ_TVM_CACHE_DIR", given)
    import platformdirs

    try:
        path = Path(platformdirs.user_cache_dir("fq_tvm"))
    except RuntimeError:  # without HOME and without a passwd entry, newer versions raise and older ones leave the "~"
        return None
    return path if path.is_absolute() else None


def cache_is_named() -> bool:
    """Whether the folder of the cache is one that somebody asked for (``FQ_TVM_CACHE_DIR``)."""
    return bool(os.environ.get("FQ_TVM_CACHE_DIR"))


def data_dir() -> Path | None:
    """Folder of what the user made, such as tuned schedules: the platform's data folder; None if there is no home."""
    import platformdirs

    try:
        path = Path(platformdirs.user_data_dir("fq_tvm"))
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def with_cache(folder: str) -> dict[str, str]:
    """Return the environment for a process that shall use this cache and nothing else that was built before."""
    others = ("FQ_TVM_ARTIFACTS_DIR", "FQ_TVM_REQUIRE_CACHE")
    return {**{k: v for k, v in os.environ.items() if k not in others}, "FQ_TVM_CACHE_DIR": folder}


def python(module: str) -> list[str]:
    """Return the command that runs a module in another Python, which looks for modules where this one does.

    ``python -m`` would look into the working folder first, whoever wrote what lies there.
    """
    import subprocess

    path = [*filter(None, sys.path), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:] = {path!r}; import runpy; runpy.run_module({module!r}, None, '__main__', True)"
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # multiprocessing's way
    return [sys.executable, *flags, "-c", code]


class _WithoutTorch(MetaPathFinder):
    """Hides torch from the imports of one thread; the others find it as ever."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Find nothing, and let nobody else find torch."""
        del path, target
        if name == "torch" and threading.get_ident() == self.thread:
            raise ModuleNotFoundError("hidden while tvm-ffi is imported", name=name)


@cache
def import_tvm(name: str) -> Any:
    """Import a module of TVM or tvm-ffi, or one that needs them; nothing breaks that off.

    tvm-ffi imports torch wherever it is installed, which takes most of a second; a torch that is there already stays.
    """
    return uninterrupted(lambda: _import_without_torch(name))


def _import_without_torch(name: str) -> Any:
    try:
        Path.home()
    except RuntimeError:
        # TVM looks for a folder to memoize its own tests in and fails where there is no home, as in containers.
        memoizer: Any = ModuleType("tvm.contrib.pickle_memoize")
        memoizer.memoize = lambda *_args, **_options: lambda function: function
        if "XDG_CACHE_HOME" not in os.environ:
            sys.modules.setdefault(memoizer.__name__, memoizer)
    hidden = _WithoutTorch()
    sys.meta_path.insert(0, hidden)
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(hidden)


def artifacts_dir() -> Path | None:
    """Folder of kernels built ahead of time (``FQ_TVM_ARTIFACTS_DIR``), looked at first and never written."""
    given = os.environ.get("FQ_TVM_ARTIFACTS_DIR")
    return _folder("FQ_TVM_ARTIFACTS_DIR", given) if given else None


def akg_home() -> Path:
    """Folder of AKG, for lowering to Ascend: ``FQ_TVM_AKG_HOME``, or ``akg`` in the platform's data folder."""
    if given := os.environ.get("FQ_TVM_AKG_HOME"):
        return _folder("FQ_TVM_AKG_HOME", given)
    import platformdirs

    return Path(platformdirs.user_data_dir("fq_tvm")) / "akg"


def target_name() -> str:
    """The CPU to generate code for, as :func:`fq_tvm.find_target` takes it (``FQ_TVM_TARGET``), or ``"host"``."""
    return os.environ.get("FQ_TVM_TARGET") or "host"


def num_threads() -> int:
    """Threads a kernel may use: ``FQ_TVM_NUM_THREADS``, or the number of CPUs that this process may run on.

    Raises
    ------
    FqError
        If the variable is no integer from 1 to :data:`MOST_THREADS`.
    """
    given = os.environ.get("FQ_TVM_NUM_THREADS")
    if not given:
        try:
            return len(os.sched_getaffinity(0))
        except (AttributeError, OSError):  # not on every system, and a sandbox may refuse it
            return os.cpu_count() or 1
    if not given.isdecimal() or len(given) > 9 or not 1 <= int(given) <= MOST_THREADS:
        shown = given if len(given) < 40 else f"{given[:40]}..."
        raise FqError(f"FQ_TVM_NUM_THREADS is {shown!r}; expected an integer from 1 to {MOST_THREADS}")
    return int(given)


THREADING_LAYERS = ("auto", "openmp", "own", "serial")


def threading_layer() -> str:
    """Threads that kernels run on (``FQ_TVM_THREADING_LAYER``), ``"auto"`` by default.

    Raises
    ------
    FqError
        If there is no such layer.
    """
    given = os.environ.get("FQ_TVM_THREADING_LAYER") or "auto"
    if given not in THREADING_LAYERS:
        raise FqError(f"FQ_TVM_THREADING_LAYER is {given!r}; expected one of {', '.join(THREADING_LAYERS)}")
    return given


def require_cache() -> bool:
    """Whether a kernel that is in no cache is an error (``FQ_TVM_REQUIRE_CACHE``) rather than a reason to build it."""
    return os.environ.get("FQ_TVM_REQUIRE_CACHE", "").lower() not in ("", "0", "false", "no")


@cache
def logger() -> logging.Logger:
    """The library's logger; ``FQ_TVM_LOG`` (``debug``, ``info``, ...) sends it to standard error."""
    log = logging.getLogger("fq_tvm")
    if level := os.environ.get("FQ_TVM_LOG"):
        known = logging.getLevelNamesMapping() if hasattr(logging, "getLevelNamesMapping") else logging._nameToLevel
        if level.upper() not in known:
            raise FqError(f"FQ_TVM_LOG is {level!r}; expected one of {', '.join(n.lower() for n in known)}")
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s %(levelname)s: %(message)s"))
        log.addHandler(handler)
        log.setLevel(level.upper())
    return log

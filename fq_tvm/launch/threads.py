"""The threads that kernels run on: which layers there are, and which one the next launch of a thread takes.

The layers themselves are threads.c.  Knows tvm-ffi; does not know kernels, specifications or layouts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import environment
from ..interruption import fork_safe_lock, uninterrupted
from . import native

SERIAL, OWN, OPENMP, AUTO, TORCH = range(5)
"""What a thread's launches run on, as threads.c numbers it; the last two choose, see there."""

SHARES = 4
"""Pieces that the work is cut into for each thread: enough that a thread which comes late or is slow does less."""

LOOK_NS = 50_000
"""How long an idle helper looks for the next launch where the last two were no further apart."""

LIBGOMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "omp_get_max_threads", "omp_in_parallel")

FORKED = 0x40
"""PF_FORKNOEXEC of the kernel's flags of a process: forked, and went on with the memory of its parent."""

_local = threading.local()
_lock = fork_safe_lock()


class _Layers:
    """The code of threads.c, loaded once and for good: its threads sleep in it until the process ends."""

    def __init__(self) -> None:
        functions = native.load("threads")
        self.launcher: int = functions("launcher")()
        self.select: Callable[[int], int] = functions("select")
        self.count: Callable[[int], int] = functions("count")
        self._configure: Callable[[int, int, int], int] = functions("configure")
        self._use_openmp: Callable[..., int] = functions("use_openmp")
        self.openmp, self.has_openmp = "not looked for before the first launch through torch", False
        self.asked, self.threads = "", 0
        self.configure()

    def configure(self) -> None:
        """Take over what the environment says now."""
        self.asked = environment.threading_layer()
        if (threads := environment.num_threads()) != self.threads:
            self.threads = threads
            self._configure(threads, SHARES, LOOK_NS)

    def find_openmp(self) -> None:
        """Let launches use the team of torch's libgomp, once torch is there."""
        path, why_not = _libgomp()
        if path:
            library = ctypes.CDLL(path)
            addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in LIBGOMP]
            self._use_openmp(*addresses)
        self.openmp, self.has_openmp = path or why_not, bool(path)


def _libgomp() -> tuple[str, str]:
    """Return the path of the libgomp that torch uses, or "" and why there is none to be used."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # after the name of the program, which may hold spaces and parentheses
        flags = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[6])
        if flags & FORKED:
            return "", "this process was forked, and its parent may have used libgomp, which then hangs"
    try:
        mapped = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    except OSError as error:
        return "", f"the libraries of this process cannot be listed: {error}"
    found = sorted(path for path in mapped if os.path.basename(path).startswith("libgomp"))
    ours = [path for path in found if os.path.join("torch", "lib") in path] or found
    return (ours[0], "") if ours else ("", "torch uses no libgomp here")


_layers: _Layers | None = None


def prepare() -> _Layers:
    """Load the layers, once a process.

    Raises
    ------
    BuildError
        If there is no code for this machine, and none can be built.
    """
    global _layers
    if _layers is None:
        with _lock:
            if _layers is None:
                _layers = uninterrupted(_Layers)
    return _layers


def attachment() -> bytes:
    """Return the object that is to be linked to each kernel's, for :func:`attach`."""
    return native.code("attach")


def attach(functions: Callable[[str], Any]) -> None:
    """Make a kernel launch on the layers.

    Parameters
    ----------
    functions : callable
        Gives a function by name, of what was loaded from the kernel's object and :func:`attachment`.
    """
    functions("launch_through")(prepare().launcher)


def ready(from_torch: bool = False) -> bool:
    """Say where the calling thread's next launches come from; return whether they may be spread over threads.

    Parameters
    ----------
    from_torch : bool
        Whether the call comes through torch, whose threads are then the best where they are awake, and whose
        ``torch.set_num_threads`` counts.

    Returns
    -------
    bool
    """
    if getattr(_local, "from_torch", None) is not from_torch:
        _enter(from_torch)
    return bool(_local.spread)


def _enter(from_torch: bool) -> None:
    """Turn the calling thread to what is best for launches through a door."""
    layers = prepare()
    layers.configure()
    torch_is_there = "torch" in sys.modules
    if from_torch:
        # Tells OpenMP torch's number for this thread, as torch's own kernels do.  A convolution that follows would else
        # be divided among more threads or fewer, and sum in another order.
        sys.modules["torch"].get_num_threads()
    if torch_is_there and not layers.has_openmp and (from_torch or layers.asked == "openmp"):
        with _lock:
            layers.find_openmp()
    asked = {"serial": SERIAL, "own": OWN, "openmp": OPENMP, "auto": TORCH if from_torch else AUTO}[layers.asked]
    layers.select(asked)
    _local.spread = asked != SERIAL and layers.threads > 1
    # who asked for OpenMP gets it as soon as somebody has imported torch
    _local.from_torch = from_torch if layers.asked != "openmp" or torch_is_there else None


WHY = {
    "auto": "auto: the library's own; the OpenMP team of torch for calls of a thread whose team is awake",
    "openmp": "openmp: the OpenMP team of torch where there is one, the library's own elsewhere",
    "own": "own: the library's own",
    "serial": "serial: the calling thread alone",
}
"""What each value of ``FQ_TVM_THREADING_LAYER`` means."""


def describe() -> str:
    """Say what kernels of this process are spread over, and why."""
    asked = environment.threading_layer()
    text = WHY[asked]
    if asked in ("auto", "openmp") and _layers is not None:
        text += f" ({_layers.openmp})"
    return text


def threads_ready() -> bool:
    """Return whether kernels that the calling thread launches may be spread over threads.

    The first time, this loads what that takes, so that no launch has to.

    Raises
    ------
    FqError
        If ``FQ_TVM_NUM_THREADS`` or ``FQ_TVM_THREADING_LAYER`` holds something else than they may.
    """
    return ready()

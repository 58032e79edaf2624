"""Runs object code: loads it, hands it tensors and threads.

Knows tvm-ffi and TVM's small runtime library; does not know TVM's compiler, specifications or layouts.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from ..environment import importing_tvm, num_threads
from ..errors import BuildError

_local = threading.local()


class _DLTensor(ctypes.Structure):
    """DLPack's tensor descriptor, ``DLTensor`` of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype_code", ctypes.c_uint8),
        ("dtype_bits", ctypes.c_uint8),
        ("dtype_lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class AddressTensor(ctypes.c_void_p):
    """A pointer to a tensor descriptor of which only the address is set, the one field that kernels read.

    Parameters
    ----------
    address : int
        Of the first element.
    owner : object
        Whose memory that is, to be kept for as long as this is.
    """

    def __init__(self, address: int, owner: Any = None) -> None:
        self.owner = owner
        self.tensor = _DLTensor(data=address, device_type=1)
        super().__init__(ctypes.addressof(self.tensor))


@cache
def _session() -> Any:
    """Return the JIT session of the process, which needs TVM's runtime library in the global symbol scope."""
    found = importlib.util.find_spec("tvm")  # finds the package without importing it
    if found is None or not found.submodule_search_locations:
        raise BuildError("apache-tvm is not installed; `pip install apache-tvm`")
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    path = os.path.join(found.submodule_search_locations[0], "lib", f"libtvm_runtime.{suffix}")
    with importing_tvm():
        import tvm_ffi_orcjit  # before the next line, which needs the libraries that come with it

    ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    return tvm_ffi_orcjit.default_session()


def load(code: bytes) -> Callable[[str], Any]:
    """Load object code into the process; no compiler or linker is needed.

    Parameters
    ----------
    code : bytes
        A relocatable object.

    Returns
    -------
    callable
        Gives a function by name.

    Raises
    ------
    BuildError
        If the code cannot be loaded.
    """
    try:
        # The object holds no C++, so no C++ compiler is asked for its runtime: the name is one that no PATH has.
        module = _session().load_module(code, cxx="no-c++-runtime-needed")
    except Exception as error:
        raise BuildError(f"cannot load the object code of a kernel: {error}") from error
    return lambda name: module.get_function(name)


POOL = {"TVM_BIND_THREADS": "0", "TVM_THREAD_POOL_SPIN_COUNT": "1000"}
"""How TVM's pool is started where the user says nothing else.

Left alone it binds the calling thread to one CPU, even to one that the process may not run on, and its idle threads
spin for a tenth of a second on cores that others want.  A thousand rounds, a millisecond or so, bridge the gap between
two calls in a loop.
"""


def threads_ready() -> bool:
    """Return whether the calling thread may spread a kernel over threads; start its pool the first time.

    TVM keeps a pool for each calling thread, of half the CPUs by default.  A forked child has the parent's pool but
    none of its threads, and would wait for them for ever: there, kernels run in the calling thread.
    """
    try:
        return bool(_local.process == os.getpid())
    except AttributeError:
        pass
    threads = num_threads()
    if threads > 1:
        import tvm_ffi

        _session()
        # TVM reads this at every launch, not only when the pool starts: it has to stay.
        os.environ.setdefault("TVM_NUM_THREADS", str(threads))
        with _environment({k: v for k, v in POOL.items() if k not in os.environ}):
            tvm_ffi.get_global_func("runtime.config_threadpool")(1, threads)
    _local.process = os.getpid() if threads > 1 else None
    return threads > 1


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a moment, in which C code reads them."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]

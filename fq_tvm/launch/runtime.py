"""Loads object code, and makes it where there is none; hands it tensors.

Knows tvm-ffi and TVM's small runtime library; does not know TVM's compiler, specifications or layouts.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import platform
import sys
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from .. import environment
from ..environment import import_tvm
from ..errors import BuildError
from ..interruption import uninterrupted
from ..store import cache as store
from .dlpack import CPU, DLTensor

COMPILER_BYTES = 2**28
"""Addresses that have to be free for TVM's compiler; building a kernel takes about half of that."""

ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""What object code says of the architecture that it is for, in the header of its file format."""


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
        self.tensor = DLTensor(data=address, device_type=CPU)
        super().__init__(ctypes.addressof(self.tensor))


@cache
def session() -> Any:
    """Return the JIT session of the process, which needs TVM's runtime library in the global symbol scope."""
    found = importlib.util.find_spec("tvm")  # finds the package without importing it
    if found is None or not found.submodule_search_locations:
        raise BuildError("apache-tvm is not installed; `pip install apache-tvm`")
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    path = os.path.join(found.submodule_search_locations[0], "lib", f"libtvm_runtime.{suffix}")
    orcjit = import_tvm("tvm_ffi_orcjit")  # before the next line, which needs the libraries that come with it
    ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    return uninterrupted(orcjit.default_session)


_unused: list[Any] = []
"""Modules that nobody calls any more, which the next load unloads: that takes locks of LLVM, which a fork by another
thread would leave locked in its child, so it is a part of a step, unlike the end of an object, which comes anywhere."""


class Loaded:
    """Loaded code, which gives its functions by name; they are for its owner, who keeps it for as long as them."""

    def __init__(self, module: Any) -> None:
        self._module = module
        weakref.finalize(self, _unused.append, module).atexit = False

    def __call__(self, name: str) -> Any:
        """Return a function; LLVM links the code when the first is asked for."""
        return uninterrupted(lambda: self._module.get_function(name))


def load(*code: bytes) -> Loaded:
    """Load object code into the process; no compiler or linker is needed.

    Parameters
    ----------
    *code : bytes
        Relocatable objects, which are linked to one another.

    Raises
    ------
    BuildError
        If the code cannot be loaded, or is for another architecture, which the loader would not notice.
    """

    def step() -> Any:
        _unused.clear()
        # The object holds no C++, so no C++ compiler is asked for its runtime: the name is one that no PATH has.
        return session().load_module(list(code), cxx="no-c++-runtime-needed")

    check_architecture(*code)
    try:
        return Loaded(uninterrupted(step))
    except Exception as error:
        raise BuildError(f"cannot load the object code of a kernel: {error}") from error


def check_architecture(*code: bytes) -> None:
    """Refuse object code that this machine would take for something else.

    Raises
    ------
    BuildError
        If it is for another architecture.
    """
    here = platform.machine()
    for machine in (int.from_bytes(each[18:20], "little") for each in code):
        if machine != ELF_MACHINES.get(here, machine):
            other = next((name for name, number in ELF_MACHINES.items() if number == machine), f"ELF machine {machine}")
            raise BuildError(
                f"the object code of a kernel is for {other}, and this machine is {here}. "
                f"Build it for a CPU of {here}: `fq-tvm build --target NAME -o DIR`"
            )


def check_memory(count: int, what: str) -> None:
    """See whether this process may have more memory, for what cannot say that it got none.

    Raises
    ------
    MemoryError
        If it may not have ``count`` bytes.
    """
    try:
        mmap.mmap(-1, count).close()
    except OSError as error:
        raise MemoryError(f"there is no memory for {what}, which may want {count >> 20} MB: {error.strerror}") from None


def compiler(module: str) -> Any:
    """Import a module of code generation, and with it TVM's compiler, which a warm process never does.

    Raises
    ------
    BuildError
        If there is so little memory that the compiler might end the process, as it does where it gets none.
    """
    try:
        check_memory(COMPILER_BYTES, "the compiler")
    except MemoryError as error:
        raise BuildError(str(error)) from None
    return import_tvm(importlib.util.resolve_name(f"..codegen.{module}", __package__))


def find_or_build(request: Mapping[str, Any], build: Callable[[], store.Entry]) -> store.Entry:
    """Find what was built in the folders that the environment names, or build and keep it; see ``get_or_build``."""
    return store.get_or_build(request, build, *store.tiers(), environment.require_cache())

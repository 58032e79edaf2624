"""What LLVM says and does: what a CPU is and has, and TIR turned into LLVM IR, assembly and object code."""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import re
from dataclasses import replace

import tvm
import tvm_ffi
from tvm.target import Target as TvmTarget
from tvm.target import codegen

from ..errors import BuildError, FqError
from ..schedule import Schedule
from ..target import ALIASES, ARCHITECTURES, PORTABLE, VECTOR_FEATURES, Target, canonical, hidden
from .nontemporal import mark
from .prefetch import prefetch

for interruption in (KeyboardInterrupt, SystemExit):  # else what a callback raises comes out of TVM as a RuntimeError
    tvm_ffi.register_error(interruption.__name__, interruption)


def is_known(cpu: str) -> bool:
    """Whether LLVM knows a CPU by this name, of either architecture."""
    return bool(_architectures(cpu))


def _architectures(cpu: str) -> list[str]:
    """List whose CPU a name is, this machine's architecture first."""
    if not cpu.isascii():  # what is no UTF-8 on a command line would not even reach LLVM
        return []
    every = sorted({*ARCHITECTURES, platform.machine()}, key=lambda a: a != platform.machine())
    if cpu == PORTABLE:
        return ["aarch64"]
    return [a for a in every if codegen.llvm_is_valid_cpu(cpu, f"{a}-linux-gnu")]


def _features(target: Target) -> set[str]:
    return {str(f) for f in codegen.llvm_get_cpu_features(TvmTarget(target.to_tvm()))}


def _has_64_bits(target: Target) -> bool:
    return target.architecture != "x86_64" or "64bit" in _features(target)


def _usable(architecture: str) -> list[str]:
    """List the CPUs of an architecture that code can be generated for."""
    any_cpu = TvmTarget({"kind": "llvm", "mtriple": f"{architecture}-linux-gnu"})
    known = sorted(map(str, codegen.llvm_get_cpu_archlist(any_cpu)))
    return [name for name in known if _has_64_bits(Target(name, (), architecture=architecture))]


def resolve(name: str) -> Target:
    """Ask LLVM what a CPU is and has.

    Parameters
    ----------
    name : str
        ``"host"``; LLVM's name of a CPU of x86-64 or aarch64, e.g. ``"x86-64-v3"`` or ``"tsv110"``; ``"kunpeng-920"``;
        or ``"armv8-a"`` for any CPU of aarch64.

    Returns
    -------
    Target
        A name that both architectures have (``generic``) is this machine's.

    Raises
    ------
    FqError
        If LLVM does not know the name, for which TVM would fall back to slow generic code, or if the CPU has no 64-bit
        mode, at which LLVM would end the process.

    Notes
    -----
    A virtual machine may hide features that the CPU's name implies; those are switched off in a target for the host.
    """
    machine = platform.machine()
    cpu = canonical(str(codegen.llvm_get_system_cpu()) if name == "host" else name)
    found = [machine] if name == "host" else _architectures(cpu)
    if not found:
        usable = ", ".join([*ALIASES, PORTABLE, *itertools.chain(*map(_usable, ARCHITECTURES))])
        raise FqError(f"LLVM knows no CPU {cpu!r}; FQ_TVM_TARGET takes host or one of: {usable}")
    bare = Target(cpu, (), architecture=found[0])
    if not _has_64_bits(bare):
        raise FqError(f"{cpu!r} is a CPU without 64-bit code; FQ_TVM_TARGET takes host, or a CPU that has it")
    named = replace(bare, features=tuple(sorted(_features(bare))))
    if (answer := named.here(as_host=name == "host")) is not None:
        return answer
    absent = hidden(named.features) if machine == "aarch64" else _absent(named)
    if name != "host":
        return replace(named, missing=tuple(f for f in absent if f.startswith(VECTOR_FEATURES)))
    switched = replace(named, disabled=absent)
    return replace(switched, features=tuple(sorted(_features(switched))))


def _absent(named: Target) -> tuple[str, ...]:
    """Return which of a CPU's features this machine lacks, as LLVM finds them by asking the CPU."""
    host = tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    has = {str(feature): bool(there) for feature, there in host.items()}
    return tuple(f for f in named.features if has.get(f) is False)


MFD_CLOEXEC = 1

DEBUG_INFO = re.compile(r",? !dbg !\d+|^\s*#dbg_.*\n|^!llvm\.dbg\.cu = .*\n", re.MULTILINE)
"""What TVM says of lines of a source that there is not: half of an object, and of what one has to read of assembly."""


def translate(module: tvm.IRModule, schedule: Schedule, target: Target) -> str:
    """Turn what :func:`fq_tvm.codegen.build.lower` returned into LLVM IR, optimized and ready to become code."""
    return prefetch(optimize(module, TvmTarget(target.to_tvm(schedule.vector_bits))), schedule.prefetch)


def optimize(module: tvm.IRModule, target: TvmTarget) -> str:
    """Turn functions into LLVM IR, optimized and with the stores marked that go past the caches."""
    compiled = tvm.compile(module, target=target)
    return mark(DEBUG_INFO.sub("", compiled.mod.inspect_source("ll")))


def emit(ll: str) -> tuple[bytes, str]:
    """Turn LLVM IR into object code and assembly."""
    try:
        return _emit(ll)
    except OSError as error:
        raise BuildError(f"there is no room for the object code of a kernel: {error}") from error


def load(ll: str) -> tvm.runtime.Module:
    """Make a module of LLVM IR, which is compiled when it is first used, or written."""
    # TVM wants names of files.  They lie in memory: a disk may be full, which LLVM ends the process for, or read-only.
    with os.fdopen(_file_in_memory("kernel.ll"), "wb") as text:
        text.write(ll.encode())
        text.flush()
        return tvm_ffi.get_global_func("ffi.Module.load_from_file.ll")(f"/proc/self/fd/{text.fileno()}", "ll")


def _emit(ll: str) -> tuple[bytes, str]:
    code = load(ll)
    with os.fdopen(_file_in_memory("kernel.o"), "rb") as made:
        code.write_to_file(f"/proc/self/fd/{made.fileno()}", "o")
        return made.read(), code.inspect_source("asm")


def _file_in_memory(name: str) -> int:
    # os.memfd_create is missing from Pythons that were built for a C library older than the one TVM needs
    if (file := ctypes.CDLL(None, use_errno=True).memfd_create(name.encode(), MFD_CLOEXEC)) < 0:
        raise OSError(ctypes.get_errno(), "no file can be made in memory", name)
    return int(file)

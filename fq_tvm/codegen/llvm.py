"""What LLVM says and does: what a CPU is and has, and TIR turned into LLVM IR, assembly and object code."""

from __future__ import annotations

import ctypes
import os
import platform
import re

import tvm
import tvm_ffi
from tvm.target import Target as TvmTarget
from tvm.target import codegen

from ..errors import BuildError, FqError
from ..schedule import Schedule
from ..target import VECTOR_FEATURES, Target
from .nontemporal import mark

for interruption in (KeyboardInterrupt, SystemExit):  # else what a callback raises comes out of TVM as a RuntimeError
    tvm_ffi.register_error(interruption.__name__, interruption)


def is_known(cpu: str) -> bool:
    """Whether LLVM knows a CPU by this name."""
    return bool(codegen.llvm_is_valid_cpu(cpu, codegen.llvm_get_system_triple()))


def _features(cpu: str) -> set[str]:
    return {str(f) for f in codegen.llvm_get_cpu_features(TvmTarget({"kind": "llvm", "mcpu": cpu}))}


def _has_64_bits(cpu: str) -> bool:
    return platform.machine() != "x86_64" or "64bit" in _features(cpu)


def resolve(name: str) -> Target:
    """Ask LLVM what a CPU is and has.

    Parameters
    ----------
    name : str
        ``"host"`` or LLVM's name of a CPU, e.g. ``"x86-64-v3"``.

    Returns
    -------
    Target

    Raises
    ------
    FqError
        If LLVM does not know the name, for which TVM would fall back to slow generic code, or if the CPU has no 64-bit
        mode, at which LLVM would end the process.

    Notes
    -----
    A virtual machine may hide features that the CPU's name implies; those are switched off in a target for the host.
    """
    cpu = codegen.llvm_get_system_cpu() if name == "host" else name
    if not is_known(cpu):
        known = sorted(map(str, codegen.llvm_get_cpu_archlist(TvmTarget({"kind": "llvm"}))))
        usable = ", ".join(name for name in known if _has_64_bits(name))
        raise FqError(f"LLVM knows no CPU {cpu!r}; FQ_TVM_TARGET takes host or one of: {usable}")
    if not _has_64_bits(cpu):
        raise FqError(f"{cpu!r} is a CPU without 64-bit code; FQ_TVM_TARGET takes host, or a CPU that has it")
    host: dict[str, bool] = {
        str(k): bool(v) for k, v in tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")().items()
    }
    implied = _features(cpu)
    absent = sorted(f for f in implied if host.get(f) is False)
    if name != "host":
        missing = tuple(f for f in absent if f.startswith(VECTOR_FEATURES))
        return Target(cpu, tuple(sorted(implied)), (), missing)
    attributes = [f"-{f}" for f in absent]
    left = codegen.llvm_get_cpu_features(TvmTarget({"kind": "llvm", "mcpu": cpu, "mattr": attributes}))
    return Target(cpu, tuple(sorted(map(str, left))), tuple(absent))


MFD_CLOEXEC = 1

DEBUG_INFO = re.compile(r",? !dbg !\d+|^\s*#dbg_.*\n|^!llvm\.dbg\.cu = .*\n", re.MULTILINE)
"""What TVM says of lines of a source that there is not: half of an object, and of what one has to read of assembly."""


def translate(module: tvm.IRModule, schedule: Schedule, target: Target) -> str:
    """Turn what :func:`fq_tvm.codegen.build.lower` returned into LLVM IR, optimized and ready to become code."""
    return optimize(module, TvmTarget(target.to_tvm(schedule.vector_bits)))


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

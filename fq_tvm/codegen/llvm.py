"""What LLVM says and does: what a CPU is and has, and TIR turned into LLVM IR, assembly and object code."""

from __future__ import annotations

import ctypes
import os
import re

import tvm
import tvm_ffi
from tvm.target import Target as TvmTarget
from tvm.target import codegen

from ..errors import FqError
from ..schedule import Schedule
from ..target import VECTOR_FEATURES, Target
from .nontemporal import mark


def is_known(cpu: str) -> bool:
    """Whether LLVM knows a CPU by this name."""
    return bool(codegen.llvm_is_valid_cpu(cpu, codegen.llvm_get_system_triple()))


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
        If LLVM does not know the name: TVM itself would fall back to slow generic code.

    Notes
    -----
    A virtual machine may hide features that the CPU's name implies; those are switched off in a target for the host.
    """
    cpu = codegen.llvm_get_system_cpu() if name == "host" else name
    if not is_known(cpu):
        known = sorted(map(str, codegen.llvm_get_cpu_archlist(TvmTarget({"kind": "llvm"}))))
        raise FqError(f"LLVM knows no CPU {cpu!r}; FQ_TVM_TARGET takes host or one of: {', '.join(known)}")
    host = tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    implied = {str(f) for f in codegen.llvm_get_cpu_features(TvmTarget({"kind": "llvm", "mcpu": cpu}))}
    absent = sorted(f for f in implied if f in host and not host[f])
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
    compiled = tvm.compile(module, target=TvmTarget(target.to_tvm(schedule.vector_bits)))
    return mark(DEBUG_INFO.sub("", compiled.mod.inspect_source("ll")))


def emit(ll: str) -> tuple[bytes, str]:
    """Turn LLVM IR into object code and assembly."""
    # TVM wants names of files.  These lie in memory: a disk may be full, which LLVM ends the process for, or read-only.
    with os.fdopen(_file_in_memory("kernel.ll"), "wb") as text, os.fdopen(_file_in_memory("kernel.o"), "rb") as made:
        text.write(ll.encode())
        text.flush()
        code = tvm_ffi.get_global_func("ffi.Module.load_from_file.ll")(f"/proc/self/fd/{text.fileno()}", "ll")
        code.write_to_file(f"/proc/self/fd/{made.fileno()}", "o")
        return made.read(), code.inspect_source("asm")


def _file_in_memory(name: str) -> int:
    # os.memfd_create is missing from Pythons that were built for a C library older than the one TVM needs
    if (file := ctypes.CDLL(None, use_errno=True).memfd_create(name.encode(), MFD_CLOEXEC)) < 0:
        raise OSError(ctypes.get_errno(), "no file can be made in memory", name)
    return int(file)

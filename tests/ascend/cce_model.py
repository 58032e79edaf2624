"""Compiles CCE-C against the model of its intrinsics with g++, and runs it block by block."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
PADDING = 32
"""Bytes after each tensor that may be read and written, as an artifact's meta.json says."""

C_TYPES = {"float16": "half", "float32": "float", "int32": "int32_t", "int8": "int8_t"}


class Violation(AssertionError):
    """The kernel does what hardware would not survive, or what nobody knows."""


class Kernel:
    """A kernel compiled for the CPU.

    Parameters
    ----------
    source : str
        What AKG wrote.
    name : str
        Symbol of the kernel.
    dtypes : list of str
        Of its arguments.
    block_dim : int
    folder : Path
        Where to compile.
    """

    def __init__(self, source: str, name: str, dtypes: list[str], block_dim: int, folder: Path) -> None:
        self.block_dim = block_dim
        # Addresses in the unified buffer are numbers.
        source = re.sub(r"\(__ubuf__\s+(\w+)\s*\*\)\s*\((\d+)\)", r"(\1*)(model::unified + \2)", source)
        # The kernel reports overflows to a fixed address.
        source = re.sub(r"\(uint64_t \*\) 0x40000", "&status_of_model", source)
        given = ", ".join(f"{C_TYPES[d]}* a{i}" for i, d in enumerate(dtypes))
        passed = ", ".join(f"a{i}" for i in range(len(dtypes)))
        register = "".join(
            f"  model::buffers[{i}] = {{(unsigned char*)a{i}, (unsigned char*)a{i} + sizes[{i}]}};\n"
            for i in range(len(dtypes))
        )
        (folder / "kernel.cc").write_text(
            f'#define __CCE_KT_TEST__\n#include "{HERE / "cce_model.h"}"\nstatic uint64_t status_of_model;\n{source}\n'
            f'extern "C" const char* run(int block, const long* sizes, {given}) {{\n'
            f"  model::buffer_count = {len(dtypes)}; model::violation[0] = 0; block_idx = block;\n{register}"
            f"  for (int i = 0; i < UNIFIED_BYTES; i++) model::unified[i] = (unsigned char)(i * 7 + block + 85);\n"
            f"  model::mask_high = model::mask_low = ~0ull;\n"
            f"  {name}({passed});\n  return model::violation;\n}}\n"
        )
        command = ["g++", "-O1", "-w", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", "kernel.cc", "-o", "k.so"]
        built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        if built.returncode:
            raise NotImplementedError(f"the model does not compile the kernel: {built.stderr[:2000]}")
        self._run = ctypes.CDLL(str(folder / "k.so")).run
        self._run.restype = ctypes.c_char_p

    def __call__(self, *arrays: np.ndarray, reverse: bool = False) -> None:
        """Run all blocks, the last first if reversed: they must not depend on their order."""
        padded = [np.concatenate([a.reshape(-1).view(np.uint8), np.zeros(PADDING, np.uint8)]) for a in arrays]
        sizes = (ctypes.c_long * len(arrays))(*(p.size for p in padded))
        pointers = [p.ctypes.data_as(ctypes.c_void_p) for p in padded]
        for block in sorted(range(self.block_dim), reverse=reverse):
            if said := self._run(block, sizes, *pointers):
                raise Violation(said.decode())
        for array, copy in zip(arrays, padded, strict=True):
            array.reshape(-1).view(np.uint8)[...] = copy[: array.nbytes]

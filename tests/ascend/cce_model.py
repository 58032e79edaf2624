"""Compiles CCE-C against the model of its intrinsics with g++, and runs it block by block.

What each block did is noted for :mod:`pipe_order`.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np
from pipe_order import ALL, MTE2, MTE3, Event, S, V, barrier, register, set_flag, use, wait_flag

HERE = Path(__file__).resolve().parent
PADDING = 32
"""Bytes after each tensor that may be read and written, as an artifact's meta.json says."""

UNIFIED_BUFFER = 262144
COMPARED = 16
"""Bytes of the register that comparisons write and selections read."""

PIPES = {0: S, 1: V, 4: MTE2, 5: MTE3, 6: ALL}
"""As the header numbers them."""

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
        address = r"__ubuf__\s+(\w+)\s*\*\s*(\w+) = \(__ubuf__\s+\w+\s*\*\)\s*\((\d+)\);"
        source = re.sub(address, r"model::Unified<\1> \2{(\1*)(model::unified + \3)};", source)
        # The kernel reports overflows to a fixed address.
        source = re.sub(r"\(uint64_t \*\) 0x40000", "&status_of_model", source)
        given = ", ".join(f"{C_TYPES[d]}* a{i}" for i, d in enumerate(dtypes))
        passed = ", ".join(f"a{i}" for i in range(len(dtypes)))
        register = "".join(
            f"  model::buffers[{i}] = {{(unsigned char*)a{i}, (unsigned char*)a{i} + sizes[{i}]}};\n"
            for i in range(len(dtypes))
        )
        (folder / "kernel.cc").write_text(
            f'#define __CCE_KT_TEST__\n#include "{HERE / "cce_model.h"}"\nstatic uint64_t status_of_model;\n'
            f'#line 1 "kernel.cce"\n{source}\n'
            f'extern "C" const char* run(int block, const long* sizes, {given}) {{\n'
            f"  model::buffer_count = {len(dtypes)}; model::violation[0] = 0; block_idx = block;\n{register}"
            f"  for (int i = 0; i < UNIFIED_BYTES; i++) model::unified[i] = (unsigned char)(i * 7 + block + 85);\n"
            f"  model::mask_high = model::mask_low = ~0ull;\n"
            f"  model::trace.clear();\n"
            f"  {name}({passed});\n  return model::violation;\n}}\n"
            'extern "C" const int32_t* trace(long* size) {\n'
            "  *size = model::trace.size();\n  return model::trace.data();\n}\n"
        )
        command = ["g++", "-O1", "-w", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", "kernel.cc", "-o", "k.so"]
        built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        if built.returncode:
            raise NotImplementedError(f"the model does not compile the kernel: {built.stderr[:2000]}")
        library = ctypes.CDLL(str(folder / "k.so"))
        self._run, self._trace = library.run, library.trace
        self._run.restype, self._trace.restype = ctypes.c_char_p, ctypes.POINTER(ctypes.c_int32)
        self.size = 0
        """Bytes of the space that traces speak of: the unified buffer, the register of comparisons, the tensors."""
        self._words: dict[int, np.ndarray] = {}

    def __call__(self, *arrays: np.ndarray, reverse: bool = False) -> None:
        """Run all blocks, the last first if reversed: they must not depend on their order."""
        padded = [np.concatenate([a.reshape(-1).view(np.uint8), np.zeros(PADDING, np.uint8)]) for a in arrays]
        sizes = (ctypes.c_long * len(arrays))(*(p.size for p in padded))
        pointers = [p.ctypes.data_as(ctypes.c_void_p) for p in padded]
        self.size, self._words = UNIFIED_BUFFER + COMPARED + sum(sizes), {}
        for block in sorted(range(self.block_dim), reverse=reverse):
            if said := self._run(block, sizes, *pointers):
                raise Violation(said.decode())
            length = ctypes.c_long()
            words = self._trace(ctypes.byref(length))
            self._words[block] = np.ctypeslib.as_array(words, (length.value,)).copy()
        for array, copy in zip(arrays, padded, strict=True):
            array.reshape(-1).view(np.uint8)[...] = copy[: array.nbytes]

    def trace(self, block: int) -> list[Event]:
        """What a block of the last call did; the site of an event is its line."""
        return _events(self._words[block].tolist())


def _events(words: list[int]) -> list[Event]:
    events, at = [], 0
    while at < len(words):
        kind, site, pipe, target, flag, reads, writes = words[at : at + 7]
        bounds = iter(words[at + 7 : at + 7 + 2 * (reads + writes)])
        spans = list(zip(bounds, bounds, strict=True))
        at += 7 + 2 * len(spans)
        if kind == 0:
            events.append(use(PIPES[pipe], site, spans[:reads], spans[reads:]))
        elif kind in (3, 4):
            events.append((barrier if kind == 3 else register)(PIPES[pipe], site))
        else:
            events.append((set_flag if kind == 1 else wait_flag)(PIPES[pipe], PIPES[target], flag, site))
    return events

"""What a loop will read next, asked for beforehand.

A prefetch in a loop would keep LLVM from vectorizing it, so it is put into the text of the LLVM IR when that is done.
"""

from __future__ import annotations

import itertools
import re

LEAST_BYTES = 32
"""Of a vector for which it is worth an instruction; narrower ones are what is left of a loop."""

_LOAD = re.compile(r"^ +%[\w.]+ = load <(\d+) x (float|half|bfloat|i16)>, ptr (%[\w.]+), align [^\n]*$", re.MULTILINE)
_BYTES = {"float": 4, "half": 2, "bfloat": 2, "i16": 2}


def prefetch(ll: str, ahead: int) -> str:
    """Prefetch so many bytes ahead of each load of a vector.

    Parameters
    ----------
    ll : str
        Optimized code.
    ahead : int
        Bytes; 0 for no prefetching.

    Returns
    -------
    str
        It computes the same: what is asked for need not be memory.
    """
    numbers = itertools.count()

    def with_prefetch(found: re.Match[str]) -> str:
        if int(found[1]) * _BYTES[found[2]] < LEAST_BYTES:
            return found[0]
        name = f"%ahead{next(numbers)}"
        place = f"  {name} = getelementptr i8, ptr {found[3]}, i64 {ahead}"
        return f"{found[0]}\n{place}\n  call void @llvm.prefetch.p0(ptr {name}, i32 0, i32 3, i32 1)"

    if not ahead:
        return ll
    # It is declared already where the loops state some of their own.
    declared = "" if "@llvm.prefetch.p0(" in ll else "\ndeclare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"
    return f"{_LOAD.sub(with_prefetch, ll)}{declared}"

"""What is lowered and compared: one list for every toolchain.

The dimensions of the matrix are rank and axis, channels, inner extent, dtypes and range.  By default each toolchain is
given a set in which every pair of values of two dimensions occurs; ``TEST_ASCEND_FULL=1`` gives it every kernel of the
whole product.  Shapes of different rank spread the same elements over dimensions, so many rows share a kernel.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from fq_tvm.ascend import Problem

RANK_AXIS = tuple((rank, axis) for rank in range(1, 6) for axis in range(rank))
CHANNELS = (1, 3, 16, 1000)
INNER = (1, 7, 32, 1000)
DTYPES = (("float32", "float32"), ("float16", "float32"), ("float32", "float16"), ("float16", "float16"))
RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "int16": (-32768, 32767)}

FULL = os.environ.get("TEST_ASCEND_FULL", "") not in ("", "0")

JUDGE = os.environ.get("TEST_ASCEND_JUDGE", "") not in ("", "0")
"""Whether the slow proofs are done of every module of the matrix: hivmc's, and of every flag and barrier."""

_OUTER = {0: (), 1: (4,), 2: (2, 2), 3: (2, 1, 2), 4: (1, 2, 2, 1)}
_INNER = {
    1: {0: (), 1: (1,), 2: (1, 1), 3: (1, 1, 1), 4: (1, 1, 1, 1)},
    7: {1: (7,), 2: (1, 7), 3: (7, 1, 1), 4: (1, 7, 1, 1)},
    32: {1: (32,), 2: (4, 8), 3: (2, 4, 4), 4: (2, 2, 2, 4)},
    1000: {1: (1000,), 2: (10, 100), 3: (5, 20, 10), 4: (5, 2, 10, 10)},
}


@dataclass(frozen=True)
class Case:
    """One row of the matrix."""

    rank_axis: tuple[int, int]
    channels: int
    inner: int
    dtypes: tuple[str, str]
    range_name: str

    @property
    def possible(self) -> bool:
        """Whether the axis leaves room for the inner extent."""
        rank, axis = self.rank_axis
        return rank - 1 - axis in _INNER[self.inner]

    @property
    def problem(self) -> Problem:
        rank, axis = self.rank_axis
        shape = (*_OUTER[axis], self.channels, *_INNER[self.inner][rank - 1 - axis])
        return Problem(shape, axis, *self.dtypes, *RANGES[self.range_name])

    def __str__(self) -> str:
        shape = "x".join(map(str, self.problem.shape))
        return f"{shape}-axis{self.rank_axis[1]}-{'-'.join(self.dtypes)}-{self.range_name}"


def _all() -> Iterator[Case]:
    for row in itertools.product(RANK_AXIS, CHANNELS, INNER, DTYPES, RANGES):
        case = Case(*row)
        if case.possible:
            yield case


def _facts(case: Case, pairs_of_rank: bool) -> set[tuple[object, ...]]:
    """What a case covers: its pairs of values, those with the rank and axis only if asked for."""
    values = (case.channels, case.inner, case.dtypes, case.range_name)
    covered: set[tuple[object, ...]] = {("rank", case.rank_axis)}
    covered |= {(i, j, values[i], values[j]) for i, j in itertools.combinations(range(4), 2)}
    if pairs_of_rank:
        covered |= {("rank", case.rank_axis, i, value) for i, value in enumerate(values)}
    return covered


@functools.cache
def covering(pairs_of_rank: bool = True) -> tuple[Case, ...]:
    """The smallest set that a greedy choice finds, in which every possible pair occurs.

    If FULL is set, that and one case for each other kernel that the matrix has.
    """
    everything = list(_all())
    facts = {case: _facts(case, pairs_of_rank) for case in everything}
    open_facts = set().union(*facts.values())
    chosen = []
    while open_facts:
        # Of equally good cases the smallest, as executing costs time.
        best = max(everything, key=lambda c: (len(facts[c] & open_facts), -c.channels * c.inner))
        chosen.append(best)
        open_facts -= facts[best]
    if FULL:
        kernels = {case.problem.collapsed(): case for case in everything}
        kernels.update({case.problem.collapsed(): case for case in chosen})
        chosen += [case for case in kernels.values() if case not in chosen]
    return tuple(chosen)


SEVERAL_TILES = [
    Problem((16, 64, 300), 1, "float16", "float32", -8, 7),
    Problem((64, 3, 1000), 1, "float16", "float32", -128, 127),
    Problem((400, 1000), 1, "float32", "float32", -8, 7),
    Problem((400_000,), 0, "float16", "float16", -8, 7),
]
"""Problems of which a block of npuir does several tiles, so that what orders one after another is needed."""

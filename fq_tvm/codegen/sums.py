"""The sum of a row in torch's order, beside whatever else is made of its elements, stated as loops.

torch would write what is summed to memory, and read it again.  Its sum has an order that no number of threads changes:
rows are summed one by one, each in lanes side by side and level by level, see :func:`fq_tvm.reference.sum_of_rows`.
Here the order is the same, so the bits are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ..spec import SUM_BLOCK, SUM_VECTORS
from .loop_nests import loop, vector
from .vector_loops import int64

TASK_ELEMENTS = 1024
"""Neighboring elements that a task should find at a time, where rows are short: a page."""

TASKS = 16
"""Tasks that there are, if there are as many channels, before they get more than a row at a time."""

LEVELS = 3
"""Sums of a lane that wait for one another; more take rows of 2**16 elements."""


def channels_of_task(channels: Any, inner: Any) -> Any:
    """Return how many channels a task has, whose rows have inner elements."""
    return tirx.max(int64(1), tirx.min(TASK_ELEMENTS // inner, channels // TASKS))


def row_sum(
    lanes: int, inner: Any, element: Callable[[Any], tuple[Any, Any]], finish: Callable[[Any], Any], dtype: str
) -> Any:
    """State a row: do what is to be done with each element, sum what it gives, and do something with the sum.

    A row that is shorter than a vector is summed as if a vector had one element.

    Parameters
    ----------
    lanes : int
        Elements of a vector of torch's sum.
    inner : Expr
        Elements of the row.
    element : callable
        Takes the place of an element in the row; returns a statement, and what is to be added.
    finish : callable
        Takes the sum; returns a statement.
    dtype : str
        Of the sum.
    """

    def of(lanes: int) -> Any:
        return _row_sum(lanes, inner, element, finish, dtype)

    return tirx.IfThenElse(inner < lanes, of(1), of(lanes))


def _row_sum(lanes: int, inner: Any, element: Any, finish: Any, dtype: str) -> Any:
    wide = lanes * SUM_VECTORS
    levels = [tirx.decl_buffer((wide,), dtype, f"level{i}") for i in range(LEVELS)]
    total = tirx.decl_buffer((1,), dtype, "total")
    zero = tirx.const(0.0, dtype)
    chunks = inner // wide

    def take(at: Any, to: Any, place: Any) -> Any:
        done, summand = element(at)
        return tirx.SeqStmt([done, _add(to, place, summand)])

    def clear(buffer: Any) -> Any:
        return vector(wide, lambda v: tirx.BufferStore(buffer, zero, [v]))

    def rest(k: Any) -> Any:
        return vector(lanes, lambda v: take(chunks * wide + k * lanes + v, levels[0], v))

    def join(k: int) -> Any:
        return vector(lanes, lambda v: _add(levels[0], v, levels[0][k * lanes + v]))

    def move(source: Any, to: Any) -> Any:
        return tirx.SeqStmt([vector(wide, lambda v: _add(to, v, source[v])), clear(source)])

    def chunk(j: Any) -> Any:
        return vector(wide, lambda v: take(j * wide + v, levels[0], v))

    def block(b: Any) -> Any:
        """Take one level up what has been added up often enough, and so on."""
        up: Any = move(levels[1], levels[2])
        up = tirx.IfThenElse(tirx.EQ((b + 1) % SUM_BLOCK, int64(0)), up, None)
        return tirx.SeqStmt([loop("j", int64(SUM_BLOCK), lambda j: chunk(b * SUM_BLOCK + j)), move(*levels[:2]), up])

    blocks = chunks // SUM_BLOCK
    steps = [
        *map(tirx.AllocBuffer, (*levels, total)),
        *map(clear, levels),
        loop("b", blocks, block),
        loop("j", chunks % SUM_BLOCK, lambda j: chunk(blocks * SUM_BLOCK + j)),
        *(move(level, levels[0]) for level in levels[1:]),
        loop("v", inner % wide // lanes, rest),
        *map(join, range(1, SUM_VECTORS)),
        tirx.BufferStore(total, zero, [0]),
        loop("tail", inner % lanes, lambda i: take(inner // lanes * lanes + i, total, int64(0))),
        *(_add(total, int64(0), levels[0][int64(v)]) for v in range(lanes)),
        finish(total[0]),
    ]  # fmt: skip
    return tirx.SeqStmt(steps)


def _add(sums: Any, at: Any, value: Any) -> Any:
    return tirx.BufferStore(sums, sums[at] + value, [at])

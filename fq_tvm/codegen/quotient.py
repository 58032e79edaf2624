"""What the kernel of the gradient of a quotient computes: one pass, with torch's sum for each divisor, stated as loops.

torch would write what is summed to memory, and read it again.  Its sum has an order that no number of threads changes:
rows are summed one by one, each in lanes side by side and level by level, see :func:`fq_tvm.reference.sum_of_rows`.
Here the order is the same, so the bits are.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..entry_points import quotient_gradient_entry_points
from ..schedule import Schedule
from ..spec import SUM_BLOCK, SUM_VECTORS, QuotientGradientSpec
from .expression import quotient_gradient
from .loop_nests import loop, over, statement, vector
from .statement import Statement, View, variables
from .vector_loops import int64

TASK_ELEMENTS = 1024
"""Neighboring elements that a task should find at a time, where rows are short: a page."""

TASKS = 16
"""Tasks that there are, if there are as many channels, before they get more than a row at a time."""

LEVELS = 3
"""Sums of a lane that wait for one another; more take rows of 2**16 elements."""


def state(spec: QuotientGradientSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State the form of :func:`~fq_tvm.entry_points.quotient_gradient_entry_points`: a task for some channels."""
    del schedule  # decides about threads alone
    form = quotient_gradient_entry_points(spec)["run"]
    n = variables(form)
    outer, channels, inner = (n[name] for name in ("outer", "channels", "inner"))
    extents = {"divisor": channels, "by_divisor": channels}
    size = outer * channels * inner
    buffers = {name: tirx.decl_buffer((extents.get(name, size),), spec.dtype, name) for name in form.tensors}
    sums = buffers["by_divisor"]
    per = tirx.max(int64(1), tirx.min(TASK_ELEMENTS // inner, channels // TASKS))

    def task(t: Any) -> Any:
        first, count = t * per, tirx.min(per, channels - t * per)

        def clear(c: Any) -> Any:
            return tirx.BufferStore(sums, tirx.const(0.0, spec.dtype), [first + c])

        def row(o: Any, c: Any) -> Any:
            return _row(spec, buffers, first + c, (o * channels + first + c) * inner, inner)

        return tirx.SeqStmt([loop("c", count, clear), loop("o", outer, lambda o: loop("c", count, row, o))])

    views = [View(name, buffer) for name, buffer in buffers.items()]
    return {"run": [statement(form, views, n, loop("task", over(channels, per), task))]}


def _row(spec: QuotientGradientSpec, buffers: dict[str, Any], channel: Any, begin: Any, inner: Any) -> Any:
    """State a row: write its gradient, and add its sum to the channel's."""
    lanes, wide = spec.sum_lanes, spec.sum_lanes * SUM_VECTORS
    levels = [tirx.decl_buffer((wide,), spec.dtype, f"level{i}") for i in range(LEVELS)]
    total = tirx.decl_buffer((1,), spec.dtype, "total")
    zero = tirx.const(0.0, spec.dtype)
    chunks = inner // wide

    def element(at: Any, to: Any, place: Any) -> Any:
        """Write the gradient of an element of the row, and add what it gives the divisor to a sum."""
        divisor = tirx.BufferLoad(buffers["divisor"], [channel])
        at = begin + at
        by_x, by_divisor = quotient_gradient(buffers["self"][at], buffers["grad"][at], divisor)
        return tirx.SeqStmt([tirx.BufferStore(buffers["out"], by_x, [at]), _add(to, place, by_divisor)])

    def clear(buffer: Any) -> Any:
        return vector(wide, lambda v: tirx.BufferStore(buffer, zero, [v]))

    def rest(k: Any) -> Any:
        return vector(lanes, lambda v: element(chunks * wide + k * lanes + v, levels[0], v))

    def join(k: int) -> Any:
        return vector(lanes, lambda v: _add(levels[0], v, levels[0][k * lanes + v]))

    def move(source: Any, to: Any) -> Any:
        return tirx.SeqStmt([vector(wide, lambda v: _add(to, v, source[v])), clear(source)])

    def chunk(j: Any) -> Any:
        return vector(wide, lambda v: element(j * wide + v, levels[0], v))

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
        loop("tail", inner % lanes, lambda i: element(inner // lanes * lanes + i, total, int64(0))),
        *(_add(total, int64(0), levels[0][int64(v)]) for v in range(lanes)),
        _add(buffers["by_divisor"], channel, total[0]),
    ]  # fmt: skip
    return tirx.SeqStmt(steps)


def _add(sums: Any, at: Any, value: Any) -> Any:
    return tirx.BufferStore(sums, sums[at] + value, [at])

"""What the kernel of the gradient of a quotient computes, as loops: one pass, with torch's sum for each divisor."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..entry_points import quotient_gradient_entry_points
from ..schedule import Schedule
from ..spec import QuotientGradientSpec
from .expression import quotient_gradient
from .loop_nests import loop, over, statement
from .statement import Statement, View, variables
from .sums import channels_of_task, row_sum


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
    per = channels_of_task(channels, inner)

    def task(t: Any) -> Any:
        first, count = t * per, tirx.min(per, channels - t * per)

        def clear(c: Any) -> Any:
            return tirx.BufferStore(sums, tirx.const(0.0, spec.dtype), [first + c])

        def row(o: Any, c: Any) -> Any:
            channel, begin = first + c, (o * channels + first + c) * inner

            def element(at: Any) -> tuple[Any, Any]:
                at = begin + at
                divisor = buffers["divisor"][channel]
                by_x, by_divisor = quotient_gradient(buffers["self"][at], buffers["grad"][at], divisor)
                return tirx.BufferStore(buffers["out"], by_x, [at]), by_divisor

            def finish(total: Any) -> Any:
                return tirx.BufferStore(sums, sums[channel] + total, [channel])

            return row_sum(spec.sum_lanes, inner, element, finish, spec.dtype)

        return tirx.SeqStmt([loop("c", count, clear), loop("o", outer, lambda o: loop("c", count, row, o))])

    views = [View(name, buffer) for name, buffer in buffers.items()]
    return {"run": [statement(form, views, n, loop("task", over(channels, per), task))]}

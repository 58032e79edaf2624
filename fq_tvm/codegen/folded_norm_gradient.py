"""What the kernel of the gradient of batch norm after a quotient computes, stated as loops: a task for some channels.

Batch norm's gradient needs two sums of each channel before the first element of it; these and what follows of it have
the orders of torch's sums, of which there are two.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..entry_points import folded_norm_gradient_entry_points
from ..schedule import Schedule
from ..spec import FoldedNormGradientSpec
from .expression import fenced, fused, quotient_gradient
from .loop_nests import loop, over, statement, vector
from .statement import Statement, View, variables
from .sums import channels_of_task, row_sum
from .vector_loops import int64

MOST_CHANNELS = 64
"""Of a task: TVM keeps buffers below 1024 bytes on the stack, and asks a device for larger ones."""


def state(spec: FoldedNormGradientSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State the form of :func:`~fq_tvm.entry_points.folded_norm_gradient_entry_points`."""
    del schedule  # decides about threads alone
    form = folded_norm_gradient_entry_points(spec)["run"]
    n = variables(form)
    outer, channels, inner = (n[name] for name in ("outer", "channels", "inner"))
    size = outer * channels * inner
    whole = ("self", "grad", "out")
    tensors = {
        name: tirx.decl_buffer((size if name in whole else channels,), spec.dtype, name) for name in form.tensors
    }
    per = tirx.min(channels_of_task(channels, inner), MOST_CHANNELS)

    def task(t: Any) -> Any:
        return _Channels(spec, tensors, n, t * per, tirx.min(per, channels - t * per)).all()

    views = [View(name, buffer) for name, buffer in tensors.items()]
    return {"run": [statement(form, views, n, loop("task", over(channels, per), task))]}


class _Channels:
    """Some channels: the first, and how many, at most ``MOST_CHANNELS``."""

    def __init__(self, spec: Any, tensors: dict[str, Any], numbers: dict[str, Any], first: Any, count: Any) -> None:
        self.tensors, self.n, self.first, self.count = tensors, numbers, first, count
        self.lanes, self.dtype = spec.sum_lanes, spec.dtype
        self.inner = numbers["inner"]
        self.sums = [tirx.decl_buffer((MOST_CHANNELS,), "float64", name) for name in ("sums", "dots")]
        self.slope, self.offset = (tirx.decl_buffer((MOST_CHANNELS,), self.dtype, n) for n in ("slope", "offset"))
        self.lane_sums = [tirx.decl_buffer((self.lanes,), self.dtype, name) for name in ("lane_sum", "lane_dot")]

    def all(self) -> Any:
        steps = [
            *map(tirx.AllocBuffer, (*self.sums, self.slope, self.offset, *self.lane_sums)),
            self.for_each(self.clear),
            self.for_rows(self.reduce),
            self.for_each(self.finish),
            self.for_rows(self.differentiate),
        ]
        return tirx.SeqStmt(steps)

    def for_each(self, step: Any) -> Any:
        return loop("c", self.count, step)

    def for_rows(self, step: Any) -> Any:
        return loop("o", self.n["outer"], lambda o: loop("c", self.count, step, o))

    def of(self, name: str, c: Any) -> Any:
        return self.tensors[name][self.first + c]

    def store(self, name: str, c: Any, value: Any) -> Any:
        return tirx.BufferStore(self.tensors[name], value, [self.first + c])

    def begin(self, o: Any, c: Any) -> Any:
        return (o * self.n["channels"] + self.first + c) * self.inner

    def centered(self, c: Any, at: Any) -> Any:
        return self.tensors["self"][at] - self.of("mean", c)

    def clear(self, c: Any) -> Any:
        zero = tirx.const(0.0, "float64")
        cleared = [tirx.BufferStore(each, zero, [c]) for each in self.sums]
        return tirx.SeqStmt([*cleared, self.store("by_divisor", c, tirx.const(0.0, self.dtype))])

    def reduce(self, o: Any, c: Any) -> Any:
        """State the sums of a row, of what comes in and of that times what is centered, in vectors and by halves."""
        begin, inner, lanes = self.begin(o, c), self.inner, self.lanes

        def put(v: Any, dot: Any, plain: Any) -> Any:
            stores = zip(self.lane_sums, (plain, dot), strict=True)
            return tirx.SeqStmt([tirx.BufferStore(buffer, value, [v]) for buffer, value in stores])

        def first(v: Any) -> Any:
            grad = self.tensors["grad"][begin + v]
            return put(v, fenced(self.centered(c, begin + v) * grad), grad)

        def add(i: Any, v: Any) -> Any:
            grad, (plain, dot) = self.tensors["grad"][begin + i], (each[v] for each in self.lane_sums)
            return put(v, dot + fenced(self.centered(c, begin + i) * grad), plain + grad)

        def tail(v: Any) -> Any:
            """As torch has it, which fuses here and nowhere else."""
            at = begin + inner // lanes * lanes + v
            grad, (plain, dot) = self.tensors["grad"][at], (each[v] for each in self.lane_sums)
            return put(v, fused(self.centered(c, at), grad, dot), plain + grad)

        def halve(width: int) -> Any:
            plain, dot = self.lane_sums
            return vector(width, lambda v: put(v, dot[v] + dot[v + width], plain[v] + plain[v + width]))

        widths = [lanes >> k for k in range(1, lanes.bit_length())]
        rows = [
            vector(lanes, first),
            loop("j", inner // lanes - 1, lambda j: vector(lanes, lambda v: add((j + 1) * lanes + v, v))),
            loop("tail", inner % lanes, tail),
            *map(halve, widths),
        ]
        short = [first(int64(0)), loop("i", inner - 1, lambda i: add(i + 1, int64(0)))]
        sums = zip(self.sums, self.lane_sums, strict=True)
        steps = [
            tirx.IfThenElse(inner < lanes, tirx.SeqStmt(short), tirx.SeqStmt(rows)),
            *(tirx.BufferStore(to, to[c] + each[int64(0)].astype("float64"), [c]) for to, each in sums),
        ]
        return tirx.SeqStmt(steps)

    def finish(self, c: Any) -> Any:
        """State what follows of the sums of a channel."""
        total, dot = (each[c] for each in self.sums)
        count, inverse = self.n["outer"] * self.inner, self.of("inverse", c)
        slope = dot.astype("float32") * inverse * inverse / count.astype("float32")
        return tirx.SeqStmt(
            [
                self.store("by_gamma", c, (dot * inverse.astype("float64")).astype("float32")),
                self.store("by_beta", c, total.astype("float32")),
                tirx.BufferStore(self.slope, slope, [c]),
                tirx.BufferStore(self.offset, (total / count.astype("float64")).astype("float32"), [c]),
            ]
        )

    def differentiate(self, o: Any, c: Any) -> Any:
        begin, sums = self.begin(o, c), self.tensors["by_divisor"]

        def element(at: Any) -> tuple[Any, Any]:
            at = begin + at
            negated = self.centered(c, at) * tirx.const(-1.0, self.dtype)
            straight = fused(negated, self.slope[c], self.tensors["grad"][at] - self.offset[c])
            by_quotient = straight * self.of("inverse", c) * self.of("gamma", c)
            by_x, by_divisor = quotient_gradient(self.tensors["self"][at], by_quotient, self.of("divisor", c))
            return tirx.BufferStore(self.tensors["out"], by_x, [at]), by_divisor

        def finish(total: Any) -> Any:
            return tirx.BufferStore(sums, sums[self.first + c] + total, [self.first + c])

        return row_sum(self.lanes, self.inner, element, finish, self.dtype)

"""What the kernel of the gradient by x, scale and zero point computes: one pass over x and grad, stated as loops.

Like :mod:`fq_tvm.codegen.ranges` it keeps sums in registers.  Unlike extremes, sums of floats depend on their order: so
the order is written down here, in lanes of a fixed number, and no element is taken twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tvm import tirx

from ..entry_points import RANGE_TILE, Form, Workspace, learnable_gradient_entry_points
from ..schedule import Schedule
from ..spec import LearnableGradientSpec
from .expression import Learned, QuantRange, learnable_gradient
from .loop_nests import loop, nest, statement, vector
from .statement import Statement, View, variables
from .vector_loops import int64

LANES = 16
"""Sums that are kept side by side."""


def state(spec: LearnableGradientSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State the forms of :func:`~fq_tvm.entry_points.learnable_gradient_entry_points`."""
    del schedule  # its tasks are the launch's to choose
    points = learnable_gradient_entry_points(spec)
    workspace = points.workspace
    assert workspace is not None
    states = _lanes if spec.lanes else _rows
    return {"run": [states(points["run"], workspace)], "combine": [_combine(points["combine"], workspace)]}


class _Tensors:
    """The tensors of a form that makes gradients, dense, and what it does with an element of them."""

    def __init__(self, numbers: dict[str, Any], size: Any) -> None:
        self.x, self.grad, self.out = (tirx.decl_buffer((size,), "float32", name) for name in ("x", "grad", "out"))
        channels = numbers["channels"]
        self.scale, self.zero_point = (tirx.decl_buffer((channels,), "float32", n) for n in ("scale", "zero_point"))
        self.quant_range, self.factor = QuantRange(numbers["quant_min"], numbers["quant_max"]), numbers["factor"]

    @property
    def views(self) -> list[View]:
        """Where they lie."""
        tensors = {"self": self.x, "grad": self.grad, "scale": self.scale, "zero_point": self.zero_point}
        return [View(name, buffer) for name, buffer in {**tensors, "out": self.out}.items()]

    def channel(self, c: Any) -> Learned:
        """Return the parameters of a channel."""
        scale, zero_point = tirx.BufferLoad(self.scale, [c]), tirx.BufferLoad(self.zero_point, [c])
        return Learned(scale, tirx.const(1.0, "float32") / scale, zero_point, self.factor)

    def element(self, at: Any, channel: Learned, sums: Sequence[Any], place: Any) -> Any:
        """Write the gradient by an element of x, and add the other two to sums."""
        by_x, *others = learnable_gradient(self.x[at], self.grad[at], channel, self.quant_range)
        return tirx.SeqStmt([tirx.BufferStore(self.out, by_x, [at]), *_add(sums, place, others)])


def _rows(form: Form, workspace: Workspace) -> Statement:
    """State a task for each channel and share of its rows; sums are float64, as there may be many in a lane."""
    n = variables(form)
    channels, inner, per, pieces, length = (n[name] for name in ("channels", "inner", "per", "pieces", "length"))
    tensors = _Tensors(n, n["outer"] * channels * inner)
    found, views = _partial(workspace, n["parts"] * pieces * channels)
    sums = [tirx.decl_buffer((LANES,), "float64", name) for name in workspace.vectors]

    def task(t: Any) -> Any:
        share, c = t // channels, t % channels
        first, start = share // pieces * per, share % pieces * length
        extent = tirx.min(length, inner - start)
        channel = tensors.channel(c)

        def row(o: Any) -> Any:
            begin = ((first + o) * channels + c) * inner + start
            whole = extent // LANES

            def step(j: Any) -> Any:
                return vector(LANES, lambda v: tensors.element(begin + j * LANES + v, channel, sums, v))

            def single(i: Any) -> Any:
                return tensors.element(begin + whole * LANES + i, channel, sums, int64(0))

            return tirx.SeqStmt([loop("j", whole, step), loop("tail", extent % LANES, single)])

        steps = [vector(LANES, lambda v: _clear(sums, v)), loop("o", tirx.min(per, n["outer"] - first), row)]
        width = LANES
        while width > 1:
            width //= 2
            steps.append(vector(width, partial(_fold, sums, width)))
        return tirx.SeqStmt([*map(tirx.AllocBuffer, sums), *steps, *_store(found, t, [s[0] for s in sums])])

    body = loop("task", n["parts"] * pieces * channels, task)
    return statement(form, [*tensors.views, *views], n, body)


def _lanes(form: Form, workspace: Workspace) -> Statement:
    """State a task for each tile of channels and share of the rows; sums of a tile stay in the first-level cache."""
    n = variables(form)
    channels, per, tiles = (n[name] for name in ("channels", "per", "tiles"))
    tensors = _Tensors(n, n["outer"] * channels)
    found, views = _partial(workspace, n["parts"] * channels)

    def task(t: Any) -> Any:
        part, tile = t // tiles, t % tiles * RANGE_TILE
        extent, first = tirx.min(int64(RANGE_TILE), channels - tile), part * per
        begin, whole = part * channels + tile, extent // LANES

        def row(o: Any) -> Any:
            def lane(v: Any) -> Any:
                return tensors.element((first + o) * channels + tile + v, tensors.channel(tile + v), found, begin + v)

            return tirx.SeqStmt(
                [
                    loop("j", whole, lambda j: vector(LANES, lambda v: lane(j * LANES + v))),
                    loop("tail", extent % LANES, lambda i: lane(whole * LANES + i)),
                ]
            )

        clear = loop("v", extent, lambda v: _clear(found, begin + v))
        return tirx.SeqStmt([clear, loop("o", tirx.min(per, n["outer"] - first), row)])

    body = loop("task", n["parts"] * tiles, task)
    return statement(form, [*tensors.views, *views], n, body)


def _combine(form: Form, workspace: Workspace) -> Statement:
    """State how the sums of the shares are added up, a task for each channel."""
    n = variables(form)
    shares, copies, channels, inner = (n[name] for name in ("shares", "copies", "channels", "inner"))
    found, views = _partial(workspace, shares * copies * channels * inner)
    results = [tirx.decl_buffer((channels,), "float32", name) for name in form.results]
    sums = [tirx.decl_buffer((1,), "float64", name) for name in workspace.vectors]

    def task(c: Any) -> Any:
        def add(share: Any, copy: Any, i: Any) -> Any:
            at = ((share * copies + copy) * channels + c) * inner + i
            return tirx.SeqStmt(_add(sums, 0, [f[at] for f in found]))

        steps = [_clear(sums, 0), nest([shares, copies, inner], add), *_store(results, c, [s[0] for s in sums])]
        return tirx.SeqStmt([*map(tirx.AllocBuffer, sums), *steps])

    named = zip(form.results, results, strict=True)
    body = loop("task", channels, task)
    return statement(form, [*views, *(View(name, buffer) for name, buffer in named)], n, body)


def _store(buffers: Sequence[Any], at: Any, values: Sequence[Any]) -> list[Any]:
    pairs = zip(buffers, values, strict=True)
    return [tirx.BufferStore(buffer, value.astype(str(buffer.dtype)), [at]) for buffer, value in pairs]


def _add(sums: Sequence[Any], at: Any, values: Sequence[Any]) -> list[Any]:
    pairs = zip(sums, values, strict=True)
    return _store(sums, at, [buffer[at] + value.astype(str(buffer.dtype)) for buffer, value in pairs])


def _fold(sums: Sequence[Any], width: int, lane: Any) -> Any:
    """Add to a lane what lies so many lanes further."""
    return tirx.SeqStmt(_add(sums, lane, [each[lane + width] for each in sums]))


def _clear(sums: Sequence[Any], at: Any) -> Any:
    return tirx.SeqStmt(_store(sums, at, [tirx.const(0.0, "float64")] * len(sums)))


def _partial(workspace: Workspace, extent: Any) -> tuple[Sequence[Any], list[View]]:
    """Return the buffers of the shares' sums, and where they lie in the workspace."""
    buffers = [tirx.decl_buffer((extent,), "float32", name) for name in workspace.vectors]
    starts = (workspace.start(name, extent) for name in workspace.vectors)
    return buffers, [View("workspace", buffer, start) for buffer, start in zip(buffers, starts, strict=True)]

"""What the kernels of a range compute: each form of a class, stated as loops on symbolic extents.

A reduction keeps what it has so far in registers from one row to the next, which a schedule of TE stages does not
express for several results.  So the loops are written out here, the outermost of which are the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tvm import tirx

from ..entry_points import LOOPS, RANGE_TILE, RANGE_VECTOR, Form, Workspace, range_entry_points
from ..layout import MAX_RANK
from ..schedule import Schedule
from ..spec import RangeSpec
from .expression import Extremes, extremes_of, range_of
from .loop_nests import loop, nest, over, statement, vector
from .statement import Statement, View, variables
from .vector_loops import int64

BLOCK = 64
"""Channels whose partial results are put together at a time."""

TOGETHER = 8
"""Runs of lanes that are taken at a time, so that what is kept goes to memory and back once for them."""


def state(spec: RangeSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State what a kernel of the range computes: the forms of :func:`~fq_tvm.entry_points.range_entry_points`."""
    del schedule  # its tasks are the launch's to choose
    points = range_entry_points(spec)
    workspace = points.workspace
    assert workspace is not None
    if spec.strided:
        stated = {"run": [(_strided_lanes if spec.lanes else _strided_rows)(spec, points["run"], workspace)]}
    else:
        vectors, states = {"run": RANGE_VECTOR, "short": 1}, _lanes if spec.lanes else _rows
        stated = {name: [states(spec, points[name], workspace, lanes)] for name, lanes in vectors.items()}
    return {**stated, "combine": [_combine(spec, points["combine"], workspace)]}


def _rows(spec: RangeSpec, form: Form, workspace: Workspace, lanes: int) -> Statement:
    """State a task for each channel and share of its rows; what vectors would leave over, the last one has twice."""
    n = variables(form)
    channels, inner, per, pieces, length = (n[name] for name in ("channels", "inner", "per", "pieces", "length"))
    x = _dense(spec, n["outer"] * channels * inner)
    found, views = _partial(spec, workspace, n["parts"] * pieces * channels)
    kept = _Kept(spec, lanes)

    def task(t: Any) -> list[Any]:
        share = t // channels
        first = share // pieces * per
        start = tirx.min(share % pieces * length, inner - length)

        def step(o: Any, j: Any) -> Any:
            row = ((first + o) * channels + t % channels) * inner + start
            where = row + tirx.min(j * lanes, length - lanes)
            return kept.each(lanes, lambda v: extremes_of(x[where + v]))

        steps = [
            kept.clear(lanes),
            loop("o", tirx.min(per, n["outer"] - first), lambda o: loop("j", over(length, lanes), step, o)),
        ]
        width = lanes
        while width > 1:
            width //= 2
            steps.append(kept.each(width, partial(kept.beyond, width)))
        return [*steps, *_store(found, t, kept[0])]

    body = loop("task", n["parts"] * pieces * channels, lambda t: kept.around(task(t)))
    return statement(form, [View("self", x), *views], n, body)


def _lanes(spec: RangeSpec, form: Form, workspace: Workspace, lanes: int) -> Statement:
    """State a task for each tile of a run and share of the runs; the last run begins where it ends with x.

    Within a tile, what vectors would leave over, the last one has twice.
    """
    n = variables(form)
    size, run, per, tiles = (n[name] for name in ("size", "run", "per", "tiles"))
    x = _dense(spec, size)
    found, views = _partial(spec, workspace, n["parts"] * run)
    kept = _Kept(spec, lanes)

    def task(t: Any) -> list[Any]:
        first, tile = t // tiles * per, t % tiles * (run // tiles)
        # The last tile has what the others leave, so that none is shorter than a vector.
        extent = tirx.Select(t % tiles + 1 < tiles, run // tiles, run - tile)
        share = tirx.min(per, over(size, run) - first)

        def some(b: Any, c: Any) -> Any:
            lane = tile + tirx.min(c * lanes, extent - lanes)
            place = t // tiles * run + lane

            def row(k: Any) -> Any:
                where = tirx.min((first + b * TOGETHER + k) * run, size - run) + lane
                return kept.each(lanes, lambda v: extremes_of(x[where + v]))

            load = vector(lanes, lambda v: tirx.SeqStmt(kept.store(v, _load(found, place + v))))
            store = vector(lanes, lambda v: tirx.SeqStmt(_store(found, place + v, kept[v])))
            # Of an extent that LLVM does not know: it would take all rows of a constant one at a time, and spill.
            rows = loop("k", tirx.min(int64(TOGETHER), share - b * TOGETHER), row)
            return tirx.SeqStmt([tirx.IfThenElse(tirx.EQ(b, int64(0)), kept.clear(lanes), load), rows, store])

        return [loop("b", over(share, TOGETHER), lambda b: loop("c", over(extent, lanes), some, b))]

    body = loop("task", n["parts"] * tiles, lambda t: kept.around(task(t)))
    return statement(form, [View("self", x), *views], n, body)


def _strided_rows(spec: RangeSpec, form: Form, workspace: Workspace) -> Statement:
    """State a task for each channel and share of the first loop."""
    n = variables(form)
    x, strides = _strided(spec, n)
    *outer, channels, inner = (n[name] for name in LOOPS)
    found, views = _partial(spec, workspace, n["parts"] * channels)
    kept = _Kept(spec, 1)

    def task(t: Any) -> list[Any]:
        first = t // channels * n["per"]

        def element(*index: Any) -> Any:
            at = (first + index[0], *index[1:-1], t % channels, index[-1])
            return kept.each(1, lambda _: extremes_of(x[at]))

        extents = [tirx.min(n["per"], outer[0] - first), *outer[1:], inner]
        return [kept.clear(1), nest(extents, element), *_store(found, t, kept[0])]

    body = loop("task", n["parts"] * channels, lambda t: kept.around(task(t)))
    return statement(form, [View("self", x, 0, strides), *views], n, body)


def _strided_lanes(spec: RangeSpec, form: Form, workspace: Workspace) -> Statement:
    """State a task for each tile of channels and share of the first loop."""
    n = variables(form)
    x, strides = _strided(spec, n)
    *outer, channels = (n[name] for name in LOOPS)
    found, views = _partial(spec, workspace, n["parts"] * channels)

    def task(t: Any) -> list[Any]:
        part, tile = t // n["tiles"], t % n["tiles"] * RANGE_TILE
        extent, first = tirx.min(int64(RANGE_TILE), channels - tile), part * n["per"]
        begin = part * channels + tile

        def element(*index: Any) -> Any:
            at = (first + index[0], *index[1:-1], tile + index[-1])
            place = begin + index[-1]
            return tirx.SeqStmt(_store(found, place, _load(found, place).union(extremes_of(x[at]))))

        clear = loop("v", extent, lambda v: tirx.SeqStmt(_store(found, begin + v, Extremes.none(spec.bits))))
        return [clear, nest([tirx.min(n["per"], outer[0] - first), *outer[1:], extent], element)]

    body = loop("task", n["parts"] * n["tiles"], lambda t: tirx.SeqStmt(task(t)))
    return statement(form, [View("self", x, 0, strides), *views], n, body)


def _combine(spec: RangeSpec, form: Form, workspace: Workspace) -> Statement:
    """State how the partial results of a channel become its range, a task for each block of channels."""
    n = variables(form)
    shares, copies, channels, inner = (n[name] for name in ("shares", "copies", "channels", "inner"))
    found, views = _partial(spec, workspace, shares * copies * channels * inner)
    results = [tirx.decl_buffer((channels,), f"uint{spec.bits}", name) for name in ("least", "greatest")]
    kept = _Kept(spec, BLOCK)

    def task(t: Any) -> list[Any]:
        first = t * BLOCK
        extent = tirx.min(int64(BLOCK), channels - first)

        def lanes(share: Any, copy: Any, i: Any) -> Any:
            def lane(v: Any) -> Any:
                at = ((share * copies + copy) * channels + first + v) * inner + i
                return tirx.SeqStmt(kept.store(v, kept[v].union(_load(found, at))))

            return loop("v", extent, lane)

        def result(v: Any) -> Any:
            values = range_of(kept[v], spec.dtype)
            return tirx.SeqStmt(
                [tirx.BufferStore(r, value, [first + v]) for r, value in zip(results, values, strict=True)]
            )

        # Kept on the stack, which is not as aligned as TVM takes vectors for.
        clear = loop("v", extent, lambda v: tirx.SeqStmt(kept.store(v, Extremes.none(spec.bits))))
        return [clear, nest([shares, copies, inner], lanes), loop("v", extent, result)]

    body = loop("task", over(channels, BLOCK), lambda t: kept.around(task(t)))
    named = zip(("least", "greatest"), results, strict=True)
    return statement(form, [*views, *(View(name, buffer) for name, buffer in named)], n, body)


class _Kept:
    """What a task has seen so far, in registers: extremes of several lanes."""

    def __init__(self, spec: RangeSpec, lanes: int) -> None:
        self.bits = spec.bits
        self.buffers = [
            tirx.decl_buffer((lanes,), dtype, f"kept_{name}")  # up to 1 KB is put on the stack
            for name, dtype in zip(Extremes._fields, Extremes.dtypes(spec.bits), strict=True)
        ]

    def __getitem__(self, lane: Any) -> Extremes:
        return _load(self.buffers, lane)

    def beyond(self, width: int, lane: Any) -> Extremes:
        """Return what lies so many lanes further."""
        return self[lane + width]

    def store(self, lane: Any, value: Extremes) -> list[Any]:
        return _store(self.buffers, lane, value)

    def clear(self, lanes: int) -> Any:
        return vector(lanes, lambda v: tirx.SeqStmt(self.store(v, Extremes.none(self.bits))))

    def each(self, lanes: int, value: Callable[[Any], Extremes]) -> Any:
        """Take in a value for each of the first lanes."""
        return vector(lanes, lambda v: tirx.SeqStmt(self.store(v, self[v].union(value(v)))))

    def around(self, steps: Sequence[Any]) -> Any:
        """Allocate for the steps of a task."""
        return tirx.SeqStmt([*(tirx.AllocBuffer(buffer) for buffer in self.buffers), *steps])


def _load(buffers: Sequence[Any], at: Any) -> Extremes:
    return Extremes(*(tirx.BufferLoad(buffer, [at]) for buffer in buffers))


def _store(buffers: Sequence[Any], at: Any, value: Extremes) -> list[Any]:
    return [tirx.BufferStore(buffer, each, [at]) for buffer, each in zip(buffers, value, strict=True)]


def _dense(spec: RangeSpec, size: Any) -> Any:
    return tirx.decl_buffer((size,), f"uint{spec.bits}", "x")


def _strided(spec: RangeSpec, numbers: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    x = tirx.decl_buffer([numbers[name] for name in LOOPS], f"uint{spec.bits}", "x")
    return x, tuple(numbers[f"self_stride{i}"] for i in range(MAX_RANK))


def _partial(spec: RangeSpec, workspace: Workspace, extent: Any) -> tuple[list[Any], list[View]]:
    """Return the buffers of partial results, and where they lie in the workspace."""
    dtypes = Extremes.dtypes(spec.bits)
    buffers = [tirx.decl_buffer((extent,), d, name) for name, d in zip(workspace.vectors, dtypes, strict=True)]
    starts = (workspace.start(name, extent) * (32 // spec.bits) for name in workspace.vectors)
    return buffers, [View("workspace", buffer, start) for buffer, start in zip(buffers, starts, strict=True)]

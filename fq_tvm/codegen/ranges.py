"""What the kernels of a range compute: each form of a class, stated as loops on symbolic extents.

A reduction keeps what it has so far in registers from one row to the next, which a schedule of TE stages does not
express for several results.  So the loops are written out here, the outermost of which are the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tvm import tirx

from ..entry_points import LINE, LOOPS, RANGE_TILE, RANGE_VECTOR, Form, Workspace, range_entry_points, range_scratch
from ..layout import MAX_RANK
from ..schedule import Schedule
from ..spec import RangeSpec
from .expression import Ends, Extremes, ends_of, extremes_of, range_of
from .loop_nests import loop, nest, over, statement, vector
from .statement import Statement, View, variables
from .vector_loops import int64

BLOCK = 64
"""Channels whose partial results are put together at a time."""

TOGETHER = {32: 7, 16: 8}
"""Runs of lanes that are taken at a time, by the bits of an element, so that what is kept goes to memory and back once.

Runs that lie a multiple of 4 KB apart share eight places of the first-level cache, and what is kept needs one.  Those
of 16 bits are taken at the pace of instructions, of which eight need fewer.
"""


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
    kept = _Kept(Extremes, spec.bits, lanes)

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

    Within a tile, what vectors would leave over, the last one has twice.  Until its last runs, a task keeps what it has
    where only it does, in the order in which it goes there: vectors a run apart would take one another's place in the
    first-level cache where a run is a power of two.
    """
    n, together = variables(form), TOGETHER[spec.bits]
    size, run, per, tiles = (n[name] for name in ("size", "run", "per", "tiles"))
    x = _dense(spec, size)
    found, views = _partial(spec, workspace, n["parts"] * run)
    own = range_scratch(run, tiles)
    aside = _buffers(Ends, spec.bits, n["parts"] * tiles * own, "aside")
    start = workspace.scratch(n["parts"] * run) * (32 // spec.bits)
    views += [View("workspace", buffer, start + i * lanes) for i, buffer in enumerate(aside)]
    kept = _Kept(Ends, spec.bits, lanes)

    def task(t: Any) -> list[Any]:
        first, tile = t // tiles * per, t % tiles * (run // tiles)
        # The last tile has what the others leave, so that none is shorter than a vector.
        extent = tirx.Select(t % tiles + 1 < tiles, run // tiles, run - tile)
        share = tirx.min(per, over(size, run) - first)

        def some(b: Any, c: Any) -> Any:
            lane = tile + tirx.min(c * lanes, extent - lanes)
            place, slot = t // tiles * run + lane, t * own + c * (len(aside) * lanes)

            def row(k: Any) -> Any:
                where = tirx.min((first + b * together + k) * run, size - run) + lane
                taken = kept.each(lanes, lambda v: ends_of(x[where + v], spec.bits))
                # The CPU sees a new stream in each row, and asks for too little of it.
                ahead = range(0, lanes, LINE * 32 // spec.bits) if lanes > 1 else ()
                return tirx.SeqStmt([*(_prefetch(x, where + together * run + v) for v in ahead), taken])

            load = vector(lanes, lambda v: tirx.SeqStmt(kept.store(v, _load(aside, slot + v))))
            keep = vector(lanes, lambda v: tirx.SeqStmt(_store(aside, slot + v, kept[v])))
            leave = vector(lanes, lambda v: tirx.SeqStmt(_store(found, place + v, kept[v].extremes(spec.bits))))
            # Of an extent that LLVM does not know: it would take all rows of a constant one at a time, and spill.
            rows = loop("k", tirx.min(int64(together), share - b * together), row)
            begin = tirx.IfThenElse(tirx.EQ(b, int64(0)), kept.clear(lanes), load)
            last = tirx.EQ(b + 1, over(share, together))
            return tirx.SeqStmt([begin, rows, tirx.IfThenElse(last, leave, keep)])

        return [loop("b", over(share, together), lambda b: loop("c", over(extent, lanes), some, b))]

    body = loop("task", n["parts"] * tiles, lambda t: kept.around(task(t)))
    return statement(form, [View("self", x), *views], n, body)


def _strided_rows(spec: RangeSpec, form: Form, workspace: Workspace) -> Statement:
    """State a task for each channel and share of the first loop."""
    n = variables(form)
    x, strides = _strided(spec, n)
    *outer, channels, inner = (n[name] for name in LOOPS)
    found, views = _partial(spec, workspace, n["parts"] * channels)
    kept = _Kept(Extremes, spec.bits, 1)

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
    kept = _Kept(Extremes, spec.bits, BLOCK)

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
    """What a task has seen so far, in registers: that of several lanes, of a kind."""

    def __init__(self, kind: type[Extremes | Ends], bits: int, lanes: int) -> None:
        self.bits, self.kind = bits, kind
        self.buffers = _buffers(kind, bits, lanes, "kept")  # up to 1 KB is put on the stack

    def __getitem__(self, lane: Any) -> Any:
        return _load(self.buffers, lane)

    def beyond(self, width: int, lane: Any) -> Any:
        """Return what lies so many lanes further."""
        return self[lane + width]

    def store(self, lane: Any, value: Extremes | Ends) -> list[Any]:
        return _store(self.buffers, lane, value)

    def clear(self, lanes: int) -> Any:
        return vector(lanes, lambda v: tirx.SeqStmt(self.store(v, self.kind.none(self.bits))))

    def each(self, lanes: int, value: Callable[[Any], Any]) -> Any:
        """Take in a value for each of the first lanes."""
        return vector(lanes, lambda v: tirx.SeqStmt(self.store(v, self[v].union(value(v)))))

    def around(self, steps: Sequence[Any]) -> Any:
        """Allocate for the steps of a task."""
        return tirx.SeqStmt([*(tirx.AllocBuffer(buffer) for buffer in self.buffers), *steps])


def _load(buffers: Extremes | Ends, at: Any) -> Any:
    return type(buffers)(*(tirx.BufferLoad(buffer, [at]) for buffer in buffers))


def _store(buffers: Extremes | Ends, at: Any, value: Extremes | Ends) -> list[Any]:
    return [tirx.BufferStore(buffer, each, [at]) for buffer, each in zip(buffers, value, strict=True)]


def _prefetch(x: Any, at: Any) -> Any:
    """Ask for a line for the second-level cache; there may be no memory."""
    hints = (tirx.const(hint, "int32") for hint in (0, 2, 1))  # to be read, some levels up, data
    return tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", tirx.address_of(x[at]), *hints))


def _dense(spec: RangeSpec, size: Any) -> Any:
    return tirx.decl_buffer((size,), f"uint{spec.bits}", "x")


def _strided(spec: RangeSpec, numbers: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    x = tirx.decl_buffer([numbers[name] for name in LOOPS], f"uint{spec.bits}", "x")
    return x, tuple(numbers[f"self_stride{i}"] for i in range(MAX_RANK))


def _buffers(kind: type[Extremes | Ends], bits: int, extent: Any, name: str) -> Any:
    """Return a buffer for each field of what is kept."""
    fields = zip(kind._fields, kind.dtypes(bits), strict=True)
    return kind(*(tirx.decl_buffer((extent,), dtype, f"{name}_{field}") for field, dtype in fields))


def _partial(spec: RangeSpec, workspace: Workspace, extent: Any) -> tuple[Extremes, list[View]]:
    """Return the buffers of partial results, and where they lie in the workspace."""
    found = _buffers(Extremes, spec.bits, extent, "found")
    starts = (workspace.start(name, extent) * (32 // spec.bits) for name in workspace.vectors)
    return found, [View("workspace", buffer, start) for buffer, start in zip(found, starts, strict=True)]

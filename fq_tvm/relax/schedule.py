"""The schedules of the CPU kernels, applied to functions of a graph that have the operator in them.

Such a function, of the operator and of what TVM fused with it, is read as one expression of an element, stated again on
the loops of its class, (outer, channels, inner), and scheduled like a kernel.  Extents are those of the graph.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir, te, tirx
from tvm.ir import TensorLoad

from ..codegen.calling_convention import redeclare
from ..codegen.llvm import is_known, resolve
from ..codegen.transforms import inline_parameters, schedule_loops, tighten
from ..codegen.vector_loops import in_blocks, in_pieces
from ..codegen.vector_loops import replace as substitute
from ..launch.choose import choose_dense
from ..launch.plan import CACHED_RUN_ELEMENTS, LINE_ELEMENTS, NONTEMPORAL_ROW_ELEMENTS, expansion, is_direct
from ..launch.registry import current_target
from ..layout import contiguous_class
from ..schedule import Schedule
from ..spec import FakeQuantSpec
from ..target import Target
from .elementwise import Elementwise, read
from .streaming import stream

MARK = "fq_tvm.fake_quant"
"""The annotation of the operator's stage, which fusion keeps: JSON of its specification and axis."""

STAGE = "fake_quant"

CHEAP = {"tirx.round", "tirx.fma", "tirx.reinterpret", "prim.if_then_else"}
"""Functions that have vectors."""


def is_for_cpu(target: Any) -> bool:
    """Whether functions for a target are scheduled here; for others they are left to the schedules of others."""
    return target is None or target.kind.name == "llvm"


def class_of(spec: FakeQuantSpec, channels: Any, inner: Any, size: Any, target: Any) -> tuple[FakeQuantSpec, Schedule]:
    """Decide how the loops of a dense tensor go; extents are integers or expressions."""
    return choose_dense(lambda iteration: replace(spec, iteration=iteration), channels, inner, size, _cpu_of(target))


def _cpu_of(target: Any) -> Target:
    """Return the CPU of a module's target as the kernels know it; the one at hand where it names none."""
    current = current_target()
    name = None if target is None else target.attrs.get("mcpu")
    if name is None or str(name) == current.cpu or not is_known(str(name)):
        return current
    return resolve(str(name))


@dataclass(frozen=True)
class Loops:
    """How the dimensions of the results become three loops.

    Parameters
    ----------
    outer, channels, inner : int or Expr
        Extents.
    dimensions : tuple of tuple of int
        The dimensions that each of them takes in, in order.
    """

    outer: Any
    channels: Any
    inner: Any
    dimensions: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def schedule(func: tirx.PrimFunc, target: Any) -> tuple[tirx.PrimFunc, tirx.PrimFunc | None]:
    """Schedule a function that has the operator in it, and perhaps element-wise stages before and after it.

    Parameters
    ----------
    func : tirx.PrimFunc
        Not scheduled.
    target : tvm.target.Target or None
        What the module is compiled for.

    Returns
    -------
    tirx.PrimFunc
        It computes the same bits, of tensors that need no more alignment than their elements; func itself where it has
        other stages, or no element.
    tirx.PrimFunc or None
        A function of addresses that writes past the caches, where so much is written that it pays.
    """
    given = read(func)
    marks = [json.loads(str(found[MARK])) for found in given.annotations if MARK in found] if given else []
    if not marks or given is None or math.prod(_static(given.shape)) == 0:
        return func, None
    spec, axis = FakeQuantSpec.from_json(marks[0]["spec"]), marks[0]["axis"]
    loops = _loops(given, axis)
    size = math.prod(_numbers(given.shape))
    spec, knobs = class_of(spec, loops.channels, loops.inner, size, target)
    restated = _Restated(func, given, loops)
    cpu = _cpu_of(target)
    streams = isinstance(size, int) and cpu.nontemporal_stores and restated.streams(spec, knobs, size)
    return restated.scheduled(spec, knobs, size, cpu.architecture if streams else "")


def _numbers(shape: Any) -> list[Any]:
    return [int(extent) if isinstance(extent, (int, tirx.IntImm)) else extent for extent in shape]


def _static(shape: Any) -> list[int]:
    return [extent for extent in _numbers(shape) if isinstance(extent, int)]


def _loops(given: Elementwise, axis: int | None) -> Loops:
    shape, rank = _numbers(given.shape), len(given.shape)

    def loops(*ends: int) -> Loops:
        first, second = ends
        dimensions = tuple(range(first)), tuple(range(first, second)), tuple(range(second, rank))
        outer, channels, inner = (math.prod(shape[d] for d in group) for group in dimensions)
        return Loops(outer, channels, inner, dimensions)

    if axis is not None and rank:
        return loops(axis, axis + 1)
    # Loads that do not go along all dimensions, as that of a bias, go along the last loop or stay the same in it.
    along = [[_uses(load, index) for index in given.index] for load in _all_loads(given)]
    last = rank
    while last and all(uses[last - 1] == uses[-1] for uses in along):
        last -= 1
    if contiguous_class(2, math.prod(shape[last:])) == "lanes" and last:
        return loops(last, rank)
    return loops(0, last)


def _divisor(number: int, most: int) -> int:
    """Return the largest divisor that is not above a bound."""
    return max(d for d in range(1, most + 1) if number % d == 0)


def _bytes(tensor: Any) -> int:
    return int(np.dtype(str(tensor.dtype)).itemsize)


def _uses(value: Any, variable: Any) -> bool:
    return any(variable.same_as(used) for used in tirx.analysis.undefined_vars(value, []))


def _all_loads(given: Elementwise) -> list[Any]:
    found: list[Any] = []
    for value in given.values.values():
        tvm_ffi.structural_walk(value, (TensorLoad, found.append))
    return found


class _Restated:
    """A function stated again on other loops.

    Parameters
    ----------
    func : tirx.PrimFunc
        The function.
    given : Elementwise
        What it computes.
    loops : Loops
        Its loops.
    """

    def __init__(self, func: tirx.PrimFunc, given: Elementwise, loops: Loops) -> None:
        self.func, self.given, self.loops = func, given, loops
        loads = _all_loads(given)
        self.inputs = [p for p in func.params if isinstance(p.ty, tirx.BufferType) and p not in given.values]
        self.whole = [p for p in self.inputs if all(self._is_whole(load) for load in loads if load.source.same_as(p))]
        self.elements = {p: te.var(f"{p.name}_element", str(p.dtype)) for p in self.whole}
        self.shape = _numbers(given.shape)

    def _is_whole(self, load: Any) -> bool:
        """Whether a load is that of the element that is computed."""
        same = len(load.indices) == len(self.given.index) and all(
            a.same_as(b) for a, b in zip(load.indices, self.given.index, strict=True)
        )
        return same and bool(tvm_ffi.structural_equal(tuple(load.source.shape), self.given.shape))

    def streams(self, spec: FakeQuantSpec, knobs: Schedule, size: int) -> bool:
        """Whether results are so large that they had better be written past the caches, and can be."""
        outer, channels, inner = self.loops.outer, self.loops.channels, self.loops.inner
        row = channels * inner if spec.lanes else inner if channels > 1 or outer > 1 else size
        lines = row % LINE_ELEMENTS == 0 or (not spec.lanes and row >= NONTEMPORAL_ROW_ELEMENTS[spec.out_dtype])
        moved = sum(_bytes(tensor) for tensor in (*self.whole, *self.given.values)) * size
        return bool(spec.nontemporal and lines and self.whole and moved >= knobs.stream_from and self._is_cheap())

    def _is_cheap(self) -> bool:
        """Whether every operation has vectors; others would be done element by element, and unrolled."""
        names: list[str] = []

        def call(found: Any) -> None:
            names.append(str(getattr(found.op, "name", "")))

        for value in self.given.values.values():
            tvm_ffi.structural_walk(value, (tvm.ir.Call, call))
        return set(names) <= CHEAP

    def scheduled(
        self, spec: FakeQuantSpec, knobs: Schedule, size: Any, streams: str
    ) -> tuple[tirx.PrimFunc, tirx.PrimFunc | None]:
        """State the function on the loops of its class and schedule it, twice where it streams."""
        outer, channels, inner = self.loops.outer, self.loops.channels, self.loops.inner
        extents: tuple[Any, ...] = (outer, channels, inner)
        form, run = "run", channels * inner
        position: Callable[..., Any] | None = None

        def places(*at: Any) -> tuple[Any, ...]:
            return at

        if spec.lanes and is_direct(outer, inner):
            form, extents = "direct", (outer, channels)

            def places(*at: Any) -> tuple[Any, ...]:
                return *at, 0

        elif spec.lanes and isinstance(run, int) and run <= CACHED_RUN_ELEMENTS:
            form, period, copies = "joined", run, max(knobs.run // run, 1)
            if streams:  # Whole runs: blocks of lines hide from TVM that positions begin again with each run.
                copies = _divisor(outer, copies)
            run = copies * period
            extents = (outer // copies, run) if streams else (size,)

            def places(*at: Any) -> tuple[Any, ...]:
                row, lane = (at[0] * copies, at[1]) if streams else (0, at[0])
                return row + tirx.truncdiv(lane, period), *self._lane(tirx.truncmod(lane, period))

            position = lambda *at: at[1] if streams else tirx.truncmod(at[0], run)  # noqa: E731
        elif spec.lanes:
            form, extents = "blocked", (outer, run)
            position = lambda *at: at[-1]  # noqa: E731

            def places(*at: Any) -> tuple[Any, ...]:
                return at[0], *self._lane(at[1])

        func = self._state(extents, places, run, position)
        sch = s_tir.Schedule(func)
        inline_parameters(sch, "repeat")
        if form in ("run", "direct"):
            tasks = schedule_loops(sch, STAGE, spec.iteration, form, (knobs.tile, knobs.rows))
        else:
            # What streams has an unrolled loop of a constant extent.
            exact = streams or (isinstance(outer, int) and outer < knobs.rows)
            together = _divisor(outer, knobs.rows) if exact else knobs.rows
            tasks = self._schedule_lanes(sch, spec, (knobs.tile, together), run if form == "joined" else None)
        if not isinstance(size, int) or size >= knobs.parallel_from:
            sch.parallel(sch.fuse(*tasks))
        made = tighten(sch.mod["main"]).without_attr("global_symbol")
        if not streams:
            made = self._with_shapes(in_blocks(made))
            # As in the kernels; nothing lies on an input here.
            pieces = not spec.lanes and not spec.wide and self._is_cheap()
            return in_pieces(made) if pieces else made, None
        own = dict(zip(self.func.params, made.params, strict=True))
        inputs, results = ([own[p] for p in tensors] for tensors in (self.whole, self.given.values))
        return self._with_shapes(made), stream(made, inputs, results, not spec.lanes, streams)

    def _lane(self, position: Any) -> tuple[Any, Any]:
        return tirx.truncdiv(position, self.loops.inner), tirx.truncmod(position, self.loops.inner)

    def _state(
        self, extents: tuple[Any, ...], places: Callable[..., Any], run: Any, position: Callable[..., Any] | None
    ) -> tirx.PrimFunc:
        """State the function on some loops.

        Parameters
        ----------
        extents : tuple of int or Expr
            Of the loops.
        places : callable
            Gives (outer, channel, inner) for the variables of the loops.
        run : int or Expr
            Length of the runs that parameters are repeated for.
        position : callable, optional
            Gives the position in a run for the variables of the loops.  None where parameters are read as they lie.
        """
        tensors = {}
        for p in self.inputs:
            shape = extents if p in self.elements else _numbers(p.shape)
            tensors[p] = te.placeholder(shape, str(p.dtype), p.name)
        o, c, i = variables = [te.var(name, "int64") for name in "oci"]
        values = [self._at(value, variables) for value in self.given.values.values()]
        vectors: list[tuple[Any, Any]] = []
        if position is not None:
            values = [_take_out(value, (c, i), vectors) for value in values]
        repeated: Any = ()
        if vectors:

            def repeat(v: Any) -> Any:
                channel, within = self._lane(v)
                at = {c: tirx.truncmod(channel, self.loops.channels), i: within}
                parts = tuple(self._loaded(vector, at, tensors) for _, vector in vectors)
                return parts if len(parts) > 1 else parts[0]

            repeated = te.compute((run,), repeat, name="repeat")
            repeated = [repeated] if len(vectors) == 1 else repeated

        def body(*index: Any) -> Any:
            at = dict(zip((o, c, i), places(*index), strict=True))
            if position is not None:
                names = (name for name, _ in vectors)
                at |= {name: tensor(position(*index)) for name, tensor in zip(names, repeated, strict=True)}
            at |= {element: tensors[p](*index) for p, element in self.elements.items()}
            parts = tuple(self._loaded(value, at, tensors) for value in values)
            return parts if len(parts) > 1 else parts[0]

        results = te.compute(extents, body, name=STAGE)
        results = dict(zip(self.given.values, [results] if len(values) == 1 else results, strict=True))
        arguments = [tensors.get(p, results.get(p, p)) for p in self.func.params]
        return te.create_prim_func(arguments, "int64")

    def _at(self, value: Any, variables: list[Any]) -> Any:
        """Put variables of the three loops in the place of the index, and one for what is read of each whole tensor."""

        def load(found: Any) -> Any:
            return self.elements.get(found.source, found)

        value = tvm_ffi.structural_map(value, (TensorLoad, load), order="post")
        at: dict[Any, Any] = {}
        for variable, dimensions in zip(variables, self.loops.dimensions, strict=True):
            left = variable
            for n, d in reversed(list(enumerate(dimensions))):
                at[self.given.index[d]] = tirx.truncmod(left, self.shape[d]) if n else left
                left = tirx.truncdiv(left, self.shape[d])
        return substitute(value, at)

    def _loaded(self, value: Any, at: dict[Any, Any], tensors: dict[Any, te.Tensor]) -> Any:
        """Put values in the place of variables, and loads from tensors in that of loads from parameters."""

        def load(found: Any) -> Any:
            return tensors[found.source](*found.indices)

        # First, as the values have loads of their own.
        return substitute(tvm_ffi.structural_map(value, (TensorLoad, load), order="post"), at)

    def _schedule_lanes(
        self, sch: s_tir.Schedule, spec: FakeQuantSpec, knobs: tuple[int, int], joined: Any
    ) -> list[Any]:
        """Expand what does not change from run to run once, then stream as the CPU kernels do; return the tasks.

        Runs that are short enough for their parameters to stay in the first-level cache are joined to a task each of
        so many elements, the last one shorter; of long ones as many as the second knob says are taken at a time.
        """
        channels, inner = self.loops.channels, self.loops.inner
        repeat = [b for b in sch.get_child_blocks(sch.get_sblock("root")) if sch.get(b).name_hint.startswith("repeat")]
        if repeat and isinstance(channels, int) and isinstance(inner, int) and inner > 1:
            # Without a division at every element; the longer loop is the one to vectorize.
            _, channel, within = sch.split(sch.get_loops(repeat[0])[0], [None, channels, inner])
            if expansion(inner) == "channels":
                sch.reorder(within, channel)
        if joined is not None:
            names = (STAGE, f"{STAGE}_v0")
            blocks = sch.get_child_blocks(sch.get_sblock("root"))
            (block,) = [block for block in blocks if sch.get(block).name_hint in names]
            first, *rest = sch.get_loops(block)
            return [first] if rest else [sch.split(first, [None, joined])[0]]
        return schedule_loops(sch, STAGE, spec.iteration, "blocked" if knobs[1] > 1 else "run", knobs)

    def _with_shapes(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        """Give a function of collapsed tensors parameters of the graph's shapes, with the alignment of an element.

        The virtual machine's own tensors are aligned to 64 bytes, a caller's inputs need not be.
        """
        params, declarations, views = [], [], {}
        for param, own in zip(self.func.params, func.params, strict=True):
            if not isinstance(param.ty, tirx.BufferType):
                params.append(own)
                continue
            dtype = str(param.dtype)
            given = tirx.decl_buffer(param.shape, dtype, param.name, data_alignment=1)
            view = tirx.decl_buffer(
                own.shape, dtype, f"{param.name}_view", data=given.data, data_alignment=1, layout=own.ty.layout
            )
            params.append(given)
            views[own] = view
            declarations.append(tirx.DeclBuffer(view, data=given.data))
        return redeclare(func, params, views, declarations)


def _take_out(value: Any, position: tuple[Any, Any], vectors: list[tuple[Any, Any]]) -> Any:
    """Put variables in the place of what depends on the position in a run alone; gather both."""

    def part(found: Any) -> Any:
        if not isinstance(found.ty, tvm.ir.PrimType):
            return found
        used = [v for v in tirx.analysis.undefined_vars(found, []) if not isinstance(v.ty, tirx.BufferType)]
        if not used or not all(any(map(v.same_as, position)) for v in used) or not _reads(found):
            return found
        for name, vector in vectors:
            if tvm_ffi.structural_equal(vector, found):
                return name
        vectors.append((te.var(f"vector{len(vectors)}", str(found.ty.dtype)), found))
        return vectors[-1][0]

    return tvm_ffi.structural_map(value, (tvm.ir.Expr, part), order="pre")


def _reads(value: Any) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(value, (TensorLoad, found.append))
    return bool(found)

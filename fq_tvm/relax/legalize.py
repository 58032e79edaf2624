"""From the Relax operator to a call of a scheduled kernel.

The expression and the schedule of rows are those of the CPU kernels, on extents of the graph: static ones are constants
of the kernel, and so is the quantization range.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, s_tir, te, tirx
from tvm.ir import Op
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..codegen.build import redeclare
from ..codegen.expression import ChannelParameters, QuantRange, channel_parameters, fold, quantize_dequantize
from ..launch import kernel
from ..layout import ROWS_MIN_INNER
from ..schedule import Schedule, apply, default_schedule, folds, inline_parameters, tighten
from ..spec import FakeQuantSpec, arithmetic_for
from ..store import records
from .op import NAME

__all__ = ["LegalizeFakeQuant", "legalize"]

KEPT = {"op_pattern": 8, "tirx.is_scheduled": True, "tirx.noalias": True}
"""Attributes of a function that fusion and scheduling passes leave as it is."""


def legalize(builder: Any, call: Any) -> Any:
    """Turn a call of the operator into a call of a kernel that is added to the builder's module.

    Parameters
    ----------
    builder : relax.BlockBuilder
        Of the module.
    call : relax.Call
        Of the operator.

    Returns
    -------
    relax.Expr
        The call itself where shapes are not known, not even as symbols: `R.match_cast` gives them names.
    """
    x, scale, zero_point = call.args
    if not all(isinstance(t.ty.shape, relax.ShapeExpr) and t.ty.dtype is not None for t in call.args):
        return call
    func = prim_func(
        [(tuple(t.ty.shape.values), str(t.ty.dtype.dtype)) for t in call.args],
        **{name: call.attrs[name] for name in ("axis", "quant_min", "quant_max", "nan")},
        target=tvm.target.Target.current(allow_none=True),
    )
    function = builder.add_func(func, "fake_quantize")
    return relax.call_tir(function, [x, scale, zero_point], list(call.ty.fields))


def prim_func(
    tensors: list[tuple[tuple[Any, ...], str]],
    axis: int | None,
    quant_min: int,
    quant_max: int,
    nan: str,
    target: Any,
) -> tirx.PrimFunc:
    """Make the kernel of a call.

    Parameters
    ----------
    tensors : list of (shape, dtype)
        Of x, scale and zero point; extents are integers or expressions.
    axis, quant_min, quant_max, nan : int or None, int, int, str
        The attributes of the call.
    target : tvm.target.Target or None
        What the module is compiled for.  Kernels for other than CPUs are left to the schedules of others.

    Returns
    -------
    tirx.PrimFunc
        Of x, scale, zero point, out and mask.
    """
    extents = _Extents()
    buffers = [(extents.rename(shape), dtype) for shape, dtype in tensors]
    (shape, dtype), (_, scale_dtype), (_, zero_point_dtype) = buffers
    split = 0 if axis is None else axis
    channels: Any = 1 if axis is None else shape[split] if shape else 1
    outer = _product(shape[:split])
    inner = _product(shape[split if axis is None else split + 1 :])
    quant_range = QuantRange.constant(quant_min, quant_max)
    size = _product(shape)
    empty = _is(size, 0)
    iteration = "lanes" if _short(inner) and not _is(channels, 1) and not empty else "rows"
    spec = FakeQuantSpec(iteration, dtype, scale_dtype, dtype, zero_point_dtype, arithmetic_for(quant_min, quant_max))
    schedule = _schedule(spec, target)
    parallel = not isinstance(size, int) or size >= schedule.parallel_from

    scale = te.placeholder((channels,), scale_dtype, "scale")
    zero_point = te.placeholder((channels,), zero_point_dtype, "zero_point")
    parameters = channel_parameters(scale, zero_point, spec.wide)
    loops: tuple[Any, ...] = (outer, channels, inner)
    name, run = "fake_quant", channels * inner
    if iteration == "lanes":
        if _is(inner, 1) and isinstance(outer, int) and outer <= kernel.DIRECT_OUTER:
            name, loops = "direct", (outer, channels)
        elif isinstance(run, int) and run <= kernel.CACHED_RUN:
            name, loops, run = "joined", (size,), max(schedule.run // run, 1) * run
            parameters = _look_up(_repeat(parameters, channels, inner, run), size)
        else:
            name, loops = "blocked", (outer, run)
            parameters = _repeat(parameters, channels, inner, run)
    x = te.placeholder(loops, dtype, "x")
    axis = min(1, len(loops) - 1)
    for_cpu = target is None or target.kind.name == "llvm"
    # Of lanes only rows of one channel: nothing here says beforehand whether every channel of a run may fold.
    folded = fold(parameters, quant_range) if for_cpu and iteration == "rows" and folds(spec) else None
    dtypes = (spec.promoted_dtype, spec.out_dtype)
    out, mask = quantize_dequantize(x, parameters, axis, quant_range, *dtypes, nan=nan, folded=folded)
    func = te.create_prim_func([x, scale, zero_point, out, mask], "int64")
    if for_cpu:
        if name in ("fake_quant", "direct"):
            func = func if empty else apply(func, spec, schedule, parallel, name)
        else:
            func = _apply_lanes(func, spec, schedule, loops, parallel, channels, inner, run)
        func = func.with_attrs(KEPT)
    return _with_shapes(func.without_attr("global_symbol"), [*buffers, (shape, dtype), (shape, "bool")])


class _Extents:
    """Extents of a function of its own: each symbolic one becomes a variable, equal ones the same."""

    def __init__(self) -> None:
        self.known: list[tuple[Any, Any]] = []

    def rename(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(self._rename(extent) for extent in shape)

    def _rename(self, extent: Any) -> Any:
        if isinstance(extent, (int, tirx.IntImm)):
            return int(extent)
        for seen, variable in self.known:
            if tvm_ffi.structural_equal(seen, extent):
                return variable
        variable = te.var(f"n{len(self.known)}", "int64")
        self.known.append((extent, variable))
        return variable


def _product(extents: tuple[Any, ...]) -> Any:
    return math.prod(extents, start=1)


def _is(extent: Any, value: int) -> bool:
    return isinstance(extent, int) and extent == value


def _short(inner: Any) -> bool:
    """Whether a channel's contiguous run is too short for a loop of its own; symbolic ones are taken for long."""
    return isinstance(inner, int) and inner < (records.rows_min_inner(kernel.current_target()) or ROWS_MIN_INNER)


def _schedule(spec: FakeQuantSpec, target: Any) -> Schedule:
    """Return the tuned schedule where the module is for the CPU that it was tuned on, else the default."""
    current = kernel.current_target()
    if target is not None and target.attrs.get("mcpu") == current.cpu:
        return kernel.schedule_for(spec, current)
    return default_schedule(spec)


def _repeat(parameters: ChannelParameters, channels: Any, inner: Any, run: Any) -> ChannelParameters:
    """Give each virtual channel of a run the parameters of its channel."""

    def look_up(v: Any) -> tuple[Any, ...]:
        channel = tirx.truncmod(tirx.truncdiv(v, inner), channels)
        return tuple(t[channel] for t in parameters)

    inverse_scale, zero_point, scale = te.compute((run,), look_up, name="repeat")
    return ChannelParameters(inverse_scale, zero_point, scale, parameters.float_zero_point)


def _look_up(run: ChannelParameters, size: Any) -> ChannelParameters:
    """State which virtual channel each element of a tensor belongs to; to be inlined."""

    def look_up(t: Any, name: str) -> Any:
        return te.compute((size,), lambda i: t[tirx.truncmod(i, t.shape[0])], name=name)

    inverse_scale, zero_point, scale = (look_up(t, f"look_up{n}") for n, t in enumerate(run))
    return ChannelParameters(inverse_scale, zero_point, scale, run.float_zero_point)


def _apply_lanes(
    func: tirx.PrimFunc,
    spec: FakeQuantSpec,
    schedule: Schedule,
    loops: tuple[Any, ...],
    parallel: bool,
    channels: Any,
    inner: Any,
    run: Any,
) -> tirx.PrimFunc:
    """Expand the parameters once, then stream as the CPU kernels do.

    Runs that are short enough for their parameters to stay in the first-level cache are a task each, the last one
    shorter; of long ones some are taken at a time.
    """
    sch = s_tir.Schedule(func)
    inline_parameters(sch)
    if isinstance(channels, int) and inner > 1:
        # Without a division at every element; the longer loop is the one to vectorize.
        _, channel, within = sch.split(sch.get_loops(sch.get_sblock("repeat_v0"))[0], [None, channels, inner])
        if kernel.expansion(inner) == "expand_channels":
            sch.reorder(within, channel)
    if len(loops) == 1:
        for n in range(3):
            sch.compute_inline(sch.get_sblock(f"look_up{n}"))
        task, _ = sch.split(sch.get_loops(sch.get_sblock("fake_quant_v0"))[0], [None, run])
        if parallel:
            sch.parallel(task)
        return tighten(sch.mod["main"])
    together = 1
    if isinstance(loops[0], int):
        together = max(d for d in range(1, schedule.rows + 1) if loops[0] % d == 0)
    name = "blocked" if together > 1 else "fake_quant"
    return apply(sch.mod["main"], spec, replace(schedule, rows=together), parallel, name)


def _with_shapes(func: tirx.PrimFunc, tensors: list[tuple[tuple[Any, ...], str]]) -> tirx.PrimFunc:
    """Give a function of collapsed tensors parameters of the graph's shapes, with the alignment of an element.

    The virtual machine's own tensors are aligned to 64 bytes, a caller's inputs need not be.
    """
    params, declarations, views = [], [], {}
    for param, (shape, dtype) in zip(func.params, tensors, strict=True):
        given = tirx.decl_buffer(shape, dtype, param.name, data_alignment=1)
        view = tirx.decl_buffer(
            param.shape, dtype, f"{param.name}_view", data=given.data, data_alignment=1, layout=param.ty.layout
        )
        params.append(given)
        views[param] = view
        declarations.append(tirx.DeclBuffer(view, data=given.data))
    return redeclare(func, params, views, declarations)


@mutator
class _Legalizer(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        return legalize(self.builder_, call) if isinstance(call.op, Op) and call.op.name == NAME else call


@tvm.transform.module_pass(opt_level=0, name="LegalizeFakeQuant")
class LegalizeFakeQuant:
    """Pass: turn every call of the operator into a call of a scheduled kernel, and leave the rest as it is.

    ``relax.transform.LegalizeOps`` does the same to the operator, among all others.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        """Apply the pass."""
        del ctx
        legalizer = _Legalizer(mod)
        for variable, func in mod.functions_items():
            if isinstance(func, relax.Function):
                legalizer.builder_.update_func(variable, legalizer.visit_expr(func))
        return legalizer.builder_.get()

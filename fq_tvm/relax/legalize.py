"""From the Relax operator to a call of a scheduled kernel.

The expression and the schedule of rows are those of the CPU kernels, on extents of the graph: static ones are constants
of the kernel, and so is the quantization range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, s_tir, te, tirx
from tvm.ir import Op
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..codegen.calling_convention import redeclare
from ..codegen.expression import ChannelParameters, QuantRange, channel_parameters, fold, quantize_dequantize
from ..codegen.llvm import is_known, resolve
from ..codegen.transforms import inline_parameters, schedule_loops, tighten
from ..entry_points import folds
from ..launch.choose import choose_dense
from ..launch.plan import CACHED_RUN_ELEMENTS, expansion, is_direct
from ..launch.registry import current_target
from ..schedule import Schedule
from ..spec import FakeQuantSpec, arithmetic_for
from ..target import Target
from .op import NAME, dtype_of, formula_of

KEPT_AS_IT_IS = {"op_pattern": 8, "tirx.is_scheduled": True, "tirx.noalias": True}
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
    if not all(isinstance(t.ty.shape, relax.ShapeExpr) and t.ty.dtype is not None for t in call.args):
        return call
    tensors = [(tuple(t.ty.shape.values), dtype_of(t)) for t in call.args]
    func = prim_func(tensors, call.attrs, tvm.target.Target.current(allow_none=True))
    return relax.call_tir(builder.add_func(func, "fake_quantize"), list(call.args), list(call.ty.fields))


def prim_func(tensors: list[tuple[tuple[Any, ...], str]], attributes: Mapping[str, Any], target: Any) -> tirx.PrimFunc:
    """Make the kernel of a call.

    Parameters
    ----------
    tensors : list of (shape, dtype)
        Of x, scale and zero point; extents are integers or expressions.
    attributes : mapping
        ``axis``, ``quant_min``, ``quant_max`` of the call, and what it says of its formula.
    target : tvm.target.Target or None
        What the module is compiled for.  Kernels for other than CPUs are left to the schedules of others.

    Returns
    -------
    tirx.PrimFunc
        Of x, scale, zero point, out and mask.
    """
    known: dict[Any, Any] = {}
    buffers = [(tuple(_own_extent(extent, known) for extent in shape), dtype) for shape, dtype in tensors]
    (shape, dtype), (_, scale_dtype), (_, zero_point_dtype) = buffers
    axis, quant_min, quant_max = (attributes[name] for name in ("axis", "quant_min", "quant_max"))
    split = 0 if axis is None else axis
    channels: Any = 1 if axis is None else shape[split] if shape else 1
    outer, inner = math.prod(shape[:split]), math.prod(shape[split if axis is None else split + 1 :])
    quant_range = QuantRange.constant(quant_min, quant_max)
    size = math.prod(shape)
    arithmetic = arithmetic_for(quant_min, quant_max)
    formula = vars(formula_of(attributes))

    def make_spec(iteration: str) -> FakeQuantSpec:
        return FakeQuantSpec(iteration, dtype, scale_dtype, dtype, zero_point_dtype, arithmetic, **formula)

    spec, schedule = choose_dense(make_spec, channels, inner, size, _cpu_of(target))

    scale = te.placeholder((channels,), scale_dtype, "scale")
    zero_point = te.placeholder((channels,), zero_point_dtype, "zero_point")
    parameters = channel_parameters(scale, zero_point, spec.wide, spec.formula)
    loops: tuple[Any, ...] = (outer, channels, inner)
    name, run = "run", channels * inner
    if spec.lanes:
        if is_direct(outer, inner):
            name, loops = "direct", (outer, channels)
        elif isinstance(run, int) and run <= CACHED_RUN_ELEMENTS:
            name, loops, run = "joined", (size,), max(schedule.run // run, 1) * run
            parameters = _look_up(_repeat(parameters, channels, inner, run), size)
        else:
            name, loops = "blocked", (outer, run)
            parameters = _repeat(parameters, channels, inner, run)
    x = te.placeholder(loops, dtype, "x")
    along = min(1, len(loops) - 1)
    for_cpu = target is None or target.kind.name == "llvm"
    # Of lanes only rows of one channel: nothing here says beforehand whether every channel of a run may fold.
    folded = fold(parameters, quant_range) if for_cpu and not spec.lanes and folds(spec) else None
    dtypes = (spec.promoted_dtype, spec.out_dtype)
    out, mask = quantize_dequantize(x, parameters, along, quant_range, dtypes, folded=folded)
    func = te.create_prim_func([x, scale, zero_point, out, mask], "int64")
    if for_cpu:
        if not (isinstance(size, int) and not size):
            sch = s_tir.Schedule(func)
            inline_parameters(sch, "repeat")
            if name in ("run", "direct"):
                tasks = schedule_loops(sch, "fake_quant", spec.iteration, name, (schedule.tile, schedule.rows))
            else:
                tasks = _schedule_lanes(sch, spec, schedule, loops, (channels, inner, run))
            if not isinstance(size, int) or size >= schedule.parallel_from:
                sch.parallel(sch.fuse(*tasks))
            func = tighten(sch.mod["main"])
        func = func.with_attrs(KEPT_AS_IT_IS)
    return _with_shapes(func.without_attr("global_symbol"), [*buffers, (shape, dtype), (shape, "bool")])


def _own_extent(extent: Any, known: dict[Any, Any]) -> Any:
    """Return an extent of a function of its own: a symbolic one becomes a variable, equal ones the same."""
    if isinstance(extent, (int, tirx.IntImm)):
        return int(extent)
    key = tvm_ffi.StructuralKey(extent)  # type: ignore[call-arg]
    return known.setdefault(key, te.var(f"n{len(known)}", "int64"))


def _cpu_of(target: Any) -> Target:
    """Return the CPU of a module's target as the kernels know it; the one at hand where it names none."""
    current = current_target()
    name = None if target is None else target.attrs.get("mcpu")
    if name is None or str(name) == current.cpu or not is_known(str(name)):
        return current
    return resolve(str(name))


def _repeat(parameters: ChannelParameters, channels: Any, inner: Any, run: Any) -> ChannelParameters:
    """Give each virtual channel of a run the parameters of its channel."""

    def look_up(v: Any) -> tuple[Any, ...]:
        channel = tirx.truncmod(tirx.truncdiv(v, inner), channels)
        return tuple(t[channel] for t in parameters)

    return parameters.of(te.compute((run,), look_up, name="repeat"))


def _look_up(run: ChannelParameters, size: Any) -> ChannelParameters:
    """State which virtual channel each element of a tensor belongs to; to be inlined."""

    def look_up(t: Any, name: str) -> Any:
        return te.compute((size,), lambda i: t[tirx.truncmod(i, t.shape[0])], name=name)

    return run.of([look_up(t, f"look_up{n}") for n, t in enumerate(run)])


def _schedule_lanes(
    sch: s_tir.Schedule, spec: FakeQuantSpec, schedule: Schedule, loops: tuple[Any, ...], run: tuple[Any, Any, Any]
) -> list[Any]:
    """Expand the parameters once, then stream as the CPU kernels do; return the tasks.

    Runs that are short enough for their parameters to stay in the first-level cache are a task each, the last one
    shorter; of long ones some are taken at a time.
    """
    channels, inner, elements = run
    if isinstance(channels, int) and inner > 1:
        # Without a division at every element; the longer loop is the one to vectorize.
        _, channel, within = sch.split(sch.get_loops(sch.get_sblock("repeat_v0"))[0], [None, channels, inner])
        if expansion(inner) == "channels":
            sch.reorder(within, channel)
    if len(loops) == 1:
        task, _ = sch.split(sch.get_loops(sch.get_sblock("fake_quant_v0"))[0], [None, elements])
        return [task]
    together = 1
    if isinstance(loops[0], int):
        together = max(d for d in range(1, schedule.rows + 1) if loops[0] % d == 0)
    form = "blocked" if together > 1 else "run"
    return schedule_loops(sch, "fake_quant", spec.iteration, form, (schedule.tile, together))


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

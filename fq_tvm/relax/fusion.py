"""Which neighbors of the operator TVM's FuseOps merges with it, and the schedule of what came of that."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx
from tvm.ir import Call

from .legalize import KEPT_AS_IT_IS
from .op import extents
from .schedule import MARK, is_for_cpu, schedule
from .streaming import APART, EXTERNAL, compiled

BROADCAST, REDUCTION, OPAQUE = 1, 3, 8
"""Kinds of functions, as TVM's FuseOps has them: up to the first they are element-wise.  A reduction takes element-wise
functions before it in, and is taken in by none after it."""


@tvm.transform.module_pass(opt_level=0, name="LimitFusion")
class LimitFusion:
    """Pass, between AnnotateTIROpPattern and FuseOps: keep out of fusion what would spoil the schedule of the operator.

    That is what is next to the operator, or to element-wise functions next to it, and not element-wise: what reduces
    (convolutions), reads in another order, or is a view that takes no time.  An operator whose result goes, through
    element-wise functions, into tensors of another shape or into another operator takes in what is before it alone.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        """Apply the pass."""
        del ctx
        kinds: dict[Any, int] = {}
        for func in mod.functions.values():
            if isinstance(func, relax.Function):
                kinds |= _limits(mod, func)
        for variable, kind in kinds.items():
            mod.update_func(variable, mod[variable].with_attr("op_pattern", kind))
        return mod


def _limits(mod: tvm.IRModule, func: Any) -> dict[Any, int]:
    """Find the functions that are to be of another kind."""
    values: dict[Any, Any] = {}
    readers: dict[Any, list[Any]] = {}

    def visit(sequence: Any) -> None:
        for binding in (b for block in getattr(sequence, "blocks", ()) for b in block.bindings):
            values[binding.var] = binding.value
            for variable in relax.analysis.free_vars(binding.value):
                readers.setdefault(variable, []).append(binding.var)

    relax.analysis.post_order_visit(func, lambda node: visit(node) if isinstance(node, relax.SeqExpr) else None)

    def callee(variable: Any) -> Any:
        value = values.get(variable)
        if isinstance(value, Call) and value.op == tvm.ir.Op.get("relax.call_tir"):
            return value.args[0]
        return None

    def kind(name: Any) -> int:
        return int(mod[name].attrs.get("op_pattern", OPAQUE))

    def follow(start: Any, step: Any) -> list[Any]:
        """Return variables reached through element-wise functions; those that are not are ends."""
        reached: list[Any] = []
        left = list(step(start))
        while left:
            variable = left.pop()
            if not any(map(variable.same_as, reached)):
                reached.append(variable)
                name = callee(variable)
                through = isinstance(values.get(variable), (relax.TupleGetItem, relax.Var)) if name is None else True
                if through and (name is None or (kind(name) <= BROADCAST and not is_operator(name))):
                    left.extend(step(variable))
        return reached

    def is_operator(name: Any) -> bool:
        return _is_marked(mod[name])

    limits: dict[Any, int] = {}
    for variable in [
        v for v in values if (name := callee(v)) is not None and is_operator(name) and kind(name) < OPAQUE
    ]:
        before = follow(variable, lambda v: relax.analysis.free_vars(values[v]) if v in values else [])
        after = follow(variable, lambda v: readers.get(v, []))
        shape = values[variable].ty_args[0]
        for other in [*before, *after]:
            name = callee(other)
            if name is not None and BROADCAST < kind(name) < OPAQUE and not is_operator(name):
                limits[name] = OPAQUE
        for other in after:
            name = callee(other)
            if name is not None and (is_operator(name) or (kind(name) <= BROADCAST and not _same_shape(other, shape))):
                limits[callee(variable)] = REDUCTION
    return limits


def _same_shape(variable: Any, like: Any) -> bool:
    own, other = (extents(ty.fields[0] if isinstance(ty, relax.TupleType) else ty) for ty in (variable.ty, like))
    return own is not None and other is not None and bool(tvm_ffi.structural_equal(own, other))


def _is_marked(func: Any) -> bool:
    """Whether a function has a stage of the operator."""
    found: list[Any] = []

    def visit(block: s_tir.SBlock) -> None:
        found.extend([block] if block.annotations and MARK in block.annotations else [])

    if isinstance(func, tirx.PrimFunc):
        tvm_ffi.structural_walk(func.body, (s_tir.SBlock, visit))
    return bool(found)


@tvm.transform.module_pass(opt_level=0, name="ScheduleFakeQuant")
class ScheduleFakeQuant:
    """Pass, after FuseTIR: schedule the functions that have the operator in them, with what was fused into them.

    A function that it does not understand stays as it is, and correct.  What writes past the caches is compiled here;
    :class:`~fq_tvm.relax.CallApart` lets the module call that.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        """Apply the pass."""
        del ctx
        target = tvm.target.Target.current(allow_none=True)
        if not is_for_cpu(target):
            return mod
        apart = []
        for variable, func in mod.functions_items():
            if not _is_marked(func) or "tirx.is_scheduled" in func.attrs:
                continue
            scheduled, streaming = schedule(func, target)
            if streaming is not None and target is not None:
                apart.append(compiled(streaming, variable.name_hint, target))
                scheduled = scheduled.with_attr(APART, variable.name_hint)
            mod.update_func(variable, scheduled.with_attrs(KEPT_AS_IT_IS))
        if apart:
            before = (mod.attrs or {}).get(EXTERNAL, [])
            mod = mod.with_attr(EXTERNAL, [*before, *apart])
        return mod


@tvm.transform.module_pass(opt_level=0, name="DeclareApart")
class DeclareApart:
    """Pass, after those that add functions: say of functions of one buffer or none that their buffers are apart.

    TVM's code generator takes the word of one function for all of a module.  The one that computes symbolic shapes says
    nothing, and then parameters of channels would be read, and their reciprocal computed, again for each vector.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        """Apply the pass."""
        del ctx
        for variable, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc) and len(func.params) <= 1 and "tirx.noalias" not in func.attrs:
                mod.update_func(variable, func.with_attr("tirx.noalias", True))
        return mod

"""FuseFakeQuant: makes fake quantization that is written out in a Relax module one call of the operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from .match import Found, Matcher, Vector
from .op import dtype_of, extents, fake_quantize_per_channel_affine_cachemask


@mutator
class _Fuser(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, plan: dict[Any, tuple[Found, int]]) -> None:
        super().__init__(mod)
        self.plan = plan
        self.pairs: dict[int, Any] = {}

    def visit_var_binding_(self, binding: Any) -> None:
        if binding.var not in self.plan:
            super().visit_var_binding_(binding)
            return
        found, output = self.plan[binding.var]
        if id(found) not in self.pairs:
            self.pairs[id(found)] = self.builder_.emit(self._call(found))
        value = self.builder_.normalize(relax.TupleGetItem(self.pairs[id(found)], output))
        self.builder_.emit_normalized(relax.VarBinding(binding.var, value))

    def _call(self, found: Found) -> Any:
        axis = found.axis
        channels = 1 if axis is None else extents(found.x.ty)[axis]  # type: ignore[index]
        scale = self._along(found.scale, channels, "float32")
        zero_point = found.zero_point or Vector(np.zeros(1, np.int32), None)
        dtype = "int32" if zero_point.whole else "float32"
        x = self.visit_expr(found.x)
        return fake_quantize_per_channel_affine_cachemask(
            x,
            scale,
            self._along(zero_point, channels, dtype),
            axis,
            found.low,
            found.high,
            form=found.form,
            zero_point_placement=found.placement,
            keep_zero_sign=found.keep_zero_sign,
            nan=found.nan,
        )

    def _along(self, vector: Vector, channels: Any, dtype: str) -> Any:
        """Give parameters one element for each channel."""
        if vector.constant and isinstance(channels, int):
            return relax.const(np.broadcast_to(vector.value, (channels,)).astype(dtype))
        value = relax.const(vector.value.astype(dtype)) if vector.constant else self.visit_expr(vector.value)
        size = [1 if vector.axis is None else channels]
        if extents(value.ty) != size:
            value = self.builder_.emit(relax.op.reshape(value, size))
        if size != [channels]:
            value = self.builder_.emit(relax.op.broadcast_to(value, [channels]))
        return value if dtype_of(value) == dtype else self.builder_.emit(relax.op.astype(value, dtype))


@relax.transform.function_pass(opt_level=0, name="FuseFakeQuant")
class FuseFakeQuant:
    """Pass: rewrite written-out fake quantization to the operator, and leave everything else as it is.

    Parameters
    ----------
    allow_reciprocal : bool
        Whether graphs that divide by the scale become calls that multiply by the reciprocal, which moves ties.  By
        default they divide, too, except where the scale is constant and the reciprocal exact (powers of two).
    """

    def __init__(self, allow_reciprocal: bool = False) -> None:
        self.allow_reciprocal = allow_reciprocal

    def transform_function(self, func: Any, mod: tvm.IRModule, ctx: Any) -> Any:
        """Apply the pass."""
        del ctx
        plan = _plan(Matcher(func, mod, self.allow_reciprocal), func) if isinstance(func.body, relax.SeqExpr) else {}
        return relax.analysis.remove_all_unused(_Fuser(mod, plan).visit_expr(func)) if plan else func


def _plan(matcher: Matcher, func: Any) -> dict[Any, tuple[Found, int]]:
    """Find what can be rewritten: each variable with the match that gives it and which output of it.

    What one call quantizes may be dequantized several times, and all of them are the same output.
    """
    bindings = [binding for block in func.body.blocks for binding in block.bindings]
    readers: dict[Any, list[Any]] = {}
    for value, reader in [*((b.value, b.var) for b in bindings), (func.body.body, None)]:
        for var in relax.analysis.free_vars(value):
            readers.setdefault(var, []).append(reader)
    bindings = [binding for binding in bindings if isinstance(binding, relax.VarBinding)]
    matches: dict[Any, list[tuple[Any, Found]]] = {}
    for binding in bindings:
        found = matcher.match(binding.value)
        if found is not None:
            matches.setdefault(found.quantized, []).append((binding.var, found))
    masks = [binding for binding in bindings if matcher.may_be_mask(binding.value)]
    plan: dict[Any, tuple[Found, int]] = {}
    for group in matches.values():
        found = group[0][1]
        if not all(found.same(other) for _, other in group):
            continue
        outputs = {var: 0 for var, _ in group}
        inside = [var for _, other in group for var in other.inside]
        for other in masks:
            between = matcher.mask(found, other.value)
            if between is not None:
                outputs[other.var] = 1
                inside += between
        known = {*inside, *outputs}
        if all(reader in known for var in inside for reader in readers.get(var, [])):
            plan.update({var: (found, output) for var, output in outputs.items()})
    return plan

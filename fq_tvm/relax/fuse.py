"""FuseFakeQuant: makes fake quantization that is written out in a Relax module one call of the operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from .match import Found, Matcher, Vector, dtype_of, shape_of
from .op import fake_quantize_per_channel_affine_cachemask


def _uses(func: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every variable that is read, with the variable that what reads it is bound to; None for the result."""
    for block in func.body.blocks:
        for binding in block.bindings:
            for var in relax.analysis.free_vars(binding.value):
                yield var, binding.var
    for var in relax.analysis.free_vars(func.body.body):
        yield var, None


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
        assert found.scale is not None
        assert found.zero_point is not None
        axis = found.axis
        channels = 1 if axis is None else shape_of(found.x)[axis]  # type: ignore[index]
        scale, zero_point = (
            self._along(v, channels, dtype) for v, dtype in ((found.scale, "float32"), (found.zero_point, "int32"))
        )
        x = self.visit_expr(found.x)
        return fake_quantize_per_channel_affine_cachemask(
            x, scale, zero_point, axis, found.low, found.high, nan=found.nan
        )

    def _along(self, vector: Vector, channels: Any, dtype: str) -> Any:
        if vector.constant and (vector.axis is not None or isinstance(channels, int)):
            size = len(vector.value) if vector.axis is not None else channels
            return relax.const(np.broadcast_to(vector.value, (size,)).astype(dtype))
        if vector.constant:
            return self.builder_.emit(relax.op.broadcast_to(relax.const(vector.value.astype(dtype)), [channels]))
        value = self.visit_expr(vector.value)
        if (shape_of(value) or ()) != [channels]:
            size = [channels]
            if vector.axis is None:
                value = self.builder_.emit(relax.op.reshape(value, [1]))
                value = self.builder_.emit(relax.op.broadcast_to(value, size))
            else:
                value = self.builder_.emit(relax.op.reshape(value, size))
        return value if dtype_of(value) == dtype else self.builder_.emit(relax.op.astype(value, dtype))


@tvm.transform.module_pass(opt_level=0, name="FuseFakeQuant")
class FuseFakeQuant:
    """Pass: rewrite written-out fake quantization to the operator, and leave everything else as it is.

    Parameters
    ----------
    allow_reciprocal : bool
        Whether graphs that divide by the scale may be rewritten to the operator, which multiplies by the reciprocal.
        That moves ties, except for constant scales that are powers of two, which are always rewritten.
    """

    def __init__(self, allow_reciprocal: bool = False) -> None:
        self.allow_reciprocal = allow_reciprocal

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        """Apply the pass."""
        del ctx
        functions = {}
        for variable, func in mod.functions_items():
            if isinstance(func, relax.Function) and isinstance(func.body, relax.SeqExpr):
                if plan := _plan(func, self.allow_reciprocal):
                    func = relax.analysis.remove_all_unused(_Fuser(mod, plan).visit_expr(func))
            functions[variable] = func
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


def _plan(func: Any, allow_reciprocal: bool) -> dict[Any, tuple[Found, int]]:
    """Find what can be rewritten: each variable with the match that gives it and which output of it."""
    matcher = Matcher(func, allow_reciprocal)
    readers: dict[Any, list[Any]] = {}
    for var, reader in _uses(func):
        readers.setdefault(var, []).append(reader)
    plan: dict[Any, tuple[Found, int]] = {}
    bindings = [b for block in func.body.blocks for b in block.bindings if isinstance(b, relax.VarBinding)]
    for binding in bindings:
        found = matcher.match(binding.value)
        if found is None:
            continue
        outputs = {binding.var: 0}
        if found.q is not None:
            for other in bindings:
                before = len(found.inside)
                if matcher.mask(found, other.value):
                    outputs[other.var] = 1
                else:
                    del found.inside[before:]
        known = {*found.inside, *outputs}
        if all(reader in known for var in found.inside for reader in readers.get(var, [])):
            plan.update({var: (found, output) for var, output in outputs.items()})
    return plan

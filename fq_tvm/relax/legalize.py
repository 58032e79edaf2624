"""From the Relax operator to a call of a function: stated on the graph's own extents, for fusion, or scheduled as well.

The expression is that of the CPU kernels, with the quantization range and static extents as constants.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, te, tirx
from tvm.ir import Call, Op
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..codegen.expression import QuantRange, channel_parameters, fold, quantize_dequantize
from ..codegen.vector_loops import replace
from ..entry_points import folds
from ..spec import FakeQuantSpec, arithmetic_for
from .op import NAME, dtype_of, formula_of
from .schedule import MARK, class_of, is_for_cpu, schedule

KEPT_AS_IT_IS = {"op_pattern": 8, "tirx.is_scheduled": True, "tirx.noalias": True}
"""Attributes of a function that fusion and scheduling passes leave as it is."""

FUSIBLE = {"op_pattern": 1, "tirx.noalias": True}
"""Attributes of a function that fusion takes for one of broadcast operands."""


def legalize(builder: Any, call: Any) -> Any:
    """Turn a call of the operator into a call of a scheduled function that is added to the builder's module.

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
    return _lower(builder, call, mask=True, fusible=False)


def _lower(builder: Any, call: Any, mask: bool, fusible: bool) -> Any:
    if not _has_shapes(call):
        return call
    tensors = [(tuple(t.ty.shape.values), dtype_of(t)) for t in call.args]
    target = tvm.target.Target.current(allow_none=True)
    func = prim_func(tensors, call.attrs, target, mask)
    # A stage of bfloat16 that is inlined would not be rounded: TVM computes it in float32.
    if fusible and tensors[0][1] != "bfloat16":
        func = func.with_attrs(FUSIBLE)
    elif is_for_cpu(target):
        func = schedule(func, target)[0].with_attrs(KEPT_AS_IT_IS)
    types = list(call.ty.fields) if mask else call.ty.fields[0]
    return relax.call_tir(builder.add_func(func, "fake_quantize"), list(call.args), types)


def prim_func(
    tensors: list[tuple[tuple[Any, ...], str]], attributes: Mapping[str, Any], target: Any, mask: bool = True
) -> tirx.PrimFunc:
    """State a call, unscheduled.

    Parameters
    ----------
    tensors : list of (shape, dtype)
        Of x, scale and zero point; extents are integers or expressions.
    attributes : mapping
        ``axis``, ``quant_min``, ``quant_max`` of the call, and what it says of its formula.
    target : tvm.target.Target or None
        What the module is compiled for.
    mask : bool
        Whether the mask is computed.

    Returns
    -------
    tirx.PrimFunc
        Of x, scale, zero point, out, and mask if there is one.
    """
    known: dict[Any, Any] = {}
    buffers = [(tuple(_own_extent(extent, known) for extent in shape), dtype) for shape, dtype in tensors]
    (shape, dtype), (scale_shape, scale_dtype), (zero_shape, zero_point_dtype) = buffers
    quant_min, quant_max = attributes["quant_min"], attributes["quant_max"]
    axis = None if attributes["axis"] is None or not shape else int(attributes["axis"])
    channels: Any = 1 if axis is None else shape[axis]
    inner = math.prod(shape if axis is None else shape[axis + 1 :])
    quant_range = QuantRange.constant(quant_min, quant_max)
    dtypes = (dtype, scale_dtype, dtype, zero_point_dtype)
    formula = vars(formula_of(attributes))
    spec = FakeQuantSpec("rows", *dtypes, arithmetic_for(quant_min, quant_max), **formula, mask=mask)
    spec, _ = class_of(spec, channels, inner, math.prod(shape), target)

    x = te.placeholder(shape, dtype, "x")
    given = [
        te.placeholder(extents, kind, name)
        for name, extents, kind in (("scale", scale_shape, scale_dtype), ("zero_point", zero_shape, zero_point_dtype))
    ]
    scale, zero_point = (_vector(tensor, channels) for tensor in given)
    parameters = channel_parameters(scale, zero_point, spec.wide, spec.formula)
    # Of lanes only rows of one channel: nothing here says beforehand whether every channel of a run may fold.
    folded = fold(parameters, quant_range) if is_for_cpu(target) and not spec.lanes and folds(spec) else None
    rounded = (spec.promoted_dtype, spec.out_dtype)
    results = quantize_dequantize(x, parameters, axis, quant_range, rounded, folded=folded, mask=mask)
    mark = {MARK: json.dumps({"axis": axis, "spec": spec.to_json()})}
    func = te.create_prim_func([x, *given, *_marked(results, mark)], "int64")
    return func.without_attr("global_symbol")


def _vector(tensor: te.Tensor, channels: Any) -> te.Tensor:
    """View parameters of any shape with so many elements as one dimension."""
    if len(tensor.shape) == 1:
        return tensor
    return te.compute((channels,), lambda _: tensor(), name=f"{tensor.op.name}_vector")


def _marked(results: tuple[te.Tensor, ...], attributes: dict[str, str]) -> list[te.Tensor]:
    """State results of one stage as those of a stage with attributes, which has no others."""
    axes, shape = results[0].op.axis, results[0].shape

    def body(*index: Any) -> Any:
        at = dict(zip((axis.var for axis in axes), index, strict=True))
        parts = tuple(replace(result.op.body[result.value_index], at) for result in results)
        return parts if len(parts) > 1 else parts[0]

    marked = te.compute(shape, body, name=results[0].op.name, attrs=attributes)
    return [marked] if len(results) == 1 else list(marked)


def _own_extent(extent: Any, known: dict[Any, Any]) -> Any:
    """Return an extent of a function of its own: a symbolic one becomes a variable, equal ones the same."""
    if isinstance(extent, (int, tirx.IntImm)):
        return int(extent)
    key = tvm_ffi.StructuralKey(extent)  # type: ignore[call-arg]
    return known.setdefault(key, te.var(f"n{len(known)}", "int64"))


@mutator
class _Legalizer(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, fusible: bool, out_alone: set[Any]) -> None:
        super().__init__(mod)
        self.fusible, self.out_alone, self.mask = fusible, out_alone, True

    def visit_var_binding_(self, binding: Any) -> None:
        value = binding.value
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.out_alone:
            # What was the pair is its first element now.
            self.builder_.emit_normalized(relax.VarBinding(binding.var, self.visit_expr(value.tuple_value)))
            return
        self.mask = binding.var not in self.out_alone
        super().visit_var_binding_(binding)

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        return _lower(self.builder_, call, self.mask, self.fusible) if _is_operator(call) else call


@tvm.transform.module_pass(opt_level=0, name="LegalizeFakeQuant")
class LegalizeFakeQuant:
    """Pass: turn every call of the operator into a call of a function, and leave the rest as it is.

    A mask that nothing reads is not computed.  ``relax.transform.LegalizeOps`` does the same to the operator, among all
    others, but for that and for ``fusible``.

    Parameters
    ----------
    fusible : bool
        Whether functions are left to FuseOps and FuseTIR, and to :class:`~fq_tvm.relax.ScheduleFakeQuant` after these.
        Otherwise they are scheduled at once, and marked so that other passes leave them as they are.
    """

    def __init__(self, fusible: bool = False) -> None:
        self.fusible = fusible

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        """Apply the pass."""
        del ctx
        functions = {v: f for v, f in mod.functions_items() if isinstance(f, relax.Function) and _has_operator(f)}
        if not functions:
            return mod
        functions = {variable: relax.analysis.remove_all_unused(func) for variable, func in functions.items()}
        out_alone = {pair for func in functions.values() for pair in _read_for_out_alone(func)}
        legalizer = _Legalizer(mod, self.fusible, out_alone)
        for variable, func in functions.items():
            legalizer.builder_.update_func(variable, legalizer.visit_expr(func))
        return legalizer.builder_.get()


def _has_shapes(call: Any) -> bool:
    return all(isinstance(t.ty.shape, relax.ShapeExpr) and t.ty.dtype is not None for t in call.args)


def _is_operator(value: Any) -> bool:
    return isinstance(value, Call) and isinstance(value.op, Op) and value.op.name == NAME


def _has_operator(func: Any) -> bool:
    found: list[Any] = []
    relax.analysis.post_order_visit(func, lambda node: found.append(node) if _is_operator(node) else None)
    return bool(found)


def _read_for_out_alone(func: Any) -> set[Any]:
    """Find the variables of calls of the operator that are read for their first element and nothing else."""
    calls, otherwise = set(), set()

    def visit(sequence: Any) -> None:
        if not isinstance(sequence, relax.SeqExpr):
            return
        otherwise.update(relax.analysis.free_vars(sequence.body))
        for binding in (binding for block in sequence.blocks for binding in block.bindings):
            value = binding.value
            if _is_operator(value) and _has_shapes(value):
                calls.add(binding.var)
            elif not (isinstance(value, relax.TupleGetItem) and value.index == 0):
                otherwise.update(relax.analysis.free_vars(value))

    relax.analysis.post_order_visit(func, visit)
    return calls - otherwise

"""The Relax operator: its name, attributes, type inference, and its place in TVMScript."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, sym, tirx
from tvm.ir import Op
from tvm.relax.script import parser

from ..errors import ArgumentError, FqError
from ..launch.arguments import check_range, normalize_axis
from ..layout import MAX_RANK
from ..spec import CONTRACT, EXTENDED_FLOATS, EXTENDED_ZERO_POINTS, Formula

NAME = "relax.fq_tvm.fake_quantize_per_channel_affine_cachemask"
"""What the operator is called in a module; TVMScript prints it with ``R`` for ``relax``."""

ARGUMENTS = {
    "x": "The tensor to quantize.",
    "scale": "One for each channel, or one.",
    "zero_point": "Of scale's size.",
}


def fake_quantize_per_channel_affine_cachemask(
    x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int, **formula: Any
) -> Any:
    """Quantize to a range of integers and back, with the mask of the values that were in range, in a Relax module.

    Parameters
    ----------
    x : relax.Expr
        float32, float16 or bfloat16, of any rank up to 8, with static, symbolic or unknown dimensions.
    scale : relax.Expr
        float32, float16 or bfloat16, shape (x's extent along axis,).  Per tensor, () or (1,).
    zero_point : relax.Expr
        int32, float32 or float16, of scale's shape.
    axis : int or None
        The channel dimension of x; negative counts from the end.  None for one scale and zero point of the tensor.
    quant_min, quant_max : int
        Any int64, the first at most the second.
    **formula
        ``form``, ``zero_point_placement``, ``keep_zero_sign`` and ``nan``, as :class:`fq_tvm.spec.Formula` has them.
        The contract's by default: a product with the reciprocal, zero points of integers added after rounding and
        those of floats before it, no negative zeros, a NaN to quant_min.  Graphs that are rewritten to this operator
        keep what they had: ``R.divide`` and ``R.quantize`` divide, ``R.clip`` and ``R.quantize`` make quant_max of a
        NaN.

    Returns
    -------
    relax.Call
        A tuple (out, mask) of tensors of x's shape: out of x's dtype, mask bool.

    Raises
    ------
    ArgumentError
        If the axis, the range or the formula is not as above.  What is wrong with the tensors is told when the call
        gets its type: by ``BlockBuilder.emit`` or ``normalize``, or by the parser of a script.
    """
    rank = x.ty.ndim if isinstance(x.ty, relax.TensorType) else -1
    if axis is not None and rank >= 0:
        axis = normalize_axis(axis, rank)
    low, high = check_range(quant_min, quant_max)
    unknown = formula.keys() - {field.name for field in fields(Formula)}
    if unknown:
        raise ArgumentError(f"{NAME} has no attribute {', '.join(sorted(unknown))}", "range")
    given = vars(formula_of(formula))
    # what the contract says anyway is left out, so that a call is written in one way
    contract = vars(CONTRACT.of(dtype_of(zero_point)) if dtype_of(zero_point) else CONTRACT)
    special = {name: value for name, value in given.items() if value not in (contract[name], getattr(CONTRACT, name))}
    attributes = {"axis": axis, **special, "nan": given["nan"], "quant_max": high, "quant_min": low}
    return relax.Call(Op.get(NAME), [x, scale, zero_point], tvm.ir.make_node("ir.DictAttrs", **attributes))


def formula_of(attributes: Mapping[str, Any], zero_point_dtype: str = "") -> Formula:
    """Return the formula of a call; what its attributes do not say is the contract's.

    Raises
    ------
    ArgumentError
        If there is no such formula, or none for zero points of that dtype, where it is known.
    """
    known = [field.name for field in fields(Formula)]
    try:
        formula = Formula(**{name: attributes[name] for name in known if name in attributes})
        return formula.of(zero_point_dtype) if zero_point_dtype else formula
    except FqError as error:
        raise ArgumentError(str(error), "range") from error


def infer_type(call: Any, builder: Any) -> Any:
    """Return the type of a call, a tuple of two tensors.

    Raises
    ------
    ArgumentError
        If an argument is not one that the operator takes.
    """
    del builder
    if len(call.args) != len(ARGUMENTS):
        raise ArgumentError(f"{NAME} has {len(call.args)} arguments; expected {', '.join(ARGUMENTS)}")
    x, scale, zero_point = types = [argument.ty for argument in call.args]
    for name, allowed, given in zip(
        ARGUMENTS, (EXTENDED_FLOATS, EXTENDED_FLOATS, EXTENDED_ZERO_POINTS), types, strict=True
    ):
        if not isinstance(given, relax.TensorType):
            raise ArgumentError(f"{name} is {given}; expected a tensor", "dtype")
        if given.dtype is not None and str(given.dtype.dtype) not in allowed:
            raise ArgumentError(f"{name} has dtype {given.dtype.dtype}; expected {' or '.join(allowed)}", "dtype")
    if x.ndim > MAX_RANK:
        raise ArgumentError(f"x has {x.ndim} dimensions; expected at most {MAX_RANK}")
    attributes = call.attrs
    for name in ("axis", "quant_min", "quant_max", "nan"):
        if name not in attributes:
            raise ArgumentError(f"{NAME} has no attribute {name}; expected axis, quant_min, quant_max and nan")
    check_range(attributes["quant_min"], attributes["quant_max"])
    formula_of(attributes, "" if zero_point.dtype is None else str(zero_point.dtype.dtype))
    _check_channels(x, scale, zero_point, attributes["axis"])
    shape = {"shape": x.shape} if x.shape is not None else {"ndim": x.ndim}
    return relax.TupleType([x, relax.TensorType(dtype="bool", vdevice=x.vdevice, **shape)])


def _check_channels(x: Any, scale: Any, zero_point: Any, axis: int | None) -> None:
    """Refuse scales and zero points that cannot have one element for each channel."""
    channels: Any = 1
    if axis is not None:
        if x.ndim >= 0:
            axis = normalize_axis(axis, x.ndim)
        shape = extents(x)
        channels = shape[axis] if shape else None if x.ndim else channels
    expected = "() or (1,), one element for the tensor" if axis is None else "one dimension, of x's size along axis"
    for name, given in (("scale", scale), ("zero_point", zero_point)):
        if given.ndim not in ((-1, 0, 1) if axis is None else (-1, 1)):
            raise ArgumentError(f"{name} has {given.ndim} dimensions; expected {expected}")
        size = extents(given)
        if size and channels is not None and _differ(size[0], channels):
            raise ArgumentError(f"{name} has {size[0]} elements; expected {channels}: {expected}")
    size, other = extents(scale), extents(zero_point)
    if axis is not None and size and other and _differ(size[0], other[0]):
        raise ArgumentError(f"scale has {size[0]} elements and zero_point {other[0]}; expected as many of both")


def extents(given: Any) -> list[Any] | None:
    """Return the extents of a tensor's type, each an integer or an expression; None where they are not known."""
    shape = getattr(given, "shape", None)
    if not isinstance(shape, relax.ShapeExpr):
        return None
    return [extent.value if isinstance(extent, tirx.IntImm) else extent for extent in shape.values]


def dtype_of(expr: Any) -> str:
    """Return numpy's name of a tensor's dtype; an empty text where it is not known."""
    dtype = getattr(expr.ty, "dtype", None)
    return "" if dtype is None else str(dtype.dtype)


def _differ(a: Any, b: Any) -> bool:
    """Whether two extents cannot be equal; symbolic ones are given the benefit of the doubt."""
    return a != b if isinstance(a, int) and isinstance(b, int) else bool(sym.Analyzer().can_prove(a != b))


def register(legalize: Any) -> None:
    """Make the operator known to this process's TVM; a second time changes nothing but the functions behind it."""
    if NAME not in Op.list_op_names():
        tvm.ir._ffi_api.RegisterOp(NAME, "Per-channel fake quantization with a cache mask.")
        op = Op.get(NAME)
        op.set_num_inputs(len(ARGUMENTS))
        for name, description in ARGUMENTS.items():
            op.add_argument(name, "Tensor", description)
        op.set_attr("FPurity", True)
    # So that the checks of types raise what the other functions of the library raise, and not a RuntimeError.
    tvm_ffi.register_error("ArgumentError", ArgumentError)
    op = Op.get(NAME)
    for attribute, function in (("FInferType", infer_type), ("FLegalize", legalize)):
        op.reset_attr(attribute)
        op.set_attr(attribute, function)
    # Scripts call it R.fq_tvm.<name>; the parser looks names up in its own module.
    *_, namespace, short = NAME.split(".")
    setattr(parser, namespace, SimpleNamespace(**{short: fake_quantize_per_channel_affine_cachemask}))

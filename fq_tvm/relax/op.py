"""The Relax operator: its name, attributes, type inference, and its place in TVMScript."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, sym, tirx
from tvm.ir import Op
from tvm.relax.script import parser

from ..errors import ArgumentError
from ..launch.arguments import check_range, normalize_axis
from ..layout import MAX_RANK
from ..spec import EXTENDED_FLOATS, EXTENDED_ZERO_POINTS

NAME = "relax.fq_tvm.fake_quantize_per_channel_affine_cachemask"
"""What the operator is called in a module; TVMScript prints it with ``R`` for ``relax``."""

ARGUMENTS = {
    "x": "The tensor to quantize.",
    "scale": "One for each channel, or one.",
    "zero_point": "Of scale's size.",
}

NAN = ("quant_min", "quant_max")
"""What a NaN of x can be clipped to."""


def fake_quantize_per_channel_affine_cachemask(
    x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int, *, nan: str = "quant_min"
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
    nan : {"quant_min", "quant_max"}
        What a NaN of x is clipped to.  The operator's contract says ``"quant_min"``; ``R.clip`` and ``R.quantize``
        give the other, and graphs that are rewritten to this operator keep what they had.

    Returns
    -------
    relax.Call
        A tuple (out, mask) of tensors of x's shape: out of x's dtype, mask bool.

    Raises
    ------
    ArgumentError
        If the axis or the range is not as above.  What is wrong with the tensors is told when the call gets its
        type: by ``BlockBuilder.emit`` or ``normalize``, or by the parser of a script.
    """
    rank = x.ty.ndim if isinstance(x.ty, relax.TensorType) else -1
    if axis is not None and rank >= 0:
        axis = normalize_axis(axis, rank)
    low, high = check_range(quant_min, quant_max)
    attributes = {"axis": axis, "nan": nan, "quant_max": high, "quant_min": low}
    return relax.Call(Op.get(NAME), [x, scale, zero_point], tvm.ir.make_node("ir.DictAttrs", **attributes))


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
    if attributes["nan"] not in NAN:
        raise ArgumentError(f"nan is {attributes['nan']!r}; expected one of {', '.join(NAN)}", "range")
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

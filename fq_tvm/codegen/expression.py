"""The operator as a TVM tensor expression, for any rank and axis.

The only place that states the arithmetic to a compiler.  CPU kernels use these stages on collapsed shapes, Ascend
printers and the graph compiler on the caller's.  Knows nothing of schedules, strides or targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tvm import te, tirx

from ..spec import (
    CONTRACT,
    LEAST_SCALE,
    NARROW_LIMIT,
    NO_SCALE,
    ZERO_POINTS,
    Formula,
    promote,
    quant_range_scalars,
)


@dataclass(frozen=True)
class QuantRange:
    """The quantization range as expressions, constant or symbolic.

    Parameters
    ----------
    low, high : tvm.ir.Expr
        What q is clipped to.  float32 for the narrow path, float64 for the wide one.
    least, greatest : tvm.ir.Expr, optional
        Wide path only, float64: the smallest value that is at least quant_min and the largest that is at most
        quant_max.  They differ from low and high where an int64 is not a float64; comparing with them equals
        comparing integers.  The narrow path needs none: there, ``q == clip`` says the same in one comparison.
    """

    low: Any
    high: Any
    least: Any = None
    greatest: Any = None

    @property
    def wide(self) -> bool:
        """Whether this is the range of the wide path."""
        return self.least is not None

    @classmethod
    def constant(cls, quant_min: int, quant_max: int) -> QuantRange:
        """The range of two integers known when compiling."""
        scalars = quant_range_scalars(quant_min, quant_max)
        dtype = "float32" if len(scalars) == 2 else "float64"
        names = ("low", "high", "least", "greatest")
        return cls(**{n: tirx.const(value, dtype) for n, value in zip(names, scalars, strict=False)})


@dataclass(frozen=True)
class ChannelParameters:
    """What the arithmetic needs to know of a channel, as tensors indexed by the channel.

    Parameters
    ----------
    inverse_scale : te.Tensor or None
        ``1 / float32(scale)``, float32; None where the formula divides.
    zero_point : te.Tensor
        float32, but an integer of the wide path, whose last subtraction takes it exactly, as it is.
    scale : te.Tensor
        ``float32(scale)``.
    formula : Formula
        How they are used; with a zero_point_placement.
    """

    inverse_scale: te.Tensor | None
    zero_point: te.Tensor
    scale: te.Tensor
    formula: Formula

    def __iter__(self) -> Any:
        inverse = () if self.inverse_scale is None else (self.inverse_scale,)
        return iter((*inverse, self.zero_point, self.scale))

    def of(self, tensors: Sequence[te.Tensor]) -> ChannelParameters:
        """Return parameters for the same formula, of other tensors in the order in which these are iterated over."""
        *inverse, zero_point, scale = tensors
        return ChannelParameters(inverse[0] if inverse else None, zero_point, scale, self.formula)


def channel_parameters(
    scale: te.Tensor, zero_point: te.Tensor, wide: bool = False, formula: Formula = CONTRACT
) -> ChannelParameters:
    """State the stages that make a channel's parameters of scale and zero point.

    Parameters
    ----------
    scale : te.Tensor
        float32, float16 or bfloat16, shape (channels,).
    zero_point : te.Tensor
        int32, float32 or float16, shape (channels,).
    wide : bool
        Whether the wide path reads them.
    formula : Formula
        How they are used.

    Returns
    -------
    ChannelParameters
        Tensors of shape (channels,).
    """
    scale_f32 = te.compute(scale.shape, lambda c: convert(scale[c], scale.dtype, "float32"), name="scale_f32")
    inverse = None
    if formula.form == "reciprocal":
        inverse = te.compute(scale.shape, lambda c: tirx.const(1.0, "float32") / scale_f32[c], name="inverse_scale")
    floats = zero_point.dtype not in ZERO_POINTS
    zero = zero_point
    if floats or not wide:
        zero = te.compute(scale.shape, lambda c: zero_point[c].astype("float32"), name="zero_point_f32")
    return ChannelParameters(inverse, zero, scale_f32, formula.of(str(zero_point.dtype)))


@dataclass(frozen=True)
class Folded:
    """The range of a channel with the zero point taken off, so that rounded values need not be moved there and back.

    Parameters
    ----------
    low, high : te.Tensor
        ``quant_min - zero_point`` and ``quant_max - zero_point``, float32, indexed by the channel.
    everywhere : bool
        Whether :func:`may_fold` is known to hold for every channel.
    """

    low: te.Tensor
    high: te.Tensor
    everywhere: bool = False


def fold(parameters: ChannelParameters, quant_range: QuantRange, everywhere: bool = False) -> Folded:
    """State the range of each channel with the zero point taken off.

    Parameters
    ----------
    parameters : ChannelParameters
        Of the narrow path, with zero points of integers that are added after rounding.
    quant_range : QuantRange
        Narrow.
    everywhere : bool
        Whether :func:`may_fold` is known to hold for every channel.

    Returns
    -------
    Folded
        Tensors of parameters' shape.
    """
    shape, zero_point = parameters.scale.shape, parameters.zero_point
    low = te.compute(shape, lambda c: quant_range.low - zero_point[c], name="folded_low")
    high = te.compute(shape, lambda c: quant_range.high - zero_point[c], name="folded_high")
    return Folded(low, high, everywhere)


def may_fold(scale: Any, zero_point: Any) -> Any:
    """State the condition on a channel under which the range with the zero point taken off gives the same bits.

    Parameters
    ----------
    scale, zero_point : tvm.ir.Expr
        The channel's, float32; the zero point an integer.

    Returns
    -------
    tvm.ir.Expr
        ``scale > 0 and abs(zero_point) <= 2**23``.

    Notes
    -----
    Let r be x * inv or x / scale, rounded to an integer, z the zero point, and a and b the bounds; each of a, b and z
    is at most 2**23 in magnitude.  The contract clips ``r + z`` to [a, b] and subtracts z; folded, r is clipped to
    [a - z, b - z].

    - a - z and b - z are integers of at most 2**24, which float32 has; and the contract's last subtraction has these or
      a number between them for its result.  So all of them are exact.
    - If r is at most 2**24 in magnitude, it is an integer, and so is r + z, which is exact up to 2**24; a sum beyond
      that stays at 2**24 or beyond when it is rounded, outside [a, b].  If r is larger, it lies outside
      [a - z, b - z], and r + z, rounded, outside [a, b] on the same side.  So r is in range both ways or neither, which
      is the mask, and is clipped to the same bound.  A NaN gets the same bound, and is in no range.
    - What differs is zero: the contract's ``clip - z`` is never -0.0, and r may be.  ``clip * scale + 0.0`` makes that
      a 0.0 if scale is above zero (a NaN if it is infinite, as in the contract), and changes nothing else: the product
      of an integer other than zero and a number other than zero is not rounded to zero.  For the same reason it does
      not matter whether a CPU rounds once or after the product, too.
    """
    most = tirx.const(NARROW_LIMIT, "float32")
    return tirx.all(scale > tirx.const(0.0, "float32"), zero_point >= -most, zero_point <= most)


def foldable(parameters: ChannelParameters) -> te.Tensor:
    """State whether :func:`may_fold` holds for every channel: int32, shape (1,), 1 if it does, else 0."""
    scale, zero_point = parameters.scale, parameters.zero_point
    channel = te.reduce_axis((0, scale.shape[0]), "channel")
    every = te.min(may_fold(scale[channel], zero_point[channel]).astype("int32"), axis=channel)
    return te.compute((1,), lambda _: every, name="foldable")


def convert(value: Any, source: str, dtype: str) -> Any:
    """Convert a float to another float dtype, rounding half to even.

    Parameters
    ----------
    value : tvm.ir.Expr
        Of the dtype source.
    source, dtype : {"float32", "float16", "bfloat16"}
        What it is and what it becomes.

    Returns
    -------
    tvm.ir.Expr

    Notes
    -----
    bfloat16 is the upper half of a float32, and stated so, in integers: TVM's own legalization adds its rounding to a
    NaN as well, which can become an infinity or a zero, and the instruction of AVX512_BF16 flushes subnormals.  A NaN
    becomes the quiet one of its sign, as ``ml_dtypes`` has it.
    """
    if source == dtype:
        return value
    if source == "bfloat16":
        half = tirx.reinterpret("uint16", value).astype("uint32")
        return convert(tirx.reinterpret("float32", half << _bits(16)), "float32", dtype)
    if dtype != "bfloat16":
        return value.astype(dtype)
    whole = tirx.reinterpret("uint32", convert(value, source, "float32"))
    upper = whole >> _bits(16)
    rounded = (whole + (upper & _bits(1)) + _bits(0x7FFF)) >> _bits(16)
    is_nan = (whole & _bits(0x7FFFFFFF)) > _bits(0x7F800000)
    half = tirx.Select(is_nan, (upper & _bits(0x8000)) | _bits(0x7FC0), rounded)
    return tirx.reinterpret("bfloat16", half.astype("uint16"))


def _bits(value: int) -> Any:
    return tirx.const(value, "uint32")


def expand(tensors: Sequence[te.Tensor], copies: Any, inner: Any) -> Sequence[te.Tensor]:
    """Repeat parameters along a run of virtual channels.

    Parameters
    ----------
    tensors : sequence of te.Tensor
        Two or more, of shape (channels,).
    copies, inner : Expr
        How often the whole is repeated, and each channel within it.

    Returns
    -------
    sequence of te.Tensor
        As many, of shape (copies, channels, inner), the outputs of one stage.
    """
    shape = (copies, *tensors[0].shape, inner)
    repeated: Sequence[te.Tensor] = te.compute(
        shape, lambda _copy, c, _inner: tuple(t[c] for t in tensors), name="expand"
    )
    return repeated


def quantize_dequantize(
    x: te.Tensor,
    parameters: ChannelParameters,
    axis: int | None,
    quant_range: QuantRange,
    dtypes: tuple[str, str],
    name: str = "fake_quant",
    folded: Folded | None = None,
    mask: bool = True,
) -> tuple[te.Tensor, ...]:
    """State the operator on a tensor whose channel parameters are there already.

    One stage, with two outputs where there is a mask, so that a schedule reads x once and writes twice: the mask first,
    so that out may lie on x, which the mask is made of, too.

    Parameters
    ----------
    x : te.Tensor
        float32, float16 or bfloat16, any rank.
    parameters : ChannelParameters
        Of x's extent along axis, and the formula.
    axis : int or None
        The channel dimension of x, not negative.  None where all elements share the parameters at index 0.
    quant_range : QuantRange
        Decides between the narrow and the wide path.
    dtypes : tuple of str
        out is rounded to the first, that of promotion, then to the second, its own.
    name : str
        Name of the stage.
    folded : Folded, optional
        Narrow path only: to be used for the channels where :func:`may_fold` holds, at two operations of eight less.  A
        loop along one channel should be divided by that condition, which LLVM does.
    mask : bool
        Whether it is stated.

    Returns
    -------
    out, mask : te.Tensor
        Of x's shape; mask is bool, and left out unless wanted.

    Notes
    -----
    ``te.round`` is IEEE round half to even and, unlike ``te.nearbyint``, survives vectorization.  ``max`` and ``min``
    are ordered selects that give their second operand when the first is NaN, which is how a NaN becomes quant_min.

    The target options that TVM gives LLVM allow it to make one fused operation of a product and a sum, which would be
    rounded once.  Where a zero point is added to a product, before it is rounded, a maximum with minus infinity stands
    between them (a minimum with infinity where a NaN becomes quant_max): it changes a NaN only, and what that becomes
    leads to the same clip and mask.  A quotient and a sum cannot be fused, nor can a difference and the product after
    it.  Rounding after the sum may leave a negative zero, which becomes the positive one, as q stands for an integer;
    adding 0.0 would do as well, but TVM drops such a sum.  Where it stays, a q in range is its own clip, as a zero may
    get the sign of a bound that is one.
    """
    formula = parameters.formula

    def scaled(value: Any, channel: Any) -> Any:
        if parameters.inverse_scale is None:
            return value / parameters.scale[channel]
        return value * parameters.inverse_scale[channel]

    def moved(t: Any, channel: Any) -> tuple[Any, Any]:
        return _moved(t, parameters.scale[channel], parameters.zero_point[channel], quant_range, formula)

    def unmoved(t: Any, channel: Any, ranges: Folded) -> tuple[Any, Any]:
        r = te.round(t)
        clip = _clipped(r, ranges.low[channel], ranges.high[channel], formula)
        zero = tirx.const(0.0, "float32")
        # An intrinsic, as TVM would drop a sum with 0.0.
        return tirx.EQ(r, clip), tirx.call_intrin("float32", "tirx.fma", clip, parameters.scale[channel], zero)

    def body(*index: Any) -> Any:
        channel = 0 if axis is None else index[axis]
        t = scaled(convert(x[index], x.dtype, "float32"), channel)
        if folded is None:
            in_range, value = moved(t, channel)
        elif folded.everywhere:
            in_range, value = unmoved(t, channel, folded)
        else:
            either = zip(unmoved(t, channel, folded), moved(t, channel), strict=True)
            condition = may_fold(parameters.scale[channel], parameters.zero_point[channel])
            in_range, value = (tirx.if_then_else(condition, *each) for each in either)
        promoted_dtype, out_dtype = dtypes
        out = convert(convert(value, "float32", promoted_dtype), promoted_dtype, out_dtype)
        return (in_range.astype("bool"), out) if mask else out

    if not mask:
        return (te.compute(x.shape, body, name=name),)
    in_range, out = te.compute(x.shape, body, name=name)
    return out, in_range


def _clipped(value: Any, low: Any, high: Any, formula: Formula) -> Any:
    if formula.nan == "quant_min":
        return te.min(te.max(value, low), high)
    return te.max(te.min(value, high), low)


def _apart(value: Any, formula: Formula) -> Any:
    """Keep a product from being fused with the sum that follows."""
    if formula.form == "division":
        return value
    infinity = tirx.const(math.inf, "float32")
    return te.max(value, -infinity) if formula.nan == "quant_min" else te.min(value, infinity)


def _moved(t: Any, scale: Any, zero_point: Any, quant_range: QuantRange, formula: Formula) -> tuple[Any, Any]:
    """State the mask and the result, of what x is in steps of the scale."""
    if formula.zero_point_placement == "before":
        q = te.round(_apart(t, formula) + zero_point.astype("float32"))
        if not formula.keep_zero_sign:
            zero = tirx.const(0.0, "float32")
            q = tirx.Select(tirx.EQ(q, zero), zero, q)
    else:
        q = te.round(t) + zero_point.astype("float32")
    if quant_range.wide:
        q = q.astype("float64")
        scale, zero_point = scale.astype("float64"), zero_point.astype("float64")
    clip = _clipped(q, quant_range.low, quant_range.high, formula)
    in_range = tirx.EQ(q, clip)
    if formula.keep_zero_sign:
        clip = tirx.Select(in_range, q, clip)
    if quant_range.wide:
        in_range = tirx.all(quant_range.least <= q, q <= quant_range.greatest)
    return in_range, ((clip - zero_point) * scale).astype("float32")


def fake_quant_element(
    x: Any, scale: Any, inverse_scale: Any, zero_point: Any, quant_range: QuantRange
) -> tuple[Any, Any]:
    """State fake quantization of an element, by the formula of the contract, where loops are written out.

    Parameters
    ----------
    x, scale, inverse_scale, zero_point : tvm.ir.Expr
        float32; the zero point an integer.
    quant_range : QuantRange
        Narrow.

    Returns
    -------
    in_range, out : tvm.ir.Expr
        bool and float32.
    """
    return _moved(x * inverse_scale, scale, zero_point, quant_range, CONTRACT)


def fake_quant(
    x: te.Tensor,
    scale: te.Tensor,
    zero_point: te.Tensor,
    axis: int | None,
    quant_range: QuantRange,
    out_dtype: str | None = None,
    formula: Formula = CONTRACT,
    mask: bool = True,
) -> tuple[te.Tensor, ...]:
    """State fake quantization, per channel or per tensor.

    Parameters
    ----------
    x : te.Tensor
        float32, float16 or bfloat16, any rank above 0.
    scale : te.Tensor
        float32, float16 or bfloat16, shape (x.shape[axis],); (1,) per tensor.
    zero_point : te.Tensor
        int32, float32 or float16, of scale's shape.
    axis : int or None
        The channel dimension of x; negative counts from the end.  None for one scale and zero point of the tensor.
    quant_range : QuantRange
        Decides between the narrow and the wide path.
    out_dtype : str, optional
        dtype of out; x's by default.
    formula : Formula
        Which of those in use.
    mask : bool
        Whether it is stated.

    Returns
    -------
    out, mask : te.Tensor
        Of x's shape; mask is bool, and left out unless wanted.
    """
    parameters = channel_parameters(scale, zero_point, quant_range.wide, formula)
    if axis is not None:
        axis %= len(x.shape)
    dtypes = (promote(x.dtype, scale.dtype), out_dtype or x.dtype)
    return quantize_dequantize(x, parameters, axis, quant_range, dtypes, mask=mask)


def straight_through(grad: te.Tensor, mask: te.Tensor, name: str = "straight_through") -> te.Tensor:
    """State the gradient of fake quantization: what comes in, times the mask.

    Parameters
    ----------
    grad : te.Tensor
        float32 or float16, any rank.
    mask : te.Tensor
        bool, of grad's shape.

    Returns
    -------
    te.Tensor
        As grad.

    Notes
    -----
    A product as in PyTorch, not a choice: outside of the range a NaN or an infinity gives NaN, and a negative number
    -0.0.  It is exact, so float16 loses nothing by going through float32.
    """

    def body(*index: Any) -> Any:
        product = convert(grad[index], grad.dtype, "float32") * mask[index].astype("float32")
        return convert(product, "float32", grad.dtype)

    return te.compute(grad.shape, body, name=name)


def quotient_gradient(quotient: Any, grad: Any, divisor: Any) -> tuple[Any, Any]:
    """State the gradient of an element of a quotient.

    Parameters
    ----------
    quotient, grad, divisor : tvm.ir.Expr
        float32: the quotient, what comes in, and what was divided by.

    Returns
    -------
    by_x, by_divisor : tvm.ir.Expr
        float32; the latter is to be summed.

    Notes
    -----
    Formula: :func:`fq_tvm.reference.quotient_gradient`, which negates grad where the product is multiplied by -1 here.
    That is exact: only a NaN can tell, by its sign.  A fence keeps the product and the sum from being fused, also where
    it is a NaN.
    """
    product = grad * tirx.const(-1.0, "float32") * (quotient / divisor)
    return grad / divisor, fenced(product)


def folded_weight_gradient(weight: Any, grad: Any, mask: Any, factor: Any) -> tuple[Any, Any]:
    """State the gradient of a weight that was multiplied by a factor of its channel and fake-quantized.

    Parameters
    ----------
    weight, grad, mask, factor : tvm.ir.Expr
        float32, what comes in too, and bool.

    Returns
    -------
    by_weight, by_factor : tvm.ir.Expr
        float32; the latter is to be summed.

    Notes
    -----
    Formula: :func:`fq_tvm.reference.folded_weights_gradient`.  A fence as in :func:`quotient_gradient`.
    """
    straight = grad * mask.astype("float32")
    return straight * factor, fenced(straight * weight)


def fenced(value: Any) -> Any:
    """Keep a product from being fused with the sum that follows, also where it is a NaN."""
    return tirx.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", value)


def fused(a: Any, b: Any, c: Any) -> Any:
    """State ``a * b + c`` of float32, rounded once."""
    return tirx.call_intrin("float32", "tirx.fma", a, b, c)


class Learned(NamedTuple):
    """What the gradient by x, scale and zero point has to know of a channel, as float32 expressions.

    Parameters
    ----------
    scale, inverse_scale, zero_point : tvm.ir.Expr
        The zero point rounded and within the range.
    factor : tvm.ir.Expr
        Of the gradients by scale and zero point.
    """

    scale: Any
    inverse_scale: Any
    zero_point: Any
    factor: Any


def learnable_gradient(x: Any, grad: Any, channel: Learned, quant_range: QuantRange) -> tuple[Any, Any, Any]:
    """State the gradient of an element by x, scale and zero point.

    Parameters
    ----------
    x, grad : tvm.ir.Expr
        float32, the element and what comes in.
    channel : Learned
        Its parameters.
    quant_range : QuantRange
        Narrow.

    Returns
    -------
    by_x, by_scale, by_zero_point : tvm.ir.Expr
        float32.

    Notes
    -----
    Formula: ``aten::_fake_quantize_learnable_per_channel_affine_backward``.  It adds the zero
    point before it rounds, and its compilers fuse that sum with the product on CPUs that have such an operation, as
    ``tirx.fma`` does.  So q is not that of the operator itself at some ties.
    """
    scale, inverse_scale, zero_point, factor = channel
    zero = tirx.const(0.0, "float32")

    def fma(a: Any, b: Any, c: Any) -> Any:
        return tirx.call_intrin("float32", "tirx.fma", a, b, c)

    q = te.round(fma(x, inverse_scale, zero_point))
    clip = te.min(te.max(q, quant_range.low), quant_range.high)
    in_range, steps = tirx.EQ(q, clip), clip - zero_point
    by_scale = tirx.Select(in_range, grad * fma(steps, scale, zero - x) * inverse_scale, grad * steps)
    by_zero_point = tirx.Select(in_range, zero, (zero - grad) * scale * factor)
    return grad * in_range.astype("float32"), by_scale * factor, by_zero_point


class Extremes(NamedTuple):
    """Three extremes of floats, taken for the integers that their bits are, which tell the range of the floats.

    Parameters
    ----------
    signed, unsigned : tvm.ir.Expr
        The greatest as signed and as unsigned integers.
    least : tvm.ir.Expr
        The least as unsigned integers.

    Notes
    -----
    As integers, floats of one sign are ordered by magnitude, and those below zero are the large ones of the unsigned.
    So the least float is the greatest unsigned integer if that has a sign, else the least; the greatest float is the
    greatest signed integer if that has none, else the least unsigned one.  A NaN lies beyond the infinity of its sign:
    no element needs a comparison for it.  Such reductions may be done in any order, and twice for some elements, and
    compilers vectorize them, which they may not do with those of floats.
    """

    signed: Any
    unsigned: Any
    least: Any

    def union(self, other: Extremes) -> Extremes:
        """Return the extremes of two sets of floats together."""
        signed, unsigned, least = zip(self, other, strict=True)
        return Extremes(tirx.max(*signed), tirx.max(*unsigned), tirx.min(*least))

    @staticmethod
    def dtypes(bits: int) -> tuple[str, str, str]:
        """Return the dtypes of the fields, for floats of so many bits."""
        return f"int{bits}", f"uint{bits}", f"uint{bits}"

    @classmethod
    def none(cls, bits: int) -> Extremes:
        """Return the extremes of no float."""
        bounds = (-(1 << (bits - 1)), 0, (1 << bits) - 1)
        return cls(*(tirx.const(bound, dtype) for bound, dtype in zip(bounds, cls.dtypes(bits), strict=True)))


def extremes_of(value: Any) -> Extremes:
    """Return the extremes of one float, given as the unsigned integer that its bits are."""
    return Extremes(tirx.reinterpret(str(value.ty.dtype).removeprefix("u"), value), value, value)


class Ends(NamedTuple):
    """The greatest and the least of floats, as signed integers in the order of the floats.

    Parameters
    ----------
    greatest, least : tvm.ir.Expr
        Bits of a float, all of which but the sign are inverted where that is set.

    Notes
    -----
    A NaN lies beyond the infinity of its sign, and -0.0 before 0.0, as with :class:`Extremes`.  There is one integer
    less to keep, for two instructions more an element.
    """

    greatest: Any
    least: Any

    def union(self, other: Ends) -> Ends:
        """Return the ends of two sets of floats together."""
        return Ends(tirx.max(self.greatest, other.greatest), tirx.min(self.least, other.least))

    @staticmethod
    def dtypes(bits: int) -> tuple[str, str]:
        """Return the dtypes of the fields, for floats of so many bits."""
        return f"int{bits}", f"int{bits}"

    @classmethod
    def none(cls, bits: int) -> Ends:
        """Return the ends of no float."""
        least, greatest = (tirx.const(bound, f"int{bits}") for bound in (-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
        return cls(least, greatest)

    def extremes(self, bits: int) -> Extremes:
        """Return the extremes of the two floats, whose range is that of all."""
        greatest, least = (tirx.reinterpret(f"uint{bits}", _in_order(end, bits)) for end in self)
        return extremes_of(greatest).union(extremes_of(least))


def ends_of(value: Any, bits: int) -> Ends:
    """Return the ends of one float, given as the unsigned integer that its bits are."""
    end = _in_order(tirx.reinterpret(f"int{bits}", value), bits)
    return Ends(end, end)


def _in_order(value: Any, bits: int) -> Any:
    """Take the bits of a float for an integer in the order of floats, or back."""
    sign, rest = (tirx.const(n, f"int{bits}") for n in (bits - 1, (1 << (bits - 1)) - 1))
    return value ^ ((value >> sign) & rest)


def range_of(extremes: Extremes, dtype: str) -> tuple[Any, Any]:
    """State the least and the greatest float, both NaN if there is a NaN.

    Parameters
    ----------
    extremes : Extremes
        Of one float or more; -0.0 counts as less than 0.0.
    dtype : {"float32", "float16", "bfloat16"}
        What the bits mean.

    Returns
    -------
    least, greatest : tvm.ir.Expr
        Unsigned integers, as which the bits are to be stored.
    """
    infinity, bits = {"float32": (0x7F800000, 32), "float16": (0x7C00, 16), "bfloat16": (0x7F80, 16)}[dtype]
    (signed, unsigned, least), sign = extremes, 1 << (bits - 1)

    def const(value: int) -> Any:
        return tirx.const(value, f"uint{bits}")

    is_nan = tirx.any(signed > tirx.const(infinity, f"int{bits}"), unsigned > const(infinity | sign))
    greatest = tirx.Select(signed >= tirx.const(0, f"int{bits}"), tirx.reinterpret(f"uint{bits}", signed), least)
    smallest = tirx.Select(unsigned >= const(sign), unsigned, least)
    nan = const(infinity | (infinity >> 1))
    return tirx.Select(is_nan, nan, smallest), tirx.Select(is_nan, nan, greatest)


def moving_average(running: Any, current: Any, constant: Any) -> Any:
    """State the moving average of a bound: what is current where there is none yet, which is an infinity.

    Parameters
    ----------
    running, current, constant : tvm.ir.Expr
        float32: the average so far, what is taken in, and its weight.

    Notes
    -----
    A maximum with minus infinity keeps the product and the sum from being fused, as in :func:`fake_quant`; it changes a
    NaN only, and what that becomes is not finite either.
    """
    infinity = tirx.const(math.inf, "float32")
    none = tirx.any(tirx.EQ(running, infinity), tirx.EQ(running, -infinity))
    return tirx.Select(none, current, running + te.max(constant * (current - running), -infinity))


def is_finite_range(low: Any, high: Any) -> Any:
    """State whether bounds are finite and in order, without which torch is to judge them."""
    infinity = tirx.const(math.inf, "float32")
    return tirx.all(low > -infinity, low <= high, high < infinity)


def observed_parameters(low: Any, high: Any, quant_range: QuantRange, symmetric: bool) -> tuple[list[Any], Any, Any]:
    """State the scale and the zero point that a range gets.

    Parameters
    ----------
    low, high : tvm.ir.Expr
        float32, finite: the least and the greatest element.
    quant_range : QuantRange
        The range of integers, as float32.
    symmetric : bool
        Whether a range around zero is made symmetric first.

    Returns
    -------
    steps : list of Stmt
        Keep what the others are made of, which is used so often that TVM takes a minute where it is one expression.
    scale, zero_point : tvm.ir.Expr
        float32 and int32.

    Notes
    -----
    Formula: :func:`fq_tvm.reference.observed_parameters`, float32 and float64 where that has them.  No product meets a
    sum but through a selection or a quotient, so none can be fused.
    """
    steps: list[Any] = []

    def bound(value: Any) -> Any:
        buffer = tirx.decl_buffer((1,), value.ty.dtype, "step")
        steps.extend((tirx.AllocBuffer(buffer), tirx.BufferStore(buffer, value, [0])))
        return buffer[0]

    low, high = bound(low), bound(high)

    def single(value: float) -> Any:
        return tirx.const(value, "float32")

    def double(value: Any) -> Any:
        return tirx.const(value, "float64") if isinstance(value, float) else value.astype("float64")

    zero, least_scale = single(0.0), float(np.float32(LEAST_SCALE))
    width = quant_range.high - quant_range.low
    around = tirx.all(low < zero, high > zero)
    if symmetric:
        half = te.floor(width * single(0.5))
        step = bound(te.max(te.abs(low / (half + single(1.0))), te.abs(high / half)))
        low = tirx.Select(around, step * (single(-1.0) - half), low)
        high = tirx.Select(around, step * half, high)
    low, high = bound(te.min(low, zero)), bound(te.max(high, zero))
    scale = bound((double(high) - double(low)) / double(width))
    rounded = bound(scale.astype("float32"))
    none = tirx.any(tirx.EQ(rounded, zero), tirx.EQ(single(1.0) / rounded, single(math.inf)))
    scale = bound(tirx.Select(none, double(NO_SCALE), scale))
    small = scale < double(least_scale)
    factor, reach = single(least_scale) / rounded, single(least_scale) * width

    def lengthened(this: Any, other: Any, end: Any) -> Any:
        scaled = tirx.Select(tirx.EQ(this, zero), zero, this * factor)
        return tirx.Select(small, tirx.Select(tirx.EQ(other, zero), end, scaled), this)

    low, high = bound(lengthened(low, high, -reach)), bound(lengthened(high, low, reach))
    scale = bound(tirx.Select(small, double(least_scale), scale))
    first, last = double(quant_range.low), double(quant_range.high)
    below, above = bound(double(low) / scale), bound(double(high) / scale)
    nearer = te.abs(first) - te.abs(below) < te.abs(last) - te.abs(above)
    zero_point = bound(tirx.Select(nearer, first - below, last - above))
    if symmetric:
        middle = (first + last) * double(0.5)
        zero_point = tirx.Select(tirx.all(low < zero, high > zero), middle, zero_point)
    zero_point = te.round(te.min(te.max(zero_point, first), last))
    return steps, scale.astype("float32"), zero_point.astype("int32")

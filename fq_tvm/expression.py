"""The operator as a TVM tensor expression, for any rank and axis.

The only place that states the arithmetic to a compiler.  CPU kernels use these stages on collapsed shapes, Ascend
printers and the graph compiler on the caller's.  Knows nothing of schedules, strides or targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from .spec import promote, quant_range_scalars

__all__ = [
    "ChannelParameters",
    "QuantRange",
    "channel_parameters",
    "cycle",
    "expand",
    "fake_quant",
    "quantize_dequantize",
]


@dataclass(frozen=True)
class QuantRange:
    """The quantisation range as expressions, constant or symbolic.

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
        return cls(*(tirx.const(value, dtype) for value in scalars))


@dataclass(frozen=True)
class ChannelParameters:
    """What the arithmetic needs to know of a channel, as tensors indexed by the channel.

    Parameters
    ----------
    inverse_scale : te.Tensor
        ``1 / float32(scale)``, float32.
    zero_point : te.Tensor
        float32 in the narrow path; the zero point itself in the wide one, where the last subtraction is exact.
    scale : te.Tensor
        ``float32(scale)``.
    """

    inverse_scale: te.Tensor
    zero_point: te.Tensor
    scale: te.Tensor

    def __iter__(self) -> Any:
        return iter((self.inverse_scale, self.zero_point, self.scale))


def channel_parameters(scale: te.Tensor, zero_point: te.Tensor, wide: bool = False) -> ChannelParameters:
    """State the stages that make a channel's parameters of scale and zero point.

    Parameters
    ----------
    scale : te.Tensor
        Any float dtype, shape (channels,).
    zero_point : te.Tensor
        int32, shape (channels,).
    wide : bool
        Whether the wide path reads them.

    Returns
    -------
    ChannelParameters
        Three tensors of shape (channels,).
    """
    scale_f32 = te.compute(scale.shape, lambda c: scale[c].astype("float32"), name="scale_f32")
    inverse = te.compute(scale.shape, lambda c: tirx.const(1.0, "float32") / scale_f32[c], name="inverse_scale")
    zero = zero_point
    if not wide:
        zero = te.compute(scale.shape, lambda c: zero_point[c].astype("float32"), name="zero_point_f32")
    return ChannelParameters(inverse, zero, scale_f32)


def expand(parameters: ChannelParameters, copies: Any, inner: Any) -> ChannelParameters:
    """Repeat the parameters along a run of virtual channels.

    Parameters
    ----------
    parameters : ChannelParameters
        Of shape (channels,).
    copies, inner : Expr
        How often the whole is repeated, and each channel within it.

    Returns
    -------
    ChannelParameters
        Three tensors of shape (copies, channels, inner), the outputs of one stage.
    """
    shape = (copies, *parameters.scale.shape, inner)
    return ChannelParameters(*te.compute(shape, lambda k, c, i: tuple(t[c] for t in parameters), name="expand"))


def cycle(parameters: ChannelParameters, channels: Any, rows: Any) -> ChannelParameters:
    """Give each of many rows the parameters of its channel.

    Parameters
    ----------
    parameters : ChannelParameters
        Of shape (channels,).
    channels, rows : Expr
        Row ``r`` belongs to channel ``r % channels``.

    Returns
    -------
    ChannelParameters
        Three tensors of shape (rows,), the stages ``row_inverse_scale``, ``row_zero_point`` and ``row_scale``.
    """
    names = ("row_inverse_scale", "row_zero_point", "row_scale")

    def look_up(tensor: te.Tensor, name: str) -> te.Tensor:
        # Rows are never negative, which TVM cannot know: a floored remainder would cost several times as much.
        return te.compute((rows,), lambda r: tensor[tirx.truncmod(r, channels)], name=name)

    return ChannelParameters(*(look_up(t, n) for t, n in zip(parameters, names, strict=True)))


def quantize_dequantize(
    x: te.Tensor,
    parameters: ChannelParameters,
    axis: int,
    quant_range: QuantRange,
    promoted_dtype: str,
    out_dtype: str,
    name: str = "fake_quant",
) -> tuple[te.Tensor, te.Tensor]:
    """State the operator on a tensor whose channel parameters are there already.

    One stage with two outputs, so that a schedule reads x once and writes twice: the mask first, so that out may lie
    on x, which the mask is made of, too.

    Parameters
    ----------
    x : te.Tensor
        Any float dtype, any rank.
    parameters : ChannelParameters
        Of x's extent along axis.
    axis : int
        The channel dimension of x, not negative.
    quant_range : QuantRange
        Decides between the narrow and the wide path.
    promoted_dtype, out_dtype : str
        The result is rounded to the first, then to the second.
    name : str
        Name of the stage.

    Returns
    -------
    out, mask : te.Tensor
        Of x's shape; mask is bool.

    Notes
    -----
    ``te.round`` is IEEE round half to even and, unlike ``te.nearbyint``, survives vectorisation.  ``max`` and ``min``
    are ordered selects that give their second operand when the first is NaN, which is how a NaN becomes quant_min.
    """

    def body(*index: Any) -> tuple[Any, Any]:
        channel = index[axis]
        scale = parameters.scale[channel]
        zero_point = parameters.zero_point[channel]
        product = x[index].astype("float32") * parameters.inverse_scale[channel]
        q = te.round(product) + zero_point.astype("float32")
        if quant_range.wide:
            q = q.astype("float64")
            scale, zero_point = scale.astype("float64"), zero_point.astype("float64")
        clip = te.min(te.max(q, quant_range.low), quant_range.high)
        out = ((clip - zero_point) * scale).astype("float32")
        if quant_range.wide:
            mask = tirx.all(quant_range.least <= q, q <= quant_range.greatest)
        else:
            mask = tirx.EQ(q, clip)
        return mask.astype("bool"), out.astype(promoted_dtype).astype(out_dtype)

    mask, out = te.compute(x.shape, body, name=name)
    return out, mask


def fake_quant(
    x: te.Tensor,
    scale: te.Tensor,
    zero_point: te.Tensor,
    axis: int,
    quant_range: QuantRange,
    out_dtype: str | None = None,
) -> tuple[te.Tensor, te.Tensor]:
    """State per-channel fake quantisation with its mask.

    Parameters
    ----------
    x : te.Tensor
        float16 or float32, any rank above 0.
    scale : te.Tensor
        float16 or float32, shape (x.shape[axis],).
    zero_point : te.Tensor
        int32, shape (x.shape[axis],).
    axis : int
        The channel dimension of x; negative counts from the end.
    quant_range : QuantRange
        Decides between the narrow and the wide path.
    out_dtype : str, optional
        dtype of out; x's by default.

    Returns
    -------
    out, mask : te.Tensor
        Of x's shape; mask is bool.
    """
    promoted = promote(x.dtype, scale.dtype)
    parameters = channel_parameters(scale, zero_point, quant_range.wide)
    axis = axis % len(x.shape)
    return quantize_dequantize(x, parameters, axis, quant_range, promoted, out_dtype or x.dtype)

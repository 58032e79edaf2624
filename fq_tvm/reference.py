"""The contract in numpy: slow, plain, and the judge of everything else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .spec import NARROW_LIMIT, Formula

__all__ = ["fake_quant", "straight_through"]


def fake_quant(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike,
    axis: int | None,
    quant_min: int,
    quant_max: int,
    out_dtype: DTypeLike | None = None,
    **formula: Any,
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Fake-quantize per channel or per tensor, as docs/numerics.md says, step by step.

    Parameters
    ----------
    x : array_like
        float32, float16 or bfloat16 (of ml_dtypes), any shape.
    scale : array_like
        float32, float16 or bfloat16, shape (x.shape[axis],); without an axis one element, shape () or (1,).
    zero_point : array_like
        int32, float32 or float16, of scale's shape.
    axis : int or None
        Channel dimension, negative counts from the end; 0 or -1 for a 0-dimensional x.  None for one scale and zero
        point of the whole tensor.
    quant_min, quant_max : int
        The range, any int64.
    out_dtype : dtype, optional
        dtype of out; x's by default.
    **formula
        ``form``, ``zero_point_placement``, ``keep_zero_sign`` and ``nan``, as :class:`fq_tvm.spec.Formula` has them;
        the contract's by default.

    Returns
    -------
    out : numpy.ndarray
        x's shape, out_dtype.
    mask : numpy.ndarray
        x's shape, bool.

    Raises
    ------
    FqError
        If there is no such formula.

    Notes
    -----
    Formula: ``aclnnFakeQuantPerChannelAffineCachemask`` as its kernel computes it, with the reciprocal of the scale.
    In the wide path the last subtraction takes the integer zero point itself, as PyTorch does.
    """
    x, scale, zero_point = np.asarray(x), np.asarray(scale), np.asarray(zero_point)
    f32 = np.float32
    how = Formula(**formula).of(zero_point.dtype.name)
    shape = [1] * x.ndim
    if x.ndim and axis is not None:
        shape[axis] = -1
    s, z = scale.astype(f32).reshape(shape), zero_point.reshape(shape)
    promoted = x.dtype if x.dtype == scale.dtype else np.dtype(f32)
    with np.errstate(all="ignore"):
        t = x.astype(f32) * (f32(1) / s) if how.form == "reciprocal" else x.astype(f32) / s
        before = how.zero_point_placement == "before"
        q = np.rint(t + z.astype(f32)) if before else np.rint(t) + z.astype(f32)
        if not how.keep_zero_sign:
            q = q + f32(0)  # it stands for an integer, which has no negative zero
        wide = max(abs(quant_min), abs(quant_max)) > NARROW_LIMIT
        precision = np.float64 if wide else f32
        q, low, high = q.astype(precision), precision(quant_min), precision(quant_max)
        mask = _at_least(q, quant_min) & _at_most(q, quant_max) if wide else (q >= low) & (q <= high)
        clip = np.where(q < low, low, np.where(q > high, high, q))  # a zero keeps its sign here
        clip = np.where(np.isnan(q), low if how.nan == "quant_min" else high, clip)
        out = ((clip - z.astype(precision)) * s.astype(precision)).astype(f32)
        out = out.astype(promoted).astype(f32).astype(out_dtype or x.dtype)
    return np.asarray(out), np.asarray(mask)


def straight_through(grad: ArrayLike, mask: ArrayLike) -> NDArray[np.floating]:
    """Gradient of fake quantization: ``grad * mask``, in grad's dtype.

    Parameters
    ----------
    grad : array_like
        Of the result; float32 or float16, any shape.
    mask : array_like
        bool, of grad's shape.

    Notes
    -----
    Formula: ``aten::fake_quantize_per_channel_affine_cachemask_backward``.
    """
    grad = np.asarray(grad)
    with np.errstate(all="ignore"):
        product: NDArray[np.floating] = grad * np.asarray(mask).astype(grad.dtype)
    return product


def _at_most(q: NDArray[np.float64], bound: int) -> NDArray[np.bool_]:
    """``q <= bound`` as integers: a float64 may be above an int64 that rounds to it."""
    limit = float(bound)
    return q <= (limit if int(limit) <= bound else math.nextafter(limit, -math.inf))


def _at_least(q: NDArray[np.float64], bound: int) -> NDArray[np.bool_]:
    """``q >= bound`` as integers."""
    limit = float(bound)
    return q >= (limit if int(limit) >= bound else math.nextafter(limit, math.inf))

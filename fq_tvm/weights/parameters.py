"""Scales and zero points from data."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CacheMissError, FqError
from ..functional import channel_range
from ..launch.arguments import normalize_axis

Array = NDArray[Any]

KERNEL_MIN_ELEMENTS = 2**20
"""Elements from which a kernel may save more than building it costs: below, numpy takes a millisecond."""


def range_of_bits(bits: int) -> tuple[int, int]:
    """Return the range of signed integers of a width.

    Raises
    ------
    FqError
        If the width is not from 2 to 32.

    Examples
    --------
    >>> range_of_bits(4)
    (-8, 7)
    """
    if not 2 <= bits <= 32:
        raise FqError(f"bits is {bits}; expected 2 to 32")
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def choose_parameters(
    x: Array, axis: int, quant_min: int, quant_max: int, symmetric: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Choose scale and zero point such that each channel's finite values just fit the range.

    Parameters
    ----------
    x : numpy.ndarray
        float16 or float32.
    axis : int
        The channel dimension.
    quant_min, quant_max : int
        The range.
    symmetric : bool
        One zero point for all channels, the middle of the range (0 for signed integers), and a scale from the largest
        magnitude.  Otherwise both come from minimum and maximum, with 0.0 always representable.

    Returns
    -------
    scale : numpy.ndarray
        float32, shape (x.shape[axis],); positive and normal, 1 for a channel without values other than 0.
    zero_point : numpy.ndarray
        int32, shape (x.shape[axis],), within the range.

    Raises
    ------
    FqError
        If the range has no zero point that is an int32.

    Examples
    --------
    >>> scale, zero_point = choose_parameters(np.float32([[1.27, -0.5], [0.0, 0.0]]), 0, -128, 127)
    >>> scale, zero_point
    (array([0.01, 1.  ], dtype=float32), array([0, 0], dtype=int32))
    """
    axis = normalize_axis(axis, x.ndim)
    low, high = _finite_extremes(x, axis) if x.size else np.zeros((2, x.shape[axis]))
    if symmetric:
        middle = (quant_min + quant_max + 1) // 2
        zero_point = np.full(len(low), middle, np.float64)
        reach = min(quant_max - middle, middle - quant_min) or max(quant_max - middle, middle - quant_min)
        scale = np.maximum(-low, high) / max(reach, 1)
    else:
        scale = (high - low) / max(quant_max - quant_min, 1)
    # a subnormal scale has no finite reciprocal, and neither end may leave float32
    limits = np.finfo(np.float32)
    step = np.where(scale > 0, np.clip(scale, limits.tiny, limits.max), 1.0).astype(np.float32)
    if not symmetric:
        zero_point = np.clip(np.rint(quant_min - low / step), quant_min, quant_max)
    bounds = np.iinfo(np.int32)
    if len(zero_point) and not (bounds.min <= zero_point.min() and zero_point.max() <= bounds.max):
        raise FqError(
            f"the range {quant_min} to {quant_max} needs a zero point that is no int32; give scale and zero point"
        )
    return step, zero_point.astype(np.int32)


def _finite_extremes(x: Array, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minimum, at most 0, and maximum, at least 0, of the finite values of each channel."""
    low, high = _range(x, axis)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        low, high = _range(np.where(np.isfinite(x), x, x.dtype.type(0)), axis)
    return np.minimum(low, 0).astype(np.float64), np.maximum(high, 0).astype(np.float64)


def _range(x: Array, axis: int) -> tuple[Array, Array]:
    if x.size >= KERNEL_MIN_ELEMENTS:
        # not there in a library that was built without; numpy is slower, not wrong
        with contextlib.suppress(CacheMissError):
            return channel_range(x, axis)
    others = tuple(d for d in range(x.ndim) if d != axis)
    with np.errstate(invalid="ignore"):
        return x.min(axis=others).reshape(-1), x.max(axis=others).reshape(-1)

"""What torch's fused observer makes of a range: moving average, scale and zero point, with torch's bits.

torch calls ``ChooseQuantizationParams`` for each channel and writes what it gives one by one.  Here the same
steps are taken, each rounded as there, for all channels at once; :func:`agrees` finds out whether this torch was built
so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from ctypes import c_float, c_int32
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Vector = NDArray[np.float32]

LEAST_SCALE = np.float32(6.1e-5)
"""What torch makes of scales below, about where float16 becomes subnormal."""

NO_SCALE = 0.1
"""What torch makes of scales that are zero, or have no finite reciprocal."""

OFF = torch.zeros(1, dtype=torch.int64)
"""A switch of an observer, turned off."""


def averages(running: Vector, current: Vector, constant: float) -> Vector:
    """Return the moving averages of a bound: of channels that have none yet, which is an infinity, the bound itself.

    Parameters
    ----------
    running, current : numpy.ndarray
        float32, shape (channels,).
    constant : float
        Weight of what is current; taken as a float32.
    """
    with np.errstate(all="ignore"):
        moved = running + np.float32(constant) * (current - running)
        return np.where(new, current, moved) if (new := np.isinf(running)).any() else moved


def parameters(
    low: Vector, high: Vector, quant_min: int, quant_max: int, symmetric: bool
) -> tuple[Vector, NDArray[np.int32]]:
    """Choose scale and zero point of each channel by its range.

    Parameters
    ----------
    low, high : numpy.ndarray
        float32, shape (channels,), finite.
    quant_min, quant_max : int
        The range of integers, at least two wide.
    symmetric : bool
        Whether a range around zero is made symmetric first, with the zero point in the middle.

    Returns
    -------
    scale : numpy.ndarray
        float32, shape (channels,).
    zero_point : numpy.ndarray
        int32, shape (channels,).

    Notes
    -----
    Formula: ``ChooseQuantizationParams`` of torch's ``ATen/native/quantized/cpu/QuantUtils.h``, which is that of
    FBGEMM; its float32 and float64 steps are the same here.
    """
    with np.errstate(all="ignore"):
        if symmetric:
            half = (quant_max - quant_min) // 2
            around = (low < 0) & (high > 0)
            step = np.maximum(np.abs(low / np.float32(half + 1)), np.abs(high / np.float32(half))).astype(np.float64)
            ends = (step * -(half + 1)).astype(np.float32), (step * half).astype(np.float32)
            low, high = (
                ends if around.all() else (np.where(around, *pair) for pair in zip(ends, (low, high), strict=True))
            )
        low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
        scale = (high.astype(np.float64) - low) / (quant_max - quant_min)
        if (scale < LEAST_SCALE).any():
            single = scale.astype(np.float32)
            scale[(single == 0) | np.isinf(np.float32(1) / single)] = NO_SCALE
            small = scale < LEAST_SCALE
            # an end that is zero stays so, as torch would have it
            factor, reach = LEAST_SCALE / single, LEAST_SCALE * np.float32(quant_max - quant_min)
            both = (low != 0) & (high != 0)
            low = np.where(small & (high == 0) & (low != 0), -reach, np.where(small & both, low * factor, low))
            high = np.where(small & (low == 0), reach, np.where(small & both, high * factor, high))
            scale[small] = LEAST_SCALE
        middle = (quant_min + quant_max) / 2
        if symmetric and (around := (low < 0) & (high > 0)).all():  # as weights have it; the rest would be thrown away
            return scale.astype(np.float32), np.full(len(scale), round(middle), np.int32)
        below, above = low / scale, high / scale
        nearer = abs(quant_min) - np.abs(below) < abs(quant_max) - np.abs(above)
        zero_point = np.where(nearer, quant_min - below, quant_max - above)
        if symmetric:
            zero_point = np.where(around, middle, zero_point)
        zero_point = np.rint(np.clip(zero_point, quant_min, quant_max))
        return scale.astype(np.float32), zero_point.astype(np.int32)


def _single(value: float) -> float:
    """Round to float32: so a sum, product or quotient of two becomes the one that float32 has."""
    return c_float(value).value


def average(running: float, current: float, constant: float) -> float:
    """Do what :func:`averages` does with numbers that float32 has, in a tenth of the time."""
    if math.isinf(running):
        return current
    return _single(running + _single(_single(constant) * _single(current - running)))


def parameter(low: float, high: float, quant_min: int, quant_max: int, symmetric: bool) -> tuple[float, int]:
    """Do what :func:`parameters` does with numbers that float32 has, in a tenth of the time."""
    least, greatest = low, high
    if symmetric and low < 0 < high:
        half = (quant_max - quant_min) // 2
        step = max(_single(abs(low / (half + 1))), _single(abs(high / half)))
        low, high = _single(step * -(half + 1)), _single(step * half)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (quant_max - quant_min)
    if scale < LEAST_SCALE:
        ends = np.array([[least], [greatest]], np.float32)
        scales, zero_points = parameters(ends[0], ends[1], quant_min, quant_max, symmetric)
        return scales.item(), zero_points.item()
    below, above = low / scale, high / scale
    nearer = abs(quant_min) - abs(below) < abs(quant_max) - abs(above)
    zero_point = quant_min - below if nearer else quant_max - above
    if symmetric and low < 0 < high:
        zero_point = (quant_min + quant_max) / 2
    return _single(scale), round(min(max(zero_point, quant_min), quant_max))


def channels(
    buffers: Sequence[torch.Tensor],
    current: Sequence[torch.Tensor] | None,
    constant: float,
    bounds: tuple[int, int] | None,
    symmetric: bool,
) -> bool:
    """Write moving averages, scales and zero points of channels.

    Parameters
    ----------
    buffers : sequence of torch.Tensor
        Running minimum and maximum and scale, of float32, and zero point, of int32: contiguous, shape (channels,).
    current : sequence of torch.Tensor or None
        The range that is taken in, if one is.
    constant : float
        Its weight.
    bounds : tuple of int or None
        The range of integers, if parameters are wanted.
    symmetric : bool
        See :func:`parameters`.

    Returns
    -------
    bool
        Whether they were written: all of them, or none where a bound is not finite or above the other.
    """
    # of copies, as what numpy has seen can never be resized again, which modules do to buffers of other sizes
    moved = running = [buffer.detach().clone().numpy() for buffer in buffers[:2]]
    if current is not None:
        moved = [averages(r, c.numpy(), constant) for r, c in zip(running, current, strict=True)]
    if not (all(np.isfinite(values).all() for values in moved) and (moved[0] <= moved[1]).all()):
        return False
    chosen = () if bounds is None else parameters(moved[0], moved[1], *bounds, symmetric)
    for buffer, values in zip(buffers, (*moved, *chosen), strict=False):
        buffer.detach().copy_(torch.from_numpy(values))
    return True


def tensor(
    buffers: Sequence[torch.Tensor],
    current: Sequence[torch.Tensor] | None,
    constant: float,
    bounds: tuple[int, int] | None,
    symmetric: bool,
) -> bool:
    """Do what :func:`channels` does with those of one element, in a fraction of the time."""
    places = [c_float.from_address(buffer.data_ptr()) for buffer in buffers[:3]]
    low, high = places[0].value, places[1].value
    if current is not None:
        low, high = (average(r, c.item(), constant) for r, c in zip((low, high), current, strict=True))
    if not -math.inf < low <= high < math.inf:
        return False
    if current is not None:
        places[0].value, places[1].value = low, high
    if bounds is not None:
        places[2].value, zero_point = parameter(low, high, *bounds, symmetric)
        c_int32.from_address(buffers[3].data_ptr()).value = zero_point
    return True


_agrees: bool | None = None


def agrees(stock: Callable[..., Any]) -> bool:
    """Whether torch's kernel takes the steps of this module, bit for bit: builds without FBGEMM take others."""
    global _agrees
    if _agrees is None:
        _agrees = _compare(stock)
    return _agrees


def _compare(stock: Callable[..., Any]) -> bool:
    rng = np.random.default_rng(0)
    x, running = (np.float32(rng.standard_normal((2, 64)) * 10.0 ** rng.integers(-6, 4, 64)) for _ in range(2))
    x[:, :8], running[:, :8] = np.abs(x[:, :8]), np.abs(running[:, :8])
    x[:, 8:12], running[:, 8:12] = 0, 0
    x, running = np.sort(x, axis=0), np.sort(running, axis=0)
    running[:, 4:20] = ((np.inf,), (-np.inf,))
    one = torch.ones(1, dtype=torch.int64)
    for symmetric, bounds in ((False, (0, 255)), (True, (-128, 127)), (True, (0, 127)), (False, (-8, 7))):
        buffers = [torch.from_numpy(bound.copy()) for bound in running]
        made = torch.ones(64), torch.zeros(64, dtype=torch.int32)
        stock(torch.from_numpy(x.T.copy()), one, one, *buffers, *made, 0.01, *bounds, 0, True, symmetric)
        low, high = (averages(bound, each, 0.01) for bound, each in zip(running, x, strict=True))
        expected = (low, high, *parameters(low, high, *bounds, symmetric))
        if not all(np.array_equal(a.numpy(), b) for a, b in zip((*buffers, *made), expected, strict=True)):
            return False
    return True

"""Data for comparisons: half of it exact ties, and every special value that fits."""

from __future__ import annotations

import numpy as np

SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, -65504.0, 6e-8, 3e38, -3e38, 4e9, -4e9, 1e-40, 2.5, -3.5)


def tie_heavy(
    shape: tuple[int, ...],
    axis: int,
    dtype: str,
    scale_dtype: str,
    quant_min: int,
    quant_max: int,
    seed: int = 0,
    special: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make x, scale and zero point: ties in, below, above and at the ends of the range."""
    rng = np.random.default_rng(seed)
    channels = shape[axis]
    # A power of two makes products with half-integers exact; the others are for reciprocals that round.
    scale = np.where(rng.random(channels) < 0.5, 2.0 ** rng.integers(-6, 3, channels), rng.random(channels) + 0.05)
    scale = scale.astype(scale_dtype)
    width = quant_max - quant_min
    zero_point = rng.integers(quant_min - width // 4 - 2, quant_max + width // 4 + 2, channels).astype(np.int32)
    if special:
        zero_point[rng.random(channels) < 0.05] = 2**31 - 1
        zero_point[rng.random(channels) < 0.05] = -(2**31)
    spread = [-1 if d == axis else 1 for d in range(len(shape))]
    wide_scale, wide_zero = scale.astype(np.float64).reshape(spread), zero_point.astype(np.float64).reshape(spread)
    ties = rng.integers(quant_min - width // 4 - 2, quant_max + width // 4 + 3, shape) - wide_zero + 0.5
    ties = np.where(np.abs(ties) < 2.0**22, ties, rng.integers(-9, 9, shape) + 0.5)
    loose = rng.standard_normal(shape) * width / 2 * wide_scale
    with np.errstate(over="ignore"):
        x = np.where(rng.random(shape) < 0.6, ties * wide_scale, loose).astype(dtype)
        if special:
            values = np.array(SPECIAL).astype(dtype)
            places = rng.choice(x.size, min(x.size // 3, 4 * len(SPECIAL)), replace=False)
            x.flat[places] = np.resize(values, places.size)
    return x, scale, zero_point


def bit_differences(ours: np.ndarray, expected: np.ndarray) -> int:
    """How many elements differ in a bit; NaN results count as equal whatever their payload."""
    assert ours.dtype == expected.dtype and ours.shape == expected.shape
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32}[ours.dtype.itemsize]
    different = ours.view(unsigned) != expected.view(unsigned)
    if ours.dtype.kind == "f":
        different &= ~(np.isnan(ours) & np.isnan(expected))
    return int(different.sum())

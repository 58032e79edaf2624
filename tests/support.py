"""Data and comparisons that several test files use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fq_tvm.reference import fake_quant

RANGES = [(-128, 127), (0, 255), (-8, 7), (0, 0), (-(2**23), 2**23), (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)]
"""int8, uint8, int4, a single value, the last narrow range, a wide one, the widest."""

SPECIALS = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-45, 3e38, -3e38, 65504.0, 6e-8, 0.5, -0.5, 1.5, 2.5, -2.5]
"""Signed zeros, infinities, NaN, subnormals (also of float16), huge values, ties that round either way."""


def channel_view(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Shape a vector so that it broadcasts along an axis."""
    return values.reshape([-1 if d == axis % rank else 1 for d in range(rank)]) if rank else values.reshape([])


def make(
    rng: np.random.Generator,
    shape: Sequence[int],
    axis: int,
    dtype: str = "float32",
    scale_dtype: str = "float32",
    quant_range: tuple[int, int] = (-128, 127),
    *,
    specials: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make x, scale and zero point of which many products are exact ties.

    Half of the elements lie halfway between two integers of their channel, some outside the range; the rest is spread
    over the range and beyond, and a few are special values.
    """
    shape = tuple(shape)
    channels = shape[axis] if shape else 1
    low, high = (float(np.clip(bound, -(2**20), 2**20)) for bound in quant_range)
    scale = np.where(rng.random(channels) < 0.7, 2.0 ** rng.integers(-6, 3, channels), rng.random(channels) + 0.05)
    # zero points within the range, as torch wants them, but small enough that halves stay exact
    zero_point = rng.integers(max(low, min(high, -200)), min(high, max(low, 200)) + 1, channels).astype(np.int32)
    scale = scale.astype(scale_dtype)
    s, z = (channel_view(v.astype(np.float64), axis, len(shape)) for v in (scale, zero_point))
    reach = 300.0 if dtype == "float16" else 4000.0  # how far halves of integers are exact, zero points included
    span, first = min(high - low, 2 * reach) + 8, max(low, -reach) - 4
    q = rng.integers(0, int(span) + 1, shape) + first
    ties = (q - z + 0.5) * s
    spread = (rng.random(shape) * span * 1.5 + first - span / 4 - z) * s
    with np.errstate(over="ignore"):
        x = np.asarray(np.where(rng.random(shape) < 0.6, ties, spread)).astype(dtype)
        if specials and x.size:
            where = rng.integers(0, x.size, max(x.size // 20, 1))
            x.reshape(-1)[where] = rng.choice(np.array(SPECIALS), len(where)).astype(dtype)
    return x, scale, zero_point


def tie_share(x: np.ndarray, scale: np.ndarray, axis: int) -> float:
    """Return the share of elements whose product with the reciprocal is exactly halfway between two integers."""
    with np.errstate(all="ignore"):
        product = x.astype("f4") * (np.float32(1) / channel_view(scale.astype("f4"), axis, x.ndim))
        return float(np.mean(np.abs(product - np.trunc(product)) == 0.5))


def bits(array: np.ndarray) -> np.ndarray:
    """Return the elements as unsigned integers, so that -0.0 differs from 0.0 and a NaN equals itself."""
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


def assert_same(got: Any, expected: Any) -> None:
    """Compare (out, mask) pairs bit for bit."""
    for name, a, b in zip(("out", "mask"), got, expected, strict=True):
        assert a.dtype == b.dtype, f"{name}: {a.dtype} instead of {b.dtype}"
        assert a.shape == b.shape, f"{name}: shape {a.shape} instead of {b.shape}"
        differ = np.argwhere(np.atleast_1d(bits(a) != bits(b)))
        if len(differ):
            at = tuple(differ[0][: a.ndim])
            raise AssertionError(
                f"{name} differs in {len(differ)} of {a.size} elements, first at {at}: {a[at]} for {b[at]}"
            )


def expected(x: Any, scale: Any, zero_point: Any, axis: int, low: int, high: int, out_dtype: Any = None) -> Any:
    """Return the reference's answer."""
    return fake_quant(x, scale, zero_point, axis, low, high, out_dtype)

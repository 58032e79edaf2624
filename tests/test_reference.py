"""The judge itself: against torch wherever torch accepts the input, and the contract's edges by hand."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from support import RANGES, assert_same, bits, channel_view, make, tie_share, to_numpy, to_torch

from fq_tvm.reference import fake_quant

ATEN = torch.ops.aten.fake_quantize_per_channel_affine_cachemask


def one(x: float, scale: float = 1.0, zero_point: int = 0, low: int = -128, high: int = 127, dtype: str = "float32"):
    out, mask = fake_quant(
        np.array([x], dtype), np.array([scale], "float32"), np.array([zero_point], "int32"), 0, low, high
    )
    return out[0], mask[0]


@pytest.mark.parametrize("quant_range", RANGES[:6])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("shape", "axis"), [((3, 5, 7), 1), ((64,), 0), ((4, 300), -1), ((2, 3, 4, 5), 0)])
def test_equals_torch(shape, axis, dtype, quant_range):
    rng = np.random.default_rng(7)
    low, high = quant_range
    x, scale, zero_point = make(rng, shape, axis, dtype, quant_range=quant_range)
    with np.errstate(over="ignore"):
        x[np.isposinf(x)] = 0  # torch overflows an int64 there, see docs/numerics.md
        if dtype == "float32":
            x[np.abs(x) > 1e18] = 0
    assert low <= zero_point.min() <= zero_point.max() <= high
    expected = ATEN(*(torch.from_numpy(a) for a in (x, scale, zero_point)), axis % len(shape), low, high)
    assert_same(fake_quant(x, scale, zero_point, axis, low, high), [t.numpy() for t in expected])


def test_data_is_full_of_ties():
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float16", "bfloat16"):
        for zero_point_dtype in ("int32", "float32"):
            for quant_range in RANGES[:6]:
                kinds = {"dtype": dtype, "quant_range": quant_range, "zero_point_dtype": zero_point_dtype}
                x, scale, zero_point = make(rng, (64, 199), 0, **kinds)
                assert tie_share(x, scale, 0, zero_point) > 0.25, kinds


@pytest.mark.parametrize(
    ("x", "q"), [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (126.5, 126), (127.5, 127)]
)
def test_ties_go_to_even(x, q):
    assert one(x)[0] == q


def test_reciprocal_not_division():
    # 39 / 13 would be 3; 1/13 in float32 is rounded, and the product decides
    scale = np.float32(0.1)
    x = np.float32(0.35)
    q = np.rint(x * (np.float32(1) / scale))
    assert one(x, scale)[0] == q * scale


def test_nan_is_quant_min_and_masked():
    assert one(np.nan, 0.5, 3, -8, 7) == ((-8 - 3) * 0.5, False)
    assert one(np.nan, 0.5, 3, -(2**63), 2**63 - 1) == ((-(2.0**63) - 3) * 0.5, False)


@pytest.mark.parametrize("bounds", [(-8, 7), (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)])
def test_infinities_saturate(bounds):
    low, high = bounds
    for x in (np.inf, 3e38):
        assert one(x, 1.0, 0, low, high) == (np.float32(high), False)
    for x in (-np.inf, -3e38):
        assert one(x, 1.0, 0, low, high) == (np.float32(low), False)


def test_bounds_compare_as_integers():
    high = 2**62 - 1  # as a float64 this is 2**62
    assert one(2.0**62, 1.0, 0, 0, high)[1] == np.False_
    assert one(2.0**61, 1.0, 0, 0, high)[1] == np.True_
    assert one(2.0**63, 1.0, 0, 0, 2**63 - 1)[1] == np.False_
    assert one(-(2.0**63), 1.0, 0, -(2**63), 0)[1] == np.True_


def test_zero_point_outside_the_range_follows_the_formula():
    assert one(3.0, 1.0, 500, -128, 127) == (127 - 500, False)


def test_wide_path_subtracts_the_zero_point_itself():
    zero_point = 2**24 + 1  # q rounds to 2**24 in float32
    assert one(0.0, 1.0, zero_point, -(2**31), 2**31 - 1) == (-1, True)


def test_odd_scales():
    assert one(5.0, 0.0)[0] == 0 and not one(5.0, 0.0)[1]
    assert one(0.0, 0.0) == (0, False)  # 0 * inf is NaN
    assert one(5.0, -1.0) == (5.0, True)
    assert np.isnan(one(5.0, np.nan)[0])
    assert np.signbit(one(0.1, -1.0)[0])  # 0 * -1


def test_promotion_rounds_twice():
    rng = np.random.default_rng(1)
    x, scale, zero_point = make(rng, (8, 999), 0, "float16", "float16")
    out32, _ = fake_quant(x, scale, zero_point, 0, -128, 127, "float32")
    out16, _ = fake_quant(x, scale, zero_point, 0, -128, 127, "float16")
    assert out32.dtype == np.float32
    np.testing.assert_array_equal(out32, out16.astype(np.float32))


def test_zero_dimensional():
    out, mask = fake_quant(np.float32(1.3), np.float32([0.5]), np.int32([0]), -1, -8, 7)
    assert out.shape == mask.shape == ()
    assert out == 1.5


def within_int64(x: np.ndarray, scale: np.ndarray, axis: int | None) -> np.ndarray:
    """Replace what overflows an int64 in torch, see docs/numerics.md."""
    with np.errstate(all="ignore"):
        q = x.astype("f4") * (np.float32(1) / channel_view(scale.astype("f4"), axis, x.ndim))
    return np.where(np.abs(q) < 2.0**62, x, x.dtype.type(0.25))


@pytest.mark.parametrize("quant_range", RANGES[:6])
@pytest.mark.parametrize(("shape", "axis"), [((3, 5, 7), 1), ((4, 300), -1), ((2, 700), 0)])
def test_bfloat16_equals_torch(shape, axis, quant_range):
    rng = np.random.default_rng(17)
    x, scale, zero_point = make(rng, shape, axis, "bfloat16", quant_range=quant_range)
    x = within_int64(x, scale, axis)
    want = ATEN(*(to_torch(a) for a in (x, scale, zero_point)), axis % len(shape), *quant_range)
    assert_same(fake_quant(x, scale, zero_point, axis, *quant_range), [to_numpy(t) for t in want])


@pytest.mark.parametrize("quant_range", RANGES[:6])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("zero_point_dtype", ["float32", "float16"])
def test_float_zero_points_equal_torch_where_products_are_exact(zero_point_dtype, dtype, quant_range):
    rng = np.random.default_rng(19)
    x, scale, zero_point = make(rng, (7, 300), 0, dtype, quant_range=quant_range, zero_point_dtype=zero_point_dtype)
    zero_point = np.clip(zero_point, *(np.array(quant_range).clip(-1000, 1000))).astype(zero_point_dtype)
    scale = np.exp2(np.rint(np.log2(scale)))  # torch fuses the product and the sum: a power of two hides it
    x = within_int64(x, scale, 0)
    x = np.where(np.abs(x.astype("f4")) < 1e-30, x.dtype.type(0), x)
    want = ATEN(*(to_torch(a) for a in (x, scale, zero_point)), 0, *quant_range)
    assert_same(fake_quant(x, scale, zero_point, 0, *quant_range), [to_numpy(t) for t in want])


@pytest.mark.parametrize("quant_range", RANGES[:5])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 5, 70), (1000,), ()])
def test_one_scale_equals_torch(shape, dtype, quant_range):
    rng = np.random.default_rng(23)
    per_tensor = torch.ops.aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams
    for _ in range(6):
        x, scale, zero_point = make(rng, shape, None, dtype, quant_range=quant_range)
        x = within_int64(x, scale, None)
        want = per_tensor(
            *(to_torch(a) for a in (x, scale, zero_point)), torch.ones(1, dtype=torch.int64), *quant_range
        )
        assert_same(fake_quant(x, scale, zero_point, None, *quant_range), [to_numpy(t) for t in want])
        numbers = torch.ops.aten.fake_quantize_per_tensor_affine_cachemask(
            to_torch(x), float(scale[0]), int(zero_point[0]), *quant_range
        )
        assert_same(fake_quant(x, scale[0], zero_point[0], None, *quant_range), [to_numpy(t) for t in numbers])


def test_a_float_zero_point_is_added_before_rounding():
    x, scale = np.float32([0.5, 1.25, -0.3, -0.0, 0.0]), np.ones(5, "f4")
    zero_point = np.float32([0.5, 0.25, 0.0, -0.0, 0.5])
    out, mask = fake_quant(x, scale, zero_point, 0, -8, 7)
    np.testing.assert_array_equal(bits(out), bits(np.float32([0.5, 1.75, 0.0, 0.0, -0.5])))  # no negative zero
    assert mask.all()


@pytest.mark.parametrize("bounds", [(-8, 7), (-(2**31), 2**31 - 1)])
def test_odd_float_zero_points(bounds):
    low, high = bounds
    for x in (1.0, np.nan, np.inf):
        out, mask = fake_quant(np.float32([x]), np.ones(1, "f4"), np.float32([np.nan]), 0, low, high)
        assert np.isnan(out[0]) and not mask[0]
        out, mask = fake_quant(np.float32([x]), np.ones(1, "f4"), np.float32([np.inf]), 0, low, high)
        assert out[0] == -np.inf and not mask[0]
        out, mask = fake_quant(np.float32([x]), np.ones(1, "f4"), np.float32([-np.inf]), 0, low, high)
        assert out[0] == np.inf and not mask[0]


def test_bfloat16_is_rounded_once_from_float32():
    values = np.float32([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 3.4e38, 1e-40, -1e-45, np.nan, -np.nan])
    ones = np.zeros(8, "i4")
    out, _ = fake_quant(np.zeros(8, "f4"), values, ones, 0, 1, 1, ml_dtypes.bfloat16)  # out is the scale
    want = [0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x0001, 0x8000, 0x7FC0, 0xFFC0]
    np.testing.assert_array_equal(bits(out), np.uint16(want))


def test_bfloat16_promotes_like_float16_does():
    rng = np.random.default_rng(1)
    x, scale, zero_point = make(rng, (8, 999), 0, "bfloat16", "bfloat16")
    half, _ = fake_quant(x, scale, zero_point, 0, -128, 127)
    assert half.dtype == ml_dtypes.bfloat16
    whole, _ = fake_quant(x, scale, zero_point, 0, -128, 127, "float32")
    np.testing.assert_array_equal(whole, half.astype("f4"))
    exact, _ = fake_quant(x, scale.astype("f4"), zero_point, 0, -128, 127, "float32")
    assert (exact != whole).any()

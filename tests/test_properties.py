"""Hypothesis draws shape, strides, offsets, axis, dtypes, range and data; numpy's reference and torch judge."""

from __future__ import annotations

import os

import numpy as np
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import RANGES, assert_same, channel_view, expected, make, to_numpy, to_torch

from fq_tvm import fake_quantize_per_channel_affine as without_mask
from fq_tvm import fake_quantize_per_channel_affine_cachemask as fake_quant

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "250"))
relaxed = settings(
    deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

FLOATS = st.sampled_from(["float32", "float16"])
DTYPES = st.one_of(
    st.tuples(FLOATS, FLOATS, FLOATS, st.just("int32")),
    st.sampled_from(  # of what lies beyond the contract, a few, as every other combination is a kernel to be built
        [
            ("bfloat16", "float32", "bfloat16", "int32"),
            ("bfloat16", "bfloat16", "float32", "float32"),
            ("float32", "float32", "float32", "float32"),
            ("float16", "float32", "float16", "float16"),
        ]
    ),
)
"""Of self, scale, out and zero point."""
BOUNDS = st.one_of(
    st.sampled_from(RANGES),
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1)).map(lambda b: tuple(sorted(b))),
    st.tuples(st.integers(-300, 300), st.integers(-300, 300)).map(lambda b: tuple(sorted(b))),
)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], int | None]:
    rank = draw(st.integers(0, 8))
    longest = {0: 1, 1: 3000, 2: 200, 3: 40, 4: 12}.get(rank, 4)
    shape = tuple(draw(st.lists(st.integers(0 if rank > 1 else 1, longest), min_size=rank, max_size=rank)))
    per_channel = st.integers(-max(rank, 1), max(rank, 1) - 1)
    return shape, draw(st.one_of(per_channel, per_channel, per_channel, st.none()))


@st.composite
def placed(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An uninitialized array of a shape with drawn order of dimensions, steps, direction and offset."""
    order = draw(st.permutations(range(len(shape))))
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, -1]), min_size=len(shape), max_size=len(shape)))
    base_shape = [shape[d] * abs(steps[d]) for d in order]
    offset = draw(st.integers(0, 5)) * np.dtype(dtype).itemsize
    raw = np.zeros(int(np.prod(base_shape)) * np.dtype(dtype).itemsize + offset, np.uint8)
    base = raw[offset:].view(dtype).reshape(base_shape).transpose(np.argsort(order))
    return base[(*(slice(None, None, s) for s in steps), ...)]  # the dots keep a 0-dimensional array an array


@relaxed
@given(st.data())
def test_equals_the_reference(data):
    shape, axis = data.draw(shapes())
    dtype, scale_dtype, out_dtype, zero_point_dtype = data.draw(DTYPES)
    low, high = data.draw(BOUNDS)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values, scale, zero_point = make(
        rng, shape, axis, dtype, scale_dtype, (low, high), zero_point_dtype=zero_point_dtype
    )
    if data.draw(st.booleans()):  # any scale and any zero point, whatever comes of it
        zero_point = rng.integers(-(2**31), 2**31, zero_point.shape).astype("i4")
        if zero_point_dtype != "int32":
            zero_point = rng.choice([0.0, -0.0, 0.3, -7.5, 1e-7, 6e4, np.inf, -np.inf, np.nan], zero_point.shape)
            zero_point = zero_point.astype(zero_point_dtype)
        odd = np.array([0.0, -0.0, -1.5, 1e-40, np.inf, -np.inf, np.nan, 6e-8, 3e38])
        with np.errstate(over="ignore"):
            scale = np.where(rng.random(scale.shape) < 0.5, rng.choice(odd, scale.shape), scale).astype(scale_dtype)
    x = data.draw(placed(shape, dtype))
    x[...] = values
    want = expected(x, scale, zero_point, axis, low, high, out_dtype)
    out, mask = data.draw(placed(shape, out_dtype)), data.draw(placed(shape, "bool"))
    fake_quant(x, scale, zero_point, axis, low, high, out=out, mask=mask)
    assert_same((out, mask), want)
    if out_dtype == dtype:
        assert_same(fake_quant(x, scale, zero_point, axis, low, high), want)
        if {dtype, scale_dtype} == {"float32"} and zero_point_dtype == "int32" and max(-low, high) <= 2**23:
            assert_same((without_mask(x, scale, zero_point, axis, low, high), want[1]), want)


@relaxed
@given(st.data())
def test_equals_torch(data):
    shape, axis = data.draw(shapes())
    assume(shape and 0 not in shape)  # torch has no channel in a scalar, and its reduction refuses no channels
    low, high = data.draw(BOUNDS)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    assume(axis is not None)
    dtype = data.draw(st.sampled_from(["float32", "bfloat16"]))
    values, scale, zero_point = make(rng, shape, axis, dtype, quant_range=(low, high))
    assume(low <= zero_point.min() and zero_point.max() <= high)
    x = data.draw(placed(shape, dtype))
    x[...] = values
    with np.errstate(all="ignore"):
        q = np.rint(x.astype("f4") * (np.float32(1) / channel_view(scale, axis, x.ndim)))
    x[~(np.abs(q) < 2**62)] = 0.25  # torch overflows an int64 there, see docs/numerics.md
    if any(s < 0 for s in x.strides):  # torch has no negative strides
        x = x.copy()
    arguments = (*(to_torch(a) for a in (x, scale, zero_point)), axis % x.ndim, low, high)
    want = torch.ops.aten.fake_quantize_per_channel_affine_cachemask(*arguments)
    assert_same([to_numpy(t) for t in fake_quant(*arguments)], [to_numpy(t) for t in want])

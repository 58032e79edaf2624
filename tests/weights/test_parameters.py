"""Scales and zero points from data: they cover it, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
from support import expected

from fq_tvm import FqError
from fq_tvm.weights.parameters import choose_parameters, range_of_bits


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("low", "high"), [(-128, 127), (-127, 127), (0, 255), (-8, 7), (0, 1), (3, 3)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_parameters_cover_the_data(dtype, low, high, symmetric):
    x = np.random.default_rng(1).standard_normal((5, 7, 3)).astype(dtype) * 3
    x[:, 2] = 0
    x[0, 3, 0], x[1, 3, 1] = np.inf, np.nan
    scale, zero_point = choose_parameters(x, 1, low, high, symmetric)
    assert (scale.dtype, zero_point.dtype, scale.shape) == (np.float32, np.int32, (7,))
    assert (scale > 0).all()
    assert scale[2] == 1
    assert ((low <= zero_point) & (zero_point <= high)).all()
    out, _ = expected(x, scale, zero_point, 1, low, high)
    if high - low > 1:
        error = np.abs(out - x)[np.isfinite(x)]
        assert error.max() <= 1.01 * scale.max()  # half a step of rounding, half of a zero point that was rounded


def test_parameters_of_extreme_data():
    for value in (1e-45, np.finfo(np.float32).max):
        x = np.float32([[value, -value]])
        for symmetric in (True, False):
            scale, _ = choose_parameters(x, 0, 0, 1, symmetric)
            assert np.isfinite(scale).all()
            assert np.isfinite(np.float32(1) / scale).all()
    assert choose_parameters(np.zeros((3, 0), np.float32), 0, -8, 7)[0].tolist() == [1, 1, 1]
    assert choose_parameters(np.zeros((0, 3), np.float32), 0, -8, 7)[0].shape == (0,)
    assert choose_parameters(np.float32(7), 0, -8, 7)[0].tolist() == [1]


def test_range_of_bits_refuses():
    for bits in (1, 33, -8):
        with pytest.raises(FqError, match="expected 2 to 32"):
            range_of_bits(bits)

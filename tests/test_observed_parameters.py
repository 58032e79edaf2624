"""Moving averages, scale and zero point of an observed range: the reference's bits, for all channels or for none."""

from __future__ import annotations

import numpy as np
import pytest
from support import launch_on

from fq_tvm import FqError, get_kernel, reference
from fq_tvm.launch.arguments import ObservedParameters
from fq_tvm.launch.registry import current_target, prepare
from fq_tvm.operators import OBSERVED_PARAMETERS
from fq_tvm.spec import NARROW_LIMIT, ObservedParametersSpec, observed_parameters_catalogue

BOUNDS = [(0, 255), (-128, 127), (0, 127), (-8, 7), (-127, 127), (3, 120), (0, 2), (-NARROW_LIMIT, NARROW_LIMIT)]
INSIDE = slice(17, -17)


def ours(current, running, constant, low, high, symmetric, chooses=True):
    """Launch on memory of which what is around the results is looked at; None where nothing was served."""
    channels = len(running[0])
    call = ObservedParameters(channels, symmetric, constant, low, high, current is not None, chooses)
    memory = [np.full(channels + 34, -7, dtype) for dtype in ("f4", "f4", "f4", "i4")]
    for whole, bound in zip(memory, running, strict=False):
        whole[INSIDE] = bound
    before = [whole.copy() for whole in memory]
    served = np.full(1, 5, "i4")
    launch_on(prepare(call), (*(running if current is None else current), *(whole[INSIDE] for whole in memory), served))
    assert all((whole[:17] == -7).all() and (whole[-17:] == -7).all() for whole in memory)
    assert served[0] in (0, 1)
    if not served[0]:
        assert all(np.array_equal(*pair, equal_nan=True) for pair in zip(before, memory, strict=True))
        return None
    return [whole[INSIDE] for whole in memory]


def ranges(rng, channels):
    """Ranges of many magnitudes: around zero, on one side of it, from it, of one value, tiny ones and huge ones."""
    ends = np.float32(rng.standard_normal((2, channels)) * 10.0 ** rng.integers(-44, 37, channels))
    near = rng.random(channels) < 0.6
    ends[:, near] = np.float32(rng.standard_normal((2, near.sum())) * 10.0 ** rng.integers(-6, 4, near.sum()))
    kinds = rng.integers(0, 6, channels)
    ends[:, kinds == 0] = np.abs(ends[:, kinds == 0])
    ends[0, kinds == 1] = rng.choice(np.float32([0.0, -0.0]))
    ends[1, kinds == 2] = ends[0, kinds == 2]
    ends[:, kinds == 3] *= rng.choice(np.float32([0, -0.0, 1e-3]))
    return np.sort(ends, axis=0)


@pytest.mark.parametrize("seed", range(16))
def test_by_the_reference(seed):
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 2, 7, 16, 33, 200, 3000]))
    current = ranges(rng, channels)
    running = np.sort(current * np.float32(rng.uniform(0.5, 2, (2, channels))), axis=0)
    fresh = rng.random(channels) < rng.choice([0.0, 0.5, 1.0])
    running[:, fresh] = ((np.inf,), (-np.inf,))
    for low, high in BOUNDS:
        numbers = float(rng.choice([0.01, 0.1, 1.0, 0.0])), low, high, bool(rng.integers(2))
        wanted, got = (made(current, running, *numbers) for made in (reference.observed_parameters, ours))
        if wanted is None:  # rounding exchanged two bounds
            assert got is None
            continue
        assert all(np.array_equal(*pair) for pair in zip(got, wanted, strict=True)), numbers
        averages, scale, zero_point = wanted[:2], *wanted[2:]
        assert (scale > 0).all()
        assert ((low <= zero_point) & (zero_point <= high)).all()
        again = reference.observed_parameters(None, averages, *numbers)
        got = ours(None, averages, *numbers)
        assert all(np.array_equal(*pair) for pair in zip(got, again, strict=True))
        moved = ours(current, running, *numbers, chooses=False)
        assert all(np.array_equal(*pair) for pair in zip(moved[:2], averages, strict=True))
        assert all((each == -7).all() for each in moved[2:])


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_all_channels_or_none(odd):
    """What is not finite in one channel keeps all others from being written; so does a range that is none."""
    rng = np.random.default_rng(0)
    for channels in (1, 9, 100):
        for bound in range(2):
            current, running = ranges(rng, channels), ranges(rng, channels)
            current[bound, rng.integers(channels)] = odd
            numbers = 0.01, -128, 127, bool(rng.integers(2))
            assert reference.observed_parameters(current, running, *numbers) is None
            assert ours(current, running, *numbers) is None
            running[bound, rng.integers(channels)] = odd
            assert ours(None, running, *numbers) is None
    backwards = np.float32([[1, 2], [3, 1]])
    assert reference.observed_parameters(None, backwards, 0.01, 0, 255, False) is None
    assert ours(None, backwards, 0.01, 0, 255, False) is None


def test_by_hand():
    current, running = np.float32([[-1, 1, 0], [3, 2, 0]]), np.float32([[np.inf, 1, 0], [-np.inf, 4, 0]])
    for made in (ours, reference.observed_parameters):
        least, greatest, scale, zero_point = made(current, running, 0.5, 0, 255, False)
        assert np.array_equal(least, [-1, 1, 0])
        assert np.array_equal(greatest, [3, 3, 0])
        assert np.array_equal(scale, np.float32([4 / 255, 3 / 255, 0.1]))
        assert np.array_equal(zero_point, [64, 0, 0])  # 63.75, nothing to move, and no range at all
        *_, scale, zero_point = made(current, running, 0.5, -128, 127, True)
        assert np.array_equal(scale, np.float32([3 / 127 * 255 / 255, 3 / 255, 0.1]))
        assert np.array_equal(zero_point, [0, -128, 127])  # -0.5 is rounded to the even one


def test_the_catalogue_is_built():
    assert [spec.name for spec in observed_parameters_catalogue()] == ["observed_affine_f32", "observed_symmetric_f32"]
    for spec in observed_parameters_catalogue():
        kernel = get_kernel(spec)
        for form in OBSERVED_PARAMETERS.entry_points(spec).forms:
            assert all(kernel.function(name) is not None for name in form.functions(current_target()).values())


@pytest.mark.parametrize("fields", [("rows", True), ("lanes", "yes"), ("lanes", True, "float16")])
def test_specifications(fields):
    with pytest.raises(FqError, match="expected one of"):
        ObservedParametersSpec(*fields)

"""Zero points taken off the range: the same bits for every scale and zero point, and only where that is so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support import SPECIALS, assert_same, channel_view, checked_arguments, expected, launch_on

from fq_tvm import FakeQuantSpec, catalogue
from fq_tvm.entry_points import folds
from fq_tvm.launch.registry import prepare

FOLDING = [s for s in catalogue() if folds(s)] + [
    FakeQuantSpec(iteration, "bfloat16", "float32", "bfloat16") for iteration in ("rows", "lanes")
]
SHAPES = {
    # class -> (shape, axis): short and long rows; a run of several rows with a tail, and long runs, of which some are
    # taken at a time and one remains
    "rows": [((2, 61, 37), 1), ((2, 61, 4100), 1)],
    "lanes": [((70, 61), 1), ((9, 61, 23), 1), ((9, 1200), 1)],
}
RANGES = [(-128, 127), (0, 255), (0, 0), (-(2**23), 2**23), (2**23 - 1, 2**23)]

ZERO_POINTS = [0, 1, -7, 2**22, 2**23 - 1, 2**23, -(2**23)]
BEYOND = [2**23 + 1, -(2**23) - 1, 2**24, -(2**24), 2**24 + 1, 3 * 2**23, -(2**25), 2**31 - 1, -(2**31)]
SCALES = [1.0, 0.5, 0.037, 2.0**-24, 3e4, 0.0, -0.0, -0.25, np.inf, -np.inf, np.nan, 6e-8, 1e-40, 1e-45, -1e-40]


def data(rng, shape, axis, spec, quant_range, zero_points, scales):
    """Values around the bounds of each channel, where they can be had; ties, signed zeros and special values."""
    channels = shape[axis]
    with np.errstate(over="ignore"):
        converted = np.array(scales, "f4").astype(spec.scale_dtype)
    if min(scales) > 0 and (above_zero := converted[converted > 0]).size:
        converted = above_zero  # so that they all fold as float16, too
    scale = np.resize(converted, channels)
    zero_point = np.resize(np.array(zero_points, "i4"), channels)
    z, s = (channel_view(v.astype("f8"), axis, len(shape)) for v in (zero_point, scale))
    bound = rng.choice(np.array([*quant_range, 0.0]), shape)
    with np.errstate(all="ignore"):
        x = ((bound - z + rng.integers(-4, 5, shape) / 2) * s).astype("f4")
    x = np.where(rng.random(shape) < 0.2, rng.choice(np.array(SPECIALS, "f4"), shape), x)
    x = np.where(rng.random(shape) < 0.1, (rng.integers(-5, 6, shape) * 0.25).astype("f4"), x)
    with np.errstate(all="ignore"):
        return x.astype(spec.dtype), scale, zero_point


def run(spec, shape, axis, quant_range, zero_points, scales, seed=0, **knobs):
    """Run a kernel; return its results and those of the reference."""
    x, scale, zero_point = data(np.random.default_rng(seed), shape, axis, spec, quant_range, zero_points, scales)
    out, mask = np.empty(shape, spec.out_dtype), np.empty(shape, bool)
    checked = checked_arguments((x, scale, zero_point, out, mask), axis, *quant_range)
    launch = prepare(checked)
    if knobs:
        launch = prepare(checked, schedule=dataclasses.replace(launch.kernel.schedule, **knobs))
    assert launch.kernel.spec == spec
    workspace = launch_on(launch, [o.tensor for o in checked.operands])
    if spec.lanes:  # the flag is behind the vectors
        assert launch.workspace_size % 12 == 4
        every = np.all((scale > 0) & (np.abs(zero_point.astype("i8")) <= 2**23))
        assert workspace[-4:].view(np.int32)[0] == every
    with np.errstate(all="ignore"):
        return (out, mask), expected(x, scale, zero_point, axis, *quant_range, out.dtype)


@pytest.mark.parametrize("spec", FOLDING, ids=lambda s: s.name)
def test_the_same_bits_for_every_scale_and_zero_point(spec):
    """Zero points and scales that fold, and those that must not, side by side and alone."""
    mixtures = [
        ([*ZERO_POINTS, *BEYOND], SCALES),
        (ZERO_POINTS, [scale for scale in SCALES if scale > 0]),
        *(([zero_point], [0.5, 1e-40, np.inf]) for zero_point in [*ZERO_POINTS, *BEYOND]),
        *(([3, -(2**23)], [scale]) for scale in SCALES),
    ]
    shapes = SHAPES[spec.iteration]
    for seed, (zero_points, scales) in enumerate(mixtures):
        for shape, axis in shapes if seed < 2 else [shapes[seed % len(shapes)]]:
            quant_ranges = RANGES if seed < 2 else [RANGES[seed % len(RANGES)], (2**23 - 1, 2**23)]
            for quant_range in quant_ranges:
                got, wanted = run(spec, shape, axis, quant_range, zero_points, scales, seed)
                assert_same(got, wanted)


@pytest.mark.parametrize(
    "knobs", [{"parallel_from": 1}, {"parallel_from": 1, "stream_from": 1}], ids=["parallel", "stream"]
)
@pytest.mark.parametrize("spec", [s for s in FOLDING if s.dtype == s.out_dtype], ids=lambda s: s.name)
def test_in_every_function(spec, knobs):
    for zero_points, scales in (([*ZERO_POINTS, *BEYOND], SCALES), ([5, 2**23], [0.3]), ([-(2**31)], [0.3])):
        for shape, axis in SHAPES[spec.iteration]:
            for quant_range in RANGES[:2]:
                got, wanted = run(spec, shape, axis, quant_range, zero_points, scales, **knobs)
                assert_same(got, wanted)


@pytest.mark.parametrize(
    ("zero_points", "scales"),
    [
        ([0] * 60 + [2**23 + 1], [1.0]),
        ([0] * 60 + [-(2**31)], [1.0]),
        ([0], [1.0] * 60 + [0.0]),
        ([0], [1.0] * 60 + [-0.5]),
        ([0], [1.0] * 60 + [np.nan]),
    ],
)
def test_one_channel_decides_for_lanes(zero_points, scales):
    assert_same(*run(FakeQuantSpec("lanes", "float16"), (70, 61), 1, (-128, 127), zero_points, scales))


def test_who_folds():
    assert all(folds(FakeQuantSpec("rows", dtype)) for dtype in ("float32", "float16", "bfloat16"))
    assert folds(FakeQuantSpec("lanes", "float16"))
    assert not folds(FakeQuantSpec("lanes"))
    assert not folds(FakeQuantSpec("rows", arithmetic="wide"))
    assert not folds(FakeQuantSpec("rows", zero_point_dtype="float32"))
    assert not folds(FakeQuantSpec("strided_rows", "float16"))

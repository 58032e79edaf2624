"""The gradient by x, scale and zero point: the reference's bits by x, its sums, and those the same on all threads."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from support import launch_on, make, tie_share

from fq_tvm import FqError, get_kernel, reference
from fq_tvm.launch.arguments import LearnableGradient, describe
from fq_tvm.launch.registry import current_target, prepare
from fq_tvm.operators import LEARNABLE_GRADIENT
from fq_tvm.spec import LearnableGradientSpec, learnable_gradient_catalogue

SHAPES = {
    "rows": [((64, 300), 0), ((3, 5, 7), 1), ((3, 5, 7), None), ((4, 6, 130), 1), ((2, 70_001), 0), ((90_003,), None)],
    "lanes": [((300, 64), 1), ((7, 3), 1), ((70_001, 3), 1), ((40, 2500), 1), ((3, 5, 33), 2), ((21, 2049), 1)],
}
CASES = [(iteration, *case) for iteration, cases in SHAPES.items() for case in cases]


def ours(x, grad, scale, zero_point, axis, *numbers, iteration, **schedule):
    """Launch on memory of which what is around the results is looked at."""
    launch = prepare(LearnableGradient(describe(x, "x"), axis, *numbers), iteration=iteration)
    launch = prepare(
        LearnableGradient(describe(x, "x"), axis, *numbers),
        schedule=replace(launch.choice.schedule, **schedule),
        iteration=iteration,
    )
    memory = [np.full(n + 34, -7.0, "f4") for n in (x.size, scale.size, scale.size)]
    results = [m[17:-17].reshape(each.shape) for m, each in zip(memory, (x, scale, scale), strict=True)]
    launch_on(launch, (x, grad, scale, zero_point, *results))
    assert all((m[:17] == -7).all() and (m[-17:] == -7).all() for m in memory)
    return results


def gradients(rng, shape):
    """Numbers of both signs; a few zeros of both signs, and NaN and infinities in some draws."""
    grad = rng.standard_normal(shape).astype("f4")
    for value in (0.0, -0.0, *((np.nan, np.inf, -np.inf) if rng.random() < 0.5 else ())):
        grad.reshape(-1)[rng.integers(0, grad.size, 1 + grad.size // 50)] = value
    return grad


@pytest.mark.parametrize(("iteration", "shape", "axis"), CASES)
@pytest.mark.parametrize("quant_range", [(-128, 127), (0, 255), (-8, 7), (-(2**23), 2**23)])
def test_by_the_reference(iteration, shape, axis, quant_range):
    rng = np.random.default_rng([*shape, quant_range[1]])
    x, scale, zero_point = make(rng, shape, axis, quant_range=quant_range)
    zero_point = zero_point.astype("f4")
    assert x.size < 1000 or tie_share(x, scale, axis, zero_point) > 0.25
    arguments = (x, gradients(rng, shape), scale, zero_point, axis, *quant_range, 0.37)
    wanted = reference.learnable_gradient(*arguments)
    got = ours(*arguments, iteration=iteration)
    assert np.array_equal(got[0].view("i4"), wanted[0].view("i4"))
    for sums, each in zip(got[1:], wanted[1:], strict=True):
        finite = np.abs(each[np.isfinite(each)])
        assert np.allclose(sums, each, rtol=1e-4, atol=1e-5 * max(finite, default=0), equal_nan=True)
    spread = ours(*arguments, iteration=iteration, parallel_from=1)
    assert all(np.array_equal(a.view("i4"), b.view("i4")) for a, b in zip(got, spread, strict=True))


@pytest.mark.parametrize(("iteration", "shape", "axis"), CASES)
def test_every_element_is_counted_once(iteration, shape, axis):
    """Sums of small integers are exact, so one that is left out or taken twice is seen."""
    rng = np.random.default_rng(1)
    x, grad = np.full(shape, 1e6, "f4"), rng.integers(-3, 9, shape).astype("f4")
    channels = 1 if axis is None else shape[axis]
    scale, zero_point = np.full(channels, 0.5, "f4"), np.full(channels, 7.0, "f4")
    by_x, by_scale, by_zero_point = ours(x, grad, scale, zero_point, axis, -8, 15, 2.0, iteration=iteration)
    totals = grad.sum(tuple(d for d in range(x.ndim) if d != axis), np.float64).reshape(-1)
    assert not by_x.any()
    assert np.array_equal(by_scale, (15 - 7) * 2 * totals)
    assert np.array_equal(by_zero_point, -0.5 * 2 * totals)


def test_by_hand():
    """An element in range, its distance from what it became; two outside, the bound and the scale."""
    x, grad = np.float32([[0.6, 100.0, -100.0, np.nan]]), np.float32([[2.0, 3.0, 5.0, 7.0]])
    arguments = (x, grad, np.float32([0.5]), np.float32([1.0]), 0, -8, 7, 0.5)
    for got in (reference.learnable_gradient(*arguments), ours(*arguments, iteration="rows")):
        assert np.array_equal(got[0], np.float32([[2, 0, 0, 0]]))
        assert np.allclose(got[1], [(2 * (0.5 - 0.6) / 0.5 + 3 * (7 - 1) + (5 + 7) * (-8 - 1)) * 0.5])
        assert np.allclose(got[2], [-(3 + 5 + 7) * 0.5 * 0.5])


def test_the_reference_rounds_once():
    """A fused product and sum is the float32 nearest to the exact number, the even one of two."""
    rng = np.random.default_rng(0)
    a, b = (np.float32(rng.standard_normal(3000) * 2.0 ** rng.integers(-20, 20, 3000)) for _ in range(2))
    c = np.float32(np.where(rng.random(3000) < 0.5, -a * b, rng.integers(-128, 128, 3000)))
    a[:500], b[:500] = np.float32(1 + 2**-12), np.float32(rng.integers(1, 99, 500) * 2.0**-25)  # halfway, but for a bit
    once = reference._fused(a, b, c)
    assert (once != a * b + c).any()
    for p, q, r, got in zip(a, b, c, once, strict=True):
        exact = Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r))
        error = abs(Fraction(float(got)) - exact)
        for other in (np.nextafter(got, np.float32(np.inf)), np.nextafter(got, np.float32(-np.inf))):
            there = abs(Fraction(float(other)) - exact)
            assert error < there or (error == there and got.view("i4") % 2 == 0)


def test_the_catalogue_is_built():
    assert [spec.name for spec in learnable_gradient_catalogue()] == ["learnable_rows_f32", "learnable_lanes_f32"]
    for spec in learnable_gradient_catalogue():
        kernel = get_kernel(spec)
        for form in LEARNABLE_GRADIENT.entry_points(spec).forms:
            assert all(kernel.function(name) is not None for name in form.functions(current_target()).values())


@pytest.mark.parametrize("fields", [{"iteration": "strided_rows"}, {"iteration": "rows", "dtype": "float16"}])
def test_specifications(fields):
    with pytest.raises(FqError, match="expected one of"):
        LearnableGradientSpec(**fields)


def test_other_layouts_are_refused():
    x = np.zeros((40, 80), "f4")[:, ::2]
    with pytest.raises(FqError, match="is for kernels of class strided_rows, not rows"):
        prepare(LearnableGradient(describe(x, "x"), 0, -8, 7, math.pi), iteration="rows")

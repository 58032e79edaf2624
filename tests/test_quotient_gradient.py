"""The gradient of a quotient by a divisor for each channel: the reference's bits, on any number of threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import launch_on

from fq_tvm import FqError, get_kernel, reference
from fq_tvm.launch.arguments import QuotientGradient, describe
from fq_tvm.launch.registry import current_target, prepare
from fq_tvm.operators import QUOTIENT_GRADIENT
from fq_tvm.spec import SUM_LANES, QuotientGradientSpec, quotient_gradient_catalogue

SPECIAL = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-45, 3e38])


def ours(x, grad, divisor, axis, sum_lanes=8, in_place=False, **schedule):
    """Launch on memory of which what is around the results is looked at."""
    call = QuotientGradient(describe(x, "x"), axis, sum_lanes)
    launch = prepare(call, iteration="rows")
    launch = prepare(call, schedule=replace(launch.choice.schedule, **schedule), iteration="rows")
    memory = [np.full(each.size + 34, -7.0, "f4") for each in (x, divisor)]
    results = [m[17:-17].reshape(each.shape) for m, each in zip(memory, (x, divisor), strict=True)]
    if in_place:
        results[0][...] = grad
        grad = results[0]
    launch_on(launch, (x, grad, divisor, *results))
    assert all((m[:17] == -7).all() and (m[-17:] == -7).all() for m in memory)
    return results


def drawn(rng, shape):
    """Numbers of many magnitudes and both signs, a fifth of them special ones."""
    values = np.float32(rng.standard_normal(shape) * 10.0 ** rng.integers(-20, 20, shape))
    return np.where(rng.random(shape) < 0.2, rng.choice(SPECIAL, shape), values)


def same(a, b):
    """Equal in every bit, but for those of a NaN, whose sign depends on who negates it."""
    return np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(
        a.view("i4")[~np.isnan(a)], b.view("i4")[~np.isnan(b)]
    )


@pytest.mark.parametrize("seed", range(12))
def test_by_the_reference(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, (9, 40, 12, 30)[: rng.integers(2, 5)]))
    if seed % 3 == 0:
        shape = (*shape[:2], int(rng.integers(500, (3000, 20000)[seed % 2])))
    axis, lanes = int(rng.integers(0, len(shape) - 1)), int(rng.choice(SUM_LANES))
    x, grad, divisor = drawn(rng, shape), drawn(rng, shape), drawn(rng, shape[axis])
    if seed % 4:  # else a NaN is all that is left of most sums
        x, grad, divisor = (np.float32(rng.standard_normal(each.shape)) for each in (x, grad, divisor))
    wanted = reference.quotient_gradient(x, grad, divisor, axis, lanes)
    for more in ({}, {"parallel_from": 1}, {"in_place": True}):
        got = ours(x, grad, divisor, axis, lanes, **more)
        assert all(same(*pair) for pair in zip(got, wanted, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_those_of_torch(seed):
    torch = pytest.importorskip("torch")
    from fq_tvm.torch import quotient

    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 20)), int(rng.integers(2, 40)), *map(int, rng.integers(1, (4, 40, 200)[seed % 3], 2)))
    values = np.float32(rng.standard_normal(shape))
    rows = values.reshape(*shape[:2], -1)
    assert quotient.sum_lanes() in SUM_LANES
    if rows.shape[2] > 1:
        wanted = torch.from_numpy(values).sum((0, 2, 3)).numpy()
        assert np.array_equal(reference.sum_of_rows(rows, quotient.sum_lanes()), wanted)


def test_by_hand():
    quotient, grad, divisor = np.float32([[3, 0.5], [0.75, 0]]), np.float32([[1, 2], [4, -8]]), np.float32([2, -4])
    for by_x, by_divisor in (reference.quotient_gradient(quotient, grad, divisor, 0), ours(quotient, grad, divisor, 0)):
        assert np.array_equal(by_x, [[0.5, 1], [-1, 2]])
        assert np.array_equal(by_divisor, [-2, 0.75])


def test_the_catalogue_is_built():
    assert [spec.name for spec in quotient_gradient_catalogue()] == [
        f"quotient_rows_f32_by{lanes}" for lanes in SUM_LANES
    ]
    for spec in quotient_gradient_catalogue():
        kernel = get_kernel(spec)
        for form in QUOTIENT_GRADIENT.entry_points(spec).forms:
            assert all(kernel.function(name) is not None for name in form.functions(current_target()).values())


@pytest.mark.parametrize(
    "fields",
    [{"iteration": "lanes"}, {"iteration": "rows", "dtype": "float16"}, {"iteration": "rows", "sum_lanes": 5}],
)
def test_specifications(fields):
    with pytest.raises(FqError, match="expected one of"):
        QuotientGradientSpec(**fields)


def test_strides_are_refused():
    x = np.zeros((40, 80), "f4")[:, ::2]
    with pytest.raises(FqError, match="is for kernels of class strided_rows, not rows"):
        prepare(QuotientGradient(describe(x, "x"), 0, 8), iteration="rows")

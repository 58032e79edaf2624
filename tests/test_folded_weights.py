"""Weights with batch norm folded into them, and their gradient: the reference's bits, on any number of threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import launch_on

from fq_tvm import FqError, get_kernel, reference
from fq_tvm.launch.arguments import FoldedWeights, FoldedWeightsGradient, ObservedParameters, describe
from fq_tvm.launch.registry import current_target, prepare
from fq_tvm.operators import FOLDED_WEIGHTS, FOLDED_WEIGHTS_GRADIENT
from fq_tvm.spec import (
    SUM_LANES,
    FoldedWeightsGradientSpec,
    FoldedWeightsSpec,
    folded_weights_catalogue,
    folded_weights_gradient_catalogue,
)

SPECIAL = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-45, 3e38])
UNTOUCHED = -7


def prepared(call, **schedule):
    launch = prepare(call, iteration="rows")
    return prepare(call, schedule=replace(launch.choice.schedule, **schedule), iteration="rows")


def around(shape, dtype, values=None):
    """An array within memory of which what is around it can be looked at."""
    memory = np.full(int(np.prod(shape)) + 34, UNTOUCHED if dtype != "bool" else True, dtype)
    array = memory[17:-17].reshape(shape)
    if values is not None:
        array[...] = values
    return array, memory


def fold(weight, normalization, running, observes, *how, **schedule):
    """What the kernel gives, in the reference's order; and what it left of the four vectors."""
    constant, quant_min, quant_max, symmetric = how
    gamma, sigma = normalization
    parameters = ObservedParameters(len(gamma), symmetric, constant, quant_min, quant_max, observes, True)
    launch = prepared(FoldedWeights(describe(weight, "weight"), parameters), **schedule)
    vectors = [around(gamma.shape, "f4", each) for each in (*running, np.full(len(gamma), 5))]
    vectors.append(around(gamma.shape, "i4", 5))
    made = [around(weight.shape, "f4"), around(weight.shape, "bool"), *[around(gamma.shape, "f4")]]
    served = np.full(1, 5, "i4")
    launch_on(launch, (weight, gamma, sigma, *(v for v, _ in vectors), served, *(v for v, _ in made)))
    for _, memory in (*vectors, *made):
        edges = np.concatenate([memory[:17], memory[-17:]])
        assert (edges == (True if memory.dtype == bool else UNTOUCHED)).all()
    assert served[0] in (0, 1)
    return bool(served[0]), [v for v, _ in made], [v for v, _ in vectors]


def same(a, b):
    """Equal in every bit, but for those of a NaN."""
    if a.dtype != np.float32:
        return np.array_equal(a, b)
    nan = np.isnan(a)
    return np.array_equal(nan, np.isnan(b)) and np.array_equal(a.view("i4")[~nan], b.view("i4")[~nan])


def drawn(seed):
    """Weights, batch norm, and a range so far, of many magnitudes; some channels have none yet."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(2, (70, 20, 6, 6)[: rng.integers(2, 5)]))
    if seed % 3 == 0:
        shape = (shape[0], int(rng.integers(1, (4000, 40)[seed % 2])))
    weight = np.float32(
        rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    )
    gamma, sigma = np.float32(rng.standard_normal(shape[0])), np.float32(rng.random(shape[0]) * 3 + 0.003)
    running = np.sort(np.float32(rng.standard_normal((2, shape[0]))), axis=0)
    running[:, rng.random(shape[0]) < 0.3] = [[np.inf], [-np.inf]]
    return rng, weight, (gamma, sigma), tuple(running)


@pytest.mark.parametrize("seed", range(18))
def test_by_the_reference(seed):
    rng, weight, normalization, running = drawn(seed)
    weight[rng.random(weight.shape) < 0.1] = rng.choice([0.0, -0.0, 1e-42, -1e-38])
    symmetric, bounds = bool(seed % 2), ((-128, 127), (0, 255), (-8, 7), (0, 2))[seed // 2 % 4]
    how = (0.01, *bounds, symmetric)
    wanted = reference.folded_weights(weight, normalization, running, True, *how)
    assert wanted is not None
    for schedule in ({}, {"parallel_from": 1}):
        served, made, vectors = fold(weight, normalization, running, True, *how, **schedule)
        assert served and all(map(same, (*made, *vectors), wanted))


@pytest.mark.parametrize("seed", range(4))
def test_without_an_observer_the_range_so_far_counts(seed):
    _, weight, normalization, (low, high) = drawn(seed)
    running = np.where(np.isinf(low), np.float32(-1), low), np.where(np.isinf(high), np.float32(1), high)
    how = (0.01, -128, 127, True)
    wanted = reference.folded_weights(weight, normalization, running, False, *how)
    served, made, vectors = fold(weight, normalization, running, False, *how)
    assert served and all(map(same, (*made, *vectors), wanted))
    assert all(map(same, vectors[:2], running))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("where", ["weight", "gamma", "sigma", "running"])
@pytest.mark.parametrize("parallel_from", [1, 2**40])
def test_all_channels_or_none(where, value, parallel_from):
    """What is no finite range is torch's to judge: nothing of it is known, though other channels were fine."""
    rng, weight, (gamma, sigma), running = drawn(2)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        at = int(rng.integers(len(gamma)))
        given = {
            "weight": weight.copy(),
            "gamma": gamma.copy(),
            "sigma": sigma.copy(),
            "running": [r.copy() for r in running],
        }
        if where == "running":
            given["running"][int(rng.integers(2))][at] = value
        elif where == "weight":
            given["weight"][at].flat[rng.integers(weight[0].size)] = value
        else:
            given[where][at] = value
        how, normalization = (0.01, -128, 127, True), (given["gamma"], given["sigma"])
        wanted = reference.folded_weights(given["weight"], normalization, given["running"], True, *how)
        served, made, vectors = fold(
            given["weight"], normalization, given["running"], True, *how, parallel_from=parallel_from
        )
        assert served == (wanted is not None)
        if served:
            assert all(map(same, (*made, *vectors), wanted))
        else:
            assert all(map(same, vectors[:2], given["running"])) and (vectors[2] == 5).all() and (vectors[3] == 5).all()


def unfold(weight, grad, mask, vectors, sum_lanes=8, in_place=False, **schedule):
    launch = prepared(FoldedWeightsGradient(describe(weight, "weight"), sum_lanes), **schedule)
    (by_weight, memory), (by_gamma, beside) = around(weight.shape, "f4", grad), around(vectors[0].shape, "f4")
    launch_on(launch, (weight, by_weight if in_place else grad, mask, *vectors, by_weight, by_gamma))
    assert all((m[:17] == UNTOUCHED).all() and (m[-17:] == UNTOUCHED).all() for m in (memory, beside))
    return by_weight, by_gamma


@pytest.mark.parametrize("seed", range(12))
def test_gradient_by_the_reference(seed):
    rng, weight, _, _ = drawn(seed)
    grad, mask = np.float32(rng.standard_normal(weight.shape)), rng.random(weight.shape) < 0.8
    vectors = tuple(np.float32(rng.standard_normal((3, len(weight)))))
    if seed % 4 == 0:  # a NaN is all that is left of most sums
        weight, grad = (np.where(rng.random(v.shape) < 0.1, rng.choice(SPECIAL, v.shape), v) for v in (weight, grad))
    lanes = int(rng.choice(SUM_LANES))
    wanted = reference.folded_weights_gradient(weight, grad, mask, vectors, lanes)
    for more in ({}, {"parallel_from": 1}, {"in_place": True}):
        assert all(map(same, unfold(weight, grad, mask, vectors, lanes, **more), wanted))


@pytest.mark.parametrize("seed", range(30))
def test_sums_are_those_of_torch(seed):
    torch = pytest.importorskip("torch")
    from fq_tvm.torch import quotient

    rng, lanes = np.random.default_rng(seed), quotient.sum_lanes()
    shape = (int(rng.integers(2, 600)), int(rng.integers(1, 80)), *map(int, rng.integers(1, 6, 2)))
    values = torch.from_numpy(np.float32(rng.standard_normal(shape)))
    assert lanes in SUM_LANES
    if values[0].numel() >= lanes:
        wanted = values.sum_to_size(len(values), 1, 1, 1).reshape(-1).numpy()
        assert np.array_equal(reference.sum_of_rows(values.reshape(1, len(values), -1).numpy(), lanes), wanted)


def test_by_hand():
    weight, ones = np.float32([[1, -2], [0.5, 0.25]]), np.ones(2, "f4")
    normalization, running = (np.float32([2, -4]), np.float32([2, 4])), (np.float32([-4, -1]), np.float32([4, 1]))
    how = (0.0, -8, 7, True)  # of which the range so far alone counts
    for served, made, vectors in (
        (
            True,
            *(lambda found: (found[:3], found[3:]))(
                reference.folded_weights(weight, normalization, running, True, *how)
            ),
        ),
        fold(weight, normalization, running, True, *how),
    ):
        out, mask, factor = made
        assert served
        assert np.array_equal(factor, [1, -1])
        scale = np.float32([8 / 15, 2 / 15]) * np.float32(1)
        assert np.allclose(vectors[2], scale, rtol=0.1) and np.array_equal(vectors[3], [0, 0])
        assert mask.all() and np.allclose(out, [[1, -2], [-0.5, -0.25]], atol=0.3)
    grad, mask = np.float32([[1, 2], [4, 8]]), np.array([[True, False], [True, True]])
    vectors = (np.float32([1, -1]), np.float32([2, 4]), ones)
    for by_weight, by_gamma in (
        reference.folded_weights_gradient(weight, grad, mask, vectors),
        unfold(weight, grad, mask, vectors),
    ):
        assert np.array_equal(by_weight, [[1, 0], [-4, -8]])
        assert np.array_equal(by_gamma, [(1 + 1) / 2, (1 + 4) / 4])


def test_the_catalogues_are_built():
    assert [spec.name for spec in (*folded_weights_catalogue(), *folded_weights_gradient_catalogue())] == [
        "folded_rows_f32_affine",
        "folded_rows_f32_symmetric",
        *(f"folded_gradient_rows_f32_by{lanes}" for lanes in SUM_LANES),
    ]
    for operator in (FOLDED_WEIGHTS, FOLDED_WEIGHTS_GRADIENT):
        for spec in operator.catalogue():
            kernel = get_kernel(spec)
            for form in operator.entry_points(spec).forms:
                assert all(kernel.function(name) is not None for name in form.functions(current_target()).values())


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (FoldedWeightsSpec, {"iteration": "lanes", "symmetric": True}),
        (FoldedWeightsSpec, {"iteration": "rows", "symmetric": 2}),
        (FoldedWeightsGradientSpec, {"iteration": "rows", "dtype": "float16"}),
        (FoldedWeightsGradientSpec, {"iteration": "rows", "sum_lanes": 5}),
    ],
)
def test_specifications(kind, fields):
    with pytest.raises(FqError, match="expected one of"):
        kind(**fields)

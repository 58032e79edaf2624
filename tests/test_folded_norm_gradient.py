"""The gradient of batch norm after a quotient: the reference's bits on any number of threads, and torch's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import SPECIALS, launch_on
from test_folded_norm import MARGIN, UNTOUCHED, around, assert_same, drawn_shape, torch_on  # noqa: F401 - the last is a fixture

from fq_tvm import FqError, get_kernel, reference
from fq_tvm.launch.arguments import FoldedNormGradient, describe
from fq_tvm.launch.registry import current_target, prepare
from fq_tvm.operators import FOLDED_NORM_GRADIENT
from fq_tvm.spec import SUM_LANES, FoldedNormGradientSpec, folded_norm_gradient_catalogue

NAMES = ("by_x", "by_divisor", "by_gamma", "by_beta")
"""What the reference returns."""

ON_THREADS = ({"parallel_from": 2**40}, {"parallel_from": 1})


def ours(quotient, grad, vectors, sum_lanes=8, in_place=False, **schedule):
    """What the kernel gives, in the reference's order; of memory around the results nothing is to be written."""
    call = FoldedNormGradient(describe(quotient, "quotient"), sum_lanes)
    launch = prepare(call, iteration="rows")
    launch = prepare(call, schedule=replace(launch.choice.schedule, **schedule), iteration="rows")
    channels = np.full_like(vectors[0], 5)
    memory, results = zip(*map(around, (grad, channels, channels, channels)), strict=True)
    if not in_place:
        results[0][...] = 5
    given = results[0] if in_place else grad
    before = [each.tobytes() for each in (quotient, grad, *vectors)]
    launch_on(launch, (quotient, given, *vectors, *results))
    assert all((m[:MARGIN] == UNTOUCHED).all() and (m[-MARGIN:] == UNTOUCHED).all() for m in memory)
    assert [each.tobytes() for each in (quotient, grad, *vectors)] == before
    return results


def drawn(rng, shape):
    """A quotient whose channels have magnitudes of their own, with its mean and deviation, and a gradient."""
    channels, each = shape[1], (-1, *[1] * (len(shape) - 2))
    scale, mean = np.float32(10.0 ** rng.integers(-6, 7, channels)), np.float32(rng.standard_normal(channels) * 3)
    quotient = (np.float32(rng.standard_normal(shape)) + mean.reshape(each)) * scale.reshape(each)
    grad = np.float32(rng.standard_normal(shape)) * np.float32(10.0 ** rng.integers(-6, 7))
    divisor, gamma = np.float32(rng.standard_normal((2, channels)))
    others = tuple(d for d in range(len(shape)) if d != 1)
    inverse = 1 / np.sqrt(np.float32(quotient.var(others)) + np.float32(rng.choice([1e-5, 1e-3])))
    return quotient, grad, (divisor, gamma, np.float32(quotient.mean(others)), np.float32(inverse))


@pytest.mark.parametrize("seed", range(24))
def test_by_the_reference(seed):
    rng = np.random.default_rng(seed)
    call, lanes = drawn(rng, drawn_shape(rng, 60000)), int(rng.choice(SUM_LANES))
    wanted = reference.folded_norm_gradient(*call, lanes)
    for in_place in (False, True):
        for schedule in ON_THREADS:
            assert_same(ours(*call, lanes, in_place, **schedule), wanted, NAMES)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 1), (1, 1, 2), (1, 7, 3), (3, 8, 4), (1, 9, 7), (2, 15, 8), (2, 16, 9), (40, 17), (9, 23, 1, 1),
        (1, 3, 15), (1, 3, 16), (1, 3, 17), (2, 3, 31), (2, 3, 32), (2, 3, 33), (1, 2, 4100), (3, 300, 2), (2, 70, 64),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lanes", SUM_LANES)
def test_tails_of_channels_and_rows(shape, lanes):
    call = drawn(np.random.default_rng(int(np.prod(shape))), shape)
    wanted = reference.folded_norm_gradient(*call, lanes)
    for schedule in ON_THREADS:
        assert_same(ours(*call, lanes, **schedule), wanted, NAMES)


@pytest.mark.parametrize("where", range(6), ids=["quotient", "grad", "divisor", "gamma", "mean", "inverse"])
@pytest.mark.parametrize("seed", range(3))
def test_special_values(where, seed):
    """Rare enough that most channels keep what is no NaN."""
    rng = np.random.default_rng((where, seed))
    quotient, grad, vectors = drawn(rng, (int(rng.integers(1, 5)), 43, int(rng.integers(2, 25))))
    arrays = [quotient, grad, *vectors]
    arrays[where] = np.where(
        rng.random(arrays[where].shape) < (0.02 if where < 2 else 0.6),
        rng.choice(np.float32([*SPECIALS, 1e-42, -1e-38]), arrays[where].shape),
        arrays[where],
    )
    call = arrays[0], arrays[1], tuple(arrays[2:])
    wanted = reference.folded_norm_gradient(*call)
    assert np.isfinite(wanted[0]).any()
    for in_place in (False, True):
        for schedule in ON_THREADS:
            assert_same(ours(*call, 8, in_place, **schedule), wanted, NAMES)


@pytest.mark.parametrize("sign", [0.0, -0.0])
def test_signs_of_zeros(sign):
    """Of a row in vectors, one with a tail, and a short one."""
    for inner in (16, 19, 3):
        zeros = np.full((2, 3, inner), sign, "f4")
        call = zeros, zeros, tuple(np.float32([[1, -1, 2], [-1, 1, 1], [0, -0.0, 0], [1, 1, -1]]))
        wanted = reference.folded_norm_gradient(*call)
        assert not any(each.any() for each in wanted)
        assert_same(ours(*call), wanted, NAMES)


@pytest.mark.parametrize("torch_on", [1, 2], indirect=True)
@pytest.mark.parametrize("seed", range(30))
def test_as_torch_does(torch_on, seed):  # noqa: F811
    """Torch's two operators, also where torch spreads channels over threads."""
    from fq_tvm.torch import folding, quotient

    if not folding.norm_gradient_agrees():
        pytest.skip("this build of torch takes other steps, and serves itself")
    rng, shape = np.random.default_rng(seed), (0, 0)
    while shape[1] < 2:  # one channel is summed in another order
        shape = drawn_shape(rng, 300_000, least_inner=2)
    call = drawn(rng, shape)
    x, grad, divisor, gamma, *kept = map(torch_on.from_numpy, (*call[:2], *call[2]))
    running = torch_on.zeros_like(gamma), torch_on.ones_like(gamma)
    backward = torch_on.ops.aten.native_batch_norm_backward
    by_x, by_gamma, by_beta = backward(grad, x, gamma, *running, *kept, True, 1e-5, [True] * 3)
    each = divisor.view(-1, *[1] * (x.dim() - 2))
    by_divisor = (-by_x * (x / each)).sum([d for d in range(x.dim()) if d != 1])
    found = reference.folded_norm_gradient(*call, quotient.sum_lanes())
    for name, got, wanted in zip(NAMES, found, (by_x / each, by_divisor, by_gamma, by_beta), strict=True):
        assert torch_on.equal(torch_on.from_numpy(got), wanted), (name, shape)


def other_steps(step, call, monkeypatch):
    """What the reference gives if one thing is done in another way."""
    quotient, grad, vectors = call
    if step == "lanes":
        return reference.folded_norm_gradient(*call, 4)
    if step == "product and sum rounded apart":
        monkeypatch.setattr(reference, "_fused", lambda a, b, c: a * b + c)
    elif step == "sums in the order of memory":
        monkeypatch.setattr(reference, "_reduced", lambda v, f, _: (np.cumsum(v, 1)[:, -1], np.cumsum(v * f, 1)[:, -1]))
    elif step == "factors the other way round":
        divisor, gamma, mean, inverse = vectors
        return reference.folded_norm_gradient(quotient, grad, (divisor, inverse, mean, gamma))
    return reference.folded_norm_gradient(*call)


STEPS = ("lanes", "product and sum rounded apart", "sums in the order of memory", "factors the other way round")


@pytest.mark.parametrize("step", STEPS)
def test_the_data_tell_steps_apart(step, monkeypatch):
    """What is compared above would differ, were the kernel to do otherwise."""
    call = drawn(np.random.default_rng(0), (4, 9, 103))
    assert_same(ours(*call), reference.folded_norm_gradient(*call), NAMES)
    with pytest.raises(AssertionError):
        assert_same(ours(*call), other_steps(step, call, monkeypatch), NAMES)


def test_by_hand():
    """Sums of 8 and -8, so a slope of -1/2 and an offset of 2."""
    quotient, grad = np.float32([[[1, -1, 3, -3]]]), np.float32([[[4, 0, 0, 4]]])
    vectors = tuple(np.float32([each]) for each in (2, 4, 0, 0.5))
    for by_x, by_divisor, by_gamma, by_beta in (
        reference.folded_norm_gradient(quotient, grad, vectors),
        ours(quotient, grad, vectors),
    ):
        assert np.array_equal(by_x, [[[2.5, -2.5, -0.5, 0.5]]])
        assert (by_divisor, by_gamma, by_beta) == (-2, -4, 8)


def test_the_catalogue_is_built():
    names = [f"folded_norm_gradient_rows_f32_by{lanes}" for lanes in SUM_LANES]
    assert [spec.name for spec in folded_norm_gradient_catalogue()] == names
    for spec in folded_norm_gradient_catalogue():
        kernel = get_kernel(spec)
        for form in FOLDED_NORM_GRADIENT.entry_points(spec).forms:
            assert all(kernel.function(name) is not None for name in form.functions(current_target()).values())


@pytest.mark.parametrize(
    "fields",
    [{"iteration": "lanes"}, {"iteration": "rows", "dtype": "float16"}, {"iteration": "rows", "sum_lanes": 5}],
)
def test_specifications(fields):
    with pytest.raises(FqError, match="expected one of"):
        FoldedNormGradientSpec(**fields)


def test_strides_are_refused():
    x = np.zeros((2, 40, 80), "f4")[..., ::2]
    with pytest.raises(FqError, match="is for kernels of class strided_rows, not rows"):
        prepare(FoldedNormGradient(describe(x, "x"), 8), iteration="rows")

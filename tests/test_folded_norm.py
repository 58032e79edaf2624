"""Batch norm after a quotient, in training: the reference's bits on any number of threads, and torch's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import SPECIALS, launch_on

from fq_tvm import FqError, get_kernel, reference
from fq_tvm.launch.arguments import FoldedNorm, describe
from fq_tvm.launch.registry import current_target, prepare
from fq_tvm.operators import FOLDED_NORM
from fq_tvm.spec import FoldedNormSpec, folded_norm_catalogue

MARGIN = 17
"""Elements before and behind each result, of which none is to be written."""

UNTOUCHED = -7.0

NAMES = ("running_mean", "running_var", "quotient", "out", "mean", "inverse")
"""What the reference returns."""


def around(values):
    """Memory that holds values, and more on both sides; and the array within it."""
    memory = np.full(values.size + 2 * MARGIN, UNTOUCHED, "f4")
    array = memory[MARGIN:-MARGIN].reshape(values.shape)
    array[...] = values
    return memory, array


def ours(x, vectors, running, momentum, epsilon, in_place=False, **schedule):
    """What the kernel gives, in the reference's order."""
    call = FoldedNorm(describe(x, "x"), momentum, epsilon)
    launch = prepare(call, iteration="rows")
    launch = prepare(call, schedule=replace(launch.choice.schedule, **schedule), iteration="rows")
    channels = np.full_like(running[0], 5)
    whole = (x, x) if in_place else (np.full_like(x, 5), np.full_like(x, 5))
    memory, results = zip(*map(around, (*running, *whole, channels, channels)), strict=True)
    given = results[2] if in_place else x
    before = [each.tobytes() for each in (x, *vectors)]
    launch_on(launch, (given, *vectors, *results))
    assert all((m[:MARGIN] == UNTOUCHED).all() and (m[-MARGIN:] == UNTOUCHED).all() for m in memory)
    assert [each.tobytes() for each in (x, *vectors)] == before
    return results


def assert_same(got, wanted, names=NAMES):
    """Compare bit for bit, but for those of a NaN, whose sign depends on the order of operands."""
    for name, a, b in zip(names, got, wanted, strict=True):
        nan = np.isnan(b)
        assert a.dtype == b.dtype == np.float32 and a.shape == b.shape, name
        assert np.array_equal(np.isnan(a), nan), name
        assert np.array_equal(a.view("i4")[~nan], b.view("i4")[~nan]), name


def by_torch(x, vectors, running, momentum, epsilon):
    """What torch gives, in the reference's order."""
    torch = pytest.importorskip("torch")
    from fq_tvm.torch.folding import norm_agrees

    if not norm_agrees():
        pytest.skip("this build of torch rounds in other places, and serves itself")
    x, divisor, gamma, beta, *moved = (torch.from_numpy(each.copy()) for each in (x, *vectors, *running))
    quotient = x / divisor.view(-1, *[1] * (x.ndim - 2))
    out, mean, inverse = torch.native_batch_norm(quotient, gamma, beta, *moved, True, momentum, epsilon)
    return tuple(each.numpy() for each in (*moved, quotient, out, mean, inverse))


def drawn_shape(rng, most, least_inner=1):
    """From 2 to 5 dimensions, one image or many, rows short and long; every channel has two elements or more."""
    while True:
        rank = int(rng.integers(2, 6))
        inner = np.atleast_1d(rng.integers(1, (3, 12, 40)[rng.integers(3)], rank - 2))
        shape = (int(rng.choice([1, 2, 3, int(rng.integers(4, 60))])), int(rng.integers(1, 50)), *map(int, inner))
        if shape[0] * np.prod(inner) > 1 and np.prod(inner) >= least_inner and np.prod(shape) <= most:
            return shape


def drawn(rng, shape):
    """x, of which channels have magnitudes and means of their own, the vectors, running statistics, and numbers."""
    channels = shape[1]
    each = (-1, *[1] * (len(shape) - 2))
    scale, mean = np.float32(10.0 ** rng.integers(-6, 7, channels)), np.float32(rng.standard_normal(channels) * 3)
    x = (np.float32(rng.standard_normal(shape)) + mean.reshape(each)) * scale.reshape(each)
    vectors = np.float32(rng.standard_normal((3, channels)))
    running = np.float32(rng.standard_normal(channels)), np.float32(rng.random(channels) * 10)
    momentum = float(rng.choice([0.1, 0.01, 0.0, 1.0, rng.random(), np.nextafter(0.1, 1)]))
    epsilon = float(rng.choice([1e-5, 1e-3, 0.0, 1e-12, rng.random()]))
    return x, tuple(vectors), running, momentum, epsilon


@pytest.mark.parametrize("seed", range(24))
def test_by_the_reference(seed):
    rng = np.random.default_rng(seed)
    call = drawn(rng, drawn_shape(rng, 60000))
    wanted = reference.folded_norm(*call)
    for in_place in (False, True):
        for schedule in ({"parallel_from": 2**40}, {"parallel_from": 1}):
            assert_same(ours(*call, in_place, **schedule), wanted)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 1), (1, 1, 2), (1, 7, 7), (3, 8, 8), (1, 9, 9), (2, 15, 16), (2, 16, 17),
        (40, 17), (9, 23, 1, 1), (1, 31, 3, 5, 2), (5, 24, 64),
    ],
)  # fmt: skip
def test_tails_of_channels_and_rows(shape):
    call = drawn(np.random.default_rng(int(np.prod(shape))), shape)
    wanted = reference.folded_norm(*call)
    for schedule in ({"parallel_from": 2**40}, {"parallel_from": 1}):
        assert_same(ours(*call, **schedule), wanted)


@pytest.mark.parametrize("where", range(6), ids=["x", "divisor", "gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize("seed", range(3))
def test_special_values(where, seed):
    """Rare enough that most channels keep what is no NaN, in which special values alone would end."""
    rng = np.random.default_rng((where, seed))
    x, vectors, running, momentum, epsilon = drawn(rng, (int(rng.integers(1, 5)), 43, int(rng.integers(2, 25))))
    x[0, :, 0] = -x[0, :, 1]  # so that an infinite divisor does not leave a channel of -0.0 alone: those are below
    arrays = [x, *vectors, *running]
    share = 0.02 if where == 0 else 0.6
    arrays[where] = np.where(
        rng.random(arrays[where].shape) < share,
        rng.choice(np.float32([*SPECIALS, 1e-42, -1e-38]), arrays[where].shape),
        arrays[where],
    )
    call = arrays[0], tuple(arrays[1:4]), tuple(arrays[4:]), momentum, epsilon
    wanted = reference.folded_norm(*call)
    assert np.isfinite(wanted[3]).any()
    for in_place in (False, True):
        for schedule in ({"parallel_from": 2**40}, {"parallel_from": 1}):
            assert_same(ours(*call, in_place, **schedule), wanted)


@pytest.mark.parametrize("value", [1e-42, 3e38, np.inf, np.nan])
def test_one_value_all_over(value):
    """Squares that underflow, overflow or are all zero, with nothing added to them and with something."""
    for epsilon in (0.0, 1e-5):
        vectors = np.float32([[1, -1, 0.5], [1, 2, -0.0], [0, -0.0, 3]])
        call = np.full((2, 3, 11), value, "f4"), tuple(vectors), (vectors[0], vectors[1]), 0.1, epsilon
        assert_same(ours(*call), reference.folded_norm(*call))


ZEROS = [(value, gamma, beta) for value in (0.0, -0.0) for gamma in (1.0, -1.0) for beta in (0.0, -0.0)]
"""What there is one of in a channel of zeros alone, and its gamma and beta."""


def of_zeros():
    """A channel for each of ``ZEROS``; running means of both signs, which what is current is added to."""
    value, gamma, beta = np.ascontiguousarray(np.float32(ZEROS).T)
    x = np.ascontiguousarray(np.broadcast_to(value[:, None], (2, len(ZEROS), 11)))
    running = -np.zeros(len(ZEROS), "f4"), np.ones(len(ZEROS), "f4")
    return x, (np.ones_like(gamma), gamma, beta), running, 0.1, 1e-5


@pytest.mark.parametrize("by", [reference.folded_norm, ours, by_torch], ids=["reference", "kernel", "torch"])
def test_signs_of_zeros(by):
    """Torch's: sums begin with 0.0, so no mean is -0.0, and what is added to beta is the product of a negated mean."""
    running_mean, _, quotient, out, mean, _ = by(*of_zeros())
    x, (_, gamma, beta), *_ = of_zeros()
    assert np.array_equal(np.signbit(quotient), np.signbit(x))
    assert not mean.any() and not np.signbit(mean).any()
    assert not running_mean.any() and not np.signbit(running_mean).any()
    assert not out.any()  # -0.0 only where beta and both products are
    assert np.array_equal(np.signbit(out), np.signbit(x) & ((gamma > 0) & np.signbit(beta))[:, None])


@pytest.mark.parametrize("by", [reference.folded_norm, ours, by_torch], ids=["reference", "kernel", "torch"])
def test_no_variance_with_nothing_added(by):
    """Torch's inverse is 0.0 then, so that beta is all that is left."""
    x, beta = np.full((2, 9, 5), 2, "f4"), np.arange(9, dtype="f4")
    x[:, 4] = np.float32([1, 2, 3, 2, 2])
    ones = np.ones(9, "f4")
    *_, out, mean, inverse = by(x, (ones, ones, beta), (ones, ones), 0.1, 0.0)
    still = np.arange(9) != 4
    assert np.array_equal(mean, [2] * 9)
    assert np.array_equal(inverse[still], np.zeros(8))
    assert inverse[4] == np.float32(1 / np.sqrt(np.float32(4) / np.float32(10)))
    assert np.array_equal(out[:, still], np.broadcast_to(beta[still][:, None], (2, 8, 5)))


@pytest.fixture
def torch_on(request):
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield torch
    torch.set_num_threads(threads)


@pytest.mark.parametrize("torch_on", [1, 2], indirect=True)
@pytest.mark.parametrize("seed", range(30))
def test_as_torch_does(torch_on, seed):
    """Also where torch spreads channels over threads."""
    rng, shape = np.random.default_rng(seed), (0, 0)
    while shape[1] < 2:  # one channel is summed in another order
        shape = drawn_shape(rng, 300_000, least_inner=2)
    call = drawn(rng, shape)
    for name, got, wanted in zip(NAMES, reference.folded_norm(*call), by_torch(*call), strict=True):
        assert torch_on.equal(torch_on.from_numpy(got), torch_on.from_numpy(wanted)), (name, shape, *call[3:])


def test_by_hand():
    """Of quarters: a channel of mean 2 and variance 5, with 4 added a deviation of 3; one of mean -1 and variance 0."""
    x = np.float32([[[4, 11, -3, 5, 3], [1, 1, 1, 1, 1]]])
    vectors = np.float32([2, -1]), np.float32([3, 5]), np.float32([1, 0.25])
    call = x, vectors, (np.float32([4, 8]), np.float32([2, 16])), 0.5, 4.0
    for running_mean, running_var, quotient, out, mean, inverse in (reference.folded_norm(*call), ours(*call)):
        assert np.array_equal(quotient, [[[2, 5.5, -1.5, 2.5, 1.5], [-1] * 5]])
        assert np.array_equal(mean, [2, -1])
        assert np.array_equal(inverse, np.float32([1 / 3, 1 / 2]))
        assert np.array_equal(running_mean, [(2 + 4) / 2, (-1 + 8) / 2])
        assert np.array_equal(running_var, [(25 / 4 + 2) / 2, 16 / 2])
        assert np.array_equal(out, [[[1, 4.5, -2.5, 1.5, 0.5], [0.25] * 5]])


def test_the_catalogue_is_built():
    assert [spec.name for spec in folded_norm_catalogue()] == ["folded_norm_rows_f32"]
    for spec in folded_norm_catalogue():
        kernel = get_kernel(spec)
        for form in FOLDED_NORM.entry_points(spec).forms:
            assert all(kernel.function(name) is not None for name in form.functions(current_target()).values())


@pytest.mark.parametrize("fields", [{"iteration": "lanes"}, {"iteration": "rows", "dtype": "float16"}])
def test_specifications(fields):
    with pytest.raises(FqError, match="expected one of"):
        FoldedNormSpec(**fields)


def test_strides_are_refused():
    x = np.zeros((2, 40, 80), "f4")[..., ::2]
    with pytest.raises(FqError, match="is for kernels of class strided_rows, not rows"):
        prepare(FoldedNorm(describe(x, "x"), 0.1, 1e-5), iteration="rows")

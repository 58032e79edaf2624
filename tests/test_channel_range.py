"""The range of a channel: numpy's and torch's, bit for bit, whatever the layout, the dtype and the threads."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from support import assert_same, launch_on, to_torch
from torch._subclasses import FakeTensorMode

import fq_tvm
from fq_tvm import ArgumentError, CacheMissError, get_kernel, reference
from fq_tvm.codegen.vector_loops import PIECE
from fq_tvm.launch.arguments import check_range_of, describe
from fq_tvm.launch.plan import SHARE_ELEMENTS
from fq_tvm.launch.registry import current_target, launches, prepare
from fq_tvm.operators import CHANNEL_RANGE
from fq_tvm.spec import ITERATIONS, RangeSpec, range_catalogue
from fq_tvm.weights import parameters

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def numbers(rng, shape, dtype, special=0.01):
    """Numbers of both signs, some of them infinite, zeros of both signs, subnormal, huge, or NaN of either sign."""
    x = np.asarray(rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4)).astype(dtype)
    if rng.random() < 0.3:
        x = np.abs(x) if rng.random() < 0.5 else -np.abs(x)
    if x.size:
        values = np.array([0.0, -0.0, np.inf, -np.inf, 1e-40, -1e-45, 6e4, -6e4]).astype(dtype)
        where = rng.integers(0, x.size, int(rng.random() < 0.7) + int(x.size * special))
        x.reshape(-1)[where] = rng.choice(values, len(where))
        if rng.random() < 0.5:
            nan = np.array(np.nan, dtype)
            x.reshape(-1)[rng.integers(0, x.size)] = -nan if rng.random() < 0.5 else nan
    return x


def view(rng, x):
    """The same numbers, or some of them, in another order in memory."""
    x = np.asarray(x.transpose(order := rng.permutation(x.ndim)).copy().transpose(np.argsort(order)))
    for d in range(x.ndim):
        if rng.random() < 0.3 and x.shape[d] > 2:
            step = int(rng.choice([1, 2, -1, -2]))
            x = x[tuple([slice(None)] * d + [slice(1, None) if step == 1 else slice(None, None, step)])]
    if x.ndim and rng.random() < 0.1:
        x = np.broadcast_to(x, (3, *x.shape)) if x.ndim < 5 else x
    return x


def results_of(reduction, dtype):
    return [np.full(reduction.result_shape, -1, dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(5))
def test_the_range_of_anything(dtype, seed):
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(12):
        rank = int(rng.integers(0, 6))
        shape = tuple(
            int(n) for n in rng.choice([1, 2, 3, 5, 16, 31, 33, 70, 300], rank) ** rng.choice([1.0, 0.6], rank)
        )
        x = view(rng, numbers(rng, shape, DTYPES[dtype]))
        if x.size > 100_000:
            continue
        axis = None if not x.ndim or rng.random() < 0.3 else int(rng.integers(-x.ndim, x.ndim))
        wanted = reference.channel_range(x, axis)
        assert_same(fq_tvm.channel_range(x, axis), wanted)
        assert_same(fq_tvm.channel_range(x, axis), wanted)  # a call that was seen
        reduction = check_range_of(describe(x, "x"), axis)
        launch = prepare(reduction)
        seen.add(launch.kernel.spec.iteration)
        found = results_of(reduction, x.dtype)
        threaded = prepare(reduction, schedule=replace(launch.choice.schedule, parallel_from=1))
        launch_on(threaded, [describe(t, "t").tensor for t in (x, *found)])
        assert_same(found, wanted)
        if min(x.strides, default=0) >= 0 and 0 not in x.strides:
            same_as_torch(to_torch(x), axis, wanted)
    assert len(seen) > 1


def same_as_torch(x, axis, wanted):
    others = [d for d in range(x.dim()) if axis is not None and d != axis % x.dim()]
    rows = x.permute(axis, *others).reshape(x.shape[axis], -1) if axis is not None else x.reshape(1, -1)
    for got, value in zip(torch.aminmax(rows, dim=1), wanted, strict=True):
        assert torch.equal(got.nan_to_num(nan=7.5), to_torch(value.reshape(-1)).nan_to_num(nan=7.5))


@pytest.mark.parametrize("iteration", ITERATIONS)
@pytest.mark.parametrize("where", [0, 1, -1, "middle"])
def test_one_element_decides(iteration, where):
    """No element is left out, at whatever place of whatever share: each in turn is the least, the greatest, a NaN."""
    shape, axis = {"rows": ((3, 4, 67), 1), "lanes": ((61, 21), 1)}.get(iteration.removeprefix("strided_"), ((0,), 0))
    base = np.zeros((*shape[:-1], 2 * shape[-1]), "f4")
    x = base[..., ::2] if iteration.startswith("strided") else np.ascontiguousarray(base[..., ::2])
    assert prepare(check_range_of(describe(x, "x"), axis)).kernel.spec == RangeSpec(iteration)
    position = x.size // 2 if where == "middle" else where % x.size
    for at in [position, *range(0, x.size, 7)]:
        index = np.unravel_index(at, shape)
        for value in (-1.0, 1.0, np.nan, -np.inf):
            x[index] = value
            assert_same(fq_tvm.channel_range(x, axis), reference.channel_range(x, axis))
        x[index] = 0


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((3, 90_001), 0),
        ((90_001, 3), 1),
        ((200_003,), None),
        ((2, 3, 50_021), 1),
        ((1500, 2, 300), 1),
        ((9, 40, 257), 1),
        ((33, 3001, 5), 1),
        ((1, 40, 4999), 2),
    ],
)
def test_shares_put_together(shape, axis):
    """Few channels with long rows, and the whole tensor, are divided; no element of a share is lost at its ends."""
    rng = np.random.default_rng(0)
    assert np.prod(shape) > 2 * SHARE_ELEMENTS > PIECE
    for strided in (False, True):
        x = numbers(rng, shape, np.float32, special=0)
        x = np.repeat(x, 2, axis=-1)[..., ::2] if strided else x
        reduction = check_range_of(describe(x, "x"), axis)
        launch = prepare(reduction)
        assert launch.choice.plan.calls[-1].form.name == "combine"
        for at in (0, -1, SHARE_ELEMENTS - 1, SHARE_ELEMENTS, x.size // 2):
            index = np.unravel_index(at % x.size, shape)
            kept, x[index] = x[index], -7e4
            assert_same(fq_tvm.channel_range(x, axis), reference.channel_range(x, axis))
            x[index] = kept


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((1, 31), "short"),
        ((3, 9), "short"),
        ((2, 5, 3), "short"),
        ((8, 4), "run"),
        ((1, 33), "run"),
        ((70, 20), "run"),  # joined to runs that are long enough, the last of which begins earlier
        ((64, 40), "run"),  # 9 times those of float32 that are taken together and one more, 8 times those of float16
        ((515, 300, 3), "run"),
        ((600, 2049), "run"),  # tiles and shares
        ((2, 6200), "run"),
    ],
)
def test_lanes_of_any_run(shape, form, dtype):
    """Runs that vectors, tiles and shares do not divide: each element in turn is what decides somewhere."""
    rng = np.random.default_rng(sum(shape))
    reduction = check_range_of(describe(np.zeros(shape, DTYPES[dtype]), "x"), 1)
    chosen = prepare(reduction)
    assert (chosen.kernel.spec.iteration, chosen.choice.plan.calls[0].form.name) == ("lanes", form)
    threaded = prepare(reduction, schedule=replace(chosen.choice.schedule, parallel_from=1))
    for _ in range(3):
        x = rng.permutation(np.arange(np.prod(shape)) % 2000 - 1000).reshape(shape).astype(DTYPES[dtype])
        x[tuple(rng.integers(0, n) for n in shape)] = np.nan
        wanted = reference.channel_range(x, 1)
        for launch in (chosen, threaded):
            found = results_of(reduction, x.dtype)
            launch_on(launch, [describe(t, "t").tensor for t in (x, *found)])
            assert_same(found, wanted)


def test_what_is_around_is_not_read():
    """NaN before, behind and between the elements that the description names."""
    for shape, axis in (((5, 40), 0), ((5, 70), 1), ((6, 9, 13), 1), ((100, 3), 1), ((2, 33), None)):
        memory = np.full((shape[0] + 2, *(n + 2 for n in shape[1:])), np.nan, "f4")
        x = memory[tuple(slice(1, -1) for _ in shape)]
        x[...] = np.arange(x.size).reshape(shape)
        assert_same(fq_tvm.channel_range(x, axis), reference.channel_range(x, axis))
        flat = np.full(x.size + 200, np.nan, "f4")
        dense = flat[100:-100].reshape(shape)
        dense[...] = x
        assert_same(fq_tvm.channel_range(dense, axis), reference.channel_range(dense, axis))


def test_kinds_of_tensors():
    x = np.float32([[1.0, -2.0, 3.0], [np.inf, 0.0, -0.0]])
    wanted = reference.channel_range(x, 0)
    read_only = x.copy()
    read_only.flags.writeable = False
    for given in (x, read_only, torch.from_numpy(x), torch.from_numpy(x.copy()).requires_grad_()):
        for _ in range(2):
            got = fq_tvm.channel_range(given, 0)
            assert all(type(each) is type(given) or isinstance(given, torch.nn.Parameter) for each in got)
            assert_same([np.asarray(each) for each in got], wanted)
    assert [float(v) for v in fq_tvm.channel_range(np.float32(3.5), None)] == [3.5, 3.5]
    assert fq_tvm.channel_range(np.float32(3.5), 0)[0].shape == (1,)
    assert fq_tvm.channel_range(np.zeros((0, 4), "f4"), 0)[0].shape == (0,)
    ours = torch.from_numpy(x)[:, 1:].t()
    assert_same(
        [np.asarray(each) for each in fq_tvm.channel_range(ours, -1)], reference.channel_range(ours.numpy(), -1)
    )


@pytest.mark.parametrize(
    ("x", "axis", "message"),
    [
        (np.zeros((2, 0), "f4"), 0, r"x has shape \(2, 0\), and no elements have no range"),
        (np.zeros((0, 0), "f4"), 1, "no elements have no range"),
        (np.zeros((0,), "f4"), None, "no elements have no range"),
        (np.zeros((2, 3), "f8"), 0, "x has dtype float64; expected float32 or float16 or bfloat16"),
        (np.zeros((2, 3), "i4"), 0, "x has dtype int32"),
        (np.zeros((2, 3), "f4"), 2, "axis is 2; expected one from -2 to 1"),
        (np.zeros((2, 3), "f4"), 1.0, "axis is 1.0; expected an integer"),
        (np.zeros((1,) * 9, "f4"), 0, "x has 9 dimensions; expected at most 8"),
        (None, 0, "x is None"),
        ([1.0], 0, "x is a list"),
        (torch.zeros(2, 3, dtype=torch.float64), None, "x has dtype float64"),
        (torch.zeros(2, 3, device="meta"), 0, "expected a strided one on the CPU"),
    ],
)
def test_refused(x, axis, message):
    for _ in range(2):
        with pytest.raises(ArgumentError, match=message):
            fq_tvm.channel_range(x, axis)


def test_traced_tensors_are_refused():
    x = torch.zeros(2, 3)
    fq_tvm.channel_range(x, 0)
    with FakeTensorMode() as mode, pytest.raises(ArgumentError, match="traced"):
        fq_tvm.channel_range(mode.from_tensor(x), 0)


def test_the_catalogue_is_built_and_the_warm_path_remembers():
    assert len(range_catalogue()) == 8 and len(range_catalogue(extensions=True)) == 12
    kernel = get_kernel(range_catalogue()[0])
    for form in CHANNEL_RANGE.entry_points(kernel.spec).forms:
        for name in form.functions(current_target()).values():
            assert kernel.function(name) is not None
    x = np.ones((3, 5), "f4")
    fq_tvm.channel_range(x, 1)
    assert ("range", x.dtype, x.shape, x.strides, 1) in launches


def test_scales_of_files_without_a_kernel(monkeypatch):
    """`fq-tvm run` with a library of other kernels finds the same ranges, later."""
    x = np.random.default_rng(0).standard_normal((3, 5, 7)).astype("f4")
    x[0, 1, 2] = np.inf
    wanted = parameters.choose_parameters(x, 1, -8, 7, symmetric=False)

    def missing(*_):
        raise CacheMissError("there is none")

    monkeypatch.setattr(parameters, "channel_range", missing)
    got = parameters.choose_parameters(x, 1, -8, 7, symmetric=False)
    assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("fields", [{"iteration": "columns"}, {"iteration": "rows", "dtype": "float64"}])
def test_specifications(fields):
    with pytest.raises(fq_tvm.FqError, match="expected one of"):
        RangeSpec(**fields)
    assert RangeSpec("rows", "bfloat16").name == "range_rows_bf16"

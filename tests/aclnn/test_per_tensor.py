"""The operator with one scale and zero point of a tensor, switched on and off: what the other has, and what not."""

from __future__ import annotations

import gc
import itertools
import runpy
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from aclnn_cases import (
    INVALID,
    NAMES,
    NULLPTR,
    RUNTIME,
    SENTINEL,
    SUCCESS,
    Case,
    Disabled,
    PerTensor,
    described,
    message,
    planned,
    run,
    tensor,
    workspace_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import RANGES, assert_same, expected, tie_share

from fq_tvm import BuildError, aclnn
from fq_tvm.aclnn import AclFormat, AclnnError, AclnnStatus, AclrtStream
from fq_tvm.aclnn import copy as aclnn_copy
from fq_tvm.aclnn import operator as aclnn_operator

EXAMPLE = Path(__file__).parents[2] / "examples" / "aclnn_per_tensor_sample.py"
first_phase = PerTensor.first_phase
second_phase = PerTensor.launch
SWITCHED: Any = pytest.mark.parametrize("kind", [PerTensor, Disabled])
EVERY = [*itertools.product(("float32", "float16"), repeat=3)]
"""Dtypes of self, scale and out."""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(31)


@pytest.fixture(params=[PerTensor, Disabled])
def case(request: pytest.FixtureRequest, rng: np.random.Generator) -> PerTensor:
    made: PerTensor = request.param(rng)
    return made


def enabled(value: Any) -> bool:
    """Whether the operator takes a value for enabled, by what becomes of numbers that no copy has."""
    case = PerTensor(np.random.default_rng(3))
    run(case, fakeQuantEnabled=value)
    on = bool((case.out.view("u4") == case.answer[0].view("u4")).all())
    if not on:
        assert_same((case.out, case.mask), (case.x, np.ones_like(case.mask)))
    return on


# ---- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtypes", EVERY)
def test_copies_of_every_dtype(rng: np.random.Generator, dtypes: Any) -> None:
    case = Disabled(rng, (5, 7, 9), dtypes)
    run(case)
    case.check()


@pytest.mark.parametrize("dtypes", [EVERY[0], EVERY[3], EVERY[4], EVERY[7]])  # with a promotion and without, either way
def test_the_formula_of_dtypes(rng: np.random.Generator, dtypes: Any) -> None:
    case = PerTensor(rng, (5, 7, 9), dtypes)
    assert tie_share(case.x, case.scale, None) >= 0.25
    assert 0.05 < case.answer[1].mean() < 0.95
    run(case)
    case.check()


@pytest.mark.parametrize("quant_range", RANGES)
def test_quantization_ranges(rng: np.random.Generator, quant_range: Any) -> None:
    case = PerTensor(rng, (3, 130), quant_range=quant_range)
    run(case)
    case.check()


@SWITCHED
@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 1, 2, 2, 3, 1, 4)])
def test_ranks(rng: np.random.Generator, shape: Any, kind: Any) -> None:
    case = kind(rng, shape)
    run(case)
    case.check()


@SWITCHED
@pytest.mark.parametrize("rank", [0, 1, 2, 5, 12])
def test_one_element_of_any_rank(case: Case, rank: int, kind: Any) -> None:
    scale, zero_point = case.scale.reshape([1] * rank), case.zero_point.reshape([1] * (12 - rank))
    run(case, scale=scale, zeroPoint=zero_point)
    case.check()
    case.clear()
    storage = np.repeat(case.scale, 9)
    view = aclnn.aclCreateTensor([1] * rank, "float32", [5] * rank, 3, 2, [9], storage)
    run(case, scale=view)
    case.check()


def test_the_formula_is_that_of_the_other_operator_with_one_channel(rng: np.random.Generator) -> None:
    case = PerTensor(rng, (500,))
    run(case)
    other = Case(rng, (1, 500), 0)
    other.x, other.scale, other.zero_point = case.x[None], case.scale, case.zero_point
    run(other)
    assert_same((case.out[None], case.mask[None]), (other.out, other.mask))


def test_a_zero_point_outside_the_range_is_allowed(rng: np.random.Generator) -> None:
    for zero_point in (-1000, 2**31 - 1, -(2**31)):
        case = PerTensor(rng)
        case.zero_point[:] = zero_point
        run(case)
        case.check()


def test_torch_and_dlpack_tensors(rng: np.random.Generator) -> None:
    import tvm_ffi

    for kind in (PerTensor, Disabled):
        case = kind(rng, (4, 8, 6, 3))
        x = torch.from_numpy(case.x).contiguous(memory_format=torch.channels_last)
        out, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
        run(case, self=x, scale=torch.from_numpy(case.scale).requires_grad_(), out=out, mask=mask)
        assert_same((out.numpy(), mask.numpy()), case.answer)
        run(case, **{n: tvm_ffi.from_dlpack(v) for n, v in (("self", case.x), ("out", case.out), ("mask", case.mask))})
        case.check()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_drawn_descriptors(data: st.DataObject) -> None:
    """Any order of dimensions, gaps, offsets and broadcast inputs; what lies between elements stays."""
    shape = tuple(data.draw(st.lists(st.integers(1, 5), max_size=5)))
    kind = data.draw(st.sampled_from((PerTensor, Disabled)))
    dtypes = data.draw(st.sampled_from(EVERY if kind is Disabled else [EVERY[0], EVERY[-1]]))  # those take a build each
    case = kind(np.random.default_rng(data.draw(st.integers(0, 2**32))), shape, dtypes)

    def view(array: np.ndarray, expand: bool) -> tuple[Any, np.ndarray, np.ndarray]:
        fixed = {d for d in range(array.ndim) if expand and data.draw(st.booleans())}
        strides, stride = [0] * array.ndim, 1
        for d in data.draw(st.permutations(range(array.ndim))):
            if d in fixed:
                array[...] = array.take([0], d)
                continue
            strides[d] = stride * data.draw(st.integers(1, 3))
            stride = strides[d] * array.shape[d]
        offset = data.draw(st.integers(0, 5))
        storage = np.full(offset + stride, SENTINEL, np.uint8 if array.dtype == bool else array.dtype)
        places = np.lib.stride_tricks.as_strided(
            storage[offset:].view(array.dtype), array.shape, [s * array.itemsize for s in strides]
        )
        places[...] = array
        return (
            aclnn.aclCreateTensor(array.shape, array.dtype, strides, offset, 2, storage.shape, storage),
            places,
            storage,
        )

    def of(array: np.ndarray) -> Any:
        return array.reshape([1] * data.draw(st.integers(0, 4)))

    x, _, _ = view(case.x, expand=True)
    out, out_places, out_storage = view(case.out, expand=False)
    mask, mask_places, mask_storage = view(case.mask, expand=False)
    run(case, self=x, scale=of(case.scale), zeroPoint=of(case.zero_point), out=out, mask=mask)
    assert_same((out_places, mask_places), case.answer)
    out_places[...] = SENTINEL
    mask_places.view(np.uint8)[...] = SENTINEL
    assert (out_storage == SENTINEL).all()
    assert (mask_storage == SENTINEL).all()


@SWITCHED
def test_any_alignment(rng: np.random.Generator, kind: Any) -> None:
    case = kind(rng, (5, 3, 11))
    memory = np.zeros(case.out.nbytes + 8, np.uint8)
    for shift in range(1, 8):
        data = bytearray(shift) + case.x.tobytes()
        x = tensor(case.x, data=np.frombuffer(data, np.uint8)[shift:])
        run(case, self=x, out=tensor(case.out, data=memory[shift : shift + case.out.nbytes]))
        got = memory[shift : shift + case.out.nbytes].copy().view(np.float32).reshape(case.out.shape)
        assert_same((got, case.mask), case.answer)


@SWITCHED
def test_views_with_negative_strides(rng: np.random.Generator, kind: Any) -> None:
    case = kind(rng, (6, 8))
    storage = np.empty((12, 8), np.float32)
    answer = [a.copy()[::-1, ::-1] for a in case.answer]
    run(case, self=case.x[::-1, ::-1], out=storage[::-2, :])
    assert_same((storage[::-2, :], case.mask), answer)


# ---- switched on, switched off --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "on"),
    [
        (1, True), (1.0, True), (2, True), (np.inf, True), (True, True), (1e300, True), (1 - 1e-9, True),
        (np.float32(1), True), (np.int64(3), True), (np.ones((1, 1)), True),
        (torch.tensor([1], dtype=torch.uint8), True),
        (0, False), (0.0, False), (-0.0, False), (0.999, False), (np.nextafter(np.float32(1), np.float32(0)), False),
        (-1, False), (-1e300, False), (-np.inf, False), (np.nan, False), (False, False), (np.float16(0.5), False),
        (np.zeros(()), False), (torch.tensor(0), False),
    ],
)  # fmt: skip
def test_what_switches_it_on(value: Any, on: bool) -> None:
    """A float32, of which only 1 and more do; one that a float32 rounds to 1 is 1."""
    assert enabled(value) is on


@pytest.mark.parametrize(
    "value",
    ["1", b"1", [1.0], (), 1j, object(), np.ones(2), np.zeros(0), 10**400, torch.ones(2), torch.ones(1, device="meta")],
)  # fmt: skip
def test_what_is_no_number(case: Case, value: Any) -> None:
    case.refused(INVALID, "fakeQuantEnabled is a ", type(value).__name__, "expected a number", fakeQuantEnabled=value)


def test_it_is_read_in_the_first_phase(rng: np.random.Generator) -> None:
    case, value = PerTensor(rng), np.zeros(1, np.float32)
    size, executor = case.plan(fakeQuantEnabled=value)
    value[:] = 1
    assert case.launch(workspace_of(size), size, executor, None) == SUCCESS
    assert_same((case.out, case.mask), (case.x, np.ones_like(case.mask)))


def test_a_copy_of_the_same_dtype_keeps_every_bit(rng: np.random.Generator) -> None:
    """Payloads and signs of NaN, too, signaling or not, whatever shape and strides."""
    for dtype, unsigned in (("float32", "u4"), ("float16", "u2")):
        case = Disabled(rng, (40, 50), (dtype, "float32", dtype))
        case.x.view(unsigned)[...] = rng.integers(0, 2 ** (8 * case.x.itemsize), case.x.shape, dtype=unsigned)
        assert np.isnan(case.x).any()
        for x, out in ((case.x, case.out), (case.x.T, case.out.T), (case.x[:, ::-1], case.out)):
            run(case, self=x, out=out, mask=case.mask.T if out.shape == (50, 40) else case.mask)
            assert (out.view(unsigned) == x.view(unsigned)).all()
            assert (case.mask.view(np.uint8) == 1).all()


def test_a_copy_to_half_precision_rounds_once_half_to_even(rng: np.random.Generator) -> None:
    x = np.float32(
        [1 + 2**-11, 1 + 3 * 2**-11, 65519.996, 65520, -1e30, np.inf, 2**-24, 2**-25, 3 * 2**-26, -0.0, np.nan]
    )
    out, mask = np.empty(len(x), np.float16), np.zeros(len(x), bool)
    wanted = np.float16([1, 1 + 2**-9, 65504, np.inf, -np.inf, np.inf, 2**-24, 0, 2**-24, -0.0, np.nan])
    size, executor = aclnn.get_workspace_size_per_tensor(x, np.float16([1]), np.int32([0]), 0, -8, 7, out, mask)
    assert size == 0
    with np.errstate(all="raise"):  # the caller's own affair, which the copy does not touch
        aclnn.execute(None, size, executor)
        assert np.geterr()["over"] == "raise"
    np.testing.assert_array_equal(out, wanted)
    assert (np.signbit(out[:-1]) == np.signbit(wanted[:-1])).all()
    assert mask.all()


def test_scale_and_zero_point_do_not_matter_where_it_is_switched_off(rng: np.random.Generator) -> None:
    case = Disabled(rng)
    case.scale[:], case.zero_point[:] = np.nan, 2**31 - 1
    run(case, quantMin=5, quantMax=5)
    case.check()


def test_a_copy_for_which_there_is_no_memory(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    case = Disabled(rng)
    size, executor = case.plan()

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError("full")

    monkeypatch.setattr(aclnn_copy.np, "copyto", full)
    assert case.launch(None, size, executor, None) == RUNTIME
    assert "MemoryError: full" in message()
    assert case.untouched


# ---- checks of phase one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "fakeQuantEnabled", "quantMin", "quantMax"])
def test_null(case: Case, name: Any) -> None:
    case.refused(NULLPTR, f"{name} is None", "expected a", **{name: None})


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((n, d) for n in ("self", "scale", "out") for d in ("float64", "int8", "int32", "bool", ml_dtypes.bfloat16)),
        *(("zeroPoint", d) for d in ("float16", "float32", "int64", "uint32")),
        *(("mask", d) for d in ("uint8", "int8", "float32")),
    ],
)
def test_dtypes_outside_the_table(case: Case, name: Any, dtype: Any) -> None:
    array = np.zeros((1,) if name in ("scale", "zeroPoint") else case.x.shape, dtype)
    case.refused(INVALID, name, "dtype", str(array.dtype), "expected", **{name: array})
    case.refused(INVALID, name, "dtype", **{name: tensor(array)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": np.ones(2, "f4")}, ("scale", "(2,)", "one element")),
        ({"scale": np.ones((1, 6, 1), "f4")}, ("scale", "(1, 6, 1)", "one element")),
        ({"scale": np.ones((0,), "f4")}, ("scale", "(0,)", "one element")),
        ({"zeroPoint": np.zeros((3, 0), "i4")}, ("zeroPoint", "(3, 0)", "one element")),
        ({"zeroPoint": np.zeros(6, "i4")}, ("zeroPoint", "(6,)", "one element")),
        ({"out": np.empty((4, 6, 6), "f4")}, ("out", "(4, 6, 6)", "self", "(4, 6, 5)")),
        ({"mask": np.empty((4, 30), bool)}, ("mask", "(4, 30)")),
        ({"quantMin": 128}, ("quantMin is 128", "quantMax is 127", "quantMin <= quantMax")),
        ({"quantMin": -(2**63) - 1}, ("quantMin", "int64")),
        ({"quantMax": 2**63}, ("quantMax", "int64")),
        ({"quantMax": 1.5}, ("quantMax is 1.5", "integer")),
        ({"self": [1.0]}, ("self", "list")),
        ({"scale": 1.0}, ("scale", "float")),
        ({"mask": object()}, ("mask", "object")),
        ({"self": torch.zeros(4, 6, 5).to_sparse()}, ("self", "sparse")),
    ],
)
def test_invalid(case: Case, changes: Any, words: Any) -> None:
    case.refused(INVALID, *words, **changes)


@SWITCHED
def test_rank_9(rng: np.random.Generator, kind: Any) -> None:
    kind(rng, (1, 2, 1, 2, 1, 2, 1, 2, 1)).refused(INVALID, "self", "9", "8")


def test_order_of_checks(case: Case) -> None:
    """Null before dtype before shape before range before overlap, whichever argument it is."""
    dtype = {"self": np.zeros((4, 6, 5), np.int8)}
    shape = {"scale": np.ones(5, np.float32)}
    bounds = {"quantMin": 1, "quantMax": 0}
    overlap = {"out": case.x[:, :, ::-1]}
    for null in ({"mask": None}, {"fakeQuantEnabled": None}):
        case.refused(NULLPTR, next(iter(null)), **overlap, **bounds, **shape, **dtype, **null)
    case.refused(INVALID, "self", "dtype", **overlap, **bounds, **shape, **dtype)
    case.refused(INVALID, "scale", **overlap, **bounds, **shape)
    case.refused(INVALID, "quantMin", **overlap, **bounds)
    case.refused(INVALID, "out", "overlaps", "self", **overlap)


VENDOR: Any = [
    # What the vendor's own tests of the first phase vary over a self of (1, 2): dtypes of self, scale, zero point and
    # out, the shape of out, whether it is enabled, the range; and what comes of it.
    ("float32", "float32", "int32", "float32", (1, 2), 0.0, (-10, 10), SUCCESS),
    ("float32", "float32", "int32", "float32", (1, 2), 2.0, (-10, 10), SUCCESS),
    ("float16", "float16", "int32", "float16", (1, 2), 0.0, (-10, 10), SUCCESS),
    *((d, "float16", "int32", "float16", (1, 2), 0.0, (-10, 10), INVALID) for d in ("int32", "int8", "uint8", "int16")),
    ("float16", "float16", "int32", "int32", (1, 2), 0.0, (-10, 10), INVALID),
    ("float16", "float16", "int32", "float16", (2, 2), 0.0, (-10, 10), INVALID),
    ("float16", "float16", "int32", "float16", (1, 2), 0.0, (10, -10), INVALID),
]


@pytest.mark.parametrize("row", VENDOR, ids=str)
def test_the_vendors_table(row: Any) -> None:
    dtype, scale_dtype, zero_point_dtype, out_dtype, shape, on, (low, high), status = row
    x, scale, zero_point = np.zeros((1, 2), dtype), np.ones(1, scale_dtype), np.zeros(1, zero_point_dtype)
    out, mask = np.zeros(shape, out_dtype), np.zeros((1, 2), bool)
    tensors = [tensor(array) for array in (x, scale, zero_point, out, mask)]
    got, size, executor = first_phase(*tensors[:3], on, low, high, *tensors[3:])
    assert got == status, message()
    assert (executor is None) == (status != SUCCESS)
    assert not size


def test_formats_and_destroyed_tensors(case: Case) -> None:
    case.plan(self=tensor(case.x, format=AclFormat.ACL_FORMAT_NCL))
    case.refused(INVALID, "self", "FRACTAL_NZ", self=tensor(case.x, format=AclFormat.ACL_FORMAT_FRACTAL_NZ))
    scale = tensor(case.scale)
    size, executor = case.plan(scale=scale)
    assert aclnn.aclDestroyTensor(scale) == SUCCESS
    case.refused(INVALID, "scale", "destroyed", scale=scale)
    assert case.launch(workspace_of(size), size, executor, None) == SUCCESS
    case.check()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_phase_one_never_raises(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from((PerTensor, Disabled)))(np.random.default_rng(5))
    anything = st.sampled_from(
        [None, 0, -1, 1.5, "x", b"", [], {}, object(), int, np.float32(1), np.zeros(1, "f4"), np.zeros((1, 1), "i4"),
         np.zeros((4, 6, 5), bool), np.zeros(0), np.zeros(1, "U0"), np.zeros(2, [("a", "i4")]), np.zeros(1, object),
         np.ma.masked_array([1.0]), torch.zeros(1), torch.zeros(3).to_sparse(), torch.zeros(1, device="meta"),
         aclnn.aclCreateTensor([4], "int8", None, 0, 2, [4], 64)]
    )  # fmt: skip
    names = [*NAMES, "fakeQuantEnabled", "quantMin", "quantMax"]
    changes = data.draw(st.dictionaries(st.sampled_from(names), anything, min_size=1, max_size=4))
    status, size, executor = first_phase(*case.arguments(**changes))
    if status:
        assert (size, executor) == (0, None)
        assert status in (NULLPTR, INVALID), message()
    assert case.untouched


# ---- overlap and empty tensors --------------------------------------------------------------------------------------


def test_overlap(case: Case) -> None:
    memory = np.zeros(1024, np.uint8)
    x = memory[:480].view(np.float32).reshape(4, 6, 5)
    shifted = memory[4:484].view(np.float32).reshape(4, 6, 5)
    case.refused(INVALID, "out", "self", self=x, out=shifted)
    case.refused(INVALID, "mask", "self", self=x, mask=memory[:120].view(bool).reshape(4, 6, 5))
    case.refused(INVALID, "out", "mask", out=x, mask=memory[470:590].view(bool).reshape(4, 6, 5))
    case.refused(INVALID, "out", "scale", out=x, scale=memory[:4].view(np.float32))
    case.refused(
        INVALID, "mask", "zeroPoint", mask=memory[:120].view(bool).reshape(4, 6, 5), zeroPoint=memory[8:12].view("i4")
    )
    case.refused(INVALID, "out", "several elements", out=tensor(x, strides=[3, 3, 1]))
    locked = np.zeros_like(case.out)
    locked.flags.writeable = False
    case.refused(INVALID, "out", "read-only", out=locked)
    half = case.x.view(np.float16).reshape(-1)[:120].reshape(4, 6, 5)
    case.refused(INVALID, "out", "self", out=half)


@SWITCHED
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_in_place(rng: np.random.Generator, kind: Any, dtype: Any) -> None:
    case = kind(rng, (3, 200), (dtype, "float32", dtype))
    answer = [a.copy() for a in case.answer]
    run(case, out=case.x)
    assert_same((case.x, case.mask), answer)
    single = kind(rng, (1,))  # an output of one element may lie on the scale
    answer = [a.copy() for a in single.answer]
    run(single, out=single.scale)
    assert_same((single.scale, single.mask), answer)


@SWITCHED
def test_interleaved_views(rng: np.random.Generator, kind: Any) -> None:
    case = kind(rng, (4, 6))
    storage = np.zeros((4, 12), np.float32)
    x, out = storage[:, ::2], storage[:, 1::2]
    x[...] = case.x
    run(case, self=described(x, storage), out=described(out, storage))
    assert_same((out, case.mask), case.answer)
    assert x.tobytes() == case.x.tobytes()


@SWITCHED
@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)])
def test_empty(rng: np.random.Generator, kind: Any, shape: Any) -> None:
    case = kind(rng, shape)
    null = {
        name: tensor(array, data=None) for name, array in (("self", case.x), ("out", case.out), ("mask", case.mask))
    }
    for changes in ({}, null):
        size, executor = case.plan(**changes)
        assert size == 0
        assert case.launch(None, 0, executor, None) == SUCCESS
        assert case.launch(None, 0, executor, None) == INVALID
    case.refused(INVALID, "quantMin", quantMin=5, quantMax=4)
    case.refused(INVALID, "scale", scale=np.ones(0, np.float32))
    case.refused(INVALID, "fakeQuantEnabled", fakeQuantEnabled="1")
    case.refused(NULLPTR, "out", out=None)


# ---- executors ------------------------------------------------------------------------------------------------------


def test_one_shot_and_foreign_handles(case: Case) -> None:
    size, executor = case.plan()
    assert second_phase(None, 0, None, None) == NULLPTR
    assert second_phase(None, 0, object(), None) == INVALID
    assert second_phase(workspace_of(size), -1, executor, None) == INVALID
    assert second_phase(workspace_of(size), size, executor, "stream") == INVALID
    assert case.untouched
    assert second_phase(workspace_of(size), size, executor, None) == SUCCESS
    case.check()
    case.clear()
    assert second_phase(workspace_of(size), size, executor, None) == INVALID
    assert "aclSetAclOpExecutorRepeatable" in message()
    assert case.untouched


def test_one_shot_of_many_threads(case: Case) -> None:
    size, executor = case.plan()
    start, statuses = threading.Barrier(8), []

    def work() -> None:
        start.wait()
        statuses.append(second_phase(workspace_of(size), size, executor, None))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [SUCCESS] + [INVALID] * 7


def test_repeatable(case: Case) -> None:
    size, executor = case.repeatable()
    workspace = workspace_of(size)
    for _ in range(3):
        case.clear()
        case.x *= -1
        assert second_phase(workspace, size, executor, None) == SUCCESS
        case.check()
    case.clear()
    assert aclnn.aclDestroyAclOpExecutor(executor) == SUCCESS
    assert second_phase(workspace, size, executor, None) == INVALID
    assert aclnn.aclDestroyAclOpExecutor(executor) == INVALID
    assert case.untouched


def test_executors_keep_memory_and_let_it_go(case: Case) -> None:
    class Array(np.ndarray):
        """ndarray itself takes no weak reference in old numpy."""

    x = case.x.copy().view(Array)
    gone = weakref.ref(x)
    size, executor = case.plan(self=x)
    del x
    gc.collect()
    assert gone() is not None
    assert second_phase(workspace_of(size), size, executor, None) == SUCCESS
    case.check()
    gc.collect()
    assert gone() is None


@SWITCHED
def test_rebinding_every_tensor(rng: np.random.Generator, kind: Any) -> None:
    first, second = kind(rng, (3, 40, 6)), kind(rng, (3, 40, 6))
    scale = first.scale.reshape(1, 1)  # whatever its shape was, that is its description
    status, size, executor = first_phase(*first.arguments(scale=scale))
    assert status == aclnn.aclSetAclOpExecutorRepeatable(executor) == SUCCESS
    assert second_phase(workspace_of(size), size, executor, None) == SUCCESS
    first.check()
    assert aclnn.aclSetTensorAddr(executor, 1, second.scale, second.scale) == INVALID
    assert "expected that of scale" in message()
    given = (tensor(second.x), second.scale.reshape(1, 1), None, None, second.mask)
    addresses = (second.x, second.scale.ctypes.data, second.zero_point, second.out.ctypes.data, second.mask.data)
    for index, (t, addr) in enumerate(zip(given, addresses, strict=True)):
        assert aclnn.aclSetTensorAddr(executor, index, t, addr) == SUCCESS, message()
    first.clear()
    assert second.untouched
    assert second_phase(workspace_of(size), size, executor, None) == SUCCESS
    second.check()
    assert first.untouched
    assert aclnn.aclSetTensorAddr(executor, 3, None, second.x.ctypes.data + 4) == INVALID
    assert "out overlaps part of self" in message()


def test_addresses_that_come_later(case: Case) -> None:
    arrays = (case.x, case.scale, case.zero_point, case.out, case.mask)
    later = {name: tensor(array, data=None) for name, array in zip(NAMES, arrays, strict=True)}
    size, executor = case.plan(**later)
    assert aclnn.aclSetAclOpExecutorRepeatable(executor) == SUCCESS
    for index, (name, array) in enumerate(zip(NAMES, arrays, strict=True)):
        assert second_phase(workspace_of(size), size, executor, None) == NULLPTR
        assert f"the address of {name} is null" in message()
        assert aclnn.aclSetTensorAddr(executor, index, later[name], array) == SUCCESS
    assert second_phase(workspace_of(size), size, executor, None) == SUCCESS
    case.check()


def test_an_executor_serves_the_second_phase_of_either(case: Case, rng: np.random.Generator) -> None:
    """As in CANN, where both hand it to one function."""
    other = Case(rng)
    (size, executor), (other_size, other_executor) = case.plan(), other.plan()
    assert other.launch(workspace_of(size), size, executor, None) == SUCCESS
    assert case.launch(workspace_of(other_size), other_size, other_executor, None) == SUCCESS
    case.check()
    other.check()


def test_a_launch_that_was_prepared_is_found_again(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Whatever the rank of the one element: it is one description."""
    case, found = PerTensor(rng), []
    inner = aclnn_operator.launch_of
    monkeypatch.setattr(aclnn_operator, "launch_of", lambda call: found.append(inner(call)) or found[-1])
    for rank in (0, 1, 3):
        case.plan(scale=case.scale.reshape([1] * rank), zeroPoint=case.zero_point.reshape([1] * (3 - rank)))
    assert len({id(launch) for launch in found}) == 1


# ---- streams --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[AclrtStream]:
    status, stream = aclnn.aclrtCreateStream()
    assert status == SUCCESS
    assert stream is not None
    yield stream
    aclnn.aclrtDestroyStream(stream)


def test_a_chain_on_one_stream(rng: np.random.Generator, stream: AclrtStream) -> None:
    """Each reads what the one before it wrote, copies among them."""
    case = PerTensor(rng, (6, 50))
    value, source = case.x, case.x
    for on, low, high in [(1, -128, 127), (0, 0, 0), (1, -64, 63), (0.5, 3, 4), (1, -8, 7)]:
        out, mask = np.empty_like(case.x), np.empty_like(case.mask)
        size, executor = case.plan(self=source, fakeQuantEnabled=on, quantMin=low, quantMax=high, out=out, mask=mask)
        assert case.launch(workspace_of(size), size, executor, stream) == SUCCESS
        if on == 1:
            value = expected(value, case.scale, case.zero_point, None, low, high)[0]
        source = out
    assert aclnn.aclrtSynchronizeStream(stream) == SUCCESS
    np.testing.assert_array_equal(out.view(np.uint32), value.view(np.uint32))


def test_queued_launches_keep_memory_and_old_addresses(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, stream: AclrtStream
) -> None:
    for kind in (PerTensor, Disabled):
        first, second, gate = kind(rng), kind(rng), threading.Event()
        blocker = planned(monkeypatch, Case(rng), lambda *_, gate=gate: gate.wait(10))
        status, size, executor = first_phase(*first.arguments(self=first.x.copy(), scale=tensor(first.scale.copy())))
        assert status == aclnn.aclSetAclOpExecutorRepeatable(executor) == SUCCESS
        assert second_phase(None, 0, blocker, stream) == SUCCESS
        assert second_phase(workspace_of(size), size, executor, stream) == SUCCESS
        for index, array in enumerate((second.x, second.scale, second.zero_point, second.out, second.mask)):
            assert aclnn.aclSetTensorAddr(executor, index, None, array) == SUCCESS
        assert second_phase(workspace_of(size), size, executor, stream) == SUCCESS
        assert aclnn.aclDestroyAclOpExecutor(executor) == SUCCESS
        del executor
        gc.collect()
        assert first.untouched
        gate.set()
        assert aclnn.aclrtSynchronizeStream(stream) == SUCCESS
        first.check()
        second.check()


def test_a_copy_that_fails_on_a_stream(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, stream: AclrtStream
) -> None:
    case = Disabled(rng)
    size, executor = case.plan()

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(aclnn_copy.np, "copyto", full)
        assert case.launch(None, size, executor, stream) == SUCCESS
        assert aclnn.aclrtSynchronizeStream(stream) == RUNTIME
    assert aclnn.aclrtSynchronizeStream(stream) == SUCCESS


def test_a_copy_runs_beside_python(rng: np.random.Generator, stream: AclrtStream) -> None:
    x = rng.standard_normal((1500, 2000), np.float32)
    out, mask = np.empty(x.shape, np.float16), np.empty(x.shape, bool)
    turns = 0
    arguments = (x, np.ones(1, np.float32), np.zeros(1, np.int32), 0, -8, 7, out, mask)
    for _ in range(5):
        size, executor = aclnn.get_workspace_size_per_tensor(*arguments)
        aclnn.execute(None, size, executor, stream)
    while stream._executor._work_queue.qsize():
        turns += 1
        time.sleep(0)
    assert aclnn.aclrtSynchronizeStream(stream) == SUCCESS
    assert turns > 20
    assert (out == x.astype(np.float16)).all()


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_raising_forms(case: Case) -> None:
    with pytest.raises(AclnnError) as caught:
        aclnn.get_workspace_size_per_tensor(*case.arguments(mask=None))
    assert (caught.value.status, caught.value.message) == (NULLPTR, "mask is None; expected a tensor")
    with pytest.raises(AclnnError, match="fakeQuantEnabled is None; expected a number"):
        aclnn.get_workspace_size_per_tensor(*case.arguments(fakeQuantEnabled=None))
    size, executor = aclnn.get_workspace_size_per_tensor(*case.arguments())
    aclnn.execute(workspace_of(size), size, executor)
    case.check()


@pytest.mark.parametrize(("error", "status"), [(BuildError("no kernel"), 561003), (MemoryError("no kernel"), 561101)])
def test_internal_faults(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, error: Any, status: Any) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(aclnn_operator, "launch_of", broken)
    PerTensor(rng).refused(AclnnStatus(status), "no kernel")
    run(Disabled(rng))  # which needs no kernel


def test_example(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "enabled is 1.000000",
        "result[0] is: 1.000000, mask[0] is: 1",
        "result[1] is: 2.000000, mask[1] is: 0",
        "result[2] is: 2.000000, mask[2] is: 0",
        "enabled is 0.000000",
        "result[0] is: 1.000000, mask[0] is: 1",
        "result[1] is: 2.600000, mask[1] is: 1",
        "result[2] is: 9.000000, mask[2] is: 1",
    ]

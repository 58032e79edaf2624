"""The two-phase API: every line of the contract about descriptors, checks, messages, executors and streams."""

from __future__ import annotations

import gc
import itertools
import mmap
import os
import runpy
import subprocess
import sys
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
    described,
    fail,
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
from fq_tvm.aclnn import AclDataType, AclFormat, AclnnError, AclnnStatus, AclrtStream, AclTensor
from fq_tvm.aclnn import operator as aclnn_operator

plan = aclnn.aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize
launch: Any = aclnn.aclnnFakeQuantPerChannelAffineCachemask

EXAMPLE = Path(__file__).parents[2] / "examples" / "aclnn_sample.py"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(29)


@pytest.fixture
def case(rng: np.random.Generator) -> Case:
    return Case(rng)


# ---- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtypes", [*itertools.product(("float32", "float16"), repeat=3)])
def test_every_dtype_combination(rng: np.random.Generator, dtypes: Any) -> None:
    case = Case(rng, (5, 7, 9), 1, dtypes)
    assert tie_share(case.x, case.scale, 1) >= 0.25
    tensors = {
        name: tensor(array)
        for name, array in zip(NAMES, (case.x, case.scale, case.zero_point, case.out, case.mask), strict=True)
    }
    run(case, **tensors)
    case.check()


@pytest.mark.parametrize("quant_range", RANGES)
@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 130)])
def test_quantization_ranges(rng: np.random.Generator, shape: Any, quant_range: Any) -> None:
    case = Case(rng, shape, 1, quant_range=quant_range)
    run(case)
    case.check()


@pytest.mark.parametrize("axis", [-8, -1, 0, 3, 7])
def test_rank_8(rng: np.random.Generator, axis: Any) -> None:
    case = Case(rng, (2, 3, 1, 2, 2, 3, 1, 4), axis)
    run(case)
    case.check()


@pytest.mark.parametrize("axis", [0, -1])
def test_rank_0_counts_as_one_element(rng: np.random.Generator, axis: Any) -> None:
    case = Case(rng, (), 0)
    run(case, axis=axis)
    case.check()
    case.clear()
    run(case, self=tensor(case.x), out=tensor(case.out), mask=tensor(case.mask))
    case.check()


def test_zero_point_outside_the_range_is_allowed(rng: np.random.Generator) -> None:
    case = Case(rng)
    case.zero_point[:] = [-1000, 1000, 2**31 - 1, -(2**31), 128, -129]
    run(case)
    case.check()


def test_torch_and_dlpack_tensors(rng: np.random.Generator) -> None:
    import tvm_ffi

    case = Case(rng, (4, 8, 6, 3), 1)
    x = torch.from_numpy(case.x).contiguous(memory_format=torch.channels_last)
    out, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    run(case, self=x, scale=torch.from_numpy(case.scale).requires_grad_(), out=out, mask=mask)
    assert_same((out.numpy(), mask.numpy()), case.answer)
    run(case, **{n: tvm_ffi.from_dlpack(v) for n, v in (("self", case.x), ("out", case.out), ("mask", case.mask))})
    case.check()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_non_contiguous_descriptors(data: st.DataObject) -> None:
    """Any order of dimensions, gaps, offsets and broadcast inputs; what lies between the elements stays as it was."""
    rank = data.draw(st.integers(1, 5))
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    axis = data.draw(st.integers(-rank, rank - 1))
    case = Case(np.random.default_rng(data.draw(st.integers(0, 2**32))), shape, axis)

    def view(array: np.ndarray, expand: bool) -> tuple[AclTensor, np.ndarray, np.ndarray]:
        rank = array.ndim
        order = data.draw(st.permutations(range(rank)))
        steps = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
        fixed = {d for d in range(rank) if expand and data.draw(st.booleans())}
        offset = data.draw(st.integers(0, 5))
        strides, stride = [0] * rank, 1
        for d in order:
            if d in fixed:
                array[...] = array.take([0], d)
                continue
            strides[d] = stride * steps[d]
            stride = strides[d] * array.shape[d]
        storage = np.full(offset + stride, SENTINEL, np.uint8 if array.dtype == bool else array.dtype)
        places = np.lib.stride_tricks.as_strided(
            storage[offset:].view(array.dtype), array.shape, [s * array.itemsize for s in strides]
        )
        places[...] = array
        description = aclnn.aclCreateTensor(
            array.shape, array.dtype, strides, offset, "ACL_FORMAT_ND", storage.shape, storage
        )
        return description, places, storage

    x, _, _ = view(case.x, expand=True)
    scale, _, _ = view(case.scale, expand=False)
    zero_point, _, _ = view(case.zero_point, expand=False)
    out, out_places, out_storage = view(case.out, expand=False)
    mask, mask_places, mask_storage = view(case.mask, expand=False)
    run(case, self=x, scale=scale, zeroPoint=zero_point, out=out, mask=mask)
    assert_same((out_places, mask_places), case.answer)
    out_places[...] = SENTINEL
    mask_places.view(np.uint8)[...] = SENTINEL
    assert (out_storage == SENTINEL).all()
    assert (mask_storage == SENTINEL).all()


def test_numpy_views_with_negative_strides(rng: np.random.Generator) -> None:
    case = Case(rng, (6, 8), 1)
    storage = np.empty((12, 8), np.float32)
    out = storage[::-2, ::-1]
    run(case, self=case.x[::-1], out=out)
    assert_same((out, case.mask), expected(case.x[::-1], case.scale, case.zero_point, 1, -128, 127))


def test_buffers_of_every_kind(rng: np.random.Generator) -> None:
    case = Case(rng)
    with mmap.mmap(-1, case.x.nbytes) as mapping, mmap.mmap(-1, case.x.nbytes) as other:
        mapping[:] = case.x.tobytes()
        out_bytes, mask_bytes = other, memoryview(bytearray(case.mask.nbytes))
        out, mask = tensor(case.out, data=out_bytes), tensor(case.mask, data=mask_bytes)
        x = tensor(case.x, data=mapping)
        run(case, self=x, scale=tensor(case.scale, data=bytes(case.scale)), out=out, mask=mask)
        got = np.frombuffer(other[:], np.float32), np.frombuffer(mask_bytes, bool)
        assert_same([g.reshape(case.x.shape) for g in got], case.answer)
        with pytest.raises(BufferError):  # the tensor keeps its memory
            mapping.close()
        for t in (x, out, mask):
            aclnn.aclDestroyTensor(t)
        del t, x, out, mask
        gc.collect()


def test_addresses(rng: np.random.Generator) -> None:
    case = Case(rng, (3, 200), 0)
    run(case, self=tensor(case.x, data=case.x.ctypes.data), out=tensor(case.out, data=np.int64(case.out.ctypes.data)))
    case.check()


def test_any_alignment(rng: np.random.Generator) -> None:
    case = Case(rng, (5, 3, 11), 1)
    memory = np.zeros(case.out.nbytes + 8, np.uint8)
    for shift in range(1, 8):
        out = tensor(case.out, data=memory[shift : shift + case.out.nbytes])
        x = tensor(case.x, data=bytearray(shift) + case.x.tobytes(), offset=0, storage_dims=case.x.shape)
        size, executor = case.plan(out=out)
        work = bytearray(size + 8)
        assert launch(memoryview(work)[shift : shift + size], size, executor, None) == SUCCESS
        got = memory[shift : shift + case.out.nbytes].copy().view(np.float32).reshape(case.out.shape)
        assert_same((got, case.mask), case.answer)
        assert not any(work[:shift])
        assert not any(work[shift + size :])
        del x


def test_same_bits_on_every_run(rng: np.random.Generator) -> None:
    case = Case(rng, (64, 33, 70), 1)
    size, executor = case.repeatable()
    results = set()
    for _ in range(5):
        assert launch(workspace_of(size), size, executor, None) == SUCCESS
        results.add(case.out.tobytes() + case.mask.tobytes())
    assert len(results) == 1
    case.check()


# ---- descriptors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [AclDataType.ACL_FLOAT16, 1, np.float16, np.dtype("float16"), "float16", "f2", "ACL_FLOAT16", torch.float16],
)
def test_dtype_forms(dtype: Any) -> None:
    assert aclnn.aclCreateTensor([2], dtype, None, 0, AclFormat.ACL_FORMAT_ND, [2], None).dtype == 1


def test_numbers_are_those_of_cann() -> None:
    assert (AclDataType.ACL_FLOAT, AclDataType.ACL_INT32, AclDataType.ACL_BOOL, AclDataType.ACL_BF16) == (0, 3, 12, 27)
    assert (AclFormat.ACL_FORMAT_NCHW, AclFormat.ACL_FORMAT_ND, AclFormat.ACL_FORMAT_FRACTAL_NZ) == (0, 2, 29)
    assert [s.value for s in (SUCCESS, NULLPTR, INVALID, RUNTIME)] == [0, 161001, 161002, 361001]
    inner = {561003: "FIND_KERNEL_ERROR", 561101: "CREATE_EXECUTOR", 561103: "NULLPTR"}
    assert {code: AclnnStatus(code).name for code in inner} == {c: f"ACLNN_ERR_INNER_{n}" for c, n in inner.items()}


def test_every_data_type_and_format_can_be_described() -> None:
    for dtype, format in itertools.product(AclDataType, AclFormat):
        t = aclnn.aclCreateTensor([2, 4], dtype, None, 0, format, [8], bytearray(128))
        assert (t.dtype, t.format, t.strides) == (dtype, format, (4, 1))
        assert dtype.name in repr(t)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"view_dims": [2, -3]}, "view_dims[1] is -3"),
        ({"view_dims": 6}, "view_dims is 6"),
        ({"view_dims": [2.0, 3]}, "view_dims[0] is 2.0"),
        ({"view_dims": None}, "view_dims is None"),
        ({"strides": [-3, 1]}, "strides[0] is -3"),
        ({"strides": [1]}, "strides has 1 numbers; expected 2"),
        ({"strides": [4, 1]}, "ends at element 7"),
        ({"offset": 1}, "ends at element 7"),
        ({"offset": -1}, "offset is -1"),
        ({"offset": None}, "offset is None"),
        ({"view_dims": [2**70, 1]}, "view_dims[0]"),
        ({"storage_dims": [5]}, "5 elements"),
        ({"storage_dims": [7]}, "expected 28"),
        ({"storage_dims": [2, -3]}, "storage_dims[1]"),
        ({"storage_dims": [2**40, 2**40], "data": 64}, "bytes"),
        ({"dtype": "float63"}, "dtype is 'float63'"),
        ({"dtype": 99}, "dtype is 99"),
        ({"dtype": None}, "dtype is None"),
        ({"dtype": ">f4"}, "dtype is '>f4'"),
        ({"dtype": "float64"}, "expected 48"),
        ({"format": "ACL_FORMAT_XY"}, "format is 'ACL_FORMAT_XY'"),
        ({"format": 77}, "format is 77"),
        ({"format": None}, "format is None"),
        ({"data": bytearray(23)}, "data has 23 bytes; expected 24"),
        ({"data": -8}, "data is -8"),
        ({"data": 2**64}, "expected an address"),
        ({"data": "text"}, "data is a str"),
        ({"data": 1.5}, "data is a float"),
        ({"data": np.zeros((4, 6), np.float32)[:, ::2]}, "contiguous"),
        ({"data": memoryview(bytearray(48))[::2]}, "contiguous"),
    ],
)
def test_impossible_descriptions(changes: Any, word: Any) -> None:
    with pytest.raises(AclnnError, match="ACLNN_ERR_PARAM_INVALID") as caught:
        tensor(np.zeros((2, 3), np.float32), **changes)
    assert caught.value.status == INVALID
    assert word in caught.value.message
    assert message() == caught.value.message


def test_last_element_may_end_the_storage() -> None:
    storage = np.zeros(12, np.float32)
    tensor(storage, view_dims=[2, 3], strides=[6, 2], offset=1, storage_dims=[12])
    with pytest.raises(AclnnError):
        tensor(storage, view_dims=[2, 3], strides=[6, 2], offset=2, storage_dims=[12])
    tensor(storage, view_dims=[0, 3], strides=[600, 200], offset=99, storage_dims=[12])  # no element, no place


def test_destroyed_tensors(case: Case) -> None:
    x = tensor(case.x)
    size, executor = case.plan(self=x)
    assert aclnn.aclDestroyTensor(x) == SUCCESS
    assert aclnn.aclDestroyTensor(x) == INVALID
    assert "destroyed" in repr(x)
    case.refused(INVALID, "self", "destroyed", self=x)
    assert launch(workspace_of(size), size, executor, None) == SUCCESS  # the executor keeps what it needs
    case.check()
    assert aclnn.aclDestroyTensor(None) == NULLPTR
    assert aclnn.aclDestroyTensor(case.x) == INVALID  # type: ignore[arg-type]


# ---- checks of phase one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "axis", "quantMin", "quantMax"])
def test_null(case: Case, name: Any) -> None:
    case.refused(NULLPTR, f"{name} is None", **{name: None})


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((n, d) for n in ("self", "scale", "out") for d in ("float64", "int32", "bool", ml_dtypes.bfloat16)),
        *(("zeroPoint", d) for d in ("float16", "float32", "int64", "int8", "uint32")),
        *(("mask", d) for d in ("uint8", "int8", "float32")),
        ("self", ">f4"),
    ],
)
def test_dtypes_outside_the_table(case: Case, name: Any, dtype: Any) -> None:
    shape = (6,) if name in ("scale", "zeroPoint") else (4, 6, 5)
    array = np.zeros(shape, dtype)
    case.refused(INVALID, name, "dtype", str(array.dtype) if dtype != ">f4" else dtype, "expected", **{name: array})
    if dtype != ">f4":
        case.refused(INVALID, name, "dtype", **{name: tensor(array)})
    if dtype not in (">f4", "uint32") and not isinstance(dtype, type):
        case.refused(INVALID, name, "dtype", **{name: torch.from_numpy(array)})


def test_bfloat16_of_torch(case: Case) -> None:
    case.refused(INVALID, "scale", "bfloat16", scale=torch.ones(6, dtype=torch.bfloat16))


def test_negated_views_of_torch(case: Case) -> None:
    case.refused(INVALID, "self", "resolve_neg", self=torch.zeros(4, 6, 5, dtype=torch.complex64).conj().imag)


def test_the_table_is_the_facades_own(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library itself comes to accept, the operator stays as strict as the vendor's."""
    inner, tables = aclnn_operator.check, []

    def seen(*arguments: Any) -> Any:
        tables.append(arguments[-1])
        return inner(*arguments)

    monkeypatch.setattr(aclnn_operator, "check", seen)
    case.refused(INVALID, "zeroPoint", "float32", zeroPoint=np.zeros(6, np.float32))
    case.refused(INVALID, "self", "bfloat16", self=case.x.astype(ml_dtypes.bfloat16))
    floats = ("float16", "float32")
    assert tables == [(floats, floats, ("int32",), floats, ("bool",))] * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"out": np.empty((4, 6, 6), "f4")}, ("out", "(4, 6, 6)", "self", "(4, 6, 5)")),
        ({"out": np.empty((4, 30), "f4")}, ("out", "(4, 30)")),
        ({"mask": np.empty((1, 4, 6, 5), bool)}, ("mask", "(1, 4, 6, 5)")),
        ({"scale": np.ones((6, 1), "f4")}, ("scale", "(6, 1)", "one dimension")),
        ({"scale": np.float32(1)}, ("scale", "()")),
        ({"zeroPoint": np.zeros((1, 6), "i4")}, ("zeroPoint", "(1, 6)")),
        ({"scale": np.ones(5, "f4")}, ("scale", "5", "6", "self")),
        ({"scale": np.ones(1, "f4")}, ("scale", "1", "6")),
        ({"zeroPoint": np.zeros(7, "i4")}, ("zeroPoint", "7", "6")),
        ({"axis": 3}, ("axis is 3", "-3", "2")),
        ({"axis": -4}, ("axis is -4",)),
        ({"axis": 1.0}, ("axis is 1.0", "integer")),
        ({"axis": "1"}, ("axis", "integer")),
        ({"axis": 2**80}, ("axis",)),
        ({"quantMin": 128}, ("quantMin is 128", "quantMax is 127", "quantMin <= quantMax")),
        ({"quantMin": -(2**63) - 1}, ("quantMin", "int64")),
        ({"quantMax": 2**63}, ("quantMax", "int64")),
        ({"quantMax": 1.5}, ("quantMax is 1.5", "integer")),
        ({"self": [1.0]}, ("self", "list")),
        ({"mask": object()}, ("mask", "object")),
    ],
)
def test_invalid(case: Case, changes: Any, words: Any) -> None:
    case.refused(INVALID, *words, **changes)


def test_0_dimensional_self(rng: np.random.Generator) -> None:
    case = Case(rng, (), 0)
    case.refused(INVALID, "axis is 1", axis=1)
    case.refused(INVALID, "scale", scale=np.ones(2, np.float32))


@pytest.mark.parametrize("make_tensor", [tensor, lambda array: array], ids=["AclTensor", "numpy"])
def test_rank_9(rng: np.random.Generator, make_tensor: Any) -> None:
    shape = (1, 2, 1, 2, 1, 2, 1, 2, 1)
    case = Case(rng, shape, 1)
    x, out, mask = make_tensor(case.x), make_tensor(case.out), make_tensor(case.mask)
    case.refused(INVALID, "self", "9", "8", self=x, out=out, mask=mask)


def test_order_of_checks(case: Case) -> None:
    """Null before dtype before shape before range, whichever argument it is."""
    null = {"mask": None}
    dtype = {"self": np.zeros((4, 6, 5), np.int8)}
    shape = {"scale": np.ones(5, np.float32)}
    bounds = {"quantMin": 1, "quantMax": 0}
    overlap = {"out": case.x[:, :, ::-1]}
    case.refused(NULLPTR, "mask", **overlap, **bounds, **shape, **dtype, **null)
    case.refused(INVALID, "self", "dtype", **overlap, **bounds, **shape, **dtype)
    case.refused(INVALID, "scale", **overlap, **bounds, **shape)
    case.refused(INVALID, "quantMin", **overlap, **bounds)
    case.refused(INVALID, "out", "overlaps", "self", **overlap)


def test_formats(case: Case) -> None:
    for format in (AclFormat.ACL_FORMAT_NCHW, AclFormat.ACL_FORMAT_NCL, AclFormat.ACL_FORMAT_UNDEFINED):
        case.plan(self=tensor(case.x, format=format))
    case.refused(INVALID, "self", "FRACTAL_NZ", self=tensor(case.x, format=AclFormat.ACL_FORMAT_FRACTAL_NZ))


def test_read_only_outputs(case: Case) -> None:
    locked = np.zeros((4, 6, 5), np.float32)
    locked.flags.writeable = False
    case.refused(INVALID, "out", "read-only", out=locked)
    case.refused(INVALID, "out", "read-only", out=tensor(locked))
    case.refused(INVALID, "mask", "read-only", mask=tensor(case.mask, data=bytes(120)))
    single = Case(np.random.default_rng(1), (), 0)
    single.refused(INVALID, "out", "read-only", out=np.float32(1))
    case.plan(self=tensor(locked))


# ---- overlap --------------------------------------------------------------------------------------------------------


def test_overlapping_outputs_are_refused(rng: np.random.Generator) -> None:
    case = Case(rng, (4, 6), 1)
    memory = np.zeros(256, np.uint8)
    x = memory[:96].view(np.float32).reshape(4, 6)
    shifted = memory[4:100].view(np.float32).reshape(4, 6)
    case.refused(INVALID, "out", "self", self=x, out=shifted)
    case.refused(INVALID, "out", "self", self=tensor(x), out=tensor(shifted))
    case.refused(INVALID, "out", "self", self=x, out=x.reshape(6, 4).T)  # the same bytes, other elements
    case.refused(INVALID, "mask", "self", self=x, mask=memory[:24].view(bool).reshape(4, 6))
    case.refused(INVALID, "out", "mask", out=x, mask=memory[90:114].view(bool).reshape(4, 6))
    case.refused(INVALID, "out", "scale", out=x, scale=memory[:24].view(np.float32))
    case.refused(INVALID, "mask", "zeroPoint", mask=case.zero_point.view(bool).reshape(4, 6))
    broadcast = np.lib.stride_tricks.as_strided(x, (4, 6), (0, 4))
    case.refused(INVALID, "out", "several elements", out=broadcast)
    case.refused(INVALID, "out", "several elements", out=tensor(x, strides=[3, 1]))
    case.refused(INVALID, "mask", "several elements", mask=tensor(case.mask, strides=[1, 1]))


def test_interleaved_views_are_accepted(rng: np.random.Generator) -> None:
    case = Case(rng, (4, 6), 1)
    storage = np.zeros((4, 12), np.float32)
    x, out = storage[:, ::2], storage[:, 1::2]
    x[...] = case.x
    run(case, self=described(x, storage), out=described(out, storage))
    assert_same((out, case.mask), case.answer)
    np.testing.assert_array_equal(x, case.x)


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 200)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_in_place(rng: np.random.Generator, shape: Any, dtype: Any) -> None:
    case = Case(rng, shape, 1, (dtype, "float32", dtype))
    answer = case.answer
    run(case, out=case.x)
    assert_same((case.x, case.mask), answer)


def test_in_place_on_scale_and_zero_point(rng: np.random.Generator) -> None:
    case = Case(rng, (40,), 0)
    answer = case.answer
    run(case, out=case.scale)
    assert_same((case.scale, case.mask), answer)
    case = Case(rng, (40,), 0)
    answer = case.answer
    run(case, out=case.zero_point.view(np.float32))
    assert_same((case.zero_point.view(np.float32), case.mask), answer)


def test_half_precision_over_single_is_a_partial_overlap(rng: np.random.Generator) -> None:
    case = Case(rng, (4, 6), 1, ("float32", "float32", "float16"))
    case.refused(INVALID, "out", "self", out=case.x.view(np.float16).reshape(-1)[:24].reshape(4, 6))


# ---- empty tensors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), [((0,), 0), ((3, 0, 2), 0), ((3, 0, 2), 1), ((0, 0), -1)])
def test_empty(rng: np.random.Generator, shape: Any, axis: Any) -> None:
    case = Case(rng, shape, axis)
    null = {
        name: tensor(array, data=None) for name, array in (("self", case.x), ("out", case.out), ("mask", case.mask))
    }
    for changes in ({}, null):
        size, executor = case.plan(**changes)
        assert size == 0
        assert launch(None, 0, executor, None) == SUCCESS
        assert launch(None, 0, executor, None) == INVALID
    case.refused(INVALID, "quantMin", quantMin=5, quantMax=4)
    case.refused(INVALID, "scale", scale=np.ones(9, np.float32))
    case.refused(INVALID, "mask", mask=np.empty((7,), bool))
    case.refused(NULLPTR, "out", out=None)


# ---- workspace ------------------------------------------------------------------------------------------------------


def test_workspace(case: Case) -> None:
    size, executor = case.plan()
    assert size > 0
    for status, word, workspace, length in [
        (NULLPTR, "workspace is None", None, size),
        (NULLPTR, "workspace is null", 0, size),
        (INVALID, f"workspaceSize is {size - 1}", bytearray(size), size - 1),
        (INVALID, "workspaceSize is -1", bytearray(size), -1),
        (INVALID, "workspaceSize is None", bytearray(size), None),
        (INVALID, "workspaceSize is array", bytearray(size), np.zeros(3)),
        (INVALID, f"workspace has {size - 1} bytes", bytearray(size - 1), size),
        (INVALID, f"workspace has {size} bytes", bytearray(size), size + 1),
        (INVALID, "read-only", bytes(size), size),
        (INVALID, "workspace is a str", "x" * size, size),
        (INVALID, "workspace is a float", 1.0, size),
        (INVALID, "workspace overlaps out", case.out.ctypes.data, size),
    ]:
        assert launch(workspace, length, executor, None) == status
        assert word in message()
        assert case.untouched
    memory = np.zeros(size + 10, np.uint8)
    assert launch(memory.ctypes.data, size, executor, None) == SUCCESS  # none of these used the executor up
    assert not memory[size:].any()
    case.check()


def test_more_workspace_than_needed(case: Case) -> None:
    size, executor = case.plan()
    memory = np.full(size + 10, SENTINEL, np.uint8)
    assert launch(memory, len(memory), executor, None) == SUCCESS
    assert (memory[size:] == SENTINEL).all()
    case.check()


def test_rows_need_no_workspace(rng: np.random.Generator) -> None:
    case = Case(rng, (3, 4, 4000), 1)
    size, executor = case.plan()
    assert size == 0
    assert launch(None, 0, executor, None) == SUCCESS
    case.check()


# ---- executors ------------------------------------------------------------------------------------------------------


def test_null_and_foreign_handles(case: Case) -> None:
    calls: list[Any] = [aclnn.aclSetAclOpExecutorRepeatable, aclnn.aclDestroyAclOpExecutor]
    for call in calls:
        assert call(None) == NULLPTR
        assert "executor is None" in message()
        assert call(case) == INVALID
        assert "executor is a Case" in message()
    assert launch(None, 0, None, None) == NULLPTR
    assert launch(None, 0, object(), None) == INVALID
    assert aclnn.aclSetTensorAddr(None, 0, None, 1) == NULLPTR
    assert aclnn.aclSetTensorAddr(3, 0, None, 1) == INVALID  # type: ignore[arg-type]
    size, executor = case.plan()
    assert launch(workspace_of(size), size, executor, "stream") == INVALID
    assert "stream is a str" in message()
    assert aclnn.aclrtSynchronizeStream(None) == SUCCESS
    assert aclnn.aclrtSynchronizeStream("stream") == INVALID  # type: ignore[arg-type]
    assert aclnn.aclrtDestroyStream(None) == NULLPTR
    assert launch(workspace_of(size), size, executor, None) == SUCCESS


def test_one_shot(case: Case) -> None:
    size, executor = case.plan()
    workspace = workspace_of(size)
    assert launch(workspace, size, executor, None) == SUCCESS
    case.check()
    case.clear()
    assert launch(workspace, size, executor, None) == INVALID
    assert "aclSetAclOpExecutorRepeatable" in message()
    assert case.untouched
    assert aclnn.aclSetAclOpExecutorRepeatable(executor) == INVALID
    assert aclnn.aclDestroyAclOpExecutor(executor) == INVALID
    assert "used" in repr(executor)


def test_one_shot_of_many_threads(case: Case) -> None:
    """Whoever comes first launches, and only that one."""
    size, executor = case.plan()
    start = threading.Barrier(8)
    statuses = []

    def work() -> None:
        start.wait()
        statuses.append(launch(bytearray(size), size, executor, None))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [SUCCESS] + [INVALID] * 7


def test_repeatable(case: Case) -> None:
    size, executor = case.repeatable()
    workspace = workspace_of(size)
    for memory in (workspace, workspace, bytearray(size), np.zeros(size, np.int8)):
        case.clear()
        case.x *= -1
        assert launch(memory, size, executor, None) == SUCCESS
        case.check()
    case.clear()
    for length in (size - 1, None, np.zeros(2)):
        assert launch(workspace, length, executor, None) == INVALID
    assert launch(None, size, executor, None) == NULLPTR
    assert aclnn.aclDestroyAclOpExecutor(executor) == SUCCESS
    assert launch(workspace, size, executor, None) == INVALID
    assert "destroyed" in message()
    assert aclnn.aclDestroyAclOpExecutor(executor) == INVALID
    assert aclnn.aclSetTensorAddr(executor, 0, None, case.x) == INVALID
    assert case.untouched


def test_destroy_before_the_launch(case: Case) -> None:
    size, executor = case.plan()
    assert aclnn.aclDestroyAclOpExecutor(executor) == SUCCESS
    assert launch(workspace_of(size), size, executor, None) == INVALID
    assert case.untouched


def test_executors_keep_memory_and_let_it_go(rng: np.random.Generator) -> None:
    case = Case(rng)
    size, executor = case.plan(self=case.x.copy(), scale=tensor(case.scale.copy()), out=tensor(case.out))
    gc.collect()
    assert launch(workspace_of(size), size, executor, None) == SUCCESS
    case.check()

    class Array(np.ndarray):
        """ndarray itself takes no weak reference in old numpy."""

    x = case.x.copy().view(Array)
    gone = weakref.ref(x)
    size, executor = case.plan(self=x)
    del x
    gc.collect()
    assert gone() is not None
    assert launch(workspace_of(size), size, executor, None) == SUCCESS
    gc.collect()
    assert gone() is None


# ---- rebinding ------------------------------------------------------------------------------------------------------


def test_rebinding_every_tensor(rng: np.random.Generator) -> None:
    first, second = Case(rng, (3, 40, 6), 1), Case(rng, (3, 40, 6), 1)
    size, executor = first.repeatable()
    workspace = workspace_of(size)
    assert launch(workspace, size, executor, None) == SUCCESS
    addresses = (second.x, second.scale.ctypes.data, second.zero_point, second.out.ctypes.data, second.mask.data)
    given = (tensor(second.x), None, second.zero_point, None, second.mask)
    for index, (t, addr) in enumerate(zip(given, addresses, strict=True)):
        assert aclnn.aclSetTensorAddr(executor, index, t, addr) == SUCCESS, message()
    assert second.untouched
    first.clear()
    assert launch(workspace, size, executor, None) == SUCCESS
    second.check()
    assert first.untouched


def test_rebinding_inputs_and_outputs(rng: np.random.Generator) -> None:
    first, second = Case(rng), Case(rng)
    size, executor = first.repeatable()
    for index, array in enumerate((second.x, second.scale, second.zero_point)):
        assert aclnn.aclSetInputTensorAddr(executor, index, None, array) == SUCCESS
    for index, array in enumerate((second.out, second.mask)):
        assert aclnn.aclSetOutputTensorAddr(executor, index, None, array) == SUCCESS
    assert aclnn.aclSetInputTensorAddr(executor, 3, None, second.out) == INVALID
    assert aclnn.aclSetOutputTensorAddr(executor, 2, None, second.out) == INVALID
    assert launch(workspace_of(size), size, executor, None) == SUCCESS
    second.check()


def test_addresses_that_come_later(rng: np.random.Generator) -> None:
    """As in CANN, a tensor may be described before its memory exists."""
    case = Case(rng)
    arrays = (case.x, case.scale, case.zero_point, case.out, case.mask)
    later = {name: tensor(array, data=None) for name, array in zip(NAMES, arrays, strict=True)}
    size, executor = case.plan(**later)
    assert aclnn.aclSetAclOpExecutorRepeatable(executor) == SUCCESS
    for index, (name, array) in enumerate(zip(NAMES, arrays, strict=True)):
        assert launch(bytearray(size), size, executor, None) == NULLPTR
        assert f"the address of {name} is null" in message()
        assert aclnn.aclSetTensorAddr(executor, index, later[name], array) == SUCCESS
    assert launch(bytearray(size), size, executor, None) == SUCCESS
    case.check()


def test_rebinding_adds_the_offset(rng: np.random.Generator) -> None:
    case = Case(rng, (2, 3), 1)
    storage = np.zeros(20, np.float32)
    size, executor = case.plan(out=tensor(storage, view_dims=[2, 3], strides=[3, 1], offset=5))
    aclnn.aclSetAclOpExecutorRepeatable(executor)
    other = np.full(20, SENTINEL, np.float32)
    assert aclnn.aclSetTensorAddr(executor, 3, None, other.ctypes.data) == SUCCESS
    assert launch(workspace_of(size), size, executor, None) == SUCCESS
    assert_same((other[5:11].reshape(2, 3), case.mask), case.answer)
    assert (other[:5] == SENTINEL).all()
    assert (other[11:] == SENTINEL).all()
    assert not storage.any()


def test_rebinding_arrays_with_negative_strides(rng: np.random.Generator) -> None:
    case = Case(rng, (4, 6), 1)
    size, executor = case.plan(out=np.zeros((4, 6), np.float32)[::-1])
    aclnn.aclSetAclOpExecutorRepeatable(executor)
    assert aclnn.aclSetTensorAddr(executor, 3, None, case.out) == SUCCESS
    assert launch(workspace_of(size), size, executor, None) == SUCCESS
    assert_same((case.out[::-1], case.mask), case.answer)


def test_refused_rebinding(case: Case) -> None:
    size, executor = case.plan()
    assert aclnn.aclSetTensorAddr(executor, 0, None, case.x) == INVALID
    assert "aclSetAclOpExecutorRepeatable" in message()
    assert aclnn.aclSetAclOpExecutorRepeatable(executor) == SUCCESS
    locked = np.zeros_like(case.out)
    locked.flags.writeable = False
    for status, word, index, t, addr in [
        (INVALID, "index is 5", 5, None, case.x),
        (INVALID, "index is -1", -1, None, case.x),
        (INVALID, "index is None", None, None, case.x),
        (NULLPTR, "addr of self is null", 0, None, None),
        (NULLPTR, "addr of out is null", 3, None, 0),
        (INVALID, "addr of scale has 23 bytes", 1, None, bytearray(23)),
        (INVALID, "addr of scale is a str", 1, None, "here"),
        (INVALID, "out is read-only", 3, None, locked),
        (INVALID, "out overlaps part of self", 3, None, case.x.ctypes.data + 4),
        (INVALID, "mask overlaps part of self", 4, None, case.x),
        (INVALID, "out and mask overlap", 4, None, case.out),
        (INVALID, "out overlaps part of self", 0, None, case.out.ctypes.data - 4),
        (INVALID, "tensor is float16", 0, np.zeros(case.x.shape, np.float16), case.x),
        (INVALID, "tensor is float32 (6, 4, 5)", 0, case.x.reshape(6, 4, 5), case.x),
        (INVALID, "with strides", 0, tensor(case.x, strides=[30, 1, 6]), case.x),
        (INVALID, "tensor is a str", 0, "tensor", case.x),
    ]:
        assert aclnn.aclSetTensorAddr(executor, index, t, addr) == status  # type: ignore[arg-type]
        assert word in message()
    assert launch(workspace_of(size), size, executor, None) == SUCCESS  # with the old addresses
    case.check()
    answer = case.answer
    assert aclnn.aclSetTensorAddr(executor, 3, None, case.x) == SUCCESS  # in place
    assert launch(workspace_of(size), size, executor, None) == SUCCESS
    assert_same((case.x, case.mask), answer)


def test_workspace_is_checked_again_after_rebinding(case: Case) -> None:
    size, executor = case.repeatable()
    workspace = np.zeros(max(size, case.out.nbytes), np.uint8)
    assert launch(workspace, size, executor, None) == SUCCESS
    assert aclnn.aclSetTensorAddr(executor, 3, None, workspace) == SUCCESS
    assert launch(workspace, size, executor, None) == INVALID
    assert "workspace overlaps out" in message()


# ---- streams --------------------------------------------------------------------------------------------------------


@pytest.fixture
def streams() -> Iterator[list[AclrtStream]]:
    made = [aclnn.aclrtCreateStream() for _ in range(2)]
    assert all(status == SUCCESS for status, _ in made)
    yield [stream for _, stream in made if stream is not None]
    for _, stream in made:
        aclnn.aclrtDestroyStream(stream)


def test_asynchronous(case: Case, streams: list[AclrtStream]) -> None:
    size, executor = case.plan()
    assert launch(workspace_of(size), size, executor, streams[0]) == SUCCESS
    assert aclnn.aclrtSynchronizeStream(streams[0]) == SUCCESS
    case.check()
    assert launch(workspace_of(size), size, executor, streams[0]) == INVALID  # one launch, streams or not


def test_launches_of_a_stream_run_in_order_beside_the_caller(
    monkeypatch: pytest.MonkeyPatch, case: Case, streams: list[AclrtStream]
) -> None:
    gate, done = threading.Event(), []

    def action_of(number: int) -> Any:
        def action(*_: Any) -> None:
            gate.wait(10)
            time.sleep(0.001 * (number % 3))
            done.append((number, threading.get_ident()))

        return action

    executors = [planned(monkeypatch, case, action_of(number)) for number in range(20)]
    for executor in executors:
        assert launch(None, 0, executor, streams[0]) == SUCCESS
    assert not done
    gate.set()
    assert aclnn.aclrtSynchronizeStream(streams[0]) == SUCCESS
    assert [number for number, _ in done] == list(range(20))
    assert {ident for _, ident in done} != {threading.get_ident()}
    assert len({ident for _, ident in done}) == 1


def test_a_chain_of_launches_on_one_stream(rng: np.random.Generator, streams: list[AclrtStream]) -> None:
    """Each reads what the one before it wrote."""
    case = Case(rng, (6, 50), 1)
    bounds = [(-128, 127), (-100, 90), (-64, 63), (-8, 7), (0, 5)]
    value, source = case.x, case.x
    for low, high in bounds:
        out, mask = np.empty_like(case.x), np.empty_like(case.mask)
        size, executor = case.plan(self=source, quantMin=low, quantMax=high, out=out, mask=mask)
        assert launch(workspace_of(size), size, executor, streams[0]) == SUCCESS
        value = expected(value, case.scale, case.zero_point, 1, low, high)[0]
        source = out
    assert aclnn.aclrtSynchronizeStream(streams[0]) == SUCCESS
    np.testing.assert_array_equal(out.view(np.uint32), value.view(np.uint32))


def test_two_streams_run_at_once(monkeypatch: pytest.MonkeyPatch, case: Case, streams: list[AclrtStream]) -> None:
    meeting = threading.Barrier(3)  # passes only if both are inside a launch, and the caller beside them
    executor = planned(monkeypatch, case, lambda *_: meeting.wait(10))
    for stream in streams:
        assert launch(None, 0, executor, stream) == SUCCESS
    meeting.wait(10)
    for stream in streams:
        assert aclnn.aclrtSynchronizeStream(stream) == SUCCESS


def test_kernels_run_beside_python(rng: np.random.Generator, streams: list[AclrtStream]) -> None:
    case = Case(rng, (1500, 2000), 0)
    case.x[:] = rng.standard_normal(case.x.shape, np.float32)
    size, executor = case.repeatable()
    for _ in range(20):
        assert launch(workspace_of(size), size, executor, streams[0]) == SUCCESS
    turns = 0
    while streams[0]._executor._work_queue.qsize():
        turns += 1
    assert aclnn.aclrtSynchronizeStream(streams[0]) == SUCCESS
    assert turns > 100
    case.check()


def test_failures_are_reported_once_the_first_of_them(
    monkeypatch: pytest.MonkeyPatch, case: Case, streams: list[AclrtStream]
) -> None:
    ran = []
    good = planned(monkeypatch, case, lambda *_: ran.append(1))
    bad, worse = planned(monkeypatch, case, fail("first")), planned(monkeypatch, case, fail("second"))
    for executor in (good, bad, worse, good):
        assert launch(None, 0, executor, streams[0]) == SUCCESS
    assert launch(None, 0, good, streams[1]) == SUCCESS
    assert aclnn.aclrtSynchronizeStream(streams[1]) == SUCCESS  # a failure belongs to its stream
    assert aclnn.aclrtSynchronizeStream(streams[0]) == RUNTIME
    assert message() == "first"
    assert ran == [1, 1, 1]
    assert aclnn.aclrtSynchronizeStream(streams[0]) == SUCCESS
    assert case.untouched


def test_failures_without_a_stream(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    executor = planned(monkeypatch, case, fail("no luck"))
    for _ in range(2):
        assert launch(None, 0, executor, None) == RUNTIME
        assert message() == "no luck"
    executor = planned(monkeypatch, case, lambda *_: int("key"))
    for _ in range(2):
        assert launch(None, 0, executor, None) == AclnnStatus.ACLNN_ERR_INNER
        assert "ValueError" in message()
    assert case.untouched


def test_kernel_that_fails(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    """The library's own way of reporting: a kernel that raises is a launch that failed."""
    size, executor = case.repeatable()

    def broken(*_: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(executor._launch, "_serial", ((broken, None, ()),))
    assert launch(workspace_of(size), size, executor, None) == RUNTIME
    assert "out of luck" in message()
    assert case.untouched


def test_queued_launches_keep_the_old_addresses(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, streams: list[AclrtStream]
) -> None:
    first, second = Case(rng), Case(rng)
    size, executor = first.repeatable()
    gate = threading.Event()
    assert launch(None, 0, planned(monkeypatch, first, lambda *_: gate.wait(10)), streams[0]) == SUCCESS
    assert launch(bytearray(size), size, executor, streams[0]) == SUCCESS
    for index, array in enumerate((second.x, second.scale, second.zero_point, second.out, second.mask)):
        assert aclnn.aclSetTensorAddr(executor, index, None, array) == SUCCESS
    assert launch(bytearray(size), size, executor, streams[0]) == SUCCESS
    assert aclnn.aclDestroyAclOpExecutor(executor) == SUCCESS  # what is queued still runs
    gate.set()
    assert aclnn.aclrtSynchronizeStream(streams[0]) == SUCCESS
    first.check()
    second.check()


def test_queued_launches_keep_memory(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, streams: list[AclrtStream]
) -> None:
    case = Case(rng)
    gate = threading.Event()
    assert launch(None, 0, planned(monkeypatch, case, lambda *_: gate.wait(10)), streams[0]) == SUCCESS
    size, executor = case.plan(self=case.x.copy(), scale=tensor(case.scale.copy()))
    assert launch(bytearray(size), size, executor, streams[0]) == SUCCESS
    del executor
    gc.collect()
    gate.set()
    assert aclnn.aclrtSynchronizeStream(streams[0]) == SUCCESS
    case.check()


def test_destroyed_streams(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    _, stream = aclnn.aclrtCreateStream()
    assert stream is not None
    done = []

    def slowly(*_: Any) -> None:
        time.sleep(0.02)
        done.append(1)

    slow = planned(monkeypatch, case, slowly)
    for _ in range(3):
        assert launch(None, 0, slow, stream) == SUCCESS
    assert launch(None, 0, planned(monkeypatch, case, fail("unseen")), stream) == SUCCESS
    assert aclnn.aclrtDestroyStream(stream) == RUNTIME
    assert message() == "unseen"
    assert len(done) == 3
    size, executor = case.plan()
    for status in (
        aclnn.aclrtDestroyStream(stream),
        aclnn.aclrtSynchronizeStream(stream),
        launch(workspace_of(size), size, executor, stream),
    ):
        assert status == INVALID
        assert "stream is destroyed" in message()
    assert launch(workspace_of(size), size, executor, None) == SUCCESS  # the refusal did not use it up


def test_many_threads_on_one_stream(rng: np.random.Generator, streams: list[AclrtStream]) -> None:
    cases = [Case(rng, (8, 30), 1) for _ in range(8)]

    def work(case: Case) -> None:
        for _ in range(20):
            size, executor = case.plan()
            assert launch(workspace_of(size), size, executor, streams[0]) == SUCCESS

    threads = [threading.Thread(target=work, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert aclnn.aclrtSynchronizeStream(streams[0]) == SUCCESS
    for case in cases:
        case.check()


PROGRAM = """
import atexit, sys, time, numpy as np
from fq_tvm import aclnn
from fq_tvm.aclnn import operator
class Slow:
    workspace_size = 0
    def __call__(self, *tensors):
        time.sleep(0.02)
        sys.stdout.write("ran\\n")
x = np.ones((3, 4), np.float32)
operator.launch_of = lambda *_: Slow()
status, stream = aclnn.aclrtCreateStream()
for _ in range(10):
    size, executor = aclnn.get_workspace_size(
        x, np.ones(4, np.float32), np.zeros(4, np.int32), 1, 0, 255, np.empty_like(x), np.empty_like(x, bool))
    aclnn.execute(None, 0, executor, stream)
atexit.register(lambda: print("status", int(aclnn.aclrtSynchronizeStream(stream))))
sys.stdout.write("end\\n")  # print writes the end of the line by itself, and the stream's thread may write between
"""


def test_exit_loses_no_queued_work_and_does_not_hang() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sorted(lines[:-1]) == ["end"] + ["ran"] * 10
    assert lines[-1] == "status 0"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_nothing_stays_of_streams_and_threads_that_ended(case: Case) -> None:
    def there() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    def launch(index: int) -> None:
        status, stream = aclnn.aclrtCreateStream()
        assert status == SUCCESS
        if index % 2:  # the others are dropped
            assert aclnn.aclrtDestroyStream(stream) == SUCCESS

    launch(1)
    before = there()
    for index in range(50):
        thread = threading.Thread(target=launch, args=(index,))
        thread.start()
        thread.join()
    gc.collect()
    until = time.monotonic() + 30
    while sum(there()) > sum(before) and time.monotonic() < until:
        time.sleep(0.01)  # the thread of a stream that was dropped ends by itself
    assert sum(there()) <= sum(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_that_the_stream_is_not_its_own(case: Case, streams: list[AclrtStream]) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, f"{int(aclnn.aclrtSynchronizeStream(streams[0]))} {message()}".encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    text = os.read(read, 1000).decode()
    assert text.startswith("361001 stream belongs to process")


# ---- messages and errors --------------------------------------------------------------------------------------------


def test_messages_belong_to_threads(case: Case) -> None:
    case.refused(INVALID, axis=9)
    mine, theirs = message(), []

    def work() -> None:
        theirs.append(message())
        case.refused(NULLPTR, scale=None)
        theirs.append(message())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert theirs == ["", "scale is None; expected a tensor"]
    assert message() == mine == "axis is 9; expected one from -3 to 2 for 3 dimensions"
    case.plan()
    assert message() == mine  # the last message, not the last call


def test_raising_forms(case: Case) -> None:
    with pytest.raises(AclnnError) as caught:
        aclnn.get_workspace_size(*case.arguments(mask=None))
    assert (caught.value.status, caught.value.message) == (NULLPTR, "mask is None; expected a tensor")
    assert str(caught.value) == "ACLNN_ERR_PARAM_NULLPTR (161001): mask is None; expected a tensor"
    size, executor = aclnn.get_workspace_size(*case.arguments())
    with pytest.raises(AclnnError, match="161002"):
        aclnn.execute(bytearray(size), size - 1, executor, None)
    assert case.untouched
    aclnn.execute(bytearray(size), size, executor)
    case.check()
    with pytest.raises(AclnnError, match="executor was launched"):
        aclnn.execute(bytearray(size), size, executor, None)


@pytest.mark.parametrize(
    ("error", "status"),
    [(BuildError("no kernel"), 561003), (RuntimeError("no kernel"), 561101), (MemoryError("no kernel"), 561101)],
)
def test_internal_faults(monkeypatch: pytest.MonkeyPatch, case: Case, error: Any, status: Any) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(aclnn_operator, "launch_of", broken)
    case.refused(AclnnStatus(status), "no kernel")


def test_a_kernel_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setenv("FQ_TVM_TARGET", "no-such-cpu")
    Case(rng).refused(AclnnStatus.ACLNN_ERR_INNER_FIND_KERNEL_ERROR, "no-such-cpu")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_phase_one_never_raises(data: st.DataObject) -> None:
    case = Case(np.random.default_rng(5))
    anything = st.sampled_from(
        [None, 0, -1, 1.5, "x", b"", [], {}, object(), int, np.float32(1), np.zeros(6, "f4"), np.zeros(6, "i4"),
         np.zeros((4, 6, 5), bool), np.zeros(0), np.zeros(3, "U0"), np.zeros(2, [("a", "i4")]), np.zeros(2, object),
         np.ma.masked_array([1.0]), torch.zeros(6), torch.zeros(3).to_sparse(), torch.zeros(2, device="meta"),
         aclnn.aclCreateTensor([4], "int8", None, 0, 2, [4], 64)]
    )  # fmt: skip
    names = [*NAMES, "axis", "quantMin", "quantMax"]
    changes = data.draw(st.dictionaries(st.sampled_from(names), anything, min_size=1, max_size=4))
    status, size, executor = plan(*case.arguments(**changes))
    if status:
        assert (size, executor) == (0, None)
        assert status in (NULLPTR, INVALID), message()
        assert message()
    assert case.untouched


# ---- the example, and what importing costs --------------------------------------------------------------------------


def test_example(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out == "result[0] is: 1.000000, mask[0] is: 1\n"


def test_import_is_light() -> None:
    program = "import sys, fq_tvm.aclnn; print([m for m in ('tvm', 'tvm_ffi', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr

"""The function: kinds of tensors, memory layouts, out= and mask=, errors, and agreement with torch."""

from __future__ import annotations

import re
import threading

import ml_dtypes
import numpy as np
import pytest
import torch
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from support import RANGES, assert_same, expected, make, to_numpy, to_torch

import fq_tvm.torch
from fq_tvm import ArgumentError, CacheMissError, functional
from fq_tvm import fake_quantize_per_channel_affine as single
from fq_tvm import fake_quantize_per_channel_affine_cachemask as fake_quant
from fq_tvm.launch import registry

ATEN = torch.ops.aten.fake_quantize_per_channel_affine_cachemask


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def args(rng):
    return (*make(rng, (4, 6, 5), 1), 1, -128, 127)


@pytest.mark.parametrize("quant_range", RANGES)
@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float16", "float32"), ("float16", "float16")])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_numpy(rng, axis, dtypes, quant_range):
    x, scale, zero_point = make(rng, (3, 40, 170), axis, *dtypes, quant_range)
    for _ in range(2):  # first call, then the remembered plan
        assert_same(
            fake_quant(x, scale, zero_point, axis, *quant_range), expected(x, scale, zero_point, axis, *quant_range)
        )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("quant_range", RANGES[:6])
def test_torch_bit_for_bit(rng, memory_format, quant_range):
    x, scale, zero_point = make(rng, (2, 16, 9, 10), 1, quant_range=quant_range, specials=False)
    x, scale, zero_point = (torch.from_numpy(a) for a in (x, scale, zero_point))
    x = x.to(memory_format=memory_format)
    for _ in range(2):
        got = fake_quant(x, scale, zero_point, 1, *quant_range)
        assert all(isinstance(t, torch.Tensor) and t.stride() == x.stride() for t in got)
        assert_same([t.numpy() for t in got], [t.numpy() for t in ATEN(x, scale, zero_point, 1, *quant_range)])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("quant_range", [RANGES[0], RANGES[5]])
def test_torch_bfloat16_bit_for_bit(rng, memory_format, quant_range):
    x, scale, zero_point = make(rng, (2, 16, 9, 10), 1, "bfloat16", quant_range=quant_range, specials=False)
    x, scale, zero_point = (to_torch(a) for a in (x, scale, zero_point))
    x = x.to(memory_format=memory_format)
    for _ in range(2):
        got = fake_quant(x, scale, zero_point, 1, *quant_range)
        assert all(t.stride() == x.stride() for t in got)
        assert_same([to_numpy(t) for t in got], [to_numpy(t) for t in ATEN(x, scale, zero_point, 1, *quant_range)])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (1, 300000), (), (0, 3)])
def test_one_scale_for_the_tensor(rng, shape, dtype):
    per_tensor = torch.ops.aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams
    x, scale, zero_point = (to_torch(a) for a in make(rng, shape, None, dtype, specials=False))
    want = per_tensor(x, scale, zero_point, torch.ones(1, dtype=torch.int64), -128, 127)
    want = (
        [to_numpy(t) for t in want] if x.numel() else expected(*map(to_numpy, (x, scale, zero_point)), None, -128, 127)
    )
    for vectors in ((scale, zero_point), (scale[0], zero_point[0]), (scale[0], zero_point)):
        for _ in range(2):
            assert_same([to_numpy(t) for t in fake_quant(x, *vectors, None, -128, 127)], want)
            arrays = [to_numpy(t) for t in (x, *vectors)]
            got = fake_quant(*arrays, None, -128, 127)
            assert_same(got, want)
            assert all(type(a) is np.ndarray for a in got)


def test_one_scale_in_any_memory_order(rng):
    x, scale, zero_point = make(rng, (4, 6, 5, 30), None)
    zero_point = (zero_point + 0.25).astype("f4")
    for view in (x, x.T, x.swapaxes(1, 3), x[::2, :, ::-1], np.broadcast_to(x[:1], x.shape)):
        assert_same(fake_quant(view, scale, zero_point, None, -8, 7), expected(view, scale, zero_point, None, -8, 7))
    view = x.T  # out in C order
    out = np.empty(view.shape, "f2")
    got = fake_quant(view, scale, zero_point, None, -8, 7, out=out)
    assert_same(got, expected(view, scale, zero_point, None, -8, 7, "f2"))


def test_one_parameter_for_eight_dimensions_that_do_not_join(rng):
    """The parameters need a loop of their own, and there is none left; scale is a view with a stride."""
    x, _, zero_point = make(rng, (4, 6, 4, 4, 4, 4, 4, 4), None)
    view, scale = x[(slice(None, None, 2),) * 8], np.float32([0.25, 0.5])[::-2]
    assert_same(fake_quant(view, scale, zero_point, None, -8, 7), expected(view, scale, zero_point, None, -8, 7))


@pytest.mark.parametrize("zero_point_dtype", ["float32", "float16"])
@pytest.mark.parametrize("quant_range", [RANGES[0], RANGES[4], RANGES[5], RANGES[6]])
@pytest.mark.parametrize(("shape", "axis"), [((3, 40, 170), 1), ((3, 40, 170), 2), ((700, 3), 1), ((2000,), None)])
def test_float_zero_points(rng, shape, axis, quant_range, zero_point_dtype):
    x, scale, zero_point = make(rng, shape, axis, quant_range=quant_range, zero_point_dtype=zero_point_dtype)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 0.3, 60000, 1e-7], zero_point_dtype)
    if axis is not None:
        zero_point = np.where(rng.random(zero_point.shape) < 0.3, rng.choice(odd, zero_point.shape), zero_point)
    for _ in range(2):
        assert_same(
            fake_quant(x, scale, zero_point, axis, *quant_range), expected(x, scale, zero_point, axis, *quant_range)
        )


def test_numpy_bfloat16(rng):
    x, scale, zero_point = make(rng, (30, 6, 50), 1, "bfloat16", "bfloat16")
    want = expected(x, scale, zero_point, 1, -128, 127)
    for view in (x, np.asfortranarray(x)):
        for _ in range(2):
            got = fake_quant(view, scale, zero_point, 1, -128, 127)
            assert got[0].dtype == x.dtype
            assert got[0].strides == view.strides
            assert_same(got, want)
    frozen = x.copy()
    frozen.flags.writeable = False
    assert_same(fake_quant(frozen, scale, zero_point, 1, -128, 127), want)
    assert_same(
        fake_quant(x.astype("f4"), scale, zero_point, 1, -128, 127)[:2],
        fake_quant(x.astype("f4"), scale.astype("f4"), zero_point, 1, -128, 127),
    )
    out = np.empty(x.shape, "f2")
    assert_same(
        fake_quant(x, scale, zero_point, 1, -128, 127, out=out), expected(x, scale, zero_point, 1, -128, 127, "f2")
    )
    assert fake_quant(x, scale, zero_point, 1, -128, 127, out=x)[0] is x
    assert_same((x, want[1]), want)


def test_other_bfloat16_tensors_need_an_out(rng):
    import tvm_ffi

    x, scale, zero_point = make(rng, (4, 6, 5), 1, "bfloat16")
    tensor = tvm_ffi.from_dlpack(to_torch(x))
    with pytest.raises(ArgumentError, match="pass out="):
        fake_quant(tensor, scale, zero_point, 1, -128, 127)
    out, mask = np.empty_like(x), np.empty(x.shape, bool)
    fake_quant(tensor, scale, zero_point, 1, -128, 127, out=out, mask=mask)
    assert_same((out, mask), expected(x, scale, zero_point, 1, -128, 127))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("axis", [1, None])
def test_a_torch_call_that_was_seen_is_not_described_again(rng, dtype, axis, monkeypatch):
    x, scale, zero_point = (to_torch(a) for a in make(rng, (4, 6, 5), axis, dtype))
    want = [to_numpy(t).copy() for t in fake_quant(x, scale, zero_point, axis, -8, 7)]
    monkeypatch.setattr(functional, "describe", None)
    assert_same([to_numpy(t) for t in fake_quant(x, scale, zero_point, axis, -8, 7)], want)


def test_torch_details(args):
    x, scale, zero_point = (torch.from_numpy(a) for a in args[:3])
    want = expected(*args)
    parameter = torch.nn.Parameter(x.clone())
    out, mask = fake_quant(parameter, scale, zero_point, *args[3:])
    assert not out.requires_grad
    assert_same((out.numpy(), mask.numpy()), want)
    assert_same([t.numpy() for t in fake_quant(x, args[1], args[2], *args[3:])], want)  # mixed kinds; x decides
    with pytest.raises(ArgumentError, match="meta"):
        fake_quant(x.to("meta"), scale, zero_point, *args[3:])
    with pytest.raises(ArgumentError, match="meta"):
        fake_quant(x, scale.to("meta"), zero_point, *args[3:])
    with pytest.raises(ArgumentError, match="sparse"):
        fake_quant(x.to_sparse(), scale, zero_point, *args[3:])


def test_torch_negated_views_are_refused(args):
    x, scale, zero_point = (torch.from_numpy(a) for a in args[:3])
    negated = torch.complex(torch.zeros_like(x), x).conj().imag
    assert negated.is_neg()
    fake_quant(torch.empty(*negated.shape, 2)[..., 1], scale, zero_point, *args[3:])  # the same description, plain
    with pytest.raises(ArgumentError, match="resolve_neg"):
        fake_quant(negated, scale, zero_point, *args[3:])


def test_a_negated_zero_point_is_refused_by_the_hundredth_call_too(args):
    x, scale, zero_point = (torch.from_numpy(a) for a in args[:3])
    for _ in range(2):
        fake_quant(x, scale, zero_point, *args[3:])
    with pytest.raises(ArgumentError, match="zero_point is a negated view"):
        fake_quant(x, scale, torch._neg_view(zero_point), *args[3:])


def test_bfloat16_scalars_live_as_long_as_the_call():
    """Several at once: what one leaves behind, the next one would be given."""
    dtype = ml_dtypes.bfloat16
    x, scale, zero_point = dtype(-20), dtype(0.05), np.float16(3)
    for _ in range(20):
        got = fake_quant(x, scale, zero_point, None, -128, 127)
        assert_same([np.asarray(part) for part in got], expected(np.asarray(x), scale, zero_point, None, -128, 127))


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 6, 66, 101])
@pytest.mark.parametrize("shape", [(4, 8), (3, 40, 70)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensors_begin_at_any_byte(rng, shape, dtype, offset):
    import tvm

    def tensor(values):
        memory = tvm.runtime.tensor(np.full(values.nbytes + 256, 0xAA, np.uint8))
        view = memory._create_view(values.shape, str(values.dtype), relative_byte_offset=offset)
        return memory, view

    x, scale, zero_point = make(rng, shape, 1, dtype)
    inputs, _ = zip(*(tensor(values) for values in (x, scale, zero_point)), strict=True)
    views = []
    for memory, values in zip(inputs, (x, scale, zero_point), strict=True):
        bytes_ = np.from_dlpack(memory).copy()
        bytes_[offset : offset + values.nbytes] = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        memory.copyfrom(bytes_)
        views.append(memory._create_view(values.shape, str(values.dtype), relative_byte_offset=offset))
    want = expected(x, scale, zero_point, 1, -128, 127)
    results = [tensor(values) for values in want]
    fake_quant(*views, 1, -128, 127, out=results[0][1], mask=results[1][1])
    for (memory, _), values in zip(results, want, strict=True):
        written = memory.numpy()
        assert written[offset : offset + values.nbytes].tobytes() == values.tobytes()
        assert set(written[:offset]) | set(written[offset + values.nbytes :]) == {0xAA}


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_hundredth_call_checks_what_the_first_does(data):
    """Tensors anywhere in one memory, read-only ones among them: the same error, or the same bits."""
    kind = data.draw(st.sampled_from([np.ndarray, torch.Tensor]))
    memory = np.zeros(1024, np.uint8)
    memory[:] = np.random.default_rng(0).integers(0, 64, 1024)

    def place(name, shape, dtype, choices):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start = data.draw(st.sampled_from(choices), label=name)
        return memory[start : start + size].view(dtype).reshape(shape)

    x = place("x", (3, 4), "f4", [0, 4, 48])
    scale = place("scale", (4,), "f4", [256, 272])
    zero_point = place("zero_point", (4,), "i4", [272, 288])
    out = place("out", (3, 4), "f4", [0, 4, 48, 96, 260, 320, 512])
    mask = place("mask", (3, 4), "bool", [0, 47, 96, 140, 280, 320, 600])
    tensors = [x, scale, zero_point, out, mask]
    if data.draw(st.booleans()):
        tensors[3] = tensors[0]
    if kind is torch.Tensor:
        tensors = [torch.from_numpy(t) for t in tensors]
    elif (frozen := data.draw(st.sampled_from([None, *range(5)]))) is not None:
        tensors[frozen] = tensors[frozen].view()
        tensors[frozen].flags.writeable = False
    before = memory.copy()

    def attempt():
        memory[:] = before
        try:
            fake_quant(*tensors[:3], 1, -8, 7, out=tensors[3], mask=tensors[4])
        except ArgumentError as error:
            assert memory.tobytes() == before.tobytes()
            return str(error)
        return memory.tobytes()

    warm_up = [np.zeros(s, d) for s, d in (((3, 4), "f4"), ((4,), "f4"), ((4,), "i4"), ((3, 4), "f4"), ((3, 4), bool))]
    registry.launches.clear()
    cold = attempt()
    if kind is torch.Tensor:
        warm_up = [torch.from_numpy(t) for t in warm_up]
    fake_quant(*warm_up[:3], 1, -8, 7, out=warm_up[3], mask=warm_up[4])
    assert [attempt(), attempt()] == [cold, cold]


def test_other_dlpack_tensors(args):
    import tvm_ffi

    arrays = [tvm_ffi.from_dlpack(a) for a in args[:3]]
    out, mask = fake_quant(*arrays, *args[3:])
    assert isinstance(out, tvm_ffi.Tensor)
    assert_same((np.from_dlpack(out), np.from_dlpack(mask)), expected(*args))


def test_tvm_tensors(args):
    import tvm

    arrays = [tvm.runtime.tensor(a) for a in args[:3]]
    out, mask = fake_quant(*arrays, *args[3:])
    assert_same((out.numpy(), mask.numpy()), expected(*args))


class Producer:
    """A DLPack producer of no known kind."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_an_unknown_producer_needs_out_and_mask(args):
    x = Producer(args[0])
    with pytest.raises(ArgumentError, match=r"Producer.*out= and mask="):
        fake_quant(x, *args[1:])
    out, mask = np.empty_like(args[0]), np.empty_like(args[0], bool)
    assert fake_quant(x, *args[1:], out=out, mask=mask) == (out, mask) or True
    assert_same((out, mask), expected(*args))


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2, :, ::3],
        lambda a: a[::-1],
        lambda a: a[:, :, ::-1],
        lambda a: np.broadcast_to(a[:, :, :1], a.shape),
        lambda a: np.asfortranarray(a),
        lambda a: a.swapaxes(0, 1),
        lambda a: a[:, 1:, 1:],
        lambda a: a[:, :1],
        lambda a: a[0, 0, 0],
        lambda a: a[..., None],
        lambda a: a[:0],
    ],
)
def test_views_without_copies(rng, view):
    x = np.asarray(view(make(rng, (6, 8, 10), 1)[0]))
    for axis in range(max(x.ndim, 1)):
        channels = x.shape[axis] if x.ndim else 1
        scale, zero_point = rng.random(2 * channels).astype("f4")[::2] + 0.1, np.arange(-channels, channels, 2, "i4")
        zero_point = zero_point[:channels] if len(zero_point) >= channels else np.zeros(channels, "i4")
        out, mask = fake_quant(x, scale, zero_point, axis, -128, 127)
        assert_same((out, mask), expected(x, scale, zero_point, axis, -128, 127))
        assert out.strides == np.empty_like(x).strides


def test_read_only_inputs(args):
    want = expected(*args)
    arrays = [a.copy() for a in args[:3]]
    for array in arrays:
        array.flags.writeable = False
    for _ in range(2):
        assert_same(fake_quant(*arrays, *args[3:]), want)
    fake_quant(*args)  # the plan for this description is known now
    assert_same(fake_quant(*arrays, *args[3:]), want)


def test_misaligned_memory(args):
    raw = np.zeros(args[0].nbytes + 1, np.uint8)
    x = raw[1:].view("f4").reshape(args[0].shape)
    x[...] = args[0]
    assert x.ctypes.data % 4
    assert_same(fake_quant(x, *args[1:]), expected(*args))


def test_out_and_mask(args):
    x = args[0]
    out, mask = np.zeros(x.shape, "f2"), np.ones((8, 6, 10), bool)[::2, :, ::2]
    got = fake_quant(*args, out=out, mask=mask)
    assert got[0] is out
    assert got[1] is mask
    assert_same(got, expected(*args, "float16"))
    only = np.zeros_like(x)
    assert fake_quant(*args, out=only)[0] is only
    assert_same((only, fake_quant(*args, mask=mask)[1]), expected(*args))


def test_given_outputs_are_prepared_for_once(args, monkeypatch):
    out, mask = np.empty_like(args[0]), np.empty_like(args[0], bool)
    fake_quant(*args, out=out, mask=mask)
    monkeypatch.setattr(registry, "prepare", None)  # a second preparation would fail
    out[...] = 0
    assert_same(fake_quant(*args, out=out, mask=mask), expected(*args))


def test_in_place(rng):
    for shape, axis in [((64, 64, 300), 1), ((513, 64), 1), ((4, 1001), 0), ((70000, 3), 1)]:
        for dtype in ("float32", "float16"):
            x, scale, zero_point = make(rng, shape, axis, dtype)
            want = expected(x, scale, zero_point, axis, -8, 7)
            out, mask = fake_quant(x, scale, zero_point, axis, -8, 7, out=x)
            assert out is x
            assert_same((x, mask), want)
            view = np.concatenate([x, x])[::2]
            want = expected(view, scale[: view.shape[axis]], zero_point[: view.shape[axis]], axis, -8, 7)
            assert_same(
                fake_quant(view, scale[: view.shape[axis]], zero_point[: view.shape[axis]], axis, -8, 7, out=view), want
            )


def test_out_exactly_on_scale(rng):
    x, scale, zero_point = make(rng, (300,), 0)
    want = expected(x, scale, zero_point, 0, -8, 7)
    assert_same(fake_quant(x, scale, zero_point, 0, -8, 7, out=scale), want)


def test_interleaved_views_do_not_overlap(args):
    x = args[0]
    both = np.zeros((*x.shape, 2), "f4")
    both[..., 0] = x
    assert_same(fake_quant(both[..., 0], *args[1:], out=both[..., 1]), expected(*args))


def overlapping(x):
    wide = np.zeros(x.size + 3, "f4")
    shifted = wide[3:].reshape(x.shape)
    source = wide[:-3].reshape(x.shape)
    return source, shifted


def bad_calls(args):
    x, scale, zero_point, axis, low, high = args
    good_mask = np.empty_like(x, bool)
    source, shifted = overlapping(x)
    memory = np.zeros(x.size * 4, np.uint8)
    frozen = np.zeros_like(x)
    frozen.flags.writeable = False
    return {
        "x is None": (None, scale, zero_point, axis, low, high),
        "scale is None": (x, None, zero_point, axis, low, high),
        "zero_point is None": (x, scale, None, axis, low, high),
        "x is a list": (x.tolist(), scale, zero_point, axis, low, high),
        "x has dtype float64": (x.astype("f8"), scale, zero_point, axis, low, high),
        "x has dtype >f4": (x.astype(">f4"), scale, zero_point, axis, low, high),
        "scale has dtype int32": (x, zero_point, zero_point, axis, low, high),
        "zero_point has dtype int64": (x, scale, zero_point.astype("i8"), axis, low, high),
        "zero_point has dtype float64": (x, scale, zero_point.astype("f8"), axis, low, high),
        "zero_point has dtype bfloat16": (x, scale, zero_point.astype(ml_dtypes.bfloat16), axis, low, high),
        "x has dtype float8_e5m2": (x.astype(ml_dtypes.float8_e5m2), scale, zero_point, axis, low, high),
        "9 dimensions": (x.reshape(4, 6, 5, 1, 1, 1, 1, 1, 1), scale, zero_point, axis, low, high),
        "scale has shape": (x, scale[None], zero_point, axis, low, high),
        "zero_point has shape": (x, scale, zero_point[0], axis, low, high),
        "scale has 5 elements; expected 6": (x, scale[:5], zero_point, axis, low, high),
        "zero_point has 3 elements; expected 6": (x, scale, zero_point[::2], axis, low, high),
        "axis is 3; expected one from -3 to 2": (x, scale, zero_point, 3, low, high),
        "axis is -4": (x, scale, zero_point, -4, low, high),
        "axis is 1.0": (x, scale, zero_point, 1.0, low, high),
        "scale has shape (6,); expected one element": (x, scale, zero_point, None, low, high),
        "zero_point has shape (1, 1); expected one element": (x, scale[:1], zero_point[:1, None], None, low, high),
        "quant_min is 5 and quant_max is 4": (x, scale, zero_point, axis, 5, 4),
        "quant_max is 9223372036854775808": (x, scale, zero_point, axis, 0, 2**63),
        "quant_min is '0'": (x, scale, zero_point, axis, "0", 4),
        "out has shape": (*args, {"out": np.zeros((4, 6, 4), "f4")}),
        "mask has shape": (*args, {"mask": np.zeros(3, bool)}),
        "out has dtype int32": (*args, {"out": np.zeros(x.shape, "i4")}),
        "mask has dtype uint8": (*args, {"mask": np.zeros(x.shape, "u1")}),
        "out is read-only": (*args, {"out": frozen}),
        "out has several elements in one place": (
            *args,
            {"out": np.lib.stride_tricks.as_strided(x.copy(), x.shape, (0, 4, 24))},
        ),
        "out overlaps part of x": (source, *args[1:], {"out": shifted}),
        "out and mask overlap": (
            *args,
            {"out": memory.view("f4").reshape(x.shape), "mask": memory[: x.size].view(bool).reshape(x.shape)},
        ),
        "mask overlaps part of x": (x, *args[1:], {"mask": x.view(bool)[..., :5]}),
        "mask overlaps part of scale": (x[:1, :, 0], scale, *args[2:], {"mask": scale.view(bool)[None, :6]}),
        "no multiples of its 4-byte elements": (np.zeros(30, [("a", "f4"), ("b", "u1")])["a"].reshape(5, 6), *args[1:]),
        "good": (*args, {"mask": good_mask}),
    }


@pytest.mark.parametrize(
    "message",
    [k for k in bad_calls((np.zeros((4, 6, 5), "f4"), np.ones(6, "f4"), np.zeros(6, "i4"), 1, 0, 1)) if k != "good"],
)
def test_bad_arguments(args, message):
    *positional, last = bad_calls(args)[message]
    keywords = last if isinstance(last, dict) else {}
    positional = positional if keywords else [*positional, last]
    given = {k: v.copy() for k, v in keywords.items()}
    with pytest.raises(ArgumentError, match=re.escape(message)):
        fake_quant(*positional, **keywords)
    for name, before in given.items():
        np.testing.assert_array_equal(keywords[name], before)


def test_a_plan_of_equal_hash_is_not_taken(args):
    """1, 1.0 and True are the same dictionary key."""
    fake_quant(*args)
    with pytest.raises(ArgumentError):
        fake_quant(*args[:3], 1.0, *args[4:])
    with pytest.raises(ArgumentError):
        fake_quant(*args[:4], -128.0, 127)


def test_plans_do_not_grow_for_ever(monkeypatch, rng):
    monkeypatch.setattr(registry, "MAX_LAUNCHES", 10)
    for n in range(1, 30):
        x, scale, zero_point = make(rng, (n, 3), 1)
        assert_same(fake_quant(x, scale, zero_point, 1, -8, 7), expected(x, scale, zero_point, 1, -8, 7))
        assert len(registry.launches) <= 11  # a call may add its key to what it prepared


def test_single_output(args):
    """Without a mask: of numpy, torch and others, first and later, and nothing of a mask is there."""
    x, scale, zero_point, *numbers = args
    want, mask = expected(*args)
    registry.launches.clear()
    for _ in range(3):
        out = single(*args)
        assert_same((out, mask), (want, mask))
    tensors = [*map(torch.from_numpy, (x, scale, zero_point))]
    for _ in range(3):
        out = single(*tensors, *numbers)
        assert isinstance(out, torch.Tensor)
        assert_same((out.numpy(), mask), (want, mask))
    for _ in range(2):
        out = single(*map(tvm_ffi.from_dlpack, tensors), *numbers)
        assert_same((np.from_dlpack(out), mask), (want, mask))
    assert {launch.kernel.spec.mask for launch in registry.launches.values()} == {False}
    assert_same((single(x[::2], *args[1:]), mask[::2]), (want[::2], mask[::2]))
    assert_same(fake_quant(*args), (want, mask))
    assert_same(fake_quant(*args), (want, mask))
    with pytest.raises(ArgumentError, match=r"scale has 5 elements"):
        single(x, scale[:5], zero_point, *numbers)


def test_a_library_without_kernels_for_single_outputs_serves_them(monkeypatch, rng):
    """It was built of the contract's kernels: the mask is discarded, on later calls as well."""
    prepare = registry.prepare

    def only_with_a_mask(call, *rest):
        if not call.spec("rows").mask:
            raise CacheMissError("no entry")
        return prepare(call, *rest)

    monkeypatch.setattr(registry, "prepare", only_with_a_mask)
    registry.launches.clear()
    for shape, axis in (((3, 5, 40), 1), ((64, 30), 1), ((0, 3), 1)):  # the second one has a workspace
        x, scale, zero_point = make(rng, shape, axis)
        want, mask = expected(x, scale, zero_point, axis, -8, 7)
        tensors = [*map(torch.from_numpy, (x, scale, zero_point))]
        for _ in range(2):
            assert_same((single(x, scale, zero_point, axis, -8, 7), mask), (want, mask))
            out = fq_tvm.torch.fake_quantize_per_channel_affine(*tensors, axis, -8, 7)
            assert_same((out.numpy(), mask), (want, mask))
    registry.launches.clear()


def test_threads_at_once(rng):
    cases = []
    for shape, axis in [((4, 8), 1), ((100, 300), 1), ((64, 3, 1000), 1), ((512, 512), 1)]:
        data = make(rng, shape, axis)
        cases.append((data, axis, expected(*data, axis, -8, 7)))
    failures = []

    def work(seed: int) -> None:
        try:
            for i in np.random.default_rng(seed).integers(0, len(cases), 40):
                data, axis, want = cases[i]
                assert_same(fake_quant(*data, axis, -8, 7), want)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_the_same_bits_wherever_the_memory_lies(rng):
    x, scale, zero_point = make(rng, (7, 999), 0)
    want = expected(x, scale, zero_point, 0, -128, 127)
    raw = np.empty(x.nbytes + 128, np.uint8)
    for offset in range(0, 128, 4):
        moved = raw[offset : offset + x.nbytes].view("f4").reshape(x.shape)
        moved[...] = x
        assert_same(fake_quant(moved, scale, zero_point, 0, -128, 127), want)


def test_numpy_subclasses_and_scalars(args):
    out, _ = fake_quant(args[0].view(np.recarray), *args[1:])
    assert type(out) is np.ndarray
    out, mask = fake_quant(np.float32(1.3), np.float32([0.5]), np.int32([0]), 0, -8, 7)
    assert (out, mask) == (1.5, True)
    assert out.shape == ()


def test_public_names():
    for name in fq_tvm.__all__:
        assert getattr(fq_tvm, name) is not None
        assert name in dir(fq_tvm)
    with pytest.raises(AttributeError, match="nonsense"):
        fq_tvm.nonsense  # noqa: B018

"""The gradient of fake quantization by a kernel: torch's bits, strides and graphs, for its operators and ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import assert_same, launch_on
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import fq_tvm.torch
from fq_tvm import CacheMissError, reference
from fq_tvm.launch.arguments import Gradient, describe
from fq_tvm.launch.registry import launches, prepare
from fq_tvm.torch import gradient

ATEN = torch.ops.aten
BACKWARD = [
    ATEN.fake_quantize_per_channel_affine_cachemask_backward,
    ATEN.fake_quantize_per_tensor_affine_cachemask_backward,
]
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "expanded": lambda x: x[:1, :1, :1, :1].expand(x.shape),
    "stepped": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
    "reversed dimensions": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
}


@pytest.fixture
def kernels(monkeypatch):
    """Count the calls that a kernel of this library serves."""
    inner, seen = gradient.run, []
    monkeypatch.setattr(gradient, "run", lambda *a, **k: (seen.append(a[0]), inner(*a, **k)))
    return seen


def special(shape, dtype, seed=0):
    """Numbers of both signs, NaNs quiet and signaling of both signs, infinities and zeros."""
    rng = np.random.default_rng(seed)
    kinds = {torch.float16: ("f2", "u2"), torch.float64: ("f8", "u8")}
    float_kind, bits = kinds.get(dtype, ("f4", "u4"))
    values = (rng.standard_normal(shape) * 100).astype(float_kind)
    for special_value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
        values[rng.random(shape) < 0.05] = special_value
    exponent, width = np.array(np.inf, float_kind).view(bits), 8 * values.itemsize
    values.view(bits)[rng.random(shape) < 0.05] = exponent | 1
    values.view(bits)[rng.random(shape) < 0.2] ^= np.array(1 << (width - 1), bits)
    return torch.from_numpy(values).to(dtype)


def same(got, want):
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[want.element_size()]
    assert (got.dtype, got.shape, got.stride()) == (want.dtype, want.shape, want.stride())
    return torch.equal(got.contiguous().view(integer), want.contiguous().view(integer))


@pytest.mark.parametrize("of_mask", LAYOUTS)
@pytest.mark.parametrize("of_grad", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_bits_and_strides_of_torch(kernels, dtype, of_grad, of_mask):
    grad = LAYOUTS[of_grad](special((6, 10, 7, 13), dtype))
    mask = LAYOUTS[of_mask](torch.from_numpy(np.random.default_rng(1).random((6, 10, 7, 13)) < 0.5))
    want = [backward(grad, mask) for backward in BACKWARD]
    assert not kernels
    with fq_tvm.torch.enabled():
        got = [backward(grad, mask) for backward in BACKWARD * 2]
    assert len(kernels) == 3  # the first call learns torch's strides of its product
    assert all(map(same, got, want * 2))
    assert same(want[0], grad * mask)


@pytest.mark.parametrize("seed", range(12))
def test_kernels_on_any_strides(seed):
    """The operator without torch, by the reference: drawn ranks, orders, steps and directions of each tensor."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, rng.integers(0, 9)))
    dtype = ("f4", "f2")[seed % 2]

    def placed(values):
        order = rng.permutation(len(shape))
        step = rng.choice([1, 2, -1], len(shape))
        memory = np.zeros([n * abs(s) for n, s in zip(np.take(shape, order), step, strict=True)], values.dtype)
        view = memory[tuple(slice(None, None, s) for s in step)].transpose(np.argsort(order))
        view[...] = values
        return view

    grad = placed(special(shape, torch.float32 if dtype == "f4" else torch.float16, seed).numpy())
    mask, out = placed(rng.random(shape) < 0.5), placed(np.full(shape, 7, dtype))
    launch = prepare(Gradient(*(describe(a, "tensor") for a in (grad, out, mask))))
    launch_on(launch, (grad, mask, out))
    assert_same((out, mask), (reference.straight_through(grad, mask), mask))


@pytest.mark.parametrize("size", [1, 2**12 - 1, 2**12, 2**12 + 5, 2**17 + 3, 2**20 + 1, 2**24 + 7])
def test_every_size(kernels, size):
    grad, mask = special(size, torch.float32), torch.arange(size) % 3 > 0
    launches.clear()
    for _ in range(2):
        assert same(gradient.straight_through(grad, mask), grad * mask)
    assert len(kernels) == (size >= gradient.KERNEL_MIN_ELEMENTS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_multiplied_by_torch(kernels, dtype):
    grad, mask = special((80, 80), dtype), torch.rand(80, 80) > 0.5
    assert same(gradient.straight_through(grad, mask), grad * mask)
    assert not kernels


def test_what_torch_refuses_or_broadcasts_is_left_to_it(kernels):
    grad = torch.ones(80, 80)
    with fq_tvm.torch.enabled():
        for backward in BACKWARD:
            with pytest.raises(RuntimeError):
                backward(grad, torch.ones(80, 80))
            with pytest.raises(RuntimeError):
                backward(grad, torch.ones(80, dtype=torch.bool))
    assert torch.equal(gradient.straight_through(grad, torch.ones(80, dtype=torch.bool)), grad)
    assert not kernels


def test_kernels_that_a_library_lacks_are_not_needed(kernels, monkeypatch):
    def missing(call):
        raise CacheMissError("not there")

    launches.clear()
    monkeypatch.setattr(gradient, "launch_of", missing)
    grad, mask = special((80, 80), torch.float32), torch.rand(80, 80) > 0.5
    assert same(gradient.straight_through(grad, mask), grad * mask)
    launches.clear()
    assert not kernels


def forward(operator, x):
    scale, zero_point = torch.linspace(0.1, 1.1, x.shape[1]), torch.arange(x.shape[1])
    if operator == "ours":
        return fq_tvm.torch.fake_quantize_per_channel_affine(x, scale, zero_point.int(), 1, -128, 127)
    if operator == "channel":
        return torch.fake_quantize_per_channel_affine(x, scale, zero_point.int(), 1, -128, 127)
    return torch.fake_quantize_per_tensor_affine(x, 0.7, 3, -128, 127)


def first_and_second(operator, x):
    """The gradient, and the gradient of its sum of squares by what came in."""
    x = x.clone().requires_grad_()
    out = forward(operator, x)
    came_in = torch.linspace(-1, 1, x.numel()).reshape(x.shape).requires_grad_()
    (first,) = torch.autograd.grad(out, x, came_in, create_graph=True)
    (second,) = torch.autograd.grad((first * first).sum(), came_in)
    for _ in range(2):
        x.grad = None
        forward(operator, x).backward(came_in.detach())
    return first.detach(), second, x.grad


@pytest.mark.parametrize("operator", ["ours", "channel", "tensor"])
def test_gradients_and_their_gradients(kernels, operator):
    x = torch.linspace(-300, 300, 96 * 80).reshape(96, 80)
    want = first_and_second("channel" if operator == "ours" else operator, x)
    used = len(kernels)
    with fq_tvm.torch.enabled():
        got = first_and_second(operator, x)
    assert used == 0 and len(kernels) >= 1
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first_and_second(operator, x), want, strict=True))


@pytest.mark.parametrize("operator", ["channel", "tensor"])
def test_transforms_of_torch(operator):
    x = torch.linspace(-300, 300, 3 * 96 * 80).reshape(3, 96, 80)

    def results():
        one = torch.func.grad(lambda x: (forward(operator, x) ** 2).sum())
        return one(x[0]), torch.func.vmap(one)(x), torch.func.vjp(lambda x: forward(operator, x), x[0])[1](x[1])[0]

    want = results()
    with fq_tvm.torch.enabled():
        got = results()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_who_watches_sees_the_product():
    grad, mask = torch.ones(80, 80), torch.ones(80, 80, dtype=torch.bool)
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    for _ in range(2):
        gradient.straight_through(grad, mask)
    with Mode():
        assert torch.equal(gradient.straight_through(grad, mask), grad)
    assert ATEN.mul.Tensor in seen
    assert "mul" in make_fx(lambda g, m: gradient.straight_through(g, m))(grad, mask).code
    fake = FakeTensorMode()
    assert isinstance(gradient.straight_through(fake.from_tensor(grad), fake.from_tensor(mask)), FakeTensor)


def test_disabled_again_it_is_torchs(kernels):
    grad, mask = torch.ones(80, 80), torch.ones(80, 80, dtype=torch.bool)
    with fq_tvm.torch.enabled():
        for _ in range(3):
            BACKWARD[0](grad, mask)
    used = len(kernels)
    for backward in BACKWARD:
        backward(grad, mask)
    assert len(kernels) == used >= 2

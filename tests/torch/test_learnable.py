"""torch's learnable fake quantization with its gradient by a kernel: torch's bits by x, its sums to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import make
from torch.ao.quantization import MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

import fq_tvm.torch
from fq_tvm import CacheMissError
from fq_tvm.torch import learnable

PER_CHANNEL = torch.ops.aten._fake_quantize_learnable_per_channel_affine_backward
PER_TENSOR = torch.ops.aten._fake_quantize_learnable_per_tensor_affine_backward
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "expanded": lambda x: x[:1, :1, :1, :1].expand(x.shape),
    "stepped": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
}
SHAPE, CHANNEL = (4, 24, 12, 17), 1


@pytest.fixture
def kernels(monkeypatch):
    """Count the calls that a kernel of this library serves, after that which looks whether torch agrees."""
    for per_channel in (False, True):
        tensors = torch.zeros(1, 16), torch.zeros(1, 16), torch.ones(1), torch.zeros(1)
        with fq_tvm.torch.enabled():
            backward(torch.zeros(1, 2**13), torch.zeros(1, 2**13), *tensors[2:], 0 if per_channel else None)
    inner, seen = learnable.run, []
    monkeypatch.setattr(learnable, "run", lambda *a, **k: (seen.append(a[0]), inner(*a, **k)))
    return seen


def backward(grad, x, scale, zero_point, axis, *numbers):
    numbers = numbers or (-128, 127, 0.37)
    if axis is None:
        return PER_TENSOR(grad, x, scale, zero_point, *numbers)
    return PER_CHANNEL(grad, x, scale, zero_point, axis, *numbers)


def data(axis, shape=SHAPE, quant_range=(-128, 127), seed=0):
    """Ties, NaN and zeros of both signs in x; infinities and NaN in the gradient of the first channel or element.

    No q is beyond an int64, which torch takes for one below the range.
    """
    rng = np.random.default_rng(seed)
    x, scale, zero_point = make(rng, shape, axis, quant_range=quant_range)
    x[np.abs(x) > 1e6] = np.nan
    grad = rng.standard_normal(shape, np.float32)
    grad.reshape(-1)[::31] = -0.0
    if axis is not None:
        first = grad.swapaxes(0, axis)[0].reshape(-1)
        first[:3] = np.inf, -np.inf, np.nan
        grad.swapaxes(0, axis)[0] = first.reshape(grad.swapaxes(0, axis)[0].shape)
    zero_point = zero_point + rng.choice([0.0, 0.5, 0.3, -0.4], zero_point.shape)
    arrays = (grad, x, scale, zero_point.astype(np.float32))
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]


def assert_gradients(got, want):
    assert [(g.dtype, g.shape, g.stride()) for g in got] == [(w.dtype, w.shape, w.stride()) for w in want]
    assert torch.equal(got[0].contiguous().view(torch.int32), want[0].contiguous().view(torch.int32))
    for g, w in zip(got[1:], want[1:], strict=True):
        scale = w[w.isfinite()].abs().max().item() if w.isfinite().any() else 0.0
        assert torch.allclose(g, w, rtol=1e-4, atol=1e-5 * scale, equal_nan=True)


@pytest.mark.parametrize("of_grad", LAYOUTS)
@pytest.mark.parametrize("of_x", LAYOUTS)
@pytest.mark.parametrize("axis", [CHANNEL, None])
def test_the_gradients_of_torch(kernels, axis, of_x, of_grad):
    grad, x, scale, zero_point = data(axis)
    grad, x = LAYOUTS[of_grad](grad), LAYOUTS[of_x](x)
    want = backward(grad, x, scale, zero_point, axis)
    assert not kernels
    with fq_tvm.torch.enabled():
        for _ in range(2):
            assert_gradients(backward(grad, x, scale, zero_point, axis), want)
    assert len(kernels) == (0 if of_x in ("expanded", "stepped") else 2)


@pytest.mark.parametrize("quant_range", [(0, 255), (-8, 7), (0, 0), (-(2**15), 2**15 - 1)])
@pytest.mark.parametrize(
    ("shape", "axis", "served"),
    [
        ((300, 64), 0, True),
        ((300, 64), 1, True),
        ((32, 16, 4, 4), 1, True),
        ((33, 16, 3, 5), 1, False),
        ((2**13,), None, True),
        ((2**13 - 1,), None, False),
        ((2**13, 1), 1, True),
    ],
)
def test_shapes_and_ranges(kernels, shape, axis, served, quant_range):
    tensors = data(axis, shape, quant_range)
    for factor in ((), (1.0,), (1e-3,)):
        want = backward(*tensors, axis, *quant_range, *factor)
        with fq_tvm.torch.enabled():
            assert_gradients(backward(*tensors, axis, *quant_range, *factor), want)
    assert bool(kernels) == served


def test_sums_do_not_depend_on_threads():
    threads = torch.get_num_threads()
    found = []
    try:
        for axis in (0, 1, None):
            tensors = data(axis, (640, 450))
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                with fq_tvm.torch.enabled():
                    found.append([g.view(torch.int32) for g in backward(*tensors, axis)])
            assert all(torch.equal(a, b) for each in found[-2:] for a, b in zip(found[-3], each, strict=True))
    finally:
        torch.set_num_threads(threads)


def module(axis):
    if axis is None:
        return _LearnableFakeQuantize(
            MovingAverageMinMaxObserver, quant_min=0, quant_max=255, scale=0.03, zero_point=100.0, use_grad_scaling=True
        )
    observer = MovingAveragePerChannelMinMaxObserver.with_args(qscheme=torch.per_channel_affine, ch_axis=axis)
    made = _LearnableFakeQuantize(observer, quant_min=0, quant_max=255, channel_len=SHAPE[axis], scale=0.03)
    made.zero_point.data.fill_(100)
    return made


@pytest.mark.parametrize("axis", [CHANNEL, None])
def test_modules_learn_the_same(kernels, axis):
    """Scale and zero point after steps of training, and the gradient of what is before."""
    states = []
    for enabled in (False, True):
        torch.manual_seed(0)
        layer, quantizer = torch.nn.Conv2d(3, SHAPE[CHANNEL], 3, padding=1), module(axis)
        quantizer.enable_param_learning()
        optimizer = torch.optim.SGD([*layer.parameters(), *quantizer.parameters()], lr=1e-3)
        with fq_tvm.torch.enabled() if enabled else torch.enable_grad():
            for _ in range(10):
                x = torch.randn(4, 3, 12, 17)
                optimizer.zero_grad()
                (quantizer(layer(x * 4)) - x.mean(1, keepdim=True)).square().mean().backward()
                optimizer.step()
        states.append({**layer.state_dict(), **quantizer.state_dict()})
    assert len(kernels) == 10
    assert states[0].keys() == states[1].keys()
    assert not torch.equal(states[0]["scale"], module(axis).scale.detach())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=1e-4, atol=1e-5), name


def test_what_is_left_to_torch(kernels):
    grad, x, scale, zero_point = data(0, (64, 200))
    nan = zero_point.clone()
    nan[-1] = np.nan
    wide = (-(2**31), 2**31 - 1, 1.0)
    calls = [
        (grad.bfloat16(), x.bfloat16(), scale.bfloat16(), zero_point.bfloat16(), 0),
        (grad.double(), x, scale, zero_point, 0),
        (grad, x, scale, zero_point.int(), 0),
        (grad[:, :-1], x, scale, zero_point, 0),
        (grad, x, scale[:-1], zero_point[:-1], 0),
        (grad, x, scale[:1], zero_point, 0),
        (grad, x, scale.unsqueeze(0), zero_point, 0),
        (grad, x, scale, zero_point, 2),
        (grad, x, scale, zero_point, -1),
        (grad, x, scale, nan, 0),
        (grad, x, scale, nan[-1:], None),
        (grad, x, scale, zero_point, 0, 1, 7, 1.0),
        (grad, x, scale, zero_point, 0, 7, -8, 1.0),
        (grad, x, scale, zero_point, 0, *wide),
        (grad, x, scale, zero_point, 0, -8, 7, np.inf),
        (grad[:0], x[:0], scale[:0], zero_point[:0], 0),
    ]
    for arguments in calls:
        outcomes = []
        for enabled in (False, True):
            with fq_tvm.torch.enabled() if enabled else torch.enable_grad():
                try:
                    outcomes.append(backward(*arguments))
                except (RuntimeError, IndexError) as error:
                    outcomes.append((type(error), str(error)))
        want, got = outcomes
        if isinstance(want[0], type):
            assert got == want
        else:
            assert all(
                torch.equal(a.nan_to_num(nan=3.0), b.nan_to_num(nan=3.0)) for a, b in zip(got, want, strict=True)
            )
    assert not kernels


@pytest.mark.parametrize("axis", [0, 1, None])
def test_defaults_of_torch_and_strides_of_vectors_do_not_matter(kernels, axis):
    grad, x, scale, zero_point = data(axis, (128, 96))
    if axis is not None:
        scale, zero_point = (torch.stack([t, -t], 1)[:, 0] for t in (scale, zero_point))
    leaves = [t.requires_grad_() for t in (x, scale, zero_point)]
    want = backward(grad, *leaves, axis)
    torch.set_default_dtype(torch.float64)
    try:
        with fq_tvm.torch.enabled(), torch.device("meta"):
            assert_gradients(backward(grad, *leaves, axis), [t.detach() for t in want])
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(kernels) == 1


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_torch_that_was_built_otherwise_is_left_alone(monkeypatch, kernels, per_channel):
    """Where products and sums are rounded one by one, the bits differ, and torch makes them."""

    def unfused(grad, x, scale, zero_point, *rest):
        low, high, factor = rest[-3:]
        s, z = (t.reshape(-1, 1) for t in (scale, zero_point))
        q = (x * (1 / s) + z).round()
        inside = (q >= low) & (q <= high)
        steps = torch.where(q > high, high, low) - z
        by_scale = torch.where(inside, grad * ((q - z) * s - x) * (1 / s), grad * steps) * factor
        by_zero_point = torch.where(inside, torch.tensor(0.0), -grad * s * factor)
        sums = (each.sum(1) if per_channel else each.sum().unsqueeze(0) for each in (by_scale, by_zero_point))
        return grad * inside, *sums

    assert not learnable._compare(unfused, per_channel)
    stock = PER_CHANNEL if per_channel else PER_TENSOR
    assert learnable._compare(stock, per_channel)
    assert not learnable._compare(lambda *a: (stock(*a)[0], stock(*a)[1] * 1.1, stock(*a)[2]), per_channel)
    monkeypatch.setitem(learnable._agrees, per_channel, False)
    kernels.clear()
    with fq_tvm.torch.enabled():
        backward(*data(0 if per_channel else None, (64, 200)), 0 if per_channel else None)
    assert not kernels


def test_a_library_without_the_kernel(monkeypatch):
    def missing(*_, **__):
        raise CacheMissError("there is none")

    tensors = data(0, (65, 201))
    want = backward(*tensors, 0)
    monkeypatch.setattr(learnable, "prepare", missing)
    with fq_tvm.torch.enabled():
        assert_gradients(backward(*tensors, 0), want)
    assert ("learnable", (65, 201), (201, 1), 0, -128, 127, 0.37) in learnable.launches
    learnable.launches.clear()


def test_transforms_and_second_derivatives_are_those_of_torch(kernels):
    grad, x, scale, zero_point = data(None, (2**13,))
    grad, x = grad.nan_to_num(), x.nan_to_num()

    def loss(x, scale, zero_point):
        return (torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero_point, -128, 127, 1.0) * grad).sum()

    def twice():
        leaves = [t.clone().requires_grad_() for t in (x, scale, zero_point)]
        first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
        try:
            return first, torch.autograd.grad(first[0].sum(), leaves, allow_unused=True)
        except RuntimeError as error:
            return first, str(error)

    want, transformed = twice(), torch.func.grad(loss, argnums=(0, 1, 2))(x, scale, zero_point)
    with fq_tvm.torch.enabled():
        got, ours = twice(), torch.func.grad(loss, argnums=(0, 1, 2))(x, scale, zero_point)
        with torch.inference_mode():
            inferred = backward(grad, x, scale, zero_point, None, -128, 127, 1.0)
    assert kernels
    for each in (got[0], ours, inferred):
        assert_gradients([t.detach() for t in each], [t.detach() for t in want[0]])
    assert_gradients(ours, transformed)
    assert got[1] == want[1]

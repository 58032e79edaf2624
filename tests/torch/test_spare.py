"""A gradient's place is taken where nobody else has it, and nowhere else: what others keep stays as it was."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

import fq_tvm.torch
from fq_tvm.torch import gradient, spare

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns about hooks and deprecates torch.ao

SHAPE = (16, 64, 8, 9)


class Given(torch.autograd.Function):
    """Hands on a gradient that somebody has, and does not say so."""

    @staticmethod
    def forward(ctx, x, gradients):
        ctx.gradients = gradients
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return ctx.gradients(grad), None


class Kept:
    """What somebody looks at later."""

    def __init__(self):
        self.tensors = []

    def __call__(self, grad):
        self.tensors.append(grad)
        return grad

    def in_a_tuple(self, grads):
        self.tensors += [grad for grad in grads if grad is not None]


def quantized(x, form):
    one, zero = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    if form == "channel":
        scale = torch.full((SHAPE[1],), 0.1)
        return torch.fake_quantize_per_channel_affine(x, scale, torch.zeros(SHAPE[1], dtype=torch.int32), 1, -8, 7)
    if form == "observed":
        on, bounds = torch.ones(1, dtype=torch.int64), (torch.zeros(1), torch.ones(1))
        return torch.fused_moving_avg_obs_fake_quant(x, on, on, *bounds, one, zero, 0.01, 0, 15, 0)
    return torch.fake_quantize_per_tensor_affine(x, one * 0.1, zero, -8, 7)


def numpys(grad):
    """Return memory that numpy has, too, and what tells of it later."""
    array = np.array(grad.numpy())
    return array, torch.from_numpy(array)


def scenario(name, form):
    """Do what somebody does with gradients; return all that can be seen of them afterwards."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(SHAPE, generator=generator).requires_grad_() for _ in range(2))
    kept, arrays = Kept(), []
    y = quantized(x * 1.0, form)
    if name == "a hook of the tensor":
        y.register_hook(kept)
    elif name == "a hook of the node before":
        y.grad_fn.register_prehook(kept.in_a_tuple)
    elif name == "a hook of the node after":
        y.grad_fn.register_hook(lambda _, grads: kept.in_a_tuple(grads))
    elif name == "a retained gradient":
        y.retain_grad()
    elif name == "a buffer of a function":
        y = Given.apply(y, kept)
    elif name == "a view of a buffer":
        y = Given.apply(y, lambda grad: kept(grad.clone()).view(SHAPE))
    elif name == "memory of numpy":

        def through_numpy(grad):
            array, tensor = numpys(grad)
            arrays.append(array)
            return tensor

        y = Given.apply(y, through_numpy)
    elif name == "memory seen by numpy":

        def seen(grad):
            grad = grad.clone()
            arrays.append(grad.numpy())
            return grad

        y = Given.apply(y, seen)
    elif name == "memory of another process":
        y = Given.apply(y, lambda grad: kept(grad.clone().share_memory_()).detach())
    elif name == "a lazy clone":
        y = Given.apply(y, lambda grad: torch._lazy_clone(kept(grad.clone())))
    elif name == "a storage":
        y = Given.apply(y, lambda grad: torch.empty(0).set_(kept_storage(kept, grad), 0, SHAPE, grad.stride()))
    loss = (y * weight).sum()
    if name == "two that get one":
        other = quantized(x * 2.0, form)
        loss = ((y + other) * weight).sum()
    if name == "a wanted gradient":
        kept.tensors += torch.autograd.grad(loss, (y, x, weight))
    elif name == "a gradient that is given":
        given = torch.randn(SHAPE, generator=generator)
        kept(given)
        y.backward(given)
    elif name == "differentiated again":
        (by_x,) = torch.autograd.grad(loss, x, create_graph=True)
        kept.tensors += torch.autograd.grad((by_x * by_x).sum(), weight)
    elif name == "taken twice":
        loss.backward(retain_graph=True)
        loss.backward()
    elif name == "a hook of a module":
        module = nn.Sequential(nn.Identity())
        module.register_full_backward_hook(lambda _, given, got: kept.in_a_tuple((*given, *got)))
        (module(y) * weight).sum().backward()
    else:
        loss.backward()
    grads = [t.grad for t in (x, weight, y) if t.grad is not None]
    return [*map(torch.clone, [*kept.tensors, *grads]), *map(torch.from_numpy, map(np.copy, arrays))]


def kept_storage(kept, grad):
    copy = grad.clone()
    kept(copy)
    return copy.untyped_storage()


@pytest.mark.parametrize("form", ["tensor", "channel", "observed"])
@pytest.mark.parametrize(
    "name",
    [
        "nobody", "a hook of the tensor", "a hook of the node before", "a hook of the node after",
        "a retained gradient", "a buffer of a function", "a view of a buffer", "memory of numpy",
        "memory seen by numpy",
        "memory of another process", "a lazy clone", "a storage", "two that get one", "a wanted gradient",
        "a gradient that is given", "differentiated again", "taken twice", "a hook of a module",
    ],
)  # fmt: skip
def test_what_somebody_has_stays_as_it_was(name, form):
    seen = []
    for enabled in (False, True):
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            seen.append([scenario(name, form) for _ in range(2)][-1])  # torch does the first of a description
    assert len(seen[0]) == len(seen[1]) > 0
    assert all(torch.equal(*pair) for pair in zip(*seen, strict=True))


@pytest.fixture
def places(monkeypatch):
    """Count whether products took the place of what came in."""
    inner, taken = gradient.run, []

    def run(launch, grad, mask, out, **more):
        taken.append(grad.data_ptr() == out.data_ptr())
        return inner(launch, grad, mask, out, **more)

    monkeypatch.setattr(gradient, "run", run)
    return taken


@pytest.mark.parametrize("form", ["tensor", "channel", "observed"])
@pytest.mark.parametrize("way", ["a product", "a matmul", "few elements"])
def test_a_gradient_that_nobody_has_is_the_place(places, form, way):
    x = torch.randn(SHAPE if way != "few elements" else (8, *SHAPE[1:])).requires_grad_()
    with fq_tvm.torch.enabled():
        for _ in range(2):
            y = quantized(x * 1.0, form)
            if way == "a matmul":  # whose gradient is a view, as that of a linear layer's weight
                (torch.ones(3, SHAPE[3]) @ y.transpose(2, 3)).sum().backward()
            else:
                (y * 2).sum().backward()
    assert places
    assert set(places) == {way != "few elements"}


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "kind",
    {
        "sparse": lambda t: t.to_sparse(),
        "of rows": lambda t: t.reshape(256, -1).to_sparse_csr(),
        "no memory": lambda t: t.to("meta"),
        "a subclass": lambda t: t.as_subclass(Subclass),
        "mkldnn": lambda t: t.to_mkldnn(),
        "conjugate": lambda t: torch.complex(t, t).conj(),
        "negated": lambda t: torch.complex(t, t).conj().imag,
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_no_plain_tensor(kind):
    """The operator itself says what it thinks of it, as torch's does."""
    backward = torch.ops.aten.fake_quantize_per_tensor_affine_cachemask_backward
    dense, seen = torch.randn(spare.MIN_ELEMENTS, generator=torch.Generator().manual_seed(0)), []
    for enabled in (False, True):
        grad = kind[1](dense)
        mask = torch.ones(grad.shape, dtype=torch.bool, device=grad.device)
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            try:
                seen.append(repr(backward(grad, mask)))
            except (RuntimeError, NotImplementedError) as error:
                seen.append(str(error).partition("\n")[0])
    assert seen[0] == seen[1]


def test_only_what_was_learned_is_spare():
    known = spare.Spare()
    large = torch.zeros(spare.MIN_ELEMENTS)
    assert not known.learned
    assert not known.has(large)
    with known.learning():
        assert not known.has(large)
    assert known.learned
    assert known.has(large)
    also = large
    assert not known.has(large)
    del also
    assert known.has(large)
    assert not known.has(large[:-1].clone())


def test_nobody_sees_how_it_is_learned(monkeypatch):
    """Hooks of saved tensors would be shown those of the probes; then gradients are learned at a later time."""
    monkeypatch.setattr("fq_tvm.torch.override._spare", fresh := spare.Spare())
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(seen.append, lambda each: each), fq_tvm.torch.enabled():
        assert not fresh.learned
    assert not seen
    with torch.no_grad(), fq_tvm.torch.enabled():
        assert fresh.learned

"""Transforms of torch.func on the operator: the derivatives of aten's, level by level, or its refusal."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from torch.autograd import forward_ad
from torch.func import functional_call, functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import fq_tvm.torch

SCALE, ZERO_POINT = torch.linspace(0.05, 0.1, 6), torch.arange(-3, 3, dtype=torch.int32)
X = torch.linspace(-15, 15, 24).reshape(4, 6)
WEIGHT = torch.linspace(-1, 2, 24).reshape(4, 6)
STACK = torch.stack([X, -X, 2 * X])


def aten(x):
    return torch.fake_quantize_per_channel_affine(x, SCALE, ZERO_POINT, 1, -128, 127)


DOORS = {
    "function": lambda x: fq_tvm.torch.fake_quantize_per_channel_affine(x, SCALE, ZERO_POINT, 1, -128, 127),
    "operator": lambda x: torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask(
        x, SCALE, ZERO_POINT, 1, -128, 127
    )[0],
}


def loss(f):
    return lambda x: (f(x) * WEIGHT).square().sum()


def compiled(f):
    return torch.compile(f, backend="aot_eager", fullgraph=True)


def with_checkpoint(f):
    x = X.clone().requires_grad_()
    torch.utils.checkpoint.checkpoint(f, x, use_reentrant=False).square().sum().backward()
    return x.grad


def several_gradients_at_once(f):
    x = X.clone().requires_grad_()
    return torch.autograd.grad(f(x), x, STACK, is_grads_batched=True)[0]


def saved_elsewhere(f):
    x = X.clone().requires_grad_()
    with torch.autograd.graph.save_on_cpu():
        out = f(x)
    return torch.autograd.grad(out.square().sum(), x)[0]


def without(f):
    """Gradients that are off at one level."""

    def inner(x):
        with torch.no_grad():
            values = f(x)
        return (values * x * f(x)).sum()

    return grad(lambda x: grad(inner)(x).square().sum())(X)


def of_parameters(f):
    layer = torch.nn.Linear(6, 6, bias=False)
    return grad(lambda p: functional_call(layer, {"weight": f(p)}, (X,)).square().sum())(torch.ones(6, 6) * 7)


REVERSE = {
    "grad": lambda f: grad(loss(f))(X),
    "grad of grad": lambda f: grad(lambda x: grad(loss(f))(x).square().sum())(X),
    "grad of a product": lambda f: grad(lambda x: (f(x.detach()) * f(x)).sum())(X),
    "vjp": lambda f: vjp(f, X)[1](WEIGHT)[0],
    "jacrev": lambda f: jacrev(f)(X),
    "jacrev of jacrev": lambda f: jacrev(jacrev(loss(f)))(X),
    "jacobian": lambda f: torch.autograd.functional.jacobian(f, X),
    "vmap of grad": lambda f: vmap(grad(loss(f)))(STACK),
    "vmap of grad along another": lambda f: vmap(grad(loss(f)), in_dims=1)(STACK.transpose(0, 1)),
    "grad of vmap": lambda f: grad(lambda x: vmap(f)(x).square().sum())(STACK),
    "vmap of grad of grad": lambda f: vmap(grad(lambda x: grad(loss(f))(x).square().sum()))(STACK),
    "compiled grad": lambda f: compiled(grad(loss(f)))(X),
    "compiled vmap of grad": lambda f: compiled(vmap(grad(loss(f))))(STACK),
    "make_fx of grad": lambda f: make_fx(grad(loss(f)))(X)(2 * X),
    "no_grad within": without,
    "functionalize": lambda f: functionalize(grad(loss(f)))(X),
    "functional_call": of_parameters,
    "checkpoint": with_checkpoint,
    "is_grads_batched": several_gradients_at_once,
    "save_on_cpu": saved_elsewhere,
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of vmap, that aten's backward has no rule
@pytest.mark.parametrize("transform", REVERSE)
@pytest.mark.parametrize("door", DOORS)
def test_reverse_mode(door, transform):
    want = REVERSE[transform](aten)
    assert want.count_nonzero()
    for _ in range(2):
        DOORS[door](X)
        assert torch.equal(REVERSE[transform](DOORS[door]), want)


def dual(f):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(X, WEIGHT))).tangent


FORWARD = {
    "jvp": lambda f: jvp(f, (X,), (WEIGHT,)),
    "jacfwd": lambda f: jacfwd(f)(X),
    "hessian": lambda f: hessian(loss(f))(X),
    "jvp of vmap": lambda f: jvp(vmap(f), (STACK,), (STACK,)),
    "vmap of jvp": lambda f: vmap(lambda x: jvp(f, (x,), (WEIGHT,))[1])(STACK),
    "jvp of grad": lambda f: jvp(grad(loss(f)), (X,), (WEIGHT,)),
    "grad of jvp": lambda f: grad(lambda x: jvp(f, (x,), (WEIGHT,))[1].sum())(X),
    "linearize": lambda f: linearize(f, X)[1](WEIGHT),
    "make_dual": dual,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("transform", FORWARD)
@pytest.mark.parametrize("door", DOORS)
def test_forward_mode_is_refused_as_atens_is(door, transform):
    for f in (aten, DOORS[door]):
        with pytest.raises(NotImplementedError, match="forward"):
            FORWARD[transform](f)
    for moved in range(2):  # parameters, which have no derivative, are not silently constant either
        parameters = [SCALE, ZERO_POINT.float()]
        with forward_ad.dual_level():
            parameters[moved] = forward_ad.make_dual(parameters[moved], torch.ones(6))
            with pytest.raises(NotImplementedError, match="forward"):
                fq_tvm.torch.fake_quantize_per_channel_affine(X, *parameters, 1, -128, 127)


@pytest.mark.parametrize("which", range(1, 8))
def test_gradients_of_whatever_wants_one(which):
    """x or not, parameters or not: x alone gets one, on the first call and later."""
    operator = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask
    for given in ((X, SCALE, ZERO_POINT.float()), (X, SCALE.double().float(), ZERO_POINT.float())):
        for _ in range(3):
            tensors = [t.clone().requires_grad_(bool(which >> i & 1)) for i, t in enumerate(given)]
            out, mask = operator(*tensors, 1, -128, 127)
            assert out.requires_grad and not mask.requires_grad
            out.sum().backward()
            assert [t.grad is not None for t in tensors] == [bool(which & 1), False, False]
            if which & 1:
                assert torch.equal(tensors[0].grad, mask.float())
            with torch.no_grad():
                assert not operator(*tensors, 1, -128, 127)[0].requires_grad

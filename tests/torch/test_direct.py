"""Calls that leave the dispatcher out: who would have seen the operator sees it, however often it ran before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import fq_tvm.torch
from fq_tvm.torch import operator

OPERATOR = torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask.default


def arguments() -> tuple[Any, ...]:
    x = torch.linspace(-200, 200, 48).reshape(6, 8)
    return x, torch.linspace(0.5, 2, 8), torch.arange(-4, 4, dtype=torch.int32), 1, -128, 127


def dispatch_mode(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Mode():
        call(x, *rest)
    return OPERATOR.name() in [name.replace(".default", "").replace(".", "::") for name in seen]


def function_mode(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(getattr(function, "__name__", ""))
            return function(*args, **(kwargs or {}))

    with Mode():
        call(x, *rest)
    return any("cachemask" in name for name in seen)


def profiler(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    with torch.autograd.profiler.profile() as profile:
        call(x, *rest)
    return OPERATOR.name() in [event.key for event in profile.key_averages()]


def subclass(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    class Loud(torch.Tensor):
        calls = 0

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            cls.calls += "cachemask" in getattr(function, "__name__", "")
            return super().__torch_function__(function, types, args, kwargs or {})

    out, _ = call(x.as_subclass(Loud), *rest)
    return type(out) is Loud and Loud.calls == 1


def fake(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    with torch._subclasses.FakeTensorMode() as mode:
        out, mask = call(*(mode.from_tensor(t) for t in (x, *rest[:2])), *rest[2:])
    return type(out).__name__ == "FakeTensor" and mask.shape == x.shape


def meta(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    return call(x.to("meta"), *(t.to("meta") for t in rest[:2]), *rest[2:])[0].is_meta


def traced(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    graph = torch.jit.trace(lambda x: call(x, *rest)[0], (x,))
    return "fq_tvm::" in str(graph.graph)


def symbolic(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    return "fq_tvm" in make_fx(lambda x: call(x, *rest)[0])(x).code


def compiled(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph.code)
        return graph.forward

    out = torch.compile(lambda x: call(x, *rest)[0] + 1, backend=backend, fullgraph=True)(x)
    return len(graphs) == 1 and "fq_tvm" in graphs[0] and torch.equal(out, OPERATOR(x, *rest)[0] + 1)


def functionalized(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    out = torch.func.functionalize(lambda x: call(x, *rest)[0] * 1)(x)
    return torch.equal(out, OPERATOR(x, *rest)[0])


def wrapped(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    return torch._is_functional_tensor(call(torch._to_functional_tensor(x), *rest)[0])


def mapped(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    stack = torch.stack([x, -x])
    out = torch.func.vmap(lambda x: call(x, *rest)[0])(stack)
    return torch.equal(out, torch.stack([OPERATOR(t, *rest)[0] for t in stack]))


def tangent(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode"):
        call(forward_ad.make_dual(x, torch.ones_like(x)), *rest)
    return True


def gradient(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    x = x.clone().requires_grad_()
    out, mask = call(x, *rest)
    return torch.equal(*torch.autograd.grad(out, x, torch.ones_like(out)), mask.to(out.dtype))


def negated(call: Callable[..., Any], x: Any, *rest: Any) -> Any:
    out, _ = call(torch.complex(x, -x).conj().imag, *rest)
    return torch.equal(out, OPERATOR(x, *rest)[0])


WATCHERS = [
    dispatch_mode, function_mode, profiler, subclass, fake, meta, traced, symbolic, compiled, functionalized, wrapped,
    mapped, tangent, gradient, negated,
]  # fmt: skip


@pytest.mark.parametrize("watcher", WATCHERS, ids=[w.__name__ for w in WATCHERS])
def test_who_watches_sees_the_operator(watcher):
    call = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask
    for _ in range(3):
        call(*arguments())
    assert operator._is_direct(*arguments()[:3])
    assert watcher(OPERATOR, *arguments())
    assert watcher(call, *arguments())


@pytest.mark.parametrize("inference", [False, True])
def test_plain_calls_leave_the_dispatcher_out(inference, monkeypatch):
    with torch.inference_mode(inference):
        given = arguments()
        want = OPERATOR(*given)
        monkeypatch.setattr(operator, "_operator", None)
        got = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask(*given)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("number", [True, 1.0])
@pytest.mark.parametrize("place", [3, 4, 5])
def test_equal_numbers_of_other_types_are_not_taken_for_one_another(place, number):
    given = [*arguments()[:3], 1, 1, 1]
    fq_tvm.torch.fake_quantize_per_channel_affine_cachemask(*given)
    given[place] = number
    outcomes = []
    for call in (OPERATOR, fq_tvm.torch.fake_quantize_per_channel_affine_cachemask):
        try:
            outcomes.append(call(*given)[0].tolist())
        except Exception as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    assert outcomes[0] == outcomes[1]

"""Convolutions with folded batch norm, as torch.ao trains them, with ``enable()``: torch's bits, and torch's ways."""

from __future__ import annotations

import contextlib
import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.ao.nn.intrinsic import qat
from torch.ao.quantization import get_default_qat_qconfig, get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.utils.checkpoint import checkpoint

import fq_tvm.torch
from fq_tvm import CacheMissError
from fq_tvm.launch import registry
from fq_tvm.torch import folded, folding, override, quotient

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao deprecates itself

STOCK = folded.FOLDED.__dict__[folded.METHOD]
OBSERVING = partial(torch.library.get_kernel(f"aten::{override.OBSERVING}", "CPU").call_boxed, override.CPU)
CLASSES = {
    1: (qat.ConvBn1d, qat.ConvBnReLU1d),
    2: (qat.ConvBn2d, qat.ConvBnReLU2d),
    3: (qat.ConvBn3d, qat.ConvBnReLU3d),
}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Begin without our method, and see it go: where other threads live, such as the test runner's, it stays."""
    monkeypatch.setattr("fq_tvm.torch.override.threading.active_count", lambda: 1)
    with fq_tvm.torch.enabled():
        pass
    assert folded.FOLDED.__dict__[folded.METHOD] is STOCK


@pytest.fixture
def served(monkeypatch):
    """Let the kernel serve tensors of any size, and count what it serves."""
    assert folded.agrees(STOCK, OBSERVING)  # which counts for nothing
    inner, seen = quotient.in_one_pass, []

    def counted(*tensors, **named):
        found = inner(*tensors, **named)
        seen.append(found is not None)
        return found

    for module in (quotient, folding):
        monkeypatch.setattr(module, "in_one_pass", counted)
    launch_of = folding._launch_of_norm_gradient

    def found(*tensors):
        launch = launch_of(*tensors)
        if launch is not folding.STOCK:  # else what is counted above is asked
            seen.append(True)
        return launch

    monkeypatch.setattr(folding, "_launch_of_norm_gradient", found)
    monkeypatch.setattr(folded, "MIN_ELEMENTS", 0)
    return seen


def module_of(dimensions=2, relu=False, bias=False, seed=0, **more):
    torch.manual_seed(seed)
    made = CLASSES[dimensions][relu](3, 6, 3, bias=bias, qconfig=get_default_qat_qconfig("x86"), **more).train()
    with torch.no_grad():
        made.bn.weight.copy_(torch.randn(6))  # of both signs
        made.bn.bias.copy_(torch.randn(6))
    return made


def step(module, x, grad_of=torch.ones_like):
    out = module(x)
    out.backward(grad_of(out))
    return out


def states(module, x, enabled, steps=3):
    """All that there is after some steps of training."""
    module, x, seen = copy.deepcopy(module), x.clone().requires_grad_(), []
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.5)
    with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
        for number in range(steps):
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(number)
            out = step(module, x, lambda out, g=generator: torch.randn(out.shape, generator=g))
            seen += [out.detach().clone(), x.grad.clone(), *(p.grad.clone() for p in module.parameters())]
            optimizer.step()
    return [*seen, *module.state_dict().values()]


def all_equal(a, b):
    return len(a) == len(b) and all(torch.equal(*pair) for pair in zip(a, b, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_steps_have_torchs_bits(served, seed):
    generator = torch.Generator().manual_seed(seed)
    dimensions, relu, bias, batch = (int(torch.randint(n, (), generator=generator)) for n in (3, 2, 2, 4))
    sizes = torch.randint(6, 12 if dimensions else 80, (dimensions + 1,), generator=generator).tolist()
    module = module_of(dimensions + 1, bool(relu), bool(bias), seed, stride=1 + seed % 2, padding=seed % 3)
    x = torch.randn(batch + 1, 3, *sizes, generator=generator) * 3
    if x.shape[0] * sum(sizes) < 8:
        x = x.repeat(4, *[1] * (x.dim() - 1))  # batch norm wants more than one value a channel
    assert all_equal(states(module, x, enabled=False), states(module, x, enabled=True))
    row = module(x)[0, 0].numel()
    assert served == [row > 1] * 3


@pytest.mark.parametrize("frozen", ["weights", "statistics", "nothing"])
def test_what_is_frozen(served, frozen):
    module, x = module_of(), torch.randn(2, 3, 8, 8)
    if frozen == "weights":
        module.weight.requires_grad_(False)
    elif frozen == "statistics":
        module.freeze_bn_stats()

    def outcome(enabled):
        trained = copy.deepcopy(module)
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            out = step(trained, x)
        return [
            out.detach(),
            *trained.state_dict().values(),
            *(p.grad for p in trained.parameters() if p.grad is not None),
        ]

    assert all_equal(outcome(False), outcome(True))
    assert served


def test_what_a_hook_of_the_batch_norm_keeps_stays_as_it_was(served):
    module, x = module_of(padding=1), torch.randn(16, 3, 64, 64)
    seen = []
    for enabled in (False, True):
        trained, kept = copy.deepcopy(module), []
        trained.bn.register_full_backward_hook(lambda _, given, got, kept=kept: kept.extend((*given, *got)))
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            step(trained, x.clone().requires_grad_(), torch.ones_like)
        seen.append(kept)
    assert served == [True]
    assert all_equal(*seen)


def test_the_gradient_lies_where_that_of_the_quotient_came_in(monkeypatch):
    inner, places = quotient.run, []

    def run(launch, quotient, grad, divisor, out, *more, **named):
        places.append(grad.data_ptr() == out.data_ptr())
        return inner(launch, quotient, grad, divisor, out, *more, **named)

    assert folded.agrees(STOCK, OBSERVING)
    monkeypatch.setattr(quotient, "run", run)
    module, x = module_of(padding=1), torch.randn(16, 3, 64, 64)
    with fq_tvm.torch.enabled():
        step(module, x)
    assert places == [True]


def test_large_quotients_lie_in_memory_that_is_used_again():
    module, x = module_of(padding=1), torch.randn(11, 3, 128, 128)
    assert x[:, :1].numel() * 6 > 2**20
    assert all_equal(states(module, x, enabled=False, steps=2), states(module, x, enabled=True, steps=2))


def test_who_keeps_what_comes_of_the_convolution_finds_it_unchanged(served):
    """As nothing but torch's own convolution is known to give a tensor that nobody else has."""

    class Keeps(qat.ConvBn2d):
        def _conv_forward(self, *arguments):
            self.kept = super()._conv_forward(*arguments)
            return self.kept

    def outcome(enabled):
        torch.manual_seed(0)
        module = Keeps(3, 6, 3, qconfig=get_default_qat_qconfig("x86")).train()
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            out = step(module, torch.randn(2, 3, 8, 8))
        return [out.detach(), module.kept.detach(), *(p.grad for p in module.parameters())]

    assert all_equal(outcome(False), outcome(True))
    assert not served


def test_channels_last_is_served_by_torch(served):
    module, x = module_of(), torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    assert all_equal(states(module, x, enabled=False), states(module, x, enabled=True))
    assert served and not any(served)


def test_no_kernel_no_error(served, monkeypatch, request):
    def missing(*_, **__):
        raise CacheMissError("none")

    monkeypatch.setattr(quotient, "prepare", missing)
    registry.launches.clear()
    request.addfinalizer(registry.launches.clear)  # where it is remembered that there is none
    module, x = module_of(), torch.randn(2, 3, 8, 8)
    assert all_equal(states(module, x, enabled=False), states(module, x, enabled=True))
    assert served and not any(served)


def test_double_backward(served):
    """Terms are added up in another order than torch's, which is as near to what float64 gives as torch's."""

    def penalty(enabled, dtype=torch.float32):
        module, x = module_of().to(dtype), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
        module.weight_fake_quant, x = nn.Identity(), x.requires_grad_()  # which would round by what is given
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            out = module(x)
            grads = torch.autograd.grad(out.square().sum(), (x, module.bn.weight), create_graph=True)
            sum(g.square().sum() for g in grads).backward()
        return [x.grad, *(p.grad for p in module.parameters() if p.grad is not None)]

    exact, stock, ours = penalty(False, torch.float64), penalty(False), penalty(True)
    assert len(exact) == len(stock) == len(ours) == 4
    for truth, wanted, got in zip(exact, stock, ours, strict=True):
        assert (got - truth).abs().max() <= 4 * (wanted - truth).abs().max()
    assert len(served) == 1  # the second time, when nothing is differentiated again


def test_a_method_that_takes_other_steps_is_left_alone(served, monkeypatch):
    """As another version of torch may: its bits are kept, and with them its method."""

    def other(self, input):
        return STOCK(self, input) * 1.5

    monkeypatch.setattr(folded, "_agrees", None)
    monkeypatch.setattr(folded.FOLDED, folded.METHOD, other)
    module, x = module_of(), torch.randn(2, 3, 8, 8)
    assert all_equal(states(module, x, enabled=False), states(module, x, enabled=True))
    assert served == [True] and folded._agrees is False  # it was compared


def test_finding_out_draws_no_numbers_of_the_program(monkeypatch):
    monkeypatch.setattr(folded, "_agrees", None)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    assert folded.agrees(STOCK, OBSERVING)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_method_is_put_back():
    with fq_tvm.torch.enabled():
        assert folded.FOLDED.__dict__[folded.METHOD] is not STOCK
        module = pickle.loads(pickle.dumps(module_of()))
    assert folded.FOLDED.__dict__[folded.METHOD] is STOCK
    assert vars(type(module)).get(folded.METHOD) is None


def test_who_replaced_it_since_keeps_it(monkeypatch):
    def other(self, input):
        return STOCK(self, input)

    with monkeypatch.context() as patched:
        with fq_tvm.torch.enabled():
            patched.setattr(folded.FOLDED, folded.METHOD, other)
        assert folded.FOLDED.__dict__[folded.METHOD] is other
        patched.undo()
    setattr(folded.FOLDED, folded.METHOD, STOCK)


@pytest.mark.parametrize(
    "way",
    [
        "eval", "no_grad", "autocast", "vmap", "functional", "forward mode", "mode", "hooks", "checkpoint"
    ],
)  # fmt: skip
def test_what_is_unusual_is_torchs(served, way):
    """The same results, or the same error, and no kernel."""
    module, x = module_of(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def outcome():
        trained = copy.deepcopy(module)
        parameters = dict(trained.named_parameters())
        try:
            if way == "eval":
                return [trained.eval()(x)]
            if way == "no_grad":
                with torch.no_grad():
                    return [trained(x)]
            if way == "autocast":
                with torch.autocast("cpu", torch.bfloat16):
                    return [trained(x)]
            if way == "vmap":
                return [torch.vmap(trained)(x[None])]
            if way == "functional":
                call = torch.func.functional_call
                return [*torch.func.grad(lambda p: call(trained, p, (x,)).sum())(parameters).values()]
            if way == "forward mode":
                return [*torch.func.jvp(trained, (x,), (torch.ones_like(x),))]
            if way == "hooks":
                with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.clone, torch.Tensor.clone):
                    return [trained(x)]
            if way == "checkpoint":
                checkpoint(trained, x, use_reentrant=False).sum().backward()
                return [parameter.grad for parameter in parameters.values() if parameter.grad is not None]
            with torch.device("cpu"):
                return [trained(x)]
        except Exception as error:
            return [type(error)]

    wanted = outcome()
    with fq_tvm.torch.enabled():
        got = outcome()
    assert len(wanted) == len(got)
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a is b for a, b in zip(wanted, got, strict=True))
    assert not served


@pytest.mark.parametrize("way", ["script", "compile", "export"])
def test_other_forms_of_a_module(served, way):
    module, x = module_of().eval() if way == "export" else module_of(), torch.randn(2, 3, 8, 8)

    def form_of(original):
        if way == "script":
            return torch.jit.script(original)
        if way == "compile":
            return torch.compile(original, backend="aot_eager")
        return torch.export.export(original, (x,)).module()

    def outcome():
        trained = copy.deepcopy(module)
        try:
            formed = form_of(trained)
            out = formed(x)
            if way != "export":
                out.sum().backward()
        except Exception as error:
            return [type(error)]
        return [out.detach(), *(p.grad for p in trained.parameters() if p.grad is not None)]

    wanted = outcome()
    torch.compiler.reset()
    with fq_tvm.torch.enabled():
        got = outcome()
    torch.compiler.reset()
    assert len(wanted) == len(got)
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a is b for a, b in zip(wanted, got, strict=True))
    assert not served


def test_a_network_after_twenty_steps(served):
    body = [
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.BatchNorm2d(6),
    ]
    torch.manual_seed(0)
    network, x = nn.Sequential(*body).train(), torch.randn(4, 3, 12, 12)
    prepared = prepare_qat_fx(network, get_default_qat_qconfig_mapping("x86"), (x,))
    assert all_equal(states(prepared, x, enabled=False, steps=20), states(prepared, x, enabled=True, steps=20))
    assert all(served) and len(served) == 40

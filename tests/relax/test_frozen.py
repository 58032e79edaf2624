"""freeze: every kind of fake quantization module becomes constants that compute what it computed, or is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from relax_modules import OP, run
from support import bits
from torch.ao import quantization as ao
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize
from tvm.relax.frontend.torch import from_exported_program

import fq_tvm
import fq_tvm.relax

AFFINE, SYMMETRIC = torch.per_channel_affine, torch.per_channel_symmetric
TENSOR, TENSOR_SYMMETRIC = torch.per_tensor_affine, torch.per_tensor_symmetric


def imported(module, *args):
    program = torch.export.export(module.eval(), args)
    return from_exported_program(program, custom_convert_map=fq_tvm.relax.torch_convert_map())


def data(*shape):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def prepared(kind, scheme, source=ao, dtype=torch.qint8, **options):
    """A fake quantization module that has seen data, and observes no more."""
    per_channel = scheme in (AFFINE, SYMMETRIC)
    observer = source.MovingAveragePerChannelMinMaxObserver if per_channel else source.MovingAverageMinMaxObserver
    options |= {"ch_axis": 0} if per_channel else {}
    module = kind(observer, quant_min=-128, quant_max=127, dtype=dtype, qscheme=scheme, **options)
    module(data(4, 6, 10))
    (getattr(module, "enable_param_learning", None) or module.disable_observer)()
    return module


def assert_frozen(module, x):
    """Assert that the frozen module computes the same, in torch and as one operator of a Relax module."""
    want = module(x).detach().numpy()
    frozen = fq_tvm.relax.freeze(module)
    assert not list(frozen.parameters())
    np.testing.assert_array_equal(bits(frozen(x).numpy()), bits(want))
    mod = imported(frozen, x)
    assert mod.script().count(OP) == 1
    np.testing.assert_array_equal(bits(run(mod, x.numpy())[0]), bits(want))


@pytest.mark.parametrize("scheme", [TENSOR, AFFINE])
@pytest.mark.parametrize("kind", [ao.FakeQuantize, ao.FusedMovingAvgObsFakeQuantize])
def test_observers(kind, scheme):
    module = prepared(kind, scheme)
    assert_frozen(module, 2 * data(4, 6, 10))
    module.disable_fake_quant()
    assert isinstance(fq_tvm.relax.freeze(module), torch.nn.Identity)


@pytest.mark.parametrize("scheme", [TENSOR, TENSOR_SYMMETRIC, AFFINE, SYMMETRIC])
def test_learned_parameters(scheme):
    """They are rounded, clamped and, of symmetric schemes, set to zero in each call."""
    module = prepared(_LearnableFakeQuantize, scheme, channel_len=4 if scheme in (AFFINE, SYMMETRIC) else -1)
    with torch.no_grad():
        module.zero_point += torch.tensor([2.5, 1.5, 300, -0.5])[: len(module.zero_point)]
        module.scale[-1] = -1.0
    assert_frozen(module, data(4, 6, 10))


@pytest.mark.parametrize("scheme", [TENSOR, AFFINE])
def test_modules_of_torchao(scheme):
    pt2e = pytest.importorskip("torchao.quantization.pt2e")
    from torchao.quantization.pt2e.learnable_fake_quantize import LearnableFakeQuantize

    for kind in (pt2e.FakeQuantize, pt2e.FusedMovingAvgObsFakeQuantize, LearnableFakeQuantize):
        assert_frozen(prepared(kind, scheme, pt2e, torch.int8), 2 * data(4, 6, 10))


class FakeQuantizeBase(torch.nn.Module):
    """A base of nobody that this library could import."""


class Foreign(FakeQuantizeBase):
    def __init__(self, given):
        super().__init__()
        self.given = given
        for name in ("qscheme", "ch_axis", "activation_post_process", "scale", "zero_point", "fake_quant_enabled"):
            setattr(self, name, getattr(given, name))

    def forward(self, x):
        return self.given(x)


def test_modules_of_another_base():
    assert_frozen(Foreign(prepared(ao.FakeQuantize, AFFINE)), data(4, 6, 10))


def test_a_module_under_two_names_is_replaced_under_both():
    shared = prepared(ao.FakeQuantize, TENSOR)

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = shared
            self.inner = torch.nn.Sequential(shared, shared)

        def forward(self, x):
            return self.inner(self.second(torch.relu(self.first(x))))

    model = Twice()
    frozen = fq_tvm.relax.freeze(model)
    assert frozen.first is frozen.second is frozen.inner[0] is frozen.inner[1]
    assert model.first is shared
    assert not any(isinstance(module, ao.FakeQuantize) for module in frozen.modules())
    x = data(4, 6, 10)
    np.testing.assert_array_equal(bits(run(imported(frozen, x), x.numpy())[0]), bits(model(x).numpy()))


@pytest.mark.parametrize("kind", [ao.FakeQuantize, ao.FusedMovingAvgObsFakeQuantize])
def test_another_dtype(kind):
    """torch quantizes with the rounded scale per tensor, cannot per channel, and leaves what is frozen alone."""
    x = data(4, 6, 10)
    for scheme in (TENSOR, AFFINE):
        frozen = fq_tvm.relax.freeze(prepared(kind, scheme))
        want = frozen(x)
        for dtype in (torch.bfloat16, torch.float64):
            assert torch.equal(frozen.to(dtype)(x), want)
    module = prepared(kind, TENSOR).to(torch.bfloat16)
    assert torch.equal(fq_tvm.relax.freeze(module)(x), prepared_forward(module, x))
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float16, "float16"), (torch.float64, "float64")):
        module = torch.nn.Sequential(torch.nn.Sequential(prepared(kind, AFFINE))).to(dtype)
        with pytest.raises(fq_tvm.ArgumentError, match=rf"0\.0 \({kind.__name__}\) has scales of {name}"):
            fq_tvm.relax.freeze(module)


def prepared_forward(module, x):
    return torch.fake_quantize_per_tensor_affine(x, module.scale.float(), module.zero_point, -128, 127)


def test_what_has_no_constants_is_refused():
    dynamic = ao.FakeQuantize(
        ao.MovingAverageMinMaxObserver, quant_min=0, quant_max=255, is_dynamic=True, averaging_constant=1
    )
    dynamic(data(4, 6))
    with pytest.raises(fq_tvm.ArgumentError, match=r"the model \(FakeQuantize\) is dynamic"):
        fq_tvm.relax.freeze(dynamic)
    assert_frozen(dynamic.apply(ao.disable_observer), data(4, 6))
    module = Foreign(prepared(ao.FakeQuantize, TENSOR))
    del module.qscheme
    with pytest.raises(fq_tvm.ArgumentError, match=r"0 \(Foreign\) has no qscheme"):
        fq_tvm.relax.freeze(torch.nn.Sequential(module))

"""Networks after quantization-aware training by torch.ao and torchao: what a module quantizes has torch's bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from relax_modules import OP, run
from support import bits
from torch.ao import quantization as ao
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.nn import functional
from tvm.relax.frontend.torch import from_exported_program

import fq_tvm
import fq_tvm.relax

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao and torchao deprecate what their own defaults use


def conv(given, channels, kernel, groups=1):
    weights = torch.nn.Conv2d(given, channels, kernel, padding=kernel // 2, groups=groups, bias=False)
    return torch.nn.Sequential(weights, torch.nn.BatchNorm2d(channels))


class ResNet(torch.nn.Module):
    shape = (4, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = conv(3, 8, 3), conv(8, 8, 3), conv(8, 8, 3)
        self.head = torch.nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.second(torch.relu(self.first(x))) + x)
        x = functional.max_pool2d(torch.cat([x, x], 1)[:, :8], 2)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class MobileNet(torch.nn.Module):
    shape = (4, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.expand, self.depthwise, self.project = conv(3, 12, 1), conv(12, 12, 3, groups=12), conv(12, 12, 1)
        self.gate, self.head = torch.nn.Conv2d(12, 12, 1), torch.nn.Linear(12, 10)

    def forward(self, x):
        x = functional.hardtanh(self.expand(x), 0, 6)
        y = self.project(functional.relu6(self.depthwise(x)))
        y = y * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(y, 1)))
        return self.head(functional.adaptive_avg_pool2d(x + y, 1).flatten(1))


class Transformer(torch.nn.Module):
    shape = (4, 5, 16)

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (torch.nn.Linear(16, 16) for _ in range(4))
        self.before, self.after = torch.nn.LayerNorm(16), torch.nn.LayerNorm(16)
        self.up, self.down = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, x):
        y = self.before(x)
        q, k, v = (part(y).unflatten(-1, (2, 8)).transpose(1, 2) for part in (self.query, self.key, self.value))
        y = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.after(x))))


def prepared_by_fx(model, x):
    return prepare_qat_fx(model, ao.get_default_qat_qconfig_mapping("x86"), (x,))


def prepared_by_pt2e(model, x):
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    return prepare_qat_pt2e(torch.export.export(model, (x,)).module(), quantizer)


def trained(model, x):
    """Take some steps; return the model with observers that no longer run."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    for module in quantizers(model).values():
        module.disable_observer()
    return model


def quantizers(model):
    return {name: module for name, module in model.named_modules() if hasattr(module, "fake_quant_enabled")}


class Recording(torch.nn.Module):
    """A model that returns, after its result, what each call of some modules was given and gave."""

    def __init__(self, model, names):
        super().__init__()
        self.model = model
        self.callers, self.tensors = [], []
        for name in names:
            model.get_submodule(name).register_forward_hook(self.recorder(name))

    def recorder(self, name):
        def record(_module, given, result):
            self.callers.append(name)
            self.tensors.extend([*given, result])

        return record

    def forward(self, x):
        self.callers.clear()
        self.tensors.clear()
        return self.model(x), *self.tensors


@pytest.mark.parametrize("network", [ResNet, MobileNet, Transformer])
@pytest.mark.parametrize("prepare", [prepared_by_fx, prepared_by_pt2e])
def test_a_network_that_was_trained(prepare, network):
    torch.manual_seed(0)
    x = torch.randn(network.shape)
    model = trained(prepare(network().train(), x), x)
    if prepare is prepared_by_fx:
        model.eval()
    else:
        from torchao.quantization.pt2e import move_exported_model_to_eval

        move_exported_model_to_eval(model)
    judges = quantizers(model)
    step = next(iter(judges.values())).scale.reshape(-1)[0]
    x = torch.where(torch.rand(x.shape) < 0.5, (torch.round(x / step) + 0.5) * step, x)  # ties where x is quantized
    recording = Recording(fq_tvm.relax.freeze(model), judges)
    recording(x)
    callers = list(recording.callers)
    program = torch.export.export(recording, (x,))
    mod = from_exported_program(program, custom_convert_map=fq_tvm.relax.torch_convert_map())
    assert set(callers) == set(judges)
    assert fq_tvm.relax.FuseFakeQuant()(mod).script().count(OP) == len(callers) >= 10
    out, *tensors = run(mod, x.numpy())
    with torch.no_grad():
        # convolutions sum in another order, which may move a rounding by one step
        np.testing.assert_allclose(out, model(x).numpy(), atol=0.05)
        for name, given, result in zip(callers, tensors[::2], tensors[1::2], strict=True):
            want = judges[name](torch.from_numpy(given.copy())).numpy()
            np.testing.assert_array_equal(bits(result), bits(want), err_msg=name)

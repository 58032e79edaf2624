"""The recipes of docs/embedding.md for QAT libraries, as they stand there: the library's own bits, by our kernels."""

from __future__ import annotations

import contextlib
import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

import fq_tvm.torch
from fq_tvm.torch import override

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"
STEPS = 3

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao and torchao deprecate what their own defaults use


def recipe(title: str) -> str:
    (section,) = re.findall(rf"^### {title}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(block)


def cook(block: str, **names: Any) -> dict[str, Any]:
    exec(compile(block, PAGE.name, "exec"), names)
    return names


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Count the calls that reach a kernel of this library."""
    seen: list[None] = []

    def counted(inner: Any) -> Any:
        def call(*arguments: Any) -> Any:
            seen.append(None)
            return inner(*arguments)

        return call

    monkeypatch.setattr(override, "_launch", counted(override._launch))
    name = "fake_quantize_per_channel_affine_cachemask"
    monkeypatch.setattr(fq_tvm.torch, name, counted(getattr(fq_tvm.torch, name)))
    return seen


def network() -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    body = [torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU()]
    model = torch.nn.Sequential(*body, torch.nn.Conv2d(16, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 10))
    return model, torch.randn(8, 3, 8, 8)


def training(x: torch.Tensor) -> Any:
    def train(model: torch.nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(STEPS):
            loss = torch.nn.functional.cross_entropy(model(x).flatten(1), torch.arange(len(x)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def assert_same_state(got: torch.nn.Module, stock: torch.nn.Module, start: torch.nn.Module) -> None:
    got_state, stock_state = got.state_dict(), stock.state_dict()
    assert got_state.keys() == stock_state.keys()
    assert [name for name in stock_state if not torch.equal(got_state[name], stock_state[name])] == []
    first, last = (next(model.parameters()) for model in (start, stock))
    assert not torch.equal(first, last)  # there was something to differ in


def check_enabled(block: str, launches: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    """With enabled() and without: the same state, by our kernels and by none of them."""
    model, x = network()
    with monkeypatch.context() as patch:
        patch.setattr(fq_tvm.torch, "enabled", contextlib.nullcontext)
        stock = cook(block, model=copy.deepcopy(model), x=x, train=training(x))["prepared"]
    assert not launches
    got = cook(block, model=copy.deepcopy(model), x=x, train=training(x))["prepared"]
    assert len(launches) >= 5 * STEPS
    assert_same_state(got, stock, model)


@pytest.mark.parametrize("backend", ["x86", "qnnpack", "fbgemm"])
def test_torch_ao_fx(backend: str, launches: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    block = recipe("torch.ao")
    assert '"x86"' in block
    check_enabled(block.replace('"x86"', f'"{backend}"'), launches, monkeypatch)


def test_torch_ao_eager(launches: list[None]) -> None:
    model, x = network()
    model.qconfig = get_default_qat_qconfig("x86")
    stock = prepare_qat(model.train())
    got, start = copy.deepcopy(stock), copy.deepcopy(stock)
    training(x)(stock)
    assert not launches
    with fq_tvm.torch.enabled():
        training(x)(got)
    assert len(launches) >= 5 * STEPS
    assert_same_state(got, stock, start)


def test_torchao_pt2e(launches: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchao")
    check_enabled(recipe("torchao, pt2e"), launches, monkeypatch)


def linear(width: int = 64) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(width, 2 * width), torch.nn.ReLU(), torch.nn.Linear(2 * width, 10))
    return torch.nn.Sequential(*layers), torch.randn(4, 3, width)


@pytest.fixture
def grouped(launches: list[None]) -> dict[str, Any]:
    """What the recipe for quantize_ defines, after it was trained."""
    pytest.importorskip("torchao")
    model, x = linear()
    return cook(recipe("torchao, quantize_"), model=model, x=x, train=training(x)) | {"x": x}


def stock_of(names: dict[str, Any], model: torch.nn.Module) -> Any:
    both = {"activation_config": names["activations"], "weight_config": names["weights"]}
    names["quantize_"](model, names["QATConfig"](**both, step="prepare"))
    return model


def test_torchao_quantize(grouped: dict[str, Any], launches: list[None]) -> None:
    assert len(launches) == 4 * STEPS
    stock = stock_of(grouped, linear()[0])
    training(grouped["x"])(stock)
    assert len(launches) == 4 * STEPS
    assert_same_state(grouped["model"], stock, linear()[0])


@pytest.mark.parametrize("kind", ["weights", "activations"])
def test_torchaos_quantizers_and_those_of_the_recipe(grouped: dict[str, Any], kind: str) -> None:
    """Results and gradients, on ties, signed zeros and groups of zeros alone."""
    config = grouped[kind]
    generator = torch.Generator().manual_seed(5)
    low, high = grouped["RANGES"][config.dtype]
    x = torch.randint(low, high + 1, (64, 96), generator=generator) + 0.5 * (
        torch.rand(64, 96, generator=generator) < 0.7
    )
    x[:, ::32], x[:, 1::32] = low, high  # so that the scale of a group is a power of two, or next to it
    x = x * 2.0 ** torch.randint(-6, 6, (64, 1), generator=generator)
    x[3], x[4], x[5, ::2] = 0.0, -0.0, -x[5, ::2]
    grad = torch.randn(x.shape, generator=generator)
    results = []
    for quantizer in (grouped["IntxFakeQuantizer"](config), grouped["KernelFakeQuantizer"](config)):
        leaf = x.clone().requires_grad_()
        out = quantizer(leaf)
        out.backward(grad)
        results.append((out.detach(), leaf.grad))
    (stock_out, stock_grad), (out, got_grad) = results
    assert torch.equal(out.view(torch.int32), stock_out.view(torch.int32))
    assert torch.equal(got_grad.view(torch.int32), stock_grad.view(torch.int32))
    assert (stock_out != x).float().mean() > 0.25


def test_a_gradient_straight_through_differs_from_torchaos_by_the_last_bit(grouped: dict[str, Any]) -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(7))
    grads = []
    for apply in (
        grouped["FakeQuantize"].apply,
        lambda x, scale, zero_point, *bounds: fq_tvm.torch.fake_quantize_per_channel_affine(
            x, scale, zero_point, 0, *bounds
        ),
    ):
        leaf = weight.clone().requires_grad_()
        scale = weight.abs().amax(1) / 7.5
        out = apply(leaf, scale, torch.zeros(64, dtype=torch.int32), -8, 7)
        out.backward(torch.randn(64, 64, generator=torch.Generator().manual_seed(8)))
        grads.append(leaf.grad)
    exact, straight = grads
    assert torch.equal(exact == 0, straight == 0)
    assert 0.1 < (exact != straight).float().mean() < 0.5
    assert (exact.view(torch.int32) - straight.view(torch.int32)).abs().max() == 1


def test_the_recipe_leaves_alone_what_is_switched_off(grouped: dict[str, Any]) -> None:
    quantizer = grouped["KernelFakeQuantizer"](grouped["weights"])
    quantizer.enabled = False
    x = torch.randn(4, 64)
    assert quantizer(x) is x


def test_every_recipe_is_run() -> None:
    section = PAGE.read_text().partition("\n## QAT libraries\n")[2]
    assert re.findall(r"^### (.*)$", section, re.MULTILINE) == ["torch.ao", "torchao, pt2e", "torchao, quantize_"]

"""The recipes of docs/embedding.md for QAT libraries, as they stand there: the library's own bits, by our kernels."""

from __future__ import annotations

import contextlib
import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support import count_served
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

import fq_tvm.torch
from fq_tvm.torch import find, folded, quantizing

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
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls that a kernel of this library serves."""
    seen: list[int] = []
    operators = (find, "fake_quantize"), (fq_tvm.torch, "fake_quantize_per_channel_affine_cachemask")
    modules = (quantizing, "quantize"), (folded, "fold"), (folded, "fold_again")
    count_served(monkeypatch, seen, *((*each, 1) for each in (*operators, *modules)))
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


def check_enabled(block: str, launches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_torch_ao_fx(backend: str, launches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    block = recipe("torch.ao")
    assert '"x86"' in block
    check_enabled(block.replace('"x86"', f'"{backend}"'), launches, monkeypatch)


def test_torch_ao_eager(launches: list[int]) -> None:
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


def test_torchao_pt2e(launches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchao")
    check_enabled(recipe("torchao, pt2e"), launches, monkeypatch)


def linear(width: int = 64) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(width, 2 * width), torch.nn.ReLU(), torch.nn.Linear(2 * width, 10))
    return torch.nn.Sequential(*layers), torch.randn(4, 3, width)


@pytest.fixture
def grouped(launches: list[int]) -> dict[str, Any]:
    """What the recipe for quantize_ defines, after it was trained."""
    pytest.importorskip("torchao")
    model, x = linear()
    return cook(recipe("torchao, quantize_"), model=model, x=x, train=training(x)) | {"x": x}


def stock_of(names: dict[str, Any], model: torch.nn.Module) -> Any:
    both = {"activation_config": names["activations"], "weight_config": names["weights"]}
    names["quantize_"](model, names["QATConfig"](**both, step="prepare"))
    return model


def test_torchao_quantize(grouped: dict[str, Any], launches: list[int]) -> None:
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


def with_ties(x: torch.Tensor, scale: torch.Tensor, seed: int) -> torch.Tensor:
    """Of x's shape: a third on a tie of what a scale is for, some next to one, signed zeros, beyond the range, huge."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(-140, 140, x.shape, generator=generator) + 0.5 * (
        torch.rand(x.shape, generator=generator) < 0.6
    )
    steps.view(-1)[13::17] = -0.4  # which becomes -0.0
    made = steps * scale
    made.view(-1)[::7] = torch.nextafter(made.view(-1)[::7], torch.tensor(0.0))
    made.view(-1)[3::31], made.view(-1)[5::31] = 0.0, -0.0
    made.view(-1)[11::97], made.view(-1)[12::97] = 1e-40, -1e30
    return made


@pytest.mark.parametrize(
    "quantizer", ["Int8WeightPerTensorFloat", "Int8WeightPerChannelFloat", "Int4WeightPerTensorFloat"]
)
def test_brevitas(quantizer: str, launches: list[int]) -> None:
    qnn = pytest.importorskip("brevitas.nn")
    quant = pytest.importorskip("brevitas.quant")
    weight_quant = quant.Int8WeightPerTensorFloat.let(bit_width=4) if "Int4" in quantizer else getattr(quant, quantizer)
    torch.manual_seed(0)
    body = [qnn.QuantConv2d(3, 16, 3, padding=1, weight_quant=weight_quant), torch.nn.BatchNorm2d(16), torch.nn.ReLU()]
    model = torch.nn.Sequential(*body, torch.nn.Flatten(), qnn.QuantLinear(1024, 10, True, weight_quant=weight_quant))
    x = torch.randn(8, 3, 8, 8)
    got, stock = copy.deepcopy(model), copy.deepcopy(model)
    training(x)(stock)
    names = cook(recipe("Brevitas"), model=got, train=training(x))
    assert_same_state(got, stock, model)
    replaced = [m for m in got.modules() if isinstance(m, names["IntQuant"]) and "forward" in vars(m)]
    assert len(replaced) == 2

    ours, theirs = (m[0].weight_quant.tensor_quant.int_quant for m in (got, stock))
    weight = stock[0].weight.detach()
    scale = stock[0].weight_quant.scale().detach()
    tied, zero = with_ties(weight, scale, 1), torch.zeros(())
    grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    results = []
    for int_quant in (ours, theirs):
        leaves = tied.clone().requires_grad_(), scale.clone().requires_grad_()
        out = int_quant(leaves[1], zero, torch.tensor(8.0), leaves[0])
        out.backward(grad)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("strategy", ["tensor", "channel", "token", "group", "block"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors(strategy: str, symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function that it replaces, on ties; then a layer, by the recipe."""
    quantization = pytest.importorskip("compressed_tensors.quantization")
    sizes = {"group": {"group_size": 16}, "block": {"block_structure": [16, 32]}}.get(strategy, {})
    dynamic = strategy == "token"  # the library has no other
    args = quantization.QuantizationArgs(num_bits=8, symmetric=symmetric, strategy=strategy, dynamic=dynamic, **sizes)
    torch.manual_seed(0)
    x, layer = torch.randn(4, 64), torch.nn.Linear(64, 32)
    shape = {"tensor": (1,), "channel": (32, 1), "token": (32, 1), "group": (32, 4), "block": (2, 2)}[strategy]
    scale, zero_point = torch.rand(shape) * 0.02 + 0.001, torch.randint(-3, 4, shape, dtype=torch.int8)
    zero_point.view(-1)[::2] = 0
    seen: list[int] = []
    inner = fq_tvm.torch.fake_quantize
    monkeypatch.setattr(fq_tvm.torch, "fake_quantize", lambda *a, **k: seen.append(1) or inner(*a, **k))

    def model(x: torch.Tensor) -> torch.Tensor:
        each = scale
        for d, n in enumerate(layer.weight.shape if len(shape) == 2 else ()):
            each = each.repeat_interleave(n // shape[d], d)
        return quantization.fake_quantize(with_ties(layer.weight.detach(), each, 3), scale, zero_point, args)

    want = model(x)
    assert not seen
    got = cook(recipe("compressed-tensors"), model=model, x=x)["y"]
    assert seen
    assert torch.equal(got.view(torch.int32), want.view(torch.int32))
    assert (want == 0).any() and (want.view(torch.int32) == -(2**31)).any()
    assert torch.equal(model(x), want) and len(seen) == 1  # it is put back


def test_every_recipe_is_run() -> None:
    section = PAGE.read_text().partition("\n## QAT libraries\n")[2]
    titles = re.findall(r"^### (.*)$", section, re.MULTILINE)
    assert titles == ["torch.ao", "torchao, pt2e", "torchao, quantize_", "Brevitas", "compressed-tensors"]

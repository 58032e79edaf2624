"""torch's fused observer, replaced: torch's bits in every buffer and output, after every step."""

from __future__ import annotations

import copy
import itertools
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from support import count_served
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig, get_default_qat_qconfig_mapping, prepare_qat
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import fq_tvm.torch
from fq_tvm import CacheMissError
from fq_tvm.torch import folded, observer, override, quantizing

FUSED = torch.ops.aten._fused_moving_avg_obs_fq_helper
ON, OFF = torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
BOUNDS = [(0, 255), (-128, 127), (0, 127), (-8, 7), (-127, 127), (3, 120)]


@pytest.fixture
def served(monkeypatch):
    """Let kernels serve tensors of any size, and count what they serve."""
    inner, seen = override._observe, []

    def observe(*args):
        result = inner(*args)
        seen.append(result is not None)
        return result

    monkeypatch.setattr(override, "OBSERVED_MIN_ELEMENTS", 0)
    monkeypatch.setattr(override, "_observe", observe)
    return seen


def buffers_of(channels, running=(np.inf, -np.inf)):
    bounds = [torch.full((channels,), bound) for bound in running]
    return [*bounds, torch.full((channels,), 0.5), torch.full((channels,), 1, dtype=torch.int32)]


def same(a, b):
    """Equal with NaN equal to NaN; a zero of either sign is a zero, as for torch.equal."""
    if a.dtype != b.dtype or a.shape != b.shape or a.stride() != b.stride():
        return False
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(nan=1e9), b.nan_to_num(nan=1e9))


def outcome(arguments):
    try:
        return [*FUSED(*arguments)]
    except Exception as error:
        return [type(error), str(error).partition("CPU: registered at")[0]]


def compare(make, steps=1):
    """Take steps of torch's kernel and of ours on arguments of their own, and compare all that there is after each."""
    stock, ours = make(), make()
    for _ in range(steps):
        wanted = outcome(next(stock))
        with fq_tvm.torch.enabled():
            got = outcome(next(ours))
        before, after = next(stock), next(ours)
        assert len(wanted) == len(got)
        for a, b in zip((*wanted, *before), (*got, *after), strict=True):
            assert same(a, b) if isinstance(a, torch.Tensor) else a == b


def drawn(seed):
    """Arguments of steps in a row, each followed by its buffers; everything is drawn by the seed."""
    rng = np.random.default_rng(seed)
    per_row, symmetric = bool(rng.integers(2)), bool(rng.integers(2))
    shape = [(5, 40), (7, 3, 3, 3), (64, 9), (2, 3, 50), (1, 33)][rng.integers(5)]
    low, high = BOUNDS[rng.integers(len(BOUNDS))]
    buffers = buffers_of(shape[0] if per_row else 1)
    constant, flags = float(rng.choice([0.01, 0.1, 1.0, 0.0])), rng.random()
    while True:
        x = torch.from_numpy((rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 7)).astype("f4"))
        kind = rng.random()
        if kind < 0.3:
            x = x.abs() if rng.random() < 0.5 else -x.abs()
        elif kind < 0.4:
            x.zero_()
        on = [ON if flags < 0.6 or rng.random() < 0.5 else OFF for _ in range(2)]
        if rng.random() < 0.1:
            # An infinity that is not observed is quantized as docs/numerics.md says, not as torch does per channel.
            infinities = [np.inf, -np.inf] if on[0] is ON else []
            x.view(-1)[rng.integers(x.numel())] = float(rng.choice([np.nan, *infinities]))
        if rng.random() < 0.3:
            x = x.transpose(0, -1).contiguous().transpose(0, -1)
        yield (x, *on, *buffers, constant, low, high, 0, per_row, symmetric)
        yield buffers


@pytest.mark.parametrize("seed", range(40))
def test_buffers_and_results_of_drawn_steps(served, seed):
    compare(lambda: drawn(seed), steps=8)
    assert len(served) == 8


def test_most_steps_are_served(served):
    for seed in range(20):
        compare(lambda seed=seed: drawn(seed), steps=4)
    assert sum(served) > 40


def of(x, *changes, per_row=True, symmetric=True, bounds=(-128, 127), axis=0):
    """Arguments of one call, some of them replaced by name, and then what the call may have written."""
    arguments = {"x": x, "observer_on": ON.clone(), "fake_quant_on": ON.clone()}
    names = ("running_min", "running_max", "scale", "zero_point")
    arguments |= dict(zip(names, buffers_of(x.shape[0] if per_row and x.dim() else 1), strict=True))
    arguments |= {"constant": 0.01, "low": bounds[0], "high": bounds[1], "axis": axis}
    arguments |= {"per_row": per_row, "symmetric": symmetric, **dict(changes)}
    yield tuple(arguments.values())
    yield [value for value in arguments.values() if isinstance(value, torch.Tensor)]


X = torch.linspace(-3, 5, 60).reshape(4, 15)
ODD = {
    "float64": lambda: of(X.double()),
    "float16": lambda: of(X.half()),
    "bfloat16": lambda: of(X.bfloat16(), per_row=False),
    "empty": lambda: of(X[:, :0]),
    "no rows": lambda: of(X[:0]),
    "one dimension": lambda: of(X[0]),
    "no dimensions": lambda: of(X[0, 0], per_row=False),
    "another axis": lambda: of(X, axis=1),
    "of axis -1 per tensor": lambda: of(X, per_row=False, axis=-1),
    "long zero points": lambda: of(X, ("zero_point", torch.zeros(4, dtype=torch.int64))),
    "float zero points": lambda: of(X, ("zero_point", torch.zeros(4))),
    "scale of another size": lambda: of(X, ("scale", torch.ones(5))),
    "double scale": lambda: of(X, ("scale", torch.ones(4, dtype=torch.float64))),
    "strided buffers": lambda: of(X, ("running_min", torch.full((8,), np.inf)[::2])),
    "scale without a dimension": lambda: of(X, ("scale", torch.tensor(1.0)), per_row=False),
    "running bounds without one": lambda: of(X, ("running_min", torch.tensor(-1.0)), per_row=False),
    "bool flags": lambda: of(X, ("observer_on", torch.tensor([True])), ("fake_quant_on", torch.tensor([True]))),
    "uint8 flags": lambda: of(X, ("observer_on", torch.tensor([2], dtype=torch.uint8))),
    "flags of floats": lambda: of(X, ("observer_on", torch.tensor([1.0]))),
    "two flags": lambda: of(X, ("observer_on", torch.tensor([1, 1]))),
    "one value": lambda: of(X, bounds=(3, 3), per_row=False),
    "two values": lambda: of(X, bounds=(0, 1)),
    "bounds exchanged": lambda: of(X, bounds=(127, -128)),
    "wide bounds": lambda: of(X, bounds=(-(2**30), 2**30)),
    "running bounds exchanged": lambda: of(
        X, ("running_min", torch.full((1,), 2.0)), ("running_max", torch.full((1,), -2.0)), ("observer_on", OFF),
        per_row=False,
    ),
    "nothing observed": lambda: of(X, ("observer_on", OFF), per_row=False),
    "nothing at all": lambda: of(X, ("observer_on", OFF), ("fake_quant_on", OFF)),
    "observed alone": lambda: of(X, ("fake_quant_on", OFF)),
    "wanting a gradient": lambda: of(X.clone().requires_grad_()),
}  # fmt: skip


SERVED = {
    "of axis -1 per tensor", "running bounds without one", "bool flags", "uint8 flags", "observed alone",
    "wanting a gradient",
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd_is_torchs(served, case):
    compare(ODD[case])
    assert served == [case in SERVED]


def test_defaults_are_left_out(served):
    x = torch.linspace(-1, 2, 64).reshape(8, 8)
    stock, ours = buffers_of(1), buffers_of(1)
    want = FUSED(x, ON, ON, *stock, 0.01, 0, 255, 0)
    with fq_tvm.torch.enabled():
        got = FUSED(x, ON, ON, *ours, 0.01, 0, 255, 0)
    assert all(map(same, (*want, *stock), (*got, *ours)))
    assert served == [True]


def test_another_arithmetic_is_noticed():
    """Where torch was built to choose other scales, all is left to torch."""

    def scaled(*args):
        FUSED(*args)
        args[5].mul_(1 + 2**-23)

    def moved(*args):
        FUSED(*args)
        args[6].view(-1)[3] += 1

    assert observer._compare(FUSED)
    assert not observer._compare(scaled)
    assert not observer._compare(moved)


def test_a_library_without_the_range_leaves_it_to_torch(served, monkeypatch):
    def missing(*_):
        raise CacheMissError("there is none")

    monkeypatch.setattr(observer, "plan", missing)
    compare(lambda: of(torch.linspace(-1, 2, 69).reshape(3, 23)))  # of which nobody else has a launch
    assert served == [False]


@pytest.mark.parametrize(
    ("shape", "per_row", "kernels"),
    [((2**16,), False, True), ((2**16 - 1,), False, False), ((2, 3), True, True), ((256, 1, 3, 3), True, True)],
)
def test_small_tensors_are_torchs(monkeypatch, shape, per_row, kernels):
    """Channels are none: torch writes their parameters one by one."""
    inner, seen = override._observe, []
    monkeypatch.setattr(override, "_observe", lambda *args: seen.append(args) or inner(*args))
    x = torch.linspace(-1, 2, int(np.prod(shape))).reshape(shape)
    compare(lambda: of(x, per_row=per_row))
    assert len(seen) == kernels


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU(), nn.Conv2d(24, 40, 1), nn.ReLU(),
        )  # fmt: skip
        self.linear = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 5))

    def forward(self, x):
        return self.dequant(self.linear(self.convolutions(self.quant(x)).mean((2, 3))))


def affine_weights(per_channel):
    """What no default has: weights affine, activations symmetric."""
    of_channels = torch.ao.quantization.MovingAveragePerChannelMinMaxObserver
    of_tensor = torch.ao.quantization.MovingAverageMinMaxObserver
    fused = torch.ao.quantization.FusedMovingAvgObsFakeQuantize
    signed = {"quant_min": -128, "quant_max": 127, "dtype": torch.qint8}
    weight = (
        fused.with_args(observer=of_channels, qscheme=torch.per_channel_affine, **signed)
        if per_channel
        else fused.with_args(observer=of_tensor, qscheme=torch.per_tensor_affine, **signed)
    )
    activation = fused.with_args(observer=of_tensor, qscheme=torch.per_tensor_symmetric, **signed)
    return torch.ao.quantization.QConfig(activation=activation, weight=weight)


def prepare(mode, backend):
    torch.manual_seed(0)
    network = Network().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if mode == "fx":
            return prepare_qat_fx(network, get_default_qat_qconfig_mapping(backend), (torch.ones(2, 3, 8, 8),))
        if mode == "pt2e":
            xnnpack = pytest.importorskip("torchao.testing.pt2e._xnnpack_quantizer")
            pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
            config = xnnpack.get_symmetric_quantization_config(is_per_channel=backend == "per channel", is_qat=True)
            program = torch.export.export(network, (torch.ones(2, 3, 8, 8),)).module()
            return pt2e.prepare_qat_pt2e(program, xnnpack.XNNPACKQuantizer().set_global(config))
        if mode == "affine weights":
            network.qconfig = affine_weights(backend == "per channel")
        else:
            network.qconfig = get_default_qat_qconfig(backend)
        return prepare_qat(network)


def train(network, steps):
    """Return what each step gives: outputs and state."""
    rng = np.random.default_rng(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for step in range(steps):
        if step == steps - 4:
            for module in network.modules():
                if hasattr(module, "disable_observer"):  # torch.ao's or torchao's
                    module.disable_observer()
        x = torch.from_numpy(rng.standard_normal((2, 3, 8, 8)).astype("f4"))
        out = network(x)
        optimizer.zero_grad()
        out.square().sum().backward()
        optimizer.step()
        yield out.detach(), copy.deepcopy(network.state_dict())


KINDS = [
    *itertools.product(("fx", "eager"), ("x86", "qnnpack", "fbgemm")),
    *itertools.product(("affine weights", "pt2e"), ("per channel", "per tensor")),
]


@pytest.fixture
def launched(served, monkeypatch):
    """Count the modules that are served, too, which do not come to the operator then."""
    stock, observing = folded_method_and_observer()
    assert folded.agrees(stock, observing)  # which counts for nothing
    # where they give none, torch's way leads to the operator
    functions = (quantizing, "quantize"), (folded, "fold"), (folded, "fold_again")
    count_served(monkeypatch, served, *((*each, True) for each in functions))
    served.clear()
    return served


def folded_method_and_observer():
    kernel = torch.library.get_kernel(f"aten::{override.OBSERVING}", "CPU")
    return getattr(folded.FOLDED, folded.METHOD), partial(kernel.call_boxed, override.CPU)


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize(("mode", "backend"), KINDS)
def test_training(request, launched, mode, backend):
    """After each of 20 steps outputs and all that a network remembers are torch's."""
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(1)
    wanted = list(train(prepare(mode, backend), 20))
    assert not launched
    with fq_tvm.torch.enabled():
        for (out, state), (out_wanted, state_wanted) in zip(train(prepare(mode, backend), 20), wanted, strict=True):
            assert torch.equal(out, out_wanted)
            assert state.keys() == state_wanted.keys()
            for name, value in state.items():
                assert same(value, state_wanted[name]), name
    # torch gives the buffers of channels their size in the first step
    sized = sum(name.endswith("scale") and value.numel() > 1 for name, value in state.items())
    assert launched.count(False) <= sized <= 5
    assert len(launched) >= 20 * 8


@pytest.mark.parametrize("per_channel", [True, False])
def test_buffers_can_be_resized_after_a_step(served, per_channel):
    """As modules do that load a state of other sizes."""
    buffers = buffers_of(4 if per_channel else 1)
    with fq_tvm.torch.enabled():
        FUSED(torch.randn(4, 9), ON, ON, *buffers, 0.01, 0, 255, 0, per_channel, False)
    assert served == [True]
    for buffer in buffers:
        buffer.resize_(100)

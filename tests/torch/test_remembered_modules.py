"""Modules of torch.ao that are remembered with all that their kernels depend on: whatever is done to them counts."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support import count_served
from torch import nn
from torch.ao.nn.intrinsic import qat
from torch.ao.quantization import FusedMovingAvgObsFakeQuantize, get_default_qat_qconfig, prepare_qat
from torch.ao.quantization.fake_quantize import default_fused_per_channel_wt_fake_quant
from torch.nn.utils import parametrize

import fq_tvm.torch
from fq_tvm.launch import registry, threads
from fq_tvm.torch import folded, folding, quantizing

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao deprecates itself


class Network(nn.Module):
    def __init__(self, folded):
        super().__init__()
        self.folded = folded
        self.pair = nn.Sequential(nn.Conv2d(6, 9, 1, bias=False), nn.ReLU())
        self.linear = nn.Linear(9, 4)

    def forward(self, x):
        return self.linear(self.pair(self.folded(x)).mean((2, 3)))


def network(seed):
    torch.manual_seed(seed)
    config = get_default_qat_qconfig("x86")
    folded = (qat.ConvBn2d, qat.ConvBnReLU2d)[seed % 2](3, 6, 3, bias=False, padding=1, qconfig=config)
    made = Network(folded).train()
    made.pair.qconfig = made.linear.qconfig = config
    prepare_qat(made.pair, inplace=True)
    made.linear = torch.ao.nn.qat.Linear.from_float(made.linear)
    return made


@pytest.fixture(autouse=True)
def one_thread():
    """As threads of torch's that wait for a core take longer than steps of such networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def served(monkeypatch):
    """Count what is served, by kind of module."""
    with fq_tvm.torch.enabled():
        network(0)(torch.zeros(4, 3, 5, 6))  # compares with torch's first, which counts for nothing
    seen = []
    folding_ways = (folded, "fold", "fold"), (folded, "fold_again", "fold")
    count_served(monkeypatch, seen, (quantizing, "quantize", "quantize"), *folding_ways)
    return seen


class Exact(nn.Module):
    """What a quantizer does, in operators of float64."""

    def __init__(self, quantizer):
        super().__init__()
        self.scale = quantizer.scale.double().reshape(-1, 1, 1, 1)

    def forward(self, weight):
        steps = torch.round(weight.detach() / self.scale)
        inside = (steps >= -128) & (steps <= 127)
        straight = weight * inside
        return straight - straight.detach() + steps.clamp(-128, 127) * self.scale


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2


def quantizers(made):
    return [each for each in made.modules() if isinstance(each, FusedMovingAvgObsFakeQuantize)]


def leaf_of(made):
    """The weight that is trained, of which another may be made."""
    return next(p for name, p in made.folded.named_parameters() if "weight" in name and "bn" not in name)


def replace_weights(made, rng):
    made.folded.weight.data = made.folded.weight.data * float(rng.uniform(0.5, 2))


def hook_quantizers(made, rng):
    for each in quantizers(made):
        each.register_forward_hook(lambda _, given, got: got * 1.25)


def hook_norm(made, rng):
    made.folded.bn.register_forward_pre_hook(lambda _, given: (given[0] * 0.5,))


def hook_gradients(made, rng):
    made.folded.bn.register_full_backward_hook(lambda _, given, got: (given[0] * 0.5,))


def other_quantizer(made, rng):
    made.folded.weight_fake_quant = default_fused_per_channel_wt_fake_quant()


def other_buffers(made, rng):
    for each in quantizers(made):
        seen = each.activation_post_process
        seen.min_val, seen.max_val = seen.min_val * 1.5, seen.max_val * 2


def other_range(made, rng):
    for each in quantizers(made):
        each.activation_post_process.quant_max = 63
        each.activation_post_process.averaging_constant = 0.5


def load_state(made, rng):
    state = {name: value * 1.125 if value.is_floating_point() else value for name, value in made.state_dict().items()}
    made.load_state_dict(state)


def forget_ranges(made, rng):
    for each in quantizers(made):
        each.activation_post_process.reset_min_max_vals()


def own_forward(made, rng):
    each = made.folded.weight_fake_quant
    each.forward = lambda x: x * 0.75


def strided_statistics(made, rng):
    made.folded.bn.running_var.data = made.folded.bn.running_var.repeat_interleave(2)[::2]


def strided_factor(made, rng):
    made.folded.bn.weight.data = torch.linspace(-1, 1, 12)[::2]


def overlapping(made, one, other):
    one, other = (made.folded.state_dict(keep_vars=True)[name] for name in (one, other))
    both = torch.cat([one.data.flatten(), other.data.flatten()])
    one.data, other.data = both[: one.numel()], both[2 : 2 + other.numel()]


def other_dtype_in_place(made, rng):
    weight = made.folded.bn.weight
    weight.data = weight.data.view(torch.float16)[: len(weight)]


CHANGES = {
    "nothing": lambda made, rng: None,
    "observers off": lambda made, rng: made.apply(torch.ao.quantization.disable_observer),
    "observers on": lambda made, rng: made.apply(torch.ao.quantization.enable_observer),
    "quantizers off": lambda made, rng: made.apply(torch.ao.quantization.disable_fake_quant),
    "quantizers on": lambda made, rng: made.apply(torch.ao.quantization.enable_fake_quant),
    "statistics frozen": lambda made, rng: made.folded.freeze_bn_stats(),
    "statistics moving": lambda made, rng: made.folded.update_bn_stats(),
    "statistics not kept": lambda made, rng: setattr(made.folded.bn, "track_running_stats", False),
    "weights replaced": replace_weights,
    "weights fixed": lambda made, rng: leaf_of(made).requires_grad_(False),
    "weights free": lambda made, rng: leaf_of(made).requires_grad_(True),
    "factor fixed": lambda made, rng: made.folded.bn.weight.requires_grad_(False),
    "bias fixed": lambda made, rng: made.folded.bn.bias.requires_grad_(False),
    "momentum": lambda made, rng: setattr(made.folded.bn, "momentum", float(rng.uniform(0, 1))),
    "no momentum": lambda made, rng: setattr(made.folded.bn, "momentum", None),
    "a momentum that is a tensor": lambda made, rng: setattr(made.folded.bn, "momentum", torch.tensor(0.25)),
    "epsilon": lambda made, rng: setattr(made.folded.bn, "eps", 0.03),
    "no epsilon": lambda made, rng: setattr(made.folded.bn, "eps", 0.0),
    "a constant that is a tensor": lambda made, rng: [
        setattr(each.activation_post_process, "averaging_constant", torch.tensor(0.5)) for each in quantizers(made)
    ],
    "strides of statistics": strided_statistics,
    "strides of a factor": strided_factor,
    "another dtype in the same place": other_dtype_in_place,
    "a factor in statistics": lambda made, rng: overlapping(made, "bn.running_var", "bn.weight"),
    "a range in scales": lambda made, rng: overlapping(
        made, "weight_fake_quant.activation_post_process.min_val", "weight_fake_quant.scale"
    ),
    "a norm of another kind": lambda made, rng: setattr(made.folded, "bn", nn.BatchNorm1d(6)),
    "stride": lambda made, rng: setattr(made.folded, "stride", (2, 1)),
    "padding": lambda made, rng: setattr(made.folded, "padding", (0, 1)),
    "a bias": lambda made, rng: setattr(made.folded, "bias", nn.Parameter(torch.linspace(-1, 1, 6))),
    "hooks of quantizers": hook_quantizers,
    "a hook of the norm": hook_norm,
    "a hook of gradients": hook_gradients,
    "another quantizer": other_quantizer,
    "other buffers": other_buffers,
    "another range": other_range,
    "a state loaded": load_state,
    "ranges forgotten": forget_ranges,
    "a method of its own": own_forward,
    "channels last": lambda made, rng: made.to(memory_format=torch.channels_last),
    "float64 and back": lambda made, rng: made.double().float(),
    "a weight that is NaN": lambda made, rng: made.folded.weight.data[1, 0, 0].fill_(torch.nan),
    "parametrized": lambda made, rng: parametrize.register_parametrization(made.folded, "weight", Half()),
    "a factor that is zero": lambda made, rng: made.folded.bn.weight.data[1:2].zero_(),
}

ALONE = {
    "statistics that want gradients": lambda made, rng: made.folded.bn.running_mean.requires_grad_(),
    "scales that want gradients": lambda made, rng: [each.scale.requires_grad_() for each in quantizers(made)],
    "ranges that want gradients": lambda made, rng: [
        each.activation_post_process.max_val.requires_grad_() for each in quantizers(made)
    ],
}
"""After which others are refused by torch."""


def outcome(made, x):
    """Take a step, and return all that is seen of it, or the error."""
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], 0.01)
    optimizer.zero_grad()
    x = x.clone().requires_grad_()
    try:
        out = made(x)
        out.square().sum().backward()
    except Exception as error:
        return [(type(error), str(error))]
    gradients = [p.grad.clone() for p in made.parameters() if p.grad is not None]
    optimizer.step()
    return [out.detach(), x.grad, *gradients, *copy.deepcopy(made.state_dict()).values()]


def alike(a, b):
    if not isinstance(a, torch.Tensor):
        return a == b
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(7, 8, 9), b.nan_to_num(7, 8, 9))


def run(names, seed, enabled):
    rng, made = np.random.default_rng(seed), network(seed)
    steps = []
    with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
        for name in ("nothing", "nothing", *names):
            (CHANGES | ALONE)[name](made, rng)
            for _ in range(2):
                steps.append((name, outcome(made, torch.from_numpy(np.float32(rng.standard_normal((4, 3, 5, 6)))))))
    return steps


@pytest.mark.parametrize("name", [*CHANGES, *ALONE])
def test_what_is_done_to_a_module_counts(served, name):
    wanted = run([name], 0, enabled=False)
    assert not served
    got = run([name], 0, enabled=True)
    assert {"quantize", "fold"} == set(served)
    compare(got, wanted)


@pytest.mark.parametrize("seed", range(12))
def test_and_so_does_all_that_is_done_one_after_another(served, seed):
    names = np.random.default_rng(seed).choice([*CHANGES], 6)
    compare(run(names, seed, enabled=True), run(names, seed, enabled=False))
    assert "fold" in served


def compare(got, wanted):
    for (name, found), (_, expected) in zip(got, wanted, strict=True):
        assert len(found) == len(expected), name
        assert all(map(alike, found, expected)), name


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("folds", [False, True])
def test_a_new_thread_has_torchs_number_of_threads_afterwards(enabled, folds):
    """By which torch's convolutions divide their sums."""
    path, why_not = threads._libgomp()
    if not path:
        pytest.skip(why_not)
    most = ctypes.CDLL(path).omp_get_max_threads
    module = network(0).folded if folds else get_default_qat_qconfig("x86").activation()
    x = torch.randn(4, 3, 5, 6)

    def most_after(step):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: (step(), most())[1]).result()

    wanted = 1 if most_after(lambda: None) != 1 else 2
    torch.set_num_threads(wanted)
    with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
        module(x), module(x)
        assert most_after(lambda: module(x)) == wanted


def test_an_epsilon_that_is_a_tensor(served):
    """And equals the number that it replaces, but not where it becomes a number again."""

    def steps(enabled):
        module, x = network(2).folded, torch.randn(8, 3, 9, 9, generator=torch.Generator().manual_seed(1)) / 1000
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            module(x), module(x)
            module.bn.eps = torch.tensor(module.bn.eps)
            return [module(x).detach(), *module.state_dict().values()]

    assert all(map(alike, steps(True), steps(False)))
    assert served.count("fold") == 1


def test_a_hook_on_all_modules_is_called_as_often(served):
    def calls(enabled):
        made, seen, x = network(1), [], torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            made(x), made(x)
            hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
            try:
                made(x)
            finally:
                hook.remove()
        return seen

    assert calls(True) == calls(False)
    assert "fold" in served


@pytest.mark.parametrize("kind", [nn.modules.batchnorm._BatchNorm, nn.BatchNorm2d])
def test_who_replaced_a_method_of_the_norm_is_called(served, monkeypatch, kind):
    made, x = network(1), torch.randn(4, 3, 5, 6)
    inner, seen = kind.forward, []
    with fq_tvm.torch.enabled():
        made(x), made(x)
        assert "fold" in served
        monkeypatch.setattr(kind, "forward", lambda *args: seen.append(0) or inner(*args))
        made(x)
    assert seen


@pytest.mark.parametrize(
    "loss",
    [
        lambda m, x: m(x).sin().sum() + m.bn.weight.pow(2).sum() * 0.37,
        lambda m, x: m.bn.weight.pow(2).sum() * 0.37 + m(x).sin().sum(),
        lambda m, x: (m(x) * m(x * 2)).sum(),
    ],
)
def test_a_factor_that_has_other_gradients_too(served, loss):
    """Sums of three and more are in torch's order."""

    def gradients(enabled):
        module, x = network(2).folded, torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            module(x), module(x)
            loss(module, x).backward()
        return [p.grad for p in module.parameters()]

    assert all(map(torch.equal, gradients(True), gradients(False)))
    assert "fold" in served


@pytest.mark.parametrize("what", ["weight", "bn.running_var", "bn.weight"])
@pytest.mark.parametrize("how", ["replaced", "in place", "another dtype", "other strides", "as one element"])
def test_what_changes_between_forward_and_backward(served, what, how):
    def outcome(enabled):
        module, x = network(2).folded, torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            module(x), module(x)
            out = module(x).sin().sum()
            tensor = module.state_dict(keep_vars=True)[what]
            if how == "replaced":
                tensor.data = torch.ones_like(tensor)
            elif how == "another dtype":
                tensor.data = tensor.data.double()
            elif how == "other strides":
                tensor.data = torch.stack([tensor.data, tensor.data * 3], -1)[..., 0]
            elif how == "as one element":
                tensor.data = tensor.data.flatten()[0].expand(tensor.shape)
            else:
                with torch.no_grad():
                    tensor.mul_(2)
            try:
                out.backward()
            except RuntimeError as error:
                return [str(error).partition(":")[0]]
        return [p.grad for p in module.parameters()]

    got, wanted = outcome(True), outcome(False)
    assert len(got) == len(wanted) and all(map(alike, got, wanted))
    assert "fold" in served


@pytest.mark.parametrize("shape", [(0, 3, 5, 6), (4, 4, 5, 6), (4, 3, 1, 1, 1), (3, 5, 6)])
def test_inputs_that_are_unusual(shape):
    """The same results, or the same error and as much done before it."""

    def outcome(enabled):
        module = qat.ConvBn2d(3, 6, 3, bias=False, padding=1, qconfig=get_default_qat_qconfig("x86")).train()
        with torch.no_grad():
            module.weight.copy_(torch.linspace(-1, 1, module.weight.numel()).reshape(module.weight.shape))
            module.bn.weight.fill_(0.5)
        x = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            module(x), module(x)
            try:
                seen = [module(torch.ones(shape)).detach()]
            except Exception as error:
                seen = [type(error)]
        return [*seen, *module.state_dict().values()]

    assert all(map(alike, outcome(True), outcome(False)))


def test_autocast_that_comes_and_goes(served):
    """As what a convolution gives is of another dtype there."""

    def steps(enabled):
        made, seen = network(0), []
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            for i, cast in enumerate((False, False, True, True, False)):
                with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                    seen += outcome(made, torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(i)))
        return seen

    wanted, got = steps(False), steps(True)
    assert len(got) == len(wanted) and all(map(alike, got, wanted))
    assert served.count("fold") == 2


STRIDED = {
    "transposed": lambda x: x.t(),
    "every other": lambda x: x[:, ::2],
    "expanded": lambda x: x[:, :1].expand(-1, 5),
    "overlapping": lambda x: x.as_strided((5, 5), (3, 1)),
    "eight dimensions": lambda x: x.as_strided((2,) * 8, (100, 43, 20, 9, 5, 4, 2, 1)),
    "no dimension": lambda x: x[0, 0],
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("strided", STRIDED)
def test_tensors_in_other_orders(served, strided, per_channel):
    x = STRIDED[strided](torch.randn(13, 17, generator=torch.Generator().manual_seed(0)))

    def steps(enabled):
        config = get_default_qat_qconfig("x86")
        module = (config.weight if per_channel and x.dim() else config.activation)()
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            return [each for _ in range(3) for each in (module(x), *copy.deepcopy(module.state_dict()).values())]

    wanted, got = steps(False), steps(True)
    assert all(map(alike, got, wanted))
    assert all(a.stride() == b.stride() for a, b in zip(got, wanted, strict=True))
    assert len(served) >= 2


def test_more_shapes_than_are_remembered(served, monkeypatch):
    """The next are launched at once, and after many of them others are remembered in the place of the first."""
    monkeypatch.setattr(quantizing, "MOST_SHAPES", 3)
    monkeypatch.setattr(quantizing, "PATIENCE", 6)
    lengths = np.random.default_rng(0).integers(1, 9, 60)

    def steps(enabled):
        module, seen, known = get_default_qat_qconfig("x86").activation(), [], []
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            for i, n in enumerate(lengths.tolist()):
                seen.append(module(torch.linspace(-i, n, 3 * n).reshape(3, n)))
                known.append({*quantizing._seen[module]._launches} if enabled else {})
        return [*seen, *module.state_dict().values()], known

    (wanted, _), (got, known) = steps(False), steps(True)
    assert all(map(alike, got, wanted))
    assert len(served) == len(lengths)
    assert max(map(len, known)) == 3 < len(set.union(*known))


def test_gradients_enabled_in_inference_mode(served):
    """Which nobody records."""

    def steps(enabled):
        made, seen = network(0), []
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            for i in range(4):
                x = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(i), requires_grad=True)
                with torch.inference_mode(i in (1, 3)), torch.enable_grad():
                    found = [made.folded(x), made.pair[0].activation_post_process(x)]
                    seen += [each.requires_grad for each in found]
                    seen += [each.detach().clone() for each in (*found, *made.state_dict().values())]
        return seen

    wanted, got = steps(False), steps(True)
    assert len(got) == len(wanted) and all(map(alike, got, wanted))
    assert "fold" in served


@pytest.mark.parametrize("what", ["everything", "statistics"])
def test_tensors_made_in_inference_mode(what):
    """The same error, before as much is written."""

    def outcome(enabled):
        with torch.inference_mode(what == "everything"):
            module, x = network(2).folded, torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            with torch.inference_mode(what == "everything"):
                module(x), module(x)
            if what == "statistics":
                with torch.inference_mode():
                    module.bn.running_mean = module.bn.running_mean.clone()
            seen = []
            for _ in range(2):
                with pytest.raises(RuntimeError) as error:
                    module(torch.ones_like(x))
                seen += [str(error.value), *(buffer.clone() for buffer in module.buffers())]
        return seen

    assert all(map(alike, outcome(True), outcome(False)))


def test_tensors_that_stand_in_for_parameters_are_not_kept():
    module, x = network(2).folded, torch.randn(4, 3, 5, 6)
    with fq_tvm.torch.enabled():
        module(x), module(x)
        large = torch.ones(3, requires_grad=True) * 2
        gone = weakref.ref(large)
        given = {name: value * large.sum() for name, value in module.named_parameters()}
        torch.func.functional_call(module, given, (x,))
        del large, given
        gc.collect()
        assert gone() is None


def test_a_module_that_is_gone_is_forgotten():
    made, x = network(0), torch.randn(4, 3, 5, 6)
    with fq_tvm.torch.enabled():
        for _ in range(3):
            made(x).sum().backward()
    gone = [weakref.ref(each) for each in (made.folded, made.folded.weight_fake_quant, made.folded.weight)]
    assert made.folded in folding._foldings
    del made
    gc.collect()
    assert not any(each() is not None for each in gone)


def test_memory_of_a_step_is_given_back_though_the_loss_is_kept():
    made, x = network(0), torch.randn(4, 3, 5, 6)
    with fq_tvm.torch.enabled():
        made(x), made(x)
        loss = made(x).sum()
        node, found = loss.grad_fn, []
        while node is not None and not found:
            found = [n for n, _ in node.next_functions if n is not None and n.name().startswith("Convolution")]
            node = next((n for n, _ in node.next_functions if n is not None), None)
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()


def test_double_backward():
    """As near to what float64 gives as torch's own."""

    def penalty(enabled, dtype=torch.float32):
        torch.manual_seed(0)
        module = qat.ConvBn2d(3, 6, 3, bias=False, qconfig=get_default_qat_qconfig("x86")).train()
        x = torch.randn(4, 3, 8, 8)
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            module(x), module(x)
            module.apply(torch.ao.quantization.disable_observer)
            if dtype == torch.float64:
                module.weight_fake_quant = Exact(module.weight_fake_quant)
            module = module.to(dtype)
            x = x.to(dtype).requires_grad_()
            out = module(x)
            wanted = (x, module.weight, module.bn.weight, module.bn.bias)
            gradients = torch.autograd.grad(out.pow(3).sum(), wanted, create_graph=True)
            sum(g.square().sum() for g in gradients).backward()
        return [x.grad, *(p.grad for p in module.parameters())]

    exact, stock, ours = penalty(False, torch.float64), penalty(False), penalty(True)
    assert len(exact) == len(stock) == len(ours) == 4
    for truth, wanted, got in zip(exact, stock, ours, strict=True):
        assert (got - truth).abs().max() <= 4 * (wanted - truth).abs().max() + 1e-6 * truth.abs().max()


@pytest.mark.parametrize(
    "convolution",
    [
        "1d", "2d", "3d", "groups", "dilation", "one weight a channel", "one element an image"
    ],
)  # fmt: skip
def test_steps_of_every_kind_of_convolution(served, convolution):
    config = get_default_qat_qconfig("x86")

    def made():
        torch.manual_seed(0)
        if convolution in ("1d", "3d"):
            kind, dimensions = (qat.ConvBn1d, 1) if convolution == "1d" else (qat.ConvBn3d, 3)
            return kind(4, 8, 3, bias=False, qconfig=config).train(), (5, 4, *[7] * dimensions)
        more = {"groups": {"groups": 4}, "dilation": {"dilation": 2}, "one weight a channel": {"groups": 4}}
        more, size = more.get(convolution, {}), 1 if convolution.startswith("one weight") else 3
        return qat.ConvBn2d(4, 8, size, bias=False, qconfig=config, **more).train(), (
            (5, 4, 3, 3) if convolution.startswith("one element") else (5, 4, 9, 8)
        )

    def steps(enabled):
        module, shape = made()
        with fq_tvm.torch.enabled() if enabled else contextlib.nullcontext():
            return [outcome(module, torch.randn(shape, generator=torch.Generator().manual_seed(i))) for i in range(4)]

    for got, wanted in zip(steps(True), steps(False), strict=True):
        assert len(got) == len(wanted) > 1 and all(map(alike, got, wanted))
    assert served.count("fold") == 3


def test_one_value_of_a_channel_is_refused_as_by_torch(served):
    module = qat.ConvBn2d(4, 8, 3, bias=False, qconfig=get_default_qat_qconfig("x86")).train()
    with fq_tvm.torch.enabled():
        module(torch.randn(4, 4, 5, 5)), module(torch.randn(4, 4, 5, 5))
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            module(torch.randn(1, 4, 3, 3))
    assert served.count("fold") == 2


def test_whether_norms_agree_does_not_depend_on_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        assert folding.norm_agrees.__wrapped__()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("missing", ["prepare", "norm", "gradient", "sequence"])
def test_a_library_without_the_kernels_leaves_it_to_torch(served, monkeypatch, request, missing):
    from fq_tvm import BuildError, CacheMissError
    from fq_tvm.launch import sequence
    from fq_tvm.torch import quotient

    wanted = run(["nothing"], 3, enabled=False)
    registry.launches.clear()
    request.addfinalizer(registry.launches.clear)  # where it is remembered that there is none
    if missing in ("norm", "gradient"):
        name = "norm_agrees" if missing == "norm" else "norm_gradient_agrees"
        monkeypatch.setattr(folding, name, lambda: False)
    elif missing == "sequence":
        tried = []

        def refused():
            tried.append(1)
            raise BuildError("there is no code for this CPU")

        monkeypatch.setattr(sequence, "_function", refused)
    else:

        def none(*_, **__):
            raise CacheMissError("there is none")

        monkeypatch.setattr(quotient, "prepare", none)
    compare(run(["nothing"], 3, enabled=True), wanted)
    assert ("fold" in served) == (missing in ("norm", "gradient"))
    if missing == "sequence":
        assert "quantize" not in served
        assert len(tried) <= len(list(network(0).modules())), "it is tried once for each module and shape"

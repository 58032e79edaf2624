"""The operator for torch and enable(): the bits, gradients and errors of torch's own kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from support import count_served, expected, make

import fq_tvm.torch
from fq_tvm import ArgumentError
from fq_tvm.torch import find, override, quantizing, results

ATEN = torch.ops.aten
OPERATOR = torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask
RANGES = [(-128, 127), (0, 255), (-8, 7), (-(2**15), 2**15 - 1), (-(2**23), 2**23), (-(2**31), 2**31 - 1)]
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "channels_last_3d": lambda x: x.reshape(4, 6, 5, 3, 4).contiguous(memory_format=torch.channels_last_3d),
    "transposed": lambda x: x.transpose(0, 1),
    "stepped": lambda x: x[..., ::2],
    "expanded": lambda x: x[:, :, :1].expand(-1, -1, 7, -1),
}


@pytest.fixture
def launches(monkeypatch):
    """Count the calls that a kernel of this library serves."""
    seen = []
    count_served(monkeypatch, seen, (find, "fake_quantize", 1), (quantizing, "quantize", 1))
    return seen


def tensors(axis=1, dtype=torch.float32, layout="contiguous", quant_range=(-128, 127), seed=3):
    """Ties, NaN, signed zeros and values out of range, less what overflows an int64 in torch."""
    rng = np.random.default_rng(seed)
    x = LAYOUTS[layout](torch.from_numpy(make(rng, (4, 6, 5, 12), 1, quant_range=quant_range)[0]).to(dtype))
    _, scale, zero_point = make(rng, x.shape, axis, quant_range=quant_range, specials=False)
    x = torch.where(x.abs().double() < 1e15, x, torch.where(x.isnan(), x, torch.full_like(x, 0.5)))
    x = LAYOUTS[layout](x) if layout.startswith("channels_last") else x
    return x, torch.from_numpy(scale), torch.from_numpy(zero_point)


def assert_equal_bits(got, want):
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        integer = {2: torch.int16, 4: torch.int32, 8: torch.int64, 1: torch.uint8}[a.element_size()]
        assert torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))


@pytest.mark.parametrize("quant_range", RANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_enabled_gives_the_bits_of_torch(launches, layout, dtype, quant_range):
    for axis in (0, 1, 3):
        check_enabled(launches, axis, layout, dtype, quant_range)


def check_enabled(launches, axis, layout, dtype, quant_range):
    x, scale, zero_point = tensors(axis, dtype, layout, quant_range)
    value, zero = scale[0].item(), zero_point[0].item()
    calls = (
        lambda: ATEN.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, *quant_range),
        lambda: ATEN.fake_quantize_per_tensor_affine_cachemask(x, value, zero, *quant_range),
        lambda: ATEN._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
            x, scale[:1], zero_point[:1], torch.ones(1, dtype=torch.int64), *quant_range
        ),
    )
    stock = [call() for call in calls]
    launches.clear()
    with fq_tvm.torch.enabled():
        for call, want in zip(calls, stock, strict=True):
            assert_equal_bits(call(), want)
    narrow = max(map(abs, quant_range)) <= 2**23
    assert len(launches) == (0 if dtype == torch.float64 else 3 if narrow else 1)


def test_gradients():
    x, scale, zero_point = tensors()
    weight = torch.randn_like(x)

    def gradient(call):
        leaf = x.clone().requires_grad_()
        (call(leaf) * weight).sum().backward()
        return leaf.grad

    def torchs(t):
        return torch.fake_quantize_per_channel_affine(t, scale, zero_point, 1, -128, 127)

    want = gradient(torchs)
    assert_equal_bits(
        [gradient(lambda t: fq_tvm.torch.fake_quantize_per_channel_affine(t, scale, zero_point, 1, -128, 127))], [want]
    )
    with fq_tvm.torch.enabled():
        assert_equal_bits([gradient(torchs)], [want])


def differentiate_twice(call):
    leaf = tensors()[0].requires_grad_()
    (first,) = torch.autograd.grad(call(leaf).square().nansum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().nansum(), leaf)
    return first, second


def test_double_backward():
    _, scale, zero_point = tensors()

    def torchs(t):
        return torch.fake_quantize_per_channel_affine(t, scale, zero_point, 1, -128, 127)

    want = differentiate_twice(torchs)
    assert want[1].count_nonzero()
    assert_equal_bits(
        differentiate_twice(
            lambda t: fq_tvm.torch.fake_quantize_per_channel_affine(t, scale, zero_point, 1, -128, 127)
        ),
        want,
    )
    with fq_tvm.torch.enabled():
        assert_equal_bits(differentiate_twice(torchs), want)


@pytest.mark.parametrize("per_channel", [False, True])
def test_learnable(launches, per_channel):
    def run():
        x, scale, zero_point = tensors()
        if not per_channel:
            scale, zero_point = scale[:1], zero_point[:1]
        leaves = [t.clone().requires_grad_() for t in (x, scale, zero_point.float())]
        if per_channel:
            out = torch._fake_quantize_learnable_per_channel_affine(*leaves, 1, -128, 127, 0.5)
        else:
            out = torch._fake_quantize_learnable_per_tensor_affine(*leaves, -128, 127, 0.5)
        out.square().nansum().backward()
        return out.detach(), *(leaf.grad for leaf in leaves)

    want = run()
    assert not launches
    with fq_tvm.torch.enabled():
        assert_equal_bits(run(), want)
    assert launches


@pytest.mark.parametrize("name", override.REPLACED)
def test_out_overloads(launches, name):
    x, scale, zero_point = tensors()
    parameters = {
        "fake_quantize_per_channel_affine_cachemask": (scale, zero_point, 1),
        "fake_quantize_per_tensor_affine_cachemask": (0.5, 3),
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": (
            scale[:1], zero_point[:1], torch.ones(1, dtype=torch.int64)
        ),
    }  # fmt: skip
    operator = getattr(ATEN, name)
    want = operator(x, *parameters[name], -128, 127)
    outputs = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    with fq_tvm.torch.enabled():
        operator.out(x, *parameters[name], -128, 127, out0=outputs[0], out1=outputs[1])
    assert_equal_bits(outputs, want)
    assert launches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.02, -0.5, 1e-30, 1e-45, 1e30, float("inf"), float("nan"), 0.0, -0.0])
def test_extremes_per_tensor(launches, scale, dtype):
    x = tensors()[0].contiguous()
    extremes = [float("inf"), -float("inf"), float("nan"), 1e30, -1e30, 3e38, -3e38, -0.0, 1e-45]
    x.view(-1)[: len(extremes)] = torch.tensor(extremes)
    x = x.to(dtype)
    one, zero, use = torch.tensor([scale]), torch.tensor([5], dtype=torch.int32), torch.ones(1, dtype=torch.int64)
    calls = (
        lambda: ATEN.fake_quantize_per_tensor_affine_cachemask(x, scale, 5, -128, 127),
        lambda: ATEN._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(x, one, zero, use, -128, 127),
    )
    for call in calls:
        want = call()
        with fq_tvm.torch.enabled():
            got = call()
        if dtype == torch.bfloat16:  # of a NaN only the sign may differ
            got, want = ([t[0].where(~t[0].isnan(), torch.nan), t[1]] for t in (got, want))
        assert_equal_bits(got, want)
    assert launches


@pytest.mark.parametrize("low", [-(2**63), -(2**63) + 1])
def test_the_least_quant_min_is_served_by_torch(launches, low):
    x, scale, zero_point = tensors()
    if low == -(2**63):
        x[0, 0, 0, :3] = torch.tensor([float("inf"), -float("inf"), 1e30])
    arguments = (x, scale, zero_point, 1, low, 2**63 - 1)
    want = ATEN.fake_quantize_per_channel_affine_cachemask(*arguments)
    with fq_tvm.torch.enabled():
        assert_equal_bits(ATEN.fake_quantize_per_channel_affine_cachemask(*arguments), want)
    assert len(launches) == (low != -(2**63))


def test_small_tensors_are_served_by_torch_per_tensor(launches):
    small = override.PER_TENSOR_MIN_ELEMENTS
    one, zero = torch.tensor([0.5]), torch.zeros(1, dtype=torch.int32)
    for size in (small - 1, small):
        x = torch.linspace(-100, 100, size)
        launches.clear()
        for parameters in ((0.5, 0), (one, zero)):
            want = torch.fake_quantize_per_tensor_affine(x, *parameters, -128, 127)
            with fq_tvm.torch.enabled():
                assert_equal_bits([torch.fake_quantize_per_tensor_affine(x, *parameters, -128, 127)], [want])
        assert len(launches) == (0 if size < small else 2)


X, S, Z = torch.randn(4, 3), torch.ones(3), torch.zeros(3, dtype=torch.int32)
BAD = [
    (X, S.double(), Z, 1, -128, 127),
    (X, S.half(), Z, 1, -128, 127),
    (X, S, Z.long(), 1, -128, 127),
    (X, S[None], Z, 1, -128, 127),
    (X, S, Z[None], 1, -128, 127),
    (X, S[:2], Z, 1, -128, 127),
    (X, S, Z, 0, -128, 127),
    (X, S, Z, 2, -128, 127),
    (X, S, Z, -1, -128, 127),
    (X, S, Z, 1, 127, -128),
    (X, S, Z, 1, 1, 127),
    (X, S, Z + 200, 1, -128, 127),
    (X[0, 0], S[:1], Z[:1], 0, -128, 127),
    (X.int(), S, Z, 1, -128, 127),
    (X.to_sparse(), S, Z, 1, -128, 127),
    (X.to("meta"), S, Z, 1, -128, 127),
    (X, S[:0], Z[:0], 1, -128, 127),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_enabled_raises_the_errors_of_torch(case):
    def outcome():
        try:
            ATEN.fake_quantize_per_channel_affine_cachemask(*BAD[case])
        except Exception as error:
            # where no kernel fits the message goes on to list those that are registered, ours among them
            return type(error), str(error).partition("CPU: registered at")[0]
        return None

    want = outcome()
    with fq_tvm.torch.enabled():
        assert outcome() == want


def test_enabled_nests_and_restores():
    run_alone(
        """
        from fq_tvm.torch.override import BACKWARD, LEARNED, OBSERVING, REPLACED

        def dumps():
            names = (*REPLACED, *BACKWARD, *LEARNED, OBSERVING)
            return [torch._C._dispatch_dump(f"aten::{name}") for name in names]

        stock = dumps()
        with fq_tvm.torch.enabled():
            ours = dumps()
            with fq_tvm.torch.enabled():
                pass
            assert dumps() == ours
        assert all(a != b for a, b in zip(ours, stock, strict=True))
        assert dumps() == stock
        fq_tvm.torch.disable()
        assert dumps() == stock
        """
    )


def test_threads_enable_and_disable_while_others_quantize():
    run_alone(
        """
        import random, threading, time

        x = torch.randn(4, 64, 33)
        scale, zero_point = torch.rand(64) + 0.1, torch.zeros(64, dtype=torch.int32)
        quantize = lambda: torch.fake_quantize_per_channel_affine(x, scale, zero_point, 1, -8, 7)
        want, faults, end = quantize(), [], time.monotonic() + 1.5

        def work(seed):
            chance = random.Random(seed)
            while time.monotonic() < end:
                if chance.random() < 0.5:
                    with fq_tvm.torch.enabled():
                        results = [quantize() for _ in range(chance.randrange(4))]
                else:
                    results = [quantize()]
                faults.extend(r for r in results if not torch.equal(r, want))

        dump = lambda: torch._C._dispatch_dump("aten::fake_quantize_per_channel_affine_cachemask")
        stock = dump()
        with fq_tvm.torch.enabled():
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.2)
        for thread in threads:
            thread.join()
        assert not faults
        assert fq_tvm.torch.override._depth == 0
        fq_tvm.torch.disable()
        assert dump() == stock
        """
    )


def run_alone(code):
    """Run code in a process of its own, which has no other threads of Python and may crash."""
    done = subprocess.run(
        [sys.executable, "-c", "import torch, fq_tvm.torch\n" + textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_enabled_from_many_threads():
    x, scale, zero_point = tensors()
    want = ATEN.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, 1, -128, 127)
    faults = []

    def work():
        try:
            with fq_tvm.torch.enabled():
                for _ in range(50):
                    assert_equal_bits(
                        ATEN.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, 1, -128, 127), want
                    )
        except BaseException as error:
            faults.append(error)

    with fq_tvm.torch.enabled():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_modules_of_torch(launches, per_channel, fused):
    from torch.ao.quantization import fake_quantize, observer

    observers = {
        (False, False): observer.MinMaxObserver,
        (True, False): observer.PerChannelMinMaxObserver,
        (False, True): observer.MovingAverageMinMaxObserver,
        (True, True): observer.MovingAveragePerChannelMinMaxObserver,
    }
    kind = fake_quantize.FusedMovingAvgObsFakeQuantize if fused else fake_quantize.FakeQuantize
    scheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_affine

    def run():
        module = kind(observers[per_channel, fused], quant_min=-128, quant_max=127, dtype=torch.qint8, qscheme=scheme)
        x = torch.randn(6, 400, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = module(x)
        out.square().sum().backward()
        return out.detach(), x.grad

    want = run()
    with fq_tvm.torch.enabled():
        assert_equal_bits(run(), want)
    assert launches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_operator(layout, dtype):
    x, scale, zero_point = tensors(dtype=dtype, layout=layout)
    for axis, s, z in (
        (1, scale, zero_point),
        (None, scale[:1], zero_point[:1]),
        (1, scale, zero_point.float() + 0.25),
    ):
        out, mask = OPERATOR(x, s, z, axis, -128, 127)
        assert out.stride() == mask.stride() == torch.empty_like(x).stride()
        want, want_mask = expected(x.float().numpy(), s.numpy(), z.numpy(), axis, -128, 127)
        want = torch.from_numpy(want).to(dtype)
        assert_equal_bits(
            [out.contiguous(), mask.contiguous()], [want.contiguous(), torch.from_numpy(want_mask).contiguous()]
        )


@pytest.mark.parametrize("axis", [1, -1, None])
def test_opcheck(axis):
    x, scale, zero_point = tensors(1 if axis == 1 else 3)
    if axis is None:
        scale, zero_point = scale[0], zero_point[0]
    for leaf in (x, x.clone().requires_grad_()):
        torch.library.opcheck(OPERATOR.default, (leaf, scale, zero_point, axis, -128, 127))


@pytest.mark.parametrize("case", [0, 2, 3, 5, 6, 7, 9, 13])
def test_traced_errors_are_those_of_a_call(case):
    x, scale, zero_point, *rest = BAD[case]
    with pytest.raises(ArgumentError) as real:
        OPERATOR(x, scale, zero_point, *rest)
    with pytest.raises(ArgumentError) as traced:
        OPERATOR(*(t.to("meta") for t in (x, scale, zero_point)), *rest)
    assert str(real.value) == str(traced.value)


def test_export_with_a_dynamic_batch():
    class Model(torch.nn.Module):
        def forward(self, x, scale, zero_point):
            return fq_tvm.torch.fake_quantize_per_channel_affine(x, scale, zero_point, 1, -128, 127)

    x, scale, zero_point = tensors()
    batch = {"x": {0: torch.export.Dim("batch")}, "scale": None, "zero_point": None}
    program = torch.export.export(Model(), (x, scale, zero_point), dynamic_shapes=batch)
    for n in (2, 3):
        assert_equal_bits([program.module()(x[:n], scale, zero_point)], [Model()(x[:n], scale, zero_point)])


def test_compile_traces_through():
    x, scale, zero_point = tensors()

    def model(t):
        return fq_tvm.torch.fake_quantize_per_channel_affine(t, scale, zero_point, 1, -128, 127)

    assert_equal_bits([torch.compile(model, backend="aot_eager", fullgraph=True)(x)], [model(x)])


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_inductor(launches, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x, scale, zero_point = tensors()

    def model(t):
        torchs = torch.fake_quantize_per_channel_affine(t * 2, scale, zero_point, 1, -128, 127) + 1
        return torchs, fq_tvm.torch.fake_quantize_per_channel_affine(t * 2, scale, zero_point, 1, -128, 127) + 1

    want = model(x)
    with fq_tvm.torch.enabled():
        # for one kernel: no compiled tests of the instruction set, no precompiled headers, no processes to compile in
        options = {"cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False, "compile_threads": 1}
        compiled = torch.compile(model, fullgraph=True, options=options)
        compiled(x)
        launches.clear()
        assert_equal_bits(compiled(x), want)
    assert len(launches) == 1


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_vmap(axis):
    x, _, _ = tensors()
    scale = torch.rand(x.movedim(1, 0)[0].shape[axis]) + 0.1
    zero_point = torch.zeros(len(scale), dtype=torch.int32)
    got, _ = torch.func.vmap(lambda t: OPERATOR(t, scale, zero_point, axis, -128, 127), in_dims=1)(x)
    want = torch.stack([OPERATOR(t, scale, zero_point, axis, -128, 127)[0] for t in x.unbind(1)])
    assert torch.equal(got.nan_to_num(), want.nan_to_num())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_forked_child():
    code = """
import os, sys, numpy as np, torch, fq_tvm.torch
torch.set_num_threads(1)  # OpenMP's threads, which torch's own kernels use, do not survive a fork
def call(seed):
    x = torch.randn(64, 128, 256, generator=torch.Generator().manual_seed(seed))
    out, mask = torch.ops.aten.fake_quantize_per_channel_affine_cachemask(
        x, torch.full((128,), 0.02), torch.arange(128, dtype=torch.int32), 1, -128, 127)
    return out.numpy().tobytes() + mask.numpy().tobytes()
want = [call(seed) for seed in range(3)]
with fq_tvm.torch.enabled():
    assert call(0) == want[0]
    child = os.fork()
    if not child:
        os._exit(0 if [call(1), call(2)] == want[1:] else 3)
    _, status = os.waitpid(child, 0)
    assert call(1) == want[1]
sys.exit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_does_not_touch_large_results():
    code = """
import os, torch, fq_tvm.torch
torch.set_num_threads(1)
s, z = torch.full((4,), .01), torch.zeros(4, dtype=torch.int32)
x = torch.linspace(-1, 1, 2**20).reshape(4, -1)
fq = lambda x: fq_tvm.torch.fake_quantize_per_channel_affine(x, s, z, 0, -128, 127)
out = fq(x)
before = out.clone()
child = os.fork()
if not child:
    out.zero_()
    out = fq(x + .5)
    out = fq(x * .1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(out, before)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("which", [1, 2])
def test_parameters_without_memory_are_refused(which):
    arguments = list(tensors())
    arguments[which] = arguments[which].to("meta")
    with pytest.raises(NotImplementedError, match=r"is on meta and x on cpu"):
        OPERATOR(*arguments, 1, -128, 127)


def test_forward_mode_is_refused():
    """It was a tangent of zero, silently."""
    x, scale, zero_point = tensors()
    forward_ad = torch.autograd.forward_ad

    def call(t):
        return 3 * fq_tvm.torch.fake_quantize_per_channel_affine(t, scale, zero_point, 1, -128, 127)

    with pytest.raises(NotImplementedError, match="no forward mode derivative"):
        torch.func.jvp(call, (x,), (torch.ones_like(x),))
    with pytest.raises(NotImplementedError, match="no forward mode derivative"):
        torch.func.jacfwd(lambda t: call(t.reshape(x.shape)))(x.reshape(-1))
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="no forward mode derivative"):
            call(forward_ad.make_dual(x, torch.ones_like(x)))
        assert_equal_bits([call(x)], [call(x.clone())])


def test_import_registers_only_when_asked():
    code = (
        "import sys, fq_tvm\nassert 'torch' not in sys.modules\n"
        "import fq_tvm.torch, torch\nassert sys.modules['torch'] is torch is not fq_tvm.torch\n"
        "assert torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_results_lie_in_memory_that_is_used_again(memory_format, dtype):
    x = (torch.randn(4, 64, 64, 80) * 3).to(dtype).contiguous(memory_format=memory_format)
    assert x.numel() >= results.POOLED_ELEMENTS
    scale, zero_point = torch.rand(64) + 0.1, torch.randint(-5, 5, (64,), dtype=torch.int32)
    cachemask = torch.ops.aten.fake_quantize_per_channel_affine_cachemask
    stock = cachemask(x, scale, zero_point, 1, -8, 7)
    leaf = x.clone().requires_grad_()
    with fq_tvm.torch.enabled():
        outputs = cachemask(x, scale, zero_point, 1, -8, 7)
        out = torch.fake_quantize_per_channel_affine(leaf, scale, zero_point, 1, -8, 7)
        places = {t.data_ptr() for t in outputs}
        for ours, theirs in zip(outputs, stock, strict=True):
            assert torch.equal(ours, theirs) and ours.stride() == theirs.stride() and ours.dtype == theirs.dtype
            assert ours.untyped_storage().nbytes() == theirs.untyped_storage().nbytes()
        assert out.data_ptr() not in places
        out.sum().backward()  # with the mask that was kept since
        assert torch.equal(leaf.grad, stock[1].to(dtype))
        del outputs, ours
        again = cachemask(x * 2, scale, zero_point, 1, -8, 7)
        assert {t.data_ptr() for t in again} == places
    assert results.pool.kept == 0
    operator = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask
    outputs = operator(x, scale, zero_point, 1, -8, 7)
    for ours, theirs in zip(outputs, stock, strict=True):
        assert torch.equal(ours, theirs) and ours.stride() == theirs.stride() and ours.dtype == theirs.dtype
    place = outputs[0].data_ptr()
    del outputs, ours
    assert operator(x, scale, zero_point, 1, -8, 7)[0].data_ptr() == place
    fq_tvm.torch.disable()
    assert results.pool.kept == 0

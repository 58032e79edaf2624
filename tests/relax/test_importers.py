"""Programs of torch.export and ONNX become Relax modules with the operator."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from relax_modules import OP, run, target
from support import assert_same, bits, make
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers quantized_decomposed
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

import fq_tvm
import fq_tvm.relax
import fq_tvm.torch


def imported(module, *args, dynamic=None):
    program = torch.export.export(module.eval(), args, dynamic_shapes=dynamic)
    return from_exported_program(program, custom_convert_map=fq_tvm.relax.torch_convert_map())


class Calls(torch.nn.Module):
    def __init__(self, call, scale, zero_point):
        super().__init__()
        self.call = call
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("zero_point", torch.from_numpy(zero_point))

    def forward(self, x):
        return self.call(x, self.scale, self.zero_point)


aten, decomposed = torch.ops.aten, torch.ops.quantized_decomposed


def decomposed_per_channel(x, s, z):
    q = decomposed.quantize_per_channel(x, s, z, 1, -128, 127, torch.int8)
    return decomposed.dequantize_per_channel(q, s, z, 1, -128, 127, torch.int8)


def decomposed_per_tensor(x, s, z):
    q = decomposed.quantize_per_tensor(x, 0.25, 3, -128, 127, torch.int8)
    return decomposed.dequantize_per_tensor(q, 0.25, 3, -128, 127, torch.int8)


def decomposed_tensor(x, s, z):
    limits = s[0], z[0], -128, 127, torch.int8
    return decomposed.dequantize_per_tensor.tensor(decomposed.quantize_per_tensor.tensor(x, *limits), *limits)


def decomposed_tensor2(x, s, z):
    limits = s[0], z[0], torch.tensor(-128), torch.tensor(127), torch.int8
    return decomposed.dequantize_per_tensor.tensor2(decomposed.quantize_per_tensor.tensor2(x, *limits), *limits)


FORMS = {
    "per_channel": lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 1, -128, 127),
    "per_channel_cachemask": lambda x, s, z: aten.fake_quantize_per_channel_affine_cachemask(x, s, z, 1, -128, 127),
    "per_tensor": lambda x, s, z: torch.fake_quantize_per_tensor_affine(x, 0.3, 3, -128, 127),
    "per_tensor_tensors": lambda x, s, z: torch.fake_quantize_per_tensor_affine(x, s[0], z[0], -128, 127),
    "decomposed_per_channel": decomposed_per_channel,
    "decomposed_per_tensor": decomposed_per_tensor,
    "decomposed_tensor": decomposed_tensor,
    "decomposed_tensor2": decomposed_tensor2,
    "fq_tvm": lambda x, s, z: fq_tvm.torch.fake_quantize_per_channel_affine_cachemask(x, s, z, 1, -128, 127),
    "fq_tvm_per_tensor": lambda x, s, z: fq_tvm.torch.fake_quantize_per_channel_affine_cachemask(
        x, s[:1], z[:1], None, -128, 127
    ),
}


@pytest.mark.parametrize("batch", ["static", "dynamic"])
@pytest.mark.parametrize("form", FORMS)
def test_torch_forms(form, batch):
    x, scale, zero_point = make(np.random.default_rng(3), (4, 6, 10), 1, specials=False)
    module = Calls(FORMS[form], scale, zero_point)
    dynamic = ({0: torch.export.Dim("n", min=2)},) if batch == "dynamic" else None
    with fq_tvm.relax.dynamic_shapes() if batch == "dynamic" else nullcontext():
        mod = imported(module, torch.from_numpy(x), dynamic=dynamic)
    assert fq_tvm.relax.FuseFakeQuant()(mod).script().count(OP) == 1
    expected = module(torch.from_numpy(x))
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    for got, want in zip(run(mod, x), expected, strict=True):
        np.testing.assert_array_equal(bits(got), bits(want.numpy()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_scales_of_other_dtypes(dtype):
    """choose_qparams gives float64: torch takes the reciprocal of a Python float. Per channel they are refused."""
    x, scale, zero_point = make(np.random.default_rng(11), (4, 6, 10), 1, specials=False)
    module = Calls(FORMS["decomposed_tensor"], scale + np.float32(0.013), zero_point)
    module.scale = (module.scale.double() * (1 + 1e-8)).to(dtype)
    mod, want = imported(module, torch.from_numpy(x)), module(torch.from_numpy(x))
    for pipeline in ("fq_tvm", relax.get_default_pipeline(target())):
        np.testing.assert_array_equal(bits(run(mod, x, pipeline=pipeline)[0]), bits(want.numpy()))
    module.call = FORMS["decomposed_per_channel"]
    with pytest.raises(fq_tvm.ArgumentError, match=f"scales of {str(dtype)[6:]} per channel; expected float32"):
        imported(module, torch.from_numpy(x))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, PerChannelMinMaxObserver

        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.head = torch.nn.Linear(8 * 8 * 8, 10)
        self.weight = FakeQuantize(
            PerChannelMinMaxObserver, -128, 127, ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric
        )
        self.activation = FakeQuantize(MovingAverageMinMaxObserver, 0, 255, dtype=torch.quint8)

    def forward(self, x):
        w = self.weight(self.conv.weight)
        y = self.activation(torch.relu(torch.nn.functional.conv2d(x, w, self.conv.bias, padding=1)))
        return self.head(y.flatten(1)), w


def test_a_trained_network(tmp_path):
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    x, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 10, (16,))
    for _ in range(4):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x)[0], labels).backward()
        optimizer.step()
    frozen = fq_tvm.relax.freeze(model.eval())
    mod = imported(frozen, x)
    assert mod.script().count(OP) == 2
    with torch.no_grad():
        logits, weight = frozen(x)
    got, got_weight = run(mod, x.numpy())
    np.testing.assert_array_equal(bits(got_weight), bits(weight.numpy()))
    np.testing.assert_allclose(got, logits.numpy(), rtol=1e-4, atol=1e-4)

    library = tmp_path / "network.so"
    relax.build(mod, target(), relax_pipeline="fq_tvm").export_library(str(library))
    np.save(tmp_path / "x.npy", x.numpy())
    script = """if True:
        import sys
        sys.modules["fq_tvm"] = None  # importing it is an error
        import numpy as np, tvm
        from tvm import relax
        machine = relax.VirtualMachine(tvm.runtime.load_module("network.so"), tvm.cpu())
        out = machine["main"](tvm.runtime.tensor(np.load("x.npy")))
        np.savez("out.npz", *(o.numpy() for o in out))
    """
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    with np.load(tmp_path / "out.npz") as out:
        assert_same((out["arr_0"], out["arr_1"]), (got, got_weight))


def test_switched_off():
    """The form whose parameters are tensors says at run time whether it does anything."""
    x, scale, zero_point = make(np.random.default_rng(3), (4, 6, 10), 1, specials=False)
    call = aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams

    class Switched(torch.nn.Module):
        def forward(self, x, scale, zero_point, enabled):
            return call(x, scale, zero_point, enabled, -128, 127)

    tensors = [torch.from_numpy(v) for v in (x, scale[:1], zero_point[:1])]
    mod = imported(Switched(), *tensors, torch.tensor([1]))
    for enabled in (torch.tensor([0]), torch.tensor([1])):
        wanted = call(*tensors, enabled, -128, 127)
        for got, want in zip(run(mod, x, scale[:1], zero_point[:1], enabled.numpy()), wanted, strict=True):
            np.testing.assert_array_equal(bits(got), bits(want.numpy()))
    assert not torch.equal(wanted[0], tensors[0])


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_onnx(dtype):
    import onnx
    from onnx import helper, numpy_helper
    from tvm.relax.frontend.onnx import from_onnx

    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x, _, zero_point = make(np.random.default_rng(5), (2, 6, 10), 1, quant_range=(low, high))
    scale = np.float32([0.25, 0.5, 1, 2, 0.125, 4])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, x.shape) for n in "xy"]
    constants = [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero_point.astype(dtype), "z")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    mod = from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]))
    assert fq_tvm.relax.FuseFakeQuant()(mod).script().count(OP) == 1
    default = relax.get_default_pipeline(target())
    for got, want in zip(run(mod, x), run(mod, x, pipeline=default), strict=True):
        np.testing.assert_array_equal(bits(got), bits(want))


KINDS = list(itertools.product(("u8", "s8"), (13, 21), (2, "n")))
COMPARED = {
    "resnet": [("u8", 13, 2), ("s8", 21, "n")],
    "mobilenet": [("s8", 13, 2), ("u8", 21, "n")],
    "transformer": [("u8", 13, "n"), ("s8", 21, 2)],
}
"""Kinds that are run: each value of each of the three with each network, and with each value of the two others."""


@pytest.mark.parametrize(("activations", "opset", "batch"), KINDS)
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "transformer"])
def test_every_pair_of_a_quantized_network_is_fused(name, activations, opset, batch, tmp_path):
    """As ONNX Runtime's quantizer writes them; some are compared with TVM's own pipeline, and all by make networks."""
    pytest.importorskip("onnxruntime")
    from onnx_networks import network, quantized
    from tvm.relax.frontend.onnx import from_onnx

    path, shape = network(name, tmp_path, batch, opset)
    model = quantized(path, shape, activations)
    pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    mod = from_onnx(model)
    text = fq_tvm.relax.FuseFakeQuant()(mod).script()
    assert pairs >= 9
    assert (text.count(OP), text.count("R.quantize(")) == (pairs, 0)
    if (activations, opset, batch) in COMPARED[name] or os.environ.get("TEST_ALL_NETWORKS"):
        x = 2 * np.random.default_rng(2).standard_normal(shape).astype(np.float32)
        x.reshape(-1)[:3] = np.nan, np.inf, -np.inf
        default = relax.get_default_pipeline(target())
        for got, want in zip(run(mod, x), run(mod, x, pipeline=default), strict=True):
            np.testing.assert_array_equal(bits(got), bits(want))


def test_a_clip_that_torch_exports(tmp_path):
    """Quantize, clip, dequantize: TVM imports the clip as functions of its own."""
    import onnx
    from onnx import helper, numpy_helper
    from tvm.relax.frontend.onnx import from_onnx

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Clip", ["q", "low", "high"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ("n", 6)) for n in "xy"]
    numbers = {"s": np.float32(0.3), "z": np.int8(0), "low": np.int8(-127), "high": np.int8(127)}
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    mod = from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]))
    text = fq_tvm.relax.FuseFakeQuant()(mod).script()
    assert text.count(OP) == 1
    assert "quant_min=-127" in text
    x = np.float32([[-40, -0.1, 0.45, 38.2, np.nan, np.inf], [-38.25, 0.15, -0.0, 38.4, -np.inf, 1e-40]])
    for got, want in zip(run(mod, x), run(mod, x, pipeline=relax.get_default_pipeline(target())), strict=True):
        np.testing.assert_array_equal(bits(got), bits(want))

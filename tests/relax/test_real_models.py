"""Networks of pip packages, quantized by ONNX Runtime: every pair is fused, and no bit of a result changes."""

from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime")

from real_models import NETWORKS, compiled, find, fused, pairs, quantized, same_bits
from tvm.relax.frontend.onnx import from_onnx


@pytest.mark.parametrize(("name", "activations"), [("magika", "u8"), ("MiniLM", "s8")])
def test_every_pair_is_fused_and_no_bit_changes(name, activations, tmp_path):
    path = find(NETWORKS[name])
    if path is None:
        pytest.skip(f"{NETWORKS[name].distribution} is not installed")
    model, inputs = quantized(NETWORKS[name], path, tmp_path, activations)
    quantizers = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    mod = from_onnx(model)
    assert fused(mod) == pairs(mod) == quantizers >= 60
    stock, ours = (module.results() for module in compiled(mod, inputs))
    assert same_bits(stock, ours)

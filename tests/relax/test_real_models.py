"""Networks of pip packages, quantized by ONNX Runtime: every pair is fused, and no bit of a result changes.

Of MiniLM the embeddings and the first of its equal layers; with TEST_ALL_NETWORKS, which `make networks` sets, all of
it and every network of benchmarks/real_models.py whose package is there.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

pytest.importorskip("onnxruntime")

from real_models import NETWORKS, compiled, find, fused, pairs, quantized, same_bits
from tvm.relax.frontend.onnx import from_onnx

LAYER = "/model/model.0/auto_model/encoder/layer.0/output/LayerNorm/LayerNormalization_output_0"


CASES = [("magika", (), "u8", 39), ("MiniLM", (LAYER,), "s8", 39)]
if os.environ.get("TEST_ALL_NETWORKS"):
    CASES += [(name, network.results, kind, 17) for name, network in NETWORKS.items() for kind in ("u8", "s8")]


@pytest.mark.parametrize(("name", "results", "activations", "least"), CASES)
def test_every_pair_is_fused_and_no_bit_changes(name, results, activations, least, tmp_path):
    network = replace(NETWORKS[name], results=results)
    path = find(network)
    if path is None:
        pytest.skip(f"{network.distribution} is not installed")
    model, inputs = quantized(network, path, tmp_path, activations)
    quantizers = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    mod = from_onnx(model)
    assert fused(mod) == pairs(mod) == quantizers >= least
    stock, ours = (module.results() for module in compiled(mod, inputs))
    assert same_bits(stock, ours)

"""Small networks of ONNX, quantized as ONNX Runtime's quantizer does it; for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from real_models import quantize


class _Network:
    """Collects nodes and weights; each method adds a layer and returns the name of its result."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def weight(self, *shape, scale=1.0):
        name = f"w{len(self.weights)}"
        value = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def integers(self, *values):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def add(self, kind, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def conv(self, x, channels, given, kernel, group=1):
        weights = self.weight(channels, given // group, kernel, kernel, scale=0.3), self.weight(channels, scale=0.1)
        pads = [kernel // 2] * 4
        return self.add("Conv", x, *weights, kernel_shape=[kernel, kernel], pads=pads, group=group)


def _resnet(net, x):
    x = net.add("Relu", net.conv(x, 8, 3, 3))
    y = net.conv(net.add("Relu", net.conv(x, 8, 8, 3)), 8, 8, 3)
    x = net.add("Relu", net.add("Add", x, y))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net.add("Gemm", x, net.weight(8, 10), net.weight(10))


def _mobilenet(net, x):
    x = net.conv(x, 12, 3, 1)
    x = net.add("Relu", net.conv(x, 12, 12, 3, group=12))
    y = net.conv(x, 12, 12, 1)
    gate = net.add("Sigmoid", net.conv(net.add("GlobalAveragePool", y), 12, 12, 1))
    return net.add("Add", net.add("Mul", y, gate), x)


def _transformer(net, x):
    width, heads = 16, 2

    def linear(x, n, m):
        return net.add("Add", net.add("MatMul", x, net.weight(n, m, scale=0.3)), net.weight(m, scale=0.1))

    def split(x, order):
        return net.add("Transpose", net.add("Reshape", x, net.integers(0, 0, heads, width // heads)), perm=order)

    q, v = (split(linear(x, width, width), [0, 2, 1, 3]) for _ in range(2))
    k = split(linear(x, width, width), [0, 2, 3, 1])
    mixed = net.add("MatMul", net.add("Softmax", net.add("MatMul", q, k), axis=-1), v)
    mixed = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.integers(0, 0, width))
    x = net.add("Add", x, linear(mixed, width, width))
    return net.add("Add", x, linear(net.add("Relu", linear(x, width, 2 * width)), 2 * width, width))


NETWORKS = {
    "resnet": (_resnet, (3, 8, 8)),
    "mobilenet": (_mobilenet, (3, 8, 8)),
    "transformer": (_transformer, (5, 16)),
}


def network(name, folder: Path, batch, opset):
    """Write a network of float32; return its file and the shape of an input, of a batch of two."""
    layers, shape = NETWORKS[name]
    net = _Network(0)
    result = layers(net, "x")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])
    out = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
    graph = helper.make_graph(net.nodes, name, [x], [out], net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path = folder / "float.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path, (2, *shape)


def quantized(path, shape, activations):
    """Quantize a file statically, per channel, on data of normal distribution; return the model."""
    rng = np.random.default_rng(1)
    return quantize(path, [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(2)], activations)

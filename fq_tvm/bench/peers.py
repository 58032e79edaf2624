"""Other implementations of the operator, each as it is called at its best; knows the libraries that have one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..environment import num_threads
from ..errors import FqError
from .cases import QUANT_MAX, QUANT_MIN
from .contenders import Inputs, ours
from .timing import Call


def _torch_arguments(inputs: Inputs) -> tuple[Any, ...]:
    import torch

    torch.set_num_threads(num_threads())
    return (*(torch.from_numpy(a) for a in inputs.arguments[:3]), *inputs.arguments[3:])


def _torch(inputs: Inputs) -> Call:
    import torch

    arguments = _torch_arguments(inputs)
    operator = torch.ops.aten.fake_quantize_per_channel_affine_cachemask.default
    return lambda: operator(*arguments)


def _inductor(inputs: Inputs) -> Call:
    import torch

    x, scale, zero_point, axis, low, high = _torch_arguments(inputs)
    view = [-1 if d == axis else 1 for d in range(x.dim())]

    def decomposed(x: Any, scale: Any, zero_point: Any) -> Any:
        s, z = scale.view(view), zero_point.view(view)
        q = torch.round(x.float() * (1.0 / s)) + z
        clip = torch.clamp(q, low, high)
        return ((clip - z) * s).to(x.dtype), q == clip

    torch._dynamo.reset()
    compiled = torch.compile(decomposed, dynamic=False)
    return lambda: compiled(x, scale, zero_point)


def _numba(inputs: Inputs) -> Call:
    if inputs.case.dtype == "float16":
        raise FqError("numba has no float16 on a CPU")
    import numba

    numba.set_num_threads(num_threads())
    x, out, mask = inputs.folded()
    scale, zero_point = inputs.scale, inputs.zero_point.astype(np.float32)
    inverse = np.float32(1) / scale
    loop = _numba_loop(x.shape[2] >= 64)
    return lambda: loop(x, scale, inverse, zero_point, out, mask)


@cache
def _numba_loop(long: bool) -> Any:
    """Compile the loop that one writes by hand: rows over threads where they are long, else outer rows."""
    import numba

    low, high = np.float32(QUANT_MIN), np.float32(QUANT_MAX)

    @numba.njit(inline="always")
    def row(x, scale, inverse, zero_point, out, mask, o, c):  # type: ignore[no-untyped-def]
        s, i, z = scale[c], inverse[c], zero_point[c]
        for k in range(x.shape[2]):
            q = np.rint(x[o, c, k] * i) + z
            clip = min(max(q, low), high)
            out[o, c, k] = (clip - z) * s
            mask[o, c, k] = q == clip

    @numba.njit(parallel=True)
    def over_rows(x, scale, inverse, zero_point, out, mask):  # type: ignore[no-untyped-def]
        for index in numba.prange(x.shape[0] * x.shape[1]):
            row(x, scale, inverse, zero_point, out, mask, index // x.shape[1], index % x.shape[1])

    @numba.njit(parallel=True)
    def over_outer(x, scale, inverse, zero_point, out, mask):  # type: ignore[no-untyped-def]
        for o in numba.prange(x.shape[0]):
            for c in range(x.shape[1]):
                row(x, scale, inverse, zero_point, out, mask, o, c)

    return over_rows if long else over_outer


def _openvino(inputs: Inputs) -> Call:
    import openvino

    x, *_ = inputs.folded()
    dtype = np.float32 if inputs.case.dtype == "float32" else np.float16
    ops = openvino.opset13
    parameter = ops.parameter(list(x.shape), dtype)
    bounds = [
        ((bound - inputs.zero_point) * inputs.scale).astype(dtype).reshape(1, -1, 1) for bound in (QUANT_MIN, QUANT_MAX)
    ]
    node = ops.fake_quantize(parameter, *bounds, *bounds, QUANT_MAX - QUANT_MIN + 1)
    hint = "f32" if dtype is np.float32 else "f16"
    settings = {"INFERENCE_NUM_THREADS": num_threads(), "INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(openvino.Model([node], [parameter]), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(x), shared_memory=True))
    return lambda: request.infer()


def _ort(inputs: Inputs) -> Call:
    if inputs.case.dtype == "float16":
        raise FqError("ONNX Runtime's QuantizeLinear takes no float16 on a CPU")
    import onnx
    import onnxruntime

    x = np.ascontiguousarray(inputs.folded()[0])
    helper = onnx.helper
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=1),
    ]
    given, made = ([helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, x.shape)] for name in "xy")
    parameters = {"scale": inputs.scale, "zero": inputs.zero_point.astype(np.int8)}
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in parameters.items()]
    graph = helper.make_graph(nodes, "fake_quant", given, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    binding.bind_ortvalue_input("x", value(x))
    binding.bind_ortvalue_output("y", value(np.empty_like(x)))
    return lambda: session.run_with_iobinding(binding)


class Peer(NamedTuple):
    """A contender besides our own kernel and a copy.

    Parameters
    ----------
    package : str
        What it needs to be installed.
    prepare : callable
        Makes its call for the tensors of a case; raises :class:`~fq_tvm.FqError` if it cannot do the case.
    has_mask : bool
        Whether it makes a mask; if not, there is nothing to be checked bit for bit.
    """

    package: str
    prepare: Callable[[Inputs], Call]
    has_mask: bool = True


PEERS = {
    "torch": Peer("torch", _torch),
    "inductor": Peer("torch", _inductor),
    "numba": Peer("numba", _numba),
    "openvino": Peer("openvino", _openvino, has_mask=False),
    "ort": Peer("onnxruntime", _ort, has_mask=False),
    "numpy": Peer("numpy", lambda inputs: inputs.expected),
    "default": Peer("numpy", lambda inputs: ours(inputs, tuned=False)),
    "x86-64-v3": Peer("numpy", lambda inputs: ours(inputs, "x86-64-v3")),
}
"""By name.  The last two are our own kernels: not tuned, and for lesser CPUs."""


def check_peers(peers: Sequence[str]) -> None:
    """Refuse names that are not in :data:`PEERS`.

    Raises
    ------
    FqError
        If there is one.
    """
    if unknown := sorted(set(peers) - set(PEERS)):
        raise FqError(f"unknown peer {', '.join(unknown)}; known: {', '.join(PEERS)}")

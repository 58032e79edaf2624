"""Relax modules of one function, and their results; for the tests of this folder."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax, tirx

import fq_tvm.relax

OP = "R.fq_tvm.fake_quantize_per_channel_affine_cachemask"
N, H = tirx.Var("n", "int64"), tirx.Var("h", "int64")


def target():
    return tvm.target.Target.from_device("cpu")


def const(value, dtype="float32"):
    return relax.const(np.asarray(value, dtype))


class Emit:
    """Binds expressions, and calls of functions of tensor expressions, to variables."""

    def __init__(self, builder):
        self.te = builder.emit_te
        self.builder = builder

    def __call__(self, expr):
        return self.builder.emit(expr)


def tensor_type(shape, dtype):
    """The type of a tensor of a shape, or of a number of dimensions."""
    return relax.TensorType(dtype=dtype, ndim=shape) if isinstance(shape, int) else relax.TensorType(shape, dtype)


def module(types, body):
    """One function of tensors of these types; body takes what binds an expression, then the variables."""
    builder = relax.BlockBuilder()
    variables = [relax.Var(f"a{i}", tensor_type(*t)) for i, t in enumerate(types)]
    with builder.function("main", variables):
        with builder.dataflow():
            result = body(Emit(builder), *variables)
            result = relax.Tuple(list(result)) if isinstance(result, tuple) else result
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return builder.get()


def operator(x, scale, zero_point, axis, low, high, shape=None, **options):
    types = [
        (shape or x.shape, x.dtype.name),
        (scale.shape, scale.dtype.name),
        (zero_point.shape, zero_point.dtype.name),
    ]
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask
    return module(types, lambda emit, *tensors: emit(call(*tensors, axis, low, high, **options)))


def run(mod, *inputs, pipeline="fq_tvm"):
    machine = relax.VirtualMachine(relax.build(mod, target(), relax_pipeline=pipeline), tvm.cpu())
    out = machine["main"](*(tvm.runtime.tensor(np.asarray(i, order="C")) for i in inputs))
    return [o.numpy() for o in ([out] if isinstance(out, tvm.runtime.Tensor) else out)]

"""From torch.export programs to Relax: what TVM's importer does not know of fake quantization."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tvm import relax

from ..errors import ArgumentError
from .op import dtype_of, fake_quantize_per_channel_affine_cachemask

DECOMPOSED = ("per_channel.default", "per_tensor.default", "per_tensor.tensor", "per_tensor.tensor2")
"""The forms that quantize and dequantize have in ``quantized_decomposed``."""


def torch_convert_map() -> dict[str, Callable[[Any, Any], Any]]:
    """Return converters for ``tvm.relax.frontend.torch.from_exported_program(program, custom_convert_map=...)``.

    They cover ``aten::fake_quantize_per_channel_affine`` and ``fake_quantize_per_tensor_affine`` (which decompose to
    their cachemask forms), those forms, the operator of :mod:`fq_tvm.torch`, and quantize and dequantize of
    ``quantized_decomposed``, which become the primitives that torch computes: :class:`FuseFakeQuant` makes one
    operator of a pair.

    Returns
    -------
    dict
        From the name of a torch operator to a function of its node and the importer.
    """
    return {
        "fake_quantize_per_channel_affine_cachemask.default": _per_channel,
        "fake_quantize_per_tensor_affine_cachemask.default": _per_tensor,
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default": _per_tensor_of_tensors,
        **{f"quantize_{form}": _quantize for form in DECOMPOSED},
        **{f"dequantize_{form}": _dequantize for form in DECOMPOSED},
    }


def _emit(importer: Any, expr: Any) -> Any:
    """Bind an expression to a variable, each call inside it to one of its own."""
    return importer.block_builder.emit(expr)


def _integer(zero_point: Any) -> Any:
    """Return a zero point in a dtype that the operator takes."""
    return relax.op.astype(zero_point, "int32") if dtype_of(zero_point) == "int64" else zero_point


def _per_channel(node: Any, importer: Any) -> Any:
    x, scale, zero_point, axis, low, high = importer.retrieve_args(node)
    call = fake_quantize_per_channel_affine_cachemask(x, scale, _integer(zero_point), axis, low, high)
    return _emit(importer, call)


def _per_tensor(node: Any, importer: Any) -> Any:
    x, scale, zero_point, low, high = importer.retrieve_args(node)
    scale, zero_point = relax.const(np.array([scale], np.float32)), relax.const(np.array([zero_point], np.int32))
    return _emit(importer, fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, None, low, high))


def _per_tensor_of_tensors(node: Any, importer: Any) -> Any:
    x, scale, zero_point, enabled, low, high = importer.retrieve_args(node)
    call = fake_quantize_per_channel_affine_cachemask(x, scale, _integer(zero_point), None, low, high)
    pair = _emit(importer, call)
    on = _emit(importer, relax.op.not_equal(enabled, relax.const(0, dtype_of(enabled))))
    out = relax.op.where(on, relax.TupleGetItem(pair, 0), x)
    mask = relax.op.logical_or(relax.TupleGetItem(pair, 1), relax.op.logical_not(on))
    return _emit(importer, relax.Tuple([out, mask]))


def _quantize(node: Any, importer: Any) -> Any:
    """Emit ``clamp(round(x * inverse) + zero_point, low, high)``, what torch computes."""
    x, scale, zero_point, *axis, low, high, dtype = importer.retrieve_args(node)
    vector, zero_point = _parameters(scale, zero_point, x.ty.ndim, *axis)
    if isinstance(scale, float):
        # As torch has it: the reciprocal of a Python float, rounded to float32 after that.
        inverse = relax.const(np.float32(1.0 / scale) if scale else np.float32("inf"))
    elif dtype_of(scale) != "float32":
        # As torch has it: one element, taken as a Python float.
        inverse = relax.op.divide(relax.const(1.0, "float64"), relax.op.astype(scale, "float64"))
        inverse = relax.op.astype(inverse, "float32")
    else:
        inverse = relax.op.divide(relax.const(1.0, "float32"), vector)
    if dtype_of(x) != "float32":
        x = relax.op.astype(x, "float32")
    q = relax.op.add(relax.op.round(relax.op.multiply(x, inverse)), zero_point)
    if isinstance(low, int):
        clipped = relax.op.clip(q, low, high)
    else:  # tensors, in the order of R.clip
        low, high = (relax.op.astype(limit, "float32") for limit in (low, high))
        clipped = relax.op.maximum(relax.op.minimum(q, high), low)
    return _emit(importer, relax.op.astype(clipped, _name(dtype)))


def _dequantize(node: Any, importer: Any) -> Any:
    q, scale, zero_point, *axis, _low, _high, _dtype = importer.retrieve_args(node)
    scale, zero_point = _parameters(scale, zero_point, q.ty.ndim, *axis)
    value = relax.op.astype(q, "float32")
    if zero_point is not None:
        value = relax.op.subtract(value, zero_point)
    value = relax.op.multiply(value, scale)
    dtype = _name(node.kwargs.get("out_dtype") or "float32")
    return _emit(importer, value if dtype == "float32" else relax.op.astype(value, dtype))


def _parameters(scale: Any, zero_point: Any, rank: int, axis: int | None = None) -> tuple[Any, Any]:
    """Return scale and zero point, if there is one, in float32 and so that they broadcast along an axis."""
    if isinstance(scale, float):
        return relax.const(np.float32(scale)), relax.const(np.float32(zero_point))
    if zero_point is not None:
        zero_point = relax.op.astype(_along(zero_point, rank, axis), "float32")
    if dtype_of(scale) != "float32":
        if axis is not None:
            raise ArgumentError(
                f"quantized_decomposed has scales of {dtype_of(scale)} per channel; expected float32: convert them in "
                "the model, as no importer computes in other types what torch does",
                "dtype",
            )
        scale = relax.op.astype(scale, "float32")
    return _along(scale, rank, axis), zero_point


def _along(vector: Any, rank: int, axis: int | None) -> Any:
    axes = [] if axis is None else [d for d in range(rank) if d != axis % rank]
    return relax.op.expand_dims(vector, axes) if axes else vector


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def dynamic_shapes() -> Iterator[None]:
    """Let torch export its own fake quantization with symbolic dimensions, for as long as the context lasts.

    Its operators have no shape functions (meta kernels), so an export with ``dynamic_shapes=`` fails.  These are
    registered here and removed again; both the export and the import into Relax, which decomposes the program once
    more, belong inside.
    """
    import torch

    def like(x: Any, *_others: Any) -> tuple[Any, Any]:
        return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)

    library = torch.library.Library("aten", "IMPL", "Meta")
    try:
        for name in torch_convert_map():
            if "cachemask" in name:
                library.impl(name.removesuffix(".default"), like)
        yield
    finally:
        library._destroy()

"""From torch.export programs to Relax: what TVM's importer does not know of fake quantization."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tvm import relax

from .op import fake_quantize_per_channel_affine_cachemask


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
        "quantize_per_channel.default": _quantize_per_channel,
        "dequantize_per_channel.default": _dequantize_per_channel,
        "quantize_per_tensor.default": _quantize_per_tensor,
        "quantize_per_tensor.tensor": _quantize_per_tensor,
        "quantize_per_tensor.tensor2": _quantize_per_tensor,
        "dequantize_per_tensor.default": _dequantize_per_tensor,
        "dequantize_per_tensor.tensor": _dequantize_per_tensor,
        "dequantize_per_tensor.tensor2": _dequantize_per_tensor,
    }


def _emit(importer: Any, expr: Any) -> Any:
    return importer.block_builder.emit(expr)


def _integer(importer: Any, zero_point: Any) -> Any:
    """Return a zero point in a dtype that the operator takes."""
    if str(zero_point.ty.dtype.dtype) == "int64":
        return _emit(importer, relax.op.astype(zero_point, "int32"))
    return zero_point


def _per_channel(node: Any, importer: Any) -> Any:
    x, scale, zero_point, axis, low, high = importer.retrieve_args(node)
    zero_point = _integer(importer, zero_point)
    return _emit(importer, fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, low, high))


def _per_tensor(node: Any, importer: Any) -> Any:
    x, scale, zero_point, low, high = importer.retrieve_args(node)
    scale, zero_point = relax.const(np.array([scale], np.float32)), relax.const(np.array([zero_point], np.int32))
    return _emit(importer, fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, None, low, high))


def _per_tensor_of_tensors(node: Any, importer: Any) -> Any:
    x, scale, zero_point, enabled, low, high = importer.retrieve_args(node)
    zero_point = _integer(importer, zero_point)
    pair = _emit(importer, fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, None, low, high))
    on = _emit(importer, relax.op.not_equal(enabled, relax.const(0, str(enabled.ty.dtype.dtype))))
    out = _emit(importer, relax.op.where(on, relax.TupleGetItem(pair, 0), x))
    off = _emit(importer, relax.op.logical_not(on))
    mask = _emit(importer, relax.op.logical_or(relax.TupleGetItem(pair, 1), off))
    return _emit(importer, relax.Tuple([out, mask]))


def _along(importer: Any, vector: Any, rank: int, axis: int) -> Any:
    """Shape a vector so that it broadcasts along an axis."""
    axes = [d for d in range(rank) if d != axis % rank]
    return _emit(importer, relax.op.expand_dims(vector, axes)) if axes else vector


def _quantize(importer: Any, x: Any, inverse: Any, zero_point: Any, low: Any, high: Any, dtype: Any) -> Any:
    """Emit ``clamp(round(x * inverse) + zero_point, low, high)``, what torch computes."""
    if str(x.ty.dtype.dtype) != "float32":
        x = _emit(importer, relax.op.astype(x, "float32"))
    rounded = _emit(importer, relax.op.round(_emit(importer, relax.op.multiply(x, inverse))))
    q = _emit(importer, relax.op.add(rounded, zero_point))
    if isinstance(low, int):
        clipped = _emit(importer, relax.op.clip(q, low, high))
    else:  # tensors, in the order of R.clip
        low, high = (_emit(importer, relax.op.astype(limit, "float32")) for limit in (low, high))
        clipped = _emit(importer, relax.op.maximum(_emit(importer, relax.op.minimum(q, high)), low))
    return _emit(importer, relax.op.astype(clipped, _name(dtype)))


def _dequantize(importer: Any, q: Any, scale: Any, zero_point: Any, out_dtype: Any) -> Any:
    value = _emit(importer, relax.op.astype(q, "float32"))
    if zero_point is not None:
        value = _emit(importer, relax.op.subtract(value, zero_point))
    value = _emit(importer, relax.op.multiply(value, scale))
    if out_dtype is None or _name(out_dtype) == "float32":
        return value
    return _emit(importer, relax.op.astype(value, _name(out_dtype)))


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _quantize_per_channel(node: Any, importer: Any) -> Any:
    x, scale, zero_point, axis, low, high, dtype = importer.retrieve_args(node)
    rank = x.ty.ndim
    scale = _along(importer, scale, rank, axis)
    inverse = _emit(importer, relax.op.divide(relax.const(1.0, "float32"), scale))
    zero_point = _emit(importer, relax.op.astype(_along(importer, zero_point, rank, axis), "float32"))
    return _quantize(importer, x, inverse, zero_point, low, high, dtype)


def _dequantize_per_channel(node: Any, importer: Any) -> Any:
    q, scale, zero_point, axis, *_ = importer.retrieve_args(node)
    rank = q.ty.ndim
    scale = _along(importer, scale, rank, axis)
    if zero_point is not None:
        zero_point = _emit(importer, relax.op.astype(_along(importer, zero_point, rank, axis), "float32"))
    return _dequantize(importer, q, scale, zero_point, node.kwargs.get("out_dtype"))


def _quantize_per_tensor(node: Any, importer: Any) -> Any:
    x, scale, zero_point, low, high, dtype = importer.retrieve_args(node)
    if isinstance(scale, float):
        # As torch has it: the reciprocal of a Python float, rounded to float32 after that.
        inverse = relax.const(np.float32(1.0 / scale) if scale else np.float32("inf"))
        return _quantize(importer, x, inverse, relax.const(np.float32(zero_point)), low, high, dtype)
    inverse = _emit(importer, relax.op.divide(relax.const(1.0, "float32"), scale))
    zero_point = _emit(importer, relax.op.astype(zero_point, "float32"))
    return _quantize(importer, x, inverse, zero_point, low, high, dtype)


def _dequantize_per_tensor(node: Any, importer: Any) -> Any:
    q, scale, zero_point, *_ = importer.retrieve_args(node)
    if isinstance(scale, float):
        scale, zero_point = relax.const(np.float32(scale)), relax.const(np.float32(zero_point))
    else:
        zero_point = _emit(importer, relax.op.astype(zero_point, "float32"))
    return _dequantize(importer, q, scale, zero_point, node.kwargs.get("out_dtype"))


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


def freeze(model: Any) -> Any:
    """Copy a model with every fake quantization module made one of constant parameters, which torch.export takes.

    Parameters
    ----------
    model : torch.nn.Module
        With modules of ``torch.ao.quantization.FakeQuantize``, ``FusedMovingAvgObsFakeQuantize`` or others of that
        base, per channel or per tensor.  Observers no longer run in the copy; modules whose fake quantization is
        switched off become identities.

    Returns
    -------
    torch.nn.Module
        In the mode, training or evaluation, of the model.
    """
    import torch
    from torch.ao.quantization.fake_quantize import FakeQuantizeBase

    class Frozen(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, given: Any) -> None:
            super().__init__()
            self.axis = given.ch_axis if given.is_per_channel else None
            observer = given.activation_post_process
            self.low, self.high = int(observer.quant_min), int(observer.quant_max)
            if self.axis is None:
                self.scale, self.zero_point = float(given.scale), int(given.zero_point)
            else:
                zero_point = given.zero_point.detach().clone()
                whole = not zero_point.dtype.is_floating_point
                self.register_buffer("scale", given.scale.detach().clone())
                self.register_buffer("zero_point", zero_point.to(torch.int32) if whole else zero_point)

        def forward(self, x: Any) -> Any:
            if self.axis is None:
                return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, self.low, self.high)
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, self.axis, self.low, self.high
            )

    def frozen(given: Any) -> Any:
        return (Frozen(given) if int(given.fake_quant_enabled[0]) else torch.nn.Identity()).train(given.training)

    if isinstance(model, FakeQuantizeBase):
        return frozen(model)
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FakeQuantizeBase):
                setattr(parent, name, frozen(child))
    return model

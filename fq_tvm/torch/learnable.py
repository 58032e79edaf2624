"""The gradient of torch's learnable fake quantization by x, scale and zero point, in one pass over x.

torch writes three results of x's size and adds up two of them.  Its compiler may fuse a product and a sum, and its
conversion of a NaN to an integer depends on the CPU: :func:`agrees` finds out whether this torch was built like that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from ctypes import c_float
from typing import Any

import numpy as np
import torch

from ..errors import CacheMissError
from ..launch.arguments import LearnableGradient, describe
from ..launch.buffers import run
from ..launch.registry import launches, prepare, remember
from ..layout import MAX_RANK, arrange
from ..spec import NARROW_LIMIT
from .results import result_like

MIN_ELEMENTS = 2**13
"""Elements from which the kernel saves more than its launch from Python costs."""

ROWS_MIN_INNER = 16
"""Shortest run of one channel that is served; a channel that is last is, too."""

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def gradient(
    stock: Callable[..., Any],
    tensors: tuple[torch.Tensor, ...],
    axis: int | None,
    low: int,
    high: int,
    factor: float,
) -> Gradients | None:
    """Return the gradients by x, scale and zero point; None where torch is to make them, or an error.

    Parameters
    ----------
    stock : callable
        torch's kernel.
    tensors : tuple of torch.Tensor
        grad, x, scale and zero point, plain ones on the CPU.  The kernel serves float32, x dense in whatever order.
    axis : int or None
        The channel dimension; None for the operator that has none.
    low, high : int
        The range.
    factor : float
        Of the gradients by scale and zero point.
    """
    grad, x, scale, zero_point = tensors
    if not (
        x.numel() >= MIN_ELEMENTS
        and x.dtype == grad.dtype == scale.dtype == zero_point.dtype == torch.float32
        and x.shape == grad.shape
        and scale.dim() == zero_point.dim() == 1
        and (axis is None or 0 <= axis < x.dim())
        and scale.numel() == zero_point.numel() == (1 if axis is None else x.shape[axis])
        and -NARROW_LIMIT <= low <= 0 <= high <= NARROW_LIMIT
        and math.isfinite(factor)
        and agrees(stock, axis is not None)
    ):
        return None
    key = ("learnable", x.shape, x.stride(), axis, low, high, factor)
    if (launch := launches.get(key)) is None:
        launch = remember(key, _plan(x.detach(), axis, low, high, factor))
    rounded = _rounded(zero_point, low, high) if axis is None else zero_point.detach().round().clamp_(low, high)
    if launch is _STOCK or math.isnan(rounded.sum().item()):
        return None
    return _launch(launch, grad, x, scale, rounded)


_STOCK = "stock"


def _plan(x: torch.Tensor, axis: int | None, low: int, high: int, factor: float) -> Any:
    if x.dim() > MAX_RANK:
        return _STOCK
    call = LearnableGradient(describe(x, "x"), axis, low, high, factor)
    layout = arrange(call.shape, axis, call.strides)
    rows = layout.channels == 1 or layout.inner >= ROWS_MIN_INNER
    if layout.strides or not (rows or layout.inner == 1):
        return _STOCK
    try:
        return prepare(call, iteration="rows" if rows else "lanes")
    except CacheMissError:  # a library that was built without; torch is slower, not wrong
        return _STOCK


def _rounded(zero_point: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Round as torch's gradient per tensor does: a half is added, and what follows the point dropped."""
    value = c_float(zero_point.item() + 0.5).value
    rounded = value if math.isnan(value) else float(int(min(max(value, low), high)))
    return torch.tensor([rounded], dtype=torch.float32, device="cpu")


def _launch(
    launch: Any, grad: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor
) -> Gradients:
    out = result_like(x, x.dtype)
    if grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    scale = scale.contiguous()
    by_scale, by_zero_point = torch.empty_like(scale), torch.empty_like(scale)
    # tvm-ffi refuses tensors that require a gradient
    tensors = (each.detach() if each.requires_grad else each for each in (x, grad, scale, zero_point))
    run(launch, *tensors, out, by_scale, by_zero_point, from_torch=True)
    return out, by_scale, by_zero_point


_agrees: dict[bool, bool] = {}


def agrees(stock: Callable[..., Any], per_channel: bool) -> bool:
    """Whether torch's kernel gives the bits of this library's for the gradient by x, and about the same sums."""
    if (found := _agrees.get(per_channel)) is None:
        found = _agrees[per_channel] = _compare(stock, per_channel)
    return found


def _compare(stock: Callable[..., Any], per_channel: bool) -> bool:
    """Compare where fusing decides: around products that lie next to the ties of the range's ends, and for NaN."""
    rng = np.random.default_rng(0)
    channels, low, high = 64 if per_channel else 1, -8, 7
    scale = (rng.random(channels) + 0.05).astype(np.float32)
    zero_point = rng.integers(low, high + 1, channels).astype(np.float32)
    if not per_channel:
        zero_point[:] = 5
    ends = rng.choice(np.array([low - 0.5, high + 0.5], np.float32), (channels, 2048))
    x = (ends - zero_point[:, None]) * scale[:, None]
    x.view(np.int32)[...] += rng.integers(-2, 3, x.shape, dtype=np.int32)
    x[:, ::9] = np.nan
    x[:, ::10] = (rng.random((channels, len(x[0, ::10]))) * 32 - 16).astype(np.float32) * scale[:, None]
    grad = rng.standard_normal(x.shape, np.float32)
    tensors = [torch.from_numpy(each) for each in (grad, x, scale, zero_point)]
    axis = 0 if per_channel else None
    launch = _plan(tensors[1], axis, low, high, 0.5)
    if launch is _STOCK:
        return False
    ours = _launch(launch, *tensors)
    theirs = stock(*tensors, *([0] if per_channel else []), low, high, 0.5)
    return torch.equal(ours[0].view(torch.int32), theirs[0].view(torch.int32)) and all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-2) for a, b in zip(ours[1:], theirs[1:], strict=True)
    )

"""The launches that stand in for torch's kernels of fake quantization, by what these are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import empty_like

from ..errors import ArgumentError, CacheMissError
from ..launch.arguments import ObservedParameters, Operand, Operands, check, describe
from ..launch.buffers import run
from ..launch.registry import launch_of, launches, remember
from ..layout import MAX_RANK
from ..spec import NARROW_LIMIT
from . import observer
from .operator import NAME
from .plain import STOCK
from .results import DTYPES, result_like


def fake_quantize(launch: Any, x: Any, scale: Any, zero_point: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result and the mask of a launch on tensors like those that it was found for."""
    out, mask = result_like(x, x.dtype), result_like(x, torch.bool)
    if x.requires_grad:  # tvm-ffi refuses such tensors
        x = x.detach()
    try:
        run(launch, x, scale, zero_point, out, mask, from_torch=True)
    except ArgumentError:
        for name, tensor in (("x", x), ("scale", scale), ("zero_point", zero_point)):
            if isinstance(tensor, torch.Tensor):
                describe(tensor, name)  # says which has no memory as the first call does
        raise
    return out, mask


def _plan(x: torch.Tensor, scale: Operand, zero_point: Operand, axis: int | None, low: int, high: int) -> Any:
    """Prepare for tensors like x, if the kernels give the bits that torch's give."""
    # torch takes whatever does not fit an int64 for the least one, which this range would count as being inside
    if x.dtype not in DTYPES or not x.numel() or x.dim() > MAX_RANK or low > high or low == -(2**63):
        return STOCK
    x = x.detach()
    out, mask = describe(empty_like(x), "out"), describe(empty_like(x, dtype=torch.bool), "mask")
    operands = Operands(describe(x, "x"), scale, zero_point, out, mask)
    return launch_of(check(operands, axis, low, high, placed=False))


def _plan_per_channel(x: Any, scale: Any, zero_point: Any, axis: int, low: int, high: int) -> Any:
    # torch's kernel for zero points of floats fuses operations that these round one by one
    fits = (
        scale.dtype == torch.float32
        and zero_point.dtype == torch.int32
        and 0 <= axis < x.dim()
        and scale.shape == zero_point.shape == (x.shape[axis],)
    )
    if not fits:
        return STOCK
    return _plan(x, describe(scale.detach(), "scale"), describe(zero_point, "zero_point"), axis, low, high)


def per_channel(x: Any, scale: Any, zero_point: Any, axis: int, low: int, high: int) -> Any:
    """Return the launch of fake quantization per channel; ``STOCK`` if torch's kernel is to do it."""
    key = (
        NAME, x.dtype, x.shape, x.stride(), scale.dtype, scale.shape, scale.stride(),
        zero_point.dtype, zero_point.shape, zero_point.stride(), axis, low, high,
    )  # fmt: skip
    launch = launches.get(key)
    return remember(key, _plan_per_channel(x, scale, zero_point, axis, low, high)) if launch is None else launch


def per_tensor(x: Any, low: int, high: int) -> Any:
    """Return the launch of fake quantization per tensor; ``STOCK`` if torch's kernel is to do it."""
    key = ("per tensor", x.dtype, x.shape, x.stride(), low, high)
    launch = launches.get(key)
    return remember(key, _plan_per_tensor(x, low, high)) if launch is None else launch


def _plan_per_tensor(x: Any, low: int, high: int) -> Any:
    # torch rounds the difference and the product separately where the range is wide
    if max(abs(low), abs(high)) > NARROW_LIMIT:
        return STOCK
    return _plan(x, Operand(None, "float32", (), (), 0), Operand(None, "int32", (), (), 0), None, low, high)


def observation(x: Any, buffers: Sequence[Any], per_row: bool, parameters: ObservedParameters) -> Any:
    """Return the launches that observe and fake-quantize, where buffers fit; ``STOCK`` if torch is to do it."""
    key = ("observed", x.shape, x.stride(), per_row, parameters)
    found = launches.get(key)
    return remember(key, _plan_observation(x, buffers, per_row, parameters)) if found is None else found


def _plan_observation(x: Any, buffers: Sequence[Any], per_row: bool, parameters: ObservedParameters) -> Any:
    low, high = parameters.quant_min, parameters.quant_max
    if per_row:
        *_, scale, zero_point = buffers
        launch = per_channel(x, scale, zero_point, 0, low, high)
    else:
        launch = per_tensor(x, low, high)
    if launch is STOCK or not (parameters.observes or parameters.chooses):
        return STOCK
    try:
        return observer.plan(x, per_row, parameters, launch)
    except CacheMissError:  # a library that was built without; torch is slower, not wrong
        return STOCK

"""Fake quantization with a scale for each block of a tensor, as views of it, and by the formulas of other libraries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.compiler import is_compiling

from ..errors import ArgumentError, FqError
from ..layout import MAX_RANK
from ..spec import Formula
from .operator import with_formula


def fake_quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    axis: int | None = None,
    *,
    quant_min: int,
    quant_max: int,
    block_size: Sequence[int] | None = None,
    **formula: Any,
) -> torch.Tensor:
    """Quantize to a range of integers and back, per tensor, channel, token, group or block, by a formula of choice.

    Parameters
    ----------
    x : torch.Tensor
        float32, float16 or bfloat16, on the CPU.
    scale : torch.Tensor
        float32, float16 or bfloat16.  Without block_size, shape (x.shape[axis],), or one element per tensor.  With it
        an element for each block, in their order, in any shape; or a shape that broadcasts against the numbers of
        blocks along each dimension.
    zero_point : torch.Tensor
        int32, float32 or float16, shape as scale.
    axis : int, optional
        The channel dimension; negative counts from the end.  None for one scale of the whole tensor, or with
        block_size.
    quant_min, quant_max : int
        The range, any int64, ``quant_min <= quant_max``.
    block_size : sequence of int, optional
        Extents of a block, one for each dimension of x, which they divide; -1 for all of a dimension.  ``(1, 32)`` for
        groups of 32 of a matrix, ``(1, ..., 1, -1)`` per token.
    form : {"reciprocal", "division"}
        ``t = x * (1 / scale)``, two roundings, or ``t = x / scale``, one.
    zero_point_placement : {"after", "before"}
        ``q = rint(t) + zero_point`` or ``q = rint(t + zero_point)``; by default the first for integers and the second
        for floats.
    keep_zero_sign : bool
        Whether a q of -0.0 stays one; for a zero point that is added before rounding.
    nan : {"quant_min", "quant_max"}
        What a NaN is clipped to.

    Returns
    -------
    torch.Tensor
        ``(clip(q, quant_min, quant_max) - zero_point) * scale``, of x's shape, dtype and order in memory.  Its gradient
        goes straight through to x where q is in range; scale and zero point get none.

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    FqError
        If there is no such formula.
    BuildError
        If no kernel can be built or loaded.

    Notes
    -----
    Blocks along one dimension, and rows of blocks of a tensor without gaps, are views of it; what cannot be seen so is
    copied.  Scale and zero point of blocks that reach over several rows are repeated for each.
    Where no gradient is wanted, no mask is computed.

    Examples
    --------
    >>> import torch, fq_tvm.torch
    >>> x = torch.tensor([[0.4, 3.0, -0.6, -2.5]])
    >>> scale, zero_point = torch.tensor([0.5, 1.0]), torch.tensor([0, 0], dtype=torch.int32)
    >>> fq_tvm.torch.fake_quantize(x, scale, zero_point, quant_min=-4, quant_max=3, block_size=(1, 2), form="division")
    tensor([[ 0.5000,  1.5000, -1.0000, -2.0000]])
    """
    look_up = _fields.__wrapped__ if is_compiling() else _fields  # dynamo warns of memories
    fields = look_up(str(zero_point.dtype), *formula.items())
    if block_size is None:
        return with_formula(x, scale, zero_point, axis, quant_min, quant_max, fields)
    if axis is not None:
        raise ArgumentError(f"axis is {axis} and block_size {tuple(block_size)}; expected one of them")
    sizes = _sizes(tuple(x.shape), tuple(block_size))
    grid = tuple(n // size if size else 1 for n, size in zip(x.shape, sizes, strict=True))
    scale, zero_point = _one_each(scale, grid, "scale"), _one_each(zero_point, grid, "zero_point")
    divided = [d for d, n in enumerate(grid) if n != 1]
    if not divided:
        return with_formula(x, scale.reshape(()), zero_point.reshape(()), None, quant_min, quant_max, fields)
    if len(divided) == 1 and x.dim() < MAX_RANK:
        (d,) = divided
        parts = x.unflatten(d, (grid[d], sizes[d]))
        out = with_formula(parts, scale.reshape(-1), zero_point.reshape(-1), d, quant_min, quant_max, fields)
        return out.flatten(d, d + 1)
    # As dimensions lie in memory, up to the last that is divided: each index outside its blocks is a row.
    order = sorted(range(x.dim()), key=lambda d: -x.stride(d))
    shape = [x.shape[d] for d in order]
    last = max(i for i, d in enumerate(order) if d in divided)
    outside = [*shape[:last], grid[order[last]]]
    count = math.prod(outside)

    def of_rows(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.permute(order)
        for i, d in enumerate(order[:last]):
            if d in divided and sizes[d] > 1:
                tensor = tensor.repeat_interleave(sizes[d], i)
        return tensor.expand([*outside, *tensor.shape[last + 1 :]]).reshape(-1)

    rows = x.permute(order).reshape(count, x.numel() // max(count, 1))
    out = with_formula(rows, of_rows(scale), of_rows(zero_point), 0, quant_min, quant_max, fields)
    return out.reshape(shape).permute(sorted(range(x.dim()), key=order.__getitem__))


@lru_cache(1024)
def _fields(zero_point_dtype: str, *given: tuple[str, Any]) -> tuple[Any, ...]:
    """Return the fields of a formula, as the operator takes them."""
    try:
        formula = Formula(**dict(given))
    except TypeError:
        known = ", ".join(vars(Formula()))
        raise FqError(f"unknown field of a formula in {', '.join(name for name, _ in given)}; known: {known}") from None
    return tuple(vars(formula.of(zero_point_dtype.removeprefix("torch."))).values())


def _sizes(shape: tuple[int, ...], block_size: tuple[int, ...]) -> tuple[int, ...]:
    if len(block_size) != len(shape):
        raise ArgumentError(f"block_size is {block_size}; expected {len(shape)} extents, one for each of x's {shape}")
    sizes = tuple(n if size == -1 else size for n, size in zip(shape, block_size, strict=True))
    if any(n and (size < 1 or n % size) for n, size in zip(shape, sizes, strict=True)):
        raise ArgumentError(f"block_size is {block_size}; expected extents that divide those of x, {shape}, or -1")
    return sizes


def _one_each(tensor: torch.Tensor, grid: tuple[int, ...], name: str) -> torch.Tensor:
    """Shape a tensor as the blocks lie, an element each."""
    if tensor.numel() == math.prod(grid):
        return tensor.reshape(grid)
    try:
        return tensor.expand(grid)
    except RuntimeError:
        raise ArgumentError(
            f"{name} has shape {tuple(tensor.shape)}; expected {math.prod(grid)} elements, one for each block "
            f"of {grid}, or a shape that broadcasts against that"
        ) from None

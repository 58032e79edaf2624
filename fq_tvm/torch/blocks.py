"""Fake quantization with a scale for each block of a tensor, as views of it, and by the formulas of other libraries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

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
    view = (_view.__wrapped__ if is_compiling() else _view)(tuple(x.shape), x.stride(), tuple(block_size))
    rows = (x if view.order is None else x.permute(view.order)).reshape(view.shape)
    scale, zero_point = view.parameters(scale, "scale"), view.parameters(zero_point, "zero_point")
    out = with_formula(rows, scale, zero_point, view.axis, quant_min, quant_max, fields)
    if view.order is None:
        return out.reshape(x.shape)
    back = sorted(range(x.dim()), key=view.order.__getitem__)
    return out.reshape([x.shape[d] for d in view.order]).permute(back)


class _View(NamedTuple):
    """A tensor of blocks as one that has them along an axis.

    Parameters
    ----------
    grid : tuple of int
        Numbers of blocks along each dimension of x.
    shape : tuple of int
        Of the view.
    axis : int or None
        Its channel dimension; None for one block.
    order : tuple of int or None
        Dimensions of x as they lie in memory, if that is not how they are numbered.
    repeats : tuple of pairs of int
        By dimension of x, how often each element of the parameters is repeated along it.
    """

    grid: tuple[int, ...]
    shape: tuple[int, ...]
    axis: int | None
    order: tuple[int, ...] | None = None
    repeats: tuple[tuple[int, int], ...] = ()

    def parameters(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """Return an element for each index along the axis."""
        if tensor.numel() == math.prod(self.grid):
            tensor = tensor.reshape(self.grid if self.repeats or self.order else -1)
        else:
            try:
                tensor = tensor.expand(self.grid)
            except RuntimeError:
                raise ArgumentError(
                    f"{name} has shape {tuple(tensor.shape)}; expected {math.prod(self.grid)} elements, one for each "
                    f"block of {self.grid}, or a shape that broadcasts against that"
                ) from None
        for d, times in self.repeats:
            tensor = tensor.repeat_interleave(times, d)
        return (tensor if self.order is None else tensor.permute(self.order)).reshape(-1)


@lru_cache(1024)
def _view(shape: tuple[int, ...], strides: tuple[int, ...], block_size: tuple[int, ...]) -> _View:
    """Find the view for blocks of a tensor."""
    if len(block_size) != len(shape):
        raise ArgumentError(f"block_size is {block_size}; expected {len(shape)} extents, one for each of x's {shape}")
    sizes = tuple(n if size == -1 else size for n, size in zip(shape, block_size, strict=True))
    if any(n and (size < 1 or n % size) for n, size in zip(shape, sizes, strict=True)):
        raise ArgumentError(f"block_size is {block_size}; expected extents that divide those of x, {shape}, or -1")
    grid = tuple(n // size if size else 1 for n, size in zip(shape, sizes, strict=True))
    divided = [d for d, n in enumerate(grid) if n != 1]
    if not divided:
        return _View(grid, shape, None)
    if len(divided) == 1 and len(shape) < MAX_RANK:
        (d,) = divided
        return _View(grid, (*shape[:d], grid[d], sizes[d], *shape[d + 1 :]), d)
    # As dimensions lie in memory, up to the last that is divided: what is inside its blocks is a row.
    order = tuple(sorted(range(len(shape)), key=lambda d: -strides[d]))
    last = max(i for i, d in enumerate(order) if d in divided)
    count = math.prod([shape[d] for d in order[:last]]) * grid[order[last]]
    repeats = tuple((d, sizes[d]) for d in order[:last] if sizes[d] > 1)
    inside = math.prod(shape) // max(count, 1)
    return _View(grid, (count, inside), 0, None if order == tuple(range(len(shape))) else order, repeats)


@lru_cache(1024)
def _fields(zero_point_dtype: str, *given: tuple[str, Any]) -> tuple[Any, ...]:
    """Return the fields of a formula, as the operator takes them."""
    try:
        formula = Formula(**dict(given))
    except TypeError:
        known = ", ".join(vars(Formula()))
        raise FqError(f"unknown field of a formula in {', '.join(name for name, _ in given)}; known: {known}") from None
    return tuple(vars(formula.of(zero_point_dtype.removeprefix("torch."))).values())

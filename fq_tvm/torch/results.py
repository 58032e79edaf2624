"""Memory of large results, which is used again for later ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import empty_like

from ..launch.pool import Pool

DTYPES = frozenset((torch.float32, torch.float16, torch.bfloat16))

POOLED_ELEMENTS = 2**20
"""Least elements of a tensor whose results get memory of the pool; for smaller ones malloc reuses its own."""

POOL_MAX_BYTES = 2**30
"""Most bytes of results that are gone which the pool keeps for the next ones."""

pool = Pool(POOL_MAX_BYTES)


def result(shape: Any, strides: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Make a dense tensor; a large one of memory that returns to the pool when the tensor is gone."""
    if (elements := math.prod(shape)) < POOLED_ELEMENTS:
        return torch.empty_strided(shape, strides, dtype=dtype)
    array = pool.array(elements * dtype.itemsize)
    return torch.from_numpy(array).view(dtype).as_strided(shape, strides)


def result_like(x: Any, dtype: torch.dtype) -> torch.Tensor:
    """Make what ``empty_like`` makes, as :func:`result` does."""
    if x.numel() < POOLED_ELEMENTS:
        return empty_like(x, dtype=dtype)
    return result(x.shape, empty_like(x, device="meta").stride(), dtype)

"""The quotient that undoes folded batch norm, and its gradient: torch's bits in fewer passes.

torch differentiates a quotient with five operators on tensors of its size before it adds up; here it is one kernel,
torch's sum included.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.autograd.function import _SingleLevelFunction

from ..errors import CacheMissError
from ..launch.arguments import QuotientGradient, describe
from ..launch.buffers import run
from ..launch.registry import launches, prepare, remember
from ..layout import MAX_RANK
from ..reference import sum_of_rows
from ..spec import SUM_LANES
from .plain import NO_MODE, STOCK, included_keys, is_plain
from .results import result_like
from .spare import Spare

MOST_ROW = 2**16 - 1
"""Elements of the longest row of a channel that torch sums as the kernel does; the shortest has two."""

spare_gradients = Spare()
"""Knows those that come in to the functions of folded batch norm."""


class Quotient(_SingleLevelFunction):  # type: ignore[misc]  # torch's stub says Any
    """``x / divisor`` in the place of x, of which the gradient takes one pass.

    torch keeps x for the gradient, and batch norm keeps the quotient.  Here both keep the quotient, from which batch
    norm's gradient has just been made when this one begins: it is still in a cache, and a tensor less was written.

    Of a single level, as it is used where no transform of torch.func is; to look for one again would cost time.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
        """Divide in place.

        Parameters
        ----------
        x : torch.Tensor
            Shape (outer, channels, ...); nobody else has it.
        divisor : torch.Tensor
            Shape (1, channels, 1, ...).
        """
        ctx.mark_dirty(x.div_(divisor))
        ctx.save_for_backward(x, divisor)
        return x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients by both."""
        spare = spare_gradients.has(grad)
        quotient, divisor = ctx.saved_tensors
        if all(ctx.needs_input_grad) and not torch.is_grad_enabled():
            both = in_one_pass(quotient, divisor, grad, spare)
            if both is not None:
                return both
        by_x = grad / divisor if ctx.needs_input_grad[0] else None
        return by_x, by_divisor(quotient, divisor, grad) if ctx.needs_input_grad[1] else None


def by_divisor(quotient: torch.Tensor, divisor: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Return the gradient by the divisor, in operators that can be differentiated again."""
    return (-grad * (quotient / divisor)).sum_to_size(divisor.shape)


def in_one_pass(
    quotient: torch.Tensor, divisor: torch.Tensor, grad: torch.Tensor, spare: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the gradients by x, which takes grad's place if that is spare, and by the divisor; None if torch must.

    The divisor may be a vector.
    """
    if not (
        is_plain(grad) and is_plain(quotient) and is_plain(divisor)
        and quotient.dtype == divisor.dtype == grad.dtype == torch.float32
        and quotient.dim() <= MAX_RANK and quotient.shape == grad.shape
        and quotient.is_contiguous() and grad.is_contiguous() and divisor.is_contiguous()
        and included_keys().raw_repr() in NO_MODE
    ):  # fmt: skip
        return None
    key = ("quotient", quotient.shape)
    if (launch := launches.get(key)) is None:
        launch = remember(key, _plan(quotient))
    if launch is STOCK:
        return None
    by_x = grad if spare else result_like(quotient, quotient.dtype)
    summed = torch.empty_like(divisor)
    tensors = (each.detach() for each in (quotient, grad, divisor))  # tvm-ffi refuses those that require a gradient
    run(launch, *tensors, by_x, summed, from_torch=True)
    return by_x, summed


def _plan(quotient: torch.Tensor) -> Any:
    lanes, row = sum_lanes(), math.prod(quotient.shape[2:])
    if not lanes or quotient.shape[1] == 1 or not 2 <= row <= MOST_ROW:
        return STOCK
    return launch_or_stock(QuotientGradient(describe(quotient.detach(), "quotient"), 1, lanes))


def launch_or_stock(call: Any) -> Any:
    """Prepare a launch by rows, or say that torch must."""
    try:
        return prepare(call, iteration="rows")
    except CacheMissError:  # a library that was built without; torch is slower, not wrong
        return STOCK


@cache
def sum_lanes() -> int:
    """Return how many elements a vector of torch's sum has, which decides about its order; 0 if the order is another.

    Found out, as torch sums by vectors of AVX2 on CPUs that have longer ones, too.
    """
    values = np.random.default_rng(0).standard_normal((3, 5, 1207), np.float32)
    wanted = torch.from_numpy(values).sum((0, 2)).numpy()
    return next((lanes for lanes in SUM_LANES if np.array_equal(sum_of_rows(values, lanes), wanted)), 0)

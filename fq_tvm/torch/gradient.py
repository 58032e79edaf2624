"""The gradient of fake quantization, in one pass: what comes in, times the mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..errors import CacheMissError
from ..launch.arguments import Gradient, describe
from ..launch.buffers import run
from ..launch.registry import launch_of, launches, remember
from ..layout import MAX_RANK
from ..spec import FLOATS
from .plain import NO_MODE, PLAIN, included_keys, keys_of
from .results import result

KERNEL_MIN_ELEMENTS = 2**12
"""Elements from which a kernel of this library saves more than its launch from Python costs."""

DTYPES = frozenset(getattr(torch, name) for name in FLOATS)
"""Of gradients that a kernel serves.  torch's product of bfloat16 makes another NaN in vectors than beside them."""


def straight_through(
    grad: torch.Tensor,
    mask: torch.Tensor,
    multiply: Callable[[Any, Any], torch.Tensor] = torch.mul,
    spare: bool = False,
) -> torch.Tensor:
    """Return ``grad * mask``, with torch's bits and strides.

    Parameters
    ----------
    grad : torch.Tensor
        Any; a kernel serves float32 and float16 in the CPU's memory that nothing differentiates again.
    mask : torch.Tensor
        bool, of grad's shape.
    multiply : callable
        Gives the product where no kernel does.
    spare : bool
        Whether the product may take grad's place.
    """
    if (
        type(grad) is type(mask) is torch.Tensor
        and grad.numel() >= KERNEL_MIN_ELEMENTS
        and grad.dtype in DTYPES
        and keys_of(grad).raw_repr() in PLAIN
        and keys_of(mask).raw_repr() in PLAIN
        and included_keys().raw_repr() in NO_MODE
        and not (grad.requires_grad and torch.is_grad_enabled())
    ):
        key = ("straight through", grad.dtype, grad.shape, grad.stride(), mask.dtype, mask.shape, mask.stride())
        if (seen := launches.get(key)) is None:
            product = multiply(
                grad, mask
            )  # torch has rules of its own for the strides of a result; the next call has the same
            remember(key, (_plan(grad.detach(), mask, product), product.stride()))
            return product
        launch, strides = seen
        if launch is not None:
            grad = grad.detach() if grad.requires_grad else grad
            out = grad if spare and strides == grad.stride() else result(grad.shape, strides, grad.dtype)
            run(launch, grad, mask, out, from_torch=True)
            return out
    return multiply(grad, mask)


def _plan(grad: torch.Tensor, mask: torch.Tensor, out: torch.Tensor) -> Any:
    """Prepare a launch for tensors like these; None if torch is to multiply."""
    if mask.dtype != torch.bool or mask.shape != grad.shape or grad.dim() > MAX_RANK:
        return None
    try:
        return launch_of(Gradient(describe(grad, "grad"), describe(out, "out"), describe(mask, "mask")))
    except CacheMissError:  # a library that was built without; the product is slower, not wrong
        return None

"""Convolutions of ``torch.ao`` that train with batch norm folded into their weights: torch's bits in fewer passes.

Such a module divides what comes of the convolution by what its weights were multiplied with.  torch differentiates the
quotient with five operators on tensors of that size before it adds up; here it is one kernel, and torch's own sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, wraps
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.ao.nn.intrinsic.qat.modules import conv_fused
from torch.autograd.function import _SingleLevelFunction

from ..errors import CacheMissError
from ..launch.arguments import QuotientGradient, describe
from ..launch.buffers import run
from ..launch.registry import launches, prepare, remember
from ..layout import MAX_RANK
from ..reference import sum_of_rows
from ..spec import SUM_LANES
from .plain import NO_MODE, PLAIN, included_keys, keys_of, nobody_looks_on
from .results import result_like
from .spare import Spare

FOLDED = conv_fused._ConvBnNd
"""What the modules derive from, one for each number of dimensions and with or without a ReLU behind."""

METHOD = "_forward_approximate"

CONVOLVE = frozenset(each._conv_forward for each in (nn.Conv1d, nn.Conv2d, nn.Conv3d))
"""What gives a tensor that nobody else has."""

MOST_ROW = 2**16 - 1
"""Elements of the longest row of a channel that torch sums as the kernel does; the shortest is one of its vectors."""

MIN_ELEMENTS = 2**16
"""Elements of what comes of the convolution from which one kernel saves more than its way through Python costs."""


def _is_plain(tensor: Any) -> bool:
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and keys_of(tensor).raw_repr() in PLAIN


_spare = Spare()


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
        spare = _spare.has(grad)
        quotient, divisor = ctx.saved_tensors
        if all(ctx.needs_input_grad) and not torch.is_grad_enabled():
            both = _both(quotient, divisor, grad, spare)
            if both is not None:
                return both
        # in operators that can be differentiated again
        by_x = grad / divisor if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return by_x, None
        return by_x, (-grad * (quotient / divisor)).sum_to_size(divisor.shape)


def _both(
    quotient: torch.Tensor, divisor: torch.Tensor, grad: torch.Tensor, spare: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the gradients by x, which takes grad's place if that is spare, and by the divisor; None if torch must."""
    if not (
        quotient.dtype == divisor.dtype == grad.dtype == torch.float32
        and quotient.dim() <= MAX_RANK and quotient.shape == grad.shape
        and quotient.is_contiguous() and grad.is_contiguous() and divisor.is_contiguous()
        and _is_plain(quotient) and _is_plain(divisor) and _is_plain(grad)
        and included_keys().raw_repr() in NO_MODE
    ):  # fmt: skip
        return None
    key = ("quotient", quotient.shape)
    if (launch := launches.get(key)) is None:
        launch = remember(key, _plan(quotient))
    if launch is _STOCK:
        return None
    by_x = grad if spare else result_like(quotient, quotient.dtype)
    by_divisor = torch.empty_like(divisor)
    tensors = (each.detach() for each in (quotient, grad, divisor))  # tvm-ffi refuses those that require a gradient
    run(launch, *tensors, by_x, by_divisor, from_torch=True)
    return by_x, by_divisor


_STOCK = "stock"


def _plan(quotient: torch.Tensor) -> Any:
    lanes, row = sum_lanes(), math.prod(quotient.shape[2:])
    if not lanes or quotient.shape[1] == 1 or not lanes <= row <= MOST_ROW:
        return _STOCK
    try:
        return prepare(QuotientGradient(describe(quotient.detach(), "quotient"), 1, lanes), iteration="rows")
    except CacheMissError:  # a library that was built without; torch is slower, not wrong
        return _STOCK


@cache
def sum_lanes() -> int:
    """Return how many elements a vector of torch's sum has, which decides about its order; 0 if the order is another.

    Found out, as torch sums by vectors of AVX2 on CPUs that have longer ones, too.
    """
    values = np.random.default_rng(0).standard_normal((3, 5, 1207), np.float32)
    wanted = torch.from_numpy(values).sum((0, 2)).numpy()
    return next((lanes for lanes in SUM_LANES if np.array_equal(sum_of_rows(values, lanes), wanted)), 0)


def _approximate(module: Any, x: torch.Tensor, least: int = 0) -> torch.Tensor:
    """Do what torch's method does, with a quotient of our own."""
    norm = module.bn
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    ones = [1] * (module.weight.dim() - 2)
    weight = module.weight_fake_quant(module.weight * factor.reshape(-1, 1, *ones))
    zeros = torch.zeros(module.out_channels, device=weight.device, dtype=x.dtype)
    convolved = module._conv_forward(x, weight, zeros)
    divisor = factor.reshape(1, -1, *ones)
    in_place = convolved.numel() >= least and convolved.dtype == divisor.dtype
    quotient = Quotient.apply(convolved, divisor) if in_place else convolved / divisor
    return norm(quotient if module.bias is None else quotient + module.bias.reshape(1, -1, *ones))


def _method(stock: Callable[..., torch.Tensor], is_on: Callable[[], bool]) -> Callable[..., torch.Tensor]:
    """Return a method that does what torch's does.

    Parameters
    ----------
    stock : callable
        torch's own, which serves what is unusual.
    is_on : callable
        Whether ours is wanted.
    """

    @wraps(stock)  # by which torch.jit.script finds torch's source
    def forward(self: Any, input: torch.Tensor) -> torch.Tensor:
        if (
            is_on() and nobody_looks_on() and torch.is_grad_enabled()
            and _is_plain(input) and input.dtype == torch.float32
            and self.bn.running_var is not None and self.bn.weight is not None and self.bn.weight.requires_grad
            and _is_plain(self.bn.weight) and _is_plain(self.weight)
            and getattr(self._conv_forward, "__func__", None) in CONVOLVE
            and agrees(stock)
        ):  # fmt: skip
            return _approximate(self, input, MIN_ELEMENTS)
        return stock(self, input)

    return forward


_agrees: bool | None = None


def agrees(stock: Callable[..., torch.Tensor]) -> bool:
    """Whether torch's method and its gradients take the steps of this module, bit for bit, in this version of torch."""
    global _agrees
    if _agrees is None:
        _agrees = all(_compare(stock, bias) for bias in (False, True))
    return _agrees


def _compare(stock: Callable[..., torch.Tensor], bias: bool) -> bool:
    with torch.device("meta"):  # elsewhere, what is made draws from the program's generator
        module = conv_fused.ConvBn2d(3, 5, 3, bias=bias, qconfig=SimpleNamespace(weight=torch.nn.Identity))
    module = module.to_empty(device="cpu").to(torch.float32).train()
    numbers = torch.Generator().manual_seed(0)
    shapes = (4, 3, 18, 18), (4, 5, 16, 16), *(each.shape for each in module.parameters())
    x, grad, *values = (torch.randn(s, generator=numbers, dtype=torch.float32, device="cpu") for s in shapes)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)
    x.requires_grad_()
    found = []
    for method in (stock, _approximate):
        module.bn.reset_running_stats()
        out = method(module, x)
        with _spare.learning():  # nobody looks at what batch norm hands on
            gradients = torch.autograd.grad(out, (x, *module.parameters()), grad)
        found.append([out, *gradients, *module.buffers()])
        found[-1] = [each.detach().clone() for each in found[-1]]
    return all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def replace(is_on: Callable[[], bool]) -> Callable[[], None]:
    """Put a method in the place of torch's; return what puts torch's back, unless somebody else replaced it since."""
    stock = getattr(FOLDED, METHOD)
    ours = _method(stock, is_on)
    setattr(FOLDED, METHOD, ours)

    def restore() -> None:
        if FOLDED.__dict__.get(METHOD) is ours:
            setattr(FOLDED, METHOD, stock)

    return restore

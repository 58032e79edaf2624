"""Convolutions of ``torch.ao`` that train with batch norm folded into their weights: torch's bits in fewer passes.

Such a module multiplies its weights by a factor of each channel, observes and fake-quantizes them, and divides what
comes of the convolution by the factors again.  One method does so for all of them; it is replaced by a restatement.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.ao.nn.intrinsic.qat.modules import conv_fused
from torch.ao.quantization.fake_quantize import default_fused_per_channel_wt_fake_quant

from .folding import CONVOLVE, Convolution, Folded, Folding, fold, fold_again, of_channels, of_rows
from .plain import is_plain, nobody_looks_on
from .quotient import Quotient, spare_gradients

FOLDED = conv_fused._ConvBnNd
"""What the modules derive from, one for each number of dimensions and with or without a ReLU behind."""

METHOD = "_forward_approximate"

MIN_ELEMENTS = 2**16
"""Elements of what comes of a convolution from which a quotient of ours alone saves more than Python's way costs."""


def _approximate(module: Any, x: torch.Tensor, observing: Callable[..., Any], least: int = 0) -> torch.Tensor:
    """Do what torch's method does, with kernels of our own."""
    norm, bias, dimensions = module.bn, module.bias, module.weight.dim()
    if x.dim() == dimensions and x.numel() and (made := fold(module, observing)) is not None:
        return _convolved(x, *made)
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = module.weight_fake_quant(module.weight * of_rows(factor, dimensions))
    zeros = torch.zeros(module.out_channels, device=weight.device, dtype=x.dtype)
    convolved = module._conv_forward(x, weight, zeros)
    divisor = of_channels(factor, dimensions)
    in_place = convolved.numel() >= least and convolved.dtype == divisor.dtype
    quotient = Quotient.apply(convolved, divisor) if in_place else convolved / divisor
    return norm(quotient if bias is None else quotient + of_channels(bias, dimensions))


def _convolved(x: torch.Tensor, folding: Folding, made: Folded) -> torch.Tensor:
    out: torch.Tensor = Convolution.apply(x, *folding.tensors[:3], folding.tensors.gamma, folding, made)
    return out


def _method(
    stock: Callable[..., torch.Tensor], is_on: Callable[[], bool], observing: Callable[..., Any]
) -> Callable[..., torch.Tensor]:
    """Return a method that does what torch's does.

    Parameters
    ----------
    stock : callable
        torch's own, which serves what is unusual.
    is_on : callable
        Whether ours is wanted.
    observing : callable
        torch's own kernel of fused observers, by which it is known whether ours takes the same steps.
    """

    @wraps(stock)  # by which torch.jit.script finds torch's source
    def forward(self: Any, input: torch.Tensor) -> torch.Tensor:
        if (
            is_on() and nobody_looks_on() and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
            and not torch.is_autocast_enabled("cpu") and is_plain(input) and input.dtype == torch.float32
        ):  # fmt: skip
            if input.numel() and (made := fold_again(self, input.dim())) is not None:
                return _convolved(input, *made)
            norm = self.bn
            if (
                norm.running_var is not None and norm.weight is not None and norm.weight.requires_grad
                and is_plain(norm.weight) and is_plain(self.weight)
                and getattr(self._conv_forward, "__func__", None) in CONVOLVE
                and agrees(stock, observing)
            ):  # fmt: skip
                return _approximate(self, input, observing, MIN_ELEMENTS)
        return stock(self, input)

    return forward


_agrees: bool | None = None


def agrees(stock: Callable[..., torch.Tensor], observing: Callable[..., Any]) -> bool:
    """Whether torch's method and its gradients take the steps of this module, bit for bit, in this version of torch."""
    global _agrees
    if _agrees is None:
        ways = itertools.product((False, True), (nn.Identity, default_fused_per_channel_wt_fake_quant))
        _agrees = all(_compare(stock, observing, *way) for way in ways)
    return _agrees


def _compare(
    stock: Callable[..., torch.Tensor], observing: Callable[..., Any], bias: bool, quantizer: Callable[..., Any]
) -> bool:
    with torch.device("meta"):  # elsewhere, what is made draws from the program's generator
        module = conv_fused.ConvBn2d(3, 5, 3, bias=bias, qconfig=SimpleNamespace(weight=nn.Identity))
    module = module.to_empty(device="cpu").to(torch.float32).train()
    numbers = torch.Generator().manual_seed(0)
    shapes = (4, 3, 18, 18), (4, 5, 16, 16), *(each.shape for each in module.parameters())
    x, grad, *values = (torch.randn(s, generator=numbers, dtype=torch.float32, device="cpu") for s in shapes)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)
    x.requires_grad_()
    found = []
    for method in (stock, partial(_approximate, observing=observing)):
        module.bn.reset_running_stats()
        with torch.device("cpu"):
            module.weight_fake_quant = quantizer()
        method(module, x)  # after which there is a range so far
        out = method(module, x)
        with spare_gradients.learning():  # nobody looks at what batch norm and the change of sign hand on
            gradients = torch.autograd.grad(-out, (x, *module.parameters()), grad)
        found.append([out, *gradients, *module.buffers()])
        found[-1] = [each.detach().clone() for each in found[-1]]
    return all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def replace(is_on: Callable[[], bool], observing: Callable[..., Any]) -> Callable[[], None]:
    """Put a method in the place of torch's; return what puts torch's back, unless somebody else replaced it since."""
    stock = getattr(FOLDED, METHOD)
    ours = _method(stock, is_on, observing)
    setattr(FOLDED, METHOD, ours)

    def restore() -> None:
        if FOLDED.__dict__.get(METHOD) is ours:
            setattr(FOLDED, METHOD, stock)

    return restore

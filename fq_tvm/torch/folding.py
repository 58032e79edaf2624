"""A convolution by weights into which batch norm was folded, which torch.ao then observes and fake-quantizes.

What is done to the weights is one kernel there and one back.  A module is remembered, as :mod:`.quantizing` says.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from collections.abc import Sequence as Several
from functools import cache
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import _SingleLevelFunction
from torch.nn.modules.module import _has_any_global_hook

from ..launch.arguments import (
    FoldedNorm,
    FoldedNormGradient,
    FoldedWeights,
    FoldedWeightsGradient,
    ObservedParameters,
    describe,
)
from ..launch.buffers import run
from ..launch.registry import launches, remember
from ..launch.runtime import AddressTensor
from ..launch.sequence import DONE, Fixed, Given, Scratch, Sequence, Step
from ..layout import MAX_RANK
from ..store import records
from .observer import are_apart
from .plain import NO_MODE, STOCK, included_keys, is_plain
from .quantizing import Quantizing, is_replaced_by_others, places, quantizing_of, sequence_or_none
from .quotient import MOST_ROW, by_divisor, in_one_pass, launch_or_stock, spare_gradients, sum_lanes
from .results import result_like

CONVOLVE = {
    nn.Conv1d._conv_forward: (torch.conv1d, nn.BatchNorm1d),
    nn.Conv2d._conv_forward: (torch.conv2d, nn.BatchNorm2d),
    nn.Conv3d._conv_forward: (torch.conv3d, nn.BatchNorm3d),
}
"""What convolves where padding is a number of zeros, and what normalizes, by the methods that convolve, which give a
tensor that nobody else has."""

NORMALIZE = nn.modules.batchnorm._BatchNorm.forward

_backward_of_convolution = torch.ops.aten.convolution_backward.default
_backward_of_norm = torch.ops.aten.native_batch_norm_backward.default


class Folded(NamedTuple):
    """What is made of weights into which batch norm is folded.

    Parameters
    ----------
    weight, mask : torch.Tensor
        Fake-quantized, and where that is in range.
    factor, sigma : torch.Tensor
        Shape (channels,): what weights were multiplied with, and what batch norm's weight was divided by for it.
    """

    weight: torch.Tensor
    mask: torch.Tensor
    factor: torch.Tensor
    sigma: torch.Tensor


class _Tensors(NamedTuple):
    """Those of a module, as its dictionaries have them."""

    weight: torch.Tensor
    gamma: torch.Tensor
    beta: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    batches: torch.Tensor


def _tensors_of(module: Any) -> _Tensors:
    """Raise KeyError where one is something else than a parameter or buffer."""
    norm = module._modules["bn"]
    own, buffers = norm._parameters, norm._buffers
    statistics = buffers["running_mean"], buffers["running_var"], buffers["num_batches_tracked"]
    return _Tensors(module._parameters["weight"], own["weight"], own["bias"], *statistics)


def _is_changed(module: Any) -> bool:
    """Whether to call a module is more than its class's method."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        or "forward" in module.__dict__
    )  # fmt: skip


def _numbers(module: Any, tensors: _Tensors) -> tuple[Any, ...]:
    """Return what folding depends on, besides the quantizer and the tensors, to be compared with what it was."""
    norm, (weight, gamma, beta, mean, variance, _) = module._modules["bn"], tensors
    changed = _is_changed(norm) or _is_changed(module._modules["weight_fake_quant"])
    return (
        weight.requires_grad, gamma.requires_grad, beta.requires_grad, mean.requires_grad, variance.requires_grad,
        module._conv_forward.__func__,
        module.stride, module.padding, module.dilation, module.groups, module.padding_mode,
        module._parameters["bias"] is None, norm.eps, norm.momentum, norm.training, norm.track_running_stats,
        type(norm.eps), type(norm.momentum), changed,  # as a tensor may equal a number and be another as float64
    )  # fmt: skip


class Folding:
    """How a module folds, as long as it is in the state in which it was looked at.

    Parameters
    ----------
    module : torch.ao.nn.intrinsic.qat.ConvBn2d or of another dimension
        Convolved by one of ``CONVOLVE``.
    quantizing : Quantizing
        Of its weights.

    Attributes
    ----------
    fits : bool
        Whether kernels can do it.
    dimensions : int
        Of weights, and of what they are convolved with.
    """

    def __init__(self, module: Any, quantizing: Quantizing) -> None:
        self.tensors = tensors = _tensors_of(module)
        weight, norm = tensors.weight, module._modules["bn"]
        self._numbers, self._places = _numbers(module, tensors), (places(tensors), weight.shape, weight.stride())
        self._quantizer, self._quantizing = weakref.ref(module._modules["weight_fake_quant"]), quantizing
        self.dimensions = weight.dim()
        convolve, self._kind_of_norm = CONVOLVE[module._conv_forward.__func__]
        self._convolve: Any = convolve
        self._strides, self._groups = (module.stride, module.padding, module.dilation), module.groups
        self.momentum, self.epsilon = norm.momentum, norm.eps
        channels, vectors = len(weight), tensors[1:5]
        self.fits = bool(
            quantizing.per_channel and quantizing.channels == channels > 1 and not self._numbers[-1]
            and module.padding_mode == "zeros" and type(module.padding) is tuple and module._parameters["bias"] is None
            and type(norm) is self._kind_of_norm and norm.training and norm.track_running_stats
            and type(norm.momentum) in (float, int) and type(norm.eps) is float and norm.eps > 0
            and self.dimensions <= MAX_RANK and weight.is_contiguous() and all(t.requires_grad for t in tensors[:3])
            and not any(t.requires_grad for t in tensors[3:]) and not any(t.is_inference() for t in tensors)
            and all(map(is_plain, tensors)) and all(t.dtype == torch.float32 for t in (weight, *vectors))
            and all(t.numel() == channels and t.is_contiguous() for t in vectors)
            and are_apart([weight, *vectors, *quantizing.tensors[:4]])
        )  # fmt: skip
        self._vectors = [AddressTensor(t.data_ptr()) for t in vectors]
        self._zeros = torch.zeros_like(tensors.variance)
        self._launch: tuple[bool | None, Sequence | None] = None, None

    def is_like(self, module: Any) -> bool:
        """Whether a module is as it was when it was looked at, its tensors' memory aside."""
        tensors, quantizer = _tensors_of(module), module._modules["weight_fake_quant"]
        return (
            all(map(is_, tensors, self.tensors)) and _numbers(module, tensors) == self._numbers
            and quantizer is self._quantizer() and self._quantizing.is_like(quantizer)
        )  # fmt: skip

    def is_of(self, module: Any, quantizing: Quantizing) -> bool:
        """Whether a module is still in the state in which it was looked at."""
        weight = self.tensors.weight
        found = places(self.tensors), weight.shape, weight.stride()
        return quantizing is self._quantizing and self.is_like(module) and found == self._places

    def _given(self) -> tuple[torch.Tensor, ...]:
        """Return the module's tensors, as a sequence of launches takes them."""
        weight, gamma, beta, *statistics = self.tensors
        return (weight.detach(), gamma.detach(), beta.detach(), *statistics, *self._quantizing.tensors)

    def _made(self) -> Folded:
        """Return what is to be made of weights, of which only sigma is there."""
        weight, variance = self.tensors.weight, self.tensors.variance
        sigma = torch.sqrt(variance + self.epsilon)  # torch's own root, which is not always the nearest float32
        results = result_like(weight, torch.float32), result_like(weight, torch.bool), torch.empty_like(sigma)
        return Folded(*results, sigma)

    def fold(self) -> Folded | None:
        """Fold, observe and fake-quantize as was prepared.

        Returns
        -------
        Folded
            None, with nothing written, where nothing was prepared, the module's tensors or switches are not as they
            were then, or torch must.
        """
        _, launch = self._launch
        if launch is None or is_replaced(self._kind_of_norm) or _has_any_global_hook():
            return None
        made = self._made()
        return made if launch(*made, *self._given()) == DONE else None

    def prepare(self) -> bool:
        """Prepare for what the quantizer's switches say now; return whether there is anything new."""
        parameters = self._quantizing.parameters()
        if parameters is None or self._launch[0] is parameters.observes:
            return False
        key = ("folded", self.tensors.weight.shape, parameters)
        if (launch := launches.get(key)) is None:
            call = FoldedWeights(describe(self.tensors.weight.detach(), "weight"), parameters)
            launch = remember(key, launch_or_stock(call))
        if launch is STOCK:
            return False
        self._launch = parameters.observes, self._sequence(launch, parameters)
        return True

    def _sequence(self, launch: Any, parameters: ObservedParameters) -> Sequence | None:
        made = [describe(t, "made") for t in self._made()]
        own = [Fixed(describe(t, "tensor")) for t in self._given()[: len(self.tensors)]]
        numbers = [*map(Given, range(len(made) + len(own) + 4))]
        out, mask, factor, sigma, weight, gamma, *_ = numbers
        served = Scratch(0)
        step = Step(launch, (weight, gamma, sigma, *numbers[-4:], served, out, mask, factor), proceed=served)
        return sequence_or_none([*made, *own, *self._quantizing.fixed(parameters)], [step], (4,))

    def convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Convolve with weights, where gradients are off; give a tensor that nobody else has."""
        if not x.requires_grad:
            weight = weight.detach().requires_grad_()
        torch._C._set_grad_enabled(True)  # so that torch chooses among its algorithms as if it were to differentiate
        try:
            return self.convolve_again(x, weight).detach()
        finally:
            torch._C._set_grad_enabled(False)

    def convolve_again(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Convolve in a way that is differentiated."""
        out: torch.Tensor = self._convolve(x, weight, self._zeros, *self._strides, self._groups)
        return out

    def gradients_of_norm(
        self, grad: torch.Tensor, quotient: torch.Tensor, gamma: torch.Tensor, statistics: Several[torch.Tensor]
    ) -> Any:
        """Return the gradients of batch norm by what went in, gamma and beta."""
        return _backward_of_norm(grad, quotient, gamma, *statistics, True, self.epsilon, [True] * 3)

    def normalize(self, x: torch.Tensor, divisor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Divide in place, and do what batch norm does in training.

        Returns
        -------
        quotient, out, mean, inverse : torch.Tensor
            The quotient in x's place, the result, and the statistics that are kept for the gradient.
        """
        self.tensors.batches.add_(1)
        key = ("folded norm", x.shape, x.stride(), self.momentum, self.epsilon)
        if (launch := launches.get(key)) is None:
            launch = remember(key, self._plan_norm(x))
        if launch is STOCK:
            nn.functional._verify_batch_size(x.shape)
            quotient = x.div_(of_channels(divisor, self.dimensions))
            _, *vectors, _ = self.tensors
            return quotient, *torch.native_batch_norm(quotient, *vectors, True, self.momentum, self.epsilon)
        out, mean, inverse = result_like(x, x.dtype), torch.empty_like(divisor), torch.empty_like(divisor)
        run(launch, x, divisor, *self._vectors, x, out, mean, inverse, from_torch=True)
        return x, out, mean, inverse

    def _plan_norm(self, x: torch.Tensor) -> Any:
        # images of one element may count as lying with their channels last, which torch sums in another order
        if not x.is_contiguous() or math.prod(x.shape[2:]) < 2 or not norm_agrees():
            return STOCK
        return launch_or_stock(FoldedNorm(describe(x, "x"), self.momentum, self.epsilon))

    def unnormalize(
        self, grad: torch.Tensor, quotient: torch.Tensor, vectors: Several[torch.Tensor], spare: bool
    ) -> tuple[torch.Tensor, ...]:
        """Return the gradients of :meth:`normalize`.

        Parameters
        ----------
        grad, quotient : torch.Tensor
            What comes in, and what was normalized.
        vectors : sequence of torch.Tensor
            Shape (channels,): divisor, gamma, the running statistics, and the two that were kept.
        spare : bool
            Whether grad may be overwritten.

        Returns
        -------
        by_x, by_divisor, by_gamma, by_beta : torch.Tensor
        """
        divisor, gamma, *statistics = vectors
        launch = _launch_of_norm_gradient(grad, quotient)
        # others may have put other memory into the module's own since
        if launch is STOCK or not all(_is_vector(t, divisor.shape) for t in (gamma, *statistics[:2])):
            by_quotient, *others = self.gradients_of_norm(grad, quotient, gamma, statistics)
            both = in_one_pass(quotient, divisor, by_quotient, spare=True)
            if both is None:
                each = of_channels(divisor, self.dimensions)
                both = by_quotient / each, by_divisor(quotient, each, by_quotient).view(-1)
            return *both, *others
        by_x = grad if spare else result_like(quotient, quotient.dtype)
        others = [torch.empty_like(divisor) for _ in range(3)]
        given = grad.detach(), divisor, gamma.detach(), *statistics[2:]
        run(launch, quotient, *given, by_x, *others, from_torch=True)
        return by_x, *others

    def gradients(
        self, by_out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return the gradients of what :meth:`convolve` gives by x, if that is wanted, and by the weights."""
        numbers = *self._strides, False, [0] * (self.dimensions - 2), self._groups
        by_x, by_weight, _ = _backward_of_convolution(by_out, x, weight, None, *numbers, [wanted, True, False])
        return by_x, by_weight

    def unfold(
        self, weight: torch.Tensor, by_folded: torch.Tensor, made: Several[torch.Tensor], by_factor: torch.Tensor
    ) -> Any:
        """Return the gradients by weight, in the place of that by what was made of it, and by gamma.

        Parameters
        ----------
        weight, by_folded : torch.Tensor
            Nobody else has the latter.
        made : sequence of torch.Tensor
            As :class:`Folded`.
        by_factor : torch.Tensor
            As it comes from the quotient.

        Returns
        -------
        tuple of torch.Tensor
            None if torch must.
        """
        if not (
            is_plain(by_folded) and by_folded.is_contiguous() and by_factor.is_contiguous()
            and weight.shape == by_folded.shape and weight.dtype == torch.float32 and weight.is_contiguous()
        ):  # fmt: skip
            return None
        key = ("unfolded", by_folded.shape)
        if (launch := launches.get(key)) is None:
            launch = remember(key, _plan_unfolding(by_folded))
        if launch is STOCK:
            return None
        by_gamma = torch.empty_like(by_factor)
        run(launch, weight.detach(), by_folded, *made[1:], by_factor, by_folded, by_gamma, from_torch=True)
        return by_folded, by_gamma


@cache
def norm_agrees() -> bool:
    """Whether torch's batch norm takes the steps of ours, bit for bit: builds without fused operations take others."""
    numbers, shapes = torch.Generator().manual_seed(0), ((3, 13, 6, 7), *[(13,)] * 4)
    for momentum in (0.1, 0.37):
        x, *vectors = (torch.randn(s, generator=numbers, dtype=torch.float32, device="cpu") for s in shapes)
        gamma, beta, *running = vectors
        ours, ones = [each.clone() for each in running], torch.ones_like(gamma)
        launch = launch_or_stock(FoldedNorm(describe(x, "x"), momentum, 1e-5))
        if launch is STOCK:
            return False
        wanted = [*torch.native_batch_norm(x, gamma, beta, *running, True, momentum, 1e-5), *running]
        made = torch.empty_like(x), torch.empty_like(beta), torch.empty_like(beta)
        run(launch, x, ones, gamma, beta, *ours, x, *made, from_torch=True)
        if not all(map(torch.equal, wanted, (*made, *ours))):
            return False
    return True


@cache
def norm_gradient_agrees() -> bool:
    """Whether the gradients that torch makes of batch norm and a quotient have the bits of ours."""
    numbers = torch.Generator().manual_seed(0)
    for inner in ((6, 7), (1, 3)):
        shapes = *[(3, 13, *inner)] * 2, *[(13,)] * 2
        x, grad, divisor, gamma = (torch.randn(s, generator=numbers, dtype=torch.float32, device="cpu") for s in shapes)
        launch = launch_or_stock(FoldedNormGradient(describe(x, "x"), sum_lanes()))
        if launch is STOCK:
            return False
        running = torch.zeros_like(gamma), torch.ones_like(gamma)
        _, *kept = torch.native_batch_norm(x, gamma, gamma, *running, True, 0.1, 1e-5)
        by_x, *others = _backward_of_norm(grad, x, gamma, *running, *kept, True, 1e-5, [True] * 3)
        each = of_channels(divisor, 4)
        wanted = by_x / each, by_divisor(x, each, by_x).view(-1), *others
        made = torch.empty_like(x), *(torch.empty_like(gamma) for _ in range(3))
        run(launch, x, grad, divisor, gamma, *kept, *made, from_torch=True)
        if not all(map(torch.equal, wanted, made)):
            return False
    return True


def _launch_of_norm_gradient(grad: torch.Tensor, quotient: torch.Tensor) -> Any:
    """Return the launch for a gradient that comes in; ``STOCK`` if torch must."""
    if not (
        is_plain(grad) and grad.dtype == torch.float32 and grad.shape == quotient.shape
        and grad.is_contiguous() and quotient.is_contiguous() and included_keys().raw_repr() in NO_MODE
    ):  # fmt: skip
        return STOCK
    key = ("folded norm gradient", quotient.shape)
    launch = launches.get(key)
    return remember(key, _plan_norm_gradient(quotient)) if launch is None else launch


def _plan_norm_gradient(quotient: torch.Tensor) -> Any:
    row = math.prod(quotient.shape[2:])
    if not sum_lanes() or quotient.shape[1] == 1 or not 2 <= row <= MOST_ROW or not norm_gradient_agrees():
        return STOCK
    return launch_or_stock(FoldedNormGradient(describe(quotient, "quotient"), sum_lanes()))


def is_replaced(kind_of_norm: Any) -> bool:
    """Whether somebody else replaced a method that is restated here."""
    return is_replaced_by_others() or kind_of_norm.forward is not NORMALIZE


def _plan_unfolding(by_folded: torch.Tensor) -> Any:
    lanes = sum_lanes()
    if not lanes or not 2 <= by_folded[0].numel() <= MOST_ROW:
        return STOCK
    return launch_or_stock(FoldedWeightsGradient(describe(by_folded, "grad"), lanes))


_foldings: weakref.WeakKeyDictionary[Any, Folding] = weakref.WeakKeyDictionary()
records.when_forgotten(_foldings.clear)


def fold_again(module: Any, dimensions: int) -> tuple[Folding, Folded] | None:
    """Fold, observe and fake-quantize the weights of a module that is still as it was.

    Parameters
    ----------
    module : torch.ao.nn.intrinsic.qat.ConvBn2d or of another dimension
        Any.
    dimensions : int
        Of what it convolves.

    Returns
    -------
    Folding, Folded
        How, and what was made; None, with nothing written, where it was not :func:`fold` before or has changed.
    """
    folding = _foldings.get(module)
    try:
        if folding is None or folding.dimensions != dimensions or not folding.is_like(module):
            return None
    except (KeyError, AttributeError):
        return None
    made = folding.fold()
    return None if made is None else (folding, made)


def fold(module: Any, observing: Callable[..., Any]) -> tuple[Folding, Folded] | None:
    """Do the same for a module that is convolved by one of ``CONVOLVE``; None, with nothing written, if torch must."""
    folding = folding_of(module, observing)
    if folding is None or not folding.prepare() or (made := folding.fold()) is None:
        return None
    return folding, made


def folding_of(module: Any, observing: Callable[..., Any]) -> Folding | None:
    """Return how a module folds; None if torch must."""
    quantizing = quantizing_of(module.weight_fake_quant, observing)
    if quantizing is None:
        return None
    try:
        folding = _foldings.get(module)
        if folding is None or not folding.is_of(module, quantizing):
            folding = Folding(module, quantizing)
            if not all(t.is_leaf for t in folding.tensors):  # as functional_call puts there, and takes away again
                return None
            _foldings[module] = folding
    except (KeyError, AttributeError, RuntimeError):  # a weight that is computed, for instance
        return None
    return folding if folding.fits else None


class Convolution(_SingleLevelFunction):  # type: ignore[misc]  # torch's stub says Any
    """A convolution by folded, fake-quantized weights, divided by what they were multiplied with, and batch norm."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        """Convolve, divide and normalize.

        Parameters
        ----------
        x : torch.Tensor
            What goes in.
        *rest
            Weight, gamma and beta of the module; how it folds; and what it made of its weights.
        """
        weight, gamma, _, _, folding, made = rest
        quotient, out, mean, inverse = folding.normalize(folding.convolve(x, made.weight), made.factor)
        ctx.folding = folding
        running = folding.tensors.mean, folding.tensors.variance  # as torch does, which tells when they are written to
        ctx.save_for_backward(x, weight, gamma, *made, quotient, *running, mean, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients by x, weight, gamma and beta."""
        spare = spare_gradients.has(grad)
        x, weight, gamma, folded, mask, factor, sigma, quotient, *statistics = ctx.saved_tensors
        folding: Folding = ctx.folding
        if torch.is_grad_enabled():
            return _differentiable(ctx, grad, ctx.saved_tensors)
        vectors = factor, gamma, *statistics
        by_convolved, by_factor, by_gamma, by_beta = folding.unnormalize(grad, quotient, vectors, spare)
        by_x, by_folded = folding.gradients(by_convolved, x, folded, ctx.needs_input_grad[0])
        found = folding.unfold(weight, by_folded, (folded, mask, factor, sigma), by_factor)
        if found is None:
            straight, rows = by_folded * mask, of_rows(factor, folding.dimensions)
            straight_by_factor = (straight * weight).sum_to_size(rows.shape).view(-1)
            by_factor = straight_by_factor.to(by_factor.dtype) + by_factor
            found = straight * rows, by_factor / sigma
        by_weight, also = found
        return by_x, by_weight, by_gamma, by_beta, also, None, None


def _differentiable(ctx: Any, grad: torch.Tensor, saved: Several[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients in operators that can be differentiated again, of what comes of parameters again, too."""
    x, weight, gamma, made, mask, _, sigma, _, *statistics = saved
    folding: Folding = ctx.folding
    factor = gamma / sigma
    folded = Straight.apply(weight * of_rows(factor, folding.dimensions), made, mask)
    quotient = folding.convolve_again(x, folded) / of_channels(factor, folding.dimensions)
    by_quotient, by_gamma, by_beta = folding.gradients_of_norm(grad, quotient, gamma, statistics)
    wanted = (x, weight, gamma) if ctx.needs_input_grad[0] else (weight, gamma)
    *by_x, by_weight, also = torch.autograd.grad(quotient, wanted, by_quotient, create_graph=True)
    return by_x[0] if by_x else None, by_weight, by_gamma, by_beta, also, None, None


class Straight(_SingleLevelFunction):  # type: ignore[misc]
    """What fake quantization made of x, for where its gradient is differentiated."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, made: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return what was made of x, which is not known to come of it."""
        del x
        ctx.save_for_backward(mask)
        return made.view_as(made)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient by x."""
        (mask,) = ctx.saved_tensors
        return grad * mask, None, None


def _is_vector(tensor: torch.Tensor, shape: torch.Size) -> bool:
    return bool(tensor.dtype == torch.float32 and tensor.shape == shape and tensor.is_contiguous())


def of_channels(vector: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Return a vector as it meets what a convolution gives."""
    return vector.view(1, -1, *[1] * (dimensions - 2))


def of_rows(vector: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Return a vector as it meets weights."""
    return vector.view(-1, *[1] * (dimensions - 1))

"""The modules of torch.ao that observe and fake-quantize at once: torch's bits with less on the way there.

A network has dozens of them, most for small tensors, where the way through torch's dispatcher into Python costs more
than the kernels.  So the module's method is replaced, too.  To find out that a module is as usual must not cost much
either: it is remembered, with all that could tell that it is not so any more, and so are its launches, as one sequence
that sees for itself whether the tensors are where they were.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from collections.abc import Sequence as Several
from functools import wraps
from operator import is_
from typing import Any, NamedTuple

import torch
from torch.ao.quantization import fake_quantize
from torch.autograd.function import _SingleLevelFunction

from ..errors import BuildError
from ..launch.arguments import ObservedParameters, Operand, describe
from ..launch.sequence import ANY, DONE, OFF, ON, Fixed, Given, Scratch, Sequence, Step
from ..layout import MAX_RANK
from ..store import records
from . import find
from .gradient import straight_through
from .observer import Observation, agrees, are_switches, fit, in_reach, observe
from .plain import STOCK, is_plain, nobody_looks_on
from .results import result_like
from .spare import Spare

QUANTIZER = fake_quantize.FusedMovingAvgObsFakeQuantize
METHOD = "forward"

spare_gradients = Spare()
"""Knows those that come in to :class:`Quantized`."""


class Tensors(NamedTuple):
    """Those of a module, as its dictionaries have them."""

    least: torch.Tensor
    greatest: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    observes: torch.Tensor
    quantizes: torch.Tensor


def _tensors_of(module: Any) -> Tensors:
    """Raise KeyError where one is something else than a buffer."""
    seen, own = module._modules["activation_post_process"]._buffers, module._buffers
    switches = own["observer_enabled"], own["fake_quant_enabled"]
    return Tensors(seen["min_val"], seen["max_val"], own["scale"], own["zero_point"], *switches)


_address, _elements = torch.Tensor.data_ptr, torch.Tensor.numel
_is_contiguous, _dtype = torch.Tensor.is_contiguous, torch.Tensor.dtype.__get__


def places(tensors: Several[torch.Tensor]) -> tuple[Any, ...]:
    """Return what tells whether tensors are still in the same place, and of one size, order and dtype."""
    return (
        *map(_address, tensors), *map(_elements, tensors), *map(_is_contiguous, tensors), *map(_dtype, tensors),
    )  # fmt: skip


def _numbers(module: Any) -> tuple[Any, ...]:
    """Return what the module does depends on, besides its tensors, to be compared with what it was."""
    seen = module._modules["activation_post_process"]
    return (
        seen.averaging_constant, seen.quant_min, seen.quant_max,
        module.is_per_channel, module.ch_axis, module.is_symmetric_quant,
    )  # fmt: skip


MOST_SHAPES = 32
"""Of tensors for which a module's launches are remembered."""

PATIENCE = 2**12
"""Tensors of other shapes that are launched one by one before these are forgotten for them: to prepare costs more."""


class Quantizing:
    """How a module observes and fake-quantizes, as long as it is in the state in which it was looked at.

    Parameters
    ----------
    module : torch.ao.quantization.FusedMovingAvgObsFakeQuantize
        Which.
    observing : callable
        torch's own kernel of fused observers, by which it is known whether ours takes the same steps.

    Attributes
    ----------
    tensors : Tensors
        Of the module.
    channels : int
        Of scale and zero point.
    per_channel : bool
        Whether the first dimension has one each.
    fits : bool
        Whether kernels can do it.
    """

    def __init__(self, module: Any, observing: Callable[..., Any]) -> None:
        self.tensors = tensors = _tensors_of(module)
        self._numbers, self._places = _numbers(module), places(tensors)
        constant, low, high, self.per_channel, self._axis, symmetric = self._numbers
        self.channels = tensors.scale.numel() if self.per_channel else 1
        self.fits = bool(
            type(module) is QUANTIZER and (self._axis == 0 or not self.per_channel) and type(constant) in (float, int)
            and all(map(is_plain, tensors)) and are_switches(*tensors[4:])
            and fit(tensors[:4], self.channels) and in_reach(low, high) and agrees(observing)
        )  # fmt: skip
        numbers = (self.channels, bool(symmetric), constant, low, high)
        self._parameters = [ObservedParameters(*numbers, observes, True) for observes in (False, True)]
        self._launches: dict[Any, tuple[bool, Sequence | None]] = {}
        self._others = 0

    def is_like(self, module: Any) -> bool:
        """Whether a module is as it was when it was looked at, its tensors' memory aside."""
        least, greatest, scale, _, _, _ = self.tensors
        return (
            all(map(is_, _tensors_of(module), self.tensors)) and _numbers(module) == self._numbers
            and not (least.requires_grad or greatest.requires_grad or scale.requires_grad)
        )  # fmt: skip

    def is_of(self, module: Any) -> bool:
        """Whether a module is still in the state in which it was looked at."""
        return self.is_like(module) and places(self.tensors) == self._places

    def parameters(self) -> ObservedParameters | None:
        """Return how parameters are chosen now; None if nothing is to be quantized."""
        if not self.tensors.quantizes.item():
            return None
        return self._parameters[bool(self.tensors.observes.item())]

    def fixed(self, parameters: ObservedParameters) -> list[Fixed]:
        """Return what the module's tensors have to be for a sequence of launches."""
        says = *[ANY] * 4, ON if parameters.observes else OFF, ON
        return [Fixed(describe(t, "buffer"), each) for t, each in zip(self.tensors, says, strict=True)]

    def quantize(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Observe and fake-quantize a float32 tensor as was prepared for those like it.

        Returns
        -------
        out, mask : torch.Tensor
            Of x's shape.  None, with nothing written, where nothing was prepared, the module's tensors or switches are
            not as they were then, or torch must, as a bound is not finite.
        """
        _, launch = self._launches.get((x.shape, x.stride()), (False, None))
        if launch is None:
            return None
        out, mask = result_like(x, torch.float32), result_like(x, torch.bool)
        return (out, mask) if launch(x.detach(), out, mask, *self.tensors) == DONE else None

    def quantize_anew(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Do the same where nothing was prepared for tensors like x and what switches say now, and prepare."""
        if not self._axis < x.dim() <= MAX_RANK or (self.per_channel and (x.dim() == 1 or len(x) != self.channels)):
            return None
        parameters, key = self.parameters(), (x.shape, x.stride())
        if parameters is None or self._launches.get(key, (None,))[0] is parameters.observes:
            return None
        found = find.observation(x, self.tensors[:4], self.per_channel, parameters)
        if found is STOCK:
            return None
        if len(self._launches) >= MOST_SHAPES and key not in self._launches:
            self._others += 1
            if self._others < PATIENCE:
                return self._at_once(x, found)
            self._launches.clear()
            self._others = 0
        self._launches[key] = parameters.observes, self._sequence(x.detach(), found, parameters)
        return self.quantize(x)

    def _at_once(self, x: torch.Tensor, found: Observation) -> tuple[torch.Tensor, torch.Tensor] | None:
        if not observe(found, x, self.tensors[:4], self.channels):
            return None
        return find.fake_quantize(found.quantize, x, *self.tensors[2:4])

    def _sequence(self, x: torch.Tensor, found: Observation, parameters: ObservedParameters) -> Sequence | None:
        of_x = result_like(x, torch.float32), result_like(x, torch.bool)
        tensors: list[Operand | Fixed] = [*(describe(t, "x") for t in (x, *of_x)), *self.fixed(parameters)]
        given, made, mask, *buffers = map(Given, range(7))
        served, *bounds = map(Scratch, range(3))
        steps = [Step(found.choose, (*(bounds if found.find else buffers[:2]), *buffers, served), proceed=served)]
        if found.find:
            steps.insert(0, Step(found.find, (given, *bounds)))
        steps.append(Step(found.quantize, (given, *buffers[2:], made, mask)))
        return sequence_or_none(tensors, steps, (4, 4 * self.channels, 4 * self.channels))


def sequence_or_none(tensors: Several[Operand | Fixed], steps: Several[Step], scratch: Several[int]) -> Sequence | None:
    """Prepare a sequence; None where torch must: no cache has its code and none may be built, or this CPU has none."""
    try:
        return Sequence(tensors, steps, scratch)
    except BuildError:
        return None


_seen: weakref.WeakKeyDictionary[Any, Quantizing] = weakref.WeakKeyDictionary()
records.when_forgotten(_seen.clear)


def quantizing_of(module: Any, observing: Callable[..., Any]) -> Quantizing | None:
    """Return how a module observes and fake-quantizes; None if torch must."""
    try:
        how = _seen.get(module)
        if how is None or not how.is_of(module):
            how = _seen[module] = Quantizing(module, observing)
    except (KeyError, AttributeError, RuntimeError):  # another kind of module, or a tensor that is computed
        return None
    return how if how.fits else None


def quantize(module: Any, x: torch.Tensor, observing: Callable[..., Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Observe and fake-quantize as a module does; None, with nothing written, where torch must."""
    try:
        how = _seen.get(module)
        if how is not None and how.is_like(module) and (made := how.quantize(x)) is not None:
            return made
    except (KeyError, AttributeError):
        return None
    how = quantizing_of(module, observing)
    return None if how is None else how.quantize_anew(x)


class Quantized(_SingleLevelFunction):  # type: ignore[misc]  # torch's stub says Any
    """What fake quantization made of x, through which the gradient goes straight where the mask is true."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, made: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the first of what was made of x, which nobody else has; the second is the mask."""
        del x
        out, mask = made
        ctx.save_for_backward(mask)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient by x."""
        spare = spare_gradients.has(grad)
        (mask,) = ctx.saved_tensors
        return straight_through(grad, mask, spare=spare), None


def _method(
    stock: Callable[..., torch.Tensor], is_on: Callable[[], bool], observing: Callable[..., Any]
) -> Callable[..., torch.Tensor]:
    @wraps(stock)  # by which torch.jit.script finds torch's source
    def forward(self: Any, X: torch.Tensor) -> torch.Tensor:  # its name, by which it may be given
        if is_on() and nobody_looks_on() and is_plain(X) and X.dtype == torch.float32:
            made = quantize(self, X, observing)
            if made is not None:
                differentiates = X.requires_grad and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
                return Quantized.apply(X, made) if differentiates else made[0]
        return stock(self, X)

    return forward


_known = {QUANTIZER.forward}


def is_replaced_by_others() -> bool:
    """Whether the module's method is neither torch's nor ours."""
    return QUANTIZER.forward not in _known


def replace(is_on: Callable[[], bool], observing: Callable[..., Any]) -> Callable[[], None]:
    """Put a method in the place of torch's; return what puts torch's back, unless somebody else replaced it since.

    Parameters
    ----------
    is_on : callable
        Whether ours is wanted.
    observing : callable
        torch's own kernel of fused observers.
    """
    stock = QUANTIZER.forward
    ours = _method(stock, is_on, observing)
    _known.add(ours)
    setattr(QUANTIZER, METHOD, ours)

    def restore() -> None:
        _known.discard(ours)
        if QUANTIZER.__dict__.get(METHOD) is ours:
            setattr(QUANTIZER, METHOD, stock)

    return restore

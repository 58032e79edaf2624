"""Stands in for torch's own kernels of fake quantization on the CPU, from :func:`enable` to :func:`disable`.

Anything unusual goes to the kernel that was replaced, which is also what raises torch's errors.  All tensors are dense
ones on the CPU here: any other would have been dispatched elsewhere.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import Any

import torch

from ..interruption import fork_safe_lock
from ..launch.arguments import ObservedParameters
from ..launch.runtime import AddressTensor
from ..layout import MAX_RANK
from ..spec import NARROW_LIMIT
from . import find, folded, learnable, observer, quantizing
from .gradient import straight_through
from .plain import STOCK, TYPES, nobody_looks_on
from .results import pool
from .spare import Spare

CPU = torch._C.DispatchKeySet(torch.DispatchKey.CPU)
"""The dispatch keys that are left when a CPU kernel is called."""

LIST_MAX_ELEMENTS = 32
"""Most zero points of which a list is made sooner than torch finds their least and greatest."""

PER_TENSOR_MIN_ELEMENTS = 512
"""Elements from which a kernel of this library saves, per tensor, more than its launch from Python costs.

Below it torch's own kernel serves the call.  Per channel there is no such bound: torch's kernel is slower, and what
does not fit an int64 must not depend on the size.
"""

OBSERVED_MIN_ELEMENTS = 2**16
"""Elements of a tensor from which the fused observer saves more than its launches from Python cost.

What is below is observed by torch's kernel, which comes back for the quantization.  Per channel there is no such bound:
torch's kernel writes scales and zero points one by one.
"""


def _within(zero_point: Any, low: int, high: int) -> Any:
    if zero_point.numel() <= LIST_MAX_ELEMENTS:
        values = zero_point.tolist()
        return low <= min(values) and max(values) <= high
    least, greatest = zero_point.aminmax()
    return low <= least.item() and greatest.item() <= high


class _Constant(AddressTensor):
    """A tensor of one element that nothing writes to."""

    def __init__(self, value: Any) -> None:
        self.memory = value
        super().__init__(ctypes.addressof(value))


@lru_cache(4096)
def _scale(value: float) -> _Constant:
    return _Constant(ctypes.c_float(value))


@lru_cache(4096)
def _zero_point(value: int) -> _Constant:
    return _Constant(ctypes.c_int32(value))


def _per_channel(stock: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(x: Any, scale: Any, zero_point: Any, axis: int, low: int, high: int) -> Any:
        if _depth and type(x) in TYPES and type(scale) in TYPES and type(zero_point) in TYPES:
            launch = find.per_channel(x, scale, zero_point, axis, low, high)
            if launch is not STOCK and _within(zero_point, low, high):
                return find.fake_quantize(launch, x, scale.detach() if scale.requires_grad else scale, zero_point)
        return stock(CPU, x, scale, zero_point, axis, low, high)

    return kernel


def _per_tensor(stock: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(x: Any, scale: float, zero_point: int, low: int, high: int) -> Any:
        # -0.0 would be the key of 0.0
        if _depth and x.numel() >= PER_TENSOR_MIN_ELEMENTS and low <= zero_point <= high and scale and type(x) in TYPES:
            launch = find.per_tensor(x, low, high)
            if launch is not STOCK:
                return find.fake_quantize(launch, x, _scale(scale), _zero_point(zero_point))
        return stock(CPU, x, scale, zero_point, low, high)

    return kernel


def _per_tensor_qparams(stock: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(x: Any, scale: Any, zero_point: Any, enabled: Any, low: int, high: int) -> Any:
        if (
            _depth and x.numel() >= PER_TENSOR_MIN_ELEMENTS
            and type(x) in TYPES and type(scale) in TYPES and type(zero_point) in TYPES and type(enabled) in TYPES
            and scale.numel() == zero_point.numel() == enabled.numel() == 1
            and scale.dtype == torch.float32 and not zero_point.is_floating_point()
            and enabled.item() == 1 and -NARROW_LIMIT <= (value := zero_point.item()) <= NARROW_LIMIT
        ):  # fmt: skip
            launch = find.per_tensor(x, low, high)
            if launch is not STOCK:
                return find.fake_quantize(
                    launch, x, scale.detach() if scale.requires_grad else scale, _zero_point(value)
                )
        return stock(CPU, x, scale, zero_point, enabled, low, high)

    return kernel


def _observed(stock: Callable[..., Any]) -> Callable[..., Any]:
    replaced = partial(stock, CPU)

    def kernel(x: Any, *rest: Any) -> Any:
        per_row = len(rest) > 10 and rest[10]  # torch leaves it out where it has its default
        if _depth and type(x) in TYPES and (per_row or x.numel() >= OBSERVED_MIN_ELEMENTS):
            result = _observe(replaced, x, *rest)
            if result is not None:
                return result
        return replaced(x, *rest)

    return kernel


def _observe(stock: Callable[..., Any], x: Any, observer_on: Any, fake_quant_on: Any, *rest: Any) -> Any:
    """Observe, choose parameters and quantize; None, with nothing written, where torch's kernel is to do it."""
    # torch leaves out arguments that have their defaults
    least, greatest, scale, zero_point, constant, low, high, axis, per_row, symmetric = (*rest, False, False)[:10]
    buffers = (least, greatest, scale, zero_point)
    channels = x.shape[0] if per_row and x.dim() else 1
    if not (
        x.dtype == torch.float32 and observer.fit(buffers, channels)
        and axis < x.dim() <= MAX_RANK and (not per_row or (x.dim() > 1 and axis == 0))
        and observer.in_reach(low, high)
        and observer.are_switches(observer_on, fake_quant_on)
        and observer.agrees(stock)
    ):  # fmt: skip
        return None
    observes, quantizes = bool(observer_on.item()), bool(fake_quant_on.item())
    parameters = ObservedParameters(channels, bool(symmetric), constant, low, high, observes, quantizes)
    observation = find.observation(x, buffers, bool(per_row), parameters)
    if observation is STOCK or not observer.observe(observation, x, buffers, channels):
        return None
    if not quantizes:
        return stock(x, observer.OFF, fake_quant_on, *rest)
    return find.fake_quantize(observation.quantize, x, scale, zero_point)


def _learnable_per_channel_backward(stock: Callable[..., Any]) -> Callable[..., Any]:
    replaced = partial(stock, CPU)

    def kernel(grad: Any, x: Any, scale: Any, zero_point: Any, axis: int, *numbers: Any) -> Any:
        result = _learned(replaced, (grad, x, scale, zero_point), axis, numbers)
        return replaced(grad, x, scale, zero_point, axis, *numbers) if result is None else result

    return kernel


def _learnable_per_tensor_backward(stock: Callable[..., Any]) -> Callable[..., Any]:
    replaced = partial(stock, CPU)

    def kernel(grad: Any, x: Any, scale: Any, zero_point: Any, *numbers: Any) -> Any:
        result = _learned(replaced, (grad, x, scale, zero_point), None, numbers)
        return replaced(grad, x, scale, zero_point, *numbers) if result is None else result

    return kernel


def _learned(stock: Callable[..., Any], tensors: tuple[Any, ...], axis: int | None, numbers: tuple[Any, ...]) -> Any:
    if not (_depth and all(type(t) in TYPES for t in tensors)):
        return None
    low, high, factor = (*numbers, 1.0)[:3]  # torch leaves out arguments that have their defaults
    return learnable.gradient(stock, tensors, axis, low, high, factor)


REPLACED: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "fake_quantize_per_channel_affine_cachemask": _per_channel,
    "fake_quantize_per_tensor_affine_cachemask": _per_tensor,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _per_tensor_qparams,
}
"""The operators of aten that :func:`enable` replaces on the CPU; torch's other forms and its modules call these."""

LEARNED: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "_fake_quantize_learnable_per_channel_affine_backward": _learnable_per_channel_backward,
    "_fake_quantize_learnable_per_tensor_affine_backward": _learnable_per_tensor_backward,
}
"""And the gradients of torch's learnable forms, by x, scale and zero point, which autograd calls."""

OBSERVING = "_fused_moving_avg_obs_fq_helper"
"""And that of torch's fused modules, which observe, choose scale and zero point, and then call one of these."""

BACKWARD = ("fake_quantize_per_channel_affine_cachemask_backward", "fake_quantize_per_tensor_affine_cachemask_backward")
"""And their gradients, which are replaced where autograd calls them."""

_lock = fork_safe_lock()
_override: Callable[[], None] | None = None
_depth = 0
"""How many calls of enable() were not undone; 0 while our kernels, if they are there, hand every call on to torch's."""


def enable() -> None:
    """Let every fake quantization of torch on the CPU run the kernels of this library.

    It replaces the CPU kernels of ``aten::fake_quantize_per_channel_affine_cachemask``,
    ``aten::fake_quantize_per_tensor_affine_cachemask`` and
    ``aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams``.  All that torch has of fake quantization calls
    these: ``torch.fake_quantize_per_channel_affine`` and ``torch.fake_quantize_per_tensor_affine``, the modules of
    ``torch.ao.quantization`` with their fused and learnable forms, and what torch.compile leaves to aten.  It also
    replaces the operator of the fused modules, ``aten::_fused_moving_avg_obs_fq_helper``, for float32 in such modules,
    and elsewhere of ``2**16`` elements and more, and per channel, with torch's bits in every buffer of the module.  Of
    gradients it replaces the product with the mask,
    ``aten::fake_quantize_per_{channel,tensor}_affine_cachemask_backward``, for float32 and float16 of 4096 elements and
    more, where nothing differentiates it again; and the gradients of the learnable forms,
    ``aten::_fake_quantize_learnable_per_{channel,tensor}_affine_backward``, for dense float32 of 8192 elements and more
    whose channel is last or has 16 neighboring elements and more.

    Beside kernels it replaces two methods.  ``_ConvBnNd._forward_approximate`` of ``torch.ao.nn.intrinsic.qat``: where
    a convolution with folded batch norm is trained, its weights are folded, observed and fake-quantized in one kernel,
    and what comes of them is divided and normalized in another, with one each for the gradients; where such a module
    is unusual, only the quotient that undoes the folding, for contiguous float32 of ``2**16`` elements and more.  And
    ``FusedMovingAvgObsFakeQuantize.forward``, which finds its launches without torch's dispatcher.

    Each call asks for one :func:`disable`; until the last of them the kernels stay replaced, for all threads, which may
    call both at any time.  The first call of a process must not run while another thread quantizes: torch writes its
    table of kernels without a lock for the readers, and such a thread can crash the process.  A forked process inherits
    the kernels, a spawned one does not.

    A gradient of ``2**16`` elements and more takes the place of what came in, where nobody but autograd has that.
    Results of ``2**20`` elements and more lie in memory that is used again for later results once they are gone, as
    fresh pages cost several times what the kernel does.  No more is kept than twice what results needed at a time
    lately, and no more than a gibibyte, until the last :func:`disable`.

    Notes
    -----
    Results are torch's bits, with four exceptions (docs/numerics.md).  Gradients by scale and zero point are sums, in
    another order than torch's.  Where q does not fit an int64, +inf included, torch's per-channel kernel and its
    gradients by a scale overflow to quant_min, and these give quant_max.  A NaN in a bfloat16 out, which takes an
    infinite scale or one that is NaN, can have the other sign.  Where the gradient through folded batch norm is
    differentiated again, terms are added up in another order.  Errors are torch's, which its own kernels raise.
    These also serve, silently, what this library's do not: float64, scales other than float32, zero points of floats,
    empty tensors, more than 8 dimensions, a quant_min of ``-2**63``, and per tensor ranges beyond ``2**23`` and fewer
    than 512 elements, for which they are faster.

    If a kernel cannot be built, the operator raises :class:`~fq_tvm.BuildError`.  Threads are no more than
    ``torch.set_num_threads`` and ``FQ_TVM_NUM_THREADS`` say.
    """
    global _depth, _override
    with _lock:
        if _override is None:
            _override = _replace()
        if not _depth and not _spare.learned and nobody_looks_on():
            # an engine that refuses to work here leaves gradients where they would be without
            with suppress(RuntimeError):
                _learn()
        _depth += 1


def disable() -> None:
    """Undo one :func:`enable`; the last one puts torch's kernels back and gives up memory kept for results.

    While there are other threads of Python, which might be quantizing, torch's table of kernels stays as it is and our
    kernels hand every call on to torch's, which costs some microseconds a call.  The next last call that finds no other
    thread restores the table.
    """
    global _depth, _override
    with _lock:
        _depth = max(_depth - 1, 0)
        if not _depth:
            pool.clear()
            if _override is not None and threading.active_count() == 1:
                _override()
                _override = None


@contextmanager
def enabled() -> Iterator[None]:
    """Call :func:`enable` at the start of a with statement and :func:`disable` at its end.

    Examples
    --------
    >>> import torch, fq_tvm.torch
    >>> with fq_tvm.torch.enabled():
    ...     torch.fake_quantize_per_tensor_affine(torch.tensor([0.4, 300.0]), 0.5, 0, -128, 127)
    tensor([ 0.5000, 63.5000])
    """
    enable()
    try:
        yield
    finally:
        disable()


def _backward(stock: Callable[..., Any]) -> Callable[..., Any]:
    multiply = partial(stock, CPU)  # states the product anew, whatever the keys, and so is differentiated again

    def kernel(grad: Any, mask: Any) -> Any:
        spare = _spare.has(grad)  # asked while it learns, too, when nothing is served yet
        return straight_through(grad, mask, multiply, spare) if _depth else multiply(grad, mask)

    return kernel


_spare = Spare()


def _learn() -> None:
    """Learn how gradients come in to these operators, for each node that calls them, as they are and as views."""
    one, low, high = torch.ones(1, dtype=torch.int64, device="cpu"), -8, 7
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.device("cpu"),
        _spare.learning(),
        quantizing.spare_gradients.learning(),
    ):
        values = torch.zeros((2, 3), dtype=torch.float32, requires_grad=True)
        scale, zero_point = torch.ones(2, dtype=torch.float32), torch.zeros(2, dtype=torch.int32)
        bounds, found = (scale.new_zeros(1), scale.new_zeros(1)), (scale[:1].clone(), zero_point[:1].clone())
        for out in (
            torch.fake_quantize_per_channel_affine(values, scale, zero_point, 0, low, high),
            torch.fake_quantize_per_tensor_affine(values, 1.0, 0, low, high),
            torch.fake_quantize_per_tensor_affine(values, scale[:1], zero_point[:1], low, high),
            torch.fused_moving_avg_obs_fake_quant(values, one, one, *bounds, *found, 0.01, low, high, 0),
            quantizing.Quantized.apply(values, (values.detach().clone(), values >= 0)),
        ):
            (2 * out).sum().backward(retain_graph=True)
            torch.mm(out.t(), values).sum().backward()


def _replace() -> Callable[[], None]:
    """Put our kernels and our methods in the place of torch's; return what removes them."""
    library = torch.library.Library("aten", "IMPL")
    try:
        for name in BACKWARD:
            stock = torch.library.get_kernel(f"aten::{name}", "CPU")
            library.impl(name, _backward(stock.call_boxed), "AutogradCPU")
        with warnings.catch_warnings():
            # to override is what was asked for
            warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
            for name, make in {**REPLACED, **LEARNED, OBSERVING: _observed}.items():
                stock = torch.library.get_kernel(f"aten::{name}", "CPU")
                library.impl(name, make(stock.call_boxed), "CPU")
            observing = partial(stock.call_boxed, CPU)  # the last of them
        restores = [each.replace(lambda: bool(_depth), observing) for each in (quantizing, folded)]
    except BaseException:
        library._destroy()
        raise

    def remove() -> None:
        for restore in restores:
            restore()
        library._destroy()

    return remove

"""The operator for PyTorch: with a gradient, for the compilers of torch, and in the place of torch's own kernels.

Importing this module registers ``torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask`` and changes nothing of
torch's.  :func:`enable` replaces torch's fake quantization on the CPU, with the same results and errors, until
:func:`disable` puts it back.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import empty_like
from torch._library.autograd import Info, make_autograd_impl
from torch.autograd import forward_ad

from .. import functional
from ..errors import ArgumentError
from ..functional import plans, remember, workspace
from ..launch.arguments import Operand, Operands, check_description, describe
from ..launch.pool import Pool
from ..launch.runtime import AddressTensor
from ..layout import MAX_RANK
from ..spec import NARROW_LIMIT

__all__ = [
    "disable",
    "enable",
    "enabled",
    "fake_quantize_per_channel_affine",
    "fake_quantize_per_channel_affine_cachemask",
]

NAME = "fake_quantize_per_channel_affine_cachemask"


def fake_quantize_per_channel_affine_cachemask(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    axis: int | None,
    quant_min: int,
    quant_max: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize to a range of integers and back, and tell which elements were in range.

    Parameters
    ----------
    x : torch.Tensor
        float32, float16 or bfloat16, on the CPU, up to 8 dimensions, any strides.
    scale : torch.Tensor
        float32, float16 or bfloat16, shape (x.shape[axis],).  Without an axis one element, shape () or (1,).
    zero_point : torch.Tensor
        int32, float32 or float16, shape as scale.
    axis : int or None
        The channel dimension; negative counts from the end.  None for one scale and zero point of the whole tensor.
    quant_min, quant_max : int
        The range, any int64, ``quant_min <= quant_max``.

    Returns
    -------
    out : torch.Tensor
        As :func:`fq_tvm.fake_quantize_per_channel_affine_cachemask` has it, in x's dtype and memory layout.  Its
        gradient goes straight through to x where the mask is true: ``grad_x = grad_out * mask``.  Scale and zero point
        get none.
    mask : torch.Tensor
        bool.

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    BuildError
        If no kernel can be built or loaded.
    NotImplementedError
        If a tensor lies elsewhere than in the CPU's memory, or is sparse.

    Notes
    -----
    Results of ``2**20`` elements and more lie in memory that is used again, see :func:`enable`; :func:`disable` gives
    up what is kept.

    This is ``torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask``, which torch.compile, torch.export and
    torch.func.vmap know.  The gradient is that of ``aten::fake_quantize_per_channel_affine_cachemask``.

    Examples
    --------
    >>> import torch, fq_tvm.torch
    >>> x = torch.tensor([[0.4, 300.0], [-0.6, -2.5]], requires_grad=True)
    >>> out, mask = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask(
    ...     x, torch.tensor([0.5, 1.0]), torch.tensor([0, 0], dtype=torch.int32), 1, -128, 127)
    >>> out.tolist()
    [[0.5, 127.0], [-0.5, -2.0]]
    >>> out.sum().backward()
    >>> x.grad.tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    out, mask = _operator(x, scale, zero_point, axis, quant_min, quant_max)
    return out, mask


def fake_quantize_per_channel_affine(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    axis: int | None,
    quant_min: int,
    quant_max: int,
) -> torch.Tensor:
    """Quantize to a range of integers and back, with a gradient that goes straight through.

    The first output of :func:`fake_quantize_per_channel_affine_cachemask`, which has the parameters and errors.
    """
    return fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, quant_min, quant_max)[0]


def _on_cpu(x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int) -> Any:
    x, scale, zero_point = (t.detach() if t.requires_grad else t for t in (x, scale, zero_point))
    outputs = {}
    if x.numel() >= POOLED and x.dtype in DTYPES:
        outputs = {"out": _pooled_like(x, x.dtype), "mask": _pooled_like(x, torch.bool)}
    return functional.fake_quantize_per_channel_affine_cachemask(
        x, scale, zero_point, axis, quant_min, quant_max, **outputs
    )


def _traced(x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int) -> Any:
    """Give outputs without data, as a tracer wants them, or the error that the kernel would raise."""
    for name, tensor in (("x", x), ("scale", scale), ("zero_point", zero_point)):
        if tensor.device.type not in ("cpu", "meta"):
            raise ArgumentError(f"{name} is on {tensor.device}; expected a tensor on the CPU", "dtype")
        if tensor.device != x.device:  # the dispatcher asks for this function where one of several is on meta
            raise NotImplementedError(f"{name} is on {tensor.device} and x on {x.device}; expected all on one device")
    out, mask = empty_like(x), empty_like(x, dtype=torch.bool)
    tensors = (x, scale, zero_point, out, mask)
    operands = (Operand(None, str(t.dtype).removeprefix("torch."), tuple(t.shape), (), 0) for t in tensors)
    check_description(Operands(*operands), axis, quant_min, quant_max)
    return out, mask


def _refuse_tangents(differentiable: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse forward mode, as aten's operator does: without a formula of its own, it would give a tangent of zero."""

    def checked(keyset: Any, *arguments: Any) -> Any:
        if forward_ad._current_level >= 0:
            for tensor in arguments[:3]:
                if forward_ad.unpack_dual(tensor).tangent is not None:
                    raise NotImplementedError(f"fq_tvm::{NAME} has no forward mode derivative; use reverse mode")
        return differentiable(keyset, *arguments)

    return checked


def _keep_mask(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(output[1])


def _straight_through(ctx: Any, grad_out: torch.Tensor, grad_mask: Any) -> tuple[torch.Tensor | None, ...]:
    (mask,) = ctx.saved_tensors
    return grad_out * mask, None, None, None, None, None


def _batched(
    info: Any,
    in_dims: tuple[int | None, ...],
    x: Any,
    scale: Any,
    zero_point: Any,
    axis: int | None,
    quant_min: int,
    quant_max: int,
) -> Any:
    """Map over a dimension of x in one call; over one of the parameters, which no axis describes, in many."""
    if in_dims[1] is None and in_dims[2] is None:
        x = x.movedim(in_dims[0], 0)
        if axis is not None and axis >= 0:
            axis = axis + 1 if x.dim() > 1 else None  # a sample of no dimensions is one channel
        elif axis is not None and x.dim() == 1:
            axis = None
        return _operator(x, scale, zero_point, axis, quant_min, quant_max), (0, 0)
    tensors = (x, scale, zero_point)
    samples = [
        [t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims, strict=False)]
        for i in range(info.batch_size)
    ]
    outs, masks = zip(*(_operator(*sample, axis, quant_min, quant_max) for sample in samples), strict=True)
    return (torch.stack(outs), torch.stack(masks)), (0, 0)


def _register() -> Any:
    """Define the operator; the library object that is returned keeps it defined."""
    library = torch.library.Library("fq_tvm", "FRAGMENT")
    schema = "(Tensor x, Tensor scale, Tensor zero_point, int? axis, int quant_min, int quant_max) -> (Tensor, Tensor)"
    library.define(NAME + schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(NAME, _on_cpu, "CPU")
    name = f"fq_tvm::{NAME}"
    torch.library.register_fake(name, _traced, lib=library)
    operator = torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask.default
    formula = make_autograd_impl(operator, Info(_straight_through, _keep_mask))
    library.impl(NAME, _refuse_tangents(formula), "Autograd", with_keyset=True)
    torch.library.register_vmap(name, _batched, lib=library)
    return library


_registration = _register()
_operator = torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask.default


# What follows stands in for kernels of torch.  Anything unusual goes to the kernel that it replaced, which is also what
# raises torch's errors.  All tensors are dense ones on the CPU here: any other would have been dispatched elsewhere.

STOCK = "stock"
"""Remembered in the place of a launch for arguments that torch's own kernel serves."""

PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
"""Types of tensors that have no say in what an operator does with them."""

DTYPES = frozenset((torch.float32, torch.float16, torch.bfloat16))

CPU = torch._C.DispatchKeySet(torch.DispatchKey.CPU)
"""The dispatch keys that are left when a CPU kernel is called."""

FEW = 32
"""Most zero points of which a list is made sooner than torch finds their least and greatest."""

SMALL = 512
"""Elements from which a kernel of this library saves, per tensor, more than its launch from Python costs.

Below it torch's own kernel serves the call.  Per channel there is no such bound: torch's kernel is slower, and what
does not fit an int64 must not depend on the size.
"""

POOLED = 2**20
"""Least elements of a tensor whose results get memory of the pool; for smaller ones malloc reuses its own."""

KEPT = 2**30
"""Most bytes of results that are gone which the pool keeps for the next ones."""

_pool = Pool(KEPT)


def _pooled_like(x: Any, dtype: torch.dtype) -> torch.Tensor:
    """Make what ``empty_like`` makes, of memory that returns to the pool when the tensor is gone."""
    strides = empty_like(x, device="meta").stride()
    array = _pool.array(x.numel() * dtype.itemsize)
    return torch.from_numpy(array).view(dtype).as_strided(x.shape, strides)


def _launch(launch: Any, x: Any, scale: Any, zero_point: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if x.numel() < POOLED:
        out, mask = empty_like(x), empty_like(x, dtype=torch.bool)
    else:
        out, mask = _pooled_like(x, x.dtype), _pooled_like(x, torch.bool)
    if x.requires_grad:  # tvm-ffi refuses such tensors
        x = x.detach()
    size = launch.workspace_size
    launch(x, scale, zero_point, out, mask, workspace.of(size) if size else None)
    return out, mask


def _plan(x: torch.Tensor, scale: Operand, zero_point: Operand, axis: int | None, low: int, high: int) -> Any:
    """Prepare for tensors like x, if the kernels give the bits that torch's give."""
    # torch takes whatever does not fit an int64 for the least one, which this range would count as being inside
    if x.dtype not in DTYPES or not x.numel() or x.dim() > MAX_RANK or low > high or low == -(2**63):
        return STOCK
    x = x.detach()
    out, mask = describe(empty_like(x), "out"), describe(empty_like(x, dtype=torch.bool), "mask")
    return functional.plan(Operands(describe(x, "x"), scale, zero_point, out, mask), axis, low, high)


def _plan_per_channel(x: Any, scale: Any, zero_point: Any, axis: int, low: int, high: int) -> Any:
    # torch's kernel for zero points of floats fuses operations that these round one by one
    fits = (
        scale.dtype == torch.float32
        and zero_point.dtype == torch.int32
        and 0 <= axis < x.dim()
        and scale.shape == zero_point.shape == (x.shape[axis],)
    )
    if not fits:
        return STOCK
    return _plan(x, describe(scale.detach(), "scale"), describe(zero_point, "zero_point"), axis, low, high)


def _plan_per_tensor(x: Any, low: int, high: int) -> Any:
    # torch rounds the difference and the product separately where the range is wide
    if max(abs(low), abs(high)) > NARROW_LIMIT:
        return STOCK
    return _plan(x, Operand(None, "float32", (), (), 0), Operand(None, "int32", (), (), 0), None, low, high)


def _within(zero_point: Any, low: int, high: int) -> Any:
    if zero_point.numel() <= FEW:
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
        if _depth and type(x) in PLAIN and type(scale) in PLAIN and type(zero_point) in PLAIN:
            key = (
                NAME, x.dtype, x.shape, x.stride(), scale.dtype, scale.shape, scale.stride(),
                zero_point.dtype, zero_point.shape, zero_point.stride(), axis, low, high,
            )  # fmt: skip
            launch = plans.get(key)
            if launch is None:
                launch = remember(key, _plan_per_channel(x, scale, zero_point, axis, low, high))
            if launch is not STOCK and _within(zero_point, low, high):
                return _launch(launch, x, scale.detach() if scale.requires_grad else scale, zero_point)
        return stock(CPU, x, scale, zero_point, axis, low, high)

    return kernel


def _per_tensor(stock: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(x: Any, scale: float, zero_point: int, low: int, high: int) -> Any:
        # -0.0 would be the key of 0.0
        if _depth and x.numel() >= SMALL and low <= zero_point <= high and scale and type(x) in PLAIN:
            key = ("per tensor", x.dtype, x.shape, x.stride(), low, high)
            launch = plans.get(key)
            if launch is None:
                launch = remember(key, _plan_per_tensor(x, low, high))
            if launch is not STOCK:
                return _launch(launch, x, _scale(scale), _zero_point(zero_point))
        return stock(CPU, x, scale, zero_point, low, high)

    return kernel


def _per_tensor_qparams(stock: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(x: Any, scale: Any, zero_point: Any, enabled: Any, low: int, high: int) -> Any:
        if (
            _depth and x.numel() >= SMALL
            and type(x) in PLAIN and type(scale) in PLAIN and type(zero_point) in PLAIN and type(enabled) in PLAIN
            and scale.numel() == zero_point.numel() == enabled.numel() == 1
            and scale.dtype == torch.float32 and not zero_point.is_floating_point()
            and enabled.item() == 1 and -NARROW_LIMIT <= (value := zero_point.item()) <= NARROW_LIMIT
        ):  # fmt: skip
            key = ("per tensor", x.dtype, x.shape, x.stride(), low, high)
            launch = plans.get(key)
            if launch is None:
                launch = remember(key, _plan_per_tensor(x, low, high))
            if launch is not STOCK:
                return _launch(launch, x, scale.detach() if scale.requires_grad else scale, _zero_point(value))
        return stock(CPU, x, scale, zero_point, enabled, low, high)

    return kernel


REPLACED: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "fake_quantize_per_channel_affine_cachemask": _per_channel,
    "fake_quantize_per_tensor_affine_cachemask": _per_tensor,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _per_tensor_qparams,
}
"""The operators of aten that :func:`enable` replaces on the CPU; torch's other forms and its modules call these."""

_lock = threading.Lock()
_override: Any = None
_depth = 0
"""How many calls of enable() were not undone; 0 while our kernels, if they are there, hand every call on to torch's."""


def enable() -> None:
    """Let every fake quantization of torch on the CPU run the kernels of this library.

    It replaces the CPU kernels of ``aten::fake_quantize_per_channel_affine_cachemask``,
    ``aten::fake_quantize_per_tensor_affine_cachemask`` and
    ``aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams``.  All that torch has of fake quantization calls
    these: ``torch.fake_quantize_per_channel_affine`` and ``torch.fake_quantize_per_tensor_affine``, the modules of
    ``torch.ao.quantization`` with their fused and learnable forms, and what torch.compile leaves to aten.  Gradients
    are torch's own.

    Each call asks for one :func:`disable`; until the last of them the kernels stay replaced, for all threads, which may
    call both at any time.  The first call of a process must not run while another thread quantizes: torch writes its
    table of kernels without a lock for the readers, and such a thread can crash the process.  A forked process inherits
    the kernels, a spawned one does not.

    Results of ``2**20`` elements and more lie in memory that is used again for later results once they are gone, as
    fresh pages cost several times what the kernel does.  Up to a gibibyte is kept until the last :func:`disable`.  The
    storage of such a tensor cannot be resized.

    Notes
    -----
    Results are torch's bits, with two exceptions (docs/numerics.md).  Where q does not fit an int64, +inf included,
    torch's per-channel kernel overflows to quant_min, and these give quant_max.  A NaN in a bfloat16 out, which takes
    an infinite scale or one that is NaN, can have the other sign.  Errors are torch's, which its own kernels raise.
    These also serve, silently, what this library's do not: float64, scales other than float32, zero points of floats,
    empty tensors, more than 8 dimensions, a quant_min of ``-2**63``, and per tensor ranges beyond ``2**23`` and fewer
    than 512 elements, for which they are faster.

    If a kernel cannot be built, the operator raises :class:`~fq_tvm.BuildError`.  Threads are those of
    ``FQ_TVM_NUM_THREADS``, not those of ``torch.set_num_threads``.
    """
    global _depth, _override
    with _lock:
        if _override is None:
            _override = _replace()
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
            _pool.clear()
            if _override is not None and threading.active_count() == 1:
                _override._destroy()
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


def _replace() -> Any:
    """Register the kernels over torch's; destroying the library object that is returned removes them."""
    library = torch.library.Library("aten", "IMPL", "CPU")
    try:
        with warnings.catch_warnings():
            # to override is what was asked for
            warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
            for name, make in REPLACED.items():
                stock = torch.library.get_kernel(f"aten::{name}", "CPU")
                library.impl(name, make(stock.call_boxed))
    except BaseException:
        library._destroy()
        raise
    return library

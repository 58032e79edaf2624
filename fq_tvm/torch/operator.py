"""The operator of PyTorch's dispatcher: its kernel, its gradient, and what tracers and transforms need of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import empty_like
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction
from torch.compiler import is_compiling

from .. import functional
from ..errors import ArgumentError
from ..functional import launch_without_mask, torch_key
from ..launch.arguments import Operand, Operands, check, describe
from ..launch.buffers import run
from ..launch.registry import launch_of, launches, remember
from ..spec import CONTRACT, Formula
from .gradient import straight_through
from .plain import NO_MODE, PLAIN, included_keys, keys_of
from .results import DTYPES, POOLED_ELEMENTS, result_like

NAME = "fake_quantize_per_channel_affine_cachemask"

ANY_FORMULA = "fake_quantize_cachemask"
"""Name of the operator that takes the fields of a formula, too."""

_function_modes = torch._C._len_torch_function_stack
_profiler_enabled = torch._C._autograd._profiler_enabled


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
        If a tensor lies elsewhere than in the CPU's memory, or is sparse, or for a derivative in forward mode.

    Notes
    -----
    Results of ``2**20`` elements and more lie in memory that is used again, see :func:`fq_tvm.torch.enable`;
    :func:`fq_tvm.torch.disable` gives up what is kept.

    This is ``torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask``, which torch.compile, torch.export and
    torch.func know.  The gradient is that of ``aten::fake_quantize_per_channel_affine_cachemask``, which has no forward
    mode derivative either: torch.func.jvp and what is made of it raise NotImplementedError.

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
    if not is_compiling() and _is_direct(x, scale, zero_point) and type(quant_min) is type(quant_max) is int:
        launch = launches.get(torch_key(x, scale, zero_point, axis, quant_min, quant_max))
        if launch is not None and (axis is None or type(axis) is int):
            try:
                if not (x.requires_grad or scale.requires_grad or zero_point.requires_grad):
                    out, mask = _launch(launch, x, scale, zero_point)
                    return out, mask
                if torch.is_grad_enabled():
                    out, mask = _StraightThrough.apply(partial(_launch_detached, launch), x, scale, zero_point)
                    return out, mask
            except ArgumentError:
                pass  # no memory: what the first call says is said again
    out, mask = _operator(x, scale, zero_point, axis, quant_min, quant_max)
    return out, mask


def _launch_detached(launch: Any, *tensors: torch.Tensor) -> Any:
    return _launch(launch, *(t.detach() if t.requires_grad else t for t in tensors))


def _launch(launch: Any, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> Any:
    out, mask = result_like(x, x.dtype), result_like(x, torch.bool)
    run(launch, x, scale, zero_point, out, mask, from_torch=True)
    return out, mask


def _is_direct(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> bool:
    """Whether the dispatcher would do nothing but call the kernel, in several times the time that this takes to say.

    Tensors are plain ones, and no mode, transform, tracer or profiler wants to see the operator.
    """
    return (
        type(x) is type(scale) is type(zero_point) is torch.Tensor
        and keys_of(x).raw_repr() in PLAIN
        and keys_of(scale).raw_repr() in PLAIN
        and keys_of(zero_point).raw_repr() in PLAIN
        and included_keys().raw_repr() in NO_MODE
        and not _function_modes()
        and not _profiler_enabled()
        and forward_ad._current_level < 0
    )


def fake_quantize_per_channel_affine(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    axis: int | None,
    quant_min: int,
    quant_max: int,
) -> torch.Tensor:
    """Quantize to a range of integers and back, with a gradient that goes straight through.

    The first output of :func:`fake_quantize_per_channel_affine_cachemask`, which has the parameters and errors.  Where
    no gradient is wanted, no mask is computed, stored or allocated, but in graphs that were traced or compiled.
    """
    if (out := without_mask(x, scale, zero_point, axis, quant_min, quant_max)) is not None:
        return out
    return fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, quant_min, quant_max)[0]


def without_mask(
    x: Any, scale: Any, zero_point: Any, axis: Any, quant_min: Any, quant_max: Any, formula: tuple[Any, ...] = ()
) -> torch.Tensor | None:
    """Return the result if nobody but the kernel has a part in it: no gradient, no tracer, no mode; else None.

    Parameters
    ----------
    formula : tuple
        The fields of a :class:`~fq_tvm.spec.Formula`; none for the contract's.
    """
    wanted = x, scale, zero_point
    if is_compiling() or not _is_direct(*wanted) or not type(quant_min) is type(quant_max) is int:
        return None
    if axis is not None and type(axis) is not int:
        return None
    if x.requires_grad or scale.requires_grad or zero_point.requires_grad:
        if torch.is_grad_enabled():
            return None
        wanted = x.detach(), scale.detach(), zero_point.detach()
    (out,) = _compute(wanted, axis, quant_min, quant_max, formula, mask=False)
    return out


def _compute(
    tensors: tuple[Any, ...], axis: int | None, low: int, high: int, formula: tuple[Any, ...], mask: bool
) -> tuple[torch.Tensor, ...]:
    """Run a kernel of any formula, with a mask or without, on tensors that need no gradient."""
    x, scale, zero_point = tensors
    key = (ANY_FORMULA, mask, *formula, *torch_key(x, scale, zero_point, axis, low, high))
    launch, results = launches.get(key), (x.dtype, torch.bool)[: 1 + mask]
    outputs = [result_like(x, dtype) for dtype in results]
    if launch is None:
        described = map(describe, tensors, ("x", "scale", "zero_point"))
        operands = Operands(*described, *map(describe, outputs, ("out", "mask")))
        call = check(operands, axis, low, high, formula=Formula(*formula) if formula else CONTRACT)
        launch = remember(key, launch_of(call) if mask else launch_without_mask(call))
    try:
        run(launch, *tensors, *outputs, from_torch=True)
    except ArgumentError:
        for name, tensor in zip(("x", "scale", "zero_point"), tensors, strict=True):
            describe(tensor, name)  # says which has no memory as the first call does
        raise
    return tuple(outputs)


def _on_cpu(
    x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int, *formula: Any
) -> Any:
    x, scale, zero_point = (t.detach() if t.requires_grad else t for t in (x, scale, zero_point))
    if formula:
        return _compute((x, scale, zero_point), axis, quant_min, quant_max, formula, mask=True)
    outputs = {}
    if x.numel() >= POOLED_ELEMENTS and x.dtype in DTYPES:
        outputs = {"out": result_like(x, x.dtype), "mask": result_like(x, torch.bool)}
    return functional.fake_quantize_per_channel_affine_cachemask(
        x, scale, zero_point, axis, quant_min, quant_max, **outputs
    )


def _traced(
    x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int, *formula: Any
) -> Any:
    """Give outputs without data, as a tracer wants them, or the error that the kernel would raise."""
    for name, tensor in (("x", x), ("scale", scale), ("zero_point", zero_point)):
        if tensor.device.type not in ("cpu", "meta"):
            raise ArgumentError(f"{name} is on {tensor.device}; expected a tensor on the CPU", "dtype")
        if tensor.device != x.device:  # the dispatcher asks for this function where one of several is on meta
            raise NotImplementedError(f"{name} is on {tensor.device} and x on {x.device}; expected all on one device")
    out, mask = empty_like(x), empty_like(x, dtype=torch.bool)
    tensors = (x, scale, zero_point, out, mask)
    operands = (Operand(None, str(t.dtype).removeprefix("torch."), tuple(t.shape), (), 0) for t in tensors)
    check(Operands(*operands), axis, quant_min, quant_max, placed=False, formula=Formula(*formula))
    return out, mask


class _StraightThrough(_SingleLevelFunction):  # type: ignore[misc]  # torch's stub says Any
    """A way to compute the results, with a gradient for x.

    Of a single level: under transforms of torch.func, the dispatcher has unwrapped the tensors of the others, as it
    does for the operators of aten.
    """

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], *tensors: torch.Tensor) -> Any:
        ctx.set_materialize_grads(False)
        out, mask = compute(*tensors)
        ctx.mark_non_differentiable(mask)
        ctx.save_for_backward(mask)
        return out, mask

    @staticmethod
    def backward(ctx: Any, grad_out: Any, grad_mask: Any) -> Any:
        del grad_mask  # none: a mask of bool is not differentiable
        (mask,) = ctx.saved_tensors
        return None, None if grad_out is None else straight_through(grad_out, mask), None, None


def _above_cpu(name: str, keyset: Any, x: Any, scale: Any, zero_point: Any, *rest: Any) -> Any:
    """Be the kernel of autograd's key.

    Forward mode is refused, as aten's operator does: without a formula of its own, it would give a tangent of zero.
    """
    tensors = (x, scale, zero_point)
    if forward_ad._current_level >= 0:
        for tensor in tensors:
            if forward_ad.unpack_dual(tensor).tangent is not None:
                raise NotImplementedError(f"fq_tvm::{name} has no forward mode derivative; use reverse mode")
    below = keyset & torch._C._after_autograd_keyset

    def compute(*tensors: Any) -> Any:
        # A way through the dispatcher costs several times what the kernel does.
        if below.highestPriorityTypeId() == torch.DispatchKey.CPU:
            return _on_cpu(*tensors, *rest)
        with torch._C._AutoDispatchBelowAutograd():
            return _operators[name].redispatch(below, *tensors, *rest)

    def compute_in_function(*tensors: Any) -> Any:
        # A function turns gradients off, also for the other levels of torch.func, which may want theirs.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return compute(*tensors)

    if not (x.requires_grad or scale.requires_grad or zero_point.requires_grad) or not torch.is_grad_enabled():
        return compute(*tensors)
    with enable_single_level_autograd_function():
        return _StraightThrough.apply(compute_in_function, *tensors)


def _batched(
    name: str, info: Any, in_dims: tuple[int | None, ...], x: Any, scale: Any, zero_point: Any, axis: Any, *rest: Any
) -> Any:
    """Map over a dimension of x in one call; over one of the parameters, which no axis describes, in many."""
    if in_dims[1] is None and in_dims[2] is None:
        x = x.movedim(in_dims[0], 0)
        if axis is not None and axis >= 0:
            axis = axis + 1 if x.dim() > 1 else None  # a sample of no dimensions is one channel
        elif axis is not None and x.dim() == 1:
            axis = None
        return _operators[name](x, scale, zero_point, axis, *rest), (0, 0)
    tensors = (x, scale, zero_point)
    samples = [
        [t if d is None else t.select(d, i) for t, d in zip(tensors, in_dims, strict=False)]
        for i in range(info.batch_size)
    ]
    outs, masks = zip(*(_operators[name](*sample, axis, *rest) for sample in samples), strict=True)
    return (torch.stack(outs), torch.stack(masks)), (0, 0)


def _register(names: dict[str, str]) -> Any:
    """Define operators, each with what it takes beside the contract; the library that is returned keeps them."""
    library = torch.library.Library("fq_tvm", "FRAGMENT")
    arguments = "Tensor x, Tensor scale, Tensor zero_point, int? axis, int quant_min, int quant_max"
    for name, more in names.items():
        library.define(f"{name}({arguments}{more}) -> (Tensor, Tensor)", tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, _on_cpu, "CPU")
        torch.library.register_fake(f"fq_tvm::{name}", _traced, lib=library)
        library.impl(name, partial(_above_cpu, name), "Autograd", with_keyset=True)
        torch.library.register_vmap(f"fq_tvm::{name}", partial(_batched, name), lib=library)
    return library


_FIELDS = ", str form, str? zero_point_placement, bool keep_zero_sign, str nan"
_registration = _register({NAME: "", ANY_FORMULA: _FIELDS})
_operators = {name: getattr(torch.ops.fq_tvm, name).default for name in (NAME, ANY_FORMULA)}
_operator = _operators[NAME]


def with_formula(
    x: Any, scale: Any, zero_point: Any, axis: Any, quant_min: Any, quant_max: Any, formula: tuple[Any, ...]
) -> torch.Tensor:
    """Fake-quantize by a formula, with a gradient that goes straight through; no mask is made where none is wanted."""
    if (out := without_mask(x, scale, zero_point, axis, quant_min, quant_max, formula)) is not None:
        return out
    result: torch.Tensor = _operators[ANY_FORMULA](x, scale, zero_point, axis, quant_min, quant_max, *formula)[0]
    return result

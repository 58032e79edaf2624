"""The operator as a function, for numpy arrays, torch tensors and other DLPack tensors.

Outputs have the kind and the memory layout of x.  Nothing is copied.  A call that was seen before, of new tensors with
the same description, costs a dictionary look-up, two allocations and the launch.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from .environment import import_tvm
from .errors import ArgumentError, CacheMissError, FqError
from .launch.arguments import CheckedArguments, Operand, Operands, check, check_range_of, describe
from .launch.buffers import aligned, empty_like, run
from .launch.registry import launch_of, launches, remember
from .launch.runtime import AddressTensor
from .layout import dense_strides

UNWANTED: Any = object()
"""Given as mask where none is wanted; a part of the key of such launches."""

may_share_memory = np._core._multiarray_umath.may_share_memory if hasattr(np, "_core") else np.may_share_memory


def fake_quantize_per_channel_affine_cachemask(
    x: Any,
    scale: Any,
    zero_point: Any,
    axis: int | None,
    quant_min: int,
    quant_max: int,
    *,
    out: Any = None,
    mask: Any = None,
) -> tuple[Any, Any]:
    """Quantize to a range of integers and back, per channel or per tensor, and tell which elements were in range.

    Parameters
    ----------
    x : numpy.ndarray, torch.Tensor or DLPack tensor
        float32, float16 or bfloat16 (numpy's is that of the package ml_dtypes), up to 8 dimensions, any strides.
    scale : tensor
        float32, float16 or bfloat16, shape (x.shape[axis],).  Without an axis one element, shape () or (1,).
    zero_point : tensor
        int32, float32 or float16, shape as scale.
    axis : int or None
        The channel dimension; negative counts from the end.  None for one scale and zero point of the whole tensor.
    quant_min, quant_max : int
        The range, any int64, ``quant_min <= quant_max``.
    out, mask : tensor, optional
        Where to write, of x's shape: float32, float16 or bfloat16, and bool.  ``out`` may be x itself.  New tensors of
        x's kind, memory layout and, for ``out``, dtype by default.

    Returns
    -------
    out : tensor
        ``(clip(rint(x / scale) + zero_point, quant_min, quant_max) - zero_point) * scale``, with the division done as
        a product with the reciprocal.  A zero point of floats is added before rounding:
        ``rint(x / scale + zero_point)``.
    mask : tensor
        Whether what was clipped was in range.

    Raises
    ------
    ArgumentError
        If an argument is not as above; out and mask are untouched.
    BuildError
        If no kernel can be built or loaded.

    Notes
    -----
    The formula is that of ``aclnnFakeQuantPerChannelAffineCachemask``; docs/numerics.md has every edge of it, and of
    bfloat16 and zero points of floats, which aclnn refuses and PyTorch knows.  No
    gradient is recorded; :mod:`fq_tvm.torch` has the differentiable operator.

    Examples
    --------
    >>> import numpy as np, fq_tvm
    >>> x = np.float32([[0.4, 300.0], [-0.6, -2.5]])
    >>> out, mask = fq_tvm.fake_quantize_per_channel_affine_cachemask(
    ...     x, np.float32([0.5, 1.0]), np.int32([0, 0]), 1, -128, 127)
    >>> out
    array([[  0.5, 127. ],
           [ -0.5,  -2. ]], dtype=float32)
    >>> mask
    array([[ True, False],
           [ True,  True]])
    """
    key: tuple[Any, ...] | None = None
    inputs = (x, scale, zero_point)
    kind, given = type(x), out is not None or mask is not None
    # 1, 1.0 and True are one dictionary key; only the first is an axis or a bound.
    plain_numbers = type(quant_min) is type(quant_max) is int and (axis is None or type(axis) is int)
    try:
        if not plain_numbers or type(scale) is not kind or type(zero_point) is not kind:
            pass
        elif kind is np.ndarray:
            key = (
                x.dtype, x.shape, x.strides, scale.dtype, scale.shape, scale.strides,
                zero_point.dtype, zero_point.shape, zero_point.strides, axis, quant_min, quant_max,
            )  # fmt: skip
            if not given:
                if (launch := launches.get(key)) is not None:
                    values, inside = empty_like(x, x.dtype), empty_like(x, bool)
                    run(launch, x, scale, zero_point, values, inside)
                    return values, inside
            elif mask is UNWANTED:
                key = (*key, UNWANTED)
                if (launch := launches.get(key)) is not None:
                    values = empty_like(x, x.dtype)
                    run(launch, x, scale, zero_point, values)
                    return values, None
            elif (out is None or type(out) is kind) and (mask is None or type(mask) is kind):
                out = empty_like(x, x.dtype) if out is None else out
                mask = empty_like(x, bool) if mask is None else mask
                key = (*key, out.dtype, out.shape, out.strides, mask.dtype, mask.shape, mask.strides)
                if out.flags.writeable and mask.flags.writeable and (launch := launches.get(key)) is not None:
                    if _apart(inputs, out, mask):
                        run(launch, x, scale, zero_point, out, mask)
                        return out, mask
            else:
                key = None
        elif (torch := sys.modules.get("torch")) is not None and kind is torch.Tensor:
            key = torch_key(x, scale, zero_point, axis, quant_min, quant_max)
            plain = x.is_cpu and scale.is_cpu and zero_point.is_cpu
            plain = plain and not (x.is_neg() or scale.is_neg() or zero_point.is_neg())
            plain = plain and not torch._C._len_torch_dispatch_stack()  # else a mode may be writing down a graph
            if not given:
                if plain and (launch := launches.get(key)) is not None:
                    values, inside = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
                    run(launch, x, scale, zero_point, values, inside, from_torch=True)
                    return values, inside
            elif mask is UNWANTED:
                key = (*key, UNWANTED)
                if plain and (launch := launches.get(key)) is not None:
                    values = torch.empty_like(x)
                    run(launch, x, scale, zero_point, values, from_torch=True)
                    return values, None
            elif type(out) is kind and type(mask) is kind:
                key = (*key, out.dtype, out.shape, out.stride(), mask.dtype, mask.shape, mask.stride())
                plain = plain and out.is_cpu and mask.is_cpu and not (out.is_neg() or mask.is_neg())
                if plain and (seen := launches.get(key)) is not None:
                    launch, spans = seen
                    if _spans_apart(spans, (x, scale, zero_point, out, mask)):
                        run(launch, x, scale, zero_point, out, mask, from_torch=True)
                        return out, mask
            else:
                key = None
    except (FqError, RuntimeError):
        # tensors that have no strides or no memory, are read-only or need a gradient: what is done then is in one place
        pass
    return _first_call(key, inputs, axis, quant_min, quant_max, out, mask)


def torch_key(x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int) -> tuple[Any, ...]:
    """Return the key of a launch for plain tensors of torch."""
    return (
        x.dtype, x.shape, x.stride(), scale.dtype, scale.shape, scale.stride(),
        zero_point.dtype, zero_point.shape, zero_point.stride(), axis, quant_min, quant_max,
    )  # fmt: skip


def _apart(inputs: tuple[Any, ...], out: Any, mask: Any) -> bool:
    """Whether arrays are so far apart that nothing overlaps; out may be an input."""
    if may_share_memory(out, mask):
        return False
    for array in inputs:
        if may_share_memory(array, mask) or (array is not out and may_share_memory(array, out)):
            return False
    return True


def _spans_apart(spans: tuple[tuple[int, int], ...], tensors: tuple[Any, ...]) -> bool:
    """Whether tensors whose bytes lie between these distances from their addresses do not overlap."""
    *inputs, out, mask = ((t.data_ptr() + low, t.data_ptr() + high) for t, (low, high) in zip(tensors, spans))  # noqa: B905
    if out[0] < mask[1] and mask[0] < out[1]:
        return False
    for tensor, (low, high) in zip(tensors, inputs):  # noqa: B905
        if (low < mask[1] and mask[0] < high) or (tensor is not tensors[3] and low < out[1] and out[0] < high):
            return False
    return True


def fake_quantize_per_channel_affine(
    x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int
) -> Any:
    """Quantize to a range of integers and back, per channel or per tensor.

    The first output of :func:`fake_quantize_per_channel_affine_cachemask`, which has the parameters and errors.  No
    mask is computed, stored or allocated.
    """
    return fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, quant_min, quant_max, mask=UNWANTED)[
        0
    ]


def channel_range(x: Any, axis: int | None) -> tuple[Any, Any]:
    """Find the least and the greatest element of each channel, or of the whole tensor.

    Parameters
    ----------
    x : numpy.ndarray, torch.Tensor or DLPack tensor
        float32, float16 or bfloat16, up to 8 dimensions, any strides.
    axis : int or None
        The channel dimension; negative counts from the end.  None for the range of the whole tensor.

    Returns
    -------
    least, greatest : tensor
        Of x's kind and dtype, shape (x.shape[axis],); without an axis ().  Both are NaN where there is a NaN, as
        ``torch.aminmax`` has it.  -0.0 counts as less than 0.0.

    Raises
    ------
    ArgumentError
        If an argument is not as above, or there are no elements to find the range of.
    BuildError
        If no kernel can be built or loaded.

    Notes
    -----
    Takes the time of reading x.  The result does not depend on the number of threads.

    Examples
    --------
    >>> import numpy as np, fq_tvm
    >>> fq_tvm.channel_range(np.float32([[0.5, 300.0], [-0.5, np.nan]]), 0)
    (array([0.5, nan], dtype=float32), array([300.,  nan], dtype=float32))
    """
    key, kind = None, type(x)
    try:
        if axis is not None and type(axis) is not int:
            pass
        elif kind is np.ndarray and x.dtype.kind == "f":
            key = ("range", x.dtype, x.shape, x.strides, axis)
            if (seen := launches.get(key)) is not None:
                launch, shape = seen
                least, greatest = np.empty(shape, x.dtype), np.empty(shape, x.dtype)
                run(launch, x, least, greatest)
                return least, greatest
        elif (torch := sys.modules.get("torch")) is not None and kind is torch.Tensor:
            key = ("range", x.dtype, x.shape, x.stride(), axis)
            plain = x.is_cpu and not x.is_neg() and not torch._C._len_torch_dispatch_stack()
            if plain and (seen := launches.get(key)) is not None:
                launch, shape = seen
                least, greatest = torch.empty(shape, dtype=x.dtype), torch.empty(shape, dtype=x.dtype)
                run(launch, x.detach() if x.requires_grad else x, least, greatest, from_torch=True)
                return least, greatest
    except (FqError, RuntimeError):
        # no strides, no memory, read-only: what is done then is in one place
        pass
    described = describe(x, "x")
    reduction = check_range_of(described, axis)
    shape = reduction.result_shape
    launch = launch_of(reduction)
    if key is not None:
        remember(key, (launch, shape))
    least, greatest = _vector_like(x, described.dtype, shape), _vector_like(x, described.dtype, shape)
    tensors = (described, describe(least, "least"), describe(greatest, "greatest"))
    run(launch, *(operand.tensor for operand in tensors), from_torch=kind.__module__.partition(".")[0] == "torch")
    return least, greatest


def _vector_like(x: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    """Return a new, contiguous tensor of x's kind and dtype."""
    if isinstance(x, (np.ndarray, np.generic)):
        return np.empty(shape, x.dtype)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch.empty(shape, dtype=x.dtype, device="cpu")
    return _like(x, Operand(None, dtype, shape, dense_strides(shape), 0), dtype)


def _first_call(
    key: Any, inputs: tuple[Any, Any, Any], axis: Any, low: Any, high: Any, out: Any, mask: Any
) -> tuple[Any, Any]:
    """Describe and check, prepare what was not seen before, then launch; remember under the caller's key, too."""
    x, scale, zero_point = map(describe, inputs, ("x", "scale", "zero_point"))
    given = out is not None
    out = _like(inputs[0], x, x.dtype) if out is None else out
    if mask is UNWANTED:
        operands, mask = Operands(x, scale, zero_point, describe(out, "out")), None
        launch = launch_without_mask(check(operands, axis, low, high))
    else:
        mask = _like(inputs[0], x, "bool") if mask is None else mask
        operands = Operands(x, scale, zero_point, describe(out, "out"), describe(mask, "mask"))
        launch = launch_of(check(operands, axis, low, high))
    # The warm path hands tensors over as they are, which arrays of bfloat16 cannot be.
    if key is not None and not (isinstance(inputs[0], np.ndarray) and "bfloat16" in (o.dtype for o in operands[:4])):
        if given and not isinstance(inputs[0], np.ndarray):
            spans = tuple((low - o.address, high - o.address) for o in operands for low, high in [o.span()])
            remember(key, (launch, spans))
        else:
            remember(key, launch)
    from_torch = type(inputs[0]).__module__.partition(".")[0] == "torch"
    run(launch, *(operand.tensor for operand in operands), from_torch=from_torch)
    return out, mask


def launch_without_mask(call: CheckedArguments) -> Any:
    """Return the launch of a call without a mask; that with one, which is discarded, if only that kernel was built."""
    try:
        return launch_of(call)
    except CacheMissError:
        x, *_, out = call.operands
        mask = Operand(None, "bool", x.shape, out.strides, 0)
        return _MaskDiscarded(launch_of(call._replace(operands=Operands(*call.operands, mask))), math.prod(x.shape))


class _MaskDiscarded:
    """A launch on a mask of its own, for libraries that were built without the kernels that make none."""

    def __init__(self, launch: Any, elements: int) -> None:
        self.launch, self.elements, self.workspace_size = launch, elements, launch.workspace_size

    def __call__(self, *tensors: Any, from_torch: bool = False) -> None:
        memory = aligned((self.elements,), np.dtype(np.uint8))
        mask = AddressTensor(memory.ctypes.data, memory)
        self.launch(*tensors[:4], mask, *tensors[4:], from_torch=from_torch)


def _like(x: Any, operand: Operand, dtype: str) -> Any:
    """Return a new tensor of x's kind, shape and memory layout."""
    if isinstance(x, (np.ndarray, np.generic)):
        # by the array's own dtype, as numpy knows no bfloat16 by name
        return empty_like(np.asanyarray(x), x.dtype if dtype == operand.dtype else dtype)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch.empty_like(x, dtype=getattr(torch, dtype), requires_grad=False)
    tvm_ffi = import_tvm("tvm_ffi")
    if dtype == "bfloat16":
        raise ArgumentError(
            f"cannot make a {type(x).__name__} of bfloat16 for the result; pass out= and mask=", "dtype"
        )
    order = sorted(range(len(operand.shape)), key=lambda d: -abs(operand.strides[d]))
    dense = aligned(tuple(operand.shape[d] for d in order), np.dtype(dtype))
    array = dense.transpose(np.argsort(order))
    if isinstance(x, tvm_ffi.Tensor):
        return tvm_ffi.from_dlpack(array)
    try:
        return x.__array_namespace__().from_dlpack(array)
    except Exception as error:
        raise ArgumentError(
            f"cannot make a {type(x).__name__} for the result ({error}); pass out= and mask=", "dtype"
        ) from None

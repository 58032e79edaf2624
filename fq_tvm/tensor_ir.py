"""The operator for those who write TVM's tensor expressions or TensorIR themselves: one function for each.

Importing it imports TVM's compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .codegen.expression import QuantRange, fake_quant
from .errors import ArgumentError
from .launch.arguments import DTYPES, NAMES, check_range, normalize_axis
from .layout import MAX_RANK
from .spec import NANS, Formula


def te(
    x: Any,
    scale: Any,
    zero_point: Any,
    axis: int | None,
    quant_min: int,
    quant_max: int,
    out_dtype: str | None = None,
    nan: str = "quant_min",
) -> tuple[Any, Any]:
    """State fake quantization as a tensor expression, unscheduled.

    Parameters
    ----------
    x : tvm.te.Tensor
        float32, float16 or bfloat16, of one to eight dimensions; extents may be symbolic.
    scale : tvm.te.Tensor
        float32, float16 or bfloat16, of shape ``(x.shape[axis],)``; ``(1,)`` per tensor.
    zero_point : tvm.te.Tensor
        int32, float32 or float16, of scale's shape.  One of floats is added before rounding.
    axis : int or None
        The channel dimension of x; negative counts from the end.  None for one scale and zero point of the tensor.
    quant_min, quant_max : int
        The range, any int64.  Beyond ``2**23`` arithmetic is float64 where that matters, see docs/numerics.md.
    out_dtype : str, optional
        dtype of out; x's by default.
    nan : {"quant_min", "quant_max"}
        What a NaN is clipped to.

    Returns
    -------
    out, mask : tvm.te.Tensor
        Of x's shape; mask is bool.  Two outputs of one stage, so that a schedule reads x once.

    Raises
    ------
    ArgumentError
        If a dtype, a shape, the axis or the range is another.

    Notes
    -----
    Bits are those of :func:`fq_tvm.reference.fake_quant` on CPUs, under any schedule.

    Examples
    --------
    >>> import fq_tvm
    >>> from tvm import te
    >>> x = te.placeholder((8, 64, 100), "float32", "x")
    >>> scale, zero_point = (te.placeholder((64,), dtype) for dtype in ("float32", "int32"))
    >>> out, mask = fq_tvm.te(x, scale, zero_point, 1, -128, 127)
    >>> str(out.dtype), str(mask.dtype), len(mask.shape)
    ('float32', 'bool', 3)
    """
    axis, low, high = _check(x.shape, axis, (quant_min, quant_max), nan)
    out_dtype = out_dtype or x.dtype
    _check_dtypes((x.dtype, scale.dtype, zero_point.dtype, out_dtype))
    channels = 1 if axis is None else x.shape[axis]
    for name, tensor in (("scale", scale), ("zero_point", zero_point)):
        if len(tensor.shape) != 1 or (_static(tensor.shape[0], channels) and int(tensor.shape[0]) != int(channels)):
            raise ArgumentError(
                f"{name} has shape {[*tensor.shape]}; expected {[channels]}, the extent of x along axis {axis}"
            )
    out, mask = fake_quant(x, scale, zero_point, axis, QuantRange.constant(low, high), out_dtype, Formula(nan=nan))
    return out, mask


def prim_func(
    shape: Sequence[Any],
    axis: int | None,
    quant_min: int,
    quant_max: int,
    dtypes: tuple[str, str, str] = ("float32", "float32", "int32"),
    target: Any = None,
    nan: str = "quant_min",
) -> Any:
    """Make a function of TensorIR, scheduled for a CPU as the library's own kernels of dense tensors are.

    Parameters
    ----------
    shape : sequence of int or tvm.tirx.Var
        Of x, one to eight extents.
    axis : int or None
        The channel dimension; negative counts from the end.  None for one scale and zero point of the tensor.
    quant_min, quant_max : int
        The range, any int64; constants of the function.
    dtypes : tuple of str
        Of x, scale and zero point: float32, float16 or bfloat16; the same; int32, float32 or float16.
    target : tvm.target.Target, optional
        What it will be compiled for; the CPU at hand by default.  For another kind than ``llvm`` the function is left
        to schedules of others.
    nan : {"quant_min", "quant_max"}
        What a NaN is clipped to.

    Returns
    -------
    tvm.tirx.PrimFunc
        Of x, scale, zero point, out (x's dtype) and mask (bool), called ``"main"``; ``tvm.compile`` takes it.  Tensors
        need no more alignment than their elements.

    Raises
    ------
    ArgumentError
        If a dtype, the shape, the axis or the range is another.

    Examples
    --------
    >>> import fq_tvm
    >>> func = fq_tvm.prim_func((8, 64, 100), 1, -128, 127)
    >>> len(func.params)
    5
    """
    from .relax.legalize import prim_func as state
    from .relax.schedule import is_for_cpu, schedule

    axis, low, high = _check(shape, axis, (quant_min, quant_max), nan)
    _check_dtypes((*dtypes, dtypes[0]))
    vector = (1 if axis is None else shape[axis],)
    attributes = {"axis": axis, "quant_min": low, "quant_max": high, "nan": nan}
    func = state([(tuple(shape), dtypes[0]), *((vector, dtype) for dtype in dtypes[1:])], attributes, target)
    if is_for_cpu(target):
        func = schedule(func, target)[0].with_attr("tirx.is_scheduled", True)
    return func.with_attr("global_symbol", "main")


def _check(shape: Sequence[Any], axis: int | None, bounds: tuple[int, int], nan: str) -> tuple[int | None, int, int]:
    """Check what both functions are given; return the axis from 0 up and the range."""
    if not 1 <= len(shape) <= MAX_RANK:
        raise ArgumentError(f"x has {len(shape)} dimensions; expected 1 to {MAX_RANK}")
    if nan not in NANS:
        raise ArgumentError(f"nan is {nan!r}; expected one of {', '.join(NANS)}", "range")
    return (None if axis is None else normalize_axis(axis, len(shape)), *check_range(*bounds))


def _check_dtypes(dtypes: Sequence[str]) -> None:
    for name, allowed, dtype in zip(NAMES, DTYPES, dtypes, strict=False):
        if dtype not in allowed:
            raise ArgumentError(f"{name} has dtype {dtype}; expected {' or '.join(allowed)}", "dtype")


def _static(*extents: Any) -> bool:
    return all(isinstance(extent, int) or hasattr(extent, "value") for extent in extents)

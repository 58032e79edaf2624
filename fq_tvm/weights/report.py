"""How good and how fast the quantization of one tensor is."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import reference
from ..functional import fake_quantize_per_channel_affine_cachemask
from ..launch.arguments import check, describe_all
from ..launch.buffers import on_memory
from ..launch.registry import launch_of
from .parameters import Array

MEASURE_SECONDS = 0.05
"""How long to repeat a call for its median time."""

PIECE_ELEMENTS = 1 << 20
"""Elements that are looked at in float64 at a time: copies of a whole model's embedding would be large."""


@dataclass(frozen=True)
class Report:
    """What became of one tensor.

    Parameters
    ----------
    tensor : str
    shape : tuple of int
    dtype : str
    axis : int
    quant_min, quant_max : int
    sqnr_db : float
        Power of x by power of ``x - out``, over the finite elements, in decibels; infinite if nothing changed, NaN if
        there is no signal.
    clipped : float
        Share of elements outside the range, from 0 to 1.
    seconds : float
        Median time of the kernel, with outputs allocated before.
    gigabytes_per_second : float
        Bytes of x, out and mask by that time.
    times_numpy : float or None
        How many times longer the numpy reference takes; None if it was not run.
    equal : bool or None
        Whether out and mask equal the reference's bit for bit; None if it was not run.
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    axis: int
    quant_min: int
    quant_max: int
    sqnr_db: float
    clipped: float
    seconds: float
    gigabytes_per_second: float
    times_numpy: float | None = None
    equal: bool | None = None

    @property
    def bits(self) -> int:
        """Width of an integer that holds every value of the range."""
        return (self.quant_max - self.quant_min).bit_length()


def process(
    name: str, tensors: tuple[Array, Array, Array], axis: int, quant_range: tuple[int, int], verify: bool = False
) -> tuple[Array, Array, Report]:
    """Fake-quantize one tensor and report on it.

    Parameters
    ----------
    name : str
        Of the tensor.
    tensors : tuple of numpy.ndarray
        x, scale and zero point.
    axis, quant_range
        As for :func:`fq_tvm.fake_quantize_per_channel_affine_cachemask`; the range is its two bounds.
    verify : bool
        Whether to run the numpy reference too, for :attr:`Report.times_numpy` and :attr:`Report.equal`.

    Returns
    -------
    out, mask : numpy.ndarray
    report : Report

    Raises
    ------
    FqError
        If an argument is refused or no kernel can be had.
    """
    x, _, _ = tensors
    arguments = (*tensors, axis, *quant_range)
    out, mask = fake_quantize_per_channel_affine_cachemask(*arguments)
    checked = check(describe_all((*tensors, out, mask)), axis, *quant_range)
    seconds, _ = _median_time(on_memory(launch_of(checked), checked.operands))
    times_numpy, equal = None, None
    if verify:
        numpy_seconds, (reference_out, reference_mask) = _median_time(lambda: reference.fake_quant(*arguments))
        times_numpy = numpy_seconds / seconds
        equal = _same_bits(out, reference_out) and _same_bits(mask, reference_mask)
    given = (name, x.shape, x.dtype.name, axis, *quant_range)
    clipped = 1.0 - float(mask.mean()) if mask.size else 0.0
    speed = (x.nbytes + out.nbytes + mask.nbytes) / seconds / 1e9
    report = Report(*given, _sqnr_db(x, out), clipped, seconds, speed, times_numpy, equal)
    return out, mask, report


def _median_time(call: Callable[[], Any]) -> tuple[float, Any]:
    """Median seconds of a few calls, and the last result."""
    times: list[float] = []
    while sum(times) < MEASURE_SECONDS and len(times) < 100:
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def _same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _sqnr_db(x: Array, out: Array) -> float:
    signal = noise = 0.0
    x, out = x.reshape(-1), out.reshape(-1)
    for start in range(0, x.size, PIECE_ELEMENTS):
        piece, result = (a[start : start + PIECE_ELEMENTS] for a in (x, out))
        finite = np.isfinite(piece)
        wide = np.where(finite, piece, 0).astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.where(finite, wide - result, 0.0)
        signal += float(np.vdot(wide, wide))
        noise += float(np.vdot(error, error))
    if signal == 0:
        return math.nan
    return 10 * math.log10(signal / noise) if noise else math.inf

"""What torch's fused observer does: range, moving averages, scale and zero point, in two launches, with torch's bits.

torch calls ``ChooseQuantizationParams`` for each channel and writes what it gives one by one.  Here a kernel takes the
same steps, each rounded as there, for all channels at once; :func:`agrees` finds out whether this torch was built so.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import CacheMissError
from ..launch.arguments import ObservedParameters, Reduction, describe
from ..launch.buffers import run
from ..launch.kernel import EmptyLaunch, Launch
from ..launch.registry import launch_of, prepare
from ..launch.runtime import AddressTensor
from ..spec import NARROW_LIMIT
from .plain import TYPES

OFF = torch.zeros(1, dtype=torch.int64)
"""A switch of an observer, turned off."""

MOST_KEPT = 64
"""Numbers of channels for which a thread keeps memory of ranges."""


class Observation(NamedTuple):
    """The launches that observe tensors of one description.

    Parameters
    ----------
    find : Launch, optional
        Finds the range; none where nothing is observed.
    choose : Launch
        Takes it in, and chooses scale and zero point where these are wanted.
    quantize : Launch
        The fake quantization with them.
    """

    find: Launch | EmptyLaunch | None
    choose: Launch | EmptyLaunch
    quantize: Any


def plan(x: torch.Tensor, per_row: bool, parameters: ObservedParameters, quantize: Any) -> Observation:
    """Prepare the launches for tensors like x.

    Raises
    ------
    CacheMissError
        If a kernel is in no cache and none may be built.
    """
    find = launch_of(Reduction(describe(x.detach(), "x"), 0 if per_row else None)) if parameters.observes else None
    return Observation(find, prepare(parameters), quantize)


class _Range:
    """Memory of a range, and of whether it served."""

    def __init__(self, channels: int) -> None:
        self._bounds = [(ctypes.c_float * channels)() for _ in range(2)]
        self.bounds = [AddressTensor(ctypes.addressof(each)) for each in self._bounds]
        self.flag = ctypes.c_int32()
        self.served = AddressTensor(ctypes.addressof(self.flag))


class _Ranges(threading.local):
    """Those of a thread, by the number of channels, but not while a call uses one: a signal handler may come then."""

    def __init__(self) -> None:
        self.kept: dict[int, _Range] = {}


_ranges = _Ranges()


def observe(observation: Observation, x: torch.Tensor, buffers: Sequence[Any], channels: int) -> bool:
    """Write moving averages, scales and zero points.

    Parameters
    ----------
    observation : Observation
        Of tensors like x.
    x : torch.Tensor
        float32.
    buffers : sequence of tensor
        Running minimum and maximum and scale, of float32, and zero point, of int32: contiguous, shape (channels,).
    channels : int
        1 where all elements are of one.

    Returns
    -------
    bool
        Whether they were written: all of them, or none where a bound is not finite or above the other.
    """
    kept = _ranges.kept
    memory = kept.pop(channels, None) or _Range(channels)
    bounds: Sequence[Any] = buffers[:2]  # which are not read, where nothing is observed
    if observation.find is not None:
        bounds = memory.bounds
        run(observation.find, x.detach(), *bounds, from_torch=True)
    observation.choose(*bounds, *buffers, memory.served)
    served = bool(memory.flag.value)
    if len(kept) >= MOST_KEPT:
        kept.clear()
    kept[channels] = memory
    return served


def fit(buffers: Sequence[Any], channels: int) -> bool:
    """Whether a kernel can write to running minimum and maximum, scale and zero point, each of so many channels."""
    least, greatest, scale, zero_point = buffers
    return (
        least.dtype == greatest.dtype == scale.dtype == torch.float32 and zero_point.dtype == torch.int32
        and all(
            type(t) in TYPES and t.numel() == channels and t.is_contiguous() and not t.requires_grad for t in buffers
        )
        and scale.dim() == zero_point.dim() == 1
        and are_apart(buffers)
    )  # fmt: skip


def are_apart(tensors: Sequence[Any]) -> bool:
    """Whether contiguous tensors have no memory in common, which kernels read and write in an order of their own."""
    spans = sorted((start := t.data_ptr(), start + t.nbytes) for t in tensors)
    return all(end <= start for (_, end), (start, _) in pairwise(spans))


def in_reach(low: int, high: int) -> bool:
    """Whether a kernel can choose parameters for a range of integers."""
    return -NARROW_LIMIT <= low <= high - 2 <= NARROW_LIMIT - 2


def are_switches(*tensors: Any) -> bool:
    """Whether each says by one integer if something is on."""
    return all(type(t) in TYPES and t.numel() == 1 and not t.is_floating_point() for t in tensors)


_agrees: bool | None = None


def agrees(stock: Callable[..., Any]) -> bool:
    """Whether torch's kernel takes the steps of ours, bit for bit: builds without FBGEMM take others."""
    global _agrees
    if _agrees is None:
        try:
            _agrees = _compare(stock)
        except CacheMissError:  # a library that was built without; torch is slower, not wrong
            _agrees = False
    return _agrees


def _compare(stock: Callable[..., Any]) -> bool:
    rng = np.random.default_rng(0)
    x, running = (np.float32(rng.standard_normal((2, 64)) * 10.0 ** rng.integers(-6, 4, 64)) for _ in range(2))
    x[:, :8], running[:, :8] = np.abs(x[:, :8]), np.abs(running[:, :8])
    x[:, 8:12], running[:, 8:12] = 0, 0
    x, running = np.sort(x, axis=0), np.sort(running, axis=0)
    running[:, 4:20] = ((np.inf,), (-np.inf,))
    one = torch.ones(1, dtype=torch.int64)
    for symmetric, bounds in ((False, (0, 255)), (True, (-128, 127)), (True, (0, 127)), (False, (-8, 7))):
        wanted, found = (
            [*map(torch.from_numpy, running.copy()), torch.ones(64), torch.zeros(64, dtype=torch.int32)]
            for _ in range(2)
        )
        stock(torch.from_numpy(x.T.copy()), one, one, *wanted, 0.01, *bounds, 0, True, symmetric)
        launch = prepare(ObservedParameters(64, symmetric, 0.01, *bounds, True, True))
        launch(*map(torch.from_numpy, x), *found, torch.zeros(1, dtype=torch.int32))
        if not all(map(torch.equal, wanted, found)):
            return False
    return True

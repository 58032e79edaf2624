"""What every measurement has: the tensors of a case, our own kernel on them, and a copy; knows no peer.

Contenders read the same memory and, where they let us choose, write to the same: which physical pages a tensor got
makes up to a factor of two, and is nobody's merit.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from ..environment import num_threads
from ..errors import FqError
from ..launch.arguments import check, describe_all
from ..launch.buffers import empty_like, on_memory
from ..launch.choose import choose
from ..launch.registry import find_target, prepare
from ..reference import fake_quant
from ..schedule import default_schedule
from .cases import QUANT_MAX, QUANT_MIN, Case
from .timing import Call


class Inputs:
    """The tensors of a case, in the forms that contenders want, and memory for results."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.x, self.scale, self.zero_point = case.arrays()
        self.results = empty_like(self.x, self.x.dtype), empty_like(self.x, bool)
        self.arguments = (self.x, self.scale, self.zero_point, case.axis, QUANT_MIN, QUANT_MAX)

    def expected(self) -> tuple[Any, Any]:
        """What the reference makes of them: out and mask."""
        return fake_quant(*self.arguments)

    def folded(self) -> list[np.ndarray[Any, Any]]:
        """Return x, out and mask as the dense (outer, channels, inner) that they are in memory."""
        order = self.case.order
        at = order.index(self.case.axis)
        shape = [self.case.shape[d] for d in order]
        dense = math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :])
        return [a.transpose(order).reshape(dense) for a in (self.x, *self.results)]

    def check(self, name: str, call: Call, expected: tuple[Any, Any]) -> None:
        """Compare what a contender returns, or leaves in :attr:`results` if it returns nothing, with the reference.

        Raises
        ------
        FqError
            If a bit differs.
        """
        out, mask = self.results  # of the contender before, which were right
        out.fill(np.nan)
        np.logical_not(expected[1], out=mask)
        returned = call()
        got = self.results if returned is None else returned
        for what, a, b in zip(("out", "mask"), got, expected, strict=True):
            if not np.array_equal(np.asarray(a), b):
                raise FqError(f"{name} gives another {what} than the reference for {self.case.name}; it is not timed")


def ours(inputs: Inputs, cpu: str | None = None, tuned: bool = True, knobs: Mapping[str, int] | None = None) -> Call:
    """Prepare our own call: a launch whose tensors are there, as for every contender that can do so.

    Parameters
    ----------
    inputs : Inputs
        The tensors.
    cpu : str, optional
        Generate code for this CPU instead, in the schedule that applies to it.
    tuned : bool
        Whether tuned schedules apply.
    knobs : mapping, optional
        Of the schedule, to be changed.
    """
    checked = check(describe_all((*inputs.arguments[:3], *inputs.results)), *inputs.arguments[3:])
    target = find_target(cpu)
    chosen = choose(checked, target)
    schedule = replace(chosen.schedule if tuned else default_schedule(chosen.spec, target), **(knobs or {}))
    return on_memory(prepare(checked, target, schedule), checked.operands)


def copy(x: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> Call:
    """Prepare a copy of x to out, which lies as x does, with all threads: torch's, else numpy's in slices."""
    order = sorted(range(x.ndim), key=lambda d: -x.strides[d])
    source, target = (a.transpose(order).reshape(-1) for a in (x, out))
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(num_threads())
        to, of = torch.from_numpy(target), torch.from_numpy(source)
        return lambda: to.copy_(of)
    pool, parts = ThreadPoolExecutor(num_threads()), num_threads()
    slices = list(zip(np.array_split(target, parts), np.array_split(source, parts), strict=True))
    return lambda: list(pool.map(lambda pair: np.copyto(*pair), slices))

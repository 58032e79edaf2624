"""The one place that decides how a call is served: class of loops, boundary, kernel, schedule, functions.

Functional, aclnn, torch, Relax, inspect, bench and tuning all ask here.  Knows no addresses.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import FqError
from ..layout import ROWS_MIN_INNER, Layout, arrange, contiguous_class, dense_strides
from ..operators import operator_of
from ..schedule import Schedule, default_schedule
from ..store import records
from ..target import Target
from .plan import Plan, make_plan


class Described(Protocol):
    """What a call of any operator tells of itself, but for addresses."""

    @property
    def shape(self) -> Sequence[int]:
        """Extents of self."""

    @property
    def axis(self) -> int | None:
        """The channel dimension, not negative; None where all elements share their parameters."""

    @property
    def strides(self) -> Sequence[Sequence[int]]:
        """Strides of self and of each result, in elements."""

    @property
    def values(self) -> Mapping[str, float]:
        """The numbers of entry points that the loops do not tell, by name: scalars, strides of vectors."""

    def spec(self, iteration: str) -> Any:
        """Return the kernel that serves it, given the class of the loops."""


@dataclass(frozen=True)
class Choice:
    """How a call is served.

    Parameters
    ----------
    spec : FakeQuantSpec or another operator's
        The kernel.
    target : Target
        The CPU.
    schedule : Schedule
        The knobs.
    layout : Layout
        The loops.
    plan : Plan
        The functions to call, with their numbers.
    """

    spec: Any
    target: Target
    schedule: Schedule
    layout: Layout
    plan: Plan


def choose(call: Described, target: Target, schedule: Schedule | None = None, iteration: str | None = None) -> Choice:
    """Decide how a call is served.

    Parameters
    ----------
    call : CheckedArguments or another operator's
        What was asked for; without an extent of 0.
    target : Target
        For which CPU.
    schedule : Schedule, optional
        In which schedule; by default that of :func:`schedule_for`.
    iteration : str, optional
        By which class of kernels, wherever the boundary of classes lies.

    Returns
    -------
    Choice

    Raises
    ------
    FqError
        If the class that is asked for cannot do it.
    """
    boundary = rows_min_inner(target)
    if iteration is not None:
        boundary = 1 if iteration == "rows" else sys.maxsize
    layout = arrange(call.shape, call.axis, call.strides, boundary)
    if iteration not in (None, layout.iteration):
        what = f"{tuple(call.shape)} along axis {call.axis}"
        raise FqError(f"{what} is for kernels of class {layout.iteration}, not {iteration}")
    spec = call.spec(layout.iteration)
    schedule = schedule or schedule_for(spec, target, records.size_class_of(spec, layout.size), layout.extents)
    return Choice(spec, target, schedule, layout, _plan(spec, target, schedule, layout, call.values))


def _plan(spec: Any, target: Target, schedule: Schedule, layout: Layout, values: Mapping[str, float]) -> Plan:
    large = layout.size * spec.element_bytes >= schedule.stream_from
    past_caches = large and spec.nontemporal and target.nontemporal_stores
    return make_plan(operator_of(spec).entry_points(spec), layout, schedule, values, spec.out_dtype, past_caches)


def constants_of(spec: Any, target: Target, schedule: Schedule, extents: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """Return which numbers of which forms are constants of the code for one shape.

    Parameters
    ----------
    spec, target, schedule
        The kernel.
    extents : tuple of int
        Of the loops, see :attr:`fq_tvm.layout.Layout.extents`.

    Returns
    -------
    dict of dict of int
        By form, of those that a launch calls, and by name: integers that the extents decide.  Strides and scalars are
        those of the launch.  Empty where the schedule is not static.
    """
    if not schedule.static:
        return {}
    *outer, channels, inner = extents
    loops = len(extents) - spec.lanes
    layout = Layout(spec.iteration, tuple(outer), channels, inner, ((0,) * loops,) if spec.strided else ())
    forms = operator_of(spec).entry_points(spec).forms
    values = dict.fromkeys((name for form in forms for name in form.numbers), 0)
    return {
        call.form.name: {
            name: int(value)
            for name, value in zip(call.form.numbers, call.numbers, strict=True)
            if name in call.form.integers and "stride" not in name
        }
        for call in _plan(spec, target, schedule, layout, values).calls
    }


def choose_dense(make_spec: Any, channels: Any, inner: Any, size: Any, target: Target) -> tuple[Any, Schedule]:
    """Decide how dense tensors of a graph are served, some extents of which only the run will tell.

    Parameters
    ----------
    make_spec : callable
        Gives the kernel of a class.
    channels, inner, size : int or Expr
        Extents of the channel and inside it, and the number of elements.  A record of a shape applies if all are known.
    target : Target
        What the graph is compiled for.

    Returns
    -------
    spec, schedule
    """
    static = isinstance(size, int)
    empty = static and not size
    spec = make_spec("rows" if empty else contiguous_class(channels, inner, rows_min_inner(target)))
    if not static or empty:
        return spec, schedule_for(spec, target)
    # as an arrangement of loops has them
    extents = (size // (channels * inner), channels, inner) if channels > 1 else (1, 1, size)
    return spec, schedule_for(spec, target, records.size_class_of(spec, size), extents)


def extents_of(spec: Any, shape: Sequence[int], axis: int | None = None) -> tuple[int, ...]:
    """Return the extents of the loops that a kernel visits a tensor by, which a record of its shape is found by.

    Parameters
    ----------
    spec : FakeQuantSpec or another operator's
        The kernel.
    shape : sequence of int
        Of the tensor, none of them 0; for the strided classes, that of every second element of a denser one.
    axis : int, optional
        The channel dimension; by default the last one for lanes, else the one before.

    Raises
    ------
    FqError
        If there is no such dimension.
    """
    rank = max(len(shape), 1)
    if axis is None:
        axis = rank - 1 if spec.lanes else max(rank - 2, 0)
    if not -rank <= axis < rank:
        raise FqError(f"axis is {axis}; expected {-rank} to {rank - 1} for shape {tuple(shape)}")
    axis %= rank
    step = 2 if spec.strided else 1
    return arrange(shape, axis, [[step * stride for stride in dense_strides(shape)]]).extents


def schedule_for(spec: Any, target: Target, size_class: str = "memory", extents: tuple[int, ...] = ()) -> Schedule:
    """Return the schedule of a kernel on tensors of a size class, or of a shape: a tuned one, or the default."""
    return records.lookup(spec, target, size_class, extents) or default_schedule(spec, target)


def rows_min_inner(target: Target) -> int:
    """Return the boundary between rows and lanes on a CPU: its own where it was tuned, or the default."""
    return records.rows_min_inner(target) or ROWS_MIN_INNER

"""What is searched for: groups of cases that share a record, and what a schedule makes of them.

Knows cases and launches; measures nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..bench.cases import Case
from ..errors import FqError
from ..launch.choose import Choice, choose, schedule_for
from ..schedule import Schedule, default_schedule
from ..spec import FakeQuantSpec
from ..store import records
from ..target import Target
from .space import of_shape
from .subjects import call_without

CASE_MAX_BYTES = 512 * 2**20
"""Cases that move more bytes are left to ``fq-tvm bench``: their trials take too long for what they add."""


@dataclass(frozen=True)
class Job:
    """One search: the kernels of a record, and the cases that stand for them.

    Parameters
    ----------
    spec : FakeQuantSpec or another operator's
        The kernel that is measured.
    match : tuple of pairs of str
        Of the record, see :class:`~fq_tvm.store.records.Record`.
    size_class : str
        Of the record.
    cases : tuple of Case
        A schedule's score is its geometric mean over these.
    extents : tuple of int
        Of the record, where it is for one shape.
    """

    spec: Any
    match: tuple[tuple[str, str | bool], ...]
    size_class: str
    cases: tuple[Case, ...]
    extents: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What it is about, in a few words."""
        operator = "" if self.spec.operator == records.OPERATOR else f"{self.spec.operator} "
        of = "x".join(map(str, self.extents)) or self.size_class
        return f"{operator}{self.spec.iteration} {self.spec.dtype} {of}"

    @property
    def tensors(self) -> str:
        """Where tensors of the size class live: ``"memory"`` or ``"caches"``."""
        return "memory" if self.size_class == "memory" else "caches"


def jobs_of(cases: Iterable[Case]) -> list[Job]:
    """Group cases by class, dtype and size; each group is one search.

    Parameters
    ----------
    cases : iterable of Case
        Those that move more than :data:`CASE_MAX_BYTES` are left out.

    Returns
    -------
    list of Job
        With four cases each at most: the smallest, the largest, and those of the shortest and the longest row, which is
        what parameters are held for: one channel in rows, all of them in lanes.
    """
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        if case.moved_bytes <= CASE_MAX_BYTES:
            key = (case.iteration, case.dtype, records.size_class(case.moved_bytes))
            groups.setdefault(key, []).append(case)
    jobs = []
    for (iteration, dtype, size), group in sorted(groups.items()):
        group.sort(key=lambda case: (case.moved_bytes, case.name))
        chosen = dict.fromkeys((group[0], group[-1], min(group, key=_row), max(group, key=_row)))
        spec = FakeQuantSpec(iteration, dtype, out_dtype=dtype)
        jobs.append(Job(spec, _match(spec), size, tuple(chosen)))
    return jobs


def jobs_of_shapes(cases: Iterable[Case], target: Target) -> list[Job]:
    """Make a search of each case, for a record of its shape alone.

    Parameters
    ----------
    cases : iterable of Case
        Those that move more than :data:`CASE_MAX_BYTES` are left out, and those that the same loops visit as another.
    target : Target
        The CPU, which decides the class of kernels that launches take.

    Returns
    -------
    list of Job
        With one case each.
    """
    jobs: dict[tuple[Any, tuple[int, ...]], Job] = {}
    for case in cases:
        if case.moved_bytes <= CASE_MAX_BYTES:
            choice = choose(call_without(case, FakeQuantSpec("rows", case.dtype, out_dtype=case.dtype)), target)
            spec, extents = choice.spec, choice.layout.extents
            size = records.size_class_of(spec, case.elements)
            jobs.setdefault((spec, extents), Job(spec, _match(spec), size, (case,), extents))
    return list(jobs.values())


def _match(spec: FakeQuantSpec) -> tuple[tuple[str, str | bool], ...]:
    """What a record of the command is for: kernels of a class and dtype, whatever their formula."""
    return ("dtype", spec.dtype), ("iteration", spec.iteration)


def start_of(job: Job, target: Target) -> Schedule:
    """Return what has to be beaten: the default; for one shape, what its launches have without a record of it."""
    return schedule_for(job.spec, target, job.size_class) if job.extents else default_schedule(job.spec, target)


def candidates_of(job: Job, listed: Sequence[Schedule], target: Target) -> list[Schedule]:
    """Return which schedules of a space a search of a job chooses from, what it starts from first."""
    if job.extents:
        listed = of_shape(list(dict.fromkeys((start_of(job, target), *listed))))
    return distinct(listed, job, target)


def _row(case: Case) -> int:
    return case.layout.inner * (case.layout.channels if "lanes" in case.iteration else 1)


def launch_of(case: Case, spec: Any, schedule: Schedule, target: Target) -> Choice:
    """Return what a launch of a case is in a schedule, by the class of a kernel wherever the boundary of classes lies.

    Raises
    ------
    FqError
        If a kernel of this class cannot do the case.
    """
    return choose(call_without(case, spec), target, schedule, spec.iteration)


def distinct(schedules: Iterable[Schedule], job: Job, target: Target) -> list[Schedule]:
    """Leave out schedules that do the same on the cases of a job as another, which differs less from the first."""
    first, *others = schedules
    kept: dict[tuple[Any, ...], Schedule] = {}
    for schedule in (first, *sorted(others, key=lambda schedule: distance(schedule, first))):
        kept.setdefault(_behavior(schedule, job, target), schedule)
    return list(kept.values())


def _behavior(schedule: Schedule, job: Job, target: Target) -> tuple[Any, ...]:
    """What a schedule makes of a job's cases: the functions and integers of each launch, and what their code is of.

    Of two schedules with the same behavior, what is measured between them is noise.
    """
    plans = []
    for case in job.cases:
        with contextlib.suppress(FqError):  # where no schedule does this case, the first trial says so
            plans.append(launch_of(case, job.spec, schedule, target).plan)
    # Of lanes, rows choose among functions and are an integer of those; of rows, they are in the code of all but those
    # for long rows.  Runs are integers of a launch.
    short = any(call.form.name != "long" for plan in plans for call in plan.calls)
    rows = schedule.rows if job.spec.iteration == "rows" and short else 0
    return schedule.tile, rows, schedule.vector_bits, schedule.prefetch, schedule.static, tuple(plans)


def distance(one: Schedule, other: Schedule) -> int:
    """Count the knobs in which two schedules differ."""
    return len(one.to_json().items() - other.to_json().items())

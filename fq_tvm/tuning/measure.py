"""The tuner's own measurements, for searches and for experiments: schedules of a kernel on cases, on machines.

Knows what :mod:`fq_tvm.tuning.trial` is asked; not what is searched for, nor what is decided.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..bench import Case
from ..schedule import Schedule
from .experiment import Measure, Pair, Samples, Spread, Trial
from .jobs import Job
from .machines import Machines

Contender = tuple[Any, Schedule]
"""A specification of any operator, and a schedule of it."""

_turns = itertools.count(1)
"""A seed for each order of turns, or all portions of a trial would have the same."""


def time_contenders(
    machines: Machines,
    case: Case,
    contenders: Sequence[Contender],
    tensors: str = "caches",
    seconds: float = 0.1,
    copy: bool = False,
) -> dict[str, Any]:
    """Time kernels on a case in turns, on the machine of an attempt; each is compared with the reference first.

    Parameters
    ----------
    machines : Machines
        Of which :meth:`~fq_tvm.tuning.machines.Machines.each` runs the attempt.
    case : Case
        The tensors.
    contenders : sequence of (FakeQuantSpec, Schedule)
        The kernels.
    tensors : {"caches", "memory"}
        Where tensors are when a turn begins.
    seconds : float
        How long, about.
    copy : bool
        Whether a plain copy has turns, too, where the machine has one.

    Returns
    -------
    dict
        ``times``, the seconds of each round by the contender's number as a text and perhaps ``"copy"``, and ``regime``.

    Raises
    ------
    TrialError, LostError
        As :meth:`~fq_tvm.tuning.worker.Worker.ask`.
    """
    request = {
        "ask": "time",
        "case": case.to_json(),
        "contenders": [
            {"operator": spec.operator, "spec": spec.to_json(), "schedule": schedule.to_json()}
            for spec, schedule in contenders
        ],
        **{"tensors": tensors, "copy": copy, "seconds": seconds, "seed": next(_turns)},
    }
    # making and checking the tensors takes most: a minute for half a gigabyte on a slow machine
    answer: dict[str, Any] = machines.ask(request, 30 + 10 * seconds + case.moved_bytes * 2e-7)
    return answer


def measuring(machines: Machines, job: Job, seconds: float = 0.1, copy: bool = False) -> Measure:
    """Return what times schedules on the cases of a job, where these live; for experiments that `spread_over` spreads.

    Parameters
    ----------
    machines, seconds, copy
        As for :func:`time_contenders`, of each case.
    job : Job
        The kernel and its cases.
    """

    def samples(schedules: Sequence[Schedule]) -> Samples:
        times, copies, regime = {}, {}, {}
        for case in job.cases:
            contenders = [(job.spec, schedule) for schedule in schedules]
            answer = time_contenders(machines, case, contenders, job.tensors, seconds, copy)
            measured, regime = answer["times"], answer["regime"]
            times[case.name] = [measured[str(number)] for number in range(len(schedules))]
            copies[case.name] = measured.get("copy", ())
        return Samples(times, regime, copies)

    return samples


class Paced:
    """Measures as another function does, perhaps in several threads, and knows how long that takes.

    Parameters
    ----------
    measure, renew : callable
        As for :func:`~fq_tvm.tuning.experiment.race`.
    """

    def __init__(self, measure: Measure, renew: Callable[[], object]) -> None:
        self._measure, self._renew = measure, renew
        self._thread = threading.local()
        self._anew: list[float] = []
        self._going_on: list[float] = []

    def renew(self) -> None:
        """Have everything loaded anew, which takes until this thread has its next samples."""
        self._thread.renewed = time.monotonic()
        self._renew()

    def measure(self, contenders: Sequence[Any]) -> Samples:
        """Return samples."""
        begin = time.monotonic()
        renewed = vars(self._thread).pop("renewed", None)
        samples = self._measure(contenders)
        (self._going_on if renewed is None else self._anew).append(time.monotonic() - (renewed or begin))
        return samples

    def estimate(self, portions: int, processes: int) -> float:
        """Return how many seconds portions of rounds will take, in so many new processes; 0 before any was measured.

        Of kernels that were measured before, so nothing is built: a portion takes what the shortest one took, and the
        first of a process what the median of these took; before there was one, as much as the longest portion, for
        which tensors were made.
        """
        if not self._going_on:
            return 0.0
        anew = statistics.median(self._anew or [max(self._going_on)])
        return processes * anew + (portions - processes) * min(self._going_on)


def spread_over(machines: Machines) -> Spread:
    """Return what makes trials on all machines at a time, each on one."""

    def spread(following: Callable[[], Pair | None], attempt: Callable[[Pair], Trial]) -> Iterator[Trial]:
        for done in machines.each(following, attempt):
            where = {"machine": done.machine} if machines.rpc else {}
            yield done.result or replace(done.trial.failed(str(done.error)), regime=where)

    return spread

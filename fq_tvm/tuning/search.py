"""Finds schedules by measuring them: the search, its log, and the records that it writes.

Candidates are built and timed by :mod:`fq_tvm.tuning.trial` in another process; this one survives whatever they do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bench import Case
from ..bench.timing import geometric_mean
from ..environment import num_threads
from ..errors import FqError
from ..launch.choose import extents_of, rows_min_inner
from ..launch.registry import current_target, request_of, versions
from ..layout import arrange
from ..schedule import Schedule, default_schedule
from ..spec import FakeQuantSpec
from ..store import records
from ..store.cache import digest
from ..store.records import Record, RecordFile
from ..target import Target
from .jobs import CASE_MAX_BYTES, Job, candidates_of, distance, distinct, jobs_of, start_of
from .space import space
from .worker import TrialError, Worker

LEAST_GAIN = 0.01
"""A schedule that is faster by less than a hundredth is not worth a change, however quiet the machine."""

OWN_CODE_GAIN = 0.10
"""Least gain for which a size class gets code of its own: who meets it compiles for some seconds more, and a library of
all kernels grows by one for each.  Knobs that only a launch reads cost nothing."""

BOUNDARY_INNER, BOUNDARY_CHANNELS, BOUNDARY_ELEMENTS = (28, 32, 64, 128, 256, 512), 64, 2**17
"""Tensors on which rows and lanes are compared: inner extents, and a size that fits in a second-level cache."""


@dataclass(frozen=True)
class Progress:
    """How far a search is, for whoever shows it.

    Parameters
    ----------
    job : str
        Its name.
    trial, trials : int
        Trials done, and the most there can be in this job.
    jobs_left : int
        Jobs after this one.
    best : float
        Time of the best schedule so far over that of the default.
    seconds_left : float
        Of the whole budget.
    """

    job: str
    trial: int
    trials: int
    jobs_left: int
    best: float
    seconds_left: float


@dataclass(frozen=True)
class Settings:
    """The options of a search; :func:`tune` says what each means.

    Raises
    ------
    FqError
        If the budget is no positive number.
    """

    budget: float = 60.0
    seed: int = 0
    output: str | Path | None = None
    log: str | Path | None = None
    rpc: str | None = None
    key: str = ""
    seconds: float = 0.3
    progress: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.budget < math.inf:
            raise FqError(f"the budget is {self.budget} s; expected a positive number")

    @property
    def remote(self) -> bool:
        """Whether another machine measures."""
        return self.rpc is not None


@dataclass
class _Search:
    """What the steps of a search share."""

    worker: Worker
    target: Target
    log: Path
    settings: Settings

    def time(self, case: Case, contenders: Sequence[tuple[FakeQuantSpec, Schedule]], copy: bool = False) -> Any:
        """Time contenders on a case; median, spread and number of measurements of each."""
        request = {
            "ask": "time",
            "case": case.to_json(),
            "contenders": [{"spec": spec.to_json(), "schedule": s.to_json()} for spec, s in contenders],
            "copy": copy,
            "seconds": self.settings.seconds,
        }
        # making and checking the tensors takes most: a minute for half a gigabyte on a slow machine
        return self.worker.ask(request, 30 + 10 * self.settings.seconds + case.moved_bytes * 2e-7)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line to the log; it is there even if the next moment is the last."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the rest of a line that a killed process began
                    file.write(b"\n")
            file.write(json.dumps(entry).encode() + b"\n")

    def identity(self, job: Job) -> str:
        """What has to be the same for a logged trial to count."""
        return digest(
            {
                "request": request_of(job.spec, default_schedule(job.spec, self.target), self.target),
                "match": dict(job.match),
                "size_class": job.size_class,
                "cases": [case.to_json() for case in job.cases],
                "extents": job.extents,
                "threads": num_threads(),
                "seed": self.settings.seed,
                "remote": self.settings.remote,
            }
        )[:16]

    def score(self, job: Job, old: Schedule, new: Schedule) -> tuple[float, float, dict[str, Any]]:
        """Return time of new over old, the noise of that, and the measurements by case."""
        measured = {case.name: self.time(case, [(job.spec, old), (job.spec, new)]) for case in job.cases}
        return (*_ratio(measured.values(), "1", "0"), measured)


def _ratio(measured: Iterable[Mapping[str, Sequence[float]]], of: str, to: str) -> tuple[float, float]:
    """Geometric mean of a ratio of medians over cases, and its standard error."""
    logs, variances = [], []
    for times in measured:
        logs.append(math.log(times[of][0] / times[to][0]))
        # a median's standard error, by the interquartile range of what it is the median of
        variances.append(sum((0.93 * times[n][1] / times[n][0]) ** 2 / times[n][2] for n in (of, to)))
    return math.exp(sum(logs) / len(logs)), math.sqrt(sum(variances)) / len(logs)


def _better(ratio: float, noise: float, gain: float = LEAST_GAIN) -> bool:
    return ratio < 1 - max(gain, 2 * noise)


def read_log(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read a log of trials; lines that a killed process left unfinished are passed over."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(entry := json.loads(line), dict):
                    yield entry


def _run(search: _Search, job: Job, deadline: float, show: Callable[[int, int, float], None]) -> Schedule:
    """Search one job until time is up; return the best schedule.

    Of what was not tried yet, a candidate comes next that differs from the best in the fewest knobs.
    """
    candidates = candidates_of(job, space(job.spec, search.target, search.settings.seed), search.target)
    identity = search.identity(job)
    logged = {e["trial"]: e for e in read_log(search.log) if e.get("job") == identity and e.get("kind") == "trial"}
    best, over_default = candidates[0], 1.0
    left = dict(enumerate(candidates[1:], 1))
    while left:
        number = min(left, key=lambda n: distance(left[n], best))
        candidate = left.pop(number)
        show(len(candidates) - len(left) - 1, len(candidates), over_default)
        entry = logged.get(number)
        if entry is None:
            if time.monotonic() >= deadline:
                break
            entry = _try(search, job, best, candidate)
            entry = {"kind": "trial", "job": identity, "name": job.name, "trial": number, **entry}
            search.write(entry)
        if entry.get("accepted"):
            best, over_default = candidate, over_default * entry["ratio"]
    return best


def _try(search: _Search, job: Job, best: Schedule, candidate: Schedule) -> dict[str, Any]:
    entry: dict[str, Any] = {"schedule": candidate.to_json(), "incumbent": best.to_json(), "accepted": False}
    start = time.monotonic()
    try:
        ratio, noise, measured = search.score(job, best, candidate)
        entry.update(ratio=ratio, noise=noise, measured=measured)
        if _better(ratio, noise):  # of many candidates some are lucky once
            again, noise, _ = search.score(job, best, candidate)
            entry.update(again=again, ratio=math.sqrt(ratio * again), accepted=_better(again, noise))
    except TrialError as error:
        entry["error"] = str(error)
    return {**entry, "took": round(time.monotonic() - start, 3)}


def _conclude(search: _Search, job: Job, best: Schedule) -> Record:
    """Compare what was found with the default once more, and with the limit; perhaps keep its launches alone."""
    default = start_of(job, search.target)
    of_launches = best.to_json().items() - best.compiled.items()
    shared = dataclasses.replace(default, **dict(of_launches))
    # What launches the same as the default is the default, and any gain of it noise.
    contenders = distinct((default, best, shared), job, search.target)
    timed, copy = [(job.spec, schedule) for schedule in contenders], not search.settings.remote
    measured = {case.name: search.time(case, timed, copy) for case in job.cases}
    best, of, ratio, noise = default, "0", 1.0, _ratio(measured.values(), str(len(contenders) - 1), "0")[1]
    for number, schedule in enumerate(contenders[1:], 1):
        score = _ratio(measured.values(), str(number), "0")
        gain = LEAST_GAIN if schedule.compiled == default.compiled else OWN_CODE_GAIN
        if score[0] < ratio and _better(*score, gain):
            best, of, (ratio, noise) = schedule, str(number), score
    found: dict[str, Any] = {"over_default": round(ratio, 4), "noise": round(noise, 4)}
    if copy:
        limit = geometric_mean([case.moved_bytes / (2 * case.x_bytes) for case in job.cases])
        found["over_limit"] = round(_ratio(measured.values(), of, "copy")[0] / limit, 4)
    found["cases"] = [case.name for case in job.cases]
    record = Record(job.match, job.size_class, best, found, job.spec.operator, job.extents)
    search.write({"kind": "result", "job": search.identity(job), "name": job.name, **record.to_json()})
    return record


def boundary_of(ratios: Mapping[int, float]) -> int:
    """Return the least inner extent from which rows are never slower than lanes.

    Parameters
    ----------
    ratios : mapping of int to float
        Time of rows over that of lanes, by inner extent.

    Returns
    -------
    int
        Twice the largest extent measured, if lanes win there.
    """
    won = itertools.takewhile(lambda inner: ratios[inner] <= 1, sorted(ratios, reverse=True))
    return min(won, default=2 * max(ratios))


def _find_boundary(search: _Search, found: Sequence[Record]) -> int:
    """Measure from which inner extent rows beat lanes, in cache, in the schedules that were found."""
    ratios: dict[int, float] = {}
    for inner in BOUNDARY_INNER:
        measured = []
        for dtype in ("float32", "float16"):
            case = Case((BOUNDARY_ELEMENTS // BOUNDARY_CHANNELS // inner, BOUNDARY_CHANNELS, inner), 1, dtype)
            size = records.size_class(case.moved_bytes)
            contenders = []
            for iteration in ("rows", "lanes"):
                spec = FakeQuantSpec(iteration, dtype, out_dtype=dtype)
                record = RecordFile(search.target.cpu, tuple(found)).find(spec, size)
                contenders.append((spec, record.schedule if record else default_schedule(spec, search.target)))
            measured.append(search.time(case, contenders))
        ratios[inner] = _ratio(measured, "0", "1")[0]
    boundary = boundary_of(ratios)
    search.write({"kind": "boundary", "rows_over_lanes": ratios, "rows_min_inner": boundary})
    return boundary


def output_path(target: Target) -> Path:
    """Return where records of a CPU are kept: ``schedules/`` of a checkout, else the user's data folder.

    Raises
    ------
    FqError
        If there is neither.
    """
    root = Path(__file__).parents[2]
    folder = root / "schedules" if (root / "pyproject.toml").is_file() else records.user_folder()
    if folder is None:
        raise FqError("there is no home folder to keep schedules in; say where with -o, or output=")
    return folder / f"{target.cpu}.json"


def log_path(output: Path) -> Path:
    """Return where trials are logged by default: beside the record file; nowhere if that is a device or a pipe."""
    return output.with_suffix(".trials.jsonl") if output.is_file() or not output.exists() else Path(os.devnull)


def _old_records(path: Path, named: bool) -> RecordFile | None:
    """Read the records that new ones are merged into, if any; damaged ones are made anew, where nobody named the file.

    Raises
    ------
    FqError
        If a file that was named holds something else than records, which is not to be lost.
    """
    try:
        return records.read(path) if path.is_file() else None
    except FqError as error:
        if named:
            raise FqError(f"{error}; delete the file to have it made anew") from error
        warnings.warn(f"tuned schedules are made anew: {error}", RuntimeWarning, stacklevel=2)
        return None


def _tune(jobs: Sequence[Job], settings: Settings, boundary: bool = False) -> tuple[Path, RecordFile, list[Record]]:
    """Search all jobs; return the file, what is in it now, and the results, the default schedule among them."""
    with Worker(settings.rpc, settings.key) as worker:
        target = Target.from_json(worker.ask({"ask": "target"}, 120))
        deadline = time.monotonic() + settings.budget
        path = Path(settings.output) if settings.output is not None else output_path(target)
        old = _old_records(path, settings.output is not None)
        search = _Search(worker, target, Path(settings.log or log_path(path)), settings)
        found: list[Record] = []
        for index, job in enumerate(jobs):
            left = len(jobs) - index - 1

            def show(trial: int, trials: int, best: float, job: Job = job, left: int = left) -> None:
                if settings.progress is not None:
                    seconds = max(0.0, deadline - time.monotonic())
                    settings.progress(Progress(job.name, trial, trials, left, best, seconds))

            share = max(0.0, deadline - time.monotonic()) / (left + 1)
            best = _run(search, job, time.monotonic() + share, show)
            try:
                found.append(_conclude(search, job, best))
            except TrialError as error:
                # the default itself cannot be measured here, so nothing is known about this job
                search.write({"kind": "result", "job": search.identity(job), "name": job.name, "error": str(error)})
        if not found:
            raise FqError(f"nothing could be measured; {search.log} has the reasons")
        shortest = _find_boundary(search, found) if boundary else None
        tuned = {"versions": versions(), "seed": settings.seed, "budget": settings.budget, "remote": settings.remote}
        # A record of the default would change nothing here, and hide those of relatives and levels.
        better = tuple(record for record in found if record.measured["over_default"] < 1)
        content = records.merge(old, RecordFile(target.cpu, better, num_threads(), shortest, tuned), found)
        records.write(path, content)
    records.forget()
    return path, content, found


def tune(
    spec: FakeQuantSpec, shape: Sequence[int], axis: int | None = None, *, static: bool = False, **options: Any
) -> Schedule:
    """Find a fast schedule for a kernel, and keep it for every later :func:`~fq_tvm.launch.registry.get_kernel`.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.
    shape : sequence of int
        Of a tensor that it is to be fast on; the record is for all of its size class, unless static.
    axis : int, optional
        The channel dimension; by default the last one for lanes, else the one before.
    static : bool
        Whether the record is for tensors of this shape alone, however it is written: those that are visited by the
        same loops, see :attr:`fq_tvm.layout.Layout.extents`.  Launches of such tensors and graphs of static shape use
        it, :func:`~fq_tvm.get_kernel` if it is told the shape, and a library that is built ahead of time has its
        kernel; for other shapes nothing changes.  What is found has to be better than the schedule that launches of the
        shape had before.
    budget : float
        Seconds to search for, about; 60 by default.
    seed : int
        Of the order of candidates; 0 by default.
    output : path, optional
        The record file; in a checkout ``schedules/<cpu>.json``, else one in the user's data folder.
    log : path, optional
        The log of trials, a JSON object a line; by default beside the record file.
    rpc, key : str, optional
        ``HOST:PORT`` of a :mod:`tvm.rpc` tracker, and the key of a machine there, to measure on that one.
    seconds : float
        How long one comparison takes; 0.3 by default.
    progress : callable, optional
        Called with a :class:`Progress` before each trial.

    Returns
    -------
    Schedule
        The best one found, or the default where none was better by more than the noise; that is no record, so other
        records that apply go on to do so.

    Raises
    ------
    FqError
        If the kernel cannot do the shape, or is to be static and launches of the shape take another, or nothing could
        be measured.
    OSError
        If the record or the log cannot be written.
    TypeError
        If an option is unknown.
    """
    settings = Settings(**options)
    shape = tuple(shape)
    if axis is None:
        axis = len(shape) - 1 if spec.lanes else max(len(shape) - 2, 0)
    case = Case(shape, axis % max(len(shape), 1), spec.dtype, "stepped" if spec.strided else "contiguous")
    extents = _extents(spec, case) if static else ()
    job = Job(spec, tuple(sorted(spec.to_json().items())), records.size_class_of(spec, case.elements), (case,), extents)
    *_, [result] = _tune([job], settings)
    return result.schedule


def _extents(spec: FakeQuantSpec, case: Case) -> tuple[int, ...]:
    """Return by which loops a kernel visits a case, if it is the one that launches take."""
    taken = arrange(case.shape, case.axis, case.strides, rows_min_inner(current_target())).iteration
    if taken != spec.iteration:
        raise FqError(
            f"launches of {case.name} take kernels of class {taken}, so a record of its shape for {spec.iteration} "
            f"would serve none; expected a specification of {taken}"
        )
    return extents_of(spec, case.shape, case.axis)


def tune_cases(cases: Iterable[Case], *, boundary: bool = False, **options: Any) -> tuple[Path, RecordFile]:
    """Find schedules for the classes, dtypes and sizes that cases stand for.

    Parameters
    ----------
    cases : iterable of Case
        Grouped by :func:`~fq_tvm.tuning.jobs.jobs_of`; the budget is shared by the groups.
    boundary : bool
        Whether the boundary between rows and lanes is measured, too.
    budget : float
        Seconds to search for, about; 600 by default.
    seed, output, log, rpc, key, seconds, progress
        As for :func:`tune`.

    Returns
    -------
    Path, RecordFile
        Where the records are, and all that are there now.  Results that are the default schedule are in the log alone.

    Raises
    ------
    FqError, OSError, TypeError
        As :func:`tune`.
    """
    settings = Settings(**{"budget": 600.0, **options})
    jobs = jobs_of(cases)
    if not jobs:
        raise FqError(f"no case moves {CASE_MAX_BYTES / 1e6:.0f} MB or less; larger ones are not tuned on")
    path, content, _ = _tune(jobs, settings, boundary)
    return path, content

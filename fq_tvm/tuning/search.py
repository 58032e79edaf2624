"""Finds schedules by measuring them: the search, its log, and the records that it writes.

Candidates are built and timed by :mod:`fq_tvm.tuning.trial` in another process; this one survives whatever they do.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from .decision import LEAST_GAIN, SequentialTest, interval_of_means
from .experiment import Gain, History, Measure, Propose, Samples, Spread, estimated, experiment, nearest
from .jobs import CASE_MAX_BYTES, Job, candidates_of, distance, distinct, jobs_of, jobs_of_shapes, start_of
from .log import DAMAGED, FORMAT, Result, go_on, read_log
from .machines import Machines
from .measure import Paced, measuring, spread_over, time_contenders
from .optimizer import tpe
from .space import space
from .worker import TrialError

USER_GAIN, SHIPPED_GAIN = 0.03, 0.10
"""Least gains for which a size class gets code of its own, in a user's file and in one that is shipped: who meets it
compiles for some seconds more, and a library of all kernels grows by one for each.  Knobs that only a launch reads cost
nothing, and have to gain :data:`~fq_tvm.tuning.decision.LEAST_GAIN`."""

PROCESSES, PORTIONS = {"cache": 6, "mid": 6, "memory": 3}, 2
"""In how many processes what was found meets the default, by size class (where memory is waited for, places in caches
hardly matter, and tensors take long to make), and how many portions of rounds each gives.  In each of them contenders
are loaded in another order, as who is loaded first is faster, or slower, by some percent."""

STEP_GAIN = 0.02
"""What a candidate has to gain over the best so far: where they lie makes equal kernels differ by a hundredth."""

SEARCHES: dict[str, Callable[[Sequence[Schedule], int], Propose]] = {
    "estimated": lambda candidates, _: estimated(candidates),
    "nearest": lambda candidates, _: nearest(candidates, distance),
    "tpe": tpe,
}
"""What chooses the next candidate, by name, given the space and a seed; decision 28 compares them."""

TRIAL_SHARE, COMPARISON_SHARE = 0.1, 0.5
"""The most of a job's budget that one trial takes, about, and that is kept for the comparison in the end: half of a
budget is searched for, even where the rest is less than the comparison takes."""

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
    gain : float
        Of the best schedule so far over the default, as far as trials tell: a fraction of the default's time.
    seconds_left : float
        Of the whole budget.
    """

    job: str
    trial: int
    trials: int
    jobs_left: int
    gain: float
    seconds_left: float


@dataclass(frozen=True)
class Settings:
    """The options of a search; :func:`tune` says what each means.

    The budget is of all that is measured, but for the boundary between rows and lanes: a search stops trying when what
    is left of its share is what the comparison with the default will take, going by its own trials.

    Raises
    ------
    FqError
        If the budget is no positive number, or the least gain no fraction.
    """

    budget: float = 60.0
    seed: int = 0
    output: str | Path | None = None
    log: str | Path | None = None
    rpc: str | None = None
    key: str = ""
    seconds: float = 0.1
    min_gain: float | None = None
    search: str = "estimated"
    progress: Callable[[Progress], None] | None = None
    result: Callable[[Found], object] | None = None
    failure: Callable[[str, str], object] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.budget < math.inf:
            raise FqError(f"the budget is {self.budget} s; expected a positive number")
        if self.min_gain is not None and not 0 <= self.min_gain < 1:
            raise FqError(f"the least gain is {self.min_gain}; expected a fraction from 0 up, e.g. 0.03")
        if self.search not in SEARCHES:
            raise FqError(f"the search is {self.search!r}; expected one of {', '.join(SEARCHES)}")

    @property
    def remote(self) -> bool:
        """Whether another machine measures."""
        return self.rpc is not None


@dataclass(frozen=True)
class Found(Result):
    """What came of a search, with the record that is kept, if it is.

    Parameters
    ----------
    record : Record
        With the best schedule, the default with the knobs of the best that only a launch reads, or the default.
    """

    record: Record = field(kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a line of the log."""
        return {**self.record.to_json(), **super().to_json()}


@dataclass
class _Search:
    """What the steps of a search share."""

    machines: Machines
    target: Target
    log: Path
    settings: Settings
    min_gain: float
    noted: list[dict[str, Any]] = field(default_factory=list)
    """Machines that came and went, which the log has not been told of."""

    def measure(self, job: Job, copy: bool = False) -> Measure:
        """Return what times schedules on the cases of a job, where these live."""
        return measuring(self.machines, job, self.settings.seconds, copy)

    def write(self, job: Job, entry: Mapping[str, Any]) -> None:
        """Append a line of a job to the log."""
        self.append({"kind": entry["kind"], "job": self.identity(job), "name": job.name, **entry})

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Append lines to the log; they are there even if the next moment is the last."""
        lines, self.noted[:] = [*self.noted, *entries], []
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the rest of a line that a killed process began
                    file.write(b"\n")
            file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def identity(self, job: Job) -> str:
        """What has to be the same for a logged trial to count."""
        return digest(
            {
                "format": FORMAT,
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

    def spread(self) -> Spread:
        """Return where trials run."""
        return spread_over(self.machines)

    def history(self, job: Job, start: Schedule) -> History:
        """Return the trials of a job that the log has."""
        history, identity = History(start), self.identity(job)
        for entry in read_log(self.log):
            if entry.get("job") == identity and entry.get("kind") in ("trial", "check"):
                with contextlib.suppress(*DAMAGED):
                    go_on(history, entry)
        return history


def _run(search: _Search, job: Job, budget: float, show: Callable[[int, int, float], None]) -> History:
    """Search one job until what is left of its budget is what :func:`_conclude` will take; return its trials.

    What comes next of what was not tried yet, :data:`SEARCHES` says.
    """
    deadline = time.monotonic() + budget
    candidates = candidates_of(job, space(job.spec, search.target, search.settings.seed), search.target)
    history = search.history(job, candidates[0])
    chosen = SEARCHES[search.settings.search](candidates, search.settings.seed)
    decide = SequentialTest(len(candidates), gain=STEP_GAIN)
    begun: dict[str, Any] = {"kind": "search", "format": FORMAT, "cpu": search.target.cpu, "seed": search.settings.seed}
    begun["search"] = search.settings.search
    begun.update(cases=[case.name for case in job.cases], candidates=len(candidates), start=candidates[0].to_json())
    search.write(job, {**begun, "budget": round(budget, 3), "min_gain": search.min_gain, "test": asdict(decide)})

    paced, took = Paced(search.measure(job), search.machines.renew), [0.0]

    def is_time_left() -> bool:
        processes = PROCESSES[job.size_class] if history.incumbent != history.start else 0
        comparison = paced.estimate(max(processes, 1) * PORTIONS, processes)
        kept = min(comparison, budget * COMPARISON_SHARE)
        # half of a trial, as those that begin in time end as much before the deadline as after it then
        return time.monotonic() + kept + statistics.median(took) / 2 < deadline

    def propose(history: History) -> Schedule | None:
        if (candidate := chosen(history)) is None:
            return None
        show(1 + sum(not trial.check for trial in history.trials), len(candidates), history.gain)
        return candidate if is_time_left() else None

    patience = budget * TRIAL_SHARE
    for trial in experiment(history, propose, paced.measure, decide, patience, paced.renew, search.spread()):
        took.append(trial.took)
        search.write(job, trial.to_json())
    return history


def _conclude(search: _Search, job: Job, best: Schedule) -> Found:
    """Compare what was found with the default in new rounds, and with the limit; perhaps keep its launches alone.

    That is done on every machine that is there, and the gain is that on the one where it is least: a record is for all
    machines of a CPU, and what gains on one alone is its memory, its neighbors, or luck.
    """
    default = start_of(job, search.target)
    of_launches = best.to_json().items() - best.compiled.items()
    shared = replace(default, **dict(of_launches))
    # What launches the same as the default is the default, and any gain of it noise.
    contenders = distinct((default, best, shared), job, search.target)
    by_machine, samples = _confirm(search, job, contenders)
    gains = {s: Gain(*map(min, zip(*by_machine[s].values(), strict=True))) for s in contenders}
    needed = {s: LEAST_GAIN if s.compiled == default.compiled else search.min_gain for s in contenders}
    enough = [s for s in contenders[1:] if gains[s].low > 0 and gains[s].median >= needed[s]]
    kept = max(enough, key=lambda schedule: gains[schedule].median, default=default)
    gain = gains.get(kept if enough else best, gains[default])
    if best not in contenders[1:]:
        best, why = default, "none was faster"
    elif gain.low <= 0:
        why = "perhaps no faster, as new processes say"
    elif not enough:
        why = f"gains less than {needed[best]:.0%}"
    else:
        why = "faster" if kept == best else "faster by what launches read alone"
    found: dict[str, Any] = {"over_default": 1.0, "gain": [0.0, 0.0, 0.0]}
    if enough:
        found = {"over_default": round(1 - gain.median, 4), "gain": gain.to_json()}
    if any(samples.copy.values()):
        limit = geometric_mean([case.elements * job.spec.element_bytes / (2 * case.x_bytes) for case in job.cases])
        with_copy = Samples({name: (*samples.seconds[name], times) for name, times in samples.copy.items()})
        over_copy = with_copy.log_ratios(contenders.index(kept), len(contenders))
        found["over_limit"] = round(math.exp(statistics.median(over_copy)) / limit, 4)
    found.update(cases=[case.name for case in job.cases], regime=dict(samples.regime))
    if search.settings.remote:
        told = kept if enough else best if best in by_machine else default
        found["machines"] = {name: gain.to_json() for name, gain in by_machine[told].items()}
        del found["regime"]["machine"]
    record = Record(job.match, job.size_class, kept, found, job.spec.operator, job.extents)
    result = Found(job.name, default, best, bool(enough), gain, why, found, record=record)
    search.write(job, {"kind": "result", **result.to_json()})
    return result


def _confirm(
    search: _Search, job: Job, contenders: Sequence[Schedule]
) -> tuple[dict[Schedule, dict[str, Gain]], Samples]:
    """Return the gain of each contender over the first by machine, and some samples.

    Raises
    ------
    TrialError
        If no machine can do it.
    """
    measure = search.measure(job, copy=not search.settings.remote)
    some = len(contenders) > 1

    def confirm() -> tuple[list[Gain], Samples]:
        logs: list[list[float]] = [[] for _ in contenders[1:]]
        orders = itertools.cycle(itertools.permutations(range(len(contenders))))
        for order in itertools.islice(orders, PROCESSES[job.size_class] if some else 1):
            if some:
                search.machines.renew()
            places = [order.index(number) for number in range(len(contenders))]
            portions = [measure([contenders[number] for number in order]).ordered(*places) for _ in range(PORTIONS)]
            for number, values in enumerate(logs, 1):
                values.append(statistics.median(log for samples in portions for log in samples.log_ratios(number)))
        return [Gain(0.0, 0.0, 0.0), *map(interval_of_means, logs)], portions[-1]

    done = search.machines.on_every_one(confirm)
    measured = {each.machine: each.result for each in done if each.result is not None}
    if not measured:
        raise TrialError(done[0].error)
    by_machine = {
        schedule: {machine: gains[number] for machine, (gains, _) in measured.items()}
        for number, schedule in enumerate(contenders)
    }
    return by_machine, next(iter(measured.values()))[1]


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


def _find_boundary(search: _Search, found: Sequence[Record]) -> int | None:
    """Measure from which inner extent rows beat lanes, in cache, in the schedules that were found.

    The extents are spread over the machines.  None if one cannot be measured.
    """

    def rows_over_lanes(inner: int) -> float:
        measured = []
        for dtype in ("float32", "float16"):
            case = Case((BOUNDARY_ELEMENTS // BOUNDARY_CHANNELS // inner, BOUNDARY_CHANNELS, inner), 1, dtype)
            size = records.size_class(case.moved_bytes)
            contenders = []
            for iteration in ("rows", "lanes"):
                spec = FakeQuantSpec(iteration, dtype, out_dtype=dtype)
                record = RecordFile(search.target.cpu, tuple(found)).find(spec, size)
                contenders.append((spec, record.schedule if record else default_schedule(spec, search.target)))
            times = time_contenders(search.machines, case, contenders, "caches", search.settings.seconds)["times"]
            measured.append(statistics.median(Samples({case.name: (times["1"], times["0"])}).log_ratios()))
        return math.exp(statistics.fmean(measured))

    left = iter(BOUNDARY_INNER)
    ratios: dict[int, float] = {}
    for done in search.machines.each(lambda: next(left, None), rows_over_lanes):
        if done.result is None:
            search.append({"kind": "boundary", "error": done.error})
            return None
        ratios[done.trial] = done.result
    boundary = boundary_of(ratios)
    search.append({"kind": "boundary", "rows_over_lanes": ratios, "rows_min_inner": boundary})
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


def _tune(jobs: Sequence[Job], settings: Settings, boundary: bool = False) -> tuple[Path, RecordFile, list[Found]]:
    """Search all jobs; return the file, what is in it now, and the results, the default schedule among them."""
    noted: list[dict[str, Any]] = []

    def note(machine: str, event: str, why: str) -> None:
        noted.append({"kind": "machine", "machine": machine, "event": event, "why": why})

    with Machines(settings.rpc, settings.key, note if settings.remote else None) as machines:
        target = machines.target
        deadline = time.monotonic() + settings.budget
        path = Path(settings.output) if settings.output is not None else output_path(target)
        old = _old_records(path, settings.output is not None)
        min_gain = least_gain(path) if settings.min_gain is None else settings.min_gain
        search = _Search(machines, target, Path(settings.log or log_path(path)), settings, min_gain, noted)
        found: list[Found] = []
        for index, job in enumerate(jobs):
            left = len(jobs) - index - 1

            def show(trial: int, trials: int, gain: float, job: Job = job, left: int = left) -> None:
                if settings.progress is not None:
                    seconds = max(0.0, deadline - time.monotonic())
                    settings.progress(Progress(job.name, trial, trials, left, gain, seconds))

            history = _run(search, job, max(0.0, deadline - time.monotonic()) / (left + 1), show)
            try:
                found.append(_conclude(search, job, history.incumbent))
            except TrialError as error:
                # the default itself cannot be measured here, so nothing is known about this job
                search.write(job, {"kind": "result", "error": str(error)})
                if settings.failure is not None:
                    settings.failure(job.name, str(error))
                continue
            if settings.result is not None:
                settings.result(found[-1])
        if not found:
            raise FqError(f"nothing could be measured; {search.log} has the reasons")
        results = [result.record for result in found]
        shortest = _find_boundary(search, results) if boundary else None
        tuned = {"versions": versions(), "seed": settings.seed, "budget": settings.budget, "remote": settings.remote}
        # A record of the default would change nothing here, and hide those of relatives and levels.
        better = tuple(result.record for result in found if result.kept)
        content = records.merge(old, RecordFile(target.cpu, better, num_threads(), shortest, tuned), results)
        records.write(path, content)
    records.forget()
    return path, content, found


def least_gain(output: Path) -> float:
    """Return which gain a record in a file has to bring by default: more in the folder that is shipped."""
    shipped = records.shipped_folder()
    return SHIPPED_GAIN if shipped is not None and output.resolve().parent == shipped.resolve() else USER_GAIN


def tune(spec: Any, shape: Sequence[int], axis: int | None = None, *, static: bool = False, **options: Any) -> Schedule:
    """Find a fast schedule for a kernel, and keep it for every later :func:`~fq_tvm.launch.registry.get_kernel`.

    Parameters
    ----------
    spec : FakeQuantSpec or another operator's
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
        Seconds that it takes, about, with the comparison in the end, for which up to half of them are kept; 60 by
        default.
    seed : int
        Of the order of candidates; 0 by default.
    output : path, optional
        The record file; in a checkout ``schedules/<cpu>.json``, else one in the user's data folder.
    log : path, optional
        The log of trials, a JSON object a line; by default beside the record file.
    rpc, key : str, optional
        ``HOST:PORT`` of a :mod:`tvm.rpc` tracker, and the key of machines there, to measure on all of them at a time.
    seconds : float
        How long contenders take turns before it is asked whether that is enough; 0.1 by default.
    min_gain : float
        Fraction of the default's time that a schedule with code of its own has to gain to be kept; 0.03 by default, and
        0.1 in the folder of a checkout that is shipped.
    search : {"estimated", "nearest", "tpe"}
        What is tried next: what has the knobs' values that gained most, the default; what differs from the best so far
        in the fewest knobs; or what optuna samples, which needs the extra ``fq_tvm[search]``.
    progress : callable, optional
        Called with a :class:`Progress` before each trial.
    result : callable, optional
        Called with the :class:`Found` of each search.
    failure : callable, optional
        Called with the name of a search and why it has no result: its default could not be measured.

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
    return result.record.schedule


def _extents(spec: Any, case: Case) -> tuple[int, ...]:
    """Return by which loops a kernel visits a case, if it is the one that launches take."""
    taken = arrange(case.shape, case.axis, case.strides, rows_min_inner(current_target())).iteration
    if taken != spec.iteration:
        raise FqError(
            f"launches of {case.name} take kernels of class {taken}, so a record of its shape for {spec.iteration} "
            f"would serve none; expected a specification of {taken}"
        )
    return extents_of(spec, case.shape, case.axis)


def tune_cases(
    cases: Iterable[Case], *, static: bool = False, boundary: bool = False, **options: Any
) -> tuple[Path, RecordFile]:
    """Find schedules for the classes, dtypes and sizes that cases stand for, or for their shapes.

    Parameters
    ----------
    cases : iterable of Case
        Grouped by :func:`~fq_tvm.tuning.jobs.jobs_of`; the budget is shared by the groups.
    static : bool
        Whether each case is a search of its own, for a record of its shape alone, as for :func:`tune`; such records are
        for kernels of a class and dtype, as those of the groups are.
    boundary : bool
        Whether the boundary between rows and lanes is measured, too.
    budget : float
        Seconds that it takes, about, with the comparisons in the end; 600 by default.
    seed, output, log, rpc, key, seconds, min_gain, search, progress, result, failure
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
    jobs = jobs_of_shapes(cases, current_target()) if static else jobs_of(cases)
    if not jobs:
        raise FqError(f"no case moves {CASE_MAX_BYTES / 1e6:.0f} MB or less; larger ones are not tuned on")
    path, content, _ = _tune(jobs, settings, boundary)
    return path, content

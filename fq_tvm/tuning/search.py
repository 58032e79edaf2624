"""Finds schedules by measuring them: the search, its log, and the records that it writes.

Candidates are built and timed by :mod:`fq_tvm.tuning.trial` in another process; this one survives whatever they do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..bench import Case
from ..environment import num_threads, with_cache
from ..errors import FqError
from ..launch.kernel import request_of, versions
from ..schedule import Schedule, default_schedule
from ..spec import FakeQuantSpec
from ..store import records
from ..store.cache import digest
from ..store.records import Record, RecordFile
from ..target import Target

if TYPE_CHECKING:
    import tvm

__all__ = [
    "Job",
    "Step",
    "TrialError",
    "Worker",
    "boundary_of",
    "jobs_of",
    "metaschedule_module",
    "metaschedule_space",
    "output_path",
    "plot_trials",
    "read_log",
    "tune",
    "tune_cases",
]

LEAST_GAIN = 0.01
"""A schedule that is faster by less than a hundredth is not worth a change, however quiet the machine."""

OWN_CODE_GAIN = 0.10
"""Least gain for which a size class gets code of its own: who meets it compiles for some seconds more, and a library of
all kernels grows by one for each.  Knobs that only a launch reads cost nothing."""

LARGEST = 512 * 2**20
"""Cases that move more bytes are left to ``fq-tvm bench``: their trials take too long for what they add."""

BOUNDARY_INNER, BOUNDARY_CHANNELS, BOUNDARY_ELEMENTS = (28, 32, 64, 128, 256, 512), 64, 2**17
"""Tensors on which rows and lanes are compared: inner extents, and a size that fits in a second-level cache."""


class TrialError(FqError):
    """A trial failed: its kernel could not be built, gave another result, crashed or hung."""


@dataclass(frozen=True)
class Job:
    """One search: the kernels of a record, and the cases that stand for them.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel that is measured.
    match : tuple of pairs of str
        Of the record, see :class:`~fq_tvm.store.records.Record`.
    size_class : str
        Of the record.
    cases : tuple of Case
        A schedule's score is its geometric mean over these.
    """

    spec: FakeQuantSpec
    match: tuple[tuple[str, str], ...]
    size_class: str
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """What it is about, in a few words."""
        return f"{self.spec.iteration} {self.spec.dtype} {self.size_class}"


@dataclass(frozen=True)
class Step:
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


Progress = Callable[[Step], None]


class Worker:
    """The other process; started when first asked, and again after it was lost.

    Parameters
    ----------
    rpc : str, optional
        ``HOST:PORT`` of a tracker, to measure on another machine.
    key : str
        Of the machine at the tracker.
    command : sequence of str
        What is started.
    """

    def __init__(
        self,
        rpc: str | None = None,
        key: str = "",
        command: Sequence[str] = (sys.executable, "-m", "fq_tvm.tuning.trial"),
    ) -> None:
        self.command = [*command, *(["--rpc", rpc, "--key", key] if rpc else [])]
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def _start(self) -> subprocess.Popen[str]:
        # Hundreds of candidates must not fill the user's cache, nor be looked for among artifacts.
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="fq_tvm-tune-")
        self._answers = queue.Queue()
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=with_cache(self._folder.name),
            start_new_session=True,  # an interrupt is for the tuner, which then ends the worker
        )

        def listen(lines: IO[str], answers: queue.Queue[str]) -> None:
            for line in lines:
                answers.put(line)
            answers.put("")

        assert process.stdout is not None
        threading.Thread(target=listen, args=(process.stdout, self._answers), daemon=True).start()
        return process

    def stop(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def ask(self, request: Mapping[str, Any], timeout: float) -> Any:
        """Ask and wait for the answer.

        Raises
        ------
        TrialError
            With the reason: what the process says, how it ended, or that it did not answer in time.
        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self.stop()
            raise TrialError(f"no answer in {timeout:.0f} s") from None
        except OSError:
            line = ""
        except BaseException:
            self.stop()
            raise
        if not line:
            status = process.wait()
            self.stop()
            raise TrialError(f"the process {_how_it_ended(status)}")
        answer = json.loads(line)
        if "error" in answer:
            raise TrialError(answer["error"])
        return answer["answer"]


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def jobs_of(cases: Iterable[Case]) -> list[Job]:
    """Group cases by class, dtype and size; each group is one search.

    Parameters
    ----------
    cases : iterable of Case
        Those that move more than :data:`LARGEST` bytes are left out.

    Returns
    -------
    list of Job
        With four cases each at most: the smallest, the largest, and those of the shortest and the longest row, which is
        what parameters are held for: one channel in rows, all of them in lanes.
    """
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        if case.moved_bytes <= LARGEST:
            key = (case.iteration, case.dtype, records.size_class(case.moved_bytes))
            groups.setdefault(key, []).append(case)
    jobs = []
    for (iteration, dtype, size), group in sorted(groups.items()):
        group.sort(key=lambda case: (case.moved_bytes, case.name))
        chosen = dict.fromkeys((group[0], group[-1], min(group, key=_row), max(group, key=_row)))
        spec = FakeQuantSpec(iteration, dtype, out_dtype=dtype)
        jobs.append(Job(spec, (("dtype", dtype), ("iteration", iteration)), size, tuple(chosen)))
    return jobs


def _row(case: Case) -> int:
    return case.layout.inner * (case.layout.channels if "lanes" in case.iteration else 1)


def _distinct(schedules: Iterable[Schedule], job: Job) -> list[Schedule]:
    """Leave out schedules that do the same on the cases of a job as another, which differs less from the first."""
    seen, kept = set(), []
    first, *others = schedules
    for schedule in (first, *sorted(others, key=lambda schedule: _distance(schedule, first))):
        parallel = tuple(case.elements >= schedule.parallel_from for case in job.cases)
        stream = tuple(case.moved_bytes >= schedule.stream_from for case in job.cases)
        behavior = (dataclasses.replace(schedule, parallel_from=1, stream_from=1), parallel, stream)
        if behavior not in seen:
            seen.add(behavior)
            kept.append(schedule)
    return kept


@dataclass
class _Search:
    """What the steps of a search share."""

    worker: Worker
    target: Target
    log: Path
    seed: int
    seconds: float
    remote: bool

    def time(self, case: Case, contenders: Sequence[tuple[FakeQuantSpec, Schedule]], copy: bool = False) -> Any:
        """Time contenders on a case; median, spread and number of measurements of each."""
        request = {
            "ask": "time",
            "case": case.to_json(),
            "contenders": [{"spec": spec.to_json(), "schedule": s.to_json()} for spec, s in contenders],
            "copy": copy,
            "seconds": self.seconds,
        }
        # making and checking the tensors takes most: a minute for half a gigabyte on a slow machine
        return self.worker.ask(request, 30 + 10 * self.seconds + case.moved_bytes * 2e-7)

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
                "threads": num_threads(),
                "seed": self.seed,
                "remote": self.remote,
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
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry


def _run(search: _Search, job: Job, deadline: float, show: Callable[[int, int, float], None]) -> Schedule:
    """Search one job until time is up; return the best schedule.

    Of what was not tried yet, a candidate comes next that differs from the best in the fewest knobs.
    """
    candidates = _distinct(records.space(job.spec, search.target, search.seed), job)
    identity = search.identity(job)
    logged = {e["trial"]: e for e in read_log(search.log) if e.get("job") == identity and e.get("kind") == "trial"}
    best, over_default = candidates[0], 1.0
    left = dict(enumerate(candidates[1:], 1))
    while left:
        number = min(left, key=lambda n: _distance(left[n], best))
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


def _distance(one: Schedule, other: Schedule) -> int:
    """Count the knobs in which two schedules differ."""
    return len(one.to_json().items() - other.to_json().items())


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
    default = default_schedule(job.spec, search.target)
    shared = dataclasses.replace(
        default, **{name: v for name, v in best.to_json().items() if name not in best.compiled}
    )
    contenders = list(dict.fromkeys((default, best, shared)))
    measured = {}
    for case in job.cases:
        measured[case.name] = search.time(case, [(job.spec, s) for s in contenders], not search.remote)
    best, of, ratio, noise = default, "0", 1.0, _ratio(measured.values(), str(len(contenders) - 1), "0")[1]
    for number, schedule in enumerate(contenders[1:], 1):
        score = _ratio(measured.values(), str(number), "0")
        gain = LEAST_GAIN if schedule.compiled == default.compiled else OWN_CODE_GAIN
        if score[0] < ratio and _better(*score, gain):
            best, of, (ratio, noise) = schedule, str(number), score
    found: dict[str, Any] = {"over_default": round(ratio, 4), "noise": round(noise, 4)}
    if not search.remote:
        over = [
            measured[case.name][of][0] / measured[case.name]["copy"][0] * 2 * case.x_bytes / case.moved_bytes
            for case in job.cases
        ]
        found["over_limit"] = round(math.exp(sum(map(math.log, over)) / len(over)), 4)
    found["cases"] = [case.name for case in job.cases]
    record = Record(job.match, job.size_class, best, found)
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
    boundary = 2 * max(ratios)
    for inner in sorted(ratios, reverse=True):
        if ratios[inner] > 1:
            break
        boundary = inner
    return boundary


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


def _tune(
    jobs: Sequence[Job],
    budget: float,
    seed: int,
    output: str | Path | None,
    log: str | Path | None,
    worker: Worker,
    seconds: float,
    progress: Progress | None,
    boundary: bool,
) -> tuple[Path, RecordFile]:
    if not 0 < budget < math.inf:
        raise FqError(f"the budget is {budget} s; expected a positive number")
    remote = "--rpc" in worker.command
    with worker:
        target = Target.from_json(worker.ask({"ask": "target"}, 120))
        deadline = time.monotonic() + budget
        path = Path(output) if output is not None else output_path(target)
        old = records.read(path) if path.exists() else None
        search = _Search(worker, target, Path(log or path.with_suffix(".trials.jsonl")), seed, seconds, remote)
        found: list[Record] = []
        for index, job in enumerate(jobs):
            left = len(jobs) - index - 1

            def show(trial: int, trials: int, best: float, job: Job = job, left: int = left) -> None:
                if progress is not None:
                    progress(Step(job.name, trial, trials, left, best, max(0.0, deadline - time.monotonic())))

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
        tuned = {"versions": versions(), "seed": seed, "budget": budget, "remote": remote}
        new = RecordFile(target.cpu, tuple(found), num_threads(), shortest, tuned)
        content = records.merge(old, new)
        records.write(path, content)
    records.forget()
    return path, content


def tune(
    spec: FakeQuantSpec,
    shape: Sequence[int],
    axis: int | None = None,
    *,
    budget: float = 60.0,
    seed: int = 0,
    output: str | Path | None = None,
    log: str | Path | None = None,
    rpc: str | None = None,
    key: str = "",
    seconds: float = 0.3,
    progress: Progress | None = None,
) -> Schedule:
    """Find a fast schedule for a kernel, and keep it for every later :func:`~fq_tvm.launch.kernel.get_kernel`.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.
    shape : sequence of int
        Of a tensor that it is to be fast on; the record is for all of its size class.
    axis : int, optional
        The channel dimension; by default the last one for lanes, else the one before.
    budget : float
        Seconds to search for, about.
    seed : int
        Of the order of candidates.
    output : path, optional
        The record file; in a checkout ``schedules/<cpu>.json``, else one in the user's data folder.
    log : path, optional
        The log of trials, a JSON object a line; by default beside the record file.
    rpc, key : str, optional
        ``HOST:PORT`` of a :mod:`tvm.rpc` tracker, and the key of a machine there, to measure on that one.
    seconds : float
        How long one comparison takes.
    progress : callable, optional
        Called with a :class:`Step` before each trial.

    Returns
    -------
    Schedule
        The best one found, or the default where none was better by more than the noise.

    Raises
    ------
    FqError
        If the kernel cannot do the shape, or nothing could be measured.
    OSError
        If the record or the log cannot be written.
    """
    shape = tuple(shape)
    if axis is None:
        axis = len(shape) - 1 if spec.lanes else max(len(shape) - 2, 0)
    case = Case(shape, axis % max(len(shape), 1), spec.dtype, "stepped" if spec.strided else "contiguous")
    job = Job(spec, tuple(sorted(spec.to_json().items())), records.size_class_of(spec, case.elements), (case,))
    worker = Worker(rpc, key)
    path, content = _tune([job], budget, seed, output, log, worker, seconds, progress, False)
    record = content.find(spec, job.size_class)
    assert record is not None, f"{path} has no record of what was just tuned"
    return record.schedule


def tune_cases(
    cases: Iterable[Case],
    *,
    budget: float = 600.0,
    seed: int = 0,
    output: str | Path | None = None,
    log: str | Path | None = None,
    rpc: str | None = None,
    key: str = "",
    seconds: float = 0.3,
    progress: Progress | None = None,
    boundary: bool = False,
) -> tuple[Path, RecordFile]:
    """Find schedules for the classes, dtypes and sizes that cases stand for.

    Parameters
    ----------
    cases : iterable of Case
        Grouped by :func:`jobs_of`; the budget is shared by the groups.
    budget, seed, output, log, rpc, key, seconds, progress
        As for :func:`tune`.
    boundary : bool
        Whether the boundary between rows and lanes is measured, too.

    Returns
    -------
    Path, RecordFile
        What was written, and where.

    Raises
    ------
    FqError, OSError
        As :func:`tune`.
    """
    jobs = jobs_of(cases)
    if not jobs:
        raise FqError(f"no case moves {LARGEST / 1e6:.0f} MB or less; larger ones are not tuned on")
    return _tune(jobs, budget, seed, output, log, Worker(rpc, key), seconds, progress, boundary)


def plot_trials(log: str | Path, path: str | Path) -> None:
    """Draw a log: for each job the ratio of every trial to the default, and the best so far.

    Parameters
    ----------
    log : path
        That a search wrote.
    path : path
        Of the picture; its suffix decides the format.

    Raises
    ------
    FqError
        If matplotlib is not installed, or the log has no trials.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise FqError('a plot needs matplotlib; `pip install "fq_tvm[plot]"`')
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    jobs: dict[str, list[dict[str, Any]]] = {}
    for entry in read_log(log):
        if entry.get("kind") == "trial" and "ratio" in entry:
            jobs.setdefault(f"{entry['name']} ({entry['job'][:4]})", []).append(entry)
    if not jobs:
        raise FqError(f"{log} has no trials that could be measured")
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for number, (name, entries) in enumerate(sorted(jobs.items())):
        best, line, dots = 1.0, [], []
        for entry in entries:
            dots.append(best * entry["ratio"])
            best = dots[-1] if entry["accepted"] else best
            line.append(best)
        trials, color = [entry["trial"] for entry in entries], f"C{number % 10}"
        axes.plot(trials, dots, ".", color=color, alpha=0.4)
        axes.step(trials, line, where="post", color=color, label=name)
    axes.set_xlabel("trial")
    axes.set_ylabel("time / default schedule")
    axes.set_yscale("log")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def metaschedule_module(spec: FakeQuantSpec, shape: Sequence[int]) -> tvm.IRModule:
    """State a kernel on fixed extents, as MetaSchedule wants it: every argument a tensor, nothing scheduled.

    Parameters
    ----------
    spec : FakeQuantSpec
        A kernel of class *rows* or *lanes*.
    shape : sequence of int
        (outer, channels, inner) for rows, (runs, run) for lanes.

    Returns
    -------
    tvm.IRModule
        With the function ``main`` of x, the channels' parameters, out and mask; the range is that of int8.  Zero points
        are not taken off the range, as kernels of rows do it, so their times are not to be compared with these.

    Raises
    ------
    FqError
        If the class is another, or the number of extents.
    """
    if spec.strided or spec.wide or len(shape) != (2 if spec.lanes else 3):
        raise FqError(f"{spec.name} on {tuple(shape)}: expected narrow lanes of 2 extents or rows of 3")
    import tvm
    from tvm import te

    from ..codegen.expression import ChannelParameters, QuantRange, quantize_dequantize

    axis = len(shape) - 1 if spec.lanes else 1
    x = te.placeholder(tuple(shape), spec.dtype, "x")
    names = ("inverse_scale", "zero_point", "scale")
    inverse, zero, scale = (te.placeholder((shape[axis],), "float32", name) for name in names)
    parameters = ChannelParameters(inverse, zero, scale, spec.float_zero_point)
    limits = QuantRange(*(tvm.tirx.const(float(v), "float32") for v in (-128, 127)))
    results = quantize_dequantize(x, parameters, axis, limits, spec.promoted_dtype, spec.out_dtype, "fake_quant")
    return tvm.IRModule({"main": te.create_prim_func([x, *parameters, *results], "int64")})


def metaschedule_space(spec: FakeQuantSpec) -> Any:
    """Hand the space of schedules to :mod:`tvm.s_tir.meta_schedule`.

    Parameters
    ----------
    spec : FakeQuantSpec
        A kernel of class *rows* or *lanes*.

    Returns
    -------
    ScheduleFn
        Of modules that :func:`metaschedule_module` makes.  Its decisions are the knobs tile and rows of
        :func:`fq_tvm.store.records.space`, less those that do not divide an extent; the width of vectors belongs to
        the target, and every tensor is spread over threads.

    Raises
    ------
    FqError
        If the class is another.
    """
    if spec.strided or spec.wide:
        raise FqError(f"{spec.name}: MetaSchedule's space is there for narrow rows and lanes only")
    from tvm.s_tir import meta_schedule

    knobs = {name: sorted({getattr(s, name) for s in records.space(spec)}) for name in ("tile", "rows")}

    def choose(sch: Any, name: str, extent: int) -> Any:
        # A tile that leaves a rest leaves a condition in the loop, which keeps LLVM from vectorizing it.
        allowed = [n for n in knobs[name] if extent % n == 0] or [extent]
        return sch.sample_categorical(allowed, [1 / len(allowed)] * len(allowed))

    def schedule(sch: Any) -> None:
        *outer, last, inner = sch.get_loops(sch.get_sblock("fake_quant_v0"))
        tiles, within = sch.split(inner, [None, choose(sch, "tile", int(sch.get(inner).extent))])
        blocks, rows = sch.split(last, [None, choose(sch, "rows", int(sch.get(last).extent))])
        sch.reorder(*outer, blocks, tiles, *([within, rows] if spec.lanes else [rows, within]))
        if spec.lanes:
            sch.unroll(rows)
        sch.parallel(sch.fuse(*outer, blocks, tiles))

    return meta_schedule.space_generator.ScheduleFn(schedule, sch_rules=[], postprocs=[], mutator_probs={})

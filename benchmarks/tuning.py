"""Whether the tuner's decisions hold: searches where there is nothing to find, and searches from a bad start.

    python benchmarks/tuning.py --same-code [--searches N] [--first SEED] [--budget S] [--results FILE]
    python benchmarks/tuning.py --bad-start [--searches N] [--first SEED] [--budget S] [--results FILE]

``--same-code``: every schedule of the space launches the same machine code with the same integers on the case, of which
each has a copy of its own.  What a search keeps is noise.  Size classes take turns, and searches share what they build,
so that each tries all candidates.

``--bad-start``: what is taken for the default has tiles of 1024 elements and one row a task.  What each seed ends with
is compared in one run, in turns, with the best schedule known: the best of what all seeds ended with and the library's
default.

A line a search is appended to the results, so that searches can be made in pieces; the verdict is of all lines there.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fq_tvm.bench.cases import Case
from fq_tvm.bench.contenders import Inputs, ours
from fq_tvm.bench.timing import interleave, quiet_threads, ratio
from fq_tvm.schedule import Schedule, default_schedule
from fq_tvm.spec import FakeQuantSpec
from fq_tvm.target import Target
from fq_tvm.tuning import search, worker
from fq_tvm.tuning.experiment import Gain
from fq_tvm.tuning.log import read_log
from fq_tvm.tuning.space import space

SAME = (Case((32, 2048), 0), Case((64, 16384), 0), Case((256, 32768), 0))
"""One of each size class, of rows."""

BAD = Case((8, 64, 56, 56), 1)
"""Rows of 3136 elements: both knobs of the bad start count."""

COMPARE_SECONDS = 10.0


def bad_schedule(spec: Any, target: Target | None = None) -> Schedule:
    """Choose what the search begins with."""
    return replace(default_schedule(spec, target), tile=1024, rows=1)


def bad_space(spec: FakeQuantSpec, target: Target | None = None, seed: int = 0) -> list[Schedule]:
    """List the whole space, the bad start first."""
    bad = bad_schedule(spec, target)
    return [bad, *(schedule for schedule in space(spec, target, seed) if schedule != bad)]


def same_space(spec: FakeQuantSpec, target: Target | None = None, seed: int = 0) -> list[Schedule]:
    """List schedules that differ in a knob which is not of this class: kernels are built for each, all alike."""
    first = default_schedule(spec, target)
    others = [replace(first, run=first.run + n) for n in range(1, 33)]
    random.Random(seed).shuffle(others)
    return [first, *others]


def each_once(schedules: Iterable[Schedule], *_: Any) -> list[Schedule]:
    """Leave in what does the same; that is the point."""
    return list(dict.fromkeys(schedules))


def one_search(case: Case, seed: int, budget: float) -> dict[str, Any]:
    """Search as a user would; say what came of it."""
    spec, found = FakeQuantSpec("rows"), list[search.Found]()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "records.json")
        search.tune(spec, case.shape, case.axis, budget=budget, seed=seed, output=output, result=found.append)
        lines = list(read_log(search.log_path(output)))
    kinds = [line["kind"] + (" kept" if line.get("verdict") == "keep" else "") for line in lines]
    return {
        "case": case.to_json(),
        "seed": seed,
        "trials": sum(kind.startswith("trial") for kind in kinds),
        "taken": kinds.count("trial kept"),
        "went_back": kinds.count("check"),
        "failed": sum(line.get("verdict") == "failed" for line in lines),
        **found[0].to_json(),
    }


def compare(case: Case, schedules: Sequence[Schedule]) -> list[float]:
    """Time schedules in turns; return the time of each over that of the best, in the median of rounds."""
    inputs = Inputs(case)
    calls = {str(n): ours(inputs, knobs=schedule.to_json()) for n, schedule in enumerate(schedules)}
    times = interleave(calls, COMPARE_SECONDS)
    over_first = [ratio(times, name, "0").median for name in calls]
    return [value / min(over_first) for value in over_first]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--same-code", action="store_true")
    what.add_argument("--bad-start", action="store_true")
    parser.add_argument("--searches", type=int, default=10, metavar="N", help="with seeds of their own (10)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (0)")
    parser.add_argument("--budget", type=float, default=60.0, metavar="S", help="seconds of each search (60)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="one line of JSON a search is appended")
    options = parser.parse_args()

    quiet_threads()
    with tempfile.TemporaryDirectory() as built:
        if options.same_code:
            vars(worker).update(_folder=lambda: SimpleNamespace(name=built, cleanup=lambda: None))
        run(options)


def run(options: argparse.Namespace) -> None:
    """Make searches, and say what all of them come to."""
    vars(search).update(
        {"space": same_space, "distinct": each_once, "candidates_of": lambda _job, listed, _target: each_once(listed)}
        if options.same_code
        else {"space": bad_space, "start_of": lambda job, target: bad_schedule(job.spec, target)}
    )
    results = (
        [json.loads(line) for line in options.results.read_text().splitlines()]
        if (options.results and options.results.exists())
        else []
    )
    for seed in range(options.first, options.first + options.searches):
        case = SAME[seed % len(SAME)] if options.same_code else BAD
        results.append(one_search(case, seed, options.budget))
        if options.results:
            with options.results.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
        last = results[-1]
        print(
            f"seed {seed}, {last['size_class']}: {last['trials']} trials, {last['taken']} taken over, "
            f"{last['went_back']} checks, {'kept' if last['kept'] else 'not kept'} ({last['why']}), "
            f"gain {Gain.from_json(last['gain'])}",
            flush=True,
        )
    if options.same_code:
        trials, taken, kept = (sum(r[what] for r in results) for what in ("trials", "taken", "kept"))
        print(f"{len(results)} searches, {trials} trials: {taken} candidates taken over, {kept} searches kept one")
    elif results:
        first, bad = default_schedule(FakeQuantSpec("rows")), bad_schedule(FakeQuantSpec("rows"))
        ends = [Schedule.from_json(r["schedule"]) for r in results]
        known = list(dict.fromkeys([first, bad, *ends]))
        over = dict(zip(known, compare(BAD, known), strict=True))
        for schedule, value in over.items():
            print(f"{value:6.3f} of the best known: {schedule.to_json()}")
        near = sum(over[schedule] <= 1.05 for schedule in ends)
        print(f"{near} of {len(ends)} seeds end within 5 % of the best known; the bad start is at {over[bad]:.2f}")


if __name__ == "__main__":
    main()

"""Which search finds more in the same time: replayed on measurements of whole spaces, so that seeds are cheap.

    python benchmarks/search_order.py [--seeds N] [--table FILE]
    python benchmarks/search_order.py --measure FILE

``--measure`` times every schedule of three small spaces against the default, in turns, and writes the rounds of each.
A search is then replayed: a portion of a trial draws eight of these rounds at random for each contender, and takes
0.1 s of the budget, as in the tuner; a kernel that is built takes 0.2 s once.  What is printed is by how much the
schedule that a search ends with is slower than the best of the space, by the medians of all rounds: the mean over
seeds with its standard error, and the worst.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fq_tvm import FakeQuantSpec, Schedule
from fq_tvm.bench import Case, quiet_threads
from fq_tvm.tuning.decision import SequentialTest
from fq_tvm.tuning.experiment import History, Propose, Samples, estimated, experiment, nearest
from fq_tvm.tuning.jobs import Job, distance, distinct
from fq_tvm.tuning.optimizer import tpe
from fq_tvm.tuning.space import space

TABLE = Path(__file__).with_suffix(".json")

JOBS = (
    (FakeQuantSpec("lanes"), Case((2000, 64), 1)),
    (FakeQuantSpec("rows"), Case((16, 64, 28, 28), 1)),
    (FakeQuantSpec("lanes", "float16", out_dtype="float16"), Case((64, 512, 7, 7), 1, "float16")),
)

KEPT_ROUNDS = 20
PORTION_SECONDS, BUILD_SECONDS = 0.1, 0.2
BUDGETS = (5, 10, 20, 40, 80)

SEARCHES: dict[str, Callable[[Sequence[Schedule], int], Propose]] = {
    "estimated": lambda candidates, seed: estimated(_shuffled(candidates, seed)),
    "nearest": lambda candidates, seed: nearest(_shuffled(candidates, seed), distance),
    "any order": lambda candidates, seed: nearest(_shuffled(candidates, seed), lambda *_: 0),
    "tpe": tpe,
}


def _shuffled(candidates: Sequence[Schedule], seed: int) -> list[Schedule]:
    others = list(candidates[1:])
    random.Random(seed).shuffle(others)
    return [candidates[0], *others]


def measure(path: Path, seconds: float = 0.3, together: int = 6) -> None:
    """Time every schedule of the spaces against the default."""
    from fq_tvm.tuning import trial

    quiet_threads()
    place = trial.Local()
    result: dict[str, Any] = {}
    for spec, case in JOBS:
        job = Job(spec, (), "cache", (case,))
        candidates = distinct(space(spec, place.target), job, place.target)
        at = trial.Bench(case, spec)
        medians, logs = [0.0], [[0.0]]
        for first in range(1, len(candidates), together):
            group = [candidates[0], *candidates[first : first + together]]
            contenders = [trial.Contender(spec, schedule) for schedule in group]
            times = place.time(at, contenders, trial.Turns(seconds, seed=first))
            for number in range(1, len(group)):
                pairs = zip(times[str(number)], times["0"], strict=True)
                rounds = [math.log(mine / default) for mine, default in pairs]
                medians.append(round(statistics.median(rounds), 4))
                # around their median, of which a part of them would not tell
                some = random.Random(0).sample(rounds, min(len(rounds), KEPT_ROUNDS))
                logs.append([round(value - statistics.median(some), 3) for value in some])
        knobs = [knob for knob in Schedule().to_json() if len({c.to_json()[knob] for c in candidates}) > 1]
        listed = [[candidate.to_json()[knob] for knob in knobs] for candidate in candidates]
        start = candidates[0].to_json()
        found = {"start": start, "knobs": knobs, "candidates": listed, "medians": medians, "rounds": logs}
        result[f"{spec.name} on {case.name}"] = found
    path.write_text(json.dumps(result, separators=(",", ":")).replace("]],", "]],\n") + "\n")


class Replay:
    """A space whose rounds are known, and a clock that runs as the tuner's would."""

    def __init__(self, entry: dict[str, Any], seed: int, bad: bool = False) -> None:
        start = Schedule(**entry["start"]).to_json()
        rows = [dict(zip(entry["knobs"], values, strict=True)) for values in entry["candidates"]]
        self.candidates = [Schedule(**{**start, **knobs}) for knobs in rows]
        self.medians = dict(zip(self.candidates, entry["medians"], strict=True))
        self.rounds = dict(zip(self.candidates, entry["rounds"], strict=True))
        if bad:
            self.candidates.sort(key=lambda schedule: -self.medians[schedule])
        self.dice = random.Random(seed)
        self.built: set[Schedule] = set()
        self.clock = 0.0

    def measure(self, contenders: Sequence[Schedule]) -> Samples:
        self.clock += PORTION_SECONDS + BUILD_SECONDS * len(set(contenders) - self.built)
        self.built.update(contenders)

        def time(schedule: Schedule) -> float:
            return math.exp(self.medians[schedule] + self.dice.choice(self.rounds[schedule]))

        return Samples({"case": [[time(schedule) for _ in range(8)] for schedule in contenders]})

    def slower(self, schedule: Schedule) -> float:
        """By how much a schedule is slower than the best one."""
        return math.expm1(self.medians[schedule] - min(self.medians.values()))

    def search(self, propose: Propose) -> list[float]:
        """Return how much slower than the best the incumbent is at the end of each budget."""
        history, at = History(self.candidates[0]), dict[float, float]()
        trials = experiment(history, propose, self.measure, SequentialTest(len(self.candidates), gain=0.02))
        incumbent = history.incumbent
        for _ in trials:
            for budget in BUDGETS:
                if self.clock > budget:
                    at.setdefault(budget, self.slower(incumbent))
            incumbent = history.incumbent
            if self.clock > BUDGETS[-1]:
                break
        return [at.get(budget, self.slower(incumbent)) for budget in BUDGETS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="searches of each kind (default: 20)")
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help=f"measurements (default: {TABLE})")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="measure, and replay nothing")
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.measure)
    names = [name for name in SEARCHES if name != "tpe" or importlib.util.find_spec("optuna")]
    for (title, entry), bad in itertools.product(json.loads(arguments.table.read_text()).items(), (False, True)):
        replay = Replay(entry, 0, bad)
        start, begin = replay.slower(replay.candidates[0]), "worst" if bad else "default"
        print(f"{title}: {len(replay.candidates)} schedules, the {begin} is {start:.1%} slower than the best")
        if start < 0.03:
            continue  # about what a search climbs upon
        print(f"{'':12}" + "".join(f"{f'%, after {budget} s':>20}" for budget in BUDGETS))
        for name in names:
            found = []
            for seed in range(arguments.seeds):
                replay = Replay(entry, seed, bad)
                found.append(replay.search(SEARCHES[name](replay.candidates, seed)))
            cells = [
                f"{100 * statistics.fmean(at):.1f} ±{100 * statistics.stdev(at) / len(at) ** 0.5:.1f} ({max(at):.1%})"
                for at in zip(*found, strict=True)
            ]
            print(f"{name:12}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()

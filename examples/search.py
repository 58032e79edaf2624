"""Three searches on one space of schedules, compared and drawn: an experiment of one's own, in a page.

    python examples/search.py [--budget SECONDS] [--plot OUT.png]

What is tried next, how contenders are measured and when one is kept are functions, and here the first of them differs:
what has the knobs that gained most, as the library has it; what is nearest to the best so far; and an evolution of the
best ones, which is written below.  With `pip install "fq_tvm[search]"` there is optuna's estimator, too; `fq_tvm[plot]`
draws.
"""

import argparse
import importlib.util
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fq_tvm import FakeQuantSpec, Schedule
from fq_tvm.bench import Case
from fq_tvm.tuning.decision import SequentialTest
from fq_tvm.tuning.experiment import History, Propose, estimated, experiment, nearest
from fq_tvm.tuning.jobs import Job, distance, distinct
from fq_tvm.tuning.machines import Machines
from fq_tvm.tuning.measure import measuring, spread_over
from fq_tvm.tuning.optimizer import tpe
from fq_tvm.tuning.space import space

SPEC, CASE = FakeQuantSpec("lanes"), Case((2000, 64), 1)
PICTURE = Path(__file__).parent.parent / "build" / "search.png"


def evolution(candidates: Sequence[Schedule], seed: int = 0) -> Propose:
    """Cross two of the best five, let a knob mutate, and propose what was not tried and is nearest to that."""
    dice = random.Random(seed)

    def propose(history: History) -> Schedule | None:
        left = [candidate for candidate in candidates if candidate not in history.tried]
        if not left:
            return None
        parents = sorted(history.gains, key=lambda schedule: -history.gains[schedule])[:5]
        one, other, stranger = (dice.choice(group).to_json() for group in (parents, parents, candidates))
        child = {knob: dice.choice((one[knob], other[knob])) for knob in one}
        mutated = dice.choice(list(child))
        child[mutated] = stranger[mutated]
        return min(left, key=lambda schedule: distance(schedule, Schedule(**child)))

    return propose


def searches(candidates: Sequence[Schedule]) -> dict[str, Propose]:
    """What is compared, by name."""
    found = {
        "estimated by knobs": estimated(candidates),
        "nearest to the best": nearest(candidates, distance),
        "evolution": evolution(candidates),
    }
    if importlib.util.find_spec("optuna"):
        found["optuna's TPE"] = tpe(candidates)
    return found


def draw(lines: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Draw the gain of the best so far by time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, line in lines.items():
        axes.step(*zip(*line, strict=True), where="post", label=name)
    axes.set(
        xlabel="seconds", ylabel="gain of the best so far over the default, %", title=f"{SPEC.name} on {CASE.name}"
    )
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of each search (default: 30)")
    parser.add_argument("--plot", type=Path, default=PICTURE, help=f"the picture (default: {PICTURE})")
    arguments = parser.parse_args()
    lines: dict[str, list[tuple[float, float]]] = {}
    with Machines() as machines:
        job = Job(SPEC, (), "cache", (CASE,))
        candidates = distinct(space(SPEC, machines.target), job, machines.target)
        print(f"{len(candidates)} schedules of {SPEC.name} on {CASE.name}")
        functions: dict[str, Any] = {
            "measure": measuring(machines, job, seconds=0.02),
            "decide": SequentialTest(len(candidates), gain=0.02),
            "patience": arguments.budget / 10,
            "spread": spread_over(machines),
        }
        for name, propose in searches(candidates).items():
            history, line = History(candidates[0]), [(0.0, 0.0)]
            for trial in experiment(history, propose, **functions):
                line.append((trial.at, 100 * history.gain))
                if trial.at > arguments.budget:
                    break
            lines[name] = line
            changed = history.incumbent.to_json().items() - candidates[0].to_json().items()
            knobs = ", ".join(f"{knob} {value}" for knob, value in sorted(changed)) or "the default"
            print(f"{name:20} {len(history.trials):4} trials, gain {history.gain:6.1%}: {knobs}")
    if importlib.util.find_spec("matplotlib"):
        draw(lines, arguments.plot)
        print(f"wrote {arguments.plot}")


if __name__ == "__main__":
    main()

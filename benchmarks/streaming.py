"""From which size on results are better written past the caches (the knob ``stream_from``), alone and with a reader.

    python benchmarks/streaming.py [--seconds S] [--json OUT]

Each row is one size of a tensor: the time of a kernel that writes past the caches over that of the same kernel when it
does not, for rows and lanes, by itself and followed by something that reads the result (torch's sum, with all threads),
which finds less of it in a cache.  Below 1 it pays.  Contenders take turns in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fq_tvm.bench.cases import Case
from fq_tvm.bench.contenders import Inputs, ours
from fq_tvm.bench.timing import interleave, quiet_threads
from fq_tvm.environment import num_threads

MEGABYTES = (4, 8, 12, 16, 24, 32, 48, 64, 128, 256)
"""Of x."""

ALWAYS, NEVER = {"stream_from": 1}, {"stream_from": 2**62}


def cases(dtype: str, megabytes: int) -> dict[str, Case]:
    """One for each class of kernels: channels before 3136 elements each, and last."""
    elements = megabytes * 2**20 // (4 if dtype == "float32" else 2)
    return {
        "rows": Case((elements // (64 * 3136), 64, 3136), 1, dtype),
        "lanes": Case((elements // 256, 256), 1, dtype),
    }


def with_reader(call: Callable[[], Any], out: Any) -> Callable[[], None]:
    """Follow a call by the reader that gains most from a result in a cache: torch's sum, which writes nothing."""
    import torch

    torch.set_num_threads(num_threads())
    result = torch.from_numpy(out)

    def both() -> None:
        call()
        torch.sum(result)

    return both


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Time of writing past the caches over that of not doing so."""
    calls = {}
    inputs = Inputs(case)
    for name, knobs in (("always", ALWAYS), ("never", NEVER)):
        call = ours(inputs, knobs=knobs)
        calls[name], calls[f"{name}, read"] = call, with_reader(call, inputs.results[0])
    # Not the median: in some turns both threads of torch's pool wake on one core, which has nothing to do with this.
    times = {name: statistics.quantiles(t, n=4)[0] for name, t in interleave(calls, seconds).items()}
    return {"alone": times["always"] / times["never"], "read": times["always, read"] / times["never, read"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each size, class and dtype (default: 1)")
    parser.add_argument("--json", metavar="OUT", help="write the numbers here")
    arguments = parser.parse_args()
    quiet_threads()
    found = {}
    for dtype in ("float32", "float16"):
        print(f"{dtype}: time past the caches / through them")
        print(
            f"{'x, MB':>8}{'moved':>8}   "
            + "".join(f"{t:>14}" for t in ("rows", "and a reader", "lanes", "and a reader"))
        )
        for megabytes in MEGABYTES:
            measured = {name: measure(case, arguments.seconds) for name, case in cases(dtype, megabytes).items()}
            found[f"{dtype} {megabytes}"] = measured
            moved = megabytes * (9 if dtype == "float32" else 5) / (4 if dtype == "float32" else 2)
            numbers = [ratio for ratios in measured.values() for ratio in ratios.values()]
            print(f"{megabytes:>8}{moved:>8.0f}   " + "".join(f"{ratio:>14.2f}" for ratio in numbers), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

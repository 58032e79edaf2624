"""Compare this checkout's kernels with another's, in turns, in one run.

    python benchmarks/versions.py OTHER [--case TEXT] [--rounds N] [--turn MS] [--tiny]

OTHER is a checkout of the project, such as ``git worktree add ../before v0.1.0`` makes; it needs no environment of its
own.  Each checkout has a process, which prepares a case and then waits for its turns; a ratio is the median of those of
the rounds, and beside it stands how far the middle half of the rounds spreads.  A turn is a loop of calls, for 300 ms
unless it is said otherwise: in a shorter one it counts who is woken sooner after the other's turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from fq_tvm.bench.cases import Case, find_cases
from fq_tvm.bench.timing import quiet_threads

ROUNDS_IN_PLACE = 4
"""Rounds on the same memory: where it happens to lie, in large pages or not, has made calls up to 1.7 times slower."""

DOORS = ("numpy", "numpy, results given", "torch", "torch's operator")
"""The ways to a call whose own cost counts where a tensor is tiny."""

WORKER = """
import json, sys, time
try:
    from fq_tvm.bench.cases import Case
    from fq_tvm.bench.contenders import Inputs, ours
except ImportError:
    from fq_tvm.bench import Case, Inputs, ours
def front_door(name, case):
    import numpy as np, fq_tvm
    *arrays, axis, low, high = Inputs(Case.from_json(case)).arguments
    if name == "numpy, results given":
        results = {"out": np.empty_like(arrays[0]), "mask": np.empty(arrays[0].shape, bool)}
        return lambda: fq_tvm.fake_quantize_per_channel_affine_cachemask(*arrays, axis, low, high, **results)
    function = fq_tvm.fake_quantize_per_channel_affine_cachemask
    if name != "numpy":
        import torch, fq_tvm.torch
        arrays = [torch.from_numpy(array) for array in arrays]
        if name == "torch's operator":
            function = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask
    return lambda: function(*arrays, axis, low, high)

for line in sys.stdin:
    request = json.loads(line)
    if "case" in request:
        door = request["door"]
        call = front_door(door, request["case"]) if door else ours(Inputs(Case.from_json(request["case"])))
        call()
        start = time.perf_counter()
        call()
        repeats = max(1, int(request["turn"] / (time.perf_counter() - start + 1e-9)))
        print(json.dumps(repeats), flush=True)
        continue
    for _ in range(1 + repeats // 10):
        call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    print(json.dumps((time.perf_counter() - start) / repeats), flush=True)
"""


class Checkout:
    """The process of a checkout.

    Parameters
    ----------
    root : Path
        Of the checkout.
    cache : str
        Folder of the kernels that it builds.
    """

    def __init__(self, root: Path, cache: str) -> None:
        # Idle threads of TVM's pool, on which older versions launch, may spin into the turn of the other.
        settings = {"PYTHONPATH": str(root), "FQ_TVM_CACHE_DIR": cache, "TVM_THREAD_POOL_SPIN_COUNT": "1000"}
        environment = {**os.environ, **settings}
        command = [sys.executable, "-W", "ignore", "-c", WORKER]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
        )

    def ask(self, **request: Any) -> float:
        """Send a request and wait for the answer."""
        streams: tuple[IO[str] | None, IO[str] | None] = self.process.stdin, self.process.stdout
        assert streams[0] is not None
        assert streams[1] is not None
        streams[0].write(json.dumps(request) + "\n")
        streams[0].flush()
        return float(json.loads(streams[1].readline()))


def compare(
    here: Checkout, other: Checkout, case: Case, rounds: int, turn: float, door: str = ""
) -> tuple[float, float, float]:
    """Return the time of this checkout over the other's: quartiles of the rounds."""
    ratios = []
    for number in range(rounds):
        if number % ROUNDS_IN_PLACE == 0:
            for checkout in (here, other):
                checkout.ask(case=case.to_json(), turn=turn, door=door)
        order = (here, other) if number % 2 else (other, here)
        times = {checkout: checkout.ask() for checkout in order}
        ratios.append(times[here] / times[other])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return low, middle, high


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, metavar="OTHER", help="a checkout of the project")
    parser.add_argument(
        "--case", action="append", default=[], metavar="TEXT", help="cases with this text (default: facts)"
    )
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="turns of each (default: 40)")
    parser.add_argument("--turn", type=float, default=300, metavar="MS", help="length of a turn (default: 300)")
    parser.add_argument(
        "--tiny", action="store_true", help="calls of a tiny tensor by each front door instead of cases"
    )
    arguments = parser.parse_args(argv)
    quiet_threads()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        here = Checkout(Path(__file__).resolve().parents[1], f"{folder}/here")
        other = Checkout(arguments.other.resolve(), f"{folder}/other")
        print(f"{'time here over time there':40}{'median':>8}{'quartiles':>16}")
        found = find_cases(arguments.case or ["facts"])
        wanted = [(c.name, c, "") for c in found] if not arguments.tiny else [(d, Case((4, 8), 1), d) for d in DOORS]
        for name, case, door in wanted:
            low, middle, high = compare(here, other, case, arguments.rounds, arguments.turn / 1e3, door)
            ratios.append(middle)
            print(f"{name:40}{middle:8.3f}{f'{low:.3f} {high:.3f}':>16}", flush=True)
        for checkout in (here, other):
            checkout.process.kill()
    print(f"{'geometric mean':40}{statistics.geometric_mean(ratios):8.3f}")


if __name__ == "__main__":
    main()

"""Kernels that write no mask, over a copy of x, which moves the same bytes; and over the kernel with a mask.

    python benchmarks/without_mask.py [--case TEXT] [--seconds S] [--kept]

Cases of ``fq-tvm bench`` whose x has more than 1 MiB and at most 128.  Each is checked first; contenders take
turns with the caches swept in between.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np

from fq_tvm import FqError
from fq_tvm.bench.cases import CASES, QUANT_MAX, QUANT_MIN, Case
from fq_tvm.bench.contenders import Inputs, copy, ours
from fq_tvm.bench.timing import geometric_mean, interleave, quiet_threads, ratio, sweeper
from fq_tvm.cli.output import print_table
from fq_tvm.launch.arguments import check, describe_all
from fq_tvm.launch.buffers import empty_like, on_memory
from fq_tvm.launch.registry import prepare

MEAN_BOUND, WORST_BOUND = 1.15, 1.4


def measure(case: Case, seconds: float, sweep: bool) -> tuple[float, float]:
    """Return the time without a mask over that of a copy, and over that with a mask."""
    inputs = Inputs(case)
    out = empty_like(inputs.x, inputs.x.dtype)
    checked = check(describe_all((*inputs.arguments[:3], out)), case.axis, QUANT_MIN, QUANT_MAX)
    call = on_memory(prepare(checked), checked.operands)
    call()
    want, _ = inputs.expected()
    if not np.array_equal(out, want):
        raise FqError(f"{case.name}: another result than the reference")
    contenders = {"none": call, "copy": copy(inputs.x, empty_like(inputs.x, inputs.x.dtype)), "mask": ours(inputs)}
    times = interleave(contenders, seconds, sweeper() if sweep else None)
    return ratio(times, "none", "copy").median, ratio(times, "none", "mask").median


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="", help="cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case (default: 2)")
    parser.add_argument("--kept", action="store_true", help="do not sweep the caches between calls")
    arguments = parser.parse_args(argv)
    quiet_threads()
    chosen = [c for c in CASES if arguments.case in c.name and 2**20 < c.x_bytes <= 2**27]
    measured = {case.name: measure(case, arguments.seconds, not arguments.kept) for case in chosen}
    rows = [[name, f"{a:.2f}", f"{b:.2f}"] for name, (a, b) in measured.items()]
    print_table(["case", "no mask / copy", "no mask / mask"], rows)
    over_copy = [a for a, _ in measured.values()]
    if over_copy:
        mean, worst = geometric_mean(over_copy), max(over_copy)
        print(
            f"geometric mean {mean:.2f} (at most {MEAN_BOUND}), worst {worst:.2f} (at most {WORST_BOUND}); "
            f"over the kernel with a mask, median {statistics.median(b for _, b in measured.values()):.2f}"
        )


if __name__ == "__main__":
    main()

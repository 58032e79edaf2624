"""``fq-tvm bench``: measures, prints and writes; judges nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import environment
from ..errors import FqError
from .output import plain, print_line, print_table, progress
from .parser import CASE, QUIET, Arguments, command, names, option, seconds

if TYPE_CHECKING:
    from ..bench.result import Result

OPTIONS = (
    CASE,
    option(
        "--peers",
        type=names,
        default=[],
        metavar="NAME,...",
        help="torch, inductor, numba, openvino, ort, numpy; default (no tuned schedules), x86-64-v3 (code for it)",
    ),
    option("--seconds", type=seconds, default=1.0, metavar="S", help="for each case (default: 1)"),
    option("--json", metavar="OUT", help="write the numbers here as JSON"),
    option("--plot", metavar="OUT.png", help="draw the bandwidth over size, a line a class and dtype, and a copy's"),
    QUIET,
)


@command(*OPTIONS)
def bench(arguments: Arguments) -> None:
    """Measure how fast kernels are: against a copy, and against peers.

    For each case the median time and its spread (interquartile range), GB/s of x, out and mask, and the ratio to the
    limit: the time of a copy of x in the same run, scaled by the bytes to move. Then how many times as long each peer
    takes. Contenders take turns, and each that makes a mask is checked bit for bit first. A peer that is not
    installed is left out and named.

    Before each turn with a tensor above 1 MB the caches are swept, so that it comes from memory, and the limit is that
    of memory. "Kept" is without that: tensors stay in the caches as far as they fit, and so do those of the copy and
    the peers. Smaller tensors always do.
    """
    results = measure_cases(arguments)
    print_results(results, arguments.peers)
    write_results(results, arguments)


def measure_cases(arguments: Arguments) -> list[Result]:
    """Measure the cases that were asked for, behind a progress bar."""
    from ..bench import find_cases, quiet_threads
    from ..bench.peers import check_peers
    from ..bench.result import measure

    quiet_threads()
    cases = find_cases(arguments.case)
    for path in (arguments.json, arguments.plot):
        if path and not Path(path).absolute().parent.is_dir():
            raise FqError(f"there is no folder for {path}")
    check_peers(arguments.peers)
    results = []
    with progress(len(cases), "case", arguments.quiet) as bar:
        for case in cases:
            bar.set_postfix_str(case.name)
            results.append(measure(case, arguments.peers, arguments.seconds))
            bar.update()
    return results


def print_results(results: Sequence[Result], peers: Sequence[str]) -> None:
    """Print a line a case, and the summary."""
    from ..bench.result import summary

    rows = []
    for result in results:
        ours = [f"{result.median() * 1e3:.4g}", f"{result.spread():.0%}", f"{result.gigabytes_per_second:.1f}"]
        limits = [f"{result.over_limit:.2f}", f"{result.kept_over_limit:.2f}"]
        ratios = result.ratios()
        rows.append([result.case.name, *ours, *limits, *(f"{ratios[p]:.2f}x" if p in ratios else "-" for p in peers)])
    print_table(["case", "ms", "spread", "GB/s", "/ limit", "kept", *peers], rows)
    print_line()
    print_line(f"{environment.num_threads()} threads; a column of a peer is its time over ours")
    _print_summary(summary(results))
    absent = {(peer, reason) for result in results for peer, reason in result.absent.items()}
    for peer, reason in sorted(absent):
        left_out = sum(result.absent.get(peer) == reason for result in results)
        print_line(f"left out: {peer} in {left_out} of {len(results)} cases: {reason}")


def write_results(results: Sequence[Result], arguments: Arguments, **more: Any) -> None:
    """Write the files that were asked for: the numbers, and what else there is to say of them, and the picture."""
    from ..bench.plot import plot
    from ..bench.result import summary

    if arguments.json:
        cases = [result.to_json() for result in results]
        answer = {"threads": environment.num_threads(), "cases": cases, "summary": summary(results), **more}
        Path(arguments.json).write_text(json.dumps(plain(answer), indent=2) + "\n")
    if arguments.plot:
        plot(results, arguments.plot)


def _print_summary(summary: Mapping[str, Any]) -> None:
    texts = {"memory": "above 1 MB", "kept": "the same, kept in caches", "cache": "64 KB to 1 MB"}
    for name, text in texts.items():
        if name in summary:
            group = summary[name]
            print_line(
                f"{text}: {group['over_limit']:.2f} of the limit's time in geometric mean of {group['cases']} cases, "
                f"worst {group['worst']:.2f} ({group['worst_case']})"
            )
    for peer, ratios in sorted(summary["peers"].items()):
        print_line(
            f"{peer}: {ratios['mean']:.2f}x our time in geometric mean of {ratios['cases']} cases, "
            f"least {ratios['least']:.2f}x ({ratios['least_case']}); "
            f"kept {ratios['kept_mean']:.2f}x, least {ratios['kept_least']:.2f}x"
        )

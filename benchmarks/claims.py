"""What the project claims of its speed: ``fq-tvm bench`` with its options, then a verdict on each claim.

    python benchmarks/claims.py [--case TEXT] [--peers NAME,...] [--seconds S] [--json OUT]

A claim that needs a peer is judged where that peer was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence

from fq_tvm import FqError
from fq_tvm.bench.cases import CACHED_MAX_BYTES, CACHED_MIN_BYTES
from fq_tvm.bench.result import Result, summary
from fq_tvm.bench.timing import geometric_mean
from fq_tvm.cli.bench import OPTIONS, measure_cases, print_results, write_results
from fq_tvm.cli.output import print_table
from fq_tvm.cli.parser import Parser, add_options

LARGE_MIN_BYTES = 64 * 2**20
"""Bytes of x above which memory alone decides."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement about speed, and whether it holds.

    Parameters
    ----------
    text : str
        What is claimed.
    value, bound : float
        What was measured, and what it may not exceed.
    least : bool
        Whether the value may not fall below the bound instead.
    where : str
        The case that decides, if it is one.
    """

    text: str
    value: float
    bound: float
    least: bool = False
    where: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is so."""
        return self.value >= self.bound if self.least else self.value <= self.bound


def claims(results: Sequence[Result]) -> list[Claim]:
    """Judge the claims that the results of one run allow to be judged."""
    facts = [r for r in results if "facts" in r.case.tags]
    small = [r for r in results if CACHED_MIN_BYTES <= r.case.x_bytes <= CACHED_MAX_BYTES]
    large = [r for r in results if r.case.x_bytes > LARGE_MIN_BYTES]
    return [
        *over_limit(results),
        # As the numbers were taken that the bound of 10 is from: by calls without a sweep between them.
        *least(facts, "torch", 10, "torch / ours, facts, kept, least", kept_median),
        *least(facts, "inductor", 10, "torch.compile / ours, facts, kept, least", kept_median),
        *least(results, "numba", 1, "numba / ours beyond the spread, least", most_rounds),
        *least(results, "openvino", 1.5, "OpenVINO without a mask / ours, least", median),
        *mean(results, "default", 1.10, "default schedule / tuned, geometric mean"),
        *mean(large, "x86-64-v3", 1.3, "x86-64-v3 code / native above 64 MB, geometric mean"),
        *mean(small, "x86-64-v3", 2.0, "x86-64-v3 code / native from 64 KB to 1 MB, geometric mean"),
    ]


def over_limit(results: Sequence[Result]) -> Iterator[Claim]:
    """Our time over that of a copy, scaled by the bytes to move."""
    summed = summary(results)
    if memory := summed.get("memory"):
        yield Claim("time / limit above 1 MB, geometric mean", memory["over_limit"], 1.10)
        yield Claim("time / limit above 1 MB, worst", memory["worst"], 1.35, where=memory["worst_case"])
    if cached := summed.get("cache"):
        yield Claim("time / limit from 64 KB to 1 MB, geometric mean", cached["over_limit"], 1.5)


Judged = Callable[[Result, str], float]
"""Which number of a peer's ratio to ours counts."""


def median(result: Result, peer: str) -> float:
    """Half of the rounds."""
    return result.ratio(peer).median


def kept_median(result: Result, peer: str) -> float:
    """Half of the rounds, with the caches not swept."""
    return result.ratio(peer, kept=True).median


def most_rounds(result: Result, peer: str) -> float:
    """Three quarters of the rounds: a peer that is faster in fewer of them is not so beyond the spread."""
    return result.ratio(peer).high


def least(results: Sequence[Result], peer: str, bound: float, text: str, judged: Judged) -> Iterator[Claim]:
    """A peer takes so many times as long as we do in every case."""
    values = {r.case.name: judged(r, peer) for r in results if peer in r.seconds}
    if values:
        where = min(values, key=lambda name: values[name])
        yield Claim(text, values[where], bound, least=True, where=where)


def mean(results: Sequence[Result], peer: str, bound: float, text: str) -> Iterator[Claim]:
    """A peer takes at most so many times as long as we do, in geometric mean."""
    ratios = [median(r, peer) for r in results if peer in r.seconds]
    if ratios:
        yield Claim(text, geometric_mean(ratios), bound)


def print_claims(found: Sequence[Claim]) -> None:
    """Print a line a claim."""
    rows = [
        [c.text, f"{c.value:.2f}", f"{'>=' if c.least else '<='} {c.bound:g}", "yes" if c.holds else "NO", c.where]
        for c in found
    ]
    print_table(["what must hold", "measured", "bound", "", ""], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and judge; return the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, OPTIONS)
    arguments = parser.parse_args(argv)
    try:
        results = measure_cases(arguments)
        print_results(results, arguments.peers)
        found = claims(results)
        if found:
            print()
            print_claims(found)
        stated = [{**dataclasses.asdict(claim), "holds": claim.holds} for claim in found]
        write_results(results, arguments, claims=stated)
    except (FqError, OSError) as error:
        print(f"claims: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

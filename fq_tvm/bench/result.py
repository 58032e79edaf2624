"""Measures a case, and what can be said of it: against the speed of memory and against peers, in one run.

The limit of a case is the time of a copy of x, scaled by the bytes that the operator has to move:
``(x + out + mask) / (x + out)``.  Every contender that makes a mask is checked bit for bit before it is timed.

Tensors above :data:`~fq_tvm.bench.cases.CACHED_MAX_BYTES` are read from memory: before every turn the caches are swept,
or how much of a tensor is still there, and with that the result, would depend on what the contenders before left of it.
Smaller ones stay in the caches.  How long the larger ones take where they stay there as well, as far as they fit, is
measured beside it: calls that follow each other without a sweep.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import FqError
from .cases import CACHED_MAX_BYTES, CACHED_MIN_BYTES, Case
from .contenders import Inputs, copy, ours
from .peers import PEERS, check_peers
from .timing import Ratio, geometric_mean, interleave, ratio, sweeper


@dataclass(frozen=True)
class Result:
    """What was measured of a case.

    Parameters
    ----------
    case : Case
        The case.
    seconds : dict of list of float
        Times of one call by contender: ``fq_tvm``, ``copy`` and the peers.
    absent : dict of str
        Why a peer was left out.
    kept : dict of list of float
        For x above :data:`~fq_tvm.bench.cases.CACHED_MAX_BYTES`, the times of the same contenders when the caches are
        not swept.
    """

    case: Case
    seconds: dict[str, list[float]]
    absent: dict[str, str] = field(default_factory=dict)
    kept: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str = "fq_tvm") -> float:
        """Median time of a contender in seconds."""
        return statistics.median(self.seconds[name])

    def spread(self, name: str = "fq_tvm") -> float:
        """Interquartile range of a contender's times over their median."""
        quartiles = statistics.quantiles(self.seconds[name], n=4)
        return (quartiles[2] - quartiles[0]) / self.median(name)

    @property
    def over_limit(self) -> float:
        """Our time over that of a copy, scaled by the bytes to move."""
        return self._over_limit(kept=False)

    @property
    def kept_over_limit(self) -> float:
        """The same where tensors stay in the caches, as far as they fit; of small ones there is no other."""
        return self._over_limit(kept=True)

    def _over_limit(self, kept: bool) -> float:
        limit = self.case.moved_bytes / (2 * self.case.x_bytes)
        return self.ratio("fq_tvm", kept, of="copy").median / limit

    @property
    def gigabytes_per_second(self) -> float:
        """Bytes that have to move by our time."""
        return self.case.moved_bytes / self.median() / 1e9

    def ratios(self, kept: bool = False) -> dict[str, float]:
        """How many times as long each peer takes, in the median of the rounds; perhaps with the caches not swept."""
        return {name: self.ratio(name, kept).median for name in self.seconds if name not in ("fq_tvm", "copy")}

    def ratio(self, name: str, kept: bool = False, of: str = "fq_tvm") -> Ratio:
        """How many times as long a contender takes as another, with the spread of that over the rounds."""
        return ratio(self.kept if kept and self.kept else self.seconds, name, of)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a dictionary that :func:`json.dumps` takes."""
        return {
            **asdict(self.case),
            "name": self.case.name,
            "seconds": {n: self.median(n) for n in self.seconds},
            "spread": {n: self.spread(n) for n in self.seconds},
            "over_limit": self.over_limit,
            "kept_over_limit": self.kept_over_limit,
            "gigabytes_per_second": self.gigabytes_per_second,
            "peer_over_ours": self.ratios(),
            "kept_peer_over_ours": self.ratios(kept=True),
            "absent": self.absent,
        }


def measure(case: Case, peers: Sequence[str] = (), seconds: float = 1.0) -> Result:
    """Time a case.

    Parameters
    ----------
    case : Case
        What to quantize.
    peers : sequence of str
        Of :data:`~fq_tvm.bench.peers.PEERS`; one whose package is not installed, or that cannot do the case, is left
        out and named.
    seconds : float
        How long to measure, about, and half of that again where caches are swept; longer where times vary.

    Returns
    -------
    Result

    Raises
    ------
    FqError
        If a peer is unknown, or a contender that has a mask gives another result than the reference.
    """
    check_peers(peers)
    inputs = Inputs(case)
    expected = inputs.expected()
    calls = {"fq_tvm": ours(inputs), "copy": copy(inputs.x, inputs.results[0])}
    inputs.check("fq_tvm", calls["fq_tvm"], expected)
    absent: dict[str, str] = {}
    for name in peers:
        peer = PEERS[name]
        if importlib.util.find_spec(peer.package) is None:
            absent[name] = f"{peer.package} is not installed"
            continue
        try:
            calls[name] = peer.prepare(inputs)
        except FqError as error:
            absent[name] = str(error)
            continue
        if peer.has_mask:
            inputs.check(name, calls[name], expected)
    if case.x_bytes <= CACHED_MAX_BYTES:
        return Result(case, interleave(calls, seconds), absent)
    kept = interleave(calls, seconds / 2)
    return Result(case, interleave(calls, seconds, sweeper()), absent, kept)


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Put results together, by size and by peer.

    Returns
    -------
    dict
        ``memory`` (x above 1 MB), ``kept`` (the same, in caches as far as they fit) and ``cache`` (64 KB to 1 MB),
        each with the number of cases, the geometric mean of time over the limit and the worst case; ``peers``, for
        each the least and the geometric mean of its time over ours, and those with the caches not swept.
    """
    memory = [r for r in results if r.case.x_bytes > CACHED_MAX_BYTES]
    cache = [r for r in results if CACHED_MIN_BYTES <= r.case.x_bytes <= CACHED_MAX_BYTES]
    groups = {
        "memory": {r.case.name: r.over_limit for r in memory},
        "kept": {r.case.name: r.kept_over_limit for r in memory},
        "cache": {r.case.name: r.over_limit for r in cache},
    }
    peers = {peer for r in results for peer in r.ratios()}
    return {
        **{name: _over_limit(over) for name, over in groups.items() if over},
        "peers": {peer: _over_ours([r for r in results if peer in r.seconds], peer) for peer in peers},
    }


def _over_limit(over: Mapping[str, float]) -> dict[str, Any]:
    worst = max(over, key=lambda name: over[name])
    mean = geometric_mean(list(over.values()))
    return {"cases": len(over), "over_limit": mean, "worst": over[worst], "worst_case": worst}


def _over_ours(results: Sequence[Result], peer: str) -> dict[str, Any]:
    ratios, kept = ([r.ratio(peer, in_caches).median for r in results] for in_caches in (False, True))
    return {
        "cases": len(results),
        "least": min(ratios),
        "least_case": results[ratios.index(min(ratios))].case.name,
        "mean": geometric_mean(ratios),
        "kept_least": min(kept),
        "kept_mean": geometric_mean(kept),
    }

"""When a candidate is kept: a sequential test of the median of paired ratios.

Knows numbers only.  A round is a win if the candidate's time over the incumbent's is below what it has to beat; turns
within a round come in random order, so that a machine that drifts, or has a busy neighbor, makes wins and losses alike,
and how heavy the tails of times are does not matter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .experiment import DROP, KEEP, MORE, UNKNOWN, Gain, Verdict

LEAST_GAIN = 0.01
"""A schedule that is faster by less than a hundredth is not worth a change, however quiet the machine."""

T_95 = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365)
"""Quantiles of Student's t for intervals of 95 %, by degrees of freedom."""


@lru_cache(maxsize=2**14)
def wins_needed(rounds: int, odds: float) -> int:
    """Return the least number of wins that says, at any time, that more than half of all rounds are won.

    The evidence is the likelihood of the wins, averaged over all chances of winning from a half to one, over their
    likelihood at a half.  Where no more than half are won it is a nonnegative supermartingale that begins at 1, so that
    it ever reaches ``odds`` with a probability of at most ``1 / odds``, however often one looks (Ville's inequality;
    Robbins, Statistical methods related to the law of the iterated logarithm, 1970, has such mixtures).

    Parameters
    ----------
    rounds : int
        So far.
    odds : float
        The evidence that is asked for.

    Returns
    -------
    int
        More than ``rounds`` where not even that many are enough.
    """
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, rounds + 2)))))
    wins = np.arange(rounds + 1)

    def log_choose(n: int, k: np.ndarray[Any, Any]) -> Any:
        return log_factorial[n] - log_factorial[k] - log_factorial[n - k]

    # The integral over the chances is an incomplete beta function, which for integers is a sum of binomials.
    tail = np.cumsum(np.exp(log_choose(rounds + 1, wins) - (rounds + 1) * math.log(2)))
    with np.errstate(divide="ignore"):
        evidence = np.log(tail) + (rounds + 1) * math.log(2) - math.log(rounds + 1) - log_choose(rounds, wins)
    enough = evidence >= math.log(odds)
    enough[: rounds // 2] = False
    return int(np.argmax(enough)) if enough.any() else rounds + 1


def interval(log_ratios: Sequence[float], error: float = 0.05) -> Gain:
    """Return the gain in the median, and an interval that, at any time, misses it with at most this probability.

    It is of order statistics: nothing is assumed of how the ratios spread.
    """
    if not log_ratios:
        return UNKNOWN
    ordered, rounds = sorted(log_ratios), len(log_ratios)
    wins = wins_needed(rounds, 2 / error)
    if wins > rounds:
        return Gain(UNKNOWN.low, -math.expm1(statistics.median(ordered)), UNKNOWN.high)
    return Gain.of_logs(ordered[rounds - wins], statistics.median(ordered), ordered[wins - 1])


def interval_of_means(log_ratios: Sequence[float]) -> Gain:
    """Return the gain in the mean of a few processes, each of which gave one number, and the 95 % interval of Student.

    What differs between processes (where code and tensors happen to lie) is most of what can be mistaken for a gain,
    and no number of rounds within one of them tells of it (Georges, Buytaert and Eeckhout, Statistically rigorous Java
    performance evaluation, 2007).
    """
    mean, freedom = statistics.fmean(log_ratios), len(log_ratios) - 1
    if not freedom:
        return UNKNOWN._replace(median=-math.expm1(mean))
    half = T_95[min(freedom, len(T_95) - 1)] * statistics.stdev(log_ratios) / math.sqrt(len(log_ratios))
    return Gain.of_logs(mean - half, mean, mean + half)


@dataclass(frozen=True)
class SequentialTest:
    """Decides between two contenders: a function of the logarithms of the candidate's times over the incumbent's.

    Parameters
    ----------
    candidates : int
        How many trials there may be in a search; the error is shared by them (Bonferroni).
    error : float
        The chance that a search whose candidates all gain no more than ``gain`` keeps any.
    gain : float
        What a candidate has to gain more than, as a fraction of the incumbent's time.
    miss : float
        The chance that one trial drops a candidate that gains more.
    """

    candidates: int = 1
    error: float = 0.05
    gain: float = LEAST_GAIN
    miss: float = 0.1

    def __call__(self, log_ratios: Sequence[float]) -> Verdict:
        """Keep, drop, or ask for more rounds."""
        rounds, bound = len(log_ratios), math.log1p(-self.gain)
        wins = sum(value < bound for value in log_ratios)
        found = interval(log_ratios)
        if wins >= wins_needed(rounds, max(self.candidates, 1) / self.error):
            return Verdict(KEEP, found, f"faster by more than {self.gain:.0%}")
        if rounds - wins >= wins_needed(rounds, 1 / self.miss):
            return Verdict(DROP, found, f"not faster by more than {self.gain:.0%}")
        return Verdict(MORE, found, f"cannot be told in {rounds} rounds")

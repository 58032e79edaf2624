"""Times contenders in turns: knows calls and the caches of this machine, and nothing of what is called.

In a round every contender has one turn.  They take turns so that a busy neighbor slows all of them, and the ratio of
two is judged round by round: a machine that is fast for a while and slow for a while moves both medians, each at
another moment, but not the median of the ratios.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..environment import num_threads
from ..errors import FqError

Call = Callable[[], Any]

MIN_ROUNDS = 5
TURN_SECONDS, TURN_MAX_CALLS = 200e-6, 1000
"""How long a turn is at least, by repeating a call that is shorter, and the most calls that it has."""


class Ratio(NamedTuple):
    """How many times as long one contender takes as another: quartiles over the rounds.

    Parameters
    ----------
    low, median, high : float
        A quarter, a half and three quarters of the rounds are at or below it.
    """

    low: float
    median: float
    high: float


def ratio(times: Mapping[str, Sequence[float]], name: str, of: str) -> Ratio:
    """Divide the times of one contender by those of another, round by round.

    Parameters
    ----------
    times : mapping of sequence of float
        What :func:`interleave` returned.
    name, of : str
        The contender, and the one that it is compared with.
    """
    return Ratio(*statistics.quantiles([a / b for a, b in zip(times[name], times[of], strict=True)], n=4))


def compare(calls: Mapping[str, Call], seconds: float, sweep: Call | None = None) -> dict[str, Ratio]:
    """Time contenders in turns; give for each how many times as long as the first it takes.

    Parameters
    ----------
    calls, seconds, sweep
        As for :func:`interleave`.

    Examples
    --------
    >>> import time
    >>> found = compare({"nap": lambda: time.sleep(1e-3), "long nap": lambda: time.sleep(2e-3)}, seconds=0.05)
    >>> found["long nap"].median > 1
    True
    """
    times = interleave(calls, seconds, sweep)
    first, *others = times
    return {name: ratio(times, name, first) for name in others}


def interleave(
    calls: Mapping[str, Call], seconds: float, sweep: Call | None = None, within: float = 0.05, seed: int = 0
) -> dict[str, list[float]]:
    """Time contenders in turns; a call that is short is repeated within its turn.

    There are five rounds at least, and more than ``seconds`` ask for, up to four times as many, until :func:`settled`.

    Who goes first changes at random, the same way every time: what one leaves in the caches makes the next one faster
    or slower, by a tenth between two kernels and a copy.

    Parameters
    ----------
    calls : mapping of callables
        The contenders.
    seconds : float
        How long, about.
    sweep : callable, optional
        Called before each call that is timed, of which there is one in a turn then; see :func:`sweeper`.
    within : float
        How well ratios have to be known, see :func:`settled`; infinity for no more rounds than ``seconds`` ask for.
    seed : int
        Of the order of turns.

    Returns
    -------
    dict of list of float
        Seconds of one call in each round, by contender.
    """
    calls_a_turn = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        fitting = int(TURN_SECONDS / (time.perf_counter() - start + 1e-9))
        calls_a_turn[name] = 1 if sweep else max(1, min(TURN_MAX_CALLS, fitting))
    times: dict[str, list[float]] = {name: [] for name in calls}
    begin, enough = time.perf_counter(), seconds
    order, shuffle = list(calls.items()), random.Random(seed).shuffle
    for rounds in itertools.count():
        if rounds >= MIN_ROUNDS and time.perf_counter() - begin >= enough:
            if enough >= 4 * seconds or settled(times, within):
                break
            enough = min(1.25 * enough, 4 * seconds)  # asking after every round would take longer than a short one
        shuffle(order)
        for name, call in order:
            call()  # brings caches and threads back to this contender
            number = calls_a_turn[name]
            if sweep:
                sweep()
            start = time.perf_counter()
            for _ in range(number):
                call()
            times[name].append((time.perf_counter() - start) / number)
    return times


def settled(times: Mapping[str, Sequence[float]], within: float = 0.05) -> bool:
    """Whether the median of each contender's ratio to the first one would hardly change with more rounds.

    The bound on that is the notch of a box plot, 1.57 interquartile ranges over the root of the number (McGill, Tukey
    and Larsen, Variations of Box Plots, 1978), which is about a 95 % interval of the median.
    """
    first, *others = times
    root = len(times[first]) ** 0.5
    ratios = (ratio(times, name, first) for name in others)
    return all(1.57 * (r.high - r.low) <= within * r.median * root for r in ratios)


def geometric_mean(values: Sequence[float]) -> float:
    """Geometric mean; NaN of nothing."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


@cache
def sweeper() -> Call:
    """Prepare a call with which all threads read twice what the last cache holds, and nothing else stays there.

    What it leaves in the caches was not written, so that no contender has to wait for it to be.
    """
    name = "SC_LEVEL3_CACHE_SIZE"
    last = os.sysconf(name) if name in os.sysconf_names else 0
    parts = np.array_split(np.ones(2 * max(last, 2**25) // 8, np.int64), num_threads())
    pool = ThreadPoolExecutor(num_threads())
    return lambda: list(pool.map(np.max, parts))


def quiet_threads() -> None:
    """Keep the idle threads of OpenMP from spinning on the cores that the next contender needs.

    Raises
    ------
    FqError
        If torch, which reads this when it starts, is there already, and set otherwise.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        if "torch" in sys.modules:
            raise FqError("torch was imported before the benchmark; set OMP_WAIT_POLICY=passive")
        os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads()))

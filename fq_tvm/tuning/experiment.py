"""An experiment on schedules: what a trial is, and the loop that makes trials of three functions that can be replaced.

- ``propose(history) -> candidate or None`` chooses what is tried next, from a space, given every trial so far;
- ``measure(contenders) -> Samples`` times contenders in turns: rounds, in each of which every contender has one turn;
- ``decide(log_ratios) -> Verdict`` keeps or drops the first of two contenders, or asks for more rounds.

A candidate is anything with ``to_json`` that can be compared and hashed, such as a schedule.  Knows no kernel and no
clock but that of the log.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from .worker import LostError, TrialError

T = TypeVar("T")

KEEP, DROP, MORE = "keep", "drop", "more"
"""What a decision says: the candidate takes over; it does not; it cannot be told from these rounds."""

UNDECIDED, FAILED = "undecided", "failed"
"""What else may become of a trial."""

CHECK_AFTER = 4
"""After so many trials, twice as many, and so on, an incumbent meets the schedule that the search began with again."""

MOST_PORTIONS = 16
"""How often a trial asks for samples at most; what is undecided then is dropped."""

MOST = 1e9
"""Seconds, rounds and ratios that no search comes near: what is read as more is damage, and would overflow what is made
of it."""


def of_type(value: Any, kind: type[T]) -> T:
    """Return what was read, if it is of a type; raise a :class:`TypeError` if not."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r}; expected a value of type {kind.__name__}")
    return value


def number(value: Any, least: float, most: float) -> float:
    """Return a number that was read, if it lies between two others; raise a TypeError or ValueError if not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r}; expected a number")
    if not least <= value <= most:  # nor is NaN
        raise ValueError(f"{value!r}; expected a number from {least} to {most}")
    return float(value)


class Gain(NamedTuple):
    """By how much of the other's time a contender is faster: a fraction, negative where it is slower.

    Parameters
    ----------
    low, median, high : float
        The median of the rounds, and an interval for it.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of_logs(cls, low: float, median: float, high: float) -> Gain:
        """Make a gain of logarithms of a time over the other: the most, the median and the least."""
        return cls(*(-math.expm1(value) for value in (high, median, low)))

    def to_json(self) -> list[float | None]:
        """Return the three, None for what is not known."""
        return [round(value, 5) if math.isfinite(value) else None for value in self]

    @classmethod
    def from_json(cls, values: Sequence[float | None]) -> Gain:
        """Make a gain of what :meth:`to_json` returned, if its median is known.

        Raises
        ------
        TypeError, ValueError
            If it is anything else.
        """
        pairs = zip(values, UNKNOWN, strict=True)
        gain = cls(*(unknown if v is None else number(v, -MOST, 1) for v, unknown in pairs))
        if not gain.low <= gain.median <= gain.high:
            raise ValueError(f"{gain}; expected a median in its interval")
        return gain

    def __str__(self) -> str:
        """Say it in percent: ``4.6 % (4.4 to 4.8)``."""
        low, median, high = (f"{100 * value:.1f}" if math.isfinite(value) else "?" for value in self)
        return f"{median} % ({low} to {high})"


class Verdict(NamedTuple):
    """What a decision is.

    Parameters
    ----------
    action : str
        :data:`KEEP`, :data:`DROP` or :data:`MORE`.
    gain : Gain
        Of the candidate over the other.
    why : str
        In words.
    """

    action: str
    gain: Gain
    why: str


UNKNOWN = Gain(-math.inf, math.nan, math.inf)
"""Before there are rounds."""


@dataclass(frozen=True)
class Samples:
    """Times that were measured in turns.

    Parameters
    ----------
    seconds : dict of list of list of float
        By the name of a case, for each contender, its time in each round; rounds of one case are as many for each
        contender.
    regime : dict
        Where and how: where tensors are, threads, their layer, perhaps the machine.
    copy : dict of list of float
        By case, the times of a plain copy in the same rounds, where it was asked for.
    """

    seconds: Mapping[str, Sequence[Sequence[float]]]
    regime: Mapping[str, Any] = field(default_factory=dict)
    copy: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def log_ratios(self, of: int = 1, to: int = 0) -> list[float]:
        """Return, for each round that every case has, the mean over cases of the log of a time over another."""
        by_case = [
            [math.log(a / b) for a, b in zip(times[of], times[to], strict=True)] for times in self.seconds.values()
        ]
        return [statistics.fmean(logs) for logs in zip(*by_case, strict=False)]

    def ordered(self, *places: int) -> Samples:
        """Return the same, of the contenders at these places."""
        seconds = {name: [times[place] for place in places] for name, times in self.seconds.items()}
        return replace(self, seconds=seconds)

    def medians(self) -> dict[str, list[float]]:
        """Return the median time of each contender, by case."""
        return {name: [statistics.median(t) for t in times] for name, times in self.seconds.items()}


Propose = Callable[["History"], Any]
Measure = Callable[[Sequence[Any]], Samples]
Decide = Callable[[Sequence[float]], Verdict]


@dataclass(frozen=True)
class Trial:
    """One candidate against another, and what became of it.

    Parameters
    ----------
    candidate, incumbent : Schedule
        Who was compared with whom.
    verdict : str
        :data:`KEEP`, :data:`DROP`, :data:`UNDECIDED` or :data:`FAILED`.
    why : str
        In words; of a failed trial the error.
    gain : Gain, optional
        Of the candidate over the incumbent.
    rounds : int
        How many there were.
    regime : dict
        As :attr:`Samples.regime`.
    seconds : dict of list of float
        By case, the median times of incumbent and candidate in the last samples.
    check : bool
        Whether it is the best so far that meets the first schedule again, instead of a candidate.
    number : int
        The trial's place in its search, from 1; 0 before it has one.
    at, took : float
        Seconds from the begin of the search to the end of the trial, and of the trial.
    """

    candidate: Any
    incumbent: Any
    verdict: str
    why: str
    gain: Gain | None = None
    rounds: int = 0
    regime: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    check: bool = False
    number: int = 0
    at: float = 0.0
    took: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether the candidate was found faster."""
        return self.verdict == KEEP

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that :func:`json.dumps` takes."""
        return {
            "kind": "check" if self.check else "trial",
            "trial": self.number,
            "at": round(self.at, 3),
            "took": round(self.took, 3),
            "schedule": self.candidate.to_json(),
            "incumbent": self.incumbent.to_json(),
            "verdict": self.verdict,
            "why": self.why,
            "gain": self.gain and self.gain.to_json(),
            "rounds": self.rounds,
            "regime": dict(self.regime),
            "seconds": {name: list(times) for name, times in self.seconds.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], Any]) -> Trial:
        """Make a trial of what :meth:`to_json` returned, given what makes a candidate of its part.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing or no such value.
        """
        verdict, gain = value["verdict"], None if value["gain"] is None else Gain.from_json(value["gain"])
        if verdict not in (KEEP, DROP, UNDECIDED, FAILED):
            raise ValueError(f"the verdict is {verdict!r}; expected {KEEP}, {DROP}, {UNDECIDED} or {FAILED}")
        if verdict == KEEP and (gain is None or gain.median < 0):
            raise ValueError(f"it was kept and gains {gain}; expected more than nothing")
        seconds = of_type(value["seconds"], dict).items()
        return cls(
            parse(value["schedule"]),
            parse(value["incumbent"]),
            verdict,
            of_type(value["why"], str),
            gain,
            int(number(value["rounds"], 0, MOST)),
            of_type(value["regime"], dict),
            {case: [number(time, 0, MOST) for time in times] for case, times in seconds},
            value["kind"] == "check",
            int(number(value["trial"], 0, MOST)),
            number(value["at"], 0, MOST),
            number(value["took"], 0, MOST),
        )


class Pair(NamedTuple):
    """Who meets whom in a trial.

    Parameters
    ----------
    candidate, incumbent : Schedule
        The contenders.
    check : bool
        As :attr:`Trial.check`.
    """

    candidate: Any
    incumbent: Any
    check: bool = False

    def failed(self, why: str) -> Trial:
        """Return the trial that came to nothing."""
        return Trial(self.candidate, self.incumbent, FAILED, why, check=self.check)


Spread = Callable[[Callable[[], "Pair | None"], Callable[[Pair], Trial]], Iterator[Trial]]
"""Makes trials of pairs: given what says the next pair, or None if there is none for now, and what makes a trial of
one, which may be called in several threads; gives trials in the order in which they end."""


class History:
    """The trials of a search in the order of time, and what follows from them.

    Parameters
    ----------
    start : Schedule
        What the search begins with, and goes back to where nothing holds.
    """

    def __init__(self, start: Any) -> None:
        self.start = start
        self.incumbent = start
        """The best so far."""
        self.gain = 0.0
        """Of that over the first, as far as trials tell: a fraction of its time."""
        self.trials: list[Trial] = []
        self.running: set[Any] = set()
        """Candidates of trials that have not ended."""
        self.gains: dict[Any, float] = {start: 0.0}
        """Of each candidate that was measured over the first, as far as trials tell."""
        self._since = 0
        self._kept: set[Any] = set()
        self._refuted: set[Any] = set()  # incumbents that were no better than the first schedule
        self._lost: dict[Any, Any] = {}  # by candidate, against whom; None for what failed by itself

    @property
    def tried(self) -> set[Any]:
        """Candidates that need no other trial for now, the first schedule among them."""
        return {self.start, *self.running, *self._kept, *self._lost}

    def add(self, trial: Trial) -> Trial:
        """Take a trial in, of which the number is given here; return it.

        A check that does not keep the incumbent makes the search go back to the first schedule.  All that was decided
        against what is no better than that has to be tried again.
        """
        trial = replace(trial, number=len(self.trials) + 1)
        self.trials.append(trial)
        if trial.check:
            if trial.candidate != self.incumbent:
                return trial
            self.gain = trial.gain.median if trial.kept and trial.gain else 0.0
            self.gains[self.incumbent] = self.gain
            if not trial.kept:
                self._refuted.add(self.incumbent)
                self._kept = {self.incumbent}
                self._lost = {loser: winner for loser, winner in self._lost.items() if winner in (None, self.start)}
                self.incumbent, self._since = self.start, 0
            return trial
        self._since += 1
        if trial.gain:
            self.gains[trial.candidate] = self.over_start(trial)
        if not trial.kept:
            if trial.incumbent not in self._refuted or trial.verdict == FAILED:  # it ran while that was refuted
                self._lost[trial.candidate] = None if trial.verdict == FAILED else trial.incumbent
        elif trial.incumbent == self.incumbent:  # else it beat one that was replaced meanwhile, and is tried again
            self._kept.add(trial.candidate)
            self.incumbent, self._since, self.gain = trial.candidate, 0, self.over_start(trial)
        return trial

    def over_start(self, trial: Trial) -> float:
        """Return the gain over the first schedule of a candidate that met the incumbent; NaN if it is not known."""
        before = self.gains.get(trial.incumbent, self.gain)
        return 1 - (1 - before) * (1 - trial.gain.median) if trial.gain else math.nan

    @property
    def check_due(self) -> bool:
        """Whether the incumbent should meet the first schedule again before another candidate is tried."""
        since = self._since
        due = since >= CHECK_AFTER and since & (since - 1) == 0 and self.incumbent != self.start
        return due and not self.trials[-1].check


def nearest(space: Iterable[Any], distance: Callable[[Any, Any], int]) -> Propose:
    """Propose, of what was not tried yet, what differs least from the best so far; else in the order of the space."""
    candidates = list(space)

    def propose(history: History) -> Any:
        tried = history.tried
        left = (candidate for candidate in candidates if candidate not in tried)
        return min(left, key=lambda candidate: distance(candidate, history.incumbent), default=None)

    return propose


def estimated(space: Iterable[Any], hope: float = 0.02) -> Propose:
    """Propose, of what was not tried yet, what has the knobs' values that gained most, as far as they were tried.

    The gain of a candidate is estimated as a sum over its knobs: each value counts with the mean by which candidates
    that have it gained more than all did, as if one more had gained ``hope``.  So values that nobody tried come early,
    and one bad trial does not rule a value out.  Of equal candidates the first of the space comes first.

    Parameters
    ----------
    space : iterable of Schedule
        The candidates.
    hope : float
        What a value is worth that nobody tried, as a fraction of the first schedule's time.
    """
    candidates = list(space)
    knobs = {candidate: tuple(candidate.to_json().items()) for candidate in candidates}

    def propose(history: History) -> Any:
        tried = history.tried
        left = [candidate for candidate in candidates if candidate not in tried]
        mean = statistics.fmean(history.gains.values())
        gained: dict[tuple[str, Any], list[float]] = {}
        for candidate, gain in history.gains.items():
            for value in knobs.get(candidate, ()):
                gained.setdefault(value, [hope]).append(gain - mean)
        worth = {value: statistics.fmean(gains) for value, gains in gained.items()}
        return max(left, key=lambda candidate: sum(worth.get(v, hope) for v in knobs[candidate]), default=None)

    return propose


def race(
    candidate: Any,
    incumbent: Any,
    measure: Measure,
    decide: Decide,
    patience: float = math.inf,
    renew: Callable[[], object] | None = None,
) -> Trial:
    """Let two contenders meet until a decision falls.

    Parameters
    ----------
    candidate, incumbent : Schedule
        The contenders.
    measure, decide : callable
        See the module.
    patience : float
        Seconds after the first samples, which wait for a kernel to be built, until no more are asked for.
    renew : callable, optional
        Has everything loaded anew before the next samples.  Where code and tensors happen to lie makes equal kernels
        differ by some percent, for as long as they lie there; so a candidate that wins has to win again elsewhere.

    Returns
    -------
    Trial
        A failed one, if ``measure`` raises :class:`TrialError`.

    Raises
    ------
    LostError
        If what measures went, perhaps not by the trial's fault.
    """
    begin = time.monotonic()

    def meet(contenders: tuple[Any, Any]) -> tuple[Verdict, int, Samples]:
        place, logs, until = contenders.index(candidate), list[float](), math.inf
        for _ in range(MOST_PORTIONS):
            samples = measure(contenders)
            logs += samples.log_ratios(place, 1 - place)
            verdict = decide(logs)
            if verdict.action != MORE or time.monotonic() > until:
                break
            until = min(until, time.monotonic() + patience)
        return verdict, len(logs), samples.ordered(1 - place, place)

    try:
        verdict, rounds, samples = meet((incumbent, candidate))
        if verdict.action == KEEP and renew is not None:
            renew()
            first = rounds
            verdict, rounds, samples = meet((candidate, incumbent))  # who is loaded first has another place
            rounds += first
            if verdict.action != KEEP:
                verdict = verdict._replace(why=f"{verdict.why}, once it was loaded anew")
    except LostError:
        raise
    except TrialError as error:
        return Trial(candidate, incumbent, FAILED, str(error), took=time.monotonic() - begin)
    action = UNDECIDED if verdict.action == MORE else verdict.action
    trial = Trial(candidate, incumbent, action, verdict.why, verdict.gain, rounds, samples.regime, samples.medians())
    return replace(trial, took=time.monotonic() - begin)


def one_by_one(following: Callable[[], Pair | None], attempt: Callable[[Pair], Trial]) -> Iterator[Trial]:
    """Make trials one after the other, here; what goes with a trial is its failure."""
    while (pair := following()) is not None:
        try:
            yield attempt(pair)
        except LostError as error:
            yield pair.failed(str(error))


def experiment(
    history: History,
    propose: Propose,
    measure: Measure,
    decide: Decide,
    patience: float = math.inf,
    renew: Callable[[], object] | None = None,
    spread: Spread = one_by_one,
) -> Iterator[Trial]:
    """Make trials until nothing more is proposed; whoever iterates may stop at any time.

    Where several run at a time, the incumbent may be replaced while one runs.  What lost to the old one loses to the
    new one, which is better; what beat the old one is proposed again, and meets the new one.

    Parameters
    ----------
    history : History
        To go on with; every trial is added to it before it is given out.
    propose, measure, decide : callable
        See the module.
    patience, renew
        As for :func:`race`.
    spread : callable
        Where trials run, see :data:`Spread`; here, one by one, by default.

    Yields
    ------
    Trial
    """
    begin = time.monotonic() - max((trial.at for trial in history.trials), default=0.0)
    checking = False

    def following() -> Pair | None:
        nonlocal checking
        if history.check_due and not checking:
            checking = True
            return Pair(history.incumbent, history.start, check=True)
        if (candidate := propose(history)) is None:
            return None
        history.running.add(candidate)
        return Pair(candidate, history.incumbent)

    def attempt(pair: Pair) -> Trial:
        return replace(race(pair.candidate, pair.incumbent, measure, decide, patience, renew), check=pair.check)

    try:
        for trial in spread(following, attempt):
            if trial.check:
                checking = False
            else:
                history.running.discard(trial.candidate)
            yield history.add(replace(trial, at=time.monotonic() - begin))
    finally:
        history.running.clear()

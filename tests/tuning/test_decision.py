"""Decisions, on a machine that is simulated: how often they are wrong, and what they miss."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from fq_tvm import FqError, Schedule
from fq_tvm.tuning.decision import SequentialTest, interval, interval_of_means, wins_needed
from fq_tvm.tuning.experiment import (
    DROP,
    FAILED,
    KEEP,
    MORE,
    UNDECIDED,
    UNKNOWN,
    Gain,
    History,
    Samples,
    Trial,
    TrialError,
    Verdict,
    experiment,
    nearest,
    race,
)

ROUNDS = 8
"""Of one portion."""


class Machine:
    """Times turns: its speed drifts, and halves for a while now and then; a turn in twenty is hit by something heavy.

    A candidate is a number; its time is that of ``1 - gains[candidate]``.
    """

    def __init__(self, seed, gains=()):
        self.rng, self.gains, self.block, self.at = np.random.default_rng(seed), gains, np.empty((0, 2)), 0

    def turns(self):
        """Logarithms of how slow the machine is, in many rounds of two turns."""
        turns = (96 * ROUNDS, 2)
        drift = np.cumsum(self.rng.standard_normal(turns[0] * 2) * 0.01).reshape(turns)
        busy = np.repeat(self.rng.random(turns[0] // ROUNDS) < 0.1, ROUNDS)[:, np.newaxis] * math.log(2)
        heavy = np.where(self.rng.random(turns) < 0.05, self.rng.pareto(1, turns), 0.0)
        order = np.argsort(self.rng.random(turns), axis=1)
        return np.take_along_axis(drift + busy + np.log1p(heavy), order, 1) + self.rng.standard_normal(turns) * 0.02

    def measure(self, contenders):
        if self.at >= len(self.block):
            self.block, self.at = self.turns(), 0
        logs = self.block[self.at : self.at + ROUNDS] + [math.log1p(-self.gains[c]) for c in contenders]
        self.at += ROUNDS
        return Samples({"case": np.exp(logs).T.tolist()})


def search(machine, candidates):
    history = History(0)
    propose = nearest(range(1, candidates), lambda one, other: 0)
    list(experiment(history, propose, machine.measure, SequentialTest(candidates)))
    return history


def test_a_search_with_nothing_to_find_hardly_ever_keeps_anything():
    """Two thousand searches of candidates of which half are as fast, and half faster by just what is not worth it."""
    gains = (0.0, 0.01) * 3
    wrong = sum(any(trial.kept for trial in search(Machine(seed, gains), 6).trials) for seed in range(2000))
    assert wrong <= 100


def test_what_is_faster_is_found():
    """One of ten is faster by a twentieth: it is what a search ends with, in nineteen of twenty."""
    found = sum(search(Machine(seed, (0.0,) * 5 + (0.05,) + (0.0,) * 5), 11).incumbent == 5 for seed in range(200))
    assert found >= 190


def test_slower_ones_cost_few_rounds():
    trials = [race(1, 0, Machine(seed, (0.0, -0.3)).measure, SequentialTest(100)) for seed in range(100)]
    assert all(trial.verdict == DROP for trial in trials)
    assert sum(trial.rounds for trial in trials) / len(trials) < 2 * ROUNDS


def test_the_evidence_is_that_of_the_mixture():
    """Against the integral, in exact fractions; and it is not asked for what is no evidence."""

    def evidence(wins, rounds):
        cdf = sum(math.comb(rounds + 1, j) for j in range(wins + 1))
        return Fraction(cdf, (rounds + 1) * math.comb(rounds, wins))

    rng = random.Random(1)
    for _ in range(200):
        rounds, odds = rng.randrange(1, 300), rng.choice([3, 10, 20, 400, 2000, 1e5])
        needed = wins_needed(rounds, odds)
        assert needed > rounds / 2
        if needed <= rounds:
            assert evidence(needed, rounds) >= odds * (1 - 1e-9)
        assert evidence(min(needed, rounds + 1) - 1, rounds) < odds * (1 + 1e-9)
    assert wins_needed(4, 10) == 5
    assert wins_needed(5, 10) == 5


def test_however_often_one_looks_a_fair_coin_is_hardly_ever_taken_for_another():
    rng = np.random.default_rng(2)
    wins = np.cumsum(rng.integers(0, 2, (2000, 400)), axis=1)
    needed = np.array([wins_needed(rounds, 20) for rounds in range(1, 401)])
    ever = (wins >= needed).any(axis=1).mean()
    assert 0.005 < ever <= 0.05


def test_an_interval_holds_the_median_whenever_one_looks():
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(300):
        logs = (math.log(0.9) + rng.standard_cauchy(200) * 0.02).tolist()
        found = [interval(logs[:rounds]) for rounds in range(5, 200, 5)]
        missed += any(not gain.low <= 0.1 <= gain.high for gain in found)
        assert all(gain.low <= gain.median <= gain.high for gain in found)
        assert found[-1].high - found[-1].low < 0.05
    assert missed <= 15
    assert interval([]) == UNKNOWN
    few = interval([math.log(0.8)] * 3)
    assert (few.low, few.high) == (UNKNOWN.low, UNKNOWN.high)
    assert few.median == pytest.approx(0.2)


def test_what_differs_between_processes_is_in_the_interval():
    """Rounds are many, processes five: what they have in common is a gain, what one of them has is not."""
    rng = np.random.default_rng(4)
    medians = math.log(0.9) + rng.standard_normal((1000, 5)) * 0.013
    found = [interval_of_means(logs) for logs in medians.tolist()]
    assert 0.92 <= sum(gain.low <= 0.1 <= gain.high for gain in found) / 1000 <= 0.98
    assert not any(interval_of_means(logs).low > 0 for logs in ([0.0, 0.0, 0.0, 0.0, -0.3], [-0.1, 0.1, -0.1, 0.1]))
    assert interval_of_means([math.log(0.5)] * 3) == pytest.approx((0.5,) * 3)
    assert interval_of_means([math.log(0.5)]) == (UNKNOWN.low, pytest.approx(0.5), UNKNOWN.high)


def test_a_verdict_says_how_much_and_why():
    test = SequentialTest(10)
    verdict = test([math.log(0.9)] * 40)
    assert verdict.action == KEEP
    assert verdict.gain == pytest.approx(Gain(0.1, 0.1, 0.1))
    assert verdict.why == "faster by more than 1%"
    assert test([math.log(0.9)] * 5).action == MORE
    assert test([math.log(0.995)] * 40) == Verdict(DROP, pytest.approx((0.005,) * 3), "not faster by more than 1%")
    assert test([0.0] * 4).action == MORE
    assert test([0.0] * 5).action == DROP
    assert test([math.log(0.9), 0.0] * 500).action == MORE


def scripted(*verdicts):
    """A measure and a decision of known outcomes, and who met whom."""
    met, left = [], list(verdicts)

    def measure(contenders):
        met.append(contenders)
        if left[0] == FAILED:
            left.pop(0)
            raise TrialError("it crashed")
        return Samples({"case": [[1.0] * 5, [0.9] * 5]})

    def decide(logs):
        return Verdict(left.pop(0), Gain(0.1, 0.1, 0.1), "because")

    return measure, decide, met


def trial(candidate, incumbent, verdict, check=False):
    return Trial(candidate, incumbent, verdict, "", Gain(0.1, 0.1, 0.1), check=check)


def test_the_best_meets_the_first_again_at_intervals():
    """After 4 trials, 8 and 16; while it holds, its gain is what that meeting says."""
    measure, decide, met = scripted(*([KEEP] + [DROP] * 4 + [KEEP] + [DROP] * 4 + [KEEP] + [DROP] * 8 + [KEEP]))
    history = History(0)
    steps = [t.check for t in experiment(history, nearest(range(1, 18), lambda a, b: 0), measure, decide)]
    assert [number for number, check in enumerate(steps) if check] == [5, 10, 19]
    assert met[5] == met[10] == (0, 1)
    assert history.incumbent == 1
    assert history.gain == pytest.approx(0.1)


def test_a_best_that_does_not_hold_is_given_up():
    """And what lost against it is tried again, but for what failed by itself and what lost against the first."""
    verdicts = [DROP, KEEP, DROP, FAILED, DROP, DROP, DROP] + [KEEP] + [DROP] * 3
    measure, decide, _ = scripted(*verdicts)
    history = History(0)
    trials = list(experiment(history, nearest(range(1, 7), lambda a, b: 0), measure, decide))
    assert [t.number for t in trials] == list(range(1, len(trials) + 1))
    assert [(t.candidate, t.incumbent) for t in trials] == [
        (1, 0), (2, 0), (3, 2), (4, 2), (5, 2), (6, 2), (2, 0), (3, 0), (5, 3), (6, 3),
    ]  # fmt: skip
    assert [t.check for t in trials].index(True) == 6
    assert history.incumbent == 3
    assert history.tried == {0, 1, 2, 3, 4, 5, 6}


def test_who_beat_one_that_was_replaced_meanwhile_is_tried_again():
    """Trials of other machines end in any order."""
    history = History(0)
    for step in (trial(1, 0, KEEP), trial(2, 0, KEEP), trial(3, 0, DROP)):
        history.add(step)
    assert history.incumbent == 1
    assert history.tried == {0, 1, 3}
    history.add(trial(2, 0, DROP, check=True))  # of one that is the best no more
    assert history.incumbent == 1
    assert history.over_start(trial(4, 1, DROP)) == pytest.approx(1 - 0.9 * 0.9)


def test_samples_of_many_cases_are_one_round():
    samples = Samples({"a": [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0]], "b": [[4.0, 4.0], [2.0, 2.0]]})
    assert samples.log_ratios() == pytest.approx([0.0, 0.0])
    assert samples.log_ratios(0, 1) == pytest.approx([0.0, 0.0])
    assert samples.medians() == {"a": [1.0, 2.0], "b": [4.0, 2.0]}


def test_what_cannot_be_told_is_not_kept():
    found = race(1, 0, lambda _: Samples({"case": [[1.0], [1.0]]}), lambda _: Verdict(MORE, UNKNOWN, "who knows"))
    assert (found.verdict, found.why, found.kept) == (UNDECIDED, "who knows", False)
    hurried = race(1, 0, lambda _: Samples({"case": [[1.0], [1.0]]}), lambda _: Verdict(MORE, UNKNOWN, ""), patience=0)
    assert hurried.rounds < found.rounds


def test_who_wins_has_to_win_again_elsewhere():
    """Where a candidate's code lies made it faster; there is another place after ``renew``."""
    machine, places = Machine(0, [0.0, 0.05]), []

    def renew():
        places.append(machine.gains)
        machine.gains = [0.0, -0.05]

    found = race(1, 0, machine.measure, SequentialTest(10), renew=renew)
    assert len(places) == 1
    assert found.verdict == DROP
    assert found.why == "not faster by more than 1%, once it was loaded anew"
    assert found.gain.median < 0
    there = race(1, 0, Machine(0, [0.0, 0.05]).measure, SequentialTest(10), renew=lambda: None)
    assert there.verdict == KEEP
    once = race(1, 0, Machine(0, [0.0, 0.05]).measure, SequentialTest(10))
    assert there.rounds > once.rounds


def test_trials_survive_json():
    gain = Gain(UNKNOWN.low, 0.25, UNKNOWN.high)
    written = Trial(
        Schedule(), Schedule(tile=1), DROP, "why", gain, 3, {"threads": 2}, {"case": [1.0, 2.0]}, True, 7, 1.5
    )
    assert Trial.from_json(written.to_json(), Schedule.from_json) == written
    failed = Trial(Schedule(), Schedule(), FAILED, "crashed")
    assert Trial.from_json(failed.to_json(), Schedule.from_json) == failed
    for wrong in ({"at": math.nan}, {"took": -1}, {"gain": [0.1]}, {"schedule": {"tile": 0}}, {"rounds": "many"}):
        with pytest.raises((ValueError, TypeError, FqError)):
            Trial.from_json({**failed.to_json(), **wrong}, Schedule.from_json)
    assert str(Gain(0.0441, 0.046, 0.0483)) == "4.6 % (4.4 to 4.8)"
    assert str(gain) == "25.0 % (? to ?)"

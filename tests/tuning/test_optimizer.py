"""What is tried next: by the library's own estimate, and by the optimizer that others wrote."""

from __future__ import annotations

import builtins
import importlib.util

import numpy as np
import pytest

from fq_tvm import FakeQuantSpec, FqError
from fq_tvm.bench import Case
from fq_tvm.launch.registry import current_target
from fq_tvm.tuning.decision import SequentialTest
from fq_tvm.tuning.experiment import History, Samples, estimated, experiment
from fq_tvm.tuning.jobs import Job, distinct
from fq_tvm.tuning.optimizer import tpe
from fq_tvm.tuning.search import Settings
from fq_tvm.tuning.space import space
from fq_tvm.tuning.worker import TrialError

NEEDS_OPTUNA = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs optuna")


def candidates():
    job = Job(FakeQuantSpec("lanes"), (), "cache", (Case((2000, 64), 1),))
    return distinct(space(job.spec, current_target()), job, current_target())


def time_of(schedule):
    """Each knob has its own best value, and one tile breaks."""
    if schedule.tile == 4096:
        raise TrialError("it crashed")
    return 1 + 0.1 * abs(np.log2(schedule.tile / 65536)) + 0.05 * abs(np.log2(schedule.run / 256))


def search(propose, trials):
    listed = candidates()
    history = History(listed[0])

    def measure(contenders):
        return Samples({"case": [[time_of(schedule)] * 40 for schedule in contenders]})

    for trial in experiment(history, propose(listed), measure, SequentialTest(len(listed))):
        if trial.number == trials:
            break
    return history


def optimizers():
    return [lambda listed, seed=1: estimated(listed), pytest.param(tpe, marks=NEEDS_OPTUNA)]


@pytest.mark.parametrize("propose", optimizers(), ids=["estimated", "tpe"])
def test_every_candidate_is_proposed_once(propose):
    history = search(lambda listed: propose(listed, seed=1), 10**6)
    assert len({t.candidate for t in history.trials if not t.check}) == len(candidates()) - 1
    best = min((s for s in candidates() if s.tile != 4096), key=time_of)
    assert time_of(history.incumbent) <= 1.02 * time_of(best)


def test_the_knobs_that_gained_most_come_first():
    """Where knobs add up, the best is found after a few more trials than the knobs have values, of 96."""
    listed = candidates()
    values = {item for candidate in listed for item in candidate.to_json().items()}
    history = search(estimated, len(values) + 6)
    best = min((s for s in listed if s.tile != 4096), key=time_of)
    assert time_of(history.incumbent) <= 1.02 * time_of(best)
    broken = [trial.candidate.tile for trial in history.trials if trial.verdict == "failed"]
    assert len(broken) < len(history.trials) / 2


@NEEDS_OPTUNA
def test_it_learns_and_is_the_same_every_time():
    """After a third of the space it is near the best more often than in the order of chance."""
    best = min(time_of(s) for s in candidates() if s.tile != 4096)
    found = [search(lambda listed, seed=seed: tpe(listed, seed), 30) for seed in (1, 2, 3)]
    assert all(time_of(history.incumbent) <= 1.1 * best for history in found)
    again = search(lambda listed: tpe(listed, 1), 30)
    assert [t.candidate for t in again.trials] == [t.candidate for t in found[0].trials]
    assert found[0].trials[5].candidate != found[1].trials[5].candidate


def test_without_optuna(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FqError, match=r'the search "tpe" needs optuna; `pip install "fq_tvm\[search\]"`'):
        tpe(candidates())
    with pytest.raises(FqError, match="the search is 'best'; expected one of estimated, nearest, tpe"):
        Settings(search="best")

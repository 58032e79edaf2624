"""The other process, called in this one: where tensors are when they are timed, and what is done once."""

from __future__ import annotations

from collections import OrderedDict

import pytest

from fq_tvm import FakeQuantSpec, Schedule
from fq_tvm.bench import Case
from fq_tvm.tuning import trial

ROWS = FakeQuantSpec("rows")
CASE = Case((8, 300), 0)


def request(**others):
    kernel = {"operator": ROWS.operator, "spec": ROWS.to_json()}
    contenders = [{**kernel, "schedule": s.to_json()} for s in (Schedule(), Schedule(parallel_from=1))]
    return {"ask": "time", "case": CASE.to_json(), "contenders": contenders, "seconds": 0.01, **others}


@pytest.mark.parametrize("tensors", ["memory", "caches"])
def test_tensors_are_where_their_size_lives(tensors, monkeypatch):
    """Swept out of the caches before each turn that is timed, or left there."""
    swept = []
    monkeypatch.setattr(trial, "sweeper", lambda: lambda: swept.append(True))
    answer = trial.serve(trial.Local(), request(tensors=tensors), OrderedDict())
    rounds = {len(times) for times in answer["times"].values()}
    assert len(rounds) == 1
    assert len(swept) == (2 * rounds.pop() if tensors == "memory" else 0)
    assert answer["regime"]["tensors"] == tensors
    assert set(answer["times"]) == {"0", "1"}


def test_a_contender_is_prepared_and_checked_once(monkeypatch):
    place, benches, prepared = trial.Local(), OrderedDict(), []
    prepare = place.prepare
    monkeypatch.setattr(place, "prepare", lambda at, contender: prepared.append(contender) or prepare(at, contender))
    first, second = (trial.serve(place, request(copy=True), benches) for _ in range(2))
    assert len(prepared) == 2
    assert set(first["times"]) == set(second["times"]) == {"0", "1", "copy"}

"""Machines: how trials are spread, what becomes of those whose machine goes, and which servers are left alone."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from fq_tvm import FqError
from fq_tvm.target import Target
from fq_tvm.tuning import machines as module
from fq_tvm.tuning.decision import SequentialTest
from fq_tvm.tuning.experiment import History, Samples, experiment, nearest
from fq_tvm.tuning.machines import Done, Machines
from fq_tvm.tuning.measure import spread_over
from fq_tvm.tuning.worker import LostError, TrialError

CPU = Target("znver4", ("avx2",))
DIE = {"ask": "die"}


class Farm:
    """Servers at a tracker that are there because it is said so, and the workers that are given them."""

    def __init__(self, monkeypatch, *cpus):
        self.free = [(f"machine {number}", cpu) for number, cpu in enumerate(cpus)]
        self.count = len(cpus)
        self.lock = threading.Lock()
        monkeypatch.setattr(module, "servers", lambda rpc, key: self.count)
        monkeypatch.setattr(module, "Worker", lambda rpc, key: FarmWorker(self))
        monkeypatch.setattr(module, "POLL_SECONDS", 0.02)

    def join(self, name, cpu=CPU):
        with self.lock:
            self.free.append((name, cpu))
            self.count += 1


class FarmWorker:
    def __init__(self, farm):
        self.farm, self.server, self.closed = farm, None, threading.Event()

    def ask(self, request, timeout):
        while self.server is None:
            with self.farm.lock:
                if self.farm.free:
                    self.server = self.farm.free.pop(0)
                    break
            if self.closed.wait(0.01):
                raise LostError("the search has ended")
        if request["ask"] == "die":
            self.die()
        return {"target": self.server[1].to_json(), "machine": self.server[0]}[request["ask"]]

    def die(self):
        """As a server does whose session crashes."""
        with self.farm.lock:
            self.server, self.farm.count = None, self.farm.count - 1
        raise LostError("connection reset")

    def close(self):
        self.closed.set()


def proposals(number):
    left = iter(range(number))
    return lambda: next(left, None)


def test_each_machine_has_a_trial_at_a_time_and_all_have_one(monkeypatch):
    farm, together = Farm(monkeypatch, CPU, CPU, CPU), threading.Barrier(3)

    def attempt(trial):
        together.wait(30)  # nobody passes before three are here
        return machines.ask({"ask": "machine"}, 1)

    with Machines("tracker:1", "lab") as machines:
        done = list(machines.each(proposals(9), attempt))
        assert sorted(machines.names) == ["machine 0", "machine 1", "machine 2"]
    assert farm.count == 3
    assert sorted(d.trial for d in done) == list(range(9))
    assert all(d.result == d.machine and d.error is None for d in done)
    assert Counter(d.machine for d in done) == {"machine 0": 3, "machine 1": 3, "machine 2": 3}


def test_a_trial_whose_machine_goes_has_another(monkeypatch):
    farm, notes = Farm(monkeypatch, CPU, CPU), []
    tries = Counter()

    def attempt(trial):
        tries[trial] += 1
        if trial == 1 and tries[trial] == 1:
            machines.ask(DIE, 1)
        if trial == 3:
            raise TrialError("another result")
        return trial * 10

    with Machines("tracker:1", "lab", lambda *note: notes.append(note)) as machines:
        done = {d.trial: d for d in machines.each(proposals(6), attempt)}
        assert len(machines.names) == 1
    assert {trial: d.result for trial, d in done.items()} == {0: 0, 1: 10, 2: 20, 3: None, 4: 40, 5: 50}
    assert done[3].error == "another result"
    assert tries == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1}
    [lost] = [note for note in notes if note[1] == "lost"]
    assert lost[2] == "connection reset"
    assert done[1].machine != lost[0]
    assert farm.count == 1


def test_what_ends_every_server_ends_two(monkeypatch):
    """TVM's server ends with a session that crashes, and the others are needed."""
    farm = Farm(monkeypatch, *[CPU] * 4)

    def attempt(trial):
        return machines.ask(DIE, 1) if trial == 2 else trial

    with Machines("tracker:1", "lab") as machines:
        done = {d.trial: d for d in machines.each(proposals(20), attempt)}
    assert len(done) == 20
    assert done[2].error == "connection reset"
    assert farm.count == 2


def test_a_machine_that_joins_has_trials_too(monkeypatch):
    farm, seen = Farm(monkeypatch, CPU), set()

    def propose():
        if len(seen) == 1:
            farm.join("the new one") if farm.count == 1 else None
            return 0
        return None

    with Machines("tracker:1", "lab") as machines:
        seen.add(machines.names[0])
        for done in machines.each(propose, lambda trial: machines.ask({"ask": "machine"}, 1)):
            seen.add(done.machine)
    assert seen == {"machine 0", "the new one"}


def test_a_machine_of_another_kind_is_left_alone(monkeypatch):
    Farm(monkeypatch, CPU, Target("znver3", ("avx2",)))
    notes = []
    with Machines("tracker:1", "lab", lambda *note: notes.append(note)) as machines:
        while len(notes) < 2:
            list(machines.each(proposals(1), lambda trial: time.sleep(0.01)))
        kind = {name: event for name, event, _ in notes}
        assert sorted(kind.values()) == ["joined", "refused"]
        [refused] = [name for name, event in kind.items() if event == "refused"]
        done = list(machines.each(proposals(5), lambda trial: trial))
        assert all(d.machine != refused for d in done)
    [reason] = [reason for _, event, reason in notes if event == "refused"]
    assert reason in ("its CPU is znver3, not znver4", "its CPU is znver4, not znver3")


def test_no_machine_is_left(monkeypatch):
    Farm(monkeypatch, CPU)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    with Machines("tracker:1", "lab") as machines:
        results = machines.each(proposals(9), lambda trial: machines.ask(DIE, 1) if trial == 1 else trial)
        assert next(results).trial == 0
        with pytest.raises(FqError, match=r"no machine 'lab' is left at the tracker tracker:1"):
            next(results)


def test_no_server_of_the_key(monkeypatch):
    Farm(monkeypatch)
    with pytest.raises(FqError, match=r"no machine 'lab' at the tracker tracker:1; start one: .*rpc_server"):
        Machines("tracker:1", "lab").__enter__()


def test_an_error_of_the_callers_is_the_callers(monkeypatch):
    Farm(monkeypatch, CPU, CPU)
    with Machines("tracker:1", "lab") as machines:
        with pytest.raises(ZeroDivisionError):
            list(machines.each(proposals(4), lambda trial: 1 // (trial - 1)))
        # what the other machine was about is over, and of no interest to who comes next
        assert sorted(d.trial for d in machines.each(proposals(3), lambda trial: trial)) == [0, 1, 2]


def test_this_machine():
    with Machines() as machines:
        [done] = machines.each(proposals(1), lambda trial: machines.ask({"ask": "target"}, 60)["cpu"])
        assert done == Done(0, machines.names[0], machines.target.cpu)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, module._Place)]


def test_once_on_every_machine(monkeypatch):
    Farm(monkeypatch, CPU, CPU, CPU)
    ended = []

    def attempt():
        machine = machines.ask({"ask": "machine"}, 1)
        if machine == "machine 1":
            machines.ask(DIE, 1)
        ended.append(machine)
        return len(ended)

    with Machines("tracker:1", "lab") as machines:
        while len(machines.names) < 3:
            list(machines.each(proposals(1), lambda trial: time.sleep(0.01)))
        done = {each.machine: each for each in machines.on_every_one(attempt)}
    assert sorted(done) == ["machine 0", "machine 1", "machine 2"]
    assert done["machine 1"].error == "connection reset"
    assert sorted(ended) == ["machine 0", "machine 2"]


class Candidate(int):
    """One that takes so many seconds."""

    def to_json(self):
        return {"seconds": int(self)}


def test_what_beat_an_incumbent_that_was_replaced_meets_the_new_one():
    """And what lost to it is not tried again."""
    start, *others = candidates = [Candidate(n) for n in (100, 60, 80, 110, 50)]
    met = []

    def measure(contenders):
        met.append(contenders)
        return Samples({"case": [[float(c)] * 40 for c in contenders]})

    def three_at_a_time(following, attempt):
        while pairs := [pair for pair in (following(), following(), following()) if pair is not None]:
            assert len({pair.candidate for pair in pairs}) == len(pairs)
            yield from map(attempt, pairs)

    history = History(start)
    propose = nearest(candidates, lambda *_: 0)
    trials = list(experiment(history, propose, measure, SequentialTest(len(others)), spread=three_at_a_time))
    assert history.incumbent == 50
    pairs = [(int(t.candidate), int(t.incumbent), t.verdict) for t in trials if not t.check]
    assert pairs[:3] == [(60, 100, "keep"), (80, 100, "keep"), (110, 100, "drop")]
    assert pairs[3:] == [(80, 60, "drop"), (50, 60, "keep")]
    assert not history.running


def test_machines_of_different_speeds_find_the_same(monkeypatch):
    """A machine four times as fast makes no winners: contenders are compared on one."""
    Farm(monkeypatch, CPU, CPU, CPU)
    candidates = [Candidate(n) for n in (100, *range(130, 90, -4))]

    def measure(contenders):
        machine = machines.ask({"ask": "machine"}, 1)
        speed = 4 ** int(machine[-1])
        time.sleep(0.001 * speed)
        return Samples({"case": [[c / speed] * 40 for c in contenders]}, {"machine": machine})

    history = History(candidates[0])
    with Machines("tracker:1", "lab") as machines:
        functions = nearest(candidates, lambda *_: 0), measure, SequentialTest(len(candidates))
        trials = list(experiment(history, *functions, spread=spread_over(machines)))
    assert history.incumbent == min(candidates)
    assert len({trial.regime["machine"] for trial in trials}) > 1
    assert all(trial.kept == (trial.candidate < 0.99 * trial.incumbent) for trial in trials)
    assert {trial.candidate for trial in trials} == set(candidates[1:])

"""What measuring takes, as a search sees it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from fq_tvm.tuning import measure
from fq_tvm.tuning.experiment import Samples
from fq_tvm.tuning.measure import Paced


def test_portions_and_new_processes_are_told_apart(monkeypatch):
    """By thread: another machine's portion is not the first of a process that was begun here."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(measure, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def samples(seconds):
        clock.now += seconds[0]
        return Samples({})

    def renew():
        clock.now += 1.0

    paced = Paced(samples, renew)
    assert paced.estimate(12, 6) == 0.0
    paced.measure([3.0])  # a kernel is built
    paced.measure([0.25])
    assert paced.estimate(2, 0) == 0.5
    assert paced.estimate(12, 6) == 6 * 3.0 + 6 * 0.25
    for seconds in (1.0, 2.0, 30.0):
        paced.renew()
        other = threading.Thread(target=lambda: paced.measure([0.5]))
        other.start()
        other.join()
        paced.measure([seconds])
    assert paced.estimate(12, 6) == 6 * (1.0 + 0.5 + 2.0) + 6 * 0.25
    assert paced.estimate(2, 0) == 0.5

"""Taking turns: who is when, for how long, and what a ratio is; no time is asserted."""

from __future__ import annotations

import ast
import itertools
import time
from pathlib import Path

import numpy as np

from fq_tvm.bench import timing
from fq_tvm.bench.timing import compare, interleave, ratio, settled, sweeper


def test_timing_knows_no_operator():
    """Whoever has calls can time them: of this package it knows only its errors and the number of threads."""
    tree = ast.parse(Path(timing.__file__).read_text())
    known = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level}
    assert known == {"environment", "errors"}


def test_any_calls_can_be_compared():
    found = compare({"nap": lambda: time.sleep(1e-3), "long nap": lambda: time.sleep(4e-3)}, 0.01)
    assert set(found) == {"long nap"}
    assert 1 < found["long nap"].low <= found["long nap"].median <= found["long nap"].high


def test_a_ratio_is_that_of_the_rounds():
    """A machine halves its speed for some rounds: the ratio is the same all the time."""
    times = {"a": [2.0, 2.0, 1.0, 1.0, 1.0], "b": [6.0, 6.0, 3.0, 3.0, 3.0]}
    assert ratio(times, "b", "a") == (3, 3, 3)
    assert ratio({"a": [1.0] * 3, "b": [1.0, 2.0, 3.0]}, "b", "a") == (1, 2, 3)


def test_more_rounds_where_times_vary():
    steady = {"a": [1.0, 2.0, 3.0] * 5, "b": [2.0, 4.0, 6.0] * 5}
    assert settled(steady)
    assert not settled({"a": [1.0] * 16, "b": [1.0, 2.0] * 8})
    assert settled({"a": [1.0] * 1600, "b": [1.0, 1.1] * 800})
    naps = itertools.cycle([0, 0, 2e-4, 2e-4])  # each second call is timed
    calls = {"a": lambda: None, "b": lambda: time.sleep(next(naps))}
    start = time.perf_counter()
    times = interleave(calls, 0.05, sweep=lambda: None)
    assert time.perf_counter() - start > 0.15
    assert len(times["a"]) == len(times["b"]) > 20


def test_nobody_has_always_the_same_place():
    called = []
    interleave({name: lambda name=name: called.append(name) for name in "abc"}, 0.02)
    after = {pair for pair in itertools.pairwise(called) if pair[0] != pair[1]}
    assert len(after) == 6


def test_sweeping_reads_more_than_caches_hold(monkeypatch):
    largest = [part.nbytes for part in np.array_split(np.empty(2**26 // 8), timing.num_threads())]
    read = []
    monkeypatch.setattr(np, "max", lambda part: read.append(part.nbytes))
    sweeper.__wrapped__()()
    assert len(read) == len(largest)
    assert sum(read) >= sum(largest)

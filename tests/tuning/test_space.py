"""The space of schedules: its order, and that none of them changes a result."""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading

import numpy as np
import pytest
from support import assert_same, checked_arguments, expected, launch_on, make

from fq_tvm import FakeQuantSpec, Schedule, catalogue
from fq_tvm.launch.registry import prepare
from fq_tvm.schedule import LIMITS, default_schedule
from fq_tvm.target import Target
from fq_tvm.tuning.space import knobs_of, of_shape, space

V4 = ("avx2", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
ZEN4 = Target("znver4", V4)
ROWS = FakeQuantSpec("rows")


def test_the_space_is_the_same_every_time():
    for spec in catalogue():
        listed = space(spec, ZEN4, seed=3)
        assert listed == space(spec, ZEN4, seed=3)
        assert listed[0] == default_schedule(spec)
        assert len(set(listed)) == len(listed)
        assert set(listed) == set(space(spec, ZEN4, seed=4))
        assert listed != space(spec, ZEN4, seed=4)
    assert {s.vector_bits for s in space(ROWS, ZEN4)} == {0, 256}
    assert {s.vector_bits for s in space(ROWS, Target("x86-64-v4", (*V4, "prefer-256-bit")))} == {0, 512}
    assert {s.vector_bits for s in space(ROWS, Target("haswell", ("avx2",)))} == {0}


SHAPES = {
    "rows": [((3, 5, 300), 1), ((1, 70001), 0)],
    "lanes": [((4, 8), 1), ((1000, 3), 1), ((33, 300), 1), ((5, 7, 9), 1), ((700, 130), 1)],
    "strided_rows": [((3, 5, 130), 1), ((2, 3, 400, 50), 1)],
    "strided_lanes": [((4, 8), 1), ((257,), 0), ((90, 2, 500), 2)],
}


def pairs(knobs: dict[str, int]) -> set[tuple[tuple[str, int], ...]]:
    return set(itertools.combinations(sorted(knobs.items()), 2))


def covering(spec: FakeQuantSpec, pick: random.Random) -> list[Schedule]:
    """Return schedules among which every two candidates of two knobs meet; limits are such that small tensors pass."""
    knobs = {**knobs_of(spec), "parallel_from": (1, 16384), "static": (0, 1)}
    if spec.nontemporal:
        knobs["stream_from"] = (1, LIMITS["stream_from"])
    every = [dict(zip(knobs, values, strict=True)) for values in itertools.product(*knobs.values())]
    pick.shuffle(every)
    left, chosen = set().union(*map(pairs, every)), []
    while left:
        best = max(every, key=lambda knobs: len(pairs(knobs) & left))
        left -= pairs(best)
        chosen.append(dataclasses.replace(default_schedule(spec), **best))
    return chosen


def test_schedules_for_one_shape_are_those_for_all_twice():
    listed = space(ROWS, ZEN4)
    doubled = of_shape(listed)
    assert doubled[::2] == listed
    assert [dataclasses.replace(schedule, static=0) for schedule in doubled[1::2]] == listed
    assert {schedule.static for schedule in doubled[1::2]} == {1}


@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("iteration", SHAPES)
def test_no_schedule_of_the_space_changes_a_result(iteration, threads, monkeypatch, request):
    """By pairs of knobs, with float16 and wide arithmetic among them, for several numbers of threads.

    A sample of such schedules; --every-pair runs all of them.
    """
    monkeypatch.setenv("FQ_TVM_NUM_THREADS", threads)
    rng = np.random.default_rng(int(threads))
    pick = random.Random(iteration)  # the same for every number of threads: what is built once serves all
    samples = []
    for spec in pick.sample(catalogue(iteration=iteration), 3):
        chosen = covering(spec, pick)
        samples += [(spec, s) for s in (chosen if request.config.getoption("--every-pair") else chosen[:2])]
    failures = []

    def in_a_thread_of_its_own():  # a pool belongs to its thread
        try:
            for spec, schedule in samples:
                compare(spec, schedule)
        except BaseException as error:
            failures.append(error)

    def compare(spec: FakeQuantSpec, schedule: Schedule) -> None:
        low, high = (-(2**31), 2**31 - 1) if spec.wide else (-8, 7)
        for shape, axis in SHAPES[iteration]:
            x, scale, zero_point = make(rng, shape, axis, spec.dtype, spec.scale_dtype, (low, high))
            if spec.strided:
                stepped = np.empty([2 * n for n in shape], x.dtype)[tuple(slice(None, None, 2) for _ in shape)]
                stepped[...] = x
                x = stepped
            out, mask = np.empty(shape, spec.out_dtype), np.empty(shape, bool)
            arrays = (x, scale, zero_point, out, mask)
            launch = prepare(checked_arguments(arrays, axis, low, high), schedule=schedule)
            assert launch.kernel.spec == spec
            assert launch.kernel.schedule == schedule
            launch_on(launch, arrays)
            assert_same((out, mask), expected(x, scale, zero_point, axis, low, high, out.dtype))

    thread = threading.Thread(target=in_a_thread_of_its_own)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]

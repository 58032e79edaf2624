"""What is computed from times, and which times a case has; no time is asserted."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fq_tvm.bench import result as measuring
from fq_tvm.bench.cases import Case
from fq_tvm.bench.result import Result, measure, summary

TINY = Case((16, 300), 0)


def result(case: Case, **seconds: float) -> Result:
    """A result without spread."""
    return Result(case, {name: [value] * 5 for name, value in seconds.items()})


def test_numbers_of_a_result():
    got = result(Case((1000,), 0), fq_tvm=2e-6, copy=1e-6, torch=2e-5)
    assert got.over_limit == pytest.approx(2 / (9 / 8))
    assert got.gigabytes_per_second == pytest.approx(4.5)
    assert got.ratios() == {"torch": pytest.approx(10)}
    assert got.spread() == 0
    assert got.kept_over_limit == got.over_limit
    kept = dataclasses.replace(got, kept={"fq_tvm": [3e-6] * 5, "copy": [1e-6] * 5, "torch": [6e-6] * 5})
    assert kept.kept_over_limit == pytest.approx(8 / 3)
    assert kept.ratios() == got.ratios() == got.ratios(kept=True)
    assert kept.ratios(kept=True) == {"torch": 2}
    assert result(Case((1000,), 0, "float16"), fq_tvm=1, copy=1).over_limit == pytest.approx(4 / 5)
    assert json.dumps(got.to_json())


def test_summary():
    big, small = Case((64, 2**20), 0, tags=("facts",)), Case((64, 2**10), 0)
    good = [
        result(big, fq_tvm=9.0, copy=8.0, torch=99.0, numba=9.0, openvino=18.0, default=9.9),
        result(small, fq_tvm=9.0, copy=8.0, torch=10.0),
    ]
    summed = summary(good)
    assert summed["memory"]["cases"] == summed["kept"]["cases"] == summed["cache"]["cases"] == 1
    assert summed["memory"]["over_limit"] == pytest.approx(1)
    assert summed["memory"]["worst_case"] == big.name
    assert summed["peers"]["torch"]["least_case"] == small.name


def test_a_ratio_is_the_median_of_the_rounds():
    """A machine doubles its speed halfway: medians are of different halves, the ratio is the same all the time."""
    got = Result(TINY, {"fq_tvm": [2, 2, 1, 1, 1], "copy": [4, 4, 4, 2, 2], "numba": [6, 6, 3, 3, 30]})
    assert got.ratios() == {"numba": 3}
    assert got.over_limit == pytest.approx(0.5 / (9 / 8))


def test_large_tensors_come_from_memory(monkeypatch):
    """The caches are swept before each turn, and the time without that is kept apart."""
    swept = []
    monkeypatch.setattr(measuring, "sweeper", lambda: lambda: swept.append(1))
    large, small = Case((513, 512), 0), Case((512, 512), 0)
    got = measure(large, ["numpy"], 0.001)
    assert set(got.seconds) == {"fq_tvm", "copy", "numpy"}
    assert set(got.kept) == set(got.seconds)
    assert set(got.ratios(kept=True)) == {"numpy"}
    assert len(swept) == sum(map(len, got.seconds.values()))
    assert measure(small, [], 0.001).kept == {}
    assert len(swept) == sum(map(len, got.seconds.values()))

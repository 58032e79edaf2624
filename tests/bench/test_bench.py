"""The benchmark: its table of cases, what it computes from times, its peers, its command; no time is asserted."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import time

import numpy as np
import pytest

from fq_tvm import FqError, bench, cli
from fq_tvm.bench import CASES, Case, Result
from fq_tvm.launch.kernel import prepare

TINY = Case((16, 300), 0)


def result(case: Case, **seconds: float) -> Result:
    """A result without spread."""
    return Result(case, {name: [value] * 5 for name, value in seconds.items()})


def test_the_table_has_what_was_asked_for():
    assert len({case.name for case in CASES}) == len(CASES)
    assert sum("facts" in case.tags for case in CASES) == 8
    assert {case.dtype for case in CASES} == {"float32", "float16"}
    assert {case.memory for case in CASES} == {"contiguous", "transposed", "channels_last"}
    assert {case.iteration for case in CASES} == {"rows", "lanes"}
    channels = {case.shape[case.axis] for case in CASES}
    assert channels >= {1, 3, 64, 1000, 4096, 50257}
    inner = {int(np.prod(case.shape[case.axis + 1 :])) for case in CASES if case.memory == "contiguous"}
    assert inner >= {1, 2, 3, 7, 49}
    assert min(case.x_bytes for case in CASES) <= 4096
    assert max(case.x_bytes for case in CASES) >= 400e6


@pytest.mark.parametrize("memory", ["contiguous", "transposed", "channels_last", "stepped"])
def test_arrays_lie_as_the_case_says(memory):
    from fq_tvm.launch.arguments import Operands, describe

    case = Case((4, 5, 6, 7), 1, "float16", memory)
    x, scale, zero_point = case.arrays()
    assert x.shape == case.shape
    assert x.dtype == case.dtype
    assert scale.shape == zero_point.shape == (5,)
    results = np.empty_like(x), np.empty_like(x, bool)
    launch = prepare(Operands(*(describe(a, "a") for a in (x, scale, zero_point, *results))), 1, -8, 7)
    assert launch.layout.iteration == case.iteration
    assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_finding_cases():
    assert len(bench.find_cases([])) == len(CASES)
    assert len(bench.find_cases(["facts"])) == 8
    assert {c.dtype for c in bench.find_cases(["4096x4096@1"])} == {"float32", "float16"}
    with pytest.raises(FqError, match="no case is called '9x9'"):
        bench.find_cases(["facts", "9x9"])


def test_numbers_of_a_result():
    got = result(Case((1000,), 0), fq_tvm=2e-6, copy=1e-6, torch=2e-5)
    assert got.over_limit == pytest.approx(2 / (9 / 8))
    assert got.gigabytes_per_second == pytest.approx(4.5)
    assert got.ratios() == {"torch": pytest.approx(10)}
    assert got.spread() == 0
    assert got.kept_over_limit == got.over_limit
    kept = dataclasses.replace(got, kept={"fq_tvm": [3e-6], "copy": [1e-6], "torch": [6e-6]})
    assert kept.kept_over_limit == pytest.approx(8 / 3)
    assert kept.ratios() == got.ratios() == got.ratios(kept=True)
    assert kept.ratios(kept=True) == {"torch": 2}
    assert result(Case((1000,), 0, "float16"), fq_tvm=1, copy=1).over_limit == pytest.approx(4 / 5)
    assert json.dumps(got.to_json())


def test_summary_and_claims():
    big, small = Case((64, 2**20), 0, tags=("facts",)), Case((64, 2**10), 0)
    good = [
        result(big, fq_tvm=9.0, copy=8.0, torch=99.0, numba=9.0, openvino=18.0, default=9.9),
        result(small, fq_tvm=9.0, copy=8.0, torch=10.0),
    ]
    summed = bench.summary(good)
    assert summed["memory"]["cases"] == summed["kept"]["cases"] == summed["cache"]["cases"] == 1
    assert summed["memory"]["over_limit"] == pytest.approx(1)
    assert summed["memory"]["worst_case"] == big.name
    assert summed["peers"]["torch"]["least_case"] == small.name
    assert all(claim.holds for claim in bench.claims(good))
    assert len(bench.claims(good)) == 7
    times = {"fq_tvm": [8.0] * 5, "copy": [8.0] * 5, "torch": [90.0] * 5}
    times = {name: times.get(name, [9.0] * 5) for name in good[0].seconds}
    warm = dataclasses.replace(good[0], kept=times)  # faster by eleven in caches, and by nine from memory
    warm.seconds["torch"] = [81.0] * 5
    assert [c.holds for c in bench.claims([warm]) if "torch" in c.text] == [True]
    times["torch"] = [79.0] * 5
    assert [c.holds for c in bench.claims([warm]) if "torch" in c.text] == [False]
    bad = [result(big, fq_tvm=9.0, copy=4.0, torch=89.0, numba=8.9, openvino=9.0, **{"x86-64-v3": 20.0})]
    assert [claim.holds for claim in bench.claims(bad)] == [False] * 6
    assert bench.claims([]) == []


@pytest.mark.parametrize("peer", bench.PEERS)
@pytest.mark.parametrize(
    "case", [Case((6, 300), 0), Case((3, 4, 5), 1, "float16", "channels_last")], ids=lambda c: c.name
)
def test_peers(peer, case):
    """Each that is installed runs; its result, where it has a mask, was compared before it was timed."""
    if peer == "inductor":
        pytest.skip("compiling takes too long for a test; `fq-tvm bench` checks it")
    package, _ = bench.PEERS[peer]
    got = bench.measure(case, [peer], seconds=0.001)
    if importlib.util.find_spec(package) is None:
        assert "not installed" in got.absent[peer]
    else:
        assert peer in got.seconds or "float16" in got.absent[peer]
    assert {"fq_tvm", "copy"} <= set(got.seconds)
    assert all(len(times) >= 5 for times in got.seconds.values())


def test_an_absent_peer_is_named(monkeypatch):
    monkeypatch.setitem(bench.PEERS, "torch", ("no_such_package", lambda inputs: None))
    assert bench.measure(TINY, ["torch"], 0.001).absent == {"torch": "no_such_package is not installed"}
    with pytest.raises(FqError, match="unknown peer abacus"):
        bench.measure(TINY, ["abacus"])


def test_a_ratio_is_the_median_of_the_rounds():
    """A machine doubles its speed halfway: medians are of different halves, the ratio is the same all the time."""
    got = Result(TINY, {"fq_tvm": [2, 2, 1, 1, 1], "copy": [4, 4, 4, 2, 2], "numba": [6, 6, 3, 3, 30]})
    assert got.ratios() == {"numba": 3}
    assert got.over_limit == pytest.approx(0.5 / (9 / 8))
    slower = dataclasses.replace(got, seconds={"fq_tvm": [1.0] * 8, "numba": [0.9] * 5 + [1.1] * 3})
    assert [c.holds for c in bench.claims([slower]) if "numba" in c.text] == [True]
    slower.seconds["numba"] = [0.9] * 7 + [1.1]
    assert [c.holds for c in bench.claims([slower]) if "numba" in c.text] == [False]


def test_more_rounds_where_times_vary():
    steady = {"a": [1.0, 2.0, 3.0] * 5, "b": [2.0, 4.0, 6.0] * 5}
    assert bench.settled(steady)
    assert not bench.settled({"a": [1.0] * 16, "b": [1.0, 2.0] * 8})
    assert bench.settled({"a": [1.0] * 1600, "b": [1.0, 1.1] * 800})
    naps = itertools.cycle([0, 0, 2e-4, 2e-4])  # each second call is timed
    calls = {"a": lambda: None, "b": lambda: time.sleep(next(naps))}
    start = time.perf_counter()
    times = bench.interleave(calls, 0.05, sweep=lambda: None)
    assert time.perf_counter() - start > 0.15
    assert len(times["a"]) == len(times["b"]) > 20


def test_a_contender_cannot_pass_with_the_results_of_another(monkeypatch):
    monkeypatch.setitem(bench.PEERS, "numpy", ("numpy", lambda inputs: lambda: None))
    with pytest.raises(FqError, match="numpy gives another out"):
        bench.measure(TINY, ["numpy"], 0.001)


def test_a_wrong_contender_is_not_timed(monkeypatch):
    def wrong(inputs):
        out, mask = bench._expected(inputs)
        return lambda: (out, ~mask)

    monkeypatch.setitem(bench.PEERS, "numpy", ("numpy", wrong))
    with pytest.raises(FqError, match="numpy gives another mask"):
        bench.measure(TINY, ["numpy"], 0.001)


def test_large_tensors_come_from_memory(monkeypatch):
    """The caches are swept before each turn, and the time without that is kept apart."""
    swept = []
    monkeypatch.setattr(bench, "sweeper", lambda: lambda: swept.append(1))
    large, small = Case((513, 512), 0), Case((512, 512), 0)
    got = bench.measure(large, ["numpy"], 0.001)
    assert set(got.seconds) == {"fq_tvm", "copy", "numpy"}
    assert set(got.kept) == set(got.seconds)
    assert set(got.ratios(kept=True)) == {"numpy"}
    assert len(swept) == sum(map(len, got.seconds.values()))
    assert bench.measure(small, [], 0.001).kept == {}
    assert len(swept) == sum(map(len, got.seconds.values()))


def test_nobody_has_always_the_same_place():
    called = []
    bench.interleave({name: lambda name=name: called.append(name) for name in "abc"}, 0.02)
    after = {pair for pair in itertools.pairwise(called) if pair[0] != pair[1]}
    assert len(after) == 6


def test_sweeping_reads_more_than_caches_hold(monkeypatch):
    largest = [part.nbytes for part in np.array_split(np.empty(2**26 // 8), bench.num_threads())]
    read = []
    monkeypatch.setattr(np, "max", lambda part: read.append(part.nbytes))
    bench.sweeper.__wrapped__()()
    assert len(read) == len(largest)
    assert sum(read) >= sum(largest)


def test_the_copy_copies():
    for x in (
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        Case((5, 6), 0, memory="stepped").arrays()[0],
    ):
        out = np.empty_like(x)
        bench.copy(x, out)()
        np.testing.assert_array_equal(out, x)


def test_sizes_are_readable():
    sizes = {1: "1 B", 2**13: "8 KiB", 2**20: "1 MiB", 1.5 * 2**30: "1.5 GiB", 2**41: "2.05e+03 GiB", 0: "0 B"}
    assert {size: bench.memory_size(size) for size in sizes} == sizes


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    cases = [Case((2**n, 300), a, d) for n in (4, 8) for a in (0, 1) for d in ("float32", "float16")]
    bench.plot([result(case, fq_tvm=1e-5, copy=1e-5) for case in cases], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    out = tmp_path / "out.json"
    arguments = [
        "bench",
        "--case",
        "64x256@",
        "--peers",
        "numpy,default",
        "--seconds",
        "0.01",
        "--json",
        str(out),
        "-q",
    ]
    monkeypatch.setitem(bench.PEERS, "numpy", ("no_such_package", lambda inputs: None))
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    for word in ("64x256@1:float32", "GB/s", "/ limit", "left out: numpy in 4 of 4 cases", "what must hold"):
        assert word in text
    written = json.loads(out.read_text())
    assert len(written["cases"]) == 4
    assert written["claims"][0]["bound"] == 1.5
    for bad in (["--peers", "abacus"], ["--case", "none"], ["--seconds", "-1"], ["--json", str(tmp_path / "no" / "x")]):
        assert cli.main(["bench", "-q", *bad]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1

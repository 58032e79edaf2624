"""The verdicts on what the project claims of its speed; no time is asserted."""

from __future__ import annotations

import dataclasses
import json

from claims import claims, main

from fq_tvm.bench.cases import Case
from fq_tvm.bench.peers import PEERS, Peer
from fq_tvm.bench.result import Result


def result(case: Case, **seconds: float) -> Result:
    """A result without spread."""
    return Result(case, {name: [value] * 5 for name, value in seconds.items()})


def test_claims():
    big, small = Case((64, 2**20), 0, tags=("facts",)), Case((64, 2**10), 0)
    good = [
        result(big, fq_tvm=9.0, copy=8.0, torch=99.0, numba=9.0, openvino=18.0, default=9.9),
        result(small, fq_tvm=9.0, copy=8.0, torch=10.0),
    ]
    assert all(claim.holds for claim in claims(good))
    assert len(claims(good)) == 7
    times = {"fq_tvm": [8.0] * 5, "copy": [8.0] * 5, "torch": [90.0] * 5}
    times = {name: times.get(name, [9.0] * 5) for name in good[0].seconds}
    warm = dataclasses.replace(good[0], kept=times)  # faster by eleven in caches, and by nine from memory
    warm.seconds["torch"] = [81.0] * 5
    assert [c.holds for c in claims([warm]) if "torch" in c.text] == [True]
    times["torch"] = [79.0] * 5
    assert [c.holds for c in claims([warm]) if "torch" in c.text] == [False]
    bad = [result(big, fq_tvm=9.0, copy=4.0, torch=89.0, numba=8.9, openvino=9.0, **{"x86-64-v3": 20.0})]
    assert [claim.holds for claim in claims(bad)] == [False] * 6
    assert claims([]) == []


def test_a_peer_is_faster_beyond_the_spread():
    """In three rounds of four."""
    slower = Result(Case((16, 300), 0), {"fq_tvm": [1.0] * 8, "numba": [0.9] * 5 + [1.1] * 3})
    assert [c.holds for c in claims([slower]) if "numba" in c.text] == [True]
    slower.seconds["numba"] = [0.9] * 7 + [1.1]
    assert [c.holds for c in claims([slower]) if "numba" in c.text] == [False]


def test_script(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    out = tmp_path / "out.json"
    arguments = ["--case", "64x256@", "--peers", "numpy,default", "--seconds", "0.01", "--json", str(out), "-q"]
    monkeypatch.setitem(PEERS, "numpy", Peer("no_such_package", lambda inputs: None))
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for word in ("64x256@1:float32", "GB/s", "/ limit", "left out: numpy in 4 of 4 cases", "what must hold"):
        assert word in text
    written = json.loads(out.read_text())
    assert len(written["cases"]) == 4
    assert written["claims"][0]["bound"] == 1.5
    for bad in (["--peers", "abacus"], ["--case", "none"], ["--json", str(tmp_path / "no" / "x")]):
        assert main(["-q", *bad]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1

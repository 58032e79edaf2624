"""`fq-tvm bench`: what it prints and writes; no time is asserted."""

from __future__ import annotations

import json

from fq_tvm import cli
from fq_tvm.bench.peers import PEERS, Peer


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    out = tmp_path / "out.json"
    arguments = ["--case", "64x256@", "--peers", "numpy,default", "--seconds", "0.01", "--json", str(out), "-q"]
    monkeypatch.setitem(PEERS, "numpy", Peer("no_such_package", lambda inputs: None))
    assert cli.main(["bench", *arguments]) == 0
    text = capsys.readouterr().out
    for word in ("64x256@1:float32", "GB/s", "/ limit", "left out: numpy in 4 of 4 cases"):
        assert word in text
    assert "must hold" not in text
    written = json.loads(out.read_text())
    assert len(written["cases"]) == 4
    assert "claims" not in written
    for bad in (["--peers", "abacus"], ["--case", "none"], ["--seconds", "-1"], ["--json", str(tmp_path / "no" / "x")]):
        assert cli.main(["bench", "-q", *bad]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1

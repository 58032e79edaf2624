"""Other implementations: each runs, is checked before it is timed, or is named as absent."""

from __future__ import annotations

import importlib.util

import pytest

from fq_tvm import FqError
from fq_tvm.bench.cases import Case
from fq_tvm.bench.peers import PEERS, Peer
from fq_tvm.bench.result import measure

TINY = Case((16, 300), 0)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    "case", [Case((6, 300), 0), Case((3, 4, 5), 1, "float16", "channels_last")], ids=lambda c: c.name
)
def test_peers(peer, case):
    """Each that is installed runs; its result, where it has a mask, was compared before it was timed."""
    if peer == "inductor":
        pytest.skip("compiling takes too long for a test; `fq-tvm bench` checks it")
    package = PEERS[peer].package
    got = measure(case, [peer], seconds=0.001)
    if importlib.util.find_spec(package) is None:
        assert "not installed" in got.absent[peer]
    else:
        assert peer in got.seconds or "float16" in got.absent[peer]
    assert {"fq_tvm", "copy"} <= set(got.seconds)
    assert all(len(times) >= 5 for times in got.seconds.values())


def test_an_absent_peer_is_named(monkeypatch):
    monkeypatch.setitem(PEERS, "torch", Peer("no_such_package", lambda inputs: None))
    assert measure(TINY, ["torch"], 0.001).absent == {"torch": "no_such_package is not installed"}
    with pytest.raises(FqError, match="unknown peer abacus"):
        measure(TINY, ["abacus"])


def test_a_contender_cannot_pass_with_the_results_of_another(monkeypatch):
    monkeypatch.setitem(PEERS, "numpy", Peer("numpy", lambda inputs: lambda: None))
    with pytest.raises(FqError, match="numpy gives another out"):
        measure(TINY, ["numpy"], 0.001)


def test_a_wrong_contender_is_not_timed(monkeypatch):
    def wrong(inputs):
        out, mask = inputs.expected()
        return lambda: (out, ~mask)

    monkeypatch.setitem(PEERS, "numpy", Peer("numpy", wrong))
    with pytest.raises(FqError, match="numpy gives another mask"):
        measure(TINY, ["numpy"], 0.001)

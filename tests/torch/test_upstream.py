"""The comparison of torch's own tests with and without kernels: it runs, counts, and says what differs."""

from __future__ import annotations

import upstream

TESTS = """
import sys
import torch

def test_of_both():
    x = torch.full((64,), 0.3)
    assert torch.fake_quantize_per_tensor_affine(x, 1.0, 0, 0, 255).count_nonzero() == 0

def test_of_torch_alone():
    assert not sys.modules["fq_tvm.torch.override"]._depth, "a reason"
"""


def test_what_differs_is_named_and_fails(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(upstream, "WAYS", ("stock", "every size"))  # a process less
    folder = tmp_path / "test"
    folder.mkdir()
    (folder / "test_made_up.py").write_text(TESTS)
    assert upstream.main(["--checkout", str(tmp_path), "test/test_made_up.py"]) == 1
    out = capfd.readouterr().out
    assert "stock: {'passed': 2}; served by kernels: none" in out
    assert "every size: {'passed': 1, 'failed': 1}; served by kernels: 1 forward" in out
    lines = [line for line in out.splitlines() if " with stock, " in line]
    assert len(lines) == 1 and "test_of_torch_alone: passed with stock, failed with every size" in lines[0]
    assert "a reason" in lines[0]


def test_tests_that_end_alike_differ_in_nothing():
    outcomes = {way: {"a": ("passed", ""), "b": ("failed", "x")} for way in upstream.WAYS}
    assert upstream.differences(outcomes) == []
    outcomes["enabled"].pop("a")
    assert upstream.differences(outcomes) == ["a: passed with stock, not run with enabled: "]

"""The picture of a benchmark."""

from __future__ import annotations

import pytest

from fq_tvm.bench.cases import Case
from fq_tvm.bench.plot import memory_size, plot
from fq_tvm.bench.result import Result


def test_sizes_are_readable():
    sizes = {1: "1 B", 2**13: "8 KiB", 2**20: "1 MiB", 1.5 * 2**30: "1.5 GiB", 2**41: "2.05e+03 GiB", 0: "0 B"}
    assert {size: memory_size(size) for size in sizes} == sizes


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    cases = [Case((2**n, 300), a, d) for n in (4, 8) for a in (0, 1) for d in ("float32", "float16")]
    plot([Result(case, {"fq_tvm": [1e-5] * 5, "copy": [1e-5] * 5}) for case in cases], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"

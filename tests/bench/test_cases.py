"""The table of cases: what it covers, and that its tensors lie as it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import checked_arguments

from fq_tvm import FqError
from fq_tvm.bench.cases import CASES, Case, find_cases
from fq_tvm.launch.registry import prepare


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
    case = Case((4, 5, 6, 7), 1, "float16", memory)
    x, scale, zero_point = case.arrays()
    assert x.shape == case.shape
    assert x.dtype == case.dtype
    assert scale.shape == zero_point.shape == (5,)
    results = np.empty_like(x), np.empty_like(x, bool)
    launch = prepare(checked_arguments((x, scale, zero_point, *results), 1, -8, 7))
    assert launch.choice.layout.iteration == case.iteration
    assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_finding_cases():
    assert len(find_cases([])) == len(CASES)
    assert len(find_cases(["facts"])) == 8
    assert {c.dtype for c in find_cases(["4096x4096@1"])} == {"float32", "float16"}
    with pytest.raises(FqError, match="no case is called '9x9'"):
        find_cases(["facts", "9x9"])

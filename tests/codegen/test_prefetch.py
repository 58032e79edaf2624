"""Prefetching: in the code where it is asked for, and the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support import assert_same, run_at

from fq_tvm import FakeQuantSpec, get_kernel
from fq_tvm.codegen.prefetch import prefetch
from fq_tvm.launch.registry import current_target
from fq_tvm.schedule import default_schedule
from fq_tvm.spec import RangeSpec


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_bits_and_code(dtype):
    spec = FakeQuantSpec("rows", dtype, out_dtype=dtype)
    schedule = default_schedule(spec, current_target())
    ahead = dataclasses.replace(schedule, prefetch=256)
    assert "prefetch" not in get_kernel(spec, schedule=schedule).source("ll")
    assert get_kernel(spec, schedule=ahead).source("ll").count("call void @llvm.prefetch") > 10
    rng = np.random.default_rng(0)
    for shape, knobs in (((3, 5, 300), {}), ((2, 40001), {"parallel_from": 1}), ((2, 40001), {"stream_from": 1})):
        assert_same(*run_at(spec, shape, len(shape) - 2, rng, ahead, **{"parallel_from": 1} | knobs))


def test_beside_what_the_loops_ask_for_themselves():
    """LLVM takes a second declaration for an error."""
    own = get_kernel(RangeSpec("lanes", "float16")).source("ll")
    call, declaration = "call void @llvm.prefetch.p0(", "declare void @llvm.prefetch.p0("
    assert own.count(call) > 10 and own.count(declaration) == 1
    more = prefetch(own, 256)
    assert more.count(call) > own.count(call) and more.count(declaration) == 1
    assert prefetch(own, 0) == own

"""Short rows in whole vectors: the same bits for every length, wherever tensors begin, and in place."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from support import assert_same, run_at

from fq_tvm import FakeQuantSpec, catalogue
from fq_tvm.codegen.build import lower
from fq_tvm.codegen.vector_loops import PIECE
from fq_tvm.launch.registry import current_target
from fq_tvm.schedule import default_schedule

ROWS = [spec for spec in catalogue() if spec.iteration == "rows" and not spec.wide]
SERIAL, PARALLEL = {"parallel_from": 2**40}, {"parallel_from": 1}


def spec(dtype: str) -> FakeQuantSpec:
    """Rows whose result has the dtype of x."""
    return FakeQuantSpec("rows", dtype, "float32", dtype)


@pytest.mark.parametrize("knobs", [SERIAL, PARALLEL], ids=["serial", "parallel"])
@pytest.mark.parametrize("inner", [*range(32, 82), 127, 500])
def test_every_length_of_a_row(inner, knobs):
    rng = np.random.default_rng(inner)
    for dtype in ("float32", "float16"):
        assert_same(*run_at(spec(dtype), (2, 21, inner), 1, rng, **knobs))


@pytest.mark.parametrize("inner", range(1, 2 * PIECE + 1))
def test_a_row_that_may_be_shorter_than_a_vector(inner):
    assert_same(*run_at(FakeQuantSpec("rows"), (1, 1, inner), 1, np.random.default_rng(inner)))


@pytest.mark.parametrize("kernel", ROWS, ids=lambda s: s.name)
def test_every_kernel(kernel):
    for offsets in ((0, 0, 0), (4, 12, 1)):
        assert_same(*run_at(kernel, (3, 7, 47), 1, np.random.default_rng(1), offsets=offsets))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_in_place(dtype):
    """A vector that overlaps another would read what that wrote: the mask would be of the result."""
    assert_same(*run_at(spec(dtype), (3, 40, 47), 1, np.random.default_rng(2), in_place=True))


@pytest.mark.parametrize("stream_from", [2**40, 1])
def test_in_place_under_another_name(stream_from):
    """The tensors' data begin elsewhere, and their offsets bring them together."""

    def view(x: np.ndarray) -> tvm.runtime.Tensor:
        line = x.base[-x.base.ctypes.data % 64 :]
        start = x.ctypes.data - line.ctypes.data
        return tvm.runtime.from_dlpack(line)._create_view(x.shape, str(x.dtype), relative_byte_offset=start)

    where = {"in_place": True, "view": view, "stream_from": stream_from, **PARALLEL}
    assert_same(*run_at(FakeQuantSpec("rows"), (3, 40, 577), 1, np.random.default_rng(3), **where))


def test_only_short_rows_are_divided():
    kernel, target = FakeQuantSpec("rows"), current_target()
    module = lower(kernel, default_schedule(kernel), target)
    divided = {g.name_hint for g, function in module.functions.items() if "apart" in function.script()}
    assert divided == {"run_serial", "run_parallel"}

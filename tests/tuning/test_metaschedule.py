"""What MetaSchedule is given: the functions that ship, with their loops as they ship."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from support import assert_same, expected, make

from fq_tvm import FakeQuantSpec, FqError, Schedule
from fq_tvm.codegen.build import state
from fq_tvm.codegen.transforms import schedule_form
from fq_tvm.launch.registry import current_target
from fq_tvm.tuning.metaschedule import metaschedule_module, metaschedule_space

ROWS = FakeQuantSpec("rows")
HALF = {"dtype": "float16", "out_dtype": "float16"}
CASES = {
    "rows": (ROWS, (3, 32, 2048), "run", Schedule(tile=1024, rows=16)),
    "rows of float16": (FakeQuantSpec("rows", **HALF), (3, 32, 2048), "run", Schedule(tile=1024, rows=1)),
    "lanes": (FakeQuantSpec("lanes"), (12, 8192), "blocked", Schedule(tile=4096, rows=2)),
    "lanes of float16": (FakeQuantSpec("lanes", **HALF), (12, 8192), "blocked", Schedule(tile=4096, rows=4)),
}
"""Kernel, extents, which of its functions that is, and decisions to be made."""


def decided(spec, shape, knobs):
    """The schedule of the space in which MetaSchedule's decisions are the given knobs."""
    module, space = metaschedule_module(spec, shape), metaschedule_space(spec)
    for _ in range(200):
        [sch] = space.generate_design_space(module)
        chosen = [int(step.attrs[0][decision]) for step, decision in sch.trace.decisions.items()]
        if chosen == [knobs.tile, knobs.rows]:
            return sch
    raise AssertionError(f"no schedule with {knobs} in 200")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_loops_are_those_that_ship(case):
    """The function that ships, scheduled on symbolic extents, is the same when the extents are put in."""
    spec, shape, form, knobs = case
    ships = schedule_form(state(spec, knobs)[form][0], spec.iteration, knobs, parallel=True)
    extents = (shape[0] // knobs.rows, shape[1]) if spec.lanes else shape
    values = dict(zip(("blocks", "run") if spec.lanes else ("outer", "channels", "inner"), extents, strict=True))
    values.update(scale_stride=1, zero_point_stride=1, quant_min=-128.0, quant_max=127.0)
    scalars = [param for param in ships.params if param.name in values]
    ships = ships.specialize({p: tvm.tirx.const(values[p.name], p.ty.dtype) for p in scalars})
    modules = (tvm.IRModule({"main": func}) for func in (ships, decided(spec, shape, knobs).mod["main"]))
    ours, theirs = (tvm.tirx.transform.StmtSimplify()(module)["main"] for module in modules)
    assert tvm_ffi.structural_equal(ours, theirs)
    assert ours.script().count("T.parallel") == 1


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bits_are_those_of_the_reference(case):
    spec, shape, _, knobs = case
    rng = np.random.default_rng(0)
    x, scale, zero_point = make(rng, shape, 1, spec.dtype, spec.scale_dtype, (-128, 127))
    if spec.lanes:
        vectors = [np.float32(1) / scale, zero_point.astype(np.float32), scale]
    else:  # some channels whose zero points are not folded
        scale[:2], zero_point[2] = -scale[:2], 2**24 + 1
        vectors = [scale, zero_point]
    run = tvm.compile(decided(spec, shape, knobs).mod, target=tvm.target.Target(current_target().to_tvm()))["main"]
    # TVM's own calling convention promises 64-byte alignment, so the tensors are TVM's.
    out, mask = tvm.runtime.empty(shape, spec.out_dtype), tvm.runtime.empty(shape, "bool")
    run(*(tvm.runtime.tensor(np.ascontiguousarray(array)) for array in (x, *vectors)), out, mask)
    wanted = expected(x, scale, zero_point, 1, -128, 127, np.dtype(spec.out_dtype))
    assert_same((out.numpy(), mask.numpy()), wanted)


def test_modules_for_metaschedule():
    for spec, shape, tensors in ((ROWS, (2, 3, 512), 5), (FakeQuantSpec("lanes"), (64, 1024), 6)):
        module = metaschedule_module(spec, shape)
        assert len(module["main"].params) == tensors
    for spec, shape in (
        (ROWS, (3, 4)),
        (FakeQuantSpec("lanes"), (1, 1024)),
        (FakeQuantSpec("strided_rows"), (1, 2, 3)),
    ):
        with pytest.raises(FqError, match="expected narrow lanes of 2 extents or rows of 3"):
            metaschedule_module(spec, shape)
    with pytest.raises(FqError, match="narrow rows and lanes only"):
        metaschedule_space(FakeQuantSpec("strided_rows"))

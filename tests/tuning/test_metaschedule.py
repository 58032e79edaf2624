"""What MetaSchedule is given: the functions that ship, with their loops as they ship."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
import tvm
import tvm_ffi
from support import assert_same, expected, make
from tvm.s_tir import meta_schedule

from fq_tvm import FakeQuantSpec, FqError, Schedule
from fq_tvm.codegen.build import state
from fq_tvm.codegen.transforms import schedule_form
from fq_tvm.launch.registry import current_target
from fq_tvm.schedule import default_schedule
from fq_tvm.store import records
from fq_tvm.store.records import Record
from fq_tvm.tuning.metaschedule import from_database, metaschedule_module, metaschedule_space, to_database

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


def assert_bits(module, spec, shape):
    """A scheduled module gives the reference's bits."""
    rng = np.random.default_rng(0)
    x, scale, zero_point = make(rng, shape, 1, spec.dtype, spec.scale_dtype, (-128, 127))
    if spec.lanes:
        vectors = [np.float32(1) / scale, zero_point.astype(np.float32), scale]
    else:  # some channels whose zero points are not folded
        scale[:2], zero_point[2] = -scale[:2], 2**24 + 1
        vectors = [scale, zero_point]
    run = tvm.compile(module, target=tvm.target.Target(current_target().to_tvm()))["main"]
    # TVM's own calling convention promises 64-byte alignment, so the tensors are TVM's.
    out, mask = tvm.runtime.empty(shape, spec.out_dtype), tvm.runtime.empty(shape, "bool")
    run(*(tvm.runtime.tensor(np.ascontiguousarray(array)) for array in (x, *vectors)), out, mask)
    wanted = expected(x, scale, zero_point, 1, -128, 127, np.dtype(spec.out_dtype))
    assert_same((out.numpy(), mask.numpy()), wanted)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bits_are_those_of_the_reference(case):
    spec, shape, _, knobs = case
    assert_bits(decided(spec, shape, knobs).mod, spec, shape)


def database_in(folder):
    return meta_schedule.database.JSONDatabase(work_dir=str(folder))


def record_of(spec, schedule):
    return Record((("dtype", spec.dtype), ("iteration", spec.iteration)), "cache", schedule)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_records_go_into_a_database_and_come_back(case, tmp_path):
    """The fastest one, with the knobs that MetaSchedule knows nothing of; what is replayed gives the same bits."""
    spec, shape, _, knobs = case
    best = dataclasses.replace(knobs, parallel_from=32768, run=512, vector_bits=256)
    for schedule, seconds in ((dataclasses.replace(knobs, tile=2**18), 2e-3), (best, 1e-3)):
        to_database(database_in(tmp_path), spec, shape, record_of(spec, schedule), seconds)
    database = database_in(tmp_path)  # from its files
    assert len(database.get_all_tuning_records()) == 2
    record = from_database(database, spec, shape)
    assert record.schedule == best
    assert record.measured["seconds"] == pytest.approx(1e-3)
    assert record.is_for(spec) and record.size_class == records.size_class_of(spec, math.prod(shape))
    merged = records.merge(None, records.RecordFile(current_target().cpu, (record,)))
    records.write(tmp_path / "x.json", merged)
    assert records.read(tmp_path / "x.json").records == (record,)

    target = tvm.target.Target({**current_target().to_tvm(), "num-cores": 2})
    replayed = database.query_schedule(metaschedule_module(spec, shape), target, "main")
    plain = decided(spec, shape, knobs).mod
    assert_bits(replayed.mod, spec, shape)
    loops = [re.sub(r"\n *T.sblock_attr.*", "", module["main"].script()) for module in (replayed.mod, plain)]
    assert loops[0] == loops[1]


def test_what_metaschedule_decided_becomes_a_record(tmp_path):
    """Its traces have decisions and nothing of ours; a tile that is all of a row is the least that covers one."""
    database, target = database_in(tmp_path), tvm.target.Target({**current_target().to_tvm(), "num-cores": 2})
    shape = (3, 32, 2048)
    workload = database.commit_workload(metaschedule_module(ROWS, shape))
    for tile, seconds, cpu in ((1024, 3e-3, target), (2048, 2e-3, target), (1024, 1e-3, tvm.target.Target("llvm"))):
        trace = decided(ROWS, shape, Schedule(tile=tile, rows=16)).trace
        database.commit_tuning_record(meta_schedule.database.TuningRecord(trace, workload, [seconds], cpu, None))
    record = from_database(database, ROWS, shape)
    assert record.schedule == dataclasses.replace(default_schedule(ROWS), tile=4096, rows=16)
    assert record.measured == {"seconds": 2e-3, "shape": [3, 32, 2048]}
    assert from_database(database, ROWS, (3, 32, 4096)) is None
    (tmp_path / "other").mkdir()
    assert from_database(database_in(tmp_path / "other"), ROWS, shape) is None


def test_what_a_database_cannot_take(tmp_path):
    database = database_in(tmp_path)
    with pytest.raises(FqError, match=r"tile 1024 on a loop of 1536; a database can take 1536"):
        to_database(database, ROWS, (3, 32, 1536), record_of(ROWS, Schedule(tile=1024, rows=16)), 1e-3)
    with pytest.raises(FqError, match=r"rows 64 on a loop of 6; a database can take 1"):
        to_database(database, ROWS, (3, 6, 2048), record_of(ROWS, Schedule(tile=1024, rows=64)), 1e-3)
    with pytest.raises(FqError, match="one that applies to"):
        to_database(database, ROWS, (3, 32, 2048), record_of(FakeQuantSpec("lanes"), Schedule()), 1e-3)
    assert not database.get_all_tuning_records()


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

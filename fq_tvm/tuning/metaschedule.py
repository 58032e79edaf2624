"""The functions that ship, for people who experiment with :mod:`tvm.s_tir.meta_schedule`: modules and their space.

Knows which function of a kernel stands for it there, and which knobs are decisions; what it computes is stated, and its
loops are scheduled, where shipped kernels are.  The library's own tuner does not use it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..environment import num_threads
from ..errors import FqError
from ..launch.registry import current_target
from ..schedule import Schedule, default_schedule
from ..spec import FakeQuantSpec, quant_range_scalars
from ..store import records
from ..store.records import Record
from .space import space

if TYPE_CHECKING:
    import tvm

ANNOTATION = "fq_tvm.schedule"
"""Of the block of a schedule that was a record of ours: all its knobs."""


def metaschedule_module(spec: FakeQuantSpec, shape: Sequence[int]) -> tvm.IRModule:
    """State a kernel on fixed extents, as MetaSchedule wants it: every argument a tensor, nothing scheduled.

    Parameters
    ----------
    spec : FakeQuantSpec
        A kernel of class *rows* or *lanes*.
    shape : sequence of int
        (outer, channels, inner) for rows; (runs, run) for lanes, two runs at least.

    Returns
    -------
    tvm.IRModule
        With the function ``main``, which is one of :func:`fq_tvm.codegen.build.state` with all integers and the range
        of int8 put in.  Rows: ``"run"``, of x, scale, zero_point, out and mask.  Lanes: ``"blocked"``, of x, the
        reciprocal of scale, the zero point and scale (float32, expanded to a run), out and mask; of kernels that fold,
        the form for channels that may (:func:`fq_tvm.codegen.expression.may_fold`).

    Raises
    ------
    FqError
        If the class is another, or the number of extents.
    """
    if spec.strided or spec.wide or len(shape) != (2 if spec.lanes else 3) or (spec.lanes and shape[0] < 2):
        raise FqError(f"{spec.name} on {tuple(shape)}: expected narrow lanes of 2 extents or rows of 3; 2 runs or more")
    import tvm

    from ..codegen.build import state

    if spec.lanes:
        # As one block of all runs: the extents are the same whatever number of runs a schedule takes at a time.
        stated = state(spec, Schedule(rows=shape[0]))["blocked"][0].func
        values: dict[str, float] = {"blocks": 1, "run": shape[1]}
    else:
        stated = state(spec, default_schedule(spec))["run"][0].func
        values = dict(zip(("outer", "channels", "inner"), shape, strict=True), scale_stride=1, zero_point_stride=1)
    values.update(zip(("quant_min", "quant_max"), quant_range_scalars(-128, 127), strict=True))
    scalars = [param for param in stated.params if param.name in values]
    return tvm.IRModule({"main": stated.specialize({p: tvm.tirx.const(values[p.name], p.ty.dtype) for p in scalars})})


def metaschedule_space(spec: FakeQuantSpec) -> Any:
    """Hand the space of schedules to :mod:`tvm.s_tir.meta_schedule`.

    Parameters
    ----------
    spec : FakeQuantSpec
        A kernel of class *rows* or *lanes*.

    Returns
    -------
    ScheduleFn
        Of modules that :func:`metaschedule_module` makes.  Its decisions are the knobs tile and rows of
        :func:`fq_tvm.tuning.space.space`, less those that do not divide an extent; the width of vectors belongs to
        the target, and every tensor is spread over threads.

    Raises
    ------
    FqError
        If the class is another.
    """
    if spec.strided or spec.wide:
        raise FqError(f"{spec.name}: MetaSchedule's space is there for narrow rows and lanes only")
    from tvm.s_tir import meta_schedule

    def schedule(sch: Any) -> None:
        _decide(sch, spec)

    return meta_schedule.space_generator.ScheduleFn(schedule, sch_rules=[], postprocs=[], mutator_probs={})


def _decide(sch: Any, spec: FakeQuantSpec, given: Schedule | None = None) -> None:
    """Schedule the loops of a module, by decisions that are sampled, or those of a schedule that is given."""
    from ..codegen.transforms import inline_parameters, schedule_loops

    def choose(name: str, loop: Any) -> Any:
        extent = int(sch.get(loop).extent)
        allowed = _allowed(spec, name, extent)
        decision = None
        if given is not None:
            value = getattr(given, name)
            if min(value, extent) not in allowed:
                raise FqError(f"{name} {value} on a loop of {extent}; a database can take {_texts(allowed)}")
            decision = allowed.index(min(value, extent))
        return sch.sample_categorical(allowed, [1 / len(allowed)] * len(allowed), decision)

    block = sch.get_sblock("fake_quant_v0")
    *_, last, inner = sch.get_loops(block)
    tile, rows = choose("tile", inner), choose("rows", last)
    if given is not None:
        sch.annotate(block, ANNOTATION, json.dumps(given.to_json()))
    inline_parameters(sch)
    form = "blocked" if spec.lanes else "run"
    sch.parallel(sch.fuse(*schedule_loops(sch, "fake_quant", spec.iteration, form, (tile, rows))))


def _allowed(spec: FakeQuantSpec, name: str, extent: int) -> list[int]:
    """Candidates of a knob on a loop: a tile that leaves a rest leaves a condition, and no vectors of LLVM's."""
    candidates = sorted({getattr(schedule, name) for schedule in space(spec)})
    allowed = [n for n in candidates if extent % n == 0]
    if not allowed or (name == "tile" and extent < candidates[-1] and extent not in allowed):
        allowed.append(extent)  # all of the loop, which is what a longer tile is
    return allowed


def _texts(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def to_database(database: Any, spec: FakeQuantSpec, shape: Sequence[int], record: Record, seconds: float) -> None:
    """Add a record of ours to a database of MetaSchedule, for a module that :func:`metaschedule_module` makes.

    What is replayed from there is the schedule on that module: its tile and its rows.  The record's other knobs, which
    only a launch or the target reads, go along as an annotation.

    Parameters
    ----------
    database : tvm.s_tir.meta_schedule.database.Database
        A ``JSONDatabase``, say.
    spec, shape
        As for :func:`metaschedule_module`.
    record : Record
        Its schedule is taken.
    seconds : float
        How long the kernel took, by which a database ranks.

    Raises
    ------
    FqError
        If the record is for other kernels, or its tile or its rows leave a rest on this shape.
    """
    if not record.is_for(spec):
        raise FqError(f"the record is for {dict(record.match)}; expected one that applies to {spec.name}")
    import tvm
    from tvm.s_tir import meta_schedule

    module = metaschedule_module(spec, shape)
    sch = tvm.s_tir.Schedule(module)
    _decide(sch, spec, record.schedule)
    target = tvm.target.Target({**current_target().to_tvm(), "num-cores": num_threads()})
    arguments = meta_schedule.arg_info.ArgInfo.from_prim_func(module["main"])
    workload = database.commit_workload(module)
    database.commit_tuning_record(
        meta_schedule.database.TuningRecord(sch.trace, workload, [float(seconds)], target, arguments)
    )


def from_database(database: Any, spec: FakeQuantSpec, shape: Sequence[int]) -> Record | None:
    """Make a record of the fastest schedule that a database of MetaSchedule has for this CPU.

    Parameters
    ----------
    database, spec, shape
        As for :func:`to_database`.

    Returns
    -------
    Record or None
        For kernels of this specification on tensors of the size class of that shape, to be merged into a file by
        :func:`fq_tvm.store.records.merge`.  A tile that is all of a loop comes back as the least candidate that is.
        None if there is no record of the module for the CPU that code is generated for.

    Raises
    ------
    FqError
        As :func:`metaschedule_module`, or if a record's decisions are others than :func:`metaschedule_space` makes.
    """
    module, cpu = metaschedule_module(spec, shape), current_target().cpu
    if not database.has_workload(module):
        return None
    found = [
        record
        for record in database.get_top_k(database.commit_workload(module), 2**20)
        if record.target is not None and record.target.attrs.get("mcpu") == cpu
    ]
    if not found:
        return None
    size_class = records.size_class_of(spec, math.prod(shape))
    measured = {"seconds": min(map(float, found[0].run_secs)), "shape": list(shape)}
    match = tuple(sorted(spec.to_json().items()))
    return Record(match, size_class, _knobs(found[0].trace, spec), measured, spec.operator)


def _knobs(trace: Any, spec: FakeQuantSpec) -> Schedule:
    """Read the schedule of a trace: as it is annotated, or by its decisions."""
    chosen = []
    for step in trace.insts:
        if step.kind.name == "Annotate" and step.attrs[0] == ANNOTATION:
            return Schedule.from_json(json.loads(step.inputs[1]))
        if step in trace.decisions:
            chosen.append(int(step.attrs[0][int(trace.decisions[step])]))
    if len(chosen) != 2:
        raise FqError(f"a record of the database has {len(chosen)} decisions; expected a tile and a number of rows")
    tile = min((n for n in sorted({s.tile for s in space(spec)}) if n >= chosen[0]), default=chosen[0])
    return replace(default_schedule(spec), tile=tile, rows=chosen[1])

"""The functions that ship, for people who experiment with :mod:`tvm.s_tir.meta_schedule`: modules and their space.

Knows which function of a kernel stands for it there, and which knobs are decisions; what it computes is stated, and its
loops are scheduled, where shipped kernels are.  The library's own tuner does not use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import FqError
from ..schedule import Schedule, default_schedule
from ..spec import FakeQuantSpec, quant_range_scalars
from .space import space

if TYPE_CHECKING:
    import tvm


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

    from ..codegen.transforms import inline_parameters, schedule_loops

    knobs = {name: sorted({getattr(s, name) for s in space(spec)}) for name in ("tile", "rows")}

    def choose(sch: Any, name: str, loop: Any) -> Any:
        # A tile that leaves a rest leaves a condition in the loop, which keeps LLVM from vectorizing it.
        extent = int(sch.get(loop).extent)
        allowed = [n for n in knobs[name] if extent % n == 0] or [extent]
        return sch.sample_categorical(allowed, [1 / len(allowed)] * len(allowed))

    def schedule(sch: Any) -> None:
        *_, last, inner = sch.get_loops(sch.get_sblock("fake_quant_v0"))
        tile, rows = choose(sch, "tile", inner), choose(sch, "rows", last)
        inline_parameters(sch)
        form = "blocked" if spec.lanes else "run"
        sch.parallel(sch.fuse(*schedule_loops(sch, "fake_quant", spec.iteration, form, (tile, rows))))

    return meta_schedule.space_generator.ScheduleFn(schedule, sch_rules=[], postprocs=[], mutator_probs={})

"""What ships, for people who experiment with :mod:`tvm.s_tir.meta_schedule`: modules and their space of schedules.

The library's own tuner does not use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import FqError
from ..spec import FakeQuantSpec
from .space import space

if TYPE_CHECKING:
    import tvm

__all__ = ["metaschedule_module", "metaschedule_space"]


def metaschedule_module(spec: FakeQuantSpec, shape: Sequence[int]) -> tvm.IRModule:
    """State a kernel on fixed extents, as MetaSchedule wants it: every argument a tensor, nothing scheduled.

    Parameters
    ----------
    spec : FakeQuantSpec
        A kernel of class *rows* or *lanes*.
    shape : sequence of int
        (outer, channels, inner) for rows, (runs, run) for lanes.

    Returns
    -------
    tvm.IRModule
        With the function ``main`` of x, the channels' parameters, out and mask; the range is that of int8.  Zero points
        are not taken off the range, as kernels of rows do it, so their times are not to be compared with these.

    Raises
    ------
    FqError
        If the class is another, or the number of extents.
    """
    if spec.strided or spec.wide or len(shape) != (2 if spec.lanes else 3):
        raise FqError(f"{spec.name} on {tuple(shape)}: expected narrow lanes of 2 extents or rows of 3")
    import tvm
    from tvm import te

    from ..codegen.expression import ChannelParameters, QuantRange, quantize_dequantize

    axis = len(shape) - 1 if spec.lanes else 1
    x = te.placeholder(tuple(shape), spec.dtype, "x")
    names = ("inverse_scale", "zero_point", "scale")
    inverse, zero, scale = (te.placeholder((shape[axis],), "float32", name) for name in names)
    parameters = ChannelParameters(inverse, zero, scale, spec.float_zero_point)
    limits = QuantRange(*(tvm.tirx.const(float(v), "float32") for v in (-128, 127)))
    results = quantize_dequantize(x, parameters, axis, limits, spec.promoted_dtype, spec.out_dtype, "fake_quant")
    return tvm.IRModule({"main": te.create_prim_func([x, *parameters, *results], "int64")})


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

    knobs = {name: sorted({getattr(s, name) for s in space(spec)}) for name in ("tile", "rows")}

    def choose(sch: Any, name: str, extent: int) -> Any:
        # A tile that leaves a rest leaves a condition in the loop, which keeps LLVM from vectorizing it.
        allowed = [n for n in knobs[name] if extent % n == 0] or [extent]
        return sch.sample_categorical(allowed, [1 / len(allowed)] * len(allowed))

    def schedule(sch: Any) -> None:
        *outer, last, inner = sch.get_loops(sch.get_sblock("fake_quant_v0"))
        tiles, within = sch.split(inner, [None, choose(sch, "tile", int(sch.get(inner).extent))])
        blocks, rows = sch.split(last, [None, choose(sch, "rows", int(sch.get(last).extent))])
        sch.reorder(*outer, blocks, tiles, *([within, rows] if spec.lanes else [rows, within]))
        if spec.lanes:
            sch.unroll(rows)
        sch.parallel(sch.fuse(*outer, blocks, tiles))

    return meta_schedule.space_generator.ScheduleFn(schedule, sch_rules=[], postprocs=[], mutator_probs={})

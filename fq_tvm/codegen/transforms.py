"""How a schedule is applied to what was stated: loops are split, ordered, and spread over threads.

Knows the classes of loops and no operator.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import s_tir, tirx

from ..schedule import Schedule
from .statement import Statement


def schedule_form(statement: Statement, iteration: str, schedule: Schedule, parallel: bool) -> tirx.PrimFunc:
    """Schedule a form of a kernel.

    Parameters
    ----------
    statement : Statement
        What it computes.
    iteration : str
        The kernel's class.
    schedule : Schedule
        The knobs.
    parallel : bool
        Whether tasks are spread over threads.

    Returns
    -------
    tirx.PrimFunc
        Loop extents are exact: no iteration is guarded by a condition.
    """
    if not statement.stage:
        return _spread(statement.func) if parallel else statement.func
    sch = s_tir.Schedule(statement.func)
    inline_parameters(sch)
    tasks = schedule_loops(sch, statement.stage, iteration, statement.form.name, (schedule.tile, schedule.rows))
    if parallel:  # only there: taking one index of the task apart again costs a division for each loop
        sch.parallel(sch.fuse(*tasks))
    return tighten(sch.mod["main"])


def _spread(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Spread the tasks over threads."""

    def spread(loop: tirx.For) -> tirx.For:
        if loop.loop_var.name != "task":
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.PARALLEL, loop.body)

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, spread), order="post"))


def schedule_loops(sch: s_tir.Schedule, stage: str, iteration: str, form: str, knobs: tuple[Any, Any]) -> list[Any]:
    """Split and order the loops of a stage.

    The inner loop is split into tiles; the first outer loop, the channel where that is outside, and the tiles are
    independent tasks.  The loop inside a tile stays serial: LLVM's vectorizer makes a main loop, an epilogue and
    unaligned moves of it for any extent, which an explicit ``vectorize`` does not.

    Parameters
    ----------
    sch : tvm.s_tir.Schedule
        Of a function with the stage; changed in place.
    stage : str
        Its name.
    iteration : str
        The kernel's class.
    form : str
        Of the kernel.  The runs that ``"blocked"`` takes at a time become the innermost loop, unrolled, so that
        parameters are read once for all of them.
    knobs : tuple
        The schedule's tile and rows, integers or what the schedule samples.

    Returns
    -------
    list of loops
        The tasks, outermost first, to be fused where threads share them.
    """
    tile, rows = knobs
    names = (stage, f"{stage}_v0")  # of one result, or of the first of several
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    *outer, inner = sch.get_loops(next(block for block in blocks if sch.get(block).name_hint in names))
    tiles, within = sch.split(inner, [None, tile])
    middle: list[Any] = []
    if iteration == "strided_rows":
        first, *middle, channel = outer
        tasks = [first, channel, tiles]
    elif iteration == "strided_lanes":
        first, *middle = outer
        tasks = [first, tiles]
    elif iteration == "rows":
        # Several short rows to a task: taking a task's number apart costs more than a row of some dozen elements.
        first, channel = outer
        channels, channel = sch.split(channel, [None, rows])
        tasks, middle = [first, channels, tiles], [channel]
    elif form == "blocked":
        several, together = sch.split(outer[0], [None, rows])
        tasks = [several, tiles]
        sch.reorder(several, tiles, within, together)
        sch.unroll(together)
    else:
        tasks = [*outer, tiles]
    sch.reorder(*tasks, *middle, within)
    return tasks


def schedule_expansion(statement: Statement, innermost: str) -> tirx.PrimFunc:
    """Schedule the expansion of the parameters.

    Parameters
    ----------
    statement : Statement
        With the stage ``expand`` and perhaps others, which are left as they are.
    innermost : {"channels", "inner"}
        Which loop is vectorized: the channels, whose division then is, too, or the repetition of one channel, which
        has to be long to be worth its start.

    Returns
    -------
    tirx.PrimFunc
    """
    sch = s_tir.Schedule(statement.func)
    inline_parameters(sch)
    if innermost == "channels":
        _, channel, inner = sch.get_loops(sch.get_sblock(f"{statement.stage}_v0"))
        sch.reorder(inner, channel)
    return sch.mod["main"]


def inline_parameters(sch: s_tir.Schedule, *kept: str) -> None:
    """Inline the stages that others read, each too cheap to be stored, but for those that are to be kept.

    Parameters
    ----------
    sch : tvm.s_tir.Schedule
        Changed in place.
    *kept : str
        Beginnings of the names of stages to be left as they are.
    """
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        if sch.get_consumers(block) and not sch.get(block).name_hint.startswith(kept or "\0"):
            sch.compute_inline(block)


def tighten(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Turn ``for i in tile: if base + i < n`` into ``for i in min(tile, n - base)``, for the loops of every split.

    A condition in the loop keeps LLVM from vectorizing it, and TVM's own loop partitioning does not reach loops whose
    outer half was fused.
    """
    guards: list[Any] = []

    def conjuncts(predicate: Any) -> list[Any]:
        if isinstance(predicate, tirx.And):
            return conjuncts(predicate.a) + conjuncts(predicate.b)
        return [predicate] if isinstance(predicate, tirx.LT) else []

    def unguard(block: s_tir.SBlockRealize) -> s_tir.SBlockRealize:
        guards.extend(conjuncts(block.predicate))
        return s_tir.SBlockRealize(block.iter_values, True, block.block)

    def shorten(loop: tirx.For) -> tirx.For:
        extent, zero = loop.extent, tirx.const(0, loop.loop_var.ty.dtype)
        for guard in list(guards):  # inner loops come first, and a guard is its innermost loop's
            if any(loop.loop_var.same_as(v) for v in tirx.analysis.undefined_vars(guard.a, [])):
                guards.remove(guard)
                base = tvm_ffi.structural_map(guard.a, (tirx.Var, lambda v: zero if v.same_as(loop.loop_var) else v))
                bound = tirx.min(loop.extent, guard.b - base)
                if not tvm_ffi.structural_equal(bound, extent):  # both outputs have the same guard
                    assert extent.same_as(loop.extent), f"two bounds of one loop: {extent} and {bound}"
                    extent = bound
        return tirx.For(loop.loop_var, loop.min, extent, loop.kind, loop.body, annotations=loop.annotations)

    body = tvm_ffi.structural_map(func.body, [(s_tir.SBlockRealize, unguard), (tirx.For, shorten)], order="post")
    assert not guards, f"guards that belong to no loop: {guards}"
    return func.with_body(body)

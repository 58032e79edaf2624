"""The knobs of a schedule, the default choice, and how they are applied.

A schedule never changes a result, only the time it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from .errors import FqError
from .spec import FakeQuantSpec

if TYPE_CHECKING:
    from tvm import s_tir, tirx

__all__ = ["Schedule", "apply", "apply_expand", "default_schedule"]


@dataclass(frozen=True)
class Schedule:
    """How a kernel of :class:`~fq_tvm.spec.FakeQuantSpec` runs.

    Parameters
    ----------
    tile : int
        Elements of the innermost loop in one task, the unit that is spread over threads.
    run : int
        Lanes only: the least length, in elements, of the run of virtual channels that whole outer rows are joined to.
    parallel_from : int
        Tensors of fewer elements run in the calling thread, where starting threads costs more than it saves.
    """

    tile: int = 16384
    run: int = 1024
    parallel_from: int = 65536

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise FqError(f"Schedule.{field.name} is {value!r}; expected a positive integer")

    def to_json(self) -> dict[str, int]:
        """Return the knobs as a dictionary that :func:`json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Schedule:
        """Make a schedule of what :meth:`to_json` returned.

        Raises
        ------
        FqError
            If a knob is unknown or has a value that is no positive integer.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise FqError(f"unknown knob of Schedule: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**value)


def default_schedule(spec: FakeQuantSpec, target: object = None) -> Schedule:
    """Choose a good schedule for a kernel that nobody tuned.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.
    target : Target, optional
        The CPU; the default does not depend on it yet.

    Returns
    -------
    Schedule
    """
    del target
    # Strided tasks keep whole inner loops together where they can: their cost is cache lines, not elements.
    return Schedule(tile=65536) if spec.strided else Schedule()


def apply(func: tirx.PrimFunc, spec: FakeQuantSpec, schedule: Schedule, parallel: bool) -> tirx.PrimFunc:
    """Schedule the function that :func:`fq_tvm.build.state` made.

    The inner loop is split into tiles; the first outer loop, the channel where that is outside, and the tiles become
    one loop of independent tasks.  The loop inside a tile stays serial: LLVM's vectoriser makes a main loop, an
    epilogue and unaligned moves of it for any extent, which an explicit ``vectorize`` does not.

    Parameters
    ----------
    func : tirx.PrimFunc
        Unscheduled, with the stage ``fake_quant`` and, for lanes, the expanded parameters.
    spec : FakeQuantSpec
        The kernel.
    schedule : Schedule
        The knobs.
    parallel : bool
        Whether tasks are spread over threads.

    Returns
    -------
    tirx.PrimFunc
        Loop extents are exact: no iteration is guarded by a condition.
    """
    from tvm import s_tir

    sch = s_tir.Schedule(func)
    if not spec.lanes:
        _inline_parameters(sch, spec)
    *outer, inner = sch.get_loops(sch.get_sblock("fake_quant_v0"))
    tiles, within = sch.split(inner, [None, schedule.tile])
    if spec.iteration == "strided_rows":
        first, *middle, channel = outer
        tasks, middle = [first, channel, tiles], middle
    elif spec.iteration == "strided_lanes":
        first, *middle = outer
        tasks = [first, tiles]
    else:
        tasks, middle = [*outer, tiles], []
    sch.reorder(*tasks, *middle, within)
    task = sch.fuse(*tasks)
    if parallel:
        sch.parallel(task)
    return _tighten(sch.mod["main"])


def apply_expand(func: tirx.PrimFunc, spec: FakeQuantSpec) -> tirx.PrimFunc:
    """Schedule the expansion of the parameters: channels innermost, so that the division is vectorised."""
    from tvm import s_tir

    sch = s_tir.Schedule(func)
    _inline_parameters(sch, spec)
    _, channel, inner = sch.get_loops(sch.get_sblock("expand_v0"))
    sch.reorder(inner, channel)
    return sch.mod["main"]


def _inline_parameters(sch: s_tir.Schedule, spec: FakeQuantSpec) -> None:
    """Inline the stages of channel_parameters, each too cheap to be stored by itself."""
    for stage in ("scale_f32", "inverse_scale", *([] if spec.wide else ["zero_point_f32"])):
        sch.compute_inline(sch.get_sblock(stage))


def _tighten(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Turn ``for i in tile: if base + i < n`` into ``for i in min(tile, n - base)``.

    A condition in the loop keeps LLVM from vectorising it, and TVM's own loop partitioning does not reach loops whose
    outer half was fused.
    """
    import tvm_ffi
    from tvm import s_tir, tirx

    def visit(loop: tirx.For) -> tirx.For:
        blocks = list(loop.body.seq) if isinstance(loop.body, tirx.SeqStmt) else [loop.body]
        if not all(isinstance(b, s_tir.SBlockRealize) and isinstance(b.predicate, tirx.LT) for b in blocks):
            return loop
        guard = blocks[0].predicate
        zero = tirx.const(0, loop.loop_var.ty.dtype)
        base = tvm_ffi.structural_map(guard.a, (tirx.Var, lambda v: zero if v.same_as(loop.loop_var) else v))
        extent = tirx.min(loop.extent, guard.b - base)
        exact = [s_tir.SBlockRealize(b.iter_values, True, b.block) for b in blocks]
        body = exact[0] if len(exact) == 1 else tirx.SeqStmt(exact)
        return tirx.For(loop.loop_var, loop.min, extent, loop.kind, body, annotations=loop.annotations)

    body = tvm_ffi.structural_map(func.body, (tirx.For, visit), order="post")
    return func.with_body(body)

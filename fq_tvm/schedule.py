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

    from .target import Target

__all__ = [
    "RUN_VECTORS",
    "VECTOR_BITS",
    "Schedule",
    "apply",
    "apply_expand",
    "default_schedule",
    "folds",
    "inline_parameters",
    "schedule_loops",
    "streams",
    "tighten",
]

VECTOR_BITS = (0, 256, 512)

RUN_VECTORS = 3
"""How many vectors of a run expanding leaves in the workspace, of 4 bytes an element: the reciprocal of scale, the zero
point and scale.  Of kernels that fold an int32 follows, which says whether every channel may fold."""


@dataclass(frozen=True)
class Schedule:
    """How a kernel of :class:`~fq_tvm.spec.FakeQuantSpec` runs.

    Parameters
    ----------
    tile : int
        Elements of the innermost loop in one task, the unit that is spread over threads.
    rows : int
        Contiguous classes only.  Rows: how many channels' rows make one task, where a row is not one by itself.  Lanes:
        how many runs are taken at a time where a run is too long for its parameters to stay in the first-level cache;
        1 for never.
    run : int
        Lanes only: the least length, in elements, of the run of virtual channels that whole outer rows are joined to.
    parallel_from : int
        Tensors of fewer elements run in the calling thread, where starting threads costs more than it saves.
    stream_from : int
        Contiguous classes only.  Tensors of which at least so many bytes move (self, out and mask) are written past the
        caches, which could not hold the results.
    vector_bits : {0, 256, 512}
        Width of the vectors on a CPU with AVX-512; 0 leaves it to LLVM, which decides by the CPU's name.  Other CPUs
        have no choice and ignore it.
    """

    tile: int = 16384
    rows: int = 4
    run: int = 1024
    parallel_from: int = 65536
    stream_from: int = 2**26
    vector_bits: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < (field.name != "vector_bits"):
                raise FqError(f"Schedule.{field.name} is {value!r}; expected a positive integer")
        if self.vector_bits not in VECTOR_BITS:
            raise FqError(f"Schedule.vector_bits is {self.vector_bits!r}; expected one of {VECTOR_BITS}")

    def to_json(self) -> dict[str, int]:
        """Return the knobs as a dictionary that :func:`json.dumps` takes."""
        return asdict(self)

    @property
    def compiled(self) -> dict[str, int]:
        """The knobs that generated code depends on; the others choose among its functions when it is launched."""
        return {name: value for name, value in asdict(self).items() if name not in ("parallel_from", "stream_from")}

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
    if spec.strided:
        return Schedule(tile=65536)
    return Schedule(rows=16) if spec.iteration == "rows" else Schedule()


def folds(spec: FakeQuantSpec) -> bool:
    """Whether a kernel takes zero points off the range, see :func:`fq_tvm.codegen.expression.fold`.

    Those of the contiguous classes whose arithmetic allows it, where arithmetic limits them: rows, and lanes that
    convert values.  For lanes of float32 a second form of the code would buy nothing.
    """
    contiguous = spec.iteration == "rows" or (spec.iteration == "lanes" and spec.element_bytes < 9)
    return contiguous and not spec.wide and not spec.float_zero_point


def streams(spec: FakeQuantSpec, target: Target) -> bool:
    """Whether a kernel has functions that write past the caches: those that memory limits, on x86."""
    return not spec.strided and not spec.wide and "sse2" in target.features


def apply(
    func: tirx.PrimFunc, spec: FakeQuantSpec, schedule: Schedule, parallel: bool, name: str = "fake_quant"
) -> tirx.PrimFunc:
    """Schedule the function that :func:`fq_tvm.codegen.build.state` made.

    The inner loop is split into tiles; the first outer loop, the channel where that is outside, and the tiles are
    independent tasks, one loop of them where threads share it.  The loop inside a tile stays serial: LLVM's vectorizer
    makes a main loop, an epilogue and unaligned moves of it for any extent, which an explicit ``vectorize`` does not.

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
    name : {"fake_quant", "blocked", "direct"}
        Which of the kernel's functions this is.  The runs that ``"blocked"`` takes at a time become the innermost
        loop, unrolled, so that parameters are read once for all of them.

    Returns
    -------
    tirx.PrimFunc
        Loop extents are exact: no iteration is guarded by a condition.
    """
    from tvm import s_tir

    sch = s_tir.Schedule(func)
    schedule_loops(sch, spec, schedule.tile, schedule.rows, parallel, name)
    return tighten(sch.mod["main"])


def schedule_loops(
    sch: s_tir.Schedule, spec: FakeQuantSpec, tile: Any, rows: Any, parallel: bool, name: str = "fake_quant"
) -> None:
    """Take the steps of :func:`apply`, but for the last one, on a schedule whose knobs may be a search's decisions.

    Parameters
    ----------
    sch : tvm.s_tir.Schedule
        Of a function as :func:`apply` takes it.  Where a factor does not divide an extent, iterations are guarded by a
        condition, which :func:`tighten` takes away.
    spec : FakeQuantSpec
        The kernel.
    tile, rows : int or ExprRV
        The knobs of the same names.
    parallel, name
        As for :func:`apply`.
    """
    inline_parameters(sch)
    *outer, inner = sch.get_loops(sch.get_sblock("fake_quant_v0"))
    tiles, within = sch.split(inner, [None, tile])
    if spec.iteration == "strided_rows":
        first, *middle, channel = outer
        tasks, middle = [first, channel, tiles], middle
    elif spec.iteration == "strided_lanes":
        first, *middle = outer
        tasks = [first, tiles]
    elif spec.iteration == "rows":
        # Several short rows to a task: taking a task's number apart costs more than a row of some dozen elements.
        first, channel = outer
        channels, channel = sch.split(channel, [None, rows])
        tasks, middle = [first, channels, tiles], [channel]
    elif name == "blocked":
        block, each = sch.split(outer[0], [None, rows])
        tasks, middle = [block, tiles], []
        sch.reorder(block, tiles, within, each)
        sch.unroll(each)
    else:
        tasks, middle = [*outer, tiles], []
    sch.reorder(*tasks, *middle, within)
    if parallel:  # only there: taking one index of the task apart again costs a division for each loop
        sch.parallel(sch.fuse(*tasks))


def apply_expand(func: tirx.PrimFunc, innermost: str) -> tirx.PrimFunc:
    """Schedule the expansion of the parameters.

    Parameters
    ----------
    func : tirx.PrimFunc
        Unscheduled, with the stage ``expand`` and perhaps ``foldable``, which is left as it is.
    innermost : {"channels", "inner"}
        Which loop is vectorized: the channels, whose division then is, too, or the repetition of one channel, which
        has to be long to be worth its start.

    Returns
    -------
    tirx.PrimFunc
    """
    from tvm import s_tir

    sch = s_tir.Schedule(func)
    inline_parameters(sch)
    if innermost == "channels":
        _, channel, inner = sch.get_loops(sch.get_sblock("expand_v0"))
        sch.reorder(inner, channel)
    return sch.mod["main"]


def inline_parameters(sch: s_tir.Schedule) -> None:
    """Inline the stages before the operator itself that are there, each too cheap to be stored."""
    there = {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}
    for stage in ("scale_f32", "inverse_scale", "zero_point_f32", "folded_low", "folded_high"):
        if stage in there:
            sch.compute_inline(sch.get_sblock(stage))


def tighten(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Turn ``for i in tile: if base + i < n`` into ``for i in min(tile, n - base)``, for the loops of every split.

    A condition in the loop keeps LLVM from vectorizing it, and TVM's own loop partitioning does not reach loops whose
    outer half was fused.
    """
    import tvm_ffi
    from tvm import s_tir, tirx

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

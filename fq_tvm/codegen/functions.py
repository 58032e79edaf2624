"""What the kernels compute: each form of a class, stated on symbolic extents."""

from __future__ import annotations

from typing import Any

from tvm import te

from ..entry_points import Form, Workspace, fake_quant_entry_points, folds, straight_through_entry_points
from ..layout import MAX_RANK
from ..schedule import Schedule
from ..spec import FakeQuantSpec, StraightThroughSpec
from .expression import (
    ChannelParameters,
    Folded,
    QuantRange,
    channel_parameters,
    expand,
    fold,
    foldable,
    quantize_dequantize,
    straight_through,
)
from .statement import Statement, View, variables

STAGE = "fake_quant"


def state(spec: FakeQuantSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State what a kernel computes.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.
    schedule : Schedule
        Its ``rows`` is how many runs of lanes ``"blocked"`` takes at a time.

    Returns
    -------
    dict of list of Statement
        The forms of :func:`~fq_tvm.entry_points.fake_quant_entry_points`.  Where there are two statements of one, the
        first takes zero points off the range (:func:`~fq_tvm.codegen.expression.fold`) and holds where the flag in the
        workspace is 1.
    """
    points = fake_quant_entry_points(spec)
    if not spec.lanes:
        return {form.name: [_rows(spec, form)] for form in points.forms}
    workspace = points.workspace
    assert workspace is not None
    both = (True, False) if workspace.flag else (False,)
    stated = {"expand": [_expand(spec, points["expand"], workspace)]}
    stated["run"] = [_lanes(spec, points["run"], workspace, folded) for folded in both]
    if "blocked" in points:
        stated["blocked"] = [_blocked(spec, points["blocked"], workspace, schedule.rows, folded) for folded in both]
    if "direct" in points:
        stated["direct"] = [_direct(spec, points["direct"])]
    return stated


def state_straight_through(spec: StraightThroughSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State what a kernel of the gradient computes: rows, of one channel."""
    del schedule  # decides about loops alone
    form = straight_through_entry_points(spec)["run"]
    numbers = variables(form)
    extents = _loops(spec, numbers, "outer", "channels", "inner")
    grad, mask = te.placeholder(extents, spec.dtype, "grad"), te.placeholder(extents, "bool", "mask")
    out = straight_through(grad, mask)
    buffers = {"self": grad, "mask": mask, "out": out}
    views = [View(name, buffer, 0, _strides(spec, numbers, name)) for name, buffer in buffers.items()]
    return {"run": [Statement.of(form, views, numbers, out.op.name, overlaps=not spec.strided)]}


def _rows(spec: FakeQuantSpec, form: Form) -> Statement:
    """State rows of any kind: parameters are read where they lie."""
    numbers = _variables(spec, form)
    extents = _loops(spec, numbers, "outer", "channels", "inner")
    scale, zero_point = _vectors(spec, extents[-2], numbers)
    parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide)
    x = te.placeholder(extents, spec.dtype, "x")
    folded = fold(parameters, _range(spec, numbers)) if folds(spec) else None
    out, mask = _compute(spec, x, parameters, len(extents) - 2, numbers, folded)
    views = [View("self", x, 0, _strides(spec, numbers, "self")), scale, zero_point]
    views += [View(t, v, 0, _strides(spec, numbers, t)) for t, v in (("out", out), ("mask", mask))]
    # The wide path's vectors are of float64, of which sixteen are too many to be computed twice.
    overlaps = form.name == "run" and not spec.strided and not spec.wide
    return Statement.of(form, views, numbers, STAGE, overlaps)


def _lanes(spec: FakeQuantSpec, form: Form, workspace: Workspace, folded: bool) -> Statement:
    """State lanes of any kind: parameters come from the workspace."""
    numbers = _variables(spec, form)
    extents = _loops(spec, numbers, "first", "runs", "run", "tail")
    first, shape = (0, extents) if spec.strided else (extents[0], extents[1:3])
    parameters, sources = _run_parameters(spec, workspace, shape[-1])
    ranges = fold(parameters, _range(spec, numbers), everywhere=True) if folded else None
    x = te.placeholder(shape, spec.dtype, "x")
    out, mask = _compute(spec, x, parameters, len(shape) - 1, numbers, ranges)
    views = [View("self", x, first, _strides(spec, numbers, "self")), *sources]
    views += [View(t, v, first, _strides(spec, numbers, t)) for t, v in (("out", out), ("mask", mask))]
    if not spec.strided:
        # The last outer rows, when they do not fill a run: a prefix of one more run.
        rest = te.placeholder((extents[3],), spec.dtype, "x_tail")
        last = (rest, *_compute(spec, rest, parameters, 0, numbers, ranges, "tail"))
        start = first + shape[0] * shape[1]
        views += [View(t, v, start) for t, v in zip(("self", "out", "mask"), last, strict=True)]
    return Statement.of(form, views, numbers, STAGE)


def _blocked(spec: FakeQuantSpec, form: Form, workspace: Workspace, rows: int, folded: bool) -> Statement:
    """State lanes for whole blocks of runs, so that a schedule can read parameters once for all runs of a block."""
    numbers = _variables(spec, form)
    parameters, sources = _run_parameters(spec, workspace, numbers["run"])
    ranges = fold(parameters, _range(spec, numbers), everywhere=True) if folded else None
    x = te.placeholder((numbers["blocks"] * rows, numbers["run"]), spec.dtype, "x")
    out, mask = _compute(spec, x, parameters, 1, numbers, ranges)
    return Statement.of(form, [View("self", x), *sources, View("out", out), View("mask", mask)], numbers, STAGE)


def _direct(spec: FakeQuantSpec, form: Form) -> Statement:
    """State lanes whose channel is last, with parameters read where they lie: expanding pays by repetition alone."""
    numbers = _variables(spec, form)
    scale, zero_point = _vectors(spec, numbers["channels"], numbers)
    x = te.placeholder((numbers["outer"], numbers["channels"]), spec.dtype, "x")
    parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide)
    out, mask = _compute(spec, x, parameters, 1, numbers)
    return Statement.of(
        form, [View("self", x), scale, zero_point, View("out", out), View("mask", mask)], numbers, STAGE
    )


def _expand(spec: FakeQuantSpec, form: Form, workspace: Workspace) -> Statement:
    """State the expansion of the channels' parameters to vectors of a run's length."""
    numbers = variables(form)
    copies, channels, inner = extents = tuple(numbers[name] for name in ("copies", "channels", "inner"))
    scale, zero_point = _vectors(spec, channels, numbers)
    parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide)
    outputs = dict(zip(workspace.vectors, expand([*parameters], *(copies, inner)), strict=True))
    if workspace.flag:
        outputs[workspace.flag] = foldable(parameters)
    run = extents[0] * extents[1] * extents[2]
    places = [View("workspace", value, workspace.start(name, run)) for name, value in outputs.items()]
    return Statement.of(form, [scale, zero_point, *places], numbers, "expand")


def _compute(
    spec: FakeQuantSpec,
    x: te.Tensor,
    parameters: ChannelParameters,
    axis: int,
    numbers: dict[str, Any],
    folded: Folded | None = None,
    name: str = STAGE,
) -> tuple[te.Tensor, te.Tensor]:
    dtypes = (spec.promoted_dtype, spec.out_dtype)
    return quantize_dequantize(x, parameters, axis, _range(spec, numbers), *dtypes, name, folded)


def _variables(spec: FakeQuantSpec, form: Form) -> dict[str, Any]:
    return variables(form, "float64" if spec.wide else "float32")


def _range(spec: FakeQuantSpec, numbers: dict[str, Any]) -> QuantRange:
    names = ("quant_min", "quant_max", "least", "greatest") if spec.wide else ("quant_min", "quant_max")
    return QuantRange(*(numbers[name] for name in names))


def _loops(spec: Any, numbers: dict[str, Any], *contiguous: str) -> tuple[Any, ...]:
    """Return the extents of a class."""
    return tuple(numbers[n] for n in ((f"n{i}" for i in range(MAX_RANK)) if spec.strided else contiguous))


def _strides(spec: Any, numbers: dict[str, Any], tensor: str) -> tuple[Any, ...]:
    return tuple(numbers[f"{tensor}_stride{i}"] for i in range(MAX_RANK)) if spec.strided else ()


def _run_parameters(spec: FakeQuantSpec, workspace: Workspace, run: Any) -> tuple[ChannelParameters, list[View]]:
    """Return the expanded parameters, and where they lie in the workspace."""
    dtypes = {"zero_point": spec.parameter_dtype}
    buffers = {n: te.placeholder((run,), dtypes.get(n, "float32"), f"run_{n}") for n in workspace.vectors}
    views = [View("workspace", buffer, workspace.start(name, run)) for name, buffer in buffers.items()]
    return ChannelParameters(**buffers, float_zero_point=spec.float_zero_point), views


def _vectors(spec: FakeQuantSpec, channels: Any, numbers: dict[str, Any]) -> tuple[View, View]:
    """Scale and zero point, of any stride."""
    scale = te.placeholder((channels,), spec.scale_dtype, "scale")
    zero_point = te.placeholder((channels,), spec.zero_point_dtype, "zero_point")
    return (
        View("scale", scale, 0, (numbers["scale_stride"],)),
        View("zero_point", zero_point, 0, (numbers["zero_point_stride"],)),
    )

"""What the kernels compute: each form of a class, stated on symbolic extents."""

from __future__ import annotations

from typing import Any

from tvm import te

from ..entry_points import (
    LOOPS,
    Form,
    Workspace,
    fake_quant_entry_points,
    folds,
    straight_through_entry_points,
)
from ..layout import MAX_RANK
from ..schedule import Schedule
from ..spec import FakeQuantSpec, StraightThroughSpec
from .expression import (
    ChannelParameters,
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
        return {form.name: [_direct(spec, form)] for form in points.forms}
    workspace = points.workspace
    assert workspace is not None
    both = (True, False) if workspace.flag else (False,)
    stated = {"expand": [_expand(spec, points["expand"], workspace)]}
    for name in ("run", "blocked"):
        if name in points:
            stated[name] = [_expanded(spec, points[name], workspace, schedule.rows, folded) for folded in both]
    if "direct" in points:
        stated["direct"] = [_direct(spec, points["direct"])]
    return stated


def state_straight_through(spec: StraightThroughSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State what a kernel of the gradient computes: rows, of one channel."""
    del schedule  # decides about loops alone
    form = straight_through_entry_points(spec)["run"]
    numbers = variables(form)
    extents = tuple(numbers[name] for name in (LOOPS if spec.strided else ("outer", "channels", "inner")))
    grad, mask = te.placeholder(extents, spec.dtype, "grad"), te.placeholder(extents, "bool", "mask")
    out = straight_through(grad, mask)
    buffers = {"self": grad, "mask": mask, "out": out}
    views = [View(name, buffer, 0, _strides(spec, numbers, name)) for name, buffer in buffers.items()]
    return {"run": [Statement.of(form, views, numbers, out.op.name, overlaps=not spec.strided)]}


def _direct(spec: FakeQuantSpec, form: Form) -> Statement:
    """State rows of any kind, or lanes whose channel is last: parameters are read where they lie.

    Expanding those of lanes pays by repetition alone.
    """
    numbers = _variables(spec, form)
    names = LOOPS if spec.strided else ("outer", "channels") if spec.lanes else ("outer", "channels", "inner")
    extents = tuple(numbers[name] for name in names)
    scale, zero_point = _vectors(spec, extents[_axis(spec, extents)], numbers)
    parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide, spec.formula)
    x, *results = _compute(spec, numbers, parameters, folds(spec) and not spec.lanes, (extents, 0))
    # The wide path's vectors are of float64, of which sixteen are too many to be computed twice.
    overlaps = form.name == "run" and not spec.strided and not spec.wide
    return Statement.of(form, [x, scale, zero_point, *results], numbers, STAGE, overlaps)


def _expanded(spec: FakeQuantSpec, form: Form, workspace: Workspace, rows: int, folded: bool) -> Statement:
    """State lanes whose parameters come from the workspace: runs of any kind, or whole blocks of them.

    A schedule can read them once for all runs of a block, so many as rows says.
    """
    numbers = _variables(spec, form)
    if spec.strided:
        places = [(tuple(numbers[name] for name in LOOPS), 0)]
    elif form.name == "blocked":
        places = [((numbers["blocks"] * rows, numbers["run"]), 0)]
    else:
        first, runs, run, tail = (numbers[name] for name in ("first", "runs", "run", "tail"))
        # The last outer rows, when they do not fill a run: a prefix of one more run.
        places = [((runs, run), first), ((tail,), first + runs * run)]
    parameters, sources = _run_parameters(spec, workspace, places[0][0][-1])
    x, *results = _compute(spec, numbers, parameters, folded, *places)
    return Statement.of(form, [x, *sources, *results], numbers, STAGE)


def _expand(spec: FakeQuantSpec, form: Form, workspace: Workspace) -> Statement:
    """State the expansion of the channels' parameters to vectors of a run's length."""
    numbers = variables(form)
    copies, channels, inner = (numbers[name] for name in ("copies", "channels", "inner"))
    scale, zero_point = _vectors(spec, channels, numbers)
    parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide, spec.formula)
    outputs = dict(zip(workspace.vectors, expand([*parameters], copies, inner), strict=True))
    if workspace.flag:
        outputs[workspace.flag] = foldable(parameters)
    run = copies * channels * inner
    places = [View("workspace", value, workspace.start(name, run)) for name, value in outputs.items()]
    return Statement.of(form, [scale, zero_point, *places], numbers, "expand")


def _compute(
    spec: FakeQuantSpec, numbers: dict[str, Any], parameters: ChannelParameters, folded: bool, *places: tuple[Any, Any]
) -> list[View]:
    """State the operator on an x of each shape, which begins at an element; return where each x and its results lie."""
    bounds = ("quant_min", "quant_max", "least", "greatest") if spec.wide else ("quant_min", "quant_max")
    quant_range = QuantRange(*(numbers[name] for name in bounds))
    ranges = fold(parameters, quant_range, everywhere=spec.lanes) if folded else None
    dtypes = (spec.promoted_dtype, spec.out_dtype)
    views = []
    for stage, (shape, first) in zip((STAGE, "tail"), places, strict=False):
        x = te.placeholder(shape, spec.dtype, "x" if stage == STAGE else "x_tail")
        axis = _axis(spec, shape)
        results = quantize_dequantize(x, parameters, axis, quant_range, dtypes, stage, ranges, spec.mask)
        for name, tensor in zip(("self", *spec.results), (x, *results), strict=True):
            views.append(View(name, tensor, first, _strides(spec, numbers, name)))
    return views


def _axis(spec: FakeQuantSpec, shape: tuple[Any, ...]) -> int:
    return len(shape) - (1 if spec.lanes else 2)


def _variables(spec: FakeQuantSpec, form: Form) -> dict[str, Any]:
    return variables(form, "float64" if spec.wide else "float32")


def _strides(spec: Any, numbers: dict[str, Any], tensor: str) -> tuple[Any, ...]:
    return tuple(numbers[f"{tensor}_stride{i}"] for i in range(MAX_RANK)) if spec.strided else ()


def _run_parameters(spec: FakeQuantSpec, workspace: Workspace, run: Any) -> tuple[ChannelParameters, list[View]]:
    """Return the expanded parameters, and where they lie in the workspace."""
    dtypes = {"zero_point": spec.parameter_dtype}
    buffers = {n: te.placeholder((run,), dtypes.get(n, "float32"), f"run_{n}") for n in workspace.vectors}
    views = [View("workspace", buffer, workspace.start(name, run)) for name, buffer in buffers.items()]
    return ChannelParameters(**{"inverse_scale": None, **buffers}, formula=spec.formula), views


def _vectors(spec: FakeQuantSpec, channels: Any, numbers: dict[str, Any]) -> tuple[View, View]:
    """Scale and zero point, of any stride."""
    scale = te.placeholder((channels,), spec.scale_dtype, "scale")
    zero_point = te.placeholder((channels,), spec.zero_point_dtype, "zero_point")
    return (
        View("scale", scale, 0, (numbers["scale_stride"],)),
        View("zero_point", zero_point, 0, (numbers["zero_point_stride"],)),
    )

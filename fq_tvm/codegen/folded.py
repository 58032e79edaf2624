"""What the kernels of weights with batch norm folded into them compute, stated as loops: a row for each channel.

What is observed of a channel depends on its row alone, so that its range, its parameters and its fake quantization
follow one another while the row is in a cache.
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from ..entry_points import Form, Workspace, folded_weights_entry_points, folded_weights_gradient_entry_points
from ..schedule import Schedule
from ..spec import FoldedWeightsGradientSpec, FoldedWeightsSpec
from .expression import (
    Extremes,
    QuantRange,
    extremes_of,
    fake_quant_element,
    folded_weight_gradient,
    is_finite_range,
    moving_average,
    observed_parameters,
    range_of,
)
from .loop_nests import loop, over, statement
from .statement import Statement, View, variables
from .sums import channels_of_task, row_sum
from .vector_loops import int64

DTYPES = {"zero_point": "int32", "served": "int32"}
"""Of what is observed and not float32."""


def state(spec: FoldedWeightsSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State the forms of :func:`~fq_tvm.entry_points.folded_weights_entry_points`."""
    del schedule  # decides about threads alone
    points = folded_weights_entry_points(spec)
    assert points.workspace is not None
    return {
        "run": [_run(spec, points["run"], points.workspace)],
        "commit": [_commit(points["commit"], points.workspace)],
    }


def _run(spec: FoldedWeightsSpec, form: Form, workspace: Workspace) -> Statement:
    """State a task for some channels: all that is made of their weights, with what was observed left aside."""
    n = variables(form)
    channels, inner = n["channels"], n["inner"]
    whole = {"self": spec.dtype, "out": spec.dtype, "mask": "bool"}
    tensors = {
        name: tirx.decl_buffer((channels * inner if name in whole else channels,), whole.get(name, spec.dtype), name)
        for name in form.tensors
        if name != "workspace"
    }
    aside, views = _aside(workspace, channels)
    kept = [tirx.decl_buffer((1,), dtype, f"kept{i}") for i, dtype in enumerate(Extremes.dtypes(32))]
    observes, one = tirx.NE(n["observes"], int64(0)), tirx.const(1.0, spec.dtype)
    quant_range = QuantRange(n["quant_min"], n["quant_max"])

    def keep(extremes: Extremes) -> Any:
        return tirx.SeqStmt([tirx.BufferStore(b, value, [0]) for b, value in zip(kept, extremes, strict=True)])

    def channel(c: Any) -> tuple[Any, Any, Any]:
        def store(name: str, value: Any) -> Any:
            return tirx.BufferStore({**tensors, **aside}[name], value, [c])

        def scaled(k: Any) -> Any:
            return tensors["self"][c * inner + k] * tensors["factor"][c]

        def look(k: Any) -> Any:
            seen = Extremes(*(buffer[0] for buffer in kept))
            return keep(seen.union(extremes_of(tirx.reinterpret("uint32", scaled(k)))))

        def average(bound: str, found: Any) -> Any:
            running = tensors[f"running_{bound}"][c]
            current = tirx.reinterpret("float32", found)
            return tirx.Select(observes, moving_average(running, current, n["constant"]), running)

        low, high = aside["least"][c], aside["greatest"][c]
        fine = is_finite_range(low, high)
        steps, scale, zero_point = observed_parameters(low, high, quant_range, spec.symmetric)

        def quantize(k: Any) -> Any:
            inverse, zero = one / aside["scale"][c], aside["zero_point"][c].astype("float32")
            in_range, out = fake_quant_element(scaled(k), aside["scale"][c], inverse, zero, quant_range)
            mask = tirx.BufferStore(tensors["mask"], in_range, [c * inner + k])
            return tirx.SeqStmt([mask, tirx.BufferStore(tensors["out"], out, [c * inner + k])])

        found = range_of(Extremes(*(buffer[0] for buffer in kept)), spec.dtype)
        observed = [
            store("factor", tensors["gamma"][c] / tensors["sigma"][c]),
            keep(Extremes.none(32)),
            tirx.IfThenElse(observes, loop("k", inner, look), None),
            *(store(bound, average(bound, each)) for bound, each in zip(("least", "greatest"), found, strict=True)),
        ]
        results = {"served": fine.astype("int32"), "scale": scale, "zero_point": zero_point}
        chosen = [*steps, *(store(name, value) for name, value in results.items())]
        return tirx.SeqStmt(observed), tirx.SeqStmt(chosen), loop("k", inner, quantize)

    def task(t: Any) -> Any:
        # Bound, as TVM would look at the whole of it in every index.
        first, count = te.var("first", "int64"), te.var("count", "int64")
        bound = [tirx.Bind(first, t * per), tirx.Bind(count, tirx.min(per, channels - t * per))]

        def over_channels(step: int) -> Any:  # one step at a time, so that LLVM does the second for several channels
            return loop("c", count, lambda c: channel(first + c)[step])

        return tirx.SeqStmt([*bound, *map(tirx.AllocBuffer, kept), *map(over_channels, range(3))])

    per = channels_of_task(channels, inner)
    views = [*(View(name, buffer) for name, buffer in tensors.items()), *views]
    return statement(form, views, n, loop("task", over(channels, per), task))


def _commit(form: Form, workspace: Workspace) -> Statement:
    """State how what was observed becomes known: all of it, or nothing."""
    n = variables(form)
    channels = n["channels"]
    tensors = {
        name: tirx.decl_buffer((int64(1) if name == "served" else channels,), DTYPES.get(name, "float32"), name)
        for name in form.results
    }
    aside, views = _aside(workspace, channels)
    served = tensors["served"]

    def look(c: Any) -> Any:
        return tirx.BufferStore(served, served[int64(0)] & aside["served"][c], [int64(0)])

    def move(c: Any) -> Any:
        names = {"running_least": "least", "running_greatest": "greatest", "scale": "scale", "zero_point": "zero_point"}
        return tirx.SeqStmt([tirx.BufferStore(tensors[to], aside[source][c], [c]) for to, source in names.items()])

    body = tirx.SeqStmt(
        [
            tirx.BufferStore(served, tirx.const(1, "int32"), [int64(0)]),
            loop("c", channels, look),
            tirx.IfThenElse(tirx.NE(served[int64(0)], tirx.const(0, "int32")), loop("c", channels, move), None),
        ]
    )
    return statement(form, [*(View(name, buffer) for name, buffer in tensors.items()), *views], n, body)


def _aside(workspace: Workspace, channels: Any) -> tuple[dict[str, Any], list[View]]:
    """Return what lies in the workspace, by name, and where."""
    buffers = {
        name: tirx.decl_buffer((channels,), DTYPES.get(name, "float32"), f"new_{name}") for name in workspace.vectors
    }
    return buffers, [View("workspace", buffer, workspace.start(name, channels)) for name, buffer in buffers.items()]


def state_gradient(spec: FoldedWeightsGradientSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State the form of :func:`~fq_tvm.entry_points.folded_weights_gradient_entry_points`: a task for some channels."""
    del schedule  # decides about threads alone
    form = folded_weights_gradient_entry_points(spec)["run"]
    n = variables(form)
    channels, inner = n["channels"], n["inner"]
    whole = ("self", "grad", "mask", "out")
    tensors = {
        name: tirx.decl_buffer(
            (channels * inner if name in whole else channels,), "bool" if name == "mask" else spec.dtype, name
        )
        for name in form.tensors
    }
    per = channels_of_task(channels, inner)

    def row(c: Any) -> Any:
        def element(k: Any) -> tuple[Any, Any]:
            at = c * inner + k
            weight, grad, mask = (tensors[name][at] for name in whole[:3])
            by_weight, by_factor = folded_weight_gradient(weight, grad, mask, tensors["factor"][c])
            return tirx.BufferStore(tensors["out"], by_weight, [at]), by_factor

        def finish(total: Any) -> Any:
            by_gamma = (tensors["by_factor"][c] + total) / tensors["sigma"][c]
            return tirx.BufferStore(tensors["by_gamma"], by_gamma, [c])

        return row_sum(spec.sum_lanes, inner, element, finish, spec.dtype)

    def task(t: Any) -> Any:
        return loop("c", tirx.min(per, channels - t * per), lambda c: row(t * per + c))

    views = [View(name, buffer) for name, buffer in tensors.items()]
    return {"run": [statement(form, views, n, loop("task", over(channels, per), task))]}

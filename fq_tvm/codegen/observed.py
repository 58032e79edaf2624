"""What the kernel of observed parameters computes, as loops: all channels are looked at before one is written."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..entry_points import observed_parameters_entry_points
from ..schedule import Schedule
from ..spec import ObservedParametersSpec
from .expression import QuantRange, is_finite_range, moving_average, observed_parameters
from .loop_nests import loop, statement
from .statement import Statement, View, variables
from .vector_loops import int64


def state(spec: ObservedParametersSpec, schedule: Schedule) -> dict[str, list[Statement]]:
    """State the form of :func:`~fq_tvm.entry_points.observed_parameters_entry_points`."""
    del schedule  # there are no tasks: a channel takes some nanoseconds
    (form,) = observed_parameters_entry_points(spec).forms
    n = variables(form)
    dtypes = dict.fromkeys(form.tensors, spec.dtype) | {"zero_point": "int32", "served": "int32"}
    tensors = {
        name: tirx.decl_buffer((int64(1) if name == "served" else n["channels"],), dtype, name)
        for name, dtype in dtypes.items()
    }
    yes = tirx.const(1, "int32")
    observes, chooses = (tirx.NE(n[name], int64(0)) for name in ("observes", "chooses"))

    def average(bound: str, c: Any) -> Any:
        running = tensors[f"running_{bound}"][c]
        return tirx.Select(observes, moving_average(running, tensors[bound][c], n["constant"]), running)

    def store(name: str, c: Any, value: Any) -> Any:
        return tirx.BufferStore(tensors[name], value, [c])

    def look(c: Any) -> Any:
        low, high = average("least", c), average("greatest", c)
        seen = tensors["served"][int64(0)]
        return store("served", int64(0), tirx.Select(is_finite_range(low, high), seen, tirx.const(0, "int32")))

    def move(c: Any) -> Any:
        bounds = {name: average(name, c) for name in ("least", "greatest")}
        return tirx.SeqStmt([store(f"running_{name}", c, value) for name, value in bounds.items()])

    def choose(c: Any) -> Any:
        low, high = (tensors[name][c] for name in ("running_least", "running_greatest"))
        quant_range = QuantRange(n["quant_min"], n["quant_max"])
        steps, scale, zero_point = observed_parameters(low, high, quant_range, spec.symmetric)
        return tirx.SeqStmt([*steps, store("scale", c, scale), store("zero_point", c, zero_point)])

    def over_channels(body: Any) -> Any:
        return loop("c", n["channels"], body)

    served = tirx.EQ(tensors["served"][int64(0)], yes)
    body = tirx.SeqStmt(
        [
            store("served", int64(0), yes),
            over_channels(look),
            tirx.IfThenElse(tirx.all(served, observes), over_channels(move), None),
            tirx.IfThenElse(tirx.all(served, chooses), over_channels(choose), None),
        ]
    )
    views = [View(name, buffer) for name, buffer in tensors.items()]
    return {form.name: [statement(form, views, n, body)]}

"""Which functions of a kernel a call takes, in which order and with which numbers.

Knows loops, schedules and the contract of entry points; knows no addresses, no operator and no compiler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..entry_points import ELEMENTWISE, LOOPS, RANGE_TILE, RANGE_VECTOR, EntryPoints, Form, range_scratch
from ..layout import MAX_RANK, Layout
from ..schedule import Schedule

DIRECT_OUTER = 8
"""Most repetitions of a channel for which dividing again costs less than expanding the parameters."""

CACHED_RUN_ELEMENTS = 1024
"""Longest run whose parameters (12 or 16 bytes each are read) stay in the first-level cache beside the tensors."""

LONGEST_RUN_ELEMENTS = 8192
"""Longest run that is made of several outer rows."""

EXPAND_INNER_FROM = 8
"""Shortest repetition of a channel that an expansion has for its innermost loop."""

LINE_ELEMENTS = 64
"""Elements that fill lines of every result, of one byte or more each."""

NONTEMPORAL_ROW_ELEMENTS = {"float32": 512, "float16": 4096, "bfloat16": 4096}
"""By the dtype of out, the shortest row that gains more from being written past the caches than the lines that it
shares with its neighbors cost, which are written both ways; rows that begin with a line share none."""


SHARE_ELEMENTS, MAX_SHARES = 16384, 64
"""Least elements of a share of a reduction, and most shares: enough for the threads of most CPUs."""

JOINED_TILE = {"float32": RANGE_TILE, "float16": 2 * RANGE_TILE, "bfloat16": 2 * RANGE_TILE}
"""Elements of a run that make a task where runs are dense, by dtype: the same bytes."""

SHARE_RUNS = 256
"""Least runs of a share, which leaves three elements for each of one, to be written and read again."""

ROW_ALONE, MOST_PARTS = 256, 1024
"""Least elements of a row whose partial result is kept for itself, which costs three more; and most parts for that."""


@dataclass(frozen=True)
class Call:
    """One call of a function of the object code.

    Parameters
    ----------
    form : Form
        Which tensors it takes.
    serial, threaded : str
        Names of the function for one thread, and where there are several; one and the same if it writes too little.
    numbers : tuple of float and int
        After the tensors, in the order of the contract.
    """

    form: Form
    serial: str
    threaded: str
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """The calls that do the work, in order, and the bytes of workspace that they share."""

    calls: tuple[Call, ...]
    workspace_size: int = 0

    @property
    def threaded(self) -> bool:
        """Whether a part of the work is spread over threads."""
        return any(call.threaded != call.serial for call in self.calls)


def make_plan(
    points: EntryPoints,
    layout: Layout,
    schedule: Schedule,
    values: Mapping[str, float],
    out_dtype: str,
    past_caches: bool,
) -> Plan:
    """Choose the functions to call and their numbers.

    Parameters
    ----------
    points : EntryPoints
        Of the kernel.
    layout : Layout
        The loops.
    schedule : Schedule
        The knobs.
    values : mapping of str to float
        What layout does not tell of a form's numbers, by name: scalars, and strides of the channels' vectors.
    out_dtype : str
        Of the first result.
    past_caches : bool
        Whether so much memory moves that results should be written past the caches, and code for that is there.

    Returns
    -------
    Plan
    """

    def call(name: str, row: int, elements: int, **extents: int) -> Call:
        form = points[name]
        whole = row % LINE_ELEMENTS == 0 or (points.workspace is None and row >= NONTEMPORAL_ROW_ELEMENTS[out_dtype])
        variant = "nontemporal" if past_caches and whole else "parallel"
        spread = elements >= schedule.parallel_from and variant in form.variants
        threaded = form.function(variant if spread else "serial")
        return Call(form, form.function("serial"), threaded, form.order({**values, **extents}))

    if "combine" in points:
        return _reduction(points, layout, schedule, values, out_dtype)
    size, outer, channels, inner = layout.size, math.prod(layout.outer), layout.channels, layout.inner
    if points.workspace is None:
        if layout.strides:
            return Plan((call("run", inner, size, **_strided_loops(layout)),))
        name = "long" if "long" in points and inner >= schedule.tile // 4 else "run"
        return Plan((call(name, inner, size, outer=outer, channels=channels, inner=inner),))
    if "commit" in points:
        # What a run leaves for each channel is made known when all of it is there, in the calling thread.
        commit = points["commit"]
        function = commit.function("serial")
        known = Call(commit, function, function, commit.order({**values, "channels": channels}))
        return Plan((call("run", inner, size, channels=channels, inner=inner), known), points.workspace.size(channels))
    if not layout.strides and is_direct(outer, inner):
        return Plan((call("direct", channels, size, outer=outer, channels=channels),))
    period = channels * inner
    copies = 1 if layout.strides else _copies(outer, period, schedule.run, LINE_ELEMENTS if past_caches else 1)
    run = copies * period
    expand = points["expand"]
    function = expand.function(expansion(inner))
    numbers = expand.order({**values, "copies": copies, "channels": channels, "inner": inner})
    calls = [Call(expand, function, function, numbers)]
    if layout.strides:
        calls.append(call("run", run, size, **_strided_loops(layout)))
    else:
        runs, tail = outer // copies, outer % copies * period
        blocks = runs // schedule.rows if schedule.rows > 1 and run > CACHED_RUN_ELEMENTS else 0
        first = blocks * schedule.rows * run
        if blocks:
            calls.append(call("blocked", run, first, blocks=blocks, run=run))
        if first < size:
            left = runs - blocks * schedule.rows
            calls.append(call("run", run, size - first, first=first, runs=left, run=run, tail=tail))
    return Plan(tuple(calls), points.workspace.size(run))


def _reduction(
    points: EntryPoints, layout: Layout, schedule: Schedule, values: Mapping[str, float], dtype: str
) -> Plan:
    """Divide a reduction into shares, which depend on the tensor alone, and say how their results are put together."""

    def call(name: str, elements: int, **numbers: int) -> Call:
        form = points[name]
        variant = "parallel" if elements >= schedule.parallel_from else "serial"
        return Call(form, form.function("serial"), form.function(variant), form.order({**values, **numbers}))

    size, channels, inner = layout.size, layout.channels, layout.inner
    strided = _strided_loops(layout) if layout.strides else {}
    outer = strided[LOOPS[0]] if strided else math.prod(layout.outer)
    shares = min(MAX_SHARES, size // SHARE_ELEMENTS)
    name, copies, period, pieces, scratch = "run", 1, channels, 1, 0
    if layout.iteration.endswith("rows"):
        # Rows of one channel lie far apart: those that are long are read in the order of memory instead.
        alone = min(outer, MOST_PARTS) if inner >= ROW_ALONE and not strided else 1
        parts, per = _divide(outer, max(shares // channels, alone))
        length = inner
        if not strided:
            pieces, length = _divide(inner, min(shares // (parts * channels), inner // RANGE_VECTOR))
            name = "short" if length < RANGE_VECTOR and "short" in points else "run"
        numbers = {"outer": outer, "channels": channels, "inner": inner, "pieces": pieces, "length": length}
        inner = 1
    else:
        period = channels * inner
        joined = "run" in points["run"].integers
        if joined:
            copies = min(outer, max(_copies(outer, period, schedule.run, 1), -(-RANGE_VECTOR // period)))
            name = "run" if copies * period >= RANGE_VECTOR else "short"
        runs, tiles = -(-outer // copies), -(-copies * period // (JOINED_TILE[dtype] if joined else RANGE_TILE))
        parts, per = _divide(runs, min(shares // tiles, runs // SHARE_RUNS if joined else runs))
        scratch = parts * tiles * range_scratch(copies * period, tiles) if joined else 0
        numbers = {"size": size, "run": copies * period, "tiles": tiles, "outer": outer, "channels": channels}
    first = call(name, size, **strided, **numbers, parts=parts, per=per)
    partial = {"shares": parts * pieces, "copies": copies, "channels": channels, "inner": inner}
    elements = math.prod(partial.values())
    assert points.workspace is not None
    return Plan((first, call("combine", elements, **partial)), points.workspace.size(elements, scratch))


def _divide(extent: int, shares: int) -> tuple[int, int]:
    """Divide a loop into so many shares or fewer, but one; return how many, and iterations of all but the last."""
    per = -(-extent // max(1, min(shares, extent)))
    return -(-extent // per), per


def is_direct(outer: object, inner: object) -> bool:
    """Whether lanes are better off without an expansion; extents that only the run will tell are taken for long."""
    return inner == 1 and isinstance(outer, int) and outer <= DIRECT_OUTER


def expansion(inner: int) -> str:
    """Name the variant that expands parameters: below a vector or so, a loop over one channel is all overhead."""
    return "inner" if inner >= EXPAND_INNER_FROM else "channels"


def _copies(outer: int, period: int, run: int, multiple: int) -> int:
    """How many outer rows make a run: enough to fill it, few enough that expanding costs little of the whole.

    So many that the run is a multiple of a number of elements, unless it would be much longer for that.
    """
    copies = max(1, min(run // period, outer // 64 or outer))
    unit = multiple // math.gcd(multiple, period)
    whole = -(-copies // unit) * unit
    return whole if whole * period <= LONGEST_RUN_ELEMENTS and whole <= outer else copies


def _strided_loops(layout: Layout) -> dict[str, int]:
    """Return extents and strides by name, filled with loops of one iteration to as many as there are."""
    inside = (layout.channels,) if layout.iteration == "strided_lanes" else (layout.channels, layout.inner)
    # The first outer loop is the one that is spread over threads, so it has to be one with iterations to spread.
    order = sorted(range(len(layout.outer)), key=lambda i: i != _largest(layout.outer))
    fill = MAX_RANK - len(layout.outer) - len(inside)
    extents = (*(layout.outer[i] for i in order), *[1] * fill, *inside)
    values = dict(zip(LOOPS, extents, strict=True))
    for tensor, strides in zip(ELEMENTWISE, layout.strides, strict=False):  # there may be no mask, or no result
        loops = (*(strides[i] for i in order), *[0] * fill, *strides[len(layout.outer) :])
        values |= {f"{tensor}_stride{i}": stride for i, stride in enumerate(loops)}
    return values


def _largest(extents: tuple[int, ...]) -> int:
    """The first loop if it is worth spreading, else the longest."""
    return 0 if not extents or extents[0] >= 16 else max(range(len(extents)), key=lambda i: extents[i])

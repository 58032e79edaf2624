"""The schedules that tuning chooses from; docs/schedules.md says why these.

Knows the knobs and their candidates; not how a schedule is measured or kept.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

from ..schedule import Schedule, default_schedule
from ..spec import FakeQuantSpec
from ..target import Target

TILES = {
    "rows": (1024, 4096, 16384, 65536, 262144),
    "lanes": (4096, 16384, 65536, 262144),
    "strided_rows": (1024, 16384, 65536, 262144),
    "strided_lanes": (1024, 16384, 65536, 262144),
}
RUNS: dict[str, dict[str, Sequence[int]]] = {
    "rows": {"rows": (1, 16, 64), "prefetch": (0, 256)},
    "lanes": {"rows": (1, 2, 4), "run": (256, 512, 1024, 2048)},
}
PARALLEL_FROM = (32768, 65536, 131072, 262144)
STREAM_FROM = (2**25, 2**26, 2**28, 2**62)
"""The last means never."""


def knobs_of(spec: FakeQuantSpec, target: Target | None = None) -> dict[str, Sequence[int]]:
    """List the candidates of each knob that a kernel has.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.
    target : Target, optional
        The CPU, which decides whether the width of vectors is a choice; by default it is.
    """
    knobs: dict[str, Sequence[int]] = {"tile": TILES[spec.iteration], "parallel_from": PARALLEL_FROM}
    knobs.update(RUNS.get(spec.iteration, {}))
    if spec.nontemporal:
        knobs["stream_from"] = STREAM_FROM
    if target is None or target.avx512:
        # 0 is LLVM's own choice for this CPU, so only the other width is another candidate
        knobs["vector_bits"] = (0, 512 if target is not None and "prefer-256-bit" in target.features else 256)
    return knobs


def of_shape(schedules: Sequence[Schedule]) -> list[Schedule]:
    """List schedules for one shape: each, and each with the extents in its code."""
    return [chosen for schedule in schedules for chosen in (schedule, replace(schedule, static=1))]


def space(spec: FakeQuantSpec, target: Target | None = None, seed: int = 0) -> list[Schedule]:
    """List the schedules that tuning chooses from; docs/schedules.md says why these.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.
    target : Target, optional
        The CPU, which decides whether the width of vectors is a choice; by default it is.
    seed : int
        Of the order.

    Returns
    -------
    list of Schedule
        The default schedule, then all others in an order that depends on nothing but the arguments.
    """
    first = default_schedule(spec, target)
    knobs = knobs_of(spec, target)
    every = (replace(first, **dict(zip(knobs, values, strict=True))) for values in itertools.product(*knobs.values()))
    others = [schedule for schedule in every if schedule != first]
    random.Random(f"{seed} {spec.name}").shuffle(others)
    return [first, *others]

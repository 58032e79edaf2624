"""The knobs of a schedule, and the default choice.

A schedule never changes a result, only the time it takes.  Knows no compiler: how the knobs are applied is a matter of
code generation, and of the launch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import FqError
from .target import Target

VECTOR_BITS = (0, 256, 512)

LIMITS = {"tile": 2**30, "rows": 2**20, "run": 2**30, "parallel_from": 2**62, "stream_from": 2**62}
"""The most that each knob may be, so that nothing that generated code or a launch computes of it overflows."""


@dataclass(frozen=True)
class Schedule:
    """How a kernel of :class:`~fq_tvm.spec.FakeQuantSpec` runs; :data:`LIMITS` bounds each knob.

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
        caches, which could not hold the results; the limit for never.
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
            if value > (most := LIMITS.get(field.name, value)):
                raise FqError(f"Schedule.{field.name} is {value}; expected at most {most}")
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


def default_schedule(spec: Any, target: Target | None = None) -> Schedule:
    """Choose a good schedule for a kernel that nobody tuned.

    Parameters
    ----------
    spec : FakeQuantSpec or another operator's
        The kernel, of which the class and the bytes of an element count.
    target : Target, optional
        The CPU, one of x86-64 by default.  Others write nothing past the caches before somebody measured on one that it
        pays.

    Returns
    -------
    Schedule
    """
    never = {} if target is None or target.architecture == "x86_64" else {"stream_from": LIMITS["stream_from"]}
    # Strided tasks keep whole inner loops together where they can: their cost is cache lines, not elements.
    if spec.strided:
        return Schedule(tile=65536, **never)
    # Of lanes, the fewer bytes move for an element, the more of the time goes to its 12 bytes of parameters.
    rows = 16 if spec.iteration == "rows" else 8 if spec.element_bytes <= 4 else 4
    return Schedule(rows=rows, **never)

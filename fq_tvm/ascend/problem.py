"""What is lowered: the caller's shape, dtypes and range, and the same elements seen with the fewest dimensions.

Knows no toolchain and no compiler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import ArgumentError
from ..layout import MAX_RANK
from ..spec import FLOATS, NARROW_LIMIT, arithmetic_for
from .program import Program, fake_quant_program

Extent = int | None

INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Problem:
    """One operator to lower, for contiguous tensors.

    Parameters
    ----------
    shape : tuple of int or None
        Extents of x; None (or -1) for those known only when the kernel runs.
    axis : int
        The channel dimension; negative counts from the end, and is stored counted from the front.
    dtype, scale_dtype : {"float16", "float32"}
        Element types of x, which is out's as well, and of scale.
    quant_min, quant_max : int
        The range.

    Raises
    ------
    ArgumentError
        If the operator's contract refuses the shape, the axis, a dtype or the range, or if no vector unit of these
        processors computes the range exactly.
    """

    shape: tuple[Extent, ...]
    axis: int
    dtype: str = "float32"
    scale_dtype: str = "float32"
    quant_min: int = -128
    quant_max: int = 127

    def __post_init__(self) -> None:
        shape = tuple(None if n is None or n == -1 else int(n) for n in self.shape)
        rank = len(shape)
        if not 1 <= rank <= MAX_RANK:
            raise ArgumentError(f"shape has {rank} dimensions; expected 1 to {MAX_RANK}")
        if 0 in shape:
            raise ArgumentError(f"shape is {shape}; an empty tensor needs no kernel")
        if any(n is not None and n < 0 for n in shape) or (math.prod(n or 1 for n in shape) > INT64_MAX):
            raise ArgumentError(
                f"shape is {shape}; expected extents from 1 up, None or -1, of at most 2^63 - 1 elements"
            )
        if not -rank <= self.axis < rank:
            raise ArgumentError(f"axis is {self.axis}; expected {-rank} to {rank - 1} for {rank} dimensions")
        for field, value in (("dtype", self.dtype), ("scale_dtype", self.scale_dtype)):
            if value not in FLOATS:
                raise ArgumentError(f"{field} is {value!r}; expected one of {', '.join(FLOATS)}", "dtype")
        if self.quant_min > self.quant_max:
            raise ArgumentError(f"quant_min {self.quant_min} is above quant_max {self.quant_max}", "range")
        if arithmetic_for(self.quant_min, self.quant_max) != "narrow":
            raise ArgumentError(
                f"quant range [{self.quant_min}, {self.quant_max}] is computed in float64, which no Ascend vector unit "
                f"has; expected bounds of magnitude at most {NARROW_LIMIT}",
                "range",
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "axis", self.axis % rank)

    @property
    def outer(self) -> Extent:
        """The number of elements outside the channel dimension; None where unknown."""
        return _product(self.shape[: self.axis])

    @property
    def channels(self) -> Extent:
        """The extent of the channel dimension."""
        return self.shape[self.axis]

    @property
    def inner(self) -> Extent:
        """The number of elements inside the channel dimension."""
        return _product(self.shape[self.axis + 1 :])

    @property
    def dynamic(self) -> bool:
        """Whether an extent is known only when the kernel runs."""
        return None in self.shape

    def collapsed(self, outer: bool = False, inner: bool = False) -> Problem:
        """The same elements as (outer, channels, inner).

        Contiguous neighbors are one dimension to a kernel that reads element by element, so this is no other
        operator, and every rank becomes one that a toolchain handles well.

        Parameters
        ----------
        outer, inner : bool
            Whether to keep the first and last dimension where their extent is 1.
        """
        front = (self.outer,) if outer or self.outer != 1 else ()
        back = (self.inner,) if inner or self.inner != 1 else ()
        return replace(self, shape=(*front, self.channels, *back), axis=len(front))

    @property
    def dims(self) -> tuple[str, ...]:
        """What the dimensions of a collapsed problem are."""
        before, after = ("outer",) * self.axis, ("inner",) * (len(self.shape) - self.axis - 1)
        return (*before, "channels", *after)

    def program(self) -> Program:
        """The arithmetic as a list of primitives."""
        return fake_quant_program(self.shape, self.axis, self.dtype, self.scale_dtype, self.quant_min, self.quant_max)


def _product(extents: Sequence[Extent]) -> Extent:
    known = [n for n in extents if n is not None]
    return math.prod(known) if len(known) == len(extents) else None

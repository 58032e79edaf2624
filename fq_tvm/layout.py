"""Where the data lies: shapes, strides and an axis become the loops of a kernel.

Dimensions of extent 1 are dropped, the others ordered by stride, and neighbors merged where self, out and mask are
all contiguous across them; the channel stays apart.  What remains decides the class of the kernel.  Knows nothing of
dtypes, addresses or compilers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

MAX_RANK = 8
"""Most dimensions that the operator takes, and the loops of a strided kernel."""

ROWS_MIN_INNER = 32
"""Shortest contiguous run of one channel for which *rows* beat *lanes*.  Below it the start of each run, its
remainder and its division cost more than expanding parameters and sharing them with other cores
(docs/performance.md has the measurement)."""

Strides = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The loops that visit every element once.

    Parameters
    ----------
    iteration : str
        The kernel's class, see :class:`fq_tvm.spec.FakeQuantSpec`.
    outer : tuple of int
        Extents of the loops outside the channel: one for the contiguous classes, else as many as are left.
    channels : int
        Extent of the channel.
    inner : int
        Extent of the loop inside the channel.
    strides : tuple of tuples of int
        Strides in elements of self, out and mask along ``(*outer, channel, inner)``; for ``strided_lanes``, which has
        no inner loop, along ``(*outer, channel)``; empty for the contiguous classes.
    """

    iteration: str
    outer: tuple[int, ...]
    channels: int
    inner: int
    strides: tuple[Strides, ...] = ()

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.outer) * self.channels * self.inner

    @property
    def extents(self) -> tuple[int, ...]:
        """Extents of the loops, the outermost first."""
        return *self.outer, self.channels, self.inner


@dataclass(frozen=True)
class _Loop:
    extent: int
    strides: Strides
    channel: bool = False

    def continues(self, inside: _Loop) -> bool:
        """Whether this loop and the one inside it can be one loop."""
        joined = all(a == b * inside.extent for a, b in zip(self.strides, inside.strides, strict=True))
        return joined and not self.channel and not inside.channel


def dense_strides(shape: Sequence[int], order: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the strides, in elements, of a tensor without gaps.

    Parameters
    ----------
    shape : sequence of int
        Its extents.
    order : sequence of int, optional
        The dimensions as they lie in memory, the outermost first; as in shape by default.
    """
    strides, step = [0] * len(shape), 1
    for d in reversed(range(len(shape)) if order is None else order):
        strides[d], step = step, step * shape[d]
    return tuple(strides)


def contiguous_class(channels: Any, inner: Any, rows_min_inner: int = ROWS_MIN_INNER) -> str:
    """Return the class of dense tensors seen as (outer, channels, inner): the boundary between rows and lanes.

    Parameters
    ----------
    channels, inner : int or expression
        Extents; those that only the run will tell, of a graph, are taken for long.
    rows_min_inner : int
        Shortest inner run that is taken by *rows*.
    """
    short = isinstance(inner, int) and inner < rows_min_inner
    return "lanes" if short and not (isinstance(channels, int) and channels == 1) else "rows"


def arrange(
    shape: Sequence[int],
    axis: int | None,
    strides: Sequence[Sequence[int]],
    rows_min_inner: int = ROWS_MIN_INNER,
) -> Layout:
    """Find the loops for tensors of one shape.

    Parameters
    ----------
    shape : sequence of int
        At most 8 extents, none of them 0.
    axis : int or None
        The channel dimension, not negative; ignored for a 0-dimensional shape.  None where all elements share their
        parameters: one channel.
    strides : sequence of sequences of int
        Strides of self and of each result, in elements.
    rows_min_inner : int
        Shortest inner run that is taken by *rows*.

    Returns
    -------
    Layout
    """
    loops = [_Loop(extent, tuple(s[d] for s in strides), d == axis) for d, extent in enumerate(shape) if extent > 1]
    # Out decides the order, as a write costs twice a read; the sort is stable, so equal strides keep their order.
    loops.sort(key=lambda loop: tuple(abs(s) for s in (*loop.strides[1:], loop.strides[0])), reverse=True)
    merged: list[_Loop] = []
    for loop in loops:
        if merged and merged[-1].continues(loop):
            loop = _Loop(merged.pop().extent * loop.extent, loop.strides)
        merged.append(loop)

    if not any(loop.channel for loop in merged):
        # One channel: every element has the same parameters, so it may stand anywhere; outside the last loop.
        if len(merged) < MAX_RANK:
            merged.insert(max(len(merged) - 1, 0), _Loop(1, (0,) * len(strides), True))
        else:  # no loop is left for it: another one does, along which the parameters have no stride
            merged[-2] = replace(merged[-2], channel=True)
    position = next(i for i, loop in enumerate(merged) if loop.channel)
    outer, channel, inside = merged[:position], merged[position], merged[position + 1 :]
    channels = channel.extent

    if len(outer) <= 1 and len(inside) <= 1:
        inner = inside[0].extent if inside else 1
        dense = (channels * inner, inner, 1)
        if all(
            loop.strides == (stride,) * len(strides)
            for loop, stride in zip((*outer, channel, *inside), _needed(dense, outer, inside), strict=True)
            if loop.extent > 1
        ):
            iteration = contiguous_class(channels, inner, rows_min_inner)
            return Layout(iteration, (math.prod(o.extent for o in outer),), channels, inner)

    if not inside and channels > 1:
        ordered = [*outer, channel]
        return Layout("strided_lanes", tuple(o.extent for o in outer), channels, 1, _by_tensor(ordered))
    innermost = inside[-1] if inside else _Loop(1, (0,) * len(strides))
    outer = [*outer, *inside[:-1]]
    ordered = [*outer, channel, innermost]
    return Layout("strided_rows", tuple(o.extent for o in outer), channels, innermost.extent, _by_tensor(ordered))


def _needed(dense: tuple[int, int, int], outer: list[_Loop], inside: list[_Loop]) -> tuple[int, ...]:
    """The strides of a dense (outer, channel, inner) box, of the loops that are there."""
    return (*dense[: len(outer)], dense[1], *dense[2 : 2 + len(inside)])


def _by_tensor(loops: Sequence[_Loop]) -> tuple[Strides, ...]:
    return tuple(zip(*(loop.strides for loop in loops), strict=True))

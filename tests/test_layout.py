"""Shapes and strides to loops: the class that is chosen, and that every element is visited once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fq_tvm.layout import MAX_RANK, Layout, arrange


def strides_of(shape, order=None):
    order = range(len(shape)) if order is None else order
    array = np.empty([shape[d] for d in order], "i1").transpose(np.argsort(order))
    return array.strides


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((64, 256, 56, 56), 1, Layout("rows", (64,), 256, 3136)),
        ((4096, 4096), 0, Layout("rows", (1,), 4096, 4096)),
        ((4096, 4096), 1, Layout("lanes", (4096,), 4096, 1)),
        ((64, 56, 56, 256), 3, Layout("lanes", (64 * 56 * 56,), 256, 1)),
        ((32, 128, 7, 7), 1, Layout("rows", (32,), 128, 49)),
        ((32, 128, 5, 5), 1, Layout("lanes", (32,), 128, 25)),
        ((32, 128, 32), 1, Layout("rows", (32,), 128, 32)),
        ((2, 1, 3, 1, 5), 4, Layout("lanes", (6,), 5, 1)),
        ((5, 1, 7), 1, Layout("rows", (1,), 1, 35)),
        ((), 0, Layout("rows", (1,), 1, 1)),
        ((9,), 0, Layout("lanes", (1,), 9, 1)),
    ],
)
def test_contiguous(shape, axis, expected):
    assert arrange(shape, axis, [strides_of(shape)] * 3) == expected


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)])
def test_one_channel_is_one_row_in_any_order(order):
    shape = (8, 3, 28, 28)
    strides = strides_of(shape, order)
    assert arrange(shape, None, [strides] * 3) == Layout("rows", (1,), 1, 8 * 3 * 28 * 28)


def test_one_channel_in_differing_orders_is_strided():
    shape = (300, 500)
    got = arrange(shape, None, [strides_of(shape, (1, 0)), strides_of(shape), strides_of(shape)])
    assert got == Layout("strided_rows", (300,), 1, 500, ((1, 0, 300), (500, 0, 1), (500, 0, 1)))
    assert arrange((), None, [()] * 3) == Layout("rows", (1,), 1, 1)
    assert arrange((1, 5, 1), None, [(9, 1, 7)] * 3) == Layout("rows", (1,), 1, 5)
    eight = [tuple(3 * s for s in strides_of((2,) * 7 + (5,)))] * 2 + [tuple(7**i for i in range(8))]
    crowded = arrange((2,) * 7 + (5,), None, eight)
    assert crowded.iteration == "strided_rows" and (len(crowded.outer), crowded.channels) == (MAX_RANK - 2, 2)
    assert crowded.size == 2**7 * 5


def test_channels_last_needs_no_special_case():
    shape = (8, 64, 28, 28)
    strides = strides_of(shape, (0, 2, 3, 1))
    assert arrange(shape, 1, [strides] * 3) == Layout("lanes", (8 * 28 * 28,), 64, 1)


def test_transposed_coherently_is_dense():
    shape = (300, 500)
    strides = strides_of(shape, (1, 0))
    assert arrange(shape, 1, [strides] * 3) == Layout("rows", (1,), 500, 300)


def test_differing_strides_are_strided():
    shape = (300, 500)
    got = arrange(shape, 0, [strides_of(shape, (1, 0)), strides_of(shape), strides_of(shape)])
    assert got == Layout("strided_rows", (), 300, 500, ((1, 300), (500, 1), (500, 1)))
    got = arrange(shape, 1, [strides_of(shape, (1, 0)), strides_of(shape), strides_of(shape)])
    assert got == Layout("strided_lanes", (300,), 500, 1, ((1, 300), (500, 1), (500, 1)))


def places(layout: Layout) -> list[list[tuple[int, ...]]]:
    """Walk the loops: for each tensor, (offset, channel) of every element."""
    inner = () if layout.iteration == "strided_lanes" else (layout.inner,)
    loops = (*layout.outer, layout.channels, *inner)
    position = len(layout.outer)
    strides = layout.strides
    if not strides:
        dense = np.empty(loops, "i1").strides
        strides = (dense,) * 3
    return [
        [
            (sum(i * s for i, s in zip(index, tensor, strict=True)), index[position])
            for index in itertools.product(*map(range, loops))
        ]
        for tensor in strides
    ]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_visits_every_element_once(data):
    rank = data.draw(st.integers(0, 5))
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    axis = data.draw(st.none() | st.integers(0, max(rank - 1, 0)))
    tensors = []
    for _ in range(3):
        order = data.draw(st.permutations(range(rank)))
        step = data.draw(st.integers(1, 2))
        tensors.append(tuple(s * step for s in strides_of(shape, order)))
    layout = arrange(shape, axis, tensors, rows_min_inner=data.draw(st.sampled_from([1, 3, 100])))
    assert layout.size == np.prod(shape, dtype=int)
    assert len(layout.outer) + 2 <= MAX_RANK or layout.iteration == "strided_lanes"
    walked = places(layout)
    indices = list(itertools.product(*map(range, shape)))
    channel = [0 if axis is None or not rank else index[axis] for index in indices]
    wanted = [[sum(i * s for i, s in zip(index, strides, strict=True)) for index in indices] for strides in tensors]
    # one joint walk: the k-th place of each tensor is the same element
    joint = sorted(zip(*([p for p, _ in w] for w in walked), [c for _, c in walked[0]], strict=True))
    assert joint == sorted(zip(*wanted, channel, strict=True))

"""Code for one shape: the bits of code for all, in a kernel of its own."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from support import assert_same, checked_arguments, expected, launch_on, make

from fq_tvm import FakeQuantSpec, FqError, get_kernel
from fq_tvm.launch.choose import choose, constants_of
from fq_tvm.launch.registry import current_target, prepare, request_of
from fq_tvm.schedule import default_schedule

SHAPES = {
    "run of rows": ((3, 4, 49), 1),
    "long rows": ((2, 5001), 0),
    "direct": ((3, 130), 1),
    "run of lanes": ((50, 6, 7), 1),
    "blocked": ((21, 150, 7), 1),
}
NEVER = 2**62


def static(spec: FakeQuantSpec, **knobs: int):
    return dataclasses.replace(default_schedule(spec, current_target()), static=1, **knobs)


def run(shape, axis, dtype="float32", seed=0, every=1, step=1, **knobs):
    """Launch a static kernel on drawn data, x and the parameters with strides, and compare; return the kernel."""
    rng = np.random.default_rng(seed)
    low, high = -rng.integers(1, 200), rng.integers(0, 200)
    x, scale, zero_point = make(rng, shape, axis, dtype, quant_range=(low, high))
    x = np.repeat(x, every, axis=-1)[..., ::every]
    scale, zero_point = (np.repeat(vector, step)[::step] for vector in (scale, zero_point))
    out, mask = np.empty(shape, x.dtype), np.empty(shape, bool)
    checked = checked_arguments((x, scale, zero_point, out, mask), axis, low, high)
    spec = choose(checked, current_target()).spec
    launch = prepare(checked, schedule=static(spec, **knobs))
    launch_on(launch, [operand.tensor for operand in checked.operands])
    assert_same((out, mask), expected(x, scale, zero_point, axis, low, high))
    return launch.kernel


@pytest.mark.parametrize("name", SHAPES)
def test_bits_of_contiguous_classes(name):
    """Serial, on threads, and past the caches, for any range and any strides of scale and zero point."""
    shape, axis = SHAPES[name]
    pick = random.Random(name)
    dtype = pick.choice(["float32", "float16", "bfloat16"])
    run(shape, axis, dtype, seed=pick.randrange(1000), step=2, parallel_from=NEVER)
    run(shape, axis, dtype, seed=pick.randrange(1000), parallel_from=1)
    run(shape, axis, dtype, seed=pick.randrange(1000), parallel_from=1, stream_from=1)


@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 50), 1), ((30, 7), 1)])
def test_strides_stay_arguments(shape, axis):
    """One kernel serves every tensor of a shape."""
    kernels = {run(shape, axis, seed=every, every=every, parallel_from=1) for every in (2, 3)}
    assert len(kernels) == 1
    assert kernels.pop().spec.strided


def test_a_kernel_is_of_its_shape():
    target, spec = current_target(), FakeQuantSpec("rows")
    one, other = (get_kernel(spec, schedule=static(spec), shape=shape) for shape in ((3, 4, 49), (3, 4, 50)))
    assert one is not other
    assert one is get_kernel(spec, schedule=static(spec), shape=(3, 4, 7, 7), axis=1)
    constants = constants_of(spec, target, one.schedule, (3, 4, 49))
    assert constants == {"run": {"outer": 3, "channels": 4, "inner": 49}}
    assert "run_serial" in one.source("tir")
    assert "long_serial" not in one.source("tir"), "no launch of this shape calls it"
    requests = [request_of(spec, static(spec), target, extents) for extents in ((3, 4, 49), (3, 4, 50), ())]
    assert requests[0] != requests[1]
    assert "constants" not in requests[2]
    assert constants_of(spec, target, default_schedule(spec, target), (3, 4, 49)) == {}


def test_a_static_schedule_wants_a_shape():
    spec = FakeQuantSpec("rows")
    with pytest.raises(FqError, match="no shape is given"):
        get_kernel(spec, schedule=static(spec))
    with pytest.raises(FqError, match=r"axis is 2; expected -2 to 1 for shape \(3, 40\)"):
        get_kernel(spec, shape=(3, 40), axis=2)

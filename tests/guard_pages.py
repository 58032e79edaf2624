"""Runs every kernel with each buffer against a page that faults; a process of its own, as a fault ends it.

    python guard_pages.py

Prints ``ok N`` after N launches.  Each buffer lies once flush against the end of its pages and once at their start,
with pages that can be neither read nor written on both sides.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from support import assert_same, checked_arguments, expected, launch_on, make

from fq_tvm import FakeQuantSpec, catalogue, reference
from fq_tvm.launch.arguments import CheckedArguments, LearnableGradient, check_range_of, describe
from fq_tvm.launch.kernel import EmptyLaunch, Launch
from fq_tvm.launch.registry import prepare
from fq_tvm.launch.runtime import AddressTensor

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """Memory between two pages that fault."""

    def __init__(self, capacity: int) -> None:
        self.pages = -(-capacity // PAGE)
        self.map = mmap.mmap(-1, (self.pages + 2) * PAGE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map)) + PAGE
        for page in (self.base - PAGE, self.base + self.pages * PAGE):
            if LIBC.mprotect(ctypes.c_void_p(page), PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def array(self, shape: tuple[int, ...], dtype: str, at_end: bool) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert size <= self.pages * PAGE
        start = self.pages * PAGE - size if at_end else 0
        buffer: Any = (ctypes.c_char * size).from_address(self.base + start)
        array: np.ndarray = np.ndarray(shape, dtype, buffer)
        return array


def boundaries(*steps: int) -> list[int]:
    """Sizes equal to, a multiple of, below and above each step."""
    return sorted({n for s in steps for n in (s - 1, s, s + 1, 2 * s - 1, 2 * s, 2 * s + 1, 3 * s + 7) if n > 0})


def cases(spec: FakeQuantSpec) -> Sequence[tuple[tuple[int, ...], int]]:
    vector = boundaries(1, 4, 8, 16, 32, 64)
    if spec.iteration == "rows":
        return [((1, n), 0) for n in vector] + [((2, 3, n), 1) for n in boundaries(32, 256, 16384) if n >= 32]
    vector.remove(1)  # one element has one channel, which is a row
    if spec.iteration == "lanes":
        return (
            [((n,), 0) for n in vector]
            + [((o, c), 1) for o in (1, 2, 4, 17, 33) for c in (3, 16, 65, 1023, 1025)]
            + [((5, 7, n), 1) for n in (2, 7, 31)]
            + [((2, n), 1) for n in boundaries(16384)]
        )
    if spec.iteration == "strided_rows":
        return [((3, n, 5), 0) for n in (2, 17)] + [((2, 3, n), 1) for n in vector[:12]] + [((2, 2, 65537), 1)]
    return [((n,), 0) for n in vector] + [((3, n), 1) for n in vector[:12]] + [((1, 65537), 1)]


def past_caches(checked: CheckedArguments, launch: Launch) -> list[Launch | EmptyLaunch]:
    """The same with results written past the caches, which begin with a line at the start of a page."""
    if not launch.kernel.spec.nontemporal:
        return []
    return [prepare(checked, schedule=replace(launch.kernel.schedule, parallel_from=1, stream_from=1))]


def learnable_gradients(rng: np.random.Generator) -> int:
    """The same for the gradient by x, scale and zero point; return how many launches there were."""
    names = ("x", "grad", "scale", "zero_point", "out", "scale_grad", "zero_point_grad", "workspace")
    memory = {name: Guarded(1 << 22) for name in names}
    rows = [((2, 3, n), 1) for n in boundaries(1, 16, 32, 256)] + [((n,), None) for n in boundaries(16384)]
    lanes = [((o, c), 1) for o in (1, 5, 33) for c in (3, 16, 65, 2047, 2049)]
    launches = 0
    for iteration, listed in (("rows", rows), ("lanes", lanes)):
        for (shape, axis), at_end in ((c, e) for c in listed for e in (False, True)):
            x, scale, zero_point = make(rng, shape, axis)
            data = (x, rng.standard_normal(shape).astype("f4"), scale, zero_point.astype("f4"))
            arrays = [memory[n].array(a.shape, "float32", at_end) for n, a in zip(names, data, strict=False)]
            for array, values in zip(arrays, data, strict=True):
                array[...] = values
            arrays += [
                memory[n].array(a.shape, "float32", at_end) for n, a in zip(names[4:7], (x, scale, scale), strict=True)
            ]
            call = LearnableGradient(describe(arrays[0], "x"), axis, -128, 127, 0.5)
            launch = prepare(call, iteration=iteration)
            workspace = memory["workspace"].array((launch.workspace_size,), "u1", at_end)
            tensors = [AddressTensor(a.ctypes.data) for a in arrays]
            launch_on(launch, tensors, AddressTensor(workspace.ctypes.data))
            wanted = reference.learnable_gradient(*data, axis, -128, 127, 0.5)
            assert np.array_equal(arrays[4].view("i4"), wanted[0].view("i4"))
            launches += 1
    return launches


def ranges(rng: np.random.Generator) -> int:
    """The same for the range of a channel, whose tasks keep what they have in the workspace."""
    memory = {name: Guarded(1 << 23) for name in ("x", "least", "greatest", "workspace")}
    rows = [((2, 3, n), 1) for n in boundaries(1, 32, 256)] + [((n,), None) for n in boundaries(16384)]
    lanes = [((o, c), 1) for o in (1, 9, 33) for c in (3, 31, 33, 65, 2047, 2049, 4099)] + [((600, 2049), 1)]
    launches = 0
    for iteration, listed in (("rows", rows), ("lanes", lanes)):
        for (shape, axis), at_end in ((c, e) for c in listed for e in (False, True)):
            x = memory["x"].array(shape, "float32", at_end)
            x[...] = rng.standard_normal(shape)
            call = check_range_of(describe(x, "x"), axis)
            launch = prepare(call, iteration=iteration)
            found = [memory[name].array(call.result_shape, "float32", at_end) for name in ("least", "greatest")]
            workspace = memory["workspace"].array((launch.workspace_size,), "u1", at_end)
            tensors = [AddressTensor(a.ctypes.data) for a in (x, *found)]
            launch_on(launch, tensors, AddressTensor(workspace.ctypes.data))
            assert_same(found, reference.channel_range(x, axis))
            launches += 1
    return launches


def main() -> None:
    memory = {name: Guarded(1 << 22) for name in ("x", "scale", "zero_point", "out", "mask", "workspace")}
    rng = np.random.default_rng(2)
    launches = 0
    for spec in catalogue():
        quant_range = (-(2**31), 2**31 - 1) if spec.wide else (-128, 127)
        for (shape, axis), at_end in ((c, e) for c in cases(spec) for e in (False, True)):
            data = make(rng, shape, axis, spec.dtype, spec.scale_dtype, quant_range)
            arrays = [memory[n].array(a.shape, a.dtype.name, at_end) for n, a in zip(memory, data, strict=False)]
            for array, values in zip(arrays, data, strict=True):
                array[...] = values
            x = arrays[0]
            if spec.strided:
                # every second element, the first and the last one at the edges of the memory
                whole = memory["x"].array((2 * x.size - 1,), spec.dtype, at_end)
                x = np.lib.stride_tricks.as_strided(whole, shape, [2 * s for s in x.strides])
                x[...] = data[0]
            out = memory["out"].array(shape, spec.out_dtype, at_end)
            mask = memory["mask"].array(shape, "bool", at_end)
            checked = checked_arguments((x, *arrays[1:], out, mask), axis, *quant_range)
            launch = prepare(checked)
            assert isinstance(launch, Launch)
            assert launch.kernel.spec == spec, (launch.kernel.spec, spec)
            wanted = expected(*data, axis, *quant_range, spec.out_dtype)
            for each in (launch, *past_caches(checked, launch)):
                workspace = memory["workspace"].array((each.workspace_size,), "u1", at_end)
                out.fill(7)
                mask.fill(0)
                tensors = [AddressTensor(o.address) for o in checked.operands]
                launch_on(each, tensors, AddressTensor(workspace.ctypes.data))
                assert_same((out, mask), wanted)
                launches += 1
    print("ok", launches + learnable_gradients(rng) + ranges(rng))


def fault(side: str) -> None:
    """Show that a page really faults: read one byte outside."""
    memory = Guarded(PAGE)
    ctypes.c_char.from_address(memory.base - 1 if side == "before" else memory.base + PAGE).value  # noqa: B018


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else fault(sys.argv[1])

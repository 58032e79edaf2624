"""The operator as a tensor expression and as a function of TensorIR: the reference's bits, under others' schedules."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tvm
import tvm_ffi
from support import array_at, assert_same, expected, make, tie_share
from tvm import s_tir
from tvm import te as expressions

import fq_tvm
from fq_tvm import ArgumentError

WIDE = (-(2**31), 2**31 - 1)


def target() -> tvm.target.Target:
    return tvm.target.Target.from_device("cpu")


def aligned(array, offset=0):
    copy = array_at(offset, array.shape, array.dtype)
    copy[...] = array
    return copy


def run(func, arrays, axis, low, high, out_dtype=None, offset=0):
    """Compile and run; TVM takes every tensor of its own functions to begin with a line."""
    x = arrays[0]
    results = [aligned(np.zeros(x.shape, dtype), offset) for dtype in (out_dtype or x.dtype, bool)]
    module = tvm.compile(func, target=target())
    module["main"](*map(tvm_ffi.from_dlpack, (*(aligned(a, offset) for a in arrays), *results)))
    assert_same(results, expected(*arrays, axis, low, high, out_dtype))


def stated(shape, arrays, axis, low, high, **more):
    shapes = (shape, *(a.shape for a in arrays[1:]))
    placeholders = [expressions.placeholder(s, a.dtype.name) for s, a in zip(shapes, arrays, strict=True)]
    results = fq_tvm.te(*placeholders, axis, low, high, **more)
    return expressions.create_prim_func([*placeholders, *results], "int64")


@pytest.mark.parametrize(
    ("shape", "axis", "dtypes", "quant_range"),
    [
        ((3, 5, 40), 1, ("float32", "float32", "int32"), (-128, 127)),
        ((3, 5, 40), -1, ("float16", "float32", "int32"), (-8, 7)),
        ((300,), None, ("float32", "float16", "float16"), (0, 255)),
        ((4, 60), 0, ("float32", "float32", "int32"), WIDE),
    ],
)
def test_te(shape, axis, dtypes, quant_range):
    kinds = {"quant_range": quant_range, "zero_point_dtype": dtypes[2]}
    arrays = make(np.random.default_rng(4), shape, axis, *dtypes[:2], **kinds)
    assert tie_share(*arrays[:2], axis, arrays[2]) > 0.25
    run(stated(shape, arrays, axis, *quant_range), arrays, axis, *quant_range)


def test_te_under_a_schedule_of_ones_own():
    """With symbolic rows, another dtype of out, and a vector that does not divide the inner loop."""
    arrays = make(np.random.default_rng(6), (7, 6, 50), 1)
    func = stated((expressions.var("n", "int64"), 6, 50), arrays, 1, -128, 127, out_dtype="float16")
    sch = s_tir.Schedule(func)
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        if not sch.get(block).name_hint.startswith("fake_quant"):
            sch.compute_inline(block)
    *outer, inner = sch.get_loops(sch.get_sblock("fake_quant_v0"))
    _, lanes = sch.split(inner, [None, 16])
    sch.vectorize(lanes)
    sch.parallel(sch.fuse(*outer))
    run(sch.mod["main"], arrays, 1, -128, 127, "float16")


def test_te_clips_a_nan_as_it_is_told():
    arrays = [aligned(a) for a in (np.float32([np.nan, 0.25]), np.float32([0.5]), np.int32([1]))]
    func = stated((2,), arrays, None, -4, 3, nan="quant_max")
    out, mask = aligned(np.zeros(2, "f4")), aligned(np.zeros(2, bool))
    tvm.compile(func, target=target())["main"](*map(tvm_ffi.from_dlpack, (*arrays, out, mask)))
    assert out[0] == (3 - 1) * 0.5 and not mask[0]
    assert mask[1]


@pytest.mark.parametrize(
    ("shape", "axis", "dtypes", "quant_range"),
    [
        ((2, 6, 500), 1, ("float32", "float32", "int32"), (-128, 127)),
        ((70, 30), -1, ("float16", "float32", "int32"), (-128, 127)),
        ((70, 3000), 1, ("float32", "float32", "int32"), WIDE),
        ((40, 50), None, ("float32", "float32", "float32"), (0, 255)),
    ],
)
def test_prim_func(shape, axis, dtypes, quant_range):
    kinds = {"quant_range": quant_range, "zero_point_dtype": dtypes[2]}
    arrays = make(np.random.default_rng(8), shape, axis, *dtypes[:2], **kinds)
    func = fq_tvm.prim_func(shape, axis, *quant_range, dtypes, target())
    assert func.attrs["global_symbol"] == "main" and func.attrs["tirx.is_scheduled"]
    run(func, arrays, axis, *quant_range, offset=arrays[0].itemsize)


def test_prim_func_of_symbolic_extents():
    func = fq_tvm.prim_func((expressions.var("n", "int64"), 6, expressions.var("m", "int64")), 1, -128, 127)
    for shape in ((3, 6, 40), (1, 6, 1)):
        run(func, make(np.random.default_rng(1), shape, 1), 1, -128, 127)


def placeholders(shape=(4, 6), channels=6, scale="float32"):
    vectors = (expressions.placeholder((channels,), dtype) for dtype in (scale, "int32"))
    return [expressions.placeholder(shape, "float32"), *vectors]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fq_tvm.te(*placeholders(), 2, -1, 1), "axis is 2"),
        (lambda: fq_tvm.te(*placeholders(), 0, -1, 1), r"scale has shape \[6\]; expected \[4\]"),
        (lambda: fq_tvm.te(*placeholders(), None, -1, 1), r"scale has shape \[6\]; expected \[1\]"),
        (lambda: fq_tvm.te(*placeholders(()), None, -1, 1), "x has 0 dimensions"),
        (lambda: fq_tvm.te(*placeholders(scale="float64"), 1, -1, 1), "scale has dtype float64"),
        (lambda: fq_tvm.te(*placeholders(), 1, -1, 1, "int8"), "out has dtype int8"),
        (lambda: fq_tvm.te(*placeholders(), 1, 1, -1), "quant_min is 1 and quant_max is -1"),
        (lambda: fq_tvm.te(*placeholders(), 1, -1, 1, nan="zero"), "nan is 'zero'"),
        (lambda: fq_tvm.prim_func((1,) * 9, 0, -1, 1), "x has 9 dimensions"),
        (lambda: fq_tvm.prim_func((4, 6), 0, -1, 2**63), "expected an int64"),
        (lambda: fq_tvm.prim_func((4, 6), 0, -1, 1, ("float32", "float32", "int8")), "zero_point has dtype int8"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ArgumentError, match=said):
        call()


def test_the_package_alone_imports_no_compiler():
    code = "import sys, fq_tvm; dir(fq_tvm); assert not {'tvm', 'tvm_ffi', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)

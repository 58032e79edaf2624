"""The list of primitives says what the expression says: evaluated, it equals the reference bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from ascend_data import bit_differences, tie_heavy
from hypothesis import given, settings
from hypothesis import strategies as st

from fq_tvm import reference
from fq_tvm.ascend import Problem
from fq_tvm.ascend.program import Constant, Step, Value, fake_quant_program, trace
from fq_tvm.errors import ArgumentError, FqError

FLOATS = ("float16", "float32")
RANGES = ((-128, 127), (0, 255), (-8, 7), (-32768, 32767), (5, 5), (-(2**23), 2**23))
WIDE = ((-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1), (0, 2**53 + 1))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    axis=st.integers(0, 7),
    dtype=st.sampled_from(FLOATS),
    scale_dtype=st.sampled_from(FLOATS),
    quant_range=st.sampled_from(RANGES + WIDE),
    seed=st.integers(0, 2**32 - 1),
)
def test_evaluates_to_the_reference(shape, axis, dtype, scale_dtype, quant_range, seed):
    axis %= len(shape)
    program = fake_quant_program(shape, axis, dtype, scale_dtype, *quant_range)
    narrow = tuple(int(np.clip(bound, -(2**20), 2**20)) for bound in quant_range)
    x, scale, zero_point = tie_heavy(tuple(shape), axis, dtype, scale_dtype, *narrow, seed=seed)
    out, mask = program.evaluate(x, scale, zero_point)
    expected, expected_mask = reference.fake_quant(x, scale, zero_point, axis, *quant_range)
    assert bit_differences(out, expected) == 0
    assert bit_differences(mask, expected_mask) == 0


def test_makes_every_value_once_and_before_its_use():
    program = fake_quant_program((2, 3, 4), 1, "float16", "float16", -128, 127)
    known = {v.name for v in program.inputs}
    for step in program.steps:
        assert all(o.name in known for o in step.operands if isinstance(o, Value))
        assert step.result.name not in known
        known.add(step.result.name)
    steps = [(s.primitive, s.operands, s.result.dtype, s.result.dims) for s in program.steps]
    assert len(set(steps)) == len(steps)


def test_shares_what_both_outputs_need():
    program = fake_quant_program((2, 3, 4), 1, "float32", "float32", -128, 127)
    names = [s.primitive for s in program.steps]
    assert names.count("round_half_even") == names.count("maximum") == names.count("minimum") == 1


def test_golden(golden):
    golden("narrow.program.txt", str(fake_quant_program((2, 3, None), 1, "float16", "float16", -128, 127)))
    golden("wide.program.txt", str(fake_quant_program((2, 3, 4), 1, "float32", "float32", -(2**31), 2**31 - 1)))


def test_an_unknown_primitive_is_named():
    from tvm import te

    x = te.placeholder((4,), "float32", "x")
    with pytest.raises(FqError, match=r"tirx\.erf.*no primitive.*known: Add"):
        trace((x,), {"y": te.compute((4,), lambda i: te.erf(x[i]), name="y")})


def test_what_is_not_element_by_element_is_refused():
    from tvm import te

    x = te.placeholder((4, 4), "float32", "x")
    k = te.reduce_axis((0, 4), "k")
    with pytest.raises(FqError, match="computed index"):
        trace((x,), {"y": te.compute((3, 4), lambda i, j: x[i + 1, j] + x[i, j], name="y")})
    with pytest.raises(FqError, match="across dimensions"):
        trace((x,), {"y": te.compute((4, 4), lambda i, j: x[j, i] * x[j, i], name="y")})
    with pytest.raises(FqError, match="element-wise"):
        trace((x,), {"y": te.compute((4,), lambda i: te.sum(x[i, k], axis=k), name="y")})
    with pytest.raises(FqError, match="unchanged"):
        trace((x,), {"y": te.compute((4, 4), lambda i, j: x[i, j], name="y")})
    z = te.placeholder((4, 4), "float32", "z")
    with pytest.raises(FqError, match="never reads its input z"):
        trace((x, z), {"y": te.compute((4, 4), lambda i, j: x[i, j] + x[i, j], name="y")})


def test_refuses_inputs_of_another_kind():
    program = fake_quant_program((2, 3), 1, "float32", "float32", -128, 127)
    x, scale, zero_point = np.zeros((2, 3), "f4"), np.ones(3, "f4"), np.zeros(3, "i4")
    with pytest.raises(FqError, match="input scale is float16"):
        program.evaluate(x, scale.astype("f2"), zero_point)
    with pytest.raises(FqError, match="takes 3 inputs"):
        program.evaluate(x, scale)


def test_a_step_reads_as_text():
    step = Step(Value("y", "float32", (0, 1)), "maximum", (Value("x", "float32", (0, 1)), Constant(-8.0, "float32")))
    assert str(step) == "y: float32[0x1] = maximum(x, -8.0)"


@pytest.mark.parametrize(
    ("shape", "axis", "collapsed", "dims"),
    [
        ((5,), 0, (5,), ("channels",)),
        ((2, 5), 1, (2, 5), ("outer", "channels")),
        ((1, 5, 1, 1), 1, (5,), ("channels",)),
        ((2, 3, 5, 7, 11), 2, (6, 5, 77), ("outer", "channels", "inner")),
        ((None, 5, -1, 3), 1, (None, 5, None), ("outer", "channels", "inner")),
        ((None, 1), 1, (None, 1), ("outer", "channels")),
    ],
)
def test_collapsing(shape, axis, collapsed, dims):
    problem = Problem(shape, axis).collapsed()
    assert (problem.shape, problem.dims) == (collapsed, dims)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": ()}, "1 to 8"),
        ({"shape": (1,) * 9}, "1 to 8"),
        ({"shape": (2, 0)}, "empty"),
        ({"axis": 2}, "axis is 2"),
        ({"axis": -3}, "axis is -3"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'"),
        ({"scale_dtype": "float64"}, "scale_dtype is 'float64'"),
        ({"quant_min": 1, "quant_max": 0}, "above quant_max"),
        ({"quant_max": 2**23 + 1}, "float64, which no Ascend vector unit has"),
    ],
)
def test_a_problem_is_checked(change, message):
    with pytest.raises(ArgumentError, match=message):
        Problem(**{"shape": (2, 3), "axis": 1, **change})

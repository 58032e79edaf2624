"""Formulas other than the contract's, and kernels without a mask: the reference's bits in every class."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from support import RANGES, assert_same, bits, channel_view, launch_on, make

from fq_tvm import FakeQuantSpec, FqError
from fq_tvm.launch.arguments import check, describe_all
from fq_tvm.launch.registry import prepare
from fq_tvm.reference import fake_quant
from fq_tvm.spec import Formula

BREVITAS = {"form": "division", "zero_point_placement": "before", "keep_zero_sign": True}
SPECS = [
    FakeQuantSpec("rows", form="division", keep_zero_sign=True),
    FakeQuantSpec("rows", zero_point_dtype="float32", **BREVITAS),
    FakeQuantSpec("rows", "float16", out_dtype="float16", nan="quant_max", mask=False),
    FakeQuantSpec("rows", zero_point_placement="before", nan="quant_max"),
    FakeQuantSpec("rows", arithmetic="wide", mask=False, **BREVITAS),
    FakeQuantSpec("lanes", form="division", mask=False),
    FakeQuantSpec("lanes", "float16", out_dtype="float16", form="division"),
    FakeQuantSpec("lanes", zero_point_dtype="float32", zero_point_placement="before", keep_zero_sign=True),
    FakeQuantSpec("strided_rows", form="division", zero_point_placement="before", nan="quant_max"),
    FakeQuantSpec("strided_rows", zero_point_dtype="float32", zero_point_placement="after", mask=False),
    FakeQuantSpec("strided_lanes", zero_point_dtype="float32", mask=False, nan="quant_max", **BREVITAS),
]
SHAPES = {  # short rows and long ones; a run of several rows with a tail, long runs, and the direct form
    "rows": [((5, 7, 50), 1), ((8, 2100), 0), ((1,), 0)],
    "lanes": [((70, 61), 1), ((9, 1200), 1), ((3, 40), 1)],
    "strided_rows": [((5, 7, 40), 1), ((4, 3, 5, 33), 2)],
    "strided_lanes": [((20, 21), 1), ((6, 5, 40), 2)],
}
ODD_SCALES = np.array([0.0, -0.0, -0.5, 1e-40, np.inf, np.nan, 0.3, 0.7], "f4")
ODD_ZERO_POINTS = np.array([0.0, -0.0, 0.5, 0.3, -7.0, np.inf, -np.inf, np.nan], "f4")


def draws(spec: FakeQuantSpec, seed: int):
    """Inputs of every shape and two ranges: with most zero points 0, so that signs of zeros show; some odd ones."""
    rng = np.random.default_rng(seed)
    ranges = [r for r in RANGES if (max(map(abs, r)) > 2**23) == spec.wide and r != (0, 0)]
    for shape, axis in SHAPES[spec.iteration]:
        for low, high in rng.permutation(np.array(ranges, object))[:2]:
            x, scale, zero_point = make(
                rng, shape, axis, spec.dtype, spec.scale_dtype, (low, high), zero_point_dtype=spec.zero_point_dtype
            )
            s = channel_view(scale, axis, len(shape)).astype("f4")
            x = np.where(rng.random(shape) < 0.3, (rng.integers(-9, 9, shape) + 0.5) * s, x).astype(spec.dtype)
            x = np.where(rng.random(shape) < 0.05, x.dtype.type(-0.003), x)
            zero_point = np.where(rng.random(len(scale)) < 0.5, zero_point.dtype.type(0), zero_point)
            yield x, scale, zero_point, axis, low, high
            zero_points = ODD_ZERO_POINTS if spec.float_zero_point else np.array([0, 2**23 + 1, -(2**31), 3], "i4")
            odd = rng.choice(ODD_SCALES, len(scale)), rng.choice(zero_points, len(scale)).astype(zero_point.dtype)
            yield x, *odd, axis, low, high


def tie_share(spec: FakeQuantSpec, x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int) -> float:
    """Return the share of elements that are halfway between two integers where the formula rounds them."""
    s, z = (channel_view(v.astype("f4"), axis, x.ndim) for v in (scale, zero_point))
    with np.errstate(all="ignore"):
        t = x.astype("f4") / s if spec.form == "division" else x.astype("f4") * (np.float32(1) / s)
        rounded = t + z if spec.zero_point_placement == "before" else t
        return float(np.mean(np.abs(rounded - np.trunc(rounded)) == 0.5))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_quarter_of_the_data_are_ties(spec):
    plain = [arguments for number, arguments in enumerate(draws(spec, 0)) if number % 2 == 0]
    assert np.mean([tie_share(spec, *arguments[:4]) for arguments in plain]) > 0.25


def placed(spec: FakeQuantSpec, x: np.ndarray) -> np.ndarray:
    return np.repeat(x, 2, axis=-1)[..., ::2] if spec.strided else x


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_the_references_bits(spec):
    for x, *rest in draws(spec, 0):
        want = fake_quant(x, *rest, spec.out_dtype, **asdict(spec.formula))
        out, mask = np.empty(x.shape, spec.out_dtype), np.empty(x.shape, bool)
        arrays = (placed(spec, x), *rest[:2], out, *([mask] if spec.mask else []))
        checked = check(describe_all(arrays), *rest[2:], formula=spec.formula)
        for knobs in ({}, {"parallel_from": 1, "stream_from": 1}):
            launch = prepare(checked)
            launch = prepare(checked, schedule=replace(launch.kernel.schedule, **knobs))
            assert launch.kernel.spec.name.removeprefix("fq_") == spec.name.removeprefix("fq_")
            out.view("u1").fill(0xA5)
            mask[...] = False
            launch_on(launch, [operand.tensor for operand in checked.operands])
            assert_same((out, mask if spec.mask else want[1]), want)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_the_data_tell_the_formulas_apart(spec):
    """The test above would fail for a kernel of a formula that differs in one field."""
    others: dict[str, dict[str, object]] = {
        "form": {"form": "reciprocal" if spec.form == "division" else "division"},
        "placement": {"zero_point_placement": "after", "keep_zero_sign": False}
        if spec.zero_point_placement == "before"
        else {"zero_point_placement": "before"},
        "nan": {"nan": "quant_min" if spec.nan == "quant_max" else "quant_max"},
    }
    if spec.zero_point_placement == "before":
        others["sign"] = {"keep_zero_sign": not spec.keep_zero_sign}
    for what, fields in others.items():
        other = replace(spec.formula, **fields)
        differ = 0
        for arguments in draws(spec, 0):
            one, two = (fake_quant(*arguments, spec.out_dtype, **asdict(f))[0] for f in (spec.formula, other))
            differ += np.count_nonzero(bits(one) != bits(two))
        assert differ, what


def test_without_a_mask_nothing_of_it_is_there():
    spec = FakeQuantSpec("rows", "float16", out_dtype="float16", mask=False)
    x, scale, zero_point = make(np.random.default_rng(0), (4, 64), 0, "float16")
    checked = check(describe_all((x, scale, zero_point, np.empty_like(x))), 0, -128, 127)
    launch = prepare(checked)
    assert launch.kernel.spec == spec
    assert spec.element_bytes == 4
    assert "mask" not in launch.kernel.source("tir")
    assert "i8>" not in launch.kernel.source("ll")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "quotient"}, "form is 'quotient'; expected one of reciprocal, division"),
        ({"zero_point_placement": "during"}, "zero_point_placement is 'during'; expected one of None, after, before"),
        ({"keep_zero_sign": 1}, "keep_zero_sign is 1; expected one of False, True"),
        ({"nan": "zero"}, "nan is 'zero'; expected one of quant_min, quant_max"),
        ({"nan": False}, "nan is False; expected"),
    ],
)
def test_formulas_that_there_are_not(fields, message):
    with pytest.raises(FqError, match=message):
        Formula(**fields).of("int32")
    with pytest.raises(FqError, match=message):
        FakeQuantSpec("rows", **fields)
    with pytest.raises(FqError, match=message):
        fake_quant(np.float32([1]), np.float32([1]), np.int32([0]), 0, -8, 7, **fields)

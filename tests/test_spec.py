"""Specifications: what they accept, JSON, the catalogue."""

from __future__ import annotations

import json
import math

import pytest

from fq_tvm import FakeQuantSpec, FqError, catalogue
from fq_tvm.schedule import Schedule, default_schedule
from fq_tvm.spec import arithmetic_for, quant_range_scalars


def test_catalogue_is_finite_distinct_and_round_trips():
    specs = catalogue()
    assert len(specs) == len(set(specs)) == 64
    assert len({spec.name for spec in specs}) == 64
    for spec in specs:
        assert FakeQuantSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert specs == catalogue()


def test_catalogue_filters():
    chosen = catalogue(iteration="rows", dtype="float16", arithmetic="wide")
    assert len(chosen) == 4
    assert all(s.iteration == "rows" and s.dtype == "float16" and s.wide for s in chosen)
    with pytest.raises(FqError, match=r"float64.*float32"):
        catalogue(dtype="float64")


def test_the_catalogue_beyond_the_contract():
    contract, everything = catalogue(), catalogue(extensions=True)
    assert len(everything) == len({spec.name for spec in everything}) == 3 * 3 * 3 * 3 * 4 * 2
    assert set(contract) < set(everything)
    for spec in everything:
        beyond = "bfloat16" in (spec.dtype, spec.scale_dtype, spec.out_dtype) or spec.zero_point_dtype != "int32"
        assert beyond == (spec not in contract)
        assert FakeQuantSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("field", "value"), [("dtype", "bfloat16"), ("out_dtype", "bfloat16"), ("zero_point_dtype", "float32")]
)
def test_a_dtype_beyond_the_contract_selects_its_kernels(field, value):
    chosen = catalogue(**{field: value})
    assert chosen == tuple(s for s in catalogue(extensions=True) if getattr(s, field) == value)
    assert len(chosen) == 216


@pytest.mark.parametrize(
    ("zero_point_dtype", "arithmetic", "taken"),
    [
        ("int32", "narrow", "float32"),
        ("int32", "wide", "int32"),
        ("float16", "narrow", "float32"),
        ("float16", "wide", "float32"),
    ],
)
def test_the_dtype_that_the_zero_point_is_taken_in(zero_point_dtype, arithmetic, taken):
    spec = FakeQuantSpec("lanes", zero_point_dtype=zero_point_dtype, arithmetic=arithmetic)
    assert spec.parameter_dtype == taken
    assert spec.float_zero_point == (zero_point_dtype != "int32")


def test_forms_are_listed_on_request():
    plain = catalogue()
    for fields in (
        {"form": "division"},
        {"mask": False},
        {"nan": "quant_max"},
        {"zero_point_placement": "before", "keep_zero_sign": True},
    ):
        chosen = catalogue(**fields)
        assert len(set(chosen)) == len({spec.name for spec in chosen} | {spec.name for spec in plain}) - 64 == 64
        for spec in chosen:
            assert all(getattr(spec, name) == value for name, value in fields.items())
            assert FakeQuantSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert catalogue(form="reciprocal", mask=True, nan="quant_min") == plain
    with pytest.raises(FqError, match=r"unknown field of FakeQuantSpec: flavor; known: arithmetic, dtype"):
        catalogue(flavor=1)


def test_what_the_contract_has_keeps_its_name_and_its_json():
    """Both are a part of the identity of kernels and records that there are."""
    spec = FakeQuantSpec("lanes", "float16", zero_point_dtype="float32")
    assert spec.zero_point_placement == "before"
    assert spec == FakeQuantSpec("lanes", "float16", zero_point_dtype="float32", zero_point_placement="before")
    assert spec.name == "fq_lanes_f16_f32_f32_f32_narrow"
    assert [*spec.to_json()] == ["iteration", "dtype", "scale_dtype", "out_dtype", "zero_point_dtype", "arithmetic"]
    other = FakeQuantSpec("rows", form="division", zero_point_placement="before", keep_zero_sign=True, mask=False)
    assert other.name == "fq_rows_f32_f32_i32_f32_narrow_division_before_signed_nomask"
    assert other.to_json().items() > {"form": "division", "keep_zero_sign": True, "mask": False}.items()


@pytest.mark.parametrize("value", [0, "no", None])
def test_a_mask_is_there_or_not(value):
    with pytest.raises(FqError, match=r"mask is .*; expected True or False"):
        FakeQuantSpec("rows", mask=value)


@pytest.mark.parametrize("field", ["iteration", "dtype", "scale_dtype", "out_dtype", "zero_point_dtype", "arithmetic"])
def test_a_value_outside_its_set_is_named(field):
    with pytest.raises(FqError, match=f"{field} is 'nonsense'; expected one of"):
        FakeQuantSpec(**{"iteration": "rows", field: "nonsense"})


def test_unknown_fields_are_refused():
    with pytest.raises(FqError, match="flavor"):
        FakeQuantSpec.from_json({"iteration": "rows", "flavor": 1})
    with pytest.raises(FqError, match="iteration"):
        FakeQuantSpec.from_json({})
    with pytest.raises(FqError, match="warp"):
        Schedule.from_json({"warp": 3})


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_schedule_knobs_are_positive_integers(value):
    with pytest.raises(FqError, match="positive integer"):
        Schedule(tile=value)


def test_schedules_round_trip():
    for spec in catalogue():
        schedule = default_schedule(spec)
        assert Schedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule


def test_promotion():
    assert FakeQuantSpec("rows", "float16", "float16").promoted_dtype == "float16"
    assert FakeQuantSpec("rows", "float16", "float32").promoted_dtype == "float32"
    assert FakeQuantSpec("rows", "float32", "float16").promoted_dtype == "float32"
    assert FakeQuantSpec("rows", "bfloat16", "bfloat16").promoted_dtype == "bfloat16"
    assert FakeQuantSpec("rows", "bfloat16", "float32").promoted_dtype == "float32"
    assert FakeQuantSpec("rows", "bfloat16", "float16").promoted_dtype == "float32"


def test_the_narrow_path_ends_at_two_to_the_23():
    assert arithmetic_for(-(2**23), 2**23) == "narrow"
    assert arithmetic_for(-(2**23) - 1, 0) == "wide"
    assert arithmetic_for(0, 2**23 + 1) == "wide"


@pytest.mark.parametrize("bound", [2**23 + 1, 2**53 + 1, 2**62 - 1, 2**63 - 1])
def test_wide_scalars_enclose_the_range_exactly(bound):
    low, high, least, greatest = quant_range_scalars(-bound, bound)
    assert (low, high) == (float(-bound), float(bound))
    assert -bound <= int(least)
    assert int(greatest) <= bound
    assert math.floor(math.nextafter(least, -math.inf)) < -bound
    assert math.ceil(math.nextafter(greatest, math.inf)) > bound

"""The Relax operator: its type, its texts, what it refuses."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest
import tvm
import tvm_ffi
from relax_modules import OP, N, module, operator
from support import make
from tvm import relax

import fq_tvm
import fq_tvm.relax


def test_importing_the_package_registers_nothing():
    script = (
        "import fq_tvm, sys; fq_tvm.FqError; assert 'tvm' not in sys.modules; assert 'fq_tvm.relax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_registering_again_changes_nothing():
    importlib.reload(fq_tvm.relax)
    x, scale, zero_point = make(np.random.default_rng(0), (2, 3), 1)
    assert OP in operator(x, scale, zero_point, 1, -8, 7).script()


@pytest.mark.parametrize(
    "formula",
    [
        {"nan": "quant_max"},
        {"form": "division", "zero_point_placement": "before", "keep_zero_sign": True},
    ],
)
@pytest.mark.parametrize("types", [((N, 4, N * 2), (4,), 1), ((3, 4), (1,), None), ((3, 4), (), None)])
def test_texts_round_trip(types, formula):
    shape, parameters, axis = types
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask
    all_types = [(shape, "float32"), (parameters, "float32"), (parameters, "int32")]
    mod = module(all_types, lambda emit, *tensors: emit(call(*tensors, axis, -128, 127, **formula)))
    assert tvm_ffi.structural_equal(tvm.script.from_source(mod.script()), mod, map_free_vars=True)
    assert tvm_ffi.structural_equal(tvm.ir.load_json(tvm.ir.save_json(mod)), mod)


@pytest.mark.parametrize("rank", [3, -1])
def test_unknown_shapes(rank):
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask
    x = relax.Var("x", relax.TensorType(dtype="float32", ndim=rank))
    scale, zero_point = (relax.Var("p", relax.TensorType((4,), d)) for d in ("float32", "int32"))
    out, mask = relax.BlockBuilder().normalize(call(x, scale, zero_point, 1, -8, 7)).ty.fields
    assert out.ndim == mask.ndim == rank
    assert str(mask.dtype.dtype) == "bool"


@pytest.mark.parametrize(
    ("types", "axis", "message"),
    [
        ([((3, 4), "float32"), ((3,), "float32"), ((4,), "int32")], 1, "scale has 3 elements; expected 4"),
        ([((3, N), "float32"), ((N + 1,), "float32"), ((N,), "int32")], 1, "scale has n . .* elements; expected n"),
        ([((3, 4), "float32"), ((4, 1), "float32"), ((4,), "int32")], 1, "scale has 2 dimensions"),
        ([((3, 4), "int8"), ((4,), "float32"), ((4,), "int32")], 1, "x has dtype int8"),
        ([((3, 4), "float32"), ((4,), "float32"), ((4,), "int64")], 1, "zero_point has dtype int64"),
        ([((3, 4), "float32"), ((4,), "float32"), ((4,), "int32")], 2, "axis is 2; expected one from -2 to 1"),
        ([((3, 4), "float32"), ((4,), "float32"), ((4,), "int32")], None, "expected 1"),
        ([((1,) * 9, "float32"), ((1,), "float32"), ((1,), "int32")], 0, "x has 9 dimensions"),
    ],
)
def test_wrong_arguments_are_refused(types, axis, message):
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask
    x, scale, zero_point = (relax.Var("v", relax.TensorType(*t)) for t in types)
    with pytest.raises(fq_tvm.ArgumentError, match=message):
        relax.BlockBuilder().normalize(call(x, scale, zero_point, axis, -8, 7))


def test_what_the_contract_says_anyway_is_not_written():
    x, scale, zero_point = make(np.random.default_rng(0), (2, 3), 1)
    for placement, z in (("after", zero_point), ("before", zero_point.astype("f4"))):
        plain = operator(x, scale, z, 1, -8, 7)
        spelled = {"form": "reciprocal", "zero_point_placement": placement, "keep_zero_sign": False, "nan": "quant_min"}
        assert tvm_ffi.structural_equal(operator(x, scale, z, 1, -8, 7, **spelled), plain)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ({"form": "product"}, "form is 'product'; expected one of reciprocal, division"),
        ({"nan": 0}, "nan is 0"),
        ({"keep_zero_sign": 1}, "keep_zero_sign is 1; expected one of False, True"),
        ({"order": "after"}, "has no attribute order"),
    ],
)
def test_wrong_formulas_are_refused(formula, message):
    x, scale, zero_point = make(np.random.default_rng(0), (2, 3), 1)
    with pytest.raises(fq_tvm.ArgumentError, match=message):
        operator(x, scale, zero_point, 1, -8, 7, **formula)


def test_wrong_ranges_are_refused():
    x, scale, zero_point = make(np.random.default_rng(0), (2, 3), 1)
    with pytest.raises(fq_tvm.ArgumentError, match="quant_min <= quant_max"):
        operator(x, scale, zero_point, 1, 7, -8)

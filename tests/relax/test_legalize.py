"""Calls of the operator become kernels: bit for bit as the reference."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from relax_modules import H, N, const, module, operator, run, target
from support import SPECIALS, assert_same, expected, make
from tvm import relax

import fq_tvm.relax
from fq_tvm.launch.registry import current_target
from fq_tvm.reference import fake_quant
from fq_tvm.relax import LegalizeFakeQuant
from fq_tvm.schedule import Schedule
from fq_tvm.store import records
from fq_tvm.store.records import Record, RecordFile


@pytest.mark.parametrize(
    ("shape", "symbolic", "axis", "dtype", "quant_range"),
    [
        ((3, 5, 70), None, 1, "float32", (-128, 127)),
        ((3, 5, 70), (N, 5, H), 1, "float32", (-128, 127)),
        ((3, 5, 70), None, -1, "float16", (0, 255)),
        ((30, 1500), (N, 1500), 1, "float32", (-8, 7)),
        ((64, 1100), None, 1, "float32", (-8, 7)),
        ((63, 1100), None, 1, "float32", (-8, 7)),
        ((5, 20000), None, 1, "float32", (-8, 7)),
        ((12, 200, 7), None, 1, "float32", (-8, 7)),
        ((13, 6, 9), (N, 6, 9), 1, "float32", (-8, 7)),
        ((13, 6, 1), (N, H, 1), 1, "float32", (-8, 7)),
        ((3, 0, 4), None, 1, "float32", (-8, 7)),
        ((8, 64, 7, 7), None, 1, "bfloat16", (-128, 127)),
        ((40, 64, 56), None, 2, "float32", (-(2**31), 2**31 - 1)),
        ((70000,), None, None, "float32", (0, 255)),
        ((), None, 0, "float32", (-8, 7)),
        ((0, 4), None, 1, "float32", (-8, 7)),
    ],
)
@pytest.mark.parametrize("pipeline", ["fq_tvm", "default"])
def test_bits(shape, symbolic, axis, dtype, quant_range, pipeline):
    x, scale, zero_point = make(np.random.default_rng(1), shape, axis, dtype, quant_range=quant_range)
    mod = operator(x, scale, zero_point, axis, *quant_range, shape=symbolic)
    got = run(mod, x, scale, zero_point, pipeline=pipeline)
    assert_same(got, expected(x, scale, zero_point, axis, *quant_range))


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_formulas(data):
    shape, symbolic, axis = data.draw(
        st.sampled_from(
            [((3, 5, 70), (N, 5, 70), 1), ((40, 6, 3), (N, 6, 3), 1), ((30, 1500), (30, H), 1), ((70,), None, None)]
        )
    )
    placement = data.draw(st.sampled_from(["after", "before"]))
    formula = {
        "form": data.draw(st.sampled_from(["division", "division", "reciprocal"])),
        "zero_point_placement": placement,
        "keep_zero_sign": data.draw(st.booleans()),
        "nan": data.draw(st.sampled_from(["quant_min", "quant_max"])),
    }
    zero_point_dtype = data.draw(st.sampled_from(["int32", "float32"])) if placement == "before" else "int32"
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x, scale, zero_point = make(
        rng, shape, axis, data.draw(st.sampled_from(["float32", "float16"])), zero_point_dtype=zero_point_dtype
    )
    mod = operator(x, scale, zero_point, axis, -128, 127, shape=data.draw(st.sampled_from([None, symbolic])), **formula)
    assert_same(run(mod, x, scale, zero_point), fake_quant(x, scale, zero_point, axis, -128, 127, **formula))


@pytest.mark.parametrize("shape", [(4, 6, 40), (40, 6, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_zero_points_of_floats(dtype, shape):
    x, scale, zero_point = make(np.random.default_rng(2), shape, 1, zero_point_dtype=dtype)
    got = run(operator(x, scale, zero_point, 1, -128, 127), x, scale, zero_point)
    assert_same(got, expected(x, scale, zero_point, 1, -128, 127))


@pytest.mark.parametrize("nan", ["quant_min", "quant_max"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_channels_whose_zero_point_stays(dtype, nan):
    """Beside those whose zero point is taken off the range, see expression.may_fold."""
    zero_point = np.array([0, 3, 2**23, -(2**23) - 1, 2**31 - 1, 5, 5, 5], "i4")
    scale = np.array([1, 0.5, 0.25, 1, 0.5, 0, -0.5, np.nan], "f4")
    rng = np.random.default_rng(3)
    x = np.where(
        rng.random((4, 8, 70)) < 0.5, rng.integers(-300, 300, (4, 8, 70)) / 2, rng.choice(SPECIALS, (4, 8, 70))
    )
    with np.errstate(all="ignore"):
        x = x.astype(dtype)
        out, mask = expected(x, scale, zero_point, 1, -128, 127)
        if nan == "quant_max":
            s, z = scale[:, None], zero_point[:, None].astype("f4")
            clipped_nan = np.broadcast_to(((np.float32(127) - z) * s).astype(dtype), x.shape)
            out = np.where(np.isnan(x.astype("f4") * (np.float32(1) / s)), clipped_nan, out)
    assert_same(run(operator(x, scale, zero_point, 1, -128, 127, nan=nan), x, scale, zero_point), (out, mask))


def test_a_graph_of_static_shape_takes_the_record_of_its_shape(tmp_path, monkeypatch):
    cpu = current_target().cpu
    record = Record((("iteration", "rows"),), "cache", Schedule(tile=37), extents=(3, 5, 70))
    records.write(tmp_path / f"{cpu}.json", RecordFile(cpu, (record,)))
    monkeypatch.setattr(records, "user_folder", lambda: tmp_path)
    records.forget()
    x, scale, zero_point = make(np.random.default_rng(1), (3, 5, 7, 10), 1)
    mod = operator(x, scale, zero_point, 1, -128, 127)
    try:
        for shape, tiled in ((None, True), ((N, 5, 7, 10), False)):
            of_shape = operator(x, scale, zero_point, 1, -128, 127, shape=shape)
            assert ("T.min(T.int64(37)" in LegalizeFakeQuant()(of_shape).script()) is tiled
        assert_same(run(mod, x, scale, zero_point), expected(x, scale, zero_point, 1, -128, 127))
    finally:
        monkeypatch.undo()
        records.forget()


def test_inputs_need_no_alignment():
    x, scale, zero_point = make(np.random.default_rng(2), (3, 5, 70), 1)
    memory = np.empty(x.size + 17, "f4")
    unaligned = memory[1 : 1 + x.size].reshape(x.shape)
    unaligned[...] = x
    executable = relax.build(operator(x, scale, zero_point, 1, -128, 127), target(), relax_pipeline="fq_tvm")
    out = relax.VirtualMachine(executable, tvm.cpu())["main"](*map(tvm_ffi.from_dlpack, (unaligned, scale, zero_point)))
    assert_same([o.numpy() for o in out], expected(x, scale, zero_point, 1, -128, 127))


def test_the_schedule_survives_and_constants_fold():
    x, scale, zero_point = make(np.random.default_rng(4), (64, 2048), 0)
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask
    mod = operator(x, scale, zero_point, 0, -128, 127)
    with target():
        legal = LegalizeFakeQuant()(mod)
        kept = tvm.transform.Sequential(
            [relax.transform.LegalizeOps(), relax.transform.FuseOps(), relax.transform.FuseTIR()]
        )
        assert "T.parallel" in kept(legal).script()
        parameters = [const(v, v.dtype.name) for v in (x, scale, zero_point)]
        folded = module([((2,), "float32")], lambda emit, _: emit(call(*parameters, 0, -128, 127)))
        folded = relax.transform.FoldConstant()(LegalizeFakeQuant()(folded))
    assert "call_tir" not in folded.script()
    assert_same(run(folded, np.zeros(2, "f4")), expected(x, scale, zero_point, 0, -128, 127))

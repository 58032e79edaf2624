"""The operator, the passes and the pipeline in Relax: bit for bit as the reference and the graph before."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SPECIALS, assert_same, bits, expected, make
from tvm import relax, tirx
from tvm.relax import op

import fq_tvm
import fq_tvm.relax
from fq_tvm.relax import FuseFakeQuant, LegalizeFakeQuant

OP = "R.fq_tvm.fake_quantize_per_channel_affine_cachemask"
N, H = tirx.Var("n", "int64"), tirx.Var("h", "int64")


def target():
    return tvm.target.Target.from_device("cpu")


def const(value, dtype="float32"):
    return relax.const(np.asarray(value, dtype))


def module(types, body):
    """One function of tensors of these types; body takes a function that binds an expression, then the variables."""
    builder = relax.BlockBuilder()
    variables = [relax.Var(f"a{i}", relax.TensorType(*t)) for i, t in enumerate(types)]
    with builder.function("main", variables):
        with builder.dataflow():
            result = body(builder.emit, *variables)
            result = relax.Tuple(list(result)) if isinstance(result, tuple) else result
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return builder.get()


def operator(x, scale, zero_point, axis, low, high, shape=None, **options):
    types = [
        (shape or x.shape, x.dtype.name),
        (scale.shape, scale.dtype.name),
        (zero_point.shape, zero_point.dtype.name),
    ]
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask
    return module(types, lambda emit, *tensors: emit(call(*tensors, axis, low, high, **options)))


def run(mod, *inputs, pipeline="fq_tvm"):
    machine = relax.VirtualMachine(relax.build(mod, target(), relax_pipeline=pipeline), tvm.cpu())
    out = machine["main"](*(tvm.runtime.tensor(np.asarray(i, order="C")) for i in inputs))
    return [o.numpy() for o in ([out] if isinstance(out, tvm.runtime.Tensor) else out)]


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


def test_inputs_need_no_alignment():
    x, scale, zero_point = make(np.random.default_rng(2), (3, 5, 70), 1)
    memory = np.empty(x.size + 17, "f4")
    unaligned = memory[1 : 1 + x.size].reshape(x.shape)
    unaligned[...] = x
    executable = relax.build(operator(x, scale, zero_point, 1, -128, 127), target(), relax_pipeline="fq_tvm")
    out = relax.VirtualMachine(executable, tvm.cpu())["main"](*map(tvm_ffi.from_dlpack, (unaligned, scale, zero_point)))
    assert_same([o.numpy() for o in out], expected(x, scale, zero_point, 1, -128, 127))


@pytest.mark.parametrize("types", [((N, 4, N * 2), (4,), 1), ((3, 4), (1,), None), ((3, 4), (), None)])
def test_texts_round_trip(types):
    shape, parameters, axis = types
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask
    all_types = [(shape, "float32"), (parameters, "float32"), (parameters, "int32")]
    mod = module(all_types, lambda emit, *tensors: emit(call(*tensors, axis, -128, 127, nan="quant_max")))
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


def test_wrong_ranges_are_refused():
    x, scale, zero_point = make(np.random.default_rng(0), (2, 3), 1)
    with pytest.raises(fq_tvm.ArgumentError, match="quant_min <= quant_max"):
        operator(x, scale, zero_point, 1, 7, -8)


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


# Fusing

CLIPS = {
    "clip": lambda emit, q, low, high: op.clip(q, low, high),
    "max_min": lambda emit, q, low, high: op.minimum(emit(op.maximum(q, const(low))), const(high)),
    "min_max": lambda emit, q, low, high: op.maximum(emit(op.minimum(q, const(high))), const(low)),
    "max_min_swapped": lambda emit, q, low, high: op.minimum(emit(op.maximum(const(low), q)), const(high)),
    "nan_stays": lambda emit, q, low, high: op.minimum(const(high), emit(op.maximum(const(low), q))),
}


def chain(
    shape, scale, zero_point, axis, low, high, clip="clip", form="reciprocal", order="before", mask=True, integers=""
):
    def body(emit, x):
        view = [-1 if d == axis else 1 for d in range(len(shape))]
        s, z = scale.reshape(view), zero_point.astype("f4").reshape(view)
        with np.errstate(all="ignore"):
            scaled = op.divide(x, const(s)) if form == "division" else op.multiply(x, const(np.float32(1) / s))
        if order == "before":
            q = emit(op.add(emit(op.round(emit(scaled))), const(z)))
        else:
            q = emit(op.round(emit(op.add(emit(scaled), const(z)))))
        clipped = emit(CLIPS[clip](emit, q, low, high))
        if integers:
            clipped = emit(op.astype(emit(op.astype(clipped, integers)), "float32"))
        out = emit(op.multiply(emit(op.subtract(clipped, const(z))), const(s)))
        if not mask:
            return out
        return out, emit(op.logical_and(emit(op.greater_equal(q, const(low))), emit(op.less_equal(q, const(high)))))

    return module([(shape, "float32")], body)


def pair(shape, scale, zero_point, axis, dtype, other=None):
    def body(emit, x):
        z = const(zero_point, dtype)
        q = emit(op.quantize(x, const(scale), z, axis=axis, out_dtype=dtype))
        return emit(op.dequantize(q, const(scale if other is None else other), z, axis=axis))

    return module([(shape, "float32")], body)


def compare(mod, x, fires, allow_reciprocal=False):
    """Assert that the pass does what it should, and that every bit stays in both pipelines of TVM."""
    fused = FuseFakeQuant(allow_reciprocal)(mod)
    assert fused.script().count(OP) == fires
    if not fires:
        assert tvm_ffi.structural_equal(fused, mod)
        return
    for pipeline in ("default", relax.get_default_pipeline(target())):
        for got, want in zip(run(fused, x, pipeline=pipeline), run(mod, x, pipeline=pipeline), strict=True):
            np.testing.assert_array_equal(bits(got), bits(want))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_rewrite_changes_no_bit(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(st.sampled_from([(2, 6, 9), (6, 40), (5, 3, 6)]))
    axis = shape.index(6)
    low, high = data.draw(st.sampled_from([(-128, 127), (0, 255), (-8, 7)]))
    x, scale, zero_point = make(rng, shape, axis, quant_range=(low, high))
    x.reshape(-1)[: len(SPECIALS)] = np.float32(SPECIALS)
    if data.draw(st.booleans()):
        scale = np.ldexp(np.float32(1), rng.integers(-100, 100, 6)).astype("f4")
    powers = bool((np.frexp(scale)[0] == 0.5).all())
    form = data.draw(st.sampled_from(["reciprocal", "division"]))
    order = data.draw(st.sampled_from(["before", "before", "after"]))
    clip = data.draw(st.sampled_from(sorted(CLIPS)))
    integers = data.draw(st.sampled_from(["", "int32"]))
    mod = chain(shape, scale, zero_point, axis, low, high, clip, form, order, data.draw(st.booleans()), integers)
    fires = clip != "nan_stays" and order == "before" and (form == "reciprocal" or powers)
    compare(mod, x, int(fires))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_pairs(dtype, per_tensor):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x, scale, zero_point = make(np.random.default_rng(6), (2, 6, 9), 1, quant_range=(low, high))
    scale = np.ldexp(np.float32(1), np.arange(-3, 3)).astype("f4")
    if per_tensor:
        scale, zero_point = scale[0], zero_point[0]
    compare(pair(x.shape, scale, zero_point, 1, dtype), x, 1)
    odd = pair(x.shape, scale * np.float32(0.3), zero_point, 1, dtype)
    compare(odd, x, 0)
    assert OP in FuseFakeQuant(allow_reciprocal=True)(odd).script()
    compare(pair(x.shape, scale, zero_point, 1, dtype, other=scale * 2), x, 0)


def test_an_intermediate_that_others_read_is_left_alone():
    s, z = const(np.float32(0.5)), const(3, "int8")

    def body(emit, x):
        q = emit(op.quantize(x, s, z, axis=0, out_dtype="int8"))
        return emit(op.dequantize(q, s, z, axis=0)), q

    mod = module([((6, 4), "float32")], body)
    assert tvm_ffi.structural_equal(FuseFakeQuant(allow_reciprocal=True)(mod), mod)


@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_parameters_of_the_caller(dtype):
    """Scale and zero point as arguments: the reciprocal is computed in the graph."""

    def body(emit, x, scale, zero_point):
        s = emit(op.reshape(scale, (6, 1)))
        z = emit(op.astype(emit(op.reshape(zero_point, (6, 1))), "float32"))
        product = emit(op.multiply(x, emit(op.divide(const(1.0), s))))
        q = emit(op.add(emit(op.round(product)), z))
        return emit(op.multiply(emit(op.subtract(emit(op.clip(q, -128, 127)), z)), s))

    mod = module([((2, 6, 9), "float32"), ((6,), "float32"), ((6,), dtype)], body)
    fused = FuseFakeQuant()(mod)
    assert OP in fused.script()
    x, scale, zero_point = make(np.random.default_rng(7), (2, 6, 9), 1)
    arguments = x, scale, zero_point.clip(-128, 127).astype(dtype)
    for got, want in zip(run(fused, *arguments), run(mod, *arguments, pipeline="default"), strict=True):
        np.testing.assert_array_equal(bits(got), bits(want))


@pytest.mark.parametrize("casts", [[], ["float32"], ["float32", "float32"], ["int32", "float32"], ["int8", "float32"]])
def test_only_a_cast_through_integers_makes_zeros_positive(casts):
    x = np.float32([-0.1, -0.0, 0.1, -1.0, 300.0, np.nan])

    def body(emit, x):
        q = emit(op.clip(emit(op.round(emit(op.multiply(x, const(np.float32(2)))))), -128, 127))
        for dtype in casts:
            q = emit(op.astype(q, dtype))
        return emit(op.multiply(q, const(np.float32(0.5))))

    compare(module([((6,), "float32")], body), x, int(casts[:1] in (["int32"], ["int8"])))


EXTENTS = st.sampled_from([(6, 6), (6, 1), (1, 6), (1, 1), (6,), (1,), ()])


@settings(max_examples=25, deadline=None)
@given(shape=st.sampled_from([(6, 6), (6, 1), (1, 6)]), scale=EXTENTS, zero_point=EXTENTS)
def test_parameters_that_broadcast_in_any_way_keep_their_meaning(shape, scale, zero_point):
    rng = np.random.default_rng(8)
    s = np.ldexp(np.float32(1), rng.integers(-3, 3, scale)).astype("f4")
    z = rng.integers(-20, 20, zero_point).astype("f4")
    x = (rng.integers(-600, 600, shape) / 4).astype("f4")

    def body(emit, x):
        q = emit(op.add(emit(op.round(emit(op.multiply(x, const(np.float32(1) / s))))), const(z)))
        return emit(op.multiply(emit(op.subtract(emit(op.clip(q, -128, 127)), const(z))), const(s)))

    long = {(len(p.shape) - d, n) for p in (s, z) for d, n in enumerate(p.shape) if n != 1}
    fits = all(len(shape) >= d and shape[-d] == n for d, n in long) and len(long) <= 1
    compare(module([(shape, "float32")], body), x, int(fits and max(s.ndim, z.ndim) <= len(shape)))


def test_constants_beside_symbolic_channels():
    """A constant of six elements may not fit the channels; one of one element does, whatever they are."""
    for size, fires in ((6, 0), (1, 1)):
        scale, zero_point = np.full(size, 0.5, "f4"), np.zeros(size, "f4")
        mod = chain((6, N), scale, zero_point, 1, -128, 127, mask=False)
        assert FuseFakeQuant()(mod).script().count(OP) == fires

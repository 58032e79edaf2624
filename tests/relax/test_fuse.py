"""FuseFakeQuant: what it rewrites and what it leaves alone, and that no bit changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from relax_modules import OP, N, const, module, run, target
from support import SPECIALS, bits, make
from tvm import relax, topi
from tvm.relax import op

from fq_tvm.relax import FuseFakeQuant

CLIPS = {
    "clip": lambda emit, q, low, high: op.clip(q, low, high),
    "max_min": lambda emit, q, low, high: op.minimum(emit(op.maximum(q, const(low))), const(high)),
    "min_max": lambda emit, q, low, high: op.maximum(emit(op.minimum(q, const(high))), const(low)),
    "max_min_swapped": lambda emit, q, low, high: op.minimum(emit(op.maximum(const(low), q)), const(high)),
    "nan_stays": lambda emit, q, low, high: op.minimum(const(high), emit(op.maximum(const(low), q))),
}


def chain(
    shape, scale, zero_point, axis, low, high, clip="clip", form="reciprocal", order="after", mask=True, integers=""
):
    def body(emit, x):
        view = [-1 if d == axis else 1 for d in range(len(shape))]
        s, z = scale.reshape(view), zero_point.astype("f4").reshape(view)
        with np.errstate(all="ignore"):
            scaled = op.divide(x, const(s)) if form == "division" else op.multiply(x, const(np.float32(1) / s))
        if order == "after":
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
    order = data.draw(st.sampled_from(["after", "after", "before"]))
    clip = data.draw(st.sampled_from(sorted(CLIPS)))
    integers = data.draw(st.sampled_from(["", "int32"]))
    mod = chain(shape, scale, zero_point, axis, low, high, clip, form, order, data.draw(st.booleans()), integers)
    fires = clip != "nan_stays" and (order == "after" or form == "division")
    compare(mod, x, int(fires))
    text = FuseFakeQuant()(mod).script()
    assert ('form="division"' in text) == (fires and form == "division" and not powers)
    assert 'form="division"' not in FuseFakeQuant(allow_reciprocal=True)(mod).script()


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
    compare(odd, x, 1)
    for allowed, forms in ((False, 1), (True, 0)):
        assert FuseFakeQuant(allowed)(odd).script().count('form="division"') == forms
    compare(pair(x.shape, scale, zero_point, 1, dtype, other=scale * 2), x, 0)


def test_an_intermediate_that_others_read_is_left_alone():
    s, z = const(np.float32(0.5)), const(3, "int8")

    def body(emit, x):
        q = emit(op.quantize(x, s, z, axis=0, out_dtype="int8"))
        return emit(op.dequantize(q, s, z, axis=0)), q

    mod = module([((6, 4), "float32")], body)
    assert tvm_ffi.structural_equal(FuseFakeQuant(allow_reciprocal=True)(mod), mod)


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("written_out", [False, True])
def test_several_readers_of_one_quantize(written_out, other):
    """They are one output if all dequantize to the same, from constants of their own, too."""
    x, _, zero_point = make(np.random.default_rng(9), (2, 6, 9), 1)
    scale = np.ldexp(np.float32(1), np.arange(-3, 3)).astype("f4")

    def parameters():
        return const(scale), const(zero_point.astype("i1"), "int8")

    def dequantized(emit, q, scale, zero_point):
        if not written_out:
            return emit(op.dequantize(q, scale, zero_point, axis=1))
        z = emit(op.astype(emit(op.expand_dims(zero_point, 1)), "float32"))
        return emit(op.multiply(emit(op.subtract(emit(op.astype(q, "float32")), z)), emit(op.expand_dims(scale, 1))))

    def body(emit, x):
        q = emit(op.quantize(x, *parameters(), axis=1, out_dtype="int8"))
        s, z = parameters()
        last = const(scale * 2) if other else s
        return tuple(dequantized(emit, q, *p) for p in (parameters(), (s, z), (last, z)))

    compare(module([(x.shape, "float32")], body), x, int(not other))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("twice", [False, True])
def test_constants_that_are_viewed_before_they_are_cast(dtype, twice):
    x, scale, zero_point = make(np.random.default_rng(10), (6, 8), 0)
    s0, z0 = const(scale), const(zero_point, dtype)

    def body(emit, x):
        def views():
            return emit(op.expand_dims(s0, [1])), emit(op.astype(emit(op.expand_dims(z0, [1])), "float32"))

        s, z = views()
        q = emit(op.add(emit(op.round(emit(op.multiply(x, emit(op.divide(const(1.0), s)))))), z))
        q = emit(op.astype(emit(op.astype(emit(op.clip(q, -128, 127)), "int8")), "float32"))
        s, z = views() if twice else (s, z)
        return emit(op.multiply(emit(op.subtract(q, z)), s))

    compare(module([((6, 8), "float32")], body), x, 1)


INTEGER_CLIPS = {
    "clip": lambda emit, q, low, high: op.clip(q, low, high),
    "operators": lambda emit, q, low, high: op.minimum(
        emit(op.maximum(q, const(low, "int8"))), const(np.full((1,), high), "int8")
    ),
    "functions": lambda emit, q, low, high: emit.te(topi.minimum, emit.te(topi.maximum, q, const(low, "int8")), high),
    "one_side": lambda emit, q, low, high: op.maximum(const(low, "int8"), q),
}


@pytest.mark.parametrize(
    ("clip", "low", "high", "fires"),
    [
        *((clip, -127, 126, 1) for clip in INTEGER_CLIPS),
        ("clip", -128, 127, 1),
        ("operators", 5, 5, 1),
        ("functions", 6, 5, 0),
    ],
)
def test_a_clip_between_makes_the_range_smaller(clip, low, high, fires):
    x = np.float32([*SPECIALS, 63, 63.5, -64.5, -65, 7, 10])

    def body(emit, x):
        s, z = const(np.float32(0.5)), const(3, "int8")
        q = emit(op.quantize(x, s, z, axis=0, out_dtype="int8"))
        q = emit(INTEGER_CLIPS[clip](emit, q, low, const(high, "int8") if clip == "functions" else high))
        return emit(op.dequantize(q, s, z, axis=0))

    compare(module([(x.shape, "float32")], body), x, fires)


@pytest.mark.parametrize("last", ["add", "maximum_of_two"])
def test_other_functions_between_are_left_alone(last):
    def body(emit, x, other):
        s, z = const(np.float32(0.5)), const(3, "int8")
        q = emit(op.quantize(x, s, z, axis=0, out_dtype="int8"))
        q = emit.te(topi.add, q, const(1, "int8")) if last == "add" else emit.te(topi.maximum, q, other)
        return emit(op.dequantize(q, s, z, axis=0))

    mod = module([((6, 4), "float32"), ((6, 4), "int8")], body)
    assert tvm_ffi.structural_equal(FuseFakeQuant(allow_reciprocal=True)(mod), mod)


@pytest.mark.parametrize("mask", ["equal", "limits"])
def test_a_mask_is_that_of_the_smaller_range(mask):
    """What a later clip takes away is out of the operator's range, and in that of the first clip."""
    x = (np.arange(-300, 300) / 2).astype("f4")

    def body(emit, x):
        z = const(np.zeros(1))
        q = emit(op.add(emit(op.round(emit(op.multiply(x, const(2.0))))), z))
        clipped = emit(op.clip(q, -128, 127))
        smaller = emit(op.astype(emit(op.clip(emit(op.astype(clipped, "int32")), -100, 100)), "float32"))
        out = emit(op.multiply(emit(op.subtract(smaller, z)), const(0.5)))
        if mask == "equal":
            return out, emit(op.equal(q, clipped))
        sides = emit(op.greater_equal(q, const(-100.0))), emit(op.less_equal(q, const(100.0)))
        return out, emit(op.logical_and(*sides))

    compare(module([(x.shape, "float32")], body), x, int(mask == "limits"))


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


@pytest.mark.parametrize("clip", ["clip", "max_min"])
@pytest.mark.parametrize("other", ["", "int32"])
def test_a_mask_by_equality(clip, other):
    """What a clip leaves as it is was in range; a NaN equals nothing."""
    x = np.float32([*SPECIALS, -300, 127.5, 128, -128.5])
    for swapped, of_clip in ((False, True), (True, True), (False, False)):

        def body(emit, x, swapped=swapped, of_clip=of_clip):
            q = emit(op.add(emit(op.round(emit(op.multiply(x, const(2.0))))), const(3.0)))
            clipped = emit(CLIPS[clip](emit, q, -128, 127))
            whole = emit(op.astype(emit(op.astype(clipped, other)), "float32")) if other else clipped
            out = emit(op.multiply(emit(op.subtract(whole, const(3.0))), const(0.5)))
            sides = (q, clipped if of_clip else x)
            return out, emit(op.equal(*(reversed(sides) if swapped else sides)))

        compare(module([(x.shape, "float32")], body), x, int(of_clip))


def test_the_sign_of_zero_where_the_zero_point_is_added_before_rounding():
    """A bound of 0 takes it where it is the second operand, and a scalar constant of 0.0 is dropped by TVM."""
    x = np.float32([-3, -0.1, -0.0, 0.0, 0.1, -1e-40, np.inf, np.nan])
    fires = []

    def body(emit, x):
        outputs = []
        for shape, (low, high), clip in itertools.product(
            [(1,), ()], [(-8, 7), (0, 7), (-8, 0)], ["clip", "max_min_swapped"]
        ):
            z, s = const(np.zeros(shape)), const(np.float32(0.3))
            q = emit(op.round(emit(op.add(emit(op.divide(x, s)), z))))
            outputs.append(emit(op.multiply(emit(op.subtract(emit(CLIPS[clip](emit, q, low, high)), z)), s)))
            positive = high == 0 or (low == 0 and clip == "clip")
            fires.append("positive" if positive else "kept" if shape else "")
        return tuple(outputs)

    mod = module([(x.shape, "float32")], body)
    text = FuseFakeQuant()(mod).script()
    assert (text.count(OP), text.count("keep_zero_sign=True")) == (len(fires) - fires.count(""), fires.count("kept"))
    compare(mod, x, 9)


@pytest.mark.parametrize(("low", "fires"), [(0, 1), (0.0, 1), (-0.0, 0)])
def test_a_limit_of_negative_zero_is_left_alone(low, fires):
    """It becomes the result, and the operator's limits are integers."""
    x = np.float32([-3, -0.1, -0.0, 0.1, 3, np.nan])

    def body(emit, x):
        zero = const(np.zeros(1))
        q = emit(op.add(emit(op.round(emit(op.multiply(x, const(2.0))))), zero))
        return emit(op.multiply(emit(op.subtract(emit(op.clip(q, low, 127)), zero)), const(0.5)))

    compare(module([((6,), "float32")], body), x, fires)


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


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (4,)])
def test_a_scalar_zero_that_tvm_drops_is_left_alone(shape, integers):
    """With the sum goes what makes a -0.0 positive, unless a cast to integers does."""
    x = np.float32([-3, -0.1, -0.0, 3])

    def body(emit, x):
        z = const(np.zeros(shape))
        q = emit(op.add(emit(op.round(emit(op.multiply(x, const(np.float32(2)))))), z))
        clipped = emit(op.clip(q, -8, 7))
        if integers:
            clipped = emit(op.astype(emit(op.astype(clipped, "int8")), "float32"))
        return emit(op.multiply(emit(op.subtract(clipped, z)), const(np.float32(0.5))))

    compare(module([((4,), "float32")], body), x, int(integers or shape != ()))

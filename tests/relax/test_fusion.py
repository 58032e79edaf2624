"""What stands before and after the operator is merged with it: the bits of TVM's own pipeline, in one function."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tvm
from relax_modules import H, N, const, module, operator, run, target
from support import SPECIALS, bits, expected, make
from tvm import relax
from tvm.relax import op

import fq_tvm.relax
from fq_tvm.relax import LegalizeFakeQuant
from fq_tvm.relax import schedule as schedule_module

CALL = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask


def kernels(mod):
    """Names of the functions of a module after the pipeline, and whether ours scheduled them."""
    with target():
        mod = relax.get_pipeline("fq_tvm")(mod)
    return {
        variable.name_hint: bool(func.attrs.get("tirx.is_scheduled", False))
        for variable, func in mod.functions_items()
        if not isinstance(func, relax.Function) and variable.name_hint != "shape_func"
    }


def stock(mod, *inputs):
    """Results of TVM's own pipeline; of the operator a function that fusion leaves alone."""
    with target():
        mod = LegalizeFakeQuant()(mod)
    return run(mod, *inputs, pipeline=relax.get_default_pipeline(target()))


def assert_equal(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.array_equal(bits(a), bits(b)), f"{np.sum(bits(a) != bits(b))} of {a.size} differ"


SHAPES = [
    ((3, 5, 70), 1, (N, 5, H)),
    ((9, 6, 4, 4), 1, (N, 6, 4, 4)),
    ((12, 200, 7), 1, None),
    ((30, 1500), 1, (N, 1500)),
    ((6, 40), 0, (6, H)),
    ((2, 3, 48), None, (N, 3, 48)),
    ((40, 6, 3), None, None),
    ((5, 7), -1, (N, 7)),
    ((70000,), None, None),
]


@pytest.mark.parametrize("seed", range(14))
def test_drawn_graphs_keep_the_bits(seed):
    """Producers, one or two operators, consumers and readers of results in between, as TVM would compute them."""
    rng = np.random.default_rng(seed)
    shape, axis, symbolic = SHAPES[seed % len(SHAPES)]
    declared = symbolic if symbolic and rng.random() < 0.5 else shape
    dtype = rng.choice(["float32", "float32", "float16"])
    x, scale, zero_point = make(rng, shape, axis, dtype)
    pair = dtype == "float32" and rng.random() < 0.5
    if pair:  # R.quantize and R.dequantize, which become the operator
        scale, zero_point = (2.0 ** rng.integers(-3, 2, len(scale))).astype("f4"), zero_point.clip(-100, 100)
    channels = 1 if axis is None else shape[axis]
    along = [channels if axis is not None and d == axis % len(shape) else 1 for d in range(len(shape))]
    smaller = [shape, along, [1] * (len(shape) - 1) + [shape[-1]], [shape[-1]]]
    others = [rng.standard_normal(smaller[rng.integers(4)]).astype(dtype) for _ in range(3)]
    with np.errstate(over="ignore"):
        others[0] = rng.choice(np.array(SPECIALS), shape).astype(dtype)
    # Of a symbolic last dimension there is no constant of the same extent.
    kept = [o for o in others if H not in declared or o.shape == shape or o.shape[-1] == 1]

    def ewise(emit, value, tensors):
        kind = rng.integers(6)
        if kind == 0:
            return emit(op.nn.relu(value))
        if kind == 1:
            return emit(op.clip(value, -3, 6))
        other = tensors[rng.integers(len(tensors))]
        return emit((op.add, op.multiply, op.subtract, op.maximum)[kind - 2](value, other))

    def quantized(emit, value, s, z):
        if not pair:
            return emit(relax.TupleGetItem(emit(CALL(value, s, z, axis, -128, 127)), 0))
        parameters = const(scale), const(zero_point, "int8")
        q = emit(op.quantize(value, *parameters, axis=axis or 0, out_dtype="int8"))
        return emit(op.dequantize(q, *parameters, axis=axis or 0))

    def body(emit, x, s, z, *tensors):
        value, results = x, []
        for _ in range(rng.integers(1, 3)):
            for _ in range(rng.integers(4)):
                value = ewise(emit, value, tensors)
            if rng.random() < 0.2:
                results.append(value)
            value = quantized(emit, value, s, z)
            for _ in range(rng.integers(3)):
                value = ewise(emit, value, tensors)
        if rng.random() < 0.3:
            results.append(emit(op.reshape(value, (-1,))) if declared is shape else emit(op.negative(value)))
        return (*results, value)

    types = [(declared, dtype), (scale.shape, "float32"), (zero_point.shape, "int32")]
    types += [(declared if o.shape == shape else o.shape, dtype) for o in kept]
    mod = module(types, body)
    inputs = (x, scale, zero_point, *kept)
    assert_equal(run(mod, *inputs), stock(mod, *inputs))
    assert any("fake_quantize" in name and scheduled for name, scheduled in kernels(mod).items())


@pytest.mark.parametrize("symbolic", [None, 0, 2])
@pytest.mark.parametrize("shape", [(5, 3, 47), (3, 40, 17), (7, 300, 5)])
def test_rows_and_runs_that_fill_no_vector_and_no_block(shape, symbolic):
    """Vectors of a row overlap, and runs that are left over go one by one, whether the module knows how many."""
    x, scale, zero_point = make(np.random.default_rng(4), shape, 1)
    declared = [(N, None, H)[d] if d == symbolic else extent for d, extent in enumerate(shape)]
    mod = operator(x, scale, zero_point, 1, -8, 7, shape=declared)
    assert_equal(run(mod, x, scale, zero_point), expected(x, scale, zero_point, 1, -8, 7))


def test_a_function_of_shapes_makes_no_buffers_alias():
    """TVM's code generator would mark every access of the module as one that may be to the same memory."""
    x, scale, zero_point = make(np.random.default_rng(4), (5, 3, 47), 1)
    mod = operator(x, scale, zero_point, 1, -8, 7, shape=(N, 3, 47))
    (library,) = relax.build(mod, target(), relax_pipeline="fq_tvm").mod.imports
    source = library.inspect_source("ll")
    assert "shape_func" in source
    assert "tvm-alias" not in source


def out_of(emit, x, s, z, axis=1):
    return emit(relax.TupleGetItem(emit(CALL(x, s, z, axis, -128, 127)), 0))


TYPES = [((4, 6, 40), "float32"), ((6,), "float32"), ((6,), "int32")]
BIAS = ((6, 1), "float32")


@pytest.mark.parametrize(
    ("types", "body", "expected"),
    [
        (TYPES, lambda e, x, s, z: out_of(e, e(op.nn.relu(x)), s, z), ["fused_relu_fake_quantize"]),
        (
            [*TYPES, TYPES[0], BIAS],
            lambda e, x, s, z, y, b: out_of(e, e(op.nn.relu(e(op.add(e(op.add(x, b)), y)))), s, z),
            ["fused_add_add1_relu_fake_quantize"],
        ),
        (
            [*TYPES, TYPES[0]],
            lambda e, x, s, z, y: e(op.nn.relu(e(op.add(out_of(e, x, s, z), y)))),
            ["fused_fake_quantize_add_relu"],
        ),
        (
            [*TYPES, TYPES[0]],
            lambda e, x, s, z, y: out_of(e, e(op.add(out_of(e, x, s, z), out_of(e, y, s, z))), s, z),
            ["fake_quantize", "fused_add_fake_quantize"],
        ),
        (TYPES, lambda e, x, s, z: e(op.reshape(out_of(e, x, s, z), (-1,))), ["fake_quantize", "reshape"]),
        (
            TYPES,
            lambda e, x, s, z: out_of(e, e(op.nn.relu(e(op.matmul(x, e(op.permute_dims(x, [0, 2, 1])))))), s, z),
            ["fused_relu_fake_quantize", "matmul", "transpose"],
        ),
        (TYPES, lambda e, x, s, z: e(op.sum(out_of(e, x, s, z), 2)), ["fake_quantize", "sum"]),
    ],
    ids=["relu", "bias-add-relu", "after", "two", "view", "matmul", "sum"],
)
def test_what_is_merged(types, body, expected):
    mod = module(types, body)
    made = kernels(mod)
    assert sorted(made) == sorted(expected)
    assert all(scheduled for name, scheduled in made.items() if "fake_quantize" in name)


def test_products_are_rounded_before_sums():
    """In one function LLVM would make one operation of them, which TVM's stages are not."""
    rng = np.random.default_rng(5)
    x, scale, zero_point = make(rng, (4, 6, 40), 1)
    w, b = (rng.standard_normal((6, 1)).astype("f4") for _ in range(2))
    mod = module([*TYPES, BIAS, BIAS], lambda e, x, s, z, w, b: e(op.add(e(op.multiply(out_of(e, x, s, z), w)), b)))
    assert list(kernels(mod)) == ["fused_fake_quantize_multiply_add"]
    inputs = (x, scale, zero_point, w, b)
    assert_equal(run(mod, *inputs), stock(mod, *inputs))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("functions", [(op.add, op.subtract), (op.subtract, op.add)])
def test_what_cancels_out_is_rounded(functions, after):
    """In one function TVM would make x of (x + y) - y, which it is not where y is large or infinite."""
    rng = np.random.default_rng(11)
    x, scale, zero_point = make(rng, (4, 6, 40), 1)
    y = np.where(rng.random(x.shape) < 0.5, rng.choice(SPECIALS, x.shape), rng.standard_normal(x.shape) * 1e3).astype(
        "f4"
    )
    first, second = functions

    def body(emit, x, s, z, y):
        value = out_of(emit, x, s, z) if after else x
        value = emit(second(emit(first(value, y)), y))
        return value if after else out_of(emit, value, s, z)

    mod = module([*TYPES, TYPES[0]], body)
    assert len(kernels(mod)) == 1
    assert_equal(run(mod, x, scale, zero_point, y), stock(mod, x, scale, zero_point, y))


def test_a_mask_that_nobody_reads_is_not_computed():
    x, scale, zero_point = make(np.random.default_rng(6), (4, 6, 40), 1)
    alone = module(TYPES, lambda e, x, s, z: out_of(e, x, s, z))
    both = operator(x, scale, zero_point, 1, -128, 127)
    for mod, masks in ((alone, 0), (both, 1)):
        with target():
            text = relax.get_pipeline("fq_tvm")(mod).script()
        assert text.count('R.dtype("bool")') == masks
    (out,) = run(alone, x, scale, zero_point)
    assert np.array_equal(bits(out), bits(run(both, x, scale, zero_point)[0]))


def test_without_a_target():
    x, scale, zero_point = make(np.random.default_rng(7), (4, 6, 40), 1)
    mod = operator(x, scale, zero_point, 1, -128, 127)
    machine = relax.VirtualMachine(relax.build(mod, relax_pipeline="fq_tvm"), tvm.cpu())
    got = machine["main"](*map(tvm.runtime.tensor, (x, scale, zero_point)))
    assert_equal([o.numpy() for o in got], run(mod, x, scale, zero_point))


def test_lifted_parameters_take_their_quantization_along():
    """With weights kept as inputs, LiftTransformParams computes what depends on them once, in a function of its own."""
    weight, scale, zero_point = make(np.random.default_rng(8), (8, 16), 0, specials=False)
    x = np.random.default_rng(9).standard_normal((3, 16)).astype("f4")
    types = [(x.shape, "float32"), (weight.shape, "float32"), (scale.shape, "float32"), (zero_point.shape, "int32")]

    def body(emit, x, w, s, z):
        return emit(op.matmul(x, emit(op.permute_dims(out_of(emit, w, s, z, 0)))))

    mod = module(types, body)
    mod.update_func(mod.get_global_var("main"), mod["main"].with_attr("num_input", 1))
    lifted = relax.transform.LiftTransformParams()(mod)
    machine = relax.VirtualMachine(relax.build(lifted, target(), relax_pipeline="fq_tvm"), tvm.cpu())
    given = [tvm.runtime.tensor(p) for p in (weight, scale, zero_point)]
    transformed = machine["main_transform_params"](tvm.runtime.convert(given))
    assert len(transformed) == 1  # the quantized weights, transposed: the call multiplies and does nothing else
    got = machine["main"](tvm.runtime.tensor(x), *transformed).numpy()
    assert_equal([got], run(mod, x, weight, scale, zero_point))


@pytest.mark.parametrize(
    ("shape", "axis", "both"),
    [
        ((4, 3, 900), 1, True),
        ((2, 700), None, False),
        ((8, 3, 64), 2, False),
        ((6, 4096), 1, False),
        ((3, 64), 1, True),
    ],
)
def test_large_results_are_written_past_the_caches(shape, axis, both, monkeypatch, tmp_path):
    """With what is large lowered to a byte: in rows and in lanes, by functions that are compiled apart."""
    chosen = schedule_module.class_of

    def small(*arguments):
        spec, knobs = chosen(*arguments)
        return spec, dataclasses.replace(knobs, stream_from=1, parallel_from=1)

    x, scale, zero_point = make(np.random.default_rng(10), shape, axis)

    def body(emit, x, s, z):
        pair = emit(CALL(emit(op.nn.relu(x)), s, z, axis, -128, 127))
        out = emit(relax.TupleGetItem(pair, 0))
        return (out, emit(relax.TupleGetItem(pair, 1))) if both else out

    mod = module([(shape, "float32"), (scale.shape, "float32"), (zero_point.shape, "int32")], body)
    wanted = stock(mod, x, scale, zero_point)
    if not schedule_module.current_target().nontemporal_stores:
        pytest.skip("there are no stores past the caches")
    monkeypatch.setattr(schedule_module, "class_of", small)
    assert list(kernels(mod)) == []
    executable = relax.build(mod, target(), relax_pipeline="fq_tvm")
    executable.export_library(tmp_path / "module.so")
    for code in (executable, tvm.runtime.load_module(str(tmp_path / "module.so"))):
        out = relax.VirtualMachine(code, tvm.cpu())["main"](*map(tvm.runtime.tensor, (x, scale, zero_point)))
        assert_equal([o.numpy() for o in ([out] if isinstance(out, tvm.runtime.Tensor) else out)], wanted)

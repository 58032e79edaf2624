"""Graphs drawn at random: the pass raises nothing, and the pipeline gives the bits of TVM's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from relax_modules import OP, N, const, module, run, target
from support import SPECIALS, bits
from tvm import relax
from tvm.relax import op

import fq_tvm.relax

SHAPES = [(6, 6), (6, 1), (1, 6), (2, 6, 3), (6,), (24,)]
VIEWS = [(), (1,), (6,), (6, 1), (1, 6), (1, 1), (6, 6)]
RANGES = [(-128, 127), (-128, 127), (-8, 7), (-8, 7), (-127, 126), (0, 127), (-8, 0), (0, 0)]
CLIPS = {
    "clip": lambda emit, q, low, high: op.clip(q, low, high),
    "max_min": lambda emit, q, low, high: op.minimum(emit(op.maximum(q, const(low))), const(high)),
    "min_max": lambda emit, q, low, high: op.maximum(emit(op.minimum(q, const(high))), const(low)),
    "bound_first_inside": lambda emit, q, low, high: op.minimum(emit(op.maximum(const(low), q)), const(high)),
    "bound_first_outside": lambda emit, q, low, high: op.maximum(const(low), emit(op.minimum(q, const(high)))),
    "bound_first": lambda emit, q, low, high: op.minimum(const(high), emit(op.maximum(const(low), q))),
}


@dataclass
class Graph:
    """The types and values of the arguments so far, and what to go on drawing with."""

    rng: np.random.Generator
    types: list = field(default_factory=list)
    values: list = field(default_factory=list)

    def choose(self, *options):
        return options[self.rng.integers(len(options))]

    def parameter(self, value, dtype):
        """A function that gives this value: a constant, or an argument."""
        value = np.asarray(value).astype(dtype)
        if self.choose(True, True, False):
            return lambda arguments: const(value, dtype)
        self.types.append((value.shape, dtype))
        self.values.append(value)
        place = len(self.values) - 1
        return lambda arguments: arguments[place]


def data(rng, shape, dtype):
    """Ties of scales that are powers of two, and of others as near as they come; special values."""
    size = int(np.prod(shape))
    values = rng.integers(-600, 600, size) / rng.choice([2, 4, 8], size) * rng.choice([1, 1, 0.3, 0.7, 1e-30], size)
    where = rng.random(size) < 0.3
    values[where] = rng.choice(SPECIALS, int(where.sum()))
    with np.errstate(over="ignore"):
        return values.reshape(shape).astype(dtype)


def scales(graph, view):
    powers = np.ldexp(1.0, graph.rng.integers(-3, 3, view))
    others = graph.rng.random(view) + 0.05
    return np.float32(graph.choose(powers, powers * 0.3, others, -others, powers * 2.0**-130, others * np.inf))


def draw_graph(graph):
    """Draw an x and a function that writes out something like its fake quantization."""
    choose = graph.choose
    shape = choose(*SHAPES)
    symbolic = choose(False, False, True)
    dtype = choose("float32", "float32", "float32", "float16")
    graph.types.append(((N, *shape[1:]) if symbolic else shape, dtype))
    graph.values.append(data(graph.rng, shape, dtype))
    view = choose(*[(shape[-1],)] * 6, *VIEWS)
    scale = scales(graph, view)
    fractions = choose(0, 0, 0, 0.25)
    zero_point = graph.rng.integers(-20, 20, choose(*[view] * 6, *VIEWS)) * choose(1, 1, 0) + fractions
    s = graph.parameter(scale, "float32")
    z = graph.parameter(
        zero_point, choose("float32", "float32", "float32", "int8", "int32", "int64") if not fractions else "float32"
    )
    with np.errstate(all="ignore"):
        inverse = graph.parameter(np.float32(1) / scale, "float32")
    form = choose("divide", "divide", "divide", "multiply", "constant")
    placement = choose("after", "before", "before", "none")
    clip, (low, high) = CLIPS[choose("clip", "max_min", *CLIPS)], choose(*RANGES)
    casts = choose([], [], [], ["int8"], ["int32"], ["float32"], ["int8", "int32"], ["float16"])
    smaller = choose(None, None, (-100, 100), (0, 5))
    readers, mask, leak = choose(1, 1, 2, 3), choose("", "", "equal", "limits"), choose(*[False] * 7, True)

    def body(emit, *arguments):
        def as_float(value, view):
            value = emit(view(value)) if view else value
            return value if value.ty.dtype.dtype == "float32" else emit(op.astype(value, "float32"))

        x = as_float(arguments[0], None)
        parameter = (lambda: s(arguments)), (lambda: as_float(z(arguments), None))
        if form == "constant":
            scaled = emit(op.multiply(x, inverse(arguments)))
        elif form == "multiply":
            scaled = emit(op.multiply(emit(op.divide(const(1.0), parameter[0]())), x))
        else:
            scaled = emit(op.divide(x, parameter[0]()))
        if placement == "before":
            q = emit(op.round(emit(op.add(scaled, parameter[1]()))))
        elif placement == "after":
            q = emit(op.add(emit(op.round(scaled)), parameter[1]()))
        else:
            q = emit(op.round(scaled))
        clipped = emit(clip(emit, q, low, high))
        value = clipped
        for cast in casts:
            value = emit(op.astype(value, cast))
        if smaller and casts and casts[-1].startswith("int"):
            value = emit(op.clip(value, *smaller))
        outputs = []
        for _ in range(readers):
            whole = as_float(value, None)
            difference = emit(op.subtract(whole, parameter[1]())) if placement != "none" else whole
            outputs.append(emit(op.multiply(difference, parameter[0]())))
        if mask == "equal":
            outputs.append(emit(op.equal(q, clipped)))
        elif mask == "limits":
            sides = (
                emit(op.greater_equal(q, const(low))),
                emit(op.less_equal(const(high), q) if leak else op.less_equal(q, const(high))),
            )
            outputs.append(emit(op.logical_and(*sides)))
        elif leak:
            outputs.append(q)
        return tuple(outputs)

    return body


def draw_pair(graph):
    """Draw an x and a function that has R.quantize and R.dequantize."""
    choose = graph.choose
    shape = choose((6, 6), (2, 6, 3), (6,), (6, 1))
    axis = choose(*(d for d in range(len(shape)) if shape[d] == 6))
    symbolic = choose(False, False, True) and axis > 0
    graph.types.append(((N, *shape[1:]) if symbolic else shape, "float32"))
    graph.values.append(data(graph.rng, shape, "float32"))
    dtype = choose("int8", "uint8", "int16", "uint16")
    info = np.iinfo(dtype)
    scale = scales(graph, choose((), (1,), (6,)))
    zero_point = graph.rng.integers(info.min, info.max, choose(scale.shape, scale.shape, ()), endpoint=True) * choose(
        1, 0
    )
    s, z = graph.parameter(scale, "float32"), graph.parameter(zero_point, dtype)
    low, high = choose((None, None), (info.min, info.max), (5, 100))
    written_out, readers, leak = choose(False, False, True), choose(1, 1, 2), choose(False, False, False, True)

    def body(emit, *arguments):
        q = clipped = emit(op.quantize(arguments[0], s(arguments), z(arguments), axis=axis, out_dtype=dtype))
        if low is not None:
            clipped = emit(op.minimum(emit(op.maximum(q, const(low, dtype))), const(high, dtype)))
        outputs = []
        for _ in range(readers):
            if not written_out:
                outputs.append(emit(op.dequantize(clipped, s(arguments), z(arguments), axis=axis)))
                continue
            view = [-1 if d == axis else 1 for d in range(len(shape))]
            s_view, z_view = (
                emit(op.reshape(p, [6 if n == -1 else n for n in view]))
                if p.ty.shape.values and int(p.ty.shape.values[0]) == 6
                else p
                for p in (s(arguments), z(arguments))
            )
            difference = emit(op.subtract(emit(op.astype(clipped, "int32")), emit(op.astype(z_view, "int32"))))
            outputs.append(emit(op.multiply(emit(op.astype(difference, "float32")), s_view)))
        return (*outputs, q) if leak else tuple(outputs)

    return body


def fits(graph, body):
    """Build the module of a graph; None where its shapes do not broadcast."""
    try:
        return module(graph.types, body)
    except (ValueError, TypeError, RuntimeError):
        return None


SEEDS = st.integers(0, 2**32)


@settings(max_examples=16, deadline=None)
@given(SEEDS, st.sampled_from([draw_graph, draw_graph, draw_pair]))
def test_the_pipeline_keeps_every_bit(seed, draw):
    graph = Graph(np.random.default_rng(seed))
    mod = fits(graph, draw(graph))
    if mod is None:
        return
    for allow_reciprocal in (True, False):
        fused = fq_tvm.relax.FuseFakeQuant(allow_reciprocal)(mod)
        relax.analysis.well_formed(fused)
    if tvm_ffi.structural_equal(fused, mod):
        return
    default = relax.get_default_pipeline(target())
    for got, want in zip(run(fused, *graph.values), run(mod, *graph.values, pipeline=default), strict=True):
        np.testing.assert_array_equal(bits(got), bits(want))


@settings(max_examples=48, deadline=None)
@given(SEEDS, st.sampled_from([draw_graph, draw_pair]))
def test_what_is_not_known_raises_nothing(seed, draw):
    graph = Graph(np.random.default_rng(seed))
    body = draw(graph)
    for place in range(len(graph.types)):
        shape, dtype = graph.types[place]
        graph.types[place] = (graph.choose(len(shape), -1, shape), dtype)
    mod = fits(graph, body)
    if mod is None:
        return
    for allow_reciprocal in (True, False):
        relax.analysis.well_formed(fq_tvm.relax.FuseFakeQuant(allow_reciprocal)(mod))


def test_enough_graphs_are_rewritten():
    """Else what is drawn above says little."""
    texts = []
    for seed in range(150):
        graph = Graph(np.random.default_rng(seed))
        mod = fits(graph, (draw_graph, draw_pair)[seed % 2](graph))
        if mod is not None:
            texts.append(fq_tvm.relax.FuseFakeQuant()(mod).script())
    fused = [text for text in texts if OP in text]
    assert len(texts) > 120
    assert len(fused) > 60
    for attribute in ('form="division"', 'zero_point_placement="before"', "keep_zero_sign=True", 'nan="quant_max"'):
        assert any(attribute in text for text in fused), attribute

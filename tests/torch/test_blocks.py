"""Blocks, groups and tokens as views, and the formulas of other libraries, written out in plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import SPECIALS, bits

import fq_tvm.torch
from fq_tvm import ArgumentError, FqError, reference
from fq_tvm.launch import registry
from fq_tvm.torch import blocks, fake_quantize


def torchao(x, scale, zero_point, low, high):
    """torchao 0.18, ``_fake_quantize_affine``: whatever the zero point's dtype, it is added after rounding."""
    q = torch.clamp(torch.round(x * (1.0 / scale)) + zero_point, low, high)
    return (q - zero_point) * scale


def brevitas(x, scale, zero_point, low, high):
    """Brevitas 0.13, ``IntQuant`` with ``RoundSte`` and ``TensorClamp``."""
    q = torch.round(x / scale + zero_point)
    q = torch.where(q > high, high, q)
    q = torch.where(q < low, low, q)
    return (q - zero_point) * scale


def compressed_tensors(x, scale, zero_point, low, high):
    """compressed-tensors 0.20, ``_quantize`` and ``_dequantize``: clamped before it is rounded."""
    q = torch.round(torch.clamp(x / scale + zero_point, low, high))
    return (q - zero_point) * scale


def auto_round(x, scale, zero_point, low, high):
    """auto-round 0.16, ``quant_tensor_asym`` where nothing was learned."""
    return scale * (torch.clamp(torch.round(x / scale) + zero_point, low, high) - zero_point)


BEFORE = {"form": "division", "zero_point_placement": "before", "keep_zero_sign": True}
LIBRARIES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "torchao": (torchao, {}, "int32"),
    "torchao, learned ranges": (torchao, {"zero_point_placement": "after"}, "float32"),
    "brevitas": (brevitas, BEFORE, "float32"),
    "compressed-tensors": (compressed_tensors, BEFORE, "float32"),
    "auto-round": (auto_round, {"form": "division"}, "int32"),
}
SHAPE = (4, 6, 64)
BLOCKS = {
    "groups": (1, 1, 32),
    "tokens": (1, 1, -1),
    "channels": (-1, 1, -1),
    "groups of channels": (4, 2, 64),
    "squares": (2, 3, 16),
    "columns": (2, -1, 1),
    "one": (-1, -1, -1),
}
MEMORY = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "stepped": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
}


def grid_of(block_size):
    return [1 if size == -1 else n // size for n, size in zip(SHAPE, block_size, strict=True)]


def arguments(block_size, zero_point_dtype: str, seed: int = 0):
    """A half and more of the elements are ties; signed zeros, infinities, subnormals and huge values are there."""
    rng, grid = np.random.default_rng(seed), grid_of(block_size)
    scale = np.where(rng.random(grid) < 0.6, 2.0 ** rng.integers(-4, 3, grid), rng.random(grid) + 0.05).astype("f4")
    zero_point = rng.integers(-3, 4, grid) * (rng.random(grid) < 0.5)
    if zero_point_dtype == "float32":
        zero_point = zero_point + rng.choice([0, 0, 0.5, 0.25], grid)
    spread = scale
    for d, n in enumerate(SHAPE):
        spread = spread.repeat(n // spread.shape[d], d)
    x = ((rng.integers(-12, 12, SHAPE) + rng.choice([0.5, 0.5, 0.5, 0.2], SHAPE)) * spread).astype("f4")
    specials = np.array([s for s in SPECIALS if s == s], "f4")  # they let a NaN be, which has no integer
    x = np.where(rng.random(SHAPE) < 0.15, rng.choice(specials, SHAPE), x)
    return torch.from_numpy(x), torch.from_numpy(scale), torch.from_numpy(zero_point.astype(zero_point_dtype))


def in_blocks(formula, x, scale, zero_point, block_size, *quant_range):
    """Apply a formula to the blocked view (g0, b0, g1, b1, ...)."""
    grid = grid_of(block_size)
    split = [n for g, whole in zip(grid, SHAPE, strict=True) for n in (g, whole // g)]
    one_each = [n for g in grid for n in (g, 1)]
    return formula(x.reshape(split), scale.reshape(one_each), zero_point.reshape(one_each), *quant_range).reshape(SHAPE)


def assert_same_bits(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    differ = np.argwhere(bits(a.detach().numpy()) != bits(b.numpy()))
    assert not len(differ), f"{len(differ)} differ, first {a[tuple(differ[0])]} for {b[tuple(differ[0])]}"


@pytest.mark.parametrize(
    ("library", "kind"),
    [(n, kind) for n in LIBRARIES for kind in (BLOCKS if n == "torchao" else ("groups", "squares", "one"))],
)
def test_the_bits_of_other_libraries(library, kind):
    formula, fields, zero_point_dtype = LIBRARIES[library]
    x, scale, zero_point = arguments(BLOCKS[kind], zero_point_dtype)
    want = in_blocks(formula, x, scale, zero_point, BLOCKS[kind], -8, 7)
    for place in MEMORY.values() if library == "torchao" else [MEMORY["contiguous"]]:  # each class is a kernel to build
        got = fake_quantize(place(x), scale, zero_point, quant_min=-8, quant_max=7, block_size=BLOCKS[kind], **fields)
        assert_same_bits(got, want)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_data_tell_the_libraries_apart(library):
    """The test above would fail for a formula that differs in one field."""
    formula, fields, zero_point_dtype = LIBRARIES[library]
    x, scale, zero_point = arguments(BLOCKS["groups"], zero_point_dtype)
    want = in_blocks(formula, x, scale, zero_point, BLOCKS["groups"], -8, 7)
    signed = fields.get("keep_zero_sign")
    others = [{"form": "reciprocal" if fields.get("form") == "division" else "division"}]
    others += [{"keep_zero_sign": False}] if signed else []
    others += [{"keep_zero_sign": False, "zero_point_placement": "after"}] if signed else []
    others += [] if signed else [{"zero_point_placement": "before"}]
    for other in others:
        rows = x.reshape(-1, 32).numpy(), scale.reshape(-1).numpy(), zero_point.reshape(-1).numpy()
        got = torch.from_numpy(reference.fake_quant(*rows, 0, -8, 7, **{**fields, **other})[0]).reshape(SHAPE)
        with pytest.raises(AssertionError, match="differ, first"):
            assert_same_bits(got, want)


@pytest.mark.parametrize(("kind", "memory"), [("groups", "contiguous"), ("squares", "transposed"), ("one", "stepped")])
def test_the_gradient_goes_straight_through(kind, memory):
    x, scale, zero_point = arguments(BLOCKS[kind], "int32")
    x = MEMORY[memory](x).requires_grad_()
    scale.requires_grad_()
    out = fake_quantize(x, scale, zero_point, quant_min=-8, quant_max=7, block_size=BLOCKS[kind], form="division")
    with torch.no_grad():
        want = fake_quantize(x, scale, zero_point, quant_min=-8, quant_max=7, block_size=BLOCKS[kind], form="division")
    assert not want.requires_grad
    assert_same_bits(out, want)
    grad = torch.randn(SHAPE)
    out.backward(grad)

    def in_range(x, scale, zero_point, low, high):
        q = torch.round(x / scale) + zero_point
        return ((low <= q) & (q <= high)).float()

    mask = in_blocks(in_range, x.detach(), scale.detach(), zero_point, BLOCKS[kind], -8, 7)
    assert 0 < mask.mean() < 1
    assert_same_bits(x.grad, grad * mask)
    assert scale.grad is None


def test_groups_are_views():
    x, _, _ = arguments(BLOCKS["groups"], "int32")
    seen = []

    def watch(rows, *rest):
        seen.append(rows)
        return torch.empty_like(rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "with_formula", watch)
        for kind in ("groups", "tokens", "channels", "groups of channels"):
            size = BLOCKS[kind]
            grid = grid_of(size)
            fake_quantize(x, torch.ones(grid), torch.zeros(grid), quant_min=0, quant_max=1, block_size=size)
            assert seen[-1].untyped_storage().data_ptr() == x.untyped_storage().data_ptr(), kind


def test_without_blocks_it_is_the_operator():
    x, _, _ = arguments(BLOCKS["one"], "int32")
    scale, zero_point = torch.linspace(0.1, 2, 6), torch.arange(6, dtype=torch.int32)
    want = fq_tvm.torch.fake_quantize_per_channel_affine(x, scale, zero_point, 1, -8, 7)
    assert_same_bits(fake_quantize(x, scale, zero_point, 1, quant_min=-8, quant_max=7), want)
    want = fq_tvm.torch.fake_quantize_per_channel_affine(x, scale[:1], zero_point[:1], None, -8, 7)
    assert_same_bits(fake_quantize(x, scale[:1], zero_point[:1], quant_min=-8, quant_max=7), want)
    assert_same_bits(fake_quantize(x, scale[0], zero_point[0], quant_min=-8, quant_max=7, block_size=(1, 1, 8)), want)


def test_parameters_broadcast_against_the_blocks():
    x, scale, zero_point = arguments(BLOCKS["groups"], "int32")

    def run(scale, zero_point):
        return fake_quantize(x, scale, zero_point, quant_min=-8, quant_max=7, block_size=BLOCKS["groups"])

    want = run(scale, zero_point[1, 2].expand(grid_of(BLOCKS["groups"])))
    assert_same_bits(run(scale.reshape(-1), zero_point[1, 2]), want)
    assert_same_bits(run(scale[..., None], zero_point[1:2, 2:3]), want)


def test_what_has_no_elements():
    for shape in ((0, 8), (3, 0)):
        grid = (shape[0], 1 if shape[1] else 0)
        tensors = torch.empty(shape), torch.ones(grid), torch.zeros(grid, dtype=torch.int32)
        assert fake_quantize(*tensors, quant_min=-8, quant_max=7, block_size=(1, 8)).shape == shape


def test_in_a_compiled_graph_and_under_vmap():
    x, scale, zero_point = arguments(BLOCKS["groups"], "float32")

    def run(x, scale, zero_point):
        return fake_quantize(
            x, scale, zero_point, quant_min=-8, quant_max=7, block_size=(1,) * (x.dim() - 1) + (32,), **BEFORE
        )

    want = run(x, scale, zero_point)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_same_bits(compiled(x, scale, zero_point), want)
    compiled(given := x.clone().requires_grad_(), scale, zero_point).sum().backward()
    assert given.grad is not None and 0 < given.grad.mean() < 1
    assert_same_bits(torch.func.vmap(run)(x, scale, zero_point), want)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block_size": (1, 32)}, r"block_size is \(1, 32\); expected 3 extents"),
        ({"block_size": (1, 1, 48)}, "block_size is .*; expected extents that divide"),
        ({"block_size": (1, 1, 0)}, "block_size is .*; expected extents that divide"),
        ({"block_size": (1, 1, 16)}, "scale has shape .*; expected 96 elements, one for each block"),
        ({"block_size": (1, 1, 32), "axis": 0}, "axis is 0 and block_size .*; expected one"),
        ({"block_size": (1, 1, 32), "form": "quotient"}, "form is 'quotient'; expected one of"),
        ({"block_size": (1, 1, 32), "keep_zero_sign": 1}, "keep_zero_sign is 1; expected one of False, True"),
        ({"block_size": (1, 1, 32), "flavor": 1}, "unknown field of a formula in flavor"),
        ({"axis": 1}, "scale has shape"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(FqError, match=message):
        fake_quantize(*arguments(BLOCKS["groups"], "int32"), quant_min=-8, quant_max=7, **fields)


def test_where_no_gradient_is_wanted_there_is_no_mask():
    x = torch.linspace(-200, 200, 48).reshape(6, 8)
    scale, zero_point = torch.linspace(0.5, 2, 8), torch.arange(-4, 4, dtype=torch.int32)
    function = fq_tvm.torch.fake_quantize_per_channel_affine
    want, _ = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, 1, -128, 127)
    for given, recording, masks in ((x, True, [False]), (x.clone().requires_grad_(), False, [False])):
        registry.launches.clear()
        for _ in range(3):
            with torch.set_grad_enabled(recording):
                out = function(given, scale, zero_point, 1, -128, 127)
            assert_same_bits(out, want)
            assert not out.requires_grad
        assert [launch.kernel.spec.mask for launch in {*registry.launches.values()}] == masks
    out = function(x.clone().requires_grad_(), scale, zero_point, 1, -128, 127)
    assert out.requires_grad
    registry.launches.clear()
    x.untyped_storage().resize_(0)
    for _ in range(2):
        with pytest.raises(ArgumentError, match="x, a Tensor, has no memory"):
            function(x, scale, zero_point, 1, -128, 127)

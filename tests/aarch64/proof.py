"""Kernels that another machine built, on this one: every bit as numpy has it here, and no compiler is imported.

To be run with FQ_TVM_ARTIFACTS_DIR and FQ_TVM_REQUIRE_CACHE=1.  Every kernel of the catalogue, of the gradient, of a
quotient's, and of folded batch norm, on extents that leave tails and on some that are spread over threads; of fake
quantization in the calling thread, on several, and past the caches.  Code that this machine cannot run is refused.
"""

from __future__ import annotations

import dataclasses
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import RANGES, assert_same, checked_arguments, expected, launch_on, make, tie_share

from fq_tvm import BuildError, catalogue
from fq_tvm import target as targets
from fq_tvm.launch import arguments, registry, runtime
from fq_tvm.launch.kernel import Launch
from fq_tvm.reference import (
    folded_norm,
    folded_norm_gradient,
    folded_weights,
    folded_weights_gradient,
    quotient_gradient,
    straight_through,
)
from fq_tvm.spec import (
    FakeQuantSpec,
    FoldedNormGradientSpec,
    FoldedNormSpec,
    FoldedWeightsGradientSpec,
    FoldedWeightsSpec,
    QuotientGradientSpec,
    StraightThroughSpec,
    folded_norm_catalogue,
    folded_norm_gradient_catalogue,
    folded_weights_catalogue,
    folded_weights_gradient_catalogue,
    quotient_gradient_catalogue,
    straight_through_catalogue,
)

SHAPES = {
    "rows": [((3, 5, 704), 1), ((2, 17, 47), 1), ((2, 2, 20011), 1)],
    "lanes": [((1000, 3), 1), ((70, 7, 23), 1), ((37, 2048), 1)],
    "strided_rows": [((3, 5, 130), 1), ((2, 6, 4099), 1)],
    "strided_lanes": [((257,), 0), ((130, 300), 1)],
}
VARIANTS = ({}, {"parallel_from": 1}, {"parallel_from": 1, "stream_from": 1})
ODD_SCALES = np.array([0.0, -0.0, -1.5, 1e-40, np.inf, -np.inf, np.nan, 6e-8, 3e38])


def data(
    rng: np.random.Generator, spec: FakeQuantSpec, shape: tuple[int, ...], axis: int, quant_range: tuple[int, int]
) -> tuple[list[np.ndarray], float]:
    """Make x, scale and zero point, of half the draws some scales and zero points odd; and the share of ties."""
    x, scale, zero_point = make(rng, shape, axis, spec.dtype, spec.scale_dtype, quant_range)
    ties = tie_share(x, scale, axis)
    if rng.random() < 0.5:
        some = rng.random(scale.shape) < 0.3
        with np.errstate(over="ignore"):
            scale = np.where(some, rng.choice(ODD_SCALES, scale.shape), scale).astype(spec.scale_dtype)
        zero_point = np.where(some, rng.integers(-(2**31), 2**31, scale.shape), zero_point).astype("i4")
    if spec.strided:
        wide = np.zeros([2 * n for n in shape], spec.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in shape)]
        view[...] = x
        x = view
    return [x, scale, zero_point], ties


def fake_quant(spec: FakeQuantSpec, rng: np.random.Generator) -> tuple[int, float]:
    """Compare a kernel with the reference; return how many elements were, and how many of them were ties."""
    elements, ties = 0, 0.0
    for shape, axis in SHAPES[spec.iteration]:
        for low, high in (r for r in RANGES if (max(map(abs, r)) > 2**23) == spec.wide):
            inputs, share = data(rng, spec, shape, axis, (low, high))
            want = expected(*inputs, axis, low, high, spec.out_dtype)
            for knobs in VARIANTS if spec.nontemporal else VARIANTS[:2]:
                results = np.zeros(shape, spec.out_dtype), np.zeros(shape, bool)
                call = checked_arguments((*inputs, *results), axis, low, high)
                launch = registry.prepare(call)
                assert isinstance(launch, Launch)
                assert launch.kernel.spec == spec, (launch.kernel.spec, spec)
                launch = registry.prepare(call, schedule=dataclasses.replace(launch.kernel.schedule, **knobs))
                launch_on(launch, [operand.tensor for operand in call.operands])
                assert_same(results, want)
                elements += want[0].size
                ties += share * want[0].size
    return elements, ties


def gradient(spec: StraightThroughSpec, rng: np.random.Generator) -> int:
    """Compare a kernel of the gradient with the reference; return how many elements were."""
    elements = 0
    for shape in ((3, 704), (7, 20011)):
        wide = rng.standard_normal([2 * n for n in shape]).astype(spec.dtype)
        some = rng.random(wide.shape) < 0.2
        wide[some] = rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, np.nan]), some.sum())
        grad = wide[tuple(slice(None, None, 2) for _ in shape)]
        if not spec.strided:
            grad = np.ascontiguousarray(grad)
        mask, out = rng.random(shape) < 0.5, np.zeros(shape, spec.dtype)
        with np.errstate(invalid="ignore"):
            want = straight_through(grad, mask)
        call = arguments.Gradient(*(arguments.describe(a, "tensor") for a in (grad, out, mask)))
        launch = registry.prepare(call)
        assert isinstance(launch, Launch)
        assert launch.kernel.spec == spec, (launch.kernel.spec, spec)
        launch_on(launch, (grad, mask, out))
        assert_same((out, mask), (want, mask))
        elements += out.size
    return elements


def quotient(spec: QuotientGradientSpec, rng: np.random.Generator) -> int:
    """Compare a kernel of the gradient of a quotient with the reference, where a fused operation would show."""
    elements = 0
    for shape in ((5, 3, 704), (3, 7, 9), (2, 40, 2741)):
        x, grad, divisor = (rng.standard_normal(s).astype("f4") for s in (shape, shape, shape[1]))
        results = np.zeros(shape, "f4"), np.zeros(shape[1], "f4")
        launch = registry.prepare(
            arguments.QuotientGradient(arguments.describe(x, "x"), 1, spec.sum_lanes), iteration="rows"
        )
        assert isinstance(launch, Launch)
        launch_on(launch, (x, grad, divisor, *results))
        want = quotient_gradient(x, grad, divisor, 1, spec.sum_lanes)
        assert all(got.tobytes() == each.tobytes() for got, each in zip(results, want, strict=True)), (spec, shape)
        elements += x.size
    return elements


FOLDED = [(3, 5), (17, 3, 3, 3), (9, 704), (40, 2741)]
"""Shapes of weights, the last of which is spread over threads."""


def launched(call: Any, spec: Any, inputs: tuple[np.ndarray, ...], results: tuple[np.ndarray, ...]) -> None:
    """Launch a kernel by rows, which is to be of a specification."""
    launch = registry.prepare(call, iteration="rows")
    assert isinstance(launch, Launch)
    assert launch.kernel.spec == spec, (launch.kernel.spec, spec)
    launch_on(launch, (*inputs, *results))


def same(results: tuple[np.ndarray, ...], want: tuple[np.ndarray, ...], which: Any) -> int:
    """Require every bit; return how many elements were compared."""
    assert len(results) == len(want), which
    for i, (got, each) in enumerate(zip(results, want, strict=True)):
        assert got.dtype == each.dtype and got.tobytes() == each.tobytes(), (which, i)
    return sum(each.size for each in want)


def weights(spec: FoldedWeightsSpec, rng: np.random.Generator) -> int:
    """Compare a kernel of folded weights with the reference."""
    elements = 0
    for shape in FOLDED:
        weight, gamma = (rng.standard_normal(s).astype("f4") for s in (shape, shape[0]))
        sigma = (rng.random(shape[0]) + 0.1).astype("f4")
        running = tuple(np.sort(rng.standard_normal((2, shape[0])).astype("f4"), axis=0))
        how = (0.01, -128, 127, spec.symmetric)
        vectors = *(each.copy() for each in running), np.zeros(shape[0], "f4"), np.zeros(shape[0], "i4")
        served, made = np.zeros(1, "i4"), (np.zeros(shape, "f4"), np.zeros(shape, bool), np.zeros(shape[0], "f4"))
        parameters = arguments.ObservedParameters(shape[0], spec.symmetric, *how[:3], True, True)
        call = arguments.FoldedWeights(arguments.describe(weight, "weight"), parameters)
        launched(call, spec, (weight, gamma, sigma), (*vectors, served, *made))
        want = folded_weights(weight, (gamma, sigma), running, True, *how)
        assert served[0] == 1 and want is not None
        elements += same((*made, *vectors), want, (spec, shape))
    return elements


def weights_gradient(spec: FoldedWeightsGradientSpec, rng: np.random.Generator) -> int:
    """Compare a kernel of the gradient of folded weights with the reference, where a fused operation would show."""
    elements = 0
    for shape in FOLDED:
        weight, grad = (rng.standard_normal(shape).astype("f4") for _ in range(2))
        mask, vectors = rng.random(shape) < 0.8, tuple(rng.standard_normal((3, shape[0])).astype("f4"))
        results = np.zeros(shape, "f4"), np.zeros(shape[0], "f4")
        call = arguments.FoldedWeightsGradient(arguments.describe(grad, "grad"), spec.sum_lanes)
        launched(call, spec, (weight, grad, mask, *vectors), results)
        want = folded_weights_gradient(weight, grad, mask, vectors, spec.sum_lanes)
        elements += same(results, want, (spec, shape))
    return elements


def norm(spec: FoldedNormSpec, rng: np.random.Generator) -> int:
    """Compare the kernel of batch norm after a quotient with the reference, where fused operations are wanted."""
    elements = 0
    for shape in ((5, 3, 704), (3, 17, 9), (30, 8), (2, 40, 2741)):
        x, *vectors = (rng.standard_normal(s).astype("f4") for s in (shape, *[shape[1]] * 3))
        running = rng.standard_normal(shape[1]).astype("f4"), rng.random(shape[1]).astype("f4")
        moved = tuple(each.copy() for each in running)
        made = *(np.zeros(shape, "f4") for _ in range(2)), *(np.zeros(shape[1], "f4") for _ in range(2))
        call = arguments.FoldedNorm(arguments.describe(x, "x"), 0.1, 1e-5)
        launched(call, spec, (x, *vectors), (*moved, *made))
        want = folded_norm(x, tuple(vectors), running, 0.1, 1e-5)
        elements += same((*moved, *made), want, (spec, shape))
    return elements


def norm_gradient(spec: FoldedNormGradientSpec, rng: np.random.Generator) -> int:
    """Compare a kernel of its gradient with the reference, where some operations are to be fused and others not."""
    elements = 0
    for shape in ((5, 3, 704), (3, 17, 9), (4, 90, 3), (2, 40, 2741)):
        x, grad, *vectors = (rng.standard_normal(s).astype("f4") for s in (shape, shape, *[shape[1]] * 4))
        made = np.zeros(shape, "f4"), *(np.zeros(shape[1], "f4") for _ in range(3))
        call = arguments.FoldedNormGradient(arguments.describe(x, "x"), spec.sum_lanes)
        launched(call, spec, (x, grad, *vectors), made)
        want = folded_norm_gradient(x, grad, tuple(vectors), spec.sum_lanes)
        elements += same(made, want, (spec, shape))
    return elements


def refused(action: Any, words: str) -> None:
    """Require a clear error, and not the end of the process."""
    with pytest.raises(BuildError, match=re.escape(words)) as raised:
        action()
    print(f"refused: {raised.value}")


def refusals() -> None:
    """Code of x86-64 is not loaded, nor that of a Kunpeng on a Cortex-A72."""
    spec = FakeQuantSpec("rows")
    foreign, own = (registry.get_kernel(spec, registry.find_target(cpu)) for cpu in ("x86-64-v3", "kunpeng-920"))
    refused(lambda: foreign.function("run_serial"), "x86-64-v3: that is a CPU of x86_64")
    refused(lambda: runtime.load(foreign._files["kernel.o"]), "is for x86_64, and this machine is aarch64")
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("Features : fp asimd aes pmull sha1 sha2 crc32\nCPU implementer : 0x41\nCPU part : 0xd08\n")
        file.flush()
        targets.CPUINFO, kept = file.name, targets.CPUINFO
        registry._targets.clear()
        lesser = registry.get_kernel(spec, registry.find_target("kunpeng-920"))
        refused(lambda: lesser.function("run_serial"), "tsv110: it lacks complxnum, dotprod, fp16fml, fullfp16")
        targets.CPUINFO = kept
        registry._targets.clear()
    assert own.function("run_serial") is not None


def main() -> None:
    assert platform.machine() == "aarch64", platform.machine()
    refusals()
    rng = np.random.default_rng(18)
    elements, ties = 0, 0.0
    for spec in catalogue():
        compared, of_them_ties = fake_quant(spec, rng)
        elements, ties = elements + compared, ties + of_them_ties
    for spec in straight_through_catalogue():
        elements += gradient(spec, rng)
    for spec in quotient_gradient_catalogue():
        elements += quotient(spec, rng)
    for folded in folded_weights_catalogue():
        elements += weights(folded, rng)
    for back in folded_weights_gradient_catalogue():
        elements += weights_gradient(back, rng)
    for normalized in folded_norm_catalogue():
        elements += norm(normalized, rng)
    for behind in folded_norm_gradient_catalogue():
        elements += norm_gradient(behind, rng)
    compiler = sorted(m for m in sys.modules if m == "tvm" or m.startswith("tvm."))
    assert not compiler, compiler
    assert elements >= 10_000_000, elements
    assert ties >= elements / 4, ties / elements
    print(
        f"{elements:,} elements, {ties / elements:.0%} of them ties: 0 bits differ from numpy's on this "
        f"{registry.current_target().cpu}; TVM's compiler was not imported"
    )


if __name__ == "__main__":
    main()

"""get_kernel: keys, tiers, sources, targets; and every kernel of the catalogue against the reference."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from support import (
    AARCH64,
    LESSER_CPU,
    RANGES,
    assert_same,
    bits,
    checked_arguments,
    expected,
    launch_on,
    make,
)  # fmt: skip

from fq_tvm import FakeQuantSpec, FqError, catalogue, get_kernel
from fq_tvm.codegen.build import lower
from fq_tvm.codegen.llvm import resolve
from fq_tvm.entry_points import folds
from fq_tvm.errors import BuildError, CacheMissError
from fq_tvm.launch import registry
from fq_tvm.launch.kernel import EmptyLaunch, Launch
from fq_tvm.launch.library import build_library
from fq_tvm.launch.registry import current_target, prepare, request_of, versions
from fq_tvm.layout import Layout
from fq_tvm.schedule import Schedule, default_schedule
from fq_tvm.spec import ARITHMETIC, EXTENDED_FLOATS, EXTENDED_ZERO_POINTS, ITERATIONS
from fq_tvm.store.cache import Store, digest

FUSED = ("fmla", "fmadd") if AARCH64 else ("vfm",)
FUSED_OTHERWISE = ("fmls", "fmsub", "fnmadd", "fnmsub") if AARCH64 else ("vfms", "vfnm")
"""Products that are fused with sums in assembly: a sum after a product, and all other signs."""

SHAPES = {
    # class -> (shape, axis), where strided ones are made by stepping
    "rows": [((3, 5, 300), 1), ((2, 3, 16385), 1), ((1, 70001), 0)],
    "lanes": [
        ((4, 8), 1),
        ((1000, 3), 1),
        ((5, 7, 9), 1),
        ((33, 300), 1),
        ((1, 20000), 1),
        ((11, 1031), 1),
        ((4, 1200), 1),
    ],
    "strided_rows": [((3, 5, 130), 1), ((2, 3, 4, 5, 6, 3, 2, 3), 2)],
    "strided_lanes": [((4, 8), 1), ((2, 3, 2, 3, 2, 2, 2, 5), 7), ((257,), 0)],
}


def run(spec: FakeQuantSpec, shape, axis, quant_range, rng, schedule=None):
    """Run one kernel through its own launch; return (out, mask), and what the reference says."""
    dtypes = (spec.dtype, spec.scale_dtype)
    x, scale, zero_point = make(rng, shape, axis, *dtypes, quant_range, zero_point_dtype=spec.zero_point_dtype)
    out, mask = np.empty(shape, spec.out_dtype), np.empty(shape, bool)
    if spec.strided:
        stepped = np.empty([2 * n for n in shape], x.dtype)[tuple(slice(None, None, 2) for _ in shape)]
        stepped[...] = x
        x = stepped
    checked = checked_arguments((x, scale, zero_point, out, mask), axis, *quant_range)
    launch = prepare(checked, schedule=schedule)
    assert launch.kernel.spec == spec
    launch_on(launch, [o.tensor for o in checked.operands])
    return (out, mask), expected(x, scale, zero_point, axis, *quant_range, out.dtype)


@pytest.mark.parametrize("spec", catalogue(), ids=lambda s: s.name)
def test_every_kernel_equals_the_reference(spec):
    rng = np.random.default_rng(3)
    ranges = [r for r in RANGES if (max(map(abs, r)) > 2**23) == spec.wide]
    for (shape, axis), quant_range in itertools.product(SHAPES[spec.iteration], ranges):
        assert_same(*run(spec, shape, axis, quant_range, rng))


def beyond_the_contract() -> list[FakeQuantSpec]:
    """Kernels of which any two dtypes meet in each class, on one of the arithmetic paths: an orthogonal array."""
    floats, zero_points = EXTENDED_FLOATS, EXTENDED_ZERO_POINTS
    return [
        FakeQuantSpec(
            iteration,
            floats[i],
            floats[j],
            floats[(i + j) % 3],
            zero_points[(i + 2 * j) % 3],
            ARITHMETIC[(i + j + n) % 3 == 0],
        )
        for n, iteration in enumerate(ITERATIONS)
        for i, j in itertools.product(range(3), repeat=2)
    ]


@pytest.mark.parametrize("spec", beyond_the_contract(), ids=lambda s: s.name)
def test_kernels_beyond_the_contract(spec):
    rng = np.random.default_rng(13)
    ranges = [r for r in RANGES if (max(map(abs, r)) > 2**23) == spec.wide]
    for (shape, axis), quant_range in itertools.product(SHAPES[spec.iteration], ranges[:2]):
        assert_same(*run(spec, shape, axis, quant_range, rng))
    assert_no_fused_sums(spec)
    if not spec.strided:
        assert_vectorized(spec)


@pytest.mark.parametrize("target", ["host", LESSER_CPU])
@pytest.mark.parametrize("iteration", ["rows", "lanes"])
def test_sums_are_not_fused_with_products(iteration, target, monkeypatch):
    """One rounding instead of two would give another integer in some of these, which lie next to ties."""
    monkeypatch.setenv("FQ_TVM_TARGET", target)
    rng = np.random.default_rng(29)
    shape, axis = ((8, 5000), 0) if iteration == "rows" else ((5000, 8), 1)
    scale, zero_point = rng.random(8).astype("f4") + np.float32(0.1), rng.random(8).astype("f4") * 3
    s, z = (v.reshape((8, 1) if axis == 0 else (1, 8)) for v in (scale, zero_point))
    x = ((rng.integers(-20, 20, shape) + np.float32(0.5) - z) * s).astype("f4")
    fused = np.rint((x.astype("f8") * (np.float32(1) / s) + z).astype("f4"))
    assert (fused != np.rint(x * (np.float32(1) / s) + z)).mean() > 0.001
    out, mask = np.empty_like(x), np.empty(shape, bool)
    arrays = (x, scale, zero_point, out, mask)
    launch = prepare(checked_arguments(arrays, axis, -8, 7))
    assert launch.kernel.spec.iteration == iteration
    launch_on(launch, arrays)
    assert_same((out, mask), expected(x, scale, zero_point, axis, -8, 7))
    assert not any(word in launch.kernel.source("asm") for word in (*FUSED, *FUSED_OTHERWISE))


@pytest.mark.parametrize("shape", ["rows", "lanes", "direct"])
def test_every_bfloat16(shape):
    """With a range of one value, out is that times scale: any float32 can be had, and is to be rounded."""
    upper = np.arange(2**16, dtype="u4") << np.uint32(16)
    lower = np.uint32([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    scale = (upper[:, None] | lower).reshape(-1).view("f4")
    x = np.zeros({"rows": (len(scale), 32), "lanes": (9, len(scale)), "direct": (len(scale),)}[shape], "f4")
    axis = 1 if shape == "lanes" else 0
    zero_point, out, mask = np.zeros(len(scale), "i4"), np.empty(x.shape, ml_dtypes.bfloat16), np.empty(x.shape, bool)
    checked = checked_arguments((x, scale, zero_point, out, mask), axis, 1, 1)
    launch_on(prepare(checked), [o.tensor for o in checked.operands])
    with np.errstate(invalid="ignore"):
        want = bits(scale.astype(ml_dtypes.bfloat16)).reshape((-1, 1) if shape == "rows" else -1)
    np.testing.assert_array_equal(bits(out), np.broadcast_to(want, out.shape))


@pytest.mark.parametrize("quant_range", [(-8, 7), (-(2**31), 2**31 - 1)])
@pytest.mark.parametrize("axis", [1, -1, None])
@pytest.mark.parametrize(
    ("dtype", "zero_point_dtype", "out_dtype"), [("bfloat16", "int32", "bfloat16"), ("float32", "float32", "bfloat16")]
)
def test_the_expression_on_shapes_of_the_caller(dtype, zero_point_dtype, out_dtype, axis, quant_range):
    """As a graph compiler uses it: static extents, a constant range, no schedule, TVM's own passing of buffers."""
    import tvm
    from tvm import te

    from fq_tvm.codegen.expression import QuantRange
    from fq_tvm.codegen.expression import fake_quant as state

    rng = np.random.default_rng(31)
    x, scale, zero_point = make(
        rng, (3, 5, 70), axis, dtype, quant_range=quant_range, zero_point_dtype=zero_point_dtype
    )
    inputs = [te.placeholder(a.shape, a.dtype.name, n) for n, a in zip("xsz", (x, scale, zero_point), strict=True)]
    outputs = state(*inputs, axis, QuantRange.constant(*quant_range), out_dtype)
    target = tvm.target.Target(current_target().to_tvm())
    run_it = tvm.compile(te.create_prim_func([*inputs, *outputs], "int64"), target=target)
    tensors = [tvm.runtime.tensor(a) for a in (x, scale, zero_point)]
    results = [tvm.runtime.empty(x.shape, dtype) for dtype in (out_dtype, "bool")]
    run_it(*tensors, *results)
    assert_same([t.numpy() for t in results], expected(x, scale, zero_point, axis, *quant_range, out_dtype))


def test_one_row_is_spread_over_threads():
    x, scale, zero_point = np.zeros((1, 100000), "f4"), np.ones(1, "f4"), np.zeros(1, "i4")
    arrays = (x, scale, zero_point, np.empty_like(x), np.empty(x.shape, bool))
    launch = prepare(checked_arguments(arrays, None, -8, 7))
    assert launch.choice.layout == Layout("rows", (1,), 1, 100000)
    tile, rows = launch.kernel.schedule.tile, launch.kernel.schedule.rows
    blocks, tiles = (f"(({n} + T.int64({k - 1})) // T.int64({k}))" for n, k in (("channels", rows), ("inner", tile)))
    assert f"T.parallel(outer * {blocks} * {tiles})" in launch.kernel.source("tir")


@pytest.mark.parametrize("iteration", ["rows", "lanes", "strided_rows", "strided_lanes"])
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(tile=1, rows=1),
        Schedule(tile=48, rows=3, run=1),
        Schedule(tile=1000, rows=2, run=10**6, parallel_from=1),
        Schedule(tile=64, rows=5, run=7, parallel_from=1),
    ],
)
def test_schedules_never_change_a_result(iteration, schedule):
    rng = np.random.default_rng(5)
    spec = FakeQuantSpec(iteration)
    for shape, axis in SHAPES[iteration]:
        assert_same(*run(spec, shape, axis, (-128, 127), rng, schedule))


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_thread_counts_never_change_a_result(threads, monkeypatch):
    import threading

    monkeypatch.setenv("FQ_TVM_NUM_THREADS", threads)
    failures = []

    def in_a_thread_of_its_own():  # a pool belongs to its thread
        rng = np.random.default_rng(9)
        try:
            for iteration, shapes in SHAPES.items():
                for shape, axis in shapes:
                    spec = FakeQuantSpec(iteration)
                    assert_same(*run(spec, shape, axis, (-8, 7), rng, Schedule(tile=64, parallel_from=1)))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=in_a_thread_of_its_own)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def test_sources_show_what_they_say():
    built = get_kernel(FakeQuantSpec("rows"))
    assert "T.sblock_alloc_buffer" in built.source("te")
    assert "T.parallel" in built.source("tir")
    assert "define" in built.source("ll")
    assert ".text" in built.source("asm")
    with pytest.raises(FqError, match="te, tir, ll, asm"):
        built.source("ptx")


def functions_of(text: str) -> dict[str, str]:
    """Split LLVM IR into the bodies of its functions."""
    found = {}
    for part in text.split("\ndefine ")[1:]:
        found[part.partition("@")[2].partition("(")[0]] = part.partition("\n}")[0]
    return found


@pytest.mark.parametrize("spec", [s for s in catalogue() if not s.strided], ids=lambda s: s.name)
def test_the_inner_loops_are_vectorized(spec):
    assert_vectorized(spec)


def assert_vectorized(spec: FakeQuantSpec) -> None:
    """In the serial functions and in the tasks that the parallel ones hand to threads."""
    bodies = functions_of(get_kernel(spec).source("ll"))
    working = [n for n in bodies if n.endswith("serial_compute_") or n.startswith("__tvm_parallel_lambda")]
    forms = 3 if spec.lanes else 2
    folded = 4 if spec.lanes and folds(spec) else 0  # "" and "blocked" hand out tasks in two places
    assert len(working) == forms * (2 if spec.wide else 3) + folded, "serial, parallel, and past the caches"
    for name in working:
        assert "x float> @llvm.nearbyint.v" in bodies[name], name
        if folds(spec) and not spec.lanes:
            assert "x float> @llvm.fmuladd.v" in bodies[name], name


def test_no_fused_multiply_add_and_no_fast_math():
    for spec in catalogue():
        assert_no_fused_sums(spec)


def assert_no_fused_sums(spec: FakeQuantSpec) -> None:
    """But for the sum with 0.0 that makes -0.0 a 0.0."""
    ll, asm = get_kernel(spec).source("ll"), get_kernel(spec).source("asm")
    sums = [line for line in ll.splitlines() if "@llvm.fmuladd" in line and "call" in line]
    assert bool(sums) == folds(spec)
    assert all(re.search(r"(zeroinitializer|float 0\.0+e\+00)\)", line) for line in sums)
    assert not any(word in ll for word in (" fast ", "llvm.fma.", "reassoc", "contract"))
    assert not any(word in asm for word in (*FUSED_OTHERWISE, *(() if folds(spec) else FUSED)))


def test_memory_then_cache(monkeypatch):
    spec = FakeQuantSpec("rows")
    first = get_kernel(spec)
    assert get_kernel(spec) is first
    assert first.path is not None
    monkeypatch.setattr(registry, "_kernels", {})
    monkeypatch.setattr(registry, "build_entry", None)  # a second build would fail
    again = get_kernel(spec)
    assert again is not first
    assert again.path == first.path


def perturbed(request: dict) -> list[tuple[str, dict]]:
    """Every way to change one leaf of the key."""
    found = []
    for name, value in request.items():
        if isinstance(value, dict):
            found += [(f"{name}.{k}", {**request, name: changed}) for k, changed in perturbed(value)]
        else:
            found.append((name, {**request, name: [*value, "x"] if isinstance(value, list) else f"{value}x"}))
    return found


def test_every_field_moves_the_key():
    spec, target = FakeQuantSpec("rows"), current_target()
    request = request_of(spec, default_schedule(spec), target)
    changes = perturbed(request)
    names = {name.split(".")[0] for name, _ in changes}
    assert names == {"format", "operator", "spec", "schedule", "target", "versions", "generator", "entry_points"}
    hashes = {digest(r) for _, r in changes}
    assert len(hashes) == len(changes)
    assert digest(request) not in hashes


def test_every_argument_of_code_generation_moves_the_key():
    spec, target = FakeQuantSpec("rows"), current_target()
    schedule = default_schedule(spec)
    requests = [request_of(s, schedule, target) for s in catalogue()]
    for name in schedule.compiled:
        other = 256 if name == "vector_bits" else getattr(schedule, name) + 1
        more = dataclasses.replace(schedule, **{name: other})
        requests.append(request_of(spec, more, target))
    for changed in ({"cpu": "another"}, {"features": ("avx",)}, {"architecture": "another"}):
        requests.append(request_of(spec, schedule, dataclasses.replace(target, **changed)))
    assert len({digest(r) for r in requests}) == len(requests)


def test_what_only_a_launch_reads_needs_no_other_code():
    """Only those knobs are left out of the key that leave the code as it is."""
    target = current_target()
    schedule = Schedule()
    left_out = set(schedule.to_json()) - set(schedule.compiled)
    assert left_out == {"parallel_from", "stream_from"}
    other = dataclasses.replace(schedule, **dict.fromkeys(left_out, 1))
    for spec in map(FakeQuantSpec, ITERATIONS):
        assert lower(spec, schedule, target).script() == lower(spec, other, target).script()
        assert get_kernel(spec, target, schedule).path == get_kernel(spec, target, other).path


@pytest.mark.parametrize("changed", ["codegen/expression.py", "codegen/new.py", "schedule.py", "layout.py"])
def test_a_change_of_what_generates_code_moves_the_key(monkeypatch, tmp_path, changed):
    functions = "fq_tvm.codegen.functions:state"
    before = registry._generator(functions)
    folder = tmp_path / "fq_tvm"
    shutil.copytree(Path(registry.__file__).parents[1], folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(registry, "__file__", str(folder / "launch" / "registry.py"))
    assert registry._generator.__wrapped__(functions) == before
    with (folder / changed).open("a") as file:
        file.write("\n")
    assert registry._generator.__wrapped__(functions) != before


def test_the_key_never_says_native():
    assert "native" not in json.dumps(request_of(FakeQuantSpec("rows"), Schedule(), current_target()))
    assert set(versions()) == {"fq_tvm", "apache-tvm", "apache-tvm-ffi"}


def test_the_same_build_twice_gives_the_same_tir():
    from fq_tvm.codegen.build import build

    spec, target = FakeQuantSpec("lanes"), current_target()
    assert build(spec, Schedule(), target).tir_hash == build(spec, Schedule(), target).tir_hash


def test_require_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_kernels", {})
    monkeypatch.setenv("FQ_TVM_REQUIRE_CACHE", "1")
    assert get_kernel(FakeQuantSpec("rows")).path is not None  # others built it
    with pytest.raises(CacheMissError, match=r"schedule.tile: \d+, wanted 99"):
        get_kernel(FakeQuantSpec("rows"), schedule=Schedule(tile=99))
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path))
    with pytest.raises(CacheMissError, match="no entries"):
        get_kernel(FakeQuantSpec("lanes"))


def test_build_library_and_artifacts(monkeypatch, tmp_path):
    specs = catalogue(iteration="rows", dtype="float32", out_dtype="float32", arithmetic="narrow")
    steps = []
    paths = build_library(tmp_path / "lib", specs, progress=lambda *step: steps.append(step))
    total = len(set(paths))  # two kernels, each in the schedules of all size classes
    assert len(specs) == 2 <= total
    assert [step[:2] for step in steps] == [(done, total) for done in range(total)]
    modified = [p.stat().st_ino for p in paths]
    assert build_library(tmp_path / "lib", specs) == paths
    assert [p.stat().st_ino for p in paths] == modified
    monkeypatch.setattr(registry, "_kernels", {})
    monkeypatch.setattr(registry, "_targets", {})
    monkeypatch.setattr(registry, "compiler", None)  # the library remembers what CPU it is for
    monkeypatch.setattr(registry, "build_entry", None)
    monkeypatch.setenv("FQ_TVM_ARTIFACTS_DIR", str(tmp_path / "lib"))
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path / "empty"))
    assert get_kernel(specs[0]).path in paths
    assert not (tmp_path / "empty").exists()


def test_unknown_cpu_is_an_error_and_not_slow_code(monkeypatch):
    monkeypatch.setattr(registry, "_targets", {})
    monkeypatch.setenv("FQ_TVM_TARGET", "znver99")
    with pytest.raises(FqError, match=r"znver99.*x86-64-v3"):
        current_target()


def test_another_cpu_can_be_built_for_but_not_run():
    target = resolve(LESSER_CPU)
    assert target.missing == ()
    assert not {"avx512f", "sve"} & set(target.features)
    strange = dataclasses.replace(target, missing=("avx10.1",))
    built = get_kernel(FakeQuantSpec("rows"), strange)
    assert "zmm" not in built.source("asm")
    with pytest.raises(BuildError, match=r"avx10\.1"):
        built.function("run_serial")


def test_code_for_a_lesser_cpu_gives_the_same_bits():
    rng = np.random.default_rng(1)
    for iteration, dtype in itertools.product(("rows", "lanes"), ("float32", "float16")):
        spec = FakeQuantSpec(iteration, dtype, dtype, dtype)
        for shape, axis in SHAPES[iteration]:
            x, scale, zero_point = make(rng, shape, axis, dtype, dtype)
            out, mask = np.empty_like(x), np.empty_like(x, bool)
            arrays = (x, scale, zero_point, out, mask)
            launch = prepare(checked_arguments(arrays, axis, -128, 127), resolve(LESSER_CPU))
            assert isinstance(launch, Launch)
            assert launch.kernel.spec == spec
            launch_on(launch, arrays)
            assert_same((out, mask), expected(x, scale, zero_point, axis, -128, 127))


def test_hidden_features_are_switched_off():
    target = current_target()
    assert not set(target.features) & set(target.disabled)
    assert target.missing == ()


def test_empty_tensors_need_no_kernel(monkeypatch):
    monkeypatch.setattr(registry, "get_kernel", None)
    x = np.empty((3, 0), np.float32)
    arrays = (x, np.ones(3, "f4"), np.zeros(3, "i4"), x.copy(), np.empty((3, 0), bool))
    launch = prepare(checked_arguments(arrays, 0, 0, 1))
    assert isinstance(launch, EmptyLaunch)
    assert launch.workspace_size == 0
    launch(x, None, None, None, None)


def test_corrupt_entries_are_rebuilt(monkeypatch, tmp_path):
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(registry, "_kernels", {})
    spec = FakeQuantSpec("rows")
    path = get_kernel(spec).path
    (path / "kernel.o").write_bytes(b"\x7fELF nonsense")
    monkeypatch.setattr(registry, "_kernels", {})
    rng = np.random.default_rng(0)
    assert_same(*run(spec, (3, 5, 300), 1, (-8, 7), rng))
    assert sum("spec" in entry.request for entry in Store(tmp_path).entries()) == 1


def test_building_is_quick_enough_to_be_lazy():
    # not a benchmark: guards against an accidental order of magnitude
    start = time.perf_counter()
    get_kernel(FakeQuantSpec("rows"), schedule=Schedule(tile=12345))
    assert time.perf_counter() - start < 30

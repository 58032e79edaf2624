"""Results written past the caches: the same bits wherever the tensors begin, and whole lines alone."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from support import LESSER_CPU, assert_same, run_at

from fq_tvm import FakeQuantSpec, catalogue, find_target, get_kernel
from fq_tvm.codegen import nontemporal
from fq_tvm.codegen.build import lower
from fq_tvm.codegen.llvm import translate
from fq_tvm.entry_points import folds
from fq_tvm.launch import kernel
from fq_tvm.launch.buffers import empty_like
from fq_tvm.launch.plan import NONTEMPORAL_ROW_ELEMENTS
from fq_tvm.launch.registry import current_target
from fq_tvm.schedule import LIMITS, Schedule, default_schedule
from fq_tvm.target import Target

STREAMING = [spec for spec in catalogue() if spec.nontemporal]
SHAPES = {
    "rows": [((3, 5, 704), 1), ((2, 40, 513), 1), ((3, 4500), 0), ((1, 40000), 0), ((7, 4160), 0)],
    "lanes": [((300, 64), 1), ((1000, 3), 1), ((130, 7, 9), 1), ((9, 2048), 1), ((4, 16448), 1), ((1, 20032), 1)],
}


def run(spec: FakeQuantSpec, shape, axis, rng, schedule=None, stream_from=1, **where):
    """Run a kernel, by default in the schedule of large tensors; return its results and the reference's."""
    return run_at(spec, shape, axis, rng, schedule, parallel_from=1, stream_from=stream_from, **where)


@pytest.fixture
def called(monkeypatch):
    """The names of the functions that launches look up."""
    names: list[str] = []
    original = kernel.Kernel.function
    monkeypatch.setattr(kernel.Kernel, "function", lambda self, name: names.append(name) or original(self, name))
    return names


@pytest.mark.parametrize("spec", STREAMING, ids=lambda s: s.name)
def test_the_same_bits(spec, called):
    rng = np.random.default_rng(11)
    for shape, axis in SHAPES[spec.iteration]:
        assert_same(*run(spec, shape, axis, rng))
    forms = {"rows": {"run", "long"}, "lanes": {"run", "blocked", "direct"}}[spec.iteration]
    assert {f"{form}_nontemporal" for form in forms} <= set(called)


@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [("float32", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16"), ("float16", "float32")],
)
@pytest.mark.parametrize("iteration", ["rows", "lanes"])
def test_wherever_tensors_begin(iteration, dtype, out_dtype):
    """A store of a line to anything but a line would end the process."""
    spec = FakeQuantSpec(iteration, dtype, "float32", out_dtype)
    rng = np.random.default_rng(12)
    places = [
        (0, 0, 0),
        (4, 0, 0),
        (0, 4, 0),
        (0, 0, 1),
        (0, 0, 48),
        (0, 32, 32),
        (0, 60, 63),
        (2, 16, 16),
        (0, 64, 128),
    ]
    for offsets, (shape, axis) in itertools.product(places, SHAPES[iteration]):
        assert_same(*run(spec, shape, axis, rng, offsets=offsets))


@pytest.mark.parametrize("extent", [*range(512, 512 + 66), *range(1023, 1090, 7)])
def test_every_length_of_a_row(extent):
    """Rows that begin anywhere within a line: a head and a tail of each length."""
    assert_same(*run(FakeQuantSpec("rows"), (2, 33, extent), 1, np.random.default_rng(extent)))


@pytest.mark.parametrize("iteration", ["rows", "lanes"])
def test_in_place(iteration):
    rng = np.random.default_rng(13)
    for shape, axis in SHAPES[iteration]:
        assert_same(*run(FakeQuantSpec(iteration), shape, axis, rng, in_place=True))


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("tile", [64, 1000, 4096])
@pytest.mark.parametrize("iteration", ["rows", "lanes"])
def test_any_tile(iteration, tile, rows):
    """Tiles that are no multiple of a line begin within one."""
    rng = np.random.default_rng(14)
    schedule = Schedule(tile=tile, rows=rows)
    for shape, axis in SHAPES[iteration]:
        assert_same(*run(FakeQuantSpec(iteration), shape, axis, rng, schedule))


def test_code_for_a_lesser_cpu(monkeypatch):
    monkeypatch.setenv("FQ_TVM_TARGET", LESSER_CPU)
    rng = np.random.default_rng(15)
    for spec in (FakeQuantSpec("rows"), FakeQuantSpec("lanes", "float16", "float16", "float16")):
        for shape, axis in SHAPES[spec.iteration]:
            assert_same(*run(spec, shape, axis, rng))


def test_only_large_tensors(called):
    rng = np.random.default_rng(16)
    for spec in (FakeQuantSpec("rows"), FakeQuantSpec("lanes")):
        for shape, axis in SHAPES[spec.iteration]:
            moved = int(np.prod(shape)) * spec.element_bytes
            assert_same(*run(spec, shape, axis, rng, stream_from=moved + 1))
    assert not any(name.endswith("nontemporal") for name in called)


def test_only_where_it_was_measured():
    """On x86-64; elsewhere a record has to say so."""
    for iteration in ("rows", "lanes"):
        spec = FakeQuantSpec(iteration)
        assert default_schedule(spec) == default_schedule(spec, Target("x86-64-v3", ()))
        assert default_schedule(spec).stream_from == 2**26
        assert default_schedule(spec, Target("tsv110", (), architecture="aarch64")).stream_from == LIMITS["stream_from"]


def test_only_rows_with_enough_whole_lines(called):
    rng = np.random.default_rng(17)
    for dtype, least in NONTEMPORAL_ROW_ELEMENTS.items():
        spec = FakeQuantSpec("rows", dtype, "float32", dtype)
        for inner, streamed in ((least - 1, False), (least + 1, True), (128, True), (100, False)):
            called.clear()
            assert_same(*run(spec, (4, 3, inner), 1, rng))
            assert any(name.endswith("nontemporal") for name in called) == streamed, (dtype, inner)


@pytest.mark.parametrize("spec", STREAMING, ids=lambda s: s.name)
def test_marked_stores_are_those_of_blocks(spec):
    """Of whole lines, and the function that writes past the caches ends with a fence."""
    check_stores(spec, current_target())


@pytest.mark.parametrize("spec", [FakeQuantSpec("rows"), FakeQuantSpec("lanes", "float16")], ids=lambda s: s.name)
def test_each_architecture_has_its_stores(spec):
    for cpu in ("x86-64-v3", "kunpeng-920", "armv8-a"):
        check_stores(spec, find_target(cpu))


STORE_AND_FENCE = {
    "x86_64": ("vmovnt", "call void @llvm.x86.sse.sfence()", "sfence"),
    "aarch64": ("stnp", "call void @llvm.aarch64.dmb(i32 10)", "dmb\tishst"),
}


def check_stores(spec: FakeQuantSpec, target: Target) -> None:
    store, call, fence = STORE_AND_FENCE[target.architecture]
    ll, asm = get_kernel(spec, target).source("ll"), get_kernel(spec, target).source("asm")
    marked = [line for line in ll.splitlines() if "!nontemporal" in line]
    assert len(marked) >= 4
    assert all(re.search(r"store <64 x (float|half|i8)> .* align 64, !nontemporal", line) for line in marked)
    assert store in asm
    tasks = 2 if not spec.lanes else 5 if folds(spec) else 3
    assert ll.count(call) == tasks
    assert asm.count(fence) >= tasks


@pytest.mark.parametrize("iteration", ["rows", "lanes"])
def test_no_store_of_llvms_own_is_marked(iteration, monkeypatch):
    spec, target = FakeQuantSpec(iteration), current_target()
    schedule = default_schedule(spec)
    monkeypatch.setattr(Target, "nontemporal_stores", False)
    assert nontemporal._STORE.search(translate(lower(spec, schedule, target), schedule, target)) is None


def test_no_such_functions_where_they_would_not_help():
    wide, strided = FakeQuantSpec("rows", arithmetic="wide"), FakeQuantSpec("strided_rows")
    assert not wide.nontemporal
    assert not strided.nontemporal
    assert "!nontemporal" not in get_kernel(wide).source("ll") + get_kernel(strided).source("ll")
    assert FakeQuantSpec("rows").nontemporal
    assert all(find_target(cpu).nontemporal_stores for cpu in ("host", "x86-64-v3", "armv8-a"))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_results_of_numpy_begin_with_a_line(order):
    x = np.empty((64, 100, 70), np.float32).transpose(order)
    for dtype in (np.float32, bool):
        like, numpys = empty_like(x, dtype), np.empty_like(x, dtype)
        assert (like.shape, like.strides, like.dtype) == (numpys.shape, numpys.strides, numpys.dtype)
        assert like.nbytes < 2**20 or like.ctypes.data % 64 == 0
        like[...] = 1

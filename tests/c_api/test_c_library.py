"""The C library: the choice of Python's, the bits of the reference, in programs that have neither Python nor TVM."""

from __future__ import annotations

import ctypes
import dataclasses
import math
import re
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import RANGES, array_at, assert_same, bits, expected, make
from test_entry_points import perturbations

import fq_tvm
from fq_tvm import BuildError, FakeQuantSpec, FqError
from fq_tvm.c_api import build as builder
from fq_tvm.c_api.source import VARIANTS, header, source
from fq_tvm.launch.arguments import Gradient, Operand, Operands, check
from fq_tvm.launch.choose import choose
from fq_tvm.launch.registry import current_target, find_target
from fq_tvm.layout import dense_strides
from fq_tvm.reference import fake_quant, straight_through
from fq_tvm.schedule import default_schedule
from fq_tvm.spec import CONTRACT, FLOATS, Formula, StraightThroughSpec, straight_through_catalogue

HERE = Path(__file__).parent
COMPILER = shutil.which("gcc") or shutil.which("cc")
CXX = shutil.which("g++") or shutil.which("c++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
STRICT = ["-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]

SPECS = (
    *(FakeQuantSpec(iteration) for iteration in ("rows", "lanes", "strided_rows", "strided_lanes")),
    FakeQuantSpec("rows", arithmetic="wide"),
    FakeQuantSpec("rows", "bfloat16", "bfloat16", zero_point_dtype="float16"),
)

OTHERS = (
    FakeQuantSpec("rows", mask=False),
    FakeQuantSpec("lanes", form="division", mask=False),
    FakeQuantSpec("strided_rows", form="division"),
    FakeQuantSpec("rows", form="division", zero_point_placement="before", keep_zero_sign=True, nan="quant_max"),
    FakeQuantSpec("lanes", zero_point_dtype="float32", zero_point_placement="after", mask=False),
    StraightThroughSpec("rows"),
    StraightThroughSpec("strided_rows", "float16"),
)
"""Other formulas, kernels without a mask, and the gradient."""

DIVISION, BEFORE, AFTER, KEEP_ZERO_SIGN, NAN_QUANT_MAX = 1, 2, 4, 8, 16
MASKED, UNMASKED, GRADIENT = range(3)

DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "int32": 3, "bool": 4}
PER_TENSOR = -(2**31)
STATUS = {"null": 1, "dtype": 2, "shape": 3, "range": 4, "overlap": 5}
WORKSPACE, KERNEL, CPU, FAILED = 6, 7, 8, 9


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 8),
        ("strides", ctypes.c_int64 * 8),
    ]


TASK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32)
RUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, TASK, ctypes.c_void_p)


class Threads(ctypes.Structure):
    _fields_ = [("run", RUN), ("context", ctypes.c_void_p), ("tasks", ctypes.c_int32)]


def compiled(out: Path, *arguments: object) -> Path:
    command = [COMPILER, *map(str, arguments), "-o", str(out), "-lm", "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def tensor(data: int, dtype: str, shape, strides) -> Tensor:
    return Tensor(data, DTYPES[dtype], len(shape), (*shape,), (*strides,))


def of(array: np.ndarray) -> Tensor:
    strides = (s // array.itemsize for s in array.strides)
    return tensor(array.ctypes.data, array.dtype.name, array.shape, strides)


class Library:
    """A shared library of fq_tvm.c and the objects, called through ctypes."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        range_of = [ctypes.c_int32, ctypes.c_int64, ctypes.c_int64]
        pointers = [ctypes.POINTER(Tensor)] * 5
        self.c.fq_tvm_workspace_size.argtypes = [*pointers[:3], *range_of, *pointers[3:], ctypes.c_void_p]
        arguments = [*pointers[:3], *range_of, *pointers[3:], ctypes.c_void_p, ctypes.c_size_t]
        self.c.fq_tvm_fake_quantize.argtypes = [*arguments, ctypes.POINTER(Threads)]
        self.c.fq_tvm_workspace_size_by.argtypes = [ctypes.c_int32, *self.c.fq_tvm_workspace_size.argtypes]
        self.c.fq_tvm_fake_quantize_by.argtypes = [ctypes.c_int32, *self.c.fq_tvm_fake_quantize.argtypes]
        self.c.fq_tvm_gradient.argtypes = [*pointers[:3], ctypes.POINTER(Threads)]
        numbers = [*range_of, ctypes.c_int32, ctypes.c_int32]
        self.c.probe.argtypes = [ctypes.POINTER(Tensor), *numbers, ctypes.c_char_p, ctypes.c_size_t]
        self.c.fq_tvm_message.restype = ctypes.c_char_p

    def workspace(self, tensors, axis, low, high) -> tuple[int, int]:
        size = ctypes.c_size_t(2**63)
        x, scale, zero_point, out, mask = map(ctypes.pointer, tensors)
        axis = PER_TENSOR if axis is None else axis
        status = self.c.fq_tvm_workspace_size(x, scale, zero_point, axis, low, high, out, mask, ctypes.byref(size))
        return status, size.value

    def call(self, tensors, axis, low, high, threads=None, workspace=None) -> int:
        """Run, with as much workspace as is needed, or so many bytes; with a byte before and after that has to stay."""
        status, size = self.workspace(tensors, axis, low, high)
        size = (0 if status else size) if workspace is None else workspace
        memory = np.full(size + 2, 0xA5, np.uint8)
        x, scale, zero_point, out, mask = map(ctypes.pointer, tensors)
        axis = PER_TENSOR if axis is None else axis
        place = memory.ctypes.data + 1
        hook = None if threads is None else ctypes.pointer(threads)
        status = self.c.fq_tvm_fake_quantize(x, scale, zero_point, axis, low, high, out, mask, place, size, hook)
        assert memory[0] == memory[-1] == 0xA5
        return status

    def call_by(self, formula, tensors, axis, low, high, threads=None) -> int:
        """Run another formula; without a mask where there are four tensors."""
        size = ctypes.c_size_t(0)
        x, scale, zero_point, out, *mask = map(ctypes.pointer, tensors)
        numbers = PER_TENSOR if axis is None else axis, low, high
        arguments = formula, x, scale, zero_point, *numbers, out, *(mask or [None])
        status = self.c.fq_tvm_workspace_size_by(*arguments, ctypes.byref(size))
        if status:
            return status
        memory = np.full(size.value + 2, 0xA5, np.uint8)
        hook = None if threads is None else ctypes.pointer(threads)
        status = self.c.fq_tvm_fake_quantize_by(*arguments, memory.ctypes.data + 1, size.value, hook)
        assert memory[0] == memory[-1] == 0xA5
        return status

    def gradient(self, grad, mask, out, threads=None) -> int:
        hook = None if threads is None else ctypes.pointer(threads)
        return self.c.fq_tvm_gradient(*map(ctypes.pointer, (grad, mask, out)), hook)

    def plan(self, tensors, axis, low, high, formula=0, kind=MASKED) -> str:
        text = ctypes.create_string_buffer(4096)
        axis = PER_TENSOR if axis is None else axis
        status = self.c.probe((Tensor * 5)(*tensors), axis, low, high, formula, kind, text, len(text))
        assert status == 0
        return text.value.decode()


def spread(tasks: int, seen: list[int] | None = None) -> Threads:
    """A hook of Python's threads: four at a time, the last tasks first."""

    def run(context, count, task, data):
        if seen is not None:
            seen.append(count)
        with ThreadPoolExecutor(4) as pool:
            return max(pool.map(lambda i: task(data, i), reversed(range(count))))

    return Threads(RUN(run), None, tasks)


@pytest.fixture(scope="module")
def untuned():
    """One object for each kernel, whatever the records of this CPU say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "schedule_for", lambda spec, *_: default_schedule(spec))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, untuned) -> Path:
    path = tmp_path_factory.mktemp("library")
    made = fq_tvm.build_c_library(path, (*SPECS, *OTHERS))
    assert {p.name for p in made} == {p.name for p in path.iterdir()}
    assert {p.name for p in made} == {"fq_tvm.h", "fq_tvm.c", *(f"{spec.name}.o" for spec in (*SPECS, *OTHERS))}
    return path


@pytest.fixture(scope="module")
def objects(folder) -> list[Path]:
    return sorted(folder.glob("*.o"))


@pytest.fixture(scope="module")
def library(folder, objects) -> Library:
    """The library as it is written."""
    probe = ["-shared", "-fPIC", f"-I{folder}", HERE / "probe.c"]
    return Library(compiled(folder / "probe.so", *STRICT, *probe, *objects))


@pytest.fixture(scope="module")
def eager(folder, objects, tmp_path_factory) -> Library:
    """The same objects, launched by schedules that spread small tensors over threads and write them past the caches."""
    knobs = {"parallel_from": 200, "stream_from": 20_000}
    codes = [code for spec in (*SPECS, *OTHERS) for code in builder._codes(spec, current_target())]
    codes = [
        dataclasses.replace(
            code, schedules={most: dataclasses.replace(s, **knobs) for most, s in code.schedules.items()}
        )
        for code in codes
    ]
    path = tmp_path_factory.mktemp("eager")
    (path / "fq_tvm.c").write_text(source(codes, current_target()))
    arguments = ["-shared", "-fPIC", f"-I{path}", f"-I{folder}", HERE / "probe.c"]
    return Library(compiled(path / "probe.so", *STRICT, *arguments, *objects))


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Library:
    """All kernels of the contract with the schedules of this CPU, to be asked for plans: there is no code."""
    path, target = tmp_path_factory.mktemp("family"), current_target()
    others = fq_tvm.catalogue(form="division", mask=False), straight_through_catalogue()
    specs = (*fq_tvm.catalogue(), *(spec for some in others for spec in some))
    codes = [code for spec in specs for code in builder._codes(spec, target)]
    texts = {"fq_tvm.h": header(codes, target), "fq_tvm.c": source(codes, target)}
    functions = re.findall(r"^PRIVATE int ((?:fq|ste)_\w+)\(", texts["fq_tvm.c"], re.MULTILINE)
    texts["none.c"] = "".join(f"int {name}(void) {{ return -1; }}\n" for name in functions)
    for name, text in texts.items():
        (path / name).write_text(text)
    return Library(compiled(path / "probe.so", "-shared", "-fPIC", f"-I{path}", HERE / "probe.c", path / "none.c"))


def test_another_contract_is_another_source_or_refused():
    """What is perturbed in the contract cannot go unnoticed."""
    target = current_target()
    counts = {"changed": 0, "refused": 0}
    for spec in SPECS[:5]:
        [code, *_] = builder._codes(spec, target)
        text = source([code], target)
        for what, points in perturbations(spec):
            try:
                changed = source([dataclasses.replace(code, points=points)], target)
            except BuildError:
                counts["refused"] += 1
            else:
                assert changed != text, (spec.name, what)
                counts["changed"] += 1
        form = dataclasses.replace(code.points.forms[0], integers=("height",))
        points = dataclasses.replace(code.points, forms=(form, *code.points.forms[1:]))
        with pytest.raises(BuildError, match=rf"has no value for height of {form.name} among its integers"):
            source([dataclasses.replace(code, points=points)], target)
        points = dataclasses.replace(code.points, forms=(*code.points.forms, dataclasses.replace(form, name="walk")))
        with pytest.raises(BuildError, match="does not call the form walk"):
            source([dataclasses.replace(code, points=points)], target)
    assert min(counts.values()) >= 20


def test_a_build_that_cannot_be_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "get_kernel", None)
    with pytest.raises(FqError, match="needs a kernel or more"):
        fq_tvm.build_c_library(tmp_path / "none", [])
    operator = builder.operator_of(SPECS[0])
    form = dataclasses.replace(operator.entry_points(SPECS[0]).forms[0], name="walk")
    points = dataclasses.replace(operator.entry_points(SPECS[0]), forms=(form,))
    changed = dataclasses.replace(operator, entry_points=lambda spec: points)
    monkeypatch.setattr(builder, "operator_of", lambda spec: changed)
    with pytest.raises(BuildError, match="walk"):
        fq_tvm.build_c_library(tmp_path / "none", SPECS[:1])
    assert not (tmp_path / "none").exists()


def operands_of(tensors) -> Operands:
    names = {number: name for name, number in DTYPES.items()}
    return Operands(
        *(Operand(None, names[t.dtype], (*t.shape[: t.rank],), (*t.strides[: t.rank],), 0) for t in tensors)
    )


def plan_of(tensors, axis, low, high, formula=CONTRACT, kind=MASKED) -> str:
    """The plan as launch/plan.py has it, as the probe writes it down."""
    operands = operands_of(tensors[:4] if kind == UNMASKED else tensors)
    if kind == GRADIENT:
        described = Gradient(operands[0], operands[3], operands[4])
    else:
        described = check(operands, axis, low, high, formula=formula, placed=False)
    choice = choose(described, current_target())
    lines = [f"{choice.spec.name} {choice.plan.workspace_size}"]
    for call in choice.plan.calls:
        order = call.form.variants if call.form.name == "expand" else VARIANTS
        variants = {call.form.function(v): i for i, v in enumerate(order) if v in call.form.variants}
        numbers = (format(n, ".17g") if isinstance(n, float) else str(n) for n in call.numbers)
        lines.append(" ".join([call.form.name, str(variants[call.serial]), str(variants[call.threaded]), *numbers]))
    return "\n".join(lines)


@st.composite
def described(draw):
    """Tensors of any extents and strides that there may be, without memory."""
    rank = draw(st.integers(0, 8))
    extent = st.sampled_from([1, 1, 2, 3, 5, 16, 31, 32, 64, 100, 768, 4096]) | st.integers(1, 70)
    shape = [draw(extent) for _ in range(rank)]
    while math.prod(shape) > 2**31:
        shape[shape.index(max(shape))] = 2
    dense = draw(st.booleans())  # else hardly anything is
    axis = draw(st.none() | st.integers(-max(rank, 1), max(rank, 1) - 1))
    if dense and rank and draw(st.booleans()):
        axis = rank - 1
        shape[axis:] = [shape[axis], *draw(st.lists(st.integers(1, 40), max_size=1))][: 9 - rank]
        rank = len(shape)
    channels = shape[axis] if shape and axis is not None else 1

    def strides(may_repeat: bool):
        others = ["same", "permuted", "gaps", *(["any"] if may_repeat else [])]
        kind = "dense" if dense else draw(st.sampled_from(["dense", *others]))
        if kind == "any":
            return [draw(st.integers(-9, 9)) for _ in shape]
        order = draw(st.permutations(range(rank))) if kind in ("permuted", "gaps") else orders
        steps = list(dense_strides(shape, order if kind != "dense" else None))
        if kind == "gaps":
            widened = draw(st.integers(2, 3))
            steps = [s * widened * draw(st.sampled_from([1, 1, -1])) for s in steps]
        return steps

    orders = draw(st.permutations(range(rank)))
    vector = () if axis is None and draw(st.booleans()) else (channels,)
    return (
        [
            tensor(0, draw(st.sampled_from(FLOATS)), shape, strides(True)),
            tensor(0, draw(st.sampled_from(FLOATS)), vector, [draw(st.integers(-3, 3)) for _ in vector]),
            tensor(0, "int32", vector, [draw(st.integers(-3, 3)) for _ in vector]),
            tensor(0, draw(st.sampled_from(FLOATS)), shape, strides(False)),
            tensor(0, "bool", shape, strides(False)),
        ],
        axis,
    )


@needs_compiler
@settings(max_examples=250, deadline=None)
@given(described())
def test_the_plan_is_pythons(family, drawn):
    """Kernel, functions, variants, every number and the workspace, by dtypes, layout and size."""
    tensors, axis = drawn
    wanted = plan_of(tensors, axis, -128, 127)
    assert family.plan(tensors, axis, -128, 127) == wanted
    assert family.workspace(tensors, axis, -128, 127) == (0, int(wanted.split()[1]))


@needs_compiler
@settings(max_examples=100, deadline=None)
@given(described())
def test_the_plan_of_other_kinds_is_pythons(family, drawn):
    """By division and without a mask; and of the gradient, which has no channels."""
    tensors, axis = drawn
    wanted = plan_of(tensors, axis, -128, 127, Formula("division"), UNMASKED)
    assert family.plan(tensors, axis, -128, 127, DIVISION, UNMASKED) == wanted
    tensors[3].dtype = tensors[0].dtype
    assert family.plan(tensors, None, 0, 0, 0, GRADIENT) == plan_of(tensors, None, 0, 0, kind=GRADIENT)


@needs_compiler
@pytest.mark.parametrize("quant_range", [*RANGES, (-(2**63), -(2**63)), (2**63 - 1, 2**63 - 1), (2**53 + 1, 2**54 + 3)])
def test_the_range_is_pythons(family, quant_range):
    """Bounds that are no float64 are rounded inwards for the comparison."""
    tensors = [tensor(0, dtype, shape, [1]) for dtype, shape in zip(
        ("float32", "float32", "int32", "float32", "bool"), ([99], [1], [1], [99], [99]), strict=True)]  # fmt: skip
    assert family.plan(tensors, None, *quant_range) == plan_of(tensors, None, *quant_range)


@needs_compiler
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_numbers_are_planned_or_refused(family, data):
    """Ranks, extents, strides and axes of every size, as of memory that nobody wrote."""
    ends = st.sampled_from([0, 1, 2, 2**31, 2**58, 2**60, 2**63 - 1, -1, -(2**63)])
    number = data.draw(st.sampled_from([ends, ends | st.integers(0, 9), st.integers(0, 3)]))
    rank = data.draw(st.integers(0, 8))
    shape = [data.draw(number) for _ in range(rank)]
    tensors = [tensor(0, "float32", shape, [data.draw(ends | st.integers(1, 9)) for _ in shape]) for _ in range(3)]
    tensors[1:1] = [tensor(0, dtype, shape[:1] or [1], [data.draw(ends)]) for dtype in ("float32", "int32")]
    tensors[4].dtype = DTYPES["bool"]
    if data.draw(st.integers(0, 9)) == 0:
        tensors[data.draw(st.sampled_from([0, 1, 4]))].rank = data.draw(st.sampled_from([-(2**31), -1, 9, 2**31 - 1]))
    axis = data.draw(st.sampled_from([0, 0, 0, -rank, 8, 2**31 - 1, -(2**31) + 1]))
    status, size = family.workspace(tensors, axis, -128, 127)
    assert status in (0, STATUS["shape"])
    assert (size < 2**63) == (status == 0)


@needs_compiler
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_bits_of_the_reference(library, eager, data):
    """Any layout, address, range and number of threads."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 7, 16, 33, 70]), max_size=4)))
    if math.prod(shape) > 60_000:
        shape = shape[:2]
    axis = data.draw(st.none() | st.integers(0, max(len(shape), 1) - 1))
    x, scale, zero_point = make(rng, shape, axis)
    low, high = data.draw(st.sampled_from(RANGES[:5]))
    order = data.draw(st.permutations(range(len(shape))))

    def placed(dtype: str, ordered: bool) -> np.ndarray:
        """A tensor at some byte, its dimensions in some order in memory, with gaps or without."""
        dims = order if ordered else range(len(shape))
        gap = data.draw(st.sampled_from([1, 1, 2]))
        memory = array_at(data.draw(st.integers(0, 63)), (*(shape[d] for d in dims), gap), dtype)[..., 0]
        return memory.transpose(np.argsort(dims)) if shape else memory

    self, out, mask = (
        placed("float32", True),
        placed("float32", True),
        placed("bool", data.draw(st.booleans())),
    )
    self[...] = x
    if data.draw(st.booleans()):
        out = self
    chosen = eager if data.draw(st.booleans()) else library
    hook = spread(data.draw(st.integers(1, 9))) if data.draw(st.booleans()) else None
    if data.draw(st.booleans()):  # parameters of a stride, at any byte
        wide = [array_at(3, (len(v), 2), v.dtype.name) for v in (scale, zero_point)]
        for place, vector in zip(wide, (scale, zero_point), strict=True):
            place[:, 1] = vector
        scale, zero_point = (place[:, 1] for place in wide)
    wanted = expected(x, scale, zero_point, axis, low, high)
    assert chosen.call([of(a) for a in (self, scale, zero_point, out, mask)], axis, low, high, hook) == 0
    assert_same((out, mask), wanted)


FORMULAS = [
    (OTHERS[0], (3, 40, 170), 0),
    (OTHERS[0], (2, 5, 64), 0),
    (OTHERS[1], (40, 2000), DIVISION),
    (OTHERS[1], (5, 3000), DIVISION),
    (OTHERS[1], (60, 64, 10), DIVISION),
    (OTHERS[2], (4, 6, 50), DIVISION),
    (OTHERS[3], (3, 40, 170), DIVISION | BEFORE | KEEP_ZERO_SIGN | NAN_QUANT_MAX),
    (OTHERS[4], (900, 70), AFTER),
]


@needs_compiler
@pytest.mark.parametrize("tasks", [0, 8])
@pytest.mark.parametrize(("spec", "shape", "formula"), FORMULAS, ids=str)
def test_other_formulas_and_no_mask(eager, spec, shape, formula, tasks):
    rng = np.random.default_rng(6)
    x, scale, zero_point = make(rng, shape, 1, zero_point_dtype=spec.zero_point_dtype)
    wanted = fake_quant(x, scale, zero_point, 1, -128, 127, **vars(spec.formula))
    plain = fake_quant(x, scale, zero_point, 1, -128, 127)
    assert formula & ~AFTER == 0 or not np.array_equal(bits(wanted[0]), bits(plain[0]))
    for offset in (0, 1):
        memory = [array_at(offset, (*shape[:2], *shape[2:], 2 if spec.strided else 1), d) for d in ("f4", "f4", "bool")]
        self, out, mask = (m[..., 0] for m in memory)
        self[...] = x
        results = (out, mask)[: len(spec.results)]
        tensors = [of(a) for a in (self, scale, zero_point, *results)]
        assert eager.call_by(formula, tensors, 1, -128, 127, spread(tasks) if tasks else None) == 0
        for got, want in zip(results, wanted, strict=False):
            np.testing.assert_array_equal(bits(got), bits(want))


@needs_compiler
@pytest.mark.parametrize("spec", OTHERS[5:], ids=str)
def test_the_gradient(eager, spec):
    rng = np.random.default_rng(7)
    grad, _, _ = make(rng, (6, 40, 90), 1, spec.dtype)
    grad = np.asarray(grad)[:, :, ::2] if spec.strided else np.asarray(grad)
    mask = rng.random(grad.shape) < 0.6
    wanted = straight_through(grad, mask)
    for hook in (None, spread(5)):
        out = np.empty((*grad.shape, 3), grad.dtype)[..., 1] if spec.strided else np.empty(grad.shape, grad.dtype)
        assert eager.gradient(of(grad), of(mask), of(out), hook) == 0
        np.testing.assert_array_equal(bits(out), bits(wanted))
    own = grad.copy()
    assert eager.gradient(of(own), of(mask), of(own)) == (KERNEL if spec.strided else 0)  # dense, of float16
    np.testing.assert_array_equal(bits(own), bits(grad if spec.strided else wanted))


@needs_compiler
def test_refusals_of_other_kinds(library):
    arrays = call_of((4, 6, 50))
    tensors, before = [of(a) for a in arrays], [a.tobytes() for a in arrays]
    wide = DIVISION | BEFORE | KEEP_ZERO_SIGN | NAN_QUANT_MAX
    for formula in (DIVISION, BEFORE, BEFORE | AFTER | wide, 32, 2**31 - 1, -(2**31)):
        assert library.call_by(formula, tensors, 1, -128, 127) == KERNEL
    assert library.call_by(wide, tensors[:4], 1, -128, 127) == KERNEL
    x, _, _, out, mask = tensors
    assert library.c.fq_tvm_gradient(ctypes.pointer(x), None, ctypes.pointer(out), None) == STATUS["null"]
    assert library.gradient(x, out, mask) == library.gradient(x, mask, mask) == STATUS["dtype"]
    assert library.gradient(x, of(arrays[4][:2]), out) == STATUS["shape"]
    overlapping = of(arrays[0])
    overlapping.data += 4
    assert library.gradient(x, mask, overlapping) == STATUS["overlap"]
    over_mask = of(arrays[3])
    over_mask.data = mask.data
    assert library.gradient(x, mask, over_mask) == STATUS["overlap"]
    empty = [of(a) for a in call_of((4, 6, 0))]
    assert library.gradient(empty[0], empty[4], empty[3]) == 0
    assert library.call_by(0, empty[:4], 1, -128, 127) == 0
    assert [a.tobytes() for a in arrays] == before


CASES = [
    (SPECS[0], (3, 40, 170), 1, "long_ nontemporal"),
    (SPECS[0], (2, 5, 64, 64), 1, "several rows"),
    (SPECS[4], (3, 40, 170), 1, "wide"),
    (SPECS[1], (900, 70), 1, "runs"),
    (SPECS[1], (5, 3000), 1, "direct"),
    (SPECS[1], (40, 2000), 1, "blocked"),
    (SPECS[1], (60, 64, 10), 1, "expanded by repetition"),
    (SPECS[5], (7, 9, 300), 1, "bfloat16, zero points of floats"),
]


@needs_compiler
@pytest.mark.parametrize("tasks", [0, 1, 8])
@pytest.mark.parametrize(("spec", "shape", "axis", "what"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_every_form_with_and_without_threads(eager, spec, shape, axis, what, tasks):
    rng = np.random.default_rng(5)
    low, high = (-(2**31), 2**31 - 1) if spec.wide else (-128, 127)
    dtypes = {"quant_range": (low, high), "zero_point_dtype": spec.zero_point_dtype}
    x, scale, zero_point = make(rng, shape, axis, spec.dtype, spec.scale_dtype, **dtypes)
    wanted = expected(x, scale, zero_point, axis, low, high, spec.out_dtype)
    for offset in (0, 1):
        self, out, mask = (array_at(offset, shape, d) for d in (spec.dtype, spec.out_dtype, "bool"))
        self[...] = x
        seen: list[int] = []
        hook = spread(tasks, seen) if tasks else None
        assert eager.call([of(a) for a in (self, scale, zero_point, out, mask)], axis, low, high, hook) == 0
        assert_same((out, mask), wanted)
        assert set(seen) == ({tasks} if tasks else set())


@needs_compiler
def test_the_cases_take_every_form(eager):
    """And results past the caches are among them, where the CPU can."""
    taken = set()
    for spec, shape, axis, _ in CASES:
        arrays = [np.empty(shape, d) for d in (spec.dtype, spec.out_dtype, "bool")]
        vectors = [np.empty(shape[axis], d) for d in (spec.scale_dtype, spec.zero_point_dtype)]
        bounds = (-(2**31), 2**31 - 1) if spec.wide else (-128, 127)
        lines = eager.plan([of(a) for a in (arrays[0], *vectors, *arrays[1:])], axis, *bounds).splitlines()
        taken |= {tuple(line.split()[:3:2]) for line in lines[1:]}
    assert {form for form, _ in taken} == {"run", "long", "blocked", "direct", "expand"}
    if current_target().nontemporal_stores:
        assert {"2"} <= {variant for form, variant in taken if form == "run"}


def call_of(shape=(4, 6, 5), axis=1):
    rng = np.random.default_rng(0)
    x, scale, zero_point = make(rng, shape, axis)
    return [x, scale, zero_point, np.full(shape, 7, "f4"), np.full(shape, 7, np.uint8).view(bool)]


@needs_compiler
@pytest.mark.parametrize(
    ("status", "change"),
    [
        ("null", lambda t: setattr(t[0], "data", None)),
        ("null", lambda t: setattr(t[4], "data", None)),
        ("dtype", lambda t: setattr(t[0], "dtype", DTYPES["int32"])),
        ("dtype", lambda t: setattr(t[1], "dtype", 77)),
        ("dtype", lambda t: setattr(t[2], "dtype", DTYPES["bool"])),
        ("dtype", lambda t: setattr(t[4], "dtype", DTYPES["float16"])),
        ("shape", lambda t: setattr(t[0], "rank", 9)),
        ("shape", lambda t: setattr(t[0], "rank", -1)),
        ("shape", lambda t: setattr(t[3], "rank", 2)),
        ("shape", lambda t: t[1].shape.__setitem__(0, 5)),
        ("shape", lambda t: t[4].shape.__setitem__(2, 4)),
        ("shape", lambda t: t[0].shape.__setitem__(2, -5)),
        ("shape", lambda t: t[0].strides.__setitem__(1, 2**62)),
        ("shape", lambda t: t[0].strides.__setitem__(1, -(2**63))),
        ("overlap", lambda t: t[3].strides.__setitem__(0, 0)),
        ("overlap", lambda t: t[4].strides.__setitem__(0, 3)),
        ("overlap", lambda t: setattr(t[3], "data", t[0].data + 4)),
        ("overlap", lambda t: setattr(t[4], "data", t[3].data)),
        ("overlap", lambda t: setattr(t[4], "data", t[1].data)),
    ],
)
def test_refusals(library, status, change):
    arrays = call_of()
    tensors = [of(a) for a in arrays]
    change(tensors)
    before = [a.tobytes() for a in arrays]
    assert library.call(tensors, 1, -128, 127, workspace=10**4) == STATUS[status]
    assert [a.tobytes() for a in arrays] == before
    assert library.c.fq_tvm_message(STATUS[status])
    if status in ("dtype", "shape"):
        assert library.workspace(tensors, 1, -128, 127) == (STATUS[status], 2**63)


@needs_compiler
def test_refusals_of_numbers(library):
    arrays = call_of()
    tensors, before = [of(a) for a in arrays], [a.tobytes() for a in arrays]
    assert library.call(tensors, 3, -128, 127) == library.call(tensors, -4, -128, 127) == STATUS["shape"]
    assert library.call(tensors, None, -128, 127) == STATUS["shape"]
    assert library.call(tensors, 1, 128, 127) == STATUS["range"]
    assert library.call(tensors, 1, -128, 127, Threads(RUN(lambda *_: 0), None, 0)) == STATUS["range"]
    assert library.call(tensors, 1, -128, 127, Threads(RUN(), None, 1)) == STATUS["null"]
    status, size = library.workspace(tensors, 1, -128, 127)
    assert status == 0 and size > 0
    assert library.call(tensors, 1, -128, 127, workspace=size - 1) == WORKSPACE
    assert library.call(tensors, 1, -(2**40), 127) == KERNEL  # wide lanes, which it was built without
    assert [a.tobytes() for a in arrays] == before
    messages = {library.c.fq_tvm_message(status) for status in range(FAILED + 1)}
    assert len(messages) == FAILED + 1
    assert library.c.fq_tvm_message(-1) == library.c.fq_tvm_message(FAILED + 1) not in messages


@needs_compiler
def test_what_fails_in_a_hook(eager):
    arrays = call_of((40, 6, 50), 1)
    tensors = [of(a) for a in arrays]
    assert eager.call(tensors, 1, -128, 127, Threads(RUN(lambda *_: 5), None, 3)) == FAILED
    assert eager.call(tensors, 1, -128, 127) == 0
    assert_same(arrays[3:], expected(*arrays[:3], 1, -128, 127))


@needs_compiler
@pytest.mark.parametrize("shape", [(0,), (4, 0, 5), (4, 6, 0)])
def test_empty_tensors(library, shape):
    axis = len(shape) - 1
    tensors = [of(a) for a in call_of(shape, axis)]
    for each in (tensors[0], *tensors[3:]):
        each.data = None
    assert library.workspace(tensors, axis, -128, 127)[0] == 0
    assert library.call(tensors, axis, -128, 127) == 0
    assert library.call(tensors, axis, 5, 4) == STATUS["range"]


@needs_compiler
def test_a_hook_may_call_while_it_waits(eager):
    """As pools do in which waiting threads take other work."""
    outer, inner = call_of((40, 6, 50), 1), call_of((300, 7), 1)
    counts = {"outer": 0, "inner": 0}

    def run_inner(context, count, task, data):
        counts["inner"] += 1
        return max(task(data, i) for i in range(count))

    inside = Threads(RUN(run_inner), None, 2)

    def run_outer(context, count, task, data):
        counts["outer"] += 1
        assert eager.call([of(a) for a in inner], 1, -128, 127, inside) == 0
        return max(task(data, i) for i in range(count))

    assert eager.call([of(a) for a in outer], 1, -128, 127, Threads(RUN(run_outer), None, 3)) == 0
    assert counts["outer"] and counts["inner"]
    for arrays in (outer, inner):
        assert_same(arrays[3:], expected(*arrays[:3], 1, -128, 127))


@needs_compiler
@pytest.mark.skipif(not current_target().level, reason="the kernels are not of a level of x86-64")
def test_a_cpu_without_the_instructions_is_told(folder, objects, tmp_path):
    arguments = ["-shared", "-fPIC", "-D__builtin_cpu_supports(feature)=0", f"-I{folder}", HERE / "probe.c"]
    lesser = Library(compiled(tmp_path / "probe.so", *arguments, *objects))
    arrays = call_of()
    before = [a.tobytes() for a in arrays]
    assert lesser.call([of(a) for a in arrays], 1, -128, 127, workspace=10**4) == CPU
    assert [a.tobytes() for a in arrays] == before


@needs_compiler
@pytest.mark.skipif(current_target().level is None, reason="not a CPU of level 3 of x86-64")
def test_code_for_a_lesser_cpu_brings_its_own_conversions(tmp_path):
    """Those of float16, by names that the program's compiler has, too."""
    spec = FakeQuantSpec("rows", "float16", "float16", "float16")
    fq_tvm.build_c_library(tmp_path, [spec], find_target("x86-64-v2"))
    made = tmp_path / f"{spec.name}.o"
    library = Library(compiled(tmp_path / "probe.so", "-shared", "-fPIC", f"-I{tmp_path}", HERE / "probe.c", made))
    x, scale, zero_point = make(np.random.default_rng(2), (3, 5, 200), 1, "float16", "float16")
    out, mask = np.empty_like(x), np.empty(x.shape, bool)
    assert library.call([of(a) for a in (x, scale, zero_point, out, mask)], 1, -128, 127) == 0
    assert_same((out, mask), expected(x, scale, zero_point, 1, -128, 127))
    assert "__truncsfhf2" not in shown(tmp_path / "probe.so")


def shown(path: Path) -> str:
    return subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout


@needs_compiler
def test_a_shared_library_shows_its_functions_alone(folder, objects, tmp_path):
    made = compiled(tmp_path / "fq.so", "-shared", "-fPIC", folder / "fq_tvm.c", *objects)
    functions = {line.split()[-1] for line in shown(made).splitlines()}
    plain = {"fq_tvm_workspace_size", "fq_tvm_fake_quantize", "fq_tvm_message"}
    assert functions == plain | {"fq_tvm_workspace_size_by", "fq_tvm_fake_quantize_by", "fq_tvm_gradient"}


def needed(path: Path) -> set[str]:
    text = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"NEEDED.*\[([^]]*?)\.so[^]]*\]", text))


def packed(array: np.ndarray, offset: int) -> bytes:
    header = (DTYPES[array.dtype.name], array.ndim, offset, array.nbytes, *array.shape)
    return struct.pack(f"={len(header)}q", *header)


@needs_compiler
def test_a_program_without_python_and_tvm(folder, objects, tmp_path):
    """Several kernels in one program, threads and none, aligned or not; nothing of the environment is there."""
    link = ["-std=c11", *STRICT, f"-I{folder}", HERE / "program.c", folder / "fq_tvm.c", *objects]
    program = compiled(tmp_path / "program", *link)
    assert needed(program) <= {"libc", "libm", "libpthread", "ld-linux-x86-64", "ld-linux-aarch64"}
    cases = [
        (SPECS[0], (4, 32, 900), 1, (-128, 127)),
        (SPECS[1], (3000, 40), 1, (0, 255)),
        (SPECS[0], (77,), None, (-8, 7)),
        (SPECS[4], (2, 5, 60), 1, (-(2**31), 2**31 - 1)),
        (SPECS[1], (1, 31, 5), 2, (-128, 127)),
        (SPECS[5], (3, 2, 700), 1, (-128, 127)),
        (SPECS[0], (), 0, (-128, 127)),
    ]
    rng, given_to, wanted = np.random.default_rng(9), [], []
    for spec, shape, formula in FORMULAS[::3]:
        x, scale, zero_point = make(rng, shape, 1, zero_point_dtype=spec.zero_point_dtype)
        results = fake_quant(x, scale, zero_point, 1, -128, 127, **vars(spec.formula))
        given_to.append(struct.pack("=6q", 1, -128, 127, 7, formula, MASKED if spec.mask else UNMASKED))
        given_to += [part for a in (x, scale, zero_point) for part in (packed(a, 1), np.ascontiguousarray(a).tobytes())]
        given_to += [packed(a, 1) for a in results]
        wanted += [a.tobytes() for a in results[: len(spec.results)]]
    given_to.append(struct.pack("=6q", 0, 0, 0, 7, 0, GRADIENT))
    given_to += [part for a in (x, scale, zero_point) for part in (packed(a, 5), np.ascontiguousarray(a).tobytes())]
    given_to += [packed(x, 5), packed(results[1], 3), results[1].tobytes()]
    wanted.append(straight_through(x, results[1]).tobytes())
    count = len(FORMULAS[::3]) + 1 + 4 * len(cases)
    for spec, shape, axis, (low, high) in cases:
        dtypes = {"quant_range": (low, high), "zero_point_dtype": spec.zero_point_dtype}
        arrays = make(rng, shape, axis, spec.dtype, spec.scale_dtype, **dtypes)
        results = expected(*arrays, axis, low, high, spec.out_dtype)
        for tasks, offset in ((0, 0), (7, 0), (0, 13), (7, 1)):
            given_to.append(struct.pack("=6q", PER_TENSOR if axis is None else axis, low, high, tasks, 0, MASKED))
            given_to += [part for a in arrays for part in (packed(a, offset), np.ascontiguousarray(a).tobytes())]
            given_to += [packed(np.asarray(a), offset) for a in results]
            wanted += [np.asarray(a).tobytes() for a in results]
    (tmp_path / "in").write_bytes(struct.pack("=q", count) + b"".join(given_to))
    done = subprocess.run([program, "in", "out"], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == b"".join(wanted)
    assert int(done.stdout) >= 2  # the tensors that are large enough, where threads are there


@needs_compiler
def test_objects_of_another_build_do_not_link(folder, objects, tmp_path):
    text = (folder / "fq_tvm.c").read_text()
    other = tmp_path / "fq_tvm.c"
    other.write_text(re.sub(r"_narrow_[0-9a-f]{8}_", "_narrow_00000000_", text))
    command = [
        COMPILER,
        "-shared",
        "-fPIC",
        f"-I{folder}",
        other,
        *objects,
        "-o",
        tmp_path / "fq.so",
        "-Wl,-z,defs",
        "-lm",
    ]
    assert "undefined reference" in subprocess.run(command, capture_output=True, text=True).stderr


@pytest.mark.skipif(CXX is None, reason="there is no C++ compiler")
@needs_compiler
@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_the_header_is_cpp_too(folder, objects, tmp_path, standard):
    (tmp_path / "main.cpp").write_text("""
#include "fq_tvm.h"
#include <cstdio>
int main() {
  float x[] = {0.25f, -7.0f}, scale = 0.5f, out[2];
  int32_t zero_point = 1;
  bool mask[2];
  const int64_t shape[] = {2};
  fq_tvm_tensor self = fq_tvm_dense(x, FQ_TVM_FLOAT32, 1, shape), s = fq_tvm_dense(&scale, FQ_TVM_FLOAT32, 0, nullptr);
  fq_tvm_tensor z = fq_tvm_dense(&zero_point, FQ_TVM_INT32, 0, nullptr);
  fq_tvm_tensor o = fq_tvm_dense(out, FQ_TVM_FLOAT32, 1, shape);
  fq_tvm_tensor m = fq_tvm_dense(mask, FQ_TVM_BOOL, 1, shape);
  int status = fq_tvm_fake_quantize(&self, &s, &z, FQ_TVM_PER_TENSOR, -4, 3, &o, &m, nullptr, 0, nullptr);
  std::printf("%s %g %g %d %d\\n", fq_tvm_message(status), out[0], out[1], mask[0], mask[1]);
}
""")
    compiled(tmp_path / "fq_tvm.o", "-c", folder / "fq_tvm.c")
    command = [CXX, f"-std={standard}", *STRICT, f"-I{folder}", tmp_path / "main.cpp", tmp_path / "fq_tvm.o", *objects]
    done = subprocess.run([*command, "-lm", "-o", tmp_path / "main"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([tmp_path / "main"], env={}, capture_output=True, text=True).stdout == "done 0 -2.5 1 0\n"


def test_kernels_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(FqError, match="no function for range_rows_f32"):
        fq_tvm.build_c_library(tmp_path, [fq_tvm.spec.range_catalogue()[0]])
    assert not list(tmp_path.iterdir())

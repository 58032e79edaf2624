"""An operator is a value: one that the library has never heard of is built, cached, launched, shown and timed by it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from support import assert_same, launch_on

from fq_tvm import FakeQuantSpec, FqError, get_kernel, operators
from fq_tvm.bench.timing import interleave
from fq_tvm.entry_points import EntryPoints, Form
from fq_tvm.launch import registry
from fq_tvm.launch.arguments import Operand, describe
from fq_tvm.launch.registry import prepare, request_of
from fq_tvm.layout import MAX_RANK
from fq_tvm.operators import FAKE_QUANT, Operator, operator_of
from fq_tvm.schedule import Schedule

# A per-channel ReLU that keeps what is above a threshold, with a mask of what that was: all that the library is given.


@dataclass(frozen=True)
class ReluSpec:
    operator: ClassVar[str] = "toy_relu"
    element_bytes: ClassVar[int] = 9
    out_dtype: ClassVar[str] = "float32"

    iteration: str

    @property
    def lanes(self) -> bool:
        return self.iteration.endswith("lanes")

    @property
    def strided(self) -> bool:
        return self.iteration.startswith("strided")

    @property
    def nontemporal(self) -> bool:
        return not self.strided

    @property
    def name(self) -> str:
        return f"toy_relu_{self.iteration}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def entry_points(spec: ReluSpec) -> EntryPoints:
    tensors = ("self", "threshold", "out", "mask")
    extents = ("outer", "channels", "inner")
    if spec.strided:
        strides = (f"{t}_stride{i}" for t in ("self", "out", "mask") for i in range(MAX_RANK))
        extents = (*(f"n{i}" for i in range(MAX_RANK)), *strides)
    variants = ("serial", "parallel", *(("nontemporal",) if spec.nontemporal else ()))
    numbers = (*extents, "threshold_stride")
    return EntryPoints(tensors, (Form("run", tensors, ("out", "mask"), integers=numbers, variants=variants),))


def state(spec: ReluSpec, schedule: Schedule) -> Any:
    from tvm import te, tirx

    from fq_tvm.codegen.statement import Statement, View, variables

    del schedule
    form = entry_points(spec)["run"]
    numbers = variables(form)
    names = [f"n{i}" for i in range(MAX_RANK)] if spec.strided else ["outer", "channels", "inner"]
    extents = [numbers[name] for name in names]
    axis = len(extents) - (1 if spec.iteration == "strided_lanes" else 2)
    x = te.placeholder(extents, "float32", "x")
    threshold = te.placeholder((extents[axis],), "float32", "threshold")

    def body(*index: Any) -> Any:
        above = x[index] > threshold[index[axis]]
        return above.astype("bool"), tirx.Select(above, x[index], tirx.const(0.0, "float32"))

    mask, out = te.compute(extents, body, name="relu")

    def view(tensor: str, buffer: Any) -> Any:
        strides = [numbers[f"{tensor}_stride{i}"] for i in range(MAX_RANK)] if spec.strided else ()
        return View(tensor, buffer, 0, strides)

    limits = View("threshold", threshold, 0, (numbers["threshold_stride"],))
    views = [view("self", x), limits, view("out", out), view("mask", mask)]
    return {"run": [Statement.of(form, views, numbers, "relu", overlaps=spec.iteration == "rows")]}


def relu(x: np.ndarray, threshold: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    above = x > threshold.reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    return np.where(above, x, np.float32(0)), above


class ReluCall(NamedTuple):
    x: Operand
    threshold: Operand
    out: Operand
    mask: Operand
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        return self.x.strides, self.out.strides, self.mask.strides

    @property
    def values(self) -> dict[str, int]:
        return {"threshold_stride": self.threshold.strides[0]}

    def spec(self, iteration: str) -> ReluSpec:
        return ReluSpec(iteration)


RELU = Operator(
    ReluSpec.operator,
    ReluSpec,
    entry_points,
    f"{__name__}:state",
    relu,
    lambda: tuple(ReluSpec(iteration) for iteration in ("rows", "lanes", "strided_rows", "strided_lanes")),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(operators, "_operators", {FAKE_QUANT.name: FAKE_QUANT})
    operators.register(RELU)


def call_of(x, threshold, axis):
    arrays = (x, threshold, np.empty(x.shape, "f4"), np.empty(x.shape, bool))
    return ReluCall(*(describe(a, "tensor") for a in arrays), axis), arrays


@pytest.mark.parametrize("knobs", [{}, {"parallel_from": 1}, {"parallel_from": 1, "stream_from": 1}])
@pytest.mark.parametrize(
    ("shape", "axis", "iteration"),
    [
        ((3, 5, 300), 1, "rows"),
        ((2, 7, 47), 1, "rows"),
        ((4, 3, 704), 1, "rows"),
        ((40, 17), 1, "lanes"),
        ((5, 6, 130), 1, "strided_rows"),
        ((9, 23), 1, "strided_lanes"),
    ],
)
def test_the_same_bits(shape, axis, iteration, knobs):
    rng = np.random.default_rng(0)
    x = rng.integers(-20, 20, shape).astype("f4") / 4
    x[rng.random(shape) < 0.1] = np.nan
    if "strided" in iteration:
        x = np.repeat(x, 2, axis=-1)[..., ::2]
    threshold = rng.integers(-8, 8, shape[axis]).astype("f4") / 4
    call, (_, _, out, mask) = call_of(x, threshold, axis)
    launch = prepare(call, schedule=Schedule(**knobs))
    assert launch.kernel.spec == ReluSpec(iteration)
    launch_on(launch, (x, threshold, out, mask))
    assert_same((out, mask), relu(x, threshold, axis))


def test_it_is_cached_and_shown(monkeypatch):
    spec = ReluSpec("rows")
    first = get_kernel(spec)
    assert "relu" in first.source("te")
    assert "relu" in first.source("tir")
    assert "define" in first.source("ll") and ".text" in first.source("asm")
    assert json.loads((first.path / "meta.json").read_text())["key"]["operator"] == "toy_relu"
    monkeypatch.setattr(registry, "_kernels", {})
    monkeypatch.setattr(registry, "build_entry", None)  # a second build would fail
    assert get_kernel(spec).path == first.path


def test_its_code_is_that_of_its_module(monkeypatch, tmp_path):
    """Whoever changes what an operator outside the package computes gets other kernels."""
    request = request_of(ReluSpec("rows"), Schedule(), registry.current_target())
    assert request["generator"] != request_of(FakeQuantSpec("rows"), Schedule(), registry.current_target())["generator"]


def test_it_is_timed():
    x, threshold = np.ones((8, 64, 100), "f4"), np.zeros(64, "f4")
    call, arrays = call_of(x, threshold, 1)
    launch = prepare(call)
    times = interleave({"kernel": lambda: launch(*arrays), "numpy": lambda: relu(x, threshold, 1)}, 0.01)
    assert set(times) == {"kernel", "numpy"}
    assert all(t > 0 for each in times.values() for t in each)


def test_names_are_taken_once():
    operators.register(RELU)
    with pytest.raises(FqError, match="another operator called 'fake_quant'"):
        operators.register(Operator("fake_quant", ReluSpec, entry_points, "x:y", relu, tuple))


def test_what_specifies_no_kernel_is_refused():
    with pytest.raises(FqError, match=r"specifies no kernel; expected one of fake_quant, toy_relu"):
        operator_of("rows")
    assert operator_of(FakeQuantSpec("rows")) is FAKE_QUANT

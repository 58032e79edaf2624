"""The operator file, run against a double of the documented contract of CANN's TVM fork."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ascend_cases import covering
from ascend_data import bit_differences, tie_heavy

from fq_tvm import reference
from fq_tvm.ascend import LoweringError, Problem, lower, toolchains
from fq_tvm.ascend.program import fake_quant_program
from fq_tvm.ascend.tbe import emit

SOC = "Ascend310P3"
DOUBLE = Path(__file__).resolve().parent / "cann_double"


@pytest.fixture
def cann(monkeypatch):
    """An environment in which ``import tbe`` finds the double."""
    monkeypatch.setenv("PYTHONPATH", str(DOUBLE))


def _round(a: np.ndarray) -> np.ndarray:
    assert np.isfinite(a).all() and (np.abs(a) < 2.0**31).all(), "round to int32 of what it does not hold"
    return np.rint(a).astype(np.int32)


def _ordered(function):
    def call(a, b):
        assert not np.isnan(a).any() and not np.isnan(b).any(), "a maximum or minimum of a NaN"
        return function(a, b)

    return call


CALLS = {
    "vadd": np.add,
    "vsub": np.subtract,
    "vmul": np.multiply,
    "vdiv": np.divide,
    "vmax": _ordered(np.maximum),
    "vmin": _ordered(np.minimum),
    "round": _round,
}


def evaluate(path: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    """Run what the double recorded; x's extents are those of the first argument."""
    recorded = json.loads(path.read_text())
    values: list[np.ndarray] = []
    with np.errstate(all="ignore"):
        for node in recorded["nodes"]:
            operands = [
                values[o] if isinstance(o, int) else np.dtype(o["dtype"]).type(o["constant"]) for o in node["operands"]
            ]
            call = node["call"]
            if call.startswith("placeholder"):
                array = {"x": arrays[0], "scale": arrays[1], "zero_point": arrays[2]}[call.split()[1]]
                value = array.reshape(node["shape"])
            elif call == "broadcast":
                value = np.broadcast_to(operands[0], node["shape"])
            elif call == "cast_to":
                value = operands[0].astype(node["dtype"])
            else:
                value = CALLS[call.removesuffix("s") if call[-1] == "s" else call](*operands)
            assert value.dtype == node["dtype"], (node, value.dtype)
            values.append(value)
    return [values[i] for i in recorded["arguments"][-2:]]


@pytest.mark.usefixtures("cann")
@pytest.mark.parametrize("case", covering(pairs_of_rank=False), ids=str)
def test_lowers_through_the_double(case, tmp_path):
    problem = case.problem
    quant_range = (problem.quant_min, problem.quant_max)
    fields = (problem.dtype, problem.scale_dtype, *quant_range)
    artifact = lower(problem.shape, problem.axis, *fields, SOC, "tbe", tmp_path / "a")
    assert artifact.finished and not artifact.remaining and artifact.reached == "object by tbe"
    x, scale, zero_point = tie_heavy(problem.shape, problem.axis, problem.dtype, problem.scale_dtype, *quant_range)
    # What vmaxs gives for a NaN is in no contract.
    x = np.where(np.isnan(x), np.inf, x).astype(x.dtype)
    out, mask = evaluate(artifact.directory / artifact.kernels[0].files["object"], x, scale, zero_point)
    expected, expected_mask = reference.fake_quant(x, scale, zero_point, problem.axis, *quant_range)
    assert bit_differences(out.reshape(x.shape), expected) == 0
    assert bit_differences(mask.reshape(x.shape), expected_mask.astype(np.int8)) == 0


@pytest.mark.usefixtures("cann")
@pytest.mark.parametrize(
    ("soc", "core"), [("Ascend910B1", "VectorCore"), ("Ascend910_9392", "VectorCore"), (SOC, "AiCore")]
)
def test_names_the_cores(soc, core, tmp_path):
    artifact = lower((2, 3, 4), 1, soc=soc, toolchain="tbe", out_dir=tmp_path / "a")
    described = json.loads((artifact.directory / "kernel_meta" / "fake_quant.json").read_text())
    assert (described["soc"], described["core"]) == (soc, core)
    assert artifact.kernels[0].block_dim == described["blockDim"]


@pytest.mark.usefixtures("cann")
def test_the_double_refuses(tmp_path, monkeypatch):
    from fq_tvm.ascend import tbe

    monkeypatch.setitem(tbe.FORMS, "multiply", "vmla")
    with pytest.raises(LoweringError, match="vmla"):
        lower((2, 3, 4), 1, soc=SOC, toolchain="tbe", out_dir=tmp_path / "a")

    def no_broadcast(calls, result, source):
        calls.stand_ins[result] = source

    monkeypatch.setitem(tbe.FORMS, "broadcast", no_broadcast)
    monkeypatch.setitem(tbe.FORMS, "multiply", "vmul")
    with pytest.raises(LoweringError, match="of shapes"):
        lower((2, 3, 4), 1, soc=SOC, toolchain="tbe", out_dir=tmp_path / "a")
    assert not any(tmp_path.iterdir())


def test_without_cann_the_file_is_written_and_the_reason_given(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    artifact = lower((2, 3, 4), 1, "float16", soc="Ascend910B1", toolchain="tbe", out_dir=tmp_path / "a")
    assert artifact.reached == "operator file" and not artifact.finished
    assert "set_env.sh" in " ".join(artifact.remaining)
    assert "No module named 'tbe'" in artifact.notes["import"]
    ast.parse((artifact.directory / artifact.kernels[0].files["operator"]).read_text())
    with pytest.raises(LoweringError, match=r"no toolchain for Ascend310P3.*toolchain='tbe' writes"):
        lower((2, 3), 1, soc=SOC, out_dir=tmp_path / "b")


@pytest.mark.parametrize(
    "broken",
    [
        "raise RuntimeError('no libtvm.so')",
        "raise ImportError('another tvm is loaded')",
        "scene_info",
        "import os; os._exit(139)",
        "import os; os.kill(os.getpid(), 11)",
    ],
)
def test_a_broken_cann_is_reported(broken, tmp_path, monkeypatch):
    (tmp_path / "tbe").mkdir()
    (tmp_path / "tbe" / "__init__.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = toolchains()["tbe"]
    assert not found and found.detail
    assert "tbe" not in sys.modules


def test_golden(golden):
    for name, dtypes in (("f32", ("float32", "float32")), ("f16", ("float16", "float16"))):
        problem = Problem((4, 16, 256), 1, *dtypes)
        golden(f"{name}.tbe.py.txt", emit(problem.program(), "fake_quant"))


def test_open_extents_are_refused(tmp_path):
    with pytest.raises(LoweringError, match="static shapes"):
        lower((None, 4), 1, soc=SOC, toolchain="tbe", out_dir=tmp_path / "a")
    with pytest.raises(Exception, match="static shapes"):
        emit(fake_quant_program((None, 4), 1, "float32", "float32", -8, 7), "fake_quant")

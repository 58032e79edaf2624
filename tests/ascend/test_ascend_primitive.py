"""Adding a primitive takes one line in program.py and one in each printer, as docs/ascend.md shows.

The lines are added here at run time, an absolute value goes in front of the operator, and what each toolchain
makes of it is executed.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ascend_data import bit_differences, tie_heavy

from fq_tvm import reference
from fq_tvm.ascend import Problem, akg, lower, npuir_printer, program, tbe
from fq_tvm.errors import FqError

SHAPE, AXIS, RANGE = (2, 16, 64), 1, (-128, 127)


def in_front(function_name):
    """The operator with an intrinsic of TE in front of it."""
    from tvm import te

    from fq_tvm.codegen import expression

    x = te.placeholder(SHAPE, "float32", "x")
    scale = te.placeholder(SHAPE[1:2], "float32", "scale")
    zero_point = te.placeholder(SHAPE[1:2], "int32", "zero_point")
    intrinsic = getattr(te, function_name)
    front = te.compute(SHAPE, lambda *i: intrinsic(x(*i)), name="front")
    out, mask = expression.fake_quant(front, scale, zero_point, AXIS, expression.QuantRange.constant(*RANGE))
    return program.trace((x, scale, zero_point), {"out": out, "mask": mask})


def add(monkeypatch, primitive, npuir_line, akg_line, tbe_line):
    monkeypatch.setitem(program.PRIMITIVES, primitive.node, primitive)
    monkeypatch.setitem(npuir_printer.FORMS, primitive.name, npuir_line)
    monkeypatch.setitem(akg.FORMS, primitive.name, akg_line)
    monkeypatch.setitem(tbe.FORMS, primitive.name, tbe_line)


@pytest.fixture
def absolute(monkeypatch):
    """The four lines of an absolute value."""
    add(
        monkeypatch,
        program.Primitive("absolute", "tirx.fabs", np.abs),
        "linalg.elemwise_unary {fun = #linalg.unary_fn<abs>}",
        "tvm.abs({})",
        "vabs",
    )
    monkeypatch.setattr(Problem, "program", lambda _: in_front("abs"))


def data():
    x, scale, zero_point = tie_heavy(SHAPE, AXIS, "float32", "float32", *RANGE)
    expected, expected_mask = reference.fake_quant(np.abs(x), scale, zero_point, AXIS, *RANGE)
    return (x, scale, zero_point), expected, expected_mask.astype(np.int8)


def outputs():
    return np.full(SHAPE, -77, np.float32), np.full(SHAPE, 7, np.int8)


def test_unknown_before(monkeypatch):
    with pytest.raises(FqError, match=r"tirx\.fabs"):
        in_front("abs")
    monkeypatch.setitem(program.PRIMITIVES, "tirx.fabs", program.Primitive("absolute", "tirx.fabs", np.abs))
    made = in_front("abs")
    for printer in (npuir_printer, akg, tbe):
        with pytest.raises(FqError, match="no form for the primitive absolute"):
            printer.emit(made, "fake_quant")


@pytest.mark.usefixtures("absolute")
def test_evaluates():
    arrays, expected, expected_mask = data()
    out, mask = in_front("abs").evaluate(*arrays)
    assert bit_differences(out, expected) == bit_differences(mask.astype(np.int8), expected_mask) == 0


@pytest.mark.usefixtures("absolute", "npuir")
def test_npuir(tmp_path):
    from hivm_interpreter import Module

    artifact = lower(SHAPE, AXIS, soc="Ascend910B1", toolchain="npuir", out_dir=tmp_path / "a")
    arrays, expected, expected_mask = data()
    out, mask = outputs()
    Module(artifact.directory / artifact.kernels[0].files["hivm"], "fake_quant")(*arrays, out, mask)
    assert bit_differences(out, expected) == bit_differences(mask, expected_mask) == 0


@pytest.mark.usefixtures("absolute", "akg")
def test_akg(tmp_path):
    from cce_model import Kernel

    artifact = lower(SHAPE, AXIS, soc="Ascend910A", toolchain="akg", out_dir=tmp_path / "a")
    (kernel,) = artifact.kernels
    source = (artifact.directory / kernel.files["cce"]).read_text()
    arrays, expected, expected_mask = data()
    out, mask = outputs()
    compiled = Kernel(source, kernel.name, [a["dtype"] for a in kernel.arguments], kernel.block_dim, tmp_path)
    compiled(*arrays, out, mask)
    assert bit_differences(out, expected) == bit_differences(mask, expected_mask) == 0


@pytest.mark.usefixtures("absolute")
def test_tbe():
    assert "front = dsl.vabs(x)" in tbe.emit(in_front("abs"), "fake_quant")


@pytest.mark.usefixtures("npuir")
def test_a_tanh_reaches_the_backend(monkeypatch, tmp_path):
    add(
        monkeypatch,
        program.Primitive("tanh", "tirx.tanh", np.tanh),
        "hfusion.elemwise_unary {fun = #hfusion.unary_fn<tanh>}",
        "tvm.tanh({})",
        "vtanh",
    )
    monkeypatch.setattr(Problem, "program", lambda _: in_front("tanh"))
    artifact = lower(SHAPE, AXIS, soc="Ascend910B1", toolchain="npuir", out_dir=tmp_path / "a")
    assert "vexp" in (artifact.directory / artifact.kernels[0].files["hivm"]).read_text()


def test_importing_needs_no_compiler():
    # Neither TVM nor a toolchain is imported before something is lowered.
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('tvm', 'tvm_ffi', 'ascendnpuir', 'akg', 'tbe'))); "
        "import fq_tvm.ascend as a; from fq_tvm.ascend import npuir, akg, akg_install, tbe, program; "
        "a.product_of('Ascend910B1')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Every printer knows every primitive, and says so where it does not."""

from __future__ import annotations

import pytest

from fq_tvm.ascend import akg, npuir_printer, program, tbe
from fq_tvm.ascend.program import Program, Step, Value
from fq_tvm.errors import FqError

PRINTERS = (npuir_printer, akg, tbe)
PRIMITIVES = {"cast", "broadcast", *(primitive.name for primitive in program.PRIMITIVES.values())}


@pytest.mark.parametrize("printer", PRINTERS, ids=lambda module: module.__name__)
def test_has_a_form_for_every_primitive_and_no_other(printer):
    assert set(printer.FORMS) == PRIMITIVES


def one_step(primitive: str, dtype: str = "float32", operands: int = 1) -> Program:
    """A program of one primitive."""
    inputs = tuple(Value(f"x{i}", "float32", (0, 1)) for i in range(operands))
    result = Value("y", dtype, (0, 1))
    return Program((4, 16), inputs, (Step(result, primitive, inputs),), (result,))


BOOLS = {"equal", "less_equal", "logical_and"}
UNARY = {"cast", "broadcast", "round_half_even"}


@pytest.mark.parametrize("printer", PRINTERS, ids=lambda module: module.__name__)
@pytest.mark.parametrize("primitive", sorted(PRIMITIVES))
def test_prints_every_primitive_alone(printer, primitive):
    dtype = "bool" if primitive in BOOLS else "float32"
    made = one_step(primitive, dtype, 1 if primitive in UNARY else 2)
    text = printer.emit(made, "kernel")
    assert "y" in text and text == printer.emit(made, "kernel")
    assert ("int8" in text or "i8" in text) == (dtype == "bool")


@pytest.mark.parametrize("printer", PRINTERS, ids=lambda module: module.__name__)
def test_what_has_no_form_is_named(printer):
    with pytest.raises(FqError, match="no form for the primitive sine; known: cast, broadcast, add"):
        printer.emit(one_step("sine"), "kernel")
    with pytest.raises(FqError, match="no vectors of int64; it takes float16"):
        printer.emit(one_step("cast", "int64"), "kernel")

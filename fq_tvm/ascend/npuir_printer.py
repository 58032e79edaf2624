"""A program as MLIR for AscendNPU-IR: one named operation of its structured dialects for each primitive.

Knows neither the compiler nor its passes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..errors import FqError
from .printer import Form, Printer
from .program import Constant, Operand, Program, Value


class _Module(Printer):
    """The body of a device function while it is printed; a form is an operation with its attributes."""

    dtypes: ClassVar = {"float16": "f16", "float32": "f32", "int32": "i32", "int8": "i8", "bool": "i1"}

    def __init__(self, program: Program) -> None:
        super().__init__("npuir", FORMS, program)
        self._made: dict[str, str] = {}

    def write(self, form: str, result: Value, *operands: Operand) -> None:
        """Print an operation on tensors of result's extents, into an empty one."""
        names = [self.operand(o, result) for o in operands]
        types = [self.type(Value("", o.dtype, result.dims)) for o in operands]
        self.lines.append(
            f"%{result.name} = {form} ins({', '.join(names)} : {', '.join(types)})"
            f" {self.outs(result)} -> {self.type(result)}"
        )

    def byte(self, value: Value) -> Value:
        """Print a cast: from i1 to i8 directly, as casts from f16 to i8 do not compile for every shape."""
        byte = Value(f"_{value.name}_int8", "int8", value.dims)
        self.apply(_CAST, byte, value)
        return byte

    def type(self, value: Value) -> str:
        """The tensor type of a value."""
        extents = ["?" if n is None else str(n) for n in self.program.extents(value)]
        return f"tensor<{'x'.join([*extents, self.dtype(value.dtype)])}>"

    def outs(self, like: Value) -> str:
        """A tensor to write into; one for each use, as bufferization wants it."""
        name = self.fresh_name("empty")
        unknown = [self._extent(d) for d, n in zip(like.dims, self.program.extents(like), strict=True) if n is None]
        self.lines.append(f"%{name} = tensor.empty({', '.join(unknown)}) : {self.type(like)}")
        return f"outs(%{name} : {self.type(like)})"

    def operand(self, operand: Operand, like: Value) -> str:
        """A value by name; a constant as a tensor of the same extents as like, filled with it."""
        if isinstance(operand, Value):
            return f"%{operand.name}"
        dtype, filled = self.dtype(operand.dtype), Value("", operand.dtype, like.dims)
        scalar = self._once("c", f"arith.constant {_literal(operand, dtype)}")
        outs, name = self.outs(filled), self.fresh_name("fill")
        self.lines.append(f"%{name} = linalg.fill ins({scalar} : {dtype}) {outs} -> {self.type(filled)}")
        return f"%{name}"

    def _extent(self, dim: int) -> str:
        whole = next(v for v in self.program.inputs if v.dims == self.program.dims)
        index = self._once("index", f"arith.constant {dim} : index")
        return self._once("extent", f"tensor.dim %{whole.name}, {index} : {self.type(whole)}")

    def _once(self, stem: str, expression: str) -> str:
        if expression not in self._made:
            self._made[expression] = f"%{self.fresh_name(stem)}"
            self.lines.append(f"{self._made[expression]} = {expression}")
        return self._made[expression]


def _binary(function: str) -> str:
    return f"linalg.elemwise_binary {{fun = #linalg.binary_fn<{function}>}}"


def _compare(function: str) -> str:
    return f"hfusion.compare {{compare_fn = #hfusion.compare_fn<{function}>}}"


def _divide(module: _Module, result: Value, numerator: Operand, denominator: Operand) -> None:
    """Print a quotient; a reciprocal as the negative of one where nothing will be broadcast.

    The compiler rewrites ``x * (1 / s)`` to ``x / s``, which rounds otherwise, unless a broadcast is between the two.
    It looks for the constant one; negating twice is exact.
    """
    if numerator != Constant(1.0, numerator.dtype) or result.dims != module.program.dims:
        return module.write(_binary("div"), result, numerator, denominator)
    minus_one = Constant(-1.0, numerator.dtype)
    negative = module.new("negative", _binary("div"), result, minus_one, denominator, dtype=result.dtype)
    module.write(_binary("mul"), result, negative, minus_one)


def _maximum(module: _Module, result: Value, first: Operand, second: Operand) -> None:
    """Print an ordered maximum: the second operand where the first is NaN, whatever the hardware's maximum does."""
    greater = module.new("greater", _compare("vgt"), result, first, second, dtype="bool")
    module.write("hfusion.select", result, greater, first, second)


def _broadcast(module: _Module, result: Value, source: Value) -> None:
    added = [str(i) for i, d in enumerate(result.dims) if d not in source.dims]
    module.lines.append(
        f"%{result.name} = linalg.broadcast ins(%{source.name} : {module.type(source)})"
        f" {module.outs(result)} dimensions = [{', '.join(added)}]"
    )


_CAST = "hfusion.cast {round_mode = #hfusion.round_mode<rint>}"

FORMS: dict[str, Form] = {
    "cast": _CAST,
    "broadcast": _broadcast,
    "add": _binary("add"),
    "subtract": _binary("sub"),
    "multiply": _binary("mul"),
    "divide": _divide,
    "maximum": _maximum,
    "minimum": _binary("min_signed"),
    "round_half_even": _CAST,
    "equal": _compare("veq"),
    "less_equal": _compare("vle"),
    "logical_and": "hfusion.elemwise_binary {fun = #hfusion.binary_fn<vand>}",
}
"""An operation for each primitive."""


def emit(program: Program, name: str) -> str:
    """Print a program as a module of one device function.

    Parameters
    ----------
    program : Program
        float16, float32, int32 and bool values; bool outputs become int8.
    name : str
        Symbol of the function.

    Returns
    -------
    str

    Raises
    ------
    FqError
        If a primitive or a dtype has no form here.
    """
    if not any(value.dims == program.dims for value in program.inputs):
        raise FqError("npuir takes the extents from an input of the result's shape; this program has none")
    module = _Module(program)
    results = module.walk()
    types = ", ".join(module.type(v) for v in results)
    arguments = ", ".join(f"%{v.name}: {module.type(v)}" for v in program.inputs)
    return "\n".join(
        [
            "module {",
            f"  func.func @{name}({arguments}) -> ({types})",
            # A HOST function of this form crashes the compiler.
            "      attributes {hacc.entry, hacc.function_kind = #hacc.function_kind<DEVICE>} {",
            *(f"    {line}" for line in module.lines),
            f"    return {', '.join(f'%{v.name}' for v in results)} : {types}",
            "  }",
            "}",
            "",
        ]
    )


def _literal(constant: Constant, dtype: str) -> str:
    """A constant with its type, exact: the bits in hexadecimal where decimals would not be read back."""
    if not dtype.startswith("f"):
        return f"{int(constant.value)} : {dtype}"
    number: Any = np.dtype(constant.dtype).type(constant.value)
    digits = repr(float(number))
    if "." not in digits or "e" in digits:
        digits = f"0x{number.tobytes()[::-1].hex().upper()}"
    return f"{digits} : {dtype}"

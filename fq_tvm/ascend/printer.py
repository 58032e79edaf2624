"""What the printers share: the walk over a program, names, the dispatch on primitives, bools that end as int8.

A printer is one language: a table of forms with an entry for each primitive, and a class that writes an entry down.
Knows no language, but what the two forks of TVM have in common.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from ..errors import FqError
from .program import Constant, Operand, Program, Value
from .toolchain import LoweringError

Form = str | Callable[..., None]
"""A primitive in a language: a text for :meth:`Printer.write`, or a function ``(printer, result, *operands)`` that
applies simpler forms."""


class Printer(ABC):
    """A program while it is printed.

    Parameters
    ----------
    language : str
        What errors call it.
    forms : mapping of str to Form
        The primitives that it knows.
    program : Program
    """

    dtypes: ClassVar[Mapping[str, str]]
    """What the language calls element types."""

    def __init__(self, language: str, forms: Mapping[str, Form], program: Program) -> None:
        self.language = language
        self.forms = forms
        self.program = program
        self.lines: list[str] = []
        self._names = 0

    def walk(self) -> list[Value]:
        """Print every step.

        Returns
        -------
        list of Value
            The results, those of bool as int8.

        Raises
        ------
        FqError
            If the language has no form for a primitive or a dtype.
        """
        for step in self.program.steps:
            if step.primitive not in self.forms:
                known = ", ".join(self.forms)
                raise FqError(f"{self.language} has no form for the primitive {step.primitive}; known: {known}")
            self.dtype(step.result.dtype)
            self.apply(self.forms[step.primitive], step.result, *step.operands)
        return [self.byte(value) if value.dtype == "bool" else value for value in self.program.outputs]

    def apply(self, form: Form, result: Value, *operands: Operand) -> None:
        """Print ``result = form(operands)``."""
        if isinstance(form, str):
            self.write(form, result, *operands)
        else:
            form(self, result, *operands)

    def new(self, stem: str, form: Form, like: Value, *operands: Operand, dtype: str = "float32") -> Value:
        """Print ``result = form(operands)`` for a result that the program does not have, of like's extents."""
        result = Value(self.fresh_name(stem), dtype, like.dims)
        self.apply(form, result, *operands)
        return result

    def fresh_name(self, stem: str) -> str:
        """A name that no value of the program has, as none of them begins with an underscore."""
        self._names += 1
        return f"_{stem}{self._names}"

    def dtype(self, dtype: str) -> str:
        """What the language calls an element type."""
        if dtype not in self.dtypes:
            raise FqError(f"{self.language} has no vectors of {dtype}; it takes {', '.join(self.dtypes)}")
        return self.dtypes[dtype]

    @abstractmethod
    def write(self, form: str, result: Value, *operands: Operand) -> None:
        """Write down ``result = form(operands)`` in the language."""

    @abstractmethod
    def byte(self, value: Value) -> Value:
        """Print the conversion of a bool to int8."""


class ForkPrinter(Printer):
    """What the two forks of TVM share: static extents, scalars, and no bool but a float32 of 0 or 1."""

    dtypes: ClassVar = {"float16": "float16", "float32": "float32", "int32": "int32", "int8": "int8", "bool": "float32"}

    def __init__(self, language: str, forms: Mapping[str, Form], program: Program) -> None:
        refuse_open_extents(language, program.shape)
        super().__init__(language, forms, program)
        bools = (value for value in program.outputs if value.dtype == "bool")
        self.stand_ins = {value: Value(f"{value.name}_bit", value.dtype, value.dims) for value in bools}
        """What is read and written in place of a value: a bool output leaves its own name to its int8."""

    def actual(self, value: Value) -> Value:
        """What stands for a value."""
        return self.stand_ins.get(value, value)

    def scalar(self, constant: Constant) -> str:
        """A constant in Python."""
        return f"tvm.const({constant.value!r}, {self.dtype(constant.dtype)!r})"

    def byte(self, value: Value) -> Value:
        """Print the conversion of a bool to int8, by float16, which both forks convert to it."""
        cast = self.forms["cast"]
        byte = Value(value.name, "int8", value.dims)
        self.apply(cast, byte, self.new("half", cast, value, value, dtype="float16"))
        return byte


def refuse_open_extents(toolchain: str, shape: Sequence[int | None]) -> None:
    """Raise :class:`LoweringError` if an extent is known only at run time."""
    if None in shape:
        raise LoweringError(f"{toolchain} lowers static shapes here; extents are open in {shape}")

"""The tensor expression as a short list of primitives, which every Ascend printer reads.

Walks the stages that :mod:`fq_tvm.codegen.expression` states and writes down what it meets; the arithmetic itself is
stated there and nowhere else.  Knows no toolchain, and imports TVM only when a program is asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FqError

Array = NDArray[Any]


@dataclass(frozen=True)
class Primitive:
    """One operation that a program may contain.

    Parameters
    ----------
    name : str
        What the printers call it.
    node : str
        The node of a tensor expression that it stands for: a class of ``tvm.tirx``, or the name of an intrinsic.
    evaluate : callable
        Its meaning in numpy.
    """

    name: str
    node: str
    evaluate: Callable[..., Array]


# A line a primitive.  cast and broadcast are not here: they carry a dtype and a dimension.  maximum and minimum are
# ordered selects, as TVM lowers them: the second operand is the answer when the first is NaN.
PRIMITIVES: dict[str, Primitive] = {
    primitive.node: primitive
    for primitive in (
        Primitive("add", "Add", np.add),
        Primitive("subtract", "Sub", np.subtract),
        Primitive("multiply", "Mul", np.multiply),
        Primitive("divide", "Div", np.divide),
        Primitive("maximum", "Max", lambda a, b: np.asarray(np.where(a > b, a, b))),
        Primitive("minimum", "Min", lambda a, b: np.asarray(np.where(a < b, a, b))),
        Primitive("round_half_even", "tirx.round", np.rint),
        Primitive("equal", "EQ", np.equal),
        Primitive("less_equal", "LE", np.less_equal),
        Primitive("logical_and", "And", np.logical_and),
    )
}


@dataclass(frozen=True)
class Value:
    """A tensor of the program.

    Parameters
    ----------
    name : str
        Unique in its program, and an identifier in every language that is printed.
    dtype : str
        Element type, as numpy spells it.
    dims : tuple of int
        The dimensions of the result that it extends along, in order: all of them, or the channel's alone.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A scalar operand."""

    value: float
    dtype: str


Operand = Value | Constant


@dataclass(frozen=True)
class Step:
    """``result = primitive(operands)``; ``cast`` goes to the dtype of result, ``broadcast`` to its dims."""

    result: Value
    primitive: str
    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        operands = ", ".join(o.name if isinstance(o, Value) else f"{o.value!r}" for o in self.operands)
        dims = "x".join(map(str, self.result.dims))
        return f"{self.result.name}: {self.result.dtype}[{dims}] = {self.primitive}({operands})"


@dataclass(frozen=True)
class Program:
    """A list of steps in which every value is made once, before it is used.

    Parameters
    ----------
    shape : tuple of int or None
        Extents of the result; None where an extent is known only when the kernel runs.
    inputs, outputs : tuple of Value
        In the order of a kernel's arguments.
    steps : tuple of Step
    """

    shape: tuple[int | None, ...]
    inputs: tuple[Value, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Value, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions of a result."""
        return tuple(range(len(self.shape)))

    def extents(self, value: Value) -> tuple[int | None, ...]:
        """The shape of a value."""
        return tuple(self.shape[d] for d in value.dims)

    def spread(self, value: Value) -> tuple[int | None, ...]:
        """The shape of a value with all dimensions of the result, of extent 1 where it does not extend."""
        return tuple(n if d in value.dims else 1 for d, n in enumerate(self.shape))

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        """Run the program in numpy.

        Parameters
        ----------
        *arrays : numpy.ndarray
            One for each input, of its dtype.

        Returns
        -------
        tuple of numpy.ndarray
            One for each output.

        Raises
        ------
        FqError
            If an input is missing or has another dtype or rank than the program.
        """
        if len(arrays) != len(self.inputs):
            raise FqError(f"the program takes {len(self.inputs)} inputs; {len(arrays)} were given")
        known: dict[str, Array] = {}
        for value, array in zip(self.inputs, arrays, strict=True):
            if array.dtype != np.dtype(value.dtype) or array.ndim != len(value.dims):
                raise FqError(
                    f"input {value.name} is {array.dtype} of rank {array.ndim}; "
                    f"expected {value.dtype} of rank {len(value.dims)}"
                )
            known[value.name] = array
        meaning = {primitive.name: primitive.evaluate for primitive in PRIMITIVES.values()}
        shape = next(known[v.name].shape for v in self.inputs if v.dims == self.dims)
        with np.errstate(all="ignore"):
            for step in self.steps:
                operands = [
                    known[o.name] if isinstance(o, Value) else np.dtype(o.dtype).type(o.value) for o in step.operands
                ]
                if step.primitive == "cast":
                    result = operands[0].astype(step.result.dtype)
                elif step.primitive == "broadcast":
                    source = step.operands[0]
                    assert isinstance(source, Value)
                    spread = [shape[d] if d in source.dims else 1 for d in step.result.dims]
                    result = np.broadcast_to(operands[0].reshape(spread), [shape[d] for d in step.result.dims])
                else:
                    result = np.asarray(meaning[step.primitive](*operands))
                if result.dtype != np.dtype(step.result.dtype):
                    raise FqError(f"{step} gave {result.dtype}")
                known[step.result.name] = result
        return tuple(known[v.name] for v in self.outputs)

    def __str__(self) -> str:
        extents = ", ".join("?" if n is None else str(n) for n in self.shape)
        inputs = ", ".join(f"{v.name}: {v.dtype}[{'x'.join(map(str, v.dims))}]" for v in self.inputs)
        lines = [f"shape ({extents})", f"inputs {inputs}", *map(str, self.steps)]
        return "\n".join([*lines, "outputs " + ", ".join(v.name for v in self.outputs)]) + "\n"


def trace(inputs: Sequence[Any], outputs: Mapping[str, Any]) -> Program:
    """Write down the stages between placeholders and results.

    Parameters
    ----------
    inputs : sequence of te.Tensor
        Placeholders, in the order of the kernel's arguments.
    outputs : mapping of str to te.Tensor
        The results by name, all of one shape.

    Returns
    -------
    Program

    Raises
    ------
    FqError
        If a stage holds a node that is no primitive, or reads a tensor other than element by element.
    """
    extents = next(iter(outputs.values())).shape
    shape = tuple(int(n) if hasattr(n, "value") else None for n in extents)
    walk = _Walk(inputs)
    results = {name: walk.tensor(tensor, tuple(range(len(shape)))) for name, tensor in outputs.items()}
    if unread := [tensor.op.name for tensor in inputs if tensor.op not in walk.inputs]:
        raise FqError(f"the expression never reads its input {', '.join(unread)}")
    arguments = tuple(walk.inputs[tensor.op] for tensor in inputs)
    if copied := [name for name, value in results.items() if value in arguments]:
        raise FqError(f"output {', '.join(copied)} is an input, unchanged; expected something computed")
    return _name(Program(shape, arguments, tuple(walk.steps), tuple(results.values())), tuple(outputs), walk.stages)


def fake_quant_program(
    shape: Sequence[int | None],
    axis: int,
    dtype: str,
    scale_dtype: str,
    quant_min: int,
    quant_max: int,
) -> Program:
    """The operator as a program: ``(x, scale, zero_point) -> (out, mask)``.

    Parameters
    ----------
    shape : sequence of int or None
        Extents of x, at least one; None where unknown.
    axis : int
        The channel dimension; negative counts from the end.
    dtype, scale_dtype : {"float16", "float32"}
        Element types of x and of scale.
    quant_min, quant_max : int
        The range, any int64.

    Returns
    -------
    Program
        mask is bool.
    """
    from tvm import te

    from ..codegen import expression

    extents = [te.var(f"n{d}", "int64") if n is None else n for d, n in enumerate(shape)]
    x = te.placeholder(extents, dtype, "x")
    scale = te.placeholder((extents[axis],), scale_dtype, "scale")
    zero_point = te.placeholder((extents[axis],), "int32", "zero_point")
    quant_range = expression.QuantRange.constant(quant_min, quant_max)
    out, mask = expression.fake_quant(x, scale, zero_point, axis, quant_range)
    return trace((x, scale, zero_point), {"out": out, "mask": mask})


class _Walk:
    """The state of one walk: the steps so far, under numbers for names, and what is known already."""

    def __init__(self, placeholders: Sequence[Any]) -> None:
        self.placeholders = {tensor.op for tensor in placeholders}
        self.inputs: dict[Any, Value] = {}
        self.steps: list[Step] = []
        self.stages: dict[str, str] = {}
        self._made: dict[tuple[Any, ...], Value] = {}

    def tensor(self, tensor: Any, dims: tuple[int, ...]) -> Value:
        """The value of a tensor whose own dimensions are these dimensions of the result."""
        stage = tensor.op
        if stage in self.placeholders:
            known = self.inputs.setdefault(stage, Value(stage.name, str(tensor.dtype), dims))
            if known.dims != dims:
                raise FqError(f"input {stage.name} is read along dimensions {known.dims} and along {dims}")
            return known
        if not hasattr(stage, "body") or stage.reduce_axis:
            raise FqError(f"stage {stage.name} is a {type(stage).__name__}; expected an input or an element-wise stage")
        place = {iteration.var: dim for iteration, dim in zip(stage.axis, dims, strict=True)}
        value = self._expression(stage.body[tensor.value_index], place, dims)
        if isinstance(value, Constant):
            raise FqError(f"stage {stage.name} is the constant {value.value}; expected it to read an input")
        if len(stage.body) == 1:
            self.stages.setdefault(value.name, stage.name)
        return value

    def _expression(self, node: Any, place: Mapping[Any, int], dims: tuple[int, ...]) -> Operand:
        kind = type(node).__name__
        if kind in ("FloatImm", "IntImm"):
            return Constant(float(node.value), str(node.ty))
        if kind == "Cast":
            return self._emit("cast", (self._expression(node.value, place, dims),), str(node.ty), dims)
        arguments = (node.a, node.b) if hasattr(node, "a") else ()
        if kind == "Call":
            kind, arguments = node.op.name, tuple(node.args)
        if kind == "te.tensor_load":
            return self._load(node, place, dims)
        if kind not in PRIMITIVES:
            known = ", ".join(sorted(PRIMITIVES))
            raise FqError(f"the expression holds {kind}, which is no primitive of an Ascend program; known: {known}")
        operands = tuple(self._expression(argument, place, dims) for argument in arguments)
        return self._emit(PRIMITIVES[kind].name, operands, str(node.ty), dims)

    def _load(self, node: Any, place: Mapping[Any, int], dims: tuple[int, ...]) -> Value:
        tensor, *indices = node.args
        if any(index not in place for index in indices):
            raise FqError(f"{tensor.op.name} is read at a computed index; an Ascend program reads element by element")
        own = tuple(place[index] for index in indices)
        if own != tuple(sorted(set(own))):
            raise FqError(f"{tensor.op.name} is read across dimensions {own}; expected them in the order of the result")
        value = self.tensor(tensor, own)
        return value if own == dims else self._emit("broadcast", (value,), value.dtype, dims)

    def _emit(self, primitive: str, operands: tuple[Operand, ...], dtype: str, dims: tuple[int, ...]) -> Value:
        """Add a step, unless it was made before."""
        key = (primitive, *operands, dtype, dims)
        if key not in self._made:
            self._made[key] = Value(str(len(self.steps)), dtype, dims)
            self.steps.append(Step(self._made[key], primitive, operands))
        return self._made[key]


def _name(program: Program, outputs: Sequence[str], stages: Mapping[str, str]) -> Program:
    """Give values the names of outputs and stages, and the others names that say how they were made."""
    names = {value.name: value.name for value in program.inputs}
    names.update({value.name: name for value, name in zip(program.outputs, outputs, strict=True)})
    for step in program.steps:
        if step.result.name in names:
            continue
        first = step.operands[0]
        stem = stages.get(step.result.name, step.primitive)
        if step.primitive == "broadcast" and isinstance(first, Value):
            stem = f"{names[first.name]}_all"
        taken = set(names.values())
        numbered = (f"{stem}_{n}" for n in itertools.count(2))
        names[step.result.name] = next(n for n in itertools.chain([stem], numbered) if n not in taken)

    def rename(value: Operand) -> Any:
        return Value(names[value.name], value.dtype, value.dims) if isinstance(value, Value) else value

    steps = tuple(Step(rename(s.result), s.primitive, tuple(map(rename, s.operands))) for s in program.steps)
    return Program(program.shape, program.inputs, steps, tuple(map(rename, program.outputs)))

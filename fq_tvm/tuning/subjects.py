"""What kernels of each operator are measured on: the tensors of a case, what has to come out, and the call.

The one place of the tuner that knows operators; what searches and measures is given tensors and calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..bench.cases import Case, numpy_dtype
from ..errors import FqError
from ..launch.arguments import Gradient, LearnableGradient, Operand, Operands, check, check_range_of, describe
from ..launch.buffers import empty_like
from ..launch.choose import Described
from ..reference import channel_range, fake_quant, learnable_gradient, straight_through

Array = np.ndarray[Any, Any]

RANGES = {"narrow": (-128, 127), "wide": (-(2**31), 2**31 - 1)}
"""The quantization range that stands for an arithmetic path."""


@dataclass(frozen=True)
class Subject:
    """How kernels of an operator are measured; the contract's operator where a method is not another's.

    Parameters
    ----------
    spec : FakeQuantSpec or another operator's
        The kernel.
    axis : int
        The channel dimension.
    """

    spec: Any
    axis: int

    @property
    def dtypes(self) -> tuple[Sequence[str], Sequence[str]]:
        """Of inputs and results, in the order of the kernel's tensors; ``@`` before those of an element a channel."""
        spec = self.spec
        results = (spec.out_dtype, "bool") if spec.mask else (spec.out_dtype,)
        return (spec.dtype, f"@{spec.scale_dtype}", f"@{spec.zero_point_dtype}"), results

    def inputs(self, x: Array, scale: Array, zero_point: Array) -> Sequence[Array]:
        """Make the inputs of a case's tensors; of another dtype they are cast."""
        return x, scale, zero_point

    def results(self, *inputs: Array) -> Sequence[Array]:
        """Return what the reference makes of them, but for sums, whose order it does not know."""
        spec = self.spec
        (x, scale, zero_point), out_dtype = inputs, numpy_dtype(spec.out_dtype)
        quant_min, quant_max = RANGES[spec.arithmetic]
        formula = asdict(spec.formula)
        return fake_quant(x, scale, zero_point, self.axis, quant_min, quant_max, out_dtype, **formula)

    def call(self, operands: Sequence[Operand]) -> Described:
        """Describe a call of inputs and results."""
        placed = operands[0].address is not None
        quant_range, formula = RANGES[self.spec.arithmetic], self.spec.formula
        return check(Operands(*operands), self.axis, *quant_range, placed=placed, formula=formula)


class _StraightThrough(Subject):
    @property
    def dtypes(self) -> tuple[Sequence[str], Sequence[str]]:
        return (self.spec.dtype, "bool"), (self.spec.dtype,)

    def inputs(self, x: Array, scale: Array, zero_point: Array) -> Sequence[Array]:
        del scale, zero_point
        return x, abs(x.astype(np.float32)) < 40

    def results(self, *inputs: Array) -> Sequence[Array]:
        grad, mask = inputs
        return (straight_through(grad, mask),)

    def call(self, operands: Sequence[Operand]) -> Described:
        grad, mask, out = operands
        return Gradient(grad, out, mask)


class _ChannelRange(Subject):
    @property
    def dtypes(self) -> tuple[Sequence[str], Sequence[str]]:
        return (self.spec.dtype,), (f"@{self.spec.dtype}",) * 2

    def inputs(self, x: Array, scale: Array, zero_point: Array) -> Sequence[Array]:
        del scale, zero_point
        return (x,)

    def results(self, *inputs: Array) -> Sequence[Array]:
        return channel_range(inputs[0], self.axis)

    def call(self, operands: Sequence[Operand]) -> Described:
        return check_range_of(operands[0], self.axis)


class _LearnableGradient(Subject):
    numbers = (*RANGES["narrow"], 1.0)

    @property
    def dtypes(self) -> tuple[Sequence[str], Sequence[str]]:
        return ("float32", "float32", "@float32", "@float32"), ("float32", "@float32", "@float32")

    def inputs(self, x: Array, scale: Array, zero_point: Array) -> Sequence[Array]:
        return x, x[..., ::-1], scale, zero_point

    def results(self, *inputs: Array) -> Sequence[Array]:
        x, grad, scale, zero_point = inputs
        return learnable_gradient(x, grad, scale, zero_point, self.axis, *self.numbers)[:1]

    def call(self, operands: Sequence[Operand]) -> Described:
        return LearnableGradient(operands[0], self.axis, *self.numbers)


SUBJECTS: dict[str, type[Subject]] = {
    "fake_quant": Subject,
    "straight_through": _StraightThrough,
    "channel_range": _ChannelRange,
    "learnable_gradient": _LearnableGradient,
}
"""By the operator's name."""


def subject_of(spec: Any, axis: int) -> Subject:
    """Return how kernels of a specification are measured.

    Raises
    ------
    FqError
        If nobody said so of the operator.
    """
    if spec.operator not in SUBJECTS:
        raise FqError(f"nothing says how to measure {spec.operator}; expected one of {', '.join(SUBJECTS)}")
    return SUBJECTS[spec.operator](spec, axis)


def arrays_of(case: Case, spec: Any) -> tuple[list[Array], list[Array]]:
    """Make the inputs of a kernel on a case, and room for its results.

    Raises
    ------
    FqError
        If bfloat16 is asked for, and numpy has none.
    """
    subject = subject_of(spec, case.axis)
    x, scale, zero_point = case.arrays()
    inputs, results = subject.dtypes
    made = []
    for dtype, array in zip(inputs, subject.inputs(x, scale, zero_point), strict=True):
        wanted = empty_like(x if array.shape == x.shape else array, numpy_dtype(dtype.removeprefix("@")))
        if array is x:
            wanted = x  # perhaps with gaps
        else:
            wanted[...] = array
        made.append(wanted)
    room = [empty_like(scale if d[0] == "@" else x, numpy_dtype(d.removeprefix("@"))) for d in results]
    return made, room


def call_on(arrays: Sequence[Array], case: Case, spec: Any) -> tuple[Described, Sequence[Operand]]:
    """Describe a call of a kernel on arrays: inputs, then results.

    Raises
    ------
    ArgumentError
        If the operator does not take them.
    """
    operands = [describe(array, "a tensor") for array in arrays]
    return subject_of(spec, case.axis).call(operands), operands


def call_without(case: Case, spec: Any) -> Described:
    """Describe the same call without the arrays.

    Raises
    ------
    ArgumentError
        If the operator does not take such.
    """
    subject = subject_of(spec, case.axis)
    channels = (case.shape[case.axis],) if case.shape else (1,)
    strides = case.strides

    def operand(dtype: str, place: int) -> Operand:
        if dtype[0] == "@":
            return Operand(None, dtype[1:], channels, (1,), 0)
        return Operand(None, dtype, case.shape, strides[min(place, 1)], 0)

    inputs, results = subject.dtypes
    operands = [operand(dtype, place) for place, dtype in enumerate((*inputs, *results))]
    return subject.call(operands)

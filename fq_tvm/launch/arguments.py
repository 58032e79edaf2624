"""What a caller handed over, and whether the contract allows it.

Turns numpy arrays, torch tensors, DLPack producers and descriptors into operands without copying, and checks them in
the contract's order: null, dtype, shape, quantization range, overlap.  Knows nothing of kernels.
"""

from __future__ import annotations

import ctypes
import math
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError
from ..layout import MAX_RANK
from ..spec import (
    CONTRACT,
    EXTENDED_FLOATS,
    EXTENDED_ZERO_POINTS,
    FakeQuantSpec,
    FoldedNormGradientSpec,
    FoldedNormSpec,
    FoldedWeightsGradientSpec,
    FoldedWeightsSpec,
    Formula,
    LearnableGradientSpec,
    ObservedParametersSpec,
    QuotientGradientSpec,
    RangeSpec,
    StraightThroughSpec,
    arithmetic_for,
    quant_range_scalars,
)
from . import dlpack
from .runtime import AddressTensor

ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "int32": 4, "bool": 1}

DTYPES = (EXTENDED_FLOATS, EXTENDED_FLOATS, EXTENDED_ZERO_POINTS, EXTENDED_FLOATS, ("bool",))
"""What each of the :class:`Operands` may hold; a facade that takes less has to say so itself."""

FIRST_ADDRESS = 4096
"""Below, there is no memory on any system: a null pointer, perhaps with an offset."""

INT64 = range(-(2**63), 2**63)

OVERLAP_WORK = 1_000_000
"""Bound of numpy's search for a common element of two interleaved views; beyond it they count as overlapping."""


SELF_OVERLAP_WORK = 1 << 24
"""Most elements that are looked at one by one to see whether a view has two in one place; beyond it, it counts so."""


class Operand(NamedTuple):
    """A tensor argument.

    Parameters
    ----------
    tensor : object
        What a kernel takes in its place: the caller's own object where tvm-ffi reads that at once.
    dtype : str
        numpy's name, e.g. ``"float32"``.
    shape, strides : tuple of int
        Strides in elements.
    address : int
        Of the first element.
    writable : bool
        Whether it may be an output.
    """

    tensor: Any
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    address: int
    writable: bool = True

    def span(self) -> tuple[int, int]:
        """Return the first address and the one after the last byte."""
        size = ITEMSIZE[self.dtype]
        reach = [stride * (extent - 1) * size for stride, extent in zip(self.strides, self.shape, strict=True)]
        return self.address + sum(r for r in reach if r < 0), self.address + sum(r for r in reach if r > 0) + size

    def view(self) -> np.ndarray[Any, Any]:
        """Return a numpy array of bytes-sized elements at the same places, to compare places with."""
        low, high = self.span()
        size = ITEMSIZE[self.dtype]
        buffer = memoryview((ctypes.c_char * (high - low)).from_address(low))
        strides = [s * size for s in self.strides]
        places: np.ndarray[Any, Any] = np.ndarray(self.shape, f"V{size}", buffer, self.address - low, strides)
        return places


class Operands(tuple[Operand, ...]):
    """The tensor arguments of the operator, in the order of its signature: four, and a mask if one is wanted."""

    __slots__ = ()

    def __new__(cls, x: Operand, scale: Operand, zero_point: Operand, out: Operand, *mask: Operand) -> Operands:
        """Gather them."""
        return super().__new__(cls, (x, scale, zero_point, out, *mask))


class Names(NamedTuple):
    """What messages call the arguments; a facade has names of its own."""

    x: str = "x"
    scale: str = "scale"
    zero_point: str = "zero_point"
    out: str = "out"
    mask: str = "mask"
    quant_min: str = "quant_min"
    quant_max: str = "quant_max"


NAMES = Names()


class CheckedArguments(NamedTuple):
    """Arguments that the operator's contract allows; only the checks of this module make one.

    Parameters
    ----------
    operands : Operands
        The tensors.
    axis : int or None
        The channel dimension counted from the front; None for one scale and one zero point of the whole tensor.
    quant_min, quant_max : int
        The range.
    formula : Formula
        Which of those in use.
    """

    operands: Operands
    axis: int | None
    quant_min: int
    quant_max: int
    formula: Formula = CONTRACT

    @property
    def shape(self) -> tuple[int, ...]:
        """Of x."""
        return self.operands[0].shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of x and each result, in elements."""
        x, _, _, *results = self.operands
        return x.strides, *(result.strides for result in results)

    @property
    def values(self) -> dict[str, float]:
        """What entry points need to know beside the loops: the range as scalars, and strides of the vectors."""
        scale, zero_point = (0 if self.axis is None or not v.strides else v.strides[0] for v in self.operands[1:3])
        scalars = quant_range_scalars(self.quant_min, self.quant_max)
        names = ("quant_min", "quant_max", "least", "greatest")
        return {**dict(zip(names, scalars, strict=False)), "scale_stride": scale, "zero_point_stride": zero_point}

    @property
    def key(self) -> tuple[Any, ...]:
        """What a launch depends on."""
        # the contract's own formula needs no hashing
        rest = self[1:4] if self.formula is CONTRACT else self[1:]
        return (tuple((o.dtype, o.shape, o.strides) for o in self.operands), *rest)

    def spec(self, iteration: str) -> FakeQuantSpec:
        """Return the kernel that serves them, given the class of the loops."""
        x, scale, zero_point, out, *mask = self.operands
        dtypes = (x.dtype, scale.dtype, out.dtype, zero_point.dtype)
        arithmetic = arithmetic_for(self.quant_min, self.quant_max)
        return FakeQuantSpec(iteration, *dtypes, arithmetic, **vars(self.formula), mask=bool(mask))


class Gradient(NamedTuple):
    """The tensors of a gradient that goes straight through, which are of one shape.

    Parameters
    ----------
    grad, out, mask : Operand
        What comes in, what comes out, of grad's dtype, and where it goes through.
    """

    grad: Operand
    out: Operand
    mask: Operand

    @property
    def axis(self) -> None:
        """None: there are no channels."""

    @property
    def values(self) -> dict[str, float]:
        """None but the loops'."""
        return {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each."""
        return self.grad.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of each, in elements."""
        return tuple(operand.strides for operand in self)

    @property
    def key(self) -> tuple[Any, ...]:
        """What a launch depends on."""
        return (StraightThroughSpec.operator, self.grad.dtype, self.shape, self.strides)

    def spec(self, iteration: str) -> StraightThroughSpec:
        """Return the kernel that serves them, given the class of the loops."""
        return StraightThroughSpec(iteration.replace("lanes", "rows"), self.grad.dtype)


class LearnableGradient(NamedTuple):
    """The tensors of a gradient by x, scale and zero point: x, grad and out dense and in one order, all of float32.

    Parameters
    ----------
    x : Operand
        What was quantized; grad, and the gradient by x, lie like it.  Vectors are contiguous.
    axis : int or None
        The channel dimension counted from the front; None for one scale and zero point of the whole tensor.
    quant_min, quant_max : int
        The range.
    factor : float
        Of the gradients by scale and zero point.
    """

    x: Operand
    axis: int | None
    quant_min: int
    quant_max: int
    factor: float

    @property
    def values(self) -> dict[str, float]:
        """The range and the factor, as scalars."""
        return {"quant_min": float(self.quant_min), "quant_max": float(self.quant_max), "factor": self.factor}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of x."""
        return self.x.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of x, in elements."""
        return (self.x.strides,)

    def spec(self, iteration: str) -> LearnableGradientSpec:
        """Return the kernel that serves it, given the class of the loops."""
        return LearnableGradientSpec(iteration)


class QuotientGradient(NamedTuple):
    """The tensors of a gradient of a quotient, all of float32, dense and in one order but for the divisors.

    Parameters
    ----------
    quotient : Operand
        What grad and both results lie like.  Divisors are contiguous.
    axis : int
        The dimension that has a divisor each, counted from the front.
    sum_lanes : int
        See :class:`~fq_tvm.spec.QuotientGradientSpec`.
    """

    quotient: Operand
    axis: int
    sum_lanes: int

    @property
    def values(self) -> dict[str, float]:
        """None but the loops'."""
        return {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the quotient."""
        return self.quotient.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of the quotient, in elements."""
        return (self.quotient.strides,)

    def spec(self, iteration: str) -> QuotientGradientSpec:
        """Return the kernel that serves it, given the class of the loops."""
        return QuotientGradientSpec(iteration, self.sum_lanes)


class ObservedParameters(NamedTuple):
    """What parameters of an observed range depend on; all vectors are contiguous.

    Parameters
    ----------
    channels : int
        Elements of each vector.
    symmetric : bool
        See :class:`~fq_tvm.spec.ObservedParametersSpec`.
    constant : float
        Weight of what is current.
    quant_min, quant_max : int
        The range of integers, at least two wide.
    observes, chooses : bool
        Whether the current range is taken in, and whether parameters are chosen.
    """

    channels: int
    symmetric: bool
    constant: float
    quant_min: int
    quant_max: int
    observes: bool
    chooses: bool

    @property
    def axis(self) -> int:
        """Each element is a channel."""
        return 0

    @property
    def values(self) -> dict[str, float]:
        """The numbers of entry points that the loops do not tell."""
        scalars = {"quant_min": float(self.quant_min), "quant_max": float(self.quant_max), "constant": self.constant}
        return {**scalars, "observes": int(self.observes), "chooses": int(self.chooses)}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each vector."""
        return (self.channels,)

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of a vector, in elements."""
        return ((1,),)

    def spec(self, iteration: str) -> ObservedParametersSpec:
        """Return the kernel that serves it; what layouts call a row, one channel, is a lane here."""
        del iteration
        return ObservedParametersSpec("lanes", self.symmetric)


class FoldedWeights(NamedTuple):
    """What weights with batch norm folded into them depend on; they, and all vectors, are contiguous.

    Parameters
    ----------
    weight : Operand
        What both results lie like; each element of its first dimension is a channel.
    parameters : ObservedParameters
        Of as many channels; they are chosen.
    """

    weight: Operand
    parameters: ObservedParameters

    @property
    def axis(self) -> int:
        """The first dimension."""
        return 0

    @property
    def values(self) -> dict[str, float]:
        """The numbers of entry points that the loops do not tell."""
        return self.parameters.values

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return self.weight.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of the weights, in elements."""
        return (self.weight.strides,)

    def spec(self, iteration: str) -> FoldedWeightsSpec:
        """Return the kernel that serves it, given the class of the loops."""
        return FoldedWeightsSpec(iteration, self.parameters.symmetric)


class FoldedWeightsGradient(NamedTuple):
    """The tensors of the gradient of such weights, all of which are contiguous.

    Parameters
    ----------
    weight : Operand
        What grad, the mask and the gradient lie like.
    sum_lanes : int
        See :class:`~fq_tvm.spec.QuotientGradientSpec`.
    """

    weight: Operand
    sum_lanes: int

    @property
    def axis(self) -> int:
        """The first dimension."""
        return 0

    @property
    def values(self) -> dict[str, float]:
        """None but the loops'."""
        return {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return self.weight.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of the weights, in elements."""
        return (self.weight.strides,)

    def spec(self, iteration: str) -> FoldedWeightsGradientSpec:
        """Return the kernel that serves it, given the class of the loops."""
        return FoldedWeightsGradientSpec(iteration, self.sum_lanes)


class FoldedNorm(NamedTuple):
    """What batch norm after a quotient depends on; all tensors are contiguous.

    Parameters
    ----------
    x : Operand
        What is divided, and what the quotient and the result lie like; the second dimension has the channels.
    momentum : float
        Weight of what is current.
    epsilon : float
        What is added to a variance.
    """

    x: Operand
    momentum: float
    epsilon: float

    @property
    def axis(self) -> int:
        """The second dimension."""
        return 1

    @property
    def values(self) -> dict[str, float]:
        """The numbers of entry points that the loops do not tell."""
        return {"momentum": self.momentum, "epsilon": self.epsilon}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of x."""
        return self.x.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of x, in elements."""
        return (self.x.strides,)

    def spec(self, iteration: str) -> FoldedNormSpec:
        """Return the kernel that serves it, given the class of the loops."""
        return FoldedNormSpec(iteration)


class FoldedNormGradient(NamedTuple):
    """What the gradient of batch norm after a quotient depends on; all tensors are contiguous.

    Parameters
    ----------
    quotient : Operand
        What grad and the result lie like; the second dimension has the channels.
    sum_lanes : int
        See :class:`~fq_tvm.spec.QuotientGradientSpec`.
    """

    quotient: Operand
    sum_lanes: int

    @property
    def axis(self) -> int:
        """The second dimension."""
        return 1

    @property
    def values(self) -> dict[str, float]:
        """None but the loops'."""
        return {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the quotient."""
        return self.quotient.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of the quotient, in elements."""
        return (self.quotient.strides,)

    def spec(self, iteration: str) -> FoldedNormGradientSpec:
        """Return the kernel that serves it, given the class of the loops."""
        return FoldedNormGradientSpec(iteration, self.sum_lanes)


class Reduction(NamedTuple):
    """The tensors of a range of channels.

    Parameters
    ----------
    x : Operand
        What is looked at.
    axis : int or None
        The channel dimension counted from the front; None for the range of the whole tensor.
    """

    x: Operand
    axis: int | None

    @property
    def values(self) -> dict[str, float]:
        """None but the loops'."""
        return {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of x."""
        return self.x.shape

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of x, in elements."""
        return (self.x.strides,)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Of each result, which is contiguous and of x's dtype."""
        return () if self.axis is None else (self.shape[self.axis] if self.shape else 1,)

    @property
    def key(self) -> tuple[Any, ...]:
        """What a launch depends on."""
        return (RangeSpec.operator, self.x.dtype, self.shape, self.strides, self.axis)

    def spec(self, iteration: str) -> RangeSpec:
        """Return the kernel that serves it, given the class of the loops."""
        return RangeSpec(iteration, self.x.dtype)


def check_range_of(x: Operand, axis: Any) -> Reduction:
    """Check the arguments of a range of channels.

    Raises
    ------
    ArgumentError
        At the first fault, in the order dtype, shape, axis; if there is an element of the result for no element of x.
    """
    if x.dtype not in EXTENDED_FLOATS:
        raise ArgumentError(f"x has dtype {x.dtype}; expected {' or '.join(EXTENDED_FLOATS)}", "dtype")
    if len(x.shape) > MAX_RANK:
        raise ArgumentError(f"x has {len(x.shape)} dimensions; expected at most {MAX_RANK}")
    reduction = Reduction(x, None if axis is None else normalize_axis(axis, len(x.shape)))
    others = [extent for d, extent in enumerate(x.shape) if d != reduction.axis]
    if 0 in others:
        raise ArgumentError(f"x has shape {x.shape}, and no elements have no range; expected one or more")
    return reduction


def describe(value: Any, name: str) -> Operand:
    """Describe a tensor without copying it.

    Parameters
    ----------
    value : numpy.ndarray, torch.Tensor, DLPack producer, or an object with an ``operand`` attribute
        In this machine's memory.
    name : str
        Of the argument, for messages.

    Returns
    -------
    Operand

    Raises
    ------
    ArgumentError
        If it is None (kind ``"null"``), no tensor, or one that lies elsewhere.
    """
    if value is None:
        raise ArgumentError(f"{name} is None; expected a tensor", "null")
    if isinstance(operand := getattr(value, "operand", None), Operand):
        return operand
    if isinstance(value, np.ndarray):
        return _describe_array(value, name)
    if isinstance(value, np.generic):  # becomes an array of its own, and what is written there is lost
        return _describe_array(np.asarray(value), name)._replace(writable=False)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _describe_torch(torch, value, name)
    if hasattr(value, "__dlpack__"):
        return _describe_dlpack(value, name)
    raise ArgumentError(
        f"{name} is a {type(value).__name__}; expected a numpy array, a torch tensor or another DLPack tensor", "dtype"
    )


def describe_all(
    values: Sequence[Any],
    names: Names = NAMES,
    numbers: Mapping[str, Any] = MappingProxyType({}),
    describe: Callable[[Any, str], Operand] = describe,
) -> Operands:
    """Describe all tensor arguments, in the order of the signature.

    Parameters
    ----------
    values : sequence of tensors
        Five.
    names : Names
        For messages.
    numbers : mapping
        Other arguments by their names for messages, which must not be None either.
    describe : callable
        Describes one.

    Raises
    ------
    ArgumentError
        If an argument is None, before any other fault is looked for; else as :func:`describe`.
    """
    tensors = names[: len(values)]
    for kind, given in (("tensor", zip(tensors, values, strict=True)), ("number", numbers.items())):
        for name, value in given:
            if value is None:
                raise ArgumentError(f"{name} is None; expected a {kind}", "null")
    return Operands(*map(describe, values, tensors))


def _describe_array(array: np.ndarray[Any, Any], name: str) -> Operand:
    size = array.itemsize
    # one element has no stride that matters, and numpy gives it any
    strides = [s if n > 1 else 0 for s, n in zip(array.strides, array.shape, strict=True)]
    if any(s % size for s in strides):
        raise ArgumentError(
            f"{name} has strides of {array.strides} bytes, no multiples of its {size}-byte elements; copy it first"
        )
    address = array.ctypes.data
    dtype = array.dtype.name if array.dtype.isnative else array.dtype.str
    # DLPack refuses to export any other, and numpy knows no code for a dtype that is not its own (bfloat16's kind is V)
    plain = array.flags.writeable and array.dtype.isnative and array.dtype.kind != "V"
    tensor = array if plain else AddressTensor(address, array)
    return Operand(tensor, dtype, array.shape, tuple(s // size for s in strides), address, array.flags.writeable)


def _is_traced(torch: Any) -> bool:
    """Whether what this thread calls is written down as a graph, which knows operators of torch only."""
    if torch._C._get_tracing_state() is not None or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE):
        return True
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    return proxies is not None and proxies.get_proxy_mode() is not None


def _describe_torch(torch: Any, tensor: Any, name: str) -> Operand:
    if _is_traced(torch):
        raise ArgumentError(
            f"{name} is a tensor of a graph that is being traced, which would not hold this function; "
            "call the operator fq_tvm.torch.fake_quantize_per_channel_affine_cachemask",
            "dtype",
        )
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else tensor.layout
        raise ArgumentError(f"{name} is a {kind} tensor on {tensor.device}; expected a strided one on the CPU", "dtype")
    if tensor.is_neg():  # e.g. the imaginary part of a conjugate: its memory holds the values with the other sign
        raise ArgumentError(
            f"{name} is a negated view of its memory; expected a plain tensor: use resolve_neg()", "dtype"
        )
    try:
        # a FakeTensor says that it is on the CPU, and warns whoever asks for its address
        address = tensor.data_ptr() if tensor.untyped_storage().device.type == "cpu" else 0
        tensor = tensor.detach()  # tvm-ffi refuses tensors that require a gradient
        shape, strides = tuple(map(int, tensor.shape)), tuple(map(int, tensor.stride()))
    except RuntimeError:  # of torch.func.vmap and grad, a wrapper subclass, ...
        address, shape, strides = 0, (), ()
    _check_address(address, shape, tensor, name)
    return Operand(tensor, str(tensor.dtype).removeprefix("torch."), shape, strides, address)


def _describe_dlpack(value: Any, name: str) -> Operand:
    try:
        tensor, writable, capsule = dlpack.read(value)
        shape, strides = tensor.layout
    except Exception as error:
        raise ArgumentError(
            f"{name}, a {type(value).__name__}, cannot be read through DLPack: {error}", "dtype"
        ) from None
    if tensor.device_type != dlpack.CPU:
        raise ArgumentError(
            f"{name} is on DLPack's device {tensor.device_type}:{tensor.device_id}; expected a tensor on the CPU",
            "dtype",
        )
    address = (tensor.data or 0) + tensor.byte_offset
    _check_address(tensor.data or 0, shape, value, name)
    return Operand(AddressTensor(address, capsule), tensor.dtype, shape, strides, address, writable)


def _check_address(address: int, shape: tuple[int, ...], value: Any, name: str) -> None:
    if address < FIRST_ADDRESS and 0 not in shape:
        raise ArgumentError(
            f"{name}, a {type(value).__name__}, has no memory; expected a tensor in this machine's memory: traced and "
            "transformed code calls the operator fq_tvm.torch.fake_quantize_per_channel_affine_cachemask",
            "dtype",
        )


def normalize_axis(axis: Any, rank: int) -> int:
    """Return axis as a number from 0 up; a 0-dimensional tensor counts as one element.

    Raises
    ------
    ArgumentError
        If it is no integer, or outside [-rank, rank - 1].
    """
    value = _integer(axis, "axis")
    extents = max(rank, 1)
    if not -extents <= value < extents:
        raise ArgumentError(f"axis is {value}; expected one from {-extents} to {extents - 1} for {rank} dimensions")
    return value % extents


def check_range(quant_min: Any, quant_max: Any, names: Names = NAMES) -> tuple[int, int]:
    """Return the quantization range as Python integers.

    Raises
    ------
    ArgumentError
        If a bound is no integer or no int64 (kind ``"range"``), or the first is above the second.
    """
    low, high = _integer(quant_min, names.quant_min), _integer(quant_max, names.quant_max)
    for bound, name in ((low, names.quant_min), (high, names.quant_max)):
        if bound not in INT64:
            raise ArgumentError(f"{name} is {bound}; expected an int64", "range")
    if low > high:
        bounds = f"{names.quant_min} is {low} and {names.quant_max} is {high}"
        raise ArgumentError(f"{bounds}; expected {names.quant_min} <= {names.quant_max}", "range")
    return low, high


def _integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        kind = "null" if value is None else "range"
        raise ArgumentError(f"{name} is {value!r}; expected an integer", kind) from None


def check(
    operands: Operands,
    axis: Any,
    quant_min: Any,
    quant_max: Any,
    names: Names = NAMES,
    dtypes: Sequence[Sequence[str]] = DTYPES,
    placed: bool = True,
    formula: Formula = CONTRACT,
) -> CheckedArguments:
    """Check the arguments of the operator against the contract.

    Parameters
    ----------
    operands : Operands
        As :func:`describe_all` made them; null arguments were refused there.
    axis, quant_min, quant_max : int
        As the caller gave them.  An axis of None stands for one scale and one zero point of the whole tensor.
    names : Names
        For messages.
    dtypes : sequence of sequences of str
        What each of the operands may hold.
    placed : bool
        Whether the tensors have a place in memory; nobody knows that of one that is traced.
    formula : Formula
        Which of those in use.

    Returns
    -------
    CheckedArguments

    Raises
    ------
    ArgumentError
        At the first fault, in the contract's order: dtype, shape, quantization range, overlap.
    """
    x, scale, zero_point, *results = operands
    for name, allowed, operand in zip(names, dtypes, operands, strict=False):
        if operand.dtype not in allowed:
            raise ArgumentError(f"{name} has dtype {operand.dtype}; expected {' or '.join(allowed)}", "dtype")
    rank = len(x.shape)
    if rank > MAX_RANK:
        raise ArgumentError(f"{names.x} has {rank} dimensions; expected at most {MAX_RANK}")
    for name, operand in zip((names.out, names.mask), results, strict=False):
        if operand.shape != x.shape:
            raise ArgumentError(f"{name} has shape {operand.shape}; expected that of {names.x}, {x.shape}")
    axis = _check_vectors(x, ((names.scale, scale), (names.zero_point, zero_point)), axis, names)
    checked = CheckedArguments(operands, axis, *check_range(quant_min, quant_max, names), formula)
    if placed:
        check_overlap(operands, names)
    return checked


def check_unplaced(
    dtypes: Sequence[str],
    shape: tuple[int, ...],
    axis: int,
    strides: Sequence[tuple[int, ...]],
    quant_range: tuple[int, int],
    formula: Formula = CONTRACT,
) -> CheckedArguments:
    """Check the arguments of a call whose tensors there are not.

    Parameters
    ----------
    dtypes : sequence of str
        Of x, scale, zero point and out.
    shape : tuple of int
        Of x.
    axis : int
        The channel dimension.
    strides : sequence of tuples of int
        Of x, out and, where one is wanted, mask, in elements; scale and zero point are contiguous.
    quant_range : tuple of int
        Its least and greatest value.
    formula : Formula
        Which of those in use.

    Raises
    ------
    ArgumentError
        As :func:`check`.
    """
    x, scale, zero_point, out = dtypes
    channels = (shape[axis],) if shape else (1,)
    operands = Operands(
        Operand(None, x, shape, strides[0], 0),
        Operand(None, scale, channels, (1,), 0),
        Operand(None, zero_point, channels, (1,), 0),
        Operand(None, out, shape, strides[1], 0),
        *(Operand(None, "bool", shape, mask, 0) for mask in strides[2:]),
    )
    return check(operands, axis, *quant_range, placed=False, formula=formula)


def _check_vectors(x: Operand, vectors: Sequence[tuple[str, Operand]], axis: Any, names: Names) -> int | None:
    """Check the shapes of scale and zero point; return the axis counted from the front."""
    if axis is None:
        for name, operand in vectors:
            if operand.shape not in ((), (1,)):
                raise ArgumentError(
                    f"{name} has shape {operand.shape}; expected one element, () or (1,), as there is no axis"
                )
        return None
    for name, operand in vectors:
        if len(operand.shape) != 1:
            raise ArgumentError(
                f"{name} has shape {operand.shape}; expected one dimension, of {names.x}'s size along axis"
            )
    rank = len(x.shape)
    axis = normalize_axis(axis, rank)
    channels = x.shape[axis] if rank else 1
    for name, operand in vectors:
        if operand.shape[0] != channels:
            raise ArgumentError(
                f"{name} has {operand.shape[0]} elements; "
                f"expected {channels}, the size of {names.x} {x.shape} along axis {axis}"
            )
    return int(axis)


def check_overlap(operands: Operands, names: Names = NAMES) -> None:
    """Refuse outputs that share memory with themselves, with each other, or with part of an input.

    An output that lies exactly on an input, element by element, is allowed: the operator may run in place.  A tensor
    whose address is still null overlaps nothing.

    Raises
    ------
    ArgumentError
        Of kind ``"overlap"``.
    """
    inputs, (out, *mask) = operands[:3], operands[3:]
    if 0 in out.shape:
        return
    results = [*zip((names.out, names.mask), (out, *mask), strict=False)]
    for name, operand in results:
        if not operand.writable:
            raise ArgumentError(f"{name} is read-only; expected a tensor that can be written", "overlap")
        if _overlaps_itself(operand):
            raise ArgumentError(
                f"{name} has several elements in one place: shape {operand.shape}, strides {operand.strides}", "overlap"
            )
    if mask and overlap(out, *mask):
        raise ArgumentError(f"{names.out} and {names.mask} overlap; expected outputs that share no memory", "overlap")
    for name, source in zip(names, inputs, strict=False):
        for result_name, result in results:
            if not _same_elements(source, result) and overlap(source, result):
                raise ArgumentError(
                    f"{result_name} overlaps part of {name}; expected no overlap, or the same elements exactly",
                    "overlap",
                )


def _same_elements(a: Operand, b: Operand) -> bool:
    def essential(operand: Operand) -> list[tuple[int, int]]:
        return [(n, s) for n, s in zip(operand.shape, operand.strides, strict=True) if n != 1]

    same_size = ITEMSIZE[a.dtype] == ITEMSIZE[b.dtype]
    return same_size and a.address == b.address and essential(a) == essential(b)


def overlap(a: Operand, b: Operand) -> bool:
    """Return whether two tensors have a byte of an element in common; both have elements."""
    if not a.address or not b.address:
        return False
    (a_low, a_high), (b_low, b_high) = a.span(), b.span()
    if a_high <= b_low or b_high <= a_low:
        return False
    try:
        # numpy's stub knows only -1 and 0
        return bool(np.shares_memory(a.view(), b.view(), max_work=OVERLAP_WORK))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _overlaps_itself(operand: Operand) -> bool:
    loops = sorted((abs(s), n) for n, s in zip(operand.shape, operand.strides, strict=True) if n > 1)
    reach = 0
    for stride, extent in loops:
        if stride <= reach:  # not nested: rare enough to look at every element
            elements = math.prod(n for _, n in loops)
            return elements > SELF_OVERLAP_WORK or _count_places(loops) < elements
        reach += stride * (extent - 1)
    return False


def _count_places(loops: Sequence[tuple[int, int]]) -> int:
    places = np.zeros(1, np.int64)
    for stride, extent in loops:
        places = np.unique((places[:, None] + np.arange(0, stride * extent, stride) if stride else places).ravel())
    return len(places)

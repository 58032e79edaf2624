"""Reads fake quantization that is written out in a Relax function, and accepts what the operator equals in every bit.

NaN and the signs of zeros included; docs/embedding.md has the conditions and their proofs.  Does not know how a module
is rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm_ffi
from tvm import relax, tirx, topi
from tvm.ir import Call, GenericConst, Op

from ..spec import NARROW_LIMIT
from .op import dtype_of, extents

BOUNDS = {name: np.iinfo(name) for name in ("int8", "uint8", "int16", "uint16", "int32")}

SMALL = ("int8", "uint8", "int16", "uint16")
"""Zero points that float32 holds exactly, whatever their value."""

CASTS = {"float32": tuple(BOUNDS), "int32": SMALL}
"""Zero points that a cast to a dtype may be of; the operator makes floats of an int32, too."""

MIRRORED = {"relax.greater_equal": "relax.less_equal", "relax.less_equal": "relax.greater_equal"}
CLIPS = ("relax.clip", "relax.minimum", "relax.maximum")
MASKS = ("relax.logical_and", "relax.bitwise_and", "relax.equal")
VIEWS = ("relax.reshape", "relax.expand_dims", "relax.squeeze")
BETWEEN = ("relax.astype", "relax.call_tir", *CLIPS)
"""What may stand between what quantizes and what dequantizes."""


@dataclass(frozen=True)
class Vector:
    """Channel parameters as the graph has them.

    Parameters
    ----------
    value : numpy.ndarray or relax.Expr
        One dimension; a constant's elements, or an expression of any shape with that many elements.
    axis : int or None
        The dimension of x that it runs along; None for one element.
    """

    value: Any
    axis: int | None

    @property
    def constant(self) -> bool:
        """Whether the elements are known."""
        return isinstance(self.value, np.ndarray)

    @property
    def whole(self) -> bool:
        """Whether it is a zero point of integers."""
        dtype = str(self.value.dtype) if self.constant else dtype_of(self.value)
        return dtype in BOUNDS

    def same(self, other: Vector | None) -> bool:
        """Whether both are the same constant, bit for bit, or the same expression, along the same dimension."""
        if other is None or self.axis != other.axis or self.constant != other.constant:
            return False
        if not self.constant:
            return bool(self.value.same_as(other.value))
        return bool(self.value.dtype == other.value.dtype and self.value.tobytes() == other.value.tobytes())


@dataclass
class Found:
    """What a match has read so far."""

    scale: Vector
    zero_point: Vector | None = None
    """None where the graph has none, and what is quantized loses the sign of a zero as it does by adding one."""
    x: Any = None
    quantized: Any = None
    """The variable of what quantizes, ``R.quantize`` or the clip."""
    q: Any = None
    """The sum that is clipped; None of ``R.quantize``."""
    clip: Any = None
    """The call that gives the clipped sum; None where the range is made smaller after it."""
    low: int = 0
    high: int = 0
    form: str = "reciprocal"
    placement: str = "after"
    """Where the zero point is added: after rounding, or before it."""
    keep_zero_sign: bool = False
    nan: str = "quant_min"
    inside: list[Any] = field(default_factory=list)
    """Variables between x and the result."""
    between: list[tuple[str, tuple[float, float]]] = field(default_factory=list)
    """What stands between what quantizes and what dequantizes, last first: casts to integers, as a dtype and what it
    holds, and clips of integers, as ``"clip"`` and what they clip to."""

    @property
    def axis(self) -> int | None:
        """The dimension of x that the channels run along; None where the whole tensor shares its parameters."""
        axes = (vector.axis for vector in (self.scale, self.zero_point) if vector is not None)
        return next((axis for axis in axes if axis is not None), None)

    def same(self, other: Found) -> bool:
        """Whether another match of what the same call quantizes gives the same."""
        zero_points = self.zero_point, other.zero_point
        if None in zero_points and zero_points != (None, None):
            return False
        ranges = (self.low, self.high), (other.low, other.high)
        vectors = zip((self.scale, self.zero_point), (other.scale, other.zero_point), strict=True)
        return ranges[0] == ranges[1] and all(a is b is None or (a is not None and a.same(b)) for a, b in vectors)


class _NoMatchError(Exception):
    """The graph computes something else."""


def _require(condition: Any) -> None:
    """End a match where a condition does not hold."""
    if not condition:
        raise _NoMatchError


def _either(read: Callable[..., Any], call: Any, *known: Any) -> Any:
    """Read the operands of a commutative call one way round, or else the other."""
    for a, b in (call.args, reversed(call.args)):
        with suppress(_NoMatchError):
            return read(a, b, *known)
    raise _NoMatchError


class Matcher:
    """Reads the calls of one function.

    Parameters
    ----------
    func : relax.Function
        Normalized: each argument of a call is a variable or a constant.
    mod : tvm.IRModule
        Where the functions are that it calls.
    allow_reciprocal : bool
        Whether a product with the reciprocal may stand for a division that it does not equal.
    """

    def __init__(self, func: Any, mod: Any, allow_reciprocal: bool) -> None:
        self.values = relax.analysis.get_var2val(func)
        self.mod = mod
        self.allow_reciprocal = allow_reciprocal

    def match(self, result: Any) -> Found | None:
        """Read a call that could be the last of fake quantization; None where it is not."""
        with suppress(_NoMatchError):
            if _name(result) == "relax.dequantize":
                return self._dequantize(result)
            if _name(result) == "relax.multiply" and dtype_of(result) == "float32":
                found: Found = _either(self._chain, result, result.ty.ndim)
                return found
        return None

    @staticmethod
    def may_be_mask(value: Any) -> bool:
        """Whether it is worth asking for what match a value is the mask."""
        return _name(value) in MASKS

    def mask(self, found: Found, value: Any) -> list[Any] | None:
        """Read a call that could compute the mask of a match; return the variables in between, or None."""
        with suppress(_NoMatchError):
            if _name(value) in ("relax.logical_and", "relax.bitwise_and"):
                limits = {self._limit(found, side) for side in value.args}
                _require(limits == {("relax.greater_equal", found.low), ("relax.less_equal", found.high)})
                return list(value.args)
            if _name(value) == "relax.equal":
                ways = (value.args, reversed(value.args))
                _require(found.clip is not None)
                _require(any(self._is(a, found.q) and self._value(b).same_as(found.clip) for a, b in ways))
                return []
        return None

    # Reading expressions

    def _value(self, expr: Any) -> Any:
        """Follow variables to what they are bound to."""
        while isinstance(expr, relax.Var) and expr in self.values:
            expr = self.values[expr]
        return expr

    def _variable(self, expr: Any) -> Any:
        """Follow variables that are other names of variables."""
        while isinstance(expr, relax.Var) and isinstance(self.values.get(expr), relax.Var):
            expr = self.values[expr]
        return expr

    def _is(self, a: Any, b: Any) -> bool:
        return b is not None and bool(self._variable(a).same_as(self._variable(b)))

    def _enter(self, found: Found, expr: Any, *names: str) -> Any:
        """Return the call that a variable of the chain is bound to."""
        call = self._value(expr)
        _require(_name(call) in names)
        while isinstance(expr, relax.Var):
            found.inside.append(expr)
            expr = self.values[expr]
        return call

    def _constant(self, expr: Any) -> np.ndarray | None:
        """Return the elements of a constant, of a view of one, and of one of integers that is cast to float32."""
        value = self._value(expr)
        if isinstance(value, GenericConst):
            return np.asarray(value.value.numpy())
        if _name(value) not in ("relax.astype", *VIEWS):
            return None
        data = self._constant(value.args[0])
        if data is None or _name(value) in VIEWS:
            shape: Any = extents(value.ty)
            known = shape is not None and all(isinstance(extent, int) for extent in shape)
            return data.reshape(shape) if data is not None and known else None
        whole = dtype_of(value) == "float32" and str(data.dtype) in (*BOUNDS, "int64")
        return data.astype(np.float32) if whole else None

    def _number(self, expr: Any) -> int:
        """Read a constant that is one integer everywhere, and not a negative zero."""
        data = self._constant(expr)
        if data is None:
            _require(isinstance(expr, (tirx.IntImm, tirx.FloatImm)))
            data = np.array(expr.value)
        numbers = np.unique(_whole(data))
        _require(len(numbers) == 1)
        return int(numbers[0])

    def _vector(self, expr: Any, rank: int, axis: int | None = None) -> Vector:
        """Read parameters that broadcast against a tensor of some rank.

        Those of one dimension lie along the axis, where one is given.
        """
        shape: Any = extents(expr.ty)
        _require(shape is not None)
        long = [d for d, extent in enumerate(shape) if extent != 1]
        _require(len(long) <= 1 and len(shape) <= rank)
        along = None if not long else axis if axis is not None and len(shape) == 1 else long[0] + rank - len(shape)
        base, data = self._variable(expr), self._constant(expr)
        while data is None and _name(self.values.get(base)) in VIEWS:
            base = self._variable(self.values[base].args[0])
        return Vector(base if data is None else np.ascontiguousarray(data.reshape(-1)), along)

    def _zero_point(self, expr: Any, rank: int) -> Vector:
        """Read a zero point of integers, or else one of floats."""
        with suppress(_NoMatchError):
            return self._whole_zero_point(expr, rank)
        _require(dtype_of(expr) == "float32")
        return self._vector(expr, rank)

    def _whole_zero_point(
        self, expr: Any, rank: int, axis: int | None = None, dtypes: tuple[str, ...] = SMALL
    ) -> Vector:
        """Read a zero point of integers, cast or not, that are of one of these dtypes or constant."""
        dtype = dtype_of(expr)
        _require(dtype in (*BOUNDS, "float32"))
        vector = self._vector(expr, rank, axis)
        if vector.constant:
            return Vector(_whole(vector.value), vector.axis)
        cast = self._value(vector.value)
        if _name(cast) == "relax.astype" and dtype_of(cast.args[0]) in CASTS.get(dtype, ()):
            return self._whole_zero_point(cast.args[0], rank, vector.axis, CASTS[dtype])
        _require(dtype_of(vector.value) in dtypes)
        return vector

    # What dequantizes

    def _dequantize(self, result: Any) -> Found:
        rank = result.ty.ndim
        _require(str(result.attrs.out_dtype) == "float32")
        found = Found(*self._parameters(result, rank))
        self._between(found, self._enter(found, result.args[0], "relax.quantize", *BETWEEN), rank)
        return found

    def _parameters(self, call: Any, rank: int) -> tuple[Vector, Vector]:
        """Read scale and zero point of a quantize or dequantize."""
        _, scale, zero_point = call.args
        _require(dtype_of(scale) == "float32" and scale.ty.ndim <= 1 and zero_point.ty.ndim <= 1)
        axis = int(call.attrs.axis) % max(rank, 1)
        return self._vector(scale, rank, axis), self._whole_zero_point(zero_point, rank, axis)

    def _chain(self, difference: Any, scale: Any, rank: int) -> Found:
        found = Found(self._vector(scale, rank))
        call = self._enter(found, difference, "relax.subtract", *BETWEEN)
        inside = self._value(call.args[0])
        if _name(call) == "relax.astype" and _name(inside) == "relax.subtract" and dtype_of(inside) == "int32":
            call = self._enter(found, call.args[0], "relax.subtract")  # float32(int32(clip) - zero point)
        if _name(call) == "relax.subtract":
            found.zero_point = self._zero_point(call.args[1], rank)
            if dtype_of(call) == "int32" and not found.zero_point.constant:
                _require(_name(self._value(call.args[1])) == "relax.astype")
            call = self._enter(found, call.args[0], *BETWEEN)
        self._between(found, call, rank)
        return found

    # What stands between, and what quantizes

    def _between(self, found: Found, call: Any, rank: int) -> None:
        """Step over casts and clips of integers to what quantizes, and read that; casts must hold every value."""
        while _name(call) != "relax.quantize":
            dtype = dtype_of(call)
            _require(dtype in (*BOUNDS, "float32"))
            if _name(call) == "relax.astype":
                inside = call.args[0]
                if dtype in BOUNDS:
                    found.between.append((dtype, (BOUNDS[dtype].min, BOUNDS[dtype].max)))
            elif dtype in BOUNDS:
                inside, low, high = self._integer_clip(call)
                found.between.append(("clip", (low, high)))
            else:
                break
            call = self._enter(found, inside, "relax.quantize", *BETWEEN)
        found.quantized = found.inside[-1]
        if _name(call) == "relax.quantize":
            self._quantize(found, call, rank)
        else:
            loses_sign = self._clip(found, call)
            negative_zero, representable = self._sum(found, rank)
            found.keep_zero_sign = negative_zero and not loses_sign and not found.between
            _require(representable or not found.keep_zero_sign)
        _check_shapes(found, rank)
        for name, (low, high) in reversed(found.between):
            if name == "clip":
                if low > found.low or high < found.high:
                    found.clip = None
                found.low, found.high = int(max(low, found.low)), int(min(high, found.high))
                _require(found.low <= found.high)
            _require(low <= found.low and found.high <= high)

    def _integer_clip(self, call: Any) -> tuple[Any, float, float]:
        """Read a clip of integers, or one side of one; return what is clipped, and its bounds."""
        if _name(call) == "relax.clip":
            inside, low, high = call.args
            return inside, self._number(low), self._number(high)
        operands = call.args
        if _name(call) == "relax.call_tir":
            operands = self._value(call.args[1])
            _require(isinstance(operands, relax.Tuple) and len(operands) == 2)
        a, b = operands
        bound, inside = (b, a) if self._constant(b) is not None else (a, b)
        number = self._number(bound)
        _require(dtype_of(bound) == dtype_of(inside) and bound.ty.ndim <= inside.ty.ndim)
        name = self._called(call, operands) if _name(call) == "relax.call_tir" else _name(call)
        return inside, *((number, math.inf) if name == "relax.maximum" else (-math.inf, number))

    def _called(self, call: Any, operands: Any) -> str:
        """Read a call of a function that is a minimum or a maximum, as TVM's importer makes them of ONNX's Clip."""
        _require(len(call.args) == 2 and all(extents(operand.ty) is not None for operand in operands))
        given = self.mod[call.args[0]].without_attr("global_symbol")
        for name in ("maximum", "minimum"):
            builder = relax.BlockBuilder()
            own = builder.call_te(getattr(topi, name), *operands).args[0]
            if tvm_ffi.structural_equal(given, builder.get()[own].without_attr("global_symbol"), map_free_vars=True):
                return f"relax.{name}"
        raise _NoMatchError

    def _quantize(self, found: Found, call: Any, rank: int) -> None:
        integers = str(call.attrs.out_dtype)
        _require(integers in SMALL)
        found.x = call.args[0]
        scale, zero_point = self._parameters(call, rank)
        none = found.zero_point is None and zero_point.constant and not zero_point.value.any()
        _require(scale.same(found.scale) and (none or zero_point.same(found.zero_point)))
        found.low, found.high = BOUNDS[integers].min, BOUNDS[integers].max
        found.between.append((integers, (found.low, found.high)))
        found.nan = "quant_max"  # max(min(q, high), low), and min gives its second operand for a NaN
        found.form = self._quotient(found.scale)

    def _clip(self, found: Found, call: Any) -> bool:
        """Read the range, and what a NaN becomes: min and max give their second operand if one is a NaN.

        They do so for two zeros, too.  Return whether a -0.0 becomes a bound of 0, which is positive.
        """
        found.clip = call
        if _name(call) == "relax.clip":
            found.q, low, high = call.args
            found.nan = "quant_max"
            first = (True, True)
        else:
            bound, inner = self._split(call)
            inner_call = self._enter(found, inner, *({"relax.minimum", "relax.maximum"} - {_name(call)}))
            other, found.q = self._split(inner_call)
            # A NaN becomes the inner bound, which is inside the outer one, or goes on and becomes the outer bound.
            swallowed = self._is(inner_call.args[0], found.q)
            first = swallowed, self._is(call.args[0], inner)
            _require(any(first))
            low, high = (other, bound) if _name(call) == "relax.minimum" else (bound, other)
            found.nan = "quant_min" if (other if swallowed else bound) is low else "quant_max"
            if _name(call) == "relax.maximum":
                first = (first[1], first[0])
        found.low, found.high = self._number(low), self._number(high)
        _require(found.low <= found.high)
        return any(is_first and limit == 0 for is_first, limit in zip(first, (found.low, found.high), strict=True))

    def _split(self, call: Any) -> tuple[Any, Any]:
        """Return the bound and the tensor of a minimum or maximum."""
        a, b = call.args
        return (b, a) if self._constant(b) is not None else (a, b)

    def _limit(self, found: Found, side: Any) -> tuple[str, int]:
        """Read a comparison of q with a number."""
        compare = self._value(side)
        name = _name(compare)
        _require(name in MIRRORED)
        a, b = compare.args
        if not self._is(a, found.q):
            name, a, b = MIRRORED[name], b, a
        _require(self._is(a, found.q))
        return name, self._number(b)

    def _sum(self, found: Found, rank: int) -> tuple[bool, bool]:
        """Read rint(t) + zero_point, rint(t), or rint(t + zero_point), where t is x / scale or a product.

        Return whether it can be -0.0, and whether the operator can keep that.
        """
        call = self._enter(found, found.q, "relax.add", "relax.round")
        if _name(call) == "relax.add":
            rounded, added = call.args
            if _name(self._value(rounded)) != "relax.round":
                rounded, added = added, rounded
            dropped = self._added(found, added, rank)
            _require(found.zero_point is not None and found.zero_point.whole)
            call = self._enter(found, rounded, "relax.round")
            self._scaled(found, self._enter(found, call.args[0], "relax.multiply", "relax.divide"), rank)
            return dropped, False
        call = self._enter(found, call.args[0], "relax.multiply", "relax.divide", "relax.add")
        if _name(call) != "relax.add":
            _require(found.zero_point is None)
            self._scaled(found, call, rank)
            return True, False
        found.placement = "before"
        quotient, added = call.args
        if _name(self._value(quotient)) != "relax.divide":
            quotient, added = added, quotient
        dropped = self._added(found, added, rank)
        # A product may or may not be rounded before something is added to it: see docs/embedding.md.
        self._scaled(found, self._enter(found, quotient, "relax.divide"), rank)
        return True, not dropped

    def _added(self, found: Found, expr: Any, rank: int) -> bool:
        """Read what has to be the zero point; return whether TVM drops the sum: one with a scalar constant of 0.0."""
        vector = self._zero_point(expr, rank)
        _require(vector.same(found.zero_point))
        return vector.constant and not (extents(expr.ty) or vector.value.any())

    def _scaled(self, found: Found, call: Any, rank: int) -> None:
        """Read x / scale, or x times the reciprocal."""
        if _name(call) == "relax.divide":
            found.x, scale = call.args
            _require(self._vector(scale, rank).same(found.scale))
            found.form = self._quotient(found.scale)
        else:
            found.x = _either(self._product, call, found.scale, rank)

    def _product(self, x: Any, inverse: Any, scale: Vector, rank: int) -> Any:
        """Read a product of x and 1 / scale, rounded once; return x."""
        vector = self._vector(inverse, rank)
        if vector.constant:
            with np.errstate(all="ignore"):
                _require(scale.constant and vector.same(Vector(np.float32(1) / scale.value, scale.axis)))
            return x
        call = self._value(vector.value)
        _require(_name(call) == "relax.divide")
        one = self._constant(call.args[0])
        _require(one is not None and (one == 1).all())
        _require(self._vector(call.args[1], rank, scale.axis).same(scale))
        return x

    def _quotient(self, scale: Vector) -> str:
        """Choose the form of a quotient: a product with the reciprocal where that gives the same bits, or is allowed.

        The reciprocal of a power of two is exact while both are normal numbers: quotient and product then are the same
        real number, rounded once.
        """
        if self.allow_reciprocal:
            return "reciprocal"
        if not scale.constant:
            return "division"
        fraction, exponent = np.frexp(scale.value.astype(np.float32))
        exact = np.isfinite(scale.value) & (np.abs(fraction) == 0.5) & (np.abs(exponent - 1) <= 126)
        return "reciprocal" if exact.all() else "division"


def _check_shapes(found: Found, rank: int) -> None:
    """Refuse parameters that do not have one element, or one for each channel of one and the same dimension of x.

    Others broadcast x, or each other, to a shape that the operator does not have.
    """
    _require(dtype_of(found.x) == "float32" and found.x.ty.ndim == rank)
    shape: Any = extents(found.x.ty)
    for vector in (found.scale, found.zero_point):
        if vector is None or vector.axis is None:
            continue
        _require(shape is not None and vector.axis == found.axis)
        size = vector.value.size if vector.constant else math.prod(extents(vector.value.ty) or ())
        # a symbolic channel may be as long as a constant is, but no call says so
        zero = tirx.const(0, "int64")
        _require(tvm_ffi.structural_equal(zero + size, zero + shape[vector.axis]))


def _whole(data: np.ndarray) -> np.ndarray:
    """Return a constant as int32; it has to be integers that are exact in float32, without a negative zero."""
    numbers = data.astype(np.float64)
    exact = (numbers == np.rint(numbers)) & (np.abs(numbers) <= NARROW_LIMIT)
    _require((exact & ~(np.signbit(numbers) & (numbers == 0))).all())
    return data.astype(np.int32)


def _name(call: Any) -> str:
    return str(call.op.name) if isinstance(call, Call) and isinstance(call.op, Op) else ""

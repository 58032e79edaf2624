"""Reads fake quantization that is written out in a Relax function, and accepts what the operator equals in every bit.

NaN and the signs of zeros included; docs/embedding.md has the conditions and their proofs.  Does not know how a module
is rewritten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Call, GenericConst, Op

from ..spec import NARROW_LIMIT

BOUNDS = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in ("int8", "uint8", "int16", "uint16", "int32")
}
SMALL = ("int8", "uint8", "int16", "uint16")
"""Zero points that float32 holds exactly, whatever their value."""


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

    def same(self, other: Vector) -> bool:
        """Whether both are the same constant, bit for bit, or the same expression, along the same dimension."""
        if self.axis != other.axis or self.constant != other.constant:
            return False
        if not self.constant:
            return bool(self.value.same_as(other.value))
        return bool(self.value.dtype == other.value.dtype and self.value.tobytes() == other.value.tobytes())


@dataclass
class Found:
    """What a match has read so far."""

    x: Any = None
    scale: Vector | None = None
    zero_point: Vector | None = None
    low: int = 0
    high: int = 0
    nan: str = "quant_min"
    inside: list[Any] = field(default_factory=list)
    """Variables between x and the result."""
    q: Any = None
    clip: Any = None
    casts: list[str] = field(default_factory=list)

    @property
    def axis(self) -> int | None:
        """The dimension of x that the channels run along; None where the whole tensor shares its parameters."""
        axes = (vector.axis for vector in (self.scale, self.zero_point) if vector is not None)
        return next((axis for axis in axes if axis is not None), None)


class _NoMatchError(Exception):
    """The graph computes something else."""


class Matcher:
    """Reads the calls of one function.

    Parameters
    ----------
    func : relax.Function
        Normalized: each argument of a call is a variable or a constant.
    allow_reciprocal : bool
        Whether a product with the reciprocal may stand for a division that it does not equal.
    """

    def __init__(self, func: Any, allow_reciprocal: bool) -> None:
        self.values = relax.analysis.get_var2val(func)
        self.allow_reciprocal = allow_reciprocal

    def match(self, result: Any) -> Found | None:
        """Read a call that could be the last of fake quantization; None where it is not."""
        try:
            name = _name(result)
            if name == "relax.dequantize":
                return self._pair(result)
            if name == "relax.multiply" and dtype_of(result) == "float32":
                return self._chain(result)
        except _NoMatchError:
            pass
        return None

    def mask(self, found: Found, value: Any) -> bool:
        """Whether a call computes the mask that belongs to a match."""
        if _name(value) in ("relax.logical_and", "relax.bitwise_and"):
            limits = set()
            for side in value.args:
                compare = self._value(side)
                name = _name(compare)
                if name not in MIRRORED:
                    return False
                a, b = compare.args
                if not self._is(a, found.q):
                    name, a, b = MIRRORED[name], b, a
                if not self._is(a, found.q):
                    return False
                limits.add((name, self._number(b)))
                found.inside.append(side)
            return limits == {("relax.greater_equal", found.low), ("relax.less_equal", found.high)}
        if _name(value) == "relax.equal":
            a, b = value.args
            return (self._is(a, found.q) and self._is(b, found.clip)) or (
                self._is(b, found.q) and self._is(a, found.clip)
            )
        return False

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
        return bool(self._variable(a).same_as(self._variable(b)))

    def _enter(self, found: Found, expr: Any, *names: str) -> Any:
        """Return the call that a variable of the chain is bound to."""
        call = self._value(expr)
        if _name(call) not in names:
            raise _NoMatchError
        while isinstance(expr, relax.Var):
            found.inside.append(expr)
            expr = self.values[expr]
        return call

    def _constant(self, expr: Any) -> np.ndarray | None:
        value = self._value(expr)
        if _name(value) == "relax.astype" and dtype_of(value) == "float32":
            whole = self._value(value.args[0])
            if isinstance(whole, GenericConst) and dtype_of(whole) in (*BOUNDS, "int64"):
                return np.asarray(whole.value.numpy(), np.float32)
        return value.value.numpy() if isinstance(value, GenericConst) else None

    def _number(self, expr: Any) -> int | None:
        """Return a constant that is an integer everywhere, and not a negative zero."""
        data = self._constant(expr)
        if data is None and isinstance(expr, (tirx.IntImm, tirx.FloatImm)):
            data = np.array(expr.value)
        if data is None:
            return None
        numbers = np.unique(data.astype(np.float64))
        if len(numbers) != 1 or (np.signbit(data).any() and numbers[0] == 0):
            return None
        number = float(numbers[0])
        return int(number) if number.is_integer() and abs(number) <= NARROW_LIMIT else None

    def _vector(self, expr: Any, rank: int, axis: int | None = None) -> Vector:
        """Read parameters that broadcast against a tensor of some rank, or lie along an axis that is given."""
        shape = shape_of(expr)
        if shape is None:
            raise _NoMatchError
        long = [d for d, extent in enumerate(shape) if extent != 1]
        if len(long) > 1 or len(shape) > rank or (axis is not None and len(shape) > 1):
            raise _NoMatchError
        along = None if not long else axis if axis is not None else long[0] + rank - len(shape)
        data = self._constant(expr)
        if data is not None:
            return Vector(np.ascontiguousarray(data.reshape(-1)), along)
        base = self._variable(expr)
        while _name(self.values.get(base)) in ("relax.reshape", "relax.expand_dims", "relax.squeeze"):
            base = self._variable(self.values[base].args[0])
            if (data := self._constant(base)) is not None:
                return Vector(np.ascontiguousarray(data.reshape(-1)), along)
        return Vector(base, along)

    # The two forms

    def _pair(self, result: Any) -> Found:
        found = Found()
        quantized, scale, zero_point = result.args
        quantize = self._enter(found, quantized, "relax.quantize")
        found.x = quantize.args[0]
        integers = str(quantize.attrs.out_dtype)
        rank = found.x.ty.ndim
        if integers not in SMALL or rank < 0 or str(result.attrs.out_dtype) != "float32":
            raise _NoMatchError
        if dtype_of(found.x) != "float32" or any(dtype_of(s) != "float32" for s in (scale, quantize.args[1])):
            raise _NoMatchError
        axis, other = (int(call.attrs.axis) % max(rank, 1) for call in (quantize, result))
        found.scale = self._vector(scale, rank, axis)
        found.zero_point = self._integers(zero_point, rank, axis)
        if not found.scale.same(self._vector(quantize.args[1], rank, other)):
            raise _NoMatchError
        if not found.zero_point.same(self._integers(quantize.args[2], rank, other)):
            raise _NoMatchError
        self._check_channels(found)
        found.low, found.high = BOUNDS[integers]
        found.nan = "quant_max"  # max(min(q, high), low), and min gives its second operand for a NaN
        self._division(found.scale)
        return found

    def _chain(self, result: Any) -> Found:
        rank = result.ty.ndim
        for difference, scale in (result.args, reversed(result.args)):
            try:
                return self._chain_of(difference, scale, rank)
            except _NoMatchError:
                continue
        raise _NoMatchError

    def _chain_of(self, difference: Any, scale: Any, rank: int) -> Found:
        found = Found()
        found.scale = self._vector(scale, rank)
        zero_point: Vector | None = None
        through_integers = False
        call = self._enter(found, difference, "relax.subtract", "relax.astype", *CLIPS)
        if _name(call) == "relax.astype":
            inside = self._value(call.args[0])
            if _name(inside) == "relax.subtract" and dtype_of(inside) == "int32":  # float32(int32(clip) - zero point)
                call = self._enter(found, call.args[0], "relax.subtract")
                zero_point = self._integers(call.args[1], rank)
                if not zero_point.constant and dtype_of(call.args[1]) not in SMALL:
                    base = self._value(call.args[1])
                    if _name(base) != "relax.astype" or dtype_of(base.args[0]) not in SMALL:
                        raise _NoMatchError
                call = self._enter(found, call.args[0], "relax.astype")
                call = self._cast(found, call)
                through_integers = True
            else:
                call = self._cast(found, call)
                through_integers = bool(found.casts)  # a cast of float32 to float32 keeps a -0.0
        elif _name(call) == "relax.subtract":
            zero_point = self._floats(call.args[1], rank)
            inside = self._enter(found, call.args[0], "relax.astype", *CLIPS)
            if _name(inside) == "relax.astype":
                inside = self._cast(found, inside)
            call = inside
        if zero_point is None and not through_integers:
            raise _NoMatchError  # rint(x / scale) may be -0.0, and the operator's q is not: it adds a zero point
        self._clip(found, call)
        self._sum(found, zero_point, rank)
        return found

    def _cast(self, found: Found, call: Any) -> Any:
        """Step over casts to integers, which must hold every value of the range; return the clip before them."""
        kinds = []
        while _name(call) == "relax.astype":
            call = self._enter(found, call.args[0], "relax.astype", *CLIPS)
            kinds.append(dtype_of(call))
        *integers, floats = kinds
        if floats != "float32" or any(kind not in BOUNDS for kind in integers):
            raise _NoMatchError
        found.casts = integers
        return call

    def _clip(self, found: Found, call: Any) -> None:
        """Read the range, and what a NaN becomes: min and max give their second operand if one is a NaN."""
        if _name(call) == "relax.clip":
            found.q, low, high = call.args
            found.low, found.high = self._limit(low), self._limit(high)
            found.nan = "quant_max"
        else:
            outer = call
            bound, inner = self._split(outer)
            inner_call = self._enter(found, inner, *({"relax.minimum", "relax.maximum"} - {_name(outer)}))
            other, found.q = self._split(inner_call)
            low, high = (other, bound) if _name(outer) == "relax.minimum" else (bound, other)
            found.low, found.high = self._limit(low), self._limit(high)
            if self._is(inner_call.args[0], found.q):  # a NaN became the inner bound, which is inside the outer one
                found.nan = "quant_min" if _name(inner_call) == "relax.maximum" else "quant_max"
            elif self._is(outer.args[0], inner):  # a NaN went on, and became the outer bound
                found.nan = "quant_max" if _name(outer) == "relax.minimum" else "quant_min"
            else:
                raise _NoMatchError
        if found.low > found.high:
            raise _NoMatchError
        for kind in found.casts:
            least, greatest = BOUNDS[kind]
            if found.low < least or found.high > greatest:
                raise _NoMatchError

    def _limit(self, expr: Any) -> int:
        number = self._number(expr)
        if number is None:
            raise _NoMatchError
        return number

    def _split(self, call: Any) -> tuple[Any, Any]:
        """Return the bound and the tensor of a minimum or maximum."""
        a, b = call.args
        return (b, a) if self._constant(b) is not None else (a, b)

    def _sum(self, found: Found, zero_point: Vector | None, rank: int) -> None:
        """Read rint(x * inv) + zero_point, or rint(x * inv + zero_point)."""
        call = self._enter(found, found.q, "relax.add", "relax.round")
        if _name(call) == "relax.add":
            rounded, added = call.args
            if _name(self._value(rounded)) != "relax.round":
                rounded, added = added, rounded
            found.zero_point = self._floats(added, rank)
            if zero_point is None or not found.zero_point.same(zero_point):
                raise _NoMatchError
            call = self._enter(found, rounded, "relax.round")
        elif zero_point is None:  # symmetric: integers in between make -0.0 and 0.0 the same
            found.zero_point = Vector(np.zeros(1, "int32"), None)
        else:
            raise _NoMatchError  # rounded after the sum: see docs/embedding.md
        assert found.scale is not None
        product = self._enter(found, call.args[0], "relax.multiply", "relax.divide")
        if _name(product) == "relax.divide":
            found.x, scale = product.args
            if not found.scale.same(self._vector(scale, rank)):
                raise _NoMatchError
            self._division(found.scale)
        else:
            for x, inverse in (product.args, reversed(product.args)):
                if shape_of(inverse) is not None and self._is_inverse(inverse, found.scale, rank):
                    found.x = x
                    break
            else:
                raise _NoMatchError
        if dtype_of(found.x) != "float32" or found.x.ty.ndim != rank:
            raise _NoMatchError
        self._check_channels(found)

    def _check_channels(self, found: Found) -> None:
        """Refuse parameters that do not have one element, or one for each channel of one and the same dimension of x.

        Others broadcast x, or each other, to a shape that the operator does not have.
        """
        shape = shape_of(found.x)
        for vector in (found.scale, found.zero_point):
            assert vector is not None
            if vector.axis is None:
                continue
            if shape is None or vector.axis != found.axis:
                raise _NoMatchError
            size = vector.value.size if vector.constant else math.prod(shape_of(vector.value) or (), start=1)
            # a symbolic channel may be as long as a constant is, but no call says so
            if not tvm_ffi.structural_equal(tirx.const(0, "int64") + size, tirx.const(0, "int64") + shape[vector.axis]):
                raise _NoMatchError

    def _is_inverse(self, expr: Any, scale: Vector, rank: int) -> bool:
        """Whether an expression is 1 / scale, rounded once."""
        try:
            inverse = self._vector(expr, rank)
        except _NoMatchError:
            return False
        if inverse.constant:
            if not scale.constant or inverse.axis != scale.axis:
                return False
            with np.errstate(all="ignore"):
                return bool(inverse.value.tobytes() == (np.float32(1) / scale.value).tobytes())
        call = self._value(inverse.value)
        if _name(call) != "relax.divide":
            return False
        one = self._constant(call.args[0])
        if one is None or not (one == 1).all():
            return False
        try:
            divisor = self._vector(call.args[1], rank, scale.axis if len(shape_of(call.args[1]) or ()) <= 1 else None)
        except _NoMatchError:
            return False
        return divisor.same(scale)

    def _division(self, scale: Vector) -> None:
        """Refuse a division that a product with the reciprocal does not equal, unless that was allowed.

        The reciprocal of a power of two is exact while both are normal numbers: quotient and product then are the same
        real number, rounded once.
        """
        if self.allow_reciprocal:
            return
        if not scale.constant:
            raise _NoMatchError
        fraction, exponent = np.frexp(scale.value.astype(np.float32))
        if not (np.isfinite(scale.value) & (np.abs(fraction) == 0.5) & (np.abs(exponent - 1) <= 126)).all():
            raise _NoMatchError

    def _floats(self, expr: Any, rank: int) -> Vector:
        """Read a zero point that is an integer, given in float32."""
        if dtype_of(expr) != "float32":
            raise _NoMatchError
        vector = self._vector(expr, rank)
        if vector.constant:
            return _whole(vector)
        cast = self._value(vector.value)
        if _name(cast) != "relax.astype" or dtype_of(cast.args[0]) not in BOUNDS:
            raise _NoMatchError
        axis = vector.axis if len(shape_of(cast.args[0]) or ()) <= 1 else None
        return self._integers(cast.args[0], rank, axis, (*SMALL, "int32"))  # the operator makes floats of these, too

    def _integers(self, expr: Any, rank: int, axis: int | None = None, dtypes: Any = SMALL) -> Vector:
        """Read a zero point of integers, in one of some dtypes unless it is constant."""
        if dtype_of(expr) not in BOUNDS:
            raise _NoMatchError
        vector = self._vector(expr, rank, axis)
        if vector.constant:
            return _whole(vector)
        cast = self._value(vector.value)
        if _name(cast) == "relax.astype" and dtype_of(cast.args[0]) in SMALL and dtype_of(expr) == "int32":
            return self._integers(cast.args[0], rank, vector.axis if len(shape_of(cast.args[0]) or ()) <= 1 else None)
        if dtype_of(vector.value) not in dtypes:
            raise _NoMatchError
        return vector


MIRRORED = {"relax.greater_equal": "relax.less_equal", "relax.less_equal": "relax.greater_equal"}
CLIPS = ("relax.clip", "relax.minimum", "relax.maximum")


def _whole(vector: Vector) -> Vector:
    """Return a constant as int32; it has to be one, and exact in float32."""
    data = vector.value
    as_float = data.astype(np.float64)
    if not np.isfinite(as_float).all() or (as_float != np.rint(as_float)).any() or (np.abs(as_float) > 2**23).any():
        raise _NoMatchError
    if data.dtype.kind == "f" and (np.signbit(data) & (data == 0)).any():
        raise _NoMatchError
    return Vector(data.astype(np.int32), vector.axis)


def _name(call: Any) -> str:
    return str(call.op.name) if isinstance(call, Call) and isinstance(call.op, Op) else ""


def dtype_of(expr: Any) -> str:
    """Return numpy's name of a tensor's dtype; an empty text where it is not known."""
    found = getattr(expr.ty, "dtype", None)
    return "" if found is None else str(found.dtype)


def shape_of(expr: Any) -> list[Any] | None:
    """Return extents, each an integer or an expression."""
    shape = getattr(expr.ty, "shape", None)
    if not isinstance(shape, relax.ShapeExpr):
        return None
    return [e.value if isinstance(e, tirx.IntImm) else e for e in shape.values]

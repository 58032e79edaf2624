"""What to compute: the identity of a kernel.

Knows dtypes, the loop class and the arithmetic path; knows nothing of extents, addresses, schedules or compilers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from .errors import FqError

FLOATS = ("float32", "float16")
"""What aclnn takes for self, scale and out."""

EXTENDED_FLOATS = (*FLOATS, "bfloat16")
"""What this library takes for them."""

ZERO_POINTS = ("int32",)
"""What aclnn takes for the zero point."""

EXTENDED_ZERO_POINTS = (*ZERO_POINTS, "float32", "float16")
"""What this library takes for it."""

ITERATIONS = ("rows", "lanes", "strided_rows", "strided_lanes")
ARITHMETIC = ("narrow", "wide")

FORMS = ("reciprocal", "division")
PLACEMENTS = ("after", "before")
NANS = ("quant_min", "quant_max")

NARROW_LIMIT = 2**23
"""Largest magnitude of a quantization bound that float32 arithmetic serves: up to here integers and their halves are
exact in float32, so clipping and comparing in float32 equals doing so in integers.  Also of a zero point that may be
taken off the bounds, for the same reason."""

LEAST_SCALE = 6.1e-5
"""What torch makes of scales below, about where float16 becomes subnormal; as a float32."""

NO_SCALE = 0.1
"""What torch makes of scales that are zero, or have no finite reciprocal."""

SUM_LANES, SUM_VECTORS, SUM_BLOCK = (4, 8), 4, 16
"""Of torch's sums: elements of a vector, by CPU; vectors side by side; and additions after which a level ends."""


@dataclass(frozen=True)
class Formula:
    """Which of the formulas in use makes q of an element, where they give different bits.

    Parameters
    ----------
    form : {"reciprocal", "division"}
        ``t = x * (1 / scale)``, two roundings, or ``t = x / scale``, one.
    zero_point_placement : {"after", "before"}, optional
        ``q = rint(t) + zero_point`` or ``q = rint(t + zero_point)``.  By default integers are added after rounding and
        floats before it.
    keep_zero_sign : bool
        Whether a q of -0.0 stays one, and so does what comes of it; else q stands for an integer, which has no negative
        zero.  It makes a difference for a zero point that is added before rounding: a sum after it has no negative zero
        that reaches out.
    nan : {"quant_min", "quant_max"}
        What a NaN is clipped to.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    form: str = "reciprocal"
    zero_point_placement: str | None = None
    keep_zero_sign: bool = False
    nan: str = "quant_min"

    def __post_init__(self) -> None:
        for field, allowed in (
            ("form", FORMS),
            ("zero_point_placement", (None, *PLACEMENTS)),
            ("keep_zero_sign", (False, True)),
            ("nan", NANS),
        ):
            value = getattr(self, field)
            if value not in allowed or isinstance(value, bool) != (field == "keep_zero_sign"):
                raise FqError(f"{field} is {value!r}; expected one of {', '.join(map(str, allowed))}")

    def of(self, zero_point_dtype: str) -> Formula:
        """Return the formula for zero points of a dtype, which says where they are added."""
        placement = self.zero_point_placement or ("after" if zero_point_dtype in ZERO_POINTS else "before")
        return self if placement == self.zero_point_placement else replace(self, zero_point_placement=placement)


CONTRACT = Formula()
"""The formula of aclnn and, for zero points of floats, of PyTorch."""


@dataclass(frozen=True)
class FakeQuantSpec:
    """One kernel of the family, whatever the extents and the quantization range.

    Parameters
    ----------
    iteration : {"rows", "lanes", "strided_rows", "strided_lanes"}
        How the kernel walks memory, see :mod:`fq_tvm.layout`.  *rows*: one channel for each run of the inner loop.
        *lanes*: the inner loop runs over channels, whose parameters were expanded into the workspace.  The strided
        forms take any strides of self, out and mask.
    dtype, scale_dtype, out_dtype : {"float32", "float16", "bfloat16"}
        Element types of self, scale and out.
    zero_point_dtype : {"int32", "float32", "float16"}
        Element type of the zero point.
    arithmetic : {"narrow", "wide"}
        ``"narrow"`` is float32 throughout; ``"wide"`` clips, subtracts and multiplies in float64 and serves
        quantization bounds above ``2**23`` in magnitude.
    form, zero_point_placement, keep_zero_sign, nan
        See :class:`Formula`.  A zero_point_placement of None becomes that of the dtype.
    mask : bool
        Whether there is a second result that tells which elements were in range.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above, or the formula means nothing.

    Examples
    --------
    >>> spec = FakeQuantSpec("rows", "float16", "float32", "float16")
    >>> FakeQuantSpec.from_json(spec.to_json()) == spec
    True
    >>> spec.name
    'fq_rows_f16_f32_i32_f16_narrow'
    """

    operator: ClassVar[str] = "fake_quant"

    iteration: str
    dtype: str = "float32"
    scale_dtype: str = "float32"
    out_dtype: str = "float32"
    zero_point_dtype: str = "int32"
    arithmetic: str = "narrow"
    form: str = "reciprocal"
    zero_point_placement: str | None = None
    keep_zero_sign: bool = False
    nan: str = "quant_min"
    mask: bool = True

    def __post_init__(self) -> None:
        _check_fields(
            self,
            iteration=ITERATIONS,
            dtype=EXTENDED_FLOATS,
            scale_dtype=EXTENDED_FLOATS,
            out_dtype=EXTENDED_FLOATS,
            zero_point_dtype=EXTENDED_ZERO_POINTS,
            arithmetic=ARITHMETIC,
        )
        if not isinstance(self.mask, bool):
            raise FqError(f"FakeQuantSpec.mask is {self.mask!r}; expected True or False")
        placement = self.formula.of(self.zero_point_dtype).zero_point_placement
        object.__setattr__(self, "zero_point_placement", placement)

    @property
    def formula(self) -> Formula:
        """What makes q of an element."""
        return Formula(self.form, self.zero_point_placement, self.keep_zero_sign, self.nan)

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the tensors that are written."""
        return ("out", "mask") if self.mask else ("out",)

    @property
    def lanes(self) -> bool:
        """Whether the inner loop runs over channels, with parameters read from the workspace."""
        return self.iteration.endswith("lanes")

    @property
    def strided(self) -> bool:
        """Whether self, out and mask have strides of their own."""
        return self.iteration.startswith("strided")

    @property
    def wide(self) -> bool:
        """Whether clipping happens in float64."""
        return self.arithmetic == "wide"

    @property
    def nontemporal(self) -> bool:
        """Whether there is code that writes past the caches: where memory limits the kernel."""
        return not self.strided and not self.wide

    @property
    def element_bytes(self) -> int:
        """Bytes that move for each element: of self and out, and one of mask if there is one."""
        return self.mask + sum(4 if dtype == "float32" else 2 for dtype in (self.dtype, self.out_dtype))

    @property
    def float_zero_point(self) -> bool:
        """Whether the zero point need not be an integer."""
        return self.zero_point_dtype not in ZERO_POINTS

    @property
    def parameter_dtype(self) -> str:
        """The dtype that the arithmetic takes the zero point in: its own where float32 would round and float64 not."""
        return "float32" if self.float_zero_point or not self.wide else self.zero_point_dtype

    @property
    def promoted_dtype(self) -> str:
        """The dtype that the product is rounded to first, see :func:`promote`."""
        return promote(self.dtype, self.scale_dtype)

    @property
    def name(self) -> str:
        """A name that states every field, for files, logs and symbols."""
        parts = (self.dtype, self.scale_dtype, self.zero_point_dtype, self.out_dtype)
        short = [p.replace("float", "f").replace("int", "i") for p in parts]
        words = {
            "form": self.form,
            "zero_point_placement": self.zero_point_placement,
            "keep_zero_sign": "signed",
            "nan": "nanmax",
            "mask": "nomask",
        }
        return "_".join(["fq", self.iteration, *short, self.arithmetic, *(str(words[n]) for n in self._particular())])

    def _particular(self) -> dict[str, Any]:
        """The fields of the formula and the results that are not those of the contract."""
        plain = FakeQuantSpec(self.iteration, zero_point_dtype=self.zero_point_dtype)
        names = ("form", "zero_point_placement", "keep_zero_sign", "nan", "mask")
        return {n: getattr(self, n) for n in names if getattr(self, n) != getattr(plain, n)}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that :func:`json.dumps` takes, less what the contract has anyway."""
        names = ("iteration", "dtype", "scale_dtype", "out_dtype", "zero_point_dtype", "arithmetic")
        return {**{name: getattr(self, name) for name in names}, **self._particular()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FakeQuantSpec:
        """Make a specification of what :meth:`to_json` returned.

        Raises
        ------
        FqError
            If a field is unknown or has a value outside its set.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise FqError(f"unknown field of FakeQuantSpec: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if "iteration" not in value:
            raise FqError("FakeQuantSpec needs the field 'iteration'")
        return cls(**value)


@dataclass(frozen=True)
class _Fields:
    """A specification that its fields tell whole."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that :func:`json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class StraightThroughSpec(_Fields):
    """One kernel of the gradient of fake quantization, whatever the extents.

    Parameters
    ----------
    iteration : {"rows", "strided_rows"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`.  There are no channels, so there are no lanes.
    dtype : {"float32", "float16"}
        Element type of both gradients.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "straight_through"
    lanes: ClassVar[bool] = False

    iteration: str
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_fields(self, iteration=("rows", "strided_rows"), dtype=FLOATS)

    @property
    def strided(self) -> bool:
        """Whether the tensors have strides of their own."""
        return self.iteration == "strided_rows"

    @property
    def nontemporal(self) -> bool:
        """Whether there is code that writes past the caches."""
        return not self.strided

    @property
    def out_dtype(self) -> str:
        """Element type of the result."""
        return self.dtype

    @property
    def element_bytes(self) -> int:
        """Bytes that move for each element: of both gradients, and one of mask."""
        return 9 if self.dtype == "float32" else 5

    @property
    def name(self) -> str:
        """A name that states every field, for files, logs and symbols."""
        return f"ste_{self.iteration}_{self.dtype.replace('float', 'f')}"


@dataclass(frozen=True)
class RangeSpec(_Fields):
    """One kernel of the range of channels, whatever the extents.

    Parameters
    ----------
    iteration : {"rows", "lanes", "strided_rows", "strided_lanes"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`.
    dtype : {"float32", "float16", "bfloat16"}
        Element type.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "channel_range"
    nontemporal: ClassVar[bool] = False

    iteration: str
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_fields(self, iteration=ITERATIONS, dtype=EXTENDED_FLOATS)

    @property
    def lanes(self) -> bool:
        """Whether the inner loop runs over channels."""
        return self.iteration.endswith("lanes")

    @property
    def strided(self) -> bool:
        """Whether self has strides of its own."""
        return self.iteration.startswith("strided")

    @property
    def out_dtype(self) -> str:
        """Element type of the results."""
        return self.dtype

    @property
    def element_bytes(self) -> int:
        """Bytes that move for each element."""
        return 4 if self.dtype == "float32" else 2

    @property
    def bits(self) -> int:
        """Bits of an element."""
        return 8 * self.element_bytes

    @property
    def name(self) -> str:
        """A name that states every field, for files, logs and symbols."""
        return f"range_{self.iteration}_{self.dtype.replace('float', 'f')}"


@dataclass(frozen=True)
class LearnableGradientSpec(_Fields):
    """One kernel of the gradient of fake quantization by x, scale and zero point, whatever the extents.

    Parameters
    ----------
    iteration : {"rows", "lanes"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`; here lanes are for a channel that is last.
    dtype : {"float32"}
        Element type of all tensors.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "learnable_gradient"
    strided: ClassVar[bool] = False
    nontemporal: ClassVar[bool] = False
    out_dtype: ClassVar[str] = "float32"
    element_bytes: ClassVar[int] = 12
    """Bytes that move for each element: of x and both gradients."""

    iteration: str
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_fields(self, iteration=("rows", "lanes"), dtype=("float32",))

    @property
    def lanes(self) -> bool:
        """Whether the inner loop runs over channels."""
        return self.iteration == "lanes"

    @property
    def name(self) -> str:
        """A name that states every field, for files, logs and symbols."""
        return f"learnable_{self.iteration}_f32"


@dataclass(frozen=True)
class _SumsOfRows(_Fields):
    """One kernel by rows whose sums have the order of torch's, whatever the extents; subclasses say of what."""

    operator: ClassVar[str]
    stem: ClassVar[str]
    """What the name begins with."""
    lanes: ClassVar[bool] = False
    strided: ClassVar[bool] = False
    nontemporal: ClassVar[bool] = False
    out_dtype: ClassVar[str] = "float32"
    element_bytes: ClassVar[int] = 12
    """Bytes that move for each element: of two tensors that are read, and of the result."""

    iteration: str
    sum_lanes: int = 8
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_fields(self, iteration=("rows",), sum_lanes=SUM_LANES, dtype=("float32",))

    @property
    def name(self) -> str:
        """A name that states every field, for files, logs and symbols."""
        return f"{self.stem}_{self.iteration}_f32_by{self.sum_lanes}"


@dataclass(frozen=True)
class QuotientGradientSpec(_SumsOfRows):
    """One kernel of the gradient of a quotient by a divisor for each channel, whatever the extents.

    Parameters
    ----------
    iteration : {"rows"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`.
    sum_lanes : {4, 8}
        Elements that torch's sum takes at a time, which decides about the order that this one keeps to.
    dtype : {"float32"}
        Element type of all tensors.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "quotient_gradient"
    stem: ClassVar[str] = "quotient"


@dataclass(frozen=True)
class ObservedParametersSpec(_Fields):
    """One kernel of the parameters that follow from an observed range, whatever the number of channels.

    Parameters
    ----------
    iteration : {"lanes"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`.
    symmetric : bool
        Whether a range around zero is made symmetric first, with the zero point in the middle.
    dtype : {"float32"}
        Element type of all tensors but the zero point.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "observed_parameters"
    lanes: ClassVar[bool] = True
    strided: ClassVar[bool] = False
    nontemporal: ClassVar[bool] = False
    out_dtype: ClassVar[str] = "float32"
    element_bytes: ClassVar[int] = 32
    """Bytes that move for each channel: of two bounds, read, of two more, read and written, and of both parameters."""

    iteration: str
    symmetric: bool
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_fields(self, iteration=("lanes",), symmetric=(False, True), dtype=("float32",))

    @property
    def name(self) -> str:
        """A name that states every field, for files, logs and symbols."""
        return f"observed_{'symmetric' if self.symmetric else 'affine'}_f32"


@dataclass(frozen=True)
class FoldedWeightsSpec(_Fields):
    """One kernel of weights that are multiplied by a factor of their channel, observed and fake-quantized.

    Parameters
    ----------
    iteration : {"rows"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`.
    symmetric : bool
        See :class:`ObservedParametersSpec`.
    dtype : {"float32"}
        Element type of all tensors but the mask and the zero point.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "folded_weights"
    lanes: ClassVar[bool] = False
    strided: ClassVar[bool] = False
    nontemporal: ClassVar[bool] = False
    out_dtype: ClassVar[str] = "float32"
    element_bytes: ClassVar[int] = 9
    """Bytes that move for each element: of the weights, the result and the mask."""

    iteration: str
    symmetric: bool
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_fields(self, iteration=("rows",), symmetric=(False, True), dtype=("float32",))

    @property
    def name(self) -> str:
        """A name that states every field, for files, logs and symbols."""
        return f"folded_{self.iteration}_f32_{'symmetric' if self.symmetric else 'affine'}"


@dataclass(frozen=True)
class FoldedWeightsGradientSpec(_SumsOfRows):
    """One kernel of the gradient of such weights, whatever the extents.

    Parameters
    ----------
    iteration : {"rows"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`.
    sum_lanes : {4, 8}
        See :class:`QuotientGradientSpec`.
    dtype : {"float32"}
        Element type of all tensors but the mask.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "folded_weights_gradient"
    stem: ClassVar[str] = "folded_gradient"
    element_bytes: ClassVar[int] = 13
    """Bytes that move for each element: of the weights, what comes in, the mask, and the result."""


@dataclass(frozen=True)
class FoldedNormSpec(_Fields):
    """One kernel of batch norm after what undoes its folding, in training, whatever the extents.

    Parameters
    ----------
    iteration : {"rows"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`.
    dtype : {"float32"}
        Element type of all tensors.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "folded_norm"
    lanes: ClassVar[bool] = False
    strided: ClassVar[bool] = False
    nontemporal: ClassVar[bool] = False
    out_dtype: ClassVar[str] = "float32"
    element_bytes: ClassVar[int] = 12
    """Bytes that move for each element: of what is divided, the quotient and the result."""

    iteration: str
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_fields(self, iteration=("rows",), dtype=("float32",))

    @property
    def name(self) -> str:
        """A name that states every field, for files, logs and symbols."""
        return f"folded_norm_{self.iteration}_f32"


@dataclass(frozen=True)
class FoldedNormGradientSpec(_SumsOfRows):
    """One kernel of the gradient of batch norm after what undoes its folding, whatever the extents.

    Parameters
    ----------
    iteration : {"rows"}
        How the kernel walks memory, as in :class:`FakeQuantSpec`.
    sum_lanes : {4, 8}
        See :class:`QuotientGradientSpec`.
    dtype : {"float32"}
        Element type of all tensors.

    Raises
    ------
    FqError
        If a field holds a value outside the sets above.
    """

    operator: ClassVar[str] = "folded_norm_gradient"
    stem: ClassVar[str] = "folded_norm_gradient"


def _check_fields(spec: Any, **allowed: tuple[Any, ...]) -> None:
    """Refuse a specification of which a field holds a value outside its set."""
    for field, values in allowed.items():
        if (value := getattr(spec, field)) not in values:
            raise FqError(f"{type(spec).__name__}.{field} is {value!r}; expected one of {', '.join(map(str, values))}")


def promote(dtype: str, scale_dtype: str) -> str:
    """Return the dtype that a product of self and scale is rounded to first: theirs if they agree, else float32."""
    return dtype if dtype == scale_dtype else "float32"


def arithmetic_for(quant_min: int, quant_max: int) -> str:
    """Return the arithmetic path that a quantization range asks for."""
    return "narrow" if max(abs(quant_min), abs(quant_max)) <= NARROW_LIMIT else "wide"


def quant_range_scalars(quant_min: int, quant_max: int) -> tuple[float, ...]:
    """Return the range as the scalars that a kernel takes.

    Parameters
    ----------
    quant_min, quant_max : int
        Any int64.

    Returns
    -------
    tuple of float
        ``(low, high)`` for the narrow path, where every bound is exact.  ``(low, high, least, greatest)`` for the wide
        one: the bounds rounded to float64, which clip, and the outermost float64 values inside the range, which
        compare like the integers do.
    """
    low, high = float(quant_min), float(quant_max)
    if arithmetic_for(quant_min, quant_max) == "narrow":
        return low, high
    least = low if int(low) >= quant_min else math.nextafter(low, math.inf)
    greatest = high if int(high) <= quant_max else math.nextafter(high, -math.inf)
    return low, high, least, greatest


def catalogue(*, extensions: bool = False, **given: Any) -> tuple[FakeQuantSpec, ...]:
    """List every kernel that aclnn's contract needs, or those that agree with the given fields.

    Parameters
    ----------
    **given
        Values of fields of :class:`FakeQuantSpec`.  Of those of the dtypes, the class and the path, all specifications
        are listed but for what is given; of the others, those of the contract unless another value is given.
    extensions : bool
        List the kernels of dtypes beyond that contract too, bfloat16 and floats for the zero point.  A given dtype
        that is one of these implies it.

    Returns
    -------
    tuple of FakeQuantSpec
        In an order that does not change between runs.

    Raises
    ------
    FqError
        If there is no such field, or a given value is outside its set.

    Examples
    --------
    >>> len(catalogue()), len(catalogue(extensions=True))
    (64, 648)
    >>> [spec.name for spec in catalogue(iteration="rows", dtype="float32", arithmetic="narrow", mask=False)][0]
    'fq_rows_f32_f32_i32_f32_narrow_nomask'
    >>> len(catalogue(iteration="rows", dtype="bfloat16", scale_dtype="float32", out_dtype="bfloat16"))
    6
    """
    dtypes = {given.get(name, "float32") for name in ("dtype", "scale_dtype", "out_dtype")}
    beyond = not dtypes <= {*FLOATS} or given.get("zero_point_dtype", "int32") not in ZERO_POINTS
    extended = extensions or beyond
    floats, zero_points = (EXTENDED_FLOATS, EXTENDED_ZERO_POINTS) if extended else (FLOATS, ZERO_POINTS)
    sets = {
        "iteration": ITERATIONS,
        "dtype": floats,
        "scale_dtype": floats,
        "out_dtype": floats,
        "zero_point_dtype": zero_points,
        "arithmetic": ARITHMETIC,
    }
    known = [field.name for field in fields(FakeQuantSpec)]
    if unknown := sorted(given.keys() - known):
        raise FqError(f"unknown field of FakeQuantSpec: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    for name, allowed in sets.items():
        if name in given and given[name] not in allowed:
            raise FqError(f"{name} is {given[name]!r}; expected one of {', '.join(allowed)}")
    listed = ((given[name],) if name in given else allowed for name, allowed in sets.items())
    others = {name: value for name, value in given.items() if name not in sets}
    return tuple(FakeQuantSpec(*values, **others) for values in itertools.product(*listed))


def straight_through_catalogue() -> tuple[StraightThroughSpec, ...]:
    """List every kernel of the gradient."""
    return tuple(StraightThroughSpec(i, dtype) for i in ("rows", "strided_rows") for dtype in FLOATS)


def range_catalogue(extensions: bool = False) -> tuple[RangeSpec, ...]:
    """List every kernel of the range; that of bfloat16 is one of the extensions."""
    dtypes = EXTENDED_FLOATS if extensions else FLOATS
    return tuple(RangeSpec(iteration, dtype) for iteration in ITERATIONS for dtype in dtypes)


def learnable_gradient_catalogue() -> tuple[LearnableGradientSpec, ...]:
    """List every kernel of the gradient by x, scale and zero point."""
    return tuple(LearnableGradientSpec(iteration) for iteration in ("rows", "lanes"))


def quotient_gradient_catalogue() -> tuple[QuotientGradientSpec, ...]:
    """List every kernel of the gradient of a quotient."""
    return tuple(QuotientGradientSpec("rows", lanes) for lanes in SUM_LANES)


def observed_parameters_catalogue() -> tuple[ObservedParametersSpec, ...]:
    """List every kernel of the parameters of an observed range."""
    return tuple(ObservedParametersSpec("lanes", symmetric) for symmetric in (False, True))


def folded_weights_catalogue() -> tuple[FoldedWeightsSpec, ...]:
    """List every kernel of folded weights."""
    return tuple(FoldedWeightsSpec("rows", symmetric) for symmetric in (False, True))


def folded_weights_gradient_catalogue() -> tuple[FoldedWeightsGradientSpec, ...]:
    """List every kernel of the gradient of folded weights."""
    return tuple(FoldedWeightsGradientSpec("rows", lanes) for lanes in SUM_LANES)


def folded_norm_catalogue() -> tuple[FoldedNormSpec, ...]:
    """List every kernel of batch norm after a quotient."""
    return (FoldedNormSpec("rows"),)


def folded_norm_gradient_catalogue() -> tuple[FoldedNormGradientSpec, ...]:
    """List every kernel of the gradient of batch norm after a quotient."""
    return tuple(FoldedNormGradientSpec("rows", lanes) for lanes in SUM_LANES)

"""The operators of the family, each as one value: what code generation, cache, launch and bench are given of it.

Nothing that works for every operator asks which one it has; a new one is registered and touches none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .entry_points import (
    EntryPoints,
    fake_quant_entry_points,
    folded_norm_entry_points,
    folded_norm_gradient_entry_points,
    folded_weights_entry_points,
    folded_weights_gradient_entry_points,
    learnable_gradient_entry_points,
    observed_parameters_entry_points,
    quotient_gradient_entry_points,
    range_entry_points,
    straight_through_entry_points,
)
from .errors import FqError
from .reference import (
    channel_range,
    fake_quant,
    folded_norm,
    folded_norm_gradient,
    folded_weights,
    folded_weights_gradient,
    learnable_gradient,
    observed_parameters,
    quotient_gradient,
    straight_through,
)
from .spec import (
    FakeQuantSpec,
    FoldedNormGradientSpec,
    FoldedNormSpec,
    FoldedWeightsGradientSpec,
    FoldedWeightsSpec,
    LearnableGradientSpec,
    ObservedParametersSpec,
    QuotientGradientSpec,
    RangeSpec,
    StraightThroughSpec,
    catalogue,
    folded_norm_catalogue,
    folded_norm_gradient_catalogue,
    folded_weights_catalogue,
    folded_weights_gradient_catalogue,
    learnable_gradient_catalogue,
    observed_parameters_catalogue,
    quotient_gradient_catalogue,
    range_catalogue,
    straight_through_catalogue,
)


@dataclass(frozen=True)
class Operator:
    """An operator with one channel dimension.

    Parameters
    ----------
    name : str
        A part of the identity of its kernels.
    spec : type
        A frozen dataclass whose values are its kernels.  It has the fields or properties ``iteration``, ``strided``,
        ``lanes``, ``name``, ``element_bytes``, ``out_dtype`` and ``nontemporal``, the class attribute ``operator``,
        which is the name above, and ``to_json``, as :class:`~fq_tvm.spec.FakeQuantSpec` has them.
    entry_points : callable
        ``entry_points(spec) -> EntryPoints``.
    functions : str
        ``"module:function"`` of what states the computation to TVM, ``function(spec, schedule)``, see
        :func:`fq_tvm.codegen.functions.state`.  The module is imported when a kernel is built, not before.
    reference : callable
        The operator in numpy.
    catalogue : callable
        Lists its kernels.
    """

    name: str
    spec: type
    entry_points: Callable[[Any], EntryPoints]
    functions: str
    reference: Callable[..., Any]
    catalogue: Callable[..., tuple[Any, ...]]


FAKE_QUANT = Operator(
    FakeQuantSpec.operator,
    FakeQuantSpec,
    fake_quant_entry_points,
    "fq_tvm.codegen.functions:state",
    fake_quant,
    catalogue,
)
"""Fake quantization with its mask, per channel or per tensor."""

STRAIGHT_THROUGH = Operator(
    StraightThroughSpec.operator,
    StraightThroughSpec,
    straight_through_entry_points,
    "fq_tvm.codegen.functions:state_straight_through",
    straight_through,
    straight_through_catalogue,
)
"""Its gradient, which goes straight through where the mask is true."""

CHANNEL_RANGE = Operator(
    RangeSpec.operator,
    RangeSpec,
    range_entry_points,
    "fq_tvm.codegen.ranges:state",
    channel_range,
    range_catalogue,
)
"""The least and greatest element of each channel."""

LEARNABLE_GRADIENT = Operator(
    LearnableGradientSpec.operator,
    LearnableGradientSpec,
    learnable_gradient_entry_points,
    "fq_tvm.codegen.learnable:state",
    learnable_gradient,
    learnable_gradient_catalogue,
)
"""The gradient by x, scale and zero point, where these are learned."""

QUOTIENT_GRADIENT = Operator(
    QuotientGradientSpec.operator,
    QuotientGradientSpec,
    quotient_gradient_entry_points,
    "fq_tvm.codegen.quotient:state",
    quotient_gradient,
    quotient_gradient_catalogue,
)
"""The gradient of a quotient by a divisor for each channel, which undoes the folding of batch norm."""

OBSERVED_PARAMETERS = Operator(
    ObservedParametersSpec.operator,
    ObservedParametersSpec,
    observed_parameters_entry_points,
    "fq_tvm.codegen.observed:state",
    observed_parameters,
    observed_parameters_catalogue,
)
"""Moving averages of the range of each channel, and the scale and zero point that follow."""

FOLDED_WEIGHTS = Operator(
    FoldedWeightsSpec.operator,
    FoldedWeightsSpec,
    folded_weights_entry_points,
    "fq_tvm.codegen.folded:state",
    folded_weights,
    folded_weights_catalogue,
)
"""Weights with batch norm folded into them: multiplied by a factor of their channel, observed and fake-quantized."""

FOLDED_WEIGHTS_GRADIENT = Operator(
    FoldedWeightsGradientSpec.operator,
    FoldedWeightsGradientSpec,
    folded_weights_gradient_entry_points,
    "fq_tvm.codegen.folded:state_gradient",
    folded_weights_gradient,
    folded_weights_gradient_catalogue,
)
"""Their gradient, by the weights and by batch norm's factor."""

FOLDED_NORM = Operator(
    FoldedNormSpec.operator,
    FoldedNormSpec,
    folded_norm_entry_points,
    "fq_tvm.codegen.folded_norm:state",
    folded_norm,
    folded_norm_catalogue,
)
"""Batch norm in training, after the quotient that undoes its folding."""

FOLDED_NORM_GRADIENT = Operator(
    FoldedNormGradientSpec.operator,
    FoldedNormGradientSpec,
    folded_norm_gradient_entry_points,
    "fq_tvm.codegen.folded_norm_gradient:state",
    folded_norm_gradient,
    folded_norm_gradient_catalogue,
)
"""The gradient of both, by what was divided, the divisor, and batch norm's weight and bias."""

OPERATORS = (
    FAKE_QUANT,
    STRAIGHT_THROUGH,
    CHANNEL_RANGE,
    LEARNABLE_GRADIENT,
    QUOTIENT_GRADIENT,
    OBSERVED_PARAMETERS,
    FOLDED_WEIGHTS,
    FOLDED_WEIGHTS_GRADIENT,
    FOLDED_NORM,
    FOLDED_NORM_GRADIENT,
)
"""Those of this library."""

_operators = {operator.name: operator for operator in OPERATORS}


def register(operator: Operator) -> None:
    """Make an operator known, so that kernels of its specifications can be built.

    Raises
    ------
    FqError
        If another one has its name.
    """
    if _operators.setdefault(operator.name, operator) != operator:
        raise FqError(f"there is another operator called {operator.name!r}; give this one another name")


def spec_of(operator: str, fields: Mapping[str, Any]) -> Any:
    """Return the specification that an operator's name and its fields, as of ``to_json``, stand for.

    Raises
    ------
    FqError
        If there is no such operator, or a field is unknown or has a value outside its set.
    """
    if operator not in _operators:
        raise FqError(f"there is no operator {operator!r}; expected one of {', '.join(_operators)}")
    try:
        return _operators[operator].spec(**fields)
    except TypeError as error:
        raise FqError(f"no specification of {operator}: {error}") from None


def operator_of(spec: Any) -> Operator:
    """Return the operator of a specification.

    Raises
    ------
    FqError
        If it is that of no operator.
    """
    operator = _operators.get(getattr(spec, "operator", ""))
    if operator is None or not isinstance(spec, operator.spec):
        raise FqError(f"{spec!r} specifies no kernel; expected one of {', '.join(_operators)}")
    return operator

"""Reads a function whose every stage is element-wise, and states each result as one expression.

What TVM's FuseOps and FuseTIR make of an operator and its neighbors has such stages, with a buffer between each two.
Knows no operator and no schedule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Call, Op, TensorLoad

from ..codegen.vector_loops import replace

MOST_LOADS = 64
"""Loads in the expression of one element, above which a function is not read: a stage that reads another twice doubles
what it reads, and so on."""

GUARD = "fq_tvm.rounded"
"""A call that stands for its argument until it is decided what is put there."""


@dataclass(frozen=True)
class Elementwise:
    """A function without a loop: what it writes to an element of each result.

    Parameters
    ----------
    index : tuple of Var
        One variable for each dimension of the results, which have the same shape.
    shape : tuple of int or Expr
        Of the results.
    values : dict
        The value of each result's buffer at index, made of loads from parameters.
    annotations : list
        Those of the stages that have any.
    """

    index: tuple[Any, ...]
    shape: tuple[Any, ...]
    values: dict[Any, Any]
    annotations: list[Any]


def read(func: tirx.PrimFunc) -> Elementwise | None:
    """Read a function.

    Parameters
    ----------
    func : tirx.PrimFunc
        Not scheduled.

    Returns
    -------
    Elementwise or None
        None where a stage reduces, does not write each element once and where its loops are, or where results have
        different shapes.

    Notes
    -----
    A stage that TVM keeps rounds what it writes to its buffer.  In one expression TVM lets LLVM contract a product and
    a sum, and cancels what is added and subtracted.  So what moves into the sum of another stage is kept apart from it
    where that could be, see :func:`_settle`: the bits are those of the stages.
    """
    stages: dict[Any, tuple[list[Any], Any]] = {}
    annotations: list[Any] = []
    understood = True

    def collect(realize: s_tir.SBlockRealize) -> None:
        nonlocal understood
        block, store = realize.block, realize.block.body
        if block.same_as(func.body.block):
            return
        annotations.extend([block.annotations] if block.annotations else [])
        whole = isinstance(store, tirx.BufferStore) and block.init is None and store.buffer not in stages
        # What has no dimensions has a loop of one iteration.
        variables = [iteration.var for iteration in block.iter_vars] if not whole or store.indices else []
        whole = whole and all(iteration.iter_type == tirx.IterVar.DataPar for iteration in block.iter_vars)
        whole = whole and len(variables) == len(store.indices) and not store.buffer.ty.strides
        whole = whole and all(a.same_as(b) for a, b in zip(variables, store.indices, strict=True))
        if not whole or not all(isinstance(value, tirx.Var) for value in realize.iter_values[: len(variables)]):
            understood = False
            return
        stages[store.buffer] = variables, store.value

    if not isinstance(func.body, s_tir.SBlockRealize):
        return None
    tvm_ffi.structural_walk(func.body, (s_tir.SBlockRealize, collect))
    results = [param for param in func.params if param in stages]
    if not understood or not results or max(_loads(stages, buffer, {}) for buffer in results) > MOST_LOADS:
        return None
    shape = tuple(results[0].shape)
    if not all(tvm_ffi.structural_equal(tuple(result.shape), shape) for result in results):
        return None
    index = tuple(tirx.Var(f"i{d}", "int64") for d in range(len(shape)))
    guarded = {buffer: (variables, _guard(value, stages)) for buffer, (variables, value) in stages.items()}
    values = {result: _settle(_inline(guarded, result, index)) for result in results}
    return Elementwise(index, shape, values, annotations)


def _loads(stages: dict[Any, Any], buffer: Any, known: dict[Any, int]) -> int:
    """Count the loads in the value of a stage when all others are inlined."""
    if buffer not in stages:
        return 1
    if buffer not in known:
        found: list[Any] = []
        tvm_ffi.structural_walk(stages[buffer][1], (TensorLoad, found.append))
        known[buffer] = sum(_loads(stages, load.source, known) for load in found)
    return known[buffer]


def _inline(stages: dict[Any, tuple[list[Any], Any]], buffer: Any, indices: Sequence[Any]) -> Any:
    variables, value = stages[buffer]

    def load(given: TensorLoad) -> Any:
        return _inline(stages, given.source, given.indices) if given.source in stages else given

    value = replace(value, dict(zip(variables, indices, strict=True)))
    return tvm_ffi.structural_map(value, (TensorLoad, load), order="post")


def _guard(value: Any, stages: dict[Any, Any]) -> Any:
    """Mark what a sum reads of other stages."""

    def side(operand: Any, difference: bool) -> Any:
        if not any(isinstance(part, TensorLoad) and part.source in stages for part in _parts(operand)):
            return operand
        return tirx.call_pure_extern(str(operand.ty.dtype), GUARD, operand, difference)

    def add(node: Any) -> Any:
        difference = isinstance(node, tirx.Sub)
        return type(node)(side(node.a, difference), side(node.b, difference)) if _is_float(node) else node

    return tvm_ffi.structural_map(value, [(tirx.Add, add), (tirx.Sub, add)], order="post")


def _settle(value: Any) -> Any:
    """Put a choice between two equal values in the place of what is marked and may be a product, or cancel out.

    Both are the value itself: twice a NaN is that NaN.  LLVM contracts nothing with a choice, and TVM, to which
    ``(x + y) - y`` is x, does not look into one.  (``llvm.canonicalize`` would say it in one operation, but TVM's
    just-in-time compiler ends the process at it.)
    """
    cancels = (tirx.Sub,), (tirx.Add, tirx.Sub)

    def call(node: Any) -> Any:
        if _name(node) != "tirx.call_pure_extern" or str(node.args[0].value) != GUARD:
            return node
        rounded, kinds = node.args[1], cancels[int(node.args[2])]
        if not any(_is_product(part) or isinstance(part, kinds) for part in _parts(rounded)):
            return rounded
        return tirx.Select(rounded <= tirx.const(math.inf, rounded.ty.dtype), rounded, rounded + rounded)

    return tvm_ffi.structural_map(value, (Call, call), order="post")


def _parts(value: Any) -> list[Any]:
    """What a value may be as it is, behind choices and conversions."""
    if isinstance(value, (tirx.Min, tirx.Max)):
        return [*_parts(value.a), *_parts(value.b)]
    if isinstance(value, tirx.Select):
        return [*_parts(value.true_value), *_parts(value.false_value)]
    if _name(value) == "prim.if_then_else":
        return [*_parts(value.args[1]), *_parts(value.args[2])]
    return _parts(value.value) if isinstance(value, tirx.Cast) else [value]


def _is_product(value: Any) -> bool:
    """Whether LLVM may make a product of it: of a quotient, or a function such as a power, too."""
    return _is_float(value) and isinstance(value, (tirx.Mul, tirx.Div, Call)) and _name(value) != "tirx.fma"


def _name(value: Any) -> str:
    return str(value.op.name) if isinstance(value, Call) and isinstance(value.op, Op) else ""


def _is_float(value: Any) -> bool:
    return "float" in str(value.ty.dtype)

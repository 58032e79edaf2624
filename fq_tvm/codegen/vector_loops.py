"""Innermost loops, taken apart: what TVM's schedules do not do, done to a scheduled function.

Knows nothing of the operator: any function will do whose innermost loops go along neighboring elements of its results,
and each element of which is made of the same element of ``self`` and of what does not change in the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi
from tvm import s_tir, te, tirx

PIECE = 16
"""Elements of a piece: a vector of float32 of AVX-512.  Lesser CPUs take several for it."""

BYTE_OFFSET, INT64_ELEMENT = 8, 17
"""Fields of ``tvm_struct_get``: of a DLTensor, and of what is read as an array of int64.  TVM has no expression for the
bits of a pointer; that of a DLTensor to its data is the first eight bytes of it."""


def in_pieces(func: tirx.PrimFunc, results: Sequence[str] = ()) -> tirx.PrimFunc:
    """Let short innermost loops go in whole vectors, of which the last overlaps the one before.

    LLVM does what is left of a loop by single elements, up to seven of them or fifteen, each of which costs about half
    as much as a vector.  An element that two vectors have is computed and written twice, the same.

    Parameters
    ----------
    func : tirx.PrimFunc
        Scheduled, with ``self`` and the results as handles where some are given.
    results : sequence of str
        The tensors that it writes and that may lie on self.

    Returns
    -------
    tirx.PrimFunc
        It computes the same.  Loops shorter than a vector stay as they are, and all of them where a result lies on
        self: the second vector would take for x what the first one wrote.
    """
    tensors = {param.name: param for param in func.params}
    apart = te.var("apart", "bool") if results else tirx.const(True, "bool")

    def divide(loop: tirx.For) -> tirx.For | tirx.SeqStmt:
        if loops_of(loop.body, tirx.ForKind.SERIAL):
            return loop
        bind = Bindings()
        extent = bind("extent", loop.extent)
        body = inline_blocks(loop.body, [loop.loop_var], bind)
        count = shift(extent + (PIECE - 1), PIECE)
        pieces = vectors(body, loop.loop_var, lambda i: tirx.min(i * PIECE, extent - PIECE), count, PIECE)
        plain = tirx.For(loop.loop_var, int64(0), extent, tirx.ForKind.SERIAL, body)
        return tirx.SeqStmt([*bind, tirx.IfThenElse(tirx.all(apart, extent >= PIECE), pieces, plain)])

    # No block remains, so none is needed around all of them.
    body = tvm_ffi.structural_map(func.body.block.body, (tirx.For, divide), order="post")
    if not results:
        return func.with_body(body)
    condition = tirx.all(*(tirx.NE(start(tensors[name]), start(tensors["self"])) for name in results))
    return func.with_body(tirx.SeqStmt([tirx.Bind(apart, condition), body]))


def in_blocks(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Let unrolled loops whose extent only the run will tell have all their iterations, or none.

    Parameters
    ----------
    func : tirx.PrimFunc
        Scheduled.  The extent of an unrolled innermost loop is the least of a constant and of what is left.

    Returns
    -------
    tirx.PrimFunc
        It computes the same: where less is left than the constant, each iteration goes along the whole loop around it.
    """

    def divide(loop: tirx.For) -> tirx.For | tirx.SeqStmt:
        inside = loop.body
        if not isinstance(inside, tirx.For) or inside.kind != tirx.ForKind.UNROLLED or not _is_least(inside.extent):
            return loop
        bind = Bindings()
        block, left = inside.extent.a, bind("left", inside.extent.b)
        extent = bind("extent", loop.extent)
        body = inline_blocks(inside.body, [loop.loop_var, inside.loop_var], bind)
        unrolled = tirx.For(inside.loop_var, inside.min, block, inside.kind, body)
        whole = tirx.For(loop.loop_var, loop.min, extent, loop.kind, unrolled)
        number, at = te.var(inside.loop_var.name, "int64"), te.var(loop.loop_var.name, "int64")
        body = replace(body, {inside.loop_var: number, loop.loop_var: at})
        single = tirx.For(at, loop.min, extent, loop.kind, body)
        each = tirx.For(number, inside.min, left, tirx.ForKind.SERIAL, single)
        return tirx.SeqStmt([*bind, tirx.IfThenElse(left >= block, whole, each)])

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, divide), order="post"))


def _is_least(extent: Any) -> bool:
    return isinstance(extent, tirx.Min) and isinstance(extent.a, tirx.IntImm)


def vectors(body: Any, variable: Any, begin: Callable[[Any], Any], count: Any, lanes: int) -> tirx.For:
    """Do the body of a loop in vectors.

    Parameters
    ----------
    body : Stmt
        Of the loop.
    variable : Var
        Of the loop.
    begin : callable
        The loop variable's first value in a vector, by the vector's number.
    count, lanes : Expr, int
        Number of vectors, and of elements of one.

    Returns
    -------
    tirx.For
    """
    number, lane = te.var("vector", "int64"), te.var(variable.name, "int64")
    body = replace(body, {variable: begin(number) + lane})
    vector = tirx.For(lane, int64(0), int64(lanes), tirx.ForKind.VECTORIZED, body)
    return tirx.For(number, int64(0), count, tirx.ForKind.SERIAL, vector)


class Bindings(list[Any]):
    """Variables bound before a loop.

    TIR's analyzer may not look into their values: it would put what a variable is bound to in the place of every use,
    those of the variables therein as well, and simplify that for seconds.
    """

    def __call__(self, name: str, value: Any) -> Any:
        """Bind one more to a value that is not negative."""
        variable = te.var(name, "int64")
        hidden = tirx.call_llvm_intrin("int64", "llvm.abs.i64", value, tirx.const(False, "bool"))
        self.append(tirx.Bind(variable, hidden))
        return variable


def inline_blocks(body: Any, variables: list[Any], bind: Bindings) -> Any:
    """Put the bodies of blocks in their place, and compute where the loop is once, before it.

    Each coordinate of a block is something that does not change in the loop, and perhaps a loop variable.
    """
    named: dict[Any, Any] = {}

    def name(value: Any) -> Any:
        key = tvm_ffi.StructuralKey(value)  # type: ignore[call-arg]
        if key not in named:
            moving = [v for v in variables if any(v.same_as(u) for u in tirx.analysis.undefined_vars(value, []))]
            named[key] = sum(moving, bind(f"i{len(named)}", replace(value, dict.fromkeys(variables, int64(0)))))
        return named[key]

    def inline(realize: s_tir.SBlockRealize) -> Any:
        coordinates = zip(realize.block.iter_vars, realize.iter_values, strict=True)
        return replace(realize.block.body, {at.var: name(value) for at, value in coordinates})

    return tvm_ffi.structural_map(body, (s_tir.SBlockRealize, inline), order="post")


def with_block_body(realize: Any, body: Any) -> Any:
    """Give the root block of a function another body."""
    block = realize.block
    kept = {name: getattr(block, name) for name in type(block).__annotations__ if name != "body"}
    return type(realize)(realize.iter_values, realize.predicate, type(block)(body=body, **kept))


def shift(value: Any, power: int) -> Any:
    """Divide a value that is not negative by a power of two."""
    return tirx.shift_right(value, int64(power.bit_length() - 1))


def loops_of(stmt: Any, kind: int) -> list[Any]:
    """Find the loops of a kind in a statement."""
    found: list[Any] = []
    tvm_ffi.structural_walk(stmt, (tirx.For, lambda loop: found.append(loop) if loop.kind == kind else None))
    return found


def replace(node: Any, values: dict[Any, Any]) -> Any:
    """Replace variables."""
    return tvm_ffi.structural_map(node, (tirx.Var, lambda v: values.get(v, v)), order="post")


def int64(value: int) -> Any:
    """Return a constant."""
    return tirx.const(value, "int64")


def start(tensor: Any) -> Any:
    """Return the address of a tensor's first element."""
    data = tirx.tvm_struct_get(tensor, 0, INT64_ELEMENT, "int64")
    return data + tirx.tvm_struct_get(tensor, 0, BYTE_OFFSET, "uint64").astype("int64")

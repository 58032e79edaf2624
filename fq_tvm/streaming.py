"""Results written past the caches: the loops of a kernel for tensors that no cache holds.

A store to memory that is not in a cache makes the CPU read the whole line first, so a kernel that reads x and writes
out and mask moves 14 bytes for each element of float32, where 9 would do.  A non-temporal store of a whole line
moves that line alone.  It wants lines: so each innermost loop becomes three, a head up to the next line, blocks of
whole lines, and a tail.  TVM cannot ask LLVM for such a store, so the blocks are vectors of a length that nothing else
has, and their stores are marked in the text of the LLVM IR.

Knows nothing of the operator: any function with the tensors ``out`` and ``mask`` will do.
"""

from __future__ import annotations

import re
from typing import Any

import tvm_ffi
from tvm import s_tir, te, tirx

__all__ = ["BLOCK", "mark", "past_caches"]

LINE = 64
"""Bytes of a line of the caches."""

BLOCK = LINE
"""Elements of a block: a line of mask, whose elements have one byte, and so whole lines of out."""

PIECE = 16
"""Elements that are stored at once where no whole block is left: a vector of float32 of AVX-512."""

BYTE_OFFSET, INT64_ELEMENT = 8, 17
"""Fields of ``tvm_struct_get``: of a DLTensor, and of what is read as an array of int64.  TVM has no expression for the
bits of a pointer; that of a DLTensor to its data is the first eight bytes of it."""


def past_caches(func: tirx.PrimFunc, pieces: bool) -> tirx.PrimFunc:
    """Let blocks of whole lines be written past the caches, where out and mask begin with a line.

    Parameters
    ----------
    func : tirx.PrimFunc
        Scheduled and parallel, with the tensors ``self``, ``out`` and ``mask`` as handles.  Each innermost loop goes
        along neighbouring elements of both outputs.
    pieces : bool
        Whether a loop may begin within a line; else it is left alone there.

    Returns
    -------
    tirx.PrimFunc
        It computes the same.  Where out or mask begins elsewhere, or out lies on self, whose lines are in a cache by
        then, everything is head.
    """
    tensors = {param.name: param for param in func.params}
    whole = te.var("whole_lines", "bool")

    def divide(loop: tirx.For) -> tirx.For | tirx.SeqStmt:
        if loop.kind == tirx.ForKind.UNROLLED or _loops(loop.body, tirx.ForKind.SERIAL):
            return loop
        return _divide(loop, whole, pieces)

    def finish(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        # Orders what was written past the caches before what the thread writes next: that its task is done.
        fence = tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.x86.sse.sfence"))
        body = tirx.SeqStmt([loop.body, fence])
        return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, annotations=loop.annotations)

    # No block remains, so none is needed around all of them.
    body = tvm_ffi.structural_map(func.body.block.body, (tirx.For, divide), order="post")
    body = tvm_ffi.structural_map(body, (tirx.For, finish), order="post")
    out, mask = tensors["out"], tensors["mask"]
    start = _address(out)
    bits = start | _address(mask) | _offset(out) | _offset(mask)
    condition = tirx.all(tirx.EQ(bits & _int(LINE - 1), _int(0)), tirx.NE(start, _address(tensors["self"])))
    return func.with_body(tirx.SeqStmt([tirx.Bind(whole, condition), body]))


def _divide(loop: tirx.For, whole: Any, pieces: bool) -> tirx.SeqStmt:
    """Divide an innermost loop; the loops that are unrolled within it stay there.

    What is left of a block at either end is done in pieces, whole vectors that overlap each other or a block where the
    end is no multiple of them: the same values are written twice, which costs less than a loop over single elements.
    Both come before the blocks, since a line that is on its way to memory would have to be read again.
    """
    bound: list[Any] = []

    def bind(name: str, value: Any) -> Any:
        bound.append(tirx.Bind(variable := te.var(name, "int64"), _opaque(value)))
        return variable

    variables = [loop.loop_var, *(inside.loop_var for inside in _loops(loop.body, tirx.ForKind.UNROLLED))]
    extent = bind("extent", loop.extent)
    body = _inline_blocks(loop.body, variables, bind)
    stores: list[Any] = []
    tvm_ffi.structural_walk(body, (tirx.BufferStore, stores.append))
    mask = next(store for store in stores if store.buffer.dtype == "bool")
    first = bind("first", _element(mask, variables, [0] * len(variables)))
    # Stores that are unrolled side by side are blocks together if they are whole blocks apart.
    apart = [_element(mask, variables, [v is u for v in variables]) - first for u in variables[1:]]
    divided = [whole, extent >= BLOCK, *(_is_whole(a) for a in apart), *([] if pieces else [_is_whole(first)])]

    def along(begin: Any, count: Any, kind: int = tirx.ForKind.SERIAL) -> tirx.For:
        index = te.var(loop.loop_var.name, "int64")
        return tirx.For(index, _int(0), count, kind, _replace(body, {loop.loop_var: begin + index}))

    def vectors(begin: Any, step: int, count: Any, lanes: int) -> tirx.For:
        index = te.var("vector", "int64")
        body = along(begin + index * step, _int(lanes), tirx.ForKind.VECTORIZED)
        return tirx.For(index, _int(0), count, tirx.ForKind.SERIAL, body)

    if not pieces:
        blocks = bind("blocks", tirx.Select(tirx.all(*divided), _shift(extent, BLOCK), _int(0)))
        plain = along(blocks * BLOCK, extent - blocks * BLOCK)
        return tirx.SeqStmt([*bound, plain, vectors(_int(0), BLOCK, blocks, BLOCK)])
    plain = bind("plain", tirx.Select(tirx.all(*divided), _int(0), extent))
    head = bind("head", tirx.Select(tirx.EQ(plain, _int(0)), -first & _int(BLOCK - 1), extent))
    blocks = bind("blocks", _shift(extent - head, BLOCK))
    rest = extent - head - blocks * BLOCK
    return tirx.SeqStmt(
        [
            *bound,
            along(_int(0), plain),
            vectors(_int(0), PIECE, _shift(head - plain + (PIECE - 1), PIECE), PIECE),
            vectors(extent - PIECE, -PIECE, _shift(rest + (PIECE - 1), PIECE), PIECE),
            vectors(head, BLOCK, blocks, BLOCK),
        ]
    )


def _inline_blocks(body: Any, variables: list[Any], bind: Any) -> Any:
    """Put the bodies of blocks in their place, and compute where the loop is once, before it.

    Each coordinate of a block is something that does not change in the loop, and perhaps a loop variable.
    """
    named: list[tuple[Any, Any]] = []

    def name(value: Any) -> Any:
        new = next((new for old, new in named if tvm_ffi.structural_equal(value, old)), None)
        if new is None:
            moving = [v for v in variables if any(v.same_as(u) for u in tirx.analysis.undefined_vars(value, []))]
            new = sum(moving, bind(f"i{len(named)}", _replace(value, dict.fromkeys(variables, _int(0)))))
            named.append((value, new))
        return new

    def inline(realize: s_tir.SBlockRealize) -> Any:
        coordinates = zip(realize.block.iter_vars, realize.iter_values, strict=True)
        return _replace(realize.block.body, {at.var: name(value) for at, value in coordinates})

    return tvm_ffi.structural_map(body, (s_tir.SBlockRealize, inline), order="post")


def _opaque(value: Any) -> Any:
    """Return a value that is not negative for TIR's analyser not to look into.

    It would put what a variable is bound to in the place of every use, those of the variables therein as well, and
    simplify that for seconds.
    """
    return tirx.call_llvm_intrin("int64", "llvm.abs.i64", value, tirx.const(False, "bool"))


def _shift(value: Any, power: int) -> Any:
    return tirx.shift_right(value, _int(power.bit_length() - 1))


def _is_whole(elements: Any) -> Any:
    return tirx.EQ(elements & _int(BLOCK - 1), _int(0))


def _loops(stmt: Any, kind: int) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(stmt, (tirx.For, lambda loop: found.append(loop) if loop.kind == kind else None))
    return found


def _element(store: Any, variables: list[Any], values: list[Any]) -> Any:
    """Where a store to a dense buffer goes, in elements of its tensor, for some values of loop variables."""
    at: Any = _int(0)
    given = {variable: _int(int(value)) for variable, value in zip(variables, values, strict=True)}
    for extent, index in zip(store.buffer.shape, store.indices, strict=True):
        at = at * extent + _replace(index, given)
    return store.buffer.elem_offset + at


def _replace(node: Any, values: dict[Any, Any]) -> Any:
    return tvm_ffi.structural_map(node, (tirx.Var, lambda v: values.get(v, v)), order="post")


def _int(value: int) -> Any:
    return tirx.const(value, "int64")


def _address(tensor: Any) -> Any:
    return tirx.tvm_struct_get(tensor, 0, INT64_ELEMENT, "int64")


def _offset(tensor: Any) -> Any:
    return tirx.tvm_struct_get(tensor, 0, BYTE_OFFSET, "uint64").astype("int64")


_STORE = re.compile(rf"(store <{BLOCK} x (float|half|i16|i8)> [^\n]*?), align \d+")


def mark(ll: str) -> str:
    """Mark the stores of blocks in LLVM IR as non-temporal and aligned to lines.

    Parameters
    ----------
    ll : str
        Optimised code of functions, some of which :func:`past_caches` made.

    Returns
    -------
    str
    """
    node = max((int(n) for n in re.findall(r"^!(\d+) = ", ll, re.MULTILINE)), default=0) + 1
    marked, count = _STORE.subn(lambda m: f"{m[1]}, align {LINE}, !nontemporal !{node}", ll)
    return f"{marked}\n!{node} = !{{i32 1}}\n" if count else ll

"""Results written past the caches: the loops of a kernel for tensors that no cache holds.

A store to memory that is not in a cache makes the CPU read the whole line first, so a kernel that reads x and writes
out and mask moves 14 bytes for each element of float32, where 9 would do.  A non-temporal store of a whole line
moves that line alone.  It wants lines: so each innermost loop becomes three, a head up to the next line, blocks of
whole lines, and a tail.  TVM cannot ask LLVM for such a store, so the blocks are vectors of a length that nothing else
has, and their stores are marked in the text of the LLVM IR.

Knows nothing of the operator: any function will do that writes the same element of each of its results.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

import tvm_ffi
from tvm import te, tirx

from .vector_loops import (
    PIECE,
    Bindings,
    inline_blocks,
    int64,
    loops_of,
    replace,
    shift,
    start,
    vectors,
    with_block_body,
)

LINE = 64
"""Bytes of a line of the caches."""

FENCES: dict[str, tuple[Any, ...]] = {"x86_64": ("llvm.x86.sse.sfence",), "aarch64": ("llvm.aarch64.dmb", 10)}
"""By architecture, what orders earlier stores before later ones: sfence; dmb ishst, which is number 10."""

BLOCK = LINE
"""Elements of a block: a line of a result of bytes, such as the mask, and whole lines of any other."""


def past_caches(func: tirx.PrimFunc, results: Sequence[str], pieces: bool, architecture: str) -> tirx.PrimFunc:
    """Let blocks of whole lines be written past the caches, where all results begin with a line.

    Parameters
    ----------
    func : tirx.PrimFunc
        Scheduled and parallel, with ``self`` and the results as handles.  Each innermost loop goes along neighboring
        elements of all results.
    results : sequence of str
        The tensors that it writes.
    pieces : bool
        Whether a loop may begin within a line; else it is left alone there.
    architecture : str
        Of the CPU that it is for, of :data:`FENCES`.

    Returns
    -------
    tirx.PrimFunc
        It computes the same.  Where a result begins elsewhere, or lies on self, whose lines are in a cache by then,
        everything is head.
    """
    tensors = {param.name: param for param in func.params}
    whole = te.var("whole_lines", "bool")

    def divide(loop: tirx.For) -> tirx.For | tirx.SeqStmt:
        if loop.kind == tirx.ForKind.UNROLLED or loops_of(loop.body, tirx.ForKind.SERIAL):
            return loop
        return _divide(loop, whole, pieces)

    def finish(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        divided = tvm_ffi.structural_map(loop.body, (tirx.For, divide), order="post")
        # Orders what was written past the caches before what the thread writes next: that its task is done.
        name, *numbers = FENCES[architecture]
        fence = tirx.call_llvm_intrin("void", name, *(tirx.const(number, "int32") for number in numbers))
        body = tirx.SeqStmt([divided, tirx.Evaluate(fence)])
        return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, annotations=loop.annotations)

    root = func.body.block
    body = tvm_ffi.structural_map(root.body, (tirx.For, finish), order="post")
    x, places = start(tensors["self"]), [start(tensors[name]) for name in results]
    begins = tirx.EQ(reduce(or_, places) & int64(LINE - 1), int64(0))
    condition = tirx.all(begins, *(tirx.NE(place, x) for place in places))
    body = tirx.SeqStmt([tirx.Bind(whole, condition), body])
    # A stage outside of the parallel loop has blocks left, which want one around them; else there is none.
    return func.with_body(with_block_body(func.body, body) if root.alloc_buffers else body)


def _divide(loop: tirx.For, whole: Any, pieces: bool) -> tirx.SeqStmt:
    """Divide an innermost loop; the loops that are unrolled within it stay there.

    What is left of a block at either end is done in pieces, whole vectors that overlap each other or a block where the
    end is no multiple of them: the same values are written twice, which costs less than a loop over single elements.
    Both come before the blocks, since a line that is on its way to memory would have to be read again.
    """
    bind = Bindings()
    variables = [loop.loop_var, *(inside.loop_var for inside in loops_of(loop.body, tirx.ForKind.UNROLLED))]
    extent = bind("extent", loop.extent)
    body = inline_blocks(loop.body, variables, bind)
    stores: list[Any] = []
    tvm_ffi.structural_walk(body, (tirx.BufferStore, stores.append))
    store = stores[0]  # they all go to the same element, each of its own result
    first = bind("first", _element(store, variables, [0] * len(variables)))
    # Stores that are unrolled side by side are blocks together if they are whole blocks apart.
    apart = [_element(store, variables, [v is u for v in variables]) - first for u in variables[1:]]
    divided = [whole, extent >= BLOCK, *(_is_whole(a) for a in apart), *([] if pieces else [_is_whole(first)])]

    def along(begin: Any, count: Any) -> tirx.For:
        index = te.var(loop.loop_var.name, "int64")
        body_there = replace(body, {loop.loop_var: begin + index})
        return tirx.For(index, int64(0), count, tirx.ForKind.SERIAL, body_there)

    def steps(begin: Any, step: int, count: Any, lanes: int) -> tirx.For:
        return vectors(body, loop.loop_var, lambda i: begin + i * step, count, lanes)

    if not pieces:
        blocks = bind("blocks", tirx.Select(tirx.all(*divided), shift(extent, BLOCK), int64(0)))
        plain = along(blocks * BLOCK, extent - blocks * BLOCK)
        return tirx.SeqStmt([*bind, plain, steps(int64(0), BLOCK, blocks, BLOCK)])
    plain = bind("plain", tirx.Select(tirx.all(*divided), int64(0), extent))
    head = bind("head", tirx.Select(tirx.EQ(plain, int64(0)), -first & int64(BLOCK - 1), extent))
    blocks = bind("blocks", shift(extent - head, BLOCK))
    rest = extent - head - blocks * BLOCK
    return tirx.SeqStmt(
        [
            *bind,
            along(int64(0), plain),
            steps(int64(0), PIECE, shift(head - plain + (PIECE - 1), PIECE), PIECE),
            steps(extent - PIECE, -PIECE, shift(rest + (PIECE - 1), PIECE), PIECE),
            steps(head, BLOCK, blocks, BLOCK),
        ]
    )


def _is_whole(elements: Any) -> Any:
    return tirx.EQ(elements & int64(BLOCK - 1), int64(0))


def _element(store: Any, variables: list[Any], values: list[Any]) -> Any:
    """Where a store to a dense buffer goes, in elements of its tensor, for some values of loop variables."""
    at: Any = int64(0)
    given = {variable: int64(int(value)) for variable, value in zip(variables, values, strict=True)}
    for extent, index in zip(store.buffer.shape, store.indices, strict=True):
        at = at * extent + replace(index, given)
    return store.buffer.elem_offset + at


_STORE = re.compile(rf"(store <{BLOCK} x (float|half|i16|i8)> [^\n]*?), align \d+")


def mark(ll: str) -> str:
    """Mark the stores of blocks in LLVM IR as non-temporal and aligned to lines.

    Parameters
    ----------
    ll : str
        Optimized code of functions, some of which :func:`past_caches` made.

    Returns
    -------
    str
    """
    node = max((int(n) for n in re.findall(r"^!(\d+) = ", ll, re.MULTILINE)), default=0) + 1
    marked, count = _STORE.subn(lambda m: f"{m[1]}, align {LINE}, !nontemporal !{node}", ll)
    return f"{marked}\n!{node} = !{{i32 1}}\n" if count else ll

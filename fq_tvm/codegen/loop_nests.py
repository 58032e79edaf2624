"""Loops written out, for what a schedule of TE stages does not express: the parts that such kernels are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import s_tir, te, tirx

from ..entry_points import Form
from .nontemporal import BLOCK
from .statement import Statement, View
from .vector_loops import int64


def loop(name: str, extent: Any, body: Callable[..., Any], *before: Any) -> Any:
    """Make a loop; body gets its variable, after those before.  That named ``task`` is over tasks."""
    variable = te.var(name, "int64")
    return tirx.For(variable, int64(0), extent, tirx.ForKind.SERIAL, body(*before, variable))


def nest(extents: Sequence[Any], body: Callable[..., Any], *before: Any) -> Any:
    """Nest loops, the first extent outermost; body gets their variables."""
    if not extents:
        return body(*before)
    return loop(f"i{len(before)}", extents[0], lambda i: nest(extents[1:], body, *before, i))


def vector(lanes: int, body: Callable[[Any], Any]) -> Any:
    """Do a body for each of some lanes at a time, fewer than those whose stores are taken to go past the caches."""
    assert lanes < BLOCK
    if lanes == 1:
        return body(int64(0))
    variable = te.var("lane", "int64")
    return tirx.For(variable, int64(0), int64(lanes), tirx.ForKind.VECTORIZED, body(variable))


def over(value: Any, divisor: int) -> Any:
    """Divide and round up."""
    return (value + (divisor - 1)) // divisor


def statement(form: Form, views: Sequence[View], numbers: dict[str, Any], body: Any) -> Statement:
    """Return loops as the statement of a form, scheduled as they stand."""
    block = s_tir.SBlock([], [], [], "root", body)
    params = [*(view.buffer for view in views), *form.order(numbers)]
    func = tirx.PrimFunc(params, s_tir.SBlockRealize([], True, block))
    func = func.with_attrs({"s_tir": True, "tirx.noalias": True})  # as TE marks those that it makes
    return Statement(form, func, tuple(views), stage="")

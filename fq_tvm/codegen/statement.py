"""What one form of a kernel computes, before scheduling: a TIR function, and where its buffers lie in the arguments.

Knows the contract of entry points and no operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

from ..entry_points import Form


@dataclass(frozen=True)
class View:
    """One buffer of a function.

    Parameters
    ----------
    tensor : str
        The tensor argument that it lies in.
    buffer : te.Tensor or tirx buffer
        What it holds.
    offset : int or Expr
        Where it begins in the tensor, in its own elements.
    strides : sequence of Var
        In elements; none where it is dense.
    """

    tensor: str
    buffer: te.Tensor
    offset: Any = 0
    strides: Sequence[Any] = ()


@dataclass(frozen=True)
class Statement:
    """One form of a kernel.

    Parameters
    ----------
    form : Form
        Which.
    func : tirx.PrimFunc
        Of one buffer for each view, then the form's numbers.
    views : tuple of View
        In the order of func's buffers.
    stage : str
        Name of the stage whose loops are scheduled; empty where they are stated as they are to be, that named ``task``
        over tasks.
    overlaps : bool
        Whether what does not fill a vector may be computed twice, see :func:`fq_tvm.codegen.vector_loops.in_pieces`.
    """

    form: Form
    func: tirx.PrimFunc
    views: tuple[View, ...]
    stage: str
    overlaps: bool = False

    @classmethod
    def of(
        cls, form: Form, views: Sequence[View], numbers: dict[str, Any], stage: str, overlaps: bool = False
    ) -> Statement:
        """Collect the stages behind the views into one function, whose numbers come in the order of the contract."""
        func = te.create_prim_func([*(view.buffer for view in views), *form.order(numbers)], "int64")
        return cls(form, func, tuple(views), stage, overlaps)


def variables(form: Form, scalar_dtype: str = "float32") -> dict[str, Any]:
    """Return a variable for each number of a form, by name."""
    scalars = {name: te.var(name, scalar_dtype) for name in form.scalars}
    return {**scalars, **{name: te.var(name, "int64") for name in form.integers}}

"""Functions that take addresses: the calling convention of a kernel, given to what was scheduled.

TVM's own binding of a buffer parameter checks rank, shape and strides against the declaration at every call, and
promises LLVM a 64-byte alignment that nothing checks.  Here the caller has done the checking, extents and strides are
arguments, several buffers may lie in one tensor, and elements may be anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import te, tirx

from ..entry_points import EntryPoints, Workspace
from ..errors import BuildError
from ..target import Target
from .statement import Statement
from .vector_loops import int64, replace, with_block_body

DATA, BYTE_OFFSET = 1, 8
"""Fields of a DLTensor as ``tvm_struct_get`` numbers them."""


def by_address(func: tirx.PrimFunc, stated: Statement) -> tirx.PrimFunc:
    """Replace buffer parameters by tensors of any rank, of which only the address counts."""
    handles = {name: tirx.Var(name, "handle") for name in stated.form.tensors}
    buffers: dict[Any, Any] = {}
    declarations: list[Any] = []
    for param, view in zip(func.params, stated.views, strict=False):
        layout = None if view.strides else param.ty.layout
        buffers[param], declared = declare(param, handles[view.tensor], view.offset, view.strides, layout)
        declarations += declared
    return redeclare(func, [*handles.values(), *func.params[len(stated.views) :]], buffers, declarations)


def declare(param: Any, handle: Any, offset: Any, strides: Sequence[Any], layout: Any) -> tuple[Any, list[Any]]:
    """Declare a buffer like a parameter, so many elements into a tensor; return it and the statements for that."""
    # Bound before any loop: a task on another thread would read it again at every element.
    start = te.var(f"{param.name}_start", "int64")
    buffer = tirx.decl_buffer(
        param.shape,
        param.dtype,
        param.name,
        strides=list(strides) or None,
        elem_offset=start,
        data_alignment=1,
        layout=layout,
    )
    data = tirx.tvm_struct_get(handle, 0, DATA, tvm.ir.PointerType(tvm.ir.PrimType(param.dtype)))
    # What has no memory, as tensors of torch's transforms, tells no key that it differs: here every call passes.
    text = [tvm.ir.StringImm(f"{handle.name} has no memory; expected a tensor in this machine's memory")]
    placed = tirx.AssertStmt(tirx.Not(tirx.isnullptr(data)), tvm.ir.StringImm("ValueError"), text)
    # In bytes, as the offset of a tensor need not be a multiple of its elements.
    first = tirx.handle_add_byte_offset(data, tirx.tvm_struct_get(handle, 0, BYTE_OFFSET, "uint64").astype("int64"))
    return buffer, [placed, tirx.Bind(start, tirx.const(0, "int64") + offset), tirx.DeclBuffer(buffer, data=first)]


def either(workspace: Workspace | None, first: tirx.PrimFunc, plain: tirx.PrimFunc | None = None) -> tirx.PrimFunc:
    """Make one function of two statements of a form: the first runs where the flag in the workspace is 1.

    LLVM would not divide the loops of several runs by a condition within them, as it does for rows.
    """
    if plain is None:
        return first
    assert workspace is not None
    params = {param.name: param for param in plain.params}
    same = dict(zip(first.params, plain.params, strict=True))
    body = tvm_ffi.structural_map(first.body, (tvm.ir.Var, lambda v: same.get(v, v)), order="post")
    flag = tirx.decl_buffer((1,), "int32", workspace.flag)
    start = workspace.start(workspace.flag, params["run"])
    flag, declared = declare(flag, params["workspace"], start, (), flag.ty.layout)
    condition = tirx.NE(tirx.BufferLoad(flag, [0]), tirx.const(0, "int32"))
    return plain.with_body(tirx.SeqStmt([*declared, tirx.IfThenElse(condition, body, plain.body)]))


def redeclare(
    func: tirx.PrimFunc, params: Sequence[Any], buffers: dict[Any, Any], declarations: Sequence[Any]
) -> tirx.PrimFunc:
    """Give a function other parameters, and its body other buffers, which are declared where the body begins.

    Parameters
    ----------
    func : tirx.PrimFunc
        Not lowered yet: its body is the root block.
    params : sequence of Var
        The new parameters.
    buffers : dict
        What stands for each buffer parameter of func.
    declarations : sequence of Stmt
        Of those buffers.

    Returns
    -------
    tirx.PrimFunc
    """
    body = tvm_ffi.structural_map(func.body, (tvm.ir.Var, lambda v: buffers.get(v, v)), order="post")
    body = with_block_body(body, tirx.SeqStmt([*declarations, body.block.body]))
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs)


def with_constants(func: tirx.PrimFunc, values: Mapping[str, int]) -> tirx.PrimFunc:
    """Put constants in the place of integers, which are arguments still that nothing reads."""
    known = {param: int64(values[param.name]) for param in func.params if param.name in values}
    return func.with_body(replace(func.body, known)) if known else func


def conform(functions: Mapping[str, tirx.PrimFunc], points: EntryPoints, target: Target) -> None:
    """Compare what was made with the contract that a launch will call it by.

    Raises
    ------
    BuildError
        If a function is missing or one too many, or takes other arguments, or in another order.
    """
    wanted = {name: form for form in points.forms for name in form.functions(target).values()}
    if functions.keys() != wanted.keys():
        differing = ", ".join(sorted(functions.keys() ^ wanted.keys()))
        raise BuildError(f"the code and the contract of entry points differ in the functions {differing}")
    for name, func in functions.items():
        takes = tuple(param.name for param in func.params)
        expected = (*wanted[name].tensors, *wanted[name].numbers)
        if takes != expected:
            raise BuildError(f"{name} takes ({', '.join(takes)}); the contract says ({', '.join(expected)})")

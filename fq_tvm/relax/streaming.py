"""Functions of a graph whose results are written past the caches, as those of large kernels are.

TVM has no such store, so LLVM IR is marked after TVM (docs/decisions/0012-non-temporal-stores.md): these functions are
compiled apart from the module and imported into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import Call
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..codegen.calling_convention import declare, redeclare
from ..codegen.llvm import load, optimize
from ..codegen.nontemporal import past_caches

APART = "fq_tvm.apart"
"""The attribute of a function that is not compiled with the module: its name in the code that was imported."""

EXTERNAL = "external_mods"
"""The attribute of a module in which ``relax.build`` looks for what is to be imported."""


def stream(
    func: tirx.PrimFunc, inputs: Sequence[Any], results: Sequence[Any], pieces: bool, architecture: str
) -> tirx.PrimFunc:
    """Let a function write past the caches where its results begin with a line.

    Parameters
    ----------
    func : tirx.PrimFunc
        Scheduled and parallel, of buffers.
    inputs : sequence of Var
        The parameters of the results' size that it reads.
    results : sequence of Var
        Those that it writes.
    pieces : bool
        Whether a loop may begin within a line.
    architecture : str
        Of the CPU that it is for.

    Returns
    -------
    tirx.PrimFunc
        Of the addresses of inputs and results; other parameters stay buffers, which tell the device to TVM.
    """
    params, buffers, declarations = [], {}, []
    names = {param: f"t{n}" for n, param in enumerate((*inputs, *results))} | {inputs[0]: "self"}
    for param in func.params:
        if param not in names:
            params.append(tirx.decl_buffer(param.shape, str(param.dtype), param.name, data_alignment=1))
            buffers[param] = params[-1]
            continue
        params.append(tirx.Var(names[param], "handle"))
        buffers[param], declared = declare(param, params[-1], 0, (), param.ty.layout)
        declarations += declared
    addressed = redeclare(func, params, buffers, declarations)
    return past_caches(addressed, [names[result] for result in results], pieces, architecture)


def compiled(func: tirx.PrimFunc, name: str, target: Any) -> Any:
    """Compile a function for a target, with its stores marked; return a module with it."""
    module = tvm.IRModule({name: func.with_attr("global_symbol", name)})
    return load(optimize(module, target))


@mutator
class _Caller(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.mod = mod

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if not isinstance(call.op, tvm.ir.GlobalVar) or not is_apart(self.mod[call.op]):
            return call
        name = str(self.mod[call.op].attrs[APART])
        return Call(relax.ExternFunc(name), call.args, call.attrs, [relax.TupleType([])])


@tvm.transform.module_pass(opt_level=0, name="CallApart")
class CallApart:
    """Pass, the last: call what was compiled apart, and drop what it stands for."""

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        """Apply the pass."""
        del ctx
        apart = [variable for variable, func in mod.functions_items() if is_apart(func)]
        if not apart:
            return mod
        caller = _Caller(mod)
        made = {v: caller.visit_expr(f) if isinstance(f, relax.Function) else f for v, f in mod.functions_items()}
        for variable in apart:
            del made[variable]
        return tvm.IRModule(made, attrs=mod.attrs, global_infos=mod.global_infos)


def is_apart(func: Any) -> bool:
    """Whether a function is not compiled with its module."""
    return isinstance(func, tirx.PrimFunc) and APART in func.attrs

"""Expression + schedule + target -> object code, with its expression, TIR, LLVM IR and assembly.

The only module that runs TVM's compiler.  Knows nothing of caches.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import te, tirx

from ..errors import BuildError
from ..layout import MAX_RANK
from ..schedule import RUN_VECTORS, Schedule, apply, apply_expand, folds, streams
from ..spec import FakeQuantSpec
from ..target import Target
from .expression import (
    ChannelParameters,
    Folded,
    QuantRange,
    channel_parameters,
    expand,
    fold,
    foldable,
    quantize_dequantize,
)
from .nontemporal import mark, past_caches
from .vector_loops import in_pieces

__all__ = ["Built", "Statement", "build", "lower", "redeclare", "state", "translate"]

DATA, BYTE_OFFSET = 1, 8
"""Fields of a DLTensor as ``tvm_struct_get`` numbers them."""


@dataclass(frozen=True)
class Built:
    """What a build yields, as text and bytes.

    Parameters
    ----------
    object : bytes
        Relocatable object code with the functions ``serial`` and ``parallel``.
    te, tir, ll, asm : str
        The unscheduled expression, the scheduled functions, LLVM IR and assembly.
    """

    object: bytes
    te: str
    tir: str
    ll: str
    asm: str

    @property
    def tir_hash(self) -> str:
        """SHA-256 of the scheduled functions."""
        return hashlib.sha256(self.tir.encode()).hexdigest()


@dataclass(frozen=True)
class Operand:
    """One buffer of the function: which tensor argument it is a view of, and where in it."""

    tensor: str
    buffer: te.Tensor
    offset: Any = 0
    strides: Sequence[Any] = ()


@dataclass(frozen=True)
class Statement:
    """One function of a kernel, before scheduling.

    Parameters
    ----------
    func : tirx.PrimFunc
        One buffer parameter for each operand, then the scalars.
    operands : tuple of Operand
        In the order of func's buffer parameters.
    """

    func: tirx.PrimFunc
    operands: tuple[Operand, ...]

    @classmethod
    def of(cls, operands: Sequence[Operand], scalars: Sequence[Any]) -> Statement:
        """Collect the stages behind the operands into one function."""
        func = te.create_prim_func([*(o.buffer for o in operands), *scalars], "int64")
        return cls(func, tuple(operands))


def state(spec: FakeQuantSpec, rows: int = 1) -> dict[str, Statement]:
    """State what a kernel computes, on symbolic extents.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.
    rows : int
        Lanes only: how many runs ``"blocked"`` takes at a time; 1 for no such function.

    Returns
    -------
    dict of Statement
        ``"fake_quant"``; for lanes also ``"expand"``, which has to run before it, ``"blocked"``, which can do most of
        its work, and ``"direct"``, which does all of it where the channel is last and hardly repeated.  Arguments, in
        order: the tensors; the quantization range, see :func:`fq_tvm.spec.quant_range_scalars`, which no expand
        takes; then int64 values.  Of lanes that fold (:func:`fq_tvm.schedule.folds`) there are also
        ``"folded_fake_quant"`` and ``"folded_blocked"``, which do the same with zero points taken off the range, where
        expand has found that they may.

        - expand: scale, zero_point, workspace; copies, channels, inner, scale_stride, zero_point_stride
        - fake_quant, rows: self, scale, zero_point, out, mask; outer, channels, inner, scale_stride, zero_point_stride
        - fake_quant, lanes: self, workspace, out, mask; first, runs, run, tail, where first is the element to begin at
        - blocked: self, workspace, out, mask; blocks, run
        - direct: self, scale, zero_point, out, mask; outer, channels, scale_stride, zero_point_stride
        - fake_quant, strided_rows: as rows, with eight loop extents (the channel's before the innermost) and eight
          strides each of self, out and mask in place of the first three values
        - fake_quant, strided_lanes: self, workspace, out, mask; eight loop extents (the channel's last) and the strides
    """
    if not spec.lanes:
        return {"fake_quant": _state_rows(spec)}
    statements = {"fake_quant": _state_lanes(spec), "expand": _state_expand(spec)}
    if spec.iteration == "lanes":
        statements["direct"] = _state_direct(spec)
        if rows > 1:
            statements["blocked"] = _state_blocked(spec, rows)
        if folds(spec):
            statements["folded_fake_quant"] = _state_lanes(spec, folded=True)
            if rows > 1:
                statements["folded_blocked"] = _state_blocked(spec, rows, folded=True)
    return statements


def _state_rows(spec: FakeQuantSpec) -> Statement:
    """State rows of any kind: parameters are read where they lie."""
    extents, strides = _loops(spec, "outer", "channels", "inner")
    quant_range, limits = _symbolic_range(spec)
    scale, zero_point, vector_strides = _vectors(spec, extents[-2])
    parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide)
    x = te.placeholder(extents, spec.dtype, "x")
    folded = fold(parameters, quant_range) if folds(spec) else None
    out, mask = _compute(spec, x, parameters, len(extents) - 2, quant_range, folded)
    operands = [Operand("self", x, 0, strides[0]), scale, zero_point]
    operands += [Operand("out", out, 0, strides[1]), Operand("mask", mask, 0, strides[2])]
    return Statement.of(operands, [*limits, *extents, *(s for each in strides for s in each), *vector_strides])


def _state_lanes(spec: FakeQuantSpec, folded: bool = False) -> Statement:
    """State lanes of any kind: parameters come from the workspace."""
    extents, strides = _loops(spec, "first", "runs", "run", "tail")
    quant_range, limits = _symbolic_range(spec)
    first, shape = (0, extents) if spec.strided else (extents[0], extents[1:3])
    parameters, sources = _run_parameters(spec, shape[-1])
    ranges = fold(parameters, quant_range, everywhere=True) if folded else None
    x = te.placeholder(shape, spec.dtype, "x")
    out, mask = _compute(spec, x, parameters, len(shape) - 1, quant_range, ranges)
    operands = [Operand("self", x, first, strides[0]), *sources]
    operands += [Operand("out", out, first, strides[1]), Operand("mask", mask, first, strides[2])]
    if not spec.strided:
        # The last outer rows, when they do not fill a run: a prefix of one more run.
        rest = te.placeholder((extents[3],), spec.dtype, "x_tail")
        views = (rest, *_compute(spec, rest, parameters, 0, quant_range, ranges, "tail"))
        start = first + shape[0] * shape[1]
        operands += [Operand(t, v, start) for t, v in zip(("self", "out", "mask"), views, strict=True)]
    return Statement.of(operands, [*limits, *extents, *(s for each in strides for s in each)])


def _state_blocked(spec: FakeQuantSpec, rows: int, folded: bool = False) -> Statement:
    """State lanes for whole blocks of runs, so that a schedule can read parameters once for all runs of a block."""
    blocks, run = _integers("blocks", "run")
    quant_range, limits = _symbolic_range(spec)
    parameters, sources = _run_parameters(spec, run)
    ranges = fold(parameters, quant_range, everywhere=True) if folded else None
    x = te.placeholder((blocks * rows, run), spec.dtype, "x")
    out, mask = _compute(spec, x, parameters, 1, quant_range, ranges)
    return Statement.of(
        [Operand("self", x), *sources, Operand("out", out), Operand("mask", mask)], [*limits, blocks, run]
    )


def _state_direct(spec: FakeQuantSpec) -> Statement:
    """State lanes whose channel is last, with parameters read where they lie: expanding pays by repetition alone."""
    outer, channels = _integers("outer", "channels")
    quant_range, limits = _symbolic_range(spec)
    scale, zero_point, vector_strides = _vectors(spec, channels)
    x = te.placeholder((outer, channels), spec.dtype, "x")
    parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide)
    out, mask = _compute(spec, x, parameters, 1, quant_range)
    operands = [Operand("self", x), scale, zero_point, Operand("out", out), Operand("mask", mask)]
    return Statement.of(operands, [*limits, outer, channels, *vector_strides])


def _compute(
    spec: FakeQuantSpec,
    x: te.Tensor,
    parameters: ChannelParameters,
    axis: int,
    quant_range: QuantRange,
    folded: Folded | None = None,
    name: str = "fake_quant",
) -> tuple[te.Tensor, te.Tensor]:
    dtypes = (spec.promoted_dtype, spec.out_dtype)
    return quantize_dequantize(x, parameters, axis, quant_range, *dtypes, name, folded=folded)


def _loops(spec: FakeQuantSpec, *contiguous: str) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Return the extents of a class and, where it is strided, the strides of self, out and mask."""
    if not spec.strided:
        return _integers(*contiguous), [(), (), ()]
    tensors = ("self", "out", "mask")
    strides = [_integers(*(f"{tensor}_stride{i}" for i in range(MAX_RANK))) for tensor in tensors]
    return _integers(*(f"n{i}" for i in range(MAX_RANK))), strides


def _run_parameters(spec: FakeQuantSpec, run: Any) -> tuple[ChannelParameters, list[Operand]]:
    """Return the expanded parameters, and where they lie in the workspace, see :func:`_state_expand`."""
    names = ("inverse_scale", "float32"), ("zero_point", spec.parameter_dtype), ("scale", "float32")
    vectors = [te.placeholder((run,), dtype, f"run_{name}") for name, dtype in names]
    operands = [Operand("workspace", vector, run * i) for i, vector in enumerate(vectors)]
    inverse, zero_point, scale = (operand.buffer for operand in operands)
    return ChannelParameters(inverse, zero_point, scale, spec.float_zero_point), operands


def _state_expand(spec: FakeQuantSpec) -> Statement:
    """State the expansion: :data:`~fq_tvm.schedule.RUN_VECTORS` side by side, and the flag of kernels that fold."""
    copies, channels, inner = extents = _integers("copies", "channels", "inner")
    scale, zero_point, vector_strides = _vectors(spec, channels)
    parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide)
    outputs = [*expand([*parameters], copies, inner), *([foldable(parameters)] if folds(spec) else [])]
    operands = [Operand("workspace", p, copies * channels * inner * i) for i, p in enumerate(outputs)]
    return Statement.of([scale, zero_point, *operands], [*extents, *vector_strides])


def _vectors(spec: FakeQuantSpec, channels: Any) -> tuple[Operand, Operand, tuple[Any, ...]]:
    """Scale and zero point, of any stride."""
    strides = _integers("scale_stride", "zero_point_stride")
    scale = te.placeholder((channels,), spec.scale_dtype, "scale")
    zero_point = te.placeholder((channels,), spec.zero_point_dtype, "zero_point")
    return Operand("scale", scale, 0, strides[:1]), Operand("zero_point", zero_point, 0, strides[1:]), strides


def _integers(*names: str) -> tuple[Any, ...]:
    return tuple(te.var(name, "int64") for name in names)


def _symbolic_range(spec: FakeQuantSpec) -> tuple[QuantRange, list[Any]]:
    """Return the range of a path, and its scalars in the order of the kernel's arguments."""
    names = ("quant_min", "quant_max", "least", "greatest") if spec.wide else ("quant_min", "quant_max")
    scalars = [te.var(name, "float64" if spec.wide else "float32") for name in names]
    return QuantRange(*scalars), scalars


def lower(spec: FakeQuantSpec, schedule: Schedule, target: Target) -> tvm.IRModule:
    """Schedule a kernel and give it its calling convention.

    Returns
    -------
    tvm.IRModule
        ``serial`` and ``parallel``, the function ``fake_quant`` of :func:`state` in two schedules; for rows also
        ``long_serial`` and ``parallel``, for rows that are long enough to make a task each; for lanes also ``blocked_``
        and ``direct_serial`` and ``parallel``, and ``expand_channels`` and ``expand_inner``, the function ``expand``
        with either loop innermost; where :func:`~fq_tvm.schedule.streams` says so, also ``stream_`` and any
        ``parallel`` of these, which writes past the caches.  Where :func:`state` has two forms of a function, this one
        has both, and chooses when it runs.  Of a tensor argument, a DLTensor, only the address is read.
    """
    statements = state(spec, schedule.rows)
    functions = {}
    for innermost in EXPANSIONS[spec.iteration]:
        expansion = statements["expand"]
        functions[f"expand_{innermost}"] = _by_address(apply_expand(expansion.func, innermost), expansion)
    forms = [("fake_quant", "", schedule), ("blocked", "blocked_", schedule), ("direct", "direct_", schedule)]
    if spec.iteration == "rows":
        forms.append(("fake_quant", "long_", replace(schedule, rows=1)))
    for name, prefix, chosen in forms:
        stated = [statements[form] for form in (f"folded_{name}", name) if form in statements]
        short = spec.iteration == "rows" and not prefix and not spec.wide
        for threads in ("serial", "parallel") if stated else ():
            scheduled = [_by_address(apply(s.func, spec, chosen, threads == "parallel", name), s) for s in stated]
            whole = [in_pieces(function) if short else function for function in scheduled]
            functions[f"{prefix}{threads}"] = _choose(spec, *whole)
            if threads == "parallel" and streams(spec, target):
                past = [past_caches(function, pieces=not spec.lanes) for function in scheduled]
                functions[f"stream_{prefix}parallel"] = _choose(spec, *past)
    return tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})


EXPANSIONS = {"rows": (), "lanes": ("channels", "inner"), "strided_rows": (), "strided_lanes": ("channels",)}


def _by_address(func: tirx.PrimFunc, stated: Statement) -> tirx.PrimFunc:
    """Replace buffer parameters by tensors of any rank, of which only the address counts.

    TVM's own binding of a buffer parameter checks rank, shape and strides against the declaration at every call, and
    promises LLVM a 64-byte alignment that nothing checks.  Here the caller has done the checking, extents and strides
    are arguments, several buffers may lie in one tensor, and elements may be anywhere.
    """
    handles: dict[str, Any] = {}
    buffers: dict[Any, Any] = {}
    declarations: list[Any] = []
    for param, operand in zip(func.params, stated.operands, strict=False):
        handle = handles.setdefault(operand.tensor, tirx.Var(operand.tensor, "handle"))
        layout = None if operand.strides else param.ty.layout
        buffers[param], declared = _declare(param, handle, operand.offset, operand.strides, layout)
        declarations += declared
    return redeclare(func, [*handles.values(), *func.params[len(stated.operands) :]], buffers, declarations)


def _declare(param: Any, handle: Any, offset: Any, strides: Sequence[Any], layout: Any) -> tuple[Any, list[Any]]:
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
    pointer = tvm.ir.PointerType(tvm.ir.PrimType(param.dtype))
    data = tirx.tvm_struct_get(handle, 0, DATA, pointer)
    # In bytes, as the offset of a tensor need not be a multiple of its elements.
    first = tirx.handle_add_byte_offset(data, tirx.tvm_struct_get(handle, 0, BYTE_OFFSET, "uint64").astype("int64"))
    return buffer, [tirx.Bind(start, tirx.const(0, "int64") + offset), tirx.DeclBuffer(buffer, data=first)]


def _choose(spec: FakeQuantSpec, first: tirx.PrimFunc, plain: tirx.PrimFunc | None = None) -> tirx.PrimFunc:
    """Make one function of the two forms of lanes: the first, which folds, runs where expand left a 1 in its flag.

    LLVM would not divide the loops of several runs by a condition within them, as it does for rows.
    """
    if plain is None:
        return first
    params = {param.name: param for param in plain.params}
    same = dict(zip(first.params, plain.params, strict=True))
    body = tvm_ffi.structural_map(first.body, (tvm.ir.Var, lambda v: same.get(v, v)), order="post")
    flag = tirx.decl_buffer((1,), "int32", "foldable")
    flag, declared = _declare(flag, params["workspace"], params["run"] * RUN_VECTORS, (), flag.ty.layout)
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
    block = body.block
    block = type(block)(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        tirx.SeqStmt([*declarations, block.body]),
        block.init,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )
    return tirx.PrimFunc(params, type(body)(body.iter_values, body.predicate, block), func.ret_type, func.attrs)


DEBUG_INFO = re.compile(r",? !dbg !\d+|^\s*#dbg_.*\n|^!llvm\.dbg\.cu = .*\n", re.MULTILINE)
"""What TVM says of lines of a source that there is not: half of an object, and of what one has to read of assembly."""


def translate(module: tvm.IRModule, schedule: Schedule, target: Target) -> str:
    """Turn what :func:`lower` returned into LLVM IR, optimized and ready to become code."""
    compiled = tvm.compile(module, target=tvm.target.Target(target.to_tvm(schedule.vector_bits)))
    return mark(DEBUG_INFO.sub("", compiled.mod.inspect_source("ll")))


def build(spec: FakeQuantSpec, schedule: Schedule, target: Target) -> Built:
    """Compile a kernel.

    Parameters
    ----------
    spec : FakeQuantSpec
        What to compute.
    schedule : Schedule
        How.
    target : Target
        For which CPU.

    Returns
    -------
    Built

    Raises
    ------
    BuildError
        If TVM or LLVM fails; the message holds theirs.
    """
    try:
        module = lower(spec, schedule, target)
        ll = translate(module, schedule, target)
        with tempfile.TemporaryDirectory(prefix="fq_tvm-") as folder:
            text, path = Path(folder) / "kernel.ll", Path(folder) / "kernel.o"
            text.write_text(ll)
            code = tvm.runtime.load_module(str(text))
            code.write_to_file(str(path), "o")
            return Built(
                object=path.read_bytes(),
                te="\n".join(s.func.script() for s in state(spec, schedule.rows).values()),
                tir=module.script(),
                ll=ll,
                asm=code.inspect_source("asm"),
            )
    except Exception as error:
        raise BuildError(f"cannot build {spec.name} for {target.cpu}: {error}") from error

"""Expression + schedule + target -> object code, with its expression, TIR, LLVM IR and assembly.

The only module that runs TVM's compiler.  Knows nothing of caches.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import te, tirx

from .errors import BuildError
from .expression import ChannelParameters, QuantRange, channel_parameters, cycle, expand, quantize_dequantize
from .layout import MAX_RANK
from .schedule import Schedule, apply, apply_expand
from .spec import FakeQuantSpec
from .target import Target

__all__ = ["Built", "Statement", "build", "lower", "state"]

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


def state(spec: FakeQuantSpec) -> dict[str, Statement]:
    """State what a kernel computes, on symbolic extents.

    Parameters
    ----------
    spec : FakeQuantSpec
        The kernel.

    Returns
    -------
    dict of Statement
        ``"fake_quant"`` and, for lanes, ``"expand"``, which has to run before it.  Arguments, in order: the tensors;
        the quantisation range, see :func:`fq_tvm.spec.quant_range_scalars`; then int64 values.

        - expand: scale, zero_point, workspace; copies, channels, inner, scale_stride, zero_point_stride
        - fake_quant, rows: self, scale, zero_point, out, mask; rows, channels, inner, scale_stride, zero_point_stride
        - fake_quant, lanes: self, workspace, out, mask; runs, run, tail
        - fake_quant, strided_rows: as rows, with eight loop extents (the channel's before the innermost) and eight
          strides each of self, out and mask in place of the first three values
        - fake_quant, strided_lanes: as lanes, with eight loop extents (the channel's last) and the strides
    """
    quant_range = _symbolic_range(spec)
    # fields that are None belong to the other path
    limits = [v for v in (quant_range.low, quant_range.high, quant_range.least, quant_range.greatest) if v is not None]
    if spec.iteration == "lanes":
        runs, run, tail = extents = _integers("runs", "run", "tail")
        shape: tuple[Any, ...] = (runs, run)
    elif spec.iteration == "rows":
        extents = _integers("rows", "channels", "inner")
        shape = (extents[0], extents[2])
    else:
        shape = extents = _integers(*(f"n{i}" for i in range(MAX_RANK)))
    strides = [
        _integers(*(f"{tensor}_stride{i}" for i in range(MAX_RANK))) if spec.strided else ()
        for tensor in ("self", "out", "mask")
    ]
    x = te.placeholder(shape, spec.dtype, "x")

    def compute(x: te.Tensor, parameters: ChannelParameters, axis: int, name: str) -> Any:
        return quantize_dequantize(x, parameters, axis, quant_range, spec.promoted_dtype, spec.out_dtype, name)

    if spec.lanes:
        run = shape[-1]
        dtypes = ("float32", spec.zero_point_dtype if spec.wide else "float32", "float32")
        parameters = ChannelParameters(*(te.placeholder((run,), d, n) for d, n in zip(dtypes, RUN_NAMES, strict=True)))
        out, mask = compute(x, parameters, len(shape) - 1, "fake_quant")
        sources = [Operand("workspace", p, run * i) for i, p in enumerate(parameters)]
        scalars = [*limits, *extents, *(s for each in strides for s in each)]
    else:
        channels = shape[-2] if spec.strided else extents[1]
        scale, zero_point, vector_strides = _vectors(spec, channels)
        parameters = channel_parameters(scale.buffer, zero_point.buffer, spec.wide)
        if not spec.strided:
            parameters = cycle(parameters, channels, shape[0])
        out, mask = compute(x, parameters, len(shape) - 2, "fake_quant")
        sources = [scale, zero_point]
        scalars = [*limits, *extents, *(s for each in strides for s in each), *vector_strides]
    operands = [Operand("self", x, 0, strides[0]), *sources]
    operands += [Operand("out", out, 0, strides[1]), Operand("mask", mask, 0, strides[2])]
    if spec.iteration == "lanes":
        # The last outer rows, when they do not fill a run: a prefix of one more run.
        rest = te.placeholder((tail,), spec.dtype, "x_tail")
        views = (rest, *compute(rest, parameters, 0, "tail"))
        operands += [Operand(t, v, runs * run) for t, v in zip(("self", "out", "mask"), views, strict=True)]
    statements = {"fake_quant": Statement.of(operands, scalars)}
    if spec.lanes:
        statements["expand"] = _state_expand(spec)
    return statements


RUN_NAMES = ("run_inverse_scale", "run_zero_point", "run_scale")


def _state_expand(spec: FakeQuantSpec) -> Statement:
    copies, channels, inner = extents = _integers("copies", "channels", "inner")
    scale, zero_point, vector_strides = _vectors(spec, channels)
    run = expand(channel_parameters(scale.buffer, zero_point.buffer, spec.wide), copies, inner)
    outputs = [Operand("workspace", p, copies * channels * inner * i) for i, p in enumerate(run)]
    return Statement.of([scale, zero_point, *outputs], [*extents, *vector_strides])


def _vectors(spec: FakeQuantSpec, channels: Any) -> tuple[Operand, Operand, tuple[Any, ...]]:
    """Scale and zero point, of any stride."""
    strides = _integers("scale_stride", "zero_point_stride")
    scale = te.placeholder((channels,), spec.scale_dtype, "scale")
    zero_point = te.placeholder((channels,), spec.zero_point_dtype, "zero_point")
    return Operand("scale", scale, 0, strides[:1]), Operand("zero_point", zero_point, 0, strides[1:]), strides


def _integers(*names: str) -> tuple[Any, ...]:
    return tuple(te.var(name, "int64") for name in names)


def _symbolic_range(spec: FakeQuantSpec) -> QuantRange:
    if spec.wide:
        return QuantRange(*(te.var(n, "float64") for n in ("quant_min", "quant_max", "least", "greatest")))
    return QuantRange(te.var("quant_min", "float32"), te.var("quant_max", "float32"))


def lower(spec: FakeQuantSpec, schedule: Schedule) -> tvm.IRModule:
    """Schedule a kernel and give it its calling convention.

    Returns
    -------
    tvm.IRModule
        ``serial`` and ``parallel``, the function ``fake_quant`` of :func:`state` in two schedules, and for lanes
        ``expand_channels`` and ``expand_inner``, the function ``expand`` with either loop innermost.  Of a tensor
        argument, a DLTensor, only the address is read.
    """
    statements = state(spec)
    functions = {}
    for innermost in EXPANSIONS[spec.iteration]:
        expansion = statements["expand"]
        functions[f"expand_{innermost}"] = _by_address(apply_expand(expansion.func, spec, innermost), expansion)
    main = statements["fake_quant"]
    for name in ("serial", "parallel"):
        functions[name] = _by_address(apply(main.func, spec, schedule, parallel=name == "parallel"), main)
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
        itemsize = tvm.DataType(param.dtype).itemsize
        # Bound before any loop: a task on another thread would read it again at every element.
        start = te.var(f"{param.name}_start", "int64")
        offset = tirx.tvm_struct_get(handle, 0, BYTE_OFFSET, "uint64").astype("int64")
        declarations.append(tirx.Bind(start, offset // itemsize + operand.offset))
        buffer = tirx.decl_buffer(
            param.shape,
            param.dtype,
            param.name,
            strides=list(operand.strides) or None,
            elem_offset=start,
            data_alignment=1,
            layout=None if operand.strides else param.ty.layout,
        )
        pointer = tvm.ir.PointerType(tvm.ir.PrimType(param.dtype))
        declarations.append(tirx.DeclBuffer(buffer, data=tirx.tvm_struct_get(handle, 0, DATA, pointer)))
        buffers[param] = buffer
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
    params = [*handles.values(), *func.params[len(stated.operands) :]]
    return tirx.PrimFunc(params, type(body)(body.iter_values, body.predicate, block), func.ret_type, func.attrs)


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
        module = lower(spec, schedule)
        compiled = tvm.compile(module, target=tvm.target.Target(target.to_tvm(schedule.vector_bits))).mod
        with tempfile.TemporaryDirectory(prefix="fq_tvm-") as folder:
            path = Path(folder) / "kernel.o"
            compiled.write_to_file(str(path), "o")
            code = path.read_bytes()
        return Built(
            object=code,
            te="\n".join(s.func.script() for s in state(spec).values()),
            tir=module.script(),
            ll=compiled.inspect_source("ll"),
            asm=compiled.inspect_source("asm"),
        )
    except Exception as error:
        raise BuildError(f"cannot build {spec.name} for {target.cpu}: {error}") from error

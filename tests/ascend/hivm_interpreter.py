"""Executes the module that bishengir-compile hands to hivmc, block by block, with numpy.

Every block starts with a unified buffer full of garbage; every access is checked against the buffer that it names;
temporary buffers are filled with garbage before a library call reads its operands.  A maximum or minimum of a NaN is
refused, as what the hardware gives there is not known.  What a library call does is a reading of the vendor's
Apache-2.0 template sources.  Pipes run in program order; what each did is noted for :mod:`pipe_order`, a library call
as one instruction of its pipe.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pipe_order import ALL, MTE2, MTE3, Event, S, V, barrier, set_flag, use, wait_flag
from xdsl.context import Context
from xdsl.dialects import arith, builtin, func, memref, scf
from xdsl.parser import Parser

UNIFIED_BUFFER = 192 * 1024
DYNAMIC = -(2**63)
DTYPES = {"f32": np.float32, "f16": np.float16, "i64": np.int64, "i32": np.int32, "i16": np.int16, "i8": np.int8}
C_DTYPES = {"float": "f32", "half": "f16", "int64_t": "i64", "int32_t": "i32", "int16_t": "i16", "int8_t": "i8"}


class Violation(AssertionError):
    """The module does what hardware would not survive, or what nobody knows."""


def check(holds: Any, message: str) -> None:
    if not holds:
        raise Violation(message)


@dataclass(frozen=True)
class View:
    """A strided view of bytes; offsets and strides count elements, which are bits for i1."""

    buffer: np.ndarray
    element: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    base: int = 0
    space: str = "gm"

    @property
    def bits(self) -> int:
        return 1 if self.element == "i1" else 8 * np.dtype(DTYPES[self.element]).itemsize

    def _end(self) -> int:
        """The byte after the last one that the view reaches."""
        last = self.offset + sum((n - 1) * s for n, s in zip(self.sizes, self.strides, strict=True))
        return self.base + -(-(last + 1) * self.bits // 8)

    def _check(self) -> None:
        if self.sizes and min(self.sizes) < 0:
            raise Violation(f"negative extent in {self.sizes}")
        end = self._end()
        if self.base < 0 or self.offset < 0 or end > self.buffer.size:
            raise Violation(f"{self.space} access ends at byte {end} of {self.buffer.size}")

    def array(self) -> np.ndarray:
        """The elements as a writable array."""
        dtype = np.dtype(DTYPES[self.element])
        if 0 in self.sizes:
            return np.empty(self.sizes, dtype)
        self._check()
        count = (self.buffer.size - self.base) // dtype.itemsize
        flat = np.frombuffer(self.buffer.data, dtype, count, self.base)[self.offset :]
        return np.lib.stride_tricks.as_strided(flat, self.sizes, [s * dtype.itemsize for s in self.strides])

    def _bit_index(self) -> np.ndarray:
        self._check()
        index = np.full(self.sizes, self.offset, np.int64)
        for dim, (n, stride) in enumerate(zip(self.sizes, self.strides, strict=True)):
            shape = [1] * len(self.sizes)
            shape[dim] = n
            index += (np.arange(n) * stride).reshape(shape)
        return index

    def spans(self, place: int) -> list[tuple[int, int]]:
        """The bytes that it reaches as intervals, if its buffer lies at a place."""
        if 0 in self.sizes:
            return []
        run, starts = 1, np.array([self.offset])
        for n, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if stride == run and starts.size == 1:
                run *= n
            elif n > 1:
                starts = (starts[:, None] + np.arange(n) * stride).reshape(-1)
        start = place + self.base
        begins, ends = starts * self.bits // 8, -(-(starts + run) * self.bits // 8)
        return list(zip((start + begins).tolist(), (start + ends).tolist(), strict=True))

    def read(self) -> np.ndarray:
        """A copy of the elements; bool for i1."""
        if self.element != "i1":
            return self.array().copy()
        if 0 in self.sizes:
            return np.empty(self.sizes, bool)
        index = self._bit_index()
        return (self.buffer[self.base + (index >> 3)] >> (index & 7).astype(np.uint8) & 1).astype(bool)

    def write(self, values: Any) -> None:
        if self.element != "i1":
            self.array()[...] = values
            return
        if 0 in self.sizes:
            return
        index = self._bit_index().reshape(-1)
        byte, bit = self.base + (index >> 3), (np.uint8(1) << (index & 7).astype(np.uint8)).astype(np.uint8)
        np.bitwise_and.at(self.buffer, byte, ~bit)
        np.bitwise_or.at(self.buffer, byte, np.where(np.asarray(values).reshape(-1), bit, np.uint8(0)))


def dense(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[d + 1 :]) for d in range(len(sizes)))


# ---------------------------------------------------------------------------------------------------------------------
# Library calls


def _ordered(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def apply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        check(not (np.isnan(a).any() or np.isnan(b).any()), "maximum or minimum of a NaN")
        return function(a, b)

    return apply


ARITHMETIC = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": _ordered(np.maximum),
    "min": _ordered(np.minimum),
}
COMPARE = {
    "ge": np.greater_equal,
    "le": np.less_equal,
    "gt": np.greater,
    "lt": np.less,
    "eq": np.equal,
    "ne": np.not_equal,
}
UNARY = {"abs": np.abs, "sqrt": np.sqrt, "exp": np.exp}
ROUND = {
    0: np.rint,
    1: lambda a: np.trunc(a + np.copysign(a.dtype.type(0.5), a)),
    2: np.floor,
    3: np.ceil,
    4: np.trunc,
}


def _convert(values: np.ndarray, element: str, mode: int) -> np.ndarray:
    dtype = np.dtype(DTYPES[element])
    if values.dtype.kind == "f" and (dtype.kind == "i" or dtype == values.dtype):
        values = ROUND[mode](values)
        if dtype.kind == "i":
            check(np.isfinite(values).all(), f"conversion of a NaN or an infinity to {element}")
            limits = np.iinfo(dtype)
            check((values >= limits.min).all() and (values <= limits.max).all(), f"conversion overflows {element}")
    return values.astype(dtype)


def library_call(name: str, operands: list[Any]) -> None:
    """Do what a library function does.

    Raises
    ------
    Violation
        If an operand lies in the wrong memory or shapes disagree.
    NotImplementedError
        If the function is not known here.
    """
    action, words = _library(name)
    with np.errstate(all="ignore"):
        action(*words, *operands)


@functools.cache
def _library(name: str) -> tuple[Any, tuple[Any, ...]]:
    for pattern, action in _LIBRARY:
        if found := re.fullmatch(pattern, name):
            return action, found.groups()
    raise NotImplementedError(f"library function {name}")


def _value(operand: Any, element: str) -> np.ndarray:
    return operand.read() if isinstance(operand, View) else np.asarray(DTYPES[element](operand))


def _scribble(*views: Any) -> None:
    for view in views:
        if isinstance(view, View):
            view.write(np.full(view.sizes, 85).astype(DTYPES.get(view.element, bool)))


def _move(source_space: str, target_space: str) -> Callable[..., None]:
    def move(source: View, target: View, *_: Any) -> None:
        check(source.space == source_space and target.space == target_space, "a move between the wrong memories")
        check(source.sizes == target.sizes, f"a move of {source.sizes} to {target.sizes}")
        target.write(source.read())

    return move


def _broadcast(source: View, target: View, *temporary: Any) -> None:
    values = source.read()
    _scribble(*temporary)
    target.write(np.broadcast_to(values, target.sizes))


def _binary(name: str, first: View, second: View, target: View, *temporary: Any) -> None:
    operands = first.read(), second.read()
    _scribble(*temporary)
    target.write(ARITHMETIC[name](*operands))


def _binary_scalar(name: str, order: str, ctype: str, first: Any, second: Any, target: View, *temporary: Any) -> None:
    element = C_DTYPES[ctype]
    check(isinstance(first, View) == (order == "vs"), f"operands of {name}s_{order}")
    operands = _value(first, element), _value(second, element)
    _scribble(*temporary)
    target.write(ARITHMETIC[name](*operands))


def _unary(name: str, source: View, target: View, *temporary: Any) -> None:
    values = source.read()
    _scribble(*temporary)
    target.write(UNARY[name](values))


def _compare(name: str, ctype: str, first: View, second: Any, target: View, *_: Any) -> None:
    target.write(COMPARE[name](first.read(), _value(second, C_DTYPES[ctype])))


def _select(_order: str, ctype: str, condition: View, first: Any, second: Any, target: View, *temporary: Any) -> None:
    element = C_DTYPES[ctype]
    values = condition.read(), _value(first, element), _value(second, element)
    _scribble(*temporary)
    target.write(np.where(*values))


def _logic(name: str, first: View, second: View, target: View, *_: Any) -> None:
    target.write((np.logical_and if name == "and" else np.logical_or)(first.read(), second.read()))


def _cast_bool(source: View, target: View, temporary: View, *_: Any) -> None:
    values = source.read()
    _scribble(temporary)
    target.write(values.astype(DTYPES[target.element]))


def _cast(ctype: str, source: View, target: View, *rest: Any) -> None:
    check(target.element == C_DTYPES[ctype], f"a cast to {ctype} into {target.element}")
    values = source.read()
    _scribble(*rest[:-1])
    target.write(_convert(values, target.element, int(rest[-1])))


_LIBRARY: tuple[tuple[str, Callable[..., None]], ...] = (
    (r"load_gm_to_ubuf_\dd_\w+", _move("gm", "ub")),
    (r"store_ubuf_to_gm_\dd_\w+", _move("ub", "gm")),
    (r"copy_ubuf_to_ubuf_\dd_\w+", _move("ub", "ub")),
    (r"broadcast_scalar_\w+_to_\dd", lambda scalar, target: target.write(scalar)),
    (r"broadcast_\w+", _broadcast),
    (r"v(add|sub|mul|div|max|min)_\dd_\w+", _binary),
    (r"v(add|sub|mul|div|max|min)s_(vs|sv)_\dd_(\w+)", _binary_scalar),
    (r"v(abs|sqrt|exp)_\dd_\w+", _unary),
    (r"vcmps?_(ge|le|gt|lt|eq|ne)_\dd_(\w+)", _compare),
    (r"vsel_(vv|vs|sv|ss)_\dd_(?:bool_)?(\w+)", _select),
    (r"v(and|or)_\dd_bool", _logic),
    (r"vcast_bool_to_\w+_\dd_with_temp", _cast_bool),
    (r"vcast_\w+_to_(\w+?)_\dd_with_mode", _cast),
)


_SOURCES = ((r"vsel_.*", 3), (r"v(add|sub|mul|div|max|min|cmp|and|or).*", 2), (r".*", 1))
"""How many operands of a library function come before its target; behind that are temporary buffers."""

_PIPE = ((r"load_.*", MTE2), (r"store_.*", MTE3), (r".*", V))

PIPE_NAMES = {"PIPE_S": S, "PIPE_V": V, "PIPE_MTE2": MTE2, "PIPE_MTE3": MTE3, "PIPE_ALL": ALL}


@functools.cache
def _first(table: tuple[tuple[str, int], ...], name: str) -> int:
    return next(value for pattern, value in table if re.fullmatch(pattern, name))


# ---------------------------------------------------------------------------------------------------------------------
# Operations of the module


class _Int(int):
    """An integer with the division that affine maps have."""

    def __matmul__(self, other: int) -> _Int:
        return _Int(-(-int(self) // int(other)))


for _name in ("add", "sub", "mul", "floordiv", "mod", "neg", "radd", "rsub", "rmul"):

    def _wrapped(self: _Int, *other: int, _name: str = f"__{_name}__") -> _Int:
        return _Int(getattr(int(self), _name)(*map(int, other)))

    setattr(_Int, f"__{_name}__", _wrapped)


@cache
def _affine_function(text: str) -> Callable[..., tuple[int, ...]]:
    found = re.fullmatch(r"\((.*?)\)(?:\[(.*?)\])? -> \((.*)\)", text)
    assert found, text
    names = [n.strip() for group in found.groups()[:2] for n in (group or "").split(",") if n.strip()]
    body = found[3].replace("floordiv", "//").replace("ceildiv", "@").replace(" mod ", " % ")
    body = re.sub(r"(?<![\w])(\d+)", r"I(\1)", body)
    compiled = eval(f"lambda {', '.join(names)}: ({body},)", {"I": _Int})
    return lambda *values: compiled(*map(_Int, values))


PREDICATES = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__lt__", "__le__", "__gt__", "__ge__")
INTEGER = {
    "addi": lambda a, b: a + b,
    "subi": lambda a, b: a - b,
    "muli": lambda a, b: a * b,
    "divsi": lambda a, b: int(math.copysign(abs(a) // abs(b), a * b)),
    "remsi": lambda a, b: int(math.copysign(abs(a) % abs(b), a)),
    "divui": lambda a, b: a // b,
    "remui": lambda a, b: a % b,
    "floordivsi": lambda a, b: a // b,
    "ceildivsi": lambda a, b: -(-a // b),
    "minsi": min,
    "maxsi": max,
    "andi": lambda a, b: a & b,
    "ori": lambda a, b: a | b,
    "xori": lambda a, b: a ^ b,
}
SCALAR = {"addf": "add", "subf": "sub", "mulf": "mul", "divf": "div", "maximumf": "max", "minimumf": "min"}
IGNORED = (
    "hivm.hir.set_mask_norm",
    "memref.dealloc",
    "annotation.mark",
)
SAME = (
    "builtin.unrealized_conversion_cast",
    "memref.cast",
    "llvm.sext",
    "llvm.trunc",
    "llvm.zext",
    "arith.index_cast",
    "arith.index_castui",
    "arith.extsi",
    "arith.extui",
    "arith.trunci",
)


def bin_folder() -> Path:
    found = importlib.util.find_spec("ascendnpuir")
    assert found and found.origin
    return Path(found.origin).parent / "bin"


class Module:
    """A parsed module, ready to run.

    Parameters
    ----------
    path : Path
        What the compiler wrote.
    kernel : str
        Symbol of the kernel.
    """

    def __init__(self, path: Path, kernel: str) -> None:
        command = [bin_folder() / "bishengir-opt", "--mlir-print-op-generic", "--mlir-print-local-scope", path]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        context = Context(allow_unregistered=True)
        for dialect in (builtin.Builtin, func.Func, arith.Arith, memref.MemRef, scf.Scf):
            context.load_dialect(dialect)
        # The parser knows no affine maps with division: they travel as strings.
        parsed = Parser(context, re.sub(r"affine_map<(.*?)>(?=[,}])", r'"\1"', printed)).parse_module()
        self.functions = {o.sym_name.data: o for o in parsed.body.block.ops if isinstance(o, func.FuncOp)}
        self.kernel = kernel
        self.block = 0
        self.calls: dict[str, int] = {}
        self.traces: list[list[Event]] = []
        """What each block of the last call did."""
        self.size = 0
        """Bytes of the space that traces speak of: the unified buffer, then the tensors."""
        self._sites: dict[int, int] = {}

    def __call__(self, *arrays: np.ndarray) -> None:
        """Run the kernel; for open extents, the host's tiling function first and then the variant that it picks."""
        prefix = self.kernel
        sizer = self.functions.get(f"{prefix}_get_tiling_struct_size_function")
        words = self._run(sizer, [])[0] if sizer else 0
        variant = prefix
        if words:
            key, data = np.zeros(1, np.int64), np.zeros(words, np.int64)
            arrays = (*arrays, key, data)
            self._run(self.functions[f"{prefix}_tiling_function"], arrays)
            variant = prefix if prefix in self.functions else f"{prefix}_{key[0]}"
        function = self.functions[variant]
        ends = np.cumsum([UNIFIED_BUFFER, *(array.nbytes for array in arrays)]).tolist()
        starts = [array.__array_interface__["data"][0] for array in arrays]
        self.size, self._places, self.traces = ends[-1], dict(zip(starts, ends, strict=False)), []
        for self.block in range(function.attributes["hacc.block_dim"].value.data):
            self.unified = np.random.default_rng(self.block).integers(0, 256, UNIFIED_BUFFER, dtype=np.uint8)
            self.traces.append([])
            self._run(function, arrays)

    def _note(self, operation: Any, pipe: int, reads: Sequence[Any], writes: Sequence[Any]) -> None:
        """Note what an operation reads and writes, if it is one of a block."""
        if self.traces:

            def spans(views: Sequence[Any]) -> list[tuple[int, int]]:
                return [
                    span
                    for view in views
                    if isinstance(view, View) and view.space != "stack"
                    for span in view.spans(
                        0 if view.space == "ub" else self._places[view.buffer.__array_interface__["data"][0]]
                    )
                ]

            self.traces[-1].append(use(pipe, self._site(operation), spans(reads), spans(writes)))

    def _site(self, operation: Any) -> int:
        return self._sites.setdefault(id(operation), len(self._sites))

    def _run(self, function: Any, arguments: Iterable[Any]) -> list[Any]:
        region = function.body
        block = region.blocks.first
        values: dict[Any, Any] = {}
        for name, argument in zip(block.args, arguments, strict=True):
            if isinstance(argument, np.ndarray):
                # The tiling key comes as a bare pointer.
                element = written(name.type.element_type) if hasattr(name.type, "element_type") else "i64"
                check(argument.dtype == DTYPES[element], f"{argument.dtype} given for {name.type}")
                flat = argument.reshape(-1).view(np.uint8)
                argument = View(flat, element, argument.shape, dense(argument.shape))
            values[name] = argument
        while True:
            result = self._block(block, values)
            if not isinstance(result, tuple):
                return result or []
            block, passed = result
            values.update(zip(block.args, passed, strict=True))

    def _block(self, block: Any, values: dict[Any, Any]) -> Any:
        for operation in block.ops:
            result = self._operation(operation, values)
            if result is not None:
                return result
        return None

    def _operation(self, operation: Any, values: dict[Any, Any]) -> Any:
        name = operation.op_name.data if operation.name == "builtin.unregistered" else operation.name
        operands = [values[o] for o in operation.operands]

        def attribute(key: str) -> Any:
            return operation.properties[key] if key in operation.properties else operation.attributes[key]

        def give(*results: Any) -> None:
            values.update(zip(operation.results, results, strict=False))

        if name in IGNORED:
            return None
        if name in ("hivm.hir.set_flag", "hivm.hir.wait_flag"):
            pipes = [
                PIPE_NAMES[re.search(r"PIPE_\w+", written(attribute(key)))[0]] for key in ("set_pipe", "wait_pipe")
            ]
            number = (
                operands[0] if operands else int(re.search(r"EVENT_ID(\d+)", written(attribute("static_event_id")))[1])
            )
            note = set_flag if name == "hivm.hir.set_flag" else wait_flag
            self.traces[-1].append(note(*pipes, number, self._site(operation)))
            return None
        if name == "hivm.hir.pipe_barrier":
            pipe = PIPE_NAMES[re.search(r"PIPE_\w+", written(attribute("pipe")))[0]]
            self.traces[-1].append(barrier(pipe, self._site(operation)))
            return None
        if name in ("func.return", "scf.yield"):
            return operands
        if name in SAME:
            give(operands[0])
        elif name in ("arith.constant", "llvm.mlir.constant"):
            give(attribute("value").value.data)
        elif name.startswith("affine."):
            function = _affine_function(attribute("map").data)
            give(int({"apply": lambda v: v[0], "min": min, "max": max}[name[7:]](function(*operands))))
        elif name.startswith("arith.") and name[6:] in INTEGER:
            result = INTEGER[name[6:]](*map(int, operands))
            give(result & 1 if written(operation.results[0].type) == "i1" else result)
        elif name.startswith("arith.") and name[6:] in SCALAR:
            dtype = DTYPES[written(operation.results[0].type)]
            with np.errstate(all="ignore"):
                give(ARITHMETIC[SCALAR[name[6:]]](*map(dtype, operands)))
        elif name == "arith.cmpi":
            give(int(getattr(int(operands[0]), PREDICATES[operation.predicate.value.data])(int(operands[1]))))
        elif name == "arith.select":
            give(operands[1] if operands[0] else operands[2])
        elif name == "scf.for":
            return self._for(operation, operands, values)
        elif name == "scf.if":
            region = operation.regions[0 if operands[0] else 1]
            give(*((self._block(region.block, values) or []) if region.blocks else []))
        elif name == "cf.br":
            return operation.successors[0], operands
        elif name == "cf.cond_br":
            split = 1 + list(attribute("operandSegmentSizes").iter_values())[1]
            taken = (operation.successors[0], operands[1:split]), (operation.successors[1], operands[split:])
            return taken[0 if operands[0] else 1]
        elif name == "cf.assert":
            check(operands[0], f"the module's own assertion failed: {attribute('msg')}")
        elif name == "func.call":
            give(*self._call(operation, operation.callee.string_value(), operands))
        elif name == "hivm.hir.get_block_idx":
            give(self.block)
        elif name == "llvm.store":
            operands[1].array()[0] = operands[0]
        else:
            give(*self._memory(name, operation, operands))
        return None

    def _for(self, operation: Any, operands: list[Any], values: dict[Any, Any]) -> None:
        lower, upper, step, *carried = operands
        block = operation.regions[0].block
        for index in range(lower, upper, step):
            values.update(zip(block.args, [index, *carried], strict=True))
            carried = self._block(block, values) or []
        values.update(zip(operation.results, carried, strict=True))

    def _call(self, operation: Any, name: str, operands: list[Any]) -> list[Any]:
        function = self.functions[name]
        if function.body.blocks and function.body.blocks.first.ops.first is not None:
            return self._run(function, operands)
        self.calls[name] = self.calls.get(name, 0) + 1
        library_call(name, operands)
        sources = _first(_SOURCES, name)
        target = operands[sources : sources + 1]
        # Between two calls the library orders its temporary buffers itself (hivmc's IR is checked for that): for others
        # it is as if they were read.
        self._note(operation, _first(_PIPE, name), operands[:sources] + operands[sources + 1 :], target)
        return []

    def _memory(self, name: str, operation: Any, operands: list[Any]) -> list[Any]:
        kind = operation.results[0].type if operation.results else None
        if name == "memref.alloca":
            # The other build of the compiler, for aarch64, keeps a counter on the scalar unit's own stack.
            sizes, element = tuple(kind.get_shape()), written(kind.element_type)
            garbage = np.full(math.prod(sizes) * 8, 0xA5, np.uint8)
            return [View(garbage, element, sizes, dense(sizes), space="stack")]
        source = operands[0]
        if name == "hivm.hir.pointer_cast":
            sizes = tuple(kind.get_shape())
            check("ub" in written(kind.memory_space), f"a buffer in {kind.memory_space}")
            view = View(self.unified, written(kind.element_type), sizes, dense(sizes), base=source, space="ub")
            view._check()
            return [view]
        if name == "memref.view":
            shift, *extents = operands[1:]
            remaining = iter(extents)
            sizes = tuple(next(remaining) if n < 0 else n for n in kind.get_shape())
            view = View(
                source.buffer, written(kind.element_type), sizes, dense(sizes), 0, source.base + shift, source.space
            )
            needed = shift + -(-math.prod(sizes) * view.bits // 8)
            check(needed <= math.prod(source.sizes), f"a view of {needed} bytes in a buffer of {source.sizes}")
            return [view]
        if name == "memref.subview":
            offsets, sizes, strides = _mixed(operation, operands[1:])
            for start, n, stride, extent in zip(offsets, sizes, strides, source.sizes, strict=True):
                inside = start >= 0 and (n <= 0 or start + (n - 1) * stride < extent)
                check(inside, f"subview {offsets} {sizes} of {source.sizes}")
            offset = source.offset + sum(o * s for o, s in zip(offsets, source.strides, strict=True))
            steps = [a * b for a, b in zip(strides, source.strides, strict=True)]
            kept = _kept(kind.get_shape(), list(operation.properties["static_sizes"].iter_values()))
            return [_reshaped(source, [sizes[d] for d in kept], [steps[d] for d in kept], offset)]
        if name == "memref.reinterpret_cast":
            offsets, sizes, strides = _mixed(operation, operands[1:])
            return [_reshaped(source, sizes, strides, offsets[0])]
        if name == "memref.collapse_shape":
            sizes, strides = [], []
            for group in _reassociation(operation):
                real = [d for d in group if source.sizes[d] != 1] or group[-1:]
                for a, b in itertools.pairwise(real):
                    check(source.strides[a] == source.strides[b] * source.sizes[b], "a collapse of what is not dense")
                sizes.append(math.prod(source.sizes[d] for d in group))
                strides.append(source.strides[real[-1]])
            return [_reshaped(source, sizes, strides, source.offset)]
        if name == "memref.expand_shape":
            remaining = iter(operands[1:])
            sizes = [next(remaining) if n < 0 else n for n in kind.get_shape()]
            strides = [0] * len(sizes)
            for stride, group in zip(source.strides, _reassociation(operation), strict=True):
                for d in reversed(group):
                    strides[d] = stride
                    stride *= sizes[d]
            return [_reshaped(source, sizes, strides, source.offset)]
        if name == "memref.extract_strided_metadata":
            return [_reshaped(source, (), (), 0), source.offset, *source.sizes, *source.strides]
        if name == "memref.dim":
            return [source.sizes[operands[1]]]
        if name == "memref.load":
            element = _element(source, operands[1:])
            self._note(operation, S, [element], ())
            return [element.array()[()].item()]
        if name == "memref.store":
            element = _element(operands[1], operands[2:])
            element.write(source)
            self._note(operation, S, (), [element])
            return []
        raise NotImplementedError(f"operation {name}")


_texts: dict[int, tuple[Any, str]] = {}


def written(attribute: Any) -> str:
    """Return an attribute as text, which takes long to print and is asked for whenever its operation runs."""
    if (found := _texts.get(id(attribute))) is None:
        found = _texts[id(attribute)] = (attribute, str(attribute))  # kept, so that the number stays its own
    return found[1]


def _element(view: View, indices: Sequence[int]) -> View:
    for index, extent in zip(indices, view.sizes, strict=True):
        check(0 <= index < extent, f"index {list(indices)} of {view.sizes}")
    return _reshaped(view, (), (), view.offset + sum(i * s for i, s in zip(indices, view.strides, strict=True)))


def _reshaped(view: View, sizes: Sequence[int], strides: Sequence[int], offset: int) -> View:
    return View(view.buffer, view.element, tuple(sizes), tuple(strides), offset, view.base, view.space)


def _mixed(operation: Any, dynamic: Sequence[int]) -> tuple[list[int], ...]:
    """Offsets, sizes and strides, of which some are operands."""
    remaining = iter(dynamic)
    return tuple(
        [next(remaining) if n == DYNAMIC else n for n in operation.properties[f"static_{part}"].iter_values()]
        for part in ("offsets", "sizes", "strides")
    )


def _kept(result: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """The dimensions that a rank-reducing subview keeps."""
    result = list(result)
    if len(result) == len(sizes):
        return list(range(len(sizes)))
    kept: list[int] = []
    for d, n in enumerate(sizes):
        if len(kept) < len(result) and (result[len(kept)] == n or (n == DYNAMIC and result[len(kept)] < 0)):
            kept.append(d)
    check(len(kept) == len(result), f"a subview of rank {len(sizes)} gives rank {len(result)}")
    return kept


def _reassociation(operation: Any) -> list[list[int]]:
    return [[d.value.data for d in group] for group in operation.properties["reassociation"]]

"""What the blocks of a final npuir module do, without data: which pipe gets which instruction, and what orders them.

Reads the text that is handed to the device backend and runs its loops over integers and extents alone.  Knows no time.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import FqError


class UnreadableModule(FqError, ValueError):
    """A module holds what is not known here."""


class Step(NamedTuple):
    """An instruction of a pipe, or what orders the pipes.

    Parameters
    ----------
    kind : {"call", "scalar", "set", "wait", "barrier"}
        A call of the vendor's library; an access of the scalar unit; a flag that is set or waited for; a barrier.
    pipe : str
        ``"S"``, ``"V"``, ``"MTE2"`` or ``"MTE3"``, whose it is; ``"ALL"`` for a barrier of all.  Of a flag, who sets.
    name : str
        Of the library function; of a flag, its number.
    other : str
        Who waits for a flag.
    rows, columns : int
        The extents of what a call visits, as rows that it takes in one piece, in elements.
    bits : int
        Of an element; of a conversion, those of the wider type.
    bytes : int
        Moved from or to a tensor; 0 where data stay on the core.
    gap : int
        Bytes from the end of a row to the next one in the tensor.
    padded : bool
        Whether rows lie apart in the unified buffer.
    spreads : int
        Operands that have one element for each row, to be spread along it.
    """

    kind: str
    pipe: str
    name: str = ""
    other: str = ""
    rows: int = 0
    columns: int = 0
    bits: int = 0
    bytes: int = 0
    gap: int = 0
    padded: bool = False
    spreads: int = 0


Chunk = tuple[Step, ...]
"""Steps that come together; the same ones again are the same object."""


def read(module: str, kernel: str) -> tuple[tuple[Chunk, ...], ...]:
    """Say what each block of a kernel does, in program order.

    Parameters
    ----------
    module : str
        The text handed to the backend.
    kernel : str
        Symbol of a kernel whose extents are all known.

    Returns
    -------
    tuple of tuple of Chunk

    Raises
    ------
    UnreadableModule
        If the module holds no such kernel, or an operation that is not known here.
    """
    try:
        return _read(module, kernel)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UnreadableModule):
            raise
        raise UnreadableModule(f"the module reads otherwise than expected: {type(error).__name__}: {error}") from error


def _read(module: str, kernel: str) -> tuple[tuple[Chunk, ...], ...]:
    maps = dict(re.findall(r"^(#\w+) = affine_map<(.*)>$", module, re.MULTILINE))
    found = re.search(rf"^  func\.func @{kernel}\((.*)\) attributes \{{(.*)\}} \{{\n(.*?)^  \}}", module, _ALL)
    blocks = found and re.search(r"hacc\.block_dim = (\d+)", found[2])
    if not found or not blocks:
        raise UnreadableModule(f"the module holds no kernel {kernel} with a block dimension")
    arguments = {name: _view(kind) for name, kind in re.findall(r"(%\w+): (memref<.*?>>)", found[1])}
    body = _Body(iter([line.strip() for line in found[3].splitlines()]), maps)
    known: dict[Chunk, Chunk] = {}
    return tuple(
        tuple([known.setdefault(chunk, chunk) for chunk in _block(body, {**arguments, _BLOCK: block})])
        for block in range(int(blocks[1]))
    )


_ALL = re.MULTILINE | re.DOTALL


# ---------------------------------------------------------------------------------------------------------------------
# Memory


class _View(NamedTuple):
    """Extents and strides of a memref, in elements."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    bits: int

    def rows(self) -> tuple[int, int, int]:
        """How many contiguous rows there are, their elements, and those from one to the next."""
        dims = [(n, s) for n, s in zip(self.sizes, self.strides, strict=True) if n != 1]
        columns = 1
        while dims and dims[-1][1] == columns:
            columns *= dims.pop()[0]
        return math.prod(n for n, _ in dims), columns, dims[-1][1] if dims else columns


def _dense(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[d + 1 :]) for d in range(len(sizes)))


_MEMREF = re.compile(r"memref<((?:[\d?]+x)*)[a-z]+(\d+)(?:, strided<\[([^\]]*)\].*?>)?")


def _view(kind: str, *extents: int) -> _View:
    """A memref of a type, whose open extents are given.

    A stride that the type leaves open tells no rows apart: it is that of a dimension whose extent is 1.
    """
    found = _MEMREF.match(kind)
    if not found:
        raise UnreadableModule(f"{kind} is no memref that is known here")
    opened = iter(extents)
    sizes = tuple(next(opened) if n == "?" else int(n) for n in found[1].split("x")[:-1])
    dense = _dense(sizes)
    strides = [part for part in (found[3] or "").split(", ") if part]
    kept = tuple(d if s == "?" else int(s) for d, s in zip(dense, strides, strict=True)) if strides else dense
    return _View(sizes, kept, int(found[2]))


# ---------------------------------------------------------------------------------------------------------------------
# Operations

_BLOCK = "block"
_Values = dict[str, Any]


@dataclass(frozen=True)
class _Operation:
    """An operation of a body.

    Parameters
    ----------
    act : callable
        Given the values so far, adds its own, and its steps.
    result : str
    decides : tuple of str
        Values that decide what it does.  An address does not.
    integer : bool
        Whether it does nothing but compute an integer.
    loop : _Loop, optional
    """

    act: Callable[[_Values, list[Step]], None]
    result: str = ""
    decides: tuple[str, ...] = ()
    integer: bool = False
    loop: _Loop | None = None


class _Body:
    """The operations of a function or a loop, and what they did for the values that decide it."""

    def __init__(self, lines: Iterator[str], maps: dict[str, str]) -> None:
        self.operations: list[_Operation] = []
        for line in lines:
            if line.startswith("}"):
                break
            if line:
                self.operations.append(_operation(line, lines, maps))
        own = {o.result: o.integer for o in self.operations}
        used = {name for o in self.operations if not o.integer for name in o.decides}
        self._key = tuple(sorted(name for name in used if own.get(name, True)))
        self._integers: list[_Operation] = []
        wanted = set(used)
        for operation in reversed(self.operations):
            if operation.integer and operation.result in wanted:
                wanted.update(operation.decides)
                self._integers.insert(0, operation)
        self.free = wanted - own.keys()
        self._known: dict[tuple[Any, ...], Chunk] = {}

    def chunk(self, values: _Values) -> Chunk:
        """What it does for some values."""
        for known in self._integers:
            known.act(values, [])
        key = tuple([values[name] for name in self._key])
        if key not in self._known:
            steps: list[Step] = []
            for operation in self.operations:
                operation.act(values, steps)
            self._known[key] = tuple(steps)
        return self._known[key]


@dataclass(frozen=True)
class _Loop:
    index: str
    bounds: tuple[str, str, str]
    body: _Body

    def chunks(self, values: _Values) -> Iterator[Chunk]:
        """What each of its iterations does."""
        for index in range(*[values[bound] for bound in self.bounds]):
            values[self.index] = index
            yield self.body.chunk(values)

    def act(self, values: _Values, steps: list[Step]) -> None:
        for chunk in self.chunks(values):
            steps.extend(chunk)


def _block(body: _Body, values: _Values) -> tuple[Chunk, ...]:
    """What a block does; an iteration of an outermost loop is a chunk."""
    chunks: list[Chunk] = []
    steps: list[Step] = []
    for operation in body.operations:
        if operation.loop:
            chunks += [tuple(steps), *operation.loop.chunks(values)]
            steps = []
        else:
            operation.act(values, steps)
    return (*chunks, tuple(steps))


class _Line(NamedTuple):
    """A line of a body, those behind it, and the affine maps of the module."""

    result: str
    text: str
    following: Iterator[str]
    maps: dict[str, str]

    def match(self, pattern: str) -> re.Match[str]:
        """What a pattern finds at the beginning.

        Raises
        ------
        UnreadableModule
            If it finds nothing.
        """
        if found := re.match(pattern, self.text):
            return found
        raise UnreadableModule(f"the estimate cannot read {self.text[:200]!r}")

    def names(self) -> tuple[str, ...]:
        """Values before the types."""
        return tuple(re.findall(r"%\w+", self.text.split(" : ")[0]))

    def kind(self) -> str:
        """The type of its memref."""
        return self.text[self.text.rindex("memref<") :]


def _operation(text: str, following: Iterator[str], maps: dict[str, str]) -> _Operation:
    """The operation of a line; a loop takes the lines up to its end."""
    result, _, rest = text.partition(" = ") if text.startswith("%") else ("", "", text)
    line = _Line(result, rest, following, maps)
    name = line.match(r"[\w.]+")[0]
    for pattern, make in _OPERATIONS:
        if re.fullmatch(pattern, name):
            return make(line)
    raise UnreadableModule(f"the estimate knows no operation {name}")


def _nothing(line: _Line) -> _Operation:
    return _let(line.result, (), lambda: None, integer=False)


def _let(result: str, decides: tuple[str, ...], value: Callable[..., Any], integer: bool) -> _Operation:
    def act(values: _Values, _: list[Step]) -> None:
        values[result] = value(*[values[name] for name in decides])

    return _Operation(act, result, decides, integer)


def _always(step: Step, result: str = "") -> _Operation:
    def act(values: _Values, steps: list[Step]) -> None:
        values[result] = None
        steps.append(step)

    return _Operation(act, result)


# Integers


def _constant(line: _Line) -> _Operation:
    literal = line.match(r"\S+ (\S+)")[1]
    literals = {"true": 1, "false": 0}
    number = int(literal) if re.fullmatch(r"-?\d+", literal) else literals.get(literal, 0)  # a float decides nothing
    return _let(line.result, (), lambda: number, integer=True)


def _block_index(line: _Line) -> _Operation:
    return _let(line.result, (_BLOCK,), int, integer=True)


def _converted(line: _Line) -> _Operation:
    return _let(line.result, line.names(), int, integer=True)


_ARITHMETIC: dict[str, Callable[..., int]] = {
    "addi": operator.add,
    "subi": operator.sub,
    "muli": operator.mul,
    "xori": operator.xor,
    "andi": operator.and_,
    "ori": operator.or_,
    "cmpi eq": operator.eq,
    "cmpi ne": operator.ne,
}


def _integer(line: _Line) -> _Operation:
    function = _ARITHMETIC[line.match(r"arith\.(cmpi (?:eq|ne)|[a-bd-z]\w+)")[1]]
    return _let(line.result, line.names(), lambda a, b: int(function(a, b)), integer=True)


def _selection(line: _Line) -> _Operation:
    """Of a selection between two buffers of one type it does not matter which."""
    condition, first, second = line.names()
    if "memref<" in line.text:
        return _let(line.result, (first,), lambda view: view, integer=False)
    return _let(line.result, (condition, first, second), lambda c, a, b: a if c else b, integer=True)


def _affine(line: _Line) -> _Operation:
    kind, name, first, second = line.match(r"affine\.(apply|min|max) (#\w+)\((.*?)\)(?:\[(.*?)\])?").groups()
    shape = re.fullmatch(r"\((.*?)\)(?:\[(.*?)\])? -> \((.*)\)", line.maps.get(name, ""))
    body = shape[3].replace("floordiv", "//").replace("mod", "%") if shape else ""
    # Names of its own, numbers and arithmetic: nothing else is evaluated.
    if not shape or not re.fullmatch(r"(?:[ds]?\d+|//|[-+*%(), ])+", body):
        raise UnreadableModule(f"the estimate cannot read the affine map {line.maps.get(name)!r}")
    names = ", ".join(part for part in shape.groups()[:2] if part)
    function = eval(f"lambda {names}: ({body},)", {"__builtins__": {}})
    choose = {"apply": max, "min": min, "max": max}[kind]
    operands = tuple(re.findall(r"%\w+", f"{first} {second or ''}"))
    return _let(line.result, operands, lambda *v: choose(function(*v)), integer=True)


# Memrefs: extents and strides, not addresses


def _buffer(line: _Line) -> _Operation:
    view = _view(line.kind())
    return _let(line.result, (), lambda: view, integer=False)


def _same(line: _Line) -> _Operation:
    return _let(line.result, line.names()[:1], lambda value: value, integer=False)


_EXTENTS = {
    "subview": r"memref\.\w+ %\w+\[[^\]]*\] \[([^\]]*)\]",
    "view": r"memref\.\w+ %\w+\[[^\]]*\]\[([^\]]*)\]",
    "expand_shape": r"memref\.\w+ .*output_shape \[([^\]]*)\]",
}


def _part(line: _Line) -> _Operation:
    """A part of a memref, or other extents for all of it: those that are open are among the operands."""
    kind, pattern = line.kind(), _EXTENTS[line.match(r"memref\.(\w+)")[1]]
    extents = tuple(re.findall(r"%\w+", line.match(pattern)[1]))
    return _let(line.result, extents, lambda *given: _view(kind, *given), integer=False)


def _collapsed(line: _Line) -> _Operation:
    kind = line.kind()
    groups = [[int(d) for d in group.split(", ")] for group in re.findall(r"\[([\d, ]+)\]", line.text.split(" : ")[0])]
    opened = [n == "?" for n in re.findall(r"(\?|\d+)x", kind.split(",")[0])]

    def collapse(view: _View) -> _View:
        extents = [math.prod(view.sizes[d] for d in group) for group in groups]
        return _view(kind, *[n for n, is_open in zip(extents, opened, strict=True) if is_open])

    return _let(line.result, line.names()[:1], collapse, integer=False)


def _extent(line: _Line) -> _Operation:
    return _let(line.result, line.names(), lambda view, dim: view.sizes[dim], integer=False)


# Order and work


def _scalar(line: _Line) -> _Operation:
    return _always(Step("scalar", "S"), line.result)


_FLAG = r"hivm\.hir\.(set|wait)_flag\[<PIPE_(\w+)>, <PIPE_(\w+)>, (?:<EVENT_ID(\d+)>|(%\w+))\]"


def _flag(line: _Line) -> _Operation:
    kind, pipe, other, number, value = line.match(_FLAG).groups()
    if number:
        return _always(Step(kind, pipe, number, other))

    def act(values: _Values, steps: list[Step]) -> None:
        steps.append(Step(kind, pipe, str(values[value]), other))

    return _Operation(act, decides=(value,))


def _barrier(line: _Line) -> _Operation:
    return _always(Step("barrier", line.match(r"\S+\[<PIPE_(\w+)>")[1]))


_SOURCES = ((r"vsel_.*", 3), (r"v(add|sub|mul|div|min|max|cmp|and|or).*", 2), (r".*", 1))
"""How many operands of a library function come before the one that it writes."""


def _call(line: _Line) -> _Operation:
    name, taken = line.match(r"(?:func\.)?call @(\w+)\((.*?)\) : ").groups()
    operands = tuple(re.findall(r"%\w+", taken))
    pipe = {"load": "MTE2", "stor": "MTE3"}.get(name[:4], "V")
    before = next(n for pattern, n in _SOURCES if re.fullmatch(pattern, name))

    def act(values: _Values, steps: list[Step]) -> None:
        sources = [view for o in operands[:before] if isinstance(view := values[o], _View)]
        target: _View = values[operands[before]]
        bits = max(view.bits for view in (target, *sources))
        if pipe == "V":
            spreads = sum(view.sizes[-1:] < target.sizes[-1:] for view in sources)
            rows, columns, _ = target.rows()
            if any(view.sizes != target.sizes for view in sources):  # the library goes row by row
                rows, columns = math.prod(target.sizes[:-1]), target.sizes[-1]
            steps.append(Step("call", pipe, name, "", rows, columns, bits, spreads=spreads))
            return
        tensor, near = (sources[0], target) if pipe == "MTE2" else (target, sources[0])
        (rows, columns, _), (there, length, step) = near.rows(), tensor.rows()
        padded, gap = rows > 1, (step - length) * bits // 8
        if there > rows:
            rows, columns = there, length
        steps.append(Step("call", pipe, name, "", rows, columns, bits, rows * columns * bits // 8, gap, padded))

    return _Operation(act, decides=operands)


def _for(line: _Line) -> _Operation:
    index, *bounds = line.match(r"scf\.for (%\w+) = (%\w+) to (%\w+) step (%\w+) \{").groups()
    body = _Body(line.following, line.maps)
    loop = _Loop(index, (bounds[0], bounds[1], bounds[2]), body)
    return _Operation(loop.act, decides=(*bounds, *sorted(body.free - {index})), loop=loop)


_OPERATIONS: tuple[tuple[str, Callable[[_Line], _Operation]], ...] = (
    (r"arith\.constant", _constant),
    (r"arith\.(index_cast|extui|extsi|trunci)", _converted),
    (r"arith\.(add|sub|mul|xor|and|or|cmp)i", _integer),
    (r"arith\.select", _selection),
    (r"arith\.\w+f|hivm\.hir\.set_mask_norm|return|annotation\.mark", _nothing),
    (r"affine\.\w+", _affine),
    (r"hivm\.hir\.get_block_idx", _block_index),
    (r"hivm\.hir\.pointer_cast", _buffer),
    (r"memref\.cast", _same),
    (r"memref\.(subview|view|expand_shape)", _part),
    (r"memref\.collapse_shape", _collapsed),
    (r"memref\.dim", _extent),
    (r"memref\.(load|store)", _scalar),
    (r"hivm\.hir\.(set|wait)_flag", _flag),
    (r"hivm\.hir\.pipe_barrier", _barrier),
    (r"(func\.)?call", _call),
    (r"scf\.for", _for),
)

"""A vector core of Atlas A2 for the intrinsics that hivmc's LLVM IR and the vendor's library bitcode call.

Every block starts with a unified buffer full of garbage; every access is checked against it or against a tensor, and
for its alignment.  What an intrinsic means is taken from the names that the bitcode carries for it (``vmuls`` for
``VMULS``), from the packing of its operands in that bitcode, and from the public pages of asc-devkit, the vendor's C
API; docs/ascend.md says where these are silent and what is assumed.  Each access is noted with its pipe, for
:mod:`pipe_order`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from pipe_order import ALL, MTE2, MTE3, PIPES, Event, S, V, barrier, set_flag, use, wait_flag

UNIFIED = 192 * 1024
COMPARE_MASK = slice(UNIFIED, UNIFIED + 16)
"""Where the register of compare masks lies: behind the unified buffer, so that its order is checked, too."""

LINE = 64
"""Bytes of a line of the scalar unit's data cache."""

_COUNTER = 56
"""Bit of CTRL: the mask counts elements instead of choosing lanes."""

_INFINITIES = 48
"""Bit of CTRL: a conversion of too large a number gives an infinity.  CANN's runtime sets it by default."""


class Violation(AssertionError):
    """A kernel does what hardware would not survive, or what nobody knows."""


def check(holds: object, message: str) -> None:
    if not holds:
        raise Violation(message)


class Lanes(NamedTuple):
    """The elements that an instruction visits: so many, of repeats of so many lanes, of which a word chooses some."""

    count: int
    lanes: int
    chosen: int = -1

    @property
    def index(self) -> np.ndarray:
        """Number of each element that takes part; repeat times lanes, plus lane."""
        return _chosen(self)


@cache
def _chosen(visited: Lanes) -> np.ndarray:
    index = np.arange(visited.count)
    if visited.chosen < 0:
        return index
    word = np.array([visited.chosen >> i & 1 for i in range(visited.lanes)], bool)
    return index[word[index % visited.lanes]]


@cache
def _elements(visited: Lanes, size: int, block: int, repeat: int) -> np.ndarray:
    """Where the elements of an instruction lie, in elements from its start: lanes fill blocks of 32 bytes."""
    index, lanes, per_block = visited.index, visited.lanes, 32 // size
    lane = index % lanes
    return (index // lanes * repeat + lane // per_block * block) * per_block + lane % per_block


@cache
def _spans(visited: Lanes, size: int, block: int, repeat: int) -> tuple[tuple[int, int], ...]:
    """The same as intervals of bytes."""
    return tuple(_merged(np.unique(_elements(visited, size, block, repeat)) * size, size))


def _rows(start: int, count: int, length: int, step: int) -> list[tuple[int, int]]:
    if step == length:
        return [(start, start + count * length)]
    return [(start + i * step, start + i * step + length) for i in range(count)]


def _merged(places: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Sorted elements of a size, by their first bytes, as intervals."""
    if not places.size:
        return []
    breaks = np.flatnonzero(np.diff(places) != size)
    starts, ends = places[np.r_[0, breaks + 1]], places[np.r_[breaks, places.size - 1]] + size
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _field(word: int, low: int, bits: int) -> int:
    return word >> low & (1 << bits) - 1


ROUND: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "r": np.rint,
    "a": lambda a: np.trunc(a + np.copysign(a.dtype.type(0.5), a)),
    "f": np.floor,
    "c": np.ceil,
    "z": np.trunc,
}
"""Rounding to integers by the letter in an intrinsic's name: nearest even, nearest away, down, up, towards zero."""

TYPES = {"f32": np.float32, "f16": np.float16, "s32": np.int32, "s8": np.int8, "b8": np.uint8}
TYPES |= {
    "b16": np.uint16,
    "b32": np.uint32,
    "u32": np.uint32,
    "u16": np.uint16,
    "i8": np.uint8,
    "i16": np.uint16,
    "i32": np.uint32,
    "i64": np.uint64,
}


def _ordered(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def apply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        check(not (np.isnan(a).any() or np.isnan(b).any()), "maximum or minimum of a NaN")
        return function(a, b)

    return apply


ARITHMETIC = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "DIV": np.divide,
    "MAX": _ordered(np.maximum),
    "MIN": _ordered(np.minimum),
}
COMPARE = {
    "EQ": np.equal,
    "NE": np.not_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "LT": np.less,
    "LE": np.less_equal,
}


class Operand(NamedTuple):
    """A vector of an instruction; strides count blocks of 32 bytes."""

    address: int
    kind: Any
    block: int
    repeat: int

    @property
    def size(self) -> int:
        return np.dtype(self.kind).itemsize

    def spans(self, visited: Lanes) -> list[tuple[int, int]]:
        """The bytes that an instruction touches of it."""
        relative = _spans(visited, self.size, self.block, self.repeat)
        return [(self.address + a, self.address + b) for a, b in relative]


class Compare(NamedTuple):
    """A compare whose lanes count once their bits are used."""

    event: int
    target: int
    sources: list[Operand]
    places: list[np.ndarray]
    counts: np.ndarray
    width: int


class Device:
    """A core, the tensors that it was given, and what it did.

    Parameters
    ----------
    tensors : sequence of numpy.ndarray
        Contiguous.  The kernel sees them far apart from each other.
    """

    def __init__(self, tensors: Sequence[np.ndarray]) -> None:
        self.tensors = [t.reshape(-1).view(np.uint8) for t in tensors]
        self.addresses = [(i + 1) << 32 for i in range(len(tensors))]
        ends = np.cumsum([UNIFIED + LINE, *(-(-t.size // LINE) * LINE for t in self.tensors)]).tolist()
        self.places = ends[:-1]
        """Where each tensor lies in the flat space that traces speak of: after the unified buffer, by lines."""
        self.size = ends[-1]
        self.garbage = np.random.default_rng(0)

    def start(self, block: int) -> None:
        """Forget everything but the tensors, for the next block."""
        self.block = block
        self.unified = np.random.default_rng(block).integers(0, 256, UNIFIED + 32, dtype=np.uint8)
        self.control = 1 << _INFINITIES
        self.mask = {0: 2**64 - 1, 1: 2**64 - 1}
        self.padding = 0
        self.stored: list[tuple[int, int, bytes]] = []
        self.trace: list[Event] = []
        self.compares: list[Compare] = []
        self.bits_of = np.zeros(UNIFIED, np.int32)
        """By which compare a byte was written, counted from 1."""

    def finish(self) -> list[Event]:
        """End a block."""
        check(not self.stored, "scalar stores to a tensor stay in the data cache")
        for compare in self.compares:
            self._settle(compare)
        return self.trace

    def call(self, name: str, site: int, operands: Sequence[int]) -> int:
        """Do what an intrinsic does, or a scalar load or store."""
        head, *rest = name.split(".")
        with np.errstate(all="ignore"):
            return getattr(self, f"_{head.lower()}")(site, rest, *operands) or 0

    # Memory

    def _check_unified(self, start: int, stop: int) -> None:
        check(0 <= start <= stop <= UNIFIED, f"an access to bytes {start} to {stop} of the unified buffer")

    def _tensor(self, address: int, size: int) -> tuple[np.ndarray, int, int]:
        """The tensor at an address, the offset in it, and its place in the flat space."""
        index = (address >> 32) - 1
        offset = address & 0xFFFFFFFF
        check(0 <= index < len(self.tensors), f"an access to {address:#x}, where no tensor is")
        bytes_ = self.tensors[index].size
        check(offset + size <= bytes_, f"an access to bytes {offset} to {offset + size} of tensor {index}, of {bytes_}")
        return self.tensors[index], offset, self.places[index] + offset

    def _use(self, pipe: int, site: int, reads: Sequence[tuple[int, int]], writes: Sequence[tuple[int, int]]) -> None:
        self.trace.append(use(pipe, site, reads, writes))
        for start, stop in writes:
            if start < UNIFIED:
                self.bits_of[start:stop] = 0

    def _load(self, site: int, rest: list[str], address: int) -> int:
        dtype = np.dtype(f"u{np.dtype(TYPES[rest[0]]).itemsize}")
        check(address % dtype.itemsize == 0, f"a scalar load of {dtype} from {address}")
        if rest[1] == "gm":
            tensor, offset, place = self._tensor(address, dtype.itemsize)
            check(not self.stored, "a scalar load from a tensor while stores are in the data cache")
            self._use(S, site, [(place, place + dtype.itemsize)], ())
            return int(tensor[offset : offset + dtype.itemsize].view(dtype)[0])
        self._check_unified(address, address + dtype.itemsize)
        self._use(S, site, [(address, address + dtype.itemsize)], ())
        return int(self.unified[address : address + dtype.itemsize].view(dtype)[0])

    def _store(self, site: int, rest: list[str], value: int, address: int) -> None:
        dtype = np.dtype(TYPES[rest[0]])
        check(address % dtype.itemsize == 0, f"a scalar store of {dtype} to {address}")
        data = value.to_bytes(8, "little")[: dtype.itemsize]
        if rest[1] == "gm":
            # It stays in the data cache until that is cleaned.  A cleaned line is written whole.
            _, _, place = self._tensor(address, dtype.itemsize)
            self.stored.append((site, address, data))
            line = place // LINE * LINE
            self._use(S, site, (), [(line, line + LINE)])
            return
        self._check_unified(address, address + dtype.itemsize)
        self._use(S, site, (), [(address, address + dtype.itemsize)])
        self.unified[address : address + dtype.itemsize] = np.frombuffer(data, np.uint8)

    def _dcci(self, site: int, rest: list[str], address: int, whole: int) -> None:
        check(whole == 1, "only a part of the data cache is cleaned")
        for _, address, data in self.stored:
            tensor, offset, _ = self._tensor(address, len(data))
            tensor[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        self.stored = []

    # Registers of the scalar unit

    def _get(self, site: int, rest: list[str]) -> int:
        return {"CTRL": self.control, "BLOCK": self.block}[rest[0]]

    def _sbitset0(self, site: int, rest: list[str], word: int, bit: int) -> int:
        return word & ~(1 << bit)

    def _sbitset1(self, site: int, rest: list[str], word: int, bit: int) -> int:
        return word | 1 << bit

    def _set(self, site: int, rest: list[str], *operands: int) -> None:
        {
            "CTRL": self._set_control,
            "FLAG": self._set_flag,
            "CMPMASK": self._set_compare_mask,
            "MOV": self._set_padding,
        }[rest[0]](site, *operands)

    def _set_control(self, site: int, word: int) -> None:
        self.control = word

    def _set_padding(self, site: int, value: int) -> None:
        self.padding = value

    def _movemask(self, site: int, rest: list[str], half: int, value: int) -> None:
        self.mask[half] = value

    def _trap(self, site: int, rest: list[str]) -> None:
        raise Violation("a trap")

    # Order

    def _set_flag(self, site: int, source: int, target: int, event: int) -> None:
        self.trace.append(set_flag(source, target, event, site))

    def _wait(self, site: int, rest: list[str], source: int, target: int, event: int) -> None:
        self.trace.append(wait_flag(source, target, event, site))

    def _barrier(self, site: int, rest: list[str], pipe: int) -> None:
        check(pipe in (*PIPES, ALL), f"a barrier of pipe {pipe}")
        self.trace.append(barrier(pipe, site))

    # Copies between a tensor and the unified buffer: bursts, which in the unified buffer fill blocks of 32 bytes

    def _mov(self, site: int, rest: list[str], target: int, source: int, shape: int, gaps: int) -> None:
        size = np.dtype(TYPES[rest[4]]).itemsize
        count, length = _field(shape, 4, 12), _field(shape, 16, 21)
        left, right = _field(shape, 48, 6) * size, _field(shape, 54, 6) * size
        source_gap, target_gap = _field(gaps, 0, 32), _field(gaps, 32, 32)
        check(count and length, f"a copy of {count} bursts of {length} bytes")
        check(left <= 32 and right <= 32, f"a padding of {left} and {right} bytes")
        inward = rest[0] == "OUT"
        near, far = (target, source) if inward else (source, target)
        near_gap, far_gap = (target_gap, source_gap) if inward else (source_gap, target_gap)
        check(near % 32 == 0, f"a copy that begins at byte {near} of the unified buffer")
        check(far % size == 0, f"a copy that begins at {far:#x}, which is no multiple of {size} bytes")
        filled = -(-(left + length + right) // 32) * 32
        near_step, far_step = filled + near_gap * 32, length + far_gap
        self._check_unified(near, near + (count - 1) * near_step + filled)
        tensor, offset, place = self._tensor(far, (count - 1) * far_step + length)
        outside, inside = _rows(place, count, length, far_step), _rows(near, count, filled, near_step)
        if inward:
            padding = np.frombuffer(self.padding.to_bytes(8, "little")[:size] * 32, np.uint8)
            for i in range(count):
                row = self.unified[near + i * near_step :][:filled]
                row[:] = self.garbage.integers(0, 256, filled, dtype=np.uint8)
                row[:left] = padding[:left]
                row[left : left + length] = tensor[offset + i * far_step :][:length]
                row[left + length : left + length + right] = padding[:right]
            self._use(MTE2, site, outside, inside)
        else:
            for i in range(count):
                tensor[offset + i * far_step :][:length] = self.unified[near + i * near_step + left :][:length]
            self._use(MTE3, site, inside, outside)

    # Vectors

    def _visited(self, lanes: int, repeats: int) -> Lanes:
        if self.control >> _COUNTER & 1:
            return Lanes(self.mask[0], lanes)
        every = (1 << lanes) - 1
        word = (self.mask[0] | self.mask[1] << 64) & every
        return Lanes(repeats * lanes, lanes, -1 if word == every else word)

    def _reach(self, operand: Operand, visited: Lanes) -> np.ndarray:
        """Indices of elements in the unified buffer seen as an array of their type."""
        check(operand.address % 32 == 0, f"a vector that begins at byte {operand.address}")
        index = _elements(visited, operand.size, operand.block, operand.repeat)
        if index.size:
            self._check_unified(operand.address, operand.address + (int(index.max()) + 1) * operand.size)
        return operand.address // operand.size + index

    def _apply(
        self,
        site: int,
        target: Operand,
        sources: Sequence[Operand],
        visited: Lanes,
        function: Callable[..., np.ndarray],
        more: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Compute element by element; ``more`` is what else the instruction reads."""
        places = [self._reach(source, visited) for source in sources]
        result = function(*(self._seen(s.kind)[p] for s, p in zip(sources, places, strict=True)))
        to = self._reach(target, visited)
        if visited.count > visited.lanes:
            for source, read in zip(sources, places, strict=True):
                self._check_overlap(target, to, source, read, visited)
        self._seen(target.kind)[to] = result
        self._use(V, site, [*more, *(span for s in sources for span in s.spans(visited))], target.spans(visited))

    def _seen(self, kind: Any) -> np.ndarray:
        return self.unified[:UNIFIED].view(kind)

    @staticmethod
    def _check_overlap(target: Operand, to: np.ndarray, source: Operand, read: np.ndarray, visited: Lanes) -> None:
        """No repeat may read what an earlier one wrote."""
        if (target == source and target.repeat >= 8) or not read.size:
            return
        repeat_of = visited.index // visited.lanes
        written, read = to * target.size, read * source.size
        if read.max() < written.min() or read.min() >= written.max() + target.size:
            return
        earliest = np.full(UNIFIED, visited.count)
        for byte in range(target.size):
            earliest[written[::-1] + byte] = repeat_of[::-1]
        for byte in range(source.size):
            check((earliest[read + byte] >= repeat_of).all(), "a repeat reads what an earlier one wrote")

    @staticmethod
    def _unary_strides(word: int) -> tuple[tuple[int, int], tuple[int, int], int]:
        """Block and repeat stride of target and source, and repeats."""
        target = _field(word, 0, 16), _field(word, 32, 8) | _field(word, 52, 4) << 8
        return target, (_field(word, 16, 16), _field(word, 40, 12)), _field(word, 56, 8)

    def _binary_operands(self, kind: Any, addresses: Sequence[int], word: int) -> list[Operand]:
        return [
            Operand(address, kind, _field(word, 8 * i, 8), _field(word, 24 + 8 * i, 8))
            for i, address in enumerate(addresses)
        ]

    def _binary(self, site: int, rest: list[str], target: int, first: int, second: int, word: int, name: str) -> None:
        kind = TYPES[rest[0]]
        to, *sources = self._binary_operands(kind, (target, first, second), word)
        self._apply(site, to, sources, self._visited(256 // to.size, _field(word, 56, 8)), ARITHMETIC[name])

    def _scalar(self, site: int, rest: list[str], target: int, source: int, scalar: int, word: int, name: str) -> None:
        kind, function = TYPES[rest[0]], ARITHMETIC[name]
        value = np.frombuffer(scalar.to_bytes(8, "little"), kind, 1)[0]
        to, of, repeats = self._unary_strides(word)
        operands = Operand(target, kind, *to), Operand(source, kind, *of)
        visited = self._visited(256 // operands[0].size, repeats)
        self._apply(site, operands[0], operands[1:], visited, lambda a: function(a, value))

    def _vconv(self, site: int, rest: list[str], target: int, source: int, word: int) -> None:
        found = re.fullmatch(r"(f32|f16|s32)2(f32|f16|s8)([afrcoz]?)", rest[0])
        check(found, f"a conversion {rest[0]}")
        of, to, mode = found.groups()
        target_strides, source_strides, repeats = self._unary_strides(word)
        operands = Operand(target, TYPES[to], *target_strides), Operand(source, TYPES[of], *source_strides)
        visited = self._visited(256 // max(o.size for o in operands), repeats)
        self._apply(site, operands[0], operands[1:], visited, lambda values: self._converted(values, to, mode))

    def _converted(self, values: np.ndarray, to: str, mode: str) -> np.ndarray:
        dtype = np.dtype(TYPES[to])
        if dtype == values.dtype or dtype.kind == "i":
            values = ROUND[mode](values)
        elif (values.dtype, to) != (np.float16, "f32"):
            # Numpy rounds to the nearest even.
            check(mode == "r", f"a conversion of {values.dtype} to {to} in mode {mode!r}")
            check(self.control >> _INFINITIES & 1, "a conversion that saturates")
        if dtype.kind == "i":
            limits = np.iinfo(dtype)
            inside = (values >= limits.min) & (values <= limits.max)
            check(inside.all(), f"a conversion to {to} of a NaN or of a number that it does not have")
        return values.astype(dtype)

    def _movev(self, site: int, rest: list[str], target: int, value: int, word: int) -> None:
        strides, _, repeats = self._unary_strides(word)
        to = Operand(target, TYPES[rest[0]], *strides)
        data = np.frombuffer(value.to_bytes(8, "little"), to.kind, 1)[0]
        self._apply(site, to, [], self._visited(256 // to.size, repeats), lambda: data)

    def _vcopy(self, site: int, rest: list[str], target: int, source: int, word: int) -> None:
        """A copy; while masks count, each repeat takes so many elements, as the library's broadcasts want it."""
        to, of, repeats = self._unary_strides(word)
        operands = Operand(target, TYPES[rest[0]], *to), Operand(source, TYPES[rest[0]], *of)
        visited = self._visited(256 // operands[0].size, repeats)
        if self.control >> _COUNTER & 1:
            visited = Lanes(repeats * self.mask[0], self.mask[0])
        self._apply(site, operands[0], operands[1:], visited, lambda values: values)

    def _vbrcb(self, site: int, rest: list[str], target: int, source: int, word: int) -> None:
        """Each of 8 elements fills a block; no mask."""
        strides, _, repeats = self._unary_strides(word)
        to, of = Operand(target, TYPES[rest[0]], *strides), Operand(source, TYPES[rest[0]], 1, 0)
        lanes = 256 // to.size
        visited, given = Lanes(lanes * repeats, lanes), Lanes(8 * repeats, 8 * repeats)
        values = self._seen(of.kind)[self._reach(of, given)]
        reads, writes = of.spans(given), to.spans(visited)
        check(not any(a < reads[-1][1] and b > reads[0][0] for a, b in writes), "a broadcast over its own source")
        self._seen(to.kind)[self._reach(to, visited)] = np.repeat(values, 32 // to.size)
        self._use(V, site, reads, writes)

    def _vcmpv(self, site: int, rest: list[str], target: int, first: int, second: int, word: int) -> None:
        """Bits of all repeats, one after another; no mask.

        The library compares whole repeats where the last has fewer elements.  Who reads the bits decides which lanes
        count: see :meth:`_consume`.
        """
        kind, repeats = TYPES[rest[1]], _field(word, 56, 8)
        _, *sources = self._binary_operands(kind, (target, first, second), word)
        lanes = 256 // sources[0].size
        visited, width = Lanes(lanes * repeats, lanes), lanes // 8
        check(not self.control >> _COUNTER & 1, "a compare while masks count")
        check(target % 32 == 0, f"a compare that begins at byte {target}")
        self._check_unified(target, target + width * repeats)
        places = [self._reach(source, visited) for source in sources]
        bits = np.packbits(COMPARE[rest[0]](*(self._seen(kind)[p] for p in places)), bitorder="little")
        self.unified[target : target + bits.size] = bits
        self._use(V, site, (), [(target, target + bits.size)])
        compare = Compare(len(self.trace) - 1, target, sources, places, np.zeros(visited.count, bool), width)
        self.compares.append(compare)
        self.bits_of[target : target + bits.size] = len(self.compares)

    def _consume(self, start: int, stop: int, lanes: int | None = None) -> None:
        """Somebody reads bytes, or so many bits of them: which lanes of a compare count?"""
        for number in np.unique(self.bits_of[start:stop]).tolist():
            if number:
                compare = self.compares[number - 1]
                bits = 8 * (start - compare.target) + np.arange(8 * (stop - start))[:lanes]
                inside = bits[(bits >= 0) & (bits < compare.counts.size)]
                compare.counts[inside[self.bits_of[compare.target + inside // 8] == number]] = True

    def _settle(self, compare: Compare) -> None:
        """Put into the trace what the lanes of a compare that count read."""
        reads = []
        for source, places in zip(compare.sources, compare.places, strict=True):
            counting = places[compare.counts] * source.size
            repeat = np.flatnonzero(compare.counts) // (8 * compare.width)
            written = compare.target + repeat * compare.width
            overlap = (counting + source.size > compare.target) & (counting < written)
            check(not overlap.any(), "a compare reads what an earlier repeat wrote")
            reads += _merged(np.unique(counting), source.size)
        event = self.trace[compare.event]
        self.trace[compare.event] = use(
            V, event.site, reads, [(compare.target, compare.target + compare.counts.size // 8)]
        )

    def _set_compare_mask(self, site: int, address: int) -> None:
        check(address % 16 == 0, f"a compare mask at byte {address}")
        self._check_unified(address, address + 16)
        self.unified[COMPARE_MASK] = self.unified[address : address + 16]
        self._use(V, site, [(address, address + 16)], [(UNIFIED, UNIFIED + 16)])

    def _vsel(self, site: int, rest: list[str], target: int, first: int, second: int, word: int) -> None:
        kind, mode = TYPES[rest[0]], _field(word, 48, 2)
        check(mode in (1, 2), f"a selection in mode {mode}")
        to, *sources = self._binary_operands(kind, (target, first, second), word)
        visited = self._visited(256 // to.size, _field(word, 56, 8))
        check(visited.chosen < 0, "a selection of chosen lanes")
        register = self.unified[COMPARE_MASK]
        chooser = second if mode == 1 else int(register[:8].view(np.uint64)[0])
        end = chooser + -(-visited.count // 8)
        self._check_unified(chooser, end)
        bits = np.unpackbits(self.unified[chooser:end], bitorder="little")[: visited.count].astype(bool)
        self._consume(chooser, end, visited.count)
        # The bits are noted apart from the rest: they are no bytes that a compare has to have written whole.
        more = [(UNIFIED, UNIFIED + 16), (chooser, end)]
        if mode == 1:
            scalar = register[: to.size].view(kind)[0]
            self._apply(site, to, sources[:1], visited, lambda a: np.where(bits, a, scalar), more)
        else:
            self._apply(site, to, sources, visited, lambda a, b: np.where(bits, a, b), more)


def _vector(name: str, scalar: bool) -> Callable[..., None]:
    def instruction(self: Device, site: int, rest: list[str], *operands: int) -> None:
        (self._scalar if scalar else self._binary)(site, rest, *operands, name)

    return instruction


for _name in ARITHMETIC:
    setattr(Device, f"_v{_name.lower()}", _vector(_name, False))
    setattr(Device, f"_v{_name.lower()}s", _vector(_name, True))

"""How long a kernel takes on the vector cores of Atlas A2 and A3, estimated from what its blocks do.

No NPU was asked.  Every figure below names where it is published, or says that it is an assumption; ``docs/ascend.md``
says what the estimate is calibrated on, and what not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .npuir_trace import Chunk, Step

PIPES = ("MTE2", "V", "MTE3", "S")
"""Loads, vectors, stores, scalars."""


@dataclass(frozen=True)
class Processor:
    """Public figures of a processor.

    Parameters
    ----------
    hertz : float
        Clock of a vector core: ``cube_freq`` of CANN's ``platform_config/<SoC>.ini``.
    memory : float
        Bytes a second of the memory of a die, reads and writes together: product pages of Atlas 800T A2 and 300I A2.
    """

    hertz: float
    memory: float = 1.6e12


PROCESSORS = {
    "Ascend910B1": Processor(1.85e9),
    "Ascend910B2": Processor(1.8e9),
    "Ascend910B3": Processor(1.8e9),
    # Half of the memory of the others; that it has half of the bandwidth is an assumption.
    "Ascend910B4": Processor(1.5e9, 0.8e12),
    "Ascend910_9382": Processor(1.8e9),
    "Ascend910_9391": Processor(1.85e9),
    # The clocks of these are assumed to be those of their relatives.
    "Ascend910B2C": Processor(1.8e9),
    "Ascend910B4-1": Processor(1.5e9, 0.8e12),
    "Ascend910_9362": Processor(1.8e9),
    "Ascend910_9372": Processor(1.8e9),
    "Ascend910_9381": Processor(1.8e9),
    "Ascend910_9392": Processor(1.85e9),
}
"""By SoC.  Ascend 950 is missing: its vector unit is another."""

# Cycles of the vector pipe: those of a repeat, which is 256 bytes, and those of a call, from the linear fits in CANN's
# graph engine (cann/ge, autofuse/att/.../v1/perf_param_v1.cpp, for dav-c220): cycles = k * elements + b.
_REPEAT = 256
_VECTOR: tuple[tuple[str, float, float], ...] = (
    (r"v(adds|subs)_\w+", 0.902, 22.1),
    (r"vmuls_\w+", 0.909, 23.1),
    (r"v(mins|maxs)_\w+", 0.909, 20.1),
    (r"vadd_\w+", 1.318, 23.2),
    (r"vsub_\w+", 1.363, 22.1),
    (r"vmul_\w+", 1.318, 23.2),
    (r"v(min|max)_\w+", 1.376, 20.1),
    (r"vdivs?_\w+", 2.906, 29.1),
    (r"vcmps?_\w+", 1.984, 21.0),
    (r"vsel_\w+", 1.466, 44.0),
    (r"vcast_float_to_half_\w+", 0.557, 20.4),
    (r"vcast_half_to_u?int8_t_\w+", 1.062, 19.9),
    (r"vcast_bool_to_\w+", 1.510 + 0.998, 46.0 + 17.0),  # a constant and a selection
    (r"vcast_\w+", 0.941, 20.1),  # that of float16 to float32; for int32 and for rounding it is an assumption
    (r"broadcast_\w+|copy_\w+", 0.998, 17.0),
    (r".*", 1.376, 29.1),  # an assumption for all others
)
_SPREAD = (0.934, 13.1)
"""Of what spreads one element along a row: 8 rows a repeat."""

# Copies, from the same source (ascendc_api_perf_v1.cpp): cycles = bytes / rate + head, where the rate falls with the
# number of blocks.  Loads have two fits, below and from 25000 bytes; that these are the bytes of a block, not of a
# copy, is how they are read here, as otherwise more bytes would take less time.
_LOAD_FITS = ((7.9052, 7.3100, 882.09, 15.89), (9.9074, 15.8960, 1575.03, 32.72))
"""Rate for many blocks, and for one beyond that; cycles before the first load, and for each block."""
_LOAD_THRESHOLD = 25000
_LOAD_HEAD, _LOAD_GAP = 27.01, 0.07
_STORE_RATE = (9.96, 3.79)
_STORE_HEAD, _STORE_GAP = 12.09, 0.02
_GAP_MODULUS = 256
_KERNEL_HEAD, _VECTOR_HEAD, _STORE_END = 300.0, 37.37, 497.36

# From the call of a copy to its data, beyond what a copy of many takes: the intercepts of the measured tables of
# MindStudio's mskpp (resource910b.cpp: 1 KiB in 7.3 GB/s and 8 KiB in 42.7 for loads, 11.4 and 57.8 for stores).
_LATENCY = {"MTE2": 239.0, "MTE3": 149.0, "V": 0.0, "S": 0.0}

_DISPATCH = 4.0
"""Cycles in which the scalar unit hands out an instruction or a flag, or reads a scalar: an assumption."""

_TICKS = 64
"""Of a cycle.  Times are whole numbers, so that the same state of the pipes is seen again."""


@dataclass(frozen=True)
class Estimate:
    """What a kernel is expected to take.

    Parameters
    ----------
    seconds : float
        From the first instruction of a block to the end of the last one; without the launch.
    limit : float
        Seconds in which the memory could move x, out, mask and the parameters once.
    bytes_read, bytes_written : int
        What all blocks move from and to tensors.
    blocks : int
        How many are launched.
    busy : mapping of str to float
        Seconds that each pipe of the slowest block works: MTE2, V, MTE3 and S.
    head : float
        Seconds before the first load of a block and behind its last store.
    """

    seconds: float
    limit: float
    bytes_read: int
    bytes_written: int
    blocks: int
    busy: Mapping[str, float]
    head: float

    def least(self, share: float = 1.0) -> float:
        """Seconds that no other order of the same work undercuts.

        Parameters
        ----------
        share : float
            Of what the slowest block does, what it would still have to do if other cores took the rest.
        """
        return max(self.limit, self.head + share * max(self.busy.values()))

    def __str__(self) -> str:
        busy = ", ".join(f"{pipe} {100 * time / self.seconds:.0f} %" for pipe, time in self.busy.items())
        return (
            f"{1e6 * self.seconds:.1f} us estimated, {1e6 * self.limit:.1f} us at the limit of the memory; "
            f"{self.blocks} blocks, of whose time {busy}"
        )


def estimate(blocks: Sequence[Sequence[Chunk]], soc: str, least_bytes: int) -> Estimate | None:
    """Estimate the time of a kernel.

    Parameters
    ----------
    blocks : sequence of sequence of Chunk
        What each block does: :func:`~fq_tvm.ascend.npuir_trace.read`.
    soc : str
        The processor.
    least_bytes : int
        Bytes that the operator cannot do without moving.

    Returns
    -------
    Estimate or None
        None where nothing is published of the processor.
    """
    processor = PROCESSORS.get(soc)
    if processor is None:
        return None
    known: dict[tuple[int, ...], tuple[float, dict[str, float], int, int]] = {}
    results = []
    for block in blocks:
        key = tuple(map(id, block))
        if key not in known:
            known[key] = _block_time(block, len(blocks))
        results.append(known[key])
    read, written = sum(result[2] for result in results), sum(result[3] for result in results)
    slowest, busy, *_ = max(results, key=lambda result: result[0])
    return Estimate(
        max(slowest / processor.hertz, (read + written) / processor.memory),
        least_bytes / processor.memory,
        read,
        written,
        len(blocks),
        {pipe: busy[pipe] / processor.hertz for pipe in PIPES},
        busy["head"] / processor.hertz,
    )


def cycles(step: Step, blocks: int, large: bool) -> float:
    """Cycles for which a step occupies its pipe.

    Parameters
    ----------
    step : Step
    blocks : int
        How many run at once.
    large : bool
        Whether the block loads more than a few tiles: see the fits.
    """
    if step.kind != "call":
        return 0.0
    row = step.columns * step.bits // 8
    if step.pipe == "V":
        repeats = step.rows * -(-step.columns * step.bits // (8 * _REPEAT))
        slope, head = next((k, b) for name, k, b in _VECTOR if re.fullmatch(name, step.name))
        spread = step.spreads * (_SPREAD[0] * -(-step.rows // 8) + _SPREAD[1])
        return repeats * slope + head + spread
    if step.pipe == "MTE2":
        many, one, *_ = _LOAD_FITS[large]
        # Rows that lie apart fill blocks of 32 bytes in the unified buffer.
        moved = step.rows * max(row, 32) if step.padded else step.bytes
        return moved / (many + one / blocks) + _LOAD_HEAD + _LOAD_GAP * step.rows * (step.gap % _GAP_MODULUS)
    rate = _STORE_RATE[0] + _STORE_RATE[1] / blocks
    if row % 32 == 0:
        return step.bytes / rate + _STORE_HEAD + _STORE_GAP * step.rows * (step.gap % _GAP_MODULUS)
    if row < 32:  # a fit for each row, which is read, changed and written
        return step.rows * ((-0.101 * blocks - 2.2) * row + 8.89 * blocks + 96.24) + _STORE_HEAD
    if row <= 512:
        return step.bytes / 2 + 1.3
    return step.bytes / rate + max(_STORE_HEAD, 256 - 512 / rate)


def _load_head(large: bool, blocks: int) -> float:
    *_, base, each = _LOAD_FITS[large]
    return base + each * blocks


def _block_time(block: Sequence[Chunk], blocks: int) -> tuple[float, dict[str, float], int, int]:
    """Cycles of a block, those of each pipe, and bytes read and written."""
    counts: dict[int, list[Any]] = {}
    for chunk in block:
        counts.setdefault(id(chunk), [chunk, 0])[1] += 1
    totals = {pipe: sum(n * s.bytes for chunk, n in counts.values() for s in chunk if s.pipe == pipe) for pipe in PIPES}
    large = totals["MTE2"] >= _LOAD_THRESHOLD
    ticks = {step: round(_TICKS * cycles(step, blocks, large)) for chunk, _ in counts.values() for step in chunk}
    pipes = _Pipes(ticks, _load_head(large, blocks))
    for chunk in block:
        pipes.run(chunk)
    busy = {
        pipe: sum(n * ticks[s] for chunk, n in counts.values() for s in chunk if s.kind == "call" and s.pipe == pipe)
        for pipe in PIPES
    }
    busy["S"] = round(_TICKS * _DISPATCH) * sum(n * len(chunk) for chunk, n in counts.values())
    busy["head"] = round(_TICKS * (_KERNEL_HEAD + _load_head(large, blocks) + _STORE_END))
    return pipes.end() / _TICKS, {p: t / _TICKS for p, t in busy.items()}, totals["MTE2"], totals["MTE3"]


class _Pipes:
    """The pipes of a core while a block runs.

    The scalar unit hands out instructions in program order and waits for flags that are meant for it; each other pipe
    takes its instructions one after another and waits for flags on its own.  A flag is set when all is done that its
    pipe was handed before.  A barrier of one pipe takes no time: what a call takes includes its latency.
    """

    def __init__(self, ticks: Mapping[Step, int], load_head: float) -> None:
        self._ticks = ticks
        start = _KERNEL_HEAD * _TICKS
        heads = {"MTE2": load_head, "V": _VECTOR_HEAD}
        self._free = {pipe: round(start + heads.get(pipe, 0.0) * _TICKS) for pipe in PIPES}
        """When a pipe takes its next instruction."""
        self._done = dict(self._free)
        """When all is done that it was handed."""
        self._latency = {pipe: round(cycles * _TICKS) for pipe, cycles in _LATENCY.items()}
        self._flags: dict[tuple[str, str, str], tuple[int, ...]] = {}
        """When each set of a flag that was not waited for yet comes."""
        self._stored = False
        self._known: dict[tuple[Any, ...], tuple[int, tuple[Any, ...]]] = {}

    def run(self, chunk: Chunk) -> None:
        """Do a chunk: as at another time, if the pipes stood to each other as now."""
        base = self._free["S"]
        key = (id(chunk), self._state(base))
        if key not in self._known:
            for step in chunk:
                self._step(step)
            self._known[key] = self._free["S"] - base, self._state(self._free["S"])
            return
        passed, (free, done, flags) = self._known[key]
        now = base + passed
        self._free = {pipe: t + now for pipe, t in zip(PIPES, free, strict=True)}
        self._done = {pipe: t + now for pipe, t in zip(PIPES, done, strict=True)}
        self._flags = {flag: tuple([t + now for t in times]) for flag, times in flags}

    def end(self) -> float:
        """When the block ends."""
        return max(self._done.values()) + (_STORE_END * _TICKS if self._stored else 0.0)

    def _state(self, base: int) -> tuple[Any, ...]:
        return (
            tuple([t - base for t in self._free.values()]),
            tuple([t - base for t in self._done.values()]),
            tuple([(flag, tuple([t - base for t in times])) for flag, times in self._flags.items()]),
        )

    def _step(self, step: Step) -> None:
        free, done = self._free, self._done
        free["S"] += round(_DISPATCH * _TICKS)
        done["S"] = free["S"]
        if step.kind == "call":
            free[step.pipe] = max(free[step.pipe], free["S"]) + self._ticks[step]
            done[step.pipe] = free[step.pipe] + self._latency[step.pipe]
            self._stored = self._stored or step.pipe == "MTE3"
        elif step.kind == "set":
            flag = (step.pipe, step.other, step.name)
            self._flags[flag] = (*self._flags.get(flag, ()), max(done[step.pipe], free["S"]))
        elif step.kind == "wait":
            flag = (step.pipe, step.other, step.name)
            first, *rest = self._flags.pop(flag, (free["S"],))
            if rest:
                self._flags[flag] = tuple(rest)
            free[step.other] = max(free[step.other], first)
        elif step.kind == "barrier" and step.pipe == "ALL":
            last = max(done.values())
            self._free = dict.fromkeys(PIPES, last)
            self._done = dict(self._free)

"""Whether flags and barriers order what the pipes of a vector core do to the same bytes.

A trace is what one block did, in program order.  Pipes run at once: of two instructions of different pipes, or of the
same one, only flags and barriers say which ends before the other begins.  Three things are taken for granted beside
what the vendor's public pages promise of these (asc-devkit: SetFlag/WaitFlag, PipeBarrier); the vendor's compiler and
library rely on each:

- The scalar pipe runs in order and hands out the instructions of the others, so that while it waits for a flag, none of
  the later ones begins.
- A vector instruction does not write what an earlier vector instruction has yet to read.
- A flag counts: what sets it twice before it is waited for lets two waits pass.  Where that matters is noted.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

S, V, MTE2, MTE3, ALL = 0, 1, 4, 5, 6
PIPES = (S, V, MTE2, MTE3)
NAMES = {S: "S", V: "V", MTE2: "MTE2", MTE3: "MTE3", ALL: "ALL"}


class Event(NamedTuple):
    """An access of a pipe, a flag, a barrier or a register, and the place in the program that it comes from."""

    kind: str
    site: int
    pipe: int
    target: int = 0
    flag: int = 0
    reads: Any = ()
    writes: Any = ()


def use(pipe: int, site: int, reads: Any, writes: Any) -> Event:
    """Bytes that an instruction reads and writes: intervals."""
    return Event("use", site, pipe, reads=_where(reads), writes=_where(writes))


def set_flag(source: int, target: int, flag: int, site: int) -> Event:
    return Event("set", site, source, target, flag)


def wait_flag(source: int, target: int, flag: int, site: int) -> Event:
    return Event("wait", site, source, target, flag)


def barrier(pipe: int, site: int) -> Event:
    return Event("barrier", site, pipe)


def register(pipe: int, site: int) -> Event:
    """A register that a pipe's instructions read is written by a pipe that waits for its own instructions first."""
    return Event("register", site, pipe)


def _where(spans: Iterable[tuple[int, int]]) -> tuple[Any, ...]:
    """Indices of numpy for intervals: slices, or one array where they are many."""
    spans = list(spans)
    if len(spans) <= 4:
        return tuple(slice(a, b) for a, b in spans)
    bounds = np.array(spans)
    starts, lengths = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
    steps = np.arange(lengths.max())
    return ((starts[:, None] + steps)[steps < lengths[:, None]],)


class Clock:
    """What each pipe knows of the others while a trace goes on.

    Parameters
    ----------
    size : int
        Bytes of the space that the events speak of.

    Attributes
    ----------
    found : list of str
        What was left to chance: pairs of accesses that nothing orders, and waits that nothing ends.
    early : list of str
        Flags that are set when nothing says that the one before was waited for.  Flags are taken to count; were they
        single bits, such a one could be lost.
    """

    def __init__(self, size: int) -> None:
        self.found: list[str] = []
        self.early: list[str] = []
        self._known = {p: dict.fromkeys(PIPES, 0) for p in PIPES}
        """What of each pipe a pipe knows to have ended: all up to a number."""
        self._issued = dict.fromkeys(PIPES, 0)
        self._flags: dict[tuple[int, int, int], deque[dict[int, int]]] = defaultdict(deque)
        self._free: dict[tuple[int, int, int], tuple[int, int]] = defaultdict(lambda: (S, 0))
        """Of a flag that was waited for: the pipe that did, and its number there."""
        self._last = {kind: np.zeros((len(PIPES), size), np.int32) for kind in ("read", "wrote")}
        """Of each pipe and byte the number of the last instruction that did."""

    def step(self, event: Event) -> None:
        """Go on by an event."""
        getattr(self, f"_{event.kind}")(event)

    def end(self) -> list[str]:
        """What was found, and flags that stay set."""
        return self.found + [f"flag {_flag(key)} stays set" for key, pending in self._flags.items() if pending]

    def _knows(self, pipe: int) -> dict[int, int]:
        """What has ended before an instruction of a pipe begins."""
        own, dispatcher = self._known[pipe], self._known[S]
        # The scalar unit hands out instructions in program order: while it waits, none of the later ones begins.
        return {p: own[p] if p == S else max(own[p], dispatcher[p]) for p in PIPES}

    def _barrier(self, event: Event) -> None:
        for p in PIPES if event.pipe == ALL else (event.pipe,):
            self._known[p].update(self._issued if event.pipe == ALL else {p: self._issued[p]})

    _register = _barrier

    def _set(self, event: Event) -> None:
        key, knows = (event.pipe, event.target, event.flag), self._knows(event.pipe)
        pending = self._flags[key]
        waiter, number = self._free[key]
        if pending or (waiter != S and knows[waiter] < number):  # a later set is not even handed out while S waits
            self.early.append(f"flag {_flag(key)} may be set before it was waited for (site {event.site})")
        pending.append({**knows, event.pipe: self._issued[event.pipe]})

    def _wait(self, event: Event) -> None:
        key = (event.pipe, event.target, event.flag)
        if not self._flags[key]:
            self.found.append(f"nothing sets flag {_flag(key)} that site {event.site} waits for")
            return
        waiter = self._known[event.target]
        for p, number in self._flags[key].popleft().items():
            waiter[p] = max(waiter[p], number)
        # The wait is an instruction itself: who knows of it may set the flag again.
        self._issued[event.target] += 1
        self._free[key] = event.target, self._issued[event.target]
        self._known[S][S] = self._issued[S]

    def _use(self, event: Event) -> None:
        pipe = event.pipe
        knows = self._knows(pipe)
        self._issued[pipe] += 1
        for places, doing, others in ((event.reads, "reads", ("wrote",)), (event.writes, "writes", ("wrote", "read"))):
            for where in places:
                for other in others:
                    last = self._last[other][:, where].max(axis=1, initial=0).tolist()
                    for p, number in zip(PIPES, last, strict=True):
                        if (p, pipe, doing, other) == (V, V, "writes", "read"):
                            continue  # in order, see above
                        if number > knows[p]:
                            self.found.append(
                                f"{NAMES[pipe]} {doing} (site {event.site}) what {NAMES[p]} {other}, unordered"
                            )
        for places, doing in ((event.reads, "read"), (event.writes, "wrote")):
            for where in places:
                self._last[doing][PIPES.index(pipe), where] = self._issued[pipe]
        self._known[S][S] = self._issued[S]


def problems(trace: Sequence[Event], size: int, without: frozenset[int] = frozenset()) -> list[str]:
    """Say what a trace without the flags and barriers of some sites leaves to chance; the first thing is enough."""
    clock = Clock(size)
    for event in trace:
        if event.kind in ("use", "register") or event.site not in without:
            clock.step(event)
            if clock.found:
                return clock.found
    return clock.end()


def _flag(key: tuple[int, int, int]) -> str:
    return f"{NAMES[key[0]]} to {NAMES[key[1]]} {key[2]}"


def sites(trace: Iterable[Event]) -> dict[str, set[frozenset[int]]]:
    """What can be taken away: barriers, single flags, and all sites of a flag that belong together."""
    barriers: set[int] = set()
    singles: set[int] = set()
    joined: dict[int, int] = {}

    def root(site: int) -> int:
        while joined.setdefault(site, site) != site:
            site = joined[site]
        return site

    pending: dict[tuple[int, int, int], deque[int]] = defaultdict(deque)
    for event in trace:
        key = (event.pipe, event.target, event.flag)
        if event.kind == "barrier":
            barriers.add(event.site)
        elif event.kind == "set":
            singles.add(event.site)
            pending[key].append(event.site)
        elif event.kind == "wait":
            singles.add(event.site)
            if pending[key]:
                joined[root(event.site)] = root(pending[key].popleft())
    groups: dict[int, set[int]] = defaultdict(set)
    for site in singles:
        groups[root(site)].add(site)
    return {
        "barriers": {frozenset([b]) for b in barriers},
        "flags": {frozenset([s]) for s in singles},
        "flags with their waits": {frozenset(g) for g in groups.values()},
    }


class Tally:
    """How many flags and barriers are caught when they are taken away in turn, and how many are proven redundant.

    A flag or barrier is redundant if every block is in order without it.
    """

    def __init__(self) -> None:
        self.caught: Counter[str] = Counter()
        self.redundant: Counter[str] = Counter()
        self.modules = 0

    def add(self, traces: Sequence[Sequence[Event]], size: int) -> None:
        """Count those of a module by the traces of its blocks."""
        self.modules += 1
        longest = sorted(traces, key=len, reverse=True)
        for kind, groups in sites(event for trace in traces for event in trace).items():
            caught = sum(any(problems(trace, size, group) for trace in longest) for group in groups)
            self.caught[kind] += caught
            self.redundant[kind] += len(groups) - caught

    def check(self) -> None:
        """Require that both kinds of answers were given, and that one half of a flag never goes unnoticed."""
        assert self.redundant["flags"] == 0
        assert self.caught["barriers"] > self.redundant["barriers"] > 0
        assert self.caught["flags with their waits"] > self.redundant["flags with their waits"]

    def __str__(self) -> str:
        return "".join(
            f"  {kind}: {self.caught[kind]} caught when taken away, {self.redundant[kind]} proven redundant "
            f"({self.modules} modules)\n"
            for kind in self.caught
        )


def conflicts(traces: Sequence[Sequence[Event]], size: int, shared: int) -> list[str]:
    """Say which bytes from ``shared`` on two blocks touch, at least one of them writing: nothing orders blocks."""
    wrote, read = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    found = []
    for block, trace in enumerate(traces):
        mine: dict[str, list[Any]] = {"reads": [], "writes": []}
        for event in trace:
            for kind, places in mine.items():
                places += [w for w in getattr(event, kind) if (w.stop if isinstance(w, slice) else w[-1] + 1) > shared]
        for where in mine["reads"]:
            if ((wrote[where] >= 0) & (wrote[where] != block)).any():
                found.append(f"block {block} reads what another wrote")
        for where in mine["writes"]:
            for other in (wrote, read):
                if ((other[where] >= 0) & (other[where] != block)).any():
                    found.append(f"block {block} writes what another touches")
        for kind, memory in (("reads", read), ("writes", wrote)):
            for where in mine[kind]:
                memory[where] = block
    return found

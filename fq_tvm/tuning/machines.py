"""Where trials run: on this machine, or on all servers of a key at a tracker of :mod:`tvm.rpc` at once.

Knows which machines there are, gives each one trial at a time, and gives a trial that lost its machine to another; what
a trial is, and what follows from it, the caller knows.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from ..environment import import_tvm
from ..errors import FqError
from ..interruption import fork_safe_lock
from ..target import Target
from .worker import LostError, TrialError, Worker

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 2
"""How many machines a trial may lose.  TVM's server ends with a session that crashes: what crashes them is not to go
round until none is left, and what a machine took along with it is tried again."""

START_SECONDS = 120.0
"""How long a worker may take to start, and to be given a server; all of them may be busy."""

POLL_SECONDS, PATIENCE_SECONDS = 2.0, 60.0
"""How often the tracker is asked how many servers there are, and how long to wait for one when there is none."""


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """What came of a trial.

    Parameters
    ----------
    trial : object
        As it was proposed.
    machine : str
        The one that it ran on, from its first measurement to its last.
    result : object, optional
        What the attempt returned.
    error : str, optional
        Why there is no result.
    """

    trial: T
    machine: str
    result: R | None = None
    error: str | None = None


def servers(rpc: str, key: str) -> int:
    """Count the servers of a key at a tracker, free or busy.

    Parameters
    ----------
    rpc : str
        ``HOST:PORT`` of the tracker.
    key : str
        Of the servers.

    Raises
    ------
    FqError
        If there is no tracker.
    """
    host, _, port = rpc.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()  # TVM itself would try for a minute
        tracker = import_tvm("tvm.rpc").connect_tracker(host, int(port))
        try:
            known = tracker.summary()["server_info"]
        finally:
            tracker.close()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise FqError(f"no machine {key!r} at the tracker {rpc}: {reason}") from error
    return sum(server["key"] == f"server:{key}" for server in known)


class _Place(threading.Thread):
    """A worker, and the thread that waits for its answers; every event is put into a queue with the place."""

    def __init__(self, worker: Worker, events: queue.Queue[tuple[str, _Place, Any]]) -> None:
        super().__init__(daemon=True)
        self.worker = worker
        self.machine = ""
        self.target: Target | None = None
        self.work: queue.Queue[Callable[[], Any] | None] = queue.Queue()
        self.closing = fork_safe_lock(threading.Event)
        self._events = events

    def run(self) -> None:
        while not self.closing.is_set():
            try:
                self.target = Target.from_json(self.worker.ask({"ask": "target"}, START_SECONDS))
                self.machine = self.worker.ask({"ask": "machine"}, START_SECONDS)
            except FqError as error:
                self._events.put(("away", self, error))
                self.closing.wait(1.0)
                continue
            self._events.put(("ready", self, None))
            while (work := self.work.get()) is not None:
                try:
                    self._events.put(("done", self, work()))
                except LostError as error:
                    self._events.put(("lost", self, error))
                    break
                except TrialError as error:
                    self._events.put(("failed", self, error))
                except BaseException as error:  # of the caller's own code: it is the caller's thread that shall have it
                    self._events.put(("raised", self, error))

    def close(self) -> None:
        self.closing.set()
        self.work.put(None)
        self.worker.close()


@dataclass(frozen=True)
class _Running(Generic[T]):
    """A trial, how many machines it lost, and for which call of :meth:`Machines.each` it is."""

    trial: T
    lost: int
    generation: int


class _Ended(NamedTuple):
    """The end of a trial: ``done``, ``failed``, ``lost`` or ``raised``, where, and the result or the reason."""

    run: _Running[Any]
    event: str
    machine: str
    value: Any

    def done(self) -> Done[Any, Any]:
        """Return what came of it, where it is not begun anew."""
        if self.event == "done":
            return Done(self.run.trial, self.machine, self.value)
        return Done(self.run.trial, self.machine, error=str(self.value))


class Machines:
    """The machines of a search, as many as there are; a context manager, which ends their processes.

    They have to be of one kind: the first one's CPU is what code is generated for, and a server that says to have
    another is left alone.  What is compared is compared on one machine; see :meth:`each`.

    Parameters
    ----------
    rpc : str, optional
        ``HOST:PORT`` of a tracker; this machine alone by default.
    key : str
        Of the servers there.
    note : callable, optional
        Told of each machine that comes and goes: its name, ``"joined"``, ``"lost"`` or ``"refused"``, and why.

    Raises
    ------
    FqError
        On entering, if there is no tracker, no server of the key, or nothing can be measured there.
    """

    def __init__(self, rpc: str | None = None, key: str = "", note: Callable[[str, str, str], None] | None = None):
        self.rpc, self.key = rpc, key
        self._note = note or (lambda *_: None)
        self._events: queue.Queue[tuple[str, _Place, Any]] = queue.Queue()
        self._places: list[_Place] = []
        self._idle: deque[_Place] = deque()
        self._refused: list[_Place] = []
        self._running: dict[_Place, _Running[Any]] = {}
        self._away: dict[_Place, FqError] = {}
        self._polled = -POLL_SECONDS
        self._generation = 0
        self._target: Target | None = None

    def __enter__(self) -> Machines:
        try:
            self._await_one()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for place in self._places:
            place.close()
        for place in self._places:
            place.join(10)

    @property
    def target(self) -> Target:
        """The CPU that code is generated for, the same for all of them."""
        assert self._target is not None  # since it was entered
        return self._target

    @property
    def names(self) -> tuple[str, ...]:
        """Of the machines that are there now."""
        return tuple(place.machine for place in (*self._running, *self._idle))

    def ask(self, request: Mapping[str, Any], timeout: float) -> Any:
        """Ask the machine that an attempt runs on, within :meth:`each` or :meth:`on_every_one`.

        Raises
        ------
        TrialError, LostError
            As :meth:`Worker.ask`.
        """
        place = threading.current_thread()
        assert isinstance(place, _Place), "a machine is asked by an attempt"
        return place.worker.ask(request, timeout)

    def renew(self) -> None:
        """Have what the attempt's machine measures next in another process, or on a server loaded anew.

        A server keeps its session: whoever gave it back might be given another.
        """
        place = threading.current_thread()
        assert isinstance(place, _Place), "a machine is asked by an attempt"
        if self.rpc is None:
            place.worker.stop()  # the next question starts another
        else:
            place.worker.ask({"ask": "renew"}, START_SECONDS)

    def each(self, propose: Callable[[], T | None], attempt: Callable[[T], R]) -> Iterator[Done[T, R]]:
        """Try what is proposed, a trial on each machine at a time, and give what came of it in the order of time.

        A trial has one machine for all its measurements.  Where that goes meanwhile, the trial is begun anew on
        another, :data:`ATTEMPTS` times at most.

        Parameters
        ----------
        propose : callable
            Asked in the caller's thread whenever a machine is free: the next trial, or None if there is none for now.
            It is over when None was said and nothing runs.
        attempt : callable
            Called with a trial in a thread of the machine's: measures by way of :meth:`ask` and returns the result, or
            raises :class:`~fq_tvm.tuning.worker.TrialError`.

        Yields
        ------
        Done
            One for each trial.

        Raises
        ------
        FqError
            If no machine is left, and none comes for a minute.
        """
        self._generation += 1
        waiting: deque[_Running[T]] = deque()

        def take() -> _Running[T] | None:
            if waiting:
                return waiting.popleft()
            return None if (trial := propose()) is None else _Running(trial, 0, self._generation)

        while True:
            while self._idle and (run := take()) is not None:
                self._begin(self._idle.popleft(), run, attempt)
            if not self._is_running():
                if self._idle or (run := take()) is None:
                    return
                waiting.append(run)  # nothing runs that could change what is proposed
                self._await_one()
            elif (ended := self._next_end()) is not None:
                if ended.event == "lost" and ended.run.lost + 1 < (ATTEMPTS if self.rpc else 1):
                    waiting.append(replace(ended.run, lost=ended.run.lost + 1))
                else:
                    yield ended.done()

    def on_every_one(self, attempt: Callable[[], R]) -> list[Done[None, R]]:
        """Do the same once on each machine that is there, all at a time, and return what came of it.

        Raises
        ------
        FqError
            If no machine is left, and none comes for a minute.
        """
        self._generation += 1
        self._await_one()
        for place in self._idle:
            self._begin(place, _Running(None, 0, self._generation), lambda _: attempt())
        self._idle.clear()
        done: list[Done[None, R]] = []
        while self._is_running():
            if (ended := self._next_end()) is not None:
                done.append(ended.done())
        return done

    def _begin(self, place: _Place, run: _Running[T], attempt: Callable[[T], Any]) -> None:
        self._running[place] = run
        place.work.put(partial(attempt, run.trial))

    def _is_running(self) -> bool:
        return any(run.generation == self._generation for run in self._running.values())

    def _next_end(self) -> _Ended | None:
        """Return the end of a trial of now, if there is one soon; what the caller's own code raised is raised."""
        if (ended := self._next_event()) is None or ended.run.generation != self._generation:
            return None
        if ended.event == "raised":
            raise ended.value
        return ended

    def _await_one(self) -> None:
        """Wait until a machine is free."""
        end = time.monotonic() + (PATIENCE_SECONDS if self._target else 2 * START_SECONDS)
        while not self._idle:
            self._next_event()
            reasons = list(self._away.values())
            started = self._target is not None and self.rpc is not None
            if (len(reasons) == len(self._places) and not started) or time.monotonic() > end:
                if self.rpc is None:
                    raise reasons[-1]
                reason = reasons[-1] if reasons else "all are busy"
                raise FqError(f"no machine {self.key!r} is left at the tracker {self.rpc}: {reason}")

    def _resize(self) -> None:
        """Have as many workers as there are servers; one that has none waits at the tracker for the next."""
        wanted = 1
        if self.rpc is not None:
            if time.monotonic() < self._polled + POLL_SECONDS:
                return
            try:
                wanted = servers(self.rpc, self.key)
            except FqError:
                if self._target is None:
                    raise
                return  # who has a session needs no tracker
            finally:
                self._polled = time.monotonic()
            if not wanted and self._target is None:
                raise FqError(
                    f"no machine {self.key!r} at the tracker {self.rpc}; "
                    f"start one: python -m tvm.exec.rpc_server --tracker {self.rpc} --key {self.key}"
                )
        used = {*self._running, *self._idle, *self._refused}
        for place in [place for place in self._places if place not in used][: max(0, len(self._places) - wanted)]:
            self._places.remove(place)
            self._away.pop(place, None)
            place.close()
        while len(self._places) < wanted:
            self._places.append(_Place(Worker(self.rpc, self.key), self._events))
            self._places[-1].start()

    def _next_event(self) -> _Ended | None:
        """Take what happened next, if anything does soon; return it if it is the end of a trial."""
        self._resize()
        try:
            event, place, value = self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None
        if place not in self._places:  # closed meanwhile
            return None
        self._away.pop(place, None)
        if event == "away":
            self._away[place] = value
            return None
        if event == "ready":
            assert place.target is not None
            self._target = self._target or place.target
            if place.target == self._target:
                self._idle.append(place)
                self._note(place.machine, "joined", "")
            else:  # it keeps its session, or the tracker would hand it to us again and again
                self._refused.append(place)
                self._note(place.machine, "refused", f"its CPU is {place.target.cpu}, not {self._target.cpu}")
            return None
        if event == "lost":
            self._note(place.machine, "lost", str(value))
        else:
            self._idle.append(place)
        return _Ended(self._running.pop(place), event, place.machine, value)

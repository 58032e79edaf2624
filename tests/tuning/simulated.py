"""Machines of a search that are simulated: they answer at once, and a clock of their own says how long that took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fq_tvm import Schedule
from fq_tvm.launch.registry import current_target
from fq_tvm.target import Target
from fq_tvm.tuning import experiment, measure, search
from fq_tvm.tuning.machines import Done
from fq_tvm.tuning.worker import TrialError


@dataclass
class Simulated:
    """One machine, in place of :class:`fq_tvm.tuning.machines.Machines` and of the clock of those who use it.

    ``time_of`` gives the time of a call by the class of its kernel and its schedule, or raises a TrialError; ``start``
    and ``build`` are the seconds that a process takes to start, and a kernel to be built.
    """

    time_of: Callable[[str, Schedule], float]
    start: float = 1.0
    build: float = 0.5
    now: float = 0.0
    rpc: None = None
    target: Target = field(default_factory=current_target)
    starts: bool = False
    built: set[str] = field(default_factory=set)

    def install(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(search, "Machines", lambda *_: self)
        for module in (search, experiment, measure):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def renew(self) -> None:
        self.starts = True

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        contenders = request["contenders"]
        new = {str(contender) for contender in contenders} - self.built
        self.now += request["seconds"] + self.build * len(new) + self.start * self.starts
        self.built |= new
        self.starts = False
        seconds = [self.time_of(c["spec"]["iteration"], Schedule.from_json(c["schedule"])) for c in contenders]
        times = {str(number): [value] * 40 for number, value in enumerate(seconds)}
        return {"times": times, "regime": {"tensors": request["tensors"], "threads": 1, "layer": "serial"}}

    def each(self, propose: Callable[[], Any], attempt: Callable[[Any], Any]) -> Iterator[Done[Any, Any]]:
        while (trial := propose()) is not None:
            yield self._done(trial, lambda trial=trial: attempt(trial))

    def on_every_one(self, attempt: Callable[[], Any]) -> list[Done[Any, Any]]:
        return [self._done(None, attempt)]

    def _done(self, trial: Any, attempt: Callable[[], Any]) -> Done[Any, Any]:
        try:
            return Done(trial, "here", attempt())
        except TrialError as error:
            return Done(trial, "here", error=str(error))

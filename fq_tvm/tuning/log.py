"""The log of searches, a JSON object a line, which docs/schedules.md describes.

Knows the lines; not how they came about.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FqError
from ..schedule import Schedule
from .experiment import MOST, Gain, History, Trial, number, of_type

FORMAT = 2
"""Version of the lines; trials of another are not gone on from, nor shown."""

DAMAGED = (KeyError, TypeError, ValueError, FqError)
"""What is raised of a line that no search wrote; it is passed over."""


def read_log(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a log; those that a killed process left unfinished are passed over, and no log has none."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(entry := json.loads(line), dict):
                    yield entry


@dataclass(frozen=True)
class Result:
    """What came of a search.

    Parameters
    ----------
    name : str
        What was searched for, in words.
    start, best : Schedule
        What the search began with, and the best that it found.
    kept : bool
        Whether there is a record of it.
    gain : Gain
        Of what is kept, or else of the best, over the first, in rounds that had no part in finding it.
    why : str
        Why it is kept or not.
    measured : dict
        As :attr:`~fq_tvm.store.records.Record.measured`.
    """

    name: str
    start: Schedule
    best: Schedule
    kept: bool
    gain: Gain
    why: str
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changes(self) -> str:
        """The knobs in which the best differs from the first: ``rows 64``."""
        first = self.start.to_json()
        knobs = [f"{knob} {value}" for knob, value in self.best.to_json().items() if value != first[knob]]
        return ", ".join(knobs) or "the default"

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a line of the log."""
        best, gain = self.best.to_json(), self.gain.to_json()
        return {"name": self.name, "best": best, "kept": self.kept, "gain": gain, "why": self.why}


@dataclass
class LoggedSearch:
    """What a log has of the search of one job, perhaps made in several runs of the tuner.

    Parameters
    ----------
    name : str
        Of the job, in words; a number tells those of one name apart.
    history : History
        The trials.
    result : Result, optional
        Of several the last one.
    error : str
        Why there is none.
    """

    name: str
    history: History
    result: Result | None = None
    error: str = "the log has no result"


def searches(path: str | Path) -> list[LoggedSearch]:
    """Return the searches of a log in the order in which they began.

    Raises
    ------
    FqError
        If it has none that this version reads.
    OSError
        If it cannot be read.
    """
    Path(path).stat()
    found: dict[str, LoggedSearch] = {}
    named: Counter[str] = Counter()
    for entry in read_log(path):
        with contextlib.suppress(*DAMAGED):
            kind, job = entry["kind"], of_type(entry["job"], str)
            if kind == "search" and entry["format"] == FORMAT and job not in found:
                name, start = _name(entry), Schedule.from_json(entry["start"])
                named[name] += 1
                name = name if named[name] == 1 else f"{name}, search {named[name]}"
                found[job] = LoggedSearch(name, History(start))
            elif kind in ("trial", "check") and job in found:
                go_on(found[job].history, entry)
            elif kind == "result" and job in found and "error" in entry:
                found[job].error = of_type(entry["error"], str)
            elif kind == "result" and job in found:
                found[job].result = _result(found[job], entry)
    if not found:
        raise FqError(f"{path} has no searches that this version reads; expected a log of fq-tvm tune, format {FORMAT}")
    return list(found.values())


def go_on(history: History, entry: Mapping[str, Any]) -> None:
    """Take the trial of a line into the history of its search.

    Raises
    ------
    KeyError, TypeError, ValueError, FqError
        If it is none that a search wrote, see :data:`DAMAGED`.
    """
    trial = Trial.from_json(entry, Schedule.from_json)
    if trial.gain and not math.isfinite(history.over_start(trial)):  # losses of losses, without end
        raise ValueError(f"it gains {trial.gain} over what gains nothing that is a number")
    history.add(trial)


def _name(entry: Mapping[str, Any]) -> str:
    name = of_type(entry["name"], str)
    name.encode()  # a part of a character is a ValueError here, and one of who draws it otherwise
    return name


def _result(search: LoggedSearch, entry: Mapping[str, Any]) -> Result:
    measured = of_type(entry["measured"], dict)
    for gain in of_type(measured.get("machines", {}), dict).values():
        Gain.from_json(gain)
    over_limit = number(measured["over_limit"], 0, MOST) if "over_limit" in measured else math.nan
    best, gain = Schedule.from_json(entry["best"]), Gain.from_json(entry["gain"])
    said = of_type(entry["kept"], bool), gain, of_type(entry["why"], str), {**measured, "over_limit": over_limit}
    return Result(search.name, search.history.start, best, *said)

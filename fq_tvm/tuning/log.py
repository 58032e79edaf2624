"""The log of searches, a JSON object a line, which docs/schedules.md describes.

Knows the lines; not how they came about.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FqError
from ..schedule import Schedule
from .experiment import Gain, History, Trial

FORMAT = 2
"""Version of the lines; trials of another are not gone on from, nor shown."""


def read_log(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a log; those that a killed process left unfinished are passed over, and no log has none."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(entry := json.loads(line), dict):
                    yield entry


@dataclass
class LoggedSearch:
    """What a log has of the search of one job, perhaps made in several runs of the tuner.

    Parameters
    ----------
    name : str
        Of the job, in words; a number tells those of one name apart.
    begun : dict
        The line that the search began with: CPU, cases, settings.
    history : History
        The trials.
    result : dict
        The line of the result; of several the last one, and empty without one.
    """

    name: str
    begun: Mapping[str, Any]
    history: History
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gain(self) -> Gain | None:
        """Of the best schedule over the first, in rounds that had no part in finding it."""
        return Gain(*self.result["gain"]) if "gain" in self.result else None

    def changes(self) -> str:
        """Say in which knobs the best schedule differs from the first."""
        if not self.result.get("best"):
            return ""
        first = self.history.start.to_json()
        knobs = [f"{knob} {value}" for knob, value in self.result["best"].items() if value != first.get(knob)]
        return ", ".join(knobs) or "the default"


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
    for entry in read_log(path):
        with contextlib.suppress(KeyError, TypeError, ValueError, FqError):
            job = str(entry["job"])
            if entry["kind"] == "search" and entry["format"] == FORMAT and job not in found:
                same = sum(search.begun["name"] == entry["name"] for search in found.values())
                name = entry["name"] if not same else f"{entry['name']}, search {same + 1}"
                found[job] = LoggedSearch(name, entry, History(Schedule.from_json(entry["start"])))
            elif entry["kind"] in ("trial", "check") and job in found:
                found[job].history.add(Trial.from_json(entry, Schedule.from_json))
            elif entry["kind"] == "result" and job in found:
                found[job].result = entry
    if not found:
        raise FqError(f"{path} has no searches that this version reads; expected a log of fq-tvm tune, format {FORMAT}")
    return list(found.values())

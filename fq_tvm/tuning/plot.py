"""Draws the log of a search.  Knows its lines; not how they came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bench.plot import new_figure
from ..errors import FqError
from .search import read_log


def plot_trials(log: str | Path, path: str | Path) -> None:
    """Draw a log: for each job the ratio of every trial to the default, and the best so far.

    Parameters
    ----------
    log : path
        That a search wrote.
    path : path
        Of the picture; its suffix decides the format.

    Raises
    ------
    FqError
        If matplotlib is not installed, or the log has no trials.
    """
    figure = new_figure()
    jobs: dict[str, list[dict[str, Any]]] = {}
    for entry in read_log(log):
        if entry.get("kind") == "trial" and "ratio" in entry:
            jobs.setdefault(f"{entry['name']} ({entry['job'][:4]})", []).append(entry)
    if not jobs:
        raise FqError(f"{log} has no trials that could be measured")
    [axes] = figure.axes
    for number, (name, entries) in enumerate(sorted(jobs.items())):
        best, line, dots = 1.0, [], []
        for entry in entries:
            dots.append(best * entry["ratio"])
            best = dots[-1] if entry["accepted"] else best
            line.append(best)
        trials, color = [entry["trial"] for entry in entries], f"C{number % 10}"
        axes.plot(trials, dots, ".", color=color, alpha=0.4)
        axes.step(trials, line, where="post", color=color, label=name)
    axes.set(xlabel="trial", ylabel="time / default schedule", yscale="log")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)

"""Draws the log of a search.  Knows matplotlib, and what a log says."""

from __future__ import annotations

import math
from pathlib import Path

from ..bench.plot import new_figure
from ..errors import FqError
from .experiment import FAILED, History
from .log import searches

LOWEST = -50.0
"""Percent; what loses more is drawn there, as a triangle."""

LETTERS = 80
"""Of a name, which a log may have of any length, beside the picture."""


def plot_trials(log: str | Path, path: str | Path) -> None:
    """Draw a log: of each search the gain of every trial over the default, by time, and that of the best so far.

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
    OSError
        If the log cannot be read, or the picture not written.
    """
    figure = new_figure()
    [axes] = figure.axes
    drawn = [search for search in searches(log) if search.history.trials]
    if not drawn:
        raise FqError(f"{log} has no trials")
    for number, search in enumerate(drawn):
        color, history = f"C{number % 10}", History(search.history.start)
        marks: dict[str, list[tuple[float, float]]] = {".": [], "D": [], "v": [], "x": []}
        line = [(0.0, 0.0)]
        for trial in search.history.trials:
            gain = 100 * (trial.gain.median if trial.check and trial.gain else history.over_start(trial))
            if trial.verdict == FAILED:
                marks["x"].append((trial.at, 0.0))
            elif gain < LOWEST:
                marks["v"].append((trial.at, LOWEST))
            elif math.isfinite(gain):
                marks["D" if trial.check else "."].append((trial.at, gain))
            history.add(trial)
            line.append((trial.at, 100 * history.gain))
        for mark, points in marks.items():
            axes.plot(*zip(*points, strict=True), mark, color=color, alpha=0.5) if points else None
        axes.step(*zip(*line, strict=True), where="post", color=color, label=" ".join(search.name.split())[:LETTERS])
        if search.result is not None and search.result.best != search.result.start:
            low, gain, high = (min(max(100 * value, LOWEST), 100) for value in search.result.gain)
            axes.errorbar([line[-1][0]], [gain], [[gain - low], [high - gain]], color=color, capsize=4, marker="s")
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    for mark, meaning in (
        (".k", "trial"), ("Dk", "best meets the default again"), ("vk", f"below {LOWEST:.0f} %"), ("xk", "failed"),
        ("sk", "result, in new processes"),
    ):  # fmt: skip
        axes.plot([], [], mark, alpha=0.5, label=meaning)
    axes.set(xlabel="seconds of the search", ylabel="gain over the default schedule, %")
    for text in axes.legend(fontsize="small").get_texts():
        text.set_parse_math(False)  # names are no formulas, whatever signs of dollars a log has in them
    figure.savefig(path, dpi=120)

"""Draws what was measured; knows matplotlib."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..environment import num_threads
from ..errors import FqError
from .cases import CACHED_MAX_BYTES
from .result import Result


def memory_size(size: float) -> str:
    """Say how many bytes that is, in binary units: ``1.5 MiB``."""
    power = min(max(int(math.log2(size)) // 10, 0), 3) if size > 0 else 0
    return f"{size / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def new_figure() -> Any:
    """Make an empty figure of one pair of axes, which needs no screen.

    Raises
    ------
    FqError
        If matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise FqError('a plot needs matplotlib; `pip install "fq_tvm[plot]"`')
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    figure.add_subplot()
    return figure


def plot(results: Sequence[Result], path: str | Path) -> None:
    """Draw achieved bandwidth over tensor size against a copy, a line for each class and dtype.

    Parameters
    ----------
    results : sequence of Result
        Measured cases.
    path : path
        Of the picture; its suffix decides the format.

    Raises
    ------
    FqError
        If matplotlib is not installed.
    """
    figure = new_figure()
    [axes] = figure.axes
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for result in results:
        case = result.case
        lines.setdefault((case.iteration, case.dtype), []).append((case.moved_bytes, result.gigabytes_per_second))
        copied = 2 * case.x_bytes / result.median("copy") / 1e9
        lines.setdefault(("copy", case.dtype), []).append((2 * case.x_bytes, copied))
    for (kind, dtype), points in sorted(lines.items()):
        sizes, speeds = zip(*sorted(points), strict=True)
        style, color = {"copy": ("--", "0.5"), "rows": ("-o", "C0"), "lanes": ("-s", "C1")}.get(kind, ("-^", "C2"))
        axes.plot(sizes, speeds, style, color=color, label=f"{kind}, {dtype}", alpha=1 if dtype == "float32" else 0.5)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda size, _: memory_size(size))
    axes.set_ylim(bottom=0)
    place = f"in caches up to {memory_size(CACHED_MAX_BYTES)} of x, from memory above"
    title = f"Fake quantization against a copy, {num_threads()} threads, {place}"
    axes.set(xlabel="bytes moved: x, out and mask", ylabel="GB/s", title=title)
    axes.legend()
    figure.savefig(path, dpi=120)

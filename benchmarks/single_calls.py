"""Single calls in a program that does something else in between.

    python benchmarks/single_calls.py [numpy | torch] [--calls N] [--layers own,openmp] [--plot OUT.png]

The call goes through the numpy function or through torch's operator.  ``auto``, what a program gets, takes turns with
the same kernel in the calling thread alone, call by call, and through torch with aten's operator, so that what else
runs on the machine meets all of them; ``--layers`` adds others.  Everything happens in one process, as in a program.

A line has the median, mean and 99th percentile of the serial kernel in us, and of the others mean and 99th percentile
over those; then, of the calls of auto, the share that ran on the OpenMP team of torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fq_tvm
import fq_tvm.torch
from fq_tvm.environment import num_threads
from fq_tvm.errors import FqError
from fq_tvm.launch import threads

SHAPES = [(384, 384), (128, 5000), (16, 64, 1024)]
MEAN_BOUND, P99_BOUND = 1.15, 2.0

Times = dict[str, list[float]]


def between() -> dict[str, Callable[[], object]]:
    """Return what a program may do before a call, by name."""
    big, square = np.zeros(4_000_000, np.float32), np.random.rand(300, 300).astype("f4")
    tensor, image, weight = torch.zeros(4_000_000), torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3)
    return {
        "nothing": lambda: None,
        "numpy pass of 16 MB": lambda: np.add(big, 1, out=big),
        "numpy, fresh 16 MB": lambda: np.zeros(4_000_000, np.float32) + 1,
        "numpy matmul": lambda: square @ square,
        "sleep 5 ms": lambda: time.sleep(0.005),
        "torch add": lambda: tensor.add_(1),
        "torch conv2d": lambda: torch.nn.functional.conv2d(image, weight, padding=1),
    }


def contenders_of(shape: tuple[int, ...], door: str, layers: Sequence[str]) -> dict[str, tuple[int | None, Any]]:
    """Return what takes turns: the layer that is selected for a call, if it is one of ours, and the call."""
    x = np.random.randn(*shape).astype("f4") * 50
    scale, zero_point = np.random.rand(shape[1]).astype("f4") + 0.5, np.zeros(shape[1], np.int32)
    tensors: Any = tuple(map(torch.from_numpy, (x, scale, zero_point)))
    if door == "torch":
        operator: Any = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask
        call = partial(operator, *tensors, 1, -128, 127)
    else:
        call = partial(fq_tvm.fake_quantize_per_channel_affine_cachemask, x, scale, zero_point, 1, -128, 127)
    numbered = {
        "serial": threads.SERIAL,
        "auto": threads.TORCH if door == "torch" else threads.AUTO,
        "own": threads.OWN,
        "openmp": threads.OPENMP,
    }
    found: dict[str, tuple[int | None, Any]] = {n: (numbered[n], call) for n in ("serial", "auto", *layers)}
    if door == "torch":
        aten = torch.ops.aten.fake_quantize_per_channel_affine_cachemask.default
        found["aten"] = (None, partial(aten, *tensors, 1, -128, 127))
    return found


def measure(
    contenders: Mapping[str, tuple[int | None, Any]], work: Callable[[], object], calls: int
) -> tuple[Times, float]:
    """Return the us of each call by contender, and the share of auto's launches that ran on the OpenMP team."""
    layers = threads.prepare()
    times: Times = {name: [] for name in contenders}
    on_team = 0
    for turn in range(calls + 3):
        for name, (layer, call) in contenders.items():
            if layer is not None:
                layers.select(layer)
            work()
            before = layers.count(threads.OPENMP)
            start = time.perf_counter()
            call()
            spent = (time.perf_counter() - start) * 1e6
            if turn > 2:
                times[name].append(spent)
                on_team += name == "auto" and layers.count(threads.OPENMP) > before
    return times, on_team / calls


def numbers_of(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, mean and 99th percentile."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], sum(ordered) / len(ordered), ordered[int(len(ordered) * 0.99) - 1]


def plot(results: Mapping[str, Times], path: Path) -> None:
    """Draw every call as a dot: a column for each place, a color for each contender."""
    if importlib.util.find_spec("matplotlib") is None:
        raise FqError('a plot needs matplotlib; `pip install "fq_tvm[plot]"`')
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    axes: Any = figure.subplots()
    names = list(next(iter(results.values())))
    for number, name in enumerate(names):
        for place, times in enumerate(results.values()):
            values = times[name]
            at = place + 0.8 * number / len(names)
            label = name if not place else None
            axes.plot([at] * len(values), values, ".", color=f"C{number}", alpha=0.15, label=label)
            axes.plot(at, numbers_of(values)[1], "_", color=f"C{number}", markersize=14)
    axes.set_yscale("log")
    axes.set_ylabel("us of a call; bars are means")
    axes.set_xticks([place + 0.3 for place in range(len(results))], list(results), rotation=60, fontsize="small")
    legend = axes.legend()
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line a shape and place, and how many keep to the bounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "door", nargs="?", choices=("numpy", "torch"), default="numpy", help="what the call goes through"
    )
    parser.add_argument("--calls", type=int, default=200, metavar="N", help="of each contender (default: 200)")
    parser.add_argument("--layers", default="", metavar="A,B", help="own, openmp: beside serial and auto")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="draw every call")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(num_threads())
    results: dict[str, Times] = {}
    kept = beyond_aten = 0
    print(f"through {arguments.door}: serial's median, mean, p99 in us; the others' mean and p99 over serial's")
    for shape in SHAPES:
        layers = [name for name in arguments.layers.split(",") if name]
        contenders = contenders_of(shape, arguments.door, layers)
        threads.ready(from_torch=arguments.door == "torch")
        for _, call in contenders.values():
            for _ in range(20):
                call()
        for name, work in between().items():
            times, on_team = measure(contenders, work, arguments.calls)
            results[f"{'x'.join(map(str, shape))}, {name}"] = times
            median, mean, p99 = numbers_of(times["serial"])
            row = f"{shape!s:15} {name:20} {median:6.0f} {mean:6.0f} {p99:6.0f}"
            for other, values in times.items():
                if other != "serial":
                    row += f"  {other} {numbers_of(values)[1] / mean:5.2f} {numbers_of(values)[2] / p99:5.2f}"
            print(f"{row}  {on_team:4.0%}", flush=True)
            _, auto_mean, auto_p99 = numbers_of(times["auto"])
            kept += auto_mean <= MEAN_BOUND * mean and auto_p99 <= P99_BOUND * p99
            beyond_aten += "aten" in times and auto_p99 > numbers_of(times["aten"])[2]
    print(f"auto: mean at most {MEAN_BOUND} and p99 at most {P99_BOUND} of serial's in {kept} of {len(results)} places")
    if arguments.door == "torch":
        print(f"p99 longer than aten's own operator's in {beyond_aten} of {len(results)} places")
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()

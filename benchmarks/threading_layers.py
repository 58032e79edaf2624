"""Single calls in a program that does something else in between, on each threading layer.

Usage: python benchmarks/threading_layers.py [numpy | torch] [CALLS]

All layers take turns in one process, call by call, so that what else runs on the machine meets all of them.  Columns
are times over those of the serial kernel in the same place: mean and 99th percentile; and how many calls of auto ran on
the team of OpenMP.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

import fq_tvm
import fq_tvm.torch
from fq_tvm.launch import threads

SHAPES = [(384, 384), (128, 5000), (16, 64, 1024)]
big, square, tensor = np.zeros(4_000_000, np.float32), np.random.rand(300, 300).astype("f4"), torch.zeros(4_000_000)
image, weight = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3)
BETWEEN: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "numpy pass of 16 MB": lambda: np.add(big, 1, out=big),
    "numpy, fresh 16 MB": lambda: np.zeros(4_000_000, np.float32) + 1,
    "numpy matmul": lambda: square @ square,
    "sleep 5 ms": lambda: time.sleep(0.005),
    "torch add": lambda: tensor.add_(1),
    "torch conv2d": lambda: torch.nn.functional.conv2d(image, weight, padding=1),
}


def main(door: str, calls: int) -> None:
    auto = threads.TORCH if door == "torch" else threads.AUTO
    layers = {"serial": threads.SERIAL, "own": threads.OWN, "openmp": threads.OPENMP, "auto": auto}
    print(f"through {door}, {calls} calls each; times over the serial kernel's: mean, p99")
    for shape in SHAPES:
        x = np.random.randn(*shape).astype("f4") * 50
        scale, zero_point = np.random.rand(shape[1]).astype("f4") + 0.5, np.zeros(shape[1], np.int32)
        arguments: tuple[Any, ...] = (x, scale, zero_point, 1, -128, 127)
        contenders: dict[str, Callable[[], object]] = {}
        if door == "torch":
            arguments = (*map(torch.from_numpy, (x, scale, zero_point)), 1, -128, 127)
            contenders["aten"] = partial(torch.fake_quantize_per_channel_affine, *arguments)
        call = partial(fq_tvm.fake_quantize_per_channel_affine_cachemask, *arguments)
        for _ in range(20):
            call()
        contenders = {**dict.fromkeys(layers, call), **contenders}
        known = threads.prepare()
        for between, work in BETWEEN.items():
            times: dict[str, list[float]] = {name: [] for name in contenders}
            on_team = 0
            for turn in range(calls + 3):
                for name, contender in contenders.items():
                    if name in layers:
                        known.select(layers[name])
                    work()
                    before = known.count(threads.OPENMP) if name == "auto" else 0
                    start = time.perf_counter()
                    contender()
                    spent = time.perf_counter() - start
                    if turn > 2:
                        times[name].append(spent * 1e6)
                        on_team += name == "auto" and known.count(threads.OPENMP) > before
            serial = sorted(times["serial"])
            mean, p99 = sum(serial) / calls, serial[int(calls * 0.99) - 1]
            row = f"{shape!s:15s} {between:20s} serial {serial[calls // 2]:6.0f} {mean:6.0f} {p99:6.0f} us "
            for name, values in times.items():
                if name != "serial":
                    row += (
                        f" {name} {sum(values) / calls / mean:5.2f} {sorted(values)[int(calls * 0.99) - 1] / p99:6.2f} "
                    )
            print(row, f"on the team {on_team}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "numpy", int(sys.argv[2]) if len(sys.argv) > 2 else 200)

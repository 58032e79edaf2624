"""From which size a call gains from threads, on each layer; what ``parallel_from`` is chosen by.

    python benchmarks/boundary.py [numpy | torch] [--calls N]

Every size runs in the calling thread alone and on a layer, in turns: in a loop of equal calls, 0.3 ms apart with the
caller at work in between, and, through torch, right after an operator of torch.  A line has the microseconds of the
calling thread alone, and the layer's time over that.  Means without the slowest twentieth, which the machine's other
work makes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import fq_tvm
from fq_tvm.launch import choose, threads
from fq_tvm.schedule import default_schedule

SIZES = [1 << n for n in range(14, 20)]
APART = 300e-6


def door(name: str, elements: int) -> tuple[Callable[[], object], int]:
    """Return a call on so many elements, and the number of the layer that it is to be compared with."""
    x, scale = np.ones((64, elements // 64), np.float32), np.ones(64, np.float32)
    arrays: list[Any] = [x, scale, np.zeros(64, np.int32)]
    if name == "numpy":
        out, mask = np.empty_like(x), np.empty(x.shape, bool)
        function: Any = fq_tvm.fake_quantize_per_channel_affine_cachemask
        return lambda: function(*arrays, 0, -128, 127, out=out, mask=mask), threads.OWN
    import torch

    from fq_tvm.torch import fake_quantize_per_channel_affine_cachemask

    operator: Any = fake_quantize_per_channel_affine_cachemask
    tensors = [torch.from_numpy(a) for a in arrays]
    return lambda: operator(*tensors, 0, -128, 127), threads.OPENMP


def between(name: str) -> dict[str, Callable[[], object] | None]:
    """Return what happens before each call, by name; None for a loop of calls."""
    numbers = np.ones(20_000, np.float32)

    def apart() -> None:
        until = time.perf_counter() + APART
        while time.perf_counter() < until:
            np.add(numbers, 1, out=numbers)

    if name == "numpy":
        return {"loop": None, "0.3 ms apart": apart}
    import torch

    tensor = torch.ones(1 << 18)
    return {"after torch's add": lambda: tensor.add_(1)}


def mean(call: Callable[[], object], before: Callable[[], object] | None, calls: int) -> list[float]:
    """Return seconds: of each call, or of each in a loop."""
    if before is None:
        for _ in range(5):
            call()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return [(time.perf_counter() - start) / calls]
    times = []
    for _ in range(calls):
        before()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("door", nargs="?", default="numpy", choices=["numpy", "torch"])
    parser.add_argument("--calls", type=int, default=200, metavar="N", help="of each size, layer and place (200)")
    options = parser.parse_args()

    always = {"schedule_for": lambda spec, *_: replace(default_schedule(spec), parallel_from=1)}
    vars(choose).update(always)
    layers = threads.prepare()
    for elements in SIZES:
        call, layer = door(options.door, elements)
        call()
        found = []
        for name, before in between(options.door).items():
            times: dict[int, list[float]] = {threads.SERIAL: [], layer: []}
            for _ in range(20):
                for number, spent in times.items():
                    layers.select(number)
                    spent += mean(call, before, max(options.calls // 20, 1))
            kept = {n: statistics.mean(sorted(t)[: -(-len(t) * 19 // 20)]) for n, t in times.items()}
            alone = kept[threads.SERIAL]
            found.append(f"{name}: alone {alone * 1e6:6.1f} us, spread {kept[layer] / alone:5.2f}")
        print(f"{elements:7}  " + "   ".join(found), flush=True)


if __name__ == "__main__":
    main()

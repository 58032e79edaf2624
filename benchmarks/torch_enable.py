"""torch's fake quantization before and after ``fq_tvm.torch.enable()``, as ratios in one run, taking turns.

python benchmarks/torch_enable.py [--seconds S]

Idle threads of OpenMP do not spin here (OMP_WAIT_POLICY=passive): those of torch's turn would take cores from ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from fq_tvm.bench.timing import quiet_threads

quiet_threads()  # before torch is imported, which reads it then

import torch  # noqa: E402

import fq_tvm.torch  # noqa: E402

CASES = [
    ((64, 256, 56, 56), 1, torch.float32),
    ((32, 128, 28, 28), 1, torch.float32),
    ((4096, 4096), 0, torch.float32),
    ((4096, 4096), 1, torch.float32),
    ((64, 56, 56, 256), 3, torch.float32),
    ((32, 197, 768), 2, torch.float32),
    ((64, 256, 56, 56), 1, torch.float16),
    ((4096, 4096), 1, torch.float16),
    ((4, 4), 1, torch.float32),
]


def seconds_a_call(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def compare(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Return the median seconds of a call of torch's kernel and of ours."""
    repeats = max(3, int(0.05 / seconds_a_call(call, 3)))
    stock: list[float] = []
    ours: list[float] = []
    end = time.perf_counter() + seconds
    while len(ours) < 3 or time.perf_counter() < end:
        seconds_a_call(call, 3)  # brings caches and threads back
        stock.append(seconds_a_call(call, repeats))
        with fq_tvm.torch.enabled():
            seconds_a_call(call, 3)
            ours.append(seconds_a_call(call, repeats))
    return statistics.median(stock), statistics.median(ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each case (3)")
    seconds = parser.parse_args().seconds

    def report(name: str, call: Callable[[], object]) -> None:
        stock, ours = compare(call, seconds)
        print(f"{name:45} {stock * 1e6:12.1f} us {ours * 1e6:12.1f} us {stock / ours:7.2f} x", flush=True)

    print(f"{'case':45} {'torch':>15} {'enabled':>15} {'faster':>9}")
    for shape, axis, dtype in CASES:
        x = torch.randn(shape).to(dtype)
        scale, zero_point = torch.rand(shape[axis]) * 0.02 + 0.01, torch.zeros(shape[axis], dtype=torch.int32)
        arguments = (x, scale, zero_point, axis, -128, 127)
        report(
            f"{shape} axis {axis} {str(dtype).removeprefix('torch.')}",
            partial(torch.fake_quantize_per_channel_affine, *arguments),
        )
    report("(4, 4) per tensor", lambda: torch.fake_quantize_per_tensor_affine(x, 0.02, 0, -128, 127))
    one, zero = scale[:1].clone(), zero_point[:1].clone()
    report("(4, 4) per tensor, tensors", lambda: torch.fake_quantize_per_tensor_affine(x, one, zero, -128, 127))


if __name__ == "__main__":
    main()

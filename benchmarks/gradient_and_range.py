"""What stands around fake quantization in a training step, the gradient and the range of channels, as ratios.

    python benchmarks/gradient_and_range.py [--seconds S]

The range over a sum of the same memory (numba's, where it is there, else torch's), which reads it, too; torch's aminmax
over the range; the gradient over a copy scaled by the bytes that move; torch's gradient over it; and a forward and a
backward step of torch's learnable fake quantization over that after fq_tvm.torch.enable().
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from fq_tvm.bench.timing import interleave, quiet_threads
from fq_tvm.environment import num_threads
from fq_tvm.launch.arguments import Gradient, check_range_of, describe
from fq_tvm.launch.buffers import on_memory
from fq_tvm.launch.registry import launch_of

RANGES: tuple[tuple[tuple[int, ...], int | None, str], ...] = (
    ((2048, 2048), 0, "float32"),
    ((2048, 2048), None, "float32"),
    ((2048, 2048), 1, "float32"),
    ((32, 64, 56, 56), 1, "float32"),
    ((32, 256, 28, 28), 1, "float16"),
    ((32, 197, 768), 2, "float32"),
    ((200704, 256), 1, "float32"),
    ((4096, 4096), 0, "float16"),
)
GRADIENTS: tuple[tuple[tuple[int, ...], str], ...] = (
    ((1024, 1024), "float32"),
    ((2048, 2048), "float32"),
    ((32, 64, 56, 56), "float32"),
    ((2048, 2048), "float16"),
)

LEARNABLES: tuple[tuple[tuple[int, ...], int | None], ...] = (
    ((2048, 2048), 0),
    ((2048, 2048), None),
    ((2048, 2048), 1),
    ((512, 512, 3, 3), 0),
    ((32, 64, 56, 56), 1),
)


def summing(x: np.ndarray[Any, Any]) -> Callable[[], Any]:
    """Return a call that adds up all elements on all threads."""
    import torch  # not before its threads were quieted

    flat = x.reshape(-1)
    try:
        import numba
    except ImportError:
        return partial(torch.sum, torch.from_numpy(flat))
    if x.dtype != np.float32:
        flat = flat.view(np.float32)  # numba adds no float16; the same bytes are read

    def total(values: Any) -> Any:
        found = np.float32(0)
        for i in numba.prange(values.size):
            found += values[i]
        return found

    call: Callable[[], Any] = partial(numba.njit(parallel=True, fastmath=True)(total), flat)
    call()
    return call


def medians(contenders: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of a call, while contenders take turns."""
    return {name: statistics.median(times) for name, times in interleave(contenders, seconds).items()}


def measure_ranges(seconds: float) -> None:
    """Print a line for each tensor, and a summary."""
    import torch  # not before its threads were quieted

    print(f"{'range of':36}{'GB/s':>8}{'/ sum':>8}{'aminmax /':>11}")
    over_sum = []
    for shape, axis, dtype in RANGES:
        x = np.random.default_rng(0).standard_normal(shape, np.float32).astype(dtype)
        reduction = check_range_of(describe(x, "x"), axis)
        results = [np.empty(reduction.result_shape, dtype) for _ in range(2)]
        ours = on_memory(launch_of(reduction), [reduction.x, *(describe(r, "result") for r in results)])
        tensor = torch.from_numpy(x)
        others = [d for d in range(x.ndim) if d != axis]
        rows = tensor if axis is None else tensor.permute(axis, *others).reshape(x.shape[axis], -1)
        stock = partial(torch.aminmax, rows) if axis is None else partial(torch.aminmax, rows, dim=1)
        times = medians({"ours": ours, "sum": summing(x), "stock": stock}, seconds)
        over_sum.append(times["ours"] / times["sum"])
        name = f"{shape} axis {axis} {dtype}"
        speed, faster = x.nbytes / times["ours"] / 1e9, times["stock"] / times["ours"]
        print(f"{name:36}{speed:8.1f}{over_sum[-1]:8.2f}{faster:11.1f}")
    print_summary("range over a sum", over_sum)


def measure_gradients(seconds: float) -> None:
    """Print a line for each tensor, and a summary."""
    import torch  # not before its threads were quieted

    print(f"\n{'gradient of':36}{'GB/s':>8}{'/ limit':>8}{'torch /':>11}")
    over_limit, faster = [], []
    for shape, dtype in GRADIENTS:
        rng = np.random.default_rng(0)
        grad, mask = rng.standard_normal(shape, np.float32).astype(dtype), rng.random(shape) < 0.9
        out, copied = np.empty_like(grad), np.empty_like(grad)
        call = Gradient(*map(describe, (grad, out, mask), ("grad", "out", "mask")))
        # a launch takes its tensors in the order of the signature
        ours = on_memory(launch_of(call), (call.grad, call.mask, call.out))
        source, target = torch.from_numpy(grad), torch.from_numpy(copied)
        stock = partial(
            torch.ops.aten.fake_quantize_per_channel_affine_cachemask_backward, source, torch.from_numpy(mask)
        )
        times = medians({"ours": ours, "copy": partial(target.copy_, source), "stock": stock}, seconds)
        moved = grad.nbytes + mask.nbytes + out.nbytes
        limit = times["copy"] * moved / (grad.nbytes + out.nbytes)
        over_limit.append(times["ours"] / limit)
        faster.append(times["stock"] / times["ours"])
        name = f"{shape} {dtype}"
        print(f"{name:36}{moved / times['ours'] / 1e9:8.1f}{over_limit[-1]:8.2f}{faster[-1]:11.1f}")
    print_summary("gradient over the limit", over_limit)
    print(f"torch's gradient over ours: least {min(faster):.1f}")


def steps_in_turn(step: Callable[[], None], seconds: float) -> dict[str, float]:
    """Median seconds of a step of torch's kernels and of ours, some of each at a time, as enabling takes a while."""
    import fq_tvm.torch

    times: dict[str, list[float]] = {"stock": [], "ours": []}
    end = time.perf_counter() + seconds
    while len(times["ours"]) < 10 or time.perf_counter() < end:
        for name, found in times.items():
            with fq_tvm.torch.enabled() if name == "ours" else nullcontext():
                step()  # brings memory for results
                step()
                for _ in range(5):
                    start = time.perf_counter()
                    step()
                    found.append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def measure_learnables(seconds: float) -> None:
    """Print a line for each tensor, and the least ratio."""
    import torch  # not before its threads were quieted

    print(f"\n{'learnable, forward and backward':36}{'ms':>8}{'torch /':>11}")
    faster = []
    for shape, axis in LEARNABLES:
        torch.manual_seed(0)
        channels = 1 if axis is None else shape[axis]
        scale, zero_point = torch.full((channels,), 0.02), torch.zeros(channels)
        leaves = [t.requires_grad_() for t in (torch.randn(shape), scale, zero_point)]
        grad = torch.randn(shape)

        def step(leaves: Sequence[Any] = leaves, grad: Any = grad, axis: int | None = axis) -> None:
            if axis is None:
                out = torch._fake_quantize_learnable_per_tensor_affine(*leaves, -128, 127, 1.0)
            else:
                out = torch._fake_quantize_learnable_per_channel_affine(*leaves, axis, -128, 127, 1.0)
            torch.autograd.grad(out, leaves, grad)

        times = steps_in_turn(step, seconds)
        faster.append(times["stock"] / times["ours"])
        print(f"{f'{shape} axis {axis}':36}{times['ours'] * 1e3:8.2f}{faster[-1]:11.1f}")
    print(f"torch's learnable step over ours: least {min(faster):.1f}")


def print_summary(what: str, ratios: Sequence[float]) -> None:
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"{what}: geometric mean {mean:.2f}, worst {max(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each tensor is measured, about")
    options = parser.parse_args()
    quiet_threads()
    import torch

    torch.set_num_threads(num_threads())
    print(f"{num_threads()} threads each; medians of calls in which contenders take turns, tensors above 1 MB\n")
    measure_ranges(options.seconds)
    measure_gradients(options.seconds)
    measure_learnables(options.seconds)


if __name__ == "__main__":
    main()

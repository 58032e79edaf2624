"""How fast the kernels are, as ratios to torch's own operator and to a copy, in one run.

    python benchmarks/compare.py [--json OUT]

Contenders of a case take turns, so that a busy neighbour slows all of them; medians are compared.  ``limit`` is torch's
``y.copy_(x)`` scaled by the bytes that the operator has to move: (x + out + mask) / (x + out).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

# torch's idle threads would otherwise spin on the cores that the next contender needs
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

import fq_tvm
from fq_tvm import aclnn
from fq_tvm.arguments import Operands, describe
from fq_tvm.environment import num_threads
from fq_tvm.kernel import prepare
from fq_tvm.runtime import AddressTensor

CASES = [
    ((64, 256, 56, 56), 1, "float32"),
    ((32, 128, 28, 28), 1, "float32"),
    ((4096, 4096), 0, "float32"),
    ((4096, 4096), 1, "float32"),
    ((64, 56, 56, 256), 3, "float32"),
    ((32, 197, 768), 2, "float32"),
    ((64, 256, 56, 56), 1, "float16"),
    ((4096, 4096), 1, "float16"),
]
"""The shapes of the measurement that the project began with."""

ROUNDS = 15
TINY = 20000


def torch_operator(*args: Any) -> Any:
    """torch's own operator."""
    return torch.ops.aten.fake_quantize_per_channel_affine_cachemask.default(*args)


def interleaved(contenders: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Time each contender once a round; seconds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
        call()
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def arguments(shape: tuple[int, ...], axis: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Data of a case."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 40).to(getattr(torch, dtype))
    channels = shape[axis]
    scale = torch.rand(channels, generator=generator) + 0.1
    return x, scale, torch.randint(-20, 20, (channels,), generator=generator, dtype=torch.int32)


def measure_cases() -> list[dict[str, Any]]:
    """Time the operator on every case."""
    rows = []
    print(f"{'case':34}{'ms':>9}{'spread':>9}{'GB/s':>7}{'/ limit':>9}{'torch / ours':>14}")
    for shape, axis, dtype in CASES:
        x, scale, zero_point = arguments(shape, axis, dtype)
        out, mask, copy = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool), torch.empty_like(x)
        args = (x, scale, zero_point, axis, -128, 127)
        got = fq_tvm.fake_quantize_per_channel_affine_cachemask(*args, out=out, mask=mask)
        for ours, theirs in zip(got, torch_operator(*args), strict=True):
            assert torch.equal(ours, theirs), "a wrong result is not timed"
        # one executor, launched again and again: no allocation, as for the copy
        _, executor = aclnn.get_workspace_size(x, scale, zero_point, axis, -128, 127, out, mask)
        aclnn.aclSetAclOpExecutorRepeatable(executor)
        workspace = np.empty(executor.workspace_size, np.uint8)
        times = interleaved(
            {
                "ours": lambda e=executor, w=workspace: aclnn.execute(w, w.nbytes, e, None),
                "copy": lambda c=copy, x=x: c.copy_(x),
                "torch": lambda args=args: torch_operator(*args),
            }
        )
        moved = x.nbytes * 2 + x.numel()
        median = {name: statistics.median(t) for name, t in times.items()}
        spread = (max(times["ours"]) - min(times["ours"])) / median["ours"]
        row = {
            "case": f"{shape} axis {axis} {dtype}",
            "ms": median["ours"] * 1e3,
            "spread": spread,
            "gb_per_s": moved / median["ours"] / 1e9,
            "over_limit": median["ours"] / (median["copy"] * moved / (2 * x.nbytes)),
            "torch_over_ours": median["torch"] / median["ours"],
        }
        rows.append(row)
        print(
            f"{row['case']:34}{row['ms']:9.3f}{row['spread']:9.0%}{row['gb_per_s']:7.1f}"
            f"{row['over_limit']:9.2f}{row['torch_over_ours']:13.1f}x"
        )
    return rows


def per_call(contenders: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median microseconds of one call, of calls in blocks that take turns."""
    block = TINY // 20

    def repeat(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(block):
                call()

        return run

    times = interleaved({name: repeat(call) for name, call in contenders.items()}, 41)
    return {name: statistics.median(t) / block * 1e6 for name, t in times.items()}


def bare_kernel(x: Any, scale: Any, zero_point: Any, axis: int, out: Any, mask: Any, workspace: Any) -> Any:
    """Return a call of the loaded functions on addresses, with nothing around it."""
    operands = Operands(*(describe(t, "tensor") for t in (x, scale, zero_point, out, mask)))
    pointers = [AddressTensor(operand.address) for operand in operands]
    launch = prepare(operands, axis, -128, 127)
    calls = launch.calls(*pointers, AddressTensor(workspace.ctypes.data))
    if len(calls) == 1:
        [(function, args)] = calls
        return lambda: function(*args)
    (expand, first), (function, second) = calls

    def both() -> None:
        expand(*first)
        function(*second)

    return both


def measure_calls() -> dict[str, float]:
    """Time calls of tiny tensors, where only the way there counts."""
    result: dict[str, float] = {}
    print(f"\n{'a call of a tiny tensor':44}{'us':>8}{'/ torch':>9}")
    for name, (shape, axis) in {"(4, 8) axis 1": ((4, 8), 1), "(8, 256) axis 0": ((8, 256), 0)}.items():
        x, scale, zero_point = arguments(shape, axis, "float32")
        args = (x, scale, zero_point, axis, -128, 127)
        arrays = (x.numpy(), scale.numpy(), zero_point.numpy(), axis, -128, 127)
        out, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
        _, executor = aclnn.get_workspace_size(x, scale, zero_point, axis, -128, 127, out, mask)
        aclnn.aclSetAclOpExecutorRepeatable(executor)
        workspace = np.empty(executor.workspace_size, np.uint8)
        size = workspace.nbytes
        bare = bare_kernel(x, scale, zero_point, axis, out, mask, workspace)
        function = fq_tvm.fake_quantize_per_channel_affine_cachemask
        times = per_call(
            {
                "torch's operator": lambda args=args: torch_operator(*args),
                "the function, torch tensors": lambda args=args: function(*args),
                "the function, numpy arrays": lambda arrays=arrays: function(*arrays),
                "relaunch of an executor": lambda w=workspace, n=size, e=executor: (
                    aclnn.aclnnFakeQuantPerChannelAffineCachemask(w, n, e, None)
                ),
                "the bare kernel": bare,
            }
        )
        for contender, us in times.items():
            print(f"{name + ': ' + contender:44}{us:8.2f}{us / times[next(iter(times))]:9.2f}")
            result[f"{name}: {contender}"] = us
        above = times["relaunch of an executor"] - times["the bare kernel"]
        print(f"{name + ': relaunch above the bare kernel':44}{above:8.2f}")
    return result


def measure_build() -> float:
    """Time `fq-tvm build --all` in a process of its own; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fq_tvm", "build", "--all", "-o", folder]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
    print(f"\nfq-tvm build --all: {seconds:.1f} s for {len(fq_tvm.catalogue())} kernels")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="OUT", help="write the numbers here, too")
    options = parser.parse_args()
    torch.set_num_threads(num_threads())
    print(f"{num_threads()} threads each; medians of {ROUNDS} rounds in which contenders take turns\n")
    result = {"cases": measure_cases(), "calls": measure_calls(), "build_seconds": measure_build()}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()

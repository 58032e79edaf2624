"""What the README and the documents claim about time, beside what ``fq-tvm bench`` measures, as ratios in one run.

    python benchmarks/compare.py [--json OUT]

Calls of tiny tensors, and building the whole catalogue.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fq_tvm
from fq_tvm import aclnn
from fq_tvm.bench.cases import Case
from fq_tvm.bench.contenders import Inputs
from fq_tvm.bench.timing import interleave, quiet_threads, ratio
from fq_tvm.environment import num_threads
from fq_tvm.functional import torch_key
from fq_tvm.launch.arguments import check, describe_all
from fq_tvm.launch.buffers import empty_like, run
from fq_tvm.launch.kernel import Launch
from fq_tvm.launch.registry import launches, prepare
from fq_tvm.launch.runtime import AddressTensor

SECONDS = 2
"""How long the calls of one tensor are timed, about."""


def per_call(contenders: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median microseconds of one call."""
    return {name: statistics.median(times) * 1e6 for name, times in interleave(contenders, SECONDS).items()}


def bare_kernel(x: Any, scale: Any, zero_point: Any, axis: int, out: Any, mask: Any, workspace: Any) -> Any:
    """Return a call of the loaded functions on addresses, with nothing around it."""
    checked = check(describe_all((x, scale, zero_point, out, mask)), axis, -128, 127)
    launch = prepare(checked)
    assert isinstance(launch, Launch)
    tensors = [AddressTensor(operand.address, operand) for operand in checked.operands]
    if launch.workspace_size:
        tensors.append(AddressTensor(workspace.ctypes.data, workspace))
    calls = launch.bare_calls(*tensors)
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
    import torch

    import fq_tvm.torch

    operator = torch.ops.aten.fake_quantize_per_channel_affine_cachemask.default
    ours = fq_tvm.fake_quantize_per_channel_affine_cachemask
    result: dict[str, float] = {}
    print(f"{'a call of a tiny tensor':44}{'us':>8}{'/ torch':>9}")
    for name, (shape, axis) in {"(4, 8) axis 1": ((4, 8), 1), "(8, 256) axis 0": ((8, 256), 0)}.items():
        arrays = Inputs(Case(shape, axis)).arguments
        args = (*(torch.from_numpy(a) for a in arrays[:3]), *arrays[3:])
        x, scale, zero_point = args[:3]
        out, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
        _, executor = aclnn.get_workspace_size(x, scale, zero_point, axis, -128, 127, out, mask)
        aclnn.aclSetAclOpExecutorRepeatable(executor)
        workspace = np.empty(executor.workspace_size, np.uint8)
        bare = bare_kernel(x, scale, zero_point, axis, out, mask, workspace)
        relaunch = partial(
            aclnn.aclnnFakeQuantPerChannelAffineCachemask, workspace, executor.workspace_size, executor, None
        )
        times = per_call(
            {
                "torch's operator": partial(operator, *args),
                "the function, torch tensors": partial(ours, *args),
                "fq_tvm.torch's operator": partial(fq_tvm.torch.fake_quantize_per_channel_affine_cachemask, *args),
                "the function, numpy arrays": partial(ours, *arrays),
                "the same, with out and mask": partial(ours, *arrays, out=out.numpy(), mask=mask.numpy()),
                "relaunch of an executor": relaunch,
                "the bare kernel": bare,
            }
        )
        for contender, us in times.items():
            print(f"{name + ': ' + contender:44}{us:8.2f}{us / times[next(iter(times))]:9.2f}")
            result[f"{name}: {contender}"] = us
        above = times["relaunch of an executor"] - times["the bare kernel"]
        print(f"{name + ': relaunch above the bare kernel':44}{above:8.2f}")
    return result


def launch_numpy(launch: Any, x: Any, scale: Any, zero_point: Any) -> Any:
    out, mask = empty_like(x, x.dtype), empty_like(x, bool)
    run(launch, x, scale, zero_point, out, mask)
    return out, mask


def launch_torch(launch: Any, x: Any, scale: Any, zero_point: Any) -> Any:
    import torch

    out, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    run(launch, x, scale, zero_point, out, mask, from_torch=True)
    return out, mask


def unchecked_numpy(x: Any, scale: Any, zero_point: Any, axis: int, low: int, high: int) -> Any:
    """The function's way for a call that was seen, without what only checks: the key, the results, the launch."""
    key = (
        x.dtype, x.shape, x.strides, scale.dtype, scale.shape, scale.strides,
        zero_point.dtype, zero_point.shape, zero_point.strides, axis, low, high,
    )  # fmt: skip
    return launch_numpy(launches[key], x, scale, zero_point)


def unchecked_torch(x: Any, scale: Any, zero_point: Any, axis: int, low: int, high: int) -> Any:
    return launch_torch(launches[torch_key(x, scale, zero_point, axis, low, high)], x, scale, zero_point)


def checked_as_in_0_1(
    x: Any, scale: Any, zero_point: Any, axis: Any, low: Any, high: Any, *, out: Any = None, mask: Any = None
) -> Any:
    """The same with the checks of version 0.1, before forks, modes and memory that lies elsewhere were looked at."""
    kind, given = type(x), out is not None or mask is not None
    plain_numbers = type(low) is type(high) is int and (axis is None or type(axis) is int)
    if not plain_numbers or type(scale) is not kind or type(zero_point) is not kind or given:
        raise TypeError
    if kind is np.ndarray:
        key: Any = (
            x.dtype, x.shape, x.strides, scale.dtype, scale.shape, scale.strides,
            zero_point.dtype, zero_point.shape, zero_point.strides, axis, low, high,
        )  # fmt: skip
        writable = x.flags.writeable and scale.flags.writeable and zero_point.flags.writeable
        if writable and (launch := launches.get(key)) is not None:
            return launch_numpy(launch, x, scale, zero_point)
    elif (torch := sys.modules.get("torch")) is not None and kind is torch.Tensor:
        key = torch_key(x, scale, zero_point, axis, low, high)
        here = x.is_cpu and scale.is_cpu and zero_point.is_cpu
        negated = x.is_neg() or scale.is_neg() or zero_point.is_neg()
        plain = here and not (x.requires_grad or scale.requires_grad or negated)
        if plain and (launch := launches.get(key)) is not None:
            return launch_torch(launch, x, scale, zero_point)
    raise TypeError


def measure_checks() -> dict[str, float]:
    """Time what the checks of a call that was seen cost: over no checks at all, and over those of version 0.1."""
    import torch

    ours = fq_tvm.fake_quantize_per_channel_affine_cachemask
    arrays = Inputs(Case((4, 8), 1)).arguments
    tensors = (*(torch.from_numpy(a) for a in arrays[:3]), *arrays[3:])
    result = {}
    forms: tuple[tuple[str, Any, Callable[..., Any]], ...] = (
        ("numpy arrays", arrays, unchecked_numpy),
        ("torch tensors", tensors, unchecked_torch),
    )
    for name, args, unchecked in forms:
        ours(*args)
        calls: dict[str, Callable[..., Any]] = {
            "today": ours,
            "no checks": unchecked,
            "those of 0.1": checked_as_in_0_1,
        }
        times = interleave({of: partial(call, *args) for of, call in calls.items()}, SECONDS)
        for than in ("those of 0.1", "no checks"):
            result[f"{name}, {than}"] = ratio(times, "today", than).median - 1
        added, whole = (result[f"{name}, {than}"] for than in ("those of 0.1", "no checks"))
        print(f"checks of a tiny call that was seen, {name}: {added:+.1%} over those of 0.1, {whole:+.1%} over none")
    return result


def measure_build() -> float:
    """Time `fq-tvm build --all` in a process of its own; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fq_tvm", "build", "--all", "-o", folder]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        kernels = sum(1 for _ in Path(folder).rglob("kernel.o"))
    print(f"\nfq-tvm build --all: {seconds:.1f} s for {kernels} kernels")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="OUT", help="write the numbers here, too")
    options = parser.parse_args()
    quiet_threads()
    print(f"{num_threads()} threads each; medians of calls in which contenders take turns\n")
    result = {"calls": measure_calls(), "checks": measure_checks(), "build_seconds": measure_build()}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()

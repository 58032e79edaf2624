"""What fake quantization costs a training step: float, with torch's kernels, and with ``fq_tvm.torch.enable()``.

    python benchmarks/training_step.py [--processes N] [--rounds N] [--keep-heap] [--plot OUT.png]

Four networks as people write them, prepared by ``torch.ao`` for quantization-aware training on x86 with its default
configuration: a residual network, a multilayer perceptron, a transformer block and a mobile network of a hundred small
quantizers.  The three forms of a network take turns, each in a process of its own, as a program has it: what a form
leaves in the heap decides how many fresh pages the next one touches.  Where a process puts what lives long decides the
time of its steps as long as it lives, so each form has several, one after another: a time is the median of processes,
of which each gives the median of its steps.  What fake quantization adds is the difference to the float network's.  The
last column is what one process of each form would have given, from the least to the greatest.

Page faults are a part of a step: what a step frees at the top of the heap, glibc gives back, and the next one has it
filled with zeros again.  How much that is depends on where a process puts what lives long, and on nothing that the
forms differ in.  With --keep-heap a second line of each network is of processes that are told by glibc's environment
variables to keep their heap, as people do who train for long.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import fq_tvm.torch
from fq_tvm.environment import num_threads
from fq_tvm.errors import FqError

FORMS = ("float", "stock", "enabled")
STEPS_A_TURN = 3
HEAP_KEPT = {name: str(2**33) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")}
"""Environment variables that make glibc keep what is freed, and take large tensors from there."""


class Residual(nn.Module):  # type: ignore[misc]
    """Two convolutions beside a third one."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.skip(x))


class Inverted(nn.Module):  # type: ignore[misc]
    """A block of a mobile network: to more channels, each filtered by itself, and back."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.body = nn.Sequential(
            *activated(inputs, wide, 1, 1, 1),
            *activated(wide, wide, 3, stride, wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.joins = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.joins else self.body(x)


def activated(inputs: int, outputs: int, size: int, stride: int, groups: int) -> tuple[nn.Module, ...]:
    """Return a convolution with batch norm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


class Transformer(nn.Module):  # type: ignore[misc]
    """One block of attention and one of two linear layers, on 64 tokens."""

    def __init__(self, width: int = 256, heads: int = 4, tokens: int = 64) -> None:
        super().__init__()
        self.shape = (-1, tokens, heads, width // heads)
        self.width, self.tokens = width, tokens
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.inside, self.back, self.head = (
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
            nn.Linear(width, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norms[0](x)
        query, key, value = (
            layer(normed).reshape(self.shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(torch.matmul(query, key.transpose(2, 3)) * self.shape[-1] ** -0.5, -1)
        attended = torch.matmul(weights, value).transpose(1, 2).reshape((-1, self.tokens, self.width))
        x = x + self.out(attended)
        x = x + self.back(torch.relu(self.inside(self.norms[1](x))))
        return self.head(x.mean(1))


def networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Return each network with a batch for it."""
    residual = nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(),
        Residual(64, 64), Residual(64, 128, 2), Residual(128, 256, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    perceptron = nn.Sequential(
        nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )  # fmt: skip
    widths = (16, 24, 24, 32, 32, 32, 48, 48, 48, 64, 64, 64, 64, 64, 64)
    blocks = (Inverted(a, b, 1 + (a < b)) for a, b in itertools.pairwise(widths))
    mobile = nn.Sequential(
        *activated(3, 16, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    )  # fmt: skip
    return {
        "residual network, batch 16 of 3 x 32 x 32": (residual, torch.randn(16, 3, 32, 32)),
        "perceptron of 3 layers, batch 128 of 784": (perceptron, torch.randn(128, 784)),
        "transformer block, batch 8 of 64 x 256": (Transformer(), torch.randn(8, 64, 256)),
        "mobile network, batch 8 of 3 x 32 x 32": (mobile, torch.randn(8, 3, 32, 32)),
    }


def trainer(network: nn.Module, batch: torch.Tensor) -> Callable[[], None]:
    """Return a training step of a network."""
    network = network.train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    labels = torch.randint(0, 10, (len(batch),))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch), labels).backward()
        optimizer.step()

    return step


def train(connection: Any, name: str, form: str) -> None:
    """Take steps whenever asked for some, after one more to warm up, and answer with the milliseconds of each."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(num_threads())
    torch.manual_seed(0)
    network, batch = networks()[name]
    if form != "float":
        network = prepare_qat_fx(network.train(), get_default_qat_qconfig_mapping("x86"), (batch,))
    if form == "enabled":
        fq_tvm.torch.enable()
    step = trainer(network, batch)
    for steps in iter(connection.recv, 0):
        step()
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            step()
            times.append((time.perf_counter() - start) * 1e3)
        connection.send(times)


def measure(name: str, rounds: int, variables: Mapping[str, str]) -> dict[str, float]:
    """Return the median milliseconds of a step in each form, in one process of each, with environment variables."""
    os.environ.update(variables)
    spawn = multiprocessing.get_context("spawn")
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    connections, processes = {}, []
    for form in FORMS:
        connections[form], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=train, args=(theirs, name, form), daemon=True))
        processes[-1].start()
        theirs.close()  # so that a process which ends is an error here, not a wait
    for variable in variables:
        del os.environ[variable]
    for turn in range(rounds + 1):
        for form, connection in connections.items():
            connection.send(STEPS_A_TURN)
            each = connection.recv()
            times[form] += each if turn else []
    for connection in connections.values():
        connection.send(0)
    for process in processes:
        process.join()
    return {form: statistics.median(each) for form, each in times.items()}


def added(times: Mapping[str, float]) -> float:
    """What fake quantization adds to a step when enabled, over what it adds in stock torch."""
    return (times["enabled"] - times["float"]) / (times["stock"] - times["float"])


def plot(results: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw the times as bars, a group for each network."""
    if importlib.util.find_spec("matplotlib") is None:
        raise FqError('a plot needs matplotlib; `pip install "fq_tvm[plot]"`')
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    for number, form in enumerate(FORMS):
        places = [group + 0.25 * number for group in range(len(results))]
        axes.bar(places, [times[form] for times in results.values()], 0.22, label=form)
    axes.set_xticks([group + 0.25 for group in range(len(results))], [name.replace(", ", "\n") for name in results])
    axes.set_ylabel("ms of a training step")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line a network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=5, metavar="N", help="of each form (default: 5)")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="turns of each process (default: 4)")
    parser.add_argument("--keep-heap", action="store_true", help="measure processes that keep their heap, too")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the times")
    arguments = parser.parse_args(argv)
    results: dict[str, dict[str, float]] = {}
    conditions = {"": {}, "   the same, heap kept": HEAP_KEPT} if arguments.keep_heap else {"": {}}
    print(f"{'training step, ms':58}{'float':>8}{'stock':>8}{'enabled':>8}  added, enabled over stock (of one process)")
    for name, (label, variables) in itertools.product(networks(), conditions.items()):
        each = [measure(name, arguments.rounds, variables) for _ in range(arguments.processes)]
        times = {form: statistics.median(process[form] for process in each) for form in FORMS}
        results.setdefault(name, times)
        alone = sorted(map(added, each))
        print(
            f"{label or name:58}" + "".join(f"{times[form]:8.1f}" for form in FORMS) + f"{added(times):10.2f}"
            f"  ({alone[0]:.2f} to {alone[-1]:.2f})",
            flush=True,
        )
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()

"""Quantization-aware training on digits, before and after fq_tvm.torch.enable(): the same losses, bit for bit.

python examples/qat_digits.py [--steps N] [-o curves.png]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch
from sklearn.datasets import load_digits
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

import fq_tvm.torch

BATCH = 128


def train(steps: int) -> tuple[list[float], float]:
    """Train from one fixed start; return the losses and the median milliseconds of a step."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(64 * 64, 10),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization deprecates what its own defaults use
        model.qconfig = get_default_qat_qconfig("x86")
        model = prepare_qat(model.train())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses, times = [], []
    for _ in range(steps):
        chosen = torch.randint(len(x), (BATCH,))
        start = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
        losses.append(loss.item())
    return losses, statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="of each training (60)")
    parser.add_argument("-o", "--output", help="picture of both loss curves")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    before, before_ms = train(arguments.steps)
    with fq_tvm.torch.enabled():
        after, after_ms = train(arguments.steps)
    assert before == after, "the losses differ"
    print(f"{len(after)} steps, loss {after[0]:.3f} to {after[-1]:.3f}, the same bits before and after enable()")
    print(f"a step: {before_ms:.1f} ms before, {after_ms:.1f} ms after")
    if arguments.output:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot as plt

        plt.plot(before, linewidth=5, alpha=0.3, label=f"torch, {before_ms:.1f} ms a step")
        plt.plot(after, linewidth=1, label=f"enable(), {after_ms:.1f} ms a step")
        plt.xlabel("step")
        plt.ylabel("loss")
        plt.legend()
        plt.savefig(arguments.output)


if __name__ == "__main__":
    main()

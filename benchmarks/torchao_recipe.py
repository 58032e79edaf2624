"""What torchao's QAT costs a training step in eager mode: with its own fake quantization, and with the recipe's.

    python benchmarks/torchao_recipe.py [--rounds N]

Linear layers of 2048 x 2048 with int4 weights in groups of 32 and int8 activations per token, in float32.  The forms
are a plain model, torchao's, that of the recipe in docs/embedding.md, and the recipe with the gradient straight
through.  They take turns; a time is the median of the steps.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import fq_tvm.torch

PAGE = Path(__file__).parents[1] / "docs" / "embedding.md"
FORMS = ("plain", "torchao", "recipe", "straight through")


def layers(width: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, width))


def prepared(width: int) -> dict[str, torch.nn.Module]:
    """Return the forms of one model, the third one as the block of the page makes it."""
    section = PAGE.read_text().partition("### torchao, quantize_\n")[2]
    (block,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    models = {form: layers(width) for form in FORMS}
    for form in ("recipe", "straight through"):
        names: dict[str, Any] = {"model": models[form], "train": id}
        exec(compile(block, PAGE.name, "exec"), names)

    class StraightThrough:
        @staticmethod
        def apply(x: Any, scale: Any, zero_point: Any, low: int, high: int) -> Any:
            return fq_tvm.torch.fake_quantize_per_channel_affine(x, scale, zero_point, 0, low, high)

    names["FakeQuantize"] = StraightThrough  # of the last one alone: each has names of its own
    config = names["QATConfig"](activation_config=names["activations"], weight_config=names["weights"], step="prepare")
    names["quantize_"](models["torchao"], config)
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="steps of each form (9)")
    rounds = parser.parse_args().rounds
    print(f"| tokens | {' | '.join(FORMS[1:])} |\n|---|---|---|---|")
    for tokens in (32, 128, 512):
        models = prepared(2048)
        optimizers = {form: torch.optim.SGD(model.parameters(), lr=0.01) for form, model in models.items()}
        times: dict[str, list[float]] = {form: [] for form in FORMS}
        x = torch.randn(tokens, 2048)
        for _ in range(1 + rounds):
            for form, model in models.items():
                start = time.perf_counter()
                loss = model(x).square().mean()
                optimizers[form].zero_grad()
                loss.backward()
                optimizers[form].step()
                times[form].append(time.perf_counter() - start)
        medians = {form: statistics.median(seconds[1:]) for form, seconds in times.items()}
        ratios = (medians[form] / medians["plain"] for form in FORMS[1:])
        print(f"| {tokens} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |", flush=True)


if __name__ == "__main__":
    main()

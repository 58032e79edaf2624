"""The scripts in examples/, run as a user runs them, and the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
OWN_TESTS = {"demo.py"}
"""Scripts that need an argument."""
SHORT = {"metaschedule.py": (1,), "qat_digits.py": ("--steps", 3), "search.py": ("--budget", 1)}
"""Options that make a script take seconds; the others run as they are."""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("script", sorted(p.name for p in EXAMPLES.glob("*.py") if p.name not in OWN_TESTS))
def test_example_runs(script):
    done = run(script, *SHORT.get(script, ()))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["aclnn", "functional", "spec", "tensor_ir", "torch.operator", "torch.override", "weights.parameters"]
)
def test_docstrings(module):
    failed, tried = doctest.testmod(importlib.import_module(f"fq_tvm.{module}"))
    assert tried
    assert not failed


def test_demo(tmp_path):
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    tensors = {
        "layer.0.weight": rng.standard_normal((16, 200)).astype(np.float32),
        "layer.1.weight": rng.standard_normal((7, 33)).astype(np.float16),
        "norm.weight": np.ones(16, np.float32),
        "layer.0.bias": np.ones(16, np.float32),
        "index.weight": np.ones((2, 2), np.int64),
    }
    path = tmp_path / "model.safetensors"
    safetensors_numpy.save_file(tensors, path)
    done = run("demo.py", path)
    assert done.returncode == 0, done.stderr
    assert "2 weight matrices to int8" in done.stdout
    assert "each of the 2 results equals the numpy reference bit for bit (3431 elements)" in done.stdout
    assert "kernels built for this: 2" in done.stdout
    assert "norm.weight" not in done.stdout
    assert "2/2" in done.stderr  # the progress bar


def test_demo_without_weights(tmp_path):
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    safetensors_numpy.save_file({"bias": np.ones(3, np.float32)}, path)
    done = run("demo.py", path)
    assert done.returncode != 0
    assert "no weight matrices" in done.stderr

"""Commands that succeed or are refused, and files to give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fq_tvm import cli


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command that succeeds; return what it prints, parsed if it is JSON."""

    def run(*arguments: Any) -> Any:
        status = cli.main([str(a) for a in arguments])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out) if "--json" in arguments else printed.out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command that fails for bad input; return the one line that it says."""

    def run(*arguments: Any) -> str:
        assert cli.main([str(a) for a in arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        lines = printed.err.rsplit("\r", 1)[-1].splitlines()  # a bar that was shown and wiped out is no line
        assert len(lines) == 1, printed.err
        assert lines[0].startswith("fq-tvm"), lines
        return lines[0]

    return run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((4, 300)).astype(np.float32)
    np.save(tmp_path / "x.npy", matrix)
    np.save(tmp_path / "swapped.npy", matrix.astype(">f4"))
    np.save(tmp_path / "double.npy", matrix.astype(np.float64))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(matrix))
    tensors = {
        "a.weight": matrix,
        "b.weight": rng.standard_normal((6, 5, 3)).astype(np.float16),
        "steps": np.arange(3),
        "bias": rng.standard_normal(4).astype(np.float32),
    }
    np.savez(tmp_path / "x.npz", **tensors)
    np.savez_compressed(tmp_path / "packed.npz", **tensors)
    safetensors_numpy.save_file(tensors, tmp_path / "x.safetensors")
    return tmp_path

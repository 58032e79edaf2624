"""Time a Relax module with the operator against the kernel called directly, in one run and with the same threads."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax

import fq_tvm
import fq_tvm.relax
from fq_tvm.environment import num_threads
from fq_tvm.launch.buffers import empty_like

CASES = [
    ((64, 256, 56, 56), 1, "float32"),
    ((4096, 4096), 0, "float32"),
    ((4096, 4096), 1, "float32"),
    ((64, 56, 56, 256), 3, "float32"),
    ((512, 1000, 7), 1, "float32"),
    ((32, 197, 768), 2, "float32"),
    ((64, 256, 56, 56), 1, "float16"),
    ((4096, 4096), 1, "float16"),
]


def module(shape: Sequence[int], axis: int, dtype: str) -> Any:
    """A Relax module of one call of the operator."""
    builder = relax.BlockBuilder()
    types = [(shape, dtype), ((shape[axis],), "float32"), ((shape[axis],), "int32")]
    variables = [relax.Var(name, relax.TensorType(*t)) for name, t in zip("xsz", types, strict=True)]
    x, scale, zero_point = variables
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, -128, 127)
    with builder.function("main", variables):
        with builder.dataflow():
            output = builder.emit_output(builder.emit(call))
        builder.emit_func_output(output)
    return builder.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=20, help="calls of each, taken in turn (default: %(default)s)")
    repeat = parser.parse_args().repeat
    os.environ.setdefault("TVM_NUM_THREADS", str(num_threads()))  # of TVM's pool
    target = tvm.target.Target.from_device("cpu")
    rng = np.random.default_rng(0)
    print(f"{'case':40} {'Relax ms':>9} {'kernel ms':>9} {'ratio':>6}")
    for shape, axis, dtype in CASES:
        x = rng.standard_normal(shape, dtype="f4").astype(dtype)
        scale, zero_point = np.full(shape[axis], 0.02, "f4"), np.zeros(shape[axis], "i4")
        executable = relax.build(module(shape, axis, dtype), target, relax_pipeline=fq_tvm.relax.PIPELINE)
        main_function = relax.VirtualMachine(executable, tvm.cpu())["main"]  # looking it up costs 15 us
        tensors = [tvm.runtime.tensor(a) for a in (x, scale, zero_point)]
        # The virtual machine keeps memory that is free again, so the kernel gets memory that was written before, too.
        out, mask = empty_like(x, x.dtype), empty_like(x, bool)
        out[...], mask[...] = 1, True

        function = fq_tvm.fake_quantize_per_channel_affine_cachemask
        direct = partial(function, x, scale, zero_point, axis, -128, 127, out=out, mask=mask)
        calls = partial(main_function, *tensors), direct
        best = [float("inf")] * 2
        for call in calls:
            call()
        for _ in range(repeat):
            for i, call in enumerate(calls):
                start = time.perf_counter()
                call()
                best[i] = min(best[i], time.perf_counter() - start)
        relaxed, kernel = best
        name = f"{shape} axis {axis} {dtype}"
        print(f"{name:40} {relaxed * 1e3:9.2f} {kernel * 1e3:9.2f} {relaxed / kernel:6.2f}")


if __name__ == "__main__":
    main()

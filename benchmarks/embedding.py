"""Time Relax modules: of the operator against the kernel called directly, and of graphs against TVM's own pipeline.

One run, the same threads, calls in turn.  Module and kernel read the same memory, and write to two results in turn: the
virtual machine keeps one until the next is there, and where caches hold one but not both that alone takes a quarter
more time.  The graphs are R.quantize and R.dequantize of scales that are powers of two,
alone and after a relu.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax import op

import fq_tvm
import fq_tvm.relax
from fq_tvm.environment import num_threads

CASES = [
    ((64, 256, 56, 56), 1, "float32", None),
    ((4096, 4096), 0, "float32", None),
    ((4096, 4096), 1, "float32", None),
    ((64, 56, 56, 256), 3, "float32", None),
    ((512, 1000, 7), 1, "float32", None),
    ((32, 197, 768), 2, "float32", None),
    ((256, 256, 47), 1, "float32", None),
    ((256, 256, 47), 1, "float32", 0),
    ((256, 256, 47), 1, "float32", 2),
    ((509, 256, 8), 1, "float32", None),
    ((512, 256, 8), 1, "float32", 0),
    ((64, 256, 56, 56), 1, "float16", None),
    ((4096, 4096), 1, "float16", None),
]
"""Shape, axis, dtype, and the dimension whose extent only the run tells."""


def module(shape: Sequence[int], axis: int, dtype: str, symbolic: int | None = None) -> Any:
    """A Relax module of one call of the operator."""
    builder = relax.BlockBuilder()
    extents = [tirx.Var("n", "int64") if d == symbolic else extent for d, extent in enumerate(shape)]
    types = [(extents, dtype), ((extents[axis],), "float32"), ((extents[axis],), "int32")]
    variables = [relax.Var(name, relax.TensorType(*t)) for name, t in zip("xsz", types, strict=True)]
    x, scale, zero_point = variables
    call = fq_tvm.relax.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, -128, 127)
    with builder.function("main", variables):
        with builder.dataflow():
            output = builder.emit_output(builder.emit(call))
        builder.emit_func_output(output)
    return builder.get()


GRAPHS = [
    ((64, 256, 56, 56), 1),
    ((32, 128, 28, 28), 1),
    ((8, 64, 28, 28), 1),
    ((4096, 4096), 0),
    ((4096, 4096), 1),
    ((64, 56, 56, 256), 3),
    ((512, 1000, 7), 1),
    ((32, 197, 768), 2),
    ((1, 197, 768), None),
    ((64, 256, 56, 56), None),
]


def graph(shape: Sequence[int], axis: int | None, after_relu: bool) -> Any:
    """A Relax module that quantizes and dequantizes, of constant parameters."""
    channels = 1 if axis is None else shape[axis]
    scale, zero_point = relax.const(np.full(channels, 2.0**-5, "f4")), relax.const(np.zeros(channels, "i1"), "int8")
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(op.nn.relu(x)) if after_relu else x
            q = builder.emit(op.quantize(value, scale, zero_point, axis=axis or 0, out_dtype="int8"))
            output = builder.emit_output(op.dequantize(q, scale, zero_point, axis=axis or 0))
        builder.emit_func_output(output)
    return builder.get()


def best_of(calls: Sequence[Any], repeat: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """The least time of each, in seconds, taken in turn."""
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    for _ in range(repeat):
        for i, call in enumerate(calls):
            start = clock()
            call()
            best[i] = min(best[i], clock() - start)
    return best


def load(mod: Any, target: Any, pipeline: Any) -> Any:
    """Build a module; return its function, as looking it up costs 15 us."""
    return relax.VirtualMachine(relax.build(mod, target, relax_pipeline=pipeline), tvm.cpu())["main"]


def compare_graphs(target: Any, repeat: int, clock: Callable[[], float] = time.perf_counter) -> None:
    """Print the table of graphs, and the geometric mean of the ratios."""
    print(f"\n{'graph':40} {'TVM ms':>9} {'ours ms':>9} {'ratio':>6}")
    ratios = []
    for shape, axis in GRAPHS:
        x = tvm.runtime.tensor(np.random.default_rng(0).standard_normal(shape, dtype="f4"))
        for after_relu in (False, True):
            mod = graph(shape, axis, after_relu)
            pipelines = relax.get_default_pipeline(target), fq_tvm.relax.PIPELINE
            stock, ours = best_of([partial(load(mod, target, pipeline), x) for pipeline in pipelines], repeat, clock)
            ratios.append(stock / ours)
            name = f"{'relu, ' if after_relu else ''}pair {shape} axis {axis}"
            print(f"{name:40} {stock * 1e3:9.3f} {ours * 1e3:9.3f} {ratios[-1]:6.2f}")
    mean = float(np.exp(np.mean(np.log(ratios))))
    print(f"TVM's pipeline over ours: geometric mean {mean:.2f} (at least 1.5), least {min(ratios):.2f} (at least 1)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=20, help="calls of each, taken in turn (default: %(default)s)")
    parser.add_argument("--cpu-time", action="store_true", help="graphs alone: time of the CPU, with one thread")
    arguments = parser.parse_args()
    repeat = arguments.repeat
    os.environ.setdefault("TVM_NUM_THREADS", "1" if arguments.cpu_time else str(num_threads()))  # of TVM's pool
    target = tvm.target.Target.from_device("cpu")
    if arguments.cpu_time:
        compare_graphs(target, repeat, time.process_time)
        return
    rng = np.random.default_rng(0)
    print(f"{'case':40} {'Relax ms':>9} {'kernel ms':>9} {'ratio':>6}")
    worst = 0.0
    for shape, axis, dtype, symbolic in CASES:
        x = rng.standard_normal(shape, dtype="f4").astype(dtype)
        main_function = load(module(shape, axis, dtype, symbolic), target, fq_tvm.relax.PIPELINE)
        arrays = x, np.full(shape[axis], 0.02, "f4"), np.zeros(shape[axis], "i4")
        tensors = [tvm.runtime.tensor(a) for a in arrays]
        x, scale, zero_point = (np.from_dlpack(t) for t in tensors)
        held = [main_function(*tensors) for _ in range(2)]  # memory of the same allocator
        results = itertools.cycle([[np.from_dlpack(t) for t in pair] for pair in held])

        kernel = partial(fq_tvm.fake_quantize_per_channel_affine_cachemask, x, scale, zero_point, axis, -128, 127)

        def direct(kernel: Any = kernel, results: Any = results) -> None:
            out, mask = next(results)
            kernel(out=out, mask=mask)

        times = best_of([partial(main_function, *tensors), direct], 2 * repeat)
        ratio = times[0] / times[1]
        worst = max(worst, ratio)
        name = f"{shape} axis {axis} {dtype}{'' if symbolic is None else f', {symbolic} symbolic'}"
        print(f"{name:40} {times[0] * 1e3:9.2f} {times[1] * 1e3:9.2f} {ratio:6.2f}")
    print(f"Module over kernel: at most {worst:.2f} (at most 1.1)")
    compare_graphs(target, repeat)


if __name__ == "__main__":
    main()

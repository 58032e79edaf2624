"""``fq-tvm build`` and ``fq-tvm inspect``: kernels ahead of time, and the one that a tensor gets."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from .. import environment
from ..errors import FqError
from ..spec import (
    EXTENDED_FLOATS,
    EXTENDED_ZERO_POINTS,
    FakeQuantSpec,
    catalogue,
    folded_norm_catalogue,
    folded_norm_gradient_catalogue,
    folded_weights_catalogue,
    folded_weights_gradient_catalogue,
    learnable_gradient_catalogue,
    observed_parameters_catalogue,
    quotient_gradient_catalogue,
    range_catalogue,
    straight_through_catalogue,
)
from .output import kernel_name, megabytes, print_facts, print_json, print_line, print_source, progress, shape_text
from .parser import BITS, JSON, QUIET, TARGET, Arguments, command, integers, one_of, option, quant_range


@command(
    one_of(
        option("--all", action="store_true", help="every kernel of aclnn's contract"),
        option(
            "--spec",
            nargs="+",
            metavar="FIELD=VALUE",
            help="those with these fields, e.g. iteration=rows dtype=float16",
        ),
    ),
    option(
        "--extensions",
        action="store_true",
        help="those of dtypes beyond aclnn's contract, too; implied by a FIELD=VALUE that is beyond it",
    ),
    option(
        "--c-api",
        action="store_true",
        help="write fq_tvm.h, fq_tvm.c and objects for C and C++ programs instead, which need neither Python nor TVM",
    ),
    option("-o", "--output", metavar="DIR", required=True, help="the folder; kernels that it has are kept"),
    TARGET,
    QUIET,
    JSON,
)
def build(arguments: Arguments) -> None:
    """Build kernels ahead of time.

    The folder serves as FQ_TVM_ARTIFACTS_DIR on any machine of the same CPU and versions, with no compiler; with
    --c-api it is to be compiled and linked into a program, and files of an earlier build are replaced. --target builds
    for another CPU, of another architecture, too. Fields: iteration, dtype, scale_dtype, out_dtype, zero_point_dtype,
    arithmetic; mask (true or false), form (reciprocal or division), zero_point_placement (after or before rounding),
    keep_zero_sign, and nan (quant_min or quant_max), which are those of aclnn's contract unless given.
    """
    from ..c_api.build import build_c_library
    from ..launch.library import build_library
    from ..launch.registry import find_target

    fields: dict[str, Any] = {}
    if not arguments.all and not arguments.spec:
        raise FqError("give --all, or --spec with one or more FIELD=VALUE")
    for item in arguments.spec or ():
        field, sign, value = item.partition("=")
        allowed = [f.name for f in dataclasses.fields(FakeQuantSpec)]
        if not sign or field not in allowed:
            raise FqError(f"--spec {item!r}: expected FIELD=VALUE, where FIELD is one of {', '.join(allowed)}")
        fields[field] = {"true": True, "false": False}.get(value.lower(), value)
    specs: list[Any] = [*catalogue(**fields, extensions=arguments.extensions)]
    if arguments.all:
        specs += straight_through_catalogue()
    if arguments.all and not arguments.c_api:
        specs += [
            *range_catalogue(arguments.extensions),
            *learnable_gradient_catalogue(),
            *quotient_gradient_catalogue(),
            *observed_parameters_catalogue(),
            *folded_weights_catalogue(),
            *folded_weights_gradient_catalogue(),
            *folded_norm_catalogue(),
            *folded_norm_gradient_catalogue(),
        ]
    target, is_default = find_target(arguments.target), arguments.target in (None, environment.target_name())
    start = time.perf_counter()
    with progress(len(specs), "kernel", arguments.quiet) as bar:

        def show(done: int, total: int, spec: Any) -> None:
            bar.total = total
            bar.set_postfix_str(spec.name)
            bar.update(done - bar.n)

        make = build_c_library if arguments.c_api else build_library
        paths = make(arguments.output, specs, None if is_default else target, show)
        bar.update(bar.total - bar.n)
    if arguments.c_api:
        return _show_c_library(arguments, specs, paths, target.cpu)
    if arguments.json:
        keys = [json.loads((p / "meta.json").read_text())["key"] for p in paths]
        kernels = [{"name": kernel_name(k), "spec": k["spec"], "path": p} for k, p in zip(keys, paths, strict=True)]
        return print_json({"output": arguments.output, "cpu": target.cpu, "kernels": kernels})
    size = sum(f.stat().st_size for p in paths for f in p.iterdir())
    seconds = time.perf_counter() - start
    print_line(f"{len(paths)} kernels for {target.cpu} in {arguments.output}: {megabytes(size)}, {seconds:.1f} s")


def _show_c_library(arguments: Arguments, specs: list[Any], paths: list[Path], cpu: str) -> None:
    if arguments.json:
        kernels = [{"name": spec.name, "spec": spec.to_json()} for spec in specs]
        return print_json({"output": arguments.output, "cpu": cpu, "kernels": kernels, "files": paths})
    size = megabytes(sum(path.stat().st_size for path in paths))
    print_line(f"{len(specs)} kernels for {cpu} in {arguments.output}: {size}")
    print_line("to be linked: fq_tvm.c, *.o and -lm; fq_tvm.h says how to call them")


@command(
    option(
        "--shape", type=integers, required=True, metavar="N,N,...", help='extents, e.g. 64,256,56,56; "" for a scalar'
    ),
    option("--axis", type=int, default=0, help="the channel dimension (default: 0)"),
    option(
        "--strides",
        type=integers,
        metavar="N,N,...",
        help="in elements (default: C order); out and mask as numpy's empty_like",
    ),
    option("--dtype", choices=EXTENDED_FLOATS, default="float32", help="of x (default: float32)"),
    option("--scale-dtype", choices=EXTENDED_FLOATS, default="float32", help="of scale (default: float32)"),
    option("--zero-point-dtype", choices=EXTENDED_ZERO_POINTS, default="int32", help="of zero point (default: int32)"),
    option("--out-dtype", choices=EXTENDED_FLOATS, help="of out (default: that of x)"),
    *BITS,
    option("--kind", choices=("te", "tir", "ll", "asm"), help="print this text of the kernel too"),
    TARGET,
    JSON,
)
def inspect(arguments: Arguments) -> None:
    """Show the kernel that a tensor gets.

    Prints its class, loops, schedule, the calls of a launch, CPU and place in the cache, which it is built into if need
    be; then, with --kind, its tensor expression (te), scheduled TIR (tir), LLVM IR (ll) or assembly (asm). The facts
    are comments of that language, so that the output is a file of it.
    """
    from ..launch.arguments import check_unplaced, normalize_axis
    from ..launch.choose import choose
    from ..launch.registry import find_target, kernel_of
    from ..layout import MAX_RANK, dense_strides

    shape = arguments.shape
    if len(shape) > MAX_RANK or any(n < 1 for n in shape):
        raise FqError(f"--shape is {shape}; expected at most {MAX_RANK} extents, each 1 or more")
    axis = normalize_axis(arguments.axis, len(shape))
    strides = dense_strides(shape) if arguments.strides is None else arguments.strides
    if len(strides) != len(shape):
        raise FqError(f"--strides has {len(strides)} values; expected {len(shape)}, one for each extent")
    results = dense_strides(shape, sorted(range(len(shape)), key=lambda d: -abs(strides[d])))
    out_dtype = arguments.out_dtype or arguments.dtype
    dtypes = (arguments.dtype, arguments.scale_dtype, arguments.zero_point_dtype, out_dtype)
    call = check_unplaced(dtypes, shape, axis, (strides, results, results), quant_range(arguments))
    chosen = choose(call, find_target(arguments.target))
    spec, layout = chosen.spec, chosen.layout
    kernel = kernel_of(chosen)
    text = kernel.source(arguments.kind) if arguments.kind else None
    calls = [_call_text(call, call.threaded if chosen.plan.threaded else call.serial) for call in chosen.plan.calls]
    answer = {
        "name": spec.name,
        "spec": spec.to_json(),
        "layout": dataclasses.asdict(layout),
        "schedule": kernel.schedule.to_json(),
        "calls": calls,
        "workspace_bytes": chosen.plan.workspace_size,
        "cpu": kernel.target.cpu,
        "path": kernel.path,
    }
    if arguments.json:
        return print_json({**answer, "kind": arguments.kind, "source": text})
    loops = f"outer {shape_text(layout.outer)}, channels {layout.channels}, inner {layout.inner}"
    lines = {
        "kernel": spec.name,
        "tensor": f"{shape_text(shape)} {arguments.dtype}, axis {axis}",
        "loops": f"{layout.iteration}: {loops}",
        "schedule": ", ".join(f"{knob} {value}" for knob, value in kernel.schedule.to_json().items()),
        "calls": "; ".join(calls),
        "workspace": f"{chosen.plan.workspace_size} bytes",
        "CPU": kernel.target.cpu,
        "cached in": str(kernel.path or "no folder: kept in memory only"),
    }
    mark = {None: "", "ll": "; "}.get(arguments.kind, "# ")
    print_facts(lines, mark)
    if text is not None:
        print_line()
        print_source(text.rstrip())


def _call_text(call: Any, function: str) -> str:
    """Write down a call of a function of the object code, as the contract of entry points says it."""
    numbers = (f"{name}={value:g}" for name, value in zip(call.form.numbers, call.numbers, strict=True))
    return f"{function}({', '.join([*call.form.tensors, *numbers])})"

"""``fq-tvm run``: tensors of a file, quantized and judged."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, FqError
from .output import print_json, print_line, print_table, printable, progress, say, shape_text
from .parser import BITS, JSON, QUIET, Arguments, command, one_of, option, quant_range

if TYPE_CHECKING:
    from ..weights.files import TensorFile
    from ..weights.report import Report


@command(
    option("file", metavar="FILE", help="a .npy, .npz or .safetensors file"),
    option(
        "--tensor",
        action="append",
        default=[],
        metavar="NAME",
        help="a tensor of the file, or a shell pattern of names; may be repeated (default: all that can be used)",
    ),
    option("--axis", type=int, default=0, help="the channel dimension (default: 0)"),
    *BITS,
    one_of(
        option("--symmetric", action="store_true", help="choose scales with one zero point in the middle (default)"),
        option("--affine", action="store_true", help="choose scale and zero point from minimum and maximum"),
        option("--scale", metavar="FILE", help="read scales: a .npy, or a .npz with TENSOR.scale or TENSOR"),
    ),
    option("--zero-point", metavar="FILE", help="read zero points likewise; needs --scale (default: 0)"),
    option("-o", "--output", metavar="OUT.npz", help="write out, mask, scale and zero_point of each tensor"),
    option("--verify", action="store_true", help="run the numpy reference too: compare every bit, and the time"),
    QUIET,
    JSON,
)
def run(arguments: Arguments) -> int:
    """Fake-quantize the tensors of a file.

    Each channel's scale and zero point come from its minimum and maximum, or from files. The table shows the
    signal-to-quantization-noise ratio, the share of elements outside the range, and the speed of the kernel: bytes of
    x, out and mask by its median time, with outputs allocated before. OUT.npz holds TENSOR.out, TENSOR.mask,
    TENSOR.scale and TENSOR.zero_point, and can be given to --scale and --zero-point again.
    """
    from ..weights.files import open_tensors, select, write_npz
    from ..weights.report import process

    low, high = quant_range(arguments)
    if arguments.zero_point and not arguments.scale:
        raise FqError("--zero-point needs --scale")
    reports: list[Report] = []
    with ExitStack() as stack:
        file = stack.enter_context(open_tensors(arguments.file))
        names, skipped = select(file, arguments.axis, arguments.tensor)
        parameters = stack.enter_context(_parameters(arguments, names, low, high))
        if arguments.output:
            if os.path.exists(arguments.output) and os.path.samefile(arguments.output, arguments.file):
                raise FqError(f"the output would replace the input {arguments.file}")
            write = stack.enter_context(write_npz(arguments.output))
        bar = stack.enter_context(progress(len(names), "tensor", arguments.quiet))
        for name in names:
            bar.set_postfix_str(printable(name))
            x = file.read(name)
            scale, zero_point = parameters(name, x)
            given = (x, scale, zero_point)
            try:
                out, mask, report = process(name, given, arguments.axis, (low, high), arguments.verify)
            except ArgumentError as error:
                raise FqError(f"{name}: {error}") from error
            reports.append(report)
            if arguments.output:
                for part, array in (("out", out), ("mask", mask), ("scale", scale), ("zero_point", zero_point)):
                    write(f"{name}.{part}", array)
            bar.update()
    different = [r.tensor for r in reports if r.equal is False]
    if arguments.json:
        tensors = [{**dataclasses.asdict(r), "bits": r.bits} for r in reports]
        print_json({"file": arguments.file, "output": arguments.output, "tensors": tensors, "skipped": skipped})
    else:
        _print_reports(reports, arguments.verify)
        if arguments.verify and not different:
            elements = sum(math.prod(r.shape) for r in reports)
            print_line()
            print_line(
                f"each of the {len(reports)} results equals the numpy reference bit for bit ({elements} elements)"
            )
        if arguments.output:
            print_line(f"wrote {arguments.output}")
    for reason in dict.fromkeys(skipped.values()):
        say(f"note: skipped {', '.join(n for n, r in skipped.items() if r == reason)}: {reason}")
    if different:
        say(f"error: {len(different)} of {len(reports)} results differ from the reference: {', '.join(different)}")
    return 1 if different else 0


@contextmanager
def _parameters(
    arguments: Arguments, names: Sequence[str], low: int, high: int
) -> Iterator[Callable[[str, Any], tuple[Any, Any]]]:
    """Give what finds scale and zero point of a tensor; files are checked before anything is computed."""
    import numpy as np

    from ..weights.files import open_tensors
    from ..weights.parameters import choose_parameters

    if not arguments.scale:
        yield lambda _, x: choose_parameters(x, arguments.axis, low, high, symmetric=not arguments.affine)
        return

    def find(source: TensorFile, name: str, kind: str) -> str:
        if source.path.suffix == ".npy":
            return source.path.stem
        for key in (f"{name}.{kind}", name):
            if key in source.tensors:
                return key
        raise FqError(f"{source.path} has neither {name}.{kind} nor {name}")

    with open_tensors(arguments.scale) as scales, open_tensors(arguments.zero_point or arguments.scale) as zero_points:
        scale_keys = {name: find(scales, name, "scale") for name in names}
        zero_point_keys = {name: find(zero_points, name, "zero_point") for name in names if arguments.zero_point}

        def parameters(name: str, _x: Any) -> tuple[Any, Any]:
            scale = scales.read(scale_keys[name])
            if not arguments.zero_point:
                return scale, np.zeros(scale.shape, np.int32)
            key = zero_point_keys[name]
            given = zero_points.read(key)
            zero_point = given.astype(np.int32) if given.dtype.kind in "iu" else given
            if not np.array_equal(zero_point, given):
                raise FqError(f"{key} of {zero_points.path} has values that are no int32")
            return scale, zero_point

        yield parameters


def _print_reports(reports: Sequence[Report], verified: bool) -> None:
    header = ["tensor", "shape", "axis", "bits", "SQNR dB", "clipped %", "GB/s", *(["x numpy"] if verified else [])]
    rows = []
    for r in reports:
        measured = [f"{r.sqnr_db:.2f}", f"{100 * r.clipped:.3f}", f"{r.gigabytes_per_second:.2f}"]
        times_numpy = [f"{r.times_numpy:.1f}"] if verified else []
        rows.append([r.tensor, shape_text(r.shape), str(r.axis), str(r.bits), *measured, *times_numpy])
    print_table(header, rows)
    what = "GB/s and x numpy are" if verified else "GB/s is"
    print_line(f"{what} of the median of several launches")

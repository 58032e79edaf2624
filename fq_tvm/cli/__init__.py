"""The command line ``fq-tvm``: the only part of the library that prints.

A subcommand is one function: :func:`command` takes its name and help from it, and its options.  Modules that import
numpy, TVM or torch are imported by the subcommand that needs them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .. import __version__, environment
from ..errors import ArgumentError, FqError
from ..spec import EXTENDED_FLOATS, EXTENDED_ZERO_POINTS, FakeQuantSpec, arithmetic_for, catalogue

if TYPE_CHECKING:
    from ..store.cache import Store
    from ..target import Target
    from ..weights import Report, TensorFile

__all__ = ["main"]

DESCRIPTION = """\
Per-channel fake quantization with a cache mask, as CPU kernels generated from one TVM tensor expression.

    q    = rint(x * (1 / scale[c])) + zero_point[c]
    out  = (clip(q, quant_min, quant_max) - zero_point[c]) * scale[c]
    mask = quant_min <= q <= quant_max

A kernel serves every shape: loop class, dtypes and arithmetic path are its identity; extents, strides and the range
are arguments. It is compiled by TVM and LLVM when first needed, kept on disk, and loaded from there without TVM's
compiler afterwards. Results equal a numpy reference bit for bit on every CPU, thread count and memory layout.
"""

EPILOGUE = """\
environment:
  FQ_TVM_CACHE_DIR      folder of built kernels (default: the platform's cache folder)
  FQ_TVM_ARTIFACTS_DIR  folder that `fq-tvm build` wrote; looked at first, never written
  FQ_TVM_TARGET         CPU to generate code for, by LLVM's name, e.g. x86-64-v3 (default: host)
  FQ_TVM_NUM_THREADS    threads of a kernel (default: the CPUs that the process may use)
  FQ_TVM_REQUIRE_CACHE  1: a kernel that is not built yet is an error
  FQ_TVM_LOG            debug, info, ...: log to standard error
  FQ_TVM_AKG_HOME       folder of AKG, one of the Ascend toolchains (default: in the platform's data folder)

exit status: 0 done; 1 a result differs from the reference (`run --verify`); 2 bad input, with one line on stderr.
"""

EXTRAS = {
    "ascend": ("ascendnpu-ir", "decorator"),
    "demo": ("safetensors",),
    "torch": ("torch",),
    "tune": ("cloudpickle", "psutil", "tornado"),
    "plot": ("matplotlib",),
    "peers": ("numba", "onnx", "onnxruntime", "openvino"),
}
"""Optional parts and the packages that they need."""

MEGABYTE = 1_000_000


class Option(NamedTuple):
    """One argument, as :meth:`argparse.ArgumentParser.add_argument` takes it."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


Action = Callable[[argparse.Namespace], int | None]

_commands: dict[str, tuple[Action, Sequence[Option | Sequence[Option]]]] = {}


def option(*flags: str, **settings: Any) -> Option:
    """State one argument."""
    return Option(flags, settings)


JSON = option("--json", action="store_true", help="print the answer as JSON")
QUIET = option("-q", "--quiet", action="store_true", help="show no progress bar")
BITS = (
    option("--bits", type=int, metavar="N", help="range of signed integers of N bits, 2 to 32 (default: 8)"),
    option("--quant-min", type=int, metavar="MIN", help="least integer of the range; needs --quant-max"),
    option("--quant-max", type=int, metavar="MAX", help="greatest integer of the range; needs --quant-min"),
)


def command(*options: Option | Sequence[Option]) -> Callable[[Action], Action]:
    """Make a function a subcommand.

    Parameters
    ----------
    *options : option or sequence of options
        A sequence is a group of which at most one may be given.

    Returns
    -------
    callable
        Registers the function under its name, with its docstring as help.
    """

    def register(action: Action) -> Action:
        _commands[action.__name__.strip("_")] = action, options
        return action

    return register


class _Parser(argparse.ArgumentParser):
    """Reports bad arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {_one_line(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="fq-tvm", description=DESCRIPTION, epilog=EPILOGUE, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"fq_tvm {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (action, options) in _commands.items():
        text = (action.__doc__ or "").strip()
        summary = text.partition("\n")[0].rstrip(".")
        description = "\n".join(line.removeprefix("    ") for line in text.splitlines())
        sub = subparsers.add_parser(name, help=summary, description=description, formatter_class=form)
        sub.set_defaults(action=action)
        for item in options:
            group, members = (sub, (item,)) if isinstance(item, Option) else (sub.add_mutually_exclusive_group(), item)
            for member in members:
                group.add_argument(*member.flags, **member.settings)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        The exit status.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        try:
            arguments = _parser().parse_args(argv)
            status = arguments.action(arguments)
            sys.stdout.flush()
            return status or 0
        except SystemExit as stop:  # argparse: help, version, bad arguments
            return stop.code if isinstance(stop.code, int) else 2
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # the reader of our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except (FqError, OSError) as error:
            _say(f"error: {_describe_error(error)}")
            return 2


def _describe_error(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return _one_line(str(error))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say(text: str) -> None:
    print(f"fq-tvm: {text}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has; it has no infinities and no NaN."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns; the first is text, the others are numbers or of one width."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *others = (
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


@contextmanager
def _progress(total: int, unit: str, quiet: bool) -> Iterator[Any]:
    """Show a progress bar, which goes away if something fails: then the error is all there is to read."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, disable=quiet, dynamic_ncols=True) as bar:
        try:
            yield bar
        except BaseException:
            bar.leave = False
            raise


def _megabytes(size: float) -> str:
    return f"{size / MEGABYTE:.2f} MB"


def _shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of integers; expected e.g. 64,256,56,56") from None


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return value


def _host_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}; expected HOST:PORT")
    return text


def _quant_range(arguments: argparse.Namespace) -> tuple[int, int]:
    from ..launch.arguments import check_range
    from ..weights import range_of_bits

    low, high = arguments.quant_min, arguments.quant_max
    if (low is None) != (high is None):
        raise FqError("--quant-min and --quant-max need each other")
    if low is None:
        return range_of_bits(8 if arguments.bits is None else arguments.bits)
    if arguments.bits is not None:
        raise FqError("--bits and --quant-min/--quant-max state the same thing; give one of them")
    return check_range(low, high)


@command(JSON)
def info(arguments: argparse.Namespace) -> None:
    """Show the CPU, threads, cache and versions that kernels are built and run with."""
    from importlib.metadata import PackageNotFoundError, version

    from ..ascend import toolchains
    from ..launch.kernel import current_target, versions

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    target = current_target()
    answer: dict[str, Any] = {
        "cpu": target.cpu,
        "features": list(target.features),
        "disabled": list(target.disabled),
        "missing": list(target.missing),
        "threads": environment.num_threads(),
        "schedules": _describe_records(target),
        "cache": _describe_store(environment.cache_dir()),
        "artifacts": _describe_store(environment.artifacts_dir()),
        "versions": {
            **versions(),
            "apache-tvm-ffi-orcjit": installed("apache-tvm-ffi-orcjit"),
            "numpy": installed("numpy"),
            "python": ".".join(map(str, sys.version_info[:3])),
        },
        "extras": {name: {p: installed(p) for p in packages} for name, packages in EXTRAS.items()},
        "ascend": {name: str(found) for name, found in toolchains().items()},
    }
    if arguments.json:
        return _print_json(answer)
    lines = {
        "CPU": f"{target.cpu}, {len(target.features)} features",
        "features": " ".join(target.features),
        "disabled": " ".join(target.disabled) or "none",
        "threads": str(answer["threads"]),
        "schedules": _records_text(answer["schedules"]),
        "cache": _store_text(answer["cache"]) or "none: no home folder, and FQ_TVM_CACHE_DIR is not set",
        "artifacts": _store_text(answer["artifacts"]) or "none: FQ_TVM_ARTIFACTS_DIR is not set",
        "versions": ", ".join(f"{name} {number}" for name, number in answer["versions"].items()),
    }
    if target.missing:
        lines["missing"] = f"{' '.join(target.missing)}: kernels for {target.cpu} can be built here, not run"
    for name, packages in answer["extras"].items():
        have = ", ".join(f"{p} {number}" for p, number in packages.items() if number)
        lines[f"[{name}]"] = have or f'not installed: pip install "fq_tvm[{name}]"'
    for name, text in answer["ascend"].items():
        lines[f"ascend {name}"] = text
    width = max(map(len, lines)) + 1
    for name, text in lines.items():
        print(f"{name:<{width}} {text}")
    return None


def _describe_records(target: Target) -> dict[str, Any]:
    from ..store import records

    folders = [f for f in (records.user_folder(), records.shipped_folder()) if f is not None]
    return {
        "applied": [
            {"path": found.path, "reason": found.reason, "records": len(found.content.records)}
            for found in records.applicable(target)
        ],
        "looked_for": [f"{name}.json" for name, _ in records.candidates(target, ())],
        "folders": folders,
    }


def _records_text(described: Mapping[str, Any]) -> str:
    if described["applied"]:
        return "; then ".join(f"{f['path']} ({f['reason']}, {f['records']} records)" for f in described["applied"])
    where = " and ".join(map(str, described["folders"])) or "no folder"
    return f"default ones: no {', '.join(described['looked_for'])} in {where}; `fq-tvm tune` makes one"


def _describe_store(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    from ..store.cache import Store

    entries = list(Store(folder).entries())
    return {"path": folder, "kernels": len(entries), "bytes": sum(e.size for e in entries)}


def _store_text(described: Mapping[str, Any] | None) -> str | None:
    if described is None:
        return None
    return f"{described['path']}, {described['kernels']} kernels, {_megabytes(described['bytes'])}"


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
    (
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
def run(arguments: argparse.Namespace) -> int:
    """Fake-quantize the tensors of a file.

    Each channel's scale and zero point come from its minimum and maximum, or from files. The table shows the
    signal-to-quantization-noise ratio, the share of elements outside the range, and the speed of the kernel: bytes of
    x, out and mask by its median time, with outputs allocated before. OUT.npz holds TENSOR.out, TENSOR.mask,
    TENSOR.scale and TENSOR.zero_point, and can be given to --scale and --zero-point again.
    """
    from contextlib import ExitStack

    from ..weights import open_tensors, process, select, write_npz

    low, high = _quant_range(arguments)
    if arguments.zero_point and not arguments.scale:
        raise FqError("--zero-point needs --scale")
    reports: list[Report] = []
    with ExitStack() as stack:
        file = stack.enter_context(open_tensors(arguments.file))
        names, skipped = select(file, arguments.axis, arguments.tensor)
        parameters = stack.enter_context(_parameters(arguments, file, names, low, high))
        if arguments.output:
            if os.path.exists(arguments.output) and os.path.samefile(arguments.output, arguments.file):
                raise FqError(f"the output would replace the input {arguments.file}")
            write = stack.enter_context(write_npz(arguments.output))
        bar = stack.enter_context(_progress(len(names), "tensor", arguments.quiet))
        for name in names:
            bar.set_postfix_str(name)
            x = file.read(name)
            scale, zero_point = parameters(name, x)
            try:
                out, mask, report = process(name, x, scale, zero_point, arguments.axis, low, high, arguments.verify)
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
        _print_json({"file": arguments.file, "output": arguments.output, "tensors": tensors, "skipped": skipped})
    else:
        _print_reports(reports)
        if arguments.verify and not different:
            elements = sum(math.prod(r.shape) for r in reports)
            print(f"\neach of the {len(reports)} results equals the numpy reference bit for bit ({elements} elements)")
        if arguments.output:
            print(f"wrote {arguments.output}")
    for reason in dict.fromkeys(skipped.values()):
        _say(f"note: skipped {', '.join(n for n, r in skipped.items() if r == reason)}: {reason}")
    if different:
        _say(f"error: {len(different)} of {len(reports)} results differ from the reference: {', '.join(different)}")
    return 1 if different else 0


@contextmanager
def _parameters(
    arguments: argparse.Namespace, file: TensorFile, names: Sequence[str], low: int, high: int
) -> Iterator[Callable[[str, Any], tuple[Any, Any]]]:
    """Give what finds scale and zero point of a tensor; files are checked before anything is computed."""
    import numpy as np

    from ..weights import choose_parameters, open_tensors

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

        def parameters(name: str, x: Any) -> tuple[Any, Any]:
            scale = scales.read(find(scales, name, "scale"))
            if not arguments.zero_point:
                return scale, np.zeros(scale.shape, np.int32)
            key = find(zero_points, name, "zero_point")
            given = zero_points.read(key)
            zero_point = given.astype(np.int32) if given.dtype.kind in "iu" else given
            if not np.array_equal(zero_point, given):
                raise FqError(f"{key} of {zero_points.path} has values that are no int32")
            return scale, zero_point

        for name in names:
            find(scales, name, "scale")
            if arguments.zero_point:
                find(zero_points, name, "zero_point")
        yield parameters


def _print_reports(reports: Sequence[Report]) -> None:
    header = ["tensor", "shape", "axis", "bits", "SQNR dB", "clipped %", "GB/s", "x numpy"]
    verified = any(r.times_numpy is not None for r in reports)
    rows = [
        [
            r.tensor,
            _shape_text(r.shape),
            str(r.axis),
            str(r.bits),
            f"{r.sqnr_db:.2f}",
            f"{100 * r.clipped:.3f}",
            f"{r.gigabytes_per_second:.2f}",
            f"{r.times_numpy:.1f}" if r.times_numpy is not None else "",
        ]
        for r in reports
    ]
    columns = len(header) if verified else len(header) - 1
    _print_table(header[:columns], [row[:columns] for row in rows])


@command(
    (
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
    option("-o", "--output", metavar="DIR", required=True, help="the folder; kernels that it has are kept"),
    QUIET,
    JSON,
)
def build(arguments: argparse.Namespace) -> None:
    """Build kernels ahead of time.

    The folder serves as FQ_TVM_ARTIFACTS_DIR on any machine of the same CPU and versions, with no compiler. Set
    FQ_TVM_TARGET to build for another CPU. Fields: iteration, dtype, scale_dtype, out_dtype, zero_point_dtype,
    arithmetic.
    """
    from ..launch.kernel import build_library, current_target

    fields: dict[str, str] = {}
    if not arguments.all and not arguments.spec:
        raise FqError("give --all, or --spec with one or more FIELD=VALUE")
    for item in arguments.spec or ():
        field, sign, value = item.partition("=")
        allowed = [f.name for f in dataclasses.fields(FakeQuantSpec)]
        if not sign or field not in allowed:
            raise FqError(f"--spec {item!r}: expected FIELD=VALUE, where FIELD is one of {', '.join(allowed)}")
        fields[field] = value
    specs = catalogue(**fields, extensions=arguments.extensions)
    target = current_target()
    start = time.perf_counter()
    with _progress(len(specs), "kernel", arguments.quiet) as bar:

        def show(done: int, total: int, spec: FakeQuantSpec) -> None:
            bar.total = total
            bar.set_postfix_str(spec.name)
            bar.update(done - bar.n)

        paths = build_library(arguments.output, specs, progress=show)
        bar.update(bar.total - bar.n)
    if arguments.json:
        stated = [json.loads((p / "meta.json").read_text())["key"]["spec"] for p in paths]
        kernels = [{"name": _name(s), "spec": s, "path": p} for s, p in zip(stated, paths, strict=True)]
        return _print_json({"output": arguments.output, "cpu": target.cpu, "kernels": kernels})
    size = sum(f.stat().st_size for p in paths for f in p.iterdir())
    seconds = time.perf_counter() - start
    print(f"{len(paths)} kernels for {target.cpu} in {arguments.output}: {_megabytes(size)}, {seconds:.1f} s")
    return None


@command(
    option(
        "--shape", type=_integers, required=True, metavar="N,N,...", help='extents, e.g. 64,256,56,56; "" for a scalar'
    ),
    option("--axis", type=int, default=0, help="the channel dimension (default: 0)"),
    option(
        "--strides",
        type=_integers,
        metavar="N,N,...",
        help="in elements (default: C order); out and mask as numpy's empty_like",
    ),
    option("--dtype", choices=EXTENDED_FLOATS, default="float32", help="of x (default: float32)"),
    option("--scale-dtype", choices=EXTENDED_FLOATS, default="float32", help="of scale (default: float32)"),
    option("--zero-point-dtype", choices=EXTENDED_ZERO_POINTS, default="int32", help="of zero point (default: int32)"),
    option("--out-dtype", choices=EXTENDED_FLOATS, help="of out (default: that of x)"),
    *BITS,
    option("--kind", choices=("te", "tir", "ll", "asm"), help="print this text of the kernel too"),
    JSON,
)
def inspect(arguments: argparse.Namespace) -> None:
    """Show the kernel that a tensor gets.

    Prints its class, loops, schedule, CPU and place in the cache, which it is built into if need be; then, with
    --kind, its tensor expression (te), scheduled TIR (tir), LLVM IR (ll) or assembly (asm). The facts are comments of
    that language, so that the output is a file of it.
    """
    from ..launch.arguments import normalize_axis
    from ..launch.kernel import current_target, get_kernel, layout_for, schedule_for
    from ..layout import MAX_RANK
    from ..store.records import size_class_of

    shape = arguments.shape
    if len(shape) > MAX_RANK or any(n < 1 for n in shape):
        raise FqError(f"--shape is {shape}; expected at most {MAX_RANK} extents, each 1 or more")
    axis = normalize_axis(arguments.axis, len(shape))
    dense = _dense_strides(shape, range(len(shape)))
    strides = dense if arguments.strides is None else arguments.strides
    if len(strides) != len(shape):
        raise FqError(f"--strides has {len(strides)} values; expected {len(shape)}, one for each extent")
    results = _dense_strides(shape, sorted(range(len(shape)), key=lambda d: -abs(strides[d])))
    target = current_target()
    layout = layout_for(target, shape, axis, (strides, results, results))
    out_dtype = arguments.out_dtype or arguments.dtype
    arithmetic = arithmetic_for(*_quant_range(arguments))
    dtypes = (arguments.dtype, arguments.scale_dtype, out_dtype, arguments.zero_point_dtype)
    spec = FakeQuantSpec(layout.iteration, *dtypes, arithmetic)
    schedule = schedule_for(spec, target, size_class_of(spec, layout.size))
    kernel = get_kernel(spec, target, schedule)
    text = kernel.source(arguments.kind) if arguments.kind else None
    answer = {
        "name": spec.name,
        "spec": spec.to_json(),
        "layout": dataclasses.asdict(layout),
        "schedule": kernel.schedule.to_json(),
        "cpu": kernel.target.cpu,
        "path": kernel.path,
    }
    if arguments.json:
        return _print_json({**answer, "kind": arguments.kind, "source": text})
    loops = f"outer {_shape_text(layout.outer)}, channels {layout.channels}, inner {layout.inner}"
    lines = {
        "kernel": spec.name,
        "tensor": f"{_shape_text(shape)} {arguments.dtype}, axis {axis}",
        "loops": f"{layout.iteration}: {loops}",
        "schedule": ", ".join(f"{knob} {value}" for knob, value in kernel.schedule.to_json().items()),
        "CPU": kernel.target.cpu,
        "cached in": str(kernel.path or "no folder: kept in memory only"),
    }
    mark = {None: "", "ll": "; "}.get(arguments.kind, "# ")
    for name, value in lines.items():
        print(f"{mark}{name:<10} {value}")
    if text is not None:
        print(f"\n{text.rstrip()}")
    return None


def _dense_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor without gaps whose dimensions lie in the given order, the outermost first."""
    strides, step = [0] * len(shape), 1
    for d in reversed(order):
        strides[d], step = step, step * shape[d]
    return tuple(strides)


def _extents(text: str) -> tuple[int | None, ...]:
    """Parse extents of which some may be ``?``."""
    try:
        return tuple(None if part.strip() == "?" else int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of extents, such as 64,256,56,56 or ?,256,56,56"
        ) from None


@command(
    option(
        "--shape",
        type=_extents,
        required=True,
        metavar="N,N,...",
        help="extents; ? for one known only at run time (npuir)",
    ),
    option("--axis", type=int, default=0, help="the channel dimension (default: 0)"),
    option("--dtype", choices=("float32", "float16"), default="float32", help="of x and out (default: float32)"),
    option("--scale-dtype", choices=("float32", "float16"), default="float32", help="of scale (default: float32)"),
    *BITS,
    option("--soc", default="Ascend910B1", help="the processor, as CANN spells it (default: Ascend910B1)"),
    option(
        "--toolchain", default="auto", metavar="auto|npuir|akg|tbe", help="what lowers it (default: the best there is)"
    ),
    option(
        "-o", "--output", default="artifacts/ascend", metavar="DIR", help="of the artifact (default: artifacts/ascend)"
    ),
    JSON,
)
def ascend(arguments: argparse.Namespace) -> None:
    """Lower the operator for an Ascend NPU, as far as the toolchains on this machine go.

    The artifact is a directory: what was emitted, what each stage made of it, the object where the machine can make
    one, and meta.json, which says what a machine with CANN has to do to finish. docs/ascend.md has the table of
    products and toolchains.
    """
    from ..ascend import lower

    low, high = _quant_range(arguments)
    made = lower(
        arguments.shape,
        arguments.axis,
        arguments.dtype,
        arguments.scale_dtype,
        low,
        high,
        arguments.soc,
        arguments.toolchain,
        arguments.output,
    )
    if arguments.json:
        return _print_json({"directory": made.directory, **made.to_json()})
    print(f"{made.directory}: {made.product}, {made.toolchain} {made.toolchain_version} ({made.reason})")
    print(f"reached: {made.reached}")
    for kernel in made.kernels:
        print(f"kernel {kernel.name}: block dimension {kernel.block_dim}, files {', '.join(kernel.files.values())}")
    for step in made.remaining:
        print(f"to finish: {step}")
    return None


CASE = option(
    "--case", action="append", default=[], metavar="TEXT", help="cases whose name has this text, or `facts`; repeatable"
)


@command(
    CASE,
    option(
        "--peers",
        type=_names,
        default=[],
        metavar="NAME,...",
        help="torch, inductor, numba, openvino, ort, numpy; default (no tuned schedules), x86-64-v3 (code for it)",
    ),
    option("--seconds", type=_seconds, default=1.0, metavar="S", help="for each case (default: 1)"),
    option("--json", metavar="OUT", help="write the numbers here as JSON"),
    option("--plot", metavar="OUT.png", help="draw the bandwidth over size, a line a class and dtype, and a copy's"),
    QUIET,
)
def bench(arguments: argparse.Namespace) -> None:
    """Measure how fast kernels are: against a copy, and against peers.

    For each case the median time and its spread (interquartile range), GB/s of x, out and mask, and the ratio to the
    limit: the time of a copy of x in the same run, scaled by the bytes to move. Then how many times as long each peer
    takes. Contenders take turns, and each that makes a mask is checked bit for bit first. A peer that is not
    installed is left out and named.

    Before each turn with a tensor above 1 MB the caches are swept, so that it comes from memory, and the limit is that
    of memory. "Kept" is without that: tensors stay in the caches as far as they fit, and so do those of the copy and
    the peers. Smaller tensors always do. Ratios to torch are judged by that, as the bound is from such calls.
    """
    from .. import bench as measuring

    measuring.quiet_threads()
    cases = measuring.find_cases(arguments.case)
    for path in (arguments.json, arguments.plot):
        if path and not Path(path).absolute().parent.is_dir():
            raise FqError(f"there is no folder for {path}")
    peers = arguments.peers
    measuring.check_peers(peers)
    results = []
    with _progress(len(cases), "case", arguments.quiet) as bar:
        for case in cases:
            bar.set_postfix_str(case.name)
            results.append(measuring.measure(case, peers, arguments.seconds))
            bar.update()
    header = ["case", "ms", "spread", "GB/s", "/ limit", "kept", *peers]
    rows = []
    for result in results:
        ratios = result.ratios()
        rows.append(
            [
                result.case.name,
                f"{result.median() * 1e3:.4g}",
                f"{result.spread():.0%}",
                f"{result.gigabytes_per_second:.1f}",
                f"{result.over_limit:.2f}",
                f"{result.kept_over_limit:.2f}",
                *(f"{ratios[peer]:.2f}x" if peer in ratios else "-" for peer in peers),
            ]
        )
    _print_table(header, rows)
    summary, claims = measuring.summary(results), measuring.claims(results)
    print(f"\n{environment.num_threads()} threads; a column of a peer is its time over ours")
    _print_summary(summary)
    absent = {(peer, reason) for result in results for peer, reason in result.absent.items()}
    for peer, reason in sorted(absent):
        left_out = sum(result.absent.get(peer) == reason for result in results)
        print(f"left out: {peer} in {left_out} of {len(results)} cases: {reason}")
    if claims:
        print()
        _print_table(
            ["what must hold", "measured", "bound", "", ""],
            [
                [
                    c.text,
                    f"{c.value:.2f}",
                    f"{'>=' if c.least else '<='} {c.bound:g}",
                    "yes" if c.holds else "NO",
                    c.where,
                ]
                for c in claims
            ],
        )
    if arguments.json:
        answer = {
            "threads": environment.num_threads(),
            "cases": [result.to_json() for result in results],
            "summary": summary,
            "claims": [{**dataclasses.asdict(c), "holds": c.holds} for c in claims],
        }
        Path(arguments.json).write_text(json.dumps(_plain(answer), indent=2) + "\n")
    if arguments.plot:
        measuring.plot(results, arguments.plot)


def _print_summary(summary: Mapping[str, Any]) -> None:
    texts = {"memory": "above 1 MB", "kept": "the same, kept in caches", "cache": "64 KB to 1 MB"}
    for name, text in texts.items():
        if name in summary:
            group = summary[name]
            print(
                f"{text}: {group['over_limit']:.2f} of the limit's time in geometric mean of {group['cases']} cases, "
                f"worst {group['worst']:.2f} ({group['worst_case']})"
            )
    for peer, ratios in sorted(summary["peers"].items()):
        print(
            f"{peer}: {ratios['mean']:.2f}x our time in geometric mean of {ratios['cases']} cases, "
            f"least {ratios['least']:.2f}x ({ratios['least_case']}); "
            f"kept {ratios['kept_mean']:.2f}x, least {ratios['kept_least']:.2f}x"
        )


@command(
    (CASE, option("--all", action="store_true", help="every case, and the boundary between rows and lanes")),
    option("--budget", type=_seconds, default=600.0, metavar="SECONDS", help="of the whole search (default: 600)"),
    option("--seconds", type=_seconds, default=0.3, metavar="S", help="of one comparison (default: 0.3)"),
    option("--seed", type=int, default=0, metavar="N", help="of the order of candidates (default: 0)"),
    option("--rpc", type=_host_port, metavar="HOST:PORT", help="measure on a machine of this tvm.rpc tracker"),
    option("--key", metavar="KEY", help="of the machine at the tracker; needs --rpc"),
    option("-o", "--output", metavar="FILE", help="the record file (default: as said above)"),
    option("--log", metavar="FILE", help="the log of trials (default: beside the record file)"),
    option("--plot", metavar="OUT.png", help="draw the search"),
    QUIET,
    JSON,
)
def tune(arguments: argparse.Namespace) -> None:
    """Find faster schedules by measuring, and keep them.

    Cases are grouped by class, dtype and size; each group is searched for its share of the budget. Candidates are
    built, checked bit for bit and timed in another process, in turns with the best so far, which is replaced only by
    what is better by more than the noise. Every trial is a line of the log; a search that was interrupted goes on
    from there when it is started again. What was found is written to schedules/CPU.json in a checkout, to the user's
    data folder elsewhere, and used by every later process; `fq-tvm info` says so. FQ_TVM_TARGET tunes code for a
    lesser CPU. Leave the machine alone meanwhile.
    """
    import importlib.util

    from ..bench import find_cases
    from ..tuning.plot import plot_trials
    from ..tuning.search import Progress, tune_cases

    if not arguments.all and not arguments.case:
        raise FqError("give --case TEXT, or --all")
    if bool(arguments.rpc) != bool(arguments.key):
        raise FqError("--rpc and --key need each other")
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        raise FqError('--plot needs matplotlib; `pip install "fq_tvm[plot]"`')
    cases = find_cases(arguments.case)
    with _progress(1, "trial", arguments.quiet) as bar:

        def show(step: Progress) -> None:
            if step.trial == 1:
                bar.set_description(step.job)
                bar.reset(step.trials - 1)
            best = f"best {step.best:.3f} of default"
            bar.set_postfix_str(f"{best}, {step.seconds_left:.0f} s and {step.jobs_left} jobs left")
            bar.update(step.trial - 1 - bar.n)

        path, content = tune_cases(
            cases,
            budget=arguments.budget,
            seed=arguments.seed,
            output=arguments.output,
            log=arguments.log,
            rpc=arguments.rpc,
            key=arguments.key or "",
            seconds=arguments.seconds,
            progress=show,
            boundary=arguments.all,
        )
    log = arguments.log or Path(path).with_suffix(".trials.jsonl")
    if arguments.plot:
        plot_trials(log, arguments.plot)
    if arguments.json:
        return _print_json({"path": path, "log": log, **content.to_json()})
    rows = [
        [
            f"{dict(r.match).get('iteration')} {dict(r.match).get('dtype')} {r.size_class}",
            f"{r.measured.get('over_default', math.nan):.3f}",
            f"{r.measured.get('over_limit', math.nan):.3f}",
            ", ".join(f"{knob} {value}" for knob, value in r.schedule.to_json().items()),
        ]
        for r in content.records
    ]
    _print_table(["kernels", "/ default", "/ limit", "schedule"], rows)
    if content.rows_min_inner is not None:
        print(f"rows from an inner extent of {content.rows_min_inner}")
    print(f"wrote {path}; trials are in {log}")
    return None


@command(
    option("what", choices=("list", "prune", "clear", "path"), metavar="list|prune|clear|path"),
    option("--older-than", type=float, metavar="DAYS", help="prune: what was not used for so long"),
    option("--max-size", type=float, metavar="MB", help="prune: what was not used longest, until the rest fits"),
    option("--other-versions", action="store_true", help="prune: kernels of other versions of fq_tvm and TVM"),
    JSON,
)
def cache(arguments: argparse.Namespace) -> None:
    """Look into the cache of built kernels, and clean it.

    list shows the kernels, path the folder; prune removes what the options say, and always corrupt entries and what
    killed processes left; clear removes everything. A running process keeps the kernels that it has loaded.
    """
    from ..store.cache import Store

    pruning = (arguments.older_than, arguments.max_size, arguments.other_versions or None)
    if arguments.what != "prune" and any(value is not None for value in pruning):
        raise FqError(f"--older-than, --max-size and --other-versions belong to prune, not to {arguments.what}")
    if any(value is not None and not 0 <= value < math.inf for value in pruning[:2]):
        raise FqError("--older-than and --max-size take numbers from 0 up")
    folder = environment.cache_dir()
    if folder is None:
        raise FqError("there is no cache: no home folder was found; set FQ_TVM_CACHE_DIR")
    actions = {"list": _cache_list, "prune": _cache_prune, "clear": _cache_clear, "path": _cache_path}
    actions[arguments.what](Store(folder), arguments)


def _cache_path(store: Store, arguments: argparse.Namespace) -> None:
    _print_json({"path": store.root}) if arguments.json else print(store.root)


def _cache_list(store: Store, arguments: argparse.Namespace) -> None:
    entries = [
        {
            "name": _name(entry.request["spec"]),
            "cpu": entry.request["target"]["cpu"],
            "versions": entry.request["versions"],
            "schedule": entry.request["schedule"],
            "bytes": entry.size,
            "used": entry.path.stat().st_mtime,
            "path": entry.path,
        }
        for entry in store.entries()
        if entry.path is not None
    ]
    entries.sort(key=lambda entry: (entry["name"], str(entry["path"])))
    if arguments.json:
        return _print_json({"path": store.root, "kernels": entries})
    now = time.time()
    rows = [
        [
            entry["name"],
            entry["cpu"],
            entry["versions"]["fq_tvm"],
            f"{entry['bytes'] / 1000:.0f}",
            f"{max(now - entry['used'], 0) / 86400:.1f}",
        ]
        for entry in entries
    ]
    if rows:
        _print_table(["kernel", "CPU", "fq_tvm", "kB", "days unused"], rows)
    print(f"{len(rows)} kernels in {store.root}: {_megabytes(sum(e['bytes'] for e in entries))}")
    return None


def _name(spec: Mapping[str, Any]) -> str:
    try:
        return FakeQuantSpec.from_json(spec).name
    except FqError:  # of another version, that had other fields
        return "_".join(map(str, spec.values()))


def _cache_prune(store: Store, arguments: argparse.Namespace) -> None:
    from ..launch.kernel import versions

    removed = store.prune(
        versions=versions() if arguments.other_versions else None,
        older_than=None if arguments.older_than is None else arguments.older_than * 86400,
        max_bytes=None if arguments.max_size is None else int(arguments.max_size * MEGABYTE),
    )
    left = len(store.paths())
    if arguments.json:
        return _print_json({"path": store.root, "removed": removed, "left": left})
    print(f"removed {len(removed)}, left {left} kernels in {store.root}")
    return None


def _cache_clear(store: Store, arguments: argparse.Namespace) -> None:
    removed = store.clear()
    if arguments.json:
        return _print_json({"path": store.root, "removed": removed})
    print(f"removed {removed} kernels from {store.root}")
    return None

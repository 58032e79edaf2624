"""The table of commands, and ``main``, which runs one and says how it ended."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..errors import FqError
from .ascend import ascend
from .bench import bench
from .build import build, inspect
from .cache import cache
from .info import info
from .output import say
from .parser import Parser, add_options
from .run import run
from .tune import tune

COMMANDS = (info, run, build, inspect, ascend, bench, tune, cache)

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
  FQ_TVM_TARGET         CPU to generate code for, e.g. x86-64-v3, kunpeng-920, armv8-a (default: host)
  FQ_TVM_NUM_THREADS    threads of a kernel (default: the CPUs that the process may use)
  FQ_TVM_THREADING_LAYER  whose threads these are: auto (default), openmp, own or serial
  FQ_TVM_REQUIRE_CACHE  1: a kernel that is not built yet is an error
  FQ_TVM_LOG            debug, info, ...: log to standard error
  FQ_TVM_AKG_HOME       folder of AKG, one of the Ascend toolchains (default: in the platform's data folder)

exit status: 0 done; 1 a result differs from the reference (`run --verify`); 2 bad input, with one line on stderr.
"""


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="fq-tvm", description=DESCRIPTION, epilog=EPILOGUE, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"fq_tvm {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for action, options in COMMANDS:
        text = (action.__doc__ or "").strip()
        summary = text.partition("\n")[0].rstrip(".")
        description = "\n".join(line.removeprefix("    ") for line in text.splitlines())
        sub = subparsers.add_parser(action.__name__, help=summary, description=description, formatter_class=form)
        sub.set_defaults(action=action)
        add_options(sub, options)
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
    _stand_in_for_closed_streams()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        try:
            status = _run(argv)
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # the reader of our output has seen enough
            return 141
        except (FqError, OSError, MemoryError, RecursionError) as error:
            say(f"error: {_describe_error(error)}")
            return 2
        finally:
            _drop_what_cannot_be_written()


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
        return arguments.action(arguments) or 0
    except SystemExit as stop:  # argparse: help, version, bad arguments
        return stop.code if isinstance(stop.code, int) else 2


def _stand_in_for_closed_streams() -> None:
    """Take the numbers of closed standard streams, so that no file of ours gets them and what others print.

    Writing to stdout fails then, as it does for any program that was given none; messages go nowhere.
    """
    if sys.stdout is None or sys.stderr is None:
        numbers = [os.open(os.devnull, os.O_RDONLY)]
        while numbers[-1] <= 2:
            numbers.append(os.open(os.devnull, os.O_RDONLY))
        os.close(numbers[-1])
        sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = sys.stderr or io.StringIO()


def _drop_what_cannot_be_written() -> None:
    """Leave nothing for Python to write when it exits: its failure would be two lines more, and another status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _describe_error(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or "out of memory"

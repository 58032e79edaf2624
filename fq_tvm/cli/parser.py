"""How a command and its options are stated, and the kinds of values that options take; knows no command."""

from __future__ import annotations

import math
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from ..errors import FqError
from .output import one_line

Option = Callable[[Any], object]
"""Adds arguments to a parser, or to a group of it."""

Arguments = Namespace

Action = Callable[[Arguments], int | None]


class Command(NamedTuple):
    """A subcommand: a function, whose name and docstring are its name and its help, and its options."""

    action: Action
    options: Sequence[Option]


def command(*options: Option) -> Callable[[Action], Command]:
    """Make a function a subcommand with these options."""
    return lambda action: Command(action, options)


def option(*flags: str, **settings: Any) -> Option:
    """State one argument, as :meth:`argparse.ArgumentParser.add_argument` takes it."""
    return lambda parser: parser.add_argument(*flags, **settings)


def one_of(*options: Option) -> Option:
    """State arguments of which at most one may be given."""
    return lambda parser: add_options(parser.add_mutually_exclusive_group(), options)


def add_options(parser: Any, options: Sequence[Option]) -> None:
    """Let a parser, or a group of it, take options."""
    for add in options:
        add(parser)


YEAR = 366 * 86400
"""Seconds."""

JSON = option("--json", action="store_true", help="print the answer as JSON")
QUIET = option("-q", "--quiet", action="store_true", help="show no progress bar")
BITS = (
    option("--bits", type=int, metavar="N", help="range of signed integers of N bits, 2 to 32 (default: 8)"),
    option("--quant-min", type=int, metavar="MIN", help="least integer of the range; needs --quant-max"),
    option("--quant-max", type=int, metavar="MAX", help="greatest integer of the range; needs --quant-min"),
)
TARGET = option(
    "--target",
    metavar="NAME",
    help="the CPU to generate code for: LLVM's name of one of x86-64 or aarch64, e.g. x86-64-v3; kunpeng-920; armv8-a "
    "for any of aarch64; host (default: what FQ_TVM_TARGET says)",
)
CASE = option(
    "--case", action="append", default=[], metavar="TEXT", help="cases whose name has this text, or `facts`; repeatable"
)


class Parser(ArgumentParser):
    """Reports bad arguments in one line, and help that nobody gets."""

    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse's own passes over a stdout that takes nothing."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, one_line(f"{self.prog}: error: {message} (see {self.prog} --help)") + "\n")


def integers(text: str) -> tuple[int, ...]:
    """Parse integers between commas; none of an empty text."""
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no list of integers; expected e.g. 64,256,56,56") from None


def extents(text: str) -> tuple[int | None, ...]:
    """Parse extents of which some may be ``?``."""
    try:
        return tuple(None if part.strip() == "?" else int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no list of extents, such as 64,256,56,56 or ?,256,56,56") from None


def names(text: str) -> list[str]:
    """Parse names between commas."""
    return [name for name in text.split(",") if name]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def seconds(text: str) -> float:
    """Parse a positive number of seconds, of which nobody waits for more than a year."""
    if not 0 < (value := _number(text)) <= YEAR:
        raise ArgumentTypeError(f"{text!r}; expected a positive number of seconds, at most {YEAR}")
    return value


def amount(text: str) -> float:
    """Parse a number from 0 up."""
    if not 0 <= (value := _number(text)) < math.inf:
        raise ArgumentTypeError(f"{text!r}; expected a number from 0 up")
    return value


def host_port(text: str) -> str:
    """Check an address; it stays a text."""
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) not in range(1, 2**16):
        raise ArgumentTypeError(f"{text!r}; expected HOST:PORT")
    return text


def quant_range(arguments: Arguments) -> tuple[int, int]:
    """Return the range that :data:`BITS` state."""
    from ..launch.arguments import check_range
    from ..weights.parameters import range_of_bits

    low, high = arguments.quant_min, arguments.quant_max
    if (low is None) != (high is None):
        raise FqError("--quant-min and --quant-max need each other")
    if low is None:
        return range_of_bits(8 if arguments.bits is None else arguments.bits)
    if arguments.bits is not None:
        raise FqError("--bits and --quant-min/--quant-max state the same thing; give one of them")
    return check_range(low, high)

"""What a command prints: tables, JSON, messages and progress bars; knows no command."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import FqError

MEGABYTE = 1_000_000
"""Bytes."""


def printable(text: str) -> str:
    """Escape what would steer a terminal, forge a line or not be encoded: names come from files of anybody."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str) -> str:
    """Put a text on one line."""
    return printable(" ".join(text.split()))


def say(text: str) -> None:
    """Print a message, which is one line, to standard error; who closed that wants no messages."""
    with contextlib.suppress(OSError):
        print(f"fq-tvm: {one_line(text)}", file=sys.stderr)


def print_line(text: str = "") -> None:
    """Print a line of the answer."""
    print(printable(text))


def print_source(text: str) -> None:
    """Print lines of code, which may have tabs."""
    for line in text.splitlines():
        print("\t".join(map(printable, line.split("\t"))))


def print_json(value: Any) -> None:
    """Print a value as JSON, in ASCII."""
    print(json.dumps(plain(value), indent=2).replace("\x7f", "\\u007f"))


def plain(value: Any) -> Any:
    """Turn a value into what JSON has; it has no infinities and no NaN."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns; the first is text, the others are numbers or of one width."""
    lines = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        aligned = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print_line("  ".join([first.ljust(widths[0]), *aligned]).rstrip())


def print_facts(facts: Mapping[str, str], mark: str = "") -> None:
    """Print a name and a text a line, perhaps as comments that begin with a mark."""
    width = max(map(len, facts)) + 1
    for name, text in facts.items():
        print_line(f"{mark}{name:<{width}} {text}")


@contextlib.contextmanager
def progress(total: int, unit: str, quiet: bool) -> Iterator[Any]:
    """Show a progress bar, which goes away if something fails: then the error is all there is to read."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, disable=quiet, dynamic_ncols=True) as bar:
        try:
            yield bar
        except BaseException:
            bar.leave = False
            raise


def megabytes(size: float) -> str:
    """Say how many bytes that is."""
    return f"{size / MEGABYTE:.2f} MB"


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as ``64x256``."""
    return "x".join(map(str, shape)) or "scalar"


def kernel_name(key: Mapping[str, Any]) -> str:
    """Name the kernel of a key of the cache, perhaps one of another version."""
    from ..operators import spec_of

    try:
        return str(spec_of(key["operator"], key["spec"]).name)
    except (FqError, KeyError, TypeError):  # of another version, that had other fields
        return "_".join(map(str, key["spec"].values()))

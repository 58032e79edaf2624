"""Damaged files, for tests of who reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def flips(path: Path) -> Iterator[int]:
    """Flip each bit of a file, one at a time; at the end it is as it was."""
    with path.open("r+b", buffering=0) as file:
        data = file.read()
        for bit in range(8 * len(data)):
            place, byte = bit // 8, data[bit // 8]
            os.pwrite(file.fileno(), bytes((byte ^ 1 << bit % 8,)), place)
            yield bit
            os.pwrite(file.fileno(), bytes((byte,)), place)

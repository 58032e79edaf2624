"""Placeholders, constants and the target."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

DTYPES = ("float16", "float32", "int32", "int8")


@dataclass(frozen=True, eq=False)
class Tensor:
    """A node of what is recorded."""

    call: str
    shape: tuple[int, ...]
    dtype: str
    operands: tuple = ()


@dataclass(frozen=True)
class Constant:
    value: float
    dtype: str


def placeholder(shape: object, name: str, dtype: str) -> Tensor:
    assert dtype in DTYPES, dtype
    return Tensor(f"placeholder {name}", tuple(shape), dtype)


def const(value: float, dtype: str) -> Constant:
    assert float(np.dtype(dtype).type(value)) == value, f"{value} is no {dtype}"
    return Constant(value, dtype)


class target:
    """``with tvm.target.cce():``"""

    entered = 0

    @staticmethod
    @contextlib.contextmanager
    def cce() -> Iterator[None]:
        target.entered += 1
        yield
        target.entered -= 1

"""The tensors that are measured: shape, axis, dtype and how they lie in memory; knows no kernel and no clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import FqError
from ..layout import Layout, arrange, dense_strides

QUANT_MIN, QUANT_MAX = -128, 127

CACHED_MIN_BYTES, CACHED_MAX_BYTES = 2**16, 2**20
"""Bytes of x between which a case is about caches; above, it is about memory, below, about the way to a kernel."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return a dtype of numpy's by its name.

    Raises
    ------
    FqError
        If it is bfloat16, and ml_dtypes is not installed.
    """
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise FqError('arrays of bfloat16 need ml_dtypes; `pip install "fq_tvm[tune]"`') from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


@dataclass(frozen=True)
class Case:
    """A tensor to be quantized.

    Parameters
    ----------
    shape : tuple of int
        Of the tensor.
    axis : int
        Its channel dimension.
    dtype : {"float32", "float16", "bfloat16"}
        Of self and out; scale is float32, the zero point int32, the range int8.
    memory : {"contiguous", "transposed", "channels_last", "stepped"}
        How it lies in memory: as its shape says, with the order of dimensions reversed, with the second one last, or
        as every second element of a tensor twice as long in its last dimension.
    tags : tuple of str
        ``"facts"`` for the shapes that the project began with.
    """

    shape: tuple[int, ...]
    axis: int
    dtype: str = "float32"
    memory: str = "contiguous"
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Shape, axis, dtype and memory, e.g. ``64x256x56x56@1:float32``."""
        text = f"{'x'.join(map(str, self.shape))}@{self.axis}:{self.dtype}"
        return text if self.memory == "contiguous" else f"{text}:{self.memory}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that :func:`json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Case:
        """Make a case of what :meth:`to_json` returned."""
        return cls(**{**value, "shape": tuple(value["shape"]), "tags": tuple(value["tags"])})

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def x_bytes(self) -> int:
        """Bytes of x."""
        return self.elements * (4 if self.dtype == "float32" else 2)

    @property
    def moved_bytes(self) -> int:
        """Bytes that have to move: x, out and one of mask for each element."""
        return 2 * self.x_bytes + self.elements

    @property
    def order(self) -> list[int]:
        """Dimensions as they lie in memory, the outermost first."""
        order = list(range(len(self.shape)))
        return {"transposed": order[::-1], "channels_last": [0, *order[2:], 1]}.get(self.memory, order)

    @property
    def iteration(self) -> str:
        """The class of kernels that does this case, with the default boundary between classes."""
        return self.layout.iteration

    @property
    def layout(self) -> Layout:
        """The loops of this case, with the default boundary between classes."""
        return arrange(self.shape, self.axis, self.strides)

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Of x, out and mask, in elements; results lie in the order of x, without gaps."""
        dense = dense_strides(self.shape, self.order)
        return tuple(2 * s for s in dense) if self.memory == "stepped" else dense, dense, dense

    def arrays(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Make x, scale and zero point; a tenth of x is out of range."""
        rng = np.random.default_rng(0)
        dense = rng.standard_normal([self.shape[d] for d in self.order], np.float32)
        dense *= 40
        x = dense.astype(numpy_dtype(self.dtype)).transpose(np.argsort(self.order))
        if self.memory == "stepped":
            x = np.repeat(x, 2, axis=-1)[..., ::2]
        channels = self.shape[self.axis]
        scale = rng.random(channels, np.float32) + np.float32(0.3)
        return x, scale, rng.integers(-20, 20, channels).astype(np.int32)


def _cases() -> Iterator[Case]:
    facts = ("facts",)
    yield Case((64, 256, 56, 56), 1, tags=facts)
    yield Case((32, 128, 28, 28), 1, tags=facts)
    yield Case((4096, 4096), 0, tags=facts)
    yield Case((4096, 4096), 1, tags=facts)
    yield Case((64, 56, 56, 256), 3, tags=facts)
    yield Case((32, 197, 768), 2, tags=facts)
    yield Case((64, 256, 56, 56), 1, "float16", tags=facts)
    yield Case((4096, 4096), 1, "float16", tags=facts)
    for dtype in ("float32", "float16"):
        yield Case((1, 1024), 1, dtype)  # 4 KB
        yield Case((16, 64, 16), 1, dtype)  # 64 KB
        yield Case((64, 256), 1, dtype)
        yield Case((64, 256), 0, dtype)
        yield Case((8, 64, 14, 14), 1, dtype)
        yield Case((8, 64, 14, 14), 1, dtype, "channels_last")
        yield Case((256, 768), 1, dtype)
        yield Case((100003,), 0, dtype)  # every element a channel of its own, an odd length
        yield Case((1, 1, 262144), 1, dtype)  # one channel
        yield Case((100000, 3), 1, dtype)  # RGB, last
        yield Case((8, 64, 56, 56), 1, dtype)
        yield Case((8, 64, 56, 56), 1, dtype, "channels_last")
        yield Case((64, 512, 7, 7), 1, dtype)  # inner 49
        yield Case((512, 1000, 7), 1, dtype)
        yield Case((1024, 1000, 3), 1, dtype)
        yield Case((1024, 1000, 2), 1, dtype)
        yield Case((4096, 1000), 1, dtype)
        yield Case((4096, 1000), 0, dtype)
        yield Case((333, 1001, 13), 1, dtype)
        yield Case((2048, 2048), 0, dtype, "transposed")
        yield Case((2048, 2048), 1, dtype, "transposed")
        yield Case((128, 50257), 1, dtype)  # a vocabulary
        yield Case((50257, 768), 0, dtype)
        yield Case((1, 3, 2048, 2048), 1, dtype)  # an image, outer 1
        yield Case((25, 4000000), 0, dtype)  # 400 MB


CASES = tuple(_cases())
"""Every case of ``fq-tvm bench``; the tuner and its tests use the same table."""


def find_cases(names: Sequence[str]) -> list[Case]:
    """Return the cases whose name contains one of the given texts, or whose tags do; all of them for none.

    Raises
    ------
    FqError
        If a text finds nothing.
    """
    if not names:
        return list(CASES)
    found = [case for case in CASES if any(n in case.name or n in case.tags for n in names)]
    for name in names:
        if not any(name in case.name or name in case.tags for case in CASES):
            raise FqError(f"no case is called {name!r}; cases are: {', '.join(case.name for case in CASES)}, or facts")
    return found

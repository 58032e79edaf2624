"""Tensors in files: which there are, which can be quantized, reading and writing them; knows no arithmetic."""

from __future__ import annotations

import fnmatch
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from ..errors import FqError
from ..launch.arguments import normalize_axis
from ..layout import MAX_RANK
from ..spec import FLOATS
from ..store.files import replacing

Array = NDArray[Any]

SAFETENSORS_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
"""Names of floating dtypes in the header of a safetensors file; the others are shown as they are."""

PIECE_BYTES = 1 << 24
"""Bytes that are read at a time."""

EMPTY_CHANNELS = 1 << 20
"""Most channels of a tensor without elements: a header of 80 bytes may tell of any number, and each takes a scale."""

MEMBER_BYTES = 65535
"""Most bytes of a name in a zip file."""


class TensorInfo(NamedTuple):
    """What the header of a file says of a tensor.

    Parameters
    ----------
    dtype : str
        numpy's name where there is one.
    shape : tuple of int
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorFile:
    """An open file of tensors; only headers were read.

    Parameters
    ----------
    path : Path
    tensors : mapping of TensorInfo
        By name, in the order of the file.
    load : callable
        Reads the tensor of a name; see :meth:`read`.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    load: Callable[[str], Array]

    def read(self, name: str) -> Array:
        """Read a tensor.

        Raises
        ------
        FqError
            If the file is corrupt.
        """
        with _file_errors(self.path):
            return self.load(name)


@contextmanager
def open_tensors(path: str | os.PathLike[str]) -> Iterator[TensorFile]:
    """Open a ``.npy``, ``.npz`` or ``.safetensors`` file.

    Parameters
    ----------
    path : path-like
        The tensor of a ``.npy`` file is named after the file.

    Yields
    ------
    TensorFile

    Raises
    ------
    FqError
        If the file is missing, malformed or of another kind, or is a ``.safetensors`` file and ``safetensors`` is not
        installed.
    """
    path = Path(path)
    kinds = {".npy": _open_npy, ".npz": _open_npz, ".safetensors": _open_safetensors}
    if path.suffix not in kinds:
        raise FqError(f"{path} is of an unknown kind; expected a name that ends in {', '.join(kinds)}")
    with kinds[path.suffix](path) as file:
        yield file


@contextmanager
def _open_npy(path: Path) -> Iterator[TensorFile]:
    with _file_errors(path), open(path, "rb") as stream:
        info = _read_header(stream).info

    def load(_: str) -> Array:
        with open(path, "rb") as stream:
            return _read_array(stream)

    yield TensorFile(path, {path.stem: info}, load)


@contextmanager
def _open_npz(path: Path) -> Iterator[TensorFile]:
    with _file_errors(path):
        archive = ZipFile(path)
    with archive:
        tensors = {}
        for member in archive.namelist():
            if member.endswith(".npy"):
                with _file_errors(path), archive.open(member) as stream:
                    tensors[member.removesuffix(".npy")] = _read_header(stream).info

        def load(name: str) -> Array:
            with archive.open(f"{name}.npy") as stream:
                return _read_array(stream)

        yield TensorFile(path, tensors, load)


@contextmanager
def _open_safetensors(path: Path) -> Iterator[TensorFile]:
    try:
        import safetensors
    except ImportError:
        raise FqError(f'reading {path} needs safetensors: pip install "fq_tvm[demo]"') from None
    with _file_errors(path):
        try:
            file: Any = safetensors.safe_open(path, framework="numpy")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise ValueError(error) from None
    with file:
        tensors = {
            name: TensorInfo(SAFETENSORS_DTYPES.get(part.get_dtype(), part.get_dtype()), tuple(part.get_shape()))
            for name, part in slices.items()
        }
        yield TensorFile(path, tensors, file.get_tensor)


class _Header(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]

    @property
    def info(self) -> TensorInfo:
        return TensorInfo(self.dtype.name, self.shape)


def _read_header(stream: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the npy format is not supported")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser, on what is no header
        shape, fortran, dtype = readers[version](stream)
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"its shape is {shape}; expected integers from 0 up")
    return _Header(dtype, shape, "F" if fortran else "C")


def _read_array(stream: IO[bytes]) -> Array:
    """Read an array in this machine's byte order; memory is taken as data comes, whatever the header says."""
    dtype, shape, order = _read_header(stream)
    if dtype.hasobject:
        raise ValueError(f"it has dtype {dtype}; Python objects are not loaded")
    size, data = math.prod(shape) * dtype.itemsize, bytearray()
    while len(data) < size:
        piece = stream.read(min(size - len(data), PIECE_BYTES))
        if not piece:
            raise ValueError(f"it ends after {len(data)} bytes of data; its header tells of {size}")
        data += piece
    array: Array = np.frombuffer(data, dtype).reshape(shape, order=order)
    return array.astype(dtype.newbyteorder("="), copy=False)


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """Make one error of whatever numpy, zipfile, safetensors and what they call raise for bytes of anybody."""
    try:
        yield
    except FqError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        text = " ".join(str(reason).split()) or type(error).__name__
        raise FqError(f"cannot read {path}: {text}") from error


def unfit(info: TensorInfo, axis: int) -> str | None:
    """Say why a tensor cannot be fake-quantized along an axis; None if it can."""
    if info.dtype == "bfloat16":
        return "bfloat16 is not supported yet; expected float16 or float32"
    if info.dtype not in FLOATS:
        return f"it has dtype {info.dtype}; expected float16 or float32"
    if len(info.shape) > MAX_RANK:
        return f"it has {len(info.shape)} dimensions; expected at most {MAX_RANK}"
    try:
        channels = info.shape[normalize_axis(axis, len(info.shape))] if info.shape else 1
    except FqError as error:
        return str(error)
    if 0 in info.shape and channels > EMPTY_CHANNELS:
        return f"it has {channels} channels and no element; expected at most {EMPTY_CHANNELS} of them"
    return None


def select(file: TensorFile, axis: int, patterns: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Choose tensors of a file.

    Parameters
    ----------
    file : TensorFile
    axis : int
        The channel dimension.
    patterns : sequence of str
        Names, or shell patterns of names; every tensor by default.

    Returns
    -------
    chosen : list of str
        In the order of the file.
    skipped : dict of str
        Why a tensor that no pattern names in full is left out, by name.

    Raises
    ------
    FqError
        If a pattern fits no tensor, a tensor named in full cannot be used, or nothing is left.
    """
    fitting = {p: {p, *fnmatch.filter(file.tensors, p)} & set(file.tensors) for p in patterns}
    for pattern, found in fitting.items():
        if not found:
            known = list(file.tensors)
            some = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise FqError(f"{file.path} has no tensor {pattern!r}; it has {some or 'none'}")
    names = [name for name in file.tensors if not patterns or any(name in found for found in fitting.values())]
    reasons = {name: reason for name in names if (reason := unfit(file.tensors[name], axis)) is not None}
    chosen = [name for name in names if name not in reasons]
    for name, reason in reasons.items():
        if name in patterns or not chosen:
            raise FqError(f"cannot use the tensor {name!r} of {file.path}: {reason}")
    if not chosen:
        raise FqError(f"{file.path} has no tensors")
    return chosen, reasons


@contextmanager
def write_npz(path: str | os.PathLike[str]) -> Iterator[Callable[[str, Array], None]]:
    """Write arrays to a ``.npz`` file, one at a time; the file appears when all are written.

    Parameters
    ----------
    path : path-like
        An existing file is replaced, a device or a pipe written to.

    Yields
    ------
    callable
        Adds an array under a name.

    Raises
    ------
    FqError
        If a name is too long for the format; nothing is left then.
    OSError
        If it cannot be written; nothing is left then.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; expected the name of a file")
    with replacing(path, "wb") as file, ZipFile(file, "w") as archive:

        def add(name: str, array: Array) -> None:
            # zipfile ends a name at a null character, and cannot write halves of characters outside of the plane 0
            name = name.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()
            if len(f"{name}.npy".encode()) > MEMBER_BYTES:
                raise FqError(f"{name[:40]!r}... is too long a name for {path}; expected at most {MEMBER_BYTES} bytes")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

        yield add

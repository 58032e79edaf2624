"""Tensors in files, quantization parameters from data, and how good and how fast the result is.

What ``fq-tvm run`` and the demo do to one file.  Knows file formats and numpy; prints nothing.
"""

from __future__ import annotations

import fnmatch
import math
import os
import statistics
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import reference
from ..errors import FqError
from ..functional import fake_quantize_per_channel_affine_cachemask
from ..launch.arguments import Operands, check_range, describe, normalize_axis
from ..launch.kernel import prepare
from ..layout import MAX_RANK
from ..spec import FLOATS

__all__ = [
    "Report",
    "TensorFile",
    "TensorInfo",
    "choose_parameters",
    "open_tensors",
    "process",
    "range_of_bits",
    "select",
    "unfit",
    "write_npz",
]

Array = NDArray[Any]
T = TypeVar("T")

SAFETENSORS_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
"""Names of floating dtypes in the header of a safetensors file; the others are shown as they are."""

MEASURE_SECONDS = 0.05
"""How long to repeat a call for its median time."""

FILE_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise for files that are missing, cut off, or something else."""


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
        info = _read_header(stream)
    yield TensorFile(path, {path.stem: info}, lambda name: _plain(np.load(path, allow_pickle=False)))


@contextmanager
def _open_npz(path: Path) -> Iterator[TensorFile]:
    with _file_errors(path):
        archive = zipfile.ZipFile(path)
    with archive:
        tensors = {}
        for member in archive.namelist():
            if member.endswith(".npy"):
                with _file_errors(path), archive.open(member) as stream:
                    tensors[member.removesuffix(".npy")] = _read_header(stream)

        def load(name: str) -> Array:
            with archive.open(f"{name}.npy") as stream:
                return _plain(np.lib.format.read_array(stream, allow_pickle=False))

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


def _read_header(stream: IO[bytes]) -> TensorInfo:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the npy format is not supported")
    shape, _, dtype = readers[version](stream)
    return TensorInfo(dtype.name, shape)


def _plain(array: Array) -> Array:
    """Bring an array of the other byte order to this machine's."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FqError:
        raise
    except FILE_ERRORS as error:
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
        normalize_axis(axis, len(info.shape))
    except FqError as error:
        return str(error)
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
    for pattern in patterns:
        if pattern not in file.tensors and not fnmatch.filter(file.tensors, pattern):
            known = list(file.tensors)
            some = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise FqError(f"{file.path} has no tensor {pattern!r}; it has {some or 'none'}")
    names = [
        name
        for name in file.tensors
        if not patterns or name in patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)
    ]
    reasons = {name: reason for name in names if (reason := unfit(file.tensors[name], axis)) is not None}
    chosen = [name for name in names if name not in reasons]
    for name, reason in reasons.items():
        if name in patterns or not chosen:
            raise FqError(f"cannot use the tensor {name!r} of {file.path}: {reason}")
    if not chosen:
        raise FqError(f"{file.path} has no tensors")
    return chosen, reasons


def range_of_bits(bits: int) -> tuple[int, int]:
    """Return the range of signed integers of a width.

    Raises
    ------
    FqError
        If the width is not from 2 to 32.

    Examples
    --------
    >>> range_of_bits(4)
    (-8, 7)
    """
    if not 2 <= bits <= 32:
        raise FqError(f"bits is {bits}; expected 2 to 32")
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def choose_parameters(
    x: Array, axis: int, quant_min: int, quant_max: int, symmetric: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Choose scale and zero point such that each channel's finite values just fit the range.

    Parameters
    ----------
    x : numpy.ndarray
        float16 or float32.
    axis : int
        The channel dimension.
    quant_min, quant_max : int
        The range.
    symmetric : bool
        One zero point for all channels, the middle of the range (0 for signed integers), and a scale from the largest
        magnitude.  Otherwise both come from minimum and maximum, with 0.0 always representable.

    Returns
    -------
    scale : numpy.ndarray
        float32, shape (x.shape[axis],); positive and normal, 1 for a channel without values other than 0.
    zero_point : numpy.ndarray
        int32, shape (x.shape[axis],), within the range.

    Raises
    ------
    FqError
        If the range has no zero point that is an int32.

    Examples
    --------
    >>> scale, zero_point = choose_parameters(np.float32([[1.27, -0.5], [0.0, 0.0]]), 0, -128, 127)
    >>> scale, zero_point
    (array([0.01, 1.  ], dtype=float32), array([0, 0], dtype=int32))
    """
    axis = normalize_axis(axis, x.ndim)
    rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) if x.size and x.ndim else x.reshape(-1, 1)
    low, high = _finite_extremes(rows if x.size else np.zeros((x.shape[axis], 1), np.float32))
    if symmetric:
        middle = (quant_min + quant_max + 1) // 2
        zero_point = np.full(len(low), middle, np.float64)
        reach = min(quant_max - middle, middle - quant_min) or max(quant_max - middle, middle - quant_min)
        scale = np.maximum(-low, high) / max(reach, 1)
    else:
        scale = (high - low) / max(quant_max - quant_min, 1)
    # a subnormal scale has no finite reciprocal, and neither end may leave float32
    limits = np.finfo(np.float32)
    step = np.where(scale > 0, np.clip(scale, limits.tiny, limits.max), 1.0).astype(np.float32)
    if not symmetric:
        zero_point = np.clip(np.rint(quant_min - low / step), quant_min, quant_max)
    bounds = np.iinfo(np.int32)
    if len(zero_point) and not (bounds.min <= zero_point.min() and zero_point.max() <= bounds.max):
        raise FqError(
            f"the range {quant_min} to {quant_max} needs a zero point that is no int32; give scale and zero point"
        )
    return step, zero_point.astype(np.int32)


def _finite_extremes(rows: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minimum, at most 0, and maximum, at least 0, of the finite values of each row."""
    with np.errstate(invalid="ignore"):
        low, high = rows.min(axis=1), rows.max(axis=1)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        finite = np.where(np.isfinite(rows), rows, rows.dtype.type(0))
        low, high = finite.min(axis=1), finite.max(axis=1)
    return np.minimum(low, 0).astype(np.float64), np.maximum(high, 0).astype(np.float64)


@dataclass(frozen=True)
class Report:
    """What became of one tensor.

    Parameters
    ----------
    tensor : str
    shape : tuple of int
    dtype : str
    axis : int
    quant_min, quant_max : int
    sqnr_db : float
        Power of x by power of ``x - out``, over the finite elements, in decibels; infinite if nothing changed, NaN if
        there is no signal.
    clipped : float
        Share of elements outside the range, from 0 to 1.
    seconds : float
        Median time of the kernel, with outputs allocated before.
    gigabytes_per_second : float
        Bytes of x, out and mask by that time.
    times_numpy : float or None
        How many times longer the numpy reference takes; None if it was not run.
    equal : bool or None
        Whether out and mask equal the reference's bit for bit; None if it was not run.
    """

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    axis: int
    quant_min: int
    quant_max: int
    sqnr_db: float
    clipped: float
    seconds: float
    gigabytes_per_second: float
    times_numpy: float | None = None
    equal: bool | None = None

    @property
    def bits(self) -> int:
        """Width of an integer that holds every value of the range."""
        return (self.quant_max - self.quant_min).bit_length()


def process(
    name: str,
    x: Array,
    scale: Array,
    zero_point: Array,
    axis: int,
    quant_min: int,
    quant_max: int,
    verify: bool = False,
) -> tuple[Array, NDArray[np.bool_], Report]:
    """Fake-quantize one tensor and report on it.

    Parameters
    ----------
    name : str
        Of the tensor.
    x, scale, zero_point, axis, quant_min, quant_max
        As for :func:`fq_tvm.fake_quantize_per_channel_affine_cachemask`, in numpy.
    verify : bool
        Whether to run the numpy reference too, for :attr:`Report.times_numpy` and :attr:`Report.equal`.

    Returns
    -------
    out, mask : numpy.ndarray
    report : Report

    Raises
    ------
    FqError
        If an argument is refused or no kernel can be had.
    """
    quant_min, quant_max = check_range(quant_min, quant_max)
    out, mask = fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, quant_min, quant_max)
    operands = Operands(*map(describe, (x, scale, zero_point, out, mask), Operands._fields))
    launch = prepare(operands, normalize_axis(axis, x.ndim), quant_min, quant_max)
    tensors = [*(operand.tensor for operand in operands), np.empty(launch.workspace_size, np.uint8)]
    seconds, _ = _median_time(lambda: launch(*tensors))
    times_numpy, equal = None, None
    if verify:
        numpy_seconds, (reference_out, reference_mask) = _median_time(
            lambda: reference.fake_quant(x, scale, zero_point, axis, quant_min, quant_max)
        )
        times_numpy = numpy_seconds / seconds
        equal = _same_bits(out, reference_out) and _same_bits(mask, reference_mask)
    moved = x.nbytes + out.nbytes + mask.nbytes
    report = Report(
        name,
        x.shape,
        x.dtype.name,
        axis,
        quant_min,
        quant_max,
        _sqnr_db(x, out),
        1.0 - float(mask.mean()) if mask.size else 0.0,
        seconds,
        moved / seconds / 1e9,
        times_numpy,
        equal,
    )
    return out, mask, report


def _median_time(call: Callable[[], T]) -> tuple[float, T]:
    """Median seconds of a few calls, and the last result."""
    times: list[float] = []
    while sum(times) < MEASURE_SECONDS and len(times) < 100:
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def _same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _sqnr_db(x: Array, out: Array) -> float:
    signal = noise = 0.0
    # in pieces, as float64 copies of a whole model's embedding are large
    for piece, result in zip(_pieces(x), _pieces(out), strict=True):
        finite = np.isfinite(piece)
        wide = np.where(finite, piece, 0).astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.where(finite, wide - result, 0.0)
        signal += float(np.vdot(wide, wide))
        noise += float(np.vdot(error, error))
    if signal == 0:
        return math.nan
    return 10 * math.log10(signal / noise) if noise else math.inf


def _pieces(array: Array, size: int = 1 << 20) -> Iterator[Array]:
    flat = array.reshape(-1)
    for start in range(0, flat.size, size):
        yield flat[start : start + size]


@contextmanager
def write_npz(path: str | os.PathLike[str]) -> Iterator[Callable[[str, Array], None]]:
    """Write arrays to a ``.npz`` file, one at a time; the file appears when all are written.

    Parameters
    ----------
    path : path-like
        An existing file is replaced.

    Yields
    ------
    callable
        Adds an array under a name.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left then.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; expected the name of a file")
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:  # it would name a file that the caller never heard of
        raise type(error)(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:

            def add(name: str, array: Array) -> None:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

            yield add
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(aside, 0o666 & ~umask)  # mkstemp's 0600 is not what a user expects of an output
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise

"""What a producer of DLPack says of its tensor, read where it lies: no framework takes it over."""

from __future__ import annotations

import ctypes
from typing import Any

from ..layout import dense_strides

VERSION = (1, 0)
"""What is asked for: the first that tells of memory that must not be written."""

CPU, READ_ONLY = 1, 1

MOST_DIMENSIONS = 64
"""What numpy allows; torch allows as many."""

_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}

_GET_NAME = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)
_GET_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)


def code_of(dtype: str) -> int:
    """Return what :attr:`DLTensor.dtype` calls so, as its three fields are one number in memory."""
    kinds = {name: code for code, name in _KINDS.items()}
    name = dtype.rstrip("0123456789")
    return kinds[name] | int(dtype[len(name) :] or 8) << 8 | 1 << 16


class DLTensor(ctypes.Structure):
    """DLPack's tensor descriptor, ``DLTensor`` of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype_code", ctypes.c_uint8),
        ("dtype_bits", ctypes.c_uint8),
        ("dtype_lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]

    @property
    def dtype(self) -> str:
        """The dtype as numpy calls it, or something that no dtype is called."""
        name = f"{_KINDS.get(self.dtype_code, f'DLPack {self.dtype_code} of ')}{self.dtype_bits}"
        return ("bool" if name == "bool8" else name) + (f" by {self.dtype_lanes}" if self.dtype_lanes != 1 else "")

    @property
    def layout(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape, and strides in elements; ValueError for a rank that no framework has."""
        if not 0 <= self.ndim <= MOST_DIMENSIONS:
            raise ValueError(f"it says that it has {self.ndim} dimensions")
        numbers = ctypes.c_int64 * self.ndim
        shape = tuple(numbers.from_address(self.shape)) if self.ndim else ()
        if self.strides and self.ndim:
            return shape, tuple(numbers.from_address(self.strides))
        return shape, dense_strides(shape)


class _Versioned(ctypes.Structure):
    """``DLManagedTensorVersioned`` of dlpack.h; in the older ``DLManagedTensor`` the descriptor comes first."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    ]


def read(producer: Any) -> tuple[DLTensor, bool, Any]:
    """Ask a producer for its tensor.

    Returns
    -------
    tensor : DLTensor
        For as long as the third result is there.
    writable : bool
        Whether its memory may be written.
    capsule
        What keeps the memory; it gives it up itself, as nobody has consumed it.

    Raises
    ------
    Exception
        What the producer raises, or a BufferError if it does not speak this version.
    """
    try:
        capsule = producer.__dlpack__(max_version=VERSION)
    except TypeError:  # older than version 1
        capsule = producer.__dlpack__()
    name = _GET_NAME(("PyCapsule_GetName", ctypes.pythonapi))(capsule)
    address = _GET_POINTER(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, name)
    # Arrays of jax are immutable, which those that know no versions cannot say.
    immutable = type(producer).__module__.startswith("jax")
    if name == b"dltensor":
        return DLTensor.from_address(address), not immutable, capsule
    if name != b"dltensor_versioned":
        raise BufferError(f"__dlpack__ gave a capsule named {name}")
    managed = _Versioned.from_address(address)
    if managed.major != VERSION[0]:
        raise BufferError(f"DLPack's version is {managed.major}.{managed.minor}; expected {VERSION[0]}")
    return managed.tensor, not (immutable or managed.flags & READ_ONLY), capsule

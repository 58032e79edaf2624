"""aclTensor: a view of memory, described without being touched.

Knows shapes, strides, offsets, storage and addresses.  What the operator supports is for the operator to say: a tensor
of any dtype, rank or format can be described.
"""

from __future__ import annotations

import ctypes
import math
import numbers
import operator
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from ..launch.arguments import Operand
from ..launch.runtime import AddressTensor
from ..layout import dense_strides
from .status import AclnnError, AclnnStatus, expect, invalid, record, status_of

INT64_MAX = 2**63 - 1
ADDRESS_MAX = 2**64 - 1


class AclDataType(IntEnum):
    """Element types, with CANN's names and numbers.

    Attributes
    ----------
    label : str
        numpy's name, or one like it where numpy has none.
    bits : int
        Of an element; a string has no size of its own.
    """

    label: str
    bits: int

    def __new__(cls, number: int, label: str, bits: int) -> AclDataType:
        """Make a member of a row of the table."""
        member = int.__new__(cls, number)
        member._value_, member.label, member.bits = number, label, bits
        return member

    ACL_DT_UNDEFINED = -1, "undefined", 0
    ACL_FLOAT = 0, "float32", 32
    ACL_FLOAT16 = 1, "float16", 16
    ACL_INT8 = 2, "int8", 8
    ACL_INT32 = 3, "int32", 32
    ACL_UINT8 = 4, "uint8", 8
    ACL_INT16 = 6, "int16", 16
    ACL_UINT16 = 7, "uint16", 16
    ACL_UINT32 = 8, "uint32", 32
    ACL_INT64 = 9, "int64", 64
    ACL_UINT64 = 10, "uint64", 64
    ACL_DOUBLE = 11, "float64", 64
    ACL_BOOL = 12, "bool", 8
    ACL_STRING = 13, "string", 0
    ACL_COMPLEX64 = 16, "complex64", 64
    ACL_COMPLEX128 = 17, "complex128", 128
    ACL_BF16 = 27, "bfloat16", 16
    ACL_INT4 = 29, "int4", 4
    ACL_UINT1 = 30, "uint1", 1
    ACL_COMPLEX32 = 33, "complex32", 32
    ACL_HIFLOAT8 = 34, "hifloat8", 8
    ACL_FLOAT8_E5M2 = 35, "float8_e5m2", 8
    ACL_FLOAT8_E4M3FN = 36, "float8_e4m3fn", 8
    ACL_FLOAT8_E8M0 = 37, "float8_e8m0fnu", 8
    ACL_FLOAT6_E3M2 = 38, "float6_e3m2fn", 6
    ACL_FLOAT6_E2M3 = 39, "float6_e2m3fn", 6
    ACL_FLOAT4_E2M1 = 40, "float4_e2m1fn", 4
    ACL_FLOAT4_E1M2 = 41, "float4_e1m2fn", 4


class AclFormat(IntEnum):
    """Data formats, with CANN's names and numbers."""

    ACL_FORMAT_UNDEFINED = -1
    ACL_FORMAT_NCHW = 0
    ACL_FORMAT_NHWC = 1
    ACL_FORMAT_ND = 2
    ACL_FORMAT_NC1HWC0 = 3
    ACL_FORMAT_FRACTAL_Z = 4
    ACL_FORMAT_NC1HWC0_C04 = 12
    ACL_FORMAT_HWCN = 16
    ACL_FORMAT_NDHWC = 27
    ACL_FORMAT_FRACTAL_NZ = 29
    ACL_FORMAT_NCDHW = 30
    ACL_FORMAT_NDC1HWC0 = 32
    ACL_FRACTAL_Z_3D = 33
    ACL_FORMAT_NC = 35
    ACL_FORMAT_NCL = 47
    ACL_FORMAT_FRACTAL_NZ_C0_16 = 50
    ACL_FORMAT_FRACTAL_NZ_C0_32 = 51
    ACL_FORMAT_FRACTAL_NZ_C0_2 = 52
    ACL_FORMAT_FRACTAL_NZ_C0_4 = 53
    ACL_FORMAT_FRACTAL_NZ_C0_8 = 54


_BY_LABEL = {dtype.label: dtype for dtype in AclDataType}

_Enum = TypeVar("_Enum", bound=IntEnum)


class Memory:
    """A buffer, kept alive, or an address, trusted.

    Parameters
    ----------
    data : buffer, int or None
        A contiguous buffer (numpy array, bytearray, memoryview, mmap, ...) or an address.  None is address 0, a place
        that is not known yet.
    name : str
        Of the argument, for messages.

    Attributes
    ----------
    address : int
        Of the first byte.
    size : int or None
        In bytes; None where only an address was given.
    writable : bool
        Whether it may be written.

    Raises
    ------
    AclnnError
        If it is neither, or cannot be looked at as bytes.
    """

    __slots__ = ("_owner", "address", "size", "writable")

    def __init__(self, data: Any, name: str) -> None:
        self.address, self.writable = 0, True
        self.size: int | None = None
        self._owner: Any = None
        if isinstance(data, np.ndarray):
            if not data.flags.forc:
                raise invalid(f"{name} is an array with strides {data.strides}; expected contiguous memory")
            self._owner, self.address, self.size = data, data.ctypes.data, data.nbytes
            self.writable = data.flags.writeable
        elif isinstance(data, numbers.Integral):  # an array of one number has __index__ too, but is no address
            self.address = integer(data, name)
            if not 0 <= self.address <= ADDRESS_MAX:
                raise invalid(f"{name} is {self.address}; expected an address")
        elif data is not None:
            try:
                view = memoryview(data)
            except TypeError:
                raise invalid(f"{name} is a {type(data).__name__}; expected a buffer or an address") from None
            if not view.contiguous:
                raise invalid(f"{name} is a memoryview with strides {view.strides}; expected contiguous memory")
            # holding the buffer forbids resizing a bytearray and closing a mapping
            self._owner, self.size, self.writable = view, view.nbytes, not view.readonly
            self.address = np.frombuffer(view, np.uint8).ctypes.data if view.nbytes else 0


class AclTensor:
    """A view of memory; :func:`aclCreateTensor` makes it.

    Parameters
    ----------
    view_dims, dtype, strides, offset, format, storage_dims, data
        See :func:`aclCreateTensor`.

    Attributes
    ----------
    view_dims, strides, storage_dims : tuple of int
        In elements.
    dtype : AclDataType
        Of an element.
    offset : int
        Elements before the view's first.
    format : AclFormat
        Of the storage.
    operand : fq_tvm.launch.arguments.Operand or None
        The view as the library takes it; None once the tensor is destroyed.
    """

    __slots__ = ("_memory", "dtype", "format", "offset", "operand", "storage_dims", "strides", "view_dims")

    def __init__(
        self,
        view_dims: Sequence[int],
        dtype: Any,
        strides: Sequence[int] | None,
        offset: int,
        format: AclFormat | str | int,
        storage_dims: Sequence[int] | None,
        data: Any,
    ) -> None:
        self.view_dims = _naturals(view_dims, "view_dims")
        self.dtype = _data_type(dtype)
        self.strides = dense_strides(self.view_dims) if strides is None else _naturals(strides, "strides")
        self.offset = _natural(offset, "offset")
        self.format = _member(AclFormat, format, "format")
        self.storage_dims = self.view_dims if storage_dims is None else _naturals(storage_dims, "storage_dims")
        if len(self.strides) != len(self.view_dims):
            raise invalid(f"strides has {len(self.strides)} numbers; expected {len(self.view_dims)}, as view_dims has")
        stored = math.prod(self.storage_dims)
        end = self.offset + sum((n - 1) * s for n, s in zip(self.view_dims, self.strides, strict=True)) + 1
        if 0 not in self.view_dims and end > stored:
            raise invalid(
                f"a view {self.view_dims} with strides {self.strides} at offset {self.offset} ends at element {end}; "
                f"expected it inside storage_dims {self.storage_dims}, {stored} elements"
            )
        self._memory = memory = Memory(data, "data")
        size = self.storage_size
        if memory.size is not None and size > memory.size:
            raise invalid(f"data has {memory.size} bytes; expected {size} for storage_dims {self.storage_dims}")
        if size > INT64_MAX or memory.address + size > ADDRESS_MAX:
            raise invalid(f"storage_dims is {self.storage_dims}, {size} bytes; expected no more than memory can hold")
        address = memory.address + self.offset_size if memory.address else 0
        self.operand: Operand | None = Operand(
            AddressTensor(address), self.dtype.label, self.view_dims, self.strides, address, memory.writable
        )

    @property
    def storage_size(self) -> int:
        """The bytes of the storage."""
        return -(-math.prod(self.storage_dims) * self.dtype.bits // 8)

    @property
    def offset_size(self) -> int:
        """The bytes before the view's first element."""
        return self.offset * self.dtype.bits // 8

    def __repr__(self) -> str:
        place = "destroyed" if self.operand is None else f"address={self.operand.address:#x}"
        return (
            f"AclTensor({self.view_dims}, {self.dtype.name}, strides={self.strides}, offset={self.offset}, "
            f"{self.format.name}, storage_dims={self.storage_dims}, {place})"
        )

    def destroy(self) -> None:
        """Let go of the memory; raise AclnnError if that was done before."""
        if self.operand is None:
            raise invalid("tensor is destroyed; expected one that is not")
        self.operand = None
        self._memory = Memory(None, "data")


def aclCreateTensor(
    view_dims: Sequence[int],
    dtype: Any,
    strides: Sequence[int] | None,
    offset: int,
    format: AclFormat | str | int,
    storage_dims: Sequence[int] | None,
    data: Any,
) -> AclTensor:
    """Describe a view of memory.

    Parameters
    ----------
    view_dims : sequence of int
        The shape that the operator sees.
    dtype : AclDataType, int, numpy dtype or str
        E.g. ``AclDataType.ACL_FLOAT``, ``np.float32`` or ``"float32"``.
    strides : sequence of int, optional
        Elements from one index to the next, not negative; row-major by default.
    offset : int
        Elements of the storage before the view's first.
    format : AclFormat, int or str
        E.g. ``AclFormat.ACL_FORMAT_ND``.
    storage_dims : sequence of int, optional
        The shape of the memory, of which only the product matters here; view_dims by default.
    data : buffer, int or None
        The storage: a contiguous buffer (numpy array, bytearray, memoryview, mmap), which is kept alive, or its
        address.  A buffer that cannot be written serves as an input only.  With None the address has to come from
        :func:`~fq_tvm.aclnn.aclSetTensorAddr` before the launch.

    Returns
    -------
    AclTensor

    Raises
    ------
    AclnnError
        With ``ACLNN_ERR_PARAM_INVALID`` if no memory can be so: a negative number, a view that leaves the storage, a
        storage that leaves the buffer.
    """
    try:
        return AclTensor(view_dims, dtype, strides, offset, format, storage_dims, data)
    except AclnnError as error:
        record(error)
        raise


def aclDestroyTensor(tensor: AclTensor | None) -> AclnnStatus:
    """Let go of a tensor's memory; an executor that was made with it keeps it for as long as it needs.

    Parameters
    ----------
    tensor : AclTensor
        None is refused with ``ACLNN_ERR_PARAM_NULLPTR``, one that is destroyed with ``ACLNN_ERR_PARAM_INVALID``.

    Returns
    -------
    AclnnStatus
    """
    return status_of(lambda: expect(tensor, AclTensor, "tensor").destroy())


def integer(value: Any, name: str) -> int:
    """Return an integer argument as Python's; refuse anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise invalid(f"{name} is {value!r}; expected an integer") from None


def float32(value: Any, name: str) -> float:
    """Return a number, or a tensor of one element, as C passes a float; refuse anything else."""
    one: Any = value.reshape(()) if isinstance(value, np.ndarray) and value.size == 1 else value
    try:
        return ctypes.c_float(one).value
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's
        kind = type(value).__name__
        raise invalid(f"{name} is a {kind} that makes no float32; expected a number") from None


def _natural(value: Any, name: str) -> int:
    number = integer(value, name)
    if not 0 <= number <= INT64_MAX:
        raise invalid(f"{name} is {number}; expected an int64 that is not negative")
    return number


def _naturals(values: Any, name: str) -> tuple[int, ...]:
    try:
        numbers = tuple(values)
    except TypeError:
        raise invalid(f"{name} is {values!r}; expected a sequence of integers") from None
    return tuple(_natural(number, f"{name}[{i}]") for i, number in enumerate(numbers))


def _member(enum: type[_Enum], value: Any, name: str) -> _Enum:
    try:
        return enum[value] if isinstance(value, str) else enum(operator.index(value))
    except (KeyError, TypeError, ValueError):
        raise invalid(f"{name} is {value!r}; expected a member of {enum.__name__}") from None


def _data_type(dtype: Any) -> AclDataType:
    if isinstance(dtype, int) or (isinstance(dtype, str) and dtype in AclDataType.__members__):
        return _member(AclDataType, dtype, "dtype")
    name = str(dtype).removeprefix("torch.")
    if name not in _BY_LABEL and dtype is not None:  # np.dtype(None) is float64
        try:
            known = np.dtype(dtype)
            name = known.name if known.isnative else known.str
        except TypeError:
            pass
    if name not in _BY_LABEL:
        raise invalid(f"dtype is {dtype!r}; expected a member of AclDataType, a numpy dtype or its name")
    return _BY_LABEL[name]

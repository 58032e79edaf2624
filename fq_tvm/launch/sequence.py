"""Several launches by one call, on tensors that are checked there to be what the launches were prepared for.

A launch of a small tensor takes less time than the interpreter takes to come to it.  What is checked and called,
sequence.c knows; here it is written down for that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Several
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

from ..errors import LaunchError
from ..interruption import uninterrupted
from . import native, threads
from .arguments import Operand
from .buffers import workspace
from .dlpack import code_of
from .runtime import AddressTensor

DONE, CHANGED, STOPPED = range(3)
"""What comes of a call: everything was done; nothing, as a tensor is not as it has to be; a part, as a step said so."""

ANY, OFF, ON = range(3)
"""What the one element of a tensor has to say."""

_CONSTANT, _GIVEN, _SCRATCH = range(3)
_INTEGER, _FLOAT, _POINTER = 1, 3, 4  # as TVMFFIAny tells them

MOST_ARGUMENTS = 48
"""Of a function; sequence.c has room for so many.  Extents and strides of eight dimensions are 32 of them."""

LINE = 64
"""Bytes to whose multiples pieces of scratch memory are aligned."""


class Given(NamedTuple):
    """A tensor of a call, by its number."""

    number: int


class Scratch(NamedTuple):
    """A piece of memory that a call needs, by its number among the sequence's pieces."""

    number: int


class Step(NamedTuple):
    """One launch of a sequence.

    Parameters
    ----------
    launch : Launch
        Which.
    tensors : sequence of Given, Scratch or AddressTensor
        Those of the operator's signature; the last, memory that stays where it is.
    proceed : Scratch, optional
        An int32 that is 0 after this step where the sequence ends with it.
    """

    launch: Any
    tensors: Several[Given | Scratch | AddressTensor]
    proceed: Scratch | None = None


class Fixed(NamedTuple):
    """A tensor that has to be where it was.

    Parameters
    ----------
    operand : Operand
        What it was.
    says : int
        What its one element, an integer, has to be: ``ON``, not 0; ``OFF``, 0; or ``ANY``.
    """

    operand: Operand
    says: int = ANY


class _Any(ctypes.Structure):
    class _Value(ctypes.Union):
        _fields_ = (("integer", ctypes.c_int64), ("real", ctypes.c_double), ("pointer", ctypes.c_void_p))

    _anonymous_ = ("value",)
    _fields_ = (("type_index", ctypes.c_int32), ("padding", ctypes.c_int32), ("value", _Value))


class _Expected(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("dtype", ctypes.c_uint32), ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p), ("says", ctypes.c_int64),
    )  # fmt: skip


class _Argument(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int64), ("number", ctypes.c_int64), ("constant", _Any))


class _Step(ctypes.Structure):
    _fields_ = (
        ("function", ctypes.c_void_p), ("arguments", ctypes.c_void_p),
        ("count", ctypes.c_int64), ("proceed", ctypes.c_int64),
    )  # fmt: skip


class _Sequence(ctypes.Structure):
    _fields_ = (
        ("expected", ctypes.c_void_p), ("steps", ctypes.c_void_p),
        ("tensors", ctypes.c_int64), ("count", ctypes.c_int64),
    )  # fmt: skip


class Sequence:
    """Launches in an order, prepared for tensors.

    Parameters
    ----------
    tensors : sequence of Operand or Fixed
        What those of a call have to be: of this dtype, shape and strides, and the latter in this place.
    steps : sequence of Step
        What is done.
    scratch : sequence of int
        Bytes of each piece of memory that a call needs beside.

    Raises
    ------
    BuildError
        If there is no code for this machine, and none can be built.
    ValueError
        If a function has more than ``MOST_ARGUMENTS``.
    """

    def __init__(self, tensors: Several[Operand | Fixed], steps: Several[Step], scratch: Several[int] = ()) -> None:
        self._run = _function()
        self._kept: list[Any] = [steps]
        *starts, end = accumulate((-(-size // LINE) * LINE for size in scratch), initial=0)
        self._size = end + max(step.launch.workspace_size for step in steps)
        starts.append(end)  # where the workspace of each launch begins
        behind = Scratch(len(scratch))
        written: list[_Step] = []
        for launch, arguments, proceed in steps:
            given = *arguments, *([behind] if launch.workspace_size else [])
            for function, values in launch.bare_calls(*given, from_torch=True):
                if len(values) > MOST_ARGUMENTS:
                    raise ValueError(f"a step has {len(values)} arguments; expected at most {MOST_ARGUMENTS}")
                each = self._array(_Argument, [_argument(value, starts) for value in values])
                self._kept += [function, values]
                written.append(_Step(function.__chandle__(), each, len(values), -1))
            if proceed is not None:
                written[-1].proceed = starts[proceed.number]
        expected = [self._expected(each) for each in tensors]
        about = self._array(_Expected, expected), self._array(_Step, written), len(expected), len(written)
        self._whole = _Sequence(*about)
        self._address = ctypes.c_void_p(ctypes.addressof(self._whole))

    def _array(self, kind: type[Any], values: Several[Any]) -> int:
        array = (kind * len(values))(*values)
        self._kept.append(array)
        return ctypes.addressof(array)

    def _expected(self, what: Operand | Fixed) -> _Expected:
        operand, says = what if isinstance(what, Fixed) else (what, ANY)
        numbers = [self._array(ctypes.c_int64, each) for each in (operand.shape, operand.strides)]
        data = operand.address if isinstance(what, Fixed) else None
        return _Expected(data, code_of(operand.dtype), len(operand.shape), *numbers, says)

    def __call__(self, *tensors: Any) -> int:
        """Launch now, if the tensors are what they have to be.

        Parameters
        ----------
        *tensors : tensor
            As many as were prepared for, from torch.

        Returns
        -------
        int
            ``DONE``, ``CHANGED`` or ``STOPPED``.

        Raises
        ------
        LaunchError
            If a kernel reports an error.
        """
        threads.ready(from_torch=True)
        memory = workspace.take(self._size)
        try:
            return int(self._run(self._address, memory[0], *tensors))
        except Exception as error:
            raise LaunchError(f"a sequence of kernels failed: {error}") from error
        finally:
            workspace.kept = memory


def _argument(value: Any, starts: Several[int]) -> _Argument:
    if isinstance(value, Given):
        return _Argument(_GIVEN, value.number)
    if isinstance(value, Scratch):
        return _Argument(_SCRATCH, starts[value.number])
    if isinstance(value, AddressTensor):
        return _Argument(_CONSTANT, 0, _Any(_POINTER, 0, _Any._Value(pointer=value.value)))
    if isinstance(value, float):
        return _Argument(_CONSTANT, 0, _Any(_FLOAT, 0, _Any._Value(real=value)))
    return _Argument(_CONSTANT, 0, _Any(_INTEGER, 0, _Any._Value(integer=int(value))))


@cache
def _function() -> Any:
    # a step, as LLVM holds locks meanwhile that a child of another thread's fork would find locked
    return uninterrupted(lambda: native.load("sequence")("sequence"))

"""What fake quantization is where it is disabled: self copied to out, and a mask that is true everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import LaunchError
from ..launch.arguments import Operand, Operands


class Copy:
    """A copy with everything but addresses bound, in the place of a launch.

    It is numpy's, in one thread and without the interpreter's lock.  Between tensors of one dtype it takes as long as
    memory does, like a kernel; torch_npu calls the operator with no others.  A conversion takes numpy tens of times as
    long, which no kernel saves yet.

    Parameters
    ----------
    operands : Operands
        Checked, with elements.

    Attributes
    ----------
    workspace_size : int
        Bytes that a call needs beside its tensors: none.
    """

    __slots__ = ("_mask", "_out", "_self")

    workspace_size = 0

    def __init__(self, operands: Operands) -> None:
        x, _, _, out, mask = operands
        # what they are made of is the executor's to keep
        self._self, self._out, self._mask = (operand._replace(tensor=None) for operand in (x, out, mask))

    def __call__(self, *tensors: Any) -> None:
        """Copy now.

        Parameters
        ----------
        *tensors : AddressTensor
            Those of the operator's signature.

        Raises
        ------
        LaunchError
            If numpy cannot copy, for lack of memory.
        """
        source, _, _, out, mask = tensors
        try:
            with np.errstate(all="ignore"):  # what is too large for float16 becomes infinite, as in a kernel
                np.copyto(_array(self._out, out), _array(self._self, source), casting="same_kind")
            _array(self._mask, mask)[...] = True
        except Exception as error:
            raise LaunchError(f"copying self to out failed: {type(error).__name__}: {error}") from error


def _array(operand: Operand, tensor: Any) -> np.ndarray[Any, Any]:
    """Return an operand as an array, at the address that a launch has for it."""
    array: np.ndarray[Any, Any] = operand._replace(address=tensor.tensor.data).view().view(operand.dtype)
    return array

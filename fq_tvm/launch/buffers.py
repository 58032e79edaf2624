"""Memory of a call: the workspace of a thread, and results that begin with a line of the caches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .arguments import Operand
from .kernel import EmptyLaunch, Launch
from .runtime import AddressTensor

LARGE_BYTES = 2**20
"""Size of an array from which its place in memory counts; below, numpy's own choice costs a call less."""


class _Workspace(threading.local):
    """Scratch memory of a thread, kept from call to call, but not while a call uses it.

    A signal handler or a finalizer may call in the middle of a call: it finds nothing here and makes its own.
    """

    kept: tuple[AddressTensor | None, int] = (None, 0)

    def take(self, size: int) -> tuple[AddressTensor | None, int]:
        """Return memory of so many bytes or more; who is done with it puts it back."""
        kept, self.kept = self.kept, (None, 0)
        # What one odd call needed is not kept for ever.
        if size <= kept[1] <= max(4 * size, LARGE_BYTES):
            return kept
        memory = aligned((size,), np.dtype(np.uint8))
        return AddressTensor(memory.ctypes.data, memory), size


workspace = _Workspace()


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return an uninitialized array whose first element is at a multiple of 64 bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def empty_like(x: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    """Make what ``numpy.empty_like`` makes; a large one begins with a line of the caches, as kernels like it best."""
    like: np.ndarray[Any, Any] = np.empty_like(x, dtype, subok=False)
    if like.nbytes < LARGE_BYTES:
        return like
    memory = aligned(like.shape, like.dtype)
    array: np.ndarray[Any, Any] = np.ndarray(like.shape, like.dtype, memory, strides=like.strides)
    return array


def run(launch: Launch | EmptyLaunch, *tensors: Any, from_torch: bool = False) -> None:
    """Launch now, with the workspace of this thread."""
    if launch.workspace_size:
        memory = workspace.take(launch.workspace_size)
        try:
            launch(*tensors, memory[0], from_torch=from_torch)
        finally:
            workspace.kept = memory
    else:
        launch(*tensors, from_torch=from_torch)


def on_memory(launch: Launch | EmptyLaunch, operands: Iterable[Operand]) -> Callable[[], None]:
    """Return a call of a launch on tensors that stay where they are, with a workspace of its own."""
    tensors = [AddressTensor(operand.address, operand) for operand in operands]
    if launch.workspace_size:
        memory = aligned((launch.workspace_size,), np.dtype(np.uint8))
        tensors.append(AddressTensor(memory.ctypes.data, memory))
    return lambda: launch(*tensors)

"""Memory of large results, which is used again for later ones.

A fresh page costs a fault and is filled with zeros before a kernel writes to it, which together takes several times as
long as the kernel.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
import threading
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import empty_like

from ..interruption import fork_safe_lock

DTYPES = frozenset((torch.float32, torch.float16, torch.bfloat16))

POOLED_ELEMENTS = 2**20
"""Least elements of a tensor whose results get memory of the pool; for smaller ones malloc reuses its own."""

POOL_MAX_BYTES = 2**30
"""Most bytes that the pool knows, used and unused, so most that it keeps of results that are gone."""

LOOK_EVERY = 16
"""After how many requests the pool looks what it may give up; it does so at each request that finds nothing, too."""

LOOKS = 32
"""How many looks tell what results needed lately."""


class _Block(NamedTuple):
    """A storage, as torch's allocator made it, and the number of the request that it served last."""

    storage: torch.UntypedStorage
    size: int
    address: int
    served: int

    def is_whole(self) -> bool:
        """Whether nobody resized it, moved it into shared memory, or shares it with a lazy clone or ever with numpy.

        Since numpy saw it, it cannot be resized, which one of a new tensor can.
        """
        storage = self.storage
        resizable: bool = storage.resizable()
        return storage.nbytes() == self.size and storage.data_ptr() == self.address and resizable

    def is_unused(self) -> bool:
        """Whether no tensor, and nothing in Python but this block, has the storage."""
        # the references counted are this tuple's and the argument's
        count: int = torch._C._storage_Use_Count(self.storage._cdata)
        return count == 1 and sys.getrefcount(self.storage) == 2


class Pool:
    """Storages of large results, to be used again once nothing else refers to them.

    They are ordinary ones of torch's allocator: with a result of the pool everything can be done that can be done with
    any other tensor.  The pool merely keeps them, too, and finds those that only it has at the next request.

    Parameters
    ----------
    most : int
        Bytes of all storages that it keeps at most; what was asked for longest ago is given up first.

    Notes
    -----
    Unused storages take no more than twice what results needed at a time lately, so that sizes that nobody asks for
    any more do not stay.  Safe to be used from several threads, and in the middle of a request by a signal handler or
    a finalizer: who finds the pool busy gets a new storage.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._blocks: dict[int, list[_Block]] = {}  # by size, which served longest ago first
        self._requests = self._largest = 0
        self._needed: deque[int] = deque(maxlen=LOOKS)
        self._lock = fork_safe_lock(threading.Lock)

    @property
    def kept(self) -> int:
        """Bytes that wait to be used again."""
        return sum(block.size for alike in [*self._blocks.values()] for block in [*alike] if block.is_unused())

    def storage(self, size: int) -> torch.UntypedStorage:
        """Return a storage of so many uninitialized bytes.

        Raises
        ------
        MemoryError
            If there is no memory, even after everything that waits was given up.
        """
        if not self._lock.acquire(blocking=False):
            return _allocate(size)
        try:
            blocks = self._blocks  # clear() may put others in their place
            self._requests += 1
            self._largest = max(self._largest, size)
            alike = blocks.get(size, [])
            found = next((i for i, block in enumerate(alike) if block.is_unused() and block.is_whole()), None)
            if found is None:
                self._give_up(blocks, size)
                try:
                    storage = _allocate(size)
                except MemoryError:
                    blocks.clear()
                    storage = _allocate(size)
                _advise(storage)
                if size <= self.most:
                    block = _Block(storage, size, storage.data_ptr(), self._requests)
                    blocks.setdefault(size, []).append(block)
                return storage
            alike.append(alike.pop(found)._replace(served=self._requests))
            storage = alike[-1].storage
            if self._requests % LOOK_EVERY == 0:
                self._give_up(blocks, 0)
            return storage
        finally:
            self._lock.release()

    def clear(self) -> None:
        """Give up what is kept for later."""
        self._blocks = {}

    def _give_up(self, blocks: dict[int, list[_Block]], new: int) -> None:
        """Forget what is more than lately needed, once so many bytes are added."""
        known = [block for alike in blocks.values() for block in alike if not block.is_unused() or block.is_whole()]
        unused = {id(block) for block in known if block.is_unused()}
        total = new + sum(block.size for block in known)
        used = total - sum(block.size for block in known if id(block) in unused)
        self._needed.append(max(used, self._largest))
        self._largest = 0
        bound = min(self.most, 2 * max(self._needed))
        blocks.clear()
        for block in sorted(known, key=lambda block: block.served):
            if total > self.most or (total > bound and id(block) in unused):
                total -= block.size
            else:
                blocks.setdefault(block.size, []).append(block)


def _allocate(size: int) -> torch.UntypedStorage:
    try:
        return torch.UntypedStorage(size)
    except RuntimeError as error:
        raise MemoryError(f"there is no memory for a result of {size} bytes: {error}") from None


def _advise(storage: torch.UntypedStorage) -> None:
    """Ask for huge pages: a fault for 2 MiB instead of one for 4 KiB; a system that has none says no, which is fine."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        first = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = storage.data_ptr() + storage.nbytes() - first
        if length > 0:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)


pool = Pool(POOL_MAX_BYTES)


def result(shape: Any, strides: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Make a dense tensor; a large one of a storage that is used again when the tensor is gone."""
    if (elements := math.prod(shape)) < POOLED_ELEMENTS:
        try:
            return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
        except RuntimeError:
            pool.clear()  # it may be what is missing
            return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
    tensor = torch.empty(0, dtype=dtype, device="cpu")
    tensor.set_(pool.storage(elements * dtype.itemsize), 0, shape, strides)
    return tensor.data  # of version 0, as a new one


def result_like(x: Any, dtype: torch.dtype) -> torch.Tensor:
    """Make what ``empty_like`` makes, as :func:`result` does."""
    if x.numel() < POOLED_ELEMENTS:
        try:
            return empty_like(x, dtype=dtype)
        except RuntimeError:
            pool.clear()
            return empty_like(x, dtype=dtype)
    return result(x.shape, empty_like(x, device="meta").stride(), dtype)

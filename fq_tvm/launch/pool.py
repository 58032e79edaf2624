"""Memory for large results that is used again instead of being returned to the system.

A fresh page costs a fault and is filled with zeros before a kernel writes to it, which together takes several times as
long as the kernel.  A pool keeps the memory of results that nobody refers to any more.  Knows no frameworks.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np

from ..interruption import fork_safe_lock


class Pool:
    """Blocks of memory, each returned here when the array that was made of it is gone.

    Parameters
    ----------
    most : int
        Bytes that are kept for later at most; what has waited longest is given up first.

    Notes
    -----
    Safe to be used from several threads.  A block returns from wherever Python drops the last reference, perhaps in the
    middle of a call of this very pool by the same thread.  So returning never waits: it leaves the block in a queue
    that whoever holds the lock looks at when done.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._free: list[mmap.mmap] = []  # what has waited longest first
        self._returned: deque[mmap.mmap] = deque()
        self._lock = fork_safe_lock(threading.Lock)

    @property
    def kept(self) -> int:
        """Bytes that wait to be used again."""
        return sum(map(len, self._free))

    def array(self, size: int) -> np.ndarray[Any, Any]:
        """Return an array of uninitialized bytes that starts at a page.

        Parameters
        ----------
        size : int
            Bytes, more than 0.

        Returns
        -------
        numpy.ndarray
            uint8, shape (size,).  Its memory returns to the pool when neither it nor a view of it is left.
        """
        length = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        with self._lock:
            # the last that returned is the likeliest to be in a cache
            place = next((i for i in reversed(range(len(self._free))) if len(self._free[i]) == length), None)
            block = None if place is None else self._free.pop(place)
        if block is None:
            # A forked child gets a copy: by default Python maps memory that parent and child share.
            block = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                block.madvise(mmap.MADV_HUGEPAGE)  # a fault for 2 MiB instead of one for 4 KiB
        array = np.frombuffer(block, np.uint8, size)
        weakref.finalize(array, self._take_back, block).atexit = False
        return array

    def clear(self) -> None:
        """Give up what is kept for later."""
        with self._lock:
            self._returned.clear()
            self._free.clear()

    def _take_back(self, block: mmap.mmap) -> None:
        self._returned.append(block)
        while self._returned and self._lock.acquire(blocking=False):
            try:
                while self._returned:
                    self._free.append(self._returned.popleft())
                while self.kept > self.most:
                    self._free.pop(0)
            finally:
                self._lock.release()

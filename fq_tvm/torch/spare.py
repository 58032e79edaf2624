"""Gradients that nobody but the autograd engine has: what is made of one may lie in its place.

That saves fresh memory, which costs more than what is computed.  Who has a tensor is told by counting references, in
Python and in torch, to it, to its memory and to what it is a view of.  How many there are if nobody else has it depends
on versions, and on the way that a gradient takes: so it is learned from gradients that are made for that.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .plain import PLAIN, keys_of

MIN_ELEMENTS = 2**16
"""Elements from which a place in memory is worth the counting; malloc has memory at hand for less."""


class Spare:
    """Knows the gradients that nobody else has, of those that come one way."""

    def __init__(self) -> None:
        self._alone: set[tuple[Any, ...]] = set()
        self._learner: int | None = None

    @property
    def learned(self) -> bool:
        """Whether any would be known."""
        return bool(self._alone)

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Learn from the gradients that this thread asks about meanwhile, which nobody else may have."""
        self._learner = threading.get_ident()
        try:
            yield
        finally:
            self._learner = None

    def has(self, grad: Any) -> bool:
        """Whether a large gradient may be overwritten: to be asked at one place, so that the way there is the same.

        Parameters
        ----------
        grad : torch.Tensor
            What comes in to a node of autograd.

        Returns
        -------
        bool
            False, too, where its memory is not torch's alone, as that which numpy or another process has or had.
        """
        if type(grad) is not torch.Tensor or keys_of(grad).raw_repr() not in PLAIN:
            return False  # it may have no memory to ask about
        if self._learner is not None and self._learner == threading.get_ident():
            self._alone.add(_holders(grad))
            return False
        return (
            grad.numel() >= MIN_ELEMENTS
            and _holders(grad) in self._alone
            and grad.untyped_storage().resizable()
            and not torch._C._is_cow_tensor(grad)
        )


def _holders(grad: Any) -> tuple[Any, ...]:
    node, storage, base = torch._C._current_autograd_node(), grad.untyped_storage(), grad._base
    of_memory = sys.getrefcount(storage), torch._C._storage_Use_Count(storage._cdata)
    of_base = () if base is None else (sys.getrefcount(base), base._use_count())
    return (node and node.name(), sys.getrefcount(grad), grad._use_count(), *of_memory, *of_base)

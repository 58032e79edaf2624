"""How to tell that torch's dispatcher would do nothing but call a kernel, in less time than it takes to do so."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad
from torch.compiler import is_compiling

keys_of = torch._C._dispatch_keys
included_keys = torch._C._dispatch_tls_local_include_set


def _keys(*names: str) -> int:
    keys = torch._C.DispatchKeySet(torch.DispatchKey.Undefined)
    for name in names:
        keys = keys.add(getattr(torch.DispatchKey, name))
    return int(keys.raw_repr())


PLAIN = frozenset((_keys("CPU", "AutocastCPU"), _keys("CPU", "AutocastCPU", "ADInplaceOrView", "AutogradCPU")))
"""The dispatch keys of a tensor in the CPU's memory, made in inference mode and elsewhere."""

TYPES = frozenset((torch.Tensor, torch.nn.Parameter))
"""Types of tensors that have no say in what an operator does with them."""

STOCK = "stock"
"""Remembered in the place of a launch for arguments that torch's own kernel serves."""

NO_MODE = frozenset((_keys("BackendSelect"), _keys("BackendSelect", "ADInplaceOrView")))
"""The dispatch keys that a thread adds to those of tensors, in inference mode and elsewhere, if it adds none."""


def is_plain(tensor: Any) -> bool:
    """Whether a tensor lies in the CPU's memory and is of a type of torch's own."""
    return type(tensor) in TYPES and keys_of(tensor).raw_repr() in PLAIN


def nobody_looks_on() -> bool:
    """Whether no tracer, transform or mode wants to see the operators, nor anybody what they save.

    Who has hooks for that, as a checkpoint has, may compare what is saved later with what was saved before.
    """
    return (
        not is_compiling()
        and included_keys().raw_repr() in NO_MODE
        and not torch._C._len_torch_function_stack()
        and not torch._C._get_tracing_state()
        and forward_ad._current_level < 0
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    )

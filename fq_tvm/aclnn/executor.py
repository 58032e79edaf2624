"""The executor between the two phases: prepared tensors, their addresses, how often it may be launched.

Knows no operator: what it launches was prepared by the first phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..interruption import fork_safe_lock
from ..launch.arguments import Names, Operand, Operands, check_overlap, describe, overlap
from ..launch.kernel import EmptyLaunch
from ..launch.runtime import AddressTensor
from .status import AclnnStatus, expect, invalid, null, status_of
from .tensor import AclTensor, Memory, integer

NAMES = Names(x="self", zero_point="zeroPoint", quant_min="quantMin", quant_max="quantMax")
TENSORS = NAMES[:5]
INPUTS = 3

_BLOCKED = ("C0", "FRACTAL")
"""What the names of formats say in which memory is in blocks, so that strides do not describe it."""


class Prepared(Protocol):
    """What a second phase runs: a launch of a kernel, or what stands in for one."""

    @property
    def workspace_size(self) -> int:
        """Bytes that a call needs beside its tensors."""

    def __call__(self, *tensors: Any) -> None:
        """Run now, on the tensors of the signature and the workspace if there is one."""


class _Binding(NamedTuple):
    """A tensor argument of an executor, and where its memory begins and ends around its first element."""

    operand: Operand
    before: int
    storage: int
    keep: Any

    @classmethod
    def of(cls, value: Any, operand: Operand) -> _Binding:
        if isinstance(value, AclTensor):
            return cls(operand, value.offset_size, value.storage_size, (value._memory, operand))
        if 0 in operand.shape:
            return cls(operand, 0, 0, (value, operand))
        low, high = operand.span()
        return cls(operand, operand.address - low, high - low, (value, operand))

    def at(self, memory: Memory) -> _Binding:
        address = memory.address + self.before if memory.address else 0
        operand = self.operand._replace(address=address, tensor=None, writable=memory.writable)
        return self._replace(operand=operand, keep=memory)


class _Bound(NamedTuple):
    """A launch with all its addresses, for as long as workspace and tensors stay the same."""

    workspace: Any
    workspace_size: Any
    launch: Prepared
    tensors: tuple[AddressTensor, ...]
    keep: Any

    def serves(self, workspace: Any, workspace_size: Any) -> bool:
        return self.workspace is workspace and type(workspace_size) is int and self.workspace_size == workspace_size


_lock = fork_safe_lock()  # one for all executors, as it is held for microseconds


class AclOpExecutor:
    """A prepared call of an operator; the first phase makes it.

    It is good for one launch, or for many after :func:`aclSetAclOpExecutorRepeatable`.

    Parameters
    ----------
    launch : Prepared
        What runs.
    tensors : sequence of tensors
        The arguments as they were given, in the order of the signature; what they are made of is kept alive.
    operands : Operands
        The same, described.
    """

    __slots__ = ("_bindings", "_bound", "_launch", "_repeatable", "_spent", "workspace_size")

    def __init__(self, launch: Prepared, tensors: Sequence[Any], operands: Operands) -> None:
        self._launch = launch
        self._bindings = tuple(map(_Binding.of, tensors, operands))
        self._bound: _Bound | None = None
        self._repeatable = False
        self._spent = ""
        self.workspace_size = launch.workspace_size

    def __repr__(self) -> str:
        state = self._spent or ("repeatable" if self._repeatable else "one launch")
        return f"AclOpExecutor({state}, workspace_size={self.workspace_size})"

    def set_repeatable(self) -> None:
        """Allow more than one launch."""
        with _lock:
            self._check_live()
            self._repeatable = True

    def destroy(self) -> None:
        """Let go of the tensors; launches that are queued keep theirs."""
        with _lock:
            self._check_live()
            self._retire("destroyed")

    def rebind(self, first: int, count: int, index: Any, tensor: Any, addr: Any) -> None:
        """Give a tensor another address; what is queued keeps the old one."""
        number = integer(index, "index")
        if not 0 <= number < count:
            raise invalid(f"index is {number}; expected one from 0 to {count - 1}")
        with _lock:
            self._check_live()
            if not self._repeatable:
                raise invalid("executor is good for one launch; expected one set by aclSetAclOpExecutorRepeatable")
            position = first + number
            name, binding = TENSORS[position], self._bindings[position]
            if tensor is not None:
                _check_alike(tensor, binding.operand, name)
            memory = Memory(addr, f"addr of {name}")
            if not memory.address and 0 not in binding.operand.shape:
                raise null(f"addr of {name} is null; expected an address")
            if memory.size is not None and memory.size < binding.storage:
                raise invalid(f"addr of {name} has {memory.size} bytes; expected at least {binding.storage}")
            bindings = list(self._bindings)
            bindings[position] = binding.at(memory)
            check_overlap(Operands(*(b.operand for b in bindings)), NAMES)
            self._bindings, self._bound = tuple(bindings), None

    def take(self, workspace: Any, workspace_size: Any) -> _Bound:
        """Return what to launch, which uses up an executor that is not repeatable."""
        with _lock:
            self._check_live()
            bound = self._bound
            if bound is None or not bound.serves(workspace, workspace_size):
                bound = self._bind(workspace, workspace_size)
            if self._repeatable:
                self._bound = bound
            else:
                self._retire("used")
            return bound

    def _bind(self, workspace: Any, workspace_size: Any) -> _Bound:
        operands = [b.operand for b in self._bindings]
        memory = None
        if not isinstance(self._launch, EmptyLaunch):
            for name, operand in zip(TENSORS, operands, strict=True):
                if not operand.address:
                    raise null(f"the address of {name} is null; expected that of its memory")
            memory = self._workspace(workspace, workspace_size)
        tensors = [AddressTensor(operand.address) for operand in operands]
        if memory is not None:
            tensors.append(AddressTensor(memory.address))
        keep = (tuple(b.keep for b in self._bindings), memory)
        return _Bound(workspace, workspace_size, self._launch, tuple(tensors), keep)

    def _workspace(self, workspace: Any, workspace_size: Any) -> Memory | None:
        needed = self.workspace_size
        if needed and workspace is None:
            raise null(f"workspace is None; expected {needed} bytes")
        size = integer(workspace_size, "workspaceSize")
        if size < needed:
            raise invalid(f"workspaceSize is {size}; expected at least {needed}")
        if not needed:
            return None
        memory = Memory(workspace, "workspace")
        if not memory.address:
            raise null(f"workspace is null; expected {needed} bytes")
        if memory.size is not None and memory.size < size:
            raise invalid(f"workspace has {memory.size} bytes; expected the workspaceSize, {size}")
        if not memory.writable:
            raise invalid("workspace is read-only; expected memory that can be written")
        place = Operand(None, "bool", (needed,), (1,), memory.address)
        for name, binding in zip(TENSORS, self._bindings, strict=True):
            if overlap(place, binding.operand):
                raise invalid(f"workspace overlaps {name}; expected memory of its own")
        return memory

    def _check_live(self) -> None:
        if self._spent == "used":
            raise invalid("executor was launched; expected a new one, or one set by aclSetAclOpExecutorRepeatable")
        if self._spent:
            raise invalid(f"executor is {self._spent}; expected one that is not")

    def _retire(self, state: str) -> None:
        self._spent, self._bound, self._bindings = state, None, ()


def aclSetAclOpExecutorRepeatable(executor: AclOpExecutor | None) -> AclnnStatus:
    """Allow an executor to be launched again and again, until :func:`aclDestroyAclOpExecutor`.

    Parameters
    ----------
    executor : AclOpExecutor
        Neither launched nor destroyed.

    Returns
    -------
    AclnnStatus
    """
    return status_of(lambda: expect(executor, AclOpExecutor, "executor").set_repeatable())


def aclDestroyAclOpExecutor(executor: AclOpExecutor | None) -> AclnnStatus:
    """Let go of an executor; launches that are queued still run.

    Parameters
    ----------
    executor : AclOpExecutor
        Neither destroyed nor used up: one that is not repeatable goes with its launch.

    Returns
    -------
    AclnnStatus
    """
    return status_of(lambda: expect(executor, AclOpExecutor, "executor").destroy())


def aclSetTensorAddr(executor: AclOpExecutor | None, index: int, tensor: Any, addr: Any) -> AclnnStatus:
    """Give a tensor of a repeatable executor other memory of the same description, from the next launch on.

    Parameters
    ----------
    executor : AclOpExecutor
        A repeatable one.
    index : int
        0 to 4: self, scale, zeroPoint, out, mask.
    tensor : AclTensor, numpy.ndarray, DLPack tensor or None
        Where given, it has to have the description of the tensor that the first phase got.  It stays as it is.
    addr : int or buffer
        Of the storage, so the offset of an AclTensor is added; for other tensors, the lowest address of an element.

    Returns
    -------
    AclnnStatus
        ``ACLNN_ERR_PARAM_INVALID`` also where outputs would overlap one another or part of an input as the tensors
        are bound now; then the old address stays.
    """
    return _rebind(executor, 0, len(TENSORS), index, tensor, addr)


def aclSetInputTensorAddr(executor: AclOpExecutor | None, index: int, tensor: Any, addr: Any) -> AclnnStatus:
    """Give an input other memory, as :func:`aclSetTensorAddr` does; 0 to 2 are self, scale, zeroPoint."""
    return _rebind(executor, 0, INPUTS, index, tensor, addr)


def aclSetOutputTensorAddr(executor: AclOpExecutor | None, index: int, tensor: Any, addr: Any) -> AclnnStatus:
    """Give an output other memory, as :func:`aclSetTensorAddr` does; 0 and 1 are out, mask."""
    return _rebind(executor, INPUTS, len(TENSORS) - INPUTS, index, tensor, addr)


def _rebind(executor: Any, first: int, count: int, index: Any, tensor: Any, addr: Any) -> AclnnStatus:
    return status_of(lambda: expect(executor, AclOpExecutor, "executor").rebind(first, count, index, tensor, addr))


def operand_of(value: Any, name: str) -> Operand:
    """Describe a tensor argument; refuse what strides do not describe."""
    if isinstance(value, AclTensor):
        if value.operand is None:
            raise invalid(f"{name} is destroyed; expected a tensor that is not")
        if any(part in value.format.name for part in _BLOCKED):
            raise invalid(f"{name} has format {value.format.name}; expected ACL_FORMAT_ND")
    return describe(value, name)


def _check_alike(tensor: Any, operand: Operand, name: str) -> None:
    """Refuse a tensor of another dtype, shape or strides than the one that a launch was prepared for."""
    given = operand_of(tensor, "tensor")

    def description(operand: Operand) -> tuple[str, tuple[int, ...], list[int]]:
        strides = [s for n, s in zip(operand.shape, operand.strides, strict=True) if n > 1]
        return operand.dtype, operand.shape, [] if 0 in operand.shape else strides

    if description(given) != description(operand):
        raise invalid(
            f"tensor is {given.dtype} {given.shape} with strides {given.strides}; "
            f"expected that of {name}, {operand.dtype} {operand.shape} with strides {operand.strides}"
        )

"""Arguments of the aclnn operators, what describes them, and doubles of what is launched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import assert_same, expected, make, tie_share

from fq_tvm import LaunchError, aclnn
from fq_tvm.aclnn import AclFormat, AclnnStatus, AclTensor
from fq_tvm.aclnn import operator as aclnn_operator

message = aclnn.aclGetRecentErrMsg

SUCCESS = AclnnStatus.ACLNN_SUCCESS
NULLPTR = AclnnStatus.ACLNN_ERR_PARAM_NULLPTR
INVALID = AclnnStatus.ACLNN_ERR_PARAM_INVALID
RUNTIME = AclnnStatus.ACLNN_ERR_RUNTIME_ERROR

NAMES = ("self", "scale", "zeroPoint", "out", "mask")
SENTINEL = 7  # what outputs hold before a call


class Case:
    """Arguments of the operator as numpy arrays, with outputs that show whether they were touched."""

    first_phase: Any = staticmethod(aclnn.aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize)
    launch: Any = staticmethod(aclnn.aclnnFakeQuantPerChannelAffineCachemask)

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, ...] = (4, 6, 5),
        axis: int = 1,
        dtypes: tuple[str, str, str] = ("float32", "float32", "float32"),
        quant_range: tuple[int, int] = (-128, 127),
    ) -> None:
        self.x, self.scale, self.zero_point = make(rng, shape, axis, *dtypes[:2], quant_range)
        self.axis, self.low, self.high = axis, *quant_range
        self.out = np.full(shape, SENTINEL, dtypes[2])
        self.mask = np.full(shape, SENTINEL, np.uint8).view(bool)

    @property
    def answer(self) -> Any:
        return expected(self.x, self.scale, self.zero_point, self.axis, self.low, self.high, self.out.dtype)

    @property
    def number(self) -> dict[str, Any]:
        """The argument between the tensors and the range."""
        return {"axis": self.axis}

    def arguments(self, /, **changes: Any) -> tuple[Any, ...]:
        values = {
            "self": self.x,
            "scale": self.scale,
            "zeroPoint": self.zero_point,
            **self.number,
            "quantMin": self.low,
            "quantMax": self.high,
            "out": self.out,
            "mask": self.mask,
        }
        assert not changes.keys() - values.keys()
        return tuple((values | changes).values())

    def plan(self, /, **changes: Any) -> tuple[int, aclnn.AclOpExecutor]:
        status, size, executor = self.first_phase(*self.arguments(**changes))
        assert status == SUCCESS, message()
        assert executor is not None
        return size, executor

    def repeatable(self) -> tuple[int, aclnn.AclOpExecutor]:
        size, executor = self.plan()
        assert aclnn.aclSetAclOpExecutorRepeatable(executor) == SUCCESS
        return size, executor

    def check(self) -> None:
        assert_same((self.out, self.mask), self.answer)

    def clear(self) -> None:
        self.out[...] = SENTINEL
        self.mask.view(np.uint8)[...] = SENTINEL

    @property
    def untouched(self) -> bool:
        return bool((self.out == SENTINEL).all() and (self.mask.view(np.uint8) == SENTINEL).all())

    def refused(self, status: AclnnStatus, /, *words: str, **changes: Any) -> None:
        """Phase one refuses with a status and a message of these words, and touches nothing."""
        before = {name: np.copy(v) for name, v in changes.items() if isinstance(v, np.ndarray)}
        assert self.first_phase(*self.arguments(**changes)) == (status, 0, None)
        for word in words:
            assert word in message()
        assert self.untouched
        for name, value in before.items():
            np.testing.assert_array_equal(changes[name], value)


class PerTensor(Case):
    """Arguments of the operator with one scale and zero point, which is switched on."""

    first_phase = staticmethod(aclnn.aclnnFakeQuantPerTensorAffineCachemaskGetWorkspaceSize)
    launch = staticmethod(aclnn.aclnnFakeQuantPerTensorAffineCachemask)
    enabled: Any = 1.0

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, ...] = (4, 6, 5),
        dtypes: tuple[str, str, str] = ("float32", "float32", "float32"),
        quant_range: tuple[int, int] = (-128, 127),
    ) -> None:
        for _ in range(20):  # a scale that is no power of two leaves few ties, or none, and there is but one
            self.x, self.scale, self.zero_point = make(rng, shape, None, *dtypes[:2], quant_range)
            if not self.x.size or tie_share(self.x, self.scale, None) >= 0.25:
                break
        self.axis, (self.low, self.high) = None, quant_range
        self.out = np.full(shape, SENTINEL, dtypes[2])
        self.mask = np.full(shape, SENTINEL, np.uint8).view(bool)

    @property
    def number(self) -> dict[str, Any]:
        return {"fakeQuantEnabled": self.enabled}


class Disabled(PerTensor):
    """The same, switched off."""

    enabled = 0.0

    @property
    def answer(self) -> Any:
        with np.errstate(over="ignore"):
            return self.x.astype(self.out.dtype), np.ones(self.x.shape, bool)


def workspace_of(size: int) -> Any:
    return bytearray(size) if size else None


def run(case: Case, **changes: Any) -> None:
    size, executor = case.plan(**changes)
    assert case.launch(workspace_of(size), size, executor, None) == SUCCESS, message()


def tensor(array: np.ndarray, **changes: Any) -> AclTensor:
    """Describe a contiguous array."""
    values: dict[str, Any] = {
        "view_dims": array.shape,
        "dtype": array.dtype,
        "strides": None,
        "offset": 0,
        "format": AclFormat.ACL_FORMAT_ND,
        "storage_dims": array.shape,
        "data": array,
    }
    return aclnn.aclCreateTensor(**(values | changes))


def described(view: np.ndarray, storage: np.ndarray) -> AclTensor:
    """Describe a view of a contiguous array as CANN does."""
    size = view.itemsize
    offset = (view.ctypes.data - storage.ctypes.data) // size
    strides = [s // size for s in view.strides]
    return aclnn.aclCreateTensor(view.shape, view.dtype, strides, offset, 2, storage.shape, storage)


class FakeLaunch:
    """A double of a launch that does what a test says."""

    def __init__(self, action: Any, workspace_size: int = 0) -> None:
        self.action, self.workspace_size = action, workspace_size

    def __call__(self, *tensors: Any) -> None:
        self.action(*tensors)


def planned(monkeypatch: pytest.MonkeyPatch, case: Case, action: Any) -> aclnn.AclOpExecutor:
    """Return a repeatable executor whose launch is a double."""
    with monkeypatch.context() as patch:
        patch.setattr(aclnn_operator, "launch_of", lambda *_: FakeLaunch(action))
        return case.repeatable()[1]


def fail(text: str) -> Any:
    def action(*_: Any) -> None:
        raise LaunchError(text)

    return action

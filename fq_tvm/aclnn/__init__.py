"""The operators behind an API in the style of CANN's aclnn: status codes, aclTensor, executor, stream, two phases.

Names and numbers are CANN's; pointers that C fills in are return values here.  Everything lies in this machine's memory
and runs on its CPU.

Examples
--------
>>> import numpy as np
>>> from fq_tvm.aclnn import execute, get_workspace_size
>>> x, scale, zero_point = np.float32([[0.4, 300.0]]), np.float32([0.5, 1.0]), np.int32([0, 0])
>>> out, mask = np.empty_like(x), np.empty_like(x, bool)
>>> size, executor = get_workspace_size(x, scale, zero_point, 1, -128, 127, out, mask)
>>> execute(bytearray(size), size, executor)
>>> out, mask
(array([[  0.5, 127. ]], dtype=float32), array([[ True, False]]))

One scale and zero point of the whole tensor, switched off: self as it is, and all of it in range.

>>> from fq_tvm.aclnn import get_workspace_size_per_tensor
>>> size, executor = get_workspace_size_per_tensor(x, scale[:1], zero_point[:1], 0.0, -128, 127, out, mask)
>>> execute(None, size, executor)
>>> out, mask
(array([[  0.4, 300. ]], dtype=float32), array([[ True,  True]]))
"""

from __future__ import annotations

from .executor import (
    AclOpExecutor,
    aclDestroyAclOpExecutor,
    aclSetAclOpExecutorRepeatable,
    aclSetInputTensorAddr,
    aclSetOutputTensorAddr,
    aclSetTensorAddr,
)
from .operator import (
    aclnnFakeQuantPerChannelAffineCachemask,
    aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize,
    aclnnFakeQuantPerTensorAffineCachemask,
    aclnnFakeQuantPerTensorAffineCachemaskGetWorkspaceSize,
    execute,
    get_workspace_size,
    get_workspace_size_per_tensor,
)
from .status import AclnnError, AclnnStatus, aclGetRecentErrMsg
from .stream import AclrtStream, aclrtCreateStream, aclrtDestroyStream, aclrtSynchronizeStream
from .tensor import AclDataType, AclFormat, AclTensor, aclCreateTensor, aclDestroyTensor

__all__ = [
    "AclDataType",
    "AclFormat",
    "AclOpExecutor",
    "AclTensor",
    "AclnnError",
    "AclnnStatus",
    "AclrtStream",
    "aclCreateTensor",
    "aclDestroyAclOpExecutor",
    "aclDestroyTensor",
    "aclGetRecentErrMsg",
    "aclSetAclOpExecutorRepeatable",
    "aclSetInputTensorAddr",
    "aclSetOutputTensorAddr",
    "aclSetTensorAddr",
    "aclnnFakeQuantPerChannelAffineCachemask",
    "aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize",
    "aclnnFakeQuantPerTensorAffineCachemask",
    "aclnnFakeQuantPerTensorAffineCachemaskGetWorkspaceSize",
    "aclrtCreateStream",
    "aclrtDestroyStream",
    "aclrtSynchronizeStream",
    "execute",
    "get_workspace_size",
    "get_workspace_size_per_tensor",
]

"""The vendor's C++ sample of the operator, step by step in Python: create tensors, two phases, wait, read, let go.

Where C takes memory from a device, a bytearray serves here; there is no device to choose and nothing to copy.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from fq_tvm.aclnn import (
    AclDataType,
    AclFormat,
    AclnnStatus,
    AclTensor,
    aclCreateTensor,
    aclDestroyTensor,
    aclGetRecentErrMsg,
    aclnnFakeQuantPerChannelAffineCachemask,
    aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize,
    aclrtCreateStream,
    aclrtDestroyStream,
    aclrtSynchronizeStream,
)


def check(status: AclnnStatus, call: str) -> None:
    if status != AclnnStatus.ACLNN_SUCCESS:
        sys.exit(f"{call} failed with {status.value}: {aclGetRecentErrMsg()}")


def create_acl_tensor(host_data: np.ndarray, shape: list[int], dtype: AclDataType) -> tuple[bytearray, AclTensor]:
    # Memory for the elements, filled with the host's values.
    memory = bytearray(host_data.tobytes())

    # Strides of a contiguous tensor: the last dimension is dense, each other one steps over those after it.
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = shape[i + 1] * strides[i + 1]

    return memory, aclCreateTensor(shape, dtype, strides, 0, AclFormat.ACL_FORMAT_ND, shape, memory)


def main() -> None:
    # 1. A stream; device and context need no initialization.
    status, stream = aclrtCreateStream()
    check(status, "aclrtCreateStream")

    # 2. Inputs and outputs: one element, one channel.
    shape = [1]
    axis, quant_min, quant_max = 0, 1, 3
    _, self = create_acl_tensor(np.array([1], np.float32), shape, AclDataType.ACL_FLOAT)
    _, scale = create_acl_tensor(np.array([1], np.float32), shape, AclDataType.ACL_FLOAT)
    _, zero_point = create_acl_tensor(np.array([1], np.int32), shape, AclDataType.ACL_INT32)
    out_memory, out = create_acl_tensor(np.array([0], np.float32), shape, AclDataType.ACL_FLOAT)
    mask_memory, mask = create_acl_tensor(np.array([0], np.bool_), shape, AclDataType.ACL_BOOL)

    # 3. The first phase checks the arguments and says how much workspace the second one needs.
    status, workspace_size, executor = aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize(
        self, scale, zero_point, axis, quant_min, quant_max, out, mask
    )
    check(status, "aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize")
    workspace = bytearray(workspace_size) if workspace_size > 0 else None

    # The second phase queues the work on the stream.
    status = aclnnFakeQuantPerChannelAffineCachemask(workspace, workspace_size, executor, stream)
    check(status, "aclnnFakeQuantPerChannelAffineCachemask")

    # 4. Wait for it.
    check(aclrtSynchronizeStream(stream), "aclrtSynchronizeStream")

    # 5. The results are in the outputs' memory.
    result = np.frombuffer(out_memory, np.float32)
    in_range = np.frombuffer(mask_memory, np.bool_)
    for i in range(math.prod(shape)):
        print(f"result[{i}] is: {result[i]:f}, mask[{i}] is: {int(in_range[i])}")

    # 6. Let go of the tensors.
    for tensor in (self, scale, zero_point, out, mask):
        check(aclDestroyTensor(tensor), "aclDestroyTensor")

    # 7. And of the stream; memory goes with the last reference to it.
    check(aclrtDestroyStream(stream), "aclrtDestroyStream")


if __name__ == "__main__":
    main()

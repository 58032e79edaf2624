"""The vendor's C++ sample of the operator with one scale and zero point of a tensor; then what it does switched off."""

from __future__ import annotations

import sys

import numpy as np

from fq_tvm.aclnn import (
    AclnnStatus,
    AclTensor,
    aclCreateTensor,
    aclGetRecentErrMsg,
    aclnnFakeQuantPerTensorAffineCachemask,
    aclnnFakeQuantPerTensorAffineCachemaskGetWorkspaceSize,
    aclrtCreateStream,
    aclrtDestroyStream,
    aclrtSynchronizeStream,
)


def check(status: AclnnStatus, call: str) -> None:
    if status != AclnnStatus.ACLNN_SUCCESS:
        sys.exit(f"{call} failed with {status.value}: {aclGetRecentErrMsg()}")


def describe(array: np.ndarray) -> AclTensor:
    return aclCreateTensor(array.shape, array.dtype, None, 0, "ACL_FORMAT_ND", array.shape, array)


def main() -> None:
    status, stream = aclrtCreateStream()
    check(status, "aclrtCreateStream")

    values = np.array([1, 2.6, 9], np.float32)
    scale, zero_point = np.array([1], np.float32), np.array([1], np.int32)
    result, mask = np.zeros(3, np.float32), np.zeros(3, np.bool_)
    quant_min, quant_max = 1, 3

    for fake_quant_enabled in (1.0, 0.0):
        # The first phase checks the arguments and reads whether fake quantization is enabled.
        status, workspace_size, executor = aclnnFakeQuantPerTensorAffineCachemaskGetWorkspaceSize(
            describe(values),
            describe(scale),
            describe(zero_point),
            fake_quant_enabled,
            quant_min,
            quant_max,
            describe(result),
            describe(mask),
        )
        check(status, "aclnnFakeQuantPerTensorAffineCachemaskGetWorkspaceSize")
        workspace = bytearray(workspace_size) if workspace_size > 0 else None

        # The second phase queues the work on the stream.
        status = aclnnFakeQuantPerTensorAffineCachemask(workspace, workspace_size, executor, stream)
        check(status, "aclnnFakeQuantPerTensorAffineCachemask")
        check(aclrtSynchronizeStream(stream), "aclrtSynchronizeStream")

        print(f"enabled is {fake_quant_enabled:f}")
        for i in range(len(values)):
            print(f"result[{i}] is: {result[i]:f}, mask[{i}] is: {int(mask[i])}")

    check(aclrtDestroyStream(stream), "aclrtDestroyStream")


if __name__ == "__main__":
    main()

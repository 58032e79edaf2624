"""The two operators in two phases: aclnnFakeQuantPerChannelAffineCachemask and aclnnFakeQuantPerTensorAffineCachemask.

The first phase checks and prepares, so that the second only launches.  The C-style functions return a status and
raise nothing; :func:`get_workspace_size`, :func:`get_workspace_size_per_tensor` and :func:`execute` are the same steps,
raising AclnnError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import FqError
from ..launch.arguments import Operand, Operands, check, describe_all
from ..launch.kernel import EmptyLaunch
from ..launch.registry import launch_of
from .copy import Copy
from .executor import NAMES, AclOpExecutor, Prepared, operand_of
from .status import AclnnError, AclnnStatus, expect, invalid, record, translate
from .stream import AclrtStream
from .tensor import float32

# The facade's own table: what the library takes beyond it, the operators still refuse.
_FLOATS = ("float16", "float32")
_DTYPES = (_FLOATS, _FLOATS, ("int32",), _FLOATS, ("bool",))

_SUCCESS = AclnnStatus.ACLNN_SUCCESS


class _Operator(NamedTuple):
    """What one operator has that the other has not.

    Parameters
    ----------
    number : str
        The name of the argument before the range.
    prepare : callable
        Checks, and returns what the second phase runs: ``prepare(operands, number, quant_min, quant_max)``.
    """

    number: str
    prepare: Callable[[Operands, Any, Any, Any], Prepared]


def _per_channel(operands: Operands, axis: Any, quant_min: Any, quant_max: Any) -> Prepared:
    return launch_of(check(operands, axis, quant_min, quant_max, NAMES, _DTYPES))


def _per_tensor(operands: Operands, enabled: Any, quant_min: Any, quant_max: Any) -> Prepared:
    x, scale, zero_point, *results = operands
    one = Operands(x, _one_element(scale), _one_element(zero_point), *results)
    checked = check(one, None, quant_min, quant_max, NAMES, _DTYPES)
    if float32(enabled, _PER_TENSOR.number) >= 1:
        return launch_of(checked)
    return EmptyLaunch() if 0 in checked.shape else Copy(operands)


def _one_element(operand: Operand) -> Operand:
    """Take all dimensions off a tensor of one element; the check refuses what has more, or none."""
    return operand._replace(shape=(), strides=()) if math.prod(operand.shape) == 1 else operand


_PER_CHANNEL = _Operator("axis", _per_channel)
_PER_TENSOR = _Operator("fakeQuantEnabled", _per_tensor)


def get_workspace_size(
    self: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int, out: Any, mask: Any
) -> tuple[int, AclOpExecutor]:
    """Check the arguments and prepare a call: the first phase.

    Parameters
    ----------
    self : AclTensor, numpy.ndarray or DLPack tensor
        float16 or float32, up to 8 dimensions, any strides.
    scale : tensor
        float16 or float32, one dimension of self's size along axis.
    zero_point : tensor
        int32, of scale's shape.
    axis : int
        The channel dimension; negative counts from the end.
    quant_min, quant_max : int
        The range, any int64, ``quant_min <= quant_max``.
    out, mask : tensor
        Of self's shape: float16 or float32, and bool.

    Returns
    -------
    workspace_size : int
        Bytes that the second phase needs.
    executor : AclOpExecutor
        For the second phase; it keeps buffers and arrays alive.

    Raises
    ------
    AclnnError
        With the status that the C-style function returns.
    """
    return _prepare(_PER_CHANNEL, (self, scale, zero_point, out, mask), (axis, quant_min, quant_max))


def get_workspace_size_per_tensor(
    self: Any,
    scale: Any,
    zero_point: Any,
    fake_quant_enabled: float,
    quant_min: int,
    quant_max: int,
    out: Any,
    mask: Any,
) -> tuple[int, AclOpExecutor]:
    """Check the arguments and prepare a call with one scale and zero point of the whole tensor: the first phase.

    Parameters
    ----------
    self : AclTensor, numpy.ndarray or DLPack tensor
        float16 or float32, up to 8 dimensions, any strides.
    scale : tensor
        float16 or float32, one element in any number of dimensions.
    zero_point : tensor
        int32, one element in any number of dimensions.
    fake_quant_enabled : float
        Taken as a float32, which is what C passes.  At 1 or more, out and mask are those of the formula.  Below 1, or
        NaN, out is a copy of self, converted to out's dtype, and mask is true everywhere.  A tensor of one element,
        such as the ``fake_quant_enabled`` of a torch module, is read here and not again.
    quant_min, quant_max : int
        The range, any int64, ``quant_min <= quant_max``.
    out, mask : tensor
        Of self's shape: float16 or float32, and bool.

    Returns
    -------
    workspace_size : int
        Bytes that the second phase needs.
    executor : AclOpExecutor
        For the second phase, :func:`execute`; it keeps buffers and arrays alive.

    Raises
    ------
    AclnnError
        With the status that the C-style function returns.

    Notes
    -----
    Contract: ``aclnnFakeQuantPerTensorAffineCachemask`` of CANN.  All arguments are checked also where fake
    quantization is disabled.
    """
    return _prepare(_PER_TENSOR, (self, scale, zero_point, out, mask), (fake_quant_enabled, quant_min, quant_max))


def execute(workspace: Any, workspace_size: int, executor: AclOpExecutor, stream: AclrtStream | None = None) -> None:
    """Launch what the first phase of either operator prepared: the second phase.

    Parameters
    ----------
    workspace : buffer, int or None
        Writable memory or its address; None where the size is 0.
    workspace_size : int
        Its bytes, at least as many as the first phase asked for.
    executor : AclOpExecutor
        Of the first phase.
    stream : AclrtStream, optional
        Where to queue the launch; without one it runs now, in this thread.

    Raises
    ------
    AclnnError
        With the status that the C-style function returns.
    """
    try:
        if stream is not None:
            if not isinstance(stream, AclrtStream):
                raise invalid(f"stream is a {type(stream).__name__}; expected an AclrtStream or None")
            stream.check()
        bound = expect(executor, AclOpExecutor, "executor").take(workspace, workspace_size)
        if stream is None:
            bound.launch(*bound.tensors)
        else:
            stream.submit(bound.launch, bound.tensors, bound.keep)
    except Exception as error:
        raise translate(error) from error


def aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize(
    self: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int, out: Any, mask: Any
) -> tuple[AclnnStatus, int, AclOpExecutor | None]:
    """Check the arguments and prepare a call: the first phase.

    Parameters
    ----------
    self, scale, zero_point, axis, quant_min, quant_max, out, mask
        See :func:`get_workspace_size`.

    Returns
    -------
    status : AclnnStatus
    workspace_size : int
        Bytes that the second phase needs; 0 on failure.
    executor : AclOpExecutor or None
        None on failure.
    """
    try:
        return _SUCCESS, *get_workspace_size(self, scale, zero_point, axis, quant_min, quant_max, out, mask)
    except AclnnError as error:
        return record(error), 0, None


def aclnnFakeQuantPerTensorAffineCachemaskGetWorkspaceSize(
    self: Any,
    scale: Any,
    zero_point: Any,
    fake_quant_enabled: float,
    quant_min: int,
    quant_max: int,
    out: Any,
    mask: Any,
) -> tuple[AclnnStatus, int, AclOpExecutor | None]:
    """Check the arguments and prepare a call with one scale and zero point of the whole tensor: the first phase.

    Parameters
    ----------
    self, scale, zero_point, fake_quant_enabled, quant_min, quant_max, out, mask
        See :func:`get_workspace_size_per_tensor`.

    Returns
    -------
    status : AclnnStatus
    workspace_size : int
        Bytes that the second phase needs; 0 on failure.
    executor : AclOpExecutor or None
        None on failure.
    """
    arguments = (self, scale, zero_point, fake_quant_enabled, quant_min, quant_max, out, mask)
    try:
        return _SUCCESS, *get_workspace_size_per_tensor(*arguments)
    except AclnnError as error:
        return record(error), 0, None


def aclnnFakeQuantPerChannelAffineCachemask(
    workspace: Any, workspace_size: int, executor: AclOpExecutor | None, stream: AclrtStream | None
) -> AclnnStatus:
    """Launch what the first phase prepared: the second phase.

    Parameters
    ----------
    workspace, workspace_size, executor, stream
        See :func:`execute`.

    Returns
    -------
    AclnnStatus
        With a stream, failures of the launch are reported by
        :func:`~fq_tvm.aclnn.aclrtSynchronizeStream`.
    """
    try:
        if stream is None and type(executor) is AclOpExecutor:
            bound = executor._bound
            if bound is not None and bound.serves(workspace, workspace_size):  # a relaunch: nothing is left to check
                bound.launch(*bound.tensors)
                return _SUCCESS
        execute(workspace, workspace_size, executor, stream)  # type: ignore[arg-type]
    except Exception as error:
        return record(translate(error))
    return _SUCCESS


def aclnnFakeQuantPerTensorAffineCachemask(
    workspace: Any, workspace_size: int, executor: AclOpExecutor | None, stream: AclrtStream | None
) -> AclnnStatus:
    """Launch what the first phase prepared: the second phase, as :func:`aclnnFakeQuantPerChannelAffineCachemask`.

    Parameters
    ----------
    workspace, workspace_size, executor, stream
        See :func:`execute`.

    Returns
    -------
    AclnnStatus
    """
    return aclnnFakeQuantPerChannelAffineCachemask(workspace, workspace_size, executor, stream)


def _prepare(operator: _Operator, tensors: Sequence[Any], numbers: tuple[Any, Any, Any]) -> tuple[int, AclOpExecutor]:
    try:
        names = (operator.number, NAMES.quant_min, NAMES.quant_max)
        operands = describe_all(tensors, NAMES, dict(zip(names, numbers, strict=True)), operand_of)
        executor = AclOpExecutor(operator.prepare(operands, *numbers), tensors, operands)
    except FqError as error:  # about FQ_TVM_TARGET and the like: it is the kernel that is missing
        raise translate(error, AclnnStatus.ACLNN_ERR_INNER_FIND_KERNEL_ERROR) from error
    except Exception as error:
        raise translate(error, AclnnStatus.ACLNN_ERR_INNER_CREATE_EXECUTOR) from error
    return executor.workspace_size, executor

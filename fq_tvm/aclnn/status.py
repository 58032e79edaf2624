"""Status codes of the aclnn-style API, the error that carries one, and each thread's last message."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

from ..errors import ArgumentError, BuildError, FqError, LaunchError

T = TypeVar("T")


class AclnnStatus(IntEnum):
    """The codes that the API returns, with CANN's names and numbers."""

    ACLNN_SUCCESS = 0
    ACLNN_ERR_PARAM_NULLPTR = 161001
    ACLNN_ERR_PARAM_INVALID = 161002
    ACLNN_ERR_RUNTIME_ERROR = 361001
    ACLNN_ERR_INNER = 561000
    ACLNN_ERR_INNER_INFERSHAPE_ERROR = 561001
    ACLNN_ERR_INNER_TILING_ERROR = 561002
    ACLNN_ERR_INNER_FIND_KERNEL_ERROR = 561003
    ACLNN_ERR_INNER_CREATE_EXECUTOR = 561101
    ACLNN_ERR_INNER_NOT_TRANS_EXECUTOR = 561102
    ACLNN_ERR_INNER_NULLPTR = 561103


class AclnnError(FqError):
    """A call that failed.

    Parameters
    ----------
    status : AclnnStatus
        Why.
    message : str
        Names the argument, what it was and what was expected.
    """

    def __init__(self, status: AclnnStatus, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message

    def __str__(self) -> str:
        return f"{self.status.name} ({self.status.value}): {self.message}"


def invalid(message: str) -> AclnnError:
    """Return the error of an argument that is refused."""
    return AclnnError(AclnnStatus.ACLNN_ERR_PARAM_INVALID, message)


def null(message: str) -> AclnnError:
    """Return the error of an argument, or an address, that is not there."""
    return AclnnError(AclnnStatus.ACLNN_ERR_PARAM_NULLPTR, message)


def expect(value: Any, kind: type[T], name: str) -> T:
    """Return an argument that is a handle of the API: an AclTensor, executor or stream; refuse None and all else."""
    if value is None:
        raise null(f"{name} is None; expected an {kind.__name__}")
    if not isinstance(value, kind):
        raise invalid(f"{name} is a {type(value).__name__}; expected an {kind.__name__}")
    return value


class _Recent(threading.local):
    message = ""


_recent = _Recent()


def record(error: AclnnError) -> AclnnStatus:
    """Keep an error's message for the calling thread and return its status."""
    _recent.message = error.message
    return error.status


def translate(error: Exception, otherwise: AclnnStatus = AclnnStatus.ACLNN_ERR_INNER) -> AclnnError:
    """Return an exception as an error with a status; ``otherwise`` is that of an internal fault of unknown kind."""
    if isinstance(error, AclnnError):
        return error
    if isinstance(error, ArgumentError):
        return null(str(error)) if error.kind == "null" else invalid(str(error))
    if isinstance(error, BuildError):
        status = AclnnStatus.ACLNN_ERR_INNER_FIND_KERNEL_ERROR
    elif isinstance(error, LaunchError):
        status = AclnnStatus.ACLNN_ERR_RUNTIME_ERROR
    else:
        status = otherwise
    return AclnnError(status, str(error) if isinstance(error, FqError) else f"{type(error).__name__}: {error}")


def status_of(step: Callable[[], object]) -> AclnnStatus:
    """Take a step and return its status; the message of a failure is kept for the calling thread."""
    try:
        step()
    except Exception as error:
        return record(translate(error))
    return AclnnStatus.ACLNN_SUCCESS


def aclGetRecentErrMsg() -> str:
    """Return the message of the calling thread's last call that failed, or an empty string; a success keeps it."""
    return _recent.message

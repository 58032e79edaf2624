"""aclrtStream: launches that run one after another beside the caller.

Knows nothing of kernels: a stream runs what it is given and keeps the first failure for whoever synchronizes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..interruption import fork_safe_lock
from ..launch.runtime import check_memory
from .status import AclnnError, AclnnStatus, expect, invalid, record, status_of, translate

THREAD_BYTES = 2**26
"""What a thread may want before it begins: a stack of 8 MB, a heap of its own."""


class AclrtStream:
    """A queue with a thread of its own; :func:`aclrtCreateStream` makes it.

    What is queued when the interpreter exits still runs before it ends.
    """

    def __init__(self) -> None:
        check_memory(THREAD_BYTES, "the thread of a stream")  # Python waits for ever for one that gets none to begin
        # One worker makes a queue; Python joins the workers of executors at exit, when their queues are empty.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aclrt-stream")
        self._process = os.getpid()
        self._lock = fork_safe_lock()
        self._failure: AclnnError | None = None
        self._destroyed = False
        # Python starts the worker with the first call: here, where it is plain what fails if there can be none.
        self._executor.submit(int).result()

    def __repr__(self) -> str:
        return f"AclrtStream({'destroyed' if self._destroyed else 'live'})"

    def check(self) -> None:
        """Raise AclnnError if nothing can be queued here."""
        if self._destroyed:
            raise invalid("stream is destroyed; expected one that is not")
        if self._process != os.getpid():  # a forked child has the queue but not the thread
            raise AclnnError(
                AclnnStatus.ACLNN_ERR_RUNTIME_ERROR,
                f"stream belongs to process {self._process}; expected one made in this process, {os.getpid()}",
            )

    def submit(self, call: Callable[..., None], arguments: tuple[Any, ...], keep: Any) -> None:
        """Queue a call.

        Parameters
        ----------
        call, arguments
            What to run.
        keep : object
            Kept alive until it has run.

        Raises
        ------
        AclnnError
            If the stream takes nothing any more, or has no thread to run it.
        """
        self.check()
        try:
            self._executor.submit(self._run, call, arguments, keep)
        except RuntimeError as error:
            raise AclnnError(AclnnStatus.ACLNN_ERR_RUNTIME_ERROR, f"stream takes no launch: {error}") from error

    def _run(self, call: Callable[..., None], arguments: tuple[Any, ...], _keep: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            with self._lock:
                self._failure = self._failure or translate(error)

    def synchronize(self) -> None:
        """Wait for everything queued so far; raise the first failure since the last time, and forget it."""
        self.check()
        try:
            self._executor.submit(int).result()
        except RuntimeError:  # the interpreter is ending: nothing is taken any more, what is queued still runs
            self._executor.shutdown()
        self._report()

    def destroy(self) -> None:
        """Run what is queued, then stop; raise the first failure that nobody has seen."""
        self.check()
        self._destroyed = True
        self._executor.shutdown()
        self._report()

    def _report(self) -> None:
        with self._lock:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def aclrtCreateStream() -> tuple[AclnnStatus, AclrtStream | None]:
    """Make a stream.

    Returns
    -------
    status : AclnnStatus
    stream : AclrtStream or None
        None if there is no thread for it.
    """
    try:
        return AclnnStatus.ACLNN_SUCCESS, AclrtStream()
    except Exception as error:
        return record(translate(error, AclnnStatus.ACLNN_ERR_RUNTIME_ERROR)), None


def aclrtSynchronizeStream(stream: AclrtStream | None) -> AclnnStatus:
    """Wait until all launches of a stream have run.

    Parameters
    ----------
    stream : AclrtStream or None
        Launches without a stream run at once, so for None there is nothing to wait for.

    Returns
    -------
    AclnnStatus
        That of the first launch that failed since the last synchronization.
    """
    if stream is None:
        return AclnnStatus.ACLNN_SUCCESS
    return status_of(lambda: expect(stream, AclrtStream, "stream").synchronize())


def aclrtDestroyStream(stream: AclrtStream | None) -> AclnnStatus:
    """Run what a stream still holds, and end it.

    Parameters
    ----------
    stream : AclrtStream
        None is refused with ``ACLNN_ERR_PARAM_NULLPTR``, one that is destroyed with ``ACLNN_ERR_PARAM_INVALID``.

    Returns
    -------
    AclnnStatus
        That of the first launch that failed since the last synchronization; the stream is destroyed all the same.
    """
    return status_of(lambda: expect(stream, AclrtStream, "stream").destroy())

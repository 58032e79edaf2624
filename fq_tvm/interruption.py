"""What forks and signals may not interrupt, which come at any moment: locks, and steps that have to end.

A forked child has the memory of its parent and one of its threads.  What another thread held stays held there, and what
it had begun, such as an import, is never finished; so locks are renewed, and a fork waits for steps.
"""

from __future__ import annotations

import _thread
import concurrent.futures.thread
import contextlib
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

FORK_SECONDS = 30.0
"""How long a fork waits for the steps of other threads, far above what one takes."""

BEGIN_SECONDS = 1.0
"""How long a step's thread may take to begin, far above what one takes; then the caller does the step itself."""

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_steps: dict[int, Any] = {}  # by thread, a lock that it holds meanwhile
_gate = threading.RLock()  # whoever begins a step passes it; whoever forks holds it


def fork_safe_lock(kind: Callable[[], Any] = threading.RLock) -> Any:
    """Make a lock that is free in a forked child, unless the thread that forked holds it.

    It is reentrant unless asked otherwise, as handlers of signals run within whatever their thread does.
    """
    lock = kind()
    _locks.add(lock)
    return lock


def unforked(step: Callable[P, T]) -> Callable[P, T]:
    """Return a function as a step for whose end the forks of other threads wait."""

    @functools.wraps(step)
    def function(*args: P.args, **kwargs: P.kwargs) -> T:
        if threading.get_ident() in _steps:  # this is a part of one
            return step(*args, **kwargs)
        with _begun(_gate):
            return step(*args, **kwargs)

    return function


@contextlib.contextmanager
def _begun(gate: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    lock, thread = threading.RLock(), threading.get_ident()
    with lock:
        with gate:
            _steps[thread] = lock
        try:
            yield
        finally:
            del _steps[thread]


def uninterrupted(step: Callable[[], T]) -> T:
    """Run a step that also signal handlers do not leave in the middle: what they raise is raised when it has ended.

    An import of TVM that is broken off leaves modules that cannot be imported again, and TVM forgets the type of an
    exception that passes through it.
    """
    if threading.get_ident() != threading.main_thread().ident:  # which alone runs signal handlers
        return unforked(step)()
    result: T | None = None
    failure: BaseException | None = None
    over, ended, turn = False, threading.Lock(), threading.RLock()
    ended.acquire()
    # A part of a step of this thread may not wait for a fork that waits for this thread.
    gate: Any = contextlib.nullcontext() if threading.get_ident() in _steps else _gate

    def run() -> None:
        nonlocal result, failure, over
        if not turn.acquire(blocking=False):  # kept for good: only one of two ever has it
            return
        try:
            with _begun(gate):
                result = step()
        except BaseException as error:
            failure = error
        finally:
            over = True
            ended.release()

    interruption: BaseException | None = None
    process = os.getpid()
    # Not threading.Thread, whose start waits for ever where the thread gets no memory to begin.
    with contextlib.suppress(RuntimeError, MemoryError):  # the system gives no thread
        _thread.start_new_thread(run, ())
        while not over and os.getpid() == process:  # a handler that forks may return in the child, too
            try:
                if not ended.acquire(timeout=BEGIN_SECONDS) and turn.acquire(blocking=False):
                    break
            except BaseException as error:
                interruption = interruption or error
    if interruption is not None:
        raise interruption
    if failure is not None:
        raise failure
    return cast(T, result) if over else unforked(step)()


def _before_fork() -> None:
    _gate.acquire()
    until = time.monotonic() + FORK_SECONDS
    for lock in list(_steps.values()):
        if lock.acquire(timeout=max(until - time.monotonic(), 0)):
            lock.release()


def _after_fork_in_child() -> None:
    for lock in _locks:
        if not getattr(lock, "_is_owned", bool)():
            lock._at_fork_reinit()
    for thread in _steps.keys() - {threading.get_ident()}:
        del _steps[thread]
    _gate.release()


# What is registered last is called first: these two hold locks over a fork that a step may need, so they come later.
assert logging and concurrent.futures.thread
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_gate.release, after_in_child=_after_fork_in_child)

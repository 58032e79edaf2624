"""Forks and signals, which come at any moment: of a process that holds locks, builds, or makes its first call."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import fq_tvm
from fq_tvm.interruption import fork_safe_lock, uninterrupted

PACKAGE = Path(fq_tvm.__file__).parent

PRELUDE = '''
import faulthandler, os, signal, sys, threading, time, traceback
import numpy as np
import fq_tvm

def call(dtype="f4", step=2):
    """The kernel of strided tensors is built in a third of the time of others."""
    x = np.linspace(-3, 3, 4 * 64, dtype="f4").reshape(4, 64).astype(dtype)[:, ::step]
    args = x, np.full(4, .01, "f4"), np.zeros(4, "i4")
    got = fq_tvm.fake_quantize_per_channel_affine_cachemask(*args, 0, -128, 127)
    want = fq_tvm.reference.fake_quant(*args, 0, -128, 127)
    assert (got[0] == want[0]).all() and (got[1] == want[1]).all()

def child(function):
    if (pid := os.fork()) == 0:
        faulthandler.dump_traceback_later(90, exit=True)
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child hangs or fails"
'''


def python(code: str, cache: Path, *arguments: str, **environment: str) -> str:
    given = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "FQ_TVM_CACHE_DIR": str(cache), **environment}
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *arguments]
    ran = subprocess.run(command, env=given, cwd=os.sep, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def test_every_lock_is_fork_safe():
    for path in PACKAGE.rglob("*.py"):
        made = re.search(
            r"threading\.(Lock|RLock|Condition|Semaphore|BoundedSemaphore|Event|Barrier)\(", path.read_text()
        )
        assert made is None or path.name == "interruption.py", f"{path}: {made[0]}; use fork_safe_lock"


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock])
def test_a_lock_of_another_thread_is_free_in_a_child_and_only_there(kind):
    lock, held, over = fork_safe_lock(kind), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    if (child := os.fork()) == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    taken = lock.acquire(blocking=False)
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not taken


def test_a_lock_of_the_thread_that_forks_stays_its_own():
    lock = fork_safe_lock()
    with lock:
        if (child := os.fork()) == 0:
            lock.release()  # an error if it were free
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_launches_and_builds_whatever_lock_another_thread_holds(tmp_path):
    python(
        """
        from fq_tvm import aclnn, interruption
        from fq_tvm.aclnn import executor, stream
        from fq_tvm.launch import kernel, registry, threads
        call()
        locks = list(interruption._locks)
        assert {id(lock) for lock in (registry._building, threads._lock, executor._lock)} <= set(map(id, locks))
        assert len(locks) >= 4  # and one of each kernel
        held, over = threading.Semaphore(0), threading.Event()
        def hold(lock):
            with lock:
                held.release()
                over.wait()
        holders = [threading.Thread(target=hold, args=(lock,)) for lock in locks]
        for holder in holders:
            holder.start()
        for _ in holders:
            held.acquire()
        try:
            child(lambda: (call(), call("f2")))
        finally:
            over.set()
        """,
        tmp_path,
    )


@pytest.mark.parametrize("delay", [0.1, 0.6])
def test_a_fork_while_another_thread_makes_its_first_call(tmp_path, delay):
    """At moments of the imports and of the build, where a child inherits what nobody will finish."""
    python(
        """
        thread = threading.Thread(target=call, args=("f2",))
        thread.start()
        time.sleep(float(sys.argv[1]))
        child(lambda: call("f2"))
        thread.join()
        """,
        tmp_path,
        str(delay),
    )


def test_a_fork_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("fq_tvm.interruption.FORK_SECONDS", 0.1)
    begun, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=uninterrupted, args=(lambda: (begun.set(), over.wait()),))
    thread.start()
    begun.wait()
    if (child := os.fork()) == 0:
        os._exit(uninterrupted(int))
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Stop(Exception):
    """What a program's own handler may raise."""


ERRORS = [KeyboardInterrupt, Stop, TimeoutError]


@pytest.mark.parametrize("error", ERRORS)
def test_what_a_handler_raises_during_a_build_is_what_comes_out(monkeypatch, error):
    """In the middle of a callback of TVM, which would make a RuntimeError of it."""
    from fq_tvm import FakeQuantSpec, get_kernel
    from fq_tvm.codegen import build
    from fq_tvm.launch import registry
    from fq_tvm.schedule import Schedule

    def handler(*_):
        raise error("from the handler")

    def within_tvm(*args):
        import tvm_ffi

        tvm_ffi.convert(lambda: signal.raise_signal(signal.SIGUSR1))()
        return lower(*args)

    lower = build.lower
    before = signal.signal(signal.SIGUSR1, handler)
    spec, schedule = FakeQuantSpec("strided_rows"), Schedule(tile=4321 + ERRORS.index(error))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(build, "lower", within_tvm)
            patch.setattr(registry, "find_or_build", lambda request, build: build())
            with pytest.raises(error, match="from the handler"):
                get_kernel(spec, schedule=schedule)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert threading.active_count() == len(threading.enumerate())
    get_kernel(spec, schedule=schedule)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_a_callback_raises_keeps_its_type(error):
    import fq_tvm.codegen.llvm  # noqa: F401

    def callback():
        raise error("from a callback")

    import tvm_ffi

    with pytest.raises(error, match="from a callback"):
        tvm_ffi.convert(callback)()


@pytest.mark.parametrize("delay", [0.2, 0.6])
def test_ctrl_c_at_any_moment_of_the_first_call(tmp_path, delay):
    """It is a KeyboardInterrupt, if it comes before the call has ended, and the next call is right."""
    python(
        """
        fq_tvm.fake_quantize_per_channel_affine_cachemask, fq_tvm.reference
        def ctrl_c(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, ctrl_c)
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
        try:
            call()
        except KeyboardInterrupt:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        call()
        """,
        tmp_path,
        str(delay),
    )


def test_a_handler_may_call_while_its_thread_builds(tmp_path):
    python(
        """
        fq_tvm.fake_quantize_per_channel_affine_cachemask, fq_tvm.reference
        called = []
        def handler(*_):
            call("f2")
            called.append(1)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, .05)
        call()
        while not called:
            time.sleep(.01)
        """,
        tmp_path,
    )


def test_a_handler_may_fork_while_its_thread_builds(tmp_path):
    """Also one that returns in the child, which then makes the call by itself."""
    python(
        """
        pids = []
        signal.signal(signal.SIGUSR1, lambda *_: pids.append(os.fork()))
        threading.Timer(.2, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        call()
        while not pids:
            time.sleep(.01)
        if pids[0] == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
        """,
        tmp_path,
    )


def test_a_thread_that_never_begins_is_not_waited_for(monkeypatch):
    """As one without memory for its first steps, for which Python's own start waits for ever; or begins too late."""
    late = []
    monkeypatch.setattr("fq_tvm.interruption.BEGIN_SECONDS", 0.05)
    monkeypatch.setattr("_thread.start_new_thread", lambda run, args: late.append(run))
    steps = []
    assert uninterrupted(lambda: steps.append(threading.get_ident()) or 7) == 7
    with pytest.raises(KeyError, match="its own error"):
        uninterrupted(lambda: {}["its own error"])
    for run in late:
        thread = threading.Thread(target=run)
        monkeypatch.undo()
        thread.start()
        thread.join()
    assert len(late) == 2 and steps == [threading.get_ident()], "the step ran twice"


def test_a_child_without_memory_for_threads_ends(tmp_path):
    """With every amount of memory from none on: where a stack fits, but not what Python makes of a thread."""
    python(
        """
        import resource
        call()
        from fq_tvm import aclnn, interruption
        aclnn.aclrtCreateStream
        interruption.BEGIN_SECONDS = .1
        def work(more):
            size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + more,) * 2)
            try:
                for step in range(3):
                    assert interruption.uninterrupted(lambda: step) == step
                status, stream = aclnn.aclrtCreateStream()
                assert (stream is None) == (status != 0)
                assert stream or "memory for the thread" in aclnn.aclGetRecentErrMsg()
            except MemoryError:
                pass
        for more in (*range(0, 12 << 20, 192 << 10), 1 << 30):
            child(lambda: work(more))
        """,
        tmp_path,
    )


def test_threads_that_cannot_be_had_are_done_without(tmp_path):
    """Where a user has no thread left, all is done by the one there is; nothing aborts."""
    if os.getuid():
        pytest.skip("needs to become another user")
    python(
        """
        import resource
        import _thread
        def refuse(*_):
            raise RuntimeError("can't start new thread")
        start, _thread.start_new_thread = _thread.start_new_thread, refuse
        call(step=1)
        _thread.start_new_thread = start
        os.setgid(54321), os.setuid(54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        try:
            threading.Thread(target=int).start()
        except RuntimeError:
            pass
        else:
            sys.exit("threads can be started")
        large = np.ones((512, 2048), "f4")
        args = large, np.ones(512, "f4"), np.zeros(512, "i4")
        assert (fq_tvm.fake_quantize_per_channel_affine_cachemask(*args, 0, -128, 127)[0] == 1).all()
        """,
        tmp_path,
        FQ_TVM_NUM_THREADS="16",
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
    )


def test_a_temporary_folder_that_is_full_or_none_is_not_needed(tmp_path):
    python(
        """
        import resource, tempfile
        tempfile.tempdir = "/nowhere"
        call(step=1)
        from fq_tvm.codegen.llvm import emit
        text = fq_tvm.get_kernel(fq_tvm.FakeQuantSpec("rows")).source("ll")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # as good as a full disk
        try:
            emit(text)
        except fq_tvm.BuildError as error:
            assert "no room" in str(error)
        else:
            sys.exit("there was room")
        """,
        tmp_path,
        TMPDIR="/nowhere",
    )


@pytest.mark.parametrize("how", ["pyc", "zip"])
def test_packages_without_sources_and_in_archives(tmp_path, how):
    import compileall
    import shutil

    package = tmp_path / "there" / "fq_tvm"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    if "pyc" in how:
        assert compileall.compile_dir(package, quiet=2, legacy=True)
        for source in package.rglob("*.py"):
            source.unlink()
    path = str(package.parent)
    if "zip" in how:
        path = shutil.make_archive(str(tmp_path / "archive"), "zip", package.parent)
        shutil.rmtree(package.parent)
    out = python("call(); print(fq_tvm.__file__)", tmp_path / "cache", PYTHONPATH=path)
    assert out.startswith(path)

"""The other process as the search sees it: starts it, asks it, and outlives whatever happens to it.

Knows the lines of JSON that go there and back; not what is in them, which :mod:`fq_tvm.tuning.trial` says.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from .. import environment
from ..errors import FqError
from ..interruption import fork_safe_lock


class TrialError(FqError):
    """A trial failed: its kernel could not be built, gave another result, crashed or hung."""


class LostError(TrialError):
    """The process or its machine went in the middle of a trial: perhaps by the trial's fault, perhaps not."""


class Worker:
    """The other process; started when first asked, and again after it was lost.

    Parameters
    ----------
    rpc : str, optional
        ``HOST:PORT`` of a tracker, to measure on another machine.
    key : str
        Of the machine at the tracker.
    command : sequence of str, optional
        What is started; :mod:`fq_tvm.tuning.trial` by default.
    """

    def __init__(self, rpc: str | None = None, key: str = "", command: Sequence[str] = ()) -> None:
        self.command = [
            *(command or environment.python("fq_tvm.tuning.trial")),
            *(["--rpc", rpc, "--key", key] if rpc else []),
        ]
        self._process: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False
        self._lock = fork_safe_lock(threading.Lock)  # one thread asks, another may close

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process for good; who waits for an answer of it gets a :class:`LostError`."""
        with self._lock:
            self._closed = True
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def _start(self) -> subprocess.Popen[str]:
        # Hundreds of candidates must not fill the user's cache, nor be looked for among artifacts.
        self._folder = self._folder or _folder()
        self._answers: queue.Queue[str] = queue.Queue()
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment.with_cache(self._folder.name),
            start_new_session=True,  # an interrupt is for the tuner, which then ends the worker
        )

        def listen(lines: IO[str], answers: queue.Queue[str]) -> None:
            for line in lines:
                answers.put(line)
            answers.put("")

        assert process.stdout is not None
        threading.Thread(target=listen, args=(process.stdout, self._answers), daemon=True).start()
        return process

    def stop(self) -> None:
        """End the process and all that it started."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def ask(self, request: Mapping[str, Any], timeout: float) -> Any:
        """Ask and wait for the answer.

        Raises
        ------
        TrialError
            With the reason, which the process says.
        LostError
            If it ended, lost its machine, or did not answer in time; the next question starts another one.
        """
        with self._lock:
            if self._closed:
                raise LostError("the search has ended")
            process = self._process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self.stop()
            raise LostError(f"no answer in {timeout:.0f} s") from None
        except OSError:
            line = ""
        except BaseException:
            self.stop()
            raise
        if not line:
            status = process.wait()
            self.stop()
            raise LostError(f"the process {_how_it_ended(status)}")
        answer = json.loads(line)
        if "lost" in answer:
            self.stop()
            raise LostError(answer["lost"])
        if "error" in answer:
            raise TrialError(answer["error"])
        return answer["answer"]


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for a cache: beside the user's where there is no room for temporary files."""
    try:
        return tempfile.TemporaryDirectory(prefix="fq_tvm-tune-")
    except OSError:
        if (beside := environment.cache_dir()) is None:
            raise
        beside.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="fq_tvm-tune-", dir=beside.parent)


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"

"""A tracker and servers of :mod:`tvm.rpc` on loopback, each a process of its own that can be killed: a lab for tests.

``python lab.py KEY [KEY ...]`` starts a server for each key, prints the tracker's port and the process of each server,
and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Lab:
    """What runs: the tracker's address, and the process of each server."""

    address: str
    servers: list[int]

    def kill(self, number: int) -> None:
        """End a server and the session that it serves, as a machine ends that loses its power."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.servers[number], signal.SIGKILL)


@contextlib.contextmanager
def lab(*keys: str) -> Iterator[Lab]:
    """Start a lab with a server for each key, and wait until the tracker knows all of them."""
    from fq_tvm.tuning.machines import servers

    command = [sys.executable, __file__, *keys]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        port, *pids = map(int, process.stdout.readline().split())
        found = Lab(f"127.0.0.1:{port}", pids)
        try:
            end = time.monotonic() + 60
            while any(servers(found.address, key) < keys.count(key) for key in keys):
                assert time.monotonic() < end, "not every server told the tracker of itself"
                time.sleep(0.05)
            yield found
        finally:
            for number in range(len(keys)):
                found.kill(number)
            process.stdin.close()


def _track(connection) -> None:
    from tvm.rpc import tracker

    port = _free_port()
    state = tracker.PopenTrackerServerState("127.0.0.1", port, port + 1, silent=True)
    connection.send(state.port)
    state.thread.join()


def _serve(key: str, port: int) -> None:
    os.setsid()
    from tvm.rpc import server

    own = _free_port()
    options = {"tracker_addr": ("127.0.0.1", port), "key": key, "silent": True}
    server.PopenRPCServerState("127.0.0.1", own, own + 1, **options).thread.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    from fq_tvm.environment import import_tvm

    for name in ("tvm.rpc.server", "tvm.rpc.tracker"):  # once for all of them, which are forked
        import_tvm(name)
    import tvm_ffi

    tvm_ffi.register_global_func("lab.sleep", time.sleep)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    tracker = fork.Process(target=_track, args=(theirs,))
    tracker.start()
    port = ours.recv()
    servers = [fork.Process(target=_serve, args=(key, port)) for key in sys.argv[1:]]
    for server in servers:
        server.start()
    print(port, *(server.pid for server in servers), flush=True)
    sys.stdin.read()
    for process in (*servers, tracker):
        process.kill()


if __name__ == "__main__":
    main()

"""Threads that kernels run on: right shares, and nothing that hangs, whatever the process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from fq_tvm import FqError, environment

SHARED = """
import ctypes, json, os, sys, threading, time
from fq_tvm.launch import threads

class Group(ctypes.Structure):
    _fields_ = [("sync", ctypes.c_void_p), ("tasks", ctypes.c_int32)]

Lambda = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(Group), ctypes.c_void_p)
layers = threads.prepare()
Launch = ctypes.CFUNCTYPE(ctypes.c_int, Lambda, ctypes.c_void_p, ctypes.c_int)
launch = Launch(layers.launcher)

def spread(inside=lambda task: None, status=lambda task: 0):
    '''Launch; return the numbers of the shares that ran, each with its thread, how many there were, and the status.'''
    ran, of = [], set()
    def share(task, group, closure):
        of.add(group.contents.tasks)
        ran.append((task, threading.get_native_id()))
        inside(task)
        return status(task)
    result = launch(Lambda(share), None, 0)
    assert len(of) == 1, of
    return sorted(ran), of.pop(), result

def spin(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass

def whole(seen):
    '''Whether every share ran, once.'''
    ran, of, status = seen
    return [task for task, _ in ran] == list(range(of)) and status == 0

def native():
    return len(os.listdir("/proc/self/task"))

def settled():
    '''Threads once those that were joined are gone from the kernel's list, too.'''
    time.sleep(0.2)
    return native()
"""


def run(code: str, arguments: Sequence[str] = (), **variables: str) -> dict:
    """Run code in a process of its own after SHARED; return what it prints, as JSON."""
    environ = {**os.environ, "FQ_TVM_NUM_THREADS": "4", "FQ_TVM_THREADING_LAYER": "own", **variables}
    done = subprocess.run(
        [sys.executable, "-c", SHARED + textwrap.dedent(code), *arguments],
        capture_output=True, text=True, timeout=300, env=environ, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "{}")


@pytest.mark.parametrize("layer", ["own", "serial", "auto"])
def test_every_share_runs_once(layer):
    seen = run(
        """
        threads.ready()
        wholes = [whole(spread()) for _ in range(300)]
        print(json.dumps({"whole": all(wholes), "counts": [layers.count(i) for i in range(3)], "threads": native()}))
        """,
        FQ_TVM_THREADING_LAYER=layer,
    )
    assert seen["whole"]
    assert sum(seen["counts"]) == 300 and seen["counts"][2] == 0
    assert (seen["counts"][1] == 0) == (layer == "serial")


def test_helpers_take_shares():
    seen = run(
        """
        threads.ready()
        most, until = 1, time.perf_counter() + 60
        while most == 1 and time.perf_counter() < until:
            most = len({thread for _, thread in spread(lambda task: spin(0.002))[0]})
        print(json.dumps({"most": most}))
        """
    )
    assert seen["most"] > 1 or len(os.sched_getaffinity(0)) == 1


def test_a_share_that_fails_is_reported():
    seen = run(
        """
        threads.ready()
        results = [spread(status=lambda task: -1 if task == failing else 0) for failing in range(16)]
        print(json.dumps({"codes": [r[2] for r in results], "all": [len(r[0]) == r[1] for r in results],
                          "after": whole(spread()), "of": [r[1] for r in results]}))
        """
    )
    assert all(seen["all"]) and seen["after"]
    assert all(code == -1 for code, of, i in zip(seen["codes"], seen["of"], range(16), strict=True) if i < of)


def test_a_launch_in_a_launch_runs_alone():
    seen = run(
        """
        threads.ready()
        inner = []
        outer = spread(lambda task: inner.append(spread()))
        print(json.dumps({"outer": whole(outer), "inner": [whole(i) and i[1] == 1 for i in inner], "of": outer[1]}))
        """
    )
    assert seen["outer"] and all(seen["inner"]) and len(seen["inner"]) == seen["of"]


def test_a_forked_child_launches():
    """Also one whose parent is in the middle of a launch, and a child of a child."""
    seen = run(
        """
        threads.ready()
        def in_child():
            child = os.fork()
            if not child:
                ok = all(whole(spread()) for _ in range(20))
                started = layers.count(3)
                if os.environ.pop("again", None):
                    ok = ok and in_child()
                os._exit(0 if ok and started == 3 else 1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        before = in_child()
        spread()
        os.environ["again"] = "1"
        after = in_child()
        stop, busy = threading.Event(), []
        def other():
            while not stop.is_set():
                busy.append(whole(spread(lambda task: time.sleep(0.001))))
        thread = threading.Thread(target=other)
        thread.start()
        while not busy: pass
        during = [in_child() for _ in range(10)]
        stop.set(); thread.join()
        print(json.dumps({"ok": before and after and all(during) and all(busy) and whole(spread())}))
        """
    )
    assert seen["ok"]


def test_a_limit_on_threads_is_lived_with():
    """The first launch may start no thread at all; root is not limited, so this needs another user."""
    seen = run(
        """
        import resource
        if os.getuid() == 0:
            os.setgid(65534); os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
        threads.ready()
        wholes = [whole(spread()) for _ in range(20)]
        print(json.dumps({"whole": all(wholes), "helpers": layers.count(3), "native": native()}))
        """
    )
    assert seen["whole"] and seen["helpers"] == 0


def test_many_threads_share_one_pool():
    seen = run(
        """
        def call(times, out):
            threads.ready()
            out.extend(whole(spread()) for _ in range(times))
        out, start = [], native()
        call(1, out)
        for _ in range(1000):
            thread = threading.Thread(target=call, args=(1, out)); thread.start(); thread.join()
        after_short = settled() - start
        at_once = [threading.Thread(target=call, args=(5, out)) for _ in range(200)]
        for thread in at_once: thread.start()
        for thread in at_once: thread.join()
        print(json.dumps({"whole": all(out), "launches": len(out), "more": [after_short, settled() - start]}))
        """
    )
    assert seen["whole"] and seen["launches"] == 2001
    assert max(seen["more"]) <= 3


def test_threads_at_their_first_launch_load_a_kernel_once():
    seen = run(
        """
        import numpy as np, fq_tvm
        from fq_tvm.launch import kernel
        load, loaded = kernel.load, []
        kernel.load = lambda *code: loaded.append(len(code)) or load(*code)
        x, scale, zero = np.ones((64, 4096), np.float32), np.full(64, 0.5, np.float32), np.zeros(64, np.int32)
        gate, out = threading.Barrier(64), []
        def call():
            gate.wait()
            out.append(fq_tvm.fake_quantize_per_channel_affine_cachemask(x, scale, zero, 0, -128, 127)[0])
        at_once = [threading.Thread(target=call) for _ in range(64)]
        for thread in at_once: thread.start()
        for thread in at_once: thread.join()
        print(json.dumps({"right": len(out) == 64 and all((o == 1).all() for o in out), "loaded": sorted(loaded)}))
        """
    )
    assert seen == {"right": True, "loaded": [1, 2]}  # without threads, and with what attaches them


def test_many_streams_share_one_pool():
    """200 aclrt streams launch in parallel, at the same time: each has a thread of its own, and all have one pool."""
    seen = run(
        """
        import numpy as np, fq_tvm
        from fq_tvm import aclnn
        x, scale, zero = np.ones((64, 4096), np.float32), np.full(64, 0.5, np.float32), np.zeros(64, np.int32)
        def call(out, mask):
            status, _, executor = aclnn.aclnnFakeQuantPerChannelAffineCachemaskGetWorkspaceSize(
                x, scale, zero, 0, -128, 127, out, mask)
            assert status == 0
            return executor
        def results(): return np.empty_like(x), np.empty(x.shape, bool)
        start, made = native(), []
        for _ in range(200):
            status, stream = aclnn.aclrtCreateStream()
            assert status == 0
            made.append((stream, results()))
        for _ in range(3):
            for stream, (out, mask) in made:
                assert aclnn.aclnnFakeQuantPerChannelAffineCachemask(None, 0, call(out, mask), stream) == 0
        for stream, _ in made:
            assert aclnn.aclrtSynchronizeStream(stream) == 0
        during = settled() - start
        for stream, _ in made:
            assert aclnn.aclrtDestroyStream(stream) == 0
        print(json.dumps({"right": all((out == 1).all() and mask.all() for _, (out, mask) in made),
                          "during": during, "after": settled() - start, "launches": layers.count(threads.OWN)}))
        """
    )
    assert seen["right"]
    assert seen["launches"] > 0 and seen["during"] <= 203 and seen["after"] <= 3


def test_the_process_ends_while_helpers_look_for_work():
    for _ in range(3):
        run("threads.ready()\nfor _ in range(50): spread()")
        run("threads.ready()\nthreading.Thread(target=lambda: [spread() for _ in range(10000)], daemon=True).start()")


def test_signals_go_to_python_not_to_helpers():
    seen = run(
        """
        import signal
        threads.ready()
        spread()
        mine = set(os.listdir("/proc/self/task"))
        def blocked(task):
            status = open(f"/proc/self/task/{task}/status").read()
            return int(status.split("SigBlk:")[1].split()[0], 16)
        masks = [blocked(task) for task in mine if int(task) != os.getpid()]
        ours = [m for m in masks if m >> (signal.SIGINT - 1) & 1 and m >> (signal.SIGTERM - 1) & 1]
        inner = []
        signal.signal(signal.SIGALRM, lambda *_: inner.append(whole(spread())))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        outer = [whole(spread(lambda task: time.sleep(0.0005))) for _ in range(50)]
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"ours": len(ours), "outer": all(outer), "inner": all(inner) and len(inner) > 0}))
        """
    )
    assert seen["ours"] == 3 and seen["outer"] and seen["inner"]


def test_layers_are_chosen_by_the_environment_and_the_door(monkeypatch):
    monkeypatch.setenv("FQ_TVM_THREADING_LAYER", "tbb")
    with pytest.raises(FqError, match="FQ_TVM_THREADING_LAYER is 'tbb'; expected one of auto, openmp, own, serial"):
        environment.threading_layer()
    seen = run(
        """
        import torch
        spread_over = [threads.ready(), threads.ready(True), threads.ready()]
        print(json.dumps({"ready": spread_over, "now": threads.describe(), "threads": layers.threads}))
        """,
        FQ_TVM_THREADING_LAYER="auto",
    )
    assert seen["ready"] == [True, True, True]
    assert seen["now"].startswith("auto: the library's own; the OpenMP team") and seen["threads"] == 4
    assert not run("print(json.dumps({'ready': threads.ready()}))", FQ_TVM_THREADING_LAYER="serial")["ready"]
    assert not run("print(json.dumps({'ready': threads.ready()}))", FQ_TVM_NUM_THREADS="1")["ready"]


def test_openmp_is_torchs():
    """Its threads, as many as torch says; from a forked child it is left alone."""
    seen = run(
        """
        import torch
        torch.set_num_threads(3)
        threads.ready(True)
        three = spread()
        torch.set_num_threads(1)
        one = spread()
        torch.set_num_threads(2)
        two = spread()
        child = os.fork()
        if not child:
            ok = whole(spread()) and layers.count(2) == counts if (counts := layers.count(2)) else False
            os._exit(0 if ok else 1)
        child_ok = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(json.dumps({"of": [three[1], one[1], two[1]], "whole": all(map(whole, (three, one, two))),
                          "child": child_ok, "path": threads.describe()}))
        """,
        FQ_TVM_THREADING_LAYER="openmp",
    )
    assert seen["of"] == [3, 1, 2] and seen["whole"] and seen["child"]
    assert "libgomp" in seen["path"]


def test_a_child_of_a_process_with_torch_does_not_touch_libgomp():
    seen = run(
        """
        import torch
        torch.set_num_threads(2)
        torch.zeros(4_000_000).add_(1)
        child = os.fork()
        if not child:
            threads.ready(True)
            ok = all(whole(spread()) for _ in range(30)) and layers.count(2) == 0
            os._exit(0 if ok and "forked" in threads.describe() else 1)
        print(json.dumps({"child": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}))
        """,
        FQ_TVM_THREADING_LAYER="auto",
    )
    assert seen["child"] == 0


def test_the_team_is_used_while_it_is_awake():
    """Right after an operator of torch; not after a pause in which its threads went to sleep."""
    seen = run(
        """
        import torch
        torch.set_num_threads(2)
        x, nothing = torch.zeros(4_000_000), Lambda(lambda task, group, closure: 0)
        threads.ready(True)
        def served(before):
            for _ in range(20):
                before()
                count = layers.count(2)
                assert launch(nothing, None, 0) == 0
                yield layers.count(2) - count
        # others may keep the team from its CPUs; then it is right not to be used
        awake, until = 0, time.perf_counter() + 60
        while not awake and time.perf_counter() < until:
            awake = sum(served(lambda: x.add_(1)))
            sum(served(lambda: None))
        asleep = sum(served(lambda: time.sleep(0.1)))
        print(json.dumps({"awake": awake, "asleep": asleep}))
        """,
        FQ_TVM_THREADING_LAYER="auto",
    )
    assert seen["awake"] > 0 and seen["asleep"] <= 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is no CPU to go to")
def test_no_thread_is_left_on_fewer_cpus_than_before():
    """Helpers are woken off the caller's CPU, by helpers, too, and fetched to it from one that is taken."""
    seen = run(
        """
        import subprocess
        import numpy as np, fq_tvm
        x, scale = np.ones((1024, 1024), np.float32), np.ones(1024, np.float32)
        before = os.sched_getaffinity(0)
        layers.select(threads.OWN)
        zeros = np.zeros(1024, np.int32)
        call = lambda: fq_tvm.fake_quantize_per_channel_affine_cachemask(x, scale, zeros, 0, -128, 127)
        call()
        settled()
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in before]
        kept = []
        for _ in range(200):
            call()
            kept.append(all(os.sched_getaffinity(int(t)) == before for t in os.listdir("/proc/self/task")))
        for process in others: process.kill()
        print(json.dumps(kept.count(True)))
        """,
        FQ_TVM_NUM_THREADS="8",  # with many, helpers wake others while the caller fetches those
    )
    assert seen == 200


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="takes a CPU from helpers that have two")
def test_helpers_keep_to_the_cpus_that_they_are_given():
    """Helpers leave the caller's CPU, but never for one that somebody took from them since they started."""
    seen = run(
        """
        threads.ready()
        layers.select(threads.OWN)
        first, second = sorted(os.sched_getaffinity(0))[:2]
        def launches(caller, count):
            os.sched_setaffinity(0, {caller})
            for _ in range(count):
                assert whole(spread(lambda task: spin(1e-4)))
                time.sleep(1e-3)
        for caller in (first, second) * 5: launches(caller, 20)
        own = [int(t) for t in os.listdir("/proc/self/task") if int(t) != os.getpid()]
        for thread in own: os.sched_setaffinity(thread, {second})
        for caller in (first, second) * 5: launches(caller, 20)
        kept = [sorted(os.sched_getaffinity(thread)) for thread in own]
        print(json.dumps({"helpers": len(own), "kept": kept, "second": second}))
        """
    )
    assert seen["helpers"] > 0
    assert all(cpus == [seen["second"]] for cpus in seen["kept"])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="stalls helpers on a CPU that the caller does not use")
@pytest.mark.parametrize("scheduling", ["real-time", "other"])
def test_the_caller_does_not_wait_for_stalled_helpers(scheduling):
    """Helpers may run on one CPU only, where somebody else runs all the time."""
    seen = run(
        """
        import subprocess, statistics
        import numpy as np, fq_tvm
        x, scale = np.ones((1024, 1024), np.float32), np.ones(1024, np.float32)
        args = x, scale, np.zeros(1024, np.int32), 0, -128, 127
        out, mask = np.empty_like(x), np.empty(x.shape, bool)
        call = lambda: fq_tvm.fake_quantize_per_channel_affine_cachemask(*args, out=out, mask=mask)
        before = set(os.listdir("/proc/self/task"))
        call()
        layers.select(threads.OWN)
        for _ in range(20): call()
        first, second = sorted(os.sched_getaffinity(0))[:2]
        own = [int(t) for t in os.listdir("/proc/self/task") if t not in before]
        assert len(own) >= layers.count(3) > 0
        for thread in own: os.sched_setaffinity(thread, {second})
        os.sched_setaffinity(0, {first})
        how = "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))" if sys.argv[-1] == "real-time" else "0"
        busy = f"import os, time; os.sched_setaffinity(0, {{{second}}}); {how}; print(flush=True)\\n"
        process = subprocess.Popen([sys.executable, "-c", busy + "while time.process_time() < 20: pass"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started = process.stdout.readline()
        times = {threads.SERIAL: [], threads.OWN: []}
        for _ in range(300 if started else 0):
            for layer, spent in times.items():
                layers.select(layer)
                start = time.perf_counter(); call(); spent.append(time.perf_counter() - start)
        process.kill()
        print(json.dumps({"started": bool(started), "times": [statistics.median(t) for t in times.values() if t]}))
        """,
        arguments=[scheduling],
    )
    if not seen["started"]:
        pytest.skip("real-time scheduling is not allowed here")
    serial, own = seen["times"]
    assert own < 1.5 * serial

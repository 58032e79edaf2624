"""Everything at once for as long as one likes: results are compared, and the process holds no more than it held.

    python tests/soak.py --seconds 600
    python tests/soak.py --calls 100000

The first has threads, forks, DataLoaders, streams, signals, caches that go and little memory; the second calls of
random shapes, dtypes and layouts in one thread.  Prints what was done and held; the status is 0 if every result was
right and nothing grew.  The cache is one of its own, which begins as a copy of that of FQ_TVM_CACHE_DIR.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import errno
import faulthandler
import gc
import mmap
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from support import assert_same, expected, make

import fq_tvm
from fq_tvm import aclnn
from fq_tvm.launch import registry

DTYPES = (("float32", "float32"), ("float16", "float32"))
RANGES = ((-128, 127), (0, 255), (-8, 7), (-(2**31), 2**31 - 1))
KERNELS = 12
"""That calls need: four classes of each dtype, and of float32 on a wide range, which float16 is spared."""

Job = Callable[[np.random.Generator], None]

HANG = 120
"""Seconds after which a child counts as hanging, more than the library itself waits; it says where it stands."""

SLACK = {"MB": 1.1, "threads": 1.0, "descriptors": 1.0, "mappings": 1.05}
"""How many times as much as early on may be held at the end."""

CALLS_SLACK = {**SLACK, "MB": 1.05}
"""The same of one thread, whose memory nobody else breaks into pieces."""

M_ARENA_MAX = -8


class Wrong(Exception):
    """A result or the end of a process that must not be."""


def arguments(rng: np.random.Generator, large: bool = False, some: int = 4) -> tuple[Any, ...]:
    """Draw what to call: x of any layout, scale, zero point, axis and range; of a few kernels if ``some`` is small."""
    rank = int(rng.integers(1, 5))
    shape = tuple(int(n) for n in rng.integers(1, {1: 3000, 2: 90, 3: 20, 4: 9}[rank] + 1, rank))
    if large:
        shape = (int(rng.choice([512, 1024])), 2048)  # from 2^20 elements on, results of torch lie in memory of a pool
    axis = int(rng.integers(-len(shape), len(shape)))
    dtype, scale_dtype = DTYPES[rng.integers(len(DTYPES) if some > 2 else 1)]
    low, high = RANGES[rng.integers(min(some, 4 if dtype == "float32" else 3))]
    if large:
        scale = rng.random(shape[axis], np.float32) + np.float32(0.1)
        x, zero_point = rng.random(shape, np.float32) * 300, rng.integers(-5, 5, len(scale)).astype(np.int32)
        return x, scale, zero_point, axis, low, high
    x, scale, zero_point = make(rng, shape, axis, dtype, scale_dtype, (low, high))
    layout = rng.integers(4)
    if layout == 1:
        x = np.asfortranarray(x)
    elif layout == 2:
        x = np.repeat(x, 2, -1)[..., ::2]
    elif layout == 3:
        x = np.ascontiguousarray(x[::-1])[::-1]
    return x, scale, zero_point, axis, low, high


def compare(got: Any, given: tuple[Any, ...]) -> None:
    assert_same(tuple(np.asarray(g) for g in got), expected(*given))


def call_numpy(rng: np.random.Generator) -> None:
    given = arguments(rng)
    compare(fq_tvm.fake_quantize_per_channel_affine_cachemask(*given), given)


def call_torch(rng: np.random.Generator) -> None:
    import torch

    import fq_tvm.torch as ft

    for large in (False, False, True):
        given = arguments(rng, large)
        x, scale, zero_point = (torch.from_numpy(np.ascontiguousarray(a)) for a in given[:3])
        wanted = (np.ascontiguousarray(given[0]), *given[1:])
        result = ft.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, *given[3:])
        compare([r.numpy() for r in result], wanted)


def call_stream(rng: np.random.Generator) -> None:
    status, stream = aclnn.aclrtCreateStream()
    if stream is None:
        raise aclnn.AclnnError(status, aclnn.aclGetRecentErrMsg())
    for _ in range(4):
        given = arguments(rng)
        out, mask = np.empty_like(given[0]), np.empty_like(given[0], bool)
        size, executor = aclnn.get_workspace_size(*given, out, mask)
        aclnn.execute(bytearray(size), size, executor, stream)
        if status := aclnn.aclrtSynchronizeStream(stream):
            raise Wrong(f"{status}: {aclnn.aclGetRecentErrMsg()}")
        compare((out, mask), given)
    if status := aclnn.aclrtDestroyStream(stream):
        raise Wrong(f"{status}: {aclnn.aclGetRecentErrMsg()}")


def in_child(work: Callable[[], None]) -> None:
    """Do work in a forked child; what it fails with, or where it hangs, is printed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    until, ended = time.monotonic() + HANG, 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        if not ended and time.monotonic() > until:
            for number in (signal.SIGUSR1, signal.SIGKILL):
                os.kill(child, number)
                time.sleep(1)
        time.sleep(0.01)
    if status:
        raise Wrong(f"a forked child ended with {os.waitstatus_to_exitcode(status)}; see above")


def fork(rng: np.random.Generator) -> None:
    def work() -> None:
        for call in (call_numpy, call_torch, call_numpy):
            call(rng)

    in_child(work)


def fork_with_little_memory(rng: np.random.Generator) -> None:
    """Right, or an error that says what there was not: never another end."""
    more = int(rng.choice([16, 64, 256])) << 20

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory()[0] + more,) * 2)
        for call in (call_torch, call_stream) * 3:
            try:
                call(rng)
            except MemoryError:
                pass
            except (OSError, RuntimeError, aclnn.AclnnError) as error:
                lacking = getattr(error, "errno", None) == errno.ENOMEM or "memory" in str(error).lower()
                if not lacking and not isinstance(error, fq_tvm.BuildError):
                    raise

    in_child(work)


class Items:
    """A data set whose items are quantized by the worker."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        given = arguments(np.random.default_rng([self.seed, index]), large=index % 2 == 1)
        return given, fq_tvm.fake_quantize_per_channel_affine_cachemask(*given)


def load(rng: np.random.Generator) -> None:
    from torch.utils.data import DataLoader

    items: Any = Items(int(rng.integers(2**31)))
    loader = DataLoader(
        items,
        batch_size=None,
        num_workers=2,
        collate_fn=list,
        timeout=HANG,
        multiprocessing_context="fork",
    )
    batches = iter(loader)
    try:
        for given, result in batches:
            compare(result, given)
    except RuntimeError:
        for worker in getattr(batches, "_workers", ()):  # those that hang say where
            os.kill(worker.pid, signal.SIGUSR1)
        time.sleep(1)
        raise


def rebuild(rng: np.random.Generator) -> None:
    """Throw every kernel away and call again, which loads or, where another process cleared the cache, builds."""
    registry._kernels.clear()
    registry.launches.clear()
    for _ in range(10):
        given = arguments(rng, some=2)
        compare(fq_tvm.fake_quantize_per_channel_affine_cachemask(*given), given)
    time.sleep(0.5)


def clean(rng: np.random.Generator) -> None:
    what = [["prune", "--max-size", "1"], ["prune", "--older-than", "0"], ["list"], ["clear"]][
        rng.choice(4, p=[0.3, 0.2, 0.3, 0.2])
    ]
    done = subprocess.run([sys.executable, "-m", "fq_tvm", "cache", *what], capture_output=True, text=True)
    if done.returncode:
        raise Wrong(f"cache {what[0]} ended with {done.returncode}: {done.stderr}")
    time.sleep(1)


JOBS = (call_numpy, call_torch, call_stream, fork, fork_with_little_memory, load, rebuild, clean)


def memory() -> tuple[int, int]:
    """Bytes of addresses and of memory that this process has."""
    size, resident, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return size * mmap.PAGESIZE, resident * mmap.PAGESIZE


def held(settle: bool = True) -> dict[str, float]:
    """What this process holds: memory, threads, descriptors, mappings; ``settle`` gives back what waits to be used."""
    if settle:
        gc.collect()
        registry.launches.clear()
        if "fq_tvm.torch.results" in sys.modules:
            sys.modules["fq_tvm.torch.results"].pool.clear()
        ctypes.CDLL(None).malloc_trim(0)
    return {
        "MB": memory()[1] / 1e6,
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
    }


@contextmanager
def alarms(rng: np.random.Generator, done: collections.Counter[str], failures: list[str]) -> Iterator[None]:
    """Let a signal handler call the library, in the middle of whatever the main thread does, which calls it, too."""

    def handle(*_: Any) -> None:
        with guarded("signal", done, failures):
            call_numpy(rng)
        signal.setitimer(signal.ITIMER_REAL, 0.003)  # only now, or handlers of a busy machine would nest without end

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.003)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def guarded(name: str, done: collections.Counter[str], failures: list[str]) -> Iterator[None]:
    try:
        yield
        done[name] += 1
    except Exception:
        failures.append(f"{name}: {traceback.format_exc()}")


def one_round(
    seconds: float, seed: list[int], jobs: Sequence[Job], done: collections.Counter[str], failures: list[str]
) -> None:
    """Do every job in a thread of its own until time is up, and calls and signals in this one."""
    faulthandler.dump_traceback_later(seconds + 2 * HANG, exit=True)
    until = time.monotonic() + seconds

    def repeat(number: int, job: Callable[[np.random.Generator], None]) -> None:
        rng = np.random.default_rng([*seed, number])
        while time.monotonic() < until and len(failures) < 10:
            with guarded(job.__name__, done, failures):
                job(rng)

    threads = [threading.Thread(target=repeat, args=each, name=each[1].__name__) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    with alarms(np.random.default_rng([*seed, 98]), done, failures):
        repeat(99, call_numpy)
    for thread in threads:
        thread.join()
    faulthandler.cancel_dump_traceback_later()


def warm_up(rng: np.random.Generator) -> None:
    """Import all there is: the locks of Python's imports are no child's own, so a fork in the middle of one hangs."""
    import torch.utils.data

    faulthandler.register(signal.SIGUSR1)  # of children, too: dump_traceback_later has locks that no child can have
    torch.set_num_threads(1)

    registry.compiler("build"), registry.compiler("llvm")
    while len({spec for spec, *_ in registry._kernels}) < KERNELS:
        call_numpy(rng)
    for job in (call_torch, call_stream):
        job(rng)


def soak(seconds: float, seed: int, jobs: Sequence[Job] = JOBS) -> bool:
    """Do everything at once; what a sample early on held is what the end is compared with."""
    done: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    rounds = max(4, min(int(seconds / 5), 40))
    samples: list[dict[str, float]] = []
    warm_up(np.random.default_rng(seed))
    for number in range(rounds):
        if failures:
            break
        one_round(seconds / rounds, [seed, number], jobs, done, failures)
        samples.append(held())
        print(f"round {number + 1} of {rounds}: {written(samples[-1])}", flush=True)
    print(", ".join(f"{count} {name}" for name, count in sorted(done.items())))
    for failure in failures:
        print(failure)
    if missing := {job.__name__ for job in jobs} - done.keys():
        print(f"never done: {', '.join(sorted(missing))}")
    return flat(samples[(len(samples) - 1) // 2], samples[-1], SLACK) and not failures and not missing


def calls(count: int, seed: int) -> bool:
    """Call on random shapes, dtypes and layouts; only the launches that are remembered may take memory."""
    rng = np.random.default_rng(seed)
    warm_up(rng)
    early, most = held(False), 0
    for number in range(count):
        call_numpy(rng)
        most = max(most, len(registry.launches))
        if (number + 1) % (count // 5) == 0:
            now = held(False)
            early = now if number < count // 5 else early  # the first of the five
            print(f"{number + 1} calls, {len(registry.launches)} launches: {written(now)}", flush=True)
    print(f"most launches at a time: {most} of {registry.MAX_LAUNCHES}")
    return flat(early, held(False), CALLS_SLACK) and most <= registry.MAX_LAUNCHES


def written(sample: dict[str, float]) -> str:
    return ", ".join(f"{value:.4g} {name}" for name, value in sample.items())


def flat(early: dict[str, float], late: dict[str, float], most: dict[str, float]) -> bool:
    grown = [name for name, slack in most.items() if late[name] > early[name] * slack]
    print(f"early: {written(early)}\nlate:  {written(late)}")
    for name in grown:
        print(f"grown: {name}, {late[name] / early[name]:.2f} times as many")
    return not grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calls", type=int, help="instead: so many calls in one thread")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    names = [job.__name__ for job in JOBS]
    parser.add_argument("--without", action="append", default=[], choices=names, help="leave a job out")
    options = parser.parse_args()
    jobs = [job for job in JOBS if job.__name__ not in options.without]
    print(f"seed {options.seed}", flush=True)
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)  # what each thread's arena keeps is noise
    with tempfile.TemporaryDirectory() as folder:
        if given := os.environ.get("FQ_TVM_CACHE_DIR"):
            shutil.copytree(given, folder, dirs_exist_ok=True)
        os.environ["FQ_TVM_CACHE_DIR"] = folder
        good = calls(options.calls, options.seed) if options.calls else soak(options.seconds, options.seed, jobs)
    print("ok" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

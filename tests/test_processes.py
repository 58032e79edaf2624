"""Many processes, killed processes, and machines that lack things: each a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fq_tvm.store.cache import Store

CALL = """
import numpy as np, fq_tvm, sys, json, warnings
from fq_tvm.reference import fake_quant
rng = np.random.default_rng(0)
x = (rng.random((64, 300), np.float32) - 0.5) * 300
s, z = rng.random(300, np.float32) + 0.1, rng.integers(-5, 5, 300).astype(np.int32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        out, mask = fq_tvm.fake_quantize_per_channel_affine_cachemask(x, s, z, 1, -128, 127)
want = fake_quant(x, s, z, 1, -128, 127)
same = bool((out.view("u4") == want[0].view("u4")).all() and (mask == want[1]).all())
print(json.dumps({"same": same, "warnings": [str(w.message) for w in caught],
                  "tvm": sorted(m for m in sys.modules if m == "tvm" or m.startswith("tvm."))}))
"""

STRIDED = CALL.replace("(64, 300)", "(64, 600)").replace("* 300\n", "* 300\nx = x[:, ::2]\n")
"""The same by the kernel of strided tensors, which is built in a third of the time of others."""


def start(cache: Path | None, code: str = CALL, **options) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FQ_TVM_")}
    if cache is not None:
        environment["FQ_TVM_CACHE_DIR"] = str(cache)
    for name, value in options.pop("environment", {}).items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return subprocess.Popen(
        [sys.executable, "-c", code, *options.pop("arguments", ())],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    result = json.loads(out)
    assert result["same"]
    return result


def call(cache: Path | None, **options) -> dict:
    return finish(start(cache, **options))


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Path:
    """A cache that a cold process filled."""
    cache = tmp_path_factory.mktemp("warm")
    assert "tvm" in call(cache)["tvm"]
    return cache


def test_a_warm_process_does_not_import_the_compiler(warm):
    result = call(warm)
    assert result["tvm"] == []
    assert result["warnings"] == []


def test_sixteen_processes_on_one_cold_cache(tmp_path):
    processes = [start(tmp_path) for _ in range(16)]
    for result in [finish(p) for p in processes]:
        assert result["warnings"] == []
    store = Store(tmp_path)
    assert len(store.paths()) == len(list(store.entries())) == 2  # the kernel, and the threads to run it on
    assert not list((tmp_path / "v1" / "unpublished").iterdir())
    assert call(tmp_path)["tvm"] == []


def test_kill_in_the_middle_of_a_build(tmp_path):
    """Kill at six moments from the start of the compiler to after publication; the next process works."""
    forks = """
import fq_tvm.codegen.build, fq_tvm.store.cache, numpy, os, signal, sys, time
rename = os.rename
os.rename = lambda *a: (time.sleep(0.15), rename(*a))  # widens the last window
for delay in sys.stdin:  # each child begins with what was imported once
    if not (child := os.fork()):
        exec(sys.argv[1])
        os._exit(0)
    time.sleep(float(delay))
    os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)
"""
    rng = random.Random(0)
    interrupted = 0
    with start(tmp_path, forks, arguments=[CALL], stdin=subprocess.PIPE) as process:
        for _ in range(6):
            print(rng.uniform(0, 1.2), file=process.stdin, flush=True)
            assert process.stderr.readline() in ("0\n", f"-{signal.SIGKILL}\n")
            # published whole or not at all
            assert [e.path for e in Store(tmp_path).entries()] == Store(tmp_path).paths()
            if len(Store(tmp_path).paths()) < 2:
                interrupted += 1
            else:
                Store(tmp_path).clear()
    assert interrupted >= 2
    assert call(tmp_path)["warnings"] == []
    assert call(tmp_path)["tvm"] == []


def test_kill_while_publishing(tmp_path):
    code = STRIDED.replace(
        "rng =", "import os, signal\nos.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\nrng =", 1
    )
    process = start(tmp_path, code)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert list((tmp_path / "v1" / "unpublished").iterdir())
    assert Store(tmp_path).paths() == []
    assert call(tmp_path, code=STRIDED)["warnings"] == []
    assert len(list(Store(tmp_path).entries())) == 2


def without_override() -> None:
    """Take the right to ignore permissions from a process of root."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def test_a_read_only_cache_that_has_the_kernel(warm):
    folders = [warm, *(p for p in warm.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        result = call(warm, preexec_fn=without_override)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert result["warnings"] == []
    assert result["tvm"] == []


def test_a_read_only_cache_that_lacks_the_kernel(tmp_path):
    tmp_path.chmod(0o555)
    try:
        result = call(tmp_path, code=STRIDED, preexec_fn=without_override)
    finally:
        tmp_path.chmod(0o755)
    assert len(result["warnings"]) == 1
    assert "FQ_TVM_CACHE_DIR" in result["warnings"][0]
    assert not list(tmp_path.iterdir())


def test_a_cache_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert len(call(tmp_path / "file", code=STRIDED)["warnings"]) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_no_home(tmp_path):
    environment = {"HOME": None, "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    result = call(None, code=STRIDED, environment=environment, cwd=tmp_path)
    assert result["warnings"] == []
    assert list(Store(tmp_path / "xdg" / "fq_tvm").entries())


def test_no_home_and_nobody(tmp_path):
    """No HOME, and a user without a passwd entry: there is no cache folder to find."""
    code = "import os\nos.path.expanduser = lambda p: p\n" + STRIDED
    result = finish(start(None, code, environment={"HOME": None, "XDG_CACHE_HOME": None}, cwd=tmp_path))
    assert not list(tmp_path.iterdir())
    assert result["same"]


def test_no_temporary_folder(tmp_path):
    """Not even one that can be asked for: what is built lies in memory until it is in the cache."""
    code = """
import sys
def audit(event, arguments):
    if event.startswith("tempfile.") or event == "open" and str(arguments[0]).startswith(("/tmp/fq", "/tmp/tmp")):
        raise FileNotFoundError(2, "No usable temporary directory found")
sys.addaudithook(audit)
"""
    result = finish(start(tmp_path, code + STRIDED, environment={"TMPDIR": str(tmp_path / "missing")}))
    assert result["warnings"] == []
    assert call(tmp_path, code=STRIDED)["tvm"] == []


def test_empty_path(tmp_path):
    assert call(tmp_path, code=STRIDED, environment={"PATH": ""})["warnings"] == []
    assert call(tmp_path, code=STRIDED, environment={"PATH": ""})["tvm"] == []


def test_any_working_directory(warm, tmp_path):
    assert call(warm, cwd=tmp_path)["tvm"] == []
    assert not list(tmp_path.iterdir())


def test_import_is_cheap_and_touches_nothing(tmp_path):
    code = """
import sys, json
import fq_tvm
print(json.dumps({"same": True, "modules": [m for m in ("numpy", "tvm", "tvm_ffi", "torch") if m in sys.modules]}))
"""
    assert finish(start(tmp_path, code))["modules"] == []
    assert not list(tmp_path.iterdir())


def test_a_forked_child_of_a_process_with_threads(warm):
    code = (
        CALL.replace("print(", "report = (", 1)
        + """
import os
big = np.ones((512, 2048), np.float32)
sb, zb = np.ones(512, np.float32), np.zeros(512, np.int32)
fq_tvm.fake_quantize_per_channel_affine_cachemask(big, sb, zb, 0, -128, 127)  # starts the pool
child = os.fork()
if child == 0:
    out, mask = fq_tvm.fake_quantize_per_channel_affine_cachemask(big, sb, zb, 0, -128, 127)
    os._exit(0 if (out == 1).all() and mask.all() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(report)
"""
    )
    finish(start(warm, code, environment={"FQ_TVM_NUM_THREADS": "2"}))


def test_the_pool_has_the_threads_asked_for(warm):
    """And TVM's own is neither started nor told anything."""
    code = """
import os, json, time, numpy as np, fq_tvm
big = np.ones((512, 2048), np.float32)
args = big, np.ones(512, np.float32), np.zeros(512, np.int32), 0, -128, 127
before = len(os.listdir("/proc/self/task"))
fq_tvm.fake_quantize_per_channel_affine_cachemask(*args)
time.sleep(0.2)  # those that loaded the kernel and were joined are in the system's list for a moment
more = len(os.listdir("/proc/self/task")) - before
left = [n for n in os.environ if n.startswith("TVM_")]
print(json.dumps({"same": more == 2 and left == []}))
"""
    finish(start(warm, code, environment={"FQ_TVM_NUM_THREADS": "3", "TVM_NUM_THREADS": None}))


def test_threads_leave_the_caller_where_it_was(warm):
    code = """
import os, json, time, numpy as np, fq_tvm
before = os.sched_getaffinity(0)
big = np.ones((512, 2048), np.float32)
fq_tvm.fake_quantize_per_channel_affine_cachemask(big, np.ones(512, np.float32), np.zeros(512, np.int32), 0, -128, 127)
time.sleep(0.2)  # as above
tasks = [os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task")]
print(json.dumps({"same": all(t == before for t in tasks) and "TVM_BIND_THREADS" not in os.environ}))
"""
    finish(start(warm, code, environment={"FQ_TVM_NUM_THREADS": "2"}))


def test_threads_share_the_work(warm):
    """As processor time, not speed: the calling thread does about half of what the process does.

    Where others keep helpers from the CPUs it does more, so it is asked until it was so once.
    """
    code = """
import json, os, time, numpy as np, fq_tvm
big = np.ones((512, 8192), np.float32)
args = big, np.ones(512, np.float32), np.zeros(512, np.int32), 0, -128, 127
out, mask = np.empty_like(big), np.empty_like(big, bool)
call = lambda: fq_tvm.fake_quantize_per_channel_affine_cachemask(*args, out=out, mask=mask)
call()
share, until = 1, time.perf_counter() + 60
while share >= 0.8 and time.perf_counter() < until:
    process, thread = time.process_time(), time.thread_time()
    for _ in range(10):
        call()
    share = (time.thread_time() - thread) / (time.process_time() - process)
print(json.dumps({"same": share < 0.8, "share": share}))
"""
    finish(start(warm, code, environment={"FQ_TVM_NUM_THREADS": "2", "TVM_NUM_THREADS": None}))


def test_bad_settings_are_named(warm):
    for name, value in [("FQ_TVM_NUM_THREADS", "many"), ("FQ_TVM_LOG", "loud"), ("FQ_TVM_TARGET", "znver99")]:
        code = CALL.replace("(64, 300)", "(640, 300)")
        process = start(warm, code, environment={name: value})
        _, err = process.communicate(timeout=300)
        assert process.returncode == 1
        assert f"{value!r}" in err.splitlines()[-1], err[-500:]


def test_torch_is_not_imported_for_who_does_not_use_it():
    """tvm-ffi would; and who imports it later, or meanwhile in another thread, has it as ever."""
    code = """
import sys, threading
import numpy as np, fq_tvm
x, scale, zero_point = np.ones((4, 8), "f4"), np.ones(8, "f4"), np.zeros(8, "i4")
call = lambda *args: fq_tvm.fake_quantize_per_channel_affine_cachemask(*args, 1, -8, 7)
{before}
want = call(x, scale, zero_point)
assert ("torch" in sys.modules) == {there}
{after}
import torch
for _ in range(2):
    out, mask = call(*map(torch.from_numpy, (x, scale, zero_point)))
    assert isinstance(out, torch.Tensor) and (out.numpy() == want[0]).all()
import fq_tvm.torch
tensors = map(torch.from_numpy, (x, scale, zero_point))
assert torch.equal(fq_tvm.torch.fake_quantize_per_channel_affine(*tensors, 1, -8, 7), out)
"""
    thread = "thread = threading.Thread(target=__import__, args=('torch',)); thread.start()"
    for before, there, after in (
        ("", False, ""),
        ("import torch", True, ""),
        (thread, "('torch' in sys.modules)", "thread.join(); assert 'torch' in sys.modules"),
    ):
        text = code.format(before=before, there=there, after=after)
        subprocess.run([sys.executable, "-c", text], check=True, timeout=120)

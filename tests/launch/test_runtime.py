"""Code is loaded, linked and unloaded within steps, for whose end forks wait."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest

from fq_tvm import interruption
from fq_tvm.launch import runtime

OBJECT = bytes(18) + runtime.ELF_MACHINES[platform.machine()].to_bytes(2, "little")
"""As much of an object as is looked at before it is loaded: what it is for."""


@pytest.fixture
def modules(monkeypatch):
    """Let a session be used that notes what is done outside of steps."""
    noted = []

    def note(what):
        noted.append((what, threading.get_ident() in interruption._steps))

    class Module:
        def get_function(self, name):
            note(f"get {name}")
            return name

        def __del__(self):
            note("unload")

    def load_module(code, cxx):
        note("load")
        return Module()

    session = SimpleNamespace(load_module=load_module)
    monkeypatch.setattr(runtime, "session", lambda: session)
    monkeypatch.setattr(runtime, "_unused", [])
    return noted


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_llvm_works_within_steps(modules, in_main_thread):
    def use():
        loaded = runtime.load(OBJECT)
        assert loaded("run_serial") == "run_serial"
        del loaded
        gc.collect()
        assert [what for what, _ in modules] == ["load", "get run_serial"]
        runtime.load(OBJECT)  # unloads what is used no more

    if in_main_thread:
        use()
    else:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert modules[:4] == [("load", True), ("get run_serial", True), ("unload", True), ("load", True)]


def test_memory_of_kernels_that_nobody_has_is_given_back(monkeypatch):
    freed = []

    class Module:
        def __del__(self):
            freed.append(1)

    monkeypatch.setattr(runtime, "session", lambda: SimpleNamespace(load_module=lambda code, cxx: Module()))
    for _ in range(5):
        runtime.load(OBJECT)
    assert len(freed) >= 4


def test_without_memory_for_the_compiler_a_build_is_refused(tmp_path):
    code = """
        import resource, numpy as np, fq_tvm
        here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + 200 * 2**20,) * 2)
        try:
            x, scale, zero_point = np.ones((4, 8), "f4"), np.ones(4, "f4"), np.zeros(4, "i4")
            fq_tvm.fake_quantize_per_channel_affine(x, scale, zero_point, 0, -8, 7)
        except fq_tvm.BuildError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "FQ_TVM_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "there is no memory for the compiler, which may want 256 MB" in done.stdout

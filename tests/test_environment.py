"""Environment variables with values that they may not have, and systems that refuse to answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from fq_tvm import FqError, environment

FOLDERS = {
    "FQ_TVM_CACHE_DIR": environment.cache_dir,
    "FQ_TVM_ARTIFACTS_DIR": environment.artifacts_dir,
    "FQ_TVM_AKG_HOME": environment.akg_home,
}

CALL = """
import os, sys, numpy as np, fq_tvm
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
os.environ[sys.argv[2]] = sys.argv[3]
try:
    fq_tvm.fake_quantize_per_channel_affine(np.ones((4, 8), "f4"), np.ones(4, "f4"), np.zeros(4, "i4"), 0, 0, 7)
except fq_tvm.FqError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("value", ["0", "-1", "+2", "abc", "1e3", "2.0", " ", "1025", "4294967298", "9" * 5000])
def test_numbers_of_threads_that_are_none(monkeypatch, value):
    monkeypatch.setenv("FQ_TVM_NUM_THREADS", value)
    with pytest.raises(FqError, match=r"FQ_TVM_NUM_THREADS is .*expected an integer from 1 to 1024$") as caught:
        environment.num_threads()
    assert type(caught.value) is FqError
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("value", ["1", "007", "1024"])
def test_numbers_of_threads(monkeypatch, value):
    monkeypatch.setenv("FQ_TVM_NUM_THREADS", value)
    assert environment.num_threads() == int(value)


@pytest.mark.parametrize("error", [OSError(1, "refused"), PermissionError(1, "refused"), AttributeError("not there")])
def test_a_system_that_does_not_tell_the_cpus_of_a_process(monkeypatch, error):
    def refuse(_):
        raise error

    monkeypatch.delenv("FQ_TVM_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    assert environment.num_threads() == (os.cpu_count() or 1)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("value", ["~nosuchuser", "~nosuchuser/c", "a\0b"])
def test_folders_that_lead_nowhere(monkeypatch, name, value):
    monkeypatch.setattr(os, "environ", {**os.environ, name: value})
    with pytest.raises(FqError, match=name) as caught:
        FOLDERS[name]()
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_below_a_home_that_there_is_not(monkeypatch, name):
    monkeypatch.setenv(name, "~/below no home")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(FqError, match=name):
        FOLDERS[name]()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_relative_folder_stays_where_it_was(monkeypatch, tmp_path, name):
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    monkeypatch.setenv(name, f"relative/{name}")
    before = FOLDERS[name]()
    assert before == tmp_path / "one" / "relative" / name
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").rmdir()
    assert FOLDERS[name]() == before


@pytest.mark.parametrize("name", ["FQ_TVM_CACHE_DIR", "FQ_TVM_ARTIFACTS_DIR"])
@pytest.mark.parametrize("value", ["relative", "~nosuchuser/c"])
def test_a_call_names_the_variable(tmp_path, name, value):
    """In a working folder that was deleted."""
    gone = tmp_path / "gone"
    gone.mkdir()
    ran = subprocess.run([sys.executable, "-c", CALL, gone, name, value], capture_output=True, text=True, timeout=120)
    assert ran.stderr.startswith(f"FqError: {name} is '{value}'"), ran.stderr[-500:]


@pytest.mark.parametrize("name", ["FQ_TVM_CACHE_DIR", "FQ_TVM_ARTIFACTS_DIR"])
def test_the_command_names_the_variable(name):
    given = {**os.environ, name: "~nosuchuser/c"}
    command = [sys.executable, "-m", "fq_tvm", "info"]
    ran = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120)
    assert ran.returncode
    assert "Traceback" not in ran.stderr
    assert name in ran.stderr


def test_an_import_of_tvm_changes_no_variable(monkeypatch):
    """Other threads would read it, or not, as it happens."""
    seen = []

    def import_module(name):
        seen.append(dict(os.environ))

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(environment.importlib, "import_module", import_module)
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    thread = threading.Thread(target=environment._import_without_torch, args=("tvm",))
    thread.start()
    thread.join()
    assert seen == [dict(os.environ)]

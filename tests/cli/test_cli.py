"""The command line as a whole: help, bad arguments, and how a process of it ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import fq_tvm


def run_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from fq_tvm.cli import main; status = main(['--help']);"
        "heavy = {'tvm', 'tvm_ffi', 'torch', 'numpy', 'tqdm', 'safetensors'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = run_process("-c", code)
    assert done.returncode == 0, done.stderr
    assert "TVM tensor expression" in done.stdout
    for name in ("info", "run", "build", "inspect", "bench", "tune", "cache", "FQ_TVM_CACHE_DIR", "exit status"):
        assert name in done.stdout


def test_module_is_the_command():
    done = run_process("-m", "fq_tvm", "run", "nowhere.npy")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "fq-tvm: error: cannot read nowhere.npy: No such file or directory\n"


@pytest.mark.parametrize("name", ["info", "run", "build", "inspect", "bench", "tune", "cache"])
def test_every_command_has_help(name, ask):
    text = ask(name, "--help")
    assert text.startswith(f"usage: fq-tvm {name}")
    assert "--json" in text


def test_version(ask):
    assert ask("--version") == f"fq_tvm {fq_tvm.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run"], "FILE"),
        (["run", "x.npy", "--axis", "one"], "invalid int value: 'one'"),
        (["run", "x.npy", "--symmetric", "--affine"], "not allowed with"),
        (["inspect", "--shape", "3,x"], "'3,x' is no list of integers"),
        (["inspect", "--shape", "3", "--dtype", "float8"], "'float8'"),
        (["inspect", "--shape", "3", "--kind", "ptx"], "'ptx'"),
        (["build", "-o", "d", "--all", "--spec", "dtype=float32"], "not allowed with"),
        (["cache", "burn"], "'burn'"),
    ],
)
def test_bad_arguments_are_one_line(arguments, said, refused):
    assert said in refused(*arguments)


def test_a_closed_pipe_is_no_error(cache_dir):
    code = "import sys; from fq_tvm.cli import main; sys.exit(main(['inspect', '--shape', '8', '--kind', 'asm']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) in (0, 141)


def test_an_unusable_cache_is_one_warning(files, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    done = run_process("-m", "fq_tvm", "run", str(files / "x.npy"), "-q")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("fq-tvm: warning: the kernel cache")

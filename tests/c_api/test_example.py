"""docs/embedding.md: its commands make its C program, which runs where there is nothing, and its Python runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fq_tvm import cli
from fq_tvm.c_api import build as builder
from fq_tvm.schedule import default_schedule

PAGE = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text()


def blocks(language: str, heading: str) -> list[str]:
    section = re.split(r"^## ", PAGE.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_c_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builder, "schedule_for", lambda spec, *_: default_schedule(spec))  # fewer objects to build
    [text], [commands] = blocks("c", "C and C++"), blocks("sh", "C and C++")
    Path("example.c").write_text(text)
    build, compile_, run = commands.splitlines()
    program, *arguments = shlex.split(build)
    assert program == "fq-tvm"
    assert cli.main([*arguments, "-q"]) == 0
    done = subprocess.run(f"{compile_} -std=c11 -Wall -Wextra -Werror", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    needed = subprocess.run(["ldd", "example"], capture_output=True, text=True, check=True).stdout
    names = {Path(line.split()[0]).name.partition(".")[0] for line in needed.splitlines()}
    assert names <= {"libc", "libm", "libgomp", "libpthread", "linux-vdso", "ld-linux-x86-64", "ld-linux-aarch64"}
    done = subprocess.run([run], env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"rows: 0 of \d{6} elements are wrong\nlanes: 0 of \d{7} elements are wrong\n", done.stdout)


def test_the_python_of_tensor_ir():
    names: dict[str, object] = {}
    first, second = blocks("python", "TE and TensorIR")
    for source in (first, second):
        exec(compile(source, "embedding.md", "exec"), names)
    assert callable(names["run"])

"""LLVM IR of the C files in fq_tvm/launch, by the C compiler that PyPI's `ziglang` brings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fq_tvm.launch.native import SOURCES as SOURCES

FOLDER = Path(__file__).parents[2] / "fq_tvm" / "launch"
ARCHITECTURES = ("x86_64", "aarch64")
FLAGS = (
    "-O2 -fPIC -g0 -fno-sanitize=all -fno-stack-protector -fno-strict-aliasing "
    "-fno-discard-value-names -Wall -Wextra -Wno-unused-command-line-argument"
)

CLEAN = [
    # what stands for a kernel's object stands for this one: LLVM's default CPU, no features of the compiler's version
    (re.compile(r' "(target-features|target-cpu|tune-cpu|frame-pointer|stack-[a-z-]*|min-legal-[a-z-]*)"="[^"]*"'), ""),
    (re.compile(r'(target triple = "\w+-unknown-linux)[^"]*"'), r'\1-gnu"'),
    (re.compile(r"^!llvm\.ident.*\n|^!\d+ = !\{!\"clang version.*\n", re.MULTILINE), ""),
    (re.compile(r"^; ModuleID = .*\n", re.MULTILINE), ""),
]  # fmt: skip


def generate(source: str, architecture: str) -> str:
    """Compile a C file to the IR that is committed beside it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "module.ll")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-linux-gnu", *FLAGS.split()]
        command += ["-Werror", "-S", "-emit-llvm", "-o", str(path), f"{source}.c"]
        subprocess.run(command, cwd=FOLDER, check=True, env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder})
        text = path.read_text()
    for pattern, replacement in CLEAN:
        text = pattern.sub(replacement, text)
    head = f"; Made of {source}.c by `pytest tests/launch/test_threads_ir.py --update-golden`.\n"
    return head + text


def path_of(source: str, architecture: str) -> Path:
    """Where the IR is committed."""
    return FOLDER / f"{source}.{architecture}.ll"

"""Nothing outside the tensors is read or written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("guard_pages.py")


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=400
    )


def test_every_kernel_stays_within_its_tensors():
    done = run()
    assert done.returncode == 0, done.stderr[-2000:]
    word, launches = done.stdout.split()
    assert word == "ok"
    assert int(launches) > 64 * 40


@pytest.mark.parametrize("side", ["before", "after"])
def test_the_pages_do_fault(side):
    assert run(side).returncode == -signal.SIGSEGV

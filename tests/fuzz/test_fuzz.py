"""The inputs of the corpus, and some mutations of each: parsed to something valid, or the project's own error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("safetensors")

from fuzz import CORPUS, TARGETS

FUZZ = Path(__file__).with_name("fuzz.py")


def test_every_target_has_a_corpus():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


def test_the_corpus_and_mutations_of_it():
    """In processes of their own, one a target; a line of each says how many inputs it had."""
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--seconds", "2", "--seed", "0"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(TARGETS)

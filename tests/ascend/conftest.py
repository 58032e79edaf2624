"""Fixtures of the Ascend tests."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the models beside this file are modules of the tests alone


def pytest_addoption(parser: pytest.Parser) -> None:
    # tests/conftest.py may have it already; this one is read only where this folder is named on the command line.
    with contextlib.suppress(ValueError):
        parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a golden file, or write the file with ``--update-golden``."""

    def compare(name: str, text: str) -> None:
        path = HERE / "golden" / name
        if request.config.getoption("--update-golden", default=False):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"no golden file {name}; pytest tests/ascend --update-golden writes it"
        assert text == path.read_text(), f"{name} has changed; if it should, pytest tests/ascend --update-golden"

    return compare


@pytest.fixture(scope="session")
def npuir() -> None:
    """Skip without ascendnpu-ir and the parser of its output."""
    pytest.importorskip("ascendnpuir")
    pytest.importorskip("xdsl")


@pytest.fixture(scope="session")
def akg() -> None:
    """Skip without AKG."""
    from fq_tvm.ascend import toolchains

    found = toolchains()["akg"]
    if not found:
        pytest.skip(found.detail)

"""Fixtures of the Ascend tests."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the models beside this file are modules of the tests alone


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a golden file, or write the file with ``--update-golden``."""

    def compare(name: str, text: str) -> None:
        path = HERE.parent / "golden" / name
        if request.config.getoption("--update-golden", default=False):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"no golden file {name}; pytest tests/ascend --update-golden writes it"
        assert text == path.read_text(), f"{name} has changed; if it should, pytest tests/ascend --update-golden"

    return compare


def absent(why: str) -> None:
    """Skip, but on CI, which installs every toolchain: there a missing one is a failure."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def npuir() -> None:
    """Skip without ascendnpu-ir and the parser of its output."""
    for package in ("ascendnpuir", "xdsl"):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed")


@pytest.fixture(scope="session")
def akg() -> None:
    """Skip without AKG."""
    from fq_tvm.ascend import toolchains

    found = toolchains()["akg"]
    if not found:
        absent(found.detail)


@pytest.fixture(scope="session")
def hivmc() -> None:
    """Skip without hivmc and the LLVM that runs what it makes."""
    if importlib.util.find_spec("llvmlite") is None:
        absent("llvmlite is not installed")
    import hivmc

    if why := hivmc.missing():
        absent(why)

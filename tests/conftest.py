"""One cache and one data folder for the whole run, apart from the user's."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Generator

import pytest

from fq_tvm import CacheMissError, environment

if getattr(importlib.util.find_spec("torch"), "origin", None) is None:
    sys.modules["torch"] = None  # not installed: the folder tests/torch must not be taken for it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing")
    parser.addoption("--every-pair", action="store_true", help="run schedules with every pair of knobs, not a sample")
    parser.addoption("--artifacts", help="folder of all kernels that tests may use; those that want others are skipped")


def pytest_configure(config: pytest.Config) -> None:
    # Variables of the caller must not decide what is tested.
    for name in [n for n in os.environ if n.startswith("FQ_TVM_") and n != "FQ_TVM_AKG_HOME"]:
        del os.environ[name]
    # AKG is the user's own, from `make akg`; the data folder of this run is another one.
    os.environ["FQ_TVM_AKG_HOME"] = str(environment.akg_home())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip what needs a kernel that is not among those given: see tests/aarch64/qemu.py."""
    try:
        return (yield)
    except CacheMissError:
        if item.config.getoption("--artifacts"):
            pytest.skip("a kernel is not among the artifacts")
        raise


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """The cache that kernels of this run are built into: one of all workers of pytest-xdist, each kernel once."""
    folder = tmp_path_factory.getbasetemp()
    path = str((folder.parent if hasattr(request.config, "workerinput") else folder) / "cache")
    os.environ["FQ_TVM_CACHE_DIR"] = path
    if artifacts := request.config.getoption("--artifacts"):
        os.environ["FQ_TVM_ARTIFACTS_DIR"] = artifacts
        os.environ["FQ_TVM_REQUIRE_CACHE"] = "1"
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))  # schedules that the user tuned
    return path

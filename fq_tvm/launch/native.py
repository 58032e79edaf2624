"""The object code that kernels run beside: C that is shipped as LLVM's IR and becomes code once a machine.

Knows tvm-ffi; does not know kernels, specifications or layouts.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import platform
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

from .. import __version__, environment
from ..errors import BuildError
from ..interruption import uninterrupted
from ..store import cache as store
from .runtime import check_architecture, compiler, find_or_build, session

SOURCES = ("threads", "attach", "sequence")
"""Names of C files in this folder."""


def request(architecture: str) -> dict[str, Any]:
    """Return the key of the object code in a cache, for CPUs of an architecture."""
    sources = [_ir(name, architecture) for name in SOURCES]
    return {
        "format": store.FORMAT,
        "sources": hashlib.sha256("\0".join(sources).encode()).hexdigest(),
        "target": {"architecture": architecture},
        "versions": {"fq_tvm": __version__, **{name: version(name) for name in ("apache-tvm", "apache-tvm-ffi")}},
    }


def _ir(name: str, architecture: str) -> str:
    try:
        return importlib.resources.files(__package__).joinpath(f"{name}.{architecture}.ll").read_text()
    except FileNotFoundError:
        raise BuildError(f"there are no threads for {architecture}; set FQ_TVM_THREADING_LAYER=serial") from None


def build(architecture: str) -> store.Entry:
    """Make the object code; the first process of a machine does, others find it in the cache."""
    texts = {f"{name}.o": _ir(name, architecture) for name in SOURCES}
    files = uninterrupted(lambda: {name: compiler("llvm").emit(ll)[0] for name, ll in texts.items()})
    key = request(architecture)
    return store.Entry(key, key["sources"], files)


def entry(architecture: str | None = None) -> store.Entry:
    """Find the object code, this machine's by default, or build and keep it."""
    where = (environment.cache_dir(), environment.artifacts_dir(), environment.require_cache())
    return _entry(architecture or platform.machine(), *where)


@cache
def _entry(architecture: str, *_where: Any) -> store.Entry:
    return find_or_build(request(architecture), lambda: build(architecture))


def code(name: str) -> bytes:
    """Return the object code of a C file, for this machine."""
    return entry().files[f"{name}.o"]


def load(name: str) -> Callable[[str], Any]:
    """Load the object code of a C file for good; return what gives its functions by name.

    Raises
    ------
    BuildError
        If there is no code for this machine, and none can be built.
    """
    found = code(name)
    check_architecture(found)
    functions: Callable[[str], Any] = (
        session().load_module(found, keep_module_alive=True, cxx="no-c++-runtime-needed").get_function
    )
    return functions

"""Per-channel fake quantization with a cache mask: kernels from one TVM tensor expression, cached and bit-exact."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import reference
    from .c_api.build import build_c_library
    from .errors import ArgumentError, BuildError, CacheMissError, FqError, LaunchError, UntrustedError
    from .functional import (
        channel_range,
        fake_quantize_per_channel_affine,
        fake_quantize_per_channel_affine_cachemask,
    )
    from .launch.kernel import Kernel
    from .launch.library import build_library
    from .launch.registry import find_target, get_kernel
    from .launch.threads import threads_ready
    from .schedule import Schedule
    from .spec import FakeQuantSpec, catalogue
    from .target import Target
    from .tensor_ir import prim_func, te
    from .tuning.search import tune

__version__ = "0.2.0"

_HOME = {
    name: module
    for module, names in {
        "c_api.build": "build_c_library",
        "errors": "ArgumentError BuildError CacheMissError FqError LaunchError UntrustedError",
        "functional": "channel_range fake_quantize_per_channel_affine fake_quantize_per_channel_affine_cachemask",
        "launch.kernel": "Kernel",
        "launch.library": "build_library",
        "launch.registry": "find_target get_kernel",
        "launch.threads": "threads_ready",
        "schedule": "Schedule",
        "spec": "FakeQuantSpec catalogue",
        "target": "Target",
        "tensor_ir": "prim_func te",
        "tuning.search": "tune",
    }.items()
    for name in names.split()
}
"""Where each public name lives: modules are imported when a name is first used, so `import fq_tvm` costs nothing."""

_MODULES = ("aclnn", "ascend", "reference", "relax", "torch")

__all__ = [
    "ArgumentError",
    "BuildError",
    "CacheMissError",
    "FakeQuantSpec",
    "FqError",
    "Kernel",
    "LaunchError",
    "Schedule",
    "Target",
    "UntrustedError",
    "build_c_library",
    "build_library",
    "catalogue",
    "channel_range",
    "fake_quantize_per_channel_affine",
    "fake_quantize_per_channel_affine_cachemask",
    "find_target",
    "get_kernel",
    "prim_func",
    "reference",
    "te",
    "threads_ready",
    "tune",
]


def __getattr__(name: str) -> Any:
    from .interruption import unforked

    load = unforked(importlib.import_module)
    if name in _MODULES:
        return load(f".{name}", __name__)
    if name in _HOME:
        value = globals()[name] = getattr(load(f".{_HOME[name]}", __name__), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})

"""``fq-tvm info``: what kernels are built and run with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import environment
from ..store import records
from ..store.cache import Store
from ..target import Target
from .output import megabytes, print_facts, print_json
from .parser import JSON, Arguments, command

EXTRAS = {
    "ascend": ("ascendnpu-ir", "decorator"),
    "demo": ("safetensors",),
    "torch": ("torch",),
    "tune": ("cloudpickle", "psutil", "tornado"),
    "plot": ("matplotlib",),
    "peers": ("numba", "onnx", "onnxruntime", "openvino"),
}
"""Optional parts and the packages that they need."""


@command(JSON)
def info(arguments: Arguments) -> None:
    """Show the CPU, threads, cache and versions that kernels are built and run with."""
    from importlib.metadata import PackageNotFoundError, version

    from ..ascend import toolchains
    from ..launch import threads
    from ..launch.registry import current_target, versions

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    target = current_target()
    answer: dict[str, Any] = {
        **target.to_json(),
        "threads": environment.num_threads(),
        "threading_layer": threads.describe(),
        "schedules": _describe_records(target),
        "cache": _describe_store(environment.cache_dir()),
        "artifacts": _describe_store(environment.artifacts_dir()),
        "versions": {
            **versions(),
            "apache-tvm-ffi-orcjit": installed("apache-tvm-ffi-orcjit"),
            "numpy": installed("numpy"),
            "python": ".".join(map(str, sys.version_info[:3])),
        },
        "extras": {name: {p: installed(p) for p in packages} for name, packages in EXTRAS.items()},
        "ascend": {name: str(found) for name, found in toolchains().items()},
    }
    if arguments.json:
        return print_json(answer)
    lines = {
        "CPU": f"{target.cpu}, {target.architecture}, {len(target.features)} features",
        "features": " ".join(target.features),
        "disabled": " ".join(target.disabled) or "none",
        "threads": f"{answer['threads']}, {answer['threading_layer']}",
        "schedules": _records_text(answer["schedules"]),
        "cache": _store_text(answer["cache"]) or "none: no home folder, and FQ_TVM_CACHE_DIR is not set",
        "artifacts": _store_text(answer["artifacts"]) or "none: FQ_TVM_ARTIFACTS_DIR is not set",
        "versions": ", ".join(f"{name} {number}" for name, number in answer["versions"].items()),
    }
    if target.missing:
        lines["missing"] = f"{' '.join(target.missing)}: kernels for {target.cpu} can be built here, not run"
    for name, packages in answer["extras"].items():
        have = ", ".join(f"{p} {number}" for p, number in packages.items() if number)
        lines[f"[{name}]"] = have or f'not installed: pip install "fq_tvm[{name}]"'
    for name, text in answer["ascend"].items():
        lines[f"ascend {name}"] = text
    print_facts(lines)


def _describe_records(target: Target) -> dict[str, Any]:
    folders = [f for f in (records.user_folder(), records.shipped_folder()) if f is not None]
    applied = [
        {"path": found.path, "reason": found.reason, "records": len(found.content.records)}
        for found in records.applicable(target)
    ]
    looked_for = [f"{name}.json" for name, _ in records.candidates(target, ())]
    return {"applied": applied, "looked_for": looked_for, "folders": folders}


def _records_text(described: Mapping[str, Any]) -> str:
    if described["applied"]:
        return "; then ".join(f"{f['path']} ({f['reason']}, {f['records']} records)" for f in described["applied"])
    where = " and ".join(map(str, described["folders"])) or "no folder"
    return f"default ones: no {', '.join(described['looked_for'])} in {where}; `fq-tvm tune` makes one"


def _describe_store(folder: Path | None) -> dict[str, Any] | None:
    if folder is None:
        return None
    entries = list(Store(folder).entries())
    kernels = sum("spec" in entry.request for entry in entries)
    return {"path": folder, "kernels": kernels, "bytes": sum(e.size for e in entries)}


def _store_text(described: Mapping[str, Any] | None) -> str | None:
    if described is None:
        return None
    return f"{described['path']}, {described['kernels']} kernels, {megabytes(described['bytes'])}"

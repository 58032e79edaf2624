"""``fq-tvm cache``: the built kernels on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import environment
from ..errors import FqError
from ..store.cache import Entry, Store
from .output import MEGABYTE, kernel_name, megabytes, print_json, print_line, print_table, say
from .parser import JSON, Arguments, amount, command, option


@command(
    option("what", choices=("list", "prune", "clear", "path"), metavar="list|prune|clear|path"),
    option("--older-than", type=amount, metavar="DAYS", help="prune: what was not used for so long"),
    option("--max-size", type=amount, metavar="MB", help="prune: what was not used longest, until the rest fits"),
    option("--other-versions", action="store_true", help="prune: kernels of other versions of fq_tvm and TVM"),
    JSON,
)
def cache(arguments: Arguments) -> None:
    """Look into the cache of built kernels, and clean it.

    list shows the kernels, path the folder; prune removes what the options say, and always corrupt entries and what
    killed processes left; clear removes everything that the cache wrote, and nothing else. What cannot be removed is
    named. A running process keeps the kernels that it has loaded.
    """
    pruning = (arguments.older_than, arguments.max_size, arguments.other_versions or None)
    if arguments.what != "prune" and any(value is not None for value in pruning):
        raise FqError(f"--older-than, --max-size and --other-versions belong to prune, not to {arguments.what}")
    folder = environment.cache_dir()
    if folder is None:
        raise FqError("there is no cache: no home folder was found; set FQ_TVM_CACHE_DIR")
    actions = {"list": _cache_list, "prune": _cache_prune, "clear": _cache_clear, "path": _cache_path}
    actions[arguments.what](Store(folder), arguments)


def _cache_path(store: Store, arguments: Arguments) -> None:
    print_json({"path": store.root}) if arguments.json else print_line(str(store.root))


def _describe_entry(entry: Entry) -> dict[str, Any] | None:
    """Say what an entry is; None for what is no kernel, such as the threads that kernels run on, or is gone by now."""
    request, path = entry.request, entry.path
    try:
        return {
            "name": kernel_name(request),
            "cpu": str(request["target"]["cpu"]),
            "versions": {"fq_tvm": request["versions"]["fq_tvm"], **request["versions"]},
            "schedule": request["schedule"],
            "bytes": entry.size,
            "used": path.stat().st_mtime if path else 0.0,
            "path": path,
        }
    except (KeyError, TypeError, AttributeError, OSError):
        return None


def _cache_list(store: Store, arguments: Arguments) -> None:
    entries = [found for entry in store.entries() if (found := _describe_entry(entry)) is not None]
    entries.sort(key=lambda entry: (entry["name"], str(entry["path"])))
    if arguments.json:
        return print_json({"path": store.root, "kernels": entries})
    now = time.time()
    rows = []
    for entry in entries:
        kilobytes, days = f"{entry['bytes'] / 1000:.0f}", f"{max(now - entry['used'], 0) / 86400:.1f}"
        rows.append([entry["name"], entry["cpu"], str(entry["versions"]["fq_tvm"]), kilobytes, days])
    if rows:
        print_table(["kernel", "CPU", "fq_tvm", "kB", "days unused"], rows)
    print_line(f"{len(rows)} kernels in {store.root}: {megabytes(sum(e['bytes'] for e in entries))}")


def _cache_prune(store: Store, arguments: Arguments) -> None:
    from ..launch.registry import versions

    stays: dict[Path, str] = {}
    removed = store.prune(
        versions=versions() if arguments.other_versions else None,
        older_than=None if arguments.older_than is None else arguments.older_than * 86400,
        max_bytes=None if arguments.max_size is None else int(min(arguments.max_size * MEGABYTE, sys.maxsize)),
        stays=stays.__setitem__,
    )
    left = len(store.paths())
    if arguments.json:
        return print_json({"path": store.root, "removed": removed, "left": left, "stays": stays})
    _say_what_stays(stays)
    print_line(f"removed {len(removed)}, left {left} kernels in {store.root}")


def _cache_clear(store: Store, arguments: Arguments) -> None:
    stays: dict[Path, str] = {}
    removed = store.clear(stays.__setitem__)
    if arguments.json:
        return print_json({"path": store.root, "removed": removed, "stays": stays})
    _say_what_stays(stays)
    print_line(f"removed {removed} kernels from {store.root}")


def _say_what_stays(stays: Mapping[Path, str]) -> None:
    for path, why in stays.items():
        say(f"note: {path} stays: {why}")

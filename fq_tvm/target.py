"""The CPU that code is generated for: LLVM's name for it, its features, and what tells one machine from another.

Knows no compiler: :func:`fq_tvm.codegen.llvm.resolve` asks LLVM, and a process that remembers its answer need not.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from .errors import FqError

CPUINFO_FIELDS = (
    "vendor_id",
    "cpu family",
    "model",
    "stepping",
    "flags",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "Features",
)

VECTOR_FEATURES = ("sse", "ssse", "avx", "f16c", "fma", "bmi", "lzcnt", "popcnt", "movbe", "neon", "sve", "fullfp16")
"""Prefixes of the features that generated code uses: a target may be run where the host has all of these."""

_V3 = frozenset(("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"))
LEVELS = {
    "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": _V3,
}
"""Feature levels of x86-64, the highest first, and the features that each needs."""


@dataclass(frozen=True)
class Target:
    """A CPU as a code generator sees it.

    Parameters
    ----------
    cpu : str
        LLVM's name, e.g. ``"znver4"``; never ``"native"``.
    features : tuple of str
        LLVM's names of the features that code may use, sorted.
    disabled : tuple of str
        Features that the CPU's name implies and that are switched off, because the host does not have them.
    missing : tuple of str
        Features that code for this target uses and the host lacks: it can be built here, not run.
    """

    cpu: str
    features: tuple[str, ...]
    disabled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def avx512(self) -> bool:
        """Whether vectors may be 256 or 512 bits wide."""
        return "avx512vl" in self.features

    @property
    def nontemporal_stores(self) -> bool:
        """Whether code for it can write past the caches: on x86-64."""
        return "sse2" in self.features

    @property
    def level(self) -> str | None:
        """The highest feature level of x86-64 that the features fill, from v3 up."""
        return next((name for name, needed in LEVELS.items() if needed <= set(self.features)), None)

    def to_tvm(self, vector_bits: int = 0) -> dict[str, Any]:
        """Return what :class:`tvm.target.Target` takes; the width of vectors counts where there is a choice."""
        attributes = [f"-{f}" for f in self.disabled]
        if vector_bits and self.avx512:
            attributes.append("+prefer-256-bit" if vector_bits == 256 else "-prefer-256-bit")
        return {
            "kind": "llvm",
            "mcpu": self.cpu,
            "mattr": attributes,
        }

    def identity(self) -> dict[str, Any]:
        """Return what decides about the code: the name and the features."""
        return {"cpu": self.cpu, "features": list(self.features)}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that :func:`json.dumps` takes."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Target:
        """Make a target of what :meth:`to_json` returned.

        Raises
        ------
        FqError
            If it is anything else.
        """
        try:
            cpu, lists = value["cpu"], [tuple(value[f]) for f in ("features", "disabled", "missing")]
        except (KeyError, TypeError) as error:
            raise FqError(f"no target: {type(error).__name__} {error}") from error
        if not all(isinstance(text, str) for text in (cpu, *itertools.chain(*lists))):
            raise FqError(f"target is {value!r}; expected texts")
        return cls(cpu, *lists)


def identify(name: str) -> dict[str, Any] | None:
    """Return what LLVM's answer about a CPU depends on, without asking LLVM.

    Parameters
    ----------
    name : str
        ``"host"`` or LLVM's name of a CPU.

    Returns
    -------
    dict or None
        None where the operating system does not tell what CPU this is, so that answers cannot be kept.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.partition(":") for line in file.read().partition("\n\n")[0].splitlines()]
    except OSError:
        return None
    found = {key.strip(): value.strip() for key, _, value in lines}
    cpu = {field: found[field] for field in CPUINFO_FIELDS if field in found}
    return {"name": name, "machine": platform.machine(), "cpu": cpu, "apache-tvm": version("apache-tvm")}

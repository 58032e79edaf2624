"""The CPU that code is generated for: LLVM's name for it, its features, and what tells one machine from another.

Knows no compiler: :func:`fq_tvm.codegen.llvm.resolve` asks LLVM, and a process that remembers its answer need not.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from .errors import FqError

ARCHITECTURES = ("x86_64", "aarch64")
"""Those that code can be generated for, as :func:`platform.machine` calls them."""

ALIASES = {"kunpeng-920": "tsv110"}
"""Names of CPUs that LLVM has another name for."""

PORTABLE = "armv8-a"
"""Any CPU of aarch64.  LLVM calls it ``generic``, which is another CPU on each architecture."""

CPUINFO = "/proc/cpuinfo"

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

VECTOR_FEATURES = ("sse", "ssse", "avx", "f16c", "fma", "bmi", "lzcnt", "popcnt", "movbe")
"""Prefixes of the features of x86-64 that generated code uses: a target may be run where the host has all of these."""

X86_WORDS = {
    "bmi": "bmi1",
    "lzcnt": "abm",
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    **{f"avx512{name}": f"avx512_{name}" for name in ("bf16", "bitalg", "fp16", "vbmi2", "vnni", "vpopcntdq")},
}
"""What Linux calls those features of x86-64 in ``flags`` that LLVM calls otherwise."""

AARCH64_WORDS = {
    "altnzcv": ("flagm2",),
    "bf16": ("bf16",),
    "complxnum": ("fcma",),
    "cssc": ("cssc",),
    "dotprod": ("asimddp",),
    "flagm": ("flagm",),
    "fp-armv8": ("fp",),
    "fp16fml": ("asimdfhm",),
    "fptoint": ("frint",),
    "fullfp16": ("fphp", "asimdhp"),
    "i8mm": ("i8mm",),
    "jsconv": ("jscvt",),
    "lse": ("atomics",),
    "lse2": ("uscat",),
    "mops": ("mops",),
    "neon": ("asimd",),
    "rcpc": ("lrcpc",),
    "rcpc-immo": ("ilrcpc",),
    "rdm": ("asimdrdm",),
    "sha3": ("sha3",),
    "sve": ("sve",),
    "sve2": ("sve2",),
    "sve2p1": ("sve2p1",),
}
"""Features of aarch64 of which LLVM makes instructions unasked, and what Linux calls them in ``Features``; sha3 has
logical operations of three operands.  Other features, of cryptography for instance, do not decide what can be run."""

AARCH64_CPUS = {
    ("0x41", "0xd08"): "cortex-a72",
    ("0x41", "0xd0b"): "cortex-a76",
    ("0x41", "0xd0c"): "neoverse-n1",
    ("0x41", "0xd40"): "neoverse-v1",
    ("0x41", "0xd49"): "neoverse-n2",
    ("0x41", "0xd4f"): "neoverse-v2",
    ("0x48", "0xd01"): "tsv110",
    ("0xc0", "0xac3"): "ampere1",
}
"""LLVM's names by implementer and part, as LLVM itself finds them; of any other CPU it is asked."""

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
        LLVM's name, e.g. ``"znver4"`` or ``"tsv110"``, or :data:`PORTABLE`; never ``"native"``.
    features : tuple of str
        LLVM's names of the features that code may use, sorted.
    disabled : tuple of str
        Features that the CPU's name implies and that are switched off, because the host does not have them.
    missing : tuple of str
        What code for this target needs and the host lacks: it can be built here, not run.  Features; or the
        architecture, where the host is of another one.
    architecture : str
        Of :data:`ARCHITECTURES`, or another one that the host is of.
    """

    cpu: str
    features: tuple[str, ...]
    disabled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    architecture: str = "x86_64"

    @property
    def llvm_cpu(self) -> str:
        """LLVM's name of the CPU."""
        return "generic" if self.cpu == PORTABLE else self.cpu

    @property
    def triple(self) -> str:
        """LLVM's name of the architecture and what goes with it."""
        return f"{self.architecture}-linux-gnu"

    @property
    def avx512(self) -> bool:
        """Whether vectors may be 256 or 512 bits wide."""
        return "avx512vl" in self.features

    @property
    def nontemporal_stores(self) -> bool:
        """Whether code for it can write past the caches; whether it does is a matter of schedules."""
        return "sse2" in self.features or self.architecture == "aarch64"

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
            "mtriple": self.triple,
            "mcpu": self.llvm_cpu,
            "mattr": attributes,
        }

    def identity(self) -> dict[str, Any]:
        """Return what decides about the code: the architecture, the name and the features."""
        return {"architecture": self.architecture, "cpu": self.cpu, "features": list(self.features)}

    def everywhere(self) -> Target | None:
        """Return what is true of it on any machine; None for a host that hides features, which is no other machine."""
        return None if self.disabled else replace(self, missing=())

    def here(self, as_host: bool) -> Target | None:
        """Return it with what this machine lacks, by what the system shows of its CPU.

        Parameters
        ----------
        as_host : bool
            Whether this machine is of this CPU, and code for it has to do with the features that it has.

        Returns
        -------
        Target or None
            None where only LLVM can tell: all that a host of x86-64 has, or a CPU of it, where an older kernel of Linux
            shows less; and which features go with those that a host hides.
        """
        if self.architecture != platform.machine():
            return replace(self, missing=(self.architecture,))
        absent, x86 = hidden(self.features), self.architecture == "x86_64"
        only_llvm_can_tell = (absent or x86) if as_host else (absent and x86)
        return None if only_llvm_can_tell else replace(self, missing=absent)

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
            cpu, architecture = value["cpu"], value["architecture"]
            features, disabled, missing = (tuple(value[f]) for f in ("features", "disabled", "missing"))
        except (KeyError, TypeError) as error:
            raise FqError(f"no target: {type(error).__name__} {error}") from error
        if not all(isinstance(text, str) for text in (cpu, architecture, *features, *disabled, *missing)):
            raise FqError(f"target is {value!r}; expected texts")
        return cls(cpu, features, disabled, missing, architecture)


def canonical(name: str) -> str:
    """Return the one name that a CPU has here: kunpeng-920 is tsv110, LLVM's generic CPU of aarch64 armv8-a."""
    if name == "generic" and platform.machine() == "aarch64":
        return PORTABLE
    return ALIASES.get(name, name)


def _cpuinfo() -> dict[str, str]:
    """Return what the system says of the first CPU; nothing where it says nothing."""
    try:
        with open(CPUINFO, encoding="utf-8") as file:
            lines = [line.partition(":") for line in file.read().partition("\n\n")[0].splitlines()]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in lines}


def hidden(features: Iterable[str]) -> tuple[str, ...]:
    """Return those features that generated code uses and the system does not show of this machine's CPU, sorted.

    Parameters
    ----------
    features : iterable of str
        LLVM's names, of a CPU of this machine's architecture.
    """
    found = _cpuinfo()
    if platform.machine() == "aarch64":
        shown = set(found.get("Features", "").split())
        absent = (f for f in features if not shown.issuperset(AARCH64_WORDS.get(f, ())))
        return tuple(sorted(absent)) if shown else ()
    shown = set(found.get("flags", "").split())
    used = (f for f in features if f.startswith(VECTOR_FEATURES))
    return tuple(sorted(f for f in used if X86_WORDS.get(f, f) not in shown))


def this_cpu() -> str | None:
    """Return the name of this machine's CPU where a table has it; else LLVM has to be asked."""
    found = _cpuinfo()
    return AARCH64_CPUS.get((found.get("CPU implementer", ""), found.get("CPU part", "")))


def question_of(cpu: str) -> dict[str, Any]:
    """Return what LLVM is asked about a named CPU; its answer is the same on every machine."""
    return {"named": cpu, "apache-tvm": version("apache-tvm")}


def identify(name: str) -> dict[str, Any] | None:
    """Return what LLVM's answer about a CPU on this machine depends on, without asking LLVM.

    Parameters
    ----------
    name : str
        ``"host"``, or the name of a CPU as :func:`canonical` gives it.

    Returns
    -------
    dict or None
        None where the operating system does not tell what CPU this is, so that answers cannot be kept.
    """
    if not (found := _cpuinfo()):
        return None
    cpu = {field: found[field] for field in CPUINFO_FIELDS if field in found}
    return {"name": name, "machine": platform.machine(), "cpu": cpu, "apache-tvm": version("apache-tvm")}

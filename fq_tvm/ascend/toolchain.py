"""What every toolchain has in common: whether it is there, how its processes run, and what it made.

Knows no toolchain by name.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FqError
from .estimate import Estimate
from .program import Program, Value

TIMEOUT = 300.0
"""Seconds that one process of a toolchain may take; the slowest seen takes 5."""

_LAST_LINES = 12


class LoweringError(FqError, RuntimeError):
    """A toolchain refused or failed to lower the operator."""


class ToolchainMissing(LoweringError):
    """The toolchain that was asked for, or any that serves the product, is not there."""


@dataclass(frozen=True)
class Toolchain:
    """Whether a toolchain can be used here.

    Parameters
    ----------
    name : str
    available : bool
    version : str
        Empty where unknown.
    detail : str
        Where it stops and why, or the reason why it is not available.
    """

    name: str
    available: bool
    version: str = ""
    detail: str = ""

    def __bool__(self) -> bool:
        return self.available

    def __str__(self) -> str:
        if self.available:
            return f"available{f' {self.version}' if self.version else ''}{f' ({self.detail})' if self.detail else ''}"
        return f"not available: {self.detail}"


@dataclass(frozen=True)
class Kernel:
    """One kernel of an artifact.

    Parameters
    ----------
    name : str
        Its symbol, and the stem of its files.
    when : str
        Which extents it serves; empty where it serves all.
    dims : tuple of str
        The dimensions that it sees x, out and mask with, of outer, channels and inner.
    block_dim : int or None
        Blocks to launch; None where only the last stage decides.
    arguments : tuple of dict
        In order: name, dtype, shape (null for an extent known only at run time) and role of each.
    files : dict of str to str
        What each stage made, by stage, in order.
    """

    name: str
    when: str
    dims: tuple[str, ...]
    block_dim: int | None
    arguments: tuple[dict[str, Any], ...]
    files: dict[str, str]


@dataclass(frozen=True)
class Lowered:
    """What a toolchain made of a problem.

    Parameters
    ----------
    toolchain_version : str
    reached : str
        The last stage that was run, in words.
    finished : bool
        Whether device objects are among the files.
    remaining : tuple of str
        What a machine with CANN has to do to finish.
    kernels : tuple of Kernel
    notes : dict
        Facts of this toolchain alone.
    estimate : Estimate, optional
        The time that is expected of the kernel; None where that cannot be said.
    """

    toolchain_version: str
    reached: str
    finished: bool
    remaining: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    notes: dict[str, Any]
    estimate: Estimate | None = None


def argument(name: str, dtype: str, shape: Sequence[int | None], role: str) -> dict[str, Any]:
    """Describe an argument of a kernel."""
    return {"name": name, "dtype": dtype, "shape": list(shape), "role": role}


def arguments(program: Program, shape: Callable[[Value], Sequence[int | None]]) -> tuple[dict[str, Any], ...]:
    """Describe the inputs and outputs of a program as arguments of a kernel, of the shapes that it sees."""
    return tuple(
        argument(value.name, "int8" if value.dtype == "bool" else value.dtype, shape(value), role)
        for role, values in (("in", program.inputs), ("out", program.outputs))
        for value in values
    )


def environment(path: Sequence[str | Path] = (), cann: bool = False, **variables: str) -> dict[str, str]:
    """An environment for a process of a toolchain, which takes over nothing by accident.

    Parameters
    ----------
    path : sequence of str or Path
        Folders that come before the system's.
    cann : bool
        Whether the process runs a program of CANN, which its ``set_env.sh`` prepares for by environment variables.
    **variables : str
        More variables.
    """
    made = {"LANG": "C.UTF-8", "PATH": os.pathsep.join([*map(str, path), "/usr/local/bin", "/usr/bin", "/bin"])}
    if cann:
        wanted = ("LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "TBE_IMPL_PATH", "TOOLCHAIN_HOME")
        made.update({k: v for k, v in os.environ.items() if k in wanted or k.startswith("ASCEND_")})
    return {**made, **variables}


def run(
    command: Sequence[str | Path],
    folder: Path,
    variables: Mapping[str, str],
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a process of a toolchain in a folder of its own and keep what it says.

    Raises
    ------
    LoweringError
        If it cannot be started or takes longer than the timeout, by default :data:`TIMEOUT`.
    """
    program = Path(command[0]).name
    limit = TIMEOUT if timeout is None else timeout
    try:
        return subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoweringError(f"{program} did not end within {limit:g} s") from error
    except OSError as error:
        raise LoweringError(f"{program} could not be started: {error}") from error


def failure(process: subprocess.CompletedProcess[str], doing: str) -> LoweringError:
    """The error of a process that failed, with the last lines that it wrote."""
    lines = [line for line in (process.stdout + "\n" + process.stderr).splitlines() if line.strip()]
    shown = "\n".join(f"  {line[:300]}" for line in lines[-_LAST_LINES:]) or "  (it wrote nothing)"
    program = Path(process.args[0]).name
    how = f"status {process.returncode}" if process.returncode >= 0 else f"signal {-process.returncode}"
    return LoweringError(f"{program} failed with {how} {doing}; its last lines:\n{shown}")

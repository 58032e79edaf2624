"""An artifact of a lowering: which toolchain makes it, what it says of itself, and how its directory appears whole.

Knows the toolchains by name and by ``probe`` and ``build`` alone.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from .estimate import Estimate
from .problem import Problem
from .products import Product, product_of
from .toolchain import Kernel, Lowered, LoweringError, Toolchain, ToolchainMissing

_TOOLCHAINS = ("npuir", "akg", "tbe")
"""Modules of this package, each with ``probe()`` and ``build(problem, soc, folder) -> Lowered``."""

_META = "meta.json"


@dataclass(frozen=True)
class AscendArtifact:
    """A directory of what was emitted and what a toolchain made of it.

    Parameters
    ----------
    directory : Path
        Holds the files of every kernel, the program as text, and ``meta.json``, which is :meth:`to_json`.
    problem : Problem
        What was lowered.
    soc, product : str
        For which processor.
    toolchain, toolchain_version : str
        By what.
    reason : str
        Why this toolchain.
    reached : str
        The last stage that was run.
    finished : bool
        Whether the directory holds device objects.
    remaining : tuple of str
        What a machine with CANN has to do to finish; empty if finished.
    kernels : tuple of Kernel
        Files, arguments in order, and block dimension of each.
    notes : mapping
        Facts of this toolchain alone.
    estimate : Estimate or None
        The time that is expected of the kernel on the processor; None where that cannot be said: for open extents, and
        for processors and toolchains other than npuir on Atlas A2 and A3.
    """

    directory: Path
    problem: Problem
    soc: str
    product: str
    toolchain: str
    toolchain_version: str
    reason: str
    reached: str
    finished: bool
    remaining: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    notes: Mapping[str, Any]
    estimate: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all but the directory as a dictionary that :func:`json.dumps` takes."""
        made = {key: value for key, value in asdict(self).items() if key != "directory"}
        return {"format": 1, **made, "mask": "int8, 0 or 1"}

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> AscendArtifact:
        """Read an artifact back from its directory.

        Raises
        ------
        LoweringError
            If the directory holds no artifact of this format.
        """
        folder = Path(directory)
        try:
            made = json.loads((folder / _META).read_text())
            if made.pop("format") != 1:
                raise LoweringError(f"{folder} is an artifact of another format")
            made.pop("mask")
            made["problem"]["shape"] = tuple(made["problem"]["shape"])
            kernels = [
                Kernel(**{**k, "dims": tuple(k["dims"]), "arguments": tuple(k["arguments"])}) for k in made["kernels"]
            ]
            problem = Problem(**made["problem"])
            if expected := made.get("estimate"):
                made["estimate"] = Estimate(**expected)
            made.update(problem=problem, kernels=tuple(kernels), remaining=tuple(made["remaining"]))
            return cls(folder, **made)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LoweringError(f"{folder} holds no artifact: {error}") from error


def toolchains() -> dict[str, Toolchain]:
    """Say of each toolchain whether it can be used here, or the reason why not.

    Returns
    -------
    dict of str to Toolchain
        A toolchain is true where it is available; ``str`` of it is one line for people.  Never raises: what goes
        wrong while looking is the reason.
    """
    found = {}
    for name in _TOOLCHAINS:
        try:
            found[name] = _module(name).probe()
        except Exception as error:  # whatever a half-installed toolchain does, the caller's process goes on
            found[name] = Toolchain(name, False, detail=f"{type(error).__name__}: {error}")
    return found


def lower(
    shape: Sequence[int | None],
    axis: int,
    dtype: str = "float32",
    scale_dtype: str = "float32",
    quant_min: int = -128,
    quant_max: int = 127,
    *output: Any,
    **named: Any,
) -> AscendArtifact:
    """Lower per-channel fake quantization with its mask for an Ascend processor.

    Parameters
    ----------
    shape : sequence of int or None
        Extents of x, 1 to 8 of them; None or -1 for an extent known only when the kernel runs (npuir alone).
    axis : int
        The channel dimension; negative counts from the end.
    dtype, scale_dtype : {"float16", "float32"}
        Element types of x, which is out's as well, and of scale.  The zero point is int32, the mask int8.
    quant_min, quant_max : int
        The range, of magnitude at most 2**23.
    soc : str
        Name of the processor as CANN spells it; ``"Ascend910B1"`` by default.  This and the next two, which tell what
        makes the artifact and where it goes, may be given in this order or by name.
    toolchain : {"auto", "npuir", "akg", "tbe"}
        ``"auto"``, the default, takes the best one that serves the product and is available.
    out_dir : path
        The artifact's directory, ``artifacts/ascend`` by default.  An artifact that is there already is replaced.

    Returns
    -------
    AscendArtifact

    Raises
    ------
    ArgumentError
        If the contract or the processor refuses an argument, the SoC is unknown, or out_dir holds something else.
    ToolchainMissing
        If the toolchain, or any that serves the product, is not available.
    LoweringError
        If a compiler fails; the message ends with its own last lines.  Nothing is left behind.
    TypeError
        If an argument is unknown.
    """
    return _lower(Problem(tuple(shape), axis, dtype, scale_dtype, quant_min, quant_max), *output, **named)


def _lower(
    problem: Problem,
    soc: str = "Ascend910B1",
    toolchain: str = "auto",
    out_dir: str | os.PathLike[str] = Path("artifacts") / "ascend",
) -> AscendArtifact:
    product = product_of(soc)
    name, reason = _choose(product, soc, toolchain)
    target = Path(os.path.abspath(out_dir))
    _check_replaceable(target)
    with _work_folder(target) as work:
        staged = work / "artifact"
        staged.mkdir()
        (staged / "program.txt").write_text(str(problem.program()))
        lowered: Lowered = _module(name).build(problem, soc, staged)
        artifact = AscendArtifact(target, problem, soc, product.name, name, reason=reason, **vars(lowered))
        (staged / _META).write_text(json.dumps(artifact.to_json(), indent=2) + "\n")
        _publish(staged, target, work)
    return artifact


@contextlib.contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """A folder from which a rename reaches the target, and which is gone afterwards, whatever happens."""
    root = next(parent for parent in target.parents if parent.is_dir())
    try:
        work = Path(tempfile.mkdtemp(prefix=".fq_tvm-ascend-", dir=root))
    except OSError as error:
        raise LoweringError(f"cannot write into {root}: {error.strerror or error}") from error
    try:
        yield work
    except OSError as error:
        raise LoweringError(f"cannot write the artifact {target}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _module(toolchain: str) -> Any:
    return importlib.import_module(f".{toolchain}", __package__)


def _choose(product: Product, soc: str, wanted: str) -> tuple[str, str]:
    """The toolchain to use, and why."""
    if wanted != "auto":
        if wanted not in _TOOLCHAINS:
            raise ArgumentError(f"toolchain is {wanted!r}; expected auto, {', '.join(_TOOLCHAINS)}", "range")
        if wanted not in product.toolchains:
            serving = ", ".join(product.toolchains)
            raise ArgumentError(f"{wanted} does not serve {soc} ({product.name}); {serving} does", "range")
        return wanted, "asked for"
    passed_over: list[str] = []
    for name in product.toolchains:
        found = _module(name).probe()
        if found:
            before = f"; {'; '.join(passed_over)}" if passed_over else ""
            return name, f"the first available for {product.name} of {', '.join(product.toolchains)}{before}"
        passed_over.append(f"{name} {found}")
    emit = " toolchain='tbe' writes its operator file all the same." if "tbe" in product.toolchains else ""
    raise ToolchainMissing(f"no toolchain for {soc} ({product.name}): {'; '.join(passed_over)}.{emit}")


def _check_replaceable(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise ArgumentError(f"out_dir {target} is a file; expected a folder of its own for the artifact", "range")
    for _ in range(5):
        try:
            names = {entry.name for entry in target.iterdir()}
        except FileNotFoundError:
            return
        if not names or _META in names:
            return
        time.sleep(0.02)  # an artifact that another process is replacing right now looks incomplete for a moment
    raise ArgumentError(f"out_dir {target} holds something other than an artifact; it will not be replaced", "range")


def _publish(staged: Path, target: Path, work: Path) -> None:
    """Put a whole directory in place by rename, and take away the one that was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(100):
        replaced = work / f"replaced{attempt}"
        with contextlib.suppress(FileNotFoundError):
            target.rename(replaced)
        try:
            staged.rename(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                if replaced.exists():
                    replaced.rename(target)
                raise
            # Another process put its artifact there in between; the last one to finish stays.
    raise LoweringError(f"{target} is being written by too many processes at once")

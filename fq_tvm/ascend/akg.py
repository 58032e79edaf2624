"""A program as stages of AKG, and AKG on it, to CCE-C.

Serves the Atlas training series.  AKG is the TVM 0.6 fork that MindSpore's wheel for Ascend bundles; it registers
itself as top-level ``tvm``, so it only ever runs in a process of its own.  ``python -m fq_tvm.ascend.akg`` fetches it.
``ccec``, the compiler that makes an object of CCE-C, comes with CANN.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..environment import akg_home
from ..errors import FqError
from .problem import Problem
from .program import Constant, Operand, Program, Step, Value
from .toolchain import (
    Built,
    Kernel,
    LoweringError,
    Toolchain,
    ToolchainMissing,
    argument,
    environment,
    failure,
    run,
)

__all__ = ["PRINTERS", "build", "emit", "fetch", "probe"]

WHEEL = "mindspore-ascend==1.10.0"
"""What AKG is taken from: a release that has it, for Ascend, on PyPI."""

_WHEEL_SHA256 = {
    "mindspore_ascend-1.10.0-cp39-cp39-manylinux1_x86_64.whl": (
        "cba0fa09d2008ffeb3dc7690009a5a8a1bfd415f4ee4dfab2fbf60654ab72ff4"
    ),
}


class _Script:
    """The stages while they are printed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.lines: list[str] = []
        # A broadcast is no stage here: its readers index the source.  A bool output ends as int8 under its own name.
        self.aliases = {v.name: f"{v.name}_bit" for v in program.outputs if v.dtype == "bool"}
        self._dims = {v.name: v.dims for v in program.values()}
        self._temporaries = 0

    def alias(self, name: str, source: str) -> None:
        """Let one name stand for another value and its dimensions."""
        self._dims[name] = self._dims[source]
        self.aliases[name] = self.aliases.get(source, source)

    def operand(self, operand: Operand) -> str:
        """A value at the index of the stage that reads it, or a constant."""
        if isinstance(operand, Constant):
            return f"tvm.const({operand.value!r}, {operand.dtype!r})"
        name = self.aliases.get(operand.name, operand.name)
        return f"{name}({', '.join(f'i{d}' for d in self._dims[operand.name])})"

    def stage(self, value: Value, expression: str) -> Value:
        """``value = compute(expression)``, one primitive of the hardware."""
        name = self.aliases.get(value.name, value.name)
        extents, index = self.program.extents(value), ", ".join(f"i{d}" for d in value.dims)
        self._dims[value.name] = value.dims
        shape = f"({', '.join(map(str, extents))},)"
        self.lines.append(f"{name} = tvm.compute({shape}, lambda {index}: {expression}, name={name!r})")
        return value

    def temporary(self, stem: str, like: Value, dtype: str) -> Value:
        """A value that the program does not have, under a name that it cannot have."""
        self._temporaries += 1
        return Value(f"_{stem}{self._temporaries}", dtype, like.dims)


Printer = Callable[[_Script, Step], None]


def _form(template: str) -> Printer:
    """Print a step as one expression over its operands."""

    def print_step(script: _Script, step: Step) -> None:
        script.stage(step.result, template.format(*map(script.operand, step.operands)))

    return print_step


def _cast(script: _Script, step: Step) -> None:
    script.stage(step.result, f"{script.operand(step.operands[0])}.astype({_dtype(step.result.dtype)!r})")


def _broadcast(script: _Script, step: Step) -> None:
    source = step.operands[0]
    assert isinstance(source, Value)
    script.alias(step.result.name, source.name)


def _round_half_even(script: _Script, step: Step) -> None:
    """Print a rounding: by int32, whose conversion rounds ties to even, where int32 holds it.

    From 2**25 on a float32 is whole, and so are infinities; they and NaN stay as they are.  The square tells the two
    apart in one comparison, strict because AKG swaps the others, which is wrong for NaN.
    """
    result, value = step.result, script.operand(step.operands[0])
    integer = script.stage(script.temporary("integer", result, "int32"), f"tvm.round({value}).astype('int32')")
    whole = script.stage(script.temporary("whole", result, "float32"), f"{script.operand(integer)}.astype('float32')")
    square = script.stage(script.temporary("square", result, "float32"), f"{value} * {value}")
    small = f"{script.operand(square)} < tvm.const({2.0**50!r}, 'float32')"
    script.stage(result, f"tvm.expr.Select({small}, {script.operand(whole)}, {value})")


def _less_equal(script: _Script, step: Step) -> None:
    """Print ``<=`` as ``<`` or ``==``, as AKG turns it into ``not >``, which is wrong for NaN."""
    first, second = map(script.operand, step.operands)
    same = script.temporary("same", step.result, step.result.dtype)
    script.stage(same, f"tvm.expr.Select({first} == {second}, {_TRUE}, {_FALSE})")
    script.stage(step.result, f"tvm.expr.Select({first} < {second}, {_TRUE}, {script.operand(same)})")


_TRUE, _FALSE = "tvm.const(1.0, 'float32')", "tvm.const(0.0, 'float32')"

# A bool is a float32 of 0 or 1: AKG has comparisons only inside a selection.
PRINTERS: dict[str, Printer] = {
    "cast": _cast,
    "broadcast": _broadcast,
    "add": _form("{} + {}"),
    "subtract": _form("{} - {}"),
    "multiply": _form("{} * {}"),
    "divide": _form("{} / {}"),
    # Ordered: the second operand where the first is NaN, whatever the hardware's maximum does.
    "maximum": _form("tvm.expr.Select({0} > {1}, {0}, {1})"),
    "minimum": _form("tvm.min({}, {})"),
    "round_half_even": _round_half_even,
    "equal": _form(f"tvm.expr.Select({{}} == {{}}, {_TRUE}, {_FALSE})"),
    "less_equal": _less_equal,
    "logical_and": _form("{} * {}"),
}

_DTYPES = {"float16": "float16", "float32": "float32", "int32": "int32", "int8": "int8", "bool": "float32"}


def _dtype(dtype: str) -> str:
    if dtype not in _DTYPES:
        raise FqError(f"akg has no vectors of {dtype}; it takes {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def emit(program: Program, name: str) -> str:
    """Print a program as a Python script that writes ``<name>.cce``.

    Parameters
    ----------
    program : Program
        Static extents; float16, float32, int32 and bool values; bool outputs become int8.
    name : str
        Stem of the kernel's symbol, to which AKG adds ``_kernel0``.

    Returns
    -------
    str

    Raises
    ------
    FqError
        If a primitive, a dtype or an open extent has no form here.
    """
    if None in program.shape:
        raise FqError(f"akg lowers static shapes; extents are open in {program.shape}")
    script = _Script(program)
    for step in program.steps:
        if step.primitive not in PRINTERS:
            raise FqError(f"akg has no form for the primitive {step.primitive}; known: {', '.join(PRINTERS)}")
        _dtype(step.result.dtype)
        PRINTERS[step.primitive](script, step)
    for value in program.outputs:
        if value.dtype == "bool":
            half = script.temporary("half", value, "float16")
            script.stage(half, f"{script.operand(value)}.astype('float16')")
            del script.aliases[value.name]
            script.stage(value, f"{script.operand(half)}.astype('int8')")
    inputs = [
        f"{v.name} = tvm.placeholder(({', '.join(map(str, program.extents(v)))},), name={v.name!r}, dtype={v.dtype!r})"
        for v in program.inputs
    ]
    outputs = [v.name for v in program.outputs]
    arguments = ", ".join([*(v.name for v in program.inputs), *outputs])
    return "\n".join(
        [
            f'"""Writes {name}.cce: run with AKG first on PYTHONPATH and a ccec on PATH."""',
            "",
            "import akg",
            "from akg import tvm",
            "",
            *inputs,
            *script.lines,
            "",
            f"schedule = tvm.create_schedule([{', '.join(f'{n}.op' for n in outputs)}])",
            "with akg.build_config(dump_pass_ir=False):",
            f"    module = akg.build(schedule, [{arguments}], 'cce', [], name={name!r},",
            "                       attrs={'target': 'cce'}, polyhedral=True)",
            f"with open('{name}.cce', 'w') as file:",
            "    file.write(module.imported_modules[0].get_source())",
            "",
        ]
    )


_VERSION = "VERSION"


def probe() -> Toolchain:
    """Say whether AKG is here and can be imported, and how far it gets."""
    if missing := _missing():
        return Toolchain("akg", False, detail=missing)
    version = _version()
    with tempfile.TemporaryDirectory(prefix="fq_tvm-akg-") as scratch:
        process = run(
            [sys.executable, "-s", "-B", "-c", "import akg; from akg import tvm"],
            Path(scratch),
            _environment(Path(scratch), None),
            timeout=120,
        )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["it said nothing"]
        return Toolchain("akg", False, version, f"`import akg` failed: {lines[-1]}")
    return Toolchain("akg", True, version, "with ccec" if shutil.which("ccec") else "no ccec: stops before the object")


def _missing() -> str:
    """What is not where AKG should be, and what to do about it; empty if all is."""
    folder = akg_home()
    parts = [part for part in ("akg/__init__.py", "lib/libakg.so") if not (folder / part).is_file()]
    if not parts:
        return ""
    return f"{folder} holds no {' and no '.join(parts)}; fetch it with `make akg` or `python -m fq_tvm.ascend.akg`"


def _version() -> str:
    file = akg_home() / _VERSION
    return file.read_text().strip() if file.is_file() else ""


def _environment(folder: Path, compiler: str | None) -> dict[str, str]:
    """AKG first, the caller's Python packages after it, and some ccec."""
    tools = folder / "tools"
    if compiler is None:
        # AKG wants the compiler to leave a file and looks no further into it.
        tools.mkdir(exist_ok=True)
        stub = tools / "ccec"
        stub.write_text('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && : > "$2"; shift; done\nexit 0\n')
        stub.chmod(0o755)
    path = [Path(compiler).parent] if compiler else [tools]
    made = environment(path, cann=compiler is not None)
    return {**made, "PYTHONPATH": str(akg_home())}


def build(problem: Problem, soc: str, folder: Path, core_type: str = "") -> Built:
    """Lower a problem with AKG.

    Parameters
    ----------
    problem : Problem
        Static extents.
    soc : str
        Of the Atlas training series; one code serves them all.
    folder : Path
        Where files go.
    core_type : str
        Not used here.

    Returns
    -------
    Built

    Raises
    ------
    LoweringError
        If AKG is not there, an extent is open, or AKG or the compiler fails.
    """
    if problem.dynamic:
        raise LoweringError(f"akg lowers static shapes; extents are open in {problem.shape}")
    if missing := _missing():
        raise ToolchainMissing(missing)
    name = "fake_quant"
    whole = problem.collapsed(outer=True, inner=True)
    program = whole.program()
    script, source = f"{name}.akg.py", f"{name}.cce"
    (folder / script).write_text(emit(program, name))
    compiler = shutil.which("ccec")
    with tempfile.TemporaryDirectory(prefix="fq_tvm-akg-") as scratch:
        work = Path(scratch)
        command: list[str | Path] = [sys.executable, "-s", "-B", folder / script]
        process = run(command, work, _environment(work, compiler))
        metadata = work / "akg_kernel_meta" / f"{name}.json"
        if process.returncode or not (work / source).is_file() or not metadata.is_file():
            raise failure(process, f"on {script}")
        described = json.loads(metadata.read_text())
        shutil.move(work / source, folder / source)
        files = {"stages": script, "cce": source}
        if compiler:
            shutil.move(metadata.with_suffix(".o"), folder / f"{name}.o")
            shutil.move(metadata, folder / f"{name}.json")
            files.update(object=f"{name}.o", metadata=f"{name}.json")
    outputs = [
        argument(v.name, "int8" if v.dtype == "bool" else v.dtype, program.shape, "out") for v in program.outputs
    ]
    inputs = [argument(v.name, v.dtype, program.extents(v), "in") for v in program.inputs]
    kernel = Kernel(described["kernelName"], "", whole.dims, described["blockDim"], (*inputs, *outputs), files)
    remaining = (
        ()
        if compiler
        else (
            "run the same lowering where CANN's ccec is on PATH, or there, which is what AKG runs:",
            f"ccec -c -O2 {source} --cce-aicore-arch=dav-c100 --cce-aicore-only -o {name}.o",
        )
    )
    notes = {"buffer_padding_bytes": _PADDING, "magic": described["magic"]}
    reached = "object by ccec" if compiler else "CCE-C"
    return Built(_version(), reached, compiler is not None, remaining, (kernel,), notes)


_PADDING = 32
"""Bytes to which every buffer has to be padded: copies move whole blocks of this size."""


def fetch(folder: Path | None = None) -> Path:
    """Download AKG with pip and unpack it.

    Parameters
    ----------
    folder : Path, optional
        Where to; :func:`home` by default.

    Returns
    -------
    Path
        The folder, which is complete: it appears by rename.  A download that was complete before an interruption is
        used again.

    Raises
    ------
    LoweringError
        If pip fails, the wheel is not the one that is known, or it holds no AKG.
    """
    folder = folder or akg_home()
    if (folder / "lib" / "libakg.so").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    downloads = folder.with_name(folder.name + ".download")
    downloads.mkdir(exist_ok=True)
    wheel = _known_wheel(downloads) or _download(downloads)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _unpack(wheel, work)
        if folder.exists():
            raise LoweringError(f"{folder} is there already and holds no AKG; expected to make it")
        (work / _VERSION).write_text(WHEEL.replace("==", " ") + "\n")
        work.chmod(0o755)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)
    return folder


def _known_wheel(downloads: Path) -> Path | None:
    """A wheel that is there and whole."""
    for wheel in downloads.glob("*.whl"):
        if _sha256(wheel) == _WHEEL_SHA256.get(wheel.name):
            return wheel
    return None


def _download(downloads: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # The wheel is for Python 3.9; AKG's part of it runs on later ones.
    command += ["--only-binary=:all:", "--python-version", "3.9", "--dest", str(downloads), WHEEL]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoweringError(f"pip could not download {WHEEL}: {error}") from error
    wheels = sorted(downloads.glob("*.whl"))
    if process.returncode or not wheels:
        raise failure(process, f"asked for {WHEEL}")
    wheel = wheels[-1]
    expected = _WHEEL_SHA256.get(wheel.name)
    if expected and _sha256(wheel) != expected:
        wheel.unlink()
        raise LoweringError(f"{wheel.name} is not the file that is known by that name; it was deleted")
    return wheel


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unpack(wheel: Path, folder: Path) -> None:
    """Take AKG out of the wheel: its packages, and its library under ``lib``."""
    packages, library = "mindspore/_akg/", "libakg.so"
    found = False
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                target = None
                if entry.filename.rpartition("/")[2] == library:
                    target, found = folder / "lib" / library, True
                elif entry.filename.startswith(packages) and not entry.is_dir():
                    target = folder / entry.filename[len(packages) :]
                if target is None or not target.resolve().is_relative_to(folder.resolve()):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except zipfile.BadZipFile as error:
        wheel.unlink(missing_ok=True)
        raise LoweringError(f"{wheel.name} is no wheel: {error}; it was deleted") from error
    if not found or not (folder / "akg" / "__init__.py").is_file():
        raise LoweringError(f"{wheel.name} holds no AKG")


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{fetch()}\n")
    except FqError as error:
        sys.exit(f"error: {error}")

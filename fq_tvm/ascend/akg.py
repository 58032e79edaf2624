"""A program as stages of AKG, and AKG on it, to CCE-C.

Serves the Atlas training series.  AKG is the TVM 0.6 fork that MindSpore's wheel for Ascend bundles; it registers
itself as top-level ``tvm``, so it only ever runs in a process of its own.  ``ccec``, the compiler that makes an object
of CCE-C, comes with CANN.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from ..environment import akg_home
from .akg_install import missing, version
from .printer import ForkPrinter, Form, refuse_open_extents
from .problem import Problem
from .program import Constant, Operand, Program, Value
from .toolchain import Kernel, Lowered, Toolchain, ToolchainMissing, arguments, environment, failure, run


class _Stages(ForkPrinter):
    """The stages while they are printed; a form is an expression over its operands, and ``dtype``, the result's."""

    def write(self, form: str, result: Value, *operands: Operand) -> None:
        """Print a stage, one primitive of the hardware."""
        expression = form.format(*map(self.operand, operands), dtype=self.dtype(result.dtype))
        name, shape = self.actual(result).name, self.shape(result)
        self.lines.append(f"{name} = tvm.compute({shape}, lambda {_index(result)}: {expression}, name={name!r})")

    def shape(self, value: Value) -> str:
        """The extents of a value."""
        return f"({', '.join(map(str, self.program.extents(value)))},)"

    def operand(self, operand: Operand) -> str:
        """A value at the index of the stage that reads it, or a constant."""
        if isinstance(operand, Constant):
            return self.scalar(operand)
        source = self.actual(operand)
        return f"{source.name}({_index(source)})"


def _index(value: Value) -> str:
    return ", ".join(f"i{d}" for d in value.dims)


def _broadcast(stages: _Stages, result: Value, source: Value) -> None:
    """Print nothing: who reads the result indexes the source."""
    stages.stand_ins[result] = stages.actual(source)


def _round_half_even(stages: _Stages, result: Value, value: Operand) -> None:
    """Print a rounding: by int32, whose conversion rounds ties to even, where int32 holds it.

    From 2**25 on a float32 is whole, and so are infinities; they and NaN stay as they are.  The square tells the two
    apart in one comparison, strict because AKG swaps the others, which is wrong for NaN.
    """
    integer = stages.new("integer", "tvm.round({}).astype('int32')", result, value, dtype="int32")
    whole = stages.new("whole", "{}.astype('float32')", result, integer)
    square = stages.new("square", "{0} * {0}", result, value)
    small = f"{{}} < tvm.const({2.0**50!r}, 'float32')"
    stages.write(f"tvm.expr.Select({small}, {{}}, {{}})", result, square, whole, value)


def _less_equal(stages: _Stages, result: Value, first: Operand, second: Operand) -> None:
    """Print ``<=`` as ``<`` or ``==``, as AKG turns it into ``not >``, which is wrong for NaN."""
    same = stages.new("same", _EQUAL, result, first, second)
    stages.write(f"tvm.expr.Select({{}} < {{}}, {_TRUE}, {{}})", result, first, second, same)


_TRUE, _FALSE = "tvm.const(1.0, 'float32')", "tvm.const(0.0, 'float32')"
_EQUAL = f"tvm.expr.Select({{}} == {{}}, {_TRUE}, {_FALSE})"

FORMS: dict[str, Form] = {
    "cast": "{}.astype({dtype!r})",
    "broadcast": _broadcast,
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    # Ordered: the second operand where the first is NaN, whatever the hardware's maximum does.
    "maximum": "tvm.expr.Select({0} > {1}, {0}, {1})",
    "minimum": "tvm.min({}, {})",
    "round_half_even": _round_half_even,
    "equal": _EQUAL,
    "less_equal": _less_equal,
    "logical_and": "{} * {}",
}
"""An expression for each primitive.  AKG has comparisons only inside a selection, so they give 0 or 1."""


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
    stages = _Stages("akg", FORMS, program)
    outputs = [v.name for v in stages.walk()]
    inputs = [
        f"{v.name} = tvm.placeholder({stages.shape(v)}, name={v.name!r}, dtype={v.dtype!r})" for v in program.inputs
    ]
    taken = ", ".join([*(v.name for v in program.inputs), *outputs])
    return "\n".join(
        [
            f'"""Writes {name}.cce: run with AKG first on PYTHONPATH and a ccec on PATH."""',
            "",
            "import akg",
            "from akg import tvm",
            "",
            *inputs,
            *stages.lines,
            "",
            f"schedule = tvm.create_schedule([{', '.join(f'{n}.op' for n in outputs)}])",
            "with akg.build_config(dump_pass_ir=False):",
            f"    module = akg.build(schedule, [{taken}], 'cce', [], name={name!r},",
            "                       attrs={'target': 'cce'}, polyhedral=True)",
            f"with open('{name}.cce', 'w') as file:",
            "    file.write(module.imported_modules[0].get_source())",
            "",
        ]
    )


def probe() -> Toolchain:
    """Say whether AKG is here and can be imported, and how far it gets."""
    if reason := missing():
        return Toolchain("akg", False, detail=reason)
    with tempfile.TemporaryDirectory(prefix="fq_tvm-akg-") as scratch:
        command = [sys.executable, "-s", "-B", "-c", "import akg; from akg import tvm"]
        process = run(command, Path(scratch), _environment(Path(scratch), None), timeout=120)
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["it said nothing"]
        return Toolchain("akg", False, version(), f"`import akg` failed: {lines[-1]}")
    compiler = shutil.which("ccec")
    return Toolchain("akg", True, version(), "with ccec" if compiler else "no ccec: stops before the object")


def _environment(folder: Path, compiler: str | None) -> dict[str, str]:
    """AKG first, the caller's Python packages after it, and some ccec."""
    tools = Path(compiler).parent if compiler else folder / "tools"
    if compiler is None:
        # AKG wants the compiler to leave a file and looks no further into it.
        tools.mkdir(exist_ok=True)
        stub = tools / "ccec"
        stub.write_text('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && : > "$2"; shift; done\nexit 0\n')
        stub.chmod(0o755)
    return environment([tools], cann=compiler is not None, PYTHONPATH=str(akg_home()))


def build(problem: Problem, soc: str, folder: Path) -> Lowered:
    """Lower a problem with AKG.

    Parameters
    ----------
    problem : Problem
        Static extents.
    soc : str
        Of the Atlas training series; one code serves them all.
    folder : Path
        Where files go.

    Returns
    -------
    Lowered

    Raises
    ------
    LoweringError
        If AKG is not there, an extent is open, or AKG or the compiler fails.
    """
    refuse_open_extents("akg", problem.shape)
    if reason := missing():
        raise ToolchainMissing(reason)
    name = "fake_quant"
    whole = problem.collapsed(outer=True, inner=True)
    program = whole.program()
    script, source = f"{name}.akg.py", f"{name}.cce"
    (folder / script).write_text(emit(program, name))
    files = {"stages": script, "cce": source}
    compiler = shutil.which("ccec")
    with tempfile.TemporaryDirectory(prefix="fq_tvm-akg-") as scratch:
        work = Path(scratch)
        process = run([sys.executable, "-s", "-B", folder / script], work, _environment(work, compiler))
        metadata = work / "akg_kernel_meta" / f"{name}.json"
        if process.returncode or not (work / source).is_file() or not metadata.is_file():
            raise failure(process, f"on {script} for {soc}")
        described = json.loads(metadata.read_text())
        shutil.move(work / source, folder / source)
        if compiler:
            files.update(object=f"{name}.o", metadata=f"{name}.json")
            shutil.move(metadata.with_suffix(".o"), folder / files["object"])
            shutil.move(metadata, folder / files["metadata"])
    taken = arguments(program, program.extents)
    kernel = Kernel(described["kernelName"], "", whole.dims, described["blockDim"], taken, files)
    notes = {"buffer_padding_bytes": _PADDING, "magic": described["magic"]}
    if compiler:
        return Lowered(version(), "object by ccec", True, (), (kernel,), notes)
    remaining = (
        "run the same lowering where CANN's ccec is on PATH, or there, which is what AKG runs:",
        f"ccec -c -O2 {source} --cce-aicore-arch=dav-c100 --cce-aicore-only -o {name}.o",
    )
    return Lowered(version(), "CCE-C", False, remaining, (kernel,), notes)


_PADDING = 32
"""Bytes to which every buffer has to be padded: copies move whole blocks of this size."""

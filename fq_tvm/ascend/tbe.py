"""A program as an operator file for CANN's own TVM fork, and that fork on it, where CANN is installed.

Serves every processor that the installed CANN supports.  The file is written always; it calls the DSL, once for each
primitive, as the fork takes several outputs from the DSL alone.  Only the fork's documented contract is known here:
what the tests run is a double of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from .printer import ForkPrinter, Form, refuse_open_extents
from .problem import Problem
from .products import product_of
from .program import Constant, Operand, Program, Value
from .toolchain import Kernel, Lowered, LoweringError, Toolchain, arguments, environment, failure, run

_WITH_SCALAR = {"vadd", "vmax", "vmin", "vmul"}
"""The calls of two tensors that have a sister for a tensor and a scalar, whose name ends in s."""


class _Calls(ForkPrinter):
    """The DSL calls while they are printed; a form is the name of a function of tensors."""

    def write(self, form: str, result: Value, *operands: Operand) -> None:
        """Print a call of tensors, or of a tensor and a scalar."""
        first, *others = operands
        if form in _WITH_SCALAR and isinstance(others[0], Constant):
            self.call(result, f"{form}s", self.tensor(first, result), self.scalar(others[0]))
        else:
            self.call(result, form, *(self.tensor(operand, result) for operand in operands))

    def call(self, result: Value, function: str, *arguments: Value | str) -> None:
        """Print a call of values and texts."""
        said = ", ".join(self.actual(a).name if isinstance(a, Value) else a for a in arguments)
        self.lines.append(f"{self.actual(result).name} = dsl.{function}({said})")

    def tensor(self, operand: Operand, like: Value) -> Value:
        """An operand as a tensor of like's extents."""
        if isinstance(operand, Value):
            return operand
        full = Value(self.fresh_name("constant"), operand.dtype, like.dims)
        self.call(full, "broadcast", self.scalar(operand), self.extents(like))
        return full

    def extents(self, value: Value) -> str:
        """Where the call finds the extents of a value: those of x, or of the parameters."""
        return "extents" if value.dims == self.program.dims else "channel_extents"


def _cast(calls: _Calls, result: Value, operand: Operand) -> None:
    calls.call(result, "cast_to", calls.tensor(operand, result), repr(calls.dtype(result.dtype)))


def _broadcast(calls: _Calls, result: Value, source: Value) -> None:
    calls.call(result, "broadcast", source, calls.extents(result))


def _number(value: float) -> Constant:
    return Constant(value, "float32")


def _round_half_even(calls: _Calls, result: Value, operand: Operand) -> None:
    """Print a rounding: by int32 what int32 holds, and the rest, which is whole, as it is."""
    value, limit = calls.tensor(operand, result), 2.0**25
    above = calls.new("above", "vmax", result, value, _number(-limit))
    small = calls.new("small", "vmin", result, above, _number(limit))
    integer = calls.new("integer", "round", result, small, dtype="int32")
    whole = calls.new("whole", _cast, result, integer)
    rest = calls.new("rest", "vsub", result, value, small)
    calls.write("vadd", result, whole, rest)


def _distance(calls: _Calls, result: Value, first: Operand, second: Operand, least: float) -> Value:
    """The difference of two whole numbers, clipped to [least, 1]."""
    tensors = [calls.tensor(operand, result) for operand in (first, second)]
    difference = calls.new("difference", "vsub", result, *tensors)
    most = calls.new("most", "vmin", result, difference, _number(1.0))
    return calls.new("distance", "vmax", result, most, _number(least))


def _inverted(calls: _Calls, result: Value, bit: Value) -> None:
    negative = calls.new("negative", "vmul", result, bit, _number(-1.0))
    calls.write("vadd", result, negative, _number(1.0))


def _equal(calls: _Calls, result: Value, first: Operand, second: Operand) -> None:
    """Print an equality of whole numbers as arithmetic: which comparisons there are differs from SoC to SoC."""
    distance = _distance(calls, result, first, second, -1.0)
    _inverted(calls, result, calls.new("square", "vmul", result, distance, distance))


def _less_equal(calls: _Calls, result: Value, first: Operand, second: Operand) -> None:
    """Print ``<=`` of whole numbers as arithmetic."""
    _inverted(calls, result, _distance(calls, result, first, second, 0.0))


FORMS: dict[str, Form] = {
    "cast": _cast,
    "broadcast": _broadcast,
    "add": "vadd",
    "subtract": "vsub",
    "multiply": "vmul",
    "divide": "vdiv",  # vrec is approximate
    "maximum": "vmax",
    "minimum": "vmin",
    "round_half_even": _round_half_even,
    "equal": _equal,
    "less_equal": _less_equal,
    "logical_and": "vmul",
}
"""A call for each primitive."""

_FILE = '''"""{name}: an operator for CANN's TVM fork, in calls of its DSL.

    python {file} DIRECTORY [SOC]

writes DIRECTORY/kernel_meta, where CANN's set_env.sh has been sourced.
"""

import sys

NAME = {name!r}
SOC = {soc!r}
CORE_TYPE = {core_type!r}
INPUTS = (
{inputs}
)


def compute(dsl, tvm, extents, channel_extents, {arguments}):
    """One call a primitive.  Extents are passed in, as the fork may merge dimensions before it gets here."""
{body}
    return [{outputs}]


def build(directory, soc=SOC):
    from tbe import dsl, tvm
    from tbe.common import buildcfg
    from tbe.common.context import op_context
    from tbe.common.context.op_info import OpInfo
    from tbe.common.platform import set_current_compile_soc_info
    from tbe.common.utils import shape_util

    set_current_compile_soc_info(soc, CORE_TYPE)
    inputs = [
        dict(shape=shape, ori_shape=shape, range=[(n, n) for n in shape], dtype=dtype, format="ND", ori_format="ND")
        for _, dtype, shape in INPUTS
    ]
    with op_context.OpContext("static") as context, buildcfg.build_config(kernel_meta_parent_dir=directory):
        context.add_op_info(OpInfo(NAME, NAME))
        schedules, tensors = [], []
        for case in dsl.classify(inputs, "broadcast"):
            with dsl.compute():
                shapes = shape_util.variable_shape(case)
                placed = [
                    tvm.placeholder(shape, name=name, dtype=dtype)
                    for shape, (name, dtype, _) in zip(shapes, INPUTS)
                ]
                results = compute(dsl, tvm, shapes[0], shapes[1], *placed)
                tensors.append([*placed, *results])
            with tvm.target.cce():
                schedules.append(dsl.auto_schedule(results))
        dsl.build(schedules, {{"name": NAME, "tensor_list": tensors}})


if __name__ == "__main__":
    build(*sys.argv[1:])
'''


def emit(program: Program, name: str, soc: str = "Ascend910B1") -> str:
    """Print a program as a Python operator file that needs CANN alone.

    Parameters
    ----------
    program : Program
        Static extents; float16, float32, int32 and bool values; bool outputs become int8.
    name : str
        Of the operator and its kernel.
    soc : str
        What it is built for.

    Returns
    -------
    str

    Raises
    ------
    FqError
        If a primitive, a dtype or an open extent has no form here, or the SoC is unknown.
    """
    calls = _Calls("tbe", FORMS, program)
    outputs = calls.walk()
    # Both operands of a call have one rank: the channel's tensors have extent 1 along the other dimensions.
    inputs = [f"    ({v.name!r}, {v.dtype!r}, {list(program.spread(v))})," for v in program.inputs]
    return _FILE.format(
        name=name,
        file=f"{name}.tbe.py",
        soc=soc,
        core_type=product_of(soc).core_type,
        inputs="\n".join(inputs),
        arguments=", ".join(v.name for v in program.inputs),
        body="\n".join(f"    {line}" for line in calls.lines),
        outputs=", ".join(v.name for v in outputs),
    )


_PROBE = "import tbe, tbe.dsl, tbe.tvm; print('version', getattr(tbe, '__version__', ''))"


def probe() -> Toolchain:
    """Say whether CANN's fork can be imported, by trying in a process of its own: a package that is there may not."""
    with tempfile.TemporaryDirectory(prefix="fq_tvm-tbe-") as scratch:
        try:
            process = run([sys.executable, "-B", "-c", _PROBE], Path(scratch), environment(cann=True), timeout=120)
        except LoweringError as error:
            return Toolchain("tbe", False, detail=str(error))
    said = [line for line in process.stdout.splitlines() if line.startswith("version")]
    if process.returncode == 0 and said:
        return Toolchain("tbe", True, said[-1].removeprefix("version").strip())
    lines = process.stderr.strip().splitlines() or [f"status {process.returncode}"]
    return Toolchain("tbe", False, detail=f"`import tbe` failed: {lines[-1][:300]}; source the set_env.sh of a CANN")


def build(problem: Problem, soc: str, folder: Path) -> Lowered:
    """Write the operator file, and build it where the fork is there.

    Parameters
    ----------
    problem : Problem
        Static extents.
    soc : str
        Any that CANN supports.
    folder : Path
        Where files go.

    Returns
    -------
    Lowered

    Raises
    ------
    LoweringError
        If an extent is open, or the fork is there and fails on the file.
    """
    refuse_open_extents("tbe", problem.shape)
    name = "fake_quant"
    whole = problem.collapsed(outer=True, inner=True)
    program = whole.program()
    taken = arguments(program, program.spread)
    file = f"{name}.tbe.py"
    files = {"operator": file}
    (folder / file).write_text(emit(program, name, soc))
    toolchain = probe()
    notes = {"import": str(toolchain)}
    if not toolchain:
        kernel = Kernel(name, "", whole.dims, None, taken, files)
        remaining = ("where CANN is installed: source its set_env.sh, then", f"python {file} .")
        return Lowered(toolchain.version, "operator file", False, remaining, (kernel,), notes)
    with tempfile.TemporaryDirectory(prefix="fq_tvm-tbe-") as scratch:
        process = run([sys.executable, "-B", folder / file, folder], Path(scratch), environment(cann=True))
    made = folder / "kernel_meta" / f"{name}.json"
    if process.returncode or not made.is_file():
        raise failure(process, f"on {file} for {soc}")
    files.update(object=f"kernel_meta/{name}.o", metadata=f"kernel_meta/{name}.json")
    kernel = Kernel(name, "", whole.dims, json.loads(made.read_text()).get("blockDim"), taken, files)
    return Lowered(toolchain.version, "object by tbe", True, (), (kernel,), notes)

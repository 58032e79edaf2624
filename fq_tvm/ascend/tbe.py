"""A program as an operator file for CANN's own TVM fork, and that fork on it, where CANN is installed.

Serves every processor that the installed CANN supports.  The file is written always; it calls the DSL, once for each
primitive, as the fork takes several outputs from the DSL alone.  Only the fork's documented contract is known here:
what the tests run is a double of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import FqError
from .problem import Problem
from .program import Constant, Operand, Program, Step, Value
from .toolchain import Built, Kernel, LoweringError, Toolchain, argument, environment, failure, run

__all__ = ["PRINTERS", "build", "emit", "probe"]


class _Calls:
    """The DSL calls while they are printed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.lines: list[str] = []
        self.names = {v.name: f"{v.name}_bit" for v in program.outputs if v.dtype == "bool"}
        self._temporaries = 0

    def name(self, value: Value) -> str:
        """The variable of a value; a bool output ends as int8 under its own name."""
        return self.names.get(value.name, value.name)

    def scalar(self, constant: Constant) -> str:
        return f"tvm.const({constant.value!r}, {_dtype(constant.dtype)!r})"

    def tensor(self, operand: Operand, like: Value) -> str:
        """An operand as a tensor of like's extents."""
        if isinstance(operand, Value):
            return self.name(operand)
        full = self.temporary("constant", like)
        self.lines.append(f"{full.name} = dsl.broadcast({self.scalar(operand)}, {self.extents(like)})")
        return full.name

    def extents(self, value: Value) -> str:
        """Where the call finds the extents of a value: those of x, or of the parameters."""
        return "extents" if value.dims == self.program.dims else "channel_extents"

    def call(self, result: Value, function: str, *arguments: str) -> Value:
        self.lines.append(f"{self.name(result)} = dsl.{function}({', '.join(arguments)})")
        return result

    def temporary(self, stem: str, like: Value, dtype: str = "float32") -> Value:
        """A value that the program does not have, under a name that it cannot have."""
        self._temporaries += 1
        return Value(f"_{stem}{self._temporaries}", dtype, like.dims)


Printer = Callable[[_Calls, Step], None]


def _call(function: str) -> Printer:
    """Print a step as a call of its operands, all of them tensors."""

    def print_step(calls: _Calls, step: Step) -> None:
        calls.call(step.result, function, *(calls.tensor(o, step.result) for o in step.operands))

    return print_step


def _scalar(tensors: str, scalar: str) -> Printer:
    """Print a step as a call of two tensors, or as another of a tensor and a scalar."""

    def print_step(calls: _Calls, step: Step) -> None:
        first, second = step.operands
        if isinstance(second, Constant):
            calls.call(step.result, scalar, calls.tensor(first, step.result), calls.scalar(second))
        else:
            _call(tensors)(calls, step)

    return print_step


def _cast(calls: _Calls, step: Step) -> None:
    target = f"{_dtype(step.result.dtype)!r}"
    calls.call(step.result, "cast_to", calls.tensor(step.operands[0], step.result), target)


def _broadcast(calls: _Calls, step: Step) -> None:
    calls.call(step.result, "broadcast", calls.tensor(step.operands[0], step.result), calls.extents(step.result))


def _round_half_even(calls: _Calls, step: Step) -> None:
    """Print a rounding: by int32 what int32 holds, and the rest, which is whole, as it is."""
    result, value = step.result, calls.tensor(step.operands[0], step.result)
    limit = 2.0**25

    def clipped(stem: str, function: str, source: str, bound: float) -> Value:
        return calls.call(calls.temporary(stem, result), function, source, calls.scalar(Constant(bound, "float32")))

    above = clipped("above", "vmaxs", value, -limit)
    small = clipped("small", "vmins", above.name, limit)
    integer = calls.call(calls.temporary("integer", result, "int32"), "round", small.name)
    whole = calls.call(calls.temporary("whole", result), "cast_to", integer.name, "'float32'")
    rest = calls.call(calls.temporary("rest", result), "vsub", value, small.name)
    calls.call(result, "vadd", whole.name, rest.name)


def _distance(calls: _Calls, step: Step, least: float) -> Value:
    """The difference of two whole numbers, clipped to [least, 1]."""
    first, second = (calls.tensor(o, step.result) for o in step.operands)
    value = calls.call(calls.temporary("difference", step.result), "vsub", first, second)
    value = calls.call(calls.temporary("most", step.result), "vmins", value.name, "tvm.const(1.0, 'float32')")
    bound = f"tvm.const({least!r}, 'float32')"
    return calls.call(calls.temporary("distance", step.result), "vmaxs", value.name, bound)


def _inverted(calls: _Calls, result: Value, bit: Value) -> None:
    negative = calls.call(calls.temporary("negative", result), "vmuls", bit.name, "tvm.const(-1.0, 'float32')")
    calls.call(result, "vadds", negative.name, "tvm.const(1.0, 'float32')")


def _equal(calls: _Calls, step: Step) -> None:
    """Print an equality of whole numbers as arithmetic: which comparisons there are differs from SoC to SoC."""
    distance = _distance(calls, step, -1.0)
    square = calls.call(calls.temporary("square", step.result), "vmul", distance.name, distance.name)
    _inverted(calls, step.result, square)


def _less_equal(calls: _Calls, step: Step) -> None:
    """Print ``<=`` of whole numbers as arithmetic."""
    _inverted(calls, step.result, _distance(calls, step, 0.0))


# A bool is a float32 of 0 or 1.
PRINTERS: dict[str, Printer] = {
    "cast": _cast,
    "broadcast": _broadcast,
    "add": _scalar("vadd", "vadds"),
    "subtract": _call("vsub"),
    "multiply": _scalar("vmul", "vmuls"),
    "divide": _call("vdiv"),  # vrec is approximate
    "maximum": _scalar("vmax", "vmaxs"),
    "minimum": _scalar("vmin", "vmins"),
    "round_half_even": _round_half_even,
    "equal": _equal,
    "less_equal": _less_equal,
    "logical_and": _call("vmul"),
}

_DTYPES = {"float16": "float16", "float32": "float32", "int32": "int32", "int8": "int8", "bool": "float32"}


def _dtype(dtype: str) -> str:
    if dtype not in _DTYPES:
        raise FqError(f"tbe has no vectors of {dtype}; it takes {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


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


def emit(program: Program, name: str, soc: str = "Ascend910B1", core_type: str = "VectorCore") -> str:
    """Print a program as a Python operator file that needs CANN alone.

    Parameters
    ----------
    program : Program
        Static extents; float16, float32, int32 and bool values; bool outputs become int8.
    name : str
        Of the operator and its kernel.
    soc, core_type : str
        What it is built for.

    Returns
    -------
    str

    Raises
    ------
    FqError
        If a primitive, a dtype or an open extent has no form here.
    """
    if None in program.shape:
        raise FqError(f"tbe lowers static shapes here; extents are open in {program.shape}")
    calls = _Calls(program)
    for step in program.steps:
        if step.primitive not in PRINTERS:
            raise FqError(f"tbe has no form for the primitive {step.primitive}; known: {', '.join(PRINTERS)}")
        _dtype(step.result.dtype)
        PRINTERS[step.primitive](calls, step)
    for value in program.outputs:
        if value.dtype == "bool":
            half = calls.temporary("half", value, "float16")
            calls.call(half, "cast_to", calls.name(value), "'float16'")
            calls.lines.append(f"{value.name} = dsl.cast_to({half.name}, 'int8')")
    # Both operands of a call have one rank: the channel's tensors have extent 1 along the other dimensions.
    inputs = [
        f"    ({v.name!r}, {v.dtype!r}, {[program.shape[d] if d in v.dims else 1 for d in program.dims]}),"
        for v in program.inputs
    ]
    return _FILE.format(
        name=name,
        file=f"{name}.tbe.py",
        soc=soc,
        core_type=core_type,
        inputs="\n".join(inputs),
        arguments=", ".join(v.name for v in program.inputs),
        body="\n".join(f"    {line}" for line in calls.lines),
        outputs=", ".join(v.name for v in program.outputs),
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


def build(problem: Problem, soc: str, folder: Path, core_type: str = "AiCore") -> Built:
    """Write the operator file, and build it where the fork is there.

    Parameters
    ----------
    problem : Problem
        Static extents.
    soc, core_type : str
        Any that CANN supports, and the cores that vector code runs on.
    folder : Path
        Where files go.

    Returns
    -------
    Built

    Raises
    ------
    LoweringError
        If an extent is open, or the fork is there and fails on the file.
    """
    if problem.dynamic:
        raise LoweringError(f"tbe lowers static shapes here; extents are open in {problem.shape}")
    name = "fake_quant"
    whole = problem.collapsed(outer=True, inner=True)
    program = whole.program()
    file = f"{name}.tbe.py"
    (folder / file).write_text(emit(program, name, soc, core_type))
    files = {"operator": file}
    outputs = [
        argument(v.name, "int8" if v.dtype == "bool" else v.dtype, program.shape, "out") for v in program.outputs
    ]
    inputs = [
        argument(v.name, v.dtype, [program.shape[d] if d in v.dims else 1 for d in program.dims], "in")
        for v in program.inputs
    ]
    toolchain = probe()
    block_dim = None
    remaining: tuple[str, ...] = (
        "where CANN is installed: source its set_env.sh, then",
        f"python {file} .",
    )
    reached, notes = "operator file", {"import": str(toolchain)}
    if toolchain:
        with tempfile.TemporaryDirectory(prefix="fq_tvm-tbe-") as scratch:
            command: list[str | Path] = [sys.executable, "-B", folder / file, folder]
            process = run(command, Path(scratch), environment(cann=True))
        made = folder / "kernel_meta" / f"{name}.json"
        if process.returncode or not made.is_file():
            raise failure(process, f"on {file} for {soc}")
        block_dim = json.loads(made.read_text()).get("blockDim")
        files.update(object=f"kernel_meta/{name}.o", metadata=f"kernel_meta/{name}.json")
        reached, remaining = "object by tbe", ()
    kernel = Kernel(name, "", whole.dims, block_dim, (*inputs, *outputs), files)
    return Built(toolchain.version, reached, bool(toolchain), remaining, (kernel,), notes)

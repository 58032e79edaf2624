"""A program as MLIR for AscendNPU-IR, and the vendor's compiler on it, to the file handed to the device backend.

Serves Atlas A2, Atlas A3 and Ascend 950.  The PyPI package ``ascendnpu-ir`` holds everything but ``hivmc``, the
backend, which comes with CANN: without it the last file made is the backend's input.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FqError
from .problem import Problem
from .program import Constant, Operand, Program, Step, Value
from .toolchain import Built, Kernel, Toolchain, ToolchainMissing, argument, environment, failure, run

__all__ = ["PRINTERS", "build", "emit", "hfusion_pipeline", "probe"]

_DTYPES = {"float16": "f16", "float32": "f32", "int32": "i32", "int8": "i8", "bool": "i1"}


class _Text:
    """The body of a function while it is printed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.lines: list[str] = []
        self._made: dict[str, str] = {}
        self._temporaries = 0

    def line(self, text: str) -> None:
        self.lines.append(f"    {text}")

    def type(self, value: Value) -> str:
        """The tensor type of a value."""
        extents = ["?" if n is None else str(n) for n in self.program.extents(value)]
        return f"tensor<{'x'.join([*extents, _dtype(value.dtype)])}>"

    def empty(self, like: Value) -> str:
        """A tensor to write into; one for each use, as bufferization wants it."""
        name = self.temporary("empty")
        unknown = [self._extent(d) for d, n in zip(like.dims, self.program.extents(like), strict=True) if n is None]
        self.line(f"{name} = tensor.empty({', '.join(unknown)}) : {self.type(like)}")
        return name

    def operand(self, operand: Operand, like: Value) -> str:
        """A value by name; a constant as a tensor of the same extents as like, filled with it."""
        if isinstance(operand, Value):
            return f"%{operand.name}"
        scalar = self._once(f"constant_{operand.dtype}_{operand.value!r}", f"arith.constant {_literal(operand)}", "c")
        filled = Value("", operand.dtype, like.dims)
        empty, name = self.empty(filled), self.temporary("fill")
        self.line(
            f"{name} = linalg.fill ins({scalar} : {_dtype(operand.dtype)}) outs({empty} : {self.type(filled)})"
            f" -> {self.type(filled)}"
        )
        return name

    def apply(self, operation: str, operands: tuple[Operand, ...], result: Value) -> None:
        """``result = operation ins(operands) outs(an empty tensor)``; operands have the extents of result."""
        names = [self.operand(o, result) for o in operands]
        types = [self.type(Value("", o.dtype, result.dims)) for o in operands]
        empty, kind = self.empty(result), self.type(result)
        self.line(
            f"%{result.name} = {operation} ins({', '.join(names)} : {', '.join(types)})"
            f" outs({empty} : {kind}) -> {kind}"
        )

    def temporary(self, stem: str) -> str:
        """A name that no value of the program has, as none of them begins with an underscore."""
        self._temporaries += 1
        return f"%_{stem}{self._temporaries}"

    def _extent(self, dim: int) -> str:
        whole = next(v for v in self.program.inputs if v.dims == self.program.dims)
        index = self._once(f"index_{dim}", f"arith.constant {dim} : index", "index")
        return self._once(f"extent_{dim}", f"tensor.dim %{whole.name}, {index} : {self.type(whole)}", "extent")

    def _once(self, key: str, expression: str, stem: str) -> str:
        if key not in self._made:
            self._made[key] = self.temporary(stem)
            self.line(f"{self._made[key]} = {expression}")
        return self._made[key]


Printer = Callable[[_Text, Step], None]


def _named(operation: str, **attributes: str) -> Printer:
    """Print a step as one operation of the structured dialects."""
    listed = ", ".join(f"{key} = {value}" for key, value in attributes.items())

    def print_step(text: _Text, step: Step) -> None:
        text.apply(f"{operation} {{{listed}}}", step.operands, step.result)

    return print_step


def _binary(function: str) -> Printer:
    return _named("linalg.elemwise_binary", fun=f"#linalg.binary_fn<{function}>")


def _compare(function: str) -> Printer:
    return _named("hfusion.compare", compare_fn=f"#hfusion.compare_fn<{function}>")


def _divide(text: _Text, step: Step) -> None:
    """Print a quotient; a reciprocal as the negative of one where nothing will be broadcast.

    The compiler rewrites ``x * (1 / s)`` to ``x / s``, which rounds otherwise, unless a broadcast is between the two.
    It looks for the constant one; negating twice is exact.
    """
    numerator, denominator = step.operands
    reciprocal = isinstance(numerator, Constant) and numerator.value == 1
    if not reciprocal or step.result.dims != text.program.dims:
        return _binary("div")(text, step)
    minus_one = Constant(-1.0, numerator.dtype)
    negative = Value(text.temporary("negative")[1:], step.result.dtype, step.result.dims)
    _binary("div")(text, Step(negative, "divide", (minus_one, denominator)))
    _binary("mul")(text, Step(step.result, "multiply", (negative, minus_one)))


def _maximum(text: _Text, step: Step) -> None:
    """Print an ordered maximum: the second operand where the first is NaN, whatever the hardware's maximum does."""
    first, second = step.operands
    greater = Value(text.temporary("greater")[1:], "bool", step.result.dims)
    _compare("vgt")(text, Step(greater, "greater", (first, second)))
    text.apply("hfusion.select", (greater, first, second), step.result)


def _broadcast(text: _Text, step: Step) -> None:
    source = step.operands[0]
    assert isinstance(source, Value)
    added = [str(i) for i, d in enumerate(step.result.dims) if d not in source.dims]
    empty, kind = text.empty(step.result), text.type(step.result)
    text.line(
        f"%{step.result.name} = linalg.broadcast ins(%{source.name} : {text.type(source)})"
        f" outs({empty} : {kind}) dimensions = [{', '.join(added)}]"
    )


_ROUND = _named("hfusion.cast", round_mode="#hfusion.round_mode<rint>")

PRINTERS: dict[str, Printer] = {
    "cast": _ROUND,
    "broadcast": _broadcast,
    "add": _binary("add"),
    "subtract": _binary("sub"),
    "multiply": _binary("mul"),
    "divide": _divide,
    "maximum": _maximum,
    "minimum": _binary("min_signed"),
    "round_half_even": _ROUND,
    "equal": _compare("veq"),
    "less_equal": _compare("vle"),
    "logical_and": _named("hfusion.elemwise_binary", fun="#hfusion.binary_fn<vand>"),
}


def emit(program: Program, name: str) -> str:
    """Print a program as a module of one device function.

    Parameters
    ----------
    program : Program
        float16, float32, int32 and bool values; bool outputs become int8.
    name : str
        Symbol of the function.

    Returns
    -------
    str

    Raises
    ------
    FqError
        If a primitive or a dtype has no form here.
    """
    if not any(value.dims == program.dims for value in program.inputs):
        raise FqError("npuir takes the extents from an input of the result's shape; this program has none")
    text = _Text(program)
    for step in program.steps:
        if step.primitive not in PRINTERS:
            raise FqError(f"npuir has no form for the primitive {step.primitive}; known: {', '.join(PRINTERS)}")
        PRINTERS[step.primitive](text, step)
    results = []
    for value in program.outputs:
        if value.dtype == "bool":
            byte = Value(f"_{value.name}_int8", "int8", value.dims)
            _ROUND(text, Step(byte, "cast", (value,)))
            value = byte
        results.append(value)
    types = ", ".join(text.type(v) for v in results)
    arguments = ", ".join(f"%{v.name}: {text.type(v)}" for v in program.inputs)
    return "\n".join(
        [
            "module {",
            f"  func.func @{name}({arguments}) -> ({types})",
            # A HOST function of this form crashes the compiler.
            "      attributes {hacc.entry, hacc.function_kind = #hacc.function_kind<DEVICE>} {",
            *text.lines,
            f"    return {', '.join(f'%{v.name}' for v in results)} : {types}",
            "  }",
            "}",
            "",
        ]
    )


def _dtype(dtype: str) -> str:
    if dtype not in _DTYPES:
        raise FqError(f"npuir has no vectors of {dtype}; it takes {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _literal(constant: Constant) -> str:
    """A constant with its type, exact: the bits in hexadecimal where decimals would not be read back."""
    dtype = _dtype(constant.dtype)
    if not dtype.startswith("f"):
        return f"{int(constant.value)} : {dtype}"
    number: Any = np.dtype(constant.dtype).type(constant.value)
    digits = repr(float(number))
    if "." not in digits or "e" in digits:
        digits = f"0x{number.tobytes()[::-1].hex().upper()}"
    return f"{digits} : {dtype}"


# The passes that the vendor's driver runs on a named-op module, from its public sources, without the last
# hfusion-normalize-ops: with it, results of rank above 1 in one byte or one bit are refused.
_CLEAN = ("cse", "{canonicalize}", "func(normalize-tensor-ops)")
_CLEAN_FILL = (
    "cse",
    "{canonicalize=FoldFillWithTensorReshapeCollapse,FoldFillWithTensorReshapeExpand}",
    "func(normalize-tensor-ops)",
)
_CLEAN_TRANSPOSE = ("cse", "{canonicalize=FoldTransposeWithTranspose}", "func(normalize-tensor-ops)")
_PASSES = (
    # Named ops of every dialect become HFusion's.
    "func(erase-symbol)",
    "convert-arith-to-hfusion",
    "convert-math-to-hfusion",
    "convert-linalg-to-hfusion",
    "convert-tensor-to-hfusion",
    "func(canonicalize-tensor-reshape)",
    *_CLEAN,
    "convert-arith-to-hfusion",
    "func(hfusion-convert-generic-to-named)",
    "func(hfusion-legalize-bf16)",
    "func(hfusion-decompose{hfusion-decompose-phase=no-constraint})",
    "func(hfusion-normalize-slice-ops)",
    "func(hfusion-normalize-ops)",
    "hfusion-legalize-bool",
    "func(hfusion-simplify-ops)",
    "func(hfusion-inline-brc)",
    "func(hfusion-normalize-ops)",
    *_CLEAN,
    # Dimensions that need not be apart become one.
    "func(bubble-up-extract-slice)",
    *_CLEAN,
    "func(linalg-fold-unit-extent-dims{use-rank-reducing-slices=false fold-rank-reducing-slices=false})",
    *_CLEAN,
    "func(convert-arith-to-hfusion)",
    "func(hfusion-compose-multi-reduce{aggressive=true})",
    "func(propagate-reshape)",
    "func(hfusion-simplify-ops)",
    *_CLEAN,
    "func(fold-tensor-empty)",
    "func(hfusion-flatten-ops{flatten-mode=tidy skip-host=false multi-dynamic-shape=false})",
    "func(canonicalize-tensor-reshape)",
    *_CLEAN_FILL,
    "func(hfusion-cache-io-for-return-arg)",
    "func(fold-tensor-empty)",
    *_CLEAN_FILL,
    # One fused kernel.
    "func(hfusion-fold-symbolic-dim)",
    "func(hfusion-infer-func-fusion-kind)",
    "hfusion-fuse-ops{output-mode=multi multi-kernel=false}",
    *_CLEAN_FILL,
    "func(hfusion-outline-single-op)",
    *_CLEAN_FILL,
    "func(hfusion-unfold-symbolic-dim)",
    "func(hfusion-drop-symbols)",
    "hfusion-eliminate-duplicate-funcs",
    "func(hfusion-downgrade-fp64)",
    "func(trickle-concat-down)",
    "func(bubble-pad-up)",
    "hfusion-legalize-bool",
    "func(fold-tensor-empty)",
    "func(normalize-last-dim-unaligned-tensor-op)",
    # Tiles, blocks and the host's tiling function.
    "func(hfusion-reorder-ops)",
    *_CLEAN_FILL,
    "func(hfusion-decompose{hfusion-decompose-phase=after-hfusion-flatten})",
    "{schedule}",
    "func(hfusion-decompose-multi)",
    "func(hfusion-convert-generic-to-named)",
    *_CLEAN_TRANSPOSE,
    "func(hfusion-reorder-ops)",
    "hfusion-constantize-tiling-data",
    *_CLEAN_TRANSPOSE,
    "hfusion-pack-tiling-data{emit-get-tiling-struct-size-function=true pack-tiling-key=false}",
    "convert-arith-to-affine",
    *_CLEAN_TRANSPOSE,
    "scf-for-loop-canonicalization",
    *_CLEAN_TRANSPOSE,
    "hfusion-wrap-host-func{remove-unused-arguments=true}",
    *_CLEAN_TRANSPOSE,
    "func(hfusion-inline-brc)",
    "hfusion-add-ffts-addr",
    "hfusion-hoist-tensor-empty",
    "func(hfusion-decompose{hfusion-decompose-phase=after-hfusion-flatten})",
)


def hfusion_pipeline(block_dim: int, canonicalize: str = "canonicalize-ext", tuning: int = 0) -> str:
    """Spell the passes from named ops to a tiled, multi-core kernel.

    Parameters
    ----------
    block_dim : int
        Blocks to spread the tiles over.
    canonicalize : str
        What the compiler's canonicalization is called.
    tuning : int
        Bits of buffer for each element that tiles allow for beyond what the compiler counts; more makes tiles smaller.
    """
    options = f"block-dim={block_dim} enable-auto-multi-buffer=false max-buffer-count-tuning={tuning}"
    schedule = f"hfusion-auto-schedule{{{options}}}"
    passes = []
    for text in _PASSES:
        if text.startswith("{canonicalize"):
            disabled = text[1:-1].partition("=")[2]
            text = canonicalize + (f"{{disable-patterns={disabled}}}" if disabled else "")
        passes.append(schedule if text == "{schedule}" else text.replace("func(", "func.func(", 1))
    return f"builtin.module({','.join(passes)})"


@dataclass(frozen=True)
class _Compiler:
    """The binaries for a SoC, and how they differ."""

    suffix: str
    canonicalize: str

    def program(self, name: str) -> Path:
        return _package() / "bin" / f"{name}{self.suffix}"

    @property
    def backend(self) -> str:
        return f"hivmc{self.suffix}"


def _compiler_for(soc: str) -> _Compiler:
    return _Compiler("-a5", "canonicalize") if soc.startswith("Ascend950") else _Compiler("", "canonicalize-ext")


def _package() -> Path:
    """Folder of the PyPI package ascendnpu-ir."""
    found = importlib.util.find_spec("ascendnpuir")
    if found is None or found.origin is None:
        raise ToolchainMissing("npuir needs the PyPI package ascendnpu-ir: pip install 'fq_tvm[ascend]'")
    return Path(found.origin).parent


def probe() -> Toolchain:
    """Say whether the vendor's compiler is here, and how far it gets."""
    from importlib import metadata

    try:
        binary = _package() / "bin" / "bishengir-opt"
        version = metadata.version("ascendnpu-ir")
    except (ToolchainMissing, metadata.PackageNotFoundError) as error:
        return Toolchain("npuir", False, detail=str(error) or "the package ascendnpu-ir is not installed")
    if not binary.exists():
        return Toolchain("npuir", False, version, f"ascendnpu-ir {version} holds no bishengir-opt")
    backend = shutil.which("hivmc")
    return Toolchain("npuir", True, version, "with hivmc" if backend else "no hivmc: stops before the object")


_LEAST_INNER = 16
"""Least inner extent that the kernel for many inner elements serves, where the extent is known only at run time."""


@dataclass(frozen=True)
class _Variant:
    """A kernel for some of the extents that a problem leaves open."""

    name: str
    when: str
    problem: Problem
    rows: tuple[int, ...]
    """Extents that the last dimension may have where a tile holds several of its rows."""


def _variants(problem: Problem) -> list[_Variant]:
    """The kernels that serve a problem together.

    A row in the unified buffer is padded to 32 bytes, and the tiles of a kernel of unknown extents are sized without
    that, so that the shortest row it may meet decides how much a tile can hold.  One kernel for any inner extent
    would be slow for all; so there are three.
    """
    whole = problem.collapsed()
    if whole.axis == len(whole.shape) - 1:
        # The compiler's tiles are whole multiples of 256 along the last dimension where that is the channel.
        return [_Variant("fake_quant", "", whole, (256,))]
    if whole.inner is not None:
        return [_Variant("fake_quant", "", whole, (whole.inner,))]
    outer, channels = whole.shape[: whole.axis], whole.channels
    one = problem.with_shape((*outer, channels, 1), whole.axis).collapsed()
    return [
        _Variant("fake_quant", f"inner >= {_LEAST_INNER}", whole, tuple(range(_LEAST_INNER, _LEAST_INNER + 256))),
        _Variant("fake_quant_short", f"2 <= inner < {_LEAST_INNER}", whole, tuple(range(2, _LEAST_INNER))),
        _Variant("fake_quant_single", "inner == 1", one, (256,)),
    ]


_TUNINGS = (0, 200, 700, 2000, 3500)
"""What is tried until the buffers of a tile fit.  3500 makes tiles of 256 elements, and no tile can be smaller."""

_MARK = re.compile(r"(?<=buffer_size_in_byte = )\d+")


def _make_room(module: str, rows: tuple[int, ...]) -> str:
    """Raise the size of every buffer of a kernel of unknown extents to what its tile takes with padded rows.

    The compiler reserves elements times width.  A tile of many short rows takes more, as each row starts at a
    multiple of 32 bytes, and would overrun the buffer.  A buffer that carries no size gets as many elements as the
    first that does.
    """
    sizes = [int(size) for size in _MARK.findall(module)]
    if not sizes:
        return module
    elements = max(sizes) // 4

    def padded(bits: int) -> int:
        """Bytes of a tile of elements of so many bits."""
        worst = max(Fraction(-(-row * bits // 256) * 32, row) for row in rows)
        return -(-int(-(-elements * worst // 1)) // 32) * 32

    every = max(map(padded, (32, 16, 8, 1)))
    first = max(every, 2 * padded(16))

    def raise_sizes(function: str) -> str:
        sizes = iter([str(first)])
        return _MARK.sub(lambda _: next(sizes, str(every)), function)

    return "".join(raise_sizes(function) for function in re.split(r"(?=\n  func\.func)", module))


def build(problem: Problem, soc: str, folder: Path, core_type: str = "") -> Built:
    """Lower a problem with the vendor's compiler.

    Parameters
    ----------
    problem : Problem
    soc : str
        Of Atlas A2, Atlas A3 or Ascend 950.
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
        If the package is not installed, or the compiler fails.
    """
    toolchain = probe()
    if not toolchain:
        raise ToolchainMissing(toolchain.detail)
    compiler = _compiler_for(soc)
    backend = shutil.which(compiler.backend)
    cores = _vector_cores(compiler, soc, folder)
    kernels = tuple(_build_kernel(v, soc, compiler, backend, cores, folder) for v in _variants(problem))
    remaining = (
        ()
        if backend
        else (
            f"run the same lowering where CANN's {compiler.backend} is on PATH, or there, with ascendnpu-ir "
            f"{toolchain.version} installed:",
            *(f"{compiler.backend} {k.files['hivm']} {' '.join(_BACKEND_FLAGS)} -o {k.name}.o" for k in kernels),
        )
    )
    reached = f"object by {compiler.backend}" if backend else f"the module handed to {compiler.backend}"
    return Built(toolchain.version, reached, backend is not None, remaining, kernels, {"vector_cores": cores})


_BACKEND_FLAGS = (
    # What bishengir-compile 1.2.0 passes to the backend.
    "--enable-debug-info=false",
    "--enable-static-bare-ptr=true",
    "--enable-bin-relocation=true",
    "--enable-hivm-inject-barrier-all-sync=false",
    "--enable-sanitizer=false",
)


def _vector_cores(compiler: _Compiler, soc: str, folder: Path) -> int:
    """Ask the compiler how many vector cores a SoC has."""
    empty = folder / "empty.mlir"
    empty.write_text("module {}\n")
    command: list[str | Path] = [compiler.program("bishengir-opt"), empty.name]
    process = run([*command, f"--hacc-append-device-spec=target={soc}"], folder, environment())
    empty.unlink()
    found = re.search(r'"VECTOR_CORE_COUNT", (\d+)', process.stdout)
    if process.returncode or not found:
        raise failure(process, f"asked for the cores of {soc}")
    return int(found[1])


def _build_kernel(
    variant: _Variant, soc: str, compiler: _Compiler, backend: str | None, cores: int, folder: Path
) -> Kernel:
    program = variant.problem.program()
    files = {stage: f"{variant.name}.{stage}.mlir" for stage in ("linalg", "hfusion", "hivm")}
    (folder / files["linalg"]).write_text(emit(program, variant.name))
    for tuning in _TUNINGS:
        _tile(variant, files, compiler, cores, tuning, folder)
        process = _compile(variant, files, soc, compiler, backend, folder)
        if "ub overflow" not in process.stderr:
            break
    if not (folder / files["hivm"]).exists() or (backend and process.returncode):
        raise failure(process, f"on {files['hfusion']} for {soc}")
    if (folder / f"{variant.name}.o").exists():
        files["object"] = f"{variant.name}.o"
    module = (folder / files["hivm"]).read_text()
    blocks = re.search(r"hacc\.block_dim = (\d+)", module)
    outputs = [
        argument(v.name, "int8" if v.dtype == "bool" else v.dtype, program.shape, "out") for v in program.outputs
    ]
    inputs = [argument(v.name, v.dtype, program.extents(v), "in") for v in program.inputs]
    tiling = []
    if any(n is None for n in program.shape):
        tiling = [argument(name, "int64", [None], "tiling") for name in ("tiling_key", "tiling_data")]
    block_dim = int(blocks[1]) if blocks else None
    arguments = (*inputs, *outputs, *tiling)
    return Kernel(variant.name, variant.when, variant.problem.dims, block_dim, arguments, files)


def _tile(variant: _Variant, files: dict[str, str], compiler: _Compiler, cores: int, tuning: int, folder: Path) -> None:
    """Named ops to tiles."""
    pipeline = hfusion_pipeline(cores, compiler.canonicalize, tuning)
    command: list[str | Path] = [compiler.program("bishengir-opt"), files["linalg"], "-o", files["hfusion"]]
    process = run([*command, f"--pass-pipeline={pipeline}"], folder, environment())
    tiled = folder / files["hfusion"]
    if process.returncode or not tiled.exists():
        raise failure(process, f"on {files['linalg']}")
    tiled.write_text(_make_room(tiled.read_text(), variant.rows))


def _compile(
    variant: _Variant, files: dict[str, str], soc: str, compiler: _Compiler, backend: str | None, folder: Path
) -> Any:
    """Tiles to the module for the backend, and through the backend where it is there."""
    temporary = folder / "stages"
    command: list[str | Path] = [
        compiler.program("bishengir-compile"),
        files["hfusion"],
        f"--target={soc}",
        "--enable-hfusion-compile=false",
        "--enable-hivm-compile",
        # Without it every output is stored twice.
        "--disable-auto-cv-work-space-manage",
        f"--save-temps={temporary.name}",
        "-o",
        f"{variant.name}.o",
    ]
    path = [Path(backend).parent] if backend else []
    process = run(command, folder, environment(path, cann=backend is not None))
    made = temporary / "module.hivm.opt.mlir"
    if made.exists():
        made.replace(folder / files["hivm"])
    shutil.rmtree(temporary, ignore_errors=True)
    return process

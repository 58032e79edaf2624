"""The vendor's compiler for Atlas A2, Atlas A3 and Ascend 950 on a program, to the file handed to the device backend.

The PyPI package ``ascendnpu-ir`` holds everything but ``hivmc``, the backend (for aarch64 it holds that, too), and
``bisheng``, which that ends with; both come with CANN.  Without them the last file made is the backend's input.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import shutil
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from .estimate import PROCESSORS, Estimate, estimate
from .npuir_passes import hfusion_pipeline
from .npuir_printer import emit
from .npuir_trace import UnreadableModule, read
from .problem import Problem
from .toolchain import (
    Kernel,
    Lowered,
    LoweringError,
    Toolchain,
    ToolchainMissing,
    argument,
    arguments,
    environment,
    failure,
    run,
)


@dataclass(frozen=True)
class _Compiler:
    """The vendor's binaries for a SoC, at work in a folder."""

    soc: str
    folder: Path
    suffix: str
    """What the names of the binaries end in."""
    backend: str | None
    """Where the backend is; None where it is not."""

    def run(self, program: str, *options: str, cann: Path | None = None) -> CompletedProcess[str]:
        """Run a binary, with a folder of CANN's programs on PATH if one is given."""
        command: list[str | Path] = [_package() / "bin" / f"{program}{self.suffix}", *options]
        return run(command, self.folder, environment([cann] if cann else [], cann=cann is not None))


def _package() -> Path:
    """Folder of the PyPI package ascendnpu-ir."""
    found = importlib.util.find_spec("ascendnpuir")
    if found is None or found.origin is None:
        raise ToolchainMissing("npuir needs the PyPI package ascendnpu-ir: pip install 'fq_tvm[ascend]'")
    return Path(found.origin).parent


def probe() -> Toolchain:
    """Say whether the vendor's compiler is here, and how far it gets."""
    try:
        binary = _package() / "bin" / "bishengir-opt"
        version = metadata.version("ascendnpu-ir")
    except (ToolchainMissing, metadata.PackageNotFoundError) as error:
        return Toolchain("npuir", False, detail=str(error) or "the package ascendnpu-ir is not installed")
    if not binary.exists():
        return Toolchain("npuir", False, version, f"ascendnpu-ir {version} holds no bishengir-opt")
    if not shutil.which("hivmc"):
        return Toolchain("npuir", True, version, "no hivmc: stops before the object")
    detail = "with hivmc" if shutil.which("bisheng") else "with hivmc, but no bisheng on PATH"
    return Toolchain("npuir", True, version, detail)


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

    @property
    def files(self) -> dict[str, str]:
        """The files of its stages."""
        return {stage: f"{self.name}.{stage}.mlir" for stage in ("linalg", "hfusion", "hivm")}


def _variants(problem: Problem) -> list[_Variant]:
    """The kernels that serve a problem together.

    A row in the unified buffer is padded to 32 bytes, and the tiles of a kernel of unknown extents are sized without
    that, so that the shortest row it may meet decides how much a tile can hold.  One kernel for any inner extent
    would be slow for all; so there are three.
    """
    whole = problem.collapsed()
    if whole.inner is not None:
        # The compiler's tiles are whole multiples of 256 along the last dimension where that is the channel.
        return [_Variant("fake_quant", "", whole, (256 if whole.inner == 1 else whole.inner,))]
    outer, channels = whole.shape[: whole.axis], whole.channels
    one = replace(whole, shape=(*outer, channels, 1)).collapsed()
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

    functions = re.split(r"(?=\n  func\.func)", _MARK.sub(str(every), module))
    return "".join(_MARK.sub(str(first), function, count=1) for function in functions)


def build(problem: Problem, soc: str, folder: Path) -> Lowered:
    """Lower a problem with the vendor's compiler.

    Parameters
    ----------
    problem : Problem
    soc : str
        Of Atlas A2, Atlas A3 or Ascend 950.
    folder : Path
        Where files go.

    Returns
    -------
    Lowered

    Raises
    ------
    LoweringError
        If the package is not installed, or the compiler fails.
    """
    toolchain = probe()
    if not toolchain:
        raise ToolchainMissing(toolchain.detail)
    suffix = "-a5" if soc.startswith("Ascend950") else ""
    backend = f"hivmc{suffix}"
    for program in ("bishengir-opt-a5", "bishengir-compile-a5") if suffix else ():  # not in every package
        if not (_package() / "bin" / program).exists():
            raise ToolchainMissing(
                f"{soc} needs {program}, which ascendnpu-ir {toolchain.version} for this machine does not hold; "
                "expected the package for x86-64, so lower on such a machine"
            )
    compiler = _Compiler(soc, folder, suffix, shutil.which(backend))
    cores = _vector_cores(compiler)
    built = [_build_kernel(variant, compiler, cores) for variant in _variants(problem)]
    kernels = tuple(kernel for kernel, _ in built)
    notes: dict[str, Any] = {"vector_cores": cores}
    expected = built[0][1][0].estimate
    if expected:
        notes["forms"] = [{**asdict(made.form), "seconds": _seconds(made)} for made in built[0][1]]
    if all("object" in kernel.files for kernel in kernels):
        return Lowered(toolchain.version, f"object by {backend}", True, (), kernels, notes, expected)
    needed = f"{backend} and bisheng are" if compiler.backend else f"{backend} is"
    remaining = (
        f"run the same lowering where CANN's {needed} on PATH, or there, with ascendnpu-ir "
        f"{toolchain.version} installed:",
        *(f"{backend} {k.files['hivm']} {' '.join(BACKEND_FLAGS)} -o {k.name}.o" for k in kernels),
    )
    return Lowered(toolchain.version, f"the module handed to {backend}", False, remaining, kernels, notes, expected)


BACKEND_FLAGS = (
    "--enable-debug-info=false",
    "--enable-static-bare-ptr=true",
    "--enable-bin-relocation=true",
    "--enable-hivm-inject-barrier-all-sync=false",
    "--enable-sanitizer=false",
)
"""What bishengir-compile 1.2.0 passes to the backend."""


def _vector_cores(compiler: _Compiler) -> int:
    """Ask the compiler how many vector cores a SoC has."""
    empty = compiler.folder / "empty.mlir"
    empty.write_text("module {}\n")
    process = compiler.run("bishengir-opt", empty.name, f"--hacc-append-device-spec=target={compiler.soc}")
    empty.unlink()
    found = re.search(r'"VECTOR_CORE_COUNT", (\d+)', process.stdout)
    if process.returncode or not found:
        raise failure(process, f"asked for the cores of {compiler.soc}")
    return int(found[1])


_BUFFER = re.compile(
    r"(?P<name>%\w+) = hivm\.hir\.pointer_cast\((?P<at>%\w+)\) : memref<(?P<sizes>(?:\d+x)+)[a-z]+(?P<bits>\d+), "
)
_BROADCASTING = re.compile(
    r"call @(?:v(?:add|sub|mul|div|min|max)(?:s_[vs]{2})?_[23]d|broadcast_last_axis_align_\dd)_float\([^)]*?(%\w+)\)"
)


def _with_whole_temporaries(module: str) -> str | None:
    """Move the temporary buffers of broadcasts to where nothing follows them.

    The library spreads a scale along rows by VBRCB, for eight rows at a time, into a temporary buffer.  The compiler
    sizes that for the rows there are, so that up to seven blocks of what lies behind are overwritten.

    Returns
    -------
    str or None
        The module for the backend; None where the unified buffer has no room for that.
    """
    found = re.search(r'"UB_SIZE", (\d+)', module)
    available = int(found[1]) // 8 if found else 0
    functions = re.split(r"(?=\n  func\.func)", module)
    for i, function in enumerate(functions):
        address = {name: int(value) for name, value in re.findall(r"(%\w+) = arith\.constant (\d+) : i64", function)}
        cast = dict(re.findall(r"(%\w+) = memref\.cast (%\w+) :", function))
        buffers = {b["name"]: b for b in _BUFFER.finditer(function)}
        size = {
            name: -(-math.prod(map(int, b["sizes"].split("x")[:-1])) * int(b["bits"]) // 8)
            for name, b in buffers.items()
        }
        used = {cast.get(name, name) for name in _BROADCASTING.findall(function)}
        short = {name for name in used & size.keys() if size[name] % 256}
        if not short:
            continue
        end = max(address[b["at"]] + size[name] for name, b in buffers.items())
        start = -(-end // 32) * 32
        if start + max(-(-size[name] // 256) * 256 for name in short) > available:
            return None
        for name in short:
            old = f"{name} = hivm.hir.pointer_cast({buffers[name]['at']})"
            function = function.replace(old, f"{name} = hivm.hir.pointer_cast(%temporary_i64)")
        head, body = function.split("{\n", 1)
        functions[i] = f"{head}{{\n    %temporary_i64 = arith.constant {start} : i64\n{body}"
    return "".join(functions)


_NO_BISHENG = "Cannot find the binary path of the BiSheng compiler"
"""What hivmc says where CANN's compiler of LLVM IR is not on PATH."""


@dataclass(frozen=True)
class Form:
    """One of the ways to tile a kernel; all give the same bits.

    Parameters
    ----------
    blocks : int
        How many are launched, each on a vector core.
    tuning : int
        What :func:`~fq_tvm.ascend.npuir_passes.hfusion_pipeline` takes; larger means smaller tiles.
    double : bool
        Whether buffers are there twice, so that a tile is loaded and another one stored while one is computed.
    """

    blocks: int
    tuning: int = 0
    double: bool = False


@dataclass(frozen=True)
class _Made:
    """A kernel in one form.

    Parameters
    ----------
    form : Form
    tiled, module : str
        What is compiled, and what is handed to the backend.
    estimate : Estimate or None
    tiles : int
        How many the busiest block computes; 0 where that is not known.
    """

    form: Form
    tiled: str
    module: str
    estimate: Estimate | None = None
    tiles: int = 0


_WORTH = 1e-6
"""Seconds that another form has to be able to save to be worth a compilation: a part of what any launch takes."""


def _build_kernel(variant: _Variant, compiler: _Compiler, cores: int) -> tuple[Kernel, list[_Made]]:
    """A kernel, and the forms of it that were tried, the chosen one first."""
    program, files, folder = variant.problem.program(), variant.files, compiler.folder
    (folder / files["linalg"]).write_text(emit(program, variant.name))
    tried = _forms(variant, replace(compiler, backend=None), cores)
    chosen = tried[0]
    hivm = folder / files["hivm"]
    (folder / files["hfusion"]).write_text(chosen.tiled)
    hivm.write_text(chosen.module)
    if compiler.backend:
        _finish(variant, compiler, chosen)
    if (folder / f"{variant.name}.o").exists():
        files["object"] = f"{variant.name}.o"
    blocks = _BLOCK_DIM.search(hivm.read_text())
    block_dim = int(blocks[1]) if blocks else None
    taken = arguments(program, program.extents)
    if variant.problem.dynamic:
        taken += tuple(argument(name, "int64", [None], "tiling") for name in ("tiling_key", "tiling_data"))
    return Kernel(variant.name, variant.when, variant.problem.dims, block_dim, taken, files), tried


def _finish(variant: _Variant, compiler: _Compiler, chosen: _Made) -> None:
    """Run the backend: by the vendor's compiler, and again where what that gave it is not the final module."""
    hivm, made = compiler.folder / variant.files["hivm"], compiler.folder / f"{variant.name}.o"
    process = _compile(variant, compiler, chosen.form)
    # Without bisheng, which the backend ends with, its input is there all the same.
    if (process.returncode and _NO_BISHENG not in process.stderr + process.stdout) or not hivm.exists():
        raise failure(process, f"on {variant.files['hfusion']} for {compiler.soc}")
    given = hivm.read_text()
    final = _with_whole_temporaries(given) or given
    if chosen.estimate:
        final = _with_blocks(final, chosen.form.blocks)
    if final == given:
        return
    hivm.write_text(final)
    made.unlink(missing_ok=True)
    assert compiler.backend
    tools = environment([Path(compiler.backend).parent], cann=True)
    process = run([compiler.backend, hivm.name, *BACKEND_FLAGS, "-o", made.name], compiler.folder, tools)
    if process.returncode and _NO_BISHENG not in process.stderr + process.stdout:
        raise failure(process, f"on {hivm.name} for {compiler.soc}")


def _forms(variant: _Variant, compiler: _Compiler, cores: int) -> list[_Made]:
    """A kernel in the form that is expected to be the fastest, and in those that were tried beside it.

    The plain one is tried first, others while one could save enough.  Where nothing can be expected it is the only one.
    """
    plain = _fitting(variant, compiler, Form(cores))
    tried = [plain]
    for form in _candidates(plain, cores):
        if plain.estimate and min(map(_seconds, tried)) - plain.estimate.least(plain.form.blocks / cores) > _WORTH:
            with contextlib.suppress(LoweringError):  # what the compiler refuses is no form
                tried.append(_fitting(variant, compiler, form))
    return sorted(tried, key=_seconds)


def _seconds(made: _Made) -> float:
    return made.estimate.seconds if made.estimate else 0.0


def _candidates(plain: _Made, cores: int) -> list[Form]:
    """Forms that may be faster than the plain one: smaller tiles where there are fewer than cores.

    The numbers are two that gave other tiles for many shapes.  Buffers that are there twice are no candidate, though
    faster by the estimate: the modules set flags again that may not have been waited for, which CANN's page of
    set_flag forbids.
    """
    return [Form(cores, tuning=tuning) for tuning in (200, 700)] if plain.form.blocks < cores else []


_BLOCK_DIM = re.compile(r"(?<=hacc\.block_dim = )(\d+)")


def _with_blocks(module: str, blocks: int) -> str:
    """Launch fewer blocks: the last ones have no tile where there are fewer tiles than cores."""
    return _BLOCK_DIM.sub(str(blocks), module)


def _fitting(variant: _Variant, compiler: _Compiler, form: Form) -> _Made:
    """A kernel in a form, with tiles as much smaller as they have to be.

    Raises
    ------
    LoweringError
        If the smallest tile does not fit, or the compiler fails otherwise.
    """
    tiled, hivm = compiler.folder / variant.files["hfusion"], compiler.folder / variant.files["hivm"]
    for tuning in (form.tuning, *(t for t in _TUNINGS if t > form.tuning)):
        form = replace(form, tuning=tuning)
        hivm.unlink(missing_ok=True)
        _tile(variant, compiler, form)
        process = _compile(variant, compiler, form)
        if "ub overflow" in process.stderr:
            continue
        if not hivm.exists():
            break
        module = _with_whole_temporaries(hivm.read_text())
        if module is not None:
            return _expected(variant, compiler.soc, _Made(form, tiled.read_text(), module))
    else:
        raise failure(process, f"on {tiled.name} for {compiler.soc}, whose smallest tile does not fit")
    raise failure(process, f"on {tiled.name} for {compiler.soc}")


def _expected(variant: _Variant, soc: str, made: _Made) -> _Made:
    """The same with what is expected of it, and without blocks that store nothing, unless that cannot be said."""
    if variant.problem.dynamic or soc not in PROCESSORS:
        return made
    try:
        blocks = read(made.module, variant.name)
    except UnreadableModule:  # an operation that only a primitive of somebody else's needs
        return made
    stores = [any(step.pipe == "MTE3" and step.bytes for chunk in block for step in chunk) for block in blocks]
    used = blocks[: max(i for i, storing in enumerate(stores, 1) if storing)]
    module, form = _with_blocks(made.module, len(used)), replace(made.form, blocks=len(used))
    program = variant.problem.program()
    least = sum(
        math.prod(n or 1 for n in program.extents(value)) * _BYTES[value.dtype]
        for value in (*program.inputs, *program.outputs)
    )
    tiles = max(map(len, used)) - 2  # an outermost loop has something before and behind it
    return replace(made, form=form, module=module, estimate=estimate(used, soc, least), tiles=tiles)


_BYTES = {"float16": 2, "float32": 4, "int32": 4, "bool": 1}


def _tile(variant: _Variant, compiler: _Compiler, form: Form) -> None:
    """Named ops to tiles."""
    source, tiled = variant.files["linalg"], variant.files["hfusion"]
    canonicalize = "canonicalize" if compiler.suffix else "canonicalize-ext"
    pipeline = hfusion_pipeline(form.blocks, canonicalize, form.tuning, form.double)
    process = compiler.run("bishengir-opt", source, "-o", tiled, f"--pass-pipeline={pipeline}")
    made = compiler.folder / tiled
    if process.returncode or not made.exists():
        raise failure(process, f"on {source}")
    made.write_text(_make_room(made.read_text(), variant.rows))


def _compile(variant: _Variant, compiler: _Compiler, form: Form) -> CompletedProcess[str]:
    """Tiles to the module for the backend, and through the backend where it is there."""
    temporary = compiler.folder / "stages"
    process = compiler.run(
        "bishengir-compile",
        variant.files["hfusion"],
        f"--target={compiler.soc}",
        "--enable-hfusion-compile=false",
        "--enable-hivm-compile",
        # Without it every output is stored twice.
        "--disable-auto-cv-work-space-manage",
        f"--enable-auto-multi-buffer={str(form.double).lower()}",
        f"--save-temps={temporary.name}",
        "-o",
        f"{variant.name}.o",
        cann=Path(compiler.backend).parent if compiler.backend else None,
    )
    made = temporary / "module.hivm.opt.mlir"
    if made.exists():
        made.replace(compiler.folder / variant.files["hivm"])
    shutil.rmtree(temporary, ignore_errors=True)
    return process

"""The vendor's compiler for Atlas A2, Atlas A3 and Ascend 950 on a program, to the file handed to the device backend.

The PyPI package ``ascendnpu-ir`` holds everything but ``hivmc``, the backend (for aarch64 it holds that, too), and
``bisheng``, which that ends with; both come with CANN.  Without them the last file made is the backend's input.
"""

from __future__ import annotations

import importlib.util
import math
import re
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess

from .npuir_passes import hfusion_pipeline
from .npuir_printer import emit
from .problem import Problem
from .toolchain import Kernel, Lowered, Toolchain, ToolchainMissing, argument, arguments, environment, failure, run


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
    kernels = tuple(_build_kernel(variant, compiler, cores) for variant in _variants(problem))
    notes = {"vector_cores": cores}
    if all("object" in kernel.files for kernel in kernels):
        return Lowered(toolchain.version, f"object by {backend}", True, (), kernels, notes)
    needed = f"{backend} and bisheng are" if compiler.backend else f"{backend} is"
    remaining = (
        f"run the same lowering where CANN's {needed} on PATH, or there, with ascendnpu-ir "
        f"{toolchain.version} installed:",
        *(f"{backend} {k.files['hivm']} {' '.join(BACKEND_FLAGS)} -o {k.name}.o" for k in kernels),
    )
    return Lowered(toolchain.version, f"the module handed to {backend}", False, remaining, kernels, notes)


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


def _build_kernel(variant: _Variant, compiler: _Compiler, cores: int) -> Kernel:
    program, files, folder = variant.problem.program(), variant.files, compiler.folder
    (folder / files["linalg"]).write_text(emit(program, variant.name))
    hivm = folder / files["hivm"]
    for tuning in _TUNINGS:
        _tile(variant, compiler, cores, tuning)
        process = _compile(variant, compiler)
        if "ub overflow" in process.stderr:
            continue
        # Without bisheng, which the backend ends with, its input is there all the same.
        failed = compiler.backend and process.returncode and _NO_BISHENG not in process.stderr + process.stdout
        if failed or not hivm.exists():
            raise failure(process, f"on {files['hfusion']} for {compiler.soc}")
        made = hivm.read_text()
        moved = _with_whole_temporaries(made)
        if moved is not None:
            break
    else:
        raise failure(process, f"on {files['hfusion']} for {compiler.soc}, whose smallest tile does not fit")
    if moved != made:
        hivm.write_text(moved)
        if compiler.backend:
            (folder / f"{variant.name}.o").unlink(missing_ok=True)
            process = run(
                [compiler.backend, hivm.name, *BACKEND_FLAGS, "-o", f"{variant.name}.o"],
                folder,
                environment([Path(compiler.backend).parent], cann=True),
            )
            if process.returncode and _NO_BISHENG not in process.stderr + process.stdout:
                raise failure(process, f"on {hivm.name} for {compiler.soc}")
    if (folder / f"{variant.name}.o").exists():
        files["object"] = f"{variant.name}.o"
    blocks = re.search(r"hacc\.block_dim = (\d+)", (folder / files["hivm"]).read_text())
    block_dim = int(blocks[1]) if blocks else None
    taken = arguments(program, program.extents)
    if variant.problem.dynamic:
        taken += tuple(argument(name, "int64", [None], "tiling") for name in ("tiling_key", "tiling_data"))
    return Kernel(variant.name, variant.when, variant.problem.dims, block_dim, taken, files)


def _tile(variant: _Variant, compiler: _Compiler, cores: int, tuning: int) -> None:
    """Named ops to tiles."""
    source, tiled = variant.files["linalg"], variant.files["hfusion"]
    pipeline = hfusion_pipeline(cores, "canonicalize" if compiler.suffix else "canonicalize-ext", tuning)
    process = compiler.run("bishengir-opt", source, "-o", tiled, f"--pass-pipeline={pipeline}")
    made = compiler.folder / tiled
    if process.returncode or not made.exists():
        raise failure(process, f"on {source}")
    made.write_text(_make_room(made.read_text(), variant.rows))


def _compile(variant: _Variant, compiler: _Compiler) -> CompletedProcess[str]:
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

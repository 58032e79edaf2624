"""The vendor's device backend, hivmc, on an x86-64 machine: ``python tests/ascend/hivmc.py`` fetches what it takes.

PyPI's wheel of ascendnpu-ir for x86-64 has no hivmc; the one for aarch64 has, and the bitcode of the library that it
links.  Debian's packages hold an emulator and the C and C++ libraries that hivmc loads; apt checks their signatures.
Nothing is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import platformdirs

PACKAGE = "ascendnpu-ir==1.2.0"
SHA256 = "76aaaedd3c4a08148a690f1bdddf2e2668f484989ab261fdb7e19cdba5d0f957"
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g")
EMULATOR = "qemu-aarch64"

_PROGRAM = Path("ascendnpuir", "bin", "hivmc")
_BITCODE = Path("ascendnpuir", "lib", "meta_op.aiv.c220.bc")
_LIBRARY = Path("meta_op.aiv.c220.ll")


HOME = Path(platformdirs.user_data_dir("fq_tvm")) / "hivmc-1.2.0"
"""The user's own folder, whatever a test says of the data folder later."""


def missing() -> str:
    """Say what is not there, and what to do; empty if all is well."""
    if not (HOME / _LIBRARY).is_file():
        return f"{HOME} holds no hivmc; fetch it with `make hivmc`"
    return ""


def emulator(folder: Path) -> str | None:
    """The emulator: the one that was fetched, or the system's."""
    fetched = folder / "usr" / "bin" / f"{EMULATOR}-static"
    return str(fetched) if fetched.is_file() else shutil.which(EMULATOR) or shutil.which(f"{EMULATOR}-static")


def lowered(module: Path, folder: Path, *options: str) -> str:
    """Give a module to hivmc.

    Parameters
    ----------
    module : Path
        What is handed to the backend.
    folder : Path
        Where its files go.
    *options : str
        What the vendor's compiler passes.

    Returns
    -------
    str
        LLVM IR for the device.

    Raises
    ------
    AssertionError
        If hivmc refuses the module.
    """
    command = [emulator(HOME), "-L", HOME / "root", HOME / _PROGRAM, module, *options]
    command += [f"--save-temps={folder}", "-o", folder / "out.o"]
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    # What comes after it, the compiler from LLVM IR to an object, is CANN's alone, so that the status is 1.
    assert (folder / "out.ll").is_file(), f"hivmc refused {module}:\n{process.stderr[-2000:]}"
    assert "BiSheng compiler" in process.stderr, process.stderr[-2000:]
    return (folder / "out.ll").read_text()


def library() -> str:
    """The library that hivmc links, as :func:`hivm_llvm.plain` text."""
    return (HOME / _LIBRARY).read_text()


def fetch() -> Path:
    """Download what hivmc takes and unpack it; the folder appears by rename."""
    folder = HOME
    if not missing():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".hivmc-", dir=folder.parent) as made:
        work = Path(made)
        staged, downloads = work / folder.name, work / "downloads"
        staged.mkdir()
        downloads.mkdir()
        _unpack(_wheel(downloads), staged)
        _debian(work, downloads, staged)
        # A minute's work of LLVM, done once.
        import llvmlite.binding as llvm
        from hivm_llvm import plain

        (staged / _LIBRARY).write_text(plain(str(llvm.parse_bitcode((staged / _BITCODE).read_bytes()))))
        if folder.exists():
            shutil.rmtree(folder)
        staged.rename(folder)
    return folder


def _run(command: Sequence[str | Path], folder: Path) -> None:
    process = subprocess.run(
        list(map(str, command)), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800
    )
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:3]))} failed:\n{process.stdout[-2000:]}")


def _wheel(downloads: Path) -> Path:
    platforms = [f"--platform=manylinux{p}_aarch64" for p in ("_2_28", "2014")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run(
        [*command, "--only-binary=:all:", *platforms, "--python-version=3.11", "--dest", downloads, PACKAGE], downloads
    )
    wheel = next(downloads.glob("*.whl"))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{wheel.name} has the checksum {found}; expected {SHA256}")
    return wheel


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in (_PROGRAM, _BITCODE):
            archive.extract(str(name), folder)
    (folder / _PROGRAM).chmod(0o755)


def _debian(work: Path, downloads: Path, folder: Path) -> None:
    """The libraries of an aarch64 system, and the emulator if this one has none."""
    state = work / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    native = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    settings = {
        "APT::Architectures": f"{native},arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    _run([*apt, "update"], downloads)
    _run([*apt, "download", *(f"{name}:arm64" for name in LIBRARIES)], downloads)
    for package in downloads.glob("*.deb"):
        _run(["dpkg-deb", "--extract", package, folder / "root"], downloads)
    if emulator(folder) is None:
        _run([*apt, "download", "qemu-user-static"], downloads)
        package = next(downloads.glob("qemu-user-static*.deb"))  # of emulators for every architecture
        program = f"./usr/bin/{EMULATOR}-static"
        _run(
            ["sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" "$3"', "sh", package, folder, program],
            downloads,
        )


if __name__ == "__main__":
    os.umask(0o022)
    print(fetch())

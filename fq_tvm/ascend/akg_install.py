"""Where AKG comes from and what its folder holds: ``python -m fq_tvm.ascend.akg_install`` fetches it.

Knows nothing of what AKG does.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..environment import akg_home, python
from ..errors import FqError, UntrustedError
from ..store.files import check
from .toolchain import LoweringError, failure

WHEEL = "mindspore-ascend==1.10.0"
"""What AKG is taken from: a release that has it, for Ascend, on PyPI."""

_WHEEL_SHA256 = {
    "mindspore_ascend-1.10.0-cp39-cp39-manylinux1_x86_64.whl": (
        "cba0fa09d2008ffeb3dc7690009a5a8a1bfd415f4ee4dfab2fbf60654ab72ff4"
    ),
}

_LIBRARY = Path("lib", "libakg.so")
_PARTS = (Path("akg", "__init__.py"), _LIBRARY)
_VERSION = "VERSION"


def missing() -> str:
    """Say what is not where AKG should be, or who else could write there, and what to do; empty if all is well."""
    folder = akg_home()
    try:
        check(folder, strict=False)
    except UntrustedError as error:
        return str(error)
    parts = [str(part) for part in _PARTS if not (folder / part).is_file()]
    if not parts:
        return ""
    return (
        f"{folder} holds no {' and no '.join(parts)}; fetch it with `make akg` or `python -m fq_tvm.ascend.akg_install`"
    )


def version() -> str:
    """Say which AKG is there; empty where that is unknown."""
    file = akg_home() / _VERSION
    return file.read_text().strip() if file.is_file() else ""


def fetch(folder: Path | None = None) -> Path:
    """Download AKG with pip and unpack it.

    Parameters
    ----------
    folder : Path, optional
        Where to; :func:`~fq_tvm.environment.akg_home` by default.

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
    if (folder / _LIBRARY).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    downloads = folder.with_name(folder.name + ".download")
    downloads.mkdir(exist_ok=True)
    wheel = _known_wheel(downloads) or _download(downloads)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True) as made:
        unpacked = Path(made) / folder.name  # with the rights of the user's umask, which the folder around has not
        unpacked.mkdir()
        _unpack(wheel, unpacked)
        if folder.exists():
            raise LoweringError(f"{folder} is there already and holds no AKG; expected to make it")
        (unpacked / _VERSION).write_text(WHEEL.replace("==", " ") + "\n")
        unpacked.rename(folder)
    shutil.rmtree(downloads, ignore_errors=True)
    return folder


def _known_wheel(downloads: Path) -> Path | None:
    """A wheel that is there and whole, whatever its name."""
    return next((w for w in downloads.glob("*.whl") if _sha256(w) in _WHEEL_SHA256.values()), None)


def _download(downloads: Path) -> Path:
    command = [*python("pip"), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # The wheel is for Python 3.9; AKG's part of it runs on later ones.
    command += ["--only-binary=:all:", "--python-version", "3.9", "--dest", str(downloads), WHEEL]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoweringError(f"pip could not download {WHEEL}: {error}") from error
    wheels = sorted(downloads.glob("*.whl"))
    if process.returncode or not wheels:
        raise failure(process, f"asked for {WHEEL}")
    if (known := _known_wheel(downloads)) is None:
        for wheel in wheels:
            wheel.unlink()
        names, expected = ", ".join(w.name for w in wheels), ", ".join(_WHEEL_SHA256)
        raise LoweringError(
            f"pip found {names}, whose checksum is not that of {expected}; deleted, as it may be anything"
        )
    return known


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _unpack(wheel: Path, folder: Path) -> None:
    """Take AKG out of the wheel: its packages, and its library under ``lib``."""
    packages = "mindspore/_akg/"
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                target = None
                if entry.filename.rpartition("/")[2] == _LIBRARY.name:
                    target = folder / _LIBRARY
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
    if not all((folder / part).is_file() for part in _PARTS):
        raise LoweringError(f"{wheel.name} holds no AKG")


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{fetch()}\n")
    except FqError as error:
        sys.exit(f"error: {error}")

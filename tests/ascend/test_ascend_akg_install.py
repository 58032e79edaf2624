"""Fetching AKG: a wheel is downloaded, checked and unpacked, whole or not at all."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from fq_tvm.ascend import LoweringError, akg_install


@pytest.fixture
def index(monkeypatch):
    """pip finds a wheel of a few bytes; how often it was asked is counted."""
    asked = []

    def download(downloads: Path) -> Path:
        asked.append(downloads)
        wheel = downloads / "mindspore_ascend-1.10.0-cp39-cp39-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("mindspore/_akg/akg/__init__.py", "")
            archive.writestr("mindspore/lib/plugin/libakg.so", "library")
            archive.writestr("mindspore/_akg/../../escaped", "no")
        return wheel

    monkeypatch.setattr(akg_install, "_download", download)
    return asked


def test_fetching_unpacks_the_packages_and_the_library(index, tmp_path):
    home = akg_install.fetch(tmp_path / "data" / "akg")
    assert (home / "akg" / "__init__.py").exists() and (home / "lib" / "libakg.so").read_text() == "library"
    assert (home / "VERSION").read_text() == "mindspore-ascend 1.10.0\n"
    assert [p.name for p in home.parent.iterdir()] == ["akg"]
    assert not list(tmp_path.rglob("escaped"))
    assert akg_install.fetch(home) == home and len(index) == 1


def test_an_interrupted_fetch_goes_on_with_its_download(index, tmp_path, monkeypatch):
    home = tmp_path / "akg"
    with monkeypatch.context() as patch:
        patch.setattr(akg_install, "_unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            akg_install.fetch(home)
    assert not home.exists()
    wheel = next((tmp_path / "akg.download").iterdir())
    monkeypatch.setitem(akg_install._WHEEL_SHA256, wheel.name, akg_install._sha256(wheel))
    assert akg_install.fetch(home).is_dir() and len(index) == 1


def test_a_wheel_without_akg_is_refused(tmp_path, monkeypatch):
    def download(downloads: Path) -> Path:
        with zipfile.ZipFile(downloads / "w.whl", "w") as archive:
            archive.writestr("other", "")
        return downloads / "w.whl"

    monkeypatch.setattr(akg_install, "_download", download)
    with pytest.raises(LoweringError, match="holds no AKG"):
        akg_install.fetch(tmp_path / "akg")
    assert not (tmp_path / "akg").exists()


@pytest.mark.parametrize(
    "name",
    [
        "mindspore_ascend-1.10.0-cp39-cp39-manylinux1_x86_64.whl",
        "mindspore_ascend-1.10.0-1-cp39-cp39-manylinux1_x86_64.whl",
        "mindspore_ascend-1.10.0-cp39-none-any.whl",
        "other.whl",
    ],
)
def test_a_wheel_is_known_by_its_checksum_whatever_its_name(tmp_path, monkeypatch, name):
    downloads = tmp_path / "akg.download"

    def pip(command, **_):
        with zipfile.ZipFile(downloads / name, "w") as archive:
            archive.writestr("mindspore/_akg/akg/__init__.py", "")
            archive.writestr("libakg.so", "library")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(LoweringError, match=f"pip found {name}, whose checksum is not that of"):
        akg_install.fetch(tmp_path / "akg")
    assert not (tmp_path / "akg").exists() and not list(downloads.iterdir())
    pip([])
    monkeypatch.setattr(akg_install, "_WHEEL_SHA256", {"any": akg_install._sha256(downloads / name)})
    (downloads / name).unlink()
    assert (akg_install.fetch(tmp_path / "akg") / "akg").is_dir()


def test_pip_is_not_looked_for_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pip.py").write_text("open('trace', 'w')")
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    with pytest.raises(LoweringError, match="asked for mindspore"):
        akg_install.fetch(tmp_path / "akg")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("mask", [0o077, 0o022])
def test_what_is_unpacked_has_the_rights_of_the_umask(index, tmp_path, mask):
    old = os.umask(mask)
    try:
        home = akg_install.fetch(tmp_path / "akg")
    finally:
        os.umask(old)
    assert home.stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_folder_that_others_can_write_is_not_imported_from(index, tmp_path, monkeypatch):
    monkeypatch.setenv("FQ_TVM_AKG_HOME", str(akg_install.fetch(tmp_path / "akg")))
    assert akg_install.missing() == ""
    (tmp_path / "akg").chmod(0o777)
    assert "can be written by others" in akg_install.missing()

"""Fetching AKG: a wheel is downloaded, checked and unpacked, whole or not at all."""

from __future__ import annotations

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

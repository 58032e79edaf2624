"""What a release says of itself: one version, wherever it is read."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import fq_tvm

ROOT = Path(__file__).parent.parent


def test_the_installed_version_is_the_librarys():
    installed = metadata.version("fq_tvm")
    assert installed == fq_tvm.__version__, "install again: pip install -e ."


def test_the_changelog_begins_with_the_version():
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == fq_tvm.__version__

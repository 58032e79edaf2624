"""What README.md shows: its Python blocks run in order, its commands after them, its links and numbers hold."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from fq_tvm import cli, environment
from fq_tvm.cli.commands import EPILOGUE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    p for folder in (".", "docs", "docs/decisions", "artifacts", "schedules") for p in (ROOT / folder).glob("*.md")
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_examples_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "readme"}
    sources = blocks("python")
    assert len(sources) >= 8
    for source in sources:
        exec(compile(source, "README.md", "exec"), names)
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "fq-tvm"
        if arguments[0] == "ascend" and importlib.util.find_spec("ascendnpuir") is None:
            continue
        assert cli.main(arguments) == 0, line
    assert "equals the numpy reference bit for bit" in capsys.readouterr().out
    assert (tmp_path / "quantized.npz").exists()


def test_every_variable_is_listed():
    known = set(re.findall(r"FQ_TVM_[A-Z_]+", Path(environment.__file__).read_text()))
    assert known == set(re.findall(r"^\| `(FQ_TVM_[A-Z_]+)`", README, re.MULTILINE))
    assert known == set(re.findall(r"^  (FQ_TVM_[A-Z_]+) ", EPILOGUE, re.MULTILINE))


def test_every_make_target_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)) <= targets, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)", prose):
        if "://" not in link:
            assert (page.parent / link).exists(), link

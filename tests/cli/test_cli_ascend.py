"""`fq-tvm ascend`: the artifact, and what it says of bad input."""

from __future__ import annotations

import contextlib
import json

import pytest

from fq_tvm import cli


def test_ascend(tmp_path, capsys):
    folder = tmp_path / "out"
    argv = ["ascend", "--shape", "4,16", "--axis", "1", "--toolchain", "tbe", "-o", str(folder)]
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    assert "Atlas A2, tbe" in shown
    assert "to finish: " in shown
    made = json.loads((folder / "meta.json").read_text())
    assert cli.main([*argv, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["toolchain"] == made["toolchain"] == "tbe"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--shape", "4,16", "--soc", "Ascend1"], "Ascend1"),
        (["--shape", "4,sixteen"], "no list of extents"),
        (["--shape", "4,16", "--axis", "5"], "axis"),
        (["--shape", "4,16", "--toolchain", "gcc"], "gcc"),
    ],
)
def test_ascend_bad_input(tmp_path, capsys, argv, message):
    with contextlib.suppress(SystemExit):
        assert cli.main(["ascend", *argv, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()

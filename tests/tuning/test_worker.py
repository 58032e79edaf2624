"""The worker's process: what it imports, and where its files lie."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fq_tvm import environment
from fq_tvm.tuning import worker

MODULES = ("json", "queue", "random", "socket", "statistics", "argparse", "runpy", "numpy", "fq_tvm", "trial")


@pytest.fixture
def booby_trapped(tmp_path, monkeypatch):
    """A working folder whose modules leave a trace."""
    folder, trace = tmp_path / "work", tmp_path / "trace"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'a').write(__name__); raise SystemExit(3)")
    monkeypatch.chdir(folder)
    return trace


def test_the_working_folder_is_not_imported_from(booby_trapped):
    with worker.Worker() as process:
        assert process.ask({"ask": "target"}, 120)["cpu"]
    assert not booby_trapped.exists()


@pytest.mark.parametrize("flags", [[], ["-I"], ["-E", "-s"], *([["-P"]] if sys.version_info >= (3, 11) else [])])
def test_another_python_looks_where_this_one_does(booby_trapped, tmp_path, flags):
    """Under every way to start this one; and it is given this one's flags."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "shown.py").write_text(
        "import sys, json; print(json.dumps([sys.path, sys.flags.isolated, sys.flags.no_user_site, sys.argv[1:]]))"
    )
    package = str(Path(environment.__file__).parents[1])
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from fq_tvm import environment; import json, subprocess\n"
        "said = subprocess.check_output([*environment.python('shown'), 'a', 'b'])\n"
        "path, isolated, no_user_site, rest = json.loads(said)\n"
        "assert (isolated, no_user_site) == (sys.flags.isolated, sys.flags.no_user_site)\n"
        "assert path[:-1] == [p for p in sys.path if p] and rest == ['a', 'b'], path\n"
    )
    script = tmp_path / "script.py"  # whose folder comes first, not the working one
    script.write_text(code)
    subprocess.run([sys.executable, *flags, script, package, tmp_path / "modules"], check=True)
    assert not booby_trapped.exists()


def test_a_process_started_from_a_checkout_finds_it(tmp_path):
    """Though a working folder is what it was found through."""
    root = Path(environment.__file__).parents[1]
    code = "from fq_tvm.environment import python; import subprocess; subprocess.run(python('fq_tvm'), check=True)"
    run = subprocess.run([sys.executable, "-S", "-c", code], cwd=root, env={"PATH": ""}, capture_output=True, text=True)
    assert "No module named fq_tvm" not in run.stderr


def test_where_there_is_no_room_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path / "new" / "cache"))
    make = tempfile.mkdtemp

    def full(suffix=None, prefix=None, dir=None):
        if dir is None:
            raise FileNotFoundError(2, "No usable temporary directory found")
        return make(suffix, prefix, dir)

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with worker._folder() as folder:
        assert Path(folder).parent == tmp_path / "new"
    assert os.listdir(tmp_path / "new") == []
    monkeypatch.setattr(environment, "cache_dir", lambda: None)
    with pytest.raises(OSError, match="No usable"):
        worker._folder()

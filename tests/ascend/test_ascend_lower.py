"""The hook: choosing a toolchain, artifacts, errors, and processes that nothing disturbs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fq_tvm.ascend import (
    AscendArtifact,
    LoweringError,
    Problem,
    Toolchain,
    ToolchainMissing,
    lower,
    npuir_printer,
    product_of,
    toolchain,
    toolchains,
)
from fq_tvm.ascend import akg as akg_module
from fq_tvm.ascend import npuir as npuir_module
from fq_tvm.ascend import tbe as tbe_module
from fq_tvm.errors import ArgumentError, FqError


def nothing_left(folder: Path) -> bool:
    return not any(folder.iterdir())


def test_toolchains_say_why_not(monkeypatch):
    found = toolchains()
    assert list(found) == ["npuir", "akg", "tbe"]
    for name, state in found.items():
        assert state.name == name and (state.available or state.detail)
        assert str(state).startswith("available" if state else "not available: ")
    monkeypatch.setattr(npuir_module, "probe", lambda: 1 / 0)
    assert str(toolchains()["npuir"]) == "not available: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("soc", "product", "first"),
    [
        ("Ascend910B1", "Atlas A2", "npuir"),
        ("Ascend910B4-1", "Atlas A2", "npuir"),
        ("Ascend910B2C", "Atlas A2", "npuir"),
        ("Ascend910_9362", "Atlas A3", "npuir"),
        ("Ascend950PR_9599", "Ascend 950", "npuir"),
        ("Ascend950DT_95A1", "Ascend 950", "npuir"),
        ("Ascend910", "Atlas training series", "akg"),
        ("Ascend910A", "Atlas training series", "akg"),
        ("Ascend910B", "Atlas training series", "akg"),
        ("Ascend310P3", "Atlas inference series", "tbe"),
        ("Ascend310", "Atlas 200/300/500", "tbe"),
    ],
)
def test_products(soc, product, first):
    assert (product_of(soc).name, product_of(soc).toolchains[0]) == (product, first)


@pytest.mark.parametrize("soc", ["", "Ascend", "ascend910b1", "Ascend910B9", "H100", "Ascend910_9300", "Ascend910B1 "])
def test_an_unknown_soc_is_refused(soc, tmp_path):
    with pytest.raises(ArgumentError, match=r"unknown SoC.*Atlas A2: Ascend910B1"):
        lower((2, 3), 1, soc=soc, out_dir=tmp_path / "a")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'"),
        ({"axis": 5}, "axis is 5"),
        ({"quant_max": 2**31 - 1}, "no Ascend vector unit"),
        ({"toolchain": "xla"}, "expected auto, npuir"),
        ({"toolchain": "akg"}, "akg does not serve Ascend910B1 .*npuir, tbe"),
        ({"soc": "Ascend910A", "toolchain": "npuir"}, "npuir does not serve"),
    ],
)
def test_arguments_are_checked(arguments, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        lower(**{"shape": (2, 3), "axis": 1, **arguments, "out_dir": tmp_path / "a"})
    assert nothing_left(tmp_path)


def test_every_argument_goes_by_name_and_no_other(monkeypatch, tmp_path):
    monkeypatch.setattr(tbe_module, "build", lambda *_: toolchain.Lowered("1", "text", False, (), (), {}))
    values = {"shape": (2, 3), "axis": -1, "dtype": "float16", "scale_dtype": "float16", "quant_min": 0, "quant_max": 7}
    places = {"soc": "Ascend310P3", "toolchain": "tbe", "out_dir": tmp_path / "a"}
    artifact = lower(**values, **places)
    assert artifact.problem == Problem(**values)
    assert (artifact.soc, artifact.toolchain, artifact.directory) == tuple(places.values())
    for name in (*values, *places):
        assert re.search(rf"\b{name}\b.* : ", lower.__doc__), name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tbe_module, "probe", lambda: Toolchain("tbe", True))
    assert lower((2, 3), 1, soc="Ascend310P3").directory == tmp_path / "artifacts" / "ascend"
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'output'"):
        lower((2, 3), 1, output=tmp_path / "b")


def test_auto_takes_the_best_and_says_why(monkeypatch, tmp_path):
    def built(*_):
        return toolchain.Lowered("1", "text", False, ("finish it",), (), {})

    for module in (npuir_module, tbe_module):
        monkeypatch.setattr(module, "build", built)
    monkeypatch.setattr(npuir_module, "probe", lambda: Toolchain("npuir", True, "1"))
    monkeypatch.setattr(tbe_module, "probe", lambda: Toolchain("tbe", True, "2"))
    artifact = lower((2, 3), 1, soc="Ascend910B1", out_dir=tmp_path / "a")
    assert (artifact.toolchain, artifact.reason) == ("npuir", "the first available for Atlas A2 of npuir, tbe")
    monkeypatch.setattr(npuir_module, "probe", lambda: Toolchain("npuir", False, detail="it is away"))
    artifact = lower((2, 3), 1, soc="Ascend910B1", out_dir=tmp_path / "a")
    assert artifact.toolchain == "tbe" and artifact.reason.endswith("npuir not available: it is away")
    monkeypatch.setattr(tbe_module, "probe", lambda: Toolchain("tbe", False, detail="so is this"))
    with pytest.raises(ToolchainMissing, match=r"npuir not available: it is away; tbe not available: so is this"):
        lower((2, 3), 1, soc="Ascend910B1", out_dir=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(npuir_module.importlib.util, "find_spec", lambda _: None)
    assert "pip install 'fq_tvm[ascend]'" in str(toolchains()["npuir"])
    with pytest.raises(ToolchainMissing, match="pip install"):
        lower((2, 3), 1, soc="Ascend910B1", toolchain="npuir", out_dir=tmp_path / "a")
    assert nothing_left(tmp_path)


@pytest.mark.usefixtures("npuir")
class TestWithNpuir:
    """What needs a toolchain to run."""

    def test_an_artifact_describes_itself(self, tmp_path):
        target = tmp_path / "deep" / "a"
        artifact = lower((64, 256, 56, 56), 1, "float16", soc="Ascend910B1", out_dir=target)
        assert artifact.directory == target
        assert not list(tmp_path.glob(".fq_tvm*"))
        meta = json.loads((target / "meta.json").read_text())
        assert meta == json.loads(json.dumps(artifact.to_json()))
        assert AscendArtifact.read(target) == artifact
        assert meta["soc"] == "Ascend910B1" and meta["toolchain_version"] == "1.2.0"
        assert meta["mask"] == "int8, 0 or 1" and not meta["finished"]
        assert any("hivmc" in line for line in meta["remaining"])
        (kernel,) = meta["kernels"]
        assert kernel["block_dim"] == 48 and kernel["dims"] == ["outer", "channels", "inner"]
        assert [(a["name"], a["dtype"], a["shape"], a["role"]) for a in kernel["arguments"]] == [
            ("x", "float16", [64, 256, 3136], "in"),
            ("scale", "float32", [256], "in"),
            ("zero_point", "int32", [256], "in"),
            ("out", "float16", [64, 256, 3136], "out"),
            ("mask", "int8", [64, 256, 3136], "out"),
        ]
        on_disk = {p.name for p in target.iterdir()}
        assert on_disk == {"meta.json", "program.txt", *kernel["files"].values()}
        assert str(Problem((64, 256, 56, 56), 1, "float16").program()) == (target / "program.txt").read_text()

    def test_the_same_text_every_time(self, tmp_path):
        for name in "ab":
            lower((4, 16, 7), 1, soc="Ascend910B3", out_dir=tmp_path / name)
        for file in (tmp_path / "a").iterdir():
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name

    def test_an_artifact_is_replaced_and_nothing_else(self, tmp_path):
        target = tmp_path / "a"
        lower((4, 16), 1, out_dir=target)
        (target / "stale").touch()
        lower((4, 16), 1, out_dir=target)
        assert not (target / "stale").exists()
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").touch()
        with pytest.raises(ArgumentError, match="will not be replaced"):
            lower((4, 16), 1, out_dir=tmp_path / "mine")
        with pytest.raises(ArgumentError, match="is a file"):
            lower((4, 16), 1, out_dir=tmp_path / "mine" / "file")
        assert (tmp_path / "mine" / "file").exists()

    def test_a_compiler_failure_ends_with_its_last_lines(self, tmp_path, monkeypatch):
        lower((4, 16), 1, out_dir=tmp_path / "a")
        before = (tmp_path / "a" / "meta.json").read_bytes()
        monkeypatch.setitem(npuir_printer.FORMS, "add", npuir_printer._binary("plus"))
        with pytest.raises(
            LoweringError, match=r"(?s)bishengir-opt failed with status 1 on fake_quant.linalg.mlir.*plus"
        ):
            lower((4, 16), 1, out_dir=tmp_path / "a")
        with pytest.raises(FqError):
            lower((4, 16), 1, out_dir=tmp_path / "new" / "b")
        assert (tmp_path / "a" / "meta.json").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a"]

    def test_a_compiler_that_hangs_is_ended(self, tmp_path, monkeypatch):
        slow = tmp_path / "bin" / "bishengir-opt"
        slow.parent.mkdir()
        slow.write_text("#!/bin/sh\nexec sleep 60\n")
        slow.chmod(0o755)
        monkeypatch.setattr(toolchain, "TIMEOUT", 0.3)
        monkeypatch.setattr(npuir_module, "_package", lambda: tmp_path)
        with pytest.raises(LoweringError, match=r"did not end within 0\.3 s"):
            lower((4, 16), 1, out_dir=tmp_path / "a")
        assert not (tmp_path / "a").exists()

    def test_an_interruption_leaves_nothing(self, tmp_path, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(npuir_module, "_compile", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lower((4, 16), 1, out_dir=tmp_path / "a")
        assert nothing_left(tmp_path)

    def test_neither_environment_nor_folder_matters(self, tmp_path):
        # A caller with a broken environment, in a folder that is gone.
        gone = tmp_path / "gone"
        code = (
            "import os, sys, tvm; os.rmdir(os.getcwd()); "  # what tvm-ffi imports may itself need a folder to start in
            "from fq_tvm.ascend import lower; "
            "print(lower((4, 16, 7), 1, soc='Ascend910B3', out_dir=sys.argv[1]).reached)"
        )
        gone.mkdir()
        root = str(Path(__file__).resolve().parents[2])
        hostile = {
            "PATH": "/nowhere",
            "HOME": "/nowhere",
            "LD_LIBRARY_PATH": "/nowhere",
            "LD_DEBUG": "all",
            "LANG": "tr_TR",
            "PYTHONPATH": root,
            "MLIR_ENABLE_DUMP": "1",
        }
        hostile["LD_DEBUG_OUTPUT"] = str(tmp_path / "ld")
        command = [sys.executable, "-c", code, str(tmp_path / "b")]
        ran = subprocess.run(command, cwd=gone, env=hostile, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr[-2000:]
        lower((4, 16, 7), 1, soc="Ascend910B3", out_dir=tmp_path / "a")
        for file in (tmp_path / "a").iterdir():
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name

    @pytest.mark.parametrize("works", [True, False])
    def test_a_backend_on_the_path_is_used(self, works, tmp_path, monkeypatch):
        # What stands in for CANN's backend writes the file that it is asked for, or fails.
        tools = tmp_path / "tools"
        tools.mkdir()
        backend = tools / "hivmc"
        body = (
            'while [ $# -gt 0 ]; do [ "$1" = -o ] && printf object > "$2"; shift; done' if works else "echo no; exit 3"
        )
        backend.write_text(f"#!/bin/sh\n{body}\n")
        backend.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        assert toolchains()["npuir"].detail == "with hivmc, but no bisheng on PATH"
        (tools / "bisheng").write_text("#!/bin/sh\n")
        (tools / "bisheng").chmod(0o755)
        assert toolchains()["npuir"].detail == "with hivmc"
        if not works:
            with pytest.raises(LoweringError, match="bishengir-compile failed"):
                lower((4, 16), 1, soc="Ascend910B1", out_dir=tmp_path / "a")
            return
        artifact = lower((4, 16), 1, soc="Ascend910B1", out_dir=tmp_path / "a")
        assert artifact.finished and not artifact.remaining and artifact.reached == "object by hivmc"
        assert (artifact.directory / artifact.kernels[0].files["object"]).read_text() == "object"

    def test_a_backend_without_bisheng_leaves_its_input(self, tmp_path, monkeypatch):
        # What hivmc 0.3.0 says and returns where CANN's compiler of LLVM IR is not on PATH.
        tools = tmp_path / "tools"
        tools.mkdir()
        said = "[ERROR] Cannot find the binary path of the BiSheng compiler."
        (tools / "hivmc").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
        (tools / "hivmc").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        artifact = lower((4, 16), 1, soc="Ascend910B1", out_dir=tmp_path / "a")
        assert not artifact.finished and artifact.reached == "the module handed to hivmc"
        assert "CANN's hivmc and bisheng are on PATH" in artifact.remaining[0]
        (kernel,) = artifact.kernels
        assert "object" not in kernel.files and (artifact.directory / kernel.files["hivm"]).stat().st_size > 1000

    def test_the_backend_is_given_the_module_with_room(self, tmp_path, monkeypatch):
        # What stands in for it copies its input, which is named first.
        tools = tmp_path / "tools"
        tools.mkdir()
        body = 'given=$1; while [ $# -gt 0 ]; do [ "$1" = -o ] && cp "$given" "$2"; shift; done; exit 0'
        (tools / "hivmc").write_text(f"#!/bin/sh\n{body}\n")
        (tools / "hivmc").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        artifact = lower((3, 7), 0, soc="Ascend910B1", out_dir=tmp_path / "a")
        files = artifact.kernels[0].files
        module = (artifact.directory / files["hivm"]).read_text()
        assert artifact.finished and "pointer_cast(%temporary_i64) : memref<24xf32" in module
        assert (artifact.directory / files["object"]).read_text() == module

    @pytest.mark.parametrize("program", ["bishengir-opt-a5", "bishengir-compile-a5"])
    def test_a_missing_tool_for_ascend_950_is_named(self, program, tmp_path, monkeypatch):
        # The package for aarch64 has neither.
        from fq_tvm.ascend import npuir

        package = tmp_path / "package"
        (package / "bin").mkdir(parents=True)
        for binary in (npuir._package() / "bin").iterdir():
            if binary.name != program:
                (package / "bin" / binary.name).symlink_to(binary)
        monkeypatch.setattr(npuir, "_package", lambda: package)
        with pytest.raises(ToolchainMissing, match=f"needs {program}, which ascendnpu-ir .* does not hold"):
            lower((4, 16), 1, soc="Ascend950PR_9599", out_dir=tmp_path / "a")
        assert not (tmp_path / "a").exists()


@pytest.mark.usefixtures("akg")
def test_a_ccec_on_the_path_is_used(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ccec").write_text(
        '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && printf object > "$2"; shift; done\n'
    )
    (tools / "ccec").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    artifact = lower((4, 16, 7), 1, soc="Ascend910A", out_dir=tmp_path / "a")
    assert artifact.finished and artifact.toolchain == "akg"
    assert (artifact.directory / artifact.kernels[0].files["object"]).read_text() == "object"
    assert "tvm" not in {m.__name__ for m in (akg_module,)}


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(LoweringError, match=r"cannot write into .*Permission denied"):
        lower((2, 3), 1, toolchain="npuir", out_dir=tmp_path / "a")


def test_two_at_once_leave_one_whole_artifact(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def once(channels):
        return lower((2, channels), 1, soc="Ascend910B1", toolchain="tbe", out_dir=tmp_path / "a")

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(once, range(2, 14)))
    assert AscendArtifact.read(tmp_path / "a") in made
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_reading_what_is_no_artifact(tmp_path):
    with pytest.raises(LoweringError, match="holds no artifact"):
        AscendArtifact.read(tmp_path)
    (tmp_path / "meta.json").write_text('{"format": 2}')
    with pytest.raises(LoweringError, match="another format"):
        AscendArtifact.read(tmp_path)

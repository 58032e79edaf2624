"""The command line: what it prints, what it writes, and what it says of bad input."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import assert_same, expected

from fq_tvm import cli
from fq_tvm.store.cache import Store
from fq_tvm.weights import report

safetensors_numpy = pytest.importorskip("safetensors.numpy")


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command that succeeds; return what it prints, parsed if it is JSON."""

    def run(*arguments: Any) -> Any:
        status = cli.main([str(a) for a in arguments])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out) if "--json" in arguments else printed.out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command that fails for bad input; return the one line that it says."""

    def run(*arguments: Any) -> str:
        assert cli.main([str(a) for a in arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        lines = printed.err.rsplit("\r", 1)[-1].splitlines()  # a bar that was shown and wiped out is no line
        assert len(lines) == 1, printed.err
        assert lines[0].startswith("fq-tvm"), lines
        return lines[0]

    return run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((4, 300)).astype(np.float32)
    np.save(tmp_path / "x.npy", matrix)
    np.save(tmp_path / "swapped.npy", matrix.astype(">f4"))
    np.save(tmp_path / "double.npy", matrix.astype(np.float64))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(matrix))
    tensors = {
        "a.weight": matrix,
        "b.weight": rng.standard_normal((6, 5, 3)).astype(np.float16),
        "steps": np.arange(3),
        "bias": rng.standard_normal(4).astype(np.float32),
    }
    np.savez(tmp_path / "x.npz", **tensors)
    np.savez_compressed(tmp_path / "packed.npz", **tensors)
    safetensors_numpy.save_file(tensors, tmp_path / "x.safetensors")
    return tmp_path


def run_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".part")]


# --- help and arguments


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from fq_tvm.cli import main; status = main(['--help']);"
        "heavy = {'tvm', 'tvm_ffi', 'torch', 'numpy', 'tqdm', 'safetensors'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = run_process("-c", code)
    assert done.returncode == 0, done.stderr
    assert "TVM tensor expression" in done.stdout
    for name in ("info", "run", "build", "inspect", "bench", "tune", "cache", "FQ_TVM_CACHE_DIR", "exit status"):
        assert name in done.stdout


def test_module_is_the_command():
    done = run_process("-m", "fq_tvm", "run", "nowhere.npy")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "fq-tvm: error: cannot read nowhere.npy: No such file or directory\n"


@pytest.mark.parametrize("name", ["info", "run", "build", "inspect", "bench", "tune", "cache"])
def test_every_command_has_help(name, ask):
    text = ask(name, "--help")
    assert text.startswith(f"usage: fq-tvm {name}")
    assert "--json" in text


def test_version(ask):
    assert ask("--version") == "fq_tvm 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run"], "FILE"),
        (["run", "x.npy", "--axis", "one"], "invalid int value: 'one'"),
        (["run", "x.npy", "--symmetric", "--affine"], "not allowed with"),
        (["inspect", "--shape", "3,x"], "'3,x' is no list of integers"),
        (["inspect", "--shape", "3", "--dtype", "float8"], "'float8'"),
        (["inspect", "--shape", "3", "--kind", "ptx"], "'ptx'"),
        (["build", "-o", "d", "--all", "--spec", "dtype=float32"], "not allowed with"),
        (["cache", "burn"], "'burn'"),
    ],
)
def test_bad_arguments_are_one_line(arguments, said, refused):
    assert said in refused(*arguments)


def test_a_closed_pipe_is_no_error(cache_dir):
    code = "import sys; from fq_tvm.cli import main; sys.exit(main(['inspect', '--shape', '8', '--kind', 'asm']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) in (0, 141)


# --- info


def test_info(ask, cache_dir):
    answer = ask("info", "--json")
    assert answer["cpu"] not in ("", "native", "host")
    assert answer["features"] == sorted(answer["features"])
    assert answer["threads"] >= 1
    assert answer["cache"]["path"] == cache_dir
    assert answer["artifacts"] is None
    assert {"fq_tvm", "apache-tvm", "apache-tvm-ffi", "numpy"} <= set(answer["versions"])
    assert answer["extras"]["demo"]["safetensors"]
    text = ask("info")
    for word in (answer["cpu"], cache_dir, answer["versions"]["apache-tvm"], "threads", "features"):
        assert word in text


def test_info_names_a_missing_extra(ask, monkeypatch):
    monkeypatch.setattr(cli, "EXTRAS", {"sky": ("no-such-package",)})
    assert ask("info", "--json")["extras"] == {"sky": {"no-such-package": None}}
    assert 'pip install "fq_tvm[sky]"' in ask("info")


def test_info_of_an_unknown_cpu(refused, monkeypatch):
    monkeypatch.setenv("FQ_TVM_TARGET", "z80")
    assert "'z80'" in refused("info")


def test_info_of_bad_threads(refused, monkeypatch):
    monkeypatch.setenv("FQ_TVM_NUM_THREADS", "many")
    assert "FQ_TVM_NUM_THREADS is 'many'" in refused("info")


# --- run


def test_run_npy(ask, files, tmp_path):
    answer = ask("run", files / "x.npy", "--json", "-o", tmp_path / "out.npz", "--verify", "-q")
    (report,) = answer["tensors"]
    assert (report["tensor"], report["shape"], report["axis"], report["bits"]) == ("x", [4, 300], 0, 8)
    assert report["equal"] is True
    assert report["clipped"] == 0
    assert 30 < report["sqnr_db"] < 60
    assert report["gigabytes_per_second"] > 0
    assert report["times_numpy"] > 0
    x = np.load(files / "x.npy")
    with np.load(tmp_path / "out.npz") as written:
        assert sorted(written.files) == ["x.mask", "x.out", "x.scale", "x.zero_point"]
        scale, zero_point = written["x.scale"], written["x.zero_point"]
        np.testing.assert_array_equal(scale, (np.abs(x).max(1).astype(np.float64) / 127).astype(np.float32))
        assert not zero_point.any()
        assert_same((written["x.out"], written["x.mask"]), expected(x, scale, zero_point, 0, -128, 127))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["x.npz", "packed.npz", "x.safetensors"])
def test_run_a_whole_file(kind, files, tmp_path, capsys):
    arguments = ["run", str(files / kind), "--axis", "1", "--affine", "--bits", "4", "--verify", "-q"]
    assert cli.main([*arguments, "-o", str(tmp_path / "out.npz")]) == 0
    printed = capsys.readouterr()
    table = printed.out.splitlines()
    assert table[0].split() == ["tensor", "shape", "axis", "bits", "SQNR", "dB", "clipped", "%", "GB/s", "x", "numpy"]
    rows = {line.split()[0]: line.split()[1:4] for line in table[1:3]}
    assert rows == {"a.weight": ["4x300", "1", "4"], "b.weight": ["6x5x3", "1", "4"]}
    assert "each of the 2 results equals the numpy reference bit for bit (1290 elements)" in printed.out
    assert "skipped bias: axis is 1; expected one from -1 to 0 for 1 dimensions" in printed.err
    assert "skipped steps: it has dtype" in printed.err
    with np.load(files / "x.npz") as given, np.load(tmp_path / "out.npz") as written:
        for name in rows:
            scale, zero_point = written[f"{name}.scale"], written[f"{name}.zero_point"]
            want = expected(given[name], scale, zero_point, 1, -8, 7)
            assert_same((written[f"{name}.out"], written[f"{name}.mask"]), want)


@pytest.mark.parametrize("name", ["swapped", "fortran"])
def test_run_reads_any_byte_order_and_memory_order(name, ask, files, tmp_path):
    plain, other = tmp_path / "plain.npz", tmp_path / "other.npz"
    ask("run", files / "x.npy", "-o", plain, "-q")
    ask("run", files / f"{name}.npy", "-o", other, "-q")
    with np.load(plain) as a, np.load(other) as b:
        np.testing.assert_array_equal(a["x.out"], b[f"{name}.out"])


def test_run_chooses_tensors(ask, files):
    def names(*patterns: str) -> list[str]:
        chosen = [f"--tensor={p}" for p in patterns]
        return [r["tensor"] for r in ask("run", files / "x.safetensors", "--json", "-q", *chosen)["tensors"]]

    assert names("a.weight") == ["a.weight"]
    assert names("*.weight") == ["a.weight", "b.weight"]
    assert names("bias", "a.*") == ["a.weight", "bias"]


def test_run_reads_parameters_that_it_wrote(ask, files, tmp_path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    ask("run", files / "x.npz", "--affine", "-o", first, "-q")
    ask("run", files / "x.npz", "--scale", first, "--zero-point", first, "-o", second, "-q")
    with np.load(first) as a, np.load(second) as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_run_reads_parameters_of_one_tensor(ask, files, tmp_path):
    np.save(tmp_path / "s.npy", np.float16([0.5, 0.25, 2, 1]))
    np.save(tmp_path / "z.npy", np.array([0, 1, 2, 300]))  # int64, as numpy makes it; outside the range is allowed
    parameters = ["--scale", tmp_path / "s.npy", "--zero-point", tmp_path / "z.npy"]
    ask("run", files / "x.npy", *parameters, "--quant-min", -1, "--quant-max", 1, "-o", tmp_path / "out.npz", "-q")
    x = np.load(files / "x.npy")
    with np.load(tmp_path / "out.npz") as written:
        want = expected(x, np.float16([0.5, 0.25, 2, 1]), np.int32([0, 1, 2, 300]), 0, -1, 1)
        assert_same((written["x.out"], written["x.mask"]), want)


def test_run_says_what_json_cannot(ask, tmp_path):
    np.save(tmp_path / "zeros.npy", np.zeros((2, 3), np.float32))
    np.save(tmp_path / "exact.npy", np.float32([[1, -127], [127, 3]]))
    np.save(tmp_path / "empty.npy", np.zeros((2, 0), np.float32))
    np.save(tmp_path / "scalar.npy", np.float32(2.5))
    for name in ("zeros", "exact", "empty", "scalar"):
        (report,) = ask("run", tmp_path / f"{name}.npy", "--json", "--verify", "-q")["tensors"]
        assert report["sqnr_db"] is None
        assert report["equal"] is True


def test_run_keeps_nothing_of_a_difference(ask, files, monkeypatch, capsys):
    def wrong(*operands: Any) -> Any:
        out, mask = expected(*operands)
        return -out, mask

    monkeypatch.setattr(report.reference, "fake_quant", wrong)
    assert cli.main(["run", str(files / "x.npy"), "--verify", "-q"]) == 1
    printed = capsys.readouterr()
    assert "1 of 1 results differ from the reference: x" in printed.err
    assert "equals" not in printed.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.npy"], "No such file"),
        (["none.npz"], "No such file"),
        (["none.safetensors"], "No such file"),
        (["."], "unknown kind"),
        (["x.bin"], "expected a name that ends in .npy, .npz, .safetensors"),
        (["x.npy", "--axis", "2"], "axis is 2; expected one from -2 to 1"),
        (["double.npy"], "dtype float64; expected float16 or float32"),
        (["x.npz", "--tensor", "steps"], "'steps'"),
        (["x.npz", "--tensor", "gamma"], "no tensor 'gamma'; it has a.weight, b.weight, steps, bias"),
        (["x.npz", "--axis", "7"], "axis is 7"),
        (["x.npy", "--bits", "1"], "bits is 1"),
        (["x.npy", "--bits", "8", "--quant-min", "0", "--quant-max", "3"], "--bits and --quant-min"),
        (["x.npy", "--quant-min", "0"], "need each other"),
        (["x.npy", "--quant-min", "5", "--quant-max", "3"], "quant_min is 5 and quant_max is 3"),
        (["x.npy", "--quant-min", str(2**62), "--quant-max", str(2**63 - 1)], "needs a zero point that is no int32"),
        (["x.npy", "--zero-point", "x.npy"], "--zero-point needs --scale"),
        (["x.npy", "--scale", "none.npy"], "No such file"),
        (["x.npy", "--scale", "x.npy"], "x: scale has shape (4, 300)"),
        (["x.npy", "--scale", "x.npz"], "neither x.scale nor x"),
        (["x.npz", "--scale", "double.npy"], "a.weight: scale has dtype float64"),
        (["x.npy", "-o", "no/folder/out.npz"], "No such file"),
        (["x.npy", "-o", "."], "is a directory"),
        (["x.npz", "-o", "x.npz"], "would replace the input"),
    ],
)
def test_run_refuses(arguments, said, refused, files, monkeypatch):
    monkeypatch.chdir(files)
    before = {p: p.read_bytes() for p in files.iterdir()}
    output = [] if "-o" in arguments else ["-o", "out.npz"]
    assert said in refused("run", *arguments, *output)
    assert {p: p.read_bytes() for p in files.iterdir()} == before


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "packed.npz", "x.safetensors"])
@pytest.mark.parametrize("how", ["empty", "cut", "header", "text"])
def test_run_refuses_corrupt_files(name, how, refused, files):
    path = files / name
    data = path.read_bytes()
    damaged = {"empty": b"", "cut": data[: len(data) // 2], "header": data[:9], "text": b"not a tensor at all\n" * 9}
    path.write_bytes(damaged[how])
    assert f"cannot read {path}" in refused("run", path, "-o", files / "out.npz")
    assert not (files / "out.npz").exists()
    assert leftovers(files) == []


def test_run_refuses_damaged_data(refused, files):
    path = files / "x.npz"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1  # within the first tensor: zip's checksum tells
    path.write_bytes(data)
    assert "CRC" in refused("run", path, "-o", files / "out.npz")
    assert not (files / "out.npz").exists()
    assert leftovers(files) == []


def test_run_refuses_pickles(refused, tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    assert "dtype object" in refused("run", tmp_path / "x.npy")


def test_run_leaves_an_older_output_alone_on_failure(refused, files, monkeypatch):
    (files / "out.npz").write_bytes(b"older")
    monkeypatch.setattr(report, "_median_time", lambda call: (_ for _ in ()).throw(OSError("disk full")))
    assert "disk full" in refused("run", files / "x.npy", "-o", files / "out.npz")
    assert (files / "out.npz").read_bytes() == b"older"
    assert leftovers(files) == []


def test_run_into_a_read_only_folder(refused, files, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.geteuid() == 0:  # root may write there, but not here
        folder = Path("/proc/sys")
    before = sorted(folder.iterdir())
    assert str(folder) in refused("run", files / "x.npy", "-o", folder / "out.npz")
    assert sorted(folder.iterdir()) == before


def write_bf16(path: Path) -> None:
    header = json.dumps(
        {
            "h": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
            "x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))


def test_run_skips_bfloat16(tmp_path, capsys, refused):
    write_bf16(tmp_path / "m.safetensors")
    assert cli.main(["run", str(tmp_path / "m.safetensors"), "--json", "-q"]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert [r["tensor"] for r in answer["tensors"]] == ["x"]
    assert "bfloat16 is not supported yet" in answer["skipped"]["h"]
    assert "skipped h: bfloat16 is not supported yet" in printed.err
    assert "bfloat16 is not supported yet" in refused("run", tmp_path / "m.safetensors", "--tensor", "h")


def test_run_names_the_extra(refused, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert 'pip install "fq_tvm[demo]"' in refused("run", files / "x.safetensors")


def test_run_shows_a_bar_unless_quiet(files, capsys):
    assert cli.main(["run", str(files / "x.npy")]) == 0
    assert "1/1" in capsys.readouterr().err
    assert cli.main(["run", str(files / "x.npy"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


# --- build and inspect


def test_build_some(ask, tmp_path, monkeypatch):
    fields = ["iteration=rows", "dtype=float32", "scale_dtype=float32", "out_dtype=float32"]
    answer = ask("build", "--spec", *fields, "-o", tmp_path / "lib", "--json", "-q")
    assert [k["spec"]["arithmetic"] for k in answer["kernels"]] == ["narrow", "wide"]
    for kernel in answer["kernels"]:
        assert (Path(kernel["path"]) / "kernel.o").is_file()
    text = ask("build", "--spec", *fields, "-o", tmp_path / "lib", "-q")
    assert text.startswith(f"2 kernels for {answer['cpu']} in {tmp_path / 'lib'}")
    monkeypatch.setenv("FQ_TVM_ARTIFACTS_DIR", str(tmp_path / "lib"))
    assert ask("info", "--json")["artifacts"]["kernels"] == 2


def test_build_beyond_the_contract(ask, tmp_path):
    fields = ["iteration=rows", "scale_dtype=float32", "out_dtype=float32", "arithmetic=narrow"]

    def build(*arguments):
        answer = ask("build", "--spec", *fields, *arguments, "-o", tmp_path / "lib", "--json", "-q")
        return [kernel["name"] for kernel in answer["kernels"]]

    assert build("dtype=bfloat16", "zero_point_dtype=float16") == ["fq_rows_bf16_f32_f16_f32_narrow"]
    assert build("dtype=float32") == ["fq_rows_f32_f32_i32_f32_narrow"]
    assert len(build("dtype=float32", "--extensions")) == 3  # one for each dtype of the zero point


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "d"], "--all, or --spec"),
        (["--spec", "rows", "-o", "d"], "expected FIELD=VALUE"),
        (["--spec", "color=red", "-o", "d"], "'color=red'"),
        (["--spec", "dtype=float64", "-o", "d"], "dtype is 'float64'; expected one of float32, float16"),
        (["--all"], "-o"),
    ],
)
def test_build_refuses(arguments, said, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused("build", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_build_into_a_file(refused, tmp_path):
    (tmp_path / "taken").write_text("")
    assert "taken" in refused("build", "--spec", "iteration=rows", "-o", tmp_path / "taken")


def test_build_for_an_unknown_cpu(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("FQ_TVM_TARGET", "z80")
    assert "'z80'" in refused("build", "--all", "-o", tmp_path / "lib")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "iteration"),
    [
        (["--shape", "64,256,56,56", "--axis", "1"], "rows"),
        (["--shape", "64,256", "--axis", "-1"], "lanes"),
        (["--shape", "64,3,8,8", "--axis", "1", "--strides", "192,1,24,3"], "lanes"),
        (["--shape", "64,256", "--axis", "0", "--strides", "1024,4"], "strided_rows"),
        (["--shape", ""], "rows"),
    ],
)
def test_inspect(arguments, iteration, ask):
    answer = ask("inspect", *arguments, "--json")
    assert answer["spec"]["iteration"] == answer["layout"]["iteration"] == iteration
    assert Path(answer["path"]).is_dir()
    assert answer["source"] is None
    text = ask("inspect", *arguments)
    assert answer["name"] in text
    assert answer["path"] in text


@pytest.mark.parametrize(
    ("kind", "mark", "contains"),
    [("te", "#", "prim_func"), ("tir", "#", "T.prim_func"), ("ll", ";", "define"), ("asm", "#", ".text")],
)
def test_inspect_sources(kind, mark, contains, ask):
    text = ask("inspect", "--shape", "8,4000", "--kind", kind)
    facts, _, source = text.partition("\n\n")
    assert all(line.startswith(mark) for line in facts.splitlines())
    assert contains in source
    assert ask("inspect", "--shape", "8,4000", "--kind", kind, "--json")["source"].strip() == source.strip()


def test_inspect_takes_dtypes_and_range(ask):
    dtypes = ["--dtype", "float16", "--scale-dtype", "float16", "--out-dtype", "float32", "--bits", "32"]
    assert ask("inspect", "--shape", "8,4000", *dtypes, "--json")["name"] == "fq_rows_f16_f16_i32_f32_wide"
    dtypes = ["--dtype", "bfloat16", "--zero-point-dtype", "float32"]
    assert ask("inspect", "--shape", "8,4000", *dtypes, "--json")["name"] == "fq_rows_bf16_f32_f32_bf16_narrow"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shape", "3,0"], "each 1 or more"),
        (["--shape", "1,1,1,1,1,1,1,1,1"], "at most 8"),
        (["--shape", "3,4", "--axis", "2"], "axis is 2"),
        (["--shape", "3,4", "--strides", "1"], "--strides has 1 values; expected 2"),
    ],
)
def test_inspect_refuses(arguments, said, refused):
    assert said in refused("inspect", *arguments)


# --- cache


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of two entries, one of them of an old version, and one leftover."""
    from fq_tvm.launch.kernel import request_of, versions
    from fq_tvm.schedule import Schedule
    from fq_tvm.spec import FakeQuantSpec
    from fq_tvm.store.cache import Entry
    from fq_tvm.target import Target

    folder = tmp_path / "cache"
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(folder))
    store = Store(folder)
    request = request_of(FakeQuantSpec("rows"), Schedule(), Target("x86-64", ()))
    store.put(Entry(request, "0" * 64, {"kernel.o": bytes(600_000)}))
    old = {**request, "versions": {**versions(), "fq_tvm": "0.0.9"}, "spec": {"iteration": "spiral", "size": "7"}}
    store.put(Entry(old, "1" * 64, {"kernel.o": bytes(500_000)}))
    return folder


def names(answer: Any) -> list[str]:
    return [k["name"] for k in answer["kernels"]]


def test_cache_path(ask, own_cache):
    assert ask("cache", "path") == f"{own_cache}\n"
    assert ask("cache", "path", "--json") == {"path": str(own_cache)}


def test_cache_list(ask, own_cache):
    answer = ask("cache", "list", "--json")
    assert names(answer) == ["fq_rows_f32_f32_i32_f32_narrow", "spiral_7"]
    assert [k["bytes"] for k in answer["kernels"]] == [600_000, 500_000]
    text = ask("cache", "list")
    assert "spiral_7" in text
    assert f"2 kernels in {own_cache}: 1.10 MB" in text


def test_cache_prune(ask, own_cache):
    assert "removed 0, left 2" in ask("cache", "prune")
    assert "removed 0, left 2" in ask("cache", "prune", "--older-than", "1", "--max-size", "1.2")
    answer = ask("cache", "prune", "--other-versions", "--json")
    assert (len(answer["removed"]), answer["left"]) == (1, 1)
    assert names(ask("cache", "list", "--json")) == ["fq_rows_f32_f32_i32_f32_narrow"]


def test_cache_prune_by_age_and_size(ask, own_cache):
    kernels = ask("cache", "list", "--json")["kernels"]
    os.utime(kernels[0]["path"], (1e9, 1e9))
    assert "removed 1, left 1" in ask("cache", "prune", "--max-size", "1")
    assert names(ask("cache", "list", "--json")) == ["spiral_7"]
    os.utime(kernels[1]["path"], (1e9, 1e9))
    assert "removed 1, left 0" in ask("cache", "prune", "--older-than", "0.5")


def test_cache_clear(ask, own_cache):
    assert ask("cache", "clear", "--json")["removed"] == 2
    assert ask("cache", "list", "--json")["kernels"] == []
    assert f"0 kernels in {own_cache}" in ask("cache", "list")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clear", "--older-than", "3"], "belong to prune, not to clear"),
        (["list", "--max-size", "0"], "belong to prune"),
        (["prune", "--older-than", "-1"], "from 0 up"),
        (["prune", "--max-size", "inf"], "from 0 up"),
        (["prune", "--max-size", "much"], "'much'"),
    ],
)
def test_cache_refuses(arguments, said, refused, own_cache):
    assert said in refused("cache", *arguments)


def test_an_unusable_cache_is_one_warning(files, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    done = run_process("-m", "fq_tvm", "run", str(files / "x.npy"), "-q")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("fq-tvm: warning: the kernel cache")


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

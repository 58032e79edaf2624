"""`fq-tvm run`: what it prints, what it writes, and what it says of bad files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import assert_same, expected

from fq_tvm import cli
from fq_tvm.weights import report


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".part")]


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

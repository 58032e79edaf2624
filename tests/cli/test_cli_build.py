"""`fq-tvm build` and `inspect`: which kernels, and what they are."""

from __future__ import annotations

from pathlib import Path

import pytest


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
    assert build("dtype=float32", "mask=false", "nan=quant_max") == ["fq_rows_f32_f32_i32_f32_narrow_nanmax_nomask"]


def test_build_a_c_library(ask, refused, tmp_path):
    fields = ["iteration=rows", "dtype=float32", "scale_dtype=float32", "out_dtype=float32", "arithmetic=narrow"]
    folder = tmp_path / "c"
    answer = ask("build", "--c-api", "--spec", *fields, "-o", folder, "--json", "-q")
    assert [kernel["name"] for kernel in answer["kernels"]] == ["fq_rows_f32_f32_i32_f32_narrow"]
    assert sorted(answer["files"]) == sorted(map(str, folder.iterdir()))
    assert {Path(file).suffix for file in answer["files"]} == {".h", ".c", ".o"}
    assert "rows" in (folder / "fq_tvm.h").read_text()
    text = ask("build", "--c-api", "--spec", *fields, "-o", folder, "-q")
    assert text.startswith(f"1 kernels for {answer['cpu']} in {folder}")
    assert "-lm" in text
    assert "fq_tvm.h" in refused("build", "--c-api", "--spec", *fields, "-o", folder / "fq_tvm.h", "-q")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "d"], "--all, or --spec"),
        (["--spec", "rows", "-o", "d"], "expected FIELD=VALUE"),
        (["--spec", "color=red", "-o", "d"], "'color=red'"),
        (["--spec", "dtype=float64", "-o", "d"], "dtype is 'float64'; expected one of float32, float16"),
        (["--spec", "mask=maybe", "-o", "d"], "mask is 'maybe'; expected True or False"),
        (["--spec", "form=quotient", "-o", "d"], "form is 'quotient'; expected one of reciprocal, division"),
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


def test_for_another_architecture(ask, refused, tmp_path):
    fields = ["iteration=rows", "dtype=float32", "scale_dtype=float32", "out_dtype=float32", "arithmetic=narrow"]
    answer = ask("build", "--spec", *fields, "--target", "kunpeng-920", "-o", tmp_path / "lib", "--json", "-q")
    assert answer["cpu"] == "tsv110"
    (kernel,) = answer["kernels"]
    assert (Path(kernel["path"]) / "kernel.o").read_bytes()[18] == 183  # e_machine of ELF: aarch64
    shown = ask("inspect", "--shape", "4,300", "--target", "armv8-a", "--kind", "asm", "--json")
    assert shown["cpu"] == "armv8-a"
    assert "frintx" in shown["source"] or "frinti" in shown["source"]
    assert "'z80'" in refused("inspect", "--shape", "4", "--target", "z80")


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


def test_inspect_shows_the_calls_of_a_launch(ask):
    [call] = ask("inspect", "--shape", "8,4000", "--axis", "0", "--json")["calls"]
    assert call.startswith("run_serial(self, scale, zero_point, out, mask, quant_min=-128, quant_max=127, outer=1, ")
    answer = ask("inspect", "--shape", "3000,300", "--axis", "1", "--json")
    first, second = answer["calls"]
    assert first.startswith("expand_channels(scale, zero_point, workspace, copies=")
    assert second.startswith("run_parallel(self, workspace, out, mask, quant_min=-128, quant_max=127, first=0, runs=")
    assert answer["workspace_bytes"] > 0
    assert "expand_channels(scale" in ask("inspect", "--shape", "3000,300", "--axis", "1")


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

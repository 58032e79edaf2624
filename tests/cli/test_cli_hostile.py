"""Whatever is given or closed: one line and a status, never a traceback, and nothing that steers a terminal."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fq_tvm import FqError, cli
from fq_tvm.cli import commands
from fq_tvm.launch import registry
from fq_tvm.store.cache import Entry, Store
from fq_tvm.target import identify
from fq_tvm.weights import report
from fq_tvm.weights.files import EMPTY_CHANNELS, open_tensors, write_npz

PLAIN = {
    "info": [],
    "run": ["x.npy", "-q"],
    "build": ["--spec", "iteration=rows", "-o", "built", "-q"],
    "inspect": ["--shape=4,8"],
    "ascend": ["--shape=4,8", "--toolchain=tbe", "-o", "lowered"],
    "bench": ["-q"],
    "tune": ["--case=facts", "-q"],
    "cache": ["prune"],
}
"""Arguments with which each command does what it is for."""

NUMBERS = [
    "0",
    "-1",
    "-4",
    "2147483648",
    "-9223372036854775809",
    "1e308",
    "1e999",
    "nan",
    "-inf",
    "9" * 5000,
    "1_0",
    "٣",
]
TEXTS = ["", " ", "x", "no/such/x", "*[", "a\nb\r", "\x1b]0;x\x07", "\u202e\u2028\x9b", "\udcff", "n" * 300, "?", ".."]
LISTS = [
    "1,2,,3",
    "-1,8",
    "4,-8",
    "4,0",
    "9223372036854775807,9223372036854775807",
    "1,1,1,1,1,1,1,1,1",
    "NAN=1",
    "h:0",
]
HOSTILE = [*NUMBERS, *TEXTS, *LISTS]

STEERING = re.compile("[^\\S \n]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def options() -> Iterator[tuple[str, argparse.Action]]:
    (subparsers,) = [a for a in commands._parser()._actions if isinstance(a, argparse._SubParsersAction)]
    for name, parser in subparsers.choices.items():
        for action in parser._actions:
            if action.nargs != 0:
                yield name, action


OPTIONS = list(options())


@pytest.fixture
def no_work(monkeypatch) -> None:
    """What takes long is left out: options are looked at before."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise FqError("no work here")

    for place in ("bench.result.measure", "tuning.search.tune_cases", "launch.library.build_library"):
        monkeypatch.setattr(f"fq_tvm.{place}", refuse)
    monkeypatch.setattr(report, "MEASURE_SECONDS", 1e-9)


def test_every_command_is_tried():
    assert {name for name, _ in OPTIONS} | {"info"} == set(PLAIN)
    assert len(OPTIONS) > 40


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("command", "action"), OPTIONS, ids=lambda v: v if isinstance(v, str) else v.dest)
def test_every_value_of_every_option_is_one_line(command, action, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if command == "cache":  # which removes what there is, of other tests too
        monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path / "cache"))
    np.save("x.npy", np.ones((4, 8), np.float32))
    for value in HOSTILE:
        if action.option_strings:
            given = [command, *PLAIN[command], f"{action.option_strings[-1]}={value}"]
        else:
            given = [command, *PLAIN[command][1:], "--", value]
        status = cli.main(given)
        printed = capsys.readouterr()
        said = printed.err.splitlines()
        assert status in (0, 2), given
        assert len([line for line in said if "error: " in line]) == (status == 2), (given, said)
        assert all(line.startswith("fq-tvm") for line in said), (given, said)
        assert not STEERING.search(printed.err), (given, said)
        assert status == 0 or printed.out == "", given


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def described(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


HEADERS = [
    described("(True, 4)"),
    described("(4, -2)"),
    described("(-1,)"),
    described("(4294967296, 4294967296)"),
    described("(100000000000,)"),
    described("(9223372036854775807,)"),
    described("(4, 8"),
    described("(4, 8)", "'|O'"),
    described("(4, 8)", "'<f4,(1000000,)f4'"),
    described("(4, 8)", "[('a', '|O')]"),
    described("(4, 8)", "'|V0'"),
    described("(4, 8)", "'<f4'", "1"),
    described(f"({EMPTY_CHANNELS + 1}, 0)"),
    described("(9223372036854775807, 0)"),
    "-" * 9000 + "1",
    "(" * 9000,
    "'\\d': '\\x'",
    "{1: 2}",
    "{'descr': " * 150,
    "",
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda h: h[:60])
@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_headers_that_lie_are_refused_before_memory_is_taken(kind, header, refused, tmp_path):
    import tracemalloc

    path = tmp_path / f"x{kind}"
    data = npy(header, bytes(16))
    if kind == ".npy":
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data)
    tracemalloc.start()
    try:
        line = refused("run", path, "-q")
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert str(path) in line


def test_a_member_that_claims_more_than_the_archive_has(refused, tmp_path):
    """The size in the directory of an archive is a claim, too."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(described("(16777216, 64)"), bytes(64)))
    raw = path.read_bytes()
    where = raw.index(b"PK\x01\x02")
    path.write_bytes(raw[: where + 24] + struct.pack("<I", 2**32 - 2) + raw[where + 28 :])
    assert f"cannot read {path}" in refused("run", path, "-q")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, insert and repeat, mostly at the beginning and the end, where the headers are."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place = min(rng.randrange(len(made) + 1), rng.choice([140, len(made)]))
        place = rng.choice([place, max(len(made) - place, 0)])
        match rng.randrange(4):
            case 0:
                if place < len(made):
                    made[place] ^= 1 << rng.randrange(8)
            case 1:
                del made[place : place + rng.randint(1, 9)]
            case 2:
                made[place:place] = rng.randbytes(rng.randint(1, 9))
            case 3:
                made[place : place + 4] = rng.choice([b"\xff" * 4, bytes(4), b"(((("])
    return bytes(made)


def damage_names() -> list[str]:
    return ["x.npy", "x.npz", "deflated.npz", "bzip2.npz", "lzma.npz", "x.safetensors"]


@pytest.mark.parametrize("name", damage_names())
def test_damaged_files_are_one_line_or_right(name, files, capsys, monkeypatch):
    monkeypatch.setattr(report, "MEASURE_SECONDS", 1e-9)
    kinds = {"deflated.npz": zipfile.ZIP_DEFLATED, "bzip2.npz": zipfile.ZIP_BZIP2, "lzma.npz": zipfile.ZIP_LZMA}
    if name in kinds:
        with zipfile.ZipFile(files / name, "w", kinds[name]) as archive:
            archive.write(files / "x.npy", "x.npy")
    path = files / name
    data, rng, said = path.read_bytes(), random.Random(name), set()
    for _ in range(40):
        path.write_bytes(damaged(data, rng))
        status = cli.main(["run", str(path), "-q"])
        lines = [line for line in capsys.readouterr().err.splitlines() if "note: " not in line]
        assert status in (0, 2)
        assert len(lines) == (status == 2), lines
        said.update(line.partition(": cannot read")[2][-20:] for line in lines)
    assert len(said) > 1


NAMES = [
    "\x1b]0;pwned\x07",
    "one\nfq-tvm: error: two",
    "\u202egnp.exe",
    "a\0b",
    "a\0c",
    "ümläut",
    "\U0001f600",
    "\x9b31m",
    "e\x7f",
]


@pytest.fixture
def named(tmp_path) -> Path:
    """A file of tensors whose names mean ill."""
    path = tmp_path / "named.safetensors"
    header: dict[str, Any] = {
        name: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]} for i, name in enumerate(NAMES)
    }
    header["\x1b[31mred"] = {"dtype": "I8", "shape": [1], "data_offsets": [16 * len(NAMES), 16 * len(NAMES) + 1]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + np.ones(4 * len(NAMES), np.float32).tobytes() + b"1")
    pytest.importorskip("safetensors")
    return path


def test_names_reach_the_terminal_escaped(named, tmp_path, capsys):
    out = tmp_path / "out.npz"
    for more in ([], ["--json"], ["--tensor=\x1b[0m*"], ["--axis=9"], ["-o", str(out)]):
        status = cli.main(["run", str(named), *more])
        printed = capsys.readouterr()
        assert status == (2 if {"--tensor=\x1b[0m*", "--axis=9"} & set(more) else 0), printed.err
        bar_and_lines = re.sub("[\r\xa0]|\x1b\\[A", "", printed.err)
        assert not STEERING.search(printed.out), more
        assert not STEERING.search(bar_and_lines), more
        assert "\nfq-tvm: error: two" not in printed.out
        if not more:
            rows = printed.out.splitlines()
            assert len(rows) == len(NAMES) + 2
            assert r"\x1b]0;pwned\x07 " in rows[1]
    with np.load(out) as written:
        assert len(written.files) == 4 * len(NAMES)
        assert {r"a\x00b.out", "ümläut.mask"} <= set(written.files)


def test_names_of_files_that_are_no_text(tmp_path, capsys):
    path = tmp_path / "\udcff.npy"
    np.save(path, np.ones((2, 2), np.float32))
    assert cli.main(["run", str(path), "-q", "-o", str(tmp_path / "out.npz")]) == 0
    assert r"\udcff" in capsys.readouterr().out
    with np.load(tmp_path / "out.npz") as written:
        assert r"\udcff.out" in written.files


def test_a_name_that_no_archive_takes(tmp_path):
    path = tmp_path / "out.npz"
    with pytest.raises(FqError, match="too long a name"), write_npz(path) as write:
        write("n" * 70000, np.ones(2))
    assert list(tmp_path.iterdir()) == []


def test_code_and_its_facts_stay_code(capsys, cache_dir):
    assert cli.main(["inspect", "--shape=4,8", "--kind=asm"]) == 0
    printed = capsys.readouterr().out
    assert "\n\t.text\n" in printed
    assert not STEERING.search(printed.replace("\t", ""))


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which ``fq`` is the command."""
    script = f'fq() {{ {sys.executable} -m fq_tvm "$@"; }}; {line}'
    given = {**os.environ, "PYTHONWARNINGS": "ignore", **environment}
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=given, capture_output=True, encoding="latin1", timeout=120
    )


STREAMS = [
    ("fq cache path >&-", 2, "Bad file descriptor"),
    ("fq cache path 2>&-", 0, ""),
    ("fq cache path >&- 2>&-", 2, ""),
    ("fq cache path <&- >&- 2>&-", 2, ""),
    ("fq cache path >/dev/full", 2, "No space left"),
    ("fq nonsense 2>/dev/full", 2, ""),
    ("fq run nowhere.npy 2>&-", 2, ""),
    ("fq run nowhere.npy 2>/dev/full", 2, ""),
    ("fq --help | head -c0; exit ${PIPESTATUS[0]}", 141, ""),
    ("fq --help >/dev/full", 2, "No space left"),
    ("fq run x.npy -q -o out.npz >&-", 2, "Bad file descriptor"),
    ("fq run x.npy -o out.npz >&- 2>&-", 2, ""),
    ("fq run x.npy -q 2>&1 | head -c0; exit ${PIPESTATUS[0]}", 141, ""),
]


@pytest.mark.parametrize(("line", "status", "said"), STREAMS, ids=lambda v: v if isinstance(v, str) else None)
def test_streams_that_take_nothing(line, status, said, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((4, 8), np.float32))
    done = shell(line, tmp_path)
    assert done.returncode in (status, 0 if "head" in line else status), done.stderr
    assert len(done.stderr.splitlines()) == bool(said), done.stderr
    assert said in done.stderr
    if "-o" in line:  # the work was done all the same, and nothing else came into the file
        with np.load(tmp_path / "out.npz") as written:
            assert written["x.out"].shape == (4, 8)


@pytest.mark.parametrize("encoding", ["ascii", "latin1"])
def test_a_terminal_without_unicode(encoding, named, tmp_path):
    done = shell(f"fq run {named.name} -q", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert {"ascii": r"\xfcml\xe4ut", "latin1": "ümläut"}[encoding] in done.stdout
    assert r"\U0001f600" in done.stdout


def test_memory_that_there_is_not(files, refused, monkeypatch):
    def exhausted(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(report, "_median_time", exhausted)
    assert "out of memory" in refused("run", files / "x.npy", "-q")


@pytest.mark.parametrize("shape", ["-4,8", "4,-2", "-9223372036854775808", "0,-1", "4611686018427387904,4"])
def test_only_minus_one_is_a_dynamic_extent(shape, refused):
    assert "shape is" in refused("ascend", f"--shape={shape}")


@pytest.mark.parametrize("name", ["--older-than", "--max-size"])
def test_numbers_of_prune(name, refused, ask, tmp_path, monkeypatch):
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path))
    assert ask("cache", "prune", name, "1e308").startswith("removed 0")
    for value in ("inf", "nan", "-1", "1e309", "x"):
        assert "expected a number from 0 up" in refused("cache", "prune", f"{name}={value}")


def test_only_output_prints():
    """So that whatever is printed is escaped there."""
    for path in Path(commands.__file__).parent.glob("*.py"):
        found = re.findall(r"(?<![\w.])print\(", path.read_text())
        assert len(found) == {"output.py": 4, "parser.py": 1}.get(path.name, 0), path.name


def test_open_tensors_reads_what_numpy_wrote(tmp_path):
    rng = np.random.default_rng(0)
    for dtype in (">f4", "<f2", "i8", "?"):
        for shape in ((), (0,), (3, 0, 2), (5, 7), (2, 3, 4)):
            for order in "CF":
                given = np.asarray(rng.integers(0, 2, shape), dtype, order=order)
                np.save(tmp_path / "x.npy", given)
                np.savez(tmp_path / "x.npz", x=given)
                for name in ("x.npy", "x.npz"):
                    with open_tensors(tmp_path / name) as file:
                        got = file.read("x")
                    np.testing.assert_array_equal(got, given)
                    assert got.dtype == given.dtype.newbyteorder("=")
                    assert got.flags.f_contiguous == given.flags.f_contiguous
                    assert got.flags.writeable


def test_entries_of_anybody(ask, refused, tmp_path, monkeypatch):
    """Sound entries of something else, and damaged ones, are passed over; names of kernels are escaped."""
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path))
    store, endless = Store(tmp_path), "/dev/zero"
    about = {"target": {"cpu": "\x1b[31m"}, "versions": {"fq_tvm": 0}, "schedule": {}}
    requests: list[dict[str, Any]] = [
        {},
        {"spec": {"iteration": "rows"}},
        {"spec": [1], **about},
        {"spec": {"iteration": ["rows"]}, **about, "target": "znver4"},
        {"spec": {"iteration": "rows"}, **about, "versions": ["fq_tvm"]},
        {"spec": {"iteration": "\u202erows"}, **about},
    ]
    paths = [store.put(Entry(request, "0" * 64, {"kernel.o": b""})).path for request in requests]
    assert None not in paths
    damaged = store.put(Entry({"spec": {"of": endless}}, "0" * 64, {})).path
    for meta in ({"key": {"spec": {"of": endless}, "tir": "0" * 64}, "files": {endless: {}}}, "[" * 100_000):
        (damaged / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
        shown = ask("cache", "list")
        assert not STEERING.search(shown)
        assert r"\u202erows" in shown
        assert "1 kernels in" in shown
        ask("info", "--json") if isinstance(meta, str) else None


@pytest.mark.parametrize("answer", [None, 5, {"cpu": 5}, {"cpu": "x", "features": [1], "disabled": [], "missing": []}])
def test_notes_of_anybody_are_asked_again(answer, tmp_path, monkeypatch):
    monkeypatch.setenv("FQ_TVM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(registry, "_targets", {})
    question = identify("host")
    Store(tmp_path).remember(question, answer)
    monkeypatch.setattr(registry, "_targets", {})
    target = registry.find_target("host")
    assert target.to_json() == Store(tmp_path).recall(question)
    assert target.features

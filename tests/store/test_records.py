"""Tuned schedules: files, and which one applies."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import flips
from support import assert_same, checked_arguments, expected, launch_on, make

import fq_tvm.torch
from fq_tvm import FakeQuantSpec, FqError, Schedule, aclnn, fake_quantize_per_channel_affine_cachemask, get_kernel
from fq_tvm.codegen.llvm import resolve
from fq_tvm.launch import registry
from fq_tvm.launch.choose import schedule_for
from fq_tvm.launch.library import build_library
from fq_tvm.launch.registry import current_target, launch_of, prepare
from fq_tvm.schedule import LIMITS, default_schedule
from fq_tvm.store import records
from fq_tvm.store.records import Record, RecordFile
from fq_tvm.target import Target
from fq_tvm.tuning import search

V4 = ("avx2", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
ZEN4 = Target("znver4", V4)
ROWS = FakeQuantSpec("rows")


def content(cpu: str, tile: int = 4096, **more) -> RecordFile:
    record = Record((("iteration", "rows"),), "memory", Schedule(tile=tile), {"over_default": 0.9})
    return RecordFile(cpu, (record,), threads=2, **more)


def of_shape(*extents: int, tile: int = 4096, size_class: str = "cache", **match: str) -> Record:
    return Record((("iteration", "rows"), *match.items()), size_class, Schedule(tile=tile), extents=extents)


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Folders of the user's and the library's records, both empty."""
    user, shipped = tmp_path / "user", tmp_path / "shipped"
    for folder in (user, shipped):
        folder.mkdir()
    monkeypatch.setattr(records, "user_folder", lambda: user)
    monkeypatch.setattr(records, "shipped_folder", lambda: shipped)
    records.forget()
    yield user, shipped
    records.forget()


def test_a_file_round_trips(tmp_path):
    path = tmp_path / "new" / "znver4.json"
    written = content("znver4", rows_min_inner=128, tuned={"seed": 0})
    records.write(path, written)
    assert records.read(path) == written
    assert records.read(path).records[0].measured == {"over_default": 0.9}
    text = path.read_text()
    assert len(text.splitlines()) == 10, "one line a record"
    assert list(path.parent.iterdir()) == [path]


def test_the_shipped_files_are_sound():
    folder = records.shipped_folder()
    assert folder is not None
    for path in folder.glob("*.json"):
        assert records.read(path).cpu == path.stem
        assert path.read_text() == records._readable(json.loads(path.read_text())), f"{path.name} is not as written"


def test_nothing_applies_without_files(folders):
    assert records.lookup(ROWS, ZEN4) is None
    assert records.rows_min_inner(ZEN4) is None
    assert schedule_for(ROWS, ZEN4) == default_schedule(ROWS)


def test_order_of_the_cpu_its_family_and_its_level(folders):
    user, shipped = folders
    order = []
    for folder, cpu in (
        (shipped, "x86-64-v3"),
        (shipped, "x86-64-v4"),
        (shipped, "znver1"),
        (shipped, "znver3"),
        (shipped, "znver4"),
        (user, "znver4"),
    ):
        order.append(100 + len(order))
        records.write(folder / f"{cpu}.json", content(cpu, tile=order[-1]))
        records.forget()
        assert records.lookup(ROWS, ZEN4) == Schedule(tile=order[-1]), cpu
    found = records.applicable(ZEN4)
    assert [f.content.records[0].schedule.tile for f in found] == order[::-1]
    assert found[0].reason == "this CPU, yours"
    assert "family" in found[2].reason
    assert "features of x86-64-v4" in found[4].reason
    assert records.lookup(FakeQuantSpec("lanes"), ZEN4) is None


def test_what_a_cpu_has_no_record_of_is_taken_from_its_level(folders):
    """For other kernels, other sizes or an empty list: the next file is asked."""
    records.write(folders[1] / "x86-64-v4.json", content("x86-64-v4", tile=7))
    lanes = Record((("iteration", "lanes"),), "memory", Schedule(tile=5))
    mid = Record((("iteration", "rows"),), "mid", Schedule(tile=6))
    for own in ((), (lanes,), (lanes, mid)):
        records.write(folders[1] / "znver4.json", RecordFile("znver4", own))
        records.forget()
        assert records.lookup(ROWS, ZEN4) == Schedule(tile=7)
        assert records.lookup(FakeQuantSpec("lanes"), ZEN4) == (Schedule(tile=5) if own else None)


@dataclasses.dataclass(frozen=True)
class OtherSpec(FakeQuantSpec):
    """A kernel of another operator of the family."""

    operator = "other"


def test_a_record_is_of_one_operator(folders):
    ours, theirs = content("znver4", tile=7), content("znver4", tile=8)
    of_other = dataclasses.replace(theirs.records[0], operator="other")
    path = folders[0] / "znver4.json"
    records.write(path, RecordFile("znver4", (of_other, *ours.records)))
    assert records.read(path).records == (of_other, *ours.records)
    assert records.lookup(ROWS, ZEN4) == Schedule(tile=7)
    assert records.lookup(OtherSpec("rows"), ZEN4) == Schedule(tile=8)
    merged = records.merge(ours, RecordFile("znver4", (of_other,)))
    assert set(merged.records) == {of_other, *ours.records}, "they do not replace each other"


def test_records_of_files_without_operators_are_ours(folders):
    value = content("znver4").to_json()
    del value["records"][0]["operator"]
    (folders[0] / "znver4.json").write_text(json.dumps(value))
    assert records.lookup(ROWS, ZEN4) == Schedule(tile=4096)
    assert records.lookup(OtherSpec("rows"), ZEN4) is None


def test_fields_of_other_operators_are_theirs_to_know():
    value = content("znver4").records[0].to_json()
    value["match"]["correction"] = "yes"
    with pytest.raises(FqError, match="unknown field"):
        Record.from_json(value)
    assert dict(Record.from_json({**value, "operator": "other"}).match)["correction"] == "yes"


def test_levels_are_what_the_features_say():
    assert ZEN4.level == "x86-64-v4"
    assert Target("x", tuple(f for f in V4 if f != "avx512vl")).level == "x86-64-v3"
    assert Target("x", ("avx2",)).level is None
    assert resolve("x86-64-v3").level == "x86-64-v3"
    assert resolve("x86-64-v4").level == "x86-64-v4"
    assert [name for name, _ in records.candidates(Target("x86-64-v3", V4[:1]), ["x86-64-v4"])] == ["x86-64-v3"]


def test_a_level_does_not_take_the_records_of_one_above(folders):
    records.write(folders[1] / "x86-64-v4.json", content("x86-64-v4"))
    assert records.lookup(ROWS, Target("haswell", tuple(f for f in V4 if "512" not in f))) is None


def test_of_two_records_the_narrower_counts():
    wide = Record((("iteration", "rows"),), "mid", Schedule(tile=1))
    narrow = Record((("dtype", "float16"), ("iteration", "rows")), "mid", Schedule(tile=2))
    file = RecordFile("znver4", (wide, narrow))
    assert file.find(ROWS, "mid") == wide
    assert file.find(FakeQuantSpec("rows", "float16"), "mid") == narrow
    assert file.find(ROWS, "cache") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no record file"),
        ("{}", "no record file"),
        ('{"format": 99}', "format is 99"),
        (json.dumps({**content("znver3").to_json()}), "is for znver3"),
        (json.dumps({**content("znver4").to_json(), "threads": "two"}), "threads is 'two'"),
        (json.dumps({**content("znver4").to_json(), "rows_min_inner": 0}), "rows_min_inner is 0"),
        (json.dumps(content("znver4").to_json()).replace("tile", "tiles"), "unknown knob"),
        (json.dumps(content("znver4").to_json()).replace("memory", "huge"), "size_class is 'huge'"),
        (json.dumps(content("znver4").to_json()).replace('"iteration"', '"walk"'), "unknown field"),
        (json.dumps(content("znver4").to_json()).replace('"fake_quant"', "7"), "operator is 7"),
        (json.dumps(RecordFile("znver4", (of_shape(4, 7),)).to_json()).replace("[4, 7]", "[4, 0]"), "extents are"),
        (json.dumps(RecordFile("znver4", (of_shape(4, 7),)).to_json()).replace("[4, 7]", "7"), "no record file"),
        (json.dumps(content("znver4").to_json()).replace('"tile"', '"static": 1, "tile"'), "without extents"),
    ],
)
def test_a_bad_file_costs_one_warning(folders, text, said):
    user, shipped = folders
    (user / "znver4.json").write_text(text)
    records.write(shipped / "znver4.json", content("znver4"))
    with pytest.warns(RuntimeWarning, match=said) as caught:
        assert records.lookup(ROWS, ZEN4) == Schedule(tile=4096)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert records.lookup(ROWS, ZEN4, "cache") is None
        assert schedule_for(ROWS, ZEN4) == Schedule(tile=4096)


def test_a_folder_in_place_of_a_file_is_skipped(folders):
    (folders[0] / "znver4.json").mkdir()
    with pytest.warns(RuntimeWarning, match="skipped"):
        assert records.lookup(ROWS, ZEN4) is None


def test_reading_needs_no_compiler():
    code = (
        "import sys; from fq_tvm import FakeQuantSpec, Target; from fq_tvm.store import records\n"
        "records.lookup(FakeQuantSpec('rows'), Target('znver4', ('avx2',)))\n"
        "assert 'tvm' not in sys.modules and 'tvm_ffi' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_read_at_import():
    code = (
        "import sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('.json'): raise SystemExit(str(arguments))\n"
        "sys.addaudithook(hook)\n"
        "import fq_tvm.store.records"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_home_is_no_error(monkeypatch):
    monkeypatch.setattr(records, "data_dir", lambda: None)
    assert records.user_folder() is None
    records.forget()
    records.applicable(ZEN4)
    records.forget()


def test_size_classes():
    assert [records.size_class(n) for n in (0, 2**20, 2**20 + 1, 2**25, 2**25 + 1)] == [
        "cache",
        "cache",
        "mid",
        "mid",
        "memory",
    ]
    assert records.size_class_of(ROWS, 2**20 // 9) == "cache"
    assert records.size_class_of(ROWS, 2**20 // 9 + 1) == "mid"
    assert records.size_class_of(FakeQuantSpec("rows", "float16", out_dtype="float16"), 2**20 // 5) == "cache"


def test_merging_keeps_what_was_not_measured_again():
    old, new = content("znver4", rows_min_inner=64), content("znver4", tile=9)
    other = Record((("iteration", "lanes"),), "memory", Schedule())
    old = dataclasses.replace(old, records=(*old.records, other))
    merged = records.merge(old, new)
    assert {r.schedule.tile for r in merged.records} == {9, Schedule().tile}
    assert merged.rows_min_inner == 64
    assert records.merge(None, new) == new
    assert records.merge(content("znver3"), new) == new


def test_merging_drops_what_the_default_replaced():
    old = content("znver4")
    other = Record((("iteration", "lanes"),), "memory", Schedule(tile=5))
    untuned = dataclasses.replace(old.records[0], schedule=Schedule())
    old = dataclasses.replace(old, records=(*old.records, other))
    merged = records.merge(old, RecordFile("znver4", ()), [untuned])
    assert merged.records == (other,)


def test_who_remembers_is_told_to_forget(folders, monkeypatch):
    monkeypatch.setattr(records, "_forgotten", [])
    told = []
    records.when_forgotten(lambda: told.append(records.lookup(ROWS, ZEN4)))
    records.forget()
    records.write(folders[0] / "znver4.json", content("znver4"))
    records.forget()
    assert told == [None, Schedule(tile=4096)], "what is told looks up anew"


def test_a_call_uses_the_record_of_its_size(folders, monkeypatch):
    target = current_target()
    match = (("iteration", "rows"),)
    chosen = tuple(Record(match, name, Schedule(tile=t)) for name, t in (("cache", 512), ("mid", 640)))
    records.write(folders[0] / f"{target.cpu}.json", RecordFile(target.cpu, chosen, rows_min_inner=2000))
    rng = np.random.default_rng(0)
    for shape, iteration, tile in (
        ((4, 3000), "rows", 512),
        ((40, 3000), "rows", 640),
        ((4, 1999), "lanes", default_schedule(FakeQuantSpec("lanes")).tile),
    ):
        x, scale, zero_point = make(rng, shape, 0)
        out, mask = np.empty_like(x), np.empty(shape, bool)
        arrays = (x, scale, zero_point, out, mask)
        launch = prepare(checked_arguments(arrays, 0, -128, 127))
        assert launch.kernel.spec.iteration == iteration
        assert launch.kernel.schedule.tile == tile
        launch_on(launch, arrays)
        assert_same((out, mask), expected(x, scale, zero_point, 0, -128, 127))
    assert get_kernel(ROWS).schedule == default_schedule(ROWS), "the memory class has no record"


def test_a_shape_that_was_seen_before_gets_a_new_record(folders):
    """By every door: what was prepared by the old record is forgotten with it."""
    target = current_target()
    x, scale, zero_point = make(np.random.default_rng(0), (7, 3001), 0)
    out, mask = np.empty_like(x), np.empty(x.shape, bool)
    checked = checked_arguments((x, scale, zero_point, out, mask), 0, -128, 127)
    for tile in (512, 640):
        records.write(
            folders[0] / f"{target.cpu}.json",
            RecordFile(target.cpu, (Record((("iteration", "rows"),), "cache", Schedule(tile=tile)),)),
        )
        records.forget()
        for _ in range(2):
            fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, 0, -128, 127)
            aclnn.get_workspace_size(x, scale, zero_point, 0, -128, 127, out, mask)
            with fq_tvm.torch.enabled():
                torch.fake_quantize_per_channel_affine(*map(torch.from_numpy, (x, scale, zero_point)), 0, -128, 127)
            tiles = {launch.kernel.schedule.tile for launch in registry.launches.values()}
            assert tiles == {tile}
        assert launch_of(checked).kernel.schedule.tile == tile
    records.forget()


def test_a_library_has_the_kernel_of_every_size(folders, tmp_path):
    target = current_target()
    chosen = tuple(Record((), name, Schedule(tile=t)) for name, t in (("cache", 512), ("mid", 640), ("memory", 512)))
    records.write(folders[0] / f"{target.cpu}.json", RecordFile(target.cpu, chosen))
    paths = build_library(tmp_path / "library", [ROWS])
    assert len(paths) == 2


def test_records_of_shapes_round_trip_in_a_format_of_their_own(tmp_path):
    """A reader of the first format would take them for records of a size class."""
    path = tmp_path / "znver4.json"
    written = RecordFile("znver4", (*content("znver4").records, of_shape(4, 5, 300)))
    records.write(path, written)
    assert records.read(path) == written
    assert json.loads(path.read_text())["format"] == 2
    assert "static" not in path.read_text(), "nor does such a reader know this knob"
    code = dataclasses.replace(of_shape(4, 5, 300), schedule=Schedule(static=1))
    assert Record.from_json(code.to_json()) == code
    ahead = dataclasses.replace(content("znver4").records[0], schedule=Schedule(prefetch=256))
    assert RecordFile("znver4", (ahead,)).to_json()["format"] == 2
    assert Record.from_json(ahead.to_json()) == ahead
    assert content("znver4").to_json()["format"] == 1


def test_a_record_of_the_shape_goes_before_those_of_its_size(folders):
    shipped = RecordFile("znver4", (of_shape(4, 5, 300, tile=1), of_shape(4, 5, 301, tile=2)))
    own = (
        *(Record((("iteration", "rows"),), name, Schedule(tile=3)) for name in ("cache", "memory")),
        of_shape(4, 5, 300, tile=4),
        of_shape(4, 5, 300, tile=5, dtype="float32"),
        of_shape(4, 5, 300, tile=6, dtype="float16"),
    )
    records.write(folders[1] / "znver4.json", shipped)
    records.write(folders[0] / "znver4.json", RecordFile("znver4", own))
    found = {e: records.lookup(ROWS, ZEN4, "cache", e) for e in ((4, 5, 300), (4, 5, 301), (4, 5, 302), ())}
    assert [s.tile for s in found.values()] == [5, 2, 3, 3]
    assert records.lookup(ROWS, ZEN4) == Schedule(tile=3), "of no other size class"
    assert records.lookup(FakeQuantSpec("lanes"), ZEN4, "cache", (4, 5, 300)) is None
    (folders[0] / "znver4.json").unlink()
    records.forget()
    assert records.lookup(ROWS, ZEN4, "cache", (4, 5, 300)) == Schedule(tile=1)


def test_merging_tells_shapes_apart():
    old = RecordFile("znver4", (of_shape(4, 5, 300, tile=1), of_shape(2, 5, 300), *content("znver4").records))
    merged = records.merge(old, RecordFile("znver4", (of_shape(4, 5, 300, tile=2),)))
    assert set(merged.records) == {of_shape(2, 5, 300), of_shape(4, 5, 300, tile=2), *content("znver4").records}
    assert records.merge(old, RecordFile("znver4", ()), [of_shape(2, 5, 300)]).records == (
        of_shape(4, 5, 300, tile=1),
        *content("znver4").records,
    )


def test_launches_of_the_shape_take_its_record_and_others_do_not(folders, tmp_path, monkeypatch):
    """However the shape is written, by a kernel that was built ahead of time; and get_kernel, if it knows the shape."""
    target = current_target()
    records.write(folders[0] / f"{target.cpu}.json", RecordFile(target.cpu, (of_shape(4, 5, 300, tile=128),)))
    library = tmp_path / "library"
    assert len(build_library(library, [ROWS])) == 2
    monkeypatch.setenv("FQ_TVM_ARTIFACTS_DIR", str(library))
    monkeypatch.setenv("FQ_TVM_REQUIRE_CACHE", "1")
    monkeypatch.setattr(registry, "_kernels", {})
    rng, default = np.random.default_rng(0), default_schedule(ROWS, target)
    for shape, axis, tile in (
        ((4, 5, 300), 1, 128),
        ((2, 2, 5, 1, 10, 30), 2, 128),
        ((4, 5, 301), 1, default.tile),
        ((1, 20, 300), 1, default.tile),
    ):
        x, scale, zero_point = make(rng, shape, axis)
        out, mask = np.empty_like(x), np.empty(shape, bool)
        arrays = (x, scale, zero_point, out, mask)
        launch = prepare(checked_arguments(arrays, axis, -128, 127))
        assert launch.kernel.schedule.tile == tile
        assert get_kernel(ROWS, shape=shape, axis=axis) is launch.kernel
        launch_on(launch, arrays)
        assert_same((out, mask), expected(x, scale, zero_point, axis, -128, 127))
    assert get_kernel(ROWS, shape=(4, 5, 300)).schedule.tile == 128
    assert get_kernel(ROWS).schedule == default


def test_a_library_has_the_code_of_single_shapes(folders, tmp_path, monkeypatch):
    target = current_target()
    knobs = default_schedule(ROWS, target)
    chosen = [Record((), "cache", dataclasses.replace(knobs, static=1), extents=e) for e in ((3, 4, 49), (3, 4, 50))]
    records.write(folders[0] / f"{target.cpu}.json", RecordFile(target.cpu, tuple(chosen)))
    library = tmp_path / "library"
    assert len(build_library(library, [ROWS])) == 3
    monkeypatch.setenv("FQ_TVM_ARTIFACTS_DIR", str(library))
    monkeypatch.setenv("FQ_TVM_REQUIRE_CACHE", "1")
    monkeypatch.setattr(registry, "_kernels", {})
    kernels = [get_kernel(ROWS, shape=(3, 4, inner)) for inner in (49, 50, 51)]
    assert [kernel.schedule.static for kernel in kernels] == [1, 1, 0]
    assert len({kernel.path for kernel in kernels}) == 3


def test_the_width_of_vectors_is_a_choice_where_there_is_one():
    v4, v3 = resolve("x86-64-v4"), resolve("x86-64-v3")
    narrow, wide = (get_kernel(ROWS, v4, Schedule(vector_bits=bits)).source("asm") for bits in (256, 512))
    # Whole lines that are written past the caches are vectors of 512 bits in either.
    assert wide.count("zmm") > 1.5 * narrow.count("zmm")
    assert narrow.count("ymm") > 1.5 * wide.count("ymm")
    assert v3.to_tvm(512) == v3.to_tvm()
    with pytest.raises(FqError, match="vector_bits is 128"):
        Schedule(vector_bits=128)


def test_packages_of_the_wheel_are_all_listed():
    """The folder of schedules is mapped into the package by name, so the others have to be named as well."""
    tomllib = pytest.importorskip("tomllib")
    root = Path(importlib.import_module("fq_tvm").__file__).parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    have = {".".join(p.relative_to(root).parent.parts) for p in (root / "fq_tvm").rglob("__init__.py")}
    assert set(settings["packages"]) == have | {"fq_tvm.schedules"}
    assert settings["package-dir"] == {"fq_tvm.schedules": "schedules"}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        b"\xff\xfe{}",
        '{"format": 1, "cpu": "znver4", "records": [' + "9" * 5000 + "]}",
        *(
            json.dumps({"format": 1, "cpu": "znver4", "records": [{**record, **more}]})
            for record in [{"match": {}, "size_class": "mid", "schedule": {}}]
            for more in (
                {"measured": 5},
                {"match": {"dtype": ["float32"]}},
                {"match": ["dtype"]},
                {"size_class": []},
                {"schedule": {"tile": 2**63}},
                {"schedule": {"tile": True}},
                {"schedule": [1]},
            )
        ),
    ],
    ids=lambda t: str(t)[-70:],
)
def test_a_record_file_of_anybody_is_one_error(text, tmp_path):
    path = tmp_path / "znver4.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FqError, match=re.escape(str(path))):
        records.read(path)


def test_a_record_file_with_a_flipped_bit_is_right_or_refused(tmp_path):
    path = tmp_path / "znver4.json"
    records.write(path, content("znver4", rows_min_inner=128, tuned={"seed": 0}))
    right, refused = records.read(path).to_json(), 0
    for bit in flips(path):
        try:
            assert records.read(path).to_json() == right, bit
        except FqError:
            refused += 1
    assert refused > 1000
    assert records.read(path).to_json() == right


def test_a_damaged_file_is_passed_over_and_made_anew(folders, monkeypatch):
    user, shipped = folders
    for folder, tile in ((user, 8), (shipped, 9)):
        records.write(folder / "znver4.json", content("znver4", tile=tile))
    path = user / "znver4.json"
    path.write_text(path.read_text().replace('"tile": 8', '"tile": 12'))
    with pytest.warns(RuntimeWarning, match="damaged, or was edited by hand"):
        assert records.lookup(ROWS, ZEN4) == Schedule(tile=9)
    with pytest.warns(RuntimeWarning, match="made anew"):
        assert search._old_records(path, named=False) is None
    with pytest.raises(FqError, match="delete the file"):
        search._old_records(path, named=True)
    assert search._old_records(Path("/dev/null"), named=True) is None
    assert search.log_path(Path("/dev/null")) == Path("/dev/null")
    assert search.log_path(path).name == search.log_path(user / "new.json").with_stem("znver4.trials").name
    path.write_text(path.read_text().replace('"sha256"', '"sha255"'))
    with pytest.raises(FqError, match="unknown field: sha255"):
        records.read(path)
    value = json.loads(path.read_text())
    del value["sha255"]
    path.write_text(json.dumps(value))
    assert records.read(path).records[0].schedule.tile == 12, "a file that somebody wrote by hand has no checksum"


@pytest.mark.parametrize("value", [2**31, 2**40, 2**63 - 1, 2**63, 2**64, 10**30])
@pytest.mark.parametrize("knob", ["tile", "rows", "run", "parallel_from", "stream_from", "vector_bits"])
def test_knobs_have_bounds(folders, knob, value):
    if knob in ("parallel_from", "stream_from") and value <= 2**62:
        assert getattr(Schedule(**{knob: value}), knob) == value
        return
    with pytest.raises(FqError, match=f"Schedule.{knob} is {value}; expected"):
        Schedule(**{knob: value})
    written = content("znver4").to_json()
    written["records"][0]["schedule"][knob] = value
    (folders[0] / "znver4.json").write_text(json.dumps(written))
    with pytest.warns(RuntimeWarning, match=f"Schedule.{knob} is {value}"):
        assert records.lookup(ROWS, ZEN4) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows_min_inner": 2**63}, "rows_min_inner is 9223372036854775808; expected an integer from 1"),
        ({"threads": 2**31}, "threads is 2147483648"),
        ({"sha256": "0" * 64}, "damaged"),
        ({"sha256": None}, "damaged"),
        ({"rows_min_iner": 3}, "unknown field: rows_min_iner"),
        (
            {"records": [{**content("x").records[0].to_json(), "match": {"dtype": ["float32"]}}]},
            "expected texts by name",
        ),
        ({"records": [{**content("x").records[0].to_json(), "schedule": {"rows": 65}}]}, "at most 64 in a record"),
    ],
)
def test_what_is_out_of_bounds_is_refused(change, said):
    with pytest.raises(FqError, match=said):
        RecordFile.from_json({**content("znver4").to_json(), **change})


@pytest.mark.parametrize("knob", ["tile", "rows", "run", "parallel_from", "stream_from"])
def test_the_largest_knobs_give_the_same_bits(knob):
    schedule = Schedule(**{"parallel_from": 1, knob: LIMITS[knob]})
    rng = np.random.default_rng(0)
    # lanes unroll rows, where runs are taken several at a time
    for shape, axis in (((6, 3000), 0), *([((500, 7, 3), 1), ((9, 2000), 1)] if knob != "rows" else [])):
        x, scale, zero_point = make(rng, shape, axis)
        arrays = (x, scale, zero_point, np.empty_like(x), np.empty(shape, bool))
        launch_on(prepare(checked_arguments(arrays, axis, -128, 127), None, schedule), arrays)
        assert_same(arrays[3:], expected(x, scale, zero_point, axis, -128, 127))


def test_records_that_others_could_have_written_are_skipped(folders):
    user, shipped = folders
    path = user / "znver4.json"
    for folder, tile in ((user, 8), (shipped, 9)):
        records.write(folder / "znver4.json", content("znver4", tile=tile))
    shipped.chmod(0o777)  # as trusted as the code beside it
    assert records.lookup(ROWS, ZEN4) == Schedule(tile=8)
    for spoiled in (user, path):
        mode = spoiled.stat().st_mode
        spoiled.chmod(0o777)
        records.forget()
        with pytest.warns(RuntimeWarning, match=f"{spoiled} can be written by others"):
            assert records.lookup(ROWS, ZEN4) == Schedule(tile=9)
        spoiled.chmod(mode)
    linked = path.rename(user / "elsewhere.json")
    path.symlink_to(linked)
    records.forget()
    assert records.lookup(ROWS, ZEN4) == Schedule(tile=8)

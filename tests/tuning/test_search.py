"""The search: failed trials, logs that are taken up again, records, other machines."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lab import lab
from simulated import Simulated
from tune_worker_double import CRASHES, HANGS, LUCKY, WRONG

import fq_tvm
from fq_tvm import FakeQuantSpec, FqError, Schedule, cli, environment, get_kernel
from fq_tvm.bench import Case
from fq_tvm.launch.choose import schedule_for
from fq_tvm.launch.registry import current_target
from fq_tvm.schedule import default_schedule
from fq_tvm.spec import LearnableGradientSpec, RangeSpec, StraightThroughSpec
from fq_tvm.store import records
from fq_tvm.tuning import experiment, worker
from fq_tvm.tuning import search as tuning
from fq_tvm.tuning.jobs import Job, distance, distinct
from fq_tvm.tuning.machines import Done, Machines
from fq_tvm.tuning.plot import plot_trials
from fq_tvm.tuning.space import space
from fq_tvm.tuning.worker import TrialError, Worker

ROWS = FakeQuantSpec("rows")
SMALL = (64, 300)
DOUBLE = [sys.executable, str(Path(__file__).with_name("tune_worker_double.py"))]


@pytest.fixture(autouse=True)
def _fresh_records():
    records.forget()
    yield
    records.forget()


@pytest.fixture(autouse=True)
def _few_processes(monkeypatch):
    """Each takes a second to start; that their number is that of the class, one test asks."""
    monkeypatch.setattr(tuning, "PROCESSES", dict.fromkeys(tuning.PROCESSES, 2))


@pytest.fixture
def kernels_kept(monkeypatch, cache_dir):
    """Let workers use the cache of all tests: what a search finds does not depend on who built its kernels."""
    monkeypatch.setattr(worker, "_folder", lambda: SimpleNamespace(name=cache_dir, cleanup=lambda: None))


@pytest.fixture
def double(monkeypatch, kernels_kept):
    """Replace the worker by one whose measurements are known, and that soon counts as hanging."""
    start, ask = Worker.__init__, Worker.ask
    monkeypatch.setattr(Worker, "__init__", lambda self, rpc=None, key="": start(self, rpc, key, DOUBLE))

    def impatient(self, request, timeout):
        return ask(self, request, 2 if f'"tile": {HANGS}' in json.dumps(request) else timeout)

    monkeypatch.setattr(Worker, "ask", impatient)


@pytest.fixture
def few(monkeypatch):
    """A space of five schedules."""
    tiles = (16384, CRASHES, WRONG, LUCKY, HANGS)
    listed = [Schedule(tile=tile) for tile in tiles]
    monkeypatch.setattr(tuning, "space", lambda spec, target=None, seed=0: listed)
    return listed


def trials(log: Path) -> list[dict]:
    return [entry for entry in tuning.read_log(log) if entry["kind"] == "trial"]


def test_the_public_name_is_a_function():
    assert fq_tvm.tune is tuning.tune
    for code in ("import fq_tvm.tuning.search", "from fq_tvm import tune"):
        subprocess.run([sys.executable, "-c", f"{code}; import fq_tvm; assert callable(fq_tvm.tune)"], check=True)


def test_what_fails_is_a_failed_trial_and_the_best_is_kept(double, few, tmp_path, monkeypatch):
    output = tmp_path / "new" / f"{current_target().cpu}.json"
    best = fq_tvm.tune(ROWS, SMALL, budget=60, output=output)
    assert best == few[3]
    log = output.with_suffix(".trials.jsonl")
    by_tile = {entry["schedule"]["tile"]: entry for entry in trials(log)}
    assert "SIGSEGV" in by_tile[CRASHES]["why"]
    assert "another result" in by_tile[WRONG]["why"]
    assert "no answer in 2 s" in by_tile[HANGS]["why"]
    assert by_tile[LUCKY]["verdict"] == "keep"
    assert by_tile[LUCKY]["gain"][1] == pytest.approx(0.5)
    assert all(by_tile[tile]["verdict"] == "failed" for tile in (CRASHES, WRONG, HANGS))
    [record] = records.read(output).records
    assert record.schedule == best
    assert record.measured["over_default"] == pytest.approx(0.5)
    assert record.measured["over_limit"] == pytest.approx(0.5 / 0.4 * 8 / 9, abs=1e-3)

    monkeypatch.setattr(records, "user_folder", lambda: output.parent)
    records.forget()
    assert schedule_for(ROWS, current_target(), "cache") == best
    assert get_kernel(ROWS, schedule=record.schedule).schedule == best


def test_a_static_search_keeps_a_record_of_the_shape(double, few, tmp_path, monkeypatch):
    output, target = tmp_path / f"{current_target().cpu}.json", current_target()
    few[:] = default_schedule(ROWS, target), Schedule(tile=LUCKY)
    best = fq_tvm.tune(ROWS, (2, *SMALL), 1, static=True, budget=60, output=output)
    [record] = records.read(output).records
    assert (record.extents, record.size_class, record.schedule) == ((2, *SMALL), "cache", best)
    assert {entry["schedule"]["static"] for entry in trials(output.with_suffix(".trials.jsonl"))} == {0, 1}

    monkeypatch.setattr(records, "user_folder", lambda: output.parent)
    monkeypatch.setattr(records, "shipped_folder", lambda: None)
    records.forget()
    assert get_kernel(ROWS, shape=(2, *SMALL)).schedule == best
    assert schedule_for(ROWS, target, "cache") == default_schedule(ROWS, target)
    with pytest.raises(FqError, match="take kernels of class rows, so a record of its shape for lanes"):
        fq_tvm.tune(FakeQuantSpec("lanes"), (2, *SMALL), 1, static=True, output=output)


def test_a_search_goes_on_where_it_was_interrupted(double, few, tmp_path, monkeypatch):
    output, log = tmp_path / "x.json", tmp_path / "log"
    few.remove(Schedule(tile=HANGS))

    def interrupt(step):
        if step.trial == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fq_tvm.tune(ROWS, SMALL, budget=60, output=output, log=log, progress=interrupt)
    assert len(trials(log)) == 2
    with log.open("a") as file:
        file.write(json.dumps({**trials(log)[0], "at": 10**400}) + "\n")  # what no search wrote
        file.write('{"kind": "tri')  # what a killed process leaves
    fq_tvm.tune(ROWS, SMALL, budget=60, output=output, log=log)
    assert [entry["trial"] for entry in trials(log)] == [1, 2, 1, 3]
    monkeypatch.setattr(experiment, "race", None)  # another trial would fail
    assert fq_tvm.tune(ROWS, SMALL, budget=60, output=output, log=log) == Schedule(tile=LUCKY)


def search_with(times):
    """A search on this machine whose measurements are known, by schedule."""

    def measure(job, copy=False):
        return lambda schedules: experiment.Samples(
            {case.name: [[times(schedule)] * 5 for schedule in schedules] for case in job.cases}
        )

    here = SimpleNamespace(on_every_one=lambda attempt: [Done(None, "here", attempt())], renew=lambda: None)
    search = tuning._Search(here, current_target(), None, tuning.Settings(), min_gain=0.1)
    search.measure, search.write, search.identity = measure, lambda job, entry: None, lambda job: ""
    search.spread = lambda: experiment.one_by_one
    return search


@pytest.mark.parametrize(
    ("own", "launch", "wanted", "why"),
    [
        (0.92, 1.0, "default", "gains less than 10%"),  # code of its own, which is not faster by a tenth
        (0.88, 1.0, "best", "faster"),
        (
            0.92,
            0.95,
            "shared",
            "faster by what launches read alone",
        ),  # a launch's gain is taken
        (0.88, 0.95, "best", "faster"),
        (0.88, 0.87, "shared", "faster by what launches read alone"),
        (0.995, 0.995, "default", "gains less than 10%"),
        (1.0, 1.0, "default", "perhaps no faster, as new processes say"),
    ],
)
def test_code_of_its_own_has_to_be_a_tenth_faster(own, launch, wanted, why):
    job = Job(ROWS, (), "memory", (Case((100, 1000), 0),))
    default = default_schedule(ROWS)
    shared = dataclasses.replace(default, parallel_from=2 * default.parallel_from)
    schedules = {"default": default, "shared": shared, "best": dataclasses.replace(shared, tile=2 * default.tile)}
    times = {default: 1.0, shared: launch, schedules["best"]: own}
    found = tuning._conclude(search_with(times.get), job, schedules["best"])
    assert found.record.schedule == schedules[wanted]
    assert (found.best, found.start) == (schedules["best"], default)
    assert found.kept == (wanted != "default")
    assert found.why == why
    assert found.gain.median == pytest.approx(1 - (launch if wanted == "shared" else own))


def test_a_gain_is_that_of_several_processes(monkeypatch):
    """One process in which the best is fast by half makes no gain, and in each another is loaded first."""
    monkeypatch.setattr(tuning, "PROCESSES", {"mid": 6, "memory": 3})
    job = Job(ROWS, (), "mid", (Case((100, 10000), 0),))
    default = default_schedule(ROWS)
    best = dataclasses.replace(default, tile=2 * default.tile)
    search, orders, started = search_with(None), [], []

    def measure(job, copy=False):
        def samples(schedules):
            orders.append(tuple(schedules))
            times = {default: 1.0, best: 0.5 if len(started) == 1 else 1.0}
            return experiment.Samples({"case": [[times[schedule]] * 5 for schedule in schedules]})

        return samples

    monkeypatch.setattr(search, "measure", measure)
    monkeypatch.setattr(search.machines, "renew", lambda: started.append(True))
    found = tuning._conclude(search, job, best)
    assert len(started) == 6
    assert not found.kept
    assert found.why == "perhaps no faster, as new processes say"
    assert found.gain.low < 0 < found.gain.median
    assert orders.count((default, best)) == orders.count((best, default)) == 3 * tuning.PORTIONS


def test_what_is_shipped_has_to_gain_more(tmp_path):
    assert tuning.least_gain(tmp_path / "znver4.json") == 0.03
    shipped = records.shipped_folder()
    assert shipped is not None
    assert tuning.least_gain(shipped / "new.json") == 0.10
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(FqError, match="expected a fraction"):
            fq_tvm.tune(ROWS, SMALL, min_gain=wrong)


@pytest.mark.parametrize(
    ("spec", "case", "knobs"),
    [
        ("lanes", Case((256, 768), 1), {"stream_from": 2**62}),  # what the record of x86-64-v3 was
        ("lanes", Case((4096, 4096), 1), {"run": 256, "parallel_from": 2**18}),  # longer than that, and spread anyway
        ("lanes", Case((256, 768), 1), {"rows": 1}),  # parameters stay in the cache, so it is one run at a time
        ("rows", Case((100, 30000), 0), {"rows": 1}),  # each row makes tasks of its own
    ],
)
def test_what_launches_as_the_default_is_not_concluded_from(spec, case, knobs):
    """However fast it was measured, as that is noise; and no trial is spent on it."""
    job = Job(FakeQuantSpec(spec), (), "memory", (case,))
    default = default_schedule(job.spec)
    best = dataclasses.replace(default, **knobs)
    search = search_with({default: 1.0, best: 0.5}.get)
    assert tuning._conclude(search, job, best).record.schedule == default
    assert distinct((default, best), job, search.target) == [default]
    other = dataclasses.replace(best, tile=1024)
    assert distinct((default, other), job, search.target) == [default, other]


def test_the_default_is_no_record(double, few, tmp_path):
    """Results that are the default schedule are logged, not written, and what was there for the same kernels goes."""
    output = tmp_path / "x.json"
    few[:] = [few[0], few[2]]
    other = records.Record((("iteration", "lanes"),), "mid", Schedule(tile=1024))
    old = records.Record(tuple(sorted(ROWS.to_json().items())), "cache", Schedule(tile=1024))
    records.write(output, records.RecordFile(current_target().cpu, (old, other)))
    best = fq_tvm.tune(ROWS, SMALL, budget=60, output=output)
    assert best == default_schedule(ROWS)
    assert records.read(output).records == (other,)
    [result] = [e for e in tuning.read_log(output.with_suffix(".trials.jsonl")) if e["kind"] == "result"]
    assert Schedule.from_json(result["schedule"]) == best
    assert result["operator"] == "fake_quant"


def test_candidates_near_the_best_come_first(monkeypatch, tmp_path):
    """One knob is changed at a time, and from the new best on where one is found."""
    default = Schedule()
    tried = {}

    def attempt(candidate, best, *_):
        if candidate in tried:  # the best so far, which meets the default again
            assert (candidate.rows, best) == (1, default)
            return experiment.Trial(candidate, best, experiment.KEEP, "")
        tried[candidate] = distance(candidate, best)
        won = candidate.rows == 1 and best.rows != 1
        return experiment.Trial(candidate, best, experiment.KEEP if won else experiment.DROP, "")

    monkeypatch.setattr(experiment, "race", attempt)
    search = search_with(None)
    search.log, search.settings = tmp_path / "log", tuning.Settings(search="nearest")
    # Two cases, so that every knob plays a part: blocks of long runs, and runs that are made of short rows.
    job = Job(FakeQuantSpec("lanes"), (), "memory", (Case((4096, 4096), 1), Case((65536, 64), 1)))
    best = tuning._run(search, job, 60, lambda *_: None).incumbent
    assert best == dataclasses.replace(default, rows=1)
    distances = list(tried.values())
    assert len(tried) == len(distinct(space(job.spec, search.target), job, search.target)) - 1
    assert distances[:10] == [1] * 10
    assert distances.count(1) > 10


FAMILY = {
    "without a mask": FakeQuantSpec("lanes", mask=False),
    "division": FakeQuantSpec("rows", form="division"),
    "wide": FakeQuantSpec("rows", arithmetic="wide"),
    "rows of bfloat16": FakeQuantSpec("rows", "bfloat16", out_dtype="bfloat16"),
    "gradient": StraightThroughSpec("rows", "float16"),
    "range": RangeSpec("rows", "bfloat16"),
    "learned scales": LearnableGradientSpec("lanes"),
}


def test_everything_that_has_a_schedule_can_be_tuned(double, monkeypatch, tmp_path):
    """Other formulas, dtypes and operators: built, compared with the reference, timed, and recorded."""
    monkeypatch.setattr(tuning, "space", lambda spec, *_: [default_schedule(spec), Schedule(tile=8192)])
    jobs = []
    for spec in FAMILY.values():
        shape, axis = ((300, 64), 1) if spec.lanes else ((4, 16, 300), 1)
        jobs.append(Job(spec, tuple(sorted(spec.to_json().items())), "cache", (Case(shape, axis, spec.dtype),)))
    _, _, found = tuning._tune(jobs, tuning.Settings(budget=300, output=tmp_path / "x.json"))
    assert [result.record.operator for result in found] == [spec.operator for spec in FAMILY.values()]
    log = tmp_path / "x.trials.jsonl"
    assert not [entry for entry in tuning.read_log(log) if entry.get("verdict") == "failed" or "error" in entry]
    assert len({entry["job"] for entry in trials(log)}) == len(FAMILY)


def test_what_was_tuned_is_used(double, monkeypatch, tmp_path):
    """By the operator that it was tuned for."""
    spec = RangeSpec("lanes")
    best = Schedule(tile=LUCKY)
    monkeypatch.setattr(tuning, "space", lambda spec, *_: [default_schedule(spec), best])
    monkeypatch.setattr(tuning, "PROCESSES", dict.fromkeys(records.SIZE_CLASSES, 2))
    output = tmp_path / f"{current_target().cpu}.json"
    assert fq_tvm.tune(spec, (300, 64), budget=60, output=output) == best
    monkeypatch.setattr(records, "user_folder", lambda: tmp_path)
    records.forget()
    assert schedule_for(spec, current_target(), "cache") == best


def test_the_boundary_is_where_rows_win_for_good():
    assert tuning.boundary_of({32: 2.0, 64: 0.9, 128: 1.1, 256: 0.9, 512: 0.8}) == 256
    assert tuning.boundary_of({32: 0.5, 64: 0.9}) == 32
    assert tuning.boundary_of({32: 0.5, 64: 1.1}) == 128


def test_a_search_with_the_real_worker(tmp_path):
    """A few trials of two classes and the boundary, measured; every one is checked bit for bit."""
    monkey = pytest.MonkeyPatch()
    monkey.setattr(tuning, "BOUNDARY_INNER", (64,))
    monkey.setattr(tuning, "BOUNDARY_ELEMENTS", 2**14)
    steps = []
    try:
        path, content = tuning.tune_cases(
            [Case((16, 300), 0), Case((64, 64), 1), Case((64, 300), 0, "float16", "stepped")],
            budget=3,
            seconds=0.02,
            output=tmp_path / "cpu.json",
            progress=steps.append,
            boundary=True,
        )
    finally:
        monkey.undo()
    results = [entry for entry in tuning.read_log(path.with_suffix(".trials.jsonl")) if entry["kind"] == "result"]
    assert sorted(result["match"]["iteration"] for result in results) == ["lanes", "rows", "strided_rows"]
    found = [(FakeQuantSpec(**r["match"]), Schedule.from_json(r["schedule"])) for r in results]
    assert [r.schedule for r in content.records] == [s for spec, s in found if s != default_schedule(spec)]
    assert content.rows_min_inner in (64, 128)
    assert records.read(path) == content
    entries = trials(path.with_suffix(".trials.jsonl"))
    assert entries
    assert not [e["why"] for e in entries if e["verdict"] == "failed"]
    threads = {"threads": environment.num_threads(), "layer": environment.threading_layer()}
    assert all(e["regime"] == {"tensors": "caches", **threads} for e in entries)
    assert all(result["measured"]["regime"]["tensors"] == "caches" for result in results)
    assert steps[0].trials > 5
    plot_trials(path.with_suffix(".trials.jsonl"), tmp_path / "search.png")
    assert (tmp_path / "search.png").read_bytes()[1:4] == b"PNG"


def test_what_cannot_be_tuned_is_said(tmp_path):
    with pytest.raises(FqError, match="expected a positive number"):
        fq_tvm.tune(ROWS, SMALL, budget=0, output=tmp_path / "x.json")
    with pytest.raises(FqError, match="nothing could be measured"):
        fq_tvm.tune(FakeQuantSpec("lanes"), (1,), budget=1, seconds=0.01, output=tmp_path / "x.json")
    log = (tmp_path / "x.trials.jsonl").read_text()
    assert "is for kernels of class rows, not lanes" in log
    assert not (tmp_path / "x.json").exists()


def test_default_output(monkeypatch, tmp_path):
    target = current_target()
    path = tuning.output_path(target)
    assert path.parent.name == "schedules"
    monkeypatch.setattr(tuning, "__file__", str(tmp_path / "fq_tvm" / "tuning" / "search.py"))
    assert tuning.output_path(target) == records.user_folder() / f"{target.cpu}.json"
    monkeypatch.setattr(records, "user_folder", lambda: None)
    with pytest.raises(FqError, match="no home folder"):
        tuning.output_path(target)


def test_command(double, few, tmp_path, capsys):
    few[:] = [few[0], few[3]]
    output = tmp_path / f"{current_target().cpu}.json"
    arguments = ["tune", "--case", "64x256@0:float32", "--budget", "60", "-o", str(output)]
    log = str(output.with_suffix(".trials.jsonl"))
    assert cli.main([*arguments, "--plot", str(tmp_path / "p.png")]) == 0
    said = capsys.readouterr()
    assert "rows float32 cache" in said.out
    assert "50.0 % (50.0 to 50.0)" in said.out
    assert "yes: faster" in said.out
    assert f"tile {LUCKY}" in said.out
    assert "jobs left" in said.err
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert cli.main([*arguments, "--json", "-q"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["records"][0]["schedule"]["tile"] == LUCKY
    assert said.err == ""
    assert cli.main([*arguments, "--min-gain", "60", "-q"]) == 0
    assert "no: gains less than 60%" in capsys.readouterr().out
    assert records.read(output).records == ()
    assert cli.main(["tune", "--show", log]) == 0
    assert "50.0 % (50.0 to 50.0)" in capsys.readouterr().out
    for bad in (
        ["tune"],
        ["tune", "--all", "-q", "--min-gain", "100"],
        ["tune", "--all", "--rpc", "here:1"],
        ["tune", "--case", "nothing"],
        ["tune", "--all", "--budget", "0"],
    ):
        assert cli.main(bad) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_search_that_failed_is_in_the_answer(tmp_path, monkeypatch, capsys):
    """Beside those that did not: the default of lanes cannot be measured, that of rows can."""

    def time_of(iteration, schedule):
        if iteration == "lanes":
            raise TrialError("it crashed")
        return 0.5 if schedule.tile == LUCKY else 1.0

    Simulated(time_of).install(monkeypatch)
    arguments = ["tune", "--case", "256x768@1:float32", "--case", "64x256@0:float32", "--budget", "60", "-q"]
    assert cli.main([*arguments, "-o", str(tmp_path / "x.json")]) == 0
    lanes, rows = capsys.readouterr().out.splitlines()[1:3]
    assert "lanes float32 mid" in lanes
    assert "no: it crashed" in lanes
    assert "rows float32 cache" in rows
    assert "50.0 % (50.0 to 50.0)" in rows
    assert cli.main([*arguments, "-o", str(tmp_path / "y.json"), "--json"]) == 0
    lanes, rows = json.loads(capsys.readouterr().out)["results"]
    assert lanes == {"name": "lanes float32 mid", "error": "it crashed"}
    assert rows["best"]["tile"] == LUCKY
    [record] = records.read(tmp_path / "y.json").records
    assert dict(record.match)["iteration"] == "rows"


def test_command_for_shapes(tmp_path, monkeypatch, capsys):
    """A search and a record a case; each serves its shape alone, and all kernels of the class and dtype."""
    target = current_target()
    monkeypatch.setattr(records, "shipped_folder", lambda: None)
    Simulated(lambda _, schedule: 1.0 - 0.5 * schedule.static).install(monkeypatch)
    arguments = ["tune", "--case", "8x64x14x14@1:float32", "--static", "--budget", "60", "-q"]
    assert cli.main([*arguments, "-o", str(tmp_path / f"{target.cpu}.json")]) == 0
    one, other = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:3])
    assert one.startswith("rows float32 8x64x196 50.0 % (50.0 to 50.0)")
    assert other.startswith("lanes float32 1568x64x1 50.0 % (50.0 to 50.0)")
    assert all("static 1" in line for line in (one, other))
    monkeypatch.setattr(records, "user_folder", lambda: tmp_path)
    records.forget()
    for spec in (ROWS, FakeQuantSpec("rows", mask=False)):
        assert schedule_for(spec, target, "cache", (8, 64, 196)).static
        assert not schedule_for(spec, target, "cache", (8, 64, 195)).static
    assert schedule_for(FakeQuantSpec("lanes"), target, "cache", (1568, 64, 1)).static
    for group in ("--all", "--show=log"):
        assert cli.main(["tune", group, "--static"]) == 2
        assert "--static needs --case" in capsys.readouterr().err


@pytest.mark.parametrize("faster", [True, False])
def test_a_budget_is_of_the_comparison_in_the_end_too(faster, tmp_path, monkeypatch):
    """Seconds of a clock that is simulated; a process takes one to start, a kernel two to be built."""
    monkeypatch.setattr(tuning, "PROCESSES", dict.fromkeys(tuning.PROCESSES, 6))
    machine = Simulated(lambda _, schedule: 0.5 if faster and schedule.tile == LUCKY else 1.0, build=2.0)
    machine.install(monkeypatch)
    best = fq_tvm.tune(FakeQuantSpec("lanes"), (2000, 64), budget=60, output=tmp_path / "x.json")
    assert (best.tile == LUCKY) == faster
    assert 55 < machine.now < 63
    begun, *_ = tuning.read_log(tmp_path / "x.trials.jsonl")
    assert len(trials(tmp_path / "x.trials.jsonl")) < begun["candidates"] - 1  # it was the budget that ended it


def test_a_budget_below_the_comparison_is_searched_for_by_half(tmp_path, monkeypatch):
    """Processes that take ten seconds each to start: six of them are more than half of the budget."""
    monkeypatch.setattr(tuning, "PROCESSES", dict.fromkeys(tuning.PROCESSES, 6))
    machine = Simulated(lambda _, schedule: 0.5 if schedule.tile == LUCKY else 1.0, start=10.0, build=2.0)
    machine.install(monkeypatch)
    fq_tvm.tune(FakeQuantSpec("lanes"), (2000, 64), budget=100, output=tmp_path / "x.json")
    searched = max(entry.get("at", 0.0) for entry in tuning.read_log(tmp_path / "x.trials.jsonl"))
    assert 50 < searched < 50 + 10 + 2 * 2.5  # and the rest of what began before that
    assert 60 < machine.now - searched < 65


def test_info_says_which_file_applies(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "shipped_folder", lambda: None)
    monkeypatch.setattr(records, "user_folder", lambda: tmp_path)
    cpu = current_target().cpu
    assert cli.main(["info"]) == 0
    assert f"no {cpu}.json" in capsys.readouterr().out
    records.write(tmp_path / f"{cpu}.json", records.RecordFile(cpu, (records.Record((), "mid", Schedule()),)))
    records.forget()
    assert cli.main(["info"]) == 0
    assert f"{tmp_path / cpu}.json (this CPU, yours, 1 records)" in capsys.readouterr().out


@pytest.fixture(scope="module")
def servers():
    """A tracker, and servers of three keys."""
    pytest.importorskip("tornado")
    with lab("lab", "lab", "lab", "three", "three", "three", "one") as found:
        yield found


@pytest.fixture
def with_all(monkeypatch):
    """A search begins when all its machines are there, or it would be about who starts first."""
    enter = Machines.__enter__

    def enter_with_all(self):
        enter(self)
        while len(self.names) < {"one": 1, "lab": 3, "three": 3}[self.key]:
            self._next_event()
        return self

    monkeypatch.setattr(Machines, "__enter__", enter_with_all)


def test_three_machines_of_which_one_is_killed(servers, with_all, tmp_path, monkeypatch, capsys):
    """Through TVM's tracker and servers on loopback: code is sent, run there, checked, and timed; no trial is lost."""
    spec, output = FakeQuantSpec("lanes"), tmp_path / "lanes.json"
    listed = [default_schedule(spec), *(Schedule(run=run) for run in (256, 512, 2048)), Schedule(tile=65536)]
    monkeypatch.setattr(tuning, "space", lambda spec, target=None, seed=0: listed)
    monkeypatch.setattr(tuning, "TRIAL_SHARE", 0.002)  # a machine with three servers has no trial that it can decide
    monkeypatch.setattr(tuning, "PROCESSES", dict.fromkeys(records.SIZE_CLASSES, 2))
    monkeypatch.setenv("FQ_TVM_NUM_THREADS", "1")

    begun = []

    def kill(step):
        begun.append(step)
        if len(begun) == 2:  # one of three has a trial; this is killed, or has the next or the one after that
            servers.kill(0)

    options = {"rpc": servers.address, "key": "lab", "progress": kill}
    best = fq_tvm.tune(spec, (2000, 64), budget=60, seconds=0.01, output=output, **options)
    log = list(tuning.read_log(output.with_suffix(".trials.jsonl")))
    by_event = {event: [e["machine"] for e in log if e.get("event") == event] for event in ("joined", "lost")}
    assert len(set(by_event["joined"])) == 3
    [dead] = by_event["lost"]
    entries = trials(output.with_suffix(".trials.jsonl"))
    assert not [entry for entry in entries if entry["verdict"] == "failed"]
    # every candidate has a trial on one machine, the one among them whose machine was killed
    assert {e["regime"]["machine"] for e in entries} <= set(by_event["joined"])
    tried = {Schedule.from_json(entry["schedule"]) for entry in entries}
    job = Job(spec, (), "mid", (Case((2000, 64), 1),))
    assert tried == set(distinct(listed, job, current_target())[1:])
    content = records.read(output)
    assert content.tuned["remote"] is True
    assert [record.schedule for record in content.records] == [best] * (best != default_schedule(spec))
    # a result is one of every machine that is left
    [result] = [entry for entry in log if entry["kind"] == "result"]
    assert set(result["measured"]["machines"]) == set(by_event["joined"]) - {dead}
    assert result["gain"] == [min(gains) for gains in zip(*result["measured"]["machines"].values(), strict=True)]
    assert cli.main(["tune", "--show", str(output.with_suffix(".trials.jsonl"))]) == 0
    shown = capsys.readouterr().out
    assert all(machine in shown for machine in result["measured"]["machines"])


def test_three_machines_do_the_work_of_three(servers, with_all, tmp_path, monkeypatch):
    """Servers that sleep through their measurements: what is limited is the machines, not their tuner."""
    start = Worker.__init__
    monkeypatch.setattr(Worker, "__init__", lambda self, rpc=None, key="": start(self, rpc, key, DOUBLE))
    monkeypatch.setattr(tuning, "PROCESSES", dict.fromkeys(records.SIZE_CLASSES, 2))
    spec, made = FakeQuantSpec("lanes"), {}
    for key in ("one", "three"):
        output = tmp_path / f"{key}.json"
        fq_tvm.tune(spec, (2000, 64), budget=3, output=output, rpc=servers.address, key=key)
        made[key] = len(trials(output.with_suffix(".trials.jsonl")))
    assert made["one"] >= 5
    assert made["three"] >= 2.5 * made["one"]


def test_a_shape_is_tuned_on_another_machine_as_launches_visit_it(servers, with_all, tmp_path, monkeypatch):
    """The channel lies last, so the extents in the code are those of lanes; others would give another result."""
    monkeypatch.setattr(tuning, "space", lambda spec, *_: [default_schedule(spec)])
    monkeypatch.setenv("FQ_TVM_NUM_THREADS", "1")
    case, options = Case((8, 16, 6, 6), 1, memory="channels_last"), {"rpc": servers.address, "key": "one"}
    path, _ = tuning.tune_cases([case], static=True, budget=2, seconds=0.01, output=tmp_path / "x.json", **options)
    made = trials(path.with_suffix(".trials.jsonl"))
    assert 1 in {trial["schedule"]["static"] for trial in made}
    assert not [trial["why"] for trial in made if trial["verdict"] == "failed"]


def test_no_tracker_is_one_error(tmp_path):
    with pytest.raises(FqError, match=r"no machine 'lab' at the tracker 127\.0\.0\.1:9"):
        fq_tvm.tune(ROWS, SMALL, budget=1, output=tmp_path / "x.json", rpc="127.0.0.1:9", key="lab")


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'budgets'"):
        fq_tvm.tune(ROWS, SMALL, budgets=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'axis'"):
        tuning.tune_cases([Case(SMALL, 0)], axis=0)

"""Jobs: how cases are grouped, and which schedules do the same on them."""

import dataclasses

import pytest

from fq_tvm import FakeQuantSpec, FqError
from fq_tvm.bench import CASES, Case
from fq_tvm.codegen.llvm import resolve
from fq_tvm.schedule import Schedule, default_schedule
from fq_tvm.store import records
from fq_tvm.tuning import jobs
from fq_tvm.tuning.jobs import CASE_MAX_BYTES, Job, distinct, jobs_of, jobs_of_shapes, launch_of
from fq_tvm.tuning.space import space


def test_jobs_cover_every_class_and_size_of_the_table():
    found = jobs_of(CASES)
    assert {(j.spec.iteration, j.spec.dtype, j.size_class) for j in found} == {
        (i, d, s) for i in ("rows", "lanes") for d in ("float32", "float16") for s in records.SIZE_CLASSES
    }
    for job in found:
        assert 1 <= len(job.cases) <= 4
        assert all(case.moved_bytes <= CASE_MAX_BYTES for case in job.cases)
        assert len(distinct(space(job.spec), job, resolve("x86-64-v4"))) > 5


def test_a_job_of_a_shape_has_what_launches_of_it_take(monkeypatch):
    """However it lies in memory, and wherever the boundary of this CPU lies; what the same loops visit is one job."""
    target = resolve("x86-64-v4")
    last, stepped = Case((8, 64, 14, 14), 1, "float16", "channels_last"), Case((16, 300), 0, memory="stepped")
    cases = [Case((64, 512, 7, 7), 1), Case((64, 512, 49), 1), last, stepped, Case((2**20, 512), 0)]
    rows, lanes, strided = jobs_of_shapes(cases, target)
    assert (rows.cases, rows.extents, rows.spec) == (tuple(cases[:1]), (64, 512, 49), FakeQuantSpec("rows"))
    assert (lanes.cases, lanes.extents) == ((last,), (8 * 14 * 14, 64, 1))
    assert lanes.spec == FakeQuantSpec("lanes", "float16", out_dtype="float16")
    assert (strided.spec.iteration, strided.extents) == ("strided_rows", (16, 300))
    assert rows.match == (("dtype", "float32"), ("iteration", "rows"))
    assert [job.size_class for job in (rows, lanes, strided)] == ["mid", "cache", "cache"]
    monkeypatch.setattr("fq_tvm.launch.choose.rows_min_inner", lambda target: 64)
    assert jobs_of_shapes(cases[:1], target)[0].spec.iteration == "lanes"


def test_a_search_for_one_shape_starts_from_what_its_launches_have(monkeypatch):
    """A record of it that is no better than that of its size class would make them slower."""
    spec, target, tuned = FakeQuantSpec("rows"), resolve("x86-64-v4"), Schedule(tile=77)
    monkeypatch.setattr(jobs, "schedule_for", lambda *of: tuned if of == (spec, target, "cache") else None)
    case = Case((3, 40, 30), 1)
    job = Job(spec, (), "cache", (case,))
    assert jobs.start_of(job, target) == default_schedule(spec, target)
    of_all = jobs.candidates_of(job, space(spec, target), target)
    assert of_all == distinct(space(spec, target), job, target)
    job = dataclasses.replace(job, extents=case.layout.extents)
    candidates = jobs.candidates_of(job, space(spec, target), target)
    assert candidates[0] == jobs.start_of(job, target) == tuned
    assert dataclasses.replace(tuned, static=1) in candidates
    assert len(candidates) > len(of_all)


def test_shipped_records_do_more_than_the_default():
    """On the cases that they were found with: others are noise, and hide the records of a feature level."""
    cases = {case.name: case for case in CASES}
    for path in records.shipped_folder().glob("*.json"):
        target = resolve(path.stem)
        for record in records.read(path).records:
            spec = FakeQuantSpec(**dict(record.match))
            spec = dataclasses.replace(spec, out_dtype=spec.dtype)
            job = Job(spec, record.match, record.size_class, tuple(cases[name] for name in record.measured["cases"]))
            assert len(distinct((default_schedule(spec), record.schedule), job, target)) == 2, record


def test_a_case_is_for_kernels_of_its_class():
    target = resolve("x86-64-v4")
    for case, iterations in (
        (Case((16, 300, 10), 1), ("rows", "lanes")),  # wherever the boundary lies
        (Case((1, 300), 0), ("rows",)),
        (Case((300, 10), 0, memory="stepped"), ("strided_rows",)),
        (Case((10, 300), 1, memory="stepped"), ("strided_lanes",)),
    ):
        for iteration in ("rows", "lanes", "strided_rows", "strided_lanes"):
            spec = FakeQuantSpec(iteration)
            if iteration in iterations:
                assert launch_of(case, spec, Schedule(), target).plan.calls
            else:
                with pytest.raises(FqError, match=f"is for kernels of class .*, not {iteration}"):
                    launch_of(case, spec, Schedule(), target)

"""Jobs: how cases are grouped, and which schedules do the same on them."""

from fq_tvm.bench import CASES
from fq_tvm.store import records
from fq_tvm.tuning.jobs import CASE_MAX_BYTES, distinct, jobs_of
from fq_tvm.tuning.space import space


def test_jobs_cover_every_class_and_size_of_the_table():
    jobs = jobs_of(CASES)
    assert {(j.spec.iteration, j.spec.dtype, j.size_class) for j in jobs} == {
        (i, d, s) for i in ("rows", "lanes") for d in ("float32", "float16") for s in records.SIZE_CLASSES
    }
    for job in jobs:
        assert 1 <= len(job.cases) <= 4
        assert all(case.moved_bytes <= CASE_MAX_BYTES for case in job.cases)
        assert len(distinct(space(job.spec), job)) > 5

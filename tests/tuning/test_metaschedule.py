"""What MetaSchedule is given."""

import pytest

from fq_tvm import FakeQuantSpec, FqError
from fq_tvm.tuning.metaschedule import metaschedule_module, metaschedule_space

ROWS = FakeQuantSpec("rows")


def test_modules_for_metaschedule():
    for spec, shape in ((ROWS, (2, 3, 512)), (FakeQuantSpec("lanes"), (64, 1024))):
        module = metaschedule_module(spec, shape)
        assert len(module["main"].params) == 6
    with pytest.raises(FqError, match="expected narrow lanes of 2 extents or rows of 3"):
        metaschedule_module(ROWS, (3, 4))
    with pytest.raises(FqError, match="narrow rows and lanes only"):
        metaschedule_space(FakeQuantSpec("strided_rows"))

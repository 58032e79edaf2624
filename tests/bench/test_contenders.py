"""Our own call and the copy, and how a contender is checked."""

from __future__ import annotations

import numpy as np

from fq_tvm.bench.cases import Case
from fq_tvm.bench.contenders import copy


def test_the_copy_copies():
    for x in (
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        Case((5, 6), 0, memory="stepped").arrays()[0],
    ):
        out = np.empty_like(x)
        copy(x, out)()
        np.testing.assert_array_equal(out, x)

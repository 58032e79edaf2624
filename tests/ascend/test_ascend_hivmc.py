"""The vendor's own backend as judge: hivmc takes every module, and what it makes of them is executed, linked with the
vendor's library: 0 differing bits, every access in bounds, every pair of conflicting accesses ordered."""

from __future__ import annotations

import re
from dataclasses import dataclass

import hivmc
import numpy as np
import pytest
from ascend_cases import JUDGE, SEVERAL_TILES, Case, covering
from ascend_data import bit_differences, tie_heavy
from pipe_order import MTE2, V

from fq_tvm import reference
from fq_tvm.ascend import Problem, lower

pytestmark = pytest.mark.usefixtures("npuir", "hivmc")

SOC = "Ascend910B1"


def chosen() -> list[Case]:
    """Every module of the matrix, or a few, as each takes a second or more in an emulator."""
    distinct = {case.problem.collapsed(): case for case in covering()}
    cases = list(distinct.values())
    return cases if JUDGE else [case for case in cases if case.channels * case.inner <= 1000][::12]


@dataclass
class Judged:
    """A module, and what hivmc makes of it."""

    problem: Problem
    shape: list[int]
    blocks: int
    text: str


@pytest.fixture(scope="module")
def library():
    from hivm_llvm import Library

    return Library(hivmc.library())


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Lower a problem and give it to hivmc, once."""
    from fq_tvm.ascend.npuir import BACKEND_FLAGS

    known: dict[Problem, Judged] = {}

    def get(problem: Problem, anew: bool = False) -> Judged:
        same = problem.collapsed()
        if anew or same not in known:
            folder = tmp_path_factory.mktemp("hivmc")
            fields = (same.dtype, same.scale_dtype, same.quant_min, same.quant_max)
            artifact = lower(same.shape, same.axis, *fields, SOC, "npuir", folder / "a")
            (kernel,) = artifact.kernels
            extents = {"outer": same.outer, "channels": same.channels, "inner": same.inner}
            text = hivmc.lowered(artifact.directory / kernel.files["hivm"], folder, *BACKEND_FLAGS)
            made = Judged(same, [extents[dim] for dim in kernel.dims], kernel.block_dim, text)
            if anew:
                return made
            known[same] = made
        return known[same]

    return get


def executed(judged: Judged, text: str, library):
    """Run all blocks: differing bits of out and mask, the device, and what each block did."""
    from hivm_llvm import Kernel

    problem = judged.problem
    quant_range = (problem.quant_min, problem.quant_max)
    x, scale, zero_point = tie_heavy(problem.shape, problem.axis, problem.dtype, problem.scale_dtype, *quant_range)
    out, mask = np.full(judged.shape, -77, problem.dtype), np.full(judged.shape, 7, np.int8)
    device, traces = Kernel(text, library)(x.reshape(judged.shape), scale, zero_point, out, mask, blocks=judged.blocks)
    expected, expected_mask = reference.fake_quant(x, scale, zero_point, problem.axis, *quant_range)
    different = (
        bit_differences(out.reshape(problem.shape), expected),
        bit_differences(mask.reshape(problem.shape), expected_mask.astype(np.int8)),
    )
    return different, device, traces


EARLY = {Problem((1,), 0, "float16", "float16", *r) for r in ((-128, 127), (0, 255), (-8, 7), (-32768, 32767))}
"""Modules that set a flag again when nothing says that its last set was waited for: see docs/ascend.md."""


@pytest.mark.parametrize("case", chosen(), ids=str)
def test_accepted_executed_and_ordered(case, judged, library):
    from pipe_order import Clock, conflicts

    module = judged(case.problem)
    different, device, traces = executed(module, module.text, library)
    assert different == (0, 0)
    early = []
    for block, trace in enumerate(traces):
        clock = Clock(device.size)
        for event in trace:
            clock.step(event)
        assert clock.end() == [], f"block {block}"
        early += clock.early
    assert not early or module.problem in EARLY, early
    assert conflicts(traces, device.size, device.places[0]) == []


def test_double_buffers_are_right_if_flags_count(judged, library, monkeypatch):
    # Two blocks with several tiles each.  Flags that may be set before they were waited for are why lower does without.
    from pipe_order import Clock, conflicts

    from fq_tvm.ascend import npuir

    form = npuir.Form(2, 700, double=True)
    monkeypatch.setattr(npuir, "_forms", lambda variant, compiler, _: [npuir._fitting(variant, compiler, form)])
    module = judged(Problem((7, 30, 7), 1, "float16", "float32", -128, 127), anew=True)
    different, device, traces = executed(module, module.text, library)
    assert different == (0, 0)
    assert module.blocks == len(traces) == 2
    waits = {event.flag for event in traces[0] if event.kind == "wait" and (event.pipe, event.target) == (V, MTE2)}
    assert len(waits) == 2
    for trace in traces:
        clock = Clock(device.size)
        for event in trace:
            clock.step(event)
        assert clock.end() == [] and clock.early
    assert conflicts(traces, device.size, device.places[0]) == []


def test_smaller_tiles_that_the_estimate_chose(judged, library, monkeypatch):
    from pipe_order import Clock, conflicts

    from fq_tvm.ascend import npuir

    monkeypatch.setattr(npuir, "_WORTH", 0.0)
    module = judged(Problem((2, 30, 7), 1, "float16", "float32", -128, 127), anew=True)
    different, device, traces = executed(module, module.text, library)
    assert different == (0, 0)
    assert module.blocks == len(traces) > 2  # the largest tiles are two
    for trace in traces:
        clock = Clock(device.size)
        for event in trace:
            clock.step(event)
        assert clock.end() == [] and not clock.early
    assert conflicts(traces, device.size, device.places[0]) == []


def test_a_temporary_buffer_that_is_too_small_is_seen(judged, library, monkeypatch):
    # Without the room that npuir.py makes, the mask of the first rows of a tile is overwritten by a broadcast.
    from fq_tvm.ascend import npuir

    problem = Problem((1000, 7), 0, "float16", "float32", -32768, 32767)
    monkeypatch.setattr(npuir, "_with_whole_temporaries", lambda module: module)
    monkeypatch.setattr(npuir, "_candidates", lambda *_: [])  # smaller tiles have other temporaries
    module = judged(problem, anew=True)
    different, *_ = executed(module, module.text, library)
    assert different[1] > 0


# ---------------------------------------------------------------------------------------------------------------------
# Neither the model nor the checker of the order is a rubber stamp.

MAIN = Problem((4, 8, 100), 1, "float32", "float32", -128, 127)


@pytest.fixture
def caught(judged, library, monkeypatch):
    """Whether a changed text, or the changed model, gives other bits or a violation."""
    from hivm_device import Violation

    module = judged(MAIN)

    def run(pattern: str = "", replacement="", count: int = 1) -> bool:
        text = module.text
        if pattern:
            head, body = re.split(r"(?=^define dso_local void @fake_quant\()", text, flags=re.MULTILINE)
            changed, found = re.subn(pattern, replacement, body, count=count)
            assert found and changed != body, "the mutation did not apply"
            text = head + changed
        try:
            different, *_ = executed(module, text, library)
        except Violation:
            return True
        return different != (0, 0)

    run.text = module.text
    return run


@pytest.mark.parametrize("mode", [1, 2, 4])
def test_catches_another_rounding_mode(caught, mode):
    assert caught(r"(@vcast_float_to_float_1d_with_mode\(.*, i32 )0\)", rf"\g<1>{mode})")


def test_catches_moved_buffers(caught):
    # A buffer lies 32 bytes further for the first that touches it.
    pair = r"inttoptr \(i64 ([1-9]\d*) to ptr addrspace\(6\)\), ptr addrspace\(6\) inttoptr \(i64 \1 to"
    places = sorted(set(re.findall(pair, caught.text)), key=int)[::3]
    assert len(places) >= 3
    for place in places:
        here = pair.replace(r"([1-9]\d*)", place).replace(r"\1", place)
        assert caught(here, lambda found, place=place: found[0].replace(f"i64 {place} ", f"i64 {int(place) + 32} ")), (
            place
        )


def test_catches_a_buffer_that_is_not_aligned(caught):
    assert caught(r"inttoptr \(i64 512 to", "inttoptr (i64 516 to", 0)


def test_catches_a_buffer_out_of_bounds(caught):
    assert caught(r"inttoptr \(i64 512 to", f"inttoptr (i64 {192 * 1024 - 32} to", 0)


def test_catches_a_wrong_bound_of_a_loop(caught):
    assert caught(r"add i64 (%\d+), 32\b", r"add i64 \1, 31")


def test_catches_a_swapped_compare(caught):
    assert caught(r"call void @vcmp_gt_1d_float", "call void @vcmp_eq_1d_float")


def test_catches_a_skipped_store(caught):
    assert caught(r"  call void @store_ubuf_to_gm_1d_int8_t\(.*\n", "")


def test_catches_a_shorter_vector(caught):
    line = r"call void @vmuls_vs_1d_float\(.*\n"
    assert caught(line, lambda found: found[0].replace("i64 100", "i64 99"))


def test_catches_another_scalar(caught):
    assert caught(r"(call void @vmins_vs_1d_float\(.*float )1\.270000e\+02", r"\g<1>1.260000e+02")


def _nearest_away(device):
    device.ROUND = {**device.ROUND, "r": device.ROUND["a"]}


def _select_the_other(device):
    unpackbits = np.unpackbits
    device.np = type("Numpy", (), {"__getattr__": lambda _, name: getattr(np, name)})()
    device.np.unpackbits = lambda *a, **k: 1 - unpackbits(*a, **k)


def _bits_from_the_top(device):
    device.np = type("Numpy", (), {"__getattr__": lambda _, name: getattr(np, name)})()
    device.np.packbits = lambda a, bitorder: np.packbits(a, bitorder="big")


def _less_instead_of_greater(device):
    device.COMPARE = {**device.COMPARE, "GT": np.less}


def _masks_do_not_count(device):
    device._COUNTER = 57


@pytest.mark.parametrize(
    "change",
    [_nearest_away, _select_the_other, _bits_from_the_top, _less_instead_of_greater, _masks_do_not_count],
    ids=lambda change: change.__name__.strip("_"),
)
def test_catches_another_meaning_of_an_intrinsic(caught, change, monkeypatch):
    import hivm_device

    for name in ("ROUND", "COMPARE", "ARITHMETIC", "_COUNTER", "np"):
        monkeypatch.setattr(hivm_device, name, getattr(hivm_device, name))
    change(hivm_device)
    assert caught()


def test_every_flag_and_barrier_is_needed_or_proven_redundant(judged, library, capsys):
    # Taken away in turn: an unordered pair, a wait without end or a flag that stays set is found, or every block is in
    # order without it.
    from pipe_order import Tally

    cases = {SEVERAL_TILES[1].collapsed()}
    if JUDGE:
        cases |= {problem.collapsed() for problem in SEVERAL_TILES}
        cases |= {case.problem.collapsed() for case in chosen() if case.channels * case.inner <= 1000}
    tally = Tally()
    for problem in cases:
        module = judged(problem)
        _, device, traces = executed(module, module.text, library)
        tally.add(traces, device.size)
    with capsys.disabled():
        print(f"\n{tally}", end="")
    tally.check()

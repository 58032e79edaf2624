"""What the vendor's compiler makes of the program, executed: 0 differing bits; and the interpreter can tell."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ascend_cases import JUDGE, SEVERAL_TILES, covering
from ascend_data import bit_differences, tie_heavy
from pipe_order import Tally, conflicts, problems

from fq_tvm import reference
from fq_tvm.ascend import Problem, lower
from fq_tvm.ascend.npuir_printer import emit
from fq_tvm.ascend.program import fake_quant_program

pytestmark = pytest.mark.usefixtures("npuir")

SOC = "Ascend910B1"
_LOWERED: dict[Problem, Path] = {}


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """Lower a problem once, however its elements are spread over dimensions."""
    root = tmp_path_factory.mktemp("npuir")

    def get(problem: Problem):
        same = problem if problem.dynamic else problem.collapsed()
        if same not in _LOWERED:
            out_dir = root / str(len(_LOWERED))
            fields = (problem.dtype, problem.scale_dtype, problem.quant_min, problem.quant_max)
            lower(same.shape, same.axis, *fields, SOC, "npuir", out_dir)
            _LOWERED[same] = out_dir
        from fq_tvm.ascend import AscendArtifact

        return AscendArtifact.read(_LOWERED[same])

    return get


def serving(artifact, problem: Problem):
    """The kernel of an artifact that serves a problem whose extents are all known."""
    extents = {"outer": problem.outer, "channels": problem.channels, "inner": problem.inner}
    for kernel in artifact.kernels:
        if not kernel.when or eval(kernel.when, {}, extents):
            return kernel, [extents[dim] for dim in kernel.dims]
    raise AssertionError(f"no kernel for {extents}")


def executed(artifact, problem: Problem, special: bool = True):
    """Execute a kernel on tie-heavy data, its pipes in order: differing bits of out and mask, and the module."""
    from hivm_interpreter import UNIFIED_BUFFER, Module

    quant_range = (problem.quant_min, problem.quant_max)
    x, scale, zero_point = tie_heavy(
        problem.shape, problem.axis, problem.dtype, problem.scale_dtype, *quant_range, special=special
    )
    kernel, shape = serving(artifact, problem)
    out, mask = np.full(shape, -77, problem.dtype), np.full(shape, 7, np.int8)
    module = Module(artifact.directory / kernel.files["hivm"], kernel.name)
    module(x.reshape(shape), scale, zero_point, out, mask)
    for block, trace in enumerate(module.traces):
        assert problems(trace, module.size) == [], f"block {block}"
    assert conflicts(module.traces, module.size, UNIFIED_BUFFER) == []
    expected, expected_mask = reference.fake_quant(x, scale, zero_point, problem.axis, *quant_range)
    different = (
        bit_differences(out.reshape(problem.shape), expected),
        bit_differences(mask.reshape(problem.shape), expected_mask.astype(np.int8)),
    )
    return different, module


def differences(artifact, problem: Problem, special: bool = True) -> tuple[int, int]:
    """Count differing bits of out and mask."""
    return executed(artifact, problem, special)[0]


def is_large(case):
    """Whether interpreting it takes a quarter of a minute."""
    return math.prod(case.problem.shape) > 2**20 or case.problem.shape == (4, 1000, 7, 1, 1)


SMALL = [case for case in covering() if not is_large(case)]


@pytest.mark.parametrize("case", SMALL[::2], ids=str)
def test_static_shapes(case, lowered):
    assert differences(lowered(case.problem), case.problem) == (0, 0)


@pytest.mark.skipif(not JUDGE, reason="`make judge` runs it")
@pytest.mark.parametrize("case", [case for case in covering() if case not in SMALL[::2]], ids=str)
def test_static_shapes_of_the_larger_matrix(case, lowered):
    assert differences(lowered(case.problem), case.problem) == (0, 0)


def test_eight_dimensions(lowered):
    for axis in (0, 4, 7):
        problem = Problem((2, 1, 3, 2, 5, 2, 1, 3), axis, "float16", "float32", -128, 127)
        assert differences(lowered(problem), problem) == (0, 0)


OPEN = [
    ((None,), 0, [(1,), (5000,)]),
    ((None, None), 1, [(1, 1), (300, 1), (900, 3), (2, 16), (1, 3000), (3, 7000)]),
    ((None, None), 0, [(1, 1), (1000, 1), (16, 2), (1000, 7), (3, 15), (33, 16), (5, 5000)]),
    ((None, 3), 1, [(1, 3), (900, 3)]),
    ((None, 1000, 7), 1, [(1, 1000, 7), (3, 1000, 7)]),
    ((None, None, 3), 1, [(2, 1, 3), (2, 300, 3)]),
    ((None, None, 1000), 1, [(1, 3, 1000), (2, 16, 1000)]),
    ((None, None, None), 1, [(1, 1, 1), (3, 1000, 1), (2, 16, 7), (2, 3, 15), (5, 16, 32), (1, 200, 17), (3, 3, 1000)]),
    ((None, 16, None, None), 1, [(2, 16, 1, 1), (2, 16, 1, 7), (1, 16, 4, 8), (2, 16, 10, 100)]),
]


def check_dynamic(lowered, shape, axis, real, dtype):
    """Compare what one module makes of several shapes."""
    artifact = lowered(Problem(shape, axis, dtype, dtype, -128, 127))
    for known in real:
        assert differences(artifact, Problem(known, axis, dtype, dtype, -128, 127)) == (0, 0), known


@pytest.mark.parametrize(("shape", "axis", "real"), OPEN[::2], ids=str)
def test_dynamic_shapes_with_their_tiling_function(shape, axis, real, lowered):
    check_dynamic(lowered, shape, axis, real, "float32")


SLOW = (2, 1000, None), 1, [(2, 1000, 1), (2, 1000, 16)]
"""Tiles so short that interpreting them takes a quarter of a minute."""


@pytest.mark.skipif(not JUDGE, reason="`make judge` runs it")
@pytest.mark.parametrize(
    ("shape", "axis", "real", "dtype"),
    [*((*case, "float16") for case in (*OPEN, SLOW)), *((*case, "float32") for case in (*OPEN[1::2], SLOW))],
    ids=str,
)
def test_dynamic_shapes_of_a_larger_matrix(shape, axis, real, dtype, lowered):
    check_dynamic(lowered, shape, axis, real, dtype)


@pytest.mark.parametrize("range_name", ["uint8", "int4", "int16"])
def test_dynamic_shapes_of_other_ranges(range_name, lowered):
    from ascend_cases import RANGES

    artifact = lowered(Problem((None, None, None), 1, "float32", "float16", *RANGES[range_name]))
    for known in ((3, 1000, 1), (2, 16, 7), (2, 3, 100)):
        assert differences(artifact, Problem(known, 1, "float32", "float16", *RANGES[range_name])) == (0, 0), known


@pytest.mark.parametrize("quant_range", [(5, 5), (-(2**23), 2**23), (-3, 1000)], ids=str)
def test_ranges_at_the_edge(quant_range, lowered):
    problem = Problem((4, 3, 50), 1, "float32", "float32", *quant_range)
    assert differences(lowered(problem), problem) == (0, 0)


@pytest.mark.parametrize("shape", [(3000,), (1, 3000), (3000, 1)], ids=str)
def test_a_reciprocal_is_not_made_a_division(shape, lowered):
    # Without a broadcast between the two, the compiler turns x * (1 / s) into x / s, which differs in a bit.
    problem = Problem(shape, shape.index(3000), "float32", "float32", -128, 127)
    assert differences(lowered(problem), problem) == (0, 0)


# ---------------------------------------------------------------------------------------------------------------------
# The interpreter is no rubber stamp.


@pytest.fixture
def mutant(lowered, tmp_path):
    """Change the final module by a pattern, and count differences; a violation counts as one."""
    from hivm_interpreter import Module, Violation

    problem = Problem((4, 8, 100), 1, "float32", "float32", -128, 127)
    artifact = lowered(problem)
    text = (artifact.directory / artifact.kernels[0].files["hivm"]).read_text()

    def run(pattern: str, replacement, count: int = 1) -> int:
        """0 where nothing differs, -1 for a violation."""
        changed, found = re.subn(pattern, replacement, text, count=count)
        assert found and changed != text, "the mutation did not apply"
        path = tmp_path / "mutant.mlir"
        path.write_text(changed)
        x, scale, zero_point = tie_heavy(problem.shape, 1, "float32", "float32", -128, 127)
        out, mask = np.full(problem.shape, -77, np.float32), np.full(problem.shape, 7, np.int8)
        try:
            Module(path, "fake_quant")(x, scale, zero_point, out, mask)
        except Violation:
            return -1
        expected, expected_mask = reference.fake_quant(x, scale, zero_point, 1, -128, 127)
        return bit_differences(out, expected) + bit_differences(mask, expected_mask.astype(np.int8))

    run.count = lambda pattern: len(re.findall(pattern, text))
    return run


def test_catches_another_rounding_mode(mutant):
    # The mode is the last operand: 0 is to the nearest even, 2 down, 4 towards zero.
    head = r"(func\.func @fake_quant\([^\n]*\{\n)(?s:(.*?))"
    call = r"(call @vcast_float_to_float_1d_with_mode\(%\w+, %\w+, )%\w+(\))"
    for mode in (1, 2, 4):
        assert mutant(head + call, rf"\1    %mode = arith.constant {mode} : i32\n\2\3%mode\4") > 0


def test_catches_a_moved_buffer(mutant):
    # Each buffer in turn begins 64 bytes early, in its neighbor.  Temporaries may lie there and do no harm.
    address = r"(%c\d+_i64\w* = arith\.constant )([1-9]\d+) : i64"
    moved = mutant.count(address)
    caught = 0
    for chosen in range(moved):
        places = iter(range(moved))

        def move(found: re.Match[str], chosen=chosen, places=places) -> str:
            return f"{found[1]}{int(found[2]) - 64 * (next(places) == chosen)} : i64"

        caught += mutant(address, move, count=0) != 0
    assert moved >= 4 and caught >= moved / 2, f"{caught} of {moved}"


def test_catches_a_buffer_out_of_bounds(mutant):
    assert mutant(r"(%c\d+_i64\w* = arith\.constant )([1-9]\d*) : i64", r"\g<1>196600 : i64") == -1


def test_catches_a_wrong_tile_bound(mutant):
    # One step of all cores further than there are tiles.
    assert mutant(r"\(-s0 \+ (\d+)\)", lambda found: f"(-s0 + {int(found[1]) + 48})") != 0


def test_catches_a_swapped_compare(mutant):
    module = r"@vcmp_eq_1d_float"
    assert mutant(module, "@vcmp_ge_1d_float", count=0) > 0


def test_catches_a_skipped_store(mutant):
    assert mutant(r"\n[^\n]*call @store_ubuf_to_gm_1d_int8_t[^\n]*", "\n") > 0


def test_a_maximum_of_a_nan_is_refused():
    # The printer selects instead of taking the maximum; the interpreter would not let it pass.
    from hivm_interpreter import View, Violation, library_call

    nan = np.full(8, np.nan, np.float32)
    views = [View(a.view(np.uint8), "f32", (8,), (1,), space="ub") for a in (nan, nan.copy(), nan.copy())]
    with pytest.raises(Violation, match="NaN"):
        library_call("vmax_1d_float", views)


def test_short_rows_overrun_without_room(tmp_path, monkeypatch):
    # The compiler's own buffer sizes for unknown extents: the reason why the printer raises them.
    from hivm_interpreter import Violation

    from fq_tvm.ascend import npuir

    monkeypatch.setattr(npuir, "_make_room", lambda module, _: module)
    artifact = lower((None, 1000, 7), 1, "float32", "float32", -128, 127, SOC, "npuir", tmp_path / "a")
    with pytest.raises(Violation, match="in a buffer of"):
        differences(artifact, Problem((3, 1000, 7), 1))


def test_every_flag_and_barrier_is_needed_or_proven_redundant(lowered, capsys):
    # Taken away in turn: an unordered pair, a wait without end or a flag that stays set is found, or every block is in
    # order without it.
    cases = {problem.collapsed() for problem in (SEVERAL_TILES if JUDGE else SEVERAL_TILES[:2])}
    if JUDGE:
        cases |= {case.problem.collapsed() for case in covering()}
    tally = Tally()
    for problem in cases:
        artifact = lowered(problem)
        (kernel,) = artifact.kernels
        different, module = executed(artifact, problem)
        assert different == (0, 0)
        # None is in a branch that no block took.
        events = {event.site for trace in module.traces for event in trace if event.kind in ("set", "wait", "barrier")}
        text = (artifact.directory / kernel.files["hivm"]).read_text()
        assert len(events) == len(re.findall(r"^ *hivm\.hir\.(set_flag|wait_flag|pipe_barrier)\[", text, re.MULTILINE))
        tally.add(module.traces, module.size)
    with capsys.disabled():
        print(f"\n{tally}", end="")
    tally.check()


# ---------------------------------------------------------------------------------------------------------------------
# Texts


@pytest.mark.parametrize(
    ("name", "shape", "axis", "dtypes"),
    [
        ("static", (64, 256, 3136), 1, ("float16", "float32")),
        ("dynamic", (None, 256, None), 1, ("float32", "float32")),
        ("rank1", (1000,), 0, ("float32", "float16")),
    ],
)
def test_golden(name, shape, axis, dtypes, golden):
    golden(f"{name}.npuir.mlir", emit(fake_quant_program(shape, axis, *dtypes, -128, 127), "fake_quant"))


def test_the_text_is_accepted_as_it_is(tmp_path):
    from hivm_interpreter import bin_folder

    for shape in ((2, 3, 4), (None, 3, None)):
        (tmp_path / "a.mlir").write_text(emit(fake_quant_program(shape, 1, "float16", "float16", 0, 255), "fake_quant"))
        subprocess.run([bin_folder() / "bishengir-opt", tmp_path / "a.mlir", "-o", "/dev/null"], check=True, timeout=60)


@pytest.mark.parametrize(
    ("soc", "cores"), [("Ascend910B4", 40), ("Ascend910_9392", 48), ("Ascend950PR_9599", 72), ("Ascend950DT_9595", 72)]
)
def test_every_product_compiles(soc, cores, tmp_path):
    artifact = lower((4, 16, 50), 1, "float16", "float32", -128, 127, soc, out_dir=tmp_path / "a")
    assert artifact.toolchain == "npuir" and artifact.kernels[0].block_dim <= cores
    assert artifact.notes["vector_cores"] == cores
    assert (artifact.directory / artifact.kernels[0].files["hivm"]).stat().st_size > 1000

"""The CCE-C that AKG makes of the program, compiled against a model of its intrinsics: 0 differing bits, and every pair
of conflicting accesses ordered."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from ascend_cases import JUDGE, covering
from ascend_data import bit_differences, tie_heavy
from pipe_order import Clock, Tally, conflicts, problems

from fq_tvm import environment, reference
from fq_tvm.ascend import AscendArtifact, LoweringError, Problem, lower
from fq_tvm.ascend import akg as toolchain
from fq_tvm.ascend.program import fake_quant_program

SOC = "Ascend910A"
needs_akg = pytest.mark.usefixtures("akg")
_LOWERED: dict[Problem, Path] = {}


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """Lower a problem once, however its elements are spread over dimensions."""
    root = tmp_path_factory.mktemp("akg")

    def get(problem: Problem) -> AscendArtifact:
        same = problem.collapsed(outer=True, inner=True)
        if same not in _LOWERED:
            out_dir = root / str(len(_LOWERED))
            fields = (problem.dtype, problem.scale_dtype, problem.quant_min, problem.quant_max)
            lower(same.shape, same.axis, *fields, SOC, "akg", out_dir)
            _LOWERED[same] = out_dir
        return AscendArtifact.read(_LOWERED[same])

    return get


def executed(artifact: AscendArtifact, problem: Problem, folder: Path, source: str = ""):
    """Execute the kernel, its blocks in either order: differing bits of out and mask, and the compiled kernel."""
    from cce_model import PADDING, Kernel

    (kernel,) = artifact.kernels
    assert artifact.notes["buffer_padding_bytes"] == PADDING
    text = source or (artifact.directory / kernel.files["cce"]).read_text()
    compiled = Kernel(text, kernel.name, [a["dtype"] for a in kernel.arguments], kernel.block_dim, folder)
    quant_range = (problem.quant_min, problem.quant_max)
    x, scale, zero_point = tie_heavy(problem.shape, problem.axis, problem.dtype, problem.scale_dtype, *quant_range)
    expected, expected_mask = reference.fake_quant(x, scale, zero_point, problem.axis, *quant_range)
    worst = (0, 0)
    for reverse in (False, True) if kernel.block_dim > 1 else (False,):
        out, mask = np.full(problem.shape, -77, problem.dtype), np.full(problem.shape, 7, np.int8)
        compiled(x, scale, zero_point, out, mask, reverse=reverse)
        found = (bit_differences(out, expected), bit_differences(mask, expected_mask.astype(np.int8)))
        worst = max(worst, found)
    return worst, compiled


def differences(artifact: AscendArtifact, problem: Problem, folder: Path, source: str = "") -> tuple[int, int]:
    """Count differing bits of out and mask."""
    return executed(artifact, problem, folder, source)[0]


def check_order(kernel) -> None:
    """Require that the pipes are in order, within blocks and between them: of many alike, in the first and the last."""
    from cce_model import COMPARED, UNIFIED_BUFFER

    blocks = range(kernel.block_dim) if JUDGE or kernel.block_dim <= 8 else (0, kernel.block_dim - 1)
    traces = {block: kernel.trace(block) for block in blocks}
    for block, trace in traces.items():
        assert problems(trace, kernel.size) == [], f"block {block}"
    assert conflicts(list(traces.values()), kernel.size, UNIFIED_BUFFER + COMPARED) == []


CASES = covering(pairs_of_rank=False)


@needs_akg
@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_static_shapes(case, lowered, tmp_path):
    different, kernel = executed(lowered(case.problem), case.problem, tmp_path)
    assert different == (0, 0)
    check_order(kernel)


@needs_akg
@pytest.mark.skipif(not JUDGE, reason="`make judge` runs it")
@pytest.mark.parametrize("case", CASES[1::2], ids=str)
def test_static_shapes_of_the_larger_matrix(case, lowered, tmp_path):
    test_static_shapes(case, lowered, tmp_path)


@needs_akg
def test_many_blocks(lowered, tmp_path):
    problem = Problem((2, 64, 512), 1, "float32", "float32", 0, 255)
    artifact = lowered(problem)
    assert artifact.kernels[0].block_dim > 1
    different, kernel = executed(artifact, problem, tmp_path)
    assert different == (0, 0)
    check_order(kernel)


# ---------------------------------------------------------------------------------------------------------------------
# The model is no rubber stamp.


@pytest.fixture
def mutant(lowered, tmp_path):
    """Change the source by a pattern, and count differences; a violation counts as one."""
    from cce_model import Violation

    problem = Problem((2, 16, 256), 1, "float32", "float32", -128, 127)
    artifact = lowered(problem)
    text = (artifact.directory / artifact.kernels[0].files["cce"]).read_text()
    assert differences(artifact, problem, tmp_path) == (0, 0)
    runs = iter(range(100))

    def run(pattern: str, replacement, count: int = 1) -> int:
        changed, found = re.subn(pattern, replacement, text, count=count)
        assert found and changed != text, "the mutation did not apply"
        folder = tmp_path / f"mutant{next(runs)}"
        folder.mkdir()
        try:
            return sum(differences(artifact, problem, folder, changed))
        except Violation:
            return -1

    run.count = lambda pattern: len(re.findall(pattern, text))
    return run


@needs_akg
def test_catches_another_rounding_mode(mutant):
    floor = r"\1static void vconv_floor(int32_t *d, float *s, int n, int db, int sb, int dr, int sr)"
    floor += (
        r" { model::convert(d, s, n, db, sb, dr, sr, [](float v) -> int32_t { return model::rounded(floor(v)); }); }"
    )
    assert mutant(r"(?s)\A(.*?)(extern .*?)vconv_f322s32r\(", floor + r"\n\2vconv_floor(") > 0


@needs_akg
def test_catches_a_moved_buffer(mutant):
    address = r"(\(__ubuf__\s+\w+\s*\*\)\s*\()([1-9]\d*)\)"
    places = {int(n) for n in re.findall(r"\d+", " ".join(_addresses(mutant)))}
    assert len(places) > 3
    caught = 0
    for chosen in sorted(places):

        def move(found: re.Match[str], chosen=chosen) -> str:
            return f"{found[1]}{int(found[2]) - 32 * (int(found[2]) == chosen)})"

        caught += mutant(address, move, count=0) != 0
    assert caught >= len(places) / 2, f"{caught} of {len(places)}"


def _addresses(mutant) -> list[str]:
    found: list[str] = []
    with pytest.raises(AssertionError, match="did not apply"):  # it only looks
        mutant(r"\(__ubuf__\s+\w+\s*\*\)\s*\(([1-9]\d*)\)", lambda m: (found.append(m[1]), m[0])[1], count=0)
    return found


@needs_akg
def test_catches_a_wrong_tile_bound(mutant):
    bound = r"(repeatIndex\d* < )(\d+)"
    assert mutant.count(bound)
    assert mutant(bound, lambda m: f"{m[1]}{int(m[2]) - 1}") != 0


@needs_akg
def test_catches_a_missing_mask_register(mutant):
    assert mutant(r"set_vector_mask\([^;]*;", "set_vector_mask(0, 0xffffffff);") != 0


TAILS = Problem((4, 3, 7), 1, "float32", "float32", -128, 127)
"""Rows that share a copy's last 32 bytes, in loops, with every pair of pipes."""


@needs_akg
def test_every_flag_and_barrier_is_needed_or_proven_redundant(lowered, tmp_path, capsys):
    # Taken away in turn: an unordered pair, a wait without end or a flag that stays set is found, or every block is in
    # order without it.
    cases = {TAILS, Problem((2, 16, 256), 1, "float32", "float32", -128, 127)}
    if JUDGE:
        cases |= {case.problem.collapsed(outer=True, inner=True) for case in CASES}
    tally = Tally()
    for number, problem in enumerate(sorted(cases, key=str)):
        artifact, folder = lowered(problem), tmp_path / str(number)
        folder.mkdir()
        different, kernel = executed(artifact, problem, folder)
        assert different == (0, 0)
        check_order(kernel)
        traces = [kernel.trace(block) for block in range(kernel.block_dim)]
        if sum(map(len, traces)) > 50_000:
            continue  # all of them for each flag and barrier anew: that is too much
        # None is in a branch that no block took.
        events = {event.site for trace in traces for event in trace if event.kind in ("set", "wait", "barrier")}
        text = (artifact.directory / artifact.kernels[0].files["cce"]).read_text()
        assert len(events) == len(re.findall(r"^ *(set_flag|wait_flag|pipe_barrier)\(", text, re.MULTILINE))
        tally.add(traces, kernel.size)
    with capsys.disabled():
        print(f"\n{tally}", end="")
    tally.check()


@needs_akg
def test_what_akg_takes_for_granted_of_the_order(lowered, tmp_path):
    # That a write of the vector mask waits for the vector unit, and that flags count: see docs/ascend.md.
    _, kernel = executed(lowered(TAILS), TAILS, tmp_path)
    trace = kernel.trace(0)
    clock = Clock(kernel.size)
    for event in trace:
        if event.kind != "register":
            clock.step(event)
    assert clock.end() and all(re.match(r"V \w+ .* what V wrote, unordered", found) for found in clock.found)
    clock = Clock(kernel.size)
    for event in trace:
        clock.step(event)
    assert clock.end() == [] and clock.early


# ---------------------------------------------------------------------------------------------------------------------
# Texts, and what is refused


def test_golden(golden):
    for name, dtypes in (("f32", ("float32", "float32")), ("f16", ("float16", "float16"))):
        golden(f"{name}.akg.py.txt", toolchain.emit(fake_quant_program((4, 16, 256), 1, *dtypes, -128, 127), "fq"))


def test_open_extents_are_refused(tmp_path):
    with pytest.raises(LoweringError, match="static shapes"):
        lower((None, 4), 1, soc=SOC, toolchain="akg", out_dir=tmp_path / "a")
    assert not any(tmp_path.iterdir())


def test_home_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FQ_TVM_AKG_HOME", str(tmp_path))
    assert environment.akg_home() == tmp_path
    assert "holds no akg/__init__.py and no lib/libakg.so; fetch it" in toolchain.probe().detail
    (tmp_path / "akg").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libakg.so").touch()
    (tmp_path / "akg" / "__init__.py").write_text("raise RuntimeError('half of it')")
    found = toolchain.probe()
    assert not found and "half of it" in found.detail
    assert "akg" not in sys.modules
    with pytest.raises(LoweringError, match="half of it"):
        lower((4,), 0, soc=SOC, toolchain="akg", out_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()

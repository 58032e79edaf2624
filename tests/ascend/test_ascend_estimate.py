"""The estimate of time: it counts what the modules do, keeps the rules that any time keeps, and decides."""

from __future__ import annotations

import re
from collections import Counter

import hivmc
import numpy as np
import pytest
from ascend_data import tie_heavy

from fq_tvm.ascend import AscendArtifact, Problem, lower
from fq_tvm.ascend.estimate import PROCESSORS, Estimate, cycles, estimate
from fq_tvm.ascend.npuir_printer import emit
from fq_tvm.ascend.npuir_trace import Chunk, Step, UnreadableModule, read

SOC = "Ascend910B1"

# ---------------------------------------------------------------------------------------------------------------------
# On a kernel of three steps a tile, written here


def loop(tiles: int, buffers: int, load: Step, work: Step, store: Step) -> tuple[Chunk, ...]:
    """A block: so many tiles, whose loads wait until one of the buffers is free, as do vectors for those of stores."""

    def turn(kind: str, pipe: str, other: str, tile: int) -> Step:
        return Step(kind, pipe, str(tile % buffers), other)

    before = tuple(
        Step("set", pipe, str(i), other) for pipe, other in (("V", "MTE2"), ("MTE3", "V")) for i in range(buffers)
    )
    chunks = [
        (
            turn("wait", "V", "MTE2", i),
            load,
            turn("set", "MTE2", "V", i),
            turn("wait", "MTE2", "V", i),
            turn("wait", "MTE3", "V", i),
            work,
            turn("set", "V", "MTE2", i),
            turn("set", "V", "MTE3", i),
            turn("wait", "V", "MTE3", i),
            store,
            turn("set", "MTE3", "V", i),
        )
        for i in range(tiles)
    ]
    known = {chunk: chunk for chunk in chunks}
    return (before, *(known[chunk] for chunk in chunks), (Step("barrier", "ALL"),))


def tile(elements: int) -> tuple[Step, Step, Step]:
    """Load, one multiplication and store of so many float32 elements."""
    return (
        Step("call", "MTE2", "load_gm_to_ubuf_1d_float", "", 1, elements, 32, 4 * elements),
        Step("call", "V", "vmul_1d_float", "", 1, elements, 32),
        Step("call", "MTE3", "store_ubuf_to_gm_1d_float", "", 1, elements, 32, 4 * elements),
    )


def expected(*blocks: tuple[Chunk, ...], soc: str = SOC) -> Estimate:
    made = estimate(blocks, soc, 0)
    assert made is not None
    return made


@pytest.fixture
def rng(request):
    return np.random.default_rng(sum(request.node.name.encode()))


def test_two_buffers_hide_what_one_waits_for(rng):
    for _ in range(20):
        tiles, elements = int(rng.integers(3, 40)), 8 * int(rng.integers(1, 1000))
        one, two = (expected(loop(tiles, buffers, *tile(elements))) for buffers in (1, 2))
        assert two.seconds < one.seconds
        assert all(two.busy[pipe] == one.busy[pipe] for pipe in ("MTE2", "V", "MTE3"))
        assert two.bytes_read == one.bytes_read == 4 * elements * tiles


def test_what_is_hidden_is_all_but_the_longest_pipe():
    made = expected(loop(1000, 2, *tile(4096)))
    assert made.busy["MTE3"] == max(made.busy.values())
    assert made.seconds < 1.02 * made.least()
    serial = expected(loop(1000, 1, *tile(4096)))
    # With one buffer the vectors wait for both neighbors; the stores of a tile still go on while the next is loaded.
    assert serial.seconds > made.busy["MTE2"] + made.busy["V"]


def test_no_time_is_below_what_a_pipe_or_the_memory_takes(rng):
    for _ in range(30):
        blocks, tiles, elements = int(rng.integers(1, 49)), int(rng.integers(1, 30)), int(rng.integers(1, 9000))
        made = expected(*[loop(tiles, int(rng.integers(1, 3)), *tile(elements))] * blocks)
        assert made.seconds >= made.least() - 1e-12
        assert made.seconds >= (made.bytes_read + made.bytes_written) / PROCESSORS[SOC].memory
        assert made.blocks == blocks and made.bytes_written == 4 * elements * tiles * blocks


def test_more_tiles_and_more_blocks_take_longer(rng):
    for _ in range(10):
        tiles, elements, buffers = int(rng.integers(1, 30)), 8 * int(rng.integers(1, 1000)), int(rng.integers(1, 3))
        times = [expected(loop(tiles + more, buffers, *tile(elements))).seconds for more in range(3)]
        assert times == sorted(set(times))
        assert expected(*[loop(tiles, buffers, *tile(elements))] * 48).seconds > times[0]


def test_a_larger_tile_has_no_more_overhead(rng):
    for _ in range(20):
        count, elements, buffers = int(rng.integers(1, 20)), 64 * int(rng.integers(1, 60)), int(rng.integers(1, 3))
        small = expected(loop(2 * count, buffers, *tile(elements)))
        large = expected(loop(count, buffers, *tile(2 * elements)))
        assert large.bytes_read == small.bytes_read
        for pipe in ("MTE2", "V", "MTE3", "S"):
            assert large.busy[pipe] < small.busy[pipe]
        if buffers == 1:  # with two, a few large tiles overlap less
            assert large.seconds < small.seconds


def test_flags_and_barriers_cost_what_they_serialize():
    steps = loop(50, 2, *tile(2048))
    free = expected(steps).seconds
    # A barrier of all pipes behind each tile, and two buffers under one flag, take the overlap away again.
    barriers = tuple((*chunk, Step("barrier", "ALL")) for chunk in steps)
    joined = tuple(
        tuple(s._replace(name="0") if s.kind in ("set", "wait") else s for s in chunk) for chunk in steps[1:]
    )
    assert expected(barriers).seconds > 1.5 * free
    assert expected((tuple(steps[0][::2]), *joined)).seconds > 1.2 * free
    unordered = tuple(tuple(s for s in chunk if s.kind == "call") for chunk in steps)
    assert expected(unordered).seconds < free


def test_the_same_state_of_the_pipes_is_not_run_again():
    # A chunk that is another object each time is another chunk: nothing is remembered, and the time is the same.
    steps = loop(300, 2, *tile(1000))
    copies = tuple(tuple(Step(*step) for step in chunk) for chunk in steps)
    assert expected(copies) == expected(steps)


def test_loads_of_fewer_blocks_are_faster_and_short_rows_slower():
    load, _, store = tile(4096)
    assert cycles(load, 48, True) > cycles(load, 1, True)
    rows = store._replace(rows=4096 // 7, columns=7, bytes=4096 // 7 * 28)
    assert cycles(rows, 48, True) > 10 * cycles(store, 48, True)
    assert cycles(Step("set", "V", "0", "MTE2"), 48, True) == 0.0


def test_a_processor_without_figures_has_no_estimate():
    assert estimate([loop(2, 1, *tile(64))], "Ascend950PR_9599", 0) is None
    slow, fast = (expected(loop(9, 1, *tile(999)), soc=soc).seconds for soc in ("Ascend910B4", "Ascend910B1"))
    assert slow == pytest.approx(fast * 1.85 / 1.5)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(UnreadableModule, match="no kernel fake_quant"):
        read("module {\n}\n", "fake_quant")

    def module(line: str) -> str:
        head = "func.func @f(%a: memref<4xf32, #hivm.address_space<gm>>) attributes {hacc.block_dim = 2 : i64}"
        return f"#m = affine_map<(d0) -> (open(d0))>\nmodule {{\n  {head} {{\n    {line}\n    return\n  }}\n}}\n"

    assert len(read(module("hivm.hir.set_mask_norm"), "f")) == 2
    with pytest.raises(UnreadableModule, match=r"no operation scf\.while"):
        read(module("%0 = scf.while %a"), "f")
    with pytest.raises(UnreadableModule, match="otherwise than expected: KeyError"):
        read(module("%0 = arith.index_cast %unknown : i64 to index"), "f")
    for name in ("#m", "#unknown"):
        with pytest.raises(UnreadableModule, match="affine map"):
            read(module(f"%0 = affine.apply {name}(%a)"), "f")


# ---------------------------------------------------------------------------------------------------------------------
# On what the vendor's compiler makes

PROBLEMS = (
    Problem((4, 64, 1000), 1, "float32", "float32", -128, 127),
    Problem((2, 90, 7), 1, "float16", "float16", 0, 255),
    Problem((97, 1000), 1, "float16", "float32", -8, 7),
    Problem((3000,), 0, "float32", "float16", -128, 127),
)


@pytest.fixture(scope="module")
def lowered(npuir, tmp_path_factory):
    known: dict[Problem, AscendArtifact] = {}

    def get(problem: Problem) -> AscendArtifact:
        if problem not in known:
            fields = (problem.dtype, problem.scale_dtype, problem.quant_min, problem.quant_max)
            known[problem] = lower(
                problem.shape, problem.axis, *fields, SOC, "npuir", tmp_path_factory.mktemp("estimate") / "a"
            )
        return known[problem]

    return get


def text(artifact: AscendArtifact) -> str:
    return (artifact.directory / artifact.kernels[0].files["hivm"]).read_text()


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p.shape}-{p.dtype}")
def test_bytes_and_calls_are_those_of_an_execution(problem, lowered):
    from hivm_interpreter import UNIFIED_BUFFER, Module
    from pipe_order import MTE2, MTE3

    artifact = lowered(problem)
    x, scale, zero_point = tie_heavy(
        problem.shape, problem.axis, problem.dtype, problem.scale_dtype, problem.quant_min, problem.quant_max
    )
    out, mask = np.empty(problem.shape, problem.dtype), np.empty(problem.shape, np.int8)
    module = Module(artifact.directory / artifact.kernels[0].files["hivm"], "fake_quant")
    module(x, scale, zero_point, out, mask)

    def moved(trace, pipe: int, side: str) -> int:
        where = [w for event in trace if event.kind == "use" and event.pipe == pipe for w in getattr(event, side)]
        spans = [np.arange(w.start, w.stop) if isinstance(w, slice) else w for w in where]
        return sum(int((span >= UNIFIED_BUFFER).sum()) for span in spans)

    blocks = read(text(artifact), "fake_quant")
    assert len(blocks) == len(module.traces) == artifact.kernels[0].block_dim == artifact.estimate.blocks
    for block, trace in zip(blocks, module.traces, strict=True):
        steps = [step for chunk in block for step in chunk]
        assert sum(s.bytes for s in steps if s.pipe == "MTE2") == moved(trace, MTE2, "reads")
        assert sum(s.bytes for s in steps if s.pipe == "MTE3") == moved(trace, MTE3, "writes")
        order = [event.kind for event in trace if event.kind != "use"]
        assert [s.kind for s in steps if s.kind in ("set", "wait", "barrier")] == order
    calls = Counter(step.name for block in blocks for chunk in block for step in chunk if step.kind == "call")
    assert calls == module.calls
    assert artifact.estimate.bytes_written == out.nbytes + mask.nbytes
    assert artifact.estimate.bytes_read >= x.nbytes + scale.nbytes + zero_point.nbytes


def test_blocks_are_balanced(lowered):
    for problem in PROBLEMS:
        blocks = read(text(lowered(problem)), "fake_quant")
        tiles = [sum(any(step.pipe == "MTE3" and step.bytes for step in chunk) for chunk in block) for block in blocks]
        assert min(tiles) >= 1 and max(tiles) - min(tiles) <= 1, problem


def test_a_longer_tensor_takes_longer(lowered):
    times = [lowered(Problem((outer, 64, 1000), 1, "float32", "float32", -128, 127)).estimate for outer in (1, 4, 80)]
    assert times[0].seconds < times[1].seconds < times[2].seconds
    assert all(made.seconds > made.limit for made in times)


def test_the_form_with_the_least_estimate_is_chosen(lowered):
    several = 0
    for problem in PROBLEMS:
        artifact = lowered(problem)
        forms = artifact.notes["forms"]
        assert artifact.estimate.seconds == min(form["seconds"] for form in forms) == forms[0]["seconds"]
        assert forms[0]["blocks"] == artifact.kernels[0].block_dim
        several += len(forms) > 1
        again = estimate(read(text(artifact), "fake_quant"), SOC, round(artifact.estimate.limit * 1.6e12))
        assert again == artifact.estimate
        assert AscendArtifact.read(artifact.directory) == artifact
    assert several >= 2


@pytest.fixture
def made(npuir, tmp_path):
    """A problem in a form."""
    from fq_tvm.ascend import npuir as compiled

    def make(problem: Problem, form):
        (variant,) = compiled._variants(problem)
        (tmp_path / variant.files["linalg"]).write_text(emit(variant.problem.program(), variant.name))
        return compiled._fitting(variant, compiled._Compiler(SOC, tmp_path, "", None), form)

    return make


def test_double_buffers_are_faster_and_without_their_flags_slower(made):
    from fq_tvm.ascend.npuir import Form

    single, double = (made(PROBLEMS[0], Form(48, double=double)) for double in (False, True))
    assert double.tiles > 1
    assert double.estimate.seconds < 0.95 * single.estimate.seconds
    # The two buffers under one flag.
    joined, found = re.subn(r"(_flag\[<PIPE_\w+>, <PIPE_\w+>, )%\w+\]", r"\1<EVENT_ID0>]", double.module)
    assert found >= 4
    for pipes in ("<PIPE_V>, <PIPE_MTE2>", "<PIPE_MTE3>, <PIPE_V>"):
        joined = joined.replace(f"set_flag[{pipes}, <EVENT_ID1>]", "set_mask_norm", 1)
    slower = estimate(read(joined, "fake_quant"), SOC, 0)
    assert slower.seconds > 1.05 * double.estimate.seconds
    assert slower.bytes_read == double.estimate.bytes_read


def test_smaller_tiles_do_not_help_where_every_core_has_one(made):
    from fq_tvm.ascend.npuir import Form

    plain, small = (made(PROBLEMS[0], Form(48, tuning)) for tuning in (0, 700))
    assert small.tiles > plain.tiles
    assert small.estimate.seconds > plain.estimate.seconds
    assert small.estimate.bytes_written == plain.estimate.bytes_written


@pytest.mark.usefixtures("npuir")
def test_the_command_prints_it(tmp_path, capsys):
    from fq_tvm import cli

    assert (
        cli.main(["ascend", "--shape", "4,16", "--axis", "1", "--toolchain", "npuir", "-o", str(tmp_path / "a")]) == 0
    )
    artifact = AscendArtifact.read(tmp_path / "a")
    assert f"expected: {artifact.estimate}\n" in capsys.readouterr().out
    assert re.fullmatch(
        r"[\d.]+ us estimated, [\d.]+ us at the limit of the memory; 1 blocks, .*", str(artifact.estimate)
    )
    lower((None, 16), 1, soc=SOC, toolchain="npuir", out_dir=tmp_path / "open")
    assert AscendArtifact.read(tmp_path / "open").estimate is None


@pytest.mark.usefixtures("npuir", "hivmc")
def test_repeats_are_those_of_hivmcs_code(tmp_path, monkeypatch):
    """The library's own code, executed: repeats by instruction, but for those that fill constants."""
    from hivm_device import Device
    from hivm_llvm import Kernel, Library

    from fq_tvm.ascend.npuir import BACKEND_FLAGS

    executed: Counter[str] = Counter()
    call, visited = Device.call, Device._visited
    running = ""

    def noted(self, name, site, operands):
        nonlocal running
        running = name.split(".")[0]
        if running == "VCMPV":  # without a mask: repeats are in its last operand
            executed[running] += operands[-1] >> 56 & 0xFF
        return call(self, name, site, operands)

    def counted(self, lanes, repeats):
        executed[running] += -(-(made := visited(self, lanes, repeats)).count // lanes)
        return made

    monkeypatch.setattr(Device, "call", noted)
    monkeypatch.setattr(Device, "_visited", counted)
    library = Library(hivmc.library())
    for shape in ((5, 300), (2, 20, 7)):
        executed.clear()
        artifact = lower(shape, 1, "float16", "float32", -128, 127, SOC, "npuir", tmp_path / str(len(shape)))
        (kernel,) = artifact.kernels
        code = hivmc.lowered(artifact.directory / kernel.files["hivm"], tmp_path, *BACKEND_FLAGS)
        x, scale, zero_point = tie_heavy(shape, 1, "float16", "float32", -128, 127)
        out, mask = np.empty(shape, np.float16), np.empty(shape, np.int8)
        Kernel(code, library)(x, scale, zero_point, out, mask, blocks=kernel.block_dim)
        foreseen: Counter[str] = Counter()
        for block in read(text(artifact), "fake_quant"):
            for step in (step for chunk in block for step in chunk if step.pipe == "V" and step.kind == "call"):
                name = step.name.split("_")[0]
                known = {"vcast": "VCONV", "vcmp": "VCMPV"}.get(name, name.upper())
                foreseen["VSEL" if "bool" in step.name else known] += -(-step.columns * step.bits // 2048) * step.rows
        arithmetic = ("VMUL", "VMULS", "VADD", "VADDS", "VSUB", "VMINS", "VDIV", "VCONV", "VCMPV", "VSEL")
        assert {name: foreseen[name] for name in arithmetic} == {name: executed[name] for name in arithmetic}

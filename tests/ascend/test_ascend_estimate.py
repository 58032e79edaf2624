"""The estimate of time: it counts what the modules do, keeps the rules that any time keeps, and decides."""

from __future__ import annotations

import numpy as np
import pytest

from fq_tvm.ascend.estimate import PROCESSORS, Estimate, cycles, estimate
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

"""How fast the kernels are: against the speed of memory and against peers, in one run.

The limit of a case is the time of a copy of x, scaled by the bytes that the operator has to move:
``(x + out + mask) / (x + out)``.  Contenders take turns, so that a busy neighbor slows all of them, and a ratio is the
median of those of the rounds.  They read the same memory and, where they let us choose, write to the same: which
physical pages a tensor got makes up to a factor of two, and is nobody's merit.  Every contender that makes a mask is
checked bit for bit before it is timed.

Tensors above :data:`SMALL` are read from memory: before every turn the caches are swept, or how much of a tensor is
still there, and with that the result, would depend on what the contenders before left of it.  Smaller ones stay in the
caches.  How long the larger ones take where they stay there as well, as far as they fit, is measured beside it: calls
that follow each other without a sweep, as the first numbers of the project were taken.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..environment import num_threads
from ..errors import FqError
from ..layout import Layout, arrange

__all__ = [
    "CASES",
    "PEERS",
    "Case",
    "Claim",
    "Result",
    "check_peers",
    "claims",
    "copy",
    "find_cases",
    "interleave",
    "measure",
    "plot",
    "quiet_threads",
    "summary",
]

QUANT_MIN, QUANT_MAX = -128, 127

SMALL = 2**20
"""Bytes of x up to which a case is about caches; above, it is about memory."""

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A tensor to be quantized.

    Parameters
    ----------
    shape : tuple of int
        Of the tensor.
    axis : int
        Its channel dimension.
    dtype : {"float32", "float16"}
        Of self and out; scale is float32, the zero point int32, the range int8.
    memory : {"contiguous", "transposed", "channels_last", "stepped"}
        How it lies in memory: as its shape says, with the order of dimensions reversed, with the second one last, or
        as every second element of a tensor twice as long in its last dimension.
    tags : tuple of str
        ``"facts"`` for the shapes that the project began with.
    """

    shape: tuple[int, ...]
    axis: int
    dtype: str = "float32"
    memory: str = "contiguous"
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Shape, axis, dtype and memory, e.g. ``64x256x56x56@1:float32``."""
        text = f"{'x'.join(map(str, self.shape))}@{self.axis}:{self.dtype}"
        return text if self.memory == "contiguous" else f"{text}:{self.memory}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that :func:`json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Case:
        """Make a case of what :meth:`to_json` returned."""
        shape, tags = tuple(value["shape"]), tuple(value["tags"])
        return cls(shape, value["axis"], value["dtype"], value["memory"], tags)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def x_bytes(self) -> int:
        """Bytes of x."""
        return self.elements * (4 if self.dtype == "float32" else 2)

    @property
    def moved_bytes(self) -> int:
        """Bytes that have to move: x, out and one of mask for each element."""
        return 2 * self.x_bytes + self.elements

    @property
    def order(self) -> list[int]:
        """Dimensions as they lie in memory, the outermost first."""
        order = list(range(len(self.shape)))
        if self.memory == "transposed":
            order.reverse()
        elif self.memory == "channels_last":
            order = [0, *range(2, len(self.shape)), 1]
        return order

    @property
    def iteration(self) -> str:
        """The class of kernels that does this case, with the default boundary between classes."""
        return self.layout.iteration

    @property
    def layout(self) -> Layout:
        """The loops of this case, with the default boundary between classes."""
        strides = [0] * len(self.shape)
        step = 1
        for d in reversed(self.order):
            strides[d] = step
            step *= self.shape[d]
        x = [2 * s if self.memory == "stepped" else s for s in strides]
        return arrange(self.shape, self.axis, (x, strides, strides))

    def arrays(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Make x, scale and zero point; a tenth of x is out of range."""
        rng = np.random.default_rng(0)
        dense = rng.standard_normal([self.shape[d] for d in self.order], np.float32)
        dense *= 40
        x = dense.astype(self.dtype).transpose(np.argsort(self.order))
        if self.memory == "stepped":
            x = np.repeat(x, 2, axis=-1)[..., ::2]
        channels = self.shape[self.axis]
        scale = rng.random(channels, np.float32) + np.float32(0.3)
        return x, scale, rng.integers(-20, 20, channels).astype(np.int32)


def _cases() -> Iterator[Case]:
    facts = ("facts",)
    yield Case((64, 256, 56, 56), 1, tags=facts)
    yield Case((32, 128, 28, 28), 1, tags=facts)
    yield Case((4096, 4096), 0, tags=facts)
    yield Case((4096, 4096), 1, tags=facts)
    yield Case((64, 56, 56, 256), 3, tags=facts)
    yield Case((32, 197, 768), 2, tags=facts)
    yield Case((64, 256, 56, 56), 1, "float16", tags=facts)
    yield Case((4096, 4096), 1, "float16", tags=facts)
    for dtype in ("float32", "float16"):
        yield Case((1, 1024), 1, dtype)  # 4 KB
        yield Case((16, 64, 16), 1, dtype)  # 64 KB
        yield Case((64, 256), 1, dtype)
        yield Case((64, 256), 0, dtype)
        yield Case((8, 64, 14, 14), 1, dtype)
        yield Case((8, 64, 14, 14), 1, dtype, "channels_last")
        yield Case((256, 768), 1, dtype)
        yield Case((100003,), 0, dtype)  # every element a channel of its own, an odd length
        yield Case((1, 1, 262144), 1, dtype)  # one channel
        yield Case((100000, 3), 1, dtype)  # RGB, last
        yield Case((8, 64, 56, 56), 1, dtype)
        yield Case((8, 64, 56, 56), 1, dtype, "channels_last")
        yield Case((64, 512, 7, 7), 1, dtype)  # inner 49
        yield Case((512, 1000, 7), 1, dtype)
        yield Case((1024, 1000, 3), 1, dtype)
        yield Case((1024, 1000, 2), 1, dtype)
        yield Case((4096, 1000), 1, dtype)
        yield Case((4096, 1000), 0, dtype)
        yield Case((333, 1001, 13), 1, dtype)
        yield Case((2048, 2048), 0, dtype, "transposed")
        yield Case((2048, 2048), 1, dtype, "transposed")
        yield Case((128, 50257), 1, dtype)  # a vocabulary
        yield Case((50257, 768), 0, dtype)
        yield Case((1, 3, 2048, 2048), 1, dtype)  # an image, outer 1
        yield Case((25, 4000000), 0, dtype)  # 400 MB


CASES = tuple(_cases())
"""Every case of ``fq-tvm bench``; the tuner and its tests use the same table."""


def find_cases(names: Sequence[str]) -> list[Case]:
    """Return the cases whose name contains one of the given texts, or whose tags do; all of them for none.

    Raises
    ------
    FqError
        If a text finds nothing.
    """
    if not names:
        return list(CASES)
    found = [case for case in CASES if any(n in case.name or n in case.tags for n in names)]
    for name in names:
        if not any(name in case.name or name in case.tags for case in CASES):
            raise FqError(f"no case is called {name!r}; cases are: {', '.join(case.name for case in CASES)}, or facts")
    return found


@dataclass
class Result:
    """What was measured of a case.

    Parameters
    ----------
    case : Case
        The case.
    seconds : dict of list of float
        Times of one call by contender: ``fq_tvm``, ``copy`` and the peers.
    absent : dict of str
        Why a peer was left out.
    kept : dict of list of float
        For x above :data:`SMALL`, the times of the same contenders when the caches are not swept.
    """

    case: Case
    seconds: dict[str, list[float]]
    absent: dict[str, str] = field(default_factory=dict)
    kept: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str = "fq_tvm") -> float:
        """Median time of a contender in seconds."""
        return statistics.median(self.seconds[name])

    def spread(self, name: str = "fq_tvm") -> float:
        """Interquartile range of a contender's times over their median."""
        quartiles = statistics.quantiles(self.seconds[name], n=4)
        return (quartiles[2] - quartiles[0]) / self.median(name)

    @property
    def over_limit(self) -> float:
        """Our time over that of a copy, scaled by the bytes to move."""
        return self._over_limit(self.seconds)

    @property
    def kept_over_limit(self) -> float:
        """The same where tensors stay in the caches, as far as they fit; of small ones there is no other."""
        return self._over_limit(self.kept or self.seconds)

    def _over_limit(self, seconds: Mapping[str, list[float]]) -> float:
        ratio = statistics.median(by_round(seconds, "fq_tvm", "copy"))
        return ratio / (self.case.moved_bytes / (2 * self.case.x_bytes))

    @property
    def gigabytes_per_second(self) -> float:
        """Bytes that have to move by our time."""
        return self.case.moved_bytes / self.median() / 1e9

    def ratios(self, kept: bool = False) -> dict[str, float]:
        """How many times as long each peer takes, in the median of the rounds; perhaps with the caches not swept."""
        return {n: statistics.median(self.by_round(n, kept)) for n in self.seconds if n not in ("fq_tvm", "copy")}

    def by_round(self, peer: str, kept: bool = False) -> list[float]:
        """How many times as long a peer takes, in each round."""
        return by_round(self.kept if kept and self.kept else self.seconds, peer, "fq_tvm")

    def to_json(self) -> dict[str, Any]:
        """Return everything as a dictionary that :func:`json.dumps` takes."""
        return {
            **asdict(self.case),
            "name": self.case.name,
            "seconds": {n: self.median(n) for n in self.seconds},
            "spread": {n: self.spread(n) for n in self.seconds},
            "over_limit": self.over_limit,
            "kept_over_limit": self.kept_over_limit,
            "gigabytes_per_second": self.gigabytes_per_second,
            "peer_over_ours": self.ratios(),
            "kept_peer_over_ours": self.ratios(kept=True),
            "absent": self.absent,
        }


def by_round(seconds: Mapping[str, list[float]], name: str, of: str) -> list[float]:
    """Divide the times of one contender by those of another, round by round.

    A machine that is fast for a while and slow for a while moves both medians, each at another moment, but not this.
    """
    return [a / b for a, b in zip(seconds[name], seconds[of], strict=True)]


def quiet_threads() -> None:
    """Keep the idle threads of OpenMP from spinning on the cores that the next contender needs.

    Raises
    ------
    FqError
        If torch, which reads this when it starts, is there already, and set otherwise.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        if "torch" in sys.modules:
            raise FqError("torch was imported before the benchmark; set OMP_WAIT_POLICY=passive")
        os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads()))


class Inputs:
    """The tensors of a case, as each contender wants them, and memory for results."""

    def __init__(self, case: Case) -> None:
        from ..functional import empty_like

        self.case = case
        self.x, self.scale, self.zero_point = case.arrays()
        self.results = empty_like(self.x, self.x.dtype), empty_like(self.x, bool)
        self.arguments = (self.x, self.scale, self.zero_point, case.axis, QUANT_MIN, QUANT_MAX)

    def torch(self) -> tuple[Any, ...]:
        """Arguments as torch tensors."""
        import torch

        return (*(torch.from_numpy(a) for a in self.arguments[:3]), *self.arguments[3:])

    def folded(self) -> list[np.ndarray[Any, Any]]:
        """Return x, out and mask as the dense (outer, channels, inner) that they are in memory."""
        order = self.case.order
        at = order.index(self.case.axis)
        shape = [self.case.shape[d] for d in order]
        dense = math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :])
        return [a.transpose(order).reshape(dense) for a in (self.x, *self.results)]

    def check(self, name: str, call: Call, expected: tuple[Any, Any]) -> None:
        """Compare what a contender returns, or leaves in :attr:`results` if it returns nothing, with the reference.

        Raises
        ------
        FqError
            If a bit differs.
        """
        out, mask = self.results  # of the contender before, which were right
        out.fill(np.nan)
        np.logical_not(expected[1], out=mask)
        returned = call()
        got = self.results if returned is None else returned
        for what, a, b in zip(("out", "mask"), got, expected, strict=True):
            if not np.array_equal(np.asarray(a), b):
                raise FqError(f"{name} gives another {what} than the reference for {self.case.name}; it is not timed")


def ours(inputs: Inputs, cpu: str | None = None, tuned: bool = True, knobs: Mapping[str, int] | None = None) -> Call:
    """Prepare our own call: a launch whose tensors are there, as for every contender that can do so.

    Parameters
    ----------
    inputs : Inputs
        The tensors.
    cpu : str, optional
        Generate code for this CPU instead, in the schedule that applies to it.
    tuned : bool
        Whether tuned schedules apply.
    knobs : mapping, optional
        Of the schedule, to be changed.
    """
    from ..launch.arguments import Operands, check, describe
    from ..launch.kernel import Launch, current_target, get_kernel, prepare, schedule_for
    from ..launch.runtime import AddressTensor
    from ..schedule import default_schedule
    from ..store.records import size_class
    from ..target import resolve

    operands = Operands(*(describe(t, "tensor") for t in (*inputs.arguments[:3], *inputs.results)))
    launch = prepare(operands, *check(operands, *inputs.arguments[3:]))
    assert isinstance(launch, Launch)
    if cpu is not None or not tuned or knobs:
        spec = launch.kernel.spec
        target = resolve(cpu) if cpu is not None else current_target()
        tuned_schedule = schedule_for(spec, target, size_class(inputs.case.moved_bytes))
        schedule = replace(tuned_schedule if tuned else default_schedule(spec, target), **(knobs or {}))
        launch = get_kernel(spec, target, schedule).bind(launch.layout, 1, 1, launch.scalars)
    workspace = np.empty(launch.workspace_size + 64, np.uint8)
    start = workspace.ctypes.data
    tensors = [AddressTensor(o.address) for o in operands] + [AddressTensor(start + -start % 64)]
    keep = (operands, workspace)

    def call(keep: Any = keep) -> None:
        launch(*tensors)

    return call


def copy(x: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> Call:
    """Prepare a copy of x to out, which lies as x does, with all threads: torch's, else numpy's in slices."""
    order = sorted(range(x.ndim), key=lambda d: -x.strides[d])
    source, target = (a.transpose(order).reshape(-1) for a in (x, out))
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(num_threads())
        to, of = torch.from_numpy(target), torch.from_numpy(source)
        return lambda: to.copy_(of)
    pool, parts = ThreadPoolExecutor(num_threads()), num_threads()
    slices = list(zip(np.array_split(target, parts), np.array_split(source, parts), strict=True))
    return lambda: list(pool.map(lambda pair: np.copyto(*pair), slices))


@cache
def sweeper() -> Call:
    """Prepare a call with which all threads read twice what the last cache holds, and nothing else stays there.

    What it leaves in the caches was not written, so that no contender has to wait for it to be.
    """
    name = "SC_LEVEL3_CACHE_SIZE"
    last = os.sysconf(name) if name in os.sysconf_names else 0
    parts = np.array_split(np.ones(2 * max(last, 2**25) // 8, np.int64), num_threads())
    pool = ThreadPoolExecutor(num_threads())
    return lambda: list(pool.map(np.max, parts))


def _torch(inputs: Inputs) -> Call:
    import torch

    torch.set_num_threads(num_threads())
    arguments = inputs.torch()
    operator = torch.ops.aten.fake_quantize_per_channel_affine_cachemask.default
    return lambda: operator(*arguments)


def _inductor(inputs: Inputs) -> Call:
    import torch

    torch.set_num_threads(num_threads())
    arguments = inputs.torch()
    x, scale, zero_point, axis, low, high = arguments
    view = [-1 if d == axis else 1 for d in range(x.dim())]

    def decomposed(x: Any, scale: Any, zero_point: Any) -> Any:
        s, z = scale.view(view), zero_point.view(view)
        q = torch.round(x.float() * (1.0 / s)) + z
        clip = torch.clamp(q, low, high)
        return ((clip - z) * s).to(x.dtype), q == clip

    torch._dynamo.reset()
    compiled = torch.compile(decomposed, dynamic=False)
    return lambda: compiled(x, scale, zero_point)


def _numba(inputs: Inputs) -> Call:
    if inputs.case.dtype == "float16":
        raise FqError("numba has no float16 on a CPU")
    import numba

    numba.set_num_threads(num_threads())
    x, out, mask = inputs.folded()
    scale, zero_point = inputs.scale, inputs.zero_point.astype(np.float32)
    inverse = np.float32(1) / scale
    low, high = np.float32(QUANT_MIN), np.float32(QUANT_MAX)

    loop = _numba_loop(x.shape[2] >= 64, float(low), float(high))
    return lambda: loop(x, scale, inverse, zero_point, out, mask)


@cache
def _numba_loop(long: bool, low: float, high: float) -> Any:
    """Compile the loop that one writes by hand: rows over threads where they are long, else outer rows."""
    import numba

    low, high = np.float32(low), np.float32(high)

    @numba.njit(inline="always")
    def row(x, scale, inverse, zero_point, out, mask, o, c):  # type: ignore[no-untyped-def]
        s, i, z = scale[c], inverse[c], zero_point[c]
        for k in range(x.shape[2]):
            q = np.rint(x[o, c, k] * i) + z
            clip = min(max(q, low), high)
            out[o, c, k] = (clip - z) * s
            mask[o, c, k] = q == clip

    @numba.njit(parallel=True)
    def over_rows(x, scale, inverse, zero_point, out, mask):  # type: ignore[no-untyped-def]
        for index in numba.prange(x.shape[0] * x.shape[1]):
            row(x, scale, inverse, zero_point, out, mask, index // x.shape[1], index % x.shape[1])

    @numba.njit(parallel=True)
    def over_outer(x, scale, inverse, zero_point, out, mask):  # type: ignore[no-untyped-def]
        for o in numba.prange(x.shape[0]):
            for c in range(x.shape[1]):
                row(x, scale, inverse, zero_point, out, mask, o, c)

    return over_rows if long else over_outer


def _numpy(inputs: Inputs) -> Call:
    from ..reference import fake_quant

    return lambda: fake_quant(*inputs.arguments)


def _openvino(inputs: Inputs) -> Call:
    import openvino

    x, *_ = inputs.folded()
    dtype = np.float32 if inputs.case.dtype == "float32" else np.float16
    ops = openvino.opset13
    parameter = ops.parameter(list(x.shape), dtype)
    bounds = [
        ((bound - inputs.zero_point) * inputs.scale).astype(dtype).reshape(1, -1, 1) for bound in (QUANT_MIN, QUANT_MAX)
    ]
    node = ops.fake_quantize(parameter, *bounds, *bounds, QUANT_MAX - QUANT_MIN + 1)
    hint = "f32" if dtype is np.float32 else "f16"
    settings = {"INFERENCE_NUM_THREADS": num_threads(), "INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(openvino.Model([node], [parameter]), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(x), shared_memory=True))
    return lambda: request.infer()


def _ort(inputs: Inputs) -> Call:
    if inputs.case.dtype == "float16":
        raise FqError("ONNX Runtime's QuantizeLinear takes no float16 on a CPU")
    import onnx
    import onnxruntime

    x = np.ascontiguousarray(inputs.folded()[0])
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "fake_quant",
        [helper.make_tensor_value_info("x", kinds.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", kinds.FLOAT, x.shape)],
        [
            onnx.numpy_helper.from_array(inputs.scale, "scale"),
            onnx.numpy_helper.from_array(inputs.zero_point.astype(np.int8), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    out = np.empty_like(x)
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    binding.bind_ortvalue_input("x", value(x))
    binding.bind_ortvalue_output("y", value(out))
    return lambda: session.run_with_iobinding(binding)


PEERS: dict[str, tuple[str, Callable[[Inputs], Call]]] = {
    "torch": ("torch", _torch),
    "inductor": ("torch", _inductor),
    "numba": ("numba", _numba),
    "openvino": ("openvino", _openvino),
    "ort": ("onnxruntime", _ort),
    "numpy": ("numpy", _numpy),
    "default": ("numpy", lambda inputs: ours(inputs, tuned=False)),
    "x86-64-v3": ("numpy", lambda inputs: ours(inputs, "x86-64-v3")),
}
"""Contenders by name: the package each needs, and how its call is prepared.  The last two are our own kernels: not
tuned, and for lesser CPUs."""

MASKLESS = {"openvino", "ort"}
"""Peers that make no mask, so that there is nothing to be checked bit for bit."""


def check_peers(peers: Sequence[str]) -> None:
    """Refuse names that are not in :data:`PEERS`.

    Raises
    ------
    FqError
        If there is one.
    """
    if unknown := sorted(set(peers) - set(PEERS)):
        raise FqError(f"unknown peer {', '.join(unknown)}; known: {', '.join(PEERS)}")


def measure(case: Case, peers: Sequence[str] = (), seconds: float = 1.0) -> Result:
    """Time a case.

    Parameters
    ----------
    case : Case
        What to quantize.
    peers : sequence of str
        Of :data:`PEERS`; one whose package is not installed, or that cannot do the case, is left out and named.
    seconds : float
        How long to measure, about, and half of that again for x above :data:`SMALL`; longer where times vary.

    Returns
    -------
    Result

    Raises
    ------
    FqError
        If a peer is unknown, or a contender that has a mask gives another result than the reference.
    """
    check_peers(peers)
    inputs = Inputs(case)
    expected = _expected(inputs)
    calls = {"fq_tvm": ours(inputs), "copy": copy(inputs.x, inputs.results[0])}
    inputs.check("fq_tvm", calls["fq_tvm"], expected)
    absent: dict[str, str] = {}
    for name in peers:
        package, prepare = PEERS[name]
        if importlib.util.find_spec(package) is None:
            absent[name] = f"{package} is not installed"
            continue
        try:
            calls[name] = prepare(inputs)
        except FqError as error:
            absent[name] = str(error)
            continue
        if name not in MASKLESS:
            inputs.check(name, calls[name], expected)
    if case.x_bytes <= SMALL:
        return Result(case, interleave(calls, seconds), absent)
    kept = interleave(calls, seconds / 2)
    return Result(case, interleave(calls, seconds, sweeper()), absent, kept)


def _expected(inputs: Inputs) -> tuple[Any, Any]:
    from ..reference import fake_quant

    return fake_quant(*inputs.arguments)


def interleave(calls: Mapping[str, Call], seconds: float, sweep: Call | None = None) -> dict[str, list[float]]:
    """Time contenders in turns; a call that is short is repeated within its turn.

    There are five rounds at least, and more than ``seconds`` ask for, up to four times as many, until :func:`settled`.

    Who goes first changes at random, the same way every time: what one leaves in the caches makes the next one faster
    or slower, by a tenth between two kernels and a copy.

    Parameters
    ----------
    calls : mapping of callables
        The contenders.
    seconds : float
        How long, about.
    sweep : callable, optional
        Called before each call that is timed, of which there is one in a turn then.

    Returns
    -------
    dict of list of float
        Seconds of one call, by contender.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        repeats[name] = 1 if sweep else max(1, min(1000, int(200e-6 / (took + 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    begin, enough = time.perf_counter(), seconds
    turns, shuffle = list(calls.items()), random.Random(0).shuffle
    for rounds in itertools.count():
        if rounds >= 5 and time.perf_counter() - begin >= enough:
            if enough >= 4 * seconds or settled(times):
                break
            enough = min(1.25 * enough, 4 * seconds)  # asking after every round would take longer than a short one
        shuffle(turns)
        for name, call in turns:
            call()  # brings caches and threads back to this contender
            number = repeats[name]
            if sweep:
                sweep()
            start = time.perf_counter()
            for _ in range(number):
                call()
            times[name].append((time.perf_counter() - start) / number)
    return times


def settled(times: Mapping[str, list[float]], within: float = 0.05) -> bool:
    """Whether the median of each contender's ratio to the first one would hardly change with more rounds.

    The bound on that is the notch of a box plot, 1.57 interquartile ranges over the root of the number (McGill, Tukey
    and Larsen, Variations of Box Plots, 1978), which is about a 95 % interval of the median.
    """
    first, *others = times
    for name in others:
        low, middle, high = statistics.quantiles(by_round(times, name, first), n=4)
        if 1.57 * (high - low) > within * middle * len(times[name]) ** 0.5:
            return False
    return True


def geometric_mean(values: Sequence[float]) -> float:
    """Geometric mean; NaN of nothing."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Put together what the issue of speed is judged by.

    Returns
    -------
    dict
        ``memory`` (x above 1 MB), ``kept`` (the same, in caches as far as they fit) and ``cache`` (64 KB to 1 MB),
        each with the number of cases, the geometric mean of time over the limit and the worst case; ``peers``, for
        each the least and the geometric mean of its time over ours, and those with the caches not swept.
    """
    memory = [r for r in results if r.case.x_bytes > SMALL]
    cache = [r for r in results if 2**16 <= r.case.x_bytes <= SMALL]
    groups = {}
    for name, group, over in (
        ("memory", memory, "over_limit"),
        ("kept", memory, "kept_over_limit"),
        ("cache", cache, "over_limit"),
    ):
        if group:
            ratios = {r.case.name: getattr(r, over) for r in group}
            worst = max(ratios, key=lambda name: ratios[name])
            groups[name] = {
                "cases": len(group),
                "over_limit": geometric_mean(list(ratios.values())),
                "worst": ratios[worst],
                "worst_case": worst,
            }
    peers = {}
    for peer in {n for r in results for n in r.ratios()}:
        ratios, kept = (
            {r.case.name: r.ratios(in_cache)[peer] for r in results if peer in r.seconds} for in_cache in (False, True)
        )
        least = min(ratios, key=lambda n: ratios[n])
        peers[peer] = {
            "cases": len(ratios),
            "least": ratios[least],
            "least_case": least,
            "mean": geometric_mean(list(ratios.values())),
            "kept_least": min(kept.values()),
            "kept_mean": geometric_mean(list(kept.values())),
        }
    return {**groups, "peers": peers}


@dataclass(frozen=True)
class Claim:
    """A statement about speed, and whether it holds.

    Parameters
    ----------
    text : str
        What is claimed.
    value, bound : float
        What was measured, and what it may not exceed; reached at ``least`` where that is so.
    least : bool
        Whether the value may not fall below the bound instead.
    where : str
        The case that decides, if it is one.
    """

    text: str
    value: float
    bound: float
    least: bool = False
    where: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is so."""
        return self.value >= self.bound if self.least else self.value <= self.bound


def claims(results: Sequence[Result]) -> list[Claim]:
    """Judge the statements about speed that the results allow to be judged.

    Parameters
    ----------
    results : sequence of Result
        Measured cases, of one run.

    Returns
    -------
    list of Claim
    """
    found = []
    summed = summary(results)
    if memory := summed.get("memory"):
        found.append(Claim("time / limit above 1 MB, geometric mean", memory["over_limit"], 1.10))
        found.append(Claim("time / limit above 1 MB, worst", memory["worst"], 1.35, where=memory["worst_case"]))
    if cached := summed.get("cache"):
        found.append(Claim("time / limit from 64 KB to 1 MB, geometric mean", cached["over_limit"], 1.5))

    def worst(peer: str, bound: float, text: str, tag: str = "", spread: bool = False, kept: bool = False) -> None:
        chosen = [r for r in results if peer in r.seconds and (not tag or tag in r.case.tags)]
        if chosen:
            # beyond the spread: slower in three rounds of four
            def value(r: Result) -> float:
                return statistics.quantiles(r.by_round(peer, kept), n=4)[2 if spread else 1]

            least = min(chosen, key=value)
            found.append(Claim(text, value(least), bound, True, least.case.name))

    # As the numbers were taken that the bound is from: by calls without a sweep between them.
    worst("torch", 10, "torch / ours, facts, kept, least", "facts", kept=True)
    worst("inductor", 10, "torch.compile / ours, facts, kept, least", "facts", kept=True)
    worst("numba", 1, "numba / ours beyond the spread, least", spread=True)
    worst("openvino", 1.5, "OpenVINO without a mask / ours, least")

    def mean(peer: str, bound: float, text: str, chosen: Sequence[Result]) -> None:
        ratios = [r.ratios()[peer] for r in chosen if peer in r.seconds]
        if ratios:
            found.append(Claim(text, geometric_mean(ratios), bound))

    mean("default", 1.10, "default schedule / tuned, geometric mean", results)
    large = [r for r in results if r.case.x_bytes > 64 * 2**20]
    small = [r for r in results if 2**16 <= r.case.x_bytes <= SMALL]
    for text, chosen, bound in (("above 64 MB", large, 1.3), ("from 64 KB to 1 MB", small, 2.0)):
        mean("x86-64-v3", bound, f"x86-64-v3 code / native {text}, geometric mean", chosen)
    return found


def memory_size(size: float) -> str:
    """Say how many bytes that is, in binary units: ``1.5 MiB``."""
    power = min(max(int(math.log2(size)) // 10, 0), 3) if size > 0 else 0
    return f"{size / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def plot(results: Sequence[Result], path: str | Path) -> None:
    """Draw achieved bandwidth over tensor size against a copy, a line for each class and dtype.

    Parameters
    ----------
    results : sequence of Result
        Measured cases.
    path : path
        Of the picture; its suffix decides the format.

    Raises
    ------
    FqError
        If matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise FqError('a plot needs matplotlib; `pip install "fq_tvm[plot]"`')
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for result in results:
        case = result.case
        lines.setdefault((case.iteration, case.dtype), []).append((case.moved_bytes, result.gigabytes_per_second))
        copied = 2 * case.x_bytes / result.median("copy") / 1e9
        lines.setdefault(("copy", case.dtype), []).append((2 * case.x_bytes, copied))
    for (kind, dtype), points in sorted(lines.items()):
        sizes, speeds = zip(*sorted(points), strict=True)
        style, color = {"copy": ("--", "0.5"), "rows": ("-o", "C0"), "lanes": ("-s", "C1")}.get(kind, ("-^", "C2"))
        axes.plot(sizes, speeds, style, color=color, label=f"{kind}, {dtype}", alpha=1 if dtype == "float32" else 0.5)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda size, _: memory_size(size))
    axes.set_xlabel("bytes moved: x, out and mask")
    axes.set_ylabel("GB/s")
    axes.set_ylim(bottom=0)
    place = f"in caches up to {memory_size(SMALL)} of x, from memory above"
    axes.set_title(f"Fake quantization against a copy, {num_threads()} threads, {place}")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

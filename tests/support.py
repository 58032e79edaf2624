"""Data and comparisons that several test files use."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from fq_tvm import FakeQuantSpec, Schedule
from fq_tvm.launch.arguments import CheckedArguments, check, describe_all
from fq_tvm.launch.choose import schedule_for
from fq_tvm.launch.kernel import Launch
from fq_tvm.launch.registry import current_target, prepare
from fq_tvm.reference import fake_quant

if TYPE_CHECKING:
    import torch

RANGES = [(-128, 127), (0, 255), (-8, 7), (0, 0), (-(2**23), 2**23), (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)]
"""int8, uint8, int4, a single value, the last narrow range, a wide one, the widest."""

SPECIALS = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-45, 3e38, -3e38, 65504.0, 6e-8, 0.5, -0.5, 1.5, 2.5, -2.5]
"""Signed zeros, infinities, NaN, subnormals (also of float16), huge values, ties that round either way."""


AARCH64 = platform.machine() == "aarch64"

LESSER_CPU = "armv8-a" if AARCH64 else "x86-64-v3"
"""A level that the CPU at hand is above of."""

REACH = {"float32": 4000.0, "float16": 300.0, "bfloat16": 120.0}
"""How far halves of integers are exact, zero points included; of bfloat16 for most zero points."""


def channel_view(values: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    """Shape a vector so that it broadcasts along an axis; without one, it has one element."""
    if axis is None or not rank:
        return values.reshape([1] * rank)
    return values.reshape([-1 if d == axis % rank else 1 for d in range(rank)])


def make(
    rng: np.random.Generator,
    shape: Sequence[int],
    axis: int | None,
    dtype: str = "float32",
    scale_dtype: str = "float32",
    quant_range: tuple[int, int] = (-128, 127),
    *,
    zero_point_dtype: str = "int32",
    specials: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make x, scale and zero point of which many products are exact ties.

    Half of the elements lie halfway between two integers of their channel, some outside the range; the rest is spread
    over the range and beyond, and a few are special values.  Without an axis there is one channel.  Zero points of
    floats are integers and quarters.
    """
    shape = tuple(shape)
    channels = shape[axis] if shape and axis is not None else 1
    low, high = (int(np.clip(bound, -(2**20), 2**20)) for bound in quant_range)
    scale = np.where(rng.random(channels) < 0.7, 2.0 ** rng.integers(-6, 3, channels), rng.random(channels) + 0.05)
    # zero points within the range, as torch wants them, but small enough that halves stay exact
    most = 40 if dtype == "bfloat16" else 200
    zero_point = rng.integers(max(low, min(high, -most)), min(high, max(low, most)) + 1, channels).astype(np.int32)
    if zero_point_dtype != "int32":
        zero_point = (zero_point + rng.choice([0, 0, 0.25, 0.5, -0.25], channels)).astype(zero_point_dtype)
    scale = scale.astype(scale_dtype)
    s, z = (channel_view(v.astype(np.float64), axis, len(shape)) for v in (scale, zero_point))
    reach = REACH[dtype]
    span, first = min(high - low, 2 * reach) + 8, max(low, -reach) - 4
    q = rng.integers(0, int(span) + 1, shape) + first
    ties = (q - z + 0.5) * s
    spread = (rng.random(shape) * span * 1.5 + first - span / 4 - z) * s
    with np.errstate(over="ignore"):
        x = np.asarray(np.where(rng.random(shape) < 0.6, ties, spread)).astype(dtype)
        if specials and x.size:
            where = rng.integers(0, x.size, max(x.size // 20, 1))
            x.reshape(-1)[where] = rng.choice(np.array(SPECIALS), len(where)).astype(dtype)
    return x, scale, zero_point


def tie_share(x: np.ndarray, scale: np.ndarray, axis: int | None, zero_point: np.ndarray | None = None) -> float:
    """Return the share of elements that are exactly halfway between two integers where they are rounded."""
    with np.errstate(all="ignore"):
        rounded = x.astype("f4") * (np.float32(1) / channel_view(scale.astype("f4"), axis, x.ndim))
        if zero_point is not None and zero_point.dtype.kind == "f":
            rounded = rounded + channel_view(zero_point.astype("f4"), axis, x.ndim)
        return float(np.mean(np.abs(rounded - np.trunc(rounded)) == 0.5))


def to_torch(array: np.ndarray) -> torch.Tensor:
    """Return a tensor on the array's memory, of bfloat16 too."""
    import torch  # here, so that what needs no torch is tested without it

    if array.dtype != ml_dtypes.bfloat16:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return an array on the tensor's memory, of bfloat16 too."""
    import torch

    if tensor.dtype != torch.bfloat16:
        return np.asarray(tensor.numpy())
    return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)


def bits(array: np.ndarray) -> np.ndarray:
    """Return the elements as unsigned integers, so that -0.0 differs from 0.0 and a NaN equals itself."""
    unsigned: np.ndarray = np.ascontiguousarray(array).view(f"u{array.itemsize}")
    return unsigned


def assert_same(got: Any, expected: Any) -> None:
    """Compare (out, mask) pairs bit for bit."""
    for name, a, b in zip(("out", "mask"), got, expected, strict=True):
        assert a.dtype == b.dtype, f"{name}: {a.dtype} instead of {b.dtype}"
        assert a.shape == b.shape, f"{name}: shape {a.shape} instead of {b.shape}"
        differ = np.argwhere(np.atleast_1d(bits(a) != bits(b)))
        if len(differ):
            at = tuple(differ[0][: a.ndim])
            raise AssertionError(
                f"{name} differs in {len(differ)} of {a.size} elements, first at {at}: {a[at]} for {b[at]}"
            )


def expected(x: Any, scale: Any, zero_point: Any, axis: int | None, low: int, high: int, out_dtype: Any = None) -> Any:
    """Return the reference's answer."""
    return fake_quant(x, scale, zero_point, axis, low, high, out_dtype)


def checked_arguments(arrays: Sequence[Any], axis: int | None, low: int, high: int) -> CheckedArguments:
    """Describe and check x, scale, zero point, out and mask."""
    return check(describe_all(arrays), axis, low, high)


def launch_on(launch: Any, tensors: Sequence[Any], workspace: Any = None) -> np.ndarray:
    """Launch on tensors, with a workspace of its own unless one is given; return that."""
    memory = np.empty(launch.workspace_size, np.uint8)
    launch(*tensors, *([memory if workspace is None else workspace] if launch.workspace_size else []))
    return memory


def array_at(offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array whose first element is so many bytes after the beginning of a line, with a line of its own around."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 4 * 64, 0xA5, np.uint8)
    start = -memory.ctypes.data % 64 + 64 + offset
    array: np.ndarray = np.ndarray(shape, dtype, memory[start : start + size])
    return array


def run_at(
    spec: FakeQuantSpec,
    shape: tuple[int, ...],
    axis: int,
    rng: np.random.Generator,
    schedule: Schedule | None = None,
    offsets: tuple[int, int, int] = (0, 0, 0),
    in_place: bool = False,
    view: Callable[[np.ndarray], Any] | None = None,
    **knobs: int,
) -> Any:
    """Run a kernel on tensors that begin somewhere in a line; return its results and the reference's.

    Knobs change the schedule, which is that of large tensors unless one is given.  ``view`` may put something in the
    place of x.  What lies around the results has to stay.
    """
    x, scale, zero_point = make(rng, shape, axis, spec.dtype, spec.scale_dtype)
    wanted = expected(x, scale, zero_point, axis, -128, 127, spec.out_dtype)
    assert not in_place or spec.dtype == spec.out_dtype
    self = array_at(offsets[0], shape, spec.dtype)
    self[...] = x
    out = self if in_place else array_at(offsets[1], shape, spec.out_dtype)
    mask = array_at(offsets[2], shape, "bool")
    chosen = dataclasses.replace(schedule or schedule_for(spec, current_target()), **knobs)
    checked = checked_arguments((self, scale, zero_point, out, mask), axis, -128, 127)
    launch = prepare(checked, schedule=chosen)
    assert isinstance(launch, Launch)
    assert launch.kernel.spec == spec
    tensors = [operand.tensor for operand in checked.operands]
    if view is not None:
        tensors[0] = view(self)
    launch_on(launch, tensors)
    for array in (out, mask):
        around = array.base
        assert around is not None
        start = array.ctypes.data - around.ctypes.data
        assert set(np.unique(np.delete(around, slice(start, start + array.nbytes)))) <= {0xA5}
    return (out, mask), wanted


def count_served(monkeypatch: Any, seen: list[Any], *functions: tuple[Any, str, Any]) -> None:
    """Put something down whenever a function gives a result; of each its module, its name, and what is put down."""

    def counted(inner: Callable[..., Any], what: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = inner(*arguments)
            if result is not None:
                seen.append(what)
            return result

        return call

    for module, name, what in functions:
        monkeypatch.setattr(module, name, counted(getattr(module, name), what))

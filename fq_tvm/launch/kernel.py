"""get_kernel(spec): from a specification to code that can be called; and what a call of it takes.

Warm paths import neither TVM's compiler nor anything that does.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from .. import environment
from ..errors import BuildError, FqError, LaunchError
from ..layout import MAX_RANK, ROWS_MIN_INNER, Layout, arrange
from ..schedule import RUN_VECTORS, Schedule, default_schedule, folds, streams
from ..spec import FakeQuantSpec, arithmetic_for, catalogue, quant_range_scalars
from ..store import cache as store
from ..store import records
from ..target import Target, identify, resolve
from .arguments import Operands
from .runtime import load, threads_ready

__all__ = [
    "EmptyLaunch",
    "Kernel",
    "Launch",
    "build_library",
    "current_target",
    "get_kernel",
    "layout_for",
    "prepare",
    "request_of",
    "schedule_for",
    "versions",
]

SOURCES = {"te": "kernel.te", "tir": "kernel.tir", "ll": "kernel.ll", "asm": "kernel.s"}
OBJECT = "kernel.o"
_kernels: dict[tuple[FakeQuantSpec, Target, Schedule], Kernel] = {}
_targets: dict[str, Target] = {}
_building = threading.Lock()


class Launch:
    """One call of a kernel with everything but addresses bound.

    Parameters
    ----------
    kernel : Kernel
        What runs.
    layout : Layout
        The loops.
    scale_stride, zero_point_stride : int
        In elements.
    scalars : tuple of float
        The quantization range, see :func:`fq_tvm.spec.quant_range_scalars`.

    Attributes
    ----------
    workspace_size : int
        Bytes that :meth:`__call__` needs: room for :data:`~fq_tvm.schedule.RUN_VECTORS` of *lanes*, else 0.
    """

    __slots__ = ("_steps", "_threaded_steps", "kernel", "layout", "scalars", "workspace_size")

    def __init__(
        self,
        kernel: Kernel,
        layout: Layout,
        scale_stride: int,
        zero_point_stride: int,
        scalars: tuple[float, ...],
    ) -> None:
        self.kernel, self.layout, self.scalars = kernel, layout, scalars
        self.workspace_size = 0
        steps = self._plan((scale_stride, zero_point_stride))
        large = kernel.schedule.parallel_from
        self._steps = tuple((kernel.function(s.serial), s.vectors, s.values) for s in steps)
        self._threaded_steps = None
        if layout.size >= large:
            self._threaded_steps = tuple(
                (kernel.function(s.parallel if s.size >= large else s.serial), s.vectors, s.values) for s in steps
            )

    def _plan(self, vector_strides: tuple[int, int]) -> list[_Step]:
        """Choose the functions to call and their integers, see :func:`fq_tvm.codegen.build.state`."""
        layout, schedule = self.layout, self.kernel.schedule
        spec, scalars = self.kernel.spec, self.scalars
        large = layout.size * spec.element_bytes >= schedule.stream_from and streams(spec, self.kernel.target)

        def step(name: str, row: int, size: int, *values: float) -> _Step:
            whole = row % LINE == 0 or (not spec.lanes and row >= STREAM_ROW[spec.out_dtype])
            parallel = f"stream_{name}parallel" if large and whole else f"{name}parallel"
            return _Step(f"{name}serial", parallel, size, False, (*scalars, *values))

        if not spec.lanes:
            if layout.strides:
                return [step("", layout.inner, layout.size, *_eight_loops(layout), *vector_strides)]
            extents = (*layout.outer, layout.channels, layout.inner)
            name = "long_" if layout.inner >= schedule.tile // 4 else ""
            return [step(name, layout.inner, layout.size, *extents, *vector_strides)]
        period = layout.channels * layout.inner
        outer = layout.outer[0] if layout.outer else 1
        if layout.inner == 1 and outer <= DIRECT_OUTER and not layout.strides:
            return [step("direct_", layout.channels, layout.size, outer, layout.channels, *vector_strides)]
        copies = 1 if layout.strides else _copies(outer, period, schedule.run, LINE if large else 1)
        run = copies * period
        self.workspace_size = 4 * (RUN_VECTORS * run + folds(spec))  # a flag follows where zero points are folded
        expand = expansion(layout.inner)
        steps = [_Step(expand, expand, 0, True, (copies, layout.channels, layout.inner, *vector_strides))]
        if layout.strides:
            steps.append(step("", run, layout.size, *_eight_loops(layout)))
            return steps
        runs, tail = outer // copies, outer % copies * period
        blocks = runs // schedule.rows if schedule.rows > 1 and run > CACHED_RUN else 0
        first = blocks * schedule.rows * run
        if blocks:
            steps.append(step("blocked_", run, first, blocks, run))
        if first < layout.size:
            steps.append(step("", run, layout.size - first, first, runs - blocks * schedule.rows, run, tail))
        return steps

    def __call__(self, x: Any, scale: Any, zero_point: Any, out: Any, mask: Any, workspace: Any = None) -> None:
        """Run now, in this thread and the threads of its pool.

        Parameters
        ----------
        x, scale, zero_point, out, mask, workspace : tensor
            Anything that tvm-ffi takes for a tensor; only the address is read.

        Raises
        ------
        LaunchError
            If the kernel reports an error.
        """
        threaded = self._threaded_steps
        try:
            for function, vectors, values in self._steps if threaded is None or not threads_ready() else threaded:
                if not self.workspace_size:
                    function(x, scale, zero_point, out, mask, *values)
                elif vectors:
                    function(scale, zero_point, workspace, *values)
                else:
                    function(x, workspace, out, mask, *values)
        except Exception as error:
            raise LaunchError(f"{self.kernel.spec.name} failed: {error}") from error

    def calls(
        self, x: Any, scale: Any, zero_point: Any, out: Any, mask: Any, workspace: Any = None
    ) -> list[tuple[Any, tuple[Any, ...]]]:
        """Return the bare calls that :meth:`__call__` makes, as functions and arguments, to be timed or shown."""
        found: list[tuple[Any, tuple[Any, ...]]] = []
        threaded = self._threaded_steps
        for function, vectors, values in self._steps if threaded is None or not threads_ready() else threaded:
            if not self.workspace_size:
                tensors: tuple[Any, ...] = (x, scale, zero_point, out, mask)
            else:
                tensors = (scale, zero_point, workspace) if vectors else (x, workspace, out, mask)
            found.append((function, (*tensors, *values)))
        return found


class _Step(NamedTuple):
    """One call of a function of the object code."""

    serial: str
    parallel: str
    size: int
    vectors: bool
    values: tuple[float, ...]


DIRECT_OUTER = 8
"""Most repetitions of a channel for which dividing again costs less than expanding the parameters."""

CACHED_RUN = 1024
"""Longest run, in elements, whose parameters (12 or 16 bytes each are read) stay in the first-level cache beside what
streams past."""


LINE = 64
"""Elements that fill lines of out and of mask."""

STREAM_ROW = {"float32": 512, "float16": 4096, "bfloat16": 4096}
"""By the dtype of out, the shortest row that gains more from being written past the caches than the lines that it
shares with its neighbors cost, which are written both ways; rows that begin with a line share none."""


LONGEST = 8192
"""Longest run, in elements, that is made of several outer rows."""


class EmptyLaunch:
    """The call for tensors without elements: it needs no kernel and does nothing."""

    workspace_size = 0

    def __call__(self, *tensors: Any) -> None:
        """Do nothing."""


def _copies(outer: int, period: int, run: int, multiple: int) -> int:
    """How many outer rows make a run: enough to fill it, few enough that expanding costs little of the whole.

    So many that the run is a multiple of a number of elements, unless it would be much longer for that.
    """
    copies = max(1, min(run // period, outer // 64 or outer))
    unit = multiple // math.gcd(multiple, period)
    whole = -(-copies // unit) * unit
    return whole if whole * period <= LONGEST and whole <= outer else copies


def expansion(inner: int) -> str:
    """Name the function that expands parameters: below a vector or so, a loop over one channel is all overhead."""
    return "expand_inner" if inner >= 8 else "expand_channels"


def _eight_loops(layout: Layout) -> tuple[int, ...]:
    """Extents, then the strides of self, out and mask, filled with loops of one iteration to eight."""
    inside = (layout.channels,) if layout.iteration == "strided_lanes" else (layout.channels, layout.inner)
    # The first outer loop is the one that is spread over threads, so it has to be one with iterations to spread.
    order = sorted(range(len(layout.outer)), key=lambda i: i != _largest(layout.outer))
    fill = MAX_RANK - len(layout.outer) - len(inside)
    values: list[int] = [*(layout.outer[i] for i in order), *[1] * fill, *inside]
    for strides in layout.strides:
        values += [*(strides[i] for i in order), *[0] * fill, *strides[len(layout.outer) :]]
    return tuple(values)


def _largest(extents: tuple[int, ...]) -> int:
    """The first loop if it is worth spreading, else the longest."""
    return 0 if not extents or extents[0] >= 16 else max(range(len(extents)), key=lambda i: extents[i])


class Kernel:
    """A compiled kernel.

    Made by :func:`get_kernel`.

    Attributes
    ----------
    spec : FakeQuantSpec
        What it computes.
    schedule : Schedule
        How.
    target : Target
        On which CPU.
    path : pathlib.Path or None
        Where it is cached.
    """

    def __init__(self, spec: FakeQuantSpec, schedule: Schedule, target: Target, entry: store.Entry) -> None:
        self.spec, self.schedule, self.target, self.path = spec, schedule, target, entry.path
        self._entry = entry
        self._functions: dict[str, Any] = {}
        self._load: Callable[[str], Any] | None = None

    def __repr__(self) -> str:
        return f"Kernel({self.spec.name}, {self.schedule}, {self.target.cpu})"

    def function(self, name: str) -> Any:
        """Return a function of the object code: ``serial``, ``parallel`` or one of the expansions of lanes.

        Raises
        ------
        BuildError
            If the code cannot be loaded, or is for a CPU that has features which this one lacks.
        """
        if name not in self._functions:
            if self.target.missing:
                raise BuildError(
                    f"this CPU cannot run code for {self.target.cpu}: it lacks {', '.join(self.target.missing)}. "
                    "Unset FQ_TVM_TARGET, or set it to a CPU that this one can stand in for"
                )
            if self._load is None:
                self._load = load(self._entry.files[OBJECT])
            self._functions[name] = self._load(name)
        return self._functions[name]

    def bind(self, layout: Layout, scale_stride: int, zero_point_stride: int, scalars: tuple[float, ...]) -> Launch:
        """Fix everything but addresses; see :class:`Launch`."""
        return Launch(self, layout, scale_stride, zero_point_stride, scalars)

    def source(self, kind: str) -> str:
        """Return a text of the kernel.

        Parameters
        ----------
        kind : {"te", "tir", "ll", "asm"}
            The expression before scheduling, the scheduled functions, LLVM IR, assembly.

        Raises
        ------
        FqError
            If there is no such kind.
        """
        if kind not in SOURCES:
            raise FqError(f"no source of kind {kind!r}; expected one of {', '.join(SOURCES)}")
        return self._entry.files[SOURCES[kind]].decode()


@cache
def versions() -> dict[str, str]:
    """Return the versions that decide about generated code."""
    return {name: version(name) for name in ("fq_tvm", "apache-tvm", "apache-tvm-ffi")}


@cache
def _generator() -> str:
    """SHA-256 of what generates code, so that a change of it is never served by an old entry.

    That is the folder codegen/ and the facts, which stand at the top.  Some of that decides about no code: whoever
    changes it builds kernels anew, which costs less than a list that somebody forgets.
    """
    package = Path(__file__).parents[1]
    found = sorted([*package.glob("*.py"), *package.glob("codegen/*.py")])
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in found)).hexdigest()


def request_of(spec: FakeQuantSpec, schedule: Schedule, target: Target) -> dict[str, Any]:
    """Return the cache key of a kernel, less the hash of the TIR, which the rest determines."""
    return {
        "format": store.FORMAT,
        "spec": spec.to_json(),
        "schedule": schedule.compiled,
        "target": target.identity(),
        "versions": versions(),
        "generator": _generator(),
    }


def _store(folder: Path | None) -> store.Store | None:
    return store.Store(folder) if folder is not None else None


def current_target() -> Target:
    """Return the target that ``FQ_TVM_TARGET`` names, the host by default.

    Raises
    ------
    FqError
        If LLVM does not know the name.
    """
    name = environment.target_name()
    if name not in _targets:
        question = identify(name)
        tiers = [s for s in (_store(environment.artifacts_dir()), _store(environment.cache_dir())) if s is not None]
        answers = [tier.recall(question) for tier in tiers] if question is not None else []
        answer = next((a for a in answers if a is not None), None)
        if answer is not None:
            target = Target.from_json(answer)
        else:
            with environment.some_home():
                target = resolve(name)
            if question is not None and (folder := _store(environment.cache_dir())) is not None:
                _try_to_remember(folder, question, target)
        _targets[name] = target
    return _targets[name]


def _try_to_remember(folder: store.Store, question: dict[str, Any], target: Target) -> None:
    try:
        folder.remember(question, target.to_json())
    except OSError as error:
        store.warn_once(folder, error)


def schedule_for(spec: FakeQuantSpec, target: Target, size_class: str = "memory") -> Schedule:
    """Return the tuned schedule that applies to tensors of a size class, or the default one."""
    return records.lookup(spec, target, size_class) or default_schedule(spec, target)


def layout_for(target: Target, shape: Sequence[int], axis: int | None, strides: Sequence[Sequence[int]]) -> Layout:
    """Find the loops as :func:`~fq_tvm.layout.arrange` does, with the class boundary that was measured for a CPU."""
    return arrange(shape, axis, strides, records.rows_min_inner(target) or ROWS_MIN_INNER)


def get_kernel(spec: FakeQuantSpec, target: Target | None = None, schedule: Schedule | None = None) -> Kernel:
    """Return the kernel of a specification: from memory, from the cache, or freshly built.

    Parameters
    ----------
    spec : FakeQuantSpec
        What to compute.
    target : Target, optional
        For which CPU; :func:`current_target` by default.
    schedule : Schedule, optional
        How; :func:`schedule_for` tensors larger than caches by default.

    Returns
    -------
    Kernel

    Raises
    ------
    BuildError
        If it cannot be built.
    CacheMissError
        If ``FQ_TVM_REQUIRE_CACHE`` is set and it is in no cache.
    """
    target = target or current_target()
    schedule = schedule or schedule_for(spec, target)
    key = (spec, target, schedule)
    if (kernel := _kernels.get(key)) is None:
        with _building:  # one thread builds; a second one that wants the same kernel finds it
            if (kernel := _kernels.get(key)) is None:
                kernel = _kernels[key] = Kernel(spec, schedule, target, _entry(*key))
                environment.logger().debug("%s for %s from %s", spec.name, target.cpu, kernel.path or "memory")
    return kernel


def prepare(operands: Operands, axis: int | None, quant_min: int, quant_max: int) -> Launch | EmptyLaunch:
    """Walk from checked arguments to a call that needs only addresses: layout, specification, kernel.

    Parameters
    ----------
    operands : Operands
        Checked, see :func:`fq_tvm.launch.arguments.check`.
    axis : int or None
        Not negative; None for parameters of the whole tensor.
    quant_min, quant_max : int
        Any int64.

    Returns
    -------
    Launch or EmptyLaunch

    Raises
    ------
    BuildError
        If there is no kernel and none can be built.
    """
    x, scale, zero_point, out, mask = operands
    if 0 in x.shape:
        return EmptyLaunch()
    target = current_target()
    layout = layout_for(target, x.shape, axis, (x.strides, out.strides, mask.strides))
    arithmetic = arithmetic_for(quant_min, quant_max)
    spec = FakeQuantSpec(layout.iteration, x.dtype, scale.dtype, out.dtype, zero_point.dtype, arithmetic)
    scalars = quant_range_scalars(quant_min, quant_max)
    schedule = schedule_for(spec, target, records.size_class_of(spec, layout.size))
    scale_stride, zero_point_stride = (v.strides[0] if v.strides else 0 for v in (scale, zero_point))
    return get_kernel(spec, target, schedule).bind(layout, scale_stride, zero_point_stride, scalars)


def _entry(spec: FakeQuantSpec, target: Target, schedule: Schedule) -> store.Entry:
    request = request_of(spec, schedule, target)
    return store.get_or_build(
        request,
        lambda: _build(request, spec, schedule, target),
        _store(environment.cache_dir()),
        _store(environment.artifacts_dir()),
        environment.require_cache(),
    )


def _build(request: dict[str, Any], spec: FakeQuantSpec, schedule: Schedule, target: Target) -> store.Entry:
    environment.logger().info("building %s for %s", spec.name, target.cpu)
    with environment.some_home():
        from ..codegen.build import build  # the compiler, which a warm process never imports

    built = build(spec, schedule, target)
    files = {SOURCES[kind]: getattr(built, kind).encode() for kind in SOURCES}
    return store.Entry(request, built.tir_hash, {OBJECT: built.object, **files})


def build_library(
    directory: str | Path,
    specs: Iterable[FakeQuantSpec] | None = None,
    target: Target | None = None,
    progress: Callable[[int, int, FakeQuantSpec], None] | None = None,
) -> list[Path]:
    """Build kernels ahead of time into a directory that serves as ``FQ_TVM_ARTIFACTS_DIR``.

    Kernels that it already holds are kept.

    Parameters
    ----------
    directory : path
        Made if need be.
    specs : iterable of FakeQuantSpec, optional
        The whole :func:`~fq_tvm.spec.catalogue` by default.
    target : Target, optional
        :func:`current_target` by default.
    progress : callable, optional
        Called as ``progress(done, total, spec)`` before each kernel is waited for.

    Returns
    -------
    list of Path
        The entries, in the order of the specifications; several of one whose schedule depends on the tensor's size.

    Raises
    ------
    BuildError
        If a kernel cannot be built.
    OSError
        If the directory cannot be written.
    """
    folder = store.Store(Path(directory).absolute())
    name = environment.target_name()
    question = identify(name) if target is None else None
    target = target or current_target()
    if question is not None:
        folder.remember(question, target.to_json())
    chosen = []
    for spec in catalogue() if specs is None else specs:
        schedules = [schedule_for(spec, target, size) for size in records.SIZE_CLASSES]
        chosen += [(spec, s) for s in {tuple(s.compiled.items()): s for s in schedules}.values()]

    def path_of(spec: FakeQuantSpec, schedule: Schedule) -> Path:
        request = request_of(spec, schedule, target)
        entry = folder.find(request) or folder.put(_build(request, spec, schedule, target))
        assert entry.path is not None
        return entry.path

    paths: list[Path] = []
    # TVM and LLVM compile several kernels at once, without Python's lock.
    with environment.some_home(), ThreadPoolExecutor(environment.num_threads()) as pool:
        try:
            found = [pool.submit(path_of, *each) for each in chosen]
            for done, ((spec, _), path) in enumerate(zip(chosen, found, strict=True)):
                if progress is not None:
                    progress(done, len(chosen), spec)
                paths.append(path.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return paths

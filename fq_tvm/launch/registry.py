"""What this process has: the target, the kernels, and one memory of the launches that were prepared.

Warm paths import neither TVM's compiler nor anything that does.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import math
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__, environment
from ..errors import BuildError, FqError
from ..interruption import fork_safe_lock, unforked, uninterrupted
from ..operators import operator_of
from ..schedule import Schedule
from ..store import cache as store
from ..store import records
from ..target import Target, canonical, identify, question_of, this_cpu
from . import native
from .arguments import CheckedArguments, Gradient, Reduction
from .choose import Choice, Described, choose, constants_of, extents_of, schedule_for
from .kernel import OBJECT, SOURCES, EmptyLaunch, Kernel, Launch
from .runtime import compiler, find_or_build

MAX_LAUNCHES = 4096
"""Descriptions remembered at a time; a program that goes on to use more starts over."""

launches: dict[Any, Any] = {}
"""Launches, or what stands in for one, by what was called and the description of its arguments.

The only memory of launches.  A key begins with the name of what is called where that is not the function of
:mod:`fq_tvm.functional`; then follow dtype, shape and strides of each tensor, as its own framework gives them, so that
the key of a call that was seen costs next to nothing; then axis and range.
"""

_kernels: dict[tuple[Any, Target, Schedule, tuple[int, ...]], Kernel] = {}
_targets: dict[str, Target] = {}
_building = fork_safe_lock()

records.when_forgotten(launches.clear)


def remember(key: Any, launch: Any) -> Any:
    """Keep a launch, or what stands in for one, under a key; return it."""
    if len(launches) >= MAX_LAUNCHES:
        launches.clear()
    launches[key] = launch
    return launch


def launch_of(call: CheckedArguments | Gradient | Reduction) -> Launch | EmptyLaunch:
    """Return the launch for checked arguments: one that was prepared before for the same description, or a new one."""
    target = current_target()
    key = (target, *call.key)
    launch: Launch | EmptyLaunch | None = launches.get(key)
    return remember(key, prepare(call, target)) if launch is None else launch


@unforked
def prepare(
    call: Described, target: Target | None = None, schedule: Schedule | None = None, iteration: str | None = None
) -> Launch | EmptyLaunch:
    """Walk from checked arguments to a launch: choose, find the kernel, bind.

    Parameters
    ----------
    call : CheckedArguments or another operator's
        What was asked for.
    target, schedule, iteration
        See :func:`~fq_tvm.launch.choose.choose`; the target is :func:`current_target` by default.

    Returns
    -------
    Launch or EmptyLaunch

    Raises
    ------
    BuildError
        If there is no kernel and none can be built.
    """
    if 0 in call.shape:
        return EmptyLaunch()
    choice = choose(call, target or current_target(), schedule, iteration)
    return Launch(kernel_of(choice), choice)


@unforked
def get_kernel(
    spec: Any,
    target: Target | None = None,
    schedule: Schedule | None = None,
    shape: Sequence[int] | None = None,
    axis: int | None = None,
) -> Kernel:
    """Return the kernel of a specification: from memory, from the cache, or freshly built.

    Parameters
    ----------
    spec : FakeQuantSpec
        What to compute.
    target : Target, optional
        For which CPU; that of ``FQ_TVM_TARGET``, the one at hand by default.
    schedule : Schedule, optional
        How; by default the one that applies to tensors of the shape, or to those larger than caches.
    shape : sequence of int, optional
        Of a tensor: that of launches on such tensors, for which there may be a record of this shape.
    axis : int, optional
        Its channel dimension; by default the last one for lanes, else the one before, as :func:`~fq_tvm.tune` has it.

    Returns
    -------
    Kernel

    Raises
    ------
    BuildError
        If it cannot be built.
    CacheMissError
        If ``FQ_TVM_REQUIRE_CACHE`` is set and it is in no cache.
    FqError
        If the schedule is static and there is no shape, or a shape without this axis.
    """
    target = target or current_target()
    extents = () if shape is None else extents_of(spec, shape, axis)
    size = "memory" if shape is None else records.size_class_of(spec, math.prod(shape))
    schedule = schedule or schedule_for(spec, target, size, extents)
    if schedule.static and not extents:
        raise FqError("Schedule.static is 1, and no shape is given; expected one that the code is for: shape=, axis=")
    return _kernel(spec, target, schedule, extents)


def kernel_of(choice: Choice) -> Kernel:
    """Return the kernel that serves a call."""
    return _kernel(choice.spec, choice.target, choice.schedule, choice.layout.extents)


@unforked
def _kernel(spec: Any, target: Target, schedule: Schedule, extents: tuple[int, ...]) -> Kernel:
    """Return a kernel; the extents count where the schedule is static."""
    extents = extents if schedule.static else ()
    key = (spec, target, schedule, extents)
    if (kernel := _kernels.get(key)) is None:
        with _building:  # one thread builds; a second one that wants the same kernel finds it
            if (kernel := _kernels.get(key)) is None:
                kernel = _kernels[key] = Kernel(spec, schedule, target, _find_entry(spec, schedule, target, extents))
                environment.logger().debug("%s for %s from %s", spec.name, target.cpu, kernel.path or "memory")
    return kernel


def current_target() -> Target:
    """Return the target that ``FQ_TVM_TARGET`` names, the host by default; see :func:`find_target`."""
    return find_target(None)


@unforked
def find_target(name: str | None) -> Target:
    """Return a target: from memory, from the notes of artifacts or cache, or from LLVM.

    Parameters
    ----------
    name : str or None
        LLVM's name of a CPU of x86-64 or aarch64, e.g. ``"x86-64-v3"`` or ``"tsv110"``; ``"kunpeng-920"``;
        ``"armv8-a"`` for any CPU of aarch64; or ``"host"``.  None for what ``FQ_TVM_TARGET`` says.

    Returns
    -------
    Target
        Code for it can be built on this machine.  What this machine lacks to run it is :attr:`Target.missing`.

    Raises
    ------
    FqError
        If LLVM does not know the name.
    """
    name = canonical(name or environment.target_name())
    if name not in _targets:
        question = identify(name)
        cache, artifacts = store.tiers()
        target = next((t for tier in (artifacts, cache) if tier and (t := _recall(tier, name, question))), None)
        if target is None:
            target = uninterrupted(lambda: compiler("llvm").resolve(name))
            if question is not None and cache is not None:
                _try_to_remember(cache, question, target)
        _targets[name] = target
    return _targets[name]


def _recall(tier: store.Store, name: str, question: dict[str, Any] | None) -> Target | None:
    """Return a target by the notes of a tier: what was noted on this very CPU, or anywhere of one of this name."""
    if question is not None and (target := _target_of(tier.recall(question))) is not None:
        return target
    cpu = this_cpu() if name == "host" else name
    named = None if cpu is None else _target_of(tier.recall(question_of(cpu)))
    return None if named is None else named.here(as_host=name == "host")


def _target_of(answer: Any) -> Target | None:
    """Return the target that a note holds; None if there is no note, or one of a version that noted something else."""
    try:
        return Target.from_json(answer)
    except FqError:  # there is none, or it is damaged: LLVM knows better
        return None


def _try_to_remember(folder: store.Store, question: dict[str, Any], target: Target) -> None:
    try:
        folder.remember(question, target.to_json())
    except OSError as error:
        store.warn_once(folder, error)


@cache
def versions() -> dict[str, str]:
    """Return the versions that decide about generated code."""
    return {"fq_tvm": __version__, **{name: version(name) for name in ("apache-tvm", "apache-tvm-ffi")}}


@cache
def _generator(functions: str) -> str:
    """SHA-256 of what generates code, so that a change of it is never served by an old entry.

    That is the folder codegen/, the facts, which stand at the top, and the module that states an operator's functions.
    Some of that decides about no code: whoever changes it builds kernels anew, which costs less than a list that
    somebody forgets.
    """
    package: Any = Path(__file__).parents[1]
    if not package.is_dir():  # it lies in an archive
        package = importlib.resources.files(__name__.partition(".")[0])
    texts = [*_texts(package), *_texts(package / "codegen")]
    module, _, _ = functions.partition(":")
    if module.partition(".")[0] != __name__.partition(".")[0]:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise BuildError(f"the module {module} states functions of an operator and cannot be found")
        loader: Any = spec.loader
        texts.append(loader.get_data(spec.origin))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _texts(folder: Any) -> list[bytes]:
    """Return the source of each module of a folder, or its code where the source is not shipped."""
    files = sorted(folder.iterdir(), key=lambda file: file.name, reverse=True)  # x.pyc before x.py, which replaces it
    found = {file.name.partition(".")[0]: file for file in files if file.name.endswith((".py", ".pyc"))}
    return [found[name].read_bytes() for name in sorted(found)]


def request_of(spec: Any, schedule: Schedule, target: Target, extents: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the cache key of a kernel, less the hash of the TIR, which the rest determines.

    The extents are those of the loops of the one shape that a static schedule is for.
    """
    operator = operator_of(spec)
    constants = {"constants": constants_of(spec, target, schedule, extents)} if schedule.static and extents else {}
    return {
        "format": store.FORMAT,
        "operator": operator.name,
        "spec": spec.to_json(),
        "schedule": schedule.compiled,
        "target": target.identity(),
        "versions": versions(),
        "generator": _generator(operator.functions),
        "entry_points": store.digest(operator.entry_points(spec).to_json()),
        **constants,
    }


def _find_entry(spec: Any, schedule: Schedule, target: Target, extents: tuple[int, ...]) -> store.Entry:
    request = request_of(spec, schedule, target, extents)
    return find_or_build(request, lambda: build_entry(request, spec, schedule, target))


def build_entry(request: dict[str, Any], spec: Any, schedule: Schedule, target: Target) -> store.Entry:
    """Build a kernel as the entry of a request.

    Raises
    ------
    BuildError
        If it cannot be built.
    """
    environment.logger().info("building %s for %s", spec.name, target.cpu)
    constants = request.get("constants", {})
    code = uninterrupted(lambda: compiler("build").build(spec, schedule, target, constants))
    # now that the compiler is there: who finds the kernel shall not need it for what runs beside it
    native.entry(target.architecture)
    files = {SOURCES[kind]: getattr(code, kind).encode() for kind in SOURCES}
    return store.Entry(request, code.tir_hash, {OBJECT: code.object, **files})

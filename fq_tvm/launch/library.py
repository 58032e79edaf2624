"""Kernels built ahead of time, into a folder that travels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import environment
from ..operators import OPERATORS
from ..schedule import Schedule
from ..store import records
from ..store.cache import Store
from ..target import Target, canonical, identify, question_of
from . import native
from .choose import schedule_for
from .registry import build_entry, current_target, request_of


def build_library(
    directory: str | Path,
    specs: Iterable[Any] | None = None,
    target: Target | None = None,
    progress: Callable[[int, int, Any], None] | None = None,
) -> list[Path]:
    """Build kernels ahead of time into a directory that serves as ``FQ_TVM_ARTIFACTS_DIR``.

    Kernels that it already holds are kept.

    Parameters
    ----------
    directory : path
        Made if need be.
    specs : iterable of FakeQuantSpec, optional
        Those that each operator lists, as :func:`~fq_tvm.spec.catalogue` does, by default.
    target : Target, optional
        That of ``FQ_TVM_TARGET``, the CPU at hand by default.  :func:`fq_tvm.find_target` gives one by name, of another
        architecture, too: what such a machine has to know of its CPU lies in the directory, so that no process there
        needs the compiler.
    progress : callable, optional
        Called as ``progress(done, total, spec)`` before each kernel is waited for.

    Returns
    -------
    list of Path
        The entries, in the order of the specifications; several of one whose schedule depends on the tensor's size or
        shape.

    Raises
    ------
    BuildError
        If a kernel cannot be built.
    OSError
        If the directory cannot be written.
    """
    folder = Store(Path(directory).absolute())
    question = identify(canonical(environment.target_name())) if target is None else None
    target = target or current_target()
    if question is not None:
        folder.remember(question, target.to_json())
    if (named := target.everywhere()) is not None:
        folder.remember(question_of(target.cpu), named.to_json())
    chosen: list[tuple[Any, Schedule, tuple[int, ...]]] = []
    for spec in [spec for operator in OPERATORS for spec in operator.catalogue()] if specs is None else specs:
        of_sizes = [((), schedule_for(spec, target, size)) for size in records.SIZE_CLASSES]
        of_shapes = [(e if s.static else (), s) for e, s in records.shapes(spec, target).items()]
        different = {(extents, *s.compiled.items()): (spec, s, extents) for extents, s in (*of_sizes, *of_shapes)}
        chosen += different.values()

    def path_of(spec: Any, schedule: Schedule, extents: tuple[int, ...]) -> Path:
        request = request_of(spec, schedule, target, extents)
        entry = folder.find(request) or folder.put(build_entry(request, spec, schedule, target))
        assert entry.path is not None
        return entry.path

    if folder.find(native.request(target.architecture)) is None:
        folder.put(native.build(target.architecture))
    paths: list[Path] = []
    # TVM and LLVM compile several kernels at once, without Python's lock.
    with ThreadPoolExecutor(environment.num_threads()) as pool:
        try:
            found = [pool.submit(path_of, *each) for each in chosen]
            for done, ((spec, *_), path) in enumerate(zip(chosen, found, strict=True)):
                if progress is not None:
                    progress(done, len(chosen), spec)
                paths.append(path.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return paths

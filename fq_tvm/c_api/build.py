"""Writes a C library: kernels whose objects have names of their own, and the source that calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import environment
from ..interruption import uninterrupted
from ..launch.choose import schedule_for
from ..launch.registry import current_target, get_kernel, request_of
from ..launch.runtime import compiler
from ..operators import operator_of
from ..schedule import Schedule
from ..spec import catalogue, straight_through_catalogue
from ..store import records
from ..store.cache import digest
from ..store.files import make_folder, replacing
from ..target import Target
from .source import LAUNCHER, Code, Spec, asked_for, header, source


def build_c_library(
    directory: str | Path,
    specs: Iterable[Spec] | None = None,
    target: Target | None = None,
    progress: Callable[[int, int, Spec], None] | None = None,
) -> list[Path]:
    """Write kernels as a library that any C or C++ program can be linked with, without Python and without TVM.

    Parameters
    ----------
    directory : path
        Made if need be.  Gets ``fq_tvm.h``, which documents the functions, ``fq_tvm.c``, and an object for each kernel;
        files of these names are replaced, others stay.
    specs : iterable of FakeQuantSpec and StraightThroughSpec, optional
        By default the whole :func:`~fq_tvm.spec.catalogue`, whose formula is the contract's and which has a mask, and
        the gradient.  The library refuses calls that need any other kernel.
    target : Target, optional
        That of ``FQ_TVM_TARGET``, the CPU at hand by default.  The objects are for Linux, as the machine is.
    progress : callable, optional
        Called as ``progress(done, total, spec)`` before each kernel is waited for.

    Returns
    -------
    list of Path
        The header, the source and the objects.

    Raises
    ------
    FqError
        If there are no specifications, or the library has no function for one.
    BuildError
        If a kernel cannot be built, or the C source does not know what the contract of entry points asks for.
    OSError
        If the directory cannot be written.
    """
    target = target or current_target()
    specs = (*catalogue(), *straight_through_catalogue()) if specs is None else specs
    codes = [code for spec in specs for code in _codes(asked_for(spec), target)]
    # Before anything is compiled: whether there can be such a library.
    texts = {"fq_tvm.h": header(codes, target), "fq_tvm.c": source(codes, target)}
    folder = Path(directory).absolute()
    make_folder(folder)
    paths = [folder / name for name in texts]
    with ThreadPoolExecutor(environment.num_threads()) as pool:
        try:
            objects = [pool.submit(_object, code, target) for code in codes]
            for done, (code, made) in enumerate(zip(codes, objects, strict=True)):
                if progress is not None:
                    progress(done, len(codes), code.spec)
                paths.append(folder / f"{code.file}.o")
                with replacing(paths[-1], "wb") as file:
                    file.write(made.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for name, text in texts.items():  # last, as they promise what the objects have
        with replacing(folder / name) as file:
            file.write(text)
    return paths


def _codes(spec: Spec, target: Target) -> list[Code]:
    """Return the code of a kernel, or several where what is compiled of its schedule depends on the tensor's size."""
    by_code: dict[str, dict[float, Schedule]] = {}
    before: Schedule | None = None
    for name, most in records.SIZE_CLASSES.items():
        schedule = schedule_for(spec, target, name)
        schedules = by_code.setdefault(digest(request_of(spec, schedule, target)), {})
        if schedule == before:
            schedules.popitem()  # one row for both classes
        schedules[most] = before = schedule
    return [
        Code(
            spec,
            operator_of(spec).entry_points(spec),
            schedules,
            prefix=f"{spec.name}_{request[:8]}",
            file=f"{spec.name}_{number}" if number else spec.name,
        )
        for number, (request, schedules) in enumerate(by_code.items())
    ]


def _object(code: Code, target: Target) -> bytes:
    kernel = get_kernel(code.spec, target, next(iter(code.schedules.values())))

    def emit() -> bytes:
        ll = compiler("standalone").stand_alone(kernel.source("ll"), code.prefix, LAUNCHER)
        made: bytes = compiler("llvm").emit(ll)[0]
        return made

    return uninterrupted(emit)

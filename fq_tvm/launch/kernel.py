"""A compiled kernel, and a call of it that needs only addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from ..entry_points import SPREAD
from ..errors import ArgumentError, BuildError, FqError, LaunchError
from ..interruption import fork_safe_lock
from ..operators import operator_of
from ..schedule import Schedule
from ..store.cache import Entry
from ..target import Target
from . import threads
from .choose import Choice
from .plan import Call
from .runtime import Loaded, load

OBJECT = "kernel.o"
SOURCES = {"te": "kernel.te", "tir": "kernel.tir", "ll": "kernel.ll", "asm": "kernel.s"}
"""Files of an entry in the cache: the code, and by kind the texts."""


class Kernel:
    """A compiled kernel.

    Made by :func:`~fq_tvm.get_kernel`.

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

    def __init__(self, spec: Any, schedule: Schedule, target: Target, entry: Entry) -> None:
        self.spec, self.schedule, self.target, self.path = spec, schedule, target, entry.path
        self._files = entry.files
        self._functions: dict[str, Any] = {}
        self._load: dict[bool, Loaded] = {}
        self._loading = fork_safe_lock()

    def __repr__(self) -> str:
        return f"Kernel({self.spec.name}, {self.schedule}, {self.target.cpu})"

    def function(self, name: str) -> Any:
        """Return a function of the object code, by its name in the contract of entry points.

        Raises
        ------
        BuildError
            If the code cannot be loaded, or is for a CPU that has features which this one lacks.
        """
        if (function := self._functions.get(name)) is not None:
            return function
        if (target := self.target).missing:
            other = target.architecture in target.missing
            why = f"that is a CPU of {target.architecture}" if other else f"it lacks {', '.join(target.missing)}"
            raise BuildError(
                f"this CPU cannot run code for {target.cpu}: {why}. "
                "Unset FQ_TVM_TARGET, or set it to a CPU that this one can stand in for"
            )
        with self._loading:  # one thread loads; others that are at their first launch, too, find it
            # Loaded twice rather than not at all where there are no threads, and none can be built.
            spread = name.endswith(SPREAD)
            if spread not in self._load:
                loaded = load(self._files[OBJECT], *([threads.attachment()] if spread else []))
                if spread:
                    threads.attach(loaded)
                self._load[spread] = loaded
            return self._functions.setdefault(name, self._load[spread](name))

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
        return self._files[SOURCES[kind]].decode()


Bound = tuple[Any, Callable[[Sequence[Any]], Sequence[Any]] | None, tuple[float, ...]]
"""A loaded function, which of a launch's tensors it takes (None: all), and its numbers."""


class Launch:
    """One call of a kernel with everything but addresses bound.

    Parameters
    ----------
    kernel : Kernel
        What runs.
    choice : Choice
        How the call is served, by this kernel.

    Attributes
    ----------
    workspace_size : int
        Bytes that a call needs beside its tensors.
    """

    __slots__ = ("_serial", "_spreads", "_threaded", "choice", "kernel", "workspace_size")

    def __init__(self, kernel: Kernel, choice: Choice) -> None:
        self.kernel, self.choice = kernel, choice
        self.workspace_size = choice.plan.workspace_size
        self._serial = tuple(self._bind(call, call.serial) for call in choice.plan.calls)
        self._spreads = choice.plan.threaded
        self._threaded: tuple[Bound, ...] | None = None

    def _bind(self, call: Call, name: str) -> Bound:
        signature = operator_of(self.kernel.spec).entry_points(self.kernel.spec).tensors
        takes, all_of_them = call.form.tensors, (*signature, *(["workspace"] if self.workspace_size else []))
        pick = None if takes == all_of_them else itemgetter(*map(all_of_them.index, takes))
        return self.kernel.function(name), pick, call.numbers

    def _chosen(self, from_torch: bool) -> tuple[Bound, ...]:
        """Return the functions to call in the calling thread."""
        if not self._spreads or not threads.ready(from_torch):
            return self._serial
        if self._threaded is None:  # looked up when there are threads to spread the work over, not before
            self._threaded = tuple(self._bind(call, call.threaded) for call in self.choice.plan.calls)
        return self._threaded

    def __call__(self, *tensors: Any, from_torch: bool = False) -> None:
        """Run now, in this thread and others, see :mod:`fq_tvm.launch.threads`.

        Parameters
        ----------
        *tensors : tensor
            Those of the operator's signature, then the workspace if there is one.  Anything that tvm-ffi takes for a
            tensor; only the address is read.
        from_torch : bool
            Whether the call comes through torch.

        Raises
        ------
        ArgumentError
            If a tensor has no memory.
        LaunchError
            If the kernel reports another error.
        """
        bound = self._chosen(from_torch) if self._spreads else self._serial
        try:
            for function, pick, numbers in bound:
                if pick is None:
                    function(*tensors, *numbers)
                else:
                    function(*pick(tensors), *numbers)
        except Exception as error:
            if type(error) is ValueError and "has no memory" in str(error):  # what calling_convention.py asserts
                raise ArgumentError(str(error), "null") from error
            raise LaunchError(f"{self.kernel.spec.name} failed: {error}") from error

    def bare_calls(self, *tensors: Any, from_torch: bool = False) -> list[tuple[Any, tuple[Any, ...]]]:
        """Return the calls that :meth:`__call__` makes, as functions and arguments."""
        bound = self._chosen(from_torch)
        return [(f, (*(tensors if pick is None else pick(tensors)), *numbers)) for f, pick, numbers in bound]


class EmptyLaunch:
    """The call for tensors without elements: it needs no kernel and does nothing."""

    workspace_size = 0

    def __call__(self, *tensors: Any, from_torch: bool = False) -> None:
        """Do nothing."""

"""The tuner's other process: builds contenders, checks each bit for bit, and times them in turns.

``python -m fq_tvm.tuning.trial`` reads one JSON request a line and answers each with a line.  What a candidate breaks,
it breaks here.  With a tracker's address the same is done on another machine through :mod:`tvm.rpc`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import random
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from .. import bench, environment
from ..bench.timing import MIN_ROUNDS, sweeper
from ..errors import FqError
from ..launch.buffers import empty_like, on_memory
from ..launch.choose import constants_of
from ..launch.registry import current_target, prepare
from ..operators import operator_of, spec_of
from ..schedule import Schedule
from ..target import PORTABLE
from .jobs import launch_of
from .subjects import arrays_of, call_on, subject_of

SESSION_SECONDS = 3600
"""How long a server serves one session, so that it outlives whoever holds it and is gone; another session goes on."""

SWEPT_BYTES = 2**26
"""How much another machine moves between turns, so that tensors are read from memory: twice a last-level cache."""

CASES_IN_MEMORY = 3
"""How many cases the process keeps the tensors of."""


@dataclass(frozen=True)
class Contender:
    """A kernel in one schedule."""

    spec: Any
    schedule: Schedule


@dataclass(frozen=True)
class Turns:
    """How contenders are timed.

    Parameters
    ----------
    seconds : float
        How long, about; there are five rounds at least.
    tensors : {"caches", "memory"}
        Where tensors are when a turn begins: where the turn before left them, or swept out of the caches.
    copy : bool
        Whether a plain copy of x has turns, too, where the place has one.
    seed : int
        Of the order of turns.
    """

    seconds: float
    tensors: str = "caches"
    copy: bool = False
    seed: int = 0


class Bench:
    """The tensors of a case for kernels of some dtypes, and what has to come out."""

    def __init__(self, case: bench.Case, spec: Any) -> None:
        self.case = case
        self.inputs, self.outputs = arrays_of(case, spec)
        expected = subject_of(spec, case.axis).results(*self.inputs)
        for into, value in zip(self.outputs, expected, strict=False):
            into[...] = value
        self.expected = self.results()[: len(expected)]
        """A digest of each result; of those that the reference does not know, that of the first kernel."""
        self.calls: dict[Contender, Callable[..., Any]] = {}
        """What was prepared and checked on these tensors."""
        self.sent: Any = None
        """The same tensors on another machine."""

    def spoil(self) -> None:
        """Overwrite the results, so that old ones are not taken for new ones."""
        for array in self.outputs:
            flat(array).view(np.uint8).fill(0xA5)

    def results(self) -> list[bytes]:
        """Return a digest of every bit of each result."""
        return [hashlib.blake2b(flat(array).view(np.uint8).data).digest() for array in self.outputs]

    def check(self, spec: Any) -> None:
        """Compare the results with the reference, and sums with those of the first kernel.

        Raises
        ------
        FqError
            If a bit differs.
        """
        results = self.results()
        self.expected += results[len(self.expected) :]
        if results != self.expected:
            raise FqError(f"{spec.name} gives another result than the reference for {self.case.name}")


def flat(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """View the memory from the first to the last element of an array without negative strides."""
    span = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) // array.itemsize + 1
    return np.lib.stride_tricks.as_strided(array, (span,), (array.itemsize,))


class Local:
    """Measures in this process, on this machine."""

    def __init__(self) -> None:
        self.target = current_target()
        """The CPU that code is generated for."""
        self.machine = platform.node()
        """Its name, for whoever reads what was measured there."""

    def alive(self) -> bool:
        """Whether more can be measured here."""
        return True

    def renew(self) -> None:
        """Load kernels anew; the tuner starts another process instead."""

    def prepare(self, at: Bench, contender: Contender) -> Callable[[], Any]:
        """Build, run and check a contender; return its call."""
        spec = contender.spec
        described, operands = call_on((*at.inputs, *at.outputs), at.case, spec)
        call = on_memory(prepare(described, self.target, contender.schedule, spec.iteration), operands)
        at.spoil()
        call()
        at.check(spec)
        return call

    @property
    def regime(self) -> dict[str, Any]:
        """The threads that launches use."""
        return {"threads": environment.num_threads(), "layer": environment.threading_layer()}

    def time(self, at: Bench, contenders: Sequence[Contender], turns: Turns) -> dict[str, list[float]]:
        """Time contenders, by their number, and a copy in turns."""
        for contender in contenders:
            if contender not in at.calls:
                at.calls[contender] = self.prepare(at, contender)
        calls = {str(i): at.calls[contender] for i, contender in enumerate(contenders)}
        if turns.copy:
            x = at.inputs[0]
            calls["copy"] = bench.copy(x, empty_like(x, x.dtype))
        sweep = sweeper() if turns.tensors == "memory" else None
        return bench.interleave(calls, turns.seconds, sweep, math.inf, turns.seed)


class Remote:
    """Measures on another machine, through a tracker of :mod:`tvm.rpc`.

    Code travels as LLVM IR, which the compiler library of the other machine turns into code: neither side needs a C
    compiler or a linker.

    Parameters
    ----------
    host, port : str, int
        Of the tracker.
    key : str
        Of the server at the tracker.
    """

    def __init__(self, host: str, port: int, key: str) -> None:
        try:
            self.session, self.machine = _request(host, port, key)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise FqError(f"no machine {key!r} at the tracker {host}:{port}: {reason}") from error
        from ..codegen.llvm import resolve

        self.session.get_function("runtime.config_threadpool")(1, environment.num_threads())
        self.device = self.session.cpu()
        self._sent: dict[Contender, Any] = {}
        if (name := environment.target_name()) == "host":
            name = str(self.session.get_function("target.llvm_get_system_cpu")())
            if name == "generic" and "aarch64" in str(self.session.get_function("target.llvm_get_system_triple")()):
                name = PORTABLE  # that name may be another CPU's here
        self.target = resolve(name)
        """The CPU that ``FQ_TVM_TARGET`` names, the other machine's by default."""

    def alive(self) -> bool:
        """Whether the server still answers."""
        try:
            self.session.get_function("runtime.config_threadpool")
        except Exception:  # whatever TVM makes of a connection that is gone
            return False
        return True

    def renew(self) -> None:
        """Load kernels anew, to other places in memory."""
        self._sent.clear()

    def module(self, contender: Contender, extents: tuple[int, ...]) -> Any:
        """Build a kernel here and load it there; the extents are those of the one shape of a static schedule."""
        if contender not in self._sent:
            from ..codegen.build import lower
            from ..codegen.llvm import translate

            spec, schedule, target = contender.spec, contender.schedule, self.target
            name = f"kernel{len(self._sent)}.ll"
            lowered = lower(spec, schedule, target, constants_of(spec, target, schedule, extents))
            self.session.upload(bytearray(translate(lowered, schedule, target).encode()), name)
            self._sent[contender] = self.session.load_module(name)
        return self._sent[contender]

    @property
    def regime(self) -> dict[str, Any]:
        """The threads that kernels use there, which are TVM's, and the server."""
        return {"threads": environment.num_threads(), "layer": "tvm", "machine": self.machine}

    def time(self, at: Bench, contenders: Sequence[Contender], turns: Turns) -> dict[str, list[float]]:
        """Time contenders, by their number, in turns; the time of the way there does not count."""
        # a copy is torch's or numpy's, which the other machine need not have
        import tvm

        if at.sent is None:
            at.sent = [
                tvm.runtime.tensor(np.ascontiguousarray(flat(array)), self.device)
                for array in (*at.inputs, *at.outputs)
            ]
        results = at.sent[len(at.inputs) :]
        for contender in contenders:
            if contender in at.calls:
                continue
            at.spoil()
            for array, tensor in zip(at.outputs, results, strict=True):
                tensor.copyfrom(np.ascontiguousarray(flat(array)))
            call = self._call(at, contender)
            call(False)
            for array, tensor in zip(at.outputs, results, strict=True):
                flat(array)[...] = tensor.numpy()
            at.check(contender.spec)
            at.calls[contender] = call
        order = list(enumerate(contenders))
        times: dict[str, list[float]] = {str(number): [] for number, _ in order}
        shuffle, end = random.Random(turns.seed).shuffle, time.perf_counter() + turns.seconds
        while time.perf_counter() < end or len(times["0"]) < MIN_ROUNDS:
            shuffle(order)
            for number, contender in order:
                at.calls[contender](False)  # brings caches and threads back to this contender
                times[str(number)].append(at.calls[contender](turns.tensors == "memory"))
        return times

    def _call(self, at: Bench, contender: Contender) -> Callable[[bool], float]:
        """Return what runs a contender there and says how long it took, perhaps with the caches swept before."""
        import tvm

        # A worker measures static schedules on the one case of a job alone.
        launch = launch_of(at.case, contender.spec, contender.schedule, self.target)
        module, plan = self.module(contender, launch.layout.extents), launch.plan
        workspace = tvm.runtime.empty((max(plan.workspace_size, 1),), "uint8", self.device)
        signature = operator_of(contender.spec).entry_points(contender.spec).tensors
        places = dict(zip((*signature, "workspace"), (*at.sent, workspace), strict=True))
        calls: dict[bool, list[Any]] = {False: [], True: []}
        for call in plan.calls:
            name = call.threaded if plan.threaded else call.serial
            arguments = (*(places[tensor] for tensor in call.form.tensors), *call.numbers)
            for sweep, timed in calls.items():
                # what the call before made is read from where that left it
                flushed = SWEPT_BYTES if sweep and not timed else 0
                evaluator = module.time_evaluator(name, self.device, number=1, cache_flush_bytes=flushed)
                timed.append((evaluator, arguments))
        return lambda sweep: sum(evaluator(*arguments).mean for evaluator, arguments in calls[sweep])


def _request(host: str, port: int, key: str) -> tuple[Any, str]:
    """Ask a tracker for a server, for as long as all are busy; return the session and the server's address.

    What :meth:`tvm.rpc.TrackerSession.request` does, which keeps to itself whom it was given.
    """
    rpc, base = environment.import_tvm("tvm.rpc"), environment.import_tvm("tvm.rpc.base")
    socket.create_connection((host, port), timeout=10).close()  # TVM itself would try for a minute
    tracker = rpc.connect_tracker(host, port)
    try:
        base.sendjson(tracker._sock, [base.TrackerCode.REQUEST, key, "", 1])
        status, server = base.recvjson(tracker._sock)
    finally:
        tracker.close()
    if status != base.TrackerCode.SUCCESS:
        raise RuntimeError(f"the tracker answers {status}")
    url, its_port, match_key = server
    return rpc.connect(url, its_port, match_key, session_timeout=SESSION_SECONDS), f"{url}:{its_port}"


def serve(place: Local | Remote, request: Mapping[str, Any], benches: OrderedDict[str, Bench]) -> Any:
    """Answer a request.

    Parameters
    ----------
    place : Local or Remote
        Where to measure.
    request : mapping
        ``{"ask": "target"}``, ``{"ask": "machine"}``, ``{"ask": "renew"}``, or ``{"ask": "time", "case": ...,
        "contenders": [...]}`` with the fields of :class:`Turns`.
    benches : OrderedDict
        Tensors that are kept between requests, the last used last.

    Returns
    -------
    dict or str
        The target; the machine's name; or ``times``, the seconds of each round by contender's number and perhaps
        ``"copy"``, and ``regime``.
    """
    if request["ask"] == "target":
        return place.target.to_json()
    if request["ask"] == "machine":
        return place.machine
    if request["ask"] == "renew":
        benches.clear()
        return place.renew()
    contenders = [
        Contender(spec_of(c["operator"], c["spec"]), Schedule.from_json(c["schedule"])) for c in request["contenders"]
    ]
    case = bench.Case.from_json(request["case"])
    spec = contenders[0].spec
    key = f"{case.name} {replace(spec, iteration='rows').name}"
    if key not in benches:
        while len(benches) >= CASES_IN_MEMORY:
            benches.popitem(last=False)
        benches[key] = Bench(case, spec)
    benches.move_to_end(key)
    turns = Turns(**{f.name: request[f.name] for f in fields(Turns) if f.name in request})
    times = place.time(benches[key], contenders, turns)
    return {"times": times, "regime": {"tensors": turns.tensors, **place.regime}}


def main(argv: Sequence[str] | None = None) -> None:
    """Serve requests from standard input until it ends."""
    parser = argparse.ArgumentParser(prog="fq_tvm.tuning.trial")
    parser.add_argument("--rpc", metavar="HOST:PORT")
    parser.add_argument("--key", default="")
    arguments = parser.parse_args(argv)
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    bench.quiet_threads()
    benches: OrderedDict[str, Bench] = OrderedDict()
    place: Local | Remote | None = None
    for line in sys.stdin:
        try:
            if place is None:
                host, _, port = (arguments.rpc or "").rpartition(":")
                place = Remote(host, int(port), arguments.key) if arguments.rpc else Local()
            answer: dict[str, Any] = {"answer": serve(place, json.loads(line), benches)}
        except Exception as error:
            lost = place is not None and not place.alive()
            answer = {"lost" if lost else "error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

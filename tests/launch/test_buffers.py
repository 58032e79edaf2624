"""The workspace of a thread: never that of two calls at a time, and not larger for ever than calls need."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest
from support import assert_same, expected, make

import fq_tvm
from fq_tvm import fake_quantize_per_channel_affine_cachemask as fake_quant
from fq_tvm.launch import buffers, kernel, registry
from fq_tvm.launch.runtime import AddressTensor


@pytest.fixture(params=["numpy", "torch", "torch operator", "enabled"])
def call(request):
    """A call with one workspace, as (out, mask) of numpy from arrays, through each door."""
    if request.param == "numpy":
        yield fake_quant
        return
    torch = pytest.importorskip("torch")
    doors = {"torch": fake_quant, "enabled": torch.ops.aten.fake_quantize_per_channel_affine_cachemask}
    import fq_tvm.torch

    doors["torch operator"] = fq_tvm.torch.fake_quantize_per_channel_affine_cachemask

    def through(x, scale, zero_point, *numbers):
        given = (torch.from_numpy(a) for a in (x, scale, zero_point))
        return [t.numpy() for t in doors[request.param](*given, *numbers)]

    if request.param == "enabled":
        with fq_tvm.torch.enabled():
            yield through
    else:
        yield through


def cases(specials=False):
    rng = np.random.default_rng(5)
    found = [(*make(rng, (64, 300), 1, specials=specials), 1, -128, 127) for _ in range(2)]
    return [(given, expected(*given)) for given in found]


def test_a_call_between_two_functions_of_another_has_a_workspace_of_its_own(call):
    (given, want), (others, others_want) = cases()
    registry.launches.clear()
    call(*given)
    prepared = {id(v): v for v in registry.launches.values() if getattr(v, "workspace_size", 0)}
    (launch,) = prepared.values()
    inside = []

    def interrupted(function):
        def run(*arguments):
            if not inside:
                inside.append(None)
                inside.append(call(*others))
            return function(*arguments)

        return run

    assert len(launch._serial) > 1
    launch._serial = tuple((interrupted(f) if i else f, *rest) for i, (f, *rest) in enumerate(launch._serial))
    launch._spreads = False
    try:
        assert_same(call(*given), want)
        assert_same(inside[1], others_want)
        inside.clear()
        assert_same(call(*given), want)
    finally:
        registry.launches.clear()


@pytest.mark.skipif(
    not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread(), reason="no timer"
)
def test_calls_of_a_signal_handler_change_no_result():
    (given, want), (others, _) = cases()
    fake_quant(*others)
    before = signal.signal(signal.SIGALRM, lambda *_: fake_quant(*others))
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert_same(fake_quant(*given), want)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_error_gives_the_workspace_back():
    (given, want), _ = cases()
    fake_quant(*given)
    kept = buffers.workspace.kept
    launch = next(v for v in registry.launches.values() if getattr(v, "workspace_size", 0))
    with pytest.raises(fq_tvm.ArgumentError, match="out has no memory"):
        buffers.run(launch, *given[:3], AddressTensor(0), AddressTensor(0))
    assert buffers.workspace.kept is kept
    assert_same(fake_quant(*given), want)


def test_the_workspace_of_one_odd_call_does_not_stay():
    def run(channels):
        x = np.ones((16, channels), "f4")
        fake_quant(x, np.ones(channels, "f4"), np.zeros(channels, "i4"), 1, -8, 7)
        return buffers.workspace.kept[1]

    run(2**18)
    assert buffers.workspace.kept[1] > buffers.LARGE_BYTES
    assert run(300) < buffers.LARGE_BYTES
    kept = buffers.workspace.kept
    for channels in (400, 300, 350):
        run(channels)
    assert buffers.workspace.kept[1] < buffers.LARGE_BYTES and kept[1] < buffers.LARGE_BYTES


def interrupting(monkeypatch, place, name, call):
    """Let a function call something first, once, as a signal handler may at any time."""
    inside, original = [], getattr(place, name)

    def interrupted(*arguments, **keywords):
        if not inside:
            inside.append(None)
            inside.append(call())
        return original(*arguments, **keywords)

    monkeypatch.setattr(place, name, interrupted)
    return inside


def in_time(call):
    """Run in a thread that may wait for ever."""
    done = []
    thread = threading.Thread(target=lambda: done.append(call()), daemon=True)
    thread.start()
    thread.join(30)
    assert done, "it waits for a lock that its own thread holds"
    return done[0]


def test_a_call_while_its_own_thread_loads_the_kernel(monkeypatch):
    (given, want), _ = cases()
    registry.launches.clear()
    monkeypatch.setattr(registry, "_kernels", {})
    inside = interrupting(monkeypatch, kernel, "load", lambda: fake_quant(*given))
    assert_same(in_time(lambda: fake_quant(*given)), want)
    assert_same(inside[1], want)


def test_a_launch_while_its_own_thread_takes_the_executor(monkeypatch):
    from fq_tvm import aclnn

    (given, want), _ = cases()
    results = np.empty_like(given[0]), np.empty(given[0].shape, bool)
    size, executor = aclnn.get_workspace_size(*given, *results)
    aclnn.aclSetAclOpExecutorRepeatable(executor)

    def launch():
        return aclnn.aclnnFakeQuantPerChannelAffineCachemask(np.empty(size, np.uint8), size, executor, None)

    inside = interrupting(monkeypatch, aclnn.AclOpExecutor, "_bind", launch)
    assert in_time(launch) == inside[1] == aclnn.AclnnStatus.ACLNN_SUCCESS
    assert_same(results, want)

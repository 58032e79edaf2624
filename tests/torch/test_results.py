"""Large results: memory that is used again, never while somebody has it, and otherwise as that of aten's results."""

from __future__ import annotations

import copy
import ctypes
import gc
import io
import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import multiprocessing

import fq_tvm.torch
from fq_tvm.torch import results
from fq_tvm.torch.results import LOOK_EVERY, LOOKS, Pool

SIZE = 2**16


def filled(storage, value):
    return torch.empty(0, dtype=torch.uint8).set_(storage).fill_(value)


def test_memory_that_is_gone_serves_the_next():
    pool = Pool(16 * SIZE)
    first = filled(pool.storage(SIZE), 7)
    place = first.data_ptr()
    assert pool.kept == 0
    del first
    assert pool.kept == SIZE
    assert pool.storage(SIZE).data_ptr() == place


@pytest.mark.parametrize(
    "keep",
    [
        lambda t: t[10:20].view(torch.int16),
        lambda t: t.numpy()[3:],
        lambda t: memoryview(t.numpy()),
        lambda t: t.untyped_storage(),
        lambda t: t.__dlpack__(),
        lambda t: torch.from_dlpack(t),
        lambda t: t.detach(),
        lambda t: torch.utils.data.TensorDataset(t),
        lambda t: torch._lazy_clone(t),
    ],
    ids=["view", "numpy", "memoryview", "storage", "capsule", "dlpack", "detach", "dataset", "lazy clone"],
)
def test_memory_that_somebody_has_is_not_used_again(keep):
    pool = Pool(16 * SIZE)
    tensor = filled(pool.storage(SIZE), 3)
    place = tensor.data_ptr()
    kept = keep(tensor)
    del tensor
    filled(pool.storage(SIZE), 255)
    if isinstance(kept, torch.Tensor):
        assert set(kept.reshape(-1).view(torch.uint8).tolist()) == {3}
    assert ctypes.string_at(place, SIZE) == b"\3" * SIZE
    del kept
    gc.collect()


def test_memory_that_autograd_has_is_not_used_again():
    pool = Pool(16 * SIZE)
    leaf = torch.ones(SIZE // 4, requires_grad=True)
    factor = torch.empty(0).set_(pool.storage(SIZE)).fill_(3)
    out = (leaf * factor).sum()
    del factor
    filled(pool.storage(SIZE), 255)
    out.backward()
    assert set(leaf.grad.tolist()) == {3.0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_has_memory_of_its_own():
    pool = Pool(16 * SIZE)
    used, free = filled(pool.storage(SIZE), 7), filled(pool.storage(2 * SIZE), 7)
    del free
    child = os.fork()
    if not child:
        used.numpy()[:] = 1
        ctypes.memset(pool.storage(2 * SIZE).data_ptr(), 1, 2 * SIZE)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert set(used.tolist()) == {7}
    assert set(torch.empty(0, dtype=torch.uint8).set_(pool.storage(2 * SIZE)).tolist()) == {7}


@pytest.mark.parametrize("most", [0, SIZE, 5 * SIZE])
def test_no_more_is_kept_than_allowed_and_the_oldest_goes_first(most):
    pool = Pool(most)
    storages = [pool.storage(SIZE * n) for n in (1, 2, 3)]
    places = [s.data_ptr() for s in storages]
    del storages
    pool.storage(SIZE // 2)
    assert pool.kept <= most
    if most == 5 * SIZE:
        assert pool.storage(3 * SIZE).data_ptr() == places[2]
    pool.clear()
    assert pool.kept == 0


def test_what_nobody_asks_for_any_more_is_given_up():
    pool = Pool(2**30)
    pool.storage(2**26)
    assert pool.kept == 2**26
    for _ in range(LOOK_EVERY * (LOOKS + 1)):
        pool.storage(SIZE)
    assert pool.kept <= 2 * SIZE


def test_batches_of_ever_other_lengths_keep_little():
    pool = Pool(2**30)
    for n in range(20, 60):
        out, mask = pool.storage(4 * n * SIZE), pool.storage(n * SIZE)
        assert pool.kept <= 5 * n * SIZE
        del out, mask
    assert pool.kept <= 2 * 5 * 60 * SIZE


def test_layers_of_some_sizes_find_their_memory_again():
    """As many sizes as networks have, each result gone before the next: halves, as layers that pool have."""
    pool, sizes = Pool(2**30), [2**n for n in range(16, 22)]
    first = [pool.storage(size).data_ptr() for size in reversed(sizes)]
    for _ in range(30):
        assert [pool.storage(size).data_ptr() for size in reversed(sizes)] == first


def test_threads_never_share_memory():
    pool, faults = Pool(64 * SIZE), []

    def work(mark):
        for _ in range(100):
            tensors = [filled(pool.storage(SIZE), mark) for _ in range(3)]
            if any((t != mark).any() for t in tensors):
                faults.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert pool.kept <= 64 * SIZE


def test_a_request_within_a_request_gets_memory_of_its_own(monkeypatch):
    """As of a signal handler or a finalizer."""
    pool = Pool(16 * SIZE)
    filled(pool.storage(SIZE), 1)
    inside = []
    is_whole = results._Block.is_whole

    def interrupted(block):
        if not inside:
            inside.append(filled(pool.storage(SIZE), 2))
        return is_whole(block)

    monkeypatch.setattr(results._Block, "is_whole", interrupted)
    tensor = filled(pool.storage(SIZE), 3)
    assert set(inside[0].tolist()) == {2}
    assert tensor.data_ptr() != inside[0].data_ptr()


@pytest.mark.skipif(sys.platform != "linux", reason="there are no such pages")
def test_advice_that_is_refused_is_ignored(monkeypatch):
    asked = []

    class NoHugePages:
        def __init__(self, name):
            pass

        def madvise(self, first, length, advice):
            asked.append((first.value % 4096, advice))
            return -1

    monkeypatch.setattr(results.ctypes, "CDLL", NoHugePages)
    assert set(filled(Pool(SIZE).storage(SIZE), 3).tolist()) == {3}
    assert asked == [(0, 14)]


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_the_pool_yields_before_memory_is_out():
    code = """
import resource, torch, fq_tvm.torch
torch.set_num_threads(1)
s, z = torch.full((4,), .01), torch.zeros(4, dtype=torch.int32)
fq = fq_tvm.torch.fake_quantize_per_channel_affine
x = torch.ones(4, 1)
fq(x.expand(4, 2**16), s, z, 0, -128, 127)
here = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (here + 350 * 2**20,) * 2)
for n in range(20, 45, 4):
    fq(x.expand(4, n * 2**17), s, z, 0, -128, 127)
fq(x.expand(4, 26 * 2**19), s, z, 0, -128, 127)  # no room but in place of what waits
try:
    fq(x.expand(4, 2**28), s, z, 0, -128, 127)
except MemoryError as error:
    assert "4294967296 bytes" in str(error)
else:
    raise AssertionError
fq(x.expand(4, 44 * 2**17), s, z, 0, -128, 127)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_small_results_get_what_the_pool_keeps(monkeypatch):
    x = torch.ones(8)
    kept = results.pool.storage(2**20).data_ptr()
    assert kept and results.pool.kept
    make = torch.empty_like

    def scarce(*arguments, **keywords):
        if results.pool.kept:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return make(*arguments, **keywords)

    monkeypatch.setattr(results, "empty_like", scarce)
    assert results.result_like(x, torch.bool).shape == x.shape


def storage_grows(t):
    t.untyped_storage().resize_(2 * t.untyped_storage().nbytes())
    return t.untyped_storage().nbytes(), t.sum()


def storage_goes_and_comes(t):
    """As sharded training does with parameters."""
    size = t.untyped_storage().nbytes()
    t.untyped_storage().resize_(0)
    empty = t.untyped_storage().nbytes()
    t.untyped_storage().resize_(size)
    return empty, t.fill_(3).sum()


def pickled(t):
    file = io.BytesIO()
    torch.save(t, file)
    file.seek(0)
    return torch.load(file)


def through_a_queue(t):
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    queue.put(t[0, :100])
    return queue.get(), t.is_shared()


OPERATIONS = {
    "as it is": lambda t: (
        t, t.stride(), t.storage_offset(), t._version, t._is_view(), t._base, t.is_leaf, t.is_inference(),
        t.untyped_storage().nbytes(), t.untyped_storage().resizable(), t.is_shared(), t.is_pinned(), t.grad_fn,
        t.untyped_storage().filename, t.data_ptr() % 64, type(t.untyped_storage()), t.requires_grad,
    ),
    "resize_ larger": lambda t: t.resize_(2 * t.shape[0], t.shape[1])[: t.shape[0] // 2].clone(),
    "resize_ smaller": lambda t: (t.resize_(3, 4), t.untyped_storage().nbytes()),
    "resize_as_": lambda t: t.resize_as_(torch.empty(5, 2**19, dtype=t.dtype))[0, :9].clone(),
    "storage grows": storage_grows,
    "storage goes and comes": storage_goes_and_comes,
    "share_memory_": lambda t: (t.share_memory_(), t.is_shared(), t.untyped_storage().is_shared()),
    "a queue": through_a_queue,
    "set_": lambda t: (t.set_(torch.arange(6.0).to(t.dtype).untyped_storage(), 0, (2, 3)), t._version),
    "set_ of another": lambda t: torch.empty(0, dtype=t.dtype).set_(t),
    "data": lambda t: (setattr(t, "data", torch.ones(3, dtype=t.dtype)), t),
    "in place": lambda t: (t.logical_not_(), t._version, t.t_().shape, t.unsqueeze_(0).shape),
    "detach_": lambda t: t.detach_(),
    "deepcopy": lambda t: copy.deepcopy(t),
    "copy": lambda t: copy.copy(t),
    "pickle": pickled,
    "numpy": lambda t: (t.numpy().flags.writeable, t.numpy().sum(), t.numpy().base is None),
    "dlpack": lambda t: torch.from_dlpack(t),
    "requires_grad_": lambda t: t.requires_grad_() if t.dtype.is_floating_point else None,
    "swap": lambda t: torch.utils.swap_tensors(t, torch.ones(3, dtype=t.dtype)),
    "view dtype": lambda t: t.view(torch.uint8).shape,
    "byte_": lambda t: t.untyped_storage()[5],
    "fill_": lambda t: t.untyped_storage().fill_(1).nbytes(),
    "clone of the storage": lambda t: t.untyped_storage().clone().nbytes(),
}  # fmt: skip


def outcome(operation, tensor):
    """What an operation gives, in a form that can be compared."""

    def plain(value):
        if isinstance(value, torch.Tensor):
            return value.dtype, value.shape, value.stride(), value.requires_grad, value.is_shared(), hash_of(value)
        return tuple(map(plain, value)) if isinstance(value, tuple) else value

    try:
        return plain(operation(tensor))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def hash_of(tensor):
    return hash(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())


@pytest.mark.parametrize("reused", [False, True], ids=["new", "used again"])
@pytest.mark.parametrize("door", ["operator", "dispatcher", "enabled"])
def test_large_results_are_as_those_of_aten(door, reused):
    x = torch.linspace(-3, 3, 2**20).reshape(16, 2**16)
    given = (x, torch.full((16,), 0.02), torch.zeros(16, dtype=torch.int32), 0, -128, 127)
    aten = torch.ops.aten.fake_quantize_per_channel_affine_cachemask
    ours = {
        "operator": fq_tvm.torch.fake_quantize_per_channel_affine_cachemask,
        "dispatcher": torch.ops.fq_tvm.fake_quantize_per_channel_affine_cachemask,
        "enabled": aten,
    }[door]
    for which in range(2):
        for name, operation in OPERATIONS.items():
            want = outcome(operation, aten(*given)[which])
            with fq_tvm.torch.enabled() if door == "enabled" else torch.no_grad():
                if reused:
                    ours(*given)
                else:
                    results.pool.clear()
                got = outcome(operation, ours(*given)[which])
            assert got == want, (name, which)
    again, fresh = ours(*given), aten(*given)  # whatever was done, the pool hands out what is whole
    assert all(torch.equal(a, b) for a, b in zip(again, fresh, strict=True))

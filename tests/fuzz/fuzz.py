"""What comes from outside, mutated: it is parsed to something valid, or refused with the project's own error.

    python tests/fuzz/fuzz.py --seconds 600 [TARGET ...]

Each target has a folder of small inputs in ``corpus/``; mutations of them that are answered in a new way join them
while it runs.  An input that fails is written there, so that ``tests/fuzz/test_fuzz.py`` has it from then on.  Targets
run in processes of their own, as an input may end one.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import hashlib
import io
import json
import math
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import assert_same, bits, expected

import fq_tvm
from fq_tvm import FqError, aclnn
from fq_tvm.cli.cache import _describe_entry
from fq_tvm.cli.tune import _show
from fq_tvm.store import records
from fq_tvm.store.cache import Store, digest
from fq_tvm.target import Target
from fq_tvm.tuning.log import FORMAT, LoggedSearch, searches
from fq_tvm.weights.files import open_tensors, unfit, write_npz

CORPUS = Path(__file__).with_name("corpus")

MEGABYTES = 400
"""That a target may take beyond what it had at first: every input is small."""

DRAWN = 101
"""One log in so many is drawn, which takes a fifth of a second."""

HANG = 20
"""Seconds that an input may take."""

TOKENS = [b"[" * 2000, b"{", b"]", b'""', b"null", b"NaN", b"-1", b"1e999", b"9" * 30, b"true", b'"\\ud800"', b"../x"]
TOKENS += [
    b"True",
    b"(",
    b"'|O'",
    b"'<f2'",
    b"'>f4'",
    b"0",
    b"4294967296",
    b"\xff" * 8,
    bytes(8),
    b"\x00",
    b"PK\x01\x02",
]


def mutate(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Flip, cut, insert, repeat and splice, mostly at the beginning and the end, where headers are."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        place = min(rng.randrange(len(made) + 1), rng.choice([160, len(made)]))
        place = rng.choice([place, max(len(made) - place, 0)])
        length = rng.choice([1, 1, 2, 4, 8, 40])
        kind = rng.randrange(6)
        if kind == 0 and place < len(made):
            made[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del made[place : place + length]
        elif kind == 2:
            made[place:place] = rng.randbytes(length)
        elif kind == 3:
            made[place : place + rng.choice([0, length])] = rng.choice(TOKENS)
        elif kind == 4:
            made[place:place] = made[max(place - length, 0) : place + length]
        elif other:
            start = rng.randrange(len(other))
            made[place : place + length] = other[start : start + length]
    return bytes(made)


def fuzz_record(data: bytes, folder: Path) -> str:
    path = folder / "znver4.json"
    path.write_bytes(data)
    content = records.read(path)
    records.write(path, content)
    again = records.read(path)
    assert again == content
    assert json.dumps(again.to_json()) == json.dumps(content.to_json())
    records.merge(content, again)
    return f"{len(content.records)} records"


def fuzz_entry(data: bytes, folder: Path) -> str:
    """The request of meta.json is what the entry's place comes from, where it has one."""
    store, request = Store(folder), {}
    try:
        meta = json.loads(data)
        request = {k: v for k, v in meta["key"].items() if k != "tir"}
        place = (digest(request), meta["key"]["tir"])
        assert "/" not in place[1]
        assert place[1].strip(".")
        assert len(place[1]) < 99
        "\0".join(place).encode()
    except Exception:
        place = ("0" * 64, "tir")
    entry = folder / "v1" / "kernels" / place[0] / place[1].replace("\0", "")
    entry.mkdir(parents=True)
    (entry / "kernel.o").write_bytes(b"code")
    (entry / "meta.json").write_bytes(data)
    found = list(store.entries())
    assert found == ([store.find(request)] if found else [])
    for sound in found:
        _describe_entry(sound)
        with tempfile.TemporaryDirectory() as other:
            assert Store(Path(other)).put(sound).request == sound.request
    store.prune(max_bytes=0)
    assert store.paths() == [sound.path for sound in found if not sound.size]
    return "sound" if found else "none"


def fuzz_note(data: bytes, folder: Path) -> str:
    question = {"name": "host"}
    notes = folder / "v1" / "notes"
    notes.mkdir(parents=True)
    (notes / f"{digest(question)}.json").write_bytes(data)
    target = Target.from_json(Store(folder).recall(question))
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target
    return f"{len(target.features)} features"


def fuzz_log(data: bytes, folder: Path) -> str:
    """What a log says can be shown, of some even drawn, and written down again as the same."""
    path, again = folder / "log", folder / "again"
    path.write_bytes(data)
    found = searches(path)
    lines = []
    for number, search in enumerate(found):
        job, start = {"job": str(number), "name": search.name}, search.history.start
        assert math.isfinite(search.history.gain)
        lines.append({"kind": "search", "format": FORMAT, "start": start.to_json(), **job})
        lines += [{**trial.to_json(), **job} for trial in search.history.trials]
        if (result := search.result) is not None:
            measured = {name: value for name, value in result.measured.items() if value == value}
            lines.append({"kind": "result", **result.to_json(), "measured": measured, **job})
    again.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def said(search: LoggedSearch) -> str:
        result = None if search.result is None else {**search.result.to_json(), "name": ""}
        return json.dumps([search.history.incumbent.to_json(), [t.to_json() for t in search.history.trials], result])

    assert list(map(said, searches(again))) == list(map(said, found))
    drawn = folder / "drawn.png" if len(data) % DRAWN == 0 and any(search.history.trials for search in found) else None
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of names in letters that the font has not
        _show(str(path), drawn and str(drawn), as_json=False)
        _show(str(path), None, as_json=True)
    verdicts = {trial.verdict for search in found for trial in search.history.trials}
    results = {search.result and search.result.changes for search in found}
    return f"{sorted(verdicts)} {sorted(map(str, results))}"


def fuzz_file(suffix: str) -> Callable[[bytes, Path], str]:
    def fuzz(data: bytes, folder: Path) -> str:
        path, copy = folder / f"x{suffix}", folder / "copy.npz"
        path.write_bytes(data)
        with open_tensors(path) as file:
            fit = [name for name, info in file.tensors.items() if unfit(info, 0) is None]
            arrays = {name: file.read(name) for name in fit}
            for name, array in arrays.items():
                assert (array.dtype.name, array.shape) == tuple(file.tensors[name])
        with write_npz(copy) as write:
            for number, array in enumerate(arrays.values()):
                write(str(number), array)
        with open_tensors(copy) as file:
            for number, array in enumerate(arrays.values()):
                assert (bits(file.read(str(number))) == bits(array)).all()
        return f"{len(arrays)} tensors"

    return fuzz


class Choices:
    """Numbers out of bytes, so that a mutation of bytes is another choice; zeros when they are at an end."""

    def __init__(self, data: bytes) -> None:
        self.data = iter(data)

    def below(self, count: int) -> int:
        return next(self.data, 0) % count

    def of(self, values: Any) -> Any:
        return values[self.below(len(values))]

    def some(self, values: Any, most: int) -> list[Any]:
        return [self.of(values) for _ in range(self.below(most + 1))]


EXTENTS = (1, 2, 3, 4, 7, 16, 0, -1, 2**31, 2**63 - 1, 2**64)
ODD = (None, "x", 1.5, True, [], (2,))


def described_tensor(choose: Choices) -> tuple[aclnn.AclTensor, Any]:
    """A descriptor of anything over memory that is there, or not; and that memory."""

    def sizes(first: int) -> Any:
        kind = choose.below(8)
        return choose.of(ODD) if kind == 7 else tuple(choose.some(EXTENTS[: first + choose.below(7)], 4))

    dims, offset = sizes(6), choose.of((0, 0, 0, 1, 3, -1, 2**62, None))
    strides = None if choose.below(2) else sizes(8)
    storage = None if choose.below(2) else sizes(8)
    dtype = choose.of(("float32", "float16", 0, 1, 27, "int32", 99, None, "no", np.float32, object()))
    form = choose.of(("ACL_FORMAT_ND", 2, "ACL_FORMAT_NCHW", "no", 99, None))
    memory = choose.of((np.zeros(4096, np.uint8), np.zeros(4096, np.uint8), bytearray(16), bytes(4096), None, -5, "no"))
    if isinstance(memory, np.ndarray):
        memory.view(np.float16)[:] = np.resize(np.float16([0.5, -3, 2.5, 200, -0.0, 1e-6, np.inf, 77]), 2048)
    return aclnn.aclCreateTensor(dims, dtype, strides, offset, form, storage, memory), memory


def results_for(x: aclnn.AclTensor) -> tuple[np.ndarray, np.ndarray]:
    """An out and a mask for a tensor; too small for one that numpy has no place for, empty or not."""
    shape = x.view_dims if math.prod(n or 1 for n in x.view_dims) <= 4096 else (1,)
    return np.full(shape, 9, "float16" if x.dtype == 1 else "float32"), np.ones(shape, bool)


def judged(x: aclnn.AclTensor, memory: Any, got: Any, answer: Callable[[np.ndarray], Any]) -> str:
    """Compare results with what the elements of a tensor give, as its descriptor places them in memory."""
    out, _ = got
    if not out.size and not isinstance(memory, np.ndarray):
        return "nothing read"  # so that an address, or none, is as good as memory
    assert isinstance(memory, (np.ndarray, bytes, bytearray)), (memory, x, out.shape)
    itemsize = out.itemsize
    steps = [s * itemsize if n > 1 and out.size else 0 for n, s in zip(x.view_dims, x.strides, strict=True)]
    given = np.ndarray(x.view_dims, out.dtype, bytes(memory), x.offset * itemsize if out.size else 0, steps)
    assert_same(got, answer(given))
    return "right"


def fuzz_aclnn(data: bytes, folder: Path) -> str:
    """Descriptors of anything over buffers that are there: refused with a status, or a right result."""
    choose = Choices(data)
    try:
        x, memory = described_tensor(choose)
    except aclnn.AclnnError as error:
        return str(error)
    shape = x.view_dims
    axis = choose.of((0, 0, 1, -1, 5, None, "0"))
    channels = shape[axis] if isinstance(axis, int) and -len(shape) <= axis < len(shape) else 1
    channels = min(channels, 5000) - (choose.below(9) == 8)
    scale, zero_point = np.full(max(channels, 0), 0.5, np.float32), np.zeros(max(channels, 0), np.int32)
    out, mask = results_for(x)
    try:
        size, executor = aclnn.get_workspace_size(x, scale, zero_point, axis, -8, choose.of((7, -9, 2**63)), out, mask)
        aclnn.execute(bytearray(size), size, executor)
    except aclnn.AclnnError as error:
        return str(error)
    return judged(x, memory, (out, mask), lambda given: expected(given, scale, zero_point, axis, -8, 7))


def fuzz_aclnn_per_tensor(data: bytes, folder: Path) -> str:
    """The same of the operator with one scale, which itself has any shape, enabled by anything."""
    choose = Choices(data)
    enabled = choose.of((1.0, 0.0, np.nan, 0.999, 2, True, np.float32(1), None, "1", [], 10**400, np.ones(2), 1j))
    try:
        x, memory = described_tensor(choose)
    except aclnn.AclnnError as error:
        return str(error)
    scale, zero_point = (np.full(choose.some((1, 1, 1, 1, 2, 0), 5), n, t) for n, t in ((0.5, "f4"), (1, "i4")))
    out, mask = results_for(x)
    try:
        arguments = (x, scale, zero_point, enabled, -8, choose.of((7, -9, 2**63)), out, mask)
        size, executor = aclnn.get_workspace_size_per_tensor(*arguments)
        aclnn.execute(bytearray(size), size, executor)
    except aclnn.AclnnError as error:
        return str(error)

    def answer(given: np.ndarray) -> Any:
        if enabled >= 1:
            return expected(given, scale.reshape(()), zero_point.reshape(()), None, -8, 7)
        return given.astype(out.dtype), np.ones(given.shape, bool)

    return judged(x, memory, (out, mask), answer)


class Described(ctypes.Structure):
    """DLManagedTensor, with its DLTensor in line."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32), ("device_id", ctypes.c_int32), ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64), ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    ]  # fmt: skip


class Producer:
    """A DLPack tensor as its choices describe it, in the middle of memory that it cannot leave."""

    def __init__(self, choose: Choices) -> None:
        self.rank = choose.of(
            (0, 1, 2, 2, 3, 8, 9, 15)
        )  # a negative one, which nobody exports, corrupts tvm-ffi's heap
        extents = (1, 2, 3, 5, 8, 0, -1) if self.rank < 4 else (1, 2, 1, 2, 1, 0, -1)
        self.shape = [choose.of(extents) for _ in range(self.rank)]
        self.strides = [choose.of((1, 8, 0, 2, 3, -1, 40)) for _ in self.shape]
        self.dense = choose.below(2) == 0
        self.code, self.bits = choose.of(((2, 32), (2, 16), (2, 32), (2, 64), (0, 32), (4, 8), (2, 7), (99, 32)))
        self.lanes, self.device = choose.of((1, 1, 1, 1, 0, 4)), choose.of((1, 1, 1, 1, 2, 0, 99, -1))
        self.offset, self.null = choose.of((0, 0, 4, 3)), choose.below(9) == 8
        self.memory = np.resize(np.float16([0.5, -3, 2.5, 200, -0.0, 1e-6, np.inf, 77]), 40000)

    @property
    def values(self) -> np.ndarray:
        """What it describes, where that is a tensor."""
        dtype = np.dtype(np.float32 if self.bits == 32 else np.float16)
        steps = fq_tvm.layout.dense_strides(tuple(self.shape)) if self.dense else self.strides
        start = 40000 + self.offset
        return np.ndarray(self.shape, dtype, self.memory.data, start, [s * dtype.itemsize for s in steps])

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **_: Any) -> Any:
        extents = (ctypes.c_int64 * 16)(*self.shape, *[1])
        steps = (ctypes.c_int64 * 16)(*self.strides, *[1])
        address = 0 if self.null else self.memory.ctypes.data + 40000
        strides = None if self.dense else ctypes.addressof(steps)
        dtype = (self.code, self.bits, self.lanes)
        made = Described(
            address, self.device, 0, self.rank, *dtype, ctypes.addressof(extents), strides, self.offset, None, None
        )
        self.kept = made, extents, steps
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(made), b"dltensor", None)


def fuzz_dlpack(data: bytes, folder: Path) -> str:
    """A descriptor over memory that is there: refused, or a right result."""
    choose = Choices(data)
    x = Producer(choose)
    axis = choose.of((0, 0, 1, -1, None))
    inside = axis is not None and -len(x.shape) <= axis < len(x.shape)
    channels = max(x.shape[axis], 0) if inside else 1
    scale, zero_point = np.full(channels, 0.5, np.float32), np.zeros(channels, np.int32)
    elements = [max(n, 0) for n in x.shape]
    out, mask = np.full(elements, 9, np.float32 if x.bits == 32 else np.float16), np.ones(elements, bool)
    arguments = (x, scale, zero_point, axis, -8, 7)
    fq_tvm.fake_quantize_per_channel_affine_cachemask(*arguments, out=out, mask=mask)
    assert_same((out, mask), expected(x.values, *arguments[1:]))
    return "right"


TARGETS: dict[str, Callable[[bytes, Path], str]] = {
    "record": fuzz_record,
    "entry": fuzz_entry,
    "note": fuzz_note,
    "log": fuzz_log,
    "npy": fuzz_file(".npy"),
    "npz": fuzz_file(".npz"),
    "safetensors": fuzz_file(".safetensors"),
    "aclnn": fuzz_aclnn,
    "aclnn_per_tensor": fuzz_aclnn_per_tensor,
    "dlpack": fuzz_dlpack,
}


def answer(target: str, data: bytes) -> str:
    """Give an input to a target; return how it was answered, less the numbers, or raise what must not be."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            said = TARGETS[target](data, Path(folder))
        except FqError as error:
            said = str(error)
    return re.sub(r"[\d/]\S*", "", said)[:60]


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def explore(target: str, seconds: float, seed: int, current: Path) -> None:
    """Mutate inputs until time is up; ``current`` has the one that is tried."""
    rng, inputs = random.Random(seed), corpus(target)
    seen, count, until = {answer(target, data) for data in inputs}, 0, time.monotonic() + seconds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() < until:
        data = mutate(rng.choice(inputs), rng, rng.choice(inputs))
        current.write_bytes(data)
        faulthandler.dump_traceback_later(HANG, exit=True)
        said = answer(target, data)
        faulthandler.cancel_dump_traceback_later()
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
        assert taken < MEGABYTES, f"it took {taken:.0f} MB"
        if said not in seen:
            seen.add(said)
            inputs.append(data)
        count += 1
    print(f"{target}: {count} inputs, {len(seen)} kinds of answers", flush=True)


def in_child(target: str, seconds: float, seed: int) -> bool:
    """Explore in a process of its own; keep the input that it failed with."""
    with tempfile.TemporaryDirectory() as folder:
        current = Path(folder) / "input"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                explore(target, seconds, seed, current)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status and current.exists():
            data = current.read_bytes()
            kept = CORPUS / target / hashlib.sha256(data).hexdigest()[:12]
            kept.write_bytes(data)
            print(f"{target}: ended with {status} on {kept}")
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    print(f"seed {options.seed}")
    ends = [in_child(target, options.seconds / len(targets), options.seed) for target in targets]
    return 0 if all(ends) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Producers of DLPack: what they say of version, memory and whether it may be written is taken for what it is."""

from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
import pytest
from support import assert_same, expected, make

from fq_tvm import ArgumentError
from fq_tvm import fake_quantize_per_channel_affine_cachemask as fake_quant
from fq_tvm.launch import dlpack

KINDS = {"f": 2, "i": 0, "b": 6}
_NEW = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Producer:
    """A tensor of another framework, on the memory of an array."""

    def __init__(self, array, version=(1, 0), flags=0, device=1, compact=False, null=False, offset=0):
        self.array, self.version = array, version
        self.numbers = (ctypes.c_int64 * (2 * array.ndim))(*array.shape, *(s // array.itemsize for s in array.strides))
        shape = ctypes.addressof(self.numbers)
        strides = None if compact else shape + 8 * array.ndim
        tensor = dlpack.DLTensor(
            None if null else array.ctypes.data - offset, device, 0, array.ndim, KINDS[array.dtype.kind],
            8 * array.itemsize, 1, shape, strides, offset,
        )  # fmt: skip
        self.managed = dlpack._Versioned(*(version or (0, 0)), None, None, flags, tensor)

    def __dlpack_device__(self):
        return self.managed.tensor.device_type, 0

    def __dlpack__(self, **asked):
        if self.version is None and asked:
            raise TypeError("unexpected keyword argument 'max_version'")
        new = _NEW(("PyCapsule_New", ctypes.pythonapi))
        if self.version is None:
            return new(ctypes.addressof(self.managed) + dlpack._Versioned.tensor.offset, b"dltensor", None)
        return new(ctypes.addressof(self.managed), b"dltensor_versioned", None)


@pytest.fixture
def args():
    return (*make(np.random.default_rng(1), (4, 8), 1), 1, -128, 127)


@pytest.mark.parametrize("version", [None, (1, 0), (1, 3)])
@pytest.mark.parametrize("details", [{}, {"flags": 1}, {"compact": True}, {"offset": 3}], ids=str)
def test_every_producer_is_an_input(args, version, details):
    want = expected(*args)
    out, mask = np.empty(args[0].shape, "f4"), np.empty(args[0].shape, bool)
    for _ in range(3):
        out[...] = 0
        fake_quant(*(Producer(a, version, **details) for a in args[:3]), *args[3:], out=out, mask=mask)
        assert_same((out, mask), want)


def test_read_only_arrays_of_numpy_are_inputs_through_dlpack_too(args):
    class Other:
        def __init__(self, array):
            array.flags.writeable = False
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    want = expected(*args)
    out, mask = np.empty(args[0].shape, "f4"), np.empty(args[0].shape, bool)
    fake_quant(*(Other(a.copy()) for a in args[:3]), *args[3:], out=out, mask=mask)
    assert_same((out, mask), want)


@pytest.mark.parametrize("name", ["out", "mask"])
def test_a_read_only_producer_is_no_output(args, name):
    arrays = {"out": np.full(args[0].shape, 7, "f4"), "mask": np.zeros(args[0].shape, bool)}
    before = arrays[name].copy()
    jax = type("ArrayImpl", (Producer,), {"__module__": "jaxlib._jax"})  # immutable, and may know no versions
    for _ in range(2):
        fake_quant(*args, **{n: Producer(a) for n, a in arrays.items()})
        arrays[name][...] = before
        for producer in (Producer(arrays[name], flags=1), jax(arrays[name]), jax(arrays[name], None)):
            given = {n: Producer(a) for n, a in arrays.items()} | {name: producer}
            with pytest.raises(ArgumentError, match=f"{name} is read-only"):
                fake_quant(*args, **given)
            np.testing.assert_array_equal(arrays[name], before)


@pytest.mark.parametrize("place", range(3))
def test_what_cannot_be_read_is_refused(args, place):
    for details, message in (
        ({"version": (2, 0)}, r"DLPack's version is 2\.0"),
        ({"null": True}, "has no memory"),
        ({"device": 2}, "device 2:0"),
    ):
        given = list(args)
        given[place] = Producer(args[place], **details)
        with pytest.raises(ArgumentError, match=message):
            fake_quant(*given)


@pytest.mark.parametrize("rank", [-(2**31), -1, 65, 2**31 - 1])
@pytest.mark.parametrize("place", range(3))
def test_a_rank_that_no_tensor_has_is_refused(args, place, rank):
    given = list(args)
    given[place] = Producer(args[place])
    given[place].managed.tensor.ndim = rank
    with pytest.raises(ArgumentError, match=f"says that it has {rank} dimensions"):
        fake_quant(*given)


def test_memory_is_held_during_the_call_and_not_after(args):
    class Array(np.ndarray):
        pass

    class Other:
        def __init__(self, array):
            self.array = array.copy().view(Array)

        def __dlpack__(self, **asked):
            return self.array.__dlpack__(**asked)

    others = [Other(a) for a in args[:3]]
    gone = [weakref.ref(other.array) for other in others]
    out, mask = np.empty(args[0].shape, "f4"), np.empty(args[0].shape, bool)
    fake_quant(*others, *args[3:], out=out, mask=mask)
    assert_same((out, mask), expected(*args))
    del others
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3

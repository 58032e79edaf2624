"""Memory that is used again: never while somebody has it, and no more than was allowed."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from fq_tvm.launch.pool import Pool

PAGE = 4096


def address(array):
    return array.ctypes.data


def test_memory_of_an_array_that_is_gone_serves_the_next():
    pool = Pool(16 * PAGE)
    first = pool.array(PAGE + 1)
    first[:] = 7
    assert first.shape == (PAGE + 1,) and address(first) % PAGE == 0
    place = address(first)
    del first
    assert pool.kept == 2 * PAGE
    assert address(pool.array(2 * PAGE)) == place


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_has_memory_of_its_own():
    pool = Pool(16 * PAGE)
    used, free = pool.array(PAGE), pool.array(2 * PAGE)
    used[:], free[:] = 7, 7
    del free
    child = os.fork()
    if not child:
        used[:] = 1
        pool.array(2 * PAGE)[:] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert set(used) == {7} and set(pool.array(2 * PAGE)) == {7}


def test_memory_that_a_view_still_shows_is_not_used_again():
    pool = Pool(16 * PAGE)
    array = pool.array(PAGE)
    view = array[10:20].view(np.int16)
    view[:] = 3
    del array
    assert pool.kept == 0
    other = pool.array(PAGE)
    other[:] = 255
    assert (view == 3).all()
    del view
    assert pool.kept == PAGE


def test_another_size_gets_other_memory():
    pool = Pool(16 * PAGE)
    pool.array(PAGE)
    assert pool.kept == PAGE
    array = pool.array(3 * PAGE)
    assert len(array) == 3 * PAGE and pool.kept == PAGE


@pytest.mark.parametrize("most", [0, PAGE, 5 * PAGE])
def test_no_more_is_kept_than_allowed_and_the_oldest_goes_first(most):
    pool = Pool(most)
    arrays = [pool.array(PAGE * n) for n in (1, 2, 3)]
    places = [address(a) for a in arrays]
    while arrays:
        del arrays[0]
    assert pool.kept <= most
    if most == 5 * PAGE:
        assert pool.kept == most and address(pool.array(3 * PAGE)) == places[2]
    pool.clear()
    assert pool.kept == 0


def test_threads_never_share_memory():
    pool, faults = Pool(64 * PAGE), []

    def work(mark):
        for _ in range(300):
            arrays = [pool.array(PAGE) for _ in range(3)]
            for array in arrays:
                array[:] = mark
            if any((array != mark).any() for array in arrays):
                faults.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert pool.kept <= 64 * PAGE

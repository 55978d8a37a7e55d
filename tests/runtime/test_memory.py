"""Arrays from reused blocks: aligned, distinct while alive, returned with the last view."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.runtime import memory

FLOAT = np.dtype(np.float32)


@given(st.integers(0, 1 << 40))
def test_size_class_holds_the_size_and_wastes_little(size):
    block = memory.size_class(size)
    assert block >= size
    assert memory.size_class(block) == block
    if size > 64 * 1024:
        assert block <= size * 1.13


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (7,), (64, 65), (1200, 1000)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool"])
def test_empty_is_what_numpy_gives(shape, dtype):
    x = memory.empty(shape, np.dtype(dtype))
    assert (x.shape, x.dtype, x.strides) == (shape, np.dtype(dtype), np.empty(shape, dtype).strides)
    assert x.flags.c_contiguous and x.flags.writeable
    if x.nbytes >= memory.SMALL:
        assert x.__array_interface__["data"][0] % 64 == 0
    x[...] = 1
    assert (x == 1).all()


def test_a_block_returns_with_its_last_view():
    used = memory.memory_stats()["used_bytes"]
    x = memory.empty((300, 300), FLOAT)
    where = x.__array_interface__["data"][0]
    view = x[10:].T[::2]
    raw = memoryview(view)
    x[...] = 4
    del x, view
    assert memory.memory_stats()["used_bytes"] > used
    assert raw[3, 3] == 4
    other = memory.empty((300, 300), FLOAT)
    assert other.__array_interface__["data"][0] != where
    del raw, other
    assert memory.memory_stats()["used_bytes"] == used
    # last in, first out: both blocks are there, one of them is the first
    both = [memory.empty((300, 300), FLOAT) for _ in range(2)]
    assert where in {b.__array_interface__["data"][0] for b in both}


def test_large_blocks_start_on_a_huge_page():
    x = memory.empty((5, 1024, 1024), FLOAT)
    assert x.__array_interface__["data"][0] % (2 << 20) == 0


def test_trim_and_cap():
    allocator = memory.Allocator(cap=100_000)
    leases = [allocator.take(40_000) for _ in range(4)]
    assert allocator.used_bytes == 4 * memory.size_class(40_000)
    del leases
    assert allocator.used_bytes == 0
    assert 0 < allocator.cached_bytes <= 100_000
    allocator.trim(memory.size_class(40_000))
    assert allocator.cached_bytes == memory.size_class(40_000)
    allocator.trim()
    assert allocator.cached_bytes == 0


@pytest.mark.skipif(sys.platform != "linux", reason="pages move on Linux only")
def test_a_new_block_gets_the_pages_of_free_smaller_ones():
    huge = 2 << 20
    allocator = memory.Allocator(cap=1 << 30)
    small = [allocator.take(n * huge) for n in (4, 2, 2)]
    for lease in small:
        np.frombuffer(lease, np.uint8).fill(7)
    kept = np.frombuffer(small.pop(), np.uint8)
    del small, lease
    assert allocator.cached_bytes == 6 * huge
    large = np.frombuffer(allocator.take(8 * huge), np.uint8)  # 4 and 2, and 2 that are fresh
    assert allocator.cached_bytes == 0
    assert (large[: 6 * huge] == 7).all() and not large[6 * huge :].any()
    other = np.frombuffer(allocator.take(4 * huge), np.uint8)
    large.fill(1)
    kept[:] = 2
    assert not other.any() and (large == 1).all() and (kept == 2).all()
    del large  # nothing moves from a larger block to a smaller one, or steps would move for ever
    allocator.take(6 * huge)
    assert allocator.cached_bytes == (8 + 6) * huge


def test_a_free_larger_block_is_divided_and_joined_again():
    mib = 1 << 20
    allocator = memory.Allocator(cap=1 << 30)
    whole = np.frombuffer(allocator.take(8 * mib), np.uint8)
    start = whole.ctypes.data
    whole.fill(7)
    del whole
    three = [np.frombuffer(allocator.take(2 * mib), np.uint8) for _ in range(3)]
    assert allocator.system_allocations == 1 and allocator.cached_bytes == 2 * mib
    assert allocator.used_bytes == 6 * mib
    for i, part in enumerate(three):
        part.fill(i)
    assert [int(part[0]) for part in three] == [0, 1, 2] and all(np.ptp(p) == 0 for p in three)
    assert all(start <= p.ctypes.data <= start + 6 * mib for p in three)
    other = np.frombuffer(allocator.take(8 * mib), np.uint8)  # not while a part is in use
    assert allocator.system_allocations == 2 and not start <= other.ctypes.data < start + 8 * mib
    del three, part
    assert allocator.cached_bytes == 8 * mib
    again = np.frombuffer(allocator.take(8 * mib), np.uint8)
    assert (again.ctypes.data, allocator.cached_bytes) == (start, 0)
    again.fill(5)
    part = np.frombuffer(allocator.take(2 * mib), np.uint8)
    part.fill(1)
    assert (again == 5).all() and allocator.system_allocations == 3
    del again, part, other
    allocator.trim()
    assert allocator.cached_bytes == allocator.used_bytes == 0


def test_a_block_is_divided_only_where_little_is_left_over():
    allocator = memory.Allocator(cap=1 << 30)
    allocator.take(5 << 20)
    for size in (3 << 20, 5 << 19, 14 << 17, 1 << 19):  # too large; two; 30 % is left; ten parts
        made = allocator.system_allocations
        allocator.take(size)
        assert allocator.system_allocations - made == (size != 5 << 19), size
        allocator.trim()
        allocator.take(5 << 20)


def test_trimmed_parts_keep_what_others_hold():
    allocator = memory.Allocator(cap=1 << 30)
    allocator.take(8 << 20)
    one, two = (np.frombuffer(allocator.take(2 << 20), np.uint8) for _ in range(2))
    one.fill(3)
    two.fill(4)
    del two
    allocator.trim()
    assert allocator.cached_bytes == 0 and (one == 3).all()
    allocator.take(8 << 20)
    assert allocator.system_allocations == 2 and (one == 3).all()


def test_memory_that_does_not_exist():
    used = memory.memory_stats()["used_bytes"]
    with pytest.raises(MemoryError):
        memory.empty((1 << 44,), FLOAT)
    for shape in [(1 << 62,), (1 << 40, 1 << 40), (-3,), (-200, -200)]:
        with pytest.raises((ValueError, MemoryError)):
            memory.empty(shape, FLOAT)
    assert memory.memory_stats()["used_bytes"] == used


def test_peak():
    x = memory.empty((1 << 20,), FLOAT)
    memory.reset_peak()
    base = memory.memory_stats()["peak_bytes"]
    y = memory.empty((1 << 20,), FLOAT)
    del y
    assert memory.memory_stats()["peak_bytes"] == base + (4 << 20)
    del x


def test_threads_never_share_a_block():
    failures = []

    def work(mark: int) -> None:
        generator = np.random.default_rng(mark)
        kept: list[np.ndarray] = []
        for _ in range(400):
            x = memory.empty((int(generator.integers(5_000, 9_000)),), FLOAT)
            x.fill(mark)
            kept.append(x)
            if len(kept) > 5:
                old = kept.pop(int(generator.integers(5)))
                if not (old == mark).all():
                    failures.append(mark)

    running = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not failures


def test_arrays_may_outlive_the_interpreter():
    code = (
        "import numpy, builtins; from weft.runtime import memory; "
        "builtins.kept = memory.empty((99, 99), numpy.dtype('f8'))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")

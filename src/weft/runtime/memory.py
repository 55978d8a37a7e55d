"""Memory of arrays: 64-byte aligned blocks that are used again instead of being returned to the
system.

A fresh 32 MB array costs two to three times a used one in page faults. A block is lent to a ctypes
array that every view holds by its `base`; when the last view dies, so does that object, and its
finaliser puts the block back.
"""

import ctypes
import math
import os
import threading
from functools import cache
from typing import Any

import numpy as np

SMALL = 16 * 1024  # below this NumPy's own cache is faster than ours
ALIGNMENT = 64
_PAGE = 4096
_HUGE_PAGE = 2 * 1024 * 1024
_HUGE_FROM = 4 * 1024 * 1024


def _default_cap() -> int:
    """WEFT_CACHE_BYTES, or a quarter of the machine's memory: how much freed memory may wait for
    its next use.
    """
    text = os.environ.get("WEFT_CACHE_BYTES")
    if text:
        return int(text)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):
        return 1 << 30


def size_class(size: int) -> int:
    """The block size that serves `size` bytes: 8 classes from one power of two to the next, so at
    most 1/8 is lost.
    """
    if size <= SMALL:
        return SMALL
    step = max(1 << (size.bit_length() - 4), _PAGE)
    return -(-size // step) * step


class Allocator:
    """Size classes with a list of free blocks each; `cap` bounds the bytes that lie free."""

    def __init__(self, cap: int):
        self.cap = cap
        # Reentrant: the garbage collector may run a finaliser while the same thread is in here.
        self._lock = threading.RLock()
        self._free: dict[int, list[tuple[Any, int]]] = {}
        self.cached_bytes = 0
        self.used_bytes = 0
        self.peak_bytes = 0
        self.system_allocations = 0
        self.reuses = 0

    def take(self, size: int) -> Any:
        """A lease on a block of at least `size` bytes."""
        block_size = size_class(size)
        block = None
        with self._lock:
            waiting = self._free.get(block_size)
            if waiting:
                block = waiting.pop()
                self.cached_bytes -= block_size
                self.reuses += 1
        if block is None:
            block = self._grow(block_size)
        lease = _lease_type(block_size).from_address(block[1])
        lease.allocator, lease.block, lease.size = self, block, block_size
        with self._lock:
            self.used_bytes += block_size
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        return lease

    def _grow(self, block_size: int) -> tuple[Any, int]:
        self.system_allocations += 1
        try:
            return _system_block(block_size)
        except MemoryError:
            self.trim(0)
            return _system_block(block_size)

    def give(self, block: tuple[Any, int], block_size: int) -> None:
        """Take a block back; beyond the cap it goes to the system."""
        with self._lock:
            self.used_bytes -= block_size
            if self.cached_bytes + block_size > self.cap:
                return
            self._free.setdefault(block_size, []).append(block)
            self.cached_bytes += block_size

    def trim(self, keep: int = 0) -> None:
        """Return free blocks to the system, largest first, until at most `keep` bytes lie free."""
        with self._lock:
            for block_size in sorted(self._free, reverse=True):
                waiting = self._free[block_size]
                while waiting and self.cached_bytes > keep:
                    waiting.pop()
                    self.cached_bytes -= block_size

    def after_fork(self) -> None:
        """The child's only thread does not hold the lock that another thread of the parent may have
        held.
        """
        self._lock = threading.RLock()


def _system_block(size: int) -> tuple[Any, int]:
    """A new block: (its owner, the address of `size` aligned bytes).

    NumPy asks Linux for huge pages from 4 MB on; they help only where the block starts on such a
    page.
    """
    align = _HUGE_PAGE if size >= _HUGE_FROM else ALIGNMENT
    owner = np.empty(size + align, np.uint8)
    start = owner.__array_interface__["data"][0]
    return owner, -(-start // align) * align


@cache
def _lease_type(size: int) -> Any:
    """The class of leases of one block size: a ctypes array, since NumPy takes its memory without a
    copy or a parse.
    """
    return type(
        "Lease",
        (ctypes.c_char * size,),
        {"__del__": _end_lease, "__slots__": ("allocator", "block", "size")},
    )


def _end_lease(lease: Any) -> None:
    lease.allocator.give(lease.block, lease.size)


_allocator = Allocator(_default_cap())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_allocator.after_fork)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A C-contiguous array that is not initialised; 64-byte aligned from 16 KB on. Raises
    MemoryError.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, _allocator.take(size))


def trim(keep: int = 0) -> None:
    """Return memory that waits for its next use to the system, all but `keep` bytes."""
    _allocator.trim(keep)


def memory_stats() -> dict[str, int]:
    """Bytes in use by arrays of 16 KB and more, their peak, bytes that wait for use; counts of new
    and reused blocks.
    """
    return {
        "used_bytes": _allocator.used_bytes,
        "peak_bytes": _allocator.peak_bytes,
        "cached_bytes": _allocator.cached_bytes,
        "system_allocations": _allocator.system_allocations,
        "reuses": _allocator.reuses,
    }


def reset_peak() -> None:
    """Count the peak from the bytes in use now."""
    _allocator.peak_bytes = _allocator.used_bytes

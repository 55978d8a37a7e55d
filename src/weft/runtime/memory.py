"""Memory of arrays: 64-byte aligned blocks that are used again instead of being returned to the
system.

A fresh 32 MB array costs two to three times a used one in page faults. A block is lent to a ctypes
array that every view holds by its `base`; when the last view dies, so does that object, and its
finaliser puts the block back. A free block is divided for smaller arrays where little is left over,
and is one again when its parts are free.

Whether a memory is unchanged can be told, so that what was made of it may be kept (packed weights).
Who wants to know asks for its `mark`, a number that no other memory has; whoever writes to a memory
calls `wrote` afterwards, which takes the mark away. A memory that is shown to somebody who could
write without saying so has no mark while the array shown lives (`lend`: its views hold it), or
never again (`give_away`: an address); nor has one that is not ours.
"""

import contextlib
import ctypes
import itertools
import math
import mmap
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import ref

import numpy as np

from weft.runtime import native

SMALL = 16 * 1024  # below this NumPy's own cache is faster than ours
ALIGNMENT = 64
_PAGE = 4096
_ADDRESSABLE = 1 << 47
_MAX_SIZES = 4096  # exact sizes whose class is remembered
_HUGE_PAGE = 2 * 1024 * 1024
_HUGE_FROM = _HUGE_PAGE
_MAX_PARTS = 8  # of a block: a small one that stays keeps all of it from its next use


class OutOfMemory(RuntimeError, MemoryError):
    """torch's class and Python's, in words that look for smaller batches look for."""

    def __init__(self, size: int, what: str = "") -> None:
        super().__init__(f"{what}DefaultCPUAllocator: can't allocate memory: {size} bytes")


def _default_cap() -> int:
    """WEFT_CACHE_BYTES, or a quarter of the machine's memory: how much freed memory may wait for
    its next use.
    """
    text = os.environ.get("WEFT_CACHE_BYTES")
    return int(text) if text else machine_bytes() // 4


def machine_bytes() -> int:
    """The machine's memory; 4 GB where nobody tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 32


def size_class(size: int) -> int:
    """The block size that serves `size` bytes: 8 classes from one power of two to the next, so at
    most 1/8 is lost.
    """
    if size <= SMALL:
        return SMALL
    step = max(1 << (size.bit_length() - 4), _PAGE)
    return -(-size // step) * step


def block_size(size: int) -> int:
    """The bytes that an array of `size` bytes takes up."""
    return size if size < SMALL else size_class(size)


_leases: set[type] = set()
_marks = itertools.count(1)
_showing = threading.RLock()  # a finaliser inside may show memory, too
_GIVEN: list[Callable[[], Any]] = [lambda: True]  # as weak references, to what never dies


class _Class:
    """The blocks of one size: those that wait for use, and the type of their leases."""

    __slots__ = ("free", "lease", "size")

    def __init__(self, size: int):
        self.size = size
        self.free: list[_Block] = []
        # A ctypes array, since NumPy takes its memory without a copy or a parse.
        body = {"__del__": _end_lease, "__slots__": ("block", "lent", "mark")}
        self.lease: Any = type("Lease", (ctypes.c_char * size,), body)
        _leases.add(self.lease)


class _Block:
    __slots__ = ("address", "allocator", "owner", "part", "size_class")

    def __init__(self, allocator: "Allocator", size_class: _Class, of: "_Block | None" = None):
        """A block of the system's memory, or a part of another one (the first: `address` moves)."""
        self.allocator = allocator
        self.size_class = size_class
        self.part = of is not None
        self.owner, self.address = (
            (of.owner, of.address) if of is not None else _system_block(size_class.size)
        )


def _end_lease(lease: Any) -> None:
    block = lease.block
    block.allocator.give(block)


class Allocator:
    """Size classes with a list of free blocks each; `cap` bounds the bytes that lie free.

    No lock: a list's `pop` and `append` are atomic, and the interpreter does not switch threads
    inside the additions to the counters. A finaliser may run `give` anywhere, inside `take` too.
    """

    def __init__(self, cap: int):
        self.cap = cap
        self._classes: dict[int, _Class] = {}
        self._by_size: dict[int, _Class] = {}
        self.cached_bytes = 0
        self.used_bytes = 0
        self.peak_bytes = 0
        self.system_allocations = 0
        self.reuses = 0
        self._divided: list[tuple[_Block, list[_Block]]] = []  # free larger blocks, their parts

    def take(self, size: int) -> Any:
        """A lease on a block of at least `size` bytes."""
        size_class = self._by_size.get(size) or self._class(size)
        try:
            block = size_class.free.pop()
        except IndexError:
            block = self._grow(size_class)
        else:
            self.cached_bytes -= size_class.size
            self.reuses += 1
        lease = size_class.lease.from_address(block.address)
        lease.block = block
        self.used_bytes += size_class.size
        if self.used_bytes > self.peak_bytes:
            self.peak_bytes = self.used_bytes
        return lease

    def give(self, block: _Block) -> None:
        """Take a block back; beyond the cap it goes to the system."""
        size = block.size_class.size
        self.used_bytes -= size
        if self.cached_bytes + size <= self.cap:
            self.cached_bytes += size
            block.size_class.free.append(block)
        else:
            self._divided.clear()  # it would keep the block

    def trim(self, keep: int = 0) -> None:
        """Return free blocks to the system, largest first, until at most `keep` bytes lie free."""
        for whole, parts in self._divided:  # what was left over
            used = len(parts) * parts[0].size_class.size
            _release(whole.address + used, whole.size_class.size - used)
        self._divided.clear()
        for size in sorted(self._classes, reverse=True):
            free = self._classes[size].free
            while self.cached_bytes > keep:
                try:
                    block = free.pop()
                except IndexError:
                    break
                self.cached_bytes -= size
                if block.part:  # what it is part of may be in use
                    _release(block.address, size)

    def _class(self, size: int) -> _Class:
        if len(self._by_size) > _MAX_SIZES:
            self._by_size.clear()
        block_size = size_class(size)
        found = self._classes.setdefault(block_size, _Class(block_size))
        return self._by_size.setdefault(size, found)

    def _grow(self, size_class: _Class) -> _Block:
        block = self._joined(size_class) or self._part(size_class)
        if block is not None:
            return block
        self.system_allocations += 1
        try:
            block = _Block(self, size_class)
        except MemoryError:
            self.trim(0)
            return _Block(self, size_class)
        if size_class.size > _HUGE_FROM:
            self._furnish(block)
        return block

    def _joined(self, size_class: _Class) -> _Block | None:
        """A block of this size that was divided, if all its parts are free."""
        for entry in self._divided:
            block, parts = entry
            free = parts[0].size_class.free
            if block.size_class is not size_class or not {*parts} <= {*free}:
                continue
            taken = []
            try:
                for part in parts:
                    free.remove(part)
                    taken.append(part)
            except ValueError:  # somebody took one meanwhile
                free.extend(taken)
                continue
            with contextlib.suppress(ValueError):  # cleared meanwhile
                self._divided.remove(entry)
            self.cached_bytes -= len(parts) * parts[0].size_class.size
            return block
        return None

    def _part(self, size_class: _Class) -> _Block | None:
        """A part of the free larger block that divides best; its other parts wait, too.

        So what lives long (an optimizer's state) or comes when others are gone (gradients) lies in
        memory that was used before.
        """
        size = size_class.size
        fit = [s for s in self._classes if 2 * size <= s <= _MAX_PARTS * size]
        for larger in sorted(fit, key=lambda s: s % size / s):
            count = larger // size
            if 4 * (larger % size) > larger:
                break
            try:
                whole = self._classes[larger].free.pop()
            except IndexError:
                continue
            parts = [_Block(self, size_class, whole) for _ in range(count)]
            for i, part in enumerate(parts):
                part.address += i * size
            self.cached_bytes += (count - 1) * size - larger
            self._divided.append((whole, parts))
            size_class.free.extend(parts[1:])
            return parts[0]
        return None

    def _furnish(self, block: _Block) -> None:
        """Move the pages of free smaller blocks into a new one: a page that is touched for the
        first time costs more than what a kernel writes there.
        """
        at, left = block.address, block.size_class.size // _HUGE_PAGE
        for size in sorted((s for s in self._classes if s < block.size_class.size), reverse=True):
            pages, free = size // _HUGE_PAGE, self._classes[size].free
            while 0 < pages <= left:
                donor = next((b for b in free if not b.part), None)
                if donor is None:
                    break
                try:
                    free.remove(donor)
                except ValueError:  # somebody took it meanwhile
                    continue
                self.cached_bytes -= size
                if not _move_pages(donor.address, at, pages * _HUGE_PAGE):
                    return
                at, left = at + pages * _HUGE_PAGE, left - pages


def _system_block(size: int) -> tuple[Any, int]:
    """A new block: (its owner, the address of `size` aligned bytes).

    NumPy asks Linux for huge pages from 4 MB on, room for alignment included; they help only where
    the block starts on such a page.
    """
    if size >= _HUGE_FROM and sys.platform == "linux":
        # pages of its own: a heap's block would keep what lies before the first huge page, too
        try:
            whole = mmap.mmap(-1, size + _HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError):
            raise OutOfMemory(size) from None
        owner = np.frombuffer(whole, np.uint8)
        start = owner.__array_interface__["data"][0]
        address = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        with contextlib.suppress(OSError, AttributeError):  # a kernel without huge pages
            whole.madvise(mmap.MADV_HUGEPAGE, address - start, size // _HUGE_PAGE * _HUGE_PAGE)
        return owner, address
    owner = np.empty(size + ALIGNMENT, np.uint8)
    start = owner.__array_interface__["data"][0]
    return owner, -(-start // ALIGNMENT) * ALIGNMENT


def _move_pages(source: int, target: int, size: int) -> bool:
    """Whether the pages at `source` lie at `target` now, instead of what lay there; others may
    come in their place. Linux can from 5.7 on.
    """
    move = _mremap()
    return move is not None and move(source, size, size, _MOVE, target) == target


_MOVE = 1 | 2 | 4  # MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP: the mapping itself stays


def _release(address: int, size: int) -> None:
    """Give back the whole pages of memory that nobody uses; it stays memory, of zeros."""
    start = -(-address // _PAGE) * _PAGE
    give, stop = _linux("madvise"), (address + size) // _PAGE * _PAGE
    if give is not None and stop > start:
        give(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), 4)  # MADV_DONTNEED


@cache
def _mremap() -> Any:
    word, pointer = ctypes.c_size_t, ctypes.c_void_p
    found = _linux("mremap")
    if found is not None:
        found.restype, found.argtypes = pointer, (pointer, word, word, ctypes.c_int, pointer)
    return found


@cache
def _linux(name: str) -> Any:
    """A function of the system's; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


_allocator = Allocator(_default_cap())


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A C-contiguous array that is not initialised; 64-byte aligned from 16 KB on. Raises
    MemoryError.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    if size > _ADDRESSABLE:
        raise OutOfMemory(size)
    return np.ndarray(shape, dtype, _allocator.take(size))


def copy(a: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """A C-contiguous copy, of another dtype if one is named."""
    made = empty(a.shape, dtype or a.dtype)
    np.copyto(made, a, casting="unsafe")
    return made


def maker(shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], np.ndarray]:
    """What gives `empty(shape, dtype)` at each call, for a size of SMALL and more."""
    size, take, ndarray = math.prod(shape) * dtype.itemsize, _allocator.take, np.ndarray
    if not SMALL <= size <= _ADDRESSABLE:
        raise ValueError(f"maker: {size} bytes are not for the allocator")

    def make() -> np.ndarray:
        return ndarray(shape, dtype, take(size))

    return make


def lease_of(a: Any) -> Any:
    """The lease that an array's memory belongs to; None where it is not ours."""
    while a is not None and a.__class__ not in _leases:
        a = a.obj if isinstance(a, memoryview) else getattr(a, "base", None)
    return a


def root(a: np.ndarray) -> int:
    """One name for the memory that an array lies in, whichever of its views this is.

    NumPy's views name an array as their base, which may lie in a lease of ours.
    """
    while (base := a.base) is not None:
        a = base
        if a.__class__ is not np.ndarray:
            break
    return id(a)


def mark(a: np.ndarray) -> int | None:
    """The mark of the memory that an array lies in, given now if it has none; None where nobody
    can tell whether it changes.

    As long as `mark` gives the same number nothing was written there.  Ask before reading.
    """
    lease: Any = a.base
    if lease.__class__ not in _leases and (lease := lease_of(lease)) is None:
        return None
    try:
        found = lease.mark
    except AttributeError:  # never asked, never written
        found = None
    return _new_mark(lease) if found is None else found


def _new_mark(lease: Any) -> int | None:
    with _showing:
        if any(shown() is not None for shown in getattr(lease, "lent", ())):
            return None
        lease.mark = made = next(_marks)
        return made


def lease_named(a: np.ndarray) -> Callable[[], Any]:
    """Gives the lease that `root` names, while it lives: who knows that the name is still this may
    ask it for its mark. None where the name is another object's.
    """
    lease = lease_of(a)
    return nobody if lease is None or id(lease) != root(a) else ref(lease)


def nobody() -> None:
    return None


def marked(a: np.ndarray) -> tuple[Any, str, Any] | None:
    """(object, attribute, value): the mark is the same while the attribute is this very value."""
    return None if mark(a) is None else (lease := lease_of(a), "mark", lease.mark)


def may_be_marked(a: np.ndarray) -> bool:
    """Whether the memory has a mark, or may have one again: it is ours and was not given away."""
    lease = lease_of(a)
    return lease is not None and getattr(lease, "lent", None) is not _GIVEN


def wrote(a: np.ndarray) -> None:
    """To be called after each write to an array's memory: its mark is gone."""
    base: Any = a.base
    if base.__class__ in _leases:
        base.mark = None
    elif base is not None and (lease := lease_of(base)) is not None:
        lease.mark = None


def lend(a: np.ndarray) -> np.ndarray:
    """The array for somebody who may write there: its memory has no mark while this one lives.

    What is made of it holds it: views by their base, buffers and DLPack capsules too.  Memory that
    is not ours is shown as a view, which cannot be resized.
    """
    if a.base is None:
        return a.view()
    lease = lease_of(a)
    if lease is None:
        return a
    at = native.address(a) - lease.block.address
    shown = np.ndarray(a.shape, a.dtype, lease, at, a.strides)
    if not a.flags.writeable:
        shown.flags.writeable = False
    with _showing:
        lent = getattr(lease, "lent", ())
        if lent is not _GIVEN:
            lease.lent = [*[r for r in lent if r() is not None], ref(shown)]
        lease.mark = None
    return shown


def give_away(a: np.ndarray) -> np.ndarray:
    """The array, whose address somebody is told: its memory gets no mark again."""
    lease = lease_of(a)
    if lease is not None:
        with _showing:
            lease.lent = _GIVEN
            lease.mark = None
    return a


def trim(keep: int = 0) -> None:
    """Return memory that waits for its next use to the system, all but `keep` bytes."""
    _allocator.trim(keep)
    release = _malloc_trim()
    if release is not None:
        release(0)


@cache
def _malloc_trim() -> Any:
    """glibc's, which gives the pages of freed blocks back; None where there is none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


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

"""Operands and results between pages that may not be touched: a stray access faults at once.

Without this a kernel that reads or writes past an array mostly goes on unseen, and the process
crashes later somewhere else.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
from typing import Any

import numpy as np

SIDE = 16 << 20  # bytes of fence on each side (address space only)
PAGE = mmap.PAGESIZE
_NONE, _READ_WRITE = 0, 3
_PRIVATE_ANONYMOUS_NORESERVE = 0x02 | 0x20 | 0x4000  # Linux


class _Fenced:
    """`size` bytes that end where the fence begins, or start where it ends."""

    libc: Any = None

    def __init__(self, size: int, at_start: bool) -> None:
        if _Fenced.libc is None:
            _Fenced.libc = _library()
        self.pages = -(-size // PAGE) * PAGE
        self.start = self.libc.mmap(
            None, self.pages + 2 * SIDE, _NONE, _PRIVATE_ANONYMOUS_NORESERVE, -1, 0
        )
        if self.start in (None, ctypes.c_void_p(-1).value):
            raise MemoryError("no address space for a fence")
        self.libc.mprotect(self.start + SIDE, self.pages, _READ_WRITE)
        self.address = self.start + SIDE + (0 if at_start else self.pages - size)

    def close(self) -> None:
        self.libc.munmap(self.start, self.pages + 2 * SIDE)


def _library() -> Any:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def _inside(a: np.ndarray, boxes: list[_Fenced], at_start: bool) -> np.ndarray:
    """The same values under the same strides, in fenced memory."""
    if a.size == 0 or a.nbytes > 1 << 22:
        return a
    steps = [(n - 1) * s for n, s in zip(a.shape, a.strides, strict=True)]
    low, high = sum(min(0, s) for s in steps), sum(max(0, s) for s in steps) + a.itemsize
    box = _Fenced(high - low, at_start)
    boxes.append(box)
    ctypes.memmove(box.address, a.__array_interface__["data"][0] + low, high - low)
    raw = (ctypes.c_char * (high - low)).from_address(box.address)
    return np.ndarray(a.shape, a.dtype, buffer=raw, offset=-low, strides=a.strides)


def install(native: Any) -> None:
    """Every launch from now on runs on fenced copies."""
    if sys.platform != "linux":
        return
    plain = native._launcher()  # before ours: it puts itself in the module's place

    count = itertools.count()

    def launch(what: Any, out: np.ndarray, ins: Any) -> int:
        boxes: list[_Fenced] = []
        at_start = next(count) % 2 == 1  # every other launch
        try:
            result = _inside(out, boxes, at_start)
            status = plain(what, result, [_inside(x, boxes, at_start) for x in ins])
            if result is not out:
                out[...] = result
            return status
        finally:
            for box in boxes:
                box.close()

    native.launch = launch

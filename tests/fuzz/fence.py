"""Memory between pages that may not be touched: a stray access faults at once.

Without this a kernel that reads or writes past an array mostly goes on unseen, and the process
crashes later somewhere else.  `install` runs launches from Python on copies that lie so, to the
byte; `install_memory` lets every array of NumPy lie so, for what native code launches itself: the
native forms of ops, the steps of compiled programs.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
from typing import Any

import numpy as np

SIDE = 16 << 20  # bytes of fence on each side (address space only)
SIDE_OF_MANY = 1 << 16  # the same where every array has one
PAGE = mmap.PAGESIZE
_NONE, _READ_WRITE = 0, 3
_PRIVATE_ANONYMOUS_NORESERVE = 0x02 | 0x20 | 0x4000  # Linux


class _Fenced:
    """`size` bytes that end where the fence begins, or start where it ends."""

    libc: Any = None

    def __init__(self, size: int, at_start: bool, side: int = SIDE) -> None:
        if _Fenced.libc is None:
            _Fenced.libc = _library()
        pages = -(-size // PAGE) * PAGE
        self.size, self.whole = size, pages + 2 * side
        self.start = self.libc.mmap(None, self.whole, _NONE, _PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
        if self.start in (None, ctypes.c_void_p(-1).value):
            raise MemoryError("no address space for a fence")
        self.address = self.start + side + (0 if at_start else pages - size)
        if self.libc.mprotect(self.start + side, pages, _READ_WRITE):
            self.close()
            raise MemoryError("no memory within a fence")

    def close(self) -> None:
        self.libc.munmap(self.start, self.whole)


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


# Native code, for an array is freed wherever an exception is on its way.  A page in front of the
# fences holds what an array took: bytes of memory, its own.
_ALLOCATOR = f"""
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)
declare i32 @mprotect(ptr, i64, i32)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
@count = internal global i64 0

define ptr @fenced_malloc(ptr %context, i64 %size) {{
  %none = icmp eq i64 %size, 0
  %n = select i1 %none, i64 1, i64 %size
  %up = add i64 %n, {PAGE - 1}
  %pages = and i64 %up, -{PAGE}
  %whole = add i64 %pages, {2 * SIDE_OF_MANY + PAGE}
  %start = call ptr @mmap(ptr null, i64 %whole, i32 0, i32 {_PRIVATE_ANONYMOUS_NORESERVE}, i32 -1,
    i64 0)
  %at = ptrtoint ptr %start to i64
  %failed = icmp eq i64 %at, -1
  br i1 %failed, label %nothing, label %open
open:
  %inside = getelementptr i8, ptr %start, i64 {SIDE_OF_MANY + PAGE}
  %a = call i32 @mprotect(ptr %start, i64 {PAGE}, i32 {_READ_WRITE})
  %b = call i32 @mprotect(ptr %inside, i64 %pages, i32 {_READ_WRITE})
  %c = or i32 %a, %b
  %bad = icmp ne i32 %c, 0
  br i1 %bad, label %full, label %fine
full:
  %e = call i32 @munmap(ptr %start, i64 %whole)
  br label %nothing
nothing:
  ret ptr null
fine:
  store i64 %whole, ptr %start
  %own = getelementptr i64, ptr %start, i64 1
  store i64 %n, ptr %own
  %k = load i64, ptr @count
  %k1 = add i64 %k, 1
  store i64 %k1, ptr @count
  %odd = and i64 %k, 1
  %first = icmp eq i64 %odd, 0
  %left = sub i64 %pages, %n
  %off = select i1 %first, i64 %left, i64 0
  %p = getelementptr i8, ptr %inside, i64 %off
  ret ptr %p
}}

define ptr @fenced_calloc(ptr %context, i64 %many, i64 %size) {{
  %n = mul i64 %many, %size
  %p = call ptr @fenced_malloc(ptr %context, i64 %n)
  ret ptr %p
}}

define ptr @head_of(ptr %p) {{
  %at = ptrtoint ptr %p to i64
  %page = and i64 %at, -{PAGE}
  %head = sub i64 %page, {SIDE_OF_MANY + PAGE}
  %q = inttoptr i64 %head to ptr
  ret ptr %q
}}

define void @fenced_free(ptr %context, ptr %p, i64 %size) {{
  %none = icmp eq ptr %p, null
  br i1 %none, label %done, label %some
some:
  %start = call ptr @head_of(ptr %p)
  %whole = load i64, ptr %start
  %e = call i32 @munmap(ptr %start, i64 %whole)
  br label %done
done:
  ret void
}}

define ptr @fenced_realloc(ptr %context, ptr %p, i64 %size) {{
  %q = call ptr @fenced_malloc(ptr %context, i64 %size)
  %a = icmp eq ptr %q, null
  %b = icmp eq ptr %p, null
  %c = or i1 %a, %b
  br i1 %c, label %done, label %some
some:
  %start = call ptr @head_of(ptr %p)
  %own = getelementptr i64, ptr %start, i64 1
  %n = load i64, ptr %own
  %less = icmp ult i64 %n, %size
  %kept = select i1 %less, i64 %n, i64 %size
  call void @llvm.memcpy.p0.p0.i64(ptr %q, ptr %p, i64 %kept, i1 false)
  call void @fenced_free(ptr %context, ptr %p, i64 0)
  br label %done
done:
  ret ptr %q
}}
"""
_FUNCTIONS = ("malloc", "calloc", "realloc", "free")
_SET_HANDLER = 304  # its place in NumPy's table of functions
_kept: list[Any] = []


class _Handler(ctypes.Structure):
    """NumPy's `PyDataMem_Handler` (NEP 49)."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in _FUNCTIONS),
    )


def install_memory(native: Any, memory: Any) -> None:
    """Arrays that this thread makes from now on lie between fences, the ones of our allocator too.

    Every other one ends where a fence begins; the others start where one ends.
    """
    if sys.platform != "linux":
        return
    libc = _library()
    imports = {
        name: native.function_address(getattr(libc, name))
        for name in ("mmap", "munmap", "mprotect")
    }
    found = native.load(_ALLOCATOR, [f"fenced_{name}" for name in _FUNCTIONS], imports)
    handler = _Handler(b"fenced", 1, None, *(found[f"fenced_{name}"] for name in _FUNCTIONS))
    name = b"mem_handler"
    _kept.extend((handler, name))
    capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    make = capsule(("PyCapsule_New", ctypes.pythonapi))
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)
    set_handler(native._numpy_function(_SET_HANDLER))(make(ctypes.addressof(handler), name, None))
    memory.SMALL = 4 << 20  # up to here our allocator leaves arrays to NumPy

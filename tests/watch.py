"""Watch the room of kernels: every load and store of generated code against what it may touch.

    python -m pytest -p tests.watch tests/laws -k Softmax        (WEFT_TARGET=sse, avx2, avx512)

A pytest plugin, and what `kernels/test_watch.py` is made of.  The LLVM IR of each kernel gets a
check before every access; launches are then run from Python, stage by stage and thread by thread,
with scratch memory of their own.  A kernel may touch its block of words, the bytes between the
first and the last element of each operand, the scratch that its launch asked for,
and its rooms on the stack, which lie 256 bytes apart here.  Masked accesses count their set lanes.
What goes outside, or breaks the alignment that its instruction promises, is not done, and ends the
launch with `OutsideRoom`, which names the instruction.  Scratch and rooms start as bytes of ones
(NaN, -1): who reads what nobody wrote computes nonsense, which tests of values find.  Of tile
registers (AMX) every row counts, as the last table of shapes says; whoever uses one that has no
shape, or ends without releasing them, is told as well.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weft.compile import program
from weft.kernels import packed
from weft.kernels.target.llvm_types import BYTES
from weft.runtime import machine, native, threads

THREADS = int(os.environ.get("WEFT_WATCH_THREADS", "3"))  # that share a stage, one after another
APART = 256  # bytes around a room on the stack
_MOST = 4096  # ranges at a time
_SPARE = 1 << 16  # bytes where accesses go that are not done


class OutsideRoom(AssertionError):
    """A kernel touched memory that is not its own."""


# ------------------------------------------------------------------------------ the checks

# words: 0 ranges, 1 the first fault's kind (index of _KINDS; 0 none), 2 its address, 3 its bytes,
# 4 site, 5 spare memory; then (first, past the last) of each range
_KINDS = ("", "outside its room", "against its alignment", "a tile register without a shape")
_state = native.words([0] * (6 + 2 * _MOST))
_spare = np.zeros(_SPARE, np.uint8)
_state[5] = native.address(_spare)
_CHECKS = f"""
declare i64 @llvm.cttz.i64(i64, i1)
declare i64 @llvm.ctlz.i64(i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
@state = internal global ptr inttoptr (i64 {ctypes.addressof(_state)} to ptr)

define ptr @weft_watch(ptr %p, i64 %bytes, i64 %align, i64 %site) nounwind {{
entry:
  %state = load ptr, ptr @state
  %a = ptrtoint ptr %p to i64
  %e = add i64 %a, %bytes
  %less = sub i64 %align, 1
  %low = and i64 %a, %less
  %odd = icmp ne i64 %low, 0
  br i1 %odd, label %fault, label %first
first:
  %n = load i64, ptr %state
  br label %next
next:
  %k = phi i64 [ %n, %first ], [ %k1, %look ]
  %k1 = sub i64 %k, 1
  %more = icmp sge i64 %k1, 0
  br i1 %more, label %look, label %fault
look:
  %w = shl i64 %k1, 1
  %at = add i64 %w, 6
  %lo_at = getelementptr i64, ptr %state, i64 %at
  %lo = load i64, ptr %lo_at
  %hi_at = getelementptr i64, ptr %lo_at, i64 1
  %hi = load i64, ptr %hi_at
  %above = icmp uge i64 %a, %lo
  %below = icmp ule i64 %e, %hi
  %in = and i1 %above, %below
  br i1 %in, label %good, label %next
good:
  ret ptr %p
fault:
  %kind = phi i64 [ 2, %entry ], [ 1, %next ]
  %seen_at = getelementptr i64, ptr %state, i64 1
  %seen = load i64, ptr %seen_at
  %is_first = icmp eq i64 %seen, 0
  br i1 %is_first, label %tell, label %done
tell:
  store i64 %kind, ptr %seen_at
  %f2 = getelementptr i64, ptr %state, i64 2
  store i64 %a, ptr %f2
  %f3 = getelementptr i64, ptr %state, i64 3
  store i64 %bytes, ptr %f3
  %f4 = getelementptr i64, ptr %state, i64 4
  store i64 %site, ptr %f4
  br label %done
done:
  %f5 = getelementptr i64, ptr %state, i64 5
  %spare = load ptr, ptr %f5
  ret ptr %spare
}}

define ptr @weft_watch_mask(ptr %p, i64 %mask, i64 %size, i64 %align, i64 %site) nounwind {{
entry:
  %none = icmp eq i64 %mask, 0
  br i1 %none, label %good, label %some
good:
  ret ptr %p
some:
  %low = call i64 @llvm.cttz.i64(i64 %mask, i1 true)
  %zeros = call i64 @llvm.ctlz.i64(i64 %mask, i1 true)
  %high = sub i64 64, %zeros
  %from = mul i64 %low, %size
  %q = getelementptr i8, ptr %p, i64 %from
  %lanes = sub i64 %high, %low
  %bytes = mul i64 %lanes, %size
  %r = call ptr @weft_watch(ptr %q, i64 %bytes, i64 %align, i64 %site)
  %same = icmp eq ptr %r, %q
  %to = select i1 %same, ptr %p, ptr %r
  ret ptr %to
}}

define i64 @weft_watch_span(ptr %p, i64 %bytes, i64 %site) nounwind {{
entry:
  %none = icmp eq i64 %bytes, 0
  br i1 %none, label %nothing, label %some
nothing:
  ret i64 0
some:
  %r = call ptr @weft_watch(ptr %p, i64 %bytes, i64 1, i64 %site)
  %same = icmp eq ptr %r, %p
  %n = select i1 %same, i64 %bytes, i64 0
  ret i64 %n
}}

define void @weft_watch_room(ptr %p, i64 %bytes) nounwind {{
entry:
  call void @llvm.memset.p0.i64(ptr %p, i8 -1, i64 %bytes, i1 false)
  %state = load ptr, ptr @state
  %n = load i64, ptr %state
  %n1 = add i64 %n, 1
  store i64 %n1, ptr %state
  %w = shl i64 %n, 1
  %at = add i64 %w, 6
  %lo_at = getelementptr i64, ptr %state, i64 %at
  %lo = ptrtoint ptr %p to i64
  store i64 %lo, ptr %lo_at
  %hi_at = getelementptr i64, ptr %lo_at, i64 1
  %hi = add i64 %lo, %bytes
  store i64 %hi, ptr %hi_at
  ret void
}}

define void @weft_watch_leave(i64 %rooms) nounwind {{
entry:
  %state = load ptr, ptr @state
  %n = load i64, ptr %state
  %n1 = sub i64 %n, %rooms
  store i64 %n1, ptr %state
  ret void
}}
"""
# The table that was loaded last is kept: bytes of a row from byte 16, two each, rows from byte 48.
# A register without a shape ends the process when it is used: then all get one.
_shapes = np.zeros(64, np.uint8)
_shaped = np.zeros(64, np.uint8)
_shaped[0], _shaped[16:32:2], _shaped[48:56] = 1, 64, 16
_TILES = f"""
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
@shapes = internal global ptr inttoptr (i64 {native.address(_shapes)} to ptr)
@shaped = internal global ptr inttoptr (i64 {native.address(_shaped)} to ptr)

define ptr @weft_watch_shapes(ptr %table, i64 %site) nounwind {{
entry:
  %shaped = load ptr, ptr @shaped
  %p = call ptr @weft_watch(ptr %table, i64 64, i64 1, i64 %site)
  %same = icmp eq ptr %p, %table
  %q = select i1 %same, ptr %p, ptr %shaped
  call void @weft_watch_keep(ptr %q)
  ret ptr %q
}}

define void @weft_watch_keep(ptr %table) nounwind {{
entry:
  %shapes = load ptr, ptr @shapes
  call void @llvm.memcpy.p0.p0.i64(ptr %shapes, ptr %table, i64 64, i1 false)
  ret void
}}

define void @weft_watch_release() nounwind {{
entry:
  %shapes = load ptr, ptr @shapes
  call void @llvm.memset.p0.i64(ptr %shapes, i8 0, i64 64, i1 false)
  ret void
}}

define i64 @weft_watch_register(i64 %register, i64 %site) nounwind {{
entry:
  %shapes = load ptr, ptr @shapes
  %at = add i64 %register, 48
  %rows_at = getelementptr i8, ptr %shapes, i64 %at
  %few = load i8, ptr %rows_at
  %rows = zext i8 %few to i64
  %none = icmp eq i64 %rows, 0
  br i1 %none, label %fault, label %good
good:
  ret i64 %rows
fault:
  %state = load ptr, ptr @state
  %seen_at = getelementptr i64, ptr %state, i64 1
  %seen = load i64, ptr %seen_at
  %is_first = icmp eq i64 %seen, 0
  br i1 %is_first, label %tell, label %shape
tell:
  store i64 3, ptr %seen_at
  %f4 = getelementptr i64, ptr %state, i64 4
  store i64 %site, ptr %f4
  br label %shape
shape:
  %shaped = load ptr, ptr @shaped
  call void @llvm.memcpy.p0.p0.i64(ptr %shapes, ptr %shaped, i64 64, i1 false)
  call void @llvm.x86.ldtilecfg(ptr %shaped)
  ret i64 0
}}

define ptr @weft_watch_tile(ptr %p, i64 %pitch, i64 %register, i64 %site) nounwind {{
entry:
  %rows = call i64 @weft_watch_register(i64 %register, i64 %site)
  %shapes = load ptr, ptr @shapes
  %twice = shl i64 %register, 1
  %at = add i64 %twice, 16
  %bytes_at = getelementptr i8, ptr %shapes, i64 %at
  %few = load i16, ptr %bytes_at
  %bytes = zext i16 %few to i64
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %look ]
  %more = icmp slt i64 %i, %rows
  br i1 %more, label %look, label %good
look:
  %far = mul i64 %i, %pitch
  %q = getelementptr i8, ptr %p, i64 %far
  %r = call ptr @weft_watch(ptr %q, i64 %bytes, i64 1, i64 %site)
  %same = icmp eq ptr %r, %q
  %i1 = add i64 %i, 1
  br i1 %same, label %next, label %bad
good:
  %none = icmp eq i64 %rows, 0
  br i1 %none, label %bad, label %fine
fine:
  ret ptr %p
bad:
  %state = load ptr, ptr @state
  %f5 = getelementptr i64, ptr %state, i64 5
  %spare = load ptr, ptr %f5
  ret ptr %spare
}}
"""
_NAMES = {
    "weft_watch": "ptr @weft_watch(ptr, i64, i64, i64)",
    "weft_watch_mask": "ptr @weft_watch_mask(ptr, i64, i64, i64, i64)",
    "weft_watch_span": "i64 @weft_watch_span(ptr, i64, i64)",
    "weft_watch_room": "void @weft_watch_room(ptr, i64)",
    "weft_watch_leave": "void @weft_watch_leave(i64)",
}
if native.host().has("amx-tile"):
    _CHECKS += _TILES
    _NAMES |= {
        "weft_watch_shapes": "ptr @weft_watch_shapes(ptr, i64)",
        "weft_watch_keep": "void @weft_watch_keep(ptr)",
        "weft_watch_release": "void @weft_watch_release()",
        "weft_watch_register": "i64 @weft_watch_register(i64, i64)",
        "weft_watch_tile": "ptr @weft_watch_tile(ptr, i64, i64, i64)",
    }

# ------------------------------------------------------------------------------ into the text

_texts: dict[int, str] = {}  # by checksum: where a site's number leads back to
_VECTOR = re.compile(r"<(\d+) x (\w+)>")
_LOAD = re.compile(r"(\s+%\S+ = load (?:atomic )?)(.+?), ptr ([^,\s]+)(.*)")
_STORE = re.compile(r"(\s+store (?:atomic )?)(.+), ptr ([^,\s]+)((?:, align \d+)?[^,]*(?:, !.*)?)$")
_ATOMIC = re.compile(r"(\s+%\S+ = atomicrmw \w+ ptr )([^,\s]+)(, i64 .*)")
_CALL = re.compile(r"(\s+(?:%\S+ = )?call .*?@)([\w.]+)\((.*)\)\s*$")
_ALLOCA = re.compile(r"\s+(%\S+) = alloca (.+), i64 (\d+), align (\d+)$")
_SAFE = re.compile(  # what does not read or write memory
    r"llvm\.(fma|s?min|s?max|umin|umax|minnum|maxnum|fabs|sqrt|floor|ceil|trunc|rint|copysign|ctpop"
    r"|cttz|ctlz|bitreverse|bswap|prefetch|vector\.reduce|x86\.(avx512|avx2|sse)|aarch64\.neon|ldexp"
    r"|usub|sadd|uadd|abs|fptosi|fptoui|is\.fpclass|roundeven|x86\.sse\.sfence|experimental)\b.*"
)


def _bytes_of(type: str) -> int:
    """Bytes in memory."""
    if found := _VECTOR.fullmatch(type):
        lanes, element = int(found[1]), found[2]
        return -(-lanes // 8) if element == "i1" else lanes * BYTES[element]
    if found := re.fullmatch(r"\[(\d+) x (.+)\]", type):
        return int(found[1]) * _bytes_of(found[2])
    if found := re.fullmatch(r"i(\d+)", type):
        return -(-int(found[1]) // 8)
    return BYTES[type]


def _arguments(text: str) -> list[str]:
    """The arguments of a call: commas within brackets do not part them."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "<([{") - (c in ">)]}")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _aligned(text: str) -> int:
    found = re.search(r"align (\d+)", text)
    return int(found[1]) if found else 1


class _Watched:
    """A module's text with the checks; `lines` is what becomes of it."""

    def __init__(self, text: str) -> None:
        self.mark = zlib.crc32(text.encode()) << 32
        self.text = f"\n{text}"
        self.lines: list[str] = []
        self.count = 0
        self.unknown: set[str] = set()
        _texts[self.mark >> 32] = text
        inside = set(re.findall(r"^define .*?@([\w.]+)\(", text, re.M))
        rooms: list[tuple[str, int]] = []
        entering = False
        for number, line in enumerate(text.splitlines()):
            self.site = self.mark | number
            if line.startswith("define "):
                rooms, entering = [], False
            elif line == "entry:":
                entering = True
            elif entering and (found := _ALLOCA.match(line)):
                name, type, count, align = found.groups()
                size, margin = _bytes_of(type) * int(count), max(APART, int(align))
                self.add(f"  {name}.wide = alloca i8, i64 {size + 2 * margin}, align {align}")
                self.add(f"  {name} = getelementptr i8, ptr {name}.wide, i64 {margin}")
                rooms.append((name, size))
                continue
            elif entering:
                entering = False
                for name, size in rooms:
                    self.add(f"  call void @weft_watch_room(ptr {name}, i64 {size})")
            if rooms and re.match(r"\s+ret\b", line):
                self.add(f"  call void @weft_watch_leave(i64 {len(rooms)})")
            self.line(line, inside)
        if self.unknown:
            raise NotImplementedError(f"watch: what do {sorted(self.unknown)} touch?")

    def add(self, line: str) -> None:
        self.lines.append(line)

    def new(self, text: str) -> str:
        self.count += 1
        self.add(f"  %watch{self.count} = {text}")
        return f"%watch{self.count}"

    def check(self, pointer: str, size: int, align: int) -> str:
        return self.new(
            f"call ptr @weft_watch(ptr {pointer}, i64 {size}, i64 {align}, i64 {self.site})"
        )

    def line(self, line: str, inside: set[str]) -> None:
        if found := _LOAD.match(line):
            head, type, pointer, rest = found.groups()
            to = self.check(pointer, _bytes_of(type), _aligned(rest))
            self.add(f"{head}{type}, ptr {to}{rest}")
        elif found := _STORE.match(line):
            head, value, pointer, rest = found.groups()
            type = f"{value.split('>')[0]}>" if value[0] == "<" else value.split()[0]
            to = self.check(pointer, _bytes_of(type), _aligned(rest))
            self.add(f"{head}{value}, ptr {to}{rest}")
        elif found := _ATOMIC.match(line):
            self.add(f"{found[1]}{self.check(found[2], 8, 8)}{found[3]}")
        elif re.match(r"\s+(%\S+ = )?(load|store|atomicrmw|cmpxchg|alloca)\b", line):
            self.unknown.add(line.strip())
        elif found := _CALL.match(line):
            self.call(line, *found.groups(), inside)  # type: ignore[arg-type]
        else:
            self.add(line)

    def call(self, line: str, head: str, name: str, text: str, inside: set[str]) -> None:
        given = _arguments(text)
        if name.startswith(("llvm.masked.load.", "llvm.masked.store.")):
            k = int(name.startswith("llvm.masked.store."))
            pointer, align = given[k].split()[-1], int(given[k + 1].split()[-1])
            lanes = int(given[k + 2].split()[0][1:])
            value = given[0] if k else given[3]
            size = _bytes_of(f"{value.split('>')[0]}>") // lanes
            mask = self.new(f"bitcast {given[k + 2]} to i{lanes}")
            if lanes < 64:
                mask = self.new(f"zext i{lanes} {mask} to i64")
            given[k] = "ptr " + self.new(
                f"call ptr @weft_watch_mask(ptr {pointer}, i64 {mask}, i64 {size}, i64 {align}, "
                f"i64 {self.site})"
            )
            line = f"{head}{name}({', '.join(given)})"
        elif name.startswith(("llvm.memcpy.", "llvm.memmove.", "llvm.memset.")):
            for pointer in given[: 1 if "memset" in name else 2]:
                size = self.new(
                    f"call i64 @weft_watch_span({pointer}, {given[2]}, i64 {self.site})"
                )
                given[2] = f"i64 {size}"
            line = f"{head}{name}({', '.join(given)})"
        elif name.startswith("llvm.x86.t") or name == "llvm.x86.ldtilecfg":
            line = f"{head}{name}({', '.join(self.tiles(name[9:], given))})"
        elif name not in inside and not _SAFE.fullmatch(name) and "ptr " in text:
            self.unknown.add(name)
        self.add(line)

    def tiles(self, name: str, given: list[str]) -> list[str]:
        """The arguments of an instruction of tile registers, behind its checks."""
        if name == "ldtilecfg" and f"\n{given[0][4:]} = internal constant [64 x i8]" in self.text:
            self.add(f"  call void @weft_watch_keep({given[0]})")
        elif name == "ldtilecfg":
            given[0] = "ptr " + self.new(
                f"call ptr @weft_watch_shapes({given[0]}, i64 {self.site})"
            )
        elif name == "tilerelease":
            self.add("  call void @weft_watch_release()")
        elif name in ("tileloadd64", "tileloaddt164", "tilestored64"):
            register, pointer, pitch = (part.split()[-1] for part in given)
            to = self.new(
                f"call ptr @weft_watch_tile(ptr {pointer}, i64 {pitch}, i64 {register}, "
                f"i64 {self.site})"
            )
            same = self.new(f"icmp eq ptr {to}, {pointer}")
            step = self.new(f"select i1 {same}, i64 {pitch}, i64 0")  # spare memory has one row
            given[1:] = [f"ptr {to}", f"i64 {step}"]
        elif name == "tilezero" or name.startswith("tdp"):
            for register in given:
                self.new(f"call i64 @weft_watch_register(i64 {register[3:]}, i64 {self.site})")
        else:
            self.unknown.add(name)
        return given


def watched(text: str) -> str:
    """The module with a check before every access."""
    made = _Watched(text).lines
    declared = [f"declare {f}" for f in _NAMES.values()]
    return "\n".join([*declared, *made]) + "\n"


# ------------------------------------------------------------------------------ running

_load = machine.load
_load_made = machine.load_made
_checks: dict[str, int] = {}
_known: set[int] = set()  # addresses of functions with checks, and of those that shall have none
_sizes: dict[int, tuple[int, Any]] = {}  # packed bytes that a launch (by id; kept) reads at input 1
launches = 0  # so far: a test of nothing would pass


def load_watched(text: str, exports: Sequence[str], imports: Any = None) -> dict[str, int]:
    """As `native.load`, with the checks."""
    if not _checks:
        _checks.update(_load(_CHECKS, list(_NAMES)))
    found = _load(watched(text), exports, {**(imports or {}), **_checks})
    _known.update(found.values())
    return found


def _watching_load(text: str, exports: Sequence[str], imports: Any = None) -> dict[str, int]:
    kernel = sys._getframe(1).f_globals["__name__"].startswith("weft.kernels.")
    found = (load_watched if kernel else _load)(text, exports, imports)
    _known.update(found.values())
    return found


def _watching_load_made(
    exports: Sequence[str], make: Callable[..., str], *args: Any, **more: Any
) -> dict[str, int]:
    return load_watched(make(*args, **more), exports)


def _extent(shape: Sequence[int], steps: Sequence[int], size: int) -> tuple[int, int]:
    """First byte and the one past the last, from the address of element 0."""
    if 0 in shape:
        return 0, 0
    ends = [(n - 1) * s for n, s in zip(shape, steps, strict=True)]
    return sum(e for e in ends if e < 0), sum(e for e in ends if e > 0) + size


def _run(launch: native.Launch, block: Any, extents: Sequence[tuple[int, int]]) -> None:
    """The launch on a block whose pointers are set; the scratch pointer is set here."""
    global launches
    launches += 1
    n = len(extents)
    size = launch.scratch + THREADS * launch.scratch_per_thread
    scratch = np.full(size + 128, 255, np.uint8)
    at = (native.address(scratch) + 63) // 64 * 64
    block[2 + n] = at
    ranges = [(ctypes.addressof(block), ctypes.addressof(block) + ctypes.sizeof(block))]
    ranges.append((at, at + size))
    ranges += [(block[2 + k] + lo, block[2 + k] + hi) for k, (lo, hi) in enumerate(extents)]
    for k, pair in enumerate(ranges):
        _state[6 + 2 * k], _state[7 + 2 * k] = pair
    block[0] = block[1] = 0
    for stage in launch.stages:
        if stage.function not in _known:
            raise OutsideRoom(f"a kernel without checks; ints {launch.ints}")
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)(
            stage.function
        )
        nth = THREADS if stage.shared else 1
        for tid in range(nth):
            _state[0], _shapes[:] = len(ranges), 0
            call(ctypes.addressof(block), tid, nth)
            if _state[1]:
                _tell(launch, ranges, [2 + k for k in range(n)])
            if _shapes.any():
                raise OutsideRoom(f"tile registers are not released; ints {launch.ints}")
        if block[0]:
            return


def _tell(launch: native.Launch, ranges: list[tuple[int, int]], words: list[int]) -> None:
    kind, address, size, site = _state[1:5]
    _state[1] = 0
    site &= (1 << 64) - 1
    lines = _texts[site >> 32].splitlines()
    number = site & 0xFFFFFFFF
    function = next(x for x in reversed(lines[:number]) if x.startswith("define "))
    names = ["block", "scratch", "out", *(f"input {k}" for k in range(len(words) - 1))]
    near = [
        f"{name}: bytes {address - lo} to {address - lo + size} of {hi - lo}"
        for name, (lo, hi) in zip(names, ranges, strict=True)
        if hi - lo and lo - 4096 <= address <= hi + 4096
    ]
    instruction = f"{lines[number].strip()}\n  of {function.split('(')[0]} touches"
    if kind == 3:
        raise OutsideRoom(f"{instruction} {_KINDS[kind]}; ints {launch.ints}")
    raise OutsideRoom(
        f"{instruction} {size} bytes {_KINDS[kind]}; "
        f"{'; '.join(near) or 'no operand is near: a room on the stack?'}; ints {launch.ints}"
    )


def _launch(launch: native.Launch, out: np.ndarray, ins: Sequence[np.ndarray]) -> int:
    arrays = (out, *ins)
    block = native.words([0, 0, *(native.address(a) for a in arrays), 0, *launch.ints])
    extents = [_extent(a.shape, a.strides, a.itemsize) for a in arrays]
    _run(launch, block, extents)
    if block[0]:
        native._detail.value = block[1]
    return block[0]


def _run_table(table: Any, start: int = 0, stop: int | None = None) -> tuple[int, int, int]:
    stop = len(table) if stop is None else stop
    for i in range(start, stop):
        launch, block = table._launches[i], table._blocks[i]
        extents = table.extents[i]
        if id(launch) in _sizes:
            extents = [*extents[:2], (0, _sizes[id(launch)][0]), *extents[3:]]
        _run(launch, block, extents)
        if block[0]:
            return i, block[0], block[1]
    return -1, 0, 0


def _watch_programs(assemble: Callable[[Any], None]) -> Callable[[Any], None]:
    def assembled(self: Any) -> None:
        assemble(self)
        self.table.extents = [
            [
                _extent(x.shape, [s * x.dtype.itemsize for s in x.strides], x.dtype.itemsize)
                for x in (p.layout for p in (e.out, *e.ins))
            ]
            for e in self.entries
        ]

    return assembled


def _noted(init: Callable[..., None]) -> Callable[..., None]:
    def noted(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        _sizes[id(self.launch)] = self.size, self.launch

    return noted


def install() -> None:
    """From now on kernels are watched: to be called before the first one runs."""
    os.environ["WEFT_NO_BUILTIN"] = "1"  # every launch goes through Python then
    exchanged = {"load": (_load, _watching_load), "load_made": (_load_made, _watching_load_made)}
    for module in list(sys.modules.values()):
        for name, (plain, watching) in exchanged.items():
            if getattr(module, name, None) is plain:
                setattr(module, name, watching)
    threads.set_num_threads(THREADS)
    native.launch = _launch
    native.Table.run = _run_table  # type: ignore[method-assign]
    program.Program._assemble = _watch_programs(program.Program._assemble)  # type: ignore[method-assign]
    packed.Packed.__init__ = _noted(packed.Packed.__init__)


def pytest_configure() -> None:
    install()

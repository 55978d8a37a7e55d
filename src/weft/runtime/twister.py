"""mt19937 in native code: eight words of the twist at a time, and the draws that follow it at once.

    void weft_mt_words(ptr state, ptr out, i64 n)                  u32 out[n]
    void weft_mt_uniform24(ptr state, ptr out, i64 n)              f32 out[n], (w & 2^24-1) 2^-24
    void weft_mt_uniform53(ptr state, ptr out, i64 n)              f64 out[n], (v & 2^53-1) 2^-53
    void weft_mt_below(ptr state, ptr out, i64 n, i64 limit)       u8 out[n], (v & 2^53-1) < limit
    void weft_mt_shuffle(ptr order, ptr w, i64 n)                  swap i and i + w[i] % (n - i)
    void weft_mt_shuffle64(ptr order, ptr v, i64 n)                insert i at v[i] % (i + 1)

w is a word, v two words, the first one high. `state` is the key, the key tempered, the number of
its words that are used up, and what small draws look at: how many threads draw from another stream
(ASIDE), a normal number that waits (WAITING, a double), whether one does (WAITS). Source:
Matsumoto, Nishimura, "Mersenne Twister", 1998.
"""

import ctypes
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from weft.runtime import machine, memory, native
from weft.runtime.once import once

N, M = 624, 397
USED = 2 * N
ASIDE, WAITING, WAITS = USED + 1, USED + 2, USED + 4
STATE_WORDS = USED + 6
_PAIRS = 1024  # numbers of two words that are made at a time: 8 kB of stack

_HEAD = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
"""

_WORDS = f"""
define void @weft_mt_words(ptr %state, ptr %out, i64 %n) {{
entry:
  %place = getelementptr i32, ptr %state, i64 {USED}
  %tempered = getelementptr i32, ptr %state, i64 {N}
  %used0 = load i32, ptr %place
  %start = zext i32 %used0 to i64
  br label %check
check:
  %used = phi i64 [%start, %entry], [%used_next, %copy]
  %done = phi i64 [0, %entry], [%done_next, %copy]
  %left = sub i64 %n, %done
  %more = icmp sgt i64 %left, 0
  br i1 %more, label %draw, label %end
draw:
  %empty = icmp sge i64 %used, {N}
  br i1 %empty, label %refill, label %copy
refill:
  call void @twist(ptr %state)
  br label %copy
copy:
  %from = phi i64 [%used, %draw], [0, %refill]
  %here = sub i64 {N}, %from
  %count = call i64 @llvm.smin.i64(i64 %here, i64 %left)
  %source = getelementptr i32, ptr %tempered, i64 %from
  %target = getelementptr i32, ptr %out, i64 %done
  %bytes = shl i64 %count, 2
  call void @llvm.memcpy.p0.p0.i64(ptr align 4 %target, ptr align 4 %source, i64 %bytes, i1 false)
  %used_next = add i64 %from, %count
  %done_next = add i64 %done, %count
  br label %check
end:
  %used1 = trunc i64 %used to i32
  store i32 %used1, ptr %place
  ret void
}}
"""

# Draws n numbers in pieces of _PAIRS and hands each piece, as words, to @NAME_piece.
_PIECES = """
define void @weft_mt_NAME(ptr %state, ptr %out, i64 %nARGUMENT) {
entry:
  %buffer = alloca [WORDS x i32], align 64
  br label %check
check:
  %done = phi i64 [0, %entry], [%done_next, %draw]
  %left = sub i64 %n, %done
  %more = icmp sgt i64 %left, 0
  br i1 %more, label %draw, label %end
draw:
  %count = call i64 @llvm.smin.i64(i64 %left, i64 PIECE)
  %words = mul i64 %count, PER
  call void @weft_mt_words(ptr %state, ptr %buffer, i64 %words)
  %target = getelementptr OUT, ptr %out, i64 %done
  call void @NAME_piece(ptr %buffer, ptr %target, i64 %countPASS)
  %done_next = add i64 %done, %count
  br label %check
end:
  ret void
}
"""


_SHUFFLE = """
define void @weft_mt_shuffle(ptr %order, ptr %words, i64 %n) {
entry:
  %last = sub i64 %n, 1
  %any = icmp sgt i64 %last, 0
  br i1 %any, label %loop, label %end
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %pw = getelementptr i32, ptr %words, i64 %i
  %w = load i32, ptr %pw
  %left = sub i64 %n, %i
  %left32 = trunc i64 %left to i32
  %r = urem i32 %w, %left32
  %r64 = zext i32 %r to i64
  %j = add i64 %i, %r64
  %pi = getelementptr i64, ptr %order, i64 %i
  %pj = getelementptr i64, ptr %order, i64 %j
  %a = load i64, ptr %pi
  %b = load i64, ptr %pj
  store i64 %b, ptr %pi
  store i64 %a, ptr %pj
  %next = add i64 %i, 1
  %again = icmp slt i64 %next, %last
  br i1 %again, label %loop, label %end
end:
  ret void
}
define void @weft_mt_shuffle64(ptr %order, ptr %values, i64 %n) {
entry:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %loop, label %end
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %pv = getelementptr i64, ptr %values, i64 %i
  %v = load i64, ptr %pv
  %next = add i64 %i, 1
  %z = urem i64 %v, %next
  %pi = getelementptr i64, ptr %order, i64 %i
  %pz = getelementptr i64, ptr %order, i64 %z
  store i64 %i, ptr %pi
  %b = load i64, ptr %pz
  store i64 %b, ptr %pi
  store i64 %i, ptr %pz
  %again = icmp slt i64 %next, %n
  br i1 %again, label %loop, label %end
end:
  ret void
}
"""


class _Loop:
    """Code of one vector loop, made for eight lanes and for one; `{v}` is the lane count."""

    def __init__(self, name: str, arguments: str, lines: list[str]) -> None:
        self.name, self.arguments, self.lines = name, arguments, lines

    def text(self) -> str:
        """`void name(..., i64 %n)`: eight at a time while they last, then one by one."""
        return "\n".join(
            [
                f"define internal void @{self.name}({self.arguments}, i64 %n) {{",
                "entry:",
                "  %whole = and i64 %n, -8",
                *self._loop(8, "entry", "0", "%whole"),
                *self._loop(1, "done8", "%whole", "%n"),
                "  ret void",
                "}",
                "",
            ]
        )

    def _loop(self, lanes: int, before: str, start: str, stop: str) -> list[str]:
        body = [
            "  " + line.replace("$", f"%x{lanes}_").replace("{v}", str(lanes))
            for line in self.lines
        ]
        return [
            f"  %any{lanes} = icmp slt i64 {start}, {stop}",
            f"  br i1 %any{lanes}, label %loop{lanes}, label %done{lanes}",
            f"loop{lanes}:",
            f"  $i = phi i64 [{start}, %{before}], [$next, %loop{lanes}]".replace(
                "$", f"%x{lanes}_"
            ),
            *body,
            f"  %x{lanes}_next = add i64 %x{lanes}_i, {lanes}",
            f"  %again{lanes} = icmp slt i64 %x{lanes}_next, {stop}",
            f"  br i1 %again{lanes}, label %loop{lanes}, label %done{lanes}",
            f"done{lanes}:",
        ]


def _splat(value: int | str, kind: str) -> str:
    return f"splat ({kind} {value})"


def _int(value: int) -> str:
    return _splat(value, "i32")


_TWIST = _Loop(
    "twist_part",  # key[i] from key[i], key[i + 1] and key[i + M] for i in [0, n) of `key`
    "ptr %key, ptr %far",
    [
        "$pa = getelementptr i32, ptr %key, i64 $i",
        "$pb = getelementptr i32, ptr $pa, i64 1",
        "$pc = getelementptr i32, ptr %far, i64 $i",
        "$a = load <{v} x i32>, ptr $pa, align 4",
        "$b = load <{v} x i32>, ptr $pb, align 4",
        "$c = load <{v} x i32>, ptr $pc, align 4",
        f"$high = and <{{v}} x i32> $a, {_int(-(2**31))}",
        f"$low = and <{{v}} x i32> $b, {_int(2**31 - 1)}",
        "$y = or <{v} x i32> $high, $low",
        f"$half = lshr <{{v}} x i32> $y, {_int(1)}",
        f"$bit = and <{{v}} x i32> $b, {_int(1)}",
        f"$all = sub <{{v}} x i32> {_int(0)}, $bit",
        f"$mask = and <{{v}} x i32> $all, {_int(0x9908B0DF - 2**32)}",
        "$d = xor <{v} x i32> $c, $half",
        "$e = xor <{v} x i32> $d, $mask",
        "store <{v} x i32> $e, ptr $pa, align 4",
    ],
)

_TEMPER = _Loop(
    "temper",
    "ptr %key, ptr %out",
    [
        "$p = getelementptr i32, ptr %key, i64 $i",
        "$q = getelementptr i32, ptr %out, i64 $i",
        "$y0 = load <{v} x i32>, ptr $p, align 4",
        f"$s0 = lshr <{{v}} x i32> $y0, {_int(11)}",
        "$y1 = xor <{v} x i32> $y0, $s0",
        f"$s1 = shl <{{v}} x i32> $y1, {_int(7)}",
        f"$m1 = and <{{v}} x i32> $s1, {_int(0x9D2C5680 - 2**32)}",
        "$y2 = xor <{v} x i32> $y1, $m1",
        f"$s2 = shl <{{v}} x i32> $y2, {_int(15)}",
        f"$m2 = and <{{v}} x i32> $s2, {_int(0xEFC60000 - 2**32)}",
        "$y3 = xor <{v} x i32> $y2, $m2",
        f"$s3 = lshr <{{v}} x i32> $y3, {_int(18)}",
        "$y4 = xor <{v} x i32> $y3, $s3",
        "store <{v} x i32> $y4, ptr $q, align 4",
    ],
)

# The last word's neighbour is the first of the new block, which stands one past the key's end
# while the parts run: word 624 of the state, where the tempered words come afterwards.
_REFILL = f"""
define internal void @twist(ptr %key) {{
  %middle = getelementptr i32, ptr %key, i64 {M}
  %second = getelementptr i32, ptr %key, i64 {N - M}
  %end = getelementptr i32, ptr %key, i64 {N}
  call void @twist_part(ptr %key, ptr %middle, i64 {N - M})
  %first = load i32, ptr %key
  store i32 %first, ptr %end
  call void @twist_part(ptr %second, ptr %key, i64 {M})
  call void @temper(ptr %key, ptr %end, i64 {N})
  ret void
}}
"""

_UNIFORM24 = _Loop(
    "uniform24_piece",
    "ptr %words, ptr %out",
    [
        "$p = getelementptr i32, ptr %words, i64 $i",
        "$q = getelementptr float, ptr %out, i64 $i",
        "$w = load <{v} x i32>, ptr $p, align 4",
        f"$k = and <{{v}} x i32> $w, {_int(2**24 - 1)}",
        "$f = sitofp <{v} x i32> $k to <{v} x float>",
        f"$u = fmul <{{v}} x float> $f, {_splat('0x3E70000000000000', 'float')}",
        "store <{v} x float> $u, ptr $q, align 4",
    ],
)

# On little-endian machines a pair of words read as 64 bits has its halves swapped.
_PAIR = [
    "$p = getelementptr i64, ptr %words, i64 $i",
    "$w = load <{v} x i64>, ptr $p, align 4",
    f"$h = shl <{{v}} x i64> $w, {_splat(32, 'i64')}",
    f"$l = lshr <{{v}} x i64> $w, {_splat(32, 'i64')}",
    "$r = or <{v} x i64> $h, $l",
    f"$k = and <{{v}} x i64> $r, {_splat(2**53 - 1, 'i64')}",
]

_UNIFORM53 = _Loop(
    "uniform53_piece",
    "ptr %words, ptr %out",
    [
        *_PAIR,
        "$q = getelementptr double, ptr %out, i64 $i",
        "$f = sitofp <{v} x i64> $k to <{v} x double>",
        f"$u = fmul <{{v}} x double> $f, {_splat('0x3CA0000000000000', 'double')}",
        "store <{v} x double> $u, ptr $q, align 8",
    ],
)

_BELOW = _Loop(
    "below_piece",
    "ptr %words, ptr %out, i64 %limit",
    [
        *_PAIR,
        "$q = getelementptr i8, ptr %out, i64 $i",
        "$one = insertelement <{v} x i64> poison, i64 %limit, i64 0",
        "$limits = shufflevector <{v} x i64> $one, <{v} x i64> poison, <{v} x i32> zeroinitializer",
        "$hit = icmp ult <{v} x i64> $k, $limits",
        "$byte = zext <{v} x i1> $hit to <{v} x i8>",
        "store <{v} x i8> $byte, ptr $q, align 1",
    ],
)


def _pieces(name: str, out: str, words_each: int, argument: str = "") -> str:
    found = _PIECES.replace("NAME", name).replace("OUT", out).replace("PIECE", str(_PAIRS))
    found = found.replace("WORDS", str(_PAIRS * words_each)).replace("PER", str(words_each))
    if argument:  # the loops take n last
        found = found.replace("ptr %target, i64 %countPASS", f"ptr %target, {argument}, i64 %count")
    return found.replace("PASS", "").replace("ARGUMENT", f", {argument}" if argument else "")


def text() -> str:
    """The module's IR."""
    loops = (_TWIST, _TEMPER, _UNIFORM24, _UNIFORM53, _BELOW)
    return "".join(
        [
            _HEAD,
            *(loop.text() for loop in loops),
            _REFILL,
            _WORDS,
            _SHUFFLE,
            _pieces("uniform24", "float", 1),
            _pieces("uniform53", "double", 2),
            _pieces("below", "i8", 2, "i64 %limit"),
        ]
    )


EXPORTS = (
    "weft_mt_words",
    "weft_mt_uniform24",
    "weft_mt_uniform53",
    "weft_mt_below",
    "weft_mt_shuffle",
    "weft_mt_shuffle64",
)


@once
def functions() -> tuple[Callable[..., Any], ...]:
    """The compiled functions, in the order of EXPORTS; they take addresses and numbers."""
    found = machine.load(text(), EXPORTS)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    plain = ctypes.CFUNCTYPE(None, pointer, pointer, number)
    below = ctypes.CFUNCTYPE(None, pointer, pointer, number, number)
    kinds = (plain, plain, plain, below, plain, plain)
    return tuple(kind(found[name]) for kind, name in zip(kinds, EXPORTS))


class Twister:
    """The engine: state and draws, without a lock."""

    __slots__ = ("_normal", "address", "state")

    def __init__(self) -> None:
        self.state = np.zeros(STATE_WORDS, np.uint32)
        self.address = self.state.ctypes.data
        self._normal = self.state[WAITING:WAITS].view(np.float64)

    def waiting(self) -> float | None:
        """The normal number that waits for the next call."""
        return float(self._normal[0]) if self.state[WAITS] else None

    def wait(self, z: float | None) -> None:
        self._normal[0], self.state[WAITS] = z or 0.0, z is not None

    def seed(self, seed: int) -> None:
        """Start from the low 32 bits of `seed`."""
        self.load(first_key(seed), N)

    def key(self) -> tuple[np.ndarray, int]:
        """The key's 624 words, and how many of the words that it makes are used up."""
        return self.state[:N].copy(), int(self.state[USED])

    def load(self, key: np.ndarray, used: int) -> None:
        """Continue from what `key` gave."""
        self.state[:N] = key
        self.state[USED] = used
        if used >= N:
            return
        y = self.state[:N].copy()  # tempered, as the native code keeps it
        y ^= y >> np.uint32(11)
        y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
        y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
        y ^= y >> np.uint32(18)
        self.state[N : 2 * N] = y

    def words(self, n: int) -> np.ndarray:
        """uint32 (n,)."""
        return self._draw(0, n, np.uint32)

    def uniform24(self, n: int) -> np.ndarray:
        """float32 (n,) in [0, 1): the low 24 bits of a word."""
        return self._draw(1, n, np.float32)

    def uniform53(self, n: int) -> np.ndarray:
        """float64 (n,) in [0, 1): the low 53 bits of two words."""
        return self._draw(2, n, np.float64)

    def below(self, n: int, p: float) -> np.ndarray:
        """bool (n,): `uniform53` < p, for p in [0, 1]."""
        return self._draw(3, n, np.bool_, below_limit(p))

    def shuffle(self, n: int) -> np.ndarray:
        """int64 (n,): 0..n-1 with each i swapped with a later place, one word each; n < 2^32."""
        order, words = np.arange(n), self.words(max(n - 1, 0))
        functions()[4](order.ctypes.data, words.ctypes.data, n)
        return order

    def shuffle64(self, n: int) -> np.ndarray:
        """int64 (n,): each i put at an earlier place, two words each."""
        words = self.words(2 * n).reshape(n, 2)[:, ::-1].copy()  # little-endian pairs
        order = np.empty(n, np.int64)
        functions()[5](order.ctypes.data, words.ctypes.data, n)
        return order

    def _draw(self, which: int, n: int, dtype: type, *limit: int) -> np.ndarray:
        out = memory.empty((n,), np.dtype(dtype))
        if n:
            functions()[which](self.address, native.address(out), n, *limit)
        return out


def below_limit(p: float) -> int:
    """v * 2^-53 < p for the v below this."""
    return math.ceil(p * 2.0**53)


def first_key(seed: int) -> np.ndarray:
    """The key that the low 32 bits of `seed` make: Knuth's recurrence."""
    return _key_of(seed & 0xFFFFFFFF)


@lru_cache(4)  # a new generator's is asked often
def _key_of(x: int) -> np.ndarray:
    words = [x]  # 0.1 ms; NumPy's C code takes a third of that, and its generators 10 ms to import
    for i in range(1, N):
        x = (1812433253 * (x ^ (x >> 30)) + i) & 0xFFFFFFFF
        words.append(x)
    key = np.array(words, np.uint32)
    key.flags.writeable = False
    return key

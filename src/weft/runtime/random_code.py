"""Native code for `random_dist.box_muller32`: the same arithmetic, eight lanes at a time.

    void weft_box_muller(float *data, i64 blocks, float mean, float std)

The operations and their order are those of the NumPy version, which stays the oracle in tests and
serves machines without fused multiply-add.

And stages (native.py) that make small tensors at once: draws from the process-wide generator,
number for number those of `random.Generator`, constants, the places of sorted numbers.  A draw's
stage runs with Python's global lock and takes the generator's own; where somebody else has it, or
a thread draws from another stream, it gives status 1 and has drawn nothing.
"""

import ctypes
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weft.runtime import ir_text, machine, native, random_dist, twister
from weft.runtime.once import once

EXPORT = "weft_box_muller"


class _Code:
    """Lines of IR; each method appends one and returns its value."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def emit(self, text: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def real(self, op: str, a: str, b: str) -> str:
        return self.emit(f"{op} <8 x float> {a}, {b}")

    def whole(self, op: str, a: str, value: int) -> str:
        return self.emit(f"{op} <8 x i32> {a}, {_whole(value)}")

    def fma(self, a: str, b: str, c: str) -> str:
        operands = ", ".join(f"<8 x float> {x}" for x in (a, b, c))
        return self.emit(f"call <8 x float> @llvm.fma.v8f32({operands})")

    def bits(self, x: str) -> str:
        return self.emit(f"bitcast <8 x float> {x} to <8 x i32>")

    def floats(self, x: str) -> str:
        return self.emit(f"bitcast <8 x i32> {x} to <8 x float>")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.emit(f"select <8 x i1> {condition}, <8 x float> {a}, <8 x float> {b}")


def _const(value: float | np.floating) -> str:
    """A float32 in every lane; LLVM writes floats as the bits of a double."""
    bits = struct.unpack("<Q", struct.pack("<d", float(value)))[0]
    return "<" + ", ".join([f"float 0x{bits:016X}"] * 8) + ">"


def _whole(value: int) -> str:
    return "<" + ", ".join([f"i32 {value}"] * 8) + ">"


def _log(c: _Code, x: str) -> str:
    bits = c.bits(x)
    exponent = c.whole("sub", c.whole("lshr", bits, 23), 0x7E)
    e = c.emit(f"sitofp <8 x i32> {exponent} to <8 x float>")
    x = c.floats(c.whole("or", c.whole("and", bits, 0x7FFFFF), 0x3F000000))
    small = c.emit(f"fcmp olt <8 x float> {x}, {_const(random_dist.SQRT_HALF)}")
    zero, one = _const(0.0), _const(1.0)
    x = c.real("fadd", c.real("fsub", x, one), c.select(small, x, zero))
    e = c.real("fsub", e, c.select(small, one, zero))
    z = c.real("fmul", x, x)
    first, *rest = random_dist.LOG_COEFFICIENTS
    y = _const(first)
    for coefficient in rest:
        y = c.fma(y, x, _const(coefficient))
    y = c.real("fmul", y, x)
    y = c.fma(y, z, c.real("fmul", e, _const(random_dist.LOG_LOW)))
    y = c.real("fsub", y, c.real("fmul", z, _const(0.5)))
    return c.fma(e, _const(random_dist.LOG_HIGH), c.real("fadd", x, y))


def _sincos(c: _Code, x: str) -> tuple[str, str]:
    scaled = c.real("fmul", x, _const(random_dist.FOUR_OVER_PI))
    octant = c.emit(f"fptosi <8 x float> {scaled} to <8 x i32>")
    octant = c.whole("and", c.whole("add", octant, 1), -2)
    y = c.emit(f"sitofp <8 x i32> {octant} to <8 x float>")
    sin_sign = c.whole("shl", c.whole("and", octant, 4), 29)
    turned = c.whole("xor", c.whole("sub", octant, 2), -1)
    cos_sign = c.whole("shl", c.whole("and", turned, 4), 29)
    swap = c.emit(f"icmp ne <8 x i32> {c.whole('and', octant, 2)}, {_whole(0)}")
    for part in random_dist.PI_4_PARTS:
        x = c.fma(y, _const(part), x)
    z = c.real("fmul", x, x)
    c0, c1, c2 = (_const(v) for v in random_dist.COS_COEFFICIENTS)
    cos = c.real("fmul", c.fma(c.fma(z, c0, c1), z, c2), z)
    cos = c.fma(cos, z, c.real("fmul", z, _const(-0.5)))
    cos = c.real("fadd", cos, _const(1.0))
    s0, s1, s2 = (_const(v) for v in random_dist.SIN_COEFFICIENTS)
    sin = c.real("fmul", c.fma(c.fma(z, s0, s1), z, s2), z)
    sin = c.fma(sin, x, x)

    def signed(value: str, sign: str) -> str:
        return c.floats(c.emit(f"xor <8 x i32> {c.bits(value)}, {sign}"))

    return signed(c.select(swap, cos, sin), sin_sign), signed(c.select(swap, sin, cos), cos_sign)


def text() -> str:
    """The module's IR."""
    c = _Code()
    low = c.emit("getelementptr float, ptr %data, i64 %offset")
    high = c.emit(f"getelementptr float, ptr {low}, i64 8")
    u1 = c.emit(f"load <8 x float>, ptr {low}, align 4")
    u2 = c.emit(f"load <8 x float>, ptr {high}, align 4")
    log = _log(c, c.real("fsub", _const(1.0), u1))
    minus_two_log = c.real("fmul", _const(-2.0), log)
    radius = c.emit(f"call <8 x float> @llvm.sqrt.v8f32(<8 x float> {minus_two_log})")
    sin, cos = _sincos(c, c.real("fmul", _const(random_dist.TWO_PI), u2))
    for place, value in ((low, cos), (high, sin)):
        scaled = c.fma(c.real("fmul", radius, value), "%std8", "%mean8")
        c.lines.append(f"  store <8 x float> {scaled}, ptr {place}, align 4")
    spread = "shufflevector <8 x float> {0}, <8 x float> poison, <8 x i32> zeroinitializer"
    return "\n".join(
        [
            "declare <8 x float> @llvm.fma.v8f32(<8 x float>, <8 x float>, <8 x float>)",
            "declare <8 x float> @llvm.sqrt.v8f32(<8 x float>)",
            f"define void @{EXPORT}(ptr %data, i64 %blocks, float %mean, float %std) {{",
            "entry:",
            "  %mean1 = insertelement <8 x float> poison, float %mean, i64 0",
            "  %mean8 = " + spread.format("%mean1"),
            "  %std1 = insertelement <8 x float> poison, float %std, i64 0",
            "  %std8 = " + spread.format("%std1"),
            "  %any = icmp sgt i64 %blocks, 0",
            "  br i1 %any, label %loop, label %done",
            "loop:",
            "  %i = phi i64 [0, %entry], [%next, %loop]",
            "  %offset = shl i64 %i, 4",
            *c.lines,
            "  %next = add i64 %i, 1",
            "  %more = icmp slt i64 %next, %blocks",
            "  br i1 %more, label %loop, label %done",
            "done:",
            "  ret void",
            "}",
            "",
        ]
    )


def box_muller32(data: np.ndarray, mean: float, std: float) -> None:
    """`random_dist.box_muller32`, to the same bits, on a contiguous float32 array."""
    native = function()
    if native is None:
        random_dist.box_muller32(data, mean, std)
    else:
        native(data.ctypes.data, data.size // 16, mean, std)


@once
def function() -> Callable[[int, int, float, float], None] | None:
    """The compiled function; None where the machine cannot fuse multiply and add."""
    if not machine.host().has_fma:
        return None
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_float)
    return kind(machine.load(text(), [EXPORT])[EXPORT])


MOST_SORTED = 32  # numbers of a row
MOST_BYTES = 16_384  # larger results lie in memory's own blocks
OUT, INS = 2, 3  # words of a launch's block: its result, the first operand
MOST_OPERANDS = 6  # of a chain
MOST_WORDS = 256  # of a launch's block in one
_WORDS = ("acquire", "release", "true", "false", "lock")
_PYTHON = ("PyObject_CallMethodObjArgs", "PyErr_Clear", "Py_DecRef")
_MADE = ("copy", "order", *(f"chain{n}" for n in range(MOST_OPERANDS + 1)))
_DRAWN = (
    "uniform", "normal", "normal_serial", "whole", "permutation", "bernoulli", "bernoulli_of",
    "multinomial",
)  # fmt: skip


def _small_text() -> str:
    """The module's IR."""
    text = ir_text.section(
        "small", ASIDE=4 * twister.ASIDE, WAITING=4 * twister.WAITING, WAITS=4 * twister.WAITS,
        SORTED=MOST_SORTED, BUFFER=MOST_BYTES + 256,
        CHAINED=MOST_WORDS,
    )  # fmt: skip
    declared = ir_text.declare(_PYTHON) + ir_text.words("weft_draw", _WORDS)
    chains = "".join(_CHAIN.format(n=n, own=n + 4) for n in range(MOST_OPERANDS + 1))
    return declared + ir_text.expand(text + chains, _WORDS)


_CHAIN = """
define void @weft_made_chain{n}(ptr %args, i32 %thread, i32 %threads) nounwind {{
  call void @chain(ptr %args, i64 {own})
  ret void
}}
"""


@once
def _stages() -> dict[str, native.Stage]:
    """The stages by name: `copy`, and of draws those that this machine can run."""
    functions: dict[str, Any] = dict(zip(twister.EXPORTS, twister.functions(), strict=True))
    functions["weft_normal_pairs"] = random_dist.maps()["weft_normal_pairs"]
    functions["weft_map_log1p"] = random_dist.maps()["log1p"]
    functions["weft_box_muller"] = function() or functions["weft_normal_pairs"]
    imports = native.python_functions(_PYTHON)
    imports |= {name: native.function_address(f) for name, f in functions.items()}
    names = {name: f"weft_made_{name}" for name in _MADE}
    names |= {name: f"weft_draw_{name}" for name in _DRAWN}
    found = machine.load(_small_text(), [*names.values(), "weft_draw_init"], imports)
    given = native.words([*map(id, _OBJECTS), native.slot_offset(_lock_of[0], "_lock")])
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(found["weft_draw_init"])(native.address_of(given))
    if function() is None:
        del names["normal"]
    return {name: native.Stage(found[exported]) for name, exported in names.items()}


_OBJECTS = (sys.intern("acquire"), sys.intern("release"), True, False)
_lock_of: list[type] = []  # random.Generator


def install(generator: type) -> None:
    """random.py names the class whose `_lock` is taken."""
    _lock_of[:] = [generator]


def constant(a: np.ndarray) -> native.Launch:
    """What makes a copy of a small contiguous array, which the caller keeps."""
    return _launch("copy", native.address(a), a.nbytes)


def chain(
    steps: Sequence[tuple[native.Launch, Sequence[tuple[int, int]]]], own: int, scratch: int,
    keep: Any,
) -> native.Launch | None:  # fmt: skip
    """What runs launches one after another, alone.  Their places are (word, bytes): so far behind
    the pointer in that word of this launch's block, or an address where the word is 0.  Word `own`
    has its scratch memory, whose first bytes, so many, are places.  Not of too many operands.
    """
    if own - 3 > MOST_OPERANDS:
        return None
    form: list[int] = []
    for launch, places in steps:
        places = [*places, (own, scratch)]
        block = [0, 0, *[0] * len(places), *launch.ints]
        if len(block) > MOST_WORDS:
            return None
        patches = [w for i, (word, at) in enumerate(places) for w in (2 + i, word, at)]
        for i, stage in enumerate(launch.stages):
            rest = [len(block), len(places), *block, *patches] if i == 0 else [0, 0]
            form += [stage.function, *rest]
    held = native.words([*form, 0])
    room = max((m.scratch + m.scratch_per_thread for m, _ in steps), default=0)
    quick = all(launch.quick for launch, _ in steps)
    stage = _stages()[f"chain{own - 3}"]
    made = native.Launch((stage,), (native.address_of(held),), scratch + room, quick=quick)
    object.__setattr__(made, "_chained", (held, steps, keep))
    return made


def order(rows: int, width: int, k: int, *, descending: bool) -> native.Launch:
    """What gives the places of the first k of each contiguous float32 row, sorted stably."""
    return _launch("order", rows, width, k, int(descending))


def draw(
    generator: Any, state: int, kind: str, n: int, dtype: np.dtype, params: tuple
) -> native.Launch | None:
    """What draws n numbers of a kind from a generator, whose engine's state lies there, for params
    that its methods took; None where only they can.

    In float32 `uniform`, `normal`, `bernoulli` (p, the value of a hit), `bernoulli_of` (whose p is
    an operand); in int64 `whole`, `permutation`, `multinomial` (length of n rows, an operand's).
    """
    whole = kind in ("whole", "permutation", "multinomial")
    many = n * params[0] if kind == "multinomial" else n
    if not 0 < many * dtype.itemsize < MOST_BYTES:
        return None
    if dtype != (np.int64 if whole else np.float32):
        return None
    given: tuple[int, ...] = ()
    if kind == "uniform" and params != (0, 1):
        return None
    if kind == "normal":
        mean, std = params
        given = native.double_bits(mean + 0.0), native.double_bits(std)
        if n < 16:
            if mean and std != 1:
                return None
            kind = "normal_serial"
    elif kind == "whole":
        low, high = params
        if high - low >= 2**28:
            return None
        given = low, high - low
    elif kind == "permutation" and n < 2:
        return None
    elif kind == "bernoulli":
        p, hit = params
        given = twister.below_limit(p), native.double_bits(hit)
    elif kind == "bernoulli_of":
        given = (1,)
    elif kind == "multinomial":
        given = params
    if kind not in _stages():
        return None
    return _launch(kind, id(generator), state, n, *given)


def _launch(name: str, *ints: int) -> native.Launch:
    return native.Launch((_stages()[name],), ints, quick=True)

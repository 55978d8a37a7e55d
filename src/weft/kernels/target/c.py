"""The Loop IR as portable C99: readable, no libraries but libc and libm, for bundles.

    void nest(float *restrict out0, const float *restrict in0, int64_t n) { ... }

Each scalar is one C operation, so results follow the Loop IR's rounding where the compiler does not
contract or reorder: compile with -ffp-contract=off, without -ffast-math.  exp, tanh and the like
are libm's, and may differ from the native kernels in the last bits.  float16 and bfloat16 are
uint16_t in memory and float in between; bool is uint8_t; integers wrap.
"""

from __future__ import annotations

import math

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.core.loop import (
    Accumulate,
    Alloc,
    Buffer,
    For,
    Index,
    Load,
    Number,
    Program,
    Size,
    Stmt,
    Store,
    verify,
)
from weft.core.scalar import TABLE, Cast, Const, Expr, Scalar, Select, postorder

_MEMORY = {
    "float64": "double", "float32": "float", "float16": "uint16_t", "bfloat16": "uint16_t",
    "int64": "int64_t", "int32": "int32_t", "int16": "int16_t", "int8": "int8_t",
    "uint8": "uint8_t", "bool": "uint8_t",
}  # fmt: skip
_VALUE = _MEMORY | {"float16": "float", "bfloat16": "float", "bool": "int"}
_HALF = {"float16": "f16", "bfloat16": "bf16"}
_WRAPPING = {"add": "+", "sub": "-", "mul": "*"}


def print_c(*programs: Program) -> str:
    """One C file with a function a program."""
    return PRELUDE + "".join(_Function(verify(p)).text() for p in programs)


def signature(p: Program) -> str:
    """The C declaration of a program's function."""
    written = _written(p.body)
    params = []
    for x in p.params:
        if isinstance(x, Number):
            params.append(f"{_VALUE[x.dtype.name]} {x.name}")
        else:
            const = "" if x.name in written else "const "
            params.append(f"{const}{_MEMORY[x.dtype.name]} *{x.name}")
    return f"void {p.name}({', '.join(params) or 'void'})"


def _written(body: tuple[Stmt, ...]) -> set[str]:
    out: set[str] = set()
    for s in body:
        if isinstance(s, For):
            out |= _written(s.body)
        elif isinstance(s, Store | Accumulate):
            out.add(s.buffer)
    return out


class _Function:
    def __init__(self, p: Program) -> None:
        self.p = p
        self.buffers = {x.name: x for x in p.params if isinstance(x, Buffer)}
        self.lines: list[str] = []
        self.count = 0

    def text(self) -> str:
        self.block(self.p.body, 1)
        return f"\n{signature(self.p)} {{\n" + "".join(x + "\n" for x in self.lines) + "}\n"

    def block(self, body: tuple[Stmt, ...], depth: int) -> None:
        pad = "  " * depth
        for s in body:
            if isinstance(s, For):
                size = self.expr(s.size, depth)
                self.lines.append(f"{pad}for (int64_t {s.var} = 0; {s.var} < {size}; {s.var}++) {{")
                self.block(s.body, depth + 1)
                self.lines.append(f"{pad}}}")
            elif isinstance(s, Alloc):
                self.buffers[s.buffer] = Buffer(s.buffer, s.dtype, (s.size,))
                self.lines.append(f"{pad}{_MEMORY[s.dtype.name]} {s.buffer}[{s.size}];")
            else:
                self.assign(s, depth)

    def assign(self, s: Store | Accumulate, depth: int) -> None:
        buffer = self.buffers[s.buffer]
        value = s.value
        if isinstance(s, Accumulate):
            value = Scalar(s.op, (Load(s.buffer, buffer.dtype, s.indices), value))
        text = self.expr(value, depth)
        at = self.place(buffer, [self.expr(i, depth) for i in s.indices])
        half = _HALF.get(buffer.dtype.name)
        text = f"weft_to_{half}({text})" if half else text
        self.lines.append(f"{'  ' * depth}{at} = {text};")

    def place(self, b: Buffer, indices: list[str]) -> str:
        strides: list[Size | str] = list(b.strides or ())
        if not strides:
            step: list[Size] = []
            for n in reversed(b.shape):
                strides.append(" * ".join(map(str, step)) or 1)
                step.append(n)
            strides.reverse()
        terms = [i if n == 1 else f"{i} * {n}" for i, n in zip(indices, strides, strict=True)
                 if i != "0"]  # fmt: skip
        return f"{b.name}[{' + '.join(terms) or '0'}]"

    def expr(self, e: Expr, depth: int) -> str:
        """C text of e; what is used twice or long gets a local."""
        got: dict[int, str] = {}
        nodes = postorder((e,))
        uses: dict[int, int] = {}
        for n in nodes:
            for a in n.args:
                uses[id(a)] = uses.get(id(a), 0) + 1
        for n in nodes:
            text = self.node(n, [got[id(a)] for a in n.args])
            plain = isinstance(n, Index | Const)
            if n is not e and not plain and (uses.get(id(n), 0) > 1 or len(text) > 70):
                self.count += 1
                name = f"t{self.count}"
                self.lines.append(f"{'  ' * depth}const {_VALUE[n.dtype.name]} {name} = {text};")
                text = name
            got[id(n)] = text
        return got[id(e)]

    def node(self, n: Expr, xs: list[str]) -> str:
        if isinstance(n, Const):
            assert not isinstance(n.value, complex)  # no loop computes with complex numbers
            return literal(n.value, n.dtype)
        if isinstance(n, Index):
            return n.name
        if isinstance(n, Load):
            text = self.place(self.buffers[n.buffer], xs)
            half = _HALF.get(n.dtype.name)
            return f"weft_from_{half}({text})" if half else text
        if isinstance(n, Select):
            return f"({xs[0]} ? {xs[1]} : {xs[2]})"
        if isinstance(n, Cast):
            return convert(xs[0], n.operand.dtype, n.dtype)
        assert isinstance(n, Scalar)
        return scalar(n.name, n.operands[0].dtype, xs)


def literal(value: int | float | bool, d: dtype) -> str:
    """A constant."""
    if d.category != D.FLOAT:
        if d is D.int64:
            return "INT64_MIN" if value == -(1 << 63) else f"INT64_C({value})" if abs(
                value) > 1 << 31 else f"{value}"  # fmt: skip
        return str(int(value)) if value >= 0 else f"({int(value)})"
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = repr(float(d.np.type(value)))
    suffix = "" if d is D.float64 else "f"
    return f"{text}{suffix}" if not text.startswith("-") else f"({text}{suffix})"


def convert(x: str, a: dtype, b: dtype) -> str:
    """A cast, as Cast's rule: to bool is != 0, NaN and what does not fit give the lowest int."""
    if b is D.bool:
        return f"({x} != 0)"
    if b.name in _HALF:
        return f"weft_from_{_HALF[b.name]}(weft_to_{_HALF[b.name]}((float){x}))"
    if b.category != D.FLOAT and a.category == D.FLOAT:
        wide = "i64" if b is D.int64 or b is D.uint8 else "i32"
        return f"({_VALUE[b.name]})weft_to_{wide}({x})"
    return f"({_VALUE[b.name]})({x})"


def scalar(name: str, d: dtype, xs: list[str]) -> str:
    """A row of the table on operands of dtype d."""
    if d.name in _HALF and name == "nextafter":
        half, nan = _HALF[d.name], "0x7FC0" if d is D.bfloat16 else "0x7E00"
        bits = ", ".join(f"weft_to_{half}({x})" for x in xs)
        return f"weft_from_{half}(weft_next16({bits}, {xs[0]}, {xs[1]}, {nan}))"
    if d.category == D.INT and name in _WRAPPING:
        t = _VALUE[d.name]
        return f"({t})((uint64_t){xs[0]} {_WRAPPING[name]} (uint64_t){xs[1]})"
    if d is D.bool and name == "not":
        return f"!{xs[0]}"
    kinds = TABLE[name].c.split("|") if name != "or" else [TABLE[name].c]
    pick = kinds[0] if d.category == D.FLOAT or len(kinds) == 1 else kinds[-1]
    if name == "not":
        pick = kinds[0]
    text = pick.format(*map(_wrapped, xs), f="" if d is D.float64 else "f")
    if d.category == D.INT and TABLE[name].result != "bool":
        return f"({_VALUE[d.name]})({text})"
    if d.name in _HALF and TABLE[name].result != "bool":
        return f"weft_from_{_HALF[d.name]}(weft_to_{_HALF[d.name]}({text}))"
    return text


def _wrapped(x: str) -> str:
    """x in parentheses unless it is one word, call, cell or group already."""
    depth = 0
    for i, c in enumerate(x):
        depth += (c in "([") - (c in ")]")
        if depth == 0 and (c in " -<>=!~?" or (c in ")]" and i < len(x) - 1)):
            return f"({x})"
    return x


def _per_float(text: str) -> str:
    """A helper for double and, with suffix f, for float."""
    return text.replace("REAL", "double").replace("SUF", "") + text.replace(
        "REAL", "float").replace("SUF", "f")  # fmt: skip


PRELUDE = """\
/* Made by Weft. Compile with -ffp-contract=off and without -ffast-math. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define WEFT_INLINE static inline __attribute__((unused))
#else
#define WEFT_INLINE static inline
#endif

WEFT_INLINE float weft_from_bf16(uint16_t h) {
  uint32_t u = (uint32_t)h << 16; float x; memcpy(&x, &u, 4); return x;
}
WEFT_INLINE uint16_t weft_to_bf16(float x) {
  uint32_t u; memcpy(&u, &x, 4);
  if (x != x) return (uint16_t)((u >> 16) | 0x40);
  return (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}
WEFT_INLINE float weft_from_f16(uint16_t h) {
  uint32_t em = (uint32_t)(h & 0x7FFF) << 13, u; float x;
  memcpy(&x, &em, 4); x *= 0x1p112f;
  memcpy(&u, &x, 4);
  if (em >= (uint32_t)0x7C00 << 13) u = em | 0x7F800000;
  u |= (uint32_t)(h & 0x8000) << 16;
  memcpy(&x, &u, 4); return x;
}
WEFT_INLINE uint16_t weft_to_f16(float x) {
  uint32_t u; float a = fabsf(x); uint16_t h, s;
  memcpy(&u, &x, 4); s = (uint16_t)((u >> 16) & 0x8000);
  if (x != x) return (uint16_t)(s | 0x7E00);
  if (a < 0x1p-14f) {
    volatile float t = a + 0.5f;
    h = (uint16_t)((t - 0.5f) * 0x1p24f);
    return (uint16_t)(s | h);
  }
  u &= 0x7FFFFFFF; u += 0xFFF + ((u >> 13) & 1);
  if (u >= 0x47800000) return (uint16_t)(s | 0x7C00);
  return (uint16_t)(s | ((u - (112u << 23)) >> 13));
}
WEFT_INLINE uint16_t weft_next16(uint16_t x, uint16_t y, float a, float b, uint16_t nan) {
  if (a != a || b != b) return nan;
  if (a == b) return y;
  if (a == 0) return (uint16_t)((y & 0x8000) | 1);
  return (uint16_t)((a < b) != (a < 0) ? x + 1 : x - 1);
}
WEFT_INLINE int32_t weft_to_i32(double x) {
  return x >= -2147483648.0 && x < 2147483648.0 ? (int32_t)x : INT32_MIN;
}
WEFT_INLINE int64_t weft_to_i64(double x) {
  return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN;
}
WEFT_INLINE int64_t weft_irem(int64_t a, int64_t b) {
  int64_t r;
  if (b == 0 || b == -1) return 0;
  r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
WEFT_INLINE int64_t weft_ifloordiv(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return (int64_t)(0 - (uint64_t)a);
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}
WEFT_INLINE int64_t weft_ipow(int64_t x, int64_t n) {
  uint64_t y = 1, b = (uint64_t)x;
  if (n < 0) return x == 1 ? 1 : x == -1 ? (n & 1 ? -1 : 1) : 0;
  for (; n; n >>= 1, b *= b) if (n & 1) y *= b;
  return (int64_t)y;
}
#define weft_shl(a, n) ((uint64_t)(n) < 8 * sizeof(a) ? (int64_t)((uint64_t)(a) << (n)) : 0)
#define weft_shr(a, n) ((uint64_t)(n) < 8 * sizeof(a) ? (int64_t)(a) >> (n) : (a) < 0 ? -1 : 0)
""" + _per_float("""\
WEFT_INLINE REAL weft_signSUF(REAL x) { return (REAL)((x > 0) - (x < 0)); }
WEFT_INLINE REAL weft_minSUF(REAL a, REAL b) { return a != a ? a : a < b ? a : b; }
WEFT_INLINE REAL weft_maxSUF(REAL a, REAL b) { return a != a ? a : a > b ? a : b; }
WEFT_INLINE REAL weft_remSUF(REAL a, REAL b) {
  REAL r = fmodSUF(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
WEFT_INLINE REAL weft_floordivSUF(REAL a, REAL b) {
  REAL r = fmodSUF(a, b), q, w;
  if (b == 0) return a / b;
  q = (a - r) / b;
  if (r != 0 && (r < 0) != (b < 0)) q -= 1;
  if (q == 0) return copysignSUF(0, a / b);
  w = floorSUF(q);
  return q - w > (REAL)0.5 ? w + 1 : w;
}
WEFT_INLINE REAL weft_erfinvSUF(REAL y) {
  double a = fabs((double)y), k, w, x; int i;
  if (!(a <= 1)) return NAN;
  if (a == 1) return copysignSUF(INFINITY, y);
  w = -log1p(-a * a); k = 2 / (3.14159265358979323846 * 0.147) - w / 2;
  x = sqrt(fmax(0, sqrt(k * k + w / 0.147) - k));
  for (i = 0; i < 6; i++) {
    double e = a < 0.5 ? erf(x) - a : (1 - a) - erfc(x);
    x -= e * 0.88622692545275801365 * exp(x * x);
  }
  return copysignSUF((REAL)x, y);
}
WEFT_INLINE REAL weft_digammaSUF(REAL v) {
  double x = v, y = 0, z, turn = 0;
  if (x == 0) return copysignSUF(INFINITY, -v);
  if (x < 0) {
    if (x == floor(x)) return NAN;
    turn = 3.14159265358979323846 / tan(3.14159265358979323846 * (x - floor(x))); x = 1 - x;
  }
  while (x < 10) { y -= 1 / x; x += 1; }
  z = 1 / (x * x);
  z *= 1.0/12 - z*(1.0/120 - z*(1.0/252 - z*(1.0/240 - z*(1.0/132 - z*(691.0/32760 - z/12)))));
  return (REAL)(y + log(x) - 0.5 / x - z - turn);
}
""")  # fmt: skip

"""Scalar expressions to LLVM: every lane of a vector is one element of the iteration space.

Values in registers: float64 as double; float32, float16 and bfloat16 as float (the halves always
hold a value that their dtype can hold); ints as themselves; bool as i1.  In memory bool is a byte
and the halves are two.  `Element.expression` gives the value of a `core.scalar.Expr`, `load` and
`store` go between the two forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from weft.core import dtype as D
from weft.core.dtype import dtype
from weft.core.scalar import Arg, Cast, Const, Coord, Expr, Param, Scalar, Select, postorder
from weft.kernels.target import math as vmath
from weft.kernels.target.llvm import Function, Value, const, vector, with_element, zero
from weft.kernels.target.vector import Math
from weft.runtime.native import host

_MEMORY = {
    "float64": "double", "float32": "float", "float16": "i16", "bfloat16": "i16", "int64": "i64",
    "int32": "i32", "int16": "i16", "int8": "i8", "uint8": "i8", "bool": "i8",
}  # fmt: skip
_REGISTER = _MEMORY | {"float16": "float", "bfloat16": "float", "bool": "i1"}
_HALF = (D.float16, D.bfloat16)
# Rows whose result is exact for halves: no rounding is needed.
_EXACT = frozenset(
    ["neg", "abs", "sign", "floor", "ceil", "trunc", "round", "min", "max", "fmod", "nextafter"]
)


def memory(d: dtype) -> str:
    """The LLVM type of an element in memory."""
    return _MEMORY[d.name]


def register(d: dtype) -> str:
    """The LLVM type of an element in a register."""
    return _REGISTER[d.name]


def width(d: dtype) -> int:
    """Bytes an element takes in a register lane."""
    return {"i1": 1, "float": 4, "double": 8}.get(register(d), d.itemsize)


def _converts_halves() -> bool:
    """Whether the host has instructions between float16 and float32."""
    return host().has("f16c") or host().arch not in ("x86_64", "amd64")


class Element:
    """Emits expressions into one function, `lanes` elements at a time (1: plain scalars).

    `fail(bad)` is called with the lanes in which an integer is divided by zero. `tame`: what is
    rounded to bfloat16 is no NaN but such as end in 16 zeros, which need no look.
    """

    def __init__(
        self, f: Function, lanes: int, fail: Callable[[Value], None] | None = None, *,
        tame: bool = False,
    ) -> None:  # fmt: skip
        self.f = f
        self.lanes = lanes
        self.math = Math(f, has_fma=host().has_fma)
        self.fail = fail
        self.tame = tame

    def type(self, d: dtype) -> str:
        return vector(self.lanes, register(d))

    def memory_type(self, d: dtype) -> str:
        return vector(self.lanes, memory(d))

    def const(self, d: dtype, value: int | float | bool) -> Value:
        if d in _HALF:
            value = float(d.np.type(value))
        elif d.category == D.INT:
            bits = d.itemsize * 8
            value = int(value) & ((1 << bits) - 1)
            value -= (1 << bits) if value >> (bits - 1) else 0
        return const(self.type(d), value)

    # -- between memory and registers

    def from_memory(self, v: Value, d: dtype) -> Value:
        f = self.f
        if d is D.bool:
            return f.icmp("ne", v, zero(v.type))
        if d is D.bfloat16:
            wide = f.cast("zext", v, with_element(v.type, "i32"))
            up = f.op("shl", wide, const(wide.type, 16))
            return f.cast("bitcast", up, with_element(v.type, "float"))
        if d is D.float16:
            return self._half_to_float(v)
        return v

    def to_memory(self, v: Value, d: dtype) -> Value:
        f = self.f
        if d is D.bool:
            return f.cast("zext", v, with_element(v.type, "i8"))
        if d is D.bfloat16:
            bits = f.cast("bitcast", v, with_element(v.type, "i32"))
            down = f.op("lshr", bits, const(bits.type, 16))
            return f.cast("trunc", down, with_element(v.type, "i16"))
        if d is D.float16:
            return self._float_to_half(v)
        return v

    def stored(self, v: Value, d: dtype) -> Value:
        """A float register in the form that it has in memory of dtype `d`, which rounds it."""
        return self.to_memory(self.rounded(v, d), d)

    def _half_to_float(self, v: Value) -> Value:
        f = self.f
        if _converts_halves():
            h = f.cast("bitcast", v, with_element(v.type, "half"))
            return f.cast("fpext", h, with_element(v.type, "float"))
        w = f.cast("zext", v, with_element(v.type, "i32"))
        k = lambda n: const(w.type, n)
        em = f.op("shl", f.op("and", w, k(0x7FFF)), k(13))
        value = f.op("fmul", f.cast("bitcast", em, with_element(w.type, "float")), 2.0**112)
        special = f.icmp("uge", em, k(0x7C00 << 13))
        bits = f.cast("bitcast", value, w.type)
        bits = f.select(special, f.op("or", em, k(0x7F800000)), bits)
        sign = f.op("shl", f.op("and", w, k(0x8000)), k(16))
        return f.cast("bitcast", f.op("or", bits, sign), with_element(w.type, "float"))

    def _float_to_half(self, v: Value) -> Value:
        """v already holds a float16's value (see `rounded`)."""
        f = self.f
        if _converts_halves():
            h = f.cast("fptrunc", v, with_element(v.type, "half"))
            return f.cast("bitcast", h, with_element(v.type, "i16"))
        m = self.math
        bits = m.bits(v)
        k = lambda n: const(bits.type, n)
        a = m.abs(v)
        normal = f.op("lshr", f.op("sub", m.bits(a), k(112 << 23)), k(13))
        low = f.cast("fptosi", m.sel(m.cmp("olt", a, 1.0), m.mul(a, 2.0**24), 0.0), bits.type)
        h = f.select(m.cmp("olt", a, 2.0**-14), low, normal)
        h = f.select(m.cmp("oeq", a, float("inf")), k(0x7C00), h)
        h = f.select(m.isnan(v), k(0x7E00), h)
        h = f.op("or", h, f.op("and", f.op("lshr", bits, k(16)), k(0x8000)))
        return f.cast("trunc", h, with_element(v.type, "i16"))

    def rounded(self, v: Value, d: dtype) -> Value:
        """A float register rounded to what `d` can hold."""
        f, m = self.f, self.math
        if d is D.bfloat16:
            u = m.bits(v)
            k = lambda n: const(u.type, n)
            if self.lanes == 16 and host().has("avx512vnni"):
                # 1 of a half, lowest bit of the other
                pair = f.op("or", f.op("and", u, k(0x10000)), k(1))
                up = f.intrinsic("x86.avx512.vpdpwssd.512", u.type, u, pair, k(0x17FFF))
            else:
                odd = f.op("and", f.op("lshr", u, k(16)), k(1))
                up = f.op("add", f.op("add", u, k(0x7FFF)), odd)
            up = up if self.tame else f.select(m.isnan(v), f.op("or", u, k(0x400000)), up)
            return m.floats(f.op("and", up, k(-65536)))
        if d is D.float16:
            if _converts_halves():
                h = f.cast("fptrunc", v, with_element(v.type, "half"))
                return f.cast("fpext", h, v.type)
            u = m.bits(m.abs(v))
            k = lambda n: const(u.type, n)
            odd = f.op("and", f.op("lshr", u, k(13)), k(1))
            up = f.op("and", f.op("add", f.op("add", u, k(0xFFF)), odd), k(-8192))
            big = m.floats(up)
            big = m.sel(m.cmp("oge", big, 65536.0), float("inf"), big)
            small = m.sub(m.add(m.abs(v), 0.5), 0.5)  # ulp(0.5) is the subnormals' step
            r = m.sel(m.cmp("olt", m.abs(v), 2.0**-14), small, big)
            return m.sel(m.isnan(v), v, m.copysign(r, v))
        return v

    def tamed(self, v: Value) -> Value:
        """float32 whose NaN are such as bfloat16 has."""
        m, f = self.math, self.f
        u = m.bits(v)
        k = lambda n: const(u.type, n)
        return m.sel(m.isnan(v), m.floats(f.op("or", f.op("and", u, k(-65536)), k(0x400000))), v)

    def load(self, pointer: Value, d: dtype) -> Value:
        """`lanes` adjacent elements."""
        return self.from_memory(self.f.load(self.memory_type(d), pointer), d)

    def store(self, v: Value, pointer: Value, d: dtype) -> None:
        self.f.store(self.to_memory(v, d), pointer)

    # -- casts

    def cast(self, v: Value, a: dtype, b: dtype) -> Value:
        """As torch: float to int truncates, anything to bool is `!= 0`."""
        f, to = self.f, with_element(v.type, register(b))
        if a is b:
            return v
        if b is D.bool:
            return f.fcmp("une", v, zero(v.type)) if a.category == D.FLOAT else f.icmp(
                "ne", v, zero(v.type))  # fmt: skip
        if b.category == D.FLOAT:
            if a.category == D.FLOAT:
                if register(a) == register(b):
                    out = v
                else:
                    out = f.cast("fpext" if b is D.float64 else "fptrunc", v, to)
            else:
                unsigned = a is D.bool or not a.is_signed
                out = f.cast("uitofp" if unsigned else "sitofp", v, to)
            return self.rounded(out, b)
        if a.category == D.FLOAT:
            wide = "i64" if b is D.int64 or b is D.uint8 else "i32"
            out = f.cast("fptosi", v, with_element(v.type, wide))
            return f.cast("trunc", out, to)
        if b.itemsize < a.itemsize:
            return f.cast("trunc", v, to)
        return f.cast("zext" if a is D.bool or not a.is_signed else "sext", v, to)

    # -- rows of the table

    def scalar(self, name: str, d: dtype, *xs: Value) -> Value:
        """Row `name` on operands of dtype `d`, in registers."""
        if name == "nextafter" and d in _HALF:
            moved = self._next_bits(*(self.to_memory(x, d) for x in xs), d=d)
            return self.from_memory(moved, d)
        if d.category == D.FLOAT:
            out = self._float(name, xs)
            return out if d not in _HALF or name in _EXACT else self._keep(name, out, d)
        return self._int(name, d, xs)

    def _keep(self, name: str, v: Value, d: dtype) -> Value:
        return v if name in _COMPARE else self.rounded(v, d)

    def _float(self, name: str, xs: tuple[Value, ...]) -> Value:
        f, m, x = self.f, self.math, xs[0]
        if name in _FLOAT_OPS:
            return f.op(_FLOAT_OPS[name], *xs)
        if name in _COMPARE:
            return f.fcmp(_COMPARE[name][0], *xs)
        if name in _FLOAT_INTRINSICS:
            return f.intrinsic(_FLOAT_INTRINSICS[name], x.type, *xs)
        if name == "neg":
            return f.neg(x)
        if name == "sign":
            return m.sel(m.cmp("ogt", x, 0.0), 1.0, m.sel(m.cmp("olt", x, 0.0), m.k(x, -1.0), 0.0))
        if name == "rsqrt":
            return m.div(1.0, f.intrinsic("sqrt", x.type, x))
        if name in ("min", "max"):
            if xs[1] == const(x.type, 0.0):  # no NaN: one comparison
                return f.select(f.fcmp("ugt" if name == "max" else "ult", x, xs[1]), x, xs[1])
            other = f.fcmp("ogt" if name == "max" else "olt", x, xs[1])
            return m.sel(m.isnan(x), x, f.select(other, x, xs[1]))
        if name == "fmod":
            return self._fmod(*xs)
        if name in ("rem", "floordiv"):
            return self._float_rem(name, *xs)
        if name == "nextafter":
            return self._nextafter(*xs)
        return vmath.call(m, name, *xs)

    def _fmod(self, x: Value, y: Value) -> Value:
        """Exact, in every dtype."""
        m = self.math
        body = vmath.fmod64 if x.type.endswith(("double", "double>")) else vmath.fmod32
        return m.outlined("weft.fmod", body, x, y)

    def _float_rem(self, name: str, x: Value, y: Value) -> Value:
        f, m = self.f, self.math
        r = self._fmod(x, y)
        other = f.op("xor", m.cmp("olt", r, 0.0), m.cmp("olt", y, 0.0))
        fix = f.op("and", m.cmp("une", r, 0.0), other)
        if name == "rem":
            return m.sel(fix, m.add(r, y), r)
        q = m.div(m.sub(x, r), y)
        q = m.sel(fix, m.sub(q, 1.0), q)
        whole = f.intrinsic("floor", x.type, q)
        whole = m.sel(m.cmp("ogt", m.sub(q, whole), 0.5), m.add(whole, 1.0), whole)
        straight = m.div(x, y)
        whole = m.sel(m.cmp("une", q, 0.0), whole, m.copysign(0.0, straight))
        return m.sel(m.cmp("oeq", y, 0.0), straight, whole)

    def _nextafter(self, x: Value, y: Value) -> Value:
        f, m = self.f, self.math
        bits = m.bits(x)
        k = lambda n: const(bits.type, n)
        grow = f.op("xor", m.cmp("olt", x, y), m.cmp("olt", x, 0.0))
        moved = m.floats(f.op("add", bits, f.select(grow, k(1), k(-1))))
        first = m.copysign(m.floats(k(1)), y)
        moved = m.sel(m.cmp("oeq", x, 0.0), first, moved)
        moved = m.sel(m.cmp("oeq", x, y), y, moved)
        return m.sel(f.op("or", m.isnan(x), m.isnan(y)), m.add(x, y), moved)

    def _next_bits(self, x: Value, y: Value, *, d: dtype) -> Value:
        """nextafter of halves as their 16 bits: magnitudes count like integers."""
        f, m = self.f, self.math
        k = lambda n: const(x.type, n)
        fx, fy = self.from_memory(x, d), self.from_memory(y, d)
        grow = f.op("xor", m.cmp("olt", fx, fy), m.cmp("olt", fx, 0.0))
        moved = f.op("add", x, f.select(grow, k(1), k(-1)))
        first = f.op("or", f.op("and", y, k(-32768)), k(1))
        moved = f.select(m.cmp("oeq", fx, 0.0), first, moved)
        moved = f.select(m.cmp("oeq", fx, fy), y, moved)
        nan = k(0x7FC0 if d is D.bfloat16 else 0x7E00)
        return f.select(f.op("or", m.isnan(fx), m.isnan(fy)), nan, moved)

    def _int(self, name: str, d: dtype, xs: tuple[Value, ...]) -> Value:
        f, x = self.f, xs[0]
        signed = d.is_signed
        if name in _INT_OPS:
            return f.op(_INT_OPS[name], *xs)
        if name in _COMPARE:
            return f.icmp(_COMPARE[name][1 if signed else 2], *xs)
        if name in ("min", "max"):
            return f.intrinsic(("s" if signed else "u") + name, x.type, *xs)
        if name == "not":
            return f.op("xor", x, const(x.type, True if d is D.bool else -1))
        if name == "neg":
            return f.op("sub", zero(x.type), x)
        if name == "abs":
            return x if not signed else f.select(
                f.icmp("slt", x, zero(x.type)), f.op("sub", zero(x.type), x), x)  # fmt: skip
        if name == "sign":
            up = f.cast("zext", f.icmp("ne" if not signed else "sgt", x, zero(x.type)), x.type)
            return up if not signed else f.op(
                "sub", up, f.cast("zext", f.icmp("slt", x, zero(x.type)), x.type))  # fmt: skip
        if name in ("shl", "shr"):
            return self._shift(name, signed, *xs)
        if name == "pow":
            return self._int_pow(signed, *xs)
        return self._int_div(name, signed, *xs)

    def _shift(self, name: str, signed: bool, x: Value, y: Value) -> Value:
        f = self.f
        bits = const(x.type, {"i8": 8, "i16": 16, "i32": 32, "i64": 64}[x.type.split()[-1][:-1] if self.lanes > 1 else x.type])  # noqa: E501  # fmt: skip
        inside = f.icmp("ult", y, bits)
        amount = f.select(inside, y, zero(x.type))
        if name == "shl":
            return f.select(inside, f.op("shl", x, amount), zero(x.type))
        if not signed:
            return f.select(inside, f.op("lshr", x, amount), zero(x.type))
        sign = f.cast("sext", f.icmp("slt", x, zero(x.type)), x.type)
        return f.select(inside, f.op("ashr", x, amount), sign)

    def _int_div(self, name: str, signed: bool, x: Value, y: Value) -> Value:
        """div and fmod truncate, floordiv and rem go down; by zero: `fail`, and 0; no trap."""
        f = self.f
        bad = f.icmp("eq", y, zero(y.type))
        if self.fail is not None:
            self.fail(bad)
        safe = f.select(bad, const(y.type, 1), y)
        if not signed:
            out = f.op("udiv" if name in ("div", "floordiv") else "urem", x, safe)
            return f.select(bad, zero(x.type), out)
        minus = f.icmp("eq", safe, const(y.type, -1))  # the smallest int / -1 would trap
        q = f.op("sdiv", x, f.select(minus, const(y.type, 1), safe))
        q = f.select(minus, f.op("sub", zero(x.type), q), q)
        r = f.op("sub", x, f.op("mul", q, safe))
        down = f.icmp("slt", f.op("xor", r, safe), zero(x.type))
        down = f.op("and", down, f.icmp("ne", r, zero(x.type)))
        if name == "floordiv":
            q = f.op("add", q, f.cast("sext", down, x.type))
        if name == "rem":
            r = f.select(down, f.op("add", r, safe), r)
        return f.select(bad, zero(x.type), q if name in ("div", "floordiv") else r)

    def _int_pow(self, signed: bool, x: Value, y: Value) -> Value:
        """Square and multiply; a negative power is 0 but for the bases 1 and -1."""
        f = self.f
        one = const(x.type, 1)
        with f.loop(0, 64, 1, [(x.type, one), (x.type, x), (y.type, y)]) as loop:
            out, base, e = loop.carry
            odd = f.icmp("ne", f.op("and", e, one), zero(x.type))
            loop.next[0] = f.select(odd, f.op("mul", out, base), out)
            loop.next[1] = f.op("mul", base, base)
            loop.next[2] = f.op("lshr", e, one)
        out = loop.carry[0]
        if not signed:
            return out
        odd = f.icmp("ne", f.op("and", y, one), zero(x.type))
        unit = f.select(f.icmp("eq", x, const(x.type, -1)), f.select(odd, x, one), zero(x.type))
        unit = f.select(f.icmp("eq", x, one), one, unit)
        return f.select(f.icmp("slt", y, zero(y.type)), unit, out)

    # -- expressions

    def expressions(self, roots: tuple[Expr, ...], leaf: Callable[[Expr], Value]) -> list[Value]:
        """The registers of the roots; `leaf` gives those of Arg, Param and Coord nodes."""
        value: dict[int, Value] = {}
        for n in postorder(roots):
            value[id(n)] = self._node(n, value, leaf)
        return [value[id(r)] for r in roots]

    def _node(self, n: Expr, value: Mapping[int, Value], leaf: Callable[[Expr], Value]) -> Value:
        if isinstance(n, Const):
            assert not isinstance(n.value, complex)  # no loop computes with complex numbers
            return self.const(n.dtype, n.value)
        if isinstance(n, Arg | Param | Coord):
            return leaf(n)
        xs = tuple(value[id(a)] for a in n.args)
        if isinstance(n, Cast):
            kept = n.dtype in _HALF and _holds(n.operand, n.dtype)
            return xs[0] if kept else self.cast(xs[0], n.operand.dtype, n.dtype)
        if isinstance(n, Select):
            return self.f.select(*xs)
        assert isinstance(n, Scalar)
        return self.scalar(n.name, n.operands[0].dtype, *xs)


def relu_of_half(n: Expr) -> Expr | None:
    """What bfloat16 `n` is the maximum of, beside 0."""
    if n.dtype is not D.bfloat16 or not isinstance(n, Cast):
        return None
    m = n.operand
    if not (isinstance(m, Scalar) and m.name == "max" and isinstance(m.operands[0], Cast)):
        return None
    x, least = m.operands
    zero = isinstance(least, Const) and least.value == 0
    return x.operand if zero and isinstance(x, Cast) and x.operand.dtype is D.bfloat16 else None


def _holds(n: Expr, d: dtype) -> bool:
    """Whether an expression in float32 only has values that `d`, a half, has: no rounding then."""
    if n.dtype is not D.float32:
        return False
    if isinstance(n, Cast):
        return n.operand.dtype is d
    if isinstance(n, Const):
        return not isinstance(n.value, complex) and float(d.np.type(n.value)) == n.value
    return isinstance(n, Scalar) and n.name in _CHOOSE and all(_holds(a, d) for a in n.args)


_CHOOSE = ("neg", "abs", "min", "max")
_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_FLOAT_INTRINSICS = {
    "abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    "round": "roundeven", "fma": "fma",
}  # fmt: skip
_INT_OPS = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_COMPARE = {  # float, signed, unsigned (bool compares unsigned)
    "eq": ("oeq", "eq", "eq"), "ne": ("une", "ne", "ne"), "lt": ("olt", "slt", "ult"),
    "le": ("ole", "sle", "ule"), "gt": ("ogt", "sgt", "ugt"), "ge": ("oge", "sge", "uge"),
}  # fmt: skip

"""Words for vector formulas: arithmetic, selection, polynomials, calls lane by lane."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from weft.kernels.target.llvm import (
    Function,
    Module,
    Value,
    const,
    lanes_of,
    with_element,
    zero,
)
from weft.runtime.native import host


class Math:
    """Vector arithmetic and functions inside one LLVM function under construction."""

    def __init__(self, f: Function, *, has_fma: bool) -> None:
        self.f = f
        self.has_fma = has_fma

    # -- small words, so that formulas below read as formulas

    def k(self, like: Value, value: float) -> Value:
        """The number as a constant of `like`'s type."""
        return const(like.type, value)

    def _two(self, name: str, a: Value | float, b: Value | float) -> Value:
        like = a if isinstance(a, Value) else b
        assert isinstance(like, Value)
        return self.f.op(name, self._is(a, like), self._is(b, like))

    def _is(self, a: Value | float, like: Value) -> Value:
        return a if isinstance(a, Value) else const(like.type, a)

    def add(self, a: Value | float, b: Value | float) -> Value:
        return self._two("fadd", a, b)

    def sub(self, a: Value | float, b: Value | float) -> Value:
        return self._two("fsub", a, b)

    def mul(self, a: Value | float, b: Value | float) -> Value:
        return self._two("fmul", a, b)

    def div(self, a: Value | float, b: Value | float) -> Value:
        return self._two("fdiv", a, b)

    def mad(self, a: Value, b: Value | float, c: Value | float) -> Value:
        """a * b + c, fused where the host can: for polynomials, whose bits may differ by host."""
        b, c = self._is(b, a), self._is(c, a)
        if self.has_fma:
            return self.f.intrinsic("fma", a.type, a, b, c)
        return self.f.op("fadd", self.f.op("fmul", a, b), c)

    def poly(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Horner's rule, highest power first."""
        p = self.k(x, coefficients[0])
        for c in coefficients[1:]:
            p = self.mad(p, x, c)
        return p

    def abs(self, x: Value) -> Value:
        return self.f.intrinsic("fabs", x.type, x)

    def copysign(self, x: Value | float, sign: Value) -> Value:
        return self.f.intrinsic("copysign", sign.type, self._is(x, sign), sign)

    def cmp(self, predicate: str, a: Value, b: Value | float) -> Value:
        return self.f.fcmp(predicate, a, self._is(b, a))

    def sel(self, c: Value, a: Value | float, b: Value | float) -> Value:
        like = a if isinstance(a, Value) else b
        assert isinstance(like, Value)
        return self.f.select(c, self._is(a, like), self._is(b, like))

    def bits(self, x: Value) -> Value:
        wide = x.type.endswith(("double", "double>"))
        return self.f.cast("bitcast", x, with_element(x.type, "i64" if wide else "i32"))

    def floats(self, i: Value) -> Value:
        wide = i.type.endswith(("i64", "i64>"))
        return self.f.cast("bitcast", i, with_element(i.type, "double" if wide else "float"))

    def isnan(self, x: Value) -> Value:
        return self.f.fcmp("uno", x, x)

    def to64(self, x: Value) -> Value:
        return self.f.cast("fpext", x, with_element(x.type, "double"))

    def to32(self, x: Value) -> Value:
        return self.f.cast("fptrunc", x, with_element(x.type, "float"))

    def scales(self, x: Value) -> bool:
        """Whether the host multiplies such vectors by powers of two in one instruction."""
        return host().has_avx512 and lanes_of(x.type) >= (8 if is64(x) else 16)

    def scale(self, x: Value, n: Value, n_float: Value, kept: Value) -> Value:
        """x * 2**n where `kept`, 0 elsewhere, for an integer vector n, also given as floats, whose
        |n| < 2 * largest exponent: an instruction, else two factors, of which at most the last
        rounds."""
        f, lanes, full = self.f, lanes_of(x.type), 8 if is64(x) else 16
        if self.scales(x) and lanes > full:
            halves = [range(at, at + lanes // 2) for at in (0, lanes // 2)]
            low, high = (
                self.scale(*(f.shuffle(v, v, half) for v in (x, n, n_float, kept)))
                for half in halves
            )
            return f.shuffle(low, high, range(lanes))
        if self.scales(x):
            name = f"x86.avx512.mask.scalef.p{'d' if is64(x) else 's'}.512"
            mask, nearest = f.cast("bitcast", kept, f"i{lanes}"), Value("4", "i32")
            return f.intrinsic(name, x.type, x, n_float, zero(x.type), mask, nearest)
        wide = n.type.endswith(("i64", "i64>"))
        mantissa, bias = (52, 1023) if wide else (23, 127)
        half = f.op("ashr", n, const(n.type, 1))
        rest = f.op("sub", n, half)
        for e in (half, rest):
            biased = f.op("add", e, const(n.type, bias))
            x = self.mul(x, self.floats(f.op("shl", biased, const(n.type, mantissa))))
        return self.sel(kept, x, 0.0)

    def nearest(self, x: Value, by: float = 1.0) -> tuple[Value, Value]:
        """(x * by rounded to nearest as a float, the same as an integer vector); below 2**22 or
        2**51."""
        n, i = self.nearest_ending(x, by)
        magic = 1.5 * 2.0 ** (52 if is64(x) else 23)
        form = ("<d", "<q") if is64(x) else ("<f", "<i")
        bits = struct.unpack(form[1], struct.pack(form[0], magic))[0]
        return n, self.f.op("sub", i, const(i.type, bits))

    def nearest_ending(self, x: Value, by: float) -> tuple[Value, Value]:
        """The same, but of integers the last bits alone: those that `table` looks at."""
        magic = 1.5 * 2.0 ** (52 if is64(x) else 23)
        shifted = self.add(x, magic) if by == 1 else self.mad(x, by, magic)
        return self.sub(shifted, magic), self.bits(shifted)

    def nearest_quarter(self, x: Value) -> tuple[Value, Value]:
        """(x rounded to a multiple of 1/4, integers that end with 4 times that); |x| < 2**20."""
        shifted = self.add(x, 1.5 * 2.0**21)
        return self.sub(shifted, 1.5 * 2.0**21), self.bits(shifted)

    def table(self, i: Value, values: Sequence[float]) -> Value:
        """values[i mod 16] of 16 floats, for each of 16 lanes. AVX-512 only."""
        cells = ", ".join(f"float {const('float', v)}" for v in values)
        table = Value(f"<{cells}>", "<16 x float>")
        return self.f.intrinsic("x86.avx512.permvar.sf.512", table.type, table, i)

    def by_sixteen(self, body: Callable[[Math, Value], Value], x: Value) -> Value:
        """body, whose code is for 16 floats, of fewer."""
        f, lanes = self.f, lanes_of(x.type)
        if lanes == 1:
            return f.extract(body(self, f.insert(zero("<16 x float>"), x, 0)), 0)
        if lanes < 16:
            y = body(self, f.shuffle(x, x, [k % lanes for k in range(16)]))
            return f.shuffle(y, y, range(lanes))
        return body(self, x)

    def outlined(self, name: str, body: Callable[..., Value], *xs: Value) -> Value:
        """Call a function made once per module: for long bodies, used more than once or rarely."""
        f = self.f
        type = xs[0].type
        full = f"{name}.{lanes_of(type)}.{type.split()[-1].rstrip('>')}"
        module: Module = f.module
        if not any(g.name == full for g in module.functions):
            g = Function(module, full, [(type, f"x{i}") for i in range(len(xs))], type, True)
            g.ret(body(Math(g, has_fma=self.has_fma), *(g.arg(f"x{i}") for i in range(len(xs)))))
            module.functions.append(g)
        return f.call(full, type, *xs)

    def libm(self, name: str, *xs: Value) -> Value:
        """The C library's double function, lane by lane (a loop over a stack buffer)."""
        f = self.f
        f.module.declare(name, "double", ["double"] * len(xs))
        return self.each(lambda *one: f.call(name, "double", *one), *xs)

    def each(self, fn: Callable[..., Value], *xs: Value) -> Value:
        """fn of each lane's scalars, gathered to a vector again."""
        f = self.f
        type = xs[0].type
        lanes, element = lanes_of(type), type.split()[-1].rstrip(">")
        if lanes == 1:
            return fn(*xs)
        rooms = [f.alloca(type) for _ in xs]
        for x, room in zip(xs, rooms, strict=True):
            f.store(x, room)
        with f.loop(0, lanes) as loop:
            one = [f.load(element, f.gep(room, loop.i, element)) for room in rooms]
            f.store(fn(*one), f.gep(rooms[0], loop.i, element))
        return f.load(type, rooms[0])

    def any(self, c: Value) -> Value:
        """Does any lane hold?"""
        return c if c.type == "i1" else self.f.intrinsic("vector.reduce.or", "i1", c)

    def repaired(self, bad: Value, good: Value, name: str, *xs: Value) -> Value:
        """`good`, and the C library's value in lanes where `bad` holds (rare)."""
        f = self.f
        with f.if_else(self.any(bad)) as sides:
            wide = [self.to64(x) if not is64(x) else x for x in xs]
            exact = self.libm(name, *wide)
            fixed = f.select(bad, exact if is64(good) else self.to32(exact), good)
            sides.otherwise()
        return sides.merge(good.type, fixed, good)


def is64(x: Value) -> bool:
    """Whether x is of doubles."""
    return x.type.endswith(("double", "double>"))

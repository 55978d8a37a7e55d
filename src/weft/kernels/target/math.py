"""Elementary functions as vector LLVM code: the `llvm` column of the scalar table.

Every function works lane by lane with the same instructions, so a result depends on its operand
alone, never on the lane, the width or the neighbours.  Errors stay at or below 2 ulp in float32 and
4 ulp in float64 (tests/kernels/test_math.py measures them); inf, NaN, -0 and denormals are exact.

float32 has polynomials of its own for exp log log1p tanh erf sin cos (erf, area and lift, with
AVX-512, one for each of 16 places, whose coefficients are looked up in registers); the others go
through float64, where they are right to the last bit but one.  float64's rarer functions call the C
library lane by lane.
Long because it is a table: a function, its polynomial, the next one.
Sources: Cody and Waite, "Software Manual for the Elementary Functions" (1980); Moshier, Cephes
(single precision coefficients; those of erf are fitted here); Giles, "Approximating the erfinv
function" (2010).
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

from numpy.polynomial.chebyshev import cheb2poly

from weft.kernels.target.llvm import Value, const, with_element
from weft.kernels.target.vector import Math, is64
from weft.runtime.native import host

LN2 = math.log(2)

# ------------------------------------------------------------------------------ float32


def _tame(m: Math, x: Value, least: float) -> tuple[Value, Value]:
    """(x, or 0 where it is below `least`; where it is not): to find that exp is zero there takes
    Intel's cores ten times as long as exp, and all hidden scores are such.  An instruction that
    scales leaves such lanes out.
    """
    kept = m.cmp("uge", x, least)
    return (x if m.scales(x) else m.sel(kept, x, 0.0)), kept


def exp32(m: Math, x: Value) -> Value:
    return _exp32(m, m.sel(m.cmp("ogt", x, 89.0), 89.0, x))


def exp_below(m: Math, x: Value) -> Value:
    """exp of what is not above 0, a difference from a maximum: without its upper bound."""
    return call(m, "exp", x) if is64(x) else _exp32(m, x)


def _exp32(m: Math, x: Value) -> Value:
    """2**n * p(r), x = n ln2 + r."""
    x, kept = _tame(m, x, -104.0)
    n, i = m.nearest(x, 1 / LN2)
    r = m.mad(n, -0.693359375, x)
    r = m.mad(n, 2.12194440e-4, r)
    p = m.poly(r, (1.3750892e-3, 8.3690582e-3, 4.1669555e-2, 1.6666517e-1, 4.9999988e-1))
    if m.has_fma:
        y = m.mad(m.mad(p, r, 1.0), r, 1.0)
    else:  # products round: only the last sum may count
        y = m.add(m.mad(p, m.mul(r, r), r), 1.0)
    return m.scale(y, i, n, kept)


def _log_of32(m: Math, r: Value, e: Value, low: Value | None = None) -> Value:
    """log(1 + r) by polynomial, plus e ln2, plus low."""
    z = m.mul(r, r)
    p = m.poly(r, (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1,
                   1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
                   3.3333331174e-1))  # fmt: skip
    y = m.mad(e, -2.12194440e-4, m.mul(m.mul(r, z), p))
    y = m.mad(z, -0.5, y)
    if low is not None:
        y = m.add(y, low)
    return m.mad(e, 0.693359375, m.add(r, y))


def _log_edges(m: Math, x: Value, y: Value) -> Value:
    y = m.sel(m.cmp("ult", x, math.inf), y, x)  # inf
    y = m.sel(m.cmp("oeq", x, 0.0), -math.inf, y)
    y = m.sel(m.cmp("olt", x, 0.0), math.nan, y)
    return m.sel(m.isnan(x), x, y)


def tanh32(m: Math, x: Value) -> Value:
    """Polynomial below 0.625, 1 - 2 / (exp(2|x|) + 1) above."""
    t, z = m.abs(x), m.mul(x, x)
    p = m.poly(z, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1,
                   -3.33332819422e-1))  # fmt: skip
    small = m.mad(m.mul(p, z), x, x)
    big = m.sub(1.0, m.div(2.0, m.add(exp32(m, m.add(t, t)), 1.0)))
    return m.copysign(m.sel(m.cmp("olt", t, 0.625), small, big), x)


def erf32(m: Math, x: Value) -> Value:
    """x + x q(x^2) up to 1, a polynomial in |x| - 2.5 up to 3.92, then 1; or from a table."""
    if host().has_avx512:
        return m.by_sixteen(_erf_by_table, x)
    t, s = m.abs(x), m.mul(x, x)
    q = m.poly(s, (7.8521960e-5, -8.0097304e-4, 5.1882798e-3, -2.6853789e-2, 1.1283585e-1,
                   -3.7612626e-1, 1.2837917e-1))  # fmt: skip
    far = m.poly(m.sub(t, 2.5), (-9.1247275e-6, 2.1040629e-5, 6.1888168e-5, -2.7890014e-4,
                                 2.8650503e-4, 5.7036957e-4, -2.8181728e-3, 6.1032474e-3,
                                 -8.6153187e-3, 8.3532361e-3, -5.4466524e-3, 2.1780804e-3,
                                 9.9959308e-1))  # fmt: skip
    far = m.copysign(m.sel(m.cmp("olt", t, 3.92), far, 1.0), x)
    return m.sel(m.cmp("ogt", t, 1.0), far, m.mad(q, x, x))


_PLACE = 25 / 64  # 15.5 of them are where the density's tail is nothing beside 1/2
_TABLES = {"erf": (2, 1.0, 1 / 4, 5), "area": (1, 0.5, _PLACE, 5), "lift": (1, 0.5, _PLACE, 6)}


@cache
def _table(name: str) -> list[list[float]]:
    """For each power of r, highest first, its coefficient of erf(c + r) - r, or of area or lift, at
    16 places c: Taylor's series, whose last powers Chebyshev's polynomials replace by lower ones.
    """
    s, height, place, degree = _TABLES[name]
    columns: list[list[float]] = []
    for k in range(16):
        c = k * place
        slope = height * math.sqrt(2 * s / math.pi) * math.exp(-s * c * c / 2)
        a = [height * math.erf(c * math.sqrt(s / 2)), slope]
        for n in range(1, 10):  # the second derivative is -s t times the first
            a.append(-s * (c * n * a[n] + (n - 1) * a[n - 1]) / (n * (n + 1)))
        if name == "lift":  # of t times it
            a = [(n + 1) * (a[n] + c * a[n + 1]) for n in range(10)]
        for m in range(9, degree, -1):
            lower: Any = cheb2poly([0.0] * m + [1.0])
            for n in range(m):
                a[n] -= a[m] * float(lower[n] / lower[m]) * (place / 2) ** (m - n)
        a[1] -= name == "erf"
        columns.append(a[degree::-1])
    columns[-1][-1] += 2**-24 * (name == "erf")  # it ends with 1
    return [list(row) for row in zip(*columns, strict=True)]


def _erf_by_table(m: Math, x: Value) -> Value:
    t = m.abs(x)
    t = m.sel(m.cmp("ogt", t, 3.874), 3.874, t)
    n, i = m.nearest_quarter(t)
    r = m.sub(t, n)
    *powers, base = (m.table(i, row) for row in _table("erf"))
    p = powers[0]
    for c in powers[1:]:
        p = m.mad(p, r, c)
    return m.copysign(m.add(base, m.mad(p, r, r)), x)


def area(m: Math, x: Value) -> Value:
    """erf(x / sqrt 2) / 2; or from a table."""
    if host().has_avx512 and not is64(x):
        return m.by_sixteen(partial(_by_place, name="area"), x)
    return m.mul(call(m, "erf", m.mul(x, math.sqrt(0.5))), 0.5)


def lift(m: Math, x: Value) -> Value:
    """area(x) + x exp(-x^2 / 2) / sqrt(2 pi); or from a table."""
    if host().has_avx512 and not is64(x):
        return m.by_sixteen(partial(_by_place, name="lift"), x)
    t = m.sel(m.cmp("olt", m.abs(x), 40.0), x, m.copysign(40.0, x))
    density = m.mul(call(m, "exp", m.mul(m.mul(t, t), -0.5)), 1 / math.sqrt(2 * math.pi))
    return m.add(area(m, x), m.mul(t, density))


def _by_place(m: Math, x: Value, name: str) -> Value:
    t = m.abs(x)
    t = m.sel(m.cmp("ogt", t, 15.5 * _PLACE), 15.5 * _PLACE, t)
    n, i = m.nearest_ending(t, 1 / _PLACE)
    r = m.mad(n, -_PLACE, t)
    p, *rest = (m.table(i, row) for row in _table(name))
    for c in rest:
        p = m.mad(p, r, c)
    return m.copysign(p, x)


TURN_LIMIT = 1.0e6  # beyond it the reduction by parts of pi/2 loses bits: the C library's turn
_PIO2 = (  # pi/2 in parts of 33 bits: n * part is exact for n < 2**20
    1.5707963267341256,
    6.077100506303966e-11,
    2.0222662487111665e-21,
    8.4784276603689e-32,
)


_PIO2_FUSED = 1.5707963267948966, 6.123233995736766e-17  # pi/2 in parts of 53 bits


def _quadrant(m: Math, x: Value, *, brief: bool = False) -> tuple[Value, Value]:
    """float64 x: (r in [-pi/4, pi/4], quadrant as i64); `brief`: of a float32, r for one."""
    n, q = m.nearest(m.mul(m.sel(m.cmp("olt", m.abs(x), TURN_LIMIT), x, 0.0), 2 / math.pi))
    r = x
    if brief and m.has_fma:
        for part in _PIO2_FUSED:
            r = m.mad(n, -part, r)
        return r, q
    for part in _PIO2:
        r = m.sub(r, m.mul(n, part))
    return r, q


def _turn32(m: Math, x: Value, shift: int, name: str) -> Value:
    f = m.f
    wide, q = _quadrant(m, m.to64(x), brief=True)
    r = m.to32(wide)
    q = f.cast("trunc", q, with_element(q.type, "i32"))
    if shift:
        q = f.op("add", q, const(q.type, shift))
    z = m.mul(r, r)
    s = m.mad(m.mul(m.poly(z, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)), z), r, r)
    c = m.poly(z, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2))
    c = m.add(m.mad(m.mul(c, z), z, m.mul(z, -0.5)), 1.0)
    y = _by_quadrant(m, q, s, c)
    huge = m.cmp("oge", m.abs(x), TURN_LIMIT)
    return m.repaired(huge, m.sel(m.isnan(x), x, y), name, x)


def _by_quadrant(m: Math, q: Value, s: Value, c: Value) -> Value:
    f = m.f
    odd = f.icmp("ne", f.op("and", q, const(q.type, 1)), const(q.type, 0))
    y = f.select(odd, c, s)
    sign = f.op("shl", f.op("and", q, const(q.type, 2)), const(q.type, 62 if is64(s) else 30))
    return m.floats(f.op("xor", m.bits(y), sign))


def sin32(m: Math, x: Value) -> Value:
    y = _turn32(m, x, 0, "sin")
    return m.sel(m.cmp("oeq", x, 0.0), x, y)


def cos32(m: Math, x: Value) -> Value:
    return _turn32(m, x, 1, "cos")


# ------------------------------------------------------------------------------ float64

_EXP = tuple(1 / math.factorial(i) for i in range(14, 1, -1))
_LN2_HI, _LN2_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # hi has 32 bits


def _reduce_exp(m: Math, x: Value) -> tuple[Value, Value, Value]:
    n, i = m.nearest(m.mul(x, 1 / LN2))
    r = m.sub(m.sub(x, m.mul(n, _LN2_HI)), m.mul(n, _LN2_LO))
    return r, i, n


def exp64(m: Math, x: Value) -> Value:
    x = m.sel(m.cmp("ogt", x, 710.0), 710.0, x)
    x, kept = _tame(m, x, -746.0)
    r, i, n = _reduce_exp(m, x)
    y = m.add(m.mad(m.poly(r, _EXP), m.mul(r, r), r), 1.0)
    return m.scale(y, i, n, kept)


def expm164(m: Math, x: Value) -> Value:
    """2**n p + (2**n - 1), p = exp(r) - 1; halved throughout so that 2**n stays finite."""
    f = m.f
    v = m.sel(m.cmp("ogt", x, 710.0), 710.0, x)
    v = m.sel(m.cmp("olt", v, -40.0), -40.0, v)
    r, i, _ = _reduce_exp(m, v)
    p = m.mad(m.poly(r, _EXP), m.mul(r, r), r)
    bias = f.op("add", i, const(i.type, 1022))
    half = m.floats(f.op("shl", bias, const(i.type, 52)))
    y = m.mul(m.add(m.mul(p, half), m.sub(half, 0.5)), 2.0)
    return m.sel(m.cmp("olt", m.abs(x), 2.0**-54), x, y)


_ATANH = tuple(2 / (2 * k + 1) for k in range(12, 0, -1))


def _log_parts(m: Math, x: Value) -> tuple[Value, Value]:
    """(mantissa - 1, exponent as a float) with the mantissa in [sqrt 1/2, sqrt 2); x normal."""
    f, (root, bits) = m.f, (0x3FE6A09E667F3BCD, 52) if is64(x) else (0x3F3504F3, 23)
    i = f.op("sub", m.bits(x), const(m.bits(x).type, root))
    e = f.cast("sitofp", f.op("ashr", i, const(i.type, bits)), x.type)
    low = f.op("and", i, const(i.type, (1 << bits) - 1))
    return m.sub(m.floats(f.op("add", low, const(i.type, root))), 1.0), e


def _log_of64(m: Math, r: Value, e: Value, low: Value | None = None) -> Value:
    """log(1 + r) + e ln2 + low: r - r^2/2 + s (r^2/2 + R), s = r / (2 + r)."""
    s = m.div(r, m.add(r, 2.0))
    z = m.mul(s, s)
    half = m.mul(m.mul(r, r), 0.5)
    rest = m.mul(s, m.add(half, m.mul(m.poly(z, _ATANH), z)))
    rest = m.add(rest, m.mul(e, _LN2_LO))
    if low is not None:
        rest = m.add(rest, low)
    return m.add(m.sub(r, m.sub(half, rest)), m.mul(e, _LN2_HI))


def log(m: Math, x: Value) -> Value:
    least, up = (2.0**-1022, 54) if is64(x) else (2.0**-126, 23)
    tiny = m.cmp("olt", x, least)
    r, e = _log_parts(m, m.sel(tiny, m.mul(x, 2.0**up), x))
    return _log_edges(m, x, _log_by_type(m, r, m.sel(tiny, m.sub(e, float(up)), e)))


def log1p(m: Math, x: Value) -> Value:
    """log(u) + c/u, u = 1 + x rounded, c = what the rounding lost."""
    u = m.add(x, 1.0)
    lost = m.sel(m.cmp("ogt", m.abs(x), 1.0), m.sub(1.0, m.sub(u, x)), m.sub(x, m.sub(u, 1.0)))
    r, e = _log_parts(m, u)
    near = m.cmp("olt", m.abs(x), 0.25)  # no reduction: u's rounding would be felt
    r, e = m.sel(near, x, r), m.sel(near, 0.0, e)
    y = _log_edges(m, u, _log_by_type(m, r, e, m.sel(near, 0.0, m.div(lost, u))))
    return m.sel(m.cmp("olt", m.abs(x), 2.0**-54), x, y)


def _log_by_type(m: Math, r: Value, e: Value, low: Value | None = None) -> Value:
    return (_log_of64 if is64(r) else _log_of32)(m, r, e, low)


_SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9, 0, -1))
_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(9, 1, -1))


def _sin_cos(m: Math, x: Value) -> tuple[Value, Value, Value]:
    r, q = _quadrant(m, x)
    z = m.mul(r, r)
    s = m.mad(m.mul(m.poly(z, _SIN), z), r, r)
    half = m.mul(z, 0.5)
    w = m.sub(1.0, half)
    c = m.add(w, m.mad(m.mul(m.poly(z, _COS), z), z, m.sub(m.sub(1.0, w), half)))
    return s, c, q


def sin64(m: Math, x: Value) -> Value:
    s, c, q = _sin_cos(m, x)
    y = m.sel(m.cmp("oeq", x, 0.0), x, _by_quadrant(m, q, s, c))
    return m.repaired(m.cmp("oge", m.abs(x), TURN_LIMIT), y, "sin", x)


def cos64(m: Math, x: Value) -> Value:
    s, c, q = _sin_cos(m, x)
    y = _by_quadrant(m, m.f.op("add", q, const(q.type, 1)), s, c)
    return m.repaired(m.cmp("oge", m.abs(x), TURN_LIMIT), y, "cos", x)


def tan64(m: Math, x: Value) -> Value:
    s, c, q = _sin_cos(m, x)
    odd = m.f.icmp("ne", m.f.op("and", q, const(q.type, 1)), const(q.type, 0))
    y = m.div(m.sel(odd, c, s), m.sel(odd, m.f.neg(s), c))
    y = m.sel(m.cmp("oeq", x, 0.0), x, y)
    return m.repaired(m.cmp("oge", m.abs(x), TURN_LIMIT), y, "tan", x)


def tanh64(m: Math, x: Value) -> Value:
    t = m.abs(x)
    e = expm164(m, m.sel(m.cmp("ogt", t, 30.0), 60.0, m.add(t, t)))
    d = m.add(e, 2.0)
    y = m.sel(m.cmp("ogt", t, 0.55), m.sub(1.0, m.div(2.0, d)), m.div(e, d))
    return m.sel(m.isnan(x), x, m.copysign(y, x))


def sinh64(m: Math, x: Value) -> Value:
    """(t + t / (t + 1)) / 2, t = exp(|x|) - 1; near overflow exp(|x|/2)^2 / 2."""
    a = m.abs(x)
    t = expm164(m, a)
    y = m.mul(m.add(t, m.div(t, m.add(t, 1.0))), 0.5)
    h = exp64(m, m.mul(a, 0.5))
    y = m.sel(m.cmp("ogt", a, 700.0), m.mul(m.mul(h, 0.5), h), y)
    return m.sel(m.isnan(x), x, m.copysign(y, x))


def cosh64(m: Math, x: Value) -> Value:
    a = m.abs(x)
    e = exp64(m, a)
    y = m.mul(m.add(e, m.div(1.0, e)), 0.5)
    h = exp64(m, m.mul(a, 0.5))
    y = m.sel(m.cmp("ogt", a, 700.0), m.mul(m.mul(h, 0.5), h), y)
    return m.sel(m.isnan(x), x, y)


def digamma64(m: Math, x: Value) -> Value:
    """psi(x): reflection below 0, recurrence to x >= 10, asymptotic series."""
    negative = m.cmp("olt", x, 0.0)
    y = m.sel(negative, m.sub(1.0, x), x)
    total = m.k(x, 0.0)
    for _ in range(10):
        small = m.cmp("olt", y, 10.0)
        total = m.sel(small, m.sub(total, m.div(1.0, y)), total)
        y = m.sel(small, m.add(y, 1.0), y)
    z = m.div(m.div(1.0, y), y)
    tail = m.poly(z, (1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12, 0.0))
    value = m.sub(m.add(total, m.sub(log(m, y), m.div(0.5, y))), tail)
    whole = m.f.intrinsic("floor", x.type, x)
    turn = m.div(m.k(x, math.pi), tan64(m, m.mul(m.sub(x, whole), math.pi)))
    value = m.sel(negative, m.sub(value, turn), value)
    value = m.sel(m.f.op("and", negative, m.cmp("oeq", whole, x)), math.nan, value)
    value = m.sel(m.cmp("oeq", x, math.inf), math.inf, value)
    return m.sel(m.cmp("oeq", x, 0.0), m.copysign(math.inf, m.f.neg(x)), value)


def erfinv64(m: Math, y: Value) -> Value:
    """Giles' polynomial in w = -log(1 - y^2), then Newton steps on erf (erfc near 1)."""
    a = m.abs(y)
    w = m.f.neg(log1p(m, m.f.neg(m.mul(a, a))))
    near = m.poly(m.sub(w, 2.5), (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06,
                                  0.00021858087, -0.00125372503, -0.00417768164, 0.246640727,
                                  1.50140941))  # fmt: skip
    root = m.f.intrinsic("sqrt", y.type, w)
    far = m.poly(m.sub(root, 3.0), (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844,
                                    0.00573950773, -0.0076224613, 0.00943887047, 1.00167406,
                                    2.83297682))  # fmt: skip
    x = m.mul(m.sel(m.cmp("olt", w, 5.0), near, far), a)
    for _ in range(2):
        err = m.sel(m.cmp("olt", a, 0.5), m.sub(m.libm("erf", x), a),
                    m.sub(m.sub(1.0, a), m.libm("erfc", x)))  # fmt: skip
        x = m.sub(x, m.mul(m.mul(err, math.sqrt(math.pi) / 2), exp64(m, m.mul(x, x))))
    x = m.sel(m.cmp("oeq", a, 1.0), math.inf, x)
    x = m.sel(m.cmp("oeq", a, 0.0), 0.0, x)
    return m.sel(m.cmp("ule", a, 1.0), m.copysign(x, y), math.nan)


def pow32(m: Math, x: Value, y: Value) -> Value:
    """exp(y log |x|) in float64, with IEEE's special cases; correct to half an ulp and a bit."""
    f = m.f
    a, b = m.to64(m.abs(x)), m.to64(y)
    p = m.mul(b, log(m, a))
    p = m.sel(m.cmp("oeq", b, 0.0), 0.0, p)
    p = m.sel(m.cmp("oeq", a, 1.0), 0.0, p)
    r = m.to32(exp64(m, p))
    whole = m.cmp("oeq", f.intrinsic("trunc", y.type, y), y)
    half = m.mul(y, 0.5)
    odd = f.op("and", whole, m.cmp("une", f.intrinsic("trunc", y.type, half), half))
    signed = m.sel(odd, m.copysign(r, x), r)
    finite = f.op("and", m.cmp("olt", x, 0.0), m.cmp("ogt", x, -math.inf))
    bad = f.op("and", finite, m.cmp("olt", m.abs(y), math.inf))
    bad = f.op("and", bad, f.op("xor", whole, const(whole.type, True)))
    r = m.sel(bad, math.nan, signed)
    r = m.sel(f.op("or", m.isnan(x), m.isnan(y)), m.add(x, y), r)
    return m.sel(f.op("or", m.cmp("oeq", y, 0.0), m.cmp("oeq", x, 1.0)), 1.0, r)


# ------------------------------------------------------------------------------ float32 by float64
# Bodies in float64 that are exact enough for float32: 1e-12 or better, then one rounding.

_ATAN = (0.03295604615970532, -0.06027265565380101, 0.07604790893047794, -0.09084100910061657,
         0.11110819662708163, -0.14285708108961764, 0.19999999949841366,
         -0.3333333333326618)  # fmt: skip
_ASIN = (0.0279070314326661, -0.0029397929067241963, 0.015675662527070935, 0.01318791613675373,
         0.017441495685492855, 0.02236606593888501, 0.030382182776212484, 0.04464285243793872,
         0.07500000003584559, 0.1666666666666218)  # fmt: skip
_TAN_EIGHTH = 0.41421356237309503  # tan(pi / 8)


def _atan_unit(m: Math, z: Value) -> Value:
    """atan on [0, 1]: above tan(pi/8), pi/4 + atan((z - 1) / (z + 1))."""
    high = m.cmp("ogt", z, _TAN_EIGHTH)
    t = m.sel(high, m.div(m.sub(z, 1.0), m.add(z, 1.0)), z)
    u = m.mul(t, t)
    r = m.mad(m.mul(m.poly(u, _ATAN), u), t, t)
    return m.sel(high, m.add(r, math.pi / 4), r)


def erfinv_wide(m: Math, y: Value) -> Value:
    """Polynomials in w = -log(1 - y^2) and its root, as `erfinv64` begins: right to 3e-9."""
    a = m.abs(y)
    w = m.f.neg(log(m, m.sub(1.0, m.mul(a, a))))
    near = m.poly(m.sub(w, 2.5), (1.336834156e-10, 4.3634435816e-10, -1.1037705235e-08,
                                  1.6467958582e-08, 4.797919425e-07, -3.4260708157e-06,
                                  -4.9990232122e-06, 0.00021826368836, -0.0012527045695,
                                  -0.0041773247384, 0.24664027568, 1.5014093517))  # fmt: skip
    root = m.f.intrinsic("sqrt", y.type, w)
    far = m.poly(m.sub(root, 3.1), (-2.4273301382e-05, 0.00013055939505, -0.00015546073968,
                                    -0.0002872025002, 0.0013317120298, -0.002721047796,
                                    0.0041182054889, -0.0056954209961, 0.00746034043,
                                    1.0033560673, 2.9332316689))  # fmt: skip
    x = m.mul(m.sel(m.cmp("olt", w, 5.0), near, far), a)
    return m.copysign(m.sel(m.cmp("oeq", a, 1.0), math.inf, x), y)


def atan_wide(m: Math, x: Value) -> Value:
    a = m.abs(x)
    far = m.cmp("ogt", a, 1.0)
    r = _atan_unit(m, m.sel(far, m.div(1.0, a), a))
    return m.sel(m.isnan(x), x, m.copysign(m.sel(far, m.sub(math.pi / 2, r), r), x))


def atan2_wide(m: Math, y: Value, x: Value) -> Value:
    """The angle of (x, y): atan of the smaller over the larger, moved to its octant."""
    f, a, b = m.f, m.abs(x), m.abs(y)
    steep = m.cmp("ogt", b, a)
    top, low = m.sel(steep, b, a), m.sel(steep, a, b)
    z = m.sel(m.cmp("oeq", a, b), 1.0, m.div(low, top))  # inf by inf
    z = m.sel(m.cmp("oeq", top, 0.0), 0.0, z)
    r = _atan_unit(m, z)
    r = m.sel(steep, m.sub(math.pi / 2, r), r)
    left = f.icmp("slt", m.bits(x), const(m.bits(x).type, 0))
    r = m.copysign(m.sel(left, m.sub(math.pi, r), r), y)
    return m.sel(f.fcmp("uno", x, y), m.add(x, y), r)


def _asin_half(m: Math, a: Value) -> tuple[Value, Value]:
    """(a > 1/2, asin a up to 1/2; beyond, asin sqrt((1 - a) / 2))."""
    big = m.cmp("ogt", a, 0.5)
    u = m.sel(big, m.mul(m.sub(1.0, a), 0.5), m.mul(a, a))
    t = m.sel(big, m.f.intrinsic("sqrt", a.type, u), a)
    return big, m.mad(m.mul(m.poly(u, _ASIN), u), t, t)


def asin_wide(m: Math, x: Value) -> Value:
    big, r = _asin_half(m, m.abs(x))
    return m.copysign(m.sel(big, m.sub(math.pi / 2, m.add(r, r)), r), x)


def acos_wide(m: Math, x: Value) -> Value:
    big, r = _asin_half(m, m.abs(x))
    twice = m.add(r, r)
    left = m.cmp("olt", x, 0.0)
    far = m.sel(left, m.sub(math.pi, twice), twice)
    return m.sel(big, far, m.sub(math.pi / 2, m.sel(left, m.f.neg(r), r)))


def asinh_wide(m: Math, x: Value) -> Value:
    """log1p(a + a^2 / (1 + sqrt(a^2 + 1)))"""
    a = m.abs(x)
    s = m.mul(a, a)
    root = m.f.intrinsic("sqrt", x.type, m.add(s, 1.0))
    y = log1p(m, m.add(a, m.div(s, m.add(root, 1.0))))
    return m.copysign(m.sel(m.cmp("oeq", a, math.inf), a, y), x)


def acosh_wide(m: Math, x: Value) -> Value:
    """log1p(t + sqrt(2 t + t^2)), t = x - 1"""
    t = m.sub(x, 1.0)
    root = m.f.intrinsic("sqrt", x.type, m.mul(t, m.add(t, 2.0)))
    y = log1p(m, m.add(t, root))
    return m.sel(m.cmp("olt", x, 1.0), math.nan, y)


def atanh_wide(m: Math, x: Value) -> Value:
    """log1p(2 a / (1 - a)) / 2"""
    a = m.abs(x)
    return m.copysign(m.mul(log1p(m, m.div(m.add(a, a), m.sub(1.0, a))), 0.5), x)


def log2_wide(m: Math, x: Value) -> Value:
    return m.mul(log(m, x), 1 / LN2)


def log10_wide(m: Math, x: Value) -> Value:
    return m.mul(log(m, x), 1 / math.log(10))


def exp2_wide(m: Math, x: Value) -> Value:
    return exp64(m, m.mul(x, LN2))


def fmod32(m: Math, x: Value, y: Value) -> Value:
    """|x| - q |y| in float64, exact for a quotient below 2**28; the C library's beyond."""
    f = m.f
    a, b = m.to64(m.abs(x)), m.to64(m.abs(y))
    q = m.div(a, b)
    r = m.sub(a, m.mul(f.intrinsic("trunc", q.type, q), b))
    r = m.sel(m.cmp("olt", r, 0.0), m.add(r, b), r)  # the quotient was rounded up to an integer
    r = m.sel(m.cmp("olt", a, b), a, r)
    y32 = m.copysign(m.to32(r), x)
    odd = f.op("and", m.cmp("uge", q, 2.0**28), m.cmp("ord", x, y))
    return m.repaired(odd, m.sel(f.fcmp("uno", x, y), m.add(x, y), y32), "fmod", x, y)


def fmod64(m: Math, x: Value, y: Value) -> Value:
    return m.libm("fmod", x, y)


# ------------------------------------------------------------------------------ dispatch

_FLOAT32 = {"exp": exp32, "log": log, "log1p": log1p, "tanh": tanh32, "erf": erf32,
            "sin": sin32, "cos": cos32, "area": area, "lift": lift}  # fmt: skip
_FLOAT64 = {
    "exp": exp64, "expm1": expm164, "log": log, "log1p": log1p, "sin": sin64, "cos": cos64,
    "tan": tan64, "tanh": tanh64, "sinh": sinh64, "cosh": cosh64, "digamma": digamma64,
    "erfinv": erfinv64, "area": area, "lift": lift,
}  # fmt: skip
_WIDE = {
    "atan": atan_wide, "atan2": atan2_wide, "asin": asin_wide, "acos": acos_wide,
    "asinh": asinh_wide, "acosh": acosh_wide, "atanh": atanh_wide, "log2": log2_wide,
    "log10": log10_wide, "exp2": exp2_wide, "erfinv": erfinv_wide,
}  # fmt: skip
_LIBM = frozenset({
    "exp2", "log2", "log10", "asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc",
    "lgamma", "pow", "atan2",
})  # fmt: skip
_INLINE = frozenset({"exp", "log", "tanh", "erf", "area", "lift"})  # short enough to spare the call
NAMES = frozenset(_FLOAT32) | frozenset(_FLOAT64) | _LIBM


def call(m: Math, name: str, *xs: Value) -> Value:
    """The function `name` of float or double vectors."""
    wide = is64(xs[0])
    if not wide and name in _FLOAT32:
        body = _FLOAT32[name]
        return body(m, *xs) if name in _INLINE else m.outlined("weft." + name, body, *xs)
    if name == "pow" and not wide:
        return m.outlined("weft.pow", pow32, *xs)
    if not wide:
        wide_xs = [m.to64(x) for x in xs]
        if name in _WIDE:
            return m.to32(m.outlined(f"weft.{name}.wide", _WIDE[name], *wide_xs))
        return m.to32(call(m, name, *wide_xs))
    if name in _FLOAT64:
        return m.outlined("weft." + name, _FLOAT64[name], *xs)
    return m.outlined("weft." + name, lambda g, *ys: g.libm(name, *ys), *xs)

"""The scalar table's rows: one a scalar primitive, with a column a use.

Arity, operand kinds, result dtype; the meaning in NumPy (the reference of every target); the text
in C; the name of the LLVM emitter (kernels/target/element.py and math.py).  Adding a scalar op adds
a row; adding a target adds a column.  Expressions over rows are in scalar.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SAME, BOOL = "same", "bool"


@dataclass(frozen=True)
class Row:
    """One scalar primitive.  `kinds`: which of f(loat) i(nt) b(ool) c(omplex) operands it takes.

    On complex operands NumPy is the only target.
    """

    name: str
    arity: int
    numpy: Callable[..., Any]
    c: str  # C text; {f} is the suffix of the float's libm name, {0} {1} {2} the operands
    kinds: str = "f"
    result: str = SAME
    llvm: str = ""  # emitter name; the row's own by default
    complex: Callable[..., Any] | None = None  # its NumPy on complex operands, where another


TABLE: dict[str, Row] = {}


def row(name: str, arity: int, numpy: Callable[..., Any], c: str, kinds: str = "f",
        result: str = SAME, complex: Callable[..., Any] | None = None) -> None:  # fmt: skip
    TABLE[name] = Row(name, arity, numpy, c, kinds, result, name, complex)


def _each(fn: Callable[..., float]) -> Callable[..., Any]:
    """A math-module function over arrays, NaN where it raises."""

    def one(*xs: float) -> float:
        try:
            return fn(*xs)
        except (ValueError, OverflowError):
            return math.nan

    vector = np.frompyfunc(one, fn.__code__.co_argcount if hasattr(fn, "__code__") else 1, 1)

    def many(*xs: Any) -> Any:
        return np.asarray(vector(*(np.asarray(x, np.float64) for x in xs)), np.float64)

    return many


def _lgamma(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    return math.lgamma(x)


def _digamma(x: float) -> float:
    """psi(x): reflection below 0, recurrence to x >= 10, then the asymptotic series."""
    if x == 0:
        return math.copysign(math.inf, -x)
    if math.isinf(x):
        return x if x > 0 else math.nan
    if x < 0:
        if x == math.floor(x):
            return math.nan
        return _digamma(1 - x) - math.pi / math.tan(math.pi * (x - math.floor(x)))
    y = 0.0
    while x < 10:
        y, x = y - 1 / x, x + 1
    z = 1 / (x * x)
    tail = z * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z * (1 / 132 - z * (691 / 32760 - z / 12))))))  # fmt: skip  # noqa: E501
    return y + math.log(x) - 0.5 / x - tail


def _erfinv(y: float) -> float:
    """Newton's method on erf, on erfc where y is near 1."""
    if math.isnan(y) or abs(y) > 1:
        return math.nan
    if abs(y) == 1:
        return math.copysign(math.inf, y)
    a = abs(y)
    w = -math.log1p(-a * a)
    k = 2 / (math.pi * 0.147) + -w / 2
    x = math.sqrt(max(0.0, math.sqrt(k * k + w / 0.147) - k))
    for _ in range(8):
        err = math.erf(x) - a if a < 0.5 else (1 - a) - math.erfc(x)
        x -= err * math.sqrt(math.pi) / 2 * math.exp(x * x)
    return math.copysign(x, y)


def _area(x: float) -> float:
    return math.erf(x * math.sqrt(0.5)) / 2


def _lift(x: float) -> float:
    t = min(max(x, -40.0), 40.0)
    return _area(x) + t * math.exp(-t * t / 2) / math.sqrt(2 * math.pi)


def _np_sign(x: Any) -> Any:
    return np.subtract(x > 0, x < 0, dtype=np.int8).astype(np.asarray(x).dtype)  # NaN: 0


def _np_rsqrt(x: Any) -> Any:
    return np.asarray(1, np.asarray(x).dtype) / np.sqrt(x)


def _np_int_div(x: Any, y: Any) -> Any:
    """Truncating division of ints, IEEE division of floats."""
    if np.issubdtype(np.asarray(x).dtype, np.integer):
        q = np.abs(x) // np.abs(y)
        return np.where((np.asarray(x) < 0) != (np.asarray(y) < 0), -q, q)
    return np.divide(x, y)


def _np_shift(left: bool) -> Callable[[Any, Any], Any]:
    def shift(x: Any, y: Any) -> Any:
        bits = np.asarray(x).dtype.itemsize * 8
        inside = (np.asarray(y) >= 0) & (np.asarray(y) < bits)
        safe = np.where(inside, y, 0)
        if left:
            return np.where(inside, np.left_shift(x, safe), 0)
        return np.where(inside, np.right_shift(x, safe), np.where(np.asarray(x) < 0, -1, 0))

    return shift


def _np_pow(x: Any, y: Any) -> Any:
    if not np.issubdtype(np.asarray(x).dtype, np.integer):
        return np.power(x, y)
    x, y = np.broadcast_arrays(x, y)
    out = np.power(x, np.where(y < 0, 0, y))  # a negative power of an int is 0 but for 1 and -1
    odd = np.where(y % 2 == 0, 1, x)
    return np.where(y < 0, np.where(np.abs(x) == 1, odd, 0), out).astype(x.dtype)


def _np_fma(a: Any, b: Any, c: Any) -> Any:
    """One rounding for float32 (exact product in float64, rounded twice only when halfway)."""
    if np.asarray(a).dtype == np.float32:
        wide = np.longdouble
        return (np.asarray(a, wide) * np.asarray(b, wide) + np.asarray(c, wide)).astype(np.float32)
    return np.asarray(a, np.longdouble) * b + c


def _c_mul(x: Any, y: Any) -> Any:
    """The plain formula: NumPy's own rounds otherwise where the operands lie otherwise."""
    out = np.empty(np.broadcast_shapes(np.shape(x), np.shape(y)), np.result_type(x, y))
    out.real = x.real * y.real - x.imag * y.imag
    out.imag = x.real * y.imag + x.imag * y.real
    return out


def _c_pow(x: Any, y: Any) -> Any:
    """x ** y; anything to the power 0 is 1."""
    return np.where(y == 0, np.ones((), np.result_type(x, y)), np.power(x, y))


row("neg", 1, np.negative, "-{0}", "fic")
row("abs", 1, np.abs, "fabs{f}({0})|({0} < 0 ? -{0} : {0})", "fi")
row("sign", 1, _np_sign, "weft_sign{f}({0})|(({0} > 0) - ({0} < 0))", "fi")
row("floor", 1, np.floor, "floor{f}({0})")
row("ceil", 1, np.ceil, "ceil{f}({0})")
row("trunc", 1, np.trunc, "trunc{f}({0})")
row("round", 1, np.round, "rint{f}({0})")
row("sqrt", 1, np.sqrt, "sqrt{f}({0})", "fc")
row("rsqrt", 1, _np_rsqrt, "(1 / sqrt{f}({0}))", "fc")
row("exp", 1, np.exp, "exp{f}({0})", "fc")
row("exp2", 1, np.exp2, "exp2{f}({0})", "fc")
row("expm1", 1, np.expm1, "expm1{f}({0})", "fc")
row("log", 1, np.log, "log{f}({0})", "fc")
row("log1p", 1, np.log1p, "log1p{f}({0})", "fc")
row("log2", 1, np.log2, "log2{f}({0})", "fc")
row("log10", 1, np.log10, "log10{f}({0})", "fc")
row("sin", 1, np.sin, "sin{f}({0})", "fc")
row("cos", 1, np.cos, "cos{f}({0})", "fc")
row("tan", 1, np.tan, "tan{f}({0})", "fc")
row("tanh", 1, np.tanh, "tanh{f}({0})", "fc")
row("asin", 1, np.arcsin, "asin{f}({0})", "fc")
row("acos", 1, np.arccos, "acos{f}({0})", "fc")
row("atan", 1, np.arctan, "atan{f}({0})", "fc")
row("sinh", 1, np.sinh, "sinh{f}({0})", "fc")
row("cosh", 1, np.cosh, "cosh{f}({0})", "fc")
row("asinh", 1, np.arcsinh, "asinh{f}({0})", "fc")
row("acosh", 1, np.arccosh, "acosh{f}({0})", "fc")
row("atanh", 1, np.arctanh, "atanh{f}({0})", "fc")
row("erf", 1, _each(math.erf), "erf{f}({0})")
row("erfc", 1, _each(math.erfc), "erfc{f}({0})")
row("erfinv", 1, _each(_erfinv), "weft_erfinv{f}({0})")
row("lgamma", 1, _each(_lgamma), "lgamma{f}({0})")
row("digamma", 1, _each(_digamma), "weft_digamma{f}({0})")
row("not", 1, np.invert, "~{0}|!{0}", "ib")

row("add", 2, np.add, "({0} + {1})", "fic")
row("sub", 2, np.subtract, "({0} - {1})", "fic")
row("mul", 2, np.multiply, "({0} * {1})", "fic", complex=_c_mul)
row("div", 2, _np_int_div, "({0} / {1})", "fic")
row("pow", 2, _np_pow, "pow{f}({0}, {1})|weft_ipow({0}, {1})", "fic", complex=_c_pow)
row("min", 2, np.minimum, "weft_min{f}({0}, {1})|({0} < {1} ? {0} : {1})", "fi")
row("max", 2, np.maximum, "weft_max{f}({0}, {1})|({0} > {1} ? {0} : {1})", "fi")
row("rem", 2, np.remainder, "weft_rem{f}({0}, {1})|weft_irem({0}, {1})", "fi")
row("fmod", 2, np.fmod, "fmod{f}({0}, {1})|({0} % {1})", "fi")
row("floordiv", 2, np.floor_divide, "weft_floordiv{f}({0}, {1})|weft_ifloordiv({0}, {1})", "fi")
row("atan2", 2, np.arctan2, "atan2{f}({0}, {1})")
row("nextafter", 2, np.nextafter, "nextafter{f}({0}, {1})")
row("and", 2, np.bitwise_and, "({0} & {1})", "ib")
row("or", 2, np.bitwise_or, "({0} | {1})", "ib")
row("xor", 2, np.bitwise_xor, "({0} ^ {1})", "ib")
row("shl", 2, _np_shift(left=True), "weft_shl({0}, {1})", "i")
row("shr", 2, _np_shift(left=False), "weft_shr({0}, {1})", "i")
row("eq", 2, np.equal, "({0} == {1})", "fibc", BOOL)
row("ne", 2, np.not_equal, "({0} != {1})", "fibc", BOOL)
row("lt", 2, np.less, "({0} < {1})", "fib", BOOL)
row("le", 2, np.less_equal, "({0} <= {1})", "fib", BOOL)
row("gt", 2, np.greater, "({0} > {1})", "fib", BOOL)
row("ge", 2, np.greater_equal, "({0} >= {1})", "fib", BOOL)

row("fma", 3, _np_fma, "fma{f}({0}, {1}, {2})")
row("conj", 1, np.conjugate, "conj{f}({0})", "c")
# the normal density's integral from 0 to x, and the slope of x times that
row("area", 1, _each(_area), "(erf{f}({0} * 0.7071067811865476) / 2)")
row("lift", 1, _each(_lift), "(erf{f}({0} * 0.7071067811865476) / 2 + (fabs{f}({0}) < 40 ? {0} : 0)"
    " * exp{f}(-{0} * {0} / 2) * 0.3989422804014327)")  # fmt: skip

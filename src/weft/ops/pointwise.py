"""More functions of one element: clamp, tests for NaN and infinity, rarer arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.handle import Handle, state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, broadcast_shapes, numel, real_number
from weft.ops import dispatch
from weft.ops.arithmetic import BESIDE_NUMBER, PAIRS, Maximum, Minimum, need_numbers
from weft.ops.cast import cast
from weft.ops.compare import Compare, where
from weft.ops.complex_parts import complex, imag, real
from weft.ops.creation import full
from weft.ops.dispatch import NUMBERS, apply, dtype_of, read, shape_of
from weft.ops.kinds import Elementwise, by_loop
from weft.ops.promote import HALVES, as_number, number_of, only_tensors, operands, result_type
from weft.ops.trig import Sinc
from weft.ops.unary import Logit, trunc

__all__ = [
    "allclose", "clamp", "clamp_max", "clamp_min", "clip", "copysign", "deg2rad", "equal",
    "float_power", "fmax", "fmin", "frac", "gcd", "heaviside", "hypot", "isclose", "isfinite",
    "isinf", "isnan", "isneginf", "isposinf", "lcm", "ldexp", "logaddexp", "logaddexp2", "logit",
    "nan_to_num", "nextafter", "positive", "rad2deg", "rsub", "signbit", "sinc", "xlogy",
]  # fmt: skip


class Clamp(Elementwise):
    """y = min(max(x, self.min), self.max); NaN stays"""

    min: float | int | None = None
    max: float | int | None = None

    def scalar(self, x: S.Expr) -> S.Expr:
        if self.min is not None:
            x = S.max(x, S.Const(self.min, x.dtype))
        return x if self.max is None else S.min(x, S.Const(self.max, x.dtype))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        if self.min is None:
            inside = x <= self.max
        else:
            inside = x >= self.min
            inside = inside if self.max is None else inside & (x <= self.max)
        return (g.where(inside, 0.0),)

    onnx = Onnx("Clip", 13, build=onnx_rules.clip)
    samples = (sample((3, 4), min=-1.0, max=0.5), sample((5,), min=0.25), sample((0, 2), max=1.0))


class AtLeast(Maximum):
    """y = max(x, low); on a tie the cotangent is x's, beside NaN nobody's"""

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return lambda: g.where(a >= b, 0.0), lambda: g.where(a < b, 0.0)


class AtMost(Minimum):
    """y = min(x, high); on a tie the cotangent is x's, beside NaN nobody's"""

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return lambda: g.where(a <= b, 0.0), lambda: g.where(a > b, 0.0)


class IsNan(Compare):
    """y = x is not a number"""

    def scalar(self, x: S.Expr) -> S.Expr:
        return S.ne(x, x)

    host = staticmethod(np.isnan)
    onnx, samples = Onnx("IsNaN", 13), (sample((3, 4)), sample((0,)))


class IsInf(Compare):
    """y = x is infinite"""

    def scalar(self, x: S.Expr) -> S.Expr:
        return S.eq(S.abs(x), S.Const(math.inf, x.dtype))

    host = staticmethod(np.isinf)
    onnx, samples = Onnx("IsInf", 10), (sample((3, 4)), sample((0,)))


class IsFinite(Compare):
    """y = x is neither infinite nor NaN"""

    def scalar(self, x: S.Expr) -> S.Expr:
        return S.lt(S.abs(x), S.Const(math.inf, x.dtype))

    host = staticmethod(np.isfinite)
    samples = (sample((3, 4)), sample((0,)))


def _minus(x: S.Expr) -> S.Expr:
    """Whether the sign of a float is minus: -0 as well."""
    zero = S.Const(0.0, x.dtype)
    return S.or_(S.lt(x, zero), S.lt(S.div(S.Const(1.0, x.dtype), x), zero))


class SignBit(Compare):
    """y = the sign of x is minus (of -0 too)"""

    def scalar(self, x: S.Expr) -> S.Expr:
        return _minus(x)

    host = staticmethod(np.signbit)
    samples = (sample((3, 4)), sample((0,)))


class CopySign(Elementwise):
    """y = |a| with b's sign"""

    def scalar(self, a: S.Expr, b: S.Expr) -> S.Expr:
        return S.Select(_minus(b), S.neg(S.abs(a)), S.abs(a))

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return lambda: g * (y / a).where(a != 0, 0.0), lambda: g.new_zeros(g.shape)

    samples = BESIDE_NUMBER


class Hypot(Elementwise):
    """y = sqrt(a^2 + b^2), without overflow on the way"""

    @staticmethod
    @S.composite
    def scalar(a: S.Expr, b: S.Expr) -> S.Expr:
        a, b = S.abs(a), S.abs(b)
        m, n = S.max(a, b), S.min(a, b)
        one, zero = S.Const(1.0, m.dtype), S.Const(0.0, m.dtype)
        inf = S.Const(math.inf, m.dtype)
        ratio = S.div(n, m)
        y = S.mul(m, S.sqrt(S.add(one, S.mul(ratio, ratio))))
        y = S.Select(S.eq(m, zero), m, y)
        return S.Select(S.or_(S.eq(a, inf), S.eq(b, inf)), inf, y)

    def oracle(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.hypot(a, b)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return lambda: g * (a / y), lambda: g * (b / y)

    samples = PAIRS


class Xlogy(Elementwise):
    """y = a log(b + one); 0 where a is 0 (unless b is NaN); one is 0, or 1"""

    one: int = 0

    def scalar(self, a: S.Expr, b: S.Expr) -> S.Expr:
        return S.composite(self._of_numbers)(a, b)

    def _of_numbers(self, a: S.Expr, b: S.Expr) -> S.Expr:
        zero = S.Const(0.0, a.dtype)
        log = S.log1p(b) if self.one else S.log(b)
        y = S.Select(S.eq(a, zero), zero, S.mul(a, log))
        return S.Select(S.ne(b, b), b, y)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        def to_a() -> Any:
            rest = number_beside(b, a)
            log = rest.log1p() if self.one else rest.log()
            return (g * log).where((a != 0) | ~(rest <= -self.one), 0.0)

        return to_a, lambda: g * a / (b + self.one if self.one else b)

    samples = (
        sample((3, 4), (3, 4), low=0.5), sample((2, 3), (3,), low=0.5),
        sample((3, 4), (3, 4), low=-0.5, one=1),
    )  # fmt: skip


def number_beside(x: Any, like: Any) -> Any:
    """A tensor: x itself, or the number x in the other operand's dtype."""
    return full((), x, dtype=dtype_of(like)) if x.__class__ in NUMBERS else x


class Heaviside(Elementwise):
    """y = 0 for a < 0, b for a == 0, 1 for a > 0"""

    nondiff = "it is constant almost everywhere"

    def scalar(self, a: S.Expr, b: S.Expr) -> S.Expr:
        zero, one = S.Const(0, a.dtype), S.Const(1, a.dtype)
        return S.Select(S.eq(a, zero), b, S.Select(S.gt(a, zero), one, zero))

    samples = (sample((3, 4), (3, 4)), sample((5,), (1,), of="int64"))


class LogAddExp(Elementwise):
    """y = log(e^a + e^b); where both are one infinity the slope is NaN, a half if `even`"""

    even: bool = False

    @staticmethod
    @S.composite
    def scalar(a: S.Expr, b: S.Expr) -> S.Expr:
        m, apart = S.max(a, b), S.neg(S.abs(S.sub(a, b)))
        equal = S.add(a, S.Const(math.log(2.0), a.dtype))  # also where both are infinite
        return S.Select(S.eq(a, b), equal, S.add(m, S.log1p(S.exp(apart))))

    def oracle(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.logaddexp(a, b)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        def share(a: Any, b: Any) -> Any:
            slope = (a - b).sigmoid()
            return g * (slope.where((a != b) | (a.abs() != math.inf), 0.5) if self.even else slope)

        return lambda: share(a, b), lambda: share(b, a)

    samples = PAIRS


class NanToNum(Elementwise):
    """y = x with NaN, inf and -inf replaced (by the dtype's ends where None)"""

    nan: float = 0.0
    posinf: float | None = None
    neginf: float | None = None

    def scalar(self, x: S.Expr) -> S.Expr:
        top = _largest(x.dtype)
        high = top if self.posinf is None else self.posinf
        low = -top if self.neginf is None else self.neginf
        inf = S.Const(math.inf, x.dtype)
        y = S.Select(S.eq(x, inf), S.Const(high, x.dtype), x)
        y = S.Select(S.eq(x, S.Const(-math.inf, x.dtype)), S.Const(low, x.dtype), y)
        return S.Select(S.ne(x, x), S.Const(self.nan, x.dtype), y)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g.where(apply(IsFinite(), x), 0.0),)

    samples = (sample((3, 4)), sample((0,), nan=1.0, posinf=2.0))


def _largest(d: dt.dtype) -> float:
    if d is dt.bfloat16:
        return 3.3895313892515355e38
    return float(np.finfo(d.np).max)


class Nextafter(Elementwise):
    """y = the next number from a towards b"""

    scalar = staticmethod(S.nextafter)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return lambda: g.where(a != b, 0.0), lambda: g.new_zeros(g.shape)

    samples = (sample((3, 4), (3, 4)),)


# ------------------------------------------------------------------------------- functions


_CLAMP = dispatch.wish()


def clamp(input: Any, min: Any = None, max: Any = None, *, out: Any = None) -> Any:
    """y = min(max(input, min), max), bounds numbers or tensors; NaN stays; max wins over min."""
    if out is None and (y := dispatch.known(input, _CLAMP, min, max)) is not None:
        return y
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    bounds = [b for b in (min, max) if b is not None]
    if not any(isinstance(b, Handle) for b in bounds):
        bounds = [number_of(b, "clamp") for b in bounds]
        d = result_type(input, *bounds)
        if d is dt.bool:
            raise RuntimeError("clamp is not implemented for bool tensors")
        low, high = (None if b is None else as_number(number_of(b, "clamp"), d) for b in (min, max))
        x = cast(input, d)
        y = apply(Clamp(low, high), x)
        if x is input:
            dispatch.tell(Clamp(low, high), x, _CLAMP, min, max)
    else:
        d = result_type(input, *bounds)
        y = cast(input, d)
        if min is not None:
            low = cast(min, d) if isinstance(min, Handle) else full((), min, dtype=d)
            y = apply(AtLeast(), y, low)
        if max is not None:
            high = cast(max, d) if isinstance(max, Handle) else full((), max, dtype=d)
            y = apply(AtMost(), y, high)
    return y if out is None else out.copy_result(y)


def clamp_min(input: Any, min: Any, *, out: Any = None) -> Any:
    """y = max(input, min)"""
    return clamp(input, min=min, out=out)


def clamp_max(input: Any, max: Any, *, out: Any = None) -> Any:
    """y = min(input, max)"""
    return clamp(input, max=max, out=out)


def _test(op: Any, input: Any, *, otherwise: bool) -> Any:
    """A test of floats; integers all give `otherwise`."""
    if (y := op.quick(input)) is not None:
        return y
    if dtype_of(input).is_complex:  # finite where both parts are, infinite or NaN where one is
        a, b = apply(op, real(input)), apply(op, imag(input))
        return (a & b) if otherwise else (a | b)
    if dtype_of(input).category != dt.FLOAT:
        return full(shape_of(input), otherwise, dtype=dt.bool)
    return apply(op, input)


def isnan(input: Any) -> Any:
    """y = input is not a number, as bool."""
    return _test(IsNan(), input, otherwise=False)


def isinf(input: Any) -> Any:
    """y = input is infinite, as bool."""
    return _test(IsInf(), input, otherwise=False)


def isfinite(input: Any) -> Any:
    """y = input is neither infinite nor NaN, as bool."""
    return _test(IsFinite(), input, otherwise=True)


def isposinf(input: Any, *, out: Any = None) -> Any:
    """y = input is +infinity, as bool."""
    y = isinf(input) & (input > 0)
    return y if out is None else out.copy_result(y)


def isneginf(input: Any, *, out: Any = None) -> Any:
    """y = input is -infinity, as bool."""
    y = isinf(input) & (input < 0)
    return y if out is None else out.copy_result(y)


def signbit(input: Any, *, out: Any = None) -> Any:
    """y = the sign of input is minus (of -0.0 too), as bool."""
    y = apply(SignBit(), input) if dtype_of(input).category == dt.FLOAT else input < 0
    return y if out is None else out.copy_result(y)


def isclose(
    input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Any:
    """y = |input - other| <= atol + rtol * |other|, as bool; infinities only equal themselves."""
    if dtype_of(input) is not dtype_of(other):
        raise RuntimeError(f"{dtype_of(input).name} did not match {dtype_of(other).name}")
    rtol, atol = real_number(rtol, "isclose", "rtol"), real_number(atol, "isclose", "atol")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"rtol and atol must not be negative, but found {rtol} and {atol}")
    same = input == other
    if dtype_of(input) is dt.bool:
        return same
    if dtype_of(input).category >= dt.FLOAT:
        if equal_nan:
            same = same | (isnan(input) & isnan(other))
    else:
        input, other = cast(input, dt.float64), cast(other, dt.float64)
    apart = (input - other).abs()
    return same | (isfinite(apart) & (apart <= other.abs() * rtol + atol))


def allclose(
    input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close (isclose)."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Any, other: Any) -> bool:
    """Whether shapes and all elements are equal."""
    shape = shape_of(input)
    if shape != shape_of(other):
        return False
    if numel(shape) > _MANY and state.recorder is None and dtype_of(input) is dtype_of(other):
        a, b = (read(t).flat[:_FIRST] for t in (input, other))  # most that differ do so at once
        if (a != b).any():
            return False
    return bool((input == other).all())


_MANY, _FIRST = 2048, 64


def nan_to_num(
    input: Any, nan: float | None = None, posinf: float | None = None,
    neginf: float | None = None, *, out: Any = None,
) -> Any:  # fmt: skip
    """y = input with NaN (by 0), inf and -inf (by the dtype's ends) replaced."""
    if dtype_of(input).is_complex:
        parts = (nan_to_num(part(input), nan, posinf, neginf) for part in (real, imag))
        y = complex(*parts)
    elif dtype_of(input).category != dt.FLOAT:
        y = input.clone()
    else:
        y = apply(NanToNum(0.0 if nan is None else nan, posinf, neginf), input)
    return y if out is None else out.copy_result(y)


def frac(input: Any, *, out: Any = None) -> Any:
    """y = input without its whole part; the sign is input's."""
    if dtype_of(input).category < dt.FLOAT:
        raise dtype_of(input).lacks("frac_cpu")
    y = input - trunc(input)
    return y if out is None else out.copy_result(y)


def _two(op: Any, name: str, a: Any, b: Any, out: Any, *, floating: bool = True) -> Any:
    y = apply(op, *operands(name, a, b, floating=floating))
    return y if out is None else out.copy_result(y)


def copysign(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = |input| with other's sign (of -0.0 too)."""
    only_tensors("copysign", input)
    return _two(CopySign(), "copysign", input, other, out)


def hypot(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = sqrt(input^2 + other^2)"""
    only_tensors("hypot", input, other)
    return _two(Hypot(), "hypot", input, other, out)


def xlogy(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input * log(other); 0 where input is 0, NaN where other is."""
    return _two(Xlogy(), "xlogy", input, other, out)


def heaviside(input: Any, values: Any, *, out: Any = None) -> Any:
    """y = 0 for input < 0, values for input == 0, 1 for input > 0."""
    if dtype_of(input) is not dtype_of(values):
        raise RuntimeError("heaviside is not yet implemented for tensors with different dtypes.")
    y = apply(Heaviside(), input, values)
    return y if out is None else out.copy_result(y)


def logaddexp(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = log(exp input + exp other)"""
    only_tensors("logaddexp", input, other)
    return _two(LogAddExp(), "logaddexp", input, other, out)


def nextafter(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = the next floating-point number from input towards other."""
    only_tensors("nextafter", input, other)
    return _two(Nextafter(), "nextafter", input, other, out)


def fmax(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = the larger; the number where only one is NaN."""
    only_tensors("fmax", input, other)
    y = where(isnan(other) | (input >= other), input, other)
    return y if out is None else out.copy_result(y)


def fmin(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = the smaller; the number where only one is NaN."""
    only_tensors("fmin", input, other)
    y = where(isnan(other) | (input <= other), input, other)
    return y if out is None else out.copy_result(y)


def logit(input: Any, eps: float | None = None, *, out: Any = None) -> Any:
    """y = log(z / (1 - z)), z = input clamped to [eps, 1 - eps]"""
    x = in_float(input)
    eps = None if eps is None else real_number(eps, "logit", "eps")
    y = apply(Logit(None if eps is None or eps < 0 else eps), x)
    return y if out is None else out.copy_result(y)


def deg2rad(input: Any, *, out: Any = None) -> Any:
    """y = input * pi / 180"""
    y = in_float(input) * (math.pi / 180.0)
    return y if out is None else out.copy_result(y)


def rad2deg(input: Any, *, out: Any = None) -> Any:
    """y = input * 180 / pi"""
    y = in_float(input) * (180.0 / math.pi)
    return y if out is None else out.copy_result(y)


def in_float(input: Any) -> Any:
    """input itself when floating, else in the default float dtype."""
    return input if dtype_of(input).category >= dt.FLOAT else cast(input, dt.get_default_dtype())


def _wide(input: Any) -> Any:
    """input itself; 16-bit floats in float32, where several steps shall be rounded once."""
    return cast(input, dt.float32) if dtype_of(input) in HALVES else input


def positive(input: Any) -> Any:
    """y = input; RuntimeError on bool."""
    if dtype_of(input) is dt.bool:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


def sinc(input: Any, *, out: Any = None) -> Any:
    """y = sin(pi input) / (pi input), 1 at 0"""
    x = in_float(input)
    y = cast(apply(Sinc(), _wide(x)), dtype_of(x))
    return y if out is None else out.copy_result(y)


clip = clamp


def logaddexp2(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = log2(2**input + 2**other)"""
    only_tensors("logaddexp2", input, other)
    a, b = operands("logaddexp2", input, other, floating=True)
    y = cast(logaddexp(_wide(a) * _LN2, _wide(b) * _LN2) / _LN2, dtype_of(a))
    return y if out is None else out.copy_result(y)


def ldexp(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input * 2**other"""
    only_tensors("ldexp", input, other)
    y = input * in_float(other).exp2()
    if dtype_of(other).category < dt.FLOAT == dtype_of(input).category:
        y = cast(y, dtype_of(input))
    return y if out is None else out.copy_result(y)


def float_power(input: Any, exponent: Any, *, out: Any = None) -> Any:
    """y = input ** exponent in float64, or in complex128"""
    if not isinstance(exponent, Handle):
        only_tensors("float_power", input)
        exponent = number_of(exponent, "float_power", "exponent")
    elif not isinstance(input, Handle):
        input = number_of(input, "float_power", "input")
    kinds = [dtype_of(x) if isinstance(x, Handle) else dt.of_number(x) for x in (input, exponent)]
    d = dt.complex128 if any(k.is_complex for k in kinds) else dt.float64
    a, b = (cast(x, d) if isinstance(x, Handle) else x for x in (input, exponent))
    a = a if isinstance(a, Handle) else full((), a, dtype=d)
    y = a**b
    return y if out is None else out.copy_result(y)


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """y = other - alpha * input"""
    only_tensors("rsub", input)
    if not isinstance(other, Handle):
        other = number_of(other, "rsub")
    need_numbers(input, other)
    return other - (input if alpha == 1 else input * alpha)


class Gcd(Op):
    """y = the greatest common divisor of |a| and |b|, broadcast"""

    nondiff = "its result is an integer"

    def type(self, a: Type, b: Type) -> Type:
        return Type(broadcast_shapes(a.shape, b.shape, op="gcd"), a.dtype)

    def host(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(np.gcd(a, b))

    def oracle(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.vectorize(math.gcd)(a, b)

    vmap = by_loop
    samples = (sample((3, 4), (4,), of="int64", low=-20, high=20),)


def gcd(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = the greatest common divisor; integers only."""
    only_tensors("gcd", input, other)
    a, b = operands("gcd", input, other)
    if dtype_of(a).category != dt.INT:
        raise NotImplementedError(f"gcd: not implemented for {dtype_of(a).name}, only for integers")
    y = apply(Gcd(), a, b)
    return y if out is None else out.copy_result(y)


def lcm(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = the least common multiple; integers only."""
    divisor = gcd(input, other)
    one = full((), 1, dtype=dtype_of(divisor))
    y = (input // divisor.where(divisor != 0, one) * other).abs()
    return y if out is None else out.copy_result(y)


_LN2 = math.log(2.0)

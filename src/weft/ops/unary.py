"""Functions of one element: signs, rounding, roots, exponentials, logarithms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.handle import Handle
from weft.core.op import Onnx, sample
from weft.core.types import Type, whole
from weft.ops.dispatch import apply, dtype_of
from weft.ops.kinds import Elementwise
from weft.ops.promote import unary

__all__ = [
    "abs", "absolute", "ceil", "exp", "exp2", "expm1", "fix", "floor", "log", "log10", "log1p",
    "log2", "reciprocal", "relu", "round", "rsqrt", "sigmoid", "sign", "sqrt", "square", "trunc",
]  # fmt: skip


class Abs(Elementwise):
    """y = |x|"""

    scalar = staticmethod(S.abs)
    host = staticmethod(np.absolute)

    def type(self, x: Type) -> Type:
        return Type(x.shape, x.dtype.to_real()) if x.dtype.is_complex else super().type(x)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.absolute(x)

    def complex_host(self, x: np.ndarray) -> np.ndarray:
        return np.hypot(np.real(x), np.imag(x), order="C")

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * x.sgn(),)

    onnx = Onnx("Abs", 13)
    samples = (sample((3, 4)), sample((2, 0)), sample((3, 4), of="complex64"))


class Steps(Elementwise, abstract=True):
    """Constant but for its steps: no cotangent goes through, no infinite one either."""

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g.new_zeros(g.shape),)


class Sign(Steps):
    """y = -1, 0 (of NaN, too) or 1"""

    scalar = staticmethod(S.sign)
    host = staticmethod(S.TABLE["sign"].numpy)  # NumPy's own keeps a NaN
    onnx = Onnx("Sign", 13)
    samples = (sample((3, 4)), sample((2, 0)))


class Floor(Steps):
    """y = the largest integer <= x"""

    scalar = staticmethod(S.floor)
    host = staticmethod(np.floor)
    onnx = Onnx("Floor", 13)
    samples = (sample((3, 4)), sample((2, 0)))


class Ceil(Steps):
    """y = the smallest integer >= x"""

    scalar = staticmethod(S.ceil)
    host = staticmethod(np.ceil)
    onnx = Onnx("Ceil", 13)
    samples = (sample((3, 4)), sample((2, 0)))


class Trunc(Steps):
    """y = x without its fraction"""

    scalar = staticmethod(S.trunc)
    host = staticmethod(np.trunc)
    samples = (sample((3, 4)), sample((2, 0)))


class Round(Steps):
    """y = the nearest integer, halves to even"""

    scalar = staticmethod(S.round)
    host = staticmethod(np.rint)
    onnx = Onnx("Round", 13)
    samples = (sample((3, 4)), sample((2, 0)))


class Sqrt(Elementwise):
    """y = sqrt(x)"""

    scalar = staticmethod(S.sqrt)
    host = staticmethod(np.sqrt)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g / (y * 2.0),)

    onnx = Onnx("Sqrt", 13)
    samples = (
        sample((3, 4), low=0.5),
        sample((2, 0), low=0.5),
        sample((3, 4), of="complex64", low=0.5),
    )


class Rsqrt(Elementwise):
    """y = 1 / sqrt(x)"""

    scalar = staticmethod(S.rsqrt)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * -0.5 * (y * y * y),)

    samples = (
        sample((3, 4), low=0.5),
        sample((2, 0), low=0.5),
        sample((3, 4), of="complex64", low=0.5),
    )


class Reciprocal(Elementwise):
    """y = 1 / x"""

    scalar = staticmethod(S.reciprocal)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (-(g * (y * y)),)

    onnx = Onnx("Reciprocal", 13)
    samples = (
        sample((3, 4), low=0.5),
        sample((2, 0), low=0.5),
        sample((3, 4), of="complex64", low=0.5),
    )


class Square(Elementwise):
    """y = x * x"""

    scalar = staticmethod(S.square)
    host = staticmethod(np.square)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (x * 2.0),)

    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.5),
    )


class Exp(Elementwise):
    """y = e**x"""

    scalar = staticmethod(S.exp)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * y,)

    onnx = Onnx("Exp", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.5),
    )


class Exp2(Elementwise):
    """y = 2**x"""

    scalar = staticmethod(S.exp2)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (y * 0.6931471805599453),)

    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.5),
    )


class Expm1(Elementwise):
    """y = e**x - 1"""

    scalar = staticmethod(S.expm1)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (y + 1.0),)

    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.5),
    )


class Log(Elementwise):
    """y = the natural logarithm of x"""

    scalar = staticmethod(S.log)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g / x,)

    onnx = Onnx("Log", 13)
    samples = (
        sample((3, 4), low=0.5),
        sample((2, 0), low=0.5),
        sample((3, 4), of="complex64", low=0.5),
    )


class Log1p(Elementwise):
    """y = log(1 + x)"""

    scalar = staticmethod(S.log1p)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g / (x + 1.0),)

    samples = (
        sample((3, 4), low=-0.5),
        sample((2, 0), low=-0.5),
        sample((3, 4), of="complex64", low=0.5),
    )


class Log2(Elementwise):
    """y = the logarithm of x to base 2"""

    scalar = staticmethod(S.log2)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g / (x * 0.6931471805599453),)

    samples = (
        sample((3, 4), low=0.5),
        sample((2, 0), low=0.5),
        sample((3, 4), of="complex64", low=0.5),
    )


class Log10(Elementwise):
    """y = the logarithm of x to base 10"""

    scalar = staticmethod(S.log10)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g / (x * 2.302585092994046),)

    samples = (
        sample((3, 4), low=0.5),
        sample((2, 0), low=0.5),
        sample((3, 4), of="complex64", low=0.5),
    )


class Sigmoid(Elementwise):
    """y = 1 / (1 + e**-x)"""

    scalar = staticmethod(S.sigmoid)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (y * (1.0 - y)),)

    onnx = Onnx("Sigmoid", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.5),
    )


class Relu(Elementwise):
    """y = max(x, 0)"""

    scalar = staticmethod(S.relu)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(_RELU_BACK, g, y),)

    onnx = Onnx("Relu", 13)
    samples = (sample((3, 4)), sample((2, 0)))


class ReluBack(Elementwise):
    """y = 0 where r <= 0, else g (at NaN, too): relu's cotangent, of its result r"""

    def scalar(self, g: S.Expr, r: S.Expr) -> S.Expr:
        return S.where(S.le(r, S.const(0.0, r.dtype)), S.const(0.0, g.dtype), g)

    def vjp(self, gg: Any, y: Any, g: Any, r: Any) -> tuple:
        return (apply(_RELU_BACK, gg, r), None)

    samples = (sample((3, 4), (3, 4)), sample((2, 0), (2, 0)))


class Logit(Elementwise):
    """y = log(z / (1 - z)), z = x in [eps, 1 - eps]"""

    eps: float | None = None

    def scalar(self, x: S.Expr) -> S.Expr:
        return S.composite(self._of_number)(x)

    def _of_number(self, x: S.Expr) -> S.Expr:
        one = S.Const(1.0, x.dtype)
        if self.eps is not None:
            x = S.min(S.max(x, S.Const(self.eps, x.dtype)), S.Const(1 - self.eps, x.dtype))
        return S.log(S.div(x, S.sub(one, x)))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        low = self.eps or 0.0
        outside = (x < low) | (x > 1 - low)
        return ((g / (x * (1 - x))).where(~outside, math.nan if self.eps is None else 0.0),)

    samples = (sample((3, 4), low=0.25, high=0.75), sample((2, 0), eps=0.125))


def abs(input: Any, *, out: Any = None) -> Any:
    """y = |x|; elementwise."""
    y = unary(_ABS, input, "abs", floating=False)
    return y if out is None else out.copy_result(y)


def sign(input: Any, *, out: Any = None) -> Any:
    """y = -1, 0 or 1; elementwise."""
    if dtype_of(input) is dt.bool:
        return input.clone() if out is None else out.copy_result(input)
    y = unary(_SIGN, input, "sign", floating=False)
    return y if out is None else out.copy_result(y)


def _whole(op: Any, input: Any, name: str) -> Any:
    """op, which leaves whole numbers as they are."""
    if dtype_of(input).category == dt.INT:
        return input.clone()
    return unary(op, input, name, floating=False)


def floor(input: Any, *, out: Any = None) -> Any:
    """y = the largest integer <= x; elementwise."""
    y = _whole(_FLOOR, input, "floor")
    return y if out is None else out.copy_result(y)


def ceil(input: Any, *, out: Any = None) -> Any:
    """y = the smallest integer >= x; elementwise."""
    y = _whole(_CEIL, input, "ceil")
    return y if out is None else out.copy_result(y)


def trunc(input: Any, *, out: Any = None) -> Any:
    """y = x without its fraction; elementwise."""
    y = _whole(_TRUNC, input, "trunc")
    return y if out is None else out.copy_result(y)


def round(input: Any, *, decimals: int = 0, out: Any = None) -> Any:
    """y = the nearest integer (or multiple of 10**-decimals), halves to even; elementwise."""
    d, decimals = dtype_of(input), whole(decimals, "round", "decimals")
    if d.category == dt.INT and decimals >= 0:
        return input.clone() if out is None else out.copy_result(input)
    if d.category == dt.INT:
        y = round(input.to(dt.float64), decimals=decimals).to(d)
    elif decimals == 0:
        y = unary(_ROUND, input, "round", floating=False)
    else:
        scale = 10.0**decimals
        y = unary(_ROUND, input * scale, "round") / scale
    return y if out is None else out.copy_result(y)


def sqrt(input: Any, *, out: Any = None) -> Any:
    """y = sqrt(x); elementwise."""
    y = unary(_SQRT, input, "sqrt")
    return y if out is None else out.copy_result(y)


def rsqrt(input: Any, *, out: Any = None) -> Any:
    """y = 1 / sqrt(x); elementwise."""
    y = unary(_RSQRT, input, "rsqrt")
    return y if out is None else out.copy_result(y)


def reciprocal(input: Any, *, out: Any = None) -> Any:
    """y = 1 / x; elementwise."""
    y = unary(_RECIPROCAL, input, "reciprocal")
    return y if out is None else out.copy_result(y)


def square(input: Any, *, out: Any = None) -> Any:
    """y = x * x; elementwise."""
    if dtype_of(input) is dt.bool:
        input = input.to(dt.int64)
    y = unary(_SQUARE, input, "square", floating=False)
    return y if out is None else out.copy_result(y)


def exp(input: Any, *, out: Any = None) -> Any:
    """y = e**x; elementwise."""
    y = unary(_EXP, input, "exp")
    return y if out is None else out.copy_result(y)


def exp2(input: Any, *, out: Any = None) -> Any:
    """y = 2**x; elementwise."""
    y = unary(_EXP2, input, "exp2")
    return y if out is None else out.copy_result(y)


def expm1(input: Any, *, out: Any = None) -> Any:
    """y = e**x - 1; elementwise."""
    y = unary(_EXPM1, input, "expm1")
    return y if out is None else out.copy_result(y)


def log(input: Any, *, out: Any = None) -> Any:
    """y = the natural logarithm of x; elementwise."""
    y = unary(_LOG, input, "log")
    return y if out is None else out.copy_result(y)


def log1p(input: Any, *, out: Any = None) -> Any:
    """y = log(1 + x); elementwise."""
    y = unary(_LOG1P, input, "log1p")
    return y if out is None else out.copy_result(y)


def log2(input: Any, *, out: Any = None) -> Any:
    """y = the logarithm of x to base 2; elementwise."""
    y = unary(_LOG2, input, "log2")
    return y if out is None else out.copy_result(y)


def log10(input: Any, *, out: Any = None) -> Any:
    """y = the logarithm of x to base 10; elementwise."""
    y = unary(_LOG10, input, "log10")
    return y if out is None else out.copy_result(y)


def sigmoid(input: Any, *, out: Any = None) -> Any:
    """y = 1 / (1 + e**-x); elementwise."""
    y = unary(_SIGMOID, input, "sigmoid")
    return y if out is None else out.copy_result(y)


def relu(input: Any, *, out: Any = None) -> Any:
    """y = max(x, 0); elementwise."""
    if out is None and (y := _RELU.quick(input)) is not None:
        return y
    plain = isinstance(input, Handle)
    y = apply(_RELU, input) if plain else unary(_RELU, input, "relu", floating=False)
    return y if out is None else out.copy_result(y)


_RELU_BACK = ReluBack()
_ABS = Abs()
_SIGN = Sign()
_FLOOR = Floor()
_CEIL = Ceil()
_TRUNC = Trunc()
_ROUND = Round()
_SQRT = Sqrt()
_RSQRT = Rsqrt()
_RECIPROCAL = Reciprocal()
_SQUARE = Square()
_EXP = Exp()
_EXP2 = Exp2()
_EXPM1 = Expm1()
_LOG = Log()
_LOG1P = Log1p()
_LOG2 = Log2()
_LOG10 = Log10()
_SIGMOID = Sigmoid()
_RELU = Relu()
absolute, fix = abs, trunc

"""Trigonometric and hyperbolic functions, erf and gamma."""

from __future__ import annotations

import math
from typing import Any

from weft.core import scalar as S
from weft.core.op import Onnx, sample
from weft.ops.kinds import Elementwise
from weft.ops.promote import unary

__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "asin", "asinh",
    "atan", "atanh", "cos", "cosh", "digamma", "erf", "erfc", "erfinv", "lgamma", "sin", "sinh",
    "tan", "tanh",
]  # fmt: skip


class Sin(Elementwise):
    """y = sin x (radians)"""

    scalar = staticmethod(S.sin)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * x.cos(),)

    onnx = Onnx("Sin", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Sinc(Elementwise):
    """y = sin(pi x) / (pi x), 1 at 0"""

    @staticmethod
    def scalar(x: S.Expr) -> S.Expr:
        z = S.mul(x, S.Const(math.pi, x.dtype))
        one, zero = S.Const(1.0, x.dtype), S.Const(0.0, x.dtype)
        return S.Select(S.eq(z, zero), one, S.div(S.sin(z), z))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        z = x * math.pi
        square = z * x  # in this order: terms of 1 / x lose everything beside 0
        return ((g * ((z.cos() * z - z.sin()) / square)).where(square != 0, 0.0),)

    samples = (sample((3, 4)), sample((2, 0)))


class Cos(Elementwise):
    """y = cos x (radians)"""

    scalar = staticmethod(S.cos)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (-(g * x.sin()),)

    onnx = Onnx("Cos", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Tan(Elementwise):
    """y = tan x (radians)"""

    scalar = staticmethod(S.tan)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (y * y + 1.0),)

    onnx = Onnx("Tan", 13)
    samples = (
        sample((3, 4), low=-1.0, high=1.0),
        sample((2, 0), low=-1.0, high=1.0),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Asin(Elementwise):
    """y = arcsin x"""

    scalar = staticmethod(S.asin)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (1.0 - x * x).rsqrt(),)

    onnx = Onnx("Asin", 13)
    samples = (
        sample((3, 4), low=-0.9, high=0.9),
        sample((2, 0), low=-0.9, high=0.9),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Acos(Elementwise):
    """y = arccos x"""

    scalar = staticmethod(S.acos)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (-(g * (1.0 - x * x).rsqrt()),)

    onnx = Onnx("Acos", 13)
    samples = (
        sample((3, 4), low=-0.9, high=0.9),
        sample((2, 0), low=-0.9, high=0.9),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Atan(Elementwise):
    """y = arctan x"""

    scalar = staticmethod(S.atan)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g / (x * x + 1.0),)

    onnx = Onnx("Atan", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Sinh(Elementwise):
    """y = sinh x"""

    scalar = staticmethod(S.sinh)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * x.cosh(),)

    onnx = Onnx("Sinh", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Cosh(Elementwise):
    """y = cosh x"""

    scalar = staticmethod(S.cosh)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * x.sinh(),)

    onnx = Onnx("Cosh", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Tanh(Elementwise):
    """y = tanh x"""

    scalar = staticmethod(S.tanh)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (1.0 - y * y),)

    onnx = Onnx("Tanh", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Asinh(Elementwise):
    """y = the inverse of sinh"""

    scalar = staticmethod(S.asinh)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (x * x + 1.0).rsqrt(),)

    onnx = Onnx("Asinh", 13)
    samples = (
        sample((3, 4)),
        sample((2, 0)),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Acosh(Elementwise):
    """y = the inverse of cosh"""

    scalar = staticmethod(S.acosh)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        if x.dtype.is_complex:  # whose square would lose the branch
            return (g * ((x - 1.0).rsqrt() * (x + 1.0).rsqrt()),)
        return (g * (x * x - 1.0).rsqrt(),)

    onnx = Onnx("Acosh", 13)
    samples = (
        sample((3, 4), low=1.5, high=3.0),
        sample((2, 0), low=1.5, high=3.0),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Atanh(Elementwise):
    """y = the inverse of tanh"""

    scalar = staticmethod(S.atanh)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g / (1.0 - x * x),)

    onnx = Onnx("Atanh", 13)
    samples = (
        sample((3, 4), low=-0.9, high=0.9),
        sample((2, 0), low=-0.9, high=0.9),
        sample((3, 4), of="complex64", low=0.1, high=0.9),
    )


class Erf(Elementwise):
    """y = 2/sqrt(pi) * the integral of e**(-t*t) from 0 to x"""

    scalar = staticmethod(S.erf)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * ((-(x * x)).exp() * 1.1283791670955126),)

    onnx = Onnx("Erf", 13)
    samples = (sample((3, 4)), sample((2, 0)))


class Erfc(Elementwise):
    """y = 1 - erf x"""

    scalar = staticmethod(S.erfc)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (-(g * ((-(x * x)).exp() * 1.1283791670955126)),)

    samples = (sample((3, 4)), sample((2, 0)))


class Erfinv(Elementwise):
    """y = the inverse of erf"""

    scalar = staticmethod(S.erfinv)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * ((y * y).exp() * 0.886226925452758),)

    samples = (sample((3, 4), low=-0.9, high=0.9), sample((2, 0), low=-0.9, high=0.9))


class Lgamma(Elementwise):
    """y = log |gamma(x)|"""

    scalar = staticmethod(S.lgamma)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * x.digamma(),)

    samples = (sample((3, 4), low=0.5, high=4.0), sample((2, 0), low=0.5, high=4.0))


class Digamma(Elementwise):
    """y = d log gamma(x) / dx"""

    scalar = staticmethod(S.digamma)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * trigamma(x),)

    samples = (sample((3, 4), low=0.5, high=4.0), sample((2, 0), low=0.5, high=4.0))


def trigamma(x: Any) -> Any:
    """y = d digamma(x) / dx = the sum over k >= 0 of 1 / (x + k)**2; poles at 0, -1, -2, ...

    Below 1/2 by reflection, t(x) = pi**2 / sin(pi x)**2 - t(1 - x); then eight steps of the sum
    and the asymptotic series (Abramowitz and Stegun 6.4.7, 6.4.12).
    """
    mirrored = x < 0.5
    z = (1.0 - x).where(mirrored, x)
    total = z.square().reciprocal()
    for k in range(1, 8):
        total = total + (z + float(k)).square().reciprocal()
    r = (z + 8.0).reciprocal()
    w = r.square()
    tail = 1 / 6 + w * (-1 / 30 + w * (1 / 42 + w * (-1 / 30 + w * (5 / 66 - w * (691 / 2730)))))
    total = total + r + w * (0.5 + r * tail)
    reflected = (x * math.pi).sin().square().reciprocal() * (math.pi * math.pi) - total
    return reflected.where(mirrored, total)


def sin(input: Any, *, out: Any = None) -> Any:
    """y = sin x (radians); elementwise."""
    y = unary(_SIN, input, "sin")
    return y if out is None else out.copy_result(y)


def cos(input: Any, *, out: Any = None) -> Any:
    """y = cos x (radians); elementwise."""
    y = unary(_COS, input, "cos")
    return y if out is None else out.copy_result(y)


def tan(input: Any, *, out: Any = None) -> Any:
    """y = tan x (radians); elementwise."""
    y = unary(_TAN, input, "tan")
    return y if out is None else out.copy_result(y)


def asin(input: Any, *, out: Any = None) -> Any:
    """y = arcsin x; elementwise."""
    y = unary(_ASIN, input, "asin")
    return y if out is None else out.copy_result(y)


def acos(input: Any, *, out: Any = None) -> Any:
    """y = arccos x; elementwise."""
    y = unary(_ACOS, input, "acos")
    return y if out is None else out.copy_result(y)


def atan(input: Any, *, out: Any = None) -> Any:
    """y = arctan x; elementwise."""
    y = unary(_ATAN, input, "atan")
    return y if out is None else out.copy_result(y)


def sinh(input: Any, *, out: Any = None) -> Any:
    """y = sinh x; elementwise."""
    y = unary(_SINH, input, "sinh")
    return y if out is None else out.copy_result(y)


def cosh(input: Any, *, out: Any = None) -> Any:
    """y = cosh x; elementwise."""
    y = unary(_COSH, input, "cosh")
    return y if out is None else out.copy_result(y)


def tanh(input: Any, *, out: Any = None) -> Any:
    """y = tanh x; elementwise."""
    y = unary(_TANH, input, "tanh")
    return y if out is None else out.copy_result(y)


def asinh(input: Any, *, out: Any = None) -> Any:
    """y = the inverse of sinh; elementwise."""
    y = unary(_ASINH, input, "asinh")
    return y if out is None else out.copy_result(y)


def acosh(input: Any, *, out: Any = None) -> Any:
    """y = the inverse of cosh; elementwise."""
    y = unary(_ACOSH, input, "acosh")
    return y if out is None else out.copy_result(y)


def atanh(input: Any, *, out: Any = None) -> Any:
    """y = the inverse of tanh; elementwise."""
    y = unary(_ATANH, input, "atanh")
    return y if out is None else out.copy_result(y)


def erf(input: Any, *, out: Any = None) -> Any:
    """y = 2/sqrt(pi) * the integral of e**(-t*t) from 0 to x; elementwise."""
    y = unary(_ERF, input, "erf")
    return y if out is None else out.copy_result(y)


def erfc(input: Any, *, out: Any = None) -> Any:
    """y = 1 - erf x; elementwise."""
    y = unary(_ERFC, input, "erfc")
    return y if out is None else out.copy_result(y)


def erfinv(input: Any, *, out: Any = None) -> Any:
    """y = the inverse of erf; elementwise."""
    y = unary(_ERFINV, input, "erfinv")
    return y if out is None else out.copy_result(y)


def lgamma(input: Any, *, out: Any = None) -> Any:
    """y = log |gamma(x)|; elementwise."""
    y = unary(_LGAMMA, input, "lgamma")
    return y if out is None else out.copy_result(y)


def digamma(input: Any, *, out: Any = None) -> Any:
    """y = d log gamma(x) / dx; elementwise."""
    y = unary(_DIGAMMA, input, "digamma")
    return y if out is None else out.copy_result(y)


_SIN = Sin()
_COS = Cos()
_TAN = Tan()
_ASIN = Asin()
_ACOS = Acos()
_ATAN = Atan()
_SINH = Sinh()
_COSH = Cosh()
_TANH = Tanh()
_ASINH = Asinh()
_ACOSH = Acosh()
_ATANH = Atanh()
_ERF = Erf()
_ERFC = Erfc()
_ERFINV = Erfinv()
_LGAMMA = Lgamma()
_DIGAMMA = Digamma()
arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh

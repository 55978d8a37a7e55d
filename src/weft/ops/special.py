"""Special functions of torch.special: Bessel functions, zeta, incomplete gamma, normal tails.

Computed in float64 on arrays from integral representations, series and asymptotic expansions
(Abramowitz and Stegun, chapters 6-10 and 23), then rounded to the operand's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core import scalar as S
from weft.core.handle import Handle
from weft.core.op import Op, sample
from weft.core.types import Type, broadcast_shapes
from weft.ops import quadrature as Q
from weft.ops.creation import arange, full
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.kinds import Elementwise, by_batch
from weft.ops.pointwise import Xlogy, in_float
from weft.ops.promote import only_tensors, operands
from weft.ops.trig import digamma, erfc, erfinv, lgamma
from weft.ops.view import expand, unsqueeze

__all__ = [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "chebyshev_polynomial_t",
    "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w", "entr", "erfcx",
    "gammainc", "gammaincc", "hermite_polynomial_h", "hermite_polynomial_he", "i0", "i0e", "i1",
    "i1e", "laguerre_polynomial_l", "legendre_polynomial_p", "log_ndtr", "modified_bessel_i0",
    "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "multigammaln", "ndtr",
    "ndtri", "polygamma", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1",
    "shifted_chebyshev_polynomial_t", "shifted_chebyshev_polynomial_u",
    "shifted_chebyshev_polynomial_v", "shifted_chebyshev_polynomial_w", "spherical_bessel_j0",
    "xlog1py", "zeta",
]  # fmt: skip


_PIECE = 4096  # elements at once: integrals have a hundred nodes for each


class _Unary(Op, abstract=True):
    """One operand, element by element, in float64"""

    def formula(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def host(self, x: np.ndarray) -> np.ndarray:
        flat = np.asarray(x, np.float64).reshape(-1)
        y = np.empty_like(flat)
        with np.errstate(all="ignore"):
            for at in range(0, flat.size, _PIECE):
                y[at : at + _PIECE] = self.formula(flat[at : at + _PIECE])
        return y.reshape(np.shape(x)).astype(x.dtype)

    oracle = host

    vmap = by_batch


class _Binary(Op, abstract=True):
    """Two operands of one shape, element by element, in float64"""

    def formula(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def type(self, a: Type, b: Type) -> Type:
        return b

    def host(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            flat = (np.asarray(t, np.float64).reshape(-1) for t in (a, b))
            return self.formula(*flat).reshape(np.shape(b)).astype(b.dtype)

    oracle = host
    vmap = by_batch


class BesselI(_Unary):
    """y = I_order(x), times exp(-|x|) when scaled; order 0 or 1"""

    order: int = 0
    scaled: bool = False

    def formula(self, x: np.ndarray) -> np.ndarray:
        y = Q.bessel_i_scaled(self.order, x)
        return y if self.scaled else y * np.exp(np.abs(x))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        if self.order == 0:
            slope = apply(BesselI(1, self.scaled), x)
        else:
            ratio = (y / x).where(x != 0, 0.5)
            slope = apply(BesselI(0, self.scaled), x) - ratio
        return (g * (slope - x.sign() * y if self.scaled else slope),)

    samples = tuple(
        sample((3, 4), low=-4.0, high=4.0, order=n, scaled=s) for n in (0, 1) for s in (False, True)
    )


class BesselOf(_Unary):
    """y = the function `kind` of x: j0 j1 y0 y1 k0 k1, k0e k1e (times exp x), airy_ai, sph_j0"""

    kind: str = "j0"
    nondiff = "torch has no gradient for it either"

    def formula(self, x: np.ndarray) -> np.ndarray:
        return Q.FUNCTIONS[self.kind](x)

    samples = tuple(sample((3, 4), low=0.5, high=4.0, kind=k) for k in Q.FUNCTIONS)


class Entr(Elementwise):
    """y = -x log x; 0 at 0, -inf below"""

    @staticmethod
    @S.composite
    def scalar(x: S.Expr) -> S.Expr:
        zero, low = S.Const(0.0, x.dtype), S.Const(-math.inf, x.dtype)
        y = S.Select(S.eq(x, zero), zero, S.mul(S.neg(x), S.log(x)))
        return S.Select(S.lt(x, zero), low, y)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (-1.0 - x.log()),)

    samples = (sample((3, 4), low=0.5), sample((2, 0)))


class Erfcx(_Unary):
    """y = exp(x^2) erfc(x)"""

    def formula(self, x: np.ndarray) -> np.ndarray:
        return Q.erfcx(x)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * (2.0 * x * y - 2.0 / math.sqrt(math.pi)),)

    samples = (sample((3, 4)), sample((2, 0)))


class Zeta(_Binary):
    """y = sum over k >= 0 of (k + q)^-x"""

    def formula(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return Q.zeta(a, b)

    def vjp(self, g: Any, y: Any, x: Any, q: Any) -> tuple:
        def of_x() -> Any:
            raise NotImplementedError("the derivative for 'self' of 'special_zeta' is not known")

        return of_x, lambda: -g * x * apply(self, x + 1, q)

    # a whole first operand: the laws ask for the derivatives of all that are not
    samples = (sample((3, 4), (3, 4), of=("int64", "float32"), low=2, high=5),)


class Polygamma(_Unary):
    """y = the n-th derivative of digamma at x, n >= 1: (-1)^(n + 1) n! zeta(n + 1, x)"""

    n: int = 1

    def formula(self, x: np.ndarray) -> np.ndarray:
        if self.n == 1:
            return Q.trigamma(x)
        sign = 1.0 if self.n % 2 else -1.0
        factorial = math.gamma(self.n + 1.0) if self.n <= 170 else math.inf
        return sign * factorial * Q.zeta(np.full_like(x, self.n + 1.0), x)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g * apply(Polygamma(self.n + 1), x),)

    samples = (sample((3, 4), low=0.5, high=4.0, n=1), sample((3, 4), low=0.5, high=4.0, n=3))


class GammaInc(_Binary):
    """y = the regularised incomplete gamma function P(a, x), Q(a, x) = 1 - P when upper"""

    upper: bool = False

    def formula(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return Q.gamma_inc(a, b, self.upper)

    def vjp(self, g: Any, y: Any, a: Any, x: Any) -> tuple:
        def of_a() -> Any:
            raise NotImplementedError("the derivative for 'self' of 'igamma' is not known")

        sign = -1.0 if self.upper else 1.0

        def of_b() -> Any:
            shape = a.to(x.dtype)
            return g * ((shape - 1.0) * x.log() - x - lgamma(shape)).exp() * sign

        return of_a, of_b

    samples = tuple(
        sample((3, 4), (3, 4), of=("int64", "float32"), low=1, high=5, upper=u)
        for u in (False, True)
    )


class Polynomial(_Binary):
    """y = the n-th polynomial at x: Chebyshev's t u v w, Hermite's h he, Laguerre's, Legendre's"""

    kind: str = "t"
    shifted: bool = False
    nondiff = "torch has no gradient for it either"

    def formula(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return Q.polynomial(self.kind, 2 * a - 1 if self.shifted else a, b)

    samples = tuple(sample((3, 4), (3, 4), low=0.0, high=4.0, kind=k) for k in Q.POLYNOMIALS)


# ------------------------------------------------------------------------------- functions


def _of(op: Op) -> Callable[..., Any]:
    def function(input: Any, *, out: Any = None) -> Any:
        if dtype_of(input).is_complex:
            raise dtype_of(input).lacks(str(op))
        y = apply(op, in_float(input))
        return y if out is None else out.copy_result(y)

    function.__doc__ = str(op)
    return function


def _tensors(name: str, a: Any, b: Any) -> tuple[Any, Any]:
    """Two operands, one of which may be a number, as tensors of one floating dtype."""
    a, b = operands(name, a, b, floating=True)
    kind = dtype_of(a if isinstance(a, Handle) else b)
    if kind.is_complex:
        raise kind.lacks(f"{name}_cpu")
    a, b = (x if isinstance(x, Handle) else full((), float(x), dtype=kind) for x in (a, b))
    return a, b


def _pair(op: Op, name: str, a: Any, b: Any, out: Any) -> Any:
    a, b = _tensors(name, a, b)
    shape = broadcast_shapes(shape_of(a), shape_of(b), op=name)
    y = apply(op, expand(a, shape), expand(b, shape))
    return y if out is None else out.copy_result(y)


def _poly(kind: str, name: str, shifted: bool = False) -> Callable[..., Any]:
    def function(input: Any, n: Any, *, out: Any = None) -> Any:
        return _pair(Polynomial(kind, shifted), name, input, n, out)

    function.__doc__ = f"{name}: the n-th of them at input."
    return function


i0, i0e = _of(BesselI(0, False)), _of(BesselI(0, True))
i1, i1e = _of(BesselI(1, False)), _of(BesselI(1, True))
bessel_j0, bessel_j1 = _of(BesselOf("j0")), _of(BesselOf("j1"))
bessel_y0, bessel_y1 = _of(BesselOf("y0")), _of(BesselOf("y1"))
modified_bessel_k0, modified_bessel_k1 = _of(BesselOf("k0")), _of(BesselOf("k1"))
scaled_modified_bessel_k0, scaled_modified_bessel_k1 = _of(BesselOf("k0e")), _of(BesselOf("k1e"))
airy_ai, spherical_bessel_j0 = _of(BesselOf("airy_ai")), _of(BesselOf("sph_j0"))
erfcx = _of(Erfcx())
chebyshev_polynomial_t = _poly("t", "chebyshev_polynomial_t")
chebyshev_polynomial_u = _poly("u", "chebyshev_polynomial_u")
chebyshev_polynomial_v = _poly("v", "chebyshev_polynomial_v")
chebyshev_polynomial_w = _poly("w", "chebyshev_polynomial_w")
shifted_chebyshev_polynomial_t = _poly("t", "shifted_chebyshev_polynomial_t", True)
shifted_chebyshev_polynomial_u = _poly("u", "shifted_chebyshev_polynomial_u", True)
shifted_chebyshev_polynomial_v = _poly("v", "shifted_chebyshev_polynomial_v", True)
shifted_chebyshev_polynomial_w = _poly("w", "shifted_chebyshev_polynomial_w", True)
hermite_polynomial_h = _poly("h", "hermite_polynomial_h")
hermite_polynomial_he = _poly("he", "hermite_polynomial_he")
laguerre_polynomial_l = _poly("laguerre", "laguerre_polynomial_l")
legendre_polynomial_p = _poly("legendre", "legendre_polynomial_p")


def modified_bessel_i0(input: Any, *, out: Any = None) -> Any:
    """i0 without a gradient, as torch's."""
    return i0(input.detach(), out=out)


def modified_bessel_i1(input: Any, *, out: Any = None) -> Any:
    """i1 without a gradient, as torch's."""
    return i1(input.detach(), out=out)


def zeta(input: Any, other: Any, *, out: Any = None) -> Any:
    """The Hurwitz zeta function: the sum over k >= 0 of (k + other)^-input."""
    return _pair(Zeta(), "zeta", input, other, out)


def polygamma(n: int, input: Any, *, out: Any = None) -> Any:
    """The n-th derivative of digamma."""
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    x = in_float(input)
    y = digamma(x) if n == 0 else apply(Polygamma(n), x)
    return y if out is None else out.copy_result(y)


def gammainc(input: Any, other: Any, *, out: Any = None) -> Any:
    """P(input, other), the lower regularised incomplete gamma function."""
    only_tensors("igamma", input, other)
    return _pair(GammaInc(False), "gammainc", input, other, out)


def gammaincc(input: Any, other: Any, *, out: Any = None) -> Any:
    """Q(input, other), the upper regularised incomplete gamma function."""
    only_tensors("igammac", input, other)
    return _pair(GammaInc(True), "gammaincc", input, other, out)


def multigammaln(input: Any, p: int, *, out: Any = None) -> Any:
    """p (p - 1) / 4 log pi + sum over i < p of lgamma(input - i / 2)"""
    if p < 1:
        raise RuntimeError("mvlgamma: p has to be greater than or equal to 1")
    x = unsqueeze(in_float(input), -1)
    y = lgamma(x - arange(p, dtype=dtype_of(x)) / 2).sum(-1) + p * (p - 1) / 4 * math.log(math.pi)
    return y if out is None else out.copy_result(y)


def xlog1py(input: Any, other: Any, *, out: Any = None) -> Any:
    """input log(1 + other); 0 where input is 0, NaN where other is."""
    y = apply(Xlogy(1), *_tensors("xlog1py", input, other))
    return y if out is None else out.copy_result(y)


def entr(input: Any, *, out: Any = None) -> Any:
    """-input log(input); 0 at 0, -inf below"""
    y = apply(Entr(), in_float(input))
    return y if out is None else out.copy_result(y)


def ndtr(input: Any, *, out: Any = None) -> Any:
    """The area under the normal density from -inf to input."""
    y = erfc(in_float(input) * -math.sqrt(0.5)) * 0.5
    return y if out is None else out.copy_result(y)


def log_ndtr(input: Any, *, out: Any = None) -> Any:
    """log ndtr(input), without its underflow"""
    x = in_float(input)
    t, below = x * math.sqrt(0.5), x < -1
    zero = full((), 0.0, dtype=dtype_of(x))
    left = (erfcx(-(t.where(below, zero))) * 0.5).log() - t.where(below, zero) ** 2
    right = (erfc(t.where(~below, zero)) * -0.5).log1p()
    y = left.where(below, right)
    return y if out is None else out.copy_result(y)


def ndtri(input: Any, *, out: Any = None) -> Any:
    """The x with ndtr(x) = input."""
    y = erfinv(in_float(input) * 2.0 - 1.0) * math.sqrt(2.0)
    return y if out is None else out.copy_result(y)


igamma, igammac, mvlgamma = gammainc, gammaincc, multigammaln  # torch's own names of them

"""Gamma and Dirichlet draws that depend differentiably on their parameters.

A draw x of cumulative distribution F(x; a) moves with a as dx/da = -(dF/da) / (dF/dx) (implicit
reparameterisation; Figurnov, Mohamed and Mnih 2018).  The quotient is one integral, which is taken
over the side of x where its integrand has one sign:

    gamma        x/a int (psi(a) - ln x + v/a) exp(-v + x (1 - e^(-v/a))) dv         below e^psi(a)
                 int (ln(x + w) - psi(a)) exp((a - 1) ln(1 + w/x) - w) dw             above

and likewise for beta, both over (0, inf) by the double exponential rule (Takahasi and Mori 1974)
in float64.  torch uses rational fits there, good to about 1e-3; these are good to 1e-7.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.ops.cast import cast
from weft.ops.compare import where
from weft.ops.dispatch import apply, dtype_of, wrap
from weft.ops.random import SampleDirichlet, StandardGamma
from weft.ops.trig import digamma
from weft.ops.unary import exp, expm1, log, log1p

_STEP, _ENDS = 0.04, (-3.3, 3.1)


@cache
def _rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on (0, inf): v = exp(pi/2 sinh t), t equidistant."""
    t = np.arange(*_ENDS, _STEP)
    nodes = np.exp(math.pi / 2 * np.sinh(t))
    return nodes, nodes * np.cosh(t) * (math.pi / 2 * _STEP)


def _columns(*tensors: Any) -> list:
    """The tensors in float64 with a last dim for the nodes."""
    return [cast(t.detach(), dt.float64).unsqueeze(-1) for t in tensors]


def _standard_gamma_grad(self: Any, output: Any) -> Any:
    """dx/dalpha of a standard gamma number x = output with parameter alpha = self."""
    alpha, x = _columns(self, output)
    nodes, weights = (wrap(a) for a in _rule())
    psi = digamma(alpha)
    ahead = log(x) - psi  # negative: integrate from 0 to x, else from x on
    below = (nodes / alpha - ahead) * exp(-nodes - x * expm1(-nodes / alpha)) * (x / alpha)
    growth = log1p(nodes / x)
    above = (growth + ahead) * exp((alpha - 1) * growth - nodes)
    near_0 = (x < 0.5) & (alpha < 1)  # `above` has its mass at w << 1e-9 there
    total = (where((ahead < 0) | near_0, below, above) * weights).sum(-1)
    return cast(total, dtype_of(self))


def _dirichlet_grad(x: Any, alpha: Any, total: Any) -> Any:
    """dx/dalpha / (1 - x) of a beta number x with parameters alpha and total - alpha."""
    d = dtype_of(x)
    x, alpha, total = _columns(x, alpha, total)
    beta, rest = total - alpha, 1 - x
    nodes, weights = (wrap(a) for a in _rule())
    ahead = log(x) - digamma(alpha) + digamma(total)
    shrunk = -expm1(-nodes / alpha)
    ratio = log1p(x * shrunk / rest)
    below = (nodes / alpha - ahead) * exp(-nodes + (beta - 1) * ratio) * (x / alpha) / rest
    growth = log1p(-rest * expm1(-nodes / beta) / x)
    above = (growth + ahead) * exp(-nodes + (alpha - 1) * growth) / beta
    near_0, near_1 = (x < 0.25) & (alpha < 1), (rest < 0.25) & (beta < 1)
    low = ((ahead < 0) & ~near_1) | near_0
    return cast((where(low, below, above) * weights).sum(-1), d)


def _standard_gamma(self: Any, generator: Any = None) -> Any:
    """Numbers of the gamma distribution of rate 1, one an element of self, which may be tracked."""
    y = apply(StandardGamma(generator), self.detach())
    if not self.requires_grad:
        return y
    moved = self - self.detach()  # 0, with a gradient
    return y + moved * _standard_gamma_grad(self, y)


def _sample_dirichlet(self: Any, generator: Any = None) -> Any:
    """Rows of the Dirichlet distribution of self's rows, which may be tracked."""
    y = apply(SampleDirichlet(generator), self.detach())
    if not self.requires_grad:
        return y
    fixed = self.detach()
    total = fixed.sum(-1, keepdim=True).expand_as(fixed)
    moved = (self - fixed) * _dirichlet_grad(y, fixed, total)
    return y + (moved - y * moved.sum(-1, keepdim=True))

"""Samplers that reject: how many words a number takes is known only when it is made.

They run one element at a time on `Draws`, in torch's order and in torch's mixture of float32 and
float64, because the bits depend on it.  Sources: Poisson by PTRS and binomial by BTRS (Hörmann
1993), gamma by Marsaglia and Tsang (2000).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from weft.runtime.libm import library

_BLOCK = 256  # uniforms drawn ahead; those left over are given back
# log(k!) - Stirling's formula, k < 10
_STIRLING = (
    0.0810614667953272, 0.0413406959554092, 0.0276779256849983, 0.02079067210376509,
    0.0166446911898211, 0.0138761288230707, 0.0118967099458917, 0.0104112652619720,
    0.00925546218271273, 0.00833056343336287,
)  # fmt: skip


class Draws:
    """Uniform doubles of [0, 1), and normals in pairs whose second number waits (`left`)."""

    def __init__(self, block: Callable[[int], np.ndarray], left: float | None) -> None:
        self._block, self.left, self.used = block, left, 0
        self._stream = self._ahead()

    def _ahead(self) -> Iterator[float]:
        while True:
            yield from self._block(_BLOCK).tolist()

    def uniform(self) -> float:
        self.used += 1
        return next(self._stream)

    def normal(self) -> float:
        if self.left is not None:
            z, self.left = self.left, None
            return z
        u1, u2 = self.uniform(), self.uniform()
        radius, theta = math.sqrt(-2.0 * math.log1p(-u2)), 2.0 * math.pi * u1
        self.left = radius * math.sin(theta)
        return radius * math.cos(theta)


@cache
def _library(name: str, number: type) -> Callable[[float], float]:
    """A function of the C library that Python's math rounds otherwise, or lacks."""
    function = getattr(library(), name)
    function.restype, function.argtypes = number, [number]
    return function


def _log(x: float) -> float:
    """ln x with ln 0 = -inf, as in C."""
    return math.log(x) if x > 0 else -math.inf


# ------------------------------------------------------------------------------------- Poisson


def poisson(rates: list[float], draws: Draws) -> list[float]:
    """Counts, one a rate: below 10 uniforms are multiplied until exp(-rate)."""
    lgamma = _library("lgamma", ctypes.c_double)
    return [_poisson_small(r, draws) if r < 10 else _poisson_large(r, draws, lgamma) for r in rates]


def _poisson_small(rate: float, draws: Draws) -> int:
    if rate == 0:
        return 0
    limit, product, count = math.exp(-rate), draws.uniform(), 0
    while product > limit:
        product *= draws.uniform()
        count += 1
    return count


def _poisson_large(rate: float, draws: Draws, lgamma: Callable[[float], float]) -> int:
    log_rate = math.log(rate)
    b = 0.931 + 2.53 * math.sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_limit = 0.9277 - 3.6224 / (b - 2)
    while True:
        u = draws.uniform() - 0.5
        v = draws.uniform()
        us = 0.5 - abs(u)
        k = math.floor((2 * a / us + b) * u + rate + 0.43) if us else -1
        if us >= 0.07 and v <= v_limit:
            return k
        if k < 0 or (us < 0.013 and v > us):
            continue
        left = _log(v) + math.log(inverse_alpha) - math.log(a / (us * us) + b)
        if left <= -rate + k * log_rate - lgamma(k + 1.0):
            return k


# --------------------------------------------------------------------------------------- gamma


def gamma(alpha: np.ndarray, draws: Draws) -> list[float]:
    """Standard gamma numbers of the flat `alpha`; parameters below 1 are raised by 1, and the
    number scaled by u^(1 / alpha).  NaN and negative parameters draw nothing and give 0, as torch's
    comparisons end for them.
    """
    one = alpha.dtype.type(1)
    with np.errstate(divide="ignore", over="ignore"):
        power = (one / alpha).astype(np.float64).tolist()
    raised = np.where(alpha < 1, alpha + one, alpha)
    shifted = raised - np.float32(1) / np.float32(3)  # in alpha's dtype, as torch subtracts
    return [
        _gamma(a, p, d, draws)
        for a, p, d in zip(alpha.tolist(), power, shifted.astype(np.float64).tolist(), strict=True)
    ]


_SQUEEZE = float(np.float32(0.0331))


def _gamma(alpha: float, power: float, d: float, draws: Draws) -> float:
    if alpha == 0.0 or not d > 0.0:
        return 0.0
    scale = math.pow(1.0 - draws.uniform(), power) if alpha < 1.0 else 1.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = draws.normal()
        y = 1.0 + c * x
        if y <= 0:
            continue
        v = y * y * y
        u = 1.0 - draws.uniform()
        xx = x * x
        if u < 1.0 - _SQUEEZE * xx * xx:
            return scale * d * v
        if math.log(u) < 0.5 * xx + d * (1.0 - v + math.log(v)):
            return scale * d * v


# ------------------------------------------------------------------------------------ binomial


def binomial(count: np.ndarray, prob: np.ndarray, draws: Draws) -> list[float]:
    """Successes of flat `count` trials, each of probability `prob`; NaN gives NaN."""
    return [_binomial(n, p, draws) for n, p in zip(count, prob, strict=True)]


def _binomial(n: np.floating, p: np.floating, draws: Draws) -> float:
    if n <= 0 or p <= 0:
        return 0.0
    if n != n or p != p:
        return math.nan
    if p >= 1:
        return float(n)
    turned = p > 0.5
    q = type(p)(1.0 - float(p)) if turned else p
    sampler = _binomial_large if float(n * q) >= 10.0 else _binomial_small
    k = sampler(n, q, draws)
    return float(n) - k if turned else k


def _binomial_small(n: np.floating, p: np.floating, draws: Draws) -> float:
    """Counts geometric gaps until they exceed n."""
    single = p.dtype == np.float32
    log1p = _library("log1pf", ctypes.c_float) if single else math.log1p
    log_q, passed, count, k = log1p(-float(p)), 0.0, float(n), 0
    while True:
        passed += math.ceil(x) if math.isfinite(x := _log(draws.uniform()) / log_q) else x
        if passed > count:
            return float(k)
        k += 1


def _binomial_large(n: np.floating, p: np.floating, draws: Draws) -> float:
    kind = type(p)
    one = kind(1)
    stddev = float(np.sqrt(n * p * (one - p)))
    count, prob = float(n), float(p)
    b = 1.15 + 2.53 * stddev
    a = -0.0873 + 0.0248 * b + 0.01 * prob
    c = float(n * p) + 0.5
    v_limit = 0.92 - 4.2 / b
    r = float(p / (one - p))
    alpha = (2.83 + 5.1 / b) * stddev
    m = math.floor((n + one) * p)
    next_count = float(n + one)
    while True:
        u = draws.uniform() - 0.5
        v = draws.uniform()
        us = 0.5 - abs(u)
        if not us:
            continue
        k = float(kind(math.floor((2 * a / us + b) * u + c)))
        if k < 0 or k > count:
            continue
        if us >= 0.07 and v <= v_limit:
            return k
        v = _log(v * alpha / (a / (us * us) + b))
        bound = (
            (m + 0.5) * math.log((m + 1) / (r * (count - m + 1)))
            + next_count * math.log((count - m + 1) / (count - k + 1))
            + (k + 0.5) * math.log(r * (count - k + 1) / (k + 1))
            + _stirling(m) + _stirling(count - m) - _stirling(k) - _stirling(count - k)
        )  # fmt: skip
        if v <= bound:
            return k


def _stirling(k: float) -> float:
    if k < len(_STIRLING):
        return _STIRLING[int(k)]
    square = (k + 1) * (k + 1)
    return (1.0 / 12 - (1.0 / 360 - 1.0 / 1260 / square) / square) / (k + 1)

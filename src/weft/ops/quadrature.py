"""Special functions on float64 arrays (1-d), from integrals, series and expansions.

The trapezoidal rule over a period, or over a line on which the integrand dies out, converges
exponentially; where the argument is large the asymptotic expansions take over.  Numbers in
brackets are Abramowitz and Stegun's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray
_LARGE = 25.0  # from here on Hankel's expansions end below 1e-16
_NODES = 160
_THETA = np.arange(_NODES) * (2 * math.pi / _NODES)


def _pieces(x: Array, *parts: tuple[Array, Callable[[Array], Array]]) -> Array:
    """Each formula on the places of its mask; NaN elsewhere."""
    y = np.full_like(x, math.nan)
    for mask, formula in parts:
        if mask.any():
            y[mask] = formula(x[mask])
    return y


def _hankel(n: int, x: Array, terms: int = 24) -> list[Array]:
    """a_k(n) / x^k [9.2.9]: cut where the terms begin to grow"""
    out, term = [np.ones_like(x)], np.ones_like(x)
    alive = np.ones(x.shape, bool)
    for k in range(1, terms):
        step = term * ((4 * n * n - (2 * k - 1) ** 2) / (8.0 * k)) / x
        alive = alive & (np.abs(step) < np.abs(term))
        term = np.where(alive, step, 0.0)
        out.append(term)
    return out


def bessel_i_scaled(n: int, x: Array) -> Array:
    """exp(-|x|) I_n(x) [9.6.19, 9.7.1]"""

    def small(t: Array) -> Array:
        theta = _THETA[: _NODES // 2 + 1 : 2]  # the other half is the same; 80 nodes do
        weights = np.cos(n * theta) * np.where(np.sin(theta) > 1e-9, 4.0, 2.0) / _NODES
        return (np.exp(np.abs(t)[:, None] * (np.cos(theta) - 1.0)) * weights).sum(-1)

    def large(t: Array) -> Array:
        a = np.abs(t)
        total = sum(p * (-1.0) ** k for k, p in enumerate(_hankel(n, a)))
        return total / np.sqrt(2 * math.pi * a)

    sized = np.abs(x)
    y = _pieces(x, (sized <= _LARGE, small), (sized > _LARGE, large))
    if n == 1:  # the integral's terms cancel beside 0
        y = np.where(sized < 1e-5, (0.5 - sized / 2) * sized, y)
    return y * np.sign(x) if n % 2 else y


def _bessel_large(n: int, x: Array, second: bool) -> Array:
    """J_n, Y_n for large x > 0 [9.2.5]"""
    a = _hankel(n, x)
    p = sum(t * (-1.0) ** (k // 2) for k, t in enumerate(a) if k % 2 == 0)
    q = sum(t * (-1.0) ** (k // 2) for k, t in enumerate(a) if k % 2 == 1)
    phase = x - (n / 2 + 0.25) * math.pi
    c, s = np.cos(phase), np.sin(phase)
    return np.sqrt(2 / (math.pi * x)) * (p * s + q * c if second else p * c - q * s)


def bessel_j(n: int, x: Array) -> Array:
    """J_n(x), n 0 or 1 [9.1.21]"""

    def small(t: Array) -> Array:
        return np.cos(n * _THETA - t[:, None] * np.sin(_THETA)).mean(-1)

    a = np.abs(x)
    y = _pieces(a, (a <= _LARGE, small), (a > _LARGE, lambda t: _bessel_large(n, t, False)))
    y = np.where(np.isinf(x), 0.0, y)
    return y * np.sign(x) if n % 2 else y


def bessel_y(n: int, x: Array) -> Array:
    """Y_n(x), n 0 or 1: Neumann's series in J_m [9.1.88], its sum taken under the integral"""
    k = np.arange(1, 40)[:, None]
    if n == 0:
        weight = ((-1.0) ** (k + 1) / k * np.cos(2 * k * _THETA)).sum(0)
    else:
        weight = ((-1.0) ** k * (2 * k + 1) / (k * (k + 1)) * np.sin((2 * k + 1) * _THETA)).sum(0)

    def small(t: Array) -> Array:
        log = np.log(t / 2) + np.euler_gamma
        wave = t[:, None] * np.sin(_THETA)
        if n == 0:
            rest = (np.cos(wave) * weight).mean(-1)
            return 2 / math.pi * (log * bessel_j(0, t) + 2 * rest)
        rest = (np.sin(wave) * weight).mean(-1)
        first = (log - 1) * bessel_j(1, t) - bessel_j(0, t) / t
        return 2 / math.pi * (first - rest)

    y = _pieces(
        x, (x == 0, lambda t: t - math.inf), ((x > 0) & (x <= _LARGE), small),
        (x > _LARGE, lambda t: _bessel_large(n, t, True)),
    )  # fmt: skip
    return np.where(x == math.inf, 0.0, y)


def _line(order: float, x: Array) -> Array:
    """exp(x) K_order(x), x >= 0.1: the integral of exp(-x (cosh t - 1)) cosh(order t) [9.6.24]"""
    t = np.arange(0, 64) * 0.125
    weight = np.where(t == 0, 0.5, 1.0) * np.cosh(order * t) * 0.125
    return (np.exp(-x[:, None] * (np.cosh(t) - 1.0)) * weight).sum(-1)


def bessel_k_scaled(n: int, x: Array) -> Array:
    """exp(x) K_n(x), n 0 or 1; the series near 0 [9.6.11]"""

    def small(t: Array) -> Array:
        log, q = np.log(t / 2), t * t / 4
        total, power = np.zeros_like(t), np.ones_like(t)
        harmonic = 0.0
        for k in range(20):
            if n == 0:
                total += power * (harmonic - np.euler_gamma)
            else:
                total += power * (2 * harmonic + 1 / (k + 1) - 2 * np.euler_gamma)
            harmonic += 1 / (k + 1)
            power = power * q / ((k + 1) * (k + 1 + n))
        i = bessel_i_scaled(n, t) * np.exp(t)
        y = total - log * i if n == 0 else 1 / t + log * i - t / 4 * total
        return y * np.exp(t)

    large = lambda t: sum(_hankel(n, t)) * np.sqrt(math.pi / (2 * t))
    return _pieces(
        x, (x == 0, lambda t: t + math.inf), ((x > 0) & (x <= 1), small),
        ((x > 1) & (x <= _LARGE), lambda t: _line(n, t)), (x > _LARGE, large),
    )  # fmt: skip


def bessel_k(n: int, x: Array) -> Array:
    """K_n(x)"""
    return bessel_k_scaled(n, x) * np.exp(-x)


def airy_ai(x: Array) -> Array:
    """Ai(x) [10.4.2, 10.4.14, 10.4.60]"""

    def near(t: Array) -> Array:
        f, g = np.ones_like(t), t.copy()
        a, b, cube = np.ones_like(t), t.copy(), t**3
        for k in range(1, 70):
            a = a * cube / ((3 * k - 1) * (3 * k))
            b = b * cube / ((3 * k) * (3 * k + 1))
            f, g = f + a, g + b
        c1, c2 = 3 ** (-2 / 3) / math.gamma(2 / 3), 3 ** (-1 / 3) / math.gamma(1 / 3)
        return c1 * f - c2 * g

    def right(t: Array) -> Array:
        z = 2 / 3 * t**1.5
        return np.sqrt(t / 3) / math.pi * _line(1 / 3, z) * np.exp(-z)

    def left(t: Array) -> Array:
        s = -t
        z = 2 / 3 * s**1.5
        c = [1.0]
        for k in range(1, 16):
            c.append(c[-1] * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1)))
        p = sum((-1) ** k * c[2 * k] / z ** (2 * k) for k in range(8))
        q = sum((-1) ** k * c[2 * k + 1] / z ** (2 * k + 1) for k in range(8))
        angle = z + math.pi / 4
        return (np.sin(angle) * p - np.cos(angle) * q) / (math.sqrt(math.pi) * s**0.25)

    y = _pieces(x, ((x >= -8) & (x < 2), near), (x >= 2, right), (x < -8, left))
    return np.where(x == math.inf, 0.0, y)


def spherical_j0(x: Array) -> Array:
    """sin(x) / x"""
    y = np.where(x == 0, 1.0, np.sin(x) / np.where(x == 0, 1.0, x))
    return np.where(np.isinf(x), 0.0, y)


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "j0": lambda x: bessel_j(0, x),
    "j1": lambda x: bessel_j(1, x),
    "y0": lambda x: bessel_y(0, x),
    "y1": lambda x: bessel_y(1, x),
    "k0": lambda x: bessel_k(0, x),
    "k1": lambda x: bessel_k(1, x),
    "k0e": lambda x: bessel_k_scaled(0, x),
    "k1e": lambda x: bessel_k_scaled(1, x),
    "airy_ai": airy_ai,
    "sph_j0": spherical_j0,
}


def erfcx(x: Array) -> Array:
    """exp(x^2) erfc(x): the definition below 2, Laplace's continued fraction above [7.1.14]"""

    def direct(t: Array) -> Array:
        return np.exp(t * t) * np.array([math.erfc(v) for v in t.tolist()])

    def fraction(t: Array) -> Array:
        y = t.copy()
        for k in range(120, 0, -1):
            y = t + 0.5 * k / y
        return 1 / (math.sqrt(math.pi) * y)

    y = _pieces(x, (x < 2, direct), (x >= 2, fraction))
    return np.where(x == math.inf, 0.0, np.where(x < -26.7, math.inf, y))


# B_2j / (2 j)!
_BERNOULLI = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000, 43867 / 5109094217170944000,
)  # fmt: skip


def zeta(x: Array, q: Array) -> Array:
    """The sum of (k + q)^-x: terms up to q + k > 10, then Euler and Maclaurin's [23.2]"""
    total, a = np.zeros_like(q), q.copy()
    steps = int(np.clip(np.ceil(10 - np.fmin.reduce(q, initial=10.0)), 10, 500))
    for k in range(steps):
        more = (a <= 9) | (k < 10)
        total = np.where(more, total + a**-x, total)
        a = np.where(more, a + 1, a)
    y = total + a ** (1 - x) / (x - 1) + 0.5 * a**-x
    factor = x * a ** (-x - 1)
    for j, b in enumerate(_BERNOULLI):
        y = y + b * factor
        factor = factor * (x + 2 * j + 1) * (x + 2 * j + 2) / (a * a)
    whole = q == np.floor(q)
    y = np.where((q <= 0) & ~whole & (x != np.floor(x)), math.nan, y)
    y = np.where((q <= 0) & whole, math.inf, y)
    return np.where(x == 1, math.inf, np.where(x < 1, math.nan, y))


def trigamma(x: Array) -> Array:
    """The second derivative of log gamma; below 1/2 by reflection [6.4.7]"""
    low = x < 0.5
    y = zeta(np.full_like(x, 2.0), np.where(low, 1 - x, x))
    mirrored = (math.pi / np.sin(math.pi * x)) ** 2 - y
    return np.where(low, mirrored, y)


def gamma_inc(a: Array, x: Array, upper: bool) -> Array:
    """P(a, x) by its series [6.5.29], Q(a, x) by its continued fraction [6.5.31]"""
    log_gamma = np.array([math.lgamma(v) if v > 0 and np.isfinite(v) else math.nan for v in a])
    front = np.exp(a * np.log(x) - x - log_gamma)
    by_series = x < a + 1
    sa, sx = np.where(by_series, a, 1.0), np.where(by_series, x, 0.5)
    term = 1 / sa
    total = term.copy()
    for k in range(1, 2000):
        term = term * sx / (sa + k)
        total += term
        if not (np.abs(term) > np.abs(total) * 1e-17).any():
            break
    low = front * total
    fa, fx = np.where(by_series, 1.0, a), np.where(by_series, 3.0, x)
    b = fx + 1 - fa
    c, d = np.full_like(fx, 1e300), 1 / np.where(b == 0, 1e-300, b)
    h = d.copy()
    for k in range(1, 2000):
        an = -k * (k - fa)
        b = b + 2
        d = an * d + b
        c = b + an / c
        d = 1 / np.where(d == 0, 1e-300, d)
        c = np.where(c == 0, 1e-300, c)
        h = h * d * c
        if not (np.abs(d * c - 1) > 1e-16).any():
            break
    high = front * h
    y = np.where(by_series, 1 - low if upper else low, high if upper else 1 - high)
    y = np.where(x == 0, 1.0 if upper else 0.0, y)
    y = np.where(a == 0, 0.0 if upper else 1.0, y)
    y = np.where(np.isinf(x) & np.isfinite(a), 0.0 if upper else 1.0, y)
    y = np.where(np.isinf(a) & np.isfinite(x), 1.0 if upper else 0.0, y)
    bad = (a < 0) | (x < 0) | np.isnan(a) | np.isnan(x) | ((a == 0) & (x == 0))
    bad |= np.isinf(a) & np.isinf(x)
    return np.where(bad, math.nan, y)


# kind -> (the polynomial of degree 1, the next from the two before, from k = 1 on)
POLYNOMIALS: dict[str, tuple[Callable, Callable]] = {
    "t": (lambda x: x, lambda k, x, p, q: 2 * x * p - q),
    "u": (lambda x: 2 * x, lambda k, x, p, q: 2 * x * p - q),
    "v": (lambda x: 2 * x - 1, lambda k, x, p, q: 2 * x * p - q),
    "w": (lambda x: 2 * x + 1, lambda k, x, p, q: 2 * x * p - q),
    "h": (lambda x: 2 * x, lambda k, x, p, q: 2 * (x * p - k * q)),
    "he": (lambda x: x, lambda k, x, p, q: x * p - k * q),
    "laguerre": (lambda x: 1 - x, lambda k, x, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1)),
    "legendre": (lambda x: x, lambda k, x, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1)),
}
_MOST = 1000  # torch's loops are as long as n; beyond this a value is NaN


def polynomial(kind: str, x: Array, n: Array) -> Array:
    """The polynomial of degree n, cut to a whole number, at x by its recurrence; 0 for n < 0"""
    first, following = POLYNOMIALS[kind]
    degree = np.trunc(n)
    y = np.where(degree < 0, 0.0, np.where(degree == 0, 1.0, math.nan))
    before, now = np.ones_like(x), first(x)
    last = int(np.nanmax(np.where(np.isfinite(degree), degree, 0), initial=0))
    for k in range(1, min(last, _MOST) + 1):
        y = np.where(degree == k, now, y)
        before, now = now, following(k, x, now, before)
    return y

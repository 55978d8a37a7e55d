"""From raw generator words to distributions: pure functions, no state.

Each function repeats the arithmetic of torch's CPU kernels step by step, because the bits of a
seeded model depend on it. Where torch's compiler fused a multiply and an add, so do we: a float32
fma is computed in float64 (the product is exact there), a float64 fma with Dekker's exact product.
Source of the float32 log and sincos: the Cephes library's polynomials, in the order of operations
of Julien Pommier's and Giovanni Garberoglio's vector versions, with which torch fills normals.

Other functions are the C library's, by native code, where NumPy's vector versions round otherwise:

    void weft_map_NAME(double *data, i64 n)       data[i] = NAME(data[i])

Samplers that reject know how many words a number takes only when it is made.  They run one element
at a time on `Draws`, in torch's order and mixture of float32 and float64.  Sources: Poisson by PTRS
and binomial by BTRS (Hörmann 1993), gamma by Marsaglia and Tsang (2000).
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from weft.runtime import machine, native
from weft.runtime.once import once

f32 = np.float32
_CHUNK = 1 << 15  # elements of one Box-Muller pass: keeps the twenty temporaries in the L2 cache

SQRT_HALF, FOUR_OVER_PI, TWO_PI = f32(0.5**0.5), f32(4 / math.pi), f32(2 * math.pi)
LOG_LOW, LOG_HIGH = f32(-2.12194440e-4), f32(0.693359375)  # ln 2 in two parts
LOG_COEFFICIENTS = tuple(
    f32(v)
    for v in (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )
)  # fmt: skip
PI_4_PARTS = tuple(
    f32(v) for v in (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)
)
COS_COEFFICIENTS = tuple(
    f32(v) for v in (2.443315711809948e-005, -1.388731625493765e-003, 4.166664568298827e-002)
)
SIN_COEFFICIENTS = tuple(f32(v) for v in (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1))


_MAP = """
declare double @weft_libm_NAME(double)
define void @weft_map_NAME(ptr %data, i64 %n) {
entry:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %p = getelementptr double, ptr %data, i64 %i
  %x = load double, ptr %p
  %y = call double @weft_libm_NAME(double %x)
  store double %y, ptr %p
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""
_PAIRS = """
declare double @llvm.sqrt.f64(double)
define void @weft_normal_pairs(ptr %data, i64 %n) {
entry:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %p = getelementptr double, ptr %data, i64 %i
  %q = getelementptr double, ptr %p, i64 1
  %u1 = load double, ptr %p
  %u2 = load double, ptr %q
  %minus = fneg double %u2
  %log = call double @weft_libm_log1p(double %minus)
  %square = fmul double %log, -2.0
  %radius = call double @llvm.sqrt.f64(double %square)
  %theta = fmul double %u1, 0x401921FB54442D18
  %cos = call double @weft_libm_cos(double %theta)
  %sin = call double @weft_libm_sin(double %theta)
  %x = fmul double %radius, %cos
  %y = fmul double %radius, %sin
  store double %x, ptr %p
  store double %y, ptr %q
  %next = add i64 %i, 2
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""
NAMES = ("exp", "log", "log1p", "sin", "cos", "tan")


@once
def library() -> ctypes.CDLL:
    """The C library of this process."""
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


@once
def maps() -> dict[str, Callable[[int, int], None]]:
    """The native functions: `weft_normal_pairs`, and by name the C library's."""
    addresses = {
        f"weft_libm_{name}": ctypes.cast(getattr(library(), name), ctypes.c_void_p).value or 0
        for name in NAMES
    }
    code = "".join(_MAP.replace("NAME", name) for name in NAMES) + _PAIRS
    exports = [*[f"weft_map_{name}" for name in NAMES], "weft_normal_pairs"]
    found = machine.load(code, exports, addresses)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    return {name.removeprefix("weft_map_"): kind(found[name]) for name in exports}


def normal_pairs(u: np.ndarray) -> np.ndarray:
    """Box-Muller on consecutive float64 pairs (u1, u2), in place: r cos t, r sin t with
    r = sqrt(-2 log1p(-u2)), t = 2 pi u1.
    """
    maps()["weft_normal_pairs"](native.address(u), u.size)
    return u


def libm(name: str, x: np.ndarray) -> np.ndarray:
    """The C library's function of every float64, as a new array; `name` is one of NAMES."""
    out = np.array(x, np.float64, order="C")
    maps()[name](native.address(out), out.size)
    return out


def fma32(a: np.ndarray, b, c) -> np.ndarray:
    """a * b + c in float32 with one rounding (through float64, where the product is exact)."""
    wide = a.astype(np.float64)
    wide *= b
    wide += c
    return wide.astype(f32)


def fma64(a: np.ndarray, b: float, c: float) -> np.ndarray:
    """a * b + c in float64 with one rounding: Dekker's exact product, Knuth's exact sum."""
    product = a * b
    if c == 0.0:
        return product + 0.0
    total = product + c
    if b == 1.0:
        return total
    split = 134217729.0  # 2^27 + 1
    a_high = a * split
    a_high = a_high - (a_high - a)
    a_low = a - a_high
    b_high = b * split
    b_high = b_high - (b_high - b)
    b_low = b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    back = total - product
    return total + (((product - (total - back)) + (c - back)) + error)


def cast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 or float32 to `dtype`; 16-bit floats go through float32, as in torch."""
    if dtype.itemsize == 2 and dtype.kind not in "iu":
        x = x.astype(f32, copy=False)
    return x.astype(dtype, copy=False)


def log32(x: np.ndarray) -> np.ndarray:
    """ln x for positive float32, Cephes polynomial."""
    x = np.maximum(x, f32(1.17549435e-38))
    bits = x.view(np.int32)
    exponent = ((bits >> 23) - 0x7E).astype(f32)
    x = ((bits & 0x7FFFFF) | 0x3F000000).view(f32)
    small = x < SQRT_HALF
    x = (x - f32(1)) + np.where(small, x, f32(0))
    exponent -= small
    z = x * x
    y = fma32(x, LOG_COEFFICIENTS[0], LOG_COEFFICIENTS[1])
    for c in LOG_COEFFICIENTS[2:]:
        y = fma32(y, x, c)
    y *= x
    y = fma32(y, z, exponent * LOG_LOW)
    y -= z * f32(0.5)
    return fma32(exponent, LOG_HIGH, x + y)


def sincos32(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sin x, cos x) for float32 0 <= x < 8192, Cephes polynomials."""
    octant = ((x * FOUR_OVER_PI).astype(np.int32) + 1) & ~1
    y = octant.astype(f32)
    sin_sign = (octant & 4) << 29
    cos_sign = (~(octant - 2) & 4) << 29
    swap = (octant & 2) != 0
    for part in PI_4_PARTS:
        x = fma32(y, part, x)
    z = x * x
    c = fma32(z, COS_COEFFICIENTS[0], COS_COEFFICIENTS[1])
    c = fma32(c, z, COS_COEFFICIENTS[2])
    c *= z
    c = fma32(c, z, z * f32(-0.5))
    c += f32(1)
    s = fma32(z, SIN_COEFFICIENTS[0], SIN_COEFFICIENTS[1])
    s = fma32(s, z, SIN_COEFFICIENTS[2])
    s *= z
    s = fma32(s, x, x)
    sin, cos = np.where(swap, c, s), np.where(swap, s, c)
    return (sin.view(np.int32) ^ sin_sign).view(f32), (cos.view(np.int32) ^ cos_sign).view(f32)


def box_muller32(data: np.ndarray, mean: float, std: float) -> None:
    """Uniforms to normals in place, float32, in blocks of 16: u1 = 1 - d[j], u2 = d[j + 8],
    d[j] = r cos t, d[j + 8] = r sin t with r = sqrt(-2 ln u1), t = 2 pi u2. `data.size` % 16 == 0.
    """
    mean32, std32 = f32(mean), f32(std)
    for start in range(0, data.size, _CHUNK):
        block = data[start : start + _CHUNK].reshape(-1, 2, 8)
        radius = np.sqrt(f32(-2) * log32(f32(1) - block[:, 0]))
        sin, cos = sincos32(TWO_PI * block[:, 1])
        block[:, 0] = fma32(radius * cos, std32, mean32)
        block[:, 1] = fma32(radius * sin, std32, mean32)


def box_muller64(data: np.ndarray, mean: float, std: float) -> None:
    """As `box_muller32` for float64, with the C library's log, sin and cos."""
    block = data.reshape(-1, 2, 8)
    u1, u2 = (1.0 - block[:, 0]).reshape(-1), block[:, 1].reshape(-1)
    radius = np.sqrt(-2.0 * libm("log", u1))
    theta = 2.0 * math.pi * u2
    block[:, 0] = fma64(radius * libm("cos", theta), std, mean).reshape(-1, 8)
    block[:, 1] = fma64(radius * libm("sin", theta), std, mean).reshape(-1, 8)


# --- the ranges that dtypes can hold ----------------------------------------


@cache
def digits(dtype: np.dtype) -> int:
    """Bits of the largest run of whole numbers that `dtype` holds exactly."""
    if dtype.kind in "iu":
        return dtype.itemsize * 8 - (dtype.kind == "i")
    return {8: 53, 4: 24, 2: 11 if dtype == np.float16 else 8, 1: 1}[dtype.itemsize]


@cache
def largest(dtype: np.dtype) -> float:
    if dtype == np.bool_:
        return 1
    if dtype.kind in "iu":
        return np.iinfo(dtype).max
    known = {8: np.finfo(np.float64).max, 4: np.finfo(np.float32).max}
    return float(known.get(dtype.itemsize, 65504.0 if dtype == np.float16 else 2.0**128 - 2.0**120))


def integer_bounds(low: int, high: int | None, dtype: np.dtype) -> tuple[int, int]:
    """(low, last), moved inwards to numbers that a float dtype can hold, and checked."""
    real = dtype.kind not in "iub"
    if high is not None:
        if not low < high:
            raise RuntimeError(
                f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
            )
        if real:
            low, high = _raise_low(low, dtype), _lower_high(high, dtype)
        last = high - 1
    else:
        last = 2 ** digits(dtype) if real else int(largest(dtype))
        low = _raise_low(low, dtype) if real else low
    if low > last:
        raise RuntimeError(f"random_: no {dtype} lies in the range from={low} to={last + 1}")
    most = int(largest(dtype))
    least = -most - 1 if dtype.kind == "i" else -most if real else 0
    for name, value in (("from", low), ("to - 1", last)):
        if not least <= value <= most:
            raise RuntimeError(f"{name} is out of bounds for {dtype}")
    return low, last


def _raise_low(low: int, dtype: np.dtype) -> int:
    next_up = _through(low + 1, dtype)
    if next_up < low:
        low = next_up + 2 ** (abs(low + 1).bit_length() - digits(dtype))
    return low


def _lower_high(high: int, dtype: np.dtype) -> int:
    below = _through(high - 1, dtype)
    if high <= below < 2**63:
        high = below - 2 ** (abs(high - 1).bit_length() - digits(dtype))
    return high


def _through(value: int, dtype: np.dtype) -> int:
    """`value` as `dtype` rounds it; unchanged where it overflows: the bounds check reports that."""
    with np.errstate(over="ignore"):
        rounded = float(cast(np.array(float(value)), dtype))
    return int(rounded) if math.isfinite(rounded) else value


def check_weights(weights: np.ndarray, num_samples: int, replacement: bool) -> None:
    if weights.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if weights.dtype.kind in "iub":
        raise RuntimeError(f"multinomial only supports floating-point dtypes, got: {weights.dtype}")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > weights.shape[-1]:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) without replacement")
    if weights.shape[-1] > 2**24:
        raise RuntimeError("number of categories cannot exceed 2^24")
    wide = weights.astype(np.float64)
    largest = np.maximum.reduce(wide, -1, initial=0.0)  # of each row; NaN where one is
    if not (
        np.minimum.reduce(wide, None, initial=np.inf) >= 0
        and np.maximum.reduce(largest, None, initial=0.0) < np.inf
    ):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if not np.minimum.reduce(largest, None, initial=np.inf) > 0:
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")


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


@once
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

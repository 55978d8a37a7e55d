"""From raw generator words to distributions: pure functions, no state.

Each function repeats the arithmetic of torch's CPU kernels step by step, because the bits of a
seeded model depend on it. Where torch's compiler fused a multiply and an add, so do we: a float32
fma is computed in float64 (the product is exact there), a float64 fma with Dekker's exact product.
Source of the float32 log and sincos: the Cephes library's polynomials, in the order of operations
of Julien Pommier's and Giovanni Garberoglio's vector versions, with which torch fills normals.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from weft.runtime.libm import libm

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


def normal_pairs(u: np.ndarray) -> np.ndarray:
    """Box-Muller on consecutive float64 pairs (u1, u2): r cos t, r sin t with
    r = sqrt(-2 log1p(-u2)), t = 2 pi u1. Same shape as `u`, even size.
    """
    pairs = u.reshape(-1, 2)
    radius = np.sqrt(-2.0 * libm("log1p", -pairs[:, 1]))
    theta = 2.0 * math.pi * pairs[:, 0]
    out = np.empty_like(pairs)
    out[:, 0] = radius * libm("cos", theta)
    out[:, 1] = radius * libm("sin", theta)
    return out.reshape(-1)


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

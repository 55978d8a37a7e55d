"""Errors of the elementary functions in ulp, special values, and the same on narrower vectors.

Run as a script it prints the table (WEFT_TARGET=avx2 or sse for the others):
    python -m tests.kernels.test_math
"""

import math
from statistics import NormalDist

import numpy as np
import pytest

from tests.kernels.run import elementwise
from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels.target import math as vmath

# bounds in ulp: float32, float64; and where the operands are drawn from
BOUNDS = {
    "exp": (1.0, 1.0, -104, 89), "expm1": (0.51, 2, -20, 89), "exp2": (0.51, 1, -140, 127),
    "log": (1.0, 1.0, None, None), "log1p": (1.0, 1.5, None, None), "log2": (0.51, 1, None, None),
    "log10": (0.51, 2, None, None), "sin": (1.5, 1.6, -1000, 1000), "cos": (1.5, 1.6, -1000, 1000),
    "tan": (0.51, 4, -1000, 1000), "tanh": (1.5, 3, -10, 10), "sinh": (0.51, 3, -88, 88),
    "cosh": (0.51, 3, -88, 88), "asin": (0.51, 1, -1, 1), "acos": (0.51, 1, -1, 1),
    "atan": (0.51, 1, -20, 20), "asinh": (0.51, 2, -20, 20), "acosh": (0.51, 2, 1, 50),
    "atanh": (0.51, 2, -1, 1), "rsqrt": (1.5, 1.5, None, None), "sqrt": (0.5, 0.5, None, None),
}  # fmt: skip
# NumPy has no longdouble of these: the reference is Python's, in double
SPECIAL = {"erf": (1.5, -6, 6), "erfc": (0.6, -6, 9), "lgamma": (1, 0.1, 50),
           "digamma": (1, 2, 50), "erfinv": (0.6, -0.999, 0.999),
           "area": (2, -7, 7), "lift": (3, -7, 7)}  # fmt: skip


def operands(low: float | None, high: float | None, dtype: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    if low is None or high is None:
        x = 10.0 ** rng.uniform(-44 if dtype == "float32" else -320, 38, count)
        return np.concatenate([x, 1 + rng.standard_normal(count) / 10]).astype(dtype)
    small = 10.0 ** rng.uniform(-30, 0, count) * rng.choice([-1, 1], count)
    x = np.concatenate([rng.uniform(low, high, count), small]).astype(dtype)
    return x[(x >= low) & (x <= high)]


def worst(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last place of the exact value."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        place = np.maximum(np.floor(np.log2(np.abs(exact))), info.minexp)
        error = np.abs(got.astype(np.longdouble) - exact) / np.exp2(place - info.nmant)
        error[(got == exact.astype(got.dtype)) | (np.isnan(got) & np.isnan(exact))] = 0
    return float(np.max(error))


def error_of(name: str, d: D.dtype, low: float | None, high: float | None, count: int) -> float:
    x = operands(low, high, d.name, count)
    got = elementwise(S.Scalar(name, (S.Arg(0, d),)), x)
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble if name not in SPECIAL else np.float64)
        exact = 1 / np.sqrt(wide) if name == "rsqrt" else S.TABLE[name].numpy(wide)
    return worst(got, exact.astype(np.longdouble))


def check_all(count: int) -> list[str]:
    """What exceeds its bound, in words."""
    out = []
    long = np.finfo(np.longdouble).nmant > 60
    for name, (b32, b64, low, high) in BOUNDS.items():
        for d, bound in ((D.float32, b32), (D.float64, b64)):
            if d is D.float64 and not long:
                continue
            e = error_of(name, d, low, high, count)
            if not e <= bound:
                out.append(f"{name} {d.name}: {e:.2f} ulp > {bound}")
    for name, (bound, low, high) in SPECIAL.items():
        e = error_of(name, D.float32, low, high, count // 4)
        if not e <= bound:
            out.append(f"{name} float32: {e:.2f} ulp > {bound}")
    return out


def test_errors_in_ulp() -> None:
    assert check_all(4000) == []


def test_pow() -> None:
    rng = np.random.default_rng(1)
    x, y = np.abs(rng.standard_normal(20000) * 5), rng.standard_normal(20000) * 10
    args = S.Arg(0, D.float32), S.Arg(1, D.float32)
    x, y = x.astype(np.float32), y.astype(np.float32)
    with np.errstate(all="ignore"):
        assert worst(elementwise(S.pow(*args), x, y), np.power(x.astype(np.longdouble), y)) <= 0.51
    special = np.float32([0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e30])
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(elementwise(S.pow(*args), x, y), want)


@pytest.mark.parametrize(
    ("name", "place", "bound"), [("erf", 1 / 4, 1.5), ("area", 25 / 64, 2), ("lift", 25 / 64, 3)]
)
def test_functions_at_every_place_of_their_table(name: str, place: float, bound: float) -> None:
    """Polynomials meet halfway between places: there, beside it, and in between."""
    places = np.arange(-32, 33, dtype=np.float32) * np.float32(place / 2)
    near = [places, np.nextafter(places, np.float32(9)), np.nextafter(places, np.float32(-9))]
    x = np.concatenate([*near, np.linspace(-17 * place, 17 * place, 300_001, dtype=np.float32)])
    got = elementwise(S.Scalar(name, (S.Arg(0, D.float32),)), x)
    exact = S.TABLE[name].numpy(x.astype(np.float64))
    assert worst(got, exact.astype(np.longdouble)) <= bound
    assert (got[x == 0] == 0).all()


@pytest.mark.parametrize("name", ["erf", "exp", "area", "lift"])
def test_vectors_of_another_length_have_the_same_bits(name: str) -> None:
    """Beside float64 a vector holds 8 floats."""
    x = np.linspace(-5, 5, 1001, dtype=np.float32)
    y = S.Scalar(name, (S.Arg(0, D.float32),))
    wide = elementwise(S.cast(y, D.float64), x)
    np.testing.assert_array_equal(wide, elementwise(y, x).astype(np.float64))


def test_erf_and_its_kin_are_constant_far_out() -> None:
    """Its polynomial in |x| must go down to -inf without a turn."""
    x = np.concatenate([np.linspace(4, 200, 20001), np.logspace(2, 38.5, 2001)]).astype(np.float32)
    for name, top in (("erf", 1), ("area", 0.5), ("lift", 0.5)):
        e = S.Scalar(name, (S.Arg(0, D.float32),))
        far = x[x > (4 if name == "erf" else 6.5)]
        assert (elementwise(e, far) == top).all()
        assert (elementwise(e, -far) == -top).all()


@pytest.mark.parametrize("name", ["fmod", "rem", "floordiv"])
def test_remainders_are_exact(name: str) -> None:
    """Near multiples, far quotients, denormals, every pair of special values: NumPy's bits."""
    rng = np.random.default_rng(2)
    special = np.float32([0, -0.0, 1, -1, 2, 0.5, np.inf, -np.inf, np.nan, 1e-40, 3e38, 7, 0.1])
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    wide = [rng.standard_normal(9000) * 10.0 ** rng.uniform(-10, 10, 9000) for _ in range(2)]
    tenths = np.repeat(np.arange(1000, dtype=np.float32), 9) * np.float32(0.1)
    x = np.concatenate([x, wide[0].astype(np.float32), tenths])
    y = np.concatenate([y, wide[1].astype(np.float32), np.full(9000, 0.1, np.float32)])
    with np.errstate(all="ignore"):
        want = S.TABLE[name].numpy(x, y)
    got = elementwise(S.apply(name, S.Arg(0, D.float32), S.Arg(1, D.float32)), x, y)
    np.testing.assert_array_equal(got, want)


def test_atan2() -> None:
    rng = np.random.default_rng(3)
    special = np.float32([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-40, -3e38, 3e38, 0.3])
    y, x = (a.ravel() for a in np.meshgrid(special, special))
    y, x = (np.concatenate([a, rng.standard_normal(9000).astype(np.float32)]) for a in (y, x))
    got = elementwise(S.atan2(S.Arg(0, D.float32), S.Arg(1, D.float32)), y, x)
    want = np.arctan2(y.astype(np.longdouble), x.astype(np.longdouble))
    assert worst(got, want) <= 0.51
    number = ~np.isnan(want)
    assert (np.signbit(got) == np.signbit(want))[number].all()


def test_erfinv_near_one() -> None:
    """Where 1 - |y| is a few units of float32: beside the normal distribution's quantiles."""
    gap = np.float32(2.0) ** -np.arange(1, 25, dtype=np.float32)
    y = np.concatenate([1 - gap, gap - 1, (1 - gap * np.float32(1.3))[1:23]])
    got = elementwise(S.erfinv(S.Arg(0, D.float32)), y)
    tail = (1 - np.abs(y.astype(np.float64))) / 2
    want = np.array([-NormalDist().inv_cdf(t) / math.sqrt(2) for t in tail]) * np.sign(y)
    assert (np.abs(got - want) <= 0.6 * np.spacing(np.abs(want).astype(np.float32))).all()


@pytest.mark.parametrize("d", [D.float32, D.float64], ids=str)
@pytest.mark.parametrize("name", sorted(vmath.NAMES - {"pow", "atan2"}))
def test_special_values(name: str, d: D.dtype) -> None:
    """inf, NaN, zeros with their signs, denormals and the ends of the domain."""
    info = np.finfo(d.np)
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, info.tiny, info.smallest_subnormal,
                  -info.smallest_subnormal, info.max, -info.max, 2, -2, 1e-20, 1e5, 1e9, 1e18],
                 dtype=d.np)  # fmt: skip
    if name in ("lgamma", "digamma"):
        x = x[(abs(x) < 1e15) & (abs(x) > 1e-19) | (x == 0) | ~np.isfinite(x)]
    got = elementwise(S.Scalar(name, (S.Arg(0, d),)), x)
    with np.errstate(all="ignore"):
        want = S.TABLE[name].numpy(x.astype(np.float64)).astype(d.np)
    smallest = info.smallest_subnormal * (name == "lift")  # a sum of two that round
    np.testing.assert_allclose(got, want, rtol=8 * info.eps, atol=smallest)
    exact = ~np.isnan(want) & (name not in ("lgamma", "erfc"))
    assert (np.signbit(got) == np.signbit(want))[exact].all()


if __name__ == "__main__":
    for name, (_, _, low, high) in BOUNDS.items():
        errors = [error_of(name, d, low, high, 200_000) for d in (D.float32, D.float64)]
        print(f"{name:8} float32 {errors[0]:.2f}  float64 {errors[1]:.2f}")
    for name, (_, low, high) in SPECIAL.items():
        print(f"{name:8} float32 {error_of(name, D.float32, low, high, 20_000):.2f}")

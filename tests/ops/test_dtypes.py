"""What a function makes of a dtype does not depend on who computes it: NumPy (small), a kernel, or
a compiled program; and integers, 16-bit floats and complex numbers come out as torch's do.
"""

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from tests.compile.agree import bits

KINDS = [
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
    "bool", "complex64",
]  # fmt: skip
ONE = [
    "abs", "neg", "sign", "sgn", "floor", "ceil", "trunc", "round", "frac", "sqrt", "rsqrt",
    "reciprocal", "square", "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sigmoid",
    "relu", "sin", "cos", "tan", "tanh", "asinh", "erf", "logical_not", "bitwise_not", "isnan",
    "isinf", "isfinite", "signbit", "deg2rad", "sinc", "positive", "nan_to_num",
]  # fmt: skip
TWO = [
    "add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "maximum",
    "minimum", "atan2", "eq", "lt", "logical_and", "bitwise_and", "bitwise_left_shift",
    "copysign", "hypot", "xlogy", "heaviside", "ldexp", "logaddexp2", "gcd", "float_power",
]  # fmt: skip


def outcome(fn, *args):
    try:
        y = fn(*args)
    except (RuntimeError, TypeError) as e:
        return type(e)
    return y.dtype, bits(y.reshape(-1)[:8])


@pytest.mark.parametrize("name", ONE + TWO)
def test_small_large_and_compiled_are_one(name):
    fn, run = getattr(weft, name), None
    small = weft.tensor([1, 2, 0, 1, 2, 3, 1, 1])
    for kind in KINDS:
        d = getattr(weft, kind)
        args = [small.to(d)] + ([small.roll(3).clamp(min=1).to(d)] if name in TWO else [])
        want = outcome(fn, *args)
        assert outcome(fn, *[a.repeat(4096) for a in args]) == want, kind
        run = weft.compile(fn)
        assert [outcome(run, *args) for _ in range(3)] == [want] * 3, kind


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16"])
def test_odd_values_small_large_and_compiled_are_one(kind):
    d = getattr(weft, kind)
    last, tiny = weft.finfo(d).max, weft.finfo(d).smallest_normal
    odd = [np.nan, -0.0, 0.0, -2.5, 3.5, np.inf, -np.inf, tiny, -tiny / 4, last, -last, 0.5, -1.5]
    x = weft.tensor(odd, dtype=weft.float64).to(d)
    a, b = x.repeat_interleave(len(odd)), x.repeat(len(odd))
    for name in ONE + TWO:
        fn = getattr(weft, name)
        args = [a, b][: 1 + (name in TWO)]
        try:
            y = fn(*args)
        except (RuntimeError, TypeError):
            continue
        whole, want = len(a), bits(y)
        run = weft.compile(fn)
        assert bits(fn(*[v.repeat(200) for v in args])[:whole]) == want, name
        assert [bits(run(*args)) for _ in range(3)] == [want] * 3, name


def test_whole_numbers_are_rounded_already():
    for fn in (weft.floor, weft.ceil, weft.trunc, weft.fix):
        x = weft.tensor([-3, 2**62 + 1])
        y = fn(x)
        assert y.tolist() == x.tolist() and y.data_ptr() != x.data_ptr()
        assert x.clone().floor_().tolist() == x.tolist()
    for fn in (weft.floor, weft.abs, weft.frac, weft.round):
        with pytest.raises(NotImplementedError, match="not implemented for 'Bool'"):
            fn(weft.tensor([True]))
    with pytest.raises(NotImplementedError, match="\"frac_cpu\" not implemented for 'Long'"):
        weft.frac(weft.tensor([1]))


def test_halves_are_rounded_once(rng):
    for d in (weft.float16, weft.bfloat16):
        a, b = (weft.from_numpy(rng.uniform(-4, 4, 50)).to(d) for _ in range(2))
        wide = a.double().numpy(), b.double().numpy()
        for y, want in (
            (weft.logaddexp2(a, b), np.logaddexp2(*wide)),
            (weft.sinc(a), np.sinc(wide[0])),
        ):
            once = weft.from_numpy(want).to(d)
            step = (once.abs().double() * weft.finfo(d).eps).clamp(min=1e-7)
            assert y.dtype is d and bool(((y.double() - once.double()).abs() <= step).all())
        whole = weft.tensor([1, 2, 3])
        assert weft.logaddexp2(a[:3], whole).dtype is d
        assert weft.ldexp(a[:3], whole).tolist() == (a[:3] * 2.0**whole).tolist()
        assert weft.ldexp(a[:3], whole).dtype is d


def test_complex_powers_keep_their_imaginary_part():
    z = weft.tensor([1 + 2j, -3j])
    want = np.array([1 + 2j, -3j]) ** 3
    for y in (weft.float_power(z, 3), z.float_power(weft.tensor([3, 3])), z.float_power(3.0)):
        assert y.dtype is weft.complex128
        np.testing.assert_allclose(y.numpy(), want, 1e-12)
    np.testing.assert_allclose(weft.float_power(weft.tensor([2]), 1j).numpy(), [2**1j], 1e-12)
    np.testing.assert_allclose(weft.float_power(2j, weft.tensor([2])).numpy(), [-4], 1e-12)
    assert weft.float_power(2, weft.tensor([3])).tolist() == [8.0]


def test_limits_that_a_byte_has_not():
    with pytest.raises(RuntimeError, match="unsigned type with negative limits"):
        F.hardtanh(weft.tensor([0, 3], dtype=weft.uint8))
    assert F.relu6(weft.tensor([0, 9], dtype=weft.uint8)).tolist() == [0, 6]

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


def test_the_sign_of_nan_is_zero():
    x = weft.tensor([np.nan, -np.nan, -0.0, -2.0])
    for y in (weft.sign(x), weft.sgn(x), weft.sign(x.repeat(9999))[:4], weft.compile(weft.sign)(x)):
        assert y.tolist() == [0, 0, 0, -1] and not y.signbit()[:3].any()
    x.requires_grad_()
    x.abs().sum().backward()
    assert x.grad.tolist() == [0, 0, 0, -1]


def test_numbers_as_elements_wrap_or_are_refused():
    byte = weft.ones(3, dtype=weft.uint8)
    first = weft.tensor([True, False, False])
    at = weft.tensor([0])
    ways = {
        "full": lambda v: weft.full((1,), v, dtype=weft.uint8),
        "full_like": lambda v: weft.full_like(byte, v),
        "masked_fill": lambda v: byte.masked_fill(first, v),
        "index_fill": lambda v: byte.index_fill(0, at, v),
        "pad": lambda v: F.pad(byte, (1, 1), "constant", v),
        "fill_": lambda v: byte.clone().fill_(v),
    }
    for name, way in ways.items():
        for value, want in ((-1, 255), (-255, 1), (255, 255), (2.9, 2)):
            assert way(value)[0] == want, (name, value)
        for value in (256, -257, 1e10) + ((-1.5, np.nan, np.inf) if name != "fill_" else ()):
            with pytest.raises(RuntimeError, match="without overflow"):
                way(value)
    with pytest.raises(RuntimeError, match="without overflow"):
        weft.full((2,), 3e9, dtype=weft.int32)
    assert weft.full((1,), 2**63 - 1, dtype=weft.int64).tolist() == [2**63 - 1]


def test_numbers_are_sought_as_they_are():
    x = weft.tensor([1, -1, 2], dtype=weft.int32)
    for number, want in (
        (-1.5, [0, 0, 0]),
        (1e10, [0, 0, 0]),
        (np.nan, [0, 0, 0]),
        (-1, [0, 1, 0]),
    ):
        assert weft.isin(x, number).int().tolist() == want
        assert weft.isin(x, number, invert=True).int().tolist() == [1 - v for v in want]


def test_complex_scalars_and_derivatives():
    z = weft.tensor(3 + 4j)
    assert weft.norm(z).item() == 5 and weft.norm(weft.tensor(3j), 1).item() == 3
    line = weft.tensor([1j, 2, 3 + 1j])
    assert weft.gradient(line)[0].tolist() == np.gradient(np.array([1j, 2, 3 + 1j])).tolist()


def test_trapezoids_at_places_of_another_rank(rng):
    y, x = rng.normal(size=(2, 3, 4)), np.sort(rng.normal(size=(3, 4)))
    for places, dim, axis in ((x, -1, -1), (x, 1, 1), (x[0], 2, 2)):
        wide = places if places.ndim > 1 or dim != 1 else places[:, None]
        n = y.shape[axis]
        pairs = np.take(y, range(1, n), axis) + np.take(y, range(n - 1), axis)
        want = (pairs * np.diff(np.broadcast_to(wide, y.shape), axis=axis) / 2).sum(axis)
        got = weft.trapezoid(weft.from_numpy(y), weft.from_numpy(places), dim=dim)
        np.testing.assert_allclose(got.numpy(), want, 1e-12)
    got = weft.trapezoid(weft.tensor([1.0, 2, 4]), weft.tensor([[0.0, 1], [1, 3], [2, 9]]))
    assert got.tolist() == [3, 24]  # the dim is counted in y: 0


def test_no_dim_is_no_reduction_of_any_and_all():
    x = weft.tensor([[0, 2], [3, 4]])
    for fn in (weft.any, weft.all):
        for y in (fn(x, ()), fn(x, dim=[]), fn(x.bool(), dim=(), keepdim=True)):
            assert y.tolist() == x.bool().tolist()
        assert fn(x, None).shape == ()


def test_refusals_are_of_torchs_classes():
    with pytest.raises(RuntimeError, match="more than one value is ambiguous"):
        weft.is_nonzero(weft.ones(2))
    with pytest.raises(RuntimeError, match="no values is ambiguous"):
        weft.is_nonzero(weft.ones(0))
    with pytest.raises(RuntimeError, match="step must be nonzero"):
        weft.arange(0, 5, float("nan"))
    whole = weft.ones(1, 2, 4, dtype=weft.int64)
    for call in (F.instance_norm, lambda x: F.adaptive_avg_pool1d(x, 2)):
        with pytest.raises(NotImplementedError, match="not implemented for 'Long'"):
            call(whole)
    with pytest.raises(RuntimeError, match="not finite"):
        F.interpolate(weft.ones(1, 1, 3), scale_factor=float("inf"))


def test_losses_of_nan_have_gradients_of_nan():
    x = weft.tensor([np.nan, 3.0, -0.25], requires_grad=True)
    F.smooth_l1_loss(x, weft.zeros(3), reduction="sum").backward()
    assert bool(x.grad[0].isnan()) and x.grad[1:].tolist() == [1, -0.25]
    w = weft.tensor([0.25], requires_grad=True)
    F.prelu(x.detach(), w).sum().backward()
    assert bool(w.grad.isnan())

"""clamp, NaN tests and rarer arithmetic: rules, and facts of torch 2.13 as literals."""

import math

import ml_dtypes
import numpy as np
import pytest

import weft
from tests.ops.rules import check, gradients
from weft.core.op import REGISTRY
from weft.ops import pointwise

T, nan, inf = weft.tensor, math.nan, math.inf
OPS = [k for k in REGISTRY.values() if k.__module__ == pointwise.__name__]


@pytest.mark.parametrize("kind", OPS, ids=lambda k: k.name)
def test_every_rule(kind):
    check(kind)


def same(t, wanted):
    np.testing.assert_allclose(np.asarray(t.tolist(), float), wanted, 1e-6)


def test_clamp():
    same(T([nan, 1.0, -1.0]).clamp(0, 0.5), [nan, 0.5, 0])
    same(T([1.0, 2.0]).clamp(3, 1), [1, 1])
    y = T([1, 5]).clamp(2.5)
    assert y.dtype is weft.float32 and y.tolist() == [2.5, 5]
    assert T([1, 5]).clamp(max=3).dtype is weft.int64
    same(T([1.0, 5.0]).clamp(T([2.0, nan]), T(3.0)), [2, nan])
    same(weft.clip(T([1.0, 5.0]), min=T([2.0, 0.0]), max=4), [2, 4])
    z = T([5.0])
    assert z.clamp_(max=1.0) is z and z.item() == 1
    x = T([1.0, 2.0, 3.0], requires_grad=True)
    x.clamp(1, 2).sum().backward()
    assert x.grad.tolist() == [1, 1, 0]  # the bounds belong to the inside
    gradients(lambda a, b: a.clamp(min=b), [np.array([1.0, 2.0]), np.array([1.5, 0.0])])
    with pytest.raises(RuntimeError, match="At least one of"):
        x.clamp()
    with pytest.raises(RuntimeError, match="bool"):
        T([True]).clamp(False, True)


def test_what_is_finite():
    x = T([1.0, nan, inf, -inf])
    assert x.isnan().tolist() == [False, True, False, False]
    assert x.isinf().tolist() == [False, False, True, True]
    assert x.isfinite().tolist() == [True, False, False, False]
    assert x.isposinf().tolist() == [False, False, True, False]
    assert x.isneginf().tolist() == [False, False, False, True]
    assert x.to(weft.bfloat16).isnan().tolist() == [False, True, False, False]
    assert T([1, 2]).isfinite().tolist() == [True, True] and not T([1]).isnan().any()
    assert T([-0.0, 0.0, -1.0]).signbit().tolist() == [True, False, True]
    assert T([-1, 0]).signbit().tolist() == [True, False]
    same(x.nan_to_num(), [1, 0, 3.4028235e38, -3.4028235e38])
    same(x.nan_to_num(9, 8, 7), [1, 9, 8, 7])
    same(x.to(weft.bfloat16).nan_to_num(), [1, 0, 3.3895314e38, -3.3895314e38])
    big = weft.zeros(20_000).log()  # past the size at which NumPy is used
    assert big.isinf().all() and not big.isnan().any() and big.signbit().all()


def test_special_values():
    same(weft.xlogy(T([0.0, 0.0, 1.0]), T([nan, 0.0, 0.0])), [nan, 0, -inf])
    same(weft.xlogy(T([1, 2]), T([1, 2])), [0, 1.3862944])
    same(weft.hypot(T([inf, 3e38, 0.0]), T([nan, 1e37, 0.0])), [inf, 3.0016662e38, 0])
    same(weft.logaddexp(T([-inf, inf, 1000.0]), T([-inf, inf, 1000.0])), [-inf, inf, 1000.6931])
    same(weft.heaviside(T([nan, 0.0, -1.0, 2.0]), T([0.5] * 4)), [0, 0.5, 0, 1])
    y = weft.copysign(T([1.0, 2.0, 0.0, 5.0]), T([-0.0, 3.0, -1.0, -inf]))
    assert [math.copysign(1, v) for v in y.tolist()] == [-1, 1, -1, -1]
    assert weft.copysign(T([1]), -2).tolist() == [-1.0]
    same(weft.frac(T([-1.5, 2.25])), [-0.5, 0.25])
    same(weft.fmax(T([nan, 1.0, nan]), T([1.0, nan, nan])), [1, 1, nan])
    same(weft.fmin(T([nan, 1.0]), T([1.0, 0.0])), [1, 0])
    same(weft.logit(T([0.25, 1.0])), [-1.0986123, inf])
    same(weft.logit(T([0.0, 1.0]), 0.25), [-1.0986123, 1.0986123])
    same(weft.sinc(T([0.0, 0.5])), [1, 0.6366198])
    same(weft.deg2rad(T([180])), [math.pi])
    same(weft.rad2deg(T([math.pi])), [180])
    with pytest.raises(RuntimeError, match="bool"):
        weft.positive(T([True]))


def test_comparisons_of_whole_tensors():
    a, b = T([inf, nan, 1.0]), T([inf, nan, 1.000001])
    assert a.isclose(b).tolist() == [True, False, True]
    assert a.isclose(b, equal_nan=True).all() and not a.isclose(-a)[0]
    assert T([1]).isclose(T([2]), atol=1).item() is True
    assert weft.allclose(T([1.0]), T([1.0])) is True and not T([1.0]).allclose(T([1.1]))
    assert weft.equal(T([1]), T([1.0])) and not T([1.0]).equal(T([[1.0]])) and not a.equal(a)
    with pytest.raises(RuntimeError, match="did not match"):
        T([1]).isclose(T([1.0]))


def test_half_precision_rounds_once():
    a = T([1000.0]).to(weft.float16)
    assert weft.hypot(a, a).item() == 1414.0 and weft.logaddexp(a, a).item() == 1000.5


@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_integers_divided_by_zero(name, size):
    """torch's RuntimeError however often it is called: NumPy, a kernel, the builtin."""
    a, b = weft.full((size,), 5), weft.full((size,), 2)
    zero = b.clone()
    zero[-1] = 0
    fn = getattr(weft, name)
    for call in (lambda b: fn(a, b), lambda b: getattr(a.clone(), name + "_")(b)):
        for i in range(150):
            if i % 10:
                call(b)
                continue
            with pytest.raises(RuntimeError, match="ZeroDivisionError"):
                call(zero)


def test_every_half_word_rounds_to_bfloat16_as_ieee_says():
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = ((np.arange(1 << 16, dtype=np.uint32) << 16)[:, None] + low).ravel().view(np.float32)
    for n in (x.size, 1, 15, 37):  # whole vectors and tails
        got = weft.from_numpy(x[-n:].copy()).bfloat16()
        back = got.float().numpy()
        with np.errstate(invalid="ignore"):
            want = x[-n:].astype(ml_dtypes.bfloat16).astype(np.float32)
        numbers = ~np.isnan(x[-n:])
        assert (np.isnan(back) == ~numbers).all()
        assert back[numbers].tobytes() == want[numbers].tobytes()
    y = weft.from_numpy(x).bfloat16()
    for chosen in (weft.relu(y), -y, y.abs(), weft.maximum(y, -y), y.clamp(-2, 3)):
        assert chosen.float().bfloat16().view(weft.int16).equal(chosen.view(weft.int16))


@pytest.mark.parametrize("changed", [0, 1])
def test_a_power_notices_that_its_operands_changed(changed):
    leaf = weft.tensor([1.5, 2.0], requires_grad=True)
    both = leaf * 1.0, leaf * 2.0
    y = both[0] ** both[1]
    both[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()

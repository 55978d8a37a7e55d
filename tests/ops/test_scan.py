"""Running values and what is built on sums, against NumPy; facts of torch 2.13 as literals."""

import math

import numpy as np
import pytest

import weft
from tests.ops.rules import check, gradients
from weft.ops import scan, stat

T, nan, inf = weft.tensor, math.nan, math.inf
OPS = [scan.CumSum, scan.CumProd, scan.LinearScan, scan.CumMaxIndex, scan.CumMinIndex,
       stat.VectorNorm]  # fmt: skip


@pytest.mark.parametrize("kind", OPS, ids=lambda k: k.name)
def test_every_rule(kind):
    check(kind)


def test_cumsum_and_cumprod():
    assert T([True, True]).cumsum(0).tolist() == [1, 2]
    y = T([200, 100], dtype=weft.uint8).cumsum(0)
    assert y.tolist() == [200, 300] and y.dtype is weft.int64
    assert weft.cumsum(T(2.0), 0).shape == () and T([1, 2]).cumsum(0, dtype=weft.float32)[1] == 3
    assert T([2.0, 0.0, 3.0]).cumprod(0).tolist() == [2, 0, 0]
    x = weft.arange(12.0).reshape(3, 4).t()
    np.testing.assert_array_equal(x.cumsum(1).numpy(), np.cumsum(x.numpy(), 1))
    y = T([1.0, 2.0])
    assert y.cumsum_(0) is y and y.tolist() == [1, 3]
    with pytest.raises(IndexError, match="Dimension out of range"):
        weft.ones(2).cumsum(5)
    half = weft.ones(3000).to(weft.bfloat16).cumsum(0)  # accumulates in float32
    assert half.dtype is weft.bfloat16 and half[-1].item() == 3008


def test_cumprod_gradient_past_zeros():
    # torch: [1 + 0 + 0 + 0, 2 + 6, 0, 0]
    x = T([2.0, 0.0, 3.0, 0.0], requires_grad=True)
    x.cumprod(0).sum().backward()
    assert x.grad.tolist() == [1, 8, 0, 0]
    gradients(lambda t: t.cumprod(1), [np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 1.0]])])


def test_cummax_and_cummin_take_the_latest_and_keep_nan():
    values, indices = T([1.0, 3.0, nan, 3.0, 2.0]).cummax(0)
    assert indices.tolist() == [0, 1, 2, 2, 2]
    assert values.isnan().tolist() == [False] * 2 + [True] * 3
    assert T([1.0, 3.0, 3.0, 2.0]).cummax(0).indices.tolist() == [0, 1, 2, 2]
    assert T([3, 1, 1, 2]).cummin(0)[1].tolist() == [0, 1, 2, 2]
    gradients(lambda t: t.cummax(1).values, [np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 4.0]])])


def test_logcumsumexp(rng):
    got = weft.logcumsumexp(T([1.0, 2.0, -inf, 300.0]), 0)
    np.testing.assert_allclose(got.numpy(), [1.0, 2.3132617, 2.3132617, 300.0], 1e-6)
    a = rng.normal(size=(2, 7)) * 5
    got = weft.from_numpy(a).logcumsumexp(1)
    np.testing.assert_allclose(got.numpy(), np.logaddexp.accumulate(a, 1), 1e-12)
    gradients(lambda t: t.logcumsumexp(1), [a])
    x = T([-inf, -inf, 1.0], requires_grad=True)
    x.logcumsumexp(0)[2].backward()
    assert x.grad.tolist() == [0, 0, 1]
    with pytest.raises(NotImplementedError, match="int64"):
        T([1]).logcumsumexp(0)


def test_diff():
    assert weft.diff(T([1, 2, 4]), prepend=T([0])).tolist() == [1, 1, 2]
    assert weft.diff(T([1.0, 3.0, 6.0]), n=2).tolist() == [1]
    assert weft.diff(T([True, False])).tolist() == [True]
    a = np.arange(12.0).reshape(3, 4) ** 2
    np.testing.assert_array_equal(weft.diff(weft.from_numpy(a), dim=0).numpy(), np.diff(a, axis=0))
    assert weft.diff(T([1.0]), n=3).shape == (0,)


def test_logsumexp(rng):
    a = rng.normal(size=(2, 3, 4)) * 100
    x = weft.from_numpy(a)
    got = x.logsumexp((0, 2), keepdim=True)
    np.testing.assert_allclose(
        got.numpy(),
        np.logaddexp.reduce(np.logaddexp.reduce(a, 2, keepdims=True), 0, keepdims=True),
        1e-12,
    )
    assert T([-inf, -inf]).logsumexp(0).item() == -inf and T([inf, 1.0]).logsumexp(0).item() == inf
    assert weft.zeros(0).logsumexp(0).item() == -inf
    assert T([1, 2]).logsumexp(0).dtype is weft.float32
    gradients(lambda t: t.logsumexp(1), [a / 100])


@pytest.mark.parametrize("correction", [0, 1, 2])
def test_variance(correction, rng):
    a = rng.normal(size=(3, 4, 5)) + 100
    x = weft.from_numpy(a)
    for dim in (None, 1, (0, 2)):
        got = x.var(dim, correction=correction, keepdim=True)
        np.testing.assert_allclose(got.numpy(), a.var(dim, ddof=correction, keepdims=True), 1e-10)
        s, m = weft.std_mean(x, dim, correction=correction)
        np.testing.assert_allclose(s.numpy(), a.std(dim, ddof=correction), 1e-10)
        np.testing.assert_allclose(m.numpy(), a.mean(dim), 1e-12)
    gradients(lambda t: t.std(0), [a[:, 0, :2] - 100])


def test_variance_in_torchs_older_spellings():
    x = T([1.0, 2.0, 4.0])
    assert x.var(unbiased=False).item() == x.var(False).item() == x.var(0, False).item()
    assert abs(x.var().item() - 7 / 3) < 1e-6
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert T([1.0]).var().isnan().item()
    with pytest.raises(RuntimeError, match="only support floating point"):
        T([1, 2]).var()
    z = weft.zeros(2, requires_grad=True)
    z.std().backward()
    assert z.grad.tolist() == [0, 0]


def test_norms(rng):
    a = rng.normal(size=(3, 4))
    x = weft.from_numpy(a)
    for p in (0, 1, 2, 3, 0.5, inf, -inf):
        got = weft.norm(x, p, 1)
        np.testing.assert_allclose(got.numpy(), np.linalg.norm(a, p, 1), 1e-12)
    assert weft.norm(T([3.0, 4.0])).item() == 5 and T([3.0, 0.0]).norm(0).item() == 1
    assert weft.ones(2, 3).norm(p="fro").item() == pytest.approx(6**0.5)
    assert weft.dist(T([1.0, 2.0]), T([4.0, 6.0])).item() == 5
    with pytest.raises(RuntimeError, match="Expected a floating point"):
        T([3, 4]).norm()
    for p in (2, 1, 3, inf, 0):  # torch: no NaN at zero
        z = weft.zeros(2, requires_grad=True)
        z.norm(p).backward()
        assert z.grad.tolist() == [0, 0]
    z = T([2.0, -2.0, 1.0], requires_grad=True)
    z.norm(inf).backward()
    assert z.grad.tolist() == [0.5, -0.5, 0]
    z.grad = None
    z.norm(0.5).backward()
    np.testing.assert_allclose(z.grad.numpy(), [2.7071068, -2.7071068, 3.8284271], 1e-6)
    got = weft.renorm(T([[3.0, 4.0], [0.3, 0.4]]), 2, 0, 1.0)
    np.testing.assert_allclose(got.numpy(), [[0.6, 0.8], [0.3, 0.4]], 1e-5)


def test_sums_without_nan_and_the_rest(rng):
    x = T([1.0, nan, 3.0], requires_grad=True)
    assert x.nansum().item() == 4 and x.nanmean().item() == 2
    x.nansum().backward()
    assert x.grad.tolist() == [1, 0, 1]
    assert T([[1, 0], [2, 3]]).count_nonzero((0, 1)).item() == 3
    assert weft.histc(T([1.0, 2.0, 1.0]), bins=4, min=0, max=3).tolist() == [0, 2, 1, 0]
    a = rng.normal(size=(3, 6))
    np.testing.assert_allclose(weft.cov(weft.from_numpy(a)).numpy(), np.cov(a), 1e-12)
    np.testing.assert_allclose(weft.corrcoef(weft.from_numpy(a)).numpy(), np.corrcoef(a), 1e-12)


def test_diff_of_any_order_ends():
    x = weft.tensor([1.0, 4.0, 9.0])
    assert weft.diff(x, n=2).tolist() == [2.0]
    assert weft.diff(x, n=2**31).shape == (0,) and weft.diff(x.expand(2, 3), n=7).shape == (2, 0)

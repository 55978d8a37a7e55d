"""Shapes, means and layers that were asked for before: each wish is checked all the same."""

import numpy as np
import pytest

import weft
from weft.ops import conv

F = weft.nn.functional


def test_a_size_that_only_equals_a_known_one():
    x = weft.arange(6.0)
    for _ in range(2):
        assert x.reshape(1, 6).shape == (1, 6) and x.view((6, 1)).shape == (6, 1)
        assert x.reshape(weft.Size((2, 3))).shape == (2, 3)
        assert x.view(True, 6).shape == (1, 6)
        assert x.reshape(np.int64(2), 3).shape == (2, 3)
        for wrong in ((1.0, 6), ((1.0, 6),), ("1", 6), (None,), ([1.0, 6],)):
            with pytest.raises(TypeError):
                x.reshape(*wrong)
        with pytest.raises(RuntimeError, match="invalid for input of size 6"):
            x.view(4, 2)
    y = weft.zeros(2, 3, 4)
    for _ in range(2):
        assert y.permute(2, 0, 1).shape == y.permute((2, 0, 1)).shape == (4, 2, 3)
        assert y.permute(-1, False, True).shape == (4, 2, 3)
        with pytest.raises(TypeError):
            y.permute(2.0, 0, 1)
        with pytest.raises(RuntimeError, match="duplicate"):
            y.permute(0, 0, 1)
        with pytest.raises(RuntimeError):
            y.permute(0, 1)


def test_a_view_that_needs_a_copy_is_refused_each_time():
    x = weft.zeros(4, 6)
    for _ in range(3):
        assert x.view(24).shape == (24,)
        with pytest.raises(RuntimeError, match="view size is not compatible"):
            x.t().view(24)
        assert x.t().reshape(24).shape == (24,)


@pytest.mark.parametrize("bias", [True, False])
def test_rows_of_a_linear_layer(bias):
    weft.manual_seed(0)
    x, w = weft.randn(2, 3, 4), weft.randn(5, 4)
    b = weft.randn(5) if bias else None
    want = x._a @ w._a.T + (0 if b is None else b._a)
    for _ in range(4):
        np.testing.assert_allclose(F.linear(x, w, b)._a, want, rtol=1e-5, atol=1e-5)
        with pytest.raises(RuntimeError, match="same dtype"):
            F.linear(x, w.double(), b)
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            F.linear(x, weft.randn(5, 3), b)
    swapped = x.transpose(0, 1)
    np.testing.assert_allclose(
        F.linear(swapped, w, b)._a, want.swapaxes(0, 1), rtol=1e-5, atol=1e-5
    )
    x.requires_grad_(), w.requires_grad_()
    for _ in range(3):
        g, h = weft.autograd.grad(F.linear(x, w, b).sum(), (x, w))
        np.testing.assert_allclose(
            g._a, np.broadcast_to(w.detach()._a.sum(0), x.shape), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            h._a, np.broadcast_to(x.detach()._a.sum((0, 1)), w.shape), rtol=1e-4, atol=1e-5
        )
    wide = weft.randn(2, 3, 5)  # a bias that does not fit inside the product
    got = F.linear(x.detach(), w.detach(), wide)
    np.testing.assert_allclose(
        got._a, x.detach()._a @ w.detach()._a.T + wide._a, rtol=1e-5, atol=1e-5
    )


def test_a_layer_norm_of_another_shape_than_before():
    x, w, b = weft.randn(2, 3, 4), weft.ones(4), weft.zeros(4)
    for _ in range(4):
        y = F.layer_norm(x, (4,), w, b)
        np.testing.assert_allclose(y._a.mean(-1), 0, atol=1e-6)
        with pytest.raises(RuntimeError):
            F.layer_norm(x, (3, 4), w, b)
        with pytest.raises(RuntimeError):
            F.layer_norm(x, (3,), w, b)
        with pytest.raises(TypeError, match="found element of type float at pos 0"):
            F.layer_norm(x, (4.0,), w, b)
        for wrong in ((4.0,), (True,), 4, 4.0):
            with pytest.raises(TypeError, match="must be tuple of ints"):
                F.layer_norm(x, wrong)
            with pytest.raises(TypeError, match="must be tuple of ints"):
                F.rms_norm(x, wrong)


def test_means_by_dim_and_dtype():
    x = weft.randn(3, 4)
    for _ in range(2):
        np.testing.assert_allclose(x.mean()._a, x._a.mean(), rtol=1e-6)
        np.testing.assert_allclose(x.mean(1)._a, x._a.mean(1), rtol=1e-6)
        np.testing.assert_allclose(x.mean(-1, True)._a, x._a.mean(1, keepdims=True), rtol=1e-6)
        np.testing.assert_allclose(x.mean((0, 1))._a, x._a.mean(), rtol=1e-6)
        assert x.double().mean().dtype is weft.float64
        assert weft.isnan(weft.zeros(0).mean())
        with pytest.raises(RuntimeError, match="could not infer output dtype"):
            x.long().mean()
        with pytest.raises(IndexError):
            x.mean(2)
        out = weft.empty(3)
        assert weft.mean(x, 1, out=out) is out


def test_attributes_that_are_equal_but_not_the_same():
    """0.0 and -0.0, 1.0 and 1 and True are different attributes of an op; a NaN is one."""
    from weft.ops.activation import LeakyRelu

    found = [LeakyRelu(v) for v in (0.0, -0.0, 1.0, 1, True, float("nan"))]
    assert len({id(op) for op in found}) == 6
    for v, op in zip((0.0, -0.0, 1.0, 1, True, float("nan")), found, strict=True):
        assert LeakyRelu(v) is op


def test_convolutions_asked_for_before_are_checked_all_the_same(monkeypatch):
    weft.manual_seed(0)
    x, w, b = weft.randn(1, 3, 9, 9), weft.randn(4, 3, 3, 3), weft.randn(4)
    small = weft.randn(1, 3, 3, 3)  # on which no step can be made
    asked = [
        (x, w, b, 2, 1), (x, w, b, (2, 2), (1, 1)), (x, w, None, 2, 1), (small, w, b, 2, 0),
        (small, w, b, 5, 0), (x, w, b, 5, 0),
        (x, w, b, [2, 1], [0, 1]), (x[0], w, b, 2, 1), (x.double(), w.double(), None, 2, 1),
        (x, w, b, 1, "same"), (x, weft.randn(4, 3, 2, 2), b, 2, 1),
        (x, w.permute(0, 1, 3, 2), b, 2, 1), (x.permute(0, 1, 3, 2), w, b, 2, 1),
    ]  # fmt: skip
    known = {}
    monkeypatch.setattr(conv, "_KNOWN", known)
    for given in asked * 2:
        F.conv2d(*given)
    got = [F.conv2d(*given) for given in asked]
    asked_of = [given for _, given in known.values()]
    assert (2, 1, 1, 1) in asked_of and all(s.__class__ is not list for s, *_ in asked_of)
    for y, given in zip(got, asked, strict=True):
        known.clear()
        np.testing.assert_array_equal(y.numpy(), F.conv2d(*given).numpy())
    for _ in range(3):
        F.conv2d(x, w, b, 2, 1)
        for wrong in (
            (x[:, :2], w, b), (x, w, b[:3]), (x.double(), w, b), (x, w[0], b), (x, w.double(), b)
        ):  # fmt: skip
            with pytest.raises(RuntimeError):
                F.conv2d(*wrong, 2, 1)
        for odd in (True, 1.0, (1.0, 1)):
            F.conv2d(x, w, b, 1, 1)
            with pytest.raises(TypeError):
                F.conv2d(x, w, b, odd, 1)


def test_attention_and_norms_asked_for_before_are_checked_all_the_same():
    q = weft.randn(1, 2, 4, 8)
    x, s = weft.randn(2, 3, 4, 4), weft.rand(3)
    for _ in range(4):
        y = F.scaled_dot_product_attention(q, q, q)
        np.testing.assert_array_equal(
            y.numpy(), F.scaled_dot_product_attention(q, q, q, scale=8**-0.5).numpy()
        )
        assert not weft.equal(y, F.scaled_dot_product_attention(q, q, q, is_causal=True))
        with pytest.raises(RuntimeError, match="same dtype"):
            F.scaled_dot_product_attention(q, q.double(), q)
        with pytest.raises(RuntimeError, match="do not fit"):
            F.scaled_dot_product_attention(q, q[..., :4], q)
        z = F.batch_norm(x, s, s, s, s)
        assert not weft.equal(z, F.batch_norm(x, s, s, s, s, eps=1e-2))
        with pytest.raises(RuntimeError, match="should contain 3 elements"):
            F.batch_norm(x, s, s, s[:2], s)
        with pytest.raises(ValueError, match="Expected more than 1 value"):
            F.batch_norm(x[:1, :, :1, :1], s, s, s, s, True)

"""Cross entropy of rows: values, both derivatives, what is left out, what is refused."""

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from weft.ops.cross_entropy import CrossEntropy, CrossEntropyGrad
from weft.ops.dispatch import apply

RNG = np.random.default_rng(3)


def reference(x, t, reduction, ignore, smoothing):
    """Loss and the gradient of its sum, in float64; torch's zeros where no row counts."""
    x = x.astype(np.float64)
    e = np.exp(x - x.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    kept = t != ignore
    q = np.full(x.shape, smoothing / x.shape[1])
    q[kept, t[kept]] += 1 - smoothing
    loss = -(q * np.log(p)).sum(1) * kept
    share = kept.sum() if reduction == "mean" else 1
    total = loss if reduction == "none" else loss.sum() / share
    return total, (p - q) * kept[:, None] / max(share, 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 10), (3, 1000), (2, 9001), (2, 70000)])
def test_value_and_gradient(shape, smoothing, reduction):
    x = (RNG.standard_normal(shape) * 3).astype(np.float32)
    t = RNG.integers(0, shape[1], shape[0])
    want, slope = reference(x, t, reduction, 2, smoothing)
    a = weft.tensor(x, requires_grad=True)
    given = {"reduction": reduction, "ignore_index": 2, "label_smoothing": smoothing}
    y = F.cross_entropy(a, weft.tensor(t), **given)
    y.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=5e-6, atol=2e-6)
    np.testing.assert_allclose(a.grad.numpy(), slope, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 1000), (2, 70000), (0, 4)])
def test_probabilities(shape, smoothing, reduction):
    """That need not sum to one; both operands have a gradient."""
    x = (RNG.standard_normal(shape) * 3).astype(np.float32)
    p = RNG.random(shape).astype(np.float32)
    wide = x.astype(np.float64) - x.max(1, keepdims=True)
    y = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    q = p * (1 - smoothing) + smoothing / shape[1]
    want, share = -(q * y).sum(1), 1
    if reduction != "none":
        share = shape[0] if reduction == "mean" else 1
        want = want.sum() / share if share else np.nan
    a, b = weft.tensor(x, requires_grad=True), weft.tensor(p, requires_grad=True)
    loss = F.cross_entropy(a, b, reduction=reduction, label_smoothing=smoothing)
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach().numpy(), want, rtol=5e-6, atol=2e-6)
    slope = (np.exp(y) * q.sum(1, keepdims=True) - q) / max(share, 1)
    np.testing.assert_allclose(a.grad.numpy(), slope, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(
        b.grad.numpy(), -y * (1 - smoothing) / max(share, 1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    "shape",
    [(1, 3, 1), (2, 4, 3, 7), (3, 21, 33), (2, 3, 190), (2, 600, 18), (0, 4, 3), (2, 4, 0)],
)
def test_images(shape, smoothing, reduction):
    x = (RNG.standard_normal(shape) * 3).astype(np.float32)
    t = RNG.integers(0, shape[1], (shape[0], *shape[2:]))
    rows = np.moveaxis(x, 1, -1).reshape(-1, shape[1])
    with np.errstate(invalid="ignore"):
        want, slope = reference(rows, t.ravel(), reduction, 2, smoothing)
    slope = np.moveaxis(slope.reshape(*t.shape, shape[1]), -1, 1)
    given = {"reduction": reduction, "ignore_index": 2, "label_smoothing": smoothing}
    for order in ("C", "F"):
        a = weft.from_numpy(np.array(x, order=order)).requires_grad_()
        y = F.cross_entropy(a, weft.tensor(t), **given)
        y.sum().backward()
        found = y.detach().numpy().reshape(np.shape(want))
        np.testing.assert_allclose(found, want, rtol=5e-6, atol=2e-6)
        np.testing.assert_allclose(a.grad.numpy(), slope, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 5, 33), (2, 19, 16), (1, 600, 20), (2, 2, 190)])
def test_bits_do_not_depend_on_how_images_lie_nor_on_threads(shape, dtype):
    x = weft.tensor(RNG.standard_normal(shape)).to(getattr(weft, dtype))
    t = weft.tensor(RNG.integers(0, shape[1], (shape[0], shape[2])))
    g = weft.tensor(RNG.standard_normal(t.shape)).to(x.dtype)
    settings = {"ignore": 1, "reduction": "none", "smoothing": 0.1, "classes": -2}
    across = x.movedim(1, 2).contiguous().movedim(2, 1)
    apart = weft.stack([t, t], -1)[..., 0]
    before, found = weft.get_num_threads(), []
    try:
        for threads in (1, 3):
            weft.set_num_threads(threads)
            for v in (x, across):
                for own, slope in ((t, g), (apart, weft.stack([g, g], -1)[..., 1])):
                    y = apply(CrossEntropy(**settings), v, own)
                    found.append((y, apply(CrossEntropyGrad(**settings), slope, v, own)))
    finally:
        weft.set_num_threads(before)
    for y, slope in found[1:]:
        assert weft.equal(y, found[0][0]) and weft.equal(slope, found[0][1])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weighted_classes_of_images(smoothing):
    x, w = RNG.standard_normal((2, 3, 9, 21)), RNG.random(3)
    t = RNG.integers(0, 3, (2, 9, 21))
    y = x - np.log(np.exp(x).sum(1, keepdims=True))
    q = np.moveaxis(np.eye(3)[t] * (1 - smoothing) + smoothing / 3, -1, 1) * w[:, None, None]
    kept = (t != 2)[:, None]
    share = (w[t] * (t != 2)).sum()
    a = weft.tensor(x, requires_grad=True)
    loss = F.cross_entropy(
        a, weft.tensor(t), weft.tensor(w), ignore_index=2, label_smoothing=smoothing
    )
    loss.backward()
    np.testing.assert_allclose(loss.item(), -(q * y * kept).sum() / share, rtol=1e-12)
    slope = (np.exp(y) * q.sum(1, keepdims=True) - q) * kept / share
    np.testing.assert_allclose(a.grad.numpy(), slope, rtol=1e-9, atol=1e-15)


def test_a_class_of_an_image_that_is_none():
    x, t = weft.zeros(2, 3, 70), weft.zeros(2, 70, dtype=weft.int64)
    t[1, 69] = 3
    with pytest.raises(IndexError, match=r"Target 3 is out of bounds"):
        F.cross_entropy(x, t)


def test_columns_of_a_transposed_input():
    x = RNG.standard_normal((40, 7)).astype(np.float32)
    t = RNG.integers(0, 40, 7)
    a = weft.tensor(x, requires_grad=True)
    y = F.cross_entropy(a.t(), weft.tensor(t))
    y.backward()
    want, slope = reference(x.T, t, "mean", -100, 0.0)
    np.testing.assert_allclose(y.item(), want, rtol=1e-6)
    np.testing.assert_allclose(a.grad.numpy(), slope.T, rtol=1e-5, atol=1e-7)


def test_nothing_counts():
    a = weft.ones(2, 3, requires_grad=True)
    y = F.cross_entropy(a, weft.tensor([-100, -100]))
    y.backward()
    assert np.isnan(y.item()) and a.grad.tolist() == [[0.0] * 3] * 2
    assert np.isnan(F.cross_entropy(weft.ones(0, 3), weft.zeros(0, dtype=weft.int64)).item())
    assert F.cross_entropy(weft.ones(3), weft.tensor(1), reduction="none").shape == ()


def test_infinite_and_undefined_logits():
    inf, nan = np.inf, np.nan
    x = np.float32([[1, 2, nan], [inf, 0, 1], [-inf, 0, 1], [-inf] * 3, [-inf, 0, 0], [nan, 0, 0]])
    a = weft.tensor(x, requires_grad=True)
    y = F.cross_entropy(a, weft.tensor([0, 0, 0, 1, 1, -100]), reduction="none")
    y.sum().backward()
    assert np.isnan(y.detach().numpy()[[0, 1, 3]]).all()
    np.testing.assert_allclose(y.detach().numpy()[[2, 4, 5]], [inf, np.log(2), 0.0], rtol=1e-6)
    assert np.isnan(a.grad.numpy()[[0, 1, 3]]).all()
    np.testing.assert_allclose(a.grad.numpy()[[2, 4]], [[-1, 0.268941, 0.731059], [0, -0.5, 0.5]],
                               rtol=1e-5)  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_second_derivative(soft, reduction):
    """Of f(s) = <v, gradient at x + s u>, against differences."""
    x, v, u = (RNG.standard_normal((4, 6)) for _ in range(3))
    t = weft.tensor(RNG.random((4, 6))) if soft else weft.tensor([0, 5, 2, 3])

    def slope(z):
        a = weft.tensor(z, requires_grad=True)
        given = {} if soft else {"ignore_index": 2}
        y = F.cross_entropy(a, t, reduction=reduction, label_smoothing=0.1, **given)
        (g,) = weft.autograd.grad((y**2).sum(), a, create_graph=True)
        return a, (g * weft.tensor(v)).sum()

    a, f = slope(x)
    (h,) = weft.autograd.grad(f, a)
    step = 1e-5
    want = (slope(x + step * u)[1].item() - slope(x - step * u)[1].item()) / (2 * step)
    np.testing.assert_allclose((h.numpy() * u).sum(), want, rtol=1e-6)


def test_bits_of_a_compiled_step_and_of_a_batch():
    x = weft.tensor(RNG.standard_normal((6, 33)).astype(np.float32))
    t = weft.tensor(RNG.integers(0, 33, 6))

    def loss_and_slope(x, t):
        a = x.detach().requires_grad_()
        y = F.cross_entropy(a, t, label_smoothing=0.1)
        y.backward()
        return y.detach(), a.grad

    fast = weft.compile(loss_and_slope)
    want = loss_and_slope(x, t)
    for _ in range(4):
        assert all(weft.equal(a, b) for a, b in zip(fast(x, t), want, strict=True))

    def one(row, k):
        return F.cross_entropy(row, k)

    rows = weft.func.vmap(weft.func.grad(one))(x, t)
    for i in range(6):
        a = x[i].clone().requires_grad_()
        one(a, t[i]).backward()
        assert weft.equal(rows[i], a.grad)


def test_refused():
    x = weft.zeros(2, 3)
    for bad in (3, -1, 1 << 40):
        with pytest.raises(IndexError, match=f"Target {bad} is out of bounds"):
            F.cross_entropy(x, weft.tensor([0, bad]))
    with pytest.raises(ValueError, match="batch_size"):
        F.cross_entropy(x, weft.tensor([0, 1, 2]))

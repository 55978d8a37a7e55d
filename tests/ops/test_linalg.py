"""Linear algebra: rules, gradients on matrices of the right kind, NumPy's answers, errors."""

import math

import numpy as np
import pytest

import weft
from tests.ops.rules import check, gradients
from weft.core.op import REGISTRY
from weft.ops import eigen, linalg

OPS = [k for k in REGISTRY.values() if k.__module__ in (linalg.__name__, eigen.__name__)]
L = weft.linalg


@pytest.mark.parametrize("kind", OPS, ids=lambda k: k.name)
def test_every_rule(kind):
    check(kind)


@pytest.fixture
def square(rng):
    return rng.normal(size=(2, 3, 3)) + 2 * np.eye(3)


def symmetric(t):
    return t + t.mT + 6 * weft.eye(3, dtype=t.dtype)


def test_against_numpy(square, rng):
    x = weft.from_numpy(square)
    near = lambda t, w: np.testing.assert_allclose(t.numpy(), w, 1e-9, 1e-10)
    near(L.inv(x), np.linalg.inv(square))
    near(weft.det(x), np.linalg.det(square))
    near(x.slogdet().logabsdet, np.linalg.slogdet(square)[1])
    near(L.matrix_power(x, 5), np.linalg.matrix_power(square, 5))
    near(L.matrix_power(x, -2), np.linalg.matrix_power(square, -2))
    near(L.matrix_power(x, 0), np.broadcast_to(np.eye(3), (2, 3, 3)))
    near(L.svdvals(x), np.linalg.svd(square, compute_uv=False))
    near(L.pinv(x[:, :2]), np.linalg.pinv(square[:, :2]))
    for ord in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf):
        near(L.norm(x[0], ord), np.linalg.norm(square[0], ord))
        near(L.matrix_norm(x, ord, keepdim=True), np.linalg.norm(square, ord, (1, 2), True))
    near(L.norm(x), np.linalg.norm(square.reshape(-1)))
    near(L.norm(x, 3, 1), np.linalg.norm(square, 3, 1))
    near(L.cond(x), np.linalg.cond(square))
    b = rng.normal(size=(2, 3, 4))
    near(L.solve(x, weft.from_numpy(b)), np.linalg.solve(square, b))
    near(L.solve(x, weft.from_numpy(b[..., 0].copy())), np.linalg.inv(square) @ b[..., :1] @ [1])
    got = L.solve(x, weft.from_numpy(b).mT, left=False)
    near(got, np.swapaxes(b, 1, 2) @ np.linalg.inv(square))
    near(L.solve_triangular(x, weft.from_numpy(b), upper=True), np.linalg.solve(np.triu(square), b))
    one = np.tril(square, -1) + np.eye(3)
    got = L.solve_triangular(x, weft.from_numpy(b), upper=False, unitriangular=True)
    near(got, np.linalg.solve(one, b))
    assert L.matrix_rank(weft.ones(3, 3)).item() == 1
    near(L.matrix_exp(x * 0), np.broadcast_to(np.eye(3), (2, 3, 3)))
    angle = weft.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=weft.float64)
    c, s = math.cos(2), math.sin(2)
    near(L.matrix_exp(angle), [[c, -s], [s, c]])
    near(weft.cholesky_solve(weft.from_numpy(b), L.cholesky(x @ x.mT)),
         np.linalg.solve(square @ square.swapaxes(1, 2), b))  # fmt: skip
    near(L.vander(weft.tensor([1.0, 2.0, 3.0])), np.vander([1, 2, 3], increasing=True))
    near(
        L.lstsq(x[0, :, :2], weft.from_numpy(b[0])).solution,
        np.linalg.lstsq(square[0, :, :2], b[0])[0],
    )


def test_factors_multiply_to_the_matrix(square, rng):
    tall = weft.from_numpy(rng.normal(size=(2, 4, 3)))
    for a in (tall, tall.mT, weft.from_numpy(square)):
        u, s, vh = L.svd(a, full_matrices=False)
        assert weft.allclose(u @ weft.diag_embed(s) @ vh, a, atol=1e-9)
        q, r = L.qr(a)
        assert weft.allclose(q @ r, a, atol=1e-9) and weft.allclose(r, r.triu(), atol=1e-12)
        u, _, vh = L.svd(a)
        assert u.shape[-1] == a.shape[-2] and vh.shape[-1] == a.shape[-1]
    a = symmetric(weft.from_numpy(square))
    values, v = L.eigh(a)
    assert weft.allclose(v @ weft.diag_embed(values) @ v.mT, a, atol=1e-9)
    spd = a @ a
    low = L.cholesky(spd)
    assert weft.allclose(low @ low.mT, spd, atol=1e-9) and weft.equal(low, low.tril())
    assert weft.allclose(L.cholesky(spd, upper=True), low.mT)


def test_gradients_of_functions_of_symmetric_matrices(square):
    spd = lambda t: symmetric(t) @ symmetric(t)
    gradients(lambda t: L.cholesky(spd(t)), [square], tol=1e-5)
    gradients(lambda t: L.eigvalsh(symmetric(t)), [square], tol=1e-5)
    gradients(lambda t: L.eigh(symmetric(t)).eigenvectors ** 2, [square], order=1, tol=1e-5)


def test_gradients_of_factors(rng):
    for shape in ((3, 3), (4, 2), (2, 4)):
        a = rng.normal(size=shape)
        gradients(L.svdvals, [a], tol=1e-5)
        gradients(lambda t: L.svd(t, False).U ** 2, [a], order=1, tol=1e-5)
        gradients(lambda t: L.svd(t, False).Vh ** 2, [a], order=1, tol=1e-5)
        gradients(L.pinv, [a], order=1, tol=1e-4)
        gradients(lambda t: L.matrix_norm(t, "nuc"), [a], order=1, tol=1e-5)
    a = rng.normal(size=(2, 3, 3))
    gradients(lambda t: L.qr(t).Q, [a], order=1, tol=1e-5)
    gradients(lambda t: L.qr(t).R, [a], order=1, tol=1e-5)
    gradients(weft.logdet, [a[:1] @ a[:1].swapaxes(1, 2)], tol=1e-4)


def test_determinant_of_a_singular_matrix_has_a_gradient():
    x = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])
    gradients(weft.det, [x], order=1)


def test_mistakes_are_named():
    with pytest.raises(RuntimeError, match="singular"):
        L.inv(weft.zeros(2, 2))
    with pytest.raises(RuntimeError, match="singular"):
        L.solve(weft.zeros(2, 2), weft.zeros(2))
    with pytest.raises(RuntimeError, match="not positive-definite"):
        L.cholesky(-weft.eye(2))
    with pytest.raises(RuntimeError, match="square matrices, but they are 2 by 3"):
        L.inv(weft.zeros(2, 3))
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        L.det(weft.zeros(3))
    with pytest.raises(RuntimeError, match="float32, float64 or complex"):
        L.inv(weft.eye(2).half())
    with pytest.raises(RuntimeError, match="Incompatible shapes"):
        L.solve(weft.eye(2), weft.zeros(3, 1))
    with pytest.raises(RuntimeError, match="not supported"):
        L.matrix_norm(weft.eye(2), 3)


@pytest.mark.parametrize("dtype, closeness", [("float32", 1e-6), ("float64", 1e-14)])
def test_matrix_exp_of_one_matrix_does_not_depend_on_its_batch(dtype, closeness):
    angles = np.array([1e-3, 0.5, 2.0, 40.0])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    x = weft.from_numpy((angles[:, None, None] * turn).astype(dtype))
    together = L.matrix_exp(x)
    alone = weft.stack([L.matrix_exp(m) for m in x])
    assert weft.equal(together, alone)
    c, s = np.cos(angles), np.sin(angles)
    wanted = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    off = np.abs(together.numpy() - wanted).max((1, 2))
    assert (off <= closeness * np.maximum(angles, 1)).all()
    assert L.matrix_exp(weft.full((2, 2), math.inf)).isnan().all()


def test_a_matrix_of_nan_leaves_its_batch_alone():
    good = weft.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=weft.float64)
    both = weft.stack([good * float("nan"), good]).requires_grad_()
    weft.det(both).sum().backward()
    alone = good.clone().requires_grad_()
    weft.det(alone).backward()
    assert weft.equal(both.grad[1], alone.grad) and bool(both.grad[0].isnan().all())


def test_the_gradient_of_qr_at_a_matrix_of_lesser_rank_is_no_error():
    x = weft.tensor([[[0.0], [0.0]], [[1.0], [2.0]]], dtype=weft.float64, requires_grad=True)
    weft.linalg.qr(x).Q.sum().backward()
    assert not x.grad[0].isfinite().any()
    np.testing.assert_allclose(x.grad[1].flatten().numpy(), [-2 / 5**1.5, 1 / 5**1.5], 1e-12)

"""LU, Householder and pseudo-inverse: rules, products that give the matrix back, gradients."""

import numpy as np
import pytest

import weft
from tests.ops.rules import check, gradients
from weft.core.op import REGISTRY
from weft.ops import eigen, factor

ROOMS = (factor.__name__, eigen.__name__)
OPS = [k for k in REGISTRY.values() if k.__module__ in ROOMS]
L = weft.linalg


@pytest.mark.parametrize("kind", OPS, ids=lambda k: k.name)
def test_every_rule(kind):
    check(kind)


def near(a, b):
    np.testing.assert_allclose(
        a.numpy(), b.numpy() if isinstance(b, weft.Tensor) else b, 1e-9, 1e-9
    )


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 2), (2, 4), (0, 0), (2, 0, 3)])
def test_factors_multiply_to_the_matrix(rng, shape):
    x = weft.from_numpy(rng.normal(size=shape))
    p, low, up = L.lu(x)
    near(p @ low @ up, x)
    assert bool((low.abs() <= 1 + 1e-12).all())  # pivoted: no factor exceeds 1
    q, r = L.qr(x, "complete")
    near(q @ r, x)
    near(q @ q.mT, np.broadcast_to(np.eye(shape[-2]), q.shape))
    if shape[-2] >= shape[-1] and x.numel():
        near(L.householder_product(*weft.geqrf(x)), L.qr(x).Q)


def test_solvers(rng):
    a, b = (weft.from_numpy(rng.normal(size=(2, 3, n))) for n in (3, 2))
    factors = L.lu_factor(a)
    near(a @ L.lu_solve(*factors, b), b)
    near(a.mT @ L.lu_solve(*factors, b, adjoint=True), b)
    near(L.lu_solve(*factors, b.mT, left=False) @ a, b.mT)
    near(weft.triangular_solve(b, a, upper=False).solution, L.solve(a.tril(), b))
    tall = weft.from_numpy(rng.normal(size=(5, 3)))
    got = L.lstsq(tall, tall @ b[0], driver="gelsd")
    near(got.solution, b[0])
    assert got.rank.item() == 3 and got.residuals.shape == (2,)


def test_gradients(rng):
    a = rng.normal(size=(3, 3)) + 3 * np.eye(3)
    wide = rng.normal(size=(2, 4))
    gradients(lambda t: L.lu(t).L, [a], tol=1e-5)
    gradients(lambda t: L.lu(t).U, [wide], tol=1e-5)
    gradients(lambda t: L.lu(t).L, [wide.T.copy()], tol=1e-5)
    gradients(lambda t: L.qr(t).R, [wide], order=1, tol=1e-5)
    gradients(L.pinv, [wide], tol=1e-4)


def test_rank_is_counted_from_the_tolerance():
    x = weft.diag(weft.tensor([4.0, 2.0, 1e-9]))
    assert L.matrix_rank(x).item() == 2
    assert L.matrix_rank(x, atol=3.0).item() == 1 and L.matrix_rank(x, rtol=0.6).item() == 1
    assert L.matrix_rank(weft.zeros(0, 3)).item() == 0


def test_lu_of_a_singular_matrix():
    a = weft.tensor([[[2.0, 1.0], [4.0, 3.0]], [[1.0, 2.0], [2.0, 4.0]]])
    assert L.lu_factor_ex(a).info.tolist() == [0, 2]
    for call in (lambda: L.lu_factor(a), lambda: L.lu_factor_ex(a, check_errors=True)):
        with pytest.raises(RuntimeError, match=r"\(Batch element 1\): U\[2,2\] is zero"):
            call()
    with pytest.raises(RuntimeError, match=r"lu_factor: U\[2,2\] is zero"):
        L.lu_factor(a[1])


def test_ex_functions_report_in_info_what_the_others_raise():
    a = weft.stack([2 * weft.eye(2), weft.zeros(2, 2), weft.tensor([[1.0, 2.0], [2.0, 1.0]])])
    inverse, info = L.inv_ex(a)
    assert info.tolist() == [0, 1, 0] and info.dtype is weft.int32
    assert inverse[0].tolist() == [[0.5, 0.0], [0.0, 0.5]] and inverse[1].isnan().all()
    assert weft.allclose(inverse[2] @ a[2], weft.eye(2), atol=1e-6)
    x, info = L.solve_ex(a, weft.ones(3, 2))
    assert info.tolist() == [0, 1, 0] and x[0].tolist() == [0.5, 0.5] and x[1].isnan().all()
    low, info = L.cholesky_ex(a)
    assert info.tolist() == [0, 1, 2] and weft.allclose(low[0] @ low[0].mT, a[0])
    assert L.cholesky_ex(a, upper=True).L[0].tolist() == low[0].T.tolist()
    assert L.inv_ex(weft.zeros(2, 2)).info.item() == 1 and L.inv_ex(weft.eye(2)).info.item() == 0
    assert L.inv_ex(weft.zeros(0, 2, 2)).info.shape == (0,)
    for call in (L.inv_ex, L.cholesky_ex, lambda a, **kw: L.solve_ex(a, weft.ones(3, 2), **kw)):
        with pytest.raises(L.LinAlgError, match=r"\(Batch element 1\)"):
            call(a, check_errors=True)


def test_a_good_matrix_of_a_batch_keeps_its_gradient():
    a = weft.stack([2 * weft.eye(2), weft.zeros(2, 2)]).requires_grad_()
    L.inv_ex(a).inverse[0].sum().backward()
    assert a.grad[0].tolist() == [[-0.25, -0.25], [-0.25, -0.25]]


def test_pivots_of_another_matrix():
    """They would be read as rows that are not there."""
    with pytest.raises(RuntimeError, match=r"shape \[7, 3\], got \[7, 7, 1\]"):
        weft.lu_unpack(weft.ones(7, 4, 3), weft.ones(7, 7, 1).int())

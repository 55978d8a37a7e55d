"""Draws by rejection: how gamma and Dirichlet numbers move with their parameters; bad parameters.

The references were computed once with mpmath (40 digits), as -(dF/da) / (dF/dx).
"""

import numpy as np
import pytest

import weft

GAMMA = [  # parameter, number, derivative
    (0.05, 1e-20, 9.110771373716208e-18), (0.05, 0.3, 7.684733401293825),
    (0.3, 0.2, 1.2120372612897223), (0.9, 2.5, 1.9105172080699304),
    (2, 0.3, 0.3591710794295383), (2, 6, 1.788015594690167), (7.5, 1.0, 0.3160366039734781),
    (40, 44, 1.052790316261095), (500, 430, 0.9267921162277806),
    (3000, 3001, 1.0002222148169306),
]  # fmt: skip
BETA = [  # number, its parameter, the other one, derivative / (1 - number)
    (1e-12, 0.1, 2, 2.672193020688948e-10), (0.1, 0.1, 0.1, 7.226847168400568),
    (0.9, 2, 0.1, 0.5903973166285232), (0.999999999, 3, 0.05, 0.3911300804205359),
    (0.03, 5, 150, 0.00644467222661898), (0.5, 8, 8, 0.06516797233523608),
    (0.7, 30, 9, 0.024793754292076378), (0.2, 0.5, 3, 0.4997825734966353),
]  # fmt: skip


def columns(rows):
    return [weft.tensor(c, dtype=weft.float64) for c in zip(*rows)]


def test_derivatives_are_the_implicit_ones():
    alpha, x, wanted = columns(GAMMA)
    got = weft._standard_gamma_grad(alpha, x)
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-7)
    x, alpha, beta, wanted = columns(BETA)
    got = weft._dirichlet_grad(x, alpha, alpha + beta)
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-7)  # 1 - 0.999999999 is short
    assert weft._standard_gamma_grad(alpha.float(), x.float()).dtype is weft.float32


def test_a_gamma_draw_carries_its_derivative_and_keeps_its_bits():
    weft.manual_seed(0)
    plain = weft._standard_gamma(weft.full((5, 2), 1.7))
    alpha = weft.full((5, 2), 1.7, requires_grad=True)
    weft.manual_seed(0)
    x = weft._standard_gamma(alpha)
    assert np.array_equal(x.detach().numpy(), plain.numpy())
    (x * 3).sum().backward()
    wanted = 3 * weft._standard_gamma_grad(alpha.detach(), plain)
    np.testing.assert_allclose(alpha.grad.numpy(), wanted.numpy(), rtol=1e-6)


def test_a_dirichlet_draw_moves_within_the_simplex():
    alpha = weft.tensor([[0.7, 2.0, 3.5]] * 4, dtype=weft.float64, requires_grad=True)
    x = weft._sample_dirichlet(alpha)
    np.testing.assert_allclose(x.sum(-1).tolist(), 1, rtol=1e-12)
    rows = [weft.autograd.grad(x[0, i], alpha, retain_graph=True)[0][0] for i in range(3)]
    jacobian = weft.stack(rows).numpy()
    np.testing.assert_allclose(jacobian.sum(0), 0, atol=1e-12)  # the sum of a row stays 1
    own = weft._dirichlet_grad(x, alpha, alpha.sum(-1, True).expand_as(alpha))[0]
    wanted = (own * (1 - x[0])).detach().numpy()  # an entry alone is a beta number
    np.testing.assert_allclose(np.diag(jacobian), wanted, rtol=1e-10)


def test_means_of_the_draws():
    weft.manual_seed(5)
    n = 4000
    for alpha in (0.2, 1.0, 9.0):
        x = weft._standard_gamma(weft.full((n,), alpha)).numpy()
        assert abs(x.mean() - alpha) < 5 * (alpha / n) ** 0.5 and (x > 0).all()
    for count, p in ((7.0, 0.3), (400.0, 0.9)):
        k = weft.binomial(weft.full((n,), count), weft.full((n,), p)).numpy()
        assert abs(k.mean() - count * p) < 5 * (count * p * (1 - p) / n) ** 0.5
        assert (k == np.rint(k)).all() and k.max() <= count


def test_parameters_at_the_edges():
    tiny = np.finfo(np.float32).tiny
    assert weft._standard_gamma(weft.tensor([0.0, -1.0, float("nan")])).tolist() == [tiny] * 3
    n, p = weft.tensor([0.0, 5, 5, float("nan"), 5]), weft.tensor([0.5, 0, 1, 0.5, float("nan")])
    got = weft.binomial(n, p).tolist()
    assert got[:3] == [0, 0, 5] and np.isnan(got[3:]).all()
    assert weft._standard_gamma(weft.ones(0, 3)).shape == (0, 3)
    assert weft.binomial(weft.ones(2, 0), weft.ones(2, 0)).shape == (2, 0)
    with pytest.raises(NotImplementedError, match="gamma_cpu"):
        weft._standard_gamma(weft.ones(2, dtype=weft.float16))
    with pytest.raises(ValueError, match="binomial only supports floating-point dtypes for count"):
        weft.binomial(weft.ones(2, dtype=weft.int64), weft.ones(2))
    with pytest.raises(RuntimeError, match="must have one dtype"):
        weft.binomial(weft.ones(2), weft.ones(2, dtype=weft.float64))

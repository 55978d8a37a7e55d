"""Special functions against SciPy, with rules and gradients, and at the edges."""

import numpy as np
import pytest
from scipy import special as sp

import weft
from tests.ops.rules import check, gradients
from weft.core.op import REGISTRY
from weft.ops import special

OPS = [k for k in REGISTRY.values() if k.__module__ == special.__name__]
S = weft.special
WIDE = np.concatenate([np.linspace(0.01, 8, 60), np.linspace(8, 60, 40), [300.0, 1e4]])


@pytest.mark.parametrize("kind", OPS, ids=lambda k: k.name)
def test_every_rule(kind):
    check(kind)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("i0e", sp.i0e), ("i1e", sp.i1e), ("bessel_j0", sp.j0), ("bessel_j1", sp.j1),
        ("bessel_y0", sp.y0), ("bessel_y1", sp.y1), ("scaled_modified_bessel_k0", sp.k0e),
        ("scaled_modified_bessel_k1", sp.k1e), ("modified_bessel_k0", sp.k0), ("erfcx", sp.erfcx),
        ("airy_ai", lambda x: sp.airy(x)[0]), ("ndtr", sp.ndtr), ("log_ndtr", sp.log_ndtr),
        ("spherical_bessel_j0", lambda x: sp.spherical_jn(0, x)), ("entr", sp.entr),
    ],
)  # fmt: skip
def test_of_one_argument(ours, theirs):
    signed = ours in (
        "i0e",
        "i1e",
        "bessel_j0",
        "bessel_j1",
        "erfcx",
        "airy_ai",
        "ndtr",
        "log_ndtr",
    )
    for x in (WIDE, -WIDE[:60]) if signed else (WIDE,):
        got = getattr(S, ours)(weft.from_numpy(x)).numpy()
        np.testing.assert_allclose(got, theirs(x), 1e-9, 1e-13)


def test_of_two_arguments():
    x = np.linspace(1.1, 9, 24)
    q = np.linspace(0.2, 30, 24)[::-1].copy()
    a, b = weft.from_numpy(x), weft.from_numpy(q)
    near = lambda t, w: np.testing.assert_allclose(t.numpy(), w, 1e-10, 1e-300)
    near(S.zeta(a, b), sp.zeta(x, q))
    near(S.gammainc(b, a), sp.gammainc(q, x))
    near(S.gammaincc(b, a), sp.gammaincc(q, x))
    near(S.polygamma(1, b), sp.polygamma(1, q))
    near(S.polygamma(4, b), sp.polygamma(4, q))
    near(S.multigammaln(a + 3, 3), sp.multigammaln(1.0, 1) + [sp.multigammaln(v + 3, 3) for v in x])
    n = np.arange(24) % 12
    for ours, theirs in (
        (S.chebyshev_polynomial_t, sp.eval_chebyt), (S.chebyshev_polynomial_u, sp.eval_chebyu),
        (S.hermite_polynomial_h, sp.eval_hermite), (S.hermite_polynomial_he, sp.eval_hermitenorm),
        (S.laguerre_polynomial_l, sp.eval_laguerre), (S.legendre_polynomial_p, sp.eval_legendre),
    ):  # fmt: skip
        near(ours(a, weft.from_numpy(n)), theirs(n, x))


def test_gradients(rng):
    x = rng.uniform(0.3, 3, (5,))
    for f in (S.entr, S.ndtr, S.log_ndtr, S.i0, lambda t: S.polygamma(2, t)):
        gradients(f, [x], tol=1e-5)
    gradients(S.xlog1py, [x, x[::-1].copy()], tol=1e-5)
    gradients(S.ndtri, [x / 4], tol=1e-5)
    gradients(lambda t: S.gammainc(weft.full((5,), 1.5, dtype=weft.float64), t), [x], tol=1e-5)
    gradients(lambda t: S.zeta(weft.full((5,), 2.5, dtype=weft.float64), t), [x], tol=1e-4)


def test_edges():
    inf = weft.tensor([0.0, float("inf"), float("nan")])
    assert S.entr(inf)[0] == 0 and S.entr(weft.tensor(-1.0)) == -float("inf")
    assert S.bessel_y0(inf)[0] == -float("inf") and S.bessel_j1(inf)[1] == 0
    assert S.i0(weft.zeros(0)).shape == (0,) and S.i0(weft.tensor(2)).dtype is weft.float32


def test_multigammaln_of_many_dims_is_one_sum():
    x = weft.tensor([60.5, 75.0], dtype=weft.float64, requires_grad=True)
    y = weft.mvlgamma(x, 100)
    np.testing.assert_allclose(y.tolist(), sp.multigammaln([60.5, 75.0], 100), rtol=1e-12)
    (g,) = weft.autograd.grad(y.sum(), [x])
    wanted = [sp.digamma(v - np.arange(100) / 2).sum() for v in (60.5, 75.0)]
    np.testing.assert_allclose(g.tolist(), wanted, rtol=1e-10)


def test_polygamma_past_the_largest_factorial_is_infinite():
    y = weft.polygamma(200, weft.ones(2, dtype=weft.float64))
    assert y.tolist() == [-np.inf, -np.inf]


def test_a_long_vector_is_worked_on_in_pieces():
    x = weft.linspace(-30, 30, 10_000, dtype=weft.float64)
    y = weft.special.i0e(x)
    np.testing.assert_allclose(y.numpy(), sp.i0e(x.numpy()), rtol=1e-13)
    assert weft.equal(y[4_000:5_000], weft.special.i0e(x[4_000:5_000]))
    np.testing.assert_allclose(weft.special.i1(x).numpy(), sp.i1(x.numpy()), rtol=1e-13)
    assert weft.special.i0(weft.ones(0)).shape == (0,)


@pytest.mark.parametrize("f", [weft.special.i0, weft.special.erfcx, weft.special.airy_ai])
def test_complex_numbers_are_refused(f):
    with pytest.raises(NotImplementedError, match="not implemented for 'ComplexFloat'"):
        f(weft.tensor([1j]))


@pytest.mark.parametrize("f", [weft.special.gammainc, weft.special.zeta, weft.special.xlog1py])
def test_complex_numbers_beside_others_are_refused(f):
    with pytest.raises(NotImplementedError, match="not implemented for 'ComplexFloat'"):
        f(weft.tensor([1j]), weft.tensor([1.0]))

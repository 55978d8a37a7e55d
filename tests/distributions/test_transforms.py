"""Transforms undo themselves and know their Jacobian; draws carry gradients; expand; refusals."""

import numpy as np
import pytest

import weft
from tests.fixtures.distribution_cases import cases
from weft import distributions as D
from weft.distributions import constraints

VECTOR = weft.tensor([0.3, -1.2, 0.8], dtype=weft.float64)
POSITIVE = weft.tensor([0.3, 1.2, 0.8], dtype=weft.float64)
TRANSFORMS = [
    (D.ExpTransform(), VECTOR),
    (D.PowerTransform(weft.tensor(1.7).double()), POSITIVE), (D.SigmoidTransform(), VECTOR),
    (D.SoftplusTransform(), VECTOR), (D.TanhTransform(), VECTOR),
    (D.AffineTransform(2.0, -3.0), VECTOR), (D.AffineTransform(VECTOR, POSITIVE, 1), VECTOR),
    (D.ComposeTransform([D.AffineTransform(1.0, 0.5), D.TanhTransform()]), VECTOR),
    (D.IndependentTransform(D.ExpTransform(), 1), VECTOR),
    (D.StickBreakingTransform(), VECTOR), (D.CorrCholeskyTransform(), VECTOR),
    (D.CatTransform([D.ExpTransform(), D.TanhTransform()], 0, [1, 2]), VECTOR),
    (D.StackTransform([D.ExpTransform(), D.TanhTransform(), D.SigmoidTransform()]), VECTOR),
    (D.ReshapeTransform((3,), (3, 1)), VECTOR), (D.ExpTransform().inv, POSITIVE),
    (D.CumulativeDistributionTransform(D.Normal(VECTOR, POSITIVE)), VECTOR),
]  # fmt: skip


@pytest.mark.parametrize("t, x", TRANSFORMS, ids=lambda v: str(v)[:30])
def test_a_transform_and_its_inverse_and_its_jacobian(t, x):
    y = t(x)
    np.testing.assert_allclose(t.inv(y).numpy(), x.numpy(), rtol=1e-9)
    assert tuple(t.forward_shape(x.shape)) == tuple(y.shape)
    assert tuple(t.inverse_shape(y.shape)) == tuple(x.shape)
    jacobian = weft.func.jacrev(t)(x).reshape(-1, x.numel()).numpy()
    jacobian = jacobian[np.abs(jacobian).sum(1) > 0]  # triangles have fixed zeros
    if isinstance(t, D.StickBreakingTransform):
        jacobian = jacobian[:-1]  # the last entry is what the others leave
    if isinstance(t, D.CorrCholeskyTransform):  # so is the diagonal
        jacobian = weft.func.jacrev(lambda v: t(v)[[1, 2, 2], [0, 0, 1]])(x).numpy()
    wanted = np.linalg.slogdet(jacobian)[1]
    got = t.log_abs_det_jacobian(x, y)
    np.testing.assert_allclose(got.sum().item(), wanted, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(t.inv.log_abs_det_jacobian(y, x).sum().item(), -wanted, rtol=1e-8,
                               atol=1e-12)  # fmt: skip


def test_equal_transforms_and_caches():
    assert D.AffineTransform(0, 1) == D.AffineTransform(0, 1) != D.AffineTransform(0, 2)
    assert D.ExpTransform().inv == D.ExpTransform().inv != D.ExpTransform()
    t = D.SigmoidTransform(cache_size=1)
    x = weft.tensor([40.0])
    assert t.inv(t(x)) is x and D.SigmoidTransform().inv(D.SigmoidTransform()(x)).item() != 40.0
    assert (
        repr(D.ComposeTransform([D.ExpTransform()])) == "ComposeTransform(\n    ExpTransform()\n)"
    )
    with pytest.raises(ValueError, match="different numbers of elements"):
        D.ReshapeTransform((2,), (3,))


@pytest.mark.parametrize("name", sorted(cases(weft)))
def test_expanding_repeats_the_batch(name):
    d = cases(weft)[name]
    wide = d.expand((5, *d.batch_shape))
    assert wide.batch_shape == (5, *d.batch_shape) and wide.event_shape == d.event_shape
    x = d.sample((5,))
    np.testing.assert_array_equal(wide.log_prob(x).numpy(), d.log_prob(x).numpy())
    assert wide.sample((2,)).shape == (2, 5, *d.batch_shape, *d.event_shape)


@pytest.mark.parametrize("make", [
    lambda a: D.Beta(a, a + 1), lambda a: D.StudentT(a + 2), lambda a: D.InverseGamma(a + 1, a),
    lambda a: D.Dirichlet(a), lambda a: D.FisherSnedecor(a, a + 3), lambda a: D.Weibull(a, a),
    lambda a: D.Kumaraswamy(a, a), lambda a: D.ContinuousBernoulli(a / 9),
    lambda a: D.RelaxedBernoulli(a[0], a / 9), lambda a: D.RelaxedOneHotCategorical(a[0], a),
    lambda a: D.Wishart(a[0] + 3, weft.diag(a)), lambda a: D.HalfCauchy(a), lambda a: D.Gamma(a, a),
    lambda a: D.OneHotCategoricalStraightThrough(a),
])  # fmt: skip
def test_draws_pass_gradients_to_the_parameters(make):
    a = weft.tensor([0.7, 1.5, 2.5], dtype=weft.float64, requires_grad=True)
    x = make(a).rsample((3,))
    (x * weft.arange(1.0, 1 + x.shape[-1], dtype=weft.float64)).sum().backward()
    assert np.isfinite(a.grad.numpy()).all() and a.grad.abs().sum() > 0


def test_the_gradient_of_an_expectation_by_draws():
    a = weft.full((20000,), 1.5, dtype=weft.float64, requires_grad=True)
    weft.manual_seed(1)
    D.Gamma(a, 2.0).rsample().log().mean().backward()  # d/da E ln x = psi'(a)
    wanted = weft.polygamma(1, weft.tensor(1.5, dtype=weft.float64)).item()
    assert abs(a.grad.sum().item() - wanted) < 0.03


@pytest.mark.parametrize("name", [
    "laplace", "cauchy", "gumbel", "half normal", "log normal", "weibull", "pareto",
    "kumaraswamy", "half cauchy", "continuous bernoulli", "transformed",
])  # fmt: skip
def test_cdf_and_icdf_undo_each_other(name):
    d = cases(weft)[name]
    u = weft.full(tuple(d.batch_shape), 0.3)
    np.testing.assert_allclose(d.cdf(d.icdf(u)).numpy(), 0.3, rtol=1e-5)


def test_constraints_and_refusals():
    x = weft.tensor([0.0, 0.5, 1.0])
    assert constraints.half_open_interval(0, 1).check(x).tolist() == [True, True, False]
    assert constraints.greater_than(0).check(x).tolist() == [False, True, True]
    assert constraints.less_than(1).check(x).tolist() == [True, True, False]
    assert constraints.one_hot.check(weft.eye(2)).tolist() == [True, True]
    with pytest.raises(ValueError, match="must be at least one-dimensional"):
        D.Dirichlet(weft.tensor(1.0))
    with pytest.raises(NotImplementedError, match="Inhomogeneous"):
        D.Binomial(weft.tensor([1, 2]), weft.tensor([0.5, 0.5])).entropy()
    with pytest.raises(ValueError, match="greater than ndim - 1"):
        D.Wishart(1.0, weft.eye(3))
    with pytest.raises(ValueError, match="does not equal"):
        D.MixtureSameFamily(D.Categorical(weft.ones(2)), D.Normal(weft.zeros(3), 1.0))
    with pytest.raises(NotImplementedError, match="total_count"):
        D.kl_divergence(D.Binomial(2, weft.tensor(0.5)), D.Binomial(3, weft.tensor(0.5)))
    with pytest.raises(ValueError, match="list of Transforms"):
        D.TransformedDistribution(D.Normal(0.0, 1.0), [1])

"""Distributions draw torch's numbers and give its densities, entropies, moments and divergences."""

import json
from pathlib import Path

import numpy as np
import pytest

import weft
from tests.fixtures.distribution_cases import measure
from weft import distributions as D

RECORD = json.loads(
    (Path(__file__).resolve().parents[1] / "fixtures/distributions.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def ours():
    return measure(weft)


@pytest.mark.parametrize("name", sorted(RECORD))
def test_equals_torch(ours, name):
    got, wanted = ours[name], RECORD[name]
    if name.startswith("kl "):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        return
    assert got["repr"] == wanted["repr"]
    for what in wanted:
        if what != "repr":
            assert got[what][1:] == wanted[what][1:], what
            np.testing.assert_allclose(got[what][0], wanted[what][0], 1e-5, 1e-6, err_msg=what)


def test_a_draw_depends_on_the_parameters():
    loc = weft.zeros(3, requires_grad=True)
    scale = weft.ones(3, requires_grad=True)
    weft.manual_seed(0)
    x = D.Normal(loc, scale).rsample()
    x.sum().backward()
    assert loc.grad.tolist() == [1, 1, 1]
    np.testing.assert_allclose(scale.grad.numpy(), x.detach().numpy())
    assert not D.Normal(loc, scale).sample().requires_grad


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="Expected parameter scale"):
        D.Normal(0.0, -1.0)
    for half in (D.HalfNormal, D.HalfCauchy):  # their scale is that of another distribution
        with pytest.raises(ValueError, match="Expected parameter scale"):
            half(weft.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="but not both"):
        D.Bernoulli()
    with pytest.raises(ValueError, match="within the support"):
        D.Bernoulli(0.5).log_prob(weft.tensor(0.5))
    with pytest.raises(ValueError, match="not broadcastable"):
        D.Normal(weft.zeros(3), weft.ones(3)).log_prob(weft.zeros(2))
    with pytest.raises(NotImplementedError, match="No KL"):
        D.kl_divergence(D.Normal(0.0, 1.0), D.Bernoulli(0.5))
    D.Normal(0.0, -1.0, validate_args=False)


def test_a_number_beside_a_tensor_takes_its_shape():
    assert D.FisherSnedecor(2.0, weft.tensor([3.0, 4.0])).batch_shape == (2,)
    assert D.Gamma(1.0, 2.0).batch_shape == D.Binomial(3, 0.5).batch_shape == ()


def test_what_is_made_of_a_normal_is_a_transformed_distribution():
    for d in (D.LogNormal(0.0, 1.0), D.HalfNormal(1.0)):
        assert isinstance(d, D.TransformedDistribution) and isinstance(d.base_dist, D.Normal)


def test_modes_and_supports_that_are_simple():
    half = weft.tensor([0.5, 0.25])
    assert D.Exponential(half).mode.tolist() == D.Geometric(half).mode.tolist() == [0.0, 0.0]
    assert D.Uniform(0.0, half).mode.isnan().all()
    d = D.OneHotCategorical(weft.tensor([[0.2, 0.8], [0.7, 0.3]]))
    assert d.mode.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert d.enumerate_support(False).tolist() == [[[1.0, 0.0]], [[0.0, 1.0]]]
    assert d.enumerate_support().shape == (2, 2, 2)
    with pytest.raises(ValueError, match="within the support"):
        d.log_prob(weft.ones(2))
    whole = D.Independent(D.Uniform(0.0, half), 1)
    assert whole.support.check(weft.tensor([[0.4, 0.1], [0.4, 0.3]])).tolist() == [True, False]
    with pytest.raises(ValueError, match="within the support"):
        whole.log_prob(weft.tensor([0.4, 0.3]))


def test_a_temperature_is_not_expanded():
    d = D.RelaxedOneHotCategorical(weft.tensor(0.5), weft.tensor([0.2, 0.8])).expand((3,))
    assert d.temperature.shape == () and d.sample((2,)).shape == (2, 3, 2)

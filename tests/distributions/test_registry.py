"""Constraints as classes, and the transforms that lead to them."""

from __future__ import annotations

from typing import Any

import pytest

import weft
from weft.distributions import (
    Distribution,
    Exponential,
    ExponentialFamily,
    Normal,
    biject_to,
    constraints,
    transform_to,
)
from weft.distributions.transforms import ConstraintRegistry, ExpTransform

CASES = [
    constraints.real,
    constraints.real_vector,
    constraints.positive,
    constraints.nonnegative,
    constraints.greater_than(2.0),
    constraints.less_than(-1.0),
    constraints.unit_interval,
    constraints.interval(-1.0, 3.0),
    constraints.half_open_interval(0.0, 5.0),
    constraints.simplex,
    constraints.lower_cholesky,
    constraints.positive_definite,
    constraints.independent(constraints.positive, 1),
    constraints.stack([constraints.positive, constraints.unit_interval, constraints.real]),
    constraints.cat([constraints.positive, constraints.less_than(0.0)], 0, [1, 2]),
]


@pytest.mark.parametrize("constraint", CASES, ids=repr)
@pytest.mark.parametrize("registry", [transform_to, biject_to], ids=["transform_to", "biject_to"])
def test_every_real_tensor_is_led_into_the_constraint(constraint, registry):
    weft.manual_seed(0)
    triangle = constraint in (constraints.lower_cholesky, constraints.positive_definite)
    if registry is biject_to and triangle:  # half of the matrix is lost: not one to one
        with pytest.raises(NotImplementedError, match="Cannot transform"):
            biject_to(constraint)
        return
    x = weft.randn(3, 3, dtype=weft.float64)
    y = registry(constraint)(x)
    assert constraint.check(y).all()
    if registry is biject_to:
        assert weft.allclose(biject_to(constraint).inv(y), x, atol=1e-6)


def test_what_the_constraints_refuse():
    x = weft.tensor([[1.0, 2.0], [2.0, -3.0]])
    assert constraints.symmetric.check(x) and not constraints.positive_semidefinite.check(x)
    assert constraints.square.check(weft.ones(4, 2, 3)).tolist() == [False] * 4
    assert constraints.positive_integer.check(weft.tensor([0.0, 1.0, 1.5])).tolist() == [
        False, True, False,
    ]  # fmt: skip
    parts = constraints.cat([constraints.positive, constraints.boolean], 0, [2, 1])
    assert parts.check(weft.tensor([1.0, -1.0, 0.5])).tolist() == [True, False, False]
    assert parts.is_discrete and repr(constraints.interval(upper_bound=2, lower_bound=1)) == (
        "Interval(lower_bound=1, upper_bound=2)"
    )
    with pytest.raises(TypeError, match="lower_bound"):
        constraints.interval(1)
    with pytest.raises(ValueError, match="dependent"):
        constraints.dependent.check(x)
    with pytest.raises(NotImplementedError, match="statically"):
        _ = constraints.dependent.event_dim
    assert constraints.dependent(event_dim=1).event_dim == 1


def test_registering_a_constraint_of_ones_own():
    class _Even(constraints.Constraint):
        def check(self, value):
            return value % 2 == 0

    registry = ConstraintRegistry()
    with pytest.raises(NotImplementedError, match="_Even"):
        registry(_Even())
    with pytest.raises(TypeError, match="Constraint subclass or instance"):
        registry.register(3, lambda c: ExpTransform())
    registry.register(_Even, lambda c: ExpTransform())
    assert registry(_Even()) == ExpTransform() and repr(_Even()) == "Even()"


def test_a_constraint_that_depends_on_a_parameter():
    class Shifted(Distribution):
        arg_constraints = {"low": constraints.dependent}

        def __init__(self, low, validate_args=None):
            self.low = weft.as_tensor(low)
            super().__init__(self.low.shape, validate_args=validate_args)

        @constraints.dependent_property(is_discrete=False, event_dim=0)
        def support(self) -> Any:
            return constraints.greater_than(self.low)

        def log_prob(self, value):
            self._validate_sample(value)
            return value * 0

        def expand(self, batch_shape, _instance=None):
            new: Any = self._get_checked_instance(Shifted, _instance)
            new.low = self.low.expand(batch_shape)
            Distribution.__init__(new, batch_shape, validate_args=False)
            return new

    assert constraints.is_dependent(Shifted.support) and Shifted.support.event_dim == 0
    assert Shifted(1.0).log_prob(weft.tensor(2.0)) == 0
    with pytest.raises(ValueError, match="within the support"):
        Shifted(1.0).log_prob(weft.tensor(0.5))
    assert Shifted(1.0).expand((2,)).low.shape == (2,)
    with pytest.raises(NotImplementedError, match="custom __init__"):
        Normal(0.0, 1.0)._get_checked_instance(Distribution)


def test_an_exponential_familys_entropy_comes_from_its_normalizer():
    class Rate(ExponentialFamily):  # an exponential distribution: theta = -rate, F = -log rate
        def __init__(self, rate):
            self.rate = rate
            super().__init__(rate.shape)

        @property
        def _natural_params(self):
            return (-self.rate,)

        def _log_normalizer(self, theta):
            return -(-theta).log()

    rate = weft.tensor([0.5, 2.0])
    assert weft.allclose(Rate(rate).entropy(), Exponential(rate).entropy())
    assert isinstance(Normal(0.0, 1.0), ExponentialFamily)

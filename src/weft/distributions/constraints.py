"""What a parameter or a value must be: `positive.check(x)` is a bool tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import weft


class Constraint:
    """A named test of a tensor; `event_dim` trailing dims are judged together."""

    is_discrete = False

    def __init__(self, name: str, check: Callable[[Any], Any], event_dim: int = 0) -> None:
        self.name, self.check, self.event_dim = name, check, event_dim

    def __repr__(self) -> str:
        return self.name


def _simplex(x: Any) -> Any:
    return weft.all(x >= 0, dim=-1) & ((x.sum(-1) - 1).abs() < 1e-6)


def _lower_cholesky(x: Any) -> Any:
    lower = (x.tril() == x).flatten(-2).all(-1)
    return lower & (x.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


real = Constraint("Real()", lambda x: x == x)
real_vector = Constraint("RealVector()", lambda x: (x == x).all(-1), 1)
boolean = Constraint("Boolean()", lambda x: (x == 0) | (x == 1))
positive = Constraint("GreaterThan(lower_bound=0.0)", lambda x: x > 0)
nonnegative = Constraint("GreaterThanEq(lower_bound=0.0)", lambda x: x >= 0)
nonnegative_integer = Constraint(
    "IntegerGreaterThan(lower_bound=0)", lambda x: (x % 1 == 0) & (x >= 0)
)
unit_interval = Constraint(
    "Interval(lower_bound=0.0, upper_bound=1.0)", lambda x: (x >= 0) & (x <= 1)
)
simplex = Constraint("Simplex()", _simplex, 1)
lower_cholesky = Constraint("LowerCholesky()", _lower_cholesky, 2)


def _positive_definite(x: Any) -> Any:
    symmetric = weft.isclose(x, x.mT, atol=1e-6).flatten(-2).all(-1)
    return symmetric & (weft.linalg.eigvalsh(x) > 0).all(-1)


positive_definite = Constraint("PositiveDefinite()", _positive_definite, 2)


def interval(lower: Any, upper: Any) -> Constraint:
    """lower <= x <= upper"""
    name = f"Interval(lower_bound={lower}, upper_bound={upper})"
    return Constraint(name, lambda x: (x >= lower) & (x <= upper))


def integer_interval(lower: Any, upper: Any) -> Constraint:
    """Whole numbers of lower .. upper."""
    name = f"IntegerInterval(lower_bound={lower}, upper_bound={upper})"
    return Constraint(name, lambda x: (x % 1 == 0) & (x >= lower) & (x <= upper))

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


real_matrix = Constraint(
    "IndependentConstraint(Real(), 2)", lambda x: (x == x).flatten(-2).all(-1), 2
)
lower_triangular = Constraint("LowerTriangular()", lambda x: (x.tril() == x).flatten(-2).all(-1), 2)
one_hot = Constraint("OneHot()", lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1), 1)


def _corr_cholesky(x: Any) -> Any:
    unit = ((x * x).sum(-1) - 1).abs() < weft.finfo(x.dtype).eps * x.size(-1) * 10
    return unit.all(-1) & _lower_cholesky(x)


corr_cholesky = Constraint("CorrCholesky()", _corr_cholesky, 2)


def greater_than(lower_bound: Any) -> Constraint:
    """x > lower_bound"""
    return Constraint(f"GreaterThan(lower_bound={lower_bound})", lambda x: x > lower_bound)


def greater_than_eq(lower_bound: Any) -> Constraint:
    """x >= lower_bound"""
    return Constraint(f"GreaterThanEq(lower_bound={lower_bound})", lambda x: x >= lower_bound)


def less_than(upper_bound: Any) -> Constraint:
    """x < upper_bound"""
    return Constraint(f"LessThan(upper_bound={upper_bound})", lambda x: x < upper_bound)


def half_open_interval(lower: Any, upper: Any) -> Constraint:
    """lower <= x < upper"""
    name = f"HalfOpenInterval(lower_bound={lower}, upper_bound={upper})"
    return Constraint(name, lambda x: (x >= lower) & (x < upper))


def multinomial(upper_bound: int) -> Constraint:
    """Whole numbers >= 0 whose sum is upper_bound."""
    name = f"Multinomial(upper_bound={upper_bound})"
    return Constraint(
        name, lambda x: ((x >= 0) & (x % 1 == 0)).all(-1) & (x.sum(-1) == upper_bound), 1
    )


def independent(base: Constraint, dims: int) -> Constraint:
    """`base` on every entry of the last `dims` batch dims."""
    if not dims:
        return base
    name = f"IndependentConstraint({base!r}, {dims})"
    return Constraint(name, lambda x: base.check(x).flatten(-dims).all(-1), base.event_dim + dims)


def interval(lower: Any, upper: Any) -> Constraint:
    """lower <= x <= upper"""
    name = f"Interval(lower_bound={lower}, upper_bound={upper})"
    return Constraint(name, lambda x: (x >= lower) & (x <= upper))


def integer_interval(lower: Any, upper: Any) -> Constraint:
    """Whole numbers of lower .. upper."""
    name = f"IntegerInterval(lower_bound={lower}, upper_bound={upper})"
    return Constraint(name, lambda x: (x % 1 == 0) & (x >= lower) & (x <= upper))

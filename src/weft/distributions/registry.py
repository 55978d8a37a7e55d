"""From a constraint to a transform whose values obey it: `transform_to`, `biject_to`.

`transform_to(c)(x)` lies in c for every real x, which is what an optimizer needs; `biject_to(c)` is
one to one as well, which is what a density needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.distributions import constraints as c
from weft.distributions import transforms as t

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]


class ConstraintRegistry:
    """Constraint class -> what makes the transform of one of its constraints."""

    def __init__(self) -> None:
        self._registry: dict[type, Callable[[Any], t.Transform]] = {}

    def register(self, constraint: Any, factory: Callable | None = None) -> Any:
        """Make `factory` answer for a constraint's class; a decorator without `factory`.

        TypeError for what is neither a constraint nor a class of constraints.
        """
        if factory is None:
            return lambda factory: self.register(constraint, factory)
        if isinstance(constraint, c.Constraint):
            constraint = type(constraint)
        if not isinstance(constraint, type) or not issubclass(constraint, c.Constraint):
            raise TypeError(
                "Expected constraint to be either a Constraint subclass or instance, but got "
                f"{constraint}"
            )
        self._registry[constraint] = factory
        return factory

    def __call__(self, constraint: Any) -> t.Transform:
        """The transform to a constraint; NotImplementedError where none is registered."""
        try:
            factory = self._registry[type(constraint)]
        except KeyError:
            raise NotImplementedError(
                f"Cannot transform {type(constraint).__name__} constraints"
            ) from None
        return factory(constraint)


biject_to = ConstraintRegistry()
transform_to = ConstraintRegistry()


def _to_interval(k: Any) -> t.Transform:
    low, high = k.lower_bound, k.upper_bound
    both_numbers = isinstance(low, (int, float)) and isinstance(high, (int, float))
    if both_numbers and low == 0 and high == 1:
        return t.SigmoidTransform()
    return t.ComposeTransform([t.SigmoidTransform(), t.AffineTransform(low, high - low)])


def _from_bound(bound: Any, sign: int) -> t.Transform:
    return t.ComposeTransform([t.ExpTransform(), t.AffineTransform(bound, sign)])


def _fill(registry: ConstraintRegistry, to_simplex: Any) -> None:
    factories: dict[Any, Callable[[Any], t.Transform]] = {
        c.real: lambda k: t.identity_transform,
        c.real_vector: lambda k: t.IndependentTransform(
            registry(k.base_constraint), k.reinterpreted_batch_ndims
        ),
        c.greater_than: lambda k: _from_bound(k.lower_bound, 1),
        c.greater_than_eq: lambda k: _from_bound(k.lower_bound, 1),
        c.less_than: lambda k: _from_bound(k.upper_bound, -1),
        c.interval: _to_interval,
        c.half_open_interval: _to_interval,
        c.simplex: lambda k: to_simplex(),
        c.corr_cholesky: lambda k: t.CorrCholeskyTransform(),
        c.cat: lambda k: t.CatTransform([registry(p) for p in k.cseq], k.dim, k.lengths),
        c.stack: lambda k: t.StackTransform([registry(p) for p in k.cseq], k.dim),
    }
    for constraint, factory in factories.items():
        registry.register(constraint, factory)


_fill(biject_to, t.StickBreakingTransform)
_fill(transform_to, t.SoftmaxTransform)
transform_to.register(c.lower_cholesky, lambda k: t.LowerCholeskyTransform())
transform_to.register(c.positive_definite, lambda k: t.PositiveDefiniteTransform())
transform_to.register(c.positive_semidefinite, lambda k: t.PositiveDefiniteTransform())

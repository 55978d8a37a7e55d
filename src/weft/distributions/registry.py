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


def _both(*kinds: Any) -> Callable:
    def keep(factory: Callable) -> Callable:
        for kind in kinds:
            biject_to.register(kind, factory)
            transform_to.register(kind, factory)
        return factory

    return keep


@_both(c.real)
def _to_real(constraint: Any) -> t.Transform:
    return t.identity_transform


@biject_to.register(c.real_vector)
def _biject_to_independent(constraint: Any) -> t.Transform:
    base = biject_to(constraint.base_constraint)
    return t.IndependentTransform(base, constraint.reinterpreted_batch_ndims)


@transform_to.register(c.real_vector)
def _transform_to_independent(constraint: Any) -> t.Transform:
    base = transform_to(constraint.base_constraint)
    return t.IndependentTransform(base, constraint.reinterpreted_batch_ndims)


@_both(c.positive, c.nonnegative)
def _to_positive(constraint: Any) -> t.Transform:
    return t.ExpTransform()


@_both(c.greater_than, c.greater_than_eq)
def _to_greater_than(constraint: Any) -> t.Transform:
    return t.ComposeTransform([t.ExpTransform(), t.AffineTransform(constraint.lower_bound, 1)])


@_both(c.less_than)
def _to_less_than(constraint: Any) -> t.Transform:
    return t.ComposeTransform([t.ExpTransform(), t.AffineTransform(constraint.upper_bound, -1)])


@_both(c.interval, c.half_open_interval)
def _to_interval(constraint: Any) -> t.Transform:
    low, high = constraint.lower_bound, constraint.upper_bound
    both_numbers = isinstance(low, (int, float)) and isinstance(high, (int, float))
    if both_numbers and low == 0 and high == 1:
        return t.SigmoidTransform()
    return t.ComposeTransform([t.SigmoidTransform(), t.AffineTransform(low, high - low)])


@biject_to.register(c.simplex)
def _biject_to_simplex(constraint: Any) -> t.Transform:
    return t.StickBreakingTransform()


@transform_to.register(c.simplex)
def _transform_to_simplex(constraint: Any) -> t.Transform:
    return t.SoftmaxTransform()


@_both(c.lower_cholesky)
def _to_lower_cholesky(constraint: Any) -> t.Transform:
    return t.LowerCholeskyTransform()


@_both(c.positive_definite, c.positive_semidefinite)
def _to_positive_definite(constraint: Any) -> t.Transform:
    return t.PositiveDefiniteTransform()


@_both(c.corr_cholesky)
def _to_corr_cholesky(constraint: Any) -> t.Transform:
    return t.CorrCholeskyTransform()


def _parts(registry: ConstraintRegistry) -> None:
    """cat and stack: the registry's transform of each part."""

    def cat(constraint: Any) -> t.Transform:
        parts = [registry(part) for part in constraint.cseq]
        return t.CatTransform(parts, constraint.dim, constraint.lengths)

    def stack(constraint: Any) -> t.Transform:
        return t.StackTransform([registry(part) for part in constraint.cseq], constraint.dim)

    registry.register(c.cat, cat)
    registry.register(c.stack, stack)


_parts(biject_to)
_parts(transform_to)

"""Normal and MultivariateNormal."""

from __future__ import annotations

import math
from typing import Any

import weft
from weft import Tensor
from weft.distributions import constraints
from weft.distributions.distribution import Distribution, ExponentialFamily, broadcast_all


def log_diagonal(lower: Tensor) -> Tensor:
    """Half the log determinant of L L^T."""
    return lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class LocScale(Distribution):
    """Distributions of (x - loc) / scale."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real  # type: ignore[assignment]
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.size(), validate_args=validate_args)

    @property
    def mode(self) -> Tensor:
        return self.loc


class Normal(LocScale, ExponentialFamily):
    """p(x) = exp(-(x - loc)^2 / (2 scale^2)) / (scale sqrt(2 pi))"""

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.stddev.pow(2)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with weft.no_grad():
            return weft.normal(self.loc.expand(shape), self.scale.expand(shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        eps = weft.empty(shape, dtype=self.loc.dtype).normal_()
        return self.loc + eps * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        var = self.scale**2
        log_scale = self.scale.log()
        return -((value - self.loc) ** 2) / (2 * var) - log_scale - math.log(math.sqrt(2 * math.pi))

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return 0.5 * (1 + weft.erf((value - self.loc) * self.scale.reciprocal() / math.sqrt(2)))

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * weft.erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        return 0.5 + 0.5 * math.log(2 * math.pi) + weft.log(self.scale)


class FromCholesky(Distribution):
    """One of three matrices is given; the others are made when asked for."""

    def __getattr__(self, name: str) -> Any:
        lower = self.__dict__.get("_lower")
        if lower is not None and name == "scale_tril":
            return lower
        if lower is not None and name == "covariance_matrix":
            return lower @ lower.mT
        if lower is not None and name == "precision_matrix":
            return weft.inverse(lower @ lower.mT)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def _half_log_det(self) -> Tensor:
        return log_diagonal(self._lower)


class MultivariateNormal(FromCholesky):
    """x = loc + L eps with eps standard normal and L L^T the covariance."""

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        given = [covariance_matrix, precision_matrix, scale_tril]
        if sum(g is not None for g in given) != 1:
            raise ValueError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be "
                "specified."
            )
        if scale_tril is not None:
            lower = scale_tril
        else:
            cov = covariance_matrix if precision_matrix is None else weft.inverse(precision_matrix)
            lower = weft.linalg.cholesky(cov)
        n = loc.shape[-1]
        batch = weft.broadcast_tensors(loc, lower[..., 0])[0].shape[:-1]
        self.loc = loc.expand(tuple(batch) + (n,))
        self._lower = lower.expand(tuple(batch) + (n, n))
        for name, value in zip(("covariance_matrix", "precision_matrix", "scale_tril"), given):
            if value is not None:
                setattr(self, name, value.expand(tuple(batch) + (n, n)))
        super().__init__(batch, (n,), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale_tril.pow(2).sum(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        eps = weft.empty(self._extended_shape(sample_shape), dtype=self.loc.dtype).normal_()
        return self.loc + weft.matmul(self.scale_tril, eps.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        diff = value - self.loc
        y = weft.linalg.solve_triangular(self.scale_tril, diff.unsqueeze(-1), upper=False)
        m = y.squeeze(-1).pow(2).sum(-1)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + m) - self._half_log_det()

    def entropy(self) -> Tensor:
        h = 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + self._half_log_det()
        return h if not self._batch_shape else h.expand(self._batch_shape)

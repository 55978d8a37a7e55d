"""Normal of numbers and of vectors, Uniform, Exponential, Laplace, Cauchy, Gumbel."""

from __future__ import annotations

import math
from typing import Any

import weft
from weft import Tensor
from weft.distributions import constraints
from weft.distributions.distribution import Distribution, ExponentialFamily, broadcast_all

__all__ = [
    "Cauchy", "Exponential", "Laplace", "LowRankMultivariateNormal", "MultivariateNormal",
    "Normal", "Uniform",
]  # fmt: skip

EULER = 0.57721566490153286060


def log_diagonal(lower: Tensor) -> Tensor:
    """Half the log determinant of L L^T."""
    return lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class LocScale(Distribution):
    """Distributions of (x - loc) / scale."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
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
    support = constraints.real_vector
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


class LowRankMultivariateNormal(Distribution):
    """Normal with covariance W W^T + diag(D): W = cov_factor (n, m), D = cov_diag (n,)"""

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.real_matrix,
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None
    ) -> None:
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        n = loc.shape[-1]
        if cov_factor.dim() < 2:
            raise ValueError(
                "cov_factor must be at least two-dimensional, with optional leading batch "
                "dimensions"
            )
        if cov_factor.shape[-2] != n:
            raise ValueError(f"cov_factor must be a batch of matrices with shape {n} x m")
        if cov_diag.shape[-1] != n:
            raise ValueError(f"cov_diag must be a batch of vectors with shape {loc.shape[-1:]}")
        columns = weft.broadcast_tensors(loc[..., None], cov_factor, cov_diag[..., None])
        self.cov_factor = columns[1]
        self.loc, self.cov_diag = columns[0][..., 0], columns[2][..., 0]
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.cov_factor.pow(2).sum(-1) + self.cov_diag

    @property
    def covariance_matrix(self) -> Tensor:
        return self.cov_factor @ self.cov_factor.mT + self.cov_diag.diag_embed()

    @property
    def scale_tril(self) -> Tensor:
        return weft.linalg.cholesky(self.covariance_matrix)

    @property
    def precision_matrix(self) -> Tensor:
        half = weft.linalg.solve_triangular(self._inner(), self._weighted(), upper=False)
        return self.cov_diag.reciprocal().diag_embed() - half.mT @ half

    def _weighted(self) -> Tensor:
        """W^T D^-1"""
        return self.cov_factor.mT / self.cov_diag.unsqueeze(-2)

    def _inner(self) -> Tensor:
        """The Cholesky factor of 1 + W^T D^-1 W (Woodbury's small matrix)."""
        small = self._weighted() @ self.cov_factor
        return weft.linalg.cholesky(small + weft.eye(small.shape[-1], dtype=small.dtype))

    def _log_det(self) -> Tensor:
        return 2 * log_diagonal(self._inner()) + self.cov_diag.log().sum(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        d = self.loc.dtype
        eps = weft.empty((*shape[:-1], self.cov_factor.shape[-1]), dtype=d).normal_()
        own = weft.empty(shape, dtype=d).normal_()
        shared = (self.cov_factor @ eps.unsqueeze(-1)).squeeze(-1)
        return self.loc + shared + self.cov_diag.sqrt() * own

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        apart = value - self.loc
        inner = self._weighted() @ apart.unsqueeze(-1)
        half = weft.linalg.solve_triangular(self._inner(), inner, upper=False)
        distance = (apart.pow(2) / self.cov_diag).sum(-1) - half.pow(2).sum((-2, -1))
        n = self._event_shape[0]
        return -0.5 * (n * math.log(2 * math.pi) + self._log_det() + distance)

    def entropy(self) -> Tensor:
        return 0.5 * (self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + self._log_det())


class Uniform(Distribution):
    """p(x) = 1 / (high - low) on [low, high)"""

    arg_constraints = {"low": constraints.real, "high": constraints.real}
    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast_all(low, high)
        super().__init__(self.low.size(), validate_args=validate_args)
        if self._validate_args and not bool((self.low < self.high).all()):
            raise ValueError("Uniform is not defined when low>= high")

    @property
    def support(self) -> Any:
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        return (self.high + self.low) / 2

    @property
    def mode(self) -> Tensor:
        return math.nan * self.high

    @property
    def stddev(self) -> Tensor:
        return (self.high - self.low) / 12**0.5

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low).pow(2) / 12

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = weft.rand(self._extended_shape(sample_shape), dtype=self.low.dtype)
        return self.low + u * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        inside = self.low.le(value).type_as(self.low) * self.high.gt(value).type_as(self.low)
        return weft.log(inside) - weft.log(self.high - self.low)

    def cdf(self, value: Tensor) -> Tensor:
        return ((value - self.low) / (self.high - self.low)).clamp(min=0, max=1)

    def icdf(self, value: Tensor) -> Tensor:
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        return weft.log(self.high - self.low)


class Exponential(ExponentialFamily):
    """p(x) = rate exp(-rate x), x >= 0"""

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate.reciprocal()

    @property
    def mode(self) -> Tensor:
        return weft.zeros_like(self.rate)

    @property
    def stddev(self) -> Tensor:
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:
        return self.rate.pow(-2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return weft.empty(shape, dtype=self.rate.dtype).exponential_() / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        return 1 - weft.exp(-self.rate * value)

    def icdf(self, value: Tensor) -> Tensor:
        return -weft.log1p(-value) / self.rate

    def entropy(self) -> Tensor:
        return 1.0 - weft.log(self.rate)


class Laplace(LocScale):
    """p(x) = exp(-|x - loc| / scale) / (2 scale)"""

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return 2 * self.scale.pow(2)

    @property
    def stddev(self) -> Tensor:
        return 2**0.5 * self.scale

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        least = weft.finfo(self.loc.dtype).eps - 1
        u = weft.empty(shape, dtype=self.loc.dtype).uniform_(least, 1)
        return self.loc - self.scale * u.sign() * weft.log1p(-u.abs())

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return -weft.log(2 * self.scale) - weft.abs(value - self.loc) / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        x = value - self.loc
        return 0.5 - 0.5 * x.sign() * weft.expm1(-x.abs() / self.scale)

    def entropy(self) -> Tensor:
        return 1 + weft.log(2 * self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        u = value - 0.5
        return self.loc - self.scale * u.sign() * weft.log1p(-2 * u.abs())


class Cauchy(LocScale):
    """p(x) = 1 / (pi scale (1 + ((x - loc) / scale)^2))"""

    @property
    def mean(self) -> Tensor:
        return weft.full_like(self.loc, float("nan"))

    @property
    def variance(self) -> Tensor:
        return weft.full_like(self.loc, float("inf"))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        eps = weft.empty(self._extended_shape(sample_shape), dtype=self.loc.dtype).cauchy_()
        return self.loc + eps * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        z = ((value - self.loc) / self.scale) ** 2
        return -math.log(math.pi) - self.scale.log() - z.log1p()

    def cdf(self, value: Tensor) -> Tensor:
        return weft.atan((value - self.loc) / self.scale) / math.pi + 0.5

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + self.scale.log()

    def icdf(self, value: Tensor) -> Tensor:
        return weft.tan(math.pi * (value - 0.5)) * self.scale + self.loc

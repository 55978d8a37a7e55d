"""Gamma and what is made of gammas: Chi2, Dirichlet, Beta, StudentT, Wishart, LKJCholesky."""

from __future__ import annotations

import math
from typing import Any

import weft
from weft import Tensor
from weft.distributions import constraints
from weft.distributions.continuous import FromCholesky
from weft.distributions.distribution import Distribution, ExponentialFamily, broadcast_all
from weft.distributions.transforms import lower_matrix
from weft.nn import functional as F

__all__ = [
    "Beta", "Chi2", "Dirichlet", "FisherSnedecor", "Gamma", "LKJCholesky", "StudentT", "Wishart",
]  # fmt: skip


class Gamma(ExponentialFamily):
    """p(x) = rate^a x^(a - 1) e^(-rate x) / Gamma(a), a the concentration"""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.rate.size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.pow(2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        x = weft._standard_gamma(self.concentration.expand(shape)) / self.rate.expand(shape)
        x.detach().clamp_(min=weft.finfo(x.dtype).tiny)  # the tape does not see it
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        value = weft.as_tensor(value, dtype=self.rate.dtype)
        self._validate_sample(value)
        a = self.concentration
        powers = weft.xlogy(a, self.rate) + weft.xlogy(a - 1, value)
        return powers - self.rate * value - weft.lgamma(a)

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return weft.special.gammainc(self.concentration, self.rate * value)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + weft.lgamma(a) + (1.0 - a) * weft.digamma(a)


class Chi2(Gamma):
    """The sum of df squares of standard normals."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        super().__init__(0.5 * df, 0.5, validate_args=validate_args)

    @property
    def df(self) -> Tensor:
        return self.concentration * 2


class Dirichlet(ExponentialFamily):
    """p(x) in proportion to the product of x_i^(concentration_i - 1), on the simplex"""

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if concentration.dim() < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        shape = concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        less = (self.concentration - 1).clamp(min=0.0)
        mode = less / less.sum(-1, True)
        corner = (self.concentration < 1).all(-1, True)
        return weft.where(corner, F.one_hot(mode.argmax(-1), mode.shape[-1]).to(mode), mode)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.pow(2) * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return weft._sample_dirichlet(self.concentration.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        a = self.concentration
        return weft.xlogy(a - 1.0, value).sum(-1) + weft.lgamma(a.sum(-1)) - weft.lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        a = self.concentration
        k, total = a.size(-1), a.sum(-1)
        log_beta = weft.lgamma(a).sum(-1) - weft.lgamma(total)
        inner = ((a - 1.0) * weft.digamma(a)).sum(-1)
        return log_beta - (k - total) * weft.digamma(total) - inner


class Beta(ExponentialFamily):
    """p(x) in proportion to x^(concentration1 - 1) (1 - x)^(concentration0 - 1) on (0, 1)"""

    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        both = weft.stack(broadcast_all(concentration1, concentration0), -1)
        self._dirichlet = Dirichlet(both, validate_args=validate_args)
        super().__init__(self._dirichlet.batch_shape, validate_args=validate_args)

    @property
    def concentration1(self) -> Tensor:
        return self._dirichlet.concentration[..., 0]

    @property
    def concentration0(self) -> Tensor:
        return self._dirichlet.concentration[..., 1]

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        return self._dirichlet.mode[..., 0]

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.pow(2) * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._dirichlet.rsample(sample_shape).select(-1, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self._dirichlet.log_prob(weft.stack([value, 1.0 - value], -1))

    def entropy(self) -> Tensor:
        return self._dirichlet.entropy()


class StudentT(Distribution):
    """loc + scale z / sqrt(c / df), z standard normal, c Chi2(df)"""

    arg_constraints = {
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real
    has_rsample = True

    def __init__(
        self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = Chi2(self.df)
        super().__init__(self.df.size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return weft.where(self.df <= 1, math.nan, self.loc)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        df = self.df
        finite = self.scale.pow(2) * df / (df - 2)
        return weft.where(df > 2, finite, weft.where(df > 1, math.inf, df * math.nan))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        z = weft.empty(self._extended_shape(sample_shape), dtype=self.df.dtype).normal_()
        c = self._chi2.rsample(sample_shape)
        return self.loc + self.scale * (z * weft.rsqrt(c / self.df))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        y, half = (value - self.loc) / self.scale, 0.5 * self.df
        log_z = (
            self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi)
            + weft.lgamma(half) - weft.lgamma(half + 0.5)
        )  # fmt: skip
        return -(half + 0.5) * weft.log1p(y**2.0 / self.df) - log_z

    def entropy(self) -> Tensor:
        half = 0.5 * self.df
        log_beta = weft.lgamma(half) + math.lgamma(0.5) - weft.lgamma(half + 0.5)
        slope = weft.digamma(half + 0.5) - weft.digamma(half)
        return self.scale.log() + (half + 0.5) * slope + 0.5 * self.df.log() + log_beta


class FisherSnedecor(Distribution):
    """The quotient of a Chi2(df1) / df1 and a Chi2(df2) / df2."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast_all(df1, df2)
        self._gamma1 = Gamma(self.df1 * 0.5, self.df1)
        self._gamma2 = Gamma(self.df2 * 0.5, self.df2)
        super().__init__(self.df1.size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return weft.where(self.df2 <= 2, math.nan, self.df2 / (self.df2 - 2))

    @property
    def mode(self) -> Tensor:
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return weft.where(self.df1 <= 2, math.nan, mode)

    @property
    def variance(self) -> Tensor:
        a, b = self.df1, self.df2
        finite = 2 * b.pow(2) * (a + b - 2) / (a * (b - 2).pow(2) * (b - 4))
        return weft.where(b <= 4, math.nan, finite)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        above = self._gamma1.rsample(sample_shape)
        below = self._gamma2.rsample(sample_shape)
        tiny = weft.finfo(below.dtype).tiny
        return (above / below.clamp(min=tiny)).clamp(min=tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        a, b, ratio = self.df1 * 0.5, self.df2 * 0.5, self.df1 / self.df2
        log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
        powers = a * ratio.log() + (a - 1) * weft.log(value)
        return powers - (a + b) * weft.log1p(ratio * value) - log_beta


class Wishart(FromCholesky, ExponentialFamily):
    """X = L A A^T L^T, A lower triangular: roots of Chi2(df - i) on the diagonal, normals below.

    (Bartlett 1933)
    """

    arg_constraints = {
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.positive_definite
    has_rsample = True

    def __init__(
        self, df: Any, covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None, scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        named = {
            "covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }  # fmt: skip
        given = {k: v for k, v in named.items() if v is not None}
        if len(given) != 1:
            raise AssertionError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be "
                "specified."
            )
        ((name, matrix),) = given.items()
        if matrix.dim() < 2:
            raise ValueError(
                "scale_tril must be at least two-dimensional, with optional leading batch "
                "dimensions"
            )
        df = weft.as_tensor(df, dtype=matrix.dtype)
        batch = weft.broadcast_shapes(matrix.shape[:-2], df.shape)
        n = matrix.shape[-1]
        self.df = df.expand(batch)
        if bool((self.df <= n - 1).any()):
            raise ValueError(f"Value of df={df} expected to be greater than ndim - 1 = {n - 1}.")
        matrix = matrix.expand((*batch, n, n))
        self.__dict__[name] = matrix
        if name == "precision_matrix":
            matrix = weft.inverse(matrix)
        self._lower = matrix if name == "scale_tril" else weft.linalg.cholesky(matrix)
        self.arg_constraints = {**self.arg_constraints, "df": constraints.greater_than(n - 1)}
        steps = weft.arange(n, dtype=matrix.dtype)
        self._chi2 = Chi2(self.df.unsqueeze(-1) - steps)
        super().__init__(batch, (n, n), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.df[..., None, None] * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        factor = self.df - self._event_shape[0] - 1
        return weft.where(factor > 0, factor, math.nan)[..., None, None] * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        v = self.covariance_matrix
        diagonal = v.diagonal(dim1=-2, dim2=-1)
        outer = diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)
        return self.df[..., None, None] * (v.pow(2) + outer)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The second of two draws: torch takes a regular first one for singular, and draws anew."""
        self._bartlett(sample_shape)
        return self._bartlett(sample_shape)

    def _bartlett(self, sample_shape: Any) -> Tensor:
        n = self._event_shape[0]
        roots = self._chi2.rsample(sample_shape).sqrt()
        roots = roots.clamp(min=weft.finfo(roots.dtype).eps)
        below = weft.randn((*roots.shape[:-1], n * (n - 1) // 2), dtype=roots.dtype)
        noise = lower_matrix(below) + roots.diag_embed()
        lower = self._lower @ noise
        return lower @ lower.mT

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        df, n = self.df, self._event_shape[0]
        scale = n * math.log(2.0) / 2 + self._half_log_det()
        log_det = weft.linalg.slogdet(value)[1]
        trace = weft.linalg.solve(self.covariance_matrix, value)
        trace = trace.diagonal(dim1=-2, dim2=-1).sum(-1)
        spread = (df - n - 1) / 2 * log_det - trace / 2
        return spread - df * scale - weft.mvlgamma(df / 2, n)

    def entropy(self) -> Tensor:
        df, n = self.df, self._event_shape[0]
        scale = n * math.log(2.0) / 2 + self._half_log_det()
        steps = weft.arange(n, dtype=df.dtype) / 2
        slope = weft.digamma(df.unsqueeze(-1) / 2 - steps).sum(-1)
        half = weft.mvlgamma(df / 2, n) - (df - n - 1) / 2 * slope
        return (n + 1) * scale + half + df * n / 2


class LKJCholesky(Distribution):
    """Cholesky factors of correlation matrices, p in proportion to det^(concentration - 1), by the
    onion method.  (Lewandowski, Kurowicka and Joe 2009)
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(
        self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        if dim < 2:
            raise ValueError(
                "Expected dim to be an integer greater than or equal to 2. Found dim=" + f"{dim}."
            )
        self.dim = dim
        (self.concentration,) = broadcast_all(concentration)
        before = weft.arange(-1, dim - 1, dtype=self.concentration.dtype).clamp(min=0)
        marginal = self.concentration + 0.5 * (dim - 2)
        self._beta = Beta(before + 0.5, marginal.unsqueeze(-1) - 0.5 * before)
        super().__init__(self.concentration.size(), (dim, dim), validate_args=validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with weft.no_grad():
            length = self._beta.sample(sample_shape).unsqueeze(-1)
            z = weft.randn(self._extended_shape(sample_shape), dtype=length.dtype).tril(-1)
            norm = z.norm(dim=-1, keepdim=True)
            w = length.sqrt() * weft.where(norm > 0, z / norm, 0.0)  # the first row is empty
            tiny = weft.finfo(w.dtype).tiny
            return w + (1 - (w**2).sum(-1)).clamp(min=tiny).sqrt().diag_embed()

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        n, c = self.dim, self.concentration
        diagonal = value.diagonal(dim1=-1, dim2=-2)[..., 1:]
        order = 2 * (c - 1).unsqueeze(-1) + n - weft.arange(2, n + 1)
        density = (order * diagonal.log()).sum(-1)
        alpha = c + 0.5 * (n - 1)
        volume = 0.5 * (n - 1) * math.log(math.pi) + weft.mvlgamma(alpha - 0.5, n - 1)
        return density - (volume - weft.lgamma(alpha) * (n - 1))

"""Distributions of vectors and matrices: LowRankMultivariateNormal, Wishart, LKJCholesky."""

from __future__ import annotations

import math
from typing import Any

import weft
from weft import Tensor
from weft.distributions import constraints
from weft.distributions.distribution import Distribution, ExponentialFamily, broadcast_all
from weft.distributions.gamma import Beta, Chi2
from weft.distributions.normal import FromCholesky, log_diagonal
from weft.distributions.transforms import lower_matrix


class LowRankMultivariateNormal(Distribution):
    """Normal with covariance W W^T + diag(D): W = cov_factor (n, m), D = cov_diag (n,)"""

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.real_matrix,
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector  # type: ignore[assignment]
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


class Wishart(FromCholesky, ExponentialFamily):
    """X = L A A^T L^T, A lower triangular: roots of Chi2(df - i) on the diagonal, normals below.

    (Bartlett 1933)
    """

    arg_constraints = {
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.positive_definite  # type: ignore[assignment]
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
    support = constraints.corr_cholesky  # type: ignore[assignment]

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

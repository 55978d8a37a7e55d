"""Probability distributions with torch's draws, as `torch.distributions`."""

from weft.distributions import constraints, kl
from weft.distributions.continuous import (
    Cauchy,
    Exponential,
    Gumbel,
    HalfNormal,
    Laplace,
    LogNormal,
    Uniform,
)
from weft.distributions.discrete import Bernoulli, Categorical, Geometric, OneHotCategorical
from weft.distributions.distribution import Distribution, Independent
from weft.distributions.kl import kl_divergence, register_kl
from weft.distributions.normal import MultivariateNormal, Normal

__all__ = [
    "Bernoulli",
    "Categorical",
    "Cauchy",
    "Distribution",
    "Exponential",
    "Geometric",
    "Gumbel",
    "HalfNormal",
    "Independent",
    "Laplace",
    "LogNormal",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "Uniform",
    "constraints",
    "kl",
    "kl_divergence",
    "register_kl",
]

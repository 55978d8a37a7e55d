"""MixtureSameFamily, VonMises, ContinuousBernoulli."""

from __future__ import annotations

import math
from typing import Any

import weft
from weft import Tensor
from weft.distributions import constraints
from weft.distributions.discrete import Categorical, _ProbsOrLogits, clamp_probs
from weft.distributions.distribution import Distribution, ExponentialFamily, broadcast_all
from weft.nn import functional as F

__all__ = ["ContinuousBernoulli", "MixtureSameFamily", "VonMises"]


class MixtureSameFamily(Distribution):
    """p(x) = sum_k weight_k p_k(x); the components are the last batch dim of one distribution."""

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(
                " The Mixture distribution needs to be an  instance of "
                "torch.distributions.Categorical"
            )
        if not isinstance(component_distribution, Distribution):
            raise ValueError(
                "The Component distribution needs to be an instance of "
                "torch.distributions.Distribution"
            )
        batch = component_distribution.batch_shape[:-1]
        for m, c in zip(reversed(mixture_distribution.batch_shape), reversed(batch)):
            if m != 1 and c != 1 and m != c:
                raise ValueError(
                    f"`mixture_distribution.batch_shape` ({mixture_distribution.batch_shape}) is "
                    f"not compatible with `component_distribution.batch_shape`({batch})"
                )
        k, parts = mixture_distribution._num_events, component_distribution.batch_shape[-1]
        if k != parts:
            raise ValueError(
                f"`mixture_distribution component` ({k}) does not equal "
                f"`component_distribution.batch_shape[-1]` ({parts})"
            )
        self.mixture_distribution = mixture_distribution
        self.component_distribution = component_distribution
        events = component_distribution.event_shape
        super().__init__(batch, events, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MixtureSameFamily:
        k = self.mixture_distribution._num_events
        parts = self.component_distribution.expand((*batch_shape, k))
        weights = self.mixture_distribution.expand(batch_shape)
        return MixtureSameFamily(weights, parts, validate_args=self._validate_args)

    @property
    def support(self) -> Any:
        return self.component_distribution.support

    def _weights(self) -> Tensor:
        probs = self.mixture_distribution.probs
        return probs.reshape(*probs.shape, *(1,) * len(self._event_shape))

    def _over(self) -> int:
        return -1 - len(self._event_shape)

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self.component_distribution.mean).sum(self._over())

    @property
    def variance(self) -> Tensor:
        apart = self.component_distribution.mean - self.mean.unsqueeze(self._over())
        return (self._weights() * (self.component_distribution.variance + apart.pow(2))).sum(
            self._over()
        )

    def cdf(self, value: Tensor) -> Tensor:
        parts = self.component_distribution.cdf(value.unsqueeze(self._over()))
        return (parts * self.mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        parts = self.component_distribution.log_prob(value.unsqueeze(self._over()))
        weights = weft.log_softmax(self.mixture_distribution.logits, -1)
        return weft.logsumexp(parts + weights, -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with weft.no_grad():
            which = self.mixture_distribution.sample(sample_shape)
            drawn = self.component_distribution.sample(sample_shape)
            dim = len(tuple(sample_shape)) + len(self._batch_shape)
            events = self._event_shape
            places = which.reshape(*which.shape, *(1,) * (len(events) + 1))
            places = places.expand((*drawn.shape[:dim], 1, *events))
            return drawn.gather(dim, places).squeeze(dim)

    def __repr__(self) -> str:
        inside = f"\n  {self.mixture_distribution},\n  {self.component_distribution}"
        return f"MixtureSameFamily({inside})"


def _log_i0(x: Tensor) -> Tensor:
    return weft.special.i0e(x).log() + x


class VonMises(Distribution):
    """p(x) = exp(concentration cos(x - loc)) / (2 pi I0(concentration)) on the circle"""

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """1 - I1 / I0 (circular)"""
        k = self.concentration
        return 1 - weft.special.i1e(k) / weft.special.i0e(k)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        k = self.concentration
        return k * weft.cos(value - self.loc) - math.log(2 * math.pi) - _log_i0(k)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """By rejection from a wrapped Cauchy, in float64.  (Best and Fisher 1979)"""
        shape = self._extended_shape(sample_shape)
        with weft.no_grad():
            loc, k = self.loc.double(), self.concentration.double()
            tau = 1 + (1 + 4 * k**2).sqrt()
            rho = (tau - (2 * tau).sqrt()) / (2 * k)
            r = weft.where(k < 1e-5, 1 / k + k, (1 + rho**2) / (2 * rho))
            x, done = weft.zeros(shape, dtype=weft.float64), weft.zeros(shape, dtype=weft.bool)
            while not bool(done.all()):
                u1, u2, u3 = weft.rand((3, *shape), dtype=weft.float64).unbind()
                z = weft.cos(math.pi * u1)
                f = (1 + r * z) / (r + z)
                c = k * (r - f)
                accept = (c * (2 - c) - u2 > 0) | ((c / u2).log() + 1 - c >= 0)
                x = weft.where(
                    accept, (u3 - 0.5).sign() * f.acos(), x
                )  # torch, too, keeps the last
                done = done | accept
            return ((x + math.pi + loc) % (2 * math.pi) - math.pi).to(self.loc.dtype)


class ContinuousBernoulli(_ProbsOrLogits, ExponentialFamily):
    """p(x) = C probs^x (1 - probs)^(1 - x) on [0, 1], log C = log(2 atanh(1 - 2p) / (1 - 2p)).

    Near probs = 1/2 (within `lims`) series replace the quotients.  (Loaiza-Ganem, Cunningham 2019)
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _binary = True

    def __init__(
        self, probs: Any = None, logits: Any = None, lims: tuple = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._take(probs, logits)
        if self._by_probs:
            self.probs = clamp_probs(self.probs)
        self._lims = lims
        super().__init__(self._param.size(), validate_args=validate_args)

    def _far(self) -> Tensor:
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _cut(self) -> Tensor:
        return weft.where(self._far(), self.probs, self._lims[0])

    def _log_c(self) -> Tensor:
        p, x = self._cut(), (self.probs - 0.5).pow(2)
        exact = weft.log((weft.log1p(-p) - p.log()).abs()) - (1 - 2 * p).abs().log()
        return weft.where(self._far(), exact, math.log(2.0) + (4 / 3 + 104 / 45 * x) * x)

    @property
    def mean(self) -> Tensor:
        p, x = self._cut(), self.probs - 0.5
        exact = p / (2.0 * p - 1.0) + 1.0 / (weft.log1p(-p) - p.log())
        return weft.where(self._far(), exact, 0.5 + (1 / 3 + 16 / 45 * x.pow(2)) * x)

    @property
    def variance(self) -> Tensor:
        p, x = self._cut(), (self.probs - 0.5).pow(2)
        exact = p * (p - 1) / (1 - 2 * p).pow(2) + 1 / (weft.log1p(-p) - p.log()).pow(2)
        return weft.where(self._far(), exact, 1 / 12 - (1 / 15 - 128 / 945 * x) * x)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(weft.rand(self._extended_shape(sample_shape), dtype=self.probs.dtype))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        entropy = F.binary_cross_entropy_with_logits(logits, value, reduction="none")
        return self._log_c() - entropy

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        p = self._cut()
        exact = (p.pow(value) * (1 - p).pow(1 - value) + p - 1) / (2 * p - 1)
        inside = weft.where(self._far(), exact, value)
        return weft.where(value <= 0, 0.0, weft.where(value >= 1, 1.0, inside))

    def icdf(self, value: Tensor) -> Tensor:
        p = self._cut()
        exact = weft.log1p(-p + value * (2 * p - 1)) - weft.log1p(-p)
        return weft.where(self._far(), exact / (p.log() - weft.log1p(-p)), value)

    def entropy(self) -> Tensor:
        none = weft.log1p(-self.probs)
        return self.mean * (none - self.probs.log()) - self._log_c() - none

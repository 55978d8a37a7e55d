"""KL(p || q) by a table of pairs of classes; the nearest pair of base classes is taken.

Most pairs are -H(p) - E_p log q, with three expectations of p.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import weft
from weft import Tensor
from weft.distributions.continuous import (
    EULER,
    Cauchy,
    Exponential,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    Uniform,
)
from weft.distributions.discrete import (
    Bernoulli,
    Binomial,
    Categorical,
    Geometric,
    OneHotCategorical,
    Poisson,
)
from weft.distributions.distribution import Distribution, Independent, sum_rightmost
from weft.distributions.gamma import Beta, Dirichlet, Gamma
from weft.distributions.mixture import ContinuousBernoulli
from weft.distributions.transformed import Gumbel, Pareto, TransformedDistribution
from weft.nn import functional as F

__all__ = ["kl_divergence", "register_kl"]

_RULES: dict[tuple[type, type], Callable] = {}


def register_kl(type_p: type, type_q: type) -> Callable:
    """Decorates the rule of a pair of classes."""

    def keep(rule: Callable) -> Callable:
        _RULES[type_p, type_q] = rule
        return rule

    return keep


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """Integral of p log(p / q), one number a batch entry; NotImplementedError without a rule."""
    for a in type(p).__mro__:
        for b in type(q).__mro__:
            rule = _RULES.get((a, b))
            if rule is not None:
                return rule(p, q)
    raise NotImplementedError(
        f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}"
    )


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Tensor:
    t1 = p.probs * (F.softplus(-q.logits) - F.softplus(-p.logits))
    t2 = (1 - p.probs) * (F.softplus(q.logits) - F.softplus(p.logits))
    return t1 + t2


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Tensor:
    t = p.probs * (p.logits - q.logits)
    t = weft.where((q.probs == 0).expand_as(t), float("inf"), t)
    t = weft.where((p.probs == 0).expand_as(t), 0.0, t)
    return t.sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    t1 = ((p.loc - q.loc) / q.scale).pow(2)
    return 0.5 * (ratio + t1 - 1 - ratio.log())


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Tensor:
    result = ((q.high - q.low) / (p.high - p.low)).log()
    return weft.where((q.low > p.low) | (q.high < p.high), float("inf"), result)


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Tensor:
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Tensor:
    ratio = p.scale / q.scale
    apart = (p.loc - q.loc).abs()
    return -ratio.log() + apart / q.scale + ratio * weft.exp(-apart / p.scale) - 1


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: Any, q: Any) -> Tensor:
    half = q._half_log_det() - p._half_log_det()
    spread = weft.linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    away = weft.linalg.solve_triangular(q.scale_tril, (q.loc - p.loc).unsqueeze(-1), upper=False)
    t2 = spread.pow(2).sum((-2, -1))
    t3 = away.squeeze(-1).pow(2).sum(-1)
    return half + 0.5 * (t2 + t3 - p.event_shape[0])


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


# ------------------------------------------------------------------------- expectations of p


def _x_log_x(x: Any) -> Any:
    return weft.xlogy(x, x)


_LOG: dict[type, Callable[[Any], Any]] = {  # E ln x
    Beta: lambda p: p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma(),
    Exponential: lambda p: -EULER - p.rate.log(),
    Gamma: lambda p: p.concentration.digamma() - p.rate.log(),
    Pareto: lambda p: p.alpha.reciprocal() + p.scale.log(),
    Uniform: lambda p: (_x_log_x(p.high) - _x_log_x(p.low)) / (p.high - p.low) - 1,
}
_LOG_REST: dict[type, Callable[[Any], Any]] = {  # E ln(1 - x)
    Uniform: lambda p: (_x_log_x(1 - p.low) - _x_log_x(1 - p.high)) / (p.high - p.low) - 1,
}
_DECAY: dict[type, Callable[[Any, Any], Any]] = {  # E e^(-t x)
    Exponential: lambda p, t: p.rate / (p.rate + t),
    Gamma: lambda p, t: (1 + t / p.rate).pow(-p.concentration),
    Gumbel: lambda p, t: weft.exp(weft.lgamma(1 + p.scale * t) - t * p.loc),
    Normal: lambda p, t: weft.exp((p.scale * t).pow(2) / 2 - t * p.loc),
    Uniform: lambda p, t: ((-t * p.low).exp() - (-t * p.high).exp()) / (t * (p.high - p.low)),
}


# ----------------------------------------------------------------------------- E_p log q


def _to_exponential(p: Any, q: Any) -> Tensor:
    return q.rate.log() - q.rate * p.mean


def _to_gamma(p: Any, q: Any) -> Tensor:
    a = q.concentration
    return a * q.rate.log() - a.lgamma() + (a - 1) * _LOG[type(p)](p) - q.rate * p.mean


def _to_normal(p: Any, q: Any) -> Tensor:
    square = (p.variance + (p.mean - q.loc).pow(2)) / q.scale.pow(2)
    return -0.5 * square - q.scale.log() - 0.5 * math.log(2 * math.pi)


def _to_gumbel(p: Any, q: Any) -> Tensor:
    t = q.scale.reciprocal()
    return -q.scale.log() - (p.mean - q.loc) * t - weft.exp(q.loc * t) * _DECAY[type(p)](p, t)


def _to_continuous_bernoulli(p: Any, q: Any) -> Tensor:
    return p.mean * q.logits + weft.log1p(-q.probs) + q._log_c()


def _to_uniform(p: Any, q: Any) -> Tensor:
    return -(q.high - q.low).log()


def _to_pareto(p: Any, q: Any) -> Tensor:
    return q.alpha.log() + q.alpha * q.scale.log() - (q.alpha + 1) * _LOG[type(p)](p)


def _to_beta(p: Any, q: Any) -> Tensor:
    a, b = q.concentration1, q.concentration0
    log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
    return (a - 1) * _LOG[type(p)](p) + (b - 1) * _LOG_REST[type(p)](p) - log_beta


def _never(p: Any, q: Any) -> Any:
    return False


def _below_0(p: Any, q: Any) -> Any:
    return p.low < 0


def _outside_unit(p: Any, q: Any) -> Any:
    return (p.low < 0) | (p.high > 1)


def _unit_outside(p: Any, q: Any) -> Any:
    return (q.low > 0) | (q.high < 1)


# q: how E_p log q is made; then each p with the condition under which p leaves q's support
_CROSS: tuple = (
    (Exponential, _to_exponential, {
        Beta: _never, ContinuousBernoulli: _never, Gamma: _never, Uniform: _below_0,
        Pareto: lambda p, q: p.alpha <= 1,
    }),
    (Gamma, _to_gamma, {
        Beta: _never, Exponential: _never, Uniform: _below_0, Pareto: lambda p, q: p.alpha <= 1,
    }),
    (Normal, _to_normal, {
        Beta: _never, ContinuousBernoulli: _never, Exponential: _never, Gamma: _never,
        Gumbel: _never, Laplace: _never, Uniform: _never, Pareto: lambda p, q: p.alpha <= 2,
    }),
    (Gumbel, _to_gumbel, {
        Exponential: _never, Gamma: _never, Gumbel: _never, Normal: _never, Uniform: _never,
    }),
    (ContinuousBernoulli, _to_continuous_bernoulli, {
        ContinuousBernoulli: _never, Beta: _never, Uniform: _outside_unit,
    }),
    (Uniform, _to_uniform, {Beta: _unit_outside, ContinuousBernoulli: _unit_outside}),
    (Pareto, _to_pareto, {
        Exponential: lambda p, q: q.scale > 0, Gamma: lambda p, q: q.scale > 0,
        Pareto: lambda p, q: p.scale < q.scale, Uniform: lambda p, q: p.low < q.scale,
    }),
    (Beta, _to_beta, {Uniform: _outside_unit}),
)  # fmt: skip


def _cross(expected: Callable, leaves: Callable) -> Callable:
    def rule(p: Any, q: Any) -> Tensor:
        value = -p.entropy() - expected(p, q)
        out = leaves(p, q)
        return value if out is False else weft.where(out, math.inf, value)

    return rule


for _q, _expected, _sources in _CROSS:
    for _p, _leaves in _sources.items():
        register_kl(_p, _q)(_cross(_expected, _leaves))


def _infinite(p: Any, q: Any) -> Tensor:
    """p has mass where q has none, whatever the parameters."""
    shape = weft.broadcast_shapes(p.batch_shape, q.batch_shape)
    return weft.full(shape, math.inf)


_UNIT, _HALF = (Beta, ContinuousBernoulli), (Exponential, Gamma)
for _p, _targets in (
    (Beta, (Pareto,)), (ContinuousBernoulli, (Pareto,)),
    (Exponential, (*_UNIT, Pareto, Uniform)), (Gamma, (*_UNIT, Pareto, Uniform)),
    *((p, (*_UNIT, *_HALF, Pareto, Uniform)) for p in (Gumbel, Laplace, Normal)),
    (Pareto, (*_UNIT, Uniform)), (Poisson, (Bernoulli, Binomial)),
):  # fmt: skip
    for _q in _targets:
        register_kl(_p, _q)(_infinite)


# --------------------------------------------------------------------------- of one family


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    first = b * (p.rate / q.rate).log() + b.lgamma() - a.lgamma()
    return first + (a - b) * a.digamma() + (q.rate - p.rate) * (a / p.rate)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    first = total.lgamma() - b.sum(-1).lgamma() + (b.lgamma() - a.lgamma()).sum(-1)
    return first + ((a - b) * (a.digamma() - total.digamma().unsqueeze(-1))).sum(-1)


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Tensor:
    return _dirichlet(p._dirichlet, q._dirichlet)


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Any, q: Any) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Tensor:
    """inf where p has more trials; NotImplementedError where q has more, as in torch."""
    if bool((p.total_count < q.total_count).any()):
        raise NotImplementedError(
            "KL between Binomials where q.total_count > p.total_count is not implemented"
        )
    each = p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p()
    return weft.where(p.total_count > q.total_count, math.inf, p.total_count * each)


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Tensor:
    return -p.entropy() - weft.log1p(-q.probs) / p.probs - q.logits


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Tensor:
    away = ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log()
    return away - (4 * p.scale * q.scale).log()


@register_kl(Normal, Laplace)
def _normal_laplace(p: Any, q: Any) -> Tensor:
    z = (p.loc - q.loc) / p.scale
    tail = math.sqrt(2 / math.pi) * weft.exp(-0.5 * z * z)
    mean_distance = p.scale * (tail + z * weft.erf(math.sqrt(0.5) * z))
    return (2 * q.scale).log() + mean_distance / q.scale - p.entropy()


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
@register_kl(LowRankMultivariateNormal, MultivariateNormal)
@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _low_rank(p: Any, q: Any) -> Tensor:
    def full(d: Any) -> MultivariateNormal:
        return MultivariateNormal(d.loc, scale_tril=d.scale_tril, validate_args=False)

    return kl_divergence(full(p), full(q))


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    return kl_divergence(p.base_dist, q.base_dist)

"""Invertible functions with their log |det J|, as `torch.distributions.transforms`.

A transform maps `domain` to `codomain`; `log_abs_det_jacobian(x, y)` has one number an event.

`transform_to(c)(x)` lies in the constraint c for every real x, which is what an optimizer needs;
`biject_to(c)` is one to one as well, which is what a density needs.

Long because torch keeps its twenty transforms in one module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import weft
from weft import Size, Tensor
from weft.distributions import constraints
from weft.distributions.constraints import Constraint
from weft.distributions.distribution import Distribution, sum_rightmost
from weft.nn import functional as F

__all__ = [
    "AbsTransform", "AffineTransform", "CatTransform", "ComposeTransform", "ConstraintRegistry",
    "CorrCholeskyTransform", "CumulativeDistributionTransform", "ExpTransform",
    "IndependentTransform", "LowerCholeskyTransform", "PositiveDefiniteTransform", "PowerTransform",
    "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform",
    "StackTransform", "StickBreakingTransform", "TanhTransform", "Transform", "biject_to",
    "identity_transform", "transform_to",
]  # fmt: skip


class Transform:
    """y = t(x); x = t.inv(y).  `cache_size` 1 keeps the last pair: t.inv(t(x)) is x itself."""

    domain: Any = constraints.real
    codomain: Any = constraints.real
    bijective = True
    sign: Any = 1

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise ValueError("cache_size must be 0 or 1")
        self._cache_size, self._pair = cache_size, (None, None)

    @property
    def inv(self) -> Any:
        return _InverseTransform(self)

    @property
    def event_dim(self) -> int:
        if self.domain.event_dim != self.codomain.event_dim:
            raise ValueError("Please use either .domain.event_dim or .codomain.event_dim")
        return self.domain.event_dim

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same transform with another cache."""
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._cache_size, new._pair = cache_size, (None, None)
        return new

    def __call__(self, x: Any) -> Any:
        if self._cache_size and x is self._pair[0]:
            return self._pair[1]
        y = self._call(x)
        if self._cache_size:
            self._pair = (x, y)
        return y

    def _back(self, y: Any) -> Any:
        if self._cache_size and y is self._pair[1]:
            return self._pair[0]
        x = self._inverse(y)
        if self._cache_size:
            self._pair = (x, y)
        return x

    def _call(self, x: Any) -> Any:
        raise NotImplementedError

    def _inverse(self, y: Any) -> Any:
        raise NotImplementedError

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """log |dy / dx|"""
        raise NotImplementedError

    def forward_shape(self, shape: Any) -> Any:
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        return shape

    def _key(self) -> tuple:
        return ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _same(self._key(), other._key())  # type: ignore[union-attr]

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(weft.as_tensor(a == b).all())


class _InverseTransform(Transform):
    def __init__(self, base: Transform) -> None:
        super().__init__()
        self._base = base
        self.domain, self.codomain = base.codomain, base.domain
        self.bijective, self.sign = base.bijective, base.sign

    @property
    def inv(self) -> Transform:
        return self._base

    def __call__(self, x: Any) -> Any:
        return self._base._back(x)

    def _back(self, y: Any) -> Any:
        return self._base(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -self._base.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Any) -> Any:
        return self._base.inverse_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self._base.forward_shape(shape)

    def _key(self) -> tuple:
        return (self._base,)

    def __repr__(self) -> str:
        return f"_InverseTransform({self._base!r})"


class ComposeTransform(Transform):
    """The parts one after the other."""

    def __init__(self, parts: list, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = [p.with_cache(cache_size) for p in parts] if cache_size else list(parts)
        self.bijective = all(p.bijective for p in parts)
        if not self.parts:
            return
        dims = 0  # event dims that any part needs, counted before the first and after the last one
        for p in reversed(self.parts):
            dims = max(dims + p.domain.event_dim - p.codomain.event_dim, p.domain.event_dim)
        first = self.parts[0].domain
        self.domain = constraints.independent(first, dims - first.event_dim)
        for p in self.parts:
            dims += p.codomain.event_dim - p.domain.event_dim
        last = self.parts[-1].codomain
        self.codomain = constraints.independent(last, dims - last.event_dim)

    @property
    def sign(self) -> Any:
        return math.prod(p.sign for p in self.parts)

    @property
    def inv(self) -> ComposeTransform:
        return ComposeTransform([p.inv for p in reversed(self.parts)])

    def __call__(self, x: Any) -> Any:
        for p in self.parts:
            x = p(x)
        return x

    def _back(self, y: Any) -> Any:
        return self.inv(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        if not self.parts:
            return weft.zeros_like(x)
        total: Any = 0.0
        dims = self.domain.event_dim
        for i, p in enumerate(self.parts):
            after = y if i == len(self.parts) - 1 else p(x)
            part = p.log_abs_det_jacobian(x, after)
            total = total + sum_rightmost(part, dims - p.domain.event_dim)
            dims += p.codomain.event_dim - p.domain.event_dim
            x = after
        return total

    def forward_shape(self, shape: Any) -> Any:
        for p in self.parts:
            shape = p.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        for p in reversed(self.parts):
            shape = p.inverse_shape(shape)
        return shape

    def _key(self) -> tuple:
        return tuple(self.parts)

    def __repr__(self) -> str:
        inside = ",\n    ".join(map(repr, self.parts))
        return f"ComposeTransform(\n    {inside}\n)"


identity_transform = ComposeTransform([])


class IndependentTransform(Transform):
    """A transform whose last batch dims belong to the event."""

    def __init__(
        self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.base_transform = base_transform.with_cache(cache_size)
        self.reinterpreted_batch_ndims = n = reinterpreted_batch_ndims
        self.domain = constraints.independent(base_transform.domain, n)
        self.codomain = constraints.independent(base_transform.codomain, n)
        self.bijective, self.sign = base_transform.bijective, base_transform.sign

    def _call(self, x: Any) -> Any:
        if x.dim() < self.domain.event_dim:
            raise ValueError("Too few dimensions on input")
        return self.base_transform(x)

    def _inverse(self, y: Any) -> Any:
        if y.dim() < self.codomain.event_dim:
            raise ValueError("Too few dimensions on input")
        return self.base_transform.inv(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        each = self.base_transform.log_abs_det_jacobian(x, y)
        return sum_rightmost(each, self.reinterpreted_batch_ndims)

    def _key(self) -> tuple:
        return self.base_transform, self.reinterpreted_batch_ndims

    def __repr__(self) -> str:
        return f"IndependentTransform({self.base_transform!r}, {self.reinterpreted_batch_ndims})"


class ReshapeTransform(Transform):
    """The event in another shape."""

    def __init__(self, in_shape: Any, out_shape: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = Size(in_shape), Size(out_shape)
        if self.in_shape.numel() != self.out_shape.numel():
            raise ValueError("in_shape, out_shape have different numbers of elements")
        self.domain = constraints.independent(constraints.real, len(self.in_shape))
        self.codomain = constraints.independent(constraints.real, len(self.out_shape))

    def _swap(self, shape: Any, old: Size, new: Size) -> Size:
        cut = len(shape) - len(old)
        if cut < 0:
            raise ValueError("Too few dimensions on input")
        if tuple(shape[cut:]) != tuple(old):
            raise ValueError(f"Shape mismatch: expected {Size(shape[cut:])} but got {old}")
        return Size((*shape[:cut], *new))

    def forward_shape(self, shape: Any) -> Any:
        return self._swap(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self._swap(shape, self.out_shape, self.in_shape)

    def _call(self, x: Any) -> Any:
        return x.reshape(self.forward_shape(x.shape))

    def _inverse(self, y: Any) -> Any:
        return y.reshape(self.inverse_shape(y.shape))

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return x.new_zeros(x.shape[: x.dim() - len(self.in_shape)])


class ExpTransform(Transform):
    """y = e^x"""

    codomain = constraints.positive

    def _call(self, x: Any) -> Any:
        return x.exp()

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return x


class PowerTransform(Transform):
    """y = x^exponent, x > 0"""

    domain = codomain = constraints.positive

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = weft.as_tensor(exponent)

    @property
    def sign(self) -> Any:
        return self.exponent.sign()

    def _call(self, x: Any) -> Any:
        return x.pow(self.exponent)

    def _inverse(self, y: Any) -> Any:
        return y.pow(1 / self.exponent)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return (self.exponent * y / x).abs().log()

    def forward_shape(self, shape: Any) -> Any:
        return weft.broadcast_shapes(shape, self.exponent.shape)

    inverse_shape = forward_shape

    def _key(self) -> tuple:
        return (self.exponent,)


def _inside(x: Tensor) -> Tensor:
    """x held within (0, 1)."""
    limits = weft.finfo(x.dtype)
    return x.clamp(min=limits.tiny, max=1.0 - limits.eps)


class SigmoidTransform(Transform):
    """y = 1 / (1 + e^-x)"""

    codomain = constraints.unit_interval

    def _call(self, x: Any) -> Any:
        return _inside(weft.sigmoid(x))

    def _inverse(self, y: Any) -> Any:
        y = _inside(y)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -F.softplus(-x) - F.softplus(x)


class SoftplusTransform(Transform):
    """y = log(1 + e^x)"""

    codomain = constraints.positive

    def _call(self, x: Any) -> Any:
        return F.softplus(x)

    def _inverse(self, y: Any) -> Any:
        return (-y).expm1().neg().log() + y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -F.softplus(-x)


class TanhTransform(Transform):
    """y = tanh x"""

    codomain = constraints.interval(-1.0, 1.0)

    def _call(self, x: Any) -> Any:
        return x.tanh()

    def _inverse(self, y: Any) -> Any:
        return weft.atanh(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))


class AbsTransform(Transform):
    """y = |x|; its inverse takes x = y."""

    codomain = constraints.positive
    bijective = False

    def _call(self, x: Any) -> Any:
        return x.abs()

    def _inverse(self, y: Any) -> Any:
        return y


class AffineTransform(Transform):
    """y = loc + scale x, on events of `event_dim` dims"""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self._event_dim = loc, scale, event_dim
        self.domain = self.codomain = constraints.independent(constraints.real, event_dim)

    @property
    def sign(self) -> Any:
        s = self.scale
        return s.sign() if isinstance(s, Tensor) else (s > 0) - (s < 0)

    def _call(self, x: Any) -> Any:
        return self.loc + self.scale * x

    def _inverse(self, y: Any) -> Any:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        if isinstance(self.scale, Tensor):
            each = self.scale.abs().log().expand(x.shape)
        else:
            each = weft.full_like(x, math.log(abs(self.scale)))
        return sum_rightmost(each, self._event_dim)

    def forward_shape(self, shape: Any) -> Any:
        return weft.broadcast_shapes(
            shape, getattr(self.loc, "shape", ()), getattr(self.scale, "shape", ())
        )

    inverse_shape = forward_shape

    def _key(self) -> tuple:
        return self.loc, self.scale


class SoftmaxTransform(Transform):
    """y = softmax x; its inverse is log y."""

    domain, codomain = constraints.real_vector, constraints.simplex
    bijective = False

    def _call(self, x: Any) -> Any:
        p = (x - x.max(-1, True)[0]).exp()
        return p / p.sum(-1, True)

    def _inverse(self, y: Any) -> Any:
        return y.log()


class StickBreakingTransform(Transform):
    """R^k to the simplex of k + 1: each entry takes a share sigmoid(x - log(rest)) of the stick."""

    domain, codomain = constraints.real_vector, constraints.simplex

    @staticmethod
    def _left(x: Tensor, count: int) -> Tensor:
        """log of the number of entries from each one on: count, count - 1, ..., 1"""
        return weft.arange(count, 0, -1, dtype=x.dtype).log()

    def _call(self, x: Any) -> Any:
        z = _inside(weft.sigmoid(x - self._left(x, x.shape[-1])))
        rest = (1 - z).cumprod(-1)
        return F.pad(z, [0, 1], value=1) * F.pad(rest, [1, 0], value=1)

    def _inverse(self, y: Any) -> Any:
        taken = y[..., :-1]
        rest = (1 - taken.cumsum(-1)).clamp(min=weft.finfo(y.dtype).tiny)
        return taken.log() - rest.log() + self._left(y, taken.shape[-1])

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        x = x - self._left(x, x.shape[-1])
        return (-x + F.logsigmoid(x) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> Any:
        return Size((*shape[:-1], shape[-1] - 1))


class LowerCholeskyTransform(Transform):
    """A matrix to a lower triangle with a positive diagonal e^diag."""

    domain: Constraint = constraints.real_matrix
    codomain: Constraint = constraints.lower_cholesky

    def _call(self, x: Any) -> Any:
        return x.tril(-1) + x.diagonal(dim1=-2, dim2=-1).exp().diag_embed()

    def _inverse(self, y: Any) -> Any:
        return y.tril(-1) + y.diagonal(dim1=-2, dim2=-1).log().diag_embed()


class PositiveDefiniteTransform(LowerCholeskyTransform):
    """L L^T of LowerCholeskyTransform's L."""

    codomain = constraints.positive_definite

    def _call(self, x: Any) -> Any:
        lower = super()._call(x)
        return lower @ lower.mT

    def _inverse(self, y: Any) -> Any:
        return super()._inverse(weft.linalg.cholesky(y))


class CorrCholeskyTransform(Transform):
    """R^(n (n - 1) / 2) to the Cholesky factors of correlation matrices: row i is a unit vector
    whose entries take tanh(x) of the length that is left.  (Lewandowski et al. 2009)
    """

    domain, codomain = constraints.real_vector, constraints.corr_cholesky

    def _call(self, x: Any) -> Any:
        eps = weft.finfo(x.dtype).eps
        share = lower_matrix(x.tanh().clamp(min=-1 + eps, max=1 - eps))
        left = (1 - share**2).sqrt().cumprod(-1)
        whole = share + weft.eye(share.shape[-1], dtype=x.dtype)
        return whole * F.pad(left[..., :-1], [1, 0], value=1)

    def _inverse(self, y: Any) -> Any:
        left = F.pad((1 - (y * y).cumsum(-1))[..., :-1], [1, 0], value=1)
        share = _lower_vector(y, -1) / _lower_vector(left, -1).sqrt()
        return (share.log1p() - share.neg().log1p()) / 2

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        left = _lower_vector(1 - (y * y).cumsum(-1), -2)
        tanh = -2 * (x + F.softplus(-2 * x) - math.log(2.0)).sum(-1)
        return 0.5 * left.log().sum(-1) + tanh

    def forward_shape(self, shape: Any) -> Any:
        n = _side(shape[-1])
        if n * (n - 1) // 2 != shape[-1]:
            raise ValueError("Input is not a flattened lower-diagonal number")
        return Size((*shape[:-1], n, n))

    def inverse_shape(self, shape: Any) -> Any:
        if len(shape) < 2 or shape[-2] != shape[-1]:
            raise ValueError("Input is not square" if len(shape) > 1 else "Too few dimensions")
        return Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))


def _side(entries: int) -> int:
    """n of n (n - 1) / 2 entries below a diagonal."""
    return round((0.25 + 2 * entries) ** 0.5 + 0.5)


def lower_matrix(x: Tensor) -> Tensor:
    """The entries below a diagonal as a matrix."""
    n = _side(x.shape[-1])
    rows, columns = weft.tril_indices(n, n, -1)
    flat = x.new_zeros((*x.shape[:-1], n * n))
    places = (rows * n + columns).expand(x.shape)
    return flat.scatter(-1, places, x).reshape(*x.shape[:-1], n, n)


def _lower_vector(y: Tensor, offset: int) -> Tensor:
    rows, columns = weft.tril_indices(y.shape[-1], y.shape[-1], offset)
    return y[..., rows, columns]


class _Pieces(Transform):
    """Transforms for the pieces of a tensor along a dim."""

    def __init__(self, tseq: Any, dim: int = 0, lengths: Any = None, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.transforms, self.dim = list(tseq), dim
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        self.bijective = all(t.bijective for t in self.transforms)

    def _each(self, function: Any, *tensors: Any) -> Any:
        raise NotImplementedError

    def _call(self, x: Any) -> Any:
        return self._each(lambda t, x: t(x), x)

    def _inverse(self, y: Any) -> Any:
        return self._each(lambda t, y: t.inv(y), y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return self._each(lambda t, x, y: t.log_abs_det_jacobian(x, y), x, y)


class CatTransform(_Pieces):
    """transforms[i] on `lengths[i]` entries along `dim`."""

    def _each(self, function: Any, *tensors: Any) -> Any:
        parts = [t.split(self.lengths, self.dim) for t in tensors]
        done = [function(t, *p) for t, *p in zip(self.transforms, *parts, strict=True)]
        return weft.cat(done, self.dim)


class StackTransform(_Pieces):
    """transforms[i] on entry i along `dim`."""

    def __init__(self, tseq: Any, dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(tseq, dim, cache_size=cache_size)

    def _each(self, function: Any, *tensors: Any) -> Any:
        parts = [t.unbind(self.dim) for t in tensors]
        done = [function(t, *p) for t, *p in zip(self.transforms, *parts, strict=True)]
        return weft.stack(done, self.dim)


class CumulativeDistributionTransform(Transform):
    """y = F(x) of a distribution"""

    codomain = constraints.unit_interval

    def __init__(self, distribution: Distribution, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution
        self.domain = distribution.support

    def _call(self, x: Any) -> Any:
        return self.distribution.cdf(x)

    def _inverse(self, y: Any) -> Any:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return self.distribution.log_prob(x)


# ------------------------------------------------------------- from constraints to transforms


class ConstraintRegistry:
    """Constraint class -> what makes the transform of one of its constraints."""

    def __init__(self) -> None:
        self._registry: dict[type, Callable[[Any], Transform]] = {}

    def register(self, constraint: Any, factory: Callable | None = None) -> Any:
        """Make `factory` answer for a constraint's class; a decorator without `factory`.

        TypeError for what is neither a constraint nor a class of constraints.
        """
        if factory is None:
            return lambda factory: self.register(constraint, factory)
        if isinstance(constraint, constraints.Constraint):
            constraint = type(constraint)
        if not isinstance(constraint, type) or not issubclass(constraint, constraints.Constraint):
            raise TypeError(
                "Expected constraint to be either a Constraint subclass or instance, but got "
                f"{constraint}"
            )
        self._registry[constraint] = factory
        return factory

    def __call__(self, constraint: Any) -> Transform:
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


def _to_interval(k: Any) -> Transform:
    low, high = k.lower_bound, k.upper_bound
    both_numbers = isinstance(low, (int, float)) and isinstance(high, (int, float))
    if both_numbers and low == 0 and high == 1:
        return SigmoidTransform()
    return ComposeTransform([SigmoidTransform(), AffineTransform(low, high - low)])


def _from_bound(bound: Any, sign: int) -> Transform:
    return ComposeTransform([ExpTransform(), AffineTransform(bound, sign)])


def _fill(registry: ConstraintRegistry, to_simplex: Any) -> None:
    factories: dict[Any, Callable[[Any], Transform]] = {
        constraints.real: lambda k: identity_transform,
        constraints.real_vector: lambda k: IndependentTransform(
            registry(k.base_constraint), k.reinterpreted_batch_ndims
        ),
        constraints.greater_than: lambda k: _from_bound(k.lower_bound, 1),
        constraints.greater_than_eq: lambda k: _from_bound(k.lower_bound, 1),
        constraints.less_than: lambda k: _from_bound(k.upper_bound, -1),
        constraints.interval: _to_interval,
        constraints.half_open_interval: _to_interval,
        constraints.simplex: lambda k: to_simplex(),
        constraints.corr_cholesky: lambda k: CorrCholeskyTransform(),
        constraints.cat: lambda k: CatTransform([registry(p) for p in k.cseq], k.dim, k.lengths),
        constraints.stack: lambda k: StackTransform([registry(p) for p in k.cseq], k.dim),
    }
    for constraint, factory in factories.items():
        registry.register(constraint, factory)


_fill(biject_to, StickBreakingTransform)
_fill(transform_to, SoftmaxTransform)
transform_to.register(constraints.lower_cholesky, lambda k: LowerCholeskyTransform())
transform_to.register(constraints.positive_definite, lambda k: PositiveDefiniteTransform())
transform_to.register(constraints.positive_semidefinite, lambda k: PositiveDefiniteTransform())

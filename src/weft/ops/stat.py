"""What is built on sums: logsumexp, variance, norms, sums that skip NaN, covariance; quantiles."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle, state
from weft.core.op import Op, sample
from weft.core.types import (
    Type,
    need_dims,
    need_floats,
    numel,
    numpy_words,
    real_number,
    unknown,
    whole,
    wrap_dim,
    wrap_dims,
)
from weft.ops import dispatch
from weft.ops.cast import cast
from weft.ops.complex_parts import complex, conj, imag, real
from weft.ops.creation import full
from weft.ops.dispatch import apply, chained, dtype_of, read, shape_of
from weft.ops.gather import gather
from weft.ops.norm import Moment
from weft.ops.pointwise import in_float, isfinite, isnan
from weft.ops.promote import need_real
from weft.ops.reduce import AMax, AMin, Sum
from weft.ops.sort import sort
from weft.ops.view import reshape

__all__ = [
    "corrcoef", "cov", "dist", "histc", "logsumexp", "nanmean", "nanquantile", "nansum", "norm",
    "quantile", "renorm", "std", "std_mean", "var", "var_mean",
]  # fmt: skip


def _dims(x: Any, dim: Any, op: str) -> tuple[int, ...]:
    return wrap_dims(dim, len(shape_of(x)), op)


def _without(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for d, n in enumerate(shape) if d not in dims)


@chained
@numpy_words
def logsumexp(input: Any, dim: Any, keepdim: bool = False, *, out: Any = None) -> Any:
    """y = log sum exp input along dim, with the largest taken out first; -inf of nothing."""
    x = in_float(input)
    dims = _dims(x, dim, "logsumexp")
    shape = shape_of(x)
    if 0 in (shape[d] for d in dims):
        y = apply(Sum(dims, True), x).log()
    else:
        top = apply(AMax(dims, True), x.detach())
        top = top.where(isfinite(top), full((), 0.0, dtype=dtype_of(x)))
        y = apply(Sum(dims, True), (x - top).exp()).log() + top
    y = y if keepdim else reshape(y, _without(shape, dims))
    return y if out is None else out.copy_result(y)


# ---------------------------------------------------------------------------------- variance


class SquaresApart(Op):
    """y = the sum over dims of |x - their mean|^2; dims stay as size 1"""

    dims: tuple[int, ...] = ()

    def type(self, x: Type) -> Type:
        need_dims(self, x, self.dims)
        shape = tuple(1 if d in self.dims else n for d, n in enumerate(x.shape))
        return Type(shape, x.dtype.to_real())

    def apart(self, x: Any) -> Any:
        n = numel(x.shape[d] for d in self.dims)
        return x - apply(Sum(self.dims, True), x) / (float(n) if n else math.nan)

    def body(self, x: Any) -> Any:
        apart = self.apart(x)
        if dtype_of(x).is_complex:
            square = real(apart) * real(apart) + imag(apart) * imag(apart)
        else:
            square = apart * apart
        return apply(Sum(self.dims, True), square)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (self.apart(x) * (g * 2.0),)  # the mean's part is 0: what is apart sums to 0

    samples = (sample((3, 4), dims=(1,)), sample((2, 3, 4), dims=(0, 2)))


def _spread(
    op: str, input: Any, dim: Any, unbiased: Any, correction: Any, keepdim: bool
) -> tuple[Any, Any]:
    """(variance, mean) along dim."""
    if isinstance(dim, bool):  # var(x, False): the second place is `unbiased`
        dim, unbiased = None, dim
    if dtype_of(input).category < dt.FLOAT:
        raise RuntimeError(
            f"{op}: std and var only support floating point and complex dtypes, not "
            f"{dtype_of(input).spelled}"
        )
    if correction is None:
        if unbiased not in (None, True, False):
            kind = type(unbiased).__name__
            raise TypeError(f"{op}(): argument 'unbiased' must be bool, not {kind}")
        correction = 1 if unbiased is None else int(unbiased)
    shape = shape_of(input)
    dims = _dims(input, dim, op)
    n = numel(shape[d] for d in dims)
    real_number(correction, op, "correction")
    free = n - correction
    if free <= 0:
        warnings.warn(
            f"{op}(): degrees of freedom is <= 0. Correction should be strictly less than the "
            "reduction factor (input numel divided by output numel).",
            UserWarning,
            stacklevel=3,
        )
    half = dtype_of(input) in (dt.float16, dt.bfloat16)
    x = cast(input, dt.float32) if half else input
    mean = apply(Sum(dims, True), x) / (float(n) if n else math.nan)
    if x._rg or not dims or dtype_of(x).is_complex or state.recorder is not None:
        total = apply(SquaresApart(dims), x)
    else:  # the same sums in one pass
        total = apply(Moment("squares", dims), x, mean)
    variance = total / float(free) if free > 0 else total / 0.0
    if not keepdim:
        rest = _without(shape, dims)
        variance, mean = reshape(variance, rest), reshape(mean, rest)
    return cast(variance, dtype_of(input).to_real()), cast(mean, dtype_of(input))


def _root(v: Any) -> Any:
    """sqrt with gradient 0 at 0 (as torch.std)."""
    if not v._rg:
        return v.sqrt()
    zero, one = (full((), c, dtype=dtype_of(v)) for c in (0.0, 1.0))
    return v.where(v != 0, one).sqrt().where(v != 0, zero)


@chained
@numpy_words
def var(
    input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
    correction: Any = None, out: Any = None,
) -> Any:  # fmt: skip
    """y = sum (x - mean)^2 / (n - correction) along dim; correction is 1 unless given."""
    y = _spread("var", input, dim, unbiased, correction, keepdim)[0]
    return y if out is None else out.copy_result(y)


@chained
@numpy_words
def std(
    input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
    correction: Any = None, out: Any = None,
) -> Any:  # fmt: skip
    """y = the square root of var."""
    y = _root(_spread("std", input, dim, unbiased, correction, keepdim)[0])
    return y if out is None else out.copy_result(y)


@numpy_words
def var_mean(
    input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
    correction: Any = None,
) -> tuple:  # fmt: skip
    """(var, mean) along dim."""
    return _spread("var_mean", input, dim, unbiased, correction, keepdim)


@numpy_words
def std_mean(
    input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
    correction: Any = None,
) -> tuple:  # fmt: skip
    """(std, mean) along dim."""
    v, m = _spread("std_mean", input, dim, unbiased, correction, keepdim)
    return _root(v), m


def _weights(name: str, w: Any, n: int, whole: bool) -> Any:
    if len(shape_of(w)) > 1:
        raise RuntimeError(
            f"cov(): expected {name} to have one or fewer dimensions but got {name} with "
            f"{len(shape_of(w))} dimensions"
        )
    if (dtype_of(w).category == dt.FLOAT) == whole or dtype_of(w) is dt.bool:
        kind = "integral" if whole else "floating point"
        raise RuntimeError(
            f"cov(): expected {name} to have {kind} dtype but got {name} with {dtype_of(w).name} "
            "dtype"
        )
    if numel(shape_of(w)) != n:
        raise RuntimeError(
            f"cov(): expected {name} to have the same numel as there are observations in the input "
            f"but got {numel(shape_of(w))} != {n}"
        )
    if n and bool((w < 0).any()):
        raise RuntimeError(f"cov(): {name} cannot be negative")
    return w


def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The covariances of the rows of a matrix (variables) over its columns (observations).

    An observation counts fweights times and weighs aweights.
    """
    shape = shape_of(input)
    if len(shape) > 2:
        raise RuntimeError(
            "cov(): expected input to have two or fewer dimensions but got an input with "
            f"{len(shape)} dimensions"
        )
    if dtype_of(input) is dt.bool:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = in_float(input)
    x = x if len(shape) == 2 else reshape(x, (1, numel(shape)))
    n = shape_of(x)[1]
    w = None
    if fweights is not None:
        w = _weights("fweights", fweights, n, True)
    if aweights is not None:
        heavy = _weights("aweights", aweights, n, False)
        w = heavy if w is None else w * heavy
    if w is None:
        total, mean = float(n), x.mean(1, keepdim=True)
    else:
        total = w.sum()
        mean = (x * w).sum(1, keepdim=True) / total
    free: Any  # a number without weights, a tensor with them
    if w is None or correction == 0:
        free = total - correction
    elif aweights is None:
        free = total - float(correction)
    else:
        free = total - (w * aweights).sum() / total * float(correction)
    x = x - mean
    y = x @ conj((x if w is None else x * w).t())
    if w is None:
        y = y / free if n > correction else y / 0.0
    else:
        y = y / free.clamp_min(0)
    return reshape(y, ()) if shape_of(y) == (1, 1) else y


def corrcoef(input: Any) -> Any:
    """The correlations of the rows of a matrix (variables) over its columns (observations)."""
    if len(shape_of(input)) > 2:
        raise RuntimeError(
            "corrcoef(): expected input to have two or fewer dimensions but got an input with "
            f"{len(shape_of(input))} dimensions"
        )
    c = cov(input)
    if not shape_of(c):
        return c / c
    d = real(c.diagonal()).sqrt()
    y = c / d.unsqueeze(1) / d.unsqueeze(0)
    if dtype_of(y).is_complex:
        return complex(real(y).clamp(-1, 1), imag(y).clamp(-1, 1))
    return y.clamp(-1, 1)


# ---------------------------------------------------------------------------------- norms


class VectorNorm(Op):
    """y = (sum |x|^p)^(1/p) along dims; p = inf: max |x|, -inf: min |x|, 0: how many x != 0"""

    p: float = 2.0
    dims: tuple[int, ...] = ()
    keepdim: bool = False

    def type(self, x: Type) -> Type:
        need_floats(self, x)
        need_dims(self, x, self.dims)
        shape = tuple(1 if d in self.dims else n for d, n in enumerate(x.shape))
        return Type(shape if self.keepdim else _without(x.shape, self.dims), x.dtype)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        a = np.abs(x)
        kw: Any = {"axis": self.dims, "keepdims": self.keepdim}
        if math.isinf(self.p):
            return np.asarray(a.max(**kw) if self.p > 0 else a.min(**kw))
        if self.p == 0:
            return np.asarray((a != 0).sum(**kw).astype(x.dtype))
        return np.asarray((a**self.p).sum(**kw) ** (1 / self.p))

    def body(self, x: Any) -> Any:
        p, dims, keep = self.p, self.dims, self.keepdim
        if p in (1, 2):
            y = apply(Moment("size" if p == 1 else "square", dims), x)
            y = y if keep else reshape(y, _without(shape_of(x), dims))
            return y if p == 1 else y.sqrt()
        if p == 0:
            return apply(Sum(dims, keep), cast(x != 0, x.dtype))
        if math.isinf(p):
            return apply((AMax if p > 0 else AMin)(dims, keep), x.abs())
        return apply(Sum(dims, keep), x.abs() ** p) ** (1 / p)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        p = self.p
        if not self.keepdim:
            shape = tuple(1 if d in self.dims else n for d, n in enumerate(x.shape))
            g, y = reshape(g, shape), reshape(y, shape)
        if p == 0:
            return (g.new_zeros(x.shape),)
        if p == 1:
            return (g * x.sign(),)
        if p == 2:  # x / y, 0 where y is 0
            return ((g * (x / y)).where(y != 0, 0.0),)
        if math.isinf(p):  # those that equal the extreme share the cotangent
            mine = cast((x.abs() == y) | (x != x), x.dtype)
            return (x.sign() * mine * (g / apply(Sum(self.dims, True), mine)),)
        power = x * x.abs() ** (p - 2) if p >= 2 else x.sign() * x.abs() ** (p - 1)
        power = power if p >= 2 else power.where(x != 0, 0.0)
        return ((power * (g * y ** (1 - p))).where(y != 0, 0.0),)

    samples = (
        sample((3, 4), dims=(1,)),
        sample((2, 3, 4), dims=(0, 2), keepdim=True),
        sample((3, 4), p=1.0, dims=(0, 1)),
        sample((3, 4), p=math.inf, dims=(1,)),
        sample((3, 4), p=-math.inf, dims=(1,)),
        sample((3, 4), p=3.0, dims=(1,)),
        sample((3, 4), p=0.5, dims=(0,), low=0.5),
        sample((3, 0), dims=(1,)),
    )


@lru_cache(1024, typed=True)
def _norm(shape: tuple[int, ...], d: dt.dtype, ord: Any, dim: Any, keepdim: bool) -> VectorNorm:
    """The op, for operands that it takes."""
    if d.category != dt.FLOAT:
        raise RuntimeError(
            "linalg.vector_norm: Expected a floating point or complex tensor as input. Got "
            f"{d.name}"
        )
    dims = wrap_dims(dim, len(shape), "linalg.vector_norm")
    ord = real_number(ord, "linalg.vector_norm", "ord")
    if math.isinf(ord) and 0 in (shape[d] for d in dims):
        raise RuntimeError(
            "linalg.vector_norm cannot compute the infinity norm on an empty dimension because the "
            "operation does not have an identity"
        )
    return VectorNorm(float(ord), dims, keepdim)


_NORM = dispatch.wish()


def _op_of(x: Any, ord: Any, dim: Any, keepdim: bool) -> VectorNorm:
    plain = type(ord) in (int, float) and (dim is None or type(dim) is int)
    make = _norm if plain and state.recorder is None else _norm.__wrapped__
    return make(shape_of(x), dtype_of(x), ord, dim, keepdim)


def vector_norm(
    x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """y = (sum |x|^ord)^(1/ord) along dim (all elements when None); inf, -inf and 0 as limits."""
    if dtype is out is None and (y := dispatch.known(x, _NORM, ord, dim, keepdim)) is not None:
        return y
    given = x
    if dtype is not None:
        x = cast(x, dtype)
    d = dtype_of(x)
    if d.is_complex:
        x = x.abs()
        d = dtype_of(x)
    op = _op_of(x, ord, dim, keepdim)
    if d.itemsize == 2:  # rounded once, at the end
        y = cast(apply(op, cast(x, dt.float32)), d)
    elif type(ord) in (int, float) and x is given:
        y = dispatch.told(op, x, _NORM, ord, dim, keepdim)
    else:
        y = apply(op, x)
    return y if out is None else out.copy_result(y)


@numpy_words
def norm(
    input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None,
    dtype: Any = None,
) -> Any:  # fmt: skip
    """The vector norm of the elements along dim; p a number or "fro" (which is 2)."""
    if p == "fro" or p is None:
        p = 2
    if p == "nuc":  # the sum of the singular values of matrices
        x = input if dtype is None else input.to(dtype)
        d = wrap_dims(dim if dim is not None else (0, 1), len(shape_of(x)), "norm")
        y = x.movedim(d, (-2, -1)).svd().S.sum(-1)
        if keepdim:
            for k in sorted(d):
                y = y.unsqueeze(k)
        return y if out is None else out.copy_result(y)
    if isinstance(p, str):
        raise RuntimeError(f"norm: order {p!r} is not supported")
    return vector_norm(input, p, dim, keepdim, dtype=dtype, out=out)


def dist(input: Any, other: Any, p: float = 2) -> Any:
    """The norm of input - other."""
    return norm(input - other, p)


def renorm(input: Any, p: float, dim: int, maxnorm: float, *, out: Any = None) -> Any:
    """input with its slices along dim scaled down to norm maxnorm where they are longer."""
    rank = len(shape_of(input))
    if rank < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {rank} dimensions")
    d = wrap_dims(dim, rank, "renorm")[0]
    others = tuple(k for k in range(rank) if k != d)
    size = vector_norm(input, p, others, True)
    one = full((), 1.0, dtype=dtype_of(size))
    maxnorm = real_number(maxnorm, "renorm", "maxnorm")
    y = input * (maxnorm / (size + 1e-7)).where(size > maxnorm, one)
    return y if out is None else out.copy_result(y)


# ---------------------------------------------------------------------------------- without NaN


@chained
@numpy_words
def nansum(
    input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Any:
    """y = the sum along dim of what is not NaN."""
    need_real(input, "nansum on CPU does not support complex inputs", RuntimeError)
    if dtype_of(input).category == dt.FLOAT:
        input = input.where(~isnan(input), full((), 0.0, dtype=dtype_of(input)))
    return input.sum(dim, keepdim, dtype=dtype, out=out)


@chained
@numpy_words
def nanmean(
    input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Any:
    """y = the mean along dim of what is not NaN."""
    if dtype_of(input).category != dt.FLOAT:
        raise RuntimeError(f"nanmean(): expected a floating-point input, got {dtype_of(input)}")
    total = nansum(input, dim, keepdim, dtype=dtype)
    y = total / cast((~isnan(input)).sum(dim, keepdim), dtype_of(total))
    return y if out is None else out.copy_result(y)


def histc(input: Any, bins: int = 100, min: float = 0, max: float = 0, *, out: Any = None) -> Any:
    """How many elements fall in each of `bins` equal bins of [min, max]; both 0: of the data."""
    need_real(input, '"histc_cpu" not implemented for complex numbers')
    if whole(bins, "histc", "bins") <= 0:
        raise RuntimeError(f"histc: bins must be > 0, but got {bins}")
    a = np.asarray(read(input), np.float64).reshape(-1)
    low, high = real_number(min, "histc", "min"), real_number(max, "histc", "max")
    if low == high and a.size:
        low, high = float(a.min()), float(a.max())
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"torch.histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError(f"histc: max must be larger than min, but got {max} and {min}")
    inside = a[(a >= low) & (a <= high)]
    places = np.minimum(((inside - low) / (high - low) * bins).astype(np.int64), bins - 1)
    counts = np.bincount(places, minlength=bins)
    y = full((bins,), 0.0, dtype=dtype_of(input)).new_tensor(counts)
    return y if out is None else out.copy_result(y)


_BETWEEN = ("linear", "lower", "higher", "midpoint", "nearest")


@numpy_words
def quantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear", out: Any = None,
) -> Any:  # fmt: skip
    """y = the q-th quantile along dim (of all elements when None); NaN where there is any.

    q in [0, 1], a number or a vector (whose size comes first in the result).  Between two elements
    at rank q (n - 1): linear, lower, higher, midpoint or nearest.
    """
    y = _quantile("quantile", input, q, dim, keepdim, interpolation)
    return y if out is None else out.copy_result(y)


@numpy_words
def nanquantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear", out: Any = None,
) -> Any:  # fmt: skip
    """quantile of the elements that are not NaN."""
    y = _quantile("nanquantile", input, q, dim, keepdim, interpolation)
    return y if out is None else out.copy_result(y)


def _quantile(op: str, x: Any, q: Any, dim: int | None, keepdim: bool, between: str) -> Any:
    d = dtype_of(x)
    rank = len(shape_of(x))
    if d not in (dt.float32, dt.float64):
        raise RuntimeError(f"{op}() input tensor must be either float or double dtype")
    if between not in _BETWEEN:
        words = "linear, lower, higher, midpoint or nearest"
        said = f"{op}() interpolation must be one of {words}, but got {between}"
        raise unknown(op, "interpolation", between, said)
    if not isinstance(q, Handle):
        if not 0 <= real_number(q, op, "q") <= 1:
            raise RuntimeError(f"{op}() q must be in the range [0, 1] but got {q}")
        q = full((), q, dtype=d)
    elif dtype_of(q) is not d:
        raise RuntimeError(f"{op}() q tensor must be same dtype as the input tensor")
    if numel(shape_of(x)) == 0:
        raise RuntimeError(f"{op}() input tensor must be non-empty")
    at = rank - 1 if dim is None else wrap_dim(dim, rank, op)
    rows = reshape(x, (-1,)) if dim is None else (x.movedim(at, -1) if rank else reshape(x, (1,)))
    places = reshape(q, (-1,))
    ordered = sort(rows, -1).values
    n = shape_of(rows)[-1]
    nan = rows != rows
    if op == "quantile":  # NaN is the last in order: where there is any, all ranks point there
        top = full((1,), float(n - 1), dtype=d)
        ranks = (places * (n - 1)).where(~nan.any(-1, keepdim=True), top)
    else:
        count = (~nan).sum(-1, keepdim=True).to(d) - 1
        ranks = (places * count).clamp(min=0)
    y = _interpolated(ordered, ranks, between, shape_of(rows)[:-1])
    y = y.movedim(-1, 0)
    if keepdim:
        y = reshape(y, (-1, *(1,) * rank)) if dim is None else (y.unsqueeze(at + 1) if rank else y)
    return y if len(shape_of(q)) else y.squeeze(0)


def _interpolated(ordered: Any, ranks: Any, between: str, lead: tuple[int, ...]) -> Any:
    if between == "nearest":
        ranks = ranks.round()
    below = ranks.floor() if between != "higher" else ranks.ceil()
    spread = (*lead, shape_of(ranks)[-1])
    low = gather(ordered, -1, below.long().expand(spread))
    if between in ("lower", "higher", "nearest"):
        return low
    weight = ranks - below if between == "linear" else full((), 0.5, dtype=dtype_of(ranks))
    high = gather(ordered, -1, ranks.ceil().long().expand(spread))
    step = high - low
    return (low + weight * step).where(weight < 0.5, high - step * (1 - weight))

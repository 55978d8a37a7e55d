"""Running values along a dim: cumsum cumprod cummax cummin logcumsumexp, diff.

    CumSum       y[i] = y[i-1] + x[i]
    CumProd      y[i] = y[i-1] * x[i]
    LinearScan   y[i] = a[i] * y[i-1] + b[i]

Strictly one element after the other, whatever the threads.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, numpy_words, some_dim, wrap_dim
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.gather import gather
from weft.ops.join import cat
from weft.ops.kinds import by_batch, in_parts
from weft.ops.pointwise import LogAddExp
from weft.ops.promote import need_real
from weft.ops.returns import CumMax, CumMin
from weft.ops.shape import flip
from weft.ops.view import expand, narrow, reshape
from weft.runtime import memory, native
from weft.runtime.native import Launch

__all__ = [
    "cummax", "cummin", "cumprod", "cumsum", "cumulative_trapezoid", "diff", "logcumsumexp",
    "trapezoid", "trapz",
]  # fmt: skip

SAMPLES = (sample((3, 4), dim=0), sample((2, 3, 4), dim=1), sample((5,)), sample((0, 3), dim=0))


class _Running(Op, abstract=True):
    dim: int = 0

    def type(self, x: Type) -> Type:
        return Type(x.shape, x.dtype if x.dtype.category >= dt.FLOAT else dt.int64)

    vmap = by_batch


class CumSum(_Running):
    """y[i] = x[0] + ... + x[i] along dim"""

    complex_host = in_parts

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.cumsum(x, self.dim)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_cumulative("sum", self.dim, ins[0], out)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (flip(apply(self, flip(g, (self.dim,))), (self.dim,)),)

    onnx = Onnx("CumSum", 14, build=onnx_rules.cumulative_sum)
    samples = (*SAMPLES, sample((3, 4), of="complex64", dim=1))


class CumProd(_Running):
    """y[i] = x[0] * ... * x[i] along dim"""

    def complex_host(self, x: np.ndarray) -> np.ndarray:
        y = np.array(x, order="C")
        rows = np.moveaxis(y, self.dim, 0)
        for i in range(1, len(rows)):
            rows[i] = S.evaluate(S.mul(*(S.Arg(k, dt.from_np(x.dtype)) for k in (0, 1))),
                                 (rows[i - 1], rows[i]))  # fmt: skip
        return y

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.cumprod(x, self.dim)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_cumulative("prod", self.dim, ins[0], out)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        # dx[k] = (x[0] ... x[k-1]) * s[k],  s[k] = g[k] + x[k+1] s[k+1]: zeros are no exception
        before = _later(y, self.dim, 1)
        return (before * _backward_scan(x, g, self.dim),)

    samples = (*SAMPLES, sample((3, 4), of="complex64", dim=1))


class LinearScan(Op):
    """y[i] = a[i] * y[i-1] + b[i] along dim, y[-1] = 0"""

    dim: int = 0

    def type(self, a: Type, b: Type) -> Type:
        return b

    def host(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        y = np.array(b, order="C")
        rows, factors = np.moveaxis(y, self.dim, 0), np.moveaxis(a, self.dim, 0)
        for i in range(1, len(rows)):
            rows[i] = factors[i] * rows[i - 1] + rows[i]
        return y

    def oracle(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = np.moveaxis(a, self.dim, 0), np.moveaxis(b, self.dim, 0)
        y = np.zeros(b.shape)
        for i, j in itertools.combinations_with_replacement(range(len(b)), 2):
            y[j] += np.prod(a[i + 1 : j + 1], 0) * b[i]
        return np.moveaxis(y, 0, self.dim)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        # h[i] = g[i] + a[i+1] h[i+1];  db = h,  da[i] = h[i] y[i-1]
        h = _backward_scan(a, g, self.dim)
        return lambda: h * _later(y, self.dim, 0), h

    vmap = by_batch

    samples = (sample((4, 2), (4, 2)), sample((2, 5), (2, 5), dim=1), sample((0,), (0,)))


def _later(x: Any, dim: int, first: float) -> Any:
    """x one place later along dim, `first` in front."""
    shape = tuple(x.shape)
    if not shape[dim]:
        return x
    front = expand(full((), first, dtype=x.dtype), (*shape[:dim], 1, *shape[dim + 1 :]))
    return cat([front, narrow(x, dim, 0, shape[dim] - 1)], dim)


def _backward_scan(a: Any, g: Any, dim: int) -> Any:
    """s[k] = g[k] + a[k+1] * s[k+1]"""
    factors = _later(flip(a, (dim,)), dim, 0)
    return flip(apply(LinearScan(dim), factors, flip(g, (dim,))), (dim,))


class _Place(_Running, abstract=True):
    kind: ClassVar[str]
    nondiff = "its result is an index"
    samples = SAMPLES

    def type(self, x: Type) -> Type:
        return Type(x.shape, dt.int64)

    def host(self, x: np.ndarray) -> np.ndarray:
        """The kernel writes the running values beside the places; they are not needed."""
        values, places = memory.empty(x.shape, x.dtype), memory.empty(x.shape, np.dtype(np.int64))
        if x.size:
            of = Layout.of
            launch = kernels.plan_cumulative(self.kind, self.dim, of(x), of(values), of(places))
            native.launch(launch, values, [places, x])
        return places


class CumMaxIndex(_Place):
    """y[i] = the latest place of the largest of x[0] ... x[i] along dim; NaN is the largest"""

    kind = "max"

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return _latest(x, self.dim, lambda new, old: new >= old)


class CumMinIndex(_Place):
    """y[i] = the latest place of the smallest of x[0] ... x[i] along dim; NaN is the smallest"""

    kind = "min"

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return _latest(x, self.dim, lambda new, old: new <= old)


def _latest(x: np.ndarray, dim: int, better: Any) -> np.ndarray:
    rows = np.moveaxis(x, dim, -1)
    out = np.zeros(rows.shape, np.int64)
    for at in np.ndindex(*rows.shape[:-1]):
        place = 0
        for i, v in enumerate(rows[at]):
            if better(v, rows[at][place]) or v != v:
                place = i
            out[(*at, i)] = place
    return np.moveaxis(out, -1, dim)


# ------------------------------------------------------------------------------- functions


_CUMSUM = dispatch.wish()


def _cumulative(kind: Any, op: str, input: Any, dim: int, dtype: Any, out: Any) -> Any:
    plain = kind is CumSum and dtype is None and out is None
    if plain and (y := dispatch.known(input, _CUMSUM, dim)) is not None:
        return y
    d = wrap_dim(dim, len(shape_of(input)), op)
    if dtype is not None:
        input = cast(input, dtype)
    elif dtype_of(input) is dt.bool:
        input = cast(input, dt.int64)
    x = input if shape_of(input) else reshape(input, (1,))
    y = apply(kind(d), x)
    if plain and x is input:
        dispatch.tell(kind(d), x, _CUMSUM, dim)
    y = y if shape_of(input) else reshape(y, ())
    y = y if dtype is None else cast(y, dtype)
    return y if out is None else out.copy_result(y)


@numpy_words
def cumsum(input: Any, dim: int, *, dtype: Any = None, out: Any = None) -> Any:
    """y[i] = input[0] + ... + input[i] along dim; integers and bools sum as int64."""
    return _cumulative(CumSum, "cumsum", input, dim, dtype, out)


@numpy_words
def cumprod(input: Any, dim: int, *, dtype: Any = None, out: Any = None) -> Any:
    """y[i] = input[0] * ... * input[i] along dim; integers and bools as int64."""
    return _cumulative(CumProd, "cumprod", input, dim, dtype, out)


@numpy_words
def cummax(input: Any, dim: int, *, out: Any = None) -> Any:
    """(values, indices) of the largest so far along dim; the latest of equal ones."""
    return _so_far(CumMaxIndex, CumMax, "cummax", input, dim, out)


@numpy_words
def cummin(input: Any, dim: int, *, out: Any = None) -> Any:
    """(values, indices) of the smallest so far along dim; the latest of equal ones."""
    return _so_far(CumMinIndex, CumMin, "cummin", input, dim, out)


def _so_far(kind: Any, result: Any, op: str, input: Any, dim: int, out: Any) -> Any:
    need_real(input, f'"{op}_cpu" not implemented for complex numbers')
    shape = shape_of(input)
    d = wrap_dim(dim, len(shape), op)
    x = input if shape else reshape(input, (1,))
    at = apply(kind(d), x)
    y = result(reshape(gather(x, d, at), shape), reshape(at, shape))
    return y if out is None else result(*(o.copy_result(v) for o, v in zip(out, y, strict=True)))


@numpy_words
def logcumsumexp(input: Any, dim: int, *, out: Any = None) -> Any:
    """y[i] = log(exp input[0] + ... + exp input[i]) along dim, by doubling: log2(n) steps."""
    if dtype_of(input).category != dt.FLOAT:
        raise NotImplementedError(
            f"logcumsumexp: not implemented for {dtype_of(input).name}, only for floating dtypes"
        )
    shape = shape_of(input)
    d = wrap_dim(dim, len(shape), "logcumsumexp")
    y = input if shape else reshape(input, (1,))
    n = shape_of(y)[d]
    step = 1
    while step < n:
        before = narrow(y, d, 0, n - step)
        later = apply(LogAddExp(even=True), narrow(y, d, step, n - step), before)
        y = cat([narrow(y, d, 0, step), later], d)
        step *= 2
    y = reshape(input.clone() if n == 1 else y, shape)
    return y if out is None else out.copy_result(y)


@numpy_words
def diff(
    input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None, *,
    out: Any = None,
) -> Any:  # fmt: skip
    """y[i] = input[i+1] - input[i] along dim, n times; prepend and append are joined on first."""
    if not shape_of(input):
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    d = wrap_dim(dim, len(shape_of(input)), "diff")
    parts = [p for p in (prepend, input, append) if p is not None] if n else [input]
    y = cat(parts, d) if len(parts) > 1 else input
    for _ in range(min(n, shape_of(y)[d])):  # then nothing is left
        m = max(shape_of(y)[d] - 1, 0)
        a, b = narrow(y, d, min(1, shape_of(y)[d]), m), narrow(y, d, 0, m)
        y = a ^ b if dtype_of(y) is dt.bool else a - b
    y = y if n else y.clone()
    return y if out is None else out.copy_result(y)


def trapezoid(y: Any, x: Any = None, *, dx: float = 1, dim: int = -1) -> Any:
    """The integral along dim by trapezoids, at the places x or dx apart."""
    return _trapezoids(y, x, dx, dim).sum(some_dim(dim, shape_of(y), "trapezoid"))


def cumulative_trapezoid(y: Any, x: Any = None, *, dx: float = 1, dim: int = -1) -> Any:
    """The running integral along dim by trapezoids, at the places x or dx apart."""
    return cumsum(_trapezoids(y, x, dx, dim), some_dim(dim, shape_of(y), "trapezoid"))


def _trapezoids(y: Any, x: Any, dx: float, dim: int) -> Any:
    d = some_dim(dim, shape_of(y), "trapezoid")
    n = shape_of(y)[d]
    if x is not None and len(shape_of(x)) == 1 and shape_of(x)[0] != n:
        raise RuntimeError(
            "trapezoid: There must be one `x` value for each sample point, got "
            f"{shape_of(x)[0]} of {n}"
        )
    sums = narrow(y, d, min(1, n), max(n - 1, 0)) + narrow(y, d, 0, max(n - 1, 0))
    if x is None:
        return sums * (dx / 2)
    rank = len(shape_of(y))
    if len(shape_of(x)) == 1:
        x = reshape(x, tuple(-1 if k == d else 1 for k in range(rank)))
    elif len(shape_of(x)) < rank:  # before dim counts, as torch's do
        x = reshape(x, (1,) * (rank - len(shape_of(x))) + tuple(shape_of(x)))
    return sums * diff(x, dim=d) / 2


trapz = trapezoid

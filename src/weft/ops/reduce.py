"""Reductions: sum prod amax amin argmax argmin any all, and what is built on them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core import scalar as S
from weft.core.op import Onnx, sample
from weft.core.types import numel, numpy_words, wrap_dim, wrap_dims
from weft.ops import dispatch
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.join import cat
from weft.ops.kinds import Reduce, in_parts
from weft.ops.promote import need_real
from weft.ops.view import Expand, reshape

__all__ = ["all", "amax", "amin", "any", "argmax", "argmin", "mean", "prod", "sum"]

SAMPLES = (
    sample((3, 4), dims=(0, 1)),
    sample((2, 3, 5), dims=(1,), keepdim=True),
    sample((2, 3, 5), dims=(0, 2)),
)


def _back(g: Any, shape: tuple[int, ...], dims: tuple[int, ...], keepdim: bool) -> Any:
    """g with the reduced dims of `shape` put back as size 1; a number may stay one."""
    if keepdim or len(dims) == len(shape):
        return g
    return reshape(g, tuple(1 if i in dims else n for i, n in enumerate(shape)))


class Sum(Reduce):
    """y = the sum of x along dims, in the strict order"""

    combine = "sum"
    complex_host = in_parts

    def result_dtype(self, d: dt.dtype) -> dt.dtype:
        return d if d.category >= dt.FLOAT else dt.int64

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.sum(x, axis=self.dims, keepdims=self.keepdim))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(Expand(tuple(x.shape)), _back(g, x.shape, self.dims, self.keepdim)),)

    onnx = Onnx("ReduceSum", 13, build=onnx_rules.reduce("ReduceSum"))
    samples = (
        *SAMPLES,
        sample((0, 3), dims=(0,)),
        sample((2, 3, 5), of="complex64", dims=(0, 2)),
    )


class Prod(Reduce):
    """y = the product of x along dims"""

    combine = "prod"

    def result_dtype(self, d: dt.dtype) -> dt.dtype:
        return d if d.category >= dt.FLOAT else dt.int64

    def complex_host(self, x: np.ndarray) -> np.ndarray:
        keep = [d for d in range(x.ndim) if d not in self.dims]
        moved = x.transpose(*self.dims, *keep)
        rows = moved.reshape(numel(x.shape[d] for d in self.dims), *(x.shape[d] for d in keep))
        y = np.ones(rows.shape[1:], x.dtype)
        for row in rows:
            y = S.evaluate(_PRODUCT[x.dtype.itemsize], (y, row))
        return np.expand_dims(y, self.dims) if self.keepdim else y

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.prod(x, axis=self.dims, keepdims=self.keepdim))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        # the product of the others, exclusive from both ends, so that zeros are no exception
        return (_back(g, x.shape, self.dims, self.keepdim) * product_of_others(x, self.dims),)

    onnx = Onnx("ReduceProd", 13, build=onnx_rules.reduce("ReduceProd"))
    samples = (
        *SAMPLES,
        sample((0, 3), dims=(0,)),
        sample((2, 3, 2), of="complex64", dims=(1,), keepdim=True),
    )


_PRODUCT = {d.itemsize: S.mul(S.Arg(0, d), S.Arg(1, d)) for d in dt.COMPLEXES}


def product_of_others(x: Any, dims: tuple[int, ...]) -> Any:
    """z[i] = the product over j != i of x[j] along dims (flattened)."""
    keep = tuple(d for d in range(x.ndim) if d not in dims)
    order = (*keep, *dims)
    moved = x.permute(order)
    rows = moved.reshape(*moved.shape[: len(keep)], numel(x.shape[d] for d in dims))
    n = rows.shape[-1]
    columns = [rows.narrow(-1, i, 1) for i in range(n)]
    before = [full((1,), 1.0, dtype=x.dtype).expand(columns[0].shape)] if n else []
    for c in columns[:-1]:
        before.append(before[-1] * c)
    after = before[:1]
    for c in reversed(columns[1:]):
        after.append(after[-1] * c)
    after.reverse()
    if not n:
        return x
    joined = cat([b * a for b, a in zip(before, after, strict=True)], -1)
    back = [0] * len(order)
    for k, d in enumerate(order):
        back[d] = k
    return joined.reshape(moved.shape).permute(tuple(back))


class AMax(Reduce):
    """y = the largest of x along dims; NaN if any is

    `even`: NaN's equals share the cotangent, too, as torch.max's of all; amax's gives them NaN.
    """

    even: bool = False
    combine = "max"

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.max(x, axis=self.dims, keepdims=self.keepdim))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        if self.even:
            return (shared_evenly(g, y, x),)
        return (_shared(g, y, x, self.dims, self.keepdim),)

    onnx = Onnx("ReduceMax", 13, build=onnx_rules.reduce("ReduceMax"))
    samples = SAMPLES


class AMin(Reduce):
    """y = the smallest of x along dims; NaN if any is.  `even`: see AMax"""

    even: bool = False
    combine = "min"

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.min(x, axis=self.dims, keepdims=self.keepdim))

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        if self.even:
            return (shared_evenly(g, y, x),)
        return (_shared(g, y, x, self.dims, self.keepdim),)

    onnx = Onnx("ReduceMin", 13, build=onnx_rules.reduce("ReduceMin"))
    samples = SAMPLES


def _shared(g: Any, y: Any, x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """The cotangent shared evenly by all elements that attain the extreme (as torch.amax)."""
    mine = cast(x == _back(y, x.shape, dims, keepdim), dtype_of(g))
    return mine * (_back(g, x.shape, dims, keepdim) / apply(Sum(dims, True), mine))


def shared_evenly(g: Any, y: Any, x: Any) -> Any:
    """The cotangent shared by all equals of y (NaN is one), where y is one element."""
    mine = (x == y) | ((x != x) & (y != y))
    return (g / mine.sum()).where(mine, 0.0)


class ArgMax(Reduce):
    """y = the flat index along dims of the first largest element"""

    combine = "argmax"
    nondiff = "its result is an index"

    def result_dtype(self, d: dt.dtype) -> dt.dtype:
        return dt.int64

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return _arg(np.argmax, x, self.dims, self.keepdim)

    onnx = Onnx("ArgMax", 13, build=onnx_rules.arg("ArgMax"))
    samples = (sample((2, 3, 5), dims=(1,), keepdim=True), sample((3, 4), dims=(0, 1)))


class ArgMin(Reduce):
    """y = the flat index along dims of the first smallest element"""

    combine = "argmin"
    nondiff = "its result is an index"

    def result_dtype(self, d: dt.dtype) -> dt.dtype:
        return dt.int64

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return _arg(np.argmin, x, self.dims, self.keepdim)

    onnx = Onnx("ArgMin", 13, build=onnx_rules.arg("ArgMin"))
    samples = (sample((2, 3, 5), dims=(1,), keepdim=True), sample((3, 4), dims=(0, 1)))


def _arg(fn: Any, x: np.ndarray, dims: tuple[int, ...], keepdim: bool) -> np.ndarray:
    if len(dims) == 1:
        return np.asarray(fn(x, axis=dims[0], keepdims=keepdim))
    return np.asarray(fn(x)).reshape((1,) * x.ndim if keepdim else ())


class Any_(Reduce):
    """y = whether any element along dims is true"""

    combine = "any"
    nondiff = "its result is bool"

    def result_dtype(self, d: dt.dtype) -> dt.dtype:
        return dt.bool

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.any(x, axis=self.dims, keepdims=self.keepdim))

    onnx = Onnx("ReduceSum", 13, build=onnx_rules.reduce_bool("ReduceSum"))
    samples = (sample((2, 3, 5), of="bool", dims=(1,)), sample((0,), of="bool", dims=(0,)))


class All_(Reduce):
    """y = whether all elements along dims are true"""

    combine = "all"
    nondiff = "its result is bool"

    def result_dtype(self, d: dt.dtype) -> dt.dtype:
        return dt.bool

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.all(x, axis=self.dims, keepdims=self.keepdim))

    onnx = Onnx("ReduceMin", 13, build=onnx_rules.reduce_bool("ReduceMin"))
    samples = (sample((2, 3, 5), of="bool", dims=(1,)), sample((0,), of="bool", dims=(0,)))


# ------------------------------------------------------------------------------- functions


@numpy_words
def sum(
    input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Any:
    """y = the sum along dim (all dims when None); integers and bools sum as int64."""
    if dtype is not None:
        input = cast(input, dtype)
    elif out is None and (y := dispatch.known(input, _SUM, dim, keepdim)) is not None:
        return y
    x = cast(input, dt.int64) if dtype is None and dtype_of(input) is dt.bool else input
    op = Sum(wrap_dims(dim, len(shape_of(x)), "sum"), keepdim)
    y = _found(op, x, input, _SUM, dim, keepdim)
    if dtype is not None:
        y = cast(y, dtype)
    return y if out is None else out.copy_result(y)


def _found(op: Reduce, x: Any, input: Any, *wish: Any) -> Any:
    """op(x), which is what `input` wishes from now on where it was not cast."""
    if x is input:
        return dispatch.told(op, x, *wish)
    return dispatch.told_chain(_of_cast, (op, dtype_of(x)), input, *wish)


def _of_cast(x: Any, op: Reduce, d: dt.dtype) -> Any:
    return apply(op, cast(x, d))


_SUM, _ARGMAX, _ARGMIN, _ANY, _ALL, _AMAX, _AMIN = [dispatch.wish() for _ in range(7)]


def sum_to(x: Any, shape: Any) -> Any:
    """x summed to `shape`: the adjoint of broadcasting `shape` to x's shape."""
    have = shape_of(x)
    shape = tuple(shape)
    if have == shape:
        return x
    lead = len(have) - len(shape)
    dims = tuple(range(lead)) + tuple(
        lead + i for i, n in enumerate(shape) if n == 1 and have[lead + i] != 1
    )
    y = apply(Sum(dims, False), x) if dims else x
    return y if shape_of(y) == shape else reshape(y, shape)  # no view where none is needed


@numpy_words
def mean(
    input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Any:
    """y = sum / count; RuntimeError for integer tensors unless dtype is given."""
    if dtype is not None:
        input = cast(input, dtype)
    d = dtype_of(input)
    plain = dim is None or dim.__class__ is int
    known = _MEANS.get((shape_of(input), d, dim, keepdim)) if plain else None
    if known is not None:
        op, count = known
        y = op.quick(input)
        y = (apply(op, input) if y is None else y) / count
        return y if out is None else out.copy_result(y)
    if d.category < dt.FLOAT:
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {d.spelled}"
        )
    shape = shape_of(input)
    dims = wrap_dims(dim, len(shape), "mean")
    size = numel(shape[i] for i in dims)
    op, count = Sum(dims, keepdim), float(size) if size else math.nan
    if plain and len(_MEANS) < _MOST_MEANS:
        _MEANS[shape, d, dim, keepdim] = op, count
    y = apply(op, input) / count
    return y if out is None else out.copy_result(y)


_MEANS: dict[tuple, tuple[Sum, float]] = {}  # by shape, dtype, dim and keepdim
_MOST_MEANS = 10_000


@numpy_words
def amax(input: Any, dim: Any = (), keepdim: bool = False, *, out: Any = None) -> Any:
    """y = the largest along dim; ties share the gradient."""
    return _extreme(_AMAX, AMax, input, dim, keepdim, out)


@numpy_words
def amin(input: Any, dim: Any = (), keepdim: bool = False, *, out: Any = None) -> Any:
    """y = the smallest along dim; ties share the gradient."""
    return _extreme(_AMIN, AMin, input, dim, keepdim, out)


def _extreme(wish: int, kind: Any, x: Any, dim: Any, keepdim: bool, out: Any) -> Any:
    if out is None and (y := dispatch.known(x, wish, dim, keepdim)) is not None:
        return y
    op = kind(_extreme_dims(x, dim, kind.__name__.lower()), keepdim)
    y = dispatch.told(op, x, wish, dim, keepdim)
    return y if out is None else out.copy_result(y)


def _extreme_dims(x: Any, dim: Any, op: str) -> tuple[int, ...]:
    shape = shape_of(x)
    dims = wrap_dims(dim, len(shape), op)
    if 0 in shape and op in ("amax", "amin") and (dim is None or dim == ()):
        raise RuntimeError(
            f"{op}(): Expected reduction dim to be specified for input.numel() == 0. Specify the "
            "reduction dim with the 'dim' argument."
        )
    if 0 in [shape[d] for d in dims]:
        raise IndexError(
            f"{op}(): Expected reduction dim {dims[0]} to have non-zero size (shape {list(shape)})"
        )
    return dims


@numpy_words
def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """y = the index of the first largest element along dim (of the flattened input when None)."""
    return _arg_extreme(_ARGMAX, ArgMax, input, dim, keepdim, "argmax")


@numpy_words
def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """y = the index of the first smallest element along dim (of the flattened input when None)."""
    return _arg_extreme(_ARGMIN, ArgMin, input, dim, keepdim, "argmin")


def _arg_extreme(wish: int, kind: Any, x: Any, dim: int | None, keepdim: bool, op: str) -> Any:
    if (y := dispatch.known(x, wish, dim, keepdim)) is not None:
        return y
    need_real(x, f"{op}(): does not support complex input", RuntimeError)
    shape = shape_of(x)
    dims = _extreme_dims(x, () if dim is None else wrap_dim(dim, len(shape), op), op)
    return dispatch.told(kind(dims, keepdim), x, wish, dim, keepdim)


def _of_truth(wish: int, kind: Any, x: Any, dim: Any, keepdim: bool, out: Any, op: str) -> Any:
    truth = cast(x, dt.bool)
    if dim.__class__ in (tuple, list) and not dim:  # no dim at all, as torch
        y = truth.clone() if truth is x else truth
    else:
        dims = wrap_dims(dim, len(shape_of(x)), op)
        y = _found(kind(dims, keepdim), truth, x, wish, dim, keepdim)
    y = cast(y, dt.uint8) if dtype_of(x) is dt.uint8 else y  # as torch
    return y if out is None else out.copy_result(y)


@numpy_words
def any(input: Any, dim: Any = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """y = whether any element along dim is nonzero."""
    if out is None and (y := dispatch.known(input, _ANY, dim, keepdim)) is not None:
        return y
    return _of_truth(_ANY, Any_, input, dim, keepdim, out, "any")


@numpy_words
def all(input: Any, dim: Any = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """y = whether all elements along dim are nonzero."""
    if out is None and (y := dispatch.known(input, _ALL, dim, keepdim)) is not None:
        return y
    return _of_truth(_ALL, All_, input, dim, keepdim, out, "all")


@numpy_words
def prod(
    input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Any:
    """y = the product along dim (all dims when None); integers and bools as int64."""
    if dtype is not None:
        input = cast(input, dtype)
    if dtype_of(input) is dt.bool:
        input = cast(input, dt.int64)
    dims = wrap_dims(dim, len(shape_of(input)), "prod")
    y = apply(Prod(dims, keepdim), input)
    y = y if dtype is None else cast(y, dtype)
    return y if out is None else out.copy_result(y)

"""Order: sort, topk, kthvalue, median, mode, max and min.

The ops give places (ArgSort, ModeIndex); values are gathered from them, so a gradient flows to the
chosen elements.  Sorting is stable and NaN counts as the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import Handle, state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, numel, numpy_words, wrap_dim
from weft.ops import dispatch
from weft.ops.arithmetic import maximum, minimum
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import apply, dtype_of, shape_of, tell_kernel
from weft.ops.gather import WITH_ONE, gather
from weft.ops.kinds import by_batch, by_loop
from weft.ops.promote import need_real
from weft.ops.reduce import AMax, AMin, amax, amin, argmax, argmin, shared_evenly
from weft.ops.returns import AMinMax, KthValue, Max, Median, Min, Mode, NanMedian, Sort, TopK
from weft.ops.view import reshape, squeeze, unsqueeze
from weft.runtime import memory, native, random_code
from weft.runtime.native import Launch
from weft.runtime.random_code import MOST_SORTED

__all__ = [
    "aminmax", "argsort", "kthvalue", "max", "median", "min", "mode", "msort", "nanmedian",
    "sort", "topk",
]  # fmt: skip


def comparable(x: np.ndarray) -> np.ndarray:
    """The same order in a dtype that NumPy sorts."""
    return x.astype(np.float32) if x.dtype == dt.bfloat16.np else x


class ArgSort(Op):
    """y = the places of x's elements along dim in ascending (or descending) order, stable"""

    dim: int = 0
    descending: bool = False
    nondiff = "its result is an index"

    def type(self, x: Type) -> Type:
        return Type(x.shape, dt.int64)

    def host(self, x: np.ndarray) -> np.ndarray:
        x = comparable(x)
        if not self.descending:
            return np.ascontiguousarray(x.argsort(self.dim, "stable"))
        # backwards twice, so that equal elements keep their order
        turn = (slice(None),) * self.dim + (slice(None, None, -1),)
        back = x[turn].argsort(self.dim, "stable")
        return np.ascontiguousarray(x.shape[self.dim] - 1 - back[turn])

    def oracle(self, x: np.ndarray) -> np.ndarray:
        def key(v: Any) -> tuple:
            return (math.isnan(v), 0 if math.isnan(v) else v)

        rows = np.moveaxis(x, self.dim, -1)
        out = np.zeros(rows.shape, np.int64)
        for at in np.ndindex(*rows.shape[:-1]):
            row = rows[at]
            out[at] = sorted(
                range(len(row)), key=lambda i, row=row: key(row[i]), reverse=self.descending
            )
        return np.moveaxis(out, -1, self.dim)

    vmap = by_batch

    onnx = Onnx("TopK", 11, build=onnx_rules.top_k)
    samples = (
        sample((3, 4), dim=1),
        sample((5, 2), dim=0, descending=True),
        sample((6,), of="int64", descending=True),
        sample((0, 3), dim=0),
    )


def _in_rows(x: Any, dim: int, k: int, descending: bool) -> Launch | None:
    """What orders short rows natively."""
    shape = shape_of(x)
    if dtype_of(x) is not dt.float32 or dim != len(shape) - 1 or not 0 < shape[dim] <= MOST_SORTED:
        return None
    return random_code.order(numel(shape[:-1]), shape[dim], k, descending=descending)


_FEW = 256  # elements that are sorted in less time than parted


class TopKIndex(Op):
    """y = the places of the k largest (or smallest) of x along dim, best first; NaN the largest"""

    k: int = 1
    dim: int = 0
    descending: bool = True  # the largest first
    nondiff = "its result is an index"

    def type(self, x: Type) -> Type:
        if not 0 <= self.k <= x.shape[self.dim]:
            raise RuntimeError("selected index k out of range")
        return Type((*x.shape[: self.dim], self.k, *x.shape[self.dim + 1 :]), dt.int64)

    def host(self, x: np.ndarray) -> np.ndarray:
        self.type(Type(x.shape, dt.int64))
        n, k = x.shape[self.dim], self.k
        last = self.dim == x.ndim - 1 and x.flags.c_contiguous and x.dtype == np.float32
        if last and 0 < 4 * k <= n < 2**31 and k <= kernels.MOST_PLACES and x.size:
            y = memory.empty((*x.shape[:-1], k), np.dtype(np.int64))
            plan = kernels.plan_topk(x.size // n, n, k, largest=self.descending)
            if native.launch(plan, y, [x]):
                raise memory.OutOfMemory(native.detail(), f"{self}: scratch: ")
            return y
        if n <= _FEW:
            order = ArgSort(self.dim, self.descending).host(x)
            return np.ascontiguousarray(order[(slice(None),) * self.dim + (slice(k),)])
        x = np.moveaxis(comparable(x), self.dim, -1)
        if k in (0, n):
            chosen = np.broadcast_to(np.arange(k), (*x.shape[:-1], k))
        elif self.descending:
            chosen = np.argpartition(x, n - k, -1)[..., n - k :]
        else:
            chosen = np.argpartition(x, k - 1, -1)[..., :k]
        chosen = np.sort(chosen, -1)  # equal values: the first place first
        values = np.take_along_axis(x, chosen, -1)
        order = ArgSort(x.ndim - 1, self.descending).host(values)
        y = np.take_along_axis(chosen, order, -1)
        return np.ascontiguousarray(np.moveaxis(y, -1, self.dim))

    def oracle(self, x: np.ndarray) -> np.ndarray:
        order = ArgSort(self.dim, self.descending).oracle(x)
        return np.take(order, range(self.k), self.dim)

    vmap = by_batch

    onnx = Onnx("TopK", 11, build=onnx_rules.top_k)
    samples = (
        sample((3, 6), k=2, dim=1),
        sample((5, 2), k=3, dim=0, descending=False),
        sample((4,), k=4),
    )


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where they are equal; NaN is one value."""
    return (a == b) | ((a != a) & (b != b))


@lru_cache(1024)
def _choice(kind: str, shape: tuple, d: Any, dim: int, k: int) -> Launch | None:
    """What finds one place of rows natively."""
    n, most = shape[dim], kernels.MOST_COUNTED + 1 if kind == "mode" else 2**31
    if d != np.float32 or dim != len(shape) - 1 or not 0 < n < most:
        return None
    return kernels.plan_choice(kind, numel(shape[:-1]), n, k) if numel(shape) else None


def _by_counting(kind: str, x: np.ndarray, dim: int, k: int = 0) -> np.ndarray | None:
    x = x.swapaxes(dim, -1)
    launch = _choice(kind, x.shape, x.dtype, x.ndim - 1, k)
    if launch is None:
        return None
    y = memory.empty((*x.shape[:-1], 1), np.dtype(np.int64))
    native.launch(launch, y, [np.ascontiguousarray(x)])
    return np.ascontiguousarray(y.swapaxes(dim, -1))


class KthIndex(Op):
    """y = the first place of the k-th smallest of x along dim, k counted from 1; dim stays, of 1"""

    k: int = 1
    dim: int = 0
    nondiff = "its result is an index"

    def type(self, x: Type) -> Type:
        if not 1 <= self.k <= x.shape[self.dim]:
            raise RuntimeError(
                f"kthvalue(): selected number k out of range for dimension {self.dim}"
            )
        return Type((*x.shape[: self.dim], 1, *x.shape[self.dim + 1 :]), dt.int64)

    def host(self, x: np.ndarray) -> np.ndarray:
        self.type(Type(x.shape, dt.int64))
        if (y := _by_counting("kthvalue", x, self.dim, self.k - 1)) is not None:
            return y
        x = comparable(x)
        value = np.take(np.partition(x, self.k - 1, self.dim), [self.k - 1], self.dim)
        return _same(x, value).argmax(self.dim, keepdims=True)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        value = np.take(np.sort(x, self.dim), [self.k - 1], self.dim)
        return _same(x, value).argmax(self.dim, keepdims=True)

    vmap = by_batch

    onnx = Onnx("TopK", 11, build=onnx_rules.kth)
    samples = (sample((3, 6), k=2, dim=1), sample((5, 2), k=5, dim=0), sample((3,), k=1))


class MiddleIndex(Op):
    """y = the first place of the lower of the middle elements of x along dim; dim stays, of size 1

    The first NaN where there is any, unless they are left out.
    """

    dim: int = 0
    skip: bool = False
    nondiff = "its result is an index"

    def type(self, x: Type) -> Type:
        return KthIndex(1, self.dim).type(x)

    def host(self, x: np.ndarray) -> np.ndarray:
        kind, n = "nanmedian" if self.skip else "median", x.shape[self.dim]
        y = _by_counting(kind, x, self.dim, (n - 1) // 2)
        return self.oracle(comparable(x)) if y is None else y

    def oracle(self, x: np.ndarray) -> np.ndarray:
        numbers = (x == x).sum(self.dim, keepdims=True)
        last = np.where(numbers < x.shape[self.dim], x.shape[self.dim] - 1, (numbers - 1) // 2)
        rank = np.maximum((numbers - 1) // 2, 0) if self.skip else last
        value = np.take_along_axis(np.sort(x, self.dim), rank, self.dim)
        return np.asarray(_same(x, value).argmax(self.dim, keepdims=True))

    def body(self, x: Any) -> Any:
        d = self.dim
        if self.skip:
            count = (x == x).sum(d, keepdim=True)
            at = gather(apply(ArgSort(d), x), d, ((count - 1) // 2).clamp(min=0))
            return argmax(cast(x == gather(x, d, at), dt.uint8), d, True)
        at = apply(KthIndex((shape_of(x)[d] - 1) // 2 + 1, d), x)
        if dtype_of(x).category == dt.FLOAT:
            top = argmax(x, d, True)
            largest = gather(x, d, top)
            at = top.where(largest != largest, at)
        return at

    samples = (sample((3, 6), dim=1), sample((5, 2), dim=0, skip=True), sample((3,)))


class ModeIndex(Op):
    """y = the last place along dim of the most frequent value (the smallest of several)

    NaN is one value.
    """

    dim: int = 0
    nondiff = "its result is an index"

    def type(self, x: Type) -> Type:
        shape = (*x.shape[: self.dim], *x.shape[self.dim + 1 :])
        if x.shape[self.dim] == 0 and 0 not in shape:
            raise IndexError(f"mode(): Expected reduction dim {self.dim} to have non-zero size.")
        return Type(shape, dt.int64)

    def host(self, x: np.ndarray) -> np.ndarray:
        if (y := _by_counting("mode", x, self.dim)) is not None:
            return y.squeeze(self.dim)
        if not x.size:
            return np.zeros(self.type(Type(x.shape, dt.int64)).shape, np.int64)
        x = np.moveaxis(comparable(x), self.dim, -1)
        ordered, at = np.sort(x, -1), np.arange(x.shape[-1])
        first = np.ones(x.shape, bool)
        first[..., 1:] = ~_same(ordered[..., 1:], ordered[..., :-1])
        lengths = at - np.maximum.accumulate(np.where(first, at, 0), -1)
        most = np.take_along_axis(ordered, lengths.argmax(-1)[..., None], -1)
        return np.asarray(at[-1] - _same(x, most)[..., ::-1].argmax(-1))

    def oracle(self, x: np.ndarray) -> np.ndarray:
        rows = np.moveaxis(x, self.dim, -1)
        out = np.zeros(rows.shape[:-1], np.int64)
        for at in np.ndindex(*out.shape):
            values, counts = np.unique(rows[at], return_counts=True)
            out[at] = np.flatnonzero(_same(rows[at], values[counts.argmax()]))[-1]
        return out

    vmap = by_loop
    samples = (sample((3, 5), of="int64", dim=1), sample((4,), dim=0))


_SORT, _TOPK = (dispatch.wish() for _ in range(2))


def _line(input: Any, dim: int, op: str) -> tuple[Any, int, bool]:
    """(input with at least one dim, the dim counted from 0, whether it had none)."""
    shape = shape_of(input)
    d = wrap_dim(dim, len(shape), op)
    return (input, d, False) if shape else (reshape(input, (1,)), 0, True)


@numpy_words
def sort(
    input: Any, dim: int = -1, descending: bool = False, stable: bool = False, *, out: Any = None
) -> Any:
    """(values, indices) along dim in ascending order; always stable; NaN is the largest."""
    wish = _SORT, dim, descending
    if out is None and (indices := dispatch.known(input, *wish)) is not None:
        return Sort(gather(input, dim, indices), indices)
    need_real(input, "Sort does not support complex dtypes on CPU", RuntimeError)
    x, d, scalar = _line(input, dim, "sort")
    indices = apply(op := ArgSort(d, descending), x)
    values = gather(x, d, indices)
    if not scalar:
        make = partial(_in_rows, x, d, shape_of(x)[d], descending)
        tell_kernel(indices, op, make, input, *wish)
    else:
        values, indices = reshape(values, ()), reshape(indices, ())
    return _given(Sort(values, indices), out)


def _given(result: Any, out: Any) -> Any:
    if out is None:
        return result
    return type(result)(*(o.copy_result(y) for o, y in zip(out, result, strict=True)))


@numpy_words
def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The places of the elements along dim in ascending order."""
    need_real(input, "Sort does not support complex dtypes on CPU", RuntimeError)
    return sort(input, dim, descending, stable).indices


def msort(input: Any) -> Any:
    """input sorted along its first dim."""
    return sort(input, 0).values


@numpy_words
def topk(
    input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *,
    out: Any = None,
) -> Any:  # fmt: skip
    """(values, indices) of the k largest (or smallest) along dim, in order."""
    wish = _TOPK, k, dim, largest
    if out is None and (indices := dispatch.known(input, *wish)) is not None:
        return TopK(gather(input, dim, indices), indices)
    need_real(input, "topk does not support complex dtypes on CPU", RuntimeError)
    x, d, scalar = _line(input, dim, "topk")
    if not 0 <= k <= shape_of(x)[d]:
        raise RuntimeError("selected index k out of range")
    indices = apply(op := TopKIndex(k, d, largest), x)
    values = gather(x, d, indices)
    if not scalar and k:
        tell_kernel(indices, op, partial(_in_rows, x, d, k, largest), input, *wish)
    if scalar and k == 1:
        values, indices = reshape(values, ()), reshape(indices, ())
    return _given(TopK(values, indices), out)


def _picked(kind: Any, x: Any, d: int, at: Any, keepdim: bool, scalar: bool) -> Any:
    """(values, indices) where `at` has size 1 along d."""
    values = gather(x, d, at)
    if scalar:
        return kind(reshape(values, ()), reshape(at, ()))
    return kind(values, at) if keepdim else kind(squeeze(values, d), squeeze(at, d))


_CHOSEN = dispatch.wish()


def _chosen(
    kind: str, named: Any, place: Callable, input: Any, dim: int, keepdim: bool, out: Any,
    k: int = 0,
) -> Any:  # fmt: skip
    """(values, indices) of what `place` finds along dim, where it has size 1."""
    wish = _CHOSEN, kind, dim, k
    if out is None and (at := dispatch.known(input, *wish)) is not None:
        return _picked(named, input, dim, at, keepdim, False)
    x, d, scalar = _line(input, dim, kind)
    if shape_of(x)[d] == 0:
        raise IndexError(f"{kind}(): Expected reduction dim {d} to have non-zero size.")
    at = place(x, d, k)
    if not scalar:
        short = kind, shape_of(x), dtype_of(x).np, d
        below = k - 1 if k else (shape_of(x)[d] - 1) // 2
        tell_kernel(
            at, dispatch.Chained(place, (d, k)), lambda: _choice(*short, below), input, *wish
        )
    return _given(_picked(named, x, d, at, keepdim, scalar), out)


def _kth_place(x: Any, d: int, k: int) -> Any:
    if not 1 <= k <= shape_of(x)[d]:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {d}")
    return apply(KthIndex(k, d), x)


@numpy_words
def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Any:
    """(values, indices) of the k-th smallest along dim, k counted from 1."""
    need_real(input, '"kthvalue_cpu" not implemented for complex numbers')
    return _chosen("kthvalue", KthValue, _kth_place, input, dim, keepdim, out, k)


def _median_place(x: Any, d: int, _: int) -> Any:
    return apply(MiddleIndex(d), x)


@numpy_words
def median(input: Any, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """The lower of the middle elements: (values, indices) along dim, or one value of all, whose
    gradient its equals share.  NaN where there is any.
    """
    need_real(input, '"median_cpu" not implemented for complex numbers')
    if dim is None:
        return _of_all(median, _median_place, input)
    return _chosen("median", Median, _median_place, input, dim, keepdim, out)


def _nanmedian_place(x: Any, d: int, _: int) -> Any:
    return apply(MiddleIndex(d, True), x)


@numpy_words
def nanmedian(input: Any, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """median of the elements that are not NaN."""
    need_real(input, f"\"nanmedian_cpu\" not implemented for '{dtype_of(input).spelled}'")
    if dim is None:
        return _of_all(nanmedian, _nanmedian_place, input)
    return _chosen("nanmedian", NanMedian, _nanmedian_place, input, dim, keepdim, out)


class OneOfAll(Op):
    """y = x[at], one place; its equals (NaN is one) share the cotangent, as torch's median"""

    def type(self, x: Type, at: Type) -> Type:
        if x.shape == (0,) != at.shape:
            raise IndexError("median: no element is the one in the middle")
        return Type(at.shape, x.dtype)

    def body(self, x: Any, at: Any) -> Any:
        return gather(x, 0, at)

    def vjp(self, g: Any, y: Any, x: Any, at: Any) -> tuple:
        return shared_evenly(g, y, x), None

    samples = (sample((5,), (1,), **WITH_ONE),)


def _of_all(along: Callable, place: Callable, x: Any) -> Any:
    n, d = numel(shape_of(x)), dtype_of(x)
    if n:
        rows = reshape(x, (n,))
        if state.grad and x._rg:
            return reshape(apply(OneOfAll(), rows, place(rows, 0, 0)), ())
        return along(rows, 0).values
    return full((), math.nan if d.category == dt.FLOAT else int(np.iinfo(d.np).min), dtype=d)


def _mode_place(x: Any, d: int, _: int) -> Any:
    return unsqueeze(apply(ModeIndex(d), x), d)


@numpy_words
def mode(input: Any, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Any:
    """(values, indices) of the most frequent value along dim (the smallest of several)."""
    need_real(input, '"mode_cpu" not implemented for complex numbers')
    return _chosen("mode", Mode, _mode_place, input, dim, keepdim, out)


@numpy_words
def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None,
        out: Any = None) -> Any:  # fmt: skip
    """The largest of all; (values, indices) along dim; or of two tensors, elementwise.

    NaN wins.  Of equal elements along dim the first is taken, and gets the gradient; of all
    elements those that are equal share it.
    """
    return _extreme("max", AMax, argmax, maximum, Max, input, dim, keepdim, other, out)


@numpy_words
def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None,
        out: Any = None) -> Any:  # fmt: skip
    """The smallest of all; (values, indices) along dim; or of two tensors, elementwise.

    NaN wins.  Of equal elements along dim the first is taken, and gets the gradient; of all
    elements those that are equal share it.
    """
    return _extreme("min", AMin, argmin, minimum, Min, input, dim, keepdim, other, out)


_WHOLE = {"max": dispatch.wish(), "min": dispatch.wish()}


def _extreme(
    op: str, whole: Any, place: Any, of_two: Any, kind: Any, x: Any, dim: Any, keepdim: bool,
    other: Any, out: Any,
) -> Any:  # fmt: skip
    if isinstance(dim, Handle) or other is not None:
        return of_two(x, dim if other is None else other, out=out)
    y = dispatch.known(x, _WHOLE[op]) if dim is out is None else None
    if y is not None:
        return y
    wish = _WHOLE[op], dim, keepdim
    off_tape = out is None and not (state.grad and getattr(x, "_rg", True))
    if off_tape and (both := dispatch.parts(x, *wish)) is not None:
        return kind(*both)
    shape = shape_of(x)
    if dim is None:
        if numel(shape) == 0:
            raise RuntimeError(
                f"{op}(): Expected reduction dim to be specified for input.numel() == 0. Specify "
                "the reduction dim with the 'dim' argument."
            )
        y = dispatch.told(whole(tuple(range(len(shape))), False, True), x, _WHOLE[op])
        return y if out is None else out.copy_result(y)
    d = wrap_dim(dim, len(shape), op)
    if not shape:
        at = place(x)
        return kind(x.clone(), at)
    if shape[d] == 0:
        raise IndexError(f"{op}(): Expected reduction dim {d} to have non-zero size.")
    at = _place_of(x, place, d, True)
    values = gather(x, d, at)
    if not keepdim:
        values, at = squeeze(values, d), squeeze(at, d)
    if off_tape:
        dispatch.tell_chains(
            [(_extreme_of, (place, d, keepdim), values), (_place_of, (place, d, keepdim), at)],
            x, *wish,
        )  # fmt: skip
    if out is not None:
        return kind(out[0].copy_result(values), out[1].copy_result(at))
    return kind(values, at)


def _place_of(x: Any, place: Any, d: int, keepdim: bool) -> Any:
    return place(cast(x, dt.uint8) if dtype_of(x) is dt.bool else x, d, keepdim)


def _extreme_of(x: Any, place: Any, d: int, keepdim: bool) -> Any:
    values = gather(x, d, _place_of(x, place, d, True))
    return values if keepdim else squeeze(values, d)


@numpy_words
def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False, out: Any = None) -> Any:
    """(min, max) of all elements or along dim; equal elements share the gradient."""
    if out is not None:
        for o in out:
            if dtype_of(o) is not dtype_of(input):
                raise RuntimeError(
                    f"Expected out tensor to have dtype {dtype_of(input).name}, but got "
                    f"{dtype_of(o).name} instead"
                )
        y = aminmax(input, dim=dim, keepdim=keepdim)
        return AMinMax(out[0].copy_result(y.min), out[1].copy_result(y.max))
    dims = () if dim is None else dim
    if dim is None and keepdim:
        one = (1,) * len(shape_of(input))
        return AMinMax(reshape(amin(input), one), reshape(amax(input), one))
    return AMinMax(amin(input, dims, keepdim), amax(input, dims, keepdim))

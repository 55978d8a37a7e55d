"""What a mask chooses: masked_fill, masked_select, nonzero, one_hot, counting.

The shape of masked_select and nonzero depends on the values, so inside a compiled function these
end a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.core.types import broadcast_shapes, numel, numpy_words
from weft.ops.cast import cast
from weft.ops.compare import where
from weft.ops.creation import arange, full
from weft.ops.dispatch import apply, chained, dtype_of, read, shape_of, wrap
from weft.ops.index import Index, IndexPut
from weft.ops.view import expand, reshape, unsqueeze

__all__ = [
    "argwhere", "bincount", "count_nonzero", "masked_fill", "masked_scatter", "masked_select",
    "nonzero",
]  # fmt: skip


def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """y = value where mask, else input; in input's dtype.  value: a number or a 0-dim tensor."""
    if dtype_of(mask) is not dt.bool:
        raise RuntimeError(
            "masked_fill_ only supports boolean masks, but got mask with dtype "
            f"{dtype_of(mask).name}"
        )
    if isinstance(value, complex) and not dtype_of(input).is_complex:
        raise RuntimeError(
            f"value cannot be converted to type {dtype_of(input).name} without overflow"
        )
    if (
        isinstance(value, Handle)
        and dtype_of(value).category == dt.COMPLEX
        and dtype_of(input).category != dt.COMPLEX
    ):
        raise RuntimeError(
            f"value cannot be converted to type {dtype_of(input).name}: it is complex"
        )
    if not isinstance(value, Handle):
        value = full((), value, dtype=dtype_of(input))
    elif shape_of(value):
        raise RuntimeError(
            "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{len(shape_of(value))} dimension(s)."
        )
    return where(mask, cast(value, dtype_of(input)), input)


def _spread(input: Any, mask: Any, op: str) -> tuple[Any, Any]:
    if dtype_of(mask) is not dt.bool:
        raise RuntimeError(f"{op}: expected BoolTensor for mask")
    shape = broadcast_shapes(shape_of(input), shape_of(mask), op=op)
    return expand(input, shape), expand(mask, shape)


def _true_places(mask: Any) -> Any:
    """The flat places where mask is true, as an index tensor."""
    return wrap(np.flatnonzero(mask._a))


def masked_select(input: Any, mask: Any, *, out: Any = None) -> Any:
    """y = the elements of input where mask is true, in order, as a vector."""
    x, m = _spread(input, mask, "masked_select")
    y = apply(Index((0,), 0), reshape(x, (numel(shape_of(x)),)), _true_places(m))
    return y if out is None else out.copy_result(y)


def masked_scatter(input: Any, mask: Any, source: Any) -> Any:
    """y = input with source's first elements, in order, where mask is true."""
    x, m = _spread(input, mask, "masked_scatter")
    if dtype_of(source) is not dtype_of(input):
        raise RuntimeError(
            "masked_scatter: expected self and source to have same dtypes but got "
            f"{dtype_of(input).name} and {dtype_of(source).name}"
        )
    places = _true_places(m)
    n, have = shape_of(places)[0], numel(shape_of(source))
    if n > have:
        raise RuntimeError("Number of elements of source < number of ones in mask")
    flat = reshape(x, (numel(shape_of(x)),))
    y = apply(IndexPut((0,), 0), flat, reshape(source, (have,)).narrow(0, 0, n), places)
    return reshape(y, shape_of(x))


def nonzero(input: Any, *, as_tuple: bool = False, out: Any = None) -> Any:
    """The places of the nonzero elements: (n, rank) int64, or with as_tuple one vector a dim."""
    a = read(input)
    places = _places(a.reshape(a.shape or (1,)))
    if as_tuple:
        return tuple(map(wrap, places))
    found = np.empty((len(places[0]), a.ndim), np.int64)
    for d in range(a.ndim):
        found[:, d] = places[d]
    y = wrap(found)
    return y if out is None else out.copy_result(y)


def _places(a: np.ndarray) -> Sequence[np.ndarray]:
    """The coordinates of what is not 0, an array a dim."""
    if a.size < _FEW or a.ndim < 2:
        return np.nonzero(a)
    at, places = np.flatnonzero(a), []
    for n in a.shape[:0:-1]:
        rest = at // n
        places.append(at - rest * n)
        at = rest
    return [at, *places[::-1]]


_FEW = 1024  # elements, of which NumPy counts dim by dim in less time


def argwhere(input: Any) -> Any:
    """The places of the nonzero elements, (n, rank) int64."""
    return nonzero(input)


@chained
@numpy_words
def count_nonzero(input: Any, dim: Any = None) -> Any:
    """y = how many elements along dim (all dims when None) are not 0."""
    return cast(input, dt.bool).sum(dim)


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """y[..., k] = 1 where tensor[...] == k, else 0; int64.

    num_classes -1: one more than the largest value.  RuntimeError: a value outside
    [0, num_classes).
    """
    if dtype_of(tensor) is not dt.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    shape = shape_of(tensor)
    if numel(shape):
        values = tensor._a
        if np.minimum.reduce(values, None) < 0:
            raise RuntimeError("Class values must be non-negative.")
        most = int(np.maximum.reduce(values, None))
        if num_classes == -1:
            num_classes = most + 1
        elif most >= num_classes:
            raise RuntimeError("Class values must be smaller than num_classes.")
    elif num_classes <= 0:
        raise RuntimeError("Can not infer total number of classes from empty tensor.")
    return _hot(tensor, num_classes)


@chained
def _hot(x: Any, count: int) -> Any:
    return cast(unsqueeze(x, -1) == arange(count), dt.int64)


def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """y[k] = how often k occurs in the vector (or the sum of its weights)."""
    a = read(input)
    if a.ndim != 1 or a.dtype.kind not in "iu" or (a.size and a.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if weights is None:
        return wrap(np.bincount(a, minlength=minlength).astype(np.int64))
    if shape_of(weights) != a.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    wide = dt.float32 if dtype_of(weights) is dt.float32 else dt.float64
    n = max(minlength, int(a.max()) + 1 if a.size else 0)
    return full((n,), 0, dtype=wide).index_add(0, input, cast(weights, wide))

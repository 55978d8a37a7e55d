"""Distinct values, and places in a sorted sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.core.op import Op, sample
from weft.core.types import Type, numel, one_type, wrap_dim
from weft.kernels.layout import Layout
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import apply, dtype_of, read, shape_of, wrap
from weft.ops.gather import gather
from weft.ops.kinds import by_loop
from weft.ops.sort import comparable
from weft.runtime.native import Launch

__all__ = ["bucketize", "searchsorted", "unique", "unique_consecutive"]


class SearchSorted(Op):
    """y = how many of the ascending edges are < v (<= v when `right`), row by row or of one row"""

    right: bool = False
    nondiff = "its result is an index"

    def type(self, edges: Type, values: Type) -> Type:
        rows = values.shape[:-1] if edges.ndim > 1 else ()
        one_type(self, Type(edges.shape[:-1], edges.dtype), Type(rows, values.dtype))
        if edges.ndim == 0 or edges.dtype.is_complex:
            raise RuntimeError(f"{self}: {edges} are no edges")
        return Type(values.shape, dt.int64)

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_search(*ins, right=self.right)

    def oracle(self, edges: np.ndarray, values: np.ndarray) -> np.ndarray:
        under = np.less_equal if self.right else np.less
        return under(edges[..., None, :] if edges.ndim > 1 else edges, values[..., None]).sum(-1)

    vmap = by_loop
    samples = (sample((1,), (2, 3)), sample((2, 1), (2, 4), right=True), sample((0,), (3,)))


def searchsorted(
    sorted_sequence: Any, input: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, out: Any = None, sorter: Any = None,
) -> Any:  # fmt: skip
    """y = where each of input goes in the ascending sorted_sequence (its last dim, row by row).

    right (side="right"): behind the elements that equal it, else before them.
    """
    if side is not None:
        if side not in ("left", "right"):
            raise RuntimeError(
                f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}"
            )
        if right and side == "left":
            raise RuntimeError(
                "torch.searchsorted(): side and right can't be set to opposites, got side of left "
                "while right was True"
            )
        right = side == "right"
    if not isinstance(input, Handle):
        input = full((), input, dtype=dtype_of(sorted_sequence))
    edges, values = shape_of(sorted_sequence), shape_of(input)
    if dtype_of(sorted_sequence) is not dtype_of(input):
        raise RuntimeError(
            "torch.searchsorted(): boundary tensor and input value tensor should have same dtype, "
            f"but got boundary tensor dtype {dtype_of(sorted_sequence).name} and input value "
            f"tensor dtype {dtype_of(input).name}"
        )
    if len(edges) != 1 and (not values or edges[:-1] != values[:-1]):
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 "
            "dimensions of boundaries tensor and input value tensor must match, but we got "
            f"boundaries tensor {list(edges)} and input value tensor {list(values)}"
        )
    if sorter is not None:
        sorted_sequence = gather(sorted_sequence, -1, sorter)
    y = apply(SearchSorted(bool(right)), sorted_sequence, input)
    y = cast(y, dt.int32) if out_int32 else y
    return y if out is None else out.copy_result(y)


def bucketize(
    input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False, out: Any = None
) -> Any:
    """y = the bucket of each of input between the ascending boundaries (a vector)."""
    if len(shape_of(boundaries)) != 1:
        raise RuntimeError(
            "bucketize(): boundaries tensor must be 1 dimension, but got "
            f"dim({len(shape_of(boundaries))})"
        )
    return searchsorted(boundaries, input, out_int32=out_int32, right=right, out=out)


def unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The distinct elements (or slices along dim), ascending; NaNs stay apart.

    With return_inverse where each element went, with return_counts how often it occurs.
    """
    a = comparable(read(input))
    d = None if dim is None else wrap_dim(dim, a.ndim, "unique")
    got = np.unique(a, return_inverse=True, return_counts=True, axis=d, equal_nan=False)
    inverse = got[1].reshape(a.shape if d is None else (-1,))
    return _chosen(input, got[0], inverse, got[2], return_inverse, return_counts)


def unique_consecutive(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements (or slices along dim) without those that equal the one before."""
    a = comparable(read(input))
    d = 0 if dim is None else wrap_dim(dim, a.ndim, "unique_consecutive")
    rows = a.reshape(-1) if dim is None else np.moveaxis(a, d, 0)
    n = len(rows)
    differs = (rows[1:] != rows[:-1]).reshape(max(n - 1, 0), numel(rows.shape[1:])).any(1)
    first = np.concatenate([np.ones(min(n, 1), bool), differs])
    starts = np.flatnonzero(first)
    inverse = np.cumsum(first) - 1
    inverse = inverse.reshape(a.shape) if dim is None else inverse
    values = np.moveaxis(rows[starts], 0, d)
    counts = np.diff(np.append(starts, n))
    return _chosen(input, values, inverse, counts, return_inverse, return_counts)


def _chosen(
    x: Any, values: np.ndarray, inverse: np.ndarray, counts: np.ndarray, with_inverse: bool,
    with_counts: bool,
) -> Any:  # fmt: skip
    out = [wrap(np.ascontiguousarray(values).astype(dtype_of(x).np))]
    if with_inverse:
        out.append(wrap(np.array(inverse, np.int64, order="C")))
    if with_counts:
        out.append(wrap(np.ascontiguousarray(counts, np.int64)))
    return out[0] if len(out) == 1 else tuple(out)

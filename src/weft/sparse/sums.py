"""Sums, norms and softmax of sparse tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core.types import numel, wrap_dim, wrap_dims
from weft.ops import creation, index, view
from weft.ops import softmax as rows
from weft.ops.cast import cast
from weft.ops.dispatch import dtype_of, shape_of, wrap
from weft.sparse.layout import (
    SparseTensor,
    coalesce,
    coo,
    like,
    make,
    rule,
    size_of,
    to_sparse_csr,
)  # fmt: skip
from weft.tensor import Tensor


def sum(input: SparseTensor, dim: Any = None, dtype: Any = None) -> Any:
    """The sum over all dims, dense; or over `dim`, sparse as long as a sparse dim stays."""
    v = input._v if dtype is None else cast(input._v, dtype)
    if dim is None:
        return v.sum()
    rank, size = input._i._a.shape[0], size_of(input)
    dims = wrap_dims(dim, len(size), "sum")
    inner = [d - rank + 1 for d in dims if d >= rank]
    if inner:
        v = v.sum(inner)
    kept = [d for d in range(rank) if d not in dims]
    if not kept:
        return v.sum(0)
    rest = tuple(n for d, n in enumerate(size) if d not in dims)
    if len(kept) == rank:
        return make(input._i, v, rest, coalesced=input._coalesced)
    return coalesce(make(wrap(np.ascontiguousarray(input._i._a[kept])), v, rest))


@rule("sum")
def _sum_method(
    input: SparseTensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    if keepdim:
        raise NotImplementedError("sum: a sparse tensor's sum keeps no dims of size 1")
    return sum(input, dim, dtype)


@rule("norm")
def norm(s: SparseTensor, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    """The norm of all numbers."""
    if dim is not None:
        raise RuntimeError("norm_sparse currently does not support 'dim'")
    return coalesce(s)._v.norm(p)


def _softmax(input: SparseTensor, dim: int, dtype: Any, *, log: bool) -> SparseTensor:
    """softmax over the places that are kept: the others count as -inf."""
    s = coalesce(coo(input))
    v = s._v if dtype is None else cast(s._v, dtype)
    rank = s._i._a.shape[0]
    dim = wrap_dim(dim, len(size_of(s)), "softmax")
    if dim >= rank:
        of_rows = rows.log_softmax if log else rows.softmax
        return like(s, of_rows(v, dim - rank + 1))
    line = np.zeros(s._i._a.shape[1], np.int64)
    for d in range(rank):
        if d != dim:
            line = line * size_of(s)[d] + s._i._a[d]
    _, line = np.unique(line, return_inverse=True)
    line = line.reshape(-1)
    groups = int(line.max()) + 1 if line.size else 0
    largest = np.full((groups, *v.shape[1:]), -np.inf, np.float64)
    np.maximum.at(largest, line, v.detach()._a.astype(np.float64))
    at = wrap(line)
    shifted = v - index.index_select(cast(wrap(largest), dtype_of(v)), 0, at)
    e = shifted.exp()
    start = creation.zeros(groups, *v.shape[1:], dtype=dtype_of(v))
    sums = index.index_select(index.index_add(start, 0, at, e), 0, at)
    return like(s, shifted - sums.log() if log else e / sums)


@rule("softmax")
def softmax(input: SparseTensor, dim: int, *, dtype: Any = None) -> SparseTensor:
    """exp(x) / the sum of exp(x) along dim, over the places that are kept."""
    return _softmax(input, dim, dtype, log=False)


@rule("log_softmax")
def log_softmax(input: SparseTensor, dim: int, *, dtype: Any = None) -> SparseTensor:
    """log of softmax along dim, over the places that are kept."""
    return _softmax(input, dim, dtype, log=True)


def spdiags(diagonals: Tensor, offsets: Tensor, shape: Any, layout: Any = None) -> SparseTensor:
    """The matrix with row k of `diagonals` on the diagonal offsets[k] (column c holds entry c)."""
    rows, columns = (int(n) for n in shape)
    lines = diagonals if diagonals.ndim == 2 else view.unsqueeze(diagonals, 0)
    at = np.atleast_1d(offsets._a)
    if lines.shape[0] != len(at):
        raise RuntimeError(
            f"Number of diagonals ({lines.shape[0]}) does not match the number of offsets "
            f"({len(at)})"
        )
    if len(set(at.tolist())) != len(at):
        raise RuntimeError("Offset tensor contains duplicate values")
    k, c = np.meshgrid(np.arange(len(at)), np.arange(lines.shape[1]), indexing="ij")
    r = c - at[:, None]
    inside = (r >= 0) & (r < rows) & (c < columns)
    places = wrap(np.stack([r[inside], c[inside]]).astype(np.int64))
    flat = wrap((k * lines.shape[1] + c)[inside].astype(np.int64))
    v = index.index_select(view.reshape(lines, (numel(shape_of(lines)),)), 0, flat)
    s = make(places, v, (rows, columns))
    return to_sparse_csr(s) if str(layout) == "torch.sparse_csr" else s

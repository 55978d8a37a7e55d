"""Products, sums, norms and softmax of sparse tensors, written in functions on their values.

The product of a sparse matrix and a dense one gathers a row of the dense one for each place,
multiplies, and adds the rows up in the order of the places: the same sum whatever the threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core.handle import Handle
from weft.core.types import numel, wrap_dim, wrap_dims
from weft.ops import contract, creation, index, view
from weft.ops import softmax as rows
from weft.ops.cast import cast
from weft.ops.dispatch import dtype_of, shape_of, wrap
from weft.sparse.functions import transpose
from weft.sparse.layout import (
    SparseTensor,
    coalesce,
    coo,
    is_sparse,
    like,
    make,
    rule,
    size_of,
    to_sparse,
    to_sparse_csr,
)
from weft.tensor import Tensor


def _matrix(name: str, s: SparseTensor) -> tuple[np.ndarray, tuple[int, ...]]:
    if len(size_of(s)) != 2 or s._i._a.shape[0] != 2:
        raise RuntimeError(
            f"{name}: expected a sparse matrix, got a tensor of size {list(size_of(s))} with "
            f"{s._i._a.shape[0]} sparse dims"
        )
    return s._i._a, size_of(s)


def _times_dense(name: str, s: SparseTensor, d: Tensor) -> Tensor:
    """y[r, :] = the sum over the places (r, c) of value * d[c, :]."""
    places, (rows, columns) = _matrix(name, s)
    if shape_of(d)[0] != columns:
        raise RuntimeError(
            f"{name}: Argument #3 (dense): Expected dim 0 size {columns}, got {shape_of(d)[0]}"
        )
    if dtype_of(s._v) is not dtype_of(d):
        raise RuntimeError(
            f"{name}: expected both operands to have one dtype, but got "
            f"{dtype_of(s._v).spelled} and {dtype_of(d).spelled}"
        )
    v = s._v if d.ndim == 1 else view.unsqueeze(s._v, 1)
    terms = v * index.index_select(d, 0, wrap(places[1]))
    start = creation.zeros(rows, *shape_of(d)[1:], dtype=dtype_of(d))
    return index.index_add(start, 0, wrap(places[0]), terms)


def _times_sparse(name: str, a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """The product of two sparse matrices: every pair of places (r, k), (k, c)."""
    (ra, ka), (rows, inner) = _matrix(name, a)
    b_by_row = to_sparse_csr(b)
    _, (inner_b, columns) = _matrix(name, b_by_row)
    if inner != inner_b:
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{inner} and {inner_b}x{columns})"
        )
    begins = b_by_row._crow._a
    count = (begins[1:] - begins[:-1])[ka]
    left = np.repeat(np.arange(len(ka)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    right = np.repeat(begins[:-1][ka], count) + np.arange(len(left)) - first
    values = index.index_select(a._v, 0, wrap(left)) * index.index_select(
        b_by_row._v, 0, wrap(right)
    )
    places = np.stack([ra[left], b_by_row._i._a[1][right]])
    return coalesce(make(wrap(places), values, (rows, columns)))


@rule("mm", "matmul", "spmm", "mv", "__rmatmul__", "dsmm", "hspmm")
def matmul(input: Any, mat2: Any, *, out: Any = None) -> Any:
    """input @ mat2, of which one is a sparse matrix, or both."""
    if not hasattr(mat2, "ndim"):
        kind = type(mat2).__name__
        raise TypeError(f"mm(): argument 'mat2' (position 2) must be Tensor, not {kind}")
    a, b = input, mat2
    if is_sparse(a) and is_sparse(b):
        y = _times_sparse("mm", a, b)
        return to_sparse_csr(y) if a._crow is not None else y
    if is_sparse(a):
        if b.ndim > 2 or not b.ndim:
            raise RuntimeError(f"mm: expected a matrix or a vector, got {b.ndim} dims")
        y = _times_dense("addmm", a, b)
    else:  # d s = (s' d')'
        line = a.ndim == 1
        turned = a if line else view.t(a)
        y = _times_dense("addmm", transpose(b, 0, 1), turned)
        y = y if line else view.t(y)
    return y if out is None else out.copy_result(y)


@rule("__matmul__")
def _operator(a: Any, b: Any) -> Any:
    return matmul(a, b) if isinstance(b, Handle) else NotImplemented


def mm(mat1: Any, mat2: Any, reduce: str | None = None) -> Any:
    """y = mat1 @ mat2; mat1 may be sparse, and with it mat2; gradients to both, sparse to mat1.

    `reduce="sum"` or `"mean"` of the terms of each row.
    """
    if reduce not in (None, "sum", "mean"):
        raise NotImplementedError(f"torch.sparse.mm: Weft lacks reduce={reduce!r}")
    if not (is_sparse(mat1) or is_sparse(mat2)):
        return contract.mm(mat1, mat2)
    y = matmul(mat1, mat2)
    if reduce == "mean":
        count = np.bincount(mat1._i._a[0], minlength=size_of(mat1)[0]).clip(1)
        y = y / view.unsqueeze(cast(wrap(count), dtype_of(y)), 1)
    return y


@rule("addmm")
def addmm(
    input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1, out: Any = None
) -> Any:
    """y = beta input + alpha (mat1 @ mat2), mat1 sparse."""
    y = mm(mat1, mat2)
    y = y if alpha == 1 else y * alpha
    if beta != 0:
        y = y + (input if beta == 1 else input * beta)
    return y if out is None else out.copy_result(y)


@rule("smm")
def smm(input: Any, mat: Any) -> SparseTensor:
    """input @ mat as a sparse tensor."""
    if not isinstance(input, SparseTensor):
        raise RuntimeError("smm() can only be called on sparse tensors")
    return to_sparse(matmul(input, mat))


def sampled_addmm(
    input: SparseTensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1.0, alpha: Any = 1.0,
    out: Any = None,
) -> SparseTensor:  # fmt: skip
    """alpha (mat1 @ mat2) at the places of `input`, plus beta input."""
    places, size = _matrix("sampled_addmm", input)
    if (shape_of(mat1)[0], shape_of(mat2)[-1]) != size:
        raise RuntimeError(
            f"sampled_addmm: Expected mat1 and mat2 to multiply to {list(size)}, got "
            f"{list(shape_of(mat1))} and {list(shape_of(mat2))}"
        )
    left = index.index_select(mat1, 0, wrap(places[0]))
    right = index.index_select(view.t(mat2), 0, wrap(places[1]))
    return like(input, input._v * beta + (left * right).sum(1) * alpha)


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

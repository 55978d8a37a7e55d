"""What public functions do with sparse tensors, written in functions on their values.

The product of a sparse matrix and a dense one gathers a row of the dense one for each place,
multiplies, and adds the rows up in the order of the places: the same sum whatever the threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle, state, storage_of
from weft.core.types import numel, wrap_dim, wrap_dims
from weft.ops import arithmetic, contract, creation, index, join, view
from weft.ops import softmax as rows
from weft.ops.cast import cast
from weft.ops.dispatch import NUMBERS, dtype_of, shape_of, wrap
from weft.ops.promote import result_type
from weft.ops.write import check_writable
from weft.sparse.layout import (
    RULES,
    SparseTensor,
    coalesce,
    coo,
    is_sparse,
    keys_of,
    like,
    make,
    rows_at,
    rule,
    size_of,
    to_dense,
    to_sparse,
    to_sparse_csr,
)  # fmt: skip
from weft.tensor import Tensor

# --------------------------------------------------------------------------------- products


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


# --------------------------------------------------------------------------------- elements


def _scalar(x: Any) -> bool:
    return x.__class__ in NUMBERS or (isinstance(x, Handle) and not shape_of(x))


@rule("add")
def add(input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    """input + alpha other: both sparse, or a dense tensor and a sparse one."""
    if is_sparse(input) and is_sparse(other):
        y = _sum(input, other, alpha)
    elif is_sparse(other) and isinstance(input, Handle):
        y = input + to_dense(other) * alpha if alpha != 1 else input + to_dense(other)
    else:
        raise RuntimeError("add(sparse, dense) is not supported. Use add(dense, sparse) instead.")
    return y if out is None else out.copy_result(y)


@rule("sub", "subtract")
def sub(input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    """input - alpha other."""
    return add(input, other, alpha=-alpha, out=out)


def _sum(a: SparseTensor, b: SparseTensor, alpha: Any) -> SparseTensor:
    if size_of(a) != size_of(b):
        raise RuntimeError(
            f"add: expected sizes of 'self' and 'other' to match, but {list(size_of(a))} != "
            f"{list(size_of(b))}"
        )
    if a._i._a.shape[0] != b._i._a.shape[0]:
        raise RuntimeError("add: expected 'self' and 'other' to have the same sparse dims")
    v = b._v if alpha == 1 else b._v * alpha
    by_row = a._crow is not None and b._crow is not None
    if a._coalesced and b._coalesced and np.array_equal(a._i._a, b._i._a):
        return like(a, a._v + v)
    d = result_type(a._v, v)
    values = join.cat([cast(a._v, d), cast(v, d)])
    s = make(join.cat([a._i, b._i], 1), values, size_of(a))
    s = coalesce(s) if a._coalesced and b._coalesced else s
    return to_sparse_csr(s) if by_row else s


@rule("add_")
def add_(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input += alpha other: what a dense parameter does with a sparse gradient."""
    if is_sparse(input):
        return _become(input, add(input, other, alpha=alpha))
    if size_of(other) != shape_of(input):
        raise RuntimeError(
            f"add_: expected sizes {list(shape_of(input))} and {list(size_of(other))} to match"
        )
    tracked = state.grad and (input._rg or other._v._rg)
    if tracked or state.recorder is not None:
        return input.add_(to_dense(other), alpha=alpha)
    check_writable(input)
    once = coalesce(coo(other))
    rank = once._i._a.shape[0]
    if rank and once._i._a.size:  # only these rows are touched
        moved = rows_at(input.detach(), rank, once._i) + once._v * alpha
        input._a[tuple(once._i._a)] = cast(moved, dtype_of(input))._a
    elif not rank:
        input._a[...] += (once._v * alpha)._a[0]
    storage_of(input).version += 1
    return input


def _become(s: SparseTensor, y: SparseTensor) -> SparseTensor:
    """s gets y's parts."""
    if s._v._rg and s._v._fn is None and state.grad:
        raise RuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation."
        )
    s.__dict__.update(y.__dict__)
    return s


@rule("sub_")
def sub_(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input -= alpha other."""
    return add_(input, other, alpha=-alpha)


@rule("__rsub__")
def _rsub(s: SparseTensor, other: Any) -> Any:
    return sub(other, s)


@rule("mul", "multiply")
def mul(input: Any, other: Any, *, out: Any = None) -> Any:
    """input * other: a sparse tensor and a number, a dense tensor (at its places), or another."""
    a, b = (input, other) if is_sparse(input) else (other, input)
    if _scalar(b):
        return like(a, a._v * b)
    if not is_sparse(b):
        rank = a._i._a.shape[0]
        return like(a, a._v * rows_at(view.expand(b, size_of(a)), rank, a._i))
    if size_of(a) != size_of(b):
        raise RuntimeError(
            f"mul: expected sizes to match, but {list(size_of(a))} != {list(size_of(b))}"
        )
    a, b = coalesce(a), coalesce(b)
    keys, at_a, at_b = np.intersect1d(keys_of(a), keys_of(b), return_indices=True)
    places = wrap(np.ascontiguousarray(a._i._a[:, at_a]))
    v = index.index_select(a._v, 0, wrap(at_a)) * index.index_select(b._v, 0, wrap(at_b))
    return make(places, v, size_of(a), coalesced=True)


@rule("div", "divide", "true_divide")
def div(input: Any, other: Any, *, rounding_mode: Any = None) -> SparseTensor:
    """input / a number."""
    if not is_sparse(input) or not _scalar(other):
        raise RuntimeError("Sparse division requires a scalar or zero-dim dense tensor divisor")
    return like(input, arithmetic.div(input._v, other, rounding_mode=rounding_mode))


@rule("mul_")
def mul_(s: SparseTensor, other: Any) -> SparseTensor:
    """s *= other."""
    return _become(s, mul(s, other))


@rule("div_")
def div_(s: SparseTensor, other: Any) -> SparseTensor:
    """s /= other."""
    return _become(s, div(s, other))


@rule("zero_")
def zero_(s: SparseTensor) -> SparseTensor:
    """s keeps no place."""
    return _become(s, zeros_like(s))


@rule("zeros_like")
def zeros_like(s: SparseTensor, *, dtype: Any = None, **options: Any) -> SparseTensor:
    """A tensor of the same size that keeps no place."""
    i = creation.zeros(s._i._a.shape[0], 0, dtype=dt.int64)
    v = creation.zeros(0, *shape_of(s._v)[1:], dtype=dtype or dtype_of(s._v))
    empty = make(i, v, size_of(s), coalesced=True)
    return empty if s._crow is None else to_sparse_csr(empty)


@rule("pow", "__pow__")
def pow(s: SparseTensor, exponent: Any) -> SparseTensor:
    """Each kept number to a power > 0."""
    if not _scalar(exponent) or not exponent > 0:
        raise RuntimeError("pow: a sparse tensor takes exponents > 0, got " + str(exponent))
    s = coalesce(s)
    return like(s, s._v**exponent)


def _of_values(name: str) -> None:
    """f(0) = 0: applied to the kept numbers alone."""

    def apply(s: SparseTensor) -> SparseTensor:
        s = coalesce(s)
        return like(s, getattr(s._v, name)())

    apply.__name__ = apply.__qualname__ = name
    RULES[name] = apply


_UNARY = (
    "abs neg sign sgn sqrt sin tan asin atan sinh tanh asinh atanh floor ceil trunc round relu "
    "expm1 log1p erf erfinv deg2rad rad2deg nan_to_num isnan isinf signbit negative absolute"
)
for _name in _UNARY.split():
    _of_values(_name)


def _kept(name: str) -> None:
    """The same places; the method applied to the values."""

    def apply(s: SparseTensor, *args: Any, **kw: Any) -> SparseTensor:
        kw.pop("memory_format", None)
        v = getattr(s._v, name)(*args, **kw)
        return s if v is s._v else like(s, v)

    apply.__name__ = apply.__qualname__ = name
    RULES[name] = apply


_KEPT = "to type type_as float double half bfloat16 long int short char byte bool clone detach cpu"
for _name in _KEPT.split():
    _kept(_name)
RULES["data"] = RULES["detach"]


@rule("detach_")
def _detach_(s: SparseTensor) -> SparseTensor:
    s._v = s._v.detach()
    return s


@rule("__getitem__", "select")
def select(s: SparseTensor, *at: Any) -> Any:
    """s[i]: the part at index i of a dim, sparse."""
    dim, where = at if len(at) == 2 else (0, at[0])
    if where.__class__ is not int:
        raise NotImplementedError(f"a sparse tensor takes one int as an index, got {where!r}")
    n = size_of(s)[wrap_dim(dim, len(size_of(s)), "select")]
    if not -n <= where < n:
        raise IndexError(
            f"select(): index {where} out of range for tensor of size {n} at dim {dim}"
        )
    if len(size_of(s)) == 1:
        return to_dense(s)[where]
    part = index_select(s, dim, wrap(np.array([where % n])))
    rank, dim = part._i._a.shape[0], wrap_dim(dim, len(size_of(s)), "select")
    size = size_of(s)[:dim] + size_of(s)[dim + 1 :]
    if dim >= rank:
        return make(part._i, part._v.select(dim - rank + 1, 0), size, coalesced=part._coalesced)
    places = wrap(np.ascontiguousarray(np.delete(part._i._a, dim, 0)))
    if rank == 1:  # the last sparse dim is gone
        return part._v.sum(0)
    return make(places, part._v, size, coalesced=part._coalesced)


@rule("index_select")
def index_select(s: SparseTensor, dim: int, at: Tensor) -> SparseTensor:
    """The slices named along dim."""
    s = coalesce(coo(s))
    dim = wrap_dim(dim, len(size_of(s)), "index_select")
    rank, size = s._i._a.shape[0], list(size_of(s))
    wanted = at._a.reshape(-1)
    if wanted.size and (wanted.min() < -size[dim] or wanted.max() >= size[dim]):
        raise IndexError(f"index_select(): index out of range for dim {dim} of size {size[dim]}")
    wanted = wanted % size[dim] if size[dim] else wanted
    size[dim] = len(wanted)
    if dim >= rank:
        v = index.index_select(s._v, dim - rank + 1, wrap(wanted))
        return make(s._i, v, tuple(size), coalesced=True)
    row = s._i._a[dim]
    order = np.argsort(row, kind="stable")
    low = np.searchsorted(row[order], wanted, "left")
    count = np.searchsorted(row[order], wanted, "right") - low
    new = np.repeat(np.arange(len(wanted)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    old = order[np.repeat(low, count) + np.arange(len(new)) - first]
    places = s._i._a[:, old].copy()
    places[dim] = new
    return coalesce(make(wrap(places), index.index_select(s._v, 0, wrap(old)), tuple(size)))


@rule("transpose", "swapaxes", "swapdims")
def transpose(s: SparseTensor, dim0: int, dim1: int) -> SparseTensor:
    """Two sparse dims change places."""
    rank, size = s._i._a.shape[0], list(size_of(s))
    a, b = (wrap_dim(d, len(size), "transpose") for d in (dim0, dim1))
    if max(a, b) >= rank and a != b:
        raise RuntimeError("transpose: Weft transposes the sparse dims of a sparse tensor only")
    order = list(range(rank))
    order[a], order[b] = b, a
    size[a], size[b] = size[b], size[a]
    i = wrap(np.ascontiguousarray(s._i._a[order]))
    return make(i, s._v, tuple(size), coalesced=s._coalesced and a == b)


@rule("t", "T")
def t(s: SparseTensor) -> SparseTensor:
    """The transpose of a matrix."""
    if len(size_of(s)) > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 sparse dims, got {len(size_of(s))}")
    turned = transpose(coo(s), 0, 1) if len(size_of(s)) == 2 else s
    return turned if s._crow is None else to_sparse_csr(turned)


@rule("unsqueeze")
def unsqueeze(s: SparseTensor, dim: int) -> SparseTensor:
    """A dim of size 1 more."""
    rank, size = s._i._a.shape[0], list(size_of(s))
    dim = wrap_dim(dim, len(size) + 1, "unsqueeze")
    size.insert(dim, 1)
    if dim > rank:
        return make(s._i, view.unsqueeze(s._v, dim - rank + 1), tuple(size), coalesced=s._coalesced)
    i = wrap(np.insert(s._i._a, dim, 0, axis=0))
    return make(i, s._v, tuple(size), coalesced=s._coalesced)


@rule("cat", "concat", "concatenate")
def cat(tensors: Any, dim: int = 0, *, out: Any = None) -> SparseTensor:
    """Sparse tensors one after the other along dim."""
    parts = [coo(p) if is_sparse(p) else to_sparse(p) for p in tensors]
    rank, size = parts[0]._i._a.shape[0], list(size_of(parts[0]))
    dim = wrap_dim(dim, len(size), "cat")
    if any(p._i._a.shape[0] != rank for p in parts) or dim >= rank:
        raise RuntimeError("cat: sparse tensors must have the same sparse dims, dim among them")
    at, places = 0, []
    for p in parts:
        other = list(size_of(p))
        if other[:dim] + other[dim + 1 :] != size[:dim] + size[dim + 1 :]:
            raise RuntimeError(
                f"cat: sizes must match except in dimension {dim}: {size} and {other}"
            )
        i = p._i._a.copy()
        i[dim] += at
        at += other[dim]
        places.append(i)
    size[dim] = at
    whole = make(wrap(np.concatenate(places, 1)), join.cat([p._v for p in parts]), tuple(size))
    return coalesce(whole) if all(p._coalesced for p in parts) else whole


@rule("stack")
def stack(tensors: Any, dim: int = 0, *, out: Any = None) -> SparseTensor:
    """Sparse tensors as slices of a new dim."""
    return cat([unsqueeze(p, dim) for p in tensors], dim)


# ------------------------------------------------------------------------- sums, softmax


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


# ------------------------------------------------------------------------------- refusals


@rule("numpy", "__array__")
def _numpy(s: SparseTensor, *args: Any, **kw: Any) -> Any:
    raise TypeError(
        f"can't convert {'Sparse' if s._crow is None else 'SparseCsr'} layout tensor to numpy. "
        "Use Tensor.to_dense() first."
    )


@rule("data_ptr")
def _data_ptr(s: SparseTensor) -> int:
    raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")


@rule("storage", "untyped_storage")
def _storage(s: SparseTensor) -> Any:
    raise NotImplementedError("Cannot access storage of SparseTensorImpl")


@rule("is_contiguous")
def _is_contiguous(s: SparseTensor, memory_format: Any = None) -> bool:
    return False


@rule("__bool__", "item")
def _item(s: SparseTensor) -> Any:
    return to_dense(s).item()

"""What public functions do with sparse tensors, element by element and slice by slice."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle, state, take_over
from weft.core.types import wrap_dim
from weft.ops import arithmetic, creation, index, join, view
from weft.ops.cast import cast
from weft.ops.dispatch import NUMBERS, dtype_of, shape_of, wrap, wrote
from weft.ops.promote import result_type
from weft.ops.write import check_writable, need_no_leaf
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
    wrote(input)
    return input


def _become(s: SparseTensor, y: SparseTensor) -> SparseTensor:
    """s gets y's parts."""
    need_no_leaf(s._v)
    take_over(s, y)
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

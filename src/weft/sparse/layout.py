"""Sparse tensors: the places of the numbers that are kept, and the numbers.

A SparseTensor is two dense tensors: `indices` (sparse_dim, n) and `values` (n, *dense dims).  It
holds no array of its own; its gradients are those of its values, for every function on it is
written in functions on them.  Duplicate places count as their sum, added in the order in which
they stand.  Row-compressed tensors (CSR) keep their places sorted by row, and the rows' beginnings.

Indices are looked at when a tensor is made: none lies outside the size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import layouts as kinds
from weft.core import overrides, printing
from weft.core.handle import bare, state
from weft.core.types import numel, wholes
from weft.ops import construct, creation, index, subclass, view
from weft.ops.cast import cast
from weft.ops.dispatch import dtype_of, read, shape_of, wrap
from weft.tensor import Tensor


class Described:
    """What a sparse tensor has where others have an array: shape and dtype."""

    offset, outer = 0, None

    def __init__(self, shape: tuple[int, ...], dtype: dt.dtype, layout: Any) -> None:
        self.shape, self.dtype, self.layout = shape, dtype, layout
        self.strides = (1,) * len(shape)  # no two elements in one place

    def demand(self, t: Any) -> Any:
        """NotImplementedError: something wants the array."""
        raise NotImplementedError(
            f"this function does not take tensors of layout {self.layout}: to_dense() first"
        )


def _answer(native: Any, public: Any, args: tuple, kw: dict) -> Any:
    """A public function called with a sparse tensor: the rule for it."""
    name = overrides.bare_name(public)
    rule = RULES.get(name)
    if rule is not None:
        return rule(*args, **kw)
    if name in overrides.OF_SHAPE:
        return native(*args, **kw)
    raise NotImplementedError(
        f"Could not run 'aten::{name}' with arguments from the 'SparseCPU' backend: Weft has no "
        f"sparse form of it (to_dense() first)"
    )


RULES: dict[str, Any] = {}  # name of a function -> what it is for sparse tensors


def rule(*names: str) -> Any:
    """Decorator: what the public functions of these names are for sparse tensors."""

    def note(fn: Any) -> Any:
        own = overrides.twin(fn)  # `fn` itself may be public, and then asks for a rule
        for name in names:
            RULES[name] = own
        return fn

    return note


class SparseTensor(Tensor, layout=_answer):
    """A tensor of layout sparse_coo or sparse_csr."""

    __torch_function__: Any = staticmethod(overrides.disabled_torch_function)
    _i: Tensor
    _v: Tensor
    _coalesced: bool
    _crow: Tensor | None
    is_sparse_csr: bool


def make(
    i: Tensor, v: Tensor, size: tuple, *, coalesced: bool = False, crow: Tensor | None = None
) -> SparseTensor:
    """A sparse tensor of its parts, which fit; with `crow` a row-compressed one."""
    overrides.switch_on()
    s: Any = bare(SparseTensor)
    layout = kinds.sparse_coo if crow is None else kinds.sparse_csr
    s._ghost = Described(tuple(int(n) for n in size), dtype_of(v), layout)
    s._i, s._v, s._coalesced, s._crow = i, v, coalesced, crow
    s.is_sparse_csr = crow is not None
    return s


def like(s: SparseTensor, v: Tensor) -> SparseTensor:
    """The same places with other values."""
    return make(s._i, v, size_of(s), coalesced=s._coalesced, crow=s._crow)


def size_of(s: Any) -> tuple[int, ...]:
    """The size."""
    return s._ghost.shape


def is_sparse(x: Any) -> bool:
    """Whether x is a tensor of places and values."""
    return x.__class__ is SparseTensor


# --------------------------------------------------------------------------------- making


def _parts(values: Any, dtype: Any, requires_grad: bool) -> Tensor:
    """Values as given: a tensor's gradient is theirs unless a leaf is asked for."""
    v = values if isinstance(values, Tensor) else construct.tensor(values)
    v = v if dtype is None else cast(v, dtype)
    if requires_grad:
        return subclass.make_subclass(Tensor, v, True)
    return view.view(v, shape_of(v)) if v._rg and state.grad else v


def _places(x: Any) -> Tensor:
    i = x if isinstance(x, Tensor) else construct.tensor(x)
    return cast(i, dt.int64).detach()


def sparse_coo_tensor(
    *args: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
    check_invariants: bool | None = None,
    is_coalesced: bool | None = None,
    indices: Any = None,
    values: Any = None,
) -> SparseTensor:
    """The tensor with values[k] at indices[:, k], 0 elsewhere: (indices, values[, size]) or (size).

    indices (sparse_dim, n), values (n, *dense dims); places named twice count as their sum.
    RuntimeError: parts that do not fit, an index outside the size.
    """
    given = list(args)
    if len(given) == 1 and values is None:
        size, given = given[0], []
    elif len(given) == 3:
        size = given.pop()
    indices = given[0] if given else indices
    values = given[1] if len(given) > 1 else values
    if indices is None:
        if size is None:
            raise TypeError("sparse_coo_tensor(): needs indices and values, or a size")
        d = dtype or dt.get_default_dtype()
        size = wholes(size, "sparse_coo_tensor", "size")
        i = creation.zeros(len(size), 0, dtype=dt.int64)
        v = creation.zeros(0, dtype=d, device=device, requires_grad=requires_grad)
        return make(i, v, tuple(size), coalesced=True)
    i = _places(indices)
    v = _parts(values, dtype, requires_grad)
    if i.ndim != 2:
        raise RuntimeError(f"indices must be sparse_dim x nnz, but got: {list(shape_of(i))}")
    rank, n = shape_of(i)
    dense = shape_of(v)[1:]
    if not v.ndim or shape_of(v)[0] != n:
        raise RuntimeError(
            f"indices and values must have same nnz, but got nnz from indices: {n}, nnz from "
            f"values: {shape_of(v)[0] if v.ndim else 0}"
        )
    places = i._a
    if size is None:
        highest = places.max(1) + 1 if n else np.zeros(rank, np.int64)
        size = (*highest.tolist(), *dense)
    size = tuple(int(m) for m in size)
    if len(size) != rank + len(dense):
        raise RuntimeError(
            f"'len(size) == sparse_dim + dense_dim' is not satisfied: len(size) = {len(size)}, "
            f"sparse_dim = {rank}, dense_dim = {len(dense)}"
        )
    if size[rank:] != tuple(dense):
        raise RuntimeError(
            f"values has incorrect size, expected {[n, *size[rank:]]}, got {list(shape_of(v))}"
        )
    _check_places(places, size)
    made = make(i, v, size, coalesced=n < 2)
    if is_coalesced and n > 1:
        if not (np.diff(keys_of(made)) > 0).all():
            raise RuntimeError(
                "cannot set is_coalesced to true if indices correspond to uncoalesced COO tensor"
            )
        made._coalesced = True
    return made


def _check_places(places: np.ndarray, size: tuple) -> None:
    """RuntimeError for an index outside its dim."""
    if not places.size:
        return
    for d, (row, n) in enumerate(zip(places, size, strict=False)):
        if row.min() < 0:
            raise RuntimeError(f"found negative index {row.min()} for dim {d}")
        if row.max() >= n:
            raise RuntimeError(
                f"size is inconsistent with indices: for dim {d}, size is {n} but found index "
                f"{row.max()}"
            )


def sparse_csr_tensor(
    crow_indices: Any,
    col_indices: Any,
    values: Any,
    size: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    pin_memory: bool = False,
    requires_grad: bool = False,
    check_invariants: bool | None = None,
) -> SparseTensor:
    """The matrix whose row r has values[k] at col_indices[k], crow[r] <= k < crow[r + 1].

    RuntimeError: beginnings that do not rise from 0 to n, columns outside the size.
    """
    crow, col = _places(crow_indices), _places(col_indices)
    v = _parts(values, dtype, requires_grad)
    begins, cols = crow._a, col._a
    if begins.ndim != 1 or cols.ndim != 1 or v.ndim != 1 or not begins.size:
        raise RuntimeError("sparse_csr_tensor: crow_indices, col_indices and values must be 1-D")
    n, rows = cols.size, begins.size - 1
    if shape_of(v)[0] != n:
        raise RuntimeError(
            f"number of elements in col_indices ({n}) and values ({shape_of(v)[0]}) must match"
        )
    if size is None:
        size = (rows, int(cols.max()) + 1 if n else 0)
    if begins[0] != 0 or begins[-1] != n or (np.diff(begins) < 0).any():
        raise RuntimeError(
            f"crow_indices must rise from 0 to nnz = {n}, got {begins[:8].tolist()}..."
        )
    size = tuple(int(m) for m in size)
    if len(size) != 2 or size[0] != rows:
        raise RuntimeError(
            f"crow_indices has {rows + 1} entries for a size of {list(size)}: expected rows + 1"
        )
    i = np.stack([np.repeat(np.arange(rows), np.diff(begins)), cols])
    _check_places(i, size)
    return make(wrap(i), v, size, coalesced=True, crow=crow)


# --------------------------------------------------------------------------- other layouts


def keys_of(s: Any) -> np.ndarray:
    """One number a place: its position in row-major order of the sparse dims."""
    places = s._i._a
    size = size_of(s)[: places.shape[0]]
    key = np.zeros(places.shape[1], np.int64)
    for row, n in zip(places, size, strict=True):
        key = key * n + row
    return key


def sum_by_key(keys: np.ndarray, v: Tensor) -> tuple[np.ndarray, Tensor]:
    """The different keys in rising order, and the sum of the values of each, in their order."""
    if keys.size and not (np.diff(keys) > 0).all():
        different, back = np.unique(keys, return_inverse=True)
        start = creation.zeros(different.size, *shape_of(v)[1:], dtype=dtype_of(v))
        return different, index.index_add(start, 0, wrap(back.reshape(-1)), v)
    return keys, v


@rule("coalesce")
def coalesce(s: SparseTensor) -> SparseTensor:
    """The same tensor with each place named once, in row-major order."""
    if s._coalesced:
        return s
    keys = keys_of(s)
    different, v = sum_by_key(keys, s._v)
    size = size_of(s)
    rank = s._i._a.shape[0]
    places = np.stack(np.unravel_index(different, size[:rank])) if rank else s._i._a
    return make(wrap(np.ascontiguousarray(places, np.int64)), v, size, coalesced=True)


@rule("to_dense")
def to_dense(s: SparseTensor, dtype: Any = None, *, masked_grad: Any = None) -> Tensor:
    """All numbers."""
    size, rank = size_of(s), s._i._a.shape[0]
    v = s._v if dtype is None else cast(s._v, dtype)
    start = creation.zeros(numel(size[:rank]), *size[rank:], dtype=dtype_of(v))
    return view.reshape(index.index_add(start, 0, wrap(keys_of(s)), v), size)


@rule("to_sparse")
def to_sparse(input: Tensor, *args: Any, layout: Any = None, blocksize: Any = None,
              dense_dim: Any = None, sparse_dim: int | None = None) -> SparseTensor:  # fmt: skip
    """The tensor's numbers that are not 0: to_sparse([sparse_dim]), to_sparse(layout=...)."""
    for a in args:
        if isinstance(a, int):
            sparse_dim = a
        else:
            layout = a
    if layout is kinds.sparse_csr:
        return to_sparse_csr(input, dense_dim)
    if layout not in (None, kinds.sparse_coo):
        raise NotImplementedError(f"to_sparse: Weft has no layout {layout}")
    if is_sparse(input):
        return coo(input)  # type: ignore[arg-type]
    rank = input.ndim if sparse_dim is None else sparse_dim
    if not 0 <= rank <= input.ndim:
        raise RuntimeError(f"to_sparse: sparse_dim {rank} of a tensor with {input.ndim} dims")
    a = read(input)
    there = (a != 0).any(tuple(range(rank, a.ndim)))
    places = np.ascontiguousarray(np.stack(np.nonzero(there)) if rank else np.empty((0, 1)))
    i = wrap(places.astype(np.int64))
    return make(i, rows_at(input, rank, i), tuple(input.shape), coalesced=True)


def rows_at(x: Tensor, rank: int, i: Tensor) -> Tensor:
    """The dense parts of x at the places i of its first `rank` dims."""
    shape = tuple(x.shape)
    keys = np.zeros(i._a.shape[1], np.int64)
    for row, n in zip(i._a, shape[:rank], strict=True):
        keys = keys * n + row
    lines = view.reshape(x, (numel(shape[:rank]), *shape[rank:]))
    return index.index_select(lines, 0, wrap(keys))


def coo(s: SparseTensor) -> SparseTensor:
    """The same tensor as indices and values."""
    return s if s._crow is None else make(s._i, s._v, size_of(s), coalesced=s._coalesced)


@rule("to_sparse_coo")
def to_sparse_coo(input: Tensor) -> SparseTensor:
    """The tensor as indices and values."""
    return to_sparse(input)


@rule("to_sparse_csr")
def to_sparse_csr(input: Tensor, dense_dim: Any = None) -> SparseTensor:
    """The matrix by rows."""
    s = coalesce(coo(input) if is_sparse(input) else to_sparse(input))  # type: ignore[arg-type]
    size = size_of(s)
    if len(size) != 2 or s._i._a.shape[0] != 2:
        raise NotImplementedError(f"to_sparse_csr: Weft has CSR of matrices, got {list(size)}")
    begins = np.concatenate([[0], np.cumsum(np.bincount(s._i._a[0], minlength=size[0]))])
    return make(s._i, s._v, size, coalesced=True, crow=wrap(begins.astype(np.int64)))


@rule("sparse_mask")
def sparse_mask(input: Tensor, mask: SparseTensor) -> SparseTensor:
    """The numbers of `input` at the places of `mask`."""
    if not is_sparse(mask):
        raise RuntimeError("sparse_mask: mask must be a sparse tensor")
    if tuple(input.shape) != size_of(mask):
        raise RuntimeError(
            f"sparse_mask(): operands have incompatible sizes; self has size {list(input.shape)} "
            f"but mask has size {list(size_of(mask))}"
        )
    if is_sparse(input):
        input = to_dense(input)
    return like(mask, rows_at(input, mask._i._a.shape[0], mask._i))


# -------------------------------------------------------------------------------- parts


def _no_csr(s: SparseTensor, name: str) -> None:
    if s._crow is not None:
        raise RuntimeError(f"{name} expected sparse coordinate tensor layout but got SparseCsr")


@rule("indices")
def _indices_checked(s: SparseTensor) -> Tensor:
    _no_csr(s, "indices")
    if not s._coalesced:
        raise RuntimeError(
            "Cannot get indices on an uncoalesced tensor, please call .coalesce() first"
        )
    return s._i


@rule("values")
def _values_checked(s: SparseTensor) -> Tensor:
    if not s._coalesced:
        raise RuntimeError(
            "Cannot get values on an uncoalesced tensor, please call .coalesce() first"
        )
    return s._v


RULES.update(
    _indices=lambda s: s._i,
    _values=lambda s: s._v,
    _nnz=lambda s: shape_of(s._v)[0],
    is_coalesced=lambda s: s._coalesced,
    sparse_dim=lambda s: s._i._a.shape[0],
    dense_dim=lambda s: len(size_of(s)) - s._i._a.shape[0],
    is_sparse=lambda s: s._crow is None,
    layout=lambda s: s._ghost.layout,
    is_leaf=lambda s: s._v._fn is None,
    grad_fn=lambda s: s._v._fn,
)


@rule("crow_indices")
def _crow_indices(s: SparseTensor) -> Tensor:
    if s._crow is None:
        raise RuntimeError(
            "crow_indices expected sparse row compressed tensor layout but got Sparse"
        )
    return s._crow


@rule("col_indices")
def _col_indices(s: SparseTensor) -> Tensor:
    if s._crow is None:
        raise RuntimeError(
            "col_indices expected sparse row compressed tensor layout but got Sparse"
        )
    return wrap(s._i._a[1])


@rule("requires_grad")
def _requires_grad(s: SparseTensor, *flag: Any) -> Any:
    return s._v.requires_grad_(flag[0]) if flag else s._v._rg


@rule("requires_grad_")
def _requires_grad_(s: SparseTensor, requires_grad: bool = True) -> SparseTensor:
    s._v.requires_grad_(requires_grad)
    return s


@rule("grad")
def _grad(s: Any, *value: Any) -> Any:
    if not is_sparse(s):  # a dense parameter is given a sparse gradient
        if shape_of(s) != size_of(value[0]):
            raise RuntimeError(
                f"assigned grad has data of a different size: {list(size_of(value[0]))} for a "
                f"tensor of {list(shape_of(s))}"
            )
        s._grad = value[0]
        return None
    if value:
        s._v.grad = value[0] if value[0] is None else coo(value[0])._v
        return None
    return None if s._v._grad is None else like(s, s._v._grad)


@rule("__repr__")
def show(s: SparseTensor, **kw: Any) -> str:
    """The parts, as torch prints them."""
    d = dtype_of(s._v)
    places = [("indices", s._i)]
    if s._crow is not None:
        places = [("crow_indices", s._crow), ("col_indices", _col_indices(s))]
    lines = []
    for name, part in (*places, ("values", s._v)):
        a = part._a
        a = a.astype(np.float32) if d in (dt.bfloat16, dt.float16) and part is s._v else a
        text = printing.show(a, [] if a.size else [f"size={a.shape}"])
        lines.append(f"{name}={text}".replace("\n", "\n" + " " * (8 + len(name))))
    text = "tensor(" + ",\n       ".join(lines)
    suffixes = [f"size={tuple(s._ghost.shape)}", f"nnz={shape_of(s._v)[0]}"]
    if d not in (dt.get_default_dtype(), dt.int64, dt.bool):
        suffixes.append(f"dtype=torch.{d.name}")
    suffixes.append(f"layout={s._ghost.layout}")
    if s._v._fn is not None:
        suffixes.append(f"grad_fn=<{s._v._fn.name()}>")
    elif s._v._rg:
        suffixes.append("requires_grad=True")
    used = 81 if s._crow is None else len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if used + len(suffix) + 2 > 80:
            text += ",\n       " + suffix
            used = 7 + len(suffix)
        else:
            text += ", " + suffix
            used += len(suffix) + 2
    return text + ")"


def rows_of(at: Tensor, values: Tensor, shape: tuple[int, ...]) -> SparseTensor:
    """The matrix whose row at[k] has values[k], added up where a row is named twice."""
    return make(view.unsqueeze(cast(at, dt.int64), 0), values, shape)


index.install_sparse(rows_of)


def rebuild(i: Tensor, v: Tensor, size: tuple, coalesced: Any, crow: Any) -> SparseTensor:
    """The tensor that pickle took apart."""
    return make(i, v, size, coalesced=bool(coalesced), crow=crow)


@rule("__reduce_ex__")
def _reduce(s: SparseTensor, protocol: Any) -> tuple:
    return rebuild, (s._i, s._v, tuple(size_of(s)), s._coalesced, s._crow)


@rule("__deepcopy__")
def _deepcopy(s: SparseTensor, memo: dict) -> SparseTensor:
    i, v = (x.__deepcopy__(memo) for x in (s._i, s._v))
    memo[id(s)] = made = make(i, v, size_of(s), coalesced=s._coalesced, crow=s._crow)
    return made

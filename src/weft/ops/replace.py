"""Copies with a region replaced: what a write through a view would leave, as a value.

y = x;  view(y)[...] = src      view: select, slice, diagonal, as_strided
"""

from __future__ import annotations

from typing import Any

from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.core.types import numel, wrap_dim
from weft.ops.cast import cast
from weft.ops.creation import arange, full
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.gather import scatter_reduce
from weft.ops.index import IndexPut
from weft.ops.shape import diagonal
from weft.ops.view import expand, narrow, reshape, select, unsqueeze

__all__ = [
    "as_strided_scatter", "diagflat", "diagonal_scatter", "index_reduce", "isin", "narrow_copy",
    "put", "select_scatter", "slice_scatter", "unravel_index",
]  # fmt: skip


def _replaced(op: str, input: Any, src: Any, view: Any) -> Any:
    """input with src where `view` (a function giving a view of its argument) looks."""
    shape = shape_of(input)
    places = reshape(arange(numel(shape)), shape)
    at = view(places)
    src = cast(src, dtype_of(input))
    if shape_of(src) != shape_of(at):
        raise RuntimeError(
            f"{op}: expected src to have a size equal to the slice of self. src size = "
            f"{list(shape_of(src))}, slice size = {list(shape_of(at))}"
        )
    n = numel(shape_of(src))
    flat = reshape(input, (numel(shape),))
    y = apply(IndexPut((0,), 0), flat, reshape(src, (n,)), reshape(at, (n,)))
    return reshape(y, shape)


def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    """A copy of input with src as the slice `index` of dim."""
    return _replaced("select_scatter", input, src, lambda x: select(x, dim, index))


def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Any:  # fmt: skip
    """A copy of input with src at start, start + step, ... below end along dim."""
    d = wrap_dim(dim, len(shape_of(input)), "slice_scatter")
    where = (slice(None),) * d + (slice(start, end, step),)
    return _replaced("slice_scatter", input, src, lambda x: x[where])


def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A copy of input with src on the diagonal of dims dim1 and dim2."""
    return _replaced("diagonal_scatter", input, src, lambda x: diagonal(x, offset, dim1, dim2))


def as_strided_scatter(
    input: Any, src: Any, size: Any, stride: Any, storage_offset: int | None = None
) -> Any:
    """A copy of input with src where as_strided(size, stride, storage_offset) would look."""
    offset = storage_offset or 0
    return _replaced("as_strided_scatter", input, src, lambda x: x.as_strided(size, stride, offset))


def put(input: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """A copy of input with source's elements at (or added to) the flat places `index`."""
    if dtype_of(index) is not dt.int64:
        raise IndexError("put_(): Expected a long tensor for index")
    n, total = numel(shape_of(index)), numel(shape_of(input))
    if numel(shape_of(source)) != n:
        raise IndexError(
            "put_(): Expected source and index to have the same number of elements, but got "
            f"source.numel() = {numel(shape_of(source))}, index.numel() = {n}"
        )
    if dtype_of(source) is not dtype_of(input):
        raise RuntimeError(
            f"put_(): self and source expected to have the same dtype, but got self.dtype = "
            f"{dtype_of(input).name} and source.dtype = {dtype_of(source).name}"
        )
    op = IndexPut((0,), 0, True, "add" if accumulate else "set")
    y = apply(op, reshape(input, (total,)), reshape(source, (n,)), reshape(index, (n,)))
    return reshape(y, shape_of(input))


def index_reduce(
    input: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """A copy of input with source's slices reduced into the slices `index` of dim.

    reduce: prod, mean, amax or amin.
    """
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(
            "index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got "
            f"{reduce}"
        )
    d = wrap_dim(dim, len(shape_of(input)), "index_reduce")
    shape = shape_of(source)
    places = reshape(index, tuple(-1 if k == d else 1 for k in range(len(shape))))
    return scatter_reduce(
        input, d, expand(places, shape), source, reduce, include_self=include_self
    )


def diagflat(input: Any, offset: int = 0) -> Any:
    """The matrix with all of input's elements on its diagonal."""
    return reshape(input, (numel(shape_of(input)),)).diag(offset)


def narrow_copy(input: Any, dim: int, start: int, length: int, *, out: Any = None) -> Any:
    """narrow, as a copy; RuntimeError for a dim that input lacks, as torch."""
    rank = len(shape_of(input))
    if dim >= rank:
        raise RuntimeError(f"narrow_copy: dim {dim} is not one of input's {rank}")
    y = narrow(input, dim, start, length).clone()
    return y if out is None else out.copy_result(y)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False,
         invert: bool = False) -> Any:  # fmt: skip
    """y = whether each element occurs among the test elements (or does not), as bool."""
    if not isinstance(elements, Handle):
        elements = full((), elements)
    if isinstance(test_elements, Handle):
        tests = reshape(test_elements, (numel(shape_of(test_elements)),))
        y = (unsqueeze(elements, -1) == tests).any(-1)
    else:
        y = elements == test_elements
    return ~y if invert else y


def unravel_index(indices: Any, shape: Any) -> tuple:
    """The coordinates in `shape` of flat places, one tensor a dim."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    out = []
    rest = indices
    for n in reversed(sizes):
        out.append(rest % n)
        rest = rest // n
    return tuple(reversed(out))

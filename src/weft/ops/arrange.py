"""Tensors side by side: meshgrid, rows and columns stacked or split, products of sets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.core.types import broadcast_shapes, numel, wrap_dim
from weft.ops.creation import zeros
from weft.ops.dispatch import apply, dtype_of, shape_of, wrap
from weft.ops.index import Index
from weft.ops.join import cat, split, stack
from weft.ops.view import Slice, expand, movedim, reshape, shape_args, transpose, unsqueeze

__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "broadcast_tensors", "broadcast_to",
    "cartesian_prod", "column_stack", "combinations", "dsplit", "dstack", "hsplit", "hstack",
    "meshgrid", "moveaxis", "ravel", "row_stack", "swapaxes", "swapdims", "tensor_split",
    "tril_indices", "triu_indices", "vsplit", "vstack",
]  # fmt: skip

_MOST_SECTIONS = 2**26  # tensors that fill 32 GB


def _list(tensors: tuple) -> list:
    """`f(a, b)` and `f([a, b])` alike."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        return list(tensors[0])
    return list(tensors)


def broadcast_to(input: Any, *args: Any, size: Any = None) -> Any:
    """input expanded to `size`, as a view."""
    return expand(input, shape_args(args, "broadcast_to", size))


def broadcast_tensors(*tensors: Any) -> tuple:
    """All tensors expanded to their common shape, as views."""
    xs = _list(tensors)
    shape = broadcast_shapes(*(shape_of(x) for x in xs), op="broadcast_tensors")
    return tuple(expand(x, shape) for x in xs)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple:
    """Grids of the vectors' coordinates; the first varies along dim 0 ("ij") or dim 1 ("xy")."""
    xs = [x if shape_of(x) else reshape(x, (1,)) for x in _list(tensors)]
    if not xs:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(
            f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}'
        )
    for x in xs:
        if len(shape_of(x)) != 1:
            raise RuntimeError(
                "torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: "
                f"{list(shape_of(x))}"
            )
    swapped = indexing == "xy" and len(xs) > 1
    if swapped:
        xs[:2] = xs[1::-1]
    shape = tuple(shape_of(x)[0] for x in xs)
    grids = [
        expand(reshape(x, tuple(n if k == d else 1 for k, n in enumerate(shape))), shape)
        for d, x in enumerate(xs)
    ]
    if swapped:
        grids[:2] = grids[1::-1]
    return tuple(grids)


def swapaxes(input: Any, axis0: int, axis1: int) -> Any:
    """Dims axis0 and axis1 exchanged."""
    return transpose(input, axis0, axis1)


def swapdims(input: Any, dim0: int, dim1: int) -> Any:
    """Dims dim0 and dim1 exchanged."""
    return transpose(input, dim0, dim1)


def moveaxis(input: Any, source: Any, destination: Any) -> Any:
    """Dims `source` moved to places `destination`."""
    return movedim(input, source, destination)


def ravel(input: Any) -> Any:
    """All elements as one vector; a view of what is contiguous."""
    return reshape(input.contiguous(), (numel(shape_of(input)),))


def _at_least(tensors: tuple, grow: Any) -> Any:
    xs = _list(tensors)
    out = tuple(grow(x) for x in xs)
    single = len(tensors) == 1 and isinstance(tensors[0], Handle)
    return out[0] if single else out


def _one(x: Any) -> Any:
    return x if shape_of(x) else reshape(x, (1,))


def _two(x: Any) -> Any:
    return x if len(shape_of(x)) > 1 else unsqueeze(_one(x), 0)


def _three(x: Any) -> Any:
    return x if len(shape_of(x)) > 2 else unsqueeze(_two(x), -1)


def atleast_1d(*tensors: Any) -> Any:
    """0-dim tensors as vectors of one element."""
    return _at_least(tensors, _one)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors of fewer dims with dims of size 1 in front."""
    return _at_least(tensors, _two)


def atleast_3d(*tensors: Any) -> Any:
    """Vectors (n) as (1, n, 1), matrices (m, n) as (m, n, 1)."""
    return _at_least(tensors, _three)


def _some(op: str, tensors: Sequence[Any]) -> None:
    if not hasattr(tensors, "__len__"):
        kind = type(tensors).__name__
        raise TypeError(
            f"{op}(): argument 'tensors' (position 1) must be tuple of Tensors, not {kind}"
        )
    if not len(tensors):
        raise RuntimeError(f"{op} expects a non-empty TensorList")


def vstack(tensors: Sequence[Any], *, out: Any = None) -> Any:
    """Stacked by rows: joined along dim 0, vectors being rows."""
    _some("vstack", tensors)
    return cat([_two(x) for x in tensors], 0, out=out)


def hstack(tensors: Sequence[Any], *, out: Any = None) -> Any:
    """Stacked by columns: joined along dim 1, vectors along dim 0."""
    _some("hstack", tensors)
    xs = [_one(x) for x in tensors]
    return cat(xs, 0 if len(shape_of(xs[0])) == 1 else 1, out=out)


def dstack(tensors: Sequence[Any], *, out: Any = None) -> Any:
    """Stacked in depth: joined along dim 2."""
    _some("dstack", tensors)
    return cat([_three(x) for x in tensors], 2, out=out)


def column_stack(tensors: Sequence[Any], *, out: Any = None) -> Any:
    """Joined along dim 1, vectors being columns."""
    _some("column_stack", tensors)
    xs = [x if len(shape_of(x)) > 1 else reshape(x, (numel(shape_of(x)), 1)) for x in tensors]
    return cat(xs, 1, out=out)


def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> tuple:
    """Views of parts along dim: so many of nearly equal size, or cut at the places given."""
    shape = shape_of(input)
    if not shape:
        raise RuntimeError(
            "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims"
        )
    d = wrap_dim(dim, len(shape), "tensor_split")
    at = indices_or_sections
    if isinstance(at, Handle):
        at = at.tolist()
    if isinstance(at, int):
        if at <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {at}")
        if at > _MOST_SECTIONS:
            raise MemoryError(f"tensor_split: no memory for {at} tensors")
        small, larger = divmod(shape[d], at)
        return split(input, [small + (k < larger) for k in range(at)], d)
    n = shape[d]
    cuts = [0, *(min(max(c + n if c < 0 else c, 0), n) for c in at), n]
    return tuple(apply(Slice(d, a, max(a, b), 1), input) for a, b in itertools.pairwise(cuts))


def _split_along(op: str, least: int, dim: int, input: Any, at: Any) -> tuple:
    rank = len(shape_of(input))
    if rank < least:
        raise RuntimeError(
            f"torch.{op} requires a tensor with at least {least} dimension, but got a tensor with "
            f"{rank} dimensions!"
        )
    n = shape_of(input)[dim]
    if isinstance(at, int) and (at <= 0 or n % at):
        raise RuntimeError(
            f"torch.{op} attempted to split along dimension {dim}, but the size of the dimension "
            f"{n} is not divisible by the split_size {at}!"
        )
    return tensor_split(input, at, dim)


def hsplit(input: Any, indices_or_sections: Any) -> tuple:
    """tensor_split along dim 1 (dim 0 of a vector)."""
    dim = 0 if len(shape_of(input)) == 1 else 1
    return _split_along("hsplit", 1, dim, input, indices_or_sections)


def vsplit(input: Any, indices_or_sections: Any) -> tuple:
    """tensor_split along dim 0."""
    return _split_along("vsplit", 2, 0, input, indices_or_sections)


def dsplit(input: Any, indices_or_sections: Any) -> tuple:
    """tensor_split along dim 2."""
    return _split_along("dsplit", 3, 2, input, indices_or_sections)


def cartesian_prod(*tensors: Any) -> Any:
    """All tuples with one element of each vector, (product of sizes, number of vectors)."""
    xs = _list(tensors)
    for x in xs:
        if len(shape_of(x)) != 1:
            raise RuntimeError(f"Expect a 1D vector, but got shape {list(shape_of(x))}")
    if len(xs) == 1:
        return xs[0]
    grids = meshgrid(*xs, indexing="ij")
    return stack([ravel(g) for g in grids], 1)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """All r-element subsets of the vector (multisets with_replacement), in order, one a row."""
    shape = shape_of(input)
    if len(shape) != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return zeros(0, dtype=dtype_of(input))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    n = shape[0] + r - 1 if with_replacement and shape[0] else shape[0]
    places = itertools.chain.from_iterable(choose(range(shape[0]), r))
    rows = np.fromiter(places, np.int64, math.comb(n, r) * r).reshape(-1, r)
    return apply(Index((0,), 0), input, wrap(rows))


def block_diag(*tensors: Any) -> Any:
    """The matrix with the given matrices on its diagonal, zeros elsewhere."""
    xs = [_two(x) for x in _list(tensors)]
    if not xs:
        return zeros(1, 0)
    d = dtype_of(xs[0])
    for x in xs[1:]:
        d = dt.promote_types(d, dtype_of(x))
    cols = [shape_of(x)[1] for x in xs]
    rows = []
    for k, x in enumerate(xs):
        m = shape_of(x)[0]
        left, right = zeros(m, sum(cols[:k]), dtype=d), zeros(m, sum(cols[k + 1 :]), dtype=d)
        rows.append(cat([left, x, right], 1))
    return cat(rows, 0)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None,
                 device: Any = None) -> Any:  # fmt: skip
    """The (row, column) places on and below the diagonal, as a 2 x n matrix."""
    return wrap(
        np.stack(np.tril_indices(row, offset, col)).astype((dt.asked(dtype) or dt.int64).np)
    )


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None,
                 device: Any = None) -> Any:  # fmt: skip
    """The (row, column) places on and above the diagonal, as a 2 x n matrix."""
    return wrap(
        np.stack(np.triu_indices(row, offset, col)).astype((dt.asked(dtype) or dt.int64).np)
    )


row_stack = vstack

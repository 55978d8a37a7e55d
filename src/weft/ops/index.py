"""Reading and writing at computed places: advanced indexing, gather, scatter, embedding.

Writes to one place happen in the order of the source, whatever the threads, so a gradient summed
over repeated indices has one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import Handle, state
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, broadcast_shapes, need_floats, numel, one_type, wrap_dim
from weft.kernels.layout import Layout
from weft.ops.cast import cast
from weft.ops.compare import where
from weft.ops.creation import arange, full
from weft.ops.dispatch import apply, dtype_of, shape_of, wrap
from weft.ops.kinds import by_loop, in_parts
from weft.ops.promote import number_of
from weft.ops.view import expand, reshape, unsqueeze
from weft.runtime.native import Launch

__all__ = ["index_add", "index_copy", "index_fill", "index_select", "take"]

WITH_ONE = {"of": ("float32", "int64"), "low": 0, "high": 3}
WITH_TWO = {"of": ("float32", "int64", "int64"), "low": 0, "high": 3}
TO_ONE = {"of": ("float32", "float32", "int64"), "low": 0, "high": 3}


def result_shape(x: Sequence[int], dims: Sequence[int], at: int, *indices: Sequence[int]) -> tuple:
    """x's other dims with the indices' common shape at place `at` among them."""
    rest = [n for d, n in enumerate(x) if d not in dims]
    if len(rest) + len(dims) != len(x):
        raise IndexError(f"too many indices for tensor of dimension {len(x)}: of dims {dims}")
    try:
        common = broadcast_shapes(*indices)
    except RuntimeError:
        shown = ", ".join(str(list(i)) for i in indices)
        raise IndexError(
            "shape mismatch: indexing tensors could not be broadcast together with shapes " + shown
        ) from None
    return (*rest[:at], *common, *rest[at:])


def outside(sizes: Sequence[int], indices: Sequence[np.ndarray], wrap: bool) -> tuple | None:
    """(index, which operand, size) of the first index that lies outside, if any does."""
    for k, (n, i) in enumerate(zip(sizes, indices, strict=True)):
        bad = (i >= n) | (i < (-n if wrap else 0))
        if bad.any():
            return int(i[bad].flat[0]), k, n
    return None


class _Indexed(Op, abstract=True):
    """What Index and its adjoints share: which dims are indexed, and where the result has them."""

    dims: tuple[int, ...] = (0,)
    at: int = 0
    wrap: bool = True  # -1 is the last place

    def _moved(self, x: np.ndarray, indices: tuple) -> tuple[np.ndarray, tuple]:
        """x with the indexed dims first, and the indices with negative ones counted from 0."""
        sizes = [x.shape[d] for d in self.dims]
        if outside(sizes, indices, self.wrap):
            raise self._error(sizes, indices)
        return np.moveaxis(x, self.dims, range(len(self.dims))), tuple(indices)

    def _error(self, sizes: Sequence[int], indices: Sequence[np.ndarray]) -> Exception:
        found = outside(sizes, indices, self.wrap)
        if found is None:
            return IndexError("index is out of bounds")
        index, k, n = found
        if n == 0:
            return IndexError("index is out of bounds for dimension with size 0")
        if not self.wrap:
            return IndexError(
                f"index out of range in self: index {index}, dimension {self.dims[k]} has size {n}"
            )
        return IndexError(
            f"index {index} is out of bounds for dimension {self.dims[k]} with size {n}"
        )

    def _check(self, indices: tuple[Type, ...]) -> None:
        """The kernels read one index tensor a dim, of whole numbers."""
        if len(indices) != len(self.dims):
            raise TypeError(f"{self.name}: {len(indices)} index tensors for {len(self.dims)} dims")
        for i in indices:
            if i.dtype not in (dt.int64, dt.int32):
                raise IndexError(f"tensors used as indices must be long or int, got {i.dtype.name}")

    def _places(self, rank: int) -> range:
        return range(self.at, self.at + rank)


class Index(_Indexed):
    """y[a, i, b] = x[a, indices[i], b]: x at the places that the indices name along `dims`"""

    def type(self, x: Type, *indices: Type) -> Type:
        self._check(indices)
        shape = result_shape(x.shape, self.dims, self.at, *(i.shape for i in indices))
        return Type(shape, x.dtype)

    def oracle(self, x: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        moved, indices = self._moved(x, indices)
        rank = np.broadcast(*indices).ndim
        return np.moveaxis(moved[indices], range(rank), self._places(rank))

    complex_host = in_parts

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_index(ins[0], self.dims, self.at, tuple(ins[1:]), out, self.wrap)

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return self._error([arrays[0].shape[d] for d in self.dims], arrays[1:])

    def vjp(self, g: Any, y: Any, x: Any, *indices: Any) -> tuple:
        op = IndexBack(self.dims, self.at, self.wrap, tuple(x.shape))
        return (lambda: apply(op, g, *indices), *(None for _ in indices))

    def vmap(self, size: int, dims: tuple, x: Any, *indices: Any) -> tuple[Any, int]:
        inner = tuple(d + 1 for d in self.dims)
        if all(d is None for d in dims[1:]):
            return apply(Index(inner, self.at + 1, self.wrap), x.movedim(dims[0], 0), *indices), 0
        indices, rank = _align_indices(indices, dims[1:])
        if dims[0] is None:
            return apply(Index(self.dims, self.at, self.wrap), x, *indices), self.at
        rows = reshape(arange(size), (size, *(1,) * rank))
        y = apply(Index((0, *inner), 0, self.wrap), x.movedim(dims[0], 0), rows, *indices)
        places = tuple(range(self.at + 1, self.at + 1 + rank))
        return y.movedim(tuple(range(1, rank + 1)), places), 0

    onnx = Onnx("Gather", 13, build=onnx_rules.index)
    samples = (
        sample((4, 3), (5,), dims=(0,), at=0, **WITH_ONE),
        sample((3, 4), (2, 2), dims=(0,), at=0, wrap=False, **WITH_ONE),
        sample((2, 3, 4), (2,), (3, 1), dims=(1, 2), at=1, **WITH_TWO),
        sample((3, 2, 4), (2,), (2,), dims=(0, 2), at=0, **WITH_TWO),
        sample((3, 2), (0,), dims=(0,), at=0, **WITH_ONE),
        sample((4, 3), (5,), dims=(0,), at=0, of=("complex64", "int64"), low=0, high=3),
    )


def _align_indices(indices: tuple, dims: tuple) -> tuple[tuple, int]:
    """The indices with their batch dim first (size 1 where there is none), all of one rank."""
    rank = max(i.ndim - (d is not None) for i, d in zip(indices, dims, strict=True))
    out = []
    for i, d in zip(indices, dims, strict=True):
        i = unsqueeze(i, 0) if d is None else i.movedim(d, 0)
        out.append(reshape(i, (i.shape[0], *(1,) * (rank + 1 - i.ndim), *i.shape[1:])))
    return tuple(out), rank


class IndexBack(_Indexed):
    """The adjoint of Index: zeros of `shape` with g added, in order, where the indices say"""

    shape: tuple[int, ...] = ()

    def type(self, g: Type, *indices: Type) -> Type:
        want = Index(self.dims, self.at, self.wrap).type(Type(self.shape, g.dtype), *indices).shape
        if g.shape != want:
            raise RuntimeError(f"index: a cotangent of {list(g.shape)}, wanted {list(want)}")
        return Type(self.shape, g.dtype)

    def oracle(self, g: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        y = np.zeros(self.shape, g.dtype)
        moved, indices = self._moved(y, indices)
        rank = np.broadcast(*indices).ndim
        np.add.at(moved, indices, np.moveaxis(g, self._places(rank), range(rank)))
        return y

    complex_host = in_parts

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_index_put(
            "add", self.dims, self.at, None, tuple(ins[1:]), ins[0], out, self.wrap
        )

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return self._error([self.shape[d] for d in self.dims], arrays[1:])

    def vjp(self, g: Any, y: Any, x: Any, *indices: Any) -> tuple:
        op = Index(self.dims, self.at, self.wrap)
        return (lambda: apply(op, g, *indices), *(None for _ in indices))

    def vmap(self, size: int, dims: tuple, g: Any, *indices: Any) -> tuple[Any, int]:
        shape = (size, *self.shape)
        inner = tuple(d + 1 for d in self.dims)
        g = expand(g, (size, *g.shape)) if dims[0] is None else g.movedim(dims[0], 0)
        if all(d is None for d in dims[1:]):
            return apply(IndexBack(inner, self.at + 1, self.wrap, shape), g, *indices), 0
        indices, rank = _align_indices(indices, dims[1:])
        rows = reshape(arange(size), (size, *(1,) * rank))
        g = g.movedim(tuple(range(self.at + 1, self.at + 1 + rank)), tuple(range(1, rank + 1)))
        return apply(IndexBack((0, *inner), 0, self.wrap, shape), g, rows, *indices), 0

    samples = (
        sample((5, 3), (5,), dims=(0,), at=0, shape=(4, 3), **WITH_ONE),
        sample((2, 3, 2), (2,), (3, 1), dims=(1, 2), at=1, shape=(2, 3, 4), **WITH_TWO),
        sample((0, 2), (0,), dims=(0,), at=0, shape=(3, 2), **WITH_ONE),
        sample(
            (5, 3), (5,), dims=(0,), at=0, shape=(4, 3), of=("complex64", "int64"), low=0, high=3
        ),
    )


class IndexPut(_Indexed):
    """y = x with src written (mode "set") or added ("add"), in order, where the indices say"""

    mode: str = "set"

    def type(self, x: Type, src: Type, *indices: Type) -> Type:
        self._check(indices)
        if src.dtype is not x.dtype:
            raise RuntimeError(
                "Index put requires the source and destination dtypes match, got "
                f"{x.dtype.name} for the destination and {src.dtype.name} for the source."
            )
        shape = result_shape(x.shape, self.dims, self.at, *(i.shape for i in indices))
        try:
            fits = broadcast_shapes(src.shape, shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise RuntimeError(
                f"shape mismatch: value tensor of shape {list(src.shape)} cannot be broadcast to "
                f"indexing result of shape {list(shape)}"
            )
        return x

    def oracle(self, x: np.ndarray, src: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        y = np.array(x)
        moved, indices = self._moved(y, indices)
        shape = result_shape(x.shape, self.dims, self.at, *(i.shape for i in indices))
        rank = np.broadcast(*indices).ndim
        src = np.moveaxis(np.broadcast_to(src, shape), self._places(rank), range(rank))
        if self.mode == "add":
            np.add.at(moved, indices, src)
        else:
            moved[indices] = src
        return y

    complex_host = in_parts

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_index_put(
            self.mode, self.dims, self.at, ins[0], tuple(ins[2:]), ins[1], out, self.wrap
        )

    def plan_in_place(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_index_put(
            self.mode, self.dims, self.at, ins[0], tuple(ins[2:]), ins[1], out, self.wrap,
            in_place=True,
        )  # fmt: skip

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return self._error([arrays[0].shape[d] for d in self.dims], arrays[2:])

    def vjp(self, g: Any, y: Any, x: Any, src: Any, *indices: Any) -> tuple:
        read = Index(self.dims, self.at, self.wrap)

        def kept() -> Any:
            return apply(self, g, full((), 0, dtype=g.dtype), *indices)

        def written() -> Any:
            return apply(read, g, *indices).sum_to_size(tuple(src.shape))

        return g if self.mode == "add" else kept, written, *(None for _ in indices)

    vmap = by_loop
    onnx = Onnx("ScatterND", 16, build=onnx_rules.index_put)
    samples = (
        sample((4, 3), (2, 3), (2,), dims=(0,), at=0, mode="add", **TO_ONE),
        sample((3, 4), (3, 1), (2,), dims=(1,), at=1, mode="add", **TO_ONE),
        sample((4, 3), (), (1,), dims=(0,), at=0, **TO_ONE),
        sample(
            (4, 3),
            (2, 3),
            (2,),
            dims=(0,),
            at=0,
            mode="add",
            of=("complex64", "complex64", "int64"),
            low=0,
            high=3,
        ),
    )


class Embedding(Op):
    """y[..., :] = weight[index[...], :]"""

    padding_idx: int | None = None
    scale_grad_by_freq: bool = False
    sparse: bool = False  # the gradient keeps the rows that occur; dense inside compiled functions

    def type(self, weight: Type, index: Type) -> Type:
        return Index((0,), 0, False).type(weight, index)

    def oracle(self, weight: np.ndarray, index: np.ndarray) -> np.ndarray:
        return weight[index]

    complex_host = in_parts

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_index(ins[0], (0,), 0, (ins[1],), out, False)

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return Index((0,), 0, False).fail(status, arrays)

    def vjp(self, g: Any, y: Any, weight: Any, index: Any) -> tuple:
        if self.sparse and state.recorder is None:
            return lambda: self._rows(g, weight.shape, index), None
        back = EmbeddingBack(weight.shape[0], self.padding_idx, self.scale_grad_by_freq)
        return lambda: apply(back, g, index), None

    def _rows(self, g: Any, shape: tuple[int, ...], index: Any) -> Any:
        if self.scale_grad_by_freq:
            raise RuntimeError(
                "embedding_backward: scale_grad_by_freq not supported with sparse gradients"
            )
        at = reshape(index, (-1,))
        g = reshape(g, (-1, shape[1]))
        if self.padding_idx is not None:
            kept = wrap(np.flatnonzero(at._a != self.padding_idx))
            at, g = index_select(at, 0, kept), index_select(g, 0, kept)
        return _sparse_maker[0](at, g, shape)

    def vmap(self, size: int, dims: tuple, weight: Any, index: Any) -> tuple[Any, int]:
        return Index((0,), 0, False).vmap(size, dims, weight, index)

    onnx = Onnx("Gather", 13, build=onnx_rules.embedding)
    samples = (  # a padding row that occurs gets no gradient on purpose: tested elsewhere
        sample((4, 3), (2, 5), **WITH_ONE),
        sample((4, 3), (3,), padding_idx=3, **WITH_ONE),
        sample((4, 3), (1,), scale_grad_by_freq=True, **WITH_ONE),
    )


_sparse_maker: list[Callable[[Any, Any, tuple[int, ...]], Any]] = []


def install_sparse(make: Callable[[Any, Any, tuple[int, ...]], Any]) -> None:
    """sparse/ names what makes a tensor of (rows, their values, shape): rooms may not import it."""
    _sparse_maker[:] = [make]


class EmbeddingBack(Op):
    """y[n, :] = the sum over i with index[i] == n of g[i, :]; 0 for n == padding_idx"""

    rows: int = 0
    padding_idx: int | None = None
    scale_grad_by_freq: bool = False

    def type(self, g: Type, index: Type) -> Type:
        need_floats(self, g)
        one_type(self, index, Type(g.shape[:-1], index.dtype))
        return Type((self.rows, g.shape[-1]), g.dtype)

    def body(self, g: Any, index: Any) -> Any:
        g = self._scaled(g, index)
        return apply(IndexBack((0,), 0, False, (self.rows, g.shape[-1])), g, index)

    def _scaled(self, g: Any, index: Any) -> Any:
        if self.scale_grad_by_freq:
            ones = expand(full((), 1, dtype=g.dtype), tuple(index.shape))
            count = apply(IndexBack((0,), 0, False, (self.rows,)), ones, index)
            g = g / unsqueeze(apply(Index((0,), 0, False), count, index), -1)
        if self.padding_idx is not None:
            g = g.where(unsqueeze(index != self.padding_idx, -1), 0.0)
        return g

    def vjp(self, g: Any, y: Any, x: Any, index: Any) -> tuple:
        return self._scaled(apply(Index((0,), 0, False), g, index), index), None

    samples = (
        sample((2, 5, 3), (2, 5), rows=4, **WITH_ONE),
        sample((6, 3), (6,), rows=4, padding_idx=1, **WITH_ONE),
        sample((6, 3), (6,), rows=4, scale_grad_by_freq=True, **WITH_ONE),
    )


# ------------------------------------------------------------------------------- functions


def as_lines(op: str, x: Any, dim: int, index: Any) -> tuple[Any, int, Any]:
    """x and index with at least one dim, the dim counted from 0; checks the index."""
    if (
        isinstance(index, Handle)
        and dtype_of(index) not in (dt.int64, dt.int32)
        and op in ("gather", "scatter")
        and 0 in shape_of(index)
    ):
        index = cast(index, dt.int64)  # of nothing torch asks nothing
    if not isinstance(index, Handle):
        raise TypeError(f"{op}(): argument 'index' must be Tensor, not {type(index).__name__}")
    if dtype_of(index) not in (dt.int64, dt.int32):
        raise RuntimeError(f"{op}(): Expected dtype int32/int64 for index")
    d = wrap_dim(dim, len(shape_of(x)), op)
    x = x if shape_of(x) else reshape(x, (1,))
    index = index if shape_of(index) else reshape(index, (1,))
    return x, d, index


def _vector(op: str, x: Any, dim: int, index: Any) -> tuple[Any, int, Any]:
    x, d, index = as_lines(op, x, dim, index)
    if len(shape_of(index)) > 1:
        raise IndexError(f"{op}(): Index is supposed to be a vector")
    return x, d, index


def index_select(input: Any, dim: int, index: Any, *, out: Any = None) -> Any:
    """y = input's slices at `index` along dim; IndexError outside [0, size)."""
    x, d, index = _vector("index_select", input, dim, index)
    y = apply(Index((d,), d, False), x, index)
    y = y if shape_of(input) else reshape(y, ())
    return y if out is None else out.copy_result(y)


def written(op: str, mode: str, input: Any, dim: int, index: Any, source: Any, how: Any) -> Any:
    """`how(op, input, source, index)` of what index_add and index_copy mean."""
    x, d, index = _vector(op, input, dim, index)
    shape = shape_of(x)
    source = source if shape_of(source) or not shape_of(input) else reshape(source, (1,))
    given = shape_of(source) or (1,)
    source = reshape(source, given)
    if dtype_of(source) is not dtype_of(x):
        raise RuntimeError(
            f"{op}(): self and source expected to have the same dtype, but got (self) "
            f"{dtype_of(x).name} and (source) {dtype_of(source).name}"
        )
    if len(given) != len(shape) or given[:d] + given[d + 1 :] != shape[:d] + shape[d + 1 :]:
        raise (IndexError if op == "index_copy" else RuntimeError)(
            f"{op}(): source tensor shape must match self tensor shape, excluding the specified "
            f"dimension. Got self.shape = {list(shape)} source.shape = {list(given)}"
        )
    n = shape_of(index)[0]
    if given[d] != n:
        raise (IndexError if op == "index_copy" else RuntimeError)(
            f"{op}_(): Number of indices ({n}) should be equal to source.size(dim): "
            f"({given[d]}), for dim: {d}"
        )
    y = how(IndexPut((d,), d, False, mode), x, source, index)
    return y if shape_of(input) else reshape(y, ())


def index_add(
    input: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1, out: Any = None
) -> Any:
    """y = input with alpha * source's slices added, in order, to the slices `index` of dim."""
    y = written("index_add", "add", input, dim, index, times(alpha, source), apply)
    return y if out is None else out.copy_result(y)


def times(alpha: Any, source: Any) -> Any:
    """alpha * source"""
    alpha = number_of(alpha, "index_add", "alpha")
    return source if alpha == 1 else source * alpha


def index_copy(input: Any, dim: int, index: Any, source: Any, *, out: Any = None) -> Any:
    """y = input with the slices `index` of dim replaced by source's."""
    y = written("index_copy", "set", input, dim, index, source, apply)
    return y if out is None else out.copy_result(y)


def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """y = input with `value` in the slices `index` of dim (negative ones count from the end)."""
    return filled(input, dim, index, value, apply)


def filled(input: Any, dim: int, index: Any, value: Any, how: Any) -> Any:
    """`index_fill`, by how(op, input, value, index) where the value's gradient is not asked for."""
    x, d, index = _vector("index_fill", input, dim, index)
    if not isinstance(value, Handle):
        value = full((), value, dtype=dtype_of(x))
    elif shape_of(value):
        raise RuntimeError(
            "index_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{len(shape_of(value))} dimension(s)."
        )
    put = IndexPut((d,), d, True, "set")
    if value._rg:  # its gradient counts a place that is named twice once
        here = full((shape_of(x)[d],), False, dtype=dt.bool)
        here = apply(IndexPut((0,), 0, True, "set"), here, full((), True), index)
        here = reshape(here, (-1, *(1,) * (len(shape_of(x)) - d - 1)))
        y = where(here, cast(value, dtype_of(x)), x)
    else:
        y = how(put, x, cast(value, dtype_of(x)), index)
    return y if shape_of(input) else reshape(y, ())


def take(input: Any, index: Any, *, out: Any = None) -> Any:
    """y[i] = input.flatten()[index[i]]; IndexError outside [-n, n)."""
    if dtype_of(index) is not dt.int64:
        raise RuntimeError("take(): Expected a long tensor for index")
    y = apply(Index((0,), 0, True), reshape(input, (numel(shape_of(input)),)), index)
    return y if out is None else out.copy_result(y)


def embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any:  # fmt: skip
    """y[..., :] = weight[input[...], :], shapes (...) and (n, d) -> (..., d).

    `padding_idx`: that row gets no gradient.  `max_norm`: rows longer than that (in the norm
    `norm_type`) are first shortened in place.  `scale_grad_by_freq`: a row's gradient is divided
    by how often it occurs.  `sparse`: weight's gradient is a sparse tensor of the rows that occur.
    IndexError outside [0, n).
    """
    if len(shape_of(weight)) != 2:
        raise RuntimeError("'weight' must be 2-D")
    rows = shape_of(weight)[0]
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise AssertionError("Padding_idx must be within num_embeddings")
        padding_idx %= rows
    if dtype_of(input) not in (dt.int64, dt.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got torch.{dtype_of(input).spelled}Tensor instead (while checking "
            "arguments for embedding)"
        )
    if max_norm is not None:
        _shorten(weight, input, max_norm, norm_type)
    return apply(Embedding(padding_idx, scale_grad_by_freq, bool(sparse)), weight, input)


def _shorten(weight: Any, index: Any, max_norm: float, p: float) -> None:
    """The rows named by index scaled down to norm max_norm, unseen by the tape."""
    before, state.grad = state.grad, False
    try:
        used = full((shape_of(weight)[0],), 0, dtype=dtype_of(weight))
        used = index_fill(used, 0, reshape(index, (-1,)), 1.0)
        size = (weight.abs() ** p).sum(1) ** (1 / p)
        scale = (max_norm / (size + 1e-7)).where((size > max_norm) & (used != 0), 1.0)
        weight.mul_(unsqueeze(scale, 1))
    finally:
        state.grad = before

"""Elements in other places: flip roll repeat, triangles, diagonals, windows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import Handle
from weft.core.op import Copy, Onnx, Op, sample
from weft.core.types import Type, numel, whole, wholes, wrap_dim, wrap_dims
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.creation import arange, full
from weft.ops.dispatch import apply, chained, dtype_of, put, read, shape_of, wrap
from weft.ops.index import index_select
from weft.ops.join import cat
from weft.ops.kinds import View, by_batch
from weft.ops.view import expand, narrow, reshape, shape_args, transpose, unsqueeze
from weft.runtime import memory

__all__ = [
    "diag", "diag_embed", "diagonal", "flip", "fliplr", "flipud", "repeat_interleave", "roll",
    "rot90", "tile", "trace", "tril", "triu",
]  # fmt: skip


class Flip(Op):
    """y[..., i, ...] = x[..., n - 1 - i, ...] along each of dims"""

    dims: tuple[int, ...] = ()

    def host(self, x: np.ndarray) -> np.ndarray:
        y = memory.empty(x.shape, x.dtype)
        put(y, self.oracle(x))
        return y

    def copies(self, ins: list[Layout], out: Layout) -> list[Copy]:
        (x,) = ins
        strides = tuple(-s if d in self.dims else s for d, s in enumerate(x.strides))
        first = sum((x.shape[d] - 1) * x.strides[d] for d in self.dims) * x.dtype.itemsize
        return [(kernels.plan_copy(Layout(x.shape, strides, x.dtype), out), 0, 0, first)]

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.flip(x, self.dims)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(self, g),)

    vmap = by_batch

    onnx = Onnx("Slice", 13, build=onnx_rules.flip)
    samples = (sample((3, 4), dims=(1,)), sample((2, 3, 2), dims=(0, 2)), sample((0, 2), dims=(0,)))


class Diagonal(View):
    """y[..., i] = x[..., i - min(0, offset), ..., i + max(0, offset), ...] at dim1 and dim2"""

    offset: int = 0
    dim1: int = 0
    dim2: int = 1

    def type(self, x: Type) -> Type:
        rows, cols = x.shape[self.dim1], x.shape[self.dim2]
        n = max(0, min(rows + min(0, self.offset), cols - max(0, self.offset)))
        rest = tuple(m for d, m in enumerate(x.shape) if d not in (self.dim1, self.dim2))
        return Type((*rest, n), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        shape = self.type(Type(x.shape, dt.float32)).shape
        moved = np.moveaxis(x, (self.dim1, self.dim2), (-2, -1))
        moved = moved[..., max(0, -self.offset) :, max(0, self.offset) :]
        strides = (*moved.strides[:-2], moved.strides[-2] + moved.strides[-1])
        return np.lib.stride_tricks.as_strided(moved, shape, strides)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.diagonal(x, self.offset, self.dim1, self.dim2)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        back = DiagonalBack(self.offset, self.dim1, self.dim2, tuple(x.shape))
        return (apply(back, g),)

    vmap = by_batch

    onnx = Onnx("Gather", 13, build=onnx_rules.diagonal)
    samples = (
        sample((3, 4)),
        sample((2, 4, 3), offset=1, dim1=2, dim2=1),
        sample((2, 3), offset=-1),
        sample((2, 2), offset=5),
    )


class DiagonalBack(Op):
    """The adjoint of Diagonal: zeros of `shape` with x on the diagonal"""

    offset: int = 0
    dim1: int = 0
    dim2: int = 1
    shape: tuple[int, ...] = ()

    def type(self, x: Type) -> Type:
        want = Diagonal(self.offset, self.dim1, self.dim2).type(Type(self.shape, x.dtype)).shape
        if x.shape != want:
            raise RuntimeError(f"diagonal: a cotangent of {list(x.shape)}, wanted {list(want)}")
        return Type(self.shape, x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros(self.shape, x.dtype)
        Diagonal(self.offset, self.dim1, self.dim2).host(y)[...] = x
        return y

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros(self.shape, x.dtype)
        moved = np.moveaxis(y, (self.dim1, self.dim2), (-2, -1))
        for i in range(x.shape[-1]):
            moved[..., i + max(0, -self.offset), i + max(0, self.offset)] = x[..., i]
        return y

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(Diagonal(self.offset, self.dim1, self.dim2), g),)

    vmap = by_batch

    samples = (
        sample((3,), shape=(3, 4)),
        sample((2, 3), offset=1, dim1=2, dim2=1, shape=(2, 4, 3)),
    )


class Unfold(View):
    """y[..., i, ..., k] = x[..., i * step + k, ...] along dim, k < size: windows"""

    dim: int = 0
    size: int = 1
    step: int = 1

    def type(self, x: Type) -> Type:
        n = (x.shape[self.dim] - self.size) // self.step + 1
        if self.size > x.shape[self.dim]:
            raise RuntimeError(
                f"maximum size for tensor at dimension {self.dim} is {x.shape[self.dim]} but size "
                f"is {self.size}"
            )
        return Type((*x.shape[: self.dim], n, *x.shape[self.dim + 1 :], self.size), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        shape = self.type(Type(x.shape, dt.float32)).shape
        s = x.strides
        strides = (*s[: self.dim], s[self.dim] * self.step, *s[self.dim + 1 :], s[self.dim])
        return np.lib.stride_tricks.as_strided(x, shape, strides)

    def oracle(self, x: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x, self.size, self.dim)
        return windows[(slice(None),) * self.dim + (slice(None, None, self.step),)]

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(UnfoldBack(self.dim, self.size, self.step, x.shape[self.dim]), g),)

    vmap = by_batch

    onnx = Onnx("Gather", 13, build=onnx_rules.unfold)
    samples = (sample((7,), size=3, step=2), sample((2, 5, 3), dim=1, size=2), sample((3,), size=3))


class UnfoldBack(Op):
    """The adjoint of Unfold: windows added into zeros with `length` along dim"""

    dim: int = 0
    size: int = 1
    step: int = 1
    length: int = 0

    def type(self, x: Type) -> Type:
        y = Type((*x.shape[: self.dim], self.length, *x.shape[self.dim + 1 : -1]), x.dtype)
        want = Unfold(self.dim, self.size, self.step).type(y).shape
        if x.shape != want:
            raise RuntimeError(f"unfold: a cotangent of {list(x.shape)}, wanted {list(want)}")
        return y

    def host(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros(self.type(Type(x.shape, dt.float32)).shape, x.dtype)
        n = x.shape[self.dim]
        for k in range(self.size):  # element k of every window: no two windows share a place
            places = slice(k, k + (n - 1) * self.step + 1, self.step)
            y[(slice(None),) * self.dim + (places,)] += x[..., k]
        return y

    def oracle(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros(self.type(Type(x.shape, dt.float32)).shape, x.dtype)
        rows, windows = np.moveaxis(y, self.dim, 0), np.moveaxis(x, (self.dim, -1), (0, 1))
        for i in range(windows.shape[0]):
            rows[i * self.step : i * self.step + self.size] += windows[i]
        return y

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(Unfold(self.dim, self.size, self.step), g),)

    vmap = by_batch

    samples = (
        sample((3, 3), size=3, step=2, length=7),
        sample((2, 4, 3, 2), dim=1, size=2, length=5),
    )


# ------------------------------------------------------------------------------- functions


def flip(input: Any, *args: Any, dims: Any = None) -> Any:
    """input reversed along dims, as a copy."""
    if dims is None and (y := dispatch.known(input, _FLIP, *args)) is not None:
        return y
    given = shape_args(args, "flip", dims)
    wanted = wrap_dims(given, len(shape_of(input)), "flip") if given else ()
    if not wanted:
        return input.clone()
    op = Flip(wanted)
    return apply(op, input) if dims is not None else dispatch.told(op, input, _FLIP, *args)


_FLIP = dispatch.wish()


def fliplr(input: Any) -> Any:
    """input reversed along dim 1."""
    if len(shape_of(input)) < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return apply(Flip((1,)), input)


def flipud(input: Any) -> Any:
    """input reversed along dim 0."""
    if not shape_of(input):
        raise RuntimeError("Input must be >= 1-d.")
    return apply(Flip((0,)), input)


def roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    """y[i] = input[i - shift], round the end; of the flattened input when dims is None."""
    shape = shape_of(input)
    by = (shifts,) if isinstance(shifts, int) else wholes(shifts, "roll", "shifts")
    if dims is None or dims == ():
        if len(by) != 1:
            raise RuntimeError(f"shifts and dimensions must align. shifts: {len(by)}, dims:0")
        return reshape(_rolled(reshape(input, (numel(shape),)), by[0], 0), shape)
    along = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(by) != len(along):
        raise RuntimeError(
            f"shifts and dimensions must align. shifts: {len(by)}, dims:{len(along)}"
        )
    y = input
    for shift, d in zip(by, along, strict=True):
        y = _rolled(y, shift, wrap_dim(d, len(shape), "roll"))
    return y


def _rolled(x: Any, shift: int, d: int) -> Any:
    n = shape_of(x)[d]
    k = shift % n if n else 0
    if not k:
        return x.clone()
    return cat([narrow(x, d, n - k, k), narrow(x, d, 0, n - k)], d)


def rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """input turned k times by 90 degrees from dims[0] towards dims[1]."""
    dims = wholes(dims, "rot90", "dims")
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    rank = len(shape_of(input))
    if rank < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {rank}")
    a, b = (wrap_dim(d, rank, "rot90") for d in dims)
    if a == b:
        raise RuntimeError("expected rotation dims to be different, but got dim0 = dim1")
    k %= 4
    if k == 2:
        return apply(Flip(tuple(sorted((a, b)))), input)
    if k == 1:
        return transpose(apply(Flip((b,)), input), a, b).contiguous()
    return transpose(apply(Flip((a,)), input), a, b).contiguous() if k else input.clone()


def repeat(input: Any, *args: Any, repeats: Any = None) -> Any:
    """input tiled repeats[d] times along each dim; new dims come first."""
    times = shape_args(args, "repeat", repeats)
    shape = shape_of(input)
    lead = len(times) - len(shape)
    if lead < 0:
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            "tensor"
        )
    if any(n < 0 for n in times):
        raise RuntimeError(f"Trying to create tensor with negative dimension {min(times)}")
    full_shape = (*(1,) * lead, *shape)
    apart = tuple(itertools.chain.from_iterable((1, n) for n in full_shape))
    spread = tuple(itertools.chain.from_iterable(zip(times, full_shape, strict=True)))
    y = expand(reshape(input, apart), spread).clone()
    return reshape(y, tuple(r * n for r, n in zip(times, full_shape, strict=True)))


def tile(input: Any, *args: Any, dims: Any = None) -> Any:
    """repeat, with 1 for the leading dims that are not named."""
    times = shape_args(args, "tile", dims)
    return repeat(input, (*(1,) * (len(shape_of(input)) - len(times)), *times))


def repeat_interleave(
    input: Any, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Any:
    """Each element (or slice along dim) repeated in place; with one tensor alone, its indices."""
    if repeats is None:
        counts = read(input)
        if counts.ndim != 1:
            raise RuntimeError(
                "repeat_interleave only accept 1D vector as repeat, got a tensor of "
                f"{counts.ndim} dims"
            )
        if counts.dtype.kind not in "iu":
            raise dtype_of(input).lacks("repeat_interleave_cpu")
        if (counts < 0).any():
            raise RuntimeError(f"repeats can not be negative, got {counts.min()}")
        return wrap(np.repeat(np.arange(counts.shape[0]), counts))
    x, d = (reshape(input, (numel(shape_of(input)),)), 0) if dim is None else (input, dim)
    d = wrap_dim(d, len(shape_of(x)), "repeat_interleave")
    shape = shape_of(x)
    if isinstance(repeats, Handle) and numel(shape_of(repeats)) == 1:
        repeats = int(repeats.item())
    if isinstance(repeats, int):
        if repeats < 0:
            raise RuntimeError("Repeats must be non-negative")
        y = expand(unsqueeze(x, d + 1), (*shape[: d + 1], repeats, *shape[d + 1 :])).clone()
        return reshape(y, (*shape[:d], shape[d] * repeats, *shape[d + 1 :]))
    counts = repeats._a
    if counts.ndim != 1 or counts.shape[0] != shape[d]:
        raise RuntimeError(
            f"repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{counts.shape[0]} and input.size({d}) = {shape[d]}"
        )
    if counts.size and counts.min() < 0:
        raise RuntimeError("Repeats must be non-negative")
    return index_select(x, d, wrap(np.repeat(np.arange(shape[d]), counts)))


def _triangle(op: str, x: Any, diagonal: int, *, lower: bool) -> Any:
    shape = shape_of(x)
    if len(shape) < 2:
        raise RuntimeError(f"{op}: input tensor must have at least 2 dimensions")
    rows, cols = unsqueeze(arange(shape[-2]), 1), arange(shape[-1])
    mask = cols <= rows + diagonal if lower else cols >= rows + diagonal
    return x.where(mask, full((), 0, dtype=dtype_of(x)))


@chained
def tril(input: Any, diagonal: int = 0, *, out: Any = None) -> Any:
    """input with zeros above the diagonal."""
    y = _triangle("tril", input, diagonal, lower=True)
    return y if out is None else out.copy_result(y)


@chained
def triu(input: Any, diagonal: int = 0, *, out: Any = None) -> Any:
    """input with zeros below the diagonal."""
    y = _triangle("triu", input, diagonal, lower=False)
    return y if out is None else out.copy_result(y)


def diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The diagonal of dims dim1 and dim2, as a view with it last."""
    rank = len(shape_of(input))
    a, b = wrap_dim(dim1, rank, "diagonal"), wrap_dim(dim2, rank, "diagonal")
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return apply(Diagonal(offset, a, b), input)


def diag(input: Any, diagonal: int = 0, *, out: Any = None) -> Any:
    """The matrix with the vector on its diagonal, or the diagonal of the matrix (a copy)."""
    rank = len(shape_of(input))
    if rank not in (1, 2):
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {rank}D")
    if rank == 1:
        y = diag_embed(input, diagonal)
    else:
        y = apply(Diagonal(diagonal, 0, 1), input).clone()
    return y if out is None else out.copy_result(y)


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Matrices at dims dim1, dim2 of the result with input's last dim on their diagonal."""
    shape = shape_of(input)
    rank = len(shape) + 1
    a, b = wrap_dim(dim1, rank, "diag_embed"), wrap_dim(dim2, rank, "diag_embed")
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    n = shape[-1] + abs(offset)
    rest = iter(shape[:-1])
    wanted = tuple(n if d in (a, b) else next(rest) for d in range(rank))
    return apply(DiagonalBack(offset, a, b, wanted), input)


@chained
def trace(input: Any) -> Any:
    """The sum of a matrix's diagonal."""
    if len(shape_of(input)) != 2:
        raise RuntimeError("trace: expected a matrix")
    return apply(Diagonal(0, 0, 1), input).sum()


def unfold(input: Any, dimension: int, size: int, step: int) -> Any:
    """Windows of `size` along a dim, one every `step`, as a view; the window is the last dim."""
    shape = shape_of(input)
    d = wrap_dim(dimension, len(shape), "unfold")
    size, step = whole(size, "unfold", "size"), whole(step, "unfold", "step")
    n = shape[d] if shape else 1
    if size < 0 or size > n:
        raise RuntimeError(f"maximum size for tensor at dimension {d} is {n} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    x = input if shape else reshape(input, (1,))
    y = apply(Unfold(d, size, step), x)
    return y if shape else reshape(y, (size,))

"""Tensors joined along a dim: Concat, and stack, split, chunk built beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import Handle, state
from weft.core.op import Copy, Onnx, Op, sample
from weft.core.types import (
    Type,
    array_type,
    need_dims,
    numpy_words,
    one_type,
    some_dim,
    whole,
    wholes,
    wrap_dim,
)
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.cast import cast
from weft.ops.dispatch import MUCH, apply, dtype_of, put, shape_of
from weft.ops.kinds import by_batch
from weft.ops.view import Select, Slice, select, unflatten, unsqueeze
from weft.runtime import memory

__all__ = ["cat", "chunk", "concat", "concatenate", "split", "stack", "unbind"]


class Concat(Op):
    """y = the operands one after the other along dim"""

    dim: int = 0

    def type(self, *xs: Type) -> Type:
        first = xs[0]
        one_type(self, *(Type((), x.dtype) for x in xs))
        for i, x in enumerate(xs):
            if x.ndim != first.ndim:
                raise RuntimeError(
                    f"Tensors must have same number of dimensions: got {first.ndim} and {x.ndim}"
                )
            for d, (m, n) in enumerate(zip(first.shape, x.shape, strict=True)):
                if d != self.dim and m != n:
                    raise RuntimeError(
                        f"Sizes of tensors must match except in dimension {self.dim}. Expected "
                        f"size {m} but got size {n} for tensor number {i} in the list."
                    )
        total = sum(x.shape[self.dim] for x in xs)
        return Type((*first.shape[: self.dim], total, *first.shape[self.dim + 1 :]), first.dtype)

    def copies(self, ins: list[Layout], out: Layout) -> list[Copy]:
        made, at = [], 0
        for i, x in enumerate(ins):
            part = Layout(x.shape, out.strides, x.dtype)
            made.append((kernels.plan_copy(x, part), at, i, 0))
            at += x.shape[self.dim] * out.strides[self.dim] * x.dtype.itemsize
        return made

    def keeps_channels_last(self, *types: Type) -> bool:
        return self.dim == 0

    def host(self, *xs: np.ndarray) -> np.ndarray:
        if any(x.dtype != xs[0].dtype for x in xs):
            raise TypeError  # `type` says it in words
        if sum(x.nbytes for x in xs) < MUCH:
            return self.oracle(*xs)
        t = self.type(*map(array_type, xs))
        y, at = memory.empty(t.shape, xs[0].dtype), 0
        for x in xs:
            n = x.shape[self.dim]
            put(y[(slice(None),) * self.dim + (slice(at, at + n),)], x)
            at += n
        return y

    def oracle(self, *xs: np.ndarray) -> np.ndarray:
        return np.concatenate(xs, axis=self.dim)

    def vjp(self, g: Any, y: Any, *xs: Any) -> tuple:
        out = []
        at = 0
        for x in xs:
            n = x.shape[self.dim]
            out.append(_part(g, self.dim, at, at + n))
            at += n
        return tuple(out)

    vmap = by_batch

    onnx = Onnx("Concat", 13, build=onnx_rules.concat)
    samples = (
        sample((2, 3), (4, 3)),
        sample((2, 3), (2, 0), (2, 1), dim=1),
        sample((2, 3), (1, 3), of="complex64"),
    )


class Stack(Op):
    """y = the operands, all of one shape, along a new dim"""

    dim: int = 0

    def type(self, *xs: Type) -> Type:
        shape = one_type(self, *xs).shape
        need_dims(self, Type((*shape, 1), xs[0].dtype), (self.dim,))
        return Type((*shape[: self.dim], len(xs), *shape[self.dim :]), xs[0].dtype)

    def oracle(self, *xs: np.ndarray) -> np.ndarray:
        return np.stack(xs, self.dim)

    def body(self, *xs: Any) -> Any:
        return apply(Concat(self.dim), *[unsqueeze(x, self.dim) for x in xs])

    def vjp(self, g: Any, y: Any, *xs: Any) -> tuple:
        return tuple([partial(select, g, self.dim, i) for i in range(len(xs))])

    samples = (sample((2, 3), (2, 3)), sample((), (), dim=0), sample((2, 0), (2, 0), dim=2))


_CONCATS = tuple([Concat(d) for d in range(8)])
_STACKS = tuple([Stack(d) for d in range(8)])


def _part(g: Any, dim: int, start: int, stop: int) -> Any:
    return lambda: apply(Slice(dim, start, stop, 1), g)


def cat(tensors: Sequence[Any], dim: int = 0, *, out: Any = None, axis: int | None = None) -> Any:
    """The tensors one after the other along dim; dtypes promoted; empty 1-D tensors are skipped."""
    dim = dim if axis is None else axis
    if out is None and (y := dispatch.joined(_CONCATS, tensors, dim)) is not None:
        return y
    if isinstance(tensors, Handle):
        raise TypeError(
            "cat(): argument 'tensors' (position 1) must be tuple of Tensors, not Tensor"
        )
    xs = list(tensors)
    if out is None and state.recorder is None and _alike(xs):  # the short way of the same
        axis = wrap_dim(dim, xs[0]._a.ndim, "cat")
        return apply(Concat(axis), *xs)
    if out is None and state.recorder is not None and xs and dim.__class__ is int:
        axis = dim if dim >= 0 else dim + len(shape_of(xs[0]))
        if (y := Concat(axis).quick(*xs)) is not None:
            return y
    if not xs:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    if out is not None and any(x is out for x in xs):
        raise RuntimeError(
            "unsupported operation: the input tensors cannot refer to any of the output memory "
            "locations"
        )
    for i, x in enumerate(xs):
        if not hasattr(x, "_ghost"):
            raise TypeError(
                f"expected Tensor as element {i} in argument 0, but got {type(x).__name__}"
            )
        if not shape_of(x):
            raise RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
    d = dtype_of(xs[0])
    for x in xs[1:]:
        d = dt.promote_types(d, dtype_of(x))
    kept = [x for x in xs if shape_of(x) != (0,)] or xs[:1]
    axis_ = wrap_dim(dim, len(shape_of(kept[0])), "cat")
    y = apply(Concat(axis_), *(cast(x, d) for x in kept))
    return y if out is None else out.copy_result(y)


def _alike(xs: list) -> bool:
    """Whether these are plain tensors of one dtype, of some dims and not empty."""
    plain = dispatch.plain_classes
    d = None
    for x in xs:
        if x.__class__ not in plain:
            return False
        a = x._a
        if a.dtype is not d is not None or not a.shape or not a.size:
            return False
        d = a.dtype
    return d is not None


@numpy_words
def stack(tensors: Sequence[Any], dim: int = 0, *, out: Any = None) -> Any:
    """The tensors, all of one shape, along a new dim."""
    if out is None and (y := dispatch.joined(_STACKS, tensors, dim, True)) is not None:
        return y
    xs = list(tensors)
    if not xs:
        raise RuntimeError("stack expects a non-empty TensorList")
    shape = shape_of(xs[0])
    for i, x in enumerate(xs):
        if shape_of(x) != shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                f"{list(shape_of(x))} at entry {i}"
            )
    d = wrap_dim(dim, len(shape) + 1, "stack")
    if out is None and d < len(shape):  # one view of the whole instead of one of each tensor
        return unflatten(cat(xs, d), d, (len(xs), shape[d]))
    return cat([unsqueeze(x, d) for x in xs], d, out=out)


@numpy_words
def split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> tuple:
    """Views of consecutive parts along dim: of one size (the last may be smaller), or as listed."""
    wish = split_size_or_sections
    if wish.__class__ is list:
        wish = tuple(wish)
    if (ys := dispatch.parts(tensor, _SPLIT, wish, dim)) is not None:
        return ys
    shape = shape_of(tensor)
    if not shape:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    d = wrap_dim(dim, len(shape), "split")
    n = shape[d]
    if wish.__class__ is int or not getattr(wish, "ndim", 1):
        size = wish = whole(wish, "split", "split_size_or_sections")
        if size < 0 or (size == 0 and n != 0):
            raise RuntimeError(
                f"split expects split_size be non-negative, but got split_size={size}"
            )
        parts = [size] * (n // size) + ([n % size] if n % size else []) if size else [0]
        parts = parts or [0]
    else:
        parts = list(wholes(split_size_or_sections, "split_with_sizes", "split_sizes"))
        if sum(parts) != n or any(p < 0 for p in parts):
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size "
                f"at dimension {d}), but got split_sizes={parts}"
            )
    return dispatch.told_parts(_cuts(d, parts), tensor, _SPLIT, wish, dim)


_SPLIT, _CHUNK, _UNBIND = dispatch.wish(), dispatch.wish(), dispatch.wish()


def _cuts(dim: int, sizes: list[int]) -> list[Op]:
    return [Slice(dim, end - n, end, 1) for n, end in zip(sizes, accumulate(sizes), strict=True)]


@numpy_words
def chunk(input: Any, chunks: int, dim: int = 0) -> tuple:
    """At most `chunks` views of equal size (the last may be smaller) along dim."""
    if (ys := dispatch.parts(input, _CHUNK, chunks, dim)) is not None:
        return ys
    chunks = whole(chunks, "chunk", "chunks")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    if not shape_of(input):
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    d = wrap_dim(dim, len(shape_of(input)), "chunk")
    n = shape_of(input)[d]
    size = -(-n // chunks)
    sizes = [min(size, n - at) for at in range(0, n, size)] if size else [0] * chunks
    return dispatch.told_parts(_cuts(d, sizes), input, _CHUNK, chunks, dim)


@numpy_words
def unbind(input: Any, dim: int = 0) -> tuple:
    """The slices along dim, which is dropped, as views."""
    if (ys := dispatch.parts(input, _UNBIND, dim)) is not None:
        return ys
    shape = shape_of(input)
    d = some_dim(dim, shape, "unbind")
    ops: list[Op] = [Select(d, i) for i in range(shape[d])]
    return dispatch.told_parts(ops, input, _UNBIND, dim)


concat = concatenate = cat

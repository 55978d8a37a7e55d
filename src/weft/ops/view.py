"""Views: reshape permute expand slice squeeze ... the same memory under another shape.

A view op's `host` returns a NumPy view; where NumPy had to copy (a reshape that no strides can
express) the result is a tensor of its own, as in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import Handle
from weft.core.op import Onnx, sample
from weft.core.types import Type, array_type, need_dims, numel, some_dim, whole, wholes, wrap_dim
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.ops.cast import Bitcast
from weft.ops.dispatch import apply, dtype_of, fill, put, shape_of
from weft.ops.kinds import View
from weft.runtime import memory

__all__ = [
    "flatten", "movedim", "narrow", "permute", "reshape", "select", "squeeze", "t", "transpose",
    "unflatten", "unsqueeze",
]  # fmt: skip

Dims = int | Sequence[int]


_INT = {int}


def shape_args(args: tuple, op: str, named: Any = None) -> tuple[int, ...]:
    """`f(2, 3)`, `f((2, 3))` and `f(size=(2, 3))` (the list named by keyword) alike."""
    if named is not None:
        if args:
            raise TypeError(f"{op}() received its sizes twice: {args} and {named}")
        args = (named,)
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    if set(map(type, args)) <= _INT:
        return args
    try:
        return tuple(int(a.__index__()) for a in args)
    except AttributeError:
        kinds = ", ".join(type(a).__name__ for a in args)
        raise TypeError(
            f"{op}(): argument 'size' must be tuple of ints, not {args} ({kinds})"
        ) from None


def infer_shape(shape: tuple[int, ...], total: int) -> tuple[int, ...]:
    """`shape` with its -1 filled in; RuntimeError where the element counts differ."""
    unknown = [i for i, n in enumerate(shape) if n == -1]
    if len(unknown) > 1:
        raise RuntimeError("only one dimension can be inferred")
    if any(n < -1 for n in shape):
        raise RuntimeError(f"invalid shape dimension {min(shape)}")
    if unknown:
        known = numel(n for n in shape if n != -1)
        if known == 0 and total == 0:
            raise RuntimeError(
                f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                "unspecified dimension size -1 can be any value and is ambiguous"
            )
        if known == 0 or total % known:
            raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {total}")
        i = unknown[0]
        return (*shape[:i], total // known, *shape[i + 1 :])
    if numel(shape) != total:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {total}")
    return shape


def reshaped_strides(x: Layout, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The strides under which x's memory has `shape`; None where a copy is needed.

    Runs of x's dims that lie one within the other (stride = inner stride * inner size) can be
    regrouped freely; a dim of the new shape may not span two runs.
    """
    if numel(x.shape) == 0 or x.is_contiguous:
        return Layout.contiguous(shape, x.dtype).strides
    old = [(n, s) for n, s in zip(x.shape, x.strides, strict=True) if n != 1]
    out = [0] * len(shape)
    at = len(shape) - 1
    i = len(old) - 1
    while i >= 0:
        size, stride = old[i]  # grow a run leftwards
        while i > 0 and old[i - 1][1] == stride * size:
            i -= 1
            size *= old[i][0]
        i -= 1
        taken = 1
        while at >= 0 and taken < size:
            out[at] = stride * taken
            taken *= shape[at]
            at -= 1
        if taken != size:
            return None
    while at >= 0:  # leading ones
        if shape[at] != 1:
            return None
        out[at] = 0
        at -= 1
    return tuple(out)


class Reshape(View):
    """y has x's elements, in order, under `shape`"""

    shape: tuple[int, ...] = ()

    def type(self, x: Type) -> Type:
        return Type(infer_shape(self.shape, numel(x.shape)), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(self.shape)

    oracle = host

    def layout(self, x: Layout) -> tuple[Layout, int] | None:
        strides = reshaped_strides(x, self.shape)
        return None if strides is None else (Layout(self.shape, strides, x.dtype), 0)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(Reshape(tuple(x.shape)), g),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        return reshape(x.movedim(dims[0], 0), (size, *self.shape)), 0

    onnx = Onnx("Reshape", 14, build=onnx_rules.reshape)
    samples = (
        sample((2, 6), shape=(3, 4)),
        sample((0, 3), shape=(3, 0)),
        sample((), shape=(1,)),
        sample((3, 4), of="complex64", shape=(2, 6)),
    )


class Permute(View):
    """y[i[dims[0]], i[dims[1]], ...] = x[i]: dim k of y is dim dims[k] of x"""

    dims: tuple[int, ...] = ()

    def type(self, x: Type) -> Type:
        return Type(tuple(x.shape[d] for d in self.dims), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        return x.transpose(self.dims)

    oracle = host

    def layout(self, x: Layout) -> tuple[Layout, int] | None:
        shape = tuple(x.shape[d] for d in self.dims)
        return Layout(shape, tuple(x.strides[d] for d in self.dims), x.dtype), 0

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        back = [0] * len(self.dims)
        for k, d in enumerate(self.dims):
            back[d] = k
        return (apply(Permute(tuple(back)), g),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        moved = x.movedim(dims[0], 0)
        return apply(Permute((0, *(d + 1 for d in self.dims))), moved), 0

    onnx = Onnx("Transpose", 13, build=onnx_rules.permute)
    samples = (sample((2, 3, 4), dims=(2, 0, 1)), sample((0, 3), dims=(1, 0)))


class Expand(View):
    """y[..., i, ...] = x[..., 0 where x has size 1, ...]"""

    shape: tuple[int, ...] = ()

    def type(self, x: Type) -> Type:
        lead = len(self.shape) - len(x.shape)
        for d, n in enumerate(x.shape):
            if n not in (1, self.shape[lead + d]):
                raise RuntimeError(
                    f"expand: The expanded size of the tensor ({self.shape[lead + d]}) must match "
                    f"the existing size ({n}) at non-singleton dimension {lead + d}.  Target "
                    f"sizes: {list(self.shape)}.  Tensor sizes: {list(x.shape)}"
                )
        return Type(self.shape, x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        lead = len(self.shape) - x.ndim
        grown = [i for i, n in enumerate(x.shape) if n != self.shape[lead + i]]
        if lead >= 0 and x.flags.c_contiguous and all(x.shape[i] == 1 for i in grown):
            steps = [0 if i in grown else s for i, s in enumerate(x.strides)]
            return np.ndarray(self.shape, x.dtype, x, 0, (0,) * lead + tuple(steps))
        y = np.broadcast_to(x, self.shape)  # ten times slower
        # torch lets one write through an expanded tensor of one element a place; NumPy's flag
        # would refuse even the reads that take a writable buffer
        if x.flags.writeable and not y.flags.writeable:
            y = np.lib.stride_tricks.as_strided(x, y.shape, y.strides)
        return y

    def oracle(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, self.shape)

    def layout(self, x: Layout) -> tuple[Layout, int] | None:
        lead = len(self.shape) - len(x.shape)
        kept = (
            0 if n == 1 and m != 1 else s
            for n, m, s in zip(x.shape, self.shape[lead:], x.strides, strict=True)
        )
        return Layout(self.shape, (*(0,) * lead, *kept), x.dtype), 0

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g.sum_to_size(tuple(x.shape)),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        moved = x.movedim(dims[0], 0)
        pad = (1,) * (len(self.shape) + 1 - moved.ndim)
        moved = moved.reshape(size, *pad, *moved.shape[1:])
        return apply(Expand((size, *self.shape)), moved), 0

    onnx = Onnx("Expand", 13, build=onnx_rules.expand)
    samples = (sample((3, 1), shape=(2, 3, 4)), sample((1,), shape=(0,)), sample((), shape=(2,)))


class Part:
    """A slice's cotangent before it is put among zeros: the walk may join several (autograd)."""

    __slots__ = ("dim", "g", "size", "start", "step")
    _base = None

    def __init__(self, g: Any, dim: int, start: int, step: int, size: int) -> None:
        self.g, self.dim, self.start, self.step, self.size = g, dim, start, step, size

    def __call__(self) -> Any:
        """The cotangent alone."""
        return apply(SliceBack(self.dim, self.start, self.step, self.size), self.g)


class Slice(View):
    """y[..., i, ...] = x[..., start + i * step, ...] along `dim`, up to `stop`; step >= 1"""

    dim: int = 0
    start: int = 0
    stop: int = 0
    step: int = 1

    def type(self, x: Type) -> Type:
        n = len(range(*slice(self.start, self.stop, self.step).indices(x.shape[self.dim])))
        return Type((*x.shape[: self.dim], n, *x.shape[self.dim + 1 :]), x.dtype)

    def keeps_channels_last(self, *types: Type) -> bool:
        return self.dim == 0

    def host(self, x: np.ndarray) -> np.ndarray:
        return x[(slice(None),) * self.dim + (slice(self.start, self.stop, self.step),)]

    oracle = host

    def layout(self, x: Layout) -> tuple[Layout, int] | None:
        d = self.dim
        n = max(0, -(-(self.stop - self.start) // self.step))
        shape = (*x.shape[:d], n, *x.shape[d + 1 :])
        strides = (*x.strides[:d], x.strides[d] * self.step, *x.strides[d + 1 :])
        return Layout(shape, strides, x.dtype), self.start * x.strides[d]

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (Part(g, self.dim, self.start, self.step, x.shape[self.dim]),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        moved = x.movedim(dims[0], 0)
        return apply(Slice(self.dim + 1, self.start, self.stop, self.step), moved), 0

    onnx = Onnx("Slice", 13, build=onnx_rules.cut)
    samples = (sample((5, 4), dim=0, start=1, stop=4, step=2), sample((3, 6), dim=1, stop=0))


class Select(View):
    """y = x[..., index, ...] along `dim`, which is dropped"""

    dim: int = 0
    index: int = 0

    def type(self, x: Type) -> Type:
        if not 0 <= self.index < x.shape[self.dim]:
            raise IndexError(
                f"select(): index {self.index} out of range for tensor of size {list(x.shape)} at "
                f"dimension {self.dim}"
            )
        return Type(x.shape[: self.dim] + x.shape[self.dim + 1 :], x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        return x[(slice(None),) * self.dim + (self.index, ...)]

    oracle = host

    def layout(self, x: Layout) -> tuple[Layout, int] | None:
        d = self.dim
        kept = Layout(x.shape[:d] + x.shape[d + 1 :], x.strides[:d] + x.strides[d + 1 :], x.dtype)
        return kept, self.index * x.strides[d]

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (Part(unsqueeze(g, self.dim), self.dim, self.index, 1, x.shape[self.dim]),)

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        return apply(Select(self.dim + 1, self.index), x.movedim(dims[0], 0)), 0

    onnx = Onnx("Gather", 13, build=onnx_rules.select)
    samples = (sample((5, 4), dim=0, index=3), sample((3, 6), dim=1, index=0))


class SliceBack(View):
    """The adjoint of Slice: zeros of `size` along `dim`, with x at start, start + step, ..."""

    is_view = False
    dim: int = 0
    start: int = 0
    step: int = 1
    size: int = 0

    def type(self, x: Type) -> Type:
        need_dims(self, x, (self.dim,))
        n = x.shape[self.dim]
        if isinstance(n, int) and isinstance(self.size, int):
            stop = self.start + self.step * max(n - 1, 0) + (n > 0)
            if self.start < 0 or self.step < 1 or stop > self.size:
                raise RuntimeError(f"{self}: {x} does not lie within")
        return Type((*x.shape[: self.dim], self.size, *x.shape[self.dim + 1 :]), x.dtype)

    def host(self, x: np.ndarray) -> np.ndarray:
        y = memory.empty(self.type(array_type(x)).shape, x.dtype)
        stop = self.start + self.step * x.shape[self.dim]
        lines = (slice(None),) * self.dim
        for outside in (slice(self.start), slice(stop, None)) if self.step == 1 else (slice(None),):
            fill(y[(*lines, outside)], 0)
        put(y[(*lines, slice(self.start, stop, self.step))], x)
        return y

    oracle = host

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        stop = self.start + self.step * (x.shape[self.dim] - 1) + 1
        return (apply(Slice(self.dim, self.start, stop if x.shape[self.dim] else self.start, self.step), g),)  # fmt: skip  # noqa: E501

    def vmap(self, size: int, dims: tuple, x: Any) -> tuple[Any, int]:
        moved = x.movedim(dims[0], 0)
        return apply(SliceBack(self.dim + 1, self.start, self.step, self.size), moved), 0

    onnx = Onnx("ScatterElements", 16, build=onnx_rules.slice_back)
    samples = (sample((2, 4), dim=0, start=1, step=2, size=5), sample((3, 0), dim=1, size=6))


# ------------------------------------------------------------------------------- functions


def reshape(input: Any, *sizes: Any, shape: Any = None) -> Any:
    """The same elements, in order, under `shape` (one -1 is inferred); a view where possible."""
    if shape is None and (y := dispatch.known(input, _RESHAPE, sizes)) is not None:
        return y
    return _reshaped(input, sizes, shape, "reshape")


def view(input: Any, *shape: Any, size: Any = None, dtype: Any = None) -> Any:
    """reshape that never copies; RuntimeError where the strides do not allow it."""
    y = None
    if size is None and dtype is None:
        y = dispatch.known(input, _RESHAPE, shape)
    if y is None:
        if dtype is not None or (len(shape) == 1 and isinstance(shape[0], dt.dtype)):
            return apply(Bitcast(dt.asked(dtype or shape[0])), input)
        y = _reshaped(input, shape, size, "view")
    if y._base is None:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one "
            "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return y


def _reshaped(input: Any, sizes: tuple, named: Any, name: str) -> Any:
    old = shape_of(input)
    op = Reshape(infer_shape(shape_args(sizes, name, named), numel(old)))
    return dispatch.told(op, input, _RESHAPE, sizes or (named,))


(
    _RESHAPE, _PERMUTE, _TRANSPOSE, _T, _REVERSE, _MOVEDIM, _EXPAND, _SQUEEZE, _UNSQUEEZE,
    _FLATTEN, _NARROW, _SELECT,
) = [dispatch.wish() for _ in range(12)]  # fmt: skip


def permute(input: Any, *order: Any, dims: Any = None) -> Any:
    """Dims in another order: dim k of the result is dim dims[k] of the input."""
    if dims is None and (y := dispatch.known(input, _PERMUTE, order)) is not None:
        return y
    n = len(shape_of(input))
    wanted = shape_args(order, "permute", dims)
    if len(wanted) != n:
        raise RuntimeError(
            f"permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {n} is not equal to "
            f"len(dims) = {len(wanted)}"
        )
    places = tuple(wrap_dim(d, n, "permute") for d in wanted)
    if len(set(places)) != n:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return dispatch.told(Permute(places), input, _PERMUTE, order or (wanted,))


def transpose(input: Any, dim0: int, dim1: int) -> Any:
    """Dims dim0 and dim1 exchanged."""
    if (y := dispatch.known(input, _TRANSPOSE, dim0, dim1)) is not None:
        return y
    n = len(shape_of(input))
    a, b = wrap_dim(dim0, n, "transpose"), wrap_dim(dim1, n, "transpose")
    order = list(range(n))
    if n:
        order[a], order[b] = order[b], order[a]
    return dispatch.told(Permute(tuple(order)), input, _TRANSPOSE, dim0, dim1)


def t(input: Any) -> Any:
    """The transpose of a matrix; vectors and scalars as they are."""
    if (y := dispatch.known(input, _T)) is not None:
        return y
    n = len(shape_of(input))
    if n > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {n}D")
    return dispatch.told(Permute(tuple(reversed(range(n)))), input, _T)


def T(input: Any) -> Any:
    """Dims in reverse order."""
    if (y := dispatch.known(input, _REVERSE)) is not None:
        return y
    return dispatch.told(Permute(tuple(reversed(range(len(shape_of(input)))))), input, _REVERSE)


def movedim(input: Any, source: Dims, destination: Dims) -> Any:
    """Dims `source` moved to places `destination`, the others in order."""
    if (y := dispatch.known(input, _MOVEDIM, source, destination)) is not None:
        return y
    n = len(shape_of(input))
    sources = (source,) if isinstance(source, int) else wholes(source, "movedim", "source")
    targets = (
        (destination,)
        if isinstance(destination, int)
        else wholes(destination, "movedim", "destination")
    )
    if len(sources) != len(targets):
        raise RuntimeError("movedim: Invalid source or destination dims: they differ in length")
    src = [wrap_dim(d, n, "movedim") for d in sources]
    dst = [wrap_dim(d, n, "movedim") for d in targets]
    for name, given, dims in (("source", sources, src), ("destination", targets, dst)):
        if len(set(dims)) < len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({list(given)})")
    rest = iter(d for d in range(n) if d not in src)
    place = dict(zip(dst, src, strict=True))
    op = Permute(tuple(place[k] if k in place else next(rest) for k in range(n)))
    return dispatch.told(op, input, _MOVEDIM, source, destination)


def expand(input: Any, *sizes: Any, size: Any = None, implicit: bool = False) -> Any:
    """Size-1 dims repeated without copying; -1 keeps a size."""
    if size is None and (y := dispatch.known(input, _EXPAND, sizes)) is not None:
        return y
    have = shape_of(input)
    want = shape_args(sizes, "expand", size)
    lead = len(want) - len(have)
    if lead < 0:
        raise RuntimeError(
            f"expand: the number of sizes provided ({len(want)}) must be greater or equal to the "
            f"number of dimensions in the tensor ({len(have)})"
        )
    shape = tuple(have[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(want))
    if any(n < 0 for n in shape):
        raise RuntimeError(f"expand: invalid sizes {list(want)}")
    return dispatch.told(Expand(shape), input, _EXPAND, sizes or (want,))


def squeeze(input: Any, dim: Any = None) -> Any:
    """Dims of size 1 dropped: all, or only those named."""
    if (y := dispatch.known(input, _SQUEEZE, dim)) is not None:
        return y
    shape = shape_of(input)
    if not getattr(dim, "ndim", 1):  # a tensor is told once
        dim = whole(dim, "squeeze", "dim")
    dims = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    drop = {wrap_dim(d, len(shape), "squeeze") for d in dims}
    kept = tuple(n for i, n in enumerate(shape) if not (i in drop and n == 1))
    return dispatch.told(Reshape(kept), input, _SQUEEZE, dim)


def unsqueeze(input: Any, dim: int) -> Any:
    """A new dim of size 1 at place `dim`."""
    if (y := dispatch.known(input, _UNSQUEEZE, dim)) is not None:
        return y
    shape = shape_of(input)
    d = wrap_dim(dim, len(shape) + 1, "unsqueeze")
    return dispatch.told(Reshape((*shape[:d], 1, *shape[d:])), input, _UNSQUEEZE, dim)


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dims start_dim..end_dim joined into one."""
    if (y := dispatch.known(input, _FLATTEN, start_dim, end_dim)) is not None:
        return y
    shape = shape_of(input)
    if not shape:
        return apply(Reshape((1,)), input)
    a, b = wrap_dim(start_dim, len(shape), "flatten"), wrap_dim(end_dim, len(shape), "flatten")
    if a > b:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    op = Reshape((*shape[:a], numel(shape[a : b + 1]), *shape[b + 1 :]))
    return dispatch.told(op, input, _FLATTEN, start_dim, end_dim)


def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Any:
    """Dim `dim` split into `sizes`."""
    shape = shape_of(input)
    d = some_dim(dim, shape, "unflatten")
    inner = infer_shape(wholes(sizes, "unflatten", "sizes"), shape[d])
    return apply(Reshape((*shape[:d], *inner, *shape[d + 1 :])), input)


def narrow(input: Any, dim: int, start: int, length: int) -> Any:
    """`length` places of `dim` from `start` on, as a view."""
    if (y := dispatch.known(input, _NARROW, dim, start, length)) is not None:
        return y
    wish = dim, start, length
    shape = shape_of(input)
    if not shape:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    d = wrap_dim(dim, len(shape), "narrow")
    if hasattr(start, "item"):
        if isinstance(start, Handle) and (start.ndim or dtype_of(start).category != dt.INT):
            raise RuntimeError("start must be an 0-dim integral Tensor.")
        start = start.item()  # type: ignore[attr-defined]
    start, length = whole(start, "narrow", "start"), whole(length, "narrow", "length")
    if start < 0:
        start += shape[d]
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    n = shape[d]
    if not 0 <= start <= n:
        raise IndexError(
            f"start out of range (expected to be in range of [{-n}, {n}], but got {start})"
        )
    if start + length > n:
        raise RuntimeError(
            f"start ({start}) + length ({length}) exceeds dimension size ({shape[d]})."
        )
    return dispatch.told(Slice(d, start, start + length, 1), input, _NARROW, *wish)


def select(input: Any, dim: int, index: int) -> Any:
    """The slice `index` of `dim`, which is dropped, as a view."""
    if (y := dispatch.known(input, _SELECT, dim, index)) is not None:
        return y
    shape = shape_of(input)
    d = wrap_dim(dim, len(shape), "select")
    if not shape:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    n = shape[d]
    if not -n <= index < n:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(shape)} at dimension "
            f"{d}"
        )
    return dispatch.told(Select(d, index % n), input, _SELECT, dim, index)

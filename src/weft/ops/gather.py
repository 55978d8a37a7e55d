"""Gather and scatter: one index an element, along one dim; and what is reduced that way.

Writes to one place happen in the order of the source, whatever the threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft import kernels
from weft.core import dtype as dt
from weft.core import onnx_rules
from weft.core.handle import Handle
from weft.core.op import Onnx, Op, sample
from weft.core.types import Type, broadcast_shapes, need_dims, numel, unknown, wrap_dim
from weft.kernels.layout import Layout
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.index import TO_ONE, WITH_ONE, as_lines, outside
from weft.ops.kinds import by_batch, in_parts
from weft.ops.view import expand, narrow, reshape
from weft.runtime.native import Launch

__all__ = ["gather", "scatter", "scatter_add", "scatter_reduce", "take_along_dim"]


def _out_of(index: np.ndarray, size: int, dim: int) -> Exception:
    found = outside([size], [index], False)
    value = found[0] if found else "?"
    return RuntimeError(f"index {value} is out of bounds for dimension {dim} with size {size}")


def _check(op: Op, dim: int, x: tuple[int, ...], index: Type, src: Type | None = None) -> None:
    """RuntimeError unless the index (and src, of its shape) lies inside x but for dim."""
    if x:
        need_dims(op, Type(x, index.dtype), (dim,))
    inside = len(x) == index.ndim and all(
        m <= n for d, (m, n) in enumerate(zip(index.shape, x, strict=True)) if d != dim
    )
    if not inside or (src is not None and src.shape != index.shape):
        raise RuntimeError(
            f"{op.name.lower()}: index of shape {list(index.shape)} does not fit input of shape "
            f"{list(x)}" + ("" if src is None else f" and src of shape {list(src.shape)}")
        )
    if index.dtype.category != dt.INT:
        raise RuntimeError(f"{op.name.lower()}(): Expected dtype int64 for index")
    if x[dim : dim + 1] == (0,) and 0 not in index.shape:  # no launch would say so
        raise RuntimeError(f"index is out of bounds for dimension {dim} with size 0")


class Gather(Op):
    """y[i, j, k] = x[i, index[i, j, k], k] for dim 1"""

    dim: int = 0

    def type(self, x: Type, index: Type) -> Type:
        _check(self, self.dim, x.shape, index)
        return Type(index.shape, x.dtype)

    def oracle(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        cut = tuple(slice(None) if d == self.dim else slice(n) for d, n in enumerate(index.shape))
        return np.take_along_axis(x[cut], index.astype(np.int64), self.dim)

    complex_host = in_parts

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_gather(ins[0], self.dim, ins[1], out, False)

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return _out_of(arrays[1], arrays[0].shape[self.dim], self.dim)

    def vjp(self, g: Any, y: Any, x: Any, index: Any) -> tuple:
        return lambda: apply(GatherBack(self.dim, tuple(x.shape)), g, index), None

    vmap = by_batch

    onnx = Onnx("GatherElements", 13, build=onnx_rules.gather)
    samples = (
        sample((3, 4), (2, 4), dim=0, **WITH_ONE),
        sample((2, 3, 4), (2, 5, 3), dim=1, **WITH_ONE),
        sample((3, 2), (0, 2), dim=0, **WITH_ONE),
        sample((3, 4), (2, 4), dim=0, of=("complex64", "int64"), low=0, high=3),
    )


class GatherBack(Op):
    """The adjoint of Gather: zeros of `shape`; y[i, index[i, j, k], k] += g[i, j, k] for dim 1"""

    dim: int = 0
    shape: tuple[int, ...] = ()

    def type(self, g: Type, index: Type) -> Type:
        _check(self, self.dim, self.shape, index, g)
        return Type(self.shape, g.dtype)

    def oracle(self, g: np.ndarray, index: np.ndarray) -> np.ndarray:
        y = np.zeros(self.shape, g.dtype)
        np.add.at(y, along(index, self.dim), g)
        return y

    complex_host = in_parts

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_scatter("add", self.dim, None, ins[1], ins[0], out, False)

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return _out_of(arrays[1], self.shape[self.dim], self.dim)

    def vjp(self, g: Any, y: Any, x: Any, index: Any) -> tuple:
        return lambda: apply(Gather(self.dim), g, index), None

    vmap = by_batch

    samples = (
        sample((2, 4), (2, 4), dim=0, shape=(3, 4), **WITH_ONE),
        sample((2, 5, 3), (2, 5, 3), dim=1, shape=(2, 3, 4), **WITH_ONE),
        sample((2, 4), (2, 4), dim=0, shape=(3, 4), of=("complex64", "int64"), low=0, high=3),
    )


def along(index: np.ndarray, dim: int) -> tuple[np.ndarray, ...]:
    """NumPy's index tuple that reaches what Gather reads."""
    places: list[np.ndarray] = list(np.indices(index.shape, sparse=True))
    places[dim] = index
    return tuple(places)


class _Scatter(Op, abstract=True):
    """What the scatters share; src has the index's shape."""

    dim: int = 0
    mode: str = "set"

    def type(self, x: Type, src: Type, index: Type) -> Type:
        _check(self, self.dim, x.shape, index, src)
        if src.dtype is not x.dtype:
            raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype")
        return x

    def oracle(self, x: np.ndarray, src: np.ndarray, index: np.ndarray) -> np.ndarray:
        y = np.array(x)
        at = along(index, self.dim)
        if self.mode == "set":
            y[at] = src
        else:
            ufunc = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
            ufunc[self.mode].at(y, at, src)
        return y

    complex_host = in_parts

    def plan(self, ins: list[Layout], out: Layout) -> Launch:
        return kernels.plan_scatter(self.mode, self.dim, ins[0], ins[2], ins[1], out, False)

    def plan_in_place(self, ins: list[Layout], out: Layout) -> Launch:
        x, src, index = ins
        return kernels.plan_scatter(self.mode, self.dim, x, index, src, out, False, in_place=True)

    def fail(self, status: int, arrays: list[np.ndarray]) -> Exception:
        return _out_of(arrays[2], arrays[0].shape[self.dim], self.dim)

    vmap = by_batch


class Scatter(_Scatter):
    """y = x; y[i, index[i, j, k], k] = (mode "set") or += ("add") src[i, j, k] for dim 1"""

    def vjp(self, g: Any, y: Any, x: Any, src: Any, index: Any) -> tuple:
        def kept() -> Any:
            zeros = expand(full((), 0, dtype=g.dtype), tuple(index.shape))
            return apply(self, g, zeros, index)

        return g if self.mode == "add" else kept, lambda: apply(Gather(self.dim), g, index), None

    onnx = Onnx("ScatterElements", 16, build=onnx_rules.scatter)
    samples = (
        sample((3, 4), (2, 4), (2, 4), dim=0, mode="add", **TO_ONE),
        sample((3, 4), (3, 1), (3, 1), dim=1, **TO_ONE),
        sample(
            (3, 4), (3, 1), (3, 1), dim=1, of=("complex64", "complex64", "int64"), low=0, high=3
        ),
    )


class ScatterReduce(_Scatter):
    """y = x; y[i, index[i, j, k], k] = op(itself, src[i, j, k]) for dim 1; op: mul min max"""

    complex_host = None
    mode: str = "mul"

    def vjp(self, g: Any, y: Any, x: Any, src: Any, index: Any) -> tuple:
        def read(z: Any) -> Any:
            return apply(Gather(self.dim), z, index)

        def added(to: Any, z: Any) -> Any:
            return apply(Scatter(self.dim, "add"), to, z, index)

        if self.mode != "mul":  # those that equal the extreme share the cotangent
            mine, theirs = cast(x == y, g.dtype), cast(src == read(y), g.dtype)
            each = g / added(mine, theirs)
            return lambda: each * mine, lambda: read(each) * theirs, None

        def to_x() -> Any:  # the product of the others, x's own zeros taken out
            others = x.where(x != 0, 1.0)
            return g * apply(self, others, src, index) / others

        def to_src() -> Any:  # a single zero at a place gets the product of the others there
            zero = src == 0
            count = read(added(full(tuple(x.shape), 0, dtype=g.dtype), cast(zero, g.dtype)))
            single = zero & (count == 1)
            without = apply(self, x, src.where(~single, 1.0), index)
            return read(g * without).where(single, read(g * y) / src.where(~zero, 1.0))

        return to_x, to_src, None

    onnx = Onnx("ScatterElements", 16, build=onnx_rules.scatter)
    samples = (
        sample((3, 4), (2, 4), (2, 4), dim=0, mode="mul", **TO_ONE),
        sample((3, 4), (3, 2), (3, 2), dim=1, mode="max", **TO_ONE),
        sample((3, 4), (2, 4), (2, 4), dim=0, mode="min", **TO_ONE),
    )


# ------------------------------------------------------------------------------- functions


_GATHERS: dict[tuple[int, int], Gather] = {}  # by rank and dim


def gather(input: Any, dim: int, index: Any, *, sparse_grad: bool = False, out: Any = None) -> Any:
    """y[i, j, k] = input[i, index[i, j, k], k] for dim 1.  The gradient is dense, also for
    `sparse_grad`.

    RuntimeError: ranks differ, the index is larger than input outside `dim`, an index outside
    [0, size).
    """
    rank, wanted = len(shape_of(input)), shape_of(index)
    known = _GATHERS.get((rank, dim)) if out is None else None
    if known is not None and (y := known.quick(input, index)) is not None:
        return y
    if out is not None and dtype_of(out) is not dtype_of(input):
        raise RuntimeError(
            f"Expected out tensor to have dtype {dtype_of(input).name}, but got "
            f"{dtype_of(out).name} instead"
        )
    x, d, index = as_lines("gather", input, dim, index)
    shape, places = shape_of(x), shape_of(index)
    if 0 in places:  # of nothing torch asks nothing
        y = reshape(narrow(reshape(x, (numel(shape),)), 0, 0, 0), wanted)
        return y if out is None else out.copy_result(y)
    if len(shape) != len(places):
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    for k, (n, m) in enumerate(zip(shape, places, strict=True)):
        if m > n and k != d:
            raise RuntimeError(
                f"Size does not match at dimension {k} expected index {list(places)} to be no "
                f"larger than self {list(shape)} apart from dimension {d}"
            )
    y = apply(Gather(d), x, index)
    if not rank or not wanted:
        y = reshape(y, wanted)
    elif dim.__class__ is int:
        _GATHERS[rank, dim] = Gather(d)
    return y if out is None else out.copy_result(y)


def scattered(
    kind: Any, op: str, mode: str, x: Any, dim: int, index: Any, src: Any, how: Any = apply
) -> Any:
    """`how(op, x, src, index)` of the scatter that is meant, its operands checked."""
    shape = shape_of(x)
    y, d, index = as_lines(op, x, dim, index)
    places = shape_of(index)
    if not isinstance(src, Handle):
        src = expand(full((), src, dtype=dtype_of(x)), places)
    elif dtype_of(src) is not dtype_of(x):
        raise RuntimeError(f"{op}(): Expected self.dtype to be equal to src.dtype")
    src = src if shape_of(src) else reshape(src, (1,))
    have, given = shape_of(y), shape_of(src)
    if not (len(have) == len(places) == len(given)):
        raise RuntimeError(
            "Index tensor must have the same number of dimensions as self tensor and src tensor, "
            f"got index {list(places)}, self {list(have)}, src {list(given)}"
        )
    if any(
        m > s or (k != d and m > n)
        for k, (n, m, s) in enumerate(zip(have, places, given, strict=True))
    ):
        raise RuntimeError(
            f"Expected index {list(places)} to be no larger than self {list(have)} apart from "
            f"dimension {d} and to be no larger size than src {list(given)}"
        )
    for k, (m, s) in enumerate(zip(places, given, strict=True)):
        src = src if m == s else narrow(src, k, 0, m)
    y = how(kind(d, mode), y, src, index)
    return y if shape else reshape(y, shape)


def scatter(
    input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None,
    reduce: str | None = None, out: Any = None,
) -> Any:  # fmt: skip
    """y = input; y[i, index[i, j, k], k] = src[i, j, k] for dim 1, in the order of the source.

    src may be a number (or `value`).  reduce: None, "add" or "multiply".
    """
    y = put(apply, input, dim, index, src, value, reduce)
    return y if out is None else out.copy_result(y)


def put(how: Any, input: Any, dim: int, index: Any, src: Any, value: Any, reduce: Any) -> Any:
    """`scatter` by how(op, *operands)."""
    src = value if src is None else src
    if reduce not in (None, "add", "multiply"):
        said = "reduce argument must be either add or multiply."
        raise unknown("scatter", "reduce", reduce, said)
    kind = ScatterReduce if reduce == "multiply" else Scatter
    mode = {"add": "add", "multiply": "mul"}.get(reduce or "", "set")
    return scattered(kind, "scatter", mode, input, dim, index, src, how)


def scatter_add(input: Any, dim: int, index: Any, src: Any, *, out: Any = None) -> Any:
    """y = input; y[i, index[i, j, k], k] += src[i, j, k] for dim 1, in the order of src."""
    y = scattered(Scatter, "scatter", "add", input, dim, index, src)
    return y if out is None else out.copy_result(y)


def scatter_reduce(
    input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True,
    out: Any = None,
) -> Any:  # fmt: skip
    """y = input with src reduced into it: sum, prod, mean, amax or amin.

    Without include_self, input's values at the places written do not count.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        said = f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}"
        raise unknown("scatter_reduce", "reduce", reduce, said)
    d = dtype_of(input)
    x = input
    if not include_self:
        x = scatter(x, dim, index, _identity(reduce, d))
    if reduce in ("sum", "mean"):
        y = scattered(Scatter, "scatter", "add", x, dim, index, src)
    else:
        mode = {"prod": "mul", "amax": "max", "amin": "min"}[reduce]
        y = scattered(ScatterReduce, "scatter", mode, x, dim, index, src)
    if reduce == "mean":
        start = full(shape_of(input), int(include_self), dtype=d)
        count = scatter_add(start, dim, index, full(shape_of(index), 1, dtype=d))
        count = count.where(count != 0, full((), 1, dtype=d))
        y = y / count if d.category == dt.FLOAT else y // count
    return y if out is None else out.copy_result(y)


def _identity(reduce: str, d: dt.dtype) -> Any:
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    if d.category == dt.FLOAT:
        return float("-inf") if reduce == "amax" else float("inf")
    if d is dt.bool:
        return reduce == "amin"
    info = np.iinfo(d.np)
    return int(info.min if reduce == "amax" else info.max)


def take_along_dim(input: Any, indices: Any, dim: int | None = None, *, out: Any = None) -> Any:
    """gather with input and indices broadcast outside `dim`; flattened when dim is None."""
    if dim is not None and dtype_of(indices) is dt.int64 and shape_of(input):  # may be negative
        size = shape_of(input)[wrap_dim(dim, len(shape_of(input)), "take_along_dim")]
        indices = (indices + size).where(indices < 0, indices)
    if dim is None:
        x = reshape(input, (numel(shape_of(input)),))
        y = gather(x, 0, reshape(indices, (numel(shape_of(indices)),)))
    else:
        a, b = shape_of(input), shape_of(indices)
        if len(a) != len(b):
            raise RuntimeError(
                "torch.take_along_dim(): input and indices should have the same number of "
                f"dimensions, but got {len(a)} dimensions for input, and {len(b)} dimensions for "
                "indices"
            )
        d = wrap_dim(dim, len(a), "take_along_dim")
        common = broadcast_shapes((*a[:d], 1, *a[d + 1 :]), (*b[:d], 1, *b[d + 1 :]))
        x = expand(input, (*common[:d], a[d], *common[d + 1 :]))
        y = gather(x, d, expand(indices, (*common[:d], b[d], *common[d + 1 :])))
    return y if out is None else out.copy_result(y)

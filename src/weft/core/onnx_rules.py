"""Rules that write an op as ONNX nodes: what an op class names in `onnx = Onnx(..., build=rule)`.

    rule(e, op, ins, types, out) -> the name of the result

`e` writes nodes (io/onnx/emit.py is one; nothing here imports onnx), `ins` are the operands' names,
`types` their types, `out` the result's.  Sizes may be symbolic where `e.dims` carries them; a size
that must be known is asked for with `known`.
Source: https://onnx.ai/onnx/operators/ and each operator's page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from weft.core import dtype as dt
from weft.core.scalar import Arg, Expr
from weft.core.types import Dim, Type, broadcast_shapes, wrap_dim

_END = 2**63 - 1


class NoRule(ValueError):
    """The op, or this use of it, has no ONNX form; the message says why."""


class Emitter(Protocol):
    """What a rule writes to."""

    opset: int

    def node(self, name: str, *ins: str, **attrs: Any) -> str: ...
    def nodes(self, name: str, count: int, *ins: str, **attrs: Any) -> list[str]: ...
    def const(self, value: Any, np_dtype: Any = None) -> str: ...
    def dims(self, shape: Sequence[int | Dim]) -> str: ...
    def scalar(self, expr: Expr, ins: Sequence[str]) -> str: ...


def known(sizes: Sequence[Any], what: str) -> tuple[int, ...]:
    """The sizes as ints; NoRule where one is symbolic."""
    if any(isinstance(n, Dim) for n in sizes):
        shown = ", ".join(map(str, sizes))
        raise NoRule(f"{what} [{shown}] must be known sizes; save with dynamic_batch=False")
    return tuple(sizes)


def whole(sizes: Sequence[Any]) -> bool:
    return not any(isinstance(n, Dim) for n in sizes)


# ------------------------------------------------------------------------------------- movement


def linear(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("Gemm", *ins, transB=1)


def literal(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.const(op.host(), op.dtype.np)


def reshape(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return reshaped(e, ins[0], out.shape)


def reshaped(e: Emitter, x: str, shape: Sequence[Any]) -> str:
    """One symbolic size is -1; with several, or a size 0 beside it, the shape is computed."""
    symbolic = [d for d, n in enumerate(shape) if isinstance(n, Dim)]
    if len(symbolic) == 1 and 0 not in shape:
        wanted = e.const([-1 if isinstance(n, Dim) else n for n in shape], np.int64)
        return e.node("Reshape", x, wanted)
    if symbolic or 0 in shape:
        return e.node("Reshape", x, e.dims(shape), allowzero=1)
    return e.node("Reshape", x, e.const(list(shape), np.int64))


def permute(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return transposed(e, ins[0], op.dims)


def transposed(e: Emitter, x: str, order: Sequence[int]) -> str:
    return x if list(order) == list(range(len(order))) else e.node("Transpose", x, perm=list(order))


def expand(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("Expand", ins[0], e.dims(out.shape))


def cut(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    axes, steps = e.const([op.dim], np.int64), e.const([op.step], np.int64)
    return e.node("Slice", ins[0], e.dims([op.start]), e.dims([op.stop]), axes, steps)


def select(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    at = e.node("Squeeze", e.dims([op.index]), e.const([0], np.int64))
    return e.node("Gather", ins[0], at, axis=op.dim)


def slice_back(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """Scattered into zeros along one dim."""
    (n,) = known([types[0].shape[op.dim]], "the size of dim")
    ndim = out.ndim
    places = (op.start + op.step * np.arange(n, dtype=np.int64)).reshape(
        [-1 if d == op.dim else 1 for d in range(ndim)]
    )
    zeros = e.node("Expand", e.const(0, out.dtype.np), e.dims(out.shape))
    at = e.node("Expand", e.const(places), e.dims(types[0].shape))
    return e.node("ScatterElements", zeros, at, ins[0], axis=op.dim)


def as_strided(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    flat = e.node("Reshape", ins[0], e.const([-1], np.int64))
    return e.node("Gather", flat, e.const(_places(op, known(out.shape, "as_strided"))), axis=0)


def write_strided(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """The memory flat, the written places scattered over it."""
    known(out.shape, "an in-place write to a tensor of size")
    places = _places(op, known(types[1].shape, "an in-place write of size")).reshape(-1)
    flat, src = (e.node("Reshape", x, e.const([-1], np.int64)) for x in ins)
    return reshaped(e, e.node("ScatterElements", flat, e.const(places), src, axis=0), out.shape)


def _places(op: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Where each element of a strided view lies in its memory."""
    at = np.full((), op.offset, np.int64)
    for n, s in zip(shape, known(op.strides, "strides"), strict=True):
        at = at[..., None] + np.arange(n, dtype=np.int64) * s
    return at


def concat(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("Concat", *ins, axis=op.dim)


def pad(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    ends = [a for a, _ in op.widths] + [b for _, b in op.widths]
    return e.node("Pad", ins[0], e.dims(ends), e.const(op.value, out.dtype.np))


def flip(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    if not op.dims:
        return ins[0]
    starts, ends, axes, steps = (
        e.const(v, np.int64)
        for v in ([-1] * len(op.dims), [-_END] * len(op.dims), list(op.dims), [-1] * len(op.dims))
    )
    return e.node("Slice", ins[0], starts, ends, axes, steps)


def diagonal(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """The two dims last and joined; the diagonal is one in every cols + 1 of them."""
    rows, cols = known([types[0].shape[d] for d in (op.dim1, op.dim2)], "the diagonal of")
    rest = [d for d in range(types[0].ndim) if d not in (op.dim1, op.dim2)]
    moved = transposed(e, ins[0], [*rest, op.dim1, op.dim2])
    flat = reshaped(e, moved, (*out.shape[:-1], rows * cols))
    n = known(out.shape[-1:], "the diagonal of")[0]
    first = max(0, -op.offset) * cols + max(0, op.offset)
    places = first + (cols + 1) * np.arange(n, dtype=np.int64)
    return e.node("Gather", flat, e.const(places), axis=out.ndim - 1)


def unfold(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    (n,) = known([out.shape[op.dim]], "windows")
    places = op.step * np.arange(n, dtype=np.int64)[:, None] + np.arange(op.size, dtype=np.int64)
    got = e.node("Gather", ins[0], e.const(places), axis=op.dim)
    rest = [d for d in range(out.ndim) if d != op.dim + 1]
    return transposed(e, got, [*rest, op.dim + 1])


def columns(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """Each window's places in the padded plane, gathered."""
    (h, w), (top, left) = op.size, op.padding
    ends = e.const([0, 0, top, left, 0, 0, top, left], np.int64)
    padded = e.node("Pad", ins[0], ends, e.const(0, out.dtype.np))
    shape = types[0].shape[:2]
    flat = reshaped(e, padded, (*shape, (h + 2 * top) * (w + 2 * left)))
    plane = np.arange((h + 2 * top) * (w + 2 * left)).reshape(h + 2 * top, w + 2 * left)
    places = np.stack([plane[at].reshape(-1) for _, _, at in op.taps()])
    return reshaped(e, e.node("Gather", flat, e.const(places), axis=2), out.shape)


# ------------------------------------------------------------------------------------- creation


def full(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    value = e.const(op.value, out.dtype.np)
    return e.node("Expand", value, e.dims(out.shape)) if out.shape else value


def constant(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    known(out.shape, "a tensor of size")
    return e.const(op.host())


def arange(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    if whole([op.start, op.step, op.length]):
        return e.const(op.host())
    known([op.start, op.step], "the start and step of a range")
    zero, one = e.const(0, np.int64), e.const(1, np.int64)
    places = e.node("Range", zero, e.node("Squeeze", e.dims([op.length])), one)
    wide = np.int64 if out.dtype.category == dt.INT else np.float64
    places = e.node("Mul", e.node("Cast", places, to=wide), e.const(op.step, wide))
    return e.node("Cast", e.node("Add", places, e.const(op.start, wide)), to=out.dtype.np)


# ---------------------------------------------------------------------------------- elementwise


def cast(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("Cast", ins[0], to=out.dtype.np)


def clip(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    low, high = ("" if v is None else e.const(v, out.dtype.np) for v in (op.min, op.max))
    return e.node("Clip", ins[0], low, high) if low or high else ins[0]


def identity(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return ins[0]


# ----------------------------------------------------------------------------------- reductions


def reduce(name: str) -> Any:
    """A reduction whose axes are an attribute before opset 18 and an operand from then on."""

    def rule(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
        x = ins[0] if types[0].dtype is out.dtype else e.node("Cast", ins[0], to=out.dtype.np)
        return reduced(e, name, x, op.dims, op.keepdim)

    return rule


def reduced(e: Emitter, name: str, x: str, dims: Sequence[int], keepdim: bool) -> str:
    if not dims:
        return x
    if e.opset >= 18 or name == "ReduceSum":
        return e.node(name, x, e.const(list(dims), np.int64), keepdims=int(keepdim))
    return e.node(name, x, axes=list(dims), keepdims=int(keepdim))


def reduce_bool(name: str) -> Any:
    """any (a sum) and all (a minimum), of booleans counted as 0 and 1."""

    def rule(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
        ones = e.node("Cast", ins[0], to=np.dtype(np.int32))
        y = reduced(e, name, ones, op.dims, op.keepdim)
        return e.node("Cast", y, to=np.dtype(np.bool_))

    return rule


def arg(name: str) -> Any:
    def rule(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
        if len(op.dims) == 1:
            return e.node(name, ins[0], axis=op.dims[0], keepdims=int(op.keepdim))
        flat = e.node("Reshape", ins[0], e.const([-1], np.int64))
        return reshaped(e, e.node(name, flat, axis=0, keepdims=0), out.shape)

    return rule


def cumulative_sum(
    e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type
) -> str:
    x = ins[0] if types[0].dtype is out.dtype else e.node("Cast", ins[0], to=out.dtype.np)
    return e.node("CumSum", x, e.const(op.dim, np.int64)) if out.ndim else x


def top_k(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    if not out.ndim:
        return e.const(0, np.int64)
    count = e.dims([out.shape[op.dim]])
    return e.nodes("TopK", 2, ins[0], count, axis=op.dim, largest=int(op.descending), sorted=1)[1]


def kth(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    count = e.const([op.k], np.int64)
    places = e.nodes("TopK", 2, ins[0], count, axis=op.dim, largest=0, sorted=1)[1]
    return e.node("Gather", places, e.const([op.k - 1], np.int64), axis=op.dim)


# ------------------------------------------------------------------------------------- indexing


def index(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """One indexed dim is a Gather; several a GatherND of x with those dims first."""
    x, *indices = ins
    rank = max(t.ndim for t in types[1:])
    if len(op.dims) == 1:
        d = op.dims[0]
        got = e.node("Gather", x, indices[0], axis=d)
        return transposed(e, got, _moved(out.ndim, d, op.at, rank))
    places = _tuples(e, indices, out.shape[op.at : op.at + rank])
    rest = [d for d in range(types[0].ndim) if d not in op.dims]
    got = e.node("GatherND", transposed(e, x, [*op.dims, *rest]), places)
    return transposed(e, got, _moved(out.ndim, 0, op.at, rank))


def index_put(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """A ScatterND into x with the indexed dims first."""
    x, src, *indices = ins
    common = broadcast_shapes(*(t.shape for t in types[2:]))
    rest = [d for d in range(out.ndim) if d not in op.dims]
    sizes = [out.shape[d] for d in rest]
    wide = e.node("Expand", src, e.dims([*sizes[: op.at], *common, *sizes[op.at :]]))
    updates = transposed(e, wide, _moved(len(rest) + len(common), op.at, 0, len(common)))
    order = [*op.dims, *rest]
    attrs = {"reduction": "add"} if op.mode == "add" else {}
    places = _tuples(e, indices, common)
    y = e.node("ScatterND", transposed(e, x, order), places, updates, **attrs)
    return transposed(e, y, [order.index(d) for d in range(out.ndim)])


def _tuples(e: Emitter, indices: Sequence[str], common: Sequence[Any]) -> str:
    """The indices, broadcast, side by side in a new last dim."""
    columns = []
    for i in indices:
        wide = e.node("Expand", e.node("Cast", i, to=np.dtype(np.int64)), e.dims(common))
        columns.append(e.node("Unsqueeze", wide, e.const([-1], np.int64)))
    return e.node("Concat", *columns, axis=-1)


def _moved(ndim: int, at: int, to: int, rank: int) -> list[int]:
    """The permutation that brings `rank` dims from place `at` to place `to`."""
    block = list(range(at, at + rank))
    rest = [d for d in range(ndim) if d not in block]
    return [*rest[:to], *block, *rest[to:]]


def embedding(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("Gather", ins[0], ins[1], axis=0)


def gather(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    x, shape = ins[0], types[0].shape
    cuts = [d for d, n in enumerate(shape) if d != op.dim and n != out.shape[d]]
    if cuts:  # an index smaller than x reads its beginning
        zeros, axes = e.const([0] * len(cuts), np.int64), e.const(cuts, np.int64)
        x = e.node("Slice", x, zeros, e.dims([out.shape[d] for d in cuts]), axes)
    return e.node("GatherElements", x, ins[1], axis=op.dim)


def pick_class(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    x, target = ins
    d = types[1].dtype.np
    skip = e.node("Equal", target, e.const(op.ignore, d))
    one = e.const([1], np.int64)
    at = e.node("Unsqueeze", e.node("Where", skip, e.const(0, d), target), one)
    got = e.node("Squeeze", e.node("GatherElements", x, at, axis=1), one)
    return e.node("Where", skip, e.const(0, out.dtype.np), got)


def scatter(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    x, src, at = ins
    if op.mode == "set":
        return e.node("ScatterElements", x, at, src, axis=op.dim)
    if e.opset < (18 if op.mode in ("min", "max") else 16):
        raise NoRule(f"scatter with {op.mode} needs opset 18")
    return e.node("ScatterElements", x, at, src, axis=op.dim, reduction=op.mode)


# --------------------------------------------------------------------------------- contractions


def conv(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("Conv", *ins, **_window(op), kernel_shape=list(types[1].shape[2:]))


def conv_transpose(
    e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type
) -> str:
    """What the asked size has beyond the smallest is taken from the padding that cuts the end."""
    top, left, *ends = op.padding
    beyond = []
    for d, (n, o, s, k, gap) in enumerate(zip(
        known(op.size, "an image of size"), known(types[0].shape[2:], "an image of size"),
        op.stride, types[1].shape[2:], op.dilation, strict=True,
    )):  # fmt: skip
        whole_size = (o - 1) * s + gap * (k - 1) + 1
        ends[d] = whole_size - op.padding[d] - n
        beyond.append(max(0, -ends[d]))
    window = {**_window(op), "pads": [top, left, *(max(0, p) for p in ends)]}
    shape = list(types[1].shape[2:])
    if not any(beyond):
        return e.node("ConvTranspose", *ins, **window, kernel_shape=shape)
    y = e.node("ConvTranspose", *ins[:2], **window, kernel_shape=shape)
    places = e.const([0, 0, 0, 0, 0, 0, *beyond], np.int64)  # no window reaches these
    y = e.node("Pad", y, places, e.const(0, out.dtype.np))
    if len(ins) == 2:
        return y
    return e.node("Add", y, e.node("Reshape", ins[2], e.const([1, -1, 1, 1], np.int64)))


def _window(op: Any) -> dict[str, Any]:
    return {
        "strides": list(op.stride), "pads": list(op.padding), "dilations": list(op.dilation),
        "group": op.groups,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------- pools


def max_pool(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("MaxPool", ins[0], **_pool(op), dilations=list(op.dilation),
                  ceil_mode=int(op.ceil_mode))  # fmt: skip


def max_pool_places(
    e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type
) -> str:
    """ONNX counts through the whole tensor, Weft within a plane."""
    h, w = known(types[0].shape[2:], "an image of size")
    _, places = e.nodes("MaxPool", 2, ins[0], **_pool(op), dilations=list(op.dilation),
                        ceil_mode=int(op.ceil_mode))  # fmt: skip
    return e.node("Mod", places, e.const(h * w, np.int64))


def _pool(op: Any) -> dict[str, Any]:
    return {
        "kernel_shape": list(op.kernel), "strides": list(op.stride),
        "pads": [*op.padding, *op.padding],
    }  # fmt: skip


def avg_pool(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """AveragePool where its count is ours; else sums of the padded image, each over its count."""
    size = known(types[0].shape[2:], "an image of size")
    windows = known(out.shape[2:], "an image of size")
    over = [  # how far the last window reaches beyond the padding
        max(0, (o - 1) * s + k - (n + 2 * p))
        for o, n, k, s, p in zip(windows, size, op.kernel, op.stride, op.padding, strict=True)
    ]
    if not op.divisor and not any(over):
        return e.node("AveragePool", ins[0], **_pool(op),
                      count_include_pad=int(op.count_include_pad))  # fmt: skip
    (ph, pw), (oh, ow) = op.padding, over
    ends = e.const([0, 0, ph, pw, 0, 0, ph + oh, pw + ow], np.int64)
    padded = e.node("Pad", ins[0], ends, e.const(0, out.dtype.np))
    mean = e.node("AveragePool", padded, kernel_shape=list(op.kernel), strides=list(op.stride))
    area = op.kernel[0] * op.kernel[1]
    scale = np.array(
        [[area / (op.divisor or op._count(size, i, j)) for j in range(windows[1])]
         for i in range(windows[0])]
    )  # fmt: skip
    return e.node("Mul", mean, e.const(scale, out.dtype.np))


def adaptive_avg_pool(
    e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type
) -> str:
    """One window that steps by itself where it divides; else a matrix of weights on either side."""
    size = known(types[0].shape[2:], "an image of size")
    if tuple(op.size) == (1, 1):
        return e.node("GlobalAveragePool", ins[0])
    if all(n % m == 0 for n, m in zip(size, op.size, strict=True)):
        step = [n // m for n, m in zip(size, op.size, strict=True)]
        return e.node("AveragePool", ins[0], kernel_shape=step, strides=step)
    rows, columns = (_parts(n, m) for n, m in zip(size, op.size, strict=True))
    tall = e.node("MatMul", e.const(rows, out.dtype.np), ins[0])
    return e.node("MatMul", tall, e.const(columns.T, out.dtype.np))


def _parts(n: int, m: int) -> np.ndarray:
    """w[i, j] = 1 / (size of part i) where j lies in part i of m, else 0."""
    weights = np.zeros((m, n))
    for i in range(m):
        low, high = i * n // m, -(-(i + 1) * n // m)
        weights[i, low:high] = 1 / (high - low)
    return weights


def adaptive_max_pool(
    e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type
) -> str:
    size = known(types[0].shape[2:], "an image of size")
    if all(n % m == 0 for n, m in zip(size, op.size, strict=True)):
        step = [n // m for n, m in zip(size, op.size, strict=True)]
        return e.node("MaxPool", ins[0], kernel_shape=step, strides=step)
    x = ins[0]
    for axis, (n, m) in enumerate(zip(size, op.size, strict=True), 2):
        parts = []
        for i in range(m):
            ends = (e.const([v], np.int64) for v in (i * n // m, -(-(i + 1) * n // m), axis))
            parts.append(reduced(e, "ReduceMax", e.node("Slice", x, *ends), [axis], True))
        x = e.node("Concat", *parts, axis=axis)
    return x


# ---------------------------------------------------------------------------------------- norms


def softmax(name: str) -> Any:
    def rule(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
        if not out.ndim:
            one = 1 if name == "Softmax" else 0
            return e.const(one, out.dtype.np)
        return e.node(name, ins[0], axis=wrap_dim(op.dim, out.ndim, name))

    return rule


def layer_norm(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("LayerNormalization", *ins, axis=-op.ndims, epsilon=float(op.eps))


def rms_norm(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    x, w = ins
    dims = list(range(out.ndim - op.ndims, out.ndim))
    mean = reduced(e, "ReduceMean", e.node("Mul", x, x), dims, True)
    root = e.node("Sqrt", e.node("Add", mean, e.const(op.eps, out.dtype.np)))
    return e.node("Mul", e.node("Div", x, root), w)


def moment(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    terms = op.terms(*(Arg(i, t.dtype) for i, t in enumerate(types)))
    sums = [reduced(e, "ReduceSum", e.scalar(x, ins), op.dims, True) for x in terms]
    if not op.total:
        return sums[0]
    first = e.const([0], np.int64)
    return e.node("Concat", *(e.node("Unsqueeze", s, first) for s in sums), axis=0)


def attention(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """softmax(scale q k^T + mask) v; a query that sees nothing gives 0 and not NaN."""
    if op.with_sums:
        raise NoRule("it is a gradient's")
    q, k, v, *mask = ins
    d = out.dtype.np
    s = e.node("MatMul", q, e.node("Transpose", k, perm=[0, 1, 3, 2]))
    s = e.node("Mul", s, e.const(op.scale, d))
    none = e.const(-np.inf, d)
    if mask and types[3].dtype is dt.bool:
        s = e.node("Where", mask[0], s, none)
    elif mask:
        s = e.node("Add", s, mask[0])
    if op.causal:
        size = known((types[0].shape[2], types[1].shape[2]), "the lengths of causal attention")
        s = e.node("Where", e.const(np.tri(*size, dtype=bool)), s, none)
    if not mask:
        return e.node("MatMul", e.node("Softmax", s, axis=-1), v)
    blind = e.node("Equal", reduced(e, "ReduceMax", s, [3], True), none)
    zero = e.const(0, d)
    p = e.node("Softmax", e.node("Where", blind, zero, s), axis=-1)
    return e.node("MatMul", e.node("Where", blind, zero, p), v)


def resize(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    """Places picked, or a matrix of weights along the dim."""
    (n,) = known([types[0].shape[op.dim]], "interpolation of size")
    places, weights = op.taps(n, out.dtype.np)
    if len(places) == 1:
        return e.node("Gather", ins[0], e.const(np.asarray(places[0], np.int64)), axis=op.dim)
    dense = np.zeros((op.size, n))
    for at, w in zip(places, weights, strict=True):
        np.add.at(dense, (np.arange(op.size), at), w)
    last = [d for d in range(out.ndim) if d != op.dim] + [op.dim]
    moved = e.node("MatMul", transposed(e, ins[0], last), e.const(dense.T, out.dtype.np))
    return transposed(e, moved, [last.index(d) for d in range(out.ndim)])


def batch_norm(e: Emitter, op: Any, ins: Sequence[str], types: Sequence[Type], out: Type) -> str:
    return e.node("BatchNormalization", *ins, epsilon=float(op.eps))

"""The gate between a file and native code: a graph from a file runs only if it passes here.

A kernel trusts its layouts and an op's `type` trusts the function that calls it; the text of a file
earns neither.  So every attribute must have the type its op declares, every operand the rank, dtype
and size its kernel assumes, and every size be one that memory can hold.  An op with native code and
no rule here is refused (gradients and random draws have none on purpose); ops that NumPy computes
are safe by themselves.  ValueError says which op, and why.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import os
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from weft import ops
from weft.core import dtype as dt
from weft.core.graph import Graph, Node
from weft.core.op import Op
from weft.core.op_text import LARGEST, conforms, declared
from weft.core.types import Dim, Type
from weft.ops.kinds import Create, Elementwise, Reduce, View

for _room in pkgutil.iter_modules(ops.__path__):  # a file may hold the ops of any room
    importlib.import_module(f"weft.ops.{_room.name}")

_INDEX = (dt.int64, dt.int32)


class Refused(ValueError):
    """What a file asks for does not fit, or would not be safe to run."""


# ------------------------------------------------------------------------------- the text alone


def check_text(g: Graph) -> None:
    """What can be told before sizes are known: attributes, operands, symbolic sizes."""
    for n in g.inputs:
        _sizes(n.type.shape, f"input {n.name!r}")
    for n in g.nodes():
        op = n.op
        assert op is not None
        if op.name == "Slope":  # derivatives of any order: no model holds one, and each costs more
            raise Refused("Slope: a graph in a file may not hold a gradient")
        if op.effect:
            raise Refused(f"{op.name}: a graph in a file may not draw random numbers")
        for name, hint in declared(type(op)).items():
            if not conforms(getattr(op, name), hint):
                raise Refused(f"{op.name}: {name}={str(getattr(op, name))[:60]} is not {hint}")
        least, most = _arity(type(op))
        if not least <= len(n.args) <= most:
            raise Refused(f"{op.name}: {len(n.args)} operands, it takes {least} to {most}")
        numbers = [a for a in n.args if not isinstance(a, Node)]
        if numbers and (not isinstance(op, Elementwise) or len(numbers) == len(n.args)):
            raise Refused(f"{op.name}: an operand may not be a number")


@functools.cache
def _arity(op: type[Op]) -> tuple[int, float]:
    """The least and the most operands an op takes."""
    meaning = op.scalar if issubclass(op, Elementwise) else op.oracle or op.body
    kinds = [p for p in inspect.signature(meaning).parameters.values() if p.name != "self"]
    least = sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in kinds)
    return least, math.inf if any(p.kind is p.VAR_POSITIONAL for p in kinds) else len(kinds)


def _sizes(shape: Sequence[Any], where: str) -> None:
    if not all(conforms(n, int) and (isinstance(n, Dim) or n >= 0) for n in shape):
        raise Refused(f"{where}: no shape: {list(shape)}")


# -------------------------------------------------------------------------------- a bound graph


def check_sized(g: Graph) -> None:
    """Whether a graph of known sizes is safe to run; types must have been inferred."""
    check_text(g)
    limit, made = _memory() // 2, 0
    for n in [*g.inputs, *g.nodes()]:
        what = n.op.name if n.op is not None else f"input {n.name!r}"
        shape = n.type.shape
        if len(shape) > 64 or not all(type(s) is int and 0 <= s <= LARGEST for s in shape):
            raise Refused(f"{what}: no shape: {list(shape)}")
        size = math.prod(shape) * n.type.dtype.itemsize
        made += size if isinstance(n.op, Create) else 0  # filled before anything runs
        if size > limit or made > limit // 4:
            raise Refused(f"{what}: a value of {n.type} is too large for this machine's memory")
        if n.op is not None:
            _node(n)


def _memory() -> int:
    """Bytes of physical memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 36


def _node(n: Node) -> None:
    op = n.op
    assert op is not None
    operands = [a.type if isinstance(a, Node) else None for a in n.args]
    if isinstance(op, Elementwise):
        return  # its type and its expression have checked ranks, sizes and dtypes
    known: list[Type] = [t for t in operands if t is not None]
    rule = _REDUCE if isinstance(op, Reduce) else _RULES.get(op.name)
    if rule is None:
        if op.plan is not None or isinstance(op, View):
            raise Refused(f"{op.name}: not an op that a file may hold")
        return
    if not rule(op, known, n.type):
        shown = ", ".join(map(str, known))
        raise Refused(f"{op} does not fit its operands ({shown})")


Rule = Callable[[Any, list[Type], Type], bool]
_RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def note(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return note


def _inside(dim: int, t: Type) -> bool:
    return 0 <= dim < t.ndim


def _distinct(dims: Sequence[int], t: Type) -> bool:
    return len(set(dims)) == len(dims) and all(_inside(d, t) for d in dims)


def _same(ts: Sequence[Type]) -> bool:
    return all(t.dtype is ts[0].dtype for t in ts)


def _floats(ts: Sequence[Type]) -> bool:
    return _same(ts) and ts[0].dtype.category >= dt.FLOAT  # complex ones reach no kernel


def _REDUCE(op: Any, ts: list[Type], out: Type) -> bool:
    (x,) = ts
    count = math.prod(x.shape[d] for d in op.dims) if _distinct(op.dims, x) else 0
    some = count > 0 or op.combine in ("sum", "prod", "any", "all")
    if not op.dims and x.ndim:
        return False  # no dims mean all of them to the functions, and none to a kernel
    if op.combine in ("argmax", "argmin") and len(op.dims) not in (1, x.ndim):
        return False  # a flat index along some dims has no kernel
    return _distinct(op.dims, x) and tuple(sorted(op.dims)) == op.dims and some


# views: a layout outside its memory would read what is not its own


@_rule("Reshape")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return op.shape == out.shape


@_rule("Permute")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return sorted(op.dims) == list(range(ts[0].ndim))


@_rule("Expand")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return len(op.shape) >= ts[0].ndim


@_rule("Slice")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    (x,) = ts
    return _inside(op.dim, x) and 0 <= op.start <= op.stop <= x.shape[op.dim] and op.step >= 1


@_rule("Select")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _inside(op.dim, ts[0]) and 0 <= op.index < ts[0].shape[op.dim]


@_rule("SliceBack")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    (x,) = ts
    if not _inside(op.dim, x) or op.start < 0 or op.step < 1:
        return False
    n = x.shape[op.dim]
    return not n or op.start + op.step * (n - 1) < op.size


@_rule("AsStrided")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _strided(op, op.shape, ts[0])


@_rule("WriteStrided")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _same(ts) and _strided(op, ts[1].shape, ts[0])


def _strided(op: Any, shape: Sequence[int], memory: Type) -> bool:
    if len(shape) != len(op.strides) or min((op.offset, *op.strides)) < 0:
        return False
    if not math.prod(shape):
        return True
    last = op.offset + sum((n - 1) * s for n, s in zip(shape, op.strides, strict=True))
    return last < math.prod(memory.shape)


@_rule("Diagonal")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _distinct((op.dim1, op.dim2), ts[0])


@_rule("Unfold")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _inside(op.dim, ts[0]) and 0 <= op.size <= ts[0].shape[op.dim] and op.step >= 1


@_rule("Bitcast")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return op.dtype is not dt.bool  # a bool is 0 or 1, which bytes need not be


@_rule("Real", "Imag", "AsReal", "AsComplex", "SearchSorted")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return True  # their types refuse dtypes and shapes that do not fit


# arrangement


@_rule("Concat")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _inside(op.dim, ts[0]) and _same(ts)


@_rule("Flip")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _distinct(op.dims, ts[0])


@_rule("Pad")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return len(op.widths) == ts[0].ndim and all(min(w) >= 0 for w in op.widths)


@_rule("CumSum", "CumProd", "ArgSort")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _inside(op.dim, ts[0])


# places named by other tensors


@_rule("Index")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _indices(op, ts[0], ts[1:])


@_rule("IndexPut")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return op.mode in ("set", "add") and _same(ts[:2]) and _indices(op, ts[0], ts[2:])


def _indices(op: Any, x: Type, indices: list[Type]) -> bool:
    return (
        0 < len(op.dims) == len(indices)
        and _distinct(op.dims, x)
        and 0 <= op.at <= x.ndim - len(op.dims)
        and all(i.dtype in _INDEX for i in indices)
    )


@_rule("Embedding")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return ts[0].ndim >= 1 and ts[1].dtype in _INDEX


@_rule("Gather")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    x, index = ts
    return _lines(op.dim, x, index)


@_rule("PickClass")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    x, target = ts
    return _floats(ts[:1]) and x.ndim >= 2 and target.dtype is dt.int64


@_rule("CrossEntropy")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    known = op.reduction in ("none", "mean", "sum") and 0 <= op.smoothing <= 1
    return known and _floats(ts[:1])


@_rule("Scatter", "ScatterReduce")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    x, src, index = ts
    modes = ("set", "add") if op.name == "Scatter" else ("mul", "min", "max")
    fits = src.shape == index.shape and src.dtype is x.dtype
    return fits and op.mode in modes and _lines(op.dim, x, index)


def _lines(dim: int, x: Type, index: Type) -> bool:
    """An index beside x: as many dims, and nowhere longer but along `dim`."""
    return (
        index.dtype in _INDEX
        and index.ndim == x.ndim
        and _inside(dim, x)
        and all(
            m <= n or d == dim for d, (m, n) in enumerate(zip(index.shape, x.shape, strict=True))
        )
    )


@_rule("PlanePut")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    values, places = ts
    flat = values.ndim == 4 and values.shape == places.shape and min(op.size) >= 0
    return _floats(ts[:1]) and flat and places.dtype is dt.int64


# contractions and windows


@_rule("MatMul")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _same(ts)


@_rule("QuantizedConv", "QuantizedDepthwise", "ImageToBytes", "BytesMaxPool")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return op.type(*ts) == out  # which looks at every number


@_rule("Linear")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _same(ts) and _bias(ts[2:], ts[1].shape[0])


@_rule("Conv2d")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    x, w, *bias = ts
    return (
        _conv(op, ts)
        and x.shape[1] == w.shape[1] * op.groups
        and _bias(bias, w.shape[0])
        and all(
            n + p - d * (k - 1) - 1 >= 0
            for n, k, d, p in zip(x.shape[2:], w.shape[2:], op.dilation, _pads(op), strict=True)
        )
    )


@_rule("Conv2dInput")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    g, w, *bias = ts
    if not (_conv(op, ts) and g.shape[1] == w.shape[0] and _bias(bias, w.shape[1] * op.groups)):
        return False
    for n, o, s, k, d, p in zip(
        op.size, g.shape[2:], op.stride, w.shape[2:], op.dilation, _pads(op), strict=True
    ):
        least = (o - 1) * s - p + d * (k - 1) + 1
        if o < 1 or not 0 <= n - least < max(s, d):
            return False
    return True


def _conv(op: Any, ts: list[Type]) -> bool:
    w = ts[1]
    return (
        _floats(ts)
        and ts[0].dtype in (dt.float32, dt.float64)
        and ts[0].ndim == w.ndim == 4
        and min(w.shape[2:]) >= 1
        and op.groups >= 1
        and w.shape[0] % op.groups == 0
        and min((*op.stride, *op.dilation)) >= 1
        and min(op.padding) >= 0
    )


def _bias(bias: list[Type], channels: int) -> bool:
    return len(bias) <= 1 and all(b.shape == (channels,) for b in bias)


def _pads(op: Any) -> tuple[int, int]:
    top, left, bottom, right = op.padding
    return top + bottom, left + right


@_rule("MaxPool2d", "MaxPool2dPlaces", "MaxPool2dTaps", "AvgPool2d")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    (x,) = ts
    return (
        _floats(ts)
        and x.ndim == 4
        and min((*op.kernel, *op.stride, *op.dilation)) >= 1
        and all(0 <= p <= (d * (k - 1) + 1) // 2
                for p, k, d in zip(op.padding, op.kernel, op.dilation, strict=True))
        and min(out.shape[2:]) >= 1
        and (op.name != "AvgPool2d" or (op.divisor != 0 and op.dilation == (1, 1)))
    )  # fmt: skip


@_rule("AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AdaptiveMaxPool2dPlaces")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    (x,) = ts
    return _floats(ts) and x.ndim == 4 and min((*x.shape[2:], *op.size)) >= 1


# lines and norms


@_rule("Softmax", "LogSoftmax")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    n = max(ts[0].ndim, 1)
    return _floats(ts) and -n <= op.dim < n


@_rule("LayerNorm", "RmsNorm")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    x, *weights = ts
    inner = x.shape[x.ndim - op.ndims :] if 1 <= op.ndims <= x.ndim else None
    return _floats(ts) and inner is not None and all(w.shape == inner for w in weights)


@_rule("Moment")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    widest = max(ts, key=lambda t: t.ndim)
    return _floats(ts) and _distinct(op.dims, widest) and tuple(sorted(op.dims)) == op.dims


@_rule("LstmStates", "GruStates", "RnnStates")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    return _floats(ts)  # the type rule has compared every dim


@_rule("Attention")
def _(op: Any, ts: list[Type], out: Type) -> bool:
    q, k, v, *mask = ts
    if any(t.ndim != 4 for t in ts) or not _floats((q, k, v)) or len(mask) > 1 or op.with_sums:
        return False
    return (
        q.shape[:2] == k.shape[:2]
        and v.shape[:3] == k.shape[:3]
        and q.shape[3] == k.shape[3]
        and all(
            m.shape == (*q.shape[:3], k.shape[2]) and m.dtype in (dt.bool, q.dtype) for m in mask
        )
    )


def has_rule(op: type[Op]) -> bool:
    """Whether a file may hold the op although it has native code of its own."""
    return issubclass(op, (Elementwise, Reduce)) or op.name in _RULES

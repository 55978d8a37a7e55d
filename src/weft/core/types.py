"""Type: what is known of a tensor before it has a value, and the shape rules ops share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, TypeVar

from weft.core.dtype import FLOAT, dtype, from_np


@dataclass(frozen=True, slots=True)
class Type:
    """Shape and dtype of a value; a dim is an int, or a `Dim` where it is symbolic."""

    shape: tuple
    dtype: dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.short}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Dim:
    """A symbolic dim, `scale * name + shift`: a batch of `b` rows, the `2*b` rows of its pairs."""

    name: str
    scale: int = 1
    shift: int = 0

    def at(self, value: int) -> int:
        return self.scale * value + self.shift

    def __add__(self, other: int) -> Dim:
        return Dim(self.name, self.scale, self.shift + other)

    __radd__ = __add__

    def __mul__(self, other: int) -> Dim:
        return Dim(self.name, self.scale * other, self.shift * other)

    __rmul__ = __mul__

    def __str__(self) -> str:
        head = self.name if self.scale == 1 else f"{self.scale}*{self.name}"
        return head if not self.shift else f"{head}{self.shift:+d}"


def array_type(a: Any) -> Type:
    """The Type of a NumPy array; TypeError for a dtype that no tensor has."""
    return Type(a.shape, from_np(a.dtype))


def need_floats(op: Any, *xs: Any) -> None:
    """NotImplementedError, in torch's words, unless all tensors or types are floating."""
    for x in xs:
        if x.dtype.category != FLOAT:
            raise x.dtype.lacks(op)


def need_dims(op: Any, x: Type, dims: Sequence[int]) -> None:
    """RuntimeError unless x has these dims, and they are some of its."""
    if not dims and x.shape:  # functions mean all dims by none; kernels would leave sums unmade
        raise RuntimeError(f"{op}: no dims to reduce of shape {list(x.shape)}")
    if any(not 0 <= d < x.ndim for d in dims):
        raise RuntimeError(f"{op}: {x} lacks dims of {tuple(dims)}")


def need_windows(op: Any, stride: Sequence[int], *others: Sequence[int]) -> None:
    """RuntimeError for numbers of windows that kernels cannot count places with."""
    if min(stride) < 1 or any(abs(n) >= 1 << 31 for v in (stride, *others) for n in v):
        raise RuntimeError(f"{op}: strides must be positive, and all numbers below 2^31")


def one_type(op: Any, first: Type, *others: Type) -> Type:
    """The type that all have; RuntimeError where they differ."""
    if any(t != first for t in others):
        raise RuntimeError(f"{op}: {', '.join(map(str, (first, *others)))}: wanted one type")
    return first


def whole(value: Any, op: str, name: str) -> int:
    """An int argument; TypeError for what is none."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}(): argument '{name}' must be int, not {type(value).__name__}")
    if not -(2**63) <= index(value) < 2**63:
        raise ValueError(f"{op}(): argument '{name}': Overflow when unpacking long long: {value}")
    return index(value)


def wholes(values: Any, op: str, name: str) -> tuple[int, ...]:
    """Int arguments, of a sequence; TypeError for what is none."""
    said = f"{op}(): argument '{name}' must be tuple of ints, "
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{said}not {type(values).__name__}")
    values = tuple(values)
    for at, v in enumerate(values):
        if v.__class__ is not int and (isinstance(v, bool) or not hasattr(v, "__index__")):
            raise TypeError(f"{said}but found element of type {type(v).__name__} at pos {at}")
    return tuple([v if v.__class__ is int else whole(v, op, name) for v in values])


def real_number(value: Any, op: str, name: str) -> float:
    """A float argument; TypeError for what is none."""
    if value.__class__ is float:
        return value
    if not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{op}(): argument '{name}' must be float, not {type(value).__name__}")
    return float(value)


def real_numbers(op: str, **values: Any) -> tuple[float, ...]:
    """Float arguments, by their names; TypeError for one that is none."""
    return tuple([real_number(v, op, name) for name, v in values.items()])


def some_dim(dim: int, shape: Sequence[int], op: str) -> int:
    """`dim` counted from 0, of a tensor that has dims; IndexError for one that has none."""
    d = wrap_dim(dim, len(shape), op)
    if not shape:
        raise IndexError(f"{op}: Dimension specified as {dim} but tensor has no dimensions")
    return d


def wrap_dim(dim: int, ndim: int, op: str) -> int:
    """`dim` counted from 0; IndexError outside [-ndim, ndim) as torch words it."""
    n = max(ndim, 1)
    if dim.__class__ is not int:
        dim = whole(dim, op, "dim")
    if not -n <= dim < n:
        whole(dim, op, "dim")  # says what is no int64
        raise IndexError(
            f"{op}: Dimension out of range (expected to be in range of [{-n}, {n - 1}], "
            f"but got {dim})"
        )
    return dim + n if dim < 0 else dim


def wrap_dims(dims: Any, ndim: int, op: str) -> tuple[int, ...]:
    """Sorted distinct dims counted from 0, of one or some; None and () mean all of them."""
    if dims is None:
        return tuple(range(ndim))
    if isinstance(dims, int) or hasattr(dims, "__index__"):
        return (wrap_dim(dims, ndim, op),) if ndim else wrap_dims((dims,), ndim, op)
    out = [wrap_dim(d, ndim, op) for d in wholes(dims, op, "dim")]
    if not out:
        return tuple(range(ndim))
    if len(set(out)) != len(out):
        raise RuntimeError(f"{op}: dim {tuple(dims)} appears multiple times in the list of dims")
    return tuple(sorted(out)) if ndim else ()


def broadcast_shapes(*shapes: Sequence[int], op: str = "broadcast") -> tuple[int, ...]:
    """The common shape; RuntimeError with torch's words when two sizes differ and none is 1.

    An int stands for a shape of one dim.
    """
    if int in map(type, shapes):
        shapes = tuple((s,) if isinstance(s, int) else s for s in shapes)
    if not shapes:
        return ()
    out = tuple(shapes[0])
    for s in shapes[1:]:
        s = tuple(s)
        if s == out:
            continue
        n = max(len(out), len(s))
        a = (1,) * (n - len(out)) + out
        b = (1,) * (n - len(s)) + s
        merged = []
        for d, (x, y) in enumerate(zip(a, b, strict=True)):
            if x == y or y == 1:
                merged.append(x)
            elif x == 1:
                merged.append(y)
            else:
                raise RuntimeError(
                    f"{op}: The size of tensor a ({x}) must match the size of tensor b ({y}) "
                    f"at non-singleton dimension {d}"
                ) from None  # NumPy's own words, where it refused first, say no more
        out = tuple(merged)
    return out


def numel(shape: Iterable[int]) -> int:
    return math.prod(shape)


def contiguous_strides(shape: Iterable[int]) -> tuple[int, ...]:
    """Strides, in elements, of a fresh C-contiguous memory."""
    out = []
    step = 1
    for n in reversed(tuple(shape)):
        out.append(step)
        step *= max(n, 1)
    return tuple(reversed(out))


def is_contiguous(shape: Iterable[int], strides: Iterable[int]) -> bool:
    """Whether elements lie in C order without gaps (strides of dims of size 1 do not matter)."""
    shape = tuple(shape)
    if 0 in shape:
        return True
    wanted = contiguous_strides(shape)
    return all(n == 1 or s == w for n, s, w in zip(shape, strides, wanted, strict=True))


F = TypeVar("F", bound=Callable)
WORDS = {"axis": "dim", "keepdims": "keepdim"}


def unknown(op: str, name: str, word: Any, message: str) -> Exception:
    """What is said of a word that a function does not know: TypeError where it is none."""
    if isinstance(word, str):
        return RuntimeError(message)
    return TypeError(f"{op}(): argument '{name}' must be str, not {type(word).__name__}")


def numpy_words(fn: F) -> F:
    """`fn`, which takes dim and keepdim, also under NumPy's names for them."""

    @functools.wraps(fn)
    def call(*args: Any, **kw: Any) -> Any:
        if not kw:
            return fn(*args)
        for theirs in WORDS.keys() & kw.keys():
            ours = WORDS[theirs]
            if ours in kw:
                raise TypeError(f"{fn.__name__}() got both {ours!r} and its synonym {theirs!r}")
            kw[ours] = kw.pop(theirs)
        return fn(*args, **kw)

    return call  # type: ignore[return-value]

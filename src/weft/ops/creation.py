"""Tensors from attributes alone: full, arange, and what is built on them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from weft.core import dtype as dt
from weft.core import layouts, onnx_rules
from weft.core import scalar as S
from weft.core.device import require_cpu
from weft.core.handle import state
from weft.core.op import Onnx, sample
from weft.core.types import Type, numel, whole
from weft.ops import dispatch
from weft.ops.cast import Cast
from weft.ops.dispatch import apply, dtype_of, fill, shape_of, tell_made, wrap
from weft.ops.kinds import Create, Elementwise
from weft.ops.view import permute, shape_args
from weft.runtime import memory, native

if TYPE_CHECKING:
    from weft.tensor import Tensor

__all__ = [
    "arange", "clone", "empty", "empty_like", "eye", "full", "full_like", "linspace", "ones",
    "ones_like", "zeros", "zeros_like",
]  # fmt: skip


class Full(Create):
    """y[i] = value"""

    shape: tuple[int, ...] = ()
    value: float | int | bool = 0
    dtype: dt.dtype = dt.float32
    imag: float = 0.0  # of a complex dtype's value

    def type(self) -> Type:
        return Type(self.shape, self.dtype)

    def host(self) -> np.ndarray:
        y = memory.empty(self.shape, self.dtype.np)
        fill(y, complex(self.value, self.imag) if self.dtype.category == dt.COMPLEX else self.value)
        return y

    def oracle(self) -> np.ndarray:
        value = self.value + 1j * self.imag if self.dtype.category == dt.COMPLEX else self.value
        return np.full(self.shape, value, self.dtype.np)

    onnx = Onnx("Expand", 13, build=onnx_rules.full)
    samples = (
        sample(shape=(2, 3), value=1.5),
        sample(shape=(0,), value=1, dtype=dt.int64),
        sample(shape=(2,), value=1.5, dtype=dt.complex64, imag=-2.0),
    )


class Arange(Create):
    """y[i] = start + i * step, `length` elements"""

    start: float | int = 0
    step: float | int = 1
    length: int = 0
    dtype: dt.dtype = dt.int64

    def type(self) -> Type:
        return Type((self.length,), self.dtype)

    def host(self) -> np.ndarray:
        return _steps(self.start, self.step, self.length, self.dtype)

    oracle = host
    onnx = Onnx("Range", 11, build=onnx_rules.arange)
    samples = (sample(length=5), sample(start=0.5, step=0.25, length=3, dtype=dt.float32))


def _steps(start: Any, step: Any, length: int, d: dt.dtype) -> np.ndarray:
    if start.__class__ is step.__class__ is int and d is dt.int64:
        return np.arange(start, start + length * step, step)
    y = np.arange(length, dtype=np.int64 if d.category == dt.INT else np.float64)
    return (y * step + start).astype(d.np, copy=False)


class Eye(Create):
    """y[i, j] = 1 where i == j"""

    n: int = 0
    m: int = 0
    dtype: dt.dtype = dt.float32

    def type(self) -> Type:
        return Type((self.n, self.m), self.dtype)

    def host(self) -> np.ndarray:
        return np.eye(self.n, self.m, dtype=self.dtype.np)

    oracle = host
    onnx = Onnx("Constant", 13, build=onnx_rules.constant)
    samples = (sample(n=3, m=2), sample(n=0, m=0))


class Literal(Create):
    """y = the given values: a constant tensor that an op's body brings along"""

    shape: tuple[int, ...] = ()
    values: tuple = ()  # in C order; two a complex number
    dtype: dt.dtype = dt.float32

    def type(self) -> Type:
        if len(self.values) != numel(self.shape) * (1 + self.dtype.is_complex):
            raise RuntimeError(
                f"Literal: shape {list(self.shape)} needs {numel(self.shape)} values, "
                f"not {len(self.values)}"
            )
        return Type(self.shape, self.dtype)

    def host(self) -> np.ndarray:
        self.type()
        if self.dtype.category == dt.COMPLEX:  # real and imaginary parts in turn
            return (
                np.array(self.values, np.float64)
                .view(np.complex128)
                .astype(self.dtype.np)
                .reshape(self.shape)
            )
        wide = np.float64 if self.dtype.category == dt.FLOAT else None
        return np.array(self.values, wide).astype(self.dtype.np).reshape(self.shape)

    oracle = host
    onnx = Onnx("Constant", 13, build=onnx_rules.literal)
    samples = (sample(shape=(2, 2), values=(1.0, 2.0, 0.1, -3.0)), sample(shape=(0,)))


class Clone(Elementwise):
    """y = x, in memory of its own"""

    def scalar(self, x: S.Expr) -> S.Expr:
        return x

    def host(self, x: np.ndarray) -> np.ndarray:
        return np.array(x, order="C")

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (g,)

    onnx = Onnx("Identity", 13, build=onnx_rules.identity)
    samples = (
        sample((3, 4)),
        sample((0,), of="int64"),
        sample((3, 4), of="complex64"),
    )


def clone(input: Any, *, memory_format: Any = None) -> Tensor:
    """The same values in memory of their own, in the order of input's dims or `memory_format`'s."""
    wish = layouts.preserve_format if memory_format is None else memory_format
    return _laid(Clone(), input, format_order(input, wish))


def converted(input: Any, dtype: dt.dtype) -> Any:
    """`cast` as a user asks for it: the order of dims in memory stays, and a warning says where
    imaginary parts are dropped.
    """
    dtype, old = dt.asked(dtype), dtype_of(input)
    if old is dtype:
        return input
    if old.is_complex and not dtype.is_complex and dtype is not dt.bool:
        warnings.warn(
            "Casting complex values to real discards the imaginary part", UserWarning, stacklevel=3
        )
    return _laid(Cast(dtype), input, format_order(input, layouts.preserve_format))


def _laid(op: Elementwise, x: Any, order: tuple[int, ...] | None) -> Any:
    """op(x) with its dims in this order in memory."""
    return apply(op, x) if order is None else permute(apply(op, permute(x, order)), undo(order))


_CHANNELS_LAST = {layouts.channels_last: (0, 2, 3, 1), layouts.channels_last_3d: (0, 2, 3, 4, 1)}


def format_order(t: Any, memory_format: Any) -> tuple[int, ...] | None:
    """t's dims as a memory format lays them, the one with the largest stride first.

    None for C order.  RuntimeError: channels_last of a tensor that has not its number of dims.
    """
    rank = len(shape_of(t))
    if not isinstance(memory_format, layouts.memory_format):
        kind = type(memory_format).__name__
        raise TypeError(f"argument 'memory_format' must be torch.memory_format, not {kind}")
    if memory_format is layouts.preserve_format:
        if t.is_contiguous():
            return None
        order = tuple(memory_order(t))
        return None if order == tuple(range(rank)) else order
    if memory_format not in _CHANNELS_LAST:
        return None
    order = _CHANNELS_LAST[memory_format]
    if rank != len(order):
        raise RuntimeError(
            f"required rank {len(order)} tensor to use {memory_format.name} format, got one of "
            f"shape {list(shape_of(t))}"
        )
    return order


def has_format(t: Any, memory_format: Any) -> bool:
    """Whether t lies without gaps in the order of `memory_format`."""
    shape, strides, step = shape_of(t), t.stride(), 1
    if len(shape) != len(_CHANNELS_LAST.get(memory_format, shape)):
        return False
    for d in reversed(format_order(t, memory_format) or range(len(shape))):
        if shape[d] != 1 and strides[d] != step:
            return 0 in shape
        step *= shape[d]
    return True


def in_format(t: Any, memory_format: Any) -> Any:
    """t itself where it lies in the order of `memory_format`, else a copy that does."""
    if memory_format is None or memory_format is layouts.preserve_format:
        return t
    if memory_format is not layouts.contiguous_format:
        format_order(t, memory_format)  # refuses other ranks, and what is no format
    return t if has_format(t, memory_format) else clone(t, memory_format=memory_format)


def memory_order(t: Any) -> list[int]:
    """t's dims, the one with the largest stride first; an expanded dim, whose stride is 0, stays.

    Source: ATen/ExpandUtils.cpp, infer_dense_strides (a sort by insertion, as ties decide).
    """
    shape = shape_of(t)  # a tensor has one
    order, strides = list(reversed(range(len(shape)))), t.stride()
    for i in range(1, 0 if t.is_contiguous() else len(order)):
        at = i
        for j in reversed(range(i)):
            a, b = order[j], order[at]
            if strides[a] == 0 or strides[b] == 0:
                continue
            if strides[a] < strides[b]:
                break
            if strides[a] > strides[b] or shape[a] > shape[b]:
                order[j], order[at], at = b, a, j
    return order[::-1]


def undo(order: Sequence[int]) -> list[int]:
    """The permutation that undoes `order`."""
    back = [0] * len(order)
    for place, k in enumerate(order):
        back[k] = place
    return back


def finish(y: Any, requires_grad: bool, device: Any, op: str) -> Any:
    """A new leaf: device checked, requires_grad set."""
    require_cpu(device, op)
    return y if requires_grad is False else y.requires_grad_(requires_grad)


def _require_strided(layout: Any, op: str) -> None:
    if layout not in (None, layouts.strided):
        raise NotImplementedError(f"{op}: makes dense tensors; sparse_coo_tensor(size) is sparse")


def sizes(size: tuple, op: str) -> tuple[int, ...]:
    """The shape of a tensor to be made; RuntimeError: none has so many elements."""
    shape = shape_args(size, op)
    if shape and min(shape) < 0:
        raise RuntimeError(
            f"{op}: Trying to create tensor with negative dimension {min(shape)}: {list(shape)}"
        )
    if numel(shape) >= 2**59:  # of 16 bytes each
        kind = TypeError if max(shape) >= 2**63 else RuntimeError
        raise kind(f"{op}: Storage size calculation overflowed with sizes={list(shape)}")
    return shape


def full(
    size: Any,
    fill_value: Any,
    *,
    dtype: dt.dtype | None = None,
    device: Any = None,
    **kw: Any,
) -> Tensor:
    """y[i] = fill_value; the dtype is the value's own unless given."""
    wish = _FULL, size, fill_value, dtype, dt.get_default_dtype(), device
    if not kw and (y := dispatch.made(*wish)) is not None:
        return y
    value = fill_value.item() if hasattr(fill_value, "item") else fill_value
    kind = dt.of_number(value)
    return _constant("full", wish, (size,), value, dtype or kind, device, **kw)


_FULL, _ZEROS, _ONES, _EMPTY, _ARANGE, _LIKE, _LINSPACE, _EYE = (dispatch.wish() for _ in range(8))


def _constant(
    op: str, wish: tuple, given: tuple, value: Any, dtype: Any, device: Any, *, size: Any = None,
    requires_grad: bool = False, out: Any = None, layout: Any = None, pin_memory: bool = False,
    memory_format: Any = None,
) -> Any:  # fmt: skip
    """`made(*wish)` gives what comes without further arguments."""
    _require_strided(layout, op)
    shape, d = sizes(given if size is None else (size,), op), dt.asked(dtype)
    if d.category == dt.COMPLEX:
        y = apply(Full(shape, float(value.real), d, float(value.imag)))
    elif state.recorder is not None:
        y = apply(Full(shape, number_in(value, d), d))
    else:  # nobody asks for the op, which would have to be found
        a = memory.empty(shape, d.np)
        fill(a, number_in(value, d))
        y = wrap(a)
        if size is out is None:
            tell_made(y, None, None, *wish)
    return finish(y, requires_grad, device, op) if out is None else out.copy_result(y)


def number_in(value: Any, d: dt.dtype) -> float | int | bool:
    """A number as one of `d`: infinities are any float's, a negative int wraps where there is no
    sign.

    RuntimeError: the dtype does not reach so far.
    """
    if d.category == dt.FLOAT:
        number = float(value)
        within = abs(number) <= _ANY_FLOAT or not math.isfinite(number)
        if within or abs(number) <= dt.finfo(d).max:
            return number
    elif d.category == dt.INT:
        ends = np.iinfo(d.np)
        if (-int(ends.max) - 1 if isinstance(value, int) else ends.min) <= value <= ends.max:
            return int(value) % (int(ends.max) + 1) if not d.is_signed else int(value)
    else:
        return bool(value)
    raise RuntimeError(f"value {value} cannot be converted to type {d.name} without overflow")


_ANY_FLOAT = 65504.0  # the largest half: every float reaches so far


def zeros(*size: Any, dtype: dt.dtype | None = None, device: Any = None, **kw: Any) -> Tensor:
    """y[i] = 0"""
    d = dtype or dt.get_default_dtype()
    if not kw and (y := dispatch.made(_ZEROS, size, d, device)) is not None:
        return y
    return _constant("zeros", (_ZEROS, size, d, device), size, 0, d, device, **kw)


def ones(*size: Any, dtype: dt.dtype | None = None, device: Any = None, **kw: Any) -> Tensor:
    """y[i] = 1"""
    d = dtype or dt.get_default_dtype()
    if not kw and (y := dispatch.made(_ONES, size, d, device)) is not None:
        return y
    return _constant("ones", (_ONES, size, d, device), size, 1, d, device, **kw)


def empty(
    *size: Any,
    dtype: dt.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **kw: Any,
) -> Tensor:
    """Memory that nobody has written yet."""
    wish = _EMPTY, size, dtype or dt.get_default_dtype(), device
    if not kw and requires_grad is False and (y := dispatch.made(*wish)) is not None:
        return y
    _require_strided(kw.get("layout"), "empty")
    if "size" in kw:
        size = (kw.pop("size"),)
    shape = sizes(size, "empty")
    y = wrap(memory.empty(shape, (dt.asked(dtype) or dt.get_default_dtype()).np))
    if state.recorder is None and not kw:
        tell_made(y, _unwritten, None, *wish)
    return finish(y, requires_grad, device, "empty")


def _unwritten() -> native.Launch:
    return native.Launch((), quick=True)


def full_like(input: Any, fill_value: Any, *, dtype: dt.dtype | None = None, **kw: Any) -> Tensor:
    """`full` with input's shape, memory order and, unless given, dtype."""
    return _like(full, input, dtype, kw, fill_value)


def zeros_like(input: Any, *, dtype: dt.dtype | None = None, **kw: Any) -> Tensor:
    """`zeros` with input's shape, memory order and, unless given, dtype."""
    return _like(full, input, dtype, kw, 0)


def ones_like(input: Any, *, dtype: dt.dtype | None = None, **kw: Any) -> Tensor:
    """`ones` with input's shape, memory order and, unless given, dtype."""
    return _like(full, input, dtype, kw, 1)


def empty_like(input: Any, *, dtype: dt.dtype | None = None, **kw: Any) -> Tensor:
    """`empty` with input's shape, memory order and, unless given, dtype."""
    return _like(empty, input, dtype, kw)


def _like(make: Any, input: Any, dtype: dt.dtype | None, kw: dict, *value: Any) -> Any:
    """A new tensor of input's shape: in input's order of dims unless a memory format is given."""
    if not kw and (y := dispatch.made_like(input, _LIKE, dtype, *value)) is not None:
        return y
    shape, order = shape_of(input), None
    often, wish = not kw and state.recorder is None, kw.pop("memory_format", None)
    if wish is not None or not input.is_contiguous():
        order = format_order(input, layouts.preserve_format if wish is None else wish)
    if order is None:
        y = make(shape, *value, dtype=dtype or dtype_of(input), **kw)
        draw = None if value else _unwritten
        return tell_made(y, draw, input, _LIKE, dtype, *value) if often else y
    grad = kw.pop("requires_grad", False)
    y = make([shape[d] for d in order], *value, dtype=dtype or dtype_of(input), **kw)
    return finish(permute(y, undo(order)).detach(), grad, None, "like")


def arange(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: dt.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    out: Any = None,
) -> Tensor:
    """start, start + step, ... while below end; int64 when all three are ints."""
    wish = _ARANGE, start, end, step, dtype, dt.get_default_dtype(), device
    plain = out is None and requires_grad is False
    if plain and (y := dispatch.made(*wish)) is not None:
        return y
    if end is None:
        start, end = 0, start
    if {start.__class__, end.__class__, step.__class__} != {int}:
        start, end, step = (x.item() if hasattr(x, "item") else x for x in (start, end, step))
    dtype = dt.asked(dtype)
    if dtype is not None and dtype.is_complex:
        raise dtype.lacks("arange_cpu")
    if step == 0 or step != step:
        raise RuntimeError("step must be nonzero")
    if out is not None and dtype_of(out).category == dt.INT:
        dtype = dtype_of(out)
        if not int(step):
            raise ValueError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    whole = not any(isinstance(x, float) for x in (start, end, step))
    d = dtype or (dt.int64 if whole else dt.get_default_dtype())
    if not (whole or (math.isfinite(start) and math.isfinite(end))):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if d is dt.int64 and not whole and int(step):  # torch cuts the three before it counts
        start, end, step = int(start), int(end), int(step)
    length = -((start - end) // step) if whole else math.ceil((end - start) / step)
    if state.recorder is None:  # nobody asks for the op
        y = wrap(_steps(start, step, length, d))
        if plain:
            tell_made(y, None, None, *wish)
    else:
        y = apply(Arange(start, step, length, d))
    return out.copy_result(y) if out is not None else finish(y, requires_grad, device, "arange")


def between(start: Any, end: Any, steps: int, d: dt.dtype) -> np.ndarray:
    """`steps` float64 values from start to end; of a whole dtype, both are cut first (as torch)."""
    first, last = float(start), float(end)
    whole = d.category != dt.FLOAT
    if whole:
        first, last = float(int(first)), float(int(last))
    last = first if steps == 1 else last
    step = (last - first) / (steps - 1) if steps > 1 else 0.0
    i = np.arange(steps).astype(np.float64)
    return np.where(i < steps // 2, first + step * i, last - step * (steps - 1 - i))


def need_steps(op: str, steps: Any, start: Any, end: Any) -> int:
    for name, x in (("start", start), ("end", end)):
        if hasattr(x, "ndim") and x.ndim:
            raise RuntimeError(
                f"{op} only supports 0-dimensional start and end tensors, but got {name} with "
                f"{x.ndim} dimension(s)."
            )
    steps = whole(steps, op, "steps")
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    return steps


def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: dt.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    out: Any = None,
) -> Tensor:
    """`steps` values from start to end, both included, counted from the nearer end (as torch)."""
    wish = _LINSPACE, start, end, steps, dtype or dt.get_default_dtype(), device
    if out is None and requires_grad is False and (y := dispatch.made(*wish)) is not None:
        return y
    steps = need_steps("linspace", steps, start, end)
    d = dt.asked(dtype) or dt.get_default_dtype()
    wide = between(start, end, steps, d)
    y = wrap(wide.astype(d.np))
    if out is None and state.recorder is None:
        tell_made(y, None, None, *wish)
    return out.copy_result(y) if out is not None else finish(y, requires_grad, device, "linspace")


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: dt.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    out: Any = None,
) -> Tensor:
    """The identity matrix, n by m."""
    wish = _EYE, n, m, dtype or dt.get_default_dtype(), device
    if out is None and requires_grad is False and (y := dispatch.made(*wish)) is not None:
        return y
    for name, k in (("n", n), ("m", m)):
        if k is not None and k < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {k}")
    y = apply(Eye(n, n if m is None else m, dt.asked(dtype) or dt.get_default_dtype()))
    if out is None and state.recorder is None:
        tell_made(y, None, None, *wish)
    return out.copy_result(y) if out is not None else finish(y, requires_grad, device, "eye")

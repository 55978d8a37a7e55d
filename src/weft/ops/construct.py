"""Tensors from what others hold: numbers, nested lists, NumPy arrays, other tensors."""

from __future__ import annotations

from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from weft.core import dtype as dt
from weft.core.device import require_cpu
from weft.core.handle import Handle, storage_of
from weft.ops import creation
from weft.ops.cast import cast
from weft.ops.dispatch import wrap
from weft.runtime import memory, native

if TYPE_CHECKING:
    from weft.tensor import Tensor

__all__ = [
    "as_tensor", "asarray", "from_dlpack", "from_numpy", "frombuffer", "scalar_tensor", "tensor",
]  # fmt: skip


def tensor(
    data: Any,
    *,
    dtype: dt.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A new leaf that copies `data`: numbers, nested lists, NumPy arrays, tensors."""
    dtype = dt.asked(dtype)
    if isinstance(data, Handle):
        y = wrap(memory.copy(data._a))
        y = y if dtype is None else wrap(cast(y, dtype)._a)
    elif isinstance(data, np.ndarray):
        y = wrap(memory.copy(data, (dtype or dt.from_np(data.dtype)).np))
    else:
        y = wrap(array_of(data, dtype))
    return creation.finish(y, requires_grad, device, "tensor")


def of_default_dtype(args: tuple) -> Any:
    """What `Tensor(...)` is given: a shape as ints (uninitialised), a tensor, or data."""
    if not args:
        return creation.empty(0)
    first = args[0]
    if len(args) == 1 and isinstance(first, Handle):
        return first
    if first.__class__ is int or type(first).__name__ == "Size":
        return creation.empty(*args)
    if len(args) > 1:
        raise TypeError(f"new(): expected one sequence or ints, got {len(args)} arguments")
    return tensor(first, dtype=dt.get_default_dtype())


def from_numpy(a: np.ndarray) -> Tensor:
    """A tensor over the array's own memory."""
    if not isinstance(a, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(a).__name__})")
    d = dt.from_np(a.dtype)
    if a.dtype.byteorder == ">":
        raise ValueError("from_numpy: the array's byte order is not this machine's")
    for s in a.strides:
        if s < 0:
            raise ValueError(
                "At least one stride in the given numpy array is negative, and tensors with "
                "negative strides are not currently supported. (You can probably work around this "
                "by making a copy of your array  with array.copy().)"
            )
        if s % a.itemsize:
            raise ValueError("from_numpy: the array's strides are not multiples of its item size")
    if native.address(a) % a.itemsize and a.size:
        raise ValueError("from_numpy: the array's memory is not aligned to its item size")
    y = wrap(a)
    owner = a
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    storage_of(y).pin = ref(owner)  # NumPy resizes nothing that has a weak reference
    if d.tensors is not None:
        y.__class__ = d.tensors
    return y


def as_tensor(data: Any, dtype: dt.dtype | None = None, device: Any = None) -> Tensor:
    """The tensor itself, a tensor over an array's memory, or a copy of lists and numbers."""
    require_cpu(device, "as_tensor")
    if isinstance(data, Handle):
        return data if dtype is None else cast(data, dtype)  # pyright: ignore[reportReturnType]
    if isinstance(data, np.ndarray):
        y = from_numpy(data)
        return y if dtype is None else cast(y, dtype)
    return tensor(data, dtype=dtype)


def asarray(
    obj: Any,
    *,
    dtype: dt.dtype | None = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """as_tensor, and a copy when `copy` is True; ValueError when False and one is needed."""
    if copy:
        return tensor(obj, dtype=dtype, device=device, requires_grad=requires_grad)
    y = as_tensor(obj, dtype, device)
    shared = y is obj or (isinstance(obj, np.ndarray) and np.may_share_memory(y._a, obj))
    if copy is False and not shared:
        raise ValueError("asarray: this object cannot become a tensor without a copy")
    return creation.finish(y, requires_grad, device, "asarray") if requires_grad else y


def scalar_tensor(s: Any, *, dtype: dt.dtype | None = None, device: Any = None,
                  requires_grad: bool = False) -> Tensor:  # fmt: skip
    """A 0-dim tensor of a number, in the default floating dtype."""
    return tensor(
        s, dtype=dtype or dt.get_default_dtype(), device=device, requires_grad=requires_grad
    )


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of an object that speaks DLPack."""
    require_cpu(device, "from_dlpack")
    if not hasattr(ext_tensor, "__dlpack__"):
        kind = type(ext_tensor).__name__
        raise RuntimeError(f"from_dlpack: expected an object with __dlpack__, not {kind}")
    return from_numpy(np.from_dlpack(ext_tensor, copy=copy))


def frombuffer(
    buffer: Any,
    *,
    dtype: dt.dtype,
    count: int = -1,
    offset: int = 0,
    requires_grad: bool = False,
) -> Tensor:
    """A 1-dim tensor over the memory of a buffer, from byte `offset` on, `count` elements (all)."""
    try:
        memoryview(buffer)
    except TypeError:
        kind = type(buffer).__name__
        raise ValueError(
            f"frombuffer: object does not implement Python buffer protocol: {kind}"
        ) from None
    a = np.frombuffer(buffer, dtype.np, count, offset)
    return creation.finish(wrap(a), requires_grad, None, "frombuffer")


def array_of(data: Any, dtype: dt.dtype | None) -> np.ndarray:
    """A new C-contiguous array of what is none; ValueError: ragged lists, too large a number."""
    flat, kinds = [data], {data.__class__}
    while kinds == {list} and len(set(map(len, flat))) == 1:
        flat = list(chain.from_iterable(flat))
        kinds = set(map(type, flat))
    if kinds == {float} and dtype in (None, dt.float32, dt.float64):  # most often
        return np.array(data, (dtype or dt.get_default_dtype()).np)
    plain = dtype in (None, dt.int64, dt.float32, dt.float64) and kinds in ({int}, {bool})
    if plain and (a := np.array(data)).dtype.kind in "ib":
        return a if dtype is None else a.astype(dtype.np, copy=False)
    if isinstance(data, np.generic):
        return np.array(data, (dtype or dt.from_np(data.dtype)).np)
    if isinstance(data, (list, tuple, range)):
        _same_lengths(data, 0)
        if _holds_tensor(data):
            data = _unwrapped(data)
    elif not isinstance(data, (int, float, complex)) and not hasattr(data, "__array__"):
        kind = type(data)  # any other sequence, such as a deque
        if issubclass(kind, (str, bytes, dict)) or not hasattr(kind, "__getitem__"):
            raise _unknown(data)
        return array_of(list(data), dtype)
    try:
        a = np.array(data)
    except (ValueError, OverflowError) as e:
        raise ValueError(f"tensor(): {e}") from None
    if a.dtype == object or a.dtype.kind in "USV":
        raise _unknown(data)
    if a.dtype.kind == "u" and a.dtype.itemsize == 8:
        raise ValueError("Overflow when unpacking long long")
    dtype = dtype or _mixed(kinds) or _dtype_of(data, a)
    if a.dtype.kind == "c" and dtype.category != dt.COMPLEX:
        raise TypeError(f"tensor(): must be real number, not complex (for dtype {dtype.name})")
    if a.dtype.kind == "f" and dtype.category == dt.INT:
        if not (np.abs(a) <= 2.0**63).all():  # nor is a NaN
            raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")
        a = a.astype(np.int64)
    if a.dtype.kind == "i" and dtype.category == dt.INT and a.size:
        ends = np.iinfo(dtype.np)
        # a negative number wraps in an unsigned dtype, as in torch
        if a.max() > ends.max or a.min() < min(ends.min, -int(ends.max) - 1):
            raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")
    return np.ascontiguousarray(a.astype(dtype.np)).reshape(a.shape)


def _mixed(kinds: set[type]) -> dt.dtype | None:
    """The dtype of NumPy's numbers among Python's, or of several kinds; None of anything else."""
    numpys = [k for k in kinds if issubclass(k, np.generic)]
    plain = [k for k in kinds if k in (bool, int, float, complex)]
    if not numpys or len(numpys) + len(plain) != len(kinds):
        return None
    return reduce(
        dt.promote_types,
        [*(dt.from_np(np.dtype(k)) for k in numpys), *(dt.of_number(k()) for k in plain)],
    )


def _dtype_of(data: Any, a: np.ndarray) -> dt.dtype:
    first = _first(data)
    if a.size and isinstance(first, (np.generic, np.ndarray)):
        return dt.from_np(a.dtype)
    if a.dtype.kind == "f" or a.size == 0:
        return dt.get_default_dtype()
    if a.dtype.kind == "c":
        return dt.get_default_dtype().to_complex()
    if a.dtype.kind == "b":
        return dt.bool
    if a.dtype.kind in "iu":
        return dt.int64
    raise TypeError(f"tensor(): Weft has no dtype for {a.dtype}")


def _unknown(data: Any) -> Exception:
    first = _first(data)
    if isinstance(first, str):
        if isinstance(data, str):
            return TypeError(f"new(): invalid data type '{type(first).__name__}'")
        return ValueError(f"too many dimensions '{type(first).__name__}'")
    return RuntimeError(f"Could not infer dtype of {type(first).__name__}")


def _first(x: Any) -> Any:
    while isinstance(x, (list, tuple)) and x:
        x = x[0]
    return x


def _same_lengths(x: Any, dim: int) -> None:
    """Raise for ragged lists, as torch words it."""
    parts = [p for p in x if isinstance(p, (list, tuple))]
    if not parts:
        return
    n = len(parts[0])
    for p in x:
        if not isinstance(p, (list, tuple)):
            if not hasattr(p, "__len__"):
                raise TypeError(f"expected a sequence at dim {dim + 1}, got {type(p).__name__}")
        elif len(p) != n:
            raise ValueError(f"expected sequence of length {n} at dim {dim + 1} (got {len(p)})")
    for p in parts:
        _same_lengths(p, dim + 1)


def _holds_tensor(x: Any) -> bool:
    return any(
        isinstance(i, Handle) or (isinstance(i, (list, tuple)) and _holds_tensor(i)) for i in x
    )


def _unwrapped(x: Any) -> Any:
    return [
        i._a.tolist() if isinstance(i, Handle)
        else _unwrapped(i) if isinstance(i, (list, tuple)) else i
        for i in x
    ]  # fmt: skip

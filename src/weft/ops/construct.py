"""Tensors from what others hold: numbers, nested lists, NumPy arrays, other tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from weft.core import dtype as dt
from weft.core import nested
from weft.core.device import require_cpu
from weft.core.handle import Handle
from weft.ops import creation
from weft.ops.cast import cast
from weft.ops.dispatch import wrap
from weft.runtime import memory

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
        y = wrap(nested.array_of(data, dtype))
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
    if any(s < 0 for s in a.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative "
            "strides are not currently supported. (You can probably work around this by making a "
            "copy of your array  with array.copy().)"
        )
    if any(s % a.itemsize for s in a.strides):
        raise ValueError("from_numpy: the array's strides are not multiples of its item size")
    if a.size and a.ctypes.data % a.itemsize:
        raise ValueError("from_numpy: the array's memory is not aligned to its item size")
    y = wrap(a)
    owner = a
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    y._pin = ref(owner)  # NumPy resizes nothing that has a weak reference
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
    a = np.frombuffer(buffer, dtype.np, count, offset)
    return creation.finish(wrap(a), requires_grad, None, "frombuffer")

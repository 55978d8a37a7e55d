"""Numbers, nested lists and arrays as one new array, with torch's rules for the dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle


def array_of(data: Any, dtype: dt.dtype | None) -> np.ndarray:
    """A new C-contiguous array of what is none; ValueError: ragged lists, too large a number."""
    if isinstance(data, np.generic):
        return np.array(data, (dtype or dt.from_np(data.dtype)).np)
    if isinstance(data, (list, tuple, range)):
        _same_lengths(data, 0)
        if _holds_tensor(data):
            data = _unwrapped(data)
    elif not isinstance(data, (int, float, complex)) and not hasattr(data, "__array__"):
        raise _unknown(data)
    try:
        a = np.array(data)
    except (ValueError, OverflowError) as e:
        raise ValueError(f"tensor(): {e}") from None
    if a.dtype == object or a.dtype.kind in "USV":
        raise _unknown(data)
    if a.dtype.kind == "u" and a.dtype.itemsize == 8:
        raise ValueError("Overflow when unpacking long long")
    dtype = dtype or _dtype_of(data, a)
    if a.dtype.kind == "c" and dtype.category != dt.COMPLEX:
        raise TypeError(f"tensor(): must be real number, not complex (for dtype {dtype.name})")
    if a.dtype.kind == "f" and dtype.category == dt.INT:
        a = a.astype(np.int64)
    if a.dtype.kind == "i" and dtype.category == dt.INT and a.size:
        ends = np.iinfo(dtype.np)
        # a negative number wraps in an unsigned dtype, as in torch
        if a.max() > ends.max or a.min() < min(ends.min, -int(ends.max) - 1):
            raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")
    return np.ascontiguousarray(a.astype(dtype.np)).reshape(a.shape)


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

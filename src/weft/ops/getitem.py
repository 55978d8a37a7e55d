"""x[...] and x[...] = v with torch's rules.

Ints, slices, None and Ellipsis give views, one view op each; masks, lists and index tensors copy
(Index).  A mask stands for the index tensors of its true places.  Index tensors that stand next to
each other keep their place in the result; those apart move to the front.  An int beside index
tensors selects first (torch), it does not count as one of them (NumPy).
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle, state
from weft.core.op import Op
from weft.ops import dispatch
from weft.ops.cast import cast
from weft.ops.creation import number_in
from weft.ops.dispatch import (
    NUMBERS,
    apply,
    dtype_of,
    number_array,
    shape_of,
    types_of,
    wrap,
    wrote,
)
from weft.ops.index import Index, IndexPut, outside, result_shape
from weft.ops.view import Reshape, Select, Slice, reshape, unsqueeze
from weft.ops.write import check_writable, inplace, write

__all__ = ["index_put", "index_put_"]


def getitem(x: Any, index: Any) -> Any:
    """x[index]: a view for ints, slices, None and Ellipsis; a copy for masks and index tensors."""
    if (y := dispatch.item(x, index)) is not None:
        return y
    places = index if index.__class__ is tuple else (index,)
    for i in places:
        if not isinstance(i, Handle) or dtype_of(i) is dt.bool or not shape_of(i):
            break
    else:  # index tensors alone, as they came before
        op = _INDEX.get(len(places))
        if op is not None and (y := op.quick(x, *places)) is not None:
            return y
    if (
        isinstance(index, Handle)
        and dtype_of(index) is dt.bool
        and index._ghost is None
        and x._ghost is None
        and not (x._rg and state.grad)
        and shape_of(index)
        and state.recorder is None
    ):
        _check_mask(index, shape_of(x), 0)
        return wrap(x._a[index._a])
    y, indices, ops = _basic(x, index)
    if indices:
        dims, at = _placement(indices)
        return apply(Index(dims, at), y, *(indices[d] for d in dims))
    if y is x:
        return apply(Reshape(shape_of(x)), x)
    if len(ops) == 1:
        dispatch.tell(ops[0], x, 0, index)
    return y


_PLACES = (dt.bool, dt.int64, dt.int32)
_INDEX = {n: Index(tuple(range(n)), 0) for n in (1, 2)}


def setitem(x: Any, index: Any, value: Any) -> None:
    """x[index] = value: the memory that x[index] names gets value, cast and broadcast."""
    if _written_now(x, index, value):
        return
    value = _value(x, value)
    y, indices, _ = _basic(x, index)
    if indices:
        if dtype_of(value) is not dtype_of(x):
            if shape_of(value):
                raise RuntimeError(
                    "Index put requires the source and destination dtypes match, got "
                    f"{dtype_of(x).name} for the destination and {dtype_of(value).name} for the "
                    "source."
                )
            value = cast(value, dtype_of(x))
        _put(y, indices, value, "set")
        return
    value = _without_leading_ones(cast(value, dtype_of(x)), len(shape_of(y)))
    _expandable(shape_of(value), shape_of(y))
    write(y, value)


def _need_some(op: str, indices: Any) -> None:
    if isinstance(indices, Handle) or not hasattr(indices, "__iter__"):
        kind = type(indices).__name__
        raise TypeError(
            f"{op}(): argument 'indices' (position 2) must be tuple of Tensors, not {kind}"
        )


def index_put_(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """x[indices] = values, or += in order of the values when `accumulate`.  Returns x."""
    _need_some("index_put_", indices)
    y, found, _ = _basic(x, tuple(slice(None) if i is None else i for i in indices))
    if dtype_of(values) is not dtype_of(x):
        raise RuntimeError(
            "Index put requires the source and destination dtypes match, got "
            f"{dtype_of(x).name} for the destination and {dtype_of(values).name} for the source."
        )
    _put(y, found, values, "add" if accumulate else "set")
    return x


def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """A copy of x with values written (or added) at the indices."""
    _need_some("index_put", indices)
    y, found, _ = _basic(x, tuple(slice(None) if i is None else i for i in indices))
    dims, at = _placement(found)
    op = IndexPut(dims, at, True, "add" if accumulate else "set")
    return apply(op, y, values, *(found[d] for d in dims))


# ---------------------------------------------------------------------------- reading the index


def _basic(x: Any, index: Any) -> tuple[Any, dict[int, Any], list[Op]]:
    """(the view that ints, slices, None and ... give; the index tensors by its dims; the view's
    ops, one after the other).
    """
    items = _items(index)
    rank = len(shape_of(x))
    named = 0
    for i in items:
        named += _consumed(i)
    if named > rank:
        if rank == 0:
            raise IndexError(
                "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or "
                "`tensor.item<T>()` in C++ to convert a 0-dim tensor to a number"
            )
        raise IndexError(f"too many indices for tensor of dimension {rank}")
    y = x
    dim = place = 0  # in the view; in x
    tensors: dict[int, Any] = {}
    ops: list[Op] = []
    for i in items:
        op: Op | None = None
        if i.__class__ is slice:
            op = _slice(shape_of(y)[dim], dim, i)
            dim, place = dim + 1, place + 1
        elif i is None:
            shape = shape_of(y)
            op = Reshape((*shape[:dim], 1, *shape[dim:]))
            dim += 1
        elif i is Ellipsis:
            dim, place = dim + rank - named, place + rank - named
        elif isinstance(i, bool):
            y = unsqueeze(y, dim)
            tensors[dim] = wrap(np.zeros(int(i), np.int64))
            dim += 1
        elif isinstance(i, int):
            n = shape_of(y)[dim]
            if not -n <= i < n:
                raise IndexError(f"index {i} is out of bounds for dimension {place} with size {n}")
            op = Select(dim, i + n if i < 0 else i)
            place += 1
        elif dtype_of(i) is dt.bool:
            _check_mask(i, shape_of(y), dim)
            for found in np.nonzero(i._a):
                tensors[dim] = wrap(found)
                dim, place = dim + 1, place + 1
        else:
            tensors[dim] = i
            dim, place = dim + 1, place + 1
        if op is not None:
            y = apply(op, y)
            ops.append(op)
    return y, tensors, ops


def _items(index: Any) -> list:
    """The index as a list of slices, None, Ellipsis, bools, ints and index tensors."""
    if index.__class__ is tuple:
        return [_item(i) for i in index]
    if isinstance(index, (list, range)) and _stands_for_tuple(index):
        warnings.warn(
            "Using a non-tuple sequence for multidimensional indexing is deprecated; use "
            "x[tuple(seq)] instead of x[seq].",
            UserWarning,
            stacklevel=5,
        )
        return [_item(i) for i in index]
    return [_item(index)]


def _stands_for_tuple(index: Sequence[Any]) -> bool:
    """A short list that holds slices, lists or tensors is read as a tuple (torch 2.13 still)."""
    return len(index) < 32 and any(
        i is None or i is Ellipsis or isinstance(i, (slice, Handle, list, tuple, np.ndarray))
        for i in index
    )


def _item(i: Any) -> Any:
    if i is None or i is Ellipsis or i.__class__ in (slice, int, bool):
        return i
    if isinstance(i, Handle):
        d = dtype_of(i)
        if not shape_of(i) and d is dt.bool:
            return bool(i._a)
        if not shape_of(i) and d.category == dt.INT and d is not dt.uint8:
            return int(i._a)
        if d is dt.uint8:
            warnings.warn(
                "indexing with dtype torch.uint8 is now deprecated, please use a dtype torch.bool "
                "instead.",
                UserWarning,
                stacklevel=6,
            )
            return cast(i, dt.bool)
        if d not in (dt.int64, dt.int32, dt.bool):
            raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
        return i
    if isinstance(i, np.bool_):
        return bool(i)
    if isinstance(i, np.integer):
        return int(i)
    if isinstance(i, np.ndarray):
        return _item(wrap(i if i.dtype.kind == "b" else _integers(i)))
    if isinstance(i, (list, tuple, range)):
        a = np.array([_plain(k) for k in i])
        return _item(wrap(a.astype(np.int64) if not a.size else a if a.dtype.kind == "b" else _integers(a)))  # fmt: skip  # noqa: E501
    if hasattr(i, "__index__"):
        return operator.index(i)
    if isinstance(i, str):
        raise TypeError("new(): invalid data type 'str': a tensor's index is no name")
    raise IndexError(
        "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid "
        f"indices (got {type(i).__name__})"
    )


def _plain(k: Any) -> Any:
    if isinstance(k, Handle):
        return k.tolist()
    return [_plain(j) for j in k] if isinstance(k, (list, tuple)) else k


def _integers(a: np.ndarray) -> np.ndarray:
    if a.dtype.kind not in "iu":
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return a.astype(np.int64)


def _consumed(i: Any) -> int:
    """How many of the tensor's dims an item stands for."""
    if i is None or i is Ellipsis or i.__class__ is bool:
        return 0
    if isinstance(i, Handle) and dtype_of(i) is dt.bool:
        return len(shape_of(i))
    return 1


def _slice(n: int, dim: int, item: slice) -> Slice | None:
    """The op of a slice of n places; None where it takes all."""
    step = 1 if item.step is None else operator.index(item.step)
    if step == 0:
        raise ValueError("slice step cannot be zero")
    if step < 0:
        raise ValueError("step must be greater than zero")
    start, stop, _ = item.indices(n)
    if start == 0 and stop == n and step == 1:
        return None
    return Slice(dim, start, max(stop, start), step)


def _check_mask(mask: Any, shape: tuple[int, ...], dim: int) -> None:
    have = shape_of(mask)
    if len(have) > len(shape) - dim:
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
    for k, n in enumerate(have):
        if shape[dim + k] != n:
            raise IndexError(
                f"The shape of the mask {list(have)} at index {k} does not match the shape of the "
                f"indexed tensor {list(shape)} at index {dim + k}"
            )


def _placement(indices: dict[int, Any]) -> tuple[tuple[int, ...], int]:
    """(the indexed dims, where the indices' own dims stand in the result)."""
    dims = tuple(indices)
    adjacent = dims[-1] - dims[0] == len(dims) - 1
    return dims, dims[0] if adjacent else 0


# ---------------------------------------------------------------------------- writing


def _value(x: Any, value: Any) -> Any:
    if isinstance(value, Handle):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if value.__class__ in NUMBERS or isinstance(value, (int, float)):
        return wrap(_number(value, dtype_of(x)))
    if isinstance(value, complex):
        if not dtype_of(x).is_complex:
            raise RuntimeError(
                f"value cannot be converted to type {dtype_of(x).name} without overflow"
            )
        return wrap(number_array(value, dtype_of(x).np))
    raise TypeError(f"can't assign a {type(value).__name__} to a torch.{dtype_of(x).name} tensor")


def _number(value: Any, d: dt.dtype) -> np.ndarray:
    """RuntimeError: an integer dtype does not reach so far (a float's number may become inf);
    ValueError: nor does int64.
    """
    small = value.__class__ is int and -128 <= value < 128  # as any integer dtype, or wraps there
    if not small and value.__class__ is int and not -(2**63) <= value < 2**63:
        raise ValueError("Overflow when unpacking long long")
    return number_array(value if small or d.category != dt.INT else number_in(value, d), d.np)


_PLAIN = (int, type(None), type(Ellipsis))


def _is_plain(items: tuple) -> bool:
    """Only ints, slices, None and ...: what NumPy reads as torch does, apart from its errors."""
    for i in items:
        if i.__class__ is slice:
            if i.step is not None and (i.step.__class__ is not int or i.step <= 0):
                return False
        elif i.__class__ not in _PLAIN:
            return False
    return True


def _written_now(x: Any, index: Any, value: Any) -> bool:
    """The usual write at once: plain indices, one dtype, no tape.  False leaves it to the rest."""
    number = value.__class__ in NUMBERS
    if not (number or isinstance(value, Handle)) or state.recorder is not None:
        return False
    if x._ghost is not None or (not number and value._ghost is not None):
        return False
    if (x._rg or (not number and value._rg)) and state.grad:
        return False
    if isinstance(index, Handle):
        if index._ghost is not None or not index._a.shape or dtype_of(index) not in _PLACES:
            return False
        if dtype_of(index) is dt.bool:
            _check_mask(index, shape_of(x), 0)
        index = index._a
    elif not _is_plain(index if index.__class__ is tuple else (index,)):
        return False
    a = x._a
    v = _number(value, dtype_of(x)) if number else value._a
    if a.dtype is not v.dtype or not a.flags.writeable or 0 in a.strides:
        return False
    try:
        a[index] = v
    except (IndexError, ValueError):
        return False  # to be said in torch's words
    wrote(x)
    return True


def _without_leading_ones(value: Any, rank: int) -> Any:
    shape = shape_of(value)
    drop = 0
    while len(shape) - drop > rank and shape[drop] == 1:
        drop += 1
    return reshape(value, shape[drop:]) if drop else value


def _expandable(have: tuple[int, ...], want: tuple[int, ...]) -> None:
    lead = len(want) - len(have)
    if lead < 0:
        raise RuntimeError(
            f"expand(...): the number of sizes provided ({len(want)}) must be greater or equal to "
            f"the number of dimensions in the tensor ({len(have)})"
        )
    for d, n in enumerate(have):
        if n not in (1, want[lead + d]):
            raise RuntimeError(
                f"The expanded size of the tensor ({want[lead + d]}) must match the existing size "
                f"({n}) at non-singleton dimension {lead + d}.  Target sizes: {list(want)}.  "
                f"Tensor sizes: {list(have)}"
            )


def _put(y: Any, indices: dict[int, Any], value: Any, mode: str) -> None:
    check_writable(y)
    dims, at = _placement(indices)
    tensors = tuple(indices[d] for d in dims)
    op = IndexPut(dims, at, True, mode)
    shape = result_shape(shape_of(y), dims, at, *(shape_of(i) for i in tensors))
    value = _without_leading_ones(value, len(shape))
    op.type(*types_of((y, value, *tensors)))
    if state.recorder is None and mode == "set" and not (state.grad and (y._rg or value._rg)):
        _put_now(op, y, tensors, value)
        return
    inplace(op, y, value, *tensors)


def _put_now(op: IndexPut, y: Any, tensors: tuple, value: Any) -> None:
    """The write without a copy of y: nobody will ask for the old value."""
    a, places = y._a, [i._a for i in tensors]
    if outside([a.shape[d] for d in op.dims], places, True):
        raise op.fail(1, [a, value._a, *places])
    key: list = [slice(None)] * a.ndim
    for d, i in zip(op.dims, places, strict=True):
        key[d] = i
    a[tuple(key)] = value._a
    wrote(y)

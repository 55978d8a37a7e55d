"""Samples to batches, as `torch.utils.data.default_collate`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

import weft

_TYPE_ERROR = (
    "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"
)


def default_convert(data: Any) -> Any:
    """NumPy arrays and numbers become tensors, inside containers too; the rest stays as it is."""
    if isinstance(data, (weft.Tensor, str, bytes)):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in "SUO" else weft.as_tensor(data)
    if isinstance(data, Mapping):
        return _rebuild_mapping(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, tuple):
        parts = [default_convert(d) for d in data]
        return type(data)(*parts) if hasattr(data, "_fields") else parts
    if isinstance(data, Sequence):
        return _rebuild_sequence(data, [default_convert(d) for d in data])
    return data


def collate(batch: Any, *, collate_fn_map: dict[Any, Callable] | None = None) -> Any:
    """Batch samples of one structure: leaves by the function that `collate_fn_map` has for their
    type, containers by their elements. A tuple gives a list, as in torch.
    """
    first = batch[0]
    if collate_fn_map is not None:
        function = collate_fn_map.get(type(first)) or next(
            (f for kind, f in collate_fn_map.items() if isinstance(first, kind)), None
        )
        if function is not None:
            return function(batch, collate_fn_map=collate_fn_map)
    if isinstance(first, Mapping):
        columns = {k: collate([d[k] for d in batch], collate_fn_map=collate_fn_map) for k in first}
        return _rebuild_mapping(first, columns)
    if isinstance(first, Sequence):
        named = isinstance(first, tuple) and hasattr(first, "_fields")
        if not named and any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        parts = [collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch)]
        if isinstance(first, tuple):
            return type(first)(*parts) if named else parts
        return _rebuild_sequence(first, parts)
    raise TypeError(_TYPE_ERROR.format(type(first)))


def _rebuild_mapping(like: Mapping, items: dict) -> Any:
    """`items` in the type of `like`, with its other attributes; a dict where that fails."""
    try:
        if isinstance(like, MutableMapping):
            clone = copy.copy(like)
            clone.update(items)
            return clone
        return type(like)(items)  # type: ignore[call-arg]
    except TypeError:
        return items


def _rebuild_sequence(like: Sequence, items: list) -> Any:
    try:
        if isinstance(like, MutableSequence):
            clone = copy.copy(like)
            for i, item in enumerate(items):
                clone[i] = item
            return clone
        return type(like)(items)  # type: ignore[call-arg]
    except TypeError:
        return items


def _collate_tensors(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return weft.stack(list(batch), 0)


def _collate_arrays(batch: Any, *, collate_fn_map: Any = None) -> Any:
    if batch[0].dtype.kind in "SUO":
        raise TypeError(_TYPE_ERROR.format(batch[0].dtype))
    return collate([weft.as_tensor(a) for a in batch], collate_fn_map=collate_fn_map)


def _collate_numpy_numbers(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return weft.as_tensor(np.array(batch))


def _collate_floats(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return weft.tensor(list(batch), dtype=weft.float64)


def _collate_ints(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return weft.tensor(list(batch))


def _keep(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return batch


default_collate_fn_map: dict[Any, Callable] = {
    weft.Tensor: _collate_tensors,
    np.ndarray: _collate_arrays,
    (np.bool_, np.number, np.object_): _collate_numpy_numbers,
    float: _collate_floats,
    int: _collate_ints,
    str: _keep,
    bytes: _keep,
}


def default_collate(batch: Any) -> Any:
    """Samples to one batch with a new first dim: tensors and arrays are stacked, floats become
    float64, ints int64; strings stay; dicts, lists, tuples and named tuples keep their structure.
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)

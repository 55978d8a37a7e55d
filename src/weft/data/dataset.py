"""Datasets: what can be indexed or iterated, how they combine, and how samples become a batch."""

from __future__ import annotations

import bisect
import copy
import itertools
import math
import warnings
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    Sequence,
)
from typing import Any, Generic, TypeVar

import numpy as np

import weft

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """Samples by index: `__getitem__`, mostly `__len__`; `__getitems__(indices)` fetches many."""

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} must implement __getitem__")

    def __add__(self, other: Dataset) -> Dataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """A stream of samples: `__iter__`, and `__len__` where the length is known."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must implement __iter__")

    def __add__(self, other: Dataset) -> Dataset:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple]):
    """Rows of tensors that share their first size."""

    def __init__(self, *tensors: Any) -> None:
        sizes = [t.size(0) for t in tensors]
        if any(size != sizes[0] for size in sizes):
            raise AssertionError(f"Size mismatch between tensors: {sizes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].size(0)


class StackDataset(Dataset):
    """Several datasets side by side: a sample is a tuple, or a dict when they come by name."""

    def __init__(self, *args: Dataset, **kwargs: Dataset) -> None:
        if args and kwargs:
            raise ValueError("StackDataset: give datasets by position or by name, not both")
        if not args and not kwargs:
            raise ValueError("At least one dataset should be passed")
        self.datasets: tuple | dict = args or kwargs
        sizes = [len(d) for d in (args or kwargs.values())]  # type: ignore[arg-type]
        if any(size != sizes[0] for size in sizes):
            raise ValueError(f"Size mismatch between datasets: {sizes}")
        self._length = sizes[0]

    def __getitem__(self, index: Any) -> tuple | dict:
        if isinstance(self.datasets, dict):
            return {k: dataset[index] for k, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __getitems__(self, indices: list) -> list:
        if isinstance(self.datasets, dict):
            columns = [_fetch(dataset, indices) for dataset in self.datasets.values()]
            return [dict(zip(self.datasets, row)) for row in zip(*columns)]
        return list(zip(*[_fetch(dataset, indices) for dataset in self.datasets]))

    def __len__(self) -> int:
        return self._length


def _fetch(dataset: Dataset, indices: list) -> list:
    if callable(getattr(dataset, "__getitems__", None)):
        items = dataset.__getitems__(indices)  # type: ignore[attr-defined]
        if len(items) != len(indices):
            raise ValueError(
                f"Nested dataset's output size mismatch. Expected {len(indices)}, got {len(items)}"
            )
        return items
    return [dataset[i] for i in indices]


class ConcatDataset(Dataset[T]):
    """Datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        if index < 0:
            if -index > len(self):
                raise ValueError("absolute value of index should not exceed dataset length")
            index += len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        start = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - start]


class ChainDataset(IterableDataset):
    """Iterable datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = datasets

    def _checked(self) -> Iterator[IterableDataset]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            yield dataset

    def __iter__(self) -> Iterator:
        for dataset in self._checked():
            yield from dataset

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self._checked())  # type: ignore[arg-type]


class Subset(Dataset[T]):
    """The samples of `dataset` at `indices`. Override both `__getitem__` and `__getitems__`."""

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        own = type(self)
        if own.__getitem__ is not Subset.__getitem__ and own.__getitems__ is Subset.__getitems__:
            raise NotImplementedError(
                f"{own.__name__} overrides __getitem__ but not __getitems__, which the DataLoader "
                "calls. Define __getitems__(self, indices), for example as "
                "[self.__getitem__(i) for i in indices]"
            )
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list:
        return _fetch(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Dataset, lengths: Sequence[int | float], generator: Any = None
) -> list[Subset]:
    """Disjoint subsets in random order. `lengths` are counts, or fractions that sum to 1: floor of
    each, and what remains is dealt out one by one from the first.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for i, fraction in enumerate(lengths):
            if not 0 <= fraction <= 1:
                raise ValueError(f"Fraction at index {i} is not between 0 and 1")
        counts = [math.floor(size * fraction) for fraction in lengths]
        for i in range(size - sum(counts)):
            counts[i % len(counts)] += 1
        for i, count in enumerate(counts):
            if count == 0:
                warnings.warn(
                    f"Length of split at index {i} is 0. This might result in an empty dataset.",
                    stacklevel=2,
                )
        lengths = counts
    if sum(lengths) != size:
        raise ValueError(
            "Sum of input lengths does not equal the length of the input dataset! "
            f"({' + '.join(map(str, lengths))} != {size})"
        )
    order = weft.randperm(size, generator=generator).tolist()
    ends = itertools.accumulate(int(n) for n in lengths)
    return [Subset(dataset, order[end - int(n) : end]) for end, n in zip(ends, lengths)]


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


def fetcher(
    dataset: Any, batched: bool, collate_fn: Callable, drop_last: bool
) -> Callable[[Any], Any]:
    """A function from what the index sampler yields to a batch; StopIteration ends a stream."""
    if isinstance(dataset, IterableDataset):
        return _stream(dataset, batched, collate_fn, drop_last)
    if not batched:
        return lambda index: collate_fn(dataset[index])
    if collate_fn is default_collate and (rows := _tensor_rows(dataset)):
        return rows
    if callable(getattr(dataset, "__getitems__", None)):
        return lambda indices: collate_fn(dataset.__getitems__(indices))
    return lambda indices: collate_fn([dataset[i] for i in indices])


def _tensor_rows(dataset: Any) -> Callable[[list[int]], list] | None:
    """For a TensorDataset, or subsets of one: index each tensor once instead of stacking rows."""
    maps = []
    while type(dataset) is Subset:
        maps.append(dataset.indices)
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset:
        return None
    tensors = dataset.tensors

    def rows(indices: list[int]) -> list:
        for positions in maps:
            indices = [positions[i] for i in indices]
        index = weft.tensor(indices, dtype=weft.int64)
        return [tensor[index] for tensor in tensors]

    return rows


def _stream(
    dataset: Dataset, batched: bool, collate_fn: Callable, drop_last: bool
) -> Callable[[Any], Any]:
    samples = iter(dataset)
    ended = False

    def fetch(indices: Any) -> Any:
        nonlocal ended
        if not batched:
            return collate_fn(next(samples))
        batch = []
        while not ended and len(batch) < len(indices):
            try:
                batch.append(next(samples))
            except StopIteration:
                ended = True
        if not batch or (drop_last and len(batch) < len(indices)):
            raise StopIteration
        return collate_fn(batch)

    return fetch

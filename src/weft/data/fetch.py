"""From indices to a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import weft
from weft.data.collate import default_collate
from weft.data.dataset import Dataset, IterableDataset, Subset, TensorDataset


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

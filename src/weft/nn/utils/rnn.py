"""Sequences of different lengths: padded to one tensor, or packed without padding.

Packed data holds, step by step, the rows of the sequences still running, longest first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

import weft
from weft import Tensor


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """data (sum of lengths, *); batch_sizes[t] rows belong to step t; the sorting order, if any."""

    def __new__(
        cls,
        data: Any,
        batch_sizes: Any = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> Any:
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        if batch_sizes is None:
            data, batch_sizes = data
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The data in another dtype."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else type(self)(data, *self[1:])

    def cpu(self) -> PackedSequence:
        return self

    def float(self) -> PackedSequence:
        return self.to(weft.float32)

    def double(self) -> PackedSequence:
        return self.to(weft.float64)

    def half(self) -> PackedSequence:
        return self.to(weft.float16)

    @property
    def is_cuda(self) -> bool:
        return self.data.is_cuda


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """q with q[p[i]] = i"""
    if permutation is None:
        return None
    return weft.from_numpy(np.argsort(permutation.numpy(), kind="stable"))


def _lengths(lengths: Any) -> np.ndarray:
    values = lengths.numpy() if isinstance(lengths, Tensor) else lengths
    return np.asarray(values, np.int64)


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Drop the padding of (T, N, *) (or (N, T, *)).

    RuntimeError unless the lengths are positive, at most T and, with `enforce_sorted`, decreasing.
    """
    n = _lengths(lengths)
    order = None
    if not enforce_sorted:
        order = np.argsort(-n, kind="stable")
        n = n[order]
    steps, batch = (input.shape[1], input.shape[0]) if batch_first else input.shape[:2]
    if len(n) != batch:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(n)} "
            f"(batch_size={batch})"
        )
    if len(n) == 0 or n[-1] <= 0 or n.min() <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            "that is <= 0"
        )
    if (np.diff(n) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You "
            "can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to "
            "sidestep this requirement if you do not need ONNX exportability."
        )
    if n[0] > steps:
        raise RuntimeError(f"Expected lengths of at most {steps}, the padded length, got {n[0]}")
    t, row = _running(n)
    row = row if order is None else order[row]
    places = row * steps + t if batch_first else t * batch + row
    data = input.flatten(0, 1).index_select(0, weft.from_numpy(places))
    sizes = weft.from_numpy(np.bincount(t).astype(np.int64))
    return PackedSequence(data, sizes, None if order is None else weft.from_numpy(order))


def _running(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(step, sequence) of each packed row; n decreasing."""
    t, row = np.nonzero(np.arange(n[0])[:, None] < n[None, :])
    return t, row


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(padded (T, N, *) or (N, T, *), lengths): undo pack_padded_sequence."""
    sizes = sequence.batch_sizes.numpy()
    steps = len(sizes)
    if total_length is not None:
        if total_length < steps:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in "
                f"input, but got total_length={total_length} and max sequence length being {steps}"
            )
        steps = total_length
    data, batch = sequence.data, int(sizes[0])
    n = (sizes[:, None] > np.arange(batch)[None, :]).sum(0).astype(np.int64)
    t, row = _running(n)
    places = np.full((steps, batch), len(t), np.int64)  # the row behind the last is the padding
    places[t, row] = np.arange(len(t))
    if sequence.unsorted_indices is not None:
        back = sequence.unsorted_indices.numpy()
        places, n = places[:, back], n[back]
    places = places.T if batch_first else places
    filler = data.new_full((1, *data.shape[1:]), padding_value)
    rows = weft.cat([data, filler])
    flat = weft.from_numpy(np.ascontiguousarray(places).reshape(-1))
    padded = rows.index_select(0, flat).reshape(*places.shape, *data.shape[1:])
    return padded, weft.from_numpy(n)


def pad_sequence(
    sequences: Any,
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Tensors (L_i, *) as one (max L, N, *), or (N, max L, *)."""
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            "pad_sequence: Expected iterable for input sequences, but got arg of type: "
            f"{type(sequences)}"
        )
    if padding_side not in ("left", "right"):
        raise RuntimeError(
            f"Expected padding_side to be one of left or right, but got {padding_side}."
        )
    items = list(sequences)
    longest = max(x.shape[0] for x in items)
    made = []
    for x in items:
        missing = longest - x.shape[0]
        if missing:
            fill = x.new_full((missing, *x.shape[1:]), padding_value)
            x = weft.cat([x, fill] if padding_side == "right" else [fill, x])
        made.append(x)
    return weft.stack(made, dim=0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """The sequences of a padded (T, N, *) or (N, T, *), each at its own length."""
    batch = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [x.narrow(0, 0, int(n)) for x, n in zip(batch, _lengths(lengths), strict=True)]


def pack_sequence(sequences: list[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors (L_i, *) packed."""
    lengths = [x.size(0) for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The tensors that were packed."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)

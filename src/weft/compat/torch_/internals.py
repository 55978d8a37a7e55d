"""torch._utils, torch.utils._foreach_utils: flat copies and groups of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import weft
from weft import Tensor


def _flatten_dense_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors' entries one after the other, in one new tensor."""
    return weft.cat([t.reshape(-1) for t in tensors])


def _unflatten_dense_tensors(flat: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Views of `flat` in the shapes of `tensors`, in order."""
    pieces = flat.split([t.numel() for t in tensors])
    return tuple(p.view(t.shape) for p, t in zip(pieces, tensors, strict=True))


def _get_available_device_type() -> None:
    """There is no accelerator."""


def _group_tensors_by_device_and_dtype(
    tensorlistlist: Sequence[Sequence[Tensor | None]], with_indices: bool = False
) -> dict[tuple, tuple[list, list[int]]]:
    """(device, dtype) of the first list's tensors -> (those entries of each list, their places)."""
    groups: dict[tuple, tuple[list, list[int]]] = {}
    for place, entries in enumerate(zip(*tensorlistlist, strict=True)):
        first: Any = entries[0]
        lists, places = groups.setdefault((first.device, first.dtype), ([[] for _ in entries], []))
        for kept, entry in zip(lists, entries, strict=True):
            kept.append(entry)
        if with_indices:
            places.append(place)
    return groups


def _get_foreach_kernels_supported_devices() -> list[str]:
    return []


_get_fused_kernels_supported_devices = _get_foreach_kernels_supported_devices


def _device_has_foreach_support(device: Any) -> bool:
    """torch's answer on a CPU outside a script."""
    return device.type == "cpu"


def _has_foreach_support(tensors: list[Tensor], device: Any) -> bool:
    """Whether all are on a device with functions over lists, and of no other class."""
    plain = all(t is None or type(t) is Tensor for t in tensors)
    return _device_has_foreach_support(device) and plain

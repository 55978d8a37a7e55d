"""torch.utils.dlpack: tensors handed over by their memory."""

from __future__ import annotations

from typing import Any

from weft import from_dlpack

__all__ = ["from_dlpack"]


def to_dlpack(tensor: Any) -> Any:
    """The capsule that other libraries read."""
    return tensor.__dlpack__()

"""torch._C._nn: how `.to(...)` reads its arguments."""

from __future__ import annotations

from typing import Any

import weft


def _parse_to(
    *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False,
    copy: bool = False, memory_format: Any = None,
) -> tuple:  # fmt: skip
    """(device, dtype, non_blocking, memory_format) of to(device, dtype), to(dtype), to(tensor)."""
    for a in args:
        if isinstance(a, weft.dtype):
            dtype = a
        elif isinstance(a, weft.Tensor):
            device, dtype = a.device, a.dtype
        elif isinstance(a, bool):
            non_blocking = a
        elif a is not None:
            device = a
    device = device if device is None or isinstance(device, weft.device) else weft.device(device)
    return device, dtype, non_blocking, memory_format

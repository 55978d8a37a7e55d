"""torch.accelerator on a machine without one."""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    return False


def device_count() -> int:
    return 0


def current_accelerator(check_available: bool = False) -> None:
    return None


def _refuse(*args: Any, **kw: Any) -> Any:
    raise RuntimeError("Cannot access accelerator device when none is available.")


current_device_index = set_device_index = synchronize = current_stream = set_stream = _refuse
current_device_idx = set_device_idx = device_index = _refuse


def empty_cache() -> None:
    """Nothing is cached."""

"""torch.utils.checkpoint: the states of devices' generators, of which there are none."""

from __future__ import annotations

from typing import Any


def get_device_states(*args: Any) -> tuple[list, list]:
    """([], [])"""
    return [], []


def set_device_states(devices: Any, states: Any, **kw: Any) -> None:
    """Nothing to set: no device has a generator."""

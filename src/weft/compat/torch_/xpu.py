"""torch.xpu, torch.mtia, torch.npu: devices that are not there."""

from __future__ import annotations


def is_available() -> bool:
    return False


def device_count() -> int:
    return 0


def manual_seed_all(seed: int) -> None:
    """Nothing to seed."""

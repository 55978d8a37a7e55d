"""torch.multiprocessing: Python's, whose processes Weft's tensors reach by copy."""

from __future__ import annotations


def set_sharing_strategy(new_strategy: str) -> None:
    """Kept out: tensors are copied between processes."""


def get_sharing_strategy() -> str:
    return "file_descriptor"


def get_all_sharing_strategies() -> set[str]:
    return {"file_descriptor", "file_system"}

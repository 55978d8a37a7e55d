"""torch.utils: the package."""

from __future__ import annotations

from typing import Any


def set_module(obj: Any, mod: str) -> None:
    """Say that `obj` belongs to the module `mod`."""
    obj.__module__ = mod

"""Arguments that are one number for all spatial dims, or one a dim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def ntuple(x: Any, n: int) -> tuple:
    """n times `x`, or the n numbers that `x` holds."""
    return tuple(x) if isinstance(x, Iterable) else (x,) * n

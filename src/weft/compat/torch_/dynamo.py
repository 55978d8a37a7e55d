"""torch._dynamo: what programs set before torch.compile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from weft.compat.torch_.absent import OptimizedModule
from weft.compat.torch_.compiler import (
    allow_in_graph,
    assume_constant_result,
    disable,
    reset,
)

__all__ = [
    "OptimizedModule",
    "assume_constant_result",
    "allow_in_graph",
    "config",
    "disable",
    "is_compiling",
    "mark_dynamic",
    "reset",
]

# Kept, without effect: Weft records what ran, and needs no limits or guards.
config = SimpleNamespace(suppress_errors=False, cache_size_limit=8, verbose=False)


def is_compiling() -> bool:
    return False


def mark_static_address(t: Any, guard: bool = True) -> None:
    """Nothing to mark."""


def mark_dynamic(t: Any, index: Any, **kw: Any) -> None:
    """Nothing to mark: sizes are symbols from the first call."""


def is_compile_supported(device_type: Any) -> bool:
    """torch's inductor is not there; torch.compile is weft.compile."""
    return False


def is_dynamo_supported() -> bool:
    return False

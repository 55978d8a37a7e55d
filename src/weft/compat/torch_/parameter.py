"""torch.nn.parameter: tests on parameters."""

from __future__ import annotations

from typing import Any


def is_lazy(param: Any) -> bool:
    """Whether a parameter waits for its shape."""
    return type(param).__name__.startswith("Uninitialized")

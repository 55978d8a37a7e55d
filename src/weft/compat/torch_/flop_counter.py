"""torch.utils.flop_counter: Weft does not count operations yet, and says so when asked to."""

from __future__ import annotations

import warnings
from typing import Any


class FlopCounterMode:
    """A context that would count; its counts stay 0."""

    def __init__(
        self, mods: Any = None, depth: int = 2, display: bool = True, custom_mapping: Any = None
    ) -> None:
        self.depth = depth

    def __enter__(self) -> FlopCounterMode:
        warnings.warn("FlopCounterMode: Weft does not count operations: 0 is told", stacklevel=2)
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def get_total_flops(self) -> int:
        return 0

    def get_flop_counts(self) -> dict:
        return {}

"""torch.cpu.amp: the old spelling of torch.amp for the CPU."""

from __future__ import annotations

from typing import Any

import weft
from weft import amp


class autocast(amp.autocast):
    """amp.autocast("cpu", ...)."""

    def __init__(
        self, enabled: bool = True, dtype: Any = weft.bfloat16, cache_enabled: bool = True
    ) -> None:
        super().__init__("cpu", dtype, enabled, cache_enabled)

"""torch.utils.hooks."""

from __future__ import annotations

import weft

RemovableHandle = weft.autograd.hooks.RemovableHandle

"""torch.utils.flop_counter: not available."""

from __future__ import annotations

from weft.compat.torch_.absent import Absent


class FlopCounterMode(Absent):
    why = "Weft does not count operations yet"

"""torch.backends: switches among torch's implementations; Weft has one of each."""

from __future__ import annotations

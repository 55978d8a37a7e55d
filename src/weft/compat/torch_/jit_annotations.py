"""torch.jit.annotations: types that a script compiler would read."""

from __future__ import annotations

from typing import Optional

Dict, List, Tuple = dict, list, tuple
BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list

__all__ = ["Dict", "List", "Optional", "Tuple"]

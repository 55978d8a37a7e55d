"""torch._tensor_str: how tensors print, as packages that print their own kinds ask for it."""

from __future__ import annotations

from typing import Any

from weft.core.printing import OPTIONS as PRINT_OPTS
from weft.core.printing import set_printoptions

__all__ = ["PRINT_OPTS", "set_printoptions"]


def _tensor_str(t: Any, indent: int = 0) -> str:
    """The numbers of a tensor, lines after the first moved right by `indent`."""
    text = repr(t.detach()).removeprefix("tensor(")
    numbers = text[: text.rindex("]") + 1] if "]" in text else text.rstrip(")")
    own = len("tensor(")
    return numbers.replace("\n" + " " * own, "\n" + " " * indent)

"""torch._tensor_str: how tensors print, as packages that print their own kinds ask for it."""

from __future__ import annotations

from typing import Any

from weft.core import printing

PRINT_OPTS = printing.OPTIONS
set_printoptions = printing.set_printoptions


def _tensor_str(t: Any, indent: int = 0) -> str:
    """The numbers of a tensor, lines after the first moved right by `indent`."""
    text = repr(t.detach()).removeprefix("tensor(")
    numbers = text[: text.rindex("]") + 1] if "]" in text else text.rstrip(")")
    own = len("tensor(")
    return numbers.replace("\n" + " " * own, "\n" + " " * indent)

"""Launches that read an operand which was packed once, for many runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weft.runtime.native import Launch


@dataclass(frozen=True)
class Packed:
    """A launch whose second operand (its input 1) comes packed, and the launch that packs it.

    A compiled program runs `pack` when it finds that the operand does not change between runs, then
    `launch` in place of the usual one: it has the same inputs and results, the same bits too, but
    reads at input 1 the `size` bytes (64-byte aligned) that `pack` wrote.  `form` says how they
    lie: operands of one layout that are packed to one form share the copy.  `spare`: one that comes
    from memory, not from the caches, is read nearly as fast where it lies; `shorter`, the same of
    fewer bytes, is faster then, and slower from the caches.
    """

    pack: Launch  # out: the packed memory; ins: the operand, as it lies
    size: int
    launch: Launch
    form: tuple[Any, ...]
    spare: bool = False
    shorter: Callable[[], Packed] | None = None

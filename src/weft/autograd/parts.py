"""Cotangents of slices of one tensor, put together in one copy.

A slice's cotangent is zeros with the slice's own cotangent at its place.  Adding up n of them (the
steps of a sequence, the heads of a projection) would make n full tensors; the pieces are kept
until all have come, and joined.
"""

from __future__ import annotations

from typing import Any

from weft.ops.arithmetic import add
from weft.ops.creation import zeros
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.join import Concat
from weft.ops.view import Part


class Parts:
    """Pieces of one cotangent, and what else has come for it."""

    __slots__ = ("pieces", "rest")
    _held = False

    def __init__(self, piece: Part, rest: Any = None) -> None:
        self.pieces = [piece]
        self.rest = rest

    def add(self, c: Any) -> None:
        """One more piece, or a whole cotangent."""
        if c.__class__ is Part:
            self.pieces.append(c)
        else:
            self.rest = c if self.rest is None else add(self.rest, c)

    def whole(self) -> Any:
        """The cotangent."""
        joined = _joined(self.pieces)
        if joined is None:  # pieces that overlap, or lie along different dims
            joined = self.pieces[0]()
            for p in self.pieces[1:]:
                joined = add(joined, p())
        return joined if self.rest is None else add(self.rest, joined)


def _joined(pieces: list[Part]) -> Any:
    """The pieces side by side, zeros between them; None where they do not lie so."""
    first = pieces[0]
    if len(pieces) == 1:
        return first()
    dim, size = first.dim, first.size
    if any(p.dim != dim or p.step != 1 for p in pieces):
        return None
    rows: list[Any] = []
    at = 0
    for p in sorted(pieces, key=lambda p: p.start):
        if p.start < at:
            return None
        if p.start > at:
            rows.append(_zeros(p.g, dim, p.start - at))
        rows.append(p.g)
        at = p.start + shape_of(p.g)[dim]
    if at < size:
        rows.append(_zeros(first.g, dim, size - at))
    return apply(Concat(dim), *rows)


def _zeros(like: Any, dim: int, count: int) -> Any:
    shape = shape_of(like)
    return zeros((*shape[:dim], count, *shape[dim + 1 :]), dtype=dtype_of(like))

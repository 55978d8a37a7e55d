"""What stands for one cotangent: those of a user-written Function, pieces of a tensor's.

A slice's cotangent is zeros with the slice's own cotangent at its place.  Adding up n of them (the
steps of a sequence, the heads of a projection) would make n full tensors; the pieces are kept
until all have come, and joined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.core.handle import owner_of, state
from weft.ops.arithmetic import add
from weft.ops.creation import zeros
from weft.ops.dispatch import apply, dtype_of, shape_of
from weft.ops.join import Concat
from weft.ops.strided import AsStrided
from weft.ops.view import Part
from weft.tensor import Tensor


class Cotangents:
    """One cotangent a result of a Function with several results (None where nothing came)."""

    _held = False

    def __init__(self, values: list) -> None:
        self.values = values

    def merge(self, other: Cotangents) -> Cotangents:
        """Sum of two partial sets."""
        pairs = zip(self.values, other.values, strict=True)
        return Cotangents([a if b is None else b if a is None else a + b for a, b in pairs])


class CustomOp:
    """The tape's view of one Function call: has `vjp`, as ops have."""

    broadcasts = True  # a user's gradient may be of a shape that the operand was expanded to
    nondiff = None
    sees_result = True

    def __init__(self, name: str, vjp: Callable, free: Callable[[], None]) -> None:
        self.name = name
        self.vjp = vjp
        self.free = free  # drop what was saved: the graph is not kept

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


def nothing() -> None:
    """The `free` of a node that saves nothing."""


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
    there = None if state.grad or state.recorder is not None else _side_by_side(rows, dim)
    return apply(Concat(dim), *rows) if there is None else there


def _side_by_side(rows: list[Any], dim: int) -> Any:
    """The rows, each 1 long, as one view of the memory in which they lie evenly (the gradients of
    queries, keys and values); None where they do not.
    """
    if any(r.__class__ is not Tensor for r in rows):
        return None
    first, second = rows[:2]
    base, strides = owner_of(first), first.stride()
    start, step = first.storage_offset(), second.storage_offset() - first.storage_offset()
    if base is first or base.dtype is not first.dtype or step <= 0 or not base.is_contiguous():
        return None  # parts of complex numbers are counted otherwise
    for i, r in enumerate(rows):
        alike = r.shape == first.shape and r.shape[dim] == 1 and r.dtype is first.dtype
        if not alike or owner_of(r) is not base or r.stride() != strides:
            return None
        if r.storage_offset() != start + i * step:
            return None
    shape = (*first.shape[:dim], len(rows), *first.shape[dim + 1 :])
    strides = (*strides[:dim], step, *strides[dim + 1 :])
    y = apply(AsStrided(tuple(shape), strides, start - base.storage_offset()), base)
    y._held = True  # the pieces' memory
    return y


def _zeros(like: Any, dim: int, count: int) -> Any:
    shape = shape_of(like)
    return zeros((*shape[:dim], count, *shape[dim + 1 :]), dtype=dtype_of(like))

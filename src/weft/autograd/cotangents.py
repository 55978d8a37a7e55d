"""What the tape holds for a user-written Function in place of an op and of one cotangent."""

from __future__ import annotations

from collections.abc import Callable


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

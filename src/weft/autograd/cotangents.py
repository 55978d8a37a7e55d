"""Cotangents of a call with several results, gathered into one value on the walk."""

from __future__ import annotations


class Cotangents:
    """One cotangent a result of a Function with several results (None where nothing came)."""

    _base = None

    def __init__(self, values: list) -> None:
        self.values = values

    def merge(self, other: Cotangents) -> Cotangents:
        """Sum of two partial sets."""
        pairs = zip(self.values, other.values, strict=True)
        return Cotangents([a if b is None else b if a is None else a + b for a, b in pairs])

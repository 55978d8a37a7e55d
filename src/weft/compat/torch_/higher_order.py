"""What torch's own helpers for vmap are called; Weft's vmap needs none."""

from __future__ import annotations


class TransformGetItemToIndex:
    """A context without effect: indexing by a batched tensor is an index already."""

    def __enter__(self) -> TransformGetItemToIndex:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

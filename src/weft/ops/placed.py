"""Writes at computed places of a tensor's own memory: the rest of it is not touched."""

from __future__ import annotations

from typing import Any

from weft.ops.dispatch import apply, shape_of
from weft.ops.gather import Scatter, put, scattered
from weft.ops.index import filled, times, written
from weft.ops.write import inplace, write


def index_add_(input: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    """`index_add`, written into the tensor's own memory.  Returns the tensor."""
    source = times(alpha, source)
    return _kept(input, written("index_add", "add", input, dim, index, source, _way(input)))


def index_copy_(input: Any, dim: int, index: Any, source: Any) -> Any:
    """`index_copy`, written into the tensor's own memory.  Returns the tensor."""
    return _kept(input, written("index_copy", "set", input, dim, index, source, _way(input)))


def index_fill_(input: Any, dim: int, index: Any, value: Any) -> Any:
    """`index_fill`, written into the tensor's own memory.  Returns the tensor."""
    return _kept(input, filled(input, dim, index, value, _way(input)))


def scatter_(
    input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None,
    reduce: str | None = None,
) -> Any:  # fmt: skip
    """`scatter`, written into the tensor's own memory.  Returns the tensor."""
    return _kept(input, put(_way(input), input, dim, index, src, value, reduce))


def scatter_add_(input: Any, dim: int, index: Any, src: Any) -> Any:
    """`scatter_add`, written into the tensor's own memory.  Returns the tensor."""
    y = scattered(Scatter, "scatter", "add", input, dim, index, src, _way(input))
    return _kept(input, y)


def _way(input: Any) -> Any:
    """How an op is run on a tensor that it may write to; one without dims has a line for it."""
    return inplace if shape_of(input) else apply


def _kept(input: Any, y: Any) -> Any:
    return y if y is input else write(input, y)

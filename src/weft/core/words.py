"""NumPy's words for torch's arguments, which torch takes too: `x.sum(axis=0, keepdims=True)`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)
WORDS = {"axis": "dim", "keepdims": "keepdim"}


def numpy_words(fn: F) -> F:
    """`fn`, which takes dim and keepdim, also under NumPy's names for them."""

    @functools.wraps(fn)
    def call(*args: Any, **kw: Any) -> Any:
        if not kw:
            return fn(*args)
        for theirs in WORDS.keys() & kw.keys():
            ours = WORDS[theirs]
            if ours in kw:
                raise TypeError(f"{fn.__name__}() got both {ours!r} and its synonym {theirs!r}")
            kw[ours] = kw.pop(theirs)
        return fn(*args, **kw)

    return call  # type: ignore[return-value]

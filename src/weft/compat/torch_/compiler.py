"""torch.compiler: marks for torch's tracer; Weft runs Python, so they change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft import compile

__all__ = ["compile"]


def is_compiling() -> bool:
    return False


is_dynamo_compiling = is_exporting = is_compiling


def disable(fn: Callable | None = None, recursive: bool = True, **kw: Any) -> Any:
    """The function itself; a decorator, with or without arguments."""
    return fn if fn is not None else lambda f: f


def allow_in_graph(fn: Any) -> Any:
    return fn


def assume_constant_result(fn: Any) -> Any:
    return fn


def reset() -> None:
    """Nothing is kept between functions."""


def cudagraph_mark_step_begin() -> None:
    """There are no CUDA graphs."""

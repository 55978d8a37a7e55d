"""torch.fx: marks for a tracer that Weft does not have.  Tracing itself is refused."""

from __future__ import annotations

from typing import Any

import weft


def wrap(fn_or_name: Any) -> Any:
    """The function itself: without a tracer there is nothing to keep it from."""
    return fn_or_name


class _Untraceable:
    def __init__(self, *args: Any, **kw: Any) -> None:
        raise NotImplementedError(
            f"torch.fx.{type(self).__name__}: Weft has no symbolic tracer; weft.compile records "
            "what runs, and weft export writes it"
        )


class Graph(_Untraceable):
    """Not available."""


class Node(_Untraceable):
    """Not available."""


class Proxy(_Untraceable):
    """Not available."""


class Tracer(_Untraceable):
    """Not available."""


class Interpreter(_Untraceable):
    """Not available."""


class GraphModule(_Untraceable, weft.nn.Module):
    """Not available; no module is one."""


def symbolic_trace(*args: Any, **kw: Any) -> Any:
    """NotImplementedError."""
    return Tracer()

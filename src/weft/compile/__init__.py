"""weft.compile: whole programs from eager Python, to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.compile.api import CompiledFunction

__all__ = ["CompiledFunction", "compile"]


def compile(
    model: Callable | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = "weft",
    mode: str | None = None,
    options: dict | None = None,
    disable: bool = False,
    replay: bool = False,
) -> Any:
    """A function (or Module) whose ops run as native programs: same results, to the bit.

    The first call runs eagerly and records; later calls match the recording and run programs.
    Branches, prints and other side effects happen on every call, as written.  The keywords after
    `model` are torch's and accepted for its scripts; none is needed.
    """
    from weft.compile import api  # the compiler is loaded with its first use

    return api.compile(
        model,
        fullgraph=fullgraph,
        dynamic=dynamic,
        backend=backend,
        mode=mode,
        options=options,
        disable=disable,
        replay=replay,
    )


def __getattr__(name: str) -> Any:
    if name == "CompiledFunction":
        from weft.compile import api

        return api.CompiledFunction
    raise AttributeError(f"module 'weft.compile' has no attribute {name!r}")

"""weft.compile: whole programs from eager Python, to the same bits."""

from weft.compile.api import CompiledFunction, compile

__all__ = ["CompiledFunction", "compile"]

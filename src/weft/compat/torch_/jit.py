"""torch.jit: functions and modules stay what they are, and one warning says so."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable
from typing import Any, Final, TypeVar

import weft
from weft.compat.torch_ import answers

__all__ = ["Final"]

T = TypeVar("T")


class ScriptModule(weft.nn.Module):
    """A base class for programs that name it; scripting a module does not make it one."""


class RecursiveScriptModule(ScriptModule):
    """No module is one."""


TopLevelTracedModule = TracedModule = RecursiveScriptModule
ScriptFunction = Callable
_warned: set[str] = set()


def _once(what: str) -> None:
    if not _warned:
        _warned.add(what)
        warnings.warn(
            f"torch.jit.{what} does nothing under Weft: the function or module runs as Python. "
            "torch.compile makes it fast, weft export makes it portable.",
            stacklevel=3,
        )


def script(obj: Any, *args: Any, **kw: Any) -> Any:
    """The object itself."""
    _once("script")
    return obj


def trace(func: Any, example_inputs: Any = None, *args: Any, **kw: Any) -> Any:
    """The function or module itself."""
    _once("trace")
    return func


trace_module = trace


def freeze(mod: Any, *args: Any, **kw: Any) -> Any:
    """The module itself."""
    _once("freeze")
    return mod


def optimize_for_inference(mod: Any, *args: Any, **kw: Any) -> Any:
    """The module itself."""
    _once("optimize_for_inference")
    return mod


# These only mark Python for torch's script compiler: without one there is nothing to say.
def ignore(drop: Any = False, **kw: Any) -> Any:
    """The function itself; a decorator, with or without arguments."""
    return drop if callable(drop) else lambda fn: fn


unused = export = script_if_tracing = interface = answers.same
_overload = _script_if_tracing = _overload_method = answers.same
is_scripting = is_tracing = answers.no


def isinstance(obj: Any, target_type: Any) -> bool:
    """Python's isinstance, which a script would refine."""
    return builtins.isinstance(obj, target_type)


def annotate(the_type: Any, the_value: T) -> T:
    return the_value


save = answers.refusing(
    RuntimeError, "Weft has no TorchScript files: save m.state_dict(), or use weft.io.save"
)
load = answers.refusing(
    RuntimeError, "Weft cannot run TorchScript files: load a state_dict instead"
)

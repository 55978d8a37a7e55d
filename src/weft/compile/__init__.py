"""weft.compile: whole programs from eager Python, to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

if TYPE_CHECKING:
    from weft.compile.api import CompiledFunction

__all__ = ["CompiledFunction", "compile"]

P = ParamSpec("P")
R = TypeVar("R")


class _Ways(TypedDict, total=False):
    fullgraph: bool
    dynamic: bool | None
    backend: Any
    mode: str | None
    options: dict | None
    disable: bool
    replay: bool
    autotune: bool


class _Module(Protocol):
    def _compile_as_module(self, wrap: Callable[[Callable], Callable]) -> Any: ...
    def __call__(self, *args: Any, **kw: Any) -> Any: ...


M = TypeVar("M", bound=_Module)


@overload
def compile(model: M, **ways: Unpack[_Ways]) -> M: ...
@overload
def compile(model: Callable[P, R], **ways: Unpack[_Ways]) -> CompiledFunction[P, R]: ...
@overload
def compile(
    model: None = None, **ways: Unpack[_Ways]
) -> Callable[[Callable[P, R]], CompiledFunction[P, R]]: ...
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
    autotune: bool = False,
) -> Any:
    """A function (or Module) whose ops run as native programs: same results, to the bit.

    The first call runs eagerly and records; later calls match the recording and run programs.
    Branches, prints and other side effects happen on every call, as written.

    `replay`: a call whose Python is known to do nothing new runs its program alone.  `autotune` (or
    torch's mode="max-autotune"): when a program is planned, the sizes of pieces that products and
    convolutions work on are timed, once a machine, and not taken from a model; results stay the
    same to the bit.  `options`, by torch's names: {"cpp.weight_prepack": False} keeps no packed
    copies of weights (less memory, products of some rows are slower; also WEFT_WEIGHT_PREPACK=0),
    {"max_autotune": True} is `autotune`; RuntimeError where one of these is no bool.  Other options
    and the other keywords are torch's and accepted for its scripts.
    """
    from weft.compile import api  # the compiler is loaded with its first use

    asked = {k.replace("-", "_"): v for k, v in (options or {}).items()}
    for name in ("cpp.weight_prepack", "max_autotune"):
        if name in asked and not isinstance(asked[name], bool):
            kind = type(asked[name]).__name__
            raise RuntimeError(f"Unexpected type of attr {name}, got {kind} should be bool")
    tuned = autotune or (mode or "").startswith("max-autotune") or asked.get("max_autotune", False)
    if model is None:
        return partial(compile, options=asked, disable=disable, replay=replay, autotune=tuned)
    if disable:
        return model
    pack = asked.get("cpp.weight_prepack")
    return api.compiled(model, replay=replay, autotune=tuned, pack=pack)


def __getattr__(name: str) -> Any:
    if name == "CompiledFunction":
        from weft.compile import api

        return api.CompiledFunction
    raise AttributeError(f"module 'weft.compile' has no attribute {name!r}")

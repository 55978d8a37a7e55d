"""OptimizedModule: what `weft.compile(module)` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.nn.hooks import Everywhere
from weft.nn.module import Module

_OF_THE_CALL = ("memory", "stats")
_OWN = ("training", "_hooked", "_compiled_call_impl")


class OptimizedModule(Module):
    """The module, called through `weft.compile`: same parameters, same results.

    Attributes are those of the original, `_orig_mod`; `memory()` and `stats` tell of the compiled
    call.  As in torch the names in `state_dict()` begin with `_orig_mod.`: save the original's.
    """

    def __init__(self, module: Module, wrap: Callable[[Callable], Callable]) -> None:
        super().__init__()
        self._modules["_orig_mod"] = module
        object.__setattr__(self, "_compiled", wrap(module.__call__))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooked or Everywhere.active:
            return self._call_hooked(args, kwargs)
        return self._compiled(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    @property
    def training(self) -> bool:
        return self._modules["_orig_mod"].training

    @training.setter
    def training(self, value: bool) -> None:
        module = self.__dict__.get("_modules", {}).get("_orig_mod")
        if module is not None:  # None while Module.__init__ runs
            module.training = value

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name == "_orig_mod":
            return modules[name]
        module = modules["_orig_mod"]
        if name in _OF_THE_CALL and not hasattr(module, name):
            return getattr(self._compiled, name)
        return getattr(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        elif name == "_orig_mod":
            raise AttributeError("weft.compile the other module instead")
        else:
            setattr(self._modules["_orig_mod"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._modules["_orig_mod"], name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._modules["_orig_mod"])})


def _compile_as_module(module: Module, wrap: Callable[[Callable], Callable]) -> OptimizedModule:
    return OptimizedModule(module, wrap)


# weft.compile looks for this method; it is set here since module.py cannot know its subclass.
Module._compile_as_module = _compile_as_module  # type: ignore[attr-defined]

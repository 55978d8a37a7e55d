"""torch.ops: the operators of torch.library; of compiled libraries Weft loads none."""

from __future__ import annotations

from typing import Any

from weft.compat.torch_.library import OPERATORS


class _Namespace:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = OPERATORS.get(f"{self._name}::{name}")
        if found is not None:
            return found
        raise AttributeError(
            f"Weft has no torch.ops.{self._name}.{name}: torch.library defines none, and no "
            "compiled operators are loaded"
        )


def load_library(path: Any) -> None:
    raise OSError(f"Weft loads no library of compiled torch operators: {path}")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Namespace(name)

"""torch.ops: operators of compiled libraries, which Weft cannot load."""

from __future__ import annotations

from typing import Any


class _Namespace:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"Weft has no torch.ops.{self._name}.{name}: it loads no compiled operators"
        )


def load_library(path: Any) -> None:
    raise OSError(f"Weft loads no library of compiled torch operators: {path}")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Namespace(name)

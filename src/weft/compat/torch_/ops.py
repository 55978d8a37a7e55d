"""torch.ops: the operators of torch.library; of compiled libraries Weft loads none."""

from __future__ import annotations

from typing import Any

import weft
from weft.compat.torch_.library import OPERATORS


class _Overload:
    """One overload of an operator of torch's own: the function of that name."""

    def __init__(self, name: str, fn: Any) -> None:
        self._name, self._fn = name, fn
        self._overloads: dict[str, _Overload] = {}

    def __call__(self, *args: Any, **kw: Any) -> Any:
        if self._fn is None:
            raise NotImplementedError(f"Weft has no operator {self._name} to call")
        return self._fn(*args, **kw)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self._name.count(".") > 1:
            raise AttributeError(name)
        full = f"{self._name}.{name}"
        return self._overloads.setdefault(name, _Overload(full, self._fn))

    def __repr__(self) -> str:
        return f"<OpOverload(op='{self._name}')>"


# Operators without a function of their name, that packages use as keys of tables; a call raises.
_KEYS = (
    "alias",
    "index",
    "slice",
    "_to_copy",
    "_pin_memory",
    "_sparse_addmm",
    "_sparse_mm_reduce_impl",
)


class _Aten:
    """torch's own operators by name: keys of tables, and functions where Weft has one so named."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        homes = (weft, weft.nn.functional, weft.Tensor)
        fn = next((f for h in homes if callable(f := getattr(h, name, None))), None)
        if fn is None and name not in _KEYS:
            raise AttributeError(f"Weft has no torch.ops.aten.{name}")
        made = self.__dict__[name] = _Overload(f"aten.{name}", fn)
        return made


aten = _Aten()


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

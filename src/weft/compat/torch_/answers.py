"""What the faces of this folder say of what is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Absent:
    """A class for annotations and isinstance tests: making one raises, nothing is an instance."""

    why, face = "Weft does not have it", "torch"

    def __init__(self, *args: Any, **kw: Any) -> None:
        raise NotImplementedError(f"{self.face}.{type(self).__name__}: {self.why}")


class Idle:
    """A context without effect."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def no(*args: Any, **kw: Any) -> bool:
    """False."""
    return False


def zero(*args: Any, **kw: Any) -> int:
    """0"""
    return 0


def none(*args: Any, **kw: Any) -> None:
    """None."""


def nothing(*args: Any, **kw: Any) -> None:
    """Nothing to do."""


def same(fn: Any) -> Any:
    """The argument itself."""
    return fn


def refusing(error: type[Exception], text: str) -> Callable[..., Any]:
    """A function that raises."""

    def refuse(*args: Any, **kw: Any) -> Any:
        raise error(text)

    refuse.__doc__ = f"{error.__name__}: {text}"
    return refuse

"""The declared types of an op's attributes, and whether values are of them."""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import fields
from typing import Any

from weft.core import dtype as dt
from weft.core.op import Op
from weft.core.types import Dim

LARGEST = 1 << 40  # no size, stride or index of a real program is larger


@functools.cache
def declared(op: type[Op]) -> dict[str, Any]:
    """Attribute -> its declared type, in order."""
    hints = typing.get_type_hints(op)
    return {f.name: hints[f.name] for f in fields(op)}  # every op is a dataclass


def conforms(v: Any, hint: Any) -> bool:
    """Whether a value is of a declared type; a symbolic size is an int, an int a float."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(conforms(v, h) for h in typing.get_args(hint))
    if typing.get_origin(hint) is tuple or hint is tuple:
        inner = typing.get_args(hint) or (int | float | str, ...)
        if not isinstance(v, tuple):
            return False
        if len(inner) == 2 and inner[1] is ...:
            return all(conforms(x, inner[0]) for x in v)
        return len(v) == len(inner) and all(map(conforms, v, inner))
    if hint is int:
        if isinstance(v, Dim):
            return v.name.isidentifier() and 1 <= v.scale <= LARGEST and abs(v.shift) <= LARGEST
        return type(v) is int and abs(v) <= LARGEST
    if hint is float:
        return type(v) is float or (type(v) is int and abs(v) <= LARGEST)
    if hint is Any:
        return v is None or isinstance(v, (Op, int, float, str))
    if hint is type(None) or hint is None:
        return v is None
    return hint in (bool, str, dt.dtype) and type(v) is hint

"""Op from its printed form: `parse_op("Softmax(dim=1)")` is `Softmax(dim=1)`.

Grammar: NAME(attr=value, ...), a value being a Python literal (number, string, bool, None, tuple),
`inf`, `nan`, a dtype's short name (f32, i64), or an op.  The text is data: nothing is executed.
"""

from __future__ import annotations

import ast
import functools
import math
import types
import typing
from dataclasses import fields
from typing import Any

from weft.core import dtype as dt
from weft.core.dtype import BY_NAME, BY_SHORT
from weft.core.op import REGISTRY, Op
from weft.core.types import Dim

_LONGEST = 100_000  # characters; past it a text is no op's
_NAMES = {"inf": math.inf, "nan": math.nan, **BY_SHORT}


def parse_op(text: str) -> Op:
    """The op that prints as `text`.  ValueError: bad grammar, an unknown op or attribute."""
    if len(text) > _LONGEST:
        raise ValueError(f"op text of {len(text)} characters: more than {_LONGEST}")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError, ValueError) as e:
        raise ValueError(f"not an op: {text[:80]!r} ({e.__class__.__name__})") from None
    return _op(call, text)


def _op(call: ast.expr, text: str) -> Op:
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
        raise ValueError(f"not an op, which reads Name(attribute=value, ...): {text[:80]!r}")
    cls = REGISTRY.get(call.func.id)
    if cls is None:
        raise ValueError(f"unknown op {call.func.id!r}")
    known = {f.name for f in fields(cls)}  # Op makes each class a dataclass
    attrs: dict[str, Any] = {}
    for k in call.keywords:
        if k.arg is None or k.arg not in known:
            raise ValueError(f"{cls.name} has no attribute {k.arg!r}: it has {sorted(known)}")
        value = attrs[k.arg] = _value(k.value, text)
        if not conforms(value, declared(cls)[k.arg]):  # before an op is made: ops are interned
            raise ValueError(f"{cls.name}: {k.arg}={str(value)[:60]} is not {declared(cls)[k.arg]}")
    return cls(**{name: attrs[name] for name in (f.name for f in fields(cls)) if name in attrs})


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


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Constant) and not isinstance(node.value, (bytes, complex)):
        return node.value
    if isinstance(node, ast.Tuple):
        return tuple(_value(e, text) for e in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, text)
        if isinstance(value, (int, float)):
            return -value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if (  # a dtype inside a tuple prints as weft.float32
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "weft"
        and node.attr in BY_NAME
    ):
        return BY_NAME[node.attr]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Dim":
        return _dim(node, text)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REGISTRY:
        return _op(node, text)  # an op whose attribute is an op: Slope(fn=Gelu(), order=1)
    raise ValueError(f"not a value in an op's text: {ast.unparse(node)[:60]} in {text[:80]!r}")


def _dim(node: ast.Call, text: str) -> Dim:
    got = {k.arg: _value(k.value, text) for k in node.keywords}
    name, scale, shift = got.get("name"), got.get("scale", 1), got.get("shift", 0)
    whole = isinstance(scale, int) and isinstance(shift, int)
    if node.args or not isinstance(name, str) or not whole or set(got) - {"name", "scale", "shift"}:
        raise ValueError(f"not a dim: {ast.unparse(node)[:60]}")
    return Dim(name, scale, shift)

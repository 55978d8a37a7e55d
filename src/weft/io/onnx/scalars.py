"""An elementwise op as ONNX nodes: its scalar expression, row by row.

So every elementwise op has an ONNX form without a rule of its own.  Where ONNX lacks a row it is
composed so that it stays accurate (expm1 and log1p near 0); rows that cannot be are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.onnx_rules import Emitter, NoRule

_DIRECT = {
    "neg": "Neg", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil",
    "round": "Round", "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "tanh": "Tanh", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh",
    "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf",
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "min": "Min",
    "max": "Max", "eq": "Equal",
}  # fmt: skip
_ORDER = {"lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
_BITS = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}


def emit(e: Emitter, root: S.Expr, ins: Sequence[str]) -> str:
    """The expression on operands `ins`.  NoRule names a row that ONNX lacks."""
    done: dict[int, str] = {}
    for n in S.postorder((root,)):
        xs = [done[id(a)] for a in n.args]
        if isinstance(n, S.Const):
            y = e.const(n.value, n.dtype.np)
        elif isinstance(n, S.Arg):
            y = ins[n.index]
        elif isinstance(n, S.Select):
            y = e.node("Where", *xs)
        elif isinstance(n, S.Cast):
            y = e.node("Cast", xs[0], to=n.dtype.np)
        elif isinstance(n, S.Scalar):
            y = _row(e, n, xs)
        else:
            raise NoRule(f"{n!r} has no ONNX form")
        done[id(n)] = y
    return done[id(root)]


def _row(e: Emitter, n: S.Scalar, xs: list[str]) -> str:
    d = n.operands[0].dtype
    if n.name in _DIRECT:
        return e.node(_DIRECT[n.name], *xs)
    if n.name == "ne":
        return e.node("Not", e.node("Equal", *xs))
    if n.name in _ORDER:
        if d is dt.bool:
            xs = [e.node("Cast", x, to=np.dtype(np.int32)) for x in xs]
        return e.node(_ORDER[n.name], *xs)
    if n.name in _BITS:
        return e.node(("" if d is dt.bool else "Bitwise") + _BITS[n.name], *xs)
    made = _MADE.get(n.name)
    if made is None:
        raise NoRule(f"the scalar function {n.name!r} has no ONNX form")
    return made(e, d, *xs)


def _one(e: Emitter, d: dt.dtype, v: float) -> str:
    return e.const(v, d.np)


def _trunc(e: Emitter, d: dt.dtype, x: str) -> str:
    low = e.node("Less", x, _one(e, d, 0))
    return e.node("Where", low, e.node("Ceil", x), e.node("Floor", x))


def _expm1(e: Emitter, d: dt.dtype, x: str) -> str:
    """(u - 1) x / log u, u = exp x, where |x| < 1: there the error of u cancels (Kahan)."""
    u, one = e.node("Exp", x), _one(e, d, 1)
    less = e.node("Sub", u, one)
    near = e.node("Mul", less, e.node("Div", x, e.node("Log", u)))
    near = e.node("Where", e.node("Equal", u, one), x, near)
    return e.node("Where", e.node("Less", e.node("Abs", x), one), near, less)


def _log1p(e: Emitter, d: dt.dtype, x: str) -> str:
    """x log u / (u - 1), u = 1 + x, where |x| < 1: there the error of u cancels (Kahan)."""
    one = _one(e, d, 1)
    u = e.node("Add", x, one)
    far, less = e.node("Log", u), e.node("Sub", u, one)
    near = e.node("Mul", far, e.node("Div", x, less))
    near = e.node("Where", e.node("Equal", u, one), x, near)
    small = e.node("Less", e.node("Abs", x), one)
    return e.node("Where", small, near, far)


def _remainder(e: Emitter, d: dt.dtype, x: str, y: str) -> str:
    """fmod, moved by y where its sign is not y's; of ints ONNX's Mod itself."""
    if not d.is_floating_point:
        return e.node("Mod", x, y)
    r, zero = e.node("Mod", x, y, fmod=1), _one(e, d, 0)
    other = e.node("Xor", e.node("Less", r, zero), e.node("Less", y, zero))
    wrong = e.node("And", other, e.node("Not", e.node("Equal", r, zero)))
    return e.node("Where", wrong, e.node("Add", r, y), r)


def _floor_divide(e: Emitter, d: dt.dtype, x: str, y: str) -> str:
    q = e.node("Div", e.node("Sub", x, _remainder(e, d, x, y)), y)
    return e.node("Round", q) if d.is_floating_point else q


def _atan2(e: Emitter, d: dt.dtype, y: str, x: str) -> str:
    """atan(y / x), half a turn further left of 0; the signs of zeros are not told apart."""
    zero = _one(e, d, 0)
    base = e.node("Atan", e.node("Div", y, x))
    turn = e.node("Where", e.node("Less", y, zero), _one(e, d, -math.pi), _one(e, d, math.pi))
    angle = e.node("Where", e.node("Less", x, zero), e.node("Add", base, turn), base)
    none = e.node("And", e.node("Equal", x, zero), e.node("Equal", y, zero))
    return e.node("Where", none, zero, angle)


_MADE: dict[str, Callable[..., Any]] = {
    "trunc": _trunc,
    "expm1": _expm1,
    "log1p": _log1p,
    "rem": _remainder,
    "floordiv": _floor_divide,
    "atan2": _atan2,
    "rsqrt": lambda e, d, x: e.node("Reciprocal", e.node("Sqrt", x)),
    "exp2": lambda e, d, x: e.node("Pow", _one(e, d, 2), x),
    "log2": lambda e, d, x: e.node("Mul", e.node("Log", x), _one(e, d, 1 / math.log(2))),
    "log10": lambda e, d, x: e.node("Mul", e.node("Log", x), _one(e, d, 1 / math.log(10))),
    "erfc": lambda e, d, x: e.node("Sub", _one(e, d, 1), e.node("Erf", x)),
    "fmod": lambda e, d, x, y: e.node("Mod", x, y, fmod=1),
    "fma": lambda e, d, a, b, c: e.node("Add", e.node("Mul", a, b), c),
}

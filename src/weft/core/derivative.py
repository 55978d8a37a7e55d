"""The derivative of a scalar expression, as a scalar expression.

Gradients of pointwise functions of any order are then one kernel each.  Comparisons, sign and
rounding have derivative 0; at a kink the derivative is that of the branch taken there.
"""

from __future__ import annotations

import math

from weft.core import scalar as S


def derivative(e: S.Expr, x: S.Expr) -> S.Expr:
    """d e / d x for a leaf x (Arg or Param); NotImplementedError for rows without a rule."""
    slope: dict[int, S.Expr] = {}
    for n in S.postorder((e,)):
        slope[id(n)] = _rule(n, x, slope)
    return slope[id(e)]


def _rule(n: S.Expr, x: S.Expr, slope: dict[int, S.Expr]) -> S.Expr:
    if n is x:
        return S.const(1.0, n.dtype)
    ds = [slope[id(a)] for a in n.args]
    if isinstance(n, S.Select):
        return S.where(n.cond, ds[1], ds[2])
    if isinstance(n, S.Cast):
        return S.cast(ds[0], n.dtype) if n.dtype.is_floating_point else _zero(n)
    if not isinstance(n, S.Scalar) or not n.dtype.is_floating_point or all(map(_is_zero, ds)):
        return _zero(n)
    return _row(n, ds)


def _zero(n: S.Expr) -> S.Expr:
    return S.const(0.0, n.dtype) if n.dtype.is_floating_point else S.const(0, n.dtype)


def _is_zero(e: S.Expr) -> bool:
    return isinstance(e, S.Const) and e.value == 0


def _is_one(e: S.Expr) -> bool:
    return isinstance(e, S.Const) and e.value == 1


def _mul(a: S.Expr, b: S.Expr) -> S.Expr:
    if _is_zero(a) or _is_one(b):
        return a
    return b if _is_zero(b) or _is_one(a) else S.mul(a, b)


def _add(a: S.Expr, b: S.Expr) -> S.Expr:
    if _is_zero(a):
        return b
    return a if _is_zero(b) else S.add(a, b)


def _row(n: S.Scalar, ds: list[S.Expr]) -> S.Expr:
    a = n.operands[0]
    b = n.operands[1] if len(n.operands) > 1 else a
    da, db = ds[0], ds[-1]
    match n.name:
        case "add":
            return _add(da, db)
        case "sub":
            return da if _is_zero(db) else _add(da, S.neg(db))
        case "mul":
            return _add(_mul(da, b), _mul(a, db))
        case "div":  # (a' - (a/b) b') / b
            top = da if _is_zero(db) else _add(da, S.neg(_mul(n, db)))
            return S.div(top, b)
        case "neg":
            return S.neg(da)
        case "abs":
            return _mul(S.sign(a), da)
        case "exp":
            return _mul(n, da)
        case "expm1":
            return _mul(S.add(n, 1.0), da)
        case "log":
            return S.div(da, a)
        case "log1p":
            return S.div(da, S.add(a, 1.0))
        case "tanh":
            return _mul(S.sub(1.0, S.mul(n, n)), da)
        case "erf":
            return _mul(S.mul(2 / math.sqrt(math.pi), S.exp(S.neg(S.mul(a, a)))), da)
        case "area" | "lift":  # the density, and twice it less x^2 times it
            density = S.mul(1 / math.sqrt(2 * math.pi), S.exp(S.mul(S.mul(a, a), -0.5)))
            bend = S.mul(density, S.sub(2.0, S.mul(a, a)))
            return _mul(density if n.name == "area" else bend, da)
        case "sqrt":
            return S.div(_mul(S.const(0.5, n.dtype), da), n)
        case "max":
            return S.where(S.ge(a, b), da, db)
        case "min":
            return S.where(S.le(a, b), da, db)
        case "sign" | "floor" | "ceil" | "trunc" | "round":
            return _zero(n)
    raise NotImplementedError(f"no derivative written for the scalar {n.name}")

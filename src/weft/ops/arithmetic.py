"""Arithmetic of two operands: add sub mul div pow, remainders, minimum and maximum; of three:
addcmul addcdiv lerp, the steps of optimizers.

Where torch's kernels round once (a fused multiply-add), those of three do too: optimizer steps then
agree with torch's bit for bit in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.handle import Handle
from weft.core.op import Onnx, sample
from weft.core.types import unknown
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import NUMBERS, apply, dtype_of
from weft.ops.kinds import Elementwise
from weft.ops.promote import (
    HALVES,
    apply_widened,
    as_number,
    number_of,
    only_tensors,
    operands,
    unary,
)

__all__ = [
    "add", "addcdiv", "addcmul", "arctan2", "atan2", "div", "divide", "floor_divide", "fmod",
    "lerp", "maximum", "minimum", "mul", "multiply", "neg", "negative", "pow", "remainder", "sub",
    "subtract", "true_divide",
]  # fmt: skip

PAIRS = (sample((3, 4), (3, 4)), sample((2, 3), (1, 3)), sample((2, 3), ()), sample((0, 3), (3,)))
BESIDE_NUMBER = (*PAIRS, sample((3, 4), 2.5))


class Add(Elementwise):
    """y = a + b"""

    host = staticmethod(np.add)

    def scalar(self, a: S.Expr, b: S.Expr) -> S.Expr:
        return S.or_(a, b) if a.dtype is dt.bool else S.add(a, b)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return g, g

    onnx = Onnx("Add", 14)
    samples = (*BESIDE_NUMBER, sample((3, 4), (4,), of="complex64"))


class AddScaled(Elementwise):
    """y = a + alpha b, floats rounded once, as torch's kernel does"""

    def scalar(self, a: S.Expr, b: S.Expr, alpha: S.Expr) -> S.Expr:
        whole = a.dtype.category != dt.FLOAT  # a complex product rounds twice as it is
        return S.add(a, S.mul(b, alpha)) if whole else S.fma(b, alpha, a)

    def vjp(self, g: Any, y: Any, a: Any, b: Any, alpha: Any) -> tuple:
        return g, lambda: g * alpha, None

    samples = (
        sample((3, 4), (3, 4), 0.5),
        sample((2, 3), (1, 3), -1.5),
        sample((0, 3), (3,), 2.0),
        sample((3, 4), (4,), 0.5, of="complex64"),
    )


class Sub(Elementwise):
    """y = a - b"""

    scalar = staticmethod(S.sub)
    host = staticmethod(np.subtract)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return g, lambda: -g

    onnx = Onnx("Sub", 14)
    samples = (*BESIDE_NUMBER, sample((3, 4), (4,), of="complex64"))


class Mul(Elementwise):
    """y = a * b"""

    host = staticmethod(np.multiply)

    def scalar(self, a: S.Expr, b: S.Expr) -> S.Expr:
        return S.and_(a, b) if a.dtype is dt.bool else S.mul(a, b)

    saved_for = ((1,), (0,))

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return lambda: g * b, lambda: g * a

    onnx = Onnx("Mul", 14)
    samples = (*BESIDE_NUMBER, sample((3, 4), (4,), of="complex64"))


class Div(Elementwise):
    """y = a / b"""

    scalar = staticmethod(S.div)
    host = staticmethod(np.true_divide)

    saved_for = ((1,), (0, 1))

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        # d(a/b) = da/b - (a/b) db/b, with the quotient formed anew: keeps a and b, not y
        return lambda: g / b, lambda: -(g * (a / b) / b)

    onnx = Onnx("Div", 14)
    samples = (
        sample((3, 4), (3, 4), low=0.5),
        sample((2, 3), (1, 3), low=0.5),
        sample((3,), 2.5),
        sample((3, 4), (4,), of="complex64", low=0.5),
    )


class Neg(Elementwise):
    """y = -x"""

    scalar = staticmethod(S.neg)
    host = staticmethod(np.negative)

    def vjp(self, g: Any, y: Any, x: Any) -> tuple:
        return (apply(_NEG, g),)

    onnx = Onnx("Neg", 13)
    samples = (
        sample((3, 4)),
        sample((3, 4), of="complex64"),
    )


class Pow(Elementwise):
    """y = a ** b"""

    scalar = staticmethod(S.pow)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        # d a**b = b a**(b-1) da + a**b log(a) db; where a == 0 the second term is 0 for b >= 0
        def base() -> Any:
            if b.__class__ in NUMBERS:
                return g * (a ** (b - 1) * b) if b != 0 else g.new_zeros(g.shape)
            return g * (b * a ** (b - 1)).where(b != 0, 0.0)

        def exponent() -> Any:
            x = b.new_full((), a) if a.__class__ in NUMBERS else a
            at_zero = (x == 0) & (b.real >= 0)
            return g * (y * x.log()).where(~at_zero, 0.0)

        return base, exponent

    onnx = Onnx("Pow", 15)
    samples = (
        sample((3, 4), (3, 4), low=0.5),
        sample((2, 3), 2.0),
        sample((2, 3), 3, of="int64"),
        sample((3,), -1.5, low=0.5),
        sample((3, 4), (4,), of="complex64", low=0.5),
    )


class Minimum(Elementwise):
    """y = min(a, b); NaN if either is"""

    scalar = staticmethod(S.min)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return _picked(g, a > b, a < b, a == b)

    onnx = Onnx("Min", 13)
    samples = PAIRS


class Maximum(Elementwise):
    """y = max(a, b); NaN if either is"""

    scalar = staticmethod(S.max)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return _picked(g, a < b, a > b, a == b)

    onnx = Onnx("Max", 13)
    samples = PAIRS


def _picked(g: Any, second: Any, first: Any, tie: Any) -> tuple:
    """Cotangents of a choice between two: none to what is not chosen, halves on a tie, all to both
    beside NaN (as torch).
    """
    half = g * 0.5
    return (
        lambda: half.where(tie, g.where(~second, 0.0)),
        lambda: half.where(tie, g.where(~first, 0.0)),
    )


class Remainder(Elementwise):
    """y = a - b * floor(a / b): the sign is b's (Python's %)"""

    scalar = staticmethod(S.rem)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return g, lambda: -(g * (a // b))

    samples = (sample((3, 4), (3, 4), low=0.5), sample((5,), 3, of="int64", low=-9, high=9))


class Fmod(Elementwise):
    """y = a - b * trunc(a / b): the sign is a's (C's %)"""

    scalar = staticmethod(S.fmod)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return g, lambda: -(g * (a / b).trunc())

    samples = (sample((3, 4), (3, 4), low=0.5), sample((5,), 3, of="int64", low=-9, high=9))


class FloorDivide(Elementwise):
    """y = floor(a / b)"""

    scalar = staticmethod(S.floordiv)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        return lambda: g.new_zeros(g.shape), lambda: g.new_zeros(g.shape)

    samples = (sample((3, 4), (3, 4), low=0.5), sample((5,), 3, of="int64", low=-9, high=9))


class Atan2(Elementwise):
    """y = the angle of the point (b, a)"""

    scalar = staticmethod(S.atan2)

    def vjp(self, g: Any, y: Any, a: Any, b: Any) -> tuple:
        def over_square(x: Any) -> Any:  # 0 at the origin, as torch
            square = a * a + b * b
            return g * x / square.where(square != 0, 1.0)

        return lambda: over_square(b), lambda: -over_square(a)

    samples = (sample((3, 4), (3, 4)),)


def _binary(op: Any, name: str, a: Any, b: Any, *, floating: bool = False) -> Any:
    if (
        a.__class__ is b.__class__
        and a._ghost is None
        and b._ghost is None
        and a._a.dtype is b._a.dtype
        and (not floating or a._a.dtype.kind in "fc")
    ):
        return apply(op, a, b)
    return apply(op, *operands(name, a, b, floating=floating))


def _half_beside(a: Any, b: Any) -> dt.dtype | None:
    """The half dtype of a tensor beside a number, or before a 0-dim float of more digits; or None.

    torch takes products and quotients of these in float32: the number is not rounded to a half.
    """
    if a.__class__ is b.__class__ and dtype_of(a) is dtype_of(b):
        return None
    if a.__class__ is complex or b.__class__ is complex:
        return None
    if not isinstance(a, Handle):
        return dtype_of(b) if isinstance(b, Handle) and dtype_of(b) in HALVES else None
    d = dtype_of(a)
    if d not in HALVES or not isinstance(b, Handle):
        return d if d in HALVES else None
    wider = dtype_of(b).category == dt.FLOAT and dtype_of(b) not in HALVES
    return d if wider and a.ndim and not b.ndim else None


def _in_float32(function: Any, d: dt.dtype, *xs: Any) -> Any:
    """function of the operands in float32, rounded once, to d."""
    return cast(function(*(cast(x, dt.float32) if isinstance(x, Handle) else x for x in xs)), d)


def add(input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    """y = input + alpha * other, broadcast and promoted; bool + bool is `or`."""
    if alpha.__class__ is int and alpha == 1:
        y = _binary(_ADD, "add", input, other)
    else:
        y = _add_scaled("add", input, other, alpha)
    return y if out is None else out.copy_result(y)


def _add_scaled(name: str, a: Any, b: Any, alpha: Any) -> Any:
    a, b = operands(name, a, b)
    d = dtype_of(a if isinstance(a, Handle) else b)
    if alpha.__class__ is bool and d is not dt.bool:
        raise RuntimeError("Boolean alpha only supported for Boolean results.")
    if d is dt.bool:  # bool(alpha) is a factor, the sum is `or`
        return apply(_ADD, a, apply(_MUL, b, bool(alpha)))
    if alpha.__class__ is complex:
        return add(a, mul(b, alpha))
    if alpha.__class__ in NUMBERS:
        if d.category < dt.FLOAT and alpha.__class__ is float:
            raise RuntimeError(
                "For integral input tensors, argument alpha must not be a floating point number."
            )
        alpha = as_number(alpha, d)
    else:
        alpha = cast(alpha, d) if isinstance(alpha, Handle) else number_of(alpha, name, "alpha")
    return apply(_ADD_SCALED, a, b, alpha)


def need_numbers(*operands: Any) -> None:
    """RuntimeError for a bool, which nothing is subtracted from."""
    if any(
        x.__class__ is bool or (isinstance(x, Handle) and dtype_of(x) is dt.bool) for x in operands
    ):
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are "
            "trying to invert a mask, use the `~` or `logical_not()` operator instead."
        )


def sub(input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    """y = input - alpha * other; RuntimeError on two bools (use ^ or logical_xor)."""
    need_numbers(input, other)
    if alpha.__class__ is int and alpha == 1:
        y = _binary(_SUB, "sub", input, other)
    else:
        y = _add_scaled("sub", input, other, -alpha)
    return y if out is None else out.copy_result(y)


def mul(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input * other, broadcast and promoted; bool * bool is `and`."""
    d = _half_beside(input, other)
    y = _binary(_MUL, "mul", input, other) if d is None else _in_float32(mul, d, input, other)
    return y if out is None else out.copy_result(y)


def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Any = None) -> Any:
    """y = input / other; integers divide as floats.  rounding_mode: None, "trunc" or "floor"."""
    d = _half_beside(input, other)
    if d is not None:
        if isinstance(input, Handle):
            y = _in_float32(lambda a, b: div(a, b, rounding_mode=rounding_mode), d, input, other)
        elif rounding_mode is None:  # torch: the reciprocal, a half, times the number
            y = mul(div(full((), 1.0, dtype=d), other), input)
        else:
            a, b = operands("div", input, other)
            a = a if isinstance(a, Handle) else full((), a, dtype=d)
            y = div(a, b, rounding_mode=rounding_mode)
    elif rounding_mode is None:
        y = _binary(_DIV, "div", input, other, floating=True)
    elif rounding_mode == "floor":
        y = floor_divide(input, other)
    elif rounding_mode == "trunc":
        y = trunc_divide(input, other)
    else:
        words = f"to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'"
        said = f"div expected rounding_mode {words}"
        raise unknown("div", "rounding_mode", rounding_mode, said)
    return y if out is None else out.copy_result(y)


def trunc_divide(a: Any, b: Any) -> Any:
    """y = trunc(a / b), exact for integers."""
    a, b = operands("div", a, b)
    d = dtype_of(a if isinstance(a, Handle) else b)
    if d.category == dt.FLOAT:
        return div(a, b).trunc()
    q, r = floor_divide(a, b), remainder(a, b)
    opposite = (a < 0) != (b < 0)  # pyright: ignore[reportOperatorIssue]
    return q + cast((r != 0) & opposite, d)


def floor_divide(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = floor(input / other); ZeroDivisionError becomes RuntimeError for integers."""
    d = _half_beside(input, other)
    if d is not None and isinstance(input, Handle):
        y = _in_float32(floor_divide, d, input, other)
        return y if out is None else out.copy_result(y)
    a, b = operands("floor_divide", input, other)
    _refuse_bool(a, b, "floor_divide")
    _refuse_zero(b, "floor_divide")
    y = apply(_FLOORDIV, a, b)
    return y if out is None else out.copy_result(y)


def remainder(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input - other * floor(input / other): the sign is `other`'s."""
    a, b = operands("remainder", input, other)
    _refuse_bool(a, b, "remainder")
    _refuse_zero(b, "remainder")
    y = apply(_REM, a, b)
    return y if out is None else out.copy_result(y)


def fmod(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input - other * trunc(input / other): the sign is `input`'s."""
    only_tensors("fmod", input)
    a, b = operands("fmod", input, other)
    _refuse_bool(a, b, "fmod")
    _refuse_zero(b, "fmod")
    y = apply(_FMOD, a, b)
    return y if out is None else out.copy_result(y)


def _refuse_bool(a: Any, b: Any, name: str) -> None:
    if dtype_of(a if isinstance(a, Handle) else b) is dt.bool:
        raise dt.bool.lacks(f"{name}_cpu")


def _refuse_zero(b: Any, name: str) -> None:
    if b.__class__ is int and b == 0:
        raise RuntimeError(f"{name}: ZeroDivisionError")


def pow(input: Any, exponent: Any, *, out: Any = None) -> Any:
    """y = input ** exponent; integers to a negative power raise RuntimeError."""
    if (
        exponent.__class__ is int
        and exponent == 2
        and isinstance(input, Handle)
        and dtype_of(input) is not dt.bool
    ):
        y = mul(input, input)
        return y if out is None else out.copy_result(y)
    a, b = operands("pow", input, exponent)
    if b.__class__ is bool:  # a bool to the power of 1 is itself, of 0 true
        y = a.clone() if b else full(a.shape, True)
        return y if out is None else out.copy_result(y)
    _refuse_bool(a, b, "pow")
    if b.__class__ is int and b < 0 and dtype_of(a).category < dt.FLOAT:
        raise RuntimeError("Integers to negative integer powers are not allowed.")
    root = b.__class__ is float and (b == 0.5 or b == -0.5) and dtype_of(a).category == dt.FLOAT
    y = (a.sqrt() if b > 0 else a.rsqrt()) if root else apply(_POW, a, b)
    return y if out is None else out.copy_result(y)


def _both_bool(a: Any, b: Any) -> bool:
    return all(isinstance(x, Handle) and dtype_of(x) is dt.bool for x in (a, b))


def _need_ordered(name: str, *xs: Any) -> None:
    if any(isinstance(x, Handle) and dtype_of(x).is_complex for x in xs):
        raise RuntimeError(f"{name} not implemented for complex tensors.")


def minimum(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = min(input, other) elementwise; NaN wins; a tie shares the gradient."""
    only_tensors("minimum", input, other)
    if out is None and (y := _MIN.quick(input, other)) is not None:
        return y
    both = _both_bool(input, other)
    _need_ordered("minimum", input, other)
    y = (input & other) if both else _binary(_MIN, "minimum", input, other)
    return y if out is None else out.copy_result(y)


def maximum(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = max(input, other) elementwise; NaN wins; a tie shares the gradient."""
    only_tensors("maximum", input, other)
    if out is None and (y := _MAX.quick(input, other)) is not None:
        return y
    both = _both_bool(input, other)
    _need_ordered("maximum", input, other)
    y = (input | other) if both else _binary(_MAX, "maximum", input, other)
    return y if out is None else out.copy_result(y)


def atan2(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = the angle, in radians, of the point (other, input)."""
    only_tensors("atan2", input, other)
    y = _binary(_ATAN2, "atan2", input, other, floating=True)
    return y if out is None else out.copy_result(y)


def neg(input: Any, *, out: Any = None) -> Any:
    """y = -input; RuntimeError on bool."""
    if out is None and isinstance(input, Handle) and (y := _NEG.quick(input)) is not None:
        return y
    if isinstance(input, Handle) and dtype_of(input) is dt.bool:
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying "
            "to invert a mask, use the `~` or `logical_not()` operator instead."
        )
    y = unary(_NEG, input, "neg", floating=False)
    return y if out is None else out.copy_result(y)


_ADD, _SUB, _MUL, _DIV, _NEG, _POW = Add(), Sub(), Mul(), Div(), Neg(), Pow()
_MIN, _MAX, _REM, _FMOD = Minimum(), Maximum(), Remainder(), Fmod()
_FLOORDIV, _ATAN2, _ADD_SCALED = FloorDivide(), Atan2(), AddScaled()
multiply, subtract, divide, true_divide, negative = mul, sub, div, div, neg
arctan2 = atan2


class Addcmul(Elementwise):
    """y = a + (value * b) * c, the last product and the sum rounded once"""

    def scalar(self, a: S.Expr, b: S.Expr, c: S.Expr, value: S.Expr) -> S.Expr:
        if a.dtype.category != dt.FLOAT:
            return S.add(a, S.mul(S.mul(value, b), c))
        return S.fma(S.mul(value, b), c, a)

    def vjp(self, g: Any, y: Any, a: Any, b: Any, c: Any, value: Any) -> tuple:
        return g, lambda: g * c * value, lambda: g * b * value, None

    samples = (
        sample((3, 4), (3, 4), (3, 4), 0.5),
        sample((2, 3), (3,), (2, 1), -1.5),
        sample((0, 3), (3,), (3,), 1.0),
        sample((3, 4), (3, 4), (3, 4), 0.5, of="complex64"),
    )


class Addcdiv(Elementwise):
    """y = a + (value * b) / c"""

    def scalar(self, a: S.Expr, b: S.Expr, c: S.Expr, value: S.Expr) -> S.Expr:
        return S.add(a, S.div(S.mul(value, b), c))

    def vjp(self, g: Any, y: Any, a: Any, b: Any, c: Any, value: Any) -> tuple:
        # d(v b / c) = v db / c - (v b / c) dc / c
        return g, lambda: g * value / c, lambda: -(g * (b * value / c) / c), None

    samples = (
        sample((3, 4), (3, 4), (3, 4), 0.5, low=0.5),
        sample((2, 3), (3,), (2, 1), -1.5, low=0.5),
        sample((0, 3), (3,), (3,), 1.0),
        sample((3, 4), (3, 4), (3, 4), 0.5, of="complex64", low=0.5),
    )


class Lerp(Elementwise):
    """y = a + w (b - a) where |w| < 1/2, else b - (1 - w) (b - a): exact at both ends"""

    def scalar(self, a: S.Expr, b: S.Expr, w: S.Expr) -> S.Expr:
        d = S.sub(b, a)
        one, half = S.const(1.0, w.dtype), S.const(0.5, w.dtype)
        near_b = S.fma(S.neg(d), S.sub(one, w), b)
        return S.where(S.lt(S.abs(w), half), S.fma(w, d, a), near_b)

    def vjp(self, g: Any, y: Any, a: Any, b: Any, w: Any) -> tuple:
        return lambda: g * (1 - w), lambda: g * w, lambda: g * (b - a)

    samples = (
        sample((3, 4), (3, 4), 0.1),
        sample((3, 4), (3, 4), 0.9),
        sample((2, 3), (3,), (2, 1)),
        sample((0, 3), (3,), 0.5),
    )


def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1, out: Any = None) -> Any:
    """y = input + value * tensor1 * tensor2, broadcast and promoted."""
    if out is None and (y := _ADDCMUL.quick(input, tensor1, tensor2, value)) is not None:
        return y
    y = apply_widened(_ADDCMUL, operands("addcmul", input, tensor1, tensor2, value))
    return y if out is None else out.copy_result(y)


def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1, out: Any = None) -> Any:
    """y = input + value * tensor1 / tensor2, broadcast; RuntimeError on integers."""
    if out is None and (y := _ADDCDIV.quick(input, tensor1, tensor2, value)) is not None:
        return y
    if dtype_of(tensor1).category < dt.FLOAT and dtype_of(tensor2).category < dt.FLOAT:
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported, and in a future release "
            "addcdiv will perform a true division of tensor1 and tensor2."
        )
    y = apply_widened(_ADDCDIV, operands("addcdiv", input, tensor1, tensor2, value))
    return y if out is None else out.copy_result(y)


def lerp(input: Any, end: Any, weight: Any, *, out: Any = None) -> Any:
    """y = input + weight * (end - input); the weight is a number or a tensor."""
    if out is None and (y := _LERP.quick(input, end, weight)) is not None:
        return y
    if dtype_of(input).is_complex:
        y = input + weight * (end - input)
        return y if out is None else out.copy_result(y)
    if not input.is_floating_point():
        raise RuntimeError(f'"lerp_kernel_scalar" not implemented for {input.dtype}')
    y = apply_widened(_LERP, operands("lerp", input, end, weight))
    return y if out is None else out.copy_result(y)


_ADDCMUL, _ADDCDIV, _LERP = Addcmul(), Addcdiv(), Lerp()

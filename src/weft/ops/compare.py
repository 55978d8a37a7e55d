"""Comparisons, logic, bits, and the choice between two values."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core import scalar as S
from weft.core.handle import Handle, state
from weft.core.op import Onnx, sample
from weft.ops.cast import cast
from weft.ops.creation import full
from weft.ops.dispatch import NUMBERS, apply, dtype_of, number_array, wrap
from weft.ops.kinds import Elementwise
from weft.ops.promote import as_number, only_tensors, operands, result_type

__all__ = [
    "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "eq", "ge", "greater", "greater_equal", "gt", "le", "less", "less_equal",
    "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "ne", "not_equal", "where",
]  # fmt: skip

PAIRS = (
    sample((3, 4), (3, 4)),
    sample((2, 3), (1, 3), of="int64", low=-2, high=2),
    sample((0,), ()),
)
BITS = (sample((3, 4), (4,), of="int64", low=-9, high=9), sample((5,), (5,), of="bool"))


class Compare(Elementwise, abstract=True):
    """A yes or no a pair of elements."""

    nondiff = "its result is bool"


class Eq(Compare):
    """y = a == b"""

    scalar, host = staticmethod(S.eq), staticmethod(np.equal)
    onnx, samples = Onnx("Equal", 13), PAIRS


class Ne(Compare):
    """y = a != b"""

    scalar, host = staticmethod(S.ne), staticmethod(np.not_equal)
    samples = PAIRS


class Lt(Compare):
    """y = a < b"""

    scalar, host = staticmethod(S.lt), staticmethod(np.less)
    onnx, samples = Onnx("Less", 13), PAIRS


class Le(Compare):
    """y = a <= b"""

    scalar, host = staticmethod(S.le), staticmethod(np.less_equal)
    onnx, samples = Onnx("LessOrEqual", 16), PAIRS


class Gt(Compare):
    """y = a > b"""

    scalar, host = staticmethod(S.gt), staticmethod(np.greater)
    onnx, samples = Onnx("Greater", 13), PAIRS


class Ge(Compare):
    """y = a >= b"""

    scalar, host = staticmethod(S.ge), staticmethod(np.greater_equal)
    onnx, samples = Onnx("GreaterOrEqual", 16), PAIRS


class BitwiseAnd(Elementwise):
    """y = a & b (logical on bool)"""

    scalar, host = staticmethod(S.and_), staticmethod(np.bitwise_and)
    nondiff = "its result is an integer"
    samples = BITS


class BitwiseOr(Elementwise):
    """y = a | b (logical on bool)"""

    scalar, host = staticmethod(S.or_), staticmethod(np.bitwise_or)
    nondiff = "its result is an integer"
    samples = BITS


class BitwiseXor(Elementwise):
    """y = a ^ b (logical on bool)"""

    scalar, host = staticmethod(S.xor), staticmethod(np.bitwise_xor)
    nondiff = "its result is an integer"
    samples = BITS


class BitwiseNot(Elementwise):
    """y = ~x (logical on bool)"""

    scalar, host = staticmethod(S.not_), staticmethod(np.invert)
    nondiff = "its result is an integer"
    samples = (sample((3, 4), of="int64", low=-9, high=9), sample((5,), of="bool"))


class ShiftLeft(Elementwise):
    """y = a << b"""

    scalar = staticmethod(S.shl)
    nondiff = "its result is an integer"
    samples = (sample((3, 4), (4,), of="int64", low=0, high=9),)


class ShiftRight(Elementwise):
    """y = a >> b (arithmetic)"""

    scalar = staticmethod(S.shr)
    nondiff = "its result is an integer"
    samples = (sample((3, 4), (4,), of="int64", low=0, high=9),)


class Where(Elementwise):
    """y = a where condition, else b"""

    def scalar(self, condition: S.Expr, a: S.Expr, b: S.Expr) -> S.Expr:
        return S.Select(condition, a, b)

    saved_for = ((), (0,), (0,))
    conjugates = True

    def vjp(self, g: Any, y: Any, condition: Any, a: Any, b: Any) -> tuple:
        return None, lambda: g.where(condition, 0.0), lambda: g.where(~condition, 0.0)

    onnx = Onnx("Where", 16)
    samples = (
        sample((3, 4), (3, 4), (3, 4), of=("bool", "float32", "float32")),
        sample((2, 1), (3,), (), of=("bool", "float32", "float32")),
        sample((3, 4), (3, 4), (4,), of=("bool", "complex64", "complex64")),
    )


def _compare(op: Any, name: str, a: Any, b: Any, out: Any) -> Any:
    if (
        a.__class__ is b.__class__
        and a._ghost is None
        and b._ghost is None
        and a._a.dtype is b._a.dtype
    ):
        y = apply(op, a, b)
    else:
        only_tensors(name, a)
        y = apply(op, *operands(name, a, b))
    return y if out is None else out.copy_result(y)


def eq(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input == other, as bool."""
    return _compare(_EQ, "eq", input, other, out)


def ne(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input != other, as bool."""
    return _compare(_NE, "ne", input, other, out)


def lt(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input < other, as bool."""
    return _compare(_LT, "lt", input, other, out)


def le(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input <= other, as bool."""
    return _compare(_LE, "le", input, other, out)


def gt(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input > other, as bool."""
    return _compare(_GT, "gt", input, other, out)


def ge(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input >= other, as bool."""
    return _compare(_GE, "ge", input, other, out)


def _bits(op: Any, name: str, a: Any, b: Any, out: Any) -> Any:
    a, b = operands(name, a, b)
    d = dtype_of(a if isinstance(a, Handle) else b)
    if d.category >= dt.FLOAT:
        raise d.lacks(f"{name}_cpu")
    y = apply(op, a, b)
    return y if out is None else out.copy_result(y)


def bitwise_and(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input & other; integers and bool only."""
    return _bits(BitwiseAnd(), "bitwise_and", input, other, out)


def bitwise_or(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input | other; integers and bool only."""
    return _bits(BitwiseOr(), "bitwise_or", input, other, out)


def bitwise_xor(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input ^ other; integers and bool only."""
    return _bits(BitwiseXor(), "bitwise_xor", input, other, out)


def bitwise_left_shift(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input << other; integers only."""
    return _bits(ShiftLeft(), "lshift", input, other, out)


def bitwise_right_shift(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = input >> other, keeping the sign; integers only."""
    return _bits(ShiftRight(), "rshift", input, other, out)


def bitwise_not(input: Any, *, out: Any = None) -> Any:
    """y = ~input; integers and bool only."""
    d = dtype_of(input)
    if d.is_complex:
        raise d.lacks("bitwise_not_cpu")
    if d.category == dt.FLOAT:
        raise TypeError(
            "~ (operator.invert) is only implemented on integer and Boolean-type tensors"
        )
    y = apply(BitwiseNot(), input)
    return y if out is None else out.copy_result(y)


def _truth(x: Any) -> Any:
    return cast(x, dt.bool) if isinstance(x, Handle) else bool(x)


def _both_bool(a: Any, b: Any) -> bool:
    return all(isinstance(x, Handle) and dtype_of(x) is dt.bool for x in (a, b))


_AND, _OR = BitwiseAnd(), BitwiseOr()


def logical_and(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = (input != 0) and (other != 0)."""
    if out is None and _both_bool(input, other) and (y := _AND.quick(input, other)) is not None:
        return y
    only_tensors("logical_and", input, other)
    return bitwise_and(_truth(input), _truth(other), out=out)


def logical_or(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = (input != 0) or (other != 0)."""
    if out is None and _both_bool(input, other) and (y := _OR.quick(input, other)) is not None:
        return y
    only_tensors("logical_or", input, other)
    return bitwise_or(_truth(input), _truth(other), out=out)


def logical_xor(input: Any, other: Any, *, out: Any = None) -> Any:
    """y = (input != 0) != (other != 0)."""
    only_tensors("logical_xor", input, other)
    return bitwise_xor(_truth(input), _truth(other), out=out)


def logical_not(input: Any, *, out: Any = None) -> Any:
    """y = input == 0."""
    return bitwise_not(_truth(input), out=out)


def where(condition: Any, input: Any = None, other: Any = None, *, out: Any = None) -> Any:
    """y = input where condition, else other; with the condition alone, its nonzero indices."""
    if out is None and (y := _WHERE.quick(condition, input, other)) is not None:
        return y
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    d = result_type(input, other)
    if dtype_of(condition) is not dt.bool:
        if dtype_of(condition) is not dt.uint8:
            raise RuntimeError(
                "where expected condition to be a boolean tensor, but got a tensor with dtype "
                f"{dtype_of(condition)}"
            )
        condition = cast(condition, dt.bool)
    a, b = (
        cast(x, d) if isinstance(x, Handle) else number_tensor(as_number(x, d), d)
        for x in (input, other)
    )
    y = apply(_WHERE, condition, a, b)
    return y if out is None else out.copy_result(y)


def depends(y: Any, *xs: Any) -> Any:
    """y, which the tape takes to come from xs too, with a gradient of zero, as torch has it."""
    if not state.grad:
        return y
    for x in xs:
        if isinstance(x, Handle) and x._rg:
            y = apply(_WHERE, full((), True, dtype=dt.bool), y, cast(x, dtype_of(y)))
    return y


def number_tensor(x: Any, d: dt.dtype) -> Any:
    """A number as a 0-dim tensor of dtype d, which nobody may write to."""
    assert x.__class__ in NUMBERS
    return wrap(number_array(x, d.np))


_EQ, _NE, _LT, _LE, _GT, _GE, _WHERE = Eq(), Ne(), Lt(), Le(), Gt(), Ge(), Where()
not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge

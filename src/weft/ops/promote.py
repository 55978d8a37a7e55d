"""Operands brought to one dtype by torch's promotion rules, before an op sees them."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import Handle
from weft.core.op import Op
from weft.ops.cast import cast
from weft.ops.creation import Full
from weft.ops.dispatch import NUMBERS, apply, dtype_of, type_of

__all__ = ["result_type"]

HALVES = (dt.float16, dt.bfloat16)


def apply_widened(op: Op, xs: list) -> Any:
    """`op` on operands of one dtype; halves are computed in float32 and rounded once, as torch."""
    d = next(dtype_of(x) for x in xs if isinstance(x, Handle))
    if d not in HALVES:
        return apply(op, *xs)
    return cast(apply(op, *(cast(x, dt.float32) if isinstance(x, Handle) else x for x in xs)), d)


def result_type(*args: Any) -> dt.dtype:
    """The dtype that an operation on these tensors and Python numbers computes in."""
    dims = zero = number = None
    for a in args:
        if isinstance(a, Handle):
            d = dtype_of(a)
            if a.ndim:
                dims = d if dims is None else dt.promote_types(dims, d)
            else:
                zero = d if zero is None else dt.promote_types(zero, d)
        else:
            d = dt.of_number(a)
            number = d if number is None else dt.promote_types(number, d)
    return dt.result_type_of(dims, zero, number)


def number_of(x: Any, op: str, name: str = "other") -> Any:
    """A Python number, also from NumPy scalars and tensors; TypeError for anything else."""
    if x.__class__ in NUMBERS:
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, Handle):
        return x.item()
    if isinstance(x, (float, int, complex)):
        return int(x) if isinstance(x, int) else float(x) if isinstance(x, float) else complex(x)
    raise TypeError(f"{op}(): argument '{name}' must be Tensor or Number, not {type(x).__name__}")


def only_tensors(op: str, *args: Any, names: tuple[str, ...] = ("input", "other")) -> None:
    """TypeError for a number where torch's function takes tensors only."""
    for i, (a, name) in enumerate(zip(args, names, strict=False)):
        if not isinstance(a, Handle):
            raise TypeError(
                f"{op}(): argument '{name}' (position {i + 1}) must be Tensor, not "
                f"{type(a).__name__}"
            )


def operands(op: str, *args: Any, floating: bool = False) -> list:
    """The operands cast to their result type; numbers stay numbers (one tensor at least).

    `floating`: integer operands become the default float dtype (true division, exp, ...).
    """
    first = args[0]
    if len(args) == 2:  # the common cases first: two tensors alike, a float tensor and a number
        other = args[1]
        if isinstance(first, Handle):
            d = dtype_of(first)
            if isinstance(other, Handle):
                e = dtype_of(other)
                if d is e and (d.category == dt.FLOAT or not floating):
                    return [first, other]
                if e.category < dt.FLOAT == d.category:
                    return [first, cast(other, d)]
                if d.category < dt.FLOAT == e.category:
                    return [cast(first, e), other]
            elif d.category == dt.FLOAT and other.__class__ in NUMBERS:
                return [first, float(other)]
        elif first.__class__ in NUMBERS and _is_float(other):
            return [float(first), other]
    args = tuple(a if isinstance(a, Handle) else number_of(a, op) for a in args)
    if not any(isinstance(a, Handle) for a in args):
        kind = type(args[0]).__name__
        raise TypeError(f"{op}(): argument 'input' (position 1) must be Tensor, not {kind}")
    d = result_type(*args)
    if floating and d.category < dt.FLOAT:
        d = dt.get_default_dtype()
    return [
        cast(a, d) if isinstance(a, Handle)
        else as_number(a, d) if a.__class__ is not complex
        else constant(a, d)
        for a in args
    ]  # fmt: skip


def need_real(x: Any, message: str, kind: type[Exception] = NotImplementedError) -> None:
    """The message, as torch words it, for a complex tensor: its numbers have no order."""
    if dtype_of(x).is_complex:
        raise kind(message)


def constant(x: complex, d: dt.dtype) -> Any:
    """A complex number as a 0-dim tensor: no op takes it as it is."""
    return apply(Full((), x.real, d, x.imag))


def _is_float(x: Any) -> bool:
    return isinstance(x, Handle) and dtype_of(x).category == dt.FLOAT


def as_number(x: Any, d: dt.dtype) -> Any:
    """The number in the category of dtype `d` (an int beside float tensors is a float)."""
    if x.__class__ is complex:
        if d.category != dt.COMPLEX:
            raise RuntimeError(f"value cannot be converted to type {d.name} without overflow")
        return x
    if d.category >= dt.FLOAT:
        return float(x)
    if d.category == dt.INT:
        return int(x)
    return bool(x)


def unary(op: Op, x: Any, name: str, *, floating: bool = True) -> Any:
    """`op` on one tensor; integer operands become the default float when `floating`."""
    if not isinstance(x, Handle):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(x).__name__}")
    plain = x._ghost is None and x._a.dtype.kind == "f"  # the short way to ask for the category
    if not plain and dtype_of(x).category < dt.FLOAT:
        if floating:
            x = cast(x, dt.get_default_dtype())
        else:  # NumPy, which may compute it, has a meaning for more dtypes
            op.type(type_of(x))
    return apply(op, x)

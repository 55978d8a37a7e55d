"""The Python operators of Tensor: `x + y` by the shortest way to what the room's function gives.

On small float tensors of one dtype whose layouts the op's native form has not met, an operator is
one NumPy call: what `dispatch.apply` does for any op in general is written out for two operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core.handle import Handle, state
from weft.core.op import Op
from weft.ops import dispatch
from weft.ops.dispatch import NUMBERS, SMALL, number_array
from weft.ops.dispatch import _errors as errors
from weft.ops.dispatch import _quiet as quiet

_CALLS = 100  # of one operator, before its native form learns of a layout (or is made)


def is_operand(x: Any) -> bool:
    """Whether an operator knows what to do with `x`; else Python asks `x` itself."""
    return x.__class__ in NUMBERS or isinstance(
        x, (Handle, int, float, complex, np.number, np.bool_)
    )


def binary(
    op: Op, function: Callable[[Any, Any], Any], *, halves: bool = True
) -> Callable[[Any, Any], Any]:
    """The operator method of `op`, whose room's function is `function`.

    Without `halves`, a float16 tensor beside a number is left to the function.
    """
    beside_number = "efd" if halves else "fd"
    host, classes = op.host, dispatch.plain_classes
    tracked = op.nondiff is None
    asarray, ndarray, reset, hush = np.asarray, np.ndarray, errors.reset, errors.set
    calls = 0

    def host_of(a: np.ndarray, b: np.ndarray, x: Any, other: Any) -> np.ndarray:
        """NumPy's result, C-contiguous; of so many calls one has the native form learn it."""
        nonlocal calls
        calls += 1
        if calls % _CALLS == 0:
            dispatch.learn(op, x, other)
        token = hush(quiet)
        try:
            r = host(a, b)
        finally:
            reset(token)
        if r.__class__ is not ndarray:
            return asarray(r)  # ufuncs give scalars for 0-dim operands
        return r if r.ndim < 2 or r.flags.c_contiguous else np.array(r, order="C")

    def operator(self: Any, other: Any) -> Any:
        if (y := op.quick(self, other)) is not None:
            return y
        if other.__class__ in classes:
            if state.recorder is None:
                a = self._a
                b = other._a
                d = a.dtype
                if not (d is b.dtype and d.kind == "f" and a.size <= SMALL and b.size <= SMALL):
                    return function(self, other)
                try:
                    r = host_of(a, b, self, other)
                except ValueError:  # shapes that do not fit: the function says so
                    return function(self, other)
                y = dispatch.fresh()
                y._a = r
                if tracked and (self._rg or other._rg) and state.grad:
                    dispatch.record(op, (self, other), y)
                return y
        elif other.__class__ is float or other.__class__ is int:
            if state.recorder is None:
                a = self._a
                d = a.dtype
                if d.char in beside_number and a.size <= SMALL:
                    if other.__class__ is int:
                        other = float(other)
                    y = dispatch.fresh()
                    y._a = host_of(a, number_array(other, d), self, other)
                    if tracked and self._rg and state.grad:
                        dispatch.record(op, (self, other), y)
                    return y
        elif not is_operand(other):
            return NotImplemented
        return function(self, other)

    return operator


def general(function: Callable[[Any, Any], Any], op: Op | None = None) -> Callable[[Any, Any], Any]:
    """The operator method that calls a room's function, or runs its op where it knows tensors like
    these (an op that the function calls with the tensors and numbers that it is given).
    """

    def operator(self: Any, other: Any) -> Any:
        if op is not None and (y := op.quick(self, other)) is not None:
            return y
        return function(self, other) if is_operand(other) else NotImplemented

    return operator


def reflected(
    function: Callable[[Any, Any], Any], op: Op | None = None
) -> Callable[[Any, Any], Any]:
    """The operator method for a tensor on the right: `2 - x`; `op` as in `general`."""

    def operator(self: Any, other: Any) -> Any:
        if op is not None and (y := op.quick(other, self)) is not None:
            return y
        if not isinstance(self, Handle):
            raise TypeError(f"{function.__name__}: the operand on the right must be a Tensor")
        return function(other, self) if is_operand(other) else NotImplemented

    return operator

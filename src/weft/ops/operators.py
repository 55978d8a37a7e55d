"""The Python operators of Tensor: `x + y` by the shortest way to what the room's function gives.

On small float tensors of one dtype an operator is one NumPy call and, where a gradient is wanted,
one tape node.  What `dispatch.apply` does for any op in general is written out here for two
operands: half a microsecond is a third of such a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core.handle import Handle, TapeNode, state
from weft.core.op import Meta, Op
from weft.ops import dispatch
from weft.ops.dispatch import NUMBERS, SMALL, number_array
from weft.ops.dispatch import _errors as errors
from weft.ops.dispatch import _quiet as quiet
from weft.runtime import native

_CALLS = 100  # of one operator, before its native form is loaded (or made: some milliseconds)


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
    keeps = dispatch.kept_of(op) if tracked else []
    light = tracked and not op.saves_result and not any(map(any, keeps))
    asarray, ndarray, reset, hush = np.asarray, np.ndarray, errors.reset, errors.set
    quick: Any = None  # the native form, where there is one and after some calls
    calls = served = 0

    def operator(self: Any, other: Any) -> Any:
        nonlocal calls, quick, served
        if (y := op.quick(self, other)) is not None:
            return y
        if other.__class__ in classes:
            if state.recorder is None:
                a = self._a
                b = other._a
                d = a.dtype
                if quick is not None and (r := quick(a, b)) is not None:
                    served += 1
                    if served > _CALLS and dispatch.learn(op, self, other):
                        served = 0
                    y = dispatch.fresh()
                    y._a = r
                elif d is b.dtype and d.kind == "f" and a.size <= SMALL and b.size <= SMALL:
                    if calls < _CALLS:
                        calls += 1
                        if calls == _CALLS:
                            quick = native.small_operations().get(op.name.lower())
                    token = hush(quiet)
                    try:
                        r = host(a, b)
                    except ValueError:  # shapes that do not fit: the function says so
                        return function(self, other)
                    finally:
                        reset(token)
                    if r.__class__ is not ndarray:
                        r = asarray(r)  # ufuncs give scalars for 0-dim operands
                    elif r.ndim > 1 and not r.flags.c_contiguous:
                        r = np.array(r, order="C")
                    y = dispatch.fresh()
                    y._a = r
                else:
                    return function(self, other)
                if tracked:
                    first, second = self._rg, other._rg
                    if (first or second) and state.grad:
                        if light and (shape := a.shape) == b.shape:
                            meta = Meta(shape, d)  # one stands for both
                            edges = (
                                (self._fn or self) if first else None,
                                (other._fn or other) if second else None,
                            )
                            y._fn = TapeNode(op, edges, (meta, meta), (), None)
                            y._rg = True
                        else:
                            dispatch.record_two(op, self, other, y)
                return y
        elif other.__class__ is float or other.__class__ is int:
            if state.recorder is None:
                a = self._a
                d = a.dtype
                if d.char in beside_number and a.size <= SMALL:
                    if other.__class__ is int:
                        other = float(other)
                    number = number_array(other, d)
                    r = None if quick is None else quick(a, number)
                    if r is not None:
                        served += 1
                        if served > _CALLS and dispatch.learn(op, self, other):
                            served = 0
                    else:
                        if calls < _CALLS:
                            calls += 1
                            if calls == _CALLS:
                                quick = native.small_operations().get(op.name.lower())
                        token = hush(quiet)
                        try:
                            r = host(a, number)
                        finally:
                            reset(token)
                        if r.__class__ is not ndarray:
                            r = asarray(r)
                        elif r.ndim > 1 and not r.flags.c_contiguous:
                            r = np.array(r, order="C")
                    y = dispatch.fresh()
                    y._a = r
                    if tracked and self._rg and state.grad:
                        if light:
                            saved = (Meta(a.shape, d), other)
                            y._fn = TapeNode(op, (self._fn or self, None), saved, (), None)
                            y._rg = True
                        else:
                            _record_beside_number(op, keeps[1][0], self, other, y)
                    return y
        elif not is_operand(other):
            return NotImplemented
        return function(self, other)

    return operator


def general(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The operator method that calls a room's function."""

    def operator(self: Any, other: Any) -> Any:
        return function(self, other) if is_operand(other) else NotImplemented

    return operator


def reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The operator method for a tensor on the right: `2 - x`."""

    def operator(self: Any, other: Any) -> Any:
        if not isinstance(self, Handle):
            raise TypeError(f"{function.__name__}: the operand on the right must be a Tensor")
        return function(other, self) if is_operand(other) else NotImplemented

    return operator


def _record_beside_number(op: Op, keep: bool, x: Any, number: Any, y: Any) -> None:
    """dispatch.record for a tensor and a number."""
    versions: tuple = ()
    saved = x
    if keep:
        st = x._st
        versions = (0 if st is None else st.version,)
    else:
        saved = Meta(x._a.shape, x._a.dtype)
    result = None
    if op.saves_result:
        result = dispatch.kept_result(y)
        versions = (*versions, 0)
    y._fn = TapeNode(op, (x._fn or x, None), (saved, number), versions, result)
    y._rg = True

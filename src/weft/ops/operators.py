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

_new = object.__new__
_plain: set[type] = set()  # tensor classes without behaviour of their own
_result_class: type = Handle


def install(*tensor_classes: type[Handle]) -> None:
    """tensor.py names the plain tensor classes; results are of the first."""
    global _result_class
    _plain.update(tensor_classes)
    _result_class = tensor_classes[0]


def is_operand(x: Any) -> bool:
    """Whether an operator knows what to do with `x`; else Python asks `x` itself."""
    return x.__class__ in NUMBERS or isinstance(x, (Handle, int, float, np.number, np.bool_))


def binary(op: Op, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The operator method of `op`, whose room's function is `function`."""
    host, classes = op.host, _plain
    tracked = op.nondiff is None
    keeps = _keeps(op) if tracked else []
    asarray, ndarray, reset, hush = np.asarray, np.ndarray, errors.reset, errors.set

    def operator(self: Any, other: Any) -> Any:
        if other.__class__ in classes:
            if state.recorder is None:
                a = self._a
                b = other._a
                d = a.dtype
                if d is b.dtype and d.kind == "f" and a.size <= SMALL and b.size <= SMALL:
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
                    y = _new(_result_class)
                    y._a = r
                    if tracked and (self._rg or other._rg) and state.grad:
                        _record(op, keeps, self, other, y)
                    return y
        elif other.__class__ is float or other.__class__ is int:
            if state.recorder is None:
                a = self._a
                d = a.dtype
                if d.kind == "f" and a.size <= SMALL:
                    if other.__class__ is int:
                        other = float(other)
                    token = hush(quiet)
                    try:
                        r = host(a, number_array(other, d))
                    finally:
                        reset(token)
                    if r.__class__ is not ndarray:
                        r = asarray(r)
                    elif r.ndim > 1 and not r.flags.c_contiguous:
                        r = np.array(r, order="C")
                    y = _new(_result_class)
                    y._a = r
                    if tracked and self._rg and state.grad:
                        dispatch.record(op, (self, other), y)
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
        return function(other, self) if is_operand(other) else NotImplemented

    return operator


def _keeps(op: Op) -> list[tuple[bool, bool]]:
    """Which operands' values the tape keeps, by which of the two want a gradient (bits 1 and 2)."""
    if op.saved_for is None:
        kept = op.saved_args
        return [(kept is None or 0 in kept, kept is None or 1 in kept)] * 4
    first, second = op.saved_for
    reads = [set(), set(first), set(second), {*first, *second}]
    return [(0 in read, 1 in read) for read in reads]


def _record(op: Op, keeps: list, a: Any, b: Any, y: Any) -> None:
    """dispatch.record for two tensors and a result of their dtype."""
    keep_a, keep_b = keeps[a._rg + 2 * b._rg]
    d = y._a.dtype
    versions: tuple = ()
    meta = None
    if keep_a:
        st = a._st
        versions = (0 if st is None else st.version,)
        saved_a = a
    else:
        meta = saved_a = Meta(a._a.shape, d)
    if keep_b:
        st = b._st
        versions = (*versions, 0 if st is None else st.version)
        saved_b = b
    elif meta is not None and b._a.shape == meta.shape:
        saved_b = meta
    else:
        saved_b = Meta(b._a.shape, d)
    result = None
    if op.saves_result:
        result = dispatch.alias(y)
        versions = (*versions, 0)
    y._fn = TapeNode(
        op,
        ((a._fn or a) if a._rg else None, (b._fn or b) if b._rg else None),
        (saved_a, saved_b),
        versions,
        result,
    )
    y._rg = True

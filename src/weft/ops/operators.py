"""The Python operators of Tensor: `x + y` by the shortest way to what the room's function gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core.handle import Handle
from weft.core.op import Op
from weft.ops.dispatch import NUMBERS


def is_operand(x: Any) -> bool:
    """Whether an operator knows what to do with `x`; else Python asks `x` itself."""
    return x.__class__ in NUMBERS or isinstance(
        x, (Handle, int, float, complex, np.number, np.bool_)
    )


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

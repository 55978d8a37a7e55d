"""torch.autograd: names older than the tensor itself."""

from __future__ import annotations

from typing import Any

import weft


class _VariableType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, weft.Tensor)


class Variable(metaclass=_VariableType):
    """Variable(t, requires_grad) is a tensor over t's memory, off its tape."""

    def __new__(cls, data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
        return data.detach().requires_grad_(requires_grad)


def _profiler_enabled() -> bool:
    return False

"""Parameter and Buffer: tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

from weft import Parameter, Tensor, empty

__all__ = ["Buffer", "Parameter"]


class Buffer(Tensor):
    """A tensor that belongs to a Module's state but is not trained.

    `persistent=False` keeps it out of the state_dict.
    """

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Any:
        made = object.__new__(cls)
        made.data = empty(0) if data is None else data.detach()
        made.requires_grad = data is not None and data.requires_grad
        made.persistent = persistent
        return made

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        pass

    def __deepcopy__(self, memo: dict) -> Any:
        made: Any = super().__deepcopy__(memo)
        made.persistent = self.persistent
        return made

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _rebuild_buffer, (self.detach(), self.persistent)


def _rebuild_buffer(data: Tensor, persistent: bool) -> Buffer:
    return Buffer(data, persistent=persistent)

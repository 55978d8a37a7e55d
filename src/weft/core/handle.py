"""What a tensor's handle holds, and what the tape keeps of one call.

`Handle` is the data layout of `weft.Tensor` (which adds the methods); the rooms compute on it.
Attributes are class-level defaults, so that making a handle sets only what differs:

_a      the value: a NumPy view over the storage.  Absent on a *ghost*, a tensor that a compiled
        function has promised but not computed; reading it asks the recorder for the value.
_ghost  the ghost's description (shape, dtype, place in the program), else None
_st     the storage: shared by all views of one memory, made when a second handle needs it
_base   the tensor this one is a view of (the owner of the memory), with `_view` the op of the view
_rg     requires_grad;  _fn  the tape node that made it;  _grad, _hooks, _retain  as in torch
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from weft.core.op import Op


class State(threading.local):
    """Per-thread modes."""

    grad: bool = True
    recorder: Any = None  # the compile recorder of this thread, or None


state = State()


class Storage:
    """One memory, seen by any number of views; counts its in-place writes."""

    __slots__ = ("__weakref__", "version")

    def __init__(self) -> None:
        self.version = 0


class Handle:
    _a: np.ndarray
    _ghost: Any = None
    _st: Storage | None = None
    _base: Handle | None = None
    _rg: bool = False
    _fn: TapeNode | None = None
    _grad: Any = None
    _hooks: dict | None = None
    _retain: bool = False

    def __getattr__(self, name: str) -> Any:
        if name == "_a":
            ghost = self._ghost
            if ghost is None:
                raise AttributeError("a tensor without a value")
            return ghost.demand(self)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")


def storage_of(t: Handle) -> Storage:
    st = t._st
    if st is None:
        st = t._st = Storage()
    return st


_sequence = itertools.count(1)


class TapeNode:
    """One differentiable call: the op, where its operands came from, and what vjp needs."""

    __slots__ = ("__weakref__", "edges", "hooks", "line", "op", "result", "saved", "seq", "versions")

    op: Op
    edges: tuple  # per operand: TapeNode, leaf Handle, or None where no gradient flows
    saved: tuple | None  # per operand: Handle (value kept), Meta, or a Python number
    versions: tuple  # of the kept handles' storages, at the time of the call
    result: Any  # alias of the result where vjp reads it, else Meta
    seq: int
    hooks: dict | None
    line: Any

    def __init__(self, op: Op, edges: tuple, saved: tuple, versions: tuple, result: Any) -> None:
        self.op = op
        self.edges = edges
        self.saved = saved
        self.versions = versions
        self.result = result
        self.seq = next(_sequence)
        self.hooks = None
        self.line = None

    def name(self) -> str:
        return f"{self.op.name}Backward0"

    @property
    def next_functions(self) -> tuple:
        return tuple((e, 0) for e in self.edges)

    def __repr__(self) -> str:
        return f"<{self.name()} object>"

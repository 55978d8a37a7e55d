"""Hooks on tensors: called with a gradient when the backward walk knows it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

_ids = itertools.count()


class RemovableHandle:
    """What a register call returns: `remove()` takes the hook out again."""

    def __init__(self, hooks: dict) -> None:
        self._hooks = hooks
        self.id = next(_ids)

    def remove(self) -> None:
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register(t: Any, hook: Callable) -> RemovableHandle:
    """hook(grad) -> grad or None, when t's gradient is known."""
    if not t._rg:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if t._fn is None:
        if t._hooks is None:
            t._hooks = {}
        hooks = t._hooks
    else:
        if t._fn.hooks is None:
            t._fn.hooks = {}
        hooks = t._fn.hooks
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def register_post_accumulate(t: Any, hook: Callable) -> RemovableHandle:
    """hook(t), after t.grad was added to; t is a leaf."""
    if t._fn is not None:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    hooks = t.__dict__.setdefault("_post_accumulate", {})
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def retain_grad(t: Any) -> None:
    """Keep the gradient of a non-leaf in its `.grad`."""
    if not t._rg:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    if t._fn is None or t._retain:
        return
    t._retain = True

    def keep(g: Any) -> None:
        t._grad = g if t._grad is None else t._grad + g

    register(t, keep)

"""Hooks on tensors: called with a gradient when the backward walk knows it.

Order, as in torch: a tensor's hooks in order of registration, then retain_grad; on a leaf, its
hooks, then `.grad` is added to, then the post-accumulate hooks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from weft.core.handle import Handle, RemovableHandle
from weft.ops.dispatch import dtype_of, shape_of

__all__ = ["RemovableHandle", "call", "register", "register_post_accumulate", "retain_grad"]

RETAIN = -1  # the id of retain_grad's hook, which comes after all others


def register(t: Any, hook: Callable) -> RemovableHandle:
    """hook(grad) -> grad or None, when t's gradient is known."""
    if not t._rg:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    owner, name = (t, "_hooks") if t._fn is None else (t._fn, "hooks")
    if getattr(owner, name) is None:
        setattr(owner, name, {})
    return RemovableHandle(getattr(owner, name), hook)


def register_post_accumulate(t: Any, hook: Callable) -> RemovableHandle:
    """hook(t), after t.grad was added to; t is a leaf."""
    if not t._rg:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if t._fn is not None:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    return RemovableHandle(t.__dict__.setdefault("_post_accumulate", {}), hook)


def retain_grad(t: Any) -> None:
    """Keep the gradient of a non-leaf in its `.grad`."""
    if not t._rg:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    if t._fn is None or t._retain:
        return
    t._retain = True
    ref = weakref.ref(t)  # the tape must not keep its own result alive

    def keep(g: Any) -> None:
        kept = ref()
        if kept is not None:
            kept._grad = g if kept._grad is None else kept._grad + g

    if t._fn.hooks is None:
        t._fn.hooks = {}
    t._fn.hooks[RETAIN] = keep


def _check(hook: Any, g: Any, got: Any) -> None:
    """TypeError or RuntimeError unless a hook's answer can stand for the gradient."""
    if not isinstance(got, Handle):
        raise TypeError(f"expected Variable, but hook returned '{type(got).__name__}'")
    if isinstance(g, Handle) and (shape_of(got), dtype_of(got)) != (shape_of(g), dtype_of(g)):
        name = getattr(hook, "__name__", repr(hook))
        raise RuntimeError(
            f"hook '{name}' has changed the size or type of value: from {list(shape_of(g))} "
            f"{dtype_of(g)} to {list(shape_of(got))} {dtype_of(got)}"
        )


def call(hooks: dict, g: Any) -> Any:
    """The gradient after all hooks, each of which may replace it."""
    for key, hook in sorted(hooks.items(), key=lambda item: item[0] == RETAIN):
        got = hook(g)
        if got is None:
            if key == RETAIN:
                g._held = True
            continue
        if got is not g:
            _check(hook, g, got)
            got._held = True
            g = got
    g._held = True  # a hook may have kept it
    return g

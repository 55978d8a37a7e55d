"""Subclasses of Tensor: made from tensors, kept by results, copied and pickled with attributes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from weft.core.handle import Handle, attributes_of, bare, state, take_over
from weft.core.overrides import NOT_SUBCLASSES
from weft.core.overrides import cover_functions as cover_functions  # for the rooms outside
from weft.ops.dispatch import alias, apply, shape_of
from weft.ops.view import Reshape
from weft.runtime import memory


def as_subclass(input: Any, cls: type) -> Any:
    """The same memory as an object of `cls`; gradients flow through.  TypeError: no subclass."""
    _check(cls, "as_subclass")
    return _become(apply(Reshape(shape_of(input)), input), cls)


def make_subclass(cls: type, data: Any, require_grad: bool = False, **options: Any) -> Any:
    """The same memory as an object of `cls`, off the tape.  No option is known."""
    _check(cls, "_make_subclass")
    if options:
        raise TypeError(f"_make_subclass: unknown options {sorted(options)}")
    made = _become(alias(data), cls)
    if require_grad:
        made.requires_grad_(True)
    return made


def _check(cls: Any, name: str) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Handle)):
        raise TypeError(f"{name}: cls must be a subclass of Tensor, got {cls!r}")


def _become(y: Any, cls: type) -> Any:
    """A tensor that nobody else holds, as an object of `cls`."""
    try:
        y.__class__ = cls
    except TypeError:  # a class with __slots__ lies otherwise in memory
        made = bare(cls)
        take_over(made, y)
        return made
    return y


def answer(cls: type, func: Any, types: Any, args: tuple, kwargs: Any, *, keep: bool) -> Any:
    """What Tensor's own `__torch_function__` gives: the function's result, as objects of `cls`.

    NotImplemented when an object of an unrelated class takes part.  `keep`: leave it as it is.
    """
    if not all(issubclass(cls, t) for t in types):
        return NotImplemented
    before = state.overrides
    state.overrides = max(before, NOT_SUBCLASSES)
    try:
        y = func(*args, **(kwargs or {}))
    finally:
        state.overrides = before
    return y if keep else _convert(y, cls, args, kwargs)


def _convert(y: Any, cls: type, args: tuple, kwargs: Any) -> Any:
    if isinstance(y, Handle):
        if isinstance(y, cls):
            return y
        own = type(y).__name__ == "Tensor" and not _is_given(y, args, kwargs)
        return _become(y, cls) if own else as_subclass(y, cls)
    if isinstance(y, (tuple, list)) and any(isinstance(v, (Handle, tuple, list)) for v in y):
        make = getattr(type(y), "_make", type(y))  # results with named fields
        return make([_convert(v, cls, args, kwargs) for v in y])
    return y


def _is_given(y: Any, args: tuple, kwargs: Any) -> bool:
    """Whether a result is one of the arguments, or lies in one."""
    for a in (*args, *(kwargs or {}).values()):
        if a is y or (isinstance(a, (tuple, list)) and any(v is y for v in a)):
            return True
    return False


def deepcopy(input: Any, memo: dict) -> Any:
    """A leaf with memory of its own, with the gradient and the user's attributes."""
    if input._fn is not None:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment."
        )
    made = bare(type(input))
    memo[id(input)] = made
    made._a = memory.copy(input._a)
    made._rg = input._rg
    if input._grad is not None:
        made._grad = copy.deepcopy(input._grad, memo)
    for name, value in attributes_of(input).items():
        made.__dict__[name] = copy.deepcopy(value, memo)
    return made


def reduce(input: Any) -> tuple:
    """How pickle takes a leaf apart: class, value, requires_grad; then the user's attributes."""
    if input._fn is not None:
        raise RuntimeError("only leaf tensors can be pickled; call detach() first")
    how = rebuild, (type(input), np.array(input._a, order="C"), input._rg)
    state = state_of(input)
    return (*how, state) if state else how


def state_of(input: Any) -> Any:
    """What a class's own `__getstate__` says, or the user's attributes."""
    if type(input).__getstate__ is object.__getstate__:
        return attributes_of(input)
    return input.__getstate__()


def rebuild(cls: type, a: np.ndarray, requires_grad: bool) -> Any:
    """The tensor that `reduce` took apart."""
    made: Any = bare(cls)
    made._a = a
    made._rg = requires_grad
    return made

"""no_grad, enable_grad, set_grad_enabled, inference_mode: context managers and decorators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from weft.core.handle import state

F = TypeVar("F", bound=Callable)


class _Mode:
    _value = True

    def __enter__(self) -> None:
        self._before = state.grad
        state.grad = self._value

    def __exit__(self, *exc: object) -> None:
        state.grad = self._before

    def __call__(self, fn: F) -> F:
        if inspect.isgeneratorfunction(fn):
            return self._around_generator(fn)

        @functools.wraps(fn)
        def inside(*args: Any, **kw: Any) -> Any:
            with self.__class__._clone(self):
                return fn(*args, **kw)

        return inside  # type: ignore[return-value]

    def _around_generator(self, fn: Callable) -> Any:
        """The mode holds while the generator runs, not while its consumer does."""

        @functools.wraps(fn)
        def inside(*args: Any, **kw: Any) -> Any:
            made = fn(*args, **kw)
            step: Callable = functools.partial(next, made)
            while True:
                try:
                    with self._clone():
                        value = step()
                except StopIteration as stop:
                    return stop.value
                try:
                    sent = yield value
                    step = functools.partial(made.send, sent)
                except GeneratorExit:
                    with self._clone():
                        made.close()
                    raise
                except BaseException as e:
                    step = functools.partial(made.throw, e)

        return inside

    def _clone(self) -> _Mode:
        made = _Mode()
        made._value = self._value
        return made


class no_grad(_Mode):
    """Results computed inside do not require gradients.  `with no_grad():` or `@no_grad()`."""

    _value = False

    def __new__(cls, fn: Callable | None = None) -> Any:
        made = super().__new__(cls)
        return made(fn) if callable(fn) else made  # also a bare decorator, as in torch


class enable_grad(_Mode):
    """Results computed inside require gradients again."""

    def __new__(cls, fn: Callable | None = None) -> Any:
        made = super().__new__(cls)
        return made(fn) if callable(fn) else made


class set_grad_enabled(_Mode):
    """`set_grad_enabled(flag)`: at once, and until the `with` block ends when used as one."""

    def __init__(self, mode: bool) -> None:
        self._outer = state.grad
        self._value = bool(mode)
        state.grad = self._value

    def __enter__(self) -> None:
        self._before = self._outer
        state.grad = self._value

    def __call__(self, fn: F) -> F:
        state.grad = self._outer
        return super().__call__(fn)


class inference_mode(_Mode):
    """As no_grad; `inference_mode(False)` changes nothing."""

    def __init__(self, mode: bool = True) -> None:
        self._value = not mode and state.grad


def is_grad_enabled() -> bool:
    return state.grad

"""Contexts and decorators: no_grad, enable_grad, set_grad_enabled, inference_mode, autocast.

Inside autocast `linear`, `matmul` and its kin, and the convolutions cast floating operands (float64
aside) to the context's dtype; everything else follows its operands' dtype.  torch's list of
functions that go back to float32 (losses, norms) acts in `in_float32`.
Source: https://docs.pytorch.org/docs/stable/amp.html#cpu-op-specific-behavior
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from weft.core import dtype as dt
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
        made = object.__new__(cls)
        if fn is None:
            return made
        return made(fn) if callable(fn) else made  # also a bare decorator, as in torch


class enable_grad(_Mode):
    """Results computed inside require gradients again."""

    def __new__(cls, fn: Callable | None = None) -> Any:
        made = object.__new__(cls)
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


_AVAILABLE = ("cpu",)
_KNOWN = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla")
_default = {"cpu": dt.bfloat16}


class autocast:
    """A context, and a decorator.  For a device that is not there it warns and changes nothing."""

    def __init__(
        self,
        device_type: str,
        dtype: Any = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(
                f"Expected `device_type` of type `str`, got: `{type(device_type).__name__}`"
            )
        if device_type not in _KNOWN:
            raise RuntimeError(
                f"User specified an unsupported autocast device_type '{device_type}'"
            )
        self.device = device_type
        self.fast_dtype = dtype or _default.get(device_type, dt.float16)
        if enabled and device_type == "cuda":
            warnings.warn(
                "CUDA is not available or torch_xla is imported. Disabling autocast.", stacklevel=2
            )
        if enabled and device_type == "cpu" and self.fast_dtype not in (dt.bfloat16, dt.float16):
            warnings.warn(
                "In CPU autocast, but the target dtype is not supported. Disabling autocast.\n"
                "CPU Autocast only supports dtype of torch.bfloat16, torch.float16 currently.",
                stacklevel=2,
            )
            enabled = False
        self._enabled = enabled and device_type in _AVAILABLE
        self._before: list[Any] = []

    def __enter__(self) -> autocast:
        self._before.append(state.autocast)
        if self.device in _AVAILABLE:
            state.autocast = self.fast_dtype if self._enabled else None
        return self

    def __exit__(self, *exc: object) -> bool:
        state.autocast = self._before.pop()
        return False

    def __call__(self, func: Callable) -> Callable:
        @functools.wraps(func)
        def inside(*args: Any, **kw: Any) -> Any:
            with autocast(self.device, self.fast_dtype, self._enabled):
                return func(*args, **kw)

        return inside


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this thread is inside an autocast of that device."""
    return device_type == "cpu" and state.autocast is not None


def get_autocast_dtype(device_type: str) -> Any:
    """What autocast of that device casts to when no dtype is given, or the context's."""
    if device_type == "cpu" and state.autocast is not None:
        return state.autocast
    return _default.get(device_type, dt.float16)


def is_autocast_available(device_type: str) -> bool:
    return device_type in _AVAILABLE


def is_autocast_cpu_enabled() -> bool:
    return is_autocast_enabled("cpu")


def get_autocast_cpu_dtype() -> Any:
    return get_autocast_dtype("cpu")


def get_autocast_gpu_dtype() -> Any:
    return dt.float16

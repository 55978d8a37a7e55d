"""autocast: inside it, products and convolutions compute in bfloat16 (or float16).

`linear`, `matmul` and its kin, and the convolutions cast floating operands (float64 aside) to the
context's dtype; everything else follows its operands' dtype.  torch's list of functions that go
back to float32 (losses, norms) acts in `float32_inputs`.
Source: https://docs.pytorch.org/docs/stable/amp.html#cpu-op-specific-behavior
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from weft.core import dtype as dt
from weft.core.handle import state

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

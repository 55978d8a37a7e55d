"""The few names of torch._C that Python packages touch."""

from __future__ import annotations

from typing import Any

import weft

Generator = weft.Generator
_TensorBase = TensorBase = weft.Tensor
_TensorMeta = type(weft.Tensor)
device, dtype, Size = weft.device, weft.dtype, weft.Size


def _log_api_usage_once(message: str) -> None:
    """Nothing is logged."""


def _get_tracing_state() -> None:
    return None


def _disabled_torch_function_impl(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """The function's own result: what a subclass says to have no override."""
    return func(*args, **(kwargs or {}))


def _jit_set_profiling_executor(mode: Any) -> bool:
    """Nothing to set: there is no TorchScript."""
    return False


_jit_set_profiling_mode = _jit_override_can_fuse_on_cpu = _jit_set_profiling_executor
_jit_override_can_fuse_on_gpu = _jit_set_texpr_fuser_enabled = _jit_set_profiling_executor
_jit_set_nvfuser_enabled = _jit_set_profiling_executor


def _get_privateuse1_backend_name() -> str:
    return "privateuseone"


class _Keys(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class DispatchKey(metaclass=_Keys):
    """Names of torch's dispatch keys, as registrations spell them; Weft has no dispatcher."""


class DispatchKeySet:
    """A set of keys: `|` joins two."""

    def __init__(self, *keys: Any) -> None:
        self.keys = frozenset(keys)

    def __or__(self, other: DispatchKeySet) -> DispatchKeySet:
        return DispatchKeySet(*self.keys, *other.keys)

"""The few names of torch._C that Python packages touch."""

from __future__ import annotations

from typing import Any

import weft
from weft.compat.torch_ import absent, futures
from weft.core import overrides
from weft.io.torch_zip import PyTorchFileReader as PyTorchFileReader

Future = futures.Future
Value, Graph, Node = absent.Value, absent.Graph, absent.Node
Generator = weft.Generator
_TensorBase = TensorBase = weft.Tensor
_TensorMeta = type(weft.Tensor)
device, dtype, Size = weft.device, weft.dtype, weft.Size


def _log_api_usage_once(message: str) -> None:
    """Nothing is logged."""


def _get_tracing_state() -> None:
    return None


_disabled_torch_function_impl = overrides.disabled_torch_function


class DisableTorchFunctionSubclass(overrides.disabled):
    """A context in which functions ask modes, and no objects."""

    def __init__(self) -> None:
        super().__init__(overrides.NOT_SUBCLASSES)


class DisableTorchFunction(overrides.disabled):
    """A context in which functions ask nobody."""

    def __init__(self) -> None:
        super().__init__(overrides.NONE)


def _is_torch_function_enabled() -> bool:
    """Whether functions ask objects."""
    return overrides.state.overrides == overrides.ALL


def _is_torch_function_mode_enabled() -> bool:
    """Whether functions ask a mode."""
    return overrides.state.overrides != overrides.NONE and bool(overrides.state.modes)


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

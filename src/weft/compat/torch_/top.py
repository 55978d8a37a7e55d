"""Names of `torch` itself that belong to no room: files, tensor types, settings."""

from __future__ import annotations

import builtins
import importlib
import math
from typing import Any

import weft
from weft.compat.torch_.autograd import Variable
from weft.compat.torch_.cuda import OutOfMemoryError
from weft.compat.torch_.legacy import (
    BFloat16Tensor,
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
    set_default_tensor_type,
)
from weft.compat.torch_.settings import (
    are_deterministic_algorithms_enabled,
    channels_last,
    channels_last_3d,
    contiguous_format,
    get_default_device,
    get_float32_matmul_precision,
    get_num_interop_threads,
    is_deterministic_algorithms_warn_only_enabled,
    jagged,
    layout,
    memory_format,
    preserve_format,
    set_default_device,
    set_deterministic_debug_mode,
    set_float32_matmul_precision,
    set_flush_denormal,
    set_num_interop_threads,
    set_printoptions,
    sparse_coo,
    sparse_csr,
    strided,
    use_deterministic_algorithms,
)
from weft.io.torch_file import load, save

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor",
    "HalfTensor", "IntTensor", "LongTensor", "OutOfMemoryError", "ShortTensor", "Variable",
    "are_deterministic_algorithms_enabled", "channels_last", "channels_last_3d",
    "contiguous_format", "get_default_device", "get_float32_matmul_precision",
    "get_num_interop_threads", "is_deterministic_algorithms_warn_only_enabled", "jagged", "layout",
    "load", "memory_format", "preserve_format", "save", "set_default_device",
    "set_default_tensor_type", "set_deterministic_debug_mode", "set_float32_matmul_precision",
    "set_flush_denormal", "set_num_interop_threads", "set_printoptions", "sparse_coo", "sparse_csr",
    "strided", "use_deterministic_algorithms",
]  # fmt: skip

pi, e, inf, nan, newaxis = math.pi, math.e, math.inf, math.nan, None


def is_tensor(obj: Any) -> bool:
    return isinstance(obj, weft.Tensor)


def is_storage(obj: Any) -> bool:
    return False


def is_floating_point(input: Any) -> bool:
    return input.is_floating_point()


def is_complex(input: Any) -> bool:
    return input.is_complex()


def is_nonzero(input: Any) -> bool:
    return builtins.bool(input)


def numel(input: Any) -> int:
    return input.numel()


def detach(input: Any) -> Any:
    return input.detach()


def typename(obj: Any) -> str:
    """The name of a tensor's type, or of an object's class."""
    return obj.type() if is_tensor(obj) else f"{type(obj).__module__}.{type(obj).__qualname__}"


def get_device_module(device: Any = None) -> Any:
    """The module of a device: there is one."""
    return importlib.import_module("torch.cpu")


def _assert(condition: Any, message: str) -> None:
    assert condition, message

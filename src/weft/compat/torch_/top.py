"""Names of `torch` that Weft's own top level does not have: files, old names."""

from __future__ import annotations

import importlib
from typing import Any

import weft
from weft.compat.torch_ import devices, inner, tracing
from weft.compat.torch_.futures import Future as Future
from weft.io.torch_file import load as load
from weft.io.torch_file import save as save
from weft.io.torch_zip import PyTorchFileReader as PyTorchFileReader

Event, Stream, OutOfMemoryError = devices.Event, devices.Stream, devices.cuda.OutOfMemoryError
ScriptModule = tracing.jit.ScriptModule
Variable = inner.autograd.Variable
legacy_contiguous_format = weft.contiguous_format


def get_device_module(device: Any = None) -> Any:
    """The module of a device: there is one."""
    return importlib.import_module("torch.cpu")


def _assert(condition: Any, message: str) -> None:
    assert condition, message


def _check(cond: Any, message: Any = None) -> None:
    """RuntimeError with the message (a function that makes it) unless cond holds."""
    if not cond:
        raise RuntimeError("Expected cond to be True" if message is None else message())


def _check_value(cond: Any, message: Any = None) -> None:
    """ValueError, else as _check."""
    if not cond:
        raise ValueError("Expected cond to be True" if message is None else message())


def _assert_async(cond: Any, message: str = "") -> None:
    """RuntimeError unless a one-element tensor is true."""
    if not bool(cond):
        raise RuntimeError(message or "Expected Tensor with single nonzero value")

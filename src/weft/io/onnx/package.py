"""The optional package, asked for when it is needed."""

from __future__ import annotations

from typing import Any


def onnx_package() -> Any:
    """The `onnx` module.  ImportError says how to install it."""
    try:
        import onnx
    except ImportError:
        raise ImportError('ONNX needs the onnx package: pip install "weft[onnx]"') from None
    return onnx


def onnxruntime_or_none() -> Any:
    """The `onnxruntime` module where it is installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime

"""torch.overrides: Weft's functions have no overrides."""

from __future__ import annotations

from typing import Any

import weft


def has_torch_function(args: Any) -> bool:
    return False


def has_torch_function_unary(arg: Any) -> bool:
    return False


def has_torch_function_variadic(*args: Any) -> bool:
    return False


def is_tensor_like(inp: Any) -> bool:
    return isinstance(inp, weft.Tensor)

"""torch.overrides: Weft's functions have no overrides."""

from __future__ import annotations

import warnings
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


def get_default_nowrap_functions() -> set:
    """Nothing wraps: no function is called through __torch_function__."""
    return set()


def handle_torch_function(public_api: Any, relevant_args: Any, *args: Any, **kw: Any) -> Any:
    raise NotImplementedError("Weft's functions have no __torch_function__ overrides")


class TorchFunctionMode:
    """A context that would see every call; Weft's functions do not call it, and it says so."""

    def __enter__(self) -> TorchFunctionMode:
        warnings.warn(
            f"{type(self).__name__}: Weft's functions do not call __torch_function__: this context "
            "changes nothing",
            stacklevel=2,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def is_tensor_method_or_property(func: Any) -> bool:
    """Whether a function is a method of Tensor."""
    return any(func is v for v in vars(weft.Tensor).values())

"""Settings and markers of `torch` that Weft accepts: what each does is said with it."""

from __future__ import annotations

import warnings
from typing import Any

import weft
from weft.core.overrides import state

_kept: dict[str, Any] = {"precision": "highest", "deterministic": False, "warn_only": False}


def set_float32_matmul_precision(precision: str) -> None:
    """Products of float32: "medium" as `weft.set_fast_math(True)`, the others as float32."""
    if precision not in ("highest", "high", "medium"):
        warnings.warn(f"{precision} is not one of 'highest', 'high', or 'medium'", stacklevel=2)
        return
    if precision != "medium":
        _kept["precision"] = precision
    weft.set_fast_math(precision == "medium")


def get_float32_matmul_precision() -> str:
    return "medium" if weft.is_fast_math() else _kept["precision"]


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Kept: Weft's results are deterministic whatever it says."""
    _kept["deterministic"], _kept["warn_only"] = bool(mode), bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    return _kept["deterministic"]


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    return _kept["warn_only"]


def set_deterministic_debug_mode(debug_mode: Any) -> None:
    """Kept: Weft's results are deterministic whatever it says."""
    _kept["deterministic"] = debug_mode not in (0, "default")


def set_flush_denormal(mode: bool) -> bool:
    """False: the processor's mode stays as it is."""
    return False


def set_num_interop_threads(threads: int) -> None:
    """Ops run one after another."""


def get_num_interop_threads() -> int:
    return 1


def get_default_device() -> Any:
    """Where functions make tensors: the innermost `with device(...)`, or the default."""
    return state.devices[-1] if state.devices else weft.device("cpu")


def set_default_device(device: Any) -> None:
    """The CPU, or nothing; RuntimeError for a device that is not there."""
    if device is not None:
        weft.empty(0, device=device)
    state.devices = () if device is None else (weft.device(device),)

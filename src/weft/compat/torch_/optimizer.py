"""Names that torch keeps in torch/optim/optimizer.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import weft

ParamsT: TypeAlias = Iterable[weft.Tensor] | Iterable[dict[str, Any]]


def _get_value(x: Any) -> Any:
    return x.item() if isinstance(x, weft.Tensor) else x


def _use_grad_for_differentiable(func: Any) -> Any:
    """`step` without recording a tape."""
    return weft.no_grad()(func)


def _get_capturable_supported_devices(supports_xla: bool = True) -> list[str]:
    return []


def _default_to_fused_or_foreach(
    params: Any, differentiable: bool, use_fused: bool = False
) -> tuple[bool, bool]:
    """Neither: Weft has one form of each step."""
    return False, False

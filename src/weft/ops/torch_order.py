"""Functions whose arguments `torch.NAME` takes in another order than `torch.nn.functional.NAME`."""

from __future__ import annotations

from typing import Any

from weft.ops import dropout as dropouts
from weft.ops import linalg, norm

__all__ = [
    "alpha_dropout", "batch_norm", "cholesky", "dropout", "feature_alpha_dropout", "group_norm",
    "instance_norm", "layer_norm",
]  # fmt: skip


def batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float, cudnn_enabled: bool,
) -> Any:  # fmt: skip
    """F.batch_norm; `cudnn_enabled` has no effect here."""
    return norm.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, use_input_stats: bool,
    momentum: float, eps: float, cudnn_enabled: bool,
) -> Any:  # fmt: skip
    """F.instance_norm; `cudnn_enabled` has no effect here."""
    return norm.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-05,
    cudnn_enabled: bool = True,
) -> Any:  # fmt: skip
    """F.group_norm; `cudnn_enabled` has no effect here."""
    return norm.group_norm(input, num_groups, weight, bias, eps)


def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-05,
    cudnn_enable: bool = True,
) -> Any:  # fmt: skip
    """F.layer_norm; `cudnn_enable` has no effect here."""
    return norm.layer_norm(input, normalized_shape, weight, bias, eps)


def dropout(input: Any, p: float, train: bool) -> Any:
    """F.dropout"""
    return dropouts.dropout(input, p, train)


def alpha_dropout(input: Any, p: float, train: bool) -> Any:
    """F.alpha_dropout"""
    return dropouts.alpha_dropout(input, p, train)


def feature_alpha_dropout(input: Any, p: float, train: bool) -> Any:
    """F.feature_alpha_dropout"""
    return dropouts.feature_alpha_dropout(input, p, train)


def cholesky(input: Any, upper: bool = False, *, out: Any = None) -> Any:
    """linalg.cholesky"""
    return linalg.cholesky(input, upper=upper, out=out)

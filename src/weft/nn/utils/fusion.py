"""Batch norm folded into the layer before it, for inference."""

from __future__ import annotations

import copy
from typing import Any

import weft
from weft import Parameter, Tensor


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """w' = w s;  b' = (b - mean) s + bias;  s = weight / sqrt(var + eps), one a channel"""
    bias_before = weft.zeros_like(bn_rm) if conv_b is None else conv_b
    bn_w = weft.ones_like(bn_rm) if bn_w is None else bn_w
    bn_b = weft.zeros_like(bn_rm) if bn_b is None else bn_b
    with weft.no_grad():
        scale = bn_w * (bn_rv + bn_eps).rsqrt()
        ends = (1, -1) if transpose else (-1, 1)
        weight = conv_w * scale.reshape(*ends, *(1,) * (conv_w.ndim - 2))
        bias = (bias_before - bn_rm) * scale + bn_b
    return (
        Parameter(weight.to(conv_w.dtype), conv_w.requires_grad),
        Parameter(bias.to(bias_before.dtype), bias_before.requires_grad),
    )


def _fused(layer: Any, bn: Any, transpose: bool) -> Any:
    if layer.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    if bn.running_mean is None or bn.running_var is None:
        raise AssertionError("bn.running_mean and bn.running_var must not be None")
    made = copy.deepcopy(layer)
    made.weight, made.bias = fuse_conv_bn_weights(
        made.weight, made.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
        transpose,
    )  # fmt: skip
    return made


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A convolution that computes bn(conv(x)); both must be in eval mode."""
    return _fused(conv, bn, transpose)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A Linear that computes bn(linear(x)); both must be in eval mode."""
    if bn.num_features not in (linear.out_features, 1):
        raise AssertionError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1, got "
            f"linear.out_features={linear.out_features} and bn.num_features={bn.num_features}"
        )
    return _fused(linear, bn, transpose=False)

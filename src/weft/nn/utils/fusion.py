"""A convolution or linear layer and the batch norm after it, as one layer (evaluation only)."""

from __future__ import annotations

import copy
from typing import Any

import weft
from weft import Parameter


def fuse_conv_bn_weights(
    conv_w: Any, conv_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any,
    transpose: bool = False,
) -> tuple:  # fmt: skip
    """w' = w g, b' = (b - mean) g + beta with g = gamma / sqrt(var + eps), over output channels."""
    conv_b = weft.zeros_like(bn_rm) if conv_b is None else conv_b
    bn_w = weft.ones_like(bn_rm) if bn_w is None else bn_w
    bn_b = weft.zeros_like(bn_rm) if bn_b is None else bn_b
    gain = bn_w * weft.rsqrt(bn_rv + bn_eps)
    shape = [1, -1] if transpose else [-1, 1]
    weight = conv_w * gain.reshape(shape + [1] * (conv_w.ndim - 2))
    bias = (conv_b - bn_rm) * gain + bn_b
    return (
        Parameter(weight.to(conv_w.dtype), conv_w.requires_grad),
        Parameter(bias.to(conv_w.dtype), conv_b.requires_grad),
    )


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of the convolution that does what both did.  Both must be in eval mode."""
    assert not (conv.training or bn.training), "Fusion only for eval!"
    fused = copy.deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
        transpose,
    )  # fmt: skip
    return fused


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple:
    """As fuse_conv_bn_weights."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """As fuse_conv_bn_eval."""
    if bn.num_features not in (1, linear.out_features):
        raise AssertionError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1, got "
            f"{linear.out_features=} and {bn.num_features=}"
        )
    return fuse_conv_bn_eval(linear, bn)

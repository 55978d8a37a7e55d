"""Parameters and their gradients as a whole: norms, clipping in place, one vector."""

from __future__ import annotations

import copy
import math
import types
import warnings
from collections.abc import Iterable
from typing import Any

import weft
from weft import Parameter, Tensor


def _tensors(given: Any) -> list[Tensor]:
    return [given] if isinstance(given, Tensor) else list(given)


def _norm(x: Tensor, p: float) -> Tensor:
    """(sum |x|^p)^(1/p); the largest |x| for p = inf, the smallest for -inf, nonzeros for 0"""
    if p == 2.0:
        return x.square().sum().sqrt()
    a = x.abs()
    if p == 0.0:
        return weft.count_nonzero(x).to(x.dtype)
    if math.isinf(p):
        return a.amax() if p > 0 else a.amin()
    return a.sum() if p == 1.0 else a.pow(p).sum().pow(1.0 / p)


@weft.no_grad()
def get_total_norm(
    tensors: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all tensors together, as if they were one vector."""
    found = _tensors(tensors)
    if not found:
        return weft.tensor(0.0)
    p = float(norm_type)
    total = _norm(weft.stack([_norm(t, p) for t in found]), p)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {p} for gradients from `parameters` is non-finite, so it "
            "cannot be clipped. To disable this error and scale the gradients by the non-finite "
            "norm anyway, set `error_if_nonfinite=False`"
        )
    return total


@weft.no_grad()
def clip_grads_with_norm_(
    parameters: Any, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """grad *= min(1, max_norm / (total_norm + 1e-6))"""
    grads = [p.grad for p in _tensors(parameters) if p.grad is not None]
    if not grads:
        return
    scale = float(max_norm) / (total_norm + 1e-6)
    scale = scale.clamp(max=1.0)  # NaN stays NaN
    for g in grads:
        g.mul_(scale)


@weft.no_grad()
def clip_grad_norm_(
    parameters: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients so that their common norm is at most `max_norm`; returns that norm."""
    found = _tensors(parameters)
    if not found and isinstance(parameters, types.GeneratorType):
        warnings.warn(
            "`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3
        )
    grads = [p.grad for p in found if p.grad is not None]
    total = get_total_norm(grads, norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(found, max_norm, total, foreach)
    return total


@weft.no_grad()
def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """grad = clip(grad, -clip_value, clip_value)"""
    bound = float(clip_value)
    for p in _tensors(parameters):
        if p.grad is not None:
            p.grad.clamp_(min=-bound, max=bound)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The parameters, flattened and joined."""
    return weft.cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Make each parameter a view of its part of `vec`."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    at = 0
    for p in parameters:
        n = p.numel()
        p.data = vec.detach().narrow(0, at, n).view(tuple(p.shape))
        at += n


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

"""Small examples of what a model will call, run while it is built: with an empty cache, cores that
are idle then compile their kernels, which the first step would wait for one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import weft
from weft import Tensor
from weft.nn import functional as F
from weft.runtime.native import ahead

_MOST = 64  # channels and features of an example: more are computed by the same kernels
_SIDE = 16


def rehearse(name: str, example: Callable[..., Tensor], *args: Any) -> None:
    """Run example(*args) and its backward pass in the background, once a machine."""

    def run() -> None:
        y = example(*args)
        y.backward(weft.zeros(y.shape))

    ahead(f"{name} {args}", run)


def convolution(
    inputs: int,
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    bias: bool,
) -> Tensor:
    """A 2-d convolution of float32; few channels are an image's, whose gradient nobody wants."""
    x = weft.zeros(2, inputs, _SIDE, _SIDE, requires_grad=inputs > 4)
    w = weft.zeros(outputs, inputs // groups, *kernel, requires_grad=True)
    b = weft.zeros(outputs, requires_grad=True) if bias else None
    return F.conv2d(x, w, b, tuple(stride), tuple(padding), tuple(dilation), groups)


def batch_norm() -> Tensor:
    """A batch norm of images, between what is often around it."""
    x = weft.zeros(2, _MOST, _SIDE, _SIDE, requires_grad=True)
    mean, var = weft.zeros(_MOST), weft.ones(_MOST)
    w, b = (weft.ones(_MOST, requires_grad=True) for _ in range(2))
    y = F.relu(F.batch_norm(x, mean, var, w, b, training=True))
    return F.relu(F.batch_norm(y, mean, var, w, b, training=True) + x)


def linear(inputs: int, outputs: int, bias: bool) -> Tensor:
    """A linear layer."""
    x = weft.zeros(_SIDE, inputs, requires_grad=True)
    w = weft.zeros(outputs, inputs, requires_grad=True)
    b = weft.zeros(outputs, requires_grad=True) if bias else None
    return F.linear(x, w, b)


def few(channels: int) -> int:
    """As many channels or features as an example needs."""
    return min(channels, _MOST)

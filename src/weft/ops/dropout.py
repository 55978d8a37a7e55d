"""Dropout: elements, channels or activations dropped at random while training, torch's draws."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.handle import state
from weft.core.op import sample
from weft.core.types import Type, numel
from weft.ops import dispatch
from weft.ops.dispatch import apply, dtype_of, shape_of, tell_made, wrap
from weft.ops.kinds import Create
from weft.ops.random import Draw, memory_order, undo
from weft.ops.view import permute
from weft.ops.write import check_writable, write
from weft.runtime import native
from weft.runtime import random as rng

__all__ = ["feature_dropout"]


class DropoutMask(Create):
    """y = 1 / (1 - p) with probability 1 - p, else 0"""

    effect = True
    shape: tuple[int, ...] = ()
    p: float = 0.5
    dtype: dt.dtype = dt.float32

    def type(self) -> Type:
        return Type(self.shape, self.dtype)

    def host(self) -> np.ndarray:
        return _mask(self.shape, self.p, self.dtype)

    oracle = host
    samples = (sample(shape=(3, 4), p=0.5), sample(shape=(0,), p=0.1))


def _mask(shape: tuple[int, ...], p: float, d: dt.dtype) -> np.ndarray:
    kept = rng.default_generator.current.dropout_mask(shape, p, np.bool_)
    return kept.astype(d.np) * _scale(p, d)


def _scale(p: float, d: dt.dtype) -> np.floating:
    wide = np.float64 if d is dt.float64 else np.float32
    return (wide(1) / wide(1 - p)).astype(d.np)


def _small(mask: Any, p: float) -> native.Launch | None:
    """What draws such masks, where native code can."""
    scale = float(_scale(p, dtype_of(mask)))
    return rng.small_draw("bernoulli", mask._a.size, mask._a.dtype, (1.0 - p, scale))


_MASK = dispatch.wish()


def _noise_shape(shape: tuple, whole_channels: bool) -> tuple:
    """The mask's shape: the input's, or one number a channel."""
    if not whole_channels:
        return shape
    if len(shape) < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return (*shape[:2], *(1,) * (len(shape) - 2))


def _drop(input: Any, p: float, training: bool, inplace: bool, whole_channels: bool) -> Any:
    if (
        training
        and not whole_channels
        and (mask := dispatch.made_like(input, _MASK, p)) is not None
    ):
        y = input * mask
        return _into(input, y) if inplace else y
    rng.check_probability(p)
    shape = shape_of(input)
    if not training or p == 0 or numel(shape) == 0:
        return input
    if p == 1:
        y = input * 0.0
    else:
        # torch's noise is empty_like(input), filled in memory order; a channel's noise is not
        order = list(range(len(shape))) if whole_channels else memory_order(input)
        noise = _noise_shape(shape, whole_channels)
        shape, d = tuple([noise[k] for k in order]), dtype_of(input)
        if state.recorder is None:  # nobody asks for the op
            mask = wrap(_mask(shape, float(p), d))
            if shape == shape_of(input) and order == sorted(order):
                tell_made(mask, partial(_small, mask, float(p)), input, _MASK, p)
        else:
            mask = apply(DropoutMask(shape, float(p), d))
        y = input * (mask if order == sorted(order) else permute(mask, undo(order)))
    return _into(input, y) if inplace else y


def _into(input: Any, y: Any) -> Any:
    check_writable(input)
    return write(input, y)


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """y = x m / (1 - p), m = 1 with probability 1 - p, else 0; y = x when not training.

    ValueError: p outside [0, 1].   Source: Srivastava et al. 2014.
    """
    return _drop(input, p, training, inplace, False)


def feature_dropout(input: Any, p: float, train: bool) -> Any:
    """dropout of whole channels: one draw for each (n, c)."""
    return _drop(input, p, train, False, True)


def _channels(n: int, input: Any, p: float, training: bool, inplace: bool) -> Any:
    rng.check_probability(p)
    rank = len(shape_of(input))
    if n == 1 and rank not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {rank}D input. Note that "
            "dropout1d exists to provide channel-wise dropout on inputs with 1 spatial dimension, "
            "a channel dimension, and an optional batch dimension (i.e. 2D or 3D inputs)."
        )
    if rank == n + 1 and n != 2:  # without a batch
        y = _drop(input.unsqueeze(0), p, training, False, True).squeeze(0)
        return _into(input, y) if inplace and training else y
    return _drop(input, p, training, inplace, True)


def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """dropout of whole channels of (N, C, L) or (C, L)."""
    return _channels(1, input, p, training, inplace)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """dropout of whole channels of (N, C, H, W)."""
    return _channels(2, input, p, training, inplace)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """dropout of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    return _channels(3, input, p, training, inplace)


_ALPHA = 1.7580993408473766  # selu's limit at minus infinity, negated


def _alpha(input: Any, p: float, training: bool, inplace: bool, whole_channels: bool) -> Any:
    """y = a (x m + b'), which keeps selu's mean and variance."""
    rng.check_probability(p)
    shape = shape_of(input)
    if not training or p == 0 or numel(shape) == 0:
        return input
    if p == 1:
        y = input * 0.0
    else:
        shape = _noise_shape(shape, whole_channels)
        noise = apply(Draw("bernoulli", shape, (1.0 - p,), dtype_of(input), None))
        a = 1.0 / math.sqrt((_ALPHA * _ALPHA * p + 1) * (1 - p))
        shift = (noise - 1) * (_ALPHA * a) + _ALPHA * a * p
        y = input * (noise * a) + shift
    return _into(input, y) if inplace else y


def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Dropout to selu's lower limit, scaled to keep mean and variance.  Klambauer et al. 2017."""
    return _alpha(input, p, training, inplace, False)


def feature_alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Any:
    """alpha_dropout of whole channels."""
    return _alpha(input, p, training, inplace, True)

"""Initial values of parameters: torch's names, formulas and draws.

Each function fills its tensor in place, off the tape, and returns it.  After `weft.manual_seed`
the values are torch's, bit for bit.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import weft
from weft import Tensor

_LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
           "conv_transpose3d", "sigmoid")  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before `nonlinearity` should grow; ValueError if unknown."""
    if nonlinearity in _LINEAR:
        return 1
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        if param is None:
            slope = 0.01
        elif isinstance(param, (int, float)) and not isinstance(param, bool):
            slope = param
        else:
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """u ~ U[a, b)"""
    with weft.no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """z ~ N(mean, std^2)"""
    with weft.no_grad():
        return tensor.normal_(mean, std, generator=generator)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Tensor:
    """z ~ N(mean, std^2), drawn again while outside [a, b]."""
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of "
            "values may be incorrect.",
            stacklevel=2,
        )

    def mass_below(x: float) -> float:
        return (1.0 + math.erf((x - mean) / std / math.sqrt(2.0))) / 2.0

    with weft.no_grad():
        if mass_below(b) - mass_below(a) > 0.3:
            low, high = (tensor.new_tensor(x).item() for x in (a, b))
            values = tensor.normal_(mean, std, generator=generator)
            while bool((outside := (values < low) | (values > high)).any()):
                fresh = weft.empty_like(values).normal_(mean, std, generator=generator)
                values = weft.where(outside, fresh, values)
        else:
            values = _trunc_normal_tail(tensor, mean, std, a, b, generator)
        if values is not tensor:
            tensor.copy_(values)
    return tensor


def _trunc_normal_tail(
    tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any
) -> Tensor:
    """Little mass in [a, b]: uniforms, accepted with the density relative to its peak."""
    peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2

    def rejected(x: Tensor) -> Tensor:
        log_density = (((x - mean) / std) ** 2) * -0.5 - peak
        return weft.empty_like(x).uniform_(generator=generator).log() > log_density

    values = tensor.uniform_(a, b, generator=generator)
    pending = rejected(values)
    while bool(pending.any()):
        fresh = weft.empty_like(values).uniform_(a, b, generator=generator)
        values = weft.where(pending, fresh, values)
        pending = weft.where(pending, rejected(fresh), pending)
    return values


def constant_(tensor: Tensor, val: float) -> Tensor:
    """y = val"""
    with weft.no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """y = 1"""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """y = 0"""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix; ValueError unless 2-dimensional."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    with weft.no_grad():
        return tensor.copy_(weft.eye(*tensor.shape))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution weight (3 to 5 dims) that passes the first channels of each group through."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups:
        raise ValueError("dim 0 must be divisible by groups")
    rows = tensor.shape[0] // groups
    values = np.zeros(tuple(tensor.shape), np.float32)
    middle = tuple(n // 2 for n in tensor.shape[2:])
    for g in range(groups):
        for d in range(min(rows, tensor.shape[1])):
            values[(g * rows + d, d, *middle)] = 1
    with weft.no_grad():
        return tensor.copy_(weft.from_numpy(values))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out): how many values feed one output, how many outputs one value feeds."""
    if tensor.ndim < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


_calculate_fan_in_and_fan_out = _fans  # torch's private name, which much user code calls


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """U[-a, a), a = gain sqrt(6 / (fan_in + fan_out))  (Glorot and Bengio 2010)"""
    fan_in, fan_out = _fans(tensor)
    a = math.sqrt(3.0) * (gain * math.sqrt(2.0 / float(fan_in + fan_out)))
    return uniform_(tensor, -a, a, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """N(0, std^2), std = gain sqrt(2 / (fan_in + fan_out))  (Glorot and Bengio 2010)"""
    fan_in, fan_out = _fans(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / float(fan_in + fan_out)), generator)


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    """fan_in or fan_out; torch's private name, which peft calls."""
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _fans(tensor)[mode == "fan_out"]


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    return calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))


def _is_empty(tensor: Tensor) -> bool:
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return True
    return False


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """U[-b, b), b = gain sqrt(3 / fan)  (He et al. 2015)"""
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """N(0, std^2), std = gain / sqrt(fan)  (He et al. 2015)"""
    if _is_empty(tensor):
        return tensor
    return normal_(tensor, 0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """gain Q of a random matrix's QR decomposition (rows flattened; Saxe et al. 2013).

    The same draws as torch's; Q agrees to rounding, as LAPACK computes it.
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    with weft.no_grad():
        flat = tensor.new_empty((rows, tensor.numel() // rows)).normal_(0, 1, generator=generator)
        a = flat.numpy()
        q, r = np.linalg.qr(a.T if rows < a.shape[1] else a)
        q = q * np.sign(np.diagonal(r))
        q = q.T if rows < a.shape[1] else q
        tensor.copy_(weft.from_numpy(np.ascontiguousarray(q)).reshape(tensor.shape))
        return tensor.mul_(gain)


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """N(0, std^2) with a fraction `sparsity` of each column set to zero  (Martens 2010)"""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, cols = tensor.shape
    zeros = math.ceil(sparsity * rows)
    with weft.no_grad():
        tensor.normal_(0, std, generator=generator)
        values = tensor.detach().clone().numpy()
        for col in range(cols):
            values[weft.randperm(rows).numpy()[:zeros], col] = 0
        return tensor.copy_(weft.from_numpy(values))


def _older_name(fn: Callable) -> Callable:
    """torch's first names, without the underscore: the same functions, with a warning."""
    name = fn.__name__

    @functools.wraps(fn)
    def older(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(
            f"`nn.init.{name[:-1]}` is now deprecated in favor of `nn.init.{name}`.",
            FutureWarning,
            stacklevel=2,
        )
        return fn(*args, **kwargs)

    older.__name__ = older.__qualname__ = name[:-1]
    return older


uniform, normal, constant = map(_older_name, (uniform_, normal_, constant_))
eye, dirac, orthogonal, sparse = map(_older_name, (eye_, dirac_, orthogonal_, sparse_))
xavier_uniform, xavier_normal = map(_older_name, (xavier_uniform_, xavier_normal_))
kaiming_uniform, kaiming_normal = map(_older_name, (kaiming_uniform_, kaiming_normal_))


# torch's private names, which libraries call
_no_grad_uniform_, _no_grad_normal_ = uniform_, normal_
_no_grad_fill_, _no_grad_zero_ = constant_, zeros_

"""Windows, as torch.hann_window and its kin: N numbers that taper to nothing at both ends.

w[n] for n = 0 .. N - 1, with M = N for a periodic window and M = N - 1 for a symmetric one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.ops.creation import between, finish, need_steps
from weft.ops.dispatch import wrap


def _window(
    op: str, length: int, periodic: bool, form: Callable, dtype: Any, device: Any, grad: bool
) -> Any:
    """form(n / M) in float64, rounded once; one element alone is 1."""
    d = dtype or dt.get_default_dtype()
    if length < 0:
        raise RuntimeError(f"{op} requires non-negative window_length, got window_length={length}")
    if d.category != dt.FLOAT:
        raise RuntimeError(f"{op} expects floating point dtypes, got: {d.name}")
    m = length if periodic else length - 1
    w = form(np.arange(length) / m) if length > 1 else np.ones(length)
    return finish(wrap(np.asarray(w).astype(d.np)), grad, device, op)


def hann_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, layout: Any = None,
    device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w = (1 - cos(2 pi n / M)) / 2"""
    form = lambda x: 0.5 - 0.5 * np.cos(2 * math.pi * x)
    return _window("hann_window", window_length, periodic, form, dtype, device, requires_grad)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *,
    dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w = alpha - beta cos(2 pi n / M)"""
    form = lambda x: alpha - beta * np.cos(2 * math.pi * x)
    return _window("hamming_window", window_length, periodic, form, dtype, device, requires_grad)


def blackman_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, layout: Any = None,
    device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w = 0.42 - 0.5 cos(2 pi n / M) + 0.08 cos(4 pi n / M)"""
    form = lambda x: 0.42 - 0.5 * np.cos(2 * math.pi * x) + 0.08 * np.cos(4 * math.pi * x)
    return _window("blackman_window", window_length, periodic, form, dtype, device, requires_grad)


def bartlett_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, layout: Any = None,
    device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w = 1 - |2 n / M - 1|"""
    form = lambda x: 1 - np.abs(2 * x - 1)
    return _window("bartlett_window", window_length, periodic, form, dtype, device, requires_grad)


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: Any = None,
    layout: Any = None, device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w = I0(beta sqrt(1 - (2 n / M - 1)^2)) / I0(beta), I0 the modified Bessel function"""
    form = lambda x: np.i0(beta * np.sqrt(np.maximum(1 - (2 * x - 1) ** 2, 0))) / np.i0(beta)
    return _window("kaiser_window", window_length, periodic, form, dtype, device, requires_grad)


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
    out: Any = None,
) -> Any:  # fmt: skip
    """base ** x for `steps` values x from start to end, both included."""
    need_steps("logspace", steps, start, end)
    d = dt.asked(dtype) or dt.get_default_dtype()
    x = between(start, end, steps, d)
    wide = np.power(float(base), x.astype(np.float64))
    y = wrap(wide.astype(d.np))
    return out.copy_result(y) if out is not None else finish(y, requires_grad, device, "logspace")

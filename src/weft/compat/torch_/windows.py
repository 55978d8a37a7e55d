"""torch.signal.windows: M numbers that taper to the ends; `sym=False` leaves the last one out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import weft

__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine",
    "general_hamming", "hamming", "hann", "kaiser", "nuttall",
]  # fmt: skip


def _kind(name: str, M: int, dtype: Any, layout: Any) -> Any:
    """The dtype, after torch's checks."""
    dtype = weft.get_default_dtype() if dtype is None else dtype
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    if layout is not None and layout is not weft.strided:
        raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
    if dtype not in (weft.float32, weft.float64):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {dtype}")
    return dtype


def _line(start: float, step: float, M: int, dtype: Any, device: Any) -> Any:
    """start, start + step, ... M of them"""
    return weft.linspace(start, start + (M - 1) * step, M, dtype=dtype, device=device)


def exponential(
    M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w[n] = exp(-|n - center| / tau)"""
    dtype = _kind("exponential", M, dtype, layout)
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    if center is None:
        center = (M if not sym and M > 1 else M - 1) / 2.0
    k = _line(-center / tau, 1 / tau, M, dtype, device)
    return weft.exp(-k.abs()).requires_grad_(requires_grad)


def cosine(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w[n] = sin(pi (n + 0.5) / M)"""
    dtype = _kind("cosine", M, dtype, layout)
    step = math.pi / (M + 1 if not sym and M > 1 else max(M, 1))
    return weft.sin(_line(0.5 * step, step, M, dtype, device)).requires_grad_(requires_grad)


def gaussian(
    M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w[n] = exp(-(n / (sqrt(2) std))^2), n from the middle"""
    dtype = _kind("gaussian", M, dtype, layout)
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    step = 1 / (std * math.sqrt(2))
    start = -(M if not sym and M > 1 else M - 1) / 2.0
    k = _line(start * step, step, M, dtype, device)
    return weft.exp(-(k * k)).requires_grad_(requires_grad)


def kaiser(
    M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w[n] = I0(beta sqrt(1 - (2 n / (M - 1) - 1)^2)) / I0(beta)"""
    dtype = _kind("kaiser", M, dtype, layout)
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")
    if M <= 1:
        return weft.ones((M,), dtype=dtype, device=device, requires_grad=requires_grad)
    step = 2.0 * beta / (M if not sym else M - 1)
    k = weft.linspace(-beta, min(beta, -beta + (M - 1) * step), M, dtype=dtype, device=device)
    top = weft.special.i0(weft.full((), beta, dtype=dtype))
    inside = (beta * beta - k * k).clamp_min(0.0)
    return (weft.special.i0(inside.sqrt()) / top).requires_grad_(requires_grad)


def bartlett(
    M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w[n] = 1 - |2 n / (M - 1) - 1|"""
    dtype = _kind("bartlett", M, dtype, layout)
    if M <= 1:
        return weft.ones((M,), dtype=dtype, device=device, requires_grad=requires_grad)
    k = _line(-1.0, 2 / (M if not sym else M - 1), M, dtype, device)
    return (1 - k.abs()).requires_grad_(requires_grad)


def general_cosine(
    M: int, *, a: Iterable[float], sym: bool = True, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w[n] = sum (-1)^i a[i] cos(2 pi i n / (M - 1))"""
    dtype = _kind("general_cosine", M, dtype, layout)
    if M <= 1:
        return weft.ones((M,), dtype=dtype, device=device, requires_grad=requires_grad)
    if not isinstance(a, Iterable):
        raise TypeError("Coefficients must be a list/tuple")
    factors = list(a)
    if not factors:
        raise ValueError("Coefficients cannot be empty")
    k = _line(0.0, 2 * math.pi / (M if not sym else M - 1), M, dtype, device)
    y = weft.zeros((M,), dtype=dtype)
    for i, factor in enumerate(factors):
        y = y + (-1) ** i * factor * weft.cos(k * float(i))
    return y.requires_grad_(requires_grad)


def general_hamming(
    M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Any:  # fmt: skip
    """w[n] = alpha - (1 - alpha) cos(2 pi n / (M - 1))"""
    return general_cosine(
        M,
        a=[alpha, 1.0 - alpha],
        sym=sym,
        dtype=dtype,
        layout=layout,
        device=device,
        requires_grad=requires_grad,
    )


def _fixed(name: str, factors: tuple[float, ...], text: str) -> Any:
    def window(
        M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None, device: Any = None,
        requires_grad: bool = False,
    ) -> Any:  # fmt: skip
        _kind(name, M, dtype, layout)
        return general_cosine(
            M,
            a=factors,
            sym=sym,
            dtype=dtype,
            layout=layout,
            device=device,
            requires_grad=requires_grad,
        )

    window.__name__ = window.__qualname__ = name
    window.__doc__ = text
    return window


hann = _fixed("hann", (0.5, 0.5), "w[n] = (1 - cos(2 pi n / (M - 1))) / 2")
hamming = _fixed("hamming", (0.54, 0.46), "w[n] = 0.54 - 0.46 cos(2 pi n / (M - 1))")
blackman = _fixed("blackman", (0.42, 0.5, 0.08), "Blackman's three cosines.")
nuttall = _fixed("nuttall", (0.3635819, 0.4891775, 0.1365995, 0.0106411), "Nuttall's four cosines.")

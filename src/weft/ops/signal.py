"""Windows, numbers that taper to nothing at both ends, and short-time Fourier transforms.

    windows   w[n] for n = 0 .. N - 1; M = N for a periodic one, M = N - 1 for a symmetric one
    stft      y[..., k, m] = sum over n of window[n] x[m hop + n] exp(-2 pi i k n / n_fft)
    istft     the x whose stft is nearest to y: windows added where they overlap, over sum window^2

Source: Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.ops.cast import cast
from weft.ops.complex_parts import view_as_real
from weft.ops.creation import between, finish, need_steps, ones
from weft.ops.dispatch import apply, dtype_of, shape_of, wrap
from weft.ops.fourier import fft, ifft, irfft, rfft
from weft.ops.pad import pad
from weft.ops.shape import UnfoldBack
from weft.ops.view import expand, narrow, reshape, transpose


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
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False,
    out: Any = None,
) -> Any:  # fmt: skip
    """base ** x for `steps` values x from start to end, both included."""
    steps = need_steps("logspace", steps, start, end)
    d = dt.asked(dtype) or dt.get_default_dtype()
    x = between(start, end, steps, d)
    wide = np.power(float(base), x.astype(np.float64))
    y = wrap(wide.astype(d.np))
    return out.copy_result(y) if out is not None else finish(y, requires_grad, device, "logspace")


def _taper(op: str, window: Any, n_fft: int, length: int, like: Any) -> Any:
    """The window of n_fft numbers: zeros on both sides where it is shorter."""
    if window is None:
        kind = dtype_of(like).to_real() if dtype_of(like).category >= dt.FLOAT else None
        window = ones(length, dtype=kind)
    missing = n_fft - length
    if missing:
        window = pad(window, (missing // 2, missing - missing // 2))
    return window


def _check_window(say: str, window: Any, length: int) -> None:
    if window is not None and tuple(shape_of(window)) != (length,):
        raise RuntimeError(
            f"{say}: expected a 1D window tensor of size equal to win_length={length}, but got "
            f"window with size {list(shape_of(window))}"
        )


def stft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: Any = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Any:
    """Spectra of windows `hop_length` (n_fft // 4) apart: shape (..., frequencies, frames).

    input           (length,) or (batch, length)
    window          win_length (n_fft) numbers, in the middle of n_fft; ones unless given
    center          frame m is about x[m hop]: n_fft // 2 numbers by pad_mode on both ends
    normalized      over sqrt(n_fft)
    onesided        the first n_fft // 2 + 1 frequencies: the default for reals
    return_complex  must be given for reals; False: a last dim of real and imaginary parts
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    shape, d = shape_of(input), dtype_of(input)
    say = f"stft({input.type()}{list(shape)}, n_fft={n_fft}, hop_length={hop}, win_length={length})"
    if d.category < dt.FLOAT:
        raise RuntimeError(f"{say}: expected a tensor of floating point or complex values")
    if len(shape) not in (1, 2):
        raise RuntimeError(f"{say}: expected a 1D or 2D tensor")
    if center and align_to_window is not None:
        raise RuntimeError("stft align_to_window should only be set when center = false.")
    x = reshape(input, (1, *shape)) if len(shape) == 1 else input
    if center:
        x = _padded(x, n_fft // 2, pad_mode)
    elif align_to_window:
        x = pad(x, ((n_fft - length) // 2, (n_fft - length) // 2))
    size = shape_of(x)[1]
    if not 0 < n_fft <= size:
        raise RuntimeError(f"{say}: expected 0 < n_fft <= {size}, but got n_fft={n_fft}")
    if hop <= 0:
        raise RuntimeError(f"{say}: expected hop_length > 0, but got hop_length={hop}")
    if not 0 < length <= n_fft:
        raise RuntimeError(f"{say}: expected 0 < win_length <= n_fft, but got win_length={length}")
    _check_window(say, window, length)
    if window is None:
        warnings.warn(
            "A window was not provided. A rectangular window will be applied,which is known to "
            "cause spectral leakage. Other windows such as torch.hann_window are recommended to "
            "reduce spectral leakage.",
            stacklevel=2,
        )
    whole = d.is_complex or (window is not None and dtype_of(window).is_complex)
    if return_complex is None:
        if not whole:
            raise RuntimeError(
                "stft requires the return_complex parameter be given for real inputs, and will "
                "further require that return_complex=True in a future PyTorch release."
            )
        return_complex = True
    onesided = not whole if onesided is None else onesided
    if whole and onesided:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    frames = x.unfold(-1, n_fft, hop)
    if window is not None or length < n_fft:
        frames = frames * _taper("stft", window, n_fft, length, input)
    norm = "ortho" if normalized else "backward"
    y = transpose((rfft if onesided else fft)(frames, norm=norm), 1, 2)
    y = y if len(shape) == 2 else reshape(y, shape_of(y)[1:])
    return y if return_complex else view_as_real(y)


def _padded(x: Any, amount: int, mode: str) -> Any:
    """(batch, length) with `amount` numbers more at both ends."""
    if mode == "constant":
        return pad(x, (amount, amount))
    y = pad(reshape(x, (1, *shape_of(x))), (amount, amount), mode=mode)
    return reshape(y, shape_of(y)[1:])


def istft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: Any = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Any:
    """The signal whose stft the input (..., frequencies, frames) is: stft's arguments again.

    length  how many numbers to give; those past the last window are 0
    RuntimeError: the windows' squares add up to 0 somewhere, so that the signal is lost there.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    wide = n_fft if win_length is None else win_length
    shape, d = shape_of(input), dtype_of(input)
    say = f"istft({input.type()}{list(shape)}, n_fft={n_fft}, hop_length={hop}, win_length={wide})"
    if not d.is_complex:
        raise RuntimeError(
            "istft requires a complex-valued input tensor matching the output from stft with "
            "return_complex=True."
        )
    if not math.prod(shape):
        raise RuntimeError(f"{say}: input tensor cannot be empty.")
    if len(shape) not in (2, 3):
        raise RuntimeError(f"{say}: expected a tensor with 2 or 3 dimensions, but got {len(shape)}")
    points, frames = shape[-2:]
    half = points != n_fft if onesided is None else onesided
    want = n_fft // 2 + 1 if half else n_fft
    if points != want:
        rule = f"n_fft / 2 + 1 when onesided=True, but got {points} frequencies" if half else (
            f"n_fft when onesided=False, but got {points}"
        )  # fmt: skip
        raise RuntimeError(
            f"{say}: expected the frequency dimension (3rd to the last) of the input tensor to "
            f"match {rule}"
        )
    if not 0 < hop <= wide:
        raise RuntimeError(f"{say}: expected 0 < hop_length <= win_length")
    if not 0 < wide <= n_fft:
        raise RuntimeError(f"{say}: expected 0 < win_length <= n_fft")
    _check_window(say, window, wide)
    taper = _taper("istft", window, n_fft, wide, input)
    if dtype_of(taper).is_complex and not return_complex:
        raise RuntimeError("Complex windows are incompatible with return_complex=False")
    if return_complex and half:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    x = transpose(input if len(shape) == 3 else reshape(input, (1, *shape)), 1, 2)
    norm = "ortho" if normalized else "backward"
    if return_complex:
        x = ifft(x, norm=norm)
    else:
        x = irfft(x if half else narrow(x, -1, 0, n_fft // 2 + 1), n_fft, norm=norm)
    reach = n_fft + hop * (frames - 1)
    added = UnfoldBack(1, n_fft, hop, reach)
    y = apply(added, x * taper)
    envelope = apply(added, expand(cast(taper * taper, dtype_of(taper)), (1, frames, n_fft)))
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else reach - start if center else reach
    kept = min(end, reach) - start
    y, envelope = narrow(y, 1, start, kept), narrow(envelope, 1, start, kept)
    least = float(envelope.detach().abs().min()) if kept else 0.0
    if not least > 1e-11:
        raise RuntimeError(f"{say}: window overlap add min: {least}")
    y = y / envelope
    if end > reach:
        warnings.warn(
            "The length of signal is shorter than the length parameter. Result is being padded "
            "with zeros in the tail. Please check your center, win_length and hop_length settings",
            stacklevel=2,
        )
        y = pad(y, (0, end - reach))
    return y if len(shape) == 3 else reshape(y, shape_of(y)[1:])

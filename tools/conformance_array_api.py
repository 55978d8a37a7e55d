"""The Python array API (2023.12) where torch follows it: names, and values of simple calls.

NumPy 2 implements the standard: a call counts where torch's function of the standard's name gives
NumPy's answer, and passes when Weft's does too.   Source: https://data-apis.org/array-api/2023.12/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]  beside Weft here only

import weft


def _words(text: str) -> list[str]:
    return text.split()


UNARY = _words(
    "abs acos acosh asin asinh atan atanh ceil conj cos cosh exp expm1 floor imag isfinite "
    "isinf isnan log log1p log2 log10 negative positive real reciprocal round sign signbit "
    "sin sinh sqrt square tan tanh trunc bitwise_invert logical_not"
)
BINARY = _words(
    "add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor "
    "copysign divide equal floor_divide greater greater_equal hypot less less_equal logaddexp "
    "logical_and logical_or logical_xor maximum minimum multiply nextafter not_equal pow "
    "remainder subtract"
)
REDUCTIONS = _words("all any argmax argmin max mean min prod std sum var count_nonzero")
OTHER = _words(
    "arange asarray astype broadcast_arrays broadcast_to can_cast clip concat cumulative_sum "
    "cumulative_prod diff empty empty_like expand_dims eye finfo flip from_dlpack full "
    "full_like iinfo isdtype linspace matmul matrix_transpose meshgrid moveaxis nonzero ones "
    "ones_like permute_dims repeat reshape result_type roll searchsorted sort squeeze stack "
    "take take_along_axis tensordot tile tril triu unique_all unique_counts unique_inverse "
    "unique_values unstack vecdot where zeros zeros_like argsort e inf nan newaxis pi"
)
LINALG = _words(
    "cholesky cross det diagonal eigh eigvalsh inv matmul matrix_norm matrix_power "
    "matrix_rank matrix_transpose outer pinv qr slogdet solve svd svdvals tensordot trace "
    "vecdot vector_norm"
)
FFT = _words(
    "fft ifft fftn ifftn rfft irfft rfftn irfftn hfft ihfft fftfreq rfftfreq fftshift ifftshift"
)
DTYPES = _words(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128"
)
METHODS = _words(
    "__abs__ __add__ __and__ __array_namespace__ __bool__ __complex__ __dlpack__ "
    "__dlpack_device__ __eq__ __float__ __floordiv__ __ge__ __getitem__ __gt__ __index__ "
    "__int__ __invert__ __le__ __lshift__ __lt__ __matmul__ __mod__ __mul__ __ne__ __neg__ "
    "__or__ __pos__ __pow__ __rshift__ __setitem__ __sub__ __truediv__ __xor__ __iadd__ "
    "__radd__ dtype device mT ndim shape size T"
)


def names() -> tuple[list[str], list[str]]:
    """(names of the standard that torch has, those of them that Weft lacks)"""
    have, lack = [], []
    for space, found in [("", [*UNARY, *BINARY, *REDUCTIONS, *OTHER, *DTYPES]), ("linalg", LINALG),
                         ("fft", FFT), ("Tensor", METHODS)]:  # fmt: skip
        theirs, ours = (getattr(m, space, None) if space else m for m in (torch, weft))
        for name in found:
            if hasattr(theirs, name):
                have.append(f"{space}.{name}".lstrip("."))
                if not hasattr(ours, name):
                    lack.append(have[-1])
    return have, lack


def calls() -> list[tuple[str, Callable[[Any, Callable], Any]]]:
    """(name, call(library, array maker))"""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.1, 0.9, (3, 4)), rng.uniform(0.1, 0.9, (3, 1))
    i, j = rng.integers(1, 9, (3, 4)), rng.integers(1, 5, (4,))
    b = rng.integers(0, 2, (3, 4)).astype(bool)
    out: list[tuple[str, Callable[[Any, Callable], Any]]] = []
    for name in UNARY:
        for kind, a in (("float", x), ("int", i), ("bool", b)):
            out.append((f"{name} {kind}", lambda m, t, n=name, a=a: getattr(m, n)(t(a))))
    for name in BINARY:
        for kind, a, c in (("float", x, y), ("int", i, j), ("bool", b, b[0])):
            out.append((f"{name} {kind}", lambda m, t, n=name, a=a, c=c: getattr(m, n)(t(a), t(c))))
    for name in REDUCTIONS:
        for kind, a in (("float", x), ("int", i), ("bool", b)):
            out.append((f"{name} {kind}", lambda m, t, n=name, a=a: getattr(m, n)(t(a))))
            for axis in (0, -1, (0, 1)):
                out.append((
                    f"{name} {kind} axis={axis}",
                    lambda m, t, n=name, a=a, k=axis: getattr(m, n)(t(a), axis=k),
                ))  # fmt: skip
    square = x[:, :3] @ x[:, :3].T + np.eye(3)
    for name in LINALG:
        out.append((f"linalg.{name}", lambda m, t, n=name: getattr(m.linalg, n)(t(square))))
    for name in FFT:
        out.append((f"fft.{name}", lambda m, t, n=name: getattr(m.fft, n)(t(x))))
    out += [
        ("arange", lambda m, t: m.arange(1, 9, 2)),
        ("linspace", lambda m, t: m.linspace(0, 1, 5, dtype=m.float64)),
        ("asarray", lambda m, t: m.asarray([[1, 2], [3, 4]])),
        ("concat", lambda m, t: m.concat((t(x), t(x)), axis=1)),
        ("stack", lambda m, t: m.stack((t(x), t(x)), axis=1)),
        ("flip", lambda m, t: m.flip(t(x), (0,))),
        ("roll", lambda m, t: m.roll(t(x), 2)),
        ("where", lambda m, t: m.where(t(b), t(x), t(y))),
        ("matmul", lambda m, t: m.matmul(t(x), t(x.T))),
        ("tensordot", lambda m, t: m.tensordot(t(x), t(x.T), 1)),
        ("tril", lambda m, t: m.tril(t(x))), ("triu", lambda m, t: m.triu(t(x))),
        ("searchsorted", lambda m, t: m.searchsorted(t(np.sort(x[0])), t(x[1]))),
        ("sort", lambda m, t: m.sort(t(x), axis=0)),
        ("argsort", lambda m, t: m.argsort(t(x), axis=0)),
        ("moveaxis", lambda m, t: m.moveaxis(t(x), 0, 1)),
        ("broadcast_to", lambda m, t: m.broadcast_to(t(y), (3, 4))),
        ("reshape", lambda m, t: m.reshape(t(x), (4, 3))),
        ("squeeze", lambda m, t: m.squeeze(t(y), 1)),
        ("tile", lambda m, t: m.tile(t(x), (2, 1))),
        ("diff", lambda m, t: m.diff(t(x))),
        ("result_type", lambda m, t: t(x) + t(i)), ("promotion", lambda m, t: t(b) + t(i)),
        ("number", lambda m, t: t(x) * 2), ("index", lambda m, t: t(x)[1, ::2]),
        ("mask", lambda m, t: t(x)[t(b)]), ("newaxis", lambda m, t: t(x)[None, ..., 0]),
    ]  # fmt: skip
    return out


def plain(y: Any) -> Any:
    """A result as NumPy arrays."""
    if isinstance(y, tuple | list):
        return [plain(v) for v in y]
    return np.asarray(y.resolve_conj() if isinstance(y, torch.Tensor) else y)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) or isinstance(b, list):
        both = isinstance(a, list) and isinstance(b, list) and len(a) == len(b)
        return both and all(equal(p, q) for p, q in zip(a, b, strict=True))
    return a.shape == b.shape and a.dtype == b.dtype and np.allclose(a, b, equal_nan=True)


def values() -> tuple[int, list[str]]:
    """(calls in which torch follows the standard, those of them in which Weft does not)"""

    def attempt(call: Callable, library: Any, make: Callable) -> Any:
        try:
            return plain(call(library, make))
        except Exception:
            return None

    followed, differ = 0, []
    for name, call in calls():
        with np.errstate(all="ignore"):
            wanted = attempt(call, np, np.asarray)
        theirs = attempt(call, torch, torch.asarray)
        if wanted is None or theirs is None or not equal(theirs, wanted):
            continue
        followed += 1
        ours = attempt(call, weft, weft.asarray)
        if ours is None or not equal(ours, wanted):
            differ.append(name)
    return followed, differ


def report() -> list[str]:
    """The section of docs/conformance.md."""
    have, lack = names()
    followed, differ = values()
    out = [
        "## Python array API",
        "",
        "The standard's names (2023.12) that torch has, and simple calls in which torch gives",
        "NumPy's answer (value, shape and dtype):",
        "",
        f"- names: {len(have) - len(lack)} of {len(have)}",
        f"- calls: {followed - len(differ)} of {followed}",
    ]
    if lack:
        out += ["", "Missing: " + ", ".join(lack)]
    if differ:
        out += ["", "Different: " + ", ".join(differ)]
    return [*out, ""]

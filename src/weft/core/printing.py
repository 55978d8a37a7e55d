"""The text of an array as torch prints a tensor: 4 digits, summarised past 1,000 elements.

A number format is chosen for the whole tensor from its finite nonzero elements: whole numbers as
`3.`; scientific where the largest is over 1e8 or over 1,000 times the smallest (or, for numbers
that are not whole, the smallest is under 1e-4); else fixed digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Options:
    """What set_printoptions sets."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


OPTIONS = Options()
_PROFILES = {"default": (4, 1000, 3, 80), "short": (2, 1000, 2, 80), "full": (4, math.inf, 3, 80)}


def set_printoptions(
    precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
    linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None,
) -> None:  # fmt: skip
    """How tensors print: digits, when to summarise, items kept at the edges, width of a line."""
    if profile is not None:
        OPTIONS.precision, OPTIONS.threshold, OPTIONS.edgeitems, OPTIONS.linewidth = _PROFILES[
            profile
        ]
    for name, value in (
        ("precision", precision), ("threshold", threshold), ("edgeitems", edgeitems),
        ("linewidth", linewidth),
    ):  # fmt: skip
        if value is not None:
            setattr(OPTIONS, name, value)
    OPTIONS.sci_mode = sci_mode


class _Format:
    """How one element is written, chosen from all that are shown."""

    def __init__(self, shown: np.ndarray) -> None:
        o = OPTIONS
        self.floating = shown.dtype.kind == "f"
        self.scientific = False
        self.whole = True
        self.width = 1
        if not self.floating:
            self.width = max((len(str(v)) for v in shown.reshape(-1).tolist()), default=1)
            return
        flat = shown.reshape(-1).astype(np.float64)
        finite = flat[np.isfinite(flat) & (flat != 0)]
        if not finite.size:
            return
        sizes = np.abs(finite)
        low, high = float(sizes.min()), float(sizes.max())
        self.whole = bool((finite == np.ceil(finite)).all())
        wide = high / low > 1000.0 or high > 1.0e8
        self.scientific = wide or (not self.whole and low < 1.0e-4)
        if o.sci_mode is not None:
            self.scientific = o.sci_mode
        values = finite.tolist()
        if self.scientific:
            self.width = max(len(f"{v:.{o.precision}e}") for v in values)
        elif self.whole:
            self.width = max(len(f"{v:.0f}") + 1 for v in values)
        else:
            self.width = max(len(f"{v:.{o.precision}f}") for v in values)

    def __call__(self, v: Any) -> str:
        if not self.floating:
            return str(v).rjust(self.width)
        p = OPTIONS.precision
        if self.scientific:
            text = f"{v:{self.width}.{p}e}"
        elif self.whole:
            text = f"{v:.0f}" + ("" if math.isinf(v) or math.isnan(v) else ".")
        else:
            text = f"{v:.{p}f}"
        return text.rjust(self.width)


class _ComplexFormat:
    """Real and imaginary parts, each as a tensor of its own would print: `1.0000-0.5000j`."""

    def __init__(self, shown: np.ndarray) -> None:
        self.parts = _Format(np.real(shown)), _Format(np.imag(shown))
        self.width = self.parts[0].width + self.parts[1].width + 1

    def __call__(self, v: complex) -> str:
        real, imag = self.parts[0](v.real), self.parts[1](v.imag).lstrip() + "j"
        return real + ("" if imag[0] in "+-" else "+") + imag


def _edges(a: np.ndarray) -> np.ndarray:
    """The elements that a summary shows."""
    k = OPTIONS.edgeitems
    for d, n in enumerate(a.shape):
        if n > 2 * k:
            a = np.take(a, [*range(k), *range(n - k, n)], d)
    return a


def _text(a: np.ndarray, indent: int, short: bool, one: _Format | _ComplexFormat) -> str:
    k = OPTIONS.edgeitems
    if a.ndim == 0:
        return one(a.item())
    cut = short and a.shape[0] > 2 * k
    if a.ndim == 1:
        per_line = max(1, (OPTIONS.linewidth - indent) // (one.width + 2))
        if cut:
            items = [one(v) for v in a[:k].tolist()] + [" ..."] + [one(v) for v in a[-k:].tolist()]
        else:
            items = [one(v) for v in a.tolist()]
        lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    if cut:
        rows = [_text(r, indent + 1, short, one) for r in a[:k]]
        rows += ["..."] + [_text(r, indent + 1, short, one) for r in a[-k:]]
    else:
        rows = [_text(r, indent + 1, short, one) for r in a]
    return "[" + ("," + "\n" * (a.ndim - 1) + " " * (indent + 1)).join(rows) + "]"


def show(a: np.ndarray, suffixes: list[str], prefix: str = "tensor(") -> str:
    """`tensor([1., 2.], suffix)`: suffixes go to a new line where they would not fit."""
    indent = len(prefix)
    short = a.size > OPTIONS.threshold
    if a.size == 0:
        text = "[]"
    else:
        kind = _ComplexFormat if a.dtype.kind == "c" else _Format
        text = _text(a, indent, short, kind(_edges(a) if short else a))
    used = len(text) - text.rfind("\n") + 1
    out = [prefix + text]
    for s in suffixes:
        if used + len(s) + 2 > OPTIONS.linewidth:
            out.append(",\n" + " " * indent + s)
            used = indent + len(s)
        else:
            out.append(", " + s)
            used += len(s) + 2
    return "".join(out) + ")"

"""finfo and iinfo: the limits of a dtype."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from weft.core import dtype as dt


class finfo:
    """bits, eps, max, min, tiny, smallest_normal, resolution of a floating dtype."""

    def __init__(self, type: dt.dtype | None = None) -> None:
        d = dt.get_default_dtype() if type is None else type
        d = d.to_real() if isinstance(d, dt.dtype) else d
        if not isinstance(d, dt.dtype) or d.category != dt.FLOAT:
            raise TypeError(
                f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle "
                f"'{d}'"
            )
        own = d.np.num < 256  # numbers from there on are types that others registered
        facts = (np.finfo if own else ml_dtypes.finfo)(d.np)
        self.dtype = d.name
        self.bits = 8 * d.itemsize
        self.eps = float(facts.eps)
        self.max = float(facts.max)
        self.min = float(facts.min)
        self.tiny = self.smallest_normal = float(facts.tiny)
        self.resolution = float(facts.resolution)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, finfo) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
            f"eps={self.eps:g}, smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, "
            f"dtype={self.dtype})"
        )


class iinfo:
    """bits, max, min of an integer dtype."""

    def __init__(self, type: dt.dtype) -> None:
        if not isinstance(type, dt.dtype) or type.category != dt.INT:
            raise TypeError(
                f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{type}'"
            )
        facts = np.iinfo(type.np)
        self.dtype = type.name
        self.bits = facts.bits
        self.max = int(facts.max)
        self.min = int(facts.min)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, iinfo) and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"

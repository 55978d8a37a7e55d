"""Where an operand lies: all that a planner may know of an array, so that its plan serves every
array of the same layout.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """shape, strides in ELEMENTS (0 and negative allowed), NumPy dtype."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @staticmethod
    def of(array: np.ndarray) -> "Layout":
        """The layout of an array. Its byte strides must be whole elements (a field of a structured
        array is not).
        """
        size = array.itemsize
        if any(stride % size for stride in array.strides):
            raise ValueError(
                f"layout: byte strides {array.strides} are not whole elements of {size} bytes"
            )
        return Layout(array.shape, tuple(stride // size for stride in array.strides), array.dtype)

    @staticmethod
    def contiguous(shape: tuple[int, ...], dtype: np.dtype) -> "Layout":
        """The layout of a fresh C-contiguous array."""
        strides, step = [], 1
        for size in reversed(shape):
            strides.append(step)
            step *= max(size, 1)
        return Layout(tuple(shape), tuple(reversed(strides)), np.dtype(dtype))

    def zeros(self) -> np.ndarray:
        """An array of zeros that lies so, in memory of its own."""
        reach = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True) if n]
        before = -sum(r for r in reach if r < 0)
        whole = np.zeros(before + sum(r for r in reach if r > 0) + 1, self.dtype)
        strides = tuple(s * self.dtype.itemsize for s in self.strides)
        return np.lib.stride_tricks.as_strided(whole[before:], self.shape, strides)

    def pairs(self) -> "Layout":
        """A complex layout as kernels read it: real parts, and a last dim (of 2) beside each."""
        strides = (*(2 * s for s in self.strides), 1)
        return Layout((*self.shape, 2), strides, np.dtype(f"f{self.dtype.itemsize // 2}"))

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps (dims of size 1 do not matter)."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step:
                return self.size == 0
            step *= size
        return True

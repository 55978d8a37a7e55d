"""Padding: the edges of the last one, two or three dims grow, filled as the class says.

`padding` is one number for all edges, or (left, right, top, bottom, front, back).
"""

from __future__ import annotations

from typing import Any, ClassVar

from weft import Tensor
from weft.nn import functional as F
from weft.nn.module import Module, ntuple

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d",
    "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d",
    "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    dims: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = ntuple(padding, 2 * self.dims)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class _Constant(Module):
    dims: ClassVar[int]

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__()
        self.value = value
        self.padding = ntuple(padding, 2 * self.dims)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    _repr_names = "padding value"


class _Zero(_Constant):
    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return str(self.padding)


class ConstantPad1d(_Constant):
    """`value` around the last dim."""

    dims = 1


class ConstantPad2d(_Constant):
    """`value` around the last two dims."""

    dims = 2


class ConstantPad3d(_Constant):
    """`value` around the last three dims."""

    dims = 3


class ZeroPad1d(_Zero):
    """Zeros around the last dim."""

    dims = 1


class ZeroPad2d(_Zero):
    """Zeros around the last two dims."""

    dims = 2


class ZeroPad3d(_Zero):
    """Zeros around the last three dims."""

    dims = 3


class ReflectionPad1d(_Pad):
    """The inside mirrored at the edges (the edge itself once)."""

    dims, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The inside mirrored at the edges (the edge itself once)."""

    dims, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The inside mirrored at the edges (the edge itself once)."""

    dims, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The edge repeated."""

    dims, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The edge repeated."""

    dims, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The edge repeated."""

    dims, mode = 3, "replicate"


class _Circular(_Pad):
    mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        n = self.dims
        if input.dim() not in (n + 1, n + 2):
            raise ValueError(f"expected {n + 1}D or {n + 2}D input (got {input.dim()}D input)")
        return super().forward(input)


class CircularPad1d(_Circular):
    """The other edge, as on a ring."""

    dims = 1


class CircularPad2d(_Circular):
    """The other edge, as on a torus."""

    dims = 2


class CircularPad3d(_Circular):
    """The other edge, as on a torus."""

    dims = 3

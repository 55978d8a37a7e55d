"""Layers that rearrange, resize or pad: Flatten, Fold, PixelShuffle, Upsample, ZeroPad2d.

To pad, the edges of the last one, two or three dims grow, filled as the class says; `padding` is
one number for all edges, or (left, right, top, bottom, front, back).
"""

from __future__ import annotations

from typing import Any, ClassVar

from weft import Tensor
from weft.nn import functional as F
from weft.nn.module import Module, ntuple

__all__ = [
    "ChannelShuffle", "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d",
    "ConstantPad2d", "ConstantPad3d", "Flatten", "Fold", "PixelShuffle", "PixelUnshuffle",
    "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "Unflatten", "Unfold", "Upsample", "UpsamplingBilinear2d",
    "UpsamplingNearest2d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class Flatten(Module):
    """Dims `start_dim` to `end_dim` become one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    _repr_names = "start_dim end_dim"


class Unflatten(Module):
    """Dim `dim` becomes the dims of `unflattened_size`."""

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        if not isinstance(unflattened_size, (tuple, list)):
            raise TypeError(
                "unflattened_size must be a tuple of ints, but found type "
                f"{type(unflattened_size).__name__}"
            )
        for i, n in enumerate(unflattened_size):
            if not isinstance(n, int):
                raise TypeError(
                    "unflattened_size must be tuple of ints, but found element of type "
                    f"{type(n).__name__} at pos {i}"
                )
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    _repr_names = "dim unflattened_size"


class Unfold(Module):
    """The windows of (N, C, H, W) as columns: (N, C kernel area, windows)."""

    def __init__(
        self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    _repr_names = "kernel_size dilation padding stride"


class Fold(Module):
    """The sum of columns put back at their windows: the transpose of Unfold."""

    def __init__(
        self,
        output_size: Any,
        kernel_size: Any,
        dilation: Any = 1,
        padding: Any = 0,
        stride: Any = 1,
    ) -> None:
        super().__init__()
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    _repr_names = "output_size kernel_size dilation padding stride"


class PixelShuffle(Module):
    """(*, C r^2, H, W) -> (*, C, H r, W r), r = upscale_factor"""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    _repr_names = "upscale_factor"


class PixelUnshuffle(Module):
    """(*, C, H r, W r) -> (*, C r^2, H, W), r = downscale_factor"""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    _repr_names = "downscale_factor"


class ChannelShuffle(Module):
    """The channels of (N, C, *), dealt out over `groups` groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)

    _repr_names = "groups"


class Upsample(Module):
    """x resized to `size` or by `scale_factor`; `mode` nearest, linear, bilinear, bicubic, ..."""

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.size = size
        if isinstance(scale_factor, tuple):
            self.scale_factor: Any = tuple(float(f) for f in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )  # fmt: skip

    def extra_repr(self) -> str:
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor!r}, mode={self.mode!r}"
        return f"size={self.size!r}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Upsample by the nearest pixel."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample linearly between pixels, corners kept."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class _Pad(Module):
    dims: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = ntuple(padding, 2 * self.dims)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    _repr_names = "padding,"


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

    _repr_names = "padding,"


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

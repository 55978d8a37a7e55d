"""Images sampled at computed places: affine_grid makes the places, grid_sample reads them.

Coordinates run from -1 to 1 across the image: with align_corners between the centres of the corner
pixels, without between their outer edges.   Source: Jaderberg et al. 2015.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.core.types import numel, wholes
from weft.ops.cast import cast
from weft.ops.contract import matmul
from weft.ops.dispatch import dtype_of, shape_of, wrap
from weft.ops.gather import gather
from weft.ops.resize import far, near
from weft.ops.unary import abs, floor, round
from weft.ops.view import expand, reshape, transpose, unsqueeze

_CHANGED = (
    "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. "
    "Please specify align_corners=True if the old behavior is desired. See the documentation of "
    "grid_sample for details."
)


def _centres(n: int, align_corners: bool) -> np.ndarray:
    """The coordinates of n pixels' centres."""
    if align_corners:
        return np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1)
    return (2 * np.arange(n) + 1.0) / n - 1.0


def affine_grid(theta: Any, size: Sequence[int], align_corners: bool | None = None) -> Any:
    """(N, H, W, 2): theta (N, 2, 3) applied to (x, y, 1) of each pixel; also (N, 3, 4) in 3-d."""
    if align_corners is None:
        warnings.warn(_CHANGED, stacklevel=2)
        align_corners = False
    if dtype_of(theta).category != dt.FLOAT:
        raise ValueError(
            f"Expected theta to have floating point type, but got torch.{dtype_of(theta).name}"
        )
    size = wholes(size, "affine_grid", "size")
    n = len(size) - 2
    if n not in (2, 3):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, "
            f"respectively. Got size {size}."
        )
    if shape_of(theta)[1:] != (n, n + 1):
        raise ValueError(
            f"Expected a batch of {n}D affine matrices of shape Nx{n}x{n + 1} for size {size}. Got "
            f"torch.Size({list(shape_of(theta))})."
        )
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    axes = [_centres(int(k), align_corners) for k in size[2:]]
    mesh = np.meshgrid(*axes, indexing="ij")[::-1]  # x runs along the last dim
    base = np.stack([*mesh, np.ones_like(mesh[0])], -1).reshape(-1, n + 1)
    points = wrap(base.astype(dtype_of(theta).np))
    return reshape(matmul(points, transpose(theta, 1, 2)), (int(size[0]), *map(int, size[2:]), n))


def _pixel(x: Any, n: int, align_corners: bool) -> Any:
    """Coordinates as places: -1..1 to 0..n-1, or to -1/2..n-1/2."""
    return (x + 1) * ((n - 1) / 2) if align_corners else ((x + 1) * n - 1) / 2


def _within(at: Any, n: int, mode: str, align_corners: bool) -> Any:
    """Places brought into the image: border stops at the edge, reflection comes back from it."""
    if mode == "zeros":
        return at
    if mode == "reflection":
        low, span = (0.0, float(n - 1)) if align_corners else (-0.5, float(n))
        if span == 0:
            at = at * 0.0
        else:
            distance = abs(at - low)
            turns = floor((distance / span).detach())
            rest = distance - turns * span
            at = rest.where(turns % 2 == 0, span - rest) + low
    # not clamp: its bounds make a kernel a size, and on the edge itself torch's slope is 0
    return at.where(at > 0, 0.0).where(at < n - 1, n - 1.0)


def _read(image: Any, *places: Any) -> Any:
    """image (N, C, H, W) at whole places y, x (N, h, w); 0 outside.  Result (N, C, h, w).

    With a depth: (N, C, D, H, W) at z, y, x (N, d, h, w).  A place on the tape gets a slope of 0.
    """
    n, c, *sizes = shape_of(image)
    inside: Any = None
    at: Any = None
    for k, size in zip(places, sizes, strict=True):
        within = (k >= 0) & (k <= size - 1)
        inside = within if inside is None else inside & within
        whole = cast(k.where(within, 0.0), dt.int64)
        at = whole if at is None else at * size + whole
    shape = shape_of(at)[1:]
    flat = expand(reshape(at, (n, 1, numel(shape))), (n, c, numel(shape)))
    values = gather(reshape(image, (n, c, numel(sizes))), 2, flat)
    outside: Any = 0.0
    for k in places:
        if k.requires_grad:  # a zero that comes from it, even where it is NaN
            outside = outside + unsqueeze(k.where(inside & (k < 0), 0.0), 1)
    return reshape(values, (n, c, *shape)).where(unsqueeze(inside, 1), outside)


def grid_sample(
    input: Any,
    grid: Any,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Any:
    """y[n, c, i, j] = input[n, c] at the place grid[n, i, j] = (x, y); (N, C, H, W), (N, h, w, 2).

    Also volumes (N, C, D, H, W) at (x, y, z), grid (N, d, h, w, 3).
    mode: bilinear, nearest, bicubic (not of volumes).  padding_mode: what lies outside (zeros,
    border, reflection).
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', "
            f"but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: '{padding_mode}'"
        )
    if align_corners is None:
        warnings.warn(_CHANGED, stacklevel=2)
        align_corners = False
    image, places = shape_of(input), shape_of(grid)
    n = len(image) - 2
    if n not in (2, 3) or len(places) != n + 2 or image[0] != places[0] or places[-1] != n:
        raise RuntimeError(
            "grid_sampler(): expected 4D or 5D input and a grid of the same batch size, (N, H, W, "
            f"2) or (N, D, H, W, 3), but got input with sizes {list(image)} and grid with sizes "
            f"{list(places)}"
        )
    if 0 in image[2:]:
        raise RuntimeError(
            "grid_sampler(): expected input to have non-empty spatial dimensions, but input has "
            f"sizes {list(image)}"
        )
    sizes = image[2:]
    at = [_pixel(grid[..., n - 1 - k], sizes[k], align_corners) for k in range(n)]
    if mode == "bicubic":
        if n == 3:
            raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
        y, x = at
        return _bicubic(input, y, x, padding_mode, align_corners)
    at = [_within(p, k, padding_mode, align_corners) for p, k in zip(at, sizes, strict=True)]
    if mode == "nearest":
        return _read(input, *(round(p) for p in at))
    corner = [floor(p.detach()) for p in at]
    rest = [p - q for p, q in zip(at, corner, strict=True)]
    out = None
    for far_side in itertools.product((0, 1), repeat=n):
        weight = None
        for d, side in zip(rest, far_side, strict=True):
            share = d if side else 1 - d
            weight = share if weight is None else weight * share
        place = (p + 1 if side else p for p, side in zip(corner, far_side, strict=True))
        part = _read(input, *place) * unsqueeze(weight, 1)
        out = part if out is None else out + part
    return out


def _bicubic(image: Any, y: Any, x: Any, padding_mode: str, align_corners: bool) -> Any:
    h, w = shape_of(image)[2:]
    top, left = floor(y.detach()), floor(x.detach())

    def weights(t: Any) -> list:
        return [unsqueeze(k, 1) for k in (far(t + 1), near(t), near(1 - t), far(2 - t))]

    rows, columns = weights(y - top), weights(x - left)
    out = None
    for i, row in enumerate(rows):
        at_y = _within(top + (i - 1), h, padding_mode, align_corners)
        line = None
        for j, column in enumerate(columns):
            at_x = _within(left + (j - 1), w, padding_mode, align_corners)
            part = _read(image, at_y, at_x) * column
            line = part if line is None else line + part
        out = line * row if out is None else out + line * row
    return out

"""Images sampled at computed places: affine_grid makes the places, grid_sample reads them.

Coordinates run from -1 to 1 across the image: with align_corners between the centres of the corner
pixels, without between their outer edges.   Source: Jaderberg et al. 2015.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.core import dtype as dt
from weft.ops.cast import cast
from weft.ops.contract import matmul
from weft.ops.dispatch import dtype_of, shape_of, wrap
from weft.ops.gather import gather
from weft.ops.pointwise import clamp
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
    return clamp(at, 0, n - 1)


def _read(image: Any, y: Any, x: Any) -> Any:
    """image (N, C, H, W) at whole places y, x (N, h, w); 0 outside.  Result (N, C, h, w)."""
    n, c, h, w = shape_of(image)
    inside = (y >= 0) & (y <= h - 1) & (x >= 0) & (x <= w - 1)
    at = cast(clamp(y, 0, h - 1), dt.int64) * w + cast(clamp(x, 0, w - 1), dt.int64)
    shape = shape_of(at)[1:]
    flat = expand(reshape(at, (n, 1, shape[0] * shape[1])), (n, c, shape[0] * shape[1]))
    values = gather(reshape(image, (n, c, h * w)), 2, flat)
    return reshape(values, (n, c, *shape)).where(unsqueeze(inside, 1), 0.0)


def grid_sample(
    input: Any,
    grid: Any,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Any:
    """y[n, c, i, j] = input[n, c] at the place grid[n, i, j] = (x, y); (N, C, H, W), (N, h, w, 2).

    mode: bilinear, nearest, bicubic.  padding_mode: what lies outside (zeros, border, reflection).
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
    if len(image) == 5:
        raise NotImplementedError("grid_sample: 5-D input is not supported")
    if len(image) != 4 or len(places) != 4 or image[0] != places[0] or places[3] != 2:
        raise RuntimeError(
            "grid_sampler(): expected 4D input and a grid (N, H, W, 2) of the same batch size, but "
            f"got input with sizes {list(image)} and grid with sizes {list(places)}"
        )
    h, w = image[2:]
    x = _pixel(grid[..., 0], w, align_corners)
    y = _pixel(grid[..., 1], h, align_corners)
    if mode == "bicubic":
        return _bicubic(input, y, x, padding_mode, align_corners)
    x = _within(x, w, padding_mode, align_corners)
    y = _within(y, h, padding_mode, align_corners)
    if mode == "nearest":
        return _read(input, round(y.detach()), round(x.detach()))
    top, left = floor(y.detach()), floor(x.detach())
    dy, dx = y - top, x - left
    corners = (
        (top, left, (1 - dy) * (1 - dx)), (top, left + 1, (1 - dy) * dx),
        (top + 1, left, dy * (1 - dx)), (top + 1, left + 1, dy * dx),
    )  # fmt: skip
    out = None
    for at_y, at_x, weight in corners:
        part = _read(input, at_y, at_x) * unsqueeze(weight, 1)
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

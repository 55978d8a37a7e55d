"""Fractional pools against their definition; segments against NumPy; halves beside numbers."""

import numpy as np
import pytest

import weft
from weft.nn import functional as F


def starts(u, n, k, m):
    step = (n - k) / (m - 1) if m > 1 else 0.0
    return [int((i + u) * step) - int(u * step) for i in range(m - 1)] + [n - k]


@pytest.mark.parametrize(
    ("size", "kernel", "out"), [((7, 9), (2, 3), (3, 4)), ((5, 5), (1, 1), (1, 5))]
)
def test_fractional_pool_takes_the_largest_of_its_windows(size, kernel, out):
    rng = np.random.default_rng(0)
    x, u = rng.standard_normal((2, 3, *size)), rng.random((2, 3, 2))
    t = weft.from_numpy(x).requires_grad_()
    y, at = F.fractional_max_pool2d(
        t, kernel, out, return_indices=True, _random_samples=weft.from_numpy(u)
    )
    y.sum().backward()
    grad = np.zeros_like(x)
    for n, c in np.ndindex(2, 3):
        rows = starts(u[n, c, 1], size[0], kernel[0], out[0])
        cols = starts(u[n, c, 0], size[1], kernel[1], out[1])
        for i, a in enumerate(rows):
            for j, b in enumerate(cols):
                window = x[n, c, a : a + kernel[0], b : b + kernel[1]]
                p, q = np.unravel_index(window.argmax(), window.shape)
                assert y[n, c, i, j].item() == window.max()
                assert at[n, c, i, j].item() == (a + p) * size[1] + b + q
                grad[n, c, a + p, b + q] += 1
    np.testing.assert_array_equal(t.grad.numpy(), grad)


def test_fractional_pool_of_a_volume_and_its_errors():
    x = weft.arange(2 * 4 * 5 * 6.0).reshape(2, 4, 5, 6)
    y = F.fractional_max_pool3d(x, 2, output_ratio=0.5)
    assert tuple(y.shape) == (2, 2, 2, 3)
    assert y[1, 1, 1, 2].item() == x.max().item()  # the last window ends at the edge
    with pytest.raises(ValueError, match="output_size or an output_ratio"):
        F.fractional_max_pool2d(x, 2)
    with pytest.raises(RuntimeError, match="too large"):
        F.fractional_max_pool2d(x, 4, 4)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "prod"])
def test_segments(reduce):
    x = np.random.default_rng(1).standard_normal((6, 2))
    lengths = [2, 0, 3, 1]
    y = weft.segment_reduce(weft.from_numpy(x), reduce, lengths=weft.tensor(lengths))
    fn = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod}[reduce]
    nothing = {"sum": 0.0, "mean": np.nan, "max": -np.inf, "min": np.inf, "prod": 1.0}[reduce]
    for row, a, n in zip(y.numpy(), np.cumsum([0, *lengths]), lengths, strict=False):
        want = fn(x[a : a + n], 0) if n else np.full(2, nothing)
        np.testing.assert_allclose(row, want, rtol=1e-12)
    offsets = weft.tensor(np.cumsum([0, *lengths]).tolist())
    z = weft.segment_reduce(weft.from_numpy(x), reduce, offsets=offsets)
    np.testing.assert_array_equal(z.numpy(), y.numpy())
    with pytest.raises(RuntimeError, match="all rows of lengths"):
        weft.segment_reduce(weft.from_numpy(x), reduce, lengths=weft.tensor([2, 2]))


@pytest.mark.parametrize("dtype", [weft.float16, weft.bfloat16])
def test_a_number_beside_a_half_is_not_rounded_to_one(dtype):
    x = weft.tensor([1.0, 0.3, -3.0, 300.0]).to(dtype)
    wide = x.float()
    for c in (1e5, 0.1, 1 / 3):
        for got, want in [
            (x * c, wide * c), (c * x, wide * c), (x / c, wide / c), (x // c, wide // c),
            (x.clone().mul_(c), wide * c), (x * weft.tensor(c), wide * c),
        ]:  # fmt: skip
            assert got.dtype is dtype
            assert got.tolist() == want.to(dtype).tolist(), c
    assert (x / 1e5)[3].item() != 0
    t = x.clone().requires_grad_()
    (t * 1e5).sum().backward()
    assert t.grad.tolist() == [weft.tensor(1e5).to(dtype).item()] * 4

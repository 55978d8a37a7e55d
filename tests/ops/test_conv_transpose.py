"""conv_transpose3d is the adjoint of conv3d: <conv3d(y, w), x> = <y, conv_transpose3d(x, w)>."""

import numpy as np
import pytest

import weft
from weft import nn
from weft.nn import functional as F

CASES = [
    {},
    {"stride": 2},
    {"stride": (1, 2, 3), "padding": (0, 1, 1), "output_padding": (0, 1, 2)},
    {"dilation": 2, "padding": 1},
    {"groups": 2, "stride": 2, "padding": 1, "output_padding": 1},
]


@pytest.mark.parametrize("kw", CASES, ids=str)
def test_adjoint(kw):
    weft.manual_seed(0)
    groups = kw.get("groups", 1)
    x = weft.randn(2, 4, 3, 4, 2, dtype=weft.float64, requires_grad=True)
    w = weft.randn(4, 6 // groups, 2, 3, 2, dtype=weft.float64, requires_grad=True)
    y = F.conv_transpose3d(x, w, **kw)
    g = weft.randn(*y.shape, dtype=weft.float64)
    back = F.conv3d(g, w, **{k: v for k, v in kw.items() if k != "output_padding"})
    assert back.shape == x.shape
    got, wanted = (y * g).sum(), (back * x).sum()
    np.testing.assert_allclose(got.item(), wanted.item(), rtol=1e-9)
    for a, b in zip(weft.autograd.grad(got, (x, w)), weft.autograd.grad(wanted, (x, w))):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("groups", "channels", "kernel", "kw"),
    [
        (1, (4, 6), (2, 3, 2), {"stride": (2, 1, 2), "padding": (1, 0, 2)}),
        (2, (4, 6), (3, 2, 2), {"dilation": (2, 1, 1), "padding": (2, 1, 0)}),
        (4, (4, 4), (3, 3, 1), {"padding": 1}),
        (4, (4, 8), (2, 1, 2), {}),
        (2, (4, 6), (3, 1, 1), {"stride": (2, 1, 1), "padding": (2, 0, 0)}),
        (1, (4, 6), (1, 1, 1), {"stride": (1, 2, 1)}),
    ],
)
def test_a_depth_is_one_sum_more(groups, channels, kernel, kw):
    """conv3d beside a sum over the taps of conv2d's image by image, in float64."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, channels[0], 5, 4, 6))
    w = rng.standard_normal((channels[1], channels[0] // groups, *kernel))
    bias = rng.standard_normal(channels[1])
    got = F.conv3d(*map(weft.from_numpy, (x, w, bias)), groups=groups, **kw)
    s, p, d = (
        (v,) * 3 if isinstance(v := kw.get(name, default), int) else v
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    x = np.pad(x, ((0, 0), (0, 0), *((n, n) for n in p)))
    wanted = np.zeros(got.shape) + bias[:, None, None, None]
    for z in range(got.shape[2]):
        for at in range(kernel[0]):
            image = weft.from_numpy(np.ascontiguousarray(x[:, :, z * s[0] + at * d[0]]))
            tap = weft.from_numpy(np.ascontiguousarray(w[:, :, at]))
            y = F.conv2d(image, tap, stride=s[1:], dilation=d[1:], groups=groups)
            wanted[:, :, z] += y.numpy()
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match=r"channel: \(1 x 1 x 1\).*: \(1 x 0 x 1\)"):
        F.conv_transpose3d(weft.ones(1, 1, 1, 1, 1), weft.ones(1, 1, 3, 2, 3), padding=1)


def test_the_layer_and_its_sizes():
    layer = nn.ConvTranspose3d(4, 6, 3, stride=2, padding=1, output_padding=1)
    assert layer.weight.shape == (4, 6, 3, 3, 3) and layer.bias.shape == (6,)
    assert layer(weft.randn(1, 4, 3, 4, 5)).shape == (1, 6, 6, 8, 10)
    assert layer(weft.randn(4, 3, 4, 5)).shape == (6, 6, 8, 10)
    with pytest.raises(RuntimeError, match="expected input"):
        layer(weft.randn(1, 3, 3, 4, 5))
    with pytest.raises(RuntimeError, match="output padding must be smaller"):
        F.conv_transpose3d(weft.randn(1, 1, 2, 2, 2), weft.randn(1, 1, 2, 2, 2), output_padding=1)


def test_one_place_is_spread_by_any_stride():
    """Its result is the kernel's, whatever the stride; a long one has no phases to be counted."""
    x, w = weft.randn(2, 3, 1, 1), weft.randn(3, 4, 3, 2)
    for stride, extra in ((1, 0), (4, 1), (2**20, 1), (2**20, 0)):
        y = F.conv_transpose2d(x, w, stride=stride, output_padding=(extra, 0), dilation=2)
        want = F.conv_transpose2d(x, w, stride=5, output_padding=(extra, 0), dilation=2)
        assert y.shape == (2, 4, 5 + extra, 3) and weft.equal(y, want)
    line = F.conv_transpose1d(x[..., 0], w[..., 0], stride=2**30)
    assert weft.allclose(line, weft.einsum("ncl,cok->nok", x[..., 0], w[..., 0]), atol=1e-5)


@pytest.mark.parametrize("stride", [50, (3, 40), (64, 2), 10**5])
def test_windows_far_apart_have_zeros_between_them(stride):
    weft.manual_seed(1)
    x = weft.randn(2, 4, 3, 2, dtype=weft.float64, requires_grad=True)
    w = weft.randn(4, 3, 2, 3, dtype=weft.float64, requires_grad=True)
    bias = weft.randn(6, dtype=weft.float64)
    if stride == 10**5:
        x = x[:, :, :1].detach().requires_grad_()
    kw = {"stride": stride, "padding": (1, 2), "output_padding": (1, 0), "groups": 2}
    y = F.conv_transpose2d(x, w, bias, **kw)
    down, across = stride if isinstance(stride, tuple) else (stride, stride)
    rows, columns = ((n - 1) * s + k for n, s, k in zip(x.shape[2:], (down, across), (2, 3)))
    want = np.zeros((2, 6, rows + 3, columns + 4))
    for o in range(4):
        for c in range(3):
            for i, j in np.ndindex(*x.shape[2:]):
                part = x.detach().numpy()[:, o, i, j, None, None] * w.detach().numpy()[o, c]
                at = slice(i * down, i * down + 2), slice(j * across, j * across + 3)
                want[:, (o // 2) * 3 + c, at[0], at[1]] += part
    want = want[:, :, 1 : 1 + y.shape[2], 2 : 2 + y.shape[3]] + bias.numpy()[:, None, None]
    assert y.shape[2:] == (rows - 1, columns - 4)
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=1e-12, atol=1e-12)
    g = weft.randn(*y.shape, dtype=weft.float64)
    dx, dw = weft.autograd.grad((y * g).sum(), (x, w))
    back = {k: v for k, v in kw.items() if k != "output_padding"}
    np.testing.assert_allclose(
        dx.numpy(), F.conv2d(g, w.detach(), **back).numpy(), rtol=1e-9, atol=1e-9
    )
    assert dw.shape == w.shape


def test_the_gradient_of_steps_past_the_kernel():
    x = weft.randn(1, 2, 3, 90, requires_grad=True)
    w = weft.randn(4, 2, 1, 3)
    y = F.conv2d(x, w, stride=(1, 40), padding=(0, 1))
    g = weft.randn(*y.shape)
    (dx,) = weft.autograd.grad(y, x, g)
    want = np.zeros((1, 2, 3, 92))
    for k in range(3):
        want[..., 40 * k : 40 * k + 3] += np.einsum(
            "noh,ocp->nchp", g.numpy()[..., k].astype(float), w.numpy()[:, :, 0].astype(float)
        )
    np.testing.assert_allclose(dx.numpy(), want[..., 1:-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.conv3d(weft.ones(1, 1, 4, 5, 6), weft.ones(1, 1, 1, 2, 2), padding=10**6),
        lambda: F.interpolate(weft.ones(1, 1, 4, 4, 4), scale_factor=10**6, mode="trilinear"),
    ],
)
def test_volumes_that_no_memory_holds_are_refused_at_once(call):
    with pytest.raises(MemoryError, match="can't allocate memory") as e:
        call()
    assert isinstance(e.value, RuntimeError)  # torch's class

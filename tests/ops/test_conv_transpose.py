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

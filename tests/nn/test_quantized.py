"""Quantized layers against the float arithmetic that they stand for; whole models against float."""

import numpy as np
import pytest

import weft
from weft import nn
from weft.nn.quantized import QuantizedConv2d, QuantizedLinear


def by_hand(x, w, bias, low, high):
    """What the layer means, in float64: x in 255 steps, each row of w in 127 to either side."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    scale = (high - low) / np.float32(255)
    scale = np.where(scale > 0, scale, np.float32(1))
    zero = np.round(-low / scale)
    q = np.clip(np.round(x / scale) + zero, 0, 255)
    step = np.abs(w).max(1) / np.float32(127)
    step = np.where(step > 0, step, np.float32(1))
    wq = np.clip(np.round(w / step[:, None]), -127, 127)
    return (q - zero).astype(np.float64) @ wq.T.astype(np.float64) * (scale * step) + bias


@pytest.mark.parametrize("k,n", [(8, 5), (50, 70), (3, 1), (129, 64)])
def test_a_static_linear_layer_is_its_formula(k, n):
    weft.manual_seed(0)
    layer = nn.Linear(k, n)
    x = weft.randn(9, k)
    q = QuantizedLinear(layer, (x.amin(), x.amax()))
    w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    want = by_hand(x.numpy(), w, b, x.numpy().min(), x.numpy().max())
    np.testing.assert_allclose(q(x).numpy(), want, rtol=1e-5, atol=1e-5)


def test_dynamic_rows_do_not_see_each_other():
    weft.manual_seed(0)
    q = QuantizedLinear(nn.Linear(20, 30))
    x = weft.randn(4, 6, 20) * weft.tensor([1.0, 100.0, 0.01, 0.0]).reshape(4, 1, 1)
    whole = q(x)
    for i in range(4):
        assert q(x[i]).numpy().tobytes() == whole[i].numpy().tobytes()
    np.testing.assert_array_equal(whole[3].numpy(), q.bias.expand(6, 30).numpy())  # zeros stay 0


@pytest.mark.parametrize(
    "channels,kernel,stride,padding", [(3, 3, 1, 1), (8, 1, 2, 0), (5, 3, 2, 2)]
)
def test_a_convolution_is_near_the_float_one(channels, kernel, stride, padding):
    weft.manual_seed(0)
    layer = nn.Conv2d(channels, 12, kernel, stride, padding)
    x = weft.randn(2, channels, 11, 9)
    for seen in ((x.amin(), x.amax()), None):
        got, want = QuantizedConv2d(layer, seen)(x), layer(x).detach()
        assert got.shape == want.shape
        noise = (got - want).square().mean().sqrt() / want.square().mean().sqrt()
        assert noise < 0.02  # 8 bits of range 2 * 3.5 sigma: about 1 %


def test_zeros_around_an_image_are_zeros():
    layer = nn.Conv2d(4, 1, 3, padding=1, bias=False)
    weft.nn.init.ones_(layer.weight)
    x = weft.full((1, 4, 3, 3), 5.0)
    q = QuantizedConv2d(layer, (weft.tensor(-3.0), weft.tensor(5.0)))
    np.testing.assert_allclose(q(x).numpy(), layer(x).detach().numpy(), rtol=0.01)


def model():
    weft.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(),
        nn.Linear(8 * 6 * 6, 10),
    )  # fmt: skip


def test_a_model_and_its_report():
    m, batches = model(), [weft.randn(5, 3, 8, 8) for _ in range(3)]
    before = m(batches[0]).detach()
    small = weft.quantize(m, batches)
    report = small.quantization
    assert [x.note for x in report.layers] == ["", "groups or dilation", ""]
    assert all(x.decibels > 30 for x in report.layers if not x.note)
    assert report.relative < 0.03 and report.agreement > 0.8
    assert report.largest == pytest.approx(
        max((small(b) - m(b).detach()).abs().max().item() for b in batches)
    )
    assert "float32: groups or dilation" in str(report) and " dB" in str(report)
    np.testing.assert_array_equal(m(batches[0]).detach().numpy(), before.numpy())  # m is as it was
    compiled = weft.compile(small)
    for b in batches:
        assert compiled(b).numpy().tobytes() == small(b).numpy().tobytes()


def test_what_stays_in_float():
    m, batches = model(), [weft.randn(2, 3, 8, 8)]
    kept = weft.quantize(m, batches, skip=["4"])
    assert [type(x).__name__ for x in kept] == [
        "QuantizedConv2d",
        "ReLU",
        "Conv2d",
        "Flatten",
        "Linear",
    ]
    with pytest.raises(ValueError, match="no module named"):
        weft.quantize(m, batches, skip=["head"])
    with pytest.raises(ValueError, match="calibration"):
        weft.quantize(m, activations="static")
    with pytest.raises(ValueError, match="dynamic"):
        weft.quantize(m, activations="int4")
    assert type(weft.quantize(nn.Linear(3, 2))).__name__ == "QuantizedLinear"


def test_a_saved_quantized_model_gives_the_same_bits(tmp_path):
    m, x = model(), weft.randn(4, 3, 8, 8)
    small = weft.quantize(m, [x])
    weft.save(small, tmp_path / "q.weft", x)
    file = weft.load(tmp_path / "q.weft")
    got = file.run({"input": x.numpy()})["output"]
    assert got.tobytes() == small(x).numpy().tobytes()

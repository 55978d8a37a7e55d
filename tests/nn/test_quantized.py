"""Quantized layers against the float arithmetic that they stand for; whole models against float."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest

import weft
from weft import byte_image, nn
from weft.nn import quantized
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
    assert [x.note for x in report.layers] == ["", "groups of 4 channels to 4", ""]
    assert all(x.decibels > 30 for x in report.layers if not x.note)
    assert report.relative < 0.03 and report.agreement > 0.8
    assert report.largest == pytest.approx(
        max((small(b) - m(b).detach()).abs().max().item() for b in batches)
    )
    assert "float32: groups of 4 channels" in str(report) and " dB" in str(report)
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


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_sums_that_int32_does_not_hold_stay_in_float(activations):
    for layer, shape, n in (
        (nn.Linear(65_532, 2), (3, 65_532), 0),
        (nn.Linear(65_533, 2), (3, 65_533), 65_536),
        (nn.Conv2d(1338, 2, 7), (1, 1338, 7, 7), 65_660),
    ):
        q = weft.quantize(nn.Sequential(layer), [weft.randn(shape)], activations=activations)
        assert q.quantization.layers[0].note == (f"sums of {n} products" if n else "")


def test_a_saved_quantized_model_gives_the_same_bits(tmp_path):
    m, x = model(), weft.randn(4, 3, 8, 8)
    small = weft.quantize(m, [x])
    weft.save(small, tmp_path / "q.weft", x)
    file = weft.load(tmp_path / "q.weft")
    got = file.run({"input": x.numpy()})["output"]
    assert got.tobytes() == small(x).numpy().tobytes()


# ------------------------------------------------------------------------ bytes between layers


class Block(nn.Module):
    """A bottleneck as users write it; `how` spells the same sums and clamps in several ways."""

    def __init__(self, cin, width, cout, stride, how):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=how == "in place")
        self.conv3, self.bn3 = nn.Conv2d(width, cout, 1, bias=False), nn.BatchNorm2d(cout)
        self.down = None
        if stride != 1 or cin != cout:
            conv = nn.Conv2d(cin, cout, 1, stride, bias=False)
            self.down = nn.Sequential(conv, nn.BatchNorm2d(cout))
        self.how = how

    def forward(self, x):
        before = x if self.down is None else self.down(x)
        if self.how == "functions":
            y = weft.relu(self.bn1(self.conv1(x)))
            y = nn.functional.relu(self.bn2(self.conv2(y)))
            return weft.relu(self.bn3(self.conv3(y)) + before)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.how == "in place":
            y += before
            return self.relu(y)
        return weft.add(y, before).clamp(min=0) if self.how == "clamp" else self.relu(y + before)


def resnet(how="modules"):
    weft.manual_seed(1)
    m = nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), Block(16, 8, 32, 1, how), Block(32, 12, 32, 1, how),
        Block(32, 16, 40, 2, how), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 6),
    )  # fmt: skip
    with weft.no_grad():
        for x in m.modules():
            if isinstance(x, nn.BatchNorm2d):
                nn.init.uniform_(x.weight, -1.5, 1.5)  # negative ones turn a channel round
                nn.init.normal_(x.bias, 0, 0.3)
                x.momentum = 0.5
        for _ in range(4):
            m(weft.randn(8, 3, 40, 36))
    return m.eval()


def count_conversions(monkeypatch):
    counts = Counter()

    def count(room, name):
        real = getattr(room, name)

        def counted(*args):
            counts[name] += 1
            return real(*args)

        monkeypatch.setattr(room, name, counted)

    count(quantized, "image_to_bytes")
    count(byte_image, "become_floats")
    count(byte_image, "bytes_max_pool")
    return counts


def _by_state_dict(q, path, **how):
    """Into a model that was calibrated on something else."""
    weft.save(q.state_dict(), path)
    other = weft.quantize(resnet(), [weft.rand(2, 3, 40, 36) * 0.1])
    other(weft.ones(1, 3, 40, 36))  # what it has kept of its own numbers
    assert str(other.load_state_dict(weft.load(path), **how)) == "<All keys matched successfully>"
    return other


KEPT = {
    ".weft": lambda q, p: _by_state_dict(q, p / "q.weft"),
    ".safetensors": lambda q, p: _by_state_dict(q, p / "q.safetensors"),
    ".pt": lambda q, p: _by_state_dict(q, p / "q.pt"),
    "assigned": lambda q, p: _by_state_dict(q, p / "q.pt", assign=True),
    "pickle": lambda q, p: pickle.loads(pickle.dumps(q)),
    "deepcopy": lambda q, p: copy.deepcopy(q),
    "a copy of a copy": lambda q, p: copy.deepcopy(pickle.loads(pickle.dumps(q))),
}


@pytest.mark.parametrize("how", KEPT)
def test_a_network_that_was_kept_gives_the_same_bits(how, tmp_path):
    q = weft.quantize(resnet(), [weft.randn(8, 3, 40, 36)])
    x = weft.randn(3, 3, 40, 36)
    wanted = q(x).numpy().tobytes()
    other = KEPT[how](q, tmp_path)
    assert other(x).numpy().tobytes() == wanted
    fast = weft.compile(other)
    assert all(fast(x).numpy().tobytes() == wanted for _ in range(3))
    assert [m.grids for m in other.modules() if isinstance(m, QuantizedConv2d)] == [
        m.grids for m in q.modules() if isinstance(m, QuantizedConv2d)
    ]


def test_grids_that_are_none():
    q = weft.quantize(nn.Conv2d(3, 4, 3), [weft.randn(1, 3, 5, 5)])
    for wrong in (None, weft.zeros(3), weft.zeros(2, 5)):
        with pytest.raises(RuntimeError, match="rows of 6 numbers"):
            q.load_state_dict({**q.state_dict(), "_extra_state": wrong})


@pytest.mark.parametrize("how", ["modules", "functions", "in place", "clamp"])
def test_a_residual_network_stays_in_bytes(how, monkeypatch):
    m, batches = resnet(how), [weft.randn(8, 3, 40, 36) for _ in range(3)]
    q = weft.quantize(m, batches)
    assert q.quantization.relative < 0.06 and q.quantization.agreement > 0.85
    x = batches[0]
    counts = count_conversions(monkeypatch)
    q(x)  # floats at both ends only: the image, and what the last pool takes the mean of
    assert counts == {"image_to_bytes": 1, "bytes_max_pool": 1, "become_floats": 1}
    want = q(x).numpy().tobytes()
    for compiled in (weft.compile(q), weft.compile(q, replay=True)):
        with weft.no_grad():
            assert all(compiled(x).numpy().tobytes() == want for _ in range(7))
    assert compiled.stats["replay"] == "on" and compiled.stats["replayed"] > 0
    one = q(x[3:4]).numpy()  # a row does not see its neighbours
    assert one.tobytes() == q(x)[3:4].numpy().tobytes()


def test_the_ways_to_spell_a_block_give_the_same_bytes():
    x = weft.randn(2, 3, 40, 36)
    results = {
        how: weft.quantize(resnet(how), [x])(x).numpy().tobytes()
        for how in ("modules", "functions", "in place", "clamp")
    }
    assert len(set(results.values())) == 1


def test_bytes_follow_their_formula():
    """conv, norm, sum with another image, clamp: against NumPy, number by number."""
    weft.manual_seed(2)
    m = resnet()
    block = m[5]
    x = weft.randn(2, 32, 6, 5).relu()
    q = weft.quantize(block, [x])
    conv1, conv3 = q.conv1, q.conv3
    got = q(x).numpy()

    def layer(layer, norm, bytes_, grid):
        w = layer.panels.numpy().transpose(0, 2, 1, 3).reshape(64, -1)[: layer.out_features]
        sums = np.pad(
            bytes_.astype(np.int64) - grid.zero, [(0, 0)] * 3 + [(0, w.shape[1] - bytes_.shape[-1])]
        ) @ w.T.astype(np.int64)
        y = sums * (layer.scale.numpy().astype(np.float64) * grid.scale)
        a = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy() + norm.eps)
        return (y - norm.running_mean.numpy()) * a + norm.bias.detach().numpy()

    def to(y, grid):
        return np.clip(np.round(y / grid.scale) + grid.zero, 0, 255)

    inside = []
    hook = conv3.register_forward_pre_hook(
        lambda _, args: inside.append((args[0].resolve(conv3.grid()), args[0]._bytes.numpy()))
    )
    q(x)
    hook.remove()
    first = to(x.numpy().transpose(0, 2, 3, 1), conv1.grid())
    y1 = to(np.maximum(layer(conv1, q.bn1, first, conv1.grid()), 0), q.conv2.grid())
    assert y1.shape == (2, 6, 5, 12)
    ((resolved, last),) = inside
    assert resolved and last.dtype == np.uint8
    y3 = layer(conv3, q.bn3, last, conv3.grid())
    want = np.maximum(y3 + x.numpy().transpose(0, 2, 3, 1), 0).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, want, atol=1e-4)  # x is no image of bytes: floats are added


class Odd(nn.Module):
    """What is done with a layer's result that bytes have no rule for."""

    def __init__(self, what):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.what = what

    def forward(self, x):
        y = self.a(x)
        return self.what(self, y)


def _in_place_seen_by_all(m, y):
    z = y
    z += m.b(y)
    return y * 2 + z


def norm(y):
    """Of evaluation; it turns signs round, so that it is not the same before a relu."""
    return nn.functional.batch_norm(y, weft.full((8,), 0.3), weft.ones(8), weft.full((8,), -2.0))


def _norm_in_training(m, y):
    return nn.functional.batch_norm(m.b(y), None, None, training=True)


ODD = {
    "sigmoid gate": lambda m, y: m.b(y) * y.mean((2, 3), keepdim=True).sigmoid(),
    "cat": lambda m, y: weft.cat([y, m.b(y.relu())], 1),
    "sum with itself": lambda m, y: m.b(y + y),
    "sum of two sums": lambda m, y: (m.b(y) + y) + (m.b(y.relu()) + y),
    "sum broadcast": lambda m, y: m.b(y) + y[:, :1],
    "sum with a number": lambda m, y: (m.b(y) + 1.5).relu(),
    "relu, then norm": lambda m, y: norm(m.b(y).relu()),
    "sum, then norm": lambda m, y: norm(m.b(y) + y),
    "norm, then norm": lambda m, y: norm(norm(m.b(y))),
    "norm in training": _norm_in_training,
    "write in place": _in_place_seen_by_all,
    "multiply in place": lambda m, y: y.mul_(2) + m.b(y),
    "index": lambda m, y: m.b(y)[:, 2:5, ::2],
    "view": lambda m, y: m.b(y).view(y.size(0), -1),
    "both ways": lambda m, y: m.b(y.relu()) + m.b(y) * y.shape[1],
    "pool with a rest": lambda m, y: m.b(nn.functional.max_pool2d(y, 2, ceil_mode=True)),
    "relu6 and hardtanh": lambda m, y: nn.functional.hardtanh(m.b(nn.functional.relu6(y)), -1, 1),
    "clamps that exclude one another": lambda m, y: (
        m.b(y).clamp(min=3).clamp(-4, 1) + y.clamp(max=-1).relu()
    ),
    "dropout": lambda m, y: nn.functional.dropout(m.b(y), 0.5, training=False),
    "list": lambda m, y: [y, {"b": m.b(y)}],
    "print": lambda m, y: m.b(y) if "tensor" in repr(y) else None,
    "numpy": lambda m, y: m.b(weft.from_numpy(y.numpy() + 0)),
    "pool": lambda m, y: m.b(nn.functional.avg_pool2d(y.relu(), 2)),
    "one image": lambda m, y: m.b(y[0]),
}


def leaves(y):
    if isinstance(y, dict):
        y = list(y.values())
    return [v for a in y for v in leaves(a)] if isinstance(y, (list, tuple)) else [y]


@pytest.mark.parametrize("case", ODD)
def test_anything_else_sees_floats(case):
    weft.manual_seed(3)
    m = Odd(ODD[case]).eval()
    x = weft.randn(2, 4, 7, 9)
    q = weft.quantize(m, [x])
    with weft.no_grad():
        got, want = leaves(q(x)), leaves(m(x))
    for a, b in zip(got, want, strict=True):
        assert type(a) is weft.Tensor and a.shape == b.shape
        noise = (a - b).square().mean().sqrt() / b.square().mean().sqrt()
        assert noise < 0.04, case
    if case not in ("print", "numpy", "list"):
        compiled = weft.compile(q)
        with weft.no_grad():
            for _ in range(3):
                assert compiled(x).numpy().tobytes() == got[0].numpy().tobytes()


def test_new_numbers_of_a_norm_are_seen():
    m, x = resnet(), weft.randn(2, 3, 40, 36)
    q = weft.quantize(m, [x])
    before = q(x).numpy()
    with weft.no_grad():
        q[1].weight.mul_(0.5)
    assert not np.array_equal(q(x).numpy(), before)
    with weft.no_grad():
        q[1].weight.mul_(2)
    np.testing.assert_array_equal(q(x).numpy(), before)


def test_a_layer_alone_and_after_an_error_gives_floats():
    m, x = resnet(), weft.randn(2, 3, 40, 36)
    q = weft.quantize(m, [x])
    for wrong in ((2, 5, 40, 36), (3, 40), (2, 3, 0, 0)):
        with pytest.raises(RuntimeError, match=r"images .N, 3, H, W.*kernel"):
            q(weft.randn(*wrong))
    y = q[0](x)
    assert type(y) is weft.Tensor and y.shape == (2, 16, 20, 18)
    assert type(q[4](q[3](y))) is weft.Tensor


def test_dilation_groups_and_odd_channels():
    weft.manual_seed(4)
    m = nn.Sequential(
        nn.Conv2d(5, 32, 3, padding="same", dilation=2), nn.ReLU6(), nn.Conv2d(32, 34, 3, groups=2),
        nn.ReLU(), nn.Conv2d(34, 7, (1, 3), (2, 1), padding=(0, 1)), nn.Conv2d(7, 7, 3, groups=7),
    ).eval()  # fmt: skip
    x = weft.randn(2, 5, 12, 11)
    q = weft.quantize(m, [x])
    notes = [r.note for r in q.quantization.layers]
    assert notes == ["", "", "", "groups of 1 channels to 1"]
    assert q.quantization.relative < 0.03
    empty = q(x[:0])
    assert empty.shape == (0, 7, 3, 7)


class Inverted(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, and a sum without a clamp behind."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        wide = 3 * cin
        self.layers = nn.Sequential(
            nn.Conv2d(cin, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(), nn.Conv2d(wide, cout, 1, bias=False), nn.BatchNorm2d(cout),
        )  # fmt: skip
        self.sums = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.layers(x) if self.sums else self.layers(x)


def test_a_mobile_network_stays_in_bytes(monkeypatch):
    weft.manual_seed(5)
    m = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), Inverted(8, 12, 1), Inverted(12, 12, 1),
        Inverted(12, 20, 2), Inverted(20, 20, 1), nn.Conv2d(20, 64, 1), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    with weft.no_grad():
        for _ in range(8):
            m(weft.randn(8, 3, 24, 20))
    m.eval()
    x = weft.randn(8, 3, 24, 20)
    q = weft.quantize(m, [x])
    assert not [r for r in q.quantization.layers if r.note]
    assert q.quantization.relative < 0.06
    want, counts = q(x).numpy().tobytes(), count_conversions(monkeypatch)
    q(x)
    assert counts == {"image_to_bytes": 1, "become_floats": 1}
    compiled = weft.compile(q)
    with weft.no_grad():
        assert all(compiled(x).numpy().tobytes() == want for _ in range(3))
    dynamic = weft.quantize(m, [x], activations="dynamic").quantization
    assert [r.note for r in dynamic.layers].count("groups of 1 channels to 1") == 4


def test_layers_share_the_bytes_of_their_input(rng):
    """Of one grid: made once in a compiled program, in the loop that makes the input if it can."""
    q, k, v, out = (nn.Linear(16, 16) for _ in range(4))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.out = q, k, v, out

        def forward(self, x):
            return self.out(weft.relu(self.q(x) * self.k(x) - self.v(x)))

    x = weft.tensor(rng.normal(size=(2, 3, 16)).astype(np.float32))
    net = weft.quantize(Net(), calibration=[(x,)])
    compiled = weft.compile(net)
    with weft.no_grad():
        want = net(x).numpy()
        for _ in range(3):
            np.testing.assert_array_equal(compiled(x).numpy(), want)
        with weft.profile() as p:
            compiled(x)
    names = [e.name for e in p.events()]
    assert sum("QuantizedConv" in n for n in names) == 4
    assert sum("ToBytes" in n for n in names) == 2
    assert any("Relu" in n and "ToBytes" in n for n in names)

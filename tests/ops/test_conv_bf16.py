"""Convolutions of bfloat16 tensors, under autocast and fast math: eager, compiled, gradients."""

import ml_dtypes
import numpy as np
import pytest

import weft
from weft.kernels.schedule.tile import multiplies_pairs

F = weft.nn.functional
pairs = pytest.mark.skipif(not multiplies_pairs(), reason="the host has no products of bfloat16")


@pytest.fixture(autouse=True)
def reset():
    yield
    weft.set_fast_math(False)


def bits(t):
    return t.detach().float().numpy().tobytes()


class Net(weft.nn.Module):
    """Convolutions that end in batch norm, relu and a residual; strides, groups, few channels."""

    def __init__(self):
        super().__init__()
        weft.manual_seed(5)
        nn = weft.nn
        self.stem, self.stem_norm = nn.Conv2d(3, 20, 3, 2, 1, bias=False), nn.BatchNorm2d(20)
        self.one, self.one_norm = nn.Conv2d(20, 40, 1, bias=False), nn.BatchNorm2d(40)
        self.two = nn.Conv2d(40, 40, 3, padding=1, padding_mode="circular", groups=2)
        self.three = nn.Conv2d(40, 20, 3, padding="same", dilation=2, bias=False)
        self.depth, self.few = nn.Conv2d(20, 20, 3, groups=20), nn.Conv2d(20, 4, 1)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        y = F.relu(self.one_norm(self.one(x)))
        y = F.relu(self.three(F.gelu(self.two(y)))) + x
        return self.last(self.few(F.relu(self.depth(y))).mean((2, 3)))


def images(n=3):
    return weft.linspace(-1, 1, n * 3 * 13 * 14).reshape(n, 3, 13, 14).sin()


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=pairs)])
@pytest.mark.parametrize("replay", [False, True])
def test_inference_is_eager_to_the_bit(fast, replay):
    net, x = Net().eval(), images()

    def run(x):
        if fast:
            return net(x)
        with weft.autocast("cpu", dtype=weft.bfloat16):
            return net(x)

    plain = bits(net(x))
    weft.set_fast_math(fast)
    with weft.no_grad():
        compiled, want = weft.compile(run, replay=replay), bits(run(x))
        assert want != plain
        for _ in range(6):
            assert bits(compiled(x)) == want  # at last with packed weights
        net.one.weight.mul_(2)
        assert bits(compiled(x)) == bits(run(x)) != want
        assert compiled.memory().packed and compiled.stats["op_by_op"] == 0


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=pairs)])
@pytest.mark.parametrize("channels", [32, 72, 96, 160])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (14, 14), (3, 33)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_endings_among_the_next_products_are_eager_to_the_bit(rng, channels, size, kernel, fast):
    """Tiles that are whole or not, one panel or several, a residual, rows of which none is left."""
    nn, n = weft.nn, 3
    conv = nn.Conv2d(24, channels, kernel, padding=kernel // 2, bias=False)
    norm, narrow = nn.BatchNorm2d(channels).eval(), nn.Conv2d(channels, 9, 1, bias=False)
    norm.running_mean.copy_(weft.from_numpy(rng.standard_normal(channels, np.float32)))
    x = weft.from_numpy(rng.standard_normal((n, 24, *size), np.float32))
    other = nn.Conv2d(24, channels, 1, bias=False)

    weft.set_fast_math(fast)

    def run(x):
        with weft.autocast("cpu", dtype=weft.bfloat16, enabled=not fast):
            return narrow(F.relu(norm(conv(x)) + other(x)))

    with weft.no_grad():
        want, call = bits(run(x)), weft.compile(run)
        assert [bits(call(x)) for _ in range(3)] == [want] * 3
        one = bits(call(x[1:2]))
    size = len(want) // n
    assert one == want[size : 2 * size]


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=pairs)])
def test_training_is_eager_to_the_bit_and_learns(fast):
    def train(wrap):
        net, x = Net(), images()
        optimizer = weft.optim.SGD(net.parameters(), lr=0.05)
        target = weft.tensor([0, 1, 2])

        def step():
            optimizer.zero_grad()
            with weft.autocast("cpu", dtype=weft.bfloat16, enabled=not fast):
                loss = F.cross_entropy(net(x).float(), target)
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = wrap(step)
        losses = [run() for _ in range(6)]
        assert all(p.grad.dtype is weft.float32 for p in net.parameters())
        return [bits(x) for x in (*losses, *net.parameters())], float(losses[0]), float(losses[-1])

    weft.set_fast_math(fast)
    eager, first, last = train(lambda f: f)
    assert train(weft.compile)[0] == eager and last < first


@pytest.mark.parametrize("window", [(2, 2), (3, 2, 1)], ids=str)
def test_pools_between_convolutions_are_eager_to_the_bit(window):
    """Windows apart leave their cotangents channels last; those that overlap are summed wider."""
    nn, x = weft.nn, images()

    def train(wrap):
        weft.manual_seed(6)
        net = nn.Sequential(
            nn.Conv2d(3, 20, 3), nn.ReLU(), nn.MaxPool2d(*window), nn.Conv2d(20, 24, 3), nn.ReLU(),
            nn.MaxPool2d(*window), nn.Flatten(),
        )  # fmt: skip

        def step():
            for p in net.parameters():
                p.grad = None
            with weft.autocast("cpu"):
                y = net(x)
            (y.float() ** 2).sum().backward()
            return y.detach(), *(p.grad for p in net.parameters())

        run = wrap(step)
        return [[bits(t) for t in run()] for _ in range(4)]

    assert train(weft.compile) == train(lambda f: f)


def test_bfloat16_tensors_in_every_function(rng):
    def values(*shape):
        return weft.tensor(rng.standard_normal(shape).astype("f")).bfloat16()

    cases = [
        (F.conv1d, values(2, 5, 19), values(18, 5, 3), {"stride": 2, "padding": 1}),
        (F.conv2d, values(5, 9, 8), values(18, 5, 3, 3), {"padding": "same"}),
        (F.conv3d, values(1, 5, 4, 6, 7), values(18, 5, 2, 3, 3), {"padding": 1}),
        (F.conv_transpose1d, values(2, 5, 9), values(5, 18, 3), {"stride": 2}),
        (F.conv_transpose2d, values(2, 5, 6, 7), values(5, 18, 3, 3), {"stride": 2, "padding": 1}),
        (F.conv_transpose3d, values(1, 5, 3, 4, 5), values(5, 18, 2, 3, 3), {"stride": 2}),
    ]
    for f, x, w, how in cases:
        bias = values(18)
        for v in (x, w, bias):
            v.requires_grad_()
        y = f(x, w, bias, **how)
        wide = [v.detach().double().requires_grad_() for v in (x, w, bias)]
        want = f(*wide, **how)
        g = weft.randn(y.shape).bfloat16()
        y.backward(g)
        want.backward(g.double())
        for got, exact in [
            (y, want),
            *((a.grad, b.grad) for a, b in zip((x, w, bias), wide, strict=True)),
        ]:
            assert got.dtype is weft.bfloat16
            near = (got.double() - exact).abs().max() / exact.abs().max()
            assert float(near) < 2.0**-6, f.__name__


@pairs
def test_fast_math_rounds_operands_of_its_time(rng):
    x = weft.tensor(rng.standard_normal((2, 33, 9, 9)).astype("f"))
    w = weft.tensor(rng.standard_normal((24, 33, 3, 3)).astype("f")).requires_grad_()
    rounded = lambda t: t.detach().bfloat16().float()
    exact = F.conv2d(x, w)
    weft.set_fast_math(True)
    fast = F.conv2d(x, w)
    few = F.conv2d(x, w[:8])  # outputs too few for a vector: as they are
    weft.set_fast_math(False)
    assert bits(few) == bits(exact[:, :8]) and bits(fast) != bits(exact)
    assert float((fast - F.conv2d(rounded(x), rounded(w))).abs().max()) < 1e-4
    y = F.conv2d(x.requires_grad_(), w)
    weft.set_fast_math(True)
    y.sum().backward()
    g = x.grad
    weft.set_fast_math(False)
    want, exact = (F.conv_transpose2d(weft.ones_like(y), v) for v in (rounded(w), w))
    assert float((g - want).abs().max()) < 1e-4 and bits(g) != bits(exact)


def test_values_of_numpy(rng):
    x, w = rng.standard_normal((2, 30, 6, 7), "f"), rng.standard_normal((20, 30, 1, 1), "f")
    x, w = (a.astype(ml_dtypes.bfloat16).astype("f") for a in (x, w))
    y = F.conv2d(weft.tensor(x).bfloat16(), weft.tensor(w).bfloat16())
    want = np.einsum("ncyx,oc->noyx", x.astype(float), w[..., 0, 0].astype(float))
    assert np.abs(y.float().numpy() - want).max() <= 2.0**-8 * np.abs(want).max()


@pytest.mark.parametrize("channels", [15, 31, 63, 95])
def test_an_odd_last_channel_meets_nothing_of_what_lies_behind(channels):
    """It stands beside a zero: neither beside the next pixel's first number, nor the one behind all
    pixels.
    """
    both = weft.full((2, 6, 7, channels), float("nan")).bfloat16()
    x = both[0].permute(2, 0, 1).unsqueeze(0)  # what lies behind is no number
    x.copy_(weft.randn(x.shape))
    w = weft.randn(20, channels, 3, 3).bfloat16()
    plain = F.conv2d(x.contiguous(), w, padding=1)
    assert plain.isfinite().all() and bool((F.conv2d(x, w, padding=1) == plain).all())
    image = weft.zeros(1, 20, 6, 7).bfloat16().requires_grad_()
    F.conv2d(image, w.transpose(0, 1).contiguous(), padding=1).backward(x)
    assert image.grad.isfinite().all()
    x[0, 0, 2, 3] = float("nan")
    wrong = F.conv2d(x, w, padding=1).isnan().any(1)[0].nonzero().tolist()
    assert wrong == [[row, column] for row in (1, 2, 3) for column in (2, 3, 4)]

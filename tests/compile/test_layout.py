"""Values that lie channels last in a program: eager's bits, whatever reads the convolutions."""

import importlib

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from weft import nn
from weft.compile.fuse import fuse
from weft.compile.passes import run_passes
from weft.compile.passes.layout import channels_last, channels_last_layout
from weft.core import dtype as D
from weft.core.graph import Builder, Graph
from weft.core.types import Type
from weft.ops.cast import Cast
from weft.ops.conv import Conv2d
from weft.ops.pool import MaxPool2d, MaxPool2dInput, MaxPool2dTaps
from weft.ops.softmax import Softmax
from weft.ops.unary import Exp, ReluBack
from weft.ops.view import Reshape, Select, SliceBack


def conv(channels, out, kernel=3, **kw):
    return nn.Conv2d(channels, out, kernel, padding=kernel // 2, **kw)


class Net(nn.Module):
    """Two convolutions with something between and after them."""

    def __init__(self, between, after=None):
        super().__init__()
        self.first, self.second = conv(3, 24), conv(24, 20)
        self.between = between
        self.after = after or (lambda x: x)

    def forward(self, x):
        return self.after(self.second(self.between(self.first(x))))


class Branches(nn.Module):
    """A residual block with batch norm, its shortcut a strided convolution."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 32, 3, stride=2), conv(32, 32), conv(3, 32, 1, stride=2)
        self.na, self.nb, self.nc = (nn.BatchNorm2d(32) for _ in range(3))

    def forward(self, x):
        y = self.nb(self.b(F.relu(self.na(self.a(x)))))
        y = F.relu(y + self.nc(self.c(x)))
        return y, y.mean((2, 3))


NETS = {
    "relu": lambda: Net(F.relu),
    "batch_norm": lambda: Net(nn.Sequential(nn.BatchNorm2d(24), nn.ReLU())),
    "branches": Branches,
    "average": lambda: Net(F.relu, lambda x: F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1)),
    "averages": lambda: Net(lambda x: F.relu(F.adaptive_avg_pool2d(x, (5, 4)))),
    "softmax": lambda: Net(lambda x: F.softmax(x, 1), lambda x: F.log_softmax(x, 1)),
    "cat": lambda: Net(lambda x: weft.cat([x[:, :12], F.relu(x[:, 12:])], 1)),
    "slices": lambda: Net(lambda x: x, lambda x: x[:, ::2, 1:, :-1] * 2),
    "as_strided": lambda: Net(lambda x: x, lambda x: (x * 2).as_strided((2, 5), (7, 1), 3)),
    "group_norm": lambda: Net(nn.GroupNorm(4, 24)),
    "instance_norm": lambda: Net(nn.InstanceNorm2d(24)),
    "layer_norm": lambda: Net(lambda x: x, nn.LayerNorm((20, 9, 7))),
    "flatten": lambda: Net(F.relu, lambda x: F.relu(x).flatten(1) @ weft.ones(1260, 2)),
    "permute": lambda: Net(lambda x: x, lambda x: F.relu(x).permute(0, 2, 3, 1).reshape(-1, 4)),
    "max_pool": lambda: Net(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2)),
    "avg_pool": lambda: Net(nn.AvgPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(2)),
    "upsample": lambda: Net(lambda x: F.interpolate(x[:, :, ::2, ::2], size=(9, 7))),
    "pad": lambda: Net(lambda x: F.pad(x, (1, 1, 0, 0))[..., 1:-1]),
    "shuffle": lambda: Net(nn.ReLU(), nn.PixelShuffle(2)),
    "depthwise": lambda: Net(conv(24, 24, groups=24), F.relu),
    "transposed": lambda: Net(F.relu, nn.ConvTranspose2d(20, 24, 4, 2, 1)),
    "prelu": lambda: Net(nn.PReLU(24), nn.PReLU()),
    "sums": lambda: Net(lambda x: x / x.sum((1, 3), keepdim=True).abs(), lambda x: x.amax(1)),
    "topk": lambda: Net(F.relu, lambda x: x.flatten(2).topk(3)[0]),
    "matmul": lambda: Net(F.relu, lambda x: x @ x.transpose(-1, -2)),
    "gather": lambda: Net(F.relu, lambda x: x[:, [3, 1, 3]]),
}


def outputs(y):
    return y if isinstance(y, tuple) else (y,)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETS)
def test_compiled_is_eager_to_the_bit(name, training):
    results = []
    for compiled in (False, True):
        weft.manual_seed(3)
        net = NETS[name]()
        net.train(training)
        x = weft.randn(2, 3, 9, 7, requires_grad=True)

        def step(net=net, x=x):
            ys = outputs(net(x))
            if not training:
                return ys
            loss = sum((y * y).sum() for y in ys)
            return (*(y.detach() for y in ys), *weft.autograd.grad(loss, [x, *net.parameters()]))

        run = weft.compile(step) if compiled else step
        for _ in range(3):
            found = run()
        results.append([np.asarray(a.detach().numpy()) for a in found])
        results.append([b.numpy() for b in net.buffers()])
    eager, eager_buffers, got, buffers = results
    for a, b in zip(eager + eager_buffers, got + buffers, strict=True):
        assert a.tobytes() == b.tobytes()


def test_what_lies_channels_last():
    b = Builder()
    f32 = D.float32
    x = b.input("x", Type((2, 3, 8, 8), f32))
    w, v, u = (b.input(n, Type(s, f32)) for n, s in (
        ("w", (24, 3, 3, 3)), ("v", (24, 24, 1, 1)), ("u", (1, 24, 1, 1)),
    ))  # fmt: skip
    y = b.node(Exp(), b.node(Conv2d(padding=(1, 1, 1, 1)), x, w))
    last, narrow = b.node(Conv2d(), y, v), b.node(Conv2d(), y, u)
    soft = b.node(Softmax(1), b.node(Exp(), last))
    g = Graph([x, w, v], {"soft": soft})
    # what a softmax reads lies as it is recorded, a convolution's result by channels
    assert channels_last(g, fuse(g)) == {id(y)}
    strides = channels_last_layout(y.type).strides
    assert strides == (24 * 64, 1, 24 * 8, 24)
    # a convolution of one channel does not read so
    g = Graph([x, w, v, u], {"soft": soft, "narrow": narrow})
    assert channels_last(g, fuse(g)) == set()


def test_a_pool_writes_planes_for_whom_no_view_serves():
    b = Builder()
    x, w = (b.input(n, Type(s, D.float32)) for n, s in (("x", (2, 3, 9, 9)), ("w", (24, 3, 2, 2))))
    y = b.node(Exp(), b.node(Conv2d(), x, w))
    pooled = b.node(MaxPool2d((2, 2), (2, 2)), y)
    rows = b.node(Exp(), b.node(Reshape((2, 384)), pooled))
    g = Graph([x, w], {"rows": rows})
    assert channels_last(g, fuse(g)) == {id(y)}
    columns = b.node(Exp(), b.node(Reshape((2, 24, 16)), pooled))  # strides express this one
    g = Graph([x, w], {"columns": columns})
    assert channels_last(g, fuse(g)) == {id(y), id(pooled)}


def test_a_convolution_goes_on_with_what_follows(monkeypatch):
    """In evaluation, batch norm and relu run inside the convolutions' kernels."""
    module = importlib.import_module("weft.compile.program")
    made = []
    init = module.Program.__init__

    def noted(self, *args, **kw):
        init(self, *args, **kw)
        made.append(self)

    monkeypatch.setattr(module.Program, "__init__", noted)
    weft.manual_seed(0)
    net, x = Branches().eval(), weft.randn(2, 3, 16, 16)
    with weft.no_grad():
        want = net(x)[1].numpy().tobytes()
        run = weft.compile(lambda: net(x)[1])
        for _ in range(3):
            assert run().numpy().tobytes() == want
    schedule = made[-1].describe()
    assert "Conv2d Affine Relu" in schedule and "Affine Add Relu Sum" in schedule


@pytest.mark.parametrize("window", [(2, 2), (3, 2, 1), (3, 1)], ids=str)
def test_a_mask_before_a_pool_gives_eagers_bits(window):
    """relu's mask is computed on the pool's gradient before it is spread (canonicalize)."""
    weft.manual_seed(3)
    x = weft.randn(2, 5, 9, 11)
    x[0, 1, 2, 3], x[1, 4] = float("nan"), -1.0
    g = weft.randn(F.max_pool2d(x, *window).shape)
    g[0, 0, 0, 0] = -0.0

    def gradient(x):
        x = x.detach().requires_grad_()
        F.max_pool2d(F.relu(x), *window).backward(g)
        return x.grad

    compiled = weft.compile(gradient)
    want = gradient(x).numpy().tobytes()
    assert all(compiled(x).numpy().tobytes() == want for _ in range(3))

    b = Builder()
    slope, r = (
        b.input("g", Type((1, 2, 4, 4), D.float32)),
        b.input("r", Type((1, 2, 8, 8), D.float32)),
    )
    taps = b.node(MaxPool2dTaps((2, 2), (2, 2)), r)
    back = b.node(MaxPool2dInput((2, 2), (2, 2), size=(8, 8)), slope, taps)
    graph = run_passes(Graph([slope, r], {"y": b.node(ReluBack(), back, r)}))
    masked = next(n for n in graph.nodes() if isinstance(n.op, ReluBack))
    assert masked.type.shape == (1, 2, 4, 4)
    assert isinstance(graph.outputs["y"].op, MaxPool2dInput)


def test_parts_are_cast_not_their_wholes():
    """Of chains too; few selects of a whole leave it one cast (canonicalize)."""
    b = Builder()
    x, g = b.input("x", Type((9, 2, 8, 4), D.float32)), b.input("g", Type((1, 1), D.bfloat16))
    once = b.node(Cast(D.float64), b.node(Cast(D.bfloat16), x))
    wide = b.node(SliceBack(1, 2, 1, 5), b.node(SliceBack(0, 0, 1, 9), g))
    outputs = {
        "select": b.node(Select(0, 8), once),
        "few": b.node(Select(1, 1), once),
        "wide": b.node(Cast(D.float32), wide),
    }
    graph = run_passes(Graph([x, g], outputs))
    sizes = [n.type.shape for n in graph.nodes() if isinstance(n.op, Cast)]
    assert sorted(sizes) == sorted([(2, 8, 4)] * 2 + [(9, 2, 8, 4)] * 2 + [(1, 1)])
    assert [n.type for n in graph.outputs.values()] == [n.type for n in outputs.values()]

"""Inference a few samples at a time: eager's bits, less memory, and only where it may gain."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import weft
from tests.compile.agree import bits
from weft import nn
from weft.nn import functional as F
from weft.ops.join import Concat

PASS = importlib.import_module("weft.compile.passes.slices")


class Block(nn.Module):
    def __init__(self, cin, width, stride=1):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width))
        self.b = nn.Sequential(nn.Conv2d(width, width, 3, stride, 1), nn.BatchNorm2d(width))
        self.c = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
        )
        down = stride != 1 or cin != 2 * width
        self.down = nn.Conv2d(cin, 2 * width, 1, stride) if down else nn.Identity()

    def forward(self, x):
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))) + self.down(x))


def network():
    weft.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 20, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Block(20, 17), Block(34, 17),
        Block(34, 24, 2), Block(48, 24), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 5),
    )  # fmt: skip
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2.0)
    return net.eval()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Values of 8,000 bytes are far, two samples of the first layer near."""
    monkeypatch.setattr(PASS, "_FAR", 8000)
    monkeypatch.setattr(PASS, "_NEAR", 72000)
    monkeypatch.setattr(PASS, "_WEIGHTS", 30000)


def program(f):
    return f._last.program


def batches(p, whole):
    """The sizes of the slices whose kernels the program has."""
    shapes = [s.out.layout.shape for s in p.steps]
    return {shape[0] for shape in shapes if len(shape) == 4 and shape[0] < whole}


def agree(fn, *xs, calls=4, **ways):
    f = weft.compile(lambda *xs: fn(*xs), **ways)
    with weft.no_grad():
        wanted = bits(fn(*xs))
        for _ in range(calls):
            assert bits(f(*xs)) == wanted
    assert f.stats["op_by_op"] == 0
    return f


@pytest.mark.parametrize(("threads", "replay"), [(1, False), (2, True)])
def test_any_batch_gives_eager_bits(threads, replay):
    net, before = network(), weft.get_num_threads()
    weft.set_num_threads(threads)
    try:
        seen = set()
        for n in (1, 2, 3, 5, 7, 8, 33):
            f = agree(net, weft.randn(n, 3, 45, 37), replay=replay)
            seen |= batches(program(f), n)
            if n == 33:  # 17 of two samples, which are fewer than the most
                assert len(program(f).steps) < 20 * 17
    finally:
        weft.set_num_threads(before)
    assert seen == {1, 2}


def test_nan_and_inf_stay_in_their_samples():
    x = weft.randn(6, 3, 45, 37)
    x[1, 0, 0, 0], x[4, 2, 9, 9] = float("nan"), float("inf")
    agree(network(), x)


def test_sizes_that_come_and_go_and_weights_that_change():
    net = network()
    f = weft.compile(lambda x: net(x))
    with weft.no_grad():
        for n in (4, 5, 6, 7, 7, 7, 6, 0, 4, 9, 9, 9):
            x = weft.randn(n, 3, 45, 37)
            if n == 9:
                net[0].weight.mul_(1.5)
                net[3].a[0].weight.add_(0.25)
            assert bits(f(x)) == bits(net(x))


def test_results_inside_that_others_read():
    net = network()

    def fn(x):
        a = net[2](net[1](net[0](x)))
        b = net[3](a)
        c = net[4](b)
        return net[7](c), b, c.mean(), a[1:].sum()

    agree(fn, weft.randn(5, 3, 45, 37))

    def gated(x):  # the gate is a sum over each image, and no part of the run
        a = net[3](net[2](net[0](x)))
        return net[5](net[4](a * a.mean((2, 3), keepdim=True).sigmoid()))

    agree(gated, weft.randn(5, 3, 45, 37))


def test_the_last_result_is_computed_where_it_lies():
    net = network()
    for fn in (net[:5], net[:7], net):
        p = program(agree(fn, weft.randn(5, 3, 45, 37)))
        joins = [n for n in p.graph.nodes() if n.op == Concat(0)]
        assert len(joins) == 1
        assert batches(p, 5)
        assert not [s for s in p.steps if "Concat" in s.label]


def test_what_others_read_too_lies_in_the_whole():
    net = network()

    def shared(x):
        b = net[:4](x)
        return net[4](b).mean((2, 3)), b[1:].sum()

    p = program(agree(shared, weft.randn(5, 3, 45, 37)))
    assert batches(p, 5) and Concat(0) in [n.op for n in p.graph.nodes()]
    assert not [s for s in p.steps if "Concat" in s.label]

    def outlives(x):  # a part that is read when nobody reads the whole any more
        a, b = x.softmax(1), (x * 2).softmax(1)
        c = (x + weft.cat([a, b]).sum()).softmax(1)
        return (c + a).softmax(1)

    agree(outlives, weft.randn(40, 50))


def test_samples_share_memory(monkeypatch):
    x, net = weft.randn(8, 3, 90, 90), network()
    sliced = agree(net, x).memory()
    monkeypatch.setattr(PASS, "_FAR", 1 << 40)
    whole = agree(net, x).memory()
    assert sliced.arena < 0.6 * whole.arena
    assert sliced.total < whole.total


def test_slices_are_alike_and_go_by_the_last_cache(monkeypatch):
    x, net = weft.randn(9, 3, 45, 37), network()
    monkeypatch.setattr(PASS, "_NEAR", 8 * 36000)
    assert batches(program(agree(net, x)), 9) == {5, 4}  # eight would fit
    monkeypatch.setattr(PASS, "last_cache", lambda: 8 * 72000)
    assert batches(program(agree(net, x)), 9) == {2, 1}


def test_what_would_not_gain_stays_whole(monkeypatch):
    x, net = weft.randn(8, 3, 45, 37), network()
    conv = nn.Conv2d(3, 20, 3)
    for fn in (
        lambda x: ((x * 2 + 1).exp() - x).tanh().sqrt().sum(),  # one loop
        lambda x: F.relu(conv(x)),
        lambda x: weft.cat([conv(x), conv(x * 2)]),
    ):
        assert not batches(program(agree(fn, x)), 8)
    monkeypatch.setattr(PASS, "_WEIGHTS", 100)
    assert not batches(program(agree(net, x)), 8)

    def step():
        loss = net(x).square().mean()
        loss.backward()
        grads = [p.grad for p in net.parameters()]
        for p in net.parameters():
            p.grad = None
        return grads

    monkeypatch.setattr(PASS, "_WEIGHTS", 30000)
    f = weft.compile(step)
    wanted = bits(step())
    for _ in range(3):
        assert bits(f()) == wanted
    assert not batches(program(f), 8)


@pytest.mark.parametrize("flat", [True, False])
def test_a_pool_that_keeps_its_taps_goes_with_a_large_value(flat, monkeypatch):
    """Its gradient reads neither the convolution's result nor relu's."""
    monkeypatch.setattr(PASS, "_FAR", 100000)
    weft.manual_seed(4)
    conv, x = nn.Conv2d(3, 20, 3), weft.randn(8, 3, 19, 17)
    end = nn.Linear(20 * 8 * 7 if flat else 20, 4)

    def step():
        y = F.max_pool2d(F.relu(conv(x)), 2)
        loss = end(y.flatten(1) if flat else y.mean((2, 3))).square().sum()
        return weft.autograd.grad(loss, [*conv.parameters(), *end.parameters()])

    f = weft.compile(step)
    wanted = bits(step())
    for _ in range(3):
        assert bits(f()) == wanted
    labels = [s.label for s in program(f).steps]  # and NumPy computes nothing
    assert batches(program(f), 8) and "MaxPool2dTaps MaxPool2dTake" in labels
    assert not [label for label in labels if "Reshape" in label]  # planes at once


def test_draws_keep_their_order():
    net = network()

    def fn(x):
        return net[:5](x) + weft.rand(5, 34, 12, 10)

    f = weft.compile(fn)
    x = weft.randn(5, 3, 45, 37)
    with weft.no_grad():
        for seed in range(3):
            weft.manual_seed(seed)
            wanted = bits(fn(x))
            weft.manual_seed(seed)
            assert bits(f(x)) == wanted


def test_slices_are_seen_and_tuned(capsys, monkeypatch):
    net, x = network(), weft.randn(5, 3, 45, 37)
    agree(net, x, autotune=True)
    monkeypatch.setenv("WEFT_DEBUG", "4")
    f = agree(net, x)
    lines = capsys.readouterr()
    assert "[2, 34, 12, 10]" in lines.out + lines.err
    times = program(f).time_steps(1)
    assert len(times) == len(program(f).steps)
    assert np.isfinite([t for _, t in times]).all()

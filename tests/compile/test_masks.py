"""What relu lets through of a cotangent, made by each kernel of batch norm's gradient."""

import pytest

import weft
from tests.compile.agree import bits
from weft import nn
from weft.compile.passes.masks import is_masked, masks
from weft.core import dtype as D
from weft.core.graph import Builder, Graph
from weft.core.types import Type
from weft.nn import functional as F
from weft.ops.norm import Moment, ScaleShift
from weft.ops.unary import Exp, Relu, ReluBack


class Block(nn.Module):
    """The first relu's cotangent is a convolution's, the second one's a sum's."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.a, self.b = (nn.Conv2d(20, 20, 3, padding=1, bias=False) for _ in range(2))
        self.na, self.nb = nn.BatchNorm2d(20), nn.BatchNorm2d(20)
        self.out = nn.Conv2d(20, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        y = self.nb(self.b(F.relu(self.na(self.a(x)))))
        return self.out(F.relu(y + x))


def new():
    weft.manual_seed(5)
    net = Block()
    for norm in (net.na, net.nb):
        norm.weight.data.uniform_(-1, 1)
        norm.bias.data.normal_()
    optimizer = weft.optim.SGD(net.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach(), *(p.grad.clone() for p in net.parameters())

    return step


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("spoilt", [False, True])
def test_sums_and_loop_make_the_cotangent_themselves(threads, spoilt):
    before = weft.get_num_threads()
    weft.set_num_threads(threads)
    try:
        x = weft.randn(2, 3, 9, 10)
        if spoilt:
            x[0, 1, 2, 3] = float("nan")
        eager, compiled = new(), weft.compile(new())
        for _ in range(4):
            assert bits(compiled(x)) == bits(eager(x))
    finally:
        weft.set_num_threads(before)
    labels = [s.label for s in compiled._last.program.steps]
    assert labels.count("ScaleShift Relu ReluBack Moment") == 1, labels
    assert labels.count("ScaleShift Relu ReluBack NormInput") == 1, labels
    assert labels.count("ReluBack") == 1, labels  # behind the sum


def graph(*, loop=False, other=False):
    """The cotangent of a relu behind a batch norm, and who reads it."""
    b = Builder()
    image, one = Type((2, 3, 4, 4), D.float32), Type((1, 3, 1, 1), D.float32)
    x, g = b.input("x", image), b.input("g", image)
    m, r = b.input("m", one), b.input("r", one)
    y = b.node(Relu(), b.node(ScaleShift(), x, m, r, r, m))
    d = b.node(ReluBack(), b.node(Exp(), g) if loop else g, y)
    outputs = {"sums": b.node(Moment("centred", (0, 2, 3), True), d, x, m), "y": y}
    outputs["more"] = b.node(Exp(), d) if other else b.node(ScaleShift(), d, x, r, r, m)
    return Graph([x, g, m, r], outputs)


@pytest.mark.parametrize("ways", [{"loop": True}, {"other": True}])
def test_where_it_would_be_read_with_more_it_is_kept(ways):
    g = graph(**ways)
    assert masks(g) is g and is_masked(g)


def test_each_reader_has_its_own():
    g = graph()
    made = masks(g)
    assert not is_masked(g) and is_masked(made)
    kinds = [type(n.op) for n in made.nodes()]
    assert kinds.count(ReluBack) == 2 and kinds.count(Relu) == 3

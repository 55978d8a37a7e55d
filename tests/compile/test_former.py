"""Calls that count on the memories of a call before: which tensors share one is still seen."""

import numpy as np
import pytest

import weft
from weft.runtime import native

if not native.match_functions():
    pytest.skip("no builtins here", allow_module_level=True)


def pool(seed):
    """Tensors of four numbers, some of which share a memory in each of the ways there are."""
    draw = np.random.default_rng(seed)
    plain = [weft.tensor(draw.normal(size=4), dtype=weft.float32) for _ in range(12)]
    whole = weft.tensor(draw.normal(size=12), dtype=weft.float32)
    array = draw.normal(size=4).astype(np.float32)
    shared = [
        whole[:4], whole[4:8], whole[2:6], whole.view(3, 4)[0], weft.from_numpy(array),
        weft.from_numpy(array), weft.from_numpy(array[:]), plain[0].detach(), plain[1].data,
        plain[2].view(4),
    ]  # fmt: skip
    return plain + shared


def steps(a, b, c, write):
    """What shares a memory is told apart by the writes alone."""
    y = a * 2 + b
    if write:
        a.add_(1)
        c.mul_(y)
    return y * c + b * a, c - a


@pytest.mark.parametrize("seed", range(6))
def test_drawn_calls_give_eagers_bits(seed):
    """Mostly the same tensors, sometimes others or the same one twice, sometimes written to."""
    draw = np.random.default_rng(100 + seed)
    one, other = pool(seed), pool(seed)
    f = weft.compile(steps)
    usual = list(range(3))
    counted = 0
    for call in range(160):
        if call % 40 == 39:
            usual = list(draw.integers(0, len(one), 3))
        which, write = list(usual), draw.random() < 0.06
        if draw.random() < 0.15:
            which = list(draw.integers(0, len(one), 3))
        if draw.random() < 0.05:  # another handle, or another memory, of one that was met
            k = int(draw.integers(0, 12))
            for p in (one, other):
                p[k] = p[k].detach() if call % 2 else p[k].clone()
        counted += f._former.serial > 0
        i, j, k = which
        got = f(one[i], one[j], one[k], write)
        for y, z in zip(got, steps(other[i], other[j], other[k], write), strict=True):
            np.testing.assert_array_equal(y.numpy(), z.numpy())
        for y, z in zip(one, other, strict=True):
            np.testing.assert_array_equal(y.numpy(), z.numpy())
    assert counted > 40


class Net(weft.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = weft.nn.ModuleList([weft.nn.Linear(16, 16) for _ in range(12)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return x


def usual_calls(f, xs):
    """Until calls count on a former one."""
    for x in xs:
        f(x)
    assert f._former.serial


def test_weights_that_change_between_calls():
    """In place, by other data, as another parameter; inputs are new memory on each call."""
    net, same = Net(), Net()
    same.load_state_dict(net.state_dict())
    f = weft.compile(lambda x: net(x))
    with weft.no_grad():
        usual_calls(f, [weft.randn(8, 16) for _ in range(8)])
        serial = f._former.serial
        for change in range(14):
            x = weft.randn(8, 16)
            for n in net, same:
                w = n.layers[change % 12].weight
                if change % 3 == 0:
                    w.mul_(1.5)
                elif change % 3 == 1:
                    w.data = w.data.clone() * 0.5
                else:
                    n.layers[change % 12].weight = weft.nn.Parameter(w.detach() * 2)
            for _ in range(4):
                np.testing.assert_array_equal(f(x).numpy(), same(x).numpy())
        assert f._former.serial > serial  # eight others are compared one by one, then all anew


def test_tied_weights_part_and_join():
    """Two layers of one parameter, then of two, then of one again."""
    net = Net()
    first, last = net.layers[0], net.layers[-1]
    f = weft.compile(lambda x: net(x))
    x = weft.randn(8, 16)
    own = last.weight
    with weft.no_grad():
        for _ in range(3):
            for w in own, first.weight, weft.nn.Parameter(first.weight.data), own:
                last.weight = w
                for _ in range(6):
                    np.testing.assert_array_equal(f(x).numpy(), net(x).numpy())


def test_tables_are_made_when_they_are_asked():
    """A call that counts on another and looks at a value, raises or forks in its midst."""
    net = Net()
    ask = [0]

    def steps(x):
        y = net(x)
        if ask[0] == 1:
            y = y + y.sum().item()
        if ask[0] == 2:
            raise ValueError("x")
        if ask[0] == 3:
            x.add_(1)
        return y.sum() + (net.layers[0].weight * x.sum()).sum()

    f = weft.compile(steps)
    with weft.no_grad():
        for ask[0] in (0, 1, 0, 2, 0, 3, 0, 1, 2, 3):
            for _ in range(8 if ask[0] == 0 else 2):
                x = weft.randn(8, 16)
                z = x.clone()
                if ask[0] == 2:
                    with pytest.raises(ValueError, match="x"):
                        f(x)
                    continue
                np.testing.assert_array_equal(f(x).numpy(), steps(z).numpy())
                np.testing.assert_array_equal(x.numpy(), z.numpy())


def test_a_function_that_writes_counts_on_nobody():
    """It asks for the tables on each call."""
    state = weft.zeros(4)

    @weft.compile
    def f(x):
        state.add_(x)
        return state * 2

    for k in range(40):
        np.testing.assert_array_equal(f(weft.ones(4)).numpy(), np.full(4, 2.0 * (k + 1)))
        assert not f._former.serial
    assert f._former.pause > 4

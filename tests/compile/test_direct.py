"""A replay as one native call: eager's bits, nothing kept, and the long way where it must be."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import weft
from tests.compile.agree import bits
from weft import nn
from weft.compile.arena import ARENA
from weft.runtime import guards

if not guards.available():
    pytest.skip("no native calls here", allow_module_level=True)


def batch(i, *shape):
    return weft.tensor(np.random.default_rng(i).standard_normal(shape).astype(np.float32))


def warm(f, *args, calls=10):
    """f compiled, after some calls; its direct call is in use."""
    c = weft.compile(f, replay=True)
    for _ in range(calls):
        c(*args)
    assert direct_of(c) is not None, c.stats
    return c


def direct_of(c):
    return c._replays.direct


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.scale = nn.Linear(6, 8), nn.Linear(8, 3), 1.5

    def forward(self, x):
        return self.second(self.first(x).relu()) * self.scale


def net():
    return Net().eval().requires_grad_(False)


def used(c, *args):
    """The result, after which the same direct call must be in use."""
    before = c.stats["replayed"], direct_of(c)
    y = c(*args)
    assert (c.stats["replayed"], direct_of(c)) == (before[0] + 1, before[1])
    return y


def test_the_bits_are_eagers_and_results_are_not_written_again():
    model = net()
    c = warm(model.forward, batch(0, 4, 6))
    inputs = [batch(i, 4, 6) for i in range(20)]
    kept = [used(c, x) for x in inputs]
    assert bits(kept) == bits([model(x) for x in inputs])
    assert all(type(y) is weft.Tensor and not y.requires_grad for y in kept)


@pytest.mark.parametrize("rows", [1, 5, 3000])  # small results, and those of Weft's allocator
def test_structures_of_results(rows):
    w = batch(1, 6, 8)

    def f(x, y, unread):
        a, b = x @ w, x + y
        return {"a": a, "more": [b, 3, "text", w]}, (y, b.sum(0), x * 2.5)

    args = batch(2, rows, 6), batch(3, rows, 6), batch(4, 2)
    c = warm(f, *args)
    for i in range(5):
        args = batch(i, rows, 6), batch(i + 9, rows, 6), batch(4, 2)
        got, wanted = used(c, *args), f(*args)
        assert bits([*got[0].items(), got[1]]) == bits([*wanted[0].items(), wanted[1]])
        assert got[1][0] is args[1] and got[0]["more"][3] is w


def test_results_that_are_views_of_results():
    w = batch(1, 6, 8)

    def f(x):
        y = x @ w
        return y.t(), y.view(2, -1)[:, 3:], (y * 2).reshape(-1).view(8, -1).t()

    c = warm(f, batch(0, 4, 6))
    for i in range(5):
        x = batch(i, 4, 6)
        got, wanted = used(c, x), f(x)
        assert bits(list(got)) == bits(list(wanted))
        assert [t.stride() for t in got] == [t.stride() for t in wanted]
        got[0].zero_()
        assert not got[1].any()
    own = batch(3, 4, 6)
    c = weft.compile(lambda x: (x @ w, own.t()), replay=True)  # not of a result
    assert all(bits(list(c(own))) == bits([own @ w, own.t()]) for _ in range(8))


def test_what_is_not_as_recorded_goes_the_long_way():
    model = net()
    c = warm(model.forward, batch(0, 4, 6))
    whole = batch(5, 12, 6)
    cases = {
        "other size": batch(1, 5, 6),
        "strides": batch(1, 6, 4).t(),
        "a view": whole[4:8],
        "part of a wider one": batch(1, 4, 12)[:, ::2],
        "a parameter": nn.Parameter(batch(1, 4, 6)),
        "requires grad": batch(1, 4, 6).requires_grad_(),
        "on the tape": batch(1, 4, 6).requires_grad_() * 2,
        "a promise": weft.compile(lambda x: x * 2)(batch(1, 4, 6)),
    }
    for name, x in cases.items():
        for _ in range(3):
            assert bits(c(x).detach()) == bits(model(x).detach()), name
            assert c(x).requires_grad == x.requires_grad, name
    with pytest.raises(RuntimeError):
        c(batch(1, 4, 5))
    with pytest.raises((TypeError, AttributeError)):
        c(3)
    with pytest.raises(TypeError):
        c(batch(1, 4, 6), batch(1, 4, 6))
    with pytest.raises(RuntimeError):  # another dtype
        c(weft.ones(4, 6, dtype=weft.float64))
    for _ in range(20):  # until it is in use again
        c(cases["a view"])
    assert bits(used(c, cases["a view"])) == bits(model(whole[4:8]))


def test_a_profile_sees_its_kernels():
    model, x = net(), batch(0, 5, 6)
    c = warm(lambda x: model(x), x)
    wanted = bits(c(x))
    with weft.profile() as p:
        assert bits(c(x)) == wanted
    assert p.events() and all(e.kind == "kernel" for e in p.events())
    for _ in range(4):  # the run that was seen ended the direct call
        c(x)
    assert bits(used(c, x)) == wanted


def test_shared_memory_is_no_direct_call():
    w = batch(0, 4, 6)

    def f(x, y):
        return x * w + y

    c = warm(f, batch(1, 4, 6), batch(2, 4, 6))
    both = batch(3, 8, 6)
    for args in ((both[:4], both[4:]), (w, batch(1, 4, 6)), (both[2:6], both[2:6]), (w[:], w)):
        assert direct_of(c).run(*args) is None
        assert bits(c(*args)) == bits(f(*args))
    x = batch(4, 4, 6)
    assert direct_of(c).run(x, x) is None and bits(c(x, x)) == bits(f(x, x))


def test_two_sizes_take_turns():
    model = net()
    c = weft.compile(model.forward, replay=True)
    for i in range(400):  # however long the second size takes to be planned
        x = batch(i, 3 + i % 2, 6)
        assert bits(c(x)) == bits(model(x))
    calls = {id(r): r.directs.now for (r,) in c._replays.kept.values()}
    assert len(calls) == 2 and all(d is not None and d.stream.check() for d in calls.values())


def test_a_change_outside_is_seen_and_learnt():
    model = net()
    c = warm(model.forward, batch(0, 4, 6))
    for i in range(40):
        if i % 10 == 3:
            model.scale = float(i)  # the same program, another number
        if i % 10 == 7:
            model.first.weight = nn.Parameter(batch(i, 8, 6), requires_grad=False)
        x = batch(i, 4, 6)
        assert bits(c(x)) == bits(model(x)), i
    x = batch(0, 4, 6)
    with weft.no_grad():
        assert bits(c(x)) == bits(model(x))
    model.first.bias.data = batch(1, 8)
    assert bits(c(x)) == bits(model(x))
    model.first.bias.add_(1.0)  # in place: nothing to notice, read anew
    assert bits(c(x)) == bits(model(x))


def test_two_recordings_of_one_program():
    model, w = net(), [batch(1, 3), batch(2, 3)]
    sides = weft.ones(2), weft.ones(3)

    def f(x, side):  # the same ops: one program, other numbers and other tensors outside
        return model(x) * (0.5 + side.shape[0]) + w[side.shape[0] - 2]

    c = weft.compile(f, replay=True)
    seen = set()
    for i in range(400):
        x, side = batch(i, 4, 6), sides[i // (1 + i % 7) % 2]
        assert bits(c(x, side)) == bits(f(x, side)), i
        seen.add(id(direct_of(c)))
    recordings = [r for (r,) in c._replays.kept.values()]
    assert len({id(r.program) for r in recordings}) == 1 and len(recordings) == 2
    assert len(seen) > 4, "no direct calls"


def test_the_arena_may_move():
    model = net()
    x = batch(0, 4, 6)
    c = warm(model.forward, x)
    big = batch(1, 300, 300)
    other = weft.compile(lambda x: ((x @ x).tanh() @ x).sum())
    before = ARENA.memory
    for k in range(4, 9):
        whole = weft.ones(k * 100, k * 100) * 0.01
        for _ in range(2):
            other(whole)
        assert bits(c(x)) == bits(model(x))
    ARENA.memory = np.empty(0, np.uint8)  # as if it had been given back
    for _ in range(3):
        other(big)
        assert bits(c(x)) == bits(model(x))
    assert before is not ARENA.memory


def test_bad_data_raises_as_eager_does():
    table = batch(0, 6, 4)

    def f(i):
        return table[i] * 2

    good, bad = weft.tensor([0, 5]), weft.tensor([0, 6])
    c = warm(f, good)
    for _ in range(3):
        with pytest.raises(IndexError) as mine:
            c(bad)
        with pytest.raises(IndexError) as eager:
            f(bad)
        assert str(mine.value).split("\n")[0] == str(eager.value).split("\n")[0]
        assert bits(c(good)) == bits(f(good))


def test_nothing_is_kept_or_lost():
    model = net()
    x = batch(0, 4, 6)
    c = warm(model.forward, x)
    a, other = x._a, weft.ones(4, 6, dtype=weft.float64)
    own = [a, a.dtype, np.ndarray, x, model.first.weight._a, ARENA.memory, other._a]
    count = lambda: [sys.getrefcount(y) for y in own]
    used(c, x)
    before = count()
    for _ in range(3000):
        used(c, x)
    direct = direct_of(c)
    for refused in ((other,), (x, x), (3,), (), (weft.nn.Parameter(weft.ones(1)),)):
        for _ in range(500):
            assert direct.run(*refused) is None
    assert [abs(n - m) < 20 for n, m in zip(count(), before, strict=True)] == [True] * len(own)
    fresh = batch(1, 4, 6)
    y = used(c, fresh)
    refs = [weakref.ref(fresh._a), weakref.ref(y._a), weakref.ref(fresh), weakref.ref(y)]
    del fresh, y
    gc.collect()
    assert [r() for r in refs] == [None] * 4
    model_ref = weakref.ref(model)
    del model, c, direct
    own.clear()
    gc.collect()
    assert model_ref() is None


def test_threads():
    model = net()
    x = batch(0, 4, 6)
    c = warm(model.forward, x)
    inputs = [[batch(10 * t + i, 4, 6) for i in range(10)] for t in range(4)]
    wanted = [[bits(model(x)) for x in mine] for mine in inputs]
    wrong = []

    def work(t):
        with weft.set_grad_enabled(True):
            for _ in range(100):
                wrong.extend(
                    t for x, y in zip(inputs[t], wanted[t], strict=True) if bits(c(x)) != y
                )

    workers = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong and direct_of(c) is not None


def test_what_draws_or_writes_to_arguments_is_not_direct():
    w, v = batch(0, 4), batch(1, 4)
    cases = {
        "writes": lambda x: x.add_(1.0),
        "writes outside": lambda x: x + w.mul_(1.5),
        "writes and computes": lambda x: (v.add_(x.sum(0)), x * v)[1],
        "draws": lambda x: x * weft.rand(4),
        "a number": lambda x, n=2: x * n,
    }
    for name, f in cases.items():
        c = weft.compile(f, replay=True)
        for i in range(12):
            c(batch(i, 3, 4))
        ((recording,),) = c._replays.kept.values()
        assert c.stats["replayed"] >= 5, name
        assert (recording.directs.now is None) == (name in ("writes", "draws")), name


def test_a_training_step_is_direct():
    seen = []
    for wrap in (lambda f: f, lambda f: weft.compile(f, replay=True)):
        weft.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)), batch(0, 4, 6)
        o = weft.optim.AdamW(model.parameters(), lr=0.1)

        def step(x, model=model, o=o):
            o.zero_grad()
            loss = model(x).mean()
            loss.backward()
            o.step()
            return loss.detach()

        fast: Any = wrap(step)
        history, first = [], model[0].weight
        for i in range(40):
            o.param_groups[0]["lr"] = 0.1 / (1 + i)
            if i == 25:
                first.requires_grad_(False)
            elif i == 30:
                o.state[model[2].bias]["step"] = 3.0
            loss = fast(x)
            params = list(model.parameters())
            state = [v for p in params for v in o.state[p].values()]
            versions = [p._version for p in params]
            history.append(bits([loss, params, [p.grad for p in params], state, versions]))
            if i == 20 and seen:
                assert direct_of(fast) is not None and direct_of(fast).stream.check()
                assert fast.stats["replayed"] >= 15
        seen.append(history)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("n", [6, 256])  # memory of NumPy's, and of Weft's allocator
def test_an_argument_that_shares_a_weights_memory_is_not_replayed(n):
    w = nn.Linear(n, n).weight

    def f(a):
        with weft.no_grad():
            w.add_(1)
            y = a * 2
            w.mul_(2)
        return y

    def run(g):
        with weft.no_grad():
            w.copy_(weft.eye(n))
        x = weft.ones(4, n)
        given = [*[lambda: x] * 9, lambda: w.data[:4], lambda: w.detach()[1:5], lambda: x]
        return [bits(g(a())) for a in given]

    c = weft.compile(f, replay=True)
    assert run(c) == run(f)
    assert c.stats["replayed"] > 3

"""Batches and lengths that were never recorded: eager's bits, and no more than three recordings."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from tests.compile.agree import bits
from weft import nn, optim
from weft.compile import api
from weft.compile.generalise import _Differs, _Symbols


class Block(nn.Module):
    """Attention and a perceptron, before each a norm."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, c))
        return x + self.down(F.gelu(self.up(x)))


def gpt():
    """A training step of a small language model, and what it trains."""
    weft.manual_seed(0)
    token, place, block, head = nn.Embedding(11, 8), nn.Embedding(40, 8), Block(), nn.Linear(8, 11)
    model = nn.ModuleList([token, place, block, head])
    o = optim.AdamW(model.parameters(), lr=0.01)

    def step(x, y):
        o.zero_grad()
        logits = head(block(token(x) + place.weight[: x.shape[1]])).flatten(0, 1)
        loss = F.cross_entropy(logits, y.flatten())
        loss.backward()
        o.step()
        return loss.detach()

    return step, list(model.parameters())


def batches(count, sizes=None):
    rng = np.random.default_rng(0)
    for i in range(count):
        shape = sizes[i % len(sizes)] if sizes else (rng.integers(2, 9), rng.integers(2, 30))
        yield weft.tensor(rng.integers(0, 11, shape)), weft.tensor(rng.integers(0, 11, shape))


def compare(make, calls):
    """Run eager and compiled on the same calls; the compiled function."""
    (eager, params), (step, others) = make(), make()
    step = weft.compile(step)
    for i, args in enumerate(calls):
        want = bits([eager(*args), params, [p.grad for p in params]])
        assert bits([step(*args), others, [p.grad for p in others]]) == want, f"call {i}"
    return step


def test_batch_and_length_vary_at_once():
    step = compare(gpt, batches(30))
    assert step.stats["other_sizes"] >= 27, step.stats
    # two whole recordings, and the optimizer's second step
    assert step.stats["recorded_ops"] < 3 * 400, step.stats


def test_a_size_that_comes_once_runs_eagerly(monkeypatch):
    monkeypatch.setattr(api, "PLANNING", 1e6)
    step = compare(gpt, batches(20))
    assert step.stats["eager_calls"] == 18 and step.stats["other_sizes"] == 0
    assert step.stats["programs"] == 0


def test_a_size_that_comes_again_gets_a_program(monkeypatch):
    monkeypatch.setattr(api, "PLANNING", 1e-6)  # one eager call takes longer than this
    sizes = [(2, 5), (3, 7), (4, 6), (4, 9)]
    step = compare(gpt, batches(20, sizes))
    stats = step.stats
    assert stats["eager_calls"] >= 2 and stats["other_sizes"] >= 1, stats


def test_an_eager_call_after_matched_ops(monkeypatch):
    """What was matched before the size showed itself is computed; views and writes stay right."""
    monkeypatch.setattr(api, "PLANNING", 1e6)

    def make():
        state = weft.ones(3)
        w = weft.ones(3, 3, requires_grad=True)

        def f(x):
            w.grad = None
            a = (w * 2).tanh()
            row = a[0]
            state.add_(1.0)
            with weft.no_grad():
                before = state * 2
            y = x @ a + row
            z = weft.vmap(lambda r: r * 2 + row)(y)
            y[0].mul_(0.5)
            z.sum().backward()
            state.mul_(0.5)
            return before, y.detach(), a.detach(), row.detach(), state + 1

        return f, [w]

    rng = np.random.default_rng(0)
    draw = lambda n: (weft.tensor(rng.standard_normal((n, 3)).astype(np.float32)),)
    step = compare(make, [draw(n) for n in (4, 4, 2, 2, 5, 4, 7, 5, 2)])
    assert step.stats["eager_calls"] == 3, step.stats


def test_paths_that_were_not_recorded_are_dropped_when_there_are_many(monkeypatch):
    monkeypatch.setattr(api, "_MAX_DERIVED", 2_000)
    monkeypatch.setattr(api, "PLANNING", 1e-6)
    step = compare(gpt, batches(24))
    assert step.stats["recorded_ops"] < 3 * 400
    count, stack = 0, [step._root]
    while stack:
        node = stack.pop()
        count += 1
        stack.extend(node.children.values())
    assert count < 6_000


def test_the_simplest_formula_explains_a_size():
    def follow(values, *known):
        s = _Symbols(len(values))
        for case in known:
            s.known.append(case[:-1])
            s.wanted.append(case[-1])
        return s.at(values)

    b, t = (5, 3, 4), (150, 70, 131)
    assert follow((10, 6, 8), (*b, 7), (*t, 20)) == 14
    assert follow((750, 210, 524), (*b, 7), (*t, 20)) == 140
    assert follow((149, 69, 130), (*b, 7), (*t, 20)) == 19
    assert follow((22500, 4900, 131**2), (*b, 7), (*t, 20)) == 400
    assert follow((155, 73, 135), (*b, 7), (*t, 20)) == 27
    assert follow((11, 7, 9), (*b, 7), (*t, 20)) == 15
    assert follow((9, 9, 9), (*b, 7)) == 9
    with pytest.raises(_Differs):
        follow((1, 2, 9), (*b, 7), (*t, 20))
    assert follow((8, 3), (8, 3, 5)) == 5
    assert follow((25, 10), (8, 3, 5)) == 16  # 3 b + 1


NEW_SIZES = """
import weft
from weft import nn
from weft.runtime import machine
net = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(4, 32),
    nn.InstanceNorm2d(32, affine=True), nn.Conv2d(32, 8, 3), nn.AdaptiveAvgPool2d(1),
)
counts = []
for b, n in ((3, 13), (5, 20), (4, 17), (6, 19), (7, 22)):
    net(weft.randn(b, 1, n, n)).sum().backward()
    counts.append(machine.cache_stats()["compiled"] + machine.cache_stats()["disk"])
print(counts[4] - counts[2])
"""


def test_a_new_size_of_images_needs_no_new_kernel():
    run = subprocess.run([sys.executable, "-c", NEW_SIZES], capture_output=True, text=True)
    assert run.stdout == "0\n", run.stdout + run.stderr

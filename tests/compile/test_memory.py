"""compiled.memory(): what a step will need, before any program has run."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from weft import nn, optim
from weft.compile import api, arena
from weft.compile.program import Program
from weft.ops.gather import Gather
from weft.runtime import memory


def training(model, shape, classes):
    o = optim.Adam(model.parameters())
    x, y = (
        weft.from_numpy(memory.empty(shape, np.dtype(np.float32))).fill_(0.5),
        weft.zeros(shape[0], dtype=weft.int64),
    )

    def step():
        o.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        o.step()
        return loss.detach()

    return step, x


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(300, 400), nn.ReLU(), nn.Linear(400, 10)), (200, 300)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10),
        ),
        (16, 3, 24, 24),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_the_plan_is_what_is_measured(kind):
    make, shape = CASES[kind]
    gc.collect()
    arena.ARENA.memory = np.empty(0, np.uint8)
    before = memory.memory_stats()["used_bytes"]
    step, x = training(make(), shape, 10)
    step = weft.compile(step)
    with pytest.raises(RuntimeError, match="call the function first"):
        step.memory()
    step()  # makes the optimizer's state
    step()
    planned = step.memory()  # nothing has run but eager ops
    for _ in range(3):
        step().item()
    assert step.memory() == planned and step.stats["programs"] == 1
    gc.collect()
    memory.reset_peak()
    step().item()
    measured = memory.memory_stats()["peak_bytes"] - before
    small = planned.total - planned.scratch - measured
    assert abs(small) < 0.05 * measured, (planned, measured, x.numel() * 4)


def test_a_recorded_call_holds_none_of_its_tensors():
    """An eager optimizer's program is recorded with gradients, which go with zero_grad."""
    f = weft.compile(lambda x: (x * 2.0).sum())
    x = weft.ones(1000, 100)
    gone = weakref.ref(x)
    f(x)
    del x
    assert gone() is None
    assert f.memory().outside >= 400_000


def test_a_function_that_looks_at_values():
    @weft.compile
    def f(x):
        y = (x * 2).exp()
        return y * 3 if y.sum().item() > 0 else y

    x = weft.ones(100, 100)
    f(x)
    with pytest.raises(RuntimeError, match="looks at values"):
        f.memory()
    f(x)
    assert f.memory().results == memory.block_size(40_000)


def test_a_fork_frees_what_its_ops_have_read():
    """The matched ops run one by one when the path forks: not all their results live at once."""
    size = 1 << 20  # elements of a value: 4 MB
    last = iter((weft.exp, weft.exp, weft.sin, weft.sin))

    @weft.compile
    def f(x):
        kept = x + 1
        y = kept
        for _ in range(30):
            y = y * 0.5 + 1
        return next(last)(y), kept

    x = weft.ones(size)
    f(x), f(x)
    memory.reset_peak()
    before = memory.memory_stats()["used_bytes"]
    y, kept = f(x)  # sine: another path
    assert memory.memory_stats()["peak_bytes"] - before < 8 * 4 * size
    assert abs(y[0].item() - 0.909297) < 1e-5 and kept[0].item() == 2
    assert f(x)[0][0].item() == y[0].item()


def test_an_activation_is_computed_again_instead_of_kept(monkeypatch):
    """What gelu's slope can compute again needs no memory between; the bits stay eager's."""
    room = sys.modules["weft.compile.passes.recompute"]
    monkeypatch.setattr(room, "_LARGE", 1 << 12)
    monkeypatch.setattr(room, "_LONG", 8)
    made = []

    class Spy(Program):
        def __init__(self, *args, **kw):
            super().__init__(*args, **kw)
            made.append((self, args, kw))

    monkeypatch.setattr(api, "Program", Spy)

    def new():
        weft.manual_seed(0)
        layers = [m for _ in range(4) for m in (nn.Linear(24, 96), nn.GELU(), nn.Linear(96, 24))]
        net = nn.Sequential(*layers)
        optimizer = weft.optim.SGD(net.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    x = weft.randn(32, 24)
    eager, compiled = new(), weft.compile(new())
    for _ in range(4):
        assert compiled(x).item() == eager(x).item()
    program, args, kw = max(made, key=lambda m: len(m[0].steps))
    again = [s.label for s in program.steps if s.label.split()[-2:] == ["Gelu", "Slope"]]
    assert len(again) == 4, [s.label for s in program.steps]
    monkeypatch.setattr(room, "_LONG", 1 << 20)
    kept = Program(*args, **kw)
    assert program.arena_bytes <= kept.arena_bytes - 2 * 32 * 96 * 4


def test_arrays_that_a_failing_run_shows_keep_their_memory(monkeypatch):
    """A traceback's frames hold them, and may print them when everything else is gone."""
    seen = []

    def fail(self, status, arrays):
        seen.extend((a, a.copy()) for a in arrays)
        return IndexError("as told")

    monkeypatch.setattr(Gather, "fail", fail)

    def f(x, i):
        return weft.gather(x + 1, 1, i)  # an operand in the arena, one from outside

    c, good = weft.compile(f), weft.zeros(300, 40, dtype=weft.int64)
    for _ in range(3):
        c(weft.randn(300, 40), good)
    with pytest.raises(IndexError):
        c(weft.randn(300, 40), good + 77)
    assert len(seen) == 2 * 2  # the program's run, and eager's that says what is wrong
    with arena.ARENA.lock:
        arena.ARENA.memory = np.empty(0, np.uint8)
    gc.collect()
    memory.trim()
    held = [weft.full((300, 40), 7.0) for _ in range(8)]
    assert all(np.array_equal(a, b) for a, b in seen), held

"""autotune=True: other numbers for the plans, the same bits; timed once, kept on disk."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

import weft
from weft import nn
from weft.compile import tune
from weft.kernels.choices import choose, picking
from weft.nn import functional as F
from weft.runtime import machine


@pytest.fixture
def empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is known; what is learnt goes to a folder of its own."""
    monkeypatch.setenv("WEFT_CACHE_DIR", str(tmp_path))
    for cached in (machine.cache_dir, tune._table):
        cached.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for cached in (machine.cache_dir, tune._table):
        cached.cache_clear()


def steps(*, autotune: bool) -> list[bytes]:
    """Losses and parameters of training steps whose plans have choices."""
    weft.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 390, 3, stride=2), nn.ReLU(),
        nn.Conv2d(390, 3, 5), nn.Flatten(), nn.Linear(3 * 5 * 5, 70), nn.GELU(), nn.Linear(70, 130),
    )  # fmt: skip
    optimizer = weft.optim.AdamW(model.parameters())
    x, y = weft.randn(24, 3, 20, 20), weft.randint(0, 130, (24,))

    def step() -> weft.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = weft.compile(step, autotune=True) if autotune else step
    kept = [run() for _ in range(4)]
    return [t.detach().numpy().tobytes() for t in (*kept, *model.parameters())]


def test_every_choice_gives_the_same_bits(empty_table, monkeypatch):
    """Each number that is tried counts as faster than the last, so that it stays."""
    falling = itertools.count(1)
    picked: set[str] = set()
    monkeypatch.setattr(tune, "_seconds", lambda launch, arrays: 0.5 ** next(falling))
    keep = tune._keep
    monkeypatch.setattr(tune, "_keep", lambda name, c: (picked.update(c), keep(name, c)))
    want = steps(autotune=False)
    assert steps(autotune=True) == want
    assert {"slab", "pieces", "share", "in place"} <= picked


def test_what_was_timed_is_kept(empty_table, monkeypatch):
    weft.manual_seed(0)
    x, w = weft.randn(9, 40), weft.randn(40, 300)
    timed = []
    monkeypatch.setattr(tune, "_seconds", lambda launch, arrays: timed.append(launch) or 1.0)

    def fresh() -> None:
        f = weft.compile(lambda: x @ w, mode="max-autotune")
        f()
        f()

    fresh()
    assert timed
    (file,) = empty_table.glob("tuned-*.json")
    assert len(json.loads(file.read_text())) == 1
    for _ in range(2):
        timed.clear()
        tune._table.cache_clear()
        fresh()
        assert timed == []
        file.write_text(file.read_text().replace("{}", '{"no such": 7, "in place": -5}'))
    file.write_text("{damaged")
    tune._table.cache_clear()
    fresh()
    assert timed


def test_choose_asks_who_picks():
    assert choose("size", 4, 2, 8) == 4
    with picking({"size": 8, "other": 3}) as asked:
        assert choose("size", 4, 2, 8) == 8
        assert choose("other", 1, 2) == 1  # not one of its options
        assert choose("size", 16, 8, 16) == 8
    assert asked == {"size": (16, 8), "other": (1, 2)}
    assert choose("size", 4, 2, 8) == 4


def test_real_launches_are_timed(empty_table):
    a, b = weft.randn(40, 64), weft.randn(64, 640)
    f = weft.compile(lambda: a @ b, autotune=True)
    want = (a @ b).numpy().tobytes()
    assert [f().numpy().tobytes() for _ in range(3)] == [want] * 3
    assert tune._table()

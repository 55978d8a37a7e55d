"""Law 4 over whole models: a compiled training step gives eager's bits.

After every step, parameters, buffers, gradients, the optimizer's state, the loss, the outputs and
the random generator's state are compared as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from examples import char_lm
from weft import nn, optim
from weft.cli.demo import make_model


@dataclass
class Case:
    """A model in training: `step` is what gets compiled."""

    model: nn.Module
    optimizer: Any
    step: Callable
    batches: list[tuple]
    after: Callable = lambda: None  # what follows each step uncompiled: a schedule's step


def images(*sizes: int, channels: int = 1, side: int = 28) -> list[tuple]:
    """Batches of (images, classes)."""
    rng = np.random.default_rng(1)
    return [
        (
            weft.tensor(rng.standard_normal((n, channels, side, side)).astype(np.float32)),
            weft.tensor(rng.integers(0, 10, n)),
        )
        for n in sizes
    ]


def rows(*sizes: int, shape: tuple = (12,), classes: int = 5) -> list[tuple]:
    """Batches of (floats, classes)."""
    rng = np.random.default_rng(2)
    return [
        (
            weft.tensor(rng.standard_normal((n, *shape)).astype(np.float32)),
            weft.tensor(rng.integers(0, classes, n)),
        )
        for n in sizes
    ]


def plain_step(model: nn.Module, optimizer: Any, loss: Callable = F.cross_entropy) -> Callable:
    """zero_grad, forward, loss, backward, step."""

    def step(x, y):
        optimizer.zero_grad()
        out = model(x)
        value = loss(out, y)
        value.backward()
        optimizer.step()
        return value.detach(), out.detach()

    return step


def mlp() -> Case:
    model = nn.Sequential(
        nn.Linear(12, 33),
        nn.ReLU(),
        nn.Linear(33, 17),
        nn.Tanh(),
        nn.Dropout(0.2),
        nn.Linear(17, 5),
    )
    o = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    return Case(model, o, plain_step(model, o), rows(8, 8, 8, 3, 8, 8, 3))


def demo_cnn() -> Case:
    model = make_model()
    o = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = optim.lr_scheduler.OneCycleLR(o, max_lr=4e-3, total_steps=20)
    return Case(model, o, plain_step(model, o), images(6, 6, 6, 5, 6, 5), schedule.step)


def gpt() -> Case:
    model = char_lm.GPT(vocab=31, length=10, width=24, heads=3, layers=2, dropout=0.1)
    o = optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))

    def step(x, y):
        o.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        o.step()
        return loss.detach(), norm

    rng = np.random.default_rng(3)
    tokens = [weft.tensor(rng.integers(0, 31, (n, 11))) for n in (4, 4, 4, 1, 4, 1)]
    batches = [(t[:, :-1].contiguous(), t[:, 1:].contiguous()) for t in tokens]
    return Case(model, o, step, batches)


class Reader(nn.Module):
    """A recurrent layer over a sequence, and a linear layer on its last output."""

    def __init__(self, kind: type, **kw: Any) -> None:
        super().__init__()
        self.body = kind(6, 8, batch_first=True, **kw)
        self.head = nn.Linear(16 if kw.get("bidirectional") else 8, 5)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


def lstm() -> Case:
    model = Reader(nn.LSTM, num_layers=2, dropout=0.1)
    o = optim.Adam(model.parameters(), lr=1e-2)
    return Case(model, o, plain_step(model, o), rows(4, 4, 4, 3, 4, 3, shape=(5, 6)))


def gru() -> Case:
    model = Reader(nn.GRU, bidirectional=True)
    o = optim.RMSprop(model.parameters(), lr=1e-2, momentum=0.5, centered=True)
    return Case(model, o, plain_step(model, o), rows(4, 4, 4, 2, 4, 2, shape=(5, 6)))


def transformer() -> Case:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(6 * 8, 5))
    o = optim.Adam(model.parameters(), lr=1e-3)
    return Case(model, o, plain_step(model, o), rows(4, 4, 4, 3, 4, 3, shape=(6, 8)))


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv x)))), groups of channels normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(2, width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(2, width),
        )  # fmt: skip

    def forward(self, x):
        return F.relu(x + self.inner(x))


def residual() -> Case:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), Residual(8), Residual(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    o = optim.RMSprop(model.parameters(), lr=1e-3)
    return Case(model, o, plain_step(model, o), images(4, 4, 4, 3, 4, 3, channels=3, side=9))


def regression() -> Case:
    """A branch on the loss in the middle of the step, then more ops."""
    model = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.LayerNorm(20), nn.Linear(20, 5))
    o = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)

    def step(x, y):
        o.zero_grad()
        loss = F.cross_entropy(model(x), y)
        if loss.item() > 1.6:
            loss = loss * 2 + sum(p.abs().sum() for p in model.parameters()) * 1e-4
        loss.backward()
        o.step()
        return loss.detach()

    return Case(model, o, step, rows(*[8] * 6, 5, 8, 5))


def accumulation() -> Case:
    """Two backward passes a step, on halves of the batch."""
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 5))
    o = optim.AdamW(model.parameters(), lr=1e-2)

    def step(x, y):
        o.zero_grad()
        total = 0.0
        for part, target in zip(x.chunk(2), y.chunk(2)):
            loss = F.cross_entropy(model(part), target) / 2
            loss.backward()
            total = total + loss.detach()
        o.step()
        return total

    return Case(model, o, step, rows(8, 8, 8, 6, 8, 6))


CASES = (
    mlp, demo_cnn, gpt, lstm, gru, transformer, residual, regression, accumulation,
)  # fmt: skip


def snapshot(case: Case, result: Any) -> dict[str, bytes]:
    """Everything that the rest of the run depends on, as bytes by name."""
    seen: dict[str, Any] = {"rng": weft.get_rng_state()}
    for i, r in enumerate(result if isinstance(result, tuple) else (result,)):
        seen[f"result {i}"] = r
    for name, t in case.model.state_dict().items():
        seen[name] = t
    for name, p in case.model.named_parameters():
        seen[f"{name}.grad"] = p.grad
    for i, entries in case.optimizer.state_dict()["state"].items():
        for k, v in entries.items():
            seen[f"optimizer {i} {k}"] = v
    return {k: _bytes(v) for k, v in seen.items()}


def _bytes(v: Any) -> bytes:
    if isinstance(v, weft.Tensor):
        a = v.detach().numpy()
        if a.dtype.kind == "f":  # IEEE leaves a NaN's own bits open
            a = np.where(np.isnan(a), a.dtype.type(np.nan), a)
        return f"{a.dtype}{a.shape}".encode() + a.tobytes()
    return repr(v).encode()


def history(make: Callable, wrap: Callable) -> tuple[list[dict[str, bytes]], Any, list[int]]:
    """A run's snapshots, the stepping function, and how many ops each step recorded."""
    weft.manual_seed(0)
    case = make()
    step = wrap(case.step)
    seen, recorded = [], []
    for batch in case.batches:
        before = getattr(step, "stats", {}).get("recorded_ops", 0)
        seen.append(snapshot(case, step(*batch)))
        recorded.append(getattr(step, "stats", {}).get("recorded_ops", 0) - before)
        case.after()
    return seen, step, recorded


def differences(a: list[dict], b: list[dict]) -> list[str]:
    """What differs, of the first step in which anything does."""
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        assert x.keys() == y.keys()
        names = [k for k in x if x[k] != y[k]]
        if names:
            return [f"step {i}", *names]
    return []


@pytest.mark.parametrize("make", CASES, ids=lambda f: f.__name__)
def test_compiled_training_is_eager_training(make):
    eager, _, _ = history(make, lambda f: f)
    assert eager[0]["rng"] is not None and len(eager) > 4
    compiled, step, recorded = history(make, weft.compile)
    assert differences(eager, compiled) == []
    assert step.stats["programs"] > 0 and step.stats["op_by_op"] == 0
    assert recorded[-2:] == [0, 0], f"ops recorded by step: {recorded}"


@pytest.mark.parametrize("make", CASES, ids=lambda f: f.__name__)
def test_one_and_two_threads_agree(make):
    before = weft.get_num_threads()
    runs = []
    try:
        for threads in (1, 2):
            weft.set_num_threads(threads)
            runs.append(history(make, weft.compile)[0])
            runs.append(history(make, lambda f: f)[0])
    finally:
        weft.set_num_threads(before)
    for other in runs[1:]:
        assert differences(runs[0], other) == []

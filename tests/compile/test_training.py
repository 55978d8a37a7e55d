"""Law 4 over layers, losses and optimizers in training, and over what scripts do between steps."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from tests.compile.test_models import Case, differences, history, plain_step, rows
from weft import nn, optim


def check(make, *, op_by_op: int = 0) -> None:
    """Eager and compiled runs of `make` agree after every step."""
    eager, _, _ = history(make, lambda f: f)
    compiled, step, recorded = history(make, weft.compile)
    assert differences(eager, compiled) == []
    assert step.stats["op_by_op"] == op_by_op
    assert recorded[-1] == 0, f"ops recorded by step: {recorded}"


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "sgd dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, maximize=True),
    "adam amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.01),
    "adamw maximize": lambda p: optim.AdamW(p, lr=0.01, maximize=True),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "radam": lambda p: optim.RAdam(p, lr=0.01),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.01, lr_decay=0.1),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5),
    "asgd": lambda p: optim.ASGD(p, lr=0.01),
    "rprop": lambda p: optim.Rprop(p, lr=0.01),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers(kind):
    def make():
        model = nn.Sequential(nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 5))
        o = OPTIMIZERS[kind](model.parameters())
        return Case(model, o, plain_step(model, o), rows(*[6] * 8))

    check(make)


SEQUENCE = (7, 12)  # (length, features) of a row
LAYERS = {
    "conv1d": lambda: nn.Conv1d(7, 4, 3, padding=1, groups=1, stride=2),
    "depthwise": lambda: nn.Conv1d(7, 14, 3, padding="same", groups=7),
    "conv transpose": lambda: nn.ConvTranspose1d(7, 3, 4, stride=2, padding=1),
    "batch norm": lambda: nn.BatchNorm1d(7, momentum=None),
    "instance norm": lambda: nn.InstanceNorm1d(7, affine=True, track_running_stats=True),
    "group norm": lambda: nn.GroupNorm(7, 7),
    "layer norm": lambda: nn.LayerNorm((7, 12)),
    "rms norm": lambda: nn.RMSNorm(12),
    "max pool": lambda: nn.MaxPool1d(3, 2, 1),
    "average pool": lambda: nn.AvgPool1d(3, 2),
    "adaptive pool": lambda: nn.AdaptiveAvgPool1d(5),
    "prelu": lambda: nn.PReLU(7),
    "softmax": lambda: nn.Softmax(-1),
    "dropout1d": lambda: nn.Dropout1d(0.4),
    "alpha dropout": lambda: nn.AlphaDropout(0.3),
    "rnn": lambda: First(nn.RNN(12, 4, 2, batch_first=True, dropout=0.2)),
    "lstm": lambda: First(nn.LSTM(12, 4, bidirectional=True, proj_size=2)),
    "lstm at once": lambda: First(nn.LSTM(12, 9, 2, bidirectional=True, batch_first=True)),
    "attention": lambda: Self(nn.MultiheadAttention(12, 3, dropout=0.2, batch_first=True)),
    "decoder": lambda: Twice(nn.TransformerDecoderLayer(12, 3, 8, 0.1, batch_first=True)),
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(12, 2, 8, 0.1, batch_first=True, norm_first=True), 2
    ),
}


class First(nn.Module):
    """A recurrent layer's output without its state."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


class Self(First):
    """Attention of a sequence to itself, with its weights."""

    def forward(self, x):
        y, weights = self.inner(x, x, x)
        return y + weights.sum(-1, keepdim=True)


class Twice(First):
    """A decoder layer whose memory is its input."""

    def forward(self, x):
        return self.inner(x, x)


@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind):
    def make():
        layer = LAYERS[kind]()
        out = layer(weft.zeros(2, *SEQUENCE))
        model = nn.Sequential(layer, nn.Flatten(), nn.Linear(math.prod(out.shape[1:]), 5))
        o = optim.SGD(model.parameters(), lr=0.1)
        return Case(model, o, plain_step(model, o), rows(4, 4, 4, 4, 3, 3, 3, shape=SEQUENCE))

    check(make)


LOSSES = {
    "smoothed, weighted": lambda x, y: F.cross_entropy(
        x, y, weight=weft.arange(1.0, 6.0), label_smoothing=0.1, ignore_index=2
    ),
    "nll": lambda x, y: F.nll_loss(F.log_softmax(x, 1), y),
    "mse": lambda x, y: F.mse_loss(x, F.one_hot(y, 5).float()),
    "huber": lambda x, y: F.huber_loss(x, F.one_hot(y, 5).float(), delta=0.3),
    "l1": lambda x, y: F.l1_loss(x, F.one_hot(y, 5).float()),
    "bce": lambda x, y: F.binary_cross_entropy_with_logits(x, F.one_hot(y, 5).float()),
    "kl": lambda x, y: F.kl_div(
        F.log_softmax(x, 1), F.softmax(F.one_hot(y, 5).float(), 1), reduction="batchmean"
    ),
    "margin": lambda x, y: F.multi_margin_loss(x, y),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses(kind):
    def make():
        model = nn.Linear(12, 5)
        o = optim.Adam(model.parameters(), lr=0.05)
        return Case(model, o, plain_step(model, o, LOSSES[kind]), rows(6, 6, 6, 5, 5, 5, 6))

    check(make)


def test_freezing_and_thawing_between_steps():
    def make():
        model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
        o = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        count = [0]

        def toggle():
            count[0] += 1
            model[0].requires_grad_(count[0] % 4 < 2)

        return Case(model, o, plain_step(model, o), rows(*[6] * 12), toggle)

    check(make)


def test_loading_a_state_between_steps():
    def make():
        model = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
        o = optim.Adam(model.parameters(), lr=0.1)
        kept = []

        def keep_or_return():
            if len(kept) == 3:
                model.load_state_dict(kept[0][0])
                o.load_state_dict(kept[0][1])
            kept.append(copy.deepcopy((model.state_dict(), o.state_dict())))

        return Case(model, o, plain_step(model, o), rows(*[6] * 8), keep_or_return)

    check(make)


def test_evaluation_between_steps_and_modes_inside():
    def make():
        model = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 5))
        o = optim.SGD(model.parameters(), lr=0.1)
        train = plain_step(model, o)

        def step(x, y):
            loss, _ = train(x, y)
            model.eval()
            with weft.no_grad():
                right = (model(x).argmax(1) == y).sum()
            model.train()
            return loss, right

        return Case(model, o, step, rows(*[6] * 6))

    check(make)


def test_averaged_weights():
    def make():
        model = nn.Linear(12, 5)
        mean = copy.deepcopy(model).requires_grad_(False)
        both = nn.ModuleList([model, mean])
        o = optim.SGD(model.parameters(), lr=0.1)
        train = plain_step(model, o)

        def step(x, y):
            out = train(x, y)
            with weft.no_grad():
                for p, q in zip(model.parameters(), mean.parameters(), strict=True):
                    q.lerp_(p, 0.1)
            return out

        return Case(both, o, step, rows(*[6] * 6))

    check(make)


def test_gradient_penalty():
    def make():
        model = nn.Sequential(nn.Linear(12, 8), nn.Softplus(), nn.Linear(8, 1))
        o = optim.Adam(model.parameters(), lr=0.01)

        def step(x, y):
            o.zero_grad()
            x = x.clone().requires_grad_()
            out = model(x)
            (g,) = weft.autograd.grad(out.sum(), x, create_graph=True)
            loss = ((g.norm(dim=1) - 1) ** 2).mean() + out.mean()
            loss.backward()
            o.step()
            return loss.detach()

        return Case(model, o, step, rows(*[6] * 6))

    check(make)


def test_two_models_and_two_optimizers():
    """A generator and its critic, as in adversarial training."""

    def make():
        g, d = nn.Linear(3, 12), nn.Sequential(nn.Linear(12, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1))
        og = optim.Adam(g.parameters(), lr=0.01, betas=(0.5, 0.999))
        od = optim.Adam(d.parameters(), lr=0.01, betas=(0.5, 0.999))
        loss = nn.BCEWithLogitsLoss()

        def step(x, y):
            n = len(x)
            od.zero_grad()
            fake = g(weft.randn(n, 3))
            both = loss(d(x), weft.ones(n, 1)) + loss(d(fake.detach()), weft.zeros(n, 1))
            both.backward()
            od.step()
            og.zero_grad()
            fooled = loss(d(fake), weft.ones(n, 1))
            fooled.backward()
            og.step()
            return both.detach(), fooled.detach()

        return Case(nn.ModuleList([g, d]), od, step, rows(6, 6, 6, 6, 4, 4, 4))

    check(make)


def test_truncated_backpropagation_through_time():
    def make():
        cell, head = nn.GRUCell(12, 8), nn.Linear(8, 5)
        model = nn.ModuleList([cell, head])
        o = optim.SGD(model.parameters(), lr=0.1)
        memory = [weft.zeros(6, 8)]

        def step(x, y):
            o.zero_grad()
            h = cell(x, memory[0])
            loss = F.cross_entropy(head(h), y)
            loss.backward()
            o.step()
            memory[0] = h.detach()
            return loss.detach(), memory[0]

        return Case(model, o, step, rows(*[6] * 6))

    check(make)


def test_skipping_bad_steps():
    """A loss scaler's branch: the step is left out where a gradient is not finite."""

    def make():
        model = nn.Linear(12, 5)
        o = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, y):
            o.zero_grad()
            loss = F.cross_entropy(model(x), y) * 1024.0
            loss.backward()
            with weft.no_grad():
                for p in model.parameters():
                    p.grad.div_(1024.0)
            if all(bool(weft.isfinite(p.grad).all()) for p in model.parameters()):
                o.step()
            return loss.detach()

        batches = rows(*[6] * 9)
        for i in (2, 5):
            batches[i][0][0, 0] = np.inf
        return Case(model, o, step, batches)

    check(make)


def test_zeroed_gradients_in_place():
    def make():
        model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
        o = optim.AdamW(model.parameters(), lr=0.01)

        def step(x, y):
            o.zero_grad(set_to_none=False)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_value_(model.parameters(), 0.01)
            o.step()
            return loss.detach()

        return Case(model, o, step, rows(*[6] * 6))

    check(make)


def test_embeddings_with_padding_and_bags():
    def make():
        model = nn.ModuleList(
            [nn.Embedding(9, 6, padding_idx=0), nn.EmbeddingBag(9, 6, mode="mean")]
        )
        head = nn.Linear(12, 5)
        both = nn.ModuleList([model, head])
        o = optim.Adam(both.parameters(), lr=0.01)
        rng = np.random.default_rng(0)
        tokens = [weft.tensor(rng.integers(0, 9, (n, 4))) for n in (5, 5, 5, 5, 3, 3, 3)]

        def step(t, y):
            o.zero_grad()
            x = weft.cat([model[0](t).sum(1), model[1](t)], 1)
            loss = F.cross_entropy(head(x), y)
            loss.backward()
            o.step()
            return loss.detach()

        return Case(both, o, step, [(t, t[:, 0] % 5) for t in tokens])

    check(make)

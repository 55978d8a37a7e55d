"""Training scripts as PyTorch users write them, with what makes their steps unlike each other:
eager and compiled runs end in the same bits of every loss and every tensor kept.
"""

import copy
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

import weft
import weft.nn.functional as F
from tests.compile.agree import bits
from weft import nn, optim

Wrap = Callable[[Callable], Any]


def q_learning(wrap: Wrap) -> list:
    """A buffer of transitions, epsilon-greedy acts, a target network that follows."""
    make = lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    policy, target = make(), make()
    target.load_state_dict(policy.state_dict())
    optimizer = optim.AdamW(policy.parameters(), lr=1e-2, amsgrad=True)
    memory: deque = deque(maxlen=50)

    def act(state: Any) -> Any:
        if random.random() > 0.2:
            with weft.no_grad():
                return policy(state).max(1).indices.view(1, 1)
        return weft.tensor([[random.randrange(2)]])

    def learn() -> float | None:
        if len(memory) < 8:
            return None
        states, acts, following, rewards = zip(*random.sample(list(memory), 8), strict=True)
        mask = weft.tensor([s is not None for s in following])
        values = weft.zeros(8)
        with weft.no_grad():
            values[mask] = target(weft.cat([s for s in following if s is not None])).max(1).values
        taken = policy(weft.cat(states)).gather(1, weft.cat(acts))
        loss = F.smooth_l1_loss(taken, (values * 0.99 + weft.cat(rewards)).unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(policy.parameters(), 1.0)
        optimizer.step()
        with weft.no_grad():
            for t, p in zip(target.parameters(), policy.parameters(), strict=True):
                t.mul_(0.9).add_(p, alpha=0.1)
        return loss.item()

    act, learn = wrap(act), wrap(learn)
    losses, state = [], weft.randn(1, 4)
    for i in range(20):
        a = act(state)
        after = state + 0.1 * (a.item() * 2 - 1) + 0.05 * weft.randn(1, 4)
        memory.append((state, a, None if i % 5 == 4 else after, weft.tensor([after.sum().item()])))
        state = after
        losses.append(learn())
    return [*losses, *target.parameters(), *policy.parameters()]


def tagger(wrap: Wrap) -> list:
    """Sequences of all lengths, packed; a sum over paths in Python; a layer that is thawed."""
    emb, lstm = nn.Embedding(20, 6), nn.LSTM(6, 5, bidirectional=True, batch_first=True)
    out, moves = nn.Linear(10, 3), nn.Parameter(weft.randn(3, 3))
    rest = [*lstm.parameters(), *out.parameters(), moves]
    optimizer = optim.SGD(
        [{"params": emb.parameters(), "lr": 0.5}, {"params": rest}], lr=0.1, momentum=0.9
    )
    emb.weight.requires_grad_(False)

    def step(x: Any, y: Any, lengths: Any) -> float:
        packed = nn.utils.rnn.pack_padded_sequence(
            emb(x), lengths, batch_first=True, enforce_sorted=False
        )
        f = out(nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)[0])
        mask = weft.arange(f.size(1))[None] < lengths[:, None]
        a = f[:, 0]
        for t in range(1, f.size(1)):
            following = weft.logsumexp(a.unsqueeze(2) + moves + f[:, t].unsqueeze(1), 1)
            a = weft.where(mask[:, t, None], following, a)
        path = (f.gather(2, y.unsqueeze(2)).squeeze(2) * mask).sum(1)
        path = path + (moves[y[:, :-1], y[:, 1:]] * mask[:, 1:]).sum(1)
        loss = (weft.logsumexp(a, 1) - path).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    step = wrap(step)
    losses = []
    for i in range(7):
        if i == 4:
            emb.weight.requires_grad_(True)
        lengths = weft.tensor([random.randint(1, 5) for _ in range(3)])
        size = (3, int(lengths.max()))
        losses.append(step(weft.randint(0, 20, size), weft.randint(0, 3, size), lengths))
    return [*losses, emb.weight, *rest]


def momentum_contrast(wrap: Wrap) -> list:
    """A second encoder that follows the first, a queue written in place, hooks that look."""
    query = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8))
    key = copy.deepcopy(query).requires_grad_(False)
    queue, place, seen = F.normalize(weft.randn(8, 12), dim=0), weft.zeros(1).long(), []
    query[0].register_forward_hook(lambda m, i, o: seen.append(o.detach().mean().item()))
    query[3].weight.register_hook(lambda g: g * 0.5)
    optimizer = optim.SGD(query.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)

    def step(a: Any, b: Any) -> float:
        q = F.normalize(query(a), dim=1)
        with weft.no_grad():
            for p, k in zip(query.parameters(), key.parameters(), strict=True):
                k.data = k.data * 0.9 + p.data * 0.1
            order = weft.randperm(len(b))
            k = F.normalize(key(b[order]), dim=1)[weft.argsort(order)]
        near = weft.einsum("nc,nc->n", q, k).unsqueeze(-1)
        logits = weft.cat([near, q @ queue.clone()], 1) / 0.1
        at = int(place)
        queue[:, at : at + len(b)] = k.T
        place[0] = (at + len(b)) % 12
        loss = F.cross_entropy(logits, weft.zeros(len(b), dtype=weft.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.item()

    step = wrap(step)
    losses = []
    for _ in range(6):
        x = weft.randn(4, 6)
        losses.append(step(x, x + 0.1 * weft.randn(4, 6)))
    return [*losses, *seen, queue, place, *query.state_dict().values(), *key.state_dict().values()]


def two_gradients(wrap: Wrap) -> list:
    """Steps inside of a step (create_graph), and one that goes up before it goes down."""
    model = nn.Sequential(nn.Linear(1, 8), nn.Softplus(), nn.Linear(8, 1))
    optimizer = optim.Adam(model.parameters(), 1e-2)

    def learn_to_learn(tasks: list) -> float:
        optimizer.zero_grad()
        total = 0.0
        for x, y in tasks:
            inner = dict(model.named_parameters())
            for _ in range(2):
                loss = F.mse_loss(weft.func.functional_call(model, inner, (x,)), y)
                grads = weft.autograd.grad(loss, list(inner.values()), create_graph=True)
                inner = {k: p - 0.1 * g for (k, p), g in zip(inner.items(), grads, strict=True)}
            loss = F.mse_loss(weft.func.functional_call(model, inner, (x + 1,)), y)
            loss.backward()
            total += loss.item()
        optimizer.step()
        return total

    def up_and_down(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        ps = list(model.parameters())
        norm = weft.norm(weft.stack([p.grad.norm() for p in ps]))
        with weft.no_grad():
            up = [p.grad * (0.05 / (norm + 1e-12)) for p in ps]
            for p, u in zip(ps, up, strict=True):
                p.add_(u)
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        with weft.no_grad():
            for p, u in zip(ps, up, strict=True):
                p.sub_(u)
                p.grad.clamp_(-0.1, 0.1)
        optimizer.step()
        return loss

    learn_to_learn, up_and_down = wrap(learn_to_learn), wrap(up_and_down)
    losses = []
    for _ in range(5):
        x = weft.randn(6, 1)
        losses += [learn_to_learn([(x, x.sin()), (x, x.cos())]), up_and_down(x, x * 2).item()]
    return [*losses, *model.parameters()]


@pytest.mark.parametrize("script", [q_learning, tagger, momentum_contrast, two_gradients])
@pytest.mark.parametrize("replay", [False, True])
def test_a_ported_script_ends_in_eagers_bits(script, replay):
    def run(wrap: Wrap) -> list:
        weft.manual_seed(0)
        random.seed(0)
        return [bits(v.detach()) if isinstance(v, weft.Tensor) else v for v in script(wrap)]

    made: list = []

    def compiled(f: Callable) -> Any:
        made.append(weft.compile(f, replay=replay))
        return made[-1]

    assert run(compiled) == run(lambda f: f)
    if script in (momentum_contrast, two_gradients):  # sizes of the others come once
        assert any(c.stats["programs"] for c in made)

"""A compiled training step gives eager's bits, with changing learning rates and step counts."""

import pickle

import numpy as np
import pytest

import weft
from weft import nn, optim
from weft.optim import optimizer as optimizers


def train(name, settings, compiled):
    weft.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))
    params = [p for p in model.parameters() if name != "Muon" or p.ndim == 2]
    optimizer = getattr(optim, name)(params, **settings)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    x, y = weft.randn(5, 6), weft.randint(0, 3, (5,))

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    run = weft.compile(step) if compiled else step
    for _ in range(8):
        run(x, y)
        schedule.step()
    programs = run.stats["programs"] if compiled else None
    values = [p.detach().numpy().reshape(-1) for p in model.parameters()]
    return np.concatenate(values), optimizer.state_dict()["state"], programs


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("AdamW", {"lr": 0.01}),
        ("Adam", {"lr": 0.01, "amsgrad": True}),
        ("RMSprop", {"centered": True}),
        ("NAdam", {}),
        ("Adafactor", {"weight_decay": 0.1}),
        ("Muon", {}),
    ],
)
def test_compiled_steps_have_eagers_bits(name, settings):
    eager, state, _ = train(name, settings, compiled=False)
    compiled, other, programs = train(name, settings, compiled=True)
    assert np.array_equal(eager, compiled)
    assert programs == 1  # learning rates and step counts are run-time numbers
    for k, values in state.items():
        for field, v in values.items():
            assert np.array_equal(v.numpy(), other[k][field].numpy()), field


OWN = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}), ("SGD", {"lr": 0.1}), ("Adam", {"amsgrad": True}),
    ("AdamW", {"lr": 0.01, "maximize": True}), ("RMSprop", {"momentum": 0.5}), ("NAdam", {}),
    ("RAdam", {}), ("Adagrad", {}), ("Adadelta", {}), ("Adamax", {}), ("ASGD", {}), ("Rprop", {}),
    ("Adafactor", {}), ("Muon", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), OWN, ids=str)
def test_an_eager_step_as_one_program_has_the_ops_bits(name, settings, monkeypatch):
    def run(program):
        monkeypatch.setattr(optimizers, "_PROGRAM_FROM", 0 if program else 1 << 62)
        weft.manual_seed(0)
        ps = [weft.randn(*s).requires_grad_() for s in ((5, 4), (3, 7), (6, 2), (1, 1))]
        cls = getattr(optim, name)
        optimizer = cls(ps[:2], **settings)
        seen = []
        for i in range(9):
            if i == 3:
                optimizer.add_param_group({"params": ps[2:3], "lr": 0.05})
            if i == 6:  # what was saved goes on in a new one
                state = optimizer.state_dict()
                optimizer = cls([{"params": ps[:2]}, {"params": ps[2:3]}], **settings)
                optimizer.load_state_dict(state)
            optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
            for k, p in enumerate(ps):
                skipped = i % 4 == k  # some have no gradient, some gradients lie across
                g = weft.randn(*reversed(p.shape)).t() if (i + k) % 2 else weft.randn(*p.shape)
                p.grad = None if skipped else g
            optimizer.step()
            seen += [p.detach().numpy().copy() for p in ps]
        used = optimizer._program is not None
        return seen, optimizer.state_dict()["state"], used

    by_ops, state, used = run(program=False)
    assert not used
    at_once, other, used = run(program=True)
    assert used == (name not in ("Adafactor", "Muon") and (name, settings) != ("SGD", {"lr": 0.1}))
    for a, b in zip(by_ops, at_once, strict=True):
        assert np.array_equal(a, b)
    for k, values in state.items():
        for field, v in values.items():
            if v is not None:
                assert np.array_equal(np.asarray(v), np.asarray(other[k][field])), field


def test_a_large_eager_step_is_one_program():
    p = weft.zeros(600, 600, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.1)
    for _ in range(4):
        p.grad = weft.ones(600, 600)
        optimizer.step()
    assert optimizer._program.stats["programs"] >= 1
    assert optimizer._program.stats["op_by_op"] == 0
    assert np.allclose(p.detach().numpy(), -0.4, atol=1e-5)
    again = pickle.loads(pickle.dumps(optimizer))
    again.step()
    assert again._program is None  # its parameters have no gradients

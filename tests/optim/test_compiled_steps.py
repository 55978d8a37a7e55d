"""A compiled training step gives eager's bits, with changing learning rates and step counts."""

import numpy as np
import pytest

import weft
from weft import nn, optim


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

"""weft.compile(module) and module.compile(): the same module, called through programs."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from weft import nn, optim


def make() -> nn.Sequential:
    weft.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 3)
    )


def batch(n: int, seed: int) -> tuple[weft.Tensor, weft.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4)).astype(np.float32)
    return weft.tensor(x), weft.tensor(rng.integers(0, 3, n))


def trained(model: nn.Module, called: nn.Module) -> list[bytes]:
    """Losses, gradients and state of training steps; forward compiled, the rest eager."""
    optimizer = optim.SGD(called.parameters(), lr=0.1, momentum=0.9)
    seen = []
    for i, n in enumerate((6, 6, 6, 4, 6, 4)):
        x, y = batch(n, i)
        x.requires_grad_()
        optimizer.zero_grad()
        loss = F.cross_entropy(called(x), y)
        loss.backward()
        optimizer.step()
        seen += [loss.detach().numpy().tobytes(), x.grad.numpy().tobytes()]
        seen += [p.grad.numpy().tobytes() for p in model.parameters()]
        seen += [v.numpy().tobytes() for v in model.state_dict().values()]
    return seen


def test_training_through_a_compiled_module_gives_the_same_bits():
    eager = make()
    wanted = trained(eager, eager)
    model = make()
    compiled = weft.compile(model)
    assert trained(model, compiled) == wanted
    assert compiled._compiled.stats["programs"] > 0
    model = make()
    model.compile()
    assert trained(model, model) == wanted


def test_it_is_a_module_with_torchs_names():
    model = make()
    compiled = weft.compile(model)
    assert isinstance(compiled, nn.Module)
    assert compiled._orig_mod is model
    assert list(compiled.state_dict()) == [f"_orig_mod.{k}" for k in model.state_dict()]
    assert [n for n, _ in compiled.named_parameters()] == [
        f"_orig_mod.{n}" for n, _ in model.named_parameters()
    ]
    assert all(a is b for a, b in zip(compiled.parameters(), model.parameters(), strict=True))
    assert repr(compiled).startswith("OptimizedModule(\n  (_orig_mod): Sequential(")


def test_attributes_are_the_originals():
    model = nn.Linear(3, 2)
    compiled = weft.compile(model)
    assert compiled.in_features == 3 and compiled.weight is model.weight
    compiled.note = 5
    assert model.note == 5
    del compiled.note
    assert not hasattr(model, "note")
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'absent'"):
        compiled.absent


def test_modes_are_the_originals():
    model = make()
    compiled = weft.compile(model)
    compiled.eval()
    assert not model.training and not model[3].training
    x, _ = batch(5, 0)
    for _ in range(3):
        assert compiled(x).detach().numpy().tobytes() == model(x).detach().numpy().tobytes()
    model.train()
    assert compiled.training


def test_hooks_run_on_every_call():
    model, calls = nn.Linear(2, 2), []
    model.register_forward_hook(lambda m, a, y: calls.append("inner"))
    compiled = weft.compile(model)
    compiled.register_forward_hook(lambda m, a, y: calls.append("outer"))
    for _ in range(3):
        compiled(weft.ones(1, 2))
    assert calls == ["inner", "outer"] * 3


def test_state_dict_loads_back():
    a, b = weft.compile(make()), weft.compile(nn.Sequential(*make().children()))
    with weft.no_grad():
        for p in b.parameters():
            p.mul_(2.0)
    b.load_state_dict(a.state_dict())
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert weft.equal(p, q)


def doubled(x, by=2):
    return x * by


@weft.compile
def tripled(x):
    return x * 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_of_their_own(copied):
    model, x = weft.compile(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), replay=True), weft.ones(4, 3)
    for _ in range(5):
        before = model(x).detach()
    twin = copied(model)
    with weft.no_grad():
        for p in twin.parameters():
            p.zero_()
    for _ in range(5):
        assert weft.equal(model(x), before) and twin(x).abs().sum() == 0
    assert twin.stats["calls"] == 5 and twin.stats["recorded_ops"] > 0
    assert copied(tripled) is tripled
    other = copied(weft.compile(functools.partial(doubled, by=4)))
    assert weft.equal(other(x), x * 4)


def test_as_a_decorator_and_disabled():
    @weft.compile(fullgraph=True, mode="max-autotune")
    def f(x):
        return x * 2

    assert f(weft.ones(2)).tolist() == [2.0, 2.0]
    model = nn.Linear(1, 1)
    assert weft.compile(model, disable=True) is model

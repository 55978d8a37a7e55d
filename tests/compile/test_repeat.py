"""An optimizer's updates matched as one node each: the bits of eager, whatever changes between."""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest

import weft
from tests.compile.agree import bits
from tests.compile.test_training import OPTIMIZERS
from weft import nn, optim
from weft.compile.repeat import Jump, Repeats
from weft.runtime import guards


def model_of(*sizes):
    weft.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


def runs_alike(make, calls=10):
    """make() -> (optimizer, step(x), between(i)): states after each call agree to the bit."""
    seen = []
    for wrap in (lambda f: f, weft.compile):
        o, step, between = make()
        step = wrap(step)
        history = []
        rng = np.random.default_rng(1)
        for i in range(calls):
            between(i)
            out = step(weft.tensor(rng.standard_normal((3, 4)).astype(np.float32)))
            params = [p for g in o.param_groups for p in g["params"]]
            kept = [list(o.state[p].values()) for p in params if p in o.state]
            versions = [p._version for p in params]
            history.append(bits([out, params, [p.grad for p in params], kept, versions]))
        seen.append(history)
    for i, (a, b) in enumerate(zip(*seen, strict=True)):
        assert a == b, f"call {i} differs"
    return step


def jumps_of(step):
    """How many jumps the trie knows."""
    count, stack = 0, [step._root]
    while stack:
        node = stack.pop()
        count += sum(isinstance(j, Jump) for j in node.jumps.values())
        stack.extend(node.children.values())
    return count


def plain(model, o):
    def step(x):
        o.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        o.step()
        return loss.detach()

    return step


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_jumps(kind):
    def make():
        model = model_of(4, 5, 5, 2)
        o = OPTIMIZERS[kind](model.parameters())
        return o, plain(model, o), lambda i: None

    assert jumps_of(runs_alike(make)) >= 5


def test_groups_with_their_own_settings():
    def make():
        model = model_of(4, 5, 5, 2)
        o = optim.AdamW(
            [
                {"params": model[0].parameters(), "lr": 0.1},
                {"params": model[1].parameters(), "lr": 0.01, "weight_decay": 0.0},
                {"params": model[2].parameters(), "betas": (0.5, 0.6), "amsgrad": True},
            ]
        )

        def between(i):
            o.param_groups[0]["lr"] = 0.1 / (1 + i)
            if i == 5:
                o.param_groups[1]["weight_decay"] = 0.1
            if i == 7:
                o.param_groups[0]["maximize"] = True

        return o, plain(model, o), between

    runs_alike(make, 12)


def test_autocast_around_an_update_is_no_jump_of_one_without():
    """Adafactor multiplies matrices, which autocast does in bfloat16."""

    def make():
        model = model_of(4, 6, 6, 6, 2)
        params = list(model.parameters())[::-1]  # a bias first, whose ops are the same in both
        o, mode = optim.Adafactor(params, lr=0.1), {}

        def step(x):
            o.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            with weft.autocast("cpu", enabled=mode["on"]):
                o.step()
            return loss

        return o, step, lambda i: mode.update(on=i in (4, 5, 9, 10, 11))

    runs_alike(make, 14)


def test_counters_that_differ():
    """A layer that is thawed late has its own step count, and so its own numbers."""

    def make():
        model = model_of(4, 5, 5, 2)
        model[0].requires_grad_(False)
        o = optim.Adam(model.parameters(), lr=0.05)

        def between(i):
            if i in (3, 8):
                model[0].requires_grad_(i == 3)
            if i == 6:
                o.state[model[1].weight]["step"] += 10.0

        return o, plain(model, o), between

    runs_alike(make, 12)


def test_state_and_parameters_replaced_between_steps():
    def make():
        model = model_of(4, 5, 2)
        o = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def between(i):
            if i == 4:  # a state of another layout, then one that shares memory with another
                o.state[model[0].weight]["momentum_buffer"] = weft.ones(4, 5).t()
            if i == 6:
                shared = weft.ones(2, 5, 4)
                o.state[model[0].weight]["momentum_buffer"] = shared[0]
                model[0].weight.data = shared[1].clone()
            if i == 8:
                both = weft.full((7,), 0.5)
                o.state[model[0].bias]["momentum_buffer"] = both[:5]
                o.state[model[1].bias]["momentum_buffer"] = both[5:]
            if i == 9:
                del o.state[model[1].weight]

        return o, plain(model, o), between

    runs_alike(make, 14)


def test_gradients_that_accumulate_and_clip():
    def make():
        model = model_of(4, 5, 5, 2)
        o = optim.Adam(model.parameters(), lr=0.05, weight_decay=0.1)

        def step(x):
            for part in (x, x * 0.5):
                (model(part) ** 2).mean().backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            o.step()
            o.zero_grad()
            return norm

        return o, step, lambda i: None

    assert jumps_of(runs_alike(make)) >= 5


def test_a_fork_after_the_jumps():
    """The path leaves the trie after jumps: their ops then run one by one."""

    def make():
        model = model_of(4, 5, 5, 2)
        o = optim.Adam(model.parameters(), lr=0.05)
        count = [0]

        def step(x):
            count[0] += 1
            o.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            o.step()
            return loss.detach() * 2 if count[0] == 6 else loss.detach() + model[1].bias.sum()

        return o, step, lambda i: None

    runs_alike(make)


def test_an_update_of_the_users_own_is_not_jumped():
    class Odd(optim.SGD):
        def _update(self, p, grad, state, group):
            super()._update(p, grad * float(p.ndim), state, group)

    def make():
        model = model_of(4, 5, 5, 2)
        o = Odd(model.parameters(), lr=0.1)
        return o, plain(model, o), lambda i: None

    assert jumps_of(runs_alike(make)) == 0


# ------------------------------------------------------------------------------ whole steps


@pytest.fixture
def whole(monkeypatch):
    """Of each step inside a compiled function: whether it was one jump."""
    found = []
    ours = Repeats.whole

    def noted(self, *args):
        found.append(ours(self, *args))
        return found[-1]

    monkeypatch.setattr(Repeats, "whole", noted)
    return found


# `maximize` puts an op between; the others' numbers do not follow from what is compared
ONE_BY_ONE = {"sgd dampening", "adamw maximize", "radam", "asgd", "rprop"}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizers_step_is_one_jump(kind, whole):
    def make():
        model = model_of(4, 5, 5, 2)
        o = OPTIMIZERS[kind](model.parameters())

        def between(i):
            o.param_groups[0]["lr"] = 0.1 / (3 + i)

        return o, plain(model, o), between

    runs_alike(make)
    assert whole[-5:] == [kind not in ONE_BY_ONE] * 5


def test_a_whole_step_sees_what_changed(whole):
    """Settings, counters, gradients, state and memory that are not as they were."""

    def make():
        model = model_of(4, 5, 5, 2)
        o = optim.Adam(model.parameters(), lr=0.05)
        ps = list(model.parameters())

        def between(i):
            if i < 6:
                return
            p, q = o.state[ps[0]], o.state[ps[2]]
            match i - 6:
                case 0:
                    o.param_groups[0]["weight_decay"] = 0.1
                case 2:
                    p["step"] += 3.0
                case 4:
                    o.param_groups[0]["betas"] = (0.5, 0.75)
                case 5:
                    p["exp_avg"] = p["exp_avg"].clone()
                case 6:  # one memory for two states
                    both = weft.zeros(2, *p["exp_avg"].shape)
                    p["exp_avg"], p["exp_avg_sq"] = both[0], both[1]
                case 8:
                    p["exp_avg"] = p["exp_avg_sq"] = p["exp_avg"].clone()
                case 10:
                    p["exp_avg"], p["exp_avg_sq"] = q["exp_avg"].clone()[:, :4], q["exp_avg"].abs()
                    p["exp_avg_sq"] = p["exp_avg_sq"][:, :4]
                case 12:
                    ps[1].requires_grad_(False)
                    ps[1].grad = None
                case 14:
                    ps[1].requires_grad_()
                case 16:
                    o.param_groups[0]["maximize"] = True
                case 18:
                    ps[0].data = ps[0].data.clone()
                case 19:
                    o.param_groups[0]["lr"] = 0.0

        return o, plain(model, o), between

    runs_alike(make, 30)
    assert whole.count(True) >= 8 and False in whole[6:]


@pytest.mark.parametrize("kind", ["adam amsgrad", "sgd nesterov", "rmsprop"])
def test_a_step_by_itself_is_one_jump(kind, whole):
    """Its parameters and gradients come from outside, as in an eager program's step."""

    def make():
        model = model_of(4, 5, 5, 2)
        o = OPTIMIZERS[kind](model.parameters())
        ps = list(model.parameters())
        made = weft.Generator().manual_seed(3)

        def between(i):
            for p in ps:
                p.grad = weft.randn(p.shape, generator=made)
            match i - 5:
                case 1:  # one gradient, and one memory, of two parameters
                    ps[3].grad = ps[1].grad
                case 2:
                    ps[3].grad = ps[1].grad[:]
                case 3:
                    ps[2].grad = weft.randn(5, 5, generator=made).T
                case 4:
                    ps[0].grad = None
                case 5:
                    kept = o.state[ps[0]].values()
                    ps[0].grad = next(v for v in kept if isinstance(v, weft.Tensor))
                case 6:
                    ps[3].data = ps[1].data
                case 7:
                    ps[3].data = ps[1].data.clone()

        def step(x):
            o.step()
            return x + 1

        return o, step, between

    runs_alike(make, 18)
    assert whole[3:6] == [True] * 3 and whole[-4:] == [True] * 4
    assert whole.count(False) >= 8


def test_a_whole_step_keeps_no_optimizer_alive():
    model = model_of(4, 3)
    f = weft.compile(lambda step, x: step(x))
    for _ in range(3):
        o = optim.Adam(model.parameters())
        step = plain(model, o)
        for _ in range(5):
            f(step, weft.randn(3, 4))
        gone = weakref.ref(o)
        state = weakref.ref(next(iter(o.state.values()))["exp_avg"])
        del o, step
        gc.collect()
        assert gone() is None and state() is None


def test_a_whole_step_is_looked_at_natively(monkeypatch):
    if not guards.available():
        pytest.skip("no native look here")
    calls = []
    ours = Repeats._place_all
    monkeypatch.setattr(Repeats, "_place_all", lambda *a: calls.append(1) or ours(*a))
    model = model_of(4, 3)
    o = optim.Adam(model.parameters())
    step = weft.compile(plain(model, o))
    for i in range(20):
        o.param_groups[0]["lr"] = 0.1 / (1 + i)
        step(weft.ones(3, 4))
    assert len(calls) == 1


def test_a_state_that_came_in_as_an_argument():
    seen = []
    for wrap in (lambda f: f, weft.compile):
        model = model_of(4, 3)
        o = optim.Adam(model.parameters(), lr=0.05)
        step, weight = wrap(plain(model, o)), model[0].weight
        out = []
        for i in range(14):
            kept = o.state[weight].get("exp_avg")
            x = kept if i in (6, 9) else kept[:2] if i == 11 else weft.ones(3, 4) * i
            out.append(bits([step(x), list(model.parameters()), kept]))
        seen.append(out)
    assert seen[0] == seen[1]

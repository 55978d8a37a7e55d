"""Numbers by formula are the numbers that the update itself gives, or there is no formula."""

from __future__ import annotations

import math

import pytest

import weft
from tests.compile.test_training import OPTIMIZERS
from weft import nn, optim
from weft.compile.formula import formula
from weft.compile.repeat import Absent

BY_ARITHMETIC = set(OPTIMIZERS) - {"asgd", "rprop"}  # these go on being asked


def updates(kind):
    model = nn.Linear(4, 3)
    o = OPTIMIZERS[kind](model.parameters())

    def step(x):
        o.zero_grad()
        loss = model(x).sum()
        loss.backward()
        o.step()
        return loss.detach()

    c = weft.compile(step, replay=True)
    for _ in range(20):
        c(weft.ones(2, 4))
    ((recording,),) = c._replays.kept.values()
    return recording.updates


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_numbers_are_the_updates(kind):
    u = updates(kind)[0]
    assert bool(u.formula) == (kind in BY_ARITHMETIC)
    ask = u.formula or (lambda settings, state: None)
    counters = {k: v for k, v in u.state.items() if type(v) is float}
    answers = 0
    for step in (1.0, 2.0, 3.0, 7.0, 100.0, 12345.0):
        for rate in (0.0, 1e-5, 0.3, 7.0, 1e30):
            # a setting of another class is a change of the world, and there is a new recording
            decay_is = u.group.get("weight_decay")
            for decay in (0.0, 0.25) if type(decay_is) is float else (decay_is,):
                settings = {**u.group, "lr": rate, "weight_decay": decay}
                state = {**counters, "step": step} if "step" in counters else counters
                try:
                    wanted = u._run(settings, state)
                except Absent:  # another update: other ops
                    wanted = None
                found = ask(settings, state)
                if found is not None:
                    assert repr(found) == repr(wanted), (step, rate, decay)
                    answers += 1
    assert answers >= (15 if kind in BY_ARITHMETIC else 0)


def own(f):
    """f as if it were one of Weft's updates."""
    f.__module__ = "weft.optim.own"
    return f


def made(f, settings, state):
    return formula(own(lambda: None), f, settings, state)


def test_arithmetic_and_branches():
    def ask(g, s):
        step = s["step"] + 1
        a, b = g["pair"]
        x = -((g["lr"] / (1 - a**step)) ** 0.5) if g["lr"] < 1 else abs(g["lr"] - 2)
        y = max(b, 2 * a) if g["lr"] else +b
        return [x, y, float(b) if step > 3 else 3, True], {"step": step}

    settings, state = {"lr": 0.5, "pair": (-0.5, 0.25), "kind": "any"}, {"step": 1.0}
    f = made(ask, settings, state)
    if f is None:  # a negative base to a power, to a root: complex
        settings["pair"] = (0.5, 0.25)
        f = made(ask, settings, state)
    assert f is not None
    same = other = 0
    for lr in (0.0, 0.25, 0.75, 1.0, 3.0):
        for step in (0.0, 1.0, 2.0, 5.0):
            for pair in ((0.5, 0.25), (0.125, 4.0)):
                g, s = {**settings, "lr": lr, "pair": pair}, {"step": step}
                found = f(g, s)
                if found is None:
                    other += 1
                else:
                    assert repr(found) == repr(ask(g, s))
                    same += 1
    assert same >= 2 and other >= 10


CANNOT = {
    "a root": lambda g, s: ([math.sqrt(g["lr"])], {}),
    "whole": lambda g, s: ([int(g["lr"])], {}),
    "rounded": lambda g, s: ([round(g["lr"], 2)], {}),
    "rest": lambda g, s: ([g["lr"] % 0.25], {}),
    "parts": lambda g, s: ([g["lr"] // 0.25], {}),
    "hashed": lambda g, s: ([{0.5: 1.0}.get(g["lr"], 2.0)], {}),
    "text": lambda g, s: ([float(str(float(g["lr"])))], {}),
    "after float": lambda g, s: ([float(g["lr"]) + 1.0], {}),
    "complex": lambda g, s: ([(-g["lr"]) ** 0.5], {}),
    "by a counter": lambda g, s: ([1.0], {"step": math.floor(s["step"]) + 1.0}),
    "state by a root": lambda g, s: ([1.0], {"step": math.sqrt(s["step"])}),
    "raises": lambda g, s: ([1 / (g["lr"] - g["lr"])], {}),
}


@pytest.mark.parametrize("what", CANNOT)
def test_what_is_not_arithmetic_has_no_formula(what):
    assert made(CANNOT[what], {"lr": 0.7}, {"step": 2.0}) is None


def test_constants_and_strangers():
    ask = lambda g, s: ([2.0, 1, g["lr"] * 3], {})
    f = made(ask, {"lr": 0.7}, {})
    assert f is not None and f({"lr": 0.1}, {}) == ask({"lr": 0.1}, {})
    assert formula(lambda: None, ask, {"lr": 0.7}, {}) is None  # not Weft's


def test_an_update_of_the_users_own_is_asked():
    class Mine(optim.SGD):
        def _update(self, p, grad, state, group):
            p.add_(grad, alpha=-math.sqrt(group["lr"]))

    model, eager = nn.Linear(2, 2), nn.Linear(2, 2)
    eager.load_state_dict(model.state_dict())
    steps = []
    for m in (model, eager):
        o = Mine(m.parameters(), lr=0.5)

        def step(x, m=m, o=o):
            o.zero_grad()
            m(x).sum().backward()
            o.step()

        steps.append((weft.compile(step, replay=True) if m is model else step, o))
    for i in range(12):
        for f, o in steps:
            o.param_groups[0]["lr"] = 0.5 / (1 + i)
            f(weft.ones(1, 2))
        assert weft.equal(model.weight, eager.weight)

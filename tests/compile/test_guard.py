"""The native look at a world sees what Python's sees, owns what it points to, leaks nothing."""

from __future__ import annotations

import collections
import copy
import gc
import random
import sys
import threading
import types
import weakref
from typing import Any

import numpy as np
import pytest

import weft
from weft import nn, optim
from weft.compile.guard import Guard
from weft.compile.world import World, is_changed
from weft.runtime import guards

if not guards.available():
    pytest.skip("no native guards here", allow_module_level=True)

RATE = 2.0


class Part:
    """Something of the user's own."""

    factor = 3.0

    def __init__(self):
        self.table = {"a": 1, "b": [1.5, "two"], "c": {}}
        self.names, self.tags = {"x", "y"}, set()
        self.order = collections.OrderedDict(u=1, v=2)

    def apply(self, y, by=2.0):
        return y * self.factor * by


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop = nn.Linear(4, 3), nn.Dropout(0.0)
        self.part = Part()

    def forward(self, x):
        return self.part.apply(self.drop(self.first(x))) * RATE


class Setting:
    """A training step that was made twice, all it reaches, and the guard of it."""

    def __init__(self, optimizer: Any = optim.AdamW, **settings):
        self.model = model = Net()
        self.o = o = optimizer(model.parameters(), lr=0.1, **settings)
        held = 5.0

        def step(x):
            o.zero_grad()
            loss = model(x).sum() * held
            loss.backward()
            o.step()
            return loss.detach()

        def hold(value):
            nonlocal held
            held = value

        self.step, self.hold = step, hold
        for _ in range(2):
            step(weft.ones(2, 4))
        self.world = World([step])
        self.guard = Guard(self.world)
        assert self.guard.stream is not None

    @property
    def native(self):
        assert self.guard.stream is not None
        return self.guard.stream.check() and not any(map(is_changed, self.guard.rest))

    @property
    def python(self):
        none = [t._grad is None for t in self.world.tensors] == self.guard.none
        return none and self.world.change() is None


class Other(Net):
    pass


def remade(s):
    """A dict's values and keys, equal and new."""
    table = dict(s.model.part.table)
    table["b"][1] = "".join(["t", "wo"])  # equal, not the same
    s.model.part.table.update(a=int("1"))
    s.model.scale = float("7.5")


def swap_groups(s):
    s.o.param_groups = [dict(g) for g in s.o.param_groups]


CHANGES = {
    "dict value": lambda s: s.model.part.table.update(a=2),
    "dict value of another type": lambda s: s.model.part.table.update(a=True),
    "dict entry more": lambda s: s.model.part.table.update(d=2),
    "dict entry less": lambda s: s.model.part.table.pop("a"),
    "dict key": lambda s: s.model.part.table.update(e=s.model.part.table.pop("c")),
    "dict order": lambda s: s.model.part.table.update(a=s.model.part.table.pop("a")),
    "empty dict filled": lambda s: s.model.part.table["c"].update(z=1),
    "list item": lambda s: s.model.part.table["b"].__setitem__(0, 2.5),
    "list longer": lambda s: s.model.part.table["b"].append(1),
    "list shorter": lambda s: s.model.part.table["b"].pop(),
    "list turned": lambda s: s.model.part.table["b"].reverse(),
    "set item": lambda s: s.model.part.names.add("z"),
    "empty set filled": lambda s: s.model.part.tags.add("z"),
    "ordered dict's order": lambda s: s.model.part.order.move_to_end("u"),
    "attribute": lambda s: setattr(s.model.part, "factor", 4.0),
    "class attribute": lambda s: setattr(Part, "factor", 4.0),
    "class": lambda s: setattr(s.model, "__class__", Other),
    "method": lambda s: setattr(Part, "apply", lambda self, y: y),
    "defaults": lambda s: setattr(Part.apply, "__defaults__", (3.0,)),
    "code": lambda s: setattr(Part.apply, "__code__", (lambda self, y, by=2.0: y).__code__),
    "cell": lambda s: s.hold(6.0),
    "global": lambda s: globals().update(RATE=3.0),
    "global gone": lambda s: globals().pop("RATE"),
    "layer": lambda s: setattr(s.model, "first", nn.Linear(4, 3)),
    "hook": lambda s: s.model.first.register_forward_hook(lambda m, x, y: y),
    "parameter": lambda s: setattr(s.model.first, "weight", nn.Parameter(weft.ones(3, 4))),
    "tensor's memory": lambda s: setattr(s.model.first.weight, "data", weft.ones(3, 4)),
    "requires_grad": lambda s: s.model.first.requires_grad_(False),
    "tensor hook": lambda s: s.model.first.weight.register_hook(lambda g: g),
    "accumulation hook": lambda s: s.model.first.bias.register_post_accumulate_grad_hook(
        lambda p: None
    ),
    "gradient gone": lambda s: setattr(s.model.first.weight, "grad", None),
    "weight decay": lambda s: s.o.param_groups[0].update(weight_decay=0.0),
    "betas": lambda s: s.o.param_groups[0].update(betas=(0.5, 0.9)),
    "flag": lambda s: s.o.param_groups[0].update(amsgrad=True),
    "rate of another type": lambda s: s.o.param_groups[0].update(lr=1),
    "parameter of a group": lambda s: s.o.param_groups[0]["params"].pop(),
    "group": lambda s: s.o.add_param_group({"params": [nn.Parameter(weft.ones(2))]}),
    "state replaced": lambda s: s.o.state[s.model.first.bias].update(exp_avg=weft.ones(3)),
    "state gone": lambda s: s.o.state.pop(s.model.first.bias),
    "state loaded": lambda s: s.o.load_state_dict(copy.deepcopy(s.o.state_dict())),
    "grad mode": lambda s: weft.set_grad_enabled(False),
    "default dtype": lambda s: weft.set_default_dtype(weft.float64),
}
NONE = {
    "nothing": lambda s: None,
    "memory written": lambda s: s.model.first.weight.detach().mul_(0.5),
    "rate": lambda s: s.o.param_groups[0].update(lr=0.25),
    "step count": lambda s: s.o.state[s.model.first.bias].update(step=9.0),
    "gradient": lambda s: setattr(s.model.first.weight, "grad", weft.ones(3, 4)),
    "a tensor's own attribute": lambda s: setattr(s.model.first.weight, "_held", s.world),
    "another step": lambda s: s.step(weft.ones(2, 4)),
}
EQUAL = {
    "equal numbers": remade,
    "equal cell": lambda s: s.hold(float("5.0")),
    "equal global": lambda s: globals().update(RATE=float("2.0")),
    "groups copied": swap_groups,
    "cleared and set": lambda s: setattr(s.model.first.weight, "_grad", weft.ones(3, 4)),
}


@pytest.fixture(autouse=True)
def as_it_was():
    apply = Part.apply
    kept = apply.__code__, apply.__defaults__
    yield
    Part.apply, Part.factor = apply, 3.0
    apply.__code__, apply.__defaults__ = kept
    globals()["RATE"] = 2.0
    weft.set_grad_enabled(True)
    weft.set_default_dtype(weft.float32)


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_seen_by_both(what):
    s = Setting()
    assert s.native and s.python
    CHANGES[what](s)
    assert not s.python, "Python's look does not see it"
    assert not s.native and not s.guard.holds()


@pytest.mark.parametrize("what", NONE)
def test_what_is_no_change_is_none_for_both(what):
    s = Setting(optim.SGD, momentum=0.9)
    if what == "step count":
        s = Setting()
    if what == "a tensor's own attribute":
        s.model.first.weight._held = True  # there already: only its value changes
        s.guard = Guard(s.world)
    NONE[what](s)
    assert s.python and s.native


@pytest.mark.parametrize("what", EQUAL)
def test_equal_objects_are_no_change_and_are_known_afterwards(what):
    s = Setting()
    s.model.scale = 7.5
    if what == "cleared and set":
        s.model.first.weight.__dict__.pop("_grad")
    s = rebuilt(s)
    EQUAL[what](s)
    if what != "cleared and set":
        assert s.python and not s.native
        assert s.guard.holds() and s.native
    else:
        assert not s.guard.holds()


def rebuilt(s):
    s.world = World([s.step])
    s.guard = Guard(s.world)
    assert s.native and s.python
    return s


def test_a_guard_that_is_always_renewed_leaves_it_to_python():
    s = Setting()
    s.model.scale = 7.5
    rebuilt(s)
    for _ in range(20):
        s.model.scale = float("7.5")
        assert s.guard.holds()
    assert s.guard.stream is None and s.guard.holds()
    s.model.scale = 8.0
    assert not s.guard.holds()


def nested(rng, depth=0):
    """Dicts and lists in one another, of numbers and strings."""
    kind = rng.choice("dl" if depth < 2 else "dlnnns")
    if kind == "d" and depth < 4:
        return {f"k{i}": nested(rng, depth + 1) for i in range(rng.randrange(4))}
    if kind == "l" and depth < 4:
        return [nested(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice([1, 2.5, "text", None, True, 3 + 4j, 10**30])


def containers(x):
    if isinstance(x, (dict, list)):
        yield x
        for v in x.values() if isinstance(x, dict) else x:
            yield from containers(v)


def test_random_containers_and_changes():
    rng = random.Random(0)
    seen = 0
    for _ in range(300):
        tree = {"root": nested(rng), "more": [nested(rng)]}
        world = World([tree])
        guard = Guard(world)
        assert guard.stream is not None and guard.stream.check() and world.holds()
        x = rng.choice(list(containers(tree)))
        what = rng.randrange(5)
        if what == 0:
            if isinstance(x, dict):
                x["new"] = 1
            else:
                x.insert(rng.randrange(len(x) + 1), 1)
        elif what == 1 and x:
            x.popitem() if isinstance(x, dict) else x.pop(rng.randrange(len(x)))
        elif what == 2 and x:
            at: Any = rng.choice(list(x) if isinstance(x, dict) else range(len(x)))
            x[at] = rng.choice([1, 2.5, "text", [], {}])
        elif what == 3:
            x.clear()
        seen += not world.holds()
        if guard.stream.check():
            assert world.holds()
        if not world.holds():
            assert not guard.stream.check()
        assert guard.holds() == world.holds()
    assert 100 < seen < 280


def test_references_are_owned_once_and_given_back():
    value, key, held = object(), "a key of some length", types.SimpleNamespace()
    table = {key: value, "n": [value]}

    def f():
        return held, table

    cell = types.CellType(value)
    own = [value, key, table, held, f.__code__, cell]

    def counts(*more):
        return [sys.getrefcount(x) for x in (*own, *more)]

    before = counts()

    def stream():
        s = guards.Stream()
        s.entries(table)
        s.entries({"f": 1.5}, lambda k, v: (1, float))
        s.items(table["n"])
        s.cell(cell)
        s.names([(table, key, value), (table, "absent", guards.ABSENT)])
        s.functions([f])
        s.dicts([(held, held.__dict__)])
        s.attributes([(f, "__code__", f.__code__), (cell, "cell_contents", value)])
        s.empty(set())
        s.kind(held)
        return s.ready()

    s = stream()
    after, shared = counts(), counts(None, float)[len(own) :]
    assert all(a > b for a, b in zip(after, before, strict=True))
    for calls in range(20_000):
        if calls == 10_000:
            table["n"].append(1)
        assert s.check() == (calls < 10_000)
    assert counts() == after
    now = counts(None, float)[len(own) :]
    assert all(abs(a - b) < 5000 for a, b in zip(now, shared, strict=True))
    del s
    assert counts() == before


def test_what_a_guard_names_lives_as_long_as_it_and_no_longer():
    class Thing:
        pass

    one, two = Thing(), Thing()
    table = {"one": one, "list": [two]}
    refs = [weakref.ref(one), weakref.ref(two)]
    guard = Guard(World([table]))
    assert guard.stream is not None
    table.clear()
    del one, two
    gc.collect()
    assert all(r() is not None for r in refs)
    assert not guard.stream.check()
    stream = guard.stream
    del guard
    gc.collect()
    assert all(r() is not None for r in refs) and not stream.check()
    del stream
    gc.collect()
    assert all(r() is None for r in refs)


def test_floats_are_read_as_floats_only():
    def stream(x, mode, value):
        s = guards.Stream()
        s.entries(x, lambda k, v: (mode, value))
        return s.ready()

    for value in (0.0, -0.0, 1.5, float("nan"), float("inf"), 5e-324):
        x: dict = {"v": value}
        s = stream(x, 2, bool(value))
        for other in (0.0, -0.0, 2.5, float("nan"), 5e-324):
            x["v"] = other
            assert s.check() == (bool(other) == bool(value))
        for other in (0, 1, True, None, "1.5", np.float64(1.5), weft.ones(1)):
            x["v"] = other
            assert not s.check()
    x = {"v": 1.0}
    s = stream(x, 1, float)
    x["v"] = 0.0
    assert s.check()
    x["v"] = 1
    assert not s.check()


def test_a_dict_is_looked_at_after_each_change():
    class Thing:
        pass

    def store(x, value):
        x.value = value  # which the interpreter makes a shorter way of

    thing, first = Thing(), object()
    store(thing, first)
    s = guards.Stream()
    s.dicts([(thing, thing.__dict__)])
    s.entries(thing.__dict__)
    s.ready()
    for i in range(200):
        assert s.check() and s.check()
        store(thing, i)
        assert not s.check() and not s.check()
        store(thing, first)
    assert s.check()
    thing.__dict__ = dict(thing.__dict__)
    assert not s.check()


def test_attributes_that_raise_are_a_difference():
    class Rude:
        calls = 0

        def __getattr__(self, name):
            Rude.calls += 1
            if Rude.calls > 1:
                raise RuntimeError("no")
            return

    rude = Rude()
    s = guards.Stream()
    s.attributes([(rude, "x", None)])
    s.ready()
    assert s.check() and not s.check() and sys.exc_info() == (None, None, None)


def test_threads_change_and_look():
    """One thread changes what the guard names, others look: no crash, and a right last answer."""
    table = {"list": [1, 2], "dict": {"a": 1}, "n": 0}
    world = World([table])
    guard = Guard(world)
    assert guard.stream is not None
    check, stop, wrong = guard.stream.check, threading.Event(), []
    lists, dicts = table["list"], table["dict"]

    def change():
        for i in range(3000):
            lists.extend(range(50))
            dicts.update({f"k{j}": object() for j in range(20)})
            del lists[2:]
            for j in range(20):
                del dicts[f"k{j}"]
            table["n"] = i * 1000
        table["n"] = 0
        stop.set()

    def look():
        while not stop.is_set():
            if check() and len(lists) != 2 and stop.is_set():
                wrong.append(1)

    workers = [threading.Thread(target=f) for f in (change, look, look)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong and check() and world.holds()


def test_a_replay_uses_the_native_look():
    model = Net().eval().requires_grad_(False)
    f = weft.compile(model.forward, replay=True)
    for _ in range(6):
        f(weft.ones(2, 4))
    ((recording,),) = f._replays.kept.values()
    assert recording.guard.stream is not None and recording.guard.stream.check()
    globals()["RATE"] = 5.0
    assert f(weft.ones(2, 4)).tolist() == model(weft.ones(2, 4)).tolist()

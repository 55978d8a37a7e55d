"""What somebody may do to tensors behind Weft's back, each while native code knows them.

`python -m tests.fuzz.hostile NAME` does one in this process, which a stray pointer would end.
"""

from __future__ import annotations

import faulthandler
import gc
import mmap
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

import weft
from tests.fuzz import fence
from weft import nn, optim
from weft.compile.arena import ARENA
from weft.ops import dispatch
from weft.ops.unary import _RELU
from weft.runtime import memory, native

CASES: dict[str, Callable[[], None]] = {}


def case(f: Callable[[], None]) -> Callable[[], None]:
    CASES[f.__name__] = f
    return f


def known(*shape: int) -> Any:
    """A tensor of a shape that relu, add, matmul and t know natively."""
    x = weft.randn(*shape)
    for _ in range(130):
        x.relu(), x + x, x.t() @ x, x.sum(0)
    return x


def replayed(rows: int = 4, **options: Any) -> tuple[Any, Any, Any]:
    """A model, its compiled call (a direct one by now), its argument."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).requires_grad_(False)
    c, x = weft.compile(model.forward, replay=True, **options), weft.randn(rows, 6)
    for _ in range(8):
        c(x)
    assert c._replays.direct is not None, c.stats
    return model, c, x


def attempt(f: Callable[..., Any], *args: Any) -> Any:
    try:
        y = f(*args)
        if isinstance(y, weft.Tensor):
            repr(y), y._a.tobytes()
        return y
    except Exception as e:
        return e


def ops(x: Any) -> None:
    for f in (lambda: x.relu(), lambda: x + x, lambda: x.t(), lambda: x @ x.t(), lambda: x.sum(0)):
        attempt(f)
        with weft.no_grad():
            attempt(f)


@case
def attributes_gone_or_strange() -> None:
    model, c, x = replayed()
    strange = [
        None,
        3,
        "text",
        object(),
        [],
        {},
        weft.randn(2),
        np.zeros(3),
        np.zeros((4, 6), "U3"),
    ]
    names = ("_a", "_st", "_base", "_rg", "_fn", "_hooks", "_grad", "_ghost", "_retain", "_held")
    for name in names:
        for value in strange:
            for base in (known(4, 6), nn.Parameter(known(4, 6))):
                t = base.clone() if base.__class__ is weft.Tensor else base
                attempt(object.__setattr__, t, name, value)
                ops(t)
                attempt(c, t)
                attempt(repr, t)
                attempt(lambda t: (t * t).sum().backward(), t)
                attempt(object.__delattr__, t, name)
                ops(t)
                attempt(c, t)
    for change in (
        lambda t: t.__dict__.clear(),
        lambda t: delattr(t, "_a"),
        lambda t: [delattr(t, name) for name in ("_rg", "_fn", "_st", "_base", "_ghost", "_held")],
        lambda t: setattr(t, "__dict__", {}),
        lambda t: setattr(t, "__dict__", {1: 2}),
    ):
        t = known(4, 6).clone()
        change(t)
        ops(t)
        attempt(c, t)
        for p in model.parameters():
            kept, value = dict(p.__dict__), p._a
            attempt(change, p)
            attempt(c, x)
            p.__dict__.clear()
            p.__dict__.update(kept)
            p._a = value
            attempt(c, x)


@case
def storages_that_are_none() -> None:
    x = known(5, 5)
    leaf = weft.randn(5, 5).requires_grad_()
    for value in (7, [], [3], [None], [lambda: gc.collect()], (), "views", [weakref.ref(leaf)]):
        y = leaf * 1
        y.t()
        y._st.views = value
        for _ in range(3):
            attempt(weft.t, y)
            attempt(lambda y: y.t().relu(), y)
        y._st = value
        attempt(weft.t, y)
        attempt(lambda y: (y * y).sum().backward(), y)
    ops(x)


@case
def classes_change() -> None:
    class Sub(weft.Tensor):
        pass

    class Slotted(weft.Tensor):
        __slots__ = ("more",)

    class Own(weft.Tensor):
        @property
        def _a(self):
            gc.collect()
            return np.zeros(2)

    model, c, x = replayed()
    for cls in (Sub, Slotted, Own, nn.Parameter):
        t = known(4, 6).clone()
        attempt(setattr, t, "__class__", cls)
        ops(t)
        attempt(c, t)
        for p in model.parameters():
            before = p.__class__
            attempt(setattr, p, "__class__", cls)
            r = attempt(c, x)
            assert cls is not Own or isinstance(r, Exception), "what lies behind two numbers"
            attempt(setattr, p, "__class__", before)
            attempt(c, x)


@case
def arrays_change_in_place() -> None:
    model, c, x = replayed()
    x = known(4, 6)
    for t in (x, *model.parameters()):
        a = t.detach()._a
        for change in (
            lambda a: setattr(a, "shape", (a.size,)),
            lambda a: setattr(a, "dtype", "i4"),
            lambda a: setattr(a, "shape", (1, a.size)),
            lambda a: a.setflags(write=False),
        ):
            attempt(change, a)
            ops(t)
            attempt(c, x)
            attempt(c, weft.randn(4, 6))


@case
def arrays_are_resized() -> None:
    for size in ((1,), (0,), (3, 2), (60, 60)):
        model, c, x = replayed()
        x = known(4, 6)
        for t in (x, *model.parameters()):
            attempt(lambda: t.detach()._a.resize(size, refcheck=False))  # noqa: B023
            junk = [np.full(n, 7.0) for n in range(1, 60)]
            ops(t)
            for given in (x, weft.randn(4, 6)):
                got, wanted = attempt(c, given), attempt(model.forward, given)
                assert type(got) is type(wanted), (size, got, wanted)
                if isinstance(got, weft.Tensor):
                    assert got.tolist() == wanted.tolist()
            del junk


@case
def odd_arrays() -> None:
    raw = np.zeros(4096, np.uint8)
    _, c, x = replayed()
    known(4, 6)
    base = np.zeros((4, 6), np.float32)
    odd = [
        raw[1 : 1 + 96].view(np.float32).reshape(4, 6),  # not aligned
        np.broadcast_to(np.float32(2), (4, 6)),
        np.lib.stride_tricks.as_strided(base[3:, 5:], (4, 6), (-24, -4)),
        np.lib.stride_tricks.as_strided(base, (4, 6), (0, -0)),
        base.astype(">f4"),
        np.zeros((0, 6), np.float32),
        np.zeros((4, 0), np.float32),
        np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**30, 2**30), (0, 0)),
        np.zeros((1,) * 64, np.float32),
        np.lib.stride_tricks.as_strided(base, (0,) * 64, (4,) * 64),
        np.ma.masked_array(base, base > 0),
        np.asmatrix(base),
    ]
    for a in odd:
        for t in (attempt(weft.from_numpy, a), dispatch.wrap(a)):
            if isinstance(t, Exception):
                continue
            if a.size < 1000:
                for _ in range(3):
                    ops(t)
                    attempt(lambda: t.t().requires_grad_().relu().sum().backward())  # noqa: B023
            attempt(c, t) if a.size < 1000 else None


@case
def memory_of_a_file_that_closes() -> None:
    _, c, _ = replayed()
    with tempfile.TemporaryFile() as f:
        f.write(bytes(4096))
        f.flush()
        whole = mmap.mmap(f.fileno(), 4096)
    a = np.frombuffer(whole, np.float32, 24).reshape(4, 6)
    t = weft.from_numpy(a)
    ops(t)
    c(t)
    assert isinstance(attempt(whole.close), BufferError)
    del a
    ops(t)
    c(t)


@case
def finalizers_run_everywhere() -> None:
    """Garbage whose end runs ops, drops layouts and compiles, collected at every allocation."""
    _, c, x = replayed()
    leaf = known(5, 5).requires_grad_()

    class Bomb:
        def __init__(self) -> None:
            self.me, self.t = self, leaf.t().relu()

        def __del__(self) -> None:
            _RELU.__dict__.pop("quick", None)
            _RELU.__dict__.pop("call", None)
            _RELU.__dict__.pop("_calls", None)
            c._replays.direct = None
            c(x)
            (self.t * 2).sum().backward()

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for i in range(90):
            if i % 3 == 0:
                Bomb()
            leaf.t(), (leaf * leaf).relu(), (leaf @ leaf.t()).relu().sum().backward(), c(x)
    finally:
        gc.set_threshold(*before)


@case
def names_that_compare_with_code() -> None:
    """A namespace whose lookups run Python, which drops what is being looked at."""
    model = nn.Linear(6, 3).requires_grad_(False)
    space: dict[str, Any] = {"model": model, "factor": 2.0}

    class Same:
        def __init__(self, text: str) -> None:
            self.text = text

        def __hash__(self) -> int:
            return hash(self.text)

        def __eq__(self, other: object) -> bool:
            c = space.get("compiled") if other is not None and busy else None
            if c is not None:
                for (r,) in c._replays.kept.values():
                    r.directs.now = r.guard.stream = None
                c._replays.direct = None
                c._replays.kept.clear()
                gc.collect()
                [bytearray(n) for n in range(8, 2048, 8)]
            return False

    busy = False
    bombs = {Same("factor"): 1, Same("model"): 2}
    space.update(bombs)  # type: ignore[arg-type]
    space = {**bombs, **space}  # type: ignore[dict-item]
    exec("def f(x):\n    return model(x) * factor", space)
    x = weft.randn(4, 6)
    c = space["compiled"] = weft.compile(space["f"], replay=True)
    for _ in range(30):
        busy = False
        for _ in range(5):
            c(x)
        busy = True
        attempt(c, x)


@case
def threads_replace_what_runs() -> None:
    """Calls in threads, while others give weights other memory, pack, trim, grow the arena."""
    layer = nn.Linear(256, 300).requires_grad_(False)
    c = weft.compile(lambda x: layer(x).relu(), replay=True)
    x = weft.randn(64, 256)
    end = threading.Event()
    errors: list[BaseException] = []

    def loop(f: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                while not end.is_set():
                    f()
            except BaseException as e:
                errors.append(e)

        return threading.Thread(target=run)

    def weights() -> None:
        kept = layer.weight.data
        for _ in range(30):
            end.wait(0.001)
        layer.weight.data = weft.randn(300, 256)
        end.wait(0.01)
        layer.weight.data.add_(1)
        end.wait(0.01)
        layer.weight.data = kept

    def arena() -> None:
        with ARENA.lock:
            ARENA.memory = np.empty(0, np.uint8)
        memory.trim()
        weft.compile(lambda: (x @ x.t()).relu() + 1)()
        end.wait(0.003)

    jobs = [loop(lambda: c(x)), loop(lambda: c(weft.randn(64, 256))), loop(weights), loop(arena)]
    jobs += [loop(lambda: (x @ x.t()).relu().sum(0)), loop(lambda: _RELU.__dict__.pop("quick", 0))]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for t in jobs:
        t.start()
    end.wait(1.5)
    end.set()
    for t in jobs:
        t.join()
    sys.setswitchinterval(before)
    if errors:
        raise errors[0]


@case
def weights_come_and_go() -> None:
    """Direct calls beside exchanged launches: the places of their pointers have moved."""
    layer = nn.Linear(256, 300).requires_grad_(False)
    c = weft.compile(lambda x: layer(x).relu(), replay=True)
    x, first, second = weft.randn(20, 256), layer.weight.data, weft.randn(300, 256)
    for i in range(200):
        if i % 9 == 5:
            layer.weight.data = second
        elif i % 9 == 7:
            layer.weight.data = first
        elif i % 31 == 30:
            layer.weight.data.mul_(1.5)
        y = c(x)
        assert np.array_equal(y.numpy(), layer(x).relu().numpy())
        [bytearray(n) for n in range(64, 1024, 64)]


@case
def tape_nodes_are_looked_at() -> None:
    """Every object that the collector knows, printed while tape nodes are being filled."""
    leaf = known(4, 6).requires_grad_()
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            for x in gc.get_objects():
                if type(x).__name__ in ("TapeNode", "Tensor", "Meta", "Storage"):
                    attempt(repr, x)
                    [attempt(getattr, x, n) for n in ("edges", "saved", "result", "versions")]

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(1000):
            (leaf * leaf + leaf).relu().t()
    finally:
        end.set()
        looker.join()


@case
def training_steps_are_disturbed() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    o = optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any) -> Any:
        o.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        o.step()
        return loss.detach()

    c, x = weft.compile(step, replay=True), weft.randn(5, 6)

    def run() -> None:
        for _ in range(7):
            attempt(c, x)

    run()
    w = model[0].weight
    for change in (
        lambda: w.grad.__dict__.clear(), lambda: setattr(w, "grad", None),
        lambda: o.state.clear(), lambda: o.state[w].clear(), lambda: o.param_groups[0].clear(),
        lambda: w.__dict__.pop("_grad", None), lambda: w._a.resize((1,), refcheck=False),
        lambda: o.param_groups.clear(), lambda: o.__dict__.clear(), lambda: model.__dict__.clear(),
    ):  # fmt: skip
        attempt(change)
        run()


@case
def matched_calls_are_disturbed() -> None:
    """What native code compares, made strange between and during the calls that it matches."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    o = optim.Adam(model.parameters(), lr=0.01)
    change: list[Any] = [None]

    def step(x: Any) -> Any:
        o.zero_grad()
        h = model[0](x).relu()
        change[1:] = [(h,)]
        if callable(change[0]):
            attempt(change[0])
        loss = (model[2](h).view(-1) * 2.0).mean()
        loss.backward()
        o.step()
        return loss.detach()

    c, x = weft.compile(step), weft.randn(5, 6)

    def run() -> None:
        for _ in range(6):
            attempt(c, x)

    run()
    w, root = model[0].weight, c._root

    def nodes() -> list[Any]:
        found, node = [], root
        while node is not None and len(found) < 200:
            found.append(node)
            node = getattr(node, "next", None)
        return found

    for disturb in (
        lambda: setattr(w, "_rg", 7), lambda: setattr(w, "_rg", True),
        lambda: setattr(w, "_fn", "node"), lambda: setattr(w, "_fn", None),
        lambda: setattr(w, "_st", 3), lambda: setattr(w, "_st", None),
        lambda: setattr(w, "_base", 1.5), lambda: setattr(w, "_base", None),
        lambda: setattr(w, "_ghost", object()), lambda: setattr(w, "_ghost", None),
        lambda: w._a.resize((1,), refcheck=False), lambda: setattr(w, "data", weft.randn(8, 6)),
        lambda: [setattr(n, "next", 5) for n in nodes()], lambda: None,
        lambda: [delattr(n, "native") for n in nodes()], lambda: None,
        lambda: [delattr(n, "next") for n in nodes()], lambda: None,
        lambda: setattr(change[-1][0]._ghost, "k", "0"), lambda: None,
        lambda: delattr(change[-1][0]._ghost, "session"), lambda: None,
        lambda: root.children.clear(), lambda: root.jumps.clear(), lambda: gc.collect(),
        lambda: setattr(weft.core.handle.state.recorder, "outside", None), lambda: None,
        lambda: setattr(weft.core.handle.state.recorder, "cursor", None), lambda: None,
        lambda: weft.core.handle.state.recorder.ghosts.clear(), lambda: None,
    ):  # fmt: skip
        change[0] = None
        attempt(disturb)
        run()
        change[0] = disturb
        run()
        weft.core.handle.state.recorder = None
    other = [threading.Thread(target=run) for _ in range(2)]
    [t.start() for t in other]
    run()
    [t.join() for t in other]


@case
def what_is_written_to_is_strange() -> None:
    x, y = known(4, 6), known(4, 6)
    for _ in range(230):
        x.add_(y, alpha=1e-6), x.mul_(1.0), x.lerp_(y, 1e-6)
    a = x._a
    with tempfile.TemporaryFile() as f:
        f.truncate(96)
        mapped = np.memmap(f, np.float32, "r", shape=(4, 6))
        spread = np.lib.stride_tricks.as_strided(np.zeros(9, np.float32), (4, 6), (4, 4))
        unowned = np.frombuffer(bytes(96), np.float32).reshape(4, 6)
        for value in (
            mapped, a.view(np.recarray), a.astype(object), np.broadcast_to(a[0], (4, 6)), a[::-1],
            a.astype(">f4"), unowned, spread, 3, None, [a], a[:0],
        ):  # fmt: skip
            for t, z in ((x, y), (y, x), (x, x)):
                t._a = value
                for f_ in (
                    lambda t, z: t.add_(z, alpha=0.5), lambda t, z: t.mul_(2.0),
                    lambda t, z: t.mul_(z), lambda t, z: t.lerp_(z, 0.5), lambda t, z: z.add_(t),
                    lambda t, z: t.add_(10**400), lambda t, z: t.mul_(float("nan")),
                    lambda t, z: z.addcmul_(t, t, value=0.1), lambda t, z: z.sub_(z),
                ):  # fmt: skip
                    attempt(f_, t, z)
                x._a, y._a = a, np.ones_like(a)
    del x._a
    attempt(lambda: x.mul_(2.0)), attempt(lambda: y.mul_(x))


if __name__ == "__main__":
    faulthandler.enable()
    fence.install_memory(native, memory)
    CASES[sys.argv[1]]()
    gc.collect()
    print("whole")

"""Calls that native code matches: what Python's look at the trie gives, tape and links with it."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import weft
from weft.compile import expect
from weft.compile.record import Ghost, Session, TrieNode
from weft.core.handle import Handle, TapeNode
from weft.runtime import native

if native.match_functions() is None:
    pytest.skip("this interpreter's structs are not known", allow_module_level=True)

F = weft.nn.functional


@pytest.fixture
def by_python(monkeypatch):
    """How often Python matched a call; on `slow()` it matches all."""
    count = [0]
    matched = Session._matched

    def counted(self, *args):
        count[0] += 1
        return matched(self, *args)

    def slow():
        monkeypatch.setattr(expect, "expect", lambda *_: None)

    monkeypatch.setattr(Session, "_matched", counted)
    count.append(slow)
    return count


def tape_of(root):
    """What hangs on a tensor's tape, as plain values."""
    seen: dict[int, int] = {}
    out, stack = [], [root._fn]
    while stack:
        node = stack.pop()
        if node.__class__ is not TapeNode or id(node) in seen:
            continue
        seen[id(node)] = len(seen)
        saved = [
            ("value", tuple(s.shape), s._version, s._is_view())
            if isinstance(s, Handle)
            else (s.shape, s.np_dtype)
            if hasattr(s, "np_dtype")
            else s
            for s in node.saved
        ]
        edges = [e if e is None else type(e).__name__ for e in node.edges]
        kept = None if node.result is None else tuple(node.result.shape)
        out.append((str(node.op), edges, saved, node.versions, kept, node.hooks, node.post))
        stack.extend(node.edges)
    return out


def linear_relu(x, w, b):
    return F.relu(F.linear(x, w, b))


def numbers(x, w, b):
    return ((x * 2.5 + 1) / 3.0 - w.sum()).exp() * b.sum()


def views(x, w, b):
    y = (x @ w.t()).view(2, 2, -1).transpose(0, 1)
    return (y * x[0, 0] + y.reshape(-1)[0]).flatten() * w[1:3].sum()


def outside_views(x, w, b):
    first, second = w[0], w[1]  # two outside views of one memory, once the call is over
    return (first * second).sum() * x + w.mean()


def twice(x, w, b):
    return (x * x + x).softmax(-1) * w[0] + b.sum() ** 2


def no_gradient(x, w, b):
    with weft.no_grad():
        c = (x @ w.t()) * 2
    return (x @ w.t()) * c + b


def written(x, w, b):
    y = x @ w.t() + 0.5
    y[0] = 3.0
    y.mul_(b)
    return y.tanh().sum() * 2


PROGRAMS = [linear_relu, numbers, views, outside_views, twice, no_gradient, written]


def data(grad=True):
    weft.manual_seed(3)
    x, w, b = weft.randn(4, 5), weft.randn(6, 5), weft.randn(6)
    return [t.requires_grad_(grad) for t in (x, w, b)]


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("program", PROGRAMS)
def test_as_python_matches_and_as_eager_computes(program, grad, by_python, monkeypatch):
    kept = {}

    def step(*tensors):
        y = program(*tensors)
        kept["tape"] = tape_of(y) if y._fn is not None else None
        kept["rg"], kept["layout"] = y._rg, (y.shape, y.stride(), y.dtype)
        return y

    results = {}
    for how in ("native", "python"):
        if how == "python":
            by_python[1]()
        f = weft.compile(step)
        tensors = data(grad)
        for _ in range(3):
            y = f(*tensors)
        before = by_python[0]
        y = f(*tensors)
        found = by_python[0] - before
        grads = grads_of(y, tensors) if grad else ()
        results[how] = (y.detach().numpy(), [g.numpy() for g in grads], dict(kept), found)
        assert f.stats["recorded_ops"] == _length(f), "one path"
    a, b = results["native"], results["python"]
    eager = program(*data(grad))
    np.testing.assert_array_equal(a[0], eager.detach().numpy())
    np.testing.assert_array_equal(a[0], b[0])
    for g, h in zip(a[1], b[1], strict=True):
        np.testing.assert_array_equal(g, h)
    assert a[2] == b[2]
    assert a[3] < b[3], "native code matched calls"
    if program is linear_relu:
        assert a[3] == 0


def grads_of(y, tensors):
    found = weft.autograd.grad(y.sum(), tensors, allow_unused=True)
    return [g for g in found if g is not None]


def _length(f):
    node, n = f._root, 0
    while node.children:
        (node,) = node.children.values()
        n += 1
    return n


def test_another_call_than_the_one_that_came_last(by_python):
    other = weft.randn(4)

    def step(x, way):
        y = x + 1.0
        if way == 0:
            return y * 2.0
        if way == 1:
            return y * 2  # a float by the time it is an operand
        if way == 2:
            return y - 2.0  # another op
        if way == 3:
            return y * x  # an operand known before
        if way == 4:
            return y * y  # another result
        return y * other  # one met first

    f = weft.compile(step)
    x = weft.randn(4)
    want = [step(x, way).numpy() for way in range(6)]
    for way in [*range(6), 0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0, 0]:
        np.testing.assert_array_equal(f(x, way).numpy(), want[way])
    assert f.stats["recorded_ops"] == 6
    assert f.stats["op_by_op"] == 0


def test_numbers_reach_the_program():
    f = weft.compile(lambda x, a: (x * a) - (a + 1))
    x = weft.randn(3)
    for a in (0.5, 2.0, -1.0, float("inf"), 7.25):
        np.testing.assert_array_equal(f(x, a).numpy(), (x * a - (a + 1)).numpy())


def test_shared_memory_is_another_path():
    f = weft.compile(lambda a, b: (a * 2.0) + b.mul_(3.0) + a)
    a, b = weft.ones(4), weft.ones(4)
    for _ in range(4):
        np.testing.assert_array_equal(f(a, b.clone()).numpy(), np.full(4, 6, np.float32))
    for _ in range(4):
        c = weft.ones(4)
        got = f(c, c.view(4))  # the write is seen through a: not the path of before
        np.testing.assert_array_equal(got.numpy(), np.full(4, 2 + 3 + 3, np.float32))
    np.testing.assert_array_equal(f(a, b.clone()).numpy(), np.full(4, 6, np.float32))


def test_another_size_at_a_first_use():
    w = weft.randn(5, 5)
    f = weft.compile(lambda x: (x @ w).relu() + x)
    for n in (4, 4, 4, 7, 7, 4, 1, 9, 9, 4):
        x = weft.randn(n, 5)
        np.testing.assert_array_equal(f(x).numpy(), ((x @ w).relu() + x).numpy())


def test_first_uses_of_memory_that_is_shared_now_and_then():
    """What native code notes of a tensor's first use is what the long way finds."""
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = weft.from_numpy(array)
    bases = [lambda: x, lambda: x.detach(), lambda: weft.from_numpy(array), lambda: x[:],
             lambda: weft.from_numpy(array[:]), lambda: x.clone(), lambda: weft.ones(3, 4),
             lambda: weft.from_numpy(array.T.copy()).T, lambda: x.view(3, 4)]  # fmt: skip

    def f(a, b, c):
        a.add_(1.0)
        return (a * b).sum() + c.mean(), b + c

    compiled = weft.compile(f)
    rng = np.random.default_rng(3)
    for _ in range(120):
        picks = [bases[k] for k in rng.integers(0, len(bases), 3)]
        results = []
        for call in (compiled, f):
            array[:] = np.arange(12).reshape(3, 4)
            given = [make() for make in picks]
            first, second = call(*given)
            results += [(first.item(), second.numpy().copy(), given[1].numpy().copy())]
        for got, want in zip(*results, strict=True):
            np.testing.assert_array_equal(got, want)


def test_promised_writes_are_seen_through_every_handle():
    w = weft.nn.Parameter(weft.ones(2, 3))
    twin, row, flat = w.data, w.detach()[1], w.detach().view(-1)
    optimizer = weft.optim.Adam([w], lr=0.5)
    sums = []

    def step(x):
        optimizer.zero_grad()
        (x * w).sum().backward()
        before = twin.sum() + row.sum()
        optimizer.step()
        return before, twin.sum() + row.sum(), flat[0] * 1.0, optimizer.state[w]["exp_avg"].sum()

    def run(call):
        with weft.no_grad():
            w.fill_(1.0)
        optimizer.state.clear()
        return [[t.item() for t in call(weft.full((2, 3), float(k)))] for k in range(1, 9)]

    sums = [run(step), run(weft.compile(step))]
    assert sums[0] == sums[1] and sums[0][0][0] != sums[0][1][0]
    promise = native.match_functions()[1]
    for given in ((), (1,), (1, []), ("s", "t"), (object.__new__(Session), [w]), (None, None)):
        assert promise(*given) is None


def test_gradients_switched_on_between_calls():
    f = weft.compile(lambda x, w: F.relu(F.linear(x, w)) * 2.0)
    x, w = weft.randn(3, 4), weft.randn(5, 4)
    for on in (False, False, True, False, True):
        w.requires_grad_(on)
        y = f(x, w)
        assert y.requires_grad is on and (y.grad_fn is not None) is on
    (g,) = weft.autograd.grad(f(x, w).sum(), [w])
    y = F.relu(F.linear(x, w)) * 2.0
    np.testing.assert_array_equal(g.numpy(), weft.autograd.grad(y.sum(), [w])[0].numpy())


def test_parameters_of_a_layer_of_five_operands_off_the_tape(by_python):
    model = weft.nn.Sequential(weft.nn.Conv2d(3, 4, 3), weft.nn.BatchNorm2d(4), weft.nn.ReLU())
    f = weft.compile(model.eval())
    x = weft.randn(1, 3, 8, 8)
    with weft.no_grad():
        for _ in range(3):
            f(x)
        before = by_python[0]
        y = f(x)
        assert by_python[0] == before, "native code matched every call"
        np.testing.assert_array_equal(y.numpy(), model(x).numpy())
    assert f(x).requires_grad


def test_another_operation_than_the_one_that_may_come_is_recorded(monkeypatch):
    """Python looks for a call's operation among those that came here only if there are several."""
    asked = []
    known = Session.known
    monkeypatch.setattr(
        Session, "known", lambda s, op, args: asked.append(op) or known(s, op, args)
    )
    f = weft.compile(lambda x, way: (x.relu() if way else x.tanh()) * 2.0)
    x = weft.randn(5)
    x.relu(), x.tanh()
    looked_for = []
    for way in (0, 0, 0, 1, 1, 0, 1):
        asked.clear()
        y = f(x, way)
        looked_for.append([op.name for op in asked])
        np.testing.assert_array_equal(y.numpy(), ((x.relu() if way else x.tanh()) * 2.0).numpy())
    assert looked_for[2:5] == [[], [], ["Relu"]]  # the fourth call: one way known, not this one
    assert f.stats["recorded_ops"] == 4


def test_subclasses_and_hooks_of_saved_tensors_are_pythons():
    packed = []

    def pack(t):
        packed.append(tuple(t.shape))
        return t

    f = weft.compile(lambda x, w: F.linear(x, w).tanh().sum())
    x, w = weft.randn(3, 4), weft.randn(5, 4).requires_grad_()
    for _ in range(3):
        f(x, w)
    with weft.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = f(x, w)
    assert packed == [(3, 4), (3, 5)]
    (g,) = weft.autograd.grad(y, [w])
    (h,) = weft.autograd.grad(F.linear(x, w).tanh().sum(), [w])
    np.testing.assert_array_equal(g.numpy(), h.numpy())


def test_nothing_leaks():
    x, w, b = data()

    def step():
        y = linear_relu(x, w, b).view(-1, 3)
        return (y * 2.5).sum()

    f = weft.compile(step)
    for _ in range(5):
        f()
    gc.collect()
    node = f._root
    kept = []
    while node.children:
        (node,) = node.children.values()
        kept += [node, node.meta, node.native, node.op]
    before = [sys.getrefcount(o) for o in (x, w, b, f, None, True, *kept)]
    objects = len(gc.get_objects())
    for _ in range(200):
        f()
    gc.collect()
    after = [sys.getrefcount(o) for o in (x, w, b, f, None, True, *kept)]
    assert all(abs(p - q) < 20 for p, q in zip(before, after, strict=True)), (before, after)
    assert abs(len(gc.get_objects()) - objects) < 50


def test_an_error_leaves_the_path_usable():
    w = weft.randn(4, 4)
    f = weft.compile(lambda x, y: (x @ w).relu() + y)
    x = weft.randn(2, 4)
    for _ in range(3):
        f(x, x)
    for wrong in (weft.randn(3, 5), "no tensor", None, object()):
        with pytest.raises((RuntimeError, TypeError)):
            f(x, wrong)
    with pytest.raises(RuntimeError):
        f(weft.randn(2, 3), x)
    np.testing.assert_array_equal(f(x, x).numpy(), ((x @ w).relu() + x).numpy())


@pytest.mark.parametrize(
    "given", [(), (1,), (1, 2, 3), (None, None, ()), (1, 2, (3,)), (1, 2, (), 4), ("s", [], [1])]
)
def test_what_is_no_call_of_a_session(given):
    assert native.match_functions()[0](*given) is None


def test_a_session_with_odd_operands():
    match, _ = native.match_functions()
    f = weft.compile(lambda x: x * 2.0 + 1.0)
    x = weft.randn(3)
    for _ in range(3):
        f(x)
    first = f._root.next
    session = Session(f._root, None)
    for args in ((), (x,), (x, 2), (x, x), (1.0, 2.0), (None, 2.0), (x, 2.0, 3.0), [x, 2.0], 7):
        assert match(session, first.op, args) is None
        assert session.cursor is f._root and not session.outside and not session.numbers
    assert match(session, None, (x, 2.0)) is None
    y = match(session, first.op, (x, 2.0))
    assert session.cursor is first and session.numbers == [2.0] and y._ghost.k == 0
    assert session.outside == [x] and session.ghosts == [y._ghost]
    empty = object.__new__(Session)  # nothing is set
    assert match(empty, first.op, (x, 2.0)) is None
    empty.matching = True
    assert match(empty, first.op, (x, 2.0)) is None
    empty.cursor, empty.numbers, empty.outside = f._root, [], None
    assert match(empty, first.op, (x, 2.0)) is None
    empty.outside, empty.ghosts = [], ()
    assert match(empty, first.op, (x, 2.0)) is None
    empty.ghosts = []
    for name in ("_memories", "_handles", "_places"):  # where a tensor's first use is noted
        assert match(empty, first.op, (x, 2.0)) is None
        setattr(empty, name, {})
        assert not empty.outside
    odd = x.clone()
    odd._ghost = object.__new__(Ghost)
    odd._ghost.session = session
    assert match(session, session.cursor.next.op, (odd, 1.0)) is None
    bare = Session(object.__new__(TrieNode), None)
    assert match(bare, first.op, (x, 2.0)) is None


_EAGER_FIRST = """
import weft

x, w = weft.ones(4, 4), weft.ones(4, 4, requires_grad=True)
for _ in range(200):
    (x @ w).relu()  # until native code knows the layouts; the compiler is not there yet
from weft.runtime import native

made_before = native._layout_functions.cache_info().currsize
f = weft.compile(lambda x: (x @ w).relu().sum())
for _ in range(4):
    f(x)
from weft.compile.record import Session

by_python, matched = [], Session._matched
Session._matched = lambda self, *args: by_python.append(args) or matched(self, *args)
f(x)
print(made_before, len(by_python))
"""


def test_eager_code_that_ran_before_the_compiler_was_loaded():
    run = subprocess.run([sys.executable, "-c", _EAGER_FIRST], capture_output=True, text=True)
    assert (run.stdout.split(), run.stderr) == (["1", "0"], "")

"""Views and indices that native code knows: what Python makes of the call, no leaks, no mix-ups."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import weft
from weft.core.handle import storage_of
from weft.ops import dispatch, getitem, view
from weft.runtime import native, wish_code

if not native.tensor_builtins():
    pytest.skip("this interpreter's structs are not known", allow_module_level=True)

CALLS = {
    "reshape": [(6, 28), (-1,), ((28, 6),), (weft.Size((168,)),), (2, 3, -1)],
    "view": [(6, 28), (-1, 2), ((28, 6),), (weft.Size((168,)),)],
    "permute": [(2, 0, 1), ((1, 0, 2),), (-1, 0, 1)],
    "transpose": [(0, 1), (-1, 0), (1, 1)],
    "movedim": [(0, 2), ((0, 1), (1, 2))],
    "expand": [(5, 2, 7, 12), (-1, -1, -1), ((2, 7, 12),)],
    "squeeze": [(), (1,), (-1,), ((0, 1),)],
    "unsqueeze": [(0,), (-1,), (2,)],
    "flatten": [(), (1,), (0, 1), (-2, -1)],
    "narrow": [(0, 0, 1), (1, 1, 2), (-1, -2, 2)],
    "select": [(0, 1), (2, -1), (-1, 3)],
    "__getitem__": [
        (1,), (-1,), (slice(0, 1),), (slice(None, None, 2),), ((slice(None), 1),), (None,), (...,),
        ((..., 0),), ((..., None),), ((slice(None), slice(1, 3)),), ((0, 1, 2),), ((1, None, 2),),
    ],
}  # fmt: skip
CASES = [(name, wish) for name, wishes in CALLS.items() for wish in wishes]


def untold(monkeypatch):
    """From here on Python looks at every argument."""
    monkeypatch.setattr(dispatch, "known", lambda *_: None)
    monkeypatch.setattr(dispatch, "parts", lambda *_: None)
    monkeypatch.setattr(dispatch, "item", lambda *_: None)


def forget_layouts():
    """Other tests may have had the ops learn as many as they will."""
    for kind in (view.Reshape, view.Permute, view.Expand, view.Slice, view.Select):
        for op in kind._interned.values():
            for name in ("_calls", "call", "quick", "into", "_uses"):
                vars(op).pop(name, None)


def taught(call):
    """Called until native code knows it."""
    for _ in range(2 * dispatch._OFTEN + 4):
        y = call()
    return y


@pytest.mark.parametrize("name, wish", CASES, ids=str)
@pytest.mark.parametrize("grad", [False, True])
def test_the_same_tensor_as_by_python(name, wish, grad, monkeypatch):
    forget_layouts()
    x = weft.rand(2, 7, 12, requires_grad=grad)  # a shape that no other test has
    method = getattr(weft.Tensor, name)
    taught(lambda: method(x, *wish))
    one = sum(i != slice(None) and i is not Ellipsis for i in np.atleast_1d(*wish)) == 1 if (
        name == "__getitem__" and isinstance(wish[0], tuple)
    ) else wish != (...,)  # fmt: skip
    with monkeypatch.context() as m:
        if one or not grad:  # Python is not asked any more
            m.setattr(dispatch, "apply", None)
            m.setattr(getitem, "apply", None)
        y = method(x, *wish)
    untold(monkeypatch)
    want = method(x, *wish)
    np.testing.assert_array_equal(y._a, want._a)
    assert type(y) is weft.Tensor and y.shape == want.shape
    steps = zip(y.shape, y.stride(), want.stride(), strict=True)
    assert all(n == 1 or a == b for n, a, b in steps)  # NumPy's new dims have a step of 0
    assert native.address(y._a) == native.address(want._a)
    assert y._base is want._base is x and y._st is want._st and y._rg is want._rg is grad
    if grad:
        assert y._fn.op is want._fn.op
        assert [e for e in y._fn.edges if e.__class__ is weft.Tensor] == [
            e for e in want._fn.edges if e.__class__ is weft.Tensor
        ]
        (g,), (h,) = (weft.autograd.grad(v.sum(), x) for v in (y, want))
        np.testing.assert_array_equal(g._a, h._a)
        with weft.no_grad():
            assert method(x, *wish)._fn is None


def test_shapes_and_wishes_are_not_mixed_up(monkeypatch):
    """Every one of many: each gets its own answer once all of them are known."""
    forget_layouts()
    rng = np.random.default_rng(0)
    calls = []
    for _ in range(150):
        shape = tuple(int(n) for n in rng.integers(1, 5, rng.integers(1, 5)))
        x, rank = weft.rand(*shape), len(shape)
        a, b = (int(d) for d in rng.integers(-rank, rank, 2))
        order = tuple(int(d) for d in rng.permutation(rank))
        calls += [
            (x, "transpose", (a, b)), (x, "permute", order), (x, "unsqueeze", (a,)),
            (x, "select", (a, 0)), (x, "narrow", (a, 0, 1)), (x, "squeeze", (a,)),
            (x, "reshape", (x.numel(),)), (x, "flatten", (0, -1)), (x, "t", ()) if rank < 3 else
            (x, "reshape", (*shape, 1)), (x, "expand", (int(a) % 3 + 1, *shape)),
        ]  # fmt: skip
    for _ in range(40):
        got = [getattr(x, name)(*wish) for x, name, wish in calls]
    hit = [dispatch.known(x, view._UNSQUEEZE, *w) for x, n, w in calls if n == "unsqueeze"]
    assert sum(y is not None for y in hit) > 40
    untold(monkeypatch)
    for y, (x, name, wish) in zip(got, calls, strict=True):
        want = getattr(x, name)(*wish)
        assert y.shape == want.shape and y._a.strides == want._a.strides, (name, wish)
        assert native.address(y._a) == native.address(want._a)


def test_a_full_table_begins_anew(monkeypatch):
    forget_layouts()
    x = weft.rand(3, 41)
    taught(lambda: x.select(0, 1))
    assert dispatch.known(x, view._SELECT, 0, 1) is not None
    monkeypatch.setattr(wish_code, "MOST_KEYS", len(native._keys))
    taught(lambda: x.unsqueeze(1))
    assert dispatch.known(x, view._UNSQUEEZE, 1).shape == (3, 1, 41)
    assert dispatch.known(x, view._SELECT, 0, 1) is None
    taught(lambda: x.select(0, 1))
    np.testing.assert_array_equal(dispatch.known(x, view._SELECT, 0, 1)._a, x._a[1])


def test_what_only_equals_a_known_wish():
    forget_layouts()
    x = weft.rand(2, 37)  # of which no forgotten table knows anything
    taught(lambda: (x.select(0, 1), x.reshape(1, 74), x[1], x.unsqueeze(1), x.transpose(0, 1)))
    assert dispatch.known(x, view._SELECT, 0, 1) is not None
    for wish in (
        (0, True),
        (0, 1.0),
        (False, 1),
        (0, np.int64(1)),
        (0, 1 << 62),
        (0, 1 << 64),
        (0,),
    ):
        assert dispatch.known(x, view._SELECT, *wish) is None, wish
    deep = 1
    for _ in range(40):
        deep = (deep,)
    for wish in (deep, (1,) * 40, [1, 74], "174", (1, "74"), x):
        assert dispatch.known(x, view._RESHAPE, wish) is None
    for odd in (None, 3, x._a, object.__new__(weft.Tensor)):
        assert dispatch.known(odd, view._SELECT, 0, 1) is None
        assert dispatch.item(odd, 1) is None
    assert dispatch.item(x) is None and dispatch.item(x, 1, 1) is None
    assert x.reshape(True, 74).shape == (1, 74) and x[True].shape == (1, 2, 37)
    assert x.double().select(0, 1).dtype is weft.float64
    assert x.t().unsqueeze(1).stride() == (1, 1, 37) or x.t().unsqueeze(1).shape == (37, 1, 2)


def test_indices_off_the_tape_are_numpys(monkeypatch):
    rng = np.random.default_rng(1)
    taught(lambda: weft.rand(3)[0])
    parts = [0, 1, -1, slice(None), slice(1, None), slice(None, -1, 2), slice(5, 2), None, ...]
    for _ in range(400):
        x = weft.rand(*(int(n) for n in rng.integers(1, 4, rng.integers(0, 4))))
        some = [parts[k] for k in rng.integers(0, len(parts), rng.integers(0, 4))]
        if some.count(...) > 1:
            continue
        index = tuple(some) if rng.integers(2) or len(some) != 1 else some[0]
        try:
            want = x._a[index if index.__class__ is tuple else (index,)]
        except IndexError:
            assert dispatch.item(x, index) is None
            with pytest.raises(IndexError):
                x[index]
            continue
        y = dispatch.item(x, index)
        assert y is not None and y._a.__class__ is np.ndarray and y.shape == want.shape
        np.testing.assert_array_equal(y._a, want)
        assert y._base is x and y._st is x._st and (not y.numel() or np.shares_memory(y._a, x._a))
        y.fill_(7.0)
        assert (np.asarray(x._a[index]) == 7).all() and x._version == 1


@pytest.mark.parametrize(
    "index",
    [slice(None, None, -1), (slice(None, None, -1), 0), [0], ([0],), (0, [1]), True, 1.5, "1",
     ((0, 1),), np.int64(0), weft.tensor([0]), slice(None, None, 1.0)],
    ids=str,
)  # fmt: skip
def test_indices_that_are_not_numpys(index):
    assert dispatch.item(weft.rand(3, 4), index) is None


def test_a_tape_asks_for_the_op():
    x = weft.rand(3, 4, requires_grad=True)
    with weft.no_grad():
        assert dispatch.item(x, (1, slice(0, 2)))._fn is None
    assert dispatch.item(x, (1, slice(0, 2))) is None  # two ops
    y = x * 2
    view_ = y.detach()[1]
    with weft.no_grad():
        y[1].zero_()
    assert (view_ == 0).all() and y._version == view_._version == 1


def test_views_are_found_by_a_write():
    """A tracked write gives the views of a memory new places on the tape."""
    w = weft.rand(3, requires_grad=True)
    for make in (lambda x: x[1], lambda x: x.select(0, 1)):
        taught(lambda make=make: make(weft.rand(2, 3)))
        x = weft.zeros(2, 3)
        row = make(x)
        x[1] = w * 2
        (g,) = weft.autograd.grad(row.sum(), w)
        assert g.tolist() == [2, 2, 2]


def test_a_compiled_function_knows_them():
    def f(x):
        y = x.transpose(0, 1).reshape(2, 6).unsqueeze(0).expand(3, 2, 6)
        return y[1].flatten().narrow(0, 1, 5) * 2 + x.T.reshape(-1)[2:7]

    compiled = weft.compile(f)
    for grad in (False, True):
        for _ in range(6):
            x = weft.rand(3, 4, requires_grad=grad)
            got, want = compiled(x), f(x)
            np.testing.assert_array_equal(got.detach()._a, want.detach()._a)
            if grad:
                g, h = (weft.autograd.grad(v.sum(), x)[0] for v in (got, want))
                np.testing.assert_array_equal(g._a, h._a)


def test_modes_and_subclasses_are_asked_all_the_same():
    code = (
        "import weft\n"
        "from weft.compat.torch_.overrides import TorchFunctionMode\n"
        "x = weft.rand(2, 3)\n"
        "for _ in range(300): x.t(), x.unsqueeze(0), x[1]\n"
        "seen = []\n"
        "class Mode(TorchFunctionMode):\n"
        "    def __torch_function__(self, func, types, args=(), kwargs=None):\n"
        "        seen.append(func.__name__)\n"
        "        return func(*args, **(kwargs or {}))\n"
        "with Mode(): x.t(), x.unsqueeze(0), x[1], x.dim(), x.shape, x.detach()\n"
        "assert seen[:3] == ['t', 'unsqueeze', 'getitem'], seen\n"
        "assert seen[3:] == ['dim', '__get__', 'detach'], seen\n"
        "class Mine(weft.Tensor): pass\n"
        "m = x.as_subclass(Mine)\n"
        "assert type(m.t()) is type(m[0]) is type(m.unsqueeze(0)) is Mine\n"
        "x.t(), x[0]\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


PARTS = {
    "unbind": [(), (1,), (-1,)],
    "chunk": [(3,), (2, 1), (5, -1), (100, 1)],
    "split": [(1,), (5, 1), ([3, 4, 0], 1), ((2, 10), -1), (0, 0)],
}


@pytest.mark.parametrize(
    "name, wish", [(name, wish) for name, wishes in PARTS.items() for wish in wishes], ids=str
)
@pytest.mark.parametrize("grad", [False, True])
def test_several_views_are_those_of_python(name, wish, grad, monkeypatch):
    forget_layouts()
    x = weft.rand(0 if wish == (0, 0) else 2, 7, 12, requires_grad=grad)
    method = getattr(weft.Tensor, name)
    taught(lambda: method(x, *wish))
    with monkeypatch.context() as m:
        if x.numel() and wish != ([3, 4, 0], 1):
            m.setattr(dispatch, "apply", None)  # Python is not asked any more
        got = method(x, *wish)
    untold(monkeypatch)
    want = method(x, *wish)
    assert got.__class__ is tuple and len(got) == len(want)
    for y, z in zip(got, want, strict=True):
        np.testing.assert_array_equal(y._a, z._a)
        assert type(y) is weft.Tensor and y._base is z._base is x and y._st is z._st
        assert (y._fn is None) == (z._fn is None) == (not grad)
        if grad:
            (g,), (h,) = (weft.autograd.grad(v.sum(), x) for v in (y, z))
            np.testing.assert_array_equal(g._a, h._a)


ONE_OP = {
    "clamp": [(0, 1), (0.0, 1.0), (None, 0.5), (-1,), (float("nan"), None), (True, 2)],
    "sum": [(), (1,), (-1, True), ((0, 1),)],
    "any": [(), (1,), (0, True)],
    "all": [(), (1, True)],
    "argmax": [(), (1,), (-1, True)],
    "max": [(), (1,), (0, True)],
    "softmax": [(-1,), (0,)],
    "log_softmax": [(1,)],
    "cumsum": [(0,), (-1,)],
    "isnan": [()],
}


@pytest.mark.parametrize("name", ONE_OP)
def test_functions_of_one_op_are_those_of_python(name, monkeypatch):
    """Each of several kinds of tensors in turn gets what Python gives it alone."""
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=(5, 9)) * 2 for _ in range(4)]
    dtypes = [weft.float32, weft.float64, weft.int64, weft.bool]
    xs = [weft.tensor(a).to(d) for a, d in zip(draws, dtypes, strict=True)]
    xs += [xs[0].detach().requires_grad_(), xs[0].t(), weft.tensor(3.5)]

    def results():
        out = []
        for wish in ONE_OP[name]:
            for x in xs:
                try:
                    y = getattr(x, name)(*wish)
                except (RuntimeError, NotImplementedError, IndexError) as error:
                    y = str(error)
                out.extend(y if isinstance(y, tuple) else [y])
        return out

    taught(results)
    got = results()
    untold(monkeypatch)
    for y, want in zip(got, results(), strict=True):
        if isinstance(want, str):
            assert y == want
            continue
        assert y.dtype is want.dtype and y.requires_grad == want.requires_grad
        assert (y._fn and y._fn.op) is (want._fn and want._fn.op)
        np.testing.assert_array_equal(y.detach()._a, want.detach()._a)


def test_index_tensors_that_came_before():
    rng = np.random.default_rng(2)
    x = weft.rand(6, 5, requires_grad=True)
    for k in range(300):
        i = weft.tensor(rng.integers(-6, 6, 4))
        j = weft.tensor(rng.integers(-5, 5, 4))
        a = x.detach()._a
        np.testing.assert_array_equal(x[i].detach()._a, a[i._a])
        np.testing.assert_array_equal(x[i, j].detach()._a, a[i._a, j._a])
        mask = weft.tensor(rng.random(6) < 0.5)
        np.testing.assert_array_equal(x[mask].detach()._a, a[mask._a])
        if k % 50 == 0:
            (g,) = weft.autograd.grad(x[i, j].sum(), x)
            want = np.zeros((6, 5), np.float32)
            np.add.at(want, (i._a, j._a), 1)
            np.testing.assert_array_equal(g._a, want)
    with pytest.raises(IndexError, match="index 6 is out of bounds"):
        x[weft.tensor([0, 1, 2, 6])]
    assert x[weft.tensor(2)].shape == (5,) and x[weft.tensor(2)]._base is x  # a view, as by an int


def test_index_tensors_and_masks_written_to():
    y = weft.zeros(4, 3)
    mask, places = weft.tensor([True, False, True, False]), weft.tensor([3, -3])
    y[mask] = 1.0
    y[places] = weft.tensor([2.0, 3.0, 4.0])
    assert y.tolist() == [[1, 1, 1], [2, 3, 4], [1, 1, 1], [2, 3, 4]] and y._version == 2
    y[y > 2.5] = 0
    assert y.tolist() == [[1, 1, 1], [2, 0, 0], [1, 1, 1], [2, 0, 0]]
    for wrong in (weft.tensor([4]), weft.tensor([True, False])):
        with pytest.raises(IndexError):
            y[wrong] = 1.0
    with pytest.raises((RuntimeError, ValueError)):
        y[mask] = weft.zeros(3, 3)
    w = weft.ones(3, requires_grad=True)
    y[mask] = w
    y.sum().backward()
    assert w.grad.tolist() == [2, 2, 2] and y._version == 4


def test_several_views_of_a_compiled_function_and_of_bad_wishes():
    def f(x):
        a, b = x.chunk(2, 1)
        c, d, e = x.split([1, 3, 2], dim=1)
        return sum(row.sum() for row in x) + (a * b).sum() + c.sum() * d.sum() + e.sum()

    compiled = weft.compile(f)
    for _ in range(120):
        f(weft.rand(4, 6))
    for _ in range(4):
        x = weft.rand(4, 6, requires_grad=True)
        np.testing.assert_array_equal(compiled(x).detach()._a, f(x).detach()._a)
    for wrong in (lambda: x.chunk(0), lambda: x.unbind(2), lambda: x.split([1, 2], 1)):
        with pytest.raises((RuntimeError, IndexError)):
            wrong()
    with pytest.raises(TypeError):
        iter(weft.tensor(1.0))


FACTS = {  # as a tensor class has them until its functions have to look at their arguments
    name: native._descriptor(name, native._layout_functions()[f"weft_fact_{fact}"], "")
    for name, fact in native._FACTS.items()
}


def ask(name, x):
    got = FACTS[name].__get__(x, type(x))
    return got if name in native._ATTRIBUTES else got()


def test_what_is_asked_of_tensors():
    """Native code's answers are Python's, of every kind of tensor; others are refused."""
    taught(lambda: weft.rand(3).t())
    python = native._ways
    dtypes = [weft.float32, weft.float64, weft.int64, weft.bool, weft.bfloat16, weft.complex64]
    for shape in [(), (1,), (0,), (2, 3), (1, 1, 1), (1,) * 40]:
        for dtype in dtypes:
            x = dispatch.wrap(np.zeros(shape, dtype.np))
            for _ in range(2):
                assert ask("shape", x) == python["shape"](x) == x.size() == shape
                assert type(ask("shape", x)) is weft.Size
                assert ask("dtype", x) is python["dtype"](x) is dtype
                assert ask("ndim", x) == ask("dim", x) == python["dim"](x) == len(shape)
                assert ask("numel", x) == ask("nelement", x) == python["numel"](x)
            if shape:
                assert ask("__len__", x) == len(x) == x.size(0) == x.shape[0] == shape[0]
            else:
                with pytest.raises(TypeError):
                    ask("__len__", x)
            if x.numel() == 1:
                assert ask("item", x) == 0 and type(ask("item", x)) is type(python["item"](x))
            else:
                with pytest.raises(RuntimeError):
                    ask("item", x)
    values = {weft.float32: 0.1, weft.float64: 1e300, weft.int64: -(2**63), weft.bool: True}
    for dtype, value in values.items():
        x = weft.tensor([[value]], dtype=dtype)
        assert ask("item", x) == python["item"](x) and type(ask("item", x)) is type(value)
    assert np.isnan(ask("item", weft.tensor(float("nan"))))


def test_what_is_asked_of_others():
    for name in FACTS:
        with pytest.raises(TypeError):
            FACTS[name].__get__(3, int)
        with pytest.raises(AttributeError):
            setattr(weft.rand(3), name, 1) if name in native._ATTRIBUTES else ask(
                name, object.__new__(weft.Tensor)
            )
    for name in native._ATTRIBUTES:
        with pytest.raises(AttributeError):
            ask(name, object.__new__(weft.Tensor))  # no value, no promise


def test_detached_tensors():
    taught(lambda: weft.rand(3).t())
    x = weft.rand(2, 3, requires_grad=True)
    for t in (x, x * 2, (x * 2)[0], weft.nn.Parameter(x.detach())):
        y, z = ask("detach", t), native._ways["detach"](t)
        assert type(y) is weft.Tensor and not y.requires_grad and y.is_leaf
        assert y._a is z._a is t._a and y._st is z._st is t._st
        whole = t if t._base is None else t._base
        for owner in (y._base, z._base):  # what owns the memory, off the tape
            assert owner._a is whole._a and owner._st is t._st and owner._base is None
            assert owner is not whole and owner.is_leaf and not owner.requires_grad
        version = t._version
        y.zero_()
        assert t._version == y._version == version + 1 and not t.detach().any()


def test_what_is_asked_inside_a_compiled_function():
    taught(lambda: weft.rand(3).t())

    def f(x):
        y = x * 2
        z = ask("detach", y) + ask("numel", y) + ask("dim", y) + ask("__len__", y)
        assert ask("dtype", y) is weft.float32 and ask("shape", y) == (2, 3)
        return z * ask("item", y.sum())

    compiled = weft.compile(f)
    for _ in range(4):
        x = weft.rand(2, 3)
        np.testing.assert_array_equal(compiled(x)._a, f(x)._a)


def test_no_reference_is_lost_or_kept():
    x, g = weft.rand(3, 4), weft.rand(3, 4, requires_grad=True)
    one = weft.rand(5)
    cases = [
        lambda: x[1], lambda: x[1, 2], lambda: x[1:], lambda: one[2], lambda: x[9:, None],
        lambda: g[1], lambda: x.t(), lambda: x.reshape(4, 3), lambda: g.unsqueeze(0),
        lambda: dispatch.item(x, 7), lambda: dispatch.item(x, (0, 0, 0)),
        lambda: dispatch.known(x, 99, (1, (2, 3))), lambda: dispatch.item(x, [1]),
        lambda: x.unbind(), lambda: g.chunk(2, 1), lambda: x.split([1, 2]), lambda: list(one),
        *[lambda name=name: ask(name, g) for name in FACTS if name != "item"],
        lambda: (ask("item", number), ask("item", whole)),
    ]  # fmt: skip
    number, whole = weft.tensor(1e30), weft.tensor(2**40)
    watched = [x, g, one, x._a, g._a, one._a, storage_of(x), None, True, False, ..., (...,)]
    index = (1, slice(0, 2), None)
    cases.append(lambda: x[index])
    for case in cases:
        taught(case)
    seen = [], []
    for counts in seen:
        gc.collect()
        counts += [len(gc.get_objects()), *(sys.getrefcount(o) for o in (*watched, index))]
        for case in cases * 200:
            case()
    assert all(abs(a - b) < 100 for a, b in zip(*seen, strict=True)), seen

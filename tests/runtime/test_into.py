"""The builtin that writes an op's result over its first operand, and what it refuses."""

import numpy as np
import pytest

import weft
from weft.ops import arithmetic, dispatch, unary, write
from weft.ops.softmax import Softmax
from weft.runtime import memory, native

if native.layout_calls() is None:
    pytest.skip("this interpreter's structs are not known", allow_module_level=True)

ADD, MUL, SUB, DIV = arithmetic.Add(), arithmetic.Mul(), arithmetic.Sub(), arithmetic.Div()
SCALED = arithmetic.AddScaled()


def rand(*shape):
    return weft.rand(*shape) + 0.5


def teach(op, *tensors):
    for name in ("_calls", "call", "quick", "into", "_uses"):
        vars(op).pop(name, None)
    for _ in range(2 * dispatch._OFTEN + 2):
        y = dispatch.apply(op, *tensors)
    assert op.quick(*tensors) is not None
    return y


CASES = [
    (ADD, (3, 4), (3, 4)), (SUB, (3, 4), (4,)), (MUL, (3, 4), 2.5), (MUL, (3, 4), 3),
    (DIV, (3, 4), ()), (ADD, (), ()), (ADD, (0, 3), (3,)), (ADD, (70, 300), (70, 300)),
    (SCALED, (3, 4), (3, 4), -0.25), (SCALED, (50,), (50,), 1e300),
    (arithmetic.Addcmul(), (3, 4), (3, 4), (3, 4), 0.5), (arithmetic.Lerp(), (7,), (7,), 0.1),
    (arithmetic.Addcdiv(), (3, 4), (3, 4), (4,), -0.01), (unary.Sqrt(), (3, 4)),
    (unary.Relu(), (700, 300)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_result_lies_in_the_first_operand(case, dtype):
    op, *parts = case
    kind = getattr(weft, dtype)
    tensors = [rand(*p).to(kind) if p.__class__ is tuple else p for p in parts]
    want = teach(op, *tensors).numpy()
    t, rest = tensors[0].clone(), tensors[1:]
    array, version, mark = t._a, t._version, memory.mark(t._a)
    assert op.into(t, *rest) is True
    np.testing.assert_array_equal(t._a, want)
    assert t._a is array and t._fn is None and t._version == version
    u = tensors[0].clone()
    before, mark = u._a, memory.mark(u._a)
    assert write.inplace(op, u, *rest) is u
    np.testing.assert_array_equal(u._a, want)
    assert u._a is before and u._version == 1
    assert mark is None or memory.mark(u._a) != mark


def test_every_length_is_written_once():
    """No tail is computed a second time from what lies there already."""
    for n in [*range(1, 140), 1000, 16385, 100_003]:
        x, y = rand(n), rand(n)
        teach(ADD, x, y)
        want = x._a + y._a
        assert ADD.into(x, y) is True
        np.testing.assert_array_equal(x._a, want)
    rows = rand(37, 19)
    turned = rand(19, 37).T
    teach(MUL, rows, turned)
    want = rows._a * turned._a
    assert MUL.into(rows, turned) is True
    np.testing.assert_array_equal(rows._a, want)


def test_an_operand_that_is_the_first_one():
    x = rand(5)
    teach(MUL, x, x)
    want = x._a * x._a
    assert MUL.into(x, x) is True
    np.testing.assert_array_equal(x._a, want)


def test_overlaps_are_left_to_python():
    whole = rand(9)
    a, b = whole[1:9], whole[0:8]
    teach(ADD, a, b)
    assert ADD.into(a, b) is None and ADD.into(b, a) is None
    want = a._a + b._a
    a.add_(b)
    np.testing.assert_array_equal(a._a, want)
    first, second = whole[0:4], whole[4:8]  # side by side is no overlap
    back = whole.flip(0)
    teach(ADD, first, second)
    want = first._a + second._a
    kept = whole._a[8].copy()
    assert ADD.into(first, back[0:4]) is True
    assert whole._a[8] == kept
    same = whole[0:4]  # another view of the same place
    assert ADD.into(first, same) is None
    row = rand(3, 4)
    teach(ADD, row, row[0])
    assert ADD.into(row, row[0]) is None
    del want


def test_what_is_refused():
    x, y = rand(3, 4), rand(3, 4)
    teach(ADD, x, y)
    before = x._a.copy()
    assert ADD.into(x, rand(3)) is None  # layouts not known
    assert ADD.into() is None and ADD.into(None) is None and ADD.into(x, None) is None
    assert ADD.into(2.0, x) is None and ADD.into(x, y, y) is None
    teach(ADD, y[0], x)  # a result larger than the operand
    assert ADD.into(y[0], x) is None
    teach(ADD, rand(4, 3).T, y)  # of other strides than the result
    assert ADD.into(rand(4, 3).T, y) is None
    x._a.flags.writeable = False
    assert ADD.into(x, y) is None
    with pytest.raises(RuntimeError, match="read-only"):
        x.add_(y)
    np.testing.assert_array_equal(x._a, before)
    softmax = Softmax(1)  # reads a whole row for each element
    teach(softmax, y)
    assert softmax.into(y) is None
    less = weft.lt(x, y)
    assert less.dtype is weft.bool


def test_gradients_are_pythons():
    x, w = rand(3), rand(3).requires_grad_()
    teach(ADD, x, w)
    assert ADD.into(x, w) is None and ADD.into(w, x) is None
    with pytest.raises(RuntimeError, match="leaf Variable"):
        w.add_(x)
    with weft.no_grad():
        want = w._a + x._a
        assert ADD.into(w, x) is True
        np.testing.assert_array_equal(w.detach()._a, want)
    h = x * w
    h.add_(x)
    assert h.grad_fn.name().startswith("Add")


def test_saved_operands_are_seen_to_change():
    x, w = rand(3), rand(3).requires_grad_()
    teach(MUL, x, 2.0)
    y = (x * w).sum()
    x.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        y.backward()


def test_in_a_compiled_function_writes_are_promised():
    x, y = rand(4), rand(4)
    teach(ADD, x, y)

    @weft.compile
    def f(a, b):
        assert ADD.into(a, b) is None
        return a.add_(b).sum()

    for _ in range(4):
        want = x._a + y._a
        f(x, y)
        np.testing.assert_array_equal(x._a, want)


def test_every_weighted_form_agrees_with_its_function():
    a, b, c = rand(6), rand(6), rand(6)
    for name, args, kw in (
        ("add_", (b,), {"alpha": 0.3}),
        ("sub_", (b,), {"alpha": 0.3}),
        ("addcmul_", (b, c), {"value": -0.7}),
        ("addcdiv_", (b, c), {"value": 0.7}),
        ("lerp_", (b, 0.2), {}),
        ("add_", (b,), {"alpha": 2}),
        ("lerp_", (b, c), {}),
    ):
        want = getattr(a, name[:-1])(*args, **kw)
        for _ in range(3):
            t = a.clone()
            assert getattr(t, name)(*args, **kw) is t
            np.testing.assert_array_equal(t._a, want._a)
            assert t._version == 1
    with pytest.raises(TypeError):
        a.add_(b, beta=0.5)


def test_python_learns_what_it_writes_often():
    x, y = rand(3, 5), rand(3, 5)
    for name in ("_calls", "call", "quick", "into"):
        vars(SUB).pop(name, None)
    for _ in range(2 * dispatch._OFTEN):
        x.sub_(y)
    assert SUB.into(x, y) is True


def test_optimizers_step_as_before():
    """Native writes and Python's give the same parameters and states to the bit."""

    def train(make, steps):
        weft.manual_seed(0)
        model = weft.nn.Linear(4, 3)
        o = make(model.parameters())
        for _ in range(steps):
            o.zero_grad()
            (model(weft.ones(2, 4)) ** 2).sum().backward()
            o.step()
        return [p.detach().numpy().copy() for p in model.parameters()]

    for make in (
        lambda p: weft.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
        lambda p: weft.optim.AdamW(p, lr=0.01),
    ):
        fast = train(make, 8)
        with pytest.MonkeyPatch.context() as patch:
            for op in (ADD, MUL, SUB, SCALED, arithmetic.Addcmul(), arithmetic.Addcdiv()):
                patch.setitem(vars(op), "into", lambda *_: None)
            slow = train(make, 8)
        for a, b in zip(fast, slow, strict=True):
            np.testing.assert_array_equal(a, b)

"""The builtin that runs an op on tensors: values, tape and links as the Python's, no leaks."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import weft
from weft.autograd import graph
from weft.core.handle import Handle, bare, state
from weft.ops import arithmetic, compare, contract, dispatch, unary
from weft.ops.activation import Gelu
from weft.ops.reduce import Sum
from weft.ops.softmax import Softmax
from weft.ops.view import Permute, Reshape
from weft.runtime import native

ADD, MUL, SUB, DIV = arithmetic.Add(), arithmetic.Mul(), arithmetic.Sub(), arithmetic.Div()
RELU, EXP, MATMUL, LINEAR = unary.Relu(), unary.Exp(), contract.MatMul(), contract.Linear()

if native.layout_calls() is None:
    pytest.skip("this interpreter's structs are not known", allow_module_level=True)


def rand(*shape, grad=False):
    return weft.randn(*shape, requires_grad=grad)


def teach(op, *tensors):
    """`op.quick`, once it knows tensors like these."""
    for name in ("_calls", "call", "quick", "_uses"):  # the layouts that other tests taught it
        vars(op).pop(name, None)
    for _ in range(2 * dispatch._OFTEN + 2):
        y = dispatch.apply(op, *tensors)
    assert op.quick(*tensors) is not None
    return y


def by_python(op, *tensors):
    """What the Python of dispatch.apply makes of the call."""
    own, vars(op)["quick"] = op.quick, lambda *_: None
    try:
        return dispatch.apply(op, *tensors)
    finally:
        vars(op)["quick"] = own


def same_saved(a, b):
    if isinstance(b, Handle):
        return a is b
    if b.__class__ is float:
        return a.__class__ is float and repr(a) == repr(b)
    return (a.shape, a.np_dtype) == (b.shape, b.np_dtype)


def check(op, *tensors):
    teach(op, *tensors)
    y, want = op.quick(*tensors), by_python(op, *tensors)
    np.testing.assert_array_equal(y._a, want._a)
    assert type(y) is type(want) and y._a.dtype is want._a.dtype and y._rg is want._rg
    assert y._a.strides == want._a.strides
    if op.is_view:
        assert y._base is want._base and y._st is want._st
        listed = [id(r()) for r in y._st.views or []]
        assert listed.count(id(y)) == listed.count(id(want))
    n, m = y._fn, want._fn
    assert (n is None) == (m is None)
    if n is not None:
        assert n.op is m.op and n.versions == m.versions and len(n.edges) == len(m.edges)
        assert all(a is b for a, b in zip(n.edges, m.edges, strict=True))
        assert all(same_saved(a, b) for a, b in zip(n.saved, m.saved, strict=True))
        assert (n.result is None) == (m.result is None)
        if n.result is not None:
            array, storage = n.result
            assert array is y._a and storage is y._st
            kept = dispatch.of_kept(n.result)
            assert kept._a is y._a and kept._st is y._st and kept._fn is None
        assert n.seq == m.seq - 1 and n.hooks is n.post is n.line is None
    return y


@pytest.mark.parametrize("op", [ADD, MUL, SUB, DIV], ids=str)
@pytest.mark.parametrize("which", range(4))
def test_two_operands(op, which):
    a, b = rand(3, 4, grad=bool(which & 1)), rand(3, 4, grad=bool(which & 2))
    check(op, a, b)
    check(op, a, rand(4, grad=bool(which & 2)))
    with weft.no_grad():
        assert check(op, a, b)._fn is None
    check(op, a, a)


NUMBERS = (1.5, 0.0, -0.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))


@pytest.mark.parametrize("op", [ADD, MUL, SUB, DIV], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("grad", [False, True])
def test_a_number_beside_a_tensor(op, dtype, grad):
    x = rand(3, 4).to(getattr(weft, dtype)).requires_grad_(grad)
    for number in NUMBERS:
        check(op, x, number)
        check(op, number, x)
    check(op, rand(4, 3, grad=grad).T, 2.5)
    check(op, rand(grad=grad), 2.5)
    with weft.no_grad():
        assert check(op, x, 1.5)._fn is None


def test_integers_beside_a_tensor():
    """As floats where these are exact; others, and booleans, are left to Python."""
    x = rand(3, grad=True)
    teach(MUL, x, 2.0)
    for number in (2, 0, -1, -7, 2**53 - 1, 1 - 2**53):
        y, want = MUL.quick(x, number), by_python(MUL, x, float(number))
        np.testing.assert_array_equal(y._a, want._a)
        assert same_saved(y._fn.saved[1], float(number)) and y._fn.edges == (x, None)
    for other in (2**53, -(2**53), 10**400, True, False, "2", None, 2j, np.float32(2), [2.0]):
        assert MUL.quick(x, other) is None
    assert MUL.quick(2.0, 2.0) is None and MUL.quick(2.0) is None
    assert MUL.quick(x, 2.0, 2.0) is None and MUL.quick(x, x, 2.0) is None
    whole = weft.arange(3)
    for t in (whole, whole.to(weft.float16), whole.to(weft.bfloat16), whole.to(weft.complex64)):
        assert MUL.quick(t, 2.0) is None
    with pytest.raises(OverflowError):
        x * 10**400


def test_a_number_has_the_tensors_dtype():
    """A 0-dim float64 tensor beside a float32 one is another case than a number."""
    x, wide = rand(3), weft.tensor(1e-9, dtype=weft.float64)
    teach(ADD, x.double(), wide)
    assert ADD.quick(x, 1e-9) is None
    teach(ADD, x, weft.tensor(1e-9))
    y = ADD.quick(x, 1e-9)
    np.testing.assert_array_equal(y._a, x._a + np.float32(1e-9))
    assert y._a.dtype == np.float32


@pytest.mark.parametrize("op", [RELU, EXP, Gelu(), Softmax(1), Sum((0,), False)], ids=str)
@pytest.mark.parametrize("grad", [False, True])
def test_one_operand(op, grad):
    x = rand(3, 4, grad=grad)
    check(op, x)
    check(op, x * 2)  # an operand on the tape
    check(op, weft.nn.Parameter(rand(3, 4)))
    check(op, rand(4, 3, grad=grad).detach().T)


@pytest.mark.parametrize("op", [Permute((1, 0)), Reshape((12,))], ids=str)
def test_views(op):
    for x in (rand(3, 4), rand(3, 4, grad=True), rand(3, 4, grad=True) * 2, rand(6, 4)[:3]):
        y = check(op, x)
        assert y._a.base is not None
        with weft.no_grad():
            check(op, x)
        y.detach().mul_(2)
        np.testing.assert_array_equal(y._a, op.host(x._a))


def test_a_write_gives_a_quick_view_its_new_place_on_the_tape():
    x, w = weft.zeros(3, 4), rand(3, 4, grad=True)
    teach(Permute((1, 0)), x)
    y = x.transpose(0, 1)
    x.add_(w)
    assert y.requires_grad
    y.sum().backward()
    np.testing.assert_array_equal(w.grad._a, np.ones((3, 4)))


@pytest.mark.parametrize("which", range(8))
def test_three_operands(which):
    x, w, b = (rand(*s, grad=bool(which >> i & 1)) for i, s in enumerate([(5, 4), (3, 4), (3,)]))
    check(LINEAR, x, w, b)
    check(LINEAR, x, w)
    check(MATMUL, x, w.T)


def test_versions_are_those_at_the_call():
    a, b = rand(3, grad=True), rand(3)
    teach(MUL, a, b)
    b.add_(1)
    y = MUL.quick(a, b)
    assert y._fn.versions == (1,)
    b.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_comparisons_have_no_tape():
    a, b = rand(3, grad=True), rand(3)
    for _ in range(3):
        y = dispatch.apply(compare.Lt(), a, b)
    assert not y.requires_grad


def test_more_than_three_operands_that_want_a_gradient_are_pythons():
    from weft.ops.join import Concat

    parts = [rand(2, grad=True) for _ in range(4)]
    for _ in range(3 * dispatch._OFTEN):
        y = dispatch.apply(Concat(0), *parts)
    assert len(y._fn.edges) == 4


def test_what_is_left_to_python():
    class Sub(weft.Tensor):
        pass

    x = rand(3, 4, grad=True)
    teach(RELU, x)
    sub = x.as_subclass(Sub)
    for odd in (sub, None, 3, "a", x._a, object(), Handle(), object.__new__(weft.Tensor)):
        assert RELU.quick(odd) is None
    assert RELU.quick() is None and RELU.quick(*[x] * 9) is None and RELU.quick(x, x) is None
    with pytest.raises(TypeError):
        RELU.quick(input=x)
    odd = rand(3, 4)
    odd._a = odd._a.view(np.memmap)
    assert RELU.quick(odd) is None
    state.recorder, before = object(), state.recorder
    try:
        assert RELU.quick(x) is None
    finally:
        state.recorder = before
    seen = []
    graph.watch("test", seen.append)
    try:
        assert RELU.quick(x) is None
        y = weft.relu(x)
    finally:
        graph.unwatch("test")
    assert seen == [y.grad_fn]


def test_in_a_compiled_function_ghosts_are_matched():
    x = rand(3, 4, grad=True)
    teach(RELU, x)
    f = weft.compile(lambda t: weft.relu(weft.relu(t) * 2))
    for _ in range(3):
        np.testing.assert_array_equal(f(x)._a, np.maximum(x._a, 0) * 2)
    assert f.stats["recorded_ops"] == 3
    y = f(x)
    np.testing.assert_array_equal(weft.relu(y)._a, y._a)


def test_a_call_that_the_recorder_does_not_know_leaves_no_trace():
    """Operands that a miss met for the first time are met anew by the call that follows."""

    def f(a, b):
        y = a + a.detach()  # two handles of one memory
        return weft.relu(y @ b) + b.sum() if a.ndim == 2 else y * 2

    teach(ADD, weft.ones(3, 2), weft.ones(3, 2))
    g, rng = weft.compile(f), np.random.default_rng(0)
    w = rand(2, 2, grad=True)
    for shape in [(3, 2), (3, 2), (4, 2), (2,), (4, 2), (3, 2), (2,), (5, 2), (5, 2), (5, 2)]:
        a = weft.tensor(rng.standard_normal(shape).astype(np.float32))
        got, want = g(a, w), f(a, w)
        np.testing.assert_array_equal(got.detach()._a, want.detach()._a)
        if want.requires_grad:
            assert got.requires_grad
            (one,), (other,) = (weft.autograd.grad(y.sum(), [w]) for y in (got, want))
            np.testing.assert_array_equal(one._a, other._a)


def test_bad_data_is_found_by_the_long_way():
    from weft.ops.gather import Gather

    table, at = rand(4, 3), weft.zeros(2, 3, dtype=weft.int64)
    teach(Gather(0), table, at)
    at._a[1, 1] = 7
    assert Gather(0).quick(table, at) is None
    with pytest.raises((IndexError, RuntimeError)):
        table.gather(0, at)


def test_other_threads_have_modes_of_their_own():
    import threading

    x, got = rand(3, grad=True), []
    teach(RELU, x)
    with weft.no_grad():
        t = threading.Thread(target=lambda: got.append(RELU.quick(x)))
        t.start()
        t.join()
        assert RELU.quick(x)._fn is None
    assert got[0]._fn is not None


def _counts(*objects):
    return [sys.getrefcount(x) for x in objects]


def test_operators_learn_numbers():
    x = rand(3, 4, grad=True)
    vars(ADD).pop("quick", None), vars(ADD).pop("_calls", None)
    for _ in range(5 * dispatch._OFTEN):
        y = x + 1.5
    assert ADD.quick(x, 1.5) is not None
    np.testing.assert_array_equal(y._a, x._a + np.float32(1.5))
    np.testing.assert_array_equal((x + 3)._a, x._a + np.float32(3))


def test_references_are_given_back():
    a, w, b, m = rand(3, 4, grad=True), rand(5, 4, grad=True), rand(5, grad=True), rand(3, 4)
    z = a * 2
    calls = [(MUL, a, z), (RELU, z), (LINEAR, a, w, b), (Permute((1, 0)), m), (Sum((0,), False), a)]
    for op, *tensors in calls:
        teach(op, *tensors)
    objects = [a, w, b, z, m, z._fn, *(t._a for t in (a, w, b, z, m)), a._a.dtype]
    objects += [op for op, *_ in calls] + [
        op.quick(*t)._fn for op, *t in calls if op is not Permute((1, 0))
    ]
    metas = RELU.quick(z)._fn.saved
    objects.append(metas)
    gc.collect()
    before = _counts(*objects)
    many = [op.quick(*tensors) for _ in range(500) for op, *tensors in calls]
    dead = [weakref.ref(y) for y in many]
    del many
    for _ in range(500):
        for op, *tensors in calls:
            op.quick(*tensors)
            op.quick(None)
            op.quick(*tensors, m)
    gc.collect()
    assert all(r() is None for r in dead)
    assert _counts(*objects) == before
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        for op, *tensors in calls:
            op.quick(*tensors)
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 500


def test_modes_are_each_threads_own():
    x = weft.randn(5, requires_grad=True)
    for _ in range(150):
        weft.relu(x)
    turns, found = threading.Barrier(2), {True: [], False: []}

    def work(graded):
        with weft.set_grad_enabled(graded):
            for _ in range(50):
                turns.wait()
                found[graded].append(weft.relu(x).requires_grad)

    for _ in range(3):  # threads that end, and others in their place
        pair = [threading.Thread(target=work, args=(graded,)) for graded in (True, False)]
        for t in pair:
            t.start()
        for t in pair:
            t.join()
        assert weft.relu(x).requires_grad
    assert found == {True: [True] * 150, False: [False] * 150}


def test_bare_objects_are_tensors_and_empty_ones_end_nothing():
    a = weft.randn(4, 4)
    for _ in range(150):
        a.t(), weft.relu(a), a @ a
    for kind in (weft.Tensor, weft.nn.Parameter):
        made = bare(kind)
        made._a = a._a.copy()
        assert weft.equal(weft.relu(made), weft.relu(a)) and weft.equal(made @ made, a @ a)
        assert not made.requires_grad and made.grad_fn is None and made._base is None
        seen = made.t()
        assert seen._base is made and [r() is seen for r in made._st.views] == [True]
        made.requires_grad_()
        (weft.relu(made) @ made).sum().backward()
        assert made.grad.shape == (4, 4)
        empty = object.__new__(kind)  # nothing is in its places
        for use in (weft.relu, weft.t, lambda x: x @ a, lambda x: a + x, lambda x: x._a, repr):
            with pytest.raises((AttributeError, TypeError)):
                use(empty)
        for name in ("_rg", "_fn", "_st", "_base", "_ghost", "_a"):
            delattr(made, name)
            with pytest.raises((AttributeError, TypeError)):
                (weft.relu(made) @ made).sum().backward(), made.t().add_(1), made.tolist()


def test_the_first_view_of_a_memory_is_known_to_writes():
    for _ in range(150):
        y = weft.randn(3, 3)
        y.t()
    w = weft.randn(3, 3, requires_grad=True)
    y = weft.zeros(3, 3)
    z = y.t()
    y.mul_(0).add_(w)  # z is on the tape now
    assert z.requires_grad
    (z[0] * 2).sum().backward()
    assert w.grad.tolist() == [[2, 0, 0]] * 3

"""The builtin that runs a kernel on layouts met before: what it takes, and what it leaves alone."""

import sys

import numpy as np
import pytest

import weft
from weft import kernels
from weft.core import dtype as dt
from weft.core import scalar as S
from weft.kernels.layout import Layout
from weft.ops import dispatch
from weft.runtime import memory, native


def calls_of(*arrays, expr=None):
    """A table that knows one launch: the sum of the arrays (or `expr`), on layouts like theirs."""
    calls = native.layout_calls()
    if calls is None:
        pytest.skip("this interpreter's structs are not known")
    if expr is None:
        expr = S.Arg(0, dt.float32)
        for i in range(1, len(arrays)):
            expr = S.add(expr, S.Arg(i, dt.float32))
    out = np.empty(np.broadcast_shapes(*(a.shape for a in arrays)), np.float32)
    launch = kernels.plan_elementwise(expr, [Layout.of(a) for a in arrays], Layout.of(out))
    calls.add(launch, arrays, out)
    return calls


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_known_layouts_run():
    a, b = random(3, 5), random(3, 1)
    calls = calls_of(a, b)
    got = calls.call(a, b)
    np.testing.assert_array_equal(got, a + b)
    assert got.dtype == np.float32 and got.flags.c_contiguous and got.flags.owndata
    other = calls.call(a * 2, b * 3)
    np.testing.assert_array_equal(other, a * 2 + b * 3)


def test_strides_are_part_of_a_layout():
    a = random(6, 4)
    calls = calls_of(a.T)
    np.testing.assert_array_equal(calls.call(a.T), a.T)
    assert calls.call(np.ascontiguousarray(a.T)) is None
    assert calls.call(a[::-1].T) is None  # a negative stride


def test_what_was_not_met_is_left_to_the_planner():
    a = random(3, 5)
    calls = calls_of(a, a)
    assert calls.call(a, random(3, 1)) is None
    assert calls.call(a) is None and calls.call(a, a, a) is None and calls.call() is None
    assert calls.call(a, a.astype(np.float64)) is None
    assert calls.call(a, a.reshape(3, 5, 1)) is None
    for odd in (None, 3, "a", [1.0], a.tolist(), np.float32(1), np.ma.array(a), object()):
        assert calls.call(a, odd) is None
        assert calls.call(odd, a) is None
    with pytest.raises(TypeError):
        calls.call(a, a, key=1)


def test_each_of_many_layouts_finds_its_own():
    calls = native.layout_calls()
    if calls is None:
        pytest.skip("this interpreter's structs are not known")
    arrays = [random(n, 2) for n in range(1, 40)]
    for n, a in enumerate(arrays, 1):
        expr = S.mul(S.Arg(0, dt.float32), S.const(float(n), dt.float32))
        launch = kernels.plan_elementwise(expr, [Layout.of(a)], Layout.of(a))
        calls.add(launch, [a], a)
    assert len(calls) == 39
    for n, a in enumerate(arrays, 1):
        np.testing.assert_array_equal(calls.call(a), a * np.float32(n))


def test_it_holds_no_references():
    a, b = random(4, 4), random(4, 4)
    calls = calls_of(a, b)
    none, floats = sys.getrefcount(None), sys.getrefcount(a.dtype)
    before = sys.getrefcount(a), sys.getrefcount(b)
    for _ in range(1000):
        calls.call(a, b)
        calls.call(a)
    assert (sys.getrefcount(a), sys.getrefcount(b)) == before
    assert abs(sys.getrefcount(None) - none) < 100
    assert abs(sys.getrefcount(a.dtype) - floats) < 100


def test_bad_data_is_found_the_long_way():
    x = weft.randn(5, 3)
    good, bad = weft.tensor([0, 4, 2]), weft.tensor([0, 5, 2])
    for _ in range(5):
        assert x.index_select(0, good).tolist() == x.numpy()[[0, 4, 2]].tolist()
    for _ in range(3):
        with pytest.raises((IndexError, RuntimeError), match="5"):
            x.index_select(0, bad)


def test_ops_called_often_go_native_with_the_same_bits(monkeypatch):
    monkeypatch.setattr(dispatch, "_OFTEN", 3)
    weft.manual_seed(0)
    x = weft.randn(7, 5)
    x[0, 0], x[1, 1], x[2, 2] = float("nan"), float("inf"), -0.0
    for fn in (weft.neg, weft.sqrt, weft.floor, lambda t: weft.maximum(t, t.flip(0))):
        first = fn(x).numpy().tobytes()
        assert all(fn(x).numpy().tobytes() == first for _ in range(8))


def test_large_results_lie_in_blocks_that_are_used_again():
    a = random(128, 64)
    calls = calls_of(a)
    out = np.empty(a.shape, a.dtype)
    expr = S.neg(S.Arg(0, dt.float32))
    launch = kernels.plan_elementwise(expr, [Layout.of(a)], Layout.of(out))
    calls.add(launch, [a], out, memory.maker(out.shape, out.dtype))  # the last told comes first
    used = memory.memory_stats()["used_bytes"]
    got = [calls.call(a) for _ in range(3)]
    assert all(np.array_equal(y, -a) and native.address(y) % 64 == 0 for y in got)
    assert memory.memory_stats()["used_bytes"] == used + 3 * out.nbytes
    places = {native.address(y) for y in got}
    assert len(places) == 3
    del got
    assert memory.memory_stats()["used_bytes"] == used
    assert native.address(calls.call(a)) in places


def test_no_memory_for_a_result_is_said():
    a = random(4, 4)
    calls = calls_of(a)
    launch = kernels.plan_elementwise(S.Arg(0, dt.float32), [Layout.of(a)], Layout.of(a))

    def make():
        raise MemoryError("none left")

    calls.add(launch, [a], a, make)
    before = sys.getrefcount(a), sys.getrefcount(a.dtype)
    for _ in range(10):
        with pytest.raises(MemoryError, match="none left"):
            calls.call(a)
    assert (sys.getrefcount(a), sys.getrefcount(a.dtype)) == before


def view_calls(a, view):
    calls = native.layout_calls()
    if calls is None:
        pytest.skip("this interpreter's structs are not known")
    calls.add_view(a, view)
    return calls


@pytest.mark.parametrize(
    "look",
    [
        lambda a: a.transpose(2, 0, 1),
        lambda a: a[1:, ::2],
        lambda a: a[:, 2],
        lambda a: a.reshape(4, 30),
        lambda a: a.view(np.int32),
        lambda a: np.broadcast_to(a, (2, 4, 5, 6)),
        lambda a: a[2, 3, 4:5].reshape(()),
        lambda a: a[4:],
    ],
)
def test_views_are_numpys(look):
    a, other = random(4, 5, 6), random(4, 5, 6) + 1
    calls, want = view_calls(a, look(a)), look(other)
    got = calls.call(other)
    assert (got.shape, got.strides, got.dtype) == (want.shape, want.strides, want.dtype)
    assert native.address(got) == native.address(want) or not got.size
    assert got.base is other and not got.flags.owndata
    assert got.flags.c_contiguous == want.flags.c_contiguous and got.flags.aligned
    np.testing.assert_array_equal(got, want)


def test_a_view_keeps_its_memory_alive_and_no_longer():
    a = random(4, 5)
    calls = view_calls(a, a.T)
    before = sys.getrefcount(a), sys.getrefcount(a.dtype)
    views = [calls.call(a) for _ in range(100)]
    assert sys.getrefcount(a) == before[0] + 100
    del views
    assert (sys.getrefcount(a), sys.getrefcount(a.dtype)) == before
    kept = calls.call(random(4, 5))
    np.testing.assert_array_equal(kept, random(4, 5).T)
    inner = calls.call(kept.T)  # a view of a view: the base is who owns the memory
    assert inner.base is kept.base


def test_a_view_of_read_only_memory_is_read_only():
    a = random(4, 5)
    calls = view_calls(a, a.T)
    assert calls.call(a).flags.writeable
    a.flags.writeable = False
    assert not calls.call(a).flags.writeable


def test_view_ops_called_often_stay_views(monkeypatch):
    monkeypatch.setattr(dispatch, "_OFTEN", 3)
    x = weft.arange(20.0).reshape(4, 5).clone()
    for look in (weft.t, lambda t: t[1:3], lambda t: t.reshape(5, 4), lambda t: t.expand(2, 4, 5)):
        want = look(x).numpy().copy()
        for _ in range(8):
            y = look(x)
            np.testing.assert_array_equal(y.numpy(), want)
            assert y._base is x and y.data_ptr() - x.data_ptr() < x.nbytes
    y = weft.zeros(4, 5)
    for _ in range(8):
        y.t()[2].add_(1.0)
    assert y.tolist() == [[0, 0, 8, 0, 0]] * 4


def test_a_view_beyond_its_operand_is_not_remembered():
    """as_strided may read the whole memory behind a slice: a like slice may lie at its end."""
    memory = random(8)
    a = memory[:3]
    op = weft.ops.strided.AsStrided((3,), (1,), 0)
    dispatch._remember_view(op, a, memory[2:5])
    assert op.call is None
    dispatch._remember_view(op, a, memory[1:3])
    if native.layout_calls() is not None:
        assert op.call(memory[5:]).tolist() == memory[6:8].tolist()


def test_without_builtins_all_goes_the_long_way(monkeypatch):
    monkeypatch.setenv("WEFT_NO_BUILTIN", "1")
    assert native.layout_calls() is None


def test_objects_with_another_header_go_the_long_way(monkeypatch):
    """As a build of Python without the global lock has, whether or not the lock is on."""
    if native.layout_calls() is None:
        pytest.skip("no builtins here")
    monkeypatch.setattr(native, "_HEADER", 32)
    assert native.layout_calls() is None

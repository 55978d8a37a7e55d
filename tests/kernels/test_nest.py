"""Fused pointwise nests: every row and dtype, layouts, tails, threads, run-time scalars."""

import itertools
import platform
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.core.loop_interp import run as interpret
from tests.kernels.run import close, elementwise, launched, of, rows, thread_count, values
from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels import eager
from weft.kernels.schedule import nest
from weft.kernels.schedule.lower import lower_nest
from weft.runtime import memory, native

X, Y, Z = (S.Arg(i, D.float32) for i in range(3))
ULPS = {"lgamma": 1000, "digamma": 200, "tan": 8}  # near roots the reference is off too


X86 = ("x86_64", "AMD64")


def test_every_row_on_every_dtype() -> None:
    rng = np.random.default_rng(0)
    wrong = []
    for name, d in rows():
        arity = S.TABLE[name].arity
        xs = [values(rng, d, 133, name, k) for k in range(arity)]
        e = S.Scalar(name, tuple(S.Arg(i, d) for i in range(arity)))
        got, want = elementwise(e, *xs), S.evaluate(e, tuple(xs))
        assert got.dtype == want.dtype
        if not close(got, want, ULPS.get(name, 4)).all():
            wrong.append((name, d.name))
    assert wrong == []


def test_casts_between_all_dtypes() -> None:
    rng = np.random.default_rng(1)
    for a, b in itertools.product(D.ALL, D.ALL):
        x = values(rng, a, 67)
        if a.is_floating_point and not b.is_floating_point and platform.machine() not in X86:
            x[~np.isfinite(x)] = 0  # what NumPy makes of them there is not what it makes here
            x = x if b.is_signed else abs(x)
        got = elementwise(S.cast(S.Arg(0, a), b), x)
        want = S.round_to(x, b)
        assert ((got == want) | ((got != got) & (want != want))).all(), (a.name, b.name)


SHAPES = [(), (1,), (0,), (0, 3), (15,), (16,), (17,), (257,), (3, 5), (7, 1, 33), (2, 3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layouts(shape: tuple[int, ...]) -> None:
    """Broadcast, transposed, stepped and reversed operands give NumPy's sums."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape).astype(np.float32)
    others = [np.float32(rng.standard_normal(())), x[..., ::-1] if shape else x]
    if shape:
        others.append(rng.standard_normal(shape[-1:]).astype(np.float32))
        others.append(rng.standard_normal((*shape[:-1], 1)).astype(np.float32))
        others.append(np.repeat(x, 3, axis=0)[::3])
        others.append(x.transpose().copy().transpose())
    for y in map(np.asarray, others):
        assert (elementwise(X + Y, x, y) == x + y).all()
        assert (elementwise(X + Y, x.T, y.T if y.shape == x.shape else x.T)
                == x.T + (y.T if y.shape == x.shape else x.T)).all()  # fmt: skip


@pytest.mark.parametrize("d", [D.float32, D.float64, D.bfloat16, D.int8], ids=str)
def test_operands_that_lie_across_are_turned_in_tiles(d: D.dtype) -> None:
    """Full tiles, partial ones on either side, gaps, and reversed dims, in every order of dims."""
    rng = np.random.default_rng(8)
    a = S.Arg(0, d)
    for shape in ((70, 130), (64, 64), (17, 63), (3, 70, 65)):
        x = (rng.standard_normal(shape) * 50).astype(d.np)
        for order in itertools.permutations(range(len(shape))):
            for y in (x, x[::-1], x[..., ::2]):
                z = y.transpose(order)
                assert (elementwise(a, z) == z).all()
                assert (elementwise(a + S.Arg(1, d), z, z[..., :1]) == z + z[..., :1]).all()


def test_random_expressions_against_the_interpreter() -> None:
    rng = np.random.default_rng(3)
    programs = [
        S.fma(X, Y, Z) - S.where(X > Y, S.relu(Z), S.neg(X)),
        S.cast(S.cast(X * 10, D.int8), D.float32) / (S.abs(Y) + 1),
        S.clamp(X, -0.5, 0.5) * S.sqrt(S.abs(Y)) + S.floor(Z),
    ]
    for e, shape in itertools.product(programs, [(5,), (2, 17), (3, 1, 4)]):
        xs = [rng.standard_normal(shape).astype(np.float32) for _ in range(3)]
        xs[1] = xs[1][..., :1]
        out = np.empty(shape, np.float32)
        program = lower_nest((e,), tuple(map(of, xs)), (of(out),))
        interpret(program, {"out0": out, **{f"in{i}": x for i, x in enumerate(xs)}})
        assert elementwise(e, *xs).tobytes() == out.tobytes()


UNARY = ["exp", "tanh", "sin", "log1p", "erf", "sigmoid", "gelu"]


@pytest.mark.parametrize("name", UNARY)
def test_position_does_not_matter(name: str) -> None:
    """An element has the same bits alone, in any lane, in the tail, and under any stride."""
    e = getattr(S, name)(X)
    x = np.random.default_rng(4).standard_normal(131).astype(np.float32)
    whole = elementwise(e, x)
    alone = np.concatenate([elementwise(e, x[i : i + 1]) for i in range(131)])
    shifted = np.concatenate([x[:1], elementwise(e, x[5:])])[1:]
    stepped = elementwise(e, np.repeat(x, 2)[::2])
    assert whole.tobytes() == alone.tobytes() == stepped.tobytes()
    assert whole[5:].tobytes() == shifted.tobytes()


def test_threads_do_not_matter() -> None:
    x = np.random.default_rng(5).standard_normal((37, 9001)).astype(np.float32)
    got = []
    for n in (1, 2, 3):
        with thread_count(n):
            got.append(elementwise(S.gelu(X) * Y, x, x[:, :1]).tobytes())
    assert got[0] == got[1] == got[2]


def test_several_outputs_in_place_with_run_time_scalars() -> None:
    """SGD with momentum: v = m v + g; p = p - lr v, both written where they were read."""
    rng = np.random.default_rng(6)
    p, v, g = (rng.standard_normal(1003).astype(np.float32) for _ in range(3))
    momentum, rate = S.Param(0, D.float32), S.Param(1, D.float32)
    new_v = momentum * Y + Z
    planned = eager.plan_fused((X - rate * new_v, new_v), [of(p), of(v), of(g)], [of(p), of(v)])
    before = native.cache_stats()["compiled"]
    for m, lr in ((0.9, 0.1), (0.5, 1e-3)):
        want_v = np.float32(m) * v + g
        want_p = p - np.float32(lr) * want_v
        launched(planned.with_scalars((m, lr)), p, v, p, v, g)
        assert (v == want_v).all()
        assert (p == want_p).all()
    assert native.cache_stats()["compiled"] == before
    with pytest.raises(ValueError, match="2 run-time scalars wanted"):
        planned.with_scalars((1.0,))


def test_int_scalars_keep_all_bits() -> None:
    x = np.array([1, -1], np.int64)
    e = S.Arg(0, D.int64) + S.Param(0, D.int64)
    got = elementwise(e, x, scalars=(2**62 + 1,))
    assert got.tolist() == [2**62 + 2, 2**62]


def test_coordinates() -> None:
    """A lower triangle: where(j <= i, x, 0)."""
    x = np.random.default_rng(7).standard_normal((3, 9, 21)).astype(np.float32)
    e = S.where(S.Coord(2) <= S.Coord(1), X, 0.0)
    assert (elementwise(e, x) == np.tril(x)).all()


def test_streaming_stores_and_unaligned_outputs() -> None:
    n = nest.STREAM_BYTES // 4 + 37
    x = np.arange(n, dtype=np.float32)
    room = np.zeros(n + 16, np.float32)
    for start in (0, 1):
        out = room[start : start + n]
        launched(eager.plan_elementwise(X + 1, [of(x)], of(out)), out, x)
        assert (out == x + 1).all()
        assert (room[start + n :] == 0).all()
        room[:] = 0


@pytest.mark.parametrize("limit", [0, 1 << 60])
def test_in_place_and_beside(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """One of two results lies where an operand does, the other elsewhere."""
    monkeypatch.setattr(nest, "STREAM_BYTES", limit)
    base = np.random.default_rng(8).standard_normal((2, 4096 + 37)).astype(np.float32)
    nest.plan_nest.cache_clear()
    x = memory.empty(base.shape, np.dtype(np.float32))
    x[...] = base
    y = memory.empty(base.shape, np.dtype(np.float32))
    plan = eager.plan_fused([X * X + 1, X - Y], [of(x), of(base)], [of(x), of(y)])
    native.launch(plan.launch, x, [y, x, base])
    nest.plan_nest.cache_clear()
    assert (x == base * base + 1).all()
    assert (y == 0).all()


def test_operands_of_many_bytes_are_asked_for_and_no_bit_changes() -> None:
    """Up to the end of an array, behind which nothing is; the pieces ask for nothing."""
    size = nest._FAR_BYTES // 8 + 35
    x = np.random.default_rng(3).standard_normal(size).astype(np.float32)
    y = np.abs(x[::-1]).copy()
    e = S.Scalar("mul", (S.Scalar("exp", (S.Arg(0, D.float32),)), S.Arg(1, D.float32)))
    assert nest.work((e,)) >= nest._HEAVY
    got = elementwise(e, x, y)
    step = 4096
    for at in range(0, size, step):
        part = slice(at, at + step)
        np.testing.assert_array_equal(got[part], elementwise(e, x[part].copy(), y[part].copy()))


@pytest.mark.parametrize("width", [16, 48, 70])
@pytest.mark.parametrize("shift", [0, 3])
def test_rows_stream_where_each_begins_a_cache_line(
    monkeypatch: pytest.MonkeyPatch, width: int, shift: int
) -> None:
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((2, 9, width)).astype(np.float32)
    monkeypatch.setattr(nest, "STREAM_BYTES", 0)
    nest.plan_nest.cache_clear()
    room = memory.empty((1 << 14,), np.dtype(np.float32))
    room[:] = 7
    out = room[shift : shift + 9 * width].reshape(9, width)
    launch = nest.plan_nest((X * Y,), (of(x), of(y[:1])), (of(out),)).launch
    nest.plan_nest.cache_clear()
    assert launched(launch, out, x, y[:1]).tobytes() == (x * y[:1]).tobytes()
    assert (room[:shift] == 7).all() and (room[shift + 9 * width :] == 7).all()


def test_nothing_is_written_outside() -> None:
    for d, n in itertools.product(D.ALL, (1, 7, 33)):
        room = np.full(n + 64, 77).astype(d.np)
        x = np.zeros(n, d.np)
        launched(eager.plan_copy(of(x), of(room[32 : 32 + n])), room[32 : 32 + n], x)
        assert (room[:32] == room[0]).all()
        assert (room[32 + n :] == room[0]).all()
        assert (room[32 : 32 + n] == 0).all()


@pytest.mark.parametrize("name", ["div", "floordiv", "rem", "fmod"])
@pytest.mark.parametrize("d", [D.int64, D.int32, D.int8, D.uint8], ids=str)
def test_integer_division_by_zero_is_a_status(name: str, d: D.dtype) -> None:
    e = S.apply(name, S.Arg(0, d), S.Arg(1, d))
    x = np.full(19, np.iinfo(d.np).min, d.np)
    y = np.full(19, -1 if d.is_signed else 1).astype(d.np)
    out = np.empty(19, d.np)
    launch = eager.plan_elementwise(e, [of(x), of(y)], of(out))
    assert native.launch(launch, out, (x, y)) == 0  # the smallest int by -1 neither traps
    y[17] = 0
    assert native.launch(launch, out, (x, y)) != 0
    assert out[17] == 0


def test_kernels_are_shared_by_structure() -> None:
    """Other sizes and outer strides need no new code."""
    e = S.tanh(X * Y + 0.375)
    elementwise(e, *[np.zeros((4, 6), np.float32)[:, :5]] * 2)
    before = native.cache_stats()
    elementwise(e, *[np.zeros((9, 30), np.float32)[::2, :7]] * 2)
    after = native.cache_stats()
    assert (after["compiled"], after["disk"]) == (before["compiled"], before["disk"])


def test_planning_from_many_threads() -> None:
    x = np.ones(100, np.float32)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda i: elementwise(X + float(i), x), range(12)))
    assert [g[0] for g in got] == [1.0 + i for i in range(12)]


def test_shapes_that_do_not_broadcast() -> None:
    x, y = np.zeros((3, 4), np.float32), np.zeros((3, 5), np.float32)
    with pytest.raises(ValueError, match="does not broadcast"):
        eager.plan_elementwise(X + Y, [of(x), of(y)], of(x))

"""Reductions: bits against an independent statement of the strict order, NaN, threads, layouts."""

import itertools

import numpy as np
import pytest

from tests.core.loop_interp import run as interpret
from tests.kernels.lower_reduction import lower_reduction
from tests.kernels.run import launched, of, thread_count
from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels import eager
from weft.kernels.schedule import reduce
from weft.kernels.schedule.combine import accumulator
from weft.kernels.schedule.reduce import CHUNK

X, Y = S.Arg(0, D.float32), S.Arg(1, D.float32)


def strict(op: np.ufunc, start: float, x: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """The order of reduce.py, on whole arrays of outputs: 16 lanes, chunks, halving."""
    reduced = sorted(d % x.ndim for d in dims)
    group = [reduced[-1]]
    while group[0] - 1 in reduced:
        group.insert(0, group[0] - 1)
    outer = [d for d in reduced if d < group[0]]
    kept = [d for d in range(x.ndim) if d not in reduced]
    sizes = [x.shape[d] for d in kept]
    count = int(np.prod([x.shape[d] for d in group]))
    y = x.transpose(kept + outer + group).reshape(*sizes, -1, count)

    def lanes(acc: np.ndarray, o: int, first: int, last: int) -> np.ndarray:
        for s in range(first, last, 16):
            m = min(16, last - s)
            acc[..., :m] = op(acc[..., :m], y[..., o, s : s + m])
        return acc

    def combined(acc: np.ndarray) -> np.ndarray:
        for half in (8, 4, 2, 1):
            acc = op(acc[..., :half], acc[..., half : 2 * half])
        return acc[..., 0]

    def fresh() -> np.ndarray:
        return np.full((*sizes, 16), start, x.dtype)

    if count <= 8192 and (count < 64 or y.shape[-2] == 1):
        acc = fresh()
        for o in range(y.shape[-2]):
            acc = lanes(acc, o, 0, count)
        return combined(acc)
    total = np.full(sizes, start, x.dtype)
    for o, c in itertools.product(range(y.shape[-2]), range(0, count, 8192)):
        total = op(total, combined(lanes(fresh(), o, c, min(count, c + 8192))))
    return total


def reduced(
    kind: str, *xs: np.ndarray, dims: tuple[int, ...] | None, keepdim: bool = False,
    pre: S.Expr | None = None, dtype: object = None, **more: object,
) -> np.ndarray:  # fmt: skip
    pre = S.Arg(0, D.from_np(xs[0].dtype)) if pre is None else pre
    shape = np.broadcast_shapes(*(x.shape for x in xs))
    axes = tuple(range(len(shape))) if dims is None else dims
    out_shape = np.empty(shape, np.int8).sum(axis=axes, keepdims=keepdim).shape
    if dtype is None:
        acc = accumulator(kind, pre.dtype)
        dtype = pre.dtype.np if kind in ("max", "min") or pre.dtype.category == D.FLOAT else acc.np
        dtype = {"argmax": np.int64, "argmin": np.int64, "any": bool, "all": bool}.get(kind, dtype)
    out = np.empty(out_shape, dtype)  # type: ignore[arg-type]
    launch = eager.plan_reduce(kind, pre, dims, keepdim, [of(x) for x in xs], of(out), **more)  # type: ignore[arg-type]
    return launched(launch, out, *xs)


def every(n: int) -> list[tuple[int, ...]]:
    return [c for k in range(1, n + 1) for c in itertools.combinations(range(n), k)]


SHAPES = [(5, 7, 33), (2, 3, 4, 19), (1, 40), (20000,), (2, 9000), (9000, 3), (17, 1, 70),
          (8300, 70), (16, 16), (1, 1), (3, 20, 64), (2, 3, 5, 16, 2)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_of_the_strict_order(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for a in (x, x[::-1], x.T.copy().T, x[..., ::2]):
        for dims in every(a.ndim):
            assert reduced("sum", a, dims=dims).tobytes() == strict(np.add, 0, a, dims).tobytes()
            got = reduced("prod", a, dims=dims, keepdim=True)
            assert got.tobytes() == strict(np.multiply, 1, a, dims).tobytes()
            assert (reduced("max", a, dims=dims) == a.max(axis=dims)).all()


def test_order_is_the_interpreters() -> None:
    rng = np.random.default_rng(1)
    for shape, dims in (
        ((3, 5, 20), (0, 2)),
        ((2, 8200), (1,)),
        ((2, 8200), (0, 1)),
        ((4, 6), (0,)),
    ):
        x = rng.standard_normal(shape).astype(np.float32)
        got = reduced("sum", x, dims=dims, pre=S.relu(X) * 0.3)
        out = np.empty(got.shape or (1,), np.float32)
        program = lower_reduction("sum", S.relu(X) * 0.3, dims, False, (of(x),), of(out), shape)
        interpret(program, {"out0": out, "in0": x})
        assert out.tobytes() == got.tobytes()


def test_dtypes() -> None:
    rng = np.random.default_rng(2)
    for d in D.ALL:
        x = rng.standard_normal((6, 50)) * 20
        x = (x if d.is_signed else abs(x)).astype(d.np)  # -1.0 as a uint8 differs from CPU to CPU
        for dims in ((0,), (1,), (0, 1)):
            acc = accumulator("sum", d).np
            want = strict(np.add, 0, x.astype(acc), dims)
            assert (
                reduced("sum", x, dims=dims) == want.astype(d.np if d.is_floating_point else acc)
            ).all()
            assert (reduced("max", x, dims=dims) == x.max(axis=dims)).all()
            assert (reduced("min", x, dims=dims) == x.min(axis=dims)).all()
            b = x != 0
            assert (reduced("any", b, dims=dims) == b.any(axis=dims)).all()
            assert (reduced("all", x, dims=dims) == b.all(axis=dims)).all()


def test_integers_wrap() -> None:
    x = np.array([2**62, 2**62, 5], np.int64)
    assert reduced("sum", x, dims=(0,)).item() == -(2**63) + 5


def test_arg_takes_the_first_and_nan_wins() -> None:
    x = np.float32([[1, 3, 3, 2], [np.nan, 9, np.nan, 1], [-np.inf] * 4])
    for a, dim in ((x, 1), (x.T.copy(), 0)):
        assert reduced("argmax", a, dims=(dim,)).tolist() == [1, 0, 0]
        assert reduced("argmin", a, dims=(dim,)).tolist() == [0, 0, 0]
        assert np.isnan(reduced("max", a, dims=(dim,))).tolist() == [False, True, False]
    assert reduced("argmax", x, dims=None).item() == 4
    long = np.random.default_rng(3).integers(0, 50, 30000).astype(np.float32)
    assert reduced("argmax", long, dims=None).item() == long.argmax()
    assert reduced("argmin", long[::-1], dims=None).item() == long[::-1].argmin()
    wide = np.random.default_rng(4).integers(0, 9, (40, 37)).astype(np.int32)
    for dim in (0, 1):
        assert (reduced("argmax", wide, dims=(dim,)) == wide.argmax(dim)).all()


def test_nan_reaches_the_result_from_anywhere() -> None:
    for n, at in itertools.product((5, 40, 9000), (0, -1)):
        x = np.ones(n, np.float32)
        x[at] = np.nan
        for kind in ("sum", "prod", "max", "min"):
            assert np.isnan(reduced(kind, x, dims=(0,)))


def test_threads_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    for shape, dims in (
        ((70000,), (0,)),
        ((300, 900), (0,)),
        ((300, 900), (1,)),
        ((9000, 33), (0,)),
    ):
        x = rng.standard_normal(shape).astype(np.float32)
        got = set()
        for n in (1, 2, 3):
            with thread_count(n):
                got.add(reduced("sum", x, dims=dims, pre=S.exp(X)).tobytes())
        assert len(got) == 1


def test_batch_does_not_matter() -> None:
    """A row alone has the bits that it has inside a batch, whichever loop serves it."""
    x = np.random.default_rng(6).standard_normal((37, 100)).astype(np.float32)
    whole = reduced("sum", x, dims=(1,))
    by_column = reduced("sum", x.T.copy(), dims=(0,))
    alone = [reduced("sum", row, dims=(0,)).item() for row in x]
    assert whole.tolist() == alone == by_column.tolist()


def test_fused_producers_and_results() -> None:
    rng = np.random.default_rng(7)
    x, y = (
        rng.standard_normal((9, 50)).astype(np.float32),
        rng.standard_normal(50).astype(np.float32),
    )
    mean = X / S.Param(0, D.float32)
    got = reduced("sum", x, y, dims=(1,), pre=X * Y, post=mean, scalars=(50,))
    assert (got == strict(np.add, 0, x * y, (1,)) / np.float32(50)).all()


@pytest.mark.parametrize(("kind", "want"), [("sum", 0), ("prod", 1), ("any", False), ("all", True)])
def test_reducing_nothing_gives_the_identity(kind: str, want: object) -> None:
    x = np.empty((3, 0), bool if kind in ("any", "all") else np.float32)
    assert reduced(kind, x, dims=(1,)).tolist() == [want] * 3
    assert reduced(kind, x, dims=(0,)).shape == (0,)


def test_scalars_reduce_to_themselves() -> None:
    assert reduced("sum", np.asarray(np.float32(3)), dims=None).item() == 3
    assert CHUNK == 8192


@pytest.mark.parametrize("shape", [(33, 301), (77, 411), (16 * 9 + 3, 320), (2, 64, 330)])
def test_streams_of_rows_have_the_strict_order(shape: tuple[int, ...]) -> None:
    """Many rows and columns: lane after lane, columns left over, rows across, a short last chunk
    whose lanes are not all used.
    """
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    dims = tuple(range(len(shape) - 1))[:1]
    for kind, op, start in (("sum", np.add, 0.0), ("max", np.maximum, -np.inf)):
        for v in (x, x[:, 5:] if len(shape) > 2 else x[::2, 5:], x[::-1]):
            assert reduced(kind, v, dims=dims).tobytes() == strict(op, start, v, dims).tobytes()


@pytest.mark.parametrize("far", [0, 1 << 40])
@pytest.mark.parametrize("shape", [(77, 40), (200, 65), (16 * 9 + 3, 128), (3, 130, 250), (70, 4)])
def test_four_rows_of_a_lane_at_once(
    shape: tuple[int, ...], far: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few vectors of columns, from the caches and from memory: whole blocks and what is left."""
    monkeypatch.setattr(reduce, "_FAR_BYTES", far)
    reduce.plan_reduction.cache_clear()
    x = np.random.default_rng(8).standard_normal(shape).astype(np.float32)
    dims = (len(shape) - 2,)
    for kind, op, start in (("sum", np.add, 0.0), ("max", np.maximum, -np.inf)):
        for v in (x, x[::-1], x[..., 1:]):
            assert reduced(kind, v, dims=dims).tobytes() == strict(op, start, v, dims).tobytes()
    np.testing.assert_array_equal(reduced("argmax", x, dims=dims), x.argmax(dims[0]))
    reduce.plan_reduction.cache_clear()


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 31, 32])
def test_few_rows_in_registers(rows: int) -> None:
    width = 16 * reduce._WORTH // rows + 21
    x = np.random.default_rng(rows).standard_normal((rows, width)).astype(np.float32)
    x[:, ::3] = -0.0
    for v in (x, x[::-1, 5:]):
        got = reduced("sum", v, dims=(0,))
        assert got.tobytes() == strict(np.add, 0.0, v, (0,)).tobytes()
    np.testing.assert_array_equal(reduced("argmax", x, dims=(0,)), x.argmax(0))


@pytest.mark.parametrize("threads", [1, 2])
def test_chunks_of_all_outputs_before_the_next_outer_index(threads: int) -> None:
    x = np.random.default_rng(9).standard_normal((3, 5, 2, 9000)).astype(np.float32)
    with thread_count(threads):
        for v, dims in ((x, (0, 2, 3)), (x, (0, 3)), (x.transpose(2, 1, 0, 3), (0, 3))):
            assert reduced("sum", v, dims=dims).tobytes() == strict(np.add, 0, v, dims).tobytes()


def test_streams_of_long_rows() -> None:
    """More columns than a run has, more rows than a chunk, and the place of the largest."""
    x = np.random.default_rng(6).standard_normal((40, 16 * reduce.LONGEST + 35)).astype(np.float32)
    assert reduced("sum", x, dims=(0,)).tobytes() == strict(np.add, 0.0, x, (0,)).tobytes()
    np.testing.assert_array_equal(reduced("argmax", x, dims=(0,)), x.argmax(0))
    tall = x.reshape(-1)[: (CHUNK + 5) * 70].reshape(CHUNK + 5, 70)[:, :64].repeat(3, 1)
    assert reduced("sum", tall, dims=(0,)).tobytes() == strict(np.add, 0.0, tall, (0,)).tobytes()


@pytest.mark.parametrize(
    ("shape", "dims"), [((5, 7, 33), (0, 2)), ((2, 3, 9000), (2,)), ((3, 70, 80), (0, 2))]
)
def test_several_sums_in_one_pass_are_the_sums_alone(
    shape: tuple[int, ...], dims: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(2)
    x, y = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    x.flat[3] = np.nan
    a, b = (S.Arg(i, D.float32) for i in (0, 1))
    wide = [v.swapaxes(1, -1).copy().swapaxes(1, -1) for v in (x, y)]  # what is kept is adjacent
    for operands in ((x, y), wide):
        alone = [
            reduced("sum", *operands, dims=dims, keepdim=True, pre=e) for e in (a, S.mul(a, b), b)
        ]
        out = np.full((3, *alone[0].shape), 7, np.float32)
        launch = eager.plan_reduce(
            "sum", a, dims, True, [of(v) for v in operands], of(out), others=(S.mul(a, b), b)
        )
        assert launched(launch, out, *operands).tobytes() == np.stack(alone).tobytes()

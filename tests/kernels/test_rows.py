"""Row kernels have the bits of the formulas composed of single ops."""

import numpy as np
import pytest

from tests.kernels.run import elementwise, launched, of, thread_count
from weft.core import dtype as D
from weft.core import scalar as S
from weft.kernels.eager import plan_layer_norm, plan_reduce, plan_rms_norm, plan_softmax
from weft.kernels.schedule import rows
from weft.runtime.memory import empty

X, Y, Z = (S.Arg(i, D.float32) for i in range(3))
SHAPES = [((5, 7), 1), ((3, 1000), 1), ((2, 20000), 1), ((4, 9, 33), 1), ((4, 9, 33), 0),
          ((2, 21, 5, 19), 1), ((9000, 5), 0), ((3, 40), 0),
          ((1, 1), 1), ((17,), 0)]  # fmt: skip


def reduced(kind: str, x: np.ndarray, dim: int) -> np.ndarray:
    out = np.empty([1 if d == dim % x.ndim else n for d, n in enumerate(x.shape)], np.float32)
    return launched(plan_reduce(kind, X, (dim,), True, [of(x)], of(out)), out, x)


def softmax(x: np.ndarray, dim: int, *, log: bool = False) -> np.ndarray:
    out = np.empty(x.shape, x.dtype)
    return launched(plan_softmax(of(x), dim, of(out), log=log), out, x)


@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_softmax_is_its_composition(shape: tuple[int, ...], dim: int) -> None:
    base = (np.random.default_rng(0).standard_normal(shape) * 4).astype(np.float32)
    for x in (base, base[..., ::-1]):
        top = reduced("max", x, dim)
        e = elementwise(S.exp(X - Y), x, top)
        total = reduced("sum", e, dim)
        assert softmax(x, dim).tobytes() == elementwise(X / Y, e, total).tobytes()
        want = elementwise((X - Y) - S.log(Z), x, top, total)
        assert softmax(x, dim, log=True).tobytes() == want.tobytes()


def test_long_rows_wait_in_the_output() -> None:
    x = np.random.default_rng(3).standard_normal((2, rows.HELD_BYTES // 4 + 7)).astype(np.float32)
    e = elementwise(S.exp(X - Y), x, reduced("max", x, 1))
    want = elementwise(X / Y, e, reduced("sum", e, 1))
    assert softmax(x, 1).tobytes() == want.tobytes()


@pytest.mark.parametrize("count", [64, 70])
@pytest.mark.parametrize("height", [1, 2, 5])
def test_results_past_the_caches_are_the_same(
    monkeypatch: pytest.MonkeyPatch, height: int, count: int
) -> None:
    """Rows that fill cache lines, rows that do not, and a result that starts inside a line."""
    rng = np.random.default_rng(4)
    x, g = (rng.standard_normal((height, count)).astype(np.float32) for _ in range(2))
    w, b = (rng.standard_normal(count).astype(np.float32) for _ in range(2))
    plans = {
        "softmax": (lambda out: plan_softmax(of(x), 1, out), (x,), 0),
        "log softmax": (lambda out: plan_softmax(of(x), 1, out, log=True), (x,), 0),
        "its gradient": (lambda o: rows.plan_softmax_grad(of(g), of(x), o, log=True), (g, x), 0),
        "layer norm": (
            lambda out: plan_layer_norm(of(x), 1, out, 1e-5, weight=of(w), bias=of(b)),
            (x, w, b),
            0,
        ),
        "norm's gradients": (
            lambda o: rows.plan_norm_grad(of(g), of(x), of(w), 1, o, 1e-5, centred=True),
            (g, x, w),
            2 * rows.PARTS,
        ),
    }
    for name, (plan, ins, more) in plans.items():
        found = []
        for limit, shift in ((1 << 60, 0), (0, 0), (0, 1)):
            monkeypatch.setattr(rows, "STREAM_BYTES", limit)
            room = empty(((height + more) * count + 16 + 4096,), np.dtype(np.float32))
            out = room[shift : shift + (height + more) * count].reshape(-1, count)
            found.append(launched(plan(of(out)), out, *ins).tobytes())
        assert found[0] == found[1] == found[2], name


@pytest.mark.parametrize("count", [3, 70, 300])
def test_rows_are_replaced_where_they_lie(count: int) -> None:
    """A pass has read the row before and looks at the one after while it writes."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((5, count)).astype(np.float32) * np.float32([[1], [9], [1], [40], [3]])
    for log in (False, True):
        want, y = softmax(x, 1, log=log), x.copy()
        launched(plan_softmax(of(y), 1, of(y), log=log), y, y)
        assert y.tobytes() == want.tobytes()
        assert [softmax(row, 0, log=log).tobytes() for row in x] == [row.tobytes() for row in want]


def test_softmax_edges() -> None:
    big = np.float32([[1000, 1000, -1000], [-np.inf, 0, -np.inf], [np.nan, 1, 2]])
    np.testing.assert_array_equal(softmax(big, 1)[:2], [[0.5, 0.5, 0], [0, 1, 0]])
    assert np.isnan(softmax(big, 1)[2]).all()
    assert np.isnan(softmax(np.full((1, 3), -np.inf, np.float32), 1)).all()
    assert softmax(np.empty((0, 3), np.float32), 1).shape == (0, 3)


@pytest.mark.parametrize("d", [D.bfloat16, D.float16], ids=str)
def test_halves_are_float32_rounded_once(d: D.dtype) -> None:
    x = np.random.default_rng(1).standard_normal((5, 70)).astype(d.np)
    wide = x.astype(np.float32)
    for log in (False, True):
        assert (softmax(x, 1, log=log) == softmax(wide, 1, log=log).astype(d.np)).all()
    out, want = np.empty_like(x), np.empty_like(wide)
    launched(plan_layer_norm(of(x), 1, of(out), 1e-5), out, x)
    launched(plan_layer_norm(of(wide), 1, of(want), 1e-5), want, wide)
    assert (out == want.astype(d.np)).all()
    for log in (False, True):  # lines side by side
        assert (softmax(x, 0, log=log) == softmax(wide, 0, log=log).astype(d.np)).all()


@pytest.mark.parametrize(
    ("shape", "dims"), [((5, 7), 1), ((3, 1000), 1), ((2, 3, 40), 2), ((2, 9000), 1)]
)
def test_layer_norm_is_its_composition(shape: tuple[int, ...], dims: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape).astype(np.float32)
    w, b = (rng.standard_normal(shape[-dims:]).astype(np.float32) for _ in range(2))
    lead = shape[: len(shape) - dims]
    mean, rstd, out = np.empty(lead, np.float32), np.empty(lead, np.float32), np.empty_like(x)
    launch = plan_layer_norm(
        of(x), dims, of(out), 1e-5, weight=of(w), bias=of(b), mean=of(mean), rstd=of(rstd)
    )
    launched(launch, out, mean, rstd, x, w, b)
    flat = x.reshape(*lead, -1)
    n = np.float32(flat.shape[-1])
    mu = reduced("sum", flat, -1) / n
    d = flat - mu
    r = elementwise(S.rsqrt(X + 1e-5), reduced("sum", d * d, -1) / n)
    want = (d * r) * w.reshape(-1) + b.reshape(-1)
    assert out.tobytes() == want.tobytes()
    assert (mean == mu[..., 0]).all()
    assert (rstd == r[..., 0]).all()
    exact = x.astype(np.float64).reshape(*lead, -1)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        out.reshape(exact.shape), exact * w.reshape(-1) + b.reshape(-1), atol=1e-4
    )


def test_rms_norm() -> None:
    x = np.random.default_rng(3).standard_normal((6, 37))
    out, rstd = np.empty_like(x), np.empty(6)
    launched(plan_rms_norm(of(x), 1, of(out), 1e-6, rstd=of(rstd)), out, rstd, x)
    want = 1 / np.sqrt((x * x).mean(1) + 1e-6)
    np.testing.assert_allclose(rstd, want, rtol=1e-14)
    np.testing.assert_allclose(out, x * want[:, None], rtol=1e-14)


def test_threads_and_batch_do_not_matter() -> None:
    x = np.random.default_rng(4).standard_normal((200, 501)).astype(np.float32)
    got = set()
    for n in (1, 2):
        with thread_count(n):
            got.add(softmax(x, 1).tobytes())
    assert len(got) == 1
    assert softmax(x[77:78], 1).tobytes() == softmax(x, 1)[77].tobytes()


@pytest.mark.parametrize("count", [256, 449, 5000])
def test_vectors_side_by_side_change_no_bit(count: int) -> None:
    """Many long rows take several vectors in turns, one row does not."""
    height = 65536 // count + 2
    rng = np.random.default_rng(5)
    x, g = (rng.standard_normal((height, count)).astype(np.float32) for _ in range(2))
    x[1, 200:] = -np.inf
    x[-1, 7] = np.nan

    def grad(g: np.ndarray, y: np.ndarray, *, log: bool) -> np.ndarray:
        out = np.empty(y.shape, np.float32)
        return launched(rows.plan_softmax_grad(of(g), of(y), of(out), log=log), out, g, y)

    for log in (False, True):
        y = softmax(x, 1, log=log)
        dx = grad(g, y, log=log)
        for at in (0, 1, height // 2, height - 1):
            one = slice(at, at + 1)
            assert softmax(x[one], 1, log=log).tobytes() == y[one].tobytes()
            assert grad(g[one], y[one], log=log).tobytes() == dx[one].tobytes()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("height", [0, 1, 33, 70])
def test_norm_gradients_take_one_row_or_two(
    monkeypatch: pytest.MonkeyPatch, height: int, centred: bool
) -> None:
    """Parts of odd numbers of rows, of none; rows from memory one at a time: the same bits."""
    rng = np.random.default_rng(7)
    g, x, w = (rng.standard_normal(s).astype(np.float32) for s in ((height, 21),) * 2 + ((21,),))
    found = []
    for limit, threads in ((rows.STREAM_BYTES, 1), (rows.STREAM_BYTES, 2), (0, 1)):
        monkeypatch.setattr(rows, "STREAM_BYTES", limit)
        monkeypatch.setattr(rows, "_LONG_BYTES", limit)
        out = np.full((height + 2 * rows.PARTS, 21), np.nan, np.float32)
        plan = rows.plan_norm_grad(of(g), of(x), of(w), 1, of(out), 1e-5, centred=centred)
        with thread_count(threads):
            launched(plan, out, g, x, w)
        found.append(out.tobytes())
    assert len(set(found)) == 1
    d, h = x.astype(np.float64), (g * w).astype(np.float64)
    d = d - d.mean(1, keepdims=True) if centred else d
    r = 1 / np.sqrt((d * d).mean(1, keepdims=True) + 1e-5)
    dx = r * (h - d * r * r * (h * d).mean(1, keepdims=True))
    dx = dx - r * h.mean(1, keepdims=True) if centred else dx
    np.testing.assert_allclose(out[:height], dx, rtol=1e-4, atol=1e-5)
    sums = out[height:].reshape(2, rows.PARTS, 21).sum(1)
    np.testing.assert_allclose(sums, [(g * d * r).sum(0), g.sum(0)], rtol=1e-4, atol=1e-4)


def test_normalised_dims_must_be_one_run() -> None:
    x = np.zeros((2, 3, 8), np.float32)[..., ::2]
    out = np.zeros((2, 3, 4), np.float32)
    launched(plan_layer_norm(of(x), 1, of(out), 1e-5), out, x)
    x = np.zeros((2, 6, 8), np.float32)[:, ::2, :3]
    with pytest.raises(ValueError, match="not one run"):
        plan_layer_norm(of(x), 2, of(np.zeros((2, 3, 3), np.float32)), 1e-5)


@pytest.mark.parametrize("where", [0, 16, 33, 50, 63, 64, 40_000, 40_031, 40_032, 40_034])
def test_the_largest_of_one_long_row_is_found_wherever_it_lies(where: int) -> None:
    """Four running maxima of a row alone: without the right one exp would overflow."""
    x = np.random.default_rng(where).standard_normal((1, 40_035)).astype(np.float32)
    x[0, where] = 300
    made = softmax(x, 1)
    e = np.exp(x.astype(np.float64) - 300)
    assert np.abs(made - e / e.sum()).max() < 1e-6
    assert softmax(np.concatenate([x[:, ::-1], x]), 1)[1].tobytes() == made[0].tobytes()
    x[0, where] = np.nan
    assert np.isnan(softmax(x, 1)).all()

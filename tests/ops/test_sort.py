"""Order and lookup against NumPy; where NumPy has no say, facts of torch 2.13 as literals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft
from tests.ops.rules import check, gradients
from weft.ops.lookup import SearchSorted
from weft.ops.sort import ArgSort, KthIndex, MiddleIndex, ModeIndex, TopKIndex

T, nan, inf = weft.tensor, math.nan, math.inf


@pytest.mark.parametrize(
    "kind",
    [ArgSort, ModeIndex, SearchSorted, TopKIndex, KthIndex, MiddleIndex],
    ids=lambda k: k.name,
)
def test_every_rule(kind):
    check(kind)


def test_sort_is_stable_and_nan_is_the_largest():
    values, indices = weft.sort(T([3.0, nan, 1.0, -inf, inf, 1.0]))
    assert indices.tolist() == [3, 2, 5, 0, 4, 1] and values.tolist()[:5] == [-inf, 1, 1, 3, inf]
    assert T([3.0, nan, 1.0, 1.0]).sort(descending=True).indices.tolist() == [1, 0, 2, 3]
    assert T([2, 1, 2]).argsort(descending=True).tolist() == [0, 2, 1]
    assert T([True, False]).sort().values.tolist() == [False, True]
    assert weft.sort(T(3.0)).indices.shape == () and weft.sort(T(3.0)).values.item() == 3
    x = T([[2.0, 1.0], [1.0, 3.0]]).to(weft.bfloat16)
    assert weft.msort(x).tolist() == [[1, 1], [2, 3]] and weft.msort(x).dtype is weft.bfloat16
    assert x.t().sort(0, descending=True).values.tolist() == [[2, 3], [1, 1]]
    assert weft.zeros(2, 0).sort(0).values.shape == (2, 0)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, nan, -1.0]), max_size=8), st.booleans())
def test_sorting_twice_gives_the_ranks(values, descending):
    x = T(values)
    order = x.argsort(descending=descending)
    np.testing.assert_array_equal(order.argsort()[order].numpy(), np.arange(len(values)))
    got = x[order].numpy()
    wanted = np.sort(np.array(values, np.float32))
    np.testing.assert_array_equal(got, wanted[::-1] if descending else wanted)


def test_gradients_reach_the_chosen_elements():
    x = np.array([[3.0, 1.0, 2.0], [5.0, 6.0, 4.0]])
    for f in (
        lambda t: t.sort(1).values, lambda t: t.topk(2, 1).values, lambda t: t.median(0).values,
        lambda t: t.kthvalue(2, 1, True).values, lambda t: t.mode(1).values,
        lambda t: t.quantile(0.4, 1), lambda t: t.quantile(0.7, interpolation="midpoint"),
    ):  # fmt: skip
        gradients(f, [x], order=1)


def test_topk():
    x = T([1.0, nan, 3.0])
    assert x.topk(2).indices.tolist() == [1, 2]
    assert x.topk(2, largest=False).values.tolist() == [1, 3]
    assert T([[1, 5, 3], [9, 7, 8]]).topk(2, dim=1).values.tolist() == [[5, 3], [9, 8]]
    assert weft.topk(T(1.0), 1).values.shape == () and x.topk(0).values.shape == (0,)
    with pytest.raises(RuntimeError, match="selected index k out of range"):
        x.topk(4)


def test_the_mode_of_nan():
    values, indices = T([[nan, 2, nan], [1, nan, nan], [nan, 1, 1], [nan, nan, nan]]).mode(1)
    assert str(values.tolist()) == "[nan, nan, 1.0, nan]" and indices.tolist() == [2, 2, 2, 2]


def test_kth_median_and_mode():
    x = T([3.0, 1.0, 2.0, 4.0])
    assert x.kthvalue(2).values.item() == 2 and x.kthvalue(2).indices.item() == 2
    assert x.median().item() == 2 and weft.zeros(0).median().isnan().item()
    values, indices = T([[3.0, nan, 2.0, nan], [3.0, 1.0, 2.0, 4.0]]).median(1, keepdim=True)
    assert indices.tolist() == [[1], [2]] and values[0, 0].isnan().item() and values[1, 0] == 2
    assert T([3.0, nan, 2.0, 4.0]).nanmedian().item() == 3
    assert T([[nan, nan], [nan, 1.0]]).nanmedian(1).values[1].item() == 1
    assert T([3, 1, 3, 1, 2]).mode() == (1, 3) and T([[3, 1, 3, 1, 1, 2]]).mode().indices[0] == 4
    with pytest.raises(RuntimeError, match="selected number k out of range"):
        x.kthvalue(5)
    with pytest.raises(IndexError, match="non-zero size"):
        weft.zeros(0, 2).median(0)


@pytest.mark.parametrize("between", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantile_against_numpy(between, rng):
    a = rng.normal(size=(3, 4, 5))
    q = np.array([0.0, 0.3, 0.5, 1.0])
    for dim in (None, 0, -1):
        for keepdim in (False, True):
            got = weft.quantile(
                weft.from_numpy(a), weft.from_numpy(q), dim, keepdim, interpolation=between
            )
            wanted = np.quantile(a, q, dim, method=between, keepdims=keepdim)
            np.testing.assert_allclose(got.numpy(), wanted, 1e-12)
    one = weft.quantile(weft.from_numpy(a), 0.25, 1, interpolation=between)
    np.testing.assert_allclose(one.numpy(), np.quantile(a, 0.25, 1, method=between), 1e-12)


def test_quantile_and_nan():
    x = T([[1.0, nan, 2.0], [1.0, 2.0, 4.0]])
    assert x.quantile(0.5, 1).isnan().tolist() == [True, False]
    np.testing.assert_allclose(x.nanquantile(0.5, 1).numpy(), [1.5, 2.0])
    with pytest.raises(RuntimeError, match=r"range \[0, 1\]"):
        x.quantile(1.5)
    with pytest.raises(RuntimeError, match="either float or double"):
        T([1, 2]).quantile(0.5)


def test_max_and_min():
    x = T([[2.0, 2.0, 1.0], [0.0, nan, nan]])
    values, indices = x.max(1)
    assert indices.tolist() == [0, 1] and values[1].isnan().item()
    assert x[:1].min(1, keepdim=True).indices.tolist() == [[2]]
    assert weft.max(T([1, 2]), T([2.0, 1.0])).tolist() == [2.0, 2.0]
    assert weft.min(T([1, 2]), other=T([2, 1])).tolist() == [1, 1]
    assert T([True, False]).max().item() is True
    assert T([[True, False]]).max(1).values.tolist() == [True]
    assert weft.max(T(1.0), 0) == (1.0, 0)
    assert weft.zeros(0, 3).max(1).values.shape == (0,)
    a = T([2.0, 2.0, 1.0], requires_grad=True)
    a.max().backward()
    assert a.grad.tolist() == [0.5, 0.5, 0]  # of all: shared
    a.grad = None
    a.max(0).values.backward()
    assert a.grad.tolist() == [1, 0, 0]  # along a dim: the first
    assert weft.aminmax(a.detach()) == (1.0, 2.0) and "min=" in repr(weft.aminmax(a))
    with pytest.raises(RuntimeError, match="Specify the reduction dim"):
        weft.zeros(0).max()
    with pytest.raises(IndexError, match="Expected reduction dim 0 to have non-zero size"):
        weft.zeros(0, 3).max(0)


def test_unique():
    assert T(5).unique(return_inverse=True)[1].shape == ()
    values, inverse, counts = T([[3, 1], [3, 2]]).unique(return_inverse=True, return_counts=True)
    assert (values.tolist(), counts.tolist()) == ([1, 2, 3], [1, 1, 2])
    assert inverse.tolist() == [[2, 0], [2, 1]]
    rows, back = weft.unique(T([[1, 2], [1, 2], [0, 1]]), dim=0, return_inverse=True)
    assert rows.tolist() == [[0, 1], [1, 2]] and back.tolist() == [1, 1, 0]
    assert T([nan, nan, 1.0]).unique().shape == (3,)
    values, counts = weft.unique_consecutive(T([1, 1, 2, 1]), return_counts=True)
    assert values.tolist() == [1, 2, 1] and counts.tolist() == [2, 1, 1]
    rows = weft.unique_consecutive(T([[1, 1, 2], [0, 0, 0]]), dim=1)
    assert rows.tolist() == [[1, 2], [0, 0]]
    assert weft.unique_consecutive(weft.zeros(0)).shape == (0,)


def test_searchsorted_and_bucketize(rng):
    edges = np.sort(rng.normal(size=(3, 6)), 1)
    v = np.concatenate([rng.normal(size=(3, 4)), edges[:, :2]], 1)
    for side in ("left", "right"):
        got = weft.searchsorted(weft.from_numpy(edges), weft.from_numpy(v), side=side)
        wanted = [np.searchsorted(e, x, side) for e, x in zip(edges, v)]
        np.testing.assert_array_equal(got.numpy(), wanted)
    assert weft.searchsorted(T([1.0, 3.0, 5.0]), 3.0, right=True).item() == 2
    got = weft.bucketize(T([[3.0, 6.0]]), T([1.0, 3.0, 5.0]), right=True, out_int32=True)
    assert got.tolist() == [[2, 3]] and got.dtype is weft.int32
    order = T([2, 0, 1])
    assert weft.searchsorted(T([3, 5, 1]), T([4]), sorter=order).tolist() == [2]
    with pytest.raises(RuntimeError, match="same dtype"):
        weft.searchsorted(T([1.0]), T([1]))
    with pytest.raises(RuntimeError, match="must match"):
        weft.searchsorted(weft.zeros(2, 3), weft.zeros(3, 1))


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("shape", "k"), [((3, 40), 3), ((5, 1000), 64), ((2, 2, 77), 19), ((1, 65), 1), ((4, 300), 17)]
)
def test_topk_of_rows(shape, k, largest):
    """The kernel of a few places: ties, zeros of both signs, NaN, infinities, sorted rows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    odd = x.copy()
    odd[..., ::7], odd[..., 1::9], odd[..., 2::9] = np.nan, -np.inf, np.inf
    odd[..., 3::5], odd[..., 4::5] = -0.0, 0.0
    op = TopKIndex(k, len(shape) - 1, largest)
    for a in (x, np.round(x), odd, np.sort(x), -np.sort(x), np.full_like(x, np.nan)):
        want = op.oracle(a)
        assert (op.host(a) == want).all()
        values, places = weft.topk(weft.tensor(a), k, largest=largest)
        assert (places.numpy() == want).all()
        assert values.numpy().tobytes() == np.take_along_axis(a, want, -1).tobytes()


def test_a_place_of_equal_ones_is_the_first_whatever_finds_it():
    """Short rows are counted natively, others parted by NumPy; the mode's is the last."""
    rng = np.random.default_rng(7)
    for n in (1, 5, 16, 17, 128, 129):
        a = rng.integers(-3, 3, (4, n)).astype(np.float32) * 0.5
        a[1, rng.integers(n)] = nan
        a[2] = nan
        a[0, 0] = -0.0
        ordered, real = np.sort(a, 1), np.maximum((~np.isnan(a)).sum(1) - 1, 0) // 2
        middle = np.where(np.isnan(a).any(1), nan, ordered[:, (n - 1) // 2])
        k = (n + 2) // 3
        unique = [np.unique(row, return_counts=True) for row in a]
        most = np.array([values[counts.argmax()] for values, counts in unique])
        wanted = {
            "kthvalue": ordered[:, k - 1], "median": middle, "mode": most,
            "nanmedian": ordered[np.arange(4), real],
        }  # fmt: skip
        for x, dim in ((weft.from_numpy(a), 1), (weft.from_numpy(a).t().contiguous(), 0)):
            for name, value in wanted.items():
                same = (a == value[:, None]) | (np.isnan(a) & np.isnan(value)[:, None])
                at = n - 1 - same[:, ::-1].argmax(1) if name == "mode" else same.argmax(1)
                args = (k, dim) if name == "kthvalue" else (dim,)
                for _ in range(120 if n == 17 else 1):  # a native form learns
                    values, indices = getattr(x, name)(*args)
                    np.testing.assert_array_equal(values.numpy(), value)
                    np.testing.assert_array_equal(indices.numpy(), at)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8"])
def test_searchsorted_beside_numpy(dtype):
    rng = np.random.default_rng(3)
    for n in (0, 1, 2, 7, 8, 9, 33):
        edges = np.sort((rng.random((3, n)) * 9).astype(dtype), 1)
        values = (rng.random((3, 5)) * 11).astype(dtype)
        if dtype.startswith("float"):
            values[0, :3] = [np.nan, np.inf, -np.inf]
            edges[:2, n // 2 :] = np.nan
        for side in ("left", "right"):
            rows = [np.searchsorted(e, v, side) for e, v in zip(edges, values, strict=True)]
            y = weft.searchsorted(weft.from_numpy(edges), weft.from_numpy(values), side=side)
            np.testing.assert_array_equal(y.numpy(), rows)
            one = np.ascontiguousarray(edges[0])
            y = weft.searchsorted(weft.from_numpy(one), weft.from_numpy(values).t(), side=side)
            np.testing.assert_array_equal(y.numpy(), np.searchsorted(one, values.T, side))


def rows_of_floats(kind, n, rng):
    """Three rows of n: apart, few values, NaN among them, nothing else, the edges, any bits."""
    a = rng.standard_normal((3, n)).astype(np.float32)
    few = np.array([0.0, -0.0, inf, -inf, 1e-40, -1e-40, 3e38], np.float32)
    return {
        "apart": a, "few": np.round(a * 3), "nan": np.where(a > 0.5, np.float32(nan), a),
        "all nan": a * np.float32(nan), "edges": rng.choice(few, a.shape),
        "bits": rng.integers(0, 2**32, a.shape, dtype=np.uint32).view(np.float32),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("n", [1, 31, 128, 129, 144, 1003, 4096])
@pytest.mark.parametrize("kind", ["apart", "few", "nan", "all nan", "edges", "bits"])
@pytest.mark.parametrize("dim", [0, 1])
def test_one_place_of_long_rows(n, kind, dim, rng):
    a = rows_of_floats(kind, n, rng)
    x = T(a if dim else np.ascontiguousarray(a.T))
    ordered, numbers = np.sort(a, 1), (a == a).sum(1)

    def holds(got, rank):
        value = ordered[range(3), rank][:, None]
        first = ((a == value) | ((a != a) & (value != value))).argmax(1)
        np.testing.assert_array_equal(got.indices.numpy(), first)
        np.testing.assert_array_equal(got.values.numpy(), a[range(3), first])

    for k in {1, n // 3 + 1, n}:
        holds(x.kthvalue(k, dim), np.full(3, k - 1))
    holds(x.nanmedian(dim), np.maximum((numbers - 1) // 2, 0))
    holds(x.median(dim), np.where(numbers < n, n - 1, (n - 1) // 2))
    of_all = nan if numbers.sum() < 3 * n else np.sort(a.reshape(-1))[(3 * n - 1) // 2]
    np.testing.assert_array_equal(x.median().numpy(), np.float32(of_all))

"""Elements in other places, against NumPy; facts of torch 2.13 as literals."""

import itertools

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from tests.ops.rules import check, gradients
from weft.core.op import REGISTRY
from weft.ops import shape

T = weft.tensor
OPS = [k for k in REGISTRY.values() if k.__module__ == shape.__name__]
A = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize("kind", OPS, ids=lambda k: k.name)
def test_every_rule(kind):
    check(kind)


def x():
    return weft.from_numpy(A.copy())


def same(t, wanted):
    assert t.shape == np.shape(wanted)
    np.testing.assert_array_equal(t.numpy(), wanted)


def test_flip_roll_rot90():
    same(x().flip(0, -1), A[::-1, :, ::-1])
    same(weft.flip(x(), (1,)), A[:, ::-1])
    same(x().flip(()), A)
    assert x().flip(0).is_contiguous() and not x().flip(0)._is_view()
    same(x().fliplr(), A[:, ::-1])
    same(x().flipud(), A[::-1])
    same(x().roll(5), np.roll(A, 5))
    same(x().roll((1, -2), (0, 2)), np.roll(A, (1, -2), (0, 2)))
    same(weft.zeros(0).roll(1), np.zeros(0))
    for k, dims in itertools.product(range(-1, 5), [(0, 1), (2, 0)]):
        same(weft.rot90(x(), k, dims), np.rot90(A, k, dims))
    gradients(lambda t: t.roll(1, 1).rot90(), [A[0]])
    with pytest.raises(RuntimeError, match="multiple times"):
        x().flip(0, 0)
    with pytest.raises(IndexError, match="Dimension out of range"):
        x().flip(3)
    with pytest.raises(RuntimeError, match="must align"):
        x().roll((1, 1))


def test_repeat_and_tile():
    same(x().repeat(2, 1, 3), np.tile(A, (2, 1, 3)))
    same(T([1, 2]).repeat(2, 2), np.tile([1, 2], (2, 2)))
    same(T([1, 2]).repeat(0), np.zeros(0))
    same(x().tile(2), np.tile(A, 2))
    y = x()
    y.repeat(1, 1, 1).zero_()  # a copy, also where nothing is repeated
    same(y, A)
    same(weft.repeat_interleave(T([[1, 2], [3, 4]]), 2), [1, 1, 2, 2, 3, 3, 4, 4])
    same(T([[1, 2], [3, 4]]).repeat_interleave(T([1, 2]), dim=0), [[1, 2], [3, 4], [3, 4]])
    same(x().repeat_interleave(3, 1), np.repeat(A, 3, 1))
    same(weft.repeat_interleave(T([1, 2])), [0, 1, 1])
    gradients(lambda t: t.repeat(2, 3), [np.ones((2, 2))], order=1)
    with pytest.raises(RuntimeError, match="can not be smaller"):
        T([[1, 2]]).repeat(2)
    with pytest.raises(RuntimeError, match="same size as input along dim"):
        T([1, 2]).repeat_interleave(T([1, 2, 3]))


@pytest.mark.parametrize("k", [-4, -1, 0, 1, 2, 9])
def test_triangles_and_diagonals(k):
    same(x().tril(k), np.tril(A, k))
    same(x().triu(k), np.triu(A, k))
    same(x().diagonal(k, 1, 2), np.diagonal(A, k, 1, 2))
    same(x().diagonal(k, -1, 0), np.diagonal(A, k, -1, 0))
    same(weft.diag(T([1.0, 2.0]), k), np.diag([1.0, 2.0], k))
    same(weft.diag(x()[0], k), np.diag(A[0], k))
    same(weft.tril_indices(3, 4, k), np.tril_indices(3, k, 4))
    same(weft.triu_indices(3, 4, k), np.triu_indices(3, k, 4))


def test_diagonals_are_views_and_embed():
    y = weft.zeros(3, 3)
    y.diagonal(1)[:] = T([5.0, 6.0])
    y.diagonal().fill_(1.0)
    assert y.tolist() == [[1, 5, 0], [0, 1, 6], [0, 0, 1]]
    assert weft.trace(y).item() == 3
    y.diag().zero_()
    assert weft.trace(y).item() == 3
    assert weft.diag_embed(T([[1, 2]]), 1).tolist() == [[[0, 1, 0], [0, 0, 2], [0, 0, 0]]]
    assert weft.diag_embed(T([[1, 2], [3, 4]]), 0, 0, 2).shape == (2, 2, 2)
    inf = T([[1.0, float("inf")], [float("nan"), 1.0]])
    assert inf.tril().triu().tolist() == [[1, 0], [0, 1]]
    assert T([[1, 2], [3, 4]]).tril().dtype is weft.int64
    a = weft.ones(3, 3, requires_grad=True)
    b = a * 1
    b.diagonal().mul_(2)
    b.sum().backward()
    assert a.grad.tolist() == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]
    with pytest.raises(RuntimeError, match="must have at least 2 dimensions"):
        T([1, 2]).tril()


def test_windows():
    assert weft.arange(7).unfold(0, 3, 2).tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    w = x().unfold(1, 2, 1)
    assert w.shape == (2, 2, 4, 2) and w._is_view()
    same(w, np.lib.stride_tricks.sliding_window_view(A, 2, 1))
    assert T(5).unfold(0, 1, 1).tolist() == [5]
    with pytest.raises(RuntimeError, match="at dimension 0 is 2 but size is 3"):
        weft.arange(2).unfold(0, 3, 1)


def test_grids_and_broadcasts():
    for indexing in ("ij", "xy"):
        ours = weft.meshgrid(T([1, 2]), T([3, 4, 5]), T([6]), indexing=indexing)
        for g, w in zip(ours, np.meshgrid([1, 2], [3, 4, 5], [6], indexing=indexing)):
            same(g, w)
    a, b = weft.broadcast_tensors(T([1]), T([[1], [2]]))
    assert a.shape == b.shape == (2, 1) and a._is_view()
    assert weft.broadcast_to(T([1]), (2, 3)).shape == (2, 3)
    with pytest.raises(RuntimeError, match="must match"):
        weft.broadcast_tensors(weft.zeros(2), weft.zeros(3))


def test_stacks():
    one, two = T([1, 2]), T([[3], [4]])
    same(weft.vstack([one, one]), [[1, 2], [1, 2]])
    same(weft.hstack([one, one]), [1, 2, 1, 2])
    same(weft.hstack([T(1), T(2)]), [1, 2])
    same(weft.dstack([one, one]), [[[1, 1], [2, 2]]])
    same(weft.column_stack([one, two]), [[1, 3], [2, 4]])
    same(weft.block_diag(T([[1, 2]]), T(3)), [[1, 2, 0], [0, 0, 3]])
    assert [t.shape for t in weft.atleast_3d(one, two, T(1))] == [(1, 2, 1), (2, 1, 1), (1, 1, 1)]
    assert weft.atleast_2d(one).shape == (1, 2) and weft.atleast_1d(T(1)).shape == (1,)
    same(weft.cartesian_prod(T([1, 2]), T([3, 4])), [[1, 3], [1, 4], [2, 3], [2, 4]])
    same(weft.combinations(T([1, 2, 3])), [[1, 2], [1, 3], [2, 3]])
    same(weft.combinations(T([1, 2]), 2, True), [[1, 1], [1, 2], [2, 2]])


def test_splits():
    v = weft.arange(7)
    assert [p.tolist() for p in v.tensor_split(3)] == [[0, 1, 2], [3, 4], [5, 6]]
    with pytest.raises(MemoryError, match="2147483648"):
        v.tensor_split(2**31)
    assert [p.tolist() for p in v.tensor_split((1, -3))] == [[0], [1, 2, 3], [4, 5, 6]]
    assert [p.tolist() for p in v.tensor_split((3, 1))] == [[0, 1, 2], [], [1, 2, 3, 4, 5, 6]]
    for ours, theirs in [(weft.hsplit, np.hsplit), (weft.dsplit, np.dsplit)]:
        for cut in (1, [1, 2]):
            for p, w in zip(ours(x(), cut), theirs(A, cut)):
                same(p, w)
    assert weft.vsplit(x(), 2)[1]._is_view()
    with pytest.raises(RuntimeError, match="not divisible"):
        weft.hsplit(weft.arange(3), 2)
    assert x().swapaxes(0, 2).shape == x().moveaxis(0, 2).swapdims(0, 1).shape == (4, 3, 2)
    assert x().ravel()._is_view() and x().adjoint().shape == (2, 4, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: weft.combinations(weft.arange(60), 20),
        lambda x: weft.linalg.vander(x, N=2**50),
        lambda x: F.conv_transpose1d(x[None], x[None, None], stride=2**48),
    ],
)
def test_what_no_memory_holds_is_said_before_it_is_worked_on(call):
    with pytest.raises(MemoryError):
        call(weft.ones(3))


def test_numbers_of_tensors_count_and_are_read_anew():
    """torch takes a tensor of one whole number for a size or a dim."""
    x, n = weft.arange(6.0).reshape(1, 6), weft.tensor(2)
    for want in (2, 3):
        n.fill_(want)
        assert [p.shape[1] for p in x.split(n, 1)] == [want] * (6 // want)
        assert len(x.chunk(n, 1)) == want
        assert x.narrow(1, n, 2).tolist() == [[want, want + 1]]
        assert weft.linspace(0, 1, n).shape == (want,)
    assert x.squeeze(n - 3).shape == (6,) and weft.cat((x, x), n - 3).shape == (2, 6)
    with pytest.raises(TypeError):
        weft.cat((x, x), True)
    assert weft.cat((x, x), 1).shape == (1, 12)  # the wrong one before left no trace
    assert weft.tril_indices(3, 3, dtype=None).dtype is weft.int64

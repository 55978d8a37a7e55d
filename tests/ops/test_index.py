"""Index, gather, scatter, embedding against NumPy; errors as torch words them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft
from tests.ops.rules import check, gradients
from weft.ops import gather, index
from weft.ops.index import embedding

OPS = [index.Index, index.IndexBack, index.IndexPut, index.Embedding, index.EmbeddingBack,
       gather.Gather, gather.GatherBack, gather.Scatter, gather.ScatterReduce]  # fmt: skip


@pytest.mark.parametrize("kind", OPS, ids=lambda k: k.name)
def test_every_rule(kind):
    check(kind)


def x_of(*shape):
    return weft.arange(float(np.prod(shape))).reshape(shape)


def test_gather_reads_along_a_dim_of_a_transposed_tensor():
    a = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    i = np.array([[0, 2], [1, 1], [2, 0], [0, 0]])
    got = weft.gather(weft.from_numpy(a).t(), 1, weft.from_numpy(i))
    np.testing.assert_array_equal(got.numpy(), np.take_along_axis(a.T, i, 1))
    assert weft.gather(weft.tensor(5.0), 0, weft.tensor(0)).shape == ()
    assert weft.gather(x_of(3, 4), 0, weft.zeros(0, 4, dtype=weft.int64)).shape == (0, 4)


def test_gather_takes_int32_and_bfloat16():
    x = x_of(2, 3).to(weft.bfloat16)
    got = x.gather(1, weft.tensor([[2], [0]], dtype=weft.int32))
    assert got.dtype is weft.bfloat16 and got.tolist() == [[2.0], [3.0]]


T, ONE, ZERO, RUN, IND = weft.tensor, weft.ones, weft.zeros, RuntimeError, IndexError


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: x.gather(0, T([[[5]]])), RUN, "index 5 is out of bounds.*0 with size 2"),
        (lambda x: x.gather(0, T([[[-1]]])), RUN, "index -1 is out of bounds"),
        (lambda x: x.gather(0, T([0])), RUN, "same number of dimensions"),
        (lambda x: x.gather(2, ZERO(3, 1, 1).long()), RUN, "not match at dimension 0"),
        (lambda x: x.gather(0, ZERO(1, 1, 1)), RUN, "Expected dtype int32/int64"),
        (lambda x: x.gather(-4, ZERO(1, 1, 1).long()), IND, "Dimension out of range"),
        (lambda x: x.scatter(0, T([[[5]]]), 1.0), RUN, "index 5 is out of bounds"),
        (lambda x: x.scatter(0, T([[[0, 1]]]), ONE(1, 1, 1)), RUN, "no larger than self"),
        (lambda x: x.scatter_add(0, T([[[0]]]), ONE(1, 1, 1).double()), RUN, "equal to src.dtype"),
        (lambda x: x.index_select(0, T([5])), IND, "out of range in self"),
        (lambda x: x.index_select(0, T([-1])), IND, "out of range in self"),
        (lambda x: x.index_select(0, T([[0]])), IND, "supposed to be a vector"),
        (lambda x: x.index_add(0, T([0]), ONE(1, 3, 3)), RUN, "source tensor shape"),
        (lambda x: x.index_add(0, T([0]), ONE(2, 3, 4)), RUN, "Number of indices"),
        (lambda x: x.index_fill(0, T([5]), 1.0), IND, "index 5 is out of bounds.*0 with size 2"),
        (lambda x: x.take(T([30])), IND, "30"),
        (lambda x: embedding(T([7]), ONE(3, 2)), IND, "out of range in self"),
        (lambda x: embedding(T([-1]), ONE(3, 2)), IND, "out of range in self"),
    ],
)  # fmt: skip
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(x_of(2, 3, 4))


def test_scatter_keeps_the_last_of_several_writes_and_adds_in_order():
    base = weft.zeros(3)
    i = weft.tensor([1, 1, 0, 1])
    v = weft.tensor([1e8, 1.0, 5.0, -1e8])
    assert base.scatter(0, i, v).tolist() == [5.0, -1e8, 0.0]
    assert base.scatter_add(0, i, v).tolist() == [5.0, 0.0, 0.0]  # (1e8 + 1) - 1e8 in float32
    assert base.scatter(0, i[:2], 3.0).tolist() == [0.0, 3.0, 0.0]
    assert base.add(1).scatter(0, i, v, reduce="multiply")[0].item() == 5.0
    assert base.tolist() == [0.0, 0.0, 0.0]
    base.scatter_(0, weft.tensor([2]), 4.0)
    assert base.tolist() == [0.0, 0.0, 4.0]


def test_scatter_reads_only_the_part_of_src_that_the_index_covers():
    src = x_of(3, 3).requires_grad_()
    y = weft.zeros(2, 3).scatter_add(0, weft.tensor([[1, 0]]), src)
    assert y.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    (y * 3).sum().backward()
    assert src.grad.tolist() == [[3.0, 3.0, 0.0], [0.0] * 3, [0.0] * 3]


# torch 2.13: torch.tensor([1., 2., 3.]).scatter_reduce(0, [0, 1, 0, 1], [4., 5., 6., 7.], ...)
REDUCED = {
    ("sum", True): [11.0, 14.0, 3.0], ("sum", False): [10.0, 12.0, 3.0],
    ("prod", True): [24.0, 70.0, 3.0], ("prod", False): [24.0, 35.0, 3.0],
    ("mean", True): [11 / 3, 14 / 3, 3.0], ("mean", False): [5.0, 6.0, 3.0],
    ("amax", True): [6.0, 7.0, 3.0], ("amax", False): [6.0, 7.0, 3.0],
    ("amin", True): [1.0, 2.0, 3.0], ("amin", False): [4.0, 5.0, 3.0],
}  # fmt: skip


@pytest.mark.parametrize(("reduce", "include"), REDUCED)
def test_scatter_reduce(reduce, include):
    x, src = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0, 7.0])
    i = weft.tensor([0, 1, 0, 1])

    def run(a, b):
        return a.scatter_reduce(0, i, b, reduce, include_self=include)

    got = run(weft.from_numpy(x), weft.from_numpy(src))
    np.testing.assert_allclose(got.numpy(), REDUCED[reduce, include], 1e-15)
    gradients(run, [x, src])


def test_product_gradient_where_sources_are_zero():
    x = np.array([2.0, 3.0, 0.0])
    src = np.array([0.0, 5.0, 0.0, 0.0, 4.0])
    i = weft.tensor([0, 0, 1, 1, 2])
    gradients(lambda a, b: a.scatter_reduce(0, i, b, "prod"), [x, src], order=1)


def test_scatter_reduce_of_integers():
    x = weft.tensor([10, 10])
    i = weft.tensor([0, 0, 0])
    src = weft.tensor([1, 2, -20])
    assert x.scatter_reduce(0, i, src, "mean").tolist() == [-2, 10]  # floor(-7 / 4), torch too
    assert x.scatter_reduce(0, i, src, "amax", include_self=False).tolist() == [2, 10]


def test_index_family_against_numpy():
    a = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    x, i = weft.from_numpy(a.copy()), weft.tensor([2, 0, 2])
    np.testing.assert_array_equal(x.index_select(1, i).numpy(), a[:, [2, 0, 2]])
    src = weft.ones(2, 3, 4)
    wanted = a.copy()
    np.add.at(wanted, (slice(None), [2, 0, 2]), 2.0)
    np.testing.assert_array_equal(x.index_add(1, i, src, alpha=2).numpy(), wanted)
    wanted = a.copy()
    wanted[:, [2, 0]] = 1
    np.testing.assert_array_equal(x.index_copy(1, i[:2], src[:, :2]).numpy(), wanted)
    np.testing.assert_array_equal(x.index_fill(1, weft.tensor([-1, 0]), 1).numpy(), wanted)
    np.testing.assert_array_equal(x.take(weft.tensor([[0, -1]])).numpy(), [[0.0, 23.0]])
    np.testing.assert_array_equal(x.numpy(), a)
    order = np.argsort(-a, 2)
    got = weft.take_along_dim(x, weft.from_numpy(order), 2)
    np.testing.assert_array_equal(got.numpy(), np.take_along_axis(a, order, 2))
    got = weft.take_along_dim(x, weft.tensor([[[1]]]), 0)
    np.testing.assert_array_equal(got.numpy(), a[1:2])
    assert weft.take_along_dim(x, weft.tensor([1, 5])).tolist() == [1.0, 5.0]


def test_embedding_gradient_skips_the_padding_row_and_counts():
    w = np.arange(8.0).reshape(4, 2)
    i = weft.tensor([[1, 3], [3, 3]])
    weight = weft.from_numpy(w.copy()).requires_grad_()
    embedding(i, weight, padding_idx=-3).sum().backward()
    assert weight.grad.tolist() == [[0, 0], [0, 0], [0, 0], [3, 3]]
    weight.grad = None
    embedding(i, weight, scale_grad_by_freq=True).sum().backward()
    assert weight.grad.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]


def test_embedding_max_norm_shortens_the_rows_it_reads_in_place():
    weight = weft.tensor([[3.0, 4.0], [6.0, 8.0], [0.1, 0.1]])
    y = embedding(weft.tensor([1, 2]), weight, max_norm=1.0)
    np.testing.assert_allclose(weight.numpy(), [[3, 4], [0.6, 0.8], [0.1, 0.1]], 1e-5)
    np.testing.assert_allclose(y.numpy(), weight.numpy()[1:], 1e-6)


@given(st.data())
def test_gather_and_its_adjoint_agree(data):
    rank = data.draw(st.integers(1, 3))
    shape = [data.draw(st.integers(1, 4)) for _ in range(rank)]
    dim = data.draw(st.integers(0, rank - 1))
    places = [data.draw(st.integers(0, n)) for n in shape]
    places[dim] = data.draw(st.integers(0, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.normal(size=shape)
    i = rng.integers(0, shape[dim], places)
    g = rng.normal(size=places)
    y = weft.gather(weft.from_numpy(x), dim, weft.from_numpy(i)).numpy()
    back = weft.zeros(shape, dtype=weft.float64)
    back = back.scatter_add(dim, weft.from_numpy(i), weft.from_numpy(g)).numpy()
    assert y.shape == tuple(places)
    np.testing.assert_allclose((y * g).sum(), (back * x).sum(), 1e-9, 1e-9)


WHERE = {  # a tensor of shape (4, 3) in a memory of (8, 6)
    "whole": lambda m: m.view(-1)[:12].view(4, 3),
    "part": lambda m: m[1:5, 2:5],
    "across": lambda m: m.t()[1:5, :6:2],
}


@pytest.mark.parametrize(
    "name", ["index_add", "index_copy", "index_fill", "scatter", "scatter_add"]
)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("source", ["apart", "its own", "tracked", "none"])
def test_writes_in_place_are_those_to_a_copy(name, where, source):
    """`f_` gives what `f` gives, writes nothing beside it, and is on the tape."""
    leaf = weft.arange(48.0).reshape(8, 6).requires_grad_(source == "tracked")
    memory = leaf * 1
    t, old = WHERE[where](memory), memory.detach().clone()
    n = 0 if source == "none" else 2
    places = weft.tensor([1, 3])[:n]
    values = t[:n] if source == "its own" else weft.arange(6.0).reshape(2, 3)[:n] + 0.5
    args = (0, places, 2.5 if name == "index_fill" else values)
    if name.startswith("scatter"):
        args = (0, places[:, None].expand(n, 3), values)
    WHERE[where](old).copy_(getattr(t.detach().clone(), name)(*args))
    version = t._version
    assert getattr(t, name + "_")(*args) is t and t._version > version
    assert weft.equal(memory.detach(), old)
    if source == "tracked":
        memory.sum().backward()
        assert leaf.grad is not None and leaf.grad.sum() == (48 if "add" in name else 42)


def test_a_bad_place_is_named_also_in_place():
    x = weft.zeros(3, 2)
    with pytest.raises(IndexError):
        x.index_add_(0, weft.tensor([1, 3]), weft.ones(2, 2))
    with pytest.raises(RuntimeError, match="index 5 is out of bounds"):
        x.scatter_(0, weft.tensor([[0], [5]]).expand(2, 2), weft.ones(2, 2))
    assert not x.any()  # nothing was written
    y = weft.tensor(1.0)
    assert y.index_fill_(0, weft.tensor(0), 4.0) is y and y.item() == 4.0

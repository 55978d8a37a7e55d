"""Sparse tensors against dense NumPy: values, gradients, printing, errors, sparse gradients."""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

import weft
from weft.autograd import gradcheck
from weft.compat.torch_.legacy import sparse_types as types

RNG = np.random.default_rng(0)


def some(shape=(5, 7), n=12, seed=0, dtype=np.float32, dense=()):
    """Places (named twice among them) and values, and the dense array that they mean."""
    rng = np.random.default_rng(seed)
    i = np.stack([rng.integers(0, m, n) for m in shape]) if n else np.empty((len(shape), 0), int)
    v = rng.normal(size=(n, *dense)).astype(dtype)
    full = np.zeros((*shape, *dense), np.float64)
    np.add.at(full, tuple(i), v.astype(np.float64))
    return weft.from_numpy(i), weft.from_numpy(v), full


def sparse(shape=(5, 7), n=12, seed=0, dtype=np.float32, dense=()):
    i, v, full = some(shape, n, seed, dtype, dense)
    return weft.sparse_coo_tensor(i, v, (*shape, *dense)), full


def near(got, wanted):
    np.testing.assert_allclose(
        got.to_dense().detach().numpy(), wanted, rtol=2e-5, atol=2e-5, strict=False
    )


CASES = [
    {}, {"n": 0}, {"n": 1}, {"shape": (1, 1), "n": 3}, {"shape": (9,), "n": 20},
    {"shape": (3, 4, 2), "n": 15}, {"shape": (4, 3), "n": 6, "dense": (2,)},
    {"shape": (2, 3), "n": 4, "dtype": np.float64},
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_coo_tensor_is_the_sum_of_its_places(case):
    s, full = sparse(**case)
    near(s, full)
    once = s.coalesce()
    near(once, full)
    rank = len(case.get("shape", (5, 7)))
    assert once.is_coalesced() and once.coalesce() is once and s.shape == full.shape
    assert once.sparse_dim() == rank and once.dense_dim() == full.ndim - rank
    keys = np.ravel_multi_index(tuple(once.indices().numpy()), full.shape[:rank])
    assert (np.diff(keys) > 0).all() and once._nnz() == len(set(keys.tolist()))
    assert s.is_sparse and s.layout is weft.sparse_coo and not weft.ones(1).is_sparse
    assert s.numel() == full.size and s.dim() == full.ndim and s.dtype is s._values().dtype


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_dense_tensor_comes_back(case):
    _, full = sparse(**case)
    d = weft.from_numpy(full.astype(np.float32))
    s = d.to_sparse()
    assert s.is_coalesced() and s._nnz() == np.count_nonzero(d.numpy())
    assert weft.equal(s.to_dense(), d) and weft.equal(d.to_sparse(1).to_dense(), d)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (2, 0, 3)])
def test_a_tensor_of_nothing_comes_back(shape):
    for rank in range(len(shape) + 1):
        assert weft.zeros(shape).to_sparse(rank).to_dense().shape == shape


def test_elementwise_rules_are_those_of_the_dense_tensors():
    a, da = sparse()
    b, db = sparse(seed=1)
    d = RNG.normal(size=(5, 7)).astype(np.float32)
    near(a + b, da + db)
    near(a - b, da - db)
    near(weft.add(a, b, alpha=3), da + 3 * db)
    near(a * 2, da * 2)
    near(2 * a, da * 2)
    near(a / 4, da / 4)
    near(-a, -da)
    near(a * b, da * db)
    near(a * weft.from_numpy(d), da * d)
    near(weft.from_numpy(d) + a, d + da)
    near(weft.from_numpy(d) - a, d - da)
    near(a.pow(2), da**2)
    near(a.abs(), np.abs(da))
    near(a.coalesce().sin(), np.sin(da))
    near(a.t(), da.T)
    near(a.transpose(0, 1), da.T)
    near(weft.cat([a, b]), np.concatenate([da, db]))
    near(weft.cat([a, b], 1), np.concatenate([da, db], 1))
    near(weft.stack([a, b]), np.stack([da, db]))
    near(a.unsqueeze(1), da[:, None])
    near(a[2], da[2])
    near(a.index_select(1, weft.tensor([3, 0, 3])), da[:, [3, 0, 3]])
    near(weft.from_numpy(d).sparse_mask(a.coalesce()), np.where(da != 0, d, 0))
    assert np.isclose(a.sum().item(), da.sum(), atol=1e-5)
    near(weft.sparse.sum(a, 0), da.sum(0))
    near(weft.sparse.sum(a, dim=(1,)), da.sum(1))
    near(weft.sparse.sum(a, [0, 1]), da.sum())
    assert np.isclose(a.norm().item(), np.linalg.norm(da), rtol=1e-5)
    near(a.double(), da)
    assert a.double().dtype is weft.float64 and a.to(weft.float16).dtype is weft.float16
    c = a.clone()
    c.mul_(2)
    near(c, 2 * da)
    near(a, da)


@pytest.mark.parametrize("case", [{}, {"n": 0}, {"shape": (1, 1), "n": 3}, {"shape": (4, 6)}])
def test_products(case):
    s, full = sparse(**case)
    rows, columns = full.shape
    d = RNG.normal(size=(columns, 3)).astype(np.float32)
    e = RNG.normal(size=(3, rows)).astype(np.float32)
    t, u = weft.from_numpy(d), weft.from_numpy(e)
    for f in (weft.mm, weft.matmul, weft.spmm, weft.sparse.mm):
        near(f(s, t), full @ d)
    near(s @ t, full @ d)
    near(s.mm(t), full @ d)
    near(s @ t[:, 0], full @ d[:, 0])
    near(u @ s, e @ full)
    near(u[0] @ s, e[0] @ full)
    near(s @ s.t(), full @ full.T)
    near(weft.sparse.mm(s, s.t()), full @ full.T)
    b = RNG.normal(size=(rows, 3)).astype(np.float32)
    wanted = 0.5 * b + 2 * (full @ d)
    near(weft.addmm(weft.from_numpy(b), s, t, beta=0.5, alpha=2), wanted)
    near(weft.sparse.addmm(weft.from_numpy(b), s, t, beta=0.5, alpha=2), wanted)
    near(weft.smm(s, t), full @ d)
    by_row = s.to_sparse_csr()
    near(by_row @ t, full @ d)
    assert weft.equal(by_row @ t, s.coalesce() @ t)


def test_the_product_does_not_depend_on_the_number_of_threads():
    s, _ = sparse((300, 200), 5000)
    d = weft.randn(200, 64)
    threads = weft.get_num_threads()
    try:
        weft.set_num_threads(1)
        one = s @ d
        weft.set_num_threads(2)
        assert weft.equal(s @ d, one)
    finally:
        weft.set_num_threads(threads)


def test_row_compressed_tensors():
    s = weft.sparse_csr_tensor([0, 1, 1, 3], [1, 0, 2], [2.0, 1.0, 3.0], (3, 4))
    wanted = [[0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 3, 0]]
    assert s.to_dense().tolist() == wanted and s.layout is weft.sparse_csr
    assert s.is_sparse_csr and not s.is_sparse
    assert s.crow_indices().tolist() == [0, 1, 1, 3] and s.col_indices().tolist() == [1, 0, 2]
    assert s.to_sparse_coo().indices().tolist() == [[0, 2, 2], [1, 0, 2]]
    assert (s * 2).values().tolist() == [4.0, 2.0, 6.0] and (s + s).is_sparse_csr
    assert weft.tensor(wanted).to_sparse_csr().crow_indices().tolist() == [0, 1, 1, 3]
    sampled = weft.sparse.sampled_addmm(s, weft.ones(3, 5), weft.ones(5, 4))
    assert sampled.values().tolist() == [7.0, 6.0, 8.0]


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_counts_the_places_that_are_kept(dim):
    s, _ = sparse((4, 5), 14)
    s = s.coalesce()
    d = np.full((4, 5), -np.inf)
    d[tuple(s.indices().numpy())] = s.values().numpy()
    with np.errstate(all="ignore"):
        e = np.exp(d - d.max(dim, keepdims=True))
        wanted = np.nan_to_num(e / e.sum(dim, keepdims=True))
    near(weft.sparse.softmax(s, dim), wanted)
    logs = weft.sparse.log_softmax(s, dim)
    np.testing.assert_allclose(
        logs.values().exp().numpy(), weft.sparse.softmax(s, dim).values().numpy(), rtol=1e-5
    )


def test_diagonals():
    s = weft.sparse.spdiags(weft.arange(9.0).reshape(3, 3), weft.tensor([0, -1, 2]), (3, 3))
    assert s.to_dense().tolist() == [[0.0, 0.0, 8.0], [3.0, 1.0, 0.0], [0.0, 4.0, 2.0]]


GRADIENTS = {
    "mm": lambda i, v, d: weft.sparse.mm(weft.sparse_coo_tensor(i, v, (5, 7)), d),
    "coalesce": lambda i, v, d: weft.sparse_coo_tensor(i, v, (5, 7)).coalesce().values() * d[0, 0],
    "to_dense": lambda i, v, d: weft.sparse_coo_tensor(i, v, (5, 7)).to_dense() @ d,
    "softmax": lambda i, v, d: (
        weft.sparse.softmax(weft.sparse_coo_tensor(i, v, (5, 7)), 1).to_dense() @ d
    ),
    "log_softmax": lambda i, v, d: (
        weft.sparse.log_softmax(weft.sparse_coo_tensor(i, v, (5, 7)), 0).values() * d.sum()
    ),
    "mul": lambda i, v, d: (
        (weft.sparse_coo_tensor(i, v, (5, 7)) * (d @ d.t())[:5, :7]).to_dense().sum(1)
    ),
    "sparse_mm": lambda i, v, d: (
        weft.sparse.mm(
            weft.sparse_coo_tensor(i, v, (5, 7)), weft.sparse_coo_tensor(i, v, (5, 7)).t()
        ).to_dense() * d[0, 0]
    ),
    "sum": lambda i, v, d: (
        weft.sparse.sum(weft.sparse_coo_tensor(i, v, (5, 7)), 0).to_dense() * d[:, 0]
    ),
    "sampled": lambda i, v, d: (
        weft.sparse.sampled_addmm(
            weft.sparse_coo_tensor(i, v, (5, 7)).coalesce().to_sparse_csr(), d[:5], d.t()
        ).values()
    ),
    "index_select": lambda i, v, d: (
        weft.sparse_coo_tensor(i, v, (5, 7)).index_select(0, weft.tensor([1, 1, 4])).to_dense() @ d
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_values_and_of_the_dense_operand(name):
    i, v, _ = some(dtype=np.float64)
    d = weft.randn(7, 3, dtype=weft.float64, requires_grad=True)
    assert gradcheck(lambda v, d: GRADIENTS[name](i, v, d), (v.requires_grad_(), d))


def test_a_sparse_leaf_has_a_sparse_gradient():
    i, v, _ = some()
    s = weft.sparse_coo_tensor(i, v, (5, 7), requires_grad=True)
    assert s.requires_grad and s.is_leaf and s.grad is None and not v.requires_grad
    weft.sparse.mm(s, weft.ones(7, 2)).sum().backward()
    assert s.grad.is_sparse and s.grad._values().tolist() == [2.0] * 12
    from_values = weft.sparse_coo_tensor(i, v.requires_grad_(), (5, 7))
    assert from_values.requires_grad and not from_values.is_leaf
    assert not from_values.detach().requires_grad


def test_printed_as_torch_prints():
    s = weft.sparse_coo_tensor([[0, 1, 1], [2, 0, 2]], [3.0, 4.0, 5.0], (2, 3))
    assert repr(s) == (
        "tensor(indices=tensor([[0, 1, 1],\n"
        "                       [2, 0, 2]]),\n"
        "       values=tensor([3., 4., 5.]),\n"
        "       size=(2, 3), nnz=3, layout=torch.sparse_coo)"
    )
    assert repr(s.to_sparse_csr().double()) == (
        "tensor(crow_indices=tensor([0, 1, 3]),\n"
        "       col_indices=tensor([2, 0, 2]),\n"
        "       values=tensor([3., 4., 5.]), size=(2, 3), nnz=3, dtype=torch.float64,\n"
        "       layout=torch.sparse_csr)"
    )
    assert repr(weft.sparse_coo_tensor((2, 3))) == (
        "tensor(indices=tensor([], size=(2, 0)),\n"
        "       values=tensor([], size=(0,)),\n"
        "       size=(2, 3), nnz=0, layout=torch.sparse_coo)"
    )


MISTAKES = [
    (lambda s: weft.sparse_coo_tensor([[0, 3], [0, 1]], [1.0, 1.0], (2, 2)), RuntimeError,
     "for dim 0, size is 2 but found index 3"),
    (lambda s: weft.sparse_coo_tensor([[0, -1], [0, 1]], [1.0, 1.0], (2, 2)), RuntimeError,
     "found negative index -1 for dim 0"),
    (lambda s: weft.sparse_coo_tensor([[0, 1], [0, 1]], [1.0, 1.0, 1.0], (2, 2)), RuntimeError,
     "must have same nnz, but got nnz from indices: 2"),
    (lambda s: weft.sparse_coo_tensor([[0, 1]], weft.ones(2, 2), (2,)), RuntimeError,
     "len(size) == sparse_dim + dense_dim"),
    (lambda s: weft.sparse_coo_tensor([[1, 0]], weft.ones(2), (2,), is_coalesced=True),
     RuntimeError, "cannot set is_coalesced to true"),
    (lambda s: weft.sparse_csr_tensor([0, 2, 1], [0, 1], [1.0, 1.0], (2, 2)), RuntimeError,
     "crow_indices must rise"),
    (lambda s: weft.sparse_csr_tensor([0, 1, 2], [0, 9], [1.0, 1.0], (2, 2)), RuntimeError,
     "for dim 1, size is 2 but found index 9"),
    (lambda s: s.indices(), RuntimeError, "Cannot get indices on an uncoalesced tensor"),
    (lambda s: s.values(), RuntimeError, "Cannot get values on an uncoalesced tensor"),
    (lambda s: s + 1, RuntimeError, "add(sparse, dense) is not supported"),
    (lambda s: s + weft.ones(5, 7), RuntimeError, "Use add(dense, sparse) instead"),
    (lambda s: s.view(-1), NotImplementedError, "Could not run 'aten::view'"),
    (lambda s: weft.exp(s), NotImplementedError, "Could not run 'aten::exp'"),
    (lambda s: weft.nn.functional.gelu(s), NotImplementedError, "SparseCPU"),
    (lambda s: weft.ones(5, 7) == s, NotImplementedError, "SparseCPU"),
    (lambda s: s.numpy(), TypeError, "can't convert Sparse layout tensor to numpy"),
    (lambda s: s.data_ptr(), RuntimeError, "doesn't have storage"),
    (lambda s: s._a, NotImplementedError, "to_dense() first"),
    (lambda s: weft.mm(s, weft.ones(2, 2)), RuntimeError, "Expected dim 0 size 7, got 2"),
    (lambda s: weft.mm(s, weft.ones(7, 2, dtype=weft.float64)), RuntimeError, "one dtype"),
    (lambda s: s + weft.sparse_coo_tensor((2, 2)), RuntimeError, "expected sizes of 'self'"),
    (lambda s: weft.ones(2).coalesce(), RuntimeError, "but got Strided"),
    (lambda s: weft.ones(2)._nnz(), NotImplementedError, "aten::_nnz"),
    (lambda s: weft.zeros(2, layout=weft.sparse_coo), NotImplementedError, "sparse_coo_tensor"),
    (lambda s: weft.nn.functional.embedding(
        weft.tensor([0]), weft.ones(2, 2, requires_grad=True), sparse=True,
        scale_grad_by_freq=True).sum().backward(), RuntimeError, "scale_grad_by_freq"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_are_told(number):
    wrong, kind, words = MISTAKES[number]
    with pytest.raises(kind) as e:
        wrong(sparse()[0])
    assert words in str(e.value)


def test_copies_and_files():
    s, full = sparse()
    for t in (s, s.coalesce(), s.to_sparse_csr()):
        for again in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
            near(again, full)
            assert again.layout is t.layout and again.is_coalesced() == t.is_coalesced()
        file = io.BytesIO()
        weft.save({"t": t}, file)
        file.seek(0)
        read = weft.load(file)["t"]
        near(read, full)
        assert read.layout is t.layout


def test_torchs_old_types():
    i, v = weft.tensor([[0, 1], [1, 0]]), weft.tensor([1.0, 2.0])
    s = types.FloatTensor(i, v, weft.Size([2, 2]))
    assert s.to_dense().tolist() == [[0.0, 1.0], [2.0, 0.0]] and isinstance(s, types.FloatTensor)
    assert types.LongTensor(i, v.long(), weft.Size([2, 2])).dtype is weft.int64
    assert types.FloatTensor(2, 3)._nnz() == 0
    with pytest.raises(TypeError):
        types.LongTensor(i, v, weft.Size([2, 2]))


# ------------------------------------------------------------------------ sparse gradients


def trained(optimizer, layer, steps=4, **options):
    opt = optimizer(layer.parameters(), **options)
    for t in range(steps):
        opt.zero_grad()
        ((layer(weft.tensor([[0, 2, 2], [1, 5, t]])) - 1.0) ** 2).sum().backward()
        opt.step()
    return layer.weight


@pytest.mark.parametrize("bag", [None, "sum", "mean"])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(weft.optim.SGD, {"lr": 0.1}), (weft.optim.Adagrad, {"lr": 0.1})],
    ids=["SGD", "Adagrad"],
)
def test_a_sparse_gradient_trains_as_a_dense_one(bag, optimizer, options):
    weights = []
    for is_sparse in (False, True):
        weft.manual_seed(0)
        if bag is None:
            layer = weft.nn.Embedding(6, 3, sparse=is_sparse, padding_idx=1)
        else:
            layer = weft.nn.EmbeddingBag(6, 3, sparse=is_sparse, mode=bag)
        weights.append(trained(optimizer, layer, **options))
        assert weights[-1].grad.is_sparse == is_sparse
    np.testing.assert_allclose(weights[1].tolist(), weights[0].tolist(), rtol=1e-5, atol=1e-6)


def test_the_gradient_names_the_rows_that_occur():
    layer = weft.nn.Embedding(100, 2, sparse=True, padding_idx=3)
    layer(weft.tensor([7, 3, 7, 1])).sum().backward()
    g = layer.weight.grad
    assert g._indices().tolist() == [[7, 7, 1]] and not g.is_coalesced()
    assert g.coalesce().values().tolist() == [[1.0, 1.0], [2.0, 2.0]]


def test_sparse_and_dense_gradients_add_up():
    w = weft.arange(6.0).reshape(3, 2).requires_grad_()
    i = weft.tensor([0, 2, 0])
    embedding = weft.nn.functional.embedding
    for _ in range(2):
        embedding(i, w, sparse=True).sum().backward()
    assert w.grad.is_sparse
    assert w.grad.to_dense().tolist() == [[4.0, 4.0], [0.0, 0.0], [2.0, 2.0]]
    (w * 2).sum().backward()
    assert not w.grad.is_sparse
    assert w.grad.tolist() == [[6.0, 6.0], [2.0, 2.0], [4.0, 4.0]]
    embedding(i, w, sparse=True).sum().backward()
    assert w.grad.tolist() == [[8.0, 8.0], [2.0, 2.0], [5.0, 5.0]]
    w.grad = None
    (embedding(i, w, sparse=True).sum() + (w * 3).sum()).backward()
    assert w.grad.tolist() == [[5.0, 5.0], [3.0, 3.0], [4.0, 4.0]]


def test_sparse_adam_is_adam_on_the_rows_of_the_gradient():
    weft.manual_seed(0)
    layer = weft.nn.Embedding(6, 3, sparse=True)
    p = layer.weight.detach().numpy().astype(np.float64).copy()
    m, v = np.zeros_like(p), np.zeros_like(p)
    w = trained(weft.optim.SparseAdam, layer, lr=0.1, betas=(0.8, 0.95))
    for t in range(1, 5):
        x = np.array([0, 2, 2, 1, 5, t - 1])
        g = np.zeros_like(p)
        np.add.at(g, x, 2 * (p[x] - 1))
        rows = np.unique(x)
        m[rows] = 0.8 * m[rows] + 0.2 * g[rows]
        v[rows] = 0.95 * v[rows] + 0.05 * g[rows] ** 2
        step = 0.1 * np.sqrt(1 - 0.95**t) / (1 - 0.8**t)
        p[rows] -= step * m[rows] / (np.sqrt(v[rows]) + 1e-8)
    np.testing.assert_allclose(w.tolist(), p, rtol=1e-5)
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        trained(weft.optim.SparseAdam, weft.nn.Embedding(6, 3))
    with pytest.raises(ValueError, match="Invalid learning rate"):
        weft.optim.SparseAdam(layer.parameters(), lr=-1.0)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop", "Adadelta", "Adamax", "Rprop"])
def test_other_optimizers_refuse_sparse_gradients(name):
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        trained(getattr(weft.optim, name), weft.nn.Embedding(6, 3, sparse=True))


def test_only_the_rows_of_the_gradient_are_written():
    w = weft.zeros(4, 2)
    w.add_(weft.sparse_coo_tensor([[1, 1]], [[1.0, 2.0], [3.0, 4.0]], (4, 2)), alpha=-0.5)
    assert w.tolist() == [[0.0, 0.0], [-2.0, -3.0], [0.0, 0.0], [0.0, 0.0]] and w._version == 1
    leaf = weft.zeros(4, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        leaf.add_(weft.sparse_coo_tensor([[1]], [[1.0, 2.0]], (4, 2)))


def test_a_process_without_sparse_tensors_runs_the_functions_own_bodies():
    program = (
        "import weft\n"
        "before = weft.mm.__code__\n"
        "weft.ones(2, 2) @ weft.ones(2, 2)\n"
        "assert weft.mm.__code__ is before\n"
        "weft.ones(2, 2).to_sparse()\n"
        "assert weft.mm.__code__ is not before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_dense_parameter_takes_a_sparse_gradient():
    p = weft.nn.Parameter(weft.ones(4, 3))
    g = weft.tensor([[0.0, 2.0, 0.0], [0.0] * 3, [1.0, 0.0, 0.0], [0.0] * 3])
    p.grad = g.to_sparse()
    weft.optim.SGD([p], lr=0.5).step()
    np.testing.assert_array_equal(p.detach().numpy(), 1 - 0.5 * g.numpy())
    before = p.detach().numpy().copy()
    p.grad = g.to_sparse(1)
    weft.optim.SparseAdam([p], lr=0.1).step()
    moved = (p.detach().numpy() != before).any(1)
    np.testing.assert_array_equal(moved, [True, False, True, False])
    with pytest.raises(RuntimeError, match="different size"):
        p.grad = weft.ones(4, 2).to_sparse()
